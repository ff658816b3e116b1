//! Signals: SIGINT and SIGTERM end the server in order, and a second one at once. SIGHUP never ends it, whoever hangs up.

use std::{
    error::Error,
    fs, io,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::Duration,
};

use log::{info, warn};
use nix::sys::signal::{SigSet, Signal};
use switchboard::ServerHandle;

/// How long connections have to end after the first signal.
const GRACE: Duration = Duration::from_secs(10);

/// Enough for a logger.
const STACK: usize = 64 * 1024;

/// SIGHUP, blocked in all threads: so it comes to no handler, whatever ctrlc sets for it.
#[derive(Debug)]
pub(super) struct Hangup(SigSet);

impl Hangup {
    /// Blocks it. Threads inherit this, so it has to be done before the first one is started.
    pub(super) fn block() -> Result<Self, Box<dyn Error>> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGHUP);
        signals.thread_block()?;
        Ok(Self(signals))
    }

    /// Takes it on a thread of its own from now on; but one that was ignored when the program was started, as by `nohup`,
    /// stays ignored.
    pub(super) fn watch(self) -> io::Result<()> {
        if !is_ignored(Signal::SIGHUP) {
            let wait = move || {
                while self.0.wait().is_ok() {
                    info!("SIGHUP has no effect; SIGTERM ends the server");
                }
            };
            thread::Builder::new().name("switchboard-hup".into()).stack_size(STACK).spawn(wait)?;
        }
        Ok(())
    }
}

/// Whether the program was started with this signal ignored. Where the system does not tell, it was not.
pub(super) fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal as u32 - 1) & 1 == 1)
}

/// Shuts the server down at the first SIGINT or SIGTERM.
pub(super) fn stop_on_signals(server: ServerHandle) -> Result<(), ctrlc::Error> {
    let interrupted = AtomicBool::new(false);
    ctrlc::set_handler(move || {
        if interrupted.swap(true, SeqCst) {
            warn!("exiting at once");
            log::logger().flush();
            std::process::exit(130);
        }
        info!("shutting down; interrupt again to exit at once");
        server.shutdown(GRACE);
    })
}

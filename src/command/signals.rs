//! Signals: SIGINT and SIGTERM end the server in order, and a second one at once. SIGHUP never ends it, whoever hangs up: it has
//! certificates loaded again.

use std::{
    error::Error,
    fs, io, thread,
    time::{Duration, Instant},
};

use log::{info, warn};
use nix::sys::signal::{SigSet, Signal};
use switchboard::ServerHandle;

/// How long connections have to end after the first signal.
const GRACE: Duration = Duration::from_secs(10);

/// Two signals within so short a time are one that was sent twice, as by `timeout`, to a process and to its group: nobody presses a
/// key so fast.
const TWIN: Duration = Duration::from_millis(100);

/// Enough to check a certificate by a handshake.
const STACK: usize = 256 * 1024;

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

    /// Takes it on a thread of its own from now on, which calls this; but one that was ignored when the program was started, as
    /// by `nohup`, stays ignored.
    pub(super) fn watch(self, told: impl Fn() + Send + 'static) -> io::Result<()> {
        if !is_ignored(Signal::SIGHUP) {
            let wait = move || {
                while self.0.wait().is_ok() {
                    told();
                }
            };
            thread::Builder::new().name("switchboard-hup".into()).stack_size(STACK).spawn(wait)?;
        }
        Ok(())
    }
}

/// What SIGHUP does where there is no certificate to be loaded again.
pub(super) fn ignore_hangup() {
    info!("SIGHUP has no effect; SIGTERM ends the server");
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
    let mut first = None::<Instant>;
    ctrlc::set_handler(move || match first {
        None => {
            first = Some(Instant::now());
            info!("shutting down; interrupt again to exit at once");
            server.shutdown(GRACE);
        }
        Some(first) if first.elapsed() < TWIN => {}
        Some(_) => {
            warn!("exiting at once");
            log::logger().flush();
            std::process::exit(130);
        }
    })
}

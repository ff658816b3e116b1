//! Signals: SIGINT and SIGTERM end the server in order, and a second one at once. SIGHUP never ends it, whoever hangs up: it has
//! certificates loaded again, and the log's file opened again.

use std::{
    fs, io, thread,
    time::{Duration, Instant},
};

use log::{info, warn};
use nix::sys::signal::{SigSet, Signal, raise};
use switchboard::ServerHandle;

use super::systemd::Service;

/// How long connections have to end after the first signal.
const GRACE: Duration = Duration::from_secs(10);

/// Two signals within so short a time are one that was sent twice, as by `timeout`, to a process and to its group: nobody presses a
/// key so fast.
pub(super) const TWIN: Duration = Duration::from_millis(100);

/// Enough to check a certificate by a handshake.
const STACK: usize = 256 * 1024;

/// A signal that is blocked in all threads: so it comes to no handler, whatever ctrlc sets for it.
#[derive(Debug)]
pub(super) struct Blocked(Signal);

impl Blocked {
    /// Blocks it. Threads inherit this, so it has to be done before the first one is started.
    pub(super) fn new(signal: Signal) -> nix::Result<Self> {
        SigSet::from(signal).thread_block()?;
        Ok(Self(signal))
    }

    /// Takes it on a thread of its own from now on, which calls this; but one that was ignored when the program was started, as
    /// by `nohup`, stays ignored.
    pub(super) fn watch(self, told: impl Fn() + Send + 'static) -> io::Result<()> {
        if !is_ignored(self.0) {
            let wait = move || {
                while SigSet::from(self.0).wait().is_ok() {
                    told();
                }
            };
            thread::Builder::new().name("switchboard-sig".into()).stack_size(STACK).spawn(wait)?;
        }
        Ok(())
    }
}

/// Has the signal that is blocked do in this moment what it does by itself.
pub(super) fn let_through(signal: Signal) -> nix::Result<()> {
    SigSet::from(signal).thread_unblock()?;
    raise(signal)?; // to this thread: it is done when this returns
    SigSet::from(signal).thread_block()
}

/// What SIGHUP does where there is no certificate to be loaded again; the log's file may have been opened again.
pub(super) fn on_hangup(has_reopened: bool) {
    if !has_reopened {
        info!("SIGHUP has no effect; SIGTERM ends the server");
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
pub(super) fn stop_on_signals(server: ServerHandle, service: Service) -> Result<(), ctrlc::Error> {
    let mut first = None::<Instant>;
    ctrlc::set_handler(move || match first {
        None => {
            first = Some(Instant::now());
            info!("shutting down; interrupt again to exit at once");
            server.shutdown(GRACE);
            service.stopping(server.connections());
        }
        Some(first) if first.elapsed() < TWIN => {}
        Some(_) => {
            warn!("exiting at once");
            log::logger().flush();
            std::process::exit(130);
        }
    })
}

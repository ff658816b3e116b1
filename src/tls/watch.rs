//! The thread that has certificates loaded again when their files have changed.

use std::{
    fmt,
    io::{self, PipeReader, PipeWriter},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::changes::{Changes, Waited};
use crate::{error::TlsError, thread};

/// So long files have to be left alone before they are loaded: a certificate and its key are two files, and written one after the
/// other.
const SETTLE: Duration = Duration::from_millis(300);

/// Checking a new certificate does a handshake.
const STACK: usize = 256 * 1024;

/// A file that cannot be read, such as on a network's file system that is gone, holds nobody longer than this.
const PATIENCE: Duration = Duration::from_secs(5);

/// The files of a [`TlsIdentity`](crate::TlsIdentity) are watched as long as this is there; made by
/// [`TlsIdentity::watch`](crate::TlsIdentity::watch).
#[must_use = "the files are watched until this is dropped: give it a name, not `_`"]
pub struct TlsWatch {
    /// Closing it ends the thread.
    stop: Option<PipeWriter>,
    ended: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl TlsWatch {
    /// Starts the thread. `reload` says whether there was anything new.
    pub(super) fn start(
        changes: Changes,
        reload: impl FnMut() -> Result<bool, TlsError> + Send + 'static,
    ) -> io::Result<Self> {
        let (stopped, stop) = io::pipe()?;
        let (end, ended) = bounded(0);
        let mut watching = Watching { stopped, changes, reload, refused: None };
        let run = move || {
            watching.run();
            drop((watching, end));
        };
        let thread = thread::spawn("switchboard-cert", STACK, run)?;
        Ok(Self { stop: Some(stop), ended, thread: Some(thread) })
    }
}

impl Drop for TlsWatch {
    fn drop(&mut self) {
        self.stop = None;
        let ended = self.ended.recv_timeout(PATIENCE);
        if let Some(thread) = self.thread.take()
            && ended != Err(RecvTimeoutError::Timeout)
        {
            let _ = thread.join(); // it fails if a logger panicked
        }
    }
}

impl fmt::Debug for TlsWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsWatch")
    }
}

struct Watching<R> {
    stopped: PipeReader,
    changes: Changes,
    reload: R,
    /// Why the files could not be used the last time: they are tried again, and the log need not repeat it.
    refused: Option<String>,
}

impl<R: FnMut() -> Result<bool, TlsError>> Watching<R> {
    fn run(&mut self) {
        self.changes.look();
        self.load(); // they may have changed since they were loaded
        let mut changed: Option<Instant> = None;
        loop {
            let timeout = changed.map_or(self.changes.interval(), |at| SETTLE.saturating_sub(at.elapsed()));
            match self.changes.wait(&self.stopped, timeout) {
                Ok(Waited::Look) => {}
                Ok(Waited::Stop) => return,
                Err(e) => return log::error!("certificates are not watched any more: {e}"),
            }
            if self.changes.look() {
                changed = Some(Instant::now());
            } else if changed.is_some_and(|at| at.elapsed() >= SETTLE) {
                changed = None;
                self.load();
            } else if changed.is_none() && self.refused.is_some() {
                self.load(); // what was missing may have been a descriptor, or the right time
            }
        }
    }

    fn load(&mut self) {
        match (self.reload)() {
            Ok(_) => self.refused = None,
            Err(e) => {
                let why = e.to_string();
                if self.refused.as_ref() != Some(&why) {
                    log::error!("{why}; the certificate from before stays in use");
                }
                self.refused = Some(why);
            }
        }
    }
}

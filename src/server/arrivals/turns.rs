//! Where the system has no such queue: one thread waits, for all listeners, and the others until it has found somebody.

use std::sync::{
    Condvar, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use super::*;
use crate::{deadline::Deadline, sync::LockExt};

#[derive(Debug)]
pub(in crate::server) struct Arrivals {
    taken: Mutex<bool>,
    freed: Condvar,
    /// The listener that was found last.
    last: AtomicUsize,
}

impl Arrivals {
    pub(in crate::server) fn new(_: &[Listener], _: &Bell) -> io::Result<Self> {
        Ok(Self { taken: Mutex::new(false), freed: Condvar::new(), last: AtomicUsize::new(0) })
    }

    /// Waits for so long at most, or until the bell rings, for a listener that has somebody. Whoever gets one says when
    /// it is [`free`](Self::free) again.
    pub(in crate::server) fn wait(
        &self,
        listeners: &[Listener],
        bell: &Bell,
        timeout: Option<Duration>,
    ) -> io::Result<Option<usize>> {
        let deadline = Deadline::after(timeout.unwrap_or(Duration::MAX));
        let mut taken = self.taken.locked();
        while *taken {
            let Some(left) = deadline.remaining() else { return Ok(None) };
            taken = self.freed.wait_timeout(taken, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *taken = true;
        drop(taken);
        let mut fds = vec![PollFd::new(&bell.read, PollFlags::IN)];
        fds.extend(listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
        // Also when the time is up: whoever comes after has to be told that nobody waits here any more.
        let polled = poll(&mut fds, Some(&timespec(deadline.remaining().unwrap_or_default())));
        let ready: Vec<_> = (0..listeners.len()).filter(|i| !fds[i + 1].revents().is_empty()).collect();
        // In turn: one that never rests must not keep the others waiting.
        let last = self.last.load(Relaxed);
        let found = ready.iter().find(|i| **i > last).or(ready.first()).copied();
        self.last.store(found.unwrap_or(last), Relaxed);
        match polled {
            Ok(_) if found.is_some() => return Ok(found),
            Ok(_) | Err(Errno::INTR) => self.leave(),
            Err(e) => {
                self.leave();
                return Err(e.into());
            }
        }
        Ok(None)
    }

    /// The next one who comes may be given to anyone.
    pub(in crate::server) fn free(&self, _: usize, _: &Listener) -> io::Result<()> {
        self.leave();
        Ok(())
    }

    fn leave(&self) {
        *self.taken.locked() = false;
        self.freed.notify_one();
    }
}

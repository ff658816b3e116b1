//! Waiting for clients, by several threads at once: each client wakes one of them.

use std::{io, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::OwnedFd,
    io::Errno,
};

pub(super) use self::system::Arrivals;
use super::listener::Listener;

/// Wakes who waits for it: a pipe, so that it can be waited for along with other things.
#[derive(Debug)]
pub(super) struct Bell {
    read: OwnedFd,
    write: OwnedFd,
}

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        let (read, write) = io::pipe()?;
        let bell = Self { read: read.into(), write: write.into() };
        for end in [&bell.read, &bell.write] {
            rustix::io::ioctl_fionbio(end, true)?;
        }
        Ok(bell)
    }

    pub(super) fn ring(&self) {
        // A full pipe has been rung already.
        let _ = rustix::io::write(&self.write, &[1]);
    }

    /// Waits until it rings, for so long at most, and silences it.
    pub(super) fn wait(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.watch(timeout)?;
        while matches!(rustix::io::read(&self.read, &mut [0; 64][..]), Ok(64)) {}
        Ok(())
    }

    /// Waits until it rings, and leaves it ringing for others.
    pub(super) fn watch(&self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.map(timespec);
        match poll(&mut [PollFd::new(&self.read, PollFlags::IN)], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

fn timespec(timeout: Duration) -> Timespec {
    // The system has a limit of its own, far beyond any use.
    let timeout = timeout.min(Duration::from_secs(86_400));
    Timespec { tv_sec: timeout.as_secs() as _, tv_nsec: timeout.subsec_nanos() as _ }
}

/// The system's queue of listeners that have somebody gives each of them to one thread, and says nothing more of it until
/// it is told to.
#[cfg(any(target_os = "linux", target_os = "android"))]
mod system {
    use rustix::{
        event::epoll::{self, CreateFlags, Event, EventData, EventFlags},
        fd::AsFd,
    };

    use super::*;

    const BELL: u64 = u64::MAX;

    #[derive(Debug)]
    pub(in super::super) struct Arrivals(OwnedFd);

    impl Arrivals {
        pub(in super::super) fn new(listeners: &[Listener], bell: &Bell) -> io::Result<Self> {
            let queue = epoll::create(CreateFlags::CLOEXEC)?;
            epoll::add(&queue, &bell.read, EventData::new_u64(BELL), EventFlags::IN)?;
            for (index, listener) in listeners.iter().enumerate() {
                epoll::add(&queue, listener.as_fd(), EventData::new_u64(index as u64), ONCE)?;
            }
            Ok(Self(queue))
        }

        /// Waits for so long at most, or until the bell rings, for a listener that has somebody. Whoever gets one says when
        /// it is [`free`](Self::free) again.
        pub(in super::super) fn wait(
            &self,
            _: &[Listener],
            _: &Bell,
            timeout: Option<Duration>,
        ) -> io::Result<Option<usize>> {
            let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(BELL) }];
            match epoll::wait(&self.0, &mut events, timeout.map(timespec).as_ref()) {
                Ok(0) | Err(Errno::INTR) => Ok(None),
                Ok(_) => {
                    let [Event { data, .. }] = events;
                    Ok((data.u64() != BELL).then_some(data.u64() as usize))
                }
                Err(e) => Err(e.into()),
            }
        }

        /// The next one who comes to this listener may be given to anyone.
        pub(in super::super) fn free(&self, index: usize, listener: &Listener) -> io::Result<()> {
            Ok(epoll::modify(&self.0, listener.as_fd(), EventData::new_u64(index as u64), ONCE)?)
        }
    }

    const ONCE: EventFlags = EventFlags::IN.union(EventFlags::ONESHOT);
}

/// One thread waits, for all listeners, and the others until it has found somebody.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod system {
    use std::sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use super::*;
    use crate::{deadline::Deadline, sync::LockExt};

    #[derive(Debug)]
    pub(in super::super) struct Arrivals {
        taken: Mutex<bool>,
        freed: Condvar,
        /// The listener that was found last.
        last: AtomicUsize,
    }

    impl Arrivals {
        pub(in super::super) fn new(_: &[Listener], _: &Bell) -> io::Result<Self> {
            Ok(Self { taken: Mutex::new(false), freed: Condvar::new(), last: AtomicUsize::new(0) })
        }

        /// Waits for so long at most, or until the bell rings, for a listener that has somebody. Whoever gets one says when
        /// it is [`free`](Self::free) again.
        pub(in super::super) fn wait(
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
        pub(in super::super) fn free(&self, _: usize, _: &Listener) -> io::Result<()> {
            self.leave();
            Ok(())
        }

        fn leave(&self) {
            *self.taken.locked() = false;
            self.freed.notify_one();
        }
    }
}

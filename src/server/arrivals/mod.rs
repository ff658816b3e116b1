//! Waiting for clients, by several threads at once: each client wakes one of them.

use std::{io, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::OwnedFd,
    io::Errno,
};

#[cfg(any(target_os = "linux", target_os = "android"))]
mod epoll;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod turns;

#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) use self::epoll::Arrivals;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) use self::turns::Arrivals;
use super::listener::Listener;
use crate::deadline::timespec;

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

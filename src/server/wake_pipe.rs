//! A pipe that wakes a thread which waits in `poll`, also along with other descriptors. Used by the accepting threads and
//! by the thread that called `run`. To wake never waits.

use std::{io, time::Duration};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::Errno,
};

use crate::deadline::timespec;

#[derive(Debug)]
pub(super) struct WakePipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl WakePipe {
    pub(super) fn new() -> io::Result<Self> {
        let (read, write) = io::pipe()?;
        let pipe = Self { read: read.into(), write: write.into() };
        for end in [&pipe.read, &pipe.write] {
            rustix::io::ioctl_fionbio(end, true)?;
        }
        Ok(pipe)
    }

    /// Wakes the thread that waits, or else the one that waits next.
    pub(super) fn wake(&self) {
        // It fails when the pipe is full, which wakes as well.
        let _ = rustix::io::write(&self.write, &[1]);
    }

    /// Waits until it is woken, for so long at most, and takes note of it: the next call waits again.
    pub(super) fn wait(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.wait_and_keep(timeout)?;
        self.reset();
        Ok(())
    }

    /// Takes note of it: the next call waits again.
    pub(super) fn reset(&self) {
        while matches!(rustix::io::read(&self.read, &mut [0; 64][..]), Ok(64)) {}
    }

    /// Waits until it is woken, for so long at most, and leaves it so: all other threads that wait are woken, too, now and
    /// later.
    pub(super) fn wait_and_keep(&self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.map(timespec);
        match poll(&mut [PollFd::new(self, PollFlags::IN)], timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

/// It is readable when it was woken.
impl AsFd for WakePipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }
}

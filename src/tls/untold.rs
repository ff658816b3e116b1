//! In place of `folders` on systems that tell nothing of changes in folders, or not in the way that we know.

use std::{io, path::PathBuf};

use rustix::fd::{AsFd, BorrowedFd};

#[derive(Debug)]
pub(super) enum Folders {}

impl Folders {
    pub(super) fn new() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn follow(&mut self, _: &[PathBuf]) {
        match *self {}
    }

    pub(super) fn drain(&self) {
        match *self {}
    }
}

impl AsFd for Folders {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match *self {}
    }
}

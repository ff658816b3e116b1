//! Whether files have changed, and waiting for that. Their stamps decide; what the system tells of their folders only says when to
//! look, for it tells nothing of a network's file system, or if it has too many watchers already.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::AsFd,
    io::Errno,
};

use super::folders::Folders;
use crate::deadline::timespec;

/// How often files are looked at even if nothing is told.
const INTERVAL: Duration = Duration::from_secs(60);

/// The same where the system cannot tell.
const INTERVAL_UNTOLD: Duration = Duration::from_secs(10);

/// After a change in a folder: there may be many, such as where logs are written.
const PAUSE: Duration = Duration::from_millis(50);

/// Device, inode, size, and the times of the last changes of content and of rights; `None`: there is no such file.
type Stamp = Option<[i128; 5]>;

#[derive(Debug)]
pub(super) struct Changes {
    files: Vec<PathBuf>,
    folders: Option<Folders>,
    /// How often they are looked at if nothing is told.
    interval: Duration,
    stamps: Vec<Stamp>,
}

/// Why a wait has ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// Something may have changed, or the time is up.
    Look,
    Stop,
}

impl Changes {
    pub(super) fn new(files: Vec<PathBuf>) -> Self {
        match Folders::new() {
            Ok(folders) => Self { files, folders: Some(folders), interval: INTERVAL, stamps: Vec::new() },
            Err(e) => {
                let seconds = INTERVAL_UNTOLD.as_secs();
                log::info!(
                    "certificates are looked at every {seconds} s, for the system does not tell of changes: {e}"
                );
                Self::untold(files, INTERVAL_UNTOLD)
            }
        }
    }

    /// Without the system's help.
    pub(super) fn untold(files: Vec<PathBuf>, interval: Duration) -> Self {
        Self { files, folders: None, interval, stamps: Vec::new() }
    }

    /// Whether the files are not those any more of the last look.
    pub(super) fn look(&mut self) -> bool {
        // Before the stamps are taken: what changes later is told.
        if let Some(folders) = &mut self.folders {
            folders.follow(&self.files);
        }
        let now = self.files.iter().map(|file| stamp(file)).collect();
        let before = std::mem::replace(&mut self.stamps, now);
        before != self.stamps
    }

    /// How long to wait until the next look.
    pub(super) fn interval(&self) -> Duration {
        self.interval
    }

    /// Waits until something may have changed, for so long at most, or until `stop` is readable or ended.
    pub(super) fn wait(&self, stop: &impl AsFd, timeout: Duration) -> io::Result<Waited> {
        let mut fds = vec![PollFd::new(stop, PollFlags::IN)];
        fds.extend(self.folders.iter().map(|folders| PollFd::new(folders, PollFlags::IN)));
        wait(&mut fds, timeout)?;
        let told = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        if told && fds[0].revents().is_empty() {
            wait(&mut fds[..1], PAUSE)?;
            self.folders.iter().for_each(Folders::drain);
        }
        Ok(if fds[0].revents().is_empty() { Waited::Look } else { Waited::Stop })
    }
}

fn wait(fds: &mut [PollFd<'_>], timeout: Duration) -> io::Result<()> {
    match poll(fds, Some(&timespec(timeout))) {
        Ok(_) => Ok(()),
        Err(Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn stamp(file: &Path) -> Stamp {
    let found = fs::metadata(file).ok()?;
    let time = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    Some([
        found.dev().into(),
        found.ino().into(),
        found.size().into(),
        time(found.mtime(), found.mtime_nsec()),
        time(found.ctime(), found.ctime_nsec()),
    ])
}

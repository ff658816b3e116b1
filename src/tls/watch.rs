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

/// So many lines about files that cannot be used, each another one, are written within the interval at which they are tried again.
/// What is left out then is written at the end of it, if it still holds.
const MAX_LINES: usize = 10;

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
        let mut watching = Watching { stopped, changes, reload, refused: None, told: Told::default() };
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
    /// When the files could not be used, if that was the last time: they are tried again.
    refused: Option<Instant>,
    told: Told,
}

/// What the log has: it need not repeat it.
#[derive(Default)]
struct Told {
    /// The last line, if the files have not been good since.
    why: Option<String>,
    /// How many lines there were since then.
    lines: usize,
    since: Option<Instant>,
}

impl Told {
    /// Whether this is to be told now, so long after the first of the lines that are counted.
    fn is_news(&mut self, why: &str, interval: Duration) -> bool {
        if self.since.is_none_or(|since| since.elapsed() >= interval) {
            (self.since, self.lines) = (Some(Instant::now()), 0);
        }
        if self.why.as_deref() == Some(why) || self.lines == MAX_LINES {
            return false;
        }
        self.why = Some(why.to_owned());
        self.lines += 1;
        true
    }
}

impl<R: FnMut() -> Result<bool, TlsError>> Watching<R> {
    fn run(&mut self) {
        self.changes.look();
        let mut changed = self.load(); // they may have changed since they were loaded before
        loop {
            let timeout = changed.map_or(self.changes.interval(), |at| SETTLE.saturating_sub(at.elapsed()));
            match self.changes.wait(&self.stopped, timeout) {
                Ok(Waited::Look) => {}
                Ok(Waited::Stop) => return,
                Err(e) => return log::error!("certificates are not watched any more: {e}"),
            }
            if self.changes.look() {
                changed = Some(Instant::now());
            } else if changed.map_or_else(|| self.is_retry_due(), |at| at.elapsed() >= SETTLE) {
                changed = self.load();
            }
        }
    }

    /// What was missing may have been a descriptor, or the right time.
    fn is_retry_due(&self) -> bool {
        self.refused.is_some_and(|at| at.elapsed() >= self.changes.interval())
    }

    /// Returns when the files have changed, if that was meanwhile, and they are to be loaded once more.
    fn load(&mut self) -> Option<Instant> {
        match (self.reload)() {
            Ok(_) => (self.refused, self.told.why) = (None, None),
            // Half of it may be the new one, and half the old one.
            Err(_) if self.changes.look() => return Some(Instant::now()),
            Err(e) => {
                let why = e.to_string();
                if self.told.is_news(&why, self.changes.interval()) {
                    log::error!("{why}; what was loaded before stays in use");
                }
                self.refused = Some(Instant::now());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use crossbeam_channel::unbounded;

    use super::*;

    /// Where the system tells nothing, files are looked at from time to time; and those that were refused are tried again also if
    /// they do not change, and the thread ends when it is to, whatever it waits for.
    #[test]
    fn without_the_help_of_the_system_changes_are_found_by_looking() {
        let file = std::env::temp_dir().join(format!("switchboard-watch-{}", std::process::id()));
        fs::write(&file, "one").unwrap();
        let (told, loaded) = unbounded();
        let read = file.clone();
        let reload = move || {
            let text = fs::read_to_string(&read).unwrap_or_default();
            told.send(text.clone()).unwrap();
            if text.is_empty() { Err(TlsError::new("it is gone")) } else { Ok(true) }
        };
        let changes = Changes::untold(vec![file.clone()], Duration::from_millis(10));
        let watch = TlsWatch::start(changes, reload).unwrap();
        let next = || loaded.recv_timeout(Duration::from_secs(20)).unwrap();
        assert_eq!(next(), "one");
        fs::write(&file, "other").unwrap();
        assert_eq!(next(), "other");
        fs::remove_file(&file).unwrap();
        assert_eq!([next(), next(), next()], ["", "", ""]);
        fs::write(&file, "again").unwrap();
        while next() != "again" {}
        drop(watch);
        fs::remove_file(file).unwrap();
        assert!(loaded.iter().all(|text| text == "again"), "until the thread has ended");
    }

    /// Certificate and key are written one after the other, and nobody wants to hear of what is between.
    #[test]
    fn files_that_go_on_changing_are_left_alone() {
        let file = std::env::temp_dir().join(format!("switchboard-settle-{}", std::process::id()));
        fs::write(&file, "").unwrap();
        let (told, loaded) = unbounded();
        let read = file.clone();
        let reload = move || {
            told.send(fs::read_to_string(&read).unwrap_or_default()).unwrap();
            Ok(true)
        };
        let watch = TlsWatch::start(Changes::new(vec![file.clone()]), reload).unwrap();
        let next = || loaded.recv_timeout(Duration::from_secs(20)).unwrap();
        next();
        for n in 0..10 {
            fs::write(&file, n.to_string()).unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
        let times = std::iter::repeat_with(next).take_while(|text| text != "9").count();
        assert!(times < 5, "{times}");
        drop(watch);
        fs::remove_file(file).unwrap();
    }

    /// What is refused is not tried again whenever something else happens in its folder.
    #[test]
    fn a_busy_folder_costs_little() {
        let folder = std::env::temp_dir().join(format!("switchboard-busy-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (told, loaded) = unbounded();
        let reload = move || {
            told.send(()).unwrap();
            Err(TlsError::new("no such file"))
        };
        let watch = TlsWatch::start(Changes::new(vec![folder.join("file")]), reload).unwrap();
        for _ in 0..10 {
            fs::write(folder.join("other"), "").unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
        drop(watch);
        assert_eq!(loaded.iter().count(), 1);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn of_many_different_reasons_only_the_first_are_told_and_later_the_last() {
        let mut told = Told::default();
        let news = |told: &mut Told, n: u32, interval| told.is_news(&n.to_string(), interval);
        let lines: Vec<u32> = (0..1000).filter(|n| news(&mut told, n / 2, Duration::MAX)).collect();
        assert_eq!(lines, (0..MAX_LINES as u32).map(|n| 2 * n).collect::<Vec<_>>());
        assert_eq!([499; 2].map(|n| news(&mut told, n, Duration::ZERO)), [true, false]);
    }

    #[test]
    fn a_watch_ends_at_once() {
        let begun = Instant::now();
        for changes in [Changes::new(Vec::new()), Changes::untold(Vec::new(), Duration::MAX)] {
            drop(TlsWatch::start(changes, || Ok(false)).unwrap());
        }
        let missing = PathBuf::from("/none/of/these");
        drop(TlsWatch::start(Changes::new(vec![missing]), || Err(TlsError::new("no such file"))).unwrap());
        assert!(begun.elapsed() < PATIENCE);
    }
}

//! The thread that writes the log. What it cannot write is counted, and told when it can be written again.

use std::{
    fs::File,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant, SystemTime},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use log::Level;

use super::{file::LogFile, format::Format, syslog::Syslog, write};
use crate::command::dates::iso;

/// How long after a line was lost it is tried whether the next one would be; the double each time, up to the second of these.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// What it does next.
pub(super) enum Task {
    Write(Vec<u8>),
    /// Nothing but to see whether something else is wanted.
    Wake,
    /// Drops this: all that was queued before is written.
    Tell(Sender<()>),
}

/// Where lines go.
#[derive(Debug)]
pub(super) enum Sink {
    /// Standard error.
    Stream(File),
    File(LogFile),
    Syslog(Syslog),
}

impl Sink {
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        match self {
            Self::Stream(file) => write(file, line),
            Self::File(file) => file.write(line),
            Self::Syslog(syslog) => syslog.write(line),
        }
    }
}

pub(super) struct Writer {
    pub(super) sink: Sink,
    pub(super) format: Arc<Format>,
    /// The file is to be opened again.
    pub(super) reopen: Arc<AtomicBool>,
    pub(super) lost: Option<Lost>,
}

/// Lines that were not written.
#[derive(Debug)]
pub(super) struct Lost {
    count: u64,
    since: Instant,
    why: String,
    retry: Duration,
}

impl Writer {
    pub(super) fn run(mut self, tasks: &Receiver<Task>) {
        loop {
            let task = match &self.lost {
                None => tasks.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(lost) => tasks.recv_timeout(lost.retry),
            };
            match task {
                Ok(task) => self.take(task),
                Err(RecvTimeoutError::Timeout) => self.try_again(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn take(&mut self, task: Task) {
        if self.reopen.swap(false, SeqCst) {
            self.open_again();
        }
        match task {
            Task::Write(line) => {
                self.put(&line);
                self.tell_note();
            }
            Task::Wake => {}
            Task::Tell(done) => {
                self.tell_lost();
                drop(done);
            }
        }
    }

    fn open_again(&mut self) {
        let Sink::File(file) = &mut self.sink else { return };
        let path = file.path().display().to_string();
        match file.reopen() {
            Ok(()) => self.say(Level::Info, &format!("SIGHUP: {path} was opened again")),
            Err(e) => self.say(
                Level::Error,
                &format!("SIGHUP: {path} cannot be opened again: {e}; the log goes on where it was"),
            ),
        }
    }

    /// What there is to say of the file itself.
    fn tell_note(&mut self) {
        let Sink::File(file) = &mut self.sink else { return };
        if let Some(note) = file.take_note() {
            self.say(Level::Warn, &note);
        }
    }

    /// A line of its own.
    fn say(&mut self, level: Level, text: &str) {
        let line = self.format.line(level, module_path!(), text);
        self.put(&line);
    }

    /// Writes a line, or counts it.
    fn put(&mut self, line: &[u8]) {
        let is_written = self.tell_lost() && self.write(line);
        if let (false, Some(lost)) = (is_written, &mut self.lost) {
            lost.count += 1;
        }
    }

    /// One that is empty is not wanted at the level of the log.
    fn write(&mut self, line: &[u8]) -> bool {
        let result = if line.is_empty() { Ok(()) } else { self.sink.write(line) };
        let Err(e) = result else { return true };
        if self.lost.is_none() {
            self.lost =
                Some(Lost { count: 0, since: Instant::now(), why: e.to_string(), retry: FIRST_RETRY });
        }
        false
    }

    /// Nothing was logged meanwhile.
    fn try_again(&mut self) {
        if !self.tell_lost()
            && let Some(lost) = &mut self.lost
        {
            lost.retry = (lost.retry * 2).min(LAST_RETRY);
        }
    }

    /// Says how many lines were lost, if that can be said now. False: it cannot.
    fn tell_lost(&mut self) -> bool {
        let Some(lost) = &self.lost else { return true };
        // By the clock as it is now: it may have been set meanwhile.
        let since = SystemTime::now().checked_sub(lost.since.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH);
        let lines = if lost.count == 1 { "line of the log was" } else { "lines of the log were" };
        let text = format!("{} {lines} lost since {}: {}", lost.count, iso(since), lost.why);
        let line = self.format.line(Level::Warn, module_path!(), &text);
        let is_told = self.write(&line);
        if is_told {
            self.lost = None;
        }
        is_told
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use crossbeam_channel::bounded;
    use log::LevelFilter;

    use super::*;
    use crate::command::logging::format::Style;

    #[test]
    fn what_cannot_be_written_is_counted_and_nothing_else_happens() {
        let (queue, tasks) = bounded(16);
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        (0..3).for_each(|_| queue.send(Task::Write(b"line\n".to_vec())).unwrap());
        drop(queue);
        let format = Arc::new(Format::new(LevelFilter::Info, Style::Journal));
        let sink = Sink::Stream(File::from(OwnedFd::from(writer)));
        let mut writer = Writer { sink, format, reopen: Arc::default(), lost: None };
        tasks.iter().for_each(|task| writer.take(task));
        assert_eq!(writer.lost.as_ref().map(|lost| lost.count), Some(3));
        // Then it can.
        let (reader, into) = io::pipe().unwrap();
        writer.sink = Sink::Stream(File::from(OwnedFd::from(into)));
        writer.take(Task::Write(b"line\n".to_vec()));
        drop(writer);
        let told = io::read_to_string(reader).unwrap();
        assert!(
            told.starts_with("<4>3 lines of the log were lost since 20") && told.ends_with("\nline\n"),
            "{told}"
        );
        assert!(told.contains("Broken pipe"), "{told}");
    }
}

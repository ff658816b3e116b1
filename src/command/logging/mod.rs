//! Where the log goes. A thread of its own writes it: whoever logs only puts a line into a queue, and never waits for a reader
//! that is slow, stuck or gone. Lines that do not fit are dropped, and the next one that fits says how many; so it is with lines
//! that cannot be written, as to a full disk.

mod file;
mod format;
mod syslog;
mod writer;

use std::{
    env,
    error::Error,
    fmt,
    fs::File,
    io::{self, ErrorKind, Write},
    os::fd::AsFd,
    panic::{self, PanicHookInfo},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Sender, bounded};
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, poll};

use self::{
    file::{Bound, LogFile},
    format::{Format, Style},
    syslog::Syslog,
    writer::{Sink, Task, Writer},
};
use super::say::say;

/// So many lines wait to be written at most.
const QUEUE: usize = 1024;

/// Of the thread that writes.
const STACK: usize = 64 * 1024;

/// How long the end of the program waits for the log to be written.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where the log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum To {
    Stderr,
    /// The socket of a daemon.
    Syslog(PathBuf),
    File(PathBuf),
}

impl To {
    /// `stderr`, `syslog`, `syslog:SOCKET`, or a file.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" | "syslog:" => Err("must be stderr, syslog, syslog:SOCKET, or a file".into()),
            "stderr" => Ok(Self::Stderr),
            "syslog" => Ok(Self::Syslog(syslog::SOCKET.into())),
            text => Ok(match text.strip_prefix("syslog:") {
                Some(socket) => Self::Syslog(socket.into()),
                None => Self::File(text.into()),
            }),
        }
    }
}

/// The options of the log.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) level: LevelFilter,
    pub(super) to: To,
    /// Of a file: how large it becomes.
    pub(super) max_size: Option<u64>,
    /// And how many that were as large are kept beside it.
    pub(super) kept: u32,
}

impl Options {
    pub(super) fn check(&self) -> Result<(), String> {
        match (&self.to, self.max_size) {
            (To::Stderr | To::Syslog(_), Some(_)) => {
                Err("--log-max-size is for a file: add --log-to FILE".into())
            }
            _ => Ok(()),
        }
    }
}

/// Has a file opened again, if the log goes to one.
#[derive(Debug, Default)]
pub(super) struct Reopen(Option<(Arc<AtomicBool>, Sender<Task>)>);

impl Reopen {
    /// False: there is no file. Never waits.
    pub(super) fn again(&self) -> bool {
        let Some((wanted, queue)) = &self.0 else { return false };
        wanted.store(true, SeqCst);
        let _ = queue.try_send(Task::Wake); // if it is full, the thread is awake
        true
    }
}

/// Begins to log.
pub(super) fn init(options: &Options) -> Result<Reopen, Box<dyn Error>> {
    options.check()?;
    let (sink, style) = open(options)?;
    if options.level == LevelFilter::Off {
        return Ok(Reopen::default());
    }
    let (queue, tasks) = bounded(QUEUE);
    let format = Arc::new(Format::new(options.level, style));
    let wanted = Arc::<AtomicBool>::default();
    let reopen = Reopen(matches!(sink, Sink::File(_)).then(|| (wanted.clone(), queue.clone())));
    let writer = Writer { sink, format: format.clone(), reopen: wanted, lost: None };
    let thread = thread::Builder::new().name("switchboard-log".into()).stack_size(STACK);
    thread.spawn(move || writer.run(&tasks))?;
    log::set_boxed_logger(Box::new(Logger { format, queue, dropped: AtomicUsize::new(0) }))?;
    log::set_max_level(options.level);
    if env::var_os("RUST_BACKTRACE").is_none() {
        panic::set_hook(Box::new(log_panic)); // else it would be written by the thread that panics
    }
    Ok(reopen)
}

fn open(options: &Options) -> Result<(Sink, Style), Box<dyn Error>> {
    let failed = |path: &Path, e| format!("cannot write the log to {}: {e}", path.display());
    Ok(match &options.to {
        // A descriptor of our own: the lock of `stderr` would be held as long as a write takes.
        To::Stderr => {
            (Sink::Stream(File::from(io::stderr().as_fd().try_clone_to_owned()?)), Style::of_stderr())
        }
        To::File(path) => {
            let bound = options.max_size.map(|size| Bound { size, kept: options.kept });
            let file = LogFile::open(path.clone(), bound).map_err(|e| failed(path, e))?;
            (Sink::File(file), Style::Dated { colors: false })
        }
        To::Syslog(path) => {
            let mut syslog = Syslog::new(path.clone());
            if let Err(e) = syslog.connect() {
                // At boot it may come later; then it is told what was lost.
                say(&format!(
                    "{}; it goes there as soon as a syslog daemon listens",
                    failed(syslog.path(), e)
                ));
            }
            (Sink::Syslog(syslog), Style::Syslog)
        }
    })
}

/// Prints a last line, and waits for that no longer than for the log.
pub(super) fn tell(line: String) {
    log::logger().flush();
    let (done, told) = bounded::<()>(0);
    let print = move || {
        let priority = Style::of_stderr().prefix(Level::Error);
        let _ = writeln!(io::stderr(), "{priority}{line}"); // there is nobody left to be told
        drop(done);
    };
    if thread::Builder::new().spawn(print).is_ok() {
        let _ = told.recv_timeout(PATIENCE);
    }
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref().copied());
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    log::error!("panicked at {place}: {}", text.unwrap_or("a value that is no text"));
    if cfg!(panic = "abort") {
        log::logger().flush(); // the process ends next
    }
}

/// Writes all of it. Standard error may be non-blocking, if another process that has it wants it so.
pub(super) fn write(sink: &mut File, line: &[u8]) -> io::Result<()> {
    write_counted(sink, line).1
}

/// The same; with how much was written.
fn write_counted(sink: &mut File, line: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while let Some(rest @ [_, ..]) = line.get(written..) {
        match sink.write(rest) {
            Ok(n) => written += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                if let Err(e) = poll(&mut [PollFd::new(sink, PollFlags::OUT)], None) {
                    return (written, Err(e.into()));
                }
            }
            Err(e) => return (written, Err(e)),
        }
    }
    (written, Ok(()))
}

struct Logger {
    format: Arc<Format>,
    queue: Sender<Task>,
    /// Lines for which there was no room, and which were not told of.
    dropped: AtomicUsize,
}

impl Logger {
    /// Puts a line into the queue, if there is room.
    fn put(&self, line: Vec<u8>) -> bool {
        self.queue.try_send(Task::Write(line)).is_ok()
    }

    /// Waits until what is in the queue is written.
    fn drain(&self, deadline: Instant) {
        let (done, told) = bounded(0);
        if self.queue.send_deadline(Task::Tell(done), deadline).is_ok() {
            let _ = told.recv_deadline(deadline);
        }
    }

    /// Says how many lines were dropped, if there is room for that.
    fn tell_dropped(&self) {
        let dropped = self.dropped.swap(0, SeqCst);
        if dropped > 0 {
            let text = format!("{dropped} lines of the log were dropped: whoever reads it is too slow");
            if !self.put(self.format.line(Level::Warn, module_path!(), &text)) {
                self.dropped.fetch_add(dropped, SeqCst);
            }
        }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.format.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut text = String::new();
        let _ = fmt::write(&mut text, *record.args()); // a value that cannot be formatted ends it
        let line = self.format.line(record.level(), record.target(), &text);
        if line.is_empty() {
            return;
        }
        self.tell_dropped();
        if !self.put(line) {
            self.dropped.fetch_add(1, SeqCst);
        }
    }

    /// Waits until all is written, but not for a reader that is stuck.
    fn flush(&self) {
        let deadline = Instant::now() + PATIENCE;
        self.drain(deadline);
        if self.dropped.load(SeqCst) > 0 {
            self.tell_dropped(); // there is room for it only now
            self.drain(deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use crossbeam_channel::Receiver;

    use super::{format::LONGEST, *};

    fn logger() -> (Logger, Receiver<Task>) {
        let (queue, tasks) = bounded(QUEUE);
        let format = Arc::new(Format::new(LevelFilter::Info, Style::Dated { colors: false }));
        (Logger { format, queue, dropped: AtomicUsize::new(0) }, tasks)
    }

    fn log(logger: &Logger, text: &str) {
        logger.log(
            &Record::builder().level(Level::Info).target("switchboard").args(format_args!("{text}")).build(),
        );
    }

    fn text(task: Task) -> String {
        match task {
            Task::Write(line) => String::from_utf8(line).unwrap(),
            Task::Wake | Task::Tell(_) => String::new(),
        }
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_told() {
        let (logger, tasks) = logger();
        for n in 0..QUEUE + 5 {
            log(&logger, &format!("line {n}"));
        }
        assert_eq!(tasks.len(), QUEUE);
        let first = text(tasks.recv().unwrap());
        assert!(first.ends_with(" [INFO] line 0\n"), "{first}");
        log(&logger, "there is room for one line only");
        drop(tasks.recv());
        assert_eq!(logger.dropped.load(SeqCst), 1);
        drop(tasks.recv());
        log(&logger, "and again");
        let rest: Vec<_> = tasks.try_iter().map(text).collect();
        let [.., told, told_again, last] = &rest[..] else { panic!() };
        assert!(told.contains(" 5 lines of the log were dropped"), "{told}");
        assert!(told_again.contains(" 1 lines of the log were dropped"), "{told_again}");
        assert!(last.ends_with("and again\n"));
    }

    #[test]
    fn a_record_is_one_line_of_bounded_length() {
        let (logger, tasks) = logger();
        log(&logger, "one\ntwo\r\x1b[2J");
        log(&logger, &"ä".repeat(100_000));
        let first = text(tasks.recv().unwrap());
        assert!(first.ends_with(&format!("{}\n", r"one\ntwo\r\u{1b}[2J")), "{first}");
        let long = text(tasks.recv().unwrap());
        assert!(long.len() <= LONGEST && long.ends_with("ä…\n"), "{long}");
        let foreign = Record::builder().level(Level::Info).target("mio").args(format_args!("x")).build();
        logger.log(&foreign);
        assert!(tasks.is_empty());
    }

    #[test]
    fn a_descriptor_that_does_not_block_is_waited_for() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut writer = File::from(std::os::fd::OwnedFd::from(writer));
        rustix::io::ioctl_fionbio(&writer, true).unwrap();
        let line = vec![b'x'; 1 << 20];
        let expected = line.clone();
        let thread = thread::spawn(move || write(&mut writer, &line));
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        thread.join().unwrap().unwrap();
        assert!(read == expected);
    }
}

//! Where the log goes. A thread of its own writes it: whoever logs only puts a line into a queue, and never waits for a reader
//! that is slow, stuck or gone. Lines that do not fit are dropped, and the next one that fits says how many.

use std::{
    env,
    error::Error,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, IsTerminal, Write},
    os::{fd::AsFd, unix::fs::FileTypeExt},
    panic::{self, PanicHookInfo},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, poll};
use simplelog::{Config, ConfigBuilder, WriteLogger};

/// So many lines wait to be written at most.
const QUEUE: usize = 1024;

/// Longer lines are cut. So many bytes of a pipe are never mixed with what others write into it.
const LONGEST: usize = 4096;

/// Of the thread that writes.
const STACK: usize = 64 * 1024;

/// How long the end of the program waits for the log to be written.
const PATIENCE: Duration = Duration::from_secs(1);

/// Logs to the file, or else to standard error.
pub(super) fn init(level: LevelFilter, file: Option<&Path>) -> Result<(), Box<dyn Error>> {
    let (sink, colors) = match file {
        Some(path) => {
            let file = open(path).map_err(|e| format!("cannot write the log to {}: {e}", path.display()))?;
            (file, false)
        }
        // A descriptor of our own: the lock of `stderr` would be held as long as a write takes.
        None => (File::from(io::stderr().as_fd().try_clone_to_owned()?), is_color_terminal()),
    };
    if level == LevelFilter::Off {
        return Ok(());
    }
    let (queue, lines) = bounded(QUEUE);
    let dropped = Arc::new(AtomicUsize::new(0));
    let lost = dropped.clone();
    let writer = thread::Builder::new().name("switchboard-log".into()).stack_size(STACK);
    writer.spawn(move || write_all(&lines, sink, &lost))?;
    log::set_boxed_logger(Box::new(Logger { format: Format::new(level, colors), queue, dropped }))?;
    log::set_max_level(level);
    if env::var_os("RUST_BACKTRACE").is_none() {
        panic::set_hook(Box::new(log_panic)); // else it would be written by the thread that panics
    }
    Ok(())
}

/// Prints a last line, and waits for that no longer than for the log.
pub(super) fn tell(line: String) {
    log::logger().flush();
    let (done, told) = bounded::<()>(0);
    let print = move || {
        let _ = writeln!(io::stderr(), "{line}"); // there is nobody left to be told
        drop(done);
    };
    if thread::Builder::new().spawn(print).is_ok() {
        let _ = told.recv_timeout(PATIENCE);
    }
}

fn open(path: &Path) -> io::Result<File> {
    // Opened for writing alone, a pipe would wait for its reader, and know no other one.
    let is_pipe = fs::metadata(path).is_ok_and(|file| file.file_type().is_fifo());
    OpenOptions::new().create(!is_pipe).append(true).read(is_pipe).open(path)
}

fn is_color_terminal() -> bool {
    let is_dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
    let is_forbidden = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stderr().is_terminal() && !is_dumb && !is_forbidden
}

fn log_panic(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let text = payload.downcast_ref::<String>().map(String::as_str).or(payload.downcast_ref().copied());
    let place = info.location().map(ToString::to_string).unwrap_or_default();
    log::error!("panicked at {place}: {}", text.unwrap_or("a value that is no text"));
}

/// What the writing thread does next.
enum Task {
    Write(Vec<u8>),
    /// Drops this: all that was queued before is written.
    Tell(Sender<()>),
}

fn write_all(tasks: &Receiver<Task>, mut sink: File, lost: &AtomicUsize) {
    for task in tasks {
        match task {
            Task::Write(line) if write(&mut sink, &line).is_err() => {
                lost.fetch_add(1, SeqCst); // the reader is gone, or the disk full: perhaps not for ever
            }
            Task::Write(_) => {}
            Task::Tell(done) => drop(done),
        }
    }
}

/// Writes all of it. Standard error may be non-blocking, if another process that has it wants it so.
pub(super) fn write(sink: &mut File, mut line: &[u8]) -> io::Result<()> {
    while !line.is_empty() {
        match sink.write(line) {
            Ok(n) => line = line.get(n..).unwrap_or_default(),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(sink, PollFlags::OUT)], None)?;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

struct Logger {
    format: Format,
    queue: Sender<Task>,
    /// Lines that were not written, and not told of.
    dropped: Arc<AtomicUsize>,
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
        self.format.simple.enabled(metadata)
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

/// Makes lines: simplelog's, each on one line whatever is in it.
struct Format {
    simple: Box<WriteLogger<Buffer>>,
    buffer: Buffer,
    /// Whoever has this has the buffer.
    turn: Mutex<()>,
    colors: bool,
}

/// Where simplelog writes a line.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Format {
    fn new(level: LevelFilter, colors: bool) -> Self {
        let buffer = Buffer::default();
        let simple = WriteLogger::new(level, config(), buffer.clone());
        Self { simple, buffer, turn: Mutex::default(), colors }
    }

    /// Empty if lines of this target are not wanted. The text is complete: no code that is not ours runs in here.
    fn line(&self, level: Level, target: &str, text: &str) -> Vec<u8> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let args = format_args!("{text}");
        self.simple.log(&Record::builder().level(level).target(target).args(args).build());
        let line = std::mem::take(&mut *self.buffer.0.lock().unwrap_or_else(PoisonError::into_inner));
        drop(turn);
        let line = String::from_utf8_lossy(&line);
        let Some(line) = line.strip_suffix('\n') else { return Vec::new() };
        let mut line = one_line(line);
        if self.colors {
            let tag = format!("[{level}]");
            line = line.replacen(&tag, &format!("\x1b[{}m{tag}\x1b[0m", color(level)), 1);
        }
        line.push('\n');
        line.into_bytes()
    }
}

fn color(level: Level) -> u8 {
    match level {
        Level::Error => 31,
        Level::Warn => 33,
        Level::Info => 34,
        Level::Debug => 36,
        Level::Trace => 37,
    }
}

/// Escapes control characters, and cuts what is too long.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len() + 1);
    for c in text.chars() {
        if line.len() > LONGEST - 32 {
            line.push('…');
            break;
        }
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// With date and time, and only the lines of Switchboard itself, because tungstenite logs every frame.
fn config() -> Config {
    ConfigBuilder::new().set_time_format_rfc3339().add_filter_allow_str("switchboard").build()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn logger() -> (Logger, Receiver<Task>) {
        let (queue, tasks) = bounded(QUEUE);
        (Logger { format: Format::new(LevelFilter::Info, false), queue, dropped: Arc::default() }, tasks)
    }

    fn log(logger: &Logger, text: &str) {
        logger.log(
            &Record::builder().level(Level::Info).target("switchboard").args(format_args!("{text}")).build(),
        );
    }

    fn text(task: Task) -> String {
        match task {
            Task::Write(line) => String::from_utf8(line).unwrap(),
            Task::Tell(_) => String::new(),
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
    fn levels_have_colors_on_a_terminal() {
        let line = Format::new(LevelFilter::Info, true).line(Level::Warn, "switchboard", "[WARN]");
        let line = String::from_utf8(line).unwrap();
        assert!(line.ends_with(" \x1b[33m[WARN]\x1b[0m [WARN]\n"), "{line:?}");
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_nothing_else_happens() {
        let (queue, tasks) = bounded(QUEUE);
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        (0..3).for_each(|_| queue.send(Task::Write(b"line\n".to_vec())).unwrap());
        drop(queue);
        let lost = AtomicUsize::new(0);
        write_all(&tasks, File::from(std::os::fd::OwnedFd::from(writer)), &lost);
        assert_eq!(lost.load(SeqCst), 3);
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

//! Small files that are read whole: secrets, certificates, options. They may be pipes, such as a shell makes for `<(…)`; those are
//! waited for, but not for ever: a start that says nothing and does not go on is the worst that can be.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::OFlags,
    io::Errno,
};

/// So long a pipe has for all that is to come out of it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// Opens a file without waiting for whoever is to write into it, and without a terminal becoming ours.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32).open(path)
}

/// What is in an [opened](open) file: of one that has more than `most` bytes one more than that, by which it is too long. A pipe is
/// waited for with this `patience`.
pub(crate) fn read(file: &File, most: u64, patience: Duration) -> io::Result<Vec<u8>> {
    let end = Instant::now() + patience;
    let (mut content, mut rest) = (Vec::new(), file.take(most + 1));
    loop {
        // Of a pipe that nobody has opened for writing yet, a read would say that it has ended.
        wait(file, end, patience)?;
        match rest.read_to_end(&mut content) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            read => return read.map(|_| content),
        }
    }
}

/// The same as text.
#[cfg(feature = "__wire")]
pub(crate) fn read_text(file: &File, most: u64, patience: Duration) -> io::Result<String> {
    let no_text = |_| io::Error::new(ErrorKind::InvalidData, "it is no text: it has to be UTF-8");
    String::from_utf8(read(file, most, patience)?).map_err(no_text)
}

/// Waits until something can be read, or has ended. A regular file is always ready.
fn wait(file: &File, end: Instant, patience: Duration) -> io::Result<()> {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match poll(&mut [PollFd::new(file, PollFlags::IN)], Timespec::try_from(left).ok().as_ref()) {
            Ok(0) if left.is_zero() => {
                let text = format!("nobody has written all of it within {} s", patience.as_secs());
                return Err(io::Error::new(ErrorKind::TimedOut, text));
            }
            Ok(0) | Err(Errno::INTR) => {}
            ready => return ready.map(drop).map_err(Into::into),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write, path::PathBuf, thread};

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    /// A pipe with a name, removed at the end.
    struct Pipe(PathBuf);

    impl Pipe {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("switchboard-pipe-{name}-{}", std::process::id()));
            mkfifoat(CWD, &path, Mode::RWXU).unwrap();
            Self(path)
        }

        fn read(&self, patience: Duration) -> io::Result<Vec<u8>> {
            read(&open(&self.0).unwrap(), 9, patience)
        }

        fn writer(&self) -> File {
            File::options().write(true).open(&self.0).unwrap()
        }
    }

    impl Drop for Pipe {
        fn drop(&mut self) {
            fs::remove_file(&self.0).unwrap();
        }
    }

    #[test]
    fn a_pipe_that_nobody_writes_into_is_not_waited_for_without_end() {
        let pipe = Pipe::new("silent");
        for patience in [Duration::ZERO, Duration::from_millis(10)] {
            assert_eq!(pipe.read(patience).unwrap_err().kind(), ErrorKind::TimedOut);
            let both_ends = File::options().read(true).write(true).open(&pipe.0).unwrap();
            assert_eq!(pipe.read(patience).unwrap_err().kind(), ErrorKind::TimedOut);
            drop(both_ends);
        }
    }

    #[test]
    fn what_comes_late_and_bit_by_bit_is_waited_for() {
        let pipe = Pipe::new("slow");
        let content = thread::scope(|scope| {
            let reader = scope.spawn(|| pipe.read(Duration::from_secs(60)));
            let mut writer = pipe.writer(); // it waits for the reader
            for part in [b"ab", b"cd"] {
                writer.write_all(part).unwrap();
                while rustix::io::ioctl_fionread(&writer).unwrap() > 0 {
                    thread::yield_now();
                }
            }
            drop(writer);
            reader.join().unwrap()
        });
        assert_eq!(content.unwrap(), b"abcd");
    }

    #[test]
    fn a_file_is_read_at_once_and_a_device_without_end_is_not() {
        let path = Path::new("LICENSE-MIT");
        let all = read(&open(path).unwrap(), 1 << 20, Duration::ZERO).unwrap();
        assert_eq!(all, fs::read(path).unwrap());
        let most = |path| read(&open(Path::new(path)).unwrap(), 9, Duration::ZERO);
        assert_eq!(most("LICENSE-MIT").unwrap(), &all[..10]);
        assert_eq!(most("/dev/zero").unwrap(), [0; 10]);
        assert_eq!(most("/dev/null").unwrap(), b"");
        assert!(most("/").is_err());
    }
}

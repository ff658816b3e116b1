//! A file that the log is appended to. It is opened again when somebody has moved it, and begun anew at a size, so that a small disk
//! does not fill.

use std::{
    ffi::OsString,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use super::write_counted;

/// How large the file becomes, and how many of those before it are kept: `FILE.1` is the newest of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    pub(super) size: u64,
    pub(super) kept: u32,
}

#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    bound: Option<Bound>,
    /// A line was not written whole, as when the disk became full.
    is_torn: bool,
    /// What there is to say of the file itself.
    note: Option<String>,
}

impl LogFile {
    pub(super) fn open(path: PathBuf, bound: Option<Bound>) -> io::Result<Self> {
        let file = open(&path)?;
        Ok(Self { path, file, bound, is_torn: false, note: None })
    }

    /// Opens what has this name now. If that fails, the log goes on where it is.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.file = open(&self.path)?;
        self.is_torn = false;
        Ok(())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn take_note(&mut self) -> Option<String> {
        self.note.take()
    }

    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if let Some(bound) = self.bound {
            let metadata = self.file.metadata()?; // asked each time: others may cut it off
            let size = metadata.len();
            if metadata.is_file() && size > 0 && size + line.len() as u64 + 1 > bound.size {
                self.begin_anew(&metadata, bound.kept)?;
            }
        }
        if self.is_torn {
            self.write_all(b"\n")?;
        }
        self.write_all(line)
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (written, result) = write_counted(&mut self.file, bytes);
        // Nothing written leaves it as it was.
        if written > 0 {
            self.is_torn = result.is_err();
        }
        result
    }

    /// Moves the full file out of the way. At no moment there are more files than are kept.
    fn begin_anew(&mut self, full: &Metadata, kept: u32) -> io::Result<()> {
        let is_there = fs::metadata(&self.path).is_ok_and(|file| identity(&file) == identity(full));
        if !is_there {
            return self.reopen(); // somebody else has moved it
        }
        match self.move_away(kept) {
            Ok(true) => self.reopen(),
            Ok(false) => self.empty(),
            // In a folder that is not this user's. The bound holds nevertheless.
            Err(e) => {
                self.note = Some(format!(
                    "the log was begun anew, and what was in it is lost: it cannot be renamed: {e}"
                ));
                self.empty()
            }
        }
    }

    /// False: none is kept.
    fn move_away(&self, kept: u32) -> io::Result<bool> {
        for n in (0..kept).rev() {
            match fs::rename(self.before(n), self.before(n + 1)) {
                Err(e) if n > 0 && e.kind() == ErrorKind::NotFound => {}
                result => result?,
            }
        }
        Ok(kept > 0)
    }

    fn empty(&mut self) -> io::Result<()> {
        self.is_torn = false;
        self.file.set_len(0)
    }

    /// The name of the file that was the log so many times ago.
    fn before(&self, n: u32) -> PathBuf {
        let mut name = OsString::from(&self.path);
        if n > 0 {
            name.push(format!(".{n}"));
        }
        name.into()
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

fn open(path: &Path) -> io::Result<File> {
    // Opened for writing alone, a pipe would wait for its reader, and know no other one.
    let is_pipe = fs::metadata(path).is_ok_and(|file| file.file_type().is_fifo());
    OpenOptions::new().create(!is_pipe).append(true).read(is_pipe).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder of its own, removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("switchboard-log-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name());
            let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
            names.sort();
            names
        }

        fn log(&self, kept: u32) -> LogFile {
            LogFile::open(self.0.join("log"), Some(Bound { size: 100, kept })).unwrap()
        }

        fn text(&self, name: &str) -> String {
            fs::read_to_string(self.0.join(name)).unwrap()
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn line(n: usize) -> Vec<u8> {
        format!("line {n:034}\n").into_bytes() // 40 bytes
    }

    #[test]
    fn at_its_bound_a_file_is_renamed_and_the_oldest_goes() {
        let folder = Folder::new("bound");
        for (kept, files) in
            [(3, &["log", "log.1", "log.2", "log.3"][..]), (1, &["log", "log.1"]), (0, &["log"])]
        {
            let mut log = folder.log(kept);
            for n in 0..11 {
                log.write(&line(n)).unwrap();
                assert!(folder.names().len() <= kept as usize + 1);
                for name in folder.names() {
                    assert!(fs::metadata(folder.0.join(name)).unwrap().len() <= 100);
                }
            }
            assert_eq!(folder.names(), files);
            let oldest_first: String = files.iter().rev().map(|name| folder.text(name)).collect();
            let all: Vec<u8> = (0..11).flat_map(line).collect();
            assert!(String::from_utf8(all).unwrap().ends_with(&oldest_first), "{oldest_first}");
            files.iter().for_each(|name| fs::remove_file(folder.0.join(name)).unwrap());
        }
    }

    #[test]
    fn what_others_do_to_the_file_is_no_surprise() {
        let folder = Folder::new("others");
        let mut log = folder.log(1);
        log.write(&line(1)).unwrap();
        log.write(&line(2)).unwrap();
        // Moved: what comes next still goes there, until it is opened again or full.
        fs::rename(folder.0.join("log"), folder.0.join("moved")).unwrap();
        log.write(&line(3)).unwrap();
        assert_eq!(folder.names(), ["log", "moved"]);
        assert!(folder.text("log").contains('3'));
        // Copied and cut off, as by logrotate's copytruncate.
        log.write(&line(4)).unwrap();
        OpenOptions::new().write(true).open(folder.0.join("log")).unwrap().set_len(0).unwrap();
        log.write(&line(5)).unwrap();
        assert_eq!(folder.text("log").as_bytes(), line(5));
        // Removed.
        fs::remove_file(folder.0.join("log")).unwrap();
        log.write(&line(6)).unwrap();
        log.reopen().unwrap();
        log.write(&line(7)).unwrap();
        assert_eq!(folder.text("log").as_bytes(), line(7));
    }

    #[test]
    fn a_file_that_cannot_be_renamed_is_begun_anew() {
        let folder = Folder::new("fixed");
        fs::create_dir(folder.0.join("log.1")).unwrap(); // no file can take its place
        let mut log = folder.log(1);
        (1..=3).for_each(|n| log.write(&line(n)).unwrap());
        assert_eq!(folder.text("log").as_bytes(), line(3));
        assert!(log.take_note().unwrap().contains("cannot be renamed") && log.take_note().is_none());
    }

    #[test]
    fn what_is_no_file_has_no_size() {
        let mut log = LogFile::open("/dev/null".into(), Some(Bound { size: 10, kept: 1 })).unwrap();
        (1..=3).for_each(|n| log.write(&line(n)).unwrap());
        assert!(!Path::new("/dev/null.1").exists());
    }
}

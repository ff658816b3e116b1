//! Opens what is below a folder: nothing outside of it, whatever becomes of links meanwhile, and nothing that would wait.

use std::{
    fs::{File, Metadata},
    io,
    path::Path,
};

use rustix::{
    fd::OwnedFd,
    fs::{self, AtFlags, FileType, Mode, OFlags},
    io::Errno,
};

/// A FIFO would wait for its other end, and a terminal would become ours.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// To begin at, which needs no right to list it where the system can do without.
#[cfg(target_os = "linux")]
const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
#[cfg(not(target_os = "linux"))]
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A folder, opened for one request: it may be another one at the next, as when a link is switched over.
#[derive(Debug)]
pub(super) struct Root<'a> {
    path: &'a Path,
    folder: OwnedFd,
}

/// What is at a path.
#[derive(Debug)]
pub(super) enum Opened {
    /// With the metadata of what was opened, not of what is there now.
    File(File, Metadata),
    Folder,
}

impl<'a> Root<'a> {
    pub(super) fn new(path: &'a Path) -> io::Result<Self> {
        Ok(Self { path, folder: fs::open(path, FOLDER, Mode::empty())? })
    }

    /// Opens what is at a relative path without `..`.
    ///
    /// # Errors
    /// `NotFound` for what is not there, leads out of the folder, or is neither a file nor a folder.
    pub(super) fn open(&self, below: &Path) -> io::Result<Opened> {
        let below = if below.as_os_str().is_empty() { Path::new(".") } else { below };
        // Only asked so that who waits at a FIFO is not disturbed, and no device does what it does when it is opened.
        let kind = fs::statat(&self.folder, below, AtFlags::empty()).map_err(absent)?.st_mode;
        if !matches!(FileType::from_raw_mode(kind), FileType::RegularFile | FileType::Directory) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let file = File::from(self.open_inside(below)?);
        let metadata = file.metadata()?;
        match metadata.file_type() {
            kind if kind.is_file() => Ok(Opened::File(file, metadata)),
            kind if kind.is_dir() => Ok(Opened::Folder),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    #[cfg(target_os = "linux")]
    fn open_inside(&self, below: &Path) -> io::Result<OwnedFd> {
        use rustix::fs::{ResolveFlags, openat2};
        match openat2(&self.folder, below, READ, Mode::empty(), ResolveFlags::BENEATH) {
            // Before Linux 5.6, or in a sandbox that does not know it. Of links with an absolute path also those that lead
            // inside are refused; and one with `..` while something is moved.
            Err(Errno::NOSYS | Errno::PERM | Errno::XDEV | Errno::AGAIN) => self.open_step_by_step(below),
            opened => opened.map_err(absent),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn open_inside(&self, below: &Path) -> io::Result<OwnedFd> {
        self.open_step_by_step(below)
    }

    /// Finds out where the links lead, and then goes there, following none any more.
    fn open_step_by_step(&self, below: &Path) -> io::Result<OwnedFd> {
        let real = |path: &Path| path.canonicalize().map_err(|e| Errno::from_io_error(&e).map_or(e, absent));
        let root = real(self.path)?;
        let place = real(&root.join(below))?;
        let names = place.strip_prefix(&root).map_err(|_| io::ErrorKind::NotFound)?;
        let mut folder = fs::open(&root, FOLDER, Mode::empty())?;
        let mut names = names.iter().peekable();
        while let Some(name) = names.next() {
            let flags = if names.peek().is_some() { FOLDER } else { READ };
            folder = fs::openat(&folder, name, flags | OFlags::NOFOLLOW, Mode::empty()).map_err(absent)?;
        }
        Ok(folder)
    }
}

/// `NotFound` for all that says that there is no such file.
fn absent(e: Errno) -> io::Error {
    use Errno as E;
    match e {
        E::NOENT | E::NOTDIR | E::LOOP | E::NAMETOOLONG | E::XDEV | E::NXIO | E::INVAL | E::ILSEQ => {
            io::ErrorKind::NotFound.into()
        }
        other => other.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs as files,
        os::unix::fs::symlink,
        path::PathBuf,
        sync::mpsc::{self, TryRecvError},
    };

    use super::*;

    /// A folder `www` with a secret beside it, until it is dropped.
    struct Site(PathBuf);

    impl Site {
        fn new(name: &str) -> Self {
            let outer = std::env::temp_dir().join(format!("switchboard-{name}-{}", std::process::id()));
            files::create_dir_all(outer.join("www/sub")).unwrap();
            files::write(outer.join("secret"), "secret").unwrap();
            files::write(outer.join("www/sub/page"), "page").unwrap();
            Self(outer)
        }

        fn www(&self) -> PathBuf {
            self.0.join("www")
        }
    }

    impl Drop for Site {
        fn drop(&mut self) {
            let _ = files::remove_dir_all(&self.0);
        }
    }

    fn content(fd: io::Result<OwnedFd>) -> Result<String, io::ErrorKind> {
        io::read_to_string(File::from(fd.map_err(|e| e.kind())?)).map_err(|e| e.kind())
    }

    #[test]
    fn links_may_lead_inside_but_not_outside_in_both_ways_to_open() {
        let site = Site::new("links");
        let www = site.www();
        symlink("sub/page", www.join("relative")).unwrap();
        symlink("../sub/page", www.join("sub/up-and-down")).unwrap();
        symlink(www.join("sub/page"), www.join("absolute")).unwrap();
        symlink(www.join("sub"), www.join("folder")).unwrap();
        symlink("../secret", www.join("out")).unwrap();
        symlink(site.0.join("secret"), www.join("out-absolute")).unwrap();
        symlink(&site.0, www.join("outer")).unwrap();
        symlink("self", www.join("self")).unwrap();
        let root = Root::new(&www).unwrap();
        for open in [Root::open_inside, Root::open_step_by_step] {
            for good in ["sub/page", "relative", "sub/up-and-down", "absolute", "folder/page"] {
                assert_eq!(content(open(&root, Path::new(good))).as_deref(), Ok("page"), "{good}");
            }
            for bad in ["out", "out-absolute", "outer/secret", "self", "sub/page/", "sub/page/x", "nothing"] {
                assert_eq!(content(open(&root, Path::new(bad))), Err(io::ErrorKind::NotFound), "{bad}");
            }
        }
        assert_eq!(root.open(Path::new("a\0b")).unwrap_err().kind(), io::ErrorKind::NotFound);
        for folder in ["", "sub", "sub/", "folder"] {
            assert!(matches!(root.open(Path::new(folder)), Ok(Opened::Folder)), "{folder}");
        }
    }

    #[test]
    fn a_folder_that_becomes_a_link_meanwhile_never_leads_outside() {
        let site = Site::new("race");
        files::create_dir(site.0.join("outside")).unwrap();
        files::write(site.0.join("outside/page"), "secret").unwrap();
        files::create_dir(site.0.join("folder")).unwrap();
        files::write(site.0.join("folder/page"), "page").unwrap();
        symlink("../outside", site.0.join("link")).unwrap();
        let (site, www) = (&site, &site.www());
        let (done, is_done) = mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let _done = done; // dropped at the end, also that of a panic
            scope.spawn(move || {
                while is_done.try_recv() == Err(TryRecvError::Empty) {
                    for kind in ["folder", "link"] {
                        files::rename(site.0.join(kind), www.join("moving")).unwrap();
                        files::rename(www.join("moving"), site.0.join(kind)).unwrap();
                    }
                }
            });
            let root = Root::new(www).unwrap();
            for _ in 0..50_000 {
                for open in [Root::open_inside, Root::open_step_by_step] {
                    let content = content(open(&root, Path::new("moving/page")));
                    assert!(
                        matches!(content.as_deref(), Ok("page") | Err(io::ErrorKind::NotFound)),
                        "{content:?}"
                    );
                }
            }
        });
    }
}

//! The folders that decide which file a path leads to, and what the system tells of their changes (inotify).

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs, io,
    path::{Component, Path, PathBuf},
};

use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::inotify::{self, CreateFlags, WatchFlags},
};

/// As many links as the system follows.
const MAX_LINKS: usize = 40;

/// Watched folders. Readable when something has changed in one of them.
#[derive(Debug)]
pub(super) struct Folders {
    inotify: OwnedFd,
    watched: Vec<i32>,
}

impl Folders {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            inotify: inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?,
            watched: Vec::new(),
        })
    }

    /// From now on watches the folders that matter for these files, and no others.
    pub(super) fn follow(&mut self, files: &[PathBuf]) {
        let kinds = WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        // One that may not be read is not watched. The same folder has the same number each time.
        let add = |folder| inotify::add_watch(&self.inotify, folder, kinds).ok();
        let now: Vec<i32> = files.iter().flat_map(|file| on_the_way(file)).filter_map(add).collect();
        for old in std::mem::replace(&mut self.watched, now) {
            if !self.watched.contains(&old) {
                let _ = inotify::remove_watch(&self.inotify, old); // it fails if the folder is gone
            }
        }
    }

    /// Takes note of what has changed so far.
    pub(super) fn drain(&self) {
        while rustix::io::read(&self.inotify, &mut [0; 4096][..]).is_ok_and(|n| n > 0) {}
    }
}

impl AsFd for Folders {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

/// The folders in which a change may lead this absolute path to another file: those of the links on the way, and that of the file
/// itself, or of the first part of the path that is missing. So a certificate is seen that is replaced by turning a link to it
/// (certbot) or to its folder (Kubernetes).
fn on_the_way(path: &Path) -> Vec<PathBuf> {
    let (mut folders, mut at, mut rest) = (Vec::new(), PathBuf::from("/"), parts(path));
    let mut links = 0;
    while let Some(part) = rest.pop_front() {
        if part == "/" {
            at = PathBuf::from("/");
        } else if part == ".." {
            at.pop();
        } else {
            let next = at.join(part);
            let found = fs::symlink_metadata(&next);
            let is_link = found.as_ref().is_ok_and(|found| found.is_symlink()) && links < MAX_LINKS;
            if is_link || found.is_err() || rest.is_empty() {
                folders.push(at.clone());
            }
            match fs::read_link(&next) {
                Ok(target) if is_link => {
                    links += 1;
                    let mut all = parts(&target);
                    all.append(&mut rest);
                    rest = all;
                }
                _ if found.is_err() => break,
                _ => at = next,
            }
        }
    }
    folders
}

/// A path's parts, without those that mean nothing.
fn parts(path: &Path) -> VecDeque<OsString> {
    let meaning = |part: &Component<'_>| !matches!(part, Component::CurDir);
    path.components().filter(meaning).map(|part| part.as_os_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    /// Dropping it removes it.
    struct Temporary(PathBuf);

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn each_link_and_the_end_of_the_way_count() {
        let name = format!("switchboard-folders-{}", std::process::id());
        let top = Temporary(fs::canonicalize(std::env::temp_dir()).unwrap().join(name));
        let at = |path: &str| top.0.join(path);
        fs::create_dir_all(at("a/b")).unwrap();
        fs::create_dir_all(at("c/d")).unwrap();
        fs::write(at("a/b/file"), "").unwrap();
        for (target, link) in [
            ("../a/b", "c/b"),
            ("b/file", "c/file"),
            ("loop", "c/loop"),
            ("none/x", "c/dead"),
            (".", "c/here"),
        ] {
            symlink(target, at(link)).unwrap();
        }
        symlink(at("c"), at("absolute")).unwrap();
        for (path, folders) in [
            ("a/b/file", &["a/b"][..]),
            ("a/./b/../b/file", &["a/b"]),
            ("c/b/file", &["c", "a/b"]),
            ("c/file", &["c", "c", "a/b"]),
            ("absolute/b/file", &["", "c", "a/b"]),
            ("c/here/here/d", &["c", "c", "c"]),
            ("a/none", &["a"]),
            ("a/none/more/file", &["a"]),
            ("c/dead", &["c", "c"]),
            ("a/b/file/more", &["a/b/file"]),
        ] {
            let expected: Vec<_> =
                folders.iter().map(|folder| at(folder).components().collect::<PathBuf>()).collect();
            assert_eq!(on_the_way(&at(path)), expected, "{path}");
        }
        let in_circles = on_the_way(&at("c/loop"));
        assert_eq!((in_circles.len(), &in_circles[0]), (MAX_LINKS + 1, &at("c")));
    }
}

//! The file of a Unix socket: made with its mode, in place of one that is left from a process that was killed, and removed at
//! the end if it is still our own.

use std::{
    fs::{self, File, Metadata, Permissions},
    io,
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use rustix::{
    fd::OwnedFd,
    fs::{Access, FlockOperation, access, flock},
    io::{Errno, ioctl_fionbio},
    net::{AddressFamily, SocketAddrUnix, SocketType, bind, connect, listen},
};

/// For so long at most another server has the folder's lock: it only has it for some calls of the system.
const PATIENCE: Duration = Duration::from_secs(1);

/// A socket's file. Dropping it removes it, unless somebody else's is in its place.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    /// Listens on `PATH`, or on `PATH,mode=OCTAL`: with this mode, whatever the umask is, and never with more than that.
    /// Without one it has the `usual` mode, or what the umask leaves. The system keeps `backlog` connections until they are accepted.
    pub(super) fn bind(address: &str, usual: Option<u32>, backlog: i32) -> io::Result<(Self, UnixListener)> {
        let (path, mode) = parse(address)?;
        let mode = mode.or(usual);
        let unix = SocketAddrUnix::new(path)?;
        let socket = create(mode)?;
        let _lock = lock_folder(path);
        match bind(&socket, &unix) {
            Err(Errno::ADDRINUSE) if is_stale(path, &unix) => {
                fs::remove_file(path)?;
                bind(&socket, &unix)?;
            }
            result => result?,
        }
        let file = fs::symlink_metadata(path)?;
        let own = Self { path: path.to_owned(), identity: identity(&file) };
        if let Some(mode) = mode
            && file.mode() & 0o7777 != mode
        {
            fs::set_permissions(path, Permissions::from_mode(mode))?; // the umask has taken something away
        }
        // Only now somebody can connect.
        listen(&socket, backlog)?;
        Ok((own, socket.into()))
    }

    /// Where [`bind`](Self::bind) would listen now, as far as can be told without making the file.
    pub(super) fn rehearse(address: &str) -> io::Result<PathBuf> {
        let (path, _) = parse(address)?;
        let unix = SocketAddrUnix::new(path)?;
        match fs::symlink_metadata(path) {
            Ok(_) if !is_stale(path, &unix) => return Err(Errno::ADDRINUSE.into()),
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        access(folder(path), Access::WRITE_OK | Access::EXEC_OK)?;
        Ok(path.to_owned())
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _lock = lock_folder(&self.path);
        if fs::symlink_metadata(&self.path).is_ok_and(|file| identity(&file) == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

fn invalid(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

fn wrong_mode() -> io::Error {
    invalid("the mode of a Unix socket is written unix:PATH,mode=0660, in octal digits")
}

/// The path, and the mode if there is one. What looks like another option is refused, not taken for a part of the path.
pub(super) fn parse(address: &str) -> io::Result<(&Path, Option<u32>)> {
    let (path, option) = match address.rsplit_once([',', '?']) {
        Some((path, option)) if option.contains('=') && !option.contains('/') => (path, Some(option)),
        _ => (address, None),
    };
    if path.is_empty() {
        return Err(invalid("a Unix socket needs a path: unix:PATH"));
    }
    let Some(option) = option else {
        // With something behind it that is none, such as a comma, the mode would become a part of the name, and not be set.
        let name = path.rsplit('/').next().unwrap_or(path);
        return if name.contains(",mode=") { Err(wrong_mode()) } else { Ok((Path::new(path), None)) };
    };
    let digits = option.strip_prefix("mode=").filter(|_| address.as_bytes()[path.len()] == b',');
    let is_octal =
        |digits: &&str| (1..=4).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let mode = digits.filter(is_octal).and_then(|digits| u32::from_str_radix(digits, 8).ok());
    match mode {
        Some(mode @ ..=0o777) => Ok((Path::new(path), Some(mode))),
        _ => Err(wrong_mode()),
    }
}

/// A socket. Linux makes the file of its name with the rights that the socket has, less the umask.
fn create(mode: Option<u32>) -> io::Result<OwnedFd> {
    let socket = socket()?;
    let Some(mode) = mode else { return Ok(socket) };
    let file = File::from(socket);
    // Elsewhere this may fail. Nobody can connect before the mode is set, for it does not listen.
    let _ = file.set_permissions(Permissions::from_mode(mode));
    Ok(file.into())
}

#[cfg(not(target_vendor = "apple"))]
fn socket() -> io::Result<OwnedFd> {
    use rustix::net::{SocketFlags, socket_with};
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

#[cfg(target_vendor = "apple")]
fn socket() -> io::Result<OwnedFd> {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    Ok(socket)
}

/// Whether nobody listens on it: it is left from a process that was killed. Never waits, also if its backlog is full.
fn is_stale(path: &Path, unix: &SocketAddrUnix) -> bool {
    let refuses = || {
        let probe = socket()?;
        ioctl_fionbio(&probe, true)?;
        io::Result::Ok(connect(&probe, unix) == Err(Errno::CONNREFUSED))
    };
    fs::metadata(path).is_ok_and(|file| file.file_type().is_socket()) && refuses().unwrap_or(false)
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Locks the file's folder against other servers: a file that is bound and not listened on yet looks as if it was left over, and
/// between a look at a file and its removal it could be replaced. Without a lock, such as where the folder cannot be read, all
/// works but when two servers start or end at the same moment.
fn lock_folder(path: &Path) -> Option<File> {
    const PAUSE: Duration = Duration::from_millis(1);
    let folder = File::open(folder(path)).ok()?;
    for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(folder), // closing it unlocks it
            Err(Errno::WOULDBLOCK) => sleep(PAUSE),
            Err(_) => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_is_behind_a_comma() {
        let parsed = |address| parse(address).map(|(path, mode)| (path.to_str().unwrap(), mode)).ok();
        assert_eq!(parsed("/run/s"), Some(("/run/s", None)));
        assert_eq!(parsed("/run/s,mode=0660"), Some(("/run/s", Some(0o660))));
        assert_eq!(parsed("s,mode=7"), Some(("s", Some(7))));
        for path in ["/run/a,b", "/run/a?b", "/run/x,mode=0/s", "/run/a=b"] {
            assert_eq!(parsed(path), Some((path, None)));
        }
        for bad in [
            "",
            ",mode=0660",
            "s,mode=",
            "s,mode=0888",
            "s,mode=+660",
            "s,mode=1777",
            "s,mode=00660",
            "s,mode=u+rw",
            "s?mode=0660",
            "s,mod=0660",
            "s,user=me",
            "s,mode=0660,x",
            "/run/s,mode=0660,",
        ] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }
}

//! Whether the log can be written.

use std::{fs, io, os::unix::net::UnixDatagram, path::Path};

use rustix::{
    fs::{Access, access, statvfs},
    io::Errno,
};

use super::finding::{Finding, Level};
use crate::command::{args::Serve, logging::To};

/// Bytes that should be free for it.
const ROOM: u64 = 1 << 20;

/// Where the log goes.
pub(super) fn log(args: &Serve) -> Option<Finding> {
    let options = args.log();
    let told = |level, text: &str| Some(Finding::new(level, "log", text));
    if let Err(e) = options.check() {
        return told(Level::Error, &e);
    }
    let shown = |path: &Path| path.display().to_string();
    match &options.to {
        To::Stderr => None,
        To::Syslog(path) => match UnixDatagram::unbound().and_then(|socket| socket.connect(path)) {
            Ok(()) => told(Level::Ok, &format!("a syslog daemon listens on {}", shown(path))),
            Err(e) => told(Level::Warning, &format!("no syslog daemon listens on {}: {e}", shown(path))),
        },
        To::File(path) => match writable(path, options.max_size.is_some()) {
            Err(e) => told(Level::Error, &format!("cannot write the log to {}: {e}", shown(path))),
            Ok(Some(free)) if free < ROOM => {
                told(Level::Warning, &format!("{}: its disk is full", shown(path)))
            }
            Ok(_) => told(Level::Ok, &format!("{} can be written", shown(path))),
        },
    }
}

/// Whether a file can be written, or could be made, and moved away if it is to be; how many bytes there are for it, if the system tells.
fn writable(path: &Path, is_moved: bool) -> io::Result<Option<u64>> {
    let in_folder = || access(folder(path), Access::WRITE_OK | Access::EXEC_OK);
    match fs::metadata(path) {
        Ok(file) if file.is_dir() => return Err(Errno::ISDIR.into()),
        Ok(_) => {
            access(path, Access::WRITE_OK)?;
            if is_moved {
                in_folder()?;
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => in_folder()?,
        Err(e) => return Err(e),
    }
    let disk = statvfs(folder(path)).ok();
    Ok(disk.map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)))
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

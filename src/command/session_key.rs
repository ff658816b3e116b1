//! The file with the keys of session IDs.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use rustix::fs::{Access, access};

use super::small_file;

/// Bytes of the largest file that is read.
const MAX_SIZE: u64 = 64 * 1024;

/// Characters of a key at least.
const MIN_KEY_LEN: usize = 32;

/// The keys in the file, one a line. If it does not exist, it is made, with a random one.
pub(super) fn read(path: &Path) -> Result<Vec<String>, String> {
    let file = match small_file::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => make(path).and_then(|()| small_file::open(path)),
        opened => opened,
    };
    keys(path, &file.map_err(|e| failed(path, &e))?)
}

/// A key of no use, where nobody is served.
pub(super) fn stand_in() -> String {
    "-".repeat(MIN_KEY_LEN)
}

/// What to do for the nodes of a cluster.
#[cfg(feature = "cluster")]
pub(super) const MAKE_IT: &str = "all nodes of a cluster need the same. Make it once, with (umask 077; openssl rand -base64 32 > FILE), and copy it to all of them";

/// The same in a cluster: none is made.
#[cfg(feature = "cluster")]
pub(super) fn read_shared(path: &Path) -> Result<Vec<String>, String> {
    match small_file::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            Err(format!("session keys: {} is not there, and is not made: {MAKE_IT}", path.display()))
        }
        opened => keys(path, &opened.map_err(|e| failed(path, &e))?),
    }
}

/// The same, but none is made: one of no use stands for it, if it could be.
pub(super) fn rehearse(path: &Path) -> Result<Vec<String>, String> {
    match small_file::open(path) {
        Ok(file) => keys(path, &file),
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let folder =
                path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
            access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(|e| failed(path, &e.into()))?;
            Ok(vec![stand_in()])
        }
        Err(e) => Err(failed(path, &e)),
    }
}

fn failed(path: &Path, e: &io::Error) -> String {
    format!("session keys: {}: {e}", path.display())
}

fn keys(path: &Path, file: &File) -> Result<Vec<String>, String> {
    let failed = |e: io::Error| failed(path, &e);
    let mode = file.metadata().map_err(failed)?.permissions().mode();
    if mode & 0o007 != 0 {
        let mode = mode & 0o777;
        return Err(format!(
            "session keys: {}: its mode is {mode:o}: everybody can read it; set it to 600, and replace the key",
            path.display()
        ));
    }
    let text = small_file::read_text(file, MAX_SIZE, small_file::PATIENCE).map_err(failed)?;
    if text.len() as u64 > MAX_SIZE {
        return Err(format!("session keys: {}: it is too long for keys", path.display()));
    }
    let keys: Vec<_> =
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    match keys.iter().map(String::len).min() {
        Some(MIN_KEY_LEN..) => Ok(keys),
        Some(short) => Err(format!(
            "session keys: {}: a key has {short} characters: it needs at least {MIN_KEY_LEN}, secret and random, such as of \
             `openssl rand -base64 32`",
            path.display()
        )),
        None => Err(format!("session keys: {}: there is none", path.display())),
    }
}

/// Makes the file. Who is faster has made it; and whenever the power fails, there is all of it or nothing.
fn make(path: &Path) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let _ = fs::remove_file(&temporary); // of another process, which was cut off
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|e| io::Error::other(e.to_string()))?;
    let text = format!("{}\n", data_encoding::BASE64.encode(&key));
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    let made = written.and_then(|()| match fs::hard_link(&temporary, path) {
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(()),
        // Some file systems have no links.
        Err(_) => fs::rename(&temporary, path),
        linked => linked,
    });
    let _ = fs::remove_file(&temporary); // unless it was renamed
    made
}

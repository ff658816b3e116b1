//! Where a management listener is, and whether that says who may use it.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::MetadataExt, net::UnixListener},
    path::{Path, PathBuf},
};

/// What a file's mode lets everybody do: of a socket, to connect.
const WRITE_BY_OTHERS: u32 = 0o002;

#[derive(Debug)]
pub(super) enum Place {
    Address(String),
    Listener(TcpListener),
    Unix(UnixListener),
}

impl Place {
    /// Whether only those can connect who may.
    pub(super) fn is_guarded(&self) -> bool {
        match self {
            Self::Address(address) => address.starts_with("unix:"),
            Self::Listener(_) => false,
            Self::Unix(listener) => !is_open(listener),
        }
    }

    /// Why there has to be a token, if it has to. What is no address at all is told by whoever tries to listen there.
    pub(super) fn needs_token(&self) -> Option<String> {
        let needs = |address: &str, why: &str| {
            Some(format!(
                "management on {address} needs a token, with Manage::token_file (--manage-token-file): {why}"
            ))
        };
        let by_port = "everybody who reaches the port could use it; or listen on a Unix socket (unix:PATH)";
        match self {
            _ if self.is_guarded() => None,
            Self::Address(address) if !address.contains(':') => None,
            Self::Address(address) => needs(address, by_port),
            Self::Listener(listener) => {
                let address = listener.local_addr().map(|address| address.to_string());
                needs(&address.unwrap_or_default(), by_port)
            }
            Self::Unix(listener) => {
                let path = path(listener);
                needs(
                    &path.map_or("a socket without a file".into(), |path| path.display().to_string()),
                    "every user of this machine can connect to it; or have its mode be 0600 (SocketMode= of systemd)",
                )
            }
        }
    }
}

/// Whether everybody on this machine may connect. Where nobody knows, everybody may.
fn is_open(listener: &UnixListener) -> bool {
    let file = path(listener).and_then(|path| fs::metadata(path).ok());
    file.is_none_or(|file| file.mode() & WRITE_BY_OTHERS != 0)
}

fn path(listener: &UnixListener) -> Option<PathBuf> {
    listener.local_addr().ok()?.as_pathname().map(Path::to_owned)
}

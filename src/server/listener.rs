//! Where a server listens: sockets that are bound, or taken over from the program, and accepted from. The thread that
//! accepts waits elsewhere: nothing here waits.

use std::{
    fmt, fs, io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    os::unix::{fs::FileTypeExt, net::UnixListener},
    path::{Path, PathBuf},
};

use rustix::{
    fd::{AsFd, BorrowedFd},
    net::listen,
};

#[cfg(feature = "tls")]
use crate::tls::TlsIdentity;
use crate::{
    connection::Socket,
    error::{BindError, Result, ServerError},
};

/// How many connections the system keeps for us until we accept them.
const BACKLOG: i32 = 1024;

/// How connections of a listener are secured.
#[derive(Debug, Clone)]
pub(super) enum Security {
    None,
    #[cfg(feature = "tls")]
    Tls(TlsIdentity),
}

/// A listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Listening,
    pub(super) security: Security,
}

#[derive(Debug)]
enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener, UnixPath),
}

/// A Unix socket's file; dropping it removes it.
#[derive(Debug)]
struct UnixPath(PathBuf);

impl Drop for UnixPath {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenAddr {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl ListenAddr {
    /// The IP address and port, if it is not a Unix socket.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Listener {
    /// All listeners of one address: `HOST:PORT`, of which a name may have several, or `unix:PATH`.
    pub(super) fn bind(address: &str, security: &Security) -> Result<Vec<Self>, ServerError> {
        let failed = |source| ServerError::Bind(Box::new(BindError { address: address.to_owned(), source }));
        let bind = || -> io::Result<Vec<Listening>> {
            if let Some(path) = address.strip_prefix("unix:") {
                return Ok(vec![bind_unix(Path::new(path))?]);
            }
            let addresses = address.to_socket_addrs().map_err(|e| match e.kind() {
                io::ErrorKind::InvalidInput => {
                    io::Error::new(e.kind(), format!("{e}: write HOST:PORT or unix:PATH"))
                }
                _ => e,
            });
            addresses?.map(|address| TcpListener::bind(address).map(Listening::Tcp)).collect()
        };
        let listeners = bind().map_err(failed)?;
        if listeners.is_empty() {
            return Err(failed(io::Error::new(io::ErrorKind::NotFound, "the name has no address")));
        }
        listeners.into_iter().map(|socket| Self::new(socket, security.clone()).map_err(failed)).collect()
    }

    /// One that the program has bound already.
    pub(super) fn adopt(listener: TcpListener, security: Security) -> Result<Self, ServerError> {
        Ok(Self::new(Listening::Tcp(listener), security)?)
    }

    fn new(socket: Listening, security: Security) -> io::Result<Self> {
        let listener = Self { socket, security };
        // A second call changes the backlog: the standard library's own is short.
        listen(&listener, BACKLOG)?;
        match &listener.socket {
            Listening::Tcp(socket) => socket.set_nonblocking(true)?,
            Listening::Unix(socket, _) => socket.set_nonblocking(true)?,
        }
        Ok(listener)
    }

    pub(super) fn local_addr(&self) -> Result<ListenAddr, ServerError> {
        Ok(match &self.socket {
            Listening::Tcp(socket) => ListenAddr::Tcp(socket.local_addr()?),
            Listening::Unix(_, path) => ListenAddr::Unix(path.0.clone()),
        })
    }

    /// Accepts a connection that waits. If none does, the error is `WouldBlock`.
    pub(super) fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match &self.socket {
            Listening::Tcp(socket) => {
                let (stream, peer) = socket.accept()?;
                #[cfg(not(target_os = "linux"))] // elsewhere it is inherited from the listener
                stream.set_nonblocking(false)?;
                Ok((stream.into(), Some(peer)))
            }
            Listening::Unix(socket, _) => {
                let (stream, _) = socket.accept()?;
                #[cfg(not(target_os = "linux"))]
                stream.set_nonblocking(false)?;
                Ok((stream.into(), None))
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Listening::Tcp(socket) => socket.as_fd(),
            Listening::Unix(socket, _) => socket.as_fd(),
        }
    }
}

/// A socket file that nobody listens on any more is left from a process that was killed, and is replaced.
fn bind_unix(path: &Path) -> io::Result<Listening> {
    if path.as_os_str().is_empty() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a Unix socket needs a path: unix:PATH"));
    }
    let bind = || UnixListener::bind(path);
    let listener = match bind() {
        Err(e) if e.kind() == io::ErrorKind::AddrInUse && is_stale(path) => {
            fs::remove_file(path)?;
            bind()?
        }
        result => result?,
    };
    Ok(Listening::Unix(listener, UnixPath(path.to_owned())))
}

fn is_stale(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|file| file.file_type().is_socket())
        && std::os::unix::net::UnixStream::connect(path)
            .is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use rustix::net::sockopt;

    use super::*;

    #[test]
    fn a_connection_sends_at_once() {
        let listeners = Listener::bind("127.0.0.1:0", &Security::None).unwrap();
        let _client = TcpStream::connect(listeners[0].local_addr().unwrap().tcp().unwrap()).unwrap();
        let accepted = std::iter::repeat_with(|| listeners[0].accept()).find_map(Result::ok).unwrap();
        assert!(sockopt::tcp_nodelay(&accepted.0).unwrap());
    }
}

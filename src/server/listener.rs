//! Where a server listens: sockets that are bound, or taken over from the program, and accepted from. The thread that
//! accepts waits elsewhere: nothing here waits.

#[cfg(target_os = "linux")]
use std::{ffi::OsString, os::unix::ffi::OsStringExt};
use std::{
    fmt, io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    os::unix::net::{self, UnixListener},
    path::{Path, PathBuf},
};

use rustix::{
    fd::{AsFd, BorrowedFd},
    io::Errno,
    net::{AddressFamily, SocketType, bind, listen, socket, sockopt},
};

use super::socket_file::{self, SocketFile};
#[cfg(feature = "__tls")]
use crate::tls::TlsIdentity;
use crate::{
    advice::on_form,
    connection::Socket,
    error::{BindError, Result, ServerError},
};

/// How many connections the system keeps for us until we accept them.
const BACKLOG: i32 = 1024;

/// The mode of a Unix socket for its user alone.
const PRIVATE: u32 = 0o600;

/// How connections of a listener are secured.
#[derive(Debug, Clone)]
pub(super) enum Security {
    None,
    #[cfg(feature = "__tls")]
    Tls(TlsIdentity),
    /// All requests are sent to https, at this port.
    Redirect(u16),
}

impl Security {
    pub(super) fn is_tls(&self) -> bool {
        !matches!(self, Self::None | Self::Redirect(_))
    }

    pub(super) fn redirect(&self) -> Option<u16> {
        if let Self::Redirect(port) = self { Some(*port) } else { None }
    }
}

/// A listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Listening,
    pub(super) security: Security,
    /// What the builder calls it by: a request tells by which listener it came. 0, but for a server beside another one.
    pub(super) tag: u8,
}

#[derive(Debug)]
enum Listening {
    Tcp(TcpListener),
    /// The file is removed before the socket is closed: until then no other file can have its inode.
    Unix(SocketFile, UnixListener),
    /// Whose file is the program's.
    AdoptedUnix(UnixListener),
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenAddr {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The path of a Unix socket; of one that was [taken over](crate::ServerBuilder::listener_unix) and has no file, `@` and its
    /// name.
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

    /// Of one that was taken over.
    pub(super) fn of_unix(listener: &UnixListener) -> io::Result<Self> {
        Ok(Self::Unix(path(&listener.local_addr()?)))
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
    /// All listeners of one address: `HOST:PORT`, of which a name may have several, or `unix:PATH`, also with `,mode=OCTAL`. With a
    /// tag a Unix socket is its user's alone, unless a mode is given.
    pub(super) fn bind(
        address: &str,
        security: &Security,
        tag: Option<u8>,
    ) -> Result<Vec<Self>, ServerError> {
        let failed = |source| ServerError::Bind(Box::new(BindError { address: address.to_owned(), source }));
        let sockets = match address.strip_prefix("unix:") {
            Some(path) => SocketFile::bind(path, tag.map(|_| PRIVATE), BACKLOG)
                .map(|(file, socket)| vec![Listening::Unix(file, socket)]),
            None => {
                bind_tcp(address, TcpListener::bind).map(|all| all.into_iter().map(Listening::Tcp).collect())
            }
        };
        let sockets = sockets.map_err(failed)?.into_iter();
        sockets
            .map(|socket| Self::new(socket, security.clone(), tag.unwrap_or_default()).map_err(failed))
            .collect()
    }

    /// Where [`bind`](Self::bind) would listen now. Nobody can connect, and no file is made.
    pub(super) fn rehearse(address: &str) -> Result<Vec<ListenAddr>, ServerError> {
        let tried = match address.strip_prefix("unix:") {
            Some(path) => SocketFile::rehearse(path).map(|path| vec![ListenAddr::Unix(path)]),
            None => bind_tcp(address, try_bind).map(|all| all.into_iter().map(ListenAddr::Tcp).collect()),
        };
        tried.map_err(|source| ServerError::Bind(Box::new(BindError { address: address.to_owned(), source })))
    }

    /// Where [`bind`](Self::bind) is to listen, whether it can or not. Of what is no address: nowhere.
    pub(super) fn named(address: &str) -> Vec<ListenAddr> {
        let named = match address.strip_prefix("unix:") {
            Some(path) => socket_file::parse(path).map(|(path, _)| vec![ListenAddr::Unix(path.to_owned())]),
            None => bind_tcp(address, Ok).map(|all| all.into_iter().map(ListenAddr::Tcp).collect()),
        };
        named.unwrap_or_default()
    }

    /// One that the program has bound already.
    pub(super) fn adopt(listener: TcpListener, security: Security, tag: u8) -> Result<Self, ServerError> {
        Ok(Self::new(Listening::Tcp(listener), security, tag)?)
    }

    /// One of a Unix socket.
    pub(super) fn adopt_unix(
        listener: UnixListener,
        security: Security,
        tag: u8,
    ) -> Result<Self, ServerError> {
        Ok(Self::new(Listening::AdoptedUnix(listener), security, tag)?)
    }

    fn new(socket: Listening, security: Security, tag: u8) -> io::Result<Self> {
        let listener = Self { socket, security, tag };
        // A second call changes the backlog: the standard library's own is short.
        listen(&listener, BACKLOG)?;
        match &listener.socket {
            Listening::Tcp(socket) => socket.set_nonblocking(true)?,
            Listening::Unix(_, socket) | Listening::AdoptedUnix(socket) => socket.set_nonblocking(true)?,
        }
        Ok(listener)
    }

    pub(super) fn local_addr(&self) -> Result<ListenAddr, ServerError> {
        Ok(match &self.socket {
            Listening::Tcp(socket) => ListenAddr::Tcp(socket.local_addr()?),
            Listening::Unix(file, _) => ListenAddr::Unix(file.path().to_owned()),
            Listening::AdoptedUnix(socket) => ListenAddr::of_unix(socket)?,
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
            Listening::Unix(_, socket) | Listening::AdoptedUnix(socket) => {
                let (stream, _) = socket.accept()?;
                #[cfg(not(target_os = "linux"))]
                stream.set_nonblocking(false)?;
                Ok((stream.into(), None))
            }
        }
    }
}

/// Where it listens, as far as the system tells.
impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.local_addr() {
            Ok(address) => address.fmt(f),
            Err(_) => f.write_str("an unknown address"),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Listening::Tcp(socket) => socket.as_fd(),
            Listening::Unix(_, socket) | Listening::AdoptedUnix(socket) => socket.as_fd(),
        }
    }
}

/// The path of a Unix socket. A name that is no file's is written as ss(8) does.
fn path(address: &net::SocketAddr) -> PathBuf {
    #[cfg(target_os = "linux")]
    if let Some(name) = std::os::linux::net::SocketAddrExt::as_abstract_name(address) {
        return PathBuf::from(OsString::from_vec([b"@", name].concat()));
    }
    address.as_pathname().map(Path::to_owned).unwrap_or_default()
}

/// Binds it, as the standard library does, and lets it go at once. It does not listen: so clients of a server that runs there, or is
/// started now, do not come here, and nothing lingers.
fn try_bind(address: SocketAddr) -> io::Result<SocketAddr> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket(family, SocketType::STREAM, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    bind(&socket, &address)?;
    Ok(address)
}

/// All addresses of one, such as `localhost:80`, each bound by `bind`.
fn bind_tcp<T>(address: &str, bind: fn(SocketAddr) -> io::Result<T>) -> io::Result<Vec<T>> {
    if let Ok(literal) = address.parse::<SocketAddr>() {
        return Ok(vec![bind(literal)?]);
    }
    // A resolver would only say that there is no such name.
    if let Some(advice) = on_form(address) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, advice));
    }
    let found = address.to_socket_addrs();
    bind_name(address, found?, bind)
}

/// Listens on all addresses of a name, each once. Those that this system does not have are left out if there are others:
/// `localhost` is in many hosts files with `::1`, also where there is no IPv6.
fn bind_name<T>(
    name: &str,
    found: impl Iterator<Item = SocketAddr>,
    bind: fn(SocketAddr) -> io::Result<T>,
) -> io::Result<Vec<T>> {
    let (mut seen, mut listeners, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    for address in found {
        if seen.contains(&address) {
            continue;
        }
        seen.push(address);
        match bind(address) {
            Ok(listener) => listeners.push(listener),
            Err(e) if is_missing(&e) => missing.push((address, e)),
            Err(e) => return Err(e),
        }
    }
    if listeners.is_empty() {
        let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        return Err(missing.into_iter().next().map_or_else(none, |(_, e)| e));
    }
    for (address, e) in missing {
        log::info!("{name}: not listening on {address}, which this system does not have: {e}");
    }
    Ok(listeners)
}

fn is_missing(e: &io::Error) -> bool {
    matches!(Errno::from_io_error(e), Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT))
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, TcpStream};

    use super::*;

    #[test]
    fn a_connection_sends_at_once() {
        let listeners = Listener::bind("127.0.0.1:0", &Security::None, None).unwrap();
        let _client = TcpStream::connect(listeners[0].local_addr().unwrap().tcp().unwrap()).unwrap();
        let accepted = std::iter::repeat_with(|| listeners[0].accept()).find_map(Result::ok).unwrap();
        assert!(sockopt::tcp_nodelay(&accepted.0).unwrap());
    }

    /// What it listens on, for a name with these addresses.
    fn bound(addresses: &[&str]) -> io::Result<Vec<IpAddr>> {
        let all = addresses.iter().map(|address| address.parse().unwrap());
        let listeners = bind_name("a-name:0", all, TcpListener::bind)?;
        Ok(listeners.iter().map(|listener| listener.local_addr().unwrap().ip()).collect())
    }

    #[test]
    fn of_a_name_what_the_system_does_not_have_is_left_out() {
        // For documentation only (RFC 5737): no machine has it.
        let (foreign, own) = ("192.0.2.1:0", "127.0.0.1:0");
        for all in [&[foreign, own][..], &[own, foreign], &[own], &[own, own], &[foreign, own, foreign]] {
            assert_eq!(bound(all).unwrap(), [Ipv4Addr::LOCALHOST], "{all:?}");
        }
        assert_eq!(bound(&[foreign]).unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
        assert_eq!(bound(&[]).unwrap_err().kind(), io::ErrorKind::NotFound);
        let busy = TcpListener::bind(own).unwrap();
        let busy = busy.local_addr().unwrap().to_string();
        assert_eq!(bound(&[own, foreign, &busy]).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        // An address that is given as such has to be there.
        assert_eq!(bind_tcp(foreign, try_bind).unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    }
}

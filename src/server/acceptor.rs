//! The listeners, and the loop that accepts. It only accepts: TLS and HTTP happen on the connection's thread.

use std::{
    collections::VecDeque,
    fmt, fs, io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
    os::unix::{fs::FileTypeExt, net::UnixListener},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::{AsFd, BorrowedFd, OwnedFd},
    io::Errno,
    net::listen,
    pipe::{PipeFlags, pipe_with},
};

use http::{HeaderValue, StatusCode, header};

use super::builder::Security;
use crate::{
    connection::Socket,
    error::{BindError, Error, Result},
    http::{Body, Refusal, Response},
};

/// How many connections the system keeps for us until we accept them.
const BACKLOG: i32 = 1024;

/// So many are accepted from one listener before the others, and the bell, have their turn.
const TURN: usize = 64;

/// How long a rejected client has to read its 503.
const LINGER: Duration = Duration::from_secs(1);

/// So many rejected sockets are kept for that at most.
const MOST_REJECTED: usize = 32;

/// How long accepting rests when the system has run out of something.
const BACK_OFF: Duration = Duration::from_millis(50);

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
    pub(super) fn bind(address: &str, security: &Security) -> Result<Vec<Self>> {
        let failed = |source| Error::Bind(Box::new(BindError { address: address.to_owned(), source }));
        let bind = || -> io::Result<Vec<Listening>> {
            if let Some(path) = address.strip_prefix("unix:") {
                return Ok(vec![bind_unix(Path::new(path))?]);
            }
            address.to_socket_addrs()?.map(|address| TcpListener::bind(address).map(Listening::Tcp)).collect()
        };
        let listeners = bind().map_err(failed)?;
        if listeners.is_empty() {
            return Err(failed(io::Error::new(io::ErrorKind::NotFound, "the name has no address")));
        }
        listeners.into_iter().map(|socket| Self::new(socket, security.clone()).map_err(failed)).collect()
    }

    /// One that the program has bound already.
    pub(super) fn adopt(listener: TcpListener, security: Security) -> Result<Self> {
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

    pub(super) fn local_addr(&self) -> Result<ListenAddr> {
        Ok(match &self.socket {
            Listening::Tcp(socket) => ListenAddr::Tcp(socket.local_addr()?),
            Listening::Unix(_, path) => ListenAddr::Unix(path.0.clone()),
        })
    }

    fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        match &self.socket {
            Listening::Tcp(socket) => {
                let (stream, peer) = socket.accept()?;
                #[cfg(not(target_os = "linux"))] // there it is inherited
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

/// Wakes the loop: a pipe, so that it can wait for it along with the listeners.
#[derive(Debug)]
pub(super) struct Bell {
    read: OwnedFd,
    write: OwnedFd,
}

impl Bell {
    pub(super) fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { read, write })
    }

    pub(super) fn ring(&self) {
        // A full pipe has been rung already.
        let _ = rustix::io::write(&self.write, &[1]);
    }

    fn silence(&self) {
        while matches!(rustix::io::read(&self.read, &mut [0; 64][..]), Ok(64)) {}
    }
}

/// The accepting side of a server.
pub(super) struct Acceptor<'a> {
    listeners: &'a [Listener],
    bell: &'a Bell,
    /// When the system has no descriptor left, this one is given up for a moment to say so to a client.
    spare: Option<OwnedFd>,
    resting_until: Option<Instant>,
    last_complaint: Option<Instant>,
    /// Sockets that were told 503, and since when. Closed a little later, so that the client reads it before the
    /// connection is reset.
    rejected: VecDeque<(Instant, Socket)>,
}

/// Why a socket is not served.
pub(super) enum NotAdmitted {
    /// There are as many as allowed.
    Full(Socket, Security),
    /// The system starts no thread.
    NoThread(Socket, Security, io::Error),
}

impl<'a> Acceptor<'a> {
    pub(super) fn new(listeners: &'a [Listener], bell: &'a Bell) -> Self {
        Self {
            listeners,
            bell,
            spare: spare(),
            resting_until: None,
            last_complaint: None,
            rejected: VecDeque::new(),
        }
    }

    /// Waits until somebody connects or rings, and gives each new socket to `admit`. Returns now and then in any case.
    pub(super) fn turn(
        &mut self,
        mut admit: impl FnMut(Socket, Option<SocketAddr>, &Security) -> std::result::Result<(), NotAdmitted>,
    ) -> io::Result<()> {
        for index in self.wait()? {
            let listener = &self.listeners[index];
            for _ in 0..TURN {
                match listener.accept() {
                    Ok((socket, peer)) => match admit(socket, peer, &listener.security) {
                        Ok(()) => {}
                        Err(NotAdmitted::Full(socket, security)) => self.reject(socket, &security),
                        Err(NotAdmitted::NoThread(socket, security, e)) => {
                            self.reject(socket, &security);
                            self.rest(&format!("cannot start a thread: {e}"));
                            break;
                        }
                    },
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    // The client left before it was accepted, or the network had an error of that connection only.
                    Err(e) if is_of_one_connection(&e) => log::debug!("accept: {e}"),
                    Err(e) => {
                        self.spare = None;
                        if is_exhaustion(&e)
                            && let Ok((socket, _)) = listener.accept()
                        {
                            say_no(&socket, &listener.security);
                        }
                        self.spare = spare();
                        self.rest(&format!("cannot accept: {e}"));
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// The listeners that have somebody. None of them while accepting rests.
    fn wait(&mut self) -> io::Result<Vec<usize>> {
        let now = Instant::now();
        self.rejected.retain(|(since, socket)| {
            let keep = now.duration_since(*since) < LINGER;
            if !keep {
                discard_input(socket);
            }
            keep
        });
        self.resting_until = self.resting_until.filter(|until| *until > now);
        let mut fds = vec![PollFd::new(&self.bell.read, PollFlags::IN)];
        if self.resting_until.is_none() {
            fds.extend(self.listeners.iter().map(|listener| PollFd::new(listener, PollFlags::IN)));
        }
        let linger = self.rejected.front().map(|(since, _)| *since + LINGER);
        let until = [self.resting_until, linger].into_iter().flatten().min();
        wait_for(&mut fds, until.map(|until| until.saturating_duration_since(now)))?;
        if !fds[0].revents().is_empty() {
            self.bell.silence();
        }
        Ok((0..fds.len() - 1).filter(|i| !fds[i + 1].revents().is_empty()).collect())
    }

    fn reject(&mut self, socket: Socket, security: &Security) {
        say_no(&socket, security);
        if self.rejected.len() == MOST_REJECTED
            && let Some((_, oldest)) = self.rejected.pop_front()
        {
            discard_input(&oldest);
        }
        self.rejected.push_back((Instant::now(), socket));
    }

    /// Out of descriptors, memory or threads: trying again at once would only burn the processor.
    fn rest(&mut self, why: &str) {
        self.resting_until = Some(Instant::now() + BACK_OFF);
        if self.last_complaint.is_none_or(|last| last.elapsed() >= Duration::from_secs(1)) {
            self.last_complaint = Some(Instant::now());
            log::error!("{why}");
        }
    }
}

/// Answers 503, without a thread; within TLS it would take a handshake to say anything.
fn say_no(socket: &Socket, security: &Security) {
    if matches!(security, Security::None) {
        let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many connections")
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("5"));
        let (mut bytes, body) = Response::from(refusal).into_parts();
        if let Body::Bytes(text) = body {
            bytes.extend_from_slice(&text);
        }
        // It fits an empty send buffer, or the client is gone.
        let _ = socket.try_send(&bytes);
    }
    socket.shutdown_write();
}

/// A socket closed with unread input would reset the connection.
fn discard_input(socket: &Socket) {
    let _ = socket.try_recv(&mut Vec::with_capacity(16 * 1024));
}

/// Waits for the bell alone, for so long at most.
pub(super) fn wait_for_bell(bell: &Bell, timeout: Duration) -> io::Result<()> {
    wait_for(&mut [PollFd::new(&bell.read, PollFlags::IN)], Some(timeout))?;
    bell.silence();
    Ok(())
}

fn wait_for(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.map(|t| Timespec { tv_sec: t.as_secs() as _, tv_nsec: t.subsec_nanos() as _ });
    match poll(fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn is_of_one_connection(e: &io::Error) -> bool {
    let errno = Errno::from_io_error(e);
    matches!(
        errno,
        Some(
            Errno::CONNABORTED
                | Errno::INTR
                | Errno::PROTO
                | Errno::PERM
                | Errno::NETDOWN
                | Errno::NETUNREACH
        ) | Some(Errno::HOSTDOWN | Errno::HOSTUNREACH | Errno::NOPROTOOPT | Errno::OPNOTSUPP)
    )
}

fn is_exhaustion(e: &io::Error) -> bool {
    let errno = Errno::from_io_error(e);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

fn spare() -> Option<OwnedFd> {
    fs::File::open("/dev/null").ok().map(Into::into)
}

//! Accepting, by several threads at once. It only accepts: TLS and HTTP are up to the thread that got the client.

use std::{
    collections::VecDeque,
    fs, io,
    net::SocketAddr,
    sync::{Mutex, PoisonError, RwLock},
    time::{Duration, Instant},
};

use http::{HeaderValue, StatusCode, header};
use rustix::{fd::OwnedFd, io::Errno};

use super::{
    arrivals::{Arrivals, Bell},
    builder::Security,
    listener::Listener,
};
use crate::{
    connection::Socket,
    http::{Body, Refusal, Response},
    sync::LockExt,
};

/// How long a rejected client has to read its 503.
const LINGER: Duration = Duration::from_secs(1);

/// So many rejected sockets are kept for that at most.
const MOST_REJECTED: usize = 32;

/// How long accepting rests when the system has run out of something.
const BACK_OFF: Duration = Duration::from_millis(50);

/// The accepting side of a server.
#[derive(Debug)]
pub(super) struct Acceptor {
    listeners: RwLock<Vec<Listener>>,
    arrivals: Arrivals,
    /// Rung once, at the end.
    closing: Bell,
    troubles: Mutex<Troubles>,
}

#[derive(Debug)]
struct Troubles {
    /// When the system has no descriptor left, this one is given up for a moment to say so to a client.
    spare: Option<OwnedFd>,
    last_complaint: Option<Instant>,
    /// Sockets that were told 503, and since when. Closed a little later, so that the client reads it before the
    /// connection is reset.
    rejected: VecDeque<(Instant, Socket)>,
}

/// A client that was accepted.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) socket: Socket,
    pub(super) peer: Option<SocketAddr>,
    pub(super) security: Security,
}

impl Acceptor {
    pub(super) fn new(listeners: Vec<Listener>) -> io::Result<Self> {
        let closing = Bell::new()?;
        Ok(Self {
            arrivals: Arrivals::new(&listeners, &closing)?,
            listeners: RwLock::new(listeners),
            closing,
            troubles: Mutex::new(Troubles {
                spare: spare(),
                last_complaint: None,
                rejected: VecDeque::new(),
            }),
        })
    }

    /// Waits for a client, for so long at most. `None` also when there was one that has left, and when accepting is over.
    pub(super) fn accept(&self, timeout: Option<Duration>) -> io::Result<Option<Client>> {
        let listeners = self.listeners.read().unwrap_or_else(PoisonError::into_inner);
        let Some(index) = self.arrivals.wait(&listeners, &self.closing, timeout)? else { return Ok(None) };
        let Some(listener) = listeners.get(index) else { return Ok(None) };
        let accepted = listener.accept();
        if let Err(e) = &accepted
            && e.kind() != io::ErrorKind::WouldBlock
        {
            self.had_trouble(listener, e);
        }
        self.arrivals.free(index, listener)?;
        let client = |(socket, peer)| Client { socket, peer, security: listener.security.clone() };
        Ok(accepted.ok().map(client))
    }

    fn had_trouble(&self, listener: &Listener, e: &io::Error) {
        // The client left before it was accepted, or the network had an error of that connection only.
        if is_of_one_connection(e) {
            return log::debug!("accept: {e}");
        }
        if is_exhaustion(e) {
            let mut troubles = self.troubles.locked();
            troubles.spare = None;
            if let Ok((socket, _)) = listener.accept() {
                say_no(&socket, &listener.security);
            }
            troubles.spare = spare();
        }
        self.rest(&format!("cannot accept: {e}"));
    }

    /// Answers a client that is not served with 503.
    pub(super) fn reject(&self, client: Client) {
        say_no(&client.socket, &client.security);
        let mut troubles = self.troubles.locked();
        if troubles.rejected.len() == MOST_REJECTED
            && let Some((_, oldest)) = troubles.rejected.pop_front()
        {
            discard_input(&oldest);
        }
        troubles.rejected.push_back((Instant::now(), client.socket));
    }

    /// Closes the sockets of rejected clients that have had their time. Returns when the next ones will have.
    pub(super) fn drop_rejected(&self) -> Option<Duration> {
        let mut troubles = self.troubles.locked();
        // Another thread may have taken the descriptor that it gave up.
        troubles.spare = troubles.spare.take().or_else(spare);
        while let Some((since, socket)) = troubles.rejected.front() {
            let left = LINGER.saturating_sub(since.elapsed());
            if !left.is_zero() {
                return Some(left);
            }
            discard_input(socket);
            troubles.rejected.pop_front();
        }
        None
    }

    /// Out of descriptors, memory or threads: trying again at once would only burn the processor.
    pub(super) fn rest(&self, why: &str) {
        let mut troubles = self.troubles.locked();
        if troubles.last_complaint.is_none_or(|last| last.elapsed() >= Duration::from_secs(1)) {
            troubles.last_complaint = Some(Instant::now());
            log::error!("{why}");
        }
        drop(troubles);
        // If it fails, the next wait for a client fails, too.
        let _ = self.closing.watch(Some(BACK_OFF));
    }

    /// Wakes all who wait in `accept`, now and later, and closes the listening sockets.
    pub(super) fn close(&self) {
        self.closing.ring();
        self.listeners.write().unwrap_or_else(PoisonError::into_inner).clear();
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

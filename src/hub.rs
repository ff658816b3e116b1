//! The hub: finds connections by ID, path and topic, and pushes to them, from any thread.

use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    codec::Forms,
    connection::{Connection, PushError, PushErrorKind, Pushed},
    error::{CloseReason, Error, Result},
    id::WebSocketId,
    message::{CloseCode, Payload},
    registry::{Found, Registry},
    websocket::{Holder, Opening, WebSocket},
};

/// Finds all connections of a server, and pushes to them. Clones refer to the same server.
///
/// ```no_run
/// # fn main() -> switchboard::Result<()> {
/// # let server = switchboard::Server::builder().listen("127.0.0.1:0").bind()?;
/// use switchboard::Audience;
///
/// let hub = server.hub();
/// std::thread::spawn(move || loop {
///     let result = hub.broadcast(Audience::Path("/clock"), "tick");
///     println!("{} clients got it", result.sent + result.queued);
///     std::thread::sleep(std::time::Duration::from_secs(1));
/// });
/// server.run()
/// # }
/// ```
#[derive(Clone)]
pub struct Hub(Arc<Registry>);

/// Which connections a broadcast is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Audience<'a> {
    /// All connections.
    All,
    /// Those whose request had this path.
    Path(&'a str),
    /// Those that joined this topic.
    Topic(&'a str),
}

/// The result of a broadcast, in numbers of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Broadcast {
    /// The kernel has taken the message.
    pub sent: usize,
    /// The message is queued, because the client is slow or something else is just being sent to it.
    pub queued: usize,
    /// The message was dropped, because the client's queue was full.
    pub dropped: usize,
    /// The connection was closing, or was closed because its queue was full.
    pub gone: usize,
}

/// The state of a connection at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// The connection's ID.
    pub id: WebSocketId,
    /// The path of the client's request.
    pub path: Arc<str>,
    /// The address of the socket's other end; `None` on a Unix socket.
    pub peer: Option<SocketAddr>,
    /// When it was opened.
    pub since: SystemTime,
    /// Whether it is shared.
    pub shared: bool,
    /// Bytes that wait to be sent.
    pub queued: usize,
    /// Messages received.
    pub messages_in: u64,
    /// Messages sent, or waiting to be sent.
    pub messages_out: u64,
    /// Bytes received, as they were on the wire.
    pub bytes_in: u64,
    /// Bytes sent, as they were on the wire.
    pub bytes_out: u64,
    /// The time from the last answered ping to its pong.
    pub round_trip: Option<Duration>,
}

impl Hub {
    /// Sends a message to one connection, shared or not, and never waits for the network: it is sent at once if the
    /// socket takes it, else queued, in order. This works even while the connection's own thread waits in `read`, or
    /// computes. Strings are sent as text, bytes as binary.
    ///
    /// To a connection that is being [opened](Self::open_server) the message is queued, and is the first thing that the
    /// client gets; if the handshake is refused, it is dropped. The queue has the same limits as later, but when it is full
    /// this is an error whatever was chosen.
    ///
    /// # Errors
    /// [`PushError`] gives the message back. [`Opening::set_overflow`](crate::Opening::set_overflow) chooses what happens
    /// when the queue is full.
    pub fn push(&self, id: &WebSocketId, data: impl Into<Payload>) -> std::result::Result<Pushed, PushError> {
        self.0.push(id, data.into().into_message())
    }

    /// A handle that pushes to one connection, without looking it up each time. It may be made while the connection is being
    /// [opened](Self::open_server), too.
    ///
    /// # Errors
    /// [`Error::UnknownId`] if no connection has this ID.
    pub fn pusher(&self, id: &WebSocketId) -> Result<Pusher> {
        self.0.find(id).map(Pusher).ok_or(Error::UnknownId)
    }

    /// Sends a message to many connections; those that are still being opened are not among them. A dead or slow one does not delay the others, unless it uses
    /// [`Overflow::Block`](crate::Overflow::Block).
    pub fn broadcast(&self, to: Audience<'_>, data: impl Into<Payload>) -> Broadcast {
        let message = data.into().into_message();
        let mut connections = match to {
            Audience::All => self.0.all(),
            Audience::Path(path) => self.0.at_path(path),
            Audience::Topic(topic) => self.0.in_topic(topic),
        };
        // In the order of their addresses: with many connections this causes fewer cache misses, here and in the kernel.
        connections.sort_unstable_by_key(Arc::as_ptr);
        let mut result = Broadcast::default();
        let forms = Forms::default();
        for connection in connections {
            match connection.push(message.clone(), Some(&forms)) {
                Ok(Pushed::Sent) => result.sent += 1,
                Ok(Pushed::Queued) => result.queued += 1,
                Err(PushError { kind: PushErrorKind::Full, .. }) => result.dropped += 1,
                Err(_) => result.gone += 1,
            }
        }
        result
    }

    /// Starts the closing handshake of a connection, as [`WebSocket::close`](crate::WebSocket::close) does. Waits while the
    /// connection is being [opened](Self::open_server).
    ///
    /// # Errors
    /// [`Error::UnknownId`] if no connection has this ID; while it is being opened, as
    /// [`open_server`](Self::open_server).
    pub fn close(&self, id: &WebSocketId, code: impl Into<CloseCode>, text: &str) -> Result<()> {
        self.0.open(id)?.close(code.into(), text);
        Ok(())
    }

    /// All connections that are open, in no particular order.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        self.0.all().iter().map(info).collect()
    }

    /// One connection; `None` if no connection has this ID. Waits while the connection is being
    /// [opened](Self::open_server): `None` then also stands for the errors of that.
    pub fn connection(&self, id: &WebSocketId) -> Option<ConnectionInfo> {
        self.0.open(id).ok().map(|connection| info(&connection))
    }

    /// How many connections are open.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no connection is open.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes a connection a member of a topic, until it leaves or ends. Joining again has no effect. Waits while the
    /// connection is being [opened](Self::open_server).
    ///
    /// # Errors
    /// [`Error::UnknownId`] if no connection has this ID; while it is being opened, as
    /// [`open_server`](Self::open_server).
    pub fn join(&self, id: &WebSocketId, topic: &str) -> Result<()> {
        if self.0.join(self.0.open(id)?.id(), topic) { Ok(()) } else { Err(Error::UnknownId) }
    }

    /// Removes a connection from a topic, if it is a member; one that is being opened is member of none.
    pub fn leave(&self, id: &WebSocketId, topic: &str) {
        self.0.leave(id, topic);
    }

    /// The members of a topic, in no particular order.
    pub fn members(&self, topic: &str) -> Vec<WebSocketId> {
        self.0.in_topic(topic).iter().map(|connection| *connection.id()).collect()
    }

    /// Returns a [`WebSocket`] for a shared connection (`OpenServer`). Any number of threads may have one.
    ///
    /// An ID is valid as soon as `on_pre_server` can ask for it. Whoever is given it there may be faster than the opening
    /// handshake: then this waits until the connection is open, for at most
    /// [`Limits::handshake_timeout`](crate::Limits::handshake_timeout), and tells it if the handshake is refused. With
    /// [`Limits::workers`](crate::Limits::workers) 0, avoid that in `on_client_message`, where the gateway waits.
    ///
    /// ```no_run
    /// # fn example(hub: &switchboard::Hub, saved_id: &str) -> switchboard::Result<()> {
    /// use std::time::Duration;
    ///
    /// let mut ws = hub.open_server(&saved_id.parse()?)?;
    /// ws.write("are you there?")?;
    /// let answer = ws.read_message(Duration::from_secs(10))?;
    /// ws.end_server();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownId`] if no connection has this ID, [`Error::Closed`] if it is closing, [`Error::NotShared`] if it
    /// is not shared. While it is being opened: [`Error::Refused`] if it is refused, or its `on_pre_server` panics;
    /// [`Error::Timeout`] if that takes longer; and at once [`Error::NotOpen`] in its own `on_pre_server`, which would wait
    /// for itself.
    pub fn open_server(&self, id: &WebSocketId) -> Result<WebSocket> {
        let connection = self.0.open(id)?;
        if !connection.about().shared {
            return Err(Error::NotShared);
        }
        match connection.reason() {
            Some(reason) => Err(Error::Closed(reason.clone())),
            None => Ok(WebSocket::new(connection, self.0.clone(), Holder::Anyone)),
        }
    }

    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        Self(registry)
    }
}

impl Opening {
    /// The hub of this server.
    pub fn hub(&self) -> Hub {
        Hub(self.registry.clone())
    }
}

impl WebSocket {
    /// The hub of this server.
    pub fn hub(&self) -> Hub {
        Hub(self.registry().clone())
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hub({} connections)", self.0.len())
    }
}

/// Pushes to one connection; made by [`Hub::pusher`]. It does not keep the connection open.
#[derive(Clone, Debug)]
pub struct Pusher(Found);

impl Pusher {
    /// As [`Hub::push`].
    ///
    /// # Errors
    /// As [`Hub::push`]; if the connection has ended, [`PushErrorKind::Closed`], and if it was never opened,
    /// [`PushErrorKind::Refused`].
    pub fn push(&self, data: impl Into<Payload>) -> std::result::Result<Pushed, PushError> {
        self.0.push(data.into().into_message())
    }

    /// The connection's ID.
    pub fn websocket_id(&self) -> &WebSocketId {
        self.0.id()
    }

    /// How the connection ended; `None` while it is open, before that, and if it was never opened.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.0.connection()?.reason().cloned()
    }
}

fn info(connection: &Arc<Connection>) -> ConnectionInfo {
    let about = connection.about();
    let (counts, queued, round_trip) = connection.statistics();
    ConnectionInfo {
        id: about.id,
        path: about.path.clone(),
        peer: about.peer,
        since: connection.opened(),
        shared: about.shared,
        queued,
        messages_in: counts.messages_in,
        messages_out: counts.messages_out,
        bytes_in: counts.bytes_in,
        bytes_out: counts.bytes_out,
        round_trip,
    }
}

//! The hub: every connection by its ID, and by what it listens to; pushes and broadcasts to them, from any thread.
//!
//! Its locks are held to look something up, never while anything is sent.

#![expect(clippy::mutable_key_type, reason = "a connection is found by its ID, which never changes")]

use std::{
    borrow::Borrow,
    collections::{HashMap, HashSet},
    fmt,
    hash::{Hash, Hasher},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use crate::{
    codec::Forms,
    connection::{Connection, Guard, PushError, PushErrorKind, Pushed},
    error::{CloseReason, Error, Result},
    id::WebSocketId,
    message::{CloseCode, Payload},
    sync::LockExt,
};

/// The registry is in so many parts that threads seldom want the same one.
const PARTS: usize = 16;

/// All connections of a server. Clones are the same hub.
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
#[derive(Clone, Default)]
pub struct Hub(Arc<Inner>);

#[derive(Default)]
struct Inner {
    by_id: [Mutex<Group>; PARTS],
    paths: Groups,
    topics: Groups,
    /// The topics of a connection, for its end.
    joined: Mutex<HashMap<WebSocketId, HashSet<Arc<str>>>>,
}

/// Connections by a name.
#[derive(Default)]
struct Groups(Mutex<HashMap<Arc<str>, Group>>);

type Group = HashSet<Member>;

/// A connection, found by its ID.
struct Member(Arc<Connection>);

impl Borrow<WebSocketId> for Member {
    fn borrow(&self) -> &WebSocketId {
        self.0.id()
    }
}

impl Hash for Member {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id().hash(state);
    }
}

impl PartialEq for Member {
    fn eq(&self, other: &Self) -> bool {
        self.0.id() == other.0.id()
    }
}

impl Eq for Member {}

fn connections(group: &Group) -> Vec<Arc<Connection>> {
    group.iter().map(|member| member.0.clone()).collect()
}

/// Whom a broadcast is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Audience<'a> {
    /// All connections.
    All,
    /// Those that asked for this path.
    Path(&'a str),
    /// Those that joined this topic.
    Topic(&'a str),
}

/// What became of a broadcast, in connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Broadcast {
    /// The kernel has it.
    pub sent: usize,
    /// It is queued for a client that is slow, or busy receiving something else.
    pub queued: usize,
    /// The client's queue was full: dropped.
    pub dropped: usize,
    /// The connection was closing, or was closed because its queue was full.
    pub gone: usize,
}

/// A connection, as the hub sees it at a moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Its ID.
    pub id: WebSocketId,
    /// The path that it asked for.
    pub path: Arc<str>,
    /// The socket's other end; `None` on a Unix socket.
    pub peer: Option<SocketAddr>,
    /// When it was opened.
    pub since: SystemTime,
    /// Whether it is shared.
    pub shared: bool,
    /// Bytes that wait to be sent.
    pub queued: usize,
    /// Messages received.
    pub messages_in: u64,
    /// Messages sent, or about to be.
    pub messages_out: u64,
    /// Bytes received, as they were on the wire.
    pub bytes_in: u64,
    /// Bytes sent, as they were on the wire.
    pub bytes_out: u64,
    /// How long the last ping took for its pong.
    pub round_trip: Option<Duration>,
}

impl Hub {
    /// Sends a message to one connection, shared or not, and never waits for the network: it is sent at once if the
    /// socket takes it, else queued, in order. It reaches the client also while the connection's own thread waits in
    /// `read`, or computes. Strings are sent as text, bytes as binary.
    ///
    /// # Errors
    /// [`PushError`] gives the message back. What happens when the queue is full is the route's choice:
    /// [`Opening::set_overflow`](crate::Opening::set_overflow).
    pub fn push(&self, id: &WebSocketId, data: impl Into<Payload>) -> std::result::Result<Pushed, PushError> {
        let message = data.into().into_message();
        match self.find(id) {
            Some(connection) => connection.push(message, None),
            None => Err(PushError { kind: PushErrorKind::Unknown, message }),
        }
    }

    /// A handle that pushes to one connection, without looking it up each time.
    ///
    /// # Errors
    /// [`Error::UnknownId`] if no connection has this ID.
    pub fn pusher(&self, id: &WebSocketId) -> Result<Pusher> {
        self.find(id).map(Pusher).ok_or(Error::UnknownId)
    }

    /// Sends a message to many. A dead or a slow connection never keeps the others waiting, unless its route's policy is
    /// [`Overflow::Block`](crate::Overflow::Block).
    pub fn broadcast(&self, to: Audience<'_>, data: impl Into<Payload>) -> Broadcast {
        let message = data.into().into_message();
        let mut connections = match to {
            Audience::All => self.all(),
            Audience::Path(path) => self.0.paths.members(path),
            Audience::Topic(topic) => self.0.topics.members(topic),
        };
        // In the order of their memory, ours and the system's: of many, most is not in the processor's caches.
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

    /// Starts the closing handshake of a connection, as [`WebSocket::close`](crate::WebSocket::close) does.
    ///
    /// # Errors
    /// [`Error::UnknownId`] if no connection has this ID.
    pub fn close(&self, id: &WebSocketId, code: impl Into<CloseCode>, text: &str) -> Result<()> {
        self.find(id).ok_or(Error::UnknownId)?.close(code.into(), text);
        Ok(())
    }

    /// All connections, in no order.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        self.all().iter().map(info).collect()
    }

    /// One connection; `None` if no connection has this ID.
    pub fn connection(&self, id: &WebSocketId) -> Option<ConnectionInfo> {
        self.find(id).map(|connection| info(&connection))
    }

    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no connection.
    pub fn is_empty(&self) -> bool {
        self.0.by_id.iter().all(|part| part.locked().is_empty())
    }

    /// Makes a connection a member of a topic, until it leaves or ends. Joining twice is joining once.
    ///
    /// # Errors
    /// [`Error::UnknownId`] if no connection has this ID.
    pub fn join(&self, id: &WebSocketId, topic: &str) -> Result<()> {
        let connection = self.find(id).ok_or(Error::UnknownId)?;
        let name: Arc<str> = topic.into();
        let mut joined = self.0.joined.locked();
        joined.entry(id.clone()).or_default().insert(name.clone());
        self.0.topics.insert(&name, connection);
        // It may have ended in between: then nobody would take it out any more.
        if self.find(id).is_none() {
            drop(joined);
            self.0.leave_all(id);
            return Err(Error::UnknownId);
        }
        Ok(())
    }

    /// Ends a membership. Leaving a topic that was not joined does nothing.
    pub fn leave(&self, id: &WebSocketId, topic: &str) {
        let mut joined = self.0.joined.locked();
        if let Some(topics) = joined.get_mut(id) {
            topics.remove(topic);
            if topics.is_empty() {
                joined.remove(id);
            }
            self.0.topics.remove(topic, id);
        }
    }

    /// The members of a topic, in no order.
    pub fn members(&self, topic: &str) -> Vec<WebSocketId> {
        self.0.topics.members(topic).iter().map(|connection| connection.id().clone()).collect()
    }

    pub(crate) fn find(&self, id: &WebSocketId) -> Option<Arc<Connection>> {
        self.0.part(id).locked().get(id).map(|member| member.0.clone())
    }

    /// All of them, as they are now.
    pub(crate) fn all(&self) -> Vec<Arc<Connection>> {
        self.0.by_id.iter().flat_map(|part| connections(&part.locked())).collect()
    }

    /// A path; where others have asked for it, too, it is theirs.
    pub(crate) fn path(&self, path: &str) -> Arc<str> {
        let paths = self.0.paths.0.locked();
        paths.get_key_value(path).map_or_else(|| path.into(), |(path, _)| path.clone())
    }

    /// Makes a connection known by its ID and its path, until it is over.
    pub(crate) fn register(&self, connection: &Arc<Connection>) {
        connection.tell_end(self.0.clone());
        self.0.part(connection.id()).locked().insert(Member(connection.clone()));
        self.0.paths.insert(&connection.about().path, connection.clone());
    }
}

impl Inner {
    fn len(&self) -> usize {
        self.by_id.iter().map(|part| part.locked().len()).sum()
    }

    fn part(&self, id: &WebSocketId) -> &Mutex<Group> {
        // IDs are random, and so is their end.
        let last = id.as_str().bytes().last().unwrap_or_default();
        &self.by_id[usize::from(last) % PARTS]
    }

    fn leave_all(&self, id: &WebSocketId) {
        let mut joined = self.joined.locked();
        for topic in joined.remove(id).into_iter().flatten() {
            self.topics.remove(&topic, id);
        }
    }
}

/// At its end the ID becomes unknown, and it leaves all topics.
impl Guard for Inner {
    fn release(&self, connection: &Connection) {
        let id = connection.id();
        self.part(id).locked().remove(id);
        self.paths.remove(&connection.about().path, id);
        self.leave_all(id);
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hub({} connections)", self.len())
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Groups {
    fn insert(&self, name: &Arc<str>, connection: Arc<Connection>) {
        let mut groups = self.0.locked();
        groups.entry(name.clone()).or_default().insert(Member(connection));
    }

    fn remove(&self, name: &str, id: &WebSocketId) {
        let mut groups = self.0.locked();
        if let Some(group) = groups.get_mut(name) {
            group.remove(id);
            if group.is_empty() {
                groups.remove(name);
            }
        }
    }

    fn members(&self, name: &str) -> Vec<Arc<Connection>> {
        self.0.locked().get(name).map(connections).unwrap_or_default()
    }
}

/// Pushes to one connection; made by [`Hub::pusher`]. It does not keep the connection open.
#[derive(Clone, Debug)]
pub struct Pusher(Arc<Connection>);

impl Pusher {
    /// As [`Hub::push`].
    ///
    /// # Errors
    /// As [`Hub::push`]; a connection that is over is [`PushErrorKind::Closed`].
    pub fn push(&self, data: impl Into<Payload>) -> std::result::Result<Pushed, PushError> {
        self.0.push(data.into().into_message(), None)
    }

    /// The connection's ID.
    pub fn websocket_id(&self) -> &WebSocketId {
        self.0.id()
    }

    /// How the connection ended; `None` while it is open.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.0.reason().cloned()
    }
}

fn info(connection: &Arc<Connection>) -> ConnectionInfo {
    let about = connection.about();
    let (counts, queued, round_trip) = connection.statistics();
    ConnectionInfo {
        id: about.id.clone(),
        path: about.path.clone(),
        peer: about.peer,
        since: connection.since(),
        shared: about.shared,
        queued,
        messages_in: counts.messages_in,
        messages_out: counts.messages_out,
        bytes_in: counts.bytes_in,
        bytes_out: counts.bytes_out,
        round_trip,
    }
}

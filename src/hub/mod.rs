//! The hub: finds connections by ID, path, route, topic and user, and pushes to them, from any thread.

#[cfg(feature = "cluster")]
mod clustered;
mod local;
mod pages;
mod publishing;
mod pusher;
#[cfg(feature = "remote")]
mod remote;

use std::{borrow::Borrow, fmt, sync::Arc, time::Duration};

use self::local::Local;
#[cfg(feature = "cluster")]
pub(crate) use self::local::{deliver, tell_gap};
pub use self::{
    pages::Page,
    publishing::{Publication, Published},
    pusher::Pusher,
};
use crate::{
    audience::{Audience, Recipients},
    connection::{PushError, Pushed},
    error::Result,
    id::WebSocketId,
    info::ConnectionInfo,
    message::{CloseCode, Payload},
    opening::Opening,
    place::wherever_of_hub,
    registry::Registry,
    websocket::{Closed, WebSocket, Whose},
};

/// Finds all connections of a server, and pushes to them. Clones refer to the same server.
///
/// What does not concern one connection returns a `Result` as well, although with the server's own hub it cannot fail: it
/// will where the hub is that of another process or machine, which can be out of reach.
///
/// ```no_run
/// # fn main() -> Result<(), switchboard::ServerError> {
/// # let server = switchboard::Server::builder().listen("127.0.0.1:0").bind()?;
/// use switchboard::Audience;
///
/// let hub = server.hub();
/// std::thread::spawn(move || loop {
///     match hub.broadcast(Audience::Path("/clock"), "tick") {
///         Ok(result) => println!("{} clients got it", result.sent + result.queued),
///         Err(e) => eprintln!("nobody was reached: {e}"),
///     }
///     std::thread::sleep(std::time::Duration::from_secs(1));
/// });
/// server.run()
/// # }
/// ```
///
/// # In another process
///
/// With the feature `remote` there is `Hub::connect("unix:/run/box.sock")`, the hub of a server in another process, which has a
/// management listener there (`ServerBuilder::manage`); `Hub::builder` takes a token and whom to trust, for
/// `http://127.0.0.1:port` and `https://host:port`. It is the same type with the same methods, answers and errors: a function
/// that takes a `&Hub` and an ID does not know where the connection lives. What is different:
///
/// - Each call waits for the answer of the other process, though never for a client: 1 s at most, or the `answer_timeout` of the builder,
///   beside what it waits for there. While there is no link, none waits: [`Error::Unreachable`](crate::Error::Unreachable), or
///   [`PushErrorKind::Unreachable`](crate::PushErrorKind) with the message. Who has waited in vain does not know whether it was done.
///   The link is made again in the background.
/// - On a thread that [must not wait](crate::PushErrorKind::MustNotWait) they fail with that; those that return no `Result` tell what they
///   can.
/// - A message is pushed at most once, in the order of those who push, and one that is [`Sent`](crate::Pushed::Sent) is with the client if
///   the connection lasts. [`push_all`](Self::push_all) waits once for what fits 64 KiB; after what was not answered it tries no others.
/// - What was read from a [`WebSocket`](crate::WebSocket) that was [opened](Self::open_server) by it is acknowledged by the next read, write,
///   flush or close of that, and by its drop. A reader whose process ends before loses nothing: the message is the first that whoever
///   reads next gets. When the link was lost and is back, such a `WebSocket` goes on, and what it had not acknowledged comes again: a
///   [`Delivery`](crate::Delivery) from before cannot be acknowledged any more. If its server has been started anew, it is closed.
/// - With a token for reading only, what changes anything is [`Error::Forbidden`](crate::Error::Forbidden).
/// - One thread, `switchboard-hub`, connects and receives. It ends with the last clone of the hub, and the last of what was made by it.
#[derive(Clone)]
pub struct Hub(Place);

/// Whose connections they are.
#[derive(Clone)]
enum Place {
    Local(Local),
    #[cfg(feature = "remote")]
    Remote(self::remote::Remote),
    /// Those of this server, and of the other nodes of its cluster.
    #[cfg(feature = "cluster")]
    Clustered(self::clustered::Clustered),
}

/// The result of a broadcast, in numbers of connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "it says whom the message did not reach"]
#[non_exhaustive]
pub struct Broadcast {
    /// The kernel has taken the message.
    pub sent: usize,
    /// The message is queued, because the client is slow or something else is just being sent to it.
    pub queued: usize,
    /// The message was dropped, because the client's queue was full.
    pub dropped: usize,
    /// The connection is closing, or was closed by this because its queue was full. One that is closing counts each time until
    /// it is over.
    pub gone: usize,
    /// Other nodes of the [cluster](crate::Cluster) that the message was sent to, since they may have some of those that are meant:
    /// none of them has counted anything. 0 on a thread that [must not wait](crate::PushErrorKind::MustNotWait), which does not learn
    /// their number.
    pub forwarded: usize,
    /// Nobody knows whether the other nodes of the cluster got the message: Redis was not reached, or not in time.
    pub unreachable: bool,
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
        wherever_of_hub!(self.0, push(id, data.into()))
    }

    /// Sends a message to one connection, shared or not, and waits until the kernel has it: no longer than the timeout, and
    /// not at all if the socket takes it at once. It is sent in order with what was pushed before and comes later, is never
    /// collected, and does not count for the queue's limits. Strings are sent as text, bytes as binary. If the connection is
    /// being [opened](Self::open_server), the wait for that is a part of the timeout.
    ///
    /// ```
    /// # fn example(hub: &switchboard::Hub, id: &switchboard::WebSocketId) {
    /// use std::time::Duration;
    /// use switchboard::PushErrorKind;
    ///
    /// match hub.push_wait(id, "the last offer", Duration::from_secs(5)) {
    ///     Ok(()) => println!("sent"),
    ///     Err(e) if matches!(e.kind, PushErrorKind::Timeout) => println!("too slow: {:?} was not sent", e.message),
    ///     Err(e) => println!("{e}"),
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`PushError`] gives the message back, and the connection stays as it is.
    /// [`PushErrorKind::Timeout`](crate::PushErrorKind::Timeout): nothing of the message was sent, nor will it be.
    /// [`PushErrorKind::Pending`](crate::PushErrorKind::Pending): a part of it may be out, and it may still arrive.
    /// [`PushErrorKind::MustNotWait`](crate::PushErrorKind::MustNotWait) at once, and nothing is sent, when a thread of the
    /// gateway calls it, as that of [`on_client_message`](crate::WebSocketServer::on_client_message) with
    /// [`Limits::workers`](crate::Limits::workers) 0: all clients would wait. A worker may wait, and then does nothing else.
    pub fn push_wait(
        &self,
        id: &WebSocketId,
        data: impl Into<Payload>,
        timeout: Duration,
    ) -> std::result::Result<(), PushError> {
        wherever_of_hub!(self.0, push_wait(id, data.into().into_message(), timeout))
    }

    /// Pushes many messages, each to a connection of its own or not: as [`push`](Self::push) for one after the other. Returns
    /// a result for each, in their order.
    ///
    /// ```
    /// # fn example(hub: &switchboard::Hub, red: &switchboard::WebSocketId, blue: &switchboard::WebSocketId) {
    /// for result in hub.push_all([(red, "your turn"), (blue, "wait")]) {
    ///     if let Err(e) = result {
    ///         eprintln!("{:?} was not sent: {e}", e.message);
    ///     }
    /// }
    /// # }
    /// ```
    #[must_use = "each of the pushes may have failed"]
    pub fn push_all<I: Borrow<WebSocketId>, D: Into<Payload>>(
        &self,
        messages: impl IntoIterator<Item = (I, D)>,
    ) -> Vec<std::result::Result<Pushed, PushError>> {
        wherever_of_hub!(self.0, push_all(messages))
    }

    /// A handle that pushes to one connection, without looking it up each time. It may be made while the connection is being
    /// [opened](Self::open_server), too.
    ///
    /// # Errors
    /// [`Error::UnknownId`](crate::Error::UnknownId) if no connection has this ID.
    pub fn pusher(&self, id: &WebSocketId) -> Result<Pusher> {
        wherever_of_hub!(self.0, pusher(id))
    }

    /// Sends a message to many connections. A dead or slow one does not delay the others. Those that are still being opened are
    /// not among them, except where they have said already that they [join](crate::Opening::join) the topic or are the
    /// [user's](crate::Opening::set_user): these get it behind the answer to their handshake.
    ///
    /// ```
    /// # fn example(hub: &switchboard::Hub, sender: &switchboard::WebSocketId) -> switchboard::Result<()> {
    /// use switchboard::Audience;
    ///
    /// let result = hub.broadcast(Audience::Topic("room"), "to all in the room")?;
    /// println!("{} of {} are slow", result.queued, result.sent + result.queued);
    /// let result = hub.broadcast(Audience::Route("/chat/*").except(sender), "to all others")?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// For the server's own connections only that of [`publish`](Self::publish), where [`Audience::Topic`] remembers and has a
    /// name that is too long: those that cannot be sent to are [counted](Broadcast). One that is [excepted](Audience::except) is not
    /// counted.
    pub fn broadcast<'a>(
        &self,
        to: impl Into<Recipients<'a>>,
        data: impl Into<Payload>,
    ) -> Result<Broadcast> {
        let to = to.into();
        if let Audience::Topic(topic) = to.audience {
            let mut publication = Publication::new(data);
            publication.except = to.except;
            return Ok(self.publish(topic, publication)?.broadcast);
        }
        let (message, key) = data.into().split();
        wherever_of_hub!(self.0, broadcast(to, message, key.as_ref()))
    }

    /// Sends a message to all connections of a user: [`broadcast`](Self::broadcast) to [`Audience::User`].
    ///
    /// ```
    /// # fn example(hub: &switchboard::Hub) -> switchboard::Result<()> {
    /// let result = hub.push_user("42", "your order has been sent")?;
    /// if result.sent + result.queued == 0 {
    ///     println!("nobody is there: send a letter");
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`broadcast`](Self::broadcast).
    pub fn push_user(&self, user: &str, data: impl Into<Payload>) -> Result<Broadcast> {
        self.broadcast(Audience::User(user), data)
    }

    /// Starts the closing handshake of all connections of a user: [`close_all`](Self::close_all) of [`Audience::User`].
    ///
    /// # Errors
    /// As [`close_all`](Self::close_all).
    pub fn close_user(&self, user: &str, code: impl Into<CloseCode>, text: &str) -> Result<usize> {
        self.close_all(Audience::User(user), code, text)
    }

    /// Starts the closing handshake of many connections, each as [`WebSocket::close`](crate::WebSocket::close) does, and does not
    /// wait. Returns how many were open. Whose are meant while they are being opened is as in
    /// [`broadcast`](Self::broadcast): these are closed as soon as they are open, and counted. So whoever is locked out, and
    /// then closed by this, is not there any more.
    ///
    /// ```
    /// # fn example(ws: &switchboard::WebSocket) -> switchboard::Result<()> {
    /// use switchboard::Audience;
    ///
    /// if let Some(user) = ws.user() {
    ///     let others = Audience::User(user).except(ws.websocket_id());
    ///     ws.hub().close_all(others, 4001, "you are here now")?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// None for the server's own connections; those of [another process](Self#in-another-process).
    pub fn close_all<'a>(
        &self,
        who: impl Into<Recipients<'a>>,
        code: impl Into<CloseCode>,
        text: &str,
    ) -> Result<usize> {
        wherever_of_hub!(self.0, close_all(who.into(), code.into(), text))
    }

    /// Starts the closing handshake of a connection, as [`WebSocket::close`](crate::WebSocket::close) does, and does not wait. One
    /// that is being [opened](Self::open_server) is closed as soon as it is open, behind what was pushed before.
    ///
    /// # Errors
    /// [`Error::UnknownId`](crate::Error::UnknownId) if no connection has this ID, [`Error::Refused`](crate::Error::Refused) if
    /// its handshake was just refused.
    pub fn close(&self, id: &WebSocketId, code: impl Into<CloseCode>, text: &str) -> Result<()> {
        wherever_of_hub!(self.0, close(id, code.into(), text))
    }

    /// One connection. Waits while it is being [opened](Self::open_server).
    ///
    /// # Errors
    /// [`Error::UnknownId`](crate::Error::UnknownId) if no connection has this ID; while it is being opened, as
    /// [`open_server`](Self::open_server).
    pub fn connection(&self, id: &WebSocketId) -> Result<ConnectionInfo> {
        wherever_of_hub!(self.0, connection(id))
    }

    /// The certificates that the server uses now, each once, in the order of their first listener, those of the management listener
    /// last: to tell metrics, or whoever looks after them, when they end.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let identity = switchboard::TlsIdentity::from_pem_files("certs/server.pem", "certs/server.key")?;
    /// # let server = switchboard::Server::builder().listen_tls("127.0.0.1:0", identity).bind()?;
    /// use std::time::SystemTime;
    ///
    /// for certificate in server.hub().certificates()? {
    ///     let left = certificate.not_after.duration_since(SystemTime::now()).unwrap_or_default();
    ///     println!("certificate_seconds_left{{subject={:?}}} {}", certificate.subject, left.as_secs());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// None for the server's own hub.
    #[cfg(feature = "__tls")]
    pub fn certificates(&self) -> Result<Vec<crate::tls::CertificateInfo>> {
        wherever_of_hub!(self.0, certificates())
    }

    /// How many connections are open.
    ///
    /// # Errors
    /// None for the server's own.
    pub fn len(&self) -> Result<usize> {
        wherever_of_hub!(self.0, len())
    }

    /// The server, and, in a [cluster](crate::Cluster), the other nodes that it knows of, in the order of their numbers. Each of these is
    /// asked; it is waited for 1 s at most, and what is not known then is `None`.
    ///
    /// ```
    /// # fn example(hub: &switchboard::Hub) -> switchboard::Result<()> {
    /// for node in hub.nodes()? {
    ///     let here = if node.is_this { " (this one)" } else { "" };
    ///     match node.connections {
    ///         Some(count) => println!("node {}{here}: {count} connections, {}", node.node, node.software),
    ///         None => println!("node {} does not answer", node.node),
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// None for the server's own: where Redis is not reached, the others are those of before.
    pub fn nodes(&self) -> Result<Vec<crate::NodeInfo>> {
        wherever_of_hub!(self.0, nodes())
    }

    /// Whether no connection is open.
    ///
    /// # Errors
    /// None for the server's own.
    pub fn is_empty(&self) -> Result<bool> {
        wherever_of_hub!(self.0, is_empty())
    }

    /// Makes a connection a member of a topic, until it leaves or ends. Joining again has no effect. Waits while the
    /// connection is being [opened](Self::open_server).
    ///
    /// # Errors
    /// [`Error::UnknownId`](crate::Error::UnknownId) if no connection has this ID; while it is being opened, as
    /// [`open_server`](Self::open_server). [`Error::OverLimit`](crate::Error::OverLimit) if the topic's name is too long or
    /// empty, or if there are too many topics.
    pub fn join(&self, id: &WebSocketId, topic: &str) -> Result<()> {
        wherever_of_hub!(self.0, join(id, topic))
    }

    /// Removes a connection from a topic, if it is a member, or, while it is being opened, would become one.
    ///
    /// # Errors
    /// [`Error::UnknownId`](crate::Error::UnknownId) if no connection has this ID.
    pub fn leave(&self, id: &WebSocketId, topic: &str) -> Result<()> {
        wherever_of_hub!(self.0, leave(id, topic))
    }

    /// The topics of a connection, in the order of their names: at most [`Limits::max_topics`](crate::Limits::max_topics). Waits
    /// while the connection is being [opened](Self::open_server).
    ///
    /// # Errors
    /// [`Error::UnknownId`](crate::Error::UnknownId) if no connection has this ID; while it is being opened, as
    /// [`open_server`](Self::open_server).
    pub fn topics_of(&self, id: &WebSocketId) -> Result<Vec<Arc<str>>> {
        wherever_of_hub!(self.0, topics_of(id))
    }

    /// Returns a [`WebSocket`] for a shared connection (`OpenServer`). Any number of threads may have one. On a thread of
    /// the gateway its calls do not wait, as in [`on_client_message`](crate::WebSocketServer::on_client_message).
    ///
    /// An ID is valid as soon as `on_pre_server` can ask for it. Whoever is given it there may be faster than the opening
    /// handshake: then this waits until the connection is open, for at most
    /// [`Limits::handshake_timeout`](crate::Limits::handshake_timeout), and tells it if the handshake is refused. A thread of
    /// the gateway does not wait.
    ///
    /// ```no_run
    /// # fn example(hub: &switchboard::Hub, saved_id: &str) -> switchboard::Result<()> {
    /// use std::time::Duration;
    ///
    /// let ws = hub.open_server(&saved_id.parse()?)?;
    /// ws.write("are you there?")?;
    /// let answer = ws.read_message(Duration::from_secs(10))?;
    /// ws.end_server();
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`Error::UnknownId`](crate::Error::UnknownId) if no connection has this ID, [`Error::Closed`](crate::Error::Closed) if it
    /// is closing, [`Error::NotShared`](crate::Error::NotShared) if it is not shared. While it is being opened:
    /// [`Error::Refused`](crate::Error::Refused) if it is refused, or its `on_pre_server` panics;
    /// [`Error::Timeout`](crate::Error::Timeout) if that takes longer; and at once [`Error::NotOpen`](crate::Error::NotOpen) in
    /// its own `on_pre_server`, which would wait for itself, and on a thread of the gateway.
    pub fn open_server(&self, id: &WebSocketId) -> Result<WebSocket> {
        wherever_of_hub!(self.0, open_server(id))
    }

    pub(crate) fn new(registry: Arc<Registry>) -> Self {
        #[cfg(feature = "cluster")]
        if let Some(elsewhere) = registry.elsewhere().cloned() {
            return Self(Place::Clustered(self::clustered::Clustered::new(registry, elsewhere)));
        }
        Self(Place::Local(Local::new(registry)))
    }

    /// That of one node, without the others of its cluster.
    #[cfg(feature = "cluster")]
    pub(crate) fn alone(registry: Arc<Registry>) -> Self {
        Self(Place::Local(Local::new(registry)))
    }

    /// Whether it reaches other nodes.
    #[cfg(feature = "cluster")]
    pub(crate) fn is_clustered(&self) -> bool {
        matches!(self.0, Place::Clustered(_))
    }

    /// Sends to those of this node, also where its topic remembers something.
    #[cfg(feature = "cluster")]
    pub(crate) fn send_here(&self, to: Recipients<'_>, data: Payload) -> Result<Broadcast> {
        let (message, key) = data.split();
        wherever_of_hub!(self.0, broadcast(to, message, key.as_ref()))
    }

    /// That of another process.
    #[cfg(feature = "remote")]
    pub(crate) fn remote(link: Arc<crate::remote::Linked>) -> Self {
        Self(Place::Remote(self::remote::Remote::new(link)))
    }
}

impl Opening {
    /// The hub of this server.
    pub fn hub(&self) -> Hub {
        Hub::new(self.announced.registry().clone())
    }
}

impl Closed {
    /// The hub of this server.
    pub fn hub(&self) -> Hub {
        Hub::new(self.registry.clone())
    }
}

impl WebSocket {
    /// The hub of this server.
    pub fn hub(&self) -> Hub {
        match self.whose() {
            Whose::Local(registry) => Hub::new(registry.clone()),
            #[cfg(feature = "remote")]
            Whose::Remote(link) => Hub::remote(link.clone()),
        }
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        wherever_of_hub!(self.0, fmt(f))
    }
}

//! An open connection, as the code that uses it has it.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use super::local::{Attached, Holder, Local};
#[cfg(feature = "remote")]
use super::remote::Remote;
#[cfg(feature = "remote")]
use crate::remote::Linked;
use crate::{
    connection::{About, Connection, READ_TIMEOUT},
    delivery::Delivery,
    error::{CloseReason, Error, Result, if_there},
    history::Since,
    http::{Request, tail},
    id::WebSocketId,
    info::Recovery,
    message::{CloseCode, Message, Payload},
    place::wherever,
    registry::Registry,
    session::{Session, SessionId},
    tags::Tags,
};

/// How many characters or bytes [`read`](WebSocket::read) returns at most if no other number is given: the default of IRIS.
pub const READ_LEN: usize = 32_656;

/// An open connection: in [`server`](crate::WebSocketServer::server), or opened by its ID with
/// [`Hub::open_server`](crate::Hub::open_server).
///
/// All of it can be used by several threads at once. So a handler may read in one thread and write in another:
///
/// ```
/// use std::{sync::mpsc, thread, time::Duration};
/// use switchboard::{ServerResult, WebSocket, WebSocketServer};
///
/// struct Duplex;
///
/// impl WebSocketServer for Duplex {
///     fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
///         let ws = &*ws; // for both threads
///         let (done, is_done) = mpsc::channel::<()>();
///         thread::scope(|scope| {
///             scope.spawn(move || {
///                 // Once a second, until the client has left or nobody reads any more.
///                 while is_done.recv_timeout(Duration::from_secs(1)) == Err(mpsc::RecvTimeoutError::Timeout)
///                     && ws.write("tick").is_ok()
///                 {}
///             });
///             for message in ws.messages() {
///                 println!("received {message:?}");
///             }
///             drop(done);
///         });
///         Ok(())
///     }
/// }
/// ```
///
/// If several threads read, each message goes to one of them. Of a synchronous connection one thread reads at a time, and the
/// others wait for their turn, within their timeouts. They share [`at_end`](Self::at_end), and an end of the connection waits
/// for answers until one of them reads on; of a shared connection each can have a `WebSocket` of its own.
///
/// One that was opened by the hub of [another process](crate::Hub#in-another-process) is used in the same way. Any call may then also
/// report [`Error::Unreachable`]; after that, [`messages`](Self::messages) has ended although the connection has not.
#[derive(Debug)]
pub struct WebSocket {
    place: Place,
    at_end: AtomicBool,
}

/// Where the connection is.
#[derive(Debug)]
enum Place {
    Local(Local),
    #[cfg(feature = "remote")]
    Remote(Remote),
}

/// By what its hub finds connections.
pub(crate) enum Whose<'a> {
    Local(&'a Arc<Registry>),
    #[cfg(feature = "remote")]
    Remote(&'a Arc<Linked>),
}

impl WebSocket {
    pub(crate) fn new(connection: Arc<Connection>, registry: Arc<Registry>, holder: Holder) -> Self {
        Self::at(Place::Local(Local::new(connection, registry, holder)))
    }

    fn at(place: Place) -> Self {
        Self { place, at_end: AtomicBool::new(true) }
    }

    /// Opens one of another process.
    ///
    /// # Errors
    /// As [`Hub::open_server`](crate::Hub::open_server).
    #[cfg(feature = "remote")]
    pub(crate) fn open_remote(link: &Arc<Linked>, id: &WebSocketId) -> Result<Self> {
        Remote::open(link, id, None).map(|remote| Self::at(Place::Remote(remote)))
    }

    /// Opens one of another node, by the link to that.
    ///
    /// # Errors
    /// As [`Hub::open_server`](crate::Hub::open_server).
    #[cfg(feature = "cluster")]
    pub(crate) fn open_elsewhere(link: &Arc<Linked>, id: &WebSocketId, home: Arc<Registry>) -> Result<Self> {
        Remote::open(link, id, Some(home)).map(|remote| Self::at(Place::Remote(remote)))
    }

    /// The connection, if it is one of this process.
    #[cfg(feature = "manage")]
    pub(crate) fn connection(&self) -> Option<&Arc<Connection>> {
        match &self.place {
            Place::Local(local) => Some(local.connection()),
            #[cfg(feature = "remote")]
            Place::Remote(_) => None,
        }
    }

    pub(crate) fn whose(&self) -> Whose<'_> {
        match &self.place {
            Place::Local(local) => Whose::Local(local.registry()),
            #[cfg(feature = "remote")]
            Place::Remote(remote) => remote.whose(),
        }
    }

    /// Sets whether more messages wait behind the one that `on_client_message` is called for.
    pub(crate) fn expect_more(&self, on: bool) {
        match &self.place {
            Place::Local(local) => local.expect_more(on),
            #[cfg(feature = "remote")]
            Place::Remote(_) => {}
        }
    }

    #[inline] // for each message
    fn receive(&self, len: usize, timeout: Duration) -> Result<Message> {
        let (message, at_end) = wherever!(self.place, read(len, timeout))?;
        self.at_end.store(at_end, Relaxed);
        Ok(message)
    }

    fn attached(&self) -> Option<&Attached> {
        match &self.place {
            Place::Local(local) => local.attached(),
            #[cfg(feature = "remote")]
            Place::Remote(_) => None,
        }
    }

    pub(crate) fn about(&self) -> &About {
        wherever!(self.place, about())
    }

    /// Waits for the next message, or returns the rest of one that was read in part (`Read`). For whole messages, whatever
    /// their length, there is [`read_message`](Self::read_message).
    ///
    /// Returns at most `len` characters of a text, or bytes of a binary message, and never parts of two messages. The
    /// next call returns the rest; [`at_end`](Self::at_end) says whether there is one. A `len` of 0 means [`READ_LEN`].
    /// The timeout is for the whole call, however slowly bytes arrive.
    ///
    /// While it waits, pings are answered. Several readers of a shared connection each get different messages.
    ///
    /// # Errors
    /// [`Error::Timeout`]: nothing is lost, not even a message that has arrived in part.
    /// [`Error::Closed`]: the connection has ended, whichever side closed it.
    pub fn read(&self, len: usize, timeout: Duration) -> Result<Message> {
        self.receive(if len == 0 { READ_LEN } else { len }, timeout)
    }

    /// Whether the last read through this `WebSocket`, of whatever kind, reached the end of its message (`AtEnd`). True
    /// before the first one.
    pub fn at_end(&self) -> bool {
        self.at_end.load(Relaxed)
    }

    /// Waits for the next whole message, or returns the rest of one that a `read` began. A message has at most
    /// [`Limits::max_message_size`](crate::Limits) bytes.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_message(&self, timeout: Duration) -> Result<Message> {
        self.receive(usize::MAX, timeout)
    }

    /// As [`read`](Self::read), but never waits: `None` if no whole message has arrived.
    ///
    /// # Errors
    /// [`Error::Closed`] if the connection has ended.
    pub fn try_read(&self, len: usize) -> Result<Option<Message>> {
        if_there(self.read(len, Duration::ZERO))
    }

    /// As [`read`](Self::read), of a shared connection and at least once: what it returns is to be [acknowledged](Delivery::ack). A
    /// [`Delivery`] that is dropped before goes back, and whoever reads next, in whatever way, gets it first. So nothing is lost with
    /// a reader that fails, and what it had begun may be done twice: the message says whether it was
    /// [delivered before](Delivery::redelivered). A `len` of `usize::MAX` gives whole messages.
    ///
    /// Until it is acknowledged, it counts for [`Limits::max_inbox_bytes`](crate::Limits::max_inbox_bytes) and
    /// [`max_inbox_messages`](crate::Limits::max_inbox_messages), beyond which nothing more is received from the client; and the
    /// client's end waits for it, as for an answer, for [`Limits::close_timeout`](crate::Limits::close_timeout) at most. What goes
    /// back after that end can still be read. What goes back after `server` has returned is for readers, and not for
    /// `on_client_message`, which gets messages in their order and has had later ones.
    ///
    /// ```no_run
    /// # fn store(_: &switchboard::Message, _may_be_there: bool) -> std::io::Result<()> { Ok(()) }
    /// # fn example(hub: &switchboard::Hub, id: &switchboard::WebSocketId) -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// let ws = hub.open_server(id)?;
    /// loop {
    ///     let order = ws.read_delivery(usize::MAX, Duration::from_secs(60))?;
    ///     store(&order, order.redelivered())?; // if this fails, the order waits for the next reader
    ///     order.ack();
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`read`](Self::read). [`Error::NotShared`] if the connection is not shared.
    pub fn read_delivery(&self, len: usize, timeout: Duration) -> Result<Delivery> {
        let len = if len == 0 { READ_LEN } else { len };
        let delivery = wherever!(self.place, read_delivery(len, timeout))?;
        self.at_end.store(delivery.at_end(), Relaxed);
        Ok(delivery)
    }

    /// An iterator over the messages to come, each as from [`read_message`](Self::read_message), until the connection ends;
    /// [`close_reason`](Self::close_reason) says how. In `on_client_message` it does not wait, and ends with those that are there.
    pub fn messages(&self) -> Messages<'_> {
        Messages(self)
    }

    /// Sends one whole message (`Write`). It returns when the kernel has taken the bytes; or, while further messages of
    /// the client already wait to be read, when they are collected with other answers, which are sent after 1 ms at the
    /// latest ([`flush`](Self::flush) sends at once).
    ///
    /// A [`Message`] keeps its kind. Strings and bytes are sent as [`set_binary_data`](Self::set_binary_data) says.
    ///
    /// # Errors
    /// [`Error::Closed`] after the close, by either side. [`Error::Timeout`] if a slow client did not take it within
    /// [`Limits::write_timeout`](crate::Limits): a part of it may have been sent, so the connection is closed.
    /// [`Error::NotUtf8`] for bytes that would have to be text: nothing is sent. [`Error::QueueFull`] only in
    /// `on_client_message`, which does not wait for a slow client.
    pub fn write(&self, data: impl Into<Payload>) -> Result<()> {
        let message = data.into().into_message_as(self.binary_data()).map_err(|_| Error::NotUtf8)?;
        wherever!(self.place, write(message))
    }

    /// Sends collected messages at once, and waits until the kernel has taken all that was written; in `on_client_message`
    /// it does not wait.
    ///
    /// # Errors
    /// [`Error::Closed`] and [`Error::Timeout`] as [`write`](Self::write).
    pub fn flush(&self) -> Result<()> {
        wherever!(self.place, flush())
    }

    /// Starts the closing handshake with code 1000 (`EndServer`), and does not wait for the client's answer. The server
    /// waits for it after `server` has returned, for at most [`Limits::close_timeout`](crate::Limits); for a shared
    /// connection the gateway does. Afterwards reads and writes fail with [`Error::Closed`], and so does a read that is
    /// waiting in another thread. If the connection is already closing, nothing happens.
    pub fn end_server(&self) {
        self.close(CloseCode::NORMAL, "");
    }

    /// As [`end_server`](Self::end_server), with a code and a text of the application's: 4000 to 4999 for its own purposes, or
    /// another one that [may be sent](CloseCode::is_sendable); and at most 123 bytes (RFC 6455, sections 7.4 and 5.5). A longer
    /// text is cut; with a code that may not be sent, the close frame is empty.
    pub fn close(&self, code: impl Into<CloseCode>, text: &str) {
        wherever!(self.place, close(code.into(), text));
    }

    /// How the connection ended; `None` while it is open, and where that cannot be asked.
    pub fn close_reason(&self) -> Option<CloseReason> {
        wherever!(self.place, close_reason())
    }

    /// `BinaryData`: with true, [`write`](Self::write) sends binary frames and no UTF-8 is required; with false, the
    /// default, text frames in UTF-8. A [`Message`] keeps its own kind either way. It holds for all that write to the
    /// connection with a `WebSocket`; but one of another process takes it as it was when it was opened, or is set with it.
    pub fn set_binary_data(&self, on: bool) {
        wherever!(self.place, set_binary_data(on));
    }

    /// Whether [`BinaryData`](Self::set_binary_data) is on.
    pub fn binary_data(&self) -> bool {
        wherever!(self.place, binary_data())
    }

    /// `SessionEndOnClose`: the session ends with this connection, for all that share it. Off by default.
    pub fn set_session_end_on_close(&self, on: bool) {
        wherever!(self.place, set_session_end_on_close(on));
    }

    /// Whether the session ends with this connection.
    pub fn session_end_on_close(&self) -> bool {
        wherever!(self.place, session_end_on_close())
    }

    /// The connection's ID (`WebSocketID`).
    pub fn websocket_id(&self) -> &WebSocketId {
        &self.about().id
    }

    /// The session's ID (`SessionId`), as it was when the connection was opened; `None` if it has no session
    /// ([`Opening::set_use_session`](crate::Opening::set_use_session)).
    pub fn session_id(&self) -> Option<&SessionId> {
        self.about().session_id.as_ref()
    }

    /// The session, in `server`: what all connections and requests of this user share. There is none of a connection of another process. `None` for a shared connection
    /// after `server` has returned, of which the instance may keep a [clone](Session); if it was opened by its ID; and if it has
    /// [no session](crate::Opening::set_use_session).
    pub fn session(&self) -> Option<&Session> {
        self.attached().and_then(|attached| attached.session.as_ref())
    }

    /// The request that opened the connection, in `server`: query, headers, cookies. `None` for a shared connection after
    /// `server` has returned, and if it was opened by its ID.
    pub fn request(&self) -> Option<&Request> {
        self.attached().map(|attached| &*attached.request)
    }

    /// The path of the client's request.
    pub fn path(&self) -> &str {
        &self.about().path
    }

    /// The route that serves it, as it was [registered](crate::ServerBuilder::route): `/chat/*`, for example.
    pub fn route(&self) -> &str {
        self.about().route()
    }

    /// What the `*` of the route stands for; see [`Opening::path_tail`](crate::Opening::path_tail).
    pub fn path_tail(&self) -> &str {
        tail(self.path(), self.route())
    }

    /// The subprotocol that was chosen.
    pub fn subprotocol(&self) -> Option<&str> {
        self.about().subprotocol()
    }

    /// Whose connection it is; see [`Opening::set_user`](crate::Opening::set_user).
    pub fn user(&self) -> Option<&str> {
        self.about().user().map(|user| &**user)
    }

    /// What was noted about it; see [`Opening::set_tag`](crate::Opening::set_tag).
    pub fn tags(&self) -> &Tags {
        self.about().tags()
    }

    /// The address of the socket's other end; `None` on a Unix socket. Of a proxy that speaks the
    /// [PROXY protocol](crate::ServerBuilder::proxy_protocol), that of its client.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.about().peer
    }

    /// The client's address (`REMOTE_ADDR`); see [`Request::client_address`].
    pub fn client_address(&self) -> Option<IpAddr> {
        self.about().client()
    }

    /// Joins a topic: broadcasts to it reach this connection. When the connection ends, it leaves the topic. Joining again
    /// has no effect. [`Opening::join`](crate::Opening::join) does it earlier.
    ///
    /// # Errors
    /// [`Error::Closed`] if the connection has ended. [`Error::OverLimit`] if the topic's name is too long or empty, or if
    /// there are too many topics.
    pub fn join(&self, topic: &str) -> Result<()> {
        wherever!(self.place, join(topic))
    }

    /// Joins a topic that remembers, with what the client has missed: as [`Hub::join_since`](crate::Hub::join_since).
    ///
    /// # Errors
    /// As [`join`](Self::join) and [`Hub::join_since`](crate::Hub::join_since).
    pub fn join_since(&self, topic: &str, since: impl Into<Since>) -> Result<Recovery> {
        wherever!(self.place, join_since(topic, &since.into()))
    }

    /// Leaves a topic, if it has joined it.
    ///
    /// # Errors
    /// [`Error::Closed`] if the connection has ended, and so has left all topics.
    pub fn leave(&self, topic: &str) -> Result<()> {
        wherever!(self.place, leave(topic))
    }

    /// The topics that it has joined, in the order of their names; none after its end, and where that cannot be asked.
    pub fn topics(&self) -> Vec<Arc<str>> {
        wherever!(self.place, topics())
    }
}

/// The messages of a connection until its end; made by [`WebSocket::messages`].
#[derive(Debug)]
#[must_use = "nothing is read until it is iterated over"]
pub struct Messages<'a>(&'a WebSocket);

impl Iterator for Messages<'_> {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        loop {
            match self.0.receive(usize::MAX, READ_TIMEOUT) {
                Ok(message) => return Some(message),
                Err(Error::Timeout) if wherever!(self.0.place, may_wait()) => {}
                Err(_) => return None,
            }
        }
    }
}

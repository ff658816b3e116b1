//! The other end: a client that connects to a WebSocket server, with a blocking API, and without a thread of its own. On top of its
//! modules; they do not use it.

mod builder;
mod dial;
mod error;
#[cfg(feature = "remote")]
mod hub;
mod opening;
mod proxy;
mod reconnecting;
mod response;
mod runtime;
mod url;
mod wire;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

#[cfg(feature = "remote")]
pub use self::hub::{HubBuilder, HubError};
pub use self::{
    builder::ClientBuilder,
    error::{BrokenError, ClientError, ConnectError, ConnectStep},
    reconnecting::{
        Accepted, LinkAttempt, LinkCounts, LinkEvent, LinkState, Reconnecting, ReconnectingBuilder, WhenFull,
    },
    response::HandshakeResponse,
};
use crate::{
    connection::{Connection, READ_TIMEOUT},
    error::{CloseReason, Error, Result, if_there},
    hub::Pusher,
    message::{CloseCode, Message, Payload},
    thread,
    websocket::READ_LEN,
};

/// A connection to a WebSocket server.
///
/// All methods take `&self`, and it is `Sync`: one thread reads while others write, over TLS, too. It has the methods of
/// [`WebSocket`](crate::WebSocket), which is the server's end.
///
/// ```
/// use std::time::Duration;
/// use switchboard::{Client, Error};
/// # use switchboard::{Server, ServerResult, WebSocket, WebSocketServer};
///
/// # struct Echo;
/// # impl WebSocketServer for Echo {
/// #     fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
/// #         ws.messages().try_for_each(|message| ws.write(message)).map_err(Into::into)
/// #     }
/// # }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = Server::builder().listen("127.0.0.1:0").route("/echo", || Echo).bind()?;
/// # let address = server.local_addrs()[0].to_string();
/// # let handle = server.handle();
/// # let thread = std::thread::spawn(move || server.run());
/// let client = Client::connect(&format!("ws://{address}/echo"))?;
/// client.write("hello")?;
/// match client.read_message(Duration::from_secs(5)) {
///     Ok(message) => assert_eq!(message, "hello"),
///     Err(Error::Timeout) => eprintln!("it is slow today"),
///     Err(Error::Closed(reason)) => eprintln!("it has left: {reason}"),
///     Err(other) => return Err(other.into()),
/// }
/// assert!(client.finish().is_normal());
/// # handle.shutdown(Duration::ZERO);
/// # thread.join().unwrap()?;
/// # Ok(()) }
/// ```
///
/// # Threads
///
/// A client has none. [`read`](Self::read) waits in the system's `recv` on the thread that calls it, and
/// [`write`](Self::write) sends on the thread that calls it. All clients of the process together have one thread,
/// `switchboard-gate`, which starts with the first of them and ends after the last one. It sleeps unless there is something to do
/// for a client that nobody is reading from: it answers pings, notices a close, keeps up to [`max_inbox_bytes`] of messages for the
/// next `read` (it looks once a second), sends what the server did not take at once, keeps the times below, and completes the closing
/// handshake. While the name of a host is looked up, there is another one, `switchboard-name`: at most 16 for all clients.
///
/// A callback that runs on a gateway of a server, which all its connections would wait for (see [`ClientError::MustNotWait`]), cannot
/// connect; a client that there is already does there what can be done without waiting: `read` returns what has come, `write` queues.
///
/// [`max_inbox_bytes`]: crate::Limits::max_inbox_bytes
///
/// # Timeouts
///
/// Fields without a link are those of [`Limits`](crate::Limits), as for a server's connections.
///
/// | name | what it measures | default | what happens then |
/// |---|---|---|---|
/// | [`connect_timeout`](ClientBuilder::connect_timeout) | all of [`connect`](ClientBuilder::connect), from the lookup of the name to the end of the opening handshake | 10 s | [`ClientError::Timeout`], with the step |
/// | [`read`](Self::read), [`read_message`](Self::read_message) | the whole call | you say | [`Error::Timeout`], and all goes on |
/// | [`read_timeout`](ClientBuilder::read_timeout) | [`messages`](Self::messages), for each | none | the iteration ends, and all goes on |
/// | `write_timeout` | [`write`](Self::write) and `flush`, and queued output that the server does not take | 30 s | [`Error::Timeout`], and the connection is cut (1006) |
/// | [`push_wait`](Pusher::push_wait) | until the kernel has the message | you say | [`Timeout`](crate::PushErrorKind::Timeout) or [`Pending`](crate::PushErrorKind::Pending), and all goes on |
/// | `message_timeout` | a message that the server has begun, without any more of it | 60 s | close code 1008 |
/// | `ping_interval` | nothing received | 20 s | a ping |
/// | `ping_timeout` | nothing received after a ping | 20 s | the server is gone: the connection is cut (1006) |
/// | `close_timeout` | from a close to the end of the server's stream | 5 s | the connection is cut |
///
/// # Limits
///
/// Of [`Limits`](crate::Limits) a client heeds `max_head` (the server's response), `max_message_size`, `max_frame_size`, `min_compressed_size`,
/// `max_read_buffer`, `max_queue_bytes`, `max_queue_messages`, `max_inbox_bytes`, `max_inbox_messages`, and the times above. The
/// others are a server's, but for one: all clients of the process together have a bound for their buffers, which servers have no part
/// in. It is a quarter of the memory, as `max_buffered_bytes` says by default, or the least `max_buffered_bytes` that any of them was
/// given, from then until the last of them has ended. Beyond it, those that hold most are closed with 1013.
///
/// # The end
///
/// Every connection ends with one [`CloseReason`], which reads and writes report as [`Error::Closed`]: `by` says whether it was this
/// side ([`ClosedBy::Client`](crate::ClosedBy)), the server, or the network. When a `Client` is dropped, it is closed with 1000, and the gateway
/// completes the closing handshake; a program that is about to exit calls [`finish`](Self::finish), which waits for that.
#[derive(Debug)]
#[must_use = "a client that is dropped is closed"]
pub struct Client {
    connection: Arc<Connection>,
    response: Box<HandshakeResponse>,
    read_timeout: Duration,
    at_end: AtomicBool,
    /// It has read a message, and has not read on: it may be answering, and an end of the connection waits for that.
    is_answering: AtomicBool,
}

impl Client {
    /// Connects to `ws://host:port/path?query`, to `wss://…` with TLS, or to `unix:/path/to/socket:/path?query` (also written as
    /// `ws+unix:`). For anything beyond the URL there is [`builder`](Self::builder).
    ///
    /// # Errors
    /// As [`ClientBuilder::connect`].
    pub fn connect(url: &str) -> Result<Self, ClientError> {
        Self::builder(url).connect()
    }

    /// Begins to put a client together.
    pub fn builder(url: &str) -> ClientBuilder {
        ClientBuilder::new(url)
    }

    fn new(connection: Arc<Connection>, response: HandshakeResponse, read_timeout: Duration) -> Self {
        Self {
            connection,
            response: Box::new(response),
            read_timeout,
            at_end: AtomicBool::new(true),
            is_answering: AtomicBool::new(false),
        }
    }

    fn receive(&self, len: usize, timeout: Duration) -> Result<Message> {
        // In a callback of a server that must not wait, neither does this.
        let timeout = if thread::must_not_wait() { Duration::ZERO } else { timeout };
        let (message, at_end) = self.connection.read(len, timeout, &self.is_answering)?;
        self.at_end.store(at_end, Relaxed);
        Ok(message)
    }

    /// Waits for the next message, or returns the rest of one that was read in part. For whole messages, whatever their length,
    /// there is [`read_message`](Self::read_message).
    ///
    /// Returns at most `len` characters of a text, or bytes of a binary message, and never parts of two messages. The
    /// next call returns the rest; [`at_end`](Self::at_end) says whether there is one. A `len` of 0 means [`READ_LEN`].
    /// The timeout is for the whole call, however slowly bytes arrive. Of several threads one reads at a time, and the others wait
    /// for their turn, within their timeouts.
    ///
    /// # Errors
    /// [`Error::Timeout`]: nothing is lost, not even a message that has arrived in part.
    /// [`Error::Closed`]: the connection has ended, whichever side closed it.
    pub fn read(&self, len: usize, timeout: Duration) -> Result<Message> {
        self.receive(if len == 0 { READ_LEN } else { len }, timeout)
    }

    /// Whether the last read, of whatever kind, reached the end of its message. True before the first one.
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

    /// An iterator over the messages to come, each as from [`read_message`](Self::read_message), until the connection ends;
    /// [`close_reason`](Self::close_reason) says how. With a [`read_timeout`](ClientBuilder::read_timeout) it also ends when no
    /// message has come for so long; then there is no reason.
    pub fn messages(&self) -> impl Iterator<Item = Message> + '_ {
        std::iter::from_fn(|| {
            loop {
                match self.receive(usize::MAX, self.read_timeout) {
                    Ok(message) => return Some(message),
                    Err(Error::Timeout) if self.read_timeout >= READ_TIMEOUT && !thread::must_not_wait() => {}
                    Err(_) => return None,
                }
            }
        })
    }

    /// Sends one whole message. It returns when the kernel has taken the bytes; or, while further messages of the server already
    /// wait to be read, when they are collected with others, which are sent together as soon as `read` would wait, at 16 KiB, and
    /// after 1 ms at the latest ([`flush`](Self::flush) sends at once).
    ///
    /// A [`Message`] keeps its kind. Strings and bytes are sent as [`set_binary_data`](Self::set_binary_data) says.
    ///
    /// # Errors
    /// [`Error::Closed`] after the close, by either side. [`Error::Timeout`] if a slow server did not take it within
    /// [`Limits::write_timeout`](crate::Limits): a part of it may have been sent, so the connection is closed.
    /// [`Error::NotUtf8`] for bytes that would have to be text: nothing is sent.
    pub fn write(&self, data: impl Into<Payload>) -> Result<()> {
        self.write_one(data.into(), false)
    }

    fn write_one(&self, data: Payload, more: bool) -> Result<()> {
        let message = data.into_message_as(self.binary_data()).map_err(|_| Error::NotUtf8)?;
        if thread::must_not_wait() {
            return self.connection.post_message(message, more);
        }
        self.connection.write(message, more)
    }

    /// Sends several messages, each as [`write`](Self::write) does, but together, as far as they fit 16 KiB: a pipeline of short
    /// requests is several times faster. It returns when the kernel has taken all of them.
    ///
    /// # Errors
    /// As [`write`](Self::write), for the first message that could not be sent; those after it are not.
    pub fn write_many(&self, messages: impl IntoIterator<Item = impl Into<Payload>>) -> Result<()> {
        let write = |message: Payload| self.write_one(message, true);
        let sent = messages.into_iter().map(Into::into).try_for_each(write);
        // Also what was collected before one that cannot be sent.
        self.flush().and(sent)
    }

    /// Sends collected messages at once, and waits until the kernel has taken all that was written.
    ///
    /// # Errors
    /// [`Error::Closed`] and [`Error::Timeout`] as [`write`](Self::write).
    pub fn flush(&self) -> Result<()> {
        if thread::must_not_wait() { self.connection.flush_some() } else { self.connection.flush_all() }
    }

    /// Pushes to the server from any thread, without waiting for the network: what it does not take at once is queued. Clones of it
    /// can be kept; they do not keep the connection open.
    pub fn pusher(&self) -> Pusher {
        Pusher::to(&self.connection)
    }

    /// Starts the closing handshake, and does not wait for the server's answer. Afterwards reads and writes fail with
    /// [`Error::Closed`], and so does a read that is waiting in another thread, as soon as the server has answered. If the connection
    /// is already closing, nothing happens.
    ///
    /// The code is 1000 or 3000 to 4999, and the text at most 123 bytes (RFC 6455, sections 7.4 and 5.5). A longer text is cut;
    /// with a code that may not be sent, the close frame is empty.
    pub fn close(&self, code: impl Into<CloseCode>, text: &str) {
        self.connection.close(code.into(), text);
    }

    /// Closes with 1000, unless it is closed already, and waits until the closing handshake is complete, for at most
    /// [`Limits::close_timeout`](crate::Limits). Returns how the connection ended.
    pub fn finish(self) -> CloseReason {
        self.connection.release(&self.is_answering);
        if !thread::must_not_wait() {
            self.connection.wait_finished();
        }
        self.connection.closed_reason()
    }

    /// How the connection ended; `None` while it is open.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.connection.reason().cloned()
    }

    /// With true, [`write`](Self::write) sends strings and bytes as binary messages, and no UTF-8 is required; with false, the
    /// default, as text. A [`Message`] keeps its own kind either way.
    pub fn set_binary_data(&self, on: bool) {
        self.connection.binary_data.store(on, Relaxed);
    }

    /// Whether strings and bytes are sent as binary messages.
    pub fn binary_data(&self) -> bool {
        self.connection.binary_data.load(Relaxed)
    }

    /// What the server has answered to the opening handshake.
    pub fn response(&self) -> &HandshakeResponse {
        &self.response
    }

    /// The subprotocol that the server has chosen, if any.
    pub fn subprotocol(&self) -> Option<&str> {
        self.connection.about().subprotocol()
    }

    /// Whether the server has agreed to [compression](ClientBuilder::compression).
    pub fn is_compressed(&self) -> bool {
        self.connection.about().deflate.is_some()
    }

    /// The address of the socket's other end: the server's, or that of the proxy; `None` on a Unix socket.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.connection.about().peer
    }

    /// How long the last ping took for its answer; `None` before the first one. Pings are sent only after a silence of
    /// [`Limits::ping_interval`](crate::Limits).
    pub fn round_trip(&self) -> Option<Duration> {
        self.connection.traffic().round_trip
    }
}

/// Closes with 1000 unless it is closed; nothing waits for that.
impl Drop for Client {
    fn drop(&mut self) {
        self.connection.release(&self.is_answering);
    }
}

//! Every number that a user may set, with its effect, its default, and what it costs to change it.

use std::time::Duration;

/// The limits of a server. Each keeps a stranger from using more than its share; each has a close code or a status.
///
/// ```
/// use switchboard::Limits;
/// use std::time::Duration;
///
/// let mut limits = Limits::default();
/// limits.max_message_size = 64 * 1024;
/// limits.handshake_timeout = Duration::from_secs(3);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// Connections at once, those still in their handshake included. Beyond it: HTTP 503 with `Retry-After`.
    /// Default 4,096. Each takes a file descriptor, and a synchronous one a thread with its stack.
    pub max_connections: usize,
    /// Stack of a connection's thread, in bytes. Default 256 KiB: deep recursion in a handler needs more. Only what
    /// is really used becomes resident memory, but a 32-bit address space holds only so many.
    pub stack_size: usize,
    /// How long a thread whose connection has ended waits for another one before it ends. Default 2 s. Longer saves the
    /// start of a thread where clients come in bursts; with zero each connection has a new thread.
    pub thread_keep_alive: Duration,
    /// From the accept to the end of the opening handshake, TLS included; then the connection is cut. Default 10 s.
    pub handshake_timeout: Duration,
    /// Bytes of a request's head. Beyond it: HTTP 431. Default 16 KiB; long cookies need more.
    pub max_head: usize,
    /// Bytes of one incoming message, all of its fragments together, and inflated if it comes compressed. Beyond it: close
    /// code 1009. Default 1 MiB.
    pub max_message_size: usize,
    /// Bytes of one incoming frame. Beyond it: close code 1009. Default 1 MiB; there is no use in more than
    /// `max_message_size`.
    pub max_frame_size: usize,
    /// Messages of fewer bytes are sent as they are where others are [compressed](crate::Compression). Default 64: what is
    /// so short seldom becomes shorter.
    pub min_compressed_size: usize,
    /// Bytes of the largest receive buffer. A buffer starts with half a KiB, grows while reads fill it, and shrinks
    /// again when they do not. Default 64 KiB; smaller saves memory and costs calls with large messages.
    pub max_read_buffer: usize,
    /// How long `write` waits for a slow client; then it fails with `Timeout` and the connection is closed. Default
    /// 30 s.
    pub write_timeout: Duration,
    /// How long a closing handshake may take, the client's answer and its end of the stream together; then the
    /// connection is cut. Default 5 s.
    pub close_timeout: Duration,
    /// Bytes of messages queued for one slow client, and
    pub max_queue_bytes: usize,
    /// how many such messages. Beyond either, the route's [`Overflow`](crate::Overflow) decides. Defaults 1 MiB and 1,024.
    pub max_queue_messages: usize,
    /// Bytes of messages received from one client and not yet read, where it is not its own thread that reads them; and
    pub max_inbox_bytes: usize,
    /// how many such messages. Beyond either, nothing more is received from it until there is room: TCP holds it back.
    /// Defaults 1 MiB and 256.
    pub max_inbox_messages: usize,
    /// After so much silence of a client it is sent a ping. Default 20 s; `None`: never.
    pub ping_interval: Option<Duration>,
    /// A client that has sent nothing for so long after a ping is taken for dead, and cut. Default 20 s.
    pub ping_timeout: Duration,
    /// A shared connection without a message either way for so long is closed with 1000. Pings do not count. Default
    /// 900 s; `None`: never.
    pub shared_idle_timeout: Option<Duration>,
    /// Threads that call [`on_client_message`](crate::WebSocketServer::on_client_message). Default 2. With 0 the gateway
    /// itself calls it, which is the fastest for handlers that never wait, and stops everybody for those that do.
    pub workers: usize,
    /// Gateway threads, each with its share of the connections. Default 1, which is enough for tens of thousands.
    pub gateways: usize,
    /// A session that nobody used for so long ends. Default 900 s.
    pub session_timeout: Duration,
    /// Sessions that hold something, at once. When they are as many, storing into another one fails with
    /// [`Error::SessionsFull`](crate::Error::SessionsFull). Default 10,000.
    pub max_sessions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 4096,
            stack_size: 256 * 1024,
            thread_keep_alive: Duration::from_secs(2),
            handshake_timeout: Duration::from_secs(10),
            max_head: 16 * 1024,
            max_message_size: 1 << 20,
            max_frame_size: 1 << 20,
            min_compressed_size: 64,
            max_read_buffer: 64 * 1024,
            write_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(5),
            max_queue_bytes: 1 << 20,
            max_queue_messages: 1024,
            max_inbox_bytes: 1 << 20,
            max_inbox_messages: 256,
            ping_interval: Some(Duration::from_secs(20)),
            ping_timeout: Duration::from_secs(20),
            shared_idle_timeout: Some(Duration::from_secs(900)),
            workers: 2,
            gateways: 1,
            session_timeout: Duration::from_secs(900),
            max_sessions: 10_000,
        }
    }
}

//! A client for boxes that dial out: it connects in the background, again and again, and never blocks its caller. On top of its
//! modules.

mod builder;
mod event;
mod inside;
mod link;
pub(super) mod pace;
mod queue;

use std::{fmt, sync::Arc, thread, time::Duration};

use self::link::Shared;
pub use self::{
    builder::ReconnectingBuilder,
    event::{Accepted, LinkAttempt, LinkCounts, LinkEvent, LinkState, WhenFull},
};
use crate::{
    connection::PushError,
    deadline::Deadline,
    error::{CloseReason, ClosedBy, Result, if_there},
    message::{CloseCode, Message, Payload},
    thread::must_not_wait,
};

/// So often it is looked whether all is sent, while that is waited for.
const LOOK: Duration = Duration::from_millis(10);

/// A link to a server that is kept up: it connects in the background, and again whenever the connection has ended. What is sent
/// meanwhile is queued.
///
/// Made by [`ClientBuilder::reconnecting`](crate::ClientBuilder::reconnecting). All methods take `&self`, and it is `Sync`. None
/// waits for the network, unless it is given a time for that; so a program with a loop of its own uses it from there:
///
/// ```
/// use std::time::Duration;
/// use switchboard::{Client, WhenFull};
/// # use switchboard::{Server, ServerResult, WebSocket, WebSocketServer};
/// # struct Echo;
/// # impl WebSocketServer for Echo {
/// #     fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
/// #         ws.messages().try_for_each(|message| ws.write(message)).map_err(Into::into)
/// #     }
/// # }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = Server::builder().listen("127.0.0.1:0").route("/", || Echo).bind()?.spawn()?;
/// # let url = format!("ws://{}/", server.local_addrs()[0]);
///
/// let link = Client::builder(&url).reconnecting().queue(600, 64 * 1024, WhenFull::DropOldest).start()?;
/// for tick in 0..10 {
///     link.send(format!("reading {tick}"))?;
///     while let Some(command) = link.try_read()? {
///         println!("{command:?}");
///     }
///     while let Some(event) = link.try_event() {
///         eprintln!("{event}"); // connected; or: connection closed: 1006 broken: …; next attempt in 0.7 s
///     }
/// }
/// let unsent = link.finish(Duration::from_secs(5));
/// # assert!(unsent.is_empty());
/// # Ok(()) }
/// ```
///
/// # What is promised
///
/// - **Order.** Messages are sent in the order of their [`send`](Self::send), and read in the order in which they came, also across
///   connections; events are told in the order in which they happened. Of a message and an event it is not told which came first.
/// - **At most once.** No message is sent twice. One that the kernel has taken is gone from here: if the connection breaks before it
///   has reached the server, it is lost, and nobody can tell. An application that must not lose any numbers them, has the server
///   acknowledge, and sends again what was not.
/// - **The queue survives.** What the kernel has not taken wholly is kept when a connection breaks, and sent on the next one. So is a
///   message that was half sent; the server has not had it. It ends with the process, or with the `Reconnecting`:
///   [`finish`](Self::finish) gives back what is left.
/// - **The queue is bounded**, and what becomes of messages that find no room is [chosen](WhenFull). Those that were dropped are
///   [counted](Self::counts), and `send` says so as well. One more kind is dropped: a message that the server takes no connection
///   with, so that nothing behind it would ever be sent. It is the first on a connection, a part of it is sent, and the server closes
///   with 1009, or five connections in a row break on it.
/// - **What was received is bounded**, too, by [`max_inbox_messages`](crate::Limits::max_inbox_messages) and
///   [`max_inbox_bytes`](crate::Limits::max_inbox_bytes). A program that does not read holds the server back by TCP. When the
///   connection then ends, what was received ahead is kept, up to as much again, and the rest is dropped and
///   [counted](LinkCounts::unread_dropped): the link comes up again although nobody reads. A server may lose its patience before, and
///   close: so a program that wants nothing from its server reads all the same.
///
/// # When it tries again
///
/// After any time between nothing and a delay, at random: so many boxes do not come back all at once. The delay is 1 s at first, twice
/// as much after each attempt, 60 s at most, and 1 s again after a connection that has lasted for 10 s
/// ([`delays`](ReconnectingBuilder::delays), [`steady_after`](ReconnectingBuilder::steady_after)). The first attempt of all is made at
/// once, so boxes that are switched on together begin together. [`try_now`](Self::try_now) waits no longer, when the program knows
/// that the network is back.
///
/// All waits are by the monotonic clock: setting the time changes nothing. While the machine is suspended, that clock stands still, so
/// a program that is told of its waking calls `try_now`.
///
/// | what happened | the next attempt |
/// |---|---|
/// | the connection ended; nobody answered; HTTP 5xx, 408, 425, 429; anything else | as above |
/// | an HTTP response with `Retry-After` | after that time, 15 minutes at most ([`max_retry_after`](ReconnectingBuilder::max_retry_after)), and a random part of the delay |
/// | close code 1012 or 1013 | after 5 to 30 s, or the delay, if that is longer by now |
/// | what will not mend by itself ([`ClientError::is_lasting`](crate::ClientError::is_lasting)): TLS does not trust the server, HTTP 401, 403 or 404, a redirect, no WebSocket | after half of the longest delay, up to the whole |
/// | HTTP 401, 403 or 407, and [`before_attempt`](ReconnectingBuilder::before_attempt) is asked for new credentials | as above |
///
/// It never gives up: what will not mend by itself may be mended at the other end, or by the clock of a box that has just booted. The
/// program is told, and may end it. Only a URL or a setting that cannot work is refused, by [`start`](ReconnectingBuilder::start).
///
/// # Threads, and the end
///
/// Each has one thread of its own, `switchboard-link`, with a stack of [`Limits::stack_size`](crate::Limits::stack_size). It connects,
/// waits in the system's `recv`, and waits between attempts. What is sent goes out on the thread that calls `send`, which compresses it
/// if that is agreed, or by that of [all clients](crate::Client#threads). Names are looked up as for any `Client`. Of a thousand in one
/// process, built without optimization, each takes some 30 KiB while it waits for its next attempt, and some 40 while it is connected
/// without TLS, beside what is queued; of address space, its stack.
///
/// When it is dropped, or [closed](Self::close), nothing waits for that thread: it ends at once between attempts; during one when that
/// is over, after [`connect_timeout`](crate::ClientBuilder::connect_timeout) at the latest, and
/// [`before_attempt`](ReconnectingBuilder::before_attempt); and while it is connected when the closing handshake is complete, after
/// [`Limits::close_timeout`](crate::Limits::close_timeout) at the latest.
///
/// A server that is silently gone is found out as by any [`Client`](crate::Client#timeouts): within
/// [`ping_interval`](crate::Limits::ping_interval) and [`ping_timeout`](crate::Limits::ping_timeout), 40 s. What was sent in that time
/// is lost. Until then it counts as up.
pub struct Reconnecting(Arc<Shared>);

impl Reconnecting {
    fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Sends a message, or queues it, and never waits for the network. A [`Message`] keeps its kind; strings are sent as text, and
    /// bytes as binary.
    ///
    /// # Errors
    /// [`PushErrorKind::Full`](crate::PushErrorKind::Full): the queue is full ([`WhenFull::Refuse`]).
    /// [`PushErrorKind::Closed`](crate::PushErrorKind::Closed): it was [closed](Self::close). Both give the message back.
    pub fn send(&self, data: impl Into<Payload>) -> Result<Accepted, PushError> {
        self.0.queue.send(data.into().into_message())
    }

    /// The next message that was received, if there is one. Never waits.
    ///
    /// # Errors
    /// [`Error::Closed`](crate::Error::Closed): it was [closed](Self::close), and all that came before has been read.
    pub fn try_read(&self) -> Result<Option<Message>> {
        if_there(self.0.inside.read(Duration::ZERO))
    }

    /// Waits for the next message, also while it is not connected.
    ///
    /// # Errors
    /// [`Error::Timeout`](crate::Error::Timeout); and as [`try_read`](Self::try_read).
    pub fn read_message(&self, timeout: Duration) -> Result<Message> {
        self.0.inside.read(allowed(timeout))
    }

    /// What has happened to the link since this was last asked, one by one. Never waits. The last 32 are kept.
    pub fn try_event(&self) -> Option<LinkEvent> {
        self.0.inside.event(Duration::ZERO)
    }

    /// Waits for the next event. `None`: the time is up, or it was [closed](Self::close).
    pub fn next_event(&self, timeout: Duration) -> Option<LinkEvent> {
        self.0.inside.event(allowed(timeout))
    }

    /// How it is now.
    pub fn state(&self) -> LinkState {
        self.0.inside.link()
    }

    /// Waits until it is connected. False: the time was up before, or it was [closed](Self::close).
    #[must_use = "it may not be connected"]
    pub fn wait_up(&self, timeout: Duration) -> bool {
        self.0.inside.wait_up(allowed(timeout))
    }

    /// What has become of its messages so far.
    pub fn counts(&self) -> LinkCounts {
        let mut counts = LinkCounts::default();
        self.0.queue.count(&mut counts);
        self.0.inside.count(&mut counts);
        counts
    }

    /// If it waits for its next attempt, that is made now, whatever the server has asked for. The delays are as they were. An attempt
    /// that is being made goes on.
    pub fn try_now(&self) {
        self.0.inside.hurry();
    }

    /// Ends it, and does not wait for that: no more attempts are made, and what is queued is not sent. A connection is closed as
    /// [`Client::close`](crate::Client::close) does. Afterwards `send` fails; what was received can still be read. If it was closed
    /// before, nothing happens.
    pub fn close(&self, code: impl Into<CloseCode>, text: &str) {
        self.begin_end(code.into(), text);
    }

    /// Whether it is connected: then the closing handshake begins.
    fn begin_end(&self, code: CloseCode, text: &str) -> bool {
        let reason = CloseReason::new(code, text, ClosedBy::Client);
        self.0.queue.close(&reason);
        let connection = self.0.inside.close(&reason);
        connection.inspect(|connection| connection.close(code, text)).is_some()
    }

    /// Takes nothing more, sends what is queued, then closes with 1000, and waits for the closing handshake; for so long at most in
    /// all. While it is not connected, and there is something to send, it waits for a connection as well. Returns what was not sent.
    /// Meanwhile, other threads can still read.
    #[must_use = "these messages were not sent"]
    pub fn finish(&self, timeout: Duration) -> Vec<Message> {
        let deadline = Deadline::after(allowed(timeout));
        let reason = CloseReason::new(CloseCode::NORMAL, "", ClosedBy::Client);
        self.0.queue.close(&reason);
        while !self.0.queue.is_empty()
            && self.state() != LinkState::Ended
            && let Some(left) = deadline.remaining()
        {
            thread::sleep(left.min(LOOK));
        }
        if self.begin_end(CloseCode::NORMAL, "") {
            self.0.inside.wait_ended(deadline);
        }
        self.0.queue.end(&reason);
        self.0.queue.take_rest()
    }
}

/// Closes it with 1000; nothing waits for that. What is queued is not sent.
impl Drop for Reconnecting {
    fn drop(&mut self) {
        self.close(CloseCode::NORMAL, "");
    }
}

/// Does not show messages.
impl fmt::Debug for Reconnecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reconnecting")
            .field("state", &self.state())
            .field("counts", &self.counts())
            .finish_non_exhaustive()
    }
}

/// In a callback of a server that must not wait, nothing does.
fn allowed(timeout: Duration) -> Duration {
    if must_not_wait() { Duration::ZERO } else { timeout }
}

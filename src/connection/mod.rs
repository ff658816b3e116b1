//! One connection: its socket, its codec, what waits to be sent and to be read, and how it ends.
//!
//! Two locks, both only here. The **read side** (`inbox`) belongs to whoever receives; it may be held while waiting.
//! The **codec's lock** (`wire`) is held for microseconds, never while waiting, and never while another lock is taken.
//! Where both are needed, the read side is locked first. This module knows neither hub nor server.

mod caller;
mod inbox;
mod socket;
mod wire;

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

pub(crate) use self::{caller::Caller, socket::Socket};
use self::{
    inbox::Inbox,
    wire::{Flushed, Phase, Wire},
};
use crate::{
    codec::{Codec, Event, Failure, Stream},
    deadline::Deadline,
    error::{CloseReason, ClosedBy, Error, Result},
    limits::Limits,
    message::{CloseCode, Message},
    sync::LockExt,
};

/// With more output than this unsent, nothing more is received: whoever does not read its pongs gets no more of them.
const CLOGGED: usize = 64 * 1024;

/// Names a connection (`WebSocketID`): unique, unguessable, printable, and safe in a URL path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WebSocketId(Arc<str>);

impl WebSocketId {
    pub(crate) fn random() -> Self {
        Self(crate::id::random().into())
    }

    /// The ID as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WebSocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for WebSocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebSocketId({self})")
    }
}

/// For an ID that was saved, or came from elsewhere.
impl From<&str> for WebSocketId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

/// For an ID that was saved, or came from elsewhere.
impl From<String> for WebSocketId {
    fn from(id: String) -> Self {
        Self(id.into())
    }
}

/// One connection after its opening handshake.
#[derive(Debug)]
pub(crate) struct Connection {
    id: WebSocketId,
    limits: Arc<Limits>,
    gateway: Arc<Caller>,
    inbox: Mutex<Inbox>,
    wire: Mutex<Wire>,
    /// Set once: how the connection ended, or is about to.
    reason: OnceLock<CloseReason>,
    /// This side wants nothing more of the client: what was received is not handed out any more.
    hung_up: AtomicBool,
    /// When the closing handshake began.
    closing_since: OnceLock<Instant>,
    /// A call to the gateway is under way.
    called: AtomicBool,
    /// The gateway looks after collected output every millisecond.
    attended: AtomicBool,
}

/// What decoding came to.
enum Step {
    Message(Message),
    /// More bytes are needed.
    Starved,
    /// Output has to be sent first.
    Clogged,
    /// The reason is set.
    Ended,
}

impl Connection {
    pub(crate) fn new(
        id: WebSocketId,
        socket: Arc<Socket>,
        codec: Codec,
        limits: Arc<Limits>,
        gateway: Arc<Caller>,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            inbox: Mutex::new(Inbox::new(limits.max_read_buffer)),
            wire: Mutex::new(Wire::new(socket, codec)),
            limits,
            gateway,
            reason: OnceLock::new(),
            hung_up: AtomicBool::new(false),
            closing_since: OnceLock::new(),
            called: AtomicBool::new(false),
            attended: AtomicBool::new(false),
        })
    }

    pub(crate) fn id(&self) -> &WebSocketId {
        &self.id
    }

    /// How it ended, or is about to; `None` while it is open.
    pub(crate) fn reason(&self) -> Option<&CloseReason> {
        self.reason.get()
    }

    /// The next message, or the rest of one. For the connection's own thread.
    pub(crate) fn read(self: &Arc<Self>, deadline: Deadline) -> Result<Message> {
        let mut inbox = self.inbox.locked();
        loop {
            if self.hung_up.load(SeqCst) {
                return Err(self.closed());
            }
            if let Some(message) = inbox.queue.pop_front() {
                return Ok(message);
            }
            if self.reason.get().is_some() {
                return Err(self.closed());
            }
            match self.with_wire(|wire| self.step(wire, &mut inbox.buffer)) {
                (Step::Message(message), _) => return Ok(message),
                (Step::Ended, _) | (_, None) => {}
                (Step::Starved, Some(socket)) => self.receive(&mut inbox, &socket, deadline)?,
                (Step::Clogged, Some(socket)) => {
                    if !socket.wait_writable(deadline)? {
                        return Err(Error::Timeout);
                    }
                }
            }
        }
    }

    /// Puts back what a reader did not want of a message.
    pub(crate) fn unread(&self, rest: Message) {
        self.inbox.locked().queue.push_front(rest);
    }

    fn receive(self: &Arc<Self>, inbox: &mut Inbox, socket: &Socket, deadline: Deadline) -> Result<()> {
        match inbox.receive(socket, deadline) {
            Ok(0) => {
                self.with_wire(|wire| self.break_off(wire, "the client's stream ended without a close frame"))
            }
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(Error::Timeout),
            Err(e) => self.with_wire(|wire| self.break_off(wire, e.to_string())),
        }
        Ok(())
    }

    /// Takes in what was received, and decodes up to the next message. Returns the socket along with it.
    fn step(&self, wire: &mut Wire, received: &mut Vec<u8>) -> (Step, Option<Arc<Socket>>) {
        let step = self.decode(wire, received);
        if matches!(step, Step::Message(_)) {
            return (step, None); // no need to count the socket's references for each message
        }
        (step, wire.socket.clone())
    }

    fn decode(&self, wire: &mut Wire, received: &mut Vec<u8>) -> Step {
        if matches!(wire.phase, Phase::Draining | Phase::Over) {
            received.clear();
        } else if !received.is_empty()
            && let Err(failure) = wire.codec.stream().feed(received)
        {
            self.fail(wire, failure);
        }
        while matches!(wire.phase, Phase::Open | Phase::Closing) {
            match wire.codec.next() {
                Ok(Some(Event::Message(message))) if wire.phase == Phase::Open => {
                    return Step::Message(message);
                }
                // What comes after our close frame is not wanted.
                Ok(Some(Event::Message(_) | Event::Ping | Event::Pong(_))) => {}
                Ok(Some(Event::Close(code, text))) => {
                    self.end(wire, Phase::Draining, CloseReason::new(code, text, ClosedBy::Client));
                }
                Ok(None) if wire.codec.stream().ended() => {
                    self.break_off(wire, "the client ended TLS without a close frame");
                }
                Ok(None) => {
                    self.flush(wire);
                    let stream = wire.codec.stream();
                    if stream.pending() > CLOGGED {
                        return Step::Clogged;
                    }
                    if received.capacity() == 0 {
                        *received = stream.spare_buffer();
                    }
                    return Step::Starved;
                }
                Err(failure) => self.fail(wire, failure),
            }
        }
        self.flush(wire);
        Step::Ended
    }

    /// Sends one message. Returns when the kernel has it, or when it is collected with other answers.
    pub(crate) fn write(self: &Arc<Self>, message: Message) -> Result<()> {
        let outcome: Result<Sent> = self.with_wire(|wire| {
            self.check_open(wire)?;
            wire.codec.encode(message);
            if wire.collect() {
                return Ok(Sent::Collected);
            }
            let generation = wire.generation;
            let blocked = self.flush(wire);
            self.check_open(wire)?;
            Ok(blocked.map_or(Sent::All, |socket| Sent::Blocked(socket, generation)))
        });
        match outcome? {
            Sent::All => Ok(()),
            Sent::Collected => {
                if !self.attended.swap(true, SeqCst) {
                    self.gateway.call_soon(self);
                }
                Ok(())
            }
            Sent::Blocked(socket, generation) => self.wait_sent(&socket, generation),
        }
    }

    /// Sends what was collected. Returns when the kernel has all of it.
    pub(crate) fn flush_all(self: &Arc<Self>) -> Result<()> {
        let blocked: Result<_> = self.with_wire(|wire| {
            self.check_open(wire)?;
            let generation = wire.generation;
            Ok(self.flush(wire).map(|socket| (socket, generation)))
        });
        match blocked? {
            None => Ok(()),
            Some((socket, generation)) => self.wait_sent(&socket, generation),
        }
    }

    /// Waits, without the lock, until the output was empty once.
    fn wait_sent(self: &Arc<Self>, socket: &Socket, generation: u64) -> Result<()> {
        let deadline = Deadline::after(self.limits.write_timeout);
        loop {
            let in_time = socket.wait_writable(deadline)?;
            let done = self.with_wire(|wire| {
                self.flush(wire);
                match self.reason.get() {
                    // An end that came after our bytes were sent does not concern them.
                    Some(_) if wire.generation == generation => Err(self.closed()),
                    None if !in_time && wire.generation == generation => {
                        self.break_off_by(
                            wire,
                            ClosedBy::Server,
                            "the client did not take what was written in time",
                        );
                        Err(Error::Timeout)
                    }
                    _ => Ok(wire.generation > generation),
                }
            })?;
            if done {
                return Ok(());
            }
        }
    }

    /// Starts the closing handshake, unless it has begun. It is cut off by the gateway if the client does not answer.
    pub(crate) fn close(self: &Arc<Self>, code: CloseCode, text: &str) {
        if self.begin_close(code, text) {
            self.gateway.call(self);
        }
    }

    /// Sends the close frame, unless the end has begun already. Returns whether it did.
    fn begin_close(self: &Arc<Self>, code: CloseCode, text: &str) -> bool {
        self.with_wire(|wire| {
            let is_open = wire.phase == Phase::Open;
            if is_open {
                self.hung_up.store(true, SeqCst);
                wire.codec.close(code, text);
                self.end(wire, Phase::Closing, CloseReason::new(code, text, ClosedBy::Server));
                self.flush(wire);
            }
            is_open
        })
    }

    /// Completes the end on the connection's own thread, with 1000 if it has not begun: closing handshake, half-close, drain, all within the close
    /// timeout. Afterwards the socket is closed.
    pub(crate) fn conclude(self: &Arc<Self>) {
        self.begin_close(CloseCode::NORMAL, "");
        let deadline = Deadline::after(self.limits.close_timeout);
        let mut inbox = self.inbox.locked();
        loop {
            let (socket, blocked) = self.with_wire(|wire| {
                while let Step::Message(_) = self.decode(wire, &mut inbox.buffer) {}
                (wire.socket.clone(), wire.blocked)
            });
            let Some(socket) = socket else { break };
            let waited = if blocked { socket.wait_either(deadline) } else { Ok(true) };
            let received = match waited {
                Ok(true) => inbox.receive(&socket, deadline),
                Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
                Err(e) => Err(e),
            };
            match received {
                Ok(1..) => {}
                Err(e) if blocked && e.kind() == io::ErrorKind::WouldBlock && !deadline.is_over() => {}
                _ => break, // the client's end, the end of the time, or a broken connection
            }
        }
        drop(inbox);
        self.finish();
    }

    /// Closes the socket, whatever the state, and gives back all buffers. Handles may outlive it.
    pub(crate) fn finish(self: &Arc<Self>) {
        self.with_wire(|wire| {
            self.break_off(wire, "cut off");
            if let Some(socket) = wire.socket.take() {
                // The gateway may hold it too: for it, and for whoever waits, this is the end.
                socket.shutdown();
            }
            wire.phase = Phase::Over;
            wire.codec = Codec::new(Stream::plain(), 0, 0);
        });
        self.inbox.locked().buffer = Vec::new();
    }

    /// Ends the stream both ways, so that the connection's own thread wakes up and completes the end.
    pub(crate) fn cut(self: &Arc<Self>) {
        let socket = self.wire.locked().socket.clone();
        if let Some(socket) = socket {
            socket.shutdown();
        }
    }

    /// The gateway's look: what it should do about this connection.
    pub(crate) fn attend(self: &Arc<Self>) -> Attention {
        self.called.store(false, SeqCst);
        self.with_wire(|wire| Attention {
            collected: wire.collected,
            blocked: wire.socket.clone().filter(|_| wire.blocked),
            close_by: self.closing_since.get().map(|since| *since + self.limits.close_timeout),
            is_over: wire.phase == Phase::Over,
        })
    }

    /// Sends what was collected or blocked, as far as the socket takes it; by the gateway. True: something was left.
    pub(crate) fn send_rest(self: &Arc<Self>) -> bool {
        self.with_wire(|wire| (wire.collected || wire.blocked) && { self.flush(wire).is_some() })
    }

    /// The gateway says whether it looks after collected output.
    pub(crate) fn set_attended(&self, attended: bool) {
        self.attended.store(attended, SeqCst);
    }

    /// Whether output is held back on purpose.
    pub(crate) fn is_collected(&self) -> bool {
        self.wire.locked().collected
    }

    fn with_wire<R>(self: &Arc<Self>, f: impl FnOnce(&mut Wire) -> R) -> R {
        f(&mut self.wire.locked())
    }

    fn check_open(&self, wire: &Wire) -> Result<()> {
        if wire.phase == Phase::Open { Ok(()) } else { Err(self.closed()) }
    }

    /// Sends what is pending. Returns the socket if it did not take all; a broken one ends the connection.
    fn flush(&self, wire: &mut Wire) -> Option<Arc<Socket>> {
        match wire.flush() {
            Flushed::All => None,
            Flushed::Blocked => wire.socket.clone(),
            Flushed::Broken(failure) => {
                self.break_off(wire, failure.text);
                None
            }
        }
    }

    /// The client broke the rules: says so in a close frame, if that can still be sent.
    fn fail(&self, wire: &mut Wire, failure: Failure) {
        if failure.code == CloseCode::ABNORMAL {
            return self.break_off(wire, failure.text);
        }
        wire.codec.fail(&failure);
        log::debug!("{}: {}", self.id, failure.text);
        self.end(wire, Phase::Draining, CloseReason::new(failure.code, &*failure.text, ClosedBy::Server));
    }

    fn break_off(&self, wire: &mut Wire, why: impl Into<std::borrow::Cow<'static, str>>) {
        self.break_off_by(wire, ClosedBy::Network, why);
    }

    /// The connection is broken: nothing can be sent any more.
    fn break_off_by(&self, wire: &mut Wire, by: ClosedBy, why: impl Into<std::borrow::Cow<'static, str>>) {
        if wire.phase == Phase::Over {
            return;
        }
        self.end(wire, Phase::Over, CloseReason::new(CloseCode::ABNORMAL, &*why.into(), by));
        if let Some(socket) = wire.socket.take() {
            socket.shutdown();
        }
    }

    /// The end begins, or goes on. The first reason stays.
    fn end(&self, wire: &mut Wire, phase: Phase, reason: CloseReason) {
        wire.phase = phase;
        self.closing_since.get_or_init(Instant::now);
        let _ = self.reason.set(reason);
    }

    fn closed(&self) -> Error {
        // Whoever asks has seen that it ended.
        let unknown = || CloseReason::new(CloseCode::ABNORMAL, "", ClosedBy::Network);
        Error::Closed(self.reason.get().cloned().unwrap_or_else(unknown))
    }
}

/// What came of a write.
enum Sent {
    All,
    Collected,
    Blocked(Arc<Socket>, u64),
}

/// What a connection wants of the gateway.
#[derive(Debug)]
pub(crate) struct Attention {
    /// Output is held back on purpose, and has to be sent within a millisecond.
    pub(crate) collected: bool,
    /// The socket to be watched until it takes more.
    pub(crate) blocked: Option<Arc<Socket>>,
    /// When the connection has to be cut.
    pub(crate) close_by: Option<Instant>,
    pub(crate) is_over: bool,
}

/// How long `read` waits where no other time is given (the original's default).
pub const READ_TIMEOUT: Duration = Duration::from_secs(86_400);

//! One connection: its socket, its codec, what waits to be sent and to be read, and how it ends.
//!
//! Two locks. The **read side** (`inbox`) belongs to whoever receives; a synchronous connection's thread holds it while
//! it waits in `recv`. The **codec's lock** (`wire`) is held for microseconds, never while waiting, and never while another
//! lock is taken. Where both are needed, the read side is locked first. Whoever has the codec is the writer; who pushes
//! and does not get it leaves the message in the outbox, where the holder looks when it has let go.
//!
//! A connection is driven, which means received from, by exactly one: a synchronous one by its thread (`read`), for whom the
//! gateway stands in while it is busy, and a shared one by the gateway (`drive`). This module knows neither hub nor server.

mod caller;
mod drive;
mod inbox;
mod outbox;
mod read;
mod socket;
mod wire;
mod write;

use std::{
    collections::VecDeque,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock, Weak,
        atomic::{
            AtomicBool, AtomicU32,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
    time::{Duration, Instant, SystemTime},
};

pub(crate) use self::{
    caller::Caller,
    drive::{Driven, Tick},
    socket::Socket,
    wire::Counts,
};
use self::{
    inbox::Inbox,
    outbox::Outbox,
    read::Step,
    wire::{Collected, Flushed, Phase, Wire},
};
pub use self::{
    outbox::{Overflow, PushError, PushErrorKind, Pushed},
    read::READ_TIMEOUT,
};
use crate::{
    codec::{Codec, Event, Failure, Forms, Outgoing, Role, Stream},
    compression::Deflate,
    deadline::{Budget, Deadline},
    error::{CloseReason, ClosedBy, Error, Result},
    id::WebSocketId,
    limits::Limits,
    message::{CloseCode, Data, Message},
    session::SessionId,
    sync::{Clock, LockExt},
};

/// With more output than this unsent, nothing more is received: whoever does not read its pongs gets no more of them.
const CLOGGED: usize = 64 * 1024;

/// One connection after its opening handshake.
#[derive(Debug)]
pub(crate) struct Connection {
    about: Box<About>,
    limits: Arc<Limits>,
    clock: Arc<Clock>,
    gateway: Weak<Caller>,
    inbox: Mutex<Inbox>,
    /// Something was put into the inbox of a shared connection, or it ended.
    arrived: Condvar,
    wire: Mutex<Wire>,
    outbox: OnceLock<Box<Outbox>>,
    /// Who gets the messages of a shared connection whose `server` has returned.
    handler: OnceLock<Box<dyn Handler>>,
    /// Told when the connection is over.
    guard: Mutex<Option<Arc<dyn Guard>>>,
    /// Set once: how the connection ended, or is about to.
    end: OnceLock<Box<End>>,
    /// This side wants nothing more of the client: what was received is not handed out any more.
    hung_up: AtomicBool,
    /// Messages are decoded that the connection's own thread has not read.
    is_ahead: AtomicBool,
    /// A call to the gateway is under way.
    called: AtomicBool,
    /// Output was in the way when the gateway stood in: the thread that writes has to look itself for what arrived.
    look_is_due: AtomicBool,
    /// Output was collected since the gateway's last look for it.
    collects: AtomicBool,
    /// The gateway looks for collected output every millisecond.
    looked_after: AtomicBool,
    /// Of a shared connection: something may be left in the codec since it was last driven.
    has_rest: AtomicBool,
    /// The socket did not take all of the output: what `wire.blocked` was when its lock was last free.
    blocked: AtomicBool,
    /// The gateway knows the connection, and that it is closing.
    known: AtomicBool,
    known_closing: AtomicBool,
    /// Where the gateway keeps its socket.
    token: AtomicU32,
    /// `BinaryData`, and `SessionEndOnClose`.
    pub(crate) binary_data: AtomicBool,
    pub(crate) session_end_on_close: AtomicBool,
}

#[derive(Debug)]
struct End {
    reason: CloseReason,
    /// When it began.
    since: Instant,
}

/// What is known of a connection from its opening handshake on.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) id: WebSocketId,
    pub(crate) session_id: SessionId,
    pub(crate) path: Arc<str>,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) client: Option<IpAddr>,
    pub(crate) subprotocol: Option<Box<str>>,
    pub(crate) since: Instant,
    pub(crate) shared: bool,
    pub(crate) overflow: Overflow,
    /// How messages are compressed, if they are.
    pub(crate) deflate: Option<Deflate>,
}

/// What takes the messages of a shared connection, and is told its end. Called by one thread at a time.
pub(crate) trait Handler: Send + Sync + fmt::Debug {
    /// Takes messages until there are none, each with whether more wait behind it. Those that are to be read by somebody else
    /// it [leaves](Connection::leave).
    fn messages(&self, connection: &Arc<Connection>, messages: &mut dyn Iterator<Item = (Message, bool)>);
    /// The connection is over.
    fn end(&self, connection: &Arc<Connection>);
}

/// Who knows of a connection as long as it is not over.
pub(crate) trait Guard: Send + Sync + fmt::Debug {
    /// It is over.
    fn release(&self, connection: &Connection);
}

impl Connection {
    pub(crate) fn new(
        about: Box<About>,
        socket: Arc<Socket>,
        stream: Stream,
        limits: Arc<Limits>,
        clock: Arc<Clock>,
        gateway: &Arc<Caller>,
    ) -> Arc<Self> {
        let codec = Codec::new(Role::Server, stream, &limits, about.deflate);
        Arc::new(Self {
            about,
            inbox: Mutex::default(),
            arrived: Condvar::new(),
            wire: Mutex::new(Wire::new(socket, codec, clock.now())),
            limits,
            clock,
            gateway: Arc::downgrade(gateway),
            outbox: OnceLock::new(),
            handler: OnceLock::new(),
            guard: Mutex::new(None),
            end: OnceLock::new(),
            hung_up: AtomicBool::new(false),
            is_ahead: AtomicBool::new(false),
            called: AtomicBool::new(false),
            look_is_due: AtomicBool::new(false),
            collects: AtomicBool::new(false),
            looked_after: AtomicBool::new(false),
            has_rest: AtomicBool::new(true),
            blocked: AtomicBool::new(false),
            known: AtomicBool::new(false),
            known_closing: AtomicBool::new(false),
            token: AtomicU32::new(drive::NO_TOKEN),
            binary_data: AtomicBool::new(false),
            session_end_on_close: AtomicBool::new(false),
        })
    }

    pub(crate) fn about(&self) -> &About {
        &self.about
    }

    pub(crate) fn id(&self) -> &WebSocketId {
        &self.about.id
    }

    /// How it ended, or is about to; `None` while it is open.
    pub(crate) fn reason(&self) -> Option<&CloseReason> {
        self.end.get().map(|end| &end.reason)
    }

    /// When it was opened.
    pub(crate) fn since(&self) -> SystemTime {
        self.clock.date(self.about.since)
    }

    /// What went through it, what waits to be sent, in bytes, and the last round trip.
    pub(crate) fn statistics(&self) -> (Counts, usize, Option<Duration>) {
        let mut wire = self.wire.locked();
        let queued = wire.codec.stream().pending() + self.outbox.get().map_or(0, |outbox| outbox.bytes());
        let round_trip = wire.round_trip.map(|micros| Duration::from_micros(micros.into()));
        (wire.counts, queued, round_trip)
    }

    /// Tells this when the connection is over.
    pub(crate) fn tell_end(&self, guard: Arc<dyn Guard>) {
        *self.guard.locked() = Some(guard);
    }

    /// The gateway learns of the connection, and drives it from now on if it is shared.
    pub(crate) fn attach(self: &Arc<Self>) {
        if let Some(gateway) = self.gateway.upgrade() {
            if self.about.shared { gateway.call(self) } else { gateway.note(self) }
        }
    }

    /// `server` of a shared connection has returned: from now on the handler gets the messages, those first that
    /// nobody has read yet.
    pub(crate) fn park(self: &Arc<Self>, handler: Box<dyn Handler>) {
        let mut inbox = self.inbox.locked();
        let _ = self.handler.set(handler);
        inbox.hand_over();
        drop(inbox);
        self.with_wire(|wire| wire.codec.park(false));
        self.call_gateway();
    }

    /// Starts the closing handshake, unless it has begun. It is cut off by the gateway if the client does not answer.
    pub(crate) fn close(self: &Arc<Self>, code: CloseCode, text: &str) {
        if self.begin_close(code, text) {
            self.call_gateway();
        }
    }

    /// Sends the close frame, unless the end has begun already. Returns whether it did.
    fn begin_close(self: &Arc<Self>, code: CloseCode, text: &str) -> bool {
        self.with_wire(|wire| {
            if let (Phase::Open, Some(why)) = (wire.phase, wire.broken.clone()) {
                self.break_off(wire, String::from(why));
            }
            let is_open = wire.phase == Phase::Open;
            if is_open {
                // What was pushed before goes before.
                while let Some(outgoing) = self.outbox.get().and_then(|outbox| outbox.take()) {
                    wire.encode(outgoing);
                }
                let (code, text) = wire.codec.close(code, text);
                self.end(wire, Phase::Closing, CloseReason::new(code, text, ClosedBy::Server));
                self.hung_up.store(true, SeqCst); // after the reason: who sees it asks for that
                self.flush(wire);
            }
            is_open
        })
    }

    /// Completes the end on the connection's own thread, with 1000 if it has not begun: closing handshake, half-close,
    /// drain, all within the close timeout. Afterwards the socket is closed.
    pub(crate) fn conclude(self: &Arc<Self>) {
        self.begin_close(CloseCode::NORMAL, "");
        let mut budget = Budget::new(self.limits.close_timeout);
        let deadline = budget.deadline();
        let mut inbox = self.inbox.locked();
        let receiver = inbox.receiver(&self.limits);
        let mut ended = false; // the client's side; ours may have something to send
        while !deadline.is_over() {
            let (socket, blocked) = self.with_wire(|wire| {
                while let Step::Message(_) = self.decode(wire, &mut receiver.buffer, false) {}
                (wire.socket.clone(), wire.blocked)
            });
            let Some(socket) = socket else { break };
            let received = match (blocked, ended) {
                (false, true) => break,
                (false, false) => receiver.receive(&socket, &mut budget),
                (true, true) => socket.wait_writable(deadline).map(|_| 1),
                (true, false) => socket.wait_either(deadline).and_then(|_| receiver.try_receive(&socket)),
            };
            match received {
                Ok(n) => ended |= n == 0,
                Err(e) if blocked && e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break, // the end of the time, or a broken connection
            }
        }
        drop(inbox);
        self.finish();
    }

    /// Closes the socket, whatever the state, and gives back all buffers. Handles may outlive it.
    pub(crate) fn finish(self: &Arc<Self>) {
        self.with_wire(|wire| {
            self.break_off(wire, "cut off");
            wire.phase = Phase::Over;
            wire.codec.clear();
        });
        if let Some(outbox) = self.outbox.get() {
            outbox.clear();
        }
        let guard = self.guard.locked().take();
        if let Some(guard) = guard {
            guard.release(self);
        }
        let mut inbox = self.inbox.locked();
        inbox.drop_receiver();
        inbox.complete = true;
        inbox.over = true;
        self.wake_readers(inbox);
    }

    /// Ends the stream both ways, so that whoever drives it wakes up and completes the end.
    pub(crate) fn cut(&self) {
        let socket = self.wire.locked().socket.clone();
        if let Some(socket) = socket {
            socket.shutdown();
        }
    }

    fn call_gateway(self: &Arc<Self>) {
        if let Some(gateway) = self.gateway.upgrade() {
            gateway.call(self);
        }
    }

    /// Locks the codec, and afterwards does what was left to the holder.
    fn with_wire<R>(self: &Arc<Self>, f: impl FnOnce(&mut Wire) -> R) -> R {
        let mut wire = self.wire.locked();
        let result = f(&mut wire);
        let announce = std::mem::take(&mut wire.announce);
        drop(wire);
        if announce {
            self.announce();
        }
        self.pump();
        result
    }

    /// Wakes those who wait in `read` of a shared connection.
    fn announce(&self) {
        if self.about.shared {
            // With the lock, so that nobody is between his look and his wait.
            self.wake_readers(self.inbox.locked());
        }
    }

    /// Sends what others put into the outbox while the codec was locked.
    ///
    /// Who puts something in and does not get the lock relies on its holder looking here after having let go. The
    /// fences order his putting before his trying, and our letting go before our look: one of the two sees the other.
    fn pump(self: &Arc<Self>) {
        loop {
            fence(SeqCst);
            if self.outbox_is_empty() {
                return;
            }
            let Some(mut wire) = self.wire.try_locked() else { return };
            let was_blocked = wire.blocked;
            let blocked = self.drain(&mut wire);
            let announce = std::mem::take(&mut wire.announce);
            drop(wire);
            if announce {
                self.announce();
            }
            if blocked {
                if !was_blocked {
                    self.call_gateway();
                }
                return;
            }
        }
    }

    /// Sends the output, and then the outbox, piece by piece, as far as the socket takes it. True: it takes no more.
    fn drain(&self, wire: &mut Wire) -> bool {
        loop {
            if self.flush(wire).is_some() {
                return true;
            }
            let Some(outbox) = self.outbox.get() else { return false };
            if wire.phase != Phase::Open {
                outbox.clear();
                return false;
            }
            let before = wire.drained;
            while wire.codec.stream().pending() < CLOGGED
                && let Some(outgoing) = outbox.take()
            {
                wire.encode(outgoing);
                wire.drained += 1;
            }
            if wire.drained == before {
                return false;
            }
        }
    }

    /// Compresses a message that needs no lock for that.
    fn prepare(&self, message: Message, forms: Option<&Forms>) -> Outgoing {
        match &self.about.deflate {
            Some(deflate) => deflate.prepare(message, self.limits.min_compressed_size, forms),
            None => message.into(),
        }
    }

    fn outbox_is_empty(&self) -> bool {
        self.outbox.get().is_none_or(|outbox| outbox.is_empty())
    }

    /// Whether messages can be sent.
    fn check_open(&self, wire: &Wire) -> Result<()> {
        match &wire.broken {
            _ if wire.phase != Phase::Open => Err(self.closed()),
            Some(why) => Err(Error::Closed(CloseReason::new(CloseCode::ABNORMAL, &**why, ClosedBy::Network))),
            None => Ok(()),
        }
    }

    /// Sends what is pending. Returns the socket if it did not take all; a broken one ends the connection.
    fn flush(&self, wire: &mut Wire) -> Option<Arc<Socket>> {
        let was_blocked = wire.blocked;
        let flushed = wire.flush();
        if wire.blocked != was_blocked {
            self.blocked.store(wire.blocked, Relaxed);
        }
        match flushed {
            Flushed::All => None,
            Flushed::Blocked => {
                if std::mem::take(&mut wire.progress) || !was_blocked {
                    wire.last_sent = self.clock.now();
                }
                wire.socket.clone()
            }
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
        log::debug!("{}: {}", self.about.id, failure.text);
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
        if self.end.get().is_none() {
            wire.announce |= self.end.set(Box::new(End { reason, since: Instant::now() })).is_ok();
        }
    }

    fn closed(&self) -> Error {
        Error::Closed(self.closed_reason())
    }

    fn closed_reason(&self) -> CloseReason {
        // Whoever asks has seen that it ended.
        let unknown = || CloseReason::new(CloseCode::ABNORMAL, "", ClosedBy::Network);
        self.reason().cloned().unwrap_or_else(unknown)
    }
}

#[cfg(test)]
mod tests;

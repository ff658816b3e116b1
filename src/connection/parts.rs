//! A connection and its parts: how it begins, whom it meets, and what it can be asked.

use std::{
    fmt,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock,
        atomic::{
            AtomicBool,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, SystemTime},
};

use super::{
    about::{About, Statistics, Traffic},
    core::Core,
    inbox::Inbox,
    lock::Lock,
    mailbox::{Addressed, Mailbox, Post, Within},
    outbox::Outbox,
    socket::Socket,
    turns::Turns,
};
use crate::{
    buffered::{Buffered, Held},
    clock::Clock,
    codec::{Codec, Forms, Outgoing, Role, Stream},
    error::{CloseReason, ClosedBy, Error},
    id::WebSocketId,
    incidents::Incidents,
    limits::{LONGEST_TICK, Limits},
    message::{CloseCode, Message},
    protocol::Protocol,
    sync::LockExt,
};

/// One connection after its opening handshake.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Which end this is.
    pub(super) role: Role,
    pub(super) about: About,
    pub(super) context: Arc<Context>,
    pub(super) core: Lock<Core>,
    pub(super) outbox: OnceLock<Box<Outbox>>,
    pub(super) inbox: Mutex<Inbox>,
    pub(super) mailbox: Mailbox,
    /// Something was put into the inbox of a shared connection, or it ended.
    pub(super) arrived: Condvar,
    /// The compressor came back to the core.
    pub(super) compressed: Condvar,
    /// Who gets the messages of a shared connection whose `server` has returned.
    handler: OnceLock<Box<dyn Handler>>,
    /// The gateway has looked at it.
    pub(super) is_known: AtomicBool,
    /// The last step of its end is done.
    pub(super) finished: AtomicBool,
    /// Set once: how the connection ended, or is about to.
    pub(super) reason: OnceLock<CloseReason>,
    /// This side wants nothing more of the client: what was received is not handed out any more.
    pub(super) hung_up: AtomicBool,
    /// The socket did not take all of the output when the core's lock was last free.
    pub(super) blocked: AtomicBool,
    /// The connection's own thread receives, or waits to.
    pub(super) receives: AtomicBool,
    /// The gateway has taken over the end of a client's connection: it is driven as a shared one is.
    taken_over: AtomicBool,
    /// Messages were received that the connection's own thread has not read: answers to what is before them are collected.
    pub(super) has_unread: AtomicBool,
    /// What the core and the inbox hold; the outbox counts for itself.
    pub(super) held_by_core: Held,
    pub(super) held_by_inbox: Held,
    /// Output was in the way when the gateway received for the thread: when that writes, it has to look itself for what arrived.
    pub(super) look_is_due: AtomicBool,
    /// `BinaryData`, and `SessionEndOnClose`.
    pub(crate) binary_data: AtomicBool,
    pub(crate) session_end_on_close: AtomicBool,
    /// What it gets of topics that remember begins with a line that says the position.
    numbered: AtomicBool,
}

/// What all connections of one gateway share; clients have limits of their own.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) limits: Arc<Limits>,
    /// How often a thread that may be busy is looked at: in time for the shortest of these limits.
    pub(crate) tick: Duration,
    pub(crate) clock: Arc<Clock>,
    pub(crate) post: Arc<Post<Connection>>,
    pub(crate) registrar: Arc<dyn Registrar>,
    /// What all connections of the server hold.
    pub(crate) buffered: Arc<Buffered>,
    /// The same for all gateways of a server.
    pub(crate) turns: Arc<Turns>,
    pub(crate) incidents: Arc<Incidents>,
}

impl Context {
    /// For connections of the same gateway with other limits.
    pub(crate) fn with_limits(&self, limits: Arc<Limits>) -> Self {
        Self { tick: limits.tick(), limits, ..self.clone() }
    }
}

/// What takes the messages of a shared connection, and is told its end. Called by one thread at a time.
pub(crate) trait Handler: Send + Sync + fmt::Debug {
    /// Takes messages until there are none, each with whether more wait behind it. Those that are to be read by somebody else
    /// it [leaves](Connection::leave).
    fn messages(&self, connection: &Arc<Connection>, messages: &mut dyn Iterator<Item = (Message, bool)>);
    /// The connection is over.
    fn end(&self, connection: &Arc<Connection>);
}

/// Who has a connection registered as long as it is not over.
pub(crate) trait Registrar: Send + Sync + fmt::Debug {
    fn unregister(&self, connection: &Arc<Connection>);
    /// A ping was answered after so long. Called under the connection's lock.
    fn measured(&self, round_trip: Duration) {
        let _ = round_trip;
    }
    /// All that are not over, in no order.
    fn all(&self) -> Vec<Arc<Connection>>;
}

impl Connection {
    #[expect(clippy::boxed_local, reason = "on the stack of a handshake it would stay resident")]
    pub(crate) fn new(
        role: Role,
        about: Box<About>,
        socket: Arc<Socket>,
        stream: Stream,
        context: Arc<Context>,
    ) -> Arc<Self> {
        let codec = Codec::new(role, stream, &context.limits, about.deflate);
        let now = context.clock.coarse();
        let protocol = Protocol::new(role, codec, context.limits.clone(), about.shared, now);
        Arc::new(Self {
            role,
            about: *about,
            context,
            core: Lock::new(Core::new(protocol, socket)),
            outbox: OnceLock::new(),
            inbox: Mutex::default(),
            mailbox: Mailbox::new(),
            arrived: Condvar::new(),
            compressed: Condvar::new(),
            handler: OnceLock::new(),
            is_known: AtomicBool::new(false),
            finished: AtomicBool::new(false),
            reason: OnceLock::new(),
            hung_up: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            receives: AtomicBool::new(false),
            taken_over: AtomicBool::new(false),
            has_unread: AtomicBool::new(false),
            held_by_core: Held::default(),
            held_by_inbox: Held::default(),
            look_is_due: AtomicBool::new(false),
            binary_data: AtomicBool::new(false),
            session_end_on_close: AtomicBool::new(false),
            numbered: AtomicBool::new(false),
        })
    }

    pub(crate) fn about(&self) -> &About {
        &self.about
    }

    /// Where what its client brings about is counted.
    pub(crate) fn incidents(&self) -> &Incidents {
        &self.context.incidents
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.context.limits
    }

    pub(crate) fn id(&self) -> &WebSocketId {
        &self.about.id
    }

    /// What it gets of topics that remember begins with a line that says the position, from now on.
    pub(crate) fn set_numbered(&self) {
        self.numbered.store(true, SeqCst);
    }

    pub(crate) fn is_numbered(&self) -> bool {
        self.numbered.load(SeqCst)
    }

    /// How it ended, or is about to; `None` while it is open.
    pub(crate) fn reason(&self) -> Option<&CloseReason> {
        self.reason.get()
    }

    /// When it was opened.
    pub(crate) fn opened(&self) -> SystemTime {
        self.context.clock.date(self.about.opened)
    }

    /// For how long it has been open.
    pub(crate) fn age(&self) -> Duration {
        self.context.clock.exact().since(self.about.opened)
    }

    /// What went through it, and how it is.
    pub(crate) fn statistics(self: &Arc<Self>) -> Statistics {
        let clock = &self.context.clock;
        let mut core = self.lock();
        let traffic = self.traffic_of(&mut core);
        let active = core.protocol.last_message();
        drop(core);
        // Messages have the time of the coarse clock, which may be behind that of the opening.
        let active = active.max(self.about.opened);
        Statistics { traffic, active: clock.date(active), idle: clock.exact().since(active) }
    }

    /// What went through it, and waits to.
    pub(crate) fn traffic(self: &Arc<Self>) -> Traffic {
        self.traffic_of(&mut self.lock())
    }

    fn traffic_of(&self, core: &mut Core) -> Traffic {
        Traffic {
            counts: core.protocol.counts(),
            queued: core.protocol.pending() + self.outbox.get().map_or(0, |outbox| outbox.bytes()),
            round_trip: core.protocol.round_trip(),
        }
    }

    /// Whether the gateway drives it.
    pub(crate) fn is_driven(&self) -> bool {
        self.about.shared || self.taken_over.load(Relaxed)
    }

    /// The gateway drives a client's connection to its end, as soon as that has begun and nobody receives. `Some(false)`: it does
    /// not; if somebody receives, the gateway is told when that is over. `None`: somebody looks into the inbox just now.
    pub(crate) fn take_over(self: &Arc<Self>) -> Option<bool> {
        if self.role == Role::Server || self.reason().is_none() {
            return Some(false);
        }
        let Some(mut inbox) = self.inbox.try_locked() else { return (!self.is_busy()).then_some(false) };
        let mut received = inbox.take_received();
        self.taken_over.store(true, Relaxed);
        drop(inbox);
        if !received.is_empty() {
            let mut core = self.lock();
            core.protocol.receive(&mut received, self.context.clock.coarse());
            self.flush_or_post(&mut core);
        }
        Some(true)
    }

    /// Nobody reads from a connection for now, or ever, that has ended: if it is a client's, the gateway sees to the rest.
    pub(super) fn leave_to_gateway(self: &Arc<Self>) {
        if self.role == Role::Client && !self.is_driven() {
            self.post(Within::Now);
        }
    }

    /// As what ends the connection, if this side does.
    pub(super) fn us(&self) -> ClosedBy {
        match self.role {
            Role::Server => ClosedBy::Server,
            Role::Client => ClosedBy::Client,
        }
    }

    /// The gateway learns of the connection: it drives a shared one from now on, and watches the thread of another.
    pub(crate) fn attach(self: &Arc<Self>) {
        if self.about.shared {
            // At once if somebody waits for a message, or as soon as `server` returns, as most do at once.
            self.post(Within::Tick);
        } else {
            self.be_watched();
        }
    }

    /// Its thread may be busy from now on.
    pub(super) fn be_watched(self: &Arc<Self>) {
        if self.mailbox.watch() {
            // A client's limits may be shorter than the ticks of its gateway.
            let is_hasty = self.role == Role::Client && self.context.tick < LONGEST_TICK;
            self.post(if is_hasty { Within::Now } else { Within::Tick });
        }
    }

    /// The gateway has to look at the connection.
    pub(super) fn post(self: &Arc<Self>, within: Within) {
        self.context.post.send(self, within);
    }

    /// `server` of a shared connection has returned: from now on the handler gets the messages, those first that
    /// nobody has read yet.
    pub(crate) fn park(self: &Arc<Self>, handler: Box<dyn Handler>) {
        let mut inbox = self.inbox.locked();
        let _ = self.handler.set(handler);
        inbox.hand_over();
        drop(inbox);
        self.lock().protocol.park();
        self.post(Within::Now);
    }

    pub(crate) fn handler(&self) -> Option<&dyn Handler> {
        self.handler.get().map(|handler| &**handler)
    }

    /// What the inbox holds has become less; see [`count`](Self::count).
    pub(super) fn count_less(&self, inbox: &Inbox) {
        if self.held_by_inbox.get() > 0 {
            self.count(inbox);
        }
    }

    /// What the inbox holds has changed. Its owner says so before it lets go. After the end it is with whoever has a handle.
    #[inline(never)]
    pub(super) fn count(&self, inbox: &Inbox) {
        let is_ours = !self.finished.load(Relaxed);
        if is_ours && self.held_by_inbox.set(inbox.bytes(), &self.context.buffered) {
            self.context.post.wake();
        }
    }

    /// Lets go of the inbox, and wakes those who wait in `read`, if there are any: to ask is cheaper than to call. With the
    /// lock, nobody is between its look and its wait.
    pub(super) fn wake_readers(&self, inbox: MutexGuard<'_, Inbox>) {
        let waiting = inbox.waiting > 0;
        drop(inbox);
        if waiting {
            self.arrived.notify_all();
        }
    }

    /// Compresses a message that needs no lock for that.
    pub(super) fn prepare(&self, message: Message, forms: Option<&Forms>) -> Outgoing {
        match &self.about.deflate {
            Some(deflate) => deflate.prepare(message, self.context.limits.min_compressed_size, forms),
            None => Outgoing::new(message, forms.is_some()),
        }
    }

    pub(super) fn outbox_is_empty(&self) -> bool {
        self.outbox.get().is_none_or(|outbox| outbox.is_empty())
    }

    pub(super) fn has_hung_up(&self) -> bool {
        self.hung_up.load(SeqCst)
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.load(Relaxed)
    }

    /// What a call on a connection returns that has ended.
    pub(crate) fn closed(&self) -> Error {
        Error::Closed(self.closed_reason())
    }

    /// Why nothing can be sent any more.
    pub(super) fn why_unsendable(self: &Arc<Self>) -> CloseReason {
        self.lock().protocol.check_sendable().err().unwrap_or_else(|| self.closed_reason())
    }

    /// Whether nothing can be sent any more, although it may not have ended for readers yet.
    pub(crate) fn is_unsendable(self: &Arc<Self>) -> bool {
        self.lock().protocol.check_sendable().is_err()
    }

    pub(crate) fn closed_reason(&self) -> CloseReason {
        // Whoever asks has seen that it ended.
        let unknown = || CloseReason::new(CloseCode::ABNORMAL, "", ClosedBy::Network);
        self.reason().cloned().unwrap_or_else(unknown)
    }
}

/// What it holds is free now.
impl Drop for Connection {
    fn drop(&mut self) {
        for held in [&self.held_by_core, &self.held_by_inbox] {
            held.set(0, &self.context.buffered);
        }
    }
}

impl Addressed for Connection {
    fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }
}

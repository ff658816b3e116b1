//! A connection and its parts: how it begins, what is known of it, and how it ends.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
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
    core::{Core, Deferred},
    inbox::Inbox,
    lock::{Guard, Lock, Owner, lock, try_lock},
    mailbox::{Addressed, Mailbox, Post, Within},
    outbox::{Outbox, Overflow},
    socket::Socket,
    turns::Turns,
};
use crate::{
    buffered::{Buffered, Held},
    clock::{Clock, Moment},
    codec::{Codec, Compressing, Deflate, Forms, Outgoing, Role, Stream},
    error::{CloseReason, ClosedBy, Error},
    id::WebSocketId,
    incidents::Incidents,
    interned::Name,
    limits::{LONGEST_TICK, Limits},
    message::{CloseCode, Message},
    protocol::{Counts, Protocol},
    session::SessionId,
    sync::LockExt,
    tags::Tags,
};

/// One connection after its opening handshake.
#[derive(Debug)]
pub(crate) struct Connection {
    /// Which end this is.
    role: Role,
    pub(super) about: About,
    pub(super) context: Arc<Context>,
    core: Lock<Core>,
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
    reason: OnceLock<CloseReason>,
    /// This side wants nothing more of the client: what was received is not handed out any more.
    hung_up: AtomicBool,
    /// The socket did not take all of the output when the core's lock was last free.
    blocked: AtomicBool,
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

/// What is known of a connection from its opening handshake on.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) id: WebSocketId,
    /// `None`: it has none (`UseSession`).
    pub(crate) session_id: Option<SessionId>,
    pub(crate) path: Arc<str>,
    pub(crate) peer: Option<SocketAddr>,
    /// The route that ends with a star and serves the path; `None`: it was registered as it is.
    pub(crate) route: Option<Name>,
    /// What the client says that it is.
    pub(crate) user_agent: Option<Name>,
    pub(crate) extras: Option<Box<Extras>>,
    pub(crate) opened: Moment,
    pub(crate) shared: bool,
    pub(crate) overflow: Overflow,
    /// How messages are compressed, if they are.
    pub(crate) deflate: Option<Deflate>,
}

/// What most connections have nothing of.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    /// The client's address, if it is not the peer's.
    pub(crate) forwarded: Option<IpAddr>,
    pub(crate) subprotocol: Option<Box<str>>,
    pub(crate) user: Option<Arc<str>>,
    pub(crate) tags: Tags,
}

impl Extras {
    /// `None` if there is nothing.
    pub(crate) fn boxed(self) -> Option<Box<Self>> {
        let Self { forwarded, subprotocol, user, tags } = &self;
        let is_empty = forwarded.is_none() && subprotocol.is_none() && user.is_none() && tags.is_empty();
        (!is_empty).then(|| Box::new(self))
    }
}

impl About {
    /// The client's address: the one that a trusted proxy has forwarded, or the peer's.
    pub(crate) fn client(&self) -> Option<IpAddr> {
        let forwarded = self.extras.as_ref().and_then(|extras| extras.forwarded);
        forwarded.or_else(|| Some(self.peer?.ip().to_canonical()))
    }

    /// The route that serves the path, as it was registered.
    pub(crate) fn route(&self) -> &Arc<str> {
        self.route.as_ref().map_or(&self.path, Name::text)
    }

    pub(crate) fn subprotocol(&self) -> Option<&str> {
        self.extras.as_ref()?.subprotocol.as_deref()
    }

    pub(crate) fn user(&self) -> Option<&Arc<str>> {
        self.extras.as_ref()?.user.as_ref()
    }

    pub(crate) fn tags(&self) -> &Tags {
        static NONE: Tags = Tags::NONE;
        self.extras.as_ref().map_or(&NONE, |extras| &extras.tags)
    }
}

/// What has gone through a connection, and how it is.
#[derive(Debug)]
pub(crate) struct Statistics {
    pub(crate) counts: Counts,
    /// What waits to be sent, in bytes.
    pub(crate) queued: usize,
    pub(crate) round_trip: Option<Duration>,
    /// When the last message went either way.
    pub(crate) active: SystemTime,
    /// How long ago that was.
    pub(crate) idle: Duration,
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
        // Messages have the time of the coarse clock, which may be behind that of the opening.
        let active = core.protocol.last_message().max(self.about.opened);
        Statistics {
            counts: core.protocol.counts(),
            queued: core.protocol.pending() + self.outbox.get().map_or(0, |outbox| outbox.bytes()),
            round_trip: core.protocol.round_trip(),
            active: clock.date(active),
            idle: clock.exact().since(active),
        }
    }

    /// Whether the gateway drives it.
    pub(crate) fn is_driven(&self) -> bool {
        self.about.shared || self.taken_over.load(Relaxed)
    }

    /// The gateway drives a client's connection to its end, as soon as that has begun and nobody receives. False: it does not; if
    /// somebody receives, the gateway is told when that is over.
    pub(crate) fn take_over(self: &Arc<Self>) -> bool {
        if self.role == Role::Server || self.reason().is_none() {
            return false;
        }
        let Some(mut inbox) = self.inbox.try_locked() else { return false };
        let mut received = inbox.take_received();
        self.taken_over.store(true, Relaxed);
        drop(inbox);
        if !received.is_empty() {
            let mut core = self.lock();
            core.protocol.receive(&mut received, self.context.clock.coarse());
            self.flush_or_post(&mut core);
        }
        true
    }

    /// Nobody reads from a client's connection for now, or ever, and it has ended: the gateway sees to the rest.
    pub(crate) fn leave_to_gateway(self: &Arc<Self>) {
        if !self.is_driven() {
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

    /// Sends what is pending, as far as the socket takes it. True: it did not take all.
    pub(super) fn flush(&self, core: &mut Core) -> bool {
        self.publish(core);
        core.flush(&self.context.clock)
    }

    /// As [`flush`](Self::flush), by someone who does not wait until the socket takes more: the gateway has to.
    pub(super) fn flush_or_post(&self, core: &mut Core) -> bool {
        let was_blocked = core.protocol.is_blocked();
        let blocked = self.flush(core);
        if blocked && !was_blocked {
            core.deferred.post = Some(Within::Now);
        }
        blocked
    }

    /// As [`drain`](Self::drain), by someone who does not wait until the socket takes more: the gateway has to.
    pub(super) fn drain_or_post(&self, core: &mut Core) {
        let was_blocked = core.protocol.is_blocked();
        if self.drain(core) && !was_blocked {
            core.deferred.post = Some(Within::Now);
        }
    }

    /// Sends the output, and then the outbox, as far as the socket takes it. True: it did not take all.
    pub(super) fn drain(&self, core: &mut Core) -> bool {
        self.publish(core);
        core.drain(self.outbox.get().map(|outbox| &**outbox), &self.context.clock)
    }

    /// Makes known what the protocol has come to: before the client can see it, or anyone else.
    fn publish(&self, core: &mut Core) {
        if core.protocol.take_changed() {
            self.publish_change(core);
        }
    }

    #[inline(never)]
    fn publish_change(&self, core: &mut Core) {
        if let (Some(reason), None) = (core.protocol.reason(), self.reason.get()) {
            core.deferred.ended = self.reason.set(reason.clone()).is_ok();
        }
        if core.protocol.has_hung_up() {
            self.hung_up.store(true, SeqCst); // after the reason: who sees it asks for that
        }
        if core.protocol.is_over()
            && let Some(socket) = core.socket.take()
        {
            socket.shutdown(); // whoever waits in `recv` or `poll` learns of it
        }
        // The gateway keeps the times of a shared connection, and sees to an end that others have brought about.
        let has_ended = core.protocol.holds_end() || core.protocol.reason().is_some();
        if self.is_driven() {
            core.deferred.post = Some(Within::Now);
        } else if has_ended && !core.ended_by_thread {
            // Its thread usually sees to it in time; a tick may be too long only for a short limit. A client's thread does not.
            let is_long = self.role == Role::Server && self.context.limits.close_timeout > LONGEST_TICK;
            core.deferred.post.get_or_insert(if is_long { Within::Tick } else { Within::Now });
        }
    }

    /// The time: exact where a round trip is measured.
    pub(super) fn now(&self, core: &Core) -> Moment {
        let clock = &self.context.clock;
        if core.protocol.is_measuring() { clock.exact() } else { clock.coarse() }
    }

    /// Locks the core.
    pub(super) fn lock(self: &Arc<Self>) -> Guard<'_, Arc<Self>> {
        lock(self)
    }

    /// Locks the core, unless somebody holds it, who will then look into the outbox.
    pub(super) fn try_lock(self: &Arc<Self>) -> Option<Guard<'_, Arc<Self>>> {
        try_lock(self)
    }

    #[inline(never)]
    fn count_core(&self, core: &Core) {
        if self.held_by_core.set(core.protocol.held(), &self.context.buffered) {
            self.context.post.wake();
        }
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

impl Owner for Arc<Connection> {
    type Core = Core;
    type Deferred = Deferred;
    type Finished = Box<Compressing>;

    fn core(&self) -> &Lock<Core> {
        &self.core
    }

    fn before_unlock(&self, core: &mut Core) -> Option<Deferred> {
        if core.waiting.is_some() {
            self.serve_waiting(core);
        }
        self.publish(core);
        let blocked = core.protocol.is_blocked();
        if blocked != self.blocked.load(Relaxed) {
            self.blocked.store(blocked, Relaxed);
        }
        if core.protocol.take_resized() {
            self.count_core(core);
        }
        core.deferred.take()
    }

    fn after_unlock(&self, deferred: Deferred) -> Option<Box<Compressing>> {
        if deferred.ended && self.about.shared {
            self.wake_readers(self.inbox.locked());
        }
        if let Some(within) = deferred.post {
            self.post(within);
        }
        let mut compressing = deferred.compressing?;
        compressing.run();
        Some(compressing)
    }

    fn finish_deferred(&self, core: &mut Core, compressed: Box<Compressing>) {
        core.compressed(*compressed);
        if core.protocol.owes_close() {
            self.drain_or_post(core); // what was compressed may have been the last that the close has waited for
        } else {
            self.flush_or_post(core);
        }
        self.compressed.notify_all();
    }

    fn has_queued(&self) -> bool {
        !self.outbox_is_empty()
    }

    fn drain_queue(&self, core: &mut Core) -> bool {
        // The gateway flushes when the socket takes more; whoever has the compressor, when it is back.
        if core.protocol.is_blocked() || core.protocol.is_compressing() {
            return false;
        }
        let blocked = self.drain(core);
        if blocked {
            core.deferred.post = Some(Within::Now);
        }
        !blocked
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

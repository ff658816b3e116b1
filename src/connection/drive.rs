//! What the gateway does with a connection: drives a shared one, stands in for a busy thread, keeps the times.

use mio::Token;

use super::*;

pub(super) const NO_TOKEN: u32 = u32::MAX;

/// Bytes are received and decoded so often before others have their turn.
const TURNS: usize = 16;

/// Messages are handled so often before others have their turn.
const BATCH: usize = 64;

/// Without a message for so long, a connection gives back what it keeps only to compress better.
const IDLE: Duration = Duration::from_secs(10);

/// A stuck connection is cut so much later than a thread in `write` would do it.
const GRACE: Duration = Duration::from_secs(1);

/// What a connection wants of the gateway.
#[derive(Debug)]
pub(crate) struct Attention {
    /// The socket did not take all output.
    pub(crate) blocked: bool,
    /// The socket to be driven, or watched until it takes more.
    pub(crate) socket: Option<Arc<Socket>>,
}

/// What driving came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Driven {
    /// Nothing is to be done until the socket is ready again, or somebody calls.
    Waiting,
    /// There is more, but others have their turn first.
    More,
    /// The connection is over.
    Over,
}

/// What a look at the times came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tick {
    Fine,
    /// Output is stuck: the socket has to be watched.
    Blocked,
    /// The connection is over: it needs no more looks.
    Over,
}

impl Connection {
    /// Whether the gateway sees the connection for the first time.
    pub(crate) fn is_new(&self) -> bool {
        !self.known.swap(true, SeqCst)
    }

    /// Where the gateway keeps the socket, if it watches it.
    pub(crate) fn token(&self) -> Option<Token> {
        let token = self.token.load(SeqCst);
        (token != NO_TOKEN).then_some(Token(token as usize))
    }

    /// Told by the gateway.
    pub(crate) fn set_token(&self, token: Option<Token>) {
        self.token.store(token.map_or(NO_TOKEN, |token| token.0 as u32), SeqCst);
    }

    /// The gateway's look after a call.
    pub(crate) fn attend(self: &Arc<Self>) -> Attention {
        self.called.store(false, SeqCst);
        self.with_wire(|wire| Attention { blocked: wire.blocked, socket: wire.socket.clone() })
    }

    /// When the connection has to be cut, once it is closing. Says so once.
    pub(crate) fn take_deadline(&self) -> Option<Instant> {
        let since = self.end.get()?.since;
        // A timeout beyond the clock's range never comes.
        if self.known_closing.swap(true, SeqCst) {
            None
        } else {
            since.checked_add(self.limits.close_timeout)
        }
    }

    /// Sends what waits to be sent; receives, decodes and delivers what is there, as far as there is room for it. Only for
    /// shared connections.
    ///
    /// `ended` says that the socket's end is in sight: then it is read until it comes. The capacity of `scratch` is received
    /// at a time.
    pub(crate) fn drive(
        self: &Arc<Self>,
        socket: &Socket,
        scratch: &mut Vec<u8>,
        ended: bool,
        caller: &Caller,
    ) -> Driven {
        let deliver = |received: &mut Vec<u8>| {
            let waiting = self.deliver(received, caller.works_itself());
            self.has_rest.store(waiting.is_some(), Relaxed);
            waiting
        };
        let blocked = self.blocked.load(Relaxed) && self.send_rest();
        if (blocked || self.has_rest.load(Relaxed))
            && let Some(waiting) = deliver(&mut Vec::new())
        {
            return waiting;
        }
        for _ in 0..TURNS {
            scratch.clear();
            let n = match socket.try_recv(scratch) {
                Ok(0) => return self.over(read::ENDED),
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.resume_handler();
                    return Driven::Waiting;
                }
                Err(e) => return self.over(e.to_string()),
            };
            if let Some(waiting) = deliver(&mut scratch.to_vec()) {
                return waiting;
            }
            if n < scratch.capacity() && !ended {
                return Driven::Waiting; // what comes from now on wakes the gateway again
            }
        }
        Driven::More
    }

    fn over(self: &Arc<Self>, why: impl Into<std::borrow::Cow<'static, str>>) -> Driven {
        self.with_wire(|wire| self.break_off(wire, why));
        Driven::Over
    }

    /// Takes in what was received and hands on the messages; `inline`, to the handler at once. `None`: more may be received.
    fn deliver(self: &Arc<Self>, received: &mut Vec<u8>, inline: bool) -> Option<Driven> {
        let server_runs = self.handler.get().is_none();
        loop {
            let open = self.reason().is_none(); // else nothing more is kept
            let mut inbox = self.inbox.locked();
            if self.needs_handler(&mut inbox) {
                drop(inbox);
                self.schedule();
                continue;
            }
            if open && !inbox.has_room(&self.limits) {
                drop(inbox);
                return Some(self.pause(received));
            }
            let unanswered = open && inbox.is_unanswered(server_runs);
            // What waits already comes first.
            let inline = inline && inbox.fresh.is_empty() && !inbox.scheduled;
            let handler = self.handler.get().filter(|_| inline);
            drop(inbox);
            let mut messages = Vec::new();
            let (step, blocked, phase) = self.with_wire(|wire| {
                loop {
                    let hold = unanswered || open && !messages.is_empty();
                    match self.decode(wire, received, hold) {
                        Step::Message(message) => {
                            messages.push(message);
                            self.decode_ahead(wire, &mut messages);
                        }
                        step => return (Some(step), wire.blocked, wire.phase),
                    }
                    // The handler may leave messages in the inbox, so no more are decoded than there is room for.
                    let most = if handler.is_some() { 1 } else { BATCH };
                    if messages.len() >= most && !wire.codec.stream().input().is_empty() {
                        return (None, wire.blocked, wire.phase);
                    }
                }
            });
            match handler {
                Some(handler) => self.handle(&**handler, messages),
                None if !messages.is_empty() => self.enqueue(messages, true),
                None => {}
            }
            if phase != Phase::Open {
                let mut inbox = self.inbox.locked();
                inbox.complete = true;
                self.wake_readers(inbox);
            }
            match step {
                _ if phase == Phase::Over => return Some(Driven::Over),
                Some(Step::Held) => {
                    let mut inbox = self.inbox.locked();
                    inbox.held = inbox.is_unanswered(server_runs);
                    if inbox.held {
                        return Some(Driven::Waiting);
                    }
                }
                Some(Step::Clogged) => return Some(Driven::Waiting), // the socket will say when it takes more
                _ if blocked && phase == Phase::Open => return Some(Driven::Waiting),
                Some(_) => return None,
                None => {}
            }
        }
    }

    /// Calls the handler on the gateway's own thread, which then sends the answers itself: nobody has to call it for that.
    fn handle(self: &Arc<Self>, handler: &dyn Handler, messages: Vec<Message>) {
        let looked_after = self.looked_after.swap(true, SeqCst);
        let mut messages = messages.into();
        self.hand(handler, &mut messages);
        self.looked_after.store(looked_after, SeqCst);
        if self.has_collected() {
            self.send_rest();
        }
        if !messages.is_empty() && !self.hung_up.load(SeqCst) {
            self.enqueue(messages.into(), true); // answered when the client takes more
        }
    }

    /// Calls the handler for these messages, as long as the client takes the answers. Returns how many bytes were in those that
    /// it was called for; the others are left.
    fn hand(self: &Arc<Self>, handler: &dyn Handler, messages: &mut VecDeque<Message>) -> usize {
        let mut bytes = 0;
        handler.messages(
            self,
            &mut std::iter::from_fn(|| {
                if self.hung_up.load(SeqCst) || self.is_stuck() {
                    return None;
                }
                let message = messages.pop_front()?;
                bytes += message.len();
                Some((message, !messages.is_empty()))
            }),
        );
        bytes
    }

    /// There is no room: what was received stays in the codec.
    fn pause(self: &Arc<Self>, received: &mut Vec<u8>) -> Driven {
        if !received.is_empty() {
            let fed = self.with_wire(|wire| {
                self.hear(wire, received.len());
                let fed = wire.codec.stream().feed(received);
                fed.map_err(|failure| self.fail(wire, failure)).is_ok()
            });
            if !fed {
                return Driven::Over;
            }
        }
        let mut inbox = self.inbox.locked();
        // Somebody may have read in between, and seen no pause.
        inbox.paused = !inbox.has_room(&self.limits);
        if inbox.paused { Driven::Waiting } else { Driven::More }
    }

    /// Puts messages in for readers; or first for the handler, if there is one and they are `fresh`.
    fn enqueue(self: &Arc<Self>, messages: Vec<Message>, fresh: bool) {
        let mut inbox = self.inbox.locked();
        inbox.bytes += messages.iter().map(Message::len).sum::<usize>();
        if fresh && self.handler.get().is_some() {
            inbox::append(&mut inbox.fresh, messages);
            let start = !inbox.scheduled;
            inbox.scheduled = true;
            drop(inbox);
            if start {
                self.schedule();
            }
        } else {
            inbox::append(&mut inbox.queue, messages);
            self.wake_readers(inbox);
        }
    }

    /// Lets go of the inbox, and wakes those who wait in `read`, if there are any: to ask is cheaper than to call. With the
    /// lock, nobody is between his look and his wait.
    pub(super) fn wake_readers(&self, inbox: MutexGuard<'_, Inbox>) {
        let waiting = inbox.waiting > 0;
        drop(inbox);
        if waiting {
            self.arrived.notify_all();
        }
    }

    /// Has the handler called if there is something for it.
    pub(crate) fn resume_handler(self: &Arc<Self>) {
        let mut inbox = self.inbox.locked();
        if self.needs_handler(&mut inbox) {
            drop(inbox);
            self.schedule();
        }
    }

    /// Whether there is something for the handler, and nobody knows. Who is told has to schedule it.
    fn needs_handler(&self, inbox: &mut Inbox) -> bool {
        let has_something = !inbox.fresh.is_empty() && !self.is_stuck() || inbox.over;
        let needs = has_something && !inbox.scheduled && self.handler.get().is_some();
        inbox.scheduled |= needs;
        needs
    }

    /// While the client does not take its answers, nothing more is answered: the socket will say when it does.
    fn is_stuck(&self) -> bool {
        self.blocked.load(Relaxed) && self.reason().is_none()
    }

    fn schedule(self: &Arc<Self>) {
        if !self.gateway.upgrade().is_some_and(|gateway| gateway.give_to_worker(self)) {
            self.work();
        }
    }

    /// Calls the handler for what waits, in order. By one thread at a time: whoever set `scheduled`.
    pub(crate) fn work(self: &Arc<Self>) {
        let Some(handler) = self.handler.get() else { return };
        let (mut batch, mut bytes, mut turn) = (VecDeque::new(), 0, 0);
        loop {
            let mut inbox = self.inbox.locked();
            inbox.put_back(&mut batch, bytes);
            if self.hung_up.load(SeqCst) {
                inbox.fresh.clear();
            }
            let stuck = self.is_stuck();
            let mut call = inbox.resumes(&self.limits);
            if stuck || inbox.fresh.is_empty() {
                inbox.scheduled = false;
                call |= stuck; // it may have been unblocked in between
                call |= !stuck && std::mem::take(&mut inbox.held);
                let over = !stuck && std::mem::take(&mut inbox.over);
                self.wake_readers(inbox);
                if call {
                    self.call_gateway();
                }
                if over {
                    handler.end(self);
                }
                return;
            }
            batch = inbox.take_fresh(BATCH);
            drop(inbox);
            if call {
                self.call_gateway();
            }
            turn += batch.len();
            bytes = self.hand(&**handler, &mut batch);
            if turn >= BATCH {
                self.inbox.locked().put_back(&mut batch, bytes);
                if self.gateway.upgrade().is_some_and(|gateway| gateway.give_to_worker(self)) {
                    return; // others have their turn first
                }
                (bytes, turn) = (0, 0);
            }
        }
    }

    /// Leaves a message that the handler did not take to whoever reads.
    pub(crate) fn leave(self: &Arc<Self>, message: Message) {
        self.enqueue(vec![message], false);
    }

    /// Sends what was collected or blocked, as far as the socket takes it. True: something was left.
    pub(crate) fn send_rest(self: &Arc<Self>) -> bool {
        self.with_wire(|wire| (wire.collected || wire.blocked) && self.drain(wire))
    }

    /// Whether the gateway has to look for collected output from now on. If so, it does.
    pub(crate) fn starts_collecting(&self) -> bool {
        self.collects.load(SeqCst) && !self.looked_after.swap(true, SeqCst)
    }

    /// Whether output was collected since this was last asked.
    pub(crate) fn has_collected(&self) -> bool {
        self.collects.load(SeqCst) && self.collects.swap(false, SeqCst)
    }

    /// Whether the gateway need not look any more. If so, the next output that is collected is a call again.
    pub(crate) fn stops_collecting(&self) -> bool {
        self.looked_after.store(false, SeqCst);
        // Who collected in between may have relied on it.
        let stops = !self.collects.load(SeqCst);
        self.looked_after.store(!stops, SeqCst);
        stops
    }

    /// The regular look: pings a silent client, cuts a dead or a stuck one, ends an idle shared connection, and stands in
    /// for a thread that is busy.
    pub(crate) fn tick(self: &Arc<Self>) -> Tick {
        if !self.about.shared {
            self.stand_in();
        }
        let suspended = self.about.shared && self.inbox.locked().paused;
        let mut idle = false;
        let tick = self.with_wire(|wire| {
            match wire.phase {
                Phase::Over => return Tick::Over,
                Phase::Closing | Phase::Draining => return Tick::Fine,
                Phase::Open => {}
            }
            let quiet = self.clock.since(wire.last_message);
            wire.codec.park(quiet >= IDLE);
            if wire.blocked {
                // It is not received from while its output is stuck, so its silence says nothing. A thread that waits
                // in `write` keeps the same time, and better: it comes first.
                if self.clock.since(wire.last_sent) >= self.limits.write_timeout + GRACE {
                    self.break_off_by(wire, ClosedBy::Server, write::TOO_SLOW);
                }
                return Tick::Blocked;
            }
            let limit = self.limits.shared_idle_timeout.filter(|_| self.about.shared);
            idle = limit.is_some_and(|limit| quiet >= limit);
            if !suspended {
                self.keep_alive(wire);
            }
            if wire.blocked { Tick::Blocked } else { Tick::Fine }
        });
        if idle {
            self.close(CloseCode::NORMAL, "idle");
        }
        tick
    }

    fn keep_alive(&self, wire: &mut Wire) {
        let Some(interval) = self.limits.ping_interval else { return };
        match wire.pinged {
            Some(pinged) if self.clock.since(pinged) >= self.limits.ping_timeout => {
                self.break_off(wire, "no answer to a ping");
            }
            Some(_) => {}
            None if self.clock.since(wire.last_heard) >= interval => {
                wire.codec.ping(self.clock.micros().to_be_bytes());
                wire.pinged = Some(self.clock.now());
                self.flush(wire);
            }
            None => {}
        }
    }

    /// Receives for a thread that does not: so pings are answered and a close is noticed while user code computes, or
    /// writes without end.
    pub(super) fn stand_in(self: &Arc<Self>) {
        // The thread holds it while it receives.
        let Some(mut inbox) = self.inbox.try_locked() else { return };
        self.look_is_due.store(false, Relaxed);
        for _ in 0..TURNS * BATCH {
            if !inbox.has_room(&self.limits) {
                // It is not received from, so its silence says nothing.
                self.wire.locked().last_heard = self.clock.now();
                break;
            }
            // It has not answered yet what came before.
            let receiver = inbox.receiver(&self.limits);
            match self.with_wire(|wire| self.step(wire, &mut receiver.buffer, true)) {
                (Step::Message(message), _) => {
                    inbox.bytes += message.len();
                    inbox.queue.push_back(message);
                }
                (Step::Starved { .. }, Some(socket)) => match receiver.try_receive(&socket) {
                    Ok(0) => self.with_wire(|wire| self.break_off(wire, read::ENDED)),
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) => self.with_wire(|wire| self.break_off(wire, e.to_string())),
                },
                (Step::Clogged, _) => {
                    self.look_is_due.store(true, Relaxed);
                    break;
                }
                _ => break,
            }
        }
        inbox.receiver(&self.limits).buffer = Vec::new();
    }
}

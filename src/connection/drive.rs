//! What the gateway does with a shared connection: takes in what was received, and has its handler called.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{
    core::Core,
    inbox::{Inbox, Room},
    mailbox::Within,
    parts::{Connection, Handler},
    socket::Socket,
};
use crate::{
    clock::Moment,
    codec::Work,
    message::Message,
    protocol::{Hold, Protocol},
    sync::LockExt,
};

/// So many messages are decoded with the lock held, or handled, at a time.
const BATCH: usize = 64;

/// What a call to [`take_in`](Connection::take_in) came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Intake {
    /// All is decoded: more may be received.
    Starved,
    /// There is more to decode.
    More,
    /// Nothing more can be taken in now. Whoever makes that possible tells the gateway, or the socket does.
    Waits,
    /// The connection is over.
    Over,
}

/// What came of taking in.
#[derive(Debug)]
pub(crate) struct TakenIn {
    pub(crate) intake: Intake,
    /// Messages came.
    pub(crate) has_messages: bool,
    /// There is something for the handler, and nobody else calls it.
    pub(crate) claims_handler: bool,
}

/// A look at a connection with a thread of its own.
#[derive(Debug)]
pub(crate) struct Look {
    /// `None`: the connection is over.
    pub(crate) socket: Option<Arc<Socket>>,
    /// Output waits until the socket takes more.
    pub(crate) is_blocked: bool,
    /// Its end has begun.
    pub(crate) is_ending: bool,
    /// When something is due.
    pub(crate) due: Option<Moment>,
}

impl Look {
    /// Whether it needs the gateway: its output waits for the socket, or its end has begun.
    pub(crate) fn needs_gateway(&self) -> bool {
        self.is_blocked || self.is_ending
    }
}

/// What there is for the handler.
#[derive(Debug)]
pub(crate) enum Batch<'a> {
    Messages(&'a dyn Handler, VecDeque<Message>),
    /// It has had all messages, and is to be told that the connection is over.
    End(&'a dyn Handler),
    /// Nothing, for now.
    Nothing,
}

/// What is left of a batch: messages that the handler was not called for. The others had so many bytes.
#[derive(Debug, Default)]
pub(crate) struct Rest {
    pub(crate) messages: VecDeque<Message>,
    pub(crate) handled: usize,
}

impl Connection {
    /// Decodes what was received, as far as the work goes and there is room for the messages, and puts them into the inbox.
    pub(crate) fn take_in(self: &Arc<Self>, received: &mut Vec<u8>, work: &mut Work) -> TakenIn {
        let limits = &self.context.limits;
        let (mut room, hold) = {
            let inbox = self.inbox.locked();
            (inbox.room(limits), inbox.hold())
        };
        if self.reason().is_some() {
            room = Room::ENDLESS;
        }
        let mut core = self.lock();
        let now = self.now(&core);
        if !received.is_empty() {
            core.protocol.receive(received, now);
        }
        if room.is_none() {
            // An end that is held waits for the same.
            if !core.protocol.has_input() && !core.protocol.holds_end() {
                return TakenIn { intake: Intake::Starved, has_messages: false, claims_handler: false };
            }
            core.pause(limits);
            drop(core);
            // Somebody may have made room in between, and seen no pause.
            let is_paused = self.inbox.locked().pause(limits);
            let intake = if is_paused { Intake::Waits } else { Intake::More };
            return TakenIn { intake, has_messages: false, claims_handler: false };
        }
        core.protocol.resume(now);
        let (messages, is_starved) = poll_batch(&mut core.protocol, room, hold, work, now);
        let is_blocked = self.flush(&mut core);
        let protocol = &mut core.protocol;
        let (holds, has_ended) = (protocol.holds_end(), protocol.reason().is_some());
        let mut intake = match () {
            () if protocol.is_over() => Intake::Over,
            () if !is_starved || holds => Intake::More,
            () if !protocol.wants_input() || is_blocked && !has_ended => Intake::Waits,
            () => Intake::Starved,
        };
        drop(core);
        let has_messages = !messages.is_empty();
        let claims_handler = self.deliver(messages, has_ended);
        // It may have been answered in between, by someone who saw no hold.
        if holds && is_starved && self.inbox.locked().hold_end() {
            intake = Intake::Waits;
        }
        TakenIn { intake, has_messages, claims_handler }
    }

    /// Puts messages in, for the handler if there is one, else for readers. `complete`: they are the last. Returns whether
    /// the handler is to be called.
    fn deliver(&self, messages: Vec<Message>, complete: bool) -> bool {
        if messages.is_empty() && !complete {
            return false;
        }
        let mut inbox = self.inbox.locked();
        inbox.complete |= complete;
        if self.handler().is_some() {
            inbox.put_unhandled(messages);
        } else {
            inbox.put_unread(messages);
        }
        self.count(&inbox);
        let claims = self.claims(&mut inbox);
        self.wake_readers(inbox);
        claims
    }

    /// The client's stream has ended, or is broken.
    pub(crate) fn take_in_end(self: &Arc<Self>, end: io::Result<()>, work: &mut Work) -> TakenIn {
        let hold = self.inbox.locked().hold();
        let mut core = self.lock();
        match end {
            Ok(()) => core.protocol.receive_end(hold, self.context.clock.coarse()),
            Err(e) => core.protocol.receive_failed(&e.to_string()),
        }
        drop(core);
        self.take_in(&mut Vec::new(), work)
    }

    /// While it is not received from: a broken connection ends at once, and one whose client has ended its stream in a while.
    pub(crate) fn look_for_end(self: &Arc<Self>) {
        let Some(socket) = self.socket() else { return };
        let is_end_in_sight = socket.is_end_in_sight();
        let mut core = self.lock();
        match is_end_in_sight {
            Ok(false) => {}
            Ok(true) => core.protocol.end_in_sight(self.context.clock.coarse()),
            Err(e) => core.protocol.receive_failed(&e.to_string()),
        }
    }

    /// The socket, until the connection is over.
    pub(crate) fn socket(self: &Arc<Self>) -> Option<Arc<Socket>> {
        self.lock().socket.clone()
    }

    /// The gateway takes it out of its queue, and looks at it from now on.
    pub(crate) fn take_from_queue(&self) {
        self.mailbox.take();
        self.is_known.store(true, Relaxed);
    }

    /// Gives back the buffers that hold nothing, if there was no message for so long; else says when to ask again.
    pub(crate) fn park_if_quiet(self: &Arc<Self>, quiet: Duration) -> Option<Moment> {
        self.lock().protocol.park_if_quiet(quiet, self.context.clock.exact())
    }

    /// Whether something is awaited from the client that makes what is due undone: a pong, or the rest of a message.
    pub(crate) fn awaits_input(self: &Arc<Self>) -> bool {
        let core = self.lock();
        core.protocol.is_measuring() || core.protocol.is_within_message()
    }

    /// When something is due.
    pub(crate) fn deadline(self: &Arc<Self>) -> Option<Moment> {
        self.lock().protocol.deadline()
    }

    /// What the gateway has to know of a connection with a thread of its own. `None`: somebody has the lock. It is not waited
    /// for, since its thread may not run for a while when it is one of many.
    pub(crate) fn look(self: &Arc<Self>) -> Option<Look> {
        let core = self.try_lock()?;
        Some(Look {
            socket: core.socket.clone(),
            is_blocked: core.protocol.is_blocked(),
            is_ending: core.protocol.is_ending(),
            due: core.protocol.deadline(),
        })
    }

    /// Sends what was collected, or waited for the socket. True: it still waits.
    pub(crate) fn flush_rest(self: &Arc<Self>) -> bool {
        self.flush_rest_of(&mut self.lock())
    }

    /// The same, unless somebody has the lock.
    pub(crate) fn try_flush_rest(self: &Arc<Self>) -> Option<bool> {
        Some(self.flush_rest_of(&mut *self.try_lock()?))
    }

    fn flush_rest_of(self: &Arc<Self>, core: &mut Core) -> bool {
        let was_blocked = core.protocol.is_blocked();
        let blocked = (core.collected || was_blocked) && self.drain(core);
        if blocked && !was_blocked {
            core.deferred.post = Some(Within::Now); // or nobody would watch the socket of a connection with a thread
        }
        blocked
    }

    /// Whether there is something for the handler, and nobody calls it. If so, the caller has to see to it.
    pub(crate) fn claims_handler(&self) -> bool {
        self.claims(&mut self.inbox.locked())
    }

    fn claims(&self, inbox: &mut Inbox) -> bool {
        let has_something = !inbox.unhandled.is_empty() && !self.is_stuck() || inbox.over;
        let claims = has_something && !inbox.handling && self.handler().is_some();
        inbox.handling |= claims;
        claims
    }

    /// While the client does not take its answers, nothing more is answered: the socket will say when it does.
    pub(crate) fn is_stuck(&self) -> bool {
        self.is_blocked() && self.reason().is_none()
    }

    /// Whether the handler may be called for another message.
    pub(crate) fn is_answerable(&self) -> bool {
        !self.has_hung_up() && !self.is_stuck()
    }

    /// What there is for the handler next. Only for whoever has [claimed](Self::claims_handler) it; anything but messages
    /// ends that. What is left of the last batch is put back.
    pub(crate) fn next_batch(self: &Arc<Self>, rest: Rest) -> Batch<'_> {
        let Some(handler) = self.handler() else { return Batch::Nothing };
        let mut inbox = self.inbox.locked();
        inbox.put_back(rest.messages, rest.handled);
        if self.has_hung_up() {
            inbox.discard_unhandled();
        }
        self.count(&inbox);
        let mut tell = inbox.resumes(&self.context.limits);
        let is_stuck = self.is_stuck();
        inbox.handling = !is_stuck && !inbox.unhandled.is_empty();
        let batch = if is_stuck {
            tell = true; // it may take more by now
            Batch::Nothing
        } else if inbox.handling {
            Batch::Messages(handler, inbox.take_unhandled(BATCH))
        } else {
            tell |= inbox.release_end();
            if std::mem::take(&mut inbox.over) { Batch::End(handler) } else { Batch::Nothing }
        };
        if inbox.handling {
            drop(inbox);
        } else {
            self.wake_readers(inbox);
        }
        if tell {
            self.post(Within::Now);
        }
        batch
    }

    /// Puts back what is left of a batch; others have their turn first.
    pub(crate) fn put_back(&self, rest: Rest) {
        let mut inbox = self.inbox.locked();
        inbox.put_back(rest.messages, rest.handled);
        self.count(&inbox);
    }

    /// Leaves a message that the handler did not take to whoever reads: the one at this place of its batch.
    pub(crate) fn leave_unread(&self, message: Message, place: usize) {
        let mut inbox = self.inbox.locked();
        inbox.leave(message, place);
        self.count(&inbox);
        self.wake_readers(inbox);
    }

    /// The gateway flushes collected output from now on, if there is any and it does not yet.
    pub(crate) fn starts_flushing(&self) -> bool {
        self.mailbox.starts_flushing()
    }

    /// Whether output was collected since this was last asked.
    pub(crate) fn take_collected(&self) -> bool {
        self.mailbox.take_collected()
    }

    /// Output is still to be flushed that was found to be [collected](Self::take_collected).
    pub(crate) fn is_still_collected(&self) {
        self.mailbox.collect(); // who asked for it flushes
    }

    /// Its caller flushes in place of the gateway, until it [stops](Self::stops_flushing). False: the gateway does.
    pub(crate) fn flushes_itself(&self) -> bool {
        self.mailbox.flushes()
    }

    /// The gateway flushes no more, unless output was collected in the meantime.
    pub(crate) fn stops_flushing(&self) -> bool {
        self.mailbox.stops_flushing()
    }
}

/// The next messages, as far as there is room; and whether there are no others. The peer's end waits for them.
fn poll_batch(
    protocol: &mut Protocol,
    mut room: Room,
    hold: Hold,
    work: &mut Work,
    now: Moment,
) -> (Vec<Message>, bool) {
    let mut messages = Vec::new();
    while !room.is_none() && messages.len() < BATCH {
        let hold = if messages.is_empty() { hold } else { Hold::Answers };
        let Some(message) = protocol.poll(hold, work, now) else { return (messages, !work.is_done()) };
        let before = messages.len();
        messages.push(message);
        protocol.poll_short(&mut messages, room.messages - 1);
        messages[before..].iter().for_each(|message| room.take(message));
        work.messages(messages.len() - before);
    }
    (messages, false)
}

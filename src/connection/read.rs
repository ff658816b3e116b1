//! Reading: by a connection's own thread, which waits in `recv`, and from a shared connection, by any thread.

use std::{
    io::{self, ErrorKind::WouldBlock},
    sync::{
        Arc, MutexGuard,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use super::{inbox::Inbox, mailbox::Within, parts::Connection, receiver::Receiver, socket::Socket};
use crate::{
    buffered::MUCH,
    clock::Moment,
    codec::Work,
    deadline::Budget,
    error::{Error, Result},
    message::Message,
    protocol::Hold,
    sync::LockExt,
};

/// How long `read` waits where no other time is given (the default of IRIS).
pub const READ_TIMEOUT: Duration = Duration::from_secs(86_400);

/// How often a thread asks whether another one, which reads the same synchronous connection, has returned: rarer and rarer.
const SHORTEST_PAUSE: Duration = Duration::from_micros(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// What the thread of a connection does next.
enum Next {
    /// Take this message; others have come behind it.
    Message(Message, Vec<Message>),
    Receive(Arc<Socket>),
    /// Decode on: others may have had the lock in between.
    GoOn,
    /// Wait until the socket takes what has to be sent first.
    Send(Arc<Socket>),
    /// The connection has ended.
    End,
}

impl Connection {
    /// At most `len` characters or bytes of the next message, or of the rest of one; and whether they reach its end. An end of the
    /// connection waits until this `reader` reads on, or [ends its answer](Self::end_answering).
    pub(crate) fn read(
        self: &Arc<Self>,
        len: usize,
        timeout: Duration,
        reader: &AtomicBool,
    ) -> Result<(Message, bool)> {
        if self.about.shared {
            return self.take_shared(timeout, reader, |inbox| inbox.read(len));
        }
        let (mut inbox, timeout) = self.inbox_within(timeout)?;
        let received = self.read_received(&mut inbox, len);
        let is_new = received.is_none();
        let read = received.unwrap_or_else(|| {
            inbox.end_answering(reader);
            self.receives.store(true, Relaxed);
            self.read_own(&mut inbox, len, timeout)
        });
        if read.is_ok() {
            inbox.begin_answering(reader);
        }
        if is_new {
            self.receives.store(false, Relaxed);
            drop(inbox);
            self.be_watched();
            if self.reason().is_some() {
                self.leave_to_gateway();
            }
        }
        read
    }

    /// The inbox of a connection with a thread, and what is then left of the time. Another thread of the handler that reads
    /// has it for as long as it waits, the gateway for a moment.
    #[inline(always)] // for each message
    fn inbox_within(&self, timeout: Duration) -> Result<(MutexGuard<'_, Inbox>, Duration)> {
        match self.inbox.try_locked() {
            Some(inbox) => Ok((inbox, timeout)),
            None => self.await_inbox(timeout),
        }
    }

    #[inline(never)]
    fn await_inbox(&self, timeout: Duration) -> Result<(MutexGuard<'_, Inbox>, Duration)> {
        let mut budget = Budget::new(timeout);
        let mut pause = SHORTEST_PAUSE;
        loop {
            let left = budget.remaining();
            if let Some(inbox) = self.inbox.try_locked() {
                return Ok((inbox, left.unwrap_or_default()));
            }
            // Else it is being looked into, which takes no time that counts.
            let another_reads = !self.is_busy();
            if another_reads && left.is_none() {
                return Err(Error::Timeout);
            }
            thread::sleep(left.map_or(pause, |left| left.min(pause)));
            pause = if another_reads { LONGEST_PAUSE.min(pause * 2) } else { SHORTEST_PAUSE };
        }
    }

    /// This reader answers no more.
    pub(crate) fn end_answering(self: &Arc<Self>, reader: &AtomicBool) {
        let mut inbox = self.inbox.locked();
        inbox.end_answering(reader);
        let releases = inbox.release_end();
        drop(inbox);
        if releases {
            self.post(Within::Now);
        }
    }

    /// What was received before, or that nothing of it is wanted.
    #[inline(always)] // for each message
    fn read_received(&self, inbox: &mut Inbox, len: usize) -> Option<Result<(Message, bool)>> {
        if self.has_hung_up() {
            return Some(Err(self.closed()));
        }
        let piece = inbox.read(len)?;
        self.count_less(inbox);
        self.has_unread.store(!inbox.unread.is_empty(), Relaxed);
        Some(Ok(piece))
    }

    /// Waits for what the gateway receives, and takes it out of the inbox.
    #[inline(always)] // into each of its callers
    pub(super) fn take_shared<T>(
        self: &Arc<Self>,
        timeout: Duration,
        reader: &AtomicBool,
        take: impl Fn(&mut Inbox) -> Option<T>,
    ) -> Result<T> {
        let mut budget = Budget::new(timeout);
        let mut inbox = self.inbox.locked();
        inbox.end_answering(reader);
        loop {
            if self.has_hung_up() {
                return Err(self.closed());
            }
            if let Some(taken) = take(&mut inbox) {
                inbox.begin_answering(reader);
                self.count_less(&inbox);
                let tell = inbox.resumes(&self.context.limits);
                if !inbox.unread.is_empty() && inbox.waiting > 0 {
                    self.arrived.notify_one(); // there is something for another reader
                }
                drop(inbox);
                if tell {
                    self.post(Within::Now);
                }
                return Ok(taken);
            }
            // A handler may still leave a message for us.
            if inbox.complete && inbox.unhandled.is_empty() && !inbox.handling {
                return Err(self.closed());
            }
            if inbox.release_end() || !self.is_known.load(Relaxed) {
                self.post(Within::Now);
            }
            let Some(left) = budget.remaining() else { return Err(Error::Timeout) };
            inbox.waiting += 1;
            inbox = match self.arrived.wait_timeout(inbox, left) {
                Ok((inbox, _)) => inbox,
                Err(poisoned) => poisoned.into_inner().0,
            };
            inbox.waiting -= 1;
        }
    }

    /// For the connection's own thread.
    fn read_own(
        self: &Arc<Self>,
        inbox: &mut Inbox,
        len: usize,
        timeout: Duration,
    ) -> Result<(Message, bool)> {
        let mut budget = Budget::new(timeout);
        let mut is_last_look = false;
        loop {
            if let Some(read) = self.read_received(inbox, len) {
                return read;
            }
            if self.reason().is_some() {
                return Err(self.closed());
            }
            let receiver = inbox.receiver(&self.context.limits);
            let next = {
                let _turn = receiver.takes_turns().then(|| self.context.turns.wait());
                self.next(receiver)
            };
            match next {
                Next::Message(message, others) => {
                    let piece = inbox.read_first(message, others, len);
                    if inbox.bytes() >= MUCH {
                        self.count(inbox);
                    }
                    self.has_unread.store(!inbox.unread.is_empty(), Relaxed);
                    return Ok(piece);
                }
                Next::Receive(socket) => {
                    // When the time is up, what is there already is still taken, once: a client that never stops
                    // sending half messages cannot keep the call.
                    let received = match budget.remaining() {
                        Some(left) => receiver.receive(&socket, left),
                        None if is_last_look => return Err(Error::Timeout),
                        None => {
                            is_last_look = true;
                            receiver.try_receive(&socket)
                        }
                    };
                    let received = match received {
                        Err(e) if e.kind() == WouldBlock => self.handle_silence(receiver, &socket),
                        received => received,
                    };
                    self.received(received, Hold::Nothing);
                }
                Next::Send(socket) => {
                    if !self.wait_writable(&socket, budget.deadline())? {
                        return Err(Error::Timeout);
                    }
                }
                Next::GoOn | Next::End => {}
            }
        }
    }

    /// Takes in what was received, and polls the next message.
    fn next(self: &Arc<Self>, receiver: &mut Receiver) -> Next {
        let mut core = self.lock();
        let received = !receiver.buffer.is_empty();
        // Often neither: then what was received is polled, and the clock need not be read.
        if received || receiver.pause.is_none() || core.protocol.can_poll() {
            let now = self.now(&core);
            core.protocol.resume(now);
            if received {
                if core.protocol.is_measuring() {
                    receiver.pause = None; // the next ping is due, and no longer the pong
                }
                core.protocol.receive(&mut receiver.buffer, now);
            }
            let mut work = Work::piece();
            if let Some(message) = core.protocol.poll(Hold::Nothing, &mut work, now) {
                let mut others = Vec::new();
                core.protocol.poll_short(&mut others, usize::MAX);
                return Next::Message(message, others);
            }
            if work.is_done() {
                receiver.pause = None; // or it might not be polled again
                receiver.takes_long();
                return Next::GoOn;
            }
            if received || core.protocol.is_within_message() {
                // That it is not completed may be due first. Or what came was no message: then something else may be due that
                // waits for silence between messages, however often the client pings.
                receiver.pause = None;
            }
            if receiver.pause.is_none() {
                let due = core.protocol.deadline();
                receiver.pause = due.map(|due| due.since(now)); // where nothing is due, that may change with each message
            }
        }
        self.flush_or_post(&mut core);
        let Some(socket) = core.socket.clone().filter(|_| core.protocol.reason().is_none()) else {
            return Next::End;
        };
        if !core.protocol.wants_input() {
            return Next::Send(socket);
        }
        if receiver.buffer.capacity() == 0 {
            receiver.buffer = core.protocol.spare_buffer();
        }
        Next::Receive(socket)
    }

    /// Nothing came for a while: does what is due, unless something comes just now.
    fn handle_silence(self: &Arc<Self>, receiver: &mut Receiver, socket: &Socket) -> io::Result<usize> {
        // In this order, or what came while the process stood still would be judged late, and not read.
        let now = self.context.clock.exact();
        let received = receiver.try_receive(socket);
        if received.as_ref().is_err_and(|e| e.kind() == WouldBlock) {
            self.handle_timeout(now);
        }
        received
    }

    /// Does what is due at this time. What had come until then has been received.
    pub(crate) fn handle_timeout(self: &Arc<Self>, now: Moment) {
        let mut core = self.lock();
        core.protocol.handle_timeout(now);
        self.flush_or_post(&mut core);
    }
}

//! What a connection's lock guards: its protocol, and the socket that the protocol's bytes go to.
//!
//! The lock is held for microseconds: nothing here waits, and no user code is called.

use std::{io, sync::Arc};

use crossbeam_channel::Sender;

use super::{
    mailbox::Within,
    outbox::Outbox,
    socket::Socket,
    waiting::{Caller, Left, Waiting},
};
use crate::{
    clock::Clock,
    codec::{Compressing, Outgoing},
    limits::Limits,
    protocol::{Protocol, Transmit},
};

/// Answers are collected up to this size while more messages wait to be read.
const COLLECT: usize = 16 * 1024;

/// While more than this is unsent, what is in the outbox stays there.
const ENOUGH: usize = 64 * 1024;

#[derive(Debug)]
pub(crate) struct Core {
    pub(super) protocol: Protocol,
    /// `None` when the connection is over.
    pub(super) socket: Option<Arc<Socket>>,
    /// Output is held back on purpose; see [`collects`](Self::collects).
    pub(super) collected: bool,
    /// How often the output became empty: whoever added to it knows by this that it is sent.
    pub(super) emptied: u32,
    /// Messages taken from the outbox so far: whoever waits for its turn knows by this when it has come.
    pub(super) taken: u64,
    /// Those whose pushes wait until they are sent; mostly nobody.
    pub(super) waiting: Option<Box<Waiting>>,
    /// How many have waited so far.
    pub(super) callers: u32,
    pub(super) deferred: Deferred,
    /// Its own thread sees to the connection's end, and keeps the time for it.
    pub(super) ended_by_thread: bool,
    /// The system keeps it alive.
    keeps_alive: bool,
}

/// What is to be done when the lock is free.
#[derive(Debug, Default)]
pub(crate) struct Deferred {
    /// A message is to be compressed.
    pub(super) compressing: Option<Box<Compressing>>,
    /// The gateway has to look at the connection.
    pub(super) post: Option<Within>,
    /// The connection has ended, or is about to: those who wait have to be told.
    pub(super) ended: bool,
}

impl Deferred {
    pub(super) fn take(&mut self) -> Option<Self> {
        let is_empty = self.compressing.is_none() && self.post.is_none() && !self.ended;
        (!is_empty).then(|| std::mem::take(self))
    }
}

impl Core {
    pub(super) fn new(protocol: Protocol, socket: Arc<Socket>) -> Self {
        Self {
            protocol,
            socket: Some(socket),
            collected: false,
            emptied: 0,
            taken: 0,
            waiting: None,
            callers: 0,
            deferred: Deferred::default(),
            ended_by_thread: false,
            keeps_alive: false,
        }
    }

    /// Nothing is received for now. Pings would not be answered: the system finds out whether the peer is still there.
    pub(super) fn pause(&mut self, limits: &Limits) {
        self.protocol.pause();
        if let (Some(socket), Some(interval), false) = (&self.socket, limits.ping_interval, self.keeps_alive)
        {
            socket.keep_alive(interval, limits.ping_timeout);
            self.keeps_alive = true;
        }
    }

    /// Appends a message to the output. It can be sent, and nothing is before it.
    pub(super) fn send(&mut self, outgoing: Outgoing) {
        self.deferred.compressing = self.protocol.send(outgoing);
    }

    /// Whether what was just appended may wait for the answers to the messages that have already arrived: those that the
    /// codec holds, or `more` elsewhere.
    ///
    /// Sent together they cost one call; see the crate's documentation on flushing.
    pub(super) fn collects(&mut self, more: bool) -> bool {
        self.collected = !self.protocol.is_blocked()
            && !self.protocol.is_compressing()
            && (more || self.protocol.has_whole_message())
            && self.protocol.pending() < COLLECT;
        self.collected
    }

    /// Sends what is pending, as far as the socket takes it. True: it did not take all.
    pub(super) fn flush(&mut self, clock: &Clock) -> bool {
        self.collected = false;
        let Some(socket) = &self.socket else { return false };
        loop {
            match self.protocol.transmit() {
                Transmit::Nothing => return false,
                Transmit::End => socket.shutdown_write(),
                Transmit::Bytes(parts) => match socket.try_send_parts(parts) {
                    Ok(n) => {
                        self.protocol.sent(n, clock.coarse());
                        self.emptied = self.emptied.wrapping_add(u32::from(self.protocol.pending() == 0));
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        self.protocol.refused(clock.coarse());
                        return true;
                    }
                    Err(e) => self.protocol.send_failed(&e.to_string(), clock.coarse()),
                },
            }
        }
    }

    /// Sends the output, and then the outbox, piece by piece, as far as the socket takes it. True: it did not take all.
    pub(super) fn drain(&mut self, outbox: Option<&Outbox>, clock: &Clock) -> bool {
        loop {
            if self.flush(clock) {
                return true;
            }
            if self.protocol.is_compressing() {
                return false;
            }
            if self.protocol.owes_close() {
                let took = self.fill(|core| core.send_queued(outbox));
                if !self.protocol.is_compressing() && outbox.is_none_or(Outbox::is_empty) {
                    self.protocol.complete_close();
                } else if !took {
                    return false;
                }
                continue;
            }
            if outbox.is_none() && self.waiting.is_none() {
                return false;
            }
            if self.protocol.check_sendable().is_err() {
                outbox.inspect(|outbox| outbox.clear());
                return false;
            }
            if !self.fill(|core| core.send_next(outbox)) {
                return false;
            }
        }
    }

    /// Appends messages to the output, as long as that is not enough and there are any. False: there was none.
    fn fill(&mut self, send_next: impl Fn(&mut Self) -> bool) -> bool {
        let mut some = false;
        while self.deferred.compressing.is_none() && self.protocol.pending() < ENOUGH && send_next(self) {
            some = true;
        }
        some
    }

    /// Appends the next message of all that are queued. False: there is none.
    fn send_next(&mut self, outbox: Option<&Outbox>) -> bool {
        self.send_waiting(self.taken) || self.send_queued(outbox) || self.send_waiting(u64::MAX) // what was before it was taken by somebody else, and thrown away
    }

    /// Appends the next message of the outbox; a close frame that waits for those waits for no others. False: there is none.
    fn send_queued(&mut self, outbox: Option<&Outbox>) -> bool {
        let Some(outgoing) = outbox.and_then(Outbox::take) else { return false };
        self.send(outgoing);
        self.taken += 1;
        true
    }

    // Those who wait until their message is sent.

    pub(super) fn wait_in_queue(&mut self, outgoing: Outgoing, sent: Sender<()>, in_outbox: u64) -> u32 {
        let (number, turn) = (self.callers, self.taken + in_outbox);
        self.callers = number.wrapping_add(1);
        self.waiting.get_or_insert_default().put(outgoing, turn, Caller { number, sent });
        number
    }

    pub(super) fn leave_queue(&mut self, number: u32) -> Left {
        self.waiting.as_mut().map_or(Left::Nowhere, |waiting| waiting.leave(number))
    }

    pub(super) fn take_back(&mut self, number: u32) -> bool {
        self.waiting.as_mut().is_some_and(|waiting| waiting.take_back(number))
    }

    pub(super) fn has_queue(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.has_queue())
    }

    /// Appends the next message whose caller waits, if so many taken from the outbox make it its turn. False: there is none.
    fn send_waiting(&mut self, taken: u64) -> bool {
        let next = self.waiting.as_mut().and_then(|waiting| waiting.take(taken));
        let Some((outgoing, caller)) = next else { return false };
        self.send(outgoing);
        let end = self.end_of_output();
        if let Some(waiting) = &mut self.waiting {
            match self.deferred.compressing {
                Some(_) => waiting.lend(caller),
                None => waiting.send(caller, self.emptied, end),
            }
        }
        true
    }

    /// The compressor is back: its message goes into the output, if it can still be sent.
    pub(super) fn compressed(&mut self, compressed: Compressing) {
        let is_sendable = self.protocol.check_sendable().is_ok();
        self.protocol.compressed(compressed);
        let end = self.end_of_output();
        if let Some(waiting) = &mut self.waiting {
            waiting.bring_back(self.emptied, end, is_sendable);
        }
    }

    /// How many bytes the kernel will have taken when it has all of the output. That is exact, also over TLS: a record that the
    /// peer has not got wholly is lost wholly, and with it each message that has its end there.
    fn end_of_output(&mut self) -> u64 {
        self.protocol.seal();
        self.protocol.counts().bytes_out + self.protocol.pending() as u64
    }

    /// Tells those whose message was sent, or never will be.
    pub(super) fn tell_waiting(&mut self) {
        let Some(waiting) = &mut self.waiting else { return };
        waiting.tell_sent(self.emptied);
        if self.protocol.check_sendable().is_err() {
            waiting.give_up();
            // What is in the output may still go out, before the close frame.
            if self.protocol.is_over() || self.protocol.pending() == 0 {
                waiting.give_up_output(self.protocol.counts().bytes_out);
            }
        }
        if waiting.is_empty() {
            self.waiting = None;
        }
    }
}

//! Pushes whose callers wait until the kernel has the message, or want to know whether it has.
//!
//! They do not drive the connection: each message has its place among those in the outbox, whoever sends those sends it as
//! well, and its caller is told. So none is overtaken, and a caller holds no lock. One that gives up takes its message back
//! if that is still here.
//!
//! The messages do not count for the bounds of the queue. There are no more of them than threads that wait, and than a client that
//! reconnects has in its own queue.

use std::collections::VecDeque;

use crossbeam_channel::Sender;

use crate::codec::Outgoing;

/// Those who wait at one connection.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Whose message is not in the output yet, in order.
    queue: VecDeque<Queued>,
    /// Whose message is being compressed.
    compressing: Option<Caller>,
    /// Whose message is in the output, in order.
    output: Vec<Sending>,
}

#[derive(Debug)]
struct Queued {
    /// When so many messages were taken from the outbox, it is its turn.
    turn: u64,
    outgoing: Outgoing,
    caller: Caller,
}

/// A message in the output.
#[derive(Debug)]
struct Sending {
    /// How often the output was empty before.
    emptied: u32,
    /// When the kernel has taken so many bytes in all, it may have the whole message.
    end: u64,
    caller: Caller,
}

/// Told when the kernel has the message; dropped where it never will.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) number: u32,
    pub(super) sent: Sender<()>,
}

impl Caller {
    fn tell(&self) {
        let _ = self.sent.send(()); // it has room for that, or nobody wants to know any more
    }
}

/// Where the message of a caller was that has given up.
pub(super) enum Left {
    /// It was not touched.
    Queue,
    /// A part of it may be out, and the rest will follow.
    Output,
    /// The caller was told already.
    Nowhere,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.compressing.is_none() && self.output.is_empty()
    }

    pub(super) fn has_queue(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Queues a message. It is its turn when so many were taken from the outbox.
    pub(super) fn put(&mut self, outgoing: Outgoing, turn: u64, caller: Caller) {
        self.queue.push_back(Queued { turn, outgoing, caller });
    }

    /// The next message, if so many taken from the outbox make it its turn.
    pub(super) fn take(&mut self, taken: u64) -> Option<(Outgoing, Caller)> {
        self.queue.front().filter(|queued| queued.turn <= taken)?;
        self.queue.pop_front().map(|queued| (queued.outgoing, queued.caller))
    }

    /// This caller's message is being compressed.
    pub(super) fn lend(&mut self, caller: Caller) {
        self.compressing = Some(caller);
    }

    /// The message that was being compressed, if its caller waits, is in the output now, as the last one, or cannot be sent any
    /// more.
    pub(super) fn bring_back(&mut self, emptied: u32, end: u64, is_sendable: bool) {
        if let Some(caller) = self.compressing.take().filter(|_| is_sendable) {
            self.send(caller, emptied, end);
        }
    }

    /// This caller's message is in the output, as the last one: that was empty so often before, and the kernel has the message when
    /// it has taken so many bytes in all.
    pub(super) fn send(&mut self, caller: Caller, emptied: u32, end: u64) {
        self.output.push(Sending { emptied, end, caller });
    }

    /// Tells those whose message was sent, since the output was empty so often by now.
    pub(super) fn tell_sent(&mut self, emptied: u32) {
        self.output.retain(|sending| {
            let is_sent = sending.emptied != emptied;
            if is_sent {
                sending.caller.tell();
            }
            !is_sent
        });
    }

    /// Nothing can be sent any more, but perhaps what is in the output.
    pub(super) fn give_up(&mut self) {
        self.queue.clear();
        self.compressing = None;
    }

    /// What is in the output is gone. The kernel has taken so many bytes in all: it has some of the messages although the output was
    /// never empty again.
    pub(super) fn give_up_output(&mut self, taken: u64) {
        for Sending { end, caller, .. } in self.output.drain(..) {
            if end <= taken {
                caller.tell();
            }
        }
    }

    /// Takes this caller's message back, if it was not touched.
    pub(super) fn take_back(&mut self, number: u32) -> bool {
        let at = self.queue.iter().position(|queued| queued.caller.number == number);
        at.is_some_and(|at| self.queue.remove(at).is_some())
    }

    /// This caller waits no more.
    pub(super) fn leave(&mut self, number: u32) -> Left {
        if self.take_back(number) {
            return Left::Queue;
        }
        let before = self.output.len();
        self.output.retain(|sending| sending.caller.number != number);
        let was_compressing = self.compressing.take_if(|caller| caller.number == number).is_some();
        if was_compressing || self.output.len() < before { Left::Output } else { Left::Nowhere }
    }
}

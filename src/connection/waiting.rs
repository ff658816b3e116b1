//! Pushes whose callers wait until the kernel has the message.
//!
//! They do not drive the connection: each message has its place among those in the outbox, whoever sends those sends it as
//! well, and its caller is told. So none is overtaken, and a caller holds no lock. One that gives up takes its message back
//! if that is still here.
//!
//! The messages do not count for the bounds of the queue. There are no more of them than threads that wait.

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
    /// Whose message is in the output, which was empty so often before.
    output: Vec<(u32, Caller)>,
}

#[derive(Debug)]
struct Queued {
    /// When so many messages were taken from the outbox, it is its turn.
    turn: u64,
    outgoing: Outgoing,
    caller: Caller,
}

/// Told when the kernel has the message; dropped where it never will.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) number: u32,
    pub(super) sent: Sender<()>,
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

    /// The message that was being compressed, if its caller waits, is in the output now, or cannot be sent any more.
    pub(super) fn bring_back(&mut self, emptied: u32, is_sendable: bool) {
        if let Some(caller) = self.compressing.take().filter(|_| is_sendable) {
            self.output.push((emptied, caller));
        }
    }

    /// This caller's message is in the output, which was empty so often before.
    pub(super) fn send(&mut self, caller: Caller, emptied: u32) {
        self.output.push((emptied, caller));
    }

    /// Tells those whose message was sent, since the output was empty so often by now.
    pub(super) fn tell_sent(&mut self, emptied: u32) {
        self.output.retain(|(before, caller)| {
            let is_sent = *before != emptied;
            if is_sent {
                let _ = caller.sent.send(()); // it has room for one, and nobody else sends
            }
            !is_sent
        });
    }

    /// Nothing can be sent any more, but perhaps what is in the output.
    pub(super) fn give_up(&mut self, output_is_gone: bool) {
        self.queue.clear();
        self.compressing = None;
        if output_is_gone {
            self.output.clear();
        }
    }

    /// This caller waits no more.
    pub(super) fn leave(&mut self, number: u32) -> Left {
        if let Some(at) = self.queue.iter().position(|queued| queued.caller.number == number) {
            self.queue.remove(at);
            return Left::Queue;
        }
        let before = self.output.len();
        self.output.retain(|(_, caller)| caller.number != number);
        let was_compressing = self.compressing.take_if(|caller| caller.number == number).is_some();
        if was_compressing || self.output.len() < before { Left::Output } else { Left::Nowhere }
    }
}

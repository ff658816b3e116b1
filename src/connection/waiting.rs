//! Pushes whose callers wait until the kernel has the message.
//!
//! They do not drive the connection: each message has its place among those in the outbox, whoever sends those sends it as
//! well, and its caller is told. So none is overtaken, and a caller holds no lock. One that gives up takes its message back
//! if that is still here.
//!
//! The messages do not count for the bounds of the queue. There are no more of them than threads that wait.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};

use super::{
    core::Core,
    mailbox::Within,
    outbox::{PushError, PushErrorKind},
    parts::Connection,
};
use crate::{codec::Outgoing, message::Message, thread};

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
struct Caller {
    number: u32,
    sent: Sender<()>,
}

/// Where the message of a caller was that has given up.
enum Left {
    /// It was not touched.
    Queue,
    /// A part of it may be out, and the rest will follow.
    Output,
    /// The caller was told already.
    Nowhere,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.compressing.is_none() && self.output.is_empty()
    }

    fn leave(&mut self, number: u32) -> Left {
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

impl Connection {
    /// Sends one message, and waits until the kernel has it.
    ///
    /// # Errors
    /// Why it has not. With any but [`PushErrorKind::Pending`] the message is never sent.
    pub(crate) fn push_wait(self: &Arc<Self>, message: Message, timeout: Duration) -> Result<(), PushError> {
        self.try_push_wait(&message, timeout).map_err(|kind| PushError { kind, message })
    }

    fn try_push_wait(self: &Arc<Self>, message: &Message, timeout: Duration) -> Result<(), PushErrorKind> {
        if thread::must_not_wait() {
            return Err(PushErrorKind::MustNotWait);
        }
        if self.reason().is_some() {
            return Err(PushErrorKind::Closed(self.closed_reason()));
        }
        let outgoing = self.prepare(message.clone(), None);
        let (sent, told) = bounded(1);
        let mut core = self.lock();
        core.protocol.check_sendable().map_err(PushErrorKind::Closed)?;
        let in_outbox = self.outbox.get().map_or(0, |outbox| outbox.len() as u64);
        let number = core.wait_in_queue(outgoing, sent, in_outbox);
        if self.drain(&mut core) {
            core.deferred.post = Some(Within::Now); // from now on the gateway sends
        }
        drop(core);
        match told.recv_timeout(timeout) {
            Ok(()) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => Err(PushErrorKind::Closed(self.why_unsendable())),
            Err(RecvTimeoutError::Timeout) => {
                let left = self.lock().leave_queue(number);
                match left {
                    Left::Queue => Err(PushErrorKind::Timeout),
                    Left::Output => Err(PushErrorKind::Pending),
                    Left::Nowhere => told.recv().map_err(|_| PushErrorKind::Closed(self.why_unsendable())),
                }
            }
        }
    }

    /// The last thing under the lock, where somebody waits: what can be sent is, and those who have waited long enough are told.
    #[inline(never)]
    pub(super) fn serve_waiting(&self, core: &mut Core) {
        if core.has_queue()
            && !core.protocol.is_blocked()
            && !core.protocol.is_compressing()
            && self.drain(core)
        {
            core.deferred.post = Some(Within::Now);
        }
        core.tell_waiting();
    }
}

impl Core {
    fn wait_in_queue(&mut self, outgoing: Outgoing, sent: Sender<()>, in_outbox: u64) -> u32 {
        let turn = self.taken + in_outbox;
        let number = self.callers;
        self.callers = number.wrapping_add(1);
        let waiting = self.waiting.get_or_insert_default();
        waiting.queue.push_back(Queued { turn, outgoing, caller: Caller { number, sent } });
        number
    }

    fn leave_queue(&mut self, number: u32) -> Left {
        self.waiting.as_mut().map_or(Left::Nowhere, |waiting| waiting.leave(number))
    }

    fn has_queue(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| !waiting.queue.is_empty())
    }

    /// Appends the next message whose caller waits, if so many taken from the outbox make it its turn. False: there is none.
    pub(super) fn send_waiting(&mut self, taken: u64) -> bool {
        let Some(waiting) = &mut self.waiting else { return false };
        if waiting.queue.front().is_none_or(|queued| queued.turn > taken) {
            return false;
        }
        let Some(queued) = waiting.queue.pop_front() else { return false };
        self.send(queued.outgoing);
        let Some(waiting) = &mut self.waiting else { return false };
        if self.deferred.compressing.is_some() {
            waiting.compressing = Some(queued.caller);
        } else {
            waiting.output.push((self.emptied, queued.caller));
        }
        true
    }

    /// The compressor is back: its message goes into the output, if it can still be sent.
    pub(super) fn waiting_compressed(&mut self) {
        let is_sendable = self.protocol.check_sendable().is_ok() || self.protocol.owes_close();
        if let Some(waiting) = &mut self.waiting
            && let Some(caller) = waiting.compressing.take()
            && is_sendable
        {
            waiting.output.push((self.emptied, caller));
        }
    }

    /// Tells those whose message was sent, or never will be.
    fn tell_waiting(&mut self) {
        let Some(waiting) = &mut self.waiting else { return };
        let emptied = self.emptied;
        waiting.output.retain(|(before, caller)| {
            let is_sent = *before != emptied;
            if is_sent {
                let _ = caller.sent.send(()); // it has room for one, and nobody else sends
            }
            !is_sent
        });
        if self.protocol.check_sendable().is_err() {
            waiting.queue.clear();
            if !self.protocol.owes_close() {
                waiting.compressing = None;
            }
            // What is in the output may still go out, before the close frame.
            if self.protocol.is_over() || self.protocol.pending() == 0 {
                waiting.output.clear();
            }
        }
        if waiting.is_empty() {
            self.waiting = None;
        }
    }
}

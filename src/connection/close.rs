//! How a connection ends: by a close, by its own thread, or at once; and the last step of all.

use std::{
    io::{self, ErrorKind::WouldBlock},
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use super::parts::Connection;
use crate::{
    codec::Work,
    deadline::{Budget, Deadline},
    error::ClosedBy,
    message::CloseCode,
    protocol::Hold,
    sync::{LockExt, wait},
};

/// The gateway comes this much later than the close timeout, at most.
const GRACE: Duration = Duration::from_secs(1);

impl Connection {
    /// Starts the closing handshake, unless the connection has ended already. What was pushed before goes before.
    pub(crate) fn close(self: &Arc<Self>, code: CloseCode, text: &str) {
        let mut core = self.lock();
        let now = self.context.clock.exact();
        if core.protocol.is_compressing() || !self.outbox_is_empty() {
            // It stays where it is, perhaps shared with other connections, until the socket takes it.
            core.protocol.close_behind(code, text, now);
        } else {
            core.protocol.close(code, text, now);
        }
        self.drain_or_post(&mut core);
    }

    /// Ends the connection of a client that is too slow: what is queued is dropped, the close frame goes behind what is half
    /// sent.
    pub(super) fn disconnect(self: &Arc<Self>, code: CloseCode, text: &str) {
        // Not `close`, whose frame comes behind a message that is being compressed: nothing that was queued is wanted.
        let mut core = self.lock();
        core.protocol.close(code, text, self.context.clock.exact());
        // Not before that: what comes later would find room, and be sent without what was before it.
        if let Some(outbox) = self.outbox.get() {
            outbox.clear();
        }
        self.flush_or_post(&mut core);
    }

    /// Ends the connection at once. Whoever drives it learns of it.
    pub(crate) fn abort(self: &Arc<Self>, by: ClosedBy, why: &'static str) {
        self.lock().protocol.abort(by, why);
    }

    /// Completes the end on the connection's own thread, with 1000 if it has not begun: closing handshake, half-close,
    /// drain, all within the close timeout. Afterwards the socket is closed.
    pub(crate) fn conclude(self: &Arc<Self>) {
        self.lock().ended_by_thread = true;
        self.close(CloseCode::NORMAL, "");
        self.receives.store(true, Relaxed);
        let mut inbox = self.inbox.locked();
        let receiver = inbox.receiver(&self.context.limits);
        let mut budget = Budget::new(self.context.limits.close_timeout);
        let mut ended = false; // the client's side; ours may have something to send
        while let Some(left) = budget.remaining() {
            let mut core = self.lock();
            let now = self.context.clock.coarse();
            if !receiver.buffer.is_empty() {
                core.protocol.receive(&mut receiver.buffer, now);
            }
            let mut work = Work::piece();
            while core.protocol.poll(Hold::Nothing, &mut work, now).is_some() {}
            let blocked = self.drain(&mut core);
            let socket = core.socket.clone().filter(|_| !core.protocol.is_over());
            drop(core);
            let Some(socket) = socket else { break };
            if work.is_done() {
                continue;
            }
            let received = match (blocked, ended) {
                (true, true) => socket.wait_writable(budget.deadline()).and(Err(WouldBlock.into())),
                (true, false) => {
                    socket.wait_either(budget.deadline()).and_then(|_| receiver.try_receive(&socket))
                }
                (false, _) => receiver.receive(&socket, left),
            };
            ended |= matches!(received, Ok(0));
            self.received(received, Hold::Nothing);
        }
        drop(inbox);
        self.finish();
    }

    /// Closes a client's connection that nobody will read from any more, with 1000 if that has not begun. The gateway does the rest.
    pub(crate) fn release(self: &Arc<Self>, reader: &AtomicBool) {
        self.close(CloseCode::NORMAL, "");
        let mut inbox = self.inbox.locked();
        inbox.end_answering(reader);
        inbox.discard();
        self.count(&inbox);
        drop(inbox);
        self.leave_to_gateway();
    }

    /// Waits until the last step of its end is done, which the gateway sees to.
    pub(crate) fn wait_finished(&self) {
        let deadline = Deadline::after(self.context.limits.close_timeout.saturating_add(GRACE));
        let mut inbox = self.inbox.locked();
        inbox.waiting += 1;
        while !self.is_finished()
            && let Some(left) = deadline.remaining()
        {
            inbox = wait(&self.arrived, inbox, left);
        }
        inbox.waiting -= 1;
    }

    /// Whether the connection is over.
    #[cfg(test)]
    pub(crate) fn is_over(self: &Arc<Self>) -> bool {
        self.lock().protocol.is_over()
    }

    /// Whether the last step of its end is done, or just about to be.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished.load(SeqCst)
    }

    /// What came of receiving; bytes are still to be taken in. An end has to wait for what `hold` says.
    pub(super) fn received(self: &Arc<Self>, received: io::Result<usize>, hold: Hold) {
        match received {
            Ok(0) => {
                let mut core = self.lock();
                core.protocol.receive_end(hold, self.context.clock.coarse());
                self.flush_or_post(&mut core);
            }
            Ok(_) => {}
            Err(e) if e.kind() == WouldBlock => {}
            Err(e) => self.lock().protocol.receive_failed(&e.to_string()),
        }
    }

    /// The last step: whatever the state, the socket is closed, and all buffers are given back. Handles may outlive it.
    pub(crate) fn finish(self: &Arc<Self>) {
        self.abort(ClosedBy::Network, "cut off");
        if let Some(outbox) = self.outbox.get() {
            outbox.clear();
        }
        if self.finished.swap(true, SeqCst) {
            return;
        }
        self.context.registrar.unregister(self);
        let mut inbox = self.inbox.locked();
        inbox.end();
        // What may still be read is with whoever has a handle.
        self.held_by_inbox.set(0, &self.context.buffered);
        self.wake_readers(inbox);
    }
}

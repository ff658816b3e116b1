//! What is done to the core under its lock, and before and after that is let go: output goes out, as far as the socket takes it, and
//! what the protocol has come to is made known.

use std::sync::{
    Arc,
    atomic::Ordering::{Relaxed, SeqCst},
};

use super::{
    core::{Core, Deferred},
    lock::{Guard, Lock, Owner, lock, try_lock},
    mailbox::Within,
    parts::Connection,
};
use crate::{
    clock::Moment,
    codec::{Compressing, Role},
    limits::LONGEST_TICK,
    sync::LockExt,
};

impl Connection {
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
        if let Some(round_trip) = core.protocol.take_measured() {
            self.context.registrar.measured(round_trip);
        }
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
        if self.is_driven() {
            core.deferred.post = Some(Within::Now);
        } else if core.protocol.is_ending() && !core.ended_by_thread {
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

//! Writing: by whoever wants to wait for a slow client, and by handlers that must not.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use super::{
    core::Core,
    lock::Guard,
    mailbox::Within,
    outbox::{PushError, PushErrorKind},
    parts::Connection,
    socket::Socket,
};
use crate::{
    codec::Outgoing,
    deadline::{Budget, Deadline},
    error::{ClosedBy, Error, Result},
    message::Message,
    protocol::TOO_SLOW,
};

/// A thread that writes looks so often, at most, for what arrived.
const LOOKS: usize = 16;

type CoreGuard<'a> = Guard<'a, Arc<Connection>>;

/// What has to be waited for before a message can be sent.
enum Obstacle {
    /// Others are before it, and the socket takes no more.
    Socket(Arc<Socket>),
    /// Another message is being compressed, which goes first.
    Compressing,
}

impl Connection {
    /// Sends one message. Returns when the kernel has it, or when it is collected with other answers; with `more`, with those that are
    /// about to be written.
    pub(crate) fn write(self: &Arc<Self>, message: Message, more: bool) -> Result<()> {
        if self.look_is_due.load(Relaxed) {
            // All that was written is sent, so nothing is in the way now. Later there will be another look.
            let _ = (0..LOOKS).all(|_| self.receive_while_busy() == Some(true));
        }
        let outgoing = self.prepare(message, None);
        let mut budget = Budget::new(self.context.limits.write_timeout);
        let mut turn = None;
        loop {
            let mut core = self.lock();
            core.protocol.check_sendable().map_err(Error::Closed)?;
            let obstacle = self.obstacle(&mut core, &mut turn)?;
            let in_time = match obstacle {
                None => return self.write_next(core, outgoing, more, budget),
                Some(Obstacle::Socket(socket)) => {
                    drop(core);
                    self.wait_writable(&socket, budget.deadline())?
                }
                Some(Obstacle::Compressing) => {
                    drop(core);
                    self.wait_compressed(budget.deadline())
                }
            };
            if !in_time {
                return Err(self.is_too_slow());
            }
        }
    }

    /// What is in the way of a message. Its turn comes when so many messages were taken from the outbox.
    fn obstacle(&self, core: &mut Core, turn: &mut Option<u64>) -> Result<Option<Obstacle>> {
        if core.protocol.is_compressing() {
            return Ok(Some(Obstacle::Compressing));
        }
        if !core.protocol.is_blocked() && self.outbox_is_empty() {
            return Ok(None);
        }
        let waiting = self.outbox.get().map_or(0, |outbox| outbox.len() as u64);
        let turn = *turn.get_or_insert(core.taken + waiting);
        let blocked = self.drain(core);
        core.protocol.check_sendable().map_err(Error::Closed)?;
        if core.protocol.is_compressing() {
            return Ok(Some(Obstacle::Compressing));
        }
        let is_behind = blocked && core.taken < turn;
        Ok(core.socket.clone().filter(|_| is_behind).map(Obstacle::Socket))
    }

    /// Sends a message that nothing is in the way of.
    fn write_next(
        self: &Arc<Self>,
        mut core: CoreGuard<'_>,
        outgoing: Outgoing,
        more: bool,
        mut budget: Budget,
    ) -> Result<()> {
        core.send(outgoing);
        if core.collects(more || self.has_unread.load(Relaxed)) {
            drop(core);
            self.tell_collected();
            return Ok(());
        }
        let emptied = core.emptied;
        let waits = self.flush(&mut core);
        if core.deferred.compressing.is_some() {
            drop(core);
            return self.wait_all_sent(budget.deadline());
        }
        if core.emptied == emptied {
            core.protocol.check_sendable().map_err(Error::Closed)?;
        }
        drop(core);
        if waits { self.wait_sent(emptied, budget.deadline()) } else { Ok(()) }
    }

    /// Sends one message of a handler that is called for each message, and never waits: what the socket does not take
    /// is queued. While `more` messages wait for the handler, its answers are collected.
    pub(crate) fn post_message(self: &Arc<Self>, message: Message, more: bool) -> Result<()> {
        let outgoing = self.prepare(message, None);
        let mut core = self.lock();
        core.protocol.check_sendable().map_err(Error::Closed)?;
        let is_next = !core.protocol.is_blocked() && !core.protocol.is_compressing();
        if !is_next || !self.outbox_is_empty() {
            drop(core);
            return match self.push_outgoing(outgoing, None, false) {
                Ok(_) => Ok(()),
                Err(PushError { kind: PushErrorKind::Full, .. }) => Err(Error::QueueFull),
                Err(PushError { kind: PushErrorKind::Closed(reason), .. }) => Err(Error::Closed(reason)),
                Err(_) => Err(self.closed()),
            };
        }
        core.send(outgoing);
        if core.collects(more) {
            drop(core);
            self.tell_collected();
        } else if self.flush(&mut core) {
            // The gateway watches the socket, but may have seen it take more before it saw that this is awaited.
            core.deferred.post = Some(Within::Now);
        }
        Ok(())
    }

    /// Sends what was collected, as far as the socket takes it. The gateway sends the rest.
    pub(crate) fn flush_some(self: &Arc<Self>) -> Result<()> {
        let mut core = self.lock();
        core.protocol.check_sendable().map_err(Error::Closed)?;
        if self.flush(&mut core) {
            core.deferred.post = Some(Within::Now);
        }
        Ok(())
    }

    /// Sends what was collected. Returns when the kernel has all of it.
    pub(crate) fn flush_all(self: &Arc<Self>) -> Result<()> {
        self.wait_all_sent(Deadline::after(self.context.limits.write_timeout))
    }

    /// Sends all that is in the output now, and waits for that.
    fn wait_all_sent(self: &Arc<Self>, deadline: Deadline) -> Result<()> {
        let mut core = self.lock();
        core.protocol.check_sendable().map_err(Error::Closed)?;
        let emptied = core.emptied;
        let blocked = self.flush(&mut core);
        drop(core);
        if !blocked {
            return Ok(());
        }
        self.wait_sent(emptied, deadline)
    }

    /// Waits, without the lock, until the output was empty once more than so often.
    fn wait_sent(self: &Arc<Self>, emptied: u32, deadline: Deadline) -> Result<()> {
        let mut in_time = true;
        loop {
            let mut core = self.lock();
            self.flush(&mut core);
            // An end that came after our bytes were sent does not concern them.
            if core.emptied != emptied {
                return Ok(());
            }
            core.protocol.check_sendable().map_err(Error::Closed)?;
            let compresses = core.protocol.is_compressing();
            let Some(socket) = core.socket.clone() else { return Err(self.closed()) };
            drop(core);
            if !in_time {
                return Err(self.is_too_slow());
            }
            in_time = if compresses {
                self.wait_compressed(deadline)
            } else {
                self.wait_writable(&socket, deadline)?
            };
        }
    }

    /// Waits until the socket takes more. False: the time was up. A socket that cannot be waited for ends the connection.
    pub(super) fn wait_writable(self: &Arc<Self>, socket: &Socket, deadline: Deadline) -> Result<bool> {
        socket.wait_writable(deadline).map_err(|e| {
            self.lock().protocol.abort(ClosedBy::Network, &e.to_string());
            self.closed()
        })
    }

    /// Waits until the compressor is back. False: the time was up.
    pub(super) fn wait_compressed(self: &Arc<Self>, deadline: Deadline) -> bool {
        let Some(left) = deadline.remaining() else { return false };
        let core = self.lock();
        if core.protocol.is_compressing() {
            core.wait(&self.compressed, left);
        }
        true
    }

    /// A part of a frame may be out: nothing else can follow.
    fn is_too_slow(self: &Arc<Self>) -> Error {
        self.abort(self.us(), TOO_SLOW);
        Error::Timeout
    }

    /// The gateway sends what is collected within a millisecond, whatever the handler does next.
    pub(super) fn tell_collected(self: &Arc<Self>) {
        if self.mailbox.collect() {
            self.post(Within::Millisecond);
        }
    }
}

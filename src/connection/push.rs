//! Pushing: sending from any thread, which does not wait for the client unless it wants to.

use std::{sync::Arc, time::Duration};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::{
    core::Core,
    mailbox::Within,
    outbox::{Outbox, Overflow, PushError, PushErrorKind, Pushed},
    parts::Connection,
    waiting::Left,
};
use crate::{
    codec::{Forms, Outgoing},
    error::CloseReason,
    message::{CloseCode, Message},
    thread,
};

/// Why a connection is closed whose queue is full.
pub(crate) const QUEUE_OVERFLOWED: &str = "too slow";

impl Connection {
    /// Sends one message from any thread, and never waits for the network. A message that goes to others, too, comes with
    /// its compressed `forms`; one that a newer one may replace, with the key of both.
    pub(crate) fn push(
        self: &Arc<Self>,
        message: Message,
        forms: Option<&Forms>,
        key: Option<&Arc<str>>,
    ) -> Result<Pushed, PushError> {
        self.push_before(message, forms, key, false)
    }

    /// The same; with `more`, of what another push follows at once: they may be sent together.
    pub(crate) fn push_before(
        self: &Arc<Self>,
        message: Message,
        forms: Option<&Forms>,
        key: Option<&Arc<str>>,
        more: bool,
    ) -> Result<Pushed, PushError> {
        if self.reason().is_some() {
            return Err(PushError { kind: PushErrorKind::Closed(self.closed_reason()), message });
        }
        self.push_outgoing(self.prepare(message, forms), key, more)
    }

    /// How many messages are queued, and their bytes.
    pub(crate) fn queued(&self) -> (usize, usize) {
        self.outbox.get().map_or((0, 0), |outbox| (outbox.len(), outbox.bytes()))
    }

    /// As [`push`](Self::push), of what must not be missing: where there is no room for it, the client is too slow, whatever else
    /// was chosen. It comes again for what it has missed.
    pub(crate) fn push_or_close(
        self: &Arc<Self>,
        message: Message,
        forms: &Forms,
    ) -> Result<Pushed, PushError> {
        self.push(message, Some(forms), None).map_err(|PushError { kind, message }| {
            if !matches!(kind, PushErrorKind::Full) {
                return PushError { kind, message };
            }
            self.disconnect(CloseCode::TRY_AGAIN, QUEUE_OVERFLOWED);
            PushError { kind: PushErrorKind::Closed(self.closed_reason()), message }
        })
    }

    /// Queues a message that was pushed before the connection was opened, behind the answer to its handshake and before
    /// anything else. Nobody knows the connection yet, so nothing is sent.
    pub(crate) fn push_ahead(&self, message: Message, key: Option<&Arc<str>>) {
        // There is room: what was pushed before has had the same bounds.
        let _ = self.queue(self.prepare(message, None), key);
    }

    pub(super) fn push_outgoing(
        self: &Arc<Self>,
        outgoing: Outgoing,
        key: Option<&Arc<str>>,
        more: bool,
    ) -> Result<Pushed, PushError> {
        let pushed = self.try_push(outgoing, key, more);
        // Whoever pushes faster than others see to it does that itself.
        self.context.relieve();
        pushed.map_err(|(mut kind, Outgoing { message, .. })| {
            if matches!(kind, PushErrorKind::Full) && self.about.overflow == Overflow::Disconnect {
                self.disconnect(CloseCode::TRY_AGAIN, QUEUE_OVERFLOWED);
                kind = PushErrorKind::Closed(self.closed_reason());
            }
            PushError { kind, message }
        })
    }

    fn try_push(
        self: &Arc<Self>,
        outgoing: Outgoing,
        key: Option<&Arc<str>>,
        more: bool,
    ) -> Result<Pushed, (PushErrorKind, Outgoing)> {
        if let Some(mut core) = self.try_lock() {
            if let Err(reason) = core.protocol.check_sendable() {
                return Err((PushErrorKind::Closed(reason), outgoing));
            }
            let is_next = !core.protocol.is_blocked() && !core.protocol.is_compressing();
            if is_next && self.outbox_is_empty() {
                core.send(outgoing);
                if more && core.collects(true) {
                    drop(core);
                    self.tell_collected();
                    return Ok(Pushed::Sent); // by whoever pushes next
                }
                let waits = self.flush_or_post(&mut core) || core.deferred.compressing.is_some();
                return Ok(if waits { Pushed::Queued } else { Pushed::Sent });
            }
        }
        self.queue(outgoing, key).map_err(|outgoing| (PushErrorKind::Full, outgoing))?;
        drop(self.try_lock()); // whoever holds the lock looks into the outbox afterwards
        Ok(Pushed::Queued)
    }

    fn queue(&self, outgoing: Outgoing, key: Option<&Arc<str>>) -> Result<(), Outgoing> {
        let outbox = self.outbox.get_or_init(|| Box::new(Outbox::new(&self.context.buffered)));
        match key {
            Some(key) if self.about.overflow == Overflow::KeepNewest => {
                outbox.put_newest(key, outgoing, &self.context.limits)
            }
            _ => outbox.put(outgoing, &self.context.limits),
        }
    }

    /// Sends one message, and waits until the kernel has it.
    ///
    /// # Errors
    /// Why it has not. With any but [`PushErrorKind::Pending`] the message is never sent.
    pub(crate) fn push_wait(self: &Arc<Self>, message: Message, timeout: Duration) -> Result<(), PushError> {
        let pushed = self.try_push_wait(&message, || false, |told| told.recv_timeout(timeout));
        pushed.map_err(|kind| PushError { kind, message })
    }

    /// As [`push_wait`](Self::push_wait), with a wait that is over, too, when nobody has the other end of `over` any more. Nothing is
    /// sent behind what is pushed after `is_over` has become true.
    #[cfg(feature = "manage")]
    pub(crate) fn push_wait_unless(
        self: &Arc<Self>,
        over: &Receiver<std::convert::Infallible>,
        is_over: impl FnOnce() -> bool,
        message: Message,
        timeout: Duration,
    ) -> Result<(), PushError> {
        let pushed = self.try_push_wait(&message, is_over, |told| {
            crossbeam_channel::select! {
                recv(told) -> sent => sent.map_err(|_| RecvTimeoutError::Disconnected),
                recv(over) -> _ => Err(RecvTimeoutError::Timeout),
                default(timeout) => Err(RecvTimeoutError::Timeout),
            }
        });
        pushed.map_err(|kind| PushError { kind, message })
    }

    fn try_push_wait(
        self: &Arc<Self>,
        message: &Message,
        is_over: impl FnOnce() -> bool,
        wait: impl FnOnce(&Receiver<()>) -> Result<(), RecvTimeoutError>,
    ) -> Result<(), PushErrorKind> {
        if thread::must_not_wait() {
            return Err(PushErrorKind::MustNotWait);
        }
        if self.reason().is_some() {
            return Err(PushErrorKind::Closed(self.closed_reason()));
        }
        let (sent, told) = bounded(1);
        let number = self.push_told_unless(is_over, message.clone(), sent).map_err(PushErrorKind::Closed)?;
        let number = number.ok_or(PushErrorKind::Timeout)?;
        match wait(&told) {
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

    /// Sends one message from any thread, and never waits for the network. `sent` is told when the kernel has it, in the order of
    /// these messages; whoever has seen the connection [over](Self::abort) and was not told knows that the kernel never had it.
    /// Returns its number.
    ///
    /// # Errors
    /// Why nothing can be sent.
    pub(crate) fn push_told(
        self: &Arc<Self>,
        message: Message,
        sent: Sender<()>,
    ) -> Result<u32, CloseReason> {
        let number = self.push_told_unless(|| false, message, sent)?;
        number.ok_or_else(|| self.closed_reason())
    }

    /// The same, unless it is over. `None`: it is.
    fn push_told_unless(
        self: &Arc<Self>,
        is_over: impl FnOnce() -> bool,
        message: Message,
        sent: Sender<()>,
    ) -> Result<Option<u32>, CloseReason> {
        let outgoing = self.prepare(message, None);
        let mut core = self.lock();
        core.protocol.check_sendable()?;
        let in_outbox = self.outbox.get().map_or(0, |outbox| outbox.len() as u64);
        // Behind the count: what others push when it is over is not counted, and comes later.
        if is_over() {
            return Ok(None);
        }
        let number = core.wait_in_queue(outgoing, sent, in_outbox);
        if self.drain(&mut core) {
            core.deferred.post = Some(Within::Now); // from now on the gateway sends
        }
        Ok(Some(number))
    }

    /// Takes back what was [pushed](Self::push_told) under this number, if nothing of it was sent.
    pub(crate) fn take_back(self: &Arc<Self>, number: u32) -> bool {
        self.lock().take_back(number)
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

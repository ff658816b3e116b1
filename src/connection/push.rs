//! Pushing: sending from any thread, which never waits for the client.

use std::sync::Arc;

use super::{
    outbox::{Outbox, Overflow, PushError, PushErrorKind, Pushed},
    parts::Connection,
};
use crate::{
    codec::{Forms, Outgoing},
    message::{CloseCode, Message},
};

impl Connection {
    /// Sends one message from any thread, and never waits for the network. A message that goes to others, too, comes with
    /// its compressed `forms`.
    pub(crate) fn push(
        self: &Arc<Self>,
        message: Message,
        forms: Option<&Forms>,
    ) -> Result<Pushed, PushError> {
        if self.reason().is_some() {
            return Err(PushError { kind: PushErrorKind::Closed(self.closed_reason()), message });
        }
        self.push_outgoing(self.prepare(message, forms))
    }

    /// Queues a message that was pushed before the connection was opened, behind the answer to its handshake and before
    /// anything else. Nobody knows the connection yet, so nothing is sent.
    pub(crate) fn push_ahead(&self, message: Message) {
        let outbox = self.outbox.get_or_init(|| Box::new(Outbox::new(&self.context.buffered)));
        // There is room: what was pushed before has had the same bounds.
        let _ = outbox.put(self.prepare(message, None), &self.context.limits);
    }

    pub(super) fn push_outgoing(self: &Arc<Self>, outgoing: Outgoing) -> Result<Pushed, PushError> {
        let pushed = self.try_push(outgoing);
        // Whoever pushes faster than others see to it does that itself.
        self.context.relieve();
        pushed.map_err(|(mut kind, Outgoing { message, .. })| {
            if matches!(kind, PushErrorKind::Full) && self.about.overflow == Overflow::Disconnect {
                self.disconnect(CloseCode::TRY_AGAIN, "too slow");
                kind = PushErrorKind::Closed(self.closed_reason());
            }
            PushError { kind, message }
        })
    }

    fn try_push(self: &Arc<Self>, outgoing: Outgoing) -> Result<Pushed, (PushErrorKind, Outgoing)> {
        if let Some(mut core) = self.try_lock() {
            if let Err(reason) = core.protocol.check_sendable() {
                return Err((PushErrorKind::Closed(reason), outgoing));
            }
            let is_next = !core.protocol.is_blocked() && !core.protocol.is_compressing();
            if is_next && self.outbox_is_empty() {
                core.send(outgoing);
                let waits = self.flush_or_post(&mut core) || core.deferred.compressing.is_some();
                return Ok(if waits { Pushed::Queued } else { Pushed::Sent });
            }
        }
        let outbox = self.outbox.get_or_init(|| Box::new(Outbox::new(&self.context.buffered)));
        outbox.put(outgoing, &self.context.limits).map_err(|outgoing| (PushErrorKind::Full, outgoing))?;
        drop(self.try_lock()); // whoever holds the lock looks into the outbox afterwards
        Ok(Pushed::Queued)
    }
}

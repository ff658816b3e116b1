//! What goes to the peer: messages in, bytes out.

use super::{
    life::Protocol,
    phase::{Phase, Stream},
};
use crate::{
    clock::Moment,
    codec::{Compressing, Outgoing, Role},
    error::{CloseReason, ClosedBy},
    message::CloseCode,
};

/// What a driver has to do with the socket.
#[derive(Debug)]
pub(crate) enum Transmit<'a> {
    /// Nothing.
    Nothing,
    /// Send these, and say what came of it: [`sent`](Protocol::sent), [`refused`](Protocol::refused) or
    /// [`send_failed`](Protocol::send_failed).
    Bytes([&'a [u8]; 2]),
    /// End this side of the stream (FIN).
    End,
}

impl Protocol {
    /// Whether messages can be sent.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check_sendable(&self) -> Result<(), CloseReason> {
        match (&self.phase, &self.reason) {
            (Phase::Unsendable { reason, .. }, _) => Err(reason.clone()),
            (_, Some(reason)) => Err(reason.clone()),
            (_, None) => Ok(()),
        }
    }

    /// Appends a message to the output, if it can be [sent](Self::check_sendable), or a [close](Self::owes_close) waits for it.
    /// If its compression takes long, that is left
    /// to the caller, who does it without a lock and comes back with the result ([`compressed`](Self::compressed)); until then
    /// nothing else may be sent.
    #[must_use]
    pub(crate) fn send(&mut self, outgoing: Outgoing) -> Option<Box<Compressing>> {
        debug_assert!(!self.compressing);
        self.is_sending = true;
        let compressing = self.codec.encode(outgoing);
        self.compressing = compressing.is_some();
        self.counts.messages_out += u64::from(!self.compressing);
        self.look_for_warmth();
        compressing
    }

    /// The compressor is back, with the message that it was out for.
    pub(crate) fn compressed(&mut self, compressed: Compressing) {
        self.compressing = false;
        let is_sendable = self.check_sendable().is_ok() || self.owes_close;
        self.counts.messages_out += u64::from(is_sendable);
        self.codec.encode_compressed(compressed, is_sendable);
        self.look_for_warmth();
    }

    pub(crate) fn is_compressing(&self) -> bool {
        self.compressing
    }

    /// How much is to be sent.
    pub(crate) fn pending(&mut self) -> usize {
        self.codec.stream().pending()
    }

    /// Encrypts what is to be sent: then `pending` is what the socket gets, and what comes later is in TLS records of its own.
    pub(crate) fn seal(&mut self) {
        if let Err(failure) = self.codec.stream().seal() {
            self.abort(ClosedBy::Network, &failure.text);
        }
    }

    /// What is to be done with the socket next.
    pub(crate) fn transmit(&mut self) -> Transmit<'_> {
        self.seal();
        if !self.can_transmit() {
            self.codec.stream().discard_output();
        }
        if self.codec.stream().is_sent() {
            self.pongs = 0;
            if let Some(blocked) = self.timers.blocked.take() {
                self.timers.listen_again(blocked);
                self.changed = true;
            }
            if self.ends_stream() {
                return Transmit::End;
            }
        }
        let parts = self.codec.stream().pending_parts();
        if parts.iter().all(|part| part.is_empty()) { Transmit::Nothing } else { Transmit::Bytes(parts) }
    }

    /// All is sent. Whether that was the last, and our side of the stream is to be ended; TLS says so first.
    fn ends_stream(&mut self) -> bool {
        let Phase::Draining { stream, peer_ended, .. } = &mut self.phase else { return false };
        if self.owes_close || self.role == Role::Client && !*peer_ended {
            return false;
        }
        if *stream == Stream::Open {
            *stream = Stream::Finished;
            self.codec.stream().finish();
        }
        if *stream == Stream::Ended || !self.codec.stream().is_sent() {
            return false;
        }
        *stream = Stream::Ended;
        if *peer_ended {
            self.enter(Phase::Over);
        }
        true
    }

    fn can_transmit(&self) -> bool {
        !matches!(
            self.phase,
            Phase::Unsendable { .. } | Phase::Draining { stream: Stream::Ended, .. } | Phase::Over
        )
    }

    /// The socket took so many bytes.
    pub(crate) fn sent(&mut self, bytes: usize, now: Moment) {
        if std::mem::take(&mut self.is_sending) {
            self.timers.message = now;
        }
        if self.is_blocked() {
            self.timers.await_message_again(now); // as long as it was blocked, nothing was received
        }
        self.codec.stream().mark_sent(bytes);
        self.counts.bytes_out += bytes as u64;
        self.progress = true;
    }

    /// The socket takes nothing more at the moment.
    pub(crate) fn refused(&mut self, now: Moment) {
        self.changed |= self.timers.blocked.is_none();
        if std::mem::take(&mut self.progress) || self.timers.blocked.is_none() {
            self.timers.blocked = Some(now);
        }
    }

    /// Whether output waits until the socket takes more.
    pub(crate) fn is_blocked(&self) -> bool {
        self.timers.blocked.is_some()
    }

    /// The socket takes nothing any more. What the peer sent before may still come, and so does the end from there.
    pub(crate) fn send_failed(&mut self, why: &str, now: Moment) {
        self.timers.blocked = None;
        self.owes_close = false;
        self.codec.stream().discard_output();
        match &mut self.phase {
            Phase::Open => {
                let reason = CloseReason::new(CloseCode::ABNORMAL, why, ClosedBy::Network);
                self.enter(Phase::Unsendable { reason, by: now + self.limits.close_timeout });
            }
            Phase::Held { .. } => self.end_held(now),
            Phase::Closing { .. } | Phase::Draining { .. } | Phase::Unsendable { .. } | Phase::Over => {}
        }
        if let Phase::Draining { peer_ended, stream, .. } = &mut self.phase {
            *stream = Stream::Ended;
            if *peer_ended {
                self.enter(Phase::Over);
            }
        }
    }
}

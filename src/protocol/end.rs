//! How a connection ends: by this side, by the peer, or by neither.

use super::{
    life::Protocol,
    phase::{Hold, PeerEnd, Phase, Stream},
};
use crate::{
    clock::Moment,
    codec::{Failure, Role, sendable_close},
    error::{CloseReason, ClosedBy},
    message::CloseCode,
};

impl Protocol {
    /// As [`close`](Self::close), but messages that wait to be sent go before the close frame: the driver still
    /// [sends](Self::send) them, and [completes](Self::complete_close) the close when there are none.
    pub(crate) fn close_behind(&mut self, code: CloseCode, text: &str, now: Moment) {
        self.owes_close |= self.check_sendable().is_ok();
        self.close(code, text, now);
    }

    /// Whether our close frame waits for messages that are still to be sent.
    pub(crate) fn owes_close(&self) -> bool {
        self.owes_close
    }

    /// Nothing is to go before our close frame any more.
    pub(crate) fn complete_close(&mut self) {
        if std::mem::take(&mut self.owes_close)
            && let Some(reason) = &self.reason
        {
            self.codec.close(reason.code(), reason.text());
        }
    }

    /// Starts the closing handshake, unless the connection has ended already. What was received is not wanted any more.
    pub(crate) fn close(&mut self, code: CloseCode, text: &str, now: Moment) {
        let peer_ended = match &self.phase {
            Phase::Open => None,
            Phase::Held { end, peer_ended, .. } if !matches!(**end, PeerEnd::Close(..)) => Some(*peer_ended),
            Phase::Held { .. } | Phase::Unsendable { .. } => {
                self.hung_up = true;
                return self.end_held(now);
            }
            Phase::Closing { .. } | Phase::Draining { .. } | Phase::Over => return,
        };
        let (code, text) = sendable_close(code, text);
        self.put_close(code, text);
        self.set_reason(code, text, self.us());
        self.hung_up = true;
        match peer_ended {
            None => self.enter(Phase::Closing { by: now + self.limits.close_timeout }),
            Some(peer_ended) => self.drain(peer_ended, now),
        }
    }

    /// Ends the connection at once: nothing is sent or received any more.
    pub(crate) fn abort(&mut self, by: ClosedBy, why: &str) {
        if self.is_over() {
            return;
        }
        if let Phase::Held { end, .. } = &self.phase
            && let PeerEnd::Close(code, text) = &**end
        {
            // Its close frame has said why (RFC 6455, section 7.1.5).
            let (code, text) = (*code, text.clone());
            self.set_reason(code, &text, self.peer());
        }
        self.set_reason(CloseCode::ABNORMAL, why, by);
        self.enter(Phase::Over);
    }

    /// An end that was held takes effect.
    pub(super) fn end_held(&mut self, now: Moment) {
        match std::mem::replace(&mut self.phase, Phase::Open) {
            Phase::Held { end, peer_ended, .. } => self.end_by_peer(*end, peer_ended, now),
            Phase::Unsendable { reason, .. } => {
                self.reason = Some(reason);
                self.enter(Phase::Over);
            }
            other => self.phase = other,
        }
    }

    pub(super) fn peer_ends(&mut self, end: PeerEnd, hold: Hold, now: Moment) {
        let peer_ended = matches!(end, PeerEnd::EndOfStream);
        if hold == Hold::Answers && matches!(self.phase, Phase::Open) {
            // One time for all of the end, if it was in sight before.
            let by = self.timers.end_by.unwrap_or(now + self.limits.close_timeout);
            self.enter(Phase::Held { end: Box::new(end), peer_ended, by });
        } else {
            self.end_by_peer(end, peer_ended, now);
        }
    }

    /// The peer's end takes effect; its stream may have ended, too.
    pub(super) fn end_by_peer(&mut self, end: PeerEnd, peer_ended: bool, now: Moment) {
        match end {
            PeerEnd::Close(code, text) => {
                self.put_close(code, &text); // the answer (RFC 6455, section 5.5.1)
                self.set_reason(code, &text, self.peer());
                self.drain(peer_ended, now);
            }
            PeerEnd::Failure(Failure { code: CloseCode::ABNORMAL, text }) => {
                self.abort(ClosedBy::Network, &text);
            }
            PeerEnd::Failure(failure) => {
                self.put_close(failure.code, &failure.text); // it can be sent: the others are above
                self.set_reason(failure.code, &failure.text, self.us());
                self.drain(peer_ended, now);
            }
            PeerEnd::EndOfStream => {
                self.set_reason(CloseCode::ABNORMAL, self.end_of_stream(), ClosedBy::Network);
                self.drain(peer_ended, now);
            }
        }
    }

    /// Appends a close frame. One that is [owed](Self::owes_close) will say what the reason says.
    fn put_close(&mut self, code: CloseCode, text: &str) {
        if !self.owes_close {
            self.codec.close(code, text);
        }
    }

    pub(super) fn end_of_stream(&self) -> &'static str {
        match self.role {
            Role::Server => "the client's stream ended without a close frame",
            Role::Client => "the server's stream ended without a close frame",
        }
    }

    /// Nothing is left to say but what is in the output, and what waits behind it.
    pub(super) fn drain(&mut self, peer_ended: bool, now: Moment) {
        let by = match self.phase {
            Phase::Closing { by } => by, // one time for the whole closing handshake
            _ => now + self.limits.close_timeout,
        };
        let stream = match self.phase {
            Phase::Unsendable { .. } => Stream::Ended,
            _ => Stream::Open,
        };
        // For a client that is as good as the end of the stream: it is what it waits for.
        let peer_ended = peer_ended || self.role == Role::Client && self.codec.stream().ended();
        if stream == Stream::Ended && peer_ended {
            return self.enter(Phase::Over);
        }
        self.enter(Phase::Draining { by, peer_ended, stream });
    }

    /// The first reason stays.
    pub(super) fn set_reason(&mut self, code: CloseCode, text: &str, by: ClosedBy) {
        self.reason.get_or_insert_with(|| CloseReason::new(code, text, by));
    }
}

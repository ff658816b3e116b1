//! What is due when.

use std::time::Duration;

use super::{
    life::Protocol,
    phase::Phase,
    timers::{Ping, Timer},
};
use crate::{clock::Moment, error::ClosedBy, message::CloseCode};

pub(crate) const TOO_SLOW: &str = "the peer did not take what was sent in time";

impl Protocol {
    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub(crate) fn deadline(&self) -> Option<Moment> {
        match &self.phase {
            Phase::Open => self.timers.next(&self.limits).map(|(due, _)| due),
            Phase::Held { by, .. }
            | Phase::Unsendable { by, .. }
            | Phase::Closing { by }
            | Phase::Draining { by, .. } => Some(*by),
            Phase::Over => None,
        }
    }

    /// Does what is due by now.
    pub(crate) fn handle_timeout(&mut self, now: Moment) {
        while let Some(due) = self.deadline()
            && due <= now
        {
            match self.phase {
                Phase::Open => self.handle_timer(now),
                Phase::Held { .. } | Phase::Unsendable { .. } => self.end_held(now),
                Phase::Closing { .. } | Phase::Draining { .. } | Phase::Over => {
                    self.abort(ClosedBy::Network, "the closing handshake took too long");
                }
            }
        }
    }

    fn handle_timer(&mut self, now: Moment) {
        match self.timers.next(&self.limits) {
            Some((_, Timer::Write)) => self.abort(self.us(), TOO_SLOW),
            Some((_, Timer::Message)) => {
                self.close(CloseCode::POLICY, "a message was not completed in time", now)
            }
            Some((_, Timer::End)) => self.abort(ClosedBy::Network, self.end_of_stream()),
            Some((_, Timer::Pong)) => self.abort(ClosedBy::Network, "no answer to a ping"),
            Some((_, Timer::Idle)) => self.close(CloseCode::GOING_AWAY, "idle", now),
            Some((_, Timer::Ping)) => {
                self.codec.park(false);
                self.codec.ping(now.to_bytes());
                self.timers.pinged = Some(now);
                self.timers.ping = Ping::Sent;
            }
            Some((_, Timer::Cool)) => {
                self.codec.park(true);
                self.timers.warm = false;
            }
            None => {}
        }
    }

    /// Gives back the buffers that hold nothing, if there was no message for so long; else says when to ask again.
    pub(crate) fn park_if_quiet(&mut self, quiet: Duration, now: Moment) -> Option<Moment> {
        let due = self.timers.message + quiet;
        if due > now {
            return Some(due);
        }
        self.codec.park(false);
        None
    }

    /// Whether the compressor has something now that it gives back later.
    pub(super) fn look_for_warmth(&mut self) {
        if !self.timers.warm && self.codec.is_warm() {
            (self.timers.warm, self.changed) = (true, true);
        }
    }

    /// A pong to one of our pings carries when that was sent.
    pub(super) fn measure(&mut self, payload: &[u8], now: Moment) {
        if let Some(sent) = payload.try_into().ok().and_then(Moment::from_bytes) {
            self.round_trip = now.since(sent).as_micros().try_into().ok();
            // Pongs may come without a ping, as many as the peer likes.
            if self.timers.ping == Ping::Sent {
                (self.timers.ping, self.changed) = (Ping::Answered, true);
            }
        }
    }

    /// Whether a message has begun that is not complete.
    pub(crate) fn is_within_message(&self) -> bool {
        self.timers.begun.is_some()
    }

    /// Keeps the time of a message that has arrived in part: all that was received has been decoded.
    pub(super) fn look_for_partial(&mut self, now: Moment) {
        if self.codec.is_between_messages() {
            self.timers.begun = None;
        } else if self.codec.take_progress() || self.timers.begun.is_none() {
            let before = self.deadline();
            self.timers.begun = Some(now);
            self.changed |= before.is_none_or(|before| self.deadline().is_some_and(|due| due < before));
        }
    }

    /// Whether a ping is under way, so that the time has to be exact.
    pub(crate) fn is_measuring(&self) -> bool {
        self.timers.pinged.is_some()
    }
}

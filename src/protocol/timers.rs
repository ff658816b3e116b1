//! What a connection has to do when, while it is open.

use std::time::Duration;

use crate::{clock::Moment, limits::Limits};

/// A write that is stuck ends the connection so much later than a thread that waits in `write` does.
const GRACE: Duration = Duration::from_secs(1);

/// Without a message for so long, what only serves to compress better is given back.
const COOL: Duration = Duration::from_secs(10);

/// When things happened last.
#[derive(Debug)]
pub(super) struct Timers {
    /// Bytes came from the peer, or were not received on purpose.
    pub(super) received: Moment,
    /// A message went either way.
    pub(super) message: Moment,
    /// A message has begun that is not complete: more of it came, or it was not received on purpose.
    pub(super) begun: Option<Moment>,
    /// The ping was sent that is not answered yet.
    pub(super) pinged: Option<Moment>,
    pub(super) ping: Ping,
    /// The socket took its last bytes before it refused more.
    pub(super) blocked: Option<Moment>,
    /// Nothing is received at the moment, on purpose: so the peer's silence says nothing.
    pub(super) paused: bool,
    /// The peer's stream ends behind what has not been received yet: when the connection ends at the latest.
    pub(super) end_by: Option<Moment>,
    /// The compressor has memory to give back.
    pub(super) warm: bool,
    /// A shared connection may be ended because it is idle.
    pub(super) shared: bool,
}

/// What became of the last ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ping {
    /// There is none, or its round trip was told.
    None,
    Sent,
    Answered,
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The peer does not take what is sent.
    Write,
    /// The peer is gone, and what it sent before has not been received for too long.
    End,
    /// The peer does not complete a message.
    Message,
    /// The peer has not answered a ping.
    Pong,
    /// No message went either way for long.
    Idle,
    /// The peer was silent: it is to be pinged.
    Ping,
    /// The compressor is not in use.
    Cool,
}

impl Timers {
    pub(super) fn new(shared: bool, now: Moment) -> Self {
        Self {
            received: now,
            message: now,
            begun: None,
            pinged: None,
            ping: Ping::None,
            blocked: None,
            paused: false,
            end_by: None,
            warm: false,
            shared,
        }
    }

    /// Nothing was received for a while, not even the answer to a ping: the silence counts anew.
    pub(super) fn listen_again(&mut self, since: Moment) {
        self.received = self.received.max(since);
        self.pinged = None;
    }

    /// Nothing was received until now, nor the rest of a message that had begun.
    pub(super) fn await_message_again(&mut self, now: Moment) {
        self.begun = self.begun.map(|_| now);
    }

    /// What is due next, and when. What is due at the same time comes in the order of [`Timer`].
    pub(super) fn next(&self, limits: &Limits) -> Option<(Moment, Timer)> {
        let write = self.blocked.map(|since| (since + limits.write_timeout + GRACE, Timer::Write));
        let end = self.end_by.map(|by| (by, Timer::End));
        let idle = limits.shared_idle_timeout.filter(|_| self.shared && self.blocked.is_none());
        let idle = idle.map(|limit| (self.message + limit, Timer::Idle));
        let cool = self.warm.then(|| (self.message + COOL, Timer::Cool));
        [write, end, self.completion(limits), self.keepalive(limits), idle, cool].into_iter().flatten().min()
    }

    /// When a message that has begun has to go on; not while nothing is received.
    fn completion(&self, limits: &Limits) -> Option<(Moment, Timer)> {
        let begun = self.begun.filter(|_| !self.paused && self.blocked.is_none())?;
        Some((begun + limits.message_timeout?, Timer::Message))
    }

    /// While output is stuck nothing is received, and the peer's pong may lie behind what is not.
    fn keepalive(&self, limits: &Limits) -> Option<(Moment, Timer)> {
        let interval = limits.ping_interval.filter(|_| !self.paused && self.blocked.is_none())?;
        Some(match self.pinged {
            Some(pinged) => (pinged + limits.ping_timeout, Timer::Pong),
            None => (self.received + interval, Timer::Ping),
        })
    }
}

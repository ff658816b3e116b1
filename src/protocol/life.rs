//! A connection's life: what it consists of, and what it has come to.

use std::{ops::AddAssign, sync::Arc, time::Duration};

use super::{
    phase::Phase,
    timers::{Ping, Timers},
};
use crate::{
    clock::Moment,
    codec::{Codec, Role},
    error::{CloseReason, ClosedBy},
    limits::Limits,
};

/// One connection, from its opening handshake on.
#[derive(Debug)]
pub(crate) struct Protocol {
    pub(super) role: Role,
    pub(super) limits: Arc<Limits>,
    pub(super) codec: Codec,
    pub(super) phase: Phase,
    /// How it ended, or is about to: set when it is neither open nor ending any more, and never again.
    pub(super) reason: Option<CloseReason>,
    pub(super) timers: Timers,
    pub(super) counts: Counts,
    /// The last round trip, in microseconds.
    pub(super) round_trip: Option<u32>,
    /// Pings that came since the output was last empty: so many pongs are in it, at most.
    pub(super) pongs: u8,
    /// What was received is not wanted any more: this side has closed.
    pub(super) hung_up: bool,
    /// Our close frame waits behind messages that are still to be sent: so long our side of the stream does not end.
    pub(super) owes_close: bool,
    /// There is a message in the output, or was when the socket last took something.
    pub(super) is_sending: bool,
    /// The socket took something since it refused more.
    pub(super) progress: bool,
    /// The compressor is out: nothing may be sent before the message that it is needed for.
    pub(super) compressing: bool,
    /// Something happened that others have to know: a new phase, or a deadline that is earlier than it was.
    pub(super) changed: bool,
}

/// What has gone through a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) messages_in: u64,
    pub(crate) messages_out: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.messages_in += other.messages_in;
        self.messages_out += other.messages_out;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
    }
}

impl Protocol {
    pub(crate) fn new(role: Role, codec: Codec, limits: Arc<Limits>, shared: bool, now: Moment) -> Self {
        Self {
            role,
            limits,
            codec,
            phase: Phase::Open,
            reason: None,
            timers: Timers::new(shared, now),
            counts: Counts::default(),
            round_trip: None,
            pongs: 0,
            hung_up: false,
            owes_close: false,
            is_sending: false,
            progress: false,
            compressing: false,
            changed: false,
        }
    }

    /// Whether others have to look at what happened; asks once.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// How it ended, or is about to; `None` while messages can be answered.
    pub(crate) fn reason(&self) -> Option<&CloseReason> {
        self.reason.as_ref()
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// Whether an end waits for answers.
    pub(crate) fn holds_end(&self) -> bool {
        matches!(self.phase, Phase::Held { .. })
    }

    /// Whether its end has begun, in whatever way: somebody has to keep the time for it.
    pub(crate) fn is_ending(&self) -> bool {
        !matches!(self.phase, Phase::Open)
    }

    /// Whether messages that were received are not wanted any more.
    pub(crate) fn has_hung_up(&self) -> bool {
        self.hung_up
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// When the last message went either way; before the first one, when the connection was opened.
    pub(crate) fn last_message(&self) -> Moment {
        self.timers.message
    }

    /// How long the last ping took for its pong.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.round_trip.map(|micros| Duration::from_micros(micros.into()))
    }

    /// The same, if it was measured since this was last asked; once for each ping.
    pub(crate) fn take_measured(&mut self) -> Option<Duration> {
        if self.timers.ping != Ping::Answered {
            return None;
        }
        self.timers.ping = Ping::None;
        self.round_trip()
    }

    /// Whether messages are received.
    pub(super) fn is_receiving(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Unsendable { .. })
    }

    /// Whether what is received means anything.
    pub(super) fn decodes(&self) -> bool {
        self.is_receiving() || matches!(self.phase, Phase::Closing { .. })
    }

    pub(super) fn us(&self) -> ClosedBy {
        match self.role {
            Role::Server => ClosedBy::Server,
            Role::Client => ClosedBy::Client,
        }
    }

    pub(super) fn peer(&self) -> ClosedBy {
        match self.role {
            Role::Server => ClosedBy::Client,
            Role::Client => ClosedBy::Server,
        }
    }

    /// Whether what is [held](Self::held) may have changed by much since this was last asked.
    pub(crate) fn take_resized(&mut self) -> bool {
        self.codec.take_resized()
    }

    /// How much memory its buffers take.
    pub(crate) fn held(&self) -> usize {
        self.codec.held()
    }

    /// Throws away what has arrived of a message, if this side has closed.
    pub(crate) fn forget_messages(&mut self) {
        if self.hung_up {
            self.codec.forget_messages();
        }
    }

    /// Gives back the buffers that hold nothing.
    pub(crate) fn park(&mut self) {
        self.codec.park(false);
    }

    pub(super) fn enter(&mut self, phase: Phase) {
        if matches!(phase, Phase::Over) {
            self.codec.clear();
            self.timers.blocked = None;
            self.owes_close = false;
        }
        self.phase = phase;
        self.changed = true;
    }
}

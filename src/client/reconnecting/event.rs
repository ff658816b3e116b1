//! What a program is told of a link: what happens to it, how it is, and what became of a message.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    client::{error::ClientError, response::HandshakeResponse},
    error::CloseReason,
};

/// What happens to a [`Reconnecting`](crate::Reconnecting). Its text is a line for a log.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LinkEvent {
    /// It is connected.
    #[non_exhaustive]
    Up {
        /// What the server has answered.
        response: Arc<HandshakeResponse>,
    },
    /// The connection has ended.
    #[non_exhaustive]
    Down {
        /// How.
        reason: CloseReason,
        /// So long after this the next attempt begins.
        retry_in: Duration,
    },
    /// An attempt to connect has failed.
    #[non_exhaustive]
    Failed {
        /// Why. Whether somebody has to do something about it is said by [`ClientError::is_lasting`].
        error: Arc<ClientError>,
        /// How many have failed since it was connected.
        attempts: u32,
        /// So long after this the next attempt begins.
        retry_in: Duration,
    },
}

impl fmt::Display for LinkEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let retry_in = match self {
            Self::Up { .. } => return f.write_str("connected"),
            Self::Down { reason, retry_in } => {
                write!(f, "connection closed: {reason}")?;
                retry_in
            }
            Self::Failed { error, retry_in, .. } => {
                error.fmt(f)?;
                retry_in
            }
        };
        write!(f, "; next attempt in {:.1} s", retry_in.as_secs_f64())
    }
}

/// How a [`Reconnecting`](crate::Reconnecting) is at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkState {
    /// An attempt is being made.
    Connecting,
    /// It is connected.
    Up,
    /// It is not, and the next attempt begins at this time.
    Waiting(Instant),
    /// It was [closed](crate::Reconnecting::close), and no more attempts are made.
    Ended,
}

/// What has become of a link's messages so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkCounts {
    /// Times that it was connected.
    pub connected: u64,
    /// Messages that the kernel has taken.
    pub sent: u64,
    /// Messages that wait to be sent; after a close, those that were not.
    pub queued: usize,
    /// Their bytes.
    pub queued_bytes: usize,
    /// Messages that were dropped: for want of room, as [`WhenFull`] says, or because they
    /// [could not be sent](crate::Reconnecting#what-is-promised).
    pub dropped: u64,
    /// Messages from the server that wait to be read.
    pub unread: usize,
    /// Messages from the server that were dropped: the connection had ended, and there was no room for them.
    pub unread_dropped: u64,
}

/// What became of a message that was given to [`Reconnecting::send`](crate::Reconnecting::send).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Accepted {
    /// The kernel has it.
    Sent,
    /// It is queued.
    Queued,
    /// It is queued, and for want of room so many others were dropped, the oldest ones ([`WhenFull::DropOldest`]).
    Replaced(usize),
    /// It was dropped itself, for want of room ([`WhenFull::DropNewest`]).
    Dropped,
}

/// What becomes of a message for which there is no room in a link's queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhenFull {
    /// [`send`](crate::Reconnecting::send) fails, and gives it back. The default.
    #[default]
    Refuse,
    /// The oldest ones are dropped for it: of measurements, the latest count. Not those that are being sent just now, so there may
    /// be some more of them than the bounds say: 64 KiB and one message at most.
    DropOldest,
    /// It is dropped.
    DropNewest,
}

/// The attempt that is about to be made.
#[derive(Debug)]
#[non_exhaustive]
pub struct LinkAttempt<'a> {
    /// How many have failed since it was connected.
    pub failed: u32,
    /// Why the last one has. `None`: there was none, or it was connected since.
    pub error: Option<&'a ClientError>,
}

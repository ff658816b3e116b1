//! What the other process could not do, as errors of this one.

use crate::{
    connection::PushErrorKind,
    error::{Error, OverLimit},
    wire::Failure,
};

/// Why there is no answer to what was asked of a connection that was opened.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The link that it was opened on is not there any more, or knows nothing of it. Nothing was done.
    Stale,
    Error(Error),
}

impl Trouble {
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Stale => Error::Unreachable,
            Self::Error(error) => error,
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl From<Failure<'_>> for Trouble {
    fn from(failure: Failure<'_>) -> Self {
        match failure {
            Failure::UnknownHandle => Self::Stale,
            other => Self::Error(other.into()),
        }
    }
}

impl From<Failure<'_>> for Error {
    fn from(failure: Failure<'_>) -> Self {
        match failure {
            Failure::Timeout | Failure::Pending => Self::Timeout,
            Failure::Closed(reason) => Self::Closed(reason.into()),
            Failure::QueueFull => Self::QueueFull,
            Failure::NotUtf8 => Self::NotUtf8,
            Failure::MustNotWait => Self::MustNotWait,
            Failure::UnknownId => Self::UnknownId,
            Failure::Refused => Self::Refused,
            Failure::NotOpen => Self::NotOpen,
            Failure::NotShared => Self::NotShared,
            Failure::OverLimit(limit) => Self::OverLimit(limit.into()),
            Failure::NoHistory => Self::NoHistory,
            Failure::Other(text) => Self::Remote(text.into()),
            Failure::Forbidden => Self::Forbidden,
            Failure::TooMany => Self::OverLimit(OverLimit::Calls),
            Failure::Unsupported => Self::Unsupported,
            Failure::UnknownHandle => Self::Unreachable,
            Failure::TooLong => Self::OverLimit(OverLimit::Message),
        }
    }
}

/// Of a push; `None` for what a push cannot be answered with.
pub(super) fn of_push(failure: Failure<'_>) -> Option<PushErrorKind> {
    Some(match failure {
        Failure::Timeout => PushErrorKind::Timeout,
        Failure::Pending => PushErrorKind::Pending,
        Failure::Closed(reason) => PushErrorKind::Closed(reason.into()),
        Failure::QueueFull => PushErrorKind::Full,
        Failure::MustNotWait | Failure::NotOpen => PushErrorKind::MustNotWait,
        Failure::UnknownId => PushErrorKind::Unknown,
        Failure::Refused => PushErrorKind::Refused,
        Failure::OverLimit(limit) => PushErrorKind::OverLimit(limit.into()),
        Failure::Forbidden => PushErrorKind::Forbidden,
        Failure::TooMany => PushErrorKind::OverLimit(OverLimit::Calls),
        Failure::TooLong => PushErrorKind::OverLimit(OverLimit::Message),
        _ => return None,
    })
}

//! What could not be done: the errors of the hub, and those of the link itself.

use serde::{Deserialize, Serialize};

use super::answer::CloseReason;
use crate::{connection::PushErrorKind, error};

/// Why something was not done. New ones are added at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Failure<'a> {
    // Those of the calls themselves: `Error` and `PushErrorKind`.
    Timeout,
    /// Of a push that waits: a part of the message may be out.
    Pending,
    Closed(#[serde(borrow)] CloseReason<'a>),
    QueueFull,
    NotUtf8,
    MustNotWait,
    UnknownId,
    Refused,
    NotOpen,
    NotShared,
    OverLimit(OverLimit),
    NoHistory,
    /// Any other, as text.
    Other(&'a str),

    // Those of the link.
    /// The token, or the listener, is for reading only.
    Forbidden,
    /// More waits, handles or deliveries than one link, or all of them, may have.
    TooMany,
    /// This version of the server does not know the request.
    Unsupported,
    /// The link has no such handle: it was released, or is another link's.
    UnknownHandle,
    /// The answer would be longer than what the client takes in a message. A delivery went back.
    TooLong,
}

/// As [`error::OverLimit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum OverLimit {
    User,
    Tags,
    TopicName,
    Topics,
    AllTopics,
    IdempotencyKey,
    Message,
    Calls,
}

impl<'a> Failure<'a> {
    /// Of a call. `text` gets what has no name of its own.
    pub(crate) fn of(error: &'a error::Error, text: &'a mut String) -> Self {
        use error::Error;
        match error {
            Error::Timeout => Self::Timeout,
            Error::Closed(reason) => Self::Closed(reason.into()),
            Error::QueueFull => Self::QueueFull,
            Error::NotUtf8 => Self::NotUtf8,
            Error::MustNotWait => Self::MustNotWait,
            Error::UnknownId => Self::UnknownId,
            Error::Refused => Self::Refused,
            Error::NotOpen => Self::NotOpen,
            Error::NotShared => Self::NotShared,
            Error::OverLimit(limit) => Self::OverLimit((*limit).into()),
            Error::NoHistory => Self::NoHistory,
            Error::Forbidden => Self::Forbidden,
            Error::Unsupported => Self::Unsupported,
            other => {
                *text = other.to_string();
                Self::Other(text)
            }
        }
    }

    /// Of a push.
    pub(crate) fn of_push(kind: &'a PushErrorKind) -> Self {
        match kind {
            PushErrorKind::Unknown => Self::UnknownId,
            PushErrorKind::Refused => Self::Refused,
            PushErrorKind::Closed(reason) => Self::Closed(reason.into()),
            PushErrorKind::Full => Self::QueueFull,
            PushErrorKind::Timeout => Self::Timeout,
            PushErrorKind::Pending => Self::Pending,
            PushErrorKind::MustNotWait => Self::MustNotWait,
            PushErrorKind::Forbidden => Self::Forbidden,
            PushErrorKind::OverLimit(limit) => Self::OverLimit((*limit).into()),
            // A local push is none of these.
            PushErrorKind::Unreachable => Self::Other("unreachable"),
        }
    }
}

impl From<error::OverLimit> for OverLimit {
    fn from(limit: error::OverLimit) -> Self {
        match limit {
            error::OverLimit::User => Self::User,
            error::OverLimit::Tags => Self::Tags,
            error::OverLimit::TopicName => Self::TopicName,
            error::OverLimit::Topics => Self::Topics,
            error::OverLimit::AllTopics => Self::AllTopics,
            error::OverLimit::IdempotencyKey => Self::IdempotencyKey,
            error::OverLimit::Message => Self::Message,
            error::OverLimit::Calls => Self::Calls,
        }
    }
}

impl From<OverLimit> for error::OverLimit {
    fn from(limit: OverLimit) -> Self {
        match limit {
            OverLimit::User => Self::User,
            OverLimit::Tags => Self::Tags,
            OverLimit::TopicName => Self::TopicName,
            OverLimit::Topics => Self::Topics,
            OverLimit::AllTopics => Self::AllTopics,
            OverLimit::IdempotencyKey => Self::IdempotencyKey,
            OverLimit::Message => Self::Message,
            OverLimit::Calls => Self::Calls,
        }
    }
}

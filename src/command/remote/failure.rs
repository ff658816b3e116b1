//! What went wrong, as people and scripts are told.

use std::io;

use switchboard::{ClientError, CloseReason, Error, HubError, PushError, PushErrorKind};

use crate::command::{
    codes::{DONE, ENDED, NO_CONNECTION, REFUSED, TIMED_OUT, USAGE},
    escaped::escaped,
};

/// An exit code, and what is said of it.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) code: u8,
    /// `None`: nothing is to be said.
    pub(super) text: Option<String>,
}

impl Failure {
    fn new(code: u8, text: impl AsRef<str>) -> Self {
        Self { code, text: Some(escaped(text.as_ref())) }
    }

    /// The command was not given what it needs.
    pub(super) fn usage(text: impl AsRef<str>) -> Self {
        let text = escaped(text.as_ref());
        Self { code: USAGE, text: Some(format!("{text}\n\nFor more information, try '--help'.")) }
    }

    pub(super) fn refused(text: impl AsRef<str>) -> Self {
        Self::new(REFUSED, text)
    }

    /// Of a connection that is not there, or ended before it was done.
    pub(super) fn gone(text: impl AsRef<str>) -> Self {
        Self::new(ENDED, text)
    }

    pub(super) fn timed_out(text: impl AsRef<str>) -> Self {
        Self::new(TIMED_OUT, text)
    }

    /// Of whatever else there is.
    pub(super) fn other(text: impl AsRef<str>) -> Self {
        Self::new(NO_CONNECTION, text)
    }

    /// Standard output takes nothing. If its reader has gone, as `head` does, that is no failure.
    pub(super) fn output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { code: DONE, text: None },
            _ => Self::other(format!("cannot write to standard output: {error}")),
        }
    }

    pub(super) fn input(error: &io::Error) -> Self {
        Self::other(format!("cannot read standard input: {error}"))
    }

    /// Of one of the messages that were to be sent: which one, if there may be several.
    pub(super) fn at(self, number: usize) -> Self {
        Self { text: self.text.map(|text| format!("message {number}: {text}")), ..self }
    }
}

/// How a connection ended.
pub(super) fn closed(reason: &CloseReason) -> String {
    format!("the connection was closed: {reason}")
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Closed(reason) => Self::gone(closed(&reason)),
            Error::UnknownId => {
                Self::gone("gone: no connection has this ID, or none has it any more (switchboard list)")
            }
            Error::Refused => Self::gone(error.to_string()),
            Error::NotShared => {
                Self::refused("the connection is not shared: only the thread that serves it reads from it")
            }
            Error::Forbidden | Error::Unsupported | Error::OverLimit(_) => Self::refused(error.to_string()),
            Error::Timeout => Self::timed_out(error.to_string()),
            Error::QueueFull => Self::timed_out(FULL),
            other => Self::other(other.to_string()),
        }
    }
}

const FULL: &str = "the client's queue is full: the message was dropped (--wait waits until there is room)";

impl From<PushError> for Failure {
    fn from(error: PushError) -> Self {
        error.kind.into()
    }
}

impl From<PushErrorKind> for Failure {
    fn from(kind: PushErrorKind) -> Self {
        match kind {
            PushErrorKind::Unknown => Error::UnknownId.into(),
            PushErrorKind::Refused => Error::Refused.into(),
            PushErrorKind::Closed(reason) => Error::Closed(reason).into(),
            PushErrorKind::Full => Self::timed_out(FULL),
            PushErrorKind::Timeout => {
                Self::timed_out("the client did not take it in time: it was not sent, nor will it be")
            }
            PushErrorKind::Pending => Self::timed_out(
                "the client did not take all of it in time: what is left follows as soon as it does",
            ),
            PushErrorKind::Unreachable => Self::other(
                "the server cannot be reached, or has not answered in time, or a node of its cluster, or their Redis: the message may have been sent",
            ),
            PushErrorKind::Forbidden => Error::Forbidden.into(),
            PushErrorKind::OverLimit(limit) => Error::OverLimit(limit).into(),
            other => Self::other(format!("it was not sent: {other:?}")),
        }
    }
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        // What a program calls, here is an option.
        let text = error.to_string().replace("HubBuilder::token_file", "--manage-token-file FILE");
        match &error {
            HubError::Config(_) => Self::usage(text),
            HubError::Denied(_) | HubError::NoHub(_) => Self::refused(text),
            HubError::Connect(ClientError::Refused(_) | ClientError::Handshake(_)) => Self::refused(text),
            HubError::Connect(ClientError::Tls(_)) => {
                Self::other(text + " (--ca FILE trusts a CA of your own, --insecure any server)")
            }
            _ => Self::other(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_that_has_gone_is_no_failure() {
        let gone = Failure::output(&io::ErrorKind::BrokenPipe.into());
        assert_eq!((gone.code, gone.text), (DONE, None));
        assert_eq!(Failure::output(&io::ErrorKind::StorageFull.into()).code, NO_CONNECTION);
    }

    #[test]
    fn gone_refused_and_unreachable_are_told_apart() {
        for (error, code) in [
            (Error::UnknownId, ENDED),
            (Error::NotShared, REFUSED),
            (Error::Forbidden, REFUSED),
            (Error::Unreachable, NO_CONNECTION),
            (Error::Timeout, TIMED_OUT),
        ] {
            assert_eq!(Failure::from(error).code, code);
        }
        for (kind, code) in [
            (PushErrorKind::Unknown, ENDED),
            (PushErrorKind::Full, TIMED_OUT),
            (PushErrorKind::Pending, TIMED_OUT),
            (PushErrorKind::Forbidden, REFUSED),
            (PushErrorKind::Unreachable, NO_CONNECTION),
        ] {
            assert_eq!(Failure::from(kind).code, code);
        }
    }
}

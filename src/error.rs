//! The errors, in two enums that a caller can match: of starting a server, and of what connections do. And the reason why a
//! connection ended, which is a value.

use std::{fmt, io, sync::Arc};

use crate::{
    advice::on_binding,
    id::InvalidId,
    message::{CloseCode, Text},
};

/// The result of most calls of this crate. Those that start a server have [`ServerError`] in place of [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a connection, its session or the [`Hub`](crate::Hub) can report. Small: 24 bytes at most. A server that cannot be
/// started reports a [`ServerError`], and a push a [`PushError`](crate::PushError), which gives the message back, and of which
/// `?` makes one of these.
///
/// ```
/// use switchboard::{Error, WebSocket};
/// use std::time::Duration;
///
/// fn serve(ws: &WebSocket) -> switchboard::Result<()> {
///     loop {
///         match ws.read_message(Duration::from_secs(10)) {
///             Ok(message) => ws.write(message)?,
///             Err(Error::Timeout) => ws.write("still there?")?,
///             Err(Error::Closed(reason)) if reason.is_normal() => return Ok(()),
///             Err(other) => return Err(other),
///         }
///     }
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The time limit has passed. After a `read` the connection is still open, and nothing received is lost; after a
    /// `write` it is closed, because a part of the frame may have been sent. (In IRIS: `$$$CSPWebSocketTimeout`.)
    Timeout,
    /// The connection has ended; the reason says how. A normal end is reported like this, too. (In IRIS:
    /// `$$$CSPWebSocketClosed`.)
    Closed(CloseReason),
    /// A push, or a `write` in `on_client_message`, neither of which waits: the client's queue is full, and the message was
    /// dropped. The connection is still open. (With [`Overflow::Disconnect`](crate::Overflow), it is closed.)
    QueueFull,
    /// `write` got bytes that are not UTF-8 while `BinaryData` was off. Nothing was sent: call
    /// `set_binary_data(true)`, or write a [`Message::Binary`](crate::Message::Binary).
    NotUtf8,
    /// The call would have waited, and came from a thread that must not: see
    /// [`PushErrorKind::MustNotWait`](crate::PushErrorKind::MustNotWait).
    MustNotWait,
    /// No connection has this ID: it never existed, or it has ended.
    UnknownId,
    /// The connection was not opened: its handshake was refused, or came to nothing, while the call waited for it.
    Refused,
    /// The connection is not open yet, and the call came from its own
    /// [`on_pre_server`](crate::WebSocketServer::on_pre_server): it would wait for itself.
    NotOpen,
    /// A text cannot be the ID of a connection.
    InvalidId(InvalidId),
    /// The connection exists, but is not shared: only its own thread may read from it, and nothing of it can be
    /// [read again](crate::WebSocket::read_delivery).
    NotShared,
    /// Nothing was stored: the session holds [as much as it may](crate::Limits::max_session_bytes), or the store is
    /// [full](crate::Limits::max_sessions) of sessions that all have open connections.
    SessionsFull,
    /// The session has another ID now ([`Session::renew`](crate::Session::renew)), and nothing can be stored under the old one.
    SessionRenewed,
    /// The session store failed, with this error.
    SessionStore(Box<dyn std::error::Error + Send + Sync>),
    /// [`Session::renew`](crate::Session::renew) after the answer to the request: the client cannot be told a new ID any more.
    TooLate,
    /// There would be too much of what this says. Nothing was changed.
    OverLimit(OverLimit),
    /// The topic remembers nothing: see [`ServerBuilder::history`](crate::ServerBuilder::history). Nothing was changed.
    NoHistory,
    /// The hub is that of another process, and there is no link to it, or no answer has come in time. In the second case what was
    /// asked may have been done.
    Unreachable,
    /// The hub is that of another process, and the token, or the listener that it was connected to, is for reading only.
    Forbidden,
    /// The hub is that of another process, which has an older version of this library that does not know what was asked.
    Unsupported,
    /// The hub is that of another process, where this went wrong.
    Remote(Box<str>),
}

/// What there would be too much of; see [`Error::OverLimit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OverLimit {
    /// The name of a user has 1 to 256 bytes: [`Opening::set_user`](crate::Opening::set_user).
    User,
    /// A connection has up to 16 tags, of 1 KiB together, whose keys are not empty:
    /// [`Opening::set_tag`](crate::Opening::set_tag).
    Tags,
    /// The name of a topic has at least one byte, and at most
    /// [`Limits::max_topic_name`](crate::Limits::max_topic_name).
    TopicName,
    /// The connection has joined [`Limits::max_topics`](crate::Limits::max_topics) topics already.
    Topics,
    /// The topics of all connections together take [`Limits::max_topics_bytes`](crate::Limits::max_topics_bytes).
    AllTopics,
    /// An idempotency key has 1 to 128 bytes: [`Publication::idempotency_key`](crate::Publication::idempotency_key).
    IdempotencyKey,
    /// To or from the hub of another process, a message may have as many bytes as its management listener takes
    /// ([`Limits::max_message_size`](crate::Limits::max_message_size)), less some for what is said of it.
    Message,
    /// Through the hubs that other processes have of a server, only so many calls may wait, and so many connections be open, at the same
    /// time.
    Calls,
}

/// For calls that do not wait: that there is nothing yet is no error for them.
pub(crate) fn if_there<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(Error::Timeout) => Ok(None),
        other => other.map(Some),
    }
}

impl Error {
    /// Whether this is [`Error::Timeout`].
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout)
    }

    /// Whether this is [`Error::Closed`].
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("timed out"),
            Self::Closed(reason) => write!(f, "connection closed: {reason}"),
            Self::QueueFull => f.write_str("the client's queue is full: the message was dropped"),
            Self::NotUtf8 => f.write_str(
                "text must be UTF-8: call set_binary_data(true) or write a Message::Binary to send other bytes",
            ),
            Self::MustNotWait => f.write_str("this thread must not wait: it would wait for itself"),
            Self::UnknownId => f.write_str("no connection has this ID"),
            Self::Refused => f.write_str("the connection was refused in its opening handshake"),
            Self::NotOpen => f.write_str("the connection is not open before its on_pre_server has returned"),
            Self::InvalidId(e) => e.fmt(f),
            Self::NotShared => f.write_str("the connection is not shared: call set_shared_connection in on_pre_server"),
            Self::SessionsFull => f.write_str("the session store is full"),
            Self::SessionRenewed => f.write_str("the session has another ID now: the client has to come again"),
            Self::SessionStore(e) => write!(f, "the session store failed: {e}"),
            Self::TooLate => f.write_str("the request is answered: no cookie can be set any more"),
            Self::OverLimit(limit) => limit.fmt(f),
            Self::NoHistory => f.write_str("the topic remembers nothing: set ServerBuilder::history for it"),
            Self::Unreachable => f.write_str("the server cannot be reached, or has not answered in time, or a node of its cluster, or their Redis"),
            Self::Forbidden => f.write_str("here, or with this token, you may only read"),
            Self::Unsupported => f.write_str("the server has an older version, which cannot do this"),
            Self::Remote(text) => f.write_str(text),
        }
    }
}

impl fmt::Display for OverLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "the name of a user must have 1 to 256 bytes",
            Self::Tags => "a connection has at most 16 tags, of 1 KiB together, whose keys are not empty",
            Self::TopicName => "the name of a topic is empty, or too long (max_topic_name)",
            Self::Topics => "the connection has too many topics (max_topics)",
            Self::AllTopics => "all topics together take too much memory (max_topics_bytes)",
            Self::IdempotencyKey => "an idempotency key must have 1 to 128 bytes",
            Self::Message => {
                "the message is longer than what may go between processes: max_message_size of Manage::limits; without these 4 MiB, or \
                 that of the server (--max-message-size) if it is more"
            }
            Self::Calls => "too many calls from other processes wait, or too many connections are open there",
        })
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::InvalidId(e) => Some(e),
            Self::SessionStore(e) => Some(&**e),
            _ => None,
        }
    }
}

impl From<OverLimit> for Error {
    fn from(limit: OverLimit) -> Self {
        Self::OverLimit(limit)
    }
}

impl From<InvalidId> for Error {
    fn from(error: InvalidId) -> Self {
        Self::InvalidId(error)
    }
}

/// Why a server cannot be started, or cannot go on: a mistake that whoever runs the program can mend. Returned by
/// [`ServerBuilder::bind`](crate::ServerBuilder::bind), [`Server::run`](crate::Server::run); its text is one line that
/// says what is wrong.
///
/// ```
/// use switchboard::{Server, ServerError};
///
/// match Server::builder().listen("127.0.0.1").bind() {
///     Err(ServerError::Bind(e)) => eprintln!("not an address that can be listened on: {}", e.address),
///     Err(other) => eprintln!("{other}"),
///     Ok(_) => unreachable!("there is no port"),
/// }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum ServerError {
    /// An address could not be listened on.
    Bind(Box<BindError>),
    /// A certificate, a key or a password cannot be used. The text says which, and what to do.
    Tls(TlsError),
    /// A setting cannot work. The text says which, and what to do.
    Config(Box<str>),
    /// Another error of the operating system.
    Io(io::Error),
}

/// The address that could not be listened on, and why.
#[derive(Debug)]
#[non_exhaustive]
pub struct BindError {
    /// The address, as it was given.
    pub address: String,
    /// The error of the operating system.
    pub source: io::Error,
}

impl ServerError {
    pub(crate) fn config(text: impl Into<String>) -> Self {
        Self::Config(text.into().into())
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bind(e) => {
                let BindError { address, source } = &**e;
                write!(f, "cannot listen on {address}: {source}{}", on_binding(address, source))
            }
            Self::Tls(e) => e.fmt(f),
            Self::Config(text) => f.write_str(text),
            Self::Io(e) => e.fmt(f),
        }
    }
}

impl std::error::Error for ServerError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Bind(e) => Some(&e.source),
            Self::Io(e) => Some(e),
            Self::Tls(_) | Self::Config(_) => None,
        }
    }
}

/// Why a certificate, a key or a password cannot be used, or not as it was asked for. The text is one line, which names what it
/// is about, and says what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsError(Box<str>);

impl TlsError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into().into())
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TlsError {}

impl From<TlsError> for ServerError {
    fn from(error: TlsError) -> Self {
        Self::Tls(error)
    }
}

impl From<io::Error> for ServerError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// How a connection ended: the close code, its text, and which side began. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct CloseReason(Arc<Inner>);

#[derive(PartialEq, Eq)]
struct Inner {
    code: CloseCode,
    text: Text,
    by: ClosedBy,
}

/// Which side ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClosedBy {
    /// The client sent the first close frame. At the client's own end ([`Client`](crate::Client)): the program, or a rule or a limit that
    /// the server broke.
    Client,
    /// The server did. At the server's own end: the handler, another thread, a rule or a limit that the client broke, or the shutdown.
    Server,
    /// Neither side: the connection broke, or ended without a close frame.
    Network,
}

impl CloseReason {
    pub(crate) fn new(code: CloseCode, text: impl Into<Text>, by: ClosedBy) -> Self {
        Self(Arc::new(Inner { code, text: text.into(), by }))
    }

    /// The close code; 1005 for a close frame without one, 1006 where there was no close frame.
    pub fn code(&self) -> CloseCode {
        self.0.code
    }

    /// The text of the close frame, often empty; for a broken connection, what broke it.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    /// Which side began.
    pub fn by(&self) -> ClosedBy {
        self.0.by
    }

    /// Whether nothing went wrong: 1000, 1001 (going away), or a close frame without a code.
    pub fn is_normal(&self) -> bool {
        matches!(self.0.code, CloseCode::NORMAL | CloseCode::GOING_AWAY | CloseCode::NO_STATUS)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match self.by() {
            ClosedBy::Client => "by the client",
            ClosedBy::Server => "by the server",
            ClosedBy::Network => "broken",
        };
        write!(f, "{} {by}", self.code())?;
        if self.text().is_empty() { Ok(()) } else { write!(f, ": {}", self.text()) }
    }
}

impl fmt::Debug for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloseReason({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_small() {
        assert!(size_of::<Error>() <= 24 && size_of::<Result<()>>() <= 24);
    }

    #[test]
    fn is_normal_and_display() {
        let reason = |code| CloseReason::new(CloseCode(code), "", ClosedBy::Client);
        assert!([1000, 1001, 1005].iter().all(|&c| reason(c).is_normal()));
        assert!([1002, 1006, 1011, 4000].iter().all(|&c| !reason(c).is_normal()));
        assert_eq!(
            CloseReason::new(CloseCode(4000), "bye", ClosedBy::Server).to_string(),
            "4000 by the server: bye"
        );
    }
}

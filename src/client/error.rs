//! Why there is no connection.

use std::{fmt, io};

use http::header;

use super::HandshakeResponse;
use crate::{
    error::{Error, TlsError},
    shown::{Quoted, Shown},
};

/// Why a [`Client`](crate::Client) could not connect. What happens later is an [`Error`](crate::Error).
///
/// ```
/// use switchboard::{Client, ClientError, StatusCode};
///
/// # fn main() {
/// match Client::connect("ws://127.0.0.1:1/") {
///     Ok(client) => client.write("hello").unwrap_or_default(),
///     Err(ClientError::Refused(response)) if response.status() == StatusCode::UNAUTHORIZED => {
///         eprintln!("it wants a password")
///     }
///     Err(e) if e.is_timeout() => eprintln!("try again later: {e}"),
///     Err(e) => eprintln!("{e}"),
/// }
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum ClientError {
    /// The URL or a setting cannot work. The text says which, and what to do. Nothing was tried.
    Config(Box<str>),
    /// The host's name could not be looked up.
    Resolve(Box<ConnectError>),
    /// There is no connection to the server or, where there is one, to the proxy: all addresses were tried, and this is the last.
    Connect(Box<ConnectError>),
    /// The proxy has refused, with this response.
    Proxy(Box<HandshakeResponse>),
    /// TLS: the server's certificate is not to be trusted, or the two sides have nothing in common. The text says what.
    Tls(TlsError),
    /// The server has answered, but not with a WebSocket: with 401, 404 or 503, for example. Redirects are not followed:
    /// [`location`](HandshakeResponse::location) says where to.
    Refused(Box<HandshakeResponse>),
    /// The server, or the proxy, has answered with what is no answer to this handshake (RFC 6455, section 4.1), or no HTTP at all.
    /// The text says what is wrong.
    Handshake(Box<str>),
    /// The connection broke, or was ended by the other side, during this step.
    Broken(Box<BrokenError>),
    /// [`connect_timeout`](crate::ClientBuilder::connect_timeout) has passed; this is the step that it was waiting in.
    Timeout(ConnectStep),
    /// Another error of the operating system: no thread or no descriptor, for example.
    Io(io::Error),
    /// The thread is one of a server's gateway, which everybody else would wait for meanwhile: in
    /// [`on_client_message`](crate::WebSocketServer::on_client_message) or `on_post_server` of a shared connection with
    /// [`Limits::workers`](crate::Limits::workers) 0, or in a [`HubObserver`](crate::HubObserver). Nothing was tried.
    MustNotWait,
    /// What the program does [before each attempt](crate::ReconnectingBuilder::before_attempt), or for its
    /// [greeting](crate::ReconnectingBuilder::greeting), has failed, with this error.
    Prepare(Box<dyn std::error::Error + Send + Sync>),
}

/// Where there is no connection to, and why.
#[derive(Debug)]
#[non_exhaustive]
pub struct ConnectError {
    /// The address, the name, or the path of the Unix socket.
    pub address: String,
    /// The error of the operating system.
    pub source: io::Error,
}

/// Where a connection broke, and how.
#[derive(Debug)]
#[non_exhaustive]
pub struct BrokenError {
    /// What was being done.
    pub step: ConnectStep,
    /// The error of the operating system; `UnexpectedEof` if the other side has ended the connection.
    pub source: io::Error,
}

/// What a client does to connect, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectStep {
    /// The host's name is looked up.
    Resolve,
    /// The addresses are tried.
    Connect,
    /// The proxy is asked for a connection.
    Proxy,
    /// The TLS handshake.
    Tls,
    /// The opening handshake of the WebSocket.
    Handshake,
}

impl ClientError {
    /// Whether this is [`ClientError::Timeout`].
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout(_))
    }

    /// Whether the next attempt will hardly do better, unless somebody changes something, here or there: a setting that cannot work,
    /// a server that is not to be trusted or speaks another protocol, and a response that says so: redirects, and those of
    /// 400 to 499, but for 408, 425 and 429.
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Config(_) | Self::Tls(_) | Self::Handshake(_) | Self::MustNotWait => true,
            Self::Refused(response) | Self::Proxy(response) => {
                let status = response.status();
                !status.is_server_error() && !matches!(status.as_u16(), 408 | 425 | 429)
            }
            _ => false,
        }
    }

    /// What the server, or the proxy, has answered, if it has refused.
    pub fn response(&self) -> Option<&HandshakeResponse> {
        match self {
            Self::Refused(response) | Self::Proxy(response) => Some(response),
            _ => None,
        }
    }

    pub(super) fn config(text: impl Into<Box<str>>) -> Self {
        Self::Config(text.into())
    }

    pub(super) fn handshake(text: impl Into<Box<str>>) -> Self {
        Self::Handshake(text.into())
    }

    pub(super) fn connect(address: impl fmt::Display, source: io::Error) -> Self {
        Self::Connect(Box::new(ConnectError { address: address.to_string(), source }))
    }

    pub(super) fn broken(step: ConnectStep, source: io::Error) -> Self {
        Self::Broken(Box::new(BrokenError { step, source }))
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(text) | Self::Handshake(text) => f.write_str(text),
            Self::Tls(e) => e.fmt(f),
            Self::Resolve(e) => write!(f, "cannot find {}: {}", Shown(&e.address), e.source),
            Self::Connect(e) => write!(f, "cannot connect to {}: {}", Shown(&e.address), e.source),
            Self::Proxy(response) => write!(f, "the proxy refused with {}", response.status()),
            Self::Refused(response) => {
                write!(f, "the server refused with {}", response.status())?;
                match response.headers().get(header::LOCATION) {
                    Some(to) if response.status().is_redirection() => {
                        write!(f, ", to {}", Quoted(String::from_utf8_lossy(to.as_bytes())))
                    }
                    _ => Ok(()),
                }
            }
            Self::Broken(e) if e.source.kind() == io::ErrorKind::UnexpectedEof => {
                write!(f, "the other side ended the connection during {}", e.step)
            }
            Self::Broken(e) => write!(f, "the connection broke during {}: {}", e.step, e.source),
            Self::Timeout(step) => write!(f, "timed out during {step}"),
            Self::Io(e) => e.fmt(f),
            Self::MustNotWait => Error::MustNotWait.fmt(f),
            Self::Prepare(e) => e.fmt(f),
        }
    }
}

impl fmt::Display for ConnectStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Resolve => "the lookup of the host's name",
            Self::Connect => "the attempt to connect",
            Self::Proxy => "the request to the proxy",
            Self::Tls => "the TLS handshake",
            Self::Handshake => "the opening handshake",
        })
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Resolve(e) | Self::Connect(e) => Some(&e.source),
            Self::Broken(e) => Some(&e.source),
            Self::Io(e) => Some(e),
            Self::Prepare(e) => Some(&**e),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_small() {
        assert!(size_of::<ClientError>() <= 24);
    }
}

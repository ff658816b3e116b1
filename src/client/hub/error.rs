//! Why there is no hub.

use std::{fmt, io};

use crate::client::error::ClientError;

/// Why the hub of another process could not be [connected](crate::HubBuilder::connect) to. Its text is one line that says what to do.
/// What happens later is an [`Error`](crate::Error).
#[derive(Debug)]
#[non_exhaustive]
pub enum HubError {
    /// The URL, the token or a setting cannot work. Nothing was tried.
    Config(Box<str>),
    /// The token is missing or wrong.
    Denied(Box<str>),
    /// What listens there is no management listener, or not one of a server that links can be made to.
    NoHub(Box<str>),
    /// There is no connection, for this reason.
    Connect(ClientError),
}

impl HubError {
    /// Whether the next attempt will hardly do better, unless somebody changes something, here or there: as
    /// [`ClientError::is_lasting`].
    pub fn is_lasting(&self) -> bool {
        match self {
            Self::Config(_) | Self::Denied(_) | Self::NoHub(_) => true,
            Self::Connect(error) => error.is_lasting(),
        }
    }

    /// Whether [`connect_timeout`](crate::HubBuilder::connect_timeout) has passed.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Connect(error) if error.is_timeout())
    }
}

/// What whoever runs the programs may have forgotten.
fn advice(error: &ClientError) -> &'static str {
    let ClientError::Connect(error) = error else { return "" };
    match error.source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ": does the server run, and with this management listener?"
        }
        io::ErrorKind::PermissionDenied => {
            ": only the server's user may open the socket, unless its mode (`,mode=0660`) says something else"
        }
        _ => "",
    }
}

impl fmt::Display for HubError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(text) | Self::Denied(text) | Self::NoHub(text) => f.write_str(text),
            Self::Connect(error) => write!(f, "{error}{}", advice(error)),
        }
    }
}

impl std::error::Error for HubError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect(error) => std::error::Error::source(error),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_small() {
        assert!(size_of::<HubError>() <= 24);
    }
}

//! Unguessable names.

use std::{fmt, sync::Arc};

/// Names a connection (`WebSocketID`): unique, unguessable, printable, and safe in a URL path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WebSocketId(Arc<str>);

impl WebSocketId {
    pub(crate) fn random() -> Self {
        Self(random().into())
    }

    /// The ID as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for WebSocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for WebSocketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebSocketId({self})")
    }
}

/// For an ID that was saved, or came from elsewhere.
impl From<&str> for WebSocketId {
    fn from(id: &str) -> Self {
        Self(id.into())
    }
}

/// For an ID that was saved, or came from elsewhere.
impl From<String> for WebSocketId {
    fn from(id: String) -> Self {
        Self(id.into())
    }
}

/// 128 random bits, in 26 letters and digits that are safe in a URL path and in a cookie.
///
/// # Panics
/// If the operating system has no random numbers, which on Unix happens only early at boot.
pub(crate) fn random() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("random numbers from the operating system");
    data_encoding::BASE32_NOPAD.encode(&bytes).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    #[test]
    fn is_printable_and_new_each_time() {
        let (a, b) = (super::random(), super::random());
        assert_eq!(a.len(), 26);
        assert!(a.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()));
        assert_ne!(a, b);
    }
}

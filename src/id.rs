//! Unguessable names.

use std::fmt;

use smol_str::SmolStr;

/// Names a connection (`WebSocketID`): unique, unguessable, printable, and safe in a URL path.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WebSocketId(SmolStr);

impl WebSocketId {
    pub(crate) fn random() -> Self {
        Self(random())
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

/// 128 random bits in 22 letters, digits, `-` and `_`: safe in a URL path and in a cookie, and short enough to need no
/// memory elsewhere.
///
/// # Panics
/// If the operating system has no random numbers, which on Unix happens only early at boot.
pub(crate) fn random() -> SmolStr {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("random numbers from the operating system");
    let mut text = [0; 22];
    data_encoding::BASE64URL_NOPAD.encode_mut(&bytes, &mut text);
    SmolStr::new(str::from_utf8(&text).expect("base64 is ASCII"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn is_printable_and_new_each_time() {
        let (a, b) = (super::random(), super::random());
        assert!(a.len() == 22 && !a.is_heap_allocated());
        assert!(a.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c)));
        assert_ne!(a, b);
    }
}

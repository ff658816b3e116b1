//! Names of sessions.

use std::{fmt, str::FromStr};

use smol_str::SmolStr;

use crate::id::random_bytes;

/// Bytes of the longest ID; the server's own have 22.
const MAX_LEN: usize = 256;

/// So many of the characters the log shows at most, and never more than a quarter.
const SHORT_LEN: usize = 6;

/// Names a session (`SessionId`): unguessable, printable, and safe in a cookie.
///
/// The server's own IDs have 22 letters, digits, `-` and `_`: 128 random bits. Their cookie holds the ID, a dot and its
/// signature, so whoever has only the ID cannot take over the session. The IDs of your own [`SessionStore`](crate::SessionStore)
/// may be anything that a cookie may hold; if they alone give access, keep them as secret as the cookie.
///
/// ```
/// use switchboard::SessionId;
///
/// let id: SessionId = "41d8cd98f00b204e9800998ecf8427e".parse().unwrap();
/// assert_eq!(id.as_str().len(), 31);
/// assert_eq!(format!("{id:?}"), "SessionId(41d8cd…)");
/// assert!(SessionId::new("not; in a cookie").is_err());
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(SmolStr);

impl SessionId {
    /// An ID made by your own [`SessionStore`](crate::SessionStore), or sent to it by a client.
    ///
    /// # Errors
    /// If it is empty, longer than 256 bytes, or has a character that a cookie's value may not have (RFC 6265, section 4.1.1):
    /// only visible ASCII, without `"`, `,`, `;` and `\`.
    pub fn new(id: impl AsRef<str>) -> Result<Self, InvalidSessionId> {
        let id = id.as_ref();
        let is_good = (1..=MAX_LEN).contains(&id.len()) && id.bytes().all(is_cookie_octet);
        if is_good { Ok(Self(SmolStr::new(id))) } else { Err(InvalidSessionId(())) }
    }

    /// 128 random bits in 22 characters: short enough to need no memory elsewhere.
    ///
    /// # Panics
    /// As [`random_bytes`].
    pub(super) fn random() -> Self {
        let mut text = [0; 22];
        data_encoding::BASE64URL_NOPAD.encode_mut(&random_bytes::<16>(), &mut text);
        Self(SmolStr::new(str::from_utf8(&text).expect("base64 is ASCII")))
    }

    /// The ID as text, all of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How it begins, for a log: 6 characters, or a quarter of a short one.
    pub fn short(&self) -> &str {
        &self.0[..SHORT_LEN.min(self.0.len() / 4)]
    }
}

/// RFC 6265, section 4.1.1.
fn is_cookie_octet(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\",;\\".contains(&byte)
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Shows only the first characters: with the whole ID from a log, one might take over a session.
impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({}…)", self.short())
    }
}

/// As [`SessionId::new`].
impl FromStr for SessionId {
    type Err = InvalidSessionId;

    fn from_str(text: &str) -> Result<Self, InvalidSessionId> {
        Self::new(text)
    }
}

/// A text that cannot be a [`SessionId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidSessionId(());

impl fmt::Display for InvalidSessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not the ID of a session: it has 1 to {MAX_LEN} characters that a cookie may hold")
    }
}

impl std::error::Error for InvalidSessionId {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_printable_and_new_each_time() {
        let (a, b) = (SessionId::random(), SessionId::random());
        assert!(a.0.len() == 22 && !a.0.is_heap_allocated());
        assert!(a.0.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c)));
        assert_ne!(a, b);
        assert_eq!(size_of::<Option<SessionId>>(), 24, "a part of each connection");
    }

    #[test]
    fn is_bounded_and_safe_in_a_cookie() {
        let long = "x".repeat(MAX_LEN);
        for good in ["a", "s%3Aabc.def", "{1+2}", &long] {
            assert_eq!(SessionId::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "a b", "a;b", "a,b", "\"a\"", "a\\b", "é", "a\r\nb", "\u{7f}", &format!("{long}x")] {
            let error = bad.parse::<SessionId>().unwrap_err();
            assert!(error.to_string().contains("1 to 256"), "{bad}");
        }
    }

    #[test]
    fn is_never_shown_whole() {
        let shown = |id: &str| format!("{:?}", SessionId::new(id).unwrap());
        assert_eq!(shown("ada"), "SessionId(…)");
        assert_eq!(shown("adalovelace"), "SessionId(ad…)");
        assert_eq!(shown(&"x".repeat(256)), "SessionId(xxxxxx…)");
    }
}

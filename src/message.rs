//! What is sent and received: whole messages, pieces of them, and close codes.
//!
//! tungstenite's types stay private, so that a new major version of it does not require a new major version of this crate.

use std::{
    borrow::{Borrow, Cow},
    fmt,
    ops::{Deref, Range},
    str::Utf8Error,
    sync::Arc,
};

use bytes::Bytes;
use tungstenite::{Utf8Bytes, protocol::frame::coding};

use crate::buffered::{Buffered, MIN_SHARED, share};

/// One WebSocket message (RFC 6455, section 5.6), or the piece of one that a [`read`](crate::WebSocket::read) returned.
///
/// The protocol has these two kinds, and no others: a `match` needs no further arm.
///
/// Cloning it copies no bytes. A received message keeps the buffer in which it arrived in memory: up to 2 KiB, or up to twice
/// its own size. A program that keeps many short messages for a long time should copy their contents.
///
/// ```
/// use switchboard::Message;
/// let message = Message::from("hello");
/// assert_eq!(message.as_text(), Some("hello"));
/// assert_eq!(message.len(), 5);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// UTF-8 text.
    Text(Text),
    /// Bytes of any kind.
    Binary(Bytes),
}

impl Message {
    /// The text, if this is text.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    /// The bytes, of either kind.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The bytes, of either kind, without a copy.
    pub fn into_bytes(self) -> Bytes {
        match self {
            Self::Text(text) => text.into_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The text, if this is text, without a copy. A `String` of it: `String::from(text)`.
    pub fn into_text(self) -> Option<Text> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether it has no bytes. An empty message is a message, too.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is text.
    pub fn is_text(&self) -> bool {
        matches!(self, Self::Text(_))
    }

    /// Whether it is binary.
    pub fn is_binary(&self) -> bool {
        matches!(self, Self::Binary(_))
    }

    /// A large payload counts once from now on, however many hold it.
    pub(crate) fn shared(self, buffered: &Arc<Buffered>) -> Self {
        match self {
            small if small.len() < MIN_SHARED => small,
            Self::Binary(bytes) => Self::Binary(share(bytes, buffered)),
            // This never fails, because it was text before. Only unsafe code could avoid the check.
            Self::Text(text) => {
                Self::Text(Text(Utf8Bytes::try_from(share(text.into_bytes(), buffered)).unwrap_or_default()))
            }
        }
    }

    /// At most `len` characters (text) or bytes (binary), from byte `at` on, which must be the start of a character.
    pub(crate) fn piece(&self, at: usize, len: usize) -> Self {
        self.piece_within(at..self.len(), len)
    }

    /// At most `len` characters (text) or bytes (binary) of these bytes, which must be whole characters.
    pub(crate) fn piece_within(&self, bytes: Range<usize>, len: usize) -> Self {
        let Range { start, end } = bytes;
        match self {
            Self::Text(text) => {
                let part = &text[start..end];
                // A text has at most as many characters as bytes.
                let cut = if part.len() <= len { None } else { part.char_indices().nth(len) };
                Self::Text(text.slice(start..cut.map_or(end, |(cut, _)| start + cut)))
            }
            Self::Binary(bytes) => Self::Binary(bytes.slice(start..end.min(start.saturating_add(len)))),
        }
    }
}

/// Compares the text; a binary message equals no text.
impl PartialEq<str> for Message {
    fn eq(&self, other: &str) -> bool {
        self.as_text() == Some(other)
    }
}

/// Compares the text; a binary message equals no text.
impl PartialEq<&str> for Message {
    fn eq(&self, other: &&str) -> bool {
        self == *other
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

/// UTF-8 text in a shared buffer: cloning and slicing copy nothing. It dereferences to [`str`].
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text(pub(crate) Utf8Bytes);

impl Text {
    /// A text from a static string, without a copy.
    pub const fn from_static(text: &'static str) -> Self {
        Self(Utf8Bytes::from_static(text))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The bytes of the text, without a copy.
    pub fn into_bytes(self) -> Bytes {
        self.0.into()
    }

    fn slice(&self, range: Range<usize>) -> Self {
        if range == (0..self.len()) {
            return self.clone();
        }
        let bytes: &Bytes = self.0.as_ref();
        // This never fails, because the range is cut between characters. Only unsafe code could avoid the check.
        Self(Utf8Bytes::try_from(bytes.slice(range)).unwrap_or_default())
    }
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self
    }
}

impl AsRef<str> for Text {
    fn as_ref(&self) -> &str {
        self
    }
}

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<Cow<'_, str>> for Text {
    fn from(text: Cow<'_, str>) -> Self {
        match text {
            Cow::Borrowed(text) => text.into(),
            Cow::Owned(text) => text.into(),
        }
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.as_str().to_owned()
    }
}

impl TryFrom<Bytes> for Text {
    type Error = Utf8Error;
    fn try_from(bytes: Bytes) -> Result<Self, Utf8Error> {
        Utf8Bytes::try_from(bytes).map(Self)
    }
}

/// What [`write`](crate::WebSocket::write) and the push methods send: anything that is text or bytes.
///
/// A [`Message`] keeps its kind. In a push, strings are text and bytes are binary; in `write`,
/// [`set_binary_data`](crate::WebSocket::set_binary_data) decides.
#[derive(Clone, Debug)]
pub struct Payload(pub(crate) Kind);

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Message(Message),
    Str(Text),
    Bytes(Bytes),
    /// Of what is queued under this key, only the newest is wanted.
    Newest(Box<(Arc<str>, Self)>),
}

impl Payload {
    /// A value that replaces an older one: of what is queued for a slow client under this key, only the newest is sent, if the
    /// connection has [`Overflow::KeepNewest`](crate::Overflow::KeepNewest). Else, and in a `write`, it is as `data` alone. Keys are
    /// the program's, short and few: a connection's queue keeps each of those that are in it.
    ///
    /// ```
    /// # fn example(hub: &switchboard::Hub, id: &switchboard::WebSocketId) -> switchboard::Result<()> {
    /// use switchboard::{Audience, Payload};
    ///
    /// hub.push(id, Payload::newest("progress", "41 %"))?;
    /// hub.push(id, Payload::newest("progress", "42 %"))?;
    /// hub.broadcast(Audience::Path("/sensors"), Payload::newest("kitchen", "21.5"))?;
    /// # Ok(()) }
    /// ```
    pub fn newest(key: impl Into<Arc<str>>, data: impl Into<Self>) -> Self {
        Self(Kind::Newest(Box::new((key.into(), data.into().0))))
    }

    /// The message, and the key under which a newer one replaces it.
    pub(crate) fn split(self) -> (Message, Option<Arc<str>>) {
        match self.0 {
            Kind::Newest(newest) => (Self(newest.1).into_message(), Some(newest.0)),
            _ => (self.into_message(), None),
        }
    }

    /// Strings become text, bytes become binary.
    pub(crate) fn into_message(self) -> Message {
        match self.0 {
            Kind::Message(message) => message,
            Kind::Str(text) => Message::Text(text),
            Kind::Bytes(bytes) => Message::Binary(bytes),
            Kind::Newest(newest) => Self(newest.1).into_message(),
        }
    }

    /// Strings and bytes become binary, or else text, for which bytes have to be UTF-8. A message keeps its kind.
    pub(crate) fn into_message_as(self, binary: bool) -> Result<Message, Utf8Error> {
        match self.0 {
            Kind::Message(message) => Ok(message),
            Kind::Str(text) if binary => Ok(Message::Binary(text.into_bytes())),
            Kind::Str(text) => Ok(Message::Text(text)),
            Kind::Bytes(bytes) if binary => Ok(Message::Binary(bytes)),
            Kind::Bytes(bytes) => Text::try_from(bytes).map(Message::Text),
            Kind::Newest(newest) => Self(newest.1).into_message_as(binary),
        }
    }
}

macro_rules! payload_from {
    ($($from:ty, $value:ident => $kind:expr;)*) => {
        $(
            impl From<$from> for Payload {
                fn from($value: $from) -> Self {
                    Self($kind)
                }
            }
            impl From<$from> for Message {
                fn from(value: $from) -> Self {
                    Payload::from(value).into_message()
                }
            }
        )*
    };
}

payload_from! {
    &str, v => Kind::Str(v.into());
    String, v => Kind::Str(v.into());
    &String, v => Kind::Str(v.as_str().into());
    Cow<'_, str>, v => Kind::Str(v.into());
    Box<str>, v => Kind::Str(String::from(v).into());
    Arc<str>, v => Kind::Str((&*v).into());
    &Arc<str>, v => Kind::Str((&**v).into());
    Text, v => Kind::Str(v);
    &Text, v => Kind::Str(v.clone());
    &[u8], v => Kind::Bytes(Bytes::copy_from_slice(v));
    &Vec<u8>, v => Kind::Bytes(Bytes::copy_from_slice(v));
    Vec<u8>, v => Kind::Bytes(v.into());
    &Bytes, v => Kind::Bytes(v.clone());
    Bytes, v => Kind::Bytes(v);
}

impl<const N: usize> From<&[u8; N]> for Payload {
    fn from(bytes: &[u8; N]) -> Self {
        bytes.as_slice().into()
    }
}

impl From<Message> for Payload {
    fn from(message: Message) -> Self {
        Self(Kind::Message(message))
    }
}

impl From<&Message> for Payload {
    fn from(message: &Message) -> Self {
        Self(Kind::Message(message.clone()))
    }
}

/// The number that says why a connection was closed (RFC 6455, section 7.4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// 1000: the connection is no longer needed.
    pub const NORMAL: Self = Self(1000);
    /// 1001: the server shuts down, or the browser leaves the page.
    pub const GOING_AWAY: Self = Self(1001);
    /// 1002: the peer broke the protocol.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// 1003: data of a kind that the receiver does not accept.
    pub const UNSUPPORTED: Self = Self(1003);
    /// 1005: the close frame had no code. Never sent.
    pub const NO_STATUS: Self = Self(1005);
    /// 1006: the connection ended without a close frame. Never sent.
    pub const ABNORMAL: Self = Self(1006);
    /// 1007: text that is not UTF-8.
    pub const INVALID_DATA: Self = Self(1007);
    /// 1008: the message violates a policy of the receiver.
    pub const POLICY: Self = Self(1008);
    /// 1009: the message is larger than the receiver's limit.
    pub const TOO_BIG: Self = Self(1009);
    /// 1011: the server failed, such as a handler with an error or a panic.
    pub const INTERNAL_ERROR: Self = Self(1011);
    /// 1012: the server restarts.
    pub const RESTART: Self = Self(1012);
    /// 1013: the client is too slow, or the server is overloaded: try again later.
    pub const TRY_AGAIN: Self = Self(1013);

    /// Whether it may be sent in a close frame: 1000 to 1003, 1007 to 1014, 3000 to 4999.
    pub fn is_sendable(self) -> bool {
        // tungstenite does not know 1014 (bad gateway), which was registered after the RFC.
        self.0 == 1014 || coding::CloseCode::from(self.0).is_allowed()
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloseCode({})", self.0)
    }
}

impl From<u16> for CloseCode {
    fn from(code: u16) -> Self {
        Self(code)
    }
}

impl From<CloseCode> for u16 {
    fn from(code: CloseCode) -> Self {
        code.0
    }
}

impl PartialEq<u16> for CloseCode {
    fn eq(&self, other: &u16) -> bool {
        self.0 == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        let text = Message::from("aä🎉z");
        assert_eq!(text.piece(0, 3), "aä🎉");
        assert_eq!(text.piece(7, 3), "z");
        assert_eq!(text.piece(0, 4), "aä🎉z");
        assert_eq!(text.piece(1, 1), "ä");
        assert_eq!(text.piece(1, usize::MAX), "ä🎉z");
    }

    #[test]
    fn binary_is_cut_between_bytes() {
        let binary = Message::from(vec![1, 2, 3]);
        assert_eq!(binary.piece(0, 2).as_bytes(), [1, 2]);
        assert_eq!(binary.piece(2, usize::MAX).as_bytes(), [3]);
    }

    #[test]
    fn whatever_is_text_can_be_sent() {
        let shared: Arc<str> = "x".into();
        let payloads: [Payload; 8] = [
            "x".into(),
            String::from("x").into(),
            (&String::from("x")).into(),
            Cow::Borrowed("x").into(),
            Cow::<str>::Owned("x".into()).into(),
            Box::<str>::from("x").into(),
            (&shared).into(),
            shared.into(),
        ];
        for payload in payloads {
            let text = payload.into_message().into_text().unwrap();
            assert_eq!(String::from(text), "x");
        }
        assert_eq!(Message::from(vec![1]).into_text(), None);
        assert!(Message::from(&Bytes::from_static(b"x")).is_binary());
    }

    #[test]
    fn binary_data_decides_the_kind_of_strings_and_bytes() {
        let as_kind = |payload: Payload, binary| payload.into_message_as(binary).map(|m| m.is_binary());
        assert_eq!(as_kind("x".into(), false), Ok(false));
        assert_eq!(as_kind("x".into(), true), Ok(true));
        assert_eq!(as_kind(b"x".into(), false), Ok(false));
        assert!(as_kind([0xff].as_slice().into(), false).is_err());
        assert_eq!(as_kind([0xff].as_slice().into(), true), Ok(true));
        assert_eq!(as_kind(Message::from("x").into(), true), Ok(false));
        assert_eq!(as_kind(Message::from(vec![0xff]).into(), false), Ok(true));
    }

    #[test]
    fn close_codes_that_may_be_sent() {
        let sendable: Vec<u16> = (0..=u16::MAX).filter(|&c| CloseCode(c).is_sendable()).collect();
        assert_eq!(sendable.len(), 4 + 8 + 2000);
        assert!([1004, 1005, 1006, 1015, 999, 2999, 5000].iter().all(|c| !sendable.contains(c)));
    }
}

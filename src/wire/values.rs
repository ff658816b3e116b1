//! What requests and answers are made of.

use std::{fmt, str::FromStr, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::frames::Malformed;
use crate::{
    audience,
    message::{Message, Text},
    tags::Tags,
};

/// A value that is said as text: an ID, an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AsText<T>(pub(crate) T);

impl<T: fmt::Display> Serialize for AsText<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de, T: FromStr> Deserialize<'de> for AsText<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|_| de::Error::custom("malformed"))
    }
}

/// A time as it is since 1970. What was before is 1970.
pub(super) mod since_1970 {
    use std::time::{Duration, SystemTime, UNIX_EPOCH};

    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        time.duration_since(UNIX_EPOCH).unwrap_or_default().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        let since = Duration::deserialize(deserializer)?;
        UNIX_EPOCH.checked_add(since).ok_or_else(|| de::Error::custom("too late a time"))
    }
}

/// Bytes as such: serde would go through them one by one.
fn as_bytes<S: Serializer>(bytes: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

/// What a message holds. That text is UTF-8 is found out when a [`Message`] is made of it.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Data<'a> {
    is_text: bool,
    #[serde(serialize_with = "as_bytes")]
    bytes: &'a [u8],
}

/// A short part must not keep the long message in memory that it came with: it is copied.
const PART_THAT_KEEPS_ALL: usize = 2;

/// A part of a message, which it shares if it is most of it.
pub(crate) fn part(whole: &Bytes, part: &[u8]) -> Bytes {
    let is_most = part.len() >= whole.len() / PART_THAT_KEEPS_ALL && !part.is_empty();
    if is_most { whole.slice_ref(part) } else { Bytes::copy_from_slice(part) }
}

impl Data<'_> {
    /// The message; `whole` is what it came in, which it may share.
    ///
    /// # Errors
    /// A text that is not UTF-8.
    pub(crate) fn message(&self, whole: &Bytes) -> Result<Message, Malformed> {
        let bytes = part(whole, self.bytes);
        if !self.is_text {
            return Ok(Message::Binary(bytes));
        }
        Text::try_from(bytes).map(Message::Text).map_err(|_| Malformed("a text is not UTF-8"))
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}

impl<'a> From<&'a Message> for Data<'a> {
    fn from(message: &'a Message) -> Self {
        Self { is_text: message.is_text(), bytes: message.as_bytes() }
    }
}

/// Without what it says, which is no business of a log.
impl fmt::Debug for Data<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of {}", self.len(), if self.is_text { "text" } else { "binary" })
    }
}

/// A message to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Payload<'a> {
    #[serde(borrow)]
    pub(crate) data: Data<'a>,
    /// The key of [`Payload::newest`](crate::Payload::newest).
    pub(crate) newest: Option<&'a str>,
}

impl<'a> Payload<'a> {
    /// Of what [`split`](crate::Payload::split) gives.
    pub(crate) fn new(message: &'a Message, newest: Option<&'a Arc<str>>) -> Self {
        Self { data: message.into(), newest: newest.map(|key| &**key) }
    }

    /// # Errors
    /// As [`Data::message`].
    pub(crate) fn payload(&self, whole: &Bytes) -> Result<crate::Payload, Malformed> {
        let message = self.data.message(whole)?;
        Ok(match self.newest {
            Some(key) => crate::Payload::newest(key, message),
            None => message.into(),
        })
    }
}

/// Whom it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Audience<'a> {
    All,
    Path(&'a str),
    Route(&'a str),
    Topic(&'a str),
    User(&'a str),
}

impl<'a> From<audience::Audience<'a>> for Audience<'a> {
    fn from(audience: audience::Audience<'a>) -> Self {
        match audience {
            audience::Audience::All => Self::All,
            audience::Audience::Path(path) => Self::Path(path),
            audience::Audience::Route(route) => Self::Route(route),
            audience::Audience::Topic(topic) => Self::Topic(topic),
            audience::Audience::User(user) => Self::User(user),
        }
    }
}

impl<'a> From<Audience<'a>> for audience::Audience<'a> {
    fn from(audience: Audience<'a>) -> Self {
        match audience {
            Audience::All => Self::All,
            Audience::Path(path) => Self::Path(path),
            Audience::Route(route) => Self::Route(route),
            Audience::Topic(topic) => Self::Topic(topic),
            Audience::User(user) => Self::User(user),
        }
    }
}

/// The tags of a connection, in their order.
pub(super) fn pairs(tags: &Tags) -> Vec<(&str, &str)> {
    tags.iter().collect()
}

/// The other way round. There are no more of them than a connection may have.
pub(super) fn tags(pairs: &[(&str, &str)]) -> Tags {
    let mut tags = Tags::NONE;
    for (key, value) in pairs {
        let _ = tags.set(key, value);
    }
    tags
}

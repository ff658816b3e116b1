//! Where a publication stands in what its topic remembers, and what a client has seen of it.

use std::{fmt, str::FromStr};

use data_encoding::BASE64URL_NOPAD;

/// An epoch as base64 without padding.
const EPOCH_LEN: usize = 11;

/// More positions than a connection has topics by default say nothing.
const MOST: usize = 256;

/// Where a publication stands in the [history](crate::ServerBuilder::history) of its topic: its offset, which grows by one with
/// each, and the epoch, by which histories are told apart. A topic that has been forgotten, or a server that was started again,
/// has another epoch.
///
/// As text it is `EPOCH:OFFSET`, of letters, digits, `-`, `_` and a colon, and safe in a URL.
///
/// ```
/// use switchboard::Position;
///
/// let position: Position = "q1w2e3r4t5Y:17".parse()?;
/// assert_eq!(position.offset(), 17);
/// assert_eq!(position.to_string(), "q1w2e3r4t5Y:17");
/// assert!("17".parse::<Position>().is_err());
/// # Ok::<(), switchboard::InvalidPosition>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    epoch: u64,
    offset: u64,
}

impl Position {
    pub(crate) fn new(epoch: u64, offset: u64) -> Self {
        Self { epoch, offset }
    }

    /// How many publications its topic has had since its epoch began, this one included; 0 is before the first one.
    pub fn offset(self) -> u64 {
        self.offset
    }

    #[cfg(any(feature = "cluster", test))]
    pub(crate) fn epoch(self) -> u64 {
        self.epoch
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; EPOCH_LEN];
        BASE64URL_NOPAD.encode_mut(&self.epoch.to_be_bytes(), &mut text);
        write!(f, "{}:{}", str::from_utf8(&text).unwrap_or_default(), self.offset) // it is ASCII
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Position({self})")
    }
}

/// A text that is no [`Position`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidPosition;

impl fmt::Display for InvalidPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a position: it is an epoch of 11 letters, digits, '-' or '_', a colon, and a number")
    }
}

impl std::error::Error for InvalidPosition {}

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let (epoch, offset) = text.split_once(':').ok_or(InvalidPosition)?;
        // `parse` takes a sign, too.
        let offset = offset.bytes().all(|byte| byte.is_ascii_digit()).then(|| offset.parse().ok()).flatten();
        let epoch = BASE64URL_NOPAD.decode(epoch.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok());
        match (epoch, offset) {
            (Some(epoch), Some(offset)) => Ok(Self { epoch: u64::from_be_bytes(epoch), offset }),
            _ => Err(InvalidPosition),
        }
    }
}

/// What a client has seen of a topic before it joins: the `since` of a URL; [`Opening::since`](crate::Opening::since) reads it.
///
/// As text it is the last [position](Position) that the client has, of each of its topics if there are several, with commas
/// between them: `?since=q1w2e3r4t5Y:17`. Each topic finds its own by the epoch. An empty text, `?since=`, says that it has seen
/// nothing: [`Since::NOTHING`]. What is no position counts as one that nobody knows.
///
/// ```
/// use switchboard::{Position, Since};
///
/// let position: Position = "q1w2e3r4t5Y:17".parse()?;
/// assert_eq!(Since::from("q1w2e3r4t5Y:17"), Since::from(position));
/// assert_eq!(Since::from(""), Since::NOTHING);
/// # Ok::<(), switchboard::InvalidPosition>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Since(pub(super) Seen);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    All,
    Nothing,
    UpTo(Vec<Position>),
}

impl Since {
    /// It wants only what is published from now on.
    pub const NOW: Self = Self(Seen::All);
    /// It has seen nothing, and wants all that is remembered.
    pub const NOTHING: Self = Self(Seen::Nothing);

    /// The last offset of this epoch that it has seen. Whoever has seen that has seen those before.
    pub(crate) fn last_of(&self, epoch: u64) -> Option<u64> {
        let Seen::UpTo(positions) = &self.0 else { return None };
        positions.iter().filter(|position| position.epoch == epoch).map(|position| position.offset).max()
    }

    /// A text that [`From`] makes the same of; `None` for [`NOW`](Self::NOW), which no text says.
    #[cfg(feature = "__wire")]
    #[allow(dead_code)] // by the one end of a link
    pub(crate) fn to_text(&self) -> Option<String> {
        match &self.0 {
            Seen::All => None,
            Seen::Nothing => Some(String::new()),
            // One that nobody knows: there is no text for none at all.
            Seen::UpTo(positions) if positions.is_empty() => Some("?".into()),
            Seen::UpTo(positions) => {
                Some(positions.iter().map(Position::to_string).collect::<Vec<_>>().join(","))
            }
        }
    }
}

impl From<Position> for Since {
    fn from(position: Position) -> Self {
        Self(Seen::UpTo(vec![position]))
    }
}

impl From<&str> for Since {
    fn from(text: &str) -> Self {
        if text.is_empty() {
            return Self::NOTHING;
        }
        Self(Seen::UpTo(text.split(',').take(MOST).filter_map(|position| position.parse().ok()).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_position_is_refused() {
        for text in [
            "",
            ":",
            "q1w2e3r4t5Y",
            "q1w2e3r4t5Y:",
            "q1w2e3r4t5Y:+1",
            "q1w2e3r4t5Y:-1",
            "q1w2e3r4t5Y:1 ",
            "q1w2e3r4t5:1",
            "q1w2e3r4t5Z:1",
            "q1w2e3r4t5Y=:1",
            "q1w2e3r4t5Y:18446744073709551616",
            ":1",
        ] {
            assert_eq!(text.parse::<Position>(), Err(InvalidPosition), "{text:?}");
        }
        let last = Position::new(u64::MAX, u64::MAX);
        assert_eq!(last.to_string().parse(), Ok(last));
    }

    #[test]
    fn a_list_of_positions_has_a_bound() {
        let position = Position::new(1, 2);
        let list = vec![position.to_string(); 1000].join(",");
        assert_eq!(Since::from(&*list), Since(Seen::UpTo(vec![position; MOST])));
        assert_eq!(Since::from("x,y"), Since(Seen::UpTo(Vec::new())));
    }

    #[cfg(feature = "__wire")]
    #[test]
    fn what_was_seen_is_a_text_and_back() {
        let position = Position::new(1, 2);
        for since in [Since::NOTHING, position.into(), "x".into(), Since(Seen::UpTo(vec![position; 3]))] {
            assert_eq!(since.to_text().as_deref().map(Since::from), Some(since));
        }
        assert_eq!(Since::NOW.to_text(), None);
    }
}

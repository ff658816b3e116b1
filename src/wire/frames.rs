//! Frames: how requests and answers stand in a message, and how each becomes bytes.

use std::fmt;

use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};

use super::request::Request;

/// Bytes in front of each frame: its length without these, and its number.
pub(crate) const HEADER: usize = 8;

/// Not this protocol. The text is for the close frame, and for a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// The frames of a message, each with its number. After an error there is nothing more.
#[derive(Clone, Debug)]
pub(crate) struct Frames<'a>(&'a [u8]);

impl<'a> Frames<'a> {
    pub(crate) fn of(message: &'a [u8]) -> Self {
        Self(message)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<(u32, &'a [u8]), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let frame = first(self.0);
        self.0 = frame.map_or(&[], |(_, _, rest)| rest);
        Some(frame.map(|(number, body, _)| (number, body)).ok_or(Malformed("a frame is cut")))
    }
}

/// The number and the body of the first frame, and what is behind it.
fn first(bytes: &[u8]) -> Option<(u32, &[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (number, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (body, rest) = rest.split_at_checked(length)?;
    Some((u32::from_le_bytes(*number), body, rest))
}

/// Appends a frame.
///
/// # Errors
/// It would have 4 GiB or more. Nothing is appended.
pub(crate) fn append(frames: &mut Vec<u8>, number: u32, body: &impl Serialize) -> Result<(), Malformed> {
    let start = frames.len();
    frames.extend_from_slice(&[0; HEADER]);
    let is_done = postcard::serialize_with_flavor(body, Appending(frames)).is_ok();
    let length = u32::try_from(frames.len() - start - HEADER).ok().filter(|_| is_done);
    let Some(length) = length else {
        frames.truncate(start);
        return Err(Malformed("too long for a frame"));
    };
    for (at, value) in [(start, length), (start + HEADER / 2, number)] {
        frames[at..at + HEADER / 2].copy_from_slice(&value.to_le_bytes());
    }
    Ok(())
}

/// Appends a value, without a frame.
#[cfg(feature = "cluster")]
pub(crate) fn put(bytes: &mut Vec<u8>, value: &impl Serialize) {
    // This never fails: all that is said has a length that is known.
    let _ = postcard::serialize_with_flavor(value, Appending(bytes));
}

/// The value that bytes begin with, and what is behind it.
///
/// # Errors
/// It is none.
#[cfg(feature = "cluster")]
pub(crate) fn take<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), Malformed> {
    postcard::take_from_bytes(bytes).map_err(|_| Malformed("it does not begin as it should"))
}

/// A value as bytes.
pub(super) fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    // This never fails: all that is said has a length that is known.
    let _ = postcard::serialize_with_flavor(value, Appending(&mut bytes));
    bytes
}

/// What the body of a frame says. What is behind that, a newer side has added.
///
/// # Errors
/// It is none, or one that this version does not know.
pub(crate) fn decode<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Malformed> {
    postcard::take_from_bytes(body)
        .map(|(value, _)| value)
        .map_err(|_| Malformed("a frame is not what it should be"))
}

/// The request in a frame; `None` if it is one that this version does not know.
///
/// # Errors
/// It is none.
pub(crate) fn decode_request(body: &[u8]) -> Result<Option<Request<'_>>, Malformed> {
    let variant: u32 = decode(body)?;
    if variant >= Request::KINDS { Ok(None) } else { decode(body).map(Some) }
}

/// Appends what postcard writes.
struct Appending<'a>(&'a mut Vec<u8>);

impl Flavor for Appending<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

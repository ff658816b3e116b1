//! A message that has arrived in part.

use bytes::Bytes;

use super::failure::Failure;
use crate::{
    message::{Message, Text},
    scarce::grow,
};

/// What has arrived of a message, unmasked and inflated. Its memory grows with the bytes that have arrived, never with an
/// announced length.
#[derive(Debug)]
pub(super) struct Partial {
    body: Body,
    /// Whether its frames are compressed: the first one says so for all (RFC 7692, section 6).
    pub(super) compressed: bool,
    /// Bytes of payload announced by its frames so far, compressed or not.
    pub(super) announced: u64,
}

#[derive(Debug)]
enum Body {
    Text {
        text: String,
        /// The first bytes of a character whose other bytes have not arrived yet.
        cut: Vec<u8>,
    },
    Binary(Vec<u8>),
}

impl Partial {
    /// A message that has arrived whole.
    pub(super) fn whole(is_text: bool, bytes: Bytes) -> Result<Message, Failure> {
        if !is_text {
            return Ok(Message::Binary(bytes));
        }
        Text::try_from(bytes).map(Message::Text).map_err(|_| Failure::not_utf8())
    }

    pub(super) fn new(is_text: bool, compressed: bool) -> Self {
        let body = if is_text {
            Body::Text { text: String::new(), cut: Vec::new() }
        } else {
            Body::Binary(Vec::new())
        };
        Self { body, compressed, announced: 0 }
    }

    pub(super) fn len(&self) -> usize {
        match &self.body {
            Body::Text { text, cut } => text.len() + cut.len(),
            Body::Binary(bytes) => bytes.len(),
        }
    }

    /// How much memory its bytes take.
    pub(super) fn capacity(&self) -> usize {
        match &self.body {
            Body::Text { text, .. } => text.capacity(),
            Body::Binary(bytes) => bytes.capacity(),
        }
    }

    /// Throws away what has arrived.
    pub(super) fn clear(&mut self) {
        self.body = Body::Binary(Vec::new());
    }

    /// Appends bytes. Text fails as soon as no more bytes can make it UTF-8 (RFC 6455, section 8.1).
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        let (text, cut) = match &mut self.body {
            Body::Binary(all) => {
                grow(all, bytes.len())?;
                all.extend_from_slice(bytes);
                return Ok(());
            }
            Body::Text { text, cut } => (text, cut),
        };
        while !cut.is_empty()
            && let Some((&first, rest)) = bytes.split_first()
        {
            cut.push(first);
            bytes = rest;
            let (valid, rest) = split_utf8(cut)?;
            text.push_str(valid);
            if rest.is_empty() {
                cut.clear();
            }
        }
        let (valid, rest) = split_utf8(bytes)?;
        grow(text, valid.len())?;
        text.push_str(valid);
        cut.extend_from_slice(rest);
        Ok(())
    }

    /// The message, once all of it has arrived.
    pub(super) fn finish(self) -> Result<Message, Failure> {
        match self.body {
            Body::Text { text, cut } if cut.is_empty() => Ok(Message::from(text)),
            Body::Text { .. } => Err(Failure::not_utf8()),
            Body::Binary(bytes) => Ok(Message::Binary(Bytes::from(bytes))),
        }
    }
}

/// The text, and the first bytes of a character that is cut off by the end.
pub(super) fn split_utf8(bytes: &[u8]) -> Result<(&str, &[u8]), Failure> {
    let error = match str::from_utf8(bytes) {
        Ok(text) => return Ok((text, &[])),
        Err(error) => error,
    };
    if error.error_len().is_some() {
        return Err(Failure::not_utf8());
    }
    let (valid, cut) = bytes.split_at(error.valid_up_to());
    Ok((str::from_utf8(valid).unwrap_or_default(), cut))
}

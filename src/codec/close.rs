//! The payload of a close frame (RFC 6455, section 5.5.1). tungstenite has this, too, but does not export it.

use super::{failure::Failure, frames::MAX_CONTROL, partial::split_utf8};
use crate::message::{CloseCode, Text};

/// The longest text of a close frame, in bytes: what the code leaves of the payload.
const MAX_TEXT: usize = MAX_CONTROL - size_of::<CloseCode>();

/// The code and the text of a received close frame. A code that may not be sent is an error (section 7.4).
pub(super) fn parse(payload: &[u8]) -> Result<(CloseCode, Text), Failure> {
    let Some((code, text)) = payload.split_first_chunk() else {
        if payload.is_empty() {
            return Ok((CloseCode::NO_STATUS, Text::default()));
        }
        return Err(Failure::protocol("a close code must have two bytes"));
    };
    let code = CloseCode(u16::from_be_bytes(*code));
    if !code.is_sendable() {
        return Err(Failure::protocol("this close code may not be sent"));
    }
    match split_utf8(text)? {
        (text, []) => Ok((code, text.into())),
        _ => Err(Failure::not_utf8()),
    }
}

/// The code and the text as the peer will see them: nothing if the code may not be sent, and as much text as fits.
pub(crate) fn sendable(code: CloseCode, text: &str) -> (CloseCode, &str) {
    if !code.is_sendable() {
        return (CloseCode::NO_STATUS, "");
    }
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    (code, &text[..end.unwrap_or(0)])
}

/// The payload of a close frame, for what `sendable` returned.
pub(super) fn payload(code: CloseCode, text: &str) -> Vec<u8> {
    if code == CloseCode::NO_STATUS {
        return Vec::new();
    }
    [&code.0.to_be_bytes(), text.as_bytes()].concat()
}

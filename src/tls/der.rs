//! How far DER can be told without knowing what it is.

use std::fmt::Display;

use pkcs8::der::{Decode, Header, Reader, SliceReader, Tag};

/// The number that a DER sequence begins with.
pub(super) fn first_number(file: &[u8]) -> Option<u8> {
    let mut reader = SliceReader::new(file).ok()?;
    let header = Header::decode(&mut reader).ok()?;
    (header.tag() == Tag::Sequence).then(|| u8::decode(&mut reader).ok()).flatten()
}

/// What is wrong with DER that cannot be read: it says how long it is.
pub(super) fn damage(der: &[u8], error: impl Display) -> String {
    let expected = SliceReader::new(der).ok().and_then(|mut reader| {
        let header = Header::decode(&mut reader).ok()?;
        Some(usize::try_from((reader.position() + header.length()).ok()?).unwrap_or(usize::MAX))
    });
    match expected {
        Some(expected) if expected > der.len() => {
            format!(
                "it is cut off: it has {} of {expected} bytes (in base64); copy the file again",
                der.len()
            )
        }
        _ => format!("it is damaged, or something else than its label says ({error})"),
    }
}

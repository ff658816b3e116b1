//! Signatures of session IDs (HMAC-SHA-256, RFC 2104): so nobody can make up an ID, and the server needs to keep none.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::id::SessionId;
use crate::error::ServerError;

/// Bytes of a key at least: as many as the hash has.
const MIN_KEY_LEN: usize = 32;

/// Bytes of a signature: the first half of the hash, which RFC 2104, section 5, allows.
const TAG_LEN: usize = 16;

/// Characters of a cookie's value: of the ID, a dot, and of the signature.
const ID_LEN: usize = 22;
const VALUE_LEN: usize = ID_LEN + 1 + TAG_TEXT_LEN;
const TAG_TEXT_LEN: usize = 22;

/// Signed together with the ID, so that the same key may sign other things elsewhere.
const PURPOSE: &[u8] = b"session ";

#[cfg(feature = "cluster")]
const FINGERPRINT: &[u8] = b"fingerprint";

/// The keys of a server. There is at least one.
pub(crate) struct SessionKeys {
    first: Signer,
    others: Vec<Signer>,
}

/// With its key already in it: to clone it is cheaper than to begin anew.
type Signer = Hmac<Sha256>;

impl SessionKeys {
    /// A key that lives as long as the process.
    pub(crate) fn random() -> Result<Self, ServerError> {
        let mut key = [0; MIN_KEY_LEN];
        getrandom::fill(&mut key).map_err(|e| std::io::Error::other(e.to_string()))?;
        Self::new([key])
    }

    /// The first of these keys signs, all of them verify.
    ///
    /// # Errors
    /// [`ServerError::Config`] if there is none, or one is too short.
    pub(crate) fn new(keys: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Result<Self, ServerError> {
        let mut signers = Vec::new();
        for (n, key) in keys.into_iter().enumerate() {
            signers.push(signer(key.as_ref()).ok_or_else(|| {
                let (n, len) = (n + 1, key.as_ref().len());
                ServerError::config(format!(
                    "session key {n} has {len} bytes: it needs at least {MIN_KEY_LEN}"
                ))
            })?);
        }
        let mut signers = signers.into_iter();
        let first = signers.next().ok_or_else(|| ServerError::config("session keys: there is none"))?;
        Ok(Self { first, others: signers.collect() })
    }

    /// What tells each key from others, and not what it is; the one that signs comes first. No cookie has such a signature: this text
    /// is no ID.
    #[cfg(feature = "cluster")]
    pub(crate) fn fingerprints(&self) -> Vec<u32> {
        let fingerprint = |signer: &Signer| {
            let tag = signer.clone().chain_update(FINGERPRINT).finalize().into_bytes();
            u32::from_be_bytes([tag[0], tag[1], tag[2], tag[3]])
        };
        std::iter::once(&self.first).chain(&self.others).map(fingerprint).collect()
    }

    /// The value of the cookie for an ID that the server has made.
    #[inline(never)]
    pub(super) fn sign(&self, id: &SessionId) -> String {
        let mut signer = self.first.clone();
        signer.update(id.as_str().as_bytes());
        let tag = signer.finalize().into_bytes();
        let mut value = String::with_capacity(VALUE_LEN);
        value.push_str(id.as_str());
        value.push('.');
        BASE64URL_NOPAD.encode_append(&tag[..TAG_LEN], &mut value);
        value
    }

    /// The ID in the value of a cookie, if the server has signed it; and whether by the key that it signs with now.
    #[inline(never)]
    pub(super) fn verify(&self, value: &[u8]) -> Option<(SessionId, bool)> {
        if value.len() != VALUE_LEN || value[ID_LEN] != b'.' {
            return None;
        }
        let id = &value[..ID_LEN];
        let mut tag = [0; TAG_LEN];
        BASE64URL_NOPAD.decode_mut(&value[ID_LEN + 1..], &mut tag).ok()?;
        // `verify_truncated_left` takes the same time wherever a wrong signature differs.
        let signs = |signer: &Signer| signer.clone().chain_update(id).verify_truncated_left(&tag).is_ok();
        let is_current = signs(&self.first);
        if !is_current && !self.others.iter().any(signs) {
            return None;
        }
        Some((SessionId::new(str::from_utf8(id).ok()?).ok()?, is_current))
    }
}

fn signer(key: &[u8]) -> Option<Signer> {
    let is_long = key.len() >= MIN_KEY_LEN;
    let signer = Signer::new_from_slice(key).ok().filter(|_| is_long)?;
    Some(signer.chain_update(PURPOSE))
}

/// A key is never shown.
impl fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionKeys({})", 1 + self.others.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(keys: &[u8]) -> SessionKeys {
        SessionKeys::new(keys.iter().map(|&byte| [byte; 32])).unwrap()
    }

    #[test]
    fn what_was_signed_is_verified_and_nothing_else() {
        let keys = keys(&[1]);
        let id = SessionId::random();
        let value = keys.sign(&id);
        assert_eq!((value.len(), &value[..23]), (45, &*format!("{id}.")));
        assert_eq!(keys.verify(value.as_bytes()), Some((id, true)));
        for index in 0..value.len() {
            for other in (0..=255).filter(|&other| other != value.as_bytes()[index]) {
                let mut forged = value.clone().into_bytes();
                forged[index] = other;
                assert_eq!(keys.verify(&forged), None, "{index} {other}");
            }
        }
        for bad in
            ["", ".", &value[1..], &value[..44], &format!("{value}A"), &"A".repeat(45), &"é".repeat(22)]
        {
            assert_eq!(keys.verify(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(keys.verify(&vec![b'.'; 1 << 20]), None);
    }

    /// As by `printf 'session AAAAAAAAAAAAAAAAAAAAAA' | openssl dgst -sha256 -mac HMAC -macopt hexkey:0101… -binary`, its first 16
    /// bytes in base64.
    #[test]
    fn the_signature_is_the_same_everywhere_and_always() {
        let id = SessionId::new("A".repeat(22)).unwrap();
        assert_eq!(keys(&[1]).sign(&id), "AAAAAAAAAAAAAAAAAAAAAA.jwAaO0YQUdM8EZgcBrhTqg");
    }

    #[test]
    fn keys_are_rotated() {
        let (old, both, new) = (keys(&[1]), keys(&[2, 1]), keys(&[2]));
        let id = SessionId::random();
        assert_eq!(both.verify(old.sign(&id).as_bytes()), Some((id.clone(), false)));
        assert_eq!(both.sign(&id), new.sign(&id));
        assert_eq!(new.verify(old.sign(&id).as_bytes()), None);
        let (one, other) = (SessionKeys::random().unwrap(), SessionKeys::random().unwrap());
        assert_eq!(one.verify(other.sign(&id).as_bytes()), None);
    }

    #[cfg(feature = "cluster")]
    #[test]
    fn a_key_has_a_fingerprint_that_is_its_own() {
        let [one, two] = [1, 2].map(|key| keys(&[key]).fingerprints()[0]);
        assert!(one != two && keys(&[2, 1]).fingerprints() == [two, one]);
        assert_ne!(FINGERPRINT.len(), ID_LEN, "it is no ID");
    }

    #[test]
    fn a_key_that_is_too_short_or_missing_is_an_error() {
        let text = |keys: &[&str]| SessionKeys::new(keys).unwrap_err().to_string();
        assert!(text(&[]).contains("none"));
        let good = "0123456789abcdef0123456789abcdef";
        assert_eq!(text(&[good, &good[1..]]), "session key 2 has 31 bytes: it needs at least 32");
        assert_eq!(format!("{:?}", SessionKeys::new([good, good]).unwrap()), "SessionKeys(2)");
    }
}

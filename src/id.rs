//! Unguessable names.

/// 128 random bits, in 26 letters and digits that are safe in a URL path and in a cookie.
///
/// # Panics
/// If the operating system has no random numbers, which on Unix happens only early at boot.
pub(crate) fn random() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("random numbers from the operating system");
    data_encoding::BASE32_NOPAD.encode(&bytes).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    #[test]
    fn is_printable_and_new_each_time() {
        let (a, b) = (super::random(), super::random());
        assert_eq!(a.len(), 26);
        assert!(a.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()));
        assert_ne!(a, b);
    }
}

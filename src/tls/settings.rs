//! What can be chosen for TLS: the library, and the least version.

/// A library that does TLS. Which ones there are is chosen by features.
///
/// | | [`NativeTls`](Self::NativeTls) | [`Rustls`](Self::Rustls) |
/// |---|---|---|
/// | feature | `tls` (default) | `rustls` |
/// | what it is | the system's library: OpenSSL, or Secure Transport on macOS | Rust, in the program itself |
/// | a server speaks | TLS 1.2 | TLS 1.2 and 1.3 |
/// | a client speaks | TLS 1.2 and 1.3 | TLS 1.2 and 1.3 |
/// | [client certificates](crate::TlsIdentity::with_client_ca) | no | yes |
/// | [several certificates](crate::TlsIdentity::with_other), by the name that is asked for | no | yes |
/// | cipher suites of TLS 1.2 | with an RSA key also some without forward secrecy, and with CBC | ECDHE with AES-GCM or ChaCha20 |
/// | sessions are resumed | yes; OpenSSL keeps those of clients without tickets | yes, unless clients show certificates; nothing is kept |
/// | PKCS#12 | yes | with the feature `tls` beside it |
/// | keys | all that the system knows | RSA of 2048 bits or more, P-256, P-384, Ed25519 |
/// | certificates | all that the system knows | of version 3 (`openssl x509 -req` makes those with `-extfile`) |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsBackend {
    /// `native-tls`.
    NativeTls,
    /// `rustls`.
    Rustls,
}

impl TlsBackend {
    /// Whether this program was built with it.
    #[must_use]
    pub const fn is_available(self) -> bool {
        match self {
            Self::NativeTls => cfg!(feature = "tls"),
            Self::Rustls => cfg!(feature = "rustls"),
        }
    }

    /// What to say if it is not available.
    pub(super) fn check(self) -> Result<(), String> {
        match (self.is_available(), self) {
            (true, _) => Ok(()),
            (false, Self::NativeTls) => Err(missing("native-tls", "tls")),
            (false, Self::Rustls) => Err(missing("rustls", "rustls")),
        }
    }
}

fn missing(name: &str, feature: &str) -> String {
    format!("this program was built without {name}: build it with the feature `{feature}`")
}

/// `NativeTls` if it is available, else `Rustls`.
impl Default for TlsBackend {
    fn default() -> Self {
        if Self::NativeTls.is_available() { Self::NativeTls } else { Self::Rustls }
    }
}

/// A version of TLS. There are no older ones: they are not safe (RFC 8996).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    Tls12,
    /// RFC 8446.
    Tls13,
}

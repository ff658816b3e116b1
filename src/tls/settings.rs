//! What can be chosen for TLS: the library, the least version, and who may be a client.

use std::{path::Path, sync::Arc};

use super::{
    certificate::Certificate,
    certified::{named, read},
    chain,
};
use crate::error::TlsError;

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
/// | PKCS#12 | yes | with the feature `tls` beside it |
/// | keys | all that the system knows | RSA of 2048 bits or more, P-256, P-384, Ed25519 |
///
/// [`TlsIdentity::with_client_ca`]: crate::TlsIdentity::with_client_ca
/// [`TlsIdentity`]: crate::TlsIdentity
/// [TlsIdentity::with_other]: crate::TlsIdentity::with_other
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

/// The CA, or several, whose certificates clients must have; see [`TlsIdentity::with_client_ca`](crate::TlsIdentity::with_client_ca).
#[derive(Clone)]
pub struct TlsClientCa {
    pub(super) roots: Arc<Vec<Certificate>>,
    pub(super) is_optional: bool,
}

impl TlsClientCa {
    /// From PEM: the certificates of one or more CAs. Only clients with a certificate that one of them has issued, directly or by
    /// intermediate ones that the client sends, can connect.
    ///
    /// # Errors
    /// If a certificate cannot be read, or there is none.
    pub fn from_pem(certificates: &[u8]) -> Result<Self, TlsError> {
        Self::named(certificates, "the certificates of the clients' CA")
    }

    /// From a PEM file; see [`from_pem`](Self::from_pem).
    ///
    /// # Errors
    /// As [`from_pem`](Self::from_pem), and if the file cannot be read. The text names the file.
    pub fn from_pem_file(certificates: impl AsRef<Path>) -> Result<Self, TlsError> {
        let file = certificates.as_ref();
        Self::named(&read(file)?, &file.display().to_string())
    }

    fn named(certificates: &[u8], name: &str) -> Result<Self, TlsError> {
        let roots = chain::from_pem(certificates).map_err(|e| named(name, e))?;
        Ok(Self { roots: Arc::new(roots), is_optional: false })
    }

    /// Takes clients without a certificate, too: the application asks for it
    /// ([`Opening::client_certificate`](crate::Opening::client_certificate)) and decides. One that does not verify is refused in any case.
    #[must_use]
    pub fn optional(self) -> Self {
        Self { is_optional: true, ..self }
    }
}

impl std::fmt::Debug for TlsClientCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.roots.iter().map(ToString::to_string).collect();
        f.debug_struct("TlsClientCa").field("roots", &names).field("is_optional", &self.is_optional).finish()
    }
}

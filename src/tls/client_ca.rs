//! Who may be a client: the CA that has issued their certificates.

use std::{fmt, path::Path, sync::Arc};

use super::{certificate::Certificate, certified::named, chain, source::Named};
use crate::error::TlsError;

/// The CA, or several, whose certificates clients must have; see [`TlsIdentity::with_client_ca`](crate::TlsIdentity::with_client_ca).
#[derive(Clone)]
pub struct TlsClientCa {
    pub(super) roots: Arc<Vec<Certificate>>,
    pub(super) is_optional: bool,
    origin: Arc<Origin>,
}

/// Where it is from.
enum Origin {
    Memory,
    File(Named),
}

impl TlsClientCa {
    /// From PEM: the certificates of one or more CAs. Only clients with a certificate that one of them has issued, directly or by
    /// intermediate ones that the client sends, can connect. The certificate of a client that has signed it itself does as well.
    /// Those of clients have to be of version 3, which `openssl x509 -req` makes with `-extfile`.
    ///
    /// # Errors
    /// If a certificate cannot be read, or there is none.
    pub fn from_pem(certificates: &[u8]) -> Result<Self, TlsError> {
        Self::new(certificates, Origin::Memory)
    }

    /// From a PEM file; see [`from_pem`](Self::from_pem). It is read again when the server's certificate is
    /// [loaded again](crate::TlsIdentity::reload).
    ///
    /// # Errors
    /// As [`from_pem`](Self::from_pem), and if the file cannot be read. The text names the file.
    pub fn from_pem_file(certificates: impl AsRef<Path>) -> Result<Self, TlsError> {
        let file = Named::new(certificates.as_ref());
        Self::new(&file.read(false)?, Origin::File(file))
    }

    fn new(certificates: &[u8], origin: Origin) -> Result<Self, TlsError> {
        let roots = chain::from_pem(certificates).map_err(|e| named(origin.name(), e))?;
        Ok(Self { roots: Arc::new(roots), is_optional: false, origin: Arc::new(origin) })
    }

    /// Takes clients without a certificate, too: the application asks for it
    /// ([`Opening::client_certificate`](crate::Opening::client_certificate)) and decides. One that does not verify is refused in any case.
    #[must_use]
    pub fn optional(self) -> Self {
        Self { is_optional: true, ..self }
    }

    /// The file that it was loaded from, as it was given, or what it is called else.
    pub(super) fn name(&self) -> &str {
        self.origin.name()
    }

    /// The file that it was loaded from, if it was.
    pub(super) fn file(&self) -> Option<&Named> {
        match &*self.origin {
            Origin::Memory => None,
            Origin::File(file) => Some(file),
        }
    }

    /// What is in its file now, if there is one, and something else in it.
    pub(super) fn read_again(&self) -> Result<Option<Self>, TlsError> {
        let Some(file) = self.file() else { return Ok(None) };
        let roots = chain::from_pem(&file.read(true)?).map_err(|e| named(&file.name, e))?;
        let is_same = roots.iter().map(|root| &root.der).eq(self.roots.iter().map(|root| &root.der));
        Ok((!is_same).then(|| Self { roots: Arc::new(roots), ..self.clone() }))
    }
}

impl Origin {
    fn name(&self) -> &str {
        match self {
            Self::Memory => "the certificates of the clients' CA",
            Self::File(file) => &file.name,
        }
    }
}

/// Whose certificates they are, for the log. There may be hundreds.
impl fmt::Display for TlsClientCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        let names: Vec<_> = self.roots.iter().take(SHOWN).map(ToString::to_string).collect();
        f.write_str(&names.join(", "))?;
        match self.roots.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl fmt::Debug for TlsClientCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.roots.iter().map(ToString::to_string).collect();
        f.debug_struct("TlsClientCa")
            .field("roots", &names)
            .field("is_optional", &self.is_optional)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_only_some_are_named() {
        let named =
            |times| TlsClientCa::from_pem(&include_bytes!("../../certs/ca.pem").repeat(times)).unwrap();
        let name = "\"CN=Switchboard test CA\"";
        assert_eq!(named(1).to_string(), name);
        assert_eq!(named(5).to_string(), format!("{name}, {name}, {name} and 2 more"));
    }
}

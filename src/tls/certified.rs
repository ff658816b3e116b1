//! A certificate chain with its key, read from files and checked: what both TLS libraries can be given.

use std::{path::Path, time::Duration};

use super::{
    certificate::Certificate,
    chain,
    key::{Key, Secret},
};
use crate::{error::TlsError, small_file};

/// No certificates and no key are longer. A device or a pipe may be without end.
const MAX_FILE: u64 = 1024 * 1024;

pub(super) struct Certified {
    /// The server's own certificate first. Empty if only the system knows it.
    pub(super) chain: Vec<Certificate>,
    pub(super) secret: Secret,
    /// Where it is from, for errors.
    pub(super) name: String,
    /// The file that the certificates are from, for what is said of them.
    pub(super) file: String,
}

impl Certified {
    /// From PEM files, or what was in them, with their names.
    pub(super) fn from_pem(certificates: (&[u8], &str), key: (&[u8], &str)) -> Result<Self, TlsError> {
        let ((certificates, name), (key, key_name)) = (certificates, key);
        let key = Key::from_pem(key).map_err(|e| named(key_name, e))?;
        let chain = chain::from_pem(certificates).map_err(|e| named(name, e))?;
        let both = format!("{name} with {key_name}");
        chain::check_key(&chain, key.public.as_deref()).map_err(|e| named(&both, e))?;
        chain::check_order(&chain, key.public.as_deref()).map_err(|e| named(name, e))?;
        Ok(Self { chain, secret: Secret::Key(key), name: both, file: name.to_owned() })
    }

    /// From a PKCS#12 archive.
    #[cfg(feature = "tls")]
    pub(super) fn from_pkcs12(archive: &[u8], password: &str, name: &str) -> Result<Self, TlsError> {
        let (secret, chain) = super::pkcs12::open(archive, password).map_err(|e| named(name, e))?;
        Ok(Self { chain, secret, name: name.to_owned(), file: name.to_owned() })
    }

    /// The server's own certificate, if it is not known whether it belongs to the key.
    #[cfg(feature = "tls")]
    pub(super) fn doubtful(&self) -> Option<&Certificate> {
        match &self.secret {
            Secret::Key(key) if key.public.is_none() => self.chain.first(),
            _ => None,
        }
    }

    /// Says in the log what clients may stumble over.
    pub(super) fn warn(&self) {
        for warning in chain::warnings(&self.chain) {
            log::warn!("{}: {warning}", self.file);
        }
    }
}

pub(super) fn named(name: &str, text: impl std::fmt::Display) -> TlsError {
    TlsError::new(format!("{name}: {text}"))
}

pub(super) fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    read_as(file, &file.display().to_string(), small_file::PATIENCE)
}

/// Reads a file that goes by this name. A pipe is waited for with this `patience`.
pub(super) fn read_as(file: &Path, name: &str, patience: Duration) -> Result<Vec<u8>, TlsError> {
    let content = small_file::open(file)
        .and_then(|file| small_file::read(&file, MAX_FILE, patience))
        .map_err(|e| TlsError::new(format!("cannot read {name}: {e}")))?;
    match content.len() as u64 > MAX_FILE {
        true => Err(TlsError::new(format!("{name} is too long for certificates or a key"))),
        false => Ok(content),
    }
}

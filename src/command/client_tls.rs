//! The options of TLS, as a client has them.

use std::path::PathBuf;

use clap::Args;
use switchboard::{TlsError, TlsIdentity, TlsTrust};

#[cfg(all(feature = "tls", feature = "rustls"))]
use crate::command::tls::Backend;

#[derive(Debug, Args)]
pub(super) struct Tls {
    /// Trust only the CAs in this PEM file, and not those of the system
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    ca: Option<PathBuf>,
    /// Trust any server, whatever its certificate says: whoever is on the way can read and change everything
    #[arg(long, short = 'k')]
    insecure: bool,
    /// Show this certificate to a server that asks for one: its chain, in PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// The key of --cert, in PEM; it may be in the same file
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Which library does TLS
    #[cfg(all(feature = "tls", feature = "rustls"))]
    #[arg(long, value_name = "NAME", default_value = Backend::default_name())]
    tls_backend: Backend,
}

impl Tls {
    /// Whom to trust, and what to show.
    pub(super) fn trust(&self) -> Result<TlsTrust, TlsError> {
        let mut trust = match &self.ca {
            Some(file) => TlsTrust::ca_file(file)?,
            None if self.insecure => TlsTrust::danger_any_server(),
            None => TlsTrust::system(),
        };
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            trust = trust.with_identity(TlsIdentity::from_pem_files(cert, key)?);
        }
        #[cfg(all(feature = "tls", feature = "rustls"))]
        {
            trust = trust.with_backend(self.tls_backend.into());
        }
        Ok(trust)
    }
}

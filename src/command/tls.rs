//! The options of TLS.

use std::{error::Error, fs, path::PathBuf};

use clap::{ArgGroup, Args};
use switchboard::{ServerBuilder, TlsIdentity};

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("certificate").args(["cert", "identity"]))]
pub(super) struct Tls {
    /// Listen here with TLS, which needs --cert and --key, or --identity and --password-file; repeatable
    #[arg(long, value_name = "ADDR", requires = "certificate")]
    pub(super) tls_listen: Vec<String>,
    /// The certificate chain, in PEM, the server's own certificate first
    #[arg(long, value_name = "FILE", requires = "key", requires = "tls_listen")]
    cert: Option<PathBuf>,
    /// The certificate's key, in PEM; it may be in the same file
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Certificate and key in one, in PKCS#12
    #[arg(
        long,
        value_name = "FILE",
        requires = "password_file",
        requires = "tls_listen",
        conflicts_with = "cert"
    )]
    identity: Option<PathBuf>,
    /// A file with the password of --identity
    #[arg(long, value_name = "FILE", requires = "identity")]
    password_file: Option<PathBuf>,
}

impl Tls {
    /// Has the server listen where it is to.
    pub(super) fn listen(&self, mut builder: ServerBuilder) -> Result<ServerBuilder, Box<dyn Error>> {
        if let Some(identity) = self.identity()? {
            for address in &self.tls_listen {
                builder = builder.listen_tls(address, identity.clone());
            }
        }
        Ok(builder)
    }

    fn identity(&self) -> Result<Option<TlsIdentity>, Box<dyn Error>> {
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            return Ok(Some(TlsIdentity::from_pem_files(cert, key)?));
        }
        let (Some(identity), Some(password_file)) = (&self.identity, &self.password_file) else {
            return Ok(None);
        };
        let password = fs::read_to_string(password_file)
            .map_err(|e| format!("cannot read {}: {e}", password_file.display()))?;
        Ok(Some(TlsIdentity::from_pkcs12_file(identity, password.trim_end_matches(['\r', '\n']))?))
    }
}

//! Certificates for a connection to Redis by TLS. With both TLS libraries the client that we use takes rustls.

use std::path::Path;

use ::redis::{
    Client, ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError, TlsCertificates,
};

use crate::{error::TlsError, small_file};

/// No certificates are longer. A device or a pipe may be without end.
const MAX_FILE: u64 = 1024 * 1024;

/// All in PEM.
#[derive(Clone, Default)]
pub(super) struct Certificates {
    ca: Option<Vec<u8>>,
    /// A chain and its key.
    client: Option<(Vec<u8>, Vec<u8>)>,
}

impl Certificates {
    pub(super) fn with_ca(self, certificates: &[u8], name: &str) -> Result<Self, TlsError> {
        if !certificates.windows(BEGIN.len()).any(|bytes| bytes == BEGIN) {
            return Err(TlsError::new(format!("{name}: there is no certificate in it (BEGIN CERTIFICATE)")));
        }
        Self { ca: Some(certificates.into()), ..self }.checked(name)
    }

    pub(super) fn with_ca_file(self, file: &Path) -> Result<Self, TlsError> {
        let name = file.display().to_string();
        let certificates = small_file::open(file)
            .and_then(|file| small_file::read(&file, MAX_FILE, small_file::PATIENCE))
            .map_err(|e| TlsError::new(format!("{name}: {e}")))?;
        self.with_ca(&certificates, &name)
    }

    pub(super) fn with_client(self, certificates: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Self { client: Some((certificates.into(), key.into())), ..self }
            .checked("the certificate for Redis, or its key")
    }

    fn checked(self, name: &str) -> Result<Self, TlsError> {
        match self.info("localhost", 1) {
            Ok(_) => Ok(self),
            Err(e) => Err(TlsError::new(format!("{name}: {e}"))),
        }
    }

    /// How this host is connected to.
    pub(super) fn info(&self, host: &str, port: u16) -> Result<ConnectionInfo, RedisError> {
        prepare();
        let address = ConnectionAddr::TcpTls { host: host.into(), port, insecure: false, tls_params: None };
        let root_cert = self.ca.clone().or_else(system);
        let client_tls =
            self.client.clone().map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
        let certificates = TlsCertificates { client_tls, root_cert };
        let client = Client::build_with_tls(address.into_connection_info()?, certificates)?;
        Ok(client.get_connection_info().clone())
    }
}

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// Those CAs that the system trusts, without those that rustls cannot use: the client that we use would take none then.
#[cfg(feature = "rustls")]
fn system() -> Option<Vec<u8>> {
    use std::sync::OnceLock;
    static ROOTS: OnceLock<Vec<u8>> = OnceLock::new(); // they are many
    let load = || {
        let mut pem = String::new();
        for certificate in rustls_native_certs::load_native_certs().certs {
            if rustls::RootCertStore::empty().add(certificate.clone()).is_ok() {
                let base64 = data_encoding::BASE64.encode(&certificate);
                pem.push_str(&format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n"));
            }
        }
        pem.into_bytes()
    };
    Some(ROOTS.get_or_init(load).clone())
}

/// The system's library knows them.
#[cfg(not(feature = "rustls"))]
fn system() -> Option<Vec<u8>> {
    None
}

/// The client that we use takes the process's own choice of cryptography, and panics where there is none and more than one to
/// choose from.
fn prepare() {
    #[cfg(feature = "rustls")]
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let _ = rustls::crypto::ring::default_provider().install_default(); // or another thread has
    }
}

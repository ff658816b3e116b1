//! The server's certificate and key. They are checked when they are loaded, before the first client comes.

use std::{fmt, fs, path::Path};

use native_tls::{HandshakeError, Identity, Protocol, TlsAcceptor, TlsConnector};

use crate::error::{Result, ServerError};

/// A certificate with its key, for [`listen_tls`](crate::ServerBuilder::listen_tls). The server speaks TLS 1.2 or later;
/// with OpenSSL only TLS 1.2, because `native-tls` turns TLS 1.3 off.
///
/// ```
/// # fn main() -> Result<(), switchboard::ServerError> {
/// use switchboard::TlsIdentity;
/// let identity = TlsIdentity::from_pem_files("certs/server.pem", "certs/server.key")?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct TlsIdentity(TlsAcceptor);

impl TlsIdentity {
    /// From PEM: the certificate chain, the server's own first, and its PKCS#8 key (`BEGIN PRIVATE KEY`).
    ///
    /// # Errors
    /// [`ServerError::Tls`] if one of them cannot be read, or if the key belongs to another certificate.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, ServerError> {
        let text = String::from_utf8_lossy(key);
        if !text.contains("-----BEGIN PRIVATE KEY-----") {
            let what = if text.contains("BEGIN ENCRYPTED PRIVATE KEY") {
                "the key is encrypted; decrypt it with: openssl pkcs8 -in KEY -out PLAIN_KEY"
            } else if text.contains(" PRIVATE KEY-----") {
                "the key is not PKCS#8; convert it with: openssl pkcs8 -topk8 -nocrypt -in KEY -out PKCS8_KEY"
            } else {
                "there is no PEM key (BEGIN PRIVATE KEY) in the key file"
            };
            return Err(ServerError::tls(what));
        }
        if !String::from_utf8_lossy(certificates).contains("-----BEGIN CERTIFICATE-----") {
            return Err(ServerError::tls(
                "there is no PEM certificate (BEGIN CERTIFICATE) in the certificate file",
            ));
        }
        let identity = Identity::from_pkcs8(certificates, key)
            .map_err(|e| ServerError::tls(format!("the certificate or its key cannot be read: {e}")))?;
        Self::new(identity)
    }

    /// From two PEM files; see [`from_pem`](Self::from_pem).
    ///
    /// # Errors
    /// As [`from_pem`](Self::from_pem), and if a file cannot be read. The text names the file.
    pub fn from_pem_files(
        certificates: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, ServerError> {
        let (certificates, key) = (certificates.as_ref(), key.as_ref());
        Self::from_pem(&read(certificates)?, &read(key)?)
            .map_err(|e| ServerError::tls(format!("{} with {}: {e}", certificates.display(), key.display())))
    }

    /// From PKCS#12 (`.p12`, `.pfx`): certificate chain and key in one archive, protected by a password.
    ///
    /// # Errors
    /// [`ServerError::Tls`] if it cannot be read, or if the password is wrong.
    pub fn from_pkcs12(archive: &[u8], password: &str) -> Result<Self, ServerError> {
        let identity = Identity::from_pkcs12(archive, password).map_err(|e| {
            let text = e.to_string();
            // OpenSSL and Secure Transport have different texts for this.
            if ["mac verify", "invalid password", "passphrase", "password"].iter().any(|s| text.contains(s)) {
                ServerError::tls("the password of the PKCS#12 archive is wrong")
            } else {
                ServerError::tls(format!("no PKCS#12 archive, or one with outdated encryption: {text}"))
            }
        })?;
        Self::new(identity)
    }

    /// From a PKCS#12 file; see [`from_pkcs12`](Self::from_pkcs12).
    ///
    /// # Errors
    /// As [`from_pkcs12`](Self::from_pkcs12), and if the file cannot be read. The text names the file.
    pub fn from_pkcs12_file(archive: impl AsRef<Path>, password: &str) -> Result<Self, ServerError> {
        let archive = archive.as_ref();
        Self::from_pkcs12(&read(archive)?, password)
            .map_err(|e| ServerError::tls(format!("{}: {e}", archive.display())))
    }

    fn new(identity: Identity) -> Result<Self, ServerError> {
        let acceptor =
            TlsAcceptor::builder(identity).min_protocol_version(Some(Protocol::Tlsv12)).build().map_err(
                |e| ServerError::tls(format!("the certificate and the key do not make a TLS server: {e}")),
            )?;
        let identity = Self(acceptor);
        identity.check()?;
        Ok(identity)
    }

    pub(crate) fn acceptor(&self) -> &TlsAcceptor {
        &self.0
    }

    /// Does a handshake between this identity and a client in this process. OpenSSL accepts a key that belongs to another
    /// certificate, and only the handshakes of clients would fail then.
    fn check(&self) -> Result<(), ServerError> {
        let mismatch = |e: native_tls::Error| {
            log::debug!("the test handshake failed: {e}");
            ServerError::tls("the key does not match the certificate")
        };
        let connector = TlsConnector::builder()
            .danger_accept_invalid_certs(true)
            .danger_accept_invalid_hostnames(true)
            .disable_built_in_roots(true)
            .build()
            .map_err(|e| ServerError::tls(e.to_string()))?;
        let (client, server) = std::os::unix::net::UnixStream::pair()?;
        client.set_nonblocking(true)?;
        server.set_nonblocking(true)?;
        let mut client = connector.connect("localhost", client);
        let mut server = self.0.accept(server);
        // In each round both sides continue; TLS needs at most three.
        for _ in 0..10 {
            server = match server {
                Ok(_) => return Ok(()),
                Err(HandshakeError::WouldBlock(more)) => more.handshake(),
                Err(HandshakeError::Failure(e)) => return Err(mismatch(e)),
            };
            client = match client {
                Err(HandshakeError::WouldBlock(more)) => more.handshake(),
                Err(HandshakeError::Failure(e)) => return Err(mismatch(e)),
                done => done,
            };
        }
        Err(ServerError::tls("the TLS library did not complete a handshake with itself"))
    }
}

/// Does not show the key.
impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsIdentity")
    }
}

fn read(file: &Path) -> Result<Vec<u8>, ServerError> {
    fs::read(file).map_err(|e| ServerError::tls(format!("cannot read {}: {e}", file.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(result: Result<TlsIdentity, ServerError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn both_forms_are_read() {
        TlsIdentity::from_pem_files("certs/server.pem", "certs/server.key").unwrap();
        TlsIdentity::from_pkcs12_file("certs/server.p12", "switchboard").unwrap();
    }

    #[test]
    fn mistakes_are_named() {
        let pem = TlsIdentity::from_pem_files;
        assert!(error(pem("certs/server.pem", "certs/other.key")).contains("does not match"));
        assert!(
            error(pem("certs/nothing.pem", "certs/server.key")).contains("cannot read certs/nothing.pem")
        );
        assert!(error(pem("certs/server.key", "certs/server.key")).contains("no PEM certificate"));
        assert!(error(pem("certs/server.pem", "certs/server.pem")).contains("no PEM key"));
        let rsa = b"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n";
        assert!(error(TlsIdentity::from_pem(b"", rsa)).contains("openssl pkcs8 -topk8"));
        let p12 = TlsIdentity::from_pkcs12_file;
        assert!(error(p12("certs/server.p12", "wrong")).contains("password of the PKCS#12 archive is wrong"));
        assert!(error(p12("certs/server.pem", "switchboard")).contains("no PKCS#12 archive"));
    }
}

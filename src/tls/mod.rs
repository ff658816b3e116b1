//! The server's certificate and key. They are checked when they are loaded, before the first client comes.

mod certificate;
mod chain;
mod der;
mod found;
mod key;
mod pem;
mod pkcs12;

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    os::unix::net::UnixStream,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use native_tls::{HandshakeError, Identity, Protocol, TlsAcceptor, TlsConnector};

use self::{certificate::Certificate, key::Key};
use crate::error::ServerError;

/// No certificates and no key are longer. A device or a pipe may be without end.
const MAX_FILE: u64 = 1024 * 1024;

/// A certificate with its key, for [`listen_tls`](crate::ServerBuilder::listen_tls). The server speaks TLS 1.2 or later;
/// with OpenSSL only TLS 1.2, because `native-tls` turns TLS 1.3 off.
///
/// ```
/// # fn main() -> Result<(), switchboard::ServerError> {
/// use switchboard::TlsIdentity;
/// let identity = TlsIdentity::from_pem_files("certs/server.pem", "certs/server.key")?;
/// # Ok(()) }
/// ```
///
/// What cannot work is an error when it is loaded, and not with the first client; the text names the file, the certificate
/// by its subject, and what to do. What may be right nonetheless is a warning in the log:
///
/// | what is found | what comes of it |
/// |---|---|
/// | a certificate that has expired, or is not yet valid | a warning, since the clock of a small machine may be set only later |
/// | the issuer of the last certificate is missing: it is not there, and not among the system's roots | a warning, since clients may have the root of a CA of your own |
/// | a certificate that is there twice, or is not among the issuers of the server's own | a warning |
/// | certificates in the wrong order | an error, which says the right one: some clients insist on it |
/// | a key of another certificate, an encrypted key, a file that is cut off, damaged or something else | an error |
#[derive(Clone)]
pub struct TlsIdentity {
    acceptor: TlsAcceptor,
    not_after: SystemTime,
}

impl TlsIdentity {
    /// From PEM: the certificate chain, that is the server's own certificate, then the one that issued it, and so on, with or
    /// without the root; and the server's key, in PKCS#8, PKCS#1 or SEC1 (`BEGIN PRIVATE KEY`, `RSA PRIVATE KEY`, `EC PRIVATE
    /// KEY`).
    ///
    /// Both may be in one file, which is then given twice: of `certificates` all certificates are taken, of `key` the first
    /// key. Text before and between them, byte order marks, and any kind of line ends do no harm.
    ///
    /// # Errors
    /// [`ServerError::Tls`] if one of them cannot be read or used, if the key belongs to another certificate, or if the
    /// certificates are in the wrong order; see [above](Self).
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, ServerError> {
        Self::from_named_pem((certificates, "the certificates"), (key, "the key"))
    }

    /// From two PEM files, or from one with both that is given twice; see [`from_pem`](Self::from_pem).
    ///
    /// # Errors
    /// As [`from_pem`](Self::from_pem), and if a file cannot be read. The text names the file.
    pub fn from_pem_files(
        certificates: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, ServerError> {
        let (certificates, key) = (certificates.as_ref(), key.as_ref());
        let names = [certificates, key].map(|file| file.display().to_string());
        Self::from_named_pem((&read(certificates)?, &names[0]), (&read(key)?, &names[1]))
    }

    fn from_named_pem(certificates: (&[u8], &str), key: (&[u8], &str)) -> Result<Self, ServerError> {
        let ((certificates, name), (key, key_name)) = (certificates, key);
        let of = |name: &str, text: String| ServerError::tls(format!("{name}: {text}"));
        let key = Key::from_pem(key).map_err(|e| of(key_name, e))?;
        let chain = chain::from_pem(certificates).map_err(|e| of(name, e))?;
        let both = format!("{name} with {key_name}");
        chain::check_key(&chain, key.public.as_deref()).map_err(|e| of(&both, e))?;
        chain::check_order(&chain, key.public.as_deref()).map_err(|e| of(name, e))?;
        let identity = key.identity(&chain).map_err(|e| of(&both, e))?;
        let certificate = key.public.is_none().then_some(&chain[0]);
        let identity = Self::new(identity, certificate).map_err(|e| of(&both, e))?;
        warn(name, &chain);
        Ok(identity)
    }

    /// From PKCS#12 (`.p12`, `.pfx`): certificate chain and key in one archive, protected by a password. An archive has no
    /// order: that of its certificates does not matter.
    ///
    /// # Errors
    /// [`ServerError::Tls`] if it cannot be read, if the password is wrong, or if the key or its certificate is missing.
    pub fn from_pkcs12(archive: &[u8], password: &str) -> Result<Self, ServerError> {
        Self::from_named_pkcs12(archive, password, "the archive")
    }

    /// From a PKCS#12 file; see [`from_pkcs12`](Self::from_pkcs12).
    ///
    /// # Errors
    /// As [`from_pkcs12`](Self::from_pkcs12), and if the file cannot be read. The text names the file.
    pub fn from_pkcs12_file(archive: impl AsRef<Path>, password: &str) -> Result<Self, ServerError> {
        let archive = archive.as_ref();
        Self::from_named_pkcs12(&read(archive)?, password, &archive.display().to_string())
    }

    fn from_named_pkcs12(archive: &[u8], password: &str, name: &str) -> Result<Self, ServerError> {
        let of = |text: String| ServerError::tls(format!("{name}: {text}"));
        let (identity, chain) = pkcs12::open(archive, password).map_err(of)?;
        let identity = Self::new(identity, None).map_err(of)?;
        warn(name, &chain);
        Ok(identity)
    }

    /// `doubtful` is a certificate of which it is not known whether it belongs to the key.
    fn new(identity: Identity, doubtful: Option<&Certificate>) -> Result<Self, String> {
        let builder = TlsAcceptor::builder(identity).min_protocol_version(Some(Protocol::Tlsv12)).build();
        let acceptor =
            builder.map_err(|e| format!("the certificate and the key do not make a TLS server: {e}"))?;
        let certificate = try_handshake(&acceptor).map_err(|e| match doubtful {
            Some(certificate) => format!("the key does not match the certificate {certificate} ({e})"),
            None => format!("no client could connect with this certificate and key ({e})"),
        })?;
        let not_after = UNIX_EPOCH + certificate.not_after().unix_duration();
        Ok(Self { acceptor, not_after })
    }

    /// The end of the time for which the server's own certificate is valid.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    pub(crate) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }
}

fn warn(name: &str, chain: &[Certificate]) {
    for warning in chain::warnings(chain) {
        log::warn!("{name}: {warning}");
    }
}

/// Does a handshake between an identity and a client in this process. OpenSSL accepts a key that belongs to another
/// certificate, and only the handshakes of clients would fail then. Returns the certificate that the client got.
fn try_handshake(acceptor: &TlsAcceptor) -> Result<Certificate, String> {
    let connector = TlsConnector::builder()
        .danger_accept_invalid_certs(true)
        .danger_accept_invalid_hostnames(true)
        .disable_built_in_roots(true)
        .build()
        .map_err(|e| e.to_string())?;
    let [client, server] = sockets().map_err(|e| format!("the certificate cannot be tested: {e}"))?;
    let failed = |e: native_tls::Error| e.to_string();
    let mut client = connector.connect("localhost", client);
    let mut server = acceptor.accept(server);
    // In each round both sides continue; TLS needs at most three.
    for _ in 0..10 {
        if let (Ok(client), Ok(_)) = (&client, &server) {
            let certificate = client.peer_certificate().and_then(|c| c.map(|c| c.to_der()).transpose());
            let der = certificate.map_err(failed)?.ok_or("the TLS library did not send a certificate")?;
            return Certificate::parse(der);
        }
        server = match server {
            Err(HandshakeError::WouldBlock(more)) => more.handshake(),
            Err(HandshakeError::Failure(e)) => return Err(failed(e)),
            done => done,
        };
        client = match client {
            Err(HandshakeError::WouldBlock(more)) => more.handshake(),
            Err(HandshakeError::Failure(e)) => return Err(failed(e)),
            done => done,
        };
    }
    Err("the TLS library did not complete a handshake with itself".to_owned())
}

fn sockets() -> io::Result<[UnixStream; 2]> {
    let (client, server) = UnixStream::pair()?;
    client.set_nonblocking(true)?;
    server.set_nonblocking(true)?;
    Ok([client, server])
}

/// Does not show the key.
impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsIdentity")
    }
}

fn read(file: &Path) -> Result<Vec<u8>, ServerError> {
    let mut content = Vec::new();
    File::open(file)
        .and_then(|opened| opened.take(MAX_FILE + 1).read_to_end(&mut content))
        .map_err(|e| ServerError::tls(format!("cannot read {}: {e}", file.display())))?;
    match content.len() as u64 > MAX_FILE {
        true => Err(ServerError::tls(format!("{} is too long for certificates or a key", file.display()))),
        false => Ok(content),
    }
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

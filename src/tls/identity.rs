//! The server's certificate and key, with what was chosen for them.

use std::{
    fmt,
    path::Path,
    sync::{Arc, OnceLock},
    time::{SystemTime, UNIX_EPOCH},
};

#[cfg(feature = "tls")]
use super::native;
#[cfg(feature = "rustls")]
use super::rustls::{self, Usable};
use super::{
    certified::{Certified, named, read},
    settings::{TlsBackend, TlsClientCa, TlsVersion},
};
use crate::{codec::Acceptor, error::TlsError};

/// A certificate with its key, for [`listen_tls`](crate::ServerBuilder::listen_tls). Cheap to clone.
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
///
/// Which library does TLS, and what it can do: see [`TlsBackend`]. What was chosen with the methods below and the library cannot do
/// is an error of [`bind`](crate::ServerBuilder::bind), which says so. The server speaks TLS 1.2 or later.
///
/// ```
/// # #[cfg(feature = "rustls")]
/// # fn main() -> Result<(), switchboard::ServerError> {
/// use switchboard::{Server, TlsBackend, TlsClientCa, TlsIdentity, TlsVersion};
///
/// let identity = TlsIdentity::from_pem_files("certs/server.pem", "certs/server.key")?
///     .with_backend(TlsBackend::Rustls)
///     .with_min_version(TlsVersion::Tls13)
///     .with_client_ca(TlsClientCa::from_pem_file("certs/ca.pem")?);
/// let server = Server::builder().listen_tls("127.0.0.1:0", identity).bind()?;
/// # Ok(()) }
/// # #[cfg(not(feature = "rustls"))]
/// # fn main() {}
/// ```
#[derive(Clone)]
pub struct TlsIdentity(Arc<Current>);

/// What an identity is now: what connections that begin now have.
pub(crate) struct Current {
    certified: Arc<Certified>,
    settings: Settings,
    /// Made when it is first needed. Its other parts may have to be there for that, too.
    acceptor: OnceLock<Result<Acceptor, TlsError>>,
    #[cfg(feature = "rustls")]
    usable: OnceLock<Result<Arc<Usable>, String>>,
}

#[derive(Clone, Default)]
struct Settings {
    backend: TlsBackend,
    min_version: TlsVersion,
    client_ca: Option<TlsClientCa>,
    others: Vec<TlsIdentity>,
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
    /// If one of them cannot be read or used, if the key belongs to another certificate, or if the certificates are in the wrong
    /// order; see [above](Self).
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Self::from_named_pem((certificates, "the certificates"), (key, "the key"))
    }

    /// From two PEM files, or from one with both that is given twice; see [`from_pem`](Self::from_pem).
    ///
    /// # Errors
    /// As [`from_pem`](Self::from_pem), and if a file cannot be read. The text names the file.
    pub fn from_pem_files(certificates: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Self, TlsError> {
        let (certificates, key) = (certificates.as_ref(), key.as_ref());
        let names = [certificates, key].map(|file| file.display().to_string());
        Self::from_named_pem((&read(certificates)?, &names[0]), (&read(key)?, &names[1]))
    }

    fn from_named_pem(certificates: (&[u8], &str), key: (&[u8], &str)) -> Result<Self, TlsError> {
        Self::checked(Certified::from_pem(certificates, key)?, certificates.1)
    }

    /// From PKCS#12 (`.p12`, `.pfx`): certificate chain and key in one archive, protected by a password. An archive has no
    /// order: that of its certificates does not matter.
    ///
    /// Only with the feature `tls`: the system's library opens the archive, whichever one uses what is in it.
    ///
    /// # Errors
    /// If it cannot be read, if the password is wrong, or if the key or its certificate is missing.
    #[cfg(feature = "tls")]
    pub fn from_pkcs12(archive: &[u8], password: &str) -> Result<Self, TlsError> {
        Self::from_named_pkcs12(archive, password, "the archive")
    }

    /// From a PKCS#12 file; see [`from_pkcs12`](Self::from_pkcs12).
    ///
    /// # Errors
    /// As [`from_pkcs12`](Self::from_pkcs12), and if the file cannot be read. The text names the file.
    #[cfg(feature = "tls")]
    pub fn from_pkcs12_file(archive: impl AsRef<Path>, password: &str) -> Result<Self, TlsError> {
        let archive = archive.as_ref();
        Self::from_named_pkcs12(&read(archive)?, password, &archive.display().to_string())
    }

    #[cfg(feature = "tls")]
    fn from_named_pkcs12(archive: &[u8], password: &str, name: &str) -> Result<Self, TlsError> {
        Self::checked(Certified::from_pkcs12(archive, password, name)?, name)
    }

    /// What the library cannot use is found out now.
    #[cfg_attr(not(target_vendor = "apple"), allow(unused_mut))]
    fn checked(mut certified: Certified, file: &str) -> Result<Self, TlsError> {
        certified.warn(file);
        #[cfg(all(feature = "tls", target_vendor = "apple"))]
        if certified.chain.is_empty() {
            let (_, own) = native::acceptor(&certified).map_err(|e| named(file, e))?;
            certified.chain.push(own);
        }
        let identity = Self::new(Arc::new(certified), Settings::default());
        identity.check()?;
        Ok(identity)
    }

    fn new(certified: Arc<Certified>, settings: Settings) -> Self {
        Self(Arc::new(Current {
            certified,
            settings,
            acceptor: OnceLock::new(),
            #[cfg(feature = "rustls")]
            usable: OnceLock::new(),
        }))
    }

    /// Chooses the library that does TLS; without it, it is the [default](TlsBackend::default) one.
    #[must_use]
    pub fn with_backend(self, backend: TlsBackend) -> Self {
        self.with(|settings| settings.backend = backend)
    }

    /// Refuses clients that do not speak this version or a later one; without it, TLS 1.2. With `Tls13` it needs
    /// [`TlsBackend::Rustls`].
    #[must_use]
    pub fn with_min_version(self, version: TlsVersion) -> Self {
        self.with(|settings| settings.min_version = version)
    }

    /// Asks clients for a certificate of this CA (mutual TLS), and refuses those that have none, before they can send a request. Needs
    /// [`TlsBackend::Rustls`].
    ///
    /// The application learns who the client is by [`Opening::client_certificate`](crate::Opening::client_certificate). Sessions are
    /// not resumed then, so that each connection's certificate is verified anew. Browsers show their user a choice of
    /// certificates for a page, but for a WebSocket only use what was chosen for a page before.
    #[must_use]
    pub fn with_client_ca(self, ca: TlsClientCa) -> Self {
        self.with(|settings| settings.client_ca = Some(ca))
    }

    /// Adds a certificate for other names. A client gets the first one that is for the name which it asks for (SNI), and if none
    /// is, or it asks for none, that of `self`. Only certificate and key of the other one are used: what else was chosen is that
    /// of `self`. May be called several times. Needs [`TlsBackend::Rustls`].
    #[must_use]
    pub fn with_other(self, other: TlsIdentity) -> Self {
        self.with(|settings| settings.others.push(other))
    }

    fn with(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.0.settings.clone();
        change(&mut settings);
        Self::new(self.0.certified.clone(), settings)
    }

    /// The library that does TLS.
    #[must_use]
    pub fn backend(&self) -> TlsBackend {
        self.0.settings.backend
    }

    /// The end of the time for which the server's own certificate is valid.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        UNIX_EPOCH + self.current().certified.chain[0].not_after().unix_duration()
    }

    /// What connections that begin now have.
    pub(crate) fn current(&self) -> Arc<Current> {
        self.0.clone()
    }

    /// Whether all that was chosen is possible.
    pub(crate) fn check(&self) -> Result<(), TlsError> {
        self.current().acceptor().map(drop)
    }
}

impl Current {
    /// What makes the server's side of a connection.
    pub(crate) fn acceptor(&self) -> Result<&Acceptor, TlsError> {
        let make = || self.make().map_err(|e| named(&self.certified.name, e));
        self.acceptor.get_or_init(make).as_ref().map_err(Clone::clone)
    }

    fn make(&self) -> Result<Acceptor, String> {
        self.settings.backend.check()?;
        match self.settings.backend {
            #[cfg(feature = "tls")]
            TlsBackend::NativeTls => {
                self.settings.check_for_native()?;
                Ok(native::acceptor(&self.certified)?.0)
            }
            #[cfg(feature = "rustls")]
            TlsBackend::Rustls => {
                let Settings { client_ca, min_version, .. } = &self.settings;
                rustls::acceptor(self.usable()?, self.others()?, client_ca.as_ref(), *min_version)
            }
            #[allow(unreachable_patterns, reason = "there are both")]
            _ => Err("the TLS library is missing".to_owned()),
        }
    }

    #[cfg(feature = "tls")]
    pub(super) fn certified(&self) -> &Certified {
        &self.certified
    }

    /// The certificate and the key as rustls takes them.
    #[cfg(feature = "rustls")]
    pub(super) fn usable(&self) -> Result<Arc<Usable>, String> {
        self.usable.get_or_init(|| Usable::new(&self.certified).map(Arc::new)).clone()
    }

    /// How certificates for other names are found, as they are when a client asks.
    #[cfg(feature = "rustls")]
    fn others(&self) -> Result<Option<rustls::Others>, String> {
        let others = self.settings.others.clone();
        for other in &others {
            let other = other.current();
            other.usable().map_err(|e| format!("{}: {e}", other.certified.name))?;
        }
        let find = move |name: &str| {
            let mut usable = others.iter().filter_map(|other| other.current().usable().ok());
            usable.find(|other| other.is_for(name))
        };
        Ok((!self.settings.others.is_empty()).then(|| Box::new(find) as rustls::Others))
    }
}

impl Settings {
    /// What is to be said of what `native-tls` cannot do.
    #[cfg(feature = "tls")]
    fn check_for_native(&self) -> Result<(), String> {
        let what = match self {
            Self { min_version: TlsVersion::Tls13, .. } => {
                "TLS 1.3 is not to be had from native-tls, which as a server speaks TLS 1.2 only"
            }
            Self { client_ca: Some(_), .. } => "native-tls does not ask clients for certificates",
            Self { others, .. } if !others.is_empty() => "native-tls knows only one certificate",
            _ => return Ok(()),
        };
        let how = match TlsBackend::Rustls.is_available() {
            true => "choose rustls (with_backend(TlsBackend::Rustls), --tls-backend rustls)",
            false => {
                "build with the feature `rustls`, and choose it (with_backend(TlsBackend::Rustls), --tls-backend rustls)"
            }
        };
        Err(format!("{what}: {how}"))
    }
}

/// Does not show the key.
impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsIdentity")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(result: Result<TlsIdentity, TlsError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn both_forms_are_read() {
        TlsIdentity::from_pem_files("certs/server.pem", "certs/server.key").unwrap();
        #[cfg(feature = "tls")]
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
    }

    #[cfg(feature = "tls")]
    #[test]
    fn mistakes_of_an_archive_are_named() {
        let p12 = TlsIdentity::from_pkcs12_file;
        assert!(error(p12("certs/server.p12", "wrong")).contains("password of the PKCS#12 archive is wrong"));
        assert!(error(p12("certs/server.pem", "switchboard")).contains("no PKCS#12 archive"));
    }
}

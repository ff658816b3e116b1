//! The server's certificate and key, with what was chosen for them.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, OnceLock},
    time::SystemTime,
};

#[cfg(feature = "tls")]
use super::native;
#[cfg(feature = "rustls")]
use super::rustls::{self, Usable};
use super::{
    bundled::is_bundled,
    certificate::Certificate,
    certified::{Certified, named},
    client_ca::TlsClientCa,
    info::CertificateInfo,
    settings::{TlsBackend, TlsVersion},
    source::{Fingerprint, Source},
};
use crate::{codec::Acceptor, error::TlsError, sync::LockExt};

/// A certificate with its key, for [`listen_tls`](crate::ServerBuilder::listen_tls). Cheap to clone: all clones are the same
/// identity.
///
/// Its certificate can be renewed while servers use it, by [`replace`](Self::replace), [`reload`](Self::reload) or
/// [`watch`](Self::watch): connections that begin get the new one, open ones go on as they are. When a certificate ends within 30
/// days, the log of its server says so, once a day. What a method `with_…` makes is another identity, and renewed by itself.
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
/// is an error of [`bind`](crate::ServerBuilder::bind), which says so; where there are both, so is a kind of key that only the other
/// one knows. The server speaks TLS 1.2 or later.
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
pub struct TlsIdentity(Arc<Handle>);

/// What all clones of an identity share.
struct Handle {
    current: Mutex<Arc<Current>>,
    source: Arc<Source>,
    /// Whoever loads it again has this: what was read last is used last.
    turn: Mutex<()>,
    /// Whoever makes another `current` of what it is has this: of two changes none is lost.
    changing: Mutex<()>,
}

/// What an identity is now: what connections that begin now have.
pub(crate) struct Current {
    certified: Arc<Certified>,
    settings: Settings,
    /// Of the files that it was loaded from.
    fingerprint: Option<Fingerprint>,
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
        let certified = Certified::from_pem((certificates, "the certificates"), (key, "the key"))?;
        Self::checked(certified, Source::Memory, None)
    }

    /// From two PEM files, or from one with both that is given twice; see [`from_pem`](Self::from_pem). A pipe is waited for, for 10 s.
    ///
    /// # Errors
    /// As [`from_pem`](Self::from_pem), and if a file cannot be read. The text names the file.
    pub fn from_pem_files(certificates: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Self, TlsError> {
        Self::from_source(Source::pem(certificates.as_ref(), key.as_ref()))
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
        Self::checked(Certified::from_pkcs12(archive, password, "the archive")?, Source::Memory, None)
    }

    /// From a PKCS#12 file; see [`from_pkcs12`](Self::from_pkcs12).
    ///
    /// # Errors
    /// As [`from_pkcs12`](Self::from_pkcs12), and if the file cannot be read. The text names the file.
    #[cfg(feature = "tls")]
    pub fn from_pkcs12_file(archive: impl AsRef<Path>, password: &str) -> Result<Self, TlsError> {
        Self::from_source(Source::pkcs12(archive.as_ref(), password))
    }

    /// From a PKCS#12 file, with its password in another file; the ends of its lines do not belong to it. See
    /// [`from_pkcs12`](Self::from_pkcs12).
    ///
    /// # Errors
    /// As [`from_pkcs12`](Self::from_pkcs12), and if a file cannot be read. The text names the file.
    #[cfg(feature = "tls")]
    pub fn from_pkcs12_files(
        archive: impl AsRef<Path>,
        password: impl AsRef<Path>,
    ) -> Result<Self, TlsError> {
        Self::from_source(Source::pkcs12_with(archive.as_ref(), password.as_ref()))
    }

    fn from_source(source: Source) -> Result<Self, TlsError> {
        let content = source.read(false)?;
        Self::checked(source.certified(&content)?, source, Some(content.fingerprint()))
    }

    fn checked(
        certified: Certified,
        source: Source,
        fingerprint: Option<Fingerprint>,
    ) -> Result<Self, TlsError> {
        certified.warn();
        Ok(Self::new(Current::loaded(certified, fingerprint)?, Arc::new(source)))
    }

    fn new(current: Current, source: Arc<Source>) -> Self {
        let current = Mutex::new(Arc::new(current));
        Self(Arc::new(Handle { current, source, turn: Mutex::default(), changing: Mutex::default() }))
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
    ///
    /// The CA's file, if it is from one, is loaded again with that of the certificate: see [`reload`](Self::reload) and
    /// [`watch`](Self::watch). Who comes then is verified with what is in it now. Who is connected already stays: to end the connections
    /// of a client that may not come any more, [close](crate::Hub::close) them.
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
        let current = self.current();
        let mut settings = current.settings.clone();
        change(&mut settings);
        let current = Current::new(current.certified.clone(), settings, current.fingerprint);
        Self::new(current, self.0.source.clone())
    }

    /// The library that does TLS.
    #[must_use]
    pub fn backend(&self) -> TlsBackend {
        self.current().settings.backend
    }

    /// The end of the time for which the server's own certificate is valid: of the one that is in use now.
    #[must_use]
    pub fn not_after(&self) -> SystemTime {
        self.current().info().not_after
    }

    /// The server's own certificate, and those [for other names](Self::with_other), as they are now.
    #[must_use]
    pub fn certificates(&self) -> Vec<CertificateInfo> {
        self.with_all_others().iter().map(|identity| identity.current().info()).collect()
    }

    /// What these certificates are for: DNS names, as they are there, such as `*.example.com`, and IP addresses.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let own = |identity: &Self| identity.current().certified.chain.first().map(Certificate::names);
        self.with_all_others().iter().filter_map(own).flatten().collect()
    }

    /// What connections that begin now have.
    pub(crate) fn current(&self) -> Arc<Current> {
        self.0.current.locked().clone()
    }

    /// Connections that begin from now on have what `make` makes of what there is, and has checked; it must not wait.
    pub(super) fn change(
        &self,
        make: impl FnOnce(&Current) -> Result<Current, TlsError>,
    ) -> Result<Arc<Current>, TlsError> {
        let _changing = self.0.changing.locked();
        let new = Arc::new(make(&self.current())?);
        let old = std::mem::replace(&mut *self.0.current.locked(), new.clone());
        drop(old); // by now the lock is free
        Ok(new)
    }

    /// Where it was loaded from.
    pub(super) fn source(&self) -> &Source {
        &self.0.source
    }

    /// Whoever loads it again has this.
    pub(super) fn turn(&self) -> &Mutex<()> {
        &self.0.turn
    }

    /// This one, and those for other names.
    pub(crate) fn with_all_others(&self) -> Vec<Self> {
        let others = self.current().settings.others.clone();
        std::iter::once(self.clone()).chain(others).collect()
    }

    /// Whether one is a clone of the other.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether all that was chosen is possible.
    pub(crate) fn check(&self) -> Result<(), TlsError> {
        self.current().acceptor().map(drop)
    }
}

impl Current {
    fn new(certified: Arc<Certified>, settings: Settings, fingerprint: Option<Fingerprint>) -> Self {
        Self {
            certified,
            settings,
            fingerprint,
            acceptor: OnceLock::new(),
            #[cfg(feature = "rustls")]
            usable: OnceLock::new(),
        }
    }

    /// What no library can use is found out now. Which one it is for may be chosen later; then `bind` finds out the rest.
    fn loaded(certified: Certified, fingerprint: Option<Fingerprint>) -> Result<Self, TlsError> {
        let current = Self::made(certified, Settings::default(), fingerprint)?;
        match current.acceptor() {
            #[cfg(feature = "rustls")]
            Err(_) if current.usable().is_ok() => {}
            made => drop(made?),
        }
        Ok(current)
    }

    #[cfg_attr(not(target_vendor = "apple"), allow(unused_mut, clippy::unnecessary_wraps))]
    fn made(
        mut certified: Certified,
        settings: Settings,
        fingerprint: Option<Fingerprint>,
    ) -> Result<Self, TlsError> {
        #[cfg(all(feature = "tls", target_vendor = "apple"))]
        if certified.chain.is_empty() {
            let (_, own) = native::acceptor(&certified).map_err(|e| named(&certified.name, e))?;
            certified.chain.push(own);
        }
        Ok(Self::new(Arc::new(certified), settings, fingerprint))
    }

    /// What takes the place of this, with the same settings: another certificate and its key.
    pub(super) fn renewed(&self, new: Certified, fingerprint: Fingerprint) -> Result<Self, TlsError> {
        let new = Self::made(new, self.settings.clone(), Some(fingerprint))?;
        new.acceptor()?;
        self.check_successor(new)
    }

    /// The same: those of another identity.
    pub(super) fn replaced(&self, new: &Self) -> Result<Self, TlsError> {
        let new = Self::new(new.certified.clone(), self.settings.clone(), new.fingerprint);
        new.acceptor()?;
        self.check_successor(new)
    }

    /// The same certificate, for clients of another CA.
    pub(super) fn with_other_clients(&self, ca: TlsClientCa) -> Result<Self, TlsError> {
        let settings = Settings { client_ca: Some(ca), ..self.settings.clone() };
        let new = Self::new(self.certified.clone(), settings, self.fingerprint);
        new.acceptor()?;
        self.check_successor(new)
    }

    /// Whose certificates clients must have.
    pub(super) fn client_ca(&self) -> Option<&TlsClientCa> {
        self.settings.client_ca.as_ref()
    }

    /// If another identity uses this one for its names, it has to be able to use the new one, too.
    fn check_successor(&self, new: Self) -> Result<Self, TlsError> {
        #[cfg(feature = "rustls")]
        if matches!(self.usable.get(), Some(Ok(_))) {
            new.usable().map_err(|e| named(&new.certified.name, e))?;
        }
        Ok(new)
    }

    pub(super) fn fingerprint(&self) -> Option<Fingerprint> {
        self.fingerprint
    }

    /// Says in the log what clients may stumble over.
    pub(super) fn warn(&self) {
        self.certified.warn();
    }

    /// The server's own certificate.
    pub(crate) fn info(&self) -> CertificateInfo {
        self.certified.chain[0].info(&self.certified.file)
    }

    /// The one of the chain that ends first.
    pub(crate) fn first_to_end(&self) -> CertificateInfo {
        let own = &self.certified.chain[0];
        let first = self.certified.chain.iter().min_by_key(|certificate| certificate.not_after());
        first.unwrap_or(own).info(&self.certified.file)
    }

    /// Whether it is the one that comes with the source code, whose key is public.
    pub(crate) fn is_bundled(&self) -> bool {
        is_bundled(&self.certified.chain[0])
    }

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
    fn certificates_tell_what_they_are_for() {
        let identity = TlsIdentity::from_pem_files("certs/server.pem", "certs/server.key").unwrap();
        let [certificate] = identity.certificates().try_into().unwrap();
        assert_eq!(certificate.not_after, identity.not_after());
        assert_eq!(identity.names(), ["localhost", "127.0.0.1", "::1"]);
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

//! Whom a client trusts, and what it shows of itself.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex},
};

#[cfg(feature = "tls")]
use super::native;
#[cfg(feature = "rustls")]
use super::rustls;
use super::{
    certificate::Certificate,
    certified::{named, read},
    chain,
    identity::{Current, TlsIdentity},
    settings::{TlsBackend, TlsVersion},
};
use crate::{codec::Connector, error::TlsError, sync::LockExt};

/// Which servers a client trusts, and with what it shows who it is itself. Cheap to clone.
///
/// The server must have a certificate for the host of the URL, a name or an IP address, issued by a CA that is trusted here.
///
/// ```
/// use switchboard::TlsTrust;
///
/// # fn main() -> Result<(), switchboard::TlsError> {
/// let public = TlsTrust::system(); // servers with certificates of public CAs
/// let own = TlsTrust::ca_file("certs/ca.pem")?; // only those of a CA of one's own
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct TlsTrust {
    settings: Arc<Settings>,
    /// Made when it is first needed, as the system's roots are many; and again when what it shows was replaced.
    connector: Arc<Mutex<Option<Made>>>,
}

struct Made {
    connector: Connector,
    shown: Option<Arc<Current>>,
}

#[derive(Clone, Default)]
struct Settings {
    trusted: Trusted,
    identity: Option<TlsIdentity>,
    backend: TlsBackend,
    min_version: TlsVersion,
}

#[derive(Clone, Default)]
enum Trusted {
    #[default]
    System,
    /// And perhaps the system's, too.
    Own(Arc<Vec<Certificate>>, bool),
    Anybody,
}

impl TlsTrust {
    /// Trusts the CAs that this system trusts. This is the default.
    #[must_use]
    pub fn system() -> Self {
        Self::new(Settings::default())
    }

    /// Trusts only these CAs, given in PEM. The certificate of a server that has signed it itself does as well.
    ///
    /// # Errors
    /// If a certificate cannot be read, or there is none.
    pub fn ca(certificates: &[u8]) -> Result<Self, TlsError> {
        Self::named(certificates, "the certificates of the CA")
    }

    /// Trusts only the CAs of this PEM file.
    ///
    /// # Errors
    /// As [`ca`](Self::ca), and if the file cannot be read. The text names the file.
    pub fn ca_file(certificates: impl AsRef<Path>) -> Result<Self, TlsError> {
        let file = certificates.as_ref();
        Self::named(&read(file)?, &file.display().to_string())
    }

    fn named(certificates: &[u8], name: &str) -> Result<Self, TlsError> {
        let own = chain::from_pem(certificates).map_err(|e| named(name, e))?;
        Ok(Self::new(Settings { trusted: Trusted::Own(Arc::new(own), false), ..Settings::default() }))
    }

    /// Trusts any server, whatever its certificate says. **Whoever is on the way can read and change everything.** For tests, and for
    /// networks where nobody else is.
    #[must_use]
    pub fn danger_any_server() -> Self {
        Self::new(Settings { trusted: Trusted::Anybody, ..Settings::default() })
    }

    fn new(settings: Settings) -> Self {
        Self { settings: Arc::new(settings), connector: Arc::default() }
    }

    /// Trusts the CAs of this system, too.
    #[must_use]
    pub fn and_system(self) -> Self {
        self.with(|settings| {
            if let Trusted::Own(_, with_system) = &mut settings.trusted {
                *with_system = true;
            }
        })
    }

    /// Shows this certificate to servers that ask for one (mutual TLS). Of the identity only certificate and key are used.
    #[must_use]
    pub fn with_identity(self, identity: TlsIdentity) -> Self {
        self.with(|settings| settings.identity = Some(identity))
    }

    /// Chooses the library that does TLS; without it, it is the [default](TlsBackend::default) one.
    #[must_use]
    pub fn with_backend(self, backend: TlsBackend) -> Self {
        self.with(|settings| settings.backend = backend)
    }

    /// Refuses servers that do not speak this version or a later one; without it, TLS 1.2.
    #[must_use]
    pub fn with_min_version(self, version: TlsVersion) -> Self {
        self.with(|settings| settings.min_version = version)
    }

    fn with(self, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = (*self.settings).clone();
        change(&mut settings);
        Self::new(settings)
    }

    /// The library that does TLS.
    #[must_use]
    pub fn backend(&self) -> TlsBackend {
        self.settings.backend
    }

    /// What makes the client's side of a connection.
    pub(crate) fn connector(&self) -> Result<Connector, TlsError> {
        let shown = self.settings.identity.as_ref().map(TlsIdentity::current);
        let mut made = self.connector.locked();
        if let Some(made) = &*made
            && made.shown.as_ref().map(Arc::as_ptr) == shown.as_ref().map(Arc::as_ptr)
        {
            return Ok(made.connector.clone());
        }
        let connector = self.settings.connector(shown.as_deref()).map_err(TlsError::new)?;
        *made = Some(Made { connector: connector.clone(), shown });
        Ok(connector)
    }
}

impl Settings {
    fn connector(&self, shown: Option<&Current>) -> Result<Connector, String> {
        self.backend.check()?;
        let trusted = match &self.trusted {
            Trusted::System => Some((&[][..], true)),
            Trusted::Own(own, with_system) => Some((&own[..], *with_system)),
            Trusted::Anybody => None,
        };
        match self.backend {
            #[cfg(feature = "tls")]
            TlsBackend::NativeTls => {
                native::connector(trusted, shown.map(Current::certified), self.min_version)
            }
            #[cfg(feature = "rustls")]
            TlsBackend::Rustls => {
                rustls::connector(trusted, shown.map(Current::usable).transpose()?, self.min_version)
            }
            #[allow(unreachable_patterns, reason = "there are both")]
            _ => Err("the TLS library is missing".to_owned()),
        }
    }
}

/// [`TlsTrust::system`].
impl Default for TlsTrust {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for TlsTrust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trusted = match &self.settings.trusted {
            Trusted::System => "the system's CAs".to_owned(),
            Trusted::Own(own, with_system) => {
                let names: Vec<_> = own.iter().map(ToString::to_string).collect();
                format!("{}{}", names.join(", "), if *with_system { " and the system's CAs" } else { "" })
            }
            Trusted::Anybody => "anybody".to_owned(),
        };
        f.debug_struct("TlsTrust").field("trusted", &trusted).finish_non_exhaustive()
    }
}

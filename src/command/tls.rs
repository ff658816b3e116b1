//! The options of TLS.

use std::{error::Error, path::PathBuf};

use clap::{ArgGroup, Args, ValueEnum};
use log::{error, info, warn};
use switchboard::{Server, ServerBuilder, TlsBackend, TlsClientCa, TlsIdentity, TlsVersion, TlsWatch};

use super::signals;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("tls_address").multiple(true))]
#[cfg_attr(feature = "tls", command(group = ArgGroup::new("certificate").args(["cert", "identity"])))]
#[cfg_attr(not(feature = "tls"), command(group = ArgGroup::new("certificate").args(["cert"])))]
pub(super) struct Tls {
    /// Listen here with TLS, which needs a certificate, such as --cert and --key; repeatable. When its files change, and at SIGHUP,
    /// it is loaded again
    #[arg(long, value_name = "ADDR", requires = "certificate", group = "tls_address")]
    pub(super) tls_listen: Vec<String>,
    /// Send all who come here in the clear to https (308): a port, of the host of the first --tls-listen, or HOST:PORT; repeatable
    #[arg(long, value_name = "PORT", value_parser = redirect_port)]
    redirect_port: Vec<String>,
    /// The port of https to which --redirect-port sends, where clients see another one [default: that of the first --tls-listen]
    #[arg(long, value_name = "PORT", requires = "redirect_port", value_parser = clap::value_parser!(u16).range(1..))]
    https_port: Option<u16>,
    /// The certificate chain, in PEM, the server's own certificate first; repeatable, for other names, with a --key for each
    #[arg(long, value_name = "FILE", requires = "key", requires = "tls_address")]
    cert: Vec<PathBuf>,
    /// The certificate's key, in PEM; it may be in the same file
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Vec<PathBuf>,
    /// Certificate and key in one, in PKCS#12
    #[cfg(feature = "tls")]
    #[arg(
        long,
        value_name = "FILE",
        requires = "password_file",
        requires = "tls_address",
        conflicts_with = "cert"
    )]
    identity: Option<PathBuf>,
    /// A file with the password of --identity
    #[cfg(feature = "tls")]
    #[arg(long, value_name = "FILE", requires = "identity")]
    password_file: Option<PathBuf>,
    /// Who does TLS: the system's library, or rustls, which knows TLS 1.3, --client-ca and several --cert
    #[arg(long, value_name = "NAME", default_value = Backend::default_name(), requires = "tls_address")]
    tls_backend: Backend,
    /// Refuse clients that speak no later version than this one
    #[arg(long, value_name = "VERSION", default_value = "1.2", requires = "tls_address")]
    tls_min_version: Version,
    /// Refuse clients that have no certificate of a CA in this PEM file, which is loaded again as that of the certificate is
    #[arg(long, value_name = "FILE", requires = "tls_address")]
    client_ca: Option<PathBuf>,
}

/// The values of `--tls-backend`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Backend {
    NativeTls,
    Rustls,
}

impl Backend {
    pub(super) fn default_name() -> &'static str {
        if TlsBackend::default() == TlsBackend::NativeTls { "native-tls" } else { "rustls" }
    }
}

impl From<Backend> for TlsBackend {
    fn from(backend: Backend) -> Self {
        match backend {
            Backend::NativeTls => Self::NativeTls,
            Backend::Rustls => Self::Rustls,
        }
    }
}

/// The values of `--tls-min-version`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Version {
    #[value(name = "1.2")]
    Tls12,
    #[value(name = "1.3")]
    Tls13,
}

impl From<Version> for TlsVersion {
    fn from(version: Version) -> Self {
        match version {
            Version::Tls12 => Self::Tls12,
            Version::Tls13 => Self::Tls13,
        }
    }
}

impl Tls {
    /// Has the server listen where it is to.
    pub(super) fn listen(&self, mut builder: ServerBuilder, identity: Option<&TlsIdentity>) -> ServerBuilder {
        if let Some(identity) = identity {
            for address in &self.tls_listen {
                builder = builder.listen_tls(address, identity.clone());
            }
        }
        // Without a certificate the server does not start, and what is wrong with that has been told.
        if identity.is_some() || self.tls_listen.is_empty() {
            for address in self.redirect_addresses() {
                builder = builder.redirect_to_https(address, self.https_port);
            }
        }
        builder
    }

    /// Of a port alone, that of the same host as where there is TLS.
    pub(super) fn redirect_addresses(&self) -> Vec<String> {
        let hosts = self.tls_listen.iter().filter(|address| !address.starts_with("unix:"));
        let host = hosts.filter_map(|address| address.rsplit_once(':')).map(|(host, _)| host).next();
        let host = host.unwrap_or("0.0.0.0");
        let address = |given: &String| match given.bytes().all(|b| b.is_ascii_digit()) {
            true => format!("{host}:{given}"),
            false => given.clone(),
        };
        self.redirect_port.iter().map(address).collect()
    }

    /// The certificates, with what was chosen for them.
    pub(super) fn identity(&self) -> Result<Option<TlsIdentity>, Box<dyn Error>> {
        let mut all = self.identities()?.into_iter();
        let Some(first) = all.next() else { return Ok(None) };
        let first = first.with_backend(self.tls_backend.into()).with_min_version(self.tls_min_version.into());
        let mut identity = all.fold(first, TlsIdentity::with_other);
        if let Some(file) = &self.client_ca {
            identity = identity.with_client_ca(TlsClientCa::from_pem_file(file)?);
        }
        Ok(Some(identity))
    }

    fn identities(&self) -> Result<Vec<TlsIdentity>, Box<dyn Error>> {
        if self.cert.len() != self.key.len() {
            let (certs, keys) = (self.cert.len(), self.key.len());
            return Err(
                format!("there are {certs} --cert and {keys} --key: each --cert needs its --key").into()
            );
        }
        let pairs = self.cert.iter().zip(&self.key);
        let identities = pairs.map(|(cert, key)| TlsIdentity::from_pem_files(cert, key));
        let mut identities = identities.collect::<Result<Vec<_>, _>>()?;
        identities.extend(self.archive()?);
        Ok(identities)
    }

    #[cfg(feature = "tls")]
    fn archive(&self) -> Result<Option<TlsIdentity>, Box<dyn Error>> {
        let (Some(identity), Some(password_file)) = (&self.identity, &self.password_file) else {
            return Ok(None);
        };
        Ok(Some(TlsIdentity::from_pkcs12_files(identity, password_file)?))
    }

    /// Only the system's library opens one.
    #[cfg(not(feature = "tls"))]
    fn archive(&self) -> Result<Option<TlsIdentity>, Box<dyn Error>> {
        Ok(None)
    }
}

/// A port, or an address; whether there is such a one is told when it is listened on.
fn redirect_port(text: &str) -> Result<String, String> {
    let is_port = text.parse::<u16>().is_ok_and(|port| port > 0) && !text.starts_with('+');
    if is_port || text.contains(':') {
        Ok(text.to_owned())
    } else {
        Err("must be a port, or HOST:PORT".into())
    }
}

/// Says where clients are sent to https.
pub(super) fn announce(server: &Server) {
    for address in server.redirect_addrs() {
        info!("http://{address}/ sends clients to https");
    }
}

/// Has the certificates loaded again whenever their files change. If that cannot be, the server serves nonetheless.
pub(super) fn watch(identity: &TlsIdentity) -> Option<TlsWatch> {
    identity.watch().inspect_err(|e| warn!("certificates are loaded again only at SIGHUP: {e}")).ok()
}

/// Has them loaded again at SIGHUP; the log's file may have been opened again.
pub(super) fn on_hangup(identity: Option<&TlsIdentity>, has_reopened: bool) {
    match identity.map(TlsIdentity::reload) {
        None => signals::on_hangup(has_reopened),
        Some(Ok(true)) => {} // the library has said so
        Some(Ok(false)) => info!("SIGHUP: the files of the certificates have not changed"),
        Some(Err(e)) => error!("SIGHUP: {e}; what was loaded before stays in use"),
    }
}

//! What `rustls` is given.

use std::sync::{Arc, OnceLock};

use rustls::{
    ClientConfig, Error, RootCertStore, ServerConfig, SupportedProtocolVersion,
    client::{Resumption, WebPkiServerVerifier},
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring},
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};

use super::{
    certificate::Certificate,
    certified::Certified,
    client_ca::TlsClientCa,
    key::Secret,
    settings::TlsVersion,
    verifier::{Anybody, TrustedClients, TrustedServers},
};
use crate::codec::{Acceptor, Connector};

/// So many servers' sessions a client keeps, to resume them.
const CLIENT_SESSIONS: usize = 8;

/// A certificate and its key as the library takes them, and the names that it is for.
#[derive(Debug)]
pub(super) struct Usable {
    key: Arc<CertifiedKey>,
    names: Vec<String>,
}

/// Finds a certificate for a name that a client asks for.
pub(super) type Others = Box<dyn Fn(&str) -> Option<Arc<Usable>> + Send + Sync>;

impl Usable {
    pub(super) fn new(certified: &Certified) -> Result<Self, String> {
        let key = match &certified.secret {
            Secret::Key(key) => PrivatePkcs8KeyDer::from(key.pkcs8.clone()),
            #[cfg(all(feature = "tls", target_vendor = "apple"))]
            Secret::System(_) => {
                return Err("rustls cannot use what only the system can open: convert it with: openssl pkcs12 -nodes -in ARCHIVE -out PEM_FILE".to_owned());
            }
        };
        let chain = certified.chain.iter().map(|certificate| CertificateDer::from(certificate.der.clone()));
        let key = CertifiedKey::from_der(chain.collect(), PrivateKeyDer::Pkcs8(key), &provider());
        let key = key.map_err(|e| match e {
            Error::InconsistentKeys(_) => {
                format!("the key does not match the certificate {}", certified.chain[0])
            }
            e => format!(
                "rustls cannot use the certificate {} or its key: it takes certificates of version 3, which `openssl x509 -req` makes with -extfile, and keys of RSA of 2048 bits or more, ECDSA on P-256 or P-384, and Ed25519 ({e})",
                certified.chain[0]
            ),
        })?;
        Ok(Self { key: Arc::new(key), names: certified.chain[0].dns_names() })
    }

    /// Whether a client that asks for this name takes it (RFC 9525, section 6.3).
    pub(super) fn is_for(&self, name: &str) -> bool {
        self.names.iter().any(|of_certificate| match of_certificate.strip_prefix("*.") {
            Some(parent) => name.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent)),
            None => name.eq_ignore_ascii_case(of_certificate),
        })
    }
}

fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(ring::default_provider())).clone()
}

fn algorithms() -> WebPkiSupportedAlgorithms {
    provider().signature_verification_algorithms
}

fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static ALL: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];
    match min {
        TlsVersion::Tls12 => ALL,
        TlsVersion::Tls13 => &ALL[..1],
    }
}

/// The server's side.
pub(super) fn acceptor(
    own: Arc<Usable>,
    others: Option<Others>,
    client_ca: Option<&TlsClientCa>,
    min_version: TlsVersion,
) -> Result<Acceptor, String> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(min_version))
        .map_err(|e| e.to_string())?;
    let builder = match client_ca {
        Some(ca) => {
            let roots = roots(&ca.roots).map_err(|e| format!("{}: {e}", ca.name()))?;
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider());
            let verifier = if ca.is_optional { verifier.allow_unauthenticated() } else { verifier };
            let verifier = verifier.build().map_err(|e| format!("the clients' CA cannot be used: {e}"))?;
            builder.with_client_cert_verifier(Arc::new(TrustedClients::new(
                verifier,
                &ca.roots,
                algorithms(),
            )))
        }
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(ByName { own, others }));
    // What clients need to resume a session they keep themselves, so that it takes no memory here. A resumed session
    // does not verify a client's certificate again, which may have been revoked or have expired: so there is none then.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if client_ca.is_none() {
        config.ticketer = ring::Ticketer::new().map_err(|e| e.to_string())?;
    }
    Ok(Acceptor::Rustls(Arc::new(config)))
}

fn roots(certificates: &[Certificate]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in certificates {
        store
            .add(CertificateDer::from(certificate.der.clone()))
            .map_err(|e| format!("rustls cannot use the CA's certificate {certificate}: {e}"))?;
    }
    Ok(store)
}

/// Gives the certificate that is for the name which a client asks for (RFC 6066, section 3), to others the first one.
struct ByName {
    own: Arc<Usable>,
    others: Option<Others>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let (Some(others), Some(name)) = (&self.others, hello.server_name())
            && !self.own.is_for(name)
            && let Some(other) = others(name)
        {
            return Some(other.key.clone());
        }
        Some(self.own.key.clone())
    }
}

impl std::fmt::Debug for ByName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ByName")
    }
}

/// The client's side. Without `trusted` the server may be anybody.
pub(super) fn connector(
    trusted: Option<(&[Certificate], bool)>,
    identity: Option<Arc<Usable>>,
    min_version: TlsVersion,
) -> Result<Connector, String> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions(min_version))
        .map_err(|e| e.to_string())?;
    let builder = match trusted {
        Some((own, with_system)) => {
            let mut store = roots(own)?;
            if with_system {
                // As the system's library does, it leaves out those that it cannot use.
                store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
            let chains = WebPkiServerVerifier::builder_with_provider(store.into(), provider());
            let chains = chains.build().map_err(|e| format!("the CA cannot be used: {e}"))?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustedServers::new(
                chains,
                own,
                algorithms(),
            )))
        }
        None => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody { algorithms: algorithms() })),
    };
    let mut config = match identity {
        Some(identity) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.key.clone())))
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::in_memory_sessions(CLIENT_SESSIONS);
    Ok(Connector::Rustls(Arc::new(config)))
}

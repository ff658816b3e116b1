//! Certificates and keys: read, checked when they are loaded, before the first client comes, and given to the TLS library. What
//! both sides, server and client, can choose.

mod bundled;
mod certificate;
mod certified;
mod chain;
mod changes;
mod client_ca;
mod der;
#[cfg_attr(not(any(target_os = "linux", target_os = "android")), path = "untold.rs")]
mod folders;
mod found;
mod identity;
mod info;
mod key;
#[cfg(feature = "tls")]
mod native;
mod pem;
#[cfg(feature = "tls")]
mod pkcs12;
mod renewal;
#[cfg(feature = "rustls")]
mod rustls;
mod settings;
mod source;
mod trust;
#[cfg(feature = "rustls")]
mod verifier;
mod watch;

pub use self::{
    client_ca::TlsClientCa,
    identity::TlsIdentity,
    info::CertificateInfo,
    settings::{TlsBackend, TlsVersion},
    trust::TlsTrust,
    watch::TlsWatch,
};

//! Certificates and keys: read, checked when they are loaded, before the first client comes, and given to the TLS library. What
//! both sides, server and client, can choose.

mod certificate;
mod certified;
mod chain;
mod der;
mod found;
mod identity;
mod key;
#[cfg(feature = "tls")]
mod native;
mod pem;
#[cfg(feature = "tls")]
mod pkcs12;
#[cfg(feature = "rustls")]
mod rustls;
mod settings;
mod trust;
#[cfg(feature = "rustls")]
mod verifier;

pub use self::{
    identity::TlsIdentity,
    settings::{TlsBackend, TlsClientCa, TlsVersion},
    trust::TlsTrust,
};

//! One certificate (RFC 5280), as far as a server has to know its own.

use std::{
    fmt,
    net::IpAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use x509_cert::{
    certificate::{CertificateInner, Raw, TbsCertificateInner},
    der::{DateTime, Decode, asn1::OctetString},
    ext::pkix::{
        AuthorityInfoAccessSyntax, AuthorityKeyIdentifier, SubjectAltName, SubjectKeyIdentifier,
        name::GeneralName,
    },
    name::Name,
};

use super::{der::damage, info::CertificateInfo};
use crate::shown::Quoted;

/// What `AuthorityInfoAccess` says of where the issuer's certificate is (RFC 5280, section 4.2.2.1).
const CA_ISSUERS: &str = "1.3.6.1.5.5.7.48.2";

pub(super) struct Certificate {
    pub(super) der: Vec<u8>,
    parsed: TbsCertificateInner<Raw>,
    subject: Identified,
    issuer: Identified,
}

/// A name as it is compared, and the identifier of a key.
struct Identified {
    name: String,
    key_id: Option<OctetString>,
}

impl Certificate {
    /// More lenient than RFC 5280, as the TLS libraries are.
    pub(super) fn parse(der: Vec<u8>) -> Result<Self, String> {
        let parsed = CertificateInner::<Raw>::from_der(&der).map_err(|e| damage(&der, e))?;
        let parsed = parsed.tbs_certificate().clone();
        let subject_key = parsed.get_extension::<SubjectKeyIdentifier>().ok().flatten();
        let issuer_key = parsed.get_extension::<AuthorityKeyIdentifier>().ok().flatten();
        Ok(Self {
            subject: Identified { name: compared(parsed.subject()), key_id: subject_key.map(|(_, id)| id.0) },
            issuer: Identified {
                name: compared(parsed.issuer()),
                key_id: issuer_key.and_then(|(_, id)| id.key_identifier),
            },
            der,
            parsed,
        })
    }

    /// Whether `other` names this one as its issuer. The signature is not checked.
    pub(super) fn issued(&self, other: &Self) -> bool {
        let same_key = match (&self.subject.key_id, &other.issuer.key_id) {
            (Some(id), Some(issuer_id)) => id == issuer_id,
            _ => true, // they do not say
        };
        same_key && self.subject.name == other.issuer.name
    }

    /// The bits of the public key.
    pub(super) fn public_key(&self) -> &[u8] {
        self.parsed.subject_public_key_info().subject_public_key.raw_bytes()
    }

    pub(super) fn issuer(&self) -> impl fmt::Display {
        Quoted(self.parsed.issuer().to_string())
    }

    /// A URL of the issuer's certificate. Public CAs give one.
    pub(super) fn issuer_url(&self) -> Option<String> {
        let (_, access) = self.parsed.get_extension::<AuthorityInfoAccessSyntax>().ok()??;
        access.0.into_iter().find_map(|access| match access.access_location {
            GeneralName::UniformResourceIdentifier(url) if access.access_method.to_string() == CA_ISSUERS => {
                Some(url.to_string())
            }
            _ => None,
        })
    }

    /// The DNS names that it is for, as they are in it: in any case, with `*.` for one more label.
    #[cfg(feature = "rustls")]
    pub(super) fn dns_names(&self) -> Vec<String> {
        let names = self.parsed.get_extension::<SubjectAltName>().ok().flatten();
        let names = names.into_iter().flat_map(|(_, names)| names.0);
        let dns = |name| if let GeneralName::DnsName(name) = name { Some(name.to_string()) } else { None };
        names.filter_map(dns).collect()
    }

    /// All that it is for: DNS names and IP addresses.
    pub(super) fn names(&self) -> Vec<String> {
        let names = self.parsed.get_extension::<SubjectAltName>().ok().flatten();
        let shown = |name| match name {
            GeneralName::DnsName(name) => Some(name.to_string()),
            GeneralName::IpAddress(bytes) => address(bytes.as_bytes()).map(|address| address.to_string()),
            _ => None,
        };
        names.into_iter().flat_map(|(_, names)| names.0).filter_map(shown).collect()
    }

    /// The subject. Where it is empty, which it may be in new certificates, the first name that the certificate is for.
    pub(super) fn name(&self) -> String {
        let subject = self.parsed.subject();
        let name = || {
            let (_, names) = self.parsed.get_extension::<SubjectAltName>().ok()??;
            names.0.into_iter().find_map(|name| match name {
                GeneralName::DnsName(name) => Some(format!("DNS:{name}")),
                _ => None,
            })
        };
        match subject.is_empty() {
            true => name().unwrap_or_else(|| "(without a name)".to_owned()),
            false => subject.to_string(),
        }
    }

    pub(super) fn info(&self, name: &str) -> CertificateInfo {
        let time = |time: DateTime| -> SystemTime { UNIX_EPOCH + time.unix_duration() };
        CertificateInfo {
            name: name.to_owned(),
            subject: self.name(),
            not_before: time(self.not_before()),
            not_after: time(self.not_after()),
        }
    }

    pub(super) fn not_before(&self) -> DateTime {
        self.parsed.validity().not_before.to_date_time()
    }

    pub(super) fn not_after(&self) -> DateTime {
        self.parsed.validity().not_after.to_date_time()
    }
}

/// Its [name](Certificate::name), quoted.
impl fmt::Display for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Quoted(self.name()).fmt(f)
    }
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
    }
}

/// Names are compared without regard to case and to the type of their strings (RFC 5280, section 7.1).
fn compared(name: &Name) -> String {
    name.to_string().to_lowercase()
}

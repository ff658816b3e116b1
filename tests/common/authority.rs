//! Certificates of each kind, made as they are needed.

use openssl::{
    asn1::{Asn1Integer, Asn1Time},
    bn::BigNum,
    ec::{EcGroup, EcKey},
    hash::MessageDigest,
    nid::Nid,
    pkey::{PKey, Private},
    stack::Stack,
    x509::{
        X509, X509Builder, X509Extension, X509NameBuilder,
        extension::{AuthorityKeyIdentifier, BasicConstraints, SubjectAlternativeName, SubjectKeyIdentifier},
    },
};

pub const DAY: i64 = 24 * 60 * 60;

/// A certificate with its key.
#[derive(Clone)]
pub struct Certified {
    pub certificate: X509,
    pub key: PKey<Private>,
}

/// How a certificate is made.
pub struct Kind<'a> {
    pub subject: &'a str,
    pub ca: bool,
    /// In seconds from now.
    pub valid: (i64, i64),
    pub issuer_url: Option<&'a str>,
    /// The DNS name that it is for.
    pub name: &'a str,
    pub key: PKey<Private>,
    /// What is signed of it.
    pub digest: MessageDigest,
}

impl<'a> Kind<'a> {
    pub fn server(subject: &'a str) -> Self {
        Self {
            subject,
            ca: false,
            valid: (-DAY, 90 * DAY),
            issuer_url: None,
            name: "localhost",
            key: ec_key(),
            digest: MessageDigest::sha256(),
        }
    }

    pub fn ca(subject: &'a str) -> Self {
        Self { ca: true, ..Self::server(subject) }
    }

    pub fn signed(self) -> Certified {
        self.issued(None)
    }

    pub fn issued_by(self, issuer: &Certified) -> Certified {
        self.issued(Some(issuer))
    }

    fn issued(self, issuer: Option<&Certified>) -> Certified {
        let name = |name: &str| {
            let mut builder = X509NameBuilder::new().unwrap();
            if !name.is_empty() {
                builder.append_entry_by_text("CN", name).unwrap();
            }
            builder.build()
        };
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        builder.set_serial_number(&serial()).unwrap();
        builder.set_subject_name(&name(self.subject)).unwrap();
        let own_name = name(self.subject);
        builder.set_issuer_name(issuer.map_or(&own_name, |i| i.certificate.subject_name())).unwrap();
        builder.set_not_before(&from_now(self.valid.0)).unwrap();
        builder.set_not_after(&from_now(self.valid.1)).unwrap();
        builder.set_pubkey(&self.key).unwrap();
        self.extend(&mut builder, issuer);
        let digest = match self.key.id() {
            openssl::pkey::Id::ED25519 if issuer.is_none() => MessageDigest::null(),
            _ => self.digest,
        };
        builder.sign(issuer.map_or(&self.key, |i| &i.key), digest).unwrap();
        Certified { certificate: builder.build(), key: self.key }
    }

    fn extend(&self, builder: &mut X509Builder, issuer: Option<&Certified>) {
        let mut constraints = BasicConstraints::new();
        if self.ca {
            constraints.ca();
        }
        builder.append_extension(constraints.critical().build().unwrap()).unwrap();
        let issuer = issuer.map(|i| &*i.certificate);
        let key_id = SubjectKeyIdentifier::new().build(&builder.x509v3_context(issuer, None)).unwrap();
        builder.append_extension(key_id).unwrap();
        if issuer.is_some() {
            let context = builder.x509v3_context(issuer, None);
            let key_id = AuthorityKeyIdentifier::new().keyid(false).build(&context).unwrap();
            builder.append_extension(key_id).unwrap();
        }
        let context = builder.x509v3_context(issuer, None);
        let names = SubjectAlternativeName::new().dns(self.name).build(&context).unwrap();
        builder.append_extension(names).unwrap();
        if let Some(url) = self.issuer_url {
            #[allow(deprecated, reason = "its successor takes DER")]
            let access =
                X509Extension::new(None, None, "authorityInfoAccess", &format!("caIssuers;URI:{url}"));
            builder.append_extension(access.unwrap()).unwrap();
        }
    }
}

impl Certified {
    pub fn pem(&self) -> String {
        String::from_utf8(self.certificate.to_pem().unwrap()).unwrap()
    }

    /// PKCS#8.
    pub fn key_pem(&self) -> String {
        String::from_utf8(self.key.private_key_to_pem_pkcs8().unwrap()).unwrap()
    }
}

/// A server's certificate, that of its issuer, of the issuer's issuer, and the root.
pub fn chain() -> [Certified; 4] {
    let root = Kind::ca("root").signed();
    let upper = Kind::ca("upper").issued_by(&root);
    let lower = Kind::ca("lower").issued_by(&upper);
    [Kind::server("server").issued_by(&lower), lower, upper, root]
}

pub fn ec_key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

pub fn pem(chain: &[&Certified]) -> String {
    chain.iter().map(|certified| certified.pem()).collect()
}

pub fn stack(chain: &[&Certified]) -> Stack<X509> {
    let mut stack = Stack::new().unwrap();
    for certified in chain {
        stack.push(certified.certificate.clone()).unwrap();
    }
    stack
}

fn serial() -> Asn1Integer {
    let mut serial = BigNum::new().unwrap();
    serial.rand(127, openssl::bn::MsbOption::MAYBE_ZERO, false).unwrap();
    serial.to_asn1_integer().unwrap()
}

fn from_now(seconds: i64) -> Asn1Time {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    Asn1Time::from_unix(i64::try_from(now).unwrap() + seconds).unwrap()
}

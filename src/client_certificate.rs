//! With what a client has shown who it is.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use x509_cert::{
    certificate::{CertificateInner, Raw, TbsCertificateInner},
    der::{
        Decode,
        asn1::{Ia5StringRef, PrintableStringRef, Utf8StringRef},
        oid::ObjectIdentifier,
    },
};

/// The attribute of a subject that is its common name (RFC 4519, section 2.3).
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// The certificate with which a client has shown who it is (mutual TLS): issued by a CA that is trusted for that, and valid when the
/// connection began. Cheap to clone.
///
/// See [`TlsIdentity::with_client_ca`](crate::TlsIdentity::with_client_ca).
#[derive(Clone)]
pub struct ClientCertificate(Arc<Vec<Bytes>>);

impl ClientCertificate {
    /// `chain` is not empty.
    pub(crate) fn new(chain: Vec<Bytes>) -> Self {
        Self(Arc::new(chain))
    }

    /// The client's own certificate, in DER: for a parser of X.509, or to compare it with one that is known.
    pub fn der(&self) -> &[u8] {
        self.0.first().map_or(&[], |der| der)
    }

    /// All certificates that the client has sent, in DER: its own, then those of its issuers, without the CA's own perhaps.
    pub fn chain(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.0.iter().map(|der| &der[..])
    }

    /// The subject, as a text like `CN=sensor-7,O=Example` (RFC 4514); empty if it has none.
    pub fn subject(&self) -> String {
        self.parsed().map_or(String::new(), |certificate| certificate.subject().to_string())
    }

    /// The common name of the subject, such as `sensor-7`.
    pub fn common_name(&self) -> Option<String> {
        let certificate = self.parsed()?;
        let value =
            certificate.subject().iter().find(|attribute| attribute.oid == COMMON_NAME)?.value.clone();
        let text = Utf8StringRef::try_from(&value).map(|text| text.as_str().to_owned());
        let text =
            text.or_else(|_| PrintableStringRef::try_from(&value).map(|text| text.as_str().to_owned()));
        text.or_else(|_| Ia5StringRef::try_from(&value).map(|text| text.as_str().to_owned())).ok()
    }

    fn parsed(&self) -> Option<TbsCertificateInner<Raw>> {
        let certificate = CertificateInner::<Raw>::from_der(self.der()).ok()?;
        Some(certificate.tbs_certificate().clone())
    }
}

impl fmt::Debug for ClientCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientCertificate").field(&self.subject()).finish()
    }
}

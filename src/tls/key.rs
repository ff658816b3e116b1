//! The private key, in any of its three common forms. The TLS library gets it as PKCS#8.

use pkcs8::{
    AlgorithmIdentifierRef, ObjectIdentifier, PrivateKeyInfoRef,
    der::{
        Any, Decode, Encode, Tag, Tagged,
        asn1::{AnyRef, OctetStringRef},
    },
};
use sec1::{EcParameters, EcPrivateKey};

use super::{der::damage, found::instead, pem};

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1"); // RFC 8017, appendix A.1
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1"); // RFC 5480, section 2.1.1

const TO_PKCS8: &str =
    "; a sound one in another form becomes PKCS#8 with: openssl pkcs8 -topk8 -nocrypt -in KEY -out PKCS8_KEY";

pub(super) enum Secret {
    Key(Key),
    /// Secure Transport opens archives itself, and does not show what is in them.
    #[cfg(all(feature = "tls", target_vendor = "apple"))]
    System(native_tls::Identity),
}

pub(super) struct Key {
    pub(super) pkcs8: Vec<u8>,
    /// The bits of the public key, as the certificate has them, where the key tells.
    pub(super) public: Option<Vec<u8>>,
}

impl Key {
    /// The first private key of a PEM file.
    pub(super) fn from_pem(file: &[u8]) -> Result<Self, String> {
        for block in pem::blocks(file) {
            let form = match &*block.label {
                "ENCRYPTED PRIVATE KEY" => return Err(encrypted("pkcs8")),
                "PRIVATE KEY" | "RSA PRIVATE KEY" | "EC PRIVATE KEY" => block.label,
                _ => continue,
            };
            if block.encrypted {
                return Err(encrypted("pkey"));
            }
            let named = |e| format!("the key cannot be read: {e}");
            let content = block.content.map_err(named)?;
            return match &*form {
                "RSA PRIVATE KEY" => Self::from_pkcs1(&content).map_err(|e| named(e) + TO_PKCS8),
                "EC PRIVATE KEY" => Self::from_sec1(&content).map_err(|e| named(e) + TO_PKCS8),
                _ => Self::from_pkcs8(content).map_err(named),
            };
        }
        Err(format!("there is no PEM key (BEGIN PRIVATE KEY) in it, {}", instead(file)))
    }

    /// RFC 5208 and RFC 5958.
    pub(super) fn from_pkcs8(pkcs8: Vec<u8>) -> Result<Self, String> {
        let key = PrivateKeyInfoRef::from_der(&pkcs8).map_err(|e| damage(&pkcs8, e))?;
        let public = match key.algorithm.oid {
            RSA => rsa_public(key.private_key.as_bytes()),
            EC => EcPrivateKey::from_der(key.private_key.as_bytes())
                .ok()
                .and_then(|key| key.public_key)
                .map(<[u8]>::to_vec),
            _ => None,
        };
        Ok(Self { pkcs8, public })
    }

    /// RFC 8017, appendix A.1.2.
    fn from_pkcs1(pkcs1: &[u8]) -> Result<Self, String> {
        if rsa_public(pkcs1).is_none() {
            return Err(damage(pkcs1, "no PKCS#1"));
        }
        Self::wrap(AlgorithmIdentifierRef { oid: RSA, parameters: Some(AnyRef::NULL) }, pkcs1)
    }

    /// RFC 5915.
    fn from_sec1(sec1: &[u8]) -> Result<Self, String> {
        let key = EcPrivateKey::from_der(sec1).map_err(|e| damage(sec1, e))?;
        let Some(EcParameters::NamedCurve(curve)) = key.parameters else {
            return Err("it does not say of which curve it is".to_owned());
        };
        Self::wrap(AlgorithmIdentifierRef { oid: EC, parameters: Some((&curve).into()) }, sec1)
    }

    fn wrap(algorithm: AlgorithmIdentifierRef<'_>, key: &[u8]) -> Result<Self, String> {
        let wrapped = OctetStringRef::new(key)
            .and_then(|key| PrivateKeyInfoRef::new(algorithm, key).to_der())
            .map_err(|e| e.to_string())?;
        Self::from_pkcs8(wrapped)
    }
}

fn encrypted(command: &str) -> String {
    format!("the key is encrypted; decrypt it with: openssl {command} -in KEY -out PLAIN_KEY")
}

/// Modulus and exponent of a PKCS#1 key, as they are in a certificate (RFC 8017, appendix A.1.1).
fn rsa_public(pkcs1: &[u8]) -> Option<Vec<u8>> {
    let numbers = Vec::<Any>::from_der(pkcs1).ok()?;
    let [_, modulus, exponent, ..] = &numbers[..] else { return None };
    let all_numbers = numbers[..3].iter().all(|number| number.tag() == Tag::Integer);
    all_numbers.then(|| vec![modulus.clone(), exponent.clone()].to_der().ok())?
}

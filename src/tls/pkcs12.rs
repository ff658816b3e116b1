//! PKCS#12 (RFC 7292): key and certificates in one archive.

#[cfg(not(target_vendor = "apple"))]
pub(super) use openssl::open;
#[cfg(target_vendor = "apple")]
pub(super) use system::open;

/// With OpenSSL, the archive is taken apart here. `native_tls` sends the chain in reverse with OpenSSL 3 (its issue 281), and
/// does not tell what is missing.
#[cfg(not(target_vendor = "apple"))]
mod openssl {
    use openssl::{pkcs12::Pkcs12, x509::X509};

    use crate::tls::{
        certificate::Certificate,
        chain,
        key::{Key, Secret},
        pem::BEGIN,
    };

    pub(in crate::tls) fn open(archive: &[u8], password: &str) -> Result<(Secret, Vec<Certificate>), String> {
        if password.contains('\0') {
            return Err("the password has a NUL character, which no PKCS#12 archive can have".to_owned());
        }
        let parts = Pkcs12::from_der(archive)
            .map_err(|_| no_archive(archive))?
            .parse2(password)
            .map_err(|e| cannot_open(&e.to_string()))?;
        let others = parts.ca.into_iter().flatten();
        let Some(key) = parts.pkey else {
            return Err("there is no key in the PKCS#12 archive; export it with its key (openssl pkcs12 -export -inkey KEY -in CERTIFICATES)".to_owned());
        };
        // OpenSSL looks for the certificate that belongs to the key.
        let Some(own) = parts.cert else {
            return Err(match others.count() {
                0 => "there is no certificate in the PKCS#12 archive, but only a key".to_owned(),
                _ => "the key in the PKCS#12 archive does not match any certificate in it".to_owned(),
            });
        };
        let der = |certificate: X509| {
            let der = certificate.to_der().map_err(|e| e.to_string())?;
            Certificate::parse(der).map_err(|e| format!("a certificate cannot be read: {e}"))
        };
        let chain = std::iter::once(own).chain(others).map(der).collect::<Result<Vec<_>, _>>()?;
        chain::check_size(&chain)?;
        let key = key.private_key_to_pkcs8().map_err(|e| e.to_string())?;
        Ok((Secret::Key(Key::from_pkcs8(key)?), chain::sort(chain)))
    }

    fn no_archive(archive: &[u8]) -> String {
        let text = archive.windows(BEGIN.len()).any(|bytes| bytes == BEGIN.as_bytes());
        let what = match archive {
            [] => "it is empty",
            _ if text => {
                "it is PEM, which has functions and options of its own (from_pem_files, --cert with --key)"
            }
            _ => "it is something else, or cut off",
        };
        format!("no PKCS#12 archive: {what}")
    }

    fn cannot_open(error: &str) -> String {
        if error.contains("mac verify") {
            "the password of the PKCS#12 archive is wrong".to_owned()
        } else if error.contains("unsupported") {
            "the encryption of the PKCS#12 archive is outdated; make it anew: openssl pkcs12 -legacy -nodes -in ARCHIVE -out PEM, then openssl pkcs12 -export -in PEM -out NEW_ARCHIVE".to_owned()
        } else {
            format!("the PKCS#12 archive cannot be opened: {error}")
        }
    }
}

/// With Secure Transport, only the system can open the archive, and its certificates stay there.
#[cfg(target_vendor = "apple")]
mod system {
    use native_tls::Identity;

    use crate::tls::{certificate::Certificate, key::Secret};

    pub(in crate::tls) fn open(archive: &[u8], password: &str) -> Result<(Secret, Vec<Certificate>), String> {
        let identity = Identity::from_pkcs12(archive, password).map_err(|e| {
            let text = e.to_string();
            if ["passphrase", "password"].iter().any(|word| text.contains(word)) {
                "the password of the PKCS#12 archive is wrong".to_owned()
            } else {
                format!("no PKCS#12 archive, or one with outdated encryption: {text}")
            }
        })?;
        Ok((Secret::System(identity), Vec::new()))
    }
}

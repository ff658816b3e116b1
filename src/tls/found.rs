//! What is in a file in which something else was looked for, and what to do about it.

use super::{certificate::Certificate, der::first_number, pem};

/// Follows "there is no PEM key in it" and the like.
pub(super) fn instead(file: &[u8]) -> String {
    let Some(block) = pem::blocks(file).into_iter().next() else { return without_pem(file).to_owned() };
    let what = match &*block.label {
        "CERTIFICATE" | "X509 CERTIFICATE" => "only certificates",
        "TRUSTED CERTIFICATE" => {
            "but a certificate in a form of OpenSSL's own; convert it with: openssl x509 -in FILE -out PEM_FILE"
        }
        "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => {
            "but a certificate request (CSR): it goes to the CA, whose answer is the certificate"
        }
        "PUBLIC KEY" | "RSA PUBLIC KEY" => "but a public key, which is not enough",
        "PKCS7" | "CMS" => "but PKCS#7; convert it with: openssl pkcs7 -print_certs -in FILE -out PEM_FILE",
        "OPENSSH PRIVATE KEY" => {
            "but a key of OpenSSH; convert a copy of it with: ssh-keygen -p -N '' -m PKCS8 -f COPY"
        }
        label if label.ends_with("PRIVATE KEY") => "only a private key",
        label => return format!("but {label}"),
    };
    what.to_owned()
}

fn without_pem(file: &[u8]) -> &'static str {
    if file.trim_ascii().is_empty() {
        return "since it is empty";
    }
    match first_number(file) {
        // The versions of PKCS#12 (RFC 7292, section 4), and of PKCS#8, PKCS#1 and SEC1.
        Some(3) => {
            "but a PKCS#12 archive, which has a function and an option of its own (from_pkcs12_file, --identity)"
        }
        Some(0 | 1) => {
            "but a key in DER; convert it with: openssl pkcs8 -topk8 -nocrypt -inform DER -in FILE -out PEM_FILE"
        }
        _ if Certificate::parse(file.to_vec()).is_ok() => {
            "but a certificate in DER; convert it with: openssl x509 -inform DER -in FILE -out PEM_FILE"
        }
        _ if file[0] == 0x30 => "but DER, of another kind", // a sequence
        _ => "nor any other PEM",
    }
}

//! The certificate chain: the server's own certificate, then those of its issuers, as TLS sends them (RFC 5246, section
//! 7.4.2). A wrong order is an error, since some clients insist on the right one. The rest are warnings: the clock may not
//! be set yet, and clients may have what the file does not.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_cert::der::DateTime;

use super::{certificate::Certificate, found::instead, pem};

/// What clients take; OpenSSL's no more than 100 KiB.
const MAX_BYTES: usize = 64 * 1024;

/// All certificates of a PEM file, in its order.
pub(super) fn from_pem(file: &[u8]) -> Result<Vec<Certificate>, String> {
    let blocks = pem::blocks(file).into_iter();
    let certificates = blocks.filter(|block| matches!(&*block.label, "CERTIFICATE" | "X509 CERTIFICATE"));
    let chain = certificates.enumerate().map(|(i, block)| {
        let certificate = block.content.and_then(Certificate::parse);
        certificate.map_err(|e| format!("certificate {} cannot be read: {e}", i + 1))
    });
    let chain = chain.collect::<Result<Vec<_>, _>>()?;
    if chain.is_empty() {
        return Err(format!("there is no PEM certificate (BEGIN CERTIFICATE) in it, {}", instead(file)));
    }
    check_size(&chain)?;
    Ok(chain)
}

/// The functions below compare each with all others.
pub(super) fn check_size(chain: &[Certificate]) -> Result<(), String> {
    let bytes: usize = chain.iter().map(|certificate| certificate.der.len()).sum();
    if bytes <= MAX_BYTES {
        return Ok(());
    }
    Err(format!(
        "it has {} certificates of {bytes} bytes, more than clients take: the server's own is to be there, and those of its issuers",
        chain.len()
    ))
}

#[cfg(feature = "tls")]
pub(super) fn to_pem(chain: &[Certificate]) -> String {
    chain.iter().map(|certificate| pem::encode("CERTIFICATE", &certificate.der)).collect()
}

/// Whether one of the certificates belongs to the server's key. `public_key` is known of most kinds of keys.
pub(super) fn check_key(chain: &[Certificate], public_key: Option<&[u8]>) -> Result<(), String> {
    match public_key {
        Some(key) if chain.iter().all(|certificate| certificate.public_key() != key) => Err(format!(
            "the key does not match the certificate {}: take the one that it was requested with",
            chain[0]
        )),
        _ => Ok(()),
    }
}

/// Whether a chain is in the order that it is sent in.
pub(super) fn check_order(chain: &[Certificate], public_key: Option<&[u8]>) -> Result<(), String> {
    // If the key does not tell, the server's own is the first that issued none of the others.
    let is_own = |certificate: &Certificate| match public_key {
        Some(key) => certificate.public_key() == key,
        None => !issued_any(certificate, chain),
    };
    let own = chain.iter().position(is_own).unwrap_or(0);
    let (right, _) = order(chain, own);
    // Each after the first has issued one of those before it. Which one does not matter: there may be two ways to a root.
    if own == 0 && right.iter().all(|&i| i == own || issued_any(&chain[i], &chain[..i])) {
        return Ok(());
    }
    let right: Vec<String> = right.iter().map(|&i| chain[i].to_string()).collect();
    Err(format!(
        "the certificates are in the wrong order; the server's own comes first, then each one's issuer: {}",
        right.join(", ")
    ))
}

fn issued_any(issuer: &Certificate, others: &[Certificate]) -> bool {
    others.iter().any(|other| issued(issuer, other))
}

/// Not itself, and not another copy of it.
fn issued(issuer: &Certificate, other: &Certificate) -> bool {
    issuer.der != other.der && issuer.issued(other)
}

/// The server's own certificate, its issuer, the issuer's issuer, and so on; and what is left over.
fn order(chain: &[Certificate], own: usize) -> (Vec<usize>, Vec<usize>) {
    let mut left: Vec<usize> = (0..chain.len()).filter(|&i| i != own).collect();
    let mut ordered = vec![own];
    loop {
        let last = ordered[ordered.len() - 1];
        let issued_last = |&i: &usize| issued(&chain[i], &chain[last]);
        let issued_one = |&i: &usize| ordered.iter().any(|&j| issued(&chain[i], &chain[j]));
        let Some(at) = left.iter().position(issued_last).or_else(|| left.iter().position(issued_one)) else {
            return (ordered, left);
        };
        ordered.push(left.remove(at));
    }
}

/// Puts a chain into its order; the first one stays.
#[cfg(all(feature = "tls", not(target_vendor = "apple")))]
pub(super) fn sort(chain: Vec<Certificate>) -> Vec<Certificate> {
    let (ordered, left) = order(&chain, 0);
    let mut chain: Vec<Option<Certificate>> = chain.into_iter().map(Some).collect();
    ordered.into_iter().chain(left).filter_map(|i| chain[i].take()).collect()
}

/// What clients may stumble over.
pub(super) fn warnings(chain: &[Certificate]) -> Vec<String> {
    let Some(own) = chain.first() else { return Vec::new() };
    let (path, left) = order(chain, 0);
    let useless = |&i: &usize| match chain[..i].iter().any(|other| other.der == chain[i].der) {
        true => format!("the certificate {} is there twice", chain[i]),
        false => {
            format!("the certificate {} is not among the issuers of {own}, and is sent in vain", chain[i])
        }
    };
    let mut warnings: Vec<String> = left.iter().map(useless).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    warnings.extend(chain.iter().filter_map(|certificate| date(certificate, now)));
    let links = path.windows(2).take_while(|pair| issued(&chain[pair[1]], &chain[pair[0]])).count();
    warnings.extend(missing(&chain[path[links]], &system_roots));
    warnings
}

/// No error, since the clock of a small machine may be set only later.
fn date(certificate: &Certificate, now: Duration) -> Option<String> {
    let [begin, end] = [certificate.not_before(), certificate.not_after()];
    let clock = DateTime::from_unix_duration(now).unwrap_or(DateTime::INFINITY);
    if now > end.unix_duration() {
        Some(format!(
            "the certificate {certificate} has expired: it was valid until {end}, and this machine's clock says {clock}; renew it, since clients refuse it"
        ))
    } else if now < begin.unix_duration() {
        Some(format!(
            "the certificate {certificate} is not yet valid: it is valid from {begin}, and this machine's clock says {clock}; if the clock is right, clients refuse it until then"
        ))
    } else {
        None
    }
}

/// Whether a chain whose last certificate this is ends before a root that clients can be expected to have. They may have it
/// nonetheless, if the CA is one's own: so this is no error.
fn missing(last: &Certificate, roots: &dyn Fn() -> Vec<Certificate>) -> Option<String> {
    if last.issued(last) || roots().iter().any(|root| root.issued(last)) {
        return None;
    }
    let from = last.issuer_url().map_or(String::new(), |url| format!(" (it is to be had, in DER, at {url})"));
    Some(format!(
        "the certificate {last} is issued by {}, which is neither there nor among this system's roots: if it is an intermediate certificate, add it{from}, or clients that do not have it refuse the connection; if it is the root of a CA of your own, which clients have, all is well",
        last.issuer()
    ))
}

/// Those that cannot be read are left out.
fn system_roots() -> Vec<Certificate> {
    let roots = rustls_native_certs::load_native_certs().certs;
    roots.into_iter().filter_map(|root| Certificate::parse(root.to_vec()).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server's certificate, and that of its CA.
    fn bundled() -> [Certificate; 2] {
        from_pem(include_bytes!("../../certs/server.pem")).unwrap().try_into().ok().unwrap()
    }

    #[test]
    fn an_issuer_that_the_system_has_is_not_missing() {
        let [server, ca] = bundled();
        let text = missing(&server, &|| bundled().into_iter().take(1).collect()).unwrap();
        assert!(text.contains("\"CN=localhost\" is issued by \"CN=Switchboard test CA\""), "{text}");
        assert_eq!(missing(&server, &|| bundled().into()), None);
        assert_eq!(missing(&ca, &|| panic!("a root needs no other")), None);
    }

    #[test]
    fn each_end_of_its_time_still_belongs_to_a_certificate() {
        let [server, _] = bundled();
        let second = Duration::from_secs(1);
        let [begin, end] = [server.not_before(), server.not_after()].map(|time| time.unix_duration());
        assert_eq!([begin, end, begin + second].map(|now| date(&server, now)), [None, None, None]);
        assert!(date(&server, end + second).unwrap().contains("has expired"));
        assert!(date(&server, begin - second).unwrap().contains("not yet valid"));
        let unset = date(&server, Duration::ZERO).unwrap();
        assert!(unset.contains("this machine's clock says 1970-01-01T00:00:00Z"), "{unset}");
    }
}

//! Certificates: until when they are valid, and for which names. What clients stumble over is logged by the library when it loads them.

use std::time::{Duration, SystemTime};

use switchboard::{CertificateInfo, TlsIdentity};
use time::OffsetDateTime;

use super::finding::{Finding, Level};
use crate::command::args::Serve;

/// What ends sooner is told by the library.
const NOTICE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

pub(super) fn look(identity: &TlsIdentity, args: &Serve) -> Vec<Finding> {
    let names = identity.names();
    let mut findings: Vec<_> =
        identity.certificates().iter().filter_map(|certificate| lasting(certificate, &names)).collect();
    let mut warn = |text: &str| findings.push(Finding::new(Level::Warning, "tls", text));
    if names.is_empty() {
        warn(
            "there is no name in the certificate (subjectAltName): browsers and most other clients refuse it",
        );
    }
    for host in args.host.iter().filter(|host| *host != "*" && !are_for(&names, host)) {
        warn(&format!(
            "no certificate is for {host}, which --host names: clients that come by it refuse the connection; there are {}",
            names.join(", ")
        ));
    }
    findings
}

/// One that is valid, and for long enough.
fn lasting(certificate: &CertificateInfo, names: &[String]) -> Option<Finding> {
    let now = SystemTime::now();
    let is_valid = certificate.not_before <= now && now + NOTICE < certificate.not_after;
    let until = OffsetDateTime::from(certificate.not_after).date();
    let CertificateInfo { name, subject, .. } = certificate;
    let text = format!(
        "{name}: the certificate {subject:?} is valid until {until}; there are names for {}",
        names.join(", ")
    );
    is_valid.then(|| Finding::new(Level::Ok, "tls", &text))
}

/// `*.` stands for one label; a host of `--host` that begins so, for any.
fn are_for(names: &[String], host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    names.iter().map(|name| name.to_ascii_lowercase()).any(|name| {
        let rest = |name: &str| name.split_once('.').map(|(_, rest)| rest.to_owned());
        name == host || name.starts_with("*.") && rest(&name) == rest(&host)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_one_label() {
        let names = ["Box.example".to_owned(), "*.lan.example".to_owned()];
        for (host, fits) in [
            ("box.example", true),
            ("a.lan.example", true),
            ("*.lan.example", true),
            ("a.b.lan.example", false),
            ("lan.example", false),
            ("example", false),
        ] {
            assert_eq!(are_for(&names, host), fits, "{host}");
        }
    }
}

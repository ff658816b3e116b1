//! What is told of a certificate.

use std::time::{SystemTime, UNIX_EPOCH};

use x509_cert::der::DateTime;

/// A certificate that a server uses, for metrics; see [`Hub::certificates`](crate::Hub::certificates).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CertificateInfo {
    /// The file that it was loaded from, as it was given; `the certificates` or `the archive` if it was none.
    pub name: String,
    /// Its subject, such as `CN=example.com`; if that is empty, the first name that it is for, such as `DNS:example.com`.
    pub subject: String,
    /// The beginning of the time for which it is valid.
    pub not_before: SystemTime,
    /// The end of that time.
    pub not_after: SystemTime,
}

impl CertificateInfo {
    pub(crate) fn is_valid_at(&self, now: SystemTime) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Its beginning, for the log.
    pub(crate) fn since(&self) -> DateTime {
        date(self.not_before)
    }

    /// Its end, for the log.
    pub(crate) fn until(&self) -> DateTime {
        date(self.not_after)
    }
}

fn date(time: SystemTime) -> DateTime {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    DateTime::from_unix_duration(since).unwrap_or(DateTime::INFINITY)
}

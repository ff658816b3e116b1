//! What the log says of a server's certificates: that one ends soon, and that one is no secret. The thread that called `run` asks
//! from time to time.

use std::time::{Duration, Instant, SystemTime};

use super::listener::{ListenAddr, Listener, Security};
use crate::{
    shown::Quoted,
    tls::{CertificateInfo, TlsIdentity},
};

/// How often they are looked at: the clock of a small machine may be set only later, and certificates are renewed.
const INTERVAL: Duration = Duration::from_secs(60 * 60);

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long before its end it is told.
const NOTICE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

#[derive(Debug, Default)]
pub(super) struct Certificates {
    entries: Vec<Entry>,
    due: Option<Instant>,
}

/// One identity, however many listeners have it.
#[derive(Debug)]
struct Entry {
    identity: TlsIdentity,
    /// Where others than this machine may reach it.
    public: Option<ListenAddr>,
    /// Which one's end was told, and when.
    told: Option<(CertificateInfo, Instant)>,
    told_bundled: bool,
}

impl Certificates {
    pub(super) fn of(listeners: &[Listener]) -> Self {
        Self::at(listeners.iter().map(|listener| (&listener.security, listener.local_addr().ok())))
    }

    /// Those that are used at these addresses.
    pub(super) fn at<'a>(places: impl Iterator<Item = (&'a Security, Option<ListenAddr>)>) -> Self {
        let mut entries: Vec<Entry> = Vec::new();
        for (security, address) in places {
            let Security::Tls(identity) = security else { continue };
            let public = address.filter(is_public);
            for identity in identity.with_all_others() {
                match entries.iter_mut().find(|entry| entry.identity.is_same(&identity)) {
                    Some(entry) => entry.public = entry.public.take().or(public.clone()),
                    None => entries.push(Entry::new(identity, public.clone())),
                }
            }
        }
        Self { entries, due: None }
    }

    /// No listener speaks TLS.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Each once, in the order of their first listener.
    pub(super) fn identities(&self) -> Vec<TlsIdentity> {
        self.entries.iter().map(|entry| entry.identity.clone()).collect()
    }

    /// Tells what there is to tell. Returns when to ask again; `None`: never.
    pub(super) fn tell_if_due(&mut self) -> Option<Duration> {
        let now = Instant::now();
        if self.due.is_none_or(|due| due <= now) {
            self.due = Some(now + INTERVAL);
            self.lines(now, SystemTime::now()).iter().for_each(|line| log::warn!("{line}"));
        }
        let left = self.due.map(|due| due.saturating_duration_since(now));
        left.filter(|_| !self.entries.is_empty())
    }

    fn lines(&mut self, now: Instant, date: SystemTime) -> Vec<String> {
        self.entries.iter_mut().flat_map(|entry| entry.lines(now, date)).collect()
    }
}

impl Entry {
    fn new(identity: TlsIdentity, public: Option<ListenAddr>) -> Self {
        let first = identity.current().first_to_end();
        // It was told when it was loaded.
        let has_ended = first.not_after < SystemTime::now();
        Self { identity, public, told: has_ended.then(|| (first, Instant::now())), told_bundled: false }
    }

    fn lines(&mut self, now: Instant, date: SystemTime) -> Vec<String> {
        let current = self.identity.current();
        let (is_bundled, first) = (current.is_bundled(), current.first_to_end());
        let mut lines = Vec::new();
        if let (true, Some(address)) = (is_bundled && !self.told_bundled, &self.public) {
            lines.push(format!(
                "{}: this is the test certificate that comes with the source code, on {address}: its key is public, so that anybody \
                 can read and change what is sent, and be this server; make a certificate of your own",
                first.name
            ));
        }
        self.told_bundled = is_bundled;
        let was_told = |(told, at): &(CertificateInfo, Instant)| {
            *told == first && now.saturating_duration_since(*at) < DAY
        };
        if !self.told.as_ref().is_some_and(was_told)
            && let Some(line) = end(&first, date)
        {
            self.told = Some((first, now));
            lines.push(line);
        }
        lines
    }
}

/// Whether others than this machine may reach an address.
fn is_public(address: &ListenAddr) -> bool {
    address.tcp().is_some_and(|address| !address.ip().to_canonical().is_loopback())
}

/// That a certificate ends soon, or has ended.
fn end(certificate: &CertificateInfo, now: SystemTime) -> Option<String> {
    let (name, subject) = (&certificate.name, Quoted(&certificate.subject));
    let until = certificate.until();
    let Ok(left) = certificate.not_after.duration_since(now) else {
        return Some(format!(
            "{name}: the certificate {subject} has expired: it was valid until {until}; renew it, since clients refuse it"
        ));
    };
    (left <= NOTICE).then(|| {
        let hours = left.as_secs() / 3600;
        let left = if hours < 48 { format!("{hours} hours") } else { format!("{} days", hours / 24) };
        format!("{name}: the certificate {subject} expires in {left}: it is valid until {until}; renew it")
    })
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    /// The bundled one, where others may come or not.
    fn certificates(public: Option<&str>) -> (Certificates, SystemTime) {
        let identity = TlsIdentity::from_pem_files("certs/server.pem", "certs/server.key").unwrap();
        let end = identity.current().first_to_end().not_after;
        let public = public.map(|address| ListenAddr::Tcp(address.parse().unwrap()));
        (Certificates { entries: vec![Entry::new(identity, public)], due: None }, end)
    }

    #[test]
    fn the_end_is_told_once_a_day_from_thirty_days_before() {
        let (mut certificates, end) = certificates(None);
        let (start, hour) = (Instant::now(), INTERVAL);
        let first = end - NOTICE - 3 * hour;
        // Looked at every hour until two days after the end.
        let told: Vec<(u32, String)> = (0..32 * 24 + 3)
            .flat_map(|n| {
                let lines = certificates.lines(start + n * hour, first + n * hour);
                lines.into_iter().map(move |line| (n, line))
            })
            .collect();
        assert_eq!(
            told.iter().map(|(n, _)| *n).collect::<Vec<_>>(),
            (0..32).map(|day| 3 + day * 24).collect::<Vec<_>>()
        );
        for (n, words) in [
            (0, "\"CN=localhost\" expires in 30 days: it is valid until 20"),
            (27, "expires in 3 days"),
            (29, "expires in 24 hours"),
            (30, "expires in 0 hours"),
            (31, "has expired: it was valid until 20"),
        ] {
            assert!(told[n].1.contains(words), "{:?}", told[n]);
        }
    }

    #[test]
    fn a_clock_that_is_set_later_does_no_harm() {
        let (mut certificates, end) = certificates(None);
        let now = Instant::now();
        assert_eq!(certificates.lines(now, UNIX_EPOCH), [""; 0]);
        assert_eq!(certificates.lines(now, end - DAY).len(), 1);
        // Another certificate is another matter.
        let other =
            CertificateInfo { not_after: end - DAY, ..certificates.entries[0].identity.current().info() };
        certificates.entries[0].told = Some((other, now));
        assert_eq!(certificates.lines(now, end - DAY).len(), 1);
    }

    #[test]
    fn the_bundled_one_is_told_once_where_others_may_come() {
        let (mut local, end) = certificates(None);
        let (mut public, _) = certificates(Some("192.0.2.1:443"));
        let (now, date) = (Instant::now(), end - 2 * NOTICE);
        assert_eq!(local.lines(now, date), [""; 0]);
        let lines = public.lines(now, date);
        assert!(lines.len() == 1 && lines[0].contains("on 192.0.2.1:443: its key is public"), "{lines:?}");
        assert_eq!(public.lines(now + DAY, date), [""; 0]);
    }

    #[test]
    fn only_loopback_and_unix_sockets_are_this_machine_s_own() {
        let of = |address: &str| is_public(&ListenAddr::Tcp(address.parse().unwrap()));
        for local in ["127.0.0.1:1", "127.1.2.3:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            assert!(!of(local), "{local}");
        }
        for public in [
            "0.0.0.0:1",
            "[::]:1",
            "192.168.1.2:1",
            "10.0.0.1:1",
            "169.254.1.1:1",
            "[fe80::1]:1",
            "[::ffff:0.0.0.0]:1",
        ] {
            assert!(of(public), "{public}");
        }
        assert!(!is_public(&ListenAddr::Unix("/run/socket".into())));
    }
}

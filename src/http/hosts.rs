//! By which names a server may be reached that is not on the Internet: the protection against DNS rebinding. No I/O.

use std::net::IpAddr;

use http::{StatusCode, header};

use super::{
    handshake::is_upgrade,
    host::{Host, Name, is_private},
    request::Request,
    response::Refusal,
};
use crate::{error::ServerError, shown::Quoted};

/// Names by which the server may be reached, beside those that no stranger can own. Also `*.NAME` for all below a name, and
/// `*` for any.
///
/// A stranger's page can make the browser of somebody in a private network take the stranger's own name for an address there
/// (DNS rebinding). To the browser that server is then the page's own: `Origin` and `Host` agree. Only the name gives it away.
#[derive(Debug, Default)]
pub(crate) struct Hosts(Vec<Box<str>>);

impl Hosts {
    /// # Errors
    /// [`ServerError::Config`] if it is no name.
    pub(crate) fn add(&mut self, name: &str) -> Result<(), ServerError> {
        let bare = name.strip_prefix("*.").unwrap_or(name);
        let is_good = name == "*" || Host::parse(bare.as_bytes()).is_some_and(|host| host.port.is_none());
        if !is_good || bare.contains('*') && name != "*" || bare.ends_with(':') {
            return Err(ServerError::config(format!(
                "{name:?} is no host: write a name such as box.example.com, without a scheme or a port, *.example.com for all \
                 names below it, or * for any"
            )));
        }
        self.0.push(name.into());
        Ok(())
    }

    /// Checks a request that may come from a web page: one with an `Origin`, or for a page. `local` is asked only if need be:
    /// this machine's own address on the connection; a Unix socket has none, and no browser reaches it.
    ///
    /// # Errors
    /// Status 421, if the connection does not come from the Internet, and its `Host` could be any stranger's.
    pub(crate) fn check(
        &self,
        request: &Request,
        local: impl FnOnce() -> Option<IpAddr>,
    ) -> Result<(), Refusal> {
        if !request.headers().contains_key(header::ORIGIN) && is_upgrade(request) {
            return Ok(());
        }
        let Some(host) = request.host() else { return Ok(()) }; // no browser's
        if host.name.is_local()
            || self.lists(host.name)
            || request.is_proxied()
            || !local().is_some_and(is_private)
        {
            return Ok(());
        }
        Err(refuse(request))
    }

    fn lists(&self, name: Name<'_>) -> bool {
        self.0.iter().any(|listed| match listed.strip_prefix('*') {
            Some("") => true,
            Some(suffix) => name.is_below(suffix.trim_end_matches('.')),
            None => Host::parse(listed.as_bytes()).is_some_and(|listed| listed.name == name),
        })
    }
}

#[cold]
#[inline(never)]
fn refuse(request: &Request) -> Refusal {
    Refusal::new(
        StatusCode::MISDIRECTED_REQUEST,
        // What to do comes first: the log cuts what is long.
        format!(
            "add the server's name with hosts (--host), or its proxy with trusted_proxies (--trusted-proxy): any stranger could \
             own the Host {} (DNS rebinding)",
            Quoted(String::from_utf8_lossy(request.raw_host()))
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{proxies::Proxies, request::parse_head};

    const UPGRADE: &str = "Upgrade: websocket\r\n";
    const ORIGIN: &str = "Origin: http://evil.example\r\n";

    fn request(target: &str, host: &str, more: &str) -> Box<Request> {
        let head = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n");
        parse_head(head.as_bytes(), 1000).unwrap().unwrap().0
    }

    fn hosts(names: &[&str]) -> Hosts {
        let mut hosts = Hosts::default();
        names.iter().for_each(|name| hosts.add(name).unwrap());
        hosts
    }

    #[test]
    fn a_strangers_name_is_421_where_the_connection_is_private() {
        let local = |address: &str| Some(address.parse().unwrap());
        let none = Hosts::default();
        for address in ["127.0.0.1", "::1", "192.168.1.2", "::ffff:10.0.0.1", "fd00::1", "fe80::1"] {
            for (more, is_refused) in [
                (String::new(), true),
                (format!("{UPGRADE}{ORIGIN}"), true),
                (UPGRADE.to_owned(), false), // no page's
            ] {
                let result = none.check(&request("/", "evil.example:80", &more), || local(address));
                assert_eq!(result.is_err(), is_refused, "{address} {more}");
                let Err(refusal) = result else { continue };
                assert_eq!(refusal.status(), 421);
                let text = refusal.to_string();
                assert!(
                    ["\"evil.example:80\"", "--host", "trusted_proxies"].iter().all(|s| text.contains(s)),
                    "{text}"
                );
                assert!(none.check(&request("/", "box.local:80", &more), || local(address)).is_ok());
            }
            let absolute = |url, host| none.check(&request(url, host, ""), || local(address)).is_err();
            assert!(
                absolute("http://evil.example/", "localhost"),
                "RFC 9112, section 3.2.2: Host is ignored"
            );
            assert!(!absolute("http://localhost/", "evil.example"));
        }
        assert!(none.check(&request("/", "evil.example", ORIGIN), || local("192.0.2.1")).is_ok());
        assert!(none.check(&request("/", "evil.example", ORIGIN), || None).is_ok(), "a Unix socket");
        assert!(none.check(&request("/", "localhost", ORIGIN), || panic!("asked in vain")).is_ok());
    }

    #[test]
    fn what_a_trusted_proxy_passes_on_is_its_to_judge() {
        let mut request = request("/", "www.example", "");
        let check = |request: &Request| Hosts::default().check(request, || Some([127, 0, 0, 1].into()));
        let peer = Some("127.0.0.1:5".parse().unwrap());
        let mut proxies = Proxies::default();
        proxies.add("127.0.0.2").unwrap();
        request.set_peer(peer, false, &proxies, || false);
        assert!(check(&request).is_err());
        proxies.add("127.0.0.1").unwrap();
        request.set_peer(peer, false, &proxies, || false);
        assert!(check(&request).is_ok());
    }

    #[test]
    fn names_are_added() {
        let allow = |names: &[&str], host: &str| {
            hosts(names).check(&request("/", host, ""), || Some([10, 0, 0, 1].into())).is_ok()
        };
        assert!(allow(&["a.example", "Box.Example."], "box.example:8080"));
        assert!(!allow(&["box.example"], "a.box.example"));
        assert!(allow(&["*.box.example"], "a.b.BOX.example."));
        assert!(!allow(&["*.box.example"], "box.example") && !allow(&["*.box.example"], "xbox.example"));
        assert!(allow(&["*"], "evil.example"));
        for bad in [
            "",
            "box.example:80",
            "box:",
            "http://box.example",
            "a b",
            "*box.example",
            "*.*",
            "**",
            "*.",
            "a.*",
        ] {
            assert!(
                Hosts::default().add(bad).unwrap_err().to_string().contains(&format!("{bad:?}")),
                "{bad}"
            );
        }
    }
}

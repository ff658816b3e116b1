//! Which web pages may connect, by the `Origin` that a browser sends with its handshake (RFC 6455, section 10.2). No I/O.

use super::host::{Host, Name};
use crate::error::ServerError;

/// Which web pages may connect, by the `Origin` that a browser sends with its handshake. The same holds for plain HTTP requests
/// that may change something (other methods than GET, HEAD, OPTIONS and TRACE): a page of another port has the cookies, too.
///
/// Requests without `Origin` are always allowed: they do not come from a web page. All ways to write an origin are the same:
/// its case, the default port, `ws` for `http` and `wss` for `https`.
///
/// ```
/// use switchboard::{Origins, Server};
/// // The server's own pages, and those of an application that shows files in a browser of its own.
/// let origins = Origins::SameHostAnd(vec!["file://".to_owned()]);
/// let builder = Server::builder().origins(origins);
/// ```
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Origins {
    /// Pages of the same host and port as in the `Host` header. The default.
    ///
    /// A page of `http` is not of the same host if the client's connection is [secure](crate::Request::is_secure): whoever is
    /// between it and its server could have changed it. A page of `https` is, also where the connection is not, for there is a
    /// proxy that speaks TLS for this server.
    #[default]
    SameHost,
    /// Pages of the same host, and these, each as in [`List`](Self::List).
    ///
    /// For a page from a file, applications with a browser inside send `file://`, and browsers `null`. But any web page can give
    /// itself the origin `null`, in a sandbox: who allows that allows [`Any`](Self::Any).
    SameHostAnd(Vec<String>),
    /// Only these, each written as the browser sends it: `https://example.com`, `http://localhost:3000`. Pages of the
    /// same host are allowed only if they are in the list, too. For an origin that no browser sends, such as
    /// `example.com` or `https://example.com/`, `bind` returns an error.
    List(Vec<String>),
    /// Any page. Only for services that do not identify their users by cookies.
    Any,
}

impl Origins {
    /// Checks that browsers can send each origin of a list: any other would never match.
    ///
    /// # Errors
    /// [`ServerError::Config`] for the first that no browser sends.
    pub(crate) fn check(&self) -> Result<(), ServerError> {
        self.list().iter().find(|origin| !is_origin(origin)).map_or(Ok(()), |origin| {
            Err(ServerError::config(format!(
                "no browser sends the origin {origin:?}: write SCHEME://HOST, or SCHEME://HOST:PORT if the port is not \
                 the default one"
            )))
        })
    }

    /// Whether a page of this origin may connect to this host. `is_secure`: by TLS.
    pub(super) fn allow(&self, origin: &[u8], host: Host<'_>, is_secure: bool) -> bool {
        let Ok(origin) = std::str::from_utf8(origin) else { return matches!(self, Self::Any) };
        let is_same_host = match self {
            Self::Any => true,
            Self::List(_) => false,
            Self::SameHost | Self::SameHostAnd(_) => is_same_host(origin, host, is_secure),
        };
        is_same_host || self.list().iter().any(|allowed| is_same_origin(allowed, origin))
    }

    fn list(&self) -> &[String] {
        match self {
            Self::List(list) | Self::SameHostAnd(list) => list,
            Self::SameHost | Self::Any => &[],
        }
    }
}

fn is_same_host(origin: &str, host: Host<'_>, is_secure: bool) -> bool {
    let Some(page) = WebOrigin::parse(origin) else { return false };
    let port = host.port.unwrap_or(page.scheme.port());
    page.name == host.name && page.port == port && (page.scheme == Scheme::Tls || !is_secure)
}

fn is_same_origin(a: &str, b: &str) -> bool {
    let parsed = |origin| WebOrigin::parse(origin);
    a.eq_ignore_ascii_case(b) || parsed(a).is_some_and(|a| parsed(b).is_some_and(|b| a == b))
}

/// The origin of a page that came from a web server (RFC 6454, section 4).
#[derive(Debug, PartialEq)]
struct WebOrigin<'a> {
    scheme: Scheme,
    name: Name<'a>,
    port: u16,
}

/// What a browser speaks with the web server.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Scheme {
    Plain,
    Tls,
}

impl Scheme {
    fn parse(name: &str) -> Option<Self> {
        let is = |other| name.eq_ignore_ascii_case(other);
        match () {
            () if is("http") || is("ws") => Some(Self::Plain),
            () if is("https") || is("wss") => Some(Self::Tls),
            () => None,
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Plain => 80,
            Self::Tls => 443,
        }
    }
}

impl<'a> WebOrigin<'a> {
    fn parse(origin: &'a str) -> Option<Self> {
        let (scheme, host) = origin.split_once("://")?;
        let (scheme, host) = (Scheme::parse(scheme)?, Host::parse(host.as_bytes())?);
        Some(Self { scheme, name: host.name, port: host.port.unwrap_or(scheme.port()) })
    }
}

/// Whether it is an origin as browsers write it (RFC 6454, section 6.2): without a path, and without the default port.
fn is_origin(origin: &str) -> bool {
    let is_tuple = |(scheme, host): (&str, &str)| {
        let default = Scheme::parse(scheme).map(Scheme::port);
        let is_host = |host: Host<'_>| host.port.is_none() || host.port != default;
        !scheme.is_empty()
            && (host.is_empty() || !host.ends_with(':') && Host::parse(host.as_bytes()).is_some_and(is_host))
    };
    origin == "null" || origin.split_once("://").is_some_and(is_tuple)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(origins: &Origins, origin: &str, host: &str, is_secure: bool) -> bool {
        origins.allow(origin.as_bytes(), Host::parse(host.as_bytes()).unwrap(), is_secure)
    }

    #[test]
    fn the_same_host_however_it_is_written() {
        for (origin, host, is_secure) in [
            ("http://box", "box", false),
            ("http://box:80", "box", false),
            ("http://box", "box:80", false),
            ("ws://box", "box:80", false),
            ("WS://BOX.", "box", false),
            ("http://box:8080", "Box.:8080", false),
            ("https://box", "box", true),
            ("https://box", "box:443", true),
            ("wss://box", "box:443", true),
            ("wss://box:443", "box", true),
            ("wss://box:8443", "box:8443", true),
            ("http://[::1]:8080", "[0:0::1]:8080", false),
            ("http://127.0.0.1", "127.1:80", false),
            // A proxy speaks TLS, and has not said so.
            ("https://box", "box", false),
            ("https://box", "box:443", false),
        ] {
            assert!(allow(&Origins::SameHost, origin, host, is_secure), "{origin} at {host}");
        }
    }

    #[test]
    fn what_is_not_the_same_host() {
        for (origin, host, is_secure) in [
            ("http://box", "box:443", false),
            ("https://box", "box:80", false),
            ("http://box:8080", "box", false),
            ("http://box", "box:8080", false),
            ("http://box", "box", true),
            ("http://box:443", "box:443", true),
            ("ws://box", "box", true),
            ("javascript://box", "box", false),
            ("ftp://box", "box", false),
            ("app://box", "box", true),
            ("file://", "box", false),
            ("file://box", "box", false),
            ("null", "null", false),
            ("box", "box", false),
            ("http://box/", "box", false),
            ("http://user@box", "box", false),
            ("http://box http://evil.example", "box", false),
            ("http://box.evil.example", "box", false),
            ("http://", "box", false),
            ("", "box", false),
        ] {
            assert!(!allow(&Origins::SameHost, origin, host, is_secure), "{origin} at {host}");
        }
        assert!(!Origins::SameHost.allow(b"http://box\xff", Host::parse(b"box").unwrap(), false));
    }

    #[test]
    fn a_list_beside_the_same_host_or_instead_of_it() {
        let list = || vec!["https://a.example".to_owned(), "file://".to_owned(), "app://x:80".to_owned()];
        for origin in
            ["https://A.example", "https://a.example.:443", "wss://a.example", "file://", "APP://x:80"]
        {
            assert!(allow(&Origins::List(list()), origin, "b", false), "{origin}");
            assert!(allow(&Origins::SameHostAnd(list()), origin, "b", true), "{origin}");
        }
        for origin in ["http://a.example", "https://a.example:80", "app://x", "file://x", "null"] {
            assert!(!allow(&Origins::List(list()), origin, "b", false), "{origin}");
            assert!(!allow(&Origins::SameHostAnd(list()), origin, "b", false), "{origin}");
        }
        assert!(allow(&Origins::SameHostAnd(list()), "http://b", "b", false));
        assert!(!allow(&Origins::List(list()), "http://b", "b", false));
        assert!(
            allow(&Origins::Any, "null", "b", false)
                && Origins::Any.allow(b"\xff", Host::parse(b"b").unwrap(), true)
        );
    }

    #[test]
    fn an_origin_that_no_browser_sends_is_named() {
        let listed = |origin: &str| Origins::SameHostAnd(vec!["null".into(), origin.into()]).check();
        for good in [
            "https://a.example",
            "http://[::1]:8080",
            "http://localhost:443",
            "ws://localhost:443",
            "wss://localhost:80",
            "file://",
            "app://x",
            "app://x:80",
            "app://x:443",
            "chrome-extension://abc",
        ] {
            assert!(listed(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "*",
            "a.example",
            "a.example:80",
            "https://a.example/",
            "https://a.example:443",
            "wss://a.example:443",
            "ws://a.example:80",
            "http://a.example:80",
            "http://a.example:",
            "://a",
            "http://a b",
            "http://u@a",
        ] {
            assert!(listed(bad).unwrap_err().to_string().contains(&format!("{bad:?}")), "{bad}");
        }
    }
}

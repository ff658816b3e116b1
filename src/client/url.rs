//! Where a client connects to, out of its URL.

use std::{fmt, net::IpAddr, path::PathBuf};

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// What a browser would encode in a path or a query, too.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'<').add(b'>').add(b'`').add(b'{').add(b'}');

/// A URL that can be connected to.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) place: Place,
    pub(super) is_secure: bool,
    /// For the header.
    pub(super) host: String,
    /// With the query.
    pub(super) path: String,
    /// The user and the password that were in the URL.
    pub(super) credentials: Option<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A name or an address, and a port.
    Tcp(String, u16),
    Unix(PathBuf),
}

/// Does not show the password.
impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, is_secure, path, .. } = self;
        f.debug_struct("Target").field("place", place).field("tls", is_secure).field("path", path).finish()
    }
}

impl Target {
    /// `ws://`, `wss://`, `unix:/path/to/socket:/path`, and the same as `ws+unix:`.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        if url.chars().any(char::is_control) {
            return Err("the URL has a control character or a line break in it".into());
        }
        if url.contains('#') {
            return Err("a WebSocket's URL has no fragment: write # as %23".into()); // RFC 6455, section 3
        }
        let (scheme, rest) = url.split_once(':').ok_or("the URL begins with no scheme, such as ws://")?;
        match scheme.to_ascii_lowercase().as_str() {
            "ws" => Self::tcp(rest, false),
            "wss" => Self::tcp(rest, true),
            "unix" | "ws+unix" => Self::unix(rest),
            "http" => Err("the URL of a WebSocket begins with ws://, not with http://".into()),
            "https" => Err("the URL of a WebSocket begins with wss://, not with https://".into()),
            _ => Err("the URL begins with none of ws://, wss://, unix: and ws+unix:".into()),
        }
    }

    fn tcp(rest: &str, is_secure: bool) -> Result<Self, String> {
        let authority_of = |text: &str| Authority::parse(text, if is_secure { 443 } else { 80 });
        let rest = rest.strip_prefix("//").ok_or("the scheme is followed by //")?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let Authority { host, port, credentials, is_usual } = authority_of(&rest[..end])?;
        let shown = bracketed(&host);
        Ok(Self {
            host: if is_usual { shown } else { format!("{shown}:{port}") },
            place: Place::Tcp(host, port),
            is_secure,
            path: path(&rest[end..]),
            credentials,
        })
    }

    /// The socket's path ends where `:/` begins that of the request.
    fn unix(rest: &str) -> Result<Self, String> {
        let (socket, uri) = match rest.find(":/") {
            Some(at) => (&rest[..at], &rest[at + 1..]),
            None => (rest.strip_suffix(':').unwrap_or(rest), ""),
        };
        if socket.is_empty() {
            return Err("unix: is followed by the path of a socket, as in unix:/run/app.sock:/chat".into());
        }
        Ok(Self {
            place: Place::Unix(socket.into()),
            is_secure: false,
            host: "localhost".into(),
            path: path(uri),
            credentials: None,
        })
    }
}

/// What stands between `//` and the path.
pub(super) struct Authority {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) credentials: Option<(String, String)>,
    /// The port is that of the scheme.
    is_usual: bool,
}

impl Authority {
    pub(super) fn parse(text: &str, usual_port: u16) -> Result<Self, String> {
        let (credentials, place) = match text.rsplit_once('@') {
            Some((credentials, place)) => (Some(parse_credentials(credentials)?), place),
            None => (None, text),
        };
        let (host, port) = match place.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or("a [ without a ] in the URL's host")?;
                if !host.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6()) {
                    return Err("what is in [ ] is no IPv6 address".into());
                }
                (
                    host,
                    if port.is_empty() {
                        None
                    } else {
                        Some(port.strip_prefix(':').ok_or("what follows ] is no port")?)
                    },
                )
            }
            None => match place.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (place, None),
            },
        };
        let port = match port {
            None | Some("") => usual_port,
            Some(port) if port.bytes().all(|b| b.is_ascii_digit()) => {
                port.parse().ok().filter(|port| *port > 0).ok_or("the URL's port is not from 1 to 65535")?
            }
            Some(_) => return Err("the URL's port is not a number (an IPv6 address stands in [ ])".into()),
        };
        check_host(host)?;
        // There are parsers of URLs for which a path begins here, and the host is another one.
        if text.contains('\\') {
            return Err("the URL has a \\ before its path: write %5C".into());
        }
        Ok(Self { host: host.to_ascii_lowercase(), port, credentials, is_usual: port == usual_port })
    }
}

/// As it is written where a port may follow: an IPv6 address stands in brackets.
pub(super) fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.into() }
}

fn check_host(host: &str) -> Result<(), String> {
    if host.is_empty() {
        return Err("the URL has no host".into());
    }
    if !host.is_ascii() {
        return Err("the URL's host is not ASCII: write a name in another script as xn--…".into());
    }
    let is_good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':');
    if host.bytes().all(is_good) {
        Ok(())
    } else {
        Err("the URL's host has characters that no name has".into())
    }
}

fn parse_credentials(text: &str) -> Result<(String, String), String> {
    let (user, password) = text.split_once(':').unwrap_or((text, ""));
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().map(Into::into);
    let both = decoded(user).and_then(|user: String| Ok((user, decoded(password)?)));
    both.map_err(|_| "the user or the password in the URL is not UTF-8".into())
}

/// As it is sent: it begins with a slash, and has no characters that a request line cannot have.
fn path(text: &str) -> String {
    let slash = if text.starts_with('/') { "" } else { "/" };
    format!("{slash}{}", utf8_percent_encode(text, ENCODED))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(url: &str) -> (String, u16, String, String) {
        let target = Target::parse(url).unwrap();
        let Place::Tcp(name, port) = target.place else { panic!("{url}") };
        (name, port, target.host, target.path)
    }

    fn expected(name: &str, port: u16, host: &str, path: &str) -> (String, u16, String, String) {
        (name.into(), port, host.into(), path.into())
    }

    #[test]
    fn what_is_connected_to_and_what_is_said_there() {
        assert_eq!(tcp("ws://Box"), expected("box", 80, "box", "/"));
        assert_eq!(tcp("WS://box:8080/a?b"), expected("box", 8080, "box:8080", "/a?b"));
        assert_eq!(tcp("wss://box:443?x=1"), expected("box", 443, "box", "/?x=1"));
        assert_eq!(tcp("ws://box:443/"), expected("box", 443, "box:443", "/"));
        assert_eq!(tcp("ws://[::1]:9/"), expected("::1", 9, "[::1]:9", "/"));
        assert_eq!(tcp("wss://[2001:DB8::1]"), expected("2001:db8::1", 443, "[2001:db8::1]", "/"));
        assert_eq!(
            tcp("ws://h:/ä b\"%20?q=ö&<>"),
            expected("h", 80, "h", "/%C3%A4%20b%22%20?q=%C3%B6&%3C%3E").clone()
        );
        assert_eq!(tcp("ws://h/?u=http://x/@y"), expected("h", 80, "h", "/?u=http://x/@y"));
    }

    #[test]
    fn a_user_may_be_in_it_and_is_not_shown() {
        let target = Target::parse("ws://us%40er:p:a%2Fss@h:1/").unwrap();
        assert_eq!(target.credentials, Some(("us@er".into(), "p:a/ss".into())));
        assert!(!format!("{target:?}").contains("ss\""), "{target:?}");
        assert_eq!(Target::parse("ws://user@h/").unwrap().credentials, Some(("user".into(), String::new())));
    }

    #[test]
    fn unix_sockets() {
        let unix = |url: &str| {
            let target = Target::parse(url).unwrap();
            let Place::Unix(path) = target.place else { panic!("{url}") };
            (path.to_str().unwrap().to_owned(), target.path)
        };
        let expected = |socket: &str, path: &str| (socket.to_owned(), path.to_owned());
        assert_eq!(unix("unix:/run/a.sock:/chat?x=1"), expected("/run/a.sock", "/chat?x=1"));
        assert_eq!(unix("ws+unix:/run/a.sock:/u?v=http://w"), expected("/run/a.sock", "/u?v=http://w"));
        assert_eq!(unix("unix:./a.sock"), expected("./a.sock", "/"));
        assert_eq!(unix("unix:a.sock:"), expected("a.sock", "/"));
        assert_eq!(unix("ws+unix:///run/a.sock:/x"), expected("///run/a.sock", "/x"));
        assert!(Target::parse("unix:").is_err() && Target::parse("unix::/x").is_err());
    }

    #[test]
    fn mistakes_are_named() {
        for (url, part) in [
            ("", "no scheme"),
            ("localhost:80", "none of"),
            ("http://h", "ws://"),
            ("https://h", "wss://"),
            ("ws:h", "//"),
            ("ws://", "no host"),
            ("ws:///x", "no host"),
            ("ws://:80", "no host"),
            ("ws://h:0", "65535"),
            ("ws://h:65536", "65535"),
            ("ws://h:x", "not a number"),
            ("ws://::1", "not a number"),
            ("ws://[::1", "without a ]"),
            ("ws://[1.2.3.4]", "IPv6"),
            ("ws://[::1]x", "no port"),
            ("ws://hö", "xn--"),
            ("ws://a b/", "no name"),
            ("ws://h/\r\nX: y", "line break"),
            ("ws://h/#x", "fragment"),
            ("ws://%ff@h/", "UTF-8"),
            ("ws://good.example\\@h/", "%5C"),
        ] {
            let error = Target::parse(url).unwrap_err();
            assert!(error.contains(part), "{url}: {error}");
        }
    }
}

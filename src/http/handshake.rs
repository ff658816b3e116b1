//! The opening handshake (RFC 6455, section 4.2): the checks, and the 101 response. No I/O.

use http::{HeaderName, HeaderValue, Method, StatusCode, header, uri::Authority};

use super::{
    head::{CommonHeaders, begin_head, push_line},
    request::Request,
    response::Refusal,
};
use crate::error::ServerError;

/// The only version of the protocol (RFC 6455, section 4.1).
const VERSION: &str = "13";

/// Which web pages may connect, by the `Origin` that a browser sends with its handshake.
///
/// Requests without `Origin` are always allowed: they do not come from a web page.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Origins {
    /// Pages of the same host and port as in the `Host` header, whatever the scheme. The default.
    #[default]
    SameHost,
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
        let Self::List(list) = self else { return Ok(()) };
        list.iter().find(|origin| !is_origin(origin)).map_or(Ok(()), |origin| {
            Err(ServerError::config(format!(
                "no browser sends the origin {origin:?}: write SCHEME://HOST, or SCHEME://HOST:PORT if the port is not \
                 the default one"
            )))
        })
    }

    fn allow(&self, origin: &str, host: &str) -> bool {
        match self {
            Self::Any => true,
            Self::List(list) => list.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)),
            Self::SameHost => {
                let Some((scheme, authority)) = origin.split_once("://") else { return false };
                let port = default_port(scheme);
                let bare = |name: &str| name.strip_suffix(port).unwrap_or(name).to_ascii_lowercase();
                bare(authority) == bare(host)
            }
        }
    }
}

/// Whether it is an origin as browsers write it (RFC 6454, section 6.2): without a path, and without the default port.
fn is_origin(origin: &str) -> bool {
    let is_tuple = |(scheme, host): (&str, &str)| {
        !scheme.is_empty() && (host.is_empty() || is_host(host) && !host.ends_with(default_port(scheme)))
    };
    origin == "null" || origin.split_once("://").is_some_and(is_tuple)
}

fn default_port(scheme: &str) -> &'static str {
    if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" }
}

/// Whether the request asks for a WebSocket.
pub(crate) fn is_upgrade(request: &Request) -> bool {
    request.has_token(header::UPGRADE, "websocket")
}

/// An opening handshake that has passed all checks. The application may still refuse it.
#[derive(Debug)]
pub(crate) struct Handshake {
    /// The value of `Sec-WebSocket-Accept`.
    accept: String,
    /// Offered by the client, in its order of preference.
    pub(crate) subprotocols: Vec<String>,
}

impl Handshake {
    /// Checks everything that RFC 6455, section 4.2.1, requires.
    pub(crate) fn check(request: &Request, origins: &Origins) -> Result<Self, Refusal> {
        check_head(request, origins)?;
        let accept = accept_key(request)?;
        let subprotocols: Vec<String> =
            request.tokens(header::SEC_WEBSOCKET_PROTOCOL).map(str::to_owned).collect();
        if subprotocols.iter().any(|name| HeaderName::from_bytes(name.as_bytes()).is_err()) {
            return Err(bad("Sec-WebSocket-Protocol: a name is not a token"));
        }
        Ok(Self { accept, subprotocols })
    }

    /// Appends the 101 response (RFC 6455, section 4.2.2) to `output`. Of the header lines `added` by the application, those
    /// that the handshake sets itself are left out. All of the `common` ones belong here, too: a browser heeds some of them,
    /// such as HSTS, and those about pages do no harm.
    pub(crate) fn respond(
        &self,
        subprotocol: Option<&str>,
        extensions: Option<&str>,
        added: &[(HeaderName, HeaderValue)],
        common: &CommonHeaders,
        output: &mut Vec<u8>,
    ) {
        let own = [
            (header::UPGRADE, Some("websocket")),
            (header::CONNECTION, Some("Upgrade")),
            (header::SEC_WEBSOCKET_ACCEPT, Some(self.accept.as_str())),
            (header::SEC_WEBSOCKET_PROTOCOL, subprotocol),
            (header::SEC_WEBSOCKET_EXTENSIONS, extensions),
        ];
        begin_head(StatusCode::SWITCHING_PROTOCOLS, output);
        for (name, value) in &own {
            if let Some(value) = value {
                push_line(name, value.as_bytes(), output);
            }
        }
        for (name, value) in added.iter().filter(|(name, _)| own.iter().all(|(other, _)| other != name)) {
            push_line(name, value.as_bytes(), output);
        }
        common.write(|name| added.iter().any(|(other, _)| other == name), output);
        output.extend_from_slice(b"\r\n");
    }
}

/// Checks all but the key and the subprotocols. Not inlined, so that its stack frame is free again: see `serve`.
#[inline(never)]
fn check_head(request: &Request, origins: &Origins) -> Result<(), Refusal> {
    if request.method() != Method::GET {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "a WebSocket is opened with GET")
            .with_header(header::ALLOW, HeaderValue::from_static("GET")));
    }
    if !is_upgrade(request) {
        return Err(upgrade_required("there is a WebSocket at this path: send Upgrade: websocket"));
    }
    if request.is_http_10() {
        return Err(bad("a WebSocket needs HTTP/1.1"));
    }
    if !request.has_token(header::CONNECTION, "upgrade") {
        return Err(bad("Connection: Upgrade is missing"));
    }
    let Some(host) = request.header("host").filter(|host| is_host(host)) else {
        return Err(bad("Host is missing or malformed"));
    };
    match request.header("sec-websocket-version") {
        None => return Err(bad("Sec-WebSocket-Version is missing")),
        Some(version) if version.trim() == VERSION => {}
        Some(_) => return Err(upgrade_required("only Sec-WebSocket-Version 13 is supported")),
    }
    if let Some(origin) = request.headers().get(header::ORIGIN) {
        let allowed = origin.to_str().is_ok_and(|origin| origins.allow(origin, host));
        if !allowed {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "this Origin is not allowed here"));
        }
    }
    Ok(())
}

/// The value of `Sec-WebSocket-Accept`. The client's key must be 16 bytes in base64.
#[inline(never)]
fn accept_key(request: &Request) -> Result<String, Refusal> {
    let mut keys = request.headers().get_all(header::SEC_WEBSOCKET_KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return Err(bad("there must be one Sec-WebSocket-Key"));
    };
    match data_encoding::BASE64.decode(key.as_bytes()) {
        Ok(nonce) if nonce.len() == 16 => Ok(tungstenite::handshake::derive_accept_key(key.as_bytes())),
        _ => Err(bad("Sec-WebSocket-Key must be 16 bytes in base64")),
    }
}

/// Whether it is a name or an address, with or without a port: no user, no scheme (RFC 9110, section 7.2).
fn is_host(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let port = host.strip_prefix(authority.host()).and_then(|rest| rest.strip_prefix(':').or(Some(rest)));
    port.is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit()))
}

fn bad(reason: &'static str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, reason)
}

fn upgrade_required(reason: &'static str) -> Refusal {
    Refusal::new(StatusCode::UPGRADE_REQUIRED, reason)
        .with_header(header::UPGRADE, HeaderValue::from_static("websocket"))
        .with_header(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static(VERSION))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::parse_head;

    const GOOD: &str = "GET /x HTTP/1.1\r\nHost: h.example:80\r\nUpgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Protocol: chat, superchat\r\nOrigin: http://h.example\r\n\r\n";

    fn check(head: &str) -> Result<Handshake, Refusal> {
        Handshake::check(&parse_head(head.as_bytes(), 10_000).unwrap().unwrap().0, &Origins::SameHost)
    }

    #[test]
    fn the_example_of_the_rfc() {
        let handshake = check(GOOD).unwrap();
        assert_eq!(handshake.subprotocols, ["chat", "superchat"]);
        let added = [
            (header::SERVER, HeaderValue::from_static("s")),
            (header::UPGRADE, HeaderValue::from_static("another")),
        ];
        let mut response = Vec::new();
        handshake.respond(Some("chat"), None, &added, &CommonHeaders::default(), &mut response);
        let response = String::from_utf8(response).unwrap();
        assert!(response.starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
        assert!(response.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert!(response.contains("sec-websocket-protocol: chat\r\n"));
        assert!(response.ends_with("server: s\r\n\r\n") && !response.contains("another"));
    }

    #[test]
    fn each_refusal() {
        let status = |from: &str, to: &str| {
            assert!(GOOD.contains(from));
            check(&GOOD.replace(from, to)).unwrap_err().status().as_u16()
        };
        assert_eq!(status("GET", "POST"), 405);
        assert_eq!(status("Upgrade: WebSocket", "Upgrade: h2c"), 426);
        assert_eq!(status("HTTP/1.1", "HTTP/1.0"), 400);
        assert_eq!(status("upgrade\r\n", "x\r\n"), 400);
        assert_eq!(status("Host: h.example:80", "Host: a b"), 400);
        assert_eq!(status("Version: 13", "Version: 8"), 426);
        assert_eq!(status("Sec-WebSocket-Version: 13\r\n", ""), 400);
        assert_eq!(status("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), 400);
        assert_eq!(status("dGhlIHNhbXBsZSBub25jZQ==", "no base64!"), 400);
        assert_eq!(status("Sec-WebSocket-Version", "Sec-WebSocket-Key: x\r\nSec-WebSocket-Version"), 400);
        assert_eq!(status("chat, superchat", "a b"), 400);
        assert_eq!(status("Origin: http://h.example", "Origin: http://evil.example"), 403);
        assert_eq!(status("Origin: http://h.example", "Origin: null"), 403);
        assert_eq!(status("Origin: http://h.example", "Origin: http://h.example:8080"), 403);
    }

    #[test]
    fn origins() {
        assert!(Origins::SameHost.allow("https://a.example", "A.example:443"));
        assert!(Origins::SameHost.allow("http://[::1]:8080", "[::1]:8080"));
        let list = Origins::List(vec!["https://a.example".into()]);
        assert!(list.allow("https://A.example", "b") && !list.allow("http://a.example", "b"));
        let listed = |origin: &str| Origins::List(vec!["null".into(), origin.into()]).check();
        for good in ["https://a.example", "http://[::1]:8080", "http://localhost:443", "file://", "app://x"] {
            assert!(listed(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "*",
            "a.example",
            "a.example:80",
            "https://a.example/",
            "https://a.example:443",
            "://a",
            "http://a b",
        ] {
            assert!(listed(bad).unwrap_err().to_string().contains(&format!("{bad:?}")), "{bad}");
        }
        assert!(Origins::Any.allow("null", "b"));
        assert!(check(&GOOD.replace("Origin: http://h.example\r\n", "")).is_ok());
    }
}

//! The opening handshake (RFC 6455, section 4.2): the checks, and the 101 response. No I/O.

use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use super::{
    head::{CommonHeaders, begin_head, push_line},
    origin::Origins,
    request::Request,
    response::Refusal,
};
use crate::shown::Quoted;

/// The only version of the protocol (RFC 6455, section 4.1).
const VERSION: &str = "13";

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
        let names = request.tokens(header::SEC_WEBSOCKET_PROTOCOL).map(token).collect::<Option<_>>();
        let subprotocols = names.ok_or_else(|| bad("Sec-WebSocket-Protocol: a name is not a token"))?;
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
    let is_upgrade = is_upgrade(request);
    if *request.method() != Method::GET && (is_upgrade || *request.method() != Method::HEAD) {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "a WebSocket is opened with GET")
            .with_header(header::ALLOW, HeaderValue::from_static("GET")));
    }
    if !is_upgrade {
        return Err(websocket_here());
    }
    if request.is_http_10() {
        return Err(bad("a WebSocket needs HTTP/1.1"));
    }
    if !request.has_token(header::CONNECTION, "upgrade") {
        return Err(bad("Connection: Upgrade is missing"));
    }
    if has_body(request) {
        return Err(bad(
            "an opening handshake has no body, and so neither Content-Length nor Transfer-Encoding",
        ));
    }
    if request.raw_host().is_empty() {
        return Err(bad("Host is missing"));
    }
    match request.headers().get(header::SEC_WEBSOCKET_VERSION) {
        None => return Err(bad("Sec-WebSocket-Version is missing")),
        Some(version) if version.as_bytes() == VERSION.as_bytes() => {}
        Some(_) => return Err(upgrade_required("only Sec-WebSocket-Version 13 is supported")),
    }
    check_origin(request, origins)
}

/// Whether a page may make this request that is no handshake. A stranger's page may send any that changes nothing (RFC 9110,
/// section 9.2.1), and the browser keeps the answer from it.
pub(crate) fn check_page_origin(request: &Request, origins: &Origins) -> Result<(), Refusal> {
    // Browsers say this of a page whose Origin its policy hides: that is `null`.
    let is_same = request.header("sec-fetch-site") == Some("same-origin");
    if request.method().is_safe() || is_same { Ok(()) } else { check_origin(request, origins) }
}

fn check_origin(request: &Request, origins: &Origins) -> Result<(), Refusal> {
    let mut lines = request.headers().get_all(header::ORIGIN).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(()),
        (Some(_), Some(_)) => Err(bad("there may be one Origin")),
        (Some(origin), None) => {
            let allow = |host| origins.allow(origin.as_bytes(), host, request.is_secure());
            if request.host().is_some_and(allow) { Ok(()) } else { Err(foreign(origin, request)) }
        }
    }
}

/// What follows a handshake are frames. (A length of 0 is no body.)
fn has_body(request: &Request) -> bool {
    let is_zero = |length: &HeaderValue| !length.is_empty() && length.as_bytes().iter().all(|&b| b == b'0');
    let lengths = request.headers().get_all(header::CONTENT_LENGTH);
    request.headers().contains_key(header::TRANSFER_ENCODING) || !lengths.iter().all(is_zero)
}

/// Says what was compared, for the one who has to find out why; it is in the log, too.
#[cold]
#[inline(never)]
fn foreign(origin: &HeaderValue, request: &Request) -> Refusal {
    let quoted = |bytes| Quoted(String::from_utf8_lossy(bytes));
    let (origin, host) = (quoted(origin.as_bytes()), quoted(request.raw_host()));
    let by = if request.is_secure() { " over TLS" } else { "" };
    Refusal::new(StatusCode::FORBIDDEN, format!("the Origin {origin} is not allowed at the Host {host}{by}"))
}

/// The value of `Sec-WebSocket-Accept`. The client's key must be 16 bytes in base64. It is taken as it was sent, also with bits set
/// in its last letter that belong to no byte: small devices send 22 random letters.
#[inline(never)]
fn accept_key(request: &Request) -> Result<String, Refusal> {
    let mut keys = request.headers().get_all(header::SEC_WEBSOCKET_KEY).iter();
    let (Some(key), None) = (keys.next(), keys.next()) else {
        return Err(bad("there must be one Sec-WebSocket-Key"));
    };
    let is_letter = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/');
    match key.as_bytes().strip_suffix(b"==") {
        Some(letters) if letters.len() == 22 && letters.iter().all(is_letter) => {
            Ok(tungstenite::handshake::derive_accept_key(key.as_bytes()))
        }
        _ => Err(bad("Sec-WebSocket-Key must be 16 bytes in base64")),
    }
}

/// A token (RFC 9110, section 5.6.2), as the name of a header is one.
fn token(bytes: &[u8]) -> Option<String> {
    HeaderName::from_bytes(bytes).ok().and_then(|_| String::from_utf8(bytes.to_vec()).ok())
}

fn bad(reason: &'static str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, reason)
}

/// What a request for a page is answered with, if there is only a WebSocket.
pub(crate) fn websocket_here() -> Refusal {
    upgrade_required("there is a WebSocket at this path: send Upgrade: websocket")
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
        assert_eq!(status("GET", "HEAD"), 405);
        assert_eq!(status("Upgrade: WebSocket", "Upgrade: h2c"), 426);
        assert_eq!(status("HTTP/1.1", "HTTP/1.0"), 400);
        assert_eq!(status("upgrade\r\n", "x\r\n"), 400);
        assert_eq!(status("Host: h.example:80", "Host:"), 400);
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
    fn a_key_is_taken_as_it_was_sent() {
        let accept = |key: &str| check(&GOOD.replace("dGhlIHNhbXBsZSBub25jZQ==", key)).map(|h| h.accept);
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZR==").unwrap(), "Zgw8jYXtqX5qJr7MJ1Q/MqzeSRI=");
        assert!(accept("  abcdefghijklmnopqrstuZ==  ").is_ok());
        for bad in [
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25j_Q==",
            "==================",
        ] {
            assert!(accept(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_refused_origin_is_named_with_the_host() {
        let text = |head: &str| check(head).unwrap_err().to_string();
        let foreign = GOOD.replace("Origin: http://h.example", "Origin: http://evil.example\u{202e}\"");
        let expected =
            r#"the Origin "http://evil.example\u{202e}\"" is not allowed at the Host "h.example:80""#;
        assert!(text(&foreign).contains(expected), "{}", text(&foreign));
        let twice = GOOD.replace("Origin:", "Origin: http://h.example\r\nOrigin:");
        assert!(text(&twice).starts_with("400 "));
    }

    #[test]
    fn a_handshake_with_a_body_is_refused() {
        let with = |line: &str| check(&GOOD.replace("Origin:", &format!("{line}\r\nOrigin:")));
        for bad in [
            "Content-Length: 5",
            "Content-Length:",
            "Transfer-Encoding: chunked",
            "Transfer-Encoding: identity",
        ] {
            assert_eq!(with(bad).unwrap_err().status(), 400, "{bad}");
        }
        assert!(with("Content-Length: 0").is_ok());
    }
}

//! Where a request in the clear is sent that should have come over TLS. No I/O.

use http::{StatusCode, header};
use percent_encoding::{CONTROLS, utf8_percent_encode};

use super::{
    handshake::is_upgrade,
    request::Request,
    response::{Refusal, Response},
};

/// The port of https that a URL need not name.
const DEFAULT_PORT: u16 = 443;

/// The same URL with https and this port; with wss for an opening handshake. Browsers follow no redirect of a WebSocket, but other
/// clients may, and all of them show the answer.
///
/// # Errors
/// What to answer if there is no such URL: the client does not say which host it wants, or what it wants is no path.
pub(crate) fn to_https(request: &Request, port: u16) -> Result<Response, Refusal> {
    let refuse = |status, why| Err(Refusal::new(status, why));
    // A proxy with TLS has sent it here. It would come again and again.
    if request.is_secure() {
        let why = "here is only a redirect to https, by which this has come: have the proxy ask another port";
        return refuse(StatusCode::MISDIRECTED_REQUEST, why);
    }
    let Some(host) = request.host() else {
        return refuse(StatusCode::BAD_REQUEST, "without a Host there is nowhere to redirect to");
    };
    if !request.raw_path().starts_with('/') {
        return refuse(StatusCode::BAD_REQUEST, "here is only a redirect to https");
    }
    let scheme = if is_upgrade(request) { "wss" } else { "https" };
    let port = if port == DEFAULT_PORT { String::new() } else { format!(":{port}") };
    let query = if request.query().is_empty() { "" } else { "?" };
    let [path, given] = [request.raw_path(), request.query()].map(|text| utf8_percent_encode(text, CONTROLS));
    let location = format!("{scheme}://{}{port}{path}{query}{given}", host.name);
    let status = StatusCode::PERMANENT_REDIRECT;
    let text = format!("{status}: use {location}\n");
    Ok(Response::text(status, text).with_header(header::LOCATION, location.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::parse_head;

    fn redirected(target: &str, host: &str, more: &str, port: u16) -> Result<String, u16> {
        let head = format!("{target} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n");
        let (request, _) = parse_head(head.as_bytes(), 1000).unwrap().unwrap();
        let mut response = to_https(&request, port).map_err(|refusal| refusal.status().as_u16())?;
        assert_eq!(response.status(), 308);
        let location = response.headers_mut().remove(header::LOCATION).unwrap();
        Ok(String::from_utf8(location.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn the_url_stays_the_same_but_for_scheme_and_port() {
        for (target, host, port, location) in [
            ("GET /", "box.example", 443, "https://box.example/"),
            ("GET /a%20b?x=1&y=%2F?", "box.example:80", 443, "https://box.example/a%20b?x=1&y=%2F?"),
            ("POST /a/../b", "box:8080", 8443, "https://box:8443/a/../b"),
            ("GET //evil.example/x", "box", 443, "https://box//evil.example/x"),
            ("GET /", "[::1]:80", 444, "https://[::1]:444/"),
            ("GET /", "[fe80::1%25eth0]", 443, "https://[fe80::1]/"),
            ("GET /", "127.0.0.1", 443, "https://127.0.0.1/"),
            ("GET http://other.example/x", "box", 443, "https://other.example/x"), // RFC 9112, section 3.2.2
            ("GET /ä?ö", "box", 443, "https://box/%C3%A4?%C3%B6"),
            ("GET /@evil.example", "box", 443, "https://box/@evil.example"),
        ] {
            assert_eq!(redirected(target, host, "", port).as_deref(), Ok(location));
        }
        let handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\n";
        assert_eq!(redirected("GET /chat?a", "box", handshake, 443).as_deref(), Ok("wss://box/chat?a"));
    }

    #[test]
    fn what_leads_nowhere_is_refused() {
        assert_eq!(redirected("GET /", "", "", 443), Err(400));
        assert_eq!(redirected("OPTIONS *", "box", "", 443), Err(400));
        assert_eq!(redirected("CONNECT box:1", "box", "", 443), Err(400));
        let head = b"GET / HTTP/1.1\r\nHost: box\r\n\r\n";
        let secure = parse_head(head, 1000).unwrap().unwrap().0.with_secure(true);
        assert_eq!(to_https(&secure, 443).unwrap_err().status(), 421);
    }
}

//! The request: its head is parsed once, and then only read. No I/O.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};

use super::{
    forwarded::told,
    head::push_line,
    header::{header_map, items},
    host::Host,
    proxies::Proxies,
    response::Refusal,
    target::Target,
};
#[cfg(feature = "__tls")]
use crate::client_certificate::ClientCertificate;

/// More header lines than any browser or proxy sends.
const MAX_HEADERS: usize = 100;

/// An HTTP request: method, path, query, headers, and the client's address.
#[derive(Debug)]
pub struct Request {
    method: Method,
    target: Target,
    version: Version,
    headers: HeaderMap,
    peer: Option<SocketAddr>,
    client: Option<IpAddr>,
    is_proxied: bool,
    is_secure: bool,
    #[cfg(feature = "__tls")]
    client_certificate: Option<ClientCertificate>,
}

/// Parses the head at the start of `input`: `None` while it is incomplete, else the request and the head's length.
///
/// `max` is the largest allowed size of a head, in bytes.
pub(crate) fn parse_head(input: &[u8], max: usize) -> Result<Option<(Box<Request>, usize)>, Refusal> {
    // Not on the stack: its pages, once used, stay resident as long as the thread.
    let mut lines = vec![httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut lines);
    let length = match head.parse(&input[..input.len().min(max)]) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if input.len() < max => return Ok(None),
        Ok(httparse::Status::Partial) => {
            return Err(too_large(format!("the head has more than {max} bytes")));
        }
        Err(httparse::Error::TooManyHeaders) => {
            return Err(too_large(format!("there are more than {MAX_HEADERS} header lines")));
        }
        Err(e) => return Err(bad(format!("not an HTTP request: {e}"))),
    };
    Request::new(&head).map(|request| Some((request, length)))
}

fn bad(what: impl Into<Cow<'static, str>>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, what)
}

fn too_large(what: String) -> Refusal {
    Refusal::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, what)
}

impl Request {
    fn new(head: &httparse::Request<'_, '_>) -> Result<Box<Self>, Refusal> {
        let method = head.method.unwrap_or_default();
        let method = Method::from_bytes(method.as_bytes()).map_err(|_| bad("malformed HTTP method"))?;
        let target = Target::parse(head.path.unwrap_or_default(), method == Method::CONNECT).map_err(bad)?;
        let request = Box::new(Self {
            method,
            target,
            version: if head.version == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 },
            headers: header_map(head.headers).map_err(bad)?,
            peer: None,
            client: None,
            is_proxied: false,
            is_secure: false,
            #[cfg(feature = "__tls")]
            client_certificate: None,
        });
        // RFC 9112, section 3.2. It may be empty.
        let mut hosts = request.headers.get_all(header::HOST).iter();
        match (hosts.next(), hosts.next()) {
            (Some(host), None) if host.is_empty() || Host::parse(host.as_bytes()).is_some() => Ok(request),
            (Some(_), None) => Err(bad("the Host header is malformed")),
            (None, None) if request.is_http_10() => Ok(request),
            _ => Err(bad("there must be one Host header")),
        }
    }

    /// Parses the head of a request, for a connection that is to be [adopted](crate::ServerHandle::adopt): `None` while it is
    /// incomplete, else the request, and how many bytes its head has. What follows them belongs to the connection.
    ///
    /// # Errors
    /// What a server has to answer, such as 400.
    pub fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Refusal> {
        Ok(parse_head(bytes, usize::MAX)?.map(|(request, length)| (*request, length)))
    }

    /// Sets the address of the client, where that is not the socket's other end. On a Unix socket it also tells whether strangers'
    /// pages have to be kept out ([`ServerBuilder::hosts`](crate::ServerBuilder::hosts)): of a client at a loopback or private
    /// address.
    #[must_use]
    pub fn with_peer(mut self, peer: SocketAddr) -> Self {
        self.peer = Some(peer);
        self
    }

    /// Says whether it was received over TLS.
    #[must_use]
    pub fn with_secure(mut self, is_secure: bool) -> Self {
        self.is_secure = is_secure;
        self
    }

    /// Sets what is known from the socket. `trusted` are the proxies that are believed about their clients.
    /// `is_unix` is asked only if need be: whether it is a Unix socket, where there is no peer.
    pub(crate) fn set_peer(
        &mut self,
        peer: Option<SocketAddr>,
        is_secure: bool,
        trusted: &Proxies,
        is_unix: impl FnOnce() -> bool,
    ) {
        self.peer = peer;
        self.is_secure = is_secure;
        self.client = peer.map(|peer| peer.ip().to_canonical());
        self.is_proxied = match self.client {
            Some(ip) => trusted.contains(&ip),
            None => trusted.is_any_on_unix() && is_unix(),
        };
        if self.is_proxied {
            let told = told(&self.headers, trusted);
            self.client = told.client.or(self.client);
            self.is_secure = told.is_secure.unwrap_or(is_secure);
        }
    }

    #[cfg(feature = "__tls")]
    pub(crate) fn set_client_certificate(&mut self, certificate: ClientCertificate) {
        self.client_certificate = Some(certificate);
    }

    /// The method, such as `GET`.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The path, without the query, in the one form that routes and files are compared with: percent-decoded, without empty
    /// segments, `.` and `..`. A slash that was sent encoded stays so (`%2F`), and separates nothing; a slash at the end stays.
    ///
    /// So `//private/./x` and `/%70rivate/x` are `/private/x`, for whoever guards `/private/*`, too.
    pub fn path(&self) -> &str {
        self.target.path()
    }

    /// The path as it was sent (percent-encoded), without the query: for a link to it, or to check a signature.
    pub fn raw_path(&self) -> &str {
        self.target.raw_path()
    }

    /// The query as it was sent, without the `?`; empty if there is none.
    pub fn query(&self) -> &str {
        self.target.query()
    }

    /// The first value of that name in the query, decoded.
    pub fn query_value(&self, name: &str) -> Option<Cow<'_, str>> {
        form_urlencoded::parse(self.query().as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// All header lines. Their values are bytes: what a client sends need not be text.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The first header line of that name (in any case), if its value is text, in UTF-8.
    pub fn header(&self, name: &str) -> Option<&str> {
        str::from_utf8(self.headers.get(name)?.as_bytes()).ok()
    }

    /// The value of a cookie that the client sent: the first of that name whose value is text, in UTF-8. It is as it was sent:
    /// neither quotes nor percent-encoding are removed. What other cookies contain does not matter.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.cookies(name).next()
    }

    /// The values of all cookies of that name: a browser may send several, for different paths.
    fn cookies(&self, name: &str) -> impl Iterator<Item = &str> {
        let values = self.cookie_pairs().filter_map(move |pair| {
            let at = pair.iter().position(|&b| b == b'=')?;
            (pair[..at].trim_ascii_end() == name.as_bytes()).then(|| pair[at + 1..].trim_ascii_start())
        });
        values.filter_map(|value| str::from_utf8(value).ok())
    }

    /// All cookies, each with its name, as they were sent.
    pub(crate) fn cookie_pairs(&self) -> impl Iterator<Item = &[u8]> {
        items(&self.headers, header::COOKIE, b';')
    }

    /// The host that the client wants (RFC 9112, section 3.2.2). `None`: it does not say.
    pub(super) fn host(&self) -> Option<Host<'_>> {
        Host::parse(self.raw_host())
    }

    /// Whether it asks for a host whose name no stranger can own.
    #[cfg(feature = "manage")]
    pub(crate) fn has_local_host(&self) -> bool {
        self.host().is_some_and(|host| host.name.is_local())
    }

    /// The same, as it was sent.
    pub(super) fn raw_host(&self) -> &[u8] {
        let line = || self.headers.get(header::HOST).map(HeaderValue::as_bytes);
        self.target.authority().map(str::as_bytes).or_else(line).unwrap_or_default()
    }

    /// The address of the socket's other end; `None` on a Unix socket. Of a proxy that speaks the
    /// [PROXY protocol](crate::ServerBuilder::proxy_protocol), that of its client.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// The client's address (`REMOTE_ADDR`): that of the peer, or, behind a
    /// [trusted proxy](crate::ServerBuilder::trusted_proxies), the forwarded one. `None` on a Unix socket without such a proxy.
    pub fn client_address(&self) -> Option<IpAddr> {
        self.client
    }

    /// Whether the client's connection uses TLS: that to the server, or, behind a
    /// [trusted proxy](crate::ServerBuilder::trusted_proxies), that to the proxy if it says so.
    pub fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// The certificate with which the client has shown who it is, where the server asks for one
    /// ([`TlsIdentity::with_client_ca`](crate::TlsIdentity::with_client_ca)).
    #[cfg(feature = "__tls")]
    pub fn client_certificate(&self) -> Option<&ClientCertificate> {
        self.client_certificate.as_ref()
    }

    /// Whether it comes from a trusted proxy.
    pub(crate) fn is_proxied(&self) -> bool {
        self.is_proxied
    }

    pub(crate) fn is_http_10(&self) -> bool {
        self.version == Version::HTTP_10
    }

    /// Whether a header that is a list of tokens contains this one, in any case.
    pub(crate) fn has_token(&self, name: HeaderName, token: &str) -> bool {
        self.tokens(name).any(|t| t.eq_ignore_ascii_case(token.as_bytes()))
    }

    /// The items of a header that is a comma-separated list, over all of its lines.
    pub(crate) fn tokens(&self, name: HeaderName) -> impl Iterator<Item = &[u8]> {
        items(&self.headers, name, b',')
    }
}

/// For a connection that is to be [adopted](crate::ServerHandle::adopt). What could not have been received is refused.
impl<T> TryFrom<http::Request<T>> for Request {
    type Error = Refusal;

    fn try_from(request: http::Request<T>) -> Result<Self, Refusal> {
        let version = match request.version() {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_11 => "HTTP/1.1",
            _ => {
                return Err(Refusal::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1 is supported"));
            }
        };
        // There is one way to make a request, with all of its checks.
        let mut head = format!("{} {} {version}\r\n", request.method(), request.uri()).into_bytes();
        for (name, value) in request.headers() {
            push_line(name, value.as_bytes(), &mut head);
        }
        head.extend_from_slice(b"\r\n");
        match Self::parse(&head)? {
            Some((request, length)) if length == head.len() => Ok(request),
            _ => Err(bad("not an HTTP request")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(head: &str) -> Result<Option<(Box<Request>, usize)>, Refusal> {
        parse_head(head.as_bytes(), 1000)
    }

    fn request(lines: &str) -> Box<Request> {
        parse(&format!("GET /a%20b?x=1&y=%C3%A4+b HTTP/1.1\r\nHost: h\r\n{lines}\r\n")).unwrap().unwrap().0
    }

    fn proxies(trusted: &[&str]) -> Proxies {
        let mut proxies = Proxies::default();
        trusted.iter().for_each(|proxy| proxies.add(proxy).unwrap());
        proxies
    }

    #[test]
    fn a_complete_head_is_parsed_and_the_rest_left_alone() {
        let (request, length) = parse("GET /p?q HTTP/1.1\r\nHost: h\r\n\r\nrest").unwrap().unwrap();
        assert_eq!((request.path(), request.query(), length), ("/p", "q", 30));
        assert!(parse("GET /p HTTP/1.1\r\nHost: h\r\n").unwrap().is_none());
        let (absolute, _) = parse("GET http://h HTTP/1.1\r\nHost: x\r\n\r\n").unwrap().unwrap();
        assert_eq!((absolute.path(), absolute.raw_host()), ("/", &b"h"[..]), "RFC 9112, section 3.2.2");
    }

    #[test]
    fn bad_heads_are_refused() {
        let status = |head: &str| parse(head).unwrap_err().status().as_u16();
        assert_eq!(status("\x16\x03\x01"), 400);
        assert_eq!(status("GET / HTTP/2.0\r\n\r\n"), 400);
        assert_eq!(status("GET / HTTP/1.1\r\nbad name: x\r\n\r\n"), 400);
        assert_eq!(status("GET / HTTP/1.1\r\n\r\n"), 400);
        assert_eq!(status("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), 400);
        assert_eq!(status("GET / HTTP/1.1\r\nHost: a b\r\n\r\n"), 400);
        assert_eq!(status("GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
        assert_eq!(status("GET a HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(1000))), 431);
        assert_eq!(status(&format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(101))), 431);
    }

    #[test]
    fn query_cookies_and_headers() {
        let request = request("Cookie: a=1; b=2\r\nCookie: c=3=4\r\nX-Y: z\r\n");
        assert_eq!(request.query_value("y").unwrap(), "ä b");
        assert_eq!(request.query_value("z"), None);
        assert_eq!(request.cookie("b"), Some("2"));
        assert_eq!(request.cookie("c"), Some("3=4"));
        assert_eq!(request.header("x-y"), Some("z"));
        assert_eq!((request.path(), request.raw_path()), ("/a b", "/a%20b"));
    }

    #[test]
    fn what_is_not_text_hides_nothing_else() {
        let head = b"GET / HTTP/1.1\r\nHost: h\r\nX-Text: Zo\xc3\xab\r\nX-Bytes: Zo\xeb\r\nConnection: \xff, Upgrade\r\n\
            Cookie: name=Zo\xeb; a=1; \xff=2; b = Zo\xc3\xab ;a=3;=4;no; c=\r\nCookie: d=\xff; d=5; \xff\r\n\r\n";
        let request = parse_head(head, 1000).unwrap().unwrap().0;
        assert_eq!((request.header("x-text"), request.header("x-bytes")), (Some("Zoë"), None));
        assert!(request.has_token(header::CONNECTION, "upgrade"));
        let names = ["a", "b", "c", "d", "name", "no"];
        assert_eq!(
            names.map(|name| request.cookie(name)),
            [Some("1"), Some("Zoë"), Some(""), Some("5"), None, None]
        );
        assert_eq!(request.cookies("a").collect::<Vec<_>>(), ["1", "3"]);
    }

    #[test]
    fn a_trusted_proxy_says_whether_the_client_is_secure() {
        for (lines, by_tls, is_trusted, is_secure) in [
            ("X-Forwarded-Proto: https\r\n", false, true, true),
            ("X-Forwarded-Proto: WSS\r\n", false, true, true),
            ("X-Forwarded-Proto: https, http\r\n", false, true, true),
            ("X-Forwarded-Proto: http\r\n", true, true, false),
            ("X-Forwarded-Proto: what\r\n", true, true, true),
            ("X-Forwarded-Proto: https\r\n", false, false, false),
            ("", false, true, false),
            ("", true, true, true),
        ] {
            let mut request = request(lines);
            let trusted = proxies(if is_trusted { &["10.0.0.1"] } else { &[] });
            request
                .set_peer(Some("10.0.0.1:5".parse().unwrap()), by_tls, &trusted, || panic!("asked in vain"));
            assert_eq!((request.is_secure(), request.is_proxied()), (is_secure, is_trusted), "{lines}");
        }
    }

    #[test]
    fn a_proxy_on_a_unix_socket_is_trusted_if_it_was_named() {
        for (trusted, is_unix, is_believed) in
            [(&["unix"][..], true, true), (&["unix"], false, false), (&["::1"], true, false)]
        {
            let mut request = request("X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n");
            request.set_peer(None, false, &proxies(trusted), || is_unix);
            assert_eq!((request.is_proxied(), request.is_secure()), (is_believed, is_believed));
            assert_eq!(request.client_address(), is_believed.then_some([192, 0, 2, 1].into()));
        }
    }

    #[test]
    fn the_forwarded_address_is_trusted_only_from_trusted_proxies() {
        let client = |forwarded: &str, trusted: &[&str]| {
            let mut request = request(&format!("X-Forwarded-For: {forwarded}\r\n"));
            request.set_peer(Some("10.0.0.1:5".parse().unwrap()), false, &proxies(trusted), || false);
            request.client.unwrap().to_string()
        };
        assert_eq!(client("1.2.3.4", &[]), "10.0.0.1");
        assert_eq!(client("1.2.3.4", &["10.0.0.1"]), "1.2.3.4");
        assert_eq!(client("6.6.6.6, 1.2.3.4, 10.0.0.2", &["10.0.0.1", "10.0.0.2"]), "1.2.3.4");
        assert_eq!(client("1.2.3.4, junk", &["10.0.0.1"]), "10.0.0.1");
        assert_eq!(client("ÿ, 1.2.3.4:5555", &["10.0.0.1"]), "1.2.3.4");
        assert_eq!(client("[::1]:7, [2001:db8::1]", &["10.0.0.1"]), "2001:db8::1");
    }
}

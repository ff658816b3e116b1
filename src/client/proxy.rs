//! A way to the server through an HTTP proxy (RFC 9110, section 9.3.6).

use std::fmt;

use data_encoding::BASE64;

use super::{
    error::{ClientError, ConnectStep},
    url::{Authority, bracketed},
    wire::Wire,
};

/// A proxy that makes connections when it is asked to by CONNECT.
#[derive(Clone)]
pub(super) struct Proxy {
    pub(super) host: String,
    pub(super) port: u16,
    credentials: Option<(String, String)>,
}

/// Does not show the password.
impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({}:{})", self.host, self.port)
    }
}

impl Proxy {
    /// `http://user:password@host:port`.
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let of = |text: String| format!("the proxy: {text}");
        if url.chars().any(char::is_control) {
            return Err(of("the URL has a control character or a line break in it".into()));
        }
        let rest = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            _ => return Err(of("only http:// is supported, as in http://proxy:3128".into())),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '#']) {
            return Err(of("its URL has no path".into()));
        }
        let Authority { host, port, credentials, .. } = Authority::parse(authority, 80).map_err(of)?;
        Ok(Self { host, port, credentials })
    }

    /// Asks for a connection to this place.
    pub(super) fn connect_to(&self, host: &str, port: u16, wire: &mut Wire) -> Result<(), ClientError> {
        wire.step = ConnectStep::Proxy;
        let host = bracketed(host);
        let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
        if let Some((user, password)) = &self.credentials {
            request += &format!("Proxy-Authorization: {}\r\n", basic(user, password));
        }
        request += "\r\n";
        wire.stream.output().extend_from_slice(request.as_bytes());
        let head = wire.exchange()?;
        if head.status.is_success() { Ok(()) } else { Err(ClientError::Proxy(wire.refusal(head))) }
    }
}

/// The value of a header that says who asks (RFC 7617).
pub(super) fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64.encode(format!("{user}:{password}").as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_proxy_is_named() {
        let proxy = Proxy::parse("http://me:secret@Proxy:3128/").unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("proxy", 3128));
        assert_eq!(proxy.credentials, Some(("me".into(), "secret".into())));
        assert!(!format!("{proxy:?}").contains("secret"));
        for bad in
            ["proxy:3128", "https://proxy", "socks5://proxy", "http://", "http://proxy/x", "http://p\r\n"]
        {
            assert!(Proxy::parse(bad).unwrap_err().starts_with("the proxy: "), "{bad}");
        }
    }
}

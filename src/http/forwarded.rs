//! What a trusted proxy says about its client in the header lines of a request. No I/O.
//!
//! Each proxy on the way appends to a list, and only what trusted ones have written is true: so lists are read from their end.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, header};

use super::{header::items, proxies::Proxies};

/// In which header lines [trusted proxies](crate::ServerBuilder::trusted_proxies) say who their client is. Only one kind is believed:
/// a proxy that writes one of them passes on the other as a client has sent it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyHeaders {
    /// `X-Forwarded-For` and `X-Forwarded-Proto`, as most proxies do.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239): of its parameters `for` and `proto`.
    Forwarded,
}

/// What is told of a client.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// The nearest address that is not a trusted proxy: the client may have invented those before it.
    pub(super) client: Option<IpAddr>,
    /// Whether its connection uses TLS.
    pub(super) is_secure: Option<bool>,
}

/// Reads the lines that the proxies write. The last proxy is trusted; the others are if `trusted` has their addresses.
pub(super) fn told(headers: &HeaderMap, trusted: &Proxies) -> Told {
    match trusted.headers {
        ProxyHeaders::XForwarded => {
            Told { client: x_forwarded_for(headers, trusted), is_secure: x_forwarded_proto(headers) }
        }
        ProxyHeaders::Forwarded => forwarded(headers, trusted),
    }
}

fn x_forwarded_for(headers: &HeaderMap, trusted: &Proxies) -> Option<IpAddr> {
    let lines = headers.get_all("x-forwarded-for").iter();
    // As bytes: the client may have sent invalid text in the same line to which the proxy has appended.
    let all: Vec<&[u8]> = lines.flat_map(|line| line.as_bytes().split(|&b| b == b',')).collect();
    let mut nearest = None;
    for address in all.into_iter().rev() {
        let Some(ip) = parse_address(address) else { break };
        nearest = Some(ip);
        if !trusted.contains(&ip) {
            break;
        }
    }
    nearest
}

fn x_forwarded_proto(headers: &HeaderMap) -> Option<bool> {
    is_secure(items(headers, HeaderName::from_static("x-forwarded-proto"), b',').next()?)
}

/// RFC 7239, section 4. What a proxy says of the protocol belongs to the client that it names in the same element.
fn forwarded(headers: &HeaderMap, trusted: &Proxies) -> Told {
    let mut told = Told::default();
    for line in headers.get_all(header::FORWARDED).iter().rev() {
        // A client's quotation mark that is not closed would reach into what the proxy has appended.
        let Some(elements) = Elements(line.as_bytes()).all() else { break };
        for element in elements.into_iter().rev() {
            told.is_secure = element.proto.as_deref().and_then(is_secure);
            // It may be "unknown", or a name of the proxy's own (section 6).
            let Some(ip) = element.client.as_deref().and_then(parse_node) else { return told };
            told.client = Some(ip);
            if !trusted.contains(&ip) {
                return told;
            }
        }
    }
    told
}

fn is_secure(scheme: &[u8]) -> Option<bool> {
    let is_one_of = |names: [&str; 2]| names.iter().any(|name| scheme.eq_ignore_ascii_case(name.as_bytes()));
    if is_one_of(["https", "wss"]) { Some(true) } else { is_one_of(["http", "ws"]).then_some(false) }
}

/// An address, as proxies write it: some add the port.
fn parse_address(bytes: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    let bare = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let ip = bare.or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip())).ok()?;
    Some(ip.to_canonical())
}

/// The same of RFC 7239, where the port may have a name of the proxy's own.
fn parse_node(bytes: &[u8]) -> Option<IpAddr> {
    let port = bytes.windows(2).position(|pair| pair == b":_");
    parse_address(&bytes[..port.unwrap_or(bytes.len())])
}

/// What one proxy has said.
#[derive(Debug, Default)]
struct Element {
    client: Option<Vec<u8>>,
    proto: Option<Vec<u8>>,
}

/// What is left of a `Forwarded` line.
struct Elements<'a>(&'a [u8]);

impl Elements<'_> {
    /// `None`: it is malformed.
    fn all(mut self) -> Option<Vec<Element>> {
        let mut all = vec![Element::default()];
        loop {
            if !matches!(self.peek(), None | Some(b',' | b';')) {
                let (name, value) = self.pair()?;
                let element = all.last_mut()?;
                let place = match name.to_ascii_lowercase().as_slice() {
                    b"for" => Some(&mut element.client),
                    b"proto" => Some(&mut element.proto),
                    _ => None,
                };
                // Each is there once at most.
                if place.is_some_and(|place| place.replace(value).is_some()) {
                    return None;
                }
            }
            match self.peek() {
                None => return Some(all),
                Some(b',') => all.push(Element::default()),
                Some(b';') => {}
                Some(_) => return None,
            }
            self.0 = &self.0[1..];
        }
    }

    /// The next byte that is no space.
    fn peek(&mut self) -> Option<u8> {
        self.0 = self.0.trim_ascii_start();
        self.0.first().copied()
    }

    fn pair(&mut self) -> Option<(Vec<u8>, Vec<u8>)> {
        let name = self.word();
        self.0 = self.0.strip_prefix(b"=")?;
        if name.is_empty() {
            return None;
        }
        let value = match self.0.strip_prefix(b"\"") {
            Some(quoted) => {
                self.0 = quoted;
                self.quoted()?
            }
            None => self.word(), // an address with colons needs quotes, which not all proxies know
        };
        Some((name, value))
    }

    /// All up to a separator.
    fn word(&mut self) -> Vec<u8> {
        let is_end = |&b: &u8| matches!(b, b',' | b';' | b'"' | b'=' | b' ' | b'\t');
        let (word, rest) = self.0.split_at(self.0.iter().position(is_end).unwrap_or(self.0.len()));
        self.0 = rest;
        word.to_vec()
    }

    /// All up to the closing quotation mark (RFC 9110, section 5.6.4).
    fn quoted(&mut self) -> Option<Vec<u8>> {
        let mut value = Vec::new();
        loop {
            let (&first, rest) = self.0.split_first()?;
            self.0 = rest;
            match first {
                b'"' => return Some(value),
                b'\\' => {
                    let (&escaped, rest) = self.0.split_first()?;
                    self.0 = rest;
                    value.push(escaped);
                }
                other => value.push(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// The client's address and whether it uses TLS, by these lines of a header.
    fn read(headers: ProxyHeaders, name: &'static str, lines: &[&str]) -> (String, Option<bool>) {
        let mut trusted = Proxies::default();
        trusted.headers = headers;
        trusted.add("10.0.0.0/8").unwrap();
        let mut map = HeaderMap::new();
        for line in lines {
            map.append(name, HeaderValue::from_bytes(line.as_bytes()).unwrap());
        }
        let Told { client, is_secure } = told(&map, &trusted);
        (client.map_or(String::new(), |ip| ip.to_string()), is_secure)
    }

    fn forwarded(lines: &[&str]) -> (String, Option<bool>) {
        read(ProxyHeaders::Forwarded, "forwarded", lines)
    }

    #[test]
    fn forwarded_names_the_client_and_its_protocol() {
        for (line, client, is_secure) in [
            ("for=192.0.2.1", "192.0.2.1", None),
            ("For=192.0.2.1;Proto=HTTPS;by=10.0.0.1;host=h", "192.0.2.1", Some(true)),
            ("proto=http;for=\"192.0.2.1:4711\"", "192.0.2.1", Some(false)),
            ("for=\"[2001:db8::1]:80\";proto=\"wss\"", "2001:db8::1", Some(true)),
            ("for=\"[2001:db8::1]\"", "2001:db8::1", None),
            ("for=\"192.0.2.1:_port\"", "192.0.2.1", None),
            ("for=\"\\1\\92.0.2.1\"", "192.0.2.1", None),
            ("for=192.0.2.1:80 ; proto=https ,for=192.0.2.2", "192.0.2.2", None),
            // The nearest one that is not trusted, with what was said of it.
            (
                "for=6.6.6.6;proto=https, for=192.0.2.1;proto=http, for=10.0.0.2;proto=https",
                "192.0.2.1",
                Some(false),
            ),
            ("for=10.0.0.3;proto=https, for=10.0.0.2", "10.0.0.3", Some(true)),
            // Who is unknown still has a protocol.
            ("for=6.6.6.6;proto=http, for=unknown;proto=https", "", Some(true)),
            ("for=6.6.6.6, for=_hidden, for=10.0.0.2", "10.0.0.2", None),
            ("for=6.6.6.6, proto=https", "", Some(true)),
            (";;for=192.0.2.1;;", "192.0.2.1", None),
            ("for=6.6.6.6,", "", None),
            ("secret=\"a, for=6.6.6.6;\";for=192.0.2.1", "192.0.2.1", None),
        ] {
            assert_eq!(forwarded(&[line]), (client.to_owned(), is_secure), "{line}");
        }
        assert_eq!(forwarded(&["for=6.6.6.6", "for=192.0.2.1"]).0, "192.0.2.1");
        assert_eq!(forwarded(&["for=192.0.2.1", "for=10.0.0.2"]).0, "192.0.2.1");
    }

    #[test]
    fn what_is_malformed_is_not_believed() {
        for line in [
            "for=6.6.6.6;x=\", for=192.0.2.1",
            "for=6.6.6.6;x=\", for=\"[2001:db8::1]\"",
            "for=6.6.6.6;x=\", for=192.0.2.1;by=\"\"",
            "for=6.6.6.6;for=192.0.2.1",
            "for=\"6.6.6.6",
            "for=\"6.6.6.6\\",
            "for=\"6.6.6.6\"x",
            "for",
            "=6.6.6.6",
            "for 6.6.6.6",
            "for=6.6.6.6 7",
            "for==6.6.6.6",
        ] {
            assert_eq!(forwarded(&[line]), (String::new(), None), "{line}");
            // A line of the proxy's own behind it counts.
            assert_eq!(
                forwarded(&[line, "for=192.0.2.1;proto=https"]),
                ("192.0.2.1".into(), Some(true)),
                "{line}"
            );
            assert_eq!(
                forwarded(&[line, "for=10.0.0.2;proto=https"]),
                ("10.0.0.2".into(), Some(true)),
                "{line}"
            );
        }
    }

    #[test]
    fn only_the_lines_that_were_chosen_are_believed() {
        let none = (String::new(), None);
        assert_eq!(read(ProxyHeaders::XForwarded, "forwarded", &["for=6.6.6.6;proto=https"]), none);
        assert_eq!(read(ProxyHeaders::Forwarded, "x-forwarded-for", &["6.6.6.6"]), none);
        assert_eq!(read(ProxyHeaders::Forwarded, "x-forwarded-proto", &["https"]), none);
        let of_network = read(ProxyHeaders::XForwarded, "x-forwarded-for", &["6.6.6.6, 192.0.2.1, 10.9.9.9"]);
        assert_eq!(of_network.0, "192.0.2.1");
    }
}

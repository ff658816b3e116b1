//! The PROXY protocol, versions 1 and 2: what a proxy that passes on bytes says of a client before the first of them. No I/O.
//!
//! The parser is strict, since a header that two programs read differently lets a client lie about who it is. It takes bytes as they
//! arrive, and looks at no more than [`MAX_HEADER`] of them.
//!
//! The specification: <https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

/// The longest header that is taken. Version 1 has 107 bytes at most; version 2 could have 64 KiB, and has some hundred.
pub(crate) const MAX_HEADER: usize = 4096;

/// With its line end (section 2.1).
const MAX_LINE: usize = 107;

const LINE_PREFIX: &[u8] = b"PROXY ";

/// Of version 2 (section 2.2).
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The signature, the command, the family and the length.
const FIXED: usize = SIGNATURE.len() + 4;

/// What is said of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proxied {
    /// Nothing: the proxy has connected for itself, or its client has no IP address.
    Unknown,
    Client {
        /// The client's address.
        source: SocketAddr,
        /// Where it has connected to.
        destination: SocketAddr,
        /// Whether by TLS, as far as it is told.
        is_secure: bool,
    },
}

/// Parses the header at the start of `input`: `None` while it is incomplete, else what it says and its length.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse(input: &[u8]) -> Result<Option<(Proxied, usize)>, &'static str> {
    if is_begun(input, LINE_PREFIX) {
        parse_line(input)
    } else if is_begun(input, SIGNATURE) {
        parse_binary(input)
    } else {
        Err("it does not begin with the PROXY protocol")
    }
}

/// Whether somebody speaks the protocol here.
pub(crate) fn is_spoken(input: &[u8]) -> bool {
    input.starts_with(LINE_PREFIX) || input.starts_with(SIGNATURE)
}

/// Whether `input` may become what begins like this.
fn is_begun(input: &[u8], prefix: &[u8]) -> bool {
    let length = input.len().min(prefix.len());
    input[..length] == prefix[..length]
}

/// Version 1: `PROXY TCP4 192.0.2.1 192.0.2.2 4711 80`.
fn parse_line(input: &[u8]) -> Result<Option<(Proxied, usize)>, &'static str> {
    const MALFORMED: &str = "its PROXY line is malformed";
    let seen = &input[..input.len().min(MAX_LINE)];
    let Some(end) = seen.windows(2).position(|pair| pair == b"\r\n") else {
        return if input.len() < MAX_LINE { Ok(None) } else { Err("its PROXY line has no end") };
    };
    let line = str::from_utf8(&input[LINE_PREFIX.len()..end]).map_err(|_| MALFORMED)?;
    let length = end + 2;
    // What follows it has to be ignored.
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Ok(Some((Proxied::Unknown, length)));
    }
    let (family, rest) = line.split_once(' ').ok_or(MALFORMED)?;
    let parts: Vec<&str> = rest.splitn(5, ' ').collect();
    let &[source, destination, source_port, destination_port] = &parts[..] else { return Err(MALFORMED) };
    let address = |ip: &str, port: &str| -> Option<SocketAddr> {
        let ip: IpAddr = match family {
            "TCP4" => ip.parse::<Ipv4Addr>().ok()?.into(),
            "TCP6" => ip.parse::<Ipv6Addr>().ok()?.into(),
            _ => return None,
        };
        Some((ip, parse_number::<u16>(port)?).into())
    };
    let source = address(source, source_port).ok_or(MALFORMED)?;
    let destination = address(destination, destination_port).ok_or(MALFORMED)?;
    Ok(Some((Proxied::Client { source, destination, is_secure: false }, length)))
}

/// Digits alone: no sign, and no zero before another digit.
pub(crate) fn parse_number<T: FromStr>(digits: &str) -> Option<T> {
    let is_number = digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    digits.parse().ok().filter(|_| is_number)
}

/// Version 2.
fn parse_binary(input: &[u8]) -> Result<Option<(Proxied, usize)>, &'static str> {
    let Some((fixed, rest)) = input.split_at_checked(FIXED) else { return Ok(None) };
    let [command, family] = [fixed[SIGNATURE.len()], fixed[SIGNATURE.len() + 1]];
    let length = usize::from(u16::from_be_bytes([fixed[FIXED - 2], fixed[FIXED - 1]]));
    if command >> 4 != 2 {
        return Err("the version of its PROXY header is neither 1 nor 2");
    }
    if FIXED + length > MAX_HEADER {
        return Err("its PROXY header is longer than 4096 bytes");
    }
    let Some(content) = rest.get(..length) else { return Ok(None) };
    let proxied = match command & 0xf {
        0 => Proxied::Unknown, // LOCAL, such as a health check: the rest has to be ignored
        1 => parse_content(family, content)?,
        _ => return Err("the command of its PROXY header is unknown"),
    };
    Ok(Some((proxied, FIXED + length)))
}

/// The addresses, and what is told beside them.
fn parse_content(family: u8, content: &[u8]) -> Result<Proxied, &'static str> {
    let addresses = match family {
        0x00 => 0,
        0x11 => 2 * 4 + 2 * 2,
        0x21 => 2 * 16 + 2 * 2,
        0x31 => 2 * 108, // paths of Unix sockets
        _ => return Err("its PROXY header is not of TCP or a Unix socket"),
    };
    let Some((addresses, told)) = content.split_at_checked(addresses) else {
        return Err("its PROXY header is shorter than its addresses");
    };
    let is_secure = parse_told(told)?;
    let (ips, ports) = addresses.split_at(addresses.len().saturating_sub(4));
    let (source, destination) = ips.split_at(ips.len() / 2);
    let (Some(source), Some(destination), true) =
        (ip(source), ip(destination), matches!(family, 0x11 | 0x21))
    else {
        return Ok(Proxied::Unknown);
    };
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    Ok(Proxied::Client {
        source: (source, port(0)).into(),
        destination: (destination, port(2)).into(),
        is_secure,
    })
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = || <[u8; 4]>::try_from(bytes).map(IpAddr::from).ok();
    v4().or_else(|| <[u8; 16]>::try_from(bytes).map(IpAddr::from).ok())
}

/// Of all that may be told beside the addresses (type, length and value of each), only whether the client uses TLS (section 2.2.6).
fn parse_told(mut told: &[u8]) -> Result<bool, &'static str> {
    const SSL: u8 = 0x20;
    const BY_SSL: u8 = 1;
    let mut is_secure = false;
    while !told.is_empty() {
        let value = told.split_at_checked(3).and_then(|(head, rest)| {
            let (value, rest) = rest.split_at_checked(u16::from_be_bytes([head[1], head[2]]).into())?;
            Some((head[0], value, rest))
        });
        let Some((kind, value, rest)) = value else { return Err("its PROXY header ends within a value") };
        if kind == SSL {
            is_secure |= value.first().ok_or("its PROXY header ends within a value")? & BY_SSL != 0;
        }
        told = rest;
    }
    Ok(is_secure)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn client(source: &str, destination: &str, is_secure: bool) -> Proxied {
        Proxied::Client {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            is_secure,
        }
    }

    fn binary(command: u8, family: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, content].concat()
    }

    /// The whole of it is needed, and what follows is left alone.
    fn assert_parsed(header: &[u8], expected: Proxied) {
        for end in 0..header.len() {
            assert_eq!(parse(&header[..end]), Ok(None), "{end} of {header:?}");
        }
        let with_rest = [header, b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(parse(&with_rest), Ok(Some((expected, header.len()))));
        assert!(is_spoken(header));
    }

    #[test]
    fn lines() {
        let v4 = client("192.0.2.1:4711", "198.51.100.1:80", false);
        assert_parsed(b"PROXY TCP4 192.0.2.1 198.51.100.1 4711 80\r\n", v4);
        let v6 = client("[2001:db8::1]:65535", "[::1]:0", false);
        assert_parsed(b"PROXY TCP6 2001:db8::1 ::1 65535 0\r\n", v6);
        assert_parsed(b"PROXY UNKNOWN\r\n", Proxied::Unknown);
        assert_parsed(b"PROXY UNKNOWN ffff:f...f:ffff whatever 1 2 3\r\n", Proxied::Unknown);
        let full = [&b"PROXY UNKNOWN "[..], &[b'x'; MAX_LINE - 16], b"\r\n"].concat();
        assert_parsed(&full, Proxied::Unknown);
    }

    #[test]
    fn malformed_lines_are_refused() {
        for bad in [
            "PROXY TCP4 192.0.2.1 198.51.100.1 4711 80 \r\n",
            "PROXY TCP4  192.0.2.1 198.51.100.1 4711 80\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 4711\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 4711 80 1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 04711 80\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 +4711 80\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 65536 80\r\n",
            "PROXY TCP4 192.0.2.01 198.51.100.1 4711 80\r\n",
            "PROXY TCP4 ::1 ::1 4711 80\r\n",
            "PROXY TCP6 192.0.2.1 198.51.100.1 4711 80\r\n",
            "PROXY TCP6 ::1%lo ::1 4711 80\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.1 4711 80\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY tcp4 192.0.2.1 198.51.100.1 4711 80\r\n",
            "PROXY \r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.1 4711 80\n\r\n",
            "PROXY TCP4\t192.0.2.1 198.51.100.1 4711 80\r\n",
            "PROXY TCP4 \u{ff11} 198.51.100.1 4711 80\r\n",
            "PROXY  ",
            "GET / HTTP/1.1\r\n",
            "\r\n\r\n\r\n",
            "proxy ",
            "\u{16}\u{3}\u{1}",
        ] {
            let parsed = parse(bad.as_bytes());
            assert!(parsed.is_err() || bad == "PROXY  " && parsed == Ok(None), "{bad:?}: {parsed:?}");
        }
        assert!(parse(&[b"PROXY UNKNOWN ", &[b'x'; MAX_LINE][..]].concat()).is_err(), "without an end");
        let late = [&b"PROXY UNKNOWN "[..], &[b'x'; MAX_LINE - 15], b"\r\n"].concat();
        assert!(parse(&late).is_err(), "one byte too long");
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 1, 0x12, 0x67, 0, 80];

    #[test]
    fn binary_headers() {
        let of = |is_secure| client("192.0.2.1:4711", "198.51.100.1:80", is_secure);
        assert_parsed(&binary(0x21, 0x11, &V4), of(false));
        let mut v6 = [0; 36];
        (v6[15], v6[31], v6[33]) = (1, 2, 9);
        assert_parsed(&binary(0x21, 0x21, &v6), client("[::1]:9", "[::2]:0", false));
        for (told, is_secure) in [
            (&[4, 0, 3, 1, 2, 3][..], false),     // NOOP
            (&[0x20, 0, 5, 1, 0, 0, 0, 0], true), // SSL
            (&[0x20, 0, 5, 0, 0, 0, 0, 0], false),
            (&[2, 0, 1, b'h', 0x20, 0, 5, 7, 0, 0, 0, 0, 4, 0, 0], true),
        ] {
            assert_parsed(&binary(0x21, 0x11, &[&V4, told].concat()), of(is_secure));
        }
        // Without an address of IP: itself, somebody who is not told, and a Unix socket.
        assert_parsed(&binary(0x20, 0x11, &V4), Proxied::Unknown);
        assert_parsed(&binary(0x20, 0, &[]), Proxied::Unknown);
        assert_parsed(&binary(0x20, 0xff, b"whatever"), Proxied::Unknown);
        assert_parsed(&binary(0x21, 0, &[]), Proxied::Unknown);
        assert_parsed(&binary(0x21, 0x31, &[b'/'; 216]), Proxied::Unknown);
        assert_parsed(&binary(0x20, 0, &vec![0; MAX_HEADER - FIXED]), Proxied::Unknown);
    }

    #[test]
    fn malformed_binary_headers_are_refused() {
        for bad in [
            binary(0x11, 0x11, &V4),       // version 1
            binary(0x22, 0x11, &V4),       // no such command
            binary(0x21, 0x12, &V4),       // UDP
            binary(0x21, 0x41, &V4),       // no such family
            binary(0x21, 0x11, &V4[..11]), // too short
            binary(0x21, 0x31, &[0; 215]),
            binary(0x21, 0x11, &[&V4[..], &[4, 0]].concat()), // ends within a value
            binary(0x21, 0x11, &[&V4[..], &[4, 0, 2, 1]].concat()),
            binary(0x21, 0x11, &[&V4[..], &[0x20, 0, 0]].concat()),
            binary(0x20, 0, &vec![0; MAX_HEADER - FIXED + 1]),
        ] {
            assert!(parse(&bad).is_err(), "{bad:?}");
        }
        // That it is too long is seen at its beginning.
        assert!(parse(&[SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat()).is_err());
    }

    proptest! {
        #[test]
        fn whatever_arrives_is_bounded_and_the_same_in_pieces(
            version in 0..3,
            command in any::<u8>(),
            family in prop_oneof![Just(0x11), Just(0x21), Just(0x31), any::<u8>()],
            content in vec(any::<u8>(), 0..300),
            line in "(TCP4|TCP6|UNKNOWN) ?[0-9a-f:. ]{0,110}(\r\n)?",
        ) {
            let input = match version {
                0 => content,
                1 => [LINE_PREFIX, line.as_bytes()].concat(),
                _ => binary(command, family, &content),
            };
            crate::fuzzing::proxied(&input);
        }

        #[test]
        fn what_is_written_is_read(source: SocketAddr, destination: SocketAddr, told in vec(any::<u8>(), 0..200)) {
            let [source, destination] = [source, destination].map(|address| SocketAddr::new(address.ip(), address.port()));
            let expected = Proxied::Client { source, destination, is_secure: false };
            let (family, addresses) = match (source.ip(), destination.ip()) {
                (IpAddr::V4(a), IpAddr::V4(b)) => ("TCP4", [a.octets(), b.octets()].concat()),
                (IpAddr::V6(a), IpAddr::V6(b)) => ("TCP6", [a.octets(), b.octets()].concat()),
                _ => return Ok(()),
            };
            let [from, to] = [source, destination].map(|address| address.port().to_be_bytes());
            let line =
                format!("PROXY {family} {} {} {} {}\r\n", source.ip(), destination.ip(), source.port(), destination.port());
            prop_assert_eq!(parse(line.as_bytes()), Ok(Some((expected, line.len()))));
            let length = u16::try_from(told.len()).unwrap().to_be_bytes();
            let content = [&addresses[..], &from, &to, &[0xe0], &length, &told].concat();
            let header = binary(0x21, if family == "TCP4" { 0x11 } else { 0x21 }, &content);
            prop_assert_eq!(parse(&header), Ok(Some((expected, header.len()))));
        }
    }
}

//! Hosts as requests, origins and settings name them; which ways to write one are the same, and which no stranger can own.
//! No I/O.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Names below these are never given out on the Internet (RFC 6761, 6762, 8375, and ICANN for `internal`), or, as for `lan`,
/// were never meant to be.
const LOCAL: [&str; 5] = [".localhost", ".local", ".lan", ".internal", ".home.arpa"];

/// Where a URL leads, without its scheme.
#[derive(Debug, Clone, Copy)]
pub(super) struct Host<'a> {
    pub(super) name: Name<'a>,
    /// `None`: the default of the scheme.
    pub(super) port: Option<u16>,
}

/// A name or an address. All ways to write one are equal: its case, a dot at its end, zeros in an address.
#[derive(Debug, Clone, Copy)]
pub(super) enum Name<'a> {
    Address(IpAddr),
    /// Without a dot at its end.
    Text(&'a str),
}

impl<'a> Host<'a> {
    /// A name or an address, with or without a port: no user, no scheme (RFC 9110, section 7.2).
    pub(super) fn parse(text: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (name, rest) = match text.strip_prefix('[') {
            Some(text) => {
                let (address, rest) = text.split_once(']')?;
                // The zone after a % is the client's own (RFC 6874).
                let address: Ipv6Addr = address.split('%').next()?.parse().ok()?;
                (Name::Address(address.into()), rest)
            }
            None => {
                let end = text.bytes().position(|b| !is_name(b)).unwrap_or(text.len());
                (Name::parse(&text[..end])?, &text[end..])
            }
        };
        let port = match rest.as_bytes() {
            [] | b":" => None,
            [b':', port @ ..] if port.iter().all(u8::is_ascii_digit) => Some(rest[1..].parse().ok()?),
            _ => return None,
        };
        Some(Self { name, port })
    }
}

impl<'a> Name<'a> {
    /// Of characters that all are [of a name](is_name).
    fn parse(name: &'a str) -> Option<Self> {
        let name = name.strip_suffix('.').unwrap_or(name);
        match parse_ipv4(name) {
            Some(address) => Some(Self::Address(address.into())),
            None => (!name.is_empty()).then_some(Self::Text(name)),
        }
    }

    /// Whether no stranger can own it: an address, or a name that has no meaning outside of this network.
    pub(super) fn is_local(&self) -> bool {
        let Self::Text(name) = self else { return true };
        let is_label = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        name.bytes().all(is_label) || LOCAL.iter().any(|suffix| self.is_below(suffix))
    }

    /// Whether it ends with this suffix, which begins with a dot.
    pub(super) fn is_below(&self, suffix: &str) -> bool {
        let Self::Text(name) = self else { return false };
        let start = name.len().checked_sub(suffix.len());
        start.is_some_and(|start| {
            start > 0 && name.as_bytes()[start..].eq_ignore_ascii_case(suffix.as_bytes())
        })
    }
}

/// Whether a name may contain it (`reg-name` of RFC 3986, section 3.2.2).
fn is_name(b: u8) -> bool {
    let is_punctuation = matches!(
        b,
        b'-' | b'.'
            | b'_'
            | b'~'
            | b'%'
            | b'!'
            | b'$'
            | b'&'
            | b'\''
            | b'('
            | b')'
            | b'*'
            | b'+'
            | b','
            | b';'
            | b'='
    );
    b.is_ascii_alphanumeric() || is_punctuation
}

/// As in a URL.
impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => address.fmt(f),
            Self::Text(name) => f.write_str(name),
        }
    }
}

impl PartialEq for Name<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Address(a), Self::Address(b)) => a == b,
            (Self::Text(a), Self::Text(b)) => a.eq_ignore_ascii_case(b),
            _ => false,
        }
    }
}

/// Also in the short forms, such as `127.1` and `0x7f000001`, which browsers and resolvers take for addresses, too.
fn parse_ipv4(text: &str) -> Option<Ipv4Addr> {
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let (mut address, mut count) = (0_u32, 0);
    let mut parts = text.split('.').peekable();
    while let Some(part) = parts.next() {
        let number = parse_number(part)?;
        let bits = if parts.peek().is_some() { 8 } else { 32 - 8 * count }; // the last part fills the rest
        if count > 3 || bits < 32 && number >> bits != 0 {
            return None;
        }
        address |= number.checked_shl(32 - 8 * count - bits)?;
        count += 1;
    }
    Some(address.into())
}

fn parse_number(part: &str) -> Option<u32> {
    let (digits, radix) = match part.as_bytes() {
        [b'0', b'x' | b'X', ..] => (&part[2..], 16),
        [b'0', _, ..] => (part, 8),
        _ => (part, 10),
    };
    // `from_str_radix` would take a sign.
    if digits.starts_with('+') { None } else { u32::from_str_radix(digits, radix).ok() }
}

/// Whether an address of this machine is one that only it, or only a private network, can reach. Pages of strangers can, too,
/// through a browser inside.
pub(super) fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let is_shared = matches!(v4.octets(), [100, 64..=127, _, _]); // RFC 6598: behind a provider's NAT, or of a VPN
            v4.is_loopback() || v4.is_private() || v4.is_link_local() || is_shared
        }
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Option<Name<'_>> {
        Host::parse(text.as_bytes()).map(|host| host.name)
    }

    #[test]
    fn a_host_is_a_name_or_an_address_with_an_optional_port() {
        for (text, port) in [
            ("h", None),
            ("h:", None),
            ("h:80", Some(80)),
            ("h.example.:65535", Some(65535)),
            ("[::1]", None),
            ("[::1]:8080", Some(8080)),
            ("[fe80::1%25eth0]:1", Some(1)),
            ("192.0.2.1:1", Some(1)),
            ("a_b-c", None),
        ] {
            assert_eq!(Host::parse(text.as_bytes()).map(|host| host.port), Some(port), "{text}");
        }
        for bad in [
            "", ":80", ".", "a b", "a/b", "u@h", "h:http", "h:80:80", "h:65536", "h:+1", "http://h", "[::1",
            "[h]", "::1", "[::1]x", "[::1]80", "a\"b", "ä", "a\tb", "[]",
        ] {
            assert!(Host::parse(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(Host::parse(b"h\xff").is_none());
    }

    #[test]
    fn all_ways_to_write_a_name_are_equal() {
        for (a, b) in [
            ("Box.Example", "box.example."),
            ("[::1]", "[0:0:0:0:0:0:0:1]"),
            ("[2001:DB8::a]", "[2001:db8:0::000A]"),
            ("127.0.0.1", "127.0.0.1."),
            ("127.0.0.1", "127.1"),
            ("127.0.0.1", "0x7f.1"),
            ("127.0.0.1", "0X7F000001"),
            ("127.0.0.1", "2130706433"),
            ("127.0.0.1", "0177.0.1"),
        ] {
            assert_eq!(name(a), name(b));
        }
        for (a, b) in
            [("a", "b"), ("a", "a.b"), ("127.0.0.1", "[::1]"), ("1.2.3.4", "1.2.3.5"), ("1.2.3", "1.2.0.4")]
        {
            assert_ne!(name(a), name(b));
        }
        for no_address in ["1.2.3.4.5", "256.1.1.1", "1.2.65536", "4294967296", "1..2", "0x", "08", "1.2.3.a"]
        {
            assert!(matches!(name(no_address), Some(Name::Text(_)) | None), "{no_address}");
        }
    }

    #[test]
    fn what_no_stranger_can_own() {
        for good in [
            "localhost",
            "LOCALHOST.",
            "box",
            "my_box-2",
            "app.localhost",
            "box.local",
            "box.LAN",
            "db.internal.",
            "a.home.arpa",
            "192.0.2.1",
            "127.1",
            "[2001:db8::1]",
        ] {
            assert!(name(good).unwrap().is_local(), "{good}");
        }
        for bad in [
            "evil.example",
            "localhost.evil.example",
            "evil.example.local.com",
            "mylocal.com",
            "xlan.de",
            "home.arpa.com",
            "127.0.0.1.nip.io",
            "1.2.3.4.5",
            "box.localdomain",
            "a,b",
            "a%2eb",
            ".local",
        ] {
            assert!(!name(bad).unwrap().is_local(), "{bad}");
        }
    }

    #[test]
    fn private_addresses() {
        let is_private = |text: &str| is_private(text.parse().unwrap());
        for good in [
            "127.0.0.1",
            "127.9.9.9",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.1.1",
            "100.64.0.1",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:127.0.0.1",
            "::ffff:192.168.0.1",
        ] {
            assert!(is_private(good), "{good}");
        }
        for bad in ["192.0.2.1", "172.32.0.1", "100.128.0.1", "2001:db8::1", "::ffff:8.8.8.8", "0.0.0.0"] {
            assert!(!is_private(bad), "{bad}");
        }
    }
}

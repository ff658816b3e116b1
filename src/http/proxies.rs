//! The proxies that are named in the settings: by an address, by a network, or as those that connect to a Unix socket. No I/O.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::forwarded::ProxyHeaders;
use crate::{error::ServerError, proxied::parse_number};

/// How the settings call whatever connects to a Unix socket: it has no address.
const UNIX: &str = "unix";

/// The networks of the proxies, an address being one by itself, and whether those are proxies that connect to a Unix socket.
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    networks: Vec<Network>,
    unix: bool,
    /// Where they say who their client is.
    pub(crate) headers: ProxyHeaders,
}

impl Proxies {
    /// # Errors
    /// [`ServerError::Config`] if it is neither an address nor a network nor `unix`.
    pub(crate) fn add(&mut self, proxy: &str) -> Result<(), ServerError> {
        if proxy == UNIX {
            self.unix = true;
            return Ok(());
        }
        let network = Network::parse(proxy).map_err(|why| {
            ServerError::config(format!(
                "{proxy:?} is no proxy: {why}; write its IP address, such as 10.0.0.2, a network, such as 10.0.0.0/8 or fd00::/8, \
                 or {UNIX} for all that connect to a Unix socket"
            ))
        })?;
        self.networks.push(network);
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    /// Whether the one at this address is. IPv4 may be written as IPv6.
    pub(crate) fn contains(&self, ip: &IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.networks.iter().any(|network| network.contains(ip))
    }

    /// Whether one is who connects to a Unix socket.
    pub(crate) fn is_any_on_unix(&self) -> bool {
        self.unix
    }
}

/// All addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    V4 { bits: u32, mask: u32 },
    V6 { bits: u128, mask: u128 },
}

impl Network {
    /// An address alone, or with the length of its prefix. Of IPv4, written as IPv6, at least `/96`.
    ///
    /// # Errors
    /// What is wrong with it.
    fn parse(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| "it begins with no IP address")?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.map_or(Some(longest), parse_number).filter(|&prefix| prefix <= longest);
        let prefix =
            prefix.ok_or_else(|| format!("behind the / there has to be a number up to {longest}"))?;
        let network = match (address, address.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(v4)) if prefix >= 96 => Self::v4(v4, prefix - 96),
            (IpAddr::V6(v6), _) => Self::v6(v6, prefix),
            (IpAddr::V4(v4), _) => Self::v4(v4, prefix),
        };
        let begun = network.beginning();
        // Whoever writes 10.1.2.3/8 may have meant the one or the other.
        if begun != address.to_canonical() {
            return Err(format!("that network begins at {begun}, not at {address}"));
        }
        Ok(network)
    }

    fn v4(address: Ipv4Addr, prefix: u32) -> Self {
        let mask = u32::MAX.checked_shl(32 - prefix).unwrap_or(0);
        Self::V4 { bits: address.to_bits() & mask, mask }
    }

    fn v6(address: Ipv6Addr, prefix: u32) -> Self {
        let mask = u128::MAX.checked_shl(128 - prefix).unwrap_or(0);
        Self::V6 { bits: address.to_bits() & mask, mask }
    }

    fn beginning(self) -> IpAddr {
        match self {
            Self::V4 { bits, .. } => Ipv4Addr::from_bits(bits).into(),
            Self::V6 { bits, .. } => IpAddr::from(Ipv6Addr::from_bits(bits)).to_canonical(),
        }
    }

    /// Of an address in its canonical form.
    fn contains(self, ip: IpAddr) -> bool {
        match (self, ip) {
            (Self::V4 { bits, mask }, IpAddr::V4(ip)) => ip.to_bits() & mask == bits,
            (Self::V6 { bits, mask }, IpAddr::V6(ip)) => ip.to_bits() & mask == bits,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(all: &[&str]) -> Proxies {
        let mut proxies = Proxies::default();
        all.iter().for_each(|proxy| proxies.add(proxy).unwrap());
        proxies
    }

    #[test]
    fn a_proxy_is_an_address_or_unix() {
        let mut proxies = proxies(&["10.0.0.1", "::1", "::ffff:10.0.0.2"]);
        for ip in ["10.0.0.1", "::1", "10.0.0.2", "::ffff:10.0.0.1"] {
            assert!(proxies.contains(&ip.parse().unwrap()), "{ip}");
        }
        assert!(!proxies.contains(&[10, 0, 0, 3].into()) && !proxies.is_any_on_unix());
        proxies.add("unix").unwrap();
        assert!(proxies.is_any_on_unix() && !proxies.is_empty() && Proxies::default().is_empty());
        for bad in ["", "example.com", "10.0.0.1:80", "[::1]", "unix:/run/s", "Unix", " ::1", "unix/8"] {
            let error = proxies.add(bad).unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
    }

    #[test]
    fn a_network_is_all_addresses_that_begin_like_it() {
        for (network, inside, outside) in [
            (
                "10.0.0.0/8",
                &["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"][..],
                &["11.0.0.0", "::a00:1"][..],
            ),
            ("192.0.2.128/25", &["192.0.2.128", "192.0.2.255"], &["192.0.2.127", "192.0.3.0"]),
            ("192.0.2.1/32", &["192.0.2.1"], &["192.0.2.0"]),
            ("0.0.0.0/0", &["1.2.3.4", "::ffff:1.2.3.4"], &["::1", "2001:db8::1"]),
            ("fd00::/8", &["fd00::1", "fdff::"], &["fe00::", "10.0.0.1"]),
            ("2001:db8::/33", &["2001:db8:7fff::1"], &["2001:db8:8000::1"]),
            ("::1/128", &["::1"], &["::2", "::"]),
            ("::/0", &["::1", "2001:db8::1"], &["1.2.3.4", "::ffff:1.2.3.4"]),
            ("::ffff:10.0.0.0/104", &["10.1.2.3", "::ffff:10.1.2.3"], &["11.0.0.0"]),
            ("::ffff:0:0/96", &["1.2.3.4"], &["::1"]),
        ] {
            let proxies = proxies(&[network]);
            let has = |ip: &&&str| proxies.contains(&ip.parse().unwrap());
            assert!(inside.iter().all(|ip| has(&ip)), "{network}");
            assert!(!outside.iter().any(|ip| has(&ip)), "{network}");
        }
    }

    #[test]
    fn what_is_no_network_is_told_what_to_write() {
        let told = |bad: &str| Proxies::default().add(bad).unwrap_err().to_string();
        for bad in [
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "::/129",
            "::/-1",
            "10.0.0.0/8/8",
            "/8",
        ] {
            assert!(told(bad).contains("10.0.0.0/8 or fd00::/8"), "{bad}");
        }
        for (bad, begins) in
            [("10.1.2.3/8", "10.0.0.0"), ("fd00::1/8", "fd00::"), ("::ffff:10.1.2.3/104", "10.0.0.0")]
        {
            assert!(told(bad).contains(&format!("begins at {begins}, not at")), "{}", told(bad));
        }
        // Longer than all of IPv4 in IPv6, but no IPv4: nobody has written this on purpose.
        assert!(Proxies::default().add("::ffff:0:0/90").is_err());
    }
}

//! The proxies that are trusted to say who the client is. No I/O.

use std::net::IpAddr;

use crate::error::ServerError;

/// How the settings call whatever connects to a Unix socket: it has no address.
const UNIX: &str = "unix";

/// The addresses of the proxies, and whether those are proxies that connect to a Unix socket.
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    addresses: Vec<IpAddr>,
    unix: bool,
}

impl Proxies {
    /// # Errors
    /// [`ServerError::Config`] if it is neither an address nor `unix`.
    pub(crate) fn add(&mut self, proxy: &str) -> Result<(), ServerError> {
        match proxy.parse::<IpAddr>() {
            Ok(ip) => self.addresses.push(ip.to_canonical()),
            Err(_) if proxy == UNIX => self.unix = true,
            Err(_) => {
                return Err(ServerError::config(format!(
                    "{proxy:?} is no proxy: write its IP address, such as 10.0.0.2, or {UNIX} for all that connect to a Unix socket"
                )));
            }
        }
        Ok(())
    }

    pub(crate) fn contains(&self, ip: &IpAddr) -> bool {
        self.addresses.contains(ip)
    }

    /// Whether one is who connects to a Unix socket.
    pub(super) fn is_any_on_unix(&self) -> bool {
        self.unix
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_an_address_or_unix() {
        let mut proxies = Proxies::default();
        for proxy in ["10.0.0.1", "::1", "::ffff:10.0.0.2"] {
            proxies.add(proxy).unwrap();
        }
        for ip in ["10.0.0.1", "::1", "10.0.0.2"] {
            assert!(proxies.contains(&ip.parse().unwrap()), "{ip}");
        }
        assert!(!proxies.contains(&[10, 0, 0, 3].into()) && !proxies.is_any_on_unix());
        proxies.add("unix").unwrap();
        assert!(proxies.is_any_on_unix());
        for bad in ["", "example.com", "10.0.0.0/8", "10.0.0.1:80", "[::1]", "unix:/run/s", "Unix", " ::1"] {
            let error = proxies.add(bad).unwrap_err().to_string();
            assert!(error.contains(&format!("{bad:?}")), "{error}");
        }
    }
}

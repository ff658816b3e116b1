//! What to do about an address that cannot be listened on.

use std::{
    fmt::Write,
    io,
    net::{Ipv6Addr, SocketAddr},
};

use rustix::io::Errno;

/// Below this one needs a right.
const FREE_PORTS: u16 = 1024;

/// Begins with what stands between it and the error; empty, if there is nothing to say.
pub(crate) fn on_binding(address: &str, e: &io::Error) -> String {
    let is_unix = address.starts_with("unix:");
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    let mut advice = String::new();
    let _ = match (Errno::from_io_error(e), port) {
        (Some(Errno::ADDRINUSE), _) if is_unix => {
            write!(advice, ": somebody listens there, or it is another kind of file (ls -l, ss -lxp)")
        }
        (Some(Errno::ADDRINUSE), Some(port)) => {
            write!(advice, ": another process has the port; ss -ltnp 'sport = :{port}' tells which one")
        }
        (Some(Errno::NOENT | Errno::NOTDIR), _) if is_unix => {
            write!(advice, ": its folder has to be there before (RuntimeDirectory= of systemd makes one)")
        }
        (Some(Errno::ACCESS | Errno::PERM), _) if is_unix => {
            write!(advice, ": this process may not write to its folder")
        }
        (Some(Errno::ACCESS | Errno::PERM), Some(1..FREE_PORTS)) => write!(
            advice,
            ": ports below {FREE_PORTS} take a right: AmbientCapabilities=CAP_NET_BIND_SERVICE or a socket of systemd, or setcap \
             cap_net_bind_service=+ep PROGRAM, or sysctl net.ipv4.ip_unprivileged_port_start=80"
        ),
        (Some(Errno::ADDRNOTAVAIL), _) => {
            write!(
                advice,
                ": this machine does not have the address; ip address lists those that it has, and 0.0.0.0 is all of them"
            )
        }
        (Some(Errno::AFNOSUPPORT), _) => write!(advice, ": this system has no IPv6"),
        _ => Ok(()), // a String takes all
    };
    advice
}

/// What is wrong with the form of an address, that a resolver would not tell.
pub(crate) fn on_form(address: &str) -> Option<String> {
    const FORM: &str = "write HOST:PORT or unix:PATH";
    if address.parse::<SocketAddr>().is_ok() {
        return None;
    }
    if let Some((scheme, rest)) = address.split_once("://") {
        let host = rest.split('/').next().unwrap_or_default();
        let tls = ["https", "wss"].contains(&scheme);
        let (default, option) = if tls { (443, ", with TLS (--tls-listen)") } else { (80, "") };
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let listen = if has_port || host.is_empty() { host.to_owned() } else { format!("{host}:{default}") };
        return Some(format!("it is a URL; where to listen is an address: {listen}{option}"));
    }
    if address.is_empty() {
        return Some(format!("it is empty: {FORM}"));
    }
    if address.contains(char::is_whitespace) {
        return Some(format!("there is a space in it: {FORM}"));
    }
    if address.matches(':').count() > 1 && !address.starts_with('[') {
        let split = address.rsplit_once(':').filter(|(host, _)| host.parse::<Ipv6Addr>().is_ok());
        let (host, port) = split.unwrap_or((address, "8080"));
        return Some(format!("an address of IPv6 is in brackets: [{host}]:{port}"));
    }
    if let Some(port) = address.strip_prefix(':') {
        return Some(format!(
            "{FORM}: 0.0.0.0:{port} for all addresses of IPv4, [::]:{port} with IPv6, 127.0.0.1:{port} for this machine alone"
        ));
    }
    if address.contains('/') {
        return Some(format!("{FORM}: a path has unix: before it, an address no path behind it"));
    }
    let Some((_, port)) = address.rsplit_once(':') else {
        return Some(match address.parse::<u16>() {
            Ok(port) => {
                format!("it is a port: write 0.0.0.0:{port}, or 127.0.0.1:{port} for this machine alone")
            }
            Err(_) => format!("it has no port: {FORM}, such as {address}:8080"),
        });
    };
    if !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_err() {
        return Some(format!("{port} is no port: they go up to 65535"));
    }
    if port.parse::<u16>().is_err() {
        return Some(format!("{port:?} is no port: {FORM}, such as 127.0.0.1:8080"));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_told_before_anybody_is_asked() {
        for (address, told) in [
            (":8080", "0.0.0.0:8080 for all"),
            ("8080", "0.0.0.0:8080, or 127.0.0.1:8080"),
            ("localhost", "such as localhost:8080"),
            ("", "it is empty"),
            ("http://box:8080/x", "an address: box:8080"),
            ("https://box", "an address: box:443, with TLS (--tls-listen)"),
            ("ws://", "it is a URL"),
            ("/run/socket", "unix: before it"),
            ("127.0.0.1:8080/echo", "no path behind it"),
            ("127.0.0.1:65536", "65536 is no port: they go up to 65535"),
            ("127.0.0.1:http", "\"http\" is no port"),
            ("127.0.0.1:", "\"\" is no port"),
            ("a b:80", "there is a space"),
            ("::1:8080", "[::1]:8080"),
            ("::", "[::]:8080"),
        ] {
            let text = on_form(address).unwrap_or_else(|| panic!("{address} is taken"));
            assert!(text.contains(told), "{address}: {text}");
        }
        for right in ["127.0.0.1:80", "[::1]:80", "localhost:0", "[::]:443", "a-b.example:1"] {
            assert_eq!(on_form(right), None, "{right}");
        }
    }

    #[test]
    fn what_the_system_refuses_is_told_with_what_to_do() {
        for (address, errno, told) in [
            ("0.0.0.0:443", Errno::ACCESS, "setcap"),
            ("127.0.0.1:8080", Errno::ADDRINUSE, "ss -ltnp 'sport = :8080'"),
            ("unix:/run/x", Errno::ADDRINUSE, "ss -lxp"),
            ("unix:/run/x/y", Errno::NOENT, "RuntimeDirectory="),
            ("unix:/run/x", Errno::ACCESS, "may not write to its folder"),
            ("192.0.2.1:80", Errno::ADDRNOTAVAIL, "ip address"),
        ] {
            let text = on_binding(address, &errno.into());
            assert!(text.starts_with(": ") && text.contains(told), "{address}: {text}");
        }
        assert_eq!(on_binding("0.0.0.0:8443", &Errno::ACCESS.into()), "");
        assert_eq!(on_binding("a:80", &io::Error::other("x")), "");
    }
}

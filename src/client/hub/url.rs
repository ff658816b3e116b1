//! Where a management listener is, out of a URL.

use super::HubError;
use crate::client::url::{Place, Target};

/// Where its links are.
const PATH: &str = "/@hub";

/// The URL of its WebSocket.
///
/// # Errors
/// It is not the URL of a management listener. `has_token`: one is to be sent there.
pub(super) fn websocket_url(url: &str, has_token: bool) -> Result<String, HubError> {
    let refuse = |text: &str| HubError::Config(format!("{url:?}: {text}").into());
    let no_slashes = || refuse("the scheme is followed by //");
    let (scheme, rest) = url.split_once(':').unwrap_or((url, ""));
    let url = match scheme.to_ascii_lowercase().as_str() {
        "unix" | "ws+unix" if rest.contains(":/") => {
            return Err(refuse("behind the path of the socket there is nothing"));
        }
        "unix" | "ws+unix" => format!("unix:{}:{PATH}", rest.strip_suffix(':').unwrap_or(rest)),
        "http" | "ws" => format!("ws://{}{PATH}", host(rest).ok_or_else(no_slashes)?),
        "https" | "wss" => format!("wss://{}{PATH}", host(rest).ok_or_else(no_slashes)?),
        _ => {
            return Err(refuse(
                "a management listener is at unix:/path/to/socket, http://127.0.0.1:port or https://host:port",
            ));
        }
    };
    if rest.contains(['?', '#', '@']) && !url.starts_with("unix:") {
        return Err(refuse(
            "it has a scheme, a host, a port, and nothing else; for the token there is HubBuilder::token_file",
        ));
    }
    let target = Target::parse(&url).map_err(|text| refuse(&text))?;
    match &target.place {
        Place::Tcp(host, _) if has_token && !target.is_secure && !is_loopback(host) => Err(refuse(
            "the token would be sent in the clear: others on the way could read it; use https://, or a tunnel to 127.0.0.1",
        )),
        _ => Ok(url),
    }
}

/// What follows the scheme, without the slashes around it.
fn host(rest: &str) -> Option<&str> {
    Some(rest.strip_prefix("//")?.trim_end_matches('/'))
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_to_a_management_listener() {
        for (url, websocket) in [
            ("unix:/run/box.sock", "unix:/run/box.sock:/@hub"),
            ("unix:box.sock", "unix:box.sock:/@hub"),
            ("ws+unix:/run/box.sock:", "unix:/run/box.sock:/@hub"),
            ("http://127.0.0.1:9090", "ws://127.0.0.1:9090/@hub"),
            ("HTTP://localhost:9090/", "ws://localhost:9090/@hub"),
            ("ws://[::1]:9090", "ws://[::1]:9090/@hub"),
            ("https://box.example", "wss://box.example/@hub"),
            ("wss://box.example/boxes/7", "wss://box.example/boxes/7/@hub"),
        ] {
            assert_eq!(websocket_url(url, true).unwrap(), websocket, "{url}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (url, part) in [
            ("", "unix:/path/to/socket"),
            ("/run/box.sock", "unix:/path/to/socket"),
            ("ftp://h", "unix:/path/to/socket"),
            ("unix:", "path of a socket"),
            ("unix:/run/a.sock:/x", "nothing"),
            ("http:h", "//"),
            ("http://", "no host"),
            ("http://127.0.0.1:1/?token=x", "token_file"),
            ("http://x:y@127.0.0.1:1/", "token_file"),
            ("http://192.0.2.1:9090", "in the clear"),
            ("http://box.example", "in the clear"),
        ] {
            let error = websocket_url(url, true).unwrap_err();
            assert!(matches!(&error, HubError::Config(text) if text.contains(part)), "{url}: {error}");
        }
        websocket_url("http://192.0.2.1:9090", false).unwrap();
    }
}

//! Why there is no connection, as people and scripts are told.

use switchboard::header::{LOCATION, PROXY_AUTHENTICATE, RETRY_AFTER, WWW_AUTHENTICATE};
use switchboard::{ClientError, HandshakeResponse};

use crate::command::{
    codes::{NO_CONNECTION, REFUSED, TIMED_OUT, USAGE},
    escaped::escaped,
};

/// Of what a refusal says, so much is shown.
const LINES: usize = 10;
const CHARACTERS: usize = 1000;

/// The exit code.
pub(super) fn code(error: &ClientError) -> u8 {
    match error {
        ClientError::Config(_) => USAGE,
        ClientError::Proxy(_) | ClientError::Refused(_) | ClientError::Handshake(_) => REFUSED,
        ClientError::Timeout(_) => TIMED_OUT,
        _ => NO_CONNECTION,
    }
}

/// What is said: the error, and below it what the server has said.
pub(super) fn told(error: &ClientError) -> String {
    let mut told = escaped(&error.to_string());
    if let Some(response) = error.response() {
        for line in headers(response).into_iter().chain(body(response.body())) {
            told.push_str("\n  ");
            told.push_str(&line);
        }
    }
    if matches!(error, ClientError::Tls(_)) {
        told.push_str("\n  (--ca FILE trusts a CA of your own, --insecure any server)");
    }
    told
}

/// Those that say what to do.
fn headers(response: &HandshakeResponse) -> Vec<String> {
    let told = |name| {
        let values = response.headers().get_all(&name).iter();
        values
            .map(|value| format!("{name}: {}", escaped(&String::from_utf8_lossy(value.as_bytes()))))
            .collect::<Vec<_>>()
    };
    [LOCATION, WWW_AUTHENTICATE, PROXY_AUTHENTICATE, RETRY_AFTER].into_iter().flat_map(told).collect()
}

/// The beginning of the body.
fn body(body: &[u8]) -> Vec<String> {
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        // It may be cut within a character.
        Err(e) if body.len() - e.valid_up_to() < 4 => {
            std::str::from_utf8(&body[..e.valid_up_to()]).unwrap_or_default()
        }
        Err(_) => return vec![format!("({} bytes that are no text)", body.len())],
    };
    let text = text.trim();
    let (shown, is_cut) = match text.char_indices().nth(CHARACTERS) {
        Some((end, _)) => (&text[..end], true),
        None => (text, false),
    };
    let mut lines = shown.lines().map(str::trim_end);
    let mut told: Vec<_> = lines.by_ref().take(LINES).map(escaped).collect();
    if is_cut || lines.next().is_some() {
        told.push("…".into());
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_body_is_shown() {
        assert!(body(b"").is_empty() && body(b"\r\n \n").is_empty());
        assert_eq!(body(b"no\r\n\x1b[2Jroom\n"), ["no", "\\u{1b}[2Jroom"]);
        assert_eq!(body("gr\u{f6}\u{df}e".as_bytes().split_last().unwrap().1), ["gr\u{f6}\u{df}"]);
        assert_eq!(body("grö".as_bytes().split_last().unwrap().1), ["gr"]);
        assert_eq!(body(b"\x1f\x8b\x08\x00\xff\xff\xff"), ["(7 bytes that are no text)"]);
        let lines = body("x\n".repeat(20).as_bytes());
        assert_eq!((lines.len(), lines.last().map(String::as_str)), (LINES + 1, Some("…")));
        let long = body("x".repeat(5000).as_bytes());
        assert_eq!((long[0].len(), long[1].as_str()), (CHARACTERS, "…"));
    }
}

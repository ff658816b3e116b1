//! The head of a response: its lines, and those that all responses have in common, such as a content security policy.

use http::{HeaderName, HeaderValue, StatusCode, header};

use super::header::header_line;
use crate::error::ServerError;

/// Bytes of all of them. A response that nobody has time to wait for has to fit an empty send buffer, and proxies refuse heads
/// that are much longer.
const MAX_BYTES: usize = 16 * 1024;

/// The lines of all responses, in the order in which they were added.
#[derive(Debug, Default)]
pub(crate) struct CommonHeaders(Vec<(HeaderName, HeaderValue)>);

impl CommonHeaders {
    /// Adds a line.
    ///
    /// # Errors
    /// [`ServerError::Config`] for what cannot be a header, and for those that are the server's to set.
    pub(crate) fn add(
        &mut self,
        name: impl TryInto<HeaderName> + AsRef<[u8]>,
        value: impl TryInto<HeaderValue>,
    ) -> Result<(), ServerError> {
        let given = String::from_utf8_lossy(name.as_ref()).into_owned();
        let (name, value) = header_line(name, value).map_err(ServerError::config)?;
        if is_ours(&name) {
            return Err(ServerError::config(format!(
                "header {given}: the server sets it itself, for each response"
            )));
        }
        self.0.push((name, value));
        let bytes: usize = self.0.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
        if bytes > MAX_BYTES {
            return Err(ServerError::config(format!(
                "header {given}: all together would have more than {MAX_BYTES} bytes"
            )));
        }
        Ok(())
    }

    pub(crate) fn contains(&self, name: &HeaderName) -> bool {
        self.0.iter().any(|(other, _)| other == name)
    }

    /// Appends those that the response has not set itself. Of `Vary` both count: what we vary says nothing about the others.
    pub(super) fn write(&self, is_set: impl Fn(&HeaderName) -> bool, head: &mut Vec<u8>) {
        for (name, value) in &self.0 {
            if *name == header::VARY || !is_set(name) {
                push_line(name, value.as_bytes(), head);
            }
        }
    }
}

/// What frames a message or belongs to the connection, and what says something about one body.
fn is_ours(name: &HeaderName) -> bool {
    const OURS: [HeaderName; 12] = [
        header::CONNECTION,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::DATE,
        header::ETAG,
        header::LAST_MODIFIED,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    OURS.contains(name)
        || name.as_str().starts_with("sec-websocket-")
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

/// Appends the status line, and reserves memory for a usual head.
pub(super) fn begin_head(status: StatusCode, head: &mut Vec<u8>) {
    head.reserve(512);
    let reason = status.canonical_reason().unwrap_or_default();
    for part in ["HTTP/1.1 ", status.as_str(), " ", reason, "\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
}

/// Appends a header line.
pub(super) fn push_line(name: &HeaderName, value: &[u8], head: &mut Vec<u8>) {
    for part in [name.as_str().as_bytes(), b": ", value, b"\r\n"] {
        head.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_in_every_response_is_taken() {
        let mut headers = CommonHeaders::default();
        let mut refusal = |name: &str, value: &str| headers.add(name, value).unwrap_err().to_string();
        for name in [
            "Content-Length",
            "connection",
            "Upgrade",
            "TRANSFER-ENCODING",
            "Date",
            "Sec-WebSocket-Accept",
            "Sec-WebSocket-Anything",
            "Keep-Alive",
            "ETag",
        ] {
            let refusal = refusal(name, "x");
            assert!(refusal.contains(name) && refusal.contains("sets it itself"), "{refusal}");
        }
        for (name, value) in [("a b", "x"), ("x-a", "a\r\nb: c"), ("x-a", "\0")] {
            assert!(refusal(name, value).contains(name), "{name:?}");
        }
        assert!(refusal("x-a", &"a".repeat(MAX_BYTES)).contains("16384"));
    }

    #[test]
    fn each_is_written_unless_the_response_has_its_own() {
        let mut headers = CommonHeaders::default();
        headers.add("X-A", "1").unwrap();
        headers.add(header::VARY, "origin").unwrap();
        headers.add("x-a", HeaderValue::from_static("2")).unwrap();
        let written = |is_set: fn(&HeaderName) -> bool| {
            let mut head = Vec::new();
            headers.write(is_set, &mut head);
            String::from_utf8(head).unwrap()
        };
        assert_eq!(written(|_| false), "x-a: 1\r\nvary: origin\r\nx-a: 2\r\n");
        assert_eq!(written(|_| true), "vary: origin\r\n");
    }
}

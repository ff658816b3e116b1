//! Responses: pages and refusals, and their encoding as bytes. No I/O.

use std::{borrow::Cow, fmt, fs::File};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

/// A plain HTTP response. The connection is closed after it.
///
/// ```
/// use switchboard::{Response, StatusCode};
/// let page = Response::html("<p>hello</p>").with_header("cache-control", "no-store");
/// let error = Response::text(StatusCode::CONFLICT, "somebody was faster");
/// # assert_eq!(page.status(), 200); assert_eq!(error.status(), 409);
/// ```
#[derive(Debug)]
pub struct Response {
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
}

#[derive(Debug)]
pub(crate) enum Body {
    Bytes(Bytes),
    /// This many bytes of a file, from its current position.
    File(File, u64),
}

impl Response {
    /// Status 200, with this body and content type, such as `application/json`.
    ///
    /// # Panics
    /// If the content type is not a valid header value.
    pub fn new(content_type: &str, body: impl Into<Bytes>) -> Self {
        Self::with_body(content_type, Body::Bytes(body.into()))
    }

    /// Status 200, with HTML in UTF-8.
    pub fn html(body: impl Into<String>) -> Self {
        Self::new("text/html; charset=utf-8", body.into())
    }

    /// Any status, with plain text in UTF-8.
    pub fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self::new("text/plain; charset=utf-8", body.into()).with_status(status)
    }

    pub(crate) fn with_body(content_type: &str, body: Body) -> Self {
        let response = Self { status: StatusCode::OK, headers: HeaderMap::new(), body };
        response.with_header("content-type", content_type).with_header("x-content-type-options", "nosniff")
    }

    /// Sets the status.
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Sets a header line; it replaces earlier ones of the same name.
    ///
    /// # Panics
    /// If the name or the value is not valid in a header.
    pub fn with_header(mut self, name: &str, value: &str) -> Self {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a valid header name");
        self.headers.insert(name, HeaderValue::from_str(value).expect("a valid header value"));
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The header lines.
    pub fn headers_mut(&mut self) -> &mut HeaderMap {
        &mut self.headers
    }

    /// The bytes of the head, and the body to be sent after it.
    pub(crate) fn into_parts(mut self) -> (Vec<u8>, Body) {
        let length = match &self.body {
            Body::Bytes(bytes) => bytes.len() as u64,
            Body::File(_, length) => *length,
        };
        self.headers.insert(header::CONTENT_LENGTH, length.into());
        self.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        (encode_head(self.status, &self.headers), self.body)
    }
}

/// The status line and the header lines (RFC 9112, section 2.1).
fn encode_head(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let mut head = Vec::new();
    begin_head(status, &mut head);
    for (name, value) in headers {
        push_line(name, value.as_bytes(), &mut head);
    }
    head.extend_from_slice(b"\r\n");
    head
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

/// The refusal of an opening handshake: an HTTP status, and one line that says why.
///
/// ```
/// use switchboard::{Refusal, StatusCode};
/// let refusal = Refusal::new(StatusCode::FORBIDDEN, "members only");
/// assert_eq!(refusal.to_string(), "403 Forbidden: members only");
/// ```
#[derive(Debug, Clone)]
pub struct Refusal {
    status: StatusCode,
    reason: Cow<'static, str>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Refusal {
    /// The reason is sent to the client, so it must not contain secrets.
    pub fn new(status: StatusCode, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { status, reason: reason.into(), headers: Vec::new() }
    }

    /// Adds a header line, such as `WWW-Authenticate`.
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.reason)
    }
}

impl From<StatusCode> for Refusal {
    fn from(status: StatusCode) -> Self {
        Self::new(status, "refused")
    }
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Self {
        let mut response = Self::text(refusal.status, format!("{refusal}\n"));
        response.headers.extend(refusal.headers.into_iter().map(|(name, value)| (Some(name), value)));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_one_line_with_its_status() {
        let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "no")
            .with_header(header::ALLOW, HeaderValue::from_static("GET"));
        let (head, Body::Bytes(body)) = Response::from(refusal).into_parts() else { panic!() };
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{head}");
        assert!(head.contains("allow: GET\r\n") && head.contains("connection: close\r\n"));
        assert_eq!(body, "405 Method Not Allowed: no\n");
    }
}

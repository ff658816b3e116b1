//! What the other end has answered.

use http::{HeaderMap, StatusCode, header};

/// The response to an opening handshake: of a [`Client`](crate::Client) that is connected the 101, of a
/// [refused](crate::ClientError::Refused) one what came in its place.
#[derive(Clone, Debug)]
pub struct HandshakeResponse {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
}

impl HandshakeResponse {
    /// The status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The header lines. Their values are whatever the server has sent.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The first line of this header, if it is visible ASCII.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// What a refusal says, as it was sent: at most its first 8 KiB, and what of it came within two seconds. Empty for the response of
    /// a connected client, and where it is compressed, it still is.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Where a redirect leads. It is not followed: the other place may not be one to trust with what the request holds.
    pub fn location(&self) -> Option<&str> {
        self.status.is_redirection().then(|| self.header(header::LOCATION.as_str())).flatten()
    }
}

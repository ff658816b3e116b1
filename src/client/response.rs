//! What the other end has answered.

use std::time::Duration;

use http::{HeaderMap, HeaderName, StatusCode, header};

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

    /// For how long the server does not want to be asked again (`Retry-After`), in whole seconds or by a date. That is compared with
    /// the `Date` of the response, not with the system's clock, which may be years behind; so without a `Date` it says nothing.
    pub fn retry_after(&self) -> Option<Duration> {
        let text = self.header(header::RETRY_AFTER.as_str())?.trim();
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX))); // RFC 9110, section 10.2.3
        }
        let date = |name: HeaderName| httpdate::parse_http_date(self.header(name.as_str())?.trim()).ok();
        let until = date(header::RETRY_AFTER)?;
        // Whoever has a clock to send a date by sends this one (RFC 9110, section 6.6.1).
        Some(until.duration_since(date(header::DATE)?).unwrap_or_default())
    }

    /// Where a redirect leads. It is not followed: the other place may not be one to trust with what the request holds.
    pub fn location(&self) -> Option<&str> {
        self.status.is_redirection().then(|| self.header(header::LOCATION.as_str())).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let of = |lines: &[(HeaderName, &str)]| {
            let headers = lines.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
            HandshakeResponse { status: StatusCode::SERVICE_UNAVAILABLE, headers, body: Vec::new() }
                .retry_after()
        };
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(of(&[(header::RETRY_AFTER, "120")]), seconds(120));
        assert_eq!(of(&[(header::RETRY_AFTER, &"9".repeat(30))]), seconds(u64::MAX));
        for bad in ["", "-1", "1.5", "soon", "+3"] {
            assert_eq!(of(&[(header::RETRY_AFTER, bad)]), None, "{bad}");
        }
        assert_eq!(of(&[]), None);
        // The clock of this machine has no part in it.
        let (date, later) = ("Tue, 15 Nov 1994 08:12:31 GMT", "Tue, 15 Nov 1994 08:13:01 GMT");
        assert_eq!(of(&[(header::RETRY_AFTER, later), (header::DATE, date)]), seconds(30));
        assert_eq!(of(&[(header::RETRY_AFTER, date), (header::DATE, later)]), seconds(0));
        assert_eq!(of(&[(header::RETRY_AFTER, "Fri, 15 Nov 2999 08:13:01 GMT")]), None);
    }
}

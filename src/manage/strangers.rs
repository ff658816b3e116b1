//! Bodies that have to be received before it is known who sends them: those of requests that are signed, where only the body itself
//! tells what was signed. Together they hold a part only of what bodies may, so that strangers leave room for those who are known.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use http::header;

use super::answers::later;
use crate::http::{Refusal, Request};

#[derive(Debug)]
pub(super) struct Strangers {
    /// Bytes that there is room for.
    room: AtomicUsize,
    /// What a body may have.
    max_body: usize,
}

/// Room for one body, until this is dropped.
#[derive(Debug)]
pub(super) struct Room<'a> {
    strangers: &'a Strangers,
    bytes: usize,
}

impl Strangers {
    /// At least one body of any length has room.
    pub(super) fn new(bytes: usize, max_body: usize) -> Self {
        Self { room: AtomicUsize::new(bytes.max(max_body)), max_body }
    }

    /// Room for the body of this request.
    ///
    /// # Errors
    /// 503: there is none just now. Who says in the head what the digest of the body is needs none.
    pub(super) fn admit(&self, request: &Request) -> Result<Room<'_>, Refusal> {
        let is_chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
        let length = || request.header("content-length")?.parse().ok();
        // What is larger is refused when it is to be received.
        let bytes = if is_chunked { self.max_body } else { length().unwrap_or(0).min(self.max_body) };
        match self.room.fetch_update(Relaxed, Relaxed, |room| room.checked_sub(bytes)) {
            Ok(_) => Ok(Room { strangers: self, bytes }),
            Err(_) => Err(later("too many bodies are received of which it is not known who sends them")),
        }
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.strangers.room.fetch_add(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::parse_head;

    #[test]
    fn bodies_have_room_until_they_are_checked() {
        let strangers = Strangers::new(1000, 600);
        let request = |line: &str| {
            let head = format!("POST / HTTP/1.1\r\nHost: h\r\n{line}\r\n");
            parse_head(head.as_bytes(), 1000).unwrap().unwrap().0
        };
        let admit = |line: &str| strangers.admit(&request(line));
        let large = admit("Content-Length: 600\r\n").unwrap();
        let small = admit("Content-Length: 400\r\n").unwrap();
        assert_eq!(admit("Content-Length: 1\r\n").unwrap_err().status(), 503);
        assert!(admit("").is_ok(), "without a body no room is needed");
        drop(small);
        assert!(admit("Transfer-Encoding: chunked\r\n").is_err(), "it may have any length");
        assert!(admit("Content-Length: 99999999\r\n").is_err());
        drop(large);
        assert!(admit("Transfer-Encoding: chunked\r\n").is_ok());
        assert_eq!(strangers.room.into_inner(), 1000);
        assert!(Strangers::new(10, 600).admit(&request("Content-Length: 600\r\n")).is_ok());
    }
}

//! Plain HTTP: raw requests, and parsed responses.

use std::io::{Read, Write};

use super::{Scheme, TestServer, read_head};

/// A whole response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl TestServer {
    /// Sends a raw request on a connection of its own, and reads the response.
    pub fn ask(&self, scheme: Scheme, request: impl AsRef<[u8]>) -> Reply {
        ask(&mut self.raw(scheme), request)
    }

    /// Asks for a page.
    pub fn get(&self, scheme: Scheme, path: &str) -> Reply {
        self.ask(scheme, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }
}

/// Sends a raw request, and reads the response.
pub fn ask(stream: &mut (impl Read + Write), request: impl AsRef<[u8]>) -> Reply {
    let request = request.as_ref();
    stream.write_all(request).unwrap();
    if request.starts_with(b"HEAD ") { Reply::read_head(stream) } else { Reply::read(stream) }
}

impl Reply {
    /// Reads a response. If it ends the connection, reads to the end of the stream, which must not be a reset. Of a 101, and of
    /// other responses without a body, reads only the head.
    pub fn read(stream: &mut impl Read) -> Self {
        let mut reply = Self::read_head(stream);
        let length = reply.header("content-length").map(|length| length.parse().unwrap());
        if reply.closes() && reply.status != 101 {
            stream.read_to_end(&mut reply.body).unwrap();
            assert!(length.is_none_or(|length: usize| length == reply.body.len()), "{reply:?}");
        } else if let Some(length) = length {
            reply.body.resize(length, 0);
            stream.read_exact(&mut reply.body).unwrap();
        }
        reply
    }

    /// Reads only the head.
    pub fn read_head(stream: &mut impl Read) -> Self {
        let head = read_head(stream);
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap_or_default();
        let status = status.parse().unwrap_or_else(|_| panic!("no response: {head}"));
        Self { status, head, body: Vec::new() }
    }

    /// Whether the server ends the connection after it.
    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.split(", ").any(|option| option == "close"))
    }

    /// The first header line of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers(name).first().copied()
    }

    /// All header lines of that name.
    pub fn headers(&self, name: &str) -> Vec<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    pub fn head(&self) -> &str {
        &self.head
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Checks a refusal: one line of text. Returns the line.
    pub fn refusal(&self) -> &str {
        assert!(self.status >= 300, "not refused: {self:?}");
        assert!(self.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{self:?}");
        assert_eq!(self.header("content-length"), Some(self.body.len().to_string().as_str()), "{self:?}");
        let line = self.text().strip_suffix('\n').unwrap_or_else(|| panic!("not a line: {self:?}"));
        assert!(!line.contains(['\r', '\n']), "more than a line: {self:?}");
        line
    }
}

//! Plain HTTP: raw requests, and parsed responses.

use std::io::{Read, Write};

use super::{Scheme, Stream, TestServer};

/// A whole response.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    head: String,
    pub body: Vec<u8>,
}

impl TestServer {
    /// Sends a raw request, and reads the response to the end of the stream.
    pub fn ask(&self, scheme: Scheme, request: impl AsRef<[u8]>) -> Reply {
        let mut stream = self.raw(scheme);
        stream.write_all(request.as_ref()).unwrap();
        Reply::read(&mut stream)
    }

    /// Asks for a page.
    pub fn get(&self, scheme: Scheme, path: &str) -> Reply {
        self.ask(scheme, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }
}

impl Reply {
    /// Reads a response to the end of the stream, which must not be a reset. Of a 101, reads only the head.
    pub fn read(stream: &mut Stream) -> Self {
        let head = stream.read_head();
        let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).unwrap_or_default();
        let status = status.parse().unwrap_or_else(|_| panic!("no response: {head}"));
        let mut reply = Self { status, head, body: Vec::new() };
        if status != 101 {
            stream.read_to_end(&mut reply.body).unwrap();
        }
        reply
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

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// Checks a refusal: one line of text, and the end of the connection. Returns the line.
    pub fn refusal(&self) -> &str {
        assert!(self.status >= 300, "not refused: {self:?}");
        assert!(self.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{self:?}");
        assert_eq!(self.header("content-length"), Some(self.body.len().to_string().as_str()), "{self:?}");
        assert!(self.header("connection").is_some_and(|options| options.ends_with("close")), "{self:?}");
        let line = self.text().strip_suffix('\n').unwrap_or_else(|| panic!("not a line: {self:?}"));
        assert!(!line.contains(['\r', '\n']), "more than a line: {self:?}");
        line
    }
}

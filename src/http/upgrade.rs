//! The client's side of the opening handshake (RFC 6455, section 4.1): the request, and whether a response answers it. No I/O.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::{
    body::{Decoder, Framing},
    head::push_line,
    header::{header_map, items},
};

/// Header lines of a response.
const MAX_HEADERS: usize = 100;

/// What a client asks for.
#[derive(Debug)]
pub(crate) struct Upgrade<'a> {
    /// Of the header.
    pub(crate) host: &'a str,
    /// With the query.
    pub(crate) path: &'a str,
    /// 16 random bytes in base64.
    pub(crate) key: &'a str,
    pub(crate) subprotocols: &'a [String],
    pub(crate) extensions: Option<&'a str>,
    /// What the program adds.
    pub(crate) headers: &'a [(HeaderName, HeaderValue)],
}

/// The head of a response.
#[derive(Debug)]
pub(crate) struct ResponseHead {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    is_http_11: bool,
}

impl Upgrade<'_> {
    /// Appends the request. Names are written as most do: there are servers that look for nothing else.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let mut line = |parts: &[&str]| parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
        line(&["GET ", self.path, " HTTP/1.1\r\n"]);
        if !self.headers.iter().any(|(name, _)| name == header::HOST) {
            line(&["Host: ", self.host, "\r\n"]);
        }
        line(&["Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: ", self.key]);
        line(&["\r\nSec-WebSocket-Version: 13\r\n"]);
        if !self.subprotocols.is_empty() {
            line(&["Sec-WebSocket-Protocol: ", &self.subprotocols.join(", "), "\r\n"]);
        }
        if let Some(extensions) = self.extensions {
            line(&["Sec-WebSocket-Extensions: ", extensions, "\r\n"]);
        }
        self.headers.iter().for_each(|(name, value)| push_line(name, value.as_bytes(), out));
        out.extend_from_slice(b"\r\n");
    }

    /// Whether a 101 answers this, all but for extensions. Returns the subprotocol that the server has chosen.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check(&self, head: &ResponseHead) -> Result<Option<String>, String> {
        if !head.is_http_11 {
            return Err("the answer is of HTTP/1.0".into());
        }
        let one = |name: HeaderName| {
            let mut lines = head.headers.get_all(name).iter();
            lines.next().filter(|_| lines.next().is_none()).map(|line| line.as_bytes().trim_ascii())
        };
        if !one(header::UPGRADE).is_some_and(|value| value.eq_ignore_ascii_case(b"websocket")) {
            return Err("the answer has no Upgrade: websocket".into());
        }
        let mut connection = items(&head.headers, header::CONNECTION, b',');
        if !connection.any(|item| item.eq_ignore_ascii_case(b"upgrade")) {
            return Err("the answer has no Connection: Upgrade".into());
        }
        let accept = tungstenite::handshake::derive_accept_key(self.key.as_bytes());
        match one(header::SEC_WEBSOCKET_ACCEPT) {
            Some(value) if value == accept.as_bytes() => {}
            Some(_) => return Err("the answer has a wrong Sec-WebSocket-Accept".into()),
            None => return Err("the answer has not one Sec-WebSocket-Accept".into()),
        }
        self.check_subprotocol(head)
    }

    fn check_subprotocol(&self, head: &ResponseHead) -> Result<Option<String>, String> {
        let mut lines = head.headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).iter();
        let Some(chosen) = lines.next() else { return Ok(None) };
        let offered = self.subprotocols.iter().find(|offered| offered.as_bytes() == chosen.as_bytes());
        match (offered, lines.next()) {
            (Some(offered), None) => Ok(Some(offered.clone())),
            (_, Some(_)) => Err("the server has chosen two subprotocols".into()),
            (None, None) => Err("the server has chosen a subprotocol that was not offered".into()),
        }
    }
}

impl ResponseHead {
    /// The head of a response, if it has arrived, and how many bytes it has.
    ///
    /// # Errors
    /// It is none, or with the `before` bytes of others longer than `max` bytes.
    pub(crate) fn parse(input: &[u8], before: usize, max: usize) -> Result<Option<(Self, usize)>, String> {
        let mut lines = vec![httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut head = httparse::Response::new(&mut lines);
        let room = max.saturating_sub(before);
        let length = match head.parse(&input[..input.len().min(room)]) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if input.len() < room => return Ok(None),
            Ok(httparse::Status::Partial) => {
                return Err(format!("the head of the answer has more than {max} bytes"));
            }
            Err(httparse::Error::TooManyHeaders) => {
                return Err(format!("the answer has more than {MAX_HEADERS} header lines"));
            }
            // Each record of TLS begins with its kind and the version (RFC 8446, section 5.1).
            Err(_) if matches!(input, [0x14..=0x17, 3, ..]) => {
                return Err("the answer is not HTTP but TLS, as of a port for wss://".into());
            }
            Err(e) => return Err(format!("the answer is not HTTP: {e}")),
        };
        let status = head.code.and_then(|code| StatusCode::from_u16(code).ok());
        let status = status.ok_or("the answer has no status")?;
        let headers = header_map(head.headers)?;
        Ok(Some((Self { status, headers, is_http_11: head.version == Some(1) }, length)))
    }

    /// What finds the body of a response. `None`: it ends with the stream.
    pub(crate) fn body(&self) -> Option<Decoder> {
        // RFC 9112, section 6.3
        if self.status.is_informational()
            || matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        {
            return Some(Decoder::new(Framing::Length(0)));
        }
        let mut codings = items(&self.headers, header::TRANSFER_ENCODING, b',');
        if let Some(coding) = codings.next() {
            return coding.eq_ignore_ascii_case(b"chunked").then(|| Decoder::new(Framing::Chunked));
        }
        let length = self.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()?;
        Some(Decoder::new(Framing::Length(length)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: keep-alive, upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n";

    fn upgrade(subprotocols: &[String]) -> Upgrade<'_> {
        let key = "dGhlIHNhbXBsZSBub25jZQ==";
        Upgrade {
            host: "h:1",
            path: "/x?y",
            key,
            subprotocols,
            extensions: Some("permessage-deflate"),
            headers: &[],
        }
    }

    fn check(answer: &str) -> Result<Option<String>, String> {
        let offered = ["superchat".to_owned(), "chat".to_owned()];
        let (head, length) = ResponseHead::parse(answer.as_bytes(), 0, 10_000)?.ok_or("incomplete")?;
        assert_eq!(length, answer.len());
        upgrade(&offered).check(&head)
    }

    #[test]
    fn the_request_is_one_that_our_server_takes() {
        let mut request = Vec::new();
        let added = [(header::AUTHORIZATION, HeaderValue::from_static("Bearer x"))];
        Upgrade { headers: &added, ..upgrade(&["chat".to_owned()]) }.write(&mut request);
        let text = String::from_utf8(request.clone()).unwrap();
        let (parsed, length) = crate::http::parse_head(&request, 10_000).unwrap().unwrap();
        assert_eq!((parsed.path(), length), ("/x", request.len()));
        assert!(crate::http::Handshake::check(&parsed, &crate::http::Origins::Any).is_ok(), "{text}");
        assert!(
            text.starts_with(
                "GET /x?y HTTP/1.1\r\nHost: h:1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            )
        );
        assert!(text.ends_with("authorization: Bearer x\r\n\r\n"));
        let mut request = Vec::new();
        let host = [(header::HOST, HeaderValue::from_static("another"))];
        Upgrade { headers: &host, ..upgrade(&[]) }.write(&mut request);
        let text = String::from_utf8(request).unwrap();
        assert!(
            text.contains("host: another") && !text.contains("h:1") && !text.contains("Protocol"),
            "{text}"
        );
    }

    #[test]
    fn an_answer_that_keeps_all_rules_is_taken() {
        assert_eq!(check(GOOD), Ok(Some("chat".into())));
        assert_eq!(check(&GOOD.replace("Sec-WebSocket-Protocol: chat\r\n", "")), Ok(None));
        assert!(ResponseHead::parse(&GOOD.as_bytes()[..100], 0, 10_000).unwrap().is_none());
    }

    #[test]
    fn each_rule_is_checked() {
        for (from, to, part) in [
            ("HTTP/1.1", "HTTP/1.0", "HTTP/1.0"),
            ("HTTP/1.1", "SIP/2.0", "not HTTP"),
            ("Upgrade: WebSocket", "Upgrade: h2c", "Upgrade: websocket"),
            ("Upgrade: WebSocket", "Upgrade: websocket, h2c", "Upgrade: websocket"),
            ("Upgrade: WebSocket\r\n", "", "Upgrade: websocket"),
            ("keep-alive, upgrade", "keep-alive", "Connection: Upgrade"),
            ("s3pP", "S3pP", "wrong Sec-WebSocket-Accept"),
            ("Sec-WebSocket-Accept: s", "X: s", "not one"),
            ("Sec-WebSocket-Accept", "Sec-WebSocket-Accept: x\r\nSec-WebSocket-Accept", "not one"),
            ("Protocol: chat", "Protocol: other", "not offered"),
            ("Protocol: chat", "Protocol: Chat", "not offered"),
            ("Protocol: chat", "Protocol: chat, superchat", "not offered"),
            ("Protocol: chat", "Protocol: chat\r\nSec-WebSocket-Protocol: chat", "two"),
            ("Upgrade: WebSocket", "Up grade: WebSocket", "not HTTP"),
        ] {
            assert!(GOOD.contains(from));
            let error = check(&GOOD.replace(from, to)).unwrap_err();
            assert!(error.contains(part), "{from} as {to}: {error}");
        }
    }

    #[test]
    fn some_responses_have_no_body_whatever_they_say() {
        for status in ["101", "204", "304"] {
            let head = format!("HTTP/1.1 {status} x\r\nContent-Length: 5\r\n\r\n");
            let (head, _) = ResponseHead::parse(head.as_bytes(), 0, 500).unwrap().unwrap();
            let next = head.body().unwrap().next(b"");
            assert!(
                !matches!(next, Ok(crate::http::Part::Incomplete | crate::http::Part::Data(_))),
                "{status}"
            );
        }
    }

    #[test]
    fn a_head_has_a_bound() {
        let endless = format!("HTTP/1.1 101 x\r\n{}", "a: b\r\n".repeat(1000));
        assert!(ResponseHead::parse(endless.as_bytes(), 0, 500).unwrap_err().contains("500 bytes"));
        assert!(ResponseHead::parse(endless.as_bytes(), 0, 100_000).unwrap_err().contains("100 header"));
    }
}

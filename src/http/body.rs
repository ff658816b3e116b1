//! The body of a request: how it is delimited, and its bytes out of what is received (RFC 9112, sections 6 and 7). No I/O.
//!
//! What two programs could understand differently is refused: one of them may be a proxy that has let the request pass.

use http::{StatusCode, header};

use super::{request::Request, response::Refusal};

/// The longest line with the size of a chunk, extensions included. Nobody uses those.
const MAX_LINE: usize = 256;

/// All header lines after the last chunk.
const MAX_TRAILERS: usize = 4096;
const MAX_TRAILER_LINES: usize = 32;

/// How a request's body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After so many bytes; mostly there are none.
    Length(u64),
    Chunked,
}

impl Framing {
    /// What the head says (RFC 9112, section 6.3).
    pub(crate) fn of(request: &Request) -> Result<Self, Refusal> {
        let headers = request.headers();
        let has_length = headers.contains_key(header::CONTENT_LENGTH);
        if !headers.contains_key(header::TRANSFER_ENCODING) {
            return if has_length { content_length(request) } else { Ok(Self::Length(0)) };
        }
        if has_length {
            return Err(bad("Content-Length and Transfer-Encoding exclude each other"));
        }
        if request.is_http_10() {
            return Err(bad("HTTP/1.0 has no Transfer-Encoding"));
        }
        transfer_encoding(request)
    }
}

fn content_length(request: &Request) -> Result<Framing, Refusal> {
    let mut lines = request.headers().get_all(header::CONTENT_LENGTH).iter();
    let (Some(length), None) = (lines.next(), lines.next()) else {
        return Err(bad("there must be one Content-Length"));
    };
    let digits = length.to_str().unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad("Content-Length is not a number"));
    }
    // It is one, so it can only be too large.
    digits
        .parse()
        .map(Framing::Length)
        .map_err(|_| Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "Content-Length is too large"))
}

fn transfer_encoding(request: &Request) -> Result<Framing, Refusal> {
    let lines = request.headers().get_all(header::TRANSFER_ENCODING).iter();
    let codings: Vec<&[u8]> =
        lines.flat_map(|line| line.as_bytes().split(|&b| b == b',')).map(<[u8]>::trim_ascii).collect();
    let is_chunked = |coding: &&[u8]| coding.eq_ignore_ascii_case(b"chunked");
    match codings.as_slice() {
        [only] if is_chunked(only) => Ok(Framing::Chunked),
        [others @ .., last] if is_chunked(last) && !others.iter().any(is_chunked) => {
            Err(Refusal::new(StatusCode::NOT_IMPLEMENTED, "of Transfer-Encoding only chunked is supported"))
        }
        _ => Err(bad("Transfer-Encoding must end with chunked, once")),
    }
}

/// Finds the body in what is received.
#[derive(Debug)]
pub(crate) struct Decoder(State);

#[derive(Debug)]
enum State {
    /// Without chunks: so many bytes are still to come.
    Whole(u64),
    /// The line with the size of the next chunk.
    Size,
    /// So many bytes of a chunk are still to come.
    Chunk(u64),
    /// The end of the line after a chunk.
    ChunkEnd,
    /// What follows the last chunk.
    Trailers,
    End,
}

/// What is next in the input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// So many bytes of the body.
    Data(usize),
    /// So many bytes that are not of the body.
    Other(usize),
    /// More has to be received.
    Incomplete,
    /// The body is complete.
    End,
}

impl Decoder {
    pub(crate) fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::Length(length) => State::Whole(length),
            Framing::Chunked => State::Size,
        })
    }

    /// How many bytes are still to come, if that is known.
    pub(crate) fn left(&self) -> Option<u64> {
        match self.0 {
            State::Whole(left) => Some(left),
            State::End => Some(0),
            _ => None,
        }
    }

    /// Looks at the input. What is found there counts as taken.
    pub(crate) fn next(&mut self, input: &[u8]) -> Result<Part, Refusal> {
        match &mut self.0 {
            State::Whole(0) | State::End => {
                self.0 = State::End;
                Ok(Part::End)
            }
            State::Whole(left) => Ok(data(left, input)),
            State::Chunk(left) => {
                let part = data(left, input);
                if *left == 0 {
                    self.0 = State::ChunkEnd;
                }
                Ok(part)
            }
            State::Size => self.size(input),
            State::ChunkEnd => match input {
                [b'\r', b'\n', ..] => self.other(2, State::Size),
                [] | [b'\r'] => Ok(Part::Incomplete),
                _ => Err(bad("a chunk is longer than it says")),
            },
            State::Trailers => self.trailers(input),
        }
    }

    fn other(&mut self, length: usize, next: State) -> Result<Part, Refusal> {
        self.0 = next;
        Ok(Part::Other(length))
    }

    fn size(&mut self, input: &[u8]) -> Result<Part, Refusal> {
        let malformed = || bad("malformed chunk size");
        // Without a digit `httparse` would take it for the last chunk.
        if input.first().is_some_and(|b| !b.is_ascii_hexdigit()) {
            return Err(malformed());
        }
        let line = &input[..input.len().min(MAX_LINE)];
        match httparse::parse_chunk_size(line).map_err(|_| malformed())? {
            httparse::Status::Partial if line.len() == MAX_LINE => {
                Err(bad("a chunk's extension is too long"))
            }
            httparse::Status::Partial => Ok(Part::Incomplete),
            // A line feed alone would be the end of the line for others.
            httparse::Status::Complete((length, _)) if line[..length - 2].contains(&b'\n') => {
                Err(malformed())
            }
            httparse::Status::Complete((length, 0)) => self.other(length, State::Trailers),
            httparse::Status::Complete((length, size)) => self.other(length, State::Chunk(size)),
        }
    }

    /// They are checked and thrown away (RFC 9112, section 7.1.2).
    fn trailers(&mut self, input: &[u8]) -> Result<Part, Refusal> {
        let lines = &input[..input.len().min(MAX_TRAILERS)];
        match httparse::parse_headers(lines, &mut vec![httparse::EMPTY_HEADER; MAX_TRAILER_LINES]) {
            Ok(httparse::Status::Complete((length, _))) if is_crlf(&lines[..length]) => {
                self.other(length, State::End)
            }
            Ok(httparse::Status::Partial) if lines.len() < MAX_TRAILERS => Ok(Part::Incomplete),
            _ => Err(bad("malformed header lines after the last chunk")),
        }
    }
}

fn data(left: &mut u64, input: &[u8]) -> Part {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    *left -= length as u64;
    if length == 0 { Part::Incomplete } else { Part::Data(length) }
}

/// Whether no line ends with a line feed alone.
fn is_crlf(lines: &[u8]) -> bool {
    lines.split_inclusive(|&b| b == b'\n').all(|line| line.ends_with(b"\r\n"))
}

fn bad(why: &'static str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, why)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::parse_head;

    fn framing(lines: &str) -> Result<Framing, u16> {
        let version = if lines.contains("1.0") { "1.0" } else { "1.1" };
        let head = format!("POST / HTTP/{version}\r\nHost: h\r\n{}\r\n", lines.replace("1.0", ""));
        let request = parse_head(head.as_bytes(), 10_000).unwrap().unwrap().0;
        Framing::of(&request).map_err(|refusal| refusal.status().as_u16())
    }

    #[test]
    fn how_long_a_body_is() {
        assert_eq!(framing(""), Ok(Framing::Length(0)));
        assert_eq!(framing("Content-Length: 0\r\n"), Ok(Framing::Length(0)));
        assert_eq!(framing("content-length:  0042 \r\n"), Ok(Framing::Length(42)));
        assert_eq!(framing("Transfer-Encoding: Chunked\r\n"), Ok(Framing::Chunked));
    }

    #[test]
    fn what_can_be_understood_in_two_ways_is_refused() {
        for lines in [
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            "Transfer-Encoding: identity\r\nContent-Length: 3\r\n",
            "Content-Length: 3\r\nContent-Length: 3\r\n",
            "Content-Length: 3\r\nContent-Length: 4\r\n",
            "Content-Length: 3, 3\r\n",
            "Content-Length: +3\r\n",
            "Content-Length: -3\r\n",
            "Content-Length: 0x3\r\n",
            "Content-Length: 3 3\r\n",
            "Content-Length: 3.0\r\n",
            "Content-Length:\r\n",
            "Content-Length: \u{ff13}\r\n",
            "Transfer-Encoding: chunked, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
            "Transfer-Encoding: \u{a0}chunked\r\n",
            "Transfer-Encoding: chunked;q=1\r\n",
            "Transfer-Encoding: chunked,\r\n",
            "Transfer-Encoding:\r\n",
            "Transfer-Encoding: chunked\r\n1.0",
        ] {
            assert_eq!(framing(lines), Err(400), "{lines}");
        }
        assert_eq!(framing("Transfer-Encoding: gzip, chunked\r\n"), Err(501));
        assert_eq!(framing("Content-Length: 99999999999999999999\r\n"), Err(413));
    }

    /// The body, and how much of the input it took; `None` if it is not complete.
    fn decode(decoder: &mut Decoder, mut input: &[u8], body: &mut Vec<u8>) -> Result<Option<usize>, Refusal> {
        let whole = input.len();
        loop {
            let length = match decoder.next(input)? {
                Part::Data(length) => {
                    body.extend_from_slice(&input[..length]);
                    length
                }
                Part::Other(length) => length,
                Part::Incomplete => return Ok(None),
                Part::End => return Ok(Some(whole - input.len())),
            };
            input = &input[length..];
        }
    }

    fn chunked(input: &str) -> Result<Option<(String, usize)>, u16> {
        let mut body = Vec::new();
        let taken = decode(&mut Decoder::new(Framing::Chunked), input.as_bytes(), &mut body);
        let taken = taken.map_err(|refusal| refusal.status().as_u16())?;
        Ok(taken.map(|taken| (String::from_utf8(body).unwrap(), taken)))
    }

    #[test]
    fn chunks() {
        for (input, body) in [
            ("0\r\n\r\n", ""),
            ("3\r\nabc\r\n0\r\n\r\n", "abc"),
            ("3;name=value\r\nabc\r\nA ; x\r\n0123456789\r\n000\r\n\r\n", "abc0123456789"),
            ("1\r\na\r\n0\r\nx: y\r\nz: 1\r\n\r\n", "a"),
        ] {
            let with_more = format!("{input}GET /");
            assert_eq!(chunked(&with_more), Ok(Some((body.to_owned(), input.len()))), "{input}");
            for end in 0..input.len() {
                assert_eq!(chunked(&input[..end]), Ok(None), "{input:?} until {end}");
            }
        }
    }

    #[test]
    fn malformed_chunks_are_refused() {
        let long = format!("3;{}", "x".repeat(1 << 20));
        let trailers = format!("0\r\n{}", "x: y\r\n".repeat(1000));
        let endless = format!("0\r\nx: {}", "y".repeat(1 << 20));
        for input in [
            "\r\n\r\n",
            "\n",
            ";x\r\n",
            " 3\r\nabc\r\n",
            "+3\r\nabc\r\n",
            "0x3\r\nabc\r\n",
            "-3\r\nabc\r\n",
            "3\nabc\n0\n\n",
            "3\rabc",
            "3;x\nabc\r\n0\r\n\r\n",
            "3;\"\n\"\r\nabc\r\n0\r\n\r\n",
            "3\r\nabcd\r\n",
            "3\r\nabc0\r\n\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "3\r\nabc\r\r\n0\r\n\r\n",
            "g\r\n",
            "11111111111111111\r\n",
            "3 3\r\nabc\r\n",
            "0\r\nno colon\r\n\r\n",
            "0\r\nx: y\n\r\n",
            "0\r\nx: y\r\n\n",
            "0\r\n\n",
            "0\r\nx: y\r\n folded\r\n\r\n",
            &long,
            &trailers,
            &endless,
        ] {
            assert_eq!(chunked(input), Err(400), "{:?}", &input[..input.len().min(50)]);
        }
        // A size that is announced takes no memory.
        assert_eq!(chunked("ffffffffffffffff\r\nabc"), Ok(None));
    }

    proptest! {
        /// The same for what may be no body at all.
        #[test]
        fn any_bytes(first: u8, input in "([0-3]|3abc|[;\\r\\n x:]|\\r\\n){0,40}") {
            crate::fuzzing::body(&[&[first][..], input.as_bytes()].concat());
        }

        /// However a body is cut, it is the same.
        #[test]
        fn any_cut(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..10),
            cuts in prop::collection::vec(1..20usize, 1..50),
        ) {
            let whole = chunks.concat();
            let mut sent = Vec::new();
            for chunk in &chunks {
                sent.extend_from_slice(format!("{:x};e\r\n", chunk.len()).as_bytes());
                sent.extend_from_slice(chunk);
                sent.extend_from_slice(b"\r\n");
            }
            sent.extend_from_slice(b"0\r\nt: u\r\n\r\n");
            let plain = (Framing::Length(whole.len() as u64), whole.clone());
            for (framing, sent) in [plain, (Framing::Chunked, sent)] {
                let (mut decoder, mut input, mut body) = (Decoder::new(framing), Vec::new(), Vec::new());
                let mut rest = &sent[..];
                let mut cuts = cuts.iter().cycle();
                loop {
                    match decoder.next(&input).unwrap() {
                        Part::Data(length) => body.extend(input.drain(..length)),
                        Part::Other(length) => drop(input.drain(..length)),
                        Part::End => break,
                        Part::Incomplete => {
                            prop_assert!(!rest.is_empty());
                            let (some, more) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
                            input.extend_from_slice(some);
                            rest = more;
                        }
                    }
                }
                prop_assert!(input.is_empty() && rest.is_empty() && body == whole);
            }
        }
    }
}

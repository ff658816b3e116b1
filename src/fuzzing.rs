//! What the fuzz targets in `fuzz/` call, and a unit test with the inputs in `tests/corpus/`.
//!
//! Each function takes any bytes and panics if a promise is broken.

use std::collections::VecDeque;

use bytes::Bytes;
use flate2::{Decompress, FlushDecompress};
use http::header;

#[cfg(feature = "__wire")]
use crate::wire::{self, Answer, Frames, HEADER, Hello, Request, append, decode_request};
use crate::{
    codec::{Codec, Deflate, Direction, Event, Failure, Role, Stream, Work},
    compression::Compression,
    http::{CommonHeaders, Decoder, Framing, Handshake, Origins, Part, parse_head},
    limits::Limits,
    message::{CloseCode, Message},
    proxied,
};

const MAX_HEAD: usize = 4096;

/// The head of a request: it is parsed in the same way however it arrives, and its answer is a response.
pub fn head(input: &[u8]) {
    let whole = parse_head(input, MAX_HEAD);
    let Ok(Some((request, length))) = whole else { return };
    assert!(length <= input.len());
    for end in [length - 1, length / 2] {
        assert!(matches!(parse_head(&input[..end], MAX_HEAD), Ok(None)), "complete before its end");
    }
    let (again, same) =
        parse_head(&input[..length], MAX_HEAD).ok().flatten().expect("the same without what follows");
    assert_eq!((again.path(), same), (request.path(), length));
    let path = request.path();
    assert!(!path.contains('\0') && !["//", "/./", "/../"].iter().any(|odd| path.contains(odd)), "{path:?}");
    request.query_value("room");
    request.cookie("session");
    let Ok(handshake) = Handshake::check(&request, &Origins::SameHost) else { return };
    for compression in [Compression::Pooled, Compression::Dedicated { window_bits: 10, level: 1 }] {
        let offers = request.headers().get_all(header::SEC_WEBSOCKET_EXTENSIONS);
        let (deflate, extensions) = compression.negotiate(offers).unzip();
        if let Some(deflate) = deflate {
            assert!((9..=15).contains(&deflate.ours.window_bits));
            assert!((8..=15).contains(&deflate.theirs.window_bits));
        }
        let mut response = Vec::new();
        handshake.respond(None, extensions.as_deref(), &[], &CommonHeaders::default(), &mut response);
        let mut lines = [httparse::EMPTY_HEADER; 16];
        let mut parsed = httparse::Response::new(&mut lines);
        assert!(parsed.parse(&response).expect("a response").is_complete());
    }
}

/// The header of the PROXY protocol: it ends where it ends, however it arrives, and is bounded.
pub fn proxied(input: &[u8]) {
    let whole = proxied::parse(input);
    match whole {
        Ok(None) => assert!(input.len() < proxied::MAX_HEADER, "it waits for ever"),
        Ok(Some((_, length))) => {
            assert!(length <= input.len().min(proxied::MAX_HEADER) && proxied::is_spoken(input));
            for end in [length - 1, length / 2] {
                assert_eq!(proxied::parse(&input[..end]), Ok(None), "complete before its end");
            }
            assert_eq!(proxied::parse(&input[..length]), whole);
        }
        // What was wrong once does not become right.
        Err(_) => assert!(proxied::parse(&[input, b"\r\n"].concat()).is_err()),
    }
}

/// The body of a request: it is the same however it is cut, or malformed however it is cut.
pub fn body(input: &[u8]) {
    let Some((&first, input)) = input.split_first() else { return };
    let framing = if first & 1 == 0 { Framing::Chunked } else { Framing::Length(u64::from(first) * 2) };
    let at_once = decode_body(framing, &mut [input].into_iter());
    let in_pieces = decode_body(framing, &mut input.chunks(usize::from(first / 2).max(1)));
    assert_eq!(at_once, in_pieces);
}

/// What is found, and whether it is complete. `None`: it is malformed.
fn decode_body(framing: Framing, pieces: &mut dyn Iterator<Item = &[u8]>) -> Option<(Vec<u8>, bool)> {
    let (mut decoder, mut received, mut found) = (Decoder::new(framing), Vec::new(), Vec::new());
    loop {
        match decoder.next(&received).ok()? {
            Part::Data(length) => found.extend(received.drain(..length)),
            Part::Other(length) => drop(received.drain(..length)),
            Part::End => return Some((found, true)),
            Part::Incomplete => match pieces.next() {
                Some(more) => received.extend_from_slice(more),
                None => return Some((found, false)),
            },
        }
    }
}

/// A message of a link, or the body of one of its frames: whatever it says is the same when it is said again.
#[cfg(feature = "__wire")]
pub fn link(input: &[u8]) {
    let whole = Bytes::copy_from_slice(input);
    say_again(&whole, &whole);
    for frame in Frames::of(&whole) {
        match frame {
            Ok((_, body)) => say_again(body, &whole),
            Err(_) => break,
        }
    }
    if let Ok(hello) = Hello::decode(input) {
        assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
    }
}

#[cfg(feature = "__wire")]
fn say_again(body: &[u8], whole: &Bytes) {
    let mut frame = Vec::new();
    if let Ok(Some(request)) = decode_request(body) {
        append(&mut frame, 1, &request).expect("short enough");
        assert_eq!(decode_request(&frame[HEADER..]), Ok(Some(request.clone())));
        if let Request::Push { payload, .. } | Request::Write { payload, .. } = request {
            let _ = payload.payload(whole);
        }
    }
    frame.clear();
    if let Ok(answer) = wire::decode::<Answer<'_>>(body) {
        append(&mut frame, 1, &answer).expect("short enough");
        assert_eq!(wire::decode::<Answer<'_>>(&frame[HEADER..]).as_ref(), Ok(&answer));
        if let Answer::Delivery(delivery) = answer {
            let _ = delivery.data.message(whole);
        }
    }
}

/// Frames of a client, or of a server: what is received is the same however they are cut.
pub fn frames(input: &[u8]) {
    any_cut(input, None);
}

/// The same, compressed.
pub fn deflate(input: &[u8]) {
    let Some((&first, rest)) = input.split_first() else { return };
    any_cut(rest, Some(agreed(first)));
}

/// The codec as a connection uses it: whatever is received, the output is well-formed and complete.
pub fn codec(input: &[u8]) {
    let Some((&first, mut input)) = input.split_first() else { return };
    let deflate = (first & 1 != 0).then(|| agreed(first >> 1));
    let mut codec = Codec::new(Role::Server, Stream::plain(), &limits(), deflate);
    let mut client = Client { deflate, ..Client::default() };
    while let Some((&step, rest)) = input.split_first() {
        let (argument, rest) = rest.split_at(rest.len().min(usize::from(step >> 3) * 8));
        input = rest;
        match step & 7 {
            // Half of the steps receive.
            0..=3 => {
                codec.stream().feed(&mut argument.to_vec()).expect("plain");
                loop {
                    let waiting = codec.has_whole_message();
                    match codec.next(&mut Work::of(usize::MAX)) {
                        Ok(Some(Event::Close(..))) => client.ending = true,
                        Ok(Some(_)) => assert!(waiting || deflate.is_some(), "nothing whole was there"),
                        Ok(None) => break,
                        Err(failure) => {
                            codec.close(failure.code, &failure.text);
                            client.ending = true;
                            break;
                        }
                    }
                    if client.ending {
                        break;
                    }
                }
            }
            4 if !client.ending => {
                let message = Message::from(argument.repeat(8));
                client.expected.push_back(message.clone());
                let outgoing = match deflate {
                    Some(deflate) => deflate.prepare(message, 16, None),
                    None => message.into(),
                };
                codec.encode_now(outgoing);
            }
            5 if !client.ending => codec.ping([7; 8]),
            6 => {
                codec.close(CloseCode(1000 + u16::from(step >> 3)), &String::from_utf8_lossy(argument));
                client.ending = true;
            }
            _ => codec.park(true),
        }
        client.receive(codec.stream());
        if client.ending {
            break; // a connection sends nothing after its close frame
        }
    }
    assert!(client.expected.is_empty(), "not all was sent");
}

fn limits() -> Limits {
    let mut limits = Limits::default();
    (limits.max_message_size, limits.max_frame_size) = (5000, 4000);
    limits.min_compressed_size = 16;
    limits
}

fn agreed(bits: u8) -> Deflate {
    Deflate {
        ours: Direction { window_bits: 9 + (bits >> 2) % 7, no_context_takeover: bits & 1 != 0 },
        theirs: Direction { window_bits: 8 + (bits >> 2) % 8, no_context_takeover: bits & 2 != 0 },
        level: 1 + (bits >> 4) % 9,
    }
}

fn any_cut(input: &[u8], deflate: Option<Deflate>) {
    any_cut_as(Role::Server, input, deflate);
    any_cut_as(Role::Client, input, deflate.map(Deflate::of_peer));
}

fn any_cut_as(role: Role, input: &[u8], deflate: Option<Deflate>) {
    let Some((&first, input)) = input.split_first() else { return };
    let decode = |chunk, together, piece| decode(role, input, chunk, together, piece, deflate);
    // Short messages one by one, or as many as there are together; all at once, or in pieces of work.
    let whole = decode(input.len(), usize::MAX, usize::MAX);
    let cut = decode(1 + usize::from(first), usize::from(first % 4), 1 + usize::from(first) * 100);
    let bytewise = decode(1, 0, 1);
    let in_pieces = decode(input.len(), 0, 1);
    for other in [cut, bytewise, in_pieces] {
        assert_eq!(whole.events, other.events);
        // Which of several mistakes in a compressed message is found first depends on how it was cut.
        let code = |outcome: &Outcome| {
            outcome.failure.as_ref().map(|failure| if deflate.is_some() { 0 } else { failure.code.0 })
        };
        assert_eq!(code(&whole), code(&other));
        if deflate.is_none() || whole.failure.is_none() {
            assert_eq!(whole.output.len(), other.output.len());
            // A client's output has other masks each time.
            assert!(role == Role::Client || whole.output == other.output);
        }
    }
}

#[derive(Debug)]
struct Outcome {
    events: Vec<Event>,
    failure: Option<Failure>,
    output: Vec<u8>,
}

/// Decodes `input` in pieces of `chunk` bytes and of `piece` work, with up to `together` short messages taken at once.
fn decode(
    role: Role,
    input: &[u8],
    chunk: usize,
    together: usize,
    piece: usize,
    deflate: Option<Deflate>,
) -> Outcome {
    let mut codec = Codec::new(role, Stream::plain(), &limits(), deflate);
    let (mut events, mut failure) = (Vec::new(), None);
    'all: for chunk in input.chunks(chunk.max(1)) {
        codec.stream().feed(&mut chunk.to_vec()).expect("plain");
        loop {
            let mut short = Vec::new();
            codec.take_short(&mut short, together);
            events.extend(short.into_iter().map(Event::Message));
            let mut work = Work::of(piece);
            match codec.next(&mut work) {
                Ok(Some(event)) => {
                    if let Event::Message(message) = &event {
                        assert!(message.len() <= limits().max_message_size);
                    }
                    events.push(event);
                }
                Ok(None) if work.is_done() => {}
                Ok(None) => break,
                Err(e) => {
                    codec.close(e.code, &e.text);
                    failure = Some(e);
                    break 'all;
                }
            }
        }
    }
    let output = codec.stream().pending_parts().concat();
    Outcome { events, failure, output }
}

/// Reads what the codec sends, and accepts only what is right. Own code, as a check of the codec by the codec could miss a
/// mistake of both.
#[derive(Default)]
struct Client {
    deflate: Option<Deflate>,
    inflate: Option<Decompress>,
    expected: VecDeque<Message>,
    ending: bool,
    closed: bool,
}

impl Client {
    fn receive(&mut self, stream: &mut Stream) {
        stream.seal().expect("plain");
        let bytes = Bytes::from(stream.pending_parts().concat());
        stream.mark_sent(bytes.len());
        let mut rest = &bytes[..];
        while let [first, second, after @ ..] = rest {
            assert!(!self.closed, "something after the close frame");
            assert_eq!((first & 0xb0, second & 0x80), (0x80, 0), "final, not reserved, not masked");
            let (length, after) = match second {
                126 => (usize::from(u16::from_be_bytes([after[0], after[1]])), &after[2..]),
                127 => (u64::from_be_bytes(*after.first_chunk().expect("whole")) as usize, &after[8..]),
                short => (usize::from(*short), after),
            };
            let (payload, after) = after.split_at(length);
            rest = after;
            match first & 0x0f {
                2 => {
                    let expected = self.expected.pop_front().expect("a message that nobody sent");
                    let payload = if first & 0x40 == 0 { payload.to_vec() } else { self.inflate(payload) };
                    assert_eq!(expected.as_bytes(), payload);
                }
                8 => {
                    self.closed = true;
                    assert!(length <= 125 && length != 1);
                    if let [high, low, text @ ..] = payload {
                        assert!(CloseCode(u16::from_be_bytes([*high, *low])).is_sendable());
                        assert!(std::str::from_utf8(text).is_ok());
                    }
                }
                9 | 10 => assert!(length <= 125 && first & 0x40 == 0),
                other => panic!("opcode {other}"),
            }
        }
        assert!(rest.is_empty(), "half a frame");
    }

    fn inflate(&mut self, payload: &[u8]) -> Vec<u8> {
        let deflate = self.deflate.expect("compressed without agreement");
        if deflate.ours.no_context_takeover {
            self.inflate = None;
        }
        let inflate = self
            .inflate
            .get_or_insert_with(|| Decompress::new_with_window_bits(false, deflate.ours.window_bits));
        let mut out = Vec::with_capacity(64 * 1024);
        let payload = [payload, &[0, 0, 0xff, 0xff]].concat();
        inflate.decompress_vec(&payload, &mut out, FlushDecompress::Sync).expect("deflate");
        out
    }
}

#[cfg(test)]
mod tests {
    /// The inputs that the fuzzers found.
    #[test]
    fn the_corpora_of_the_fuzz_targets() {
        for (name, target) in [
            #[cfg(feature = "__wire")]
            ("link", super::link as fn(&[u8])),
            ("head", super::head as fn(&[u8])),
            ("proxied", super::proxied),
            ("body", super::body),
            ("frames", super::frames),
            ("deflate", super::deflate),
            ("codec", super::codec),
        ] {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name);
            let inputs =
                std::fs::read_dir(&folder).expect("a corpus").map(|entry| entry.expect("an entry").path());
            let mut count = 0;
            for path in inputs {
                target(&std::fs::read(path).expect("an input"));
                count += 1;
            }
            assert!(count > 0, "no corpus in {}", folder.display());
        }
    }
}

#![cfg(feature = "__tls")]
//! Compressed messages (permessage-deflate, RFC 7692), with a client that uses zlib directly.
mod common;

use std::{
    collections::HashMap,
    io::Write,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use common::{
    PATIENCE, SCHEMES, Scheme, Stream, TestServer, echo, eventually, frame, handshake, reply::Reply, serve,
};
use flate2::{Compress, Compression as Level, Decompress, DecompressError, FlushCompress, FlushDecompress};
use rustix::net::sockopt::set_socket_recv_buffer_size;
use switchboard::{
    Audience, Compression, Handled, Limits, Message, Opening, Pushed, Refusal, ServerResult, WebSocket,
    WebSocketId, WebSocketServer,
};

/// First bytes of frames, and the bits in them for the last frame of a message and for a compressed message.
const TEXT: u8 = 0x81;
const BINARY: u8 = 0x82;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;

/// What a sender removes from the end of a message (RFC 7692, section 7.2.1).
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

const DEDICATED: Compression = Compression::Dedicated { window_bits: 15, level: 6 };

/// What most browsers offer.
const OFFER: &str = "permessage-deflate; client_max_window_bits";

/// Everything is tested with and without TLS, and for both kinds of connections.
const PLACES: [(Scheme, &str); 4] =
    [(SCHEMES[0], "/own"), (SCHEMES[0], "/shared"), (SCHEMES[1], "/own"), (SCHEMES[1], "/shared")];

/// Sends each message back: at `/own` from the connection's own thread, at `/shared` from a worker. The rest of the path
/// may choose the compression.
struct Echo;

impl WebSocketServer for Echo {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        let path = opening.path().to_owned();
        opening.set_shared_connection(path.starts_with("/shared"));
        match path.rsplit('/').next() {
            Some("off") => opening.set_compression(Compression::Off),
            Some("pooled") => opening.set_compression(Compression::Pooled),
            Some("dedicated") => {
                let number = |name| opening.request().query_value(name).unwrap().parse().unwrap();
                let (window_bits, level) = (number("window_bits"), number("level"));
                opening.set_compression(Compression::Dedicated { window_bits, level });
            }
            _ => {}
        }
        Ok(())
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        if ws.path().starts_with("/shared") { Ok(()) } else { echo(ws) }
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        // Fails only if the client has left.
        let _ = ws.write(message);
        Handled::Yes
    }
}

fn serve_limited(compression: Compression, change: impl FnOnce(&mut Limits)) -> TestServer {
    let mut limits = Limits::default();
    change(&mut limits);
    serve(|builder| builder.limits(limits).compression(compression).route("/*", || Echo))
}

/// A server that compresses every message, however short.
fn serve_all(compression: Compression) -> TestServer {
    serve_limited(compression, |limits| limits.min_compressed_size = 0)
}

/// Opens a connection with these header lines of offers. Also returns the server's answer.
fn open(server: &TestServer, scheme: Scheme, path: &str, offers: &[&str]) -> (Stream, Option<String>) {
    let lines: String = offers.iter().map(|offer| format!("Sec-WebSocket-Extensions: {offer}\r\n")).collect();
    let request = handshake(path).replace("\r\n\r\n", &format!("\r\n{lines}\r\n"));
    let mut stream = server.raw(scheme);
    stream.write_all(request.as_bytes()).unwrap();
    let reply = Reply::read(&mut stream);
    assert_eq!(reply.status, 101, "{reply:?}");
    let answers = reply.headers("sec-websocket-extensions");
    assert!(answers.len() <= 1, "{answers:?}");
    (stream, answers.first().map(|answer| String::from(*answer)))
}

/// A client with its negotiated parameters, compressor and decompressor.
struct Peer {
    stream: Stream,
    /// The response's `Sec-WebSocket-Extensions`.
    agreed: String,
    compress: Compress,
    decompress: Decompress,
}

impl Peer {
    fn open(server: &TestServer, (scheme, path): (Scheme, &str), offer: &str) -> Self {
        let (stream, agreed) = open(server, scheme, path, &[offer]);
        let agreed = agreed.expect("compression is agreed upon");
        let window_bits = agreed.split_once("client_max_window_bits=").map_or(15, |(_, value)| {
            let digits = value.split(';').next().unwrap();
            digits.trim().parse().unwrap()
        });
        // zlib cannot compress with 8.
        Self { stream, agreed, compress: compressor(window_bits.max(9)), decompress: Decompress::new(false) }
    }

    fn takes_over(&self, side: &str) -> bool {
        !self.agreed.contains(&format!("{side}_no_context_takeover"))
    }

    /// The next message's payload.
    fn deflate(&mut self, message: &[u8]) -> Vec<u8> {
        if !self.takes_over("client") {
            self.compress.reset();
        }
        deflate(&mut self.compress, message)
    }

    /// Sends a message, compressed. Returns the size of the frame's payload.
    fn send(&mut self, first: u8, message: &[u8]) -> usize {
        let payload = self.deflate(message);
        self.stream.write_all(&frame(first | RSV1, &payload)).unwrap();
        payload.len()
    }

    /// The payload of a compressed frame.
    fn inflate(&mut self, payload: &[u8]) -> Vec<u8> {
        if !self.takes_over("server") {
            self.decompress.reset(false);
        }
        inflate(&mut self.decompress, payload).unwrap()
    }

    /// The first byte of the next frame, and its payload, inflated.
    fn receive(&mut self) -> (u8, Vec<u8>) {
        let (first, payload) = self.stream.read_frame();
        let message = if first & RSV1 == 0 { payload } else { self.inflate(&payload) };
        (first, message)
    }

    /// The message of the next frame, which has to be compressed, and the size of the frame's payload.
    fn receive_compressed(&mut self, first: u8) -> (Vec<u8>, usize) {
        let (seen, payload) = self.stream.read_frame();
        assert_eq!(seen, first | RSV1);
        (self.inflate(&payload), payload.len())
    }

    /// Checks an echo that is compressed in both directions.
    fn assert_echoes(&mut self, first: u8, message: &[u8]) {
        self.send(first, message);
        assert!(
            self.receive() == (first | RSV1, message.to_vec()),
            "{} bytes, {}",
            message.len(),
            self.agreed
        );
    }

    /// The connection's ID.
    fn id(&self, server: &TestServer) -> WebSocketId {
        let address = self.stream.tcp().local_addr().unwrap();
        common::connections(&server.hub).into_iter().find(|info| info.peer == Some(address)).unwrap().id
    }
}

fn compressor(window_bits: u8) -> Compress {
    Compress::new_with_window_bits(Level::new(6), false, window_bits)
}

/// The payload of a compressed message (RFC 7692, section 7.2.1).
fn deflate(compress: &mut Compress, message: &[u8]) -> Vec<u8> {
    let mut payload = Vec::with_capacity(message.len() + message.len() / 100 + 1000);
    compress.compress_vec(message, &mut payload, FlushCompress::Sync).unwrap();
    assert!(payload.len() < payload.capacity(), "zlib has written all output");
    payload.truncate(payload.strip_suffix(&TAIL).map_or(0, <[u8]>::len));
    if payload.is_empty() {
        payload.push(0); // what an empty message looks like (section 7.2.3.6)
    }
    payload
}

/// One message by itself.
fn deflate_alone(message: &[u8]) -> Vec<u8> {
    deflate(&mut compressor(15), message)
}

/// A message from the payload of a frame (RFC 7692, section 7.2.2).
fn inflate(decompress: &mut Decompress, payload: &[u8]) -> Result<Vec<u8>, DecompressError> {
    let payload = [payload, &TAIL].concat();
    let (mut message, mut chunk) = (Vec::new(), vec![0; 64 * 1024]);
    let begin = decompress.total_in();
    loop {
        let rest = &payload[(decompress.total_in() - begin) as usize..];
        let before = decompress.total_out();
        decompress.decompress(rest, &mut chunk, FlushDecompress::Sync)?;
        let written = (decompress.total_out() - before) as usize;
        message.extend_from_slice(&chunk[..written]);
        if written < chunk.len() {
            assert_eq!(decompress.total_in() - begin, payload.len() as u64, "zlib has read all input");
            return Ok(message);
        }
    }
}

/// Bytes that cannot be compressed; each seed gives different ones.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// A text that can be compressed.
fn text(lines: usize) -> String {
    (0..lines).map(|n| format!("{{\"sensor\": {}, \"größe\": {}}}\n", n % 7, n * n)).collect()
}

/// Sends these bytes, and expects the close frame with this code and the end of the stream. `what` describes the bytes.
fn assert_closed(mut stream: Stream, bytes: &[u8], code: u16, what: &str) {
    stream.write_all(bytes).unwrap();
    assert_eq!(stream.read_close_and_end().0, code, "{what}");
}

#[test]
fn the_response_has_the_negotiated_parameters() {
    let off = serve_all(Compression::Off);
    let pooled = serve_all(Compression::Pooled);
    let long = text(10);
    const NONE: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    for (scheme, kind) in PLACES {
        for (server, path, offer, answer) in [
            (&off, "", OFFER, None),
            (&off, "/off", OFFER, None),
            (&pooled, "/off", OFFER, None),
            // The route chooses.
            (&pooled, "", OFFER, Some(NONE)),
            (&off, "/pooled", OFFER, Some(NONE)),
            (&pooled, "/dedicated?window_bits=15&level=6", OFFER, Some("permessage-deflate")),
            (
                &off,
                "/dedicated?window_bits=10&level=1",
                OFFER,
                Some("permessage-deflate; server_max_window_bits=10; client_max_window_bits=10"),
            ),
            // The client asks for parameters.
            (&pooled, "", "permessage-deflate", Some(NONE)),
            (
                &pooled,
                "",
                "permessage-deflate; server_max_window_bits=9",
                Some(
                    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
                     server_max_window_bits=9",
                ),
            ),
            (
                &off,
                "/dedicated?window_bits=15&level=6",
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
                Some(NONE),
            ),
            (
                &off,
                "/dedicated?window_bits=12&level=6",
                "permessage-deflate; server_max_window_bits=11; client_max_window_bits=9",
                Some("permessage-deflate; server_max_window_bits=11; client_max_window_bits=9"),
            ),
            // The server may not limit the client's window, because the client did not offer that.
            (
                &off,
                "/dedicated?window_bits=12&level=6",
                "permessage-deflate",
                Some("permessage-deflate; server_max_window_bits=12"),
            ),
        ] {
            let path = format!("{kind}{path}");
            let (mut stream, seen) = open(server, scheme, &path, &[offer]);
            assert_eq!(seen.as_deref(), answer, "{path} {offer}");
            stream.write_all(&frame(TEXT, long.as_bytes())).unwrap();
            let compressed = if answer.is_some() { RSV1 } else { 0 };
            assert_eq!(stream.read_frame().0, TEXT | compressed, "{path} {offer}");
        }
        // Without an offer there is no compression.
        for server in [&off, &pooled] {
            assert_eq!(open(server, scheme, kind, &[]).1, None);
        }
    }
}

#[test]
fn the_first_acceptable_offer_is_accepted_in_one_line_and_in_several() {
    let server = serve_all(DEDICATED);
    let declined = [
        "x-webkit-deflate-frame",
        "permessage-deflate; unknown",
        "x-other; a=\", permessage-deflate\"",
        "permessage-deflate; server_max_window_bits=8",
    ];
    let accepted = ["permessage-deflate; server_max_window_bits=11", "permessage-deflate"];
    let offers = [&declined[..], &accepted].concat();
    for place in PLACES {
        let one_line = offers.join(", ");
        let two_lines = [offers[..3].join(","), offers[3..].join(" , ")];
        for lines in [vec![one_line.as_str()], two_lines.iter().map(String::as_str).collect(), offers.clone()]
        {
            let (_, answer) = open(&server, place.0, place.1, &lines);
            assert_eq!(answer.as_deref(), Some(accepted[0]), "{lines:?}");
        }
    }
}

#[test]
fn an_offer_that_cannot_be_accepted_is_declined_and_the_connection_opens() {
    let server = serve_all(DEDICATED);
    for place in PLACES {
        for offer in [
            "x-webkit-deflate-frame",
            "permessage-deflate; unknown",
            "permessage-deflate; server_no_context_takeover=1",
            "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; server_max_window_bits",
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=16",
            "permessage-deflate; server_max_window_bits=\"10",
            "permessage-deflate; client_max_window_bits=07",
            "permessage-deflate; client_max_window_bits=99999999999999999999",
            "permessage-deflate;;",
            ";;,,=\"",
            "",
            "\u{e9}",
        ] {
            let (mut stream, answer) = open(&server, place.0, place.1, &[offer]);
            assert_eq!(answer, None, "{offer:?}");
            let long = text(100);
            stream.write_all(&frame(TEXT, long.as_bytes())).unwrap();
            assert_eq!(stream.read_frame(), (TEXT, long.into_bytes()), "{offer:?}");
            let compressed = frame(TEXT | RSV1, &deflate_alone(b"not agreed upon"));
            assert_closed(stream, &compressed, 1002, offer);
        }
    }
}

#[test]
fn messages_of_all_kinds_and_sizes_come_back() {
    let messages: [(u8, Vec<u8>); 6] = [
        (TEXT, Vec::new()),
        (BINARY, Vec::new()),
        (TEXT, b"x".to_vec()),
        (TEXT, "grüß 🎉".into()),
        (TEXT, text(50).into()),
        (BINARY, noise(2000, 1)),
    ];
    let large = [(BINARY, vec![0; 40_000]), (BINARY, noise(33_000, 2)), (TEXT, text(500).into())];
    for compression in [
        Compression::Pooled,
        DEDICATED,
        Compression::Dedicated { window_bits: 9, level: 1 },
        Compression::Dedicated { window_bits: 12, level: 9 },
    ] {
        let server = serve_all(compression);
        for place in PLACES {
            for offer in [
                "permessage-deflate",
                OFFER,
                "permessage-deflate; client_no_context_takeover",
                "permessage-deflate; server_no_context_takeover",
                "permessage-deflate; server_max_window_bits=9; client_max_window_bits=9",
                "permessage-deflate; server_max_window_bits=11; client_max_window_bits=13",
            ] {
                let mut peer = Peer::open(&server, place, offer);
                // Twice, because the second message may refer to the first.
                let large = if offer == OFFER { &large[..] } else { &[] };
                let all = || messages.iter().chain(large);
                for (first, message) in all().chain(all()) {
                    peer.send(*first, message);
                    let (seen, back) = peer.receive();
                    assert_eq!(seen & !RSV1, *first);
                    assert!(back == *message, "{} bytes, {}", message.len(), peer.agreed);
                }
            }
        }
    }
}

#[test]
fn messages_that_just_fill_a_buffer_come_back() {
    let server = serve_all(DEDICATED);
    for place in PLACES {
        let mut peer = Peer::open(&server, place, OFFER);
        // Sizes around those of the buffers for compressed output and for inflated input.
        for size in (0..300).chain((0..20).map(|n| 16 * 1024 - 10 + n)) {
            peer.send(BINARY, &noise(size, size as u64));
            assert!(peer.receive().1 == noise(size, size as u64), "{size} bytes");
        }
    }
}

#[test]
fn fragments_of_a_compressed_message_are_one_stream_and_pings_may_be_between_them() {
    let server = serve_all(DEDICATED);
    for place in PLACES {
        let mut peer = Peer::open(&server, place, OFFER);
        for (first, message) in [(TEXT, text(40).into_bytes()), (BINARY, noise(500, 1)), (TEXT, Vec::new())] {
            for size in [1, 2, 7, 100, 100_000] {
                let payload = peer.deflate(&message);
                let mut bytes = Vec::new();
                // It begins and ends with an empty frame; the first frame has the kind and the bit for compression.
                let mut next = first & !FIN | RSV1;
                for piece in [&b""[..]].into_iter().chain(payload.chunks(size)) {
                    bytes.extend(frame(next, piece));
                    bytes.extend(frame(PING, b"between"));
                    next = 0;
                }
                let pings = 1 + payload.chunks(size).len();
                bytes.extend(frame(FIN, b""));
                peer.stream.write_all(&bytes).unwrap();
                for _ in 0..pings {
                    assert_eq!(peer.stream.read_frame(), (PONG, b"between".to_vec()));
                }
                let (seen, back) = peer.receive();
                assert!((seen & !RSV1, &back) == (first, &message), "in pieces of {size}");
            }
        }
    }
}

#[test]
fn a_compressed_message_may_arrive_byte_by_byte() {
    let server = serve_all(DEDICATED);
    for place in PLACES {
        let mut peer = Peer::open(&server, place, OFFER);
        for n in 0..3 {
            let message = text(10 + n);
            let payload = peer.deflate(message.as_bytes());
            for byte in frame(TEXT | RSV1, &payload) {
                peer.stream.write_all(&[byte]).unwrap();
            }
            assert_eq!(peer.receive(), (TEXT | RSV1, message.into_bytes()));
        }
    }
}

#[test]
fn a_dedicated_message_refers_to_earlier_ones_in_both_directions() {
    let server = serve_all(DEDICATED);
    // Random bytes: without an earlier message they do not become shorter.
    let message = noise(10_000, 1);
    for place in PLACES {
        let mut peer = Peer::open(&server, place, OFFER);
        assert_eq!(peer.agreed, "permessage-deflate");
        assert!(peer.send(BINARY, &message) > 10_000);
        let (back, size) = peer.receive_compressed(BINARY);
        assert!(back == message && size > 10_000, "{size}");
        for n in 1..30 {
            // Later messages cannot refer to an uncompressed one, and it changes nothing else.
            peer.stream.write_all(&frame(TEXT, b"as it is")).unwrap();
            assert_eq!(peer.receive().1, b"as it is");
            // Other random bytes slowly move the first message out of the window.
            let other = noise(100 * n, 100 + n as u64);
            peer.assert_echoes(BINARY, &other);
            assert!(peer.send(BINARY, &message) < 200);
            let (back, size) = peer.receive_compressed(BINARY);
            assert!(back == message && size < 200, "{size}");
        }
    }
}

#[test]
fn without_context_takeover_each_message_is_compressed_on_its_own() {
    let message = noise(10_000, 1);
    for (compression, offer) in [
        (Compression::Pooled, OFFER),
        (DEDICATED, "permessage-deflate; server_no_context_takeover; client_no_context_takeover"),
    ] {
        let server = serve_all(compression);
        for place in PLACES {
            let mut peer = Peer::open(&server, place, offer);
            let text = text(50).into_bytes();
            let mut payloads = Vec::new();
            for _ in 0..3 {
                peer.send(BINARY, &message);
                assert!(peer.receive() == (BINARY, message.clone()), "it would become longer");
                peer.send(TEXT, &text);
                let (first, payload) = peer.stream.read_frame();
                assert_eq!((first, peer.inflate(&payload)), (TEXT | RSV1, text.clone()));
                payloads.push(payload);
            }
            assert!(payloads.windows(2).all(|pair| pair[0] == pair[1]));
            // This holds for the client, too: the server has not kept what this message refers to.
            let mut keeps = compressor(15);
            let payloads = [(); 2].map(|()| deflate(&mut keeps, &message));
            peer.stream.write_all(&frame(BINARY | RSV1, &payloads[0])).unwrap();
            assert!(peer.receive().1 == message);
            assert_closed(peer.stream, &frame(BINARY | RSV1, &payloads[1]), 1002, "refers to the first");
        }
    }
}

#[test]
fn no_context_takeover_may_be_for_the_client_only() {
    let server = serve_all(DEDICATED);
    let message = noise(10_000, 1);
    for place in PLACES {
        let mut peer = Peer::open(&server, place, "permessage-deflate; client_no_context_takeover");
        assert_eq!(peer.agreed, "permessage-deflate; client_no_context_takeover");
        for n in 0..3 {
            assert!(peer.send(BINARY, &message) > 10_000);
            let (back, size) = peer.receive_compressed(BINARY);
            assert!(back == message && (size < 200) == (n > 0), "{size}");
        }
    }
}

#[test]
fn no_message_refers_back_beyond_the_negotiated_window() {
    // First a test of the test: the check can fail.
    let twice = noise(1000, 1).repeat(2);
    assert!(Strict::new(9).inflate(&deflate_alone(&twice)).is_err());
    assert!(Strict::new(10).inflate(&deflate_alone(&twice)).unwrap() == twice);
    let pooled = serve_all(Compression::Pooled);
    let dedicated = serve_all(DEDICATED);
    for (scheme, kind) in [PLACES[0], PLACES[3]] {
        for bits in [9, 10, 12, 14] {
            let asked =
                format!("permessage-deflate; server_max_window_bits={bits}; client_max_window_bits={bits}");
            let set_by_path = |level| format!("{kind}/dedicated?window_bits={bits}&level={level}");
            let window = 1 << bits;
            // Bytes that are repeated within the window and beyond it, and both again in the second message.
            let message =
                [noise(window / 3, 1).repeat(2), noise(window * 5 / 4, 2).repeat(2), text(50).into()]
                    .concat();
            for (server, path, offer) in [
                (&pooled, kind, asked.as_str()),
                (&dedicated, kind, &asked),
                (&dedicated, &set_by_path(1), OFFER),
                (&pooled, &set_by_path(9), OFFER),
            ] {
                let mut peer = Peer::open(server, (scheme, path), offer);
                let mut strict = Strict::new(bits);
                for _ in 0..2 {
                    peer.send(BINARY, &message);
                    let (first, payload) = peer.stream.read_frame();
                    assert_eq!(first, BINARY | RSV1, "{path} {offer}");
                    if !peer.takes_over("server") {
                        strict.past.clear();
                    }
                    let inflated = strict.inflate(&payload).unwrap_or_else(|e| panic!("{path} {offer}: {e}"));
                    assert!(inflated == message, "{path} {offer}");
                    assert!(peer.inflate(&payload) == message, "{path} {offer}");
                }
            }
        }
    }
}

/// The payload of a message that repeats the three bytes `distance` bytes ago, with fixed codes (RFC 1951, section 3.2.6).
fn reference(distance: usize) -> Vec<u8> {
    let base = |symbol: usize| match symbol {
        0..4 => symbol + 1,
        _ => ((2 + symbol % 2) << (symbol / 2 - 1)) + 1,
    };
    let symbol = (0..30).rfind(|&symbol| base(symbol) <= distance).unwrap();
    let number = |value: usize, bits: usize| (0..bits).map(move |n| value >> n & 1);
    let code = |value: usize, bits: usize| (0..bits).rev().map(move |n| value >> n & 1);
    let bits: Vec<usize> = number(0b010, 3)
        .chain(code(1, 7))
        .chain(code(symbol, 5))
        .chain(number(distance - base(symbol), (symbol / 2).saturating_sub(1)))
        .chain(code(0, 7))
        .chain(number(0, 3))
        .collect();
    bits.chunks(8).map(|byte| byte.iter().rev().fold(0, |all, bit| all << 1 | *bit as u8)).collect()
}

#[test]
fn the_server_remembers_the_whole_window_of_the_client() {
    let server = serve_all(DEDICATED);
    for place in PLACES {
        for bits in [8, 9, 12, 15] {
            let offer = format!("permessage-deflate; client_max_window_bits={bits}");
            let mut peer = Peer::open(&server, place, &offer);
            assert_eq!(peer.agreed.contains(&format!("client_max_window_bits={bits}")), bits < 15);
            let window = 1 << bits;
            let mut past = Vec::new();
            for (n, size) in
                [window, 1, 100, window - 1, 0, window + 1, 16 * 1024, 2, window * 2 - 1, 65_535, window / 2]
                    .into_iter()
                    .enumerate()
            {
                let message = noise(size.min(65_535), n as u64);
                // Sent uncompressed.
                let len = message.len() as u16;
                let payload = [&[0][..], &len.to_le_bytes(), &(!len).to_le_bytes(), &message, &[0]].concat();
                peer.stream.write_all(&frame(BINARY | RSV1, &payload)).unwrap();
                assert!(peer.receive().1 == message);
                past.extend(message);
                for distance in [window, window - 1, 3, 1, window / 2 + 1] {
                    peer.stream.write_all(&frame(BINARY | RSV1, &reference(distance))).unwrap();
                    let begin = past.len();
                    for _ in 0..3 {
                        past.push(past[past.len() - distance]);
                    }
                    assert_eq!(peer.receive().1, past[begin..], "{distance} bytes ago, after {n} messages");
                }
            }
        }
    }
}

#[test]
fn the_examples_of_the_rfc_are_understood() {
    // RFC 7692, section 7.2.3.
    const HELLO: &[u8] = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
    const HELLO_AGAIN: &[u8] = b"\xf2\x00\x11\x00\x00";
    const NOT_COMPRESSED: &[u8] = b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00";
    const FINAL: &[u8] = b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00";
    const TWO_BLOCKS: &[u8] = b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00";
    for compression in [Compression::Pooled, DEDICATED] {
        let server = serve_limited(compression, |_| {});
        for place in PLACES {
            let mut peer = Peer::open(&server, place, OFFER);
            let takes_over = peer.takes_over("client");
            for payload in [HELLO, NOT_COMPRESSED, FINAL, TWO_BLOCKS, FINAL, FINAL] {
                for cut in 0..=payload.len() {
                    let (begin, end) = payload.split_at(cut);
                    let fragments = [frame(TEXT & !FIN | RSV1, begin), frame(FIN, end)];
                    peer.stream.write_all(&fragments.concat()).unwrap();
                    assert_eq!(peer.receive(), (TEXT, b"Hello".to_vec()), "{payload:x?} cut at {cut}");
                }
                peer.stream.write_all(&frame(TEXT | RSV1, payload)).unwrap();
                assert_eq!(peer.receive(), (TEXT, b"Hello".to_vec()), "{payload:x?}");
                if takes_over {
                    peer.stream.write_all(&frame(TEXT | RSV1, HELLO_AGAIN)).unwrap();
                    assert_eq!(peer.receive(), (TEXT, b"Hello".to_vec()), "after {payload:x?}");
                }
                peer.stream.write_all(&frame(TEXT | RSV1, &[0])).unwrap();
                assert_eq!(peer.receive(), (TEXT, Vec::new()), "after {payload:x?}");
            }
            if !takes_over {
                assert_closed(peer.stream, &frame(TEXT | RSV1, HELLO_AGAIN), 1002, "refers to the first");
            }
        }
    }
}

#[test]
fn a_final_block_may_be_followed_by_more_of_the_message() {
    let server = serve_all(DEDICATED);
    for place in PLACES {
        let mut peer = Peer::open(&server, place, OFFER);
        for size in [10, 16 * 1024, 40_000] {
            let mut payload = Vec::with_capacity(100_000);
            compressor(15).compress_vec(&vec![b'x'; size], &mut payload, FlushCompress::Finish).unwrap();
            let payload = [payload.repeat(3), vec![0]].concat();
            peer.stream.write_all(&frame(TEXT | RSV1, &payload)).unwrap();
            assert!(peer.receive() == (TEXT | RSV1, vec![b'x'; 3 * size]), "{size}");
        }
    }
}

#[test]
fn short_messages_are_sent_as_they_are() {
    for compression in [Compression::Pooled, DEDICATED] {
        for (least, server) in [
            (64, serve_limited(compression, |_| {})),
            (1000, serve_limited(compression, |limits| limits.min_compressed_size = 1000)),
        ] {
            for place in PLACES {
                let mut peer = Peer::open(&server, place, OFFER);
                for _ in 0..2 {
                    for (len, compressed) in
                        [(1, 0), (least - 1, 0), (least, RSV1), (least + 1, RSV1), (0, 0)]
                    {
                        for first in [TEXT, BINARY] {
                            peer.send(first, &vec![b'x'; len]);
                            assert_eq!(peer.receive(), (first | compressed, vec![b'x'; len]), "of {least}");
                        }
                    }
                    // The size counts in bytes, not in characters.
                    let text = "ä".repeat(least / 2);
                    peer.send(TEXT, text.as_bytes());
                    assert_eq!(peer.receive(), (TEXT | RSV1, text.into_bytes()));
                }
            }
        }
    }
}

#[test]
fn pushes_and_broadcasts_are_compressed_too() {
    let long = text(100);
    for compression in [Compression::Pooled, DEDICATED] {
        let server = serve_limited(compression, |_| {});
        for (scheme, kind) in PLACES {
            let path = format!("{kind}/{scheme:?}");
            let mut peer = Peer::open(&server, (scheme, &path), OFFER);
            let id = peer.id(&server);
            let mut sizes = Vec::new();
            let mut next = |peer: &mut Peer, message: &str| {
                let (back, size) = peer.receive_compressed(TEXT);
                assert_eq!(back, message.as_bytes());
                sizes.push(size);
            };
            for _ in 0..2 {
                let _ = server.hub.push(&id, &long).unwrap();
                next(&mut peer, &long);
                let _ = server.hub.pusher(&id).unwrap().push(&long).unwrap();
                next(&mut peer, &long);
                assert_eq!(server.hub.broadcast(Audience::Path(&path), &long).unwrap().gone, 0);
                next(&mut peer, &long);
                peer.send(TEXT, long.as_bytes());
                next(&mut peer, &long);
                let _ = server.hub.push(&id, "short").unwrap();
                assert_eq!(peer.receive(), (TEXT, b"short".to_vec()));
                if kind == "/shared" {
                    server.hub.open_server(&id).unwrap().write(&long).unwrap();
                    next(&mut peer, &long);
                }
            }
            match compression {
                Compression::Pooled => assert!(sizes.iter().all(|size| *size == sizes[0]), "{sizes:?}"),
                _ => assert!(sizes[1..].iter().all(|size| *size < sizes[0] / 2), "{sizes:?}"),
            }
            assert!(sizes[0] < long.len() / 2, "{sizes:?}");
        }
    }
}

#[test]
fn a_broadcast_has_the_same_bytes_for_all_with_the_same_parameters() {
    let server = serve_all(Compression::Pooled);
    let long = text(200);
    let mut pooled: Vec<Peer> =
        (0..24).map(|n| Peer::open(&server, PLACES[n % PLACES.len()], OFFER)).collect();
    // Connections with other parameters have to understand it, too.
    let mut small: Vec<Peer> = PLACES
        .iter()
        .map(|place| Peer::open(&server, *place, "permessage-deflate; server_max_window_bits=9"))
        .collect();
    let mut dedicated: Vec<Peer> = PLACES
        .iter()
        .map(|(scheme, kind)| (*scheme, format!("{kind}/dedicated?window_bits=15&level=9")))
        .map(|(scheme, path)| Peer::open(&server, (scheme, &path), OFFER))
        .collect();
    let mut plain = server.raw_websocket(SCHEMES[0], "/own");
    for _ in 0..3 {
        let result = server.hub.broadcast(Audience::All, &long).unwrap();
        assert_eq!((result.sent + result.queued, result.gone), (24 + 4 + 4 + 1, 0));
        let (first, payload) = pooled[0].stream.read_frame();
        assert!(first == TEXT | RSV1 && payload.len() < long.len() / 2);
        for peer in &mut pooled[1..] {
            assert!(peer.stream.read_frame() == (first, payload.clone()), "the same bytes");
        }
        for peer in &mut pooled {
            assert_eq!(peer.inflate(&payload), long.as_bytes());
        }
        for peer in &mut small {
            let (first, payload) = peer.stream.read_frame();
            assert_eq!(first, TEXT | RSV1);
            assert_eq!(Strict::new(9).inflate(&payload).as_deref(), Ok(long.as_bytes()));
        }
        for peer in &mut dedicated {
            assert_eq!(peer.receive_compressed(TEXT).0, long.as_bytes());
        }
        assert_eq!(plain.read_frame(), (TEXT, long.clone().into_bytes()));
    }
}

#[test]
fn messages_of_many_threads_are_one_stream() {
    const THREADS: usize = 4;
    const EACH: usize = 150;
    for compression in [Compression::Pooled, DEDICATED] {
        let server = serve_all(compression);
        for place in PLACES {
            let mut peer = Peer::open(&server, place, OFFER);
            let id = peer.id(&server);
            let message = |who: usize, n: usize| format!("{who} {n} {}", text(5 + n % 5));
            thread::scope(|scope| {
                for who in 1..=THREADS {
                    let (hub, id) = (&server.hub, &id);
                    scope.spawn(move || {
                        for n in 0..EACH {
                            let _ = hub.push(id, message(who, n)).unwrap();
                        }
                    });
                }
                // The handler's answers come between the pushed messages.
                for n in 0..EACH {
                    peer.send(TEXT, message(0, n).as_bytes());
                }
                let mut next = [0; THREADS + 1];
                for _ in 0..EACH * (THREADS + 1) {
                    let (back, _) = peer.receive_compressed(TEXT);
                    let back = String::from_utf8(back).unwrap();
                    let who: usize = back.split(' ').next().unwrap().parse().unwrap();
                    assert_eq!(back, message(who, next[who]));
                    next[who] += 1;
                }
            });
        }
    }
}

#[test]
fn what_is_queued_for_a_slow_client_is_one_stream_too() {
    for compression in [Compression::Pooled, Compression::Dedicated { window_bits: 15, level: 1 }] {
        let server = serve_limited(compression, |limits| {
            (limits.max_queue_bytes, limits.min_compressed_size) = (Some(64 << 20), 50_000);
        });
        for place in PLACES {
            let mut peer = Peer::open(&server, place, OFFER);
            let id = peer.id(&server);
            set_socket_recv_buffer_size(peer.stream.tcp(), 64 * 1024).unwrap();
            // Large uncompressed messages soon fill the socket; compressed messages come between them.
            let bulk = noise(49_999, 1);
            let mut expected = Vec::new();
            let mut queued = 0;
            while queued < 10 {
                let is_bulk = expected.len() % 5 > 0;
                let message = if is_bulk { bulk.clone() } else { text(2000 + expected.len()).into() };
                queued += usize::from(server.hub.push(&id, &message).unwrap() == Pushed::Queued);
                expected.push(message);
            }
            set_socket_recv_buffer_size(peer.stream.tcp(), 1 << 20).unwrap();
            for message in expected {
                let first = if message == bulk { BINARY } else { BINARY | RSV1 };
                assert!(peer.receive() == (first, message));
            }
        }
    }
}

#[test]
fn compressors_of_different_levels_and_windows_do_not_disturb_each_other() {
    let server = serve_all(Compression::Pooled);
    let long = [text(100).into_bytes(), noise(1000, 1).repeat(2), text(100).into_bytes()].concat();
    let offer = "permessage-deflate; server_no_context_takeover";
    let mut peers = Vec::new();
    for (scheme, kind) in PLACES {
        peers.push(Peer::open(&server, (scheme, kind), offer));
        for (window_bits, level) in [(15, 1), (15, 9), (10, 5), (9, 1)] {
            let path = format!("{kind}/dedicated?window_bits={window_bits}&level={level}");
            peers.push(Peer::open(&server, (scheme, &path), offer));
        }
    }
    for _ in 0..3 {
        for peer in &mut peers {
            peer.assert_echoes(BINARY, &long);
        }
    }
}

#[test]
fn messages_that_arrive_at_once_do_not_disturb_each_other() {
    for compression in [Compression::Pooled, DEDICATED] {
        let server = serve_all(compression);
        let mut peers: Vec<Peer> =
            (0..16).map(|n| Peer::open(&server, PLACES[n % PLACES.len()], OFFER)).collect();
        for round in 0..3 {
            let messages: Vec<_> =
                (0..peers.len()).map(|n| format!("{round} {n}\n{}", text(100 + n))).collect();
            let payloads: Vec<_> = peers
                .iter_mut()
                .zip(&messages)
                .map(|(peer, message)| peer.deflate(message.as_bytes()))
                .collect();
            // First a third of each message, then the next third of each.
            for part in 0..3 {
                for (peer, payload) in peers.iter_mut().zip(&payloads) {
                    let first = if part == 0 { TEXT & !FIN | RSV1 } else { FIN * (part / 2) };
                    let third = payload.len() / 3 * usize::from(part);
                    let end = if part == 2 { payload.len() } else { third + payload.len() / 3 };
                    let bytes = [frame(first, &payload[third..end]), frame(PING, b"")];
                    peer.stream.write_all(&bytes.concat()).unwrap();
                    if part < 2 {
                        assert_eq!(
                            peer.stream.read_frame().0,
                            PONG,
                            "it has received everything before the ping"
                        );
                    }
                }
                // Clients that leave in the middle of a message, or break the protocol, do not disturb the others.
                for place in PLACES {
                    let mut leaves = Peer::open(&server, place, OFFER);
                    let half = deflate_alone(text(100).as_bytes());
                    leaves.stream.write_all(&frame(TEXT & !FIN | RSV1, &half[..half.len() / 2])).unwrap();
                    leaves.stream.write_all(&frame(PING, b"")).unwrap();
                    assert_eq!(leaves.stream.read_frame().0, PONG);
                    leaves.stream.reset();
                    let breaks = Peer::open(&server, place, OFFER);
                    assert_closed(breaks.stream, &frame(TEXT | RSV1, &[0xff; 10]), 1002, "");
                }
            }
            for (peer, message) in peers.iter_mut().zip(&messages) {
                let (first, back) = loop {
                    match peer.receive() {
                        (PONG, _) => {}
                        other => break other,
                    }
                };
                assert_eq!((first, String::from_utf8(back).unwrap()), (TEXT | RSV1, message.clone()));
            }
        }
    }
}

#[test]
fn the_compression_bit_where_it_is_not_allowed_is_1002() {
    let hello = deflate_alone(b"hello");
    let server = serve_all(Compression::Pooled);
    for (scheme, kind) in PLACES {
        for (what, bytes) in [
            ("a continuation", [frame(TEXT & !FIN | RSV1, &hello), frame(FIN | RSV1, b"")].concat()),
            (
                "a continuation in the middle",
                [frame(TEXT & !FIN | RSV1, &hello), frame(RSV1, b""), frame(FIN, b"")].concat(),
            ),
            ("a continuation of what is not", [frame(TEXT & !FIN, b"x"), frame(FIN | RSV1, &hello)].concat()),
            ("a continuation of nothing", frame(FIN | RSV1, &hello)),
            (
                "a message within one",
                [frame(TEXT & !FIN | RSV1, &hello), frame(TEXT | RSV1, &hello)].concat(),
            ),
            ("a ping", frame(PING | RSV1, &hello)),
            (
                "a ping between fragments",
                [frame(TEXT & !FIN | RSV1, &hello), frame(PING | RSV1, b"")].concat(),
            ),
            ("a pong", frame(PONG | RSV1, &hello)),
            ("a close", frame(0x88 | RSV1, &1000_u16.to_be_bytes())),
            ("the second bit", frame(TEXT | RSV1 | 0x20, &hello)),
            ("the third bit", frame(TEXT | 0x10, &hello)),
            ("a reserved opcode", frame(0x83 | RSV1, &hello)),
        ] {
            let peer = Peer::open(&server, (scheme, kind), OFFER);
            assert_closed(peer.stream, &bytes, 1002, what);
        }
        // Without negotiation: turned off, or not offered.
        for (path, offers) in [(kind, &[][..]), (&format!("{kind}/off"), &[OFFER])] {
            for first in [TEXT, BINARY, TEXT & !FIN] {
                let (stream, _) = open(&server, scheme, path, offers);
                assert_closed(stream, &frame(first | RSV1, &hello), 1002, path);
            }
        }
    }
}

#[test]
fn what_cannot_be_inflated_is_1002() {
    for compression in [Compression::Pooled, DEDICATED] {
        let server = serve_all(compression);
        let good = deflate_alone(text(100).as_bytes());
        for place in PLACES {
            for (what, payload) in [
                ("a block of no kind", vec![0x07]),
                ("a length that its check denies", vec![0x00, 0x05, 0x00, 0x00, 0x00, 1, 2, 3, 4, 5, 0]),
                ("from before the beginning", reference(1)),
                ("from long before the beginning", [&good[..], &reference(32_768)].concat()),
                ("plain text", text(10).into_bytes()),
                ("ones", vec![0xff; 100]),
                ("gzip", b"\x1f\x8b\x08\x00\x00\x00\x00\x00".to_vec()),
                ("behind what is good", [&good[..], &TAIL, &[0xff; 10]].concat()),
            ] {
                for first in [TEXT, BINARY] {
                    let peer = Peer::open(&server, place, OFFER);
                    assert_closed(peer.stream, &frame(first | RSV1, &payload), 1002, what);
                    // At once, although the message is not complete.
                    let peer = Peer::open(&server, place, OFFER);
                    let begun = [frame(first & !FIN | RSV1, &payload), frame(0, &[0; 10])].concat();
                    assert_closed(peer.stream, &begun, 1002, what);
                }
                // And after a valid message.
                let mut peer = Peer::open(&server, place, OFFER);
                peer.assert_echoes(TEXT, text(3).as_bytes());
                if what != "from before the beginning" {
                    assert_closed(peer.stream, &frame(TEXT | RSV1, &payload), 1002, what);
                }
            }
        }
    }
}

#[test]
fn text_that_inflates_to_what_is_not_utf8_is_1007() {
    for compression in [Compression::Pooled, DEDICATED] {
        let server = serve_all(compression);
        for place in PLACES {
            for bad in [&b"\xff"[..], b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82x"] {
                for message in [bad.to_vec(), [text(1000).as_bytes(), bad, b"more"].concat()] {
                    let payload = deflate_alone(&message);
                    let peer = Peer::open(&server, place, OFFER);
                    assert_closed(peer.stream, &frame(TEXT | RSV1, &payload), 1007, "whole");
                    let peer = Peer::open(&server, place, OFFER);
                    let begun = frame(TEXT & !FIN | RSV1, &[&payload[..], &TAIL].concat());
                    assert_closed(peer.stream, &begun, 1007, "at once, although the message is not complete");
                    // In a binary message the same bytes are valid.
                    Peer::open(&server, place, OFFER)
                        .assert_echoes(BINARY, &[&message[..], &[0; 100]].concat());
                }
            }
            let peer = Peer::open(&server, place, OFFER);
            let cut = frame(TEXT | RSV1, &deflate_alone(b"cut off: \xe2\x82"));
            assert_closed(peer.stream, &cut, 1007, "the end of a character is missing");
            // A character may be split between two frames.
            let mut peer = Peer::open(&server, place, OFFER);
            let text = "🎉".repeat(20);
            let payload: Vec<u8> = text
                .bytes()
                .flat_map(|byte| [&[0, 1, 0, 0xfe, 0xff, byte][..]].concat())
                .chain([0])
                .collect();
            let frames: Vec<u8> = payload.chunks(3).flat_map(|piece| frame(0, piece)).collect();
            let whole = [frame(TEXT & !FIN | RSV1, b""), frames, frame(FIN, b"")];
            peer.stream.write_all(&whole.concat()).unwrap();
            assert_eq!(peer.receive(), (TEXT | RSV1, text.into_bytes()));
        }
    }
}

#[test]
fn a_message_may_inflate_to_the_limit_and_not_to_a_byte_more() {
    const MOST: usize = 100_000;
    for compression in [Compression::Pooled, DEDICATED] {
        let server = serve_limited(compression, |limits| {
            (limits.max_message_size, limits.max_frame_size) = (MOST, MOST);
        });
        for place in PLACES {
            for (what, message) in [("zeros", vec![0; MOST + 1]), ("noise", noise(MOST + 1, 1))] {
                let mut peer = Peer::open(&server, place, OFFER);
                for _ in 0..2 {
                    // Random bytes are even larger on the wire than the limit.
                    let payload = deflate_alone(&message[..MOST]);
                    assert_eq!(payload.len() > MOST, what == "noise");
                    peer.stream.write_all(&frame(BINARY | RSV1, &payload)).unwrap();
                    assert!(peer.receive().1 == message[..MOST], "{what}");
                    let (begin, end) = payload.split_at(payload.len() / 2);
                    let fragments = [frame(BINARY & !FIN | RSV1, begin), frame(0, end), frame(FIN, b"")];
                    peer.stream.write_all(&fragments.concat()).unwrap();
                    assert!(peer.receive().1 == message[..MOST], "{what}");
                }
                let payload = deflate_alone(&message);
                assert_closed(peer.stream, &frame(BINARY | RSV1, &payload), 1009, what);
                let (begin, end) = payload.split_at(payload.len() / 2);
                let peer = Peer::open(&server, place, OFFER);
                let fragments = [frame(BINARY & !FIN | RSV1, begin), frame(FIN, end)].concat();
                assert_closed(peer.stream, &fragments, 1009, what);
            }
            // A frame that is far too large on the wire is refused by its header.
            let peer = Peer::open(&server, place, OFFER);
            let announced = frame(BINARY | RSV1, &vec![0; 2 * MOST])[..14].to_vec();
            assert_closed(peer.stream, &announced, 1009, "announced");
        }
    }
}

#[test]
fn the_default_limit_is_kept_too() {
    const MOST: usize = 1 << 20;
    let server = serve_all(Compression::Pooled);
    let message = noise(MOST, 1);
    let payload = deflate_alone(&message);
    assert!(payload.len() > MOST);
    for place in PLACES {
        let mut peer = Peer::open(&server, place, OFFER);
        peer.stream.write_all(&frame(BINARY | RSV1, &payload)).unwrap();
        assert!(peer.receive() == (BINARY, message.clone()));
    }
}

#[cfg(all(feature = "cli", target_os = "linux"))]
mod bomb {
    use super::*;
    use crate::common::process::Process;

    const GIB: usize = 1 << 30;
    const PART: usize = 4 << 20;

    /// A message of a GiB of zeros, in less than a MiB.
    fn bomb() -> Vec<u8> {
        let mut compress = Compress::new_with_window_bits(Level::new(9), false, 15);
        let zeros = vec![0; PART];
        let mut part = || [deflate(&mut compress, &zeros), TAIL.to_vec()].concat();
        // From the second on, all blocks compress to the same bytes: zeros after zeros.
        let (first, second) = (part(), part());
        let mut start = Decompress::new(false);
        for part in [&first, &second, &second] {
            let zeros = inflate(&mut start, &part[..part.len() - TAIL.len()]).unwrap();
            assert!(zeros.len() == PART && zeros.iter().all(|byte| *byte == 0));
        }
        [first, second.repeat(GIB / PART - 1), vec![0]].concat()
    }

    #[test]
    fn a_decompression_bomb_is_stopped_at_the_limit_and_takes_no_memory() {
        let bomb = bomb();
        assert!(bomb.len() < 1 << 20, "{} bytes: the frame alone is within the limits", bomb.len());
        let zeros = vec![0; 1 << 20];
        for compression in ["pooled", "dedicated"] {
            let listen = ["serve", "--listen", "127.0.0.1:0", "--max-message-size", "1M"];
            let mut server = Process::start(&[&listen[..], &["--compress", compression]].concat());
            let address = server.address("http");
            let open = |path| {
                let mut stream = Stream::connect(address, Scheme::Ws);
                let offer = format!("\r\nSec-WebSocket-Extensions: {OFFER}\r\n\r\n");
                stream.write_all(handshake(path).replace("\r\n\r\n", &offer).as_bytes()).unwrap();
                assert!(stream.read_head().contains("permessage-deflate"));
                stream
            };
            for path in ["/echo", "/echo-shared"] {
                // A message of the largest allowed size takes memory, too.
                for _ in 0..2 {
                    let mut stream = open(path);
                    stream.write_all(&frame(BINARY | RSV1, &deflate_alone(&zeros))).unwrap();
                    let (first, payload) = stream.read_frame();
                    assert_eq!(first, BINARY | RSV1);
                    assert!(inflate(&mut Decompress::new(false), &payload).unwrap() == zeros);
                }
                let before = server.memory("VmHWM");
                for _ in 0..3 {
                    assert_closed(open(path), &frame(BINARY | RSV1, &bomb), 1009, path);
                    let fragments: Vec<u8> = bomb.chunks(1000).flat_map(|piece| frame(0, piece)).collect();
                    let fragments = [frame(BINARY & !FIN | RSV1, b""), fragments].concat();
                    assert_closed(open(path), &fragments, 1009, path);
                }
                // The kernel counts per thread, so a later value may be slightly smaller.
                let more = server.memory("VmHWM").saturating_sub(before);
                assert!(more < 8 * 1024, "{compression} {path}: {more} KiB more");
            }
        }
    }
}

/// Inflates strictly by RFC 1951, and fails if a message refers back more than `window` bytes: zlib's own
/// inflater allows more than the window that it is given.
struct Strict {
    window: usize,
    past: Vec<u8>,
}

impl Strict {
    fn new(window_bits: u8) -> Self {
        Self { window: 1 << window_bits, past: Vec::new() }
    }

    fn inflate(&mut self, payload: &[u8]) -> Result<Vec<u8>, String> {
        let payload = [payload, &TAIL].concat();
        let begin = self.past.len();
        let mut bits = Bits { bytes: &payload, at: 0 };
        while bits.at < payload.len() * 8 {
            bits.number(1); // whether it is the last block
            match bits.number(2) {
                0 => {
                    bits.at = bits.at.next_multiple_of(8);
                    let (len, check) = (bits.number(16), bits.number(16));
                    assert_eq!(len ^ check, 0xffff);
                    self.past.extend((0..len).map(|_| bits.number(8) as u8));
                }
                1 => {
                    let lengths: Vec<u8> = [(8, 144), (9, 112), (7, 24), (8, 8)]
                        .iter()
                        .flat_map(|&(n, times)| vec![n; times])
                        .collect();
                    self.block(&mut bits, &Code::new(&lengths), &Code::new(&[5; 30]))?;
                }
                2 => {
                    let (literals, distances) = (bits.number(5) + 257, bits.number(5) + 1);
                    let lengths = bits.code_lengths(literals + distances);
                    let (literals, distances) = lengths.split_at(literals);
                    self.block(&mut bits, &Code::new(literals), &Code::new(distances))?;
                }
                _ => return Err("a block of no kind".into()),
            }
        }
        Ok(self.past[begin..].to_vec())
    }

    /// Section 3.2.5.
    fn block(&mut self, bits: &mut Bits, literals: &Code, distances: &Code) -> Result<(), String> {
        loop {
            let symbol = bits.symbol(literals);
            let len = match symbol {
                0..256 => {
                    self.past.push(symbol as u8);
                    continue;
                }
                256 => return Ok(()),
                257..265 => symbol - 254,
                285 => 258,
                _ => {
                    let extra = (symbol - 261) / 4;
                    ((4 + (symbol - 265) % 4) << extra) + 3 + bits.number(extra)
                }
            };
            let symbol = bits.symbol(distances);
            let distance = match symbol {
                0..4 => symbol + 1,
                _ => ((2 + symbol % 2) << (symbol / 2 - 1)) + 1 + bits.number(symbol / 2 - 1),
            };
            if distance > self.window.min(self.past.len()) {
                return Err(format!("{distance} bytes ago"));
            }
            for _ in 0..len {
                self.past.push(self.past[self.past.len() - distance]);
            }
        }
    }
}

struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn number(&mut self, bits: usize) -> usize {
        let bit = |at: usize| usize::from(self.bytes[at / 8] >> (at % 8) & 1);
        let number = (0..bits).map(|n| bit(self.at + n) << n).sum();
        self.at += bits;
        number
    }

    fn symbol(&mut self, code: &Code) -> usize {
        let mut bits = 0;
        (1..=15)
            .find_map(|len| {
                bits = bits << 1 | self.number(1);
                code.0.get(&(len, bits)).copied()
            })
            .expect("a symbol")
    }

    /// Section 3.2.7.
    fn code_lengths(&mut self, count: usize) -> Vec<u8> {
        const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
        let given = self.number(4) + 4;
        let mut lengths = [0; 19];
        for at in &ORDER[..given] {
            lengths[*at] = self.number(3) as u8;
        }
        let code = Code::new(&lengths);
        let mut lengths = Vec::new();
        while lengths.len() < count {
            let (length, times) = match self.symbol(&code) {
                16 => (*lengths.last().unwrap(), 3 + self.number(2)),
                17 => (0, 3 + self.number(3)),
                18 => (0, 11 + self.number(7)),
                length => (length as u8, 1),
            };
            lengths.extend(vec![length; times]);
        }
        lengths
    }
}

/// A Huffman code: symbols by the length and the bits of their code.
struct Code(HashMap<(u8, usize), usize>);

impl Code {
    /// Section 3.2.2.
    fn new(lengths: &[u8]) -> Self {
        let mut codes = HashMap::new();
        let mut next = 0;
        for len in 1..=15 {
            for (symbol, _) in lengths.iter().enumerate().filter(|(_, other)| **other == len) {
                codes.insert((len, next), symbol);
                next += 1;
            }
            next <<= 1;
        }
        Self(codes)
    }
}

/// Does nothing until it is told to; then it takes its messages, and tells of each how long it is.
struct Late {
    /// Its other end is dropped then.
    gate: Arc<Mutex<mpsc::Receiver<()>>>,
    sizes: mpsc::Sender<usize>,
}

impl Late {
    fn wait(&self) {
        let _ = self.gate.lock().unwrap().recv_timeout(PATIENCE);
    }
}

impl WebSocketServer for Late {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        opening.set_shared_connection(!opening.path().starts_with("/own"));
        Ok(())
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        if !ws.path().starts_with("/handler") {
            self.wait();
            for message in ws.messages() {
                let _ = self.sizes.send(message.len());
            }
        }
        Ok(())
    }

    fn on_client_message(&mut self, _ws: &WebSocket, message: Message) -> Handled {
        self.wait();
        let _ = self.sizes.send(message.len());
        Handled::Yes
    }
}

/// 64 messages that are a KiB each on the wire, and a MiB in memory, come at once, and nobody takes them. As many are inflated
/// as the inbox has room for: one, and one that was begun.
#[test]
fn a_burst_of_compressed_messages_stops_at_the_bound_of_the_inbox() {
    const COUNT: usize = 64;
    const SIZE: usize = 1 << 20;
    let burst = frame(BINARY | RSV1, &deflate_alone(&vec![0; SIZE])).repeat(COUNT);
    for (compression, workers) in [(Compression::Pooled, 2), (DEDICATED, 2), (DEDICATED, 0)] {
        for (scheme, path) in SCHEMES.into_iter().flat_map(|s| ["/own", "/open", "/handler"].map(|p| (s, p)))
        {
            if workers == 0 && path == "/handler" {
                continue; // the gateway itself waits in it
            }
            let ((go, gate), (tx, sizes)) = (mpsc::channel(), mpsc::channel());
            let gate = Arc::new(Mutex::new(gate));
            let mut limits = Limits::default();
            limits.workers = workers;
            // So the gateway looks at busy threads every 100 ms.
            limits.ping_timeout = Duration::from_millis(400);
            limits.ping_interval = None;
            let server = serve(|builder| {
                let late = move || Late { gate: gate.clone(), sizes: tx.clone() };
                builder.limits(limits).compression(compression).route("/*", late)
            });
            let (mut stream, agreed) = open(&server, scheme, path, &[OFFER]);
            assert!(agreed.is_some());
            stream.write_all(&burst).unwrap();
            let received = || server.hub.connections(Audience::All, None, 1).unwrap().items[0].messages_in;
            eventually("the first is inflated", || received() > 0);
            thread::sleep(Duration::from_millis(250)); // nothing tells that no more of them are
            let inflated = received();
            drop(go);
            assert!(inflated <= 2, "{inflated} at {path}, {scheme:?}, {compression:?}");
            for _ in 0..COUNT {
                assert_eq!(sizes.recv_timeout(PATIENCE), Ok(SIZE), "{path}, {scheme:?}");
            }
        }
    }
}

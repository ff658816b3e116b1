mod roles;

use std::ops::Range;

use proptest::prelude::*;
use tungstenite::WebSocket;

use super::*;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

fn codec() -> Codec {
    Codec::new(Role::Server, Stream::plain(), &Limits::default(), None)
}

/// One frame of a client; `first` is FIN, the reserved bits and the opcode.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        n @ ..126 => bytes.push(0x80 | n as u8),
        n @ ..65536 => {
            bytes.push(0x80 | 126);
            bytes.extend((n as u16).to_be_bytes());
        }
        n => {
            bytes.push(0x80 | 127);
            bytes.extend((n as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().enumerate().map(|(i, b)| b ^ MASK[i % 4]));
    bytes
}

/// All events of `bytes`, fed in one go.
fn decode(codec: &mut Codec, bytes: &[u8]) -> Result<Vec<Event>, Failure> {
    codec.stream().feed(&mut bytes.to_vec())?;
    let mut events = Vec::new();
    while let Some(event) = codec.next(&mut Work::of(usize::MAX))? {
        events.push(event);
    }
    Ok(events)
}

fn text(text: &str) -> Event {
    Event::Message(Message::from(text))
}

fn sent(codec: &mut Codec) -> Vec<u8> {
    codec.stream().seal().unwrap();
    let bytes = codec.stream().pending_parts().concat();
    codec.stream().mark_sent(bytes.len());
    bytes
}

fn refused(bytes: &[u8]) -> u16 {
    let mut codec = codec();
    let failure = decode(&mut codec, bytes).unwrap_err();
    codec.close(failure.code, &failure.text);
    let close = sent(&mut codec);
    assert_eq!(close[0], 0x88);
    assert_eq!(close[2..4], failure.code.0.to_be_bytes());
    failure.code.0
}

#[test]
fn a_message_of_each_kind() {
    let mut bytes = frame(0x81, "grüß".as_bytes());
    bytes.extend(frame(0x82, &[0, 255]));
    bytes.extend(frame(0x81, b""));
    let events = decode(&mut codec(), &bytes).unwrap();
    assert_eq!(events, [text("grüß"), Event::Message(Message::from(vec![0, 255])), text("")]);
}

#[test]
fn control_frames_between_fragments() {
    let mut codec = codec();
    let bytes =
        [frame(0x01, b"a"), frame(0x89, b"ping"), frame(0x00, b"b"), frame(0x8a, b"pong"), frame(0x80, b"c")];
    let events = decode(&mut codec, &bytes.concat()).unwrap();
    assert_eq!(events, [Event::Ping, Event::Pong(Bytes::from_static(b"pong")), text("abc")]);
    assert_eq!(sent(&mut codec), b"\x8a\x04ping");
}

#[test]
fn each_ping_is_answered_with_a_pong() {
    let mut codec = codec();
    decode(&mut codec, &[frame(0x89, b"1"), frame(0x89, b"2")].concat()).unwrap();
    assert_eq!(sent(&mut codec), b"\x8a\x011\x8a\x012");
}

#[test]
fn both_sides_can_begin_the_close() {
    let mut by_client = codec();
    let events = decode(&mut by_client, &frame(0x88, b"\x0f\xa1bye")).unwrap();
    assert_eq!(events, [Event::Close(CloseCode(4001), "bye".into())]);
    assert_eq!(sent(&mut by_client), b"", "the protocol says when it is answered");
    by_client.close(CloseCode(4001), "bye");
    assert_eq!(sent(&mut by_client), b"\x88\x05\x0f\xa1bye");

    let mut by_server = codec();
    by_server.close(CloseCode::NORMAL, "done");
    assert_eq!(sent(&mut by_server), b"\x88\x06\x03\xe8done");
    let events = decode(&mut by_server, &[frame(0x81, b"late"), frame(0x88, b"\x03\xe8")].concat()).unwrap();
    assert_eq!(events, [text("late"), Event::Close(CloseCode::NORMAL, "".into())]);
    assert_eq!(sent(&mut by_server), b"", "one close frame is enough");
}

#[test]
fn a_close_text_is_cut_between_characters() {
    let mut codec = codec();
    codec.close(CloseCode(4000), &"ä".repeat(100));
    let bytes = sent(&mut codec);
    assert_eq!(bytes[1], 2 + 122);
    assert!(std::str::from_utf8(&bytes[4..]).is_ok());
}

#[test]
fn each_broken_rule_has_its_close_code() {
    assert_eq!(refused(&frame(0xc1, b"x")), 1002, "reserved bit");
    assert_eq!(refused(&frame(0x83, b"x")), 1002, "reserved opcode");
    assert_eq!(refused(&frame(0x8b, b"x")), 1002, "reserved control opcode");
    assert_eq!(refused(&frame(0x09, b"x")), 1002, "fragmented ping");
    assert_eq!(refused(&frame(0x89, &[0; 126])), 1002, "long ping");
    assert_eq!(refused(&frame(0x80, b"x")), 1002, "continuation of nothing");
    assert_eq!(refused(&[frame(0x01, b"x"), frame(0x81, b"x")].concat()), 1002, "text within a message");
    assert_eq!(refused(&[0x81, 1, b'x']), 1002, "not masked");
    assert_eq!(refused(&[0x82, 0xfe, 0, 125, 0, 0, 0, 0]), 1002, "125 in two bytes");
    assert_eq!(
        refused(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0]),
        1002,
        "65,535 in eight bytes"
    );
    assert_eq!(
        refused(&[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        1002,
        "the highest bit of a length"
    );
    assert_eq!(refused(&frame(0x88, b"x")), 1002, "close of one byte");
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        assert_eq!(refused(&frame(0x88, &code.to_be_bytes())), 1002, "close code {code}");
    }
    assert_eq!(refused(&frame(0x81, b"\xff")), 1007);
    assert_eq!(refused(&[frame(0x01, b"\xc3"), frame(0x80, b"x")].concat()), 1007);
    assert_eq!(refused(&frame(0x88, b"\x03\xe8\xff")), 1007, "close text");
    assert_eq!(refused(&frame(0x81, &[b'x'; (1 << 20) + 1])), 1009);
    assert_eq!(refused(&[frame(0x01, &[b'x'; 1 << 20]), frame(0x80, b"x")].concat()), 1009);
}

#[test]
fn a_frame_that_is_too_large_is_refused_by_its_header() {
    let mut announced = vec![0x82, 0xff];
    announced.extend((u64::MAX >> 1).to_be_bytes());
    announced.extend(MASK);
    assert_eq!(refused(&announced), 1009);
}

#[test]
fn bad_text_is_refused_before_its_frame_is_complete() {
    let bytes = frame(0x81, &[&[b'x'; 100][..], b"\xff", &[b'x'; 100]].concat());
    let mut codec = codec();
    assert_eq!(decode(&mut codec, &bytes[..100]).unwrap(), []);
    assert_eq!(decode(&mut codec, &bytes[100..150]).unwrap_err().code, 1007);
}

#[test]
fn messages_before_a_broken_rule_are_kept() {
    let mut codec = codec();
    codec.stream().feed(&mut [frame(0x81, b"good"), frame(0x83, b"bad")].concat()).unwrap();
    assert_eq!(codec.next(&mut Work::of(usize::MAX)).unwrap(), Some(text("good")));
    assert_eq!(codec.next(&mut Work::of(usize::MAX)).unwrap_err().code, 1002);
}

#[test]
fn short_messages_are_taken_together_up_to_anything_else() {
    let long = [b'x'; 126];
    let others = [
        frame(0x81, b"\xff"),
        frame(0x89, b"ping"),
        frame(0x01, b"frag"),
        frame(0xc1, b"compressed"),
        frame(0x83, b"reserved"),
        frame(0x82, &long),
        vec![0x81, 1, b'x'],
        frame(0x81, b"cut off")[..8].to_vec(),
    ];
    for other in others {
        let mut codec = codec();
        let bytes = [frame(0x81, b"one"), frame(0x82, b"\xff"), frame(0x82, b""), other.clone()].concat();
        codec.stream().feed(&mut bytes.clone()).unwrap();
        let mut short = Vec::new();
        codec.take_short(&mut short, 1);
        assert_eq!(short, [Message::from("one")]);
        codec.take_short(&mut short, 9);
        assert_eq!(short[1..], [Message::from(vec![0xff]), Message::from(Vec::new())]);
        assert_eq!(codec.stream().input(), other, "it is as it came");
    }
}

#[test]
fn no_message_is_taken_past_the_limit() {
    let limits = Limits { max_message_size: 4, ..Limits::default() };
    let mut codec = Codec::new(Role::Server, Stream::plain(), &limits, None);
    codec.stream().feed(&mut frame(0x81, b"12345")).unwrap();
    let mut short = Vec::new();
    codec.take_short(&mut short, 9);
    assert_eq!(
        (short.len(), codec.next(&mut Work::of(usize::MAX)).unwrap_err().code),
        (0, CloseCode::TOO_BIG)
    );
}

#[test]
fn knows_whether_whole_messages_wait() {
    let mut codec = codec();
    let bytes = [frame(0x81, b"one"), frame(0x01, b"two"), frame(0x80, b"!"), frame(0x82, b"three")].concat();
    assert!(!codec.has_whole_message());
    codec.stream().feed(&mut bytes[..bytes.len() - 1].to_vec()).unwrap();
    assert!(codec.has_whole_message());
    codec.next(&mut Work::of(usize::MAX)).unwrap();
    assert!(codec.has_whole_message());
    codec.next(&mut Work::of(usize::MAX)).unwrap();
    assert!(!codec.has_whole_message(), "the third lacks a byte");
    codec.next(&mut Work::of(usize::MAX)).unwrap();
    codec.stream().feed(&mut bytes[bytes.len() - 1..].to_vec()).unwrap();
    assert!(codec.has_whole_message());
}

#[test]
fn no_buffer_is_kept_between_messages() {
    let mut codec = codec();
    decode(&mut codec, &frame(0x81, b"x")).unwrap();
    assert!(codec.message.is_none());
    decode(&mut codec, &frame(0x01, b"x")).unwrap();
    assert!(codec.message.is_some(), "a message is half there");
    decode(&mut codec, &frame(0x80, b"x")[..3]).unwrap();
    assert!(codec.message.is_some());
}

/// A client's message, as fragments with pings between.
#[derive(Debug, Clone)]
struct Sent {
    binary: bool,
    fragments: Vec<Vec<u8>>,
    pings: bool,
}

fn sent_message() -> impl Strategy<Value = Sent> {
    let size =
        prop_oneof![6 => 0..200usize, 1 => 120..130usize, 1 => 16_000..40_000usize, 1 => 65_530..65_540usize];
    (any::<bool>(), size, prop::collection::vec(any::<prop::sample::Index>(), 0..4), any::<bool>()).prop_map(
        |(binary, size, cuts, pings)| {
            let pattern = if binary { &[0u8, 0xff, 0xc3, 7][..] } else { "aß€🎉".as_bytes() };
            let payload: Vec<u8> = if binary {
                pattern.iter().copied().cycle().take(size).collect()
            } else {
                pattern.repeat(size / 10)
            };
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
            cuts.extend([0, payload.len()]);
            cuts.sort_unstable();
            let fragments =
                cuts.windows(2).map(|w| payload[Range { start: w[0], end: w[1] }].to_vec()).collect();
            Sent { binary, fragments, pings }
        },
    )
}

fn wire(messages: &[Sent]) -> (Vec<u8>, Vec<Event>) {
    let (mut bytes, mut events) = (Vec::new(), Vec::new());
    for message in messages {
        let last = message.fragments.len() - 1;
        for (i, fragment) in message.fragments.iter().enumerate() {
            let opcode = if i > 0 { 0 } else { 1 + u8::from(message.binary) };
            bytes.extend(frame(if i == last { 0x80 } else { 0 } | opcode, fragment));
            if message.pings && i < last {
                bytes.extend(frame(0x89, b"?"));
                events.push(Event::Ping);
            }
        }
        let payload = message.fragments.concat();
        events.push(Event::Message(if message.binary {
            Message::from(payload)
        } else {
            Message::from(String::from_utf8(payload).unwrap())
        }));
    }
    (bytes, events)
}

#[test]
fn a_short_header_is_parsed_as_tungstenite_parses_it() {
    let mut parsed = 0;
    for (first, second) in (0..=255).flat_map(|first| (0..=255).map(move |second| (first, second))) {
        let input = [first, second, 1, 2, 3, 4, 5];
        if let Some(header) = Header::parse_short(&input) {
            assert_eq!(Header::parse_any(&input, Role::Server), Ok(Some(header)));
            parsed += 1;
        }
        if let Some(header) = Header::parse_short_unmasked(&input) {
            assert_eq!(Header::parse_any(&input, Role::Client), Ok(Some(header)));
            parsed += 1;
        }
        assert_eq!(Header::parse_short(&input[..5]), None);
        assert_eq!(Header::parse_short_unmasked(&input[..1]), None);
    }
    assert_eq!(parsed, 2 * 2 * 126);
}

proptest! {
    #[test]
    fn messages_decode_the_same_however_the_bytes_are_split(
        messages in prop::collection::vec(sent_message(), 1..5),
        chunks in prop::collection::vec(prop_oneof![1..20usize, 1..5_000usize], 1..40),
    ) {
        let (bytes, expected) = wire(&messages);
        let mut codec = codec();
        let (mut events, mut rest) = (Vec::new(), &bytes[..]);
        for size in chunks.iter().cycle() {
            let (chunk, more) = rest.split_at((*size).min(rest.len()));
            codec.stream().feed(&mut chunk.to_vec()).unwrap();
            let mut waiting = codec.has_whole_message();
            while let Some(event) = codec.next(&mut Work::of(usize::MAX)).unwrap() {
                prop_assert!(waiting, "had no whole message, yet returned one");
                events.push(event);
                waiting = codec.has_whole_message();
            }
            prop_assert!(!waiting, "had a whole message, yet returned none");
            rest = more;
            if rest.is_empty() { break }
        }
        prop_assert_eq!(events, expected);
        prop_assert!(codec.message.is_none());
    }

    #[test]
    fn no_input_causes_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), chunk in 1..50usize) {
        let mut codec = codec();
        for chunk in bytes.chunks(chunk) {
            match decode(&mut codec, chunk) {
                Ok(events) if events.iter().any(|e| matches!(e, Event::Close(..))) => break,
                Ok(_) => {}
                Err(failure) => { codec.close(failure.code, &failure.text); break }
            }
        }
    }

    #[test]
    fn what_is_encoded_is_one_whole_frame(payload in prop::collection::vec(any::<u8>(), 0..70_000)) {
        let mut codec = codec();
        codec.encode_now(Message::from(payload.clone()).into());
        let bytes = sent(&mut codec);
        let mut client = WebSocket::from_raw_socket(std::io::Cursor::new(bytes), Role::Client, None);
        prop_assert_eq!(client.read().unwrap(), tungstenite::Message::binary(payload));
    }
}

/// Every piece of work gets somewhere, and all of them come to the same.
#[test]
fn work_is_done_in_pieces() {
    let deflate = Deflate {
        ours: Direction { window_bits: 15, no_context_takeover: false },
        theirs: Direction { window_bits: 15, no_context_takeover: false },
        level: 6,
    };
    let zeros = deflated(&vec![0; 1 << 20]);
    for (name, bytes, at_least) in [
        (
            "empty continuations",
            [frame(0x01, b""), frame(0x00, b"").repeat(10_000), frame(0x80, b"x")].concat(),
            3,
        ),
        ("pings", [frame(0x89, b"").repeat(10_000), frame(0x81, b"x")].concat(), 3),
        ("what inflates to a mebibyte", frame(0xc2, &zeros), 10),
        ("empty final blocks", frame(0xc2, &[3, 0].repeat(20_000)), 20),
        ("final blocks of a byte", frame(0xc2, &[0x4b, 4, 0].repeat(2_000)), 4),
    ] {
        let decode = |piece| {
            let mut codec = Codec::new(Role::Server, Stream::plain(), &Limits::default(), Some(deflate));
            codec.stream().feed(&mut bytes.clone()).unwrap();
            let (mut messages, mut pieces) = (Vec::new(), 0);
            loop {
                let mut work = Work::of(piece);
                loop {
                    match codec.next(&mut work).unwrap() {
                        Some(Event::Message(message)) => messages.push(message),
                        Some(_) => {}
                        None => break,
                    }
                }
                pieces += 1;
                if !work.is_done() {
                    assert!(!codec.has_input(), "{name}: something is left");
                    return (messages, pieces);
                }
                assert!(pieces < 1_000_000, "{name}: no end");
            }
        };
        let (messages, pieces) = decode(usize::MAX);
        assert_eq!((messages.len(), pieces), (1, 1), "{name}");
        for piece in [1, 1000, 100_000] {
            let (same, pieces) = decode(piece);
            assert!(same == messages, "{name}: another message");
            assert!(pieces >= at_least, "{name}: {pieces} pieces of {piece}");
        }
    }
}

fn deflated(payload: &[u8]) -> Vec<u8> {
    let mut compress = flate2::Compress::new(flate2::Compression::new(6), false);
    let mut out = Vec::with_capacity(payload.len());
    compress.compress_vec(payload, &mut out, flate2::FlushCompress::Sync).unwrap();
    out.truncate(out.len() - 4);
    out
}

//! A client's codec and a server's talk to each other over memory.

use std::collections::HashSet;

use super::*;

/// Both ends of one connection, and all that each has received.
struct Pair {
    ends: [Codec; 2],
    received: [Vec<Event>; 2],
}

const SERVER: usize = 0;
const CLIENT: usize = 1;

impl Pair {
    fn new(of_server: Option<Deflate>) -> Self {
        let of_client = of_server.map(Deflate::of_peer);
        let end = |role, deflate| Codec::new(role, Stream::plain(), &Limits::default(), deflate);
        Self {
            ends: [end(Role::Server, of_server), end(Role::Client, of_client)],
            received: [Vec::new(), Vec::new()],
        }
    }

    fn send(&mut self, from: usize, deflate: Option<Deflate>, message: &Message) {
        let outgoing = match deflate {
            Some(deflate) => deflate.prepare(message.clone(), Limits::default().min_compressed_size, None),
            None => message.clone().into(),
        };
        self.ends[from].encode_now(outgoing);
    }

    /// Moves what `from` has pending to the other end, in chunks of these sizes.
    fn carry(&mut self, from: usize, sizes: &[usize]) -> Result<(), Failure> {
        let bytes = sent(&mut self.ends[from]);
        let (to, mut rest) = (1 - from, &bytes[..]);
        for size in sizes.iter().cycle() {
            let (chunk, more) = rest.split_at((*size).min(rest.len()));
            let events = decode(&mut self.ends[to], chunk)?;
            self.received[to].extend(events);
            rest = more;
            if rest.is_empty() {
                break;
            }
        }
        Ok(())
    }
}

/// What a server agrees upon.
fn agreement() -> impl Strategy<Value = Deflate> {
    let direction = |smallest: u8| {
        (smallest..=15, any::<bool>())
            .prop_map(|(window_bits, no_context_takeover)| Direction { window_bits, no_context_takeover })
    };
    (direction(9), direction(8), 1..=9u8).prop_map(|(ours, theirs, level)| Deflate { ours, theirs, level })
}

/// Some that compress well, some that do not, some that are sent without a copy.
fn message() -> impl Strategy<Value = Message> {
    let size =
        prop_oneof![4 => 0..300usize, 1 => 120..130usize, 1 => 4_000..20_000usize, 1 => 65_530..65_540usize];
    (size, 0..3u8, any::<u64>()).prop_map(|(size, kind, seed)| match kind {
        0 => Message::from("{\"größe\":1}".repeat(size / 10)),
        1 => Message::from((0..size).map(|i| (i / 7) as u8).collect::<Vec<_>>()),
        _ => {
            let next = |n: &u64| Some(n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
            let noise = std::iter::successors(Some(seed), next).map(|n| (n >> 33) as u8);
            Message::from(noise.take(size).collect::<Vec<_>>())
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_client_and_a_server_understand_each_other(
        deflate in prop::option::of(agreement()),
        messages in prop::collection::vec((0..2usize, message()), 1..12),
        chunks in prop::collection::vec(prop_oneof![1..20usize, 1..5_000usize], 1..20),
        park in any::<prop::sample::Index>(),
    ) {
        let mut pair = Pair::new(deflate);
        let deflates = [deflate, deflate.map(Deflate::of_peer)];
        let mut expected = [Vec::new(), Vec::new()];
        for (i, (from, message)) in messages.iter().enumerate() {
            pair.send(*from, deflates[*from], message);
            expected[1 - from].push(Event::Message(message.clone()));
            if i % 3 > 0 {
                pair.carry(*from, &chunks).unwrap();
            }
            if i == park.index(messages.len()) {
                pair.ends.iter_mut().for_each(|end| end.park(true));
            }
        }
        for from in [SERVER, CLIENT] {
            pair.carry(from, &chunks).unwrap();
        }
        prop_assert_eq!(&pair.received, &expected);
    }
}

#[test]
fn pings_are_answered_and_closes_can_be_in_both_roles() {
    for from in [SERVER, CLIENT] {
        let to = 1 - from;
        let mut pair = Pair::new(None);
        pair.ends[from].ping(*b"12345678");
        pair.carry(from, &[3]).unwrap();
        pair.carry(to, &[3]).unwrap();
        pair.ends[from].close(CloseCode(4000), "enough");
        pair.carry(from, &[3]).unwrap();
        pair.ends[to].close(CloseCode(4000), "enough"); // when that is answered is not the codec's to decide
        pair.carry(to, &[3]).unwrap();
        let close = || Event::Close(CloseCode(4000), "enough".into());
        assert_eq!(pair.received[to], [Event::Ping, close()]);
        assert_eq!(pair.received[from], [Event::Pong(Bytes::from_static(b"12345678")), close()]);
    }
}

#[test]
fn a_client_refuses_a_masked_frame() {
    let [_, mut client] = Pair::new(None).ends;
    let failure = decode(&mut client, &frame(0x81, b"x")).unwrap_err();
    assert_eq!(failure.code, CloseCode::PROTOCOL_ERROR);
    client.close(failure.code, &failure.text);
    let close = sent(&mut client);
    assert_eq!((close[0], close[1] & 0x80), (0x88, 0x80), "the client's own is masked");
}

#[test]
fn a_client_takes_short_messages_together() {
    let [mut server, mut client] = Pair::new(None).ends;
    for text in ["one", "two", "three"] {
        server.encode_now(Message::from(text).into());
    }
    client.stream().feed(&mut sent(&mut server)).unwrap();
    assert!(client.has_whole_message());
    let mut messages = Vec::new();
    client.take_short(&mut messages, 9);
    assert_eq!(messages, ["one", "two", "three"]);
}

#[test]
fn each_frame_of_a_client_has_a_mask_of_its_own() {
    let [_, mut client] = Pair::new(None).ends;
    let mut masks = HashSet::new();
    for _ in 0..1000 {
        client.encode_now(Message::from("x").into());
        client.ping([0; 8]);
        let bytes = sent(&mut client);
        masks.extend([bytes[2..6].to_vec(), bytes[9..13].to_vec()]);
    }
    assert!(masks.len() >= 1998, "two of 32 random bits may be the same by chance");
}

#[test]
fn a_client_leaves_the_payload_that_others_share_as_it_is() {
    let [_, mut client] = Pair::new(None).ends;
    let message = Message::from(vec![7; 100_000]);
    client.encode_now(message.clone().into());
    assert!(message.as_bytes().iter().all(|&byte| byte == 7));
    assert_eq!(sent(&mut client).len(), 14 + 100_000);
}

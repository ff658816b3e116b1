use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    fuzzing::link,
    history::Position,
    id::{NodeId, WebSocketId},
    message::Message,
};

/// What requests and answers are filled with.
#[derive(Debug, Clone)]
struct Values {
    text: String,
    other: String,
    message: Message,
    number: u64,
    small: u32,
    flag: bool,
    time: Duration,
}

fn values() -> impl Strategy<Value = Values> {
    let message = prop_oneof![
        any::<String>().prop_map(Message::from),
        vec(any::<u8>(), 0..300).prop_map(Message::from),
    ];
    let time = (0..1_u64 << 40, 0..1_000_000_000_u32).prop_map(|(secs, nanos)| Duration::new(secs, nanos));
    (any::<String>(), any::<String>(), message, any::<u64>(), any::<u32>(), any::<bool>(), time).prop_map(
        |(text, other, message, number, small, flag, time)| Values {
            text,
            other,
            message,
            number,
            small,
            flag,
            time,
        },
    )
}

fn id() -> AsText<WebSocketId> {
    AsText(WebSocketId::random(NodeId::new(7)))
}

/// Each request.
fn requests(v: &Values) -> Vec<Request<'_>> {
    let (topic, text, code, timeout, handle) = (&*v.text, &*v.other, v.small as u16, v.time, v.small);
    let except = v.flag.then(id);
    let newest = v.flag.then_some(&*v.other);
    let payload = Payload { data: (&v.message).into(), newest };
    let to = [Audience::All, Audience::Path(topic), Audience::Topic(topic), Audience::User(topic)];
    let to = to[v.small as usize % to.len()];
    let (after, limit, on, delivery) = (except, v.small, v.flag, v.number);
    let since = if v.flag { Since::Now } else { Since::Text(text) };
    vec![
        Request::Push { id: id(), payload },
        Request::PushWait { id: id(), payload, timeout },
        Request::Broadcast { to, except, payload },
        Request::Publish { topic, except, key: newest, payload },
        Request::Close { id: id(), code, text },
        Request::CloseAll { to: Audience::Route(topic), except, code, text },
        Request::Connection { id: id() },
        Request::Len,
        Request::Connections { to, after, limit },
        Request::Members { topic, after, limit },
        Request::Topics { after: newest, limit },
        Request::Presence { topic, after: newest, limit },
        Request::Join { id: id(), topic },
        Request::Leave { id: id(), topic },
        Request::JoinSince { id: id(), topic, since },
        Request::TopicsOf { id: id() },
        Request::Certificates,
        Request::CloseReason { id: id() },
        Request::Open { id: id() },
        Request::Read { handle, len: v.number, timeout },
        Request::Ack { handle, delivery },
        Request::GiveBack { handle, delivery },
        Request::Write { handle, payload },
        Request::Flush { handle },
        Request::End { handle, code, text },
        Request::Ended { handle },
        Request::SetSessionEndOnClose { handle, on },
        Request::SessionEndOnClose { handle },
        Request::SetBinaryData { handle, on },
        Request::BinaryData { handle },
        Request::Release { handle },
        Request::Nodes,
        Request::ConnectionsOf { node: handle, to, after, limit },
    ]
}

/// Each answer, and each failure.
fn answers(v: &Values) -> Vec<Answer<'_>> {
    let (text, number) = (&*v.text, v.number);
    let counts =
        Counts { sent: number, queued: 1, dropped: u64::MAX, gone: 0, forwarded: 3, unreachable: v.flag };
    let position = AsText(Position::new(number, v.number / 3));
    let maybe = v.flag.then_some(&*v.other);
    let reason = CloseReason { code: v.small as u16, text, by: answer::ClosedBy::Network };
    let tags = vec![("a", text), (text, "")];
    let address = if v.flag { "[fe80::1%3]:80" } else { "192.0.2.1:8" };
    let peer = Some(AsText(address.parse().unwrap()));
    let client_address = v.flag.then(|| AsText("2001:db8::1".parse().unwrap()));
    let at = UNIX_EPOCH + v.time;
    let connection = Connection {
        id: id(),
        path: text,
        route: "/x/*",
        peer,
        client_address,
        user_agent: maybe,
        user: maybe,
        tags: tags.clone(),
        since: at,
        age: v.time,
        last_active: at,
        idle: v.time,
        shared: v.flag,
        queued: number,
        messages_in: 0,
        messages_out: 1,
        bytes_in: number,
        bytes_out: u64::MAX,
        round_trip: v.flag.then_some(v.time),
    };
    let opened = Opened {
        handle: v.small,
        path: text,
        route: text,
        subprotocol: maybe,
        session_id: maybe,
        user: maybe,
        tags,
        peer,
        client_address,
    };
    let certificate = Certificate { name: text, subject: &v.other, not_before: UNIX_EPOCH, not_after: at };
    let items = vec![answer::Count { name: text, count: number }; 3];
    let mut all = vec![
        Answer::Done,
        Answer::Sent,
        Answer::Queued,
        Answer::Forwarded,
        Answer::Nodes(vec![
            Node {
                node: v.small,
                is_this: v.flag,
                software: text,
                connections: v.flag.then_some(number),
                uptime: v.flag.then_some(v.time),
            };
            2
        ]),
        Answer::Broadcast(counts),
        Answer::Published(Published { counts, position: v.flag.then_some(position), duplicate: v.flag }),
        Answer::Number(number),
        Answer::Flag(v.flag),
        Answer::Connection(Box::new(connection.clone())),
        Answer::Connections { items: vec![connection; 2], next: v.flag.then(id) },
        Answer::Members { items: vec![id(), id()], next: None },
        Answer::Topics { items: items.clone(), next: maybe },
        Answer::Present { items, next: maybe },
        Answer::Names(vec![text, &v.other, ""]),
        Answer::Recovery(Recovery { recovered: v.flag, missed: number, position }),
        Answer::Certificates(vec![certificate]),
        Answer::Ended(v.flag.then_some(reason)),
        Answer::Opened(Box::new(opened)),
        Answer::Delivery(Delivery {
            delivery: number,
            at_end: v.flag,
            redelivered: !v.flag,
            data: (&v.message).into(),
        }),
    ];
    all.extend(
        [
            Failure::Timeout,
            Failure::Pending,
            Failure::Closed(reason),
            Failure::QueueFull,
            Failure::NotUtf8,
            Failure::MustNotWait,
            Failure::UnknownId,
            Failure::Refused,
            Failure::NotOpen,
            Failure::NotShared,
            Failure::OverLimit(crate::error::OverLimit::AllTopics.into()),
            Failure::NoHistory,
            Failure::Other(text),
            Failure::Forbidden,
            Failure::TooMany,
            Failure::Unsupported,
            Failure::UnknownHandle,
            Failure::TooLong,
        ]
        .map(Answer::Failed),
    );
    all
}

fn frame(number: u32, body: &impl serde::Serialize) -> Vec<u8> {
    let mut message = Vec::new();
    append(&mut message, number, body).unwrap();
    message
}

/// The bodies of a message's frames.
fn bodies(message: &[u8]) -> Vec<(u32, &[u8])> {
    Frames::of(message).collect::<Result<_, _>>().unwrap()
}

proptest! {
    #[test]
    fn all_that_is_said_arrives_as_it_was(v in values()) {
        let (requests, answers) = (requests(&v), answers(&v));
        let mut message = Vec::new();
        for (number, request) in requests.iter().enumerate() {
            append(&mut message, number as u32, request).unwrap();
        }
        let got = bodies(&message);
        prop_assert_eq!(got.len(), requests.len());
        for (i, ((number, body), request)) in got.into_iter().zip(&requests).enumerate() {
            prop_assert_eq!(number as usize, i);
            prop_assert_eq!(decode_request(body), Ok(Some(request.clone())));
        }
        let mut message = Vec::new();
        answers.iter().for_each(|answer| append(&mut message, u32::MAX, answer).unwrap());
        for ((_, body), answer) in bodies(&message).into_iter().zip(&answers) {
            prop_assert_eq!(&decode::<Answer>(body).unwrap(), answer);
        }
    }

    #[test]
    fn what_is_cut_is_an_error(v in values(), at in any::<proptest::sample::Index>()) {
        for request in requests(&v) {
            let message = frame(1, &request);
            let cut = 1 + at.index(message.len() - 1);
            prop_assert!(Frames::of(&message[..cut]).next().unwrap().is_err());
            let body = &message[HEADER..];
            let cut = at.index(body.len());
            prop_assert!(decode_request(&body[..cut]).is_err(), "{:?}", request);
        }
        for answer in answers(&v) {
            let body = &frame(1, &answer)[HEADER..];
            prop_assert!(decode::<Answer>(&body[..at.index(body.len())]).is_err(), "{:?}", answer);
        }
    }

    #[test]
    fn any_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..200), kind in 0..40_u8) {
        link(&bytes);
        link(&[&[kind], &*bytes].concat());
    }

    #[test]
    fn changed_bytes_do_no_harm(
        v in values(),
        changes in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let all: Vec<_> = requests(&v).iter().map(|request| frame(1, request)).collect();
        for mut message in all.into_iter().chain(answers(&v).iter().map(|answer| frame(1, answer))) {
            for (at, byte) in &changes {
                let at = at.index(message.len());
                message[at] = *byte;
            }
            link(&message);
            link(&message[HEADER..]);
        }
    }
}

#[test]
fn each_kind_of_request_is_counted() {
    let v = Values {
        text: "t".into(),
        other: String::new(),
        message: "m".into(),
        number: 1,
        small: 1,
        flag: true,
        time: Duration::ZERO,
    };
    let kinds: Vec<u32> =
        requests(&v).iter().map(|request| decode(&frame(1, request)[HEADER..]).unwrap()).collect();
    assert_eq!(kinds, (0..Request::KINDS).collect::<Vec<_>>(), "each variant once, in its order");
    // What a newer client may say.
    assert_eq!(decode_request(&[Request::KINDS as u8, 1, 2, 3]), Ok(None));
    assert!(decode_request(&[]).is_err());
    // And what it may add.
    let longer = [&frame(1, &Request::Len)[HEADER..], b"more"].concat();
    assert_eq!(decode_request(&longer), Ok(Some(Request::Len)));
}

#[test]
fn a_length_that_is_not_there_takes_no_memory() {
    // Answers with lists that claim to have 2^60 items, and requests with such texts.
    let huge = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10];
    for kind in 0..=40 {
        let body = [&[kind], &huge[..], &[0; 64]].concat();
        link(&body);
        assert!(kind == 9 || !matches!(decode::<Answer>(&body), Ok(Answer::Names(_))));
    }
    // A frame that claims 4 GiB.
    assert!(Frames::of(&[0xff; 64]).next().unwrap().is_err());
}

#[test]
fn text_has_to_be_text_and_a_short_message_does_not_keep_a_long_one() {
    let text = frame(1, &Payload { data: (&Message::from("ä")).into(), newest: None });
    let whole = Bytes::from([&text[HEADER..], &[0; 1000][..]].concat());
    let payload: Payload<'_> = decode(&whole).unwrap();
    let message = payload.data.message(&whole).unwrap();
    assert_eq!(message, "ä");
    assert!(!whole.as_ptr_range().contains(&message.as_bytes().as_ptr()), "it is a copy");

    let long = Message::from(vec![7; 1000]);
    let whole =
        Bytes::from(frame(1, &Payload { data: (&long).into(), newest: Some("k") })[HEADER..].to_vec());
    let payload: Payload<'_> = decode(&whole).unwrap();
    let message = payload.data.message(&whole).unwrap();
    assert_eq!((&message, payload.newest), (&long, Some("k")));
    assert!(whole.as_ptr_range().contains(&message.as_bytes().as_ptr()), "it is no copy");

    let mut bytes = text[HEADER..].to_vec();
    let last = bytes.len() - 2; // behind the text there is only that it has no key
    bytes[last] = 0xff;
    let whole = Bytes::from(bytes);
    assert!(decode::<Payload<'_>>(&whole).unwrap().payload(&whole).is_err());
}

#[test]
fn a_hello_may_have_more_in_it() {
    let hello = Hello {
        version: 2,
        software: SOFTWARE,
        max_message: 1 << 20,
        max_unanswered: 1024,
        max_waits: 256,
        handshake_timeout: 10_000,
        write_timeout: 30_000,
        epoch: 3,
    };
    let mut message = hello.encode();
    message.extend_from_slice(b"what version 2 has added");
    assert_eq!(Hello::decode(&message), Ok(hello));
    assert!(Hello::decode(b"\x01\x20short").is_err());
}

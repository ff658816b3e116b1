//! How links end, and what is left of them.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    thread,
};

use super::{
    peer::{hello, hello_of, message, payload, push, read},
    *,
};
use crate::{
    CloseCode, PushErrorKind,
    wire::{Answer, AsText, HEADER, Request, SUBPROTOCOL, append, decode},
};

/// A link without a client's manners: it answers no ping, and ends without a word.
pub(super) struct Raw(UnixStream);

impl Raw {
    fn connect(served: &Served) -> Self {
        let (mut this, answer) = Self::ask_for(served, "Host: h\r\n");
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        this.send(&hello(1 << 20)).unwrap();
        this.message(); // its hello
        this
    }

    fn connect_as(served: &Served, hub: u64) -> Self {
        let (mut this, _) = Self::ask_for(served, "Host: h\r\n");
        this.send(&hello_of(hub, 1 << 20)).unwrap();
        this.message();
        this
    }

    /// Asks for a link, with these header lines. The head of the answer.
    pub(super) fn ask_for(served: &Served, lines: &str) -> (Self, String) {
        let mut stream = UnixStream::connect(&served.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "GET /@hub HTTP/1.1\r\n{lines}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
        (Self(stream), String::from_utf8(answer).unwrap())
    }

    /// Sends a binary message, with the key 0.
    fn send(&mut self, message: &[u8]) -> std::io::Result<()> {
        let length = message.len() as u64;
        let length = match length {
            0..126 => vec![0x80 | length as u8],
            126..0x1_0000 => [&[0xfe], &(length as u16).to_be_bytes()[..]].concat(),
            _ => [&[0xff], &length.to_be_bytes()[..]].concat(),
        };
        self.0.write_all(&[&[0x82], &*length, &[0; 4]].concat())?;
        self.0.write_all(message)
    }

    fn ask<'a>(&mut self, requests: impl IntoIterator<Item = Request<'a>>) {
        let mut message = Vec::new();
        for (i, request) in requests.into_iter().enumerate() {
            append(&mut message, i as u32 + 1, &request).unwrap();
        }
        self.send(&message).unwrap();
    }

    /// The next message that comes.
    fn message(&mut self) -> Vec<u8> {
        let mut read = |length: usize| {
            let mut bytes = vec![0; length];
            self.0.read_exact(&mut bytes).unwrap();
            bytes
        };
        loop {
            let head = read(2);
            let length = match head[1] {
                126 => usize::from(u16::from_be_bytes(read(2).try_into().unwrap())),
                127 => usize::try_from(u64::from_be_bytes(read(8).try_into().unwrap())).unwrap(),
                short => usize::from(short),
            };
            let message = read(length);
            if head[0] == 0x82 {
                return message;
            }
        }
    }

    /// Asks one thing, and gets its answer: no other is waited for.
    fn get(&mut self, request: Request<'_>) -> Vec<u8> {
        self.ask([request]);
        self.message().split_off(HEADER)
    }

    /// Reads until the server has ended the link. What it says last.
    fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let _ = self.0.read_to_end(&mut rest);
        rest
    }
}

/// What is to be read of a connection, each with whether it was delivered before.
fn unread(served: &Served, id: &WebSocketId, count: usize) -> Vec<(String, bool)> {
    let ws = served.hub().open_server(id).unwrap();
    let read = || ws.read_delivery(usize::MAX, PATIENCE).unwrap();
    (0..count)
        .map(|_| read())
        .map(|read| {
            let redelivered = read.redelivered();
            (read.ack().as_text().unwrap().to_owned(), redelivered)
        })
        .collect()
}

/// How a link ends, here and there.
#[derive(Debug, Clone, Copy)]
enum Way {
    Closed,
    Cut,
    Silent,
    Malformed,
    /// With answers that nobody reads.
    Clogged,
}

#[test]
fn what_was_not_acknowledged_goes_back_however_a_link_ends() {
    let limits = Limits {
        ping_interval: Some(Duration::from_secs(2)),
        ping_timeout: Duration::from_secs(2),
        write_timeout: Duration::from_millis(500),
        ..Limits::default()
    };
    let served = Served::start(|manage| manage.limits(limits), |builder| builder);
    for way in [Way::Closed, Way::Cut, Way::Silent, Way::Malformed, Way::Clogged] {
        let (client, id) = served.client("/shared");
        for i in 0..6 {
            client.write(i.to_string()).unwrap();
        }
        let mut raw = Raw::connect(&served);
        // Handles count from 1, and so do deliveries.
        let (open, handle) = (Request::Open { id: AsText(id) }, 1);
        raw.get(open);
        for i in 0..6 {
            let answer = raw.get(read(handle, PATIENCE));
            let Ok(Answer::Delivery(read)) = decode(&answer) else { panic!("{answer:?}") };
            assert_eq!(read.delivery, i + 1);
        }
        raw.get(Request::Ack { handle, delivery: 1 });
        // Another two wait for more.
        raw.ask([read(handle, PATIENCE), read(handle, PATIENCE)]);
        match way {
            Way::Closed => raw.0.write_all(&[0x88, 0x80, 0, 0, 0, 0]).unwrap(),
            Way::Cut => raw.0.shutdown(std::net::Shutdown::Both).unwrap(),
            Way::Silent => {}
            Way::Malformed => raw.send(b"garbage").unwrap(),
            Way::Clogged => {
                let page = || Request::Connections { to: crate::wire::Audience::All, after: None, limit: 0 };
                let mut message = Vec::new();
                (0..5000).for_each(|i| append(&mut message, i + 1, &page()).unwrap());
                while raw.send(&message).is_ok() {}
            }
        }
        let expected: Vec<_> = (1..6).map(|i: u32| (i.to_string(), true)).collect();
        assert_eq!(unread(&served, &id, 5), expected, "{way:?}");
        // Nobody of the link reads any more.
        client.write("later").unwrap();
        assert_eq!(unread(&served, &id, 1), [("later".to_owned(), false)], "{way:?}");
        let last = raw.rest();
        if matches!(way, Way::Malformed) {
            let close = last.windows(2).any(|bytes| bytes == CloseCode::PROTOCOL_ERROR.0.to_be_bytes());
            assert!(close, "{last:?}");
        }
    }
}

#[test]
fn a_push_that_waits_ends_with_its_link_and_sends_nothing() {
    let only_one = Limits { max_connections: 1, ..Limits::default() };
    let served = Served::start(|manage| manage.limits(only_one), |builder| builder);
    let (mut client, id) = served.deaf("/alone?drops=yes");
    let large = message(vec![1; 1 << 20]);
    let hub = served.hub();
    eventually("the queue is full", || {
        hub.push(&id, &large).is_err_and(|e| matches!(e.kind, PushErrorKind::Full))
    });
    let peer = served.link();
    let last = message("never sent");
    peer.send([
        Request::PushWait { id: AsText(id), payload: payload(&last), timeout: Duration::MAX },
        Request::Len,
    ]);
    peer.receive(PATIENCE).unwrap();
    drop(peer);
    eventually("the link is gone", || Peer::connect(&served.url(), None).is_ok());
    // Its place in the queue is behind all that was queued.
    hub.close(&id, 4000, "").unwrap();
    let mut all = Vec::new();
    let _ = client.read_to_end(&mut all);
    assert!(all.len() > 1 << 20 && !all.windows(10).any(|bytes| bytes == b"never sent"), "{}", all.len());
}

#[test]
fn a_shutdown_ends_links_and_what_they_wait_for() {
    let served = Served::new();
    let (_client, id) = served.client("/shared");
    let idle = served.link();
    let peer = served.link();
    let handle = peer.open(&id);
    peer.send((0..10).map(|_| read(handle, Duration::MAX)));
    peer.ask(Request::Len);
    let Served { server, .. } = served;
    let begun = Instant::now();
    server.shutdown(Duration::from_secs(1)).unwrap();
    assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
    assert_eq!(idle.end().code(), CloseCode::GOING_AWAY);
    assert_eq!(peer.end().code(), CloseCode::GOING_AWAY);
}

#[test]
fn a_link_that_does_not_take_its_answers_is_ended_and_holds_up_no_other() {
    let limits = Limits { write_timeout: Duration::from_secs(3), ..Limits::default() };
    let served = Served::start(|manage| manage.limits(limits), |builder| builder);
    let (client, id) = served.client("/shared?drops=yes");
    let mut raw = Raw::connect(&served);
    let sender = thread::spawn(move || {
        let id = AsText("b3kT9ZcYw4mQ1s8xAAAAKg".parse().unwrap());
        let topic = "x";
        let mut message = Vec::new();
        (0..10_000).for_each(|i| append(&mut message, i + 1, &Request::Leave { id, topic }).unwrap());
        while raw.send(&message).is_ok() {}
    });
    let peer = served.link();
    let mut count = 0;
    while !sender.is_finished() {
        let data = message(count.to_string());
        assert!(matches!(peer.ask(push(&id, &data)).answer(), Answer::Sent | Answer::Queued));
        assert_eq!(client.read_message(PATIENCE).unwrap(), data);
        count += 1;
    }
    assert!(count > 10, "{count} in three seconds");
    sender.join().unwrap();
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// In KiB.
fn memory() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn a_hundred_links_leave_nothing_behind() {
    if !is_alone("manage::link::tests::ending::a_hundred_links_leave_nothing_behind") {
        return;
    }
    // More than a listener has room for otherwise.
    let limits = Limits { max_connections: 200, ..Limits::default() };
    let served = Served::start(|manage| manage.limits(limits), |builder| builder);
    let clients: Vec<_> = (0..10).map(|_| served.client("/shared")).collect();
    let left = || (threads(), descriptors());
    thread::sleep(Duration::from_secs(3)); // until those have ended that have opened these
    let (before, mut memory_before) = (left(), 0);
    for round in 0..4 {
        let peers: Vec<_> = (0..100).map(|_| served.link()).collect();
        let large = message(vec![round as u8; 100_000]);
        for (i, peer) in peers.iter().enumerate() {
            let (_, id) = &clients[i % 10];
            let handle = peer.open(id);
            let first = peer.send((0..5).map(|_| read(handle, PATIENCE)));
            assert!(matches!(peer.ask(push(id, &large)).answer(), Answer::Sent | Answer::Queued));
            assert!(!peer.has_reply(first));
        }
        for (client, _) in &clients {
            (0..10).for_each(|_| assert_eq!(client.read_message(PATIENCE).unwrap(), large));
            client.write("to one of many").unwrap();
        }
        let ended = peers
            .into_iter()
            .map(|peer| if round % 2 == 0 { drop(peer) } else { drop(peer.client.finish()) });
        ended.for_each(drop);
        for (_, id) in &clients {
            assert_eq!(unread(&served, id, 1)[0].0, "to one of many");
        }
        // Threads stay for two seconds.
        eventually("threads and descriptors are as they were", || {
            let left = left();
            left.0 <= before.0 && left.1 <= before.1
        });
        if round == 1 {
            memory_before = memory();
        }
    }
    let more = memory().saturating_sub(memory_before);
    // One of the large messages for each link would be twice as much.
    assert!(more < 10 << 10, "{more} KiB more");
}

#[test]
fn a_link_may_end_while_its_messages_are_read() {
    // Whatever is lost on the way of an answer, each message is there for who comes next, until somebody acknowledges it.
    let served = Served::new();
    let (client, id) = served.client("/shared");
    let writer = thread::spawn(move || {
        for i in 0..300 {
            client.write(i.to_string()).unwrap();
            thread::sleep(Duration::from_micros(300));
        }
        client
    });
    let (mut seen, mut round) = (std::collections::BTreeSet::new(), 0);
    while seen.len() < 300 {
        let peer = served.link();
        let handle = peer.open(&id);
        round += 1;
        for _ in 0..round % 7 {
            let (message, delivery, _, redelivered) = peer.ask(read(handle, PATIENCE)).delivery();
            let number: u32 = message.as_text().unwrap().parse().unwrap();
            // What comes behind a later one was read before, and so was what comes twice.
            let is_next = seen.last().is_none_or(|last| *last < number);
            assert!(is_next || redelivered, "{number}, with {seen:?}");
            seen.insert(number);
            // Its acknowledgement may be lost with the link.
            peer.send_unanswered(&Request::Ack { handle, delivery });
            if seen.len() == 300 {
                break;
            }
        }
        peer.send([read(handle, PATIENCE), read(handle, PATIENCE)]);
        drop(peer);
    }
    drop(writer.join().unwrap());
}

#[test]
fn what_the_last_link_of_a_hub_has_not_done_is_not_done_behind_the_next() {
    const HUB: u64 = 7;
    let served = Served::new();
    let (client, id) = served.client(&format!("/shared?user={0}&tag={0}", "x".repeat(100)));
    let (late, next) = (message("late"), message("next"));
    // It takes no answers: so the server does not come to what is asked behind more of them than its socket takes.
    let mut old = Raw::connect_as(&served, HUB);
    let mut much = Vec::new();
    (1..4000).for_each(|number| append(&mut much, number, &Request::Connection { id: AsText(id) }).unwrap());
    append(&mut much, 4000, &push(&id, &late)).unwrap();
    old.send(&much).unwrap();
    thread::sleep(Duration::from_millis(100)); // or it has not begun: then it must not, either
    let link = Client::builder(&served.url()).subprotocol(SUBPROTOCOL).connect().unwrap();
    let new = Peer::greeting(link, hello_of(HUB, 1 << 20));
    assert_eq!(new.ask(push(&id, &next)).answer(), Answer::Sent);
    // Now the old one takes them, until it is cut.
    old.0.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    while old.0.read(&mut [0; 65536]).is_ok_and(|length| length > 0) {}
    assert_eq!(new.ask(push(&id, &message("last"))).answer(), Answer::Sent);
    let heard = [client.read_message(PATIENCE).unwrap(), client.read_message(PATIENCE).unwrap()];
    assert_eq!(heard, ["next", "last"]);
    // Another hub is not concerned.
    let others = served.link();
    assert_eq!(others.ask(Request::Len).number(), 1);
    assert_eq!(new.ask(Request::Len).number(), 1);
}

#![cfg(all(feature = "__tls", feature = "manage"))]
//! Messages of shared connections, read over HTTP: each at least once, whatever becomes of its reader.

mod common;

use std::{
    collections::BTreeSet,
    io::{Read, Write},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use common::{
    Client, PATIENCE, eventually, full_app,
    managed::{Both, Managed, READ_TOKEN, Way, aws_refusal, text, with_lines},
    next_message, read_close,
    reply::{Reply, ask},
};
use switchboard::{Limits, Opening, ServerBuilder};
use tungstenite::Message;

fn with_shared(builder: ServerBuilder) -> ServerBuilder {
    let share = |opening: &mut Opening| {
        opening.set_shared_connection(true);
        Ok(())
    };
    builder.route("/shared", move || full_app(share, |_| Ok(()), |_| {}))
}

fn managed() -> Managed {
    Managed::with(with_shared, |manage| manage)
}

/// One that reads, on a connection of its own.
struct Reader<'a> {
    way: &'a Way,
    stream: Box<dyn Both>,
    path: String,
}

impl<'a> Reader<'a> {
    fn new(way: &'a Way, id: &str) -> Self {
        Self { way, stream: way.connect(), path: format!("/@connections/{id}/messages") }
    }

    fn send(&mut self, query: &str) {
        let request = self.way.request(&format!("GET {}{query}", self.path), "");
        self.stream.write_all(&request).unwrap();
    }

    fn read(&mut self, query: &str) -> Reply {
        self.send(query);
        Reply::read(&mut self.stream)
    }

    fn ask(&mut self, request: &str, body: &str) -> Reply {
        ask(&mut self.stream, self.way.request(request, body))
    }

    /// The next message is this one.
    fn expect(&mut self, text: &str, redelivered: bool) {
        let reply = self.read("");
        assert_message(&reply, text, redelivered);
    }
}

fn assert_message(reply: &Reply, text: &str, redelivered: bool) {
    assert_eq!((reply.status, reply.text()), (200, text), "{reply:?}");
    let marks = (reply.header("at-end"), reply.header("redelivered"));
    assert_eq!(marks, (Some("true"), Some(if redelivered { "true" } else { "false" })), "{text}");
}

fn send(client: &mut Client, texts: &[&str]) {
    texts.iter().for_each(|message| client.send(text(message)).unwrap());
}

#[test]
fn each_message_is_read_once_if_another_request_follows() {
    let server = managed();
    for way in server.ways() {
        let (mut client, id) = server.client("/shared");
        let mut reader = Reader::new(&way, &id);
        send(&mut client, &["one", "tẅo"]);
        client.send(Message::binary(&b"\xff\0"[..])).unwrap();
        client.send(text("")).unwrap();
        let kinds = |reply: &Reply| {
            let header = |name| reply.header(name).unwrap_or_default().to_owned();
            (header("content-type"), header("message-type"), header("at-end"), header("redelivered"))
        };
        let of = |content: &str, kind: &str, at_end: &str| {
            (content.to_owned(), kind.to_owned(), at_end.to_owned(), "false".to_owned())
        };
        let (plain, octets) = ("text/plain; charset=utf-8", "application/octet-stream");
        for (query, body, expected) in [
            ("?timeout=9.5", "one".as_bytes(), of(plain, "text", "true")),
            ("?len=2", "tẅ".as_bytes(), of(plain, "text", "false")),
            ("?len=2&timeout=20", b"o", of(plain, "text", "true")),
            ("?len=1", b"\xff", of(octets, "binary", "false")),
            ("?len=0", b"\0", of(octets, "binary", "true")),
            ("", b"", of(plain, "text", "true")),
        ] {
            let reply = reader.read(query);
            assert_eq!((reply.status, &*reply.body), (200, body), "{query}");
            assert_eq!(kinds(&reply), expected, "{query}");
            assert_eq!(reply.header("cache-control"), Some("no-store"));
        }
        assert_eq!(reader.read("?timeout=0").status, 204, "and that was acknowledged");
        // Any request acknowledges, also one that comes to nothing.
        send(&mut client, &["a", "b", "c"]);
        reader.expect("a", false);
        assert_eq!(reader.ask("GET /@topics", "").status, 200);
        reader.expect("b", false);
        assert_eq!(reader.ask("POST /nothing", "x").status, 404);
        drop(reader);
        Reader::new(&way, &id).expect("c", false);
    }
}

/// Also by what is there for all.
#[test]
fn who_shows_the_token_acknowledges_by_whatever_it_asks_for() {
    let server = managed();
    for way in server.ways() {
        for request in ["GET /health", "HEAD /ready", "GET /@access", "GET /", "POST /health"] {
            let (mut client, id) = server.client("/shared");
            send(&mut client, &["one", "two"]);
            let mut reader = Reader::new(&way, &id);
            reader.expect("one", false);
            reader.stream.write_all(&way.request(request, "")).unwrap();
            assert!(matches!(Reply::read_head(&mut reader.stream).status, 200 | 405), "{request}");
            drop(reader);
            Reader::new(&way, &id).expect("two", false);
        }
    }
}

#[test]
fn requests_that_come_together_are_answered_in_order() {
    let server = managed();
    for way in server.ways() {
        let (mut client, id) = server.client("/shared");
        let mut reader = Reader::new(&way, &id);
        (0..10).for_each(|_| reader.send(""));
        for n in 0..10 {
            send(&mut client, &[&n.to_string()]);
            assert_message(&Reply::read(&mut reader.stream), &n.to_string(), false);
        }
    }
}

#[test]
fn what_its_reader_does_not_acknowledge_comes_back() {
    let server = managed();
    for way in server.ways() {
        // One at a time: each comes back as soon as the server has seen the end of its reader.
        let (mut client, id) = server.client("/shared");
        send(&mut client, &["1"]);
        let reader = |redelivered| {
            let mut reader = Reader::new(&way, &id);
            reader.expect("1", redelivered);
            reader
        };
        drop(reader(false)); // it vanishes
        // It says that there will be no other request.
        let path = format!("GET /@connections/{id}/messages");
        let lines = format!("{}Connection: close\r\n", way.authorization());
        assert_message(&ask(&mut way.connect(), with_lines(&path, &lines, "")), "1", true);
        let old = format!("{path} HTTP/1.0\r\n{}\r\n", way.authorization());
        assert_message(&ask(&mut way.connect(), old), "1", true);
        // What it asks next cannot be read.
        assert_eq!(ask(&mut reader(true).stream, "GET\r\n\r\n").status, 400);
        assert_eq!(reader(true).read("?timeout=0").status, 204);
    }
    let server = Managed::with(with_shared, |manage| {
        let mut limits = Limits::default();
        limits.http_keep_alive = Duration::from_millis(300);
        manage.limits(limits)
    });
    for way in server.ways() {
        let (mut client, id) = server.client("/shared");
        send(&mut client, &["1"]);
        let mut slow = Reader::new(&way, &id); // it waits too long with its next request
        slow.expect("1", false);
        assert_eq!(slow.stream.read(&mut [0]).unwrap(), 0, "its connection is ended");
        Reader::new(&way, &id).expect("1", true);
    }
}

/// Not even one that asks for something that needs no token.
#[test]
fn who_has_no_token_acknowledges_nothing() {
    let server = managed();
    for way in &server.ways()[1..] {
        let (mut client, id) = server.client("/shared");
        send(&mut client, &["1"]);
        for lines in [
            "Authorization: Bearer wrong-wrong-wrong-wrong\r\n".to_owned(),
            String::new(),
            format!("Authorization: Bearer {READ_TOKEN}\r\n"),
        ] {
            let mut reader = Reader::new(way, &id);
            let first = reader.read("");
            assert_eq!((first.status, first.text()), (200, "1"));
            ask(&mut reader.stream, with_lines("GET /@topics", &lines, ""));
            drop(reader);
            Reader::new(way, &id).expect("1", true);
        }
        let mut reader = Reader::new(way, &id);
        reader.expect("1", true);
        assert_eq!(ask(&mut reader.stream, with_lines("GET /health", "", "")).status, 200);
        drop(reader);
        let mut reader = Reader::new(way, &id);
        reader.expect("1", true);
        assert_eq!(reader.read("?timeout=0").status, 204);
        assert_eq!(reader.read("?timeout=1e-3").status, 204, "as programs write small numbers");
    }
    // Whoever may open the socket needs none.
    let way = server.unix();
    let (mut client, id) = server.client("/shared");
    send(&mut client, &["1"]);
    let mut reader = Reader::new(&way, &id);
    reader.expect("1", false);
    assert_eq!(reader.ask("GET /health", "").status, 200);
    drop(reader);
    assert_eq!(Reader::new(&way, &id).read("?timeout=0.5").status, 204);
}

#[test]
fn a_reader_waits_until_a_message_comes_or_its_time_is_up() {
    let server = managed();
    for way in server.ways() {
        let (mut client, id) = server.client("/shared");
        let mut reader = Reader::new(&way, &id);
        let begun = Instant::now();
        let reply = reader.read("?timeout=0.4");
        assert_eq!((reply.status, reply.body.len(), reply.header("content-type")), (204, 0, None));
        assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
        reader.send("?timeout=60");
        thread::sleep(Duration::from_millis(20)); // mostly it waits by then
        send(&mut client, &["now"]);
        assert_message(&Reply::read(&mut reader.stream), "now", false);
        assert!(begun.elapsed() < PATIENCE);
        // Of two, each gets one.
        let mut other = Reader::new(&way, &id);
        reader.send("");
        other.send("");
        send(&mut client, &["a", "b"]);
        let got = [&mut reader, &mut other].map(|reader| Reply::read(&mut reader.stream).text().to_owned());
        assert_eq!(BTreeSet::from(got), BTreeSet::from(["a", "b"].map(str::to_owned)));
    }
}

/// It is not even marked.
#[test]
fn whoever_waits_and_leaves_takes_no_message() {
    let server = managed();
    for way in server.ways() {
        let (mut client, id) = server.client("/shared");
        for n in 0..20 {
            let mut gone = Reader::new(&way, &id);
            gone.send("?timeout=60");
            if n % 2 == 0 {
                thread::sleep(Duration::from_millis(10)); // mostly it waits by then
            }
            drop(gone);
            // What follows comes over another connection, and may be faster than the end of that one.
            thread::sleep(Duration::from_millis(20));
            let number = n.to_string();
            send(&mut client, &[&number]);
            let mut reader = Reader::new(&way, &id);
            reader.expect(&number, false);
            assert_eq!(reader.ask("GET /@topics", "").status, 200);
        }
    }
}

#[test]
fn what_cannot_be_read_is_refused() {
    let server = managed();
    for way in server.ways() {
        let (_client, id) = server.client("/shared");
        let (_other, not_shared) = server.client("/");
        let path = format!("/@connections/{id}/messages");
        for bad in [
            "?len=-1",
            "?len=x",
            "?len=",
            "?len=1.5",
            "?timeout=-1",
            "?timeout=60.001",
            "?timeout=x",
            "?timeout=",
            "?timeout=.",
            "?timeout=1e2",
            "?timeout=inf",
            "?timeout=NaN",
            "?timeout=%2B1",
            "?wait=1",
            "?len=1&len=1",
        ] {
            let reply = way.get(&format!("{path}{bad}"));
            aws_refusal(&reply, 400, "BadRequestException");
        }
        let reply = way.get(&format!("/prod/%40connections/{not_shared}/messages"));
        assert!(aws_refusal(&reply, 409, "ConflictException").contains("not shared"));
        aws_refusal(&way.get("/@connections/x/messages"), 400, "BadRequestException");
        let gone = way.get("/@connections/AAAAAAAAAAAAAAAAAAAAAA/messages");
        aws_refusal(&gone, 410, "GoneException");
        for method in ["HEAD", "POST", "DELETE", "PUT"] {
            let reply = way.ask(&format!("{method} {path}"), "");
            assert_eq!((reply.status, reply.header("allow")), (405, Some("GET")));
        }
        assert_eq!(way.get(&format!("{path}/")).status, 404);
    }
    // To take messages from others is more than to look.
    let (mut client, id) = server.client("/shared");
    send(&mut client, &["for others"]);
    let request = format!("GET /@connections/{id}/messages");
    let socket = Way::Unix(server.folder.join("read"));
    let lines = format!("Authorization: Bearer {READ_TOKEN}\r\n");
    for (way, lines) in [(&socket, ""), (&server.plain(), lines.as_str())] {
        let reply = ask(&mut way.connect(), with_lines(&request, lines, ""));
        assert!(aws_refusal(&reply, 403, "ForbiddenException").contains("take messages"));
    }
    Reader::new(&server.unix(), &id).expect("for others", false);
}

#[test]
fn the_end_of_a_connection_waits_for_who_has_read_from_it() {
    let server = managed();
    for way in server.ways() {
        let (mut client, id) = server.client("/shared");
        let mut reader = Reader::new(&way, &id);
        send(&mut client, &["question", "another", "last"]);
        client.close(None).unwrap();
        reader.expect("question", false);
        assert_eq!(reader.ask(&format!("POST /@connections/{id}"), "answer").status, 200);
        assert_eq!(next_message(&mut client), text("answer"));
        reader.expect("another", false);
        // The next one has to come soon, or the close frame would not wait.
        let mut other = Reader::new(&way, &id);
        other.expect("last", false);
        assert_eq!(other.ask(&format!("POST /@connections/{id}"), "answer to the last").status, 200);
        assert_eq!(next_message(&mut client), text("answer to the last"));
        aws_refusal(&reader.read(""), 410, "GoneException");
        assert_eq!(read_close(&mut client).0, 1005);
        drop(client);
        eventually("it is gone", || !server.ids().contains(&id));
        aws_refusal(&other.read(""), 410, "GoneException");
    }
}

#[test]
fn whoever_waits_learns_of_the_end() {
    let server = managed();
    let (client, id) = server.client("/shared");
    for way in server.ways() {
        let mut waiting = Reader::new(&way, &id);
        waiting.send("?timeout=60");
        thread::sleep(Duration::from_millis(20)); // mostly it waits by then
        let (closed, id) = server.client("/shared");
        let mut other = Reader::new(&way, &id);
        other.send("?timeout=60");
        drop(closed); // without a close frame
        aws_refusal(&Reply::read(&mut other.stream), 410, "GoneException");
        drop(waiting);
    }
    let ways = server.ways();
    let mut waiting: Vec<_> = ways.iter().map(|way| Reader::new(way, &id)).collect();
    waiting.iter_mut().for_each(|reader| reader.send("?timeout=60"));
    thread::sleep(Duration::from_millis(2500)); // they wait by then: one that is not accepted yet has no answer
    let begun = Instant::now();
    server.server.shutdown(Duration::ZERO).unwrap();
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    for mut reader in waiting {
        let mut answer = String::new();
        reader.stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 410") || answer.starts_with("HTTP/1.1 503"), "{answer}");
    }
    drop(client);
}

#[test]
fn those_who_wait_leave_places_for_others() {
    let server = Managed::with(with_shared, |manage| {
        let mut limits = Limits::default();
        limits.max_connections = 8;
        manage.limits(limits)
    });
    let way = server.plain();
    let (mut client, id) = server.client("/shared");
    let (answered, answers) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..5 {
            let (answered, way, id) = (answered.clone(), &way, &id);
            scope.spawn(move || {
                let mut reader = Reader::new(way, id);
                let reply = reader.read("?timeout=60");
                assert_eq!(reader.ask("GET /@topics", "").status, 200);
                answered.send(reply).unwrap();
            });
        }
        let first = answers.recv_timeout(PATIENCE).unwrap();
        assert!(aws_refusal(&first, 429, "LimitExceededException").contains("too many wait"));
        let mut one_more = Reader::new(&way, &id);
        assert_eq!(one_more.read("?timeout=60").status, 429);
        assert_eq!(one_more.read("?timeout=0").status, 204, "it need not wait");
        assert_eq!(way.ask(&format!("POST /@connections/{id}"), "x").status, 200);
        assert_eq!(next_message(&mut client), text("x"));
        // Of those who wait, each gets its message.
        send(&mut client, &["1", "2", "3", "4"]);
        let answers = (0..4).map(|_| answers.recv_timeout(PATIENCE).unwrap().text().to_owned());
        assert_eq!(answers.collect::<BTreeSet<_>>(), BTreeSet::from(["1", "2", "3", "4"].map(str::to_owned)));
    });
    // Whoever leaves makes room.
    let (_client, id) = server.client("/shared");
    for _ in 0..5 {
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let mut reader = Reader::new(&way, &id);
                reader.send("?timeout=60");
                reader
            })
            .collect();
        drop(waiting);
        eventually("there is a place", || {
            way.get(&format!("/@connections/{id}/messages?timeout=0.01")).status == 204
        });
    }
}

/// Whatever readers do, each message is read, and one that was acknowledged not again.
#[test]
fn readers_that_vanish_at_any_moment_lose_nothing() {
    const MESSAGES: usize = 300;
    let server = managed();
    for way in server.ways() {
        let (mut client, id) = server.client("/shared");
        let sender = thread::spawn(move || {
            (0..MESSAGES).for_each(|n| client.send(text(&n.to_string())).unwrap());
            client
        });
        // Of those that may be acknowledged, nobody has waited for the answer to the request that does it.
        let (mut seen, mut acknowledged, mut maybe) = <(BTreeSet<_>, BTreeSet<_>, BTreeSet<_>)>::default();
        let mut random = 7_u32;
        let mut below = |n: u32| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 16) % n
        };
        while acknowledged.union(&maybe).count() < MESSAGES {
            let mut reader = Reader::new(&way, &id);
            let mut last = None;
            for _ in 0..below(6) {
                let reply = reader.read("?timeout=0.1");
                acknowledged.extend(last.take());
                if reply.status == 204 {
                    continue;
                }
                let number: usize = reply.text().parse().unwrap();
                assert!(!acknowledged.contains(&number), "{number} was acknowledged");
                let is_marked = reply.header("redelivered") == Some("true");
                assert!(is_marked || !seen.contains(&number), "{number} was seen before");
                seen.insert(number);
                last = Some(number);
            }
            match below(3) {
                0 => {
                    assert_eq!(reader.ask("GET /@topics", "").status, 200);
                    acknowledged.extend(last);
                }
                1 => {
                    reader.send("?timeout=20");
                    maybe.extend(last);
                }
                _ => {}
            }
        }
        drop(sender.join().unwrap());
    }
}

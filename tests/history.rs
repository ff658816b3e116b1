//! What topics remember: who comes back gets what was missed, in order, each once, without a gap, or is told that there is one.
#![cfg(feature = "__tls")]
mod common;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use common::{
    Client, SCHEMES, Scheme, TestServer, Until, assert_echoes, connections, echo, eventually, full_app,
    member::{members, parse_numbered},
    next_message, serve,
};
use switchboard::{
    Audience, Compression, Error, History, HubObserver, Limits, Message, Opening, OverLimit, Overflow,
    Position, PresentUser, Publication, ServerBuilder, Since, WebSocket,
};
use tungstenite::Message as Sent;

const HOUR: Duration = Duration::from_secs(3600);

fn serve_history(size: usize, age: Duration) -> TestServer {
    serve(|builder| members(builder).history("room*", History::new(size, age)))
}

/// What a member gets: the position, and what stands behind it on the first line, and then the message.
fn next_numbered(client: &mut Client) -> (Position, String, Vec<u8>) {
    parse(next_message(client))
}

fn parse(message: Sent) -> (Position, String, Vec<u8>) {
    let message = message.into_data();
    let (position, what, text) = parse_numbered(&message);
    (position, what.into(), text.into())
}

/// The first message after joining: whether nothing is missing before what follows, and where that is.
fn joined(client: &mut Client) -> (bool, Position) {
    let (position, what, text) = next_numbered(client);
    assert!(text.is_empty() && ["recovered", "gap"].contains(&&*what), "{what:?}");
    (what == "recovered", position)
}

fn assert_next(client: &mut Client, offset: u64, text: &str) -> Position {
    let (position, what, got) = next_numbered(client);
    assert_eq!((position.offset(), &*what, &*String::from_utf8_lossy(&got)), (offset, "", text));
    position
}

fn publish(server: &TestServer, texts: &[&str]) {
    for text in texts {
        server.hub.publish("room", *text).unwrap();
    }
}

#[test]
fn who_comes_back_gets_what_was_missed_and_then_what_follows() {
    for scheme in SCHEMES {
        for path in ["/", "/shared"] {
            let server = serve_history(10, HOUR);
            let mut client = server.connect(scheme, &format!("{path}?topics=room&since="));
            assert!(joined(&mut client).0);
            publish(&server, &["a", "b"]);
            assert_next(&mut client, 1, "a");
            let last = assert_next(&mut client, 2, "b");
            drop(client);
            publish(&server, &["c"]);
            let _ = server.hub.broadcast(Audience::Topic("room"), "d").unwrap();
            let mut client = server.connect(scheme, &format!("{path}?topics=room&since={last}"));
            publish(&server, &["e"]);
            assert_eq!(joined(&mut client), (true, last));
            for (offset, text) in [(3, "c"), (4, "d"), (5, "e")] {
                assert_next(&mut client, offset, text);
            }
            assert_echoes(&mut client, "what is no publication has no line");
            let mut newcomer = server.connect(scheme, &format!("{path}?topics=room&since="));
            assert_eq!(joined(&mut newcomer).1.offset(), 0);
            assert_next(&mut newcomer, 1, "a");
        }
    }
}

#[test]
fn what_is_not_remembered_any_more_is_a_gap_and_said() {
    let server = serve_history(2, HOUR);
    publish(&server, &["a"]);
    let mut client = server.connect(Scheme::Ws, "/?topics=room&since=");
    let (_, start) = joined(&mut client);
    let last = assert_next(&mut client, 1, "a");
    publish(&server, &["b", "c", "d"]);
    let mut late = server.connect(Scheme::Ws, &format!("/?topics=room&since={last}"));
    assert!(!joined(&mut late).0, "b is forgotten");
    assert_next(&mut late, 3, "c");
    assert_next(&mut late, 4, "d");
    for since in [start.to_string(), format!("{last}9"), "AAAAAAAAAAA:3".into(), "nonsense".into()] {
        let mut stranger = server.connect(Scheme::Ws, &format!("/?topics=room&since={since}"));
        let (recovered, before) = joined(&mut stranger);
        assert_eq!((recovered, before.offset()), (false, 2), "{since}");
        assert_next(&mut stranger, 3, "c");
    }
    // Another server knows nothing of it.
    let other = serve_history(2, HOUR);
    let mut client = other.connect(Scheme::Ws, &format!("/?topics=room&since={last}"));
    let (recovered, before) = joined(&mut client);
    assert_eq!((recovered, before.offset()), (false, 0));
}

#[test]
fn what_is_too_old_is_forgotten() {
    let server = serve_history(10, Duration::from_secs(3));
    publish(&server, &["a"]);
    thread::sleep(Duration::from_millis(3010));
    publish(&server, &["b"]);
    let mut client = server.connect(Scheme::Ws, "/?topics=room&since=");
    assert_eq!(joined(&mut client).1.offset(), 1);
}

#[test]
fn members_without_a_position_get_messages_as_they_are() {
    let compressed = |builder: ServerBuilder| members(builder).compression(Compression::Pooled);
    for scheme in SCHEMES {
        let server = serve(|builder| compressed(builder).history("room", History::new(10, HOUR)));
        let mut plain = server.connect_echo(scheme, "/?topics=room");
        let mut numbered = server.connect(scheme, "/shared?topics=room&since=x");
        joined(&mut numbered);
        let long = "long ".repeat(1000);
        for message in [Message::from("text"), Message::from(vec![0, 255]), Message::from(&*long)] {
            let published = server.hub.publish("room", &message).unwrap();
            assert_eq!(published.broadcast.sent + published.broadcast.queued, 2);
            let got = next_message(&mut plain);
            assert_eq!((got.is_text(), &*got.into_data()), (message.is_text(), message.as_bytes()));
            let (position, _, got) = next_numbered(&mut numbered);
            assert_eq!((Some(position), &*got), (published.position, message.as_bytes()));
        }
    }
}

#[test]
fn an_idempotency_key_publishes_once() {
    let server = serve_history(2, HOUR);
    let mut client = server.connect(Scheme::Ws, "/?topics=room&since=");
    joined(&mut client);
    let order =
        |text: &str| server.hub.publish("room", Publication::new(text).idempotency_key("17")).unwrap();
    let (first, again) = (order("order"), order("order, again"));
    assert!(!first.duplicate && first.broadcast.sent + first.broadcast.queued == 1);
    assert!(again.duplicate && again.broadcast.sent + again.broadcast.queued == 0);
    assert_eq!((first.position.unwrap().offset(), again.position), (1, first.position));
    assert!(!server.hub.publish("room2", Publication::new("x").idempotency_key("17")).unwrap().duplicate);
    publish(&server, &["x", "y"]);
    assert_eq!(order("forgotten").position.unwrap().offset(), 4);
    for (offset, text) in [(1, "order"), (2, "x"), (3, "y"), (4, "forgotten")] {
        assert_next(&mut client, offset, text);
    }
    for key in ["", &"x".repeat(129)] {
        let refused = server.hub.publish("room", Publication::new("x").idempotency_key(key));
        assert!(matches!(refused, Err(Error::OverLimit(OverLimit::IdempotencyKey))));
    }
    let refused = server.hub.publish("other", Publication::new("x").idempotency_key("17"));
    assert!(matches!(refused, Err(Error::NoHistory)));
}

#[test]
fn one_is_excepted_and_remembered_for_it() {
    let server = serve_history(10, HOUR);
    let mut sender = server.connect_echo(Scheme::Ws, "/?topics=room");
    let id = connections(&server.hub)[0].id;
    let mut other = server.connect(Scheme::Ws, "/?topics=room&since=");
    joined(&mut other);
    server.hub.publish("room", Publication::new("a").except(&id)).unwrap();
    let _ = server.hub.broadcast(Audience::Topic("room").except(&id), "b").unwrap();
    assert_next(&mut other, 1, "a");
    assert_next(&mut other, 2, "b");
    assert_echoes(&mut sender, "nothing was before this");
}

#[test]
fn an_open_connection_joins_with_what_it_has_missed() {
    let server = serve_history(10, HOUR);
    publish(&server, &["a", "b"]);
    let mut client = server.connect_echo(Scheme::Ws, "/?topics=other");
    let id = connections(&server.hub)[0].id;
    let recovery = server.hub.join_since(&id, "room", Since::NOTHING).unwrap();
    assert_eq!((recovery.recovered, recovery.missed, recovery.position.offset()), (true, 2, 2));
    assert!(joined(&mut client).0);
    assert_next(&mut client, 1, "a");
    assert_next(&mut client, 2, "b");
    // Who is a member has missed nothing.
    let again = server.hub.join_since(&id, "room", Since::NOTHING).unwrap();
    assert_eq!((again.recovered, again.missed), (true, 0));
    assert_eq!(joined(&mut client), (true, recovery.position));
    let refused = server.hub.join_since(&id, "other", Since::NOW);
    assert!(matches!(refused, Err(Error::NoHistory)));
    let long = format!("room{}", "x".repeat(1000));
    assert!(matches!(
        server.hub.join_since(&id, &long, Since::NOW),
        Err(Error::OverLimit(OverLimit::TopicName))
    ));
    assert!(matches!(server.hub.publish(&long, "x"), Err(Error::OverLimit(OverLimit::TopicName))));
    let refused = server.try_connect(Scheme::Ws, "/?topics=other&since=", &[]).unwrap_err();
    assert_eq!(refused.status(), 500, "a mistake of the program");
    drop(client);
    eventually("it is gone", || server.hub.is_empty().unwrap());
    assert!(matches!(server.hub.join_since(&id, "room", Since::NOW), Err(Error::UnknownId)));
}

#[test]
fn what_does_not_fit_into_a_queue_is_a_gap() {
    let mut limits = Limits::default();
    limits.max_queue_messages = 8;
    let too_large = members(switchboard::Server::builder()).history("room*", History::new(6, HOUR));
    let error = too_large.limits(limits.clone()).bind().unwrap_err().to_string();
    assert!(error.starts_with("history of \"room*\": 6 "), "as it was given: {error}");
    assert!(error.contains("max_queue_messages, which is 8"), "{error}");
    assert!(error.contains("to 9 or more"), "{error}");
    let mut enough = limits.clone();
    enough.max_queue_messages = 9;
    let fits = switchboard::Server::builder().listen("127.0.0.1:0").history("room*", History::new(6, HOUR));
    drop(fits.limits(enough).bind().unwrap());
    let server = serve(|builder| {
        let before = |opening: &mut Opening| {
            opening.set_overflow(Overflow::DropNewest);
            let _ = opening.hub().push(opening.websocket_id(), "before");
            let full = opening.join_since("room", opening.since())?;
            assert_eq!((full.recovered, full.missed), (false, 4));
            let other = opening.join_since("other", opening.since())?;
            assert_eq!((other.recovered, other.missed), (true, 0));
            Ok(())
        };
        let app = move || full_app(before, |ws: &mut WebSocket| echo(ws), |_: &_| {});
        builder.limits(limits).history("*", History::new(5, HOUR)).route("/", app)
    });
    publish(&server, &["a", "b", "c", "d", "e"]);
    let mut client = server.connect(Scheme::Ws, "/?since=");
    assert_eq!(next_message(&mut client), Sent::text("before"));
    let (recovered, before) = joined(&mut client);
    assert_eq!((recovered, before.offset()), (false, 1));
    for (offset, text) in [(2, "b"), (3, "c"), (4, "d"), (5, "e")] {
        assert_next(&mut client, offset, text);
    }
    assert!(joined(&mut client).0);
    assert_echoes(&mut client, "no more");
}

/// While a connection is being opened, too: what there was no room for must not be followed by anything.
#[test]
fn nothing_follows_what_there_was_no_room_for() {
    let mut limits = Limits::default();
    limits.max_queue_bytes = Some(1000);
    let server = serve(|builder| {
        let before = |opening: &mut Opening| {
            opening.set_overflow(Overflow::DropNewest);
            opening.join_since("room", Since::NOTHING)?;
            let large = "x".repeat(2000);
            let gone = ["a", &large, "b"].map(|text| {
                let result = opening.hub().publish("room", text).unwrap().broadcast;
                (result.queued, result.dropped + result.gone)
            });
            assert_eq!(gone, [(1, 0), (0, 1), (0, 1)]);
            Ok(())
        };
        let app = move || full_app(before, |ws: &mut WebSocket| echo(ws), |_: &_| {});
        builder.limits(limits).history("*", History::new(5, HOUR)).route("/", app)
    });
    let mut client = server.connect(Scheme::Ws, "/");
    joined(&mut client);
    assert_next(&mut client, 1, "a");
    let Sent::Close(Some(frame)) = next_message(&mut client) else { panic!("something follows") };
    assert_eq!(u16::from(frame.code), 1013);
}

/// Nobody can be ended for what topics remember: so it must not take the room of those who want it.
#[test]
fn what_is_remembered_leaves_room_for_the_connections() {
    let mut limits = Limits::default();
    limits.max_buffered_bytes = Some(1 << 20);
    limits.max_history_bytes = Some(100 << 20);
    let server = serve(|builder| members(builder).limits(limits).history("*", History::new(100, HOUR)));
    let large = "x".repeat(10_000);
    for number in 0..300 {
        server.hub.publish(&format!("room {}", number % 10), &large).unwrap();
    }
    for scheme in SCHEMES {
        for path in ["/", "/shared"] {
            let mut client = server.connect(scheme, &format!("{path}?topics=room+9&since="));
            let (_, before) = joined(&mut client);
            let last = server.hub.publish("room 9", "now").unwrap().position.unwrap().offset();
            for offset in before.offset() + 1..=last {
                let (position, _, text) = next_numbered(&mut client);
                assert!(position.offset() == offset && (text == b"now" || text == large.as_bytes()));
            }
        }
    }
}

#[test]
fn a_member_that_had_no_positions_gets_what_it_has_missed_before() {
    let server = serve_history(10, HOUR);
    let mut client = server.connect(Scheme::Ws, "/?topics=room&since=");
    joined(&mut client);
    publish(&server, &["a"]);
    let last = assert_next(&mut client, 1, "a");
    drop(client);
    eventually("it is gone", || server.hub.is_empty().unwrap());
    publish(&server, &["b"]);
    let mut client = server.connect_echo(Scheme::Ws, "/?topics=room");
    publish(&server, &["c"]);
    assert_eq!(next_message(&mut client), Sent::text("c"));
    let id = connections(&server.hub)[0].id;
    let recovery = server.hub.join_since(&id, "room", last).unwrap();
    assert_eq!((recovery.recovered, recovery.missed), (true, 2), "b is missing");
    assert_eq!(joined(&mut client), (true, last));
    assert_next(&mut client, 2, "b");
    assert_next(&mut client, 3, "c");
    let again = server.hub.join_since(&id, "room", last).unwrap();
    assert_eq!((again.recovered, again.missed, joined(&mut client)), (true, 0, (true, again.position)));
    server.hub.leave(&id, "room").unwrap();
    let again = server.hub.join_since(&id, "room", last).unwrap();
    assert_eq!((again.recovered, again.missed), (true, 2), "it was no member meanwhile");
}

/// It was told that nothing is missing, and its program may not look at the error.
#[test]
fn who_has_got_only_a_part_of_what_was_missed_is_closed() {
    let mut limits = Limits::default();
    limits.max_buffered_bytes = Some(64 << 10); // and half of it for connections that are being opened
    limits.max_history_bytes = Some(16 << 10);
    let server = serve(|builder| {
        let before = |opening: &mut Opening| {
            let _ = opening.hub().push(opening.websocket_id(), "x".repeat(27_000))?;
            let result = opening.join_since("room", Since::NOTHING);
            assert!(matches!(result, Err(Error::QueueFull)), "{result:?}");
            assert!(opening.topics().is_empty());
            Ok(())
        };
        let app = move || full_app(before, |ws: &mut WebSocket| echo(ws), |_: &_| {});
        builder.limits(limits).history("*", History::new(20, HOUR)).route("/", app)
    });
    for _ in 0..15 {
        server.hub.publish("room", "y".repeat(800)).unwrap();
    }
    let mut client = server.connect(Scheme::Ws, "/");
    assert_eq!(next_message(&mut client).len(), 27_000);
    assert!(joined(&mut client).0);
    assert_next(&mut client, 1, &"y".repeat(800));
    assert_eq!(common::read_close(&mut client).0, 1013);
}

/// What is published while a connection is opened may fill its queue before it joins the next topic.
#[test]
fn who_falls_behind_while_it_is_opened_may_come_again() {
    let mut limits = Limits::default();
    limits.max_queue_messages = 40;
    let server = serve(|builder| {
        let before = |opening: &mut Opening| {
            opening.join_since("busy", Since::NOTHING)?;
            for number in 0..50 {
                opening.hub().publish("busy", number.to_string())?;
            }
            let result = opening.join_since("other", Since::NOTHING);
            assert!(matches!(&result, Err(Error::Closed(reason)) if reason.code().0 == 1013), "{result:?}");
            result.map(|_| ()).map_err(Into::into)
        };
        let app = move || full_app(before, |ws: &mut WebSocket| echo(ws), |_: &_| {});
        builder.limits(limits).history("*", History::new(20, HOUR)).route("/", app)
    });
    let refused = server.try_connect(Scheme::Ws, "/", &[]).unwrap_err();
    assert_eq!(refused.status(), 503, "{:?}", refused.body());
}

/// A client of two topics, which comes back with what it has seen.
#[derive(Default)]
struct Visitor {
    seen: [Option<Position>; 2],
    /// By topic and offset.
    got: Vec<(usize, u64, String)>,
    recovered: usize,
    gaps: usize,
    too_slow: usize,
}

impl Visitor {
    /// Reads so many messages, or until it is closed.
    fn visit(&mut self, server: &TestServer, scheme: Scheme, path: &str, count: usize) {
        let since: Vec<_> = self.seen.iter().flatten().map(Position::to_string).collect();
        let target = format!("{path}?topics=room1,room2&since={}", since.join(","));
        let mut client = match server.try_connect(scheme, &target, &[]) {
            Ok((client, _)) => client,
            Err(refused) => return assert_eq!(refused.status(), 503, "{:?}", refused.body()),
        };
        let mut joined = 0;
        for _ in 0..count {
            let message = client.read().unwrap();
            if let Sent::Close(frame) = message {
                self.too_slow += 1;
                return assert_eq!(u16::from(frame.unwrap().code), 1013);
            }
            let (position, what, text) = parse(message);
            if !what.is_empty() {
                let before = self.seen[joined].replace(position);
                assert!(
                    what == "gap" || before.is_none_or(|before| before == position),
                    "{before:?} {position}"
                );
                if what == "gap" {
                    self.gaps += 1
                } else {
                    self.recovered += 1
                }
                joined += 1;
                continue;
            }
            let topic = usize::from(!same_epoch(&self.seen[0].unwrap(), &position));
            let last = self.seen[topic].replace(position).unwrap();
            assert_eq!(position.offset(), last.offset() + 1, "the next one");
            self.got.push((topic, position.offset(), String::from_utf8(text).unwrap()));
        }
    }
}

#[test]
fn nothing_is_lost_doubled_or_out_of_order_under_a_flood() {
    const TOPICS: [&str; 2] = ["room1", "room2"];
    let mut limits = Limits::default();
    limits.max_queue_messages = 1500;
    let server = serve(|builder| members(builder).limits(limits).history("room*", History::new(500, HOUR)));
    let stop = AtomicBool::new(false);
    let all: Mutex<HashMap<(usize, u64), String>> = Mutex::default();
    let publish = |publisher: usize| {
        for number in (0..).take_while(|_| !stop.load(SeqCst)) {
            let text = format!("{publisher} {number} {}", "x".repeat(number % 300));
            let position = server.hub.publish(TOPICS[number % 2], &text).unwrap().position.unwrap();
            assert_eq!(all.lock().unwrap().insert((number % 2, position.offset()), text), None);
            if number % 10 == 0 {
                thread::sleep(Duration::from_millis(2));
            }
        }
    };
    let visit = |number: usize| {
        let mut visitor = Visitor::default();
        for visit in 0..15 {
            // Some are away for longer than their topics remember.
            thread::sleep(Duration::from_millis([0, 5, 60][visit % 3]));
            visitor.visit(&server, SCHEMES[number % 2], ["/", "/shared"][number / 2 % 2], 20 * visit);
        }
        visitor
    };
    let visitors: Vec<_> = thread::scope(|scope| {
        let _until = Until(&stop);
        let publish = &publish;
        let visit = &visit;
        (0..3).for_each(|publisher| drop(scope.spawn(move || publish(publisher))));
        let visitors: Vec<_> = (0..4).map(|number| scope.spawn(move || visit(number))).collect();
        visitors.into_iter().map(|visitor| visitor.join().unwrap()).collect()
    });
    let all = all.into_inner().unwrap();
    for visitor in &visitors {
        for (topic, offset, text) in &visitor.got {
            assert_eq!(&all[&(*topic, *offset)], text);
        }
    }
    let sum = |count: fn(&Visitor) -> usize| visitors.iter().map(count).sum::<usize>();
    let (recovered, gaps) = (sum(|visitor| visitor.recovered), sum(|visitor| visitor.gaps));
    assert!(recovered > 0, "{recovered} times; {gaps} gaps, {} too slow", sum(|visitor| visitor.too_slow));
}

fn same_epoch(one: &Position, other: &Position) -> bool {
    let epoch = |position: &Position| position.to_string().split(':').next().unwrap().to_owned();
    epoch(one) == epoch(other)
}

#[derive(Clone, Default)]
struct Events(Arc<Mutex<Vec<String>>>);

impl HubObserver for Events {
    fn user_joined(&self, topic: &str, user: &str) {
        self.0.lock().unwrap().push(format!("{user} joined {topic}"));
    }

    fn user_left(&self, topic: &str, user: &str) {
        self.0.lock().unwrap().push(format!("{user} left {topic}"));
    }
}

impl Events {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

#[test]
fn two_tabs_are_one_who_is_there() {
    for scheme in SCHEMES {
        let events = Events::default();
        let server =
            serve(|builder| members(builder).observer(events.clone()).history("b", History::new(1, HOUR)));
        let present = |topic: &str| -> Vec<(String, usize)> {
            let all = server.hub.all_present(topic).map(Result::unwrap);
            all.map(|PresentUser { user, connections, .. }| (user.to_string(), connections)).collect()
        };
        let tab = server.connect_echo(scheme, "/?users=ann&topics=a");
        let mut other_tab = server.connect(scheme, "/shared?users=ann&topics=b&since=");
        joined(&mut other_tab);
        let nobody = server.connect_echo(scheme, "/?topics=a");
        let bob = server.connect_echo(scheme, "/shared?users=bob&topics=a");
        let refused = server.try_connect(scheme, "/?users=eve&topics=a&refuse=1", &[]).unwrap_err();
        assert_eq!(refused.status(), 403);
        assert_eq!(events.take(), ["ann joined a", "ann joined b", "bob joined a"]);
        assert_eq!(present("a"), [("ann".into(), 1), ("bob".into(), 1)]);
        let all = connections(&server.hub);
        let shared = all.iter().find(|info| info.shared && info.user.as_deref() == Some("ann")).unwrap().id;
        server.hub.join(&shared, "a").unwrap();
        server.hub.join(&shared, "a").unwrap();
        assert_eq!(present("a"), [("ann".into(), 2), ("bob".into(), 1)]);
        drop(tab);
        eventually("one tab is left", || present("a") == [("ann".into(), 1), ("bob".into(), 1)]);
        assert!(events.take().is_empty());
        server.hub.leave(&shared, "a").unwrap();
        server.hub.leave(&shared, "a").unwrap();
        assert_eq!((events.take(), present("a")), (vec!["ann left a".to_owned()], vec![("bob".into(), 1)]));
        let page = server.hub.presence("a", Some("bob"), 1).unwrap();
        assert!(page.items.is_empty() && page.next.is_none());
        drop((other_tab, nobody, bob));
        eventually("all are gone", || server.hub.is_empty().unwrap());
        eventually("all are told", || events.0.lock().unwrap().len() == 2);
        let mut last = events.take();
        last.sort();
        assert_eq!(last, ["ann left b", "bob left a"]);
        assert!(present("a").is_empty() && present("b").is_empty());
    }
}

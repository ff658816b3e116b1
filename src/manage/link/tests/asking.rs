//! What is asked of the hub, and who may.

use super::{
    peer::{hello, message, payload, push},
    *,
};
use crate::{
    ClientError, CloseCode, Error, Message,
    wire::{self, Answer, AsText, Failure, Hello, Request, SUBPROTOCOL, Since, append},
};

/// The status by which a handshake was refused, and the text.
fn refused(builder: crate::ClientBuilder) -> (u16, String) {
    match builder.connect() {
        Err(ClientError::Refused(response)) => {
            (response.status().as_u16(), String::from_utf8_lossy(response.body()).into_owned())
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_link_needs_its_subprotocol_and_a_token_as_any_request() {
    let served = Served::new();
    let on_unix = || Client::builder(&served.url());
    for (builder, part) in
        [(on_unix(), SUBPROTOCOL), (on_unix().subprotocol("switchboard.hub.2"), SUBPROTOCOL)]
    {
        let (status, text) = refused(builder);
        assert!(status == 400 && text.contains(part), "{status} {text}");
    }
    let by_token = || Client::builder(&served.url_by_token()).subprotocol(SUBPROTOCOL);
    let (status, text) = refused(by_token());
    assert!(status == 401 && text.contains("a token is needed"), "{status} {text}");
    let begun = Instant::now();
    let (status, text) = refused(by_token().header("authorization", "Bearer wrong"));
    assert!(
        status == 401 && text.contains("wrong") && begun.elapsed() >= Duration::from_millis(500),
        "{text}"
    );
    // Who has no token does not learn what else is wrong.
    assert_eq!(refused(Client::builder(&served.url_by_token())).0, 401);
    let peer = Peer::connect(&served.url_by_token(), Some(TOKEN)).unwrap();
    assert_eq!(peer.ask(Request::Len).number(), 0);
    assert!(peer.client.response().headers().get("set-cookie").is_none(), "there are no sessions");
}

/// A browser comes under a name, which a stranger may own (DNS rebinding): a page needs no token on a Unix socket.
#[test]
fn a_strangers_page_gets_no_link() {
    let served = Served::new();
    for (lines, status) in [
        ("Host: evil.example\r\nOrigin: http://evil.example\r\n", "421"),
        ("Host: evil.example\r\nAccept-Language: en\r\n", "421"),
        ("Host: localhost\r\nOrigin: http://evil.example\r\n", "403"),
        ("Host: evil.example\r\n", "101"),
    ] {
        let (_, answer) = ending::Raw::ask_for(&served, lines);
        assert_eq!(answer.split(' ').nth(1), Some(status), "{lines}: {answer}");
    }
}

#[test]
fn each_side_says_first_who_it_is() {
    let served = Served::new();
    let connect = || Client::builder(&served.url()).subprotocol(SUBPROTOCOL).connect().unwrap();
    let client = connect();
    let first = client.read_message(PATIENCE).unwrap().into_bytes();
    let said = Hello::decode(&first).unwrap();
    assert_eq!((said.version, said.software), (1, concat!("switchboard ", env!("CARGO_PKG_VERSION"))));
    assert_eq!((said.max_unanswered, said.max_waits), (1024, 256));
    assert!(said.max_message > 4 << 20, "{}", said.max_message);
    let again = served.link();
    assert_eq!(Hello::decode(&again.hello).unwrap().epoch, said.epoch);
    let other = Served::new().link();
    assert_ne!(Hello::decode(&other.hello).unwrap().epoch, said.epoch);

    let newer = [&hello(1 << 20)[..], b"and more"].concat();
    client.write(message([&[9][..], &newer[1..]].concat())).unwrap();
    let mut request = Vec::new();
    append(&mut request, 1, &Request::Len).unwrap();
    client.write(message(request.clone())).unwrap();
    assert!(client.read_message(PATIENCE).is_ok(), "a newer one is answered");

    let old = [&[0][..], &newer[1..]].concat();
    for first in [request.into(), Message::from("hello"), old.into(), Vec::new().into()] {
        let client = connect();
        client.write(first).unwrap();
        let end = client.messages().count();
        assert_eq!(end, 1, "only the server's own hello");
        assert_eq!(client.close_reason().unwrap().code(), CloseCode::PROTOCOL_ERROR);
    }
}

#[test]
fn what_is_no_request_ends_the_link_and_what_is_unknown_does_not() {
    let served = Served::new();
    let (client, id) = served.client("/shared");
    let peer = served.link();
    let unknown = [&4_u32.to_le_bytes()[..], &77_u32.to_le_bytes(), &[120, 1, 2, 3]].concat();
    peer.client.write(message(unknown)).unwrap();
    assert_eq!(peer.reply(77).answer(), Answer::Failed(Failure::Unsupported));
    assert_eq!(peer.ask(Request::Len).number(), 1);

    let hi = message("hi");
    let mut good = Vec::new();
    append(&mut good, 1, &push(&id, &hi)).unwrap();
    let mut not_text = good.clone();
    let at = not_text.len() - 2;
    not_text[at] = 0xff;
    let mut unanswered = Vec::new();
    append(&mut unanswered, 0, &Request::Open { id: AsText(id) }).unwrap();
    for bad in [vec![1], vec![0xff; 100], good[..good.len() - 1].to_vec(), not_text, unanswered] {
        let peer = served.link();
        peer.client.write(message([&good[..], &bad].concat())).unwrap();
        assert!(matches!(peer.reply(1).answer(), Answer::Sent | Answer::Queued), "what came before is done");
        let end = peer.end();
        assert_eq!(end.code(), CloseCode::PROTOCOL_ERROR);
        assert!(!end.text().is_empty());
        assert_eq!(client.read_message(PATIENCE).unwrap(), hi);
    }
    let peer = served.link();
    peer.client.write("text").unwrap();
    assert_eq!(peer.end().code(), CloseCode::PROTOCOL_ERROR);
}

#[test]
fn pushes_keep_their_order_in_one_message_and_in_many() {
    let served = Served::start(
        |manage| manage,
        |builder| builder.limits(Limits { max_queue_messages: 10_000, ..Limits::default() }),
    );
    let (client, id) = served.client("/shared");
    let peer = served.link();
    let messages: Vec<Message> = (0..1000).map(|i| message(i.to_string())).collect();
    let before = peer.messages.get();
    let first = peer.send(messages.iter().map(|message| push(&id, message)));
    for number in first..first + 1000 {
        assert!(matches!(peer.reply(number).answer(), Answer::Sent | Answer::Queued));
    }
    assert_eq!(peer.messages.get() - before, 1, "what came together is answered together");
    for expected in &messages {
        assert_eq!(client.read_message(PATIENCE).unwrap(), *expected);
    }
    let first = messages.iter().map(|message| peer.send([push(&id, message)])).min().unwrap();
    let mut numbers = Vec::new();
    while numbers.len() < 1000 {
        numbers.extend(peer.receive(PATIENCE).unwrap());
    }
    assert_eq!(numbers, (first..first + 1000).collect::<Vec<_>>(), "answers are in order, too");
    for expected in &messages {
        assert_eq!(client.read_message(PATIENCE).unwrap(), *expected);
    }
    // Binary stays binary, empty is a message, and the last of a kind replaces those before it.
    for data in [message(&[0xff, 0][..]), message(""), message(&b""[..]), message("ä".repeat(100_000))] {
        assert!(matches!(peer.ask(push(&id, &data)).answer(), Answer::Sent | Answer::Queued));
        assert_eq!(client.read_message(PATIENCE).unwrap(), data);
    }
}

#[test]
fn audiences_get_what_is_sent_and_the_counts_are_those_of_the_hub() {
    let served = Served::new();
    let peer = served.link();
    let (one, first) = served.client("/shared?user=ann");
    let (two, second) = served.client("/shared?user=ann");
    let id = AsText(first);
    for topic in ["room", "kept"] {
        assert_eq!(peer.ask(Request::Join { id, topic }).answer(), Answer::Done);
    }
    let told = message("told");
    let reached =
        |to, except| match peer.ask(Request::Broadcast { to, except, payload: payload(&told) }).answer() {
            Answer::Broadcast(counts) => counts.sent + counts.queued,
            other => panic!("{other:?}"),
        };
    let all = [
        (wire::Audience::All, 2),
        (wire::Audience::Path("/shared"), 2),
        (wire::Audience::Route("/shared"), 2),
        (wire::Audience::User("ann"), 2),
        (wire::Audience::Topic("room"), 1),
        (wire::Audience::Topic("empty"), 0),
    ];
    for (to, count) in all {
        assert_eq!(reached(to, None), count, "{to:?}");
        let _ = (0..count.min(1)).map(|_| assert_eq!(one.read_message(PATIENCE).unwrap(), told)).count();
        let _ = (1..count).map(|_| assert_eq!(two.read_message(PATIENCE).unwrap(), told)).count();
    }
    assert_eq!(reached(wire::Audience::All, Some(id)), 1);
    assert_eq!(two.read_message(PATIENCE).unwrap(), told);

    let publish = |topic, key, except| Request::Publish { topic, except, key, payload: payload(&told) };
    let published = |request| match peer.ask(request).answer() {
        Answer::Published(published) => published,
        other => panic!("{other:?}"),
    };
    let first_one = published(publish("kept", Some("key"), None));
    assert_eq!(first_one.position.unwrap().0.offset(), 1);
    assert!(!first_one.duplicate && first_one.counts.sent + first_one.counts.queued == 1);
    let again = published(publish("kept", Some("key"), None));
    assert!(again.duplicate && again.position == first_one.position);
    assert_eq!(published(publish("room", None, Some(id))).counts, wire::Counts::default());
    assert_eq!(peer.ask(publish("room", Some("key"), None)).answer(), Answer::Failed(Failure::NoHistory));
    assert_eq!(one.read_message(PATIENCE).unwrap(), told);

    let since = Since::Text("");
    let recovery = peer.ask(Request::JoinSince { id: AsText(second), topic: "kept", since });
    let Answer::Recovery(recovery) = recovery.answer() else { panic!() };
    assert_eq!((recovery.recovered, recovery.missed), (true, 1));
    assert!(two.read_message(PATIENCE).unwrap().as_text().unwrap().ends_with(" recovered\n"));
    assert!(two.read_message(PATIENCE).unwrap().as_text().unwrap().ends_with("\ntold"));

    let (to, code, text) = (wire::Audience::User("ann"), 4001, "bye");
    assert_eq!(peer.ask(Request::CloseAll { to, except: Some(id), code, text }).number(), 1);
    assert_eq!(two.messages().count(), 0);
    assert_eq!(two.close_reason().unwrap().to_string(), "4001 by the server: bye");
    assert_eq!(peer.ask(Request::Close { id, code: 4002, text: "" }).answer(), Answer::Done);
    assert_eq!(one.messages().count(), 0);
    assert_eq!(one.close_reason().unwrap().code(), 4002);
}

#[test]
fn lists_are_those_of_the_hub() {
    let served = Served::new();
    let (peer, hub) = (served.link(), served.hub());
    let clients: Vec<_> =
        (0..5).map(|i| served.client(&format!("/shared?user=u{}&tag=t{i}", i / 2))).collect();
    for (_, id) in &clients {
        hub.join(id, "room").unwrap();
    }
    hub.join(&clients[0].1, "another").unwrap();
    assert_eq!(peer.ask(Request::Len).number(), 5);

    let id = AsText(clients[3].1);
    let reply = peer.ask(Request::Connection { id });
    let Answer::Connection(connection) = reply.answer() else { panic!() };
    let (there, here) = (crate::ConnectionInfo::from(&*connection), hub.connection(&id.0).unwrap());
    assert_eq!((there.id, &there.path, &there.route, there.shared), (here.id, &here.path, &here.route, true));
    assert_eq!((there.peer, there.client_address), (here.peer, here.client_address));
    assert_eq!((&there.user, &there.tags, there.since), (&here.user, &here.tags, here.since));
    assert_eq!((there.user.as_deref(), there.tags.get("tag")), (Some("u1"), Some("t3")));

    let (mut after, mut found) = (None, Vec::new());
    loop {
        let reply = peer.ask(Request::Connections { to: wire::Audience::Topic("room"), after, limit: 2 });
        let Answer::Connections { items, next } = reply.answer() else { panic!() };
        found.extend(items.iter().map(|item| item.id.0));
        after = next;
        if after.is_none() {
            break;
        }
    }
    let all = hub.all_connections(Audience::All).map(|connection| connection.unwrap().id);
    assert_eq!(found, all.collect::<Vec<_>>());

    let reply = peer.ask(Request::Members { topic: "room", after: None, limit: 2 });
    let Answer::Members { items, next } = reply.answer() else { panic!() };
    assert_eq!(items.iter().map(|id| id.0).collect::<Vec<_>>(), found[..2]);
    assert_eq!(next.unwrap().0, found[1]);

    let reply = peer.ask(Request::Topics { after: None, limit: 1 });
    let Answer::Topics { items, next } = reply.answer() else { panic!() };
    assert_eq!((items[0].name, items[0].count, next), ("another", 1, Some("another")));
    let reply = peer.ask(Request::Topics { after: next, limit: 0 });
    let Answer::Topics { items, next } = reply.answer() else { panic!() };
    assert_eq!((items.len(), items[0].count, next), (1, 5, None));

    let reply = peer.ask(Request::Presence { topic: "room", after: Some("u0"), limit: 9 });
    let Answer::Present { items, next: None } = reply.answer() else { panic!() };
    assert_eq!(items.iter().map(|item| (item.name, item.count)).collect::<Vec<_>>(), [("u1", 2), ("u2", 1)]);

    let id = AsText(clients[0].1);
    assert_eq!(peer.ask(Request::TopicsOf { id }).answer(), Answer::Names(vec!["another", "room"]));
    assert_eq!(peer.ask(Request::Leave { id, topic: "another" }).answer(), Answer::Done);
    assert_eq!(peer.ask(Request::TopicsOf { id }).answer(), Answer::Names(vec!["room"]));
    assert_eq!(peer.ask(Request::Certificates).answer(), Answer::Certificates(Vec::new()));
    assert_eq!(peer.ask(Request::CloseReason { id }).answer(), Answer::Ended(None));
}

/// What names a connection: each with this one.
fn about(id: WebSocketId, hi: &Message) -> Vec<Request<'_>> {
    let id = AsText(id);
    vec![
        Request::Push { id, payload: payload(hi) },
        Request::PushWait { id, payload: payload(hi), timeout: PATIENCE },
        Request::Close { id, code: 1000, text: "" },
        Request::Connection { id },
        Request::Join { id, topic: "t" },
        Request::Leave { id, topic: "t" },
        Request::JoinSince { id, topic: "kept", since: Since::Now },
        Request::TopicsOf { id },
        Request::CloseReason { id },
        Request::Open { id },
    ]
}

#[test]
fn errors_are_those_of_the_hub() {
    let served = Served::new();
    let peer = served.link();
    let hi = message("hi");
    for request in about("b3kT9ZcYw4mQ1s8xAAAAKg".parse().unwrap(), &hi) {
        let shown = format!("{request:?}");
        assert_eq!(peer.ask(request).answer(), Answer::Failed(Failure::UnknownId), "{shown}");
    }
    let (client, id) = served.client("/alone");
    let id = AsText(id);
    assert_eq!(peer.ask(Request::Open { id }).answer(), Answer::Failed(Failure::NotShared));
    let over = |limit: crate::OverLimit| Answer::Failed(Failure::OverLimit(limit.into()));
    let join = |topic: &str| peer.ask(Request::Join { id, topic });
    assert_eq!(join("").answer(), over(crate::OverLimit::TopicName));
    for i in 0..Limits::default().max_topics {
        let reply = join(&i.to_string());
        assert_eq!(reply.answer(), Answer::Done);
    }
    assert_eq!(join("one more").answer(), over(crate::OverLimit::Topics));

    // It is told to close, but does not read.
    assert_eq!(peer.ask(Request::Close { id, code: 4000, text: "over" }).answer(), Answer::Done);
    let reply = peer.ask(push(&id.0, &hi));
    match reply.answer() {
        Answer::Failed(Failure::Closed(reason)) => assert_eq!((reason.code, reason.text), (4000, "over")),
        Answer::Failed(Failure::UnknownId) => {} // that was fast
        other => panic!("{other:?}"),
    }
    drop(client);
}

#[test]
fn a_client_that_takes_nothing_is_told_of() {
    let limits = Limits { max_queue_messages: 20, max_queue_bytes: Some(1 << 20), ..Limits::default() };
    let served = Served::start(|manage| manage, |builder| builder.limits(limits));
    let peer = served.link();
    let (_client, id) = served.deaf("/alone?drops=yes");
    let large = message(vec![0; 700_000]);
    eventually("the queue is full", || {
        peer.ask(push(&id, &large)).answer() == Answer::Failed(Failure::QueueFull)
    });
    let timeout = Duration::from_millis(50);
    let wait = Request::PushWait { id: AsText(id), payload: payload(&large), timeout };
    assert_eq!(peer.ask(wait).answer(), Answer::Failed(Failure::Timeout));
    // What waits does not hold up what does not.
    let wait = Request::PushWait { id: AsText(id), payload: payload(&large), timeout: PATIENCE };
    let waiting = peer.send([wait, Request::Len]);
    assert_eq!(peer.reply(waiting + 1).number(), 1);
    assert!(!peer.has_reply(waiting));
    served.hub().close(&id, 4000, "").unwrap();
    assert!(matches!(peer.reply(waiting).answer(), Answer::Failed(Failure::Closed(_))));
}

#[test]
fn what_is_being_opened_is_waited_for_and_nothing_else_waits() {
    for is_opened in [true, false] {
        let (served, ids, answer) = slow();
        let peer = served.link();
        let address = format!("ws://{}/slow", served.server.local_addrs()[0]);
        let client = std::thread::spawn(move || Client::connect(&address));
        let id = ids.recv_timeout(PATIENCE).unwrap();
        let (early, late) = (message("early"), message("late"));
        assert_eq!(peer.ask(push(&id, &early)).answer(), Answer::Queued);
        let id = AsText(id);
        let wait = Request::PushWait { id, payload: payload(&late), timeout: PATIENCE };
        let open = Request::Open { id };
        let first = peer.send([
            wait,
            Request::Connection { id },
            Request::Join { id, topic: "t" },
            open,
            Request::Len,
        ]);
        assert_eq!(peer.reply(first + 4).number(), 0);
        assert!((first..first + 4).all(|number| !peer.has_reply(number)));
        answer.send(is_opened).unwrap();
        let replies: Vec<_> = (first..first + 4).map(|number| peer.reply(number)).collect();
        if is_opened {
            let client = client.join().unwrap().unwrap();
            assert_eq!(client.read_message(PATIENCE).unwrap(), early);
            assert_eq!(client.read_message(PATIENCE).unwrap(), late);
            assert!(replies[0].answer() == Answer::Done && replies[2].answer() == Answer::Done);
            assert!(matches!(replies[1].answer(), Answer::Connection(_)) && replies[3].handle() > 0);
        } else {
            assert!(client.join().unwrap().is_err());
            for reply in replies {
                assert_eq!(reply.answer(), Answer::Failed(Failure::Refused));
            }
        }
    }
}

#[test]
fn who_may_only_read_may_ask_and_do_nothing() {
    let served = Served::new();
    let (client, id) = served.client("/shared");
    let peer = Peer::connect(&served.url_by_token(), Some(READ_TOKEN)).unwrap();
    let hi = message("hi");
    for request in about(id, &hi) {
        let (is_safe, shown) = (request.is_safe(), format!("{request:?}"));
        let is_forbidden = peer.ask(request).answer() == Answer::Failed(Failure::Forbidden);
        assert_eq!(is_forbidden, !is_safe, "{shown}");
    }
    let to = wire::Audience::All;
    for request in [
        Request::Broadcast { to, except: None, payload: payload(&hi) },
        Request::Publish { topic: "t", except: None, key: None, payload: payload(&hi) },
        Request::CloseAll { to, except: None, code: 1000, text: "" },
        Request::Read { handle: 1, len: 0, timeout: Duration::ZERO },
        Request::Write { handle: 1, payload: payload(&hi) },
    ] {
        assert_eq!(peer.ask(request).answer(), Answer::Failed(Failure::Forbidden));
    }
    assert_eq!(peer.ask(Request::Len).number(), 1);
    assert!(matches!(
        peer.ask(Request::Connections { to, after: None, limit: 0 }).answer(),
        Answer::Connections { items, .. } if items.len() == 1
    ));
    assert!(matches!(client.read_message(Duration::ZERO), Err(Error::Timeout)), "nothing came of all that");
    assert_eq!(served.hub().topics_of(&id).unwrap().len(), 0);
}

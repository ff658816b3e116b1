//! Pushes from any thread, broadcasts, topics.
#![cfg(feature = "__tls")]
mod common;

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use common::{
    PATIENCE, SCHEMES, Scheme, SharedEcho, TestServer, app, assert_echoes, eventually, folder::Folder, frame,
    full_app, handshake, next_message, read_close, read_frame, read_head, running::Running, serve, serve_app,
};
use switchboard::{
    Audience, Error, Limits, Message, Opening, Overflow, Payload, PushError, PushErrorKind, Pushed, Server,
    WebSocket, WebSocketId,
};
use tungstenite::Message as Sent;

/// A server whose handler reports its ID, and then runs `server`.
fn serve_with_ids(
    limits: Limits,
    overflow: Overflow,
    server: impl Fn(&mut WebSocket) -> switchboard::ServerResult + Clone + Send + Sync + 'static,
) -> (TestServer, mpsc::Receiver<WebSocketId>) {
    let (tx, rx) = mpsc::channel();
    let tx = Arc::new(Mutex::new(tx));
    let server = serve(move |builder| {
        builder.limits(limits).route("/*", move || {
            let (tx, server) = (tx.clone(), server.clone());
            full_app(
                move |opening| {
                    opening.set_overflow(overflow);
                    Ok(())
                },
                move |ws| {
                    let _ = tx.lock().unwrap().send(*ws.websocket_id());
                    server(ws)
                },
                |_| {},
            )
        })
    });
    (server, rx)
}

fn wait(ws: &mut WebSocket) -> switchboard::ServerResult {
    ws.messages().for_each(drop);
    Ok(())
}

#[test]
fn a_push_reaches_a_client_whose_thread_waits_in_read() {
    let (server, ids) = serve_with_ids(Limits::default(), Overflow::default(), wait);
    for scheme in SCHEMES {
        let mut client = server.connect(scheme, "/");
        let id = ids.recv_timeout(PATIENCE).unwrap();
        let mut sent = 0;
        for n in 0..100 {
            sent += i32::from(server.hub.push(&id, n.to_string()).unwrap() == Pushed::Sent);
            assert_eq!(next_message(&mut client), Sent::text(n.to_string()));
        }
        assert!(sent > 50, "mostly nobody else has the connection: {sent}");
        let _ = server.hub.pusher(&id).unwrap().push(vec![1, 2]).unwrap();
        assert_eq!(next_message(&mut client), Sent::binary(vec![1, 2]));
    }
}

#[test]
fn a_busy_handler_delays_no_push_and_no_pong_and_a_close_only_for_the_close_timeout() {
    let (tx, rx) = mpsc::channel::<()>();
    let rx = Arc::new(Mutex::new(rx));
    let mut limits = Limits::default();
    limits.close_timeout = Duration::from_millis(500);
    let (server, ids) = serve_with_ids(limits, Overflow::default(), move |ws| {
        // It computes until the test continues it, and then reads what was received meanwhile.
        rx.lock().unwrap().recv()?;
        assert_eq!(ws.read_message(PATIENCE)?, "sent meanwhile");
        assert!(matches!(ws.read_message(PATIENCE), Err(Error::Closed(reason)) if reason.code() == 4001));
        Ok(())
    });
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        let id = ids.recv_timeout(PATIENCE).unwrap();
        let _ = server.hub.push(&id, "pushed").unwrap();
        assert_eq!(client.read_frame(), (0x81, b"pushed".to_vec()));
        use std::io::Write;
        client.write_all(&[frame(0x89, b"ping"), frame(0x81, b"sent meanwhile")].concat()).unwrap();
        assert_eq!(client.read_frame(), (0x8a, b"ping".to_vec()), "answered by the gateway");
        client.write_all(&frame(0x88, &[&4001u16.to_be_bytes()[..], b"bye"].concat())).unwrap();
        assert_eq!(client.read_close_and_end(), (4001, "bye".into()));
        assert!(matches!(server.hub.push(&id, "late").unwrap_err().kind, PushErrorKind::Closed(_)));
        tx.send(()).unwrap();
        eventually("the ID is unknown", || server.hub.connection(&id).is_err());
        assert!(matches!(server.hub.push(&id, "late").unwrap_err().kind, PushErrorKind::Unknown));
    }
}

#[test]
fn messages_of_many_threads_are_whole_and_in_order_per_thread() {
    const PUSHERS: usize = 8;
    const MESSAGES: usize = 400;
    let (go, gone) = (Arc::new(std::sync::Barrier::new(2)), Limits::default());
    let wait_for = go.clone();
    let mut limits = gone;
    limits.max_queue_messages = 100_000;
    limits.max_queue_bytes = Some(100 << 20);
    let (server, ids) = serve_with_ids(limits, Overflow::default(), move |ws| {
        wait_for.wait();
        for n in 0..MESSAGES {
            ws.write(format!("8 {n} {}", "o".repeat(n * 7 % 3000)))?;
        }
        wait(ws)
    });
    for scheme in SCHEMES {
        let mut client = server.connect(scheme, "/");
        let id = ids.recv_timeout(PATIENCE).unwrap();
        let threads: Vec<_> = (0..PUSHERS)
            .map(|thread| {
                let pusher = server.hub.pusher(&id).unwrap();
                thread::spawn(move || {
                    for n in 0..MESSAGES {
                        let _ = pusher.push(format!("{thread} {n} {}", "o".repeat(n * 7 % 3000))).unwrap();
                    }
                })
            })
            .collect();
        go.wait();
        let mut next = [0; PUSHERS + 1];
        for _ in 0..MESSAGES * (PUSHERS + 1) {
            let message = next_message(&mut client).into_text().unwrap();
            let parts: Vec<&str> = message.splitn(3, ' ').collect();
            let (thread, n): (usize, usize) = (parts[0].parse().unwrap(), parts[1].parse().unwrap());
            assert_eq!(n, next[thread], "of thread {thread}");
            assert!(parts[2].len() == n * 7 % 3000 && parts[2].bytes().all(|b| b == b'o'));
            next[thread] += 1;
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

fn small_queue() -> Limits {
    let mut limits = Limits::default();
    limits.max_queue_messages = 10;
    limits.max_queue_bytes = Some(1 << 20);
    limits
}

/// Pushes to a client that does not read, until a push fails.
fn push_until_full(server: &TestServer, id: &WebSocketId) -> (usize, switchboard::PushError) {
    for n in 0..10_000 {
        if let Err(e) = server.hub.push(id, vec![0; 100_000]) {
            return (n, e);
        }
    }
    panic!("the queue is unbounded");
}

#[test]
fn a_slow_client_is_disconnected_with_1013() {
    let (server, ids) = serve_with_ids(small_queue(), Overflow::Disconnect, wait);
    for scheme in SCHEMES {
        let mut client = server.connect(scheme, "/");
        let id = ids.recv_timeout(PATIENCE).unwrap();
        let (_, error) = push_until_full(&server, &id);
        assert!(matches!(error.kind, PushErrorKind::Closed(reason) if reason.code() == 1013));
        assert_eq!(error.message.len(), 100_000, "the message comes back");
        assert_eq!(read_close(&mut client).0, 1013, "after the earlier messages");
    }
}

#[test]
fn drop_newest_loses_only_new_messages() {
    let (server, ids) = serve_with_ids(small_queue(), Overflow::DropNewest, wait);
    for scheme in SCHEMES {
        let mut client = server.connect(scheme, "/");
        let id = ids.recv_timeout(PATIENCE).unwrap();
        let (sent, error) = push_until_full(&server, &id);
        assert!(matches!(error.kind, PushErrorKind::Full));
        for _ in 0..sent {
            assert_eq!(next_message(&mut client).len(), 100_000);
        }
        eventually("there is room again", || server.hub.push(&id, "again").is_ok());
        assert_eq!(next_message(&mut client), Sent::text("again"));
    }
}

#[test]
fn keep_newest_sends_the_last_value_of_each_key() {
    let (server, ids) = serve_with_ids(small_queue(), Overflow::KeepNewest, wait);
    for scheme in SCHEMES {
        let mut client = server.connect(scheme, "/");
        let id = ids.recv_timeout(PATIENCE).unwrap();
        let value = |key: &str, number: u32| {
            let mut data = vec![key.as_bytes()[0]; 100_000];
            data[1..5].copy_from_slice(&number.to_be_bytes());
            Payload::newest(key, data)
        };
        const LAST: u32 = 1000;
        for number in 1..=LAST {
            for key in ["a", "b"] {
                let pushed = match number % 3 {
                    0 => server.hub.push(&id, value(key, number)),
                    1 => server.hub.pusher(&id).unwrap().push(value(key, number)),
                    _ => server.hub.push_all([(id, value(key, number))]).remove(0),
                };
                assert!(pushed.is_ok(), "{number}: never full");
            }
        }
        let result = server.hub.broadcast(Audience::All, value("c", LAST)).unwrap();
        assert_eq!((result.sent + result.queued, result.dropped), (1, 0));
        let (without_key, error) = push_until_full(&server, &id);
        assert!(matches!(error.kind, PushErrorKind::Full) && without_key < 10);
        let mut last = [0; 3];
        let mut count = 0;
        while last != [LAST; 3] {
            let data = next_message(&mut client).into_data();
            if data[0] == 0 {
                continue;
            }
            let number = u32::from_be_bytes(data[1..5].try_into().unwrap());
            let last = &mut last[usize::from(data[0] - b'a')];
            assert!(number > *last, "in order");
            *last = number;
            count += 1;
        }
        assert!(count < LAST, "most of them were never sent");
        drop(client);
        eventually("it is gone", || server.hub.is_empty().unwrap());
    }
}

/// A server that pushes these to each connection while it is opened, and what came of it; there is room for so many.
fn serve_pushing(
    max_queue_messages: usize,
    overflow: Overflow,
    payloads: Vec<Payload>,
) -> (TestServer, mpsc::Receiver<bool>) {
    let (tx, pushed) = mpsc::channel();
    let mut limits = Limits::default();
    limits.max_queue_messages = max_queue_messages;
    let server = serve(move |builder| {
        let before = move |opening: &mut Opening| {
            opening.set_overflow(overflow);
            for payload in &payloads {
                match opening.hub().push(opening.websocket_id(), payload.clone()) {
                    Ok(_) => tx.send(true).unwrap(),
                    Err(PushError { kind: PushErrorKind::Full, .. }) => tx.send(false).unwrap(),
                    Err(e) => panic!("{e}"),
                }
            }
            Ok(())
        };
        builder.limits(limits).route("/", move || full_app(before.clone(), common::echo, |_: &_| {}))
    });
    (server, pushed)
}

fn assert_gets(server: &TestServer, texts: &[&str]) {
    let mut client = server.connect(Scheme::Ws, "/");
    for text in texts {
        assert_eq!(next_message(&mut client), Sent::text(*text));
    }
    assert_echoes(&mut client, "no more");
}

#[test]
fn the_last_value_is_the_one_that_is_sent_when_the_connection_opens() {
    let values = || (0..1000).map(|number| Payload::newest("x", format!("{number:03}"))).collect();
    let (server, pushed) = serve_pushing(10, Overflow::KeepNewest, values());
    assert_gets(&server, &["999"]);
    assert!(pushed.try_iter().all(|pushed| pushed));
    // Who was told that a message is queued gets it, unless values are wanted.
    let (server, pushed) = serve_pushing(10, Overflow::DropNewest, values());
    assert_gets(&server, &["000", "001", "002", "003", "004", "005", "006", "007", "008", "009"]);
    assert_eq!(pushed.try_iter().filter(|pushed| *pushed).count(), 10);
}

/// The newest one is in the place of the first, whatever their sizes, and however full the queue is.
#[test]
fn no_older_value_is_sent_when_the_connection_opens() {
    let large = "A".repeat(100);
    let value = |key: &str, data: &str| Payload::newest(key, data);
    let payloads = vec![
        value("k", &large),
        value("k", "B"),
        "x".into(),
        value("l", "1"),
        value("k", "CCC"),
        value("l", "2"),
    ];
    let (server, pushed) = serve_pushing(3, Overflow::KeepNewest, payloads);
    assert_gets(&server, &["CCC", "x", "2"]);
    assert!(pushed.try_iter().all(|pushed| pushed));
}

/// The largest messages of one client do not fill the queues of those that are reading, however small their sockets' buffers:
/// one waits in the output, and four in the queue.
#[test]
fn the_largest_messages_empty_no_room() {
    const READERS: usize = 50;
    const MESSAGES: u8 = 5;
    let mut limits = Limits::default();
    limits.shared_idle_timeout = None;
    let largest = limits.max_message_size;
    let folder = Folder::new();
    let socket = folder.path("socket");
    for path in ["/room", "/shared"] {
        let address = format!("unix:{socket}");
        let server = Server::builder().listen(address).limits(limits.clone());
        let server = server.route("/room", || app(wait)).route("/shared", || SharedEcho);
        let server = server.route("/send", move || {
            app(move |ws| {
                let hub = ws.hub();
                for message in ws.messages() {
                    let sent = hub.broadcast(Audience::Path(path), message)?;
                    ws.write(format!("{}", sent.sent + sent.queued))?;
                }
                Ok(())
            })
        });
        let server = Running::new(server);
        let open = |path: &str| {
            let mut client = UnixStream::connect(&socket).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client.write_all(handshake(path).as_bytes()).unwrap();
            assert!(read_head(&mut client).starts_with("HTTP/1.1 101 "));
            client
        };
        let mut readers: Vec<_> = (0..READERS).map(|_| open(path)).collect();
        let mut sender = open("/send");
        for n in 0..MESSAGES {
            sender.write_all(&frame(0x82, &vec![n; largest])).unwrap();
            assert_eq!(
                read_frame(&mut sender),
                (0x81, READERS.to_string().into_bytes()),
                "{path}: number {n}"
            );
        }
        for reader in &mut readers {
            for n in 0..MESSAGES {
                assert!(read_frame(reader) == (0x82, vec![n; largest]), "{path}: number {n}");
            }
            reader.write_all(&frame(0x89, b"still here")).unwrap();
            assert_eq!(read_frame(reader), (0x8a, b"still here".to_vec()), "{path}");
        }
        drop((readers, sender, server));
    }
}

/// A queue that is empty takes one message, whatever the limits say: the client may be reading the one before it.
#[test]
fn an_empty_queue_takes_any_message() {
    let mut limits = Limits::default();
    (limits.max_queue_bytes, limits.max_queue_messages) = (Some(1), 1);
    let (server, ids) = serve_with_ids(limits, Overflow::DropNewest, wait);
    for scheme in SCHEMES {
        let mut client = server.connect(scheme, "/");
        let id = ids.recv_timeout(PATIENCE).unwrap();
        let push = || server.hub.push(&id, vec![7; 16 << 20]).map_err(|e| e.kind);
        assert!(matches!(push(), Ok(Pushed::Queued)), "in the output");
        assert!(matches!(push(), Ok(Pushed::Queued)), "in the queue");
        assert!(matches!(push(), Err(PushErrorKind::Full)));
        for _ in 0..2 {
            assert_eq!(next_message(&mut client).len(), 16 << 20);
        }
    }
}

#[test]
fn a_broadcast_counts_its_results_and_a_slow_client_delays_no_other() {
    let (server, ids) = serve_with_ids(small_queue(), Overflow::DropNewest, wait);
    let mut fast: Vec<_> =
        SCHEMES.iter().cycle().take(6).map(|&scheme| server.connect(scheme, "/fast")).collect();
    let slow = server.connect(SCHEMES[0], "/slow");
    for _ in 0..7 {
        ids.recv_timeout(PATIENCE).unwrap();
    }
    let mut dropped = 0;
    for _ in 0..300 {
        let result = server.hub.broadcast(Audience::All, vec![7; 100_000]).unwrap();
        assert_eq!(result.sent + result.queued + result.dropped + result.gone, 7);
        dropped += result.dropped;
        for client in &mut fast {
            assert_eq!(next_message(client).len(), 100_000);
        }
    }
    assert!(dropped > 0, "the slow one did not get all of it");
    let result = server.hub.broadcast(Audience::Path("/fast"), "to some").unwrap();
    assert_eq!(result.sent + result.queued, 6);
    for client in &mut fast {
        assert_eq!(next_message(client), Sent::text("to some"));
    }
    assert_eq!(
        server.hub.broadcast(Audience::Path("/none"), "x").unwrap(),
        switchboard::Broadcast::default()
    );
    drop(slow);
}

#[test]
fn topics_are_joined_and_left_also_at_the_end_of_a_connection() {
    let (tx, ids) = mpsc::channel();
    let server = serve_app(move |ws| {
        ws.join("room")?;
        ws.join("room")?;
        tx.send(*ws.websocket_id())?;
        wait(ws)
    });
    let mut one = server.connect(SCHEMES[0], "/");
    let id_one = ids.recv_timeout(PATIENCE).unwrap();
    let mut two = server.connect(SCHEMES[1], "/");
    let id_two = ids.recv_timeout(PATIENCE).unwrap();
    let result = server.hub.broadcast(Audience::Topic("room"), "both").unwrap();
    assert_eq!(result.sent + result.queued, 2);
    assert_eq!(next_message(&mut one), Sent::text("both"));
    assert_eq!(next_message(&mut two), Sent::text("both"));
    server.hub.leave(&id_one, "room").unwrap();
    server.hub.join(&id_two, "other").unwrap();
    let members = |topic| server.hub.members(topic, None, 0).unwrap().items;
    assert_eq!(members("room"), std::slice::from_ref(&id_two));
    two.close(None).unwrap();
    read_close(&mut two);
    drop(two);
    eventually("the topics are empty", || members("room").is_empty() && members("other").is_empty());
    assert!(matches!(server.hub.join(&id_two, "room"), Err(Error::UnknownId)));
    drop(one);
    let nobody = switchboard::Broadcast::default();
    eventually("the path is empty", || {
        server.hub.broadcast(Audience::Path("/"), "anybody?").unwrap() == nobody
    });
}

#[test]
fn connections_are_listed_with_their_traffic() {
    let (server, ids) = serve_with_ids(Limits::default(), Overflow::default(), common::echo);
    let mut client = server.connect(SCHEMES[0], "/here");
    let id = ids.recv_timeout(PATIENCE).unwrap();
    client.send(Sent::text("hello")).unwrap();
    next_message(&mut client);
    let info = server.hub.connection(&id).unwrap();
    assert_eq!((&*info.path, info.shared, info.messages_in, info.messages_out), ("/here", false, 1, 1));
    assert_eq!(info.bytes_in, 6 + 5, "one masked frame");
    assert!(info.bytes_out > 7, "the response to the handshake, and one frame");
    assert_eq!(info.peer.unwrap(), client.get_ref().tcp().local_addr().unwrap());
    assert_eq!(server.hub.connections(Audience::All, None, 0).unwrap().items.len(), 1);
    assert_eq!((server.hub.len().unwrap(), server.hub.is_empty().unwrap()), (1, false));
    server.hub.close(&id, 4002, "by the hub").unwrap();
    assert_eq!(read_close(&mut client), (4002, "by the hub".into()));
    assert!(matches!(
        server.hub.close(&"AAAAAAAAAAAAAAAAAAAAAA".parse().unwrap(), 1000, ""),
        Err(Error::UnknownId)
    ));
}

#[test]
fn what_is_long_comes_page_by_page_while_others_come_and_go() {
    let (tx, ids) = mpsc::channel();
    let server = serve(|builder| {
        let tx = Mutex::new(tx);
        builder.route("/*", move || {
            let tx = tx.lock().unwrap().clone();
            common::app(move |ws: &mut WebSocket| {
                ws.join("room")?;
                tx.send(*ws.websocket_id())?;
                wait(ws)
            })
        })
    });
    let connect = |path| {
        let client = server.connect(SCHEMES[0], path);
        (ids.recv_timeout(PATIENCE).unwrap(), client)
    };
    let stay: Vec<_> = (0..25).map(|i| connect(if i % 5 == 0 { "/some" } else { "/others" })).collect();
    let mut all: Vec<_> = stay.iter().map(|(id, _)| *id).collect();
    all.sort();
    let (mut seen, mut members, mut after) = (Vec::new(), Vec::new(), None);
    loop {
        let passing = connect("/others");
        let page = server.hub.connections(Audience::All, after.as_ref(), 4).unwrap();
        assert_eq!(server.hub.members("room", after.as_ref(), 4).unwrap().next, page.next);
        members.extend(server.hub.members("room", after.as_ref(), 4).unwrap().items);
        assert!(page.items.len() == 4 || page.next.is_none());
        seen.extend(page.items.into_iter().map(|info| info.id));
        drop(passing.1);
        eventually("it is gone", || server.hub.connection(&passing.0).is_err());
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(members, seen);
    assert!(seen.is_sorted_by(|a, b| a < b), "each once");
    seen.retain(|id| all.contains(id));
    assert_eq!(seen, all);
    for limit in [0, 25, 26, usize::MAX] {
        let page = server.hub.connections(Audience::All, None, limit).unwrap();
        assert!(page.items.len() == 25 && page.next.is_none());
    }
    let some = server.hub.connections(Audience::Path("/some"), None, 0).unwrap();
    assert!(some.items.len() == 5 && some.items.iter().all(|info| &*info.path == "/some"));
    let none = server.hub.connections(Audience::Topic("none"), None, 3).unwrap();
    assert!(none.items.is_empty() && none.next.is_none());
    let listed: switchboard::Result<Vec<_>> = server.hub.all_members("room").collect();
    assert_eq!(listed.unwrap(), all);
    let listed = server.hub.all_connections(Audience::Topic("room")).map(|info| info.unwrap().id);
    assert!(listed.eq(all));
}

#[test]
fn many_are_pushed_to_at_once_with_a_result_for_each() {
    let (server, ids) = serve_with_ids(Limits::default(), Overflow::default(), wait);
    let [(mut one, id_one), (mut two, id_two)] =
        SCHEMES.map(|scheme| (server.connect(scheme, "/"), ids.recv_timeout(PATIENCE).unwrap()));
    let (text, nobody) = (Message::from("b"), "AAAAAAAAAAAAAAAAAAAAAA".parse::<WebSocketId>().unwrap());
    let results = server.hub.push_all([
        (&id_one, Message::from("a")),
        (&nobody, text.clone()),
        (&id_two, text),
        (&id_one, Message::from("c")),
    ]);
    assert_eq!(results.len(), 4);
    let error = results[1].as_ref().unwrap_err();
    assert!(matches!(error.kind, PushErrorKind::Unknown) && error.message == "b");
    assert!([0, 2, 3].iter().all(|&i| results[i].is_ok()));
    let results = server.hub.push_all([(id_one, vec![1]), (id_two, vec![2])]);
    assert!(results.iter().all(Result::is_ok));
    for sent in [Sent::text("a"), Sent::text("c"), Sent::binary(vec![1])] {
        assert_eq!(next_message(&mut one), sent);
    }
    for sent in [Sent::text("b"), Sent::binary(vec![2])] {
        assert_eq!(next_message(&mut two), sent);
    }
}

#[test]
fn keepalive_cuts_dead_clients_and_keeps_silent_ones() {
    let mut limits = Limits::default();
    limits.ping_interval = Some(Duration::from_millis(100));
    limits.ping_timeout = Duration::from_millis(2200); // on a busy machine, too, the silent one answers
    let (server, ids) = serve_with_ids(limits, Overflow::default(), wait);
    for scheme in SCHEMES {
        // It does not answer pings, so the server considers it dead.
        let mut dead = server.raw_websocket(scheme, "/");
        let dead_id = ids.recv_timeout(PATIENCE).unwrap();
        let mut silent = server.connect(scheme, "/");
        let silent_id = ids.recv_timeout(PATIENCE).unwrap();
        // Reading answers the pings.
        let reader = thread::spawn(move || next_message(&mut silent));
        assert_eq!(dead.read_frame().0, 0x89, "a ping");
        let mut rest = Vec::new();
        let _ = dead.read_to_end(&mut rest);
        eventually("the dead one is gone", || server.hub.connection(&dead_id).is_err());
        eventually("a round trip", || server.hub.connection(&silent_id).unwrap().round_trip.is_some());
        let _ = server.hub.push(&silent_id, Message::from("still here")).unwrap();
        assert_eq!(reader.join().unwrap(), Sent::text("still here"));
    }
}

#[test]
fn collected_output_is_sent_after_a_millisecond_even_if_the_handler_is_busy() {
    let (done, computes) = mpsc::channel::<()>();
    let computes = Arc::new(Mutex::new(computes));
    let server = serve_app(move |ws| {
        loop {
            let first = ws.read_message(PATIENCE)?;
            ws.write(first)?;
            if ws.read_message(PATIENCE)? == "compute" {
                // The answer to the first is collected, because another message waits. Now the handler is busy.
                ws.write("computing")?;
                computes.lock().unwrap().recv_timeout(PATIENCE)?;
            }
        }
    });
    for scheme in SCHEMES {
        let mut client = server.connect(scheme, "/");
        for _ in 0..3 {
            client.write(Sent::text("a")).unwrap();
            client.send(Sent::text("b")).unwrap();
            assert_eq!(next_message(&mut client), Sent::text("a"));
        }
        let begun = std::time::Instant::now();
        for text in ["a", "compute", "third"] {
            client.write(Sent::text(text)).unwrap();
        }
        client.flush().unwrap();
        assert_eq!(next_message(&mut client), Sent::text("a"));
        assert_eq!(next_message(&mut client), Sent::text("computing"));
        assert!(begun.elapsed() < PATIENCE / 2, "it waited for the handler");
        done.send(()).unwrap();
    }
}

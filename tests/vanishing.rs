//! Clients that vanish while nothing is received from them, since nobody takes what they sent: their ends must not stay
//! unseen. And clients that have their say and leave at once: they get their answers.
#![cfg(feature = "__tls")]
mod common;

use std::{
    io::Write,
    net::{Shutdown, SocketAddr},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use common::{
    PATIENCE, SCHEMES, Scheme, SharedEcho, Stream, TestServer, app, echo,
    ends::{Ends, close_frame, serve_ends},
    eventually,
    folder::Folder,
    frame, full_app, handshake, serve,
};
use switchboard::{CloseReason, Closed, ClosedBy, Limits, Opening, WebSocket, WebSocketId};

/// Longer than any wait of a test: what ends within [`PATIENCE`] ends for another reason.
const NEVER: Duration = Duration::from_secs(600);

/// A limit of messages that is soon reached.
fn small_inbox(close_timeout: Duration) -> Limits {
    let mut limits = Limits::default();
    limits.max_inbox_messages = 4;
    limits.close_timeout = close_timeout;
    (limits.ping_interval, limits.ping_timeout) = (None, NEVER);
    limits
}

/// A server whose connections are shared, and read by nobody.
fn serve_unread(limits: Limits) -> (TestServer, mpsc::Receiver<WebSocketId>, mpsc::Receiver<CloseReason>) {
    let (opened, ids) = mpsc::channel();
    let (closed, ends) = mpsc::channel();
    let server = serve(|builder| {
        builder.limits(limits).route("/", move || {
            let (opened, closed) = (opened.clone(), closed.clone());
            let before = move |opening: &mut Opening| {
                opening.set_shared_connection(true);
                opened.send(*opening.websocket_id()).unwrap();
                Ok(())
            };
            let after = move |end: &Closed| drop(closed.send(end.reason().clone()));
            full_app(before, |_: &mut WebSocket| Ok(()), after)
        })
    });
    (server, ids, ends)
}

/// So many messages, of which the last ones find no room.
const SENT: u64 = 40;

/// Sends more than there is room for, and waits until the server has stopped receiving.
fn fill(client: &mut Stream, server: &TestServer, id: &WebSocketId) {
    for n in 0..SENT {
        client.write_all(&frame(0x81, format!("{n}").as_bytes())).unwrap();
    }
    let received = || server.hub.connection(id).map_or(0, |info| info.messages_in);
    eventually("the inbox is full", || received() >= 4);
    assert!(received() < SENT);
}

/// A client of a shared connection whose inbox is full.
fn connect_full(
    server: &TestServer,
    ids: &mpsc::Receiver<WebSocketId>,
    scheme: Scheme,
) -> (Stream, WebSocketId) {
    let mut client = server.raw_websocket(scheme, "/");
    let id = ids.recv_timeout(PATIENCE).unwrap();
    fill(&mut client, server, &id);
    (client, id)
}

/// Whether one of the server's sockets is kept alive by the system: its timer is that of keepalive (proc_pid_net(5)).
fn is_kept_alive(server: SocketAddr, client: SocketAddr) -> bool {
    let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
    let name = |address: SocketAddr| match address {
        SocketAddr::V4(v4) => format!("{:08X}:{:04X}", u32::from_ne_bytes(v4.ip().octets()), v4.port()),
        SocketAddr::V6(_) => panic!("{address}"),
    };
    let (local, remote) = (name(server), name(client));
    table.lines().any(|line| {
        let columns: Vec<_> = line.split_whitespace().collect();
        columns[1] == local && columns[2] == remote && columns[5].starts_with("02:")
    })
}

fn assert_broken(reason: &CloseReason) {
    assert_eq!((reason.code().0, reason.by()), (1006, ClosedBy::Network), "{reason}");
}

#[test]
fn a_reset_ends_a_shared_connection_whose_inbox_is_full() {
    let (server, ids, ends) = serve_unread(small_inbox(NEVER));
    for scheme in SCHEMES {
        let (client, _) = connect_full(&server, &ids, scheme);
        client.reset();
        assert_broken(&ends.recv_timeout(PATIENCE).unwrap());
        assert!(server.hub.is_empty().unwrap());
    }
}

#[test]
fn what_was_sent_before_a_fin_can_be_read_in_spite_of_a_full_inbox_and_then_it_is_over() {
    let (server, ids, ends) = serve_unread(small_inbox(NEVER));
    for scheme in SCHEMES {
        let (mut client, id) = connect_full(&server, &ids, scheme);
        client.half_close();
        let ws = server.hub.open_server(&id).unwrap();
        for n in 0..SENT {
            assert_eq!(ws.read_message(PATIENCE).unwrap(), *n.to_string());
            ws.write("got it").unwrap();
            assert_eq!(client.read_frame(), (0x81, b"got it".to_vec()));
        }
        assert!(ws.read_message(PATIENCE).unwrap_err().is_closed());
        assert_broken(&ends.recv_timeout(PATIENCE).unwrap());
    }
}

#[test]
fn a_shared_connection_with_a_full_inbox_ends_a_close_timeout_after_a_fin() {
    let (server, ids, ends) = serve_unread(small_inbox(Duration::from_millis(300)));
    for scheme in SCHEMES {
        let (mut client, _) = connect_full(&server, &ids, scheme);
        client.half_close();
        assert_broken(&ends.recv_timeout(PATIENCE).unwrap());
    }
}

#[test]
fn a_reset_ends_a_connection_whose_end_waits_for_answers() {
    let (server, ids, ends) = serve_unread(small_inbox(NEVER));
    for scheme in SCHEMES {
        for end in [frame(0x83, b"reserved"), close_frame(4001, "bye")] {
            let mut client = server.raw_websocket(scheme, "/");
            let id = ids.recv_timeout(PATIENCE).unwrap();
            client.write_all(&[frame(0x81, b"never read"), end].concat()).unwrap();
            eventually("it is received", || {
                server.hub.connection(&id).is_ok_and(|info| info.messages_in == 1)
            });
            client.reset();
            let reason = ends.recv_timeout(PATIENCE).unwrap();
            assert!(matches!(reason.code().0, 1006 | 4001), "{reason}");
        }
    }
}

/// The peer's stream is broken, and our own attempt to send has found that out.
#[test]
fn a_failed_send_ends_a_connection_whose_inbox_is_full() {
    let (server, ids, ends) = serve_unread(small_inbox(NEVER));
    for scheme in SCHEMES {
        let (client, id) = connect_full(&server, &ids, scheme);
        let pusher = server.hub.pusher(&id).unwrap();
        // Closed at both ends: the first push is answered with a reset.
        drop(client);
        eventually("a push has failed", || pusher.push("are you there?").is_err());
        assert_broken(&ends.recv_timeout(PATIENCE).unwrap());
    }
}

#[test]
fn all_places_of_vanished_clients_are_free_again() {
    let mut limits = small_inbox(NEVER);
    limits.max_connections = 50;
    let (server, ids, ends) = serve_unread(limits);
    let mut clients: Vec<_> = (0..50).map(|_| connect_full(&server, &ids, Scheme::Ws).0).collect();
    assert!(server.http(Scheme::Ws, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").starts_with("HTTP/1.1 503 "));
    clients.drain(..).for_each(Stream::reset);
    (0..50).for_each(|_| assert_broken(&ends.recv_timeout(PATIENCE).unwrap()));
    server.raw_websocket(Scheme::Ws, "/");
}

/// A peer that is gone without a word cannot be told from one that is silent, except by the system: a pong would lie behind what
/// is not received.
#[test]
fn the_system_keeps_a_connection_alive_whose_inbox_is_full() {
    let mut limits = small_inbox(NEVER);
    (limits.ping_interval, limits.ping_timeout) = (Some(Duration::from_secs(20)), Duration::from_secs(20));
    let (server, ids, _ends) = serve_unread(limits);
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        let addresses = (server.address(scheme), client.tcp().local_addr().unwrap());
        assert!(!is_kept_alive(addresses.0, addresses.1), "by pings, as long as it is received from");
        fill(&mut client, &server, &ids.recv_timeout(PATIENCE).unwrap());
        eventually("it is kept alive", || is_kept_alive(addresses.0, addresses.1));
    }
}

/// A busy thread's connections are looked at each second at least, more often where a limit is shorter than that.
fn busy_limits() -> Limits {
    let mut limits = small_inbox(NEVER);
    limits.write_timeout = Duration::from_millis(200);
    limits
}

/// A server whose handler reads one message, and then computes until it is let go.
fn serve_busy(limits: Limits) -> (TestServer, Ends, mpsc::Sender<()>) {
    let (go, gate) = mpsc::channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    let (server, ends) = serve_ends(limits, move |ws| {
        let message = ws.read_message(PATIENCE)?;
        gate.lock().unwrap().recv_timeout(PATIENCE)?;
        ws.write(message)?;
        ws.read_message(PATIENCE).map(drop)?;
        Ok(())
    });
    (server, ends, go)
}

#[test]
fn a_reset_is_seen_while_the_handler_computes_and_the_inbox_is_full() {
    let (server, ends, go) = serve_busy(busy_limits());
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        let id = common::connections(&server.hub)[0].id;
        fill(&mut client, &server, &id);
        let pusher = server.hub.pusher(&id).unwrap();
        client.reset();
        eventually("it has ended", || pusher.close_reason().is_some());
        go.send(()).unwrap();
        assert_broken(&ends.next().reason);
    }
}

/// The message is read before the end, and the answer written after it.
#[test]
fn a_busy_handler_answers_what_came_before_a_close_frame_and_before_a_fin() {
    let (server, ends, go) = serve_busy(busy_limits());
    for scheme in SCHEMES {
        for ends_stream in [false, true] {
            let mut client = server.raw_websocket(scheme, "/");
            client.write_all(&frame(0x81, b"first")).unwrap();
            let id = common::connections(&server.hub)[0].id;
            let received = || server.hub.connection(&id).map_or(0, |info| info.bytes_in);
            eventually("it is received", || received() > 0);
            let before = received();
            if ends_stream {
                client.half_close();
            } else {
                client.write_all(&close_frame(4001, "bye")).unwrap();
            }
            if ends_stream && scheme == Scheme::Ws {
                thread::sleep(Duration::from_millis(300)); // nothing tells that the gateway has looked
            } else {
                eventually("the gateway has looked", || received() > before); // a close frame, or close_notify
            }
            go.send(()).unwrap();
            assert_eq!(client.read_frame(), (0x81, b"first".to_vec()), "{scheme:?} {ends_stream}");
            if !ends_stream {
                assert_eq!(client.take_close().0, 4001);
            }
            let expected = if ends_stream { (1006, ClosedBy::Network) } else { (4001, ClosedBy::Client) };
            let (code, _, by) = ends.reason();
            assert_eq!((code, by), expected);
        }
    }
}

/// A message and the end of all, in one go.
fn assert_answered(server: &TestServer, scheme: Scheme, path: &str, closes: bool) {
    let mut client = server.raw_websocket(scheme, path);
    let mut bytes: Vec<u8> = (0..5).flat_map(|n| frame(0x81, format!("message {n}").as_bytes())).collect();
    if closes {
        bytes.extend(close_frame(4001, "bye"));
    }
    client.write_all(&bytes).unwrap();
    if closes {
        client.tcp().shutdown(Shutdown::Write).unwrap();
    } else {
        client.half_close();
    }
    for n in 0..5 {
        assert_eq!(client.read_frame(), (0x81, format!("message {n}").into_bytes()), "{scheme:?} {path}");
    }
    if closes {
        assert_eq!(client.read_close_and_end().0, 4001);
    }
}

#[test]
fn a_client_that_sends_and_leaves_at_once_gets_its_answers() {
    for workers in [0, 2] {
        let mut limits = Limits::default();
        limits.workers = workers;
        let server =
            serve(|builder| builder.limits(limits).route("/", || app(echo)).route("/shared", || SharedEcho));
        for scheme in SCHEMES {
            for path in ["/", "/shared"] {
                for n in 0..60 {
                    assert_answered(&server, scheme, path, n % 2 == 0);
                }
            }
        }
    }
}

#[test]
fn a_unix_socket_with_a_full_inbox_whose_client_is_gone_ends() {
    let folder = Folder::new();
    let path = folder.path("socket");
    let (closed, ends) = mpsc::channel();
    let server = serve(|builder| {
        builder.limits(small_inbox(Duration::from_millis(300))).listen(format!("unix:{path}")).route(
            "/",
            move || {
                let closed = closed.clone();
                let before = |opening: &mut Opening| {
                    opening.set_shared_connection(true);
                    Ok(())
                };
                let after = move |end: &Closed| drop(closed.send(end.reason().clone()));
                full_app(before, |_: &mut WebSocket| Ok(()), after)
            },
        )
    });
    let mut client = UnixStream::connect(&path).unwrap();
    client.write_all(handshake("/").as_bytes()).unwrap();
    for n in 0..SENT {
        client.write_all(&frame(0x81, format!("{n}").as_bytes())).unwrap();
    }
    let received = || common::connections(&server.hub).iter().map(|info| info.messages_in).sum::<u64>();
    eventually("the inbox is full", || received() >= 4);
    drop(client);
    assert_broken(&ends.recv_timeout(PATIENCE).unwrap());
}

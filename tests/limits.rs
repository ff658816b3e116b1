#![cfg(feature = "__tls")]
//! Each limit is kept, and has its close code or HTTP status.

mod common;

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Barrier, mpsc},
    time::{Duration, Instant},
};

use common::{
    PATIENCE, SCHEMES, Scheme, Stream, TestServer, app, assert_echoes, echo, eventually, frame, full_app,
    handshake, is_too_slow, next_message, read_close,
    reply::{Reply, ask},
    serve,
};
use rustix::process::{Resource, getrlimit, setrlimit};
use switchboard::{
    CloseReason, Closed, ClosedBy, Error, Limits, Opening, Refusal, Response, Server, ServerResult,
    StatusCode, WebSocket,
};
use tungstenite::Message;

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

/// A server with these limits that runs `handler` at `/`, and reports how each connection ended.
fn serve_with<F>(limits: Limits, handler: F) -> (TestServer, mpsc::Receiver<CloseReason>)
where
    F: Fn(&mut WebSocket) -> ServerResult + Clone + Send + Sync + 'static,
{
    let (tx, rx) = mpsc::channel();
    let server = serve(|builder| {
        builder.limits(limits).route("/", move || {
            let tx = tx.clone();
            full_app(
                |_: &mut Opening| Ok(()),
                handler.clone(),
                move |closed: &Closed| {
                    let _ = tx.send(closed.reason().clone());
                },
            )
        })
    });
    (server, rx)
}

/// Reads until the stream ends, in order or by an error. Returns whether it ended.
fn ends(mut stream: impl Read) -> bool {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut buffer) {
            Ok(1..) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return false,
            _ => return true,
        }
    }
}

#[test]
fn beyond_max_connections_is_503_until_one_leaves() {
    let (server, closed) = serve_with(limits(|l| l.max_connections = 3), echo);
    for scheme in SCHEMES {
        let mut clients: Vec<_> = (0..3).map(|_| server.connect(scheme, "/")).collect();
        assert_eq!(server.handle.connections(), 3);
        for _ in 0..5 {
            let reply = server.ask(Scheme::Ws, handshake("/"));
            assert_eq!(reply.status, 503, "{reply:?}");
            assert!(reply.header("retry-after").is_some_and(|s| s.parse::<u32>().is_ok()), "{reply:?}");
            assert!(reply.refusal().len() > "503 Service Unavailable".len(), "{reply:?}");
        }
        for client in &mut clients {
            assert_echoes(client, "undisturbed");
        }
        for _ in 0..5 {
            clients.pop().unwrap().close(None).unwrap();
            closed.recv_timeout(PATIENCE).unwrap();
            eventually("the slot is free", || server.handle.connections() == 2);
            clients.insert(0, server.connect(scheme, "/"));
            assert_echoes(&mut clients[0], "a slot that was used before");
        }
        drop(clients);
        eventually("all left", || server.handle.connections() == 0);
    }
}

#[test]
fn beyond_max_connections_tls_ends_at_once() {
    let (server, _closed) = serve_with(limits(|l| l.max_connections = 1), echo);
    let mut inside = server.connect(Scheme::Wss, "/");
    for _ in 0..3 {
        // Before the TLS handshake there can be no response, but the client must not have to wait.
        let tcp = TcpStream::connect(server.tls).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(ends(tcp), "the client waits for a TLS handshake that never begins");
    }
    assert_echoes(&mut inside, "undisturbed");
}

#[test]
fn max_connections_counts_handshakes() {
    let (server, _closed) = serve_with(limits(|l| l.max_connections = 2), echo);
    let silent = [server.raw(Scheme::Ws), server.raw(Scheme::Ws)];
    assert_eq!(server.ask(Scheme::Ws, handshake("/")).status, 503);
    drop(silent);
    eventually("their slots are free", || server.handle.connections() == 0);
    let _both = [server.connect(Scheme::Ws, "/"), server.connect(Scheme::Wss, "/")];
    assert_eq!(server.handle.connections(), 2);
}

#[test]
fn however_a_connection_ends_its_slot_is_free_again() {
    const ENDS: [&str; 7] = ["factory", "before", "refused", "server", "error", "after", "404"];
    let server = serve(|mut builder| {
        for end in ENDS {
            let route = move || {
                assert!(end != "factory", "the factory panics");
                full_app(
                    move |_: &mut Opening| match end {
                        "before" => panic!("on_pre_server panics"),
                        "refused" => Err(Refusal::from(StatusCode::FORBIDDEN)),
                        _ => Ok(()),
                    },
                    move |_: &mut WebSocket| match end {
                        "server" => panic!("server panics"),
                        "error" => Err("the handler fails".into()),
                        _ => Ok(()),
                    },
                    move |_: &Closed| assert!(end != "after", "on_post_server panics"),
                )
            };
            if end != "404" {
                builder = builder.route(&format!("/{end}"), route);
            }
        }
        builder.limits(limits(|l| l.max_connections = 2)).route("/", || app(echo))
    });
    for scheme in SCHEMES {
        for end in ENDS {
            for _ in 0..4 {
                let mut stream = server.raw(scheme);
                stream.write_all(handshake(&format!("/{end}")).as_bytes()).unwrap();
                let expected = match end {
                    "factory" | "before" => 500,
                    "refused" => 403,
                    "404" => 404,
                    _ => 101,
                };
                assert_eq!(Reply::read(&mut stream).status, expected, "{end}");
                if expected == 101 {
                    let code = if matches!(end, "server" | "error") { 1011 } else { 1000 };
                    assert_eq!(stream.read_frame().1[..2], u16::to_be_bytes(code), "{end}");
                }
                drop(stream);
                eventually(end, || server.handle.connections() == 0);
            }
        }
        let mut both = [server.connect(scheme, "/"), server.connect(scheme, "/")];
        both.iter_mut().for_each(|client| assert_echoes(client, "room for two"));
        drop(both);
        eventually("they left", || server.handle.connections() == 0);
    }
}

/// The header of a binary frame of so many bytes.
fn announced(bytes: u64) -> Vec<u8> {
    [&[0x82, 0xff][..], &bytes.to_be_bytes(), &[1, 2, 3, 4]].concat()
}

#[test]
fn a_message_beyond_its_limit_is_1009() {
    let (server, closed) = serve_with(limits(|l| l.max_message_size = 1000), echo);
    for scheme in SCHEMES {
        for too_much in [
            frame(0x82, &[0; 1001]),
            frame(0x81, &[b'x'; 100_000]),
            announced(1 << 20),
            announced(u64::MAX >> 1),
            [frame(0x02, &[0; 600]), frame(0x80, &[0; 401])].concat(),
            [frame(0x01, b"x").repeat(1), frame(0x00, b"x").repeat(1000)].concat(),
            [frame(0x02, &[0; 600]), frame(0x89, &[0; 100]), frame(0x00, &[0; 401])].concat(),
        ] {
            let mut stream = server.raw_websocket(scheme, "/");
            stream.write_all(&too_much).unwrap();
            let (mut first, mut payload) = stream.read_frame();
            if first == 0x8a {
                (first, payload) = stream.read_frame(); // the ping was answered
            }
            assert_eq!((first, &payload[..2]), (0x88, &1009_u16.to_be_bytes()[..]));
            assert!(payload.len() > 2, "the close frame says why");
            assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0, "and the stream ends, without a reset");
            drop(stream);
            let reason = closed.recv_timeout(PATIENCE).unwrap();
            assert!(reason.code() == 1009 && reason.by() == ClosedBy::Server, "{reason}");
        }
        let mut stream = server.raw_websocket(scheme, "/");
        for (bytes, answer) in [
            (frame(0x82, &[7; 1000]), 0x82),
            ([frame(0x01, &[7; 600]), frame(0x89, &[0; 0]), frame(0x80, &[7; 400])].concat(), 0x81),
        ] {
            stream.write_all(&bytes).unwrap();
            let mut echoed = stream.read_frame();
            if echoed.0 == 0x8a {
                echoed = stream.read_frame();
            }
            assert_eq!(echoed, (answer, vec![7; 1000]), "up to the limit it passes");
        }
        drop(stream);
        closed.recv_timeout(PATIENCE).unwrap();
    }
}

/// A message that has begun, and makes no progress.
#[test]
fn a_message_that_is_never_completed_is_1008() {
    let limits = limits(|limits| limits.message_timeout = Some(Duration::from_secs(3)));
    let server = serve(|builder| {
        builder.limits(limits).route("/", || app(echo)).route("/shared", || common::SharedEcho)
    });
    let never_completes = |scheme, path| {
        let begun = [&frame(0x01, b"first")[..], &frame(0x81, b"x")[..1], &frame(0x82, &[7; 1000])[..500]];
        let mut clients = begun.map(|begun| {
            let mut client = server.raw_websocket(scheme, path);
            client.write_all(begun).unwrap();
            client
        });
        // The client is there, and says so by a ping: that is nothing of the message.
        std::thread::sleep(Duration::from_millis(500));
        clients[0].write_all(&frame(0x89, b"")).unwrap();
        assert_eq!(clients[0].read_frame(), (0x8a, vec![]));
        let begun = Instant::now();
        for mut client in clients {
            let (code, text) = client.answer_close_and_end();
            assert_eq!((code, &*text), (1008, "a message was not completed in time"), "{scheme:?} {path}");
        }
        assert!(begun.elapsed() < PATIENCE / 2);
    };
    let goes_on = |scheme, path| {
        let mut client = server.raw_websocket(scheme, path);
        for n in 0..2 {
            // Each takes longer than the limit; so does the silence between them.
            for piece in frame(0x81, b"slowly").chunks(2) {
                client.write_all(piece).unwrap();
                std::thread::sleep(Duration::from_millis(650));
            }
            assert_eq!(client.read_frame(), (0x81, b"slowly".to_vec()), "{scheme:?} {path}, number {n}");
            if n == 0 {
                std::thread::sleep(Duration::from_millis(3300));
            }
        }
    };
    std::thread::scope(|scope| {
        for (scheme, path) in SCHEMES.into_iter().flat_map(|scheme| [(scheme, "/"), (scheme, "/shared")]) {
            scope.spawn(move || never_completes(scheme, path));
            scope.spawn(move || goes_on(scheme, path));
        }
    });
}

#[test]
fn a_frame_beyond_its_limit_is_1009() {
    let (server, _closed) = serve_with(limits(|l| l.max_frame_size = 500), echo);
    for scheme in SCHEMES {
        for too_much in
            [frame(0x81, &[b'x'; 501]), [frame(0x01, &[b'x'; 500]), frame(0x80, &[b'x'; 501])].concat()]
        {
            let mut stream = server.raw_websocket(scheme, "/");
            stream.write_all(&too_much).unwrap();
            assert_eq!(stream.read_close_and_end().0, 1009);
        }
        let mut stream = server.raw_websocket(scheme, "/");
        let frames = [frame(0x01, &[b'x'; 500]), frame(0x00, &[b'x'; 500]), frame(0x80, &[b'x'; 500])];
        stream.write_all(&frames.concat()).unwrap();
        assert_eq!(stream.read_frame(), (0x81, vec![b'x'; 1500]));
    }
}

#[test]
fn a_client_that_still_sends_can_read_the_close_frame() {
    let (server, _closed) = serve_with(limits(|l| l.max_message_size = 1000), echo);
    for scheme in SCHEMES {
        let mut client = server.connect(scheme, "/");
        client.send(Message::binary(vec![0; 4 << 20])).unwrap();
        assert_eq!(read_close(&mut client).0, 1009);
    }
}

#[test]
fn messages_up_to_the_limit_pass() {
    const MOST: usize = 8 << 20;
    let larger = limits(|l| (l.max_message_size, l.max_frame_size) = (MOST, MOST));
    for (limits, most) in [(Limits::default(), 1 << 20), (larger, MOST)] {
        let (server, _closed) = serve_with(limits, echo);
        for scheme in SCHEMES {
            let mut client = server.connect(scheme, "/");
            for message in [
                Message::binary((0..most).map(|i| (i % 251) as u8).collect::<Vec<_>>()),
                Message::text("ä".repeat(most / 2)),
            ] {
                client.send(message.clone()).unwrap();
                assert!(next_message(&mut client) == message);
            }
            let mut stream = server.raw_websocket(scheme, "/");
            stream.write_all(&announced(most as u64 + 1)).unwrap();
            assert_eq!(stream.read_close_and_end().0, 1009, "a byte more");
        }
    }
}

#[test]
fn a_write_to_a_client_that_does_not_read_times_out() {
    const TIMEOUT: Duration = Duration::from_millis(400);
    let (tx, rx) = mpsc::channel();
    let (server, closed) = serve_with(limits(|l| l.write_timeout = TIMEOUT), move |ws| {
        let megabyte = vec![0; 1 << 20];
        loop {
            let begun = Instant::now();
            if let Err(e) = ws.write(switchboard::Message::from(&megabyte)) {
                let next = ws.write("more");
                tx.send((is_too_slow(&e), begun.elapsed(), matches!(next, Err(Error::Closed(_)))))?;
                return Err(e.into());
            }
        }
    });
    for scheme in SCHEMES {
        let stream = server.raw_websocket(scheme, "/");
        let (is_too_slow, after, is_closed) = rx.recv_timeout(PATIENCE).unwrap();
        assert!(is_too_slow && after >= TIMEOUT, "{after:?}");
        assert!(is_closed, "a part of a frame may have been sent, so nothing can follow");
        let reason = closed.recv_timeout(PATIENCE).unwrap();
        assert!(reason.by() == ClosedBy::Server && !reason.is_normal(), "{reason}");
        assert!(ends(stream), "the client gets what was sent, and the end");
    }
}

#[test]
fn a_slow_client_that_reads_in_time_gets_everything() {
    const MESSAGES: u8 = 40;
    let (tx, rx) = mpsc::channel();
    let (server, closed) = serve_with(Limits::default(), move |ws| {
        for i in 0..MESSAGES {
            ws.write(switchboard::Message::from(vec![i; 1 << 20]))?;
            tx.send(Instant::now())?;
        }
        Ok(())
    });
    for scheme in SCHEMES {
        let mut client = server.connect(scheme, "/");
        // The socket takes some; then `write` waits until the client reads.
        while rx.recv_timeout(Duration::from_millis(500)).is_ok() {}
        for i in 0..MESSAGES {
            assert!(next_message(&mut client) == Message::binary(vec![i; 1 << 20]), "message {i}");
        }
        assert_eq!(read_close(&mut client).0, 1000);
        drop(client);
        assert!(closed.recv_timeout(PATIENCE).unwrap().is_normal());
        assert!(rx.try_iter().count() > 0, "it did wait");
    }
}

const CLOSE_TIMEOUT: Duration = Duration::from_millis(400);

/// Number of messages before a connection is closed, so that the gateway no longer treats it as new.
const TALK: usize = 20;

/// A connection that the server is about to close: the close frame comes next.
fn connect_closing(server: &TestServer, scheme: Scheme, path: &str) -> Stream {
    let mut stream = server.raw_websocket(scheme, path);
    for _ in 0..TALK {
        stream.write_all(&frame(0x81, b"x")).unwrap();
        assert_eq!(stream.read_frame(), (0x81, b"x".to_vec()));
    }
    stream
}

/// The server ends each connection: by `end_server` at `/`, by returning at `/return`.
fn serve_closing() -> (TestServer, mpsc::Receiver<(CloseReason, Duration)>) {
    let (tx, rx) = mpsc::channel();
    let server = serve(|mut builder| {
        for path in ["/", "/return"] {
            let tx = tx.clone();
            builder = builder.route(path, move || {
                let tx = tx.clone();
                full_app(
                    |_: &mut Opening| Ok(()),
                    |ws: &mut WebSocket| {
                        for _ in 0..TALK {
                            let message = ws.read_message(PATIENCE)?;
                            ws.write(message)?;
                        }
                        if ws.path() == "/" {
                            ws.end_server();
                            assert!(ws.read(0, PATIENCE).unwrap_err().is_closed());
                        }
                        Ok(())
                    },
                    move |closed: &Closed| {
                        let _ = tx.send((closed.reason().clone(), closed.duration()));
                    },
                )
            });
        }
        builder.limits(limits(|l| l.close_timeout = CLOSE_TIMEOUT))
    });
    (server, rx)
}

#[test]
fn a_client_that_never_answers_the_close_is_cut() {
    let (server, closed) = serve_closing();
    for scheme in SCHEMES {
        for path in ["/", "/return"] {
            let mut silent = connect_closing(&server, scheme, path);
            assert_eq!(silent.read_frame(), (0x88, 1000_u16.to_be_bytes().to_vec()));
            let (reason, after) = closed.recv_timeout(PATIENCE).unwrap();
            assert!(reason.code() == 1000 && reason.by() == ClosedBy::Server, "{reason}");
            assert!(after >= CLOSE_TIMEOUT, "it had its time: {after:?}");
            eventually("its slot is free", || server.handle.connections() == 0);
            assert!(ends(silent));
        }
    }
}

#[test]
fn a_client_that_answers_but_never_ends_its_stream_is_cut() {
    let (server, closed) = serve_closing();
    for scheme in SCHEMES {
        for path in ["/", "/return"] {
            let mut client = connect_closing(&server, scheme, path);
            let (first, payload) = client.read_frame();
            client.write_all(&frame(first, &payload)).unwrap();
            assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "the server ends its side first");
            let (reason, after) = closed.recv_timeout(PATIENCE).unwrap();
            assert!(reason.code() == 1000 && reason.by() == ClosedBy::Server, "{reason}");
            assert!(
                after >= CLOSE_TIMEOUT,
                "{scheme:?}: what it might still send would be a reset: {after:?}"
            );
            eventually("its slot is free", || server.handle.connections() == 0);
        }
    }
}

#[test]
fn a_client_that_trickles_instead_of_closing_is_cut() {
    let (server, closed) = serve_closing();
    for scheme in SCHEMES {
        for path in ["/", "/return"] {
            let mut client = connect_closing(&server, scheme, path);
            let begun = Instant::now();
            while closed.recv_timeout(Duration::from_millis(10)).is_err() {
                assert!(begun.elapsed() < PATIENCE, "{path}: each message extends the timeout");
                // This fails once the connection is cut.
                let _ = client.write_all(&frame(0x81, b"not yet"));
            }
        }
    }
}

#[test]
fn a_client_that_floods_instead_of_closing_is_cut() {
    let still_read: Vec<_> = [("/", false), ("/", true), ("/return", false), ("/return", true)]
        .into_iter()
        .filter(|&(path, answers_first)| {
            let (server, closed) = serve_closing();
            let mut client = connect_closing(&server, Scheme::Ws, path);
            assert_eq!(client.read_frame().0, 0x88);
            if answers_first {
                client.write_all(&frame(0x88, &1000_u16.to_be_bytes())).unwrap();
            }
            let mut tcp = client.tcp().try_clone().unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let bytes = frame(0x82, &[0; 60_000]).repeat(20);
                    while tcp.write_all(&bytes).is_ok() {}
                });
                let result = closed.recv_timeout(CLOSE_TIMEOUT * 20);
                client.tcp().shutdown(Shutdown::Both).ok();
                result.is_err()
            })
        })
        .collect();
    assert!(still_read.is_empty(), "(path, whether it answered before): {still_read:?}");
}

/// For both ends of all connections, which are in this process.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum.map_or(Some(4096), |most| Some(most.min(4096))).max(limit.current);
    setrlimit(Resource::Nofile, limit).unwrap();
}

#[test]
fn five_hundred_clients_at_once() {
    const CLIENTS: usize = 500;
    const THREADS: usize = 4;
    raise_descriptor_limit();
    let (server, closed) = serve_with(Limits::default(), echo);
    for scheme in SCHEMES {
        let everybody = Arc::new(Barrier::new(THREADS + 1));
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let (server, everybody) = (&server, everybody.clone());
                scope.spawn(move || {
                    let mut clients: Vec<_> =
                        (0..CLIENTS / THREADS).map(|_| server.connect(scheme, "/")).collect();
                    everybody.wait();
                    for round in 0..5 {
                        let text = |i| format!("{thread} {round} {i}");
                        for (i, client) in clients.iter_mut().enumerate() {
                            client.send(Message::text(text(i))).unwrap();
                        }
                        for (i, client) in clients.iter_mut().enumerate() {
                            assert_eq!(next_message(client), Message::text(text(i)));
                        }
                    }
                    everybody.wait();
                    for client in &mut clients {
                        client.close(None).unwrap();
                        assert_eq!(read_close(client).0, 1005);
                    }
                });
            }
            everybody.wait();
            assert_eq!(server.handle.connections(), CLIENTS);
            everybody.wait();
        });
        for _ in 0..CLIENTS {
            assert!(closed.recv_timeout(PATIENCE).unwrap().is_normal());
        }
        eventually("all slots are free", || server.handle.connections() == 0);
    }
}

#[cfg(all(feature = "cli", target_os = "linux"))]
mod exhaustion {
    use std::{fs, process::Command};

    use rustix::process::{Pid, Rlimit, prlimit};

    use super::*;
    use crate::common::{
        folder::Folder,
        process::{COMMAND, Process},
    };

    /// The number of open descriptors of a process.
    fn descriptors(id: u32) -> usize {
        fs::read_dir(format!("/proc/{id}/fd")).unwrap().count()
    }

    fn ask(address: std::net::SocketAddr) -> Stream {
        let mut stream = Stream::connect(address, Scheme::Ws);
        stream.write_all(handshake("/echo").as_bytes()).unwrap();
        stream
    }

    fn assert_echoes(stream: &mut Stream) {
        stream.write_all(&frame(0x81, b"served")).unwrap();
        assert_eq!(stream.read_frame(), (0x81, b"served".to_vec()));
    }

    #[test]
    fn out_of_descriptors_the_server_waits_and_then_serves_again() {
        let limited = "ulimit -n 40; exec \"$0\" --listen 127.0.0.1:0";
        let mut server = Process::spawn(Command::new("sh").args(["-c", limited, COMMAND]));
        let address = server.address("http");
        server.line("cls is the example of the IRIS documentation");
        let id = server.id();
        // After serving its first client it has opened all descriptors that it needs for itself.
        let mut first = ask(address);
        assert_eq!(Reply::read(&mut first).status, 101);
        let before = descriptors(id) - 1;
        drop(first);
        let mut capacity = None;
        for round in 0..3 {
            // As many clients as it can serve; the first one more is refused, or has to wait.
            let mut served = Vec::new();
            let mut waiting = loop {
                assert!(served.len() < 40, "more clients than descriptors");
                let mut stream = ask(address);
                stream.tcp().set_read_timeout(Some(Duration::from_secs(3))).unwrap();
                match stream.tcp().peek(&mut [0; 13]) {
                    Ok(_) if Reply::read(&mut stream).status == 101 => served.push(stream),
                    Ok(_) => break vec![],
                    Err(_) => break vec![stream],
                }
            };
            assert!(served.len() >= 10, "round {round}: only {} served", served.len());
            waiting.extend((0..5).map(|_| ask(address)));
            served.iter_mut().for_each(assert_echoes);

            let used = server.ticks();
            std::thread::sleep(Duration::from_secs(1)); // the time that is measured
            let used = server.ticks() - used;
            assert!(used < 30, "round {round}: {used} of 100 ticks of processor time for doing nothing");
            served.iter_mut().for_each(assert_echoes);

            let most = served.len();
            drop(served);
            for mut stream in waiting {
                stream.tcp().set_read_timeout(Some(PATIENCE)).unwrap();
                let status = Reply::read(&mut stream).status;
                assert!(status == 101 || status == 503, "{status}");
                if status == 101 {
                    assert_echoes(&mut stream);
                }
            }
            eventually("all descriptors are closed", || descriptors(id) <= before);
            let expected = *capacity.get_or_insert(most);
            assert!(most >= expected, "round {round}: {most} are served, where {expected} were at first");
        }
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_not_called_missing() {
        let folder = Folder::new();
        folder.write("file.txt", "content");
        let mut server = Process::start(&["--listen", "127.0.0.1:0", "--www", folder.to_str().unwrap()]);
        let address = server.address("http");
        let pid = Pid::from_raw(server.id() as i32);
        let get = |limit: Option<u64>| {
            let limit = Rlimit { current: limit, ..getrlimit(Resource::Nofile) };
            prlimit(pid, Resource::Nofile, limit).unwrap();
            let mut stream = Stream::connect(address, Scheme::Ws);
            stream.write_all(b"GET /file.txt HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            Reply::read(&mut stream)
        };
        let all = getrlimit(Resource::Nofile).current;
        assert_eq!(get(all).text(), "content");
        eventually("there is a descriptor for the client, and none for the file", || {
            let is_free = |n: &u64| !fs::exists(format!("/proc/{}/fd/{n}", server.id())).unwrap();
            let lowest = (0..).find(is_free).unwrap();
            let reply = get(Some(lowest + 1));
            reply.status == 503 && reply.refusal().ends_with(": the file cannot be opened")
        });
        server.line("file.txt: Too many open files");
        assert_eq!(get(all).text(), "content");
    }

    #[test]
    fn without_memory_for_a_thread_a_client_is_refused() {
        let mut command = Command::new(COMMAND);
        command.args(["--listen", "127.0.0.1:0", "--stack-size", "64M"]);
        command.env("MALLOC_ARENA_MAX", "1"); // else each thread reserves its own memory arena
        let mut server = Process::spawn(&mut command);
        let address = server.address("http");
        let mut first = ask(address);
        assert_eq!(Reply::read(&mut first).status, 101);
        let pid = Pid::from_raw(server.id() as i32);
        let all = getrlimit(Resource::As);
        let some = Some((server.memory("VmSize") + (32 << 10)) << 10);
        prlimit(pid, Resource::As, Rlimit { current: some, ..all }).unwrap();
        for _ in 0..3 {
            let reply = Reply::read(&mut ask(address));
            assert_eq!((reply.status, reply.header("retry-after")), (503, Some("5")));
        }
        server.line("cannot start a thread with a stack of 67108864 bytes: ");
        assert_echoes(&mut first);
        prlimit(pid, Resource::As, all).unwrap();
        let mut clients = [ask(address), ask(address)];
        for client in &mut clients {
            assert_eq!(Reply::read(client).status, 101);
        }
        clients.iter_mut().for_each(assert_echoes);
    }
}

/// What makes no sense is refused before anything is bound.
#[test]
fn limits_that_make_no_sense_are_refused_in_one_line() {
    type Change = fn(&mut Limits);
    let all: &[(&str, Change)] = &[
        ("max_connections", |l| l.max_connections = 0),
        ("max_connections_per_address", |l| l.max_connections_per_address = Some(0)),
        ("stack_size", |l| l.stack_size = 1000),
        ("handshake_timeout", |l| l.handshake_timeout = Duration::ZERO),
        ("max_head", |l| l.max_head = 0),
        ("max_message_size", |l| l.max_message_size = 0),
        ("max_frame_size", |l| l.max_frame_size = 0),
        ("max_read_buffer", |l| l.max_read_buffer = 0),
        ("write_timeout", |l| l.write_timeout = Duration::ZERO),
        ("close_timeout", |l| l.close_timeout = Duration::ZERO),
        ("max_queue_bytes", |l| l.max_queue_bytes = Some(0)),
        ("max_queue_messages", |l| l.max_queue_messages = 0),
        ("max_inbox_bytes", |l| l.max_inbox_bytes = 0),
        ("max_inbox_messages", |l| l.max_inbox_messages = 0),
        ("max_buffered_bytes", |l| l.max_buffered_bytes = Some(0)),
        ("message_timeout", |l| l.message_timeout = Some(Duration::ZERO)),
        ("ping_interval", |l| l.ping_interval = Some(Duration::ZERO)),
        ("ping_timeout", |l| l.ping_timeout = Duration::ZERO),
        ("shared_idle_timeout", |l| l.shared_idle_timeout = Some(Duration::ZERO)),
        ("workers", |l| l.workers = 20_000),
        ("gateways", |l| l.gateways = 0),
        ("gateways", |l| l.gateways = 1000),
        ("session_timeout", |l| l.session_timeout = Duration::ZERO),
    ];
    for (name, change) in all {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let builder = Server::builder().listen(&address).route("/", || app(echo));
        let error = builder.limits(limits(change)).bind().err().unwrap_or_else(|| panic!("{name} is taken"));
        let text = error.to_string();
        assert!(text.contains(name) && text.contains("has to be") && text.lines().count() == 1, "{text}");
    }
}

/// The smallest values that are allowed do work, over TLS, too.
#[test]
fn the_smallest_stack_and_buffers_do() {
    let small = limits(|l| {
        (l.stack_size, l.max_read_buffer, l.max_head) = (64 << 10, 512, 512);
        (l.max_queue_messages, l.max_inbox_messages, l.max_inbox_bytes) = (1, 1, 1);
        (l.max_queue_bytes, l.max_buffered_bytes) = (Some(1), Some(1 << 20));
        (l.max_message_size, l.max_frame_size) = (20_000, 20_000);
    });
    let server = serve(|builder| {
        builder.limits(small).route("/", || app(echo)).route("/shared", || common::SharedEcho)
    });
    for scheme in SCHEMES {
        for path in ["/", "/shared"] {
            let mut client = server.connect(scheme, path);
            for _ in 0..3 {
                assert_echoes(&mut client, "x".repeat(20_000));
            }
        }
    }
}

/// A client at this address, which has to be one of the loopback network.
#[cfg(target_os = "linux")]
fn connect_from(ip: [u8; 4], server: SocketAddr) -> Stream {
    use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from((ip, 0))).unwrap();
    connect(&socket, &server).unwrap();
    let tcp = TcpStream::from(socket);
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    Stream::Plain(tcp)
}

#[cfg(target_os = "linux")]
fn open_from(ip: [u8; 4], server: &TestServer, headers: &str) -> (u16, Stream) {
    let mut stream = connect_from(ip, server.plain);
    let request = handshake("/").replace("\r\n\r\n", &format!("\r\n{headers}\r\n"));
    stream.write_all(request.as_bytes()).unwrap();
    (Reply::read(&mut stream).status, stream)
}

#[cfg(target_os = "linux")]
#[test]
fn beyond_max_connections_per_address_is_429_until_one_leaves() {
    let (server, closed) = serve_with(limits(|l| l.max_connections_per_address = Some(2)), echo);
    const OTHER: [u8; 4] = [127, 0, 0, 2];
    for scheme in SCHEMES {
        let mut clients: Vec<_> = (0..2).map(|_| server.connect(scheme, "/")).collect();
        for _ in 0..3 {
            let reply = server.ask(Scheme::Ws, handshake("/"));
            assert_eq!(reply.status, 429, "{reply:?}");
            assert!(reply.header("retry-after").is_some_and(|s| s.parse::<u32>().is_ok()), "{reply:?}");
            assert!(reply.refusal().contains("from this address"), "{reply:?}");
            // Before the TLS handshake there can be no response.
            let tcp = TcpStream::connect(server.tls).unwrap();
            tcp.set_read_timeout(Some(PATIENCE)).unwrap();
            assert!(ends(tcp));
        }
        let others: Vec<_> = (0..2).map(|_| open_from(OTHER, &server, "")).collect();
        assert!(others.iter().all(|(status, _)| *status == 101), "another address has its own");
        assert_eq!(open_from(OTHER, &server, "").0, 429);
        drop(others);
        for client in &mut clients {
            assert_echoes(client, "undisturbed");
        }
        clients.pop().unwrap().close(None).unwrap();
        (0..3).for_each(|_| drop(closed.recv_timeout(PATIENCE).unwrap()));
        eventually("there is room again", || server.handle.connections() == 1);
        clients.push(server.connect(scheme, "/"));
        drop(clients);
        (0..2).for_each(|_| drop(closed.recv_timeout(PATIENCE).unwrap()));
        eventually("all left", || server.handle.connections() == 0);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn max_connections_per_address_counts_handshakes_and_shared_connections() {
    let limits = limits(|l| l.max_connections_per_address = Some(2));
    let server = serve(|builder| builder.limits(limits).route("/", || common::SharedEcho));
    let silent = [server.raw(Scheme::Ws), server.raw(Scheme::Ws)];
    assert_eq!(server.ask(Scheme::Ws, handshake("/")).status, 429);
    drop(silent);
    eventually("they left", || server.handle.connections() == 0);
    let mut clients = [server.connect(Scheme::Ws, "/"), server.connect(Scheme::Ws, "/")];
    clients.iter_mut().for_each(|client| assert_echoes(client, "parked"));
    assert_eq!(server.ask(Scheme::Ws, handshake("/")).status, 429);
    drop(clients);
    eventually("they left, too", || server.handle.connections() == 0);
    assert_echoes(&mut server.connect(Scheme::Ws, "/"), "room again");
}

/// The proxy is 127.0.0.3, and says whom it has connected.
#[cfg(target_os = "linux")]
#[test]
fn behind_a_trusted_proxy_the_forwarded_address_is_counted_and_not_the_proxy() {
    const PROXY: [u8; 4] = [127, 0, 0, 3];
    let limits = limits(|l| l.max_connections_per_address = Some(2));
    let server = serve(|builder| {
        let page = |_: &switchboard::Exchange<'_>| switchboard::Response::html("page");
        builder
            .limits(limits)
            .trusted_proxies([IpAddr::from(PROXY)])
            .http("/page", page)
            .route("/", || app(echo))
    });
    let of = |client: &str| open_from(PROXY, &server, &format!("X-Forwarded-For: {client}\r\n"));
    let mut open = Vec::new();
    let mut expect = |what: (u16, Stream), status| {
        assert_eq!(what.0, status);
        open.extend((status == 101).then_some(what.1));
    };
    for client in ["10.0.0.1", "10.0.0.2", "2001:db8:0:1::1"] {
        (0..2).for_each(|_| expect(of(client), 101));
    }
    expect(of("10.0.0.1"), 429);
    expect(of("2001:db8:0:1:ffff::2"), 429); // in the same network
    expect(of("2001:db8:0:2::1"), 101);
    expect(of("10.9.9.9, 10.0.0.2"), 429); // the nearest one counts, the others may be invented
    // Whom it does not name is the proxy itself, such as its health check.
    (0..5).for_each(|_| expect(open_from(PROXY, &server, ""), 101));
    // Nobody else is believed.
    let other = |client: &str| open_from([127, 0, 0, 4], &server, &format!("X-Forwarded-For: {client}\r\n"));
    (0..2).for_each(|n| expect(other(&format!("10.1.0.{n}")), 101));
    expect(other("10.1.0.9"), 429);
    // A page counts while it is being sent.
    let page = |client: &str| {
        let mut stream = connect_from(PROXY, server.plain);
        let head = format!("GET /page HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: {client}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        Reply::read(&mut stream).status
    };
    assert_eq!((page("10.0.0.1"), page("10.0.0.7")), (429, 200));
    drop(open);
    eventually("all left", || server.handle.connections() == 0);
    assert_eq!(of("10.0.0.1").0, 101);
}

/// Connections that only wait for their next HTTP request give up their places first; of an address that has too many, its own.
#[cfg(target_os = "linux")]
#[test]
fn idle_connections_of_an_address_give_way_to_its_others() {
    const OWN: [u8; 4] = [127, 0, 0, 5];
    const OTHER: [u8; 4] = [127, 0, 0, 6];
    let limits = limits(|l| {
        (l.max_connections, l.max_connections_per_address) = (6, Some(2));
        l.http_keep_alive = PATIENCE * 10;
    });
    let server = serve(|builder| {
        builder.limits(limits).http("/page", |_| Response::html("page")).route("/", || app(echo))
    });
    let page = |ip| {
        let mut stream = connect_from(ip, server.plain);
        let reply = ask(&mut stream, "GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!((reply.status, reply.closes()), (200, false), "{reply:?}");
        stream
    };
    // Whether it waits is not to be seen from outside: the thread may be on its way there.
    let open = |ip| {
        let mut opened = None;
        eventually("an idle connection gives way", || {
            let (status, stream) = open_from(ip, &server, "");
            assert!(matches!(status, 101 | 429), "{status}");
            opened = (status == 101).then_some(stream);
            opened.is_some()
        });
        opened.unwrap()
    };
    let mut others = [page(OTHER), page(OTHER)];
    let mut idle = [page(OWN), page(OWN)];
    let sockets = [open(OWN), open(OWN)];
    for stream in &mut idle {
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "it has ended");
    }
    // All places but two are taken now, and then all. Whoever has too many of its own takes none of another's.
    let more = [open([127, 0, 0, 7]), open([127, 0, 0, 7])];
    for _ in 0..10 {
        assert_eq!(open_from(OWN, &server, "").0, 429);
    }
    for stream in &mut others {
        let reply = ask(stream, "GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(reply.status, 200, "undisturbed");
    }
    drop((sockets, more));
}

/// The same where a proxy says whose connection it is: that is known only when the request is there.
#[cfg(target_os = "linux")]
#[test]
fn a_proxys_idle_connections_give_way_to_those_of_the_same_client() {
    const PROXY: [u8; 4] = [127, 0, 0, 8];
    let limits = limits(|l| {
        l.max_connections_per_address = Some(2);
        l.http_keep_alive = PATIENCE * 10;
    });
    let server = serve(|builder| {
        let page = |_: &switchboard::Exchange<'_>| Response::html("page");
        builder
            .limits(limits)
            .trusted_proxies([IpAddr::from(PROXY)])
            .http("/page", page)
            .route("/", || app(echo))
    });
    let page = "GET /page HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n";
    let mut idle: Vec<_> = (0..2)
        .map(|_| {
            let mut stream = connect_from(PROXY, server.plain);
            assert_eq!(ask(&mut stream, page).status, 200);
            stream
        })
        .collect();
    let mut open = Vec::new();
    eventually("both give way", || {
        let (status, stream) = open_from(PROXY, &server, "X-Forwarded-For: 10.0.0.1\r\n");
        open.extend((status == 101).then_some(stream));
        open.len() == 2
    });
    assert!(idle.iter_mut().all(|stream| stream.read(&mut [0]).unwrap() == 0));
    assert_eq!(open_from(PROXY, &server, "X-Forwarded-For: 10.0.0.1\r\n").0, 429);
}

/// "Never" may be written as the longest time that there is.
#[test]
fn the_longest_times_do() {
    /// What it is sent is read only when it is asked to.
    struct Unread;

    impl switchboard::WebSocketServer for Unread {
        fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
            opening.set_shared_connection(true);
            Ok(())
        }

        fn server(&mut self, _: &mut WebSocket) -> ServerResult {
            Ok(())
        }
    }

    let never = Duration::MAX;
    let limits = limits(|l| {
        (l.handshake_timeout, l.write_timeout, l.close_timeout) = (never, never, never);
        (l.message_timeout, l.ping_interval, l.ping_timeout) = (Some(never), Some(never), never);
        (l.shared_idle_timeout, l.session_timeout) = (Some(never), never);
        (l.thread_keep_alive, l.http_keep_alive) = (never, never);
        (l.max_inbox_messages, l.min_http_rate) = (2, 1);
    });
    let server = serve(|builder| {
        let builder = builder.limits(limits).route("/", || app(echo)).route("/shared", || common::SharedEcho);
        builder.route("/unread", || Unread).http("POST /page", |exchange| -> Result<Response, Refusal> {
            Ok(Response::new("text/plain", exchange.body()?))
        })
    });
    for scheme in SCHEMES {
        let mut page = server.raw(scheme);
        for _ in 0..2 {
            let head = "POST /page HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody";
            assert_eq!(ask(&mut page, head).body, b"body");
        }
        for path in ["/", "/shared"] {
            let mut client = server.connect(scheme, path);
            assert_echoes(&mut client, "in time");
            client.close(None).unwrap();
            read_close(&mut client);
        }
        // Its inbox is full, and the system asks whether it is still there.
        let (mut client, response) = server.try_connect(scheme, "/unread", &[]).unwrap();
        drop(response);
        let id = server.hub.connections(switchboard::Audience::Path("/unread"), None, 1).unwrap().items[0].id;
        for n in 0..20 {
            client.send(Message::text(n.to_string())).unwrap();
        }
        let ws = server.hub.open_server(&id).unwrap();
        eventually("its inbox is full", || server.hub.connection(&id).unwrap().messages_in >= 2);
        for n in 0..20 {
            assert_eq!(ws.read_message(PATIENCE).unwrap().as_text(), Some(&*n.to_string()));
        }
        assert_echoes(&mut server.connect(scheme, "/shared"), "the gateway lives");
        ws.end_server();
        read_close(&mut client);
    }
}

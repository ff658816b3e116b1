#![cfg(feature = "__tls")]
//! What `ServerHandle::shutdown` promises to clients in every state, and to the thread that calls `run`.
mod common;

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use common::{
    PATIENCE, SCHEMES, Scheme, Stream, TestServer, app, assert_closed,
    ends::{End, reason_parts, serve_ends},
    eventually, frame, full_app, handshake,
    reply::Reply,
    serve, serve_app,
};
use switchboard::{ClosedBy, Error, Limits, Opening, Response, Server, ServerResult, StatusCode, WebSocket};

/// Much shorter than the close timeout and the grace periods of these tests, to see that none of them was used up.
const SOON: Duration = Duration::from_secs(3);

fn wait_for_close(ws: &mut WebSocket) -> ServerResult {
    loop {
        ws.read_message(PATIENCE)?;
    }
}

fn wait_for_accepted(server: &TestServer, connections: usize) {
    eventually("it is accepted", || server.handle.connections() == connections);
}

/// Waits until `run` returns, but not for ever as `join` would.
fn assert_returns(server: TestServer) {
    eventually("run returns", || server.has_ended());
    let (plain, tls) = (server.plain, server.tls);
    drop(server); // this fails if `run` returned an error
    [plain, tls].into_iter().for_each(assert_closed);
}

fn assert_503(stream: &mut Stream) {
    let reply = Reply::read(stream);
    assert_eq!(reply.status, 503, "{reply:?}");
    assert!(reply.header("retry-after").is_some(), "{reply:?}");
    assert!(reply.refusal().contains("shuts down"), "{reply:?}");
}

#[test]
fn without_connections_run_returns_at_once() {
    let server = serve_app(wait_for_close);
    server.handle.shutdown(PATIENCE * 10);
    assert_returns(server);
}

#[test]
fn unfinished_handshakes_are_answered_with_503() {
    for scheme in SCHEMES {
        let server = serve_app(wait_for_close);
        let request = handshake("/");
        // Nothing (except TLS), a part of the head, and all of it except the last byte.
        let mut clients: Vec<_> = [0, 30, request.len() - 1]
            .iter()
            .map(|&n| {
                let mut client = server.raw(scheme);
                client.write_all(&request.as_bytes()[..n]).unwrap();
                client
            })
            .collect();
        wait_for_accepted(&server, clients.len());
        server.handle.shutdown(PATIENCE * 10);
        clients.iter_mut().for_each(assert_503);
        drop(clients);
        assert_returns(server);
    }
}

#[test]
fn an_unfinished_tls_handshake_ends_at_once() {
    let server = serve_app(wait_for_close);
    // The first bytes of a record of 512 bytes with a ClientHello.
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    let mut clients: Vec<_> = [0, 1, hello.len()]
        .iter()
        .map(|&n| {
            let mut client = Stream::connect(server.tls, Scheme::Ws);
            client.write_all(&hello[..n]).unwrap();
            client
        })
        .collect();
    wait_for_accepted(&server, clients.len());
    let begun = Instant::now();
    server.handle.shutdown(PATIENCE * 10);
    for client in &mut clients {
        let rest = client.read_to_any_end();
        assert!(!rest.starts_with(b"HTTP"), "a plaintext response on a TLS port");
    }
    assert!(begun.elapsed() < SOON, "it waited for the handshake timeout");
    drop(clients);
    assert_returns(server);
}

#[test]
fn open_connections_are_closed_with_1001() {
    for scheme in SCHEMES {
        let (server, ends) = serve_ends(Limits::default(), |ws| {
            let error = loop {
                match ws.read(0, PATIENCE) {
                    Ok(data) => ws.write(data)?,
                    Err(e) => break e,
                }
            };
            let Error::Closed(reason) = &error else { panic!("{error:?}") };
            assert!(reason.is_normal() && reason.by() == ClosedBy::Server && reason.code().0 == 1001);
            assert!(ws.write("late").unwrap_err().is_closed());
            Err(error.into())
        });
        let mut clients: Vec<_> = (0..5).map(|_| server.raw_websocket(scheme, "/")).collect();
        // One is in the middle of a message.
        clients[0].write_all(&frame(0x81, b"never whole")[..9]).unwrap();
        clients[1].write_all(&frame(0x81, b"whole")).unwrap();
        assert_eq!(clients[1].read_frame(), (0x81, b"whole".to_vec()));
        let begun = Instant::now();
        server.handle.shutdown(PATIENCE * 10);
        for client in &mut clients[1..] {
            let (code, text) = client.answer_close_and_end();
            assert_eq!((code, &*text), (1001, "the server shuts down"));
        }
        // This client completes its message before it answers the close.
        let (first, _) = clients[0].read_frame();
        assert_eq!(first, 0x88);
        clients[0].write_all(&frame(0x81, b"never whole")[9..]).unwrap();
        clients[0].write_all(&frame(0x88, &1001u16.to_be_bytes())).unwrap();
        assert_eq!(clients[0].read(&mut [0; 1]).unwrap(), 0);
        drop(clients);
        assert_returns(server);
        assert!(begun.elapsed() < SOON, "it used up the close timeout, or the grace period");
        for _ in 0..5 {
            assert_eq!(ends.reason(), (1001, "the server shuts down".into(), ClosedBy::Server));
        }
        assert!(ends.none());
    }
}

#[test]
fn a_handler_that_computes_has_the_grace_period() {
    for scheme in SCHEMES {
        let (go, gone) = mpsc::channel::<()>();
        let gone = Arc::new(Mutex::new(gone));
        let (server, ends) = serve_ends(Limits::default(), move |ws| {
            gone.lock().unwrap().recv_timeout(PATIENCE)?;
            assert!(ws.write("late").unwrap_err().is_closed());
            Ok(())
        });
        let mut client = server.raw_websocket(scheme, "/");
        server.handle.shutdown(PATIENCE * 10);
        assert_eq!(client.answer_close_and_end().0, 1001, "at once, although it computes");
        eventually("no new client is accepted", || TcpStream::connect(server.address(scheme)).is_err());
        assert!(!server.has_ended(), "it waits for the handler");
        go.send(()).unwrap();
        drop(client);
        assert_returns(server);
        assert_eq!(ends.next().reason.code().0, 1001);
        assert!(ends.none());
    }
}

#[test]
fn after_the_grace_period_a_busy_handlers_socket_is_cut_but_run_waits_for_its_thread() {
    const GRACE: Duration = Duration::from_millis(400);
    for scheme in SCHEMES {
        let (go, gone) = mpsc::channel::<()>();
        let gone = Arc::new(Mutex::new(gone));
        let (server, ends) = serve_ends(Limits::default(), move |_| {
            gone.lock().unwrap().recv_timeout(PATIENCE)?;
            Ok(())
        });
        let mut client = server.raw_websocket(scheme, "/");
        let begun = Instant::now();
        server.handle.shutdown(GRACE);
        // It reads the close frame, and does not answer.
        assert_eq!(client.read_frame().0, 0x88);
        assert!(client.read_to_any_end().is_empty());
        assert!(begun.elapsed() >= GRACE, "cut before its time: {:?}", begun.elapsed());
        assert!(begun.elapsed() < SOON, "not cut when the grace period was over");
        assert!(!server.has_ended(), "a thread cannot be killed");
        go.send(()).unwrap();
        assert_returns(server);
        assert_eq!(ends.next().reason.code().0, 1001);
        assert!(ends.none());
    }
}

#[test]
fn a_client_that_does_not_answer_the_close_is_cut_by_the_shorter_time_limit() {
    for scheme in SCHEMES {
        // The grace period is much shorter than the close timeout, or much longer.
        for (close_timeout, grace) in [(PATIENCE, 300), (Duration::from_millis(300), 100_000)] {
            let mut limits = Limits::default();
            limits.close_timeout = close_timeout;
            let (server, ends) = serve_ends(limits, wait_for_close);
            let mut client = server.raw_websocket(scheme, "/");
            let begun = Instant::now();
            server.handle.shutdown(Duration::from_millis(grace));
            assert_eq!(client.read_frame().0, 0x88);
            assert!(client.read_to_any_end().is_empty());
            let after = begun.elapsed();
            assert!(after >= Duration::from_millis(280) && after < SOON, "{after:?}");
            assert_returns(server); // the client is still there
            assert_eq!(ends.next().reason.code().0, 1001);
        }
    }
}

#[test]
fn a_client_that_does_not_read_is_cut_too() {
    for scheme in SCHEMES {
        let (tx, rx) = mpsc::channel();
        let (server, ends) = serve_ends(Limits::default(), move |ws| {
            tx.send(())?;
            // The handler waits in `write` until the connection is cut.
            loop {
                if let Err(e) = ws.write(vec![b'x'; 1 << 20]) {
                    assert!(e.is_closed(), "{e}");
                    return Err(e.into());
                }
            }
        });
        let _client = server.raw_websocket(scheme, "/");
        rx.recv_timeout(PATIENCE).unwrap();
        let begun = Instant::now();
        server.handle.shutdown(Duration::from_millis(300));
        assert_returns(server);
        assert!(begun.elapsed() < SOON + Duration::from_secs(1), "{:?}", begun.elapsed());
        assert_eq!(ends.next().reason.code().0, 1001);
    }
}

/// Shared connections without a handler for messages: their IDs, and their ends.
fn serve_shared() -> (TestServer, mpsc::Receiver<switchboard::WebSocketId>, mpsc::Receiver<End>) {
    let (tx, ids) = mpsc::channel();
    let (over, ends) = mpsc::channel();
    let server = serve(|builder| {
        builder.route("/", move || {
            let (tx, over) = (tx.clone(), over.clone());
            full_app(
                |opening: &mut Opening| {
                    opening.set_shared_connection(true);
                    Ok(())
                },
                move |ws| Ok(tx.send(*ws.websocket_id())?),
                move |closed| drop(over.send(closed.into())),
            )
        })
    });
    (server, ids, ends)
}

#[test]
fn shared_connections_are_closed_with_1001_and_reported_before_run_returns() {
    for scheme in SCHEMES {
        let (server, ids, ends) = serve_shared();
        let mut client = server.raw_websocket(scheme, "/");
        let id = ids.recv_timeout(PATIENCE).unwrap();
        let ws = server.hub.open_server(&id).unwrap();
        let reader = {
            let ws = server.hub.open_server(&id).unwrap();
            thread::spawn(move || ws.read_message(PATIENCE))
        };
        server.handle.shutdown(PATIENCE * 10);
        assert_eq!(client.answer_close_and_end(), (1001, "the server shuts down".into()));
        assert_returns(server);
        assert_eq!(ends.try_recv().unwrap().reason.code().0, 1001);
        assert!(ends.try_recv().is_err(), "once");
        let is_1001 = |e: Error| matches!(e, Error::Closed(reason) if reason.code().0 == 1001);
        assert!(is_1001(reader.join().unwrap().unwrap_err()));
        assert!(is_1001(ws.read(0, PATIENCE).unwrap_err()));
        assert!(is_1001(ws.write("late").unwrap_err()));
        assert!(matches!(ws.hub().open_server(&id), Err(Error::UnknownId)));
    }
}

#[test]
fn a_shared_connection_whose_client_does_not_answer_is_cut_after_the_grace_period() {
    for scheme in SCHEMES {
        let (server, ids, ends) = serve_shared();
        let mut client = server.raw_websocket(scheme, "/");
        ids.recv_timeout(PATIENCE).unwrap();
        let begun = Instant::now();
        server.handle.shutdown(Duration::from_millis(300));
        assert_eq!(client.read_frame().0, 0x88);
        assert!(client.read_to_any_end().is_empty());
        assert_returns(server);
        assert!(begun.elapsed() >= Duration::from_millis(300) && begun.elapsed() < SOON);
        assert_eq!(reason_parts(&ends.try_recv().unwrap().reason).0, 1001);
    }
}

/// A page whose handler waits until the test lets it answer.
fn serve_page() -> (TestServer, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let (running, runs) = mpsc::channel();
    let (go, gone) = mpsc::channel();
    let gone = Mutex::new(gone);
    let server = serve(|builder| {
        builder.http("/page", move |_| {
            running.send(()).unwrap();
            gone.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            Response::text(StatusCode::OK, "x".repeat(100_000))
        })
    });
    (server, runs, go)
}

#[test]
fn a_page_request_in_progress_gets_its_answer() {
    for scheme in SCHEMES {
        let (server, runs, go) = serve_page();
        let mut client = server.raw(scheme);
        client.write_all(b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        runs.recv_timeout(PATIENCE).unwrap();
        server.handle.shutdown(PATIENCE * 10);
        eventually("no new client is accepted", || TcpStream::connect(server.address(scheme)).is_err());
        assert!(!server.has_ended());
        go.send(()).unwrap();
        let reply = Reply::read(&mut client);
        assert_eq!((reply.status, reply.body.len()), (200, 100_000));
        drop(client);
        assert_returns(server);
    }
}

#[test]
fn a_page_request_in_progress_is_cut_after_the_grace_period() {
    for scheme in SCHEMES {
        let (server, runs, go) = serve_page();
        let mut client = server.raw(scheme);
        client.write_all(b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        runs.recv_timeout(PATIENCE).unwrap();
        let begun = Instant::now();
        server.handle.shutdown(Duration::from_millis(300));
        assert!(client.read_to_any_end().is_empty());
        assert!(begun.elapsed() >= Duration::from_millis(300) && begun.elapsed() < SOON);
        assert!(!server.has_ended());
        go.send(()).unwrap();
        assert_returns(server);
    }
}

#[test]
fn a_handler_still_in_on_pre_server_also_gets_on_post_server() {
    for scheme in SCHEMES {
        let (opening, opens) = mpsc::channel();
        let (over, ends) = mpsc::channel::<End>();
        let (go, gone) = mpsc::channel::<()>();
        let gone = Arc::new(Mutex::new(gone));
        let server = serve(|builder| {
            builder.route("/", move || {
                let (opening, over, gone) = (opening.clone(), over.clone(), gone.clone());
                full_app(
                    move |_| {
                        opening.send(()).unwrap();
                        gone.lock().unwrap().recv_timeout(PATIENCE).unwrap();
                        Ok(())
                    },
                    wait_for_close,
                    move |closed| drop(over.send(closed.into())),
                )
            })
        });
        let mut client = server.raw(scheme);
        client.write_all(handshake("/").as_bytes()).unwrap();
        opens.recv_timeout(PATIENCE).unwrap();
        server.handle.shutdown(PATIENCE * 10);
        eventually("no new client is accepted", || TcpStream::connect(server.address(scheme)).is_err());
        go.send(()).unwrap();
        // It has accepted the client: so the client is connected, and then closed.
        assert!(client.read_head().starts_with("HTTP/1.1 101 "));
        let begun = Instant::now();
        let (first, payload) = client.read_frame();
        assert_eq!((first, &payload[..2]), (0x88, &1001u16.to_be_bytes()[..]));
        let _ = client.write_all(&frame(0x88, &1001u16.to_be_bytes()));
        let _ = client.read_to_any_end();
        drop(client);
        assert_returns(server);
        assert!(begun.elapsed() < SOON);
        assert_eq!(ends.try_recv().unwrap().reason.code().0, 1001);
        assert!(ends.try_recv().is_err(), "once");
    }
}

#[test]
fn a_second_call_shortens_the_grace_period_and_a_longer_one_changes_nothing() {
    for scheme in SCHEMES {
        for first in [PATIENCE * 10, Duration::MAX] {
            let mut limits = Limits::default();
            limits.close_timeout = PATIENCE * 10;
            let (server, _ends) = serve_ends(limits, wait_for_close);
            let mut client = server.raw_websocket(scheme, "/");
            server.handle.shutdown(first);
            assert_eq!(client.read_frame().0, 0x88);
            assert!(!server.has_ended());
            let begun = Instant::now();
            server.handle.clone().shutdown(Duration::from_millis(200));
            server.handle.shutdown(PATIENCE * 10);
            assert!(client.read_to_any_end().is_empty());
            assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
            assert_returns(server);
        }
    }
}

#[test]
fn a_shutdown_before_run_makes_run_return_at_once() {
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .route("/", || app(|_| panic!("no client is served")))
        .bind()
        .unwrap();
    let address = server.local_addrs()[0].tcp().unwrap();
    // A client can connect as soon as the address is bound, but is never served.
    let mut early = Stream::connect(address, Scheme::Ws);
    early.write_all(handshake("/").as_bytes()).unwrap();
    server.handle().shutdown(Duration::from_secs(100));
    let running = thread::spawn(move || server.run());
    eventually("run returns", || running.is_finished());
    running.join().unwrap().unwrap();
    assert!(!early.read_to_any_end().starts_with(b"HTTP/1.1 101 "));
    assert_closed(address);
}

#[test]
fn a_shutdown_may_come_from_a_handler_and_the_hub_is_empty_afterwards() {
    for scheme in SCHEMES {
        let handle = Arc::new(Mutex::new(None::<switchboard::ServerHandle>));
        let of_handler = handle.clone();
        let server = serve_app(move |ws| {
            if ws.read_message(PATIENCE)? == "stop" {
                of_handler.lock().unwrap().take().unwrap().shutdown(PATIENCE * 10);
            }
            wait_for_close(ws)
        });
        *handle.lock().unwrap() = Some(server.handle.clone());
        let mut other = server.raw_websocket(scheme, "/");
        let mut client = server.raw_websocket(scheme, "/");
        client.write_all(&frame(0x81, b"stop")).unwrap();
        assert_eq!(client.answer_close_and_end().0, 1001);
        assert_eq!(other.answer_close_and_end().0, 1001);
        let (hub, handle) = (server.hub.clone(), server.handle.clone());
        assert_returns(server);
        assert!(hub.is_empty().unwrap() && handle.connections() == 0);
    }
}

#![cfg(feature = "__tls")]
//! How a connection ends: which side closes, with what code, and what each side sees.
mod common;

use std::{
    collections::HashMap,
    io::{Read, Write},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use common::{
    PATIENCE, SCHEMES, Scheme, Stream, TestServer,
    ends::{End, ON_PURPOSE, close_frame, reason_parts, serve_ends},
    eventually, frame, full_app, handshake, next_message, read_close, serve,
};
use switchboard::{ClosedBy, Error, Limits, Opening, ServerResult, WebSocket};
use tungstenite::Message;

/// Checks, in a handler, that the server has closed the connection with this code.
fn assert_closed(ws: &mut WebSocket, code: u16) {
    let is = |e: Error| matches!(&e, Error::Closed(r) if r.code().0 == code && r.by() == ClosedBy::Server);
    assert!(is(ws.read(0, PATIENCE).unwrap_err()));
    assert!(is(ws.read_message(Duration::ZERO).unwrap_err()));
    assert!(is(ws.try_read(0).unwrap_err()));
    assert!(is(ws.write("late").unwrap_err()));
    assert!(is(ws.flush().unwrap_err()));
    assert_eq!(ws.messages().count(), 0);
}

fn wait_for_close(ws: &mut WebSocket) -> ServerResult {
    loop {
        ws.read_message(PATIENCE)?;
    }
}

#[test]
fn a_server_that_returns_closes_with_1000() {
    let (server, ends) = serve_ends(Limits::default(), |_| Ok(()));
    for scheme in SCHEMES {
        assert_eq!(server.raw_websocket(scheme, "/").answer_close_and_end(), (1000, String::new()));
        assert_eq!(ends.reason(), (1000, String::new(), ClosedBy::Server));
    }
}

#[test]
fn end_server_closes_with_1000_and_nothing_can_be_read_or_written_after_it() {
    let (server, ends) = serve_ends(Limits::default(), |ws| {
        assert_eq!(ws.read_message(PATIENCE)?, "first");
        assert!(ws.close_reason().is_none());
        ws.write("before")?;
        ws.end_server();
        ws.close(4000, "nothing happens");
        assert_eq!(reason_parts(&ws.close_reason().unwrap()), (1000, String::new(), ClosedBy::Server));
        assert_closed(ws, 1000);
        Ok(())
    });
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        // The second message has arrived when the handler ends the connection: it cannot be read any more.
        client.write_all(&[frame(0x81, b"first"), frame(0x81, b"second")].concat()).unwrap();
        assert_eq!(client.read_frame(), (0x81, b"before".to_vec()));
        assert_eq!(client.answer_close_and_end(), (1000, String::new()));
        assert_eq!(ends.reason(), (1000, String::new(), ClosedBy::Server));
    }
}

#[test]
fn end_server_does_not_wait_for_the_client() {
    let (tx, rx) = mpsc::channel();
    let (server, ends) = serve_ends(Limits::default(), move |ws| {
        ws.end_server();
        tx.send(())?;
        Ok(())
    });
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        rx.recv_timeout(Duration::from_secs(3))
            .expect("without waiting for the close timeout: the client sends nothing");
        assert_eq!(client.answer_close_and_end().0, 1000);
        ends.next();
    }
}

#[test]
fn close_has_a_code_and_a_text_of_its_own_and_the_text_is_cut_between_characters() {
    let texts = [
        (1000, String::new(), String::new()),
        (3000, "x".repeat(123), "x".repeat(123)),
        (4000, "x".repeat(124), "x".repeat(123)),
        // Characters of two bytes, of which 61 fit, and of four bytes, of which 30 fit.
        (4001, "ä".repeat(1000), "ä".repeat(61)),
        (4999, "🎉".repeat(31), "🎉".repeat(30)),
    ];
    let given = texts.clone();
    let (server, ends) = serve_ends(Limits::default(), move |ws| {
        let (code, text, _) = &given[ws.read_message(PATIENCE)?.as_text().unwrap().parse::<usize>()?];
        ws.close(*code, text);
        assert_closed(ws, *code);
        Ok(())
    });
    for scheme in SCHEMES {
        for (n, (code, _, sent)) in texts.iter().enumerate() {
            let mut client = server.raw_websocket(scheme, "/");
            client.write_all(&frame(0x81, n.to_string().as_bytes())).unwrap();
            assert_eq!(client.answer_close_and_end(), (*code, sent.clone()));
            let (code_seen, _, by) = ends.reason();
            assert_eq!((code_seen, by), (*code, ClosedBy::Server));
        }
    }
}

/// Codes that may be in a close frame: those of RFC 6455, section 7.4, and of the registry of IANA, and some of the ranges
/// for libraries and for programs.
const SENDABLE: [u16; 17] =
    [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3003, 3008, 4000, 4999];

/// Codes that may not be sent: those for local use only, reserved ones, and those outside of all ranges.
const NOT_SENDABLE: [u16; 11] = [0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, u16::MAX];

/// A server that closes with the code in the query, or else waits for the client's close; at `/shared` the connection is
/// shared. It reports how each connection ended.
fn serve_codes() -> (TestServer, mpsc::Receiver<End>) {
    let (tx, ends) = mpsc::channel();
    let server = serve(|builder| {
        builder.route("/*", move || {
            let tx = tx.clone();
            full_app(
                |opening: &mut Opening| {
                    opening.set_shared_connection(opening.path() == "/shared");
                    Ok(())
                },
                |ws| match ws.request().unwrap().query_value("code") {
                    Some(code) => {
                        ws.close(code.parse::<u16>()?, "as asked");
                        assert!(ws.write("late").unwrap_err().is_closed());
                        Ok(())
                    }
                    None if ws.path() == "/shared" => Ok(()),
                    None => wait_for_close(ws),
                },
                move |closed| drop(tx.send(closed.into())),
            )
        })
    });
    (server, ends)
}

#[test]
fn each_close_code_of_the_client_is_echoed_or_answered_with_1002() {
    let (server, ends) = serve_codes();
    for scheme in SCHEMES {
        for path in ["/", "/shared"] {
            for code in SENDABLE {
                let mut client = server.raw_websocket(scheme, path);
                client.write_all(&close_frame(code, "bye")).unwrap();
                assert_eq!(client.take_close().0, code);
                let reason = ends.recv_timeout(PATIENCE).unwrap().reason;
                assert_eq!(reason_parts(&reason), (code, "bye".into(), ClosedBy::Client));
            }
            for code in NOT_SENDABLE {
                let mut client = server.raw_websocket(scheme, path);
                client.write_all(&close_frame(code, "bye")).unwrap();
                assert_eq!(client.take_close().0, 1002, "{code}");
                let reason = ends.recv_timeout(PATIENCE).unwrap().reason;
                assert_eq!((reason.code().0, reason.by()), (1002, ClosedBy::Server), "{code}");
            }
        }
    }
}

#[test]
fn each_close_code_of_the_server_is_sent_or_the_close_frame_is_empty() {
    let (server, ends) = serve_codes();
    for scheme in SCHEMES {
        for path in ["/", "/shared"] {
            let sendable = SENDABLE.map(|code| (code, (code, "as asked")));
            let not_sendable = NOT_SENDABLE.map(|code| (code, (1005, "")));
            for (code, (seen, text)) in sendable.into_iter().chain(not_sendable) {
                let mut client = server.raw_websocket(scheme, &format!("{path}?code={code}"));
                assert_eq!(client.answer_close_and_end(), (seen, text.into()), "{code}");
                let reason = ends.recv_timeout(PATIENCE).unwrap().reason;
                assert_eq!(reason_parts(&reason), (seen, text.into(), ClosedBy::Server), "{code}");
            }
        }
    }
}

#[test]
fn a_busy_handler_answers_what_came_before_a_broken_rule() {
    let mut limits = Limits::default();
    // The shortest time limit decides how often a busy thread's socket is checked; no ping is sent in this test.
    (limits.ping_interval, limits.ping_timeout) = (None, Duration::from_millis(100));
    let (go, gate) = mpsc::channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    let (server, ends) = serve_ends(limits, move |ws| {
        for message in ws.messages() {
            if message == "a" {
                gate.lock().unwrap().recv_timeout(PATIENCE)?;
            }
            ws.write(message)?;
        }
        Ok(())
    });
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        let bytes = [frame(0x81, b"a"), frame(0x81, b"b"), frame(0x83, b"reserved")];
        client.write_all(&bytes.concat()).unwrap();
        // The handler has read only the first, so the gateway has received the others.
        eventually("both messages are received", || {
            common::connections(&server.hub).iter().any(|info| info.messages_in == 2)
        });
        go.send(()).unwrap();
        assert_eq!(client.read_frame(), (0x81, b"a".to_vec()));
        assert_eq!(client.read_frame(), (0x81, b"b".to_vec()));
        assert_eq!(client.take_close().0, 1002);
        assert_eq!(ends.next().reason.code().0, 1002);
    }
}

#[test]
fn an_error_and_a_panic_are_1011_and_the_next_client_is_served() {
    let (server, ends) = serve_ends(Limits::default(), |ws| {
        let message = ws.read_message(PATIENCE)?;
        match message.as_text() {
            Some("fail") => Err("on purpose".into()),
            Some("time out") => Err(ws.read(0, Duration::ZERO).unwrap_err().into()),
            Some("panic") => panic!("{ON_PURPOSE}"),
            _ => Ok(ws.write(message)?),
        }
    });
    for scheme in SCHEMES {
        for how in ["fail", "time out", "panic"] {
            let mut client = server.raw_websocket(scheme, "/");
            client.write_all(&frame(0x81, how.as_bytes())).unwrap();
            assert_eq!(client.answer_close_and_end().0, 1011, "{how}");
            let reason = ends.next().reason;
            assert_eq!((reason.code().0, reason.by(), reason.is_normal()), (1011, ClosedBy::Server, false));
            let mut next = server.connect(scheme, "/");
            next.send(Message::text("hello")).unwrap();
            assert_eq!(next_message(&mut next), Message::text("hello"), "after {how}");
            assert_eq!(read_close(&mut next).0, 1000);
            next.read().unwrap_err(); // sends the answer, and sees the end
            drop(next);
            assert_eq!(ends.next().reason.code().0, 1000);
        }
    }
}

#[test]
fn a_failure_after_the_close_changes_nothing() {
    let (server, ends) = serve_ends(Limits::default(), |ws| match ws.read_message(PATIENCE)?.as_text() {
        Some("panic") => {
            ws.close(4000, "first");
            panic!("{ON_PURPOSE}")
        }
        _ => {
            ws.close(4000, "first");
            Err("on purpose".into())
        }
    });
    for scheme in SCHEMES {
        for how in ["fail", "panic"] {
            let mut client = server.raw_websocket(scheme, "/");
            client.write_all(&frame(0x81, how.as_bytes())).unwrap();
            assert_eq!(client.answer_close_and_end(), (4000, "first".into()));
            assert_eq!(ends.reason(), (4000, "first".into(), ClosedBy::Server));
        }
    }
}

#[test]
fn a_panic_in_on_post_server_affects_no_other_connection() {
    let server =
        serve(|builder| builder.route("/", || full_app(|_| Ok(()), |_| Ok(()), |_| panic!("{ON_PURPOSE}"))));
    for scheme in SCHEMES {
        for _ in 0..3 {
            assert_eq!(server.raw_websocket(scheme, "/").answer_close_and_end().0, 1000);
        }
    }
    eventually("all are gone", || server.hub.is_empty().unwrap() && server.handle.connections() == 0);
}

#[test]
fn the_clients_close_code_is_echoed_and_is_no_failure() {
    let (server, ends) = serve_ends(Limits::default(), wait_for_close);
    for scheme in SCHEMES {
        for (code, text) in [(1000, ""), (1001, "away"), (1011, "failed"), (3000, "größe"), (4999, "bye")] {
            let mut client = server.raw_websocket(scheme, "/");
            client.write_all(&close_frame(code, text)).unwrap();
            // The code has to be the client's; the text may be.
            assert_eq!(client.take_close().0, code);
            assert_eq!(ends.reason(), (code, text.to_owned(), ClosedBy::Client), "no 1011: it did not fail");
        }
        let mut client = server.raw_websocket(scheme, "/");
        client.write_all(&frame(0x88, b"")).unwrap();
        assert_eq!(client.take_close(), (1005, String::new()));
        assert_eq!(ends.reason(), (1005, String::new(), ClosedBy::Client));
    }
}

#[test]
fn on_post_server_is_called_once_with_the_reason_the_ids_and_the_duration() {
    const OPEN: Duration = Duration::from_millis(40);
    let (begun, begins) = mpsc::channel();
    let (over, ends) = mpsc::channel::<End>();
    let (go, gone) = mpsc::channel::<()>();
    let gone = Arc::new(Mutex::new(gone));
    let server = serve(move |builder| {
        builder.route("/*", move || {
            let (begun, over, gone) = (begun.clone(), over.clone(), gone.clone());
            full_app(
                move |opening: &mut Opening| {
                    begun.send((*opening.websocket_id(), opening.session_id().ok())).unwrap();
                    if opening.path() == "/leaves" {
                        gone.lock().unwrap().recv_timeout(PATIENCE).unwrap();
                    }
                    Ok(())
                },
                |ws| match ws.read_message(PATIENCE)?.as_text().unwrap() {
                    "return" => Ok(()),
                    "end" => {
                        ws.end_server();
                        Ok(())
                    }
                    "fail" => Err("on purpose".into()),
                    _ => panic!("{ON_PURPOSE}"),
                },
                move |closed| drop(over.send(closed.into())),
            )
        })
    });
    let mut expected = HashMap::new();
    let mut kept = Vec::new();
    for scheme in SCHEMES {
        for (how, reason) in [
            ("return", (1000, ClosedBy::Server)),
            ("end", (1000, ClosedBy::Server)),
            ("fail", (1011, ClosedBy::Server)),
            ("panic", (1011, ClosedBy::Server)),
            ("hub", (4003, ClosedBy::Server)),
            ("break", (1002, ClosedBy::Server)),
            ("close", (4002, ClosedBy::Client)),
            ("vanish", (1006, ClosedBy::Network)),
            ("reset", (1006, ClosedBy::Network)),
            ("leaves early", (1006, ClosedBy::Network)),
            ("shutdown", (1001, ClosedBy::Server)),
        ] {
            let at = Instant::now();
            if how == "leaves early" {
                let mut client = server.raw(scheme);
                client.write_all(handshake("/leaves").as_bytes()).unwrap();
                let (id, session) = begins.recv_timeout(PATIENCE).unwrap();
                client.reset();
                go.send(()).unwrap();
                expected.insert(id, (how, session, reason, Duration::ZERO, at));
                continue;
            }
            let mut client = server.raw_websocket(scheme, "/");
            let (id, session) = begins.recv_timeout(PATIENCE).unwrap();
            thread::sleep(OPEN);
            expected.insert(id, (how, session, reason, OPEN, at));
            match how {
                "shutdown" => {
                    kept.push(client);
                    continue;
                }
                "hub" => server.hub.close(&id, 4003, "").unwrap(),
                "break" => client.write_all(&frame(0x83, b"reserved")).unwrap(),
                "close" => client.write_all(&close_frame(4002, "")).unwrap(),
                "vanish" => client.half_close(),
                "reset" => {
                    client.write_all(&frame(0x81, b"cut in the middle")[..9]).unwrap();
                    client.reset();
                    continue;
                }
                _ => client.write_all(&frame(0x81, how.as_bytes())).unwrap(),
            }
            match reason.1 {
                ClosedBy::Network => drop(client.read_to_any_end()),
                ClosedBy::Client => assert_eq!(client.take_close().0, reason.0),
                _ if how == "break" => assert_eq!(client.take_close().0, reason.0),
                _ => assert_eq!(client.answer_close_and_end().0, reason.0),
            }
        }
    }
    // A client that leaves is noticed without the shutdown.
    let mut all: Vec<End> = Vec::new();
    while all.len() < expected.len() - kept.len() {
        all.push(ends.recv_timeout(PATIENCE).unwrap());
    }
    let clients =
        thread::spawn(move || kept.iter_mut().map(Stream::answer_close_and_end).collect::<Vec<_>>());
    server.shutdown(PATIENCE);
    assert!(clients.join().unwrap().iter().all(|close| close.0 == 1001));
    all.extend(ends.iter()); // no sender is left: all applications are dropped
    for end in all {
        let (how, session, reason, least, at) = expected.remove(&end.id).expect("once, and the same ID");
        assert_eq!((end.reason.code().0, end.reason.by()), reason, "{how}: {:?}", end.reason);
        assert_eq!(end.session, session, "{how}");
        // The system clock may be adjusted a little during the test.
        assert!(end.duration + Duration::from_millis(10) >= least, "{how}: {:?}", end.duration);
        assert!(end.duration <= at.elapsed() + Duration::from_millis(10), "{how}: {:?}", end.duration);
    }
    assert!(
        expected.is_empty(),
        "on_post_server was not called: {:?}",
        expected.values().map(|e| e.0).collect::<Vec<_>>()
    );
}

#[test]
fn a_close_while_the_handler_computes_is_reported_by_the_next_write_and_read() {
    let (tx, rx) = mpsc::channel::<&'static str>();
    let rx = Arc::new(Mutex::new(rx));
    let (server, ends) = serve_ends(Limits::default(), move |ws| {
        let error = match rx.lock().unwrap().recv_timeout(PATIENCE)? {
            "write" => ws.write("a result").unwrap_err(),
            "flush" => ws.flush().unwrap_err(),
            "try_read" => ws.try_read(0).unwrap_err(),
            _ => ws.read(0, PATIENCE).unwrap_err(),
        };
        let Error::Closed(reason) = &error else { panic!("{error:?}") };
        assert_eq!(reason_parts(reason), (4001, "bye".into(), ClosedBy::Client));
        assert_eq!(ws.close_reason().as_ref(), Some(reason));
        Err(error.into())
    });
    for scheme in SCHEMES {
        for call in ["write", "flush", "read", "try_read"] {
            let mut client = server.raw_websocket(scheme, "/");
            client.write_all(&close_frame(4001, "bye")).unwrap();
            assert_eq!(client.take_close().0, 4001, "answered though it computes");
            tx.send(call).unwrap();
            assert_eq!(ends.reason(), (4001, "bye".into(), ClosedBy::Client), "{call}");
        }
    }
}

#[test]
fn what_the_client_still_sends_does_not_reset_the_close_frame() {
    let (server, ends) = serve_ends(Limits::default(), |ws| {
        match ws.read_message(PATIENCE)?.as_text().unwrap() {
            "return" => Ok(()),
            "fail" => Err("on purpose".into()),
            "compute" => {
                ws.end_server();
                thread::sleep(Duration::from_secs(1));
                Ok(())
            }
            // The client breaks the protocol, or closes.
            _ => wait_for_close(ws),
        }
    });
    for scheme in SCHEMES {
        for (how, code) in [("return", 1000), ("fail", 1011), ("compute", 1000), ("break", 1002)] {
            let mut client = server.raw_websocket(scheme, "/");
            client.write_all(&frame(0x81, how.as_bytes())).unwrap();
            if how == "break" {
                client.write_all(&frame(0xf1, b"reserved bits")).unwrap();
            }
            // The server sends its close frame long before the end of this.
            let bulk = frame(0x82, &[7; 50_000]);
            for _ in 0..40 {
                client.write_all(&bulk).unwrap_or_else(|e| panic!("{how}: {e}"));
                thread::sleep(Duration::from_millis(5));
            }
            let close = if how == "break" { client.take_close() } else { client.answer_close_and_end() };
            assert_eq!(close.0, code, "{how}");
            let (code_seen, _, by) = ends.reason();
            assert_eq!((code_seen, by), (code, ClosedBy::Server), "{how}");
        }
    }
}

#[test]
fn both_sides_may_close_at_the_same_time() {
    let (tx, rx) = mpsc::channel::<()>();
    let rx = Arc::new(Mutex::new(rx));
    let (server, ends) = serve_ends(Limits::default(), move |ws| {
        rx.lock().unwrap().recv_timeout(PATIENCE)?;
        ws.close(4001, "by the server");
        Ok(())
    });
    for scheme in SCHEMES {
        let mut crossed = 0;
        for _ in 0..5 {
            let mut client = server.raw_websocket(scheme, "/");
            // The server's close frame may have arrived already, but this client has most likely not read it.
            client.write_all(&close_frame(4002, "by the client")).unwrap();
            tx.send(()).unwrap();
            let seen = client.take_close();
            let (code, text, by) = ends.reason();
            match by {
                ClosedBy::Server => assert_eq!((code, &*text), (4001, "by the server")),
                _ => assert_eq!((code, &*text, by), (4002, "by the client", ClosedBy::Client)),
            }
            assert_eq!(seen.0, code, "both sides see the same reason");
            crossed += usize::from(by == ClosedBy::Server);
        }
        assert!(crossed > 0, "they never crossed");
    }
}

#[test]
fn a_client_that_ends_its_stream_with_its_close_frame_still_gets_the_answer() {
    let (server, ends) = serve_ends(Limits::default(), wait_for_close);
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        client.write_all(&close_frame(4000, "bye")).unwrap();
        client.half_close();
        assert_eq!(client.take_close(), (4000, "bye".into()));
        assert_eq!(ends.reason(), (4000, "bye".into(), ClosedBy::Client));
    }
}

#[test]
fn a_client_that_ends_tcp_but_not_tls_with_its_close_frame_still_gets_the_answer() {
    let (server, ends) = serve_ends(Limits::default(), wait_for_close);
    let mut client = server.raw_websocket(Scheme::Wss, "/");
    client.write_all(&close_frame(4000, "bye")).unwrap();
    client.tcp().shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.take_close(), (4000, "bye".into()));
    assert_eq!(ends.reason(), (4000, "bye".into(), ClosedBy::Client));
}

#[test]
fn a_stream_that_ends_without_a_close_frame_is_1006_with_and_without_close_notify() {
    let (server, ends) = serve_ends(Limits::default(), wait_for_close);
    for (scheme, notify) in [(Scheme::Ws, false), (Scheme::Wss, true), (Scheme::Wss, false)] {
        let mut client = server.raw_websocket(scheme, "/");
        match &mut client {
            // TLS ends, and TCP goes on.
            Stream::Tls(tls) if notify => tls.shutdown().unwrap(),
            other => other.tcp().shutdown(std::net::Shutdown::Write).unwrap(),
        }
        let reason = ends.next().reason;
        assert_eq!((reason.code().0, reason.by()), (1006, ClosedBy::Network), "{scheme:?} {notify}");
        assert!(!reason.is_normal() && !reason.text().is_empty(), "{reason:?}");
        // The server does not wait for anything.
        assert!(!client.read_to_any_end().contains(&0x88));
        drop(client);
    }
}

#[test]
fn the_end_of_a_closed_wss_is_a_close_notify() {
    let (server, _ends) = serve_ends(Limits::default(), |_| Ok(()));
    let mut client = server.raw_websocket(Scheme::Wss, "/");
    assert_eq!(client.read_frame().0, 0x88);
    client.write_all(&close_frame(1000, "")).unwrap();
    // Without it, this is an error: an attacker may have cut the stream.
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
}

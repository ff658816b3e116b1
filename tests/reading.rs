#![cfg(feature = "__tls")]
//! What `read` promises.
mod common;

use std::{
    io::{ErrorKind, Read, Write},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use common::{
    Client, PATIENCE, SCHEMES, Stream, app, echo,
    ends::{close_frame, reason_parts, serve_ends},
    frame, next_message, serve, serve_app,
};
use switchboard::{
    CloseReason, ClosedBy, Error, Limits, Message as Received, Opening, READ_LEN, READ_TIMEOUT, Refusal,
    ServerResult, WebSocket, WebSocketId, WebSocketServer,
};
use tungstenite::Message;

/// Much longer than a call takes that does not wait, and much shorter than one that does.
const SOON: Duration = Duration::from_secs(3);

#[test]
fn whole_messages_of_each_kind_are_echoed() {
    let server = serve_app(echo);
    for scheme in SCHEMES {
        let mut client = server.connect(scheme, "/");
        for message in [
            Message::text("hello"),
            Message::text(""),
            Message::binary(vec![0, 255]),
            Message::binary(vec![]),
            Message::text("ä🎉".repeat(50_000)),
        ] {
            client.send(message.clone()).unwrap();
            assert!(next_message(&mut client) == message);
        }
    }
}

#[test]
fn read_returns_at_most_len_of_one_message() {
    let (tx, rx) = mpsc::channel();
    let server = serve_app(move |ws| {
        let long = Duration::from_secs(10);
        let mut pieces = Vec::new();
        while pieces.len() < 5 {
            let data = ws.read(4, long)?;
            pieces.push((data, ws.at_end()));
        }
        tx.send(pieces)?;
        Ok(())
    });
    for scheme in SCHEMES {
        let mut client = server.connect(scheme, "/");
        client.send(Message::text("größe🎉")).unwrap();
        client.send(Message::binary(vec![1, 2, 3, 4, 5])).unwrap();
        client.send(Message::text("")).unwrap();
        let expected: Vec<(Received, bool)> = vec![
            ("größ".into(), false),
            ("e🎉".into(), true),
            (vec![1, 2, 3, 4].into(), false),
            (vec![5].into(), true),
            ("".into(), true),
        ];
        assert_eq!(rx.recv_timeout(common::PATIENCE).unwrap(), expected);
    }
}

#[test]
fn the_timeout_is_for_the_whole_call_even_if_bytes_trickle_in() {
    let (tx, rx) = mpsc::channel();
    let server = serve_app(move |ws| {
        let begun = Instant::now();
        let result = ws.read(0, Duration::from_millis(300));
        tx.send((matches!(result, Err(Error::Timeout)), begun.elapsed()))?;
        let whole = ws.read(0, Duration::from_secs(10))?;
        ws.write(whole)?;
        Ok(())
    });
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        let bytes = frame(0x81, &[b'x'; 1000]);
        let mut sent = 0;
        let (timed_out, after) = loop {
            if let Ok(result) = rx.recv_timeout(Duration::from_millis(20)) {
                break result;
            }
            client.write_all(&bytes[sent..=sent]).unwrap();
            sent += 1;
        };
        assert!(timed_out && after >= Duration::from_millis(300), "{after:?}");
        client.write_all(&bytes[sent..]).unwrap();
        assert_eq!(client.read_frame(), (0x81, vec![b'x'; 1000]), "nothing received is lost");
    }
}

#[test]
fn a_len_of_0_is_read_len() {
    assert_eq!((READ_LEN, READ_TIMEOUT), (32_656, Duration::from_secs(86_400)));
    let (tx, rx) = mpsc::channel();
    let server = serve_app(move |ws| {
        assert!(ws.at_end(), "before the first");
        for _ in 0..6 {
            tx.send((ws.read(0, PATIENCE)?, ws.at_end()))?;
        }
        Ok(())
    });
    for scheme in SCHEMES {
        let mut client = server.connect(scheme, "/");
        let bytes = |n: usize| (0..n).map(|n| n as u8).collect::<Vec<_>>();
        client.send(Message::text("ä".repeat(40_000))).unwrap();
        client.send(Message::binary(bytes(40_000))).unwrap();
        client.send(Message::text("🎉".repeat(32_656))).unwrap();
        client.send(Message::text("last")).unwrap();
        for (expected, at_end) in [
            (Received::from("ä".repeat(32_656)), false),
            (Received::from("ä".repeat(40_000 - 32_656)), true),
            (Received::from(&bytes(40_000)[..32_656]), false),
            (Received::from(&bytes(40_000)[32_656..]), true),
            (Received::from("🎉".repeat(32_656)), true),
            (Received::from("last"), true),
        ] {
            let (data, is_at_end) = rx.recv_timeout(PATIENCE).unwrap();
            assert!(data == expected && is_at_end == at_end, "{} bytes, {is_at_end}", data.len());
        }
    }
}

#[test]
fn any_call_returns_the_rest_of_a_message() {
    let server = serve_app(|ws| {
        assert!(ws.read(2, PATIENCE)? == "a🎉" && !ws.at_end());
        assert!(ws.read(1, PATIENCE)? == "ä" && !ws.at_end());
        assert!(ws.read_message(PATIENCE)? == "bcdef" && ws.at_end());
        assert!(ws.read(3, PATIENCE)? == "sec" && !ws.at_end());
        assert!(ws.try_read(1)?.unwrap() == "o" && !ws.at_end());
        assert!(ws.messages().next().unwrap() == "nd" && ws.at_end());
        assert_eq!(ws.read(1, PATIENCE)?, Received::from(vec![1]));
        assert_eq!(ws.read(usize::MAX, PATIENCE)?, Received::from(vec![2, 3]));
        // An empty message is a message, too, and keeps its kind.
        let empty = ws.read(0, PATIENCE)?;
        assert!(empty.is_text() && empty.is_empty() && ws.at_end());
        let empty = ws.read(5, PATIENCE)?;
        assert!(empty.is_binary() && empty.is_empty() && ws.at_end());
        assert!(ws.try_read(5)?.is_none());
        ws.close(4000, "all of it");
        Ok(())
    });
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        let messages = [(0x81, "a🎉äbcdef".as_bytes()), (0x81, b"second"), (0x82, &[1, 2, 3]), (0x81, b"")];
        let mut all: Vec<u8> = messages.iter().flat_map(|(first, bytes)| frame(*first, bytes)).collect();
        all.extend(frame(0x82, b""));
        client.write_all(&all).unwrap();
        assert_eq!(
            client.answer_close_and_end(),
            (4000, "all of it".into()),
            "1011: see the handler's panic"
        );
    }
}

/// Writes in one thread, and reads in another: first on its own, and then what the other has read.
fn duplex(ws: &WebSocket) -> switchboard::Result<()> {
    let (read, is_read) = mpsc::channel();
    thread::scope(|scope| {
        let writer = scope.spawn(move || {
            // The other thread waits all the while: the client says nothing yet.
            for n in 0..100 {
                ws.write(format!("{n} {}", "x".repeat(n * 100)))?;
            }
            for message in is_read {
                ws.write(message)?;
            }
            Ok::<(), Error>(())
        });
        for message in ws.messages() {
            assert!(ws.at_end());
            read.send(message).unwrap();
        }
        drop(read);
        writer.join().unwrap()
    })
}

#[test]
fn one_thread_reads_while_another_writes() {
    let server = serve(|builder| {
        let app = || app(|ws: &mut WebSocket| Ok(duplex(ws)?));
        builder.route("/", app).route("/shared", || Shared)
    });
    let talk = |client: &mut Client| {
        for n in 0..100 {
            assert_eq!(next_message(client), Message::text(format!("{n} {}", "x".repeat(n * 100))));
        }
        for n in 0..100 {
            client.send(Message::text(n.to_string())).unwrap();
        }
        for n in 0..100 {
            assert_eq!(next_message(client), Message::text(n.to_string()));
        }
        client.close(None).unwrap();
    };
    for scheme in SCHEMES {
        let mut client = server.connect(scheme, "/");
        talk(&mut client);
        assert_eq!(common::read_close(&mut client).0, 1005, "1011: see the handler's panic");
        let mut client = server.connect(scheme, "/shared");
        let id: WebSocketId = next_message(&mut client).to_text().unwrap().parse().unwrap();
        let ws = server.hub.open_server(&id).unwrap();
        thread::scope(|scope| {
            let handler = scope.spawn(|| duplex(&ws));
            talk(&mut client);
            handler.join().unwrap().unwrap();
        });
        assert!(ws.close_reason().is_some_and(|reason| reason.is_normal()));
    }
}

/// A shared connection that tells its ID, and leaves its messages to others.
struct Shared;

impl WebSocketServer for Shared {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        opening.set_shared_connection(true);
        Ok(())
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        Ok(ws.write(ws.websocket_id().as_str())?)
    }
}

#[test]
fn each_kind_of_read_of_a_shared_connection_says_whether_it_reached_the_end() {
    let server = serve(|builder| builder.route("/", || Shared));
    for scheme in SCHEMES {
        let mut client = server.connect(scheme, "/");
        let id: WebSocketId = next_message(&mut client).to_text().unwrap().parse().unwrap();
        let ws = server.hub.open_server(&id).unwrap();
        for _ in 0..4 {
            client.send(Message::text("hello")).unwrap();
        }
        assert!(ws.at_end(), "before the first");
        assert!(ws.read(2, PATIENCE).unwrap() == "he" && !ws.at_end());
        assert!(ws.messages().next().unwrap() == "llo" && ws.at_end());
        assert!(ws.read(2, PATIENCE).unwrap() == "he" && !ws.at_end());
        assert!(ws.read_message(PATIENCE).unwrap() == "llo" && ws.at_end());
        assert!(ws.read(2, PATIENCE).unwrap() == "he" && !ws.at_end());
        assert!(ws.try_read(1).unwrap().unwrap() == "l" && !ws.at_end());
        assert!(ws.try_read(0).unwrap().unwrap() == "lo" && ws.at_end());
    }
}

#[test]
fn several_threads_read_a_synchronous_connection_each_within_its_time() {
    const MESSAGES: usize = 200;
    let (tx, rx) = mpsc::channel();
    let server = serve_app(move |ws| {
        let ws = &*ws;
        thread::scope(|scope| {
            let first = scope.spawn(|| ws.messages().collect::<Vec<_>>());
            // This thread or the first one waits for the other: neither longer than it wants to.
            for _ in 0..10 {
                let begun = Instant::now();
                assert!(ws.try_read(0).unwrap().is_none());
                assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
                let result = ws.read_message(Duration::from_millis(20));
                assert!(
                    result.is_err_and(|e| e.is_timeout()) && begun.elapsed() < SOON,
                    "{:?}",
                    begun.elapsed()
                );
            }
            ws.write("go").unwrap();
            let mut all: Vec<_> = ws.messages().collect();
            all.extend(first.join().unwrap());
            tx.send(all).unwrap();
        });
        Ok(())
    });
    for scheme in SCHEMES {
        let mut client = server.connect(scheme, "/");
        assert_eq!(next_message(&mut client), Message::text("go"));
        for n in 0..MESSAGES {
            client.send(Message::text(format!("{n:03}"))).unwrap();
        }
        client.close(None).unwrap();
        let mut all = rx.recv_timeout(PATIENCE).unwrap();
        all.sort_by_key(|message| message.as_text().unwrap().to_owned());
        let expected: Vec<_> = (0..MESSAGES).map(|n| Received::from(format!("{n:03}"))).collect();
        assert_eq!(all, expected, "each message went to one of them");
        assert_eq!(common::read_close(&mut client).0, 1005);
    }
}

/// Calls `try_read` until it returns something. Also returns how long the longest call took.
fn poll(ws: &mut WebSocket) -> switchboard::Result<(Received, Duration)> {
    let (begun, mut longest) = (Instant::now(), Duration::ZERO);
    loop {
        let call = Instant::now();
        let result = ws.try_read(0)?;
        longest = longest.max(call.elapsed());
        match result {
            Some(data) => return Ok((data, longest)),
            None if begun.elapsed() > PATIENCE => return Err(Error::Timeout),
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

#[test]
fn try_read_never_waits() {
    let (tx, rx) = mpsc::channel();
    let server = serve_app(move |ws| {
        loop {
            tx.send(poll(ws)?)?;
        }
    });
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        // Nothing, then a message that trickles in, one in fragments, and a flood of pongs and pings.
        assert!(rx.recv_timeout(Duration::from_millis(200)).is_err());
        for byte in frame(0x81, b"trickled") {
            client.write_all(&[byte]).unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
        let (data, longest) = rx.recv_timeout(PATIENCE).unwrap();
        assert!(data == "trickled" && longest < SOON, "{longest:?}");
        client.write_all(&frame(0x01, b"frag")).unwrap();
        assert!(rx.recv_timeout(Duration::from_millis(50)).is_err());
        client.write_all(&frame(0x80, b"ments")).unwrap();
        assert_eq!(rx.recv_timeout(PATIENCE).unwrap().0, "fragments");

        let pongs = frame(0x8a, &[b'p'; 100]).repeat(200);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(500) {
            client.write_all(&pongs).unwrap();
        }
        client.write_all(&frame(0x81, b"after the flood")).unwrap();
        let (data, longest) = rx.recv_timeout(PATIENCE).unwrap();
        assert!(data == "after the flood" && longest < SOON, "{longest:?}");
    }
}

/// Writes these bytes again and again, until the handler reports something, and returns that.
fn flood<T>(client: &mut Stream, bytes: &[u8], answers: usize, reports: &mpsc::Receiver<T>) -> T {
    let begun = Instant::now();
    loop {
        client.write_all(bytes).unwrap();
        for _ in 0..answers {
            client.read_frame();
        }
        match reports.try_recv() {
            Ok(report) => return report,
            Err(_) => assert!(begun.elapsed() < PATIENCE, "it does not end"),
        }
    }
}

#[test]
fn the_timeout_is_kept_even_if_the_client_floods() {
    const TIME: Duration = Duration::from_millis(300);
    let (tx, rx) = mpsc::channel();
    let server = serve_app(move |ws| {
        loop {
            let begun = Instant::now();
            match ws.read(0, TIME) {
                Err(Error::Timeout) => tx.send(begun.elapsed())?,
                Ok(data) => ws.write(data)?,
                Err(e) => return Err(e.into()),
            }
        }
    });
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        while rx.try_recv().is_ok() {} // reports of the previous client
        let pings: Vec<u8> = (0..50u8).flat_map(|n| frame(0x89, &[n; 20])).collect();
        let fragments = frame(0x00, b"").repeat(50);
        for (bytes, answers) in [(&pings, 50), (&frame(0x8a, b"").repeat(50), 0)] {
            let after = flood(&mut client, bytes, answers, &rx);
            assert!(after >= TIME && after < SOON, "{after:?}");
        }
        // Fragments of a message that does not end.
        client.write_all(&frame(0x01, b"x")).unwrap();
        let after = flood(&mut client, &fragments, 0, &rx);
        assert!(after >= TIME && after < SOON, "{after:?}");
        client.write_all(&frame(0x80, b"end")).unwrap();
        assert_eq!(client.read_frame(), (0x81, b"xend".to_vec()));
    }
}

#[test]
fn the_timeout_is_kept_even_if_the_client_does_not_read_its_pongs() {
    let (tx, rx) = mpsc::channel();
    let server = serve_app(move |ws| {
        let begun = Instant::now();
        let result = ws.read(0, Duration::from_secs(1));
        tx.send((matches!(result, Err(Error::Timeout)), begun.elapsed()))?;
        Ok(())
    });
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        client.tcp().set_write_timeout(Some(Duration::from_millis(100))).unwrap();
        let pings = frame(0x89, &[b'p'; 125]).repeat(100);
        let (timed_out, after) = loop {
            match client.write_all(&pings) {
                Ok(()) => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    break rx.recv_timeout(PATIENCE).unwrap();
                }
                Err(e) => panic!("{e}"),
            }
            if let Ok(report) = rx.try_recv() {
                break report;
            }
        };
        assert!(
            timed_out && after >= Duration::from_secs(1) && after < SOON + Duration::from_secs(1),
            "{after:?}"
        );
    }
}

#[test]
fn messages_iterates_until_the_close() {
    let (tx, rx) = mpsc::channel();
    let server = serve_app(move |ws| {
        assert!(ws.close_reason().is_none());
        ws.write("open")?;
        let all: Vec<_> = ws.messages().collect();
        assert_eq!(ws.messages().count(), 0);
        tx.send((all, ws.close_reason().unwrap()))?;
        Ok(())
    });
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        assert_eq!(client.read_frame(), (0x81, b"open".to_vec()));
        let all = [frame(0x81, b"one"), frame(0x89, b""), frame(0x82, b"two"), frame(0x81, b"")].concat();
        client.write_all(&[all, close_frame(4000, "done"), frame(0x81, b"after the end")].concat()).unwrap();
        let (all, reason) = rx.recv_timeout(PATIENCE).unwrap();
        assert_eq!(all, [Received::from("one"), Received::from(b"two".to_vec()), Received::from("")]);
        assert_eq!(reason_parts(&reason), (4000, "done".into(), ClosedBy::Client));
    }
}

#[test]
fn pings_are_answered_and_pongs_ignored() {
    let (server, ends) = serve_ends(Limits::default(), echo);
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        for payload in [&b""[..], b"ping", &[0xff; 125]] {
            client.write_all(&frame(0x89, payload)).unwrap();
            assert_eq!(client.read_frame(), (0x8a, payload.to_vec()));
        }
        // Unsolicited pongs.
        client
            .write_all(&[frame(0x8a, b""), frame(0x8a, &[7; 125]), frame(0x81, b"hello")].concat())
            .unwrap();
        assert_eq!(client.read_frame(), (0x81, b"hello".to_vec()), "only the message is echoed");
        client.write_all(&close_frame(1000, "")).unwrap();
        client.take_close();
        assert_eq!(ends.reason().0, 1000);
    }
}

#[test]
fn fragments_are_one_message_with_any_control_frames_between_them() {
    let (server, ends) = serve_ends(Limits::default(), echo);
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        // A ping in the middle is answered before the message is whole.
        client.write_all(&[frame(0x01, b"He"), frame(0x89, b"?"), frame(0x00, b"l")].concat()).unwrap();
        assert_eq!(client.read_frame(), (0x8a, b"?".to_vec()));
        client.write_all(&[frame(0x8a, b"!"), frame(0x00, b""), frame(0x80, b"lo")].concat()).unwrap();
        assert_eq!(client.read_frame(), (0x81, b"Hello".to_vec()));
        // A character in four fragments, and then each byte of these sent separately.
        let party = "🎉".as_bytes();
        let bytes: Vec<u8> = [(0x01, 0), (0x00, 1), (0x00, 2), (0x80, 3)]
            .iter()
            .flat_map(|&(first, n)| frame(first, &party[n..=n]))
            .collect();
        client.write_all(&bytes).unwrap();
        assert_eq!(client.read_frame(), (0x81, party.to_vec()));
        for byte in bytes {
            client.write_all(&[byte]).unwrap();
        }
        assert_eq!(client.read_frame(), (0x81, party.to_vec()));
        // Empty fragments, and binary ones.
        client.write_all(&[frame(0x01, b""), frame(0x80, b"")].concat()).unwrap();
        assert_eq!(client.read_frame(), (0x81, vec![]));
        client.write_all(&[frame(0x02, &[0xff]), frame(0x80, &[0xfe; 70_000])].concat()).unwrap();
        let (first, payload) = client.read_frame();
        assert!(first == 0x82 && payload.len() == 70_001 && payload[..2] == [0xff, 0xfe]);
        // A close may come between fragments, too: the message stays incomplete.
        client.write_all(&[frame(0x01, b"never"), close_frame(4000, "")].concat()).unwrap();
        assert_eq!(client.take_close().0, 4000);
        assert_eq!(ends.reason().0, 4000);
    }
}

#[test]
fn a_message_received_in_part_survives_any_number_of_timeouts() {
    let (tx, rx) = mpsc::channel();
    let server = serve_app(move |ws| {
        let mut timeouts = 0;
        loop {
            match ws.read(0, Duration::from_millis(30)) {
                Err(e) => {
                    assert!(e.is_timeout() && !e.is_closed(), "{e:?}");
                    timeouts += 1;
                    tx.send(timeouts)?;
                }
                Ok(data) if data == "end" => return Ok(()),
                Ok(data) => ws.write(data)?,
            }
        }
    });
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        let text = "größe 🎉 ".repeat(100);
        let bytes = frame(0x81, text.as_bytes());
        // Split in the header, in the mask, and in characters.
        let mut sent = 0;
        for upto in [1, 2, 3, 6, 11, 12, 20, 21, 22, 500, bytes.len() - 1] {
            client.write_all(&bytes[sent..upto]).unwrap();
            sent = upto;
            while rx.try_recv().is_ok() {}
            for _ in 0..2 {
                rx.recv_timeout(PATIENCE).unwrap();
            }
        }
        client.write_all(&bytes[sent..]).unwrap();
        assert_eq!(client.read_frame(), (0x81, text.into_bytes()));
        client.write_all(&frame(0x01, b"one ")).unwrap();
        while rx.try_recv().is_ok() {}
        for _ in 0..2 {
            rx.recv_timeout(PATIENCE).unwrap();
        }
        client.write_all(&frame(0x80, b"two")).unwrap();
        assert_eq!(client.read_frame(), (0x81, b"one two".to_vec()));
        client.write_all(&frame(0x81, b"end")).unwrap();
        client.answer_close_and_end();
        while rx.try_recv().is_ok() {}
    }
}

/// Reads until the connection ends. Returns the reason, after checking that each further call returns it, too.
fn read_to_the_end(ws: &mut WebSocket) -> CloseReason {
    let reason = |e: Error| match e {
        Error::Closed(reason) => reason,
        other => panic!("{other:?}"),
    };
    let first = loop {
        match ws.read(0, PATIENCE) {
            Ok(_) => {}
            Err(e) => break reason(e),
        }
    };
    assert_eq!(reason(ws.read(7, Duration::ZERO).unwrap_err()), first);
    assert_eq!(reason(ws.read_message(PATIENCE).unwrap_err()), first);
    assert_eq!(reason(ws.try_read(0).unwrap_err()), first);
    assert_eq!(reason(ws.write("late").unwrap_err()), first);
    assert_eq!(ws.close_reason().as_ref(), Some(&first));
    first
}

#[test]
fn the_error_says_how_the_client_ended_the_connection() {
    let (tx, rx) = mpsc::channel();
    let (server, ends) = serve_ends(Limits::default(), move |ws| -> ServerResult {
        tx.send(read_to_the_end(ws))?;
        Ok(())
    });
    for scheme in SCHEMES {
        let half = &frame(0x81, b"cut in the middle")[..12];
        for (sent, then, code, text, normal) in [
            (&close_frame(1000, "")[..], "reads", 1000, "", true),
            (&close_frame(1001, "away"), "reads", 1001, "away", true),
            (&frame(0x88, b""), "reads", 1005, "", true),
            (&close_frame(4321, "größe"), "reads", 4321, "größe", false),
            (&close_frame(1011, &"x".repeat(123)), "reads", 1011, &"x".repeat(123), false),
            (&close_frame(1000, "bye"), "drops", 1000, "bye", true),
            (b"", "resets", 1006, "?", false),
            (half, "resets", 1006, "?", false),
            (b"", "drops", 1006, "?", false),
            (half, "drops", 1006, "?", false),
            (&frame(0x01, b"a fragment"), "drops", 1006, "?", false),
        ] {
            let mut client = server.raw_websocket(scheme, "/");
            client.write_all(sent).unwrap();
            match then {
                "resets" => client.reset(),
                "drops" => drop(client),
                _ => drop(client.take_close()),
            }
            let reason = rx.recv_timeout(PATIENCE).unwrap();
            let by = if code == 1006 { ClosedBy::Network } else { ClosedBy::Client };
            assert_eq!((reason.code().0, reason.by(), reason.is_normal()), (code, by, normal), "{reason:?}");
            if code == 1006 {
                assert!(!reason.text().is_empty(), "what broke it");
            } else {
                assert_eq!(reason.text(), text);
            }
            assert_eq!(ends.next().reason, reason);
        }
    }
}

/// Sends a whole message and these bytes. The message has to be answered, and then the close frame with this code has to
/// arrive, without a reset.
fn is_closed_with(code: u16, what: &[(&str, Vec<u8>)]) {
    let (server, ends) = serve_ends(Limits::default(), echo);
    for scheme in SCHEMES {
        for (name, bytes) in what {
            let mut client = server.raw_websocket(scheme, "/");
            // Everything after the broken frame is ignored.
            let all = [&frame(0x81, b"whole")[..], bytes, &frame(0x81, b"too late")];
            client.write_all(&all.concat()).unwrap();
            assert_eq!(client.read_frame(), (0x81, b"whole".to_vec()), "{name}");
            let (first, payload) = client.read_frame();
            assert_eq!(first, 0x88, "{scheme:?} {name}");
            let sent = u16::from_be_bytes(*payload.first_chunk().unwrap_or(&[0; 2]));
            assert_eq!(sent, code, "{scheme:?} {name}: {}", String::from_utf8_lossy(&payload[2..]));
            assert_eq!(client.read(&mut [0; 1]).unwrap(), 0, "{scheme:?} {name}");
            drop(client);
            let reason = ends.next().reason;
            assert_eq!((reason.code().0, reason.by()), (code, ClosedBy::Server), "{scheme:?} {name}");
            assert!(!reason.is_normal());
        }
    }
}

#[test]
fn broken_framing_is_closed_with_1002() {
    let masked = |head: &[u8], payload: &[u8]| [head, &[0; 4], payload].concat();
    let mut what = vec![
        ("RSV1", frame(0xc1, b"compressed")),
        ("RSV2", frame(0xa1, b"x")),
        ("RSV3", frame(0x92, b"x")),
        ("RSV1 of a ping", frame(0xc9, b"x")),
        ("no mask", vec![0x81, 2, b'h', b'i']),
        ("no mask, and empty", vec![0x81, 0]),
        ("a ping without a mask", vec![0x89, 0]),
        ("a fragmented ping", frame(0x09, b"x")),
        ("a fragmented close", frame(0x08, b"")),
        ("a ping of 126 bytes", frame(0x89, &[b'x'; 126])),
        ("a close of 126 bytes", close_frame(1000, &"x".repeat(124))),
        ("a continuation of nothing", frame(0x80, b"x")),
        ("a fragment of nothing", frame(0x00, b"x")),
        ("a message within a message", [frame(0x01, b"x"), frame(0x81, b"y")].concat()),
        ("a binary one within a text", [frame(0x01, b"x"), frame(0x02, b"y")].concat()),
        ("half a close code", frame(0x88, &[3])),
        ("a short length in 16 bits", masked(&[0x82, 0xfe, 0, 5], b"12345")),
        ("a short length in 64 bits", masked(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 5], b"12345")),
        ("a middle length in 64 bits", masked(&[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0, 200], &[0; 200])),
    ];
    what.extend([3, 4, 5, 6, 7, 11, 12, 13, 14, 15].map(|n| ("a reserved opcode", frame(0x80 | n, b""))));
    is_closed_with(1002, &what);
}

#[test]
fn a_close_code_that_may_not_be_sent_is_answered_with_1002() {
    let codes = [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535];
    is_closed_with(1002, &codes.map(|code| ("a bad close code", close_frame(code, "why"))));
}

#[test]
fn text_that_is_not_utf_8_is_closed_with_1007() {
    let bad: [&[u8]; 8] = [
        b"\xff",                 // never in UTF-8
        b"caf\xe9",              // Latin-1
        b"\xc0\xaf",             // longer than necessary
        b"\xed\xa0\x80",         // half a surrogate pair
        b"\xf4\x90\x80\x80",     // beyond the last character
        b"\x80",                 // a continuation byte without a first byte
        b"cut off \xf0\x9f\x8e", // the message ends within a character
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    ];
    let mut what = Vec::new();
    for bytes in bad {
        what.push(("whole", frame(0x81, bytes)));
        what.push(("in a long text", frame(0x81, &[&[b'x'; 40_000], bytes].concat())));
        let (first, second) = bytes.split_at(bytes.len() / 2);
        what.push(("fragmented", [frame(0x01, first), frame(0x80, second)].concat()));
        what.push(("in the last fragment", [frame(0x01, b"good"), frame(0x80, bytes)].concat()));
        what.push(("with an empty end", [frame(0x01, bytes), frame(0x80, b"")].concat()));
        what.push(("in a close frame", frame(0x88, &[&1000u16.to_be_bytes()[..], bytes].concat())));
    }
    is_closed_with(1007, &what);
}

#[test]
fn binary_messages_may_have_any_bytes() {
    let (server, _ends) = serve_ends(Limits::default(), echo);
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        client.write_all(&[frame(0x02, b"\xff"), frame(0x80, b"\xc0\xaf")].concat()).unwrap();
        assert_eq!(client.read_frame(), (0x82, b"\xff\xc0\xaf".to_vec()));
        client.write_all(&frame(0x89, b"\xff")).unwrap();
        assert_eq!(client.read_frame(), (0x8a, b"\xff".to_vec()));
    }
}

#[test]
fn messages_that_came_before_the_close_are_read_before_it() {
    let (go, gone) = mpsc::channel::<()>();
    let gone = Arc::new(Mutex::new(gone));
    let (tx, rx) = mpsc::channel();
    let mut limits = Limits::default();
    limits.close_timeout = Duration::from_millis(500);
    let (server, ends) = serve_ends(limits, move |ws| {
        gone.lock().unwrap().recv_timeout(PATIENCE)?;
        let mut all = Vec::new();
        let end = loop {
            match ws.read(3, PATIENCE) {
                Ok(data) => all.push((data.as_text().unwrap().to_owned(), ws.at_end())),
                Err(e) => break e,
            }
        };
        assert!(end.is_closed(), "{end:?}");
        tx.send(all)?;
        Ok(())
    });
    for scheme in SCHEMES {
        // The gateway sees the close or the end while the handler does something else, or the handler's own reads do.
        for waits in [true, false] {
            let mut client = server.raw_websocket(scheme, "/");
            client
                .write_all(&[frame(0x81, b"first"), frame(0x81, b"2"), close_frame(4000, "")].concat())
                .unwrap();
            if waits {
                assert_eq!(client.take_close().0, 4000);
            }
            go.send(()).unwrap();
            let pieces = rx.recv_timeout(PATIENCE).unwrap();
            assert_eq!(pieces, [("fir".into(), false), ("st".into(), true), ("2".into(), true)]);
            drop(client);
            assert_eq!(ends.reason().0, 4000);
        }
    }
}

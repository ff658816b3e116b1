#![cfg(feature = "__tls")]
//! What `write` promises.
mod common;

use std::{
    io::{Read, Write},
    sync::{
        Arc, Mutex,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use common::{
    PATIENCE, SCHEMES, Stream, TestServer, echo,
    ends::{Ends, close_frame, reason_parts, serve_ends},
    frame, full_app, next_message, serve, serve_app,
};
use switchboard::{Bytes, ClosedBy, Error, Limits, Message, Opening, Text};
use tungstenite::Message as Sent;

/// Much shorter than the write timeout, to see that it was not used up.
const SOON: Duration = Duration::from_secs(8);

#[test]
fn a_message_keeps_its_kind_and_binary_data_decides_for_the_rest() {
    let server = serve_app(|ws| {
        for binary in [false, true, false] {
            ws.set_binary_data(binary);
            ws.write(Message::Text("text".into()))?;
            ws.write(Message::Binary(Bytes::from_static(&[0xff, 0])))?;
            let kept = Message::from("borrowed");
            ws.write(&kept)?;
            assert_eq!(kept.len(), 8);
            ws.write("str")?;
            ws.write(String::from("größe"))?;
            ws.write(Text::from_static("shared"))?;
            ws.write(b"bytes")?;
            ws.write("🎉".as_bytes())?;
            ws.write(vec![b'v'; 3])?;
            ws.write(Bytes::new())?;
            ws.write("")?;
        }
        Ok(())
    });
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        for other in [0x81, 0x82, 0x81] {
            for (first, payload) in [
                (0x81, &b"text"[..]),
                (0x82, &[0xff, 0]),
                (0x81, b"borrowed"),
                (other, b"str"),
                (other, "größe".as_bytes()),
                (other, b"shared"),
                (other, b"bytes"),
                (other, "🎉".as_bytes()),
                (other, b"vvv"),
                (other, b""),
                (other, b""),
            ] {
                assert_eq!(client.read_frame(), (first, payload.to_vec()), "each one frame");
            }
        }
        assert_eq!(client.answer_close_and_end().0, 1000);
    }
}

#[test]
fn binary_data_may_be_set_before_the_handshake_is_answered() {
    let server = serve(|builder| {
        builder.route("/", || {
            let before = |opening: &mut Opening| {
                opening.set_binary_data(true);
                Ok(())
            };
            full_app(before, |ws| Ok(ws.write("\u{ff}")?), |_| {})
        })
    });
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        assert_eq!(client.read_frame(), (0x82, vec![0xc3, 0xbf]));
        client.answer_close_and_end();
    }
}

#[test]
fn bytes_that_are_not_utf8_are_not_sent_as_text() {
    let server = serve_app(|ws| {
        ws.write("before")?;
        for bytes in [&b"\xff"[..], b"caf\xe9", b"\xed\xa0\x80", b"\xf0\x9f\x8e", b"\xc0\xaf"] {
            let error = ws.write(bytes).unwrap_err();
            assert!(matches!(error, Error::NotUtf8) && !error.is_closed() && !error.is_timeout());
        }
        ws.write("after")?;
        ws.set_binary_data(true);
        ws.write(b"\xff")?;
        Ok(())
    });
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        assert_eq!(client.read_frame(), (0x81, b"before".to_vec()));
        assert_eq!(client.read_frame(), (0x81, b"after".to_vec()), "nothing was sent in between");
        assert_eq!(client.read_frame(), (0x82, vec![0xff]));
        assert_eq!(client.answer_close_and_end().0, 1000, "the connection still works");
    }
}

/// More than any socket buffer of a test machine takes.
fn large(seed: u8) -> Vec<u8> {
    (0..5_000_000u32).map(|n| (n % 251) as u8 ^ seed).collect()
}

#[test]
fn a_large_message_waits_for_a_reader_that_starts_late() {
    let (tx, rx) = mpsc::channel();
    let server = serve_app(move |ws| {
        ws.set_binary_data(true);
        ws.write("first")?;
        for seed in 0..3 {
            ws.write(large(seed))?;
        }
        tx.send(())?;
        ws.write("last")?;
        Ok(())
    });
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        assert_eq!(client.read_frame(), (0x82, b"first".to_vec()));
        let waits = rx.recv_timeout(Duration::from_millis(500));
        assert_eq!(waits, Err(RecvTimeoutError::Timeout), "the kernel cannot have 15 MB");
        for seed in 0..3 {
            let (first, payload) = client.read_frame();
            assert!(first == 0x82 && payload == large(seed));
        }
        rx.recv_timeout(PATIENCE).unwrap();
        assert_eq!(client.read_frame(), (0x82, b"last".to_vec()));
        assert_eq!(client.answer_close_and_end().0, 1000);
    }
}

#[test]
fn large_messages_in_both_directions_at_once_do_not_deadlock() {
    const SIZE: usize = 5_000_000;
    let mut limits = Limits::default();
    limits.max_message_size = SIZE;
    limits.max_frame_size = SIZE;
    let (server, ends) = serve_ends(limits, |ws| {
        ws.set_binary_data(true);
        ws.write(large(1))?;
        let message = ws.read_message(PATIENCE)?;
        assert!(message.as_bytes() == large(2));
        Ok(ws.write("both")?)
    });
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        // It sends all of its own first: the server cannot send all before this client reads, so it has to read, or keep
        // what it cannot, until the client comes to reading.
        let sent = frame(0x82, &large(2));
        match &mut client {
            Stream::Plain(tcp) => {
                let mut reader = tcp.try_clone().unwrap();
                let writer = thread::spawn(move || reader.write_all(&sent));
                assert!(client.read_frame() == (0x82, large(1)));
                writer.join().unwrap().unwrap();
            }
            Stream::Tls(_) => {
                assert!(client.read_frame() == (0x82, large(1)));
                client.write_all(&sent).unwrap();
            }
        }
        assert_eq!(client.read_frame(), (0x82, b"both".to_vec()));
        assert_eq!(client.answer_close_and_end().0, 1000);
        assert_eq!(ends.reason().0, 1000);
    }
}

#[test]
fn pipelined_messages_are_answered_whole_and_in_order() {
    const MESSAGES: usize = 5_000;
    // Some messages are empty, some need a longer header, some are binary.
    let message = |n: usize| {
        let size = if n.is_multiple_of(97) { 300 } else { n % 40 };
        let payload = format!("{n} {}", "o".repeat(size)).into_bytes();
        if n.is_multiple_of(13) { (0x82, payload) } else { (0x81, payload) }
    };
    let server = serve_app(echo);
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        let mut all: Vec<u8> =
            (0..MESSAGES).map(message).flat_map(|(first, payload)| frame(first, &payload)).collect();
        all.extend(close_frame(1000, ""));
        // The answers fit into the socket's buffers, so the server does not wait for this client.
        client.write_all(&all).unwrap();
        for n in 0..MESSAGES {
            assert_eq!(client.read_frame(), message(n));
        }
        assert_eq!(client.take_close().0, 1000, "after all of the answers");
    }
}

#[test]
fn after_flush_the_kernel_has_everything() {
    let (tx, rx) = mpsc::channel();
    let server = serve_app(move |ws| {
        ws.flush()?; // there is nothing to flush
        for n in 0..50 {
            ws.read_message(PATIENCE)?;
            // The next message has already arrived, so this answer is collected.
            ws.write(format!("{n}"))?;
            ws.flush()?;
            let info = ws.hub().connection(ws.websocket_id()).unwrap();
            tx.send((info.queued, info.bytes_out))?;
        }
        ws.messages().for_each(drop);
        Ok(())
    });
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        client.write_all(&frame(0x81, b"x").repeat(51)).unwrap();
        let mut before = 0;
        for n in 0..50 {
            let (queued, out) = rx.recv_timeout(PATIENCE).unwrap();
            assert_eq!(queued, 0, "after answer {n}");
            assert!(out > before, "answer {n}");
            before = out;
            assert_eq!(client.read_frame(), (0x81, n.to_string().into_bytes()));
        }
    }
}

/// Why writing stopped (`None`: the client was too slow), and how many messages had been written.
type Stopped = (Option<(u16, String, ClosedBy)>, usize);

/// A server that writes until a write fails, and reports why it failed, and how many had succeeded.
fn serve_stream(limits: Limits) -> (TestServer, Ends, mpsc::Receiver<Stopped>) {
    let (tx, rx) = mpsc::channel();
    let (server, ends) = serve_ends(limits, move |ws| {
        ws.set_binary_data(true);
        let mut written = 0;
        let error = loop {
            match ws.write(vec![7; STREAMED]) {
                Ok(()) => written += 1,
                Err(e) => break e,
            }
        };
        let reason = match &error {
            Error::Closed(reason) => Some(reason_parts(reason)),
            Error::Timeout => None,
            other => panic!("{other:?}"),
        };
        tx.send((reason, written))?;
        let again = ws.write("once more").unwrap_err();
        assert!(again.is_closed(), "{again:?}");
        let end = ws.read(0, SOON / 2).unwrap_err();
        assert!(end.is_closed(), "a read after it: {end:?}");
        Err(error.into())
    });
    (server, ends, rx)
}

const STREAMED: usize = 1_000_000;

#[test]
fn a_reset_by_the_client_ends_a_write() {
    let (server, ends, rx) = serve_stream(Limits::default());
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        client.read_exact(&mut [0; 100_000]).unwrap();
        client.reset();
        let (reason, _) = rx.recv_timeout(SOON).expect("without waiting for the write timeout");
        let (code, _, by) = reason.expect("the client is gone, not slow");
        assert_eq!((code, by), (1006, ClosedBy::Network));
        let (code, _, by) = ends.reason();
        assert_eq!((code, by), (1006, ClosedBy::Network));
    }
}

#[test]
fn a_client_that_closes_during_a_write_gets_the_rest_of_it_and_the_answer() {
    let (server, ends, rx) = serve_stream(Limits::default());
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        client.write_all(&close_frame(4000, "enough")).unwrap();
        let begun = Instant::now();
        let mut messages = 0;
        // It reads on until its close is answered, as RFC 6455 requires (section 7.1.2).
        let close = loop {
            assert!(begun.elapsed() < SOON, "{messages} messages after its close, and no answer to it");
            match client.read_frame() {
                (0x82, payload) if payload.len() == STREAMED => messages += 1,
                (0x88, payload) => break payload,
                (first, payload) => panic!("{first:x}, {} bytes", payload.len()),
            }
        };
        assert_eq!(close[..2], 4000u16.to_be_bytes());
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
        drop(client);
        let (reason, written) = rx.recv_timeout(PATIENCE).unwrap();
        assert_eq!(reason, Some((4000, "enough".into(), ClosedBy::Client)));
        assert!(messages == written || messages == written + 1, "{messages} of {written}");
        assert_eq!(ends.reason(), (4000, "enough".into(), ClosedBy::Client));
    }
}

#[test]
fn the_end_of_the_clients_stream_is_noticed_during_a_write() {
    let (server, ends, rx) = serve_stream(Limits::default());
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        client.half_close();
        let begun = Instant::now();
        let mut bytes = vec![0; 1 << 20];
        // It reads on. Its stream is cut, because it sent no close frame.
        while client.read(&mut bytes).is_ok_and(|n| n > 0) {
            assert!(begun.elapsed() < SOON, "the server still writes");
        }
        let (code, _, by) = rx.recv_timeout(PATIENCE).unwrap().0.unwrap();
        assert_eq!((code, by), (1006, ClosedBy::Network));
        assert_eq!(ends.next().reason.code().0, 1006);
    }
}

#[test]
fn a_client_that_ends_its_stream_and_does_not_read_runs_into_the_write_timeout() {
    let mut limits = Limits::default();
    limits.write_timeout = Duration::from_secs(1);
    limits.close_timeout = Duration::from_millis(500);
    let (server, ends, rx) = serve_stream(limits);
    for scheme in SCHEMES {
        for close in [true, false] {
            let mut client = server.raw_websocket(scheme, "/");
            if close {
                client.write_all(&close_frame(4000, "enough")).unwrap();
            }
            client.half_close();
            let (reason, _) = rx.recv_timeout(SOON).unwrap();
            let codes = if close { [1006, 4000] } else { [1006, 1006] };
            // The server may see the end or the write timeout first.
            assert!(reason.is_none_or(|(code, ..)| codes.contains(&code)));
            assert!(codes.contains(&ends.reason().0));
        }
    }
}

#[test]
fn messages_before_the_close_can_be_read_after_a_failed_write() {
    let (gone, goes) = mpsc::channel::<()>();
    let goes = Arc::new(Mutex::new(goes));
    let (tx, rx) = mpsc::channel();
    let (server, ends) = serve_ends(Limits::default(), move |ws| {
        goes.lock().unwrap().recv_timeout(PATIENCE)?;
        // The first write succeeds; the client's kernel answers it with a reset, so that the next ones fail.
        let begun = Instant::now();
        let failed = loop {
            match ws.write("is somebody there?") {
                Err(e) => break e.is_closed(),
                Ok(()) if begun.elapsed() > SOON => break false,
                Ok(()) => thread::sleep(Duration::from_millis(2)),
            }
        };
        let words = ws.read_message(PATIENCE).map(|message| message.as_text().map(str::to_owned));
        let end = ws.read_message(PATIENCE);
        tx.send((failed, words, end))?;
        Ok(())
    });
    for scheme in SCHEMES {
        for how in ["ends", "ends without a goodbye", "resets"] {
            for _ in 0..5 {
                let mut client = server.raw_websocket(scheme, "/");
                client.write_all(&[frame(0x81, b"last words"), close_frame(1000, "bye")].concat()).unwrap();
                match how {
                    "ends" => {
                        client.half_close();
                        drop(client);
                    }
                    "resets" => client.reset(),
                    _ => drop(client),
                }
                gone.send(()).unwrap();
                let (failed, words, end) = rx.recv_timeout(PATIENCE).unwrap();
                assert!(failed, "{scheme:?} {how}: writes to a closed client still succeed");
                assert_eq!(words.unwrap().as_deref(), Some("last words"), "{scheme:?} {how}");
                let end = end.unwrap_err();
                let Error::Closed(reason) = &end else { panic!("{end:?}") };
                assert_eq!(reason_parts(reason), (1000, "bye".into(), ClosedBy::Client), "{scheme:?} {how}");
                assert_eq!(ends.reason(), (1000, "bye".into(), ClosedBy::Client), "{scheme:?} {how}");
            }
        }
    }
}

#[test]
fn a_collected_answer_of_a_handler_that_returns_is_sent_before_the_close() {
    let server = serve_app(|ws| {
        let message = ws.read_message(PATIENCE)?;
        Ok(ws.write(message)?)
    });
    for scheme in SCHEMES {
        let mut client = server.connect(scheme, "/");
        client.write(Sent::text("answered")).unwrap();
        client.write(Sent::text("not read")).unwrap();
        client.flush().unwrap();
        assert_eq!(next_message(&mut client), Sent::text("answered"));
        assert_eq!(common::read_close(&mut client).0, 1000);
    }
}

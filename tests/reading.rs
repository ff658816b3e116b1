//! MODEL: what `read` promises.
mod common;

use std::{
    io::Write,
    sync::mpsc,
    time::{Duration, Instant},
};

use common::{SCHEMES, echo, frame, next_message, serve_app};
use switchboard::{Data, Error};
use tungstenite::Message;

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
        let expected: Vec<(Data, bool)> = vec![
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
fn the_deadline_is_for_the_whole_call_however_bytes_trickle() {
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
        let bytes = frame(0x81, &[b'x'; 100]);
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
        assert_eq!(client.read_frame(), (0x81, vec![b'x'; 100]), "nothing received is lost");
    }
}

use std::{
    io::Read,
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use super::*;
use crate::{
    clock::Clock, codec::Stream, id::WebSocketId, limits::Limits, message::Message, session::SessionId,
};

#[derive(Debug)]
struct Nobody;

impl Observer for Nobody {
    fn closed(&self, _: &Connection) {}
}

/// A connection over a socket pair, without a gateway, and the client's end.
fn connection() -> (Arc<Connection>, UnixStream) {
    let (server, client) = UnixStream::pair().unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let clock = Clock::start();
    let about = Box::new(About {
        id: WebSocketId::random(),
        session_id: SessionId::new("s"),
        path: "/".into(),
        peer: None,
        forwarded: None,
        subprotocol: None,
        opened: clock.exact(),
        shared: false,
        overflow: Overflow::default(),
        deflate: None,
    });
    let (nobody, _) = crossbeam_channel::unbounded();
    let post = Post::new(nobody, || {});
    let context = Arc::new(Context {
        limits: Arc::new(Limits::default()),
        clock: Arc::new(clock),
        post,
        observer: Arc::new(Nobody),
    });
    let socket = Arc::new(Socket::from(server));
    (Connection::new(about, socket, Stream::plain(), context), client)
}

/// A push that finds the codec locked relies on the holder to send it. Nothing else happens here that could: if one
/// were forgotten, it would never come.
#[test]
fn no_push_is_lost_between_the_locks() {
    const ROUNDS: usize = 1_000_000;
    let (connection, mut client) = connection();
    let stop = Arc::new(AtomicBool::new(false));
    let go = Arc::new(AtomicUsize::new(0));
    let owner = thread::spawn({
        let (connection, stop, go) = (connection.clone(), stop.clone(), go.clone());
        move || {
            let mut seen = 0;
            while !stop.load(SeqCst) {
                // It takes and leaves the lock a few times around each push, and then no more until the next one.
                if go.load(SeqCst) > seen {
                    seen = go.load(SeqCst);
                    for _ in 0..seen % 7 {
                        assert!(!connection.is_over());
                    }
                }
            }
        }
    });
    for round in 1..=ROUNDS {
        go.store(round, SeqCst);
        connection.push(Message::from("x"), None).unwrap();
        let mut frame = [0; 3];
        client.read_exact(&mut frame).unwrap_or_else(|e| panic!("round {round}: {e}"));
        assert_eq!(&frame, b"\x81\x01x");
    }
    stop.store(true, SeqCst);
    owner.join().unwrap();
}

#[test]
fn a_connection_is_small() {
    // What 18,000 parked ones cost; the rest of it is on the heap, and given back.
    assert!(size_of::<Connection>() <= 704, "{}", size_of::<Connection>());
}

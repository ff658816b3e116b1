//! Those who wait are told, and nobody waits for what does not come.

use std::{net::Shutdown, sync::Mutex};

use super::*;
use crate::error::Error;

/// Begins this on a thread of its own. What it returns waits for what comes of it, and not for ever.
fn begin<T: Send + 'static>(what: impl FnOnce() -> T + Send + 'static) -> impl FnOnce() -> T {
    let (done, is_done) = crossbeam_channel::bounded(1);
    thread::spawn(move || drop(done.send(what())));
    move || is_done.recv_timeout(Duration::from_secs(10)).expect("it goes on for ever")
}

/// Knows these.
#[derive(Debug, Default)]
struct Listed(Mutex<Vec<Arc<Connection>>>);

impl Registrar for Listed {
    fn unregister(&self, _: &Arc<Connection>) {}

    fn all(&self) -> Vec<Arc<Connection>> {
        self.0.locked().clone()
    }
}

/// What somebody has read and not acknowledged, or may still read, stays when its connection is cut: nobody waits for it, and nobody
/// else is ended in its place.
#[test]
fn a_shortage_is_over_when_those_that_hold_most_are() {
    for is_closing in [false, true] {
        let listed = Arc::new(Listed::default());
        let (sender, _mail) = crossbeam_channel::unbounded();
        let context =
            Arc::new(context(Limits::default(), listed.clone(), Arc::new(Post::new(sender, || {}))));
        context.buffered.lower_bound_to(1 << 20);
        let all = [900_000_u32, 100_000].map(|size| {
            let id = WebSocketId::random(NodeId::new(1));
            let (connection, client) = connect(Role::Server, id, None, true, context.clone());
            listed.0.locked().push(connection.clone());
            let mut received = [&[0x82, 0xff, 0, 0, 0, 0][..], &size.to_be_bytes(), &[0; 4]].concat();
            received.resize(received.len() + size as usize, 7);
            while connection.take_in(&mut received, &mut Work::piece()).intake == Intake::More {}
            (connection, client)
        });
        let [(large, _), (small, _)] = &all;
        let _loan = match is_closing {
            false => Some(large.read_loan(usize::MAX, Duration::ZERO, &AtomicBool::new(false)).unwrap()),
            true => {
                large.close(CloseCode::NORMAL, "");
                None
            }
        };
        assert!(context.buffered.change(0, 200), "it is no shortage");
        let relieves = context.clone();
        begin(move || relieves.relieve())();
        assert!(large.is_over() && small.reason().is_none(), "{:?}", small.reason());
        listed.0.locked().clear();
    }
}

/// The gateway has received for a thread that was busy: what is due has become another, which the thread finds out when it reads on.
#[test]
fn a_message_that_began_while_its_thread_was_busy_has_its_time() {
    let (message_timeout, ping_interval) =
        (Some(Duration::from_millis(200)), Some(Duration::from_secs(3600)));
    let limits = Limits { message_timeout, ping_interval, ..Limits::default() };
    let (sender, _mail) = crossbeam_channel::unbounded();
    let context = context(limits, Arc::new(Nobody), Arc::new(Post::new(sender, || {})));
    let id = WebSocketId::random(NodeId::new(1));
    let (connection, mut client) = connect(Role::Server, id, None, false, Arc::new(context));
    assert!(connection.read(1, Duration::ZERO, &AtomicBool::new(false)).is_err());
    client.write_all(b"\x81\x82\0\0\0\0x").unwrap();
    connection.stand_in();
    let read = begin(move || connection.read(1, READ_TIMEOUT, &AtomicBool::new(false)))();
    assert!(read.as_ref().is_err_and(Error::is_closed), "{read:?}");
}

/// Without pings nothing is due before an answer was compressed: then the compressor's memory is to be given back.
#[test]
fn what_becomes_due_by_an_answer_is_seen_without_pings() {
    let compression = Compression::Dedicated { window_bits: 15, level: 6 };
    let (deflate, _) = compression.negotiate(["permessage-deflate"]).unwrap();
    let limits = Limits { ping_interval: None, ..Limits::default() };
    let (sender, _mail) = crossbeam_channel::unbounded();
    let context = context(limits, Arc::new(Nobody), Arc::new(Post::new(sender, || {})));
    let id = WebSocketId::random(NodeId::new(1));
    let (connection, mut client) = connect(Role::Server, id, Some(deflate), false, Arc::new(context));
    let reader = AtomicBool::new(false);
    let read = |timeout| connection.read(1, timeout, &reader);
    assert!(read(Duration::ZERO).is_err());
    client.write_all(b"\x81\x81\0\0\0\0x").unwrap();
    read(Duration::from_secs(10)).unwrap();
    connection.write(Message::from("x".repeat(1000)), false).unwrap();
    assert!(read(Duration::ZERO).is_err());
    let pause = connection.inbox.locked().receiver(connection.limits()).pause;
    assert!(pause.is_some_and(|pause| pause <= Duration::from_secs(10)), "{pause:?}");
}

/// Nothing can be sent any more, and the client sends nothing: a thread that waits for that learns of it in time.
#[test]
fn a_reader_learns_that_nothing_can_be_sent_any_more() {
    let limits =
        Limits { ping_interval: None, close_timeout: Duration::from_millis(200), ..Limits::default() };
    let gateway = LoneGateway::start(|post| context(limits, Arc::new(Nobody), post)).unwrap();
    for role in [Role::Server, Role::Client] {
        let id = WebSocketId::random(NodeId::new(1));
        let (connection, peer) = connect(role, id, None, false, gateway.context().clone());
        connection.attach();
        let reading = connection.clone();
        let read = begin(move || reading.read(1, READ_TIMEOUT, &AtomicBool::new(false)));
        while connection.is_busy() {
            thread::yield_now();
        }
        thread::sleep(Duration::from_millis(50)); // it waits by now; if it does not, this test sees less
        peer.shutdown(Shutdown::Read).unwrap();
        let _ = connection.push(Message::from("x"), None, None);
        let read = read();
        assert!(read.as_ref().is_err_and(Error::is_closed), "{read:?}");
    }
}

/// The socket will never take more, and says so without saying that it can be written to.
#[test]
fn who_waits_for_a_stuck_message_is_told_when_the_peer_has_ended_both_ways() {
    let gateway = LoneGateway::start(|post| context(Limits::default(), Arc::new(Nobody), post)).unwrap();
    let id = WebSocketId::random(NodeId::new(1));
    let (connection, peer) = connect(Role::Server, id, None, false, gateway.context().clone());
    let pushing = connection.clone();
    let pushed = begin(move || pushing.push_wait(Message::from(vec![0; 4 << 20]), READ_TIMEOUT));
    while !connection.is_blocked() {
        thread::yield_now();
    }
    thread::sleep(Duration::from_millis(50)); // the gateway watches it by now; if it does not, this test sees less
    peer.shutdown(Shutdown::Both).unwrap();
    let pushed = pushed().map_err(|error| error.kind);
    assert!(matches!(pushed, Err(PushErrorKind::Closed(_))), "{pushed:?}");
}

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

mod delivery;
mod told;

use super::{lock::Owner, *};
use crate::{
    buffered::Buffered,
    clock::Clock,
    codec::{Deflate, Forms, Role, Stream, Work},
    compression::Compression,
    error::ClosedBy,
    gateway::LoneGateway,
    id::{NodeId, WebSocketId},
    incidents::Incidents,
    limits::Limits,
    message::{CloseCode, Message},
    sync::LockExt,
};

#[derive(Debug)]
struct Nobody;

impl Registrar for Nobody {
    fn unregister(&self, _: &Arc<Connection>) {}

    fn all(&self) -> Vec<Arc<Connection>> {
        Vec::new()
    }
}

/// A connection with this ID, known to this registrar.
pub(crate) fn connection_of(id: WebSocketId, registrar: Arc<dyn Registrar>) -> (Arc<Connection>, UnixStream) {
    let (connection, client, _) = make_connection(id, None, registrar, None);
    (connection, client)
}

/// A connection over a socket pair, without a gateway, and the client's end.
pub(crate) fn connection() -> (Arc<Connection>, UnixStream) {
    let (connection, client, _) = posting_connection(None);
    (connection, client)
}

/// The same, and what it posts.
fn posting_connection(
    deflate: Option<Deflate>,
) -> (Arc<Connection>, UnixStream, crossbeam_channel::Receiver<Arc<Connection>>) {
    make_connection(WebSocketId::random(NodeId::new(1)), deflate, Arc::new(Nobody), None)
}

/// A shared one with these limits, and what it posts.
fn shared_connection(
    limits: Limits,
) -> (Arc<Connection>, UnixStream, crossbeam_channel::Receiver<Arc<Connection>>) {
    make_connection(WebSocketId::random(NodeId::new(1)), None, Arc::new(Nobody), Some(limits))
}

fn make_connection(
    id: WebSocketId,
    deflate: Option<Deflate>,
    registrar: Arc<dyn Registrar>,
    shared: Option<Limits>,
) -> (Arc<Connection>, UnixStream, crossbeam_channel::Receiver<Arc<Connection>>) {
    let (sender, mail) = crossbeam_channel::unbounded();
    let is_shared = shared.is_some();
    let context = context(shared.unwrap_or_default(), registrar, Arc::new(Post::new(sender, || {})));
    let (connection, client) = connect(Role::Server, id, deflate, is_shared, Arc::new(context));
    (connection, client, mail)
}

fn context(limits: Limits, registrar: Arc<dyn Registrar>, post: Arc<Post<Connection>>) -> Context {
    Context {
        tick: limits.tick(),
        limits: Arc::new(limits),
        clock: Arc::new(Clock::start()),
        post,
        registrar,
        buffered: Arc::new(Buffered::new(usize::MAX)),
        turns: Arc::new(Turns::new()),
        incidents: Arc::new(Incidents::new(|| {})),
    }
}

/// A connection over a socket pair, and its other end.
fn connect(
    role: Role,
    id: WebSocketId,
    deflate: Option<Deflate>,
    shared: bool,
    context: Arc<Context>,
) -> (Arc<Connection>, UnixStream) {
    let (socket, peer) = UnixStream::pair().unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let about = Box::new(About {
        id,
        session_id: None,
        path: "/".into(),
        peer: None,
        route: None,
        user_agent: None,
        extras: None,
        opened: context.clock.exact(),
        shared,
        overflow: Overflow::default(),
        deflate,
    });
    (Connection::new(role, about, Arc::new(Socket::from(socket)), Stream::plain(), context), peer)
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
        let _ = connection.push(Message::from("x"), None, None).unwrap();
        let mut frame = [0; 3];
        client.read_exact(&mut frame).unwrap_or_else(|e| panic!("round {round}: {e}"));
        assert_eq!(&frame, b"\x81\x01x");
    }
    stop.store(true, SeqCst);
    owner.join().unwrap();
}

/// The compressor is out for a message that was pushed before, and the outbox is empty, or others wait there: the close frame
/// comes behind them all the same, and nobody waits for it. Nothing comes behind the close frame.
#[test]
fn a_close_comes_behind_a_message_that_is_being_compressed() {
    let compression = Compression::Dedicated { window_bits: 15, level: 6 };
    let (deflate, _) = compression.negotiate(["permessage-deflate"]).unwrap();
    for queued in [0, 1, 3] {
        let (connection, mut client, _mail) = posting_connection(Some(deflate));
        let mut core = connection.lock();
        core.send(Message::from(vec![7; 100_000]).into());
        let mut compressing = core.deferred.compressing.take().unwrap();
        drop(core);
        for _ in 0..queued {
            assert_eq!(connection.push(Message::from("x"), None, None).unwrap(), Pushed::Queued);
        }
        connection.close(CloseCode::GOING_AWAY, "");
        assert_eq!(connection.reason().unwrap().code(), 1001);
        assert!(connection.push(Message::from("late"), None, None).is_err());
        compressing.run();
        connection.finish_deferred(&mut connection.lock(), compressing);
        let mut header = [0; 2];
        client.read_exact(&mut header).unwrap();
        assert!(header[0] == 0xc2 && header[1] < 126, "{header:?}");
        client.read_exact(&mut vec![0; header[1].into()]).unwrap();
        let mut rest = vec![0; 3 * queued + 4];
        client.read_exact(&mut rest).unwrap();
        assert_eq!(rest, [b"\x81\x01x".repeat(queued), vec![0x88, 2, 3, 0xe9]].concat());
    }
}

/// What comes later finds room where something was thrown away because the client is too slow; but it must not be sent, or the
/// client would not know that something is missing before it.
#[test]
fn nothing_is_sent_behind_what_was_thrown_away() {
    let (connection, mut client) = connection();
    let core = connection.lock();
    assert_eq!(connection.push(Message::from("1"), None, None).unwrap(), Pushed::Queued);
    let ends = thread::spawn({
        let connection = connection.clone();
        move || connection.disconnect(CloseCode::TRY_AGAIN, "too slow")
    });
    thread::sleep(Duration::from_millis(50)); // it waits for the lock by now; if it does not, this test sees less
    assert_eq!(connection.push(Message::from("2"), None, None).unwrap(), Pushed::Queued);
    drop(core);
    ends.join().unwrap();
    connection.finish();
    let mut received = Vec::new();
    client.read_to_end(&mut received).unwrap();
    let text = String::from_utf8_lossy(&received);
    assert!(text.contains('1') || !text.contains('2'), "{text:?}");
    assert!(text.ends_with("too slow"), "{text:?}");
}

/// Whatever was in it, and however it ends: the sum of what is held is that of nothing again.
#[test]
fn what_a_connection_has_held_is_free_at_its_end() {
    for end in 0..4 {
        let (connection, mut client) = connection();
        let buffered = connection.context.buffered.clone();
        let large = Message::from(vec![7; 1 << 20]);
        let shared = large.clone().shared(&buffered);
        let forms = Forms::new(&buffered);
        for (message, forms) in
            [(&large, None), (&shared, Some(&forms)), (&large, None), (&shared, Some(&forms))]
        {
            assert_eq!(connection.push(message.clone(), forms, None).unwrap(), Pushed::Queued);
        }
        let mut received = [&[0x02, 0xff, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &[7; 40_000]].concat();
        connection.take_in(&mut received, &mut Work::piece());
        assert!(buffered.sum() > 2500, "{}", buffered.sum());
        match end {
            0 => {}
            1 => connection.abort(ClosedBy::Server, ""),
            2 => connection.finish(),
            _ => {
                connection.close(CloseCode::NORMAL, "");
                client.set_nonblocking(true).unwrap();
                while client.read(&mut [0; 4096]).is_ok() {}
            }
        }
        drop((connection, large, shared, forms));
        assert_eq!(buffered.sum(), 0, "{end}");
    }
}

/// The gateway flushes what a busy thread has collected, and the socket does not take it: the gateway has to watch it.
#[test]
fn collected_output_that_the_socket_does_not_take_is_told() {
    let (connection, _client, mail) = posting_connection(None);
    let socket = connection.socket().unwrap();
    while socket.try_send(&[0; 4096]).is_ok() {}
    while socket.try_send(&[0; 1]).is_ok() {}
    connection.has_unread.store(true, SeqCst); // so that the answer is collected
    connection.write(Message::from("x"), false).unwrap();
    assert!(connection.lock().collected);
    mail.try_iter().for_each(|connection| connection.take_from_queue());
    assert!(connection.flush_rest(), "the socket took it");
    assert_eq!(mail.len(), 1);
}

#[test]
fn a_connection_is_small() {
    // What 18,000 parked ones cost; the rest of it is on the heap, and given back.
    assert!(size_of::<Connection>() <= 728, "{}", size_of::<Connection>());
}

/// Those that come later, and fill the queue again and again, do not overtake it.
#[test]
fn a_push_that_waits_has_its_place_among_the_others() {
    let (connection, mut client) = connection();
    let large = vec![0; 1 << 20];
    assert_eq!(connection.push(large.clone().into(), None, None).unwrap(), Pushed::Queued);
    let push = |text: &str| assert_eq!(connection.push(text.into(), None, None).unwrap(), Pushed::Queued);
    push("1");
    let waiters = [("2", "3"), ("4", "5")].map(|(waits, later)| {
        let waiting = connection.clone();
        let number = connection.lock().callers;
        let waiter = thread::spawn(move || waiting.push_wait(waits.into(), Duration::from_secs(20)));
        while connection.lock().callers == number {
            thread::yield_now();
        }
        push(later);
        waiter
    });
    let mut received = vec![0; 10 + large.len()];
    let mut rest = [0; 15];
    let driver = thread::spawn({
        let connection = connection.clone();
        move || {
            while connection.flush_rest() {
                thread::yield_now(); // in place of the gateway
            }
        }
    });
    client.read_exact(&mut received).unwrap();
    client.read_exact(&mut rest).unwrap();
    let texts: Vec<_> = rest.chunks(3).map(|frame| char::from(frame[2])).collect();
    assert_eq!(texts, ['1', '2', '3', '4', '5']);
    waiters.into_iter().for_each(|waiter| waiter.join().unwrap().unwrap());
    driver.join().unwrap();
    assert!(connection.lock().waiting.is_none(), "nothing is left of them");
}

/// Those who want to know learn which messages the kernel has, also if the connection breaks in the middle of the next one: a message
/// that the peer has must not count as one that was never sent.
#[test]
fn it_is_known_which_messages_went_out_before_a_break() {
    let (connection, mut client) = connection();
    let (sent, told) = crossbeam_channel::unbounded();
    let push = |message: Message| connection.push_told(message, sent.clone()).unwrap();
    let large = vec![0; 4 << 20]; // more than the kernel takes
    push(large.clone().into());
    push("1".into());
    push("2".into());
    push(large.clone().into());
    let last = push("3".into());
    assert_eq!(told.try_iter().count(), 0);
    // The first ones go out, and a part of what follows: in between the output is never empty.
    let driver = thread::spawn({
        let connection = connection.clone();
        move || {
            while connection.reason().is_none() {
                connection.flush_rest();
                thread::yield_now(); // in place of the gateway
            }
        }
    });
    let mut received = vec![0; 10 + large.len() + 6];
    client.read_exact(&mut received).unwrap();
    assert_eq!(received[received.len() - 6..], *b"\x81\x011\x81\x012");
    assert!(connection.take_back(last), "nothing of it was sent");
    connection.abort(ClosedBy::Network, "");
    driver.join().unwrap();
    assert_eq!(told.try_iter().count(), 3);
}

/// A client that pings often is never silent: what is due is done all the same, such as freeing a compressor that is not used.
#[test]
fn what_is_due_is_done_although_the_peer_pings() {
    let compression = Compression::Dedicated { window_bits: 15, level: 6 };
    let (deflate, _) = compression.negotiate(["permessage-deflate"]).unwrap();
    let (connection, mut client, _mail) = posting_connection(Some(deflate));
    let overdue = {
        let connection = connection.clone();
        move || {
            let now = connection.context.clock.exact();
            connection.lock().protocol.deadline().map(|due| now.since(due))
        }
    };
    client.write_all(b"\x81\x81\0\0\0\0x").unwrap();
    let reader = thread::spawn(move || {
        let answering = AtomicBool::new(false);
        connection.read(100, Duration::from_secs(10), &answering).unwrap();
        connection.write(Message::from("x".repeat(1000)), false).unwrap();
        connection.read(100, Duration::from_secs(60), &answering).unwrap();
    });
    let mut most = Duration::ZERO;
    for _ in 0..28 {
        client.write_all(b"\x89\x80\0\0\0\0").unwrap();
        thread::sleep(Duration::from_millis(500));
        most = most.max(overdue().unwrap());
    }
    assert!(most < Duration::from_millis(3500), "{most:?}"); // or four seconds, if it was not done
    client.write_all(b"\x81\x81\0\0\0\0x").unwrap();
    reader.join().unwrap();
}

/// The gateway comes just when somebody looks into the inbox of a client that nobody reads from: it comes again.
#[test]
fn the_gateway_ends_a_client_also_if_its_inbox_was_looked_into() {
    let limits = Limits { close_timeout: Duration::from_secs(3600), ..Limits::default() };
    let gateway = LoneGateway::start(|post| context(limits, Arc::new(Nobody), post)).unwrap();
    let id = WebSocketId::random(NodeId::new(1));
    let (client, mut server) = connect(Role::Client, id, None, false, gateway.context().clone());
    let inbox = client.inbox.locked();
    client.close(CloseCode::NORMAL, "");
    let begun = Instant::now();
    while !client.is_known.load(SeqCst) {
        assert!(begun.elapsed() < Duration::from_secs(10), "the gateway does not come");
        thread::sleep(Duration::from_millis(1));
    }
    thread::sleep(Duration::from_millis(20)); // it has just begun to look
    drop(inbox);
    server.read_exact(&mut [0; 8]).unwrap(); // the close frame
    server.write_all(b"\x88\x02\x03\xe8").unwrap();
    drop(server);
    while !client.is_finished() {
        assert!(begun.elapsed() < Duration::from_secs(10), "the gateway does not come again");
        thread::sleep(Duration::from_millis(1));
    }
}

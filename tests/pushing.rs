//! MODEL, section 9: pushes that wait, and what each answer promises.
#![cfg(feature = "__tls")]
mod common;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use common::{
    Client, PATIENCE, SCHEMES, Scheme, SharedEcho, TestServer, echo, eventually, full_app, handshake,
    next_message, read_close, serve,
};
use switchboard::{
    Audience, Compression, Error, Handled, Hub, Limits, Message, Opening, Overflow, PushError, PushErrorKind,
    Pushed, Refusal, ServerResult, WebSocket, WebSocketId, WebSocketServer,
};
use tungstenite::Message as Sent;

/// More than a socket of this machine takes: a client that does not read gets only a part of it.
const HUGE: usize = 15 << 20;

/// Long enough to send whatever the socket takes.
const MOMENT: Duration = Duration::from_millis(200);

/// Tells its ID, and reads; or is shared, and does nothing.
#[derive(Clone)]
struct Quiet {
    shared: bool,
    overflow: Overflow,
    ids: Arc<Mutex<mpsc::Sender<WebSocketId>>>,
    told: Arc<Mutex<mpsc::Sender<Result<(), PushError>>>>,
}

impl WebSocketServer for Quiet {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        opening.set_shared_connection(self.shared);
        opening.set_overflow(self.overflow);
        Ok(())
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        self.ids.lock().unwrap().send(*ws.websocket_id())?;
        if !self.shared {
            ws.messages().for_each(drop);
        }
        Ok(())
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        let result = ws.hub().push_wait(ws.websocket_id(), message, PATIENCE);
        self.told.lock().unwrap().send(result).unwrap();
        Handled::Yes
    }
}

struct Fixture {
    server: TestServer,
    ids: mpsc::Receiver<WebSocketId>,
    told: mpsc::Receiver<Result<(), PushError>>,
}

fn fixture(
    shared: bool,
    overflow: Overflow,
    compression: Compression,
    limits: impl FnOnce(&mut Limits),
) -> Fixture {
    let ((ids_tx, ids), (told_tx, told)) = (mpsc::channel(), mpsc::channel());
    let (ids_tx, told_tx) = (Arc::new(Mutex::new(ids_tx)), Arc::new(Mutex::new(told_tx)));
    let app = Quiet { shared, overflow, ids: ids_tx, told: told_tx };
    let mut all = Limits::default();
    limits(&mut all);
    let server =
        serve(move |builder| builder.limits(all).compression(compression).route("/", move || app.clone()));
    Fixture { server, ids, told }
}

impl Fixture {
    fn connect(&self, scheme: Scheme) -> (Client, WebSocketId) {
        let client = self.server.connect(scheme, "/");
        (client, self.ids.recv_timeout(PATIENCE).unwrap())
    }
}

/// Each kind of connection: with a thread of its own, and shared.
const KINDS: [bool; 2] = [false, true];

fn quiet(shared: bool) -> Fixture {
    fixture(shared, Overflow::default(), Compression::Off, |_| {})
}

/// With a new client of each kind, with and without TLS.
fn on_each_kind(test: impl Fn(&Hub, Client, WebSocketId)) {
    for shared in KINDS {
        let fixture = quiet(shared);
        for scheme in SCHEMES {
            let (client, id) = fixture.connect(scheme);
            test(&fixture.server.hub, client, id);
        }
    }
}

/// Has the socket of a client that does not read filled, by a message that is partly out.
fn fill(hub: &Hub, id: &WebSocketId) {
    let error = hub.push_wait(id, vec![0; HUGE], MOMENT).unwrap_err();
    assert!(matches!(error.kind, PushErrorKind::Pending), "{error}");
    assert_eq!(error.message.len(), HUGE);
}

#[test]
fn a_push_that_is_answered_was_taken_by_the_kernel() {
    on_each_kind(|hub, mut client, id| {
        let pusher = hub.pusher(&id).unwrap();
        for n in 0..100u8 {
            hub.push_wait(&id, vec![n; 1000], Duration::ZERO).unwrap();
            assert_eq!(hub.connection(&id).unwrap().queued, 0);
            pusher.push_wait("text", PATIENCE).unwrap();
            assert_eq!(next_message(&mut client), Sent::binary(vec![n; 1000]));
            assert_eq!(next_message(&mut client), Sent::text("text"));
        }
        let waits = thread::spawn(move || pusher.push_wait(vec![7; HUGE], PATIENCE));
        assert_eq!(next_message(&mut client).len(), HUGE);
        waits.join().unwrap().unwrap();
    });
}

#[test]
fn one_that_times_out_says_whether_it_may_still_arrive_and_ends_nothing() {
    on_each_kind(|hub, mut client, id| {
        fill(hub, &id);
        for timeout in [Duration::ZERO, MOMENT] {
            let error = hub.push_wait(&id, "never sent", timeout).unwrap_err();
            assert!(matches!(error.kind, PushErrorKind::Timeout) && error.message == "never sent");
        }
        assert_eq!(hub.push(&id, "pushed").unwrap(), Pushed::Queued);
        let waits = thread::spawn({
            let (hub, id) = (hub.clone(), id);
            move || hub.push_wait(&id, "waited", PATIENCE)
        });
        assert_eq!(next_message(&mut client).len(), HUGE, "what was pending");
        assert_eq!(next_message(&mut client), Sent::text("pushed"));
        waits.join().unwrap().unwrap();
        assert_eq!(next_message(&mut client), Sent::text("waited"));
        hub.push_wait(&id, "as before", PATIENCE).unwrap();
        assert_eq!(next_message(&mut client), Sent::text("as before"));
    });
}

#[test]
fn callers_that_give_up_leave_nothing_behind() {
    on_each_kind(|hub, mut client, id| {
        fill(hub, &id);
        let queued = hub.connection(&id).unwrap().queued;
        let message = Message::from(vec![1; 100_000]);
        for _ in 0..2_000 {
            let error = hub.push_wait(&id, &message, Duration::ZERO).unwrap_err();
            assert!(matches!(error.kind, PushErrorKind::Timeout));
        }
        assert!(hub.connection(&id).unwrap().queued <= queued);
        assert_eq!(next_message(&mut client).len(), HUGE);
        hub.push_wait(&id, "the next", PATIENCE).unwrap();
        assert_eq!(next_message(&mut client), Sent::text("the next"));
    });
}

#[test]
fn the_end_of_the_connection_ends_the_wait() {
    for shared in KINDS {
        let fixture = quiet(shared);
        let hub = &fixture.server.hub;
        for scheme in SCHEMES {
            for end in ["close", "reset", "overflow"] {
                let (client, id) = fixture.connect(scheme);
                let mut client = Some(client);
                fill(hub, &id);
                let threads: Vec<_> = (0..3)
                    .map(|_| {
                        let (hub, id) = (hub.clone(), id);
                        thread::spawn(move || hub.push_wait(&id, "waits", Duration::MAX))
                    })
                    .collect();
                let code = match end {
                    "close" => {
                        hub.close(&id, 4001, "enough").unwrap();
                        4001
                    }
                    "reset" => {
                        client.take().unwrap().into_inner().reset();
                        1006
                    }
                    _ => {
                        while hub.push(&id, vec![0; 100_000]).is_ok() {}
                        1013
                    }
                };
                for thread in threads {
                    let error = thread.join().unwrap().unwrap_err();
                    assert_eq!(error.message, "waits");
                    match error.kind {
                        PushErrorKind::Closed(reason) => assert_eq!(reason.code(), code, "{end}"),
                        PushErrorKind::Unknown => {} // it came when all was over
                        other => panic!("{end}: {other:?}"),
                    }
                }
                drop(client);
                eventually("it is over", || hub.connection(&id).is_err());
                let error = hub.push_wait(&id, "late", PATIENCE).unwrap_err();
                assert!(matches!(error.kind, PushErrorKind::Unknown));
            }
        }
    }
}

#[test]
fn the_gateway_never_waits_for_itself_and_a_worker_may() {
    for workers in [0, 1] {
        let fixture = fixture(true, Overflow::default(), Compression::Off, |limits| limits.workers = workers);
        for scheme in SCHEMES {
            let (mut client, _) = fixture.connect(scheme);
            client.send(Sent::text("to itself")).unwrap();
            let result = fixture.told.recv_timeout(PATIENCE).unwrap();
            if workers == 0 {
                let error = result.unwrap_err();
                assert!(matches!(error.kind, PushErrorKind::MustNotWait) && error.message == "to itself");
            } else {
                result.unwrap();
                assert_eq!(next_message(&mut client), Sent::text("to itself"));
            }
        }
    }
}

#[test]
fn a_caller_that_waits_is_not_overtaken_for_ever() {
    for shared in KINDS {
        let small = |limits: &mut Limits| limits.max_queue_messages = 50;
        let fixture = fixture(shared, Overflow::DropNewest, Compression::Off, small);
        let hub = &fixture.server.hub;
        for scheme in SCHEMES {
            let (mut client, id) = fixture.connect(scheme);
            let (stop, stopped) = mpsc::channel::<()>();
            // The queue is always full.
            let flood = thread::spawn({
                let (hub, id) = (hub.clone(), id);
                move || {
                    let message = Message::from(vec![0; 20_000]);
                    while let Err(mpsc::TryRecvError::Empty) = stopped.try_recv() {
                        let _ = hub.push(&id, &message);
                    }
                }
            });
            let waits = thread::spawn({
                let (hub, id) = (hub.clone(), id);
                move || (0..20).try_for_each(|n| hub.push_wait(&id, format!("{n}"), PATIENCE))
            });
            for n in 0..20 {
                let waited = loop {
                    match next_message(&mut client) {
                        Sent::Binary(_) => thread::sleep(Duration::from_micros(100)), // slower than the flood
                        other => break other,
                    }
                };
                assert_eq!(waited, Sent::text(n.to_string()));
            }
            waits.join().unwrap().unwrap();
            drop(stop);
            flood.join().unwrap();
        }
    }
}

/// What a producer was told of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Taken,
    Pending,
    Refused,
}

const EACH: usize = 300;

fn text(who: usize, n: usize) -> String {
    let length = if n.is_multiple_of(50) { 300_000 } else { (who * 31 + n * 17) % 20_000 };
    format!("{who} {n} {}", "x".repeat(length))
}

fn told(result: Result<(), PushError>) -> Told {
    match result.map_err(|e| e.kind) {
        Ok(()) => Told::Taken,
        Err(PushErrorKind::Pending) => Told::Pending,
        Err(PushErrorKind::Full | PushErrorKind::Timeout) => Told::Refused,
        Err(other) => panic!("{other:?}"),
    }
}

/// What a producer does with a message.
enum How {
    Push,
    PushWait,
    Write,
}

/// Two threads push, two wait as they push, for a different time each, one writes, and three do this and that; the client
/// reads by fits and starts.
fn produce(fixture: &Fixture, scheme: Scheme) {
    let hub = &fixture.server.hub;
    let (mut client, id) = fixture.connect(scheme);
    let producers: Vec<_> = (0..8)
        .map(|who| {
            let (hub, id) = (hub.clone(), id);
            thread::spawn(move || {
                let ws = hub.open_server(&id).unwrap();
                let how = |n: usize| match who {
                    0..2 => How::Push,
                    2..4 => How::PushWait,
                    4 => How::Write,
                    _ => [How::Push, How::PushWait, How::Write].into_iter().nth((who + n) % 3).unwrap(),
                };
                let push = |n: usize| match how(n) {
                    How::Push => told(hub.push(&id, text(who, n)).map(drop)),
                    How::PushWait => {
                        let timeout = Duration::from_micros((n * 7919 % 40) as u64 * 250);
                        told(hub.push_wait(&id, text(who, n), timeout))
                    }
                    How::Write => ws.write(text(who, n)).map(|()| Told::Taken).unwrap(),
                };
                (0..EACH).map(push).collect::<Vec<_>>()
            })
        })
        .collect();
    let reader = thread::spawn(move || {
        let mut next = HashMap::new();
        let mut got = vec![vec![false; EACH]; 8];
        for count in 0.. {
            let message = next_message(&mut client).into_text().unwrap();
            if message.as_str() == "end" {
                break;
            }
            let mut parts = message.splitn(3, ' ').map(|part| part.parse::<usize>());
            let (who, n) = (parts.next().unwrap().unwrap(), parts.next().unwrap().unwrap());
            assert!(message.as_str() == text(who, n), "{who} {n} is not whole");
            let expected = next.insert(who, n + 1).unwrap_or(0);
            assert!(n >= expected, "of {who}: {n} comes after {expected}, or twice");
            got[who][n] = true;
            if count % 100 == 0 {
                thread::sleep(Duration::from_millis(20)); // now the socket is full
            }
        }
        got
    });
    let told: Vec<_> = producers.into_iter().map(|producer| producer.join().unwrap()).collect();
    hub.push_wait(&id, "end", PATIENCE).unwrap();
    let got = reader.join().unwrap();
    for (who, n) in (0..8).flat_map(|who| (0..EACH).map(move |n| (who, n))) {
        match told[who][n] {
            Told::Taken | Told::Pending => assert!(got[who][n], "{who} {n} is lost: {:?}", told[who][n]),
            Told::Refused => assert!(!got[who][n], "{who} {n} was refused, and sent"),
        }
    }
}

#[test]
fn in_any_mixture_each_is_sent_once_in_order_and_as_was_answered() {
    let small = |limits: &mut Limits| limits.max_queue_messages = 30;
    let dedicated = Compression::Dedicated { window_bits: 15, level: 1 };
    for compression in [Compression::Off, Compression::Pooled, dedicated] {
        let fixture = fixture(true, Overflow::DropNewest, compression, small);
        for scheme in SCHEMES {
            produce(&fixture, scheme);
        }
    }
}

#[test]
fn a_close_comes_behind_what_is_being_sent() {
    on_each_kind(|hub, mut client, id| {
        let begun = Instant::now();
        let waits = thread::spawn({
            let (hub, id) = (hub.clone(), id);
            move || hub.push_wait(&id, vec![7; HUGE], PATIENCE)
        });
        eventually("a part is out", || hub.connection(&id).unwrap().bytes_out > 10_000);
        hub.close(&id, 4001, "").unwrap();
        assert_eq!(next_message(&mut client).len(), HUGE, "after {:?}", begun.elapsed());
        assert_eq!(read_close(&mut client).0, 4001);
        waits.join().unwrap().expect("the kernel has it, and the client got it");
    });
}

/// `?` makes an `Error` of it, or a refusal.
#[test]
fn a_push_that_failed_is_an_error_like_others() {
    fn push(hub: &Hub, id: &WebSocketId) -> switchboard::Result<Pushed> {
        Ok(hub.push(id, "hello")?)
    }
    let gone: Arc<Mutex<Option<WebSocketId>>> = Arc::default();
    let greeted = gone.clone();
    let server = serve(move |builder| {
        builder.route("/", || SharedEcho).route("/greets", move || {
            let gone = greeted.clone();
            full_app(
                move |opening| {
                    let _ = opening.hub().push(opening.websocket_id(), "first")?;
                    if let Some(id) = *gone.lock().unwrap() {
                        let _ = opening.hub().push(&id, "nobody gets this")?;
                    }
                    Ok(())
                },
                echo,
                |_| {},
            )
        })
    });
    assert_eq!(server.raw_websocket(Scheme::Ws, "/greets").read_frame(), (0x81, b"first".to_vec()));
    eventually("the end", || server.hub.is_empty().unwrap());

    let mut client = server.raw_websocket(Scheme::Ws, "/");
    let id = server.hub.all_connections(Audience::All).next().unwrap().unwrap().id;
    // Its answer to the handshake may still be with the gateway, which then sends this, too.
    assert!(matches!(push(&server.hub, &id).unwrap(), Pushed::Sent | Pushed::Queued));
    assert_eq!(client.read_frame(), (0x81, b"hello".to_vec()));
    server.hub.close(&id, 4000, "enough").unwrap();
    let error = push(&server.hub, &id).unwrap_err();
    assert!(matches!(&error, Error::Closed(reason) if reason.code() == 4000), "{error}");
    client.answer_close_and_end();
    eventually("the end", || server.hub.is_empty().unwrap());
    assert!(matches!(push(&server.hub, &id), Err(Error::UnknownId)));
    *gone.lock().unwrap() = Some(id);
    assert_eq!(server.ask(Scheme::Ws, handshake("/greets")).status, 500);
}

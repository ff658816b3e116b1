//! Shared connections.
#![cfg(feature = "__tls")]
mod common;

use std::{
    io::{ErrorKind, Write},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use common::{
    PATIENCE, SCHEMES, Scheme, Stream, TestServer, ends::close_frame, eventually, frame, next_message,
    read_close, serve,
};
use rustix::net::sockopt::set_socket_recv_buffer_size;
use switchboard::{
    Closed, Error, Handled, Hub, Limits, Message, Opening, Refusal, ServerResult, WebSocket, WebSocketId,
    WebSocketServer,
};
use tungstenite::Message as Sent;

/// What happened to a connection, for the test.
#[derive(Debug)]
enum Event {
    Opened(WebSocketId),
    Closed(WebSocketId, u16),
}

/// A shared application: when `server` has returned, `on_message` is called for each message.
struct Shared<S, F> {
    events: mpsc::Sender<Event>,
    server: S,
    on_message: F,
}

impl<S, F> WebSocketServer for Shared<S, F>
where
    S: FnMut(&mut WebSocket) -> ServerResult + Send + 'static,
    F: FnMut(&WebSocket, Message) -> Handled + Send + 'static,
{
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        opening.set_shared_connection(true);
        self.events.send(Event::Opened(*opening.websocket_id())).unwrap();
        Ok(())
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        (self.server)(ws)
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        (self.on_message)(ws, message)
    }

    fn on_post_server(&mut self, closed: &Closed) {
        // Fails if the test has ended already.
        let _ = self.events.send(Event::Closed(*closed.websocket_id(), closed.reason().code().0));
    }
}

struct Fixture {
    server: TestServer,
    hub: Hub,
    events: mpsc::Receiver<Event>,
}

/// Shared connections whose `server` returns at once.
fn shared<F>(limits: impl FnOnce(&mut Limits), on_message: F) -> Fixture
where
    F: FnMut(&WebSocket, Message) -> Handled + Clone + Send + Sync + 'static,
{
    shared_after(limits, |_| Ok(()), on_message)
}

fn shared_after<S, F>(limits: impl FnOnce(&mut Limits), application: S, on_message: F) -> Fixture
where
    S: FnMut(&mut WebSocket) -> ServerResult + Clone + Send + Sync + 'static,
    F: FnMut(&WebSocket, Message) -> Handled + Clone + Send + Sync + 'static,
{
    let (tx, events) = mpsc::channel();
    let hub = Arc::new(Mutex::new(None));
    let keep = hub.clone();
    let mut all = Limits::default();
    limits(&mut all);
    let server = serve(move |builder| {
        let tx = Mutex::new(tx);
        builder.limits(all).route("/", move || Shared {
            events: tx.lock().unwrap().clone(),
            server: application.clone(),
            on_message: on_message.clone(),
        })
    });
    *keep.lock().unwrap() = Some(server.hub.clone());
    let hub = hub.lock().unwrap().take().unwrap();
    Fixture { server, hub, events }
}

impl Fixture {
    fn opened(&self) -> WebSocketId {
        match self.events.recv_timeout(PATIENCE).unwrap() {
            Event::Opened(id) => id,
            other => panic!("{other:?}"),
        }
    }

    fn closed(&self) -> (WebSocketId, u16) {
        match self.events.recv_timeout(PATIENCE).unwrap() {
            Event::Closed(id, code) => (id, code),
            other => panic!("{other:?}"),
        }
    }
}

fn leave(_: &WebSocket, _: Message) -> Handled {
    Handled::No
}

fn echo(ws: &WebSocket, message: Message) -> Handled {
    ws.write(message).unwrap();
    Handled::Yes
}

#[test]
fn another_thread_opens_writes_reads_and_ends_it() {
    let fixture = shared(|_| {}, leave);
    for scheme in SCHEMES {
        let mut client = fixture.server.connect(scheme, "/");
        let (id, hub) = (fixture.opened(), fixture.hub.clone());
        let other = thread::spawn(move || {
            let ws = hub.open_server(&id).unwrap();
            ws.write("hello").unwrap();
            let piece = ws.read(3, PATIENCE).unwrap();
            assert!(piece == "ans" && !ws.at_end());
            assert_eq!(ws.read_message(PATIENCE).unwrap(), "wer");
            assert!(ws.session().is_none() && ws.session_id().is_some());
            ws.end_server();
            assert!(ws.read_message(PATIENCE).unwrap_err().is_closed());
            assert!(ws.write("x").unwrap_err().is_closed());
            id
        });
        assert_eq!(next_message(&mut client), Sent::text("hello"));
        client.send(Sent::text("answer")).unwrap();
        assert_eq!(read_close(&mut client).0, 1000);
        let id = other.join().unwrap();
        drop(client);
        assert_eq!(fixture.closed(), (id, 1000));
        assert!(matches!(fixture.hub.open_server(&id), Err(Error::UnknownId)));
    }
}

#[test]
fn open_server_has_an_error_for_each_case() {
    let fixture = shared(|_| {}, leave);
    assert!(matches!(
        fixture.hub.open_server(&"AAAAAAAAAAAAAAAAAAAAAA".parse().unwrap()),
        Err(Error::UnknownId)
    ));
    let mut client = fixture.server.connect(SCHEMES[0], "/");
    let id = fixture.opened();
    fixture.hub.close(&id, 4000, "enough").unwrap();
    match fixture.hub.open_server(&id) {
        Err(Error::Closed(reason)) => assert_eq!(reason.code(), 4000),
        other => panic!("{other:?}"),
    }
    assert_eq!(read_close(&mut client), (4000, "enough".into()));

    let (tx, rx) = mpsc::channel();
    let synchronous = common::serve_app(move |ws| {
        tx.send(*ws.websocket_id())?;
        ws.messages().next();
        Ok(())
    });
    let _client = synchronous.connect(SCHEMES[0], "/");
    let id = rx.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(synchronous.hub.open_server(&id), Err(Error::NotShared)));
}

#[test]
fn on_client_message_echoes_in_order() {
    for workers in [0, 3] {
        let fixture = shared(|limits| limits.workers = workers, echo);
        for scheme in SCHEMES {
            let mut client = fixture.server.connect(scheme, "/");
            fixture.opened();
            for n in 0..2000 {
                client.write(Sent::text(n.to_string())).unwrap();
            }
            client.flush().unwrap();
            for n in 0..2000 {
                assert_eq!(next_message(&mut client), Sent::text(n.to_string()));
            }
            client.send(Sent::binary(vec![7; 900_000])).unwrap();
            assert_eq!(next_message(&mut client), Sent::binary(vec![7; 900_000]));
            client.close(None).unwrap();
            assert_eq!(read_close(&mut client).0, 1005);
            drop(client);
            fixture.closed();
        }
    }
}

#[test]
fn a_panic_in_on_client_message_ends_that_connection_only() {
    for workers in [0, 2] {
        let fixture = shared(
            |limits| limits.workers = workers,
            |ws, message| {
                assert!(message != "panic", "on purpose");
                echo(ws, message)
            },
        );
        let mut bystander = fixture.server.connect(SCHEMES[0], "/");
        fixture.opened();
        let mut client = fixture.server.connect(SCHEMES[1], "/");
        let id = fixture.opened();
        client.send(Sent::text("panic")).unwrap();
        assert_eq!(read_close(&mut client).0, 1011);
        drop(client);
        assert_eq!(fixture.closed(), (id, 1011));
        bystander.send(Sent::text("still here")).unwrap();
        assert_eq!(next_message(&mut bystander), Sent::text("still here"));
    }
}

#[test]
fn several_readers_get_different_messages() {
    let fixture = shared(|_| {}, leave);
    let mut client = fixture.server.connect(SCHEMES[0], "/");
    let id = fixture.opened();
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let ws = fixture.hub.open_server(&id).unwrap();
            thread::spawn(move || {
                let mut got = Vec::new();
                while let Ok(message) = ws.read_message(PATIENCE) {
                    got.push(message.as_text().unwrap().parse::<u32>().unwrap());
                }
                got
            })
        })
        .collect();
    for n in 0..3000 {
        client.write(Sent::text(n.to_string())).unwrap();
    }
    client.close(None).unwrap();
    let mut all: Vec<u32> = readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..3000));
}

/// Also where the reader panics.
#[test]
fn what_a_reader_does_not_acknowledge_is_for_the_next_one() {
    for workers in [0, 2] {
        let fixture = shared(|limits| limits.workers = workers, leave);
        for scheme in SCHEMES {
            let mut client = fixture.server.connect(scheme, "/");
            let id = fixture.opened();
            for text in ["one", "two", "three"] {
                client.send(Sent::text(text)).unwrap();
            }
            let first = fixture.hub.open_server(&id).unwrap();
            let reader = thread::spawn(move || {
                first.read_delivery(usize::MAX, PATIENCE).unwrap().ack();
                let _two = first.read_delivery(2, PATIENCE).unwrap();
                let _three = first.read_delivery(usize::MAX, PATIENCE).unwrap();
                assert!(first.at_end());
                std::panic::resume_unwind(Box::new("a reader that fails"));
            });
            assert!(reader.join().is_err());
            let ws = fixture.hub.open_server(&id).unwrap();
            let two = ws.read_delivery(0, PATIENCE).unwrap();
            assert!(two.redelivered() && two.at_end() && *two == "two", "{two:?}");
            assert_eq!(ws.read_message(PATIENCE).unwrap(), "three");
            assert_eq!(two.ack(), "two");
            client.send(Sent::text("four")).unwrap();
            let four = ws.read_delivery(2, PATIENCE).unwrap();
            assert!(!four.redelivered() && !four.at_end() && !ws.at_end() && *four == "fo");
            drop(four);
            assert_eq!(ws.read_message(PATIENCE).unwrap(), "four");
            drop((ws, client));
            fixture.closed();
        }
    }
}

#[test]
fn a_reader_that_waits_gets_what_another_gives_back() {
    let fixture = shared(|_| {}, leave);
    let mut client = fixture.server.connect(SCHEMES[0], "/");
    let id = fixture.opened();
    let [one, other] = [(); 2].map(|()| fixture.hub.open_server(&id).unwrap());
    client.send(Sent::text("x")).unwrap();
    let delivery = one.read_delivery(0, PATIENCE).unwrap();
    let waiting = thread::spawn(move || other.read_message(PATIENCE));
    drop(delivery);
    assert_eq!(waiting.join().unwrap().unwrap(), "x");
}

#[test]
fn messages_that_are_not_acknowledged_hold_the_client_back() {
    let fixture = shared(|limits| limits.max_inbox_messages = 2, leave);
    for scheme in SCHEMES {
        let mut client = fixture.server.connect(scheme, "/");
        let ws = fixture.hub.open_server(&fixture.opened()).unwrap();
        for text in ["one", "two", "three"] {
            client.send(Sent::text(text)).unwrap();
        }
        let [one, two] = [(); 2].map(|()| ws.read_delivery(0, PATIENCE).unwrap());
        assert!(ws.read_message(Duration::from_millis(50)).unwrap_err().is_timeout());
        one.ack();
        assert_eq!(ws.read_message(PATIENCE).unwrap(), "three");
        assert_eq!(two.ack(), "two");
        drop((ws, client));
        fixture.closed();
    }
}

/// What is not acknowledged can still be answered, like what is not read on from; and it comes back also after the end.
#[test]
fn the_end_of_the_client_waits_for_what_is_not_acknowledged() {
    for workers in [0, 2] {
        let limit = |limits: &mut Limits| (limits.workers, limits.close_timeout) = (workers, PATIENCE);
        let fixture = shared(limit, leave);
        for scheme in SCHEMES {
            let mut client = fixture.server.connect(scheme, "/");
            let ws = fixture.hub.open_server(&fixture.opened()).unwrap();
            client.send(Sent::text("one")).unwrap();
            client.send(Sent::text("two")).unwrap();
            let [one, two] = [(); 2].map(|()| ws.read_delivery(0, PATIENCE).unwrap());
            client.close(None).unwrap();
            assert!(ws.read_message(Duration::from_millis(50)).unwrap_err().is_timeout());
            ws.write(one.ack()).unwrap();
            drop(two);
            assert_eq!(next_message(&mut client), Sent::text("one"));
            let two = ws.read_delivery(0, PATIENCE).unwrap();
            ws.write(&*two).unwrap();
            two.ack();
            assert_eq!(next_message(&mut client), Sent::text("two"));
            assert!(ws.close_reason().is_none());
            assert!(ws.read_message(PATIENCE).unwrap_err().is_closed());
            assert_eq!(read_close(&mut client).0, 1005);
            drop(client);
            fixture.closed();
        }
    }
}

#[test]
fn what_comes_back_after_the_end_can_be_read() {
    let fixture = shared(|limits| limits.close_timeout = Duration::from_millis(100), leave);
    let mut client = fixture.server.connect(SCHEMES[0], "/");
    let ws = fixture.hub.open_server(&fixture.opened()).unwrap();
    client.send(Sent::text("last words")).unwrap();
    let delivery = ws.read_delivery(0, PATIENCE).unwrap();
    drop(client);
    fixture.closed();
    assert!(ws.read_message(PATIENCE).unwrap_err().is_closed());
    drop(delivery);
    assert_eq!(ws.read_delivery(0, PATIENCE).unwrap().ack(), "last words");
    assert!(ws.read_message(PATIENCE).unwrap_err().is_closed());
}

#[test]
fn a_connection_that_is_not_shared_has_no_deliveries() {
    let (result, got) = mpsc::channel();
    let server = common::serve_app(move |ws| {
        let delivery = ws.read_delivery(0, PATIENCE);
        result.send(matches!(delivery, Err(Error::NotShared))).unwrap();
        ws.write(ws.read_message(PATIENCE)?)?;
        Ok(())
    });
    let mut client = server.connect(SCHEMES[0], "/");
    common::assert_echoes(&mut client, "still usable");
    assert!(got.recv_timeout(PATIENCE).unwrap());
}

/// Readers of both kinds, some of which fail, and a handler that leaves them the messages: each is done with once.
#[test]
fn readers_that_fail_lose_nothing_and_double_nothing() {
    const MESSAGES: u32 = 3000;
    for (scheme, workers) in [(Scheme::Ws, 0), (Scheme::Wss, 2)] {
        let limit = |limits: &mut Limits| (limits.workers, limits.max_inbox_messages) = (workers, 16);
        let fixture = shared(limit, leave);
        let mut client = fixture.server.connect(scheme, "/");
        let id = fixture.opened();
        let readers: Vec<_> = (0..4_u32)
            .map(|reader| {
                let ws = fixture.hub.open_server(&id).unwrap();
                thread::spawn(move || {
                    let (mut done, mut held) = (Vec::new(), Vec::new());
                    let number = |message: &Message| message.as_text().unwrap().parse::<u32>().unwrap();
                    // Some are given back, also two together, and also after the end: whoever does that reads on.
                    for n in reader.. {
                        if reader == 0 {
                            let Ok(message) = ws.read_message(PATIENCE) else { break };
                            done.push(number(&message));
                            continue;
                        }
                        match (n % 8, ws.read_delivery(usize::MAX, Duration::from_millis(20))) {
                            (0 | 1, Ok(delivery)) => held.push(delivery),
                            (2, Ok(delivery)) => drop((delivery, std::mem::take(&mut held))),
                            (3, Ok(delivery)) => drop(delivery),
                            (_, Ok(delivery)) => done.push(number(&delivery.ack())),
                            (_, Err(e)) if e.is_closed() && held.is_empty() => break,
                            (_, Err(_)) => held.clear(),
                        }
                    }
                    done
                })
            })
            .collect();
        for n in 0..MESSAGES {
            client.write(Sent::text(n.to_string())).unwrap();
        }
        client.close(None).unwrap();
        let mut all: Vec<u32> = readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..MESSAGES));
    }
}

#[test]
fn a_read_that_waits_ends_when_another_thread_ends_the_connection() {
    let fixture = shared(|_| {}, leave);
    let _client = fixture.server.raw_websocket(SCHEMES[0], "/");
    let id = fixture.opened();
    let waiting = fixture.hub.open_server(&id).unwrap();
    let reader = thread::spawn(move || waiting.read_message(PATIENCE));
    fixture.hub.open_server(&id).unwrap().end_server();
    assert!(matches!(reader.join().unwrap(), Err(Error::Closed(reason)) if reason.code() == 1000));
}

#[test]
fn a_full_inbox_holds_the_client_back_and_loses_nothing() {
    let fixture = shared(|limits| limits.max_inbox_messages = 4, leave);
    for scheme in SCHEMES {
        let mut client = fixture.server.connect(scheme, "/");
        let id = fixture.opened();
        let sender = thread::spawn(move || {
            for n in 0..200u8 {
                client.send(Sent::binary(vec![n; 100_000])).unwrap();
            }
            client
        });
        let ws = fixture.hub.open_server(&id).unwrap();
        for n in 0..200 {
            let message = ws.read_message(PATIENCE).unwrap();
            assert!(message.len() == 100_000 && message.as_bytes()[0] == n);
        }
        drop(ws); // it answers no more
        drop(sender.join().unwrap());
        fixture.closed();
    }
}

#[test]
fn messages_before_the_end_can_still_be_read() {
    let fixture = shared(|limits| limits.close_timeout = Duration::from_millis(200), leave);
    let mut client = fixture.server.connect(SCHEMES[0], "/");
    let id = fixture.opened();
    let ws = fixture.hub.open_server(&id).unwrap();
    client.send(Sent::text("last words")).unwrap();
    client.close(None).unwrap();
    assert_eq!(read_close(&mut client).0, 1005);
    assert_eq!(ws.read_message(PATIENCE).unwrap(), "last words");
    assert!(ws.read_message(PATIENCE).unwrap_err().is_closed());
}

#[test]
fn an_idle_shared_connection_is_closed_and_pings_do_not_count() {
    let fixture = shared(
        |limits| {
            limits.shared_idle_timeout = Some(Duration::from_millis(400));
            limits.ping_interval = Some(Duration::from_millis(50));
        },
        echo,
    );
    let mut client = fixture.server.connect(SCHEMES[0], "/");
    assert_eq!(read_close(&mut client), (1001, "idle".into()));
}

#[test]
fn shutdown_ends_shared_connections_also_while_handles_are_held() {
    for workers in [0, 2] {
        let Fixture { server, hub, events } = shared(|limits| limits.workers = workers, leave);
        let mut client = server.connect(SCHEMES[1], "/");
        let Event::Opened(id) = events.recv_timeout(PATIENCE).unwrap() else { panic!() };
        let handle = hub.open_server(&id).unwrap();
        let stopper = thread::spawn(move || server.shutdown(PATIENCE));
        assert_eq!(read_close(&mut client).0, 1001);
        drop(client);
        stopper.join().unwrap();
        assert!(matches!(events.recv_timeout(PATIENCE).unwrap(), Event::Closed(_, 1001)));
        assert!(handle.read_message(PATIENCE).unwrap_err().is_closed());
        assert!(handle.write("x").unwrap_err().is_closed());
    }
}

/// Frames that break the protocol, and the close code for each.
fn broken_rules() -> [(Vec<u8>, u16); 5] {
    [
        (frame(0x83, b"a reserved opcode"), 1002),
        (frame(0xc1, b"a reserved bit"), 1002),
        (b"\x81\x07no mask".to_vec(), 1002),
        (close_frame(1005, "never to be sent"), 1002),
        (frame(0x81, b"not UTF-8: \xff"), 1007),
    ]
}

/// After this, messages go to the handler. The first message may arrive before `server` has returned.
fn assert_answers(client: &mut Stream) {
    client.write_all(&frame(0x81, b"quick")).unwrap();
    assert_eq!(client.read_frame(), (0x81, b"quick".to_vec()));
}

/// Returns when the gateway has received all that other clients sent before. Twice, because it may serve this one first.
fn wait_for_the_gateway(bystander: &mut Stream) {
    for _ in 0..2 {
        bystander.write_all(&frame(0x89, b"ping")).unwrap();
        assert_eq!(bystander.read_frame(), (0x8a, b"ping".to_vec()));
    }
}

/// Checks that the server has sent nothing.
fn assert_silent(client: &Stream) {
    client.tcp().set_nonblocking(true).unwrap();
    let peeked = client.tcp().peek(&mut [0; 1]).map_err(|e| e.kind());
    client.tcp().set_nonblocking(false).unwrap();
    assert_eq!(peeked, Err(ErrorKind::WouldBlock));
}

#[test]
fn all_messages_before_a_broken_rule_are_answered_before_the_close_frame() {
    for workers in [0, 1, 2] {
        let fixture = shared(|limits| limits.workers = workers, echo);
        for scheme in SCHEMES {
            for (broken, code) in broken_rules() {
                // A few, more than are decoded at a time, and more than the inbox takes.
                for count in [1, 2, 70, 600] {
                    let mut client = fixture.server.raw_websocket(scheme, "/");
                    let id = fixture.opened();
                    assert_answers(&mut client);
                    let mut bytes: Vec<u8> =
                        (0..count).flat_map(|n: u32| frame(0x82, &n.to_be_bytes())).collect();
                    bytes.extend(&broken);
                    client.write_all(&bytes).unwrap();
                    for n in 0..count {
                        assert_eq!(client.read_frame(), (0x82, n.to_be_bytes().to_vec()), "of {count}");
                    }
                    assert_eq!(client.read_close_and_end().0, code);
                    drop(client);
                    assert_eq!(fixture.closed(), (id, code));
                }
            }
        }
    }
}

#[test]
fn answers_to_a_slow_client_come_before_the_close_frame() {
    const COUNT: u8 = 200;
    for workers in [0, 1, 2] {
        let fixture = shared(|limits| limits.workers = workers, echo);
        let mut client = fixture.server.raw_websocket(Scheme::Ws, "/");
        let id = fixture.opened();
        assert_answers(&mut client);
        let mut sending = client.tcp().try_clone().unwrap();
        let sender = thread::spawn(move || {
            for n in 0..COUNT {
                sending.write_all(&frame(0x82, &[n; 100_000])).unwrap();
            }
            sending.write_all(&frame(0x83, b"a reserved opcode")).unwrap();
        });
        for n in 0..COUNT {
            assert!(client.read_frame() == (0x82, vec![n; 100_000]), "message {n}");
        }
        assert_eq!(client.read_close_and_end().0, 1002);
        sender.join().unwrap();
        drop(client);
        assert_eq!(fixture.closed(), (id, 1002));
    }
}

#[test]
fn the_close_frame_for_a_broken_rule_waits_for_a_slow_handler() {
    const TEXTS: [&str; 3] = ["a", "b", "c"];
    for workers in [0, 1, 2] {
        let (entered, entries) = mpsc::channel();
        let (go, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let fixture = shared(
            |limits| limits.workers = workers,
            move |ws, message| {
                if message != "quick" {
                    entered.send(()).unwrap();
                    gate.lock().unwrap().recv_timeout(PATIENCE).unwrap();
                }
                echo(ws, message)
            },
        );
        for scheme in SCHEMES {
            for in_one_segment in [true, false] {
                let mut bystander = fixture.server.raw_websocket(scheme, "/");
                let other = fixture.opened();
                let mut client = fixture.server.raw_websocket(scheme, "/");
                let id = fixture.opened();
                assert_answers(&mut client);
                let messages: Vec<u8> = TEXTS.iter().flat_map(|text| frame(0x81, text.as_bytes())).collect();
                let broken = frame(0x83, b"a reserved opcode");
                if in_one_segment {
                    client.write_all(&[messages, broken].concat()).unwrap();
                    entries.recv_timeout(PATIENCE).unwrap();
                } else {
                    client.write_all(&messages).unwrap();
                    entries.recv_timeout(PATIENCE).unwrap();
                    client.write_all(&broken).unwrap();
                }
                // Without workers the gateway itself waits in the handler.
                if workers > 0 {
                    wait_for_the_gateway(&mut bystander);
                }
                assert_silent(&client);
                for _ in TEXTS {
                    go.send(()).unwrap();
                }
                for text in TEXTS {
                    assert_eq!(client.read_frame(), (0x81, text.as_bytes().to_vec()));
                }
                assert_eq!(client.read_close_and_end().0, 1002);
                drop(client);
                assert_eq!(fixture.closed(), (id, 1002));
                assert_eq!(entries.try_iter().count(), TEXTS.len() - 1);
                drop(bystander);
                assert_eq!(fixture.closed(), (other, 1006));
            }
        }
    }
}

#[test]
fn the_close_frame_for_a_broken_rule_waits_until_server_has_returned() {
    /// As `SharedEcho`, but its `server` returns only when the test allows it.
    struct Slow(Arc<Mutex<mpsc::Receiver<()>>>);

    impl WebSocketServer for Slow {
        fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
            opening.set_shared_connection(true);
            Ok(())
        }

        fn server(&mut self, _ws: &mut WebSocket) -> ServerResult {
            self.0.lock().unwrap().recv_timeout(PATIENCE)?;
            Ok(())
        }

        fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
            echo(ws, message)
        }
    }

    for workers in [0, 1, 2] {
        let (go, gate) = mpsc::channel();
        let gate = Arc::new(Mutex::new(gate));
        let mut limits = Limits::default();
        limits.workers = workers;
        let server = serve(|builder| builder.limits(limits).route("/", move || Slow(gate.clone())));
        for scheme in SCHEMES {
            let mut bystander = server.raw_websocket(scheme, "/");
            let mut client = server.raw_websocket(scheme, "/");
            let bytes = [frame(0x81, b"a"), frame(0x81, b"b"), frame(0x83, b"a reserved opcode")];
            client.write_all(&bytes.concat()).unwrap();
            wait_for_the_gateway(&mut bystander);
            go.send(()).unwrap();
            go.send(()).unwrap();
            assert_eq!(client.read_frame(), (0x81, b"a".to_vec()));
            assert_eq!(client.read_frame(), (0x81, b"b".to_vec()));
            assert_eq!(client.read_close_and_end().0, 1002);
        }
    }
}

#[test]
fn a_broken_rule_ends_the_wait_of_a_server_that_reads() {
    /// Its `server` answers what it reads, and reports how its last read ended.
    struct Reads(mpsc::Sender<Error>);

    impl WebSocketServer for Reads {
        fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
            opening.set_shared_connection(true);
            Ok(())
        }

        fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
            loop {
                match ws.read_message(PATIENCE) {
                    Ok(message) => ws.write(message)?,
                    Err(e) => return Ok(self.0.send(e)?),
                }
            }
        }
    }

    for workers in [0, 2] {
        let (tx, ends) = mpsc::channel();
        let mut limits = Limits::default();
        limits.workers = workers;
        let server = serve(|builder| builder.limits(limits).route("/", move || Reads(tx.clone())));
        for scheme in SCHEMES {
            let mut client = server.raw_websocket(scheme, "/");
            assert_answers(&mut client);
            client.write_all(&frame(0x83, b"a reserved opcode")).unwrap();
            assert_eq!(client.read_close_and_end().0, 1002);
            let end = ends.recv_timeout(PATIENCE).unwrap();
            assert!(matches!(end, Error::Closed(reason) if reason.code() == 1002));
        }
    }
}

/// Answers pings, and sends texts back, until the close. Reports the first byte of each frame that it has answered.
fn answer(mut client: Stream) -> mpsc::Receiver<u8> {
    let (tx, answered) = mpsc::channel();
    thread::spawn(move || {
        loop {
            let (first, payload) = client.read_frame();
            let answer = match first {
                0x89 => 0x8a,
                0x81 => 0x81,
                _ => return,
            };
            client.write_all(&frame(answer, &payload)).unwrap();
            // Fails if the test has ended already.
            let _ = tx.send(first);
        }
    });
    answered
}

#[test]
fn a_client_with_an_unread_message_that_answers_pings_is_not_cut() {
    const INTERVAL: Duration = Duration::from_millis(50);
    const TIMEOUT: Duration = Duration::from_secs(5);
    let fixture = shared(
        |limits| {
            limits.max_inbox_messages = 1;
            (limits.ping_interval, limits.ping_timeout) = (Some(INTERVAL), TIMEOUT);
        },
        leave,
    );
    let clients = SCHEMES.map(|scheme| {
        let mut client = fixture.server.raw_websocket(scheme, "/");
        client.write_all(&frame(0x81, b"hello")).unwrap();
        (fixture.opened(), answer(client))
    });
    // Its pings have at least this interval, and show when a client that counts as silent would have been cut.
    let bystander = answer(fixture.server.raw_websocket(Scheme::Ws, "/"));
    let other = fixture.opened();
    for _ in 0..TIMEOUT.as_millis() / INTERVAL.as_millis() + 4 {
        bystander.recv_timeout(PATIENCE).unwrap();
    }
    for (id, answered) in clients {
        assert!(answered.try_iter().count() > 0, "no ping has been answered");
        let ws = fixture.hub.open_server(&id).unwrap();
        assert_eq!(ws.read_message(PATIENCE).unwrap(), "hello");
        for _ in 0..3 {
            assert_eq!(answered.recv_timeout(PATIENCE).unwrap(), 0x89);
        }
        ws.write("still here").unwrap();
        assert_eq!(ws.read_message(PATIENCE).unwrap(), "still here");
        assert!(ws.close_reason().is_none());
        ws.end_server();
        assert_eq!(fixture.closed(), (id, 1000));
    }
    fixture.hub.close(&other, 1000, "").unwrap();
    assert_eq!(fixture.closed(), (other, 1000));
}

#[test]
fn messages_that_wait_for_the_handler_come_before_later_ones_even_if_the_client_is_stuck() {
    /// No socket takes an answer of this size at once. The messages with the numbers in `LARGE` get one.
    const STUCK: usize = 8 << 20;
    const LARGE: [u32; 3] = [1, 5, 10];
    for workers in [0, 2] {
        let (begun, beginnings) = mpsc::channel();
        let (end, ending) = mpsc::channel();
        let (entered, entries) = mpsc::channel();
        let (go, gate) = mpsc::channel();
        let (ending, gate) = (Arc::new(Mutex::new(ending)), Arc::new(Mutex::new(gate)));
        let fixture = shared_after(
            |limits| limits.workers = workers,
            move |_| {
                begun.send(())?;
                Ok(ending.lock().unwrap().recv_timeout(PATIENCE)?)
            },
            move |ws, message| {
                let n = u32::from_be_bytes(message.as_bytes().try_into().unwrap());
                if n == 0 {
                    entered.send(()).unwrap();
                    gate.lock().unwrap().recv_timeout(PATIENCE).unwrap();
                }
                let mut answer = message.as_bytes().to_vec();
                if LARGE.contains(&n) {
                    answer.resize(STUCK, 0);
                }
                echo(ws, answer.into())
            },
        );
        for scheme in SCHEMES {
            // A few, and more than the inbox takes.
            for count in [20, 600] {
                let mut bystander = fixture.server.raw_websocket(scheme, "/");
                let other = fixture.opened();
                let mut client = fixture.server.raw_websocket(scheme, "/");
                let id = fixture.opened();
                // A buffer of fixed size does not grow, so the client gets stuck each time.
                set_socket_recv_buffer_size(client.tcp(), 256 * 1024).unwrap();
                let mut sent = 0;
                let mut send = |count: u32| {
                    let numbers = sent..sent + count;
                    sent += count;
                    let bytes: Vec<u8> = numbers.flat_map(|n| frame(0x82, &n.to_be_bytes())).collect();
                    client.write_all(&bytes).unwrap();
                    sent
                };
                for _ in [&id, &other] {
                    beginnings.recv_timeout(PATIENCE).unwrap();
                }
                // Messages arrive while `server` runs, while the handler is busy, and while the client is stuck.
                send(count);
                wait_for_the_gateway(&mut bystander);
                for _ in [&id, &other] {
                    end.send(()).unwrap();
                }
                entries.recv_timeout(PATIENCE).unwrap();
                send(20);
                go.send(()).unwrap();
                eventually("the client is stuck", || {
                    fixture.hub.connection(&id).is_ok_and(|info| info.queued > 1 << 20)
                });
                let sent = send(20);
                wait_for_the_gateway(&mut bystander);
                for n in 0..sent {
                    let (first, answer) = client.read_frame();
                    let size = if LARGE.contains(&n) { STUCK } else { 4 };
                    assert_eq!((first, &answer[..4], answer.len()), (0x82, &n.to_be_bytes()[..], size));
                }
                drop(client);
                assert_eq!(fixture.closed(), (id, 1006));
                drop(bystander);
                assert_eq!(fixture.closed(), (other, 1006));
            }
        }
    }
}

#[test]
fn a_burst_with_large_answers_is_answered_as_the_client_takes_them() {
    const SIZE: usize = 8 << 20;
    for workers in [0, 2] {
        let fixture = shared(
            |limits| limits.workers = workers,
            |ws, message| {
                let mut answer = message.as_bytes().to_vec();
                answer.resize(SIZE, 0);
                echo(ws, answer.into())
            },
        );
        for scheme in SCHEMES {
            let mut bystander = fixture.server.raw_websocket(scheme, "/");
            let other = fixture.opened();
            let mut client = fixture.server.raw_websocket(scheme, "/");
            // A buffer of fixed size does not grow, so at most a few MiB of each answer are taken at once.
            set_socket_recv_buffer_size(client.tcp(), 256 * 1024).unwrap();
            let id = fixture.opened();
            let read = |client: &mut Stream, n| {
                let (first, answer) = client.read_frame();
                assert_eq!((first, answer.len(), answer[0]), (0x82, SIZE, n));
            };
            // The first answer shows that `server` has returned.
            client.write_all(&frame(0x82, &[0])).unwrap();
            read(&mut client, 0);
            // In one segment, so that they are handled together.
            let burst: Vec<u8> = (1..11).flat_map(|n| frame(0x82, &[n])).collect();
            client.write_all(&burst).unwrap();
            eventually("the client is stuck", || {
                fixture.hub.connection(&id).is_ok_and(|info| info.queued > 1 << 20)
            });
            wait_for_the_gateway(&mut bystander);
            for n in 1..11 {
                read(&mut client, n);
            }
            drop(client);
            assert_eq!(fixture.closed(), (id, 1006));
            drop(bystander);
            assert_eq!(fixture.closed(), (other, 1006));
        }
    }
}

#[test]
fn the_handler_gets_the_rest_of_a_message_that_server_has_read_in_part() {
    for workers in [0, 2] {
        let fixture = shared_after(
            |limits| {
                limits.workers = workers;
                // If the server counted a single byte too much, it would receive nothing more.
                limits.max_inbox_bytes = 1;
            },
            |ws| {
                let piece = ws.read(3, PATIENCE)?;
                assert!(piece == "grü" && !ws.at_end());
                Ok(())
            },
            |ws, message| if message == "for a reader" { leave(ws, message) } else { echo(ws, message) },
        );
        for scheme in SCHEMES {
            let mut client = fixture.server.raw_websocket(scheme, "/");
            let id = fixture.opened();
            // In one segment, so that the second message has also arrived when `server` returns.
            let bytes = [frame(0x81, "grüßen".as_bytes()), frame(0x81, b"second")];
            client.write_all(&bytes.concat()).unwrap();
            assert_eq!(client.read_frame(), (0x81, "ßen".into()));
            assert_eq!(client.read_frame(), (0x81, b"second".to_vec()));
            client.write_all(&frame(0x81, b"third")).unwrap();
            assert_eq!(client.read_frame(), (0x81, b"third".to_vec()));
            client.write_all(&frame(0x81, b"for a reader")).unwrap();
            let ws = fixture.hub.open_server(&id).unwrap();
            let piece = ws.read(5, PATIENCE).unwrap();
            assert!(piece == "for a" && !ws.at_end());
            assert_eq!(ws.read_message(PATIENCE).unwrap(), " reader");
            client.write_all(&frame(0x81, b"last")).unwrap();
            assert_eq!(client.read_frame(), (0x81, b"last".to_vec()));
            drop((ws, client));
            assert_eq!(fixture.closed(), (id, 1006));
        }
    }
}

#[cfg(all(feature = "cli", target_os = "linux"))]
mod flood {
    use super::*;
    use crate::common::process::Process;

    /// The message with this number; all are different.
    fn message(n: u64, size: usize) -> Vec<u8> {
        n.to_be_bytes().repeat(size / 8)
    }

    #[test]
    fn a_client_that_sends_and_never_reads_costs_nothing_and_later_gets_all_answers() {
        let mut server = Process::start(&["serve", "--listen", "127.0.0.1:0", "--workers", "2"]);
        let address = server.address("http");
        // When the client is stuck, many short messages wait in the server, but hardly any long ones.
        for size in [104, 4000, 100_000] {
            let mut client = Stream::connect(address, Scheme::Ws);
            client.write_all(common::handshake("/echo-shared").as_bytes()).unwrap();
            assert!(client.read_head().starts_with("HTTP/1.1 101 "));
            // When a send times out, the client is stuck. What the server does during that time is measured.
            let mut sending = client.tcp().try_clone().unwrap();
            sending.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
            let (mut sent, mut rest) = (0, Vec::new());
            let used = loop {
                while rest.len() < 100_000 {
                    rest.extend(frame(0x82, &message(sent, size)));
                    sent += 1;
                }
                let before = server.ticks();
                match sending.write(&rest) {
                    Ok(n) => drop(rest.drain(..n)),
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break server.ticks() - before,
                    Err(e) => panic!("{e}"),
                }
            };
            assert!(used < 50, "{size}: {used} of 100 ticks of processor time for a client that waits");
            sending.set_write_timeout(Some(PATIENCE)).unwrap();
            let sender = thread::spawn(move || sending.write_all(&rest).unwrap());
            for n in 0..sent {
                assert!(client.read_frame() == (0x82, message(n, size)), "{size}: message {n} of {sent}");
            }
            sender.join().unwrap();
            // The connection works as before.
            client.write_all(&frame(0x81, b"still here")).unwrap();
            assert_eq!(client.read_frame(), (0x81, b"still here".to_vec()));
            client.write_all(&close_frame(1000, "")).unwrap();
            assert_eq!(client.read_close_and_end().0, 1000);
        }
    }
}

/// With fewer messages before the end than the inbox takes, exactly as many, or more, so that some are not received yet.
#[test]
fn the_end_of_the_stream_is_seen_as_soon_as_the_handler_has_caught_up() {
    for (count, size) in [(1, 5), (3, 5), (4, 5), (5, 5), (8, 5), (4, 10_000), (20, 10_000), (200, 10_000)] {
        let (entered, entries) = mpsc::channel();
        let (go, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let fixture = shared(
            |limits| {
                limits.max_inbox_messages = 4;
                limits.ping_interval = None;
                limits.close_timeout = 3 * PATIENCE;
            },
            move |_, _| {
                entered.send(()).unwrap();
                let _ = gate.lock().unwrap().recv_timeout(PATIENCE); // opened when `go` is dropped
                Handled::Yes
            },
        );
        let mut bystander = fixture.server.raw_websocket(Scheme::Ws, "/");
        fixture.opened();
        let mut client = fixture.server.raw_websocket(Scheme::Ws, "/");
        let id = fixture.opened();
        let messages: Vec<u8> = (0..count).flat_map(|n| frame(0x82, &vec![n; size])).collect();
        client.write_all(&messages).unwrap();
        client.half_close();
        entries.recv_timeout(PATIENCE).unwrap();
        wait_for_the_gateway(&mut bystander);
        drop(go);
        assert_eq!(fixture.closed(), (id, 1006), "{count} messages of {size}");
        assert_eq!(entries.iter().take(usize::from(count) - 1).count(), usize::from(count) - 1);
    }
}

#[test]
fn the_end_of_the_stream_is_seen_after_more_data_than_one_turn_receives() {
    let (entered, entries) = mpsc::channel();
    let (go, gate) = mpsc::channel::<()>();
    let gate = Arc::new(Mutex::new(gate));
    let fixture = shared(
        |limits| {
            limits.workers = 0;
            limits.max_inbox_messages = 100_000;
            limits.ping_interval = None;
        },
        move |_, message| {
            if message == "wait" {
                entered.send(()).unwrap();
                gate.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            }
            Handled::Yes
        },
    );
    let mut bystander = fixture.server.raw_websocket(Scheme::Ws, "/");
    fixture.opened();
    let mut client = fixture.server.raw_websocket(Scheme::Ws, "/");
    let id = fixture.opened();
    // So that the kernel's buffer grows, and takes more than the gateway receives at a time.
    client.write_all(&frame(0x82, &[7; 1_000_000]).repeat(8)).unwrap();
    wait_for_the_gateway(&mut client);
    // All of this arrives while the gateway waits in the handler.
    bystander.write_all(&frame(0x81, b"wait")).unwrap();
    entries.recv_timeout(PATIENCE).unwrap();
    client.write_all(&frame(0x81, b"x").repeat(64 * 1024 / 7 + 10)).unwrap();
    client.half_close();
    go.send(()).unwrap();
    assert_eq!(fixture.closed(), (id, 1006));
}

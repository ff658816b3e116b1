//! MODEL, section 5: shared connections.
#![cfg(feature = "tls")]
mod common;

use std::{
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use common::{PATIENCE, SCHEMES, TestServer, next_message, read_close, serve};
use switchboard::{
    Closed, Error, Handled, Hub, Limits, Message, Opening, Refusal, ServerResult, WebSocket, WebSocketId,
    WebSocketServer,
};
use tungstenite::Message as Sent;

/// What happened, told to the test.
#[derive(Debug)]
enum Event {
    Opened(WebSocketId),
    Closed(WebSocketId, u16),
}

/// A shared application: `server` returns at once, `on_message` is called for each message.
struct Shared<F> {
    events: mpsc::Sender<Event>,
    on_message: F,
}

impl<F: FnMut(&WebSocket, Message) -> Handled + Send + 'static> WebSocketServer for Shared<F> {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        opening.set_shared_connection(true);
        self.events.send(Event::Opened(opening.websocket_id().clone())).unwrap();
        Ok(())
    }

    fn server(&mut self, _ws: &mut WebSocket) -> ServerResult {
        Ok(())
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        (self.on_message)(ws, message)
    }

    fn on_post_server(&mut self, closed: &Closed) {
        // A test that has ended does not listen any more.
        let _ = self.events.send(Event::Closed(closed.websocket_id().clone(), closed.reason().code().0));
    }
}

struct Fixture {
    server: TestServer,
    hub: Hub,
    events: mpsc::Receiver<Event>,
}

fn shared<F>(limits: impl FnOnce(&mut Limits), on_message: F) -> Fixture
where
    F: FnMut(&WebSocket, Message) -> Handled + Clone + Send + Sync + 'static,
{
    let (tx, events) = mpsc::channel();
    let hub = Arc::new(Mutex::new(None));
    let keep = hub.clone();
    let mut all = Limits::default();
    limits(&mut all);
    let server = serve(move |builder| {
        let tx = Mutex::new(tx);
        builder
            .limits(all)
            .route("/", move || Shared { events: tx.lock().unwrap().clone(), on_message: on_message.clone() })
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
            let mut ws = hub.open_server(&id).unwrap();
            ws.write("hello").unwrap();
            let piece = ws.read(3, PATIENCE).unwrap();
            assert!(piece == "ans" && !ws.at_end());
            assert_eq!(ws.read_message(PATIENCE).unwrap(), "wer");
            assert!(ws.session().is_none() && !ws.session_id().as_str().is_empty());
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
        assert_eq!(fixture.closed(), (id.clone(), 1000));
        assert!(matches!(fixture.hub.open_server(&id), Err(Error::UnknownId)));
    }
}

#[test]
fn open_server_tells_its_errors_apart() {
    let fixture = shared(|_| {}, leave);
    assert!(matches!(fixture.hub.open_server(&"nobody".into()), Err(Error::UnknownId)));
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
        tx.send(ws.websocket_id().clone())?;
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
                assert!(message != "panic", "as asked");
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
            let mut ws = fixture.hub.open_server(&id).unwrap();
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

#[test]
fn a_read_that_waits_ends_when_another_thread_ends_the_connection() {
    let fixture = shared(|_| {}, leave);
    let _client = fixture.server.raw_websocket(SCHEMES[0], "/");
    let id = fixture.opened();
    let mut waiting = fixture.hub.open_server(&id).unwrap();
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
        let mut ws = fixture.hub.open_server(&id).unwrap();
        for n in 0..200 {
            let message = ws.read_message(PATIENCE).unwrap();
            assert!(message.len() == 100_000 && message.as_bytes()[0] == n);
        }
        drop(sender.join().unwrap());
        fixture.closed();
    }
}

#[test]
fn messages_before_the_end_are_read_before_closed() {
    let fixture = shared(|_| {}, leave);
    let mut client = fixture.server.connect(SCHEMES[0], "/");
    let id = fixture.opened();
    let mut ws = fixture.hub.open_server(&id).unwrap();
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
    assert_eq!(read_close(&mut client), (1000, "idle".into()));
}

#[test]
fn shutdown_ends_shared_connections_also_while_handles_are_held() {
    for workers in [0, 2] {
        let Fixture { server, hub, events } = shared(|limits| limits.workers = workers, leave);
        let mut client = server.connect(SCHEMES[1], "/");
        let Event::Opened(id) = events.recv_timeout(PATIENCE).unwrap() else { panic!() };
        let mut handle = hub.open_server(&id).unwrap();
        let stopper = thread::spawn(move || server.shutdown(PATIENCE));
        assert_eq!(read_close(&mut client).0, 1001);
        drop(client);
        stopper.join().unwrap();
        assert!(matches!(events.recv_timeout(PATIENCE).unwrap(), Event::Closed(_, 1001)));
        assert!(handle.read_message(PATIENCE).unwrap_err().is_closed());
        assert!(handle.write("x").unwrap_err().is_closed());
    }
}

//! What an observer of the hub is told: each connection opened and then closed, once, and topics in the true order.
#![cfg(feature = "__tls")]
mod common;

use std::{
    collections::HashMap,
    net::Shutdown,
    sync::{Arc, Mutex, OnceLock, mpsc},
    thread,
    time::Duration,
};

use common::{PATIENCE, SCHEMES, Scheme, TestServer, eventually, handshake, read_close, serve};
use switchboard::{
    Audience, CloseReason, ConnectionInfo, Handled, Hub, HubObserver, Message, Opening, Refusal,
    ServerResult, StatusCode, WebSocket, WebSocketId, WebSocketServer,
};
use tungstenite::Message as Sent;

/// What happened, in the order of the calls.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Opened(WebSocketId, String),
    Closed(WebSocketId, u16),
    Occupied(String),
    Vacated(String),
}

#[derive(Default)]
struct Recorder {
    events: Mutex<Vec<Event>>,
    infos: Mutex<Vec<ConnectionInfo>>,
}

impl Recorder {
    fn note(&self, event: Event) {
        thread::yield_now(); // whoever has a chance to be faster gets it
        self.events.lock().unwrap().push(event);
    }

    fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap().clone()
    }
}

impl HubObserver for Recorder {
    fn opened(&self, connection: &ConnectionInfo) {
        self.note(Event::Opened(connection.id, connection.path.to_string()));
    }

    fn closed(&self, connection: &ConnectionInfo, reason: &CloseReason) {
        self.infos.lock().unwrap().push(connection.clone());
        self.note(Event::Closed(connection.id, reason.code().0));
    }

    fn topic_occupied(&self, topic: &str) {
        self.note(Event::Occupied(topic.into()));
    }

    fn topic_vacated(&self, topic: &str) {
        self.note(Event::Vacated(topic.into()));
    }
}

/// Does what its client says. At paths below `/shared/` it is shared.
struct Obedient(bool);

impl Obedient {
    fn obey(&self, ws: &WebSocket, message: &Message) -> ServerResult {
        match message.as_text().unwrap_or_default() {
            "panic" => panic!("as it was told"),
            "end" => ws.close(4000, ""),
            "fail" => return Err("as it was told".into()),
            other => ws.write(other)?,
        }
        Ok(())
    }
}

impl WebSocketServer for Obedient {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        self.0 = opening.path().starts_with("/shared/");
        opening.set_shared_connection(self.0);
        if opening.path().ends_with("/refused") {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "no"));
        }
        Ok(())
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        if !self.0 {
            while let Ok(message) = ws.read_message(PATIENCE) {
                self.obey(ws, &message)?;
            }
        }
        Ok(())
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        if self.obey(ws, &message).is_err() {
            ws.close(1011, "");
        }
        Handled::Yes
    }
}

fn serve_observed(observers: Vec<Arc<dyn HubObserver>>, workers: usize) -> TestServer {
    let mut limits = switchboard::Limits::default();
    limits.workers = workers;
    limits.close_timeout = Duration::from_millis(500);
    serve(move |builder| {
        let builder = builder.limits(limits).route("/*", || Obedient(false));
        observers.into_iter().fold(builder, |builder, observer| builder.observer(observer))
    })
}

/// Ends a connection in one of the ways there are. Returns the code that it ends with.
fn end(server: &TestServer, scheme: Scheme, path: &str, way: &str) -> u16 {
    let mut client = server.connect(scheme, path);
    client.send(Sent::text("hello")).unwrap();
    assert_eq!(common::next_message(&mut client), Sent::text("hello"));
    match way {
        "close" => {
            client.close(None).unwrap();
            read_close(&mut client);
            1005
        }
        "reset" => {
            client.into_inner().reset();
            1006
        }
        "end of stream" => {
            client.get_ref().tcp().shutdown(Shutdown::Write).unwrap();
            1006
        }
        "broken rule" => {
            use std::io::Write;
            client.get_mut().write_all(&common::frame(0x83, b"reserved")).unwrap();
            1002
        }
        way => {
            client.send(Sent::text(way)).unwrap();
            let code = if way == "end" { 4000 } else { 1011 };
            assert_eq!(read_close(&mut client).0, code);
            code
        }
    }
}

#[test]
fn each_connection_is_opened_and_then_closed_once_whatever_its_end() {
    for workers in [0, 2] {
        let (recorder, second) = (Arc::new(Recorder::default()), Arc::new(Recorder::default()));
        let server = serve_observed(vec![recorder.clone(), second.clone()], workers);
        let mut count = 0;
        for scheme in SCHEMES {
            for path in ["/own/", "/shared/"] {
                for way in ["close", "reset", "end of stream", "broken rule", "end", "fail", "panic"] {
                    let path = format!("{path}{count}");
                    let code = end(&server, scheme, &path, way);
                    count += 1;
                    eventually(way, || recorder.events().len() == 2 * count);
                    let events = recorder.events().split_off(2 * count - 2);
                    let [Event::Opened(id, at), Event::Closed(closed, with)] = &events[..] else {
                        panic!("{way}: {events:?}")
                    };
                    assert_eq!((id, at, *with), (closed, &path, code), "{way}, {path}");
                    let info = recorder.infos.lock().unwrap().pop().unwrap();
                    assert_eq!(info.id, *id);
                    assert!(info.messages_in >= 1 && info.bytes_out > 0 && info.age < PATIENCE);
                }
                assert!(server.try_connect(scheme, &format!("{path}refused"), &[]).is_err());
            }
        }
        let by_connection = |recorder: &Recorder| {
            let mut all: HashMap<_, Vec<_>> = HashMap::new();
            for event in recorder.events() {
                let (Event::Opened(id, _) | Event::Closed(id, _)) = &event else { panic!("{event:?}") };
                all.entry(*id).or_default().push(event);
            }
            all
        };
        eventually("the second one is told the same", || by_connection(&second) == by_connection(&recorder));
        // Those who leave during the handshake, and those whom the shutdown ends.
        for scheme in SCHEMES {
            for path in ["/own/", "/shared/"] {
                let mut early = server.raw(scheme);
                use std::io::Write;
                early.write_all(handshake(path).as_bytes()).unwrap();
                early.reset();
            }
        }
        let open: Vec<_> = SCHEMES.map(|scheme| server.connect(scheme, "/shared/late")).into();
        server.shutdown(Duration::ZERO);
        drop(open);
        let mut open = HashMap::new();
        for event in recorder.events() {
            match event {
                Event::Opened(id, _) => assert_eq!(open.insert(id, true), None, "opened once"),
                Event::Closed(id, _) => assert_eq!(open.insert(id, false), Some(true), "closed once, later"),
                other => panic!("{other:?}"),
            }
        }
        assert!(open.values().all(|open| !open), "all are closed when `run` has returned");
    }
}

#[test]
fn topics_are_told_in_the_true_order_however_many_join_and_leave() {
    const THREADS: usize = 4;
    const ROUNDS: usize = 300;
    let recorder = Arc::new(Recorder::default());
    let server = serve_observed(vec![recorder.clone()], 2);
    let clients: Vec<_> = (0..THREADS).map(|_| server.connect(SCHEMES[0], "/own/")).collect();
    eventually("all are there", || server.hub.len().unwrap() == THREADS);
    let ids: Vec<_> = server.hub.all_connections(Audience::All).map(|info| info.unwrap().id).collect();
    let threads: Vec<_> = ids
        .iter()
        .cloned()
        .map(|id| {
            let hub = server.hub.clone();
            thread::spawn(move || {
                for n in 0..ROUNDS {
                    hub.join(&id, "contended").unwrap();
                    hub.join(&id, if n % 2 == 0 { "even" } else { "odd" }).unwrap();
                    hub.leave(&id, "contended").unwrap();
                    hub.leave(&id, if n % 2 == 0 { "even" } else { "odd" }).unwrap();
                }
                hub.join(&id, "contended").unwrap();
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    drop(clients);
    eventually("all have left", || server.hub.is_empty().unwrap());
    eventually("the last one is told", || {
        recorder.events().iter().filter(|event| matches!(event, Event::Closed(..))).count() == THREADS
    });
    let mut occupied = HashMap::new();
    for event in recorder.events() {
        match event {
            Event::Occupied(topic) => assert_ne!(occupied.insert(topic, true), Some(true)),
            Event::Vacated(topic) => assert_eq!(occupied.insert(topic, false), Some(true)),
            Event::Opened(..) | Event::Closed(..) => {}
        }
    }
    assert!(occupied.len() == 3 && occupied.values().all(|occupied| !occupied), "the end leaves all topics");
}

#[test]
fn what_a_call_causes_is_told_before_it_returns() {
    let recorder = Arc::new(Recorder::default());
    let server = serve_observed(vec![recorder.clone()], 2);
    let _client = server.connect(SCHEMES[0], "/own/");
    let id = server.hub.connections(Audience::All, None, 1).unwrap().items[0].id;
    let mut expected = vec![Event::Opened(id, "/own/".into())];
    for _ in 0..2 {
        server.hub.join(&id, "room").unwrap();
        server.hub.join(&id, "room").unwrap();
        expected.push(Event::Occupied("room".into()));
        assert_eq!(recorder.events(), expected);
        server.hub.leave(&id, "room").unwrap();
        server.hub.leave(&id, "room").unwrap();
        expected.push(Event::Vacated("room".into()));
        assert_eq!(recorder.events(), expected);
    }
}

/// Panics at each call.
struct Failing;

impl HubObserver for Failing {
    fn opened(&self, _: &ConnectionInfo) {
        panic!("opened");
    }

    fn closed(&self, _: &ConnectionInfo, _: &CloseReason) {
        panic!("closed");
    }

    fn topic_occupied(&self, _: &str) {
        panic!("occupied");
    }

    fn topic_vacated(&self, _: &str) {
        panic!("vacated");
    }
}

#[test]
fn one_that_panics_harms_neither_connections_nor_the_others() {
    for workers in [0, 2] {
        let recorder = Arc::new(Recorder::default());
        let server = serve_observed(vec![Arc::new(Failing), recorder.clone()], workers);
        for (n, (scheme, path)) in
            SCHEMES.into_iter().flat_map(|s| [(s, "/own/"), (s, "/shared/")]).enumerate()
        {
            let mut client = server.connect(scheme, path);
            client.send(Sent::text("hello")).unwrap();
            assert_eq!(common::next_message(&mut client), Sent::text("hello"));
            let id = server.hub.connections(Audience::Path(path), None, 1).unwrap().items[0].id;
            server.hub.join(&id, "room").unwrap();
            client.close(None).unwrap();
            read_close(&mut client);
            drop(client);
            eventually("all is told", || recorder.events().len() == 4 * (n + 1));
            assert!(matches!(
                &recorder.events()[4 * n..],
                [Event::Opened(..), Event::Occupied(_), Event::Vacated(_), Event::Closed(..)]
            ));
        }
    }
}

/// Calls the hub from each of its methods.
#[derive(Default)]
struct Calling {
    hub: OnceLock<Hub>,
    told: Mutex<Vec<String>>,
    done: Mutex<Option<mpsc::Sender<()>>>,
}

impl HubObserver for Calling {
    fn topic_occupied(&self, topic: &str) {
        self.told.lock().unwrap().push(format!("+{topic}"));
        let hub = self.hub.get().unwrap();
        let result = hub.broadcast(Audience::Topic(topic), topic).unwrap();
        assert_eq!(result.sent + result.queued, 1);
        if topic == "first" {
            let id = hub.members(topic, None, 1).unwrap().items[0];
            hub.join(&id, "second").unwrap();
            hub.leave(&id, "first").unwrap();
            self.told.lock().unwrap().push("first was told".into());
        }
    }

    fn topic_vacated(&self, topic: &str) {
        self.told.lock().unwrap().push(format!("-{topic}"));
    }

    fn closed(&self, connection: &ConnectionInfo, _: &CloseReason) {
        assert!(self.hub.get().unwrap().connection(&connection.id).is_err(), "its ID is unknown");
        if let Some(done) = &*self.done.lock().unwrap() {
            let _ = done.send(());
        }
    }
}

#[test]
fn an_observer_may_call_the_hub() {
    let observer = Arc::new(Calling::default());
    let (tx, closed) = mpsc::channel();
    *observer.done.lock().unwrap() = Some(tx);
    let server = serve_observed(vec![observer.clone()], 2);
    observer.hub.set(server.hub.clone()).unwrap();
    let mut client = server.connect(SCHEMES[0], "/shared/");
    let id = server.hub.connections(Audience::All, None, 1).unwrap().items[0].id;
    server.hub.join(&id, "first").unwrap();
    assert_eq!(*observer.told.lock().unwrap(), ["+first", "first was told", "+second", "-first"]);
    assert_eq!(common::next_message(&mut client), Sent::text("first"));
    assert_eq!(common::next_message(&mut client), Sent::text("second"));
    drop(client);
    closed.recv_timeout(PATIENCE).unwrap();
}

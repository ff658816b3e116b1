//! A server on a thread of its own: it ends when it is dropped, or asked to, in order; whoever drops it.
#![cfg(feature = "__tls")]
mod common;

use std::{
    io::{ErrorKind, Read, Write},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use common::{PATIENCE, Scheme, Stream, Until, app, assert_closed, echo, eventually, frame, handshake};
use switchboard::{
    Audience, CloseReason, Closed, ConnectionInfo, Handled, HubObserver, Limits, Message, Opening, Refusal,
    Response, RunningServer, Server, ServerBuilder, ServerError, ServerResult, WebSocket, WebSocketServer,
};

fn start(configure: impl FnOnce(ServerBuilder) -> ServerBuilder) -> RunningServer {
    configure(Server::builder().listen("127.0.0.1:0")).bind().unwrap().spawn().unwrap()
}

fn address(server: &RunningServer) -> SocketAddr {
    server.local_addrs()[0].tcp().unwrap()
}

fn connect(address: SocketAddr, path: &str) -> Stream {
    let mut stream = Stream::connect(address, Scheme::Ws);
    stream.write_all(handshake(path).as_bytes()).unwrap();
    assert!(stream.read_head().starts_with("HTTP/1.1 101 "));
    stream
}

#[test]
fn dropping_it_ends_the_server_in_order() {
    let ended = Arc::new(AtomicUsize::new(0));
    let counted = ended.clone();
    let server = start(|builder| {
        builder.route("/", move || {
            let counted = counted.clone();
            let after = move |_: &Closed| {
                counted.fetch_add(1, SeqCst);
            };
            common::full_app(|_: &mut Opening| Ok(()), echo, after)
        })
    });
    let (address, hub, handle) = (address(&server), server.hub(), server.handle());
    let mut clients = [(); 3].map(|()| connect(address, "/"));
    clients[0].write_all(&frame(0x81, b"hello")).unwrap();
    assert_eq!(clients[0].read_frame(), (0x81, b"hello".to_vec()));
    assert!(!server.has_ended() && format!("{server:?}").contains("running"));
    let clients = thread::spawn(move || clients.map(|mut client| client.answer_close_and_end()));
    drop(server);
    assert_eq!((ended.load(SeqCst), handle.connections()), (3, 0), "all has ended when it is dropped");
    assert_closed(address);
    assert!(hub.is_empty().unwrap());
    for (code, _) in clients.join().unwrap() {
        assert_eq!(code, 1001);
    }
}

#[test]
fn a_shutdown_gives_what_run_has_returned() {
    let identity = common::identity();
    let server = start(|builder| {
        let builder = builder.listen_tls("127.0.0.1:0", identity).node(7.into());
        builder.route("/", || app(echo)).http("/page", |_| Response::html("hello"))
    });
    assert_eq!(server.local_addrs().iter().map(|to| server.is_tls(to)).collect::<Vec<_>>(), [false, true]);
    assert_eq!(server.node().get(), 7);
    let address = address(&server);
    let mut client = connect(address, "/");
    assert_eq!(server.hub().len().unwrap(), 1);
    let client = thread::spawn(move || client.answer_close_and_end());
    server.shutdown(PATIENCE).unwrap();
    assert_eq!(client.join().unwrap().0, 1001);
    assert_closed(address);
}

#[test]
fn waiting_for_it_ends_with_a_shutdown_by_its_handle() {
    let server = start(|builder| builder.route("/", || app(echo)));
    let (address, handle) = (address(&server), server.handle());
    let (tell, told) = mpsc::channel();
    let waiter = thread::spawn(move || tell.send(server.wait().is_ok()));
    connect(address, "/");
    assert!(told.try_recv().is_err());
    handle.shutdown(Duration::ZERO);
    assert!(told.recv_timeout(PATIENCE).unwrap());
    waiter.join().unwrap().unwrap();
    assert_closed(address);
}

#[test]
fn it_can_be_seen_that_it_has_ended() {
    let server = start(|builder| builder.route("/", || app(echo)));
    server.handle().shutdown(Duration::ZERO);
    eventually("it has ended", || server.has_ended());
    assert!(format!("{server:?}").contains("ended"));
    server.shutdown(Duration::ZERO).unwrap();
}

/// A handler that does not read has the grace period, and then its socket is cut.
#[test]
fn a_drop_waits_for_handlers_as_long_as_it_was_told() {
    let (tell, told) = mpsc::channel();
    let mut server = start(|builder| {
        builder.route("/", move || {
            let tell = tell.clone();
            app(move |ws: &mut WebSocket| {
                while ws.close_reason().is_none_or(|reason| reason.text() != "cut off by the shutdown") {
                    if ws.close_reason().is_some() && tell.send(Instant::now()).is_err() {
                        break;
                    }
                    let _ = ws.read_message(Duration::from_millis(5));
                    thread::sleep(Duration::from_millis(5));
                }
                Ok(())
            })
        })
    });
    server.set_grace(Duration::from_millis(300));
    let client = connect(address(&server), "/");
    let begun = Instant::now();
    let dropper = thread::spawn(move || drop(server));
    told.recv_timeout(PATIENCE).unwrap();
    drop(told);
    dropper.join().unwrap();
    assert!(begun.elapsed() < PATIENCE);
    drop(client);
}

/// What a handler shares with the program, the server in it.
type Shared = Arc<Mutex<Option<RunningServer>>>;

/// Drops the server, or shuts it down, from within, at the place that the path says.
struct Suicidal(Shared, mpsc::Sender<Option<ErrorKind>>);

impl Suicidal {
    fn end(&self, path: &str) {
        let Some(server) = self.0.lock().unwrap().take() else { return };
        let kind = match path {
            path if path.ends_with("/drop") => {
                drop(server);
                None
            }
            path => {
                let ended = if path.ends_with("/wait") { server.wait() } else { server.shutdown(PATIENCE) };
                match ended {
                    Err(ServerError::Io(e)) => Some(e.kind()),
                    other => panic!("{other:?}"),
                }
            }
        };
        self.1.send(kind).unwrap();
    }
}

impl WebSocketServer for Suicidal {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        if opening.path().starts_with("/pre/") {
            self.end(opening.path());
        }
        opening.set_shared_connection(opening.path().starts_with("/shared/"));
        Ok(())
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        if ws.path().starts_with("/shared/") {
            return Ok(());
        }
        if ws.path().starts_with("/server/") {
            self.end(ws.path());
        }
        echo(ws)
    }

    fn on_client_message(&mut self, ws: &WebSocket, _message: Message) -> Handled {
        self.end(ws.path());
        Handled::Yes
    }
}

#[test]
fn one_of_its_own_threads_ends_it_and_does_not_wait_for_itself() {
    for workers in [2, 0] {
        for place in ["pre", "server", "shared"] {
            for (way, kind) in
                [("drop", None), ("shutdown", Some(ErrorKind::Deadlock)), ("wait", Some(ErrorKind::Deadlock))]
            {
                let shared = Shared::default();
                let (tell, told) = mpsc::channel();
                let of_app = shared.clone();
                let mut limits = Limits::default();
                (limits.workers, limits.close_timeout) = (workers, Duration::from_millis(100));
                let server = start(|builder| {
                    builder.limits(limits).route("/*", move || Suicidal(of_app.clone(), tell.clone()))
                });
                let (address, handle) = (address(&server), server.handle());
                *shared.lock().unwrap() = Some(server);
                let mut client = Stream::connect(address, Scheme::Ws);
                client.write_all(handshake(&format!("/{place}/{way}")).as_bytes()).unwrap();
                client.write_all(&frame(0x81, b"die")).unwrap();
                let told = told.recv_timeout(PATIENCE);
                assert_eq!(told, Ok(kind), "{place} {way} {workers}");
                // It ends all the same.
                let _ = client.read_to_any_end();
                drop(client);
                eventually("it has ended", || handle.connections() == 0);
                assert_closed(address);
            }
        }
    }
}

/// So does an observer, which a connection's thread or a gateway calls, and a page.
#[test]
fn an_observer_and_a_page_may_drop_it() {
    struct Observer(Shared, Arc<AtomicBool>);
    impl HubObserver for Observer {
        fn closed(&self, _connection: &ConnectionInfo, _reason: &CloseReason) {
            drop(self.0.lock().unwrap().take());
            self.1.store(true, SeqCst);
        }
    }
    for path in ["/", "/shared", "/page"] {
        let (shared, done) = (Shared::default(), Arc::new(AtomicBool::new(false)));
        let observer = Observer(shared.clone(), done.clone());
        let (of_page, is_done) = (shared.clone(), done.clone());
        let server = start(|builder| {
            let builder = builder.observer(observer).route("/", || app(echo));
            builder.route("/shared", || common::SharedEcho).http("/page", move |_| {
                drop(of_page.lock().unwrap().take());
                is_done.store(true, SeqCst);
                Response::html("gone")
            })
        });
        let address = address(&server);
        *shared.lock().unwrap() = Some(server);
        if path == "/page" {
            let mut stream = Stream::connect(address, Scheme::Ws);
            stream.write_all(b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            let _ = stream.read(&mut [0; 64]);
        } else {
            drop(connect(address, path));
        }
        eventually("it was dropped", || done.load(SeqCst));
        assert_closed(address);
    }
}

/// Another server's handler may wait for it: they are not the same.
#[test]
fn a_handler_of_another_server_waits_for_it() {
    let (tell, told) = mpsc::channel();
    let outer = start(|builder| {
        builder.route("/", move || {
            let tell = tell.clone();
            app(move |_: &mut WebSocket| {
                let inner = start(|builder| builder.route("/", || app(echo)));
                let client = connect(address(&inner), "/");
                drop(client);
                tell.send(inner.shutdown(PATIENCE).is_ok()).unwrap();
                Ok(())
            })
        })
    });
    let mut client = connect(address(&outer), "/");
    assert!(told.recv_timeout(PATIENCE).unwrap());
    assert_eq!(client.answer_close_and_end().0, 1000);
    outer.shutdown(PATIENCE).unwrap();
}

/// While it ends, the program's other threads go on pushing, and get answers.
#[test]
fn pushes_during_the_end_do_no_harm() {
    let server = start(|builder| builder.route("/", || common::SharedEcho));
    let hub = server.hub();
    let clients: Vec<_> = (0..20).map(|_| connect(address(&server), "/")).collect();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                let _ = hub.broadcast(Audience::All, "x").unwrap();
            }
        });
        let readers: Vec<_> = clients
            .into_iter()
            .map(|mut client| scope.spawn(move || client.read_to_any_end().len()))
            .collect();
        let until = Until(&stop);
        server.shutdown(PATIENCE).unwrap();
        drop(until);
        assert!(readers.into_iter().all(|reader| reader.join().unwrap() > 0));
    });
    assert!(hub.is_empty().unwrap());
}

#![cfg(all(feature = "__tls", feature = "manage"))]
//! Whether a server's threads make progress, for whoever feeds a watchdog: what is stuck is named, and what takes long is not.

mod common;

use std::{
    io::Write,
    net::TcpStream,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use common::{PATIENCE, app, echo, eventually, folder::Folder, read_head};
use log::LevelFilter;
use switchboard::{
    Client, Handled, Limits, Manage, Message, Opening, Refusal, Server, ServerBuilder, ServerHandle,
    ServerResult, WebSocket, WebSocketServer,
};

/// For what does not come.
const SHORT: Duration = Duration::from_millis(100);

/// A logger that accepting threads wait for, as long as a test has this.
static GATE: Mutex<()> = Mutex::new(());

struct Log;

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, _: &log::Record<'_>) {
        if thread::current().name() == Some("switchboard-accept") {
            drop(lock(&GATE));
        }
    }

    fn flush(&self) {}
}

fn lock(mutex: &'static Mutex<()>) -> MutexGuard<'static, ()> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One test at a time: the logger is that of the process.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = lock(&TURN);
    if log::set_logger(&Log).is_ok() {
        log::set_max_level(LevelFilter::Debug);
    }
    turn
}

fn limits(configure: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    configure(&mut limits);
    limits
}

fn stuck(handle: &ServerHandle) -> String {
    handle.check_progress(SHORT).map_or_else(|stuck| stuck.to_string(), |()| "all make progress".into())
}

/// That this is what is stuck; on a busy machine others may be late at first.
fn assert_stuck(handle: &ServerHandle, is_it: impl Fn(&str) -> bool) {
    let begun = Instant::now();
    loop {
        let told = stuck(handle);
        if is_it(&told) {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "{told}");
    }
}

/// A shared connection whose handler says that it was called, and then waits until it is let go.
struct Holding {
    called: Sender<()>,
    let_go: Arc<Mutex<Receiver<()>>>,
}

impl WebSocketServer for Holding {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        opening.set_shared_connection(true);
        Ok(())
    }

    fn server(&mut self, _ws: &mut WebSocket) -> ServerResult {
        Ok(())
    }

    fn on_client_message(&mut self, _ws: &WebSocket, _message: Message) -> Handled {
        self.called.send(()).unwrap();
        let _ = self.let_go.lock().unwrap().recv();
        Handled::Yes
    }
}

/// A server with such a handler; what says that it was called, and what lets it go.
fn holding(limits: Limits) -> (ServerBuilder, Receiver<()>, Sender<()>) {
    let (called, calls) = mpsc::channel();
    let (go, let_go) = mpsc::channel();
    let let_go = Arc::new(Mutex::new(let_go));
    let route = move || Holding { called: called.clone(), let_go: let_go.clone() };
    (Server::builder().listen("127.0.0.1:0").limits(limits).route("/hold", route), calls, go)
}

#[test]
fn a_server_makes_progress_as_long_as_it_runs() {
    let _turn = turn();
    let server = Server::builder().listen("127.0.0.1:0").listen("127.0.0.1:0").bind().unwrap();
    let handle = server.handle();
    assert_eq!(stuck(&handle), "the server does not run");
    let waiting = handle.clone();
    let waiting = thread::spawn(move || waiting.check_progress(PATIENCE));
    let server = server.spawn().unwrap();
    waiting.join().unwrap().unwrap();
    let many = (0..4).map(|_| {
        let handle = handle.clone();
        thread::spawn(move || (0..200).try_for_each(|_| handle.check_progress(PATIENCE)))
    });
    many.collect::<Vec<_>>().into_iter().for_each(|thread| thread.join().unwrap().unwrap());
    server.shutdown(Duration::ZERO).unwrap();
    let begun = Instant::now();
    assert_eq!(handle.check_progress(Duration::MAX).unwrap_err().to_string(), "the server does not run");
    assert!(begun.elapsed() < PATIENCE);
}

#[test]
fn a_gateway_that_is_held_by_a_handler_is_named() {
    let _turn = turn();
    let (builder, calls, go) = holding(limits(|limits| (limits.workers, limits.gateways) = (0, 3)));
    let server = builder.bind().unwrap().spawn().unwrap();
    let handle = server.handle();
    let client = Client::connect(&format!("ws://{}/hold", server.local_addrs()[0])).unwrap();
    handle.check_progress(PATIENCE).unwrap();
    client.write("hold").unwrap();
    calls.recv_timeout(PATIENCE).unwrap();
    let one = |told: &str| told.starts_with("no progress within 100ms: gateway ") && !told.contains(", ");
    assert_stuck(&handle, one);
    go.send(()).unwrap();
    handle.check_progress(PATIENCE).unwrap();
}

#[test]
fn handlers_of_threads_and_workers_may_take_long() {
    let _turn = turn();
    let (builder, calls, go) = holding(limits(|limits| limits.workers = 1));
    let (entered, entries) = mpsc::channel();
    let server = builder.route("/own", move || {
        let entered = entered.clone();
        app(move |ws: &mut WebSocket| {
            entered.send(()).unwrap();
            ws.read_message(PATIENCE)?;
            Ok(())
        })
    });
    let server = server.bind().unwrap().spawn().unwrap();
    let url = |path| format!("ws://{}{path}", server.local_addrs()[0]);
    let (held, own) = (Client::connect(&url("/hold")).unwrap(), Client::connect(&url("/own")).unwrap());
    held.write("hold").unwrap();
    calls.recv_timeout(PATIENCE).unwrap();
    entries.recv_timeout(PATIENCE).unwrap();
    server.handle().check_progress(PATIENCE).unwrap();
    go.send(()).unwrap();
    drop(own);
}

#[test]
fn a_gateway_does_not_wait_for_itself() {
    let _turn = turn();
    let (told, tells) = mpsc::channel();
    let server = Server::builder().listen("127.0.0.1:0").limits(limits(|limits| limits.workers = 0));
    let handle = Arc::new(Mutex::new(None::<ServerHandle>));
    let asked = handle.clone();
    let server = server.route("/ask", move || Asking(asked.clone(), told.clone())).bind().unwrap();
    *handle.lock().unwrap() = Some(server.handle());
    let server = server.spawn().unwrap();
    let client = Client::connect(&format!("ws://{}/ask", server.local_addrs()[0])).unwrap();
    client.write("ask").unwrap();
    let told = tells.recv_timeout(PATIENCE).unwrap();
    assert!(told.contains("gateway 1"), "{told}");
    handle.lock().unwrap().take();
}

struct Asking(Arc<Mutex<Option<ServerHandle>>>, Sender<String>);

impl WebSocketServer for Asking {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        opening.set_shared_connection(true);
        Ok(())
    }

    fn server(&mut self, _ws: &mut WebSocket) -> ServerResult {
        Ok(())
    }

    fn on_client_message(&mut self, _ws: &WebSocket, _message: Message) -> Handled {
        let handle = self.0.lock().unwrap().clone().unwrap();
        let stuck = handle.check_progress(Duration::MAX).unwrap_err();
        let _ = self.1.send(stuck.to_string());
        Handled::Yes
    }
}

#[test]
fn a_thread_that_does_not_accept_is_named() {
    let _turn = turn();
    let server = Server::builder().listen("127.0.0.1:0").listen("127.0.0.1:0").route("/", || app(echo));
    let server = server.limits(limits(|limits| limits.max_connections = 1)).bind().unwrap().spawn().unwrap();
    let (handle, address) = (server.handle(), server.local_addrs()[0].clone());
    let _only = Client::connect(&format!("ws://{}/", server.local_addrs()[1])).unwrap();
    handle.check_progress(PATIENCE).unwrap();
    let gate = lock(&GATE);
    // Who is turned away has a line at the level `debug`.
    let _too_many = TcpStream::connect(address.tcp().unwrap()).unwrap();
    assert_stuck(&handle, |told| told == format!("no progress within 100ms: accepting at {address}"));
    drop(gate);
    handle.check_progress(PATIENCE).unwrap();
}

#[test]
fn the_management_listener_counts() {
    let _turn = turn();
    let folder = Folder::new();
    let manage = Manage::new().listen(format!("unix:{}", folder.path("manage")));
    let manage = manage.limits(limits(|limits| limits.max_connections = 1));
    let server = Server::builder().listen("127.0.0.1:0").manage(manage).bind().unwrap().spawn().unwrap();
    let handle = server.handle();
    handle.check_progress(PATIENCE).unwrap();
    let connect = || UnixStream::connect(folder.join("manage")).unwrap();
    let address = &server.manage_addrs()[0];
    let of_management = format!("no progress within 100ms: accepting at {address} (management)");
    eventually("one is turned away while a body is waited for", || {
        // It does not give up its place, since the body is waited for, for a second.
        let mut only = connect();
        only.set_read_timeout(Some(PATIENCE)).unwrap();
        only.write_all(
            b"POST /@broadcast HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        )
        .unwrap();
        if !read_head(&mut only).starts_with("HTTP/1.1 100 ") {
            return false; // the one before still has its place
        }
        let _gate = lock(&GATE);
        let _too_many = connect();
        let begun = Instant::now();
        let mut told = stuck(&handle);
        while told != of_management && begun.elapsed() < Duration::from_secs(2) {
            told = stuck(&handle);
        }
        told == of_management
    });
    handle.check_progress(PATIENCE).unwrap();
}

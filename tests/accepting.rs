#![cfg(feature = "__tls")]
//! Accepting: one thread for each listener, which wakes up only for clients, and hands them to the connection threads.

mod common;

use std::{
    collections::HashSet,
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    thread::ThreadId,
    time::{Duration, Instant},
};

use common::{
    PATIENCE, Scheme, Stream, TestServer, app, assert_closed, echo, eventually, handshake, running::Running,
    serve,
};
use switchboard::{Limits, Response, Server, ServerError, StatusCode, WebSocket};

/// A server whose handlers report which thread they run on, and return.
fn serve_threads(keep_alive: Duration) -> (TestServer, mpsc::Receiver<ThreadId>) {
    let (tx, rx) = mpsc::channel();
    let mut limits = Limits::default();
    limits.thread_keep_alive = keep_alive;
    let server = serve(|builder| {
        builder.limits(limits).route("/", move || {
            let tx = tx.clone();
            app(move |_: &mut WebSocket| Ok(tx.send(std::thread::current().id())?))
        })
    });
    (server, rx)
}

/// Opens one more connection, waits for its end, and returns the thread that served it.
fn next_thread(server: &TestServer, threads: &mpsc::Receiver<ThreadId>) -> ThreadId {
    let mut client = server.raw_websocket(Scheme::Ws, "/");
    assert_eq!(client.answer_close_and_end().0, 1000);
    threads.recv_timeout(PATIENCE).unwrap()
}

#[test]
fn a_thread_serves_one_connection_after_another() {
    let (server, threads) = serve_threads(Duration::MAX);
    let mut seen = HashSet::new();
    // A client that comes before the last thread is free gets another one.
    eventually("a thread is used again", || !seen.insert(next_thread(&server, &threads)));
    let begun = Instant::now();
    server.shutdown(PATIENCE * 2);
    assert!(begun.elapsed() < PATIENCE, "threads that wait for clients end at once");
}

#[test]
fn without_keep_alive_each_connection_has_a_thread_of_its_own() {
    let (server, threads) = serve_threads(Duration::ZERO);
    let ids: HashSet<_> = (0..50).map(|_| next_thread(&server, &threads)).collect();
    assert_eq!(ids.len(), 50);
}

#[test]
fn no_client_is_lost_when_a_thread_ends_after_its_keep_alive() {
    const KEEP_ALIVE: Duration = Duration::from_micros(100);
    let mut limits = Limits::default();
    limits.thread_keep_alive = KEEP_ALIVE;
    let page = |_: &switchboard::Exchange<'_>| Response::text(StatusCode::OK, "page");
    let server = serve(|builder| builder.limits(limits).http("/", page));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for n in 0..700 {
                    let response = server.get(Scheme::Ws, "/");
                    assert_eq!(response.text(), "page");
                    // The next client comes at about the time when this thread stops waiting.
                    let pause = KEEP_ALIVE * (n % 25) / 10;
                    let begun = Instant::now();
                    while begun.elapsed() < pause {
                        std::hint::spin_loop();
                    }
                }
            });
        }
    });
    eventually("all places are free", || server.handle.connections() == 0);
}

#[test]
fn a_shared_listener_still_accepts_after_the_server_has_ended() {
    let own = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = own.local_addr().unwrap();
    // A second descriptor of the same socket, as another process would have it.
    let shared = own.try_clone().unwrap();
    let server = Running::new(Server::builder().route("/", || app(echo)).listener(own));
    let mut client = Stream::connect(address, Scheme::Ws);
    client.write_all(handshake("/").as_bytes()).unwrap();
    assert!(client.read_head().starts_with("HTTP/1.1 101 "));
    drop(server);

    let mut client = TcpStream::connect(address).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    shared.set_nonblocking(false).unwrap();
    shared.accept().unwrap().0.write_all(b"not the server").unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "not the server");
}

/// If the other acceptor was faster, the server's thread finds no client, and waits for the next one.
#[test]
fn a_listener_may_be_shared_with_a_busy_acceptor() {
    let own = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = own.local_addr().unwrap();
    let shared = own.try_clone().unwrap();
    let server = Running::new(Server::builder().route("/", || app(echo)).listener(own));
    let (done, stop) = mpsc::channel();
    let other = std::thread::spawn(move || {
        let mut taken = 0;
        while stop.try_recv().is_err() {
            match shared.accept() {
                Ok((mut stream, _)) => {
                    stream.write_all(b"O").unwrap();
                    taken += 1;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(e) => panic!("{e}"),
            }
        }
        taken
    });
    let first = |address| {
        let mut client = Stream::connect(address, Scheme::Ws);
        let _ = client.write_all(handshake("/").as_bytes()); // the other acceptor may have reset the connection
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        byte[0]
    };
    let (mut ours, mut others) = (0, 0);
    eventually("both have accepted some", || {
        match first(address) {
            b'H' => ours += 1,
            b'O' => others += 1,
            byte => panic!("{byte}"),
        }
        ours > 0 && others > 0
    });
    done.send(()).unwrap();
    assert_eq!(other.join().unwrap(), others);
    assert_eq!(first(address), b'H');
    drop(server);
}

#[cfg(target_os = "linux")]
#[test]
fn a_listener_that_is_shut_down_elsewhere_ends_the_server() {
    let own = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = own.local_addr().unwrap();
    let shared = own.try_clone().unwrap();
    let builder = Server::builder().route("/", || app(echo)).listener(own).listen("127.0.0.1:0");
    let server = builder.bind().unwrap();
    let other_address = server.local_addrs()[1].tcp().unwrap();
    let thread = std::thread::spawn(move || server.run());
    let mut client = Stream::connect(address, Scheme::Ws);
    client.write_all(handshake("/").as_bytes()).unwrap();
    assert!(client.read_head().starts_with("HTTP/1.1 101 "));
    rustix::net::shutdown(&shared, rustix::net::Shutdown::Both).unwrap();
    assert_eq!(client.answer_close_and_end().0, 1001);
    let result = thread.join().unwrap();
    assert!(matches!(result, Err(ServerError::Io(_))), "{result:?}");
    assert_closed(other_address);
}

#[cfg(all(feature = "cli", target_os = "linux"))]
mod process {
    use std::fs;

    use super::*;
    use crate::common::{process::Process, reply::Reply};

    /// How many threads of a process have this name, of which the kernel keeps only 15 bytes.
    fn count(process: &Process, name: &str) -> usize {
        let tasks = fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
        // A thread that ends meanwhile has no name any more.
        let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|other| other.trim_end() == name).count()
    }

    fn start() -> (Process, std::net::SocketAddr) {
        let mut process = Process::start(&["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"]);
        let address = process.address("http");
        process.address("http");
        process.line("cls is the example of the IRIS documentation");
        (process, address)
    }

    #[test]
    fn one_thread_accepts_for_each_listener_and_one_serves_each_socket() {
        let (process, address) = start();
        let mut clients: Vec<_> = (0..5).map(|_| Stream::connect(address, Scheme::Ws)).collect();
        for client in &mut clients {
            client.write_all(handshake("/echo").as_bytes()).unwrap();
            assert_eq!(Reply::read(client).status, 101);
        }
        eventually("both accept", || count(&process, "switchboard-acc") == 2);
        assert_eq!(count(&process, "switchboard-con"), 5);
        drop(clients);
        eventually("their threads have ended", || count(&process, "switchboard-con") == 0);
        assert_eq!(count(&process, "switchboard-acc"), 2);
    }
}

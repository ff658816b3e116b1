//! The client: against this crate's own server, and against one that misbehaves.

#![cfg(feature = "__tls")]

mod common;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use common::{
    PATIENCE, SCHEMES, Scheme, SharedEcho, TestServer, app, ends::serve_ends, eventually, serve, serve_app,
};
use switchboard::{
    Client, ClientBuilder, ClientError, CloseCode, ClosedBy, Compression, Error, Limits, Message, Pushed,
    Server, ServerResult, TlsBackend, TlsTrust, WebSocket,
};

/// A builder for this path, which trusts the test CA.
fn builder(server: &TestServer, scheme: Scheme, path: &str) -> ClientBuilder {
    match scheme {
        Scheme::Ws => Client::builder(&ws(server, path)),
        Scheme::Wss => Client::builder(&format!("wss://localhost:{}{path}", server.tls.port()))
            .tls(TlsTrust::ca_file("certs/ca.pem").unwrap()),
    }
}

fn ws(server: &TestServer, path: &str) -> String {
    format!("ws://{}{path}", server.plain)
}

fn assert_echoes(client: &Client, message: impl Into<Message>) {
    let message = message.into();
    client.write(message.clone()).unwrap();
    assert_eq!(client.read_message(PATIENCE).unwrap(), message);
}

fn closed(error: Error) -> switchboard::CloseReason {
    match error {
        Error::Closed(reason) => reason,
        other => panic!("{other}"),
    }
}

/// How many threads of this process have this name.
fn threads_named(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok())
        .filter(|comm| name.starts_with(comm.trim()) && !comm.trim().is_empty())
        .count()
}

#[test]
fn messages_of_all_sizes_come_back() {
    let server = serve(|b| b.route("/", || app(common::echo)).route("/shared", || SharedEcho));
    let ends = SCHEMES.into_iter().flat_map(|scheme| [(scheme, "/"), (scheme, "/shared")]);
    for (scheme, path) in ends {
        for compression in
            [Compression::Off, Compression::Pooled, Compression::Dedicated { window_bits: 9, level: 1 }]
        {
            let client = builder(&server, scheme, path).compression(compression).connect().unwrap();
            for size in [0, 1, 125, 126, 127, 4_096, 65_535, 65_536, 1 << 20] {
                assert_echoes(&client, "ä".repeat(size / 2));
                assert_echoes(&client, vec![7; size]);
            }
            assert_eq!(client.peer().map(|peer| peer.port()), Some(server.address(scheme).port()));
            let reason = client.finish();
            assert_eq!((reason.code(), reason.by()), (CloseCode::NORMAL, ClosedBy::Client));
        }
    }
}

#[test]
fn compression_is_what_both_want() {
    let server = serve(|b| b.compression(Compression::Pooled).route("/", || app(common::echo)));
    let client = |compression| Client::builder(&ws(&server, "/")).compression(compression).connect().unwrap();
    assert!(!client(Compression::Off).is_compressed());
    for compression in [Compression::Pooled, Compression::Dedicated { window_bits: 11, level: 9 }] {
        let client = client(compression);
        assert!(client.is_compressed());
        for _ in 0..3 {
            assert_echoes(&client, "compressed ".repeat(10_000));
        }
    }
}

#[test]
fn what_was_asked_for_reaches_the_server_and_its_choice_the_client() {
    let (tx, seen) = mpsc::channel();
    let server = serve(|b| {
        b.route("/*", move || {
            let tx = tx.clone();
            common::full_app(
                move |opening| {
                    let request = opening.request();
                    let header = |name: &str| request.header(name).unwrap_or_default().to_owned();
                    let query = request.query().to_owned();
                    tx.send((request.path().to_owned(), query, header("x-a"), header("authorization")))
                        .unwrap();
                    assert_eq!(opening.subprotocols(), ["one", "two"]);
                    opening.choose_subprotocol(&["two"]);
                    Ok(())
                },
                common::echo,
                |_| {},
            )
        })
    });
    let url = format!("ws://me:se%3Acret@localhost:{}/a b?c=ä", server.plain.port());
    let client =
        Client::builder(&url).header("X-A", "1").subprotocol("one").subprotocol("two").connect().unwrap();
    assert_eq!(client.subprotocol(), Some("two"));
    assert_eq!(client.response().status(), 101);
    assert_eq!(client.response().header("sec-websocket-protocol"), Some("two"));
    let (path, query, header, authorization) = seen.recv().unwrap();
    assert_eq!((path.as_str(), query.as_str(), header.as_str()), ("/a b", "c=%C3%A4", "1"));
    assert_eq!(authorization, "Basic bWU6c2U6Y3JldA==");
    assert_echoes(&client, "hello");
}

#[test]
fn a_unix_socket_is_reached_by_both_schemes() {
    let folder = common::folder::Folder::new();
    let path = folder.join("s");
    let server = Server::builder()
        .listen(format!("unix:{}", path.display()))
        .route("/x", || app(common::echo))
        .bind()
        .unwrap();
    let handle = server.handle();
    let running = thread::spawn(move || server.run());
    for scheme in ["unix", "ws+unix"] {
        let client = Client::connect(&format!("{scheme}:{}:/x", path.display())).unwrap();
        assert_echoes(&client, "hello");
        assert_eq!(client.peer(), None);
        assert!(client.finish().is_normal());
    }
    handle.shutdown(Duration::ZERO);
    running.join().unwrap().unwrap();
    let gone = Client::connect(&format!("unix:{}:/x", path.display())).unwrap_err();
    assert!(matches!(&gone, ClientError::Connect(e) if e.address == path.display().to_string()), "{gone}");
}

#[test]
fn a_message_is_read_in_parts() {
    let server = serve_app(common::echo);
    let client = Client::connect(&ws(&server, "/")).unwrap();
    client.write("äbcdef").unwrap();
    assert_eq!(client.read(2, PATIENCE).unwrap(), "äb");
    assert!(!client.at_end());
    assert_eq!(client.try_read(3).unwrap().unwrap(), "cde");
    assert_eq!(client.read_message(PATIENCE).unwrap(), "f");
    assert!(client.at_end() && client.try_read(0).unwrap().is_none());
    assert!(client.read(0, Duration::from_millis(10)).unwrap_err().is_timeout());
    client.set_binary_data(true);
    client.write(&[0xff, 0xfe]).unwrap();
    assert_eq!(client.read_message(PATIENCE).unwrap().as_bytes(), [0xff, 0xfe]);
    client.set_binary_data(false);
    assert!(matches!(client.write(&[0xff, 0xfe]), Err(Error::NotUtf8)));
}

#[test]
fn one_thread_reads_while_others_write_and_push() {
    let server = serve_app(common::echo);
    let client = Client::connect(&ws(&server, "/")).unwrap();
    let pusher = client.pusher();
    const EACH: usize = 500;
    thread::scope(|scope| {
        for part in 0..2 {
            let (client, pusher) = (&client, pusher.clone());
            scope.spawn(move || {
                for n in 0..EACH {
                    match part {
                        0 => client.write(format!("w{n}")).unwrap(),
                        _ => pusher.push_wait(format!("p{n}"), PATIENCE).unwrap(),
                    }
                }
            });
        }
        let (mut written, mut pushed) = (0, 0);
        while written + pushed < 2 * EACH {
            let message = client.read_message(PATIENCE).unwrap();
            let next = if message.as_text().unwrap().starts_with('w') { &mut written } else { &mut pushed };
            assert_eq!(message.as_text().unwrap()[1..].parse::<usize>().unwrap(), *next);
            *next += 1;
        }
    });
}

#[test]
fn pings_are_answered_and_pushes_go_out_while_the_program_computes() {
    let mut limits = Limits::default();
    limits.ping_interval = Some(Duration::from_millis(50));
    limits.ping_timeout = Duration::from_secs(10);
    let (server, ends) = serve_ends(limits, common::echo);
    let client = Client::connect(&ws(&server, "/")).unwrap();
    let pusher = client.pusher();
    // It reads once, and then no more for a while.
    assert_echoes(&client, "hello");
    let hub = server.hub.clone();
    let round_trip = || common::connections(&hub)[0].round_trip;
    eventually("a ping is answered", || round_trip().is_some());
    assert!(matches!(pusher.push("pushed").unwrap(), Pushed::Sent | Pushed::Queued));
    eventually("the push has come back", || common::connections(&hub)[0].messages_in == 2);
    assert_eq!(client.read_message(PATIENCE).unwrap(), "pushed");
    drop(client);
    let end = ends.next();
    assert_eq!((end.reason.code(), end.reason.by()), (CloseCode::NORMAL, ClosedBy::Client));
}

#[test]
fn the_server_sees_the_close_of_a_client_that_is_dropped_and_of_one_that_says_why() {
    let (server, ends) = serve_ends(Limits::default(), common::echo);
    drop(Client::connect(&ws(&server, "/")).unwrap());
    assert_eq!(ends.next().reason.code(), CloseCode::NORMAL);
    let client = Client::connect(&ws(&server, "/")).unwrap();
    client.close(4000, "enough");
    let own = closed(client.read_message(PATIENCE).unwrap_err());
    assert_eq!((own.code().0, own.text(), own.by()), (4000, "enough", ClosedBy::Client));
    let end = ends.next();
    assert_eq!((end.reason.code().0, end.reason.text(), end.reason.by()), (4000, "enough", ClosedBy::Client));
    assert!(closed(client.write("x").unwrap_err()) == own && client.finish() == own);
}

#[test]
fn a_close_by_the_server_is_seen_by_whoever_reads_and_also_if_nobody_does() {
    let (server, ends) = serve_ends(Limits::default(), |ws: &mut WebSocket| -> ServerResult {
        ws.write("before")?;
        ws.close(4001, "bye");
        Ok(())
    });
    let reader = Client::connect(&ws(&server, "/")).unwrap();
    assert_eq!(reader.messages().collect::<Vec<_>>(), ["before"]);
    let reason = reader.close_reason().unwrap();
    assert_eq!((reason.code().0, reason.text(), reason.by()), (4001, "bye", ClosedBy::Server));
    // The closing handshake is completed although the client is kept.
    assert_eq!(ends.next().reason.code().0, 4001);
    let mut limits = Limits::default();
    limits.close_timeout = Duration::from_millis(300); // so long the end waits for somebody who reads what came before
    let silent = Client::builder(&ws(&server, "/")).limits(limits).connect().unwrap();
    assert_eq!(ends.next().reason.code().0, 4001);
    assert_eq!(silent.read_message(PATIENCE).unwrap(), "before", "what came before it can still be read");
    assert_eq!(closed(silent.read_message(PATIENCE).unwrap_err()).code().0, 4001);
}

#[test]
fn a_read_in_another_thread_ends_with_a_close() {
    let server = serve_app(common::echo);
    let client = Client::connect(&ws(&server, "/")).unwrap();
    thread::scope(|scope| {
        let reading = scope.spawn(|| client.read_message(PATIENCE));
        let begun = Instant::now();
        thread::sleep(Duration::from_millis(20)); // so that it most likely waits
        client.close(1000, "");
        assert_eq!(closed(reading.join().unwrap().unwrap_err()).by(), ClosedBy::Client);
        assert!(begun.elapsed() < PATIENCE);
    });
}

#[test]
fn all_clients_have_one_thread_and_it_ends_with_the_last() {
    // In a process of its own, since other tests of this file have clients, too.
    if std::env::var_os("SWITCHBOARD_ALONE").is_none() {
        let name = "all_clients_have_one_thread_and_it_ends_with_the_last";
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        let output = child.args(["--exact", name]).env("SWITCHBOARD_ALONE", "1").output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let server = serve_app(common::echo);
    eventually("the server's own has started", || threads_named("switchboard-gate") == 1);
    let before = 1;
    for _ in 0..3 {
        let clients: Vec<_> = (0..20).map(|_| Client::connect(&ws(&server, "/")).unwrap()).collect();
        clients.iter().for_each(|client| assert_echoes(client, "hello"));
        assert_eq!(threads_named("switchboard-gate"), before + 1);
        drop(clients);
        eventually("its thread has ended", || threads_named("switchboard-gate") == before);
    }
}

#[test]
fn only_a_server_with_a_certificate_of_a_trusted_ca_for_the_name_is_talked_to() {
    let server = serve_app(common::echo);
    let url = |host: &str| format!("wss://{host}:{}/", server.tls.port());
    let own = TlsTrust::ca_file("certs/ca.pem").unwrap();
    let mut backends = vec![TlsBackend::default()];
    backends.extend(other_backend());
    for backend in backends {
        let connect = |host: &str, trust: TlsTrust| {
            Client::builder(&url(host)).tls(trust.with_backend(backend)).connect()
        };
        assert_echoes(&connect("localhost", own.clone()).unwrap(), "hello");
        match connect("localhost", TlsTrust::system()) {
            Err(ClientError::Tls(text)) => assert!(text.contains("ertificate"), "{text}"),
            other => panic!("{other:?}"),
        }
        assert_echoes(&connect("localhost", TlsTrust::danger_any_server()).unwrap(), "hello");
    }
    // Neither side takes the other for what it is not.
    let plain = format!("wss://localhost:{}/", server.plain.port());
    let error = Client::builder(&plain).tls(own).connect().unwrap_err();
    assert!(matches!(error, ClientError::Tls(_)), "{error}");
    let error = Client::connect(&format!("ws://localhost:{}/", server.tls.port())).unwrap_err();
    assert!(matches!(&error, ClientError::Refused(r) if r.status() == 400), "{error}");
}

#[cfg(feature = "rustls")]
fn other_backend() -> Option<TlsBackend> {
    Some(TlsBackend::Rustls)
}

#[cfg(not(feature = "rustls"))]
fn other_backend() -> Option<TlsBackend> {
    None
}

// Against a server that does as it likes.

/// A server that gets one client after the other.
struct RawServer {
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

/// What it does with each is its script; a panic in it fails the test.
fn raw_server(scripts: Vec<Box<dyn FnOnce(TcpStream) + Send>>) -> RawServer {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let thread = thread::spawn(move || {
        for script in scripts {
            let (stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_nodelay(true).unwrap();
            script(stream);
        }
    });
    RawServer { address, thread: Some(thread) }
}

/// With one script.
fn raw(script: impl FnOnce(TcpStream) + Send + 'static) -> RawServer {
    raw_server(vec![Box::new(script)])
}

impl RawServer {
    fn builder(&self) -> ClientBuilder {
        Client::builder(&format!("ws://{}/", self.address))
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take()
            && !thread::panicking()
        {
            thread.join().unwrap();
        }
    }
}

/// The answer that the handshake wants.
fn answer(head: &str) -> String {
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

/// Does the handshake as it should be.
fn agree(stream: &mut (impl Read + Write)) {
    let answer = answer(&common::read_head(stream));
    stream.write_all(answer.as_bytes()).unwrap();
}

/// The next frame of a client: its first byte and its payload. It has to be masked.
fn read_masked(stream: &mut impl Read) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    assert!(head[1] > 0x80 && head[1] & 0x7f < 126 || head[1] == 0x80, "a short frame, and masked: {head:?}");
    let mut mask = [0; 4];
    stream.read_exact(&mut mask).unwrap();
    let mut payload = vec![0; usize::from(head[1] & 0x7f)];
    stream.read_exact(&mut payload).unwrap();
    payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    (head[0], payload)
}

/// A frame as a server has to send it.
fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, u8::try_from(payload.len()).unwrap()], payload].concat()
}

fn acceptor() -> native_tls::TlsAcceptor {
    let [certificate, key] =
        ["certs/server.pem", "certs/server.key"].map(|file| std::fs::read(file).unwrap());
    let identity = native_tls::Identity::from_pkcs8(&certificate, &key).unwrap();
    native_tls::TlsAcceptor::new(identity).unwrap()
}

#[test]
fn a_server_that_ends_tls_before_the_stream_is_answered() {
    for by_server in [true, false] {
        let server = raw(move |stream| {
            let mut tls = acceptor().accept(stream).unwrap();
            agree(&mut tls);
            if by_server {
                tls.write_all(&unmasked(0x88, &[3, 0xe8])).unwrap();
                assert_eq!(read_masked(&mut tls), (0x88, vec![3, 0xe8]));
            } else {
                assert_eq!(read_masked(&mut tls), (0x88, vec![3, 0xe8]));
                tls.write_all(&unmasked(0x88, &[3, 0xe8])).unwrap();
            }
            tls.shutdown().unwrap();
            // The client says that it has ended TLS, too, and then ends the stream.
            assert_eq!(tls.read(&mut [0; 9]).unwrap(), 0);
            assert_eq!(tls.get_mut().read(&mut [0; 99]).unwrap(), 0);
        });
        let mut limits = Limits::default();
        limits.close_timeout = 3 * PATIENCE;
        let url = format!("wss://localhost:{}/", server.address.port());
        let trust = TlsTrust::ca_file("certs/ca.pem").unwrap();
        let client = Client::builder(&url).tls(trust).limits(limits).connect().unwrap();
        if by_server {
            assert_eq!(closed(client.read_message(PATIENCE).unwrap_err()).by(), ClosedBy::Server);
        }
        let begun = Instant::now();
        client.finish();
        assert!(begun.elapsed() < PATIENCE);
    }
}

//! The client: against this crate's own server, and against one that misbehaves.

#![cfg(feature = "__tls")]

mod common;

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    sync::mpsc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use common::{
    PATIENCE, SCHEMES, Scheme, SharedEcho, TestServer, app, ends::serve_ends, eventually, is_alone, serve,
    serve_app,
};
use switchboard::{
    Client, ClientBuilder, ClientError, CloseCode, ClosedBy, Compression, ConnectStep, Error, Handled,
    Limits, Message, Opening, PushErrorKind, Pushed, Refusal, Server, ServerResult, TlsTrust, WebSocket,
    WebSocketServer,
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
    let builder = Client::builder(&url).header("X-A", "1").subprotocol("one").subprotocol("two");
    let client = builder.connect().unwrap();
    assert_eq!(client.subprotocol(), Some("two"));
    assert_eq!(client.response().status(), 101);
    assert_eq!(client.response().header("sec-websocket-protocol"), Some("two"));
    let (path, query, header, authorization) = seen.recv().unwrap();
    assert_eq!((path.as_str(), query.as_str(), header.as_str()), ("/a b", "c=%C3%A4", "1"));
    assert_eq!(authorization, "Basic bWU6c2U6Y3JldA==");
    assert_echoes(&client, "hello");
    // Of these there can be one: what is said last.
    let host = format!("localhost:{}", server.plain.port());
    let builder = builder.header("Host", "another").header("Authorization", "Bearer x").header("host", host);
    assert_echoes(&builder.connect().unwrap(), "hello");
    assert_eq!(seen.recv().unwrap().3, "Bearer x");
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
fn what_all_clients_hold_has_a_bound_and_those_that_hold_most_are_ended() {
    if !is_alone("what_all_clients_hold_has_a_bound_and_those_that_hold_most_are_ended") {
        return;
    }
    const EACH: usize = 256 * 1024;
    let server = serve_app(|ws| {
        ws.write(vec![b'x'; EACH])?;
        ws.messages().try_for_each(|message| ws.write(message)).map_err(Into::into)
    });
    let connect = |max_buffered_bytes| {
        let mut limits = Limits::default();
        limits.max_buffered_bytes = max_buffered_bytes;
        limits.ping_interval = Some(Duration::from_millis(40)); // so the gateway looks at it often
        limits.ping_timeout = PATIENCE;
        Client::builder(&ws(&server, "/")).limits(limits).connect().unwrap()
    };
    let ended = |clients: &[Client]| {
        let reasons: Vec<_> = clients.iter().filter_map(Client::close_reason).collect();
        assert!(reasons.iter().all(|reason| (reason.code().0, reason.by()) == (1013, ClosedBy::Client)));
        reasons.len()
    };
    for max_buffered_bytes in [None, Some(8 * EACH)] {
        let small = connect(None);
        assert_eq!(small.read_message(PATIENCE).unwrap().len(), EACH);
        // One of them is enough to say so.
        let mut clients = vec![connect(max_buffered_bytes)];
        clients.extend((1..24).map(|_| connect(None)));
        match max_buffered_bytes {
            Some(_) => eventually("the others fit", || ended(&clients) >= 24 - 8),
            None => eventually("all have come", || {
                common::connections(&server.hub).iter().all(|connection| connection.messages_out > 0)
            }),
        }
        assert_echoes(&small, "it holds nothing, and goes on");
        // Others may be ended meanwhile, as what was sent to them arrives.
        let read = clients.iter().filter_map(|client| client.read_message(PATIENCE).ok()).collect::<Vec<_>>();
        assert!(read.iter().all(|message| message.len() == EACH));
        assert_eq!(read.len() + ended(&clients), clients.len());
        match max_buffered_bytes {
            Some(_) => assert!((1..=8).contains(&read.len()), "{}", read.len()),
            None => assert_eq!(read.len(), 24),
        }
    }
}

#[test]
fn all_clients_have_one_thread_and_it_ends_with_the_last() {
    if !is_alone("all_clients_have_one_thread_and_it_ends_with_the_last") {
        return;
    }
    let server = serve_app(common::echo);
    eventually("the server's own has started", || threads_named("switchboard-gate") == 1);
    let before = 1;
    for _ in 0..3 {
        let clients: Vec<_> = (0..20).map(|_| Client::connect(&ws(&server, "/")).unwrap()).collect();
        clients.iter().for_each(|client| assert_echoes(client, "hello"));
        eventually("there is one more", || threads_named("switchboard-gate") == before + 1);
        drop(clients);
        eventually("its thread has ended", || threads_named("switchboard-gate") == before);
    }
}

#[test]
fn only_a_server_with_a_certificate_of_a_trusted_ca_for_the_name_is_talked_to() {
    let server = serve_app(common::echo);
    let url = |host: &str| format!("wss://{host}:{}/", server.tls.port());
    let own = TlsTrust::ca_file("certs/ca.pem").unwrap();
    for backend in common::backends() {
        let connect = |host: &str, trust: TlsTrust| {
            Client::builder(&url(host)).tls(trust.with_backend(backend)).connect()
        };
        assert_echoes(&connect("localhost", own.clone()).unwrap(), "hello");
        match connect("localhost", TlsTrust::system()) {
            Err(ClientError::Tls(e)) => assert!(e.to_string().contains("ertificate"), "{e}"),
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

#[test]
fn a_port_without_tls_is_named() {
    for backend in common::backends() {
        let server = raw(|mut stream| {
            let _ = stream.read(&mut [0; 999]);
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
            let _ = stream.read(&mut [0; 1]);
        });
        let trust = TlsTrust::system().with_backend(backend);
        let error = Client::builder(&format!("wss://{}/", server.address)).tls(trust).connect().unwrap_err();
        assert!(matches!(&error, ClientError::Tls(e) if e.to_string().contains("ws://")), "{error:?}");
    }
}

#[test]
fn clients_come_and_go_at_once() {
    let server = serve(|b| b.route("/", || app(common::echo)).route("/shared", || SharedEcho));
    thread::scope(|scope| {
        for thread in 0..8 {
            let server = &server;
            scope.spawn(move || {
                for n in 0..25 {
                    let path = if n % 2 == 0 { "/" } else { "/shared" };
                    let client = builder(server, SCHEMES[usize::from(n % 5 == 0)], path).connect().unwrap();
                    assert_echoes(&client, format!("{thread} {n}"));
                    if n % 3 == 0 {
                        assert!(client.finish().is_normal());
                    }
                }
            });
        }
    });
    eventually("all of them are over", || common::connections(&server.hub).is_empty());
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

/// The error of connecting to a server that does this.
fn refused(script: impl FnOnce(TcpStream) + Send + 'static) -> ClientError {
    let server = raw(script);
    server.builder().subprotocol("chat").compression(Compression::Pooled).connect().unwrap_err()
}

/// Answers with this, and leaves the stream open until the client ends it.
fn refused_with(response: impl Into<Vec<u8>>) -> ClientError {
    let response = response.into();
    refused(move |mut stream| {
        common::read_head(&mut stream);
        stream.write_all(&response).unwrap();
        let _ = stream.read(&mut [0; 1]);
    })
}

#[test]
fn an_answer_that_is_none_is_named() {
    let wrong = |from: &'static str, to: &'static str| {
        refused(move |mut stream| {
            let answer = answer(&common::read_head(&mut stream));
            assert!(answer.contains(from));
            stream.write_all(answer.replace(from, to).as_bytes()).unwrap();
            let _ = stream.read(&mut [0; 1]);
        })
    };
    let extra = |line: &'static str| wrong("Upgrade: websocket", line);
    for (error, part) in [
        (wrong("Sec-WebSocket-Accept: ", "Sec-WebSocket-Accept: A"), "Sec-WebSocket-Accept"),
        (wrong("Sec-WebSocket-Accept", "X"), "Sec-WebSocket-Accept"),
        (wrong("Upgrade: websocket", "Upgrade: h2c"), "Upgrade"),
        (wrong("Connection: Upgrade", "Connection: close"), "Connection"),
        (wrong("HTTP/1.1", "HTTP/1.0"), "HTTP/1.0"),
        (extra("Upgrade: websocket\r\nSec-WebSocket-Protocol: other"), "subprotocol"),
        (extra("Upgrade: websocket\r\nSec-WebSocket-Extensions: x-other"), "extension"),
        (
            extra("Upgrade: websocket\r\nSec-WebSocket-Extensions: permessage-deflate"),
            "within what was offered",
        ),
        (
            extra(
                "Upgrade: websocket\r\nSec-WebSocket-Extensions: permessage-deflate; \
                 server_no_context_takeover; client_max_window_bits=16",
            ),
            "malformed",
        ),
        (refused_with("SSH-2.0-OpenSSH\r\n"), "not HTTP"),
        (refused_with([0x15, 3, 1, 0, 2, 2, 70]), "wss://"), // an alert of TLS
        (refused_with("HTTP/1.1 101 x\r\n a: b\r\n\r\n"), "not HTTP"),
        (refused_with(format!("HTTP/1.1 101 x\r\na: {}", "b".repeat(16 << 10))), "16384 bytes"),
        (refused_with(format!("HTTP/1.1 101 x\r\n{}", "a: b\r\n".repeat(200))), "100 header"),
        (refused_with("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000)), "16384 bytes"),
    ] {
        assert!(matches!(&error, ClientError::Handshake(text) if text.contains(part)), "{part}: {error:?}");
    }
}

#[test]
fn a_refusal_comes_with_its_response() {
    let response = |error: ClientError| match error {
        ClientError::Refused(response) => response,
        other => panic!("{other:?}"),
    };
    let plain = response(refused_with("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, and more"));
    assert_eq!((plain.status().as_u16(), plain.body()), (200, &b"hello"[..]));
    let wants = response(refused_with(
        "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n",
    ));
    assert_eq!((wants.status().as_u16(), wants.body()), (401, &b"abcde"[..]));
    assert_eq!((wants.header("www-authenticate"), wants.location()), (Some("Basic"), None));
    let old = response(refused_with(
        "HTTP/1.1 426 Upgrade Required\r\nSec-WebSocket-Version: 8\r\nContent-Length: 0\r\n\r\n",
    ));
    assert_eq!((old.status().as_u16(), old.header("sec-websocket-version")), (426, Some("8")));
    // One that ends with the stream, and one that never ends.
    let ended = refused(|mut stream| {
        common::read_head(&mut stream);
        stream.write_all(b"HTTP/1.0 503 Busy\r\n\r\nlater").unwrap();
    });
    assert_eq!(response(ended).body(), b"later");
    let endless = refused(|mut stream| {
        common::read_head(&mut stream);
        stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n").unwrap();
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    assert_eq!(response(endless).body(), [b'x'; 8192]);
}

#[test]
fn a_redirect_is_not_followed_but_told() {
    let error =
        refused_with("HTTP/1.1 301 Moved\r\nLocation: ws://else.where/\u{202e}\r\nContent-Length: 0\r\n\r\n");
    let text = error.to_string();
    assert!(
        text.contains("301") && text.contains("ws://else.where/") && !text.contains('\u{202e}'),
        "{text}"
    );
    let error = refused_with("HTTP/1.1 307 Elsewhere\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(error.response().unwrap().location(), Some("/there"));
}

#[test]
fn an_answer_in_pieces_and_one_with_frames_behind_it_are_taken() {
    let server = raw(|mut stream| {
        let answer = answer(&common::read_head(&mut stream));
        stream
            .write_all(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n")
            .unwrap();
        for byte in answer.as_bytes() {
            stream.write_all(&[*byte]).unwrap();
        }
        assert_eq!(read_masked(&mut stream), (0x81, b"hello".to_vec()));
    });
    let client = server.builder().connect().unwrap();
    client.write("hello").unwrap();
    drop((client, server));
    let server = raw(|mut stream| {
        let answer = answer(&common::read_head(&mut stream));
        let frames = [
            unmasked(0x81, b"first"),
            unmasked(0x89, b"ping"),
            unmasked(0x02, b"sec"),
            unmasked(0x80, b"ond"),
        ];
        stream.write_all(&[answer.as_bytes(), &frames.concat(), &[0x88, 2, 0x0f]].concat()).unwrap();
        assert_eq!(read_masked(&mut stream), (0x8a, b"ping".to_vec()));
        stream.write_all(&[0xa1]).unwrap();
        assert_eq!(read_masked(&mut stream), (0x88, vec![0x0f, 0xa1]));
    });
    let client = server.builder().connect().unwrap();
    let messages: Vec<_> = client.messages().collect();
    assert_eq!(messages, [Message::from("first"), Message::from(&b"second"[..])]);
    let reason = client.finish();
    assert_eq!((reason.code().0, reason.by()), (4001, ClosedBy::Server));
}

#[test]
fn a_server_that_breaks_the_rules_is_told_so() {
    for (frames, code) in [
        (common::frame(0x81, b"masked"), 1002),
        (unmasked(0xc1, b"compressed, which was not agreed"), 1002),
        (unmasked(0xa1, b"reserved"), 1002),
        (unmasked(0x83, b"opcode"), 1002),
        (unmasked(0x80, b"continues nothing"), 1002),
        (unmasked(0x09, b"a ping in pieces"), 1002),
        (vec![0x81, 126, 0, 1, b'x'], 1002),
        (unmasked(0x88, &[1]), 1002),
        (unmasked(0x88, &[3, 0xed]), 1002),
        (unmasked(0x81, &[0xff]), 1007),
        (vec![0x82, 127, 0, 0, 0, 1, 0, 0, 0, 0], 1009),
    ] {
        let sent = frames.clone();
        let server = raw(move |mut stream| {
            agree(&mut stream);
            stream.write_all(&frames).unwrap();
            let (first, payload) = read_masked(&mut stream);
            assert_eq!((first, u16::from_be_bytes([payload[0], payload[1]])), (0x88, code));
        });
        let client = server.builder().connect().unwrap();
        let reason = closed(client.read_message(PATIENCE).unwrap_err());
        assert_eq!((reason.code().0, reason.by()), (code, ClosedBy::Client), "{sent:?}");
    }
}

#[test]
fn a_connection_that_breaks_is_reported_wherever_that_is() {
    let reset = |stream: TcpStream| {
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    };
    // Before an answer, within it, in a frame, and between frames; by a reset, and by an end.
    for resets in [true, false] {
        let end = move |stream| if resets { reset(stream) } else { drop(stream) };
        let early = refused(move |mut stream| {
            common::read_head(&mut stream);
            end(stream);
        });
        assert!(matches!(&early, ClientError::Broken(e) if e.step == ConnectStep::Handshake), "{early:?}");
        let within = refused(move |mut stream| {
            common::read_head(&mut stream);
            stream.write_all(b"HTTP/1.1 101 Swi").unwrap();
            end(stream);
        });
        assert!(matches!(&within, ClientError::Broken(e) if e.step == ConnectStep::Handshake), "{within:?}");
        for part in [&b""[..], &[0x81], &[0x81, 126], &[0x81, 5, b'x'], &[0x01, 1, b'x']] {
            let server = raw(move |mut stream| {
                agree(&mut stream);
                assert_eq!(read_masked(&mut stream).0, 0x81);
                stream.write_all(part).unwrap();
                end(stream);
            });
            let client = server.builder().connect().unwrap();
            client.write("go").unwrap();
            let reason = closed(client.read_message(PATIENCE).unwrap_err());
            assert_eq!((reason.code().0, reason.by()), (1006, ClosedBy::Network), "{part:?}");
            assert!(closed(client.write("more").unwrap_err()) == reason);
            assert!(client.pusher().push("more").is_err());
        }
    }
}

#[test]
fn a_server_may_be_cut_off_after_any_byte() {
    let head = answer("Sec-WebSocket-Key: x").len();
    let frames = [unmasked(0x01, b"ab"), unmasked(0x89, b"ping"), unmasked(0x80, b"cd")].concat();
    let all = head + frames.len();
    for resets in [true, false] {
        let script = |end: usize| {
            let frames = frames.clone();
            Box::new(move |mut stream: TcpStream| {
                let answer = answer(&common::read_head(&mut stream));
                stream.write_all(&[answer.as_bytes(), &frames].concat()[..end]).unwrap();
                if resets {
                    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
                }
            }) as Box<dyn FnOnce(TcpStream) + Send>
        };
        let server = raw_server((0..=all).map(script).collect());
        for end in 0..=all {
            let client = match server.builder().connect() {
                Ok(client) => client,
                // A reset may overtake the answer.
                Err(ClientError::Broken(_)) if end < head || resets => continue,
                Err(other) => panic!("after {end} of {all} bytes: {other:?}"),
            };
            assert!(end >= head, "{end} of {head} bytes are no answer");
            let messages: Vec<_> = client.messages().collect();
            assert!(messages.is_empty() || messages == ["abcd"] && end == all, "{end}: {messages:?}");
            assert!(resets || messages.len() == usize::from(end == all), "{end}: {messages:?}");
            let reason = client.finish();
            assert_eq!(
                (reason.code().0, reason.by()),
                (1006, ClosedBy::Network),
                "after {end} of {all} bytes"
            );
        }
    }
}

#[test]
fn a_server_that_says_nothing_costs_no_more_than_the_time_for_connecting() {
    let patient = || Duration::from_secs(3); // on a busy machine, too, it gets so far
    let says_nothing = || {
        let silent = raw(|mut stream| {
            common::read_head(&mut stream);
            let _ = stream.read(&mut [0; 1]);
        });
        let error = silent.builder().connect_timeout(patient()).connect().unwrap_err();
        assert!(
            matches!(error, ClientError::Timeout(ConnectStep::Handshake)) && error.is_timeout(),
            "{error:?}"
        );
    };
    // One byte now and then does not prolong it.
    let is_slow = || {
        let slow = raw(|mut stream| {
            common::read_head(&mut stream);
            while stream.write_all(b"x-a: b\r\n").is_ok() && stream.write_all(b"HTTP/1.1 101 x\r\n").is_ok() {
                thread::sleep(Duration::from_millis(20));
            }
        });
        let begun = Instant::now();
        let error = slow.builder().connect_timeout(patient()).connect().unwrap_err();
        assert!(begun.elapsed() < PATIENCE, "{error:?}");
    };
    // Over TLS its handshake is the step.
    let is_deaf = || {
        let deaf = raw(|mut stream| while stream.read(&mut [0; 99]).is_ok_and(|n| n > 0) {});
        let url = format!("wss://{}/", deaf.address);
        let error = Client::builder(&url).connect_timeout(patient()).connect().unwrap_err();
        assert!(matches!(error, ClientError::Timeout(ConnectStep::Tls)), "{error:?}");
    };
    thread::scope(|scope| {
        scope.spawn(says_nothing);
        scope.spawn(is_slow);
        scope.spawn(is_deaf);
    });
}

#[test]
fn a_dead_server_is_found_by_a_ping() {
    let (tx, over) = mpsc::channel::<()>();
    let server = raw(move |mut stream| {
        agree(&mut stream);
        assert_eq!(read_masked(&mut stream).0, 0x89, "a ping");
        let _ = over.recv(); // it is not answered
    });
    let mut limits = Limits::default();
    limits.ping_interval = Some(Duration::from_millis(50));
    limits.ping_timeout = Duration::from_millis(200);
    let client = server.builder().limits(limits).connect().unwrap();
    let reason = closed(client.read_message(PATIENCE).unwrap_err());
    assert_eq!((reason.code().0, reason.by()), (1006, ClosedBy::Network));
    assert!(reason.text().contains("ping"), "{reason}");
    drop(tx);
}

#[test]
fn a_dead_server_is_found_also_while_nobody_reads() {
    let (tx, over) = mpsc::channel::<()>();
    let server = raw(move |mut stream| {
        agree(&mut stream);
        let _ = over.recv();
    });
    let mut limits = Limits::default();
    limits.ping_interval = Some(Duration::from_millis(50));
    limits.ping_timeout = Duration::from_millis(2500); // on a busy machine, too, it is open at first
    let client = server.builder().limits(limits).connect().unwrap();
    assert!(client.try_read(0).unwrap().is_none());
    eventually("the connection is known to be broken", || client.close_reason().is_some());
    drop(tx);
}

#[test]
fn a_server_that_takes_nothing_is_cut_and_the_queue_for_it_has_a_bound() {
    let stuck = || {
        let (tx, over) = mpsc::channel::<()>();
        let server = raw(move |mut stream| {
            agree(&mut stream);
            let _ = over.recv();
        });
        (server, tx)
    };
    let mut limits = Limits::default();
    limits.write_timeout = Duration::from_millis(200);
    let (server, over) = stuck();
    let client = server.builder().limits(limits.clone()).connect().unwrap();
    let late = std::iter::repeat_with(|| client.write(vec![0; 1 << 20])).find_map(Result::err).unwrap();
    assert!(common::is_too_slow(&late), "{late}");
    let reason = client.finish();
    assert_eq!((reason.code().0, reason.by()), (1006, ClosedBy::Client));
    drop((over, server));
    let (server, over) = stuck();
    limits.write_timeout = 3 * PATIENCE;
    limits.max_queue_messages = 10;
    let client = server.builder().limits(limits).connect().unwrap();
    let full =
        std::iter::repeat_with(|| client.pusher().push(vec![0; 1 << 20])).find_map(Result::err).unwrap();
    assert!(matches!(full.kind, PushErrorKind::Full), "{full}");
    assert!(client.close_reason().is_none(), "the caller decides what becomes of it");
    drop((over, server, client));
}

#[test]
fn a_server_that_does_not_answer_a_close_costs_no_more_than_the_close_timeout() {
    let (tx, over) = mpsc::channel::<()>();
    let server = raw(move |mut stream| {
        agree(&mut stream);
        let _ = over.recv();
    });
    let mut limits = Limits::default();
    limits.close_timeout = Duration::from_millis(200);
    let client = server.builder().limits(limits).connect().unwrap();
    client.close(4000, "enough");
    let reason = client.finish();
    assert_eq!((reason.code().0, reason.text(), reason.by()), (4000, "enough", ClosedBy::Client));
    drop((tx, server));
}

#[test]
fn what_is_not_read_holds_the_server_back() {
    let (tx, told) = mpsc::channel();
    let server = raw(move |mut stream| {
        agree(&mut stream);
        stream.set_write_timeout(Some(Duration::from_millis(1500))).unwrap();
        let frame = [&[0x82, 126, 0x40, 0][..], &[7; 0x4000]].concat();
        let count = (0..).take_while(|_| stream.write_all(&frame).is_ok()).count();
        tx.send(count).unwrap();
        let _ = stream.read(&mut [0; 1]);
    });
    let mut limits = Limits::default();
    limits.max_inbox_messages = 10;
    limits.message_timeout = None;
    let client = server.builder().limits(limits).connect().unwrap();
    let sent = told.recv_timeout(PATIENCE).unwrap();
    assert!(sent < 2000, "{sent} messages of 16 KiB: the inbox and the buffers of the system");
    assert_eq!(client.read_message(PATIENCE).unwrap().len(), 0x4000);
    drop(client);
}

// Through a proxy.

/// A proxy that answers CONNECT with what `answer` says, and if that is nothing, connects to this server whatever is asked for.
/// Returns the head of the request, too.
fn proxy(answer: &'static str, server: SocketAddr) -> (RawServer, mpsc::Receiver<String>) {
    let (tx, heads) = mpsc::channel();
    let proxy = raw(move |mut stream| {
        let _ = tx.send(common::read_head(&mut stream));
        if !answer.is_empty() {
            stream.write_all(answer.as_bytes()).unwrap();
            let _ = stream.read(&mut [0; 1]);
            return;
        }
        let mut inner = TcpStream::connect(server).unwrap();
        stream.write_all(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n").unwrap();
        let (mut up, mut down) = (stream.try_clone().unwrap(), inner.try_clone().unwrap());
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = std::io::copy(&mut up, &mut down);
                let _ = down.shutdown(Shutdown::Write);
            });
            let _ = std::io::copy(&mut inner, &mut stream);
            let _ = stream.shutdown(Shutdown::Write);
        });
    });
    (proxy, heads)
}

#[test]
fn a_proxy_leads_to_the_server_with_and_without_tls() {
    let server = serve_app(common::echo);
    let trust = TlsTrust::ca_file("certs/ca.pem").unwrap();
    for (scheme, host) in [(Scheme::Ws, "nobody.invalid"), (Scheme::Wss, "localhost")] {
        let (proxy, heads) = proxy("", server.address(scheme));
        let (name, port) = if scheme == Scheme::Ws { ("ws", 80) } else { ("wss", 443) };
        let client = Client::builder(&format!("{name}://{host}/x?y"))
            .header("Host", "localhost")
            .tls(trust.clone())
            .proxy(&format!("http://me:pass@{}", proxy.address));
        // The server has no such path: its answer comes through.
        let error = client.connect().unwrap_err();
        assert!(matches!(&error, ClientError::Refused(r) if r.status() == 404), "{error:?}");
        let head = heads.recv().unwrap();
        assert!(
            head.starts_with(&format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n")),
            "{head}"
        );
        assert!(head.contains("Proxy-Authorization: Basic bWU6cGFzcw==\r\n"), "{head}");
    }
    let (proxy_there, _heads) = proxy("", server.tls);
    let url = format!("http://{}", proxy_there.address);
    let client = Client::builder("wss://localhost/").tls(trust.clone()).proxy(&url).connect().unwrap();
    assert_echoes(&client, "hello");
    assert!(client.finish().is_normal());
    // The name that the certificate has to be for is that of the URL.
    let (proxy, _heads) = proxy("", server.tls);
    let url = format!("http://{}", proxy.address);
    let error = Client::builder("wss://other.test/").tls(trust).proxy(&url).connect().unwrap_err();
    assert!(matches!(&error, ClientError::Tls(e) if e.to_string().contains("ertificate")), "{error:?}");
}

#[test]
fn a_connection_of_ones_own_leads_to_the_server_or_to_the_proxy() {
    let server = serve_app(common::echo);
    let trust = TlsTrust::ca_file("certs/ca.pem").unwrap();
    // The names lead nowhere, and are not looked up.
    let stream = TcpStream::connect(server.plain).unwrap();
    stream.set_nonblocking(true).unwrap();
    let client = Client::builder("ws://nobody.invalid/").connect_over(stream).unwrap();
    assert_echoes(&client, "hello");
    assert_eq!(client.peer(), Some(server.plain));
    let stream = TcpStream::connect(server.tls).unwrap();
    let client = Client::builder("wss://localhost:1/").tls(trust).connect_over(stream).unwrap();
    assert_echoes(&client, "hello");
    let (proxy, asked) = proxy("", server.plain);
    let stream = TcpStream::connect(proxy.address).unwrap();
    let builder = Client::builder("ws://localhost:7/").proxy("http://nobody.invalid");
    assert_echoes(&builder.connect_over(stream).unwrap(), "hello");
    assert!(asked.recv().unwrap().starts_with("CONNECT localhost:7 "));
    // One that is a pair of sockets, whose other end somebody serves.
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let serving = thread::spawn(move || agree(&mut theirs));
    let client = Client::builder("ws://pair/").connect_over(ours).unwrap();
    serving.join().unwrap();
    assert_eq!(client.peer(), None);
    assert_eq!(closed(client.read_message(PATIENCE).unwrap_err()).code().0, 1006);
}

#[test]
fn a_proxy_that_refuses_or_says_nothing_is_named() {
    let connect = |answer, timeout| {
        let (proxy, _heads) = proxy(answer, "127.0.0.1:1".parse().unwrap());
        let client = Client::builder("wss://nobody.invalid/").proxy(&format!("http://{}", proxy.address));
        client.connect_timeout(timeout).connect().unwrap_err()
    };
    let wants =
        connect("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 2\r\n\r\nno", PATIENCE);
    assert!(matches!(&wants, ClientError::Proxy(r) if r.status() == 407 && r.body() == b"no"), "{wants:?}");
    let more = connect("HTTP/1.1 200 OK\r\n\r\nmore than that", PATIENCE);
    assert!(matches!(&more, ClientError::Handshake(text) if text.contains("proxy")), "{more:?}");
    let other = connect("SSH-2.0-x\r\n", PATIENCE);
    assert!(matches!(other, ClientError::Handshake(_)), "{other:?}");
    let silent = connect("HTTP/1.1 2", Duration::from_secs(3));
    assert!(matches!(silent, ClientError::Timeout(ConnectStep::Proxy)), "{silent:?}");
    let (_held, nobody) = common::nobody();
    let error = Client::builder("ws://h/").proxy(&format!("http://{nobody}")).connect().unwrap_err();
    assert!(matches!(&error, ClientError::Connect(e) if e.address == nobody.to_string()), "{error:?}");
}

#[test]
fn mistakes_are_told_before_anything_is_tried() {
    let config = |builder: ClientBuilder| match builder.connect() {
        Err(ClientError::Config(text)) => text,
        other => panic!("{other:?}"),
    };
    let builder = || Client::builder("ws://127.0.0.1:1/");
    assert!(config(Client::builder("http://h/")).contains("ws://"));
    assert!(config(builder().header("Upgrade", "x")).contains("upgrade"));
    assert!(config(builder().header("Sec-WebSocket-Key", "x")).contains("sec-websocket-key"));
    assert!(config(builder().header("X-A", "a\r\nb: c")).contains("x-a"));
    assert!(config(builder().subprotocol("a b")).contains("subprotocol"));
    assert!(config(builder().proxy("socks5://x")).contains("proxy"));
    assert!(config(Client::builder("ws://good.example\\@h/")).contains('\\'));
    assert!(config(Client::builder("unix:/x:/y").proxy("http://x")).contains("Unix"));
    assert!(config(builder().basic_auth("a:b", "c")).contains("colon"));
    let mut limits = Limits::default();
    limits.max_message_size = 0;
    assert!(config(builder().limits(limits)).contains("max_message_size"));
    let secret = format!("{:?}", builder().basic_auth("me", "secret").header("x-key", "secret"));
    assert!(!secret.contains("secret"), "{secret}");
}

// In a program that has a server, too.

/// Passes what it gets on to another server, and what that has answered back.
struct Relay {
    client: Client,
    url: String,
}

impl WebSocketServer for Relay {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        opening.set_shared_connection(true);
        Ok(())
    }

    fn server(&mut self, _: &mut WebSocket) -> ServerResult {
        Ok(())
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        // The gateway calls this, and must not wait: a read that would wait says so at once.
        let begun = Instant::now();
        let none =
            self.client.read_message(3 * PATIENCE).unwrap_err().is_timeout() && begun.elapsed() < PATIENCE;
        self.client.write(message).unwrap();
        let another = Client::connect(&self.url);
        ws.write(match another {
            Err(ClientError::MustNotWait) if none => "passed on",
            Err(_) | Ok(_) => "it waited",
        })
        .unwrap();
        Handled::Yes
    }
}

#[test]
fn a_client_in_a_callback_that_must_not_wait_does_not() {
    let (tx, passed_on) = mpsc::channel();
    let behind = serve_app(move |ws| {
        for message in ws.messages() {
            tx.send(message).unwrap();
        }
        Ok(())
    });
    let url = ws(&behind, "/");
    let mut limits = Limits::default();
    limits.workers = 0;
    let relay = move || Relay { client: Client::connect(&url).unwrap(), url: url.clone() };
    let front = serve(|b| b.limits(limits).route("/", relay));
    let client = Client::connect(&ws(&front, "/")).unwrap();
    client.write("hello").unwrap();
    assert_eq!(client.read_message(PATIENCE).unwrap(), "passed on");
    assert_eq!(passed_on.recv_timeout(PATIENCE).unwrap(), "hello");
}

#[test]
fn several_messages_are_sent_together() {
    let server = serve_app(common::echo);
    let client = Client::connect(&ws(&server, "/")).unwrap();
    client.write_many([""; 0]).unwrap();
    client.write_many((0..1000).map(|n| format!("message {n}"))).unwrap();
    for n in 0..1000 {
        assert_eq!(client.read_message(PATIENCE).unwrap(), format!("message {n}").as_str());
    }
    // Those before one that cannot be sent are sent.
    let broken = [&b"good"[..], &[0xff], b"never"];
    assert!(matches!(client.write_many(broken), Err(Error::NotUtf8)));
    assert_eq!(client.read_message(PATIENCE).unwrap(), "good");
    // One that comes late does not hold up the others.
    let (tx, more) = mpsc::channel::<&str>();
    tx.send("early").unwrap();
    thread::scope(|scope| {
        let client = &client;
        let writing = scope.spawn(move || client.write_many(more));
        assert_eq!(client.read_message(PATIENCE).unwrap(), "early");
        tx.send("late").unwrap();
        drop(tx);
        assert_eq!(client.read_message(PATIENCE).unwrap(), "late");
        writing.join().unwrap().unwrap();
    });
}

#[test]
fn all_that_is_shared_between_threads_may_be() {
    fn may_be_shared<T: Send + Sync>() {}
    may_be_shared::<Client>();
    may_be_shared::<ClientBuilder>();
    may_be_shared::<ClientError>();
}

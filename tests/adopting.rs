#![cfg(feature = "__tls")]
//! Connections that another HTTP server has accepted, and that are handed over with the request that it has received.

mod common;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use common::{
    PATIENCE, SharedEcho, app, echo, eventually, frame, full_app, handshake, read_frame,
    reply::{Reply, ask},
    running::Running,
};
use switchboard::{
    Closed, Exchange, Limits, Opening, Origins, Refusal, Request, Response, Server, ServerBuilder,
    ServerHandle, ServerResult, WebSocket,
};

/// A server without an address of its own.
fn serve(configure: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Running {
    let builder = Server::builder().route("/", || app(echo)).route("/shared", || SharedEcho);
    Running::new(configure(builder).http("/page", page).http("POST /page", page))
}

fn page(exchange: &Exchange<'_>) -> Result<Response, Refusal> {
    Ok(Response::new("text/plain", [b"page ", &*exchange.body()?].concat()))
}

fn request(head: &str) -> Request {
    let (request, length) = Request::parse(head.as_bytes()).unwrap().unwrap();
    assert_eq!(length, head.len());
    request
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

/// The two ends of a connection.
fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    (client, listener.accept().unwrap().0)
}

fn unix() -> (UnixStream, UnixStream) {
    let (client, server) = UnixStream::pair().unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    (client, server)
}

/// Hands over a connection with this request. Returns the client's end.
fn adopt(handle: &ServerHandle, head: &str) -> UnixStream {
    let (client, stream) = unix();
    handle.adopt(stream, request(head), []);
    client
}

fn echoes(client: &mut (impl Read + Write), text: &str) {
    client.write_all(&frame(0x81, text.as_bytes())).unwrap();
    assert_eq!(read_frame(client), (0x81, text.into()));
}

fn opens(client: &mut (impl Read + Write)) {
    let reply = Reply::read(client);
    assert_eq!((reply.status, reply.header("sec-websocket-accept").is_some()), (101, true), "{reply:?}");
}

#[test]
fn a_connection_is_taken_over_with_what_was_received() {
    let server = serve(|builder| builder);
    assert!(server.addresses.is_empty(), "it needs none");
    for path in ["/", "/shared"] {
        let (first, second) = (frame(0x81, b"first"), frame(0x82, &[2; 100_000]));
        for cut in [0, 1, first.len(), first.len() + 5, first.len() + second.len()] {
            let all = [first.clone(), second.clone()].concat();
            let (mut client, stream) = tcp();
            server.handle.adopt(stream, request(&handshake(path)), &all[..cut]);
            client.write_all(&all[cut..]).unwrap();
            opens(&mut client);
            assert_eq!(read_frame(&mut client), (0x81, b"first".to_vec()), "{path}: {cut}");
            assert_eq!(read_frame(&mut client), (0x82, vec![2; 100_000]));
            echoes(&mut client, "and more");
            client.write_all(&frame(0x88, &1000_u16.to_be_bytes())).unwrap();
            assert_eq!(read_frame(&mut client), (0x88, 1000_u16.to_be_bytes().to_vec()));
            assert_eq!(client.read(&mut [0]).unwrap(), 0);
        }
        let mut client = adopt(&server.handle, &handshake(path));
        opens(&mut client);
        echoes(&mut client, "a Unix socket");
    }
    eventually("they have left", || server.handle.connections() == 0);
}

#[test]
fn a_request_may_be_one_of_another_crate() {
    let server = serve(|builder| builder);
    let make = |path: &str| {
        http::Request::get(path)
            .header("host", "localhost")
            .header("upgrade", "websocket")
            .header("connection", "Upgrade")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .header("sec-websocket-version", "13")
            .header("cookie", "a=\u{fc}")
    };
    for path in ["/?x=1", "http://localhost/?x=1"] {
        let (mut client, stream) = unix();
        let request = Request::try_from(make(path).body("whatever").unwrap()).unwrap();
        assert_eq!((request.path(), request.query()), ("/", "x=1"));
        server.handle.adopt(stream, request, Vec::new());
        opens(&mut client);
        echoes(&mut client, "here");
    }
    let refused = |request: http::request::Builder| {
        Request::try_from(request.body(()).unwrap()).unwrap_err().status().as_u16()
    };
    assert_eq!(refused(make("/").version(http::Version::HTTP_2)), 505);
    assert_eq!(refused(make("/").header("host", "another")), 400);
    assert_eq!(refused(http::Request::get("/")), 400, "without a Host");
}

#[test]
fn a_head_is_parsed_as_it_arrives() {
    let whole = handshake("/x?y") + "what follows";
    let length = whole.len() - "what follows".len();
    for end in 0..whole.len() {
        let parsed = Request::parse(&whole.as_bytes()[..end]).unwrap();
        assert_eq!(parsed.map(|(request, length)| (request.path().to_owned(), length)), {
            (end >= length).then(|| ("/x".to_owned(), length))
        });
    }
    for bad in ["nonsense\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"] {
        assert_eq!(Request::parse(bad.as_bytes()).unwrap_err().status(), 400);
    }
}

#[test]
fn other_requests_are_answered_too_and_may_follow() {
    let server = serve(|builder| builder);
    for first in [get("/page"), get("/nothing"), get("/page").replace("GET", "DELETE")] {
        let mut client = adopt(&server.handle, &first);
        let status = Reply::read(&mut client).status;
        assert_eq!(
            status,
            if first.contains("nothing") {
                404
            } else if first.contains("GET") {
                200
            } else {
                405
            }
        );
        assert_eq!(ask(&mut client, get("/page")).text(), "page ");
        client.write_all(handshake("/").as_bytes()).unwrap();
        opens(&mut client);
        echoes(&mut client, "in the end");
    }
    // A body of which a part has been received.
    let (mut client, stream) = unix();
    let head = "POST /page HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n";
    server.handle.adopt(stream, request(head), b"abc");
    assert_eq!(ask(&mut client, "def").text(), "page abcdef");
}

#[test]
fn what_is_refused_is_refused_here() {
    let server = serve(|builder| {
        builder.origins(Origins::List(vec!["https://friend.example".into()])).route("/members", || {
            full_app(
                |_: &mut Opening| Err(Refusal::new(switchboard::StatusCode::UNAUTHORIZED, "members only")),
                |_: &mut WebSocket| -> ServerResult { unreachable!() },
                |_: &Closed| {},
            )
        })
    });
    let with = |line: &str| handshake("/").replace("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"));
    for (head, status) in [
        (handshake("/nothing"), 404),
        (handshake("/members"), 401),
        (with("Origin: https://stranger.example"), 403),
        (handshake("/").replace("13", "8"), 426),
        (handshake("/").replace("Sec-WebSocket-Key", "X"), 400),
        (handshake("/").replace("GET", "POST"), 405),
        (with("Origin: https://friend.example"), 101),
    ] {
        let mut client = adopt(&server.handle, &head);
        let reply = Reply::read(&mut client);
        assert_eq!(reply.status, status, "{head}");
        assert!(status == 101 || !reply.refusal().is_empty());
    }
    eventually("they have left", || server.handle.connections() == 0);
}

#[test]
fn there_is_a_place_for_each() {
    let mut limits = Limits::default();
    (limits.max_connections, limits.http_keep_alive) = (3, PATIENCE * 10);
    let server = serve(|builder| builder.limits(limits).listen("127.0.0.1:0"));
    let mut clients: Vec<_> = ["/", "/shared"]
        .iter()
        .map(|path| {
            let mut client = adopt(&server.handle, &handshake(path));
            opens(&mut client);
            client
        })
        .collect();
    // This one only waits for its next request, and gives up its place.
    let mut idle = adopt(&server.handle, &get("/page"));
    assert_eq!(Reply::read(&mut idle).status, 200);
    eventually("a connection finds a place", || {
        let mut client = adopt(&server.handle, &handshake("/"));
        let status = Reply::read(&mut client).status;
        clients.extend((status == 101).then_some(client));
        assert!(matches!(status, 101 | 503));
        status == 101
    });
    assert_eq!(idle.read(&mut [0]).unwrap(), 0);
    assert_eq!(server.handle.connections(), 3);
    let mut rejected = adopt(&server.handle, &handshake("/"));
    let reply = Reply::read(&mut rejected);
    assert_eq!((reply.status, reply.header("retry-after")), (503, Some("5")));
    assert!(reply.refusal().contains("too many connections"));
    let mut stranger = TcpStream::connect(server.addresses[0].tcp().unwrap()).unwrap();
    stranger.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(ask(&mut stranger, handshake("/")).status, 503, "the places are the same");
    clients.iter_mut().for_each(|client| echoes(client, "undisturbed"));
    drop(clients);
    eventually("they have left", || server.handle.connections() == 0);
}

#[test]
fn the_server_may_run_later() {
    let mut limits = Limits::default();
    limits.max_connections = 2;
    let server = Server::builder().limits(limits).route("/", || app(echo)).bind().unwrap();
    let handle = server.handle();
    let mut clients = [adopt(&handle, &handshake("/")), adopt(&handle, &handshake("/"))];
    let mut too_many = adopt(&handle, &handshake("/"));
    assert_eq!(Reply::read(&mut too_many).status, 503);
    let running = thread::spawn(move || server.run());
    for client in &mut clients {
        opens(client);
        echoes(client, "served");
    }
    handle.shutdown(PATIENCE * 10);
    for client in &mut clients {
        let (first, payload) = read_frame(client);
        assert_eq!((first, &payload[..2]), (0x88, &1001_u16.to_be_bytes()[..]));
        client.write_all(&frame(0x88, &payload)).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
    let mut late = adopt(&handle, &handshake("/"));
    let reply = Reply::read(&mut late);
    assert!(reply.status == 503 && reply.refusal().contains("shuts down"), "{reply:?}");
    drop(clients);
    running.join().unwrap().unwrap();
    assert_eq!(Reply::read(&mut adopt(&handle, &handshake("/"))).status, 503, "after its end");

    // It never runs.
    let server = Server::builder().route("/", || app(echo)).bind().unwrap();
    let handle = server.handle();
    let mut client = adopt(&handle, &handshake("/"));
    drop(server);
    for client in [&mut client, &mut adopt(&handle, &handshake("/"))] {
        let reply = Reply::read(client);
        assert!(reply.status == 503 && reply.refusal().contains("shuts down"), "{reply:?}");
    }
}

/// What a stranger's page reaches by DNS rebinding is the other server's socket: of a socket pair only the client's address tells.
#[test]
fn a_strangers_name_is_no_way_in_through_another_server() {
    let server = serve(|builder| builder.hosts(["known.example"]));
    let status = |stream: UnixStream, mut client: UnixStream, host: &str, peer: Option<&str>| {
        let origin = format!("Host: {host}\r\nOrigin: http://{host}");
        let request = request(&handshake("/").replace("Host: localhost", &origin));
        let request = match peer {
            Some(peer) => request.with_peer(peer.parse().unwrap()),
            None => request,
        };
        server.handle.adopt(stream, request, []);
        Reply::read(&mut client).status
    };
    for (host, peer, expected) in [
        ("evil.example", Some("127.0.0.1:5"), 421),
        ("evil.example", Some("[::1]:5"), 421),
        ("evil.example", Some("192.168.1.2:5"), 421),
        ("known.example", Some("127.0.0.1:5"), 101),
        ("localhost", Some("127.0.0.1:5"), 101),
        ("evil.example", Some("192.0.2.1:5"), 101), // from the Internet: it is its name
        ("evil.example", None, 101),                // a Unix socket, which no browser reaches
    ] {
        let (client, stream) = unix();
        assert_eq!(status(stream, client, host, peer), expected, "{host} of {peer:?}");
    }
}

#[test]
fn many_threads_hand_over_while_the_server_ends() {
    for round in 0..20 {
        let server = serve(|builder| builder);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let mut client = adopt(&server.handle, &handshake("/"));
                        // Whatever becomes of it, it is answered, or ended with the server.
                        let mut byte = [0];
                        assert!(matches!(client.read(&mut byte), Ok(0 | 1)), "it hangs");
                    }
                });
            }
            thread::sleep(Duration::from_millis(round));
            server.handle.shutdown(Duration::ZERO);
        });
        drop(server); // this fails if `run` does not return
    }
}

#[test]
fn what_the_other_server_knows_of_the_client_is_told() {
    let (tx, seen) = mpsc::channel();
    let server = serve(|builder| {
        builder.trusted_proxies(["192.0.2.1"]).http("/who", move |exchange| {
            let request = exchange.request();
            tx.send((request.peer(), request.client_address(), request.is_secure())).unwrap();
            Response::html("")
        })
    });
    let head = "GET /who HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 198.51.100.7\r\n\r\n";
    let peer: SocketAddr = "192.0.2.1:5".parse().unwrap();
    let (mut client, stream) = unix();
    server.handle.adopt(stream, request(head).with_peer(peer).with_secure(true), []);
    client.write_all(head.as_bytes()).unwrap();
    for n in 0..2 {
        assert_eq!(Reply::read(&mut client).status, 200);
        let expected = (Some(peer), Some("198.51.100.7".parse().unwrap()), true);
        assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), expected, "request {n}");
    }
    let (mut client, stream) = tcp();
    server.handle.adopt(stream, request(head), []);
    assert_eq!(Reply::read(&mut client).status, 200);
    let own = client.local_addr().unwrap();
    assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), (Some(own), Some(own.ip()), false));
}

#[test]
fn a_stream_that_does_not_block_is_made_to() {
    let server = serve(|builder| builder);
    let (mut client, stream) = tcp();
    stream.set_nonblocking(true).unwrap();
    server.handle.adopt(stream, request(&handshake("/")), []);
    opens(&mut client);
    echoes(&mut client, "waited for");
}

/// A program that speaks TLS itself, for example, copies between its client and a socket pair.
#[test]
fn through_a_socket_pair() {
    let server = serve(|builder| builder);
    let (mut client, outside) = tcp();
    let (inside, stream) = unix();
    inside.set_read_timeout(None).unwrap();
    server.handle.adopt(stream, request(&handshake("/")), []);
    let (mut from_client, mut to_server) = (outside.try_clone().unwrap(), inside.try_clone().unwrap());
    let up = thread::spawn(move || {
        let _ = std::io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(std::net::Shutdown::Write);
    });
    let (mut from_server, mut to_client) = (inside, outside);
    let down = thread::spawn(move || {
        let _ = std::io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(std::net::Shutdown::Write);
    });
    opens(&mut client);
    echoes(&mut client, &"x".repeat(200_000));
    let begun = Instant::now();
    server.handle.shutdown(PATIENCE * 10);
    let (first, payload) = read_frame(&mut client);
    assert_eq!(first, 0x88);
    client.write_all(&frame(0x88, &payload)).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    drop(client);
    up.join().unwrap();
    down.join().unwrap();
    drop(server);
    assert!(begun.elapsed() < PATIENCE);
}

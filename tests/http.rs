#![cfg(feature = "__tls")]
//! HTTP beside the WebSockets: methods, bodies, connections that stay open, and who tries to abuse them.

mod common;

use std::{
    io::{ErrorKind, Read, Write},
    net::Shutdown,
    os::unix::net::UnixStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use common::{
    PATIENCE, SCHEMES, Scheme, SharedEcho, Stream, TestServer, app, echo, eventually,
    folder::Folder,
    frame, full_app, handshake, read_frame,
    reply::{Reply, ask},
    running::Running,
    serve,
};
use rustix::{
    net::sockopt::set_socket_recv_buffer_size,
    process::{Resource, getrlimit, setrlimit},
};
use switchboard::{
    Audience, Exchange, Limits, Origins, Refusal, Response, Server, ServerBuilder, StatusCode,
};

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

/// Shows what was asked for, with the body.
fn show(exchange: &Exchange<'_>) -> Result<Response, Refusal> {
    let body = exchange.body()?;
    let request = exchange.request();
    let text = [format!("{} {} ", request.method(), request.path()).as_bytes(), &body].concat();
    Ok(Response::new("application/octet-stream", text))
}

/// Pages of each kind, and WebSockets.
fn pages(builder: ServerBuilder) -> ServerBuilder {
    builder
        .http("/page", show)
        .http("POST /body", show)
        .http("PUT /body", show)
        .http("POST /unread", |_| Response::text(StatusCode::OK, "unread"))
        .http("/empty", |_| Response::text(StatusCode::NO_CONTENT, "not sent"))
        .http("POST /both", show)
        .route("/both", || app(echo))
        .route("/echo", || app(echo))
        .route("/shared", || SharedEcho)
}

fn serve_pages(limits: Limits) -> TestServer {
    serve(|builder| pages(builder.limits(limits)))
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

fn post(path: &str, lines: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n{body}")
}

fn post_length(path: &str, body: &str) -> String {
    post(path, &format!("Content-Length: {}\r\n", body.len()), body)
}

const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

/// Opens a WebSocket on a connection that has been used before.
fn upgrade(stream: &mut (impl Read + Write), path: &str) {
    // With a frame in the same packet.
    stream.write_all(&[handshake(path).into_bytes(), frame(0x81, b"first")].concat()).unwrap();
    assert_eq!(Reply::read(stream).status, 101);
    assert_eq!(read_frame(stream), (0x81, b"first".to_vec()));
    stream.write_all(&frame(0x81, b"second")).unwrap();
    assert_eq!(read_frame(stream), (0x81, b"second".to_vec()));
}

/// Reads to the end of the stream, which must come in order, and returns what comes before it.
fn rest(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    String::from_utf8(bytes).unwrap()
}

// Methods.

#[test]
fn a_method_that_a_page_is_not_for_is_405_with_what_there_is() {
    let site = Folder::new();
    site.write("file.txt", "a file");
    let server = serve(|builder| pages(builder).files("/files/*", &*site).http("HEAD /head", show));
    for scheme in SCHEMES {
        for (path, allow) in [
            ("/page", "GET, HEAD"),
            ("/files/file.txt", "GET, HEAD"),
            ("/body", "POST, PUT"),
            ("/both", "GET, HEAD, POST"),
            ("/head", "HEAD"),
        ] {
            for method in
                ["DELETE", "TRACE", "OPTIONS", "PATCH", "CONNECT", "BREW", "get", "pOST", "M-SEARCH"]
            {
                let reply = server.ask(scheme, get(path).replacen("GET", method, 1));
                assert_eq!(
                    (reply.status, reply.header("allow")),
                    (405, Some(allow)),
                    "{method} {path}: {reply:?}"
                );
                assert!(reply.refusal().contains(allow), "{reply:?}");
            }
        }
        for target in ["localhost:443", "/nowhere", "*"] {
            let reply = server.ask(scheme, get(target).replacen("GET", "CONNECT", 1));
            assert_eq!(
                (reply.status, reply.header("allow")),
                (405, Some("GET, HEAD")),
                "{target}: {reply:?}"
            );
        }
        assert_eq!(server.ask(scheme, post_length("/page", "x")).status, 405);
        assert_eq!(server.get(scheme, "/body").status, 405);
        assert_eq!(server.ask(scheme, get("/nowhere").replacen("GET", "BREW", 1)).status, 404);
        // A WebSocket is opened with GET.
        for method in ["GET", "HEAD"] {
            let reply = server.ask(scheme, get("/both").replacen("GET", method, 1));
            assert_eq!((reply.status, reply.header("upgrade")), (426, Some("websocket")), "{method}");
        }
        assert_eq!(
            server.ask(scheme, get("/echo").replacen("GET", "DELETE", 1)).header("allow"),
            Some("GET")
        );
    }
}

/// Where the files of a folder are beside it, or pages of a prefix, too.
#[test]
fn a_get_of_a_websockets_path_says_that_there_is_one() {
    let site = Folder::new();
    site.write("file.txt", "a file");
    site.write("chat/index.html", "of the chat");
    let server = serve(|builder| {
        builder
            .files("/*", &*site)
            .route("/echo", || app(echo))
            .route("/chat/*", || app(echo))
            .route("/file.txt", || app(echo))
            .route("/shared", || SharedEcho)
    });
    for scheme in SCHEMES {
        for path in ["/echo", "/chat/room", "/shared", "//echo?x=y"] {
            for method in ["GET", "HEAD"] {
                let reply = server.ask(scheme, get(path).replacen("GET", method, 1));
                let told = (reply.status, reply.header("upgrade"), reply.header("sec-websocket-version"));
                assert_eq!(told, (426, Some("websocket"), Some("13")), "{method} {path}: {reply:?}");
            }
            assert_eq!(server.ask(scheme, handshake(path)).status, 101);
        }
        // A file is more than a hint.
        assert_eq!(server.get(scheme, "/file.txt").text(), "a file");
        assert_eq!(server.get(scheme, "/chat/").text(), "of the chat");
        assert_eq!(server.get(scheme, "/nothing").status, 404);
    }
    let alone = serve(|builder| builder.route("/echo", || app(echo)));
    for method in ["GET", "HEAD"] {
        assert_eq!(alone.ask(Scheme::Ws, get("/echo").replacen("GET", method, 1)).status, 426, "{method}");
    }
    // Of the same paths, nobody can say which is meant.
    let server = serve(|builder| builder.files("/*", &*site).route("/*", || app(echo)));
    assert_eq!(server.get(Scheme::Ws, "/nothing").status, 404);
}

/// RFC 9110, section 9.3.7: a ping of HTTP.
#[test]
fn options_of_the_server_as_a_whole_are_answered() {
    let server = serve_pages(Limits::default());
    for scheme in SCHEMES {
        let mut stream = server.raw(scheme);
        let reply = ask(&mut stream, get("*").replacen("GET", "OPTIONS", 1));
        assert_eq!((reply.status, reply.header("content-length"), reply.closes()), (204, None, false));
        assert_eq!(ask(&mut stream, get("/page")).text(), "GET /page ", "and the connection goes on");
        for method in ["GET", "HEAD", "POST", "TRACE"] {
            assert_eq!(server.ask(scheme, get("*").replacen("GET", method, 1)).status, 404, "{method}");
        }
    }
}

#[test]
fn what_the_star_of_a_route_stands_for() {
    let page = |exchange: &Exchange<'_>| Response::text(StatusCode::OK, exchange.path_tail());
    let server = serve(|builder| {
        builder
            .http("/items/*", page)
            .http("POST /items/*", page)
            .http("/items/one", page)
            .http("/items/deeper/*", page)
            .route("/chat/*", || {
                full_app(
                    |opening| {
                        assert_eq!(opening.route(), "/chat/*");
                        let tail = opening.path_tail().to_owned();
                        Ok(opening.set_user(tail)?)
                    },
                    |ws| Ok(ws.write(format!("{} {}", ws.path_tail(), ws.user().unwrap()))?),
                    |_| {},
                )
            })
            .route("/exact", || app(|ws| Ok(ws.write(format!("<{}>", ws.path_tail()))?)))
    });
    for scheme in SCHEMES {
        for (path, tail) in [
            ("/items/two/3", "two/3"),
            ("/items//%74wo%2F3?x=y", "two%2F3"),
            ("/items/", ""),
            ("/items/one", ""),
            ("/items/deeper/x", "x"),
        ] {
            assert_eq!(server.get(scheme, path).text(), tail, "{path}");
        }
        assert_eq!(server.ask(scheme, post_length("/items/two", "")).text(), "two");
        for (path, text) in [("/chat/a/b%20c", "a/b c a/b c"), ("/exact", "<>")] {
            assert_eq!(server.raw_websocket(scheme, path).read_frame(), (0x81, text.into()), "{path}");
        }
    }
}

#[test]
fn each_method_has_its_page() {
    let server = serve_pages(Limits::default());
    for scheme in SCHEMES {
        let mut stream = server.raw(scheme);
        assert_eq!(ask(&mut stream, get("/page")).text(), "GET /page ");
        let head = ask(&mut stream, get("/page").replacen("GET", "HEAD", 1));
        assert_eq!((head.status, head.header("content-length")), (200, Some("11")), "{head:?}");
        for method in ["POST", "PUT"] {
            let request = post_length("/body", "abc").replacen("POST", method, 1);
            assert_eq!(ask(&mut stream, request).text(), format!("{method} /body abc"));
        }
        assert_eq!(ask(&mut stream, post_length("/both", "x")).text(), "POST /both x");
        stream.write_all(b"\r\n").unwrap(); // RFC 9112, section 2.2
        upgrade(&mut stream, "/both");
    }
}

#[test]
fn a_form_is_read() {
    let greet = |exchange: &Exchange<'_>| -> Result<Response, Refusal> {
        let name = exchange.form_value("name")?.ok_or(StatusCode::BAD_REQUEST)?;
        Ok(Response::text(StatusCode::OK, name))
    };
    let server = serve(|builder| builder.http("POST /", greet));
    for scheme in SCHEMES {
        assert_eq!(
            server.ask(scheme, post_length("/", "x=1&name=J%C3%BCrgen+B.&name=2")).text(),
            "Jürgen B."
        );
        assert_eq!(server.ask(scheme, post_length("/", "x=1")).status, 400);
    }
}

/// A page of another port is a stranger's, although the browser sends it with the same cookies.
#[test]
fn a_strangers_page_changes_nothing() {
    let server = serve_pages(Limits::default());
    let open = serve(|builder| pages(builder).origins(Origins::Any));
    let request = |method: &str, path: &str, lines: &str| {
        format!("{method} {path} HTTP/1.1\r\nHost: localhost:80\r\nContent-Length: 0\r\n{lines}\r\n")
    };
    let stranger = "Origin: http://localhost:3000\r\n";
    for scheme in SCHEMES {
        for (method, path, lines, status) in [
            ("POST", "/body", stranger, 403),
            ("PUT", "/body", stranger, 403),
            ("POST", "/body", "Origin: null\r\n", 403),
            ("POST", "/body", "Origin: null\r\nSec-Fetch-Site: cross-site\r\n", 403),
            ("POST", "/body", "Origin: null\r\nSec-Fetch-Site: same-origin\r\n", 200),
            ("POST", "/body", "Origin: https://localhost:80\r\n", 200),
            ("POST", "/body", "", 200),
            ("GET", "/page", stranger, 200),
            ("HEAD", "/page", stranger, 200),
        ] {
            let asked = request(method, path, lines);
            assert_eq!(server.ask(scheme, &asked).status, status, "{asked}");
        }
    }
    assert_eq!(open.ask(Scheme::Ws, request("POST", "/body", stranger)).status, 200);
}

/// Pages reach the connections of their server, and so does whoever is told that one of those has ended.
#[test]
fn pages_have_the_hub() {
    let (tell, told) = mpsc::channel();
    let server = serve(|builder| {
        builder
            .http("POST /tell", |exchange: &Exchange<'_>| -> Result<Response, Refusal> {
                let sent = exchange.hub().broadcast(Audience::Route("/echo/*"), exchange.body()?)?;
                Ok(Response::text(StatusCode::OK, (sent.sent + sent.queued).to_string()))
            })
            .route("/echo/*", move || {
                let tell = tell.clone();
                full_app(
                    |_| Ok(()),
                    echo,
                    move |closed| {
                        tell.send((closed.path().to_owned(), closed.hub().len().unwrap())).unwrap();
                    },
                )
            })
    });
    let mut client = server.raw_websocket(Scheme::Ws, "/echo/a");
    assert_eq!(server.ask(Scheme::Ws, post_length("/tell", "hello")).text(), "1");
    assert_eq!(client.read_frame(), (0x82, b"hello".to_vec()));
    client.write_all(&frame(0x88, b"")).unwrap();
    assert_eq!(told.recv_timeout(PATIENCE), Ok(("/echo/a".to_owned(), 0)));
}

// Connections that stay open.

#[test]
fn a_connection_answers_one_request_after_another() {
    let folder = Folder::new();
    let path = folder.path("socket");
    let unix = Running::new(pages(Server::builder()).listen(format!("unix:{path}")));
    let server = serve_pages(Limits::default());
    for websocket in ["/echo", "/shared"] {
        for scheme in SCHEMES {
            serves(&mut server.raw(scheme), websocket);
        }
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        serves(&mut stream, websocket);
    }
    drop(unix);
}

fn serves(stream: &mut (impl Read + Write), websocket: &str) {
    for n in 0..10 {
        let reply = ask(stream, get("/page"));
        assert_eq!((reply.status, reply.text()), (200, "GET /page "), "request {n}");
        assert_eq!(reply.header("connection"), None);
        assert_eq!(ask(stream, get("/nothing")).status, 404);
        assert_eq!(ask(stream, get("/page").replacen("GET", "DELETE", 1)).status, 405);
        assert_eq!(ask(stream, post_length("/body", "abc")).text(), "POST /body abc");
        let empty = ask(stream, get("/empty"));
        assert_eq!((empty.status, empty.header("content-length")), (204, None));
        assert_eq!(ask(stream, get("/page").replacen("GET", "HEAD", 1)).status, 200);
    }
    upgrade(stream, websocket);
}

#[test]
fn requests_that_come_together_are_answered_in_order() {
    let server = serve_pages(Limits::default());
    let chunked = |text: &str| post("/body", CHUNKED, &format!("{:x}\r\n{text}\r\n0\r\n\r\n", text.len()));
    for scheme in SCHEMES {
        let mut stream = server.raw(scheme);
        let mut all = String::new();
        for n in 0..100 {
            all += &post_length("/body", &format!("number {n}"));
            all += &get("/nothing");
            all += &chunked(&format!("chunk {n}"));
            all += &post_length("/unread", &"GET /page HTTP/1.1\r\n\r\n".repeat(20));
            all += &get("/page").replacen("GET", "HEAD", 1);
        }
        all += &handshake("/echo");
        stream.write_all(&[all.as_bytes(), &frame(0x81, b"in the end")].concat()).unwrap();
        for n in 0..100 {
            assert_eq!(Reply::read(&mut stream).text(), format!("POST /body number {n}"));
            assert_eq!(Reply::read(&mut stream).status, 404);
            assert_eq!(Reply::read(&mut stream).text(), format!("POST /body chunk {n}"));
            assert_eq!(Reply::read(&mut stream).text(), "unread");
            assert_eq!(Reply::read_head(&mut stream).status, 200);
        }
        assert_eq!(Reply::read(&mut stream).status, 101);
        assert_eq!(stream.read_frame(), (0x81, b"in the end".to_vec()));
    }
}

#[test]
fn a_client_may_want_no_second_request() {
    let server = serve_pages(Limits::default());
    for scheme in SCHEMES {
        for request in [
            get("/page").replace("HTTP/1.1", "HTTP/1.0"),
            get("/page").replace("Host: localhost\r\n", "").replace("HTTP/1.1", "HTTP/1.0"),
            get("/page").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"),
            get("/page").replace("\r\n\r\n", "\r\nConnection: x, CLOSE\r\n\r\n"),
        ] {
            let mut stream = server.raw(scheme);
            // The second one is not answered.
            let reply = ask(&mut stream, request.clone() + &get("/page"));
            assert_eq!(
                (reply.text(), reply.header("connection")),
                ("GET /page ", Some("close")),
                "{request}"
            );
        }
        let kept = get("/page").replace("\r\n\r\n", "\r\nConnection: keep-alive\r\n\r\n");
        assert!(!server.ask(scheme, kept).closes());
    }
}

#[test]
fn a_connection_without_requests_is_closed_after_a_while() {
    let keep_alive = Duration::from_millis(2500);
    let server = serve_pages(limits(|l| l.http_keep_alive = keep_alive));
    for scheme in SCHEMES {
        let mut stream = server.raw(scheme);
        assert_eq!(ask(&mut stream, get("/page")).status, 200);
        let begun = Instant::now();
        assert_eq!(ask(&mut stream, get("/page")).status, 200);
        assert_eq!(rest(&mut stream), "", "nothing was asked, nothing is answered");
        assert!(begun.elapsed() > keep_alive / 2, "{:?}", begun.elapsed());
    }
    eventually("their places are free", || server.handle.connections() == 0);
    let server = serve_pages(limits(|l| l.http_keep_alive = Duration::ZERO));
    assert!(server.get(Scheme::Ws, "/page").closes());
}

#[test]
fn each_head_has_a_deadline_of_its_own() {
    let timeout = Duration::from_secs(3);
    let server = serve_pages(limits(|l| l.handshake_timeout = timeout));
    thread::scope(|scope| {
        for scheme in SCHEMES {
            let server = &server;
            scope.spawn(move || {
                let mut stream = server.raw(scheme);
                let begun = Instant::now();
                while begun.elapsed() < timeout * 3 / 2 {
                    assert_eq!(ask(&mut stream, get("/page")).status, 200);
                    thread::sleep(Duration::from_millis(5));
                }
                stream.write_all(b"GET /page HTTP/1.1\r\n").unwrap();
                assert!(stream.read_to_any_end().is_empty());
            });
        }
    });
}

#[test]
fn a_shutdown_ends_connections_without_requests_at_once() {
    for scheme in SCHEMES {
        let server = serve_pages(limits(|l| l.http_keep_alive = PATIENCE * 10));
        let mut idle: Vec<_> = (0..5).map(|_| server.raw(scheme)).collect();
        for stream in &mut idle {
            assert_eq!(ask(stream, get("/page")).status, 200);
        }
        let begun = Instant::now();
        server.handle.shutdown(PATIENCE * 10);
        for stream in &mut idle {
            assert_eq!(
                rest(stream),
                "",
                "an answer without a request would be taken for that to the next one"
            );
        }
        eventually("run returns", || server.has_ended());
        assert!(begun.elapsed() < PATIENCE);
    }
}

#[test]
fn so_many_wait_for_a_request_at_most() {
    let server = serve_pages(limits(|l| (l.max_http_idle, l.http_keep_alive) = (2, PATIENCE * 10)));
    for scheme in SCHEMES {
        let mut idle: Vec<_> = (0..5)
            .map(|_| {
                let mut stream = server.raw(scheme);
                assert_eq!(ask(&mut stream, get("/page")).status, 200);
                stream
            })
            .collect();
        eventually("the others are closed", || server.handle.connections() == 2);
        let mut served = 0;
        for stream in &mut idle {
            let asked = stream.write_all(get("/page").as_bytes());
            served += usize::from(asked.is_ok() && !matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
        }
        assert_eq!(served, 2);
        drop(idle);
        eventually("all have left", || server.handle.connections() == 0);
    }
    let server = serve_pages(limits(|l| l.max_http_idle = 0));
    assert!(server.get(Scheme::Ws, "/page").closes());
}

/// As many descriptors as the system gives.
fn raise_descriptor_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

#[test]
fn a_thousand_idle_clients_take_no_place_from_websockets() {
    const PLACES: usize = 40;
    raise_descriptor_limit();
    let server = serve_pages(limits(|l| {
        (l.max_connections, l.max_http_idle, l.http_keep_alive) = (PLACES, PLACES, PATIENCE * 10);
    }));
    // Of the idle ones a thread may still be on its way to where it waits.
    let finds_place = |request: String, expected: u16| {
        let mut placed = None;
        eventually("an idle connection gives way", || {
            let mut stream = server.raw(Scheme::Ws);
            let status = ask(&mut stream, &request).status;
            assert!(status == expected || status == 503, "{status}");
            placed = (status == expected).then_some(stream);
            placed.is_some()
        });
        placed.unwrap()
    };
    let idle: Vec<_> = (0..1000).map(|_| finds_place(get("/page"), 200)).collect();
    let path = |n: usize| ["/echo", "/shared"][n % 2];
    let mut clients: Vec<_> = (0..PLACES / 2).map(|n| server.raw_websocket(Scheme::Wss, path(n))).collect();
    clients.extend((PLACES / 2..PLACES).map(|n| finds_place(handshake(path(n)), 101)));
    assert_eq!(server.handle.connections(), PLACES);
    assert_eq!(server.ask(Scheme::Ws, handshake("/echo")).status, 503);
    for client in &mut clients {
        client.write_all(&frame(0x81, b"undisturbed")).unwrap();
        assert_eq!(client.read_frame(), (0x81, b"undisturbed".to_vec()));
    }
    for mut stream in idle {
        assert!(stream.read_to_any_end().is_empty());
    }
    drop(clients);
    eventually("all places are free", || server.handle.connections() == 0);
}

// Bodies.

#[test]
fn bodies_have_a_limit() {
    const MAX: usize = 100_000;
    let server = serve_pages(limits(|l| l.max_body = MAX));
    for scheme in SCHEMES {
        let mut stream = server.raw(scheme);
        for length in [0, 1, 1000, MAX - 1, MAX] {
            let body = "x".repeat(length);
            let answer = format!("POST /body {body}");
            assert!(ask(&mut stream, post_length("/body", &body)).text() == answer, "{length}");
            for size in [1, 7, 5000, MAX] {
                let chunks = chunks(&body, size);
                assert!(
                    ask(&mut stream, post("/body", CHUNKED, &chunks)).text() == answer,
                    "{length} by {size}"
                );
            }
        }
        let body = "x".repeat(MAX + 1);
        for request in [
            post_length("/body", &body),
            post("/body", CHUNKED, &chunks(&body, 1000)),
            post("/body", "Content-Length: 18446744073709551615\r\n", &body),
            post("/body", "Content-Length: 18446744073709551616\r\n", &body),
            post("/body", CHUNKED, "ffffffffffffffff\r\n") + &body,
        ] {
            let reply = server.ask(scheme, &request);
            assert_eq!(reply.status, 413, "{reply:?}");
            assert!(reply.closes() && !reply.refusal().is_empty());
        }
    }
}

fn chunks(body: &str, size: usize) -> String {
    let chunks: String = body
        .as_bytes()
        .chunks(size)
        .map(|chunk| format!("{:X};x\r\n{}\r\n", chunk.len(), str::from_utf8(chunk).unwrap()))
        .collect();
    chunks + "0\r\nx: y\r\n\r\n"
}

#[test]
fn a_body_may_arrive_byte_by_byte() {
    let server = serve_pages(Limits::default());
    for scheme in SCHEMES {
        let mut stream = server.raw(scheme);
        for request in
            [post_length("/body", "slowly"), post("/body", CHUNKED, &chunks("slowly", 4)), get("/page")]
        {
            for byte in request.bytes() {
                stream.write_all(&[byte]).unwrap();
            }
            assert_eq!(Reply::read(&mut stream).status, 200);
        }
    }
}

#[test]
fn a_client_that_waits_for_a_100_gets_it_if_its_body_is_wanted() {
    let expect = |path: &str, length: usize| {
        post(path, &format!("Content-Length: {length}\r\nExpect: 100-Continue\r\n"), "")
    };
    let server = serve_pages(limits(|l| l.max_body = 1000));
    for scheme in SCHEMES {
        let mut stream = server.raw(scheme);
        for _ in 0..2 {
            stream.write_all(expect("/body", 3).as_bytes()).unwrap();
            assert_eq!(stream.read_head(), "HTTP/1.1 100 Continue\r\n\r\n");
            assert_eq!(ask(&mut stream, "abc").text(), "POST /body abc");
        }
        // It has not waited.
        assert_eq!(ask(&mut stream, expect("/body", 3) + "abc").text(), "POST /body abc");
        assert_eq!(ask(&mut stream, expect("/body", 0)).text(), "POST /body ");
        // It may send the body now, or not: what follows could be either.
        for (request, status) in [
            (expect("/unread", 3), 200),
            (expect("/nothing", 3), 404),
            (expect("/page", 3), 405),
            (expect("/body", 1001), 413),
            (post("/body", "Content-Length: 3\r\nExpect: a miracle\r\n", ""), 417),
        ] {
            let reply = server.ask(scheme, request);
            assert!(reply.status == status && reply.closes(), "{reply:?}");
        }
        let old = expect("/body", 3).replace("HTTP/1.1", "HTTP/1.0") + "abc";
        assert_eq!(server.ask(scheme, old).text(), "POST /body abc");
    }
}

#[test]
fn what_a_proxy_could_understand_differently_is_refused() {
    const INNER: &str = "GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let seen = Arc::<AtomicUsize>::default();
    let count = seen.clone();
    let server = serve(|builder| {
        pages(builder).http("/smuggled", move |_| {
            count.fetch_add(1, SeqCst);
            Response::html("")
        })
    });
    let long = format!("3;{}\r\nabc\r\n0\r\n\r\n", "x".repeat(10_000));
    let trailers = format!("0\r\n{}\r\n", "x: y\r\n".repeat(5000));
    for scheme in SCHEMES {
        for (lines, body) in [
            ("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            ("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", "0\r\n\r\n"),
            ("Content-Length: 0\r\nContent-Length: 44\r\n", ""),
            ("Content-Length: 0, 44\r\n", ""),
            ("Content-Length: +0\r\n", ""),
            ("Content-Length: 0x0\r\n", ""),
            ("Content-Length: \r\n", ""),
            ("Content-Length : 0\r\n", ""),
            ("Content-Length: 0\r\n ,44\r\n", ""),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"),
            ("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
            ("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
            ("Transfer-Encoding:\u{b}chunked\r\n", "0\r\n\r\n"),
            ("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
            ("X: y\rTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
            (CHUNKED, "\r\n\r\n"),
            (CHUNKED, "0\n\n"),
            (CHUNKED, "0;\n\r\n\r\n"),
            (CHUNKED, "1;\nx\r\nab\r\n0\r\n\r\n"),
            (CHUNKED, "3\r\nabcd\r\n0\r\n\r\n"),
            (CHUNKED, "3\r\nabc\n0\r\n\r\n"),
            (CHUNKED, "-1\r\nabc\r\n0\r\n\r\n"),
            (CHUNKED, "fffffffffffffffff\r\nabc\r\n0\r\n\r\n"),
            (CHUNKED, &long),
            (CHUNKED, &trailers),
        ] {
            for path in ["/body", "/unread", "/nothing"] {
                let mut stream = server.raw(scheme);
                let request = post(path, lines, body) + INNER;
                stream.write_all(request.as_bytes()).unwrap();
                let reply = Reply::read(&mut stream);
                assert!(reply.closes(), "{request}{reply:?}");
                // A body that nobody reads is not looked at.
                if lines != CHUNKED || path == "/body" {
                    assert_eq!(reply.status, 400, "{request}{reply:?}");
                }
            }
        }
        let gzip = post("/body", "Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n");
        assert_eq!(server.ask(scheme, gzip + INNER).status, 501);
        let old = post("/body", CHUNKED, "0\r\n\r\n").replace("HTTP/1.1", "HTTP/1.0");
        assert_eq!(server.ask(scheme, old + INNER).status, 400);
        assert_eq!(server.get(scheme, "/page").status, 200);
    }
    assert_eq!(seen.load(SeqCst), 0);
}

#[test]
fn a_body_that_nobody_reads_is_thrown_away_or_ends_the_connection() {
    let server = serve_pages(Limits::default());
    for scheme in SCHEMES {
        for (request, status) in [
            (post_length("/unread", &"x".repeat(10_000)), 200),
            (post_length("/nothing", &"x".repeat(10_000)), 404),
            (post_length("/page", &"x".repeat(10_000)), 405),
        ] {
            let mut stream = server.raw(scheme);
            for _ in 0..3 {
                let reply = ask(&mut stream, &request);
                assert!(reply.status == status && !reply.closes(), "{reply:?}");
            }
            assert_eq!(ask(&mut stream, get("/page")).status, 200);
        }
        for request in [
            post_length("/unread", &"x".repeat(3_000_000)),
            post("/unread", CHUNKED, &chunks(&"x".repeat(1_000_000), 10_000)),
        ] {
            let reply = ask_in_vain(&server, scheme, &request);
            assert_eq!((reply.status, reply.closes(), reply.text()), (200, true, "unread"));
        }
        // It announces a short body, and sends nothing of it.
        let mut stream = server.raw(scheme);
        assert_eq!(ask(&mut stream, post("/unread", "Content-Length: 10\r\n", "")).status, 200);
        assert!(stream.read_to_any_end().is_empty());
    }
    eventually("all places are free", || server.handle.connections() == 0);
}

/// Sends a long body that nobody reads, and reads the response. So much is thrown away for a second only, which may be over before
/// all is sent on a busy machine.
fn ask_in_vain(server: &TestServer, scheme: Scheme, request: &str) -> Reply {
    let mut sent = None;
    eventually("all is sent in time", || {
        let mut stream = server.raw(scheme);
        sent = stream.write_all(request.as_bytes()).ok().map(|()| stream);
        sent.is_some()
    });
    Reply::read(&mut sent.unwrap())
}

#[test]
fn a_slow_body_is_not_waited_for() {
    let server = serve_pages(limits(|l| l.handshake_timeout = Duration::from_secs(3)));
    thread::scope(|scope| {
        for scheme in SCHEMES {
            for (lines, step) in [
                ("Content-Length: 100000\r\n", "x"),
                ("Content-Length: 15000\r\n", "x"),
                (CHUNKED, "1\r\nx\r\n"),
            ] {
                // A byte now and then, and nothing at all.
                for pause in [Duration::from_millis(20), PATIENCE] {
                    let stream = server.raw(scheme);
                    scope.spawn(move || assert_eq!(send_slowly(stream, lines, step, pause), 408));
                }
            }
        }
    });
    eventually("their places are free", || server.handle.connections() == 0);
}

/// Sends a body step by step, until there is an answer. Returns its status.
fn send_slowly(mut stream: Stream, lines: &str, step: &str, pause: Duration) -> u16 {
    stream.write_all(post("/body", lines, step).as_bytes()).unwrap();
    stream.tcp().set_read_timeout(Some(pause)).unwrap();
    let begun = Instant::now();
    let mut first = [0];
    loop {
        assert!(begun.elapsed() < PATIENCE, "it waits for ever");
        match stream.read(&mut first) {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            read => break assert_eq!(read.unwrap(), 1),
        }
        let _ = stream.write_all(step.as_bytes()); // it may have been answered just now
    }
    stream.tcp().set_read_timeout(Some(PATIENCE)).unwrap();
    let reply = Reply::read(&mut (&first[..]).chain(stream));
    assert!(reply.closes(), "{reply:?}");
    reply.status
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_body_does_no_harm() {
    let errors = Arc::<Mutex<Vec<StatusCode>>>::default();
    let seen = errors.clone();
    let (tx, begun) = mpsc::channel();
    let server = serve(|builder| {
        builder.http("POST /", move |exchange| {
            tx.send(()).unwrap();
            let body = exchange.body();
            seen.lock().unwrap().extend(body.as_ref().map_err(Refusal::status).err());
            body.map(|_| Response::html(""))
        })
    });
    for scheme in SCHEMES {
        for lines in ["Content-Length: 10\r\n", CHUNKED] {
            let begin = || {
                let mut stream = server.raw(scheme);
                stream.write_all(post("/", lines, "5\r\nabc").as_bytes()).unwrap();
                // A reset might overtake the request; and so might the end of a client that has not read what TLS 1.3 sends it.
                begun.recv_timeout(PATIENCE).unwrap();
                stream
            };
            begin().reset();
            drop(begin());
            let mut stream = begin();
            stream.half_close();
            assert_eq!(Reply::read(&mut stream).status, 400);
        }
    }
    eventually("the handler was told each time", || errors.lock().unwrap().len() == 12);
    assert!(errors.lock().unwrap().iter().all(|status| *status == 400));
    eventually("all places are free", || server.handle.connections() == 0);
}

#[test]
fn a_handler_that_panics_over_a_body_ends_the_connection_in_order() {
    let server = serve(|builder| {
        builder.http("POST /", |exchange| -> Response { panic!("on purpose: {:?}", exchange.body()) })
    });
    for scheme in SCHEMES {
        let mut stream = server.raw(scheme);
        for _ in 0..2 {
            assert_eq!(ask(&mut stream, post_length("/", "abc")).status, 500);
        }
        assert_eq!(ask_in_vain(&server, scheme, &post_length("/", &"x".repeat(2 << 20))).status, 500);
    }
}

// Responses.

#[test]
fn every_response_has_the_date() {
    let server = serve_pages(Limits::default());
    for scheme in SCHEMES {
        for (request, status) in [
            (get("/page"), 200),
            (get("/empty"), 204),
            (get("/nothing"), 404),
            (handshake("/nothing"), 404),
            ("nonsense\r\n\r\n".into(), 400),
        ] {
            let reply = server.ask(scheme, &request);
            assert_eq!(reply.status, status);
            assert_date(&reply);
        }
    }
    let server = serve_pages(limits(|l| l.max_connections = 1));
    let _websocket = server.raw_websocket(Scheme::Ws, "/echo");
    let reply = server.get(Scheme::Ws, "/page");
    assert_eq!(reply.status, 503);
    assert_date(&reply);
}

/// RFC 9110, section 5.6.7.
fn assert_date(reply: &Reply) {
    let [date] = reply.headers("date")[..] else { panic!("{reply:?}") };
    assert!(date.len() == 29 && date.ends_with(" GMT") && date.as_bytes()[3] == b',', "{date}");
}

#[test]
fn a_client_that_takes_a_response_too_slowly_is_cut() {
    const SIZE: usize = 64 << 20;
    let server = serve(|builder| {
        let limits = limits(|l| {
            (l.write_timeout, l.min_http_rate) = (Duration::from_secs(2), 16 << 20);
        });
        builder.limits(limits).http("/", |_| Response::new("x/y", vec![b'x'; SIZE]))
    });
    for scheme in SCHEMES {
        // It always takes some, and so never waits for long; but all of it would take it a minute.
        let mut stream = server.raw(scheme);
        set_socket_recv_buffer_size(stream.tcp(), 64 << 10).unwrap();
        stream.write_all(get("/").as_bytes()).unwrap();
        let mut buffer = vec![0; 32 << 10];
        eventually("its place is free", || {
            let _ = stream.read(&mut buffer);
            thread::sleep(Duration::from_millis(25));
            server.handle.connections() == 0
        });

        // It takes a byte a while, or nothing.
        let mut stream = server.raw(scheme);
        stream.write_all(get("/").as_bytes()).unwrap();
        let mut byte = [0];
        eventually("its place is free", || {
            let _ = stream.read(&mut byte);
            server.handle.connections() == 0
        });
    }
}

#[test]
fn a_file_that_is_cut_meanwhile_ends_the_connection() {
    const SIZE: u64 = 64 << 20;
    let site = Folder::new();
    let path = site.write("file", "");
    let server = serve(|builder| builder.files("/*", &*site));
    for scheme in SCHEMES {
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_len(SIZE).unwrap();
        let mut stream = server.raw(scheme);
        set_socket_recv_buffer_size(stream.tcp(), 64 << 10).unwrap();
        stream.write_all((get("/file") + &get("/file")).as_bytes()).unwrap();
        assert_eq!(Reply::read_head(&mut stream).header("content-length"), Some(&*SIZE.to_string()));
        file.set_len(1).unwrap();
        let bytes = stream.read_to_any_end();
        assert!(bytes.len() < SIZE as usize && bytes.iter().all(|&b| b == 0), "{}", bytes.len());
    }
}

#[test]
fn a_handler_can_end_the_connection() {
    let server =
        serve(|builder| builder.http("/", |_| Response::html("x").with_header("connection", "close")));
    for scheme in SCHEMES {
        let mut stream: Stream = server.raw(scheme);
        let reply = ask(&mut stream, get("/") + &get("/"));
        assert!(reply.closes() && reply.text() == "x");
        let _ = stream.tcp().shutdown(Shutdown::Both);
    }
}

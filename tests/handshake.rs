#![cfg(feature = "__tls")]
//! The opening handshake, what the application sees of it, and each reason to be refused.

mod common;

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::{Duration, Instant},
};

use common::{
    PATIENCE, SCHEMES, Scheme, Stream, TestServer, app, echo, eventually, frame, full_app, handshake,
    next_message, reply::Reply, serve, serve_app,
};
use switchboard::{
    Closed, Compression, HeaderName, HeaderValue, Limits, Opening, Origins, Refusal, Response, Server,
    ServerError, StatusCode, WebSocket, header,
};
use tungstenite::Message;

/// The handshake, with one part replaced.
fn changed(from: &str, to: &str) -> String {
    let good = handshake("/");
    assert!(good.contains(from), "{from:?} is not in {good:?}");
    good.replacen(from, to, 1)
}

/// The handshake, with one more header line.
fn with_line(line: &str) -> String {
    changed("\r\n\r\n", &format!("\r\n{line}\r\n\r\n"))
}

/// Checks that the server still serves clients.
fn assert_serves(server: &TestServer) {
    for scheme in SCHEMES {
        let mut client = server.connect(scheme, "/");
        client.send(Message::text("alive")).unwrap();
        assert_eq!(next_message(&mut client), Message::text("alive"));
    }
}

/// Waits for the end of the stream, in order or by a reset. Returns what was received before it.
fn read_to_cut(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            panic!("the stream does not end")
        }
        _ => bytes,
    }
}

#[test]
fn the_key_is_answered_with_its_accept_value() {
    let server = serve_app(echo);
    for scheme in SCHEMES {
        for (key, accept) in [
            ("dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), // RFC 6455, section 1.3
            ("x3JJHMbDL1EzLkh9GBhXDw==", "HSmrc0sMlYUkAGmm5OPpG2HaGWk="),
            // 22 random letters: bits of the last one belong to no byte, and are answered as they were sent.
            ("dGhlIHNhbXBsZSBub25jZR==", "Zgw8jYXtqX5qJr7MJ1Q/MqzeSRI="),
        ] {
            let reply = server.ask(scheme, changed("dGhlIHNhbXBsZSBub25jZQ==", key));
            assert_eq!(reply.status, 101, "{reply:?}");
            assert_eq!(reply.headers("sec-websocket-accept"), [accept]);
            assert_eq!(reply.headers("upgrade"), ["websocket"]);
            assert_eq!(reply.headers("connection"), ["Upgrade"]);
            // Nothing that the client did not offer: it would have to fail the connection (RFC 6455, section 4.1).
            assert_eq!(reply.header("sec-websocket-protocol"), None);
            assert_eq!(reply.header("sec-websocket-extensions"), None);
            assert_eq!(reply.header("content-length"), None);
        }
    }
}

#[test]
fn all_allowed_forms_are_accepted() {
    let server = serve_app(echo);
    for scheme in SCHEMES {
        for head in [
            changed("Connection: Upgrade", "Connection: keep-alive, Upgrade"),
            changed("Connection: Upgrade", "connection: keep-alive\r\nCONNECTION: upgrade"),
            changed("Upgrade: websocket", "UPGRADE: WebSocket"),
            changed("Host: localhost", "host:localhost:80"),
            changed("Host: localhost", "Host: [::1]:8080"),
            changed("Version: 13", "Version:   13  "),
            changed("GET / ", "GET http://localhost/ "),
            with_line("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-unknown"),
            with_line("X-Empty:"),
        ] {
            let mut stream = server.raw(scheme);
            stream.write_all(head.as_bytes()).unwrap();
            let reply = Reply::read(&mut stream);
            assert_eq!(reply.status, 101, "{head}{reply:?}");
        }
    }
}

#[test]
fn the_subprotocol_is_one_of_those_offered() {
    let server = serve(|builder| {
        builder
            .route("/none", || app(|ws: &mut WebSocket| Ok(ws.write(format!("{:?}", ws.subprotocol()))?)))
            .route("/chat", || {
                full_app(
                    |opening: &mut Opening| {
                        let chosen = opening.choose_subprotocol(&["chat.v2", "chat.v1"]);
                        assert!(
                            chosen.is_none_or(|chosen| opening.subprotocols().iter().any(|o| o == chosen))
                        );
                        Ok(())
                    },
                    |ws: &mut WebSocket| Ok(ws.write(format!("{:?}", ws.subprotocol()))?),
                    |_: &Closed| {},
                )
            })
    });
    for scheme in SCHEMES {
        for (path, offer, chosen) in [
            ("/chat", "chat.v1, chat.v2", Some("chat.v2")),
            ("/chat", "superchat,chat.v1", Some("chat.v1")),
            ("/chat", "superchat\r\nSec-WebSocket-Protocol: x, chat.v1", Some("chat.v1")),
            ("/chat", "CHAT.V1, chat", None),
            ("/none", "chat.v1, chat.v2", None),
        ] {
            let mut stream = server.raw(scheme);
            let line = format!("\r\nSec-WebSocket-Protocol: {offer}\r\n\r\n");
            stream.write_all(handshake(path).replace("\r\n\r\n", &line).as_bytes()).unwrap();
            let reply = Reply::read(&mut stream);
            assert_eq!((reply.status, reply.header("sec-websocket-protocol")), (101, chosen), "{offer}");
            assert_eq!(stream.read_frame(), (0x81, format!("{chosen:?}").into_bytes()));
        }
        let mut stream = server.raw_websocket(scheme, "/chat");
        assert_eq!(stream.read_frame(), (0x81, b"None".to_vec()), "without an offer none is chosen");
    }
}

#[test]
fn the_application_adds_headers_and_cookies() {
    let server = serve(|builder| {
        builder.route("/", || {
            full_app(
                |opening: &mut Opening| {
                    opening
                        .add_header(HeaderName::from_static("x-served-by"), HeaderValue::from_static("me"));
                    opening.add_header("Set-Cookie", "a=1; Path=/");
                    opening.add_header(header::SET_COOKIE, HeaderValue::from_static("b=2"));
                    Ok(())
                },
                echo,
                |_: &Closed| {},
            )
        })
    });
    for scheme in SCHEMES {
        let (_client, response) = server.try_connect(scheme, "/", &[]).unwrap();
        assert_eq!(response.headers()["x-served-by"], "me");
        let cookies: Vec<_> = response.headers().get_all("set-cookie").iter().collect();
        assert!(cookies.iter().any(|cookie| *cookie == "a=1; Path=/"), "{cookies:?}");
        assert!(cookies.iter().any(|cookie| *cookie == "b=2"), "{cookies:?}");
    }
}

#[test]
fn the_application_sees_the_request_and_the_client() {
    let (tx, rx) = mpsc::channel();
    let server = serve(|builder| {
        let route = move || {
            let (before, during, after) = (tx.clone(), tx.clone(), tx.clone());
            full_app(
                move |opening: &mut Opening| {
                    let request = opening.request();
                    assert_eq!((request.method().as_str(), request.path()), ("GET", "/room/7"));
                    assert_eq!((opening.path(), request.query()), ("/room/7", "user=J%C3%BCrgen+B&x=1&x=2"));
                    assert_eq!(request.query_value("user").as_deref(), Some("Jürgen B"));
                    assert_eq!(request.query_value("x").as_deref(), Some("1"));
                    assert_eq!(request.query_value("y"), None);
                    assert_eq!((request.cookie("theme"), request.cookie("lang")), (Some("dark"), Some("de")));
                    assert_eq!(request.cookie("dark"), None);
                    assert_eq!(request.header("x-thing"), Some("some thing"));
                    assert_eq!(opening.client_address(), request.peer().map(|peer| peer.ip()));
                    let seen = (request.peer(), request.is_secure(), *opening.websocket_id());
                    before.send(seen).unwrap();
                    Ok(())
                },
                move |ws: &mut WebSocket| {
                    let request = ws.request().unwrap();
                    assert_eq!((request.path(), request.cookie("lang")), ("/room/7", Some("de")));
                    assert_eq!(ws.client_address(), ws.peer().map(|peer| peer.ip()));
                    during.send((ws.peer(), request.is_secure(), *ws.websocket_id()))?;
                    Ok(())
                },
                move |closed: &Closed| {
                    after.send((None, false, *closed.websocket_id())).unwrap();
                },
            )
        };
        builder.route("/room/7", route)
    });
    let mut ids = Vec::new();
    for scheme in SCHEMES {
        let headers = [("cookie", "theme=dark; lang=de"), ("x-thing", "some thing")];
        let (mut client, _) =
            server.try_connect(scheme, "/room/7?user=J%C3%BCrgen+B&x=1&x=2", &headers).unwrap();
        let local = client.get_ref().tcp().local_addr().unwrap();
        let before = rx.recv_timeout(PATIENCE).unwrap();
        assert_eq!((before.0, before.1), (Some(local), scheme == Scheme::Wss));
        assert_eq!(rx.recv_timeout(PATIENCE).unwrap(), before);
        assert_eq!(common::read_close(&mut client).0, 1000, "no assertion failed in the handler");
        drop(client);
        let id = before.2;
        assert_eq!(rx.recv_timeout(PATIENCE).unwrap().2, id);
        let is_safe = |c: u8| c.is_ascii_alphanumeric() || b"-_.~".contains(&c);
        assert!(id.as_str().len() >= 16 && id.as_str().bytes().all(is_safe), "{id}");
        ids.push(id);
    }
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn a_forwarded_address_is_trusted_only_from_trusted_proxies() {
    let shows_address = |ws: &mut WebSocket| Ok(ws.write(ws.client_address().unwrap().to_string())?);
    for (trusted, expected) in [(vec![], "127.0.0.1"), (vec![IpAddr::from([127, 0, 0, 1])], "192.0.2.7")] {
        let server = serve(|builder| builder.trusted_proxies(trusted).route("/", move || app(shows_address)));
        for scheme in SCHEMES {
            let headers = [("x-forwarded-for", "198.51.100.1, 192.0.2.7")];
            let (mut client, _) = server.try_connect(scheme, "/", &headers).unwrap();
            assert_eq!(next_message(&mut client), Message::text(expected));
        }
    }
}

#[test]
fn malformed_handshakes_are_400() {
    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let server = serve_app(echo);
    let cases = [
        ("Host", changed("Host: localhost\r\n", "")),
        ("Host", changed("Host: localhost", "Host:")),
        ("Host", changed("Host: localhost", "Host: a b")),
        ("Host", changed("Host: localhost", "Host: localhost/path")),
        ("Host", changed("Host: localhost", "Host: localhost\r\nHost: localhost")),
        ("HTTP/1.1", changed("HTTP/1.1", "HTTP/1.0")),
        ("Connection", changed("Connection: Upgrade\r\n", "")),
        ("Connection", changed("Connection: Upgrade", "Connection: keep-alive")),
        ("Key", changed(KEY, "")),
        ("Key", changed(KEY, "Sec-WebSocket-Key:\r\n")),
        ("Key", changed(KEY, "Sec-WebSocket-Key: not base64!\r\n")),
        ("Key", changed(KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j\r\n")), // 15 bytes
        ("Key", changed(KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ\r\n")), // unpadded, which others refuse, too
        ("Key", changed(KEY, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQEC\r\n")), // 18 bytes
        ("Key", changed(KEY, &KEY.repeat(2))),
        ("Version", changed("Sec-WebSocket-Version: 13\r\n", "")),
        ("Protocol", with_line("Sec-WebSocket-Protocol: two words")),
        ("Origin", with_line("Origin: http://localhost\r\nOrigin: http://localhost")),
        ("HTTP", changed("HTTP/1.1", "HTTP/7.0")),
        ("HTTP", changed("GET / ", "GET /a b ")),
        ("HTTP", with_line("bad name: x")),
        ("HTTP", with_line("no colon")),
        ("HTTP", with_line("X-Folded: a\r\n b")),
    ];
    for scheme in SCHEMES {
        for (why, head) in &cases {
            let reply = server.ask(scheme, head);
            assert_eq!(reply.status, 400, "{head}{reply:?}");
            assert!(reply.refusal().contains(why), "{head}{reply:?}");
        }
    }
    assert_serves(&server);
}

#[test]
fn a_host_is_a_name_with_an_optional_port() {
    let server = serve_app(echo);
    for scheme in SCHEMES {
        // RFC 9112, section 3.2: it has no scheme, path or user.
        let hosts =
            ["http://localhost", "http://localhost/x", "user@localhost", "localhost:http", "localhost:80:80"];
        let taken: Vec<_> = hosts
            .into_iter()
            .filter(|host| server.ask(scheme, changed("localhost", host)).status != 400)
            .collect();
        assert!(taken.is_empty(), "{taken:?}");
    }
}

/// Pages of the same host, however it is written: the `Host` and the `Origin`, and over which of [`SCHEMES`].
const SAME_HOST: [(&str, &str, [bool; 2]); 12] = [
    ("localhost", "http://localhost", [true, false]),
    ("localhost:80", "ws://LOCALHOST", [true, false]),
    ("localhost.", "http://localhost:80", [true, false]),
    ("localhost:8080", "http://localhost:8080", [true, false]),
    ("[::1]:8080", "http://[0:0:0:0:0:0:0:1]:8080", [true, false]),
    ("127.0.0.1", "http://127.1", [true, false]),
    // The connection that is not secure comes from a proxy, which is.
    ("localhost", "https://LOCALHOST:443", [true, true]),
    ("localhost:443", "https://localhost", [true, true]),
    ("box:443", "wss://box", [true, true]),
    ("box", "wss://box:443", [true, true]),
    ("Box:8443", "https://box.:8443", [true, true]),
    ("[2001:DB8::A]", "https://[2001:db8:0::a]", [true, true]),
];

/// Pages of other hosts.
const FOREIGN: [(&str, &str); 12] = [
    ("localhost:8080", "http://localhost:9090"),
    ("localhost:8080", "http://localhost"),
    ("localhost:443", "http://localhost"),
    ("localhost:80", "https://localhost"),
    ("localhost", "http://localhost.evil.example"),
    ("localhost", "http://evil.example"),
    ("localhost", "javascript://localhost"),
    ("localhost", "app://localhost"),
    ("localhost", "file://localhost"),
    ("localhost", "file://"),
    ("localhost", "null"),
    ("localhost", "http://localhost/"),
];

#[test]
fn a_foreign_origin_is_403() {
    let ask = |server: &TestServer, scheme, host: &str, origin: &str| {
        let reply =
            server.ask(scheme, changed("Host: localhost", &format!("Host: {host}\r\nOrigin: {origin}")));
        if reply.status != 101 {
            assert_eq!(reply.status, 403, "{reply:?}");
            let said = [origin, host].iter().all(|text| reply.refusal().contains(&format!("\"{text}\"")));
            assert!(said, "it says what was compared: {reply:?}");
        }
        reply.status == 101
    };
    let list = || {
        vec!["https://friend.example".to_owned(), "http://localhost:9090".to_owned(), "file://".to_owned()]
    };
    let of_list = [
        ("localhost", "https://friend.example"),
        ("localhost", "wss://FRIEND.example:443"),
        ("localhost:8080", "http://localhost:9090"),
        ("localhost", "file://"),
    ];
    for (origins, same_host, listed, any) in [
        (Origins::SameHost, true, false, false),
        (Origins::SameHostAnd(list()), true, true, false),
        (Origins::List(list()), false, true, false),
        (Origins::Any, true, true, true),
    ] {
        let server = serve(|builder| builder.origins(origins.clone()).route("/", || app(echo)));
        for (i, scheme) in SCHEMES.into_iter().enumerate() {
            let check = |host, origin, expected| {
                let is_allowed = ask(&server, scheme, host, origin);
                assert_eq!(is_allowed, expected || any, "{origins:?}: {origin} at {host}, {scheme:?}");
            };
            for (host, origin, is_same) in SAME_HOST {
                check(host, origin, same_host && is_same[i]);
            }
            for (host, origin) in FOREIGN.into_iter().filter(|page| !of_list.contains(page)) {
                check(host, origin, false);
            }
            for (host, origin) in of_list {
                check(host, origin, listed);
            }
            assert_eq!(server.ask(scheme, handshake("/")).status, 101, "{origins:?}: without an Origin");
        }
    }
}

#[test]
fn a_trusted_proxy_says_whether_the_client_uses_tls() {
    for (trusted, is_same_host) in [(vec![], true), (vec![IpAddr::from([127, 0, 0, 1])], false)] {
        let server = serve(|builder| builder.trusted_proxies(trusted).route("/", || app(echo)));
        let lines = "Host: localhost\r\nX-Forwarded-Proto: https\r\nOrigin: http://localhost";
        let reply = server.ask(Scheme::Ws, changed("Host: localhost", lines));
        assert_eq!(
            reply.status == 101,
            is_same_host,
            "a page of http, and a client that uses TLS: {reply:?}"
        );
        let lines = "Host: localhost\r\nX-Forwarded-Proto: https\r\nOrigin: https://localhost";
        assert_eq!(server.ask(Scheme::Ws, changed("Host: localhost", lines)).status, 101);
    }
}

/// The handshake with one more line, of bytes.
fn with_bytes(line: &[u8]) -> Vec<u8> {
    let good = handshake("/");
    let lines = good.strip_suffix("\r\n").unwrap().as_bytes();
    [lines, line, b"\r\n\r\n"].concat()
}

#[test]
fn what_is_not_text_hides_nothing_else() {
    let server = serve_app(|ws: &mut WebSocket| {
        let request = ws.request().unwrap();
        let cookies = ["a", "name", "b"].map(|name| request.cookie(name).map(str::to_owned));
        ws.write(format!("{cookies:?} {:?}", request.header("x-name")))?;
        Ok(())
    });
    for scheme in SCHEMES {
        for (line, seen) in [
            (&b"Cookie: name=Zo\xc3\xab; a=1; b=2"[..], r#"[Some("1"), Some("Zoë"), Some("2")] None"#),
            (b"Cookie: a=1; name=Zo\xeb; b=2", r#"[Some("1"), None, Some("2")] None"#),
            (b"Cookie: a=1\r\nCookie: \xff\r\nCookie: b=\xff; b=2", r#"[Some("1"), None, Some("2")] None"#),
            (b"X-Name: Zo\xc3\xab", r#"[None, None, None] Some("Zoë")"#),
            (b"X-Name: Zo\xeb", "[None, None, None] None"),
        ] {
            let mut stream = server.raw(scheme);
            stream.write_all(&with_bytes(line)).unwrap();
            assert_eq!(Reply::read(&mut stream).status, 101, "{line:?}");
            assert_eq!(stream.read_frame(), (0x81, seen.as_bytes().to_vec()), "{line:?}");
        }
        // In lists, too; but a subprotocol has to be a token.
        let head = handshake("/");
        let (before, after) = head.split_once("Upgrade\r\n").unwrap();
        let upgrade = [before.as_bytes(), b"\xff, Upgrade\r\n", after.as_bytes()].concat();
        assert_eq!(server.ask(scheme, upgrade).status, 101);
        assert_eq!(server.ask(scheme, with_bytes(b"Sec-WebSocket-Protocol: \xff, chat")).status, 400);
        assert_eq!(server.ask(scheme, with_bytes(b"Origin: http://localhost\xff")).status, 403);
    }
    let server = serve(|builder| builder.compression(Compression::Pooled).route("/", || app(echo)));
    let reply =
        server.ask(Scheme::Ws, with_bytes(b"Sec-WebSocket-Extensions: x; y=\"\xff\", permessage-deflate"));
    assert!(reply.header("sec-websocket-extensions").is_some(), "{reply:?}");
}

#[test]
fn a_session_survives_a_cookie_that_is_not_ascii() {
    let server = serve_app(|ws: &mut WebSocket| Ok(ws.session().unwrap().set("seen", "yes")?));
    for scheme in SCHEMES {
        let reply = server.ask(scheme, handshake("/"));
        let cookie = reply.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        eventually("the session is stored", || {
            let again = server.ask(scheme, with_line(&format!("Cookie: {cookie}")));
            again.header("set-cookie").is_none()
        });
        for name in [&b"name=Zo\xc3\xab"[..], b"name=Zo\xeb"] {
            let line = [b"Cookie: ", name, b"; ", cookie.as_bytes()].concat();
            let reply = server.ask(scheme, with_bytes(&line));
            assert_eq!((reply.status, reply.header("set-cookie")), (101, None), "the session is lost");
        }
    }
}

#[test]
fn a_handshake_with_a_body_is_400() {
    let server = serve_app(echo);
    for scheme in SCHEMES {
        for line in [
            "Content-Length: 6",
            "Transfer-Encoding: chunked",
            "Transfer-Encoding: identity",
            "Content-Length: x",
        ] {
            let body = String::from_utf8_lossy(&frame(0x81, b"")).into_owned();
            let reply = server.ask(scheme, with_line(line) + &body);
            assert_eq!(reply.status, 400, "{line}: {reply:?}");
            assert!(reply.refusal().contains("Content-Length"), "{reply:?}");
        }
        assert_eq!(server.ask(scheme, with_line("Content-Length: 0")).status, 101, "that is none");
    }
}

#[test]
fn a_query_may_contain_what_a_url_may_not() {
    let server = serve_app(|ws: &mut WebSocket| Ok(ws.write(ws.request().unwrap().query())?));
    for scheme in SCHEMES {
        for query in ["q=\"x\"", "<a>", "{|}\\^`", "ä", "%", "a=b?c=/d", ""] {
            let mut stream = server.raw_websocket(scheme, &format!("/?{query}"));
            assert_eq!(stream.read_frame(), (0x81, query.as_bytes().to_vec()));
        }
    }
}

#[test]
fn a_target_is_a_path_or_a_url() {
    let server = serve_app(echo);
    for scheme in SCHEMES {
        for (target, status) in [
            ("http://other.example/", 101),
            ("wss://localhost:1/?x", 101),
            ("http://localhost", 101),
            ("localhost", 400),
            ("localhost:80", 400),
            ("?x", 400),
            ("http:/x", 400),
            ("http://", 400),
            ("http://user@localhost/", 400),
            ("*", 404),
        ] {
            assert_eq!(server.ask(scheme, handshake(target)).status, status, "{target}");
        }
    }
}

#[test]
fn a_path_without_a_route_is_404() {
    let server =
        serve(|builder| builder.route("/", || app(echo)).http("/page", |_| Response::html("<p>a page</p>")));
    for scheme in SCHEMES {
        for path in ["/nothing", "/page", "/x/", "//x", "*"] {
            let reply = server.ask(scheme, handshake(path));
            assert_eq!(reply.status, 404, "{path}: {reply:?}");
            assert!(reply.refusal().len() > "404 Not Found".len(), "{reply:?}");
        }
        let reply = server.get(scheme, "/nothing");
        assert_eq!(reply.status, 404, "{reply:?}");
        assert!(reply.refusal().len() > "404 Not Found".len(), "{reply:?}");
    }
}

#[test]
fn another_method_is_405_with_an_allow_header() {
    let server = serve_app(echo);
    for scheme in SCHEMES {
        for head in [
            changed("GET", "POST"),
            changed("GET", "PUT"),
            changed("GET", "DELETE"),
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc".to_owned(),
        ] {
            let reply = server.ask(scheme, &head);
            assert_eq!((reply.status, reply.header("allow")), (405, Some("GET")), "{head}{reply:?}");
            assert!(reply.refusal().contains("GET"), "{reply:?}");
        }
    }
}

#[test]
fn no_upgrade_or_another_version_is_426_with_the_version() {
    let server = serve_app(echo);
    for scheme in SCHEMES {
        for head in [
            changed("Version: 13", "Version: 8"),
            changed("Version: 13", "Version: 14"),
            changed("Upgrade: websocket", "Upgrade: h2c"),
            "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        ] {
            let reply = server.ask(scheme, &head);
            assert_eq!(reply.status, 426, "{head}{reply:?}");
            assert_eq!(reply.header("sec-websocket-version"), Some("13"), "{reply:?}"); // RFC 6455, section 4.2.2
            assert_eq!(reply.header("upgrade"), Some("websocket"), "{reply:?}"); // RFC 9110, section 15.5.22
            let connection = reply.header("connection").unwrap();
            assert!(connection.split(", ").any(|option| option == "Upgrade"), "{reply:?}"); // and section 7.8
            assert!(reply.refusal().len() > "426 Upgrade Required".len(), "{reply:?}");
        }
    }
}

#[test]
fn a_head_larger_than_its_limit_is_431() {
    let server = serve_app(echo);
    for scheme in SCHEMES {
        for head in [
            with_line(&format!("X-Long: {}", "x".repeat(16 * 1024))),
            format!("GET /{} HTTP/1.1\r\n", "x".repeat(16 * 1024)),
            with_line("X: y\r\n".repeat(200).trim_end()),
        ] {
            let reply = server.ask(scheme, head);
            assert_eq!(reply.status, 431, "{reply:?}");
            assert!(reply.refusal().len() > "431 Request Header Fields Too Large".len(), "{reply:?}");
        }
        for head in [
            with_line(&format!("X-Long: {}", "x".repeat(15 * 1024))),
            with_line("X: y\r\n".repeat(60).trim_end()),
        ] {
            assert_eq!(server.ask(scheme, head).status, 101, "what browsers send");
        }
    }
    assert_serves(&server);
}

#[test]
fn max_head_counts_only_the_head() {
    let mut limits = Limits::default();
    limits.max_head = handshake("/").len();
    let server = serve(|builder| builder.limits(limits).route("/", || app(echo)).route("/x", || app(echo)));
    for scheme in SCHEMES {
        let mut stream = server.raw(scheme);
        stream.write_all(&[handshake("/").as_bytes(), &frame(0x81, &[b'x'; 1000])].concat()).unwrap();
        assert_eq!(Reply::read(&mut stream).status, 101);
        assert_eq!(stream.read_frame(), (0x81, vec![b'x'; 1000]));
        assert_eq!(server.ask(scheme, handshake("/x")).status, 431, "a byte more");

        let mut stream = server.raw(scheme);
        for byte in handshake("/x").bytes() {
            // The server refuses it before the last byte, and may have closed the socket by then.
            let _ = stream.write_all(&[byte]);
        }
        assert_eq!(Reply::read(&mut stream).status, 431, "byte by byte");
    }
}

#[test]
fn unfinished_handshakes_are_503_at_the_shutdown() {
    for scheme in SCHEMES {
        let server = serve_app(echo);
        let mut stream = server.raw(scheme);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: loc").unwrap();
        eventually("it is accepted", || server.handle.connections() == 1);
        server.handle.shutdown(PATIENCE);
        let reply = Reply::read(&mut stream);
        assert_eq!(reply.status, 503, "{reply:?}");
        assert!(reply.header("retry-after").is_some_and(|s| s.parse::<u32>().is_ok()), "{reply:?}");
        assert!(reply.refusal().len() > "503 Service Unavailable".len(), "{reply:?}");
        server.shutdown(PATIENCE);
    }
}

#[test]
fn the_application_refuses_with_any_status() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let server = serve(|builder| {
        builder.route("/", move || {
            let (during, after) = (count.clone(), count.clone());
            full_app(
                |opening: &mut Opening| {
                    let status = opening.request().query_value("status").unwrap().parse::<u16>().unwrap();
                    opening.add_header(header::SET_COOKIE, HeaderValue::from_static("not=this"));
                    Err(Refusal::new(StatusCode::from_u16(status).unwrap(), "because I say so")
                        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
                        .with_header(header::LOCATION, HeaderValue::from_static("/elsewhere")))
                },
                move |_: &mut WebSocket| {
                    during.fetch_add(1, SeqCst);
                    Ok(())
                },
                move |_: &Closed| {
                    after.fetch_add(1, SeqCst);
                },
            )
        })
    });
    for scheme in SCHEMES {
        for status in [302, 307, 400, 401, 403, 404, 409, 418, 429, 451, 500, 503, 599] {
            let reply = server.ask(scheme, handshake(&format!("/?status={status}")));
            assert_eq!(reply.status, status, "{reply:?}");
            assert!(reply.refusal().contains("because I say so"), "{reply:?}");
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
            assert_eq!(reply.header("location"), Some("/elsewhere"));
            assert_eq!(reply.header("sec-websocket-accept"), None);
        }
        let refused = server.try_connect(scheme, "/?status=401", &[]).unwrap_err();
        assert_eq!(refused.status(), 401, "as a client sees it");
    }
    server.shutdown(PATIENCE);
    assert_eq!(calls.load(SeqCst), 0, "server and on_post_server are not called for refused clients");
}

#[test]
fn a_panic_before_the_101_is_500_and_affects_no_other_client() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = calls.clone();
    let server = serve(|builder| {
        builder
            .route("/", || app(echo))
            .route("/factory", || {
                assert!(Instant::now().elapsed() > PATIENCE, "the factory panics");
                app(echo)
            })
            .route("/before", move || {
                let (during, after) = (count.clone(), count.clone());
                full_app(
                    |_: &mut Opening| panic!("on_pre_server panics"),
                    move |_: &mut WebSocket| {
                        during.fetch_add(1, SeqCst);
                        Ok(())
                    },
                    move |_: &Closed| {
                        after.fetch_add(1, SeqCst);
                    },
                )
            })
    });
    for scheme in SCHEMES {
        let mut bystander = server.connect(scheme, "/");
        for path in ["/factory", "/before"] {
            let reply = server.ask(scheme, handshake(path));
            assert_eq!(reply.status, 500, "{reply:?}");
            assert!(!reply.refusal().contains("panics"), "the client gets no details: {reply:?}");
        }
        bystander.send(Message::text("alive")).unwrap();
        assert_eq!(next_message(&mut bystander), Message::text("alive"));
        assert_serves(&server);
    }
    server.shutdown(PATIENCE);
    assert_eq!(calls.load(SeqCst), 0);
}

#[test]
fn a_head_may_arrive_byte_by_byte() {
    let server = serve_app(echo);
    for scheme in SCHEMES {
        let mut stream = server.raw(scheme);
        for byte in handshake("/").bytes().chain(frame(0x81, b"slowly")) {
            stream.write_all(&[byte]).unwrap();
        }
        assert_eq!(Reply::read(&mut stream).status, 101);
        assert_eq!(stream.read_frame(), (0x81, b"slowly".to_vec()));
    }
}

#[test]
fn frames_in_the_same_packet_as_the_head_are_not_lost() {
    let server = serve_app(echo);
    for scheme in SCHEMES {
        let mut stream = server.raw(scheme);
        let half = frame(0x81, b"in two halves");
        let packet =
            [handshake("/").into_bytes(), frame(0x81, b"one"), frame(0x82, &[2; 200]), half[..5].to_vec()];
        stream.write_all(&packet.concat()).unwrap();
        assert_eq!(Reply::read(&mut stream).status, 101);
        assert_eq!(stream.read_frame(), (0x81, b"one".to_vec()));
        assert_eq!(stream.read_frame(), (0x82, vec![2; 200]));
        stream.write_all(&half[5..]).unwrap();
        assert_eq!(stream.read_frame(), (0x81, b"in two halves".to_vec()));

        let mut stream = server.raw(scheme);
        let packet = [handshake("/").into_bytes(), frame(0x81, b"one"), frame(0x88, &[0x0f, 0xa0, b'x'])];
        stream.write_all(&packet.concat()).unwrap();
        assert_eq!(Reply::read(&mut stream).status, 101);
        assert_eq!(stream.read_frame(), (0x81, b"one".to_vec()));
        assert_eq!(stream.read_close_and_end(), (4000, "x".to_owned()));
    }
}

/// A server with a short handshake timeout, and that timeout.
fn serve_impatiently() -> (TestServer, Duration) {
    let mut limits = Limits::default();
    limits.handshake_timeout = Duration::from_secs(2); // on a busy machine, too, whoever does not wait gets through
    let timeout = limits.handshake_timeout;
    (serve(|builder| builder.limits(limits).route("/", || app(echo))), timeout)
}

#[test]
fn a_slow_head_is_cut_at_the_handshake_timeout() {
    let (server, timeout) = serve_impatiently();
    for scheme in SCHEMES {
        let begun = Instant::now();
        let mut stream = server.raw(scheme);
        let step = Duration::from_millis(20);
        stream.tcp().set_read_timeout(Some(step)).unwrap();
        let mut head = handshake("/").replace("\r\n\r\n", "\r\nX: ").into_bytes().into_iter();
        let cut_after = loop {
            assert!(begun.elapsed() < PATIENCE, "never cut, although it gets only a byte now and then");
            if stream.write_all(&[head.next().unwrap_or(b'x')]).is_err() {
                break begun.elapsed();
            }
            match stream.read(&mut [0; 1]) {
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Ok(1..) => panic!("an answer to an incomplete head"),
                _ => break begun.elapsed(),
            }
        };
        assert!(cut_after >= timeout, "{cut_after:?}");
    }
    assert_serves(&server);
}

#[test]
fn silence_is_cut_at_the_handshake_timeout() {
    let (server, timeout) = serve_impatiently();
    let connect = |scheme, first: &[u8]| {
        let mut tcp = TcpStream::connect(server.address(scheme)).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.write_all(first).unwrap();
        tcp
    };
    let begun = Instant::now();
    let mut silent = [
        connect(Scheme::Ws, b""),
        connect(Scheme::Ws, b"\r\n"),
        connect(Scheme::Wss, b""),
        connect(Scheme::Wss, b"\x16\x03\x01"), // the beginning of a TLS handshake
    ];
    for stream in &mut silent {
        assert!(read_to_cut(stream).is_empty());
        assert!(begun.elapsed() >= timeout, "{:?}", begun.elapsed());
    }
    let begun = Instant::now();
    let mut within_tls = server.raw(Scheme::Wss);
    assert!(read_to_cut(&mut within_tls).is_empty());
    assert!(begun.elapsed() >= timeout, "{:?}", begun.elapsed());
    eventually("their slots are free", || server.handle.connections() == 0);
    assert_serves(&server);
}

#[test]
fn the_handshake_timeout_is_for_the_handshake_only() {
    let (server, timeout) = serve_impatiently();
    let clients = SCHEMES.map(|scheme| server.connect(scheme, "/"));
    // Waits longer than the timeout: there is no event to wait for.
    std::thread::sleep(timeout * 5 / 4);
    for mut client in clients {
        client.send(Message::text("still here")).unwrap();
        assert_eq!(next_message(&mut client), Message::text("still here"));
    }
}

#[test]
fn garbage_is_refused_and_does_no_harm() {
    let server = serve_app(echo);
    for scheme in SCHEMES {
        for garbage in [
            &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
            b"\x00\x01\x02\xff\xfe\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"hello\r\n\r\n",
            &[0xff; 100_000],
            &frame(0x81, b"a frame without a handshake"),
        ] {
            let mut stream = server.raw(scheme);
            stream.write_all(garbage).unwrap();
            let reply = Reply::read(&mut stream);
            assert_eq!(reply.status, 400, "{garbage:?}: {reply:?}");
            assert!(reply.refusal().contains("HTTP"), "{reply:?}");
        }
        for unfinished in [&b""[..], b"GET", handshake("/").trim_end().as_bytes()] {
            let mut stream = server.raw(scheme);
            stream.write_all(unfinished).unwrap();
            match &stream {
                Stream::Plain(tcp) => tcp.shutdown(Shutdown::Write).unwrap(),
                Stream::Tls(tls) => tls.get_ref().shutdown(Shutdown::Write).unwrap(),
            }
            assert!(read_to_cut(&mut stream).is_empty(), "no request, no response");
            let mut stream = server.raw(scheme);
            stream.write_all(unfinished).unwrap();
            stream.reset();
        }
    }
    eventually("all are gone", || server.handle.connections() == 0);
    assert_serves(&server);
}

#[test]
fn paths_are_routed() {
    let names = |name: &'static str| {
        move || {
            app(move |ws: &mut WebSocket| Ok(ws.write(format!("{name} {}", ws.request().unwrap().path()))?))
        }
    };
    let server = serve(|builder| {
        builder
            .route("/exact", names("exact"))
            .route("/chat/*", names("chat"))
            .route("/chat/rooms/*", names("rooms"))
            .route("/chat/rooms/1", names("room"))
            .route("/csp/user/MyApp.MyWebSocketServer.cls", names("class"))
            .route("/café", names("umlaut"))
    });
    for scheme in SCHEMES {
        for (target, expected) in [
            ("/exact", "exact /exact"),
            ("/exact?a=/chat/x", "exact /exact"),
            ("/chat/x", "chat /chat/x"),
            ("/chat/x/y%20z", "chat /chat/x/y z"),
            ("//chat/./x/", "chat /chat/x/"),
            ("/%63hat/x", "chat /chat/x"),
            ("/x/../chat/x", "chat /chat/x"),
            ("/chat/x%2Fy", "chat /chat/x%2Fy"),
            ("http://localhost//chat/%78", "chat /chat/x"),
            ("/caf%C3%A9", "umlaut /café"),
            ("/chat/rooms", "chat /chat/rooms"),
            ("/chat/rooms/2", "rooms /chat/rooms/2"),
            ("/chat/rooms/1", "room /chat/rooms/1"),
            ("/chat/rooms/11", "rooms /chat/rooms/11"),
            ("/csp/user/MyApp.MyWebSocketServer.cls", "class /csp/user/MyApp.MyWebSocketServer.cls"),
            ("/csp/user/MyApp.MyWebSocketServer.cls?CSPCHD=1", "class /csp/user/MyApp.MyWebSocketServer.cls"),
        ] {
            let mut stream = server.raw_websocket(scheme, target);
            assert_eq!(stream.read_frame(), (0x81, expected.as_bytes().to_vec()), "{target}");
        }
        for target in
            ["/", "/exact/", "/exact/x", "/Exact", "/chat", "/chat%2Fx", "/chatter/x", "/csp/user/other.cls"]
        {
            assert_eq!(server.ask(scheme, handshake(target)).status, 404, "{target}");
        }
        for target in ["/chat/%00", "/chat/%ff", "/chat/%c0%af"] {
            assert_eq!(server.ask(scheme, handshake(target)).status, 400, "{target}");
        }
    }
}

#[test]
fn routes_that_cannot_work_are_named_by_bind() {
    for bad in ["", "echo", "/a*", "/a/*/b", "/a?b", "*", "//a", "/a/../b", "/caf%C3%A9", "/%ff"] {
        let result = Server::builder().listen("127.0.0.1:0").route(bad, || app(echo)).bind();
        assert!(matches!(&result, Err(ServerError::Config(text)) if text.contains(bad)), "{bad}: {result:?}");
    }
    for twice in ["/a", "/a/*"] {
        let builder = Server::builder().listen("127.0.0.1:0").route(twice, || app(echo));
        let result = builder.route(twice, || app(echo)).bind();
        assert!(matches!(&result, Err(ServerError::Config(text)) if text.contains("twice")), "{result:?}");
    }
}

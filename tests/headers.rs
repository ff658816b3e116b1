#![cfg(feature = "__tls")]
//! Header lines of all responses: pages, files, refusals of each kind, and the 101; and what `bind` refuses.

mod common;

use std::io::Write;

use common::{SCHEMES, Scheme, Stream, app, echo, folder::Folder, full_app, handshake, reply::Reply, serve};
use switchboard::{
    Files, HeaderValue, Limits, Response, Server, ServerBuilder, ServerError, StatusCode, header,
};

const POLICY: &str = "default-src 'self'; frame-ancestors 'none'";

/// With what the recipes of the documentation set.
fn with_headers(builder: ServerBuilder) -> ServerBuilder {
    builder
        .header(header::CONTENT_SECURITY_POLICY, POLICY)
        .header("Strict-Transport-Security", "max-age=31536000")
        .header("X-Two", "one")
        .header("x-two", HeaderValue::from_static("two"))
}

#[track_caller]
fn check(reply: &Reply) {
    assert_eq!(reply.headers("content-security-policy"), [POLICY], "{reply:?}");
    assert_eq!(reply.headers("strict-transport-security"), ["max-age=31536000"], "{reply:?}");
    assert_eq!(reply.headers("x-two"), ["one", "two"], "{reply:?}");
}

#[test]
fn every_response_has_them() {
    let site = Folder::new();
    site.write("www/page.html", "page");
    site.write("www/sub/index.html", "page");
    let server = serve(|builder| {
        with_headers(builder)
            .files("/*", site.join("www"))
            .http("/handler", |_| Response::html("page"))
            .http("/panics", |_| -> switchboard::Response { panic!("on purpose") })
            .route("/echo", || app(echo))
            .route("/refused", || full_app(|_| Err(StatusCode::FORBIDDEN.into()), |_| Ok(()), |_| {}))
    });
    for scheme in SCHEMES {
        for (path, lines, status) in [
            ("/page.html", "", 200),
            ("/page.html", "Range: bytes=1-2\r\n", 206),
            ("/page.html", "Range: bytes=9-\r\n", 416),
            ("/page.html", "If-None-Match: *\r\n", 304),
            ("/page.html", "If-Match: \"x\"\r\n", 412),
            ("/sub", "", 301),
            ("/nothing", "", 404),
            ("/handler", "", 200),
            ("/panics", "", 500),
            ("/echo", "Upgrade: websocket\r\n", 400),
        ] {
            let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n");
            let reply = server.ask(scheme, head);
            assert_eq!(reply.status, status, "{path}: {reply:?}");
            check(&reply);
        }
        for (request, status) in [
            ("nonsense\r\n\r\n".to_owned(), 400),
            ("GET /page.html HTTP/1.1\r\n\r\n".to_owned(), 400),
            ("GET /page.html HTTP/1.1\r\nHost: stranger.example\r\n\r\n".to_owned(), 421),
            (format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "x".repeat(20_000)), 431),
            ("POST /page.html HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n".to_owned(), 405),
            (handshake("/echo").replace("Version: 13", "Version: 8"), 426),
            (handshake("/refused"), 403),
            (handshake("/echo"), 101),
        ] {
            let reply = server.ask(scheme, &request);
            assert_eq!(reply.status, status, "{request}: {reply:?}");
            check(&reply);
        }
    }
    let mut not_tls = Stream::connect(server.address(Scheme::Wss), Scheme::Ws);
    not_tls.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let reply = Reply::read(&mut not_tls);
    assert_eq!(reply.status, 400);
    check(&reply);
}

#[test]
fn who_finds_no_place_gets_them_too() {
    let server = serve(|builder| {
        let mut limits = Limits::default();
        limits.max_connections = 1;
        with_headers(builder).limits(limits).route("/echo", || app(echo))
    });
    let _first = server.raw_websocket(Scheme::Ws, "/echo");
    let mut second = server.raw(Scheme::Ws);
    second.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let reply = Reply::read(&mut second);
    assert_eq!(reply.status, 503);
    check(&reply);
}

#[test]
fn the_application_knows_better() {
    let server = serve(|builder| {
        with_headers(builder)
            .http("/own", |_| Response::html("page").with_header("content-security-policy", "sandbox"))
            .route("/own", || {
                let own = |opening: &mut switchboard::Opening| {
                    opening.add_header(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox"));
                    Ok(())
                };
                full_app(own, |_| Ok(()), |_| {})
            })
    });
    for scheme in SCHEMES {
        let page = server.get(scheme, "/own");
        let websocket = server.ask(scheme, handshake("/own"));
        assert_eq!((page.status, websocket.status), (200, 101));
        for reply in [page, websocket] {
            assert_eq!(reply.headers("content-security-policy"), ["sandbox"], "{reply:?}");
            assert_eq!(reply.headers("x-two"), ["one", "two"], "the others are there");
        }
    }
}

#[test]
fn how_long_files_may_be_kept_can_be_chosen() {
    let site = Folder::new();
    site.write("page.html", "page");
    site.write("sub/index.html", "page");
    let chosen = "public, max-age=31536000, immutable";
    let server = serve(|builder| {
        builder
            .files("/chosen/*", Files::new(&*site).cache_control(chosen))
            .files("/default/*", &*site)
            .header("Cache-Control", "no-store")
    });
    for path in ["page.html", "sub", "sub/"] {
        let kept = |below: &str| {
            let reply = server.get(Scheme::Ws, &format!("/{below}/{path}"));
            reply.headers("cache-control").join(" and ")
        };
        assert_eq!((kept("chosen").as_str(), kept("default").as_str()), (chosen, "no-store"), "{path}");
    }
    assert_eq!(server.get(Scheme::Ws, "/nothing").header("cache-control"), Some("no-store"));
}

#[test]
fn both_count_that_say_what_a_response_varies_with() {
    let site = Folder::new();
    site.write("a.js", "script");
    site.write("a.js.gz", "gzip");
    let server = serve(|builder| builder.files("/*", &*site).header("Vary", "Origin"));
    let mut varies = server.get(Scheme::Ws, "/a.js").headers("vary").join(", ").to_ascii_lowercase();
    varies.retain(|c| c != ' ');
    assert!(["origin,accept-encoding", "accept-encoding,origin"].contains(&&*varies), "{varies}");
}

#[test]
fn bind_refuses_what_no_response_may_have() {
    let refusal = |name: &str, value: &str| {
        let result = Server::builder().listen("127.0.0.1:0").header(name, value).bind();
        match result {
            Err(ServerError::Config(text)) => text.to_string(),
            other => panic!("{name}: {other:?}"),
        }
    };
    for name in [
        "Content-Length",
        "Connection",
        "Upgrade",
        "Sec-WebSocket-Accept",
        "sec-websocket-protocol",
        "Sec-WebSocket-Extensions",
        "Transfer-Encoding",
        "Date",
    ] {
        let text = refusal(name, "x");
        assert!(text.contains(name) && text.contains("server sets it itself"), "{text}");
    }
    for (name, value) in
        [("X Y", "x"), ("", "x"), ("X-Y:", "x"), ("X-Y", "a\r\nSet-Cookie: b"), ("X-Y", "\0")]
    {
        let text = refusal(name, value).to_lowercase();
        assert!(text.contains(&name.to_lowercase()) && text.contains("header"), "{text}");
    }
    let files = Files::new(".").cache_control("a\nb");
    let result = Server::builder().listen("127.0.0.1:0").files("/*", files).bind();
    assert!(
        matches!(&result, Err(ServerError::Config(text)) if text.contains("cache-control")),
        "{result:?}"
    );
}

#[test]
fn a_mistake_can_be_found_where_it_is_made() {
    assert!(Server::builder().header("X-Y", "z").check().is_ok());
    let result = Server::builder().header("Date", "z").check();
    assert!(matches!(&result, Err(ServerError::Config(text)) if text.contains("Date")), "{result:?}");
}

#![cfg(feature = "__tls")]
//! A listener that only sends clients to https.

mod common;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
};

use common::{
    PATIENCE, Scheme, TestServer, app, echo, eventually, frame, handshake,
    reply::{self, Reply},
    serve,
};
use switchboard::{Client, ClientError, Limits, Response, Server, ServerBuilder};

/// A server that has this beside what it serves, and where it redirects.
fn redirecting(configure: impl FnOnce(ServerBuilder) -> ServerBuilder) -> (TestServer, SocketAddr) {
    let server = serve(|builder| {
        let builder = configure(builder.redirect_to_https("127.0.0.1:0", None));
        builder.http("/page", |_| Response::html("page")).route("/", || app(echo))
    });
    let address = server.redirect.unwrap();
    (server, address)
}

fn ask(address: SocketAddr, request: &str) -> Reply {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let reply = reply::ask(&mut stream, request);
    assert!(reply.closes(), "{reply:?}");
    assert_eq!(stream.read(&mut [0]).unwrap(), 0, "it has ended");
    reply
}

#[test]
fn every_request_is_sent_to_the_same_url_of_https() {
    let (server, address) = redirecting(|builder| {
        builder
            .header("Strict-Transport-Security", "max-age=1")
            .header("X-Own", "1")
            .trusted_proxies(["127.0.0.1"])
    });
    let port = server.tls.port();
    for (line, path) in [
        ("GET /page?a=%20b", "/page?a=%20b"),
        ("HEAD /nothing", "/nothing"),
        ("DELETE /", "/"),
        ("GET //evil.example/", "//evil.example/"),
    ] {
        let reply = ask(
            address,
            &format!("{line} HTTP/1.1\r\nHost: localhost:80\r\nOrigin: http://evil.example\r\n\r\n"),
        );
        let location = format!("https://localhost:{port}{path}");
        assert_eq!((reply.status, reply.header("location")), (308, Some(&*location)), "{reply:?}");
        assert!(reply.header("strict-transport-security").or(reply.header("x-own")).is_none(), "{reply:?}");
    }
    let posted = "POST /page HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello";
    assert_eq!(ask(address, posted).status, 308);
    // What the redirect leads to.
    assert!(server.get(Scheme::Wss, "/page").header("strict-transport-security").is_some());
    // Behind a proxy that has TLS it would lead here again, for ever.
    let secure = "GET / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-Proto: https\r\n\r\n";
    assert_eq!(ask(address, secure).status, 421);
}

#[test]
fn a_handshake_is_told_of_wss_and_gets_no_connection() {
    let (server, address) = redirecting(|builder| builder);
    let reply = ask(address, &handshake("/?x"));
    let location = format!("wss://localhost:{}/?x", server.tls.port());
    assert_eq!((reply.status, reply.header("location")), (308, Some(&*location)));
    assert!(reply.text().contains(&location), "{reply:?}");
    let error = Client::connect(&format!("ws://{address}/")).unwrap_err();
    let ClientError::Refused(refusal) = &error else { panic!("{error:?}") };
    assert_eq!(refusal.status(), 308);
    // Somebody who speaks on after the 308 is not listened to.
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&[handshake("/").as_bytes(), &frame(0x81, b"hello")].concat()).unwrap();
    let mut all = Vec::new();
    stream.read_to_end(&mut all).unwrap();
    assert!(all.starts_with(b"HTTP/1.1 308 ") && !all.ends_with(b"hello"));
    eventually("all have ended", || server.handle.connections() == 0);
}

#[test]
fn nobody_is_sent_to_a_host_that_is_not_checked() {
    let (_server, address) = redirecting(|builder| builder.hosts(["box.example"]));
    let status = |host: &str| ask(address, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).status;
    // On a private address only names that no stranger can own, or that were named.
    assert_eq!(["localhost", "box.example", "127.0.0.1", "[::1]:80"].map(status), [308; 4]);
    assert_eq!(["evil.example", "box.example.evil.example"].map(status), [421; 2]);
    for bad in
        ["", "a b", "user@localhost", "localhost/evil", "localhost:x", "localhost\\evil", "local\u{7f}host"]
    {
        assert_eq!(status(bad), 400, "{bad}");
    }
    let two = "GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n";
    assert_eq!(ask(address, two).status, 400);
    assert_eq!(ask(address, "GET / HTTP/1.0\r\n\r\n").status, 400);
    let injected = "GET /\rX-Evil:1 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let reply = ask(address, injected);
    assert!(reply.status == 400 && !reply.head().contains("Evil"), "{reply:?}");
}

#[test]
fn connections_there_count_as_all_others() {
    let mut limits = Limits::default();
    limits.max_connections = 2;
    let (server, address) = redirecting(|builder| builder.limits(limits));
    let silent = [(); 2].map(|()| TcpStream::connect(address).unwrap());
    eventually("they are there", || server.handle.connections() == 2);
    let reply = server.ask(Scheme::Ws, handshake("/"));
    assert_eq!(reply.status, 503);
    drop(silent);
    eventually("they have left", || server.handle.connections() == 0);
    assert_eq!(server.ask(Scheme::Ws, handshake("/")).status, 101);
}

#[test]
fn it_needs_to_know_the_port_of_https() {
    let told = |builder: ServerBuilder| builder.bind().map(drop).unwrap_err().to_string();
    let alone = Server::builder().listen("127.0.0.1:0").redirect_to_https("127.0.0.1:0", None);
    assert!(told(alone).contains("which port https has"));
    let nowhere = Server::builder().redirect_to_https("127.0.0.1:0", Some(0));
    assert!(told(nowhere).contains("which port https has"));
    let server = Server::builder().redirect_to_https("127.0.0.1:0", Some(443)).bind().unwrap();
    assert!(server.local_addrs().is_empty() && !server.is_tls(&server.redirect_addrs()[0]));
    let server = server.spawn().unwrap();
    let address = server.redirect_addrs()[0].tcp().unwrap();
    let reply = ask(address, "GET /x HTTP/1.1\r\nHost: localhost:8080\r\n\r\n");
    assert_eq!(reply.header("location"), Some("https://localhost/x"));
    let taken = Server::builder().redirect_to_https(address.to_string(), Some(443));
    assert!(told(taken).contains(&address.to_string()));
}

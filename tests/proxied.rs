#![cfg(feature = "__tls")]
//! What proxies say of their clients: by the PROXY protocol, before TLS, and in the header lines of requests.

mod common;

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    os::unix::net::UnixStream,
};

use common::{
    PATIENCE, SCHEMES, Scheme, Stream, TestServer, app, echo, eventually, folder::Folder, frame, handshake,
    read_frame, reply::Reply, serve,
};
use switchboard::{Exchange, Limits, ProxyHeaders, Response, ServerBuilder};

const LINE: &[u8] = b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 80\r\n";

/// Version 2, with these addresses and whatever else.
fn binary(command: u8, more: &[u8]) -> Vec<u8> {
    let content = [&[203, 0, 113, 7, 198, 51, 100, 1, 0x12, 0x67, 0, 80], more].concat();
    [b"\r\n\r\n\0\r\nQUIT\n", &[command, 0x11, 0, u8::try_from(content.len()).unwrap()][..], &content]
        .concat()
}

/// Answers `/who` with what the server knows of the client.
fn who(builder: ServerBuilder) -> ServerBuilder {
    let who = |exchange: &Exchange<'_>| {
        let request = exchange.request();
        let peer = request.peer().map_or("none".into(), |peer| peer.to_string());
        let client = request.client_address().map_or("none".into(), |ip| ip.to_string());
        Response::html(format!("{peer} {client} {}", request.is_secure()))
    };
    builder.http("/who", who).route("/", || app(echo))
}

const WHO: &str = "GET /who HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n\
    Forwarded: for=7.7.7.7;proto=https\r\nConnection: close\r\n\r\n";

/// A connection of a proxy on 127.0.0.1, with this before TLS.
fn connect_behind(server: &TestServer, scheme: Scheme, header: &[u8]) -> Stream {
    let mut stream = TcpStream::connect(server.address(scheme)).unwrap();
    stream.write_all(header).unwrap();
    Stream::over(stream, scheme)
}

fn ask(mut stream: impl Read + Write, request: &str) -> String {
    stream.write_all(request.as_bytes()).unwrap();
    let reply = Reply::read(&mut stream);
    format!("{} {}", reply.status, reply.text())
}

#[test]
fn the_address_that_the_protocol_tells_is_the_clients() {
    let server = serve(|builder| who(builder.proxy_protocol(["127.0.0.0/8"])));
    let told = |scheme, header: &[u8]| ask(connect_behind(&server, scheme, header), WHO);
    for scheme in SCHEMES {
        let is_tls = matches!(scheme, Scheme::Wss);
        let expected = format!("200 203.0.113.7:4711 203.0.113.7 {is_tls}");
        for header in [LINE, &binary(0x21, b""), &binary(0x21, &[4, 0, 2, 1, 2])] {
            assert_eq!(told(scheme, header), expected);
        }
        let by_tls = binary(0x21, &[0x20, 0, 5, 1, 0, 0, 0, 0]);
        assert_eq!(told(scheme, &by_tls), "200 203.0.113.7:4711 203.0.113.7 true");
        // Nothing is told: then the proxy is the peer.
        for header in [&b"PROXY UNKNOWN\r\n"[..], &binary(0x20, b"")] {
            let own = told(scheme, header);
            assert!(
                own.starts_with("200 127.0.0.1:") && own.ends_with(&format!(" 127.0.0.1 {is_tls}")),
                "{own}"
            );
        }
        let mut websocket = connect_behind(&server, scheme, LINE);
        websocket.write_all(handshake("/").as_bytes()).unwrap();
        assert_eq!(Reply::read_head(&mut websocket).status, 101);
        websocket.write_all(&frame(0x81, b"hello")).unwrap();
        assert_eq!(read_frame(&mut websocket), (0x81, b"hello".to_vec()));
        let peer = common::connections(&server.hub)[0].peer;
        assert_eq!(peer, Some("203.0.113.7:4711".parse().unwrap()));
    }
}

/// Cut anywhere, and with the request in the same packet.
#[test]
fn the_header_may_come_in_any_pieces() {
    let server = serve(|builder| who(builder.proxy_protocol(["127.0.0.1"])));
    for header in [LINE, &binary(0x21, &[4, 0, 2, 1, 2])] {
        let all = [header, WHO.as_bytes()].concat();
        for size in [1, 5, all.len()] {
            let mut stream = TcpStream::connect(server.plain).unwrap();
            stream.set_nodelay(true).unwrap();
            all.chunks(size).for_each(|chunk| stream.write_all(chunk).unwrap());
            let reply = Reply::read(&mut stream);
            assert_eq!(reply.text(), "203.0.113.7:4711 203.0.113.7 false", "{size}");
        }
    }
}

#[test]
fn a_proxy_that_does_not_speak_it_is_refused() {
    let server = serve(|builder| who(builder.proxy_protocol(["127.0.0.1"])));
    for scheme in SCHEMES {
        // In HTTP it can be told why; within TLS it is cut.
        let mut stream = TcpStream::connect(server.address(scheme)).unwrap();
        stream.write_all(WHO.as_bytes()).unwrap();
        let reply = Reply::read(&mut stream);
        assert!(reply.status == 400 && reply.text().contains("PROXY protocol"), "{reply:?}");
        for wrong in
            [&b"\x16\x03\x01\x02\x00\x01"[..], b"PROXY TCP4 nonsense\r\n", &binary(0x21, b"x"), b"PROXY"]
        {
            let mut stream = TcpStream::connect(server.address(scheme)).unwrap();
            stream.write_all(wrong).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            let is_told = answer.is_empty() || answer.starts_with(b"HTTP/1.1 400 ");
            assert!(is_told, "{wrong:?}: {}", String::from_utf8_lossy(&answer));
        }
    }
    eventually("all have ended", || server.handle.connections() == 0);
}

#[test]
fn who_is_no_such_proxy_may_not_speak_it() {
    let server =
        serve(|builder| who(builder.proxy_protocol(["127.0.0.9", "unix"]).trusted_proxies(["127.0.0.1"])));
    for scheme in SCHEMES {
        for header in [LINE, &binary(0x21, b"")] {
            let mut stream = TcpStream::connect(server.address(scheme)).unwrap();
            stream.write_all(&[header, WHO.as_bytes()].concat()).unwrap();
            let reply = Reply::read(&mut stream);
            assert!(reply.status == 400 && reply.text().contains("--proxy-protocol"), "{reply:?}");
        }
    }
    assert!(ask(server.raw(Scheme::Ws), WHO).starts_with("200 127.0.0.1:"), "the others are served as ever");
}

#[test]
fn a_header_that_does_not_come_is_waited_for_no_longer_than_a_handshake() {
    let mut limits = Limits::default();
    limits.handshake_timeout = PATIENCE / 40;
    let server = serve(|builder| who(builder.limits(limits).proxy_protocol(["127.0.0.1"])));
    for scheme in SCHEMES {
        for begun in [&b""[..], b"PROXY TCP4 ", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x0f\x00"] {
            let mut stream = TcpStream::connect(server.address(scheme)).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(begun).unwrap();
            assert_eq!(stream.read(&mut [0]).unwrap(), 0, "{begun:?}");
        }
    }
    eventually("all have ended", || server.handle.connections() == 0);
}

/// A proxy of bytes passes on what the client says in HTTP.
#[test]
fn header_lines_behind_the_protocol_are_the_clients_own() {
    for (trusted, is_believed) in [(&["127.0.0.1"][..], false), (&["127.0.0.1", "203.0.113.0/24"], true)] {
        let server = serve(|builder| who(builder.proxy_protocol(["127.0.0.1"]).trusted_proxies(trusted)));
        let told = ask(connect_behind(&server, Scheme::Ws, LINE), WHO);
        let expected = if is_believed { "6.6.6.6 true" } else { "203.0.113.7 false" };
        assert_eq!(told, format!("200 203.0.113.7:4711 {expected}"));
    }
}

#[test]
fn each_client_behind_the_protocol_is_counted_and_not_the_proxy() {
    let mut limits = Limits::default();
    limits.max_connections_per_address = Some(2);
    let server = serve(|builder| who(builder.limits(limits).proxy_protocol(["127.0.0.1"])));
    for scheme in SCHEMES {
        let open = |client: Ipv4Addr| {
            let line = format!("PROXY TCP4 {client} 198.51.100.1 4711 80\r\n");
            let mut stream = TcpStream::connect(server.address(scheme)).unwrap();
            stream.write_all(line.as_bytes()).unwrap();
            stream
        };
        let websocket = |client| {
            let mut stream = Stream::over(open(client), scheme);
            stream.write_all(handshake("/").as_bytes()).unwrap();
            assert_eq!(Reply::read_head(&mut stream).status, 101);
            stream
        };
        let mut all = Vec::new();
        for n in 1..5 {
            let client = Ipv4Addr::new(203, 0, 113, n);
            all.extend([websocket(client), websocket(client)]);
            let mut third = open(client);
            let mut answer = String::new();
            third.read_to_string(&mut answer).unwrap();
            match scheme {
                Scheme::Ws => assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}"),
                Scheme::Wss => assert_eq!(answer, "", "before the handshake nothing can be said"),
            }
        }
        drop(all);
        eventually("all have left", || server.handle.connections() == 0);
    }
}

/// What the proxy was connected to tells whether the request may come from the Internet.
#[test]
fn the_protocol_tells_in_which_network_the_client_is() {
    let server = serve(|builder| who(builder.proxy_protocol(["127.0.0.1"])));
    let request = WHO.replace("Host: localhost", "Host: www.example");
    for (destination, status) in [("198.51.100.1", "200"), ("192.168.1.1", "421"), ("127.0.0.1", "421")] {
        let line = format!("PROXY TCP4 203.0.113.7 {destination} 4711 80\r\n");
        let told = ask(connect_behind(&server, Scheme::Ws, line.as_bytes()), &request);
        assert!(told.starts_with(status), "{destination}: {told}");
    }
}

#[test]
fn on_a_unix_socket_all_of_it_is_believed_where_it_is_configured() {
    let folder = Folder::new();
    let socket = folder.path("socket");
    let ask = |header: &[u8], configure: &dyn Fn(ServerBuilder) -> ServerBuilder| {
        let server = serve(|builder| configure(who(builder.listen(format!("unix:{socket}")))));
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(header).unwrap();
        let told = ask(stream, WHO);
        drop(server);
        told
    };
    let unix = ["unix"];
    assert_eq!(ask(b"", &|builder| builder), "200 none none false");
    assert_eq!(ask(b"", &|builder| builder.trusted_proxies(unix)), "200 none 6.6.6.6 true");
    let forwarded =
        |builder: ServerBuilder| builder.trusted_proxies(unix).proxy_headers(ProxyHeaders::Forwarded);
    assert_eq!(ask(b"", &forwarded), "200 none 7.7.7.7 true");
    for header in [LINE, &binary(0x21, b"")] {
        let told = ask(header, &|builder| builder.proxy_protocol(unix).trusted_proxies(unix));
        assert_eq!(told, "200 203.0.113.7:4711 203.0.113.7 false");
    }
    assert_eq!(ask(b"PROXY UNKNOWN\r\n", &|builder| builder.proxy_protocol(unix)), "200 none none false");
    assert!(ask(b"", &|builder| builder.proxy_protocol(unix)).starts_with("400 "));
    assert!(ask(LINE, &|builder| builder.trusted_proxies(unix)).starts_with("400 "));
}

/// A shutdown waits for nobody who has not sent a header.
#[test]
fn a_shutdown_finds_who_is_waited_for() {
    let server = serve(|builder| who(builder.proxy_protocol(["127.0.0.1"])));
    let mut streams: Vec<_> =
        SCHEMES.map(|scheme| TcpStream::connect(server.address(scheme)).unwrap()).into();
    streams.iter_mut().for_each(|stream| stream.write_all(b"PROXY ").unwrap());
    eventually("they are there", || server.handle.connections() == 2);
    server.shutdown(PATIENCE * 10);
}

/// The addresses are text or values, and what is none is told by `bind`.
#[test]
fn networks_are_checked() {
    let builder = || switchboard::Server::builder().proxy_protocol([std::net::IpAddr::from([10, 0, 0, 1])]);
    assert!(builder().check().is_ok());
    let told = builder().proxy_protocol(["10.0.0.1/8"]).check().unwrap_err().to_string();
    assert!(told.contains("begins at 10.0.0.0"), "{told}");
}

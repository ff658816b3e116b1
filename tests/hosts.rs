#![cfg(feature = "__tls")]
//! DNS rebinding: a page of a stranger makes a browser take the stranger's own name for an address that only the browser can
//! reach. Then `Host` and `Origin` agree, and only the name gives it away.

mod common;

use std::{
    io::{Read, Write},
    net::IpAddr,
    os::unix::net::UnixStream,
};

use common::{
    SCHEMES, Scheme, TestServer, app, echo, folder::Folder, handshake, reply::Reply, running::Running, serve,
};
use switchboard::{Origins, Response, Server, ServerBuilder, ServerError};

/// A socket, a page, and one of both.
fn routes(builder: ServerBuilder) -> ServerBuilder {
    let page = |path: &str| Response::html(format!("<p>{path}</p>"));
    builder
        .route("/", || app(echo))
        .route("/both", || app(echo))
        .http("/both", move |exchange| page(exchange.request().path()))
        .http("/page", move |exchange| page(exchange.request().path()))
}

/// What a page of this host asks for, and the status of each answer: a socket, a page, and a page in another way.
fn statuses(server: &TestServer, scheme: Scheme, host: &str) -> Vec<u16> {
    let page = if scheme == Scheme::Ws { "http" } else { "https" };
    let lines = format!("Host: {host}\r\nOrigin: {page}://{host}");
    let requests = [
        handshake("/").replace("Host: localhost", &lines),
        handshake("/both").replace("Host: localhost", &lines),
        format!("GET /page HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("GET /both HTTP/1.1\r\nHost: {host}\r\n\r\n"),
        format!("POST /page HTTP/1.1\r\n{lines}\r\n\r\n"),
    ];
    requests.iter().map(|request| server.ask(scheme, request).status).collect()
}

const SERVED: [u16; 4] = [101, 101, 200, 200];

fn assert_served(server: &TestServer, scheme: Scheme, host: &str) {
    assert_eq!(statuses(server, scheme, host)[..4], SERVED, "{host}");
}

fn assert_refused(server: &TestServer, scheme: Scheme, host: &str) {
    assert_eq!(statuses(server, scheme, host), [421; 5], "{host}");
}

#[test]
fn a_name_that_a_stranger_can_own_is_421() {
    let server = serve(routes);
    for scheme in SCHEMES {
        for host in [
            "localhost",
            "LOCALHOST.:8080",
            "127.0.0.1",
            "127.1:80",
            "[::1]",
            "192.0.2.1:8443",
            "box",
            "my_box-2",
            "box.local",
            "BOX.Lan.",
            "db.prod.internal",
            "a.home.arpa",
            "app.localhost:3000",
        ] {
            assert_served(&server, scheme, host);
        }
        for host in [
            "evil.example",
            "evil.example:8080",
            "localhost.evil.example",
            "127.0.0.1.nip.io",
            "evillocal.com",
            "local.evil.example",
            "xlan.de",
            "evil.example.",
        ] {
            assert_refused(&server, scheme, host);
        }
        // The host of a URL counts, and not that of the line (RFC 9112, section 3.2.2).
        assert_eq!(server.get(scheme, "http://evil.example/page").status, 421);
        let reply = server.ask(scheme, "GET http://localhost/page HTTP/1.1\r\nHost: evil.example\r\n\r\n");
        assert_eq!(reply.status, 200);
    }
}

#[test]
fn what_is_of_no_browser_is_served() {
    let server = serve(routes);
    for scheme in SCHEMES {
        let reply = server.ask(scheme, handshake("/").replace("localhost", "www.example"));
        assert_eq!(reply.status, 101, "a client that is no page, and has no Origin: {reply:?}");
        assert_eq!(server.ask(scheme, "GET /page HTTP/1.0\r\n\r\n").status, 200, "a health check");
    }
}

#[test]
fn the_answer_names_what_to_do() {
    for origins in [Origins::SameHost, Origins::Any] {
        let server = serve(|builder| routes(builder).origins(origins));
        for scheme in SCHEMES {
            let reply = server.ask(scheme, "GET /page HTTP/1.1\r\nHost: evil.example:80\r\n\r\n");
            for part in ["\"evil.example:80\"", "hosts", "--host", "trusted_proxies", "--trusted-proxy"] {
                assert!(reply.refusal().contains(part), "{part}: {reply:?}");
            }
        }
    }
}

#[test]
fn names_that_were_given_are_served() {
    let server =
        serve(|builder| routes(builder).hosts(["box.example"]).hosts(["*.friend.example".to_owned()]));
    for scheme in SCHEMES {
        for host in
            ["box.example", "BOX.example.:8443", "a.friend.example", "a.b.friend.example", "localhost"]
        {
            assert_served(&server, scheme, host);
        }
        for host in ["a.box.example", "friend.example", "evilfriend.example", "evil.example"] {
            assert_refused(&server, scheme, host);
        }
    }
    let server = serve(|builder| routes(builder).hosts(["*"]));
    assert_served(&server, Scheme::Ws, "evil.example");
}

#[test]
fn what_a_trusted_proxy_passes_on_is_its_to_judge() {
    for (proxy, is_served) in [([127, 0, 0, 1], true), ([127, 0, 0, 2], false)] {
        let server = serve(|builder| routes(builder).trusted_proxies([IpAddr::from(proxy)]));
        for scheme in SCHEMES {
            if is_served {
                assert_served(&server, scheme, "www.example");
            } else {
                assert_refused(&server, scheme, "www.example");
            }
        }
    }
}

#[test]
fn a_unix_socket_is_reached_by_no_browser() {
    let folder = Folder::new();
    let path = folder.path("s");
    let _running = Running::new(routes(Server::builder().listen(format!("unix:{path}"))));
    let mut stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(common::PATIENCE)).unwrap();
    stream.write_all(b"GET /page HTTP/1.1\r\nHost: www.example\r\n\r\n").unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
}

#[test]
fn a_host_without_a_name_is_400() {
    let server = serve(routes);
    for scheme in SCHEMES {
        for host in [
            "a b",
            "localhost/",
            "user@localhost",
            "localhost:http",
            "http://localhost",
            "[::1",
            "localhost:99999",
        ] {
            let reply: Reply = server.ask(scheme, format!("GET /page HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert_eq!(reply.status, 400, "{host}: {reply:?}");
        }
    }
}

#[test]
fn hosts_that_cannot_be_are_named_by_bind() {
    for bad in ["", "box.example:80", "http://box.example", "a b", "*box.example", "a.*"] {
        let result = Server::builder().listen("127.0.0.1:0").hosts([bad]).bind();
        let names_it = |text: &str| text.contains(&format!("{bad:?}"));
        assert!(matches!(&result, Err(ServerError::Config(text)) if names_it(text)), "{bad}: {result:?}");
    }
}

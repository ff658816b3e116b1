//! Checks this crate's client with a server that nobody here wrote: `python_server.py` or `node_server.mjs`.
//!
//!     strangers_client WS_URL WSS_URL CA_FILE
//!
//! Exit code 101, with a text that says why, at the first check that fails.

use std::{
    thread,
    time::{Duration, Instant},
};

use switchboard::{
    Client, ClientBuilder, ClientError, ClosedBy, Compression, Error, Limits, Message, StatusCode,
    TlsBackend, TlsTrust,
};

const PATIENCE: Duration = Duration::from_secs(10);

type Check = (&'static str, fn(&Server));

/// One of the server's two ports, and the library that does TLS.
struct Server {
    url: String,
    trust: TlsTrust,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [ws, wss, ca] = args.as_slice() else { panic!("usage: strangers_client WS_URL WSS_URL CA_FILE") };
    let trust = TlsTrust::ca_file(ca).unwrap();
    let mut servers = vec![Server { url: ws.clone(), trust: trust.clone() }];
    let backends =
        [TlsBackend::NativeTls, TlsBackend::Rustls].into_iter().filter(|backend| backend.is_available());
    servers.extend(
        backends.map(|backend| Server { url: wss.clone(), trust: trust.clone().with_backend(backend) }),
    );
    let checks: &[Check] = &[
        ("messages of all sizes come back", messages_of_all_sizes_come_back),
        ("a subprotocol is chosen", a_subprotocol_is_chosen),
        ("fragments become one message", fragments_become_one_message),
        ("its pings are answered", its_pings_are_answered),
        ("ours are, too", ours_are_too),
        ("it closes", it_closes),
        ("we close", we_close),
        ("it refuses", it_refuses),
        ("it redirects", it_redirects),
        ("it breaks off", it_breaks_off),
        ("many at once", many_at_once),
    ];
    for server in &servers {
        for (name, check) in checks {
            println!("{} over {} by {:?}", name, server.url, server.trust.backend());
            check(server);
        }
    }
    println!("strangers' server: {} checks passed", checks.len() * servers.len());
}

impl Server {
    fn builder(&self, path: &str) -> ClientBuilder {
        Client::builder(&format!("{}{path}", self.url)).tls(self.trust.clone())
    }

    fn connect(&self, path: &str) -> Client {
        self.builder(path).connect().unwrap()
    }
}

fn assert_echoes(client: &Client, message: impl Into<Message>) {
    let message = message.into();
    client.write(message.clone()).unwrap();
    assert_eq!(client.read_message(PATIENCE).unwrap(), message);
}

fn reason(client: &Client) -> (u16, String, ClosedBy) {
    match client.read_message(PATIENCE) {
        Err(Error::Closed(reason)) => (reason.code().0, reason.text().to_owned(), reason.by()),
        other => panic!("{other:?}"),
    }
}

fn messages_of_all_sizes_come_back(server: &Server) {
    for compression in [
        Compression::Off,
        Compression::Pooled,
        Compression::Dedicated { window_bits: 15, level: 6 },
        Compression::Dedicated { window_bits: 10, level: 1 },
    ] {
        let client = match server.builder("/echo").compression(compression).connect() {
            Ok(client) => client,
            // Not every server can have the window that is asked for, and then it has to decline.
            Err(e) => panic!("{compression:?}: {e}"),
        };
        for size in [0, 1, 125, 126, 65_535, 65_536, 1 << 20] {
            assert_echoes(&client, "ä".repeat(size / 2));
            assert_echoes(&client, (0..size).map(|i| (i * i / 7) as u8).collect::<Vec<_>>());
        }
        assert!(client.finish().is_normal());
    }
    assert!(server.builder("/echo").compression(Compression::Pooled).connect().unwrap().is_compressed());
}

fn a_subprotocol_is_chosen(server: &Server) {
    let client = server.builder("/echo").subprotocol("unknown").subprotocol("chat").connect().unwrap();
    assert_eq!(client.subprotocol(), Some("chat"));
    assert_echoes(&client, "hello");
}

fn fragments_become_one_message(server: &Server) {
    assert_eq!(server.connect("/fragments").read_message(PATIENCE).unwrap(), "a message in pieces");
}

fn its_pings_are_answered(server: &Server) {
    let client = server.connect("/ping");
    thread::sleep(Duration::from_millis(1500)); // nobody reads: the gateway answers
    assert_eq!(client.read_message(PATIENCE).unwrap(), "got the pong");
}

fn ours_are_too(server: &Server) {
    let mut limits = Limits::default();
    limits.ping_interval = Some(Duration::from_millis(20));
    let client = server.builder("/echo").limits(limits).connect().unwrap();
    let begun = Instant::now();
    while client.round_trip().is_none() {
        assert!(begun.elapsed() < PATIENCE);
        assert!(client.try_read(0).unwrap().is_none());
        assert!(client.read(0, Duration::from_millis(20)).unwrap_err().is_timeout());
    }
}

fn it_closes(server: &Server) {
    let client = server.connect("/close");
    assert_eq!(reason(&client), (4000, "bye".into(), ClosedBy::Server));
    let begun = Instant::now();
    client.finish();
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "the closing handshake is complete before its time is up"
    );
}

fn we_close(server: &Server) {
    let client = server.connect("/echo");
    client.close(4001, "enough");
    assert_eq!(reason(&client), (4001, "enough".into(), ClosedBy::Client));
    let begun = Instant::now();
    client.finish();
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "the closing handshake is complete before its time is up"
    );
    // Its handler may learn of that a little later.
    let last = || server.connect("/last-close").read_message(PATIENCE).unwrap();
    while last() != "4001 enough" {
        assert!(begun.elapsed() < PATIENCE, "{:?}", last());
    }
}

fn it_refuses(server: &Server) {
    match server.builder("/refuse").connect() {
        Err(ClientError::Refused(response)) => {
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
            assert!(response.body().starts_with(b"who are you?"), "{response:?}");
        }
        other => panic!("{other:?}"),
    }
}

fn it_redirects(server: &Server) {
    let error = server.builder("/redirect").connect().unwrap_err();
    assert_eq!(error.response().and_then(|response| response.location()), Some("/echo"), "{error}");
}

fn it_breaks_off(server: &Server) {
    let client = server.connect("/break");
    let (code, _, by) = reason(&client);
    assert_eq!((code, by), (1006, ClosedBy::Network));
}

fn many_at_once(server: &Server) {
    let clients: Vec<_> = (0..50).map(|_| server.connect("/echo")).collect();
    for round in 0..3 {
        clients.iter().enumerate().for_each(|(i, client)| client.write(format!("{round} {i}")).unwrap());
        for (i, client) in clients.iter().enumerate() {
            assert_eq!(client.read_message(PATIENCE).unwrap(), format!("{round} {i}").as_str());
        }
    }
}

#![cfg(feature = "__tls")]
//! `wss://`, its certificates, and everything that may arrive at a TLS port.

mod common;

use std::{
    fmt::Debug,
    fs,
    io::{self, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    sync::mpsc,
    time::Duration,
};

use common::{
    PATIENCE, Scheme, Stream, TestServer, app, backends, connector, echo, eventually, folder::Folder, frame,
    full_app, handshake, identity, next_message, running::Running, serve_app, serve_by,
};
use native_tls::{Protocol, TlsConnector, TlsStream};
use switchboard::{
    CloseReason, Closed, ClosedBy, Limits, Opening, Server, TlsBackend, TlsError, TlsIdentity, WebSocket,
};
use tungstenite::Message;

fn serve_echo(backend: TlsBackend) -> TestServer {
    serve_by(backend, |builder| builder.route("/", || app(echo)))
}

/// Nothing but a TCP connection.
fn tcp(address: SocketAddr) -> TcpStream {
    let tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp.set_write_timeout(Some(PATIENCE)).unwrap();
    tcp
}

/// Waits for the end of the stream, in order or by a reset. Returns what was received before it.
fn read_to_end(stream: &mut impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => panic!("it goes on"),
        _ => bytes,
    }
}

/// Checks that no connection is left, and that the next client is served.
fn assert_unharmed(server: &TestServer) {
    eventually("all are gone", || server.handle.connections() == 0);
    for scheme in common::SCHEMES {
        let mut client = server.connect(scheme, "/");
        client.send(Message::text("alive")).unwrap();
        assert_eq!(next_message(&mut client), Message::text("alive"));
    }
}

#[test]
fn clients_trust_each_form_of_the_identity() {
    let pem = |file| fs::read(format!("certs/{file}")).unwrap();
    let identities = [
        TlsIdentity::from_pem_files("certs/server.pem", "certs/server.key"),
        TlsIdentity::from_pem(&pem("server.pem"), &pem("server.key")),
        #[cfg(feature = "tls")]
        TlsIdentity::from_pkcs12_file("certs/server.p12", "switchboard"),
        #[cfg(feature = "tls")]
        TlsIdentity::from_pkcs12(&pem("server.p12"), "switchboard"),
    ];
    for identity in identities {
        let identity = identity.unwrap();
        assert_eq!(identity.backend(), TlsBackend::default());
        for backend in backends() {
            let identity = identity.clone().with_backend(backend);
            assert_eq!(identity.backend(), backend);
            let builder = Server::builder().listen_tls("127.0.0.1:0", identity);
            let server = Running::new(builder.route("/", || common::app(echo)));
            let address = server.addresses[0].tcp().unwrap();
            let (mut client, _) =
                tungstenite::client("wss://localhost/", Stream::connect(address, Scheme::Wss)).unwrap();
            for message in [Message::text("hello"), Message::binary(vec![7; 300_000])] {
                client.send(message.clone()).unwrap();
                assert!(next_message(&mut client) == message);
            }
        }
    }
}

#[test]
fn a_client_that_does_not_trust_the_certificate_does_no_harm() {
    for backend in backends() {
        let server = serve_echo(backend);
        let trusts_nobody = TlsConnector::builder().disable_built_in_roots(true).build().unwrap();
        assert!(trusts_nobody.connect("localhost", tcp(server.tls)).is_err());
        assert!(connector().connect("other.example", tcp(server.tls)).is_err(), "it is not for this name");
        assert_unharmed(&server);
    }
}

#[test]
fn mistakes_are_named_when_the_identity_is_loaded() {
    let folder = Folder::new();
    let certs = |file: &str| format!("certs/{file}");
    let key = fs::read_to_string(certs("server.key")).unwrap();
    let relabelled =
        |name, label| folder.write(name, key.replace(" PRIVATE KEY", &format!(" {label}PRIVATE KEY")));
    let pem = |certificate: &str, key: &str| TlsIdentity::from_pem_files(certificate, key);

    let (cert, good_key) = (&*certs("server.pem"), &*certs("server.key"));
    let empty = &*folder.write("empty", "");
    let half_key = &*folder.write("half.key", &key[..key.len() / 2]);
    let garbage_cert = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let garbage_cert = &*folder.write("garbage.pem", garbage_cert);
    let garbage_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let garbage_key = &*folder.write("garbage.key", garbage_key);

    for (result, words) in [
        (pem(cert, &certs("other.key")), &["does not match", "certs/server.pem", "certs/other.key"][..]),
        (pem("certs/nothing.pem", good_key), &["certs/nothing.pem", "No such file"]),
        (pem(cert, "certs/nothing.key"), &["certs/nothing.key", "No such file"]),
        (pem("certs", good_key), &["certs"]),
        (pem(cert, &relabelled("pkcs1.key", "RSA ")), &["PKCS#8", "openssl pkcs8 -topk8", "pkcs1.key"]),
        (pem(cert, &relabelled("sec1.key", "EC ")), &["PKCS#8", "openssl pkcs8 -topk8", "sec1.key"]),
        (pem(cert, &relabelled("locked.key", "ENCRYPTED ")), &["encrypted", "openssl pkcs8", "locked.key"]),
        (pem(cert, cert), &["no PEM key"]),
        (pem(good_key, good_key), &["no PEM certificate"]),
        (pem(empty, good_key), &["no PEM certificate", "empty"]),
        (pem(cert, empty), &["no PEM key", "empty"]),
        (pem(garbage_cert, good_key), &["garbage.pem"]),
        (pem(cert, garbage_key), &["garbage.key"]),
        (pem(cert, half_key), &["half.key"]),
    ] {
        assert_words(result, words);
    }
}

#[cfg(feature = "tls")]
#[test]
fn mistakes_of_an_archive_are_named_when_it_is_loaded() {
    let folder = Folder::new();
    let p12 = |archive: &str, password| TlsIdentity::from_pkcs12_file(archive, password);
    let archive = fs::read("certs/server.p12").unwrap();
    let empty = &*folder.write("empty", "");
    let half_archive = &*folder.write("half.p12", &archive[..archive.len() / 2]);
    for (result, words) in [
        (p12("certs/server.p12", "wrong"), &["password", "wrong", "certs/server.p12"][..]),
        (p12("certs/server.p12", ""), &["password", "wrong", "certs/server.p12"]),
        (p12("certs/nothing.p12", "x"), &["certs/nothing.p12", "No such file"]),
        (p12("certs/server.pem", "switchboard"), &["PKCS#12", "certs/server.pem"]),
        (p12(empty, "switchboard"), &["PKCS#12", "empty"]),
        (p12(half_archive, "switchboard"), &["PKCS#12", "half.p12"]),
    ] {
        assert_words(result, words);
    }
}

#[track_caller]
fn assert_words(result: Result<TlsIdentity, TlsError>, words: &[&str]) {
    let text = result.unwrap_err().to_string();
    assert!(words.iter().all(|word| text.contains(word)), "{words:?}: {text}");
    assert!(!text.contains('\n'), "one line: {text}");
}

#[test]
fn a_key_is_not_shown() {
    let identity = TlsIdentity::from_pem_files("certs/server.pem", "certs/server.key").unwrap();
    let builder = Server::builder().listen_tls("127.0.0.1:0", identity.clone());
    for shown in [format!("{identity:?}"), format!("{builder:?}")] {
        assert!(!shown.to_lowercase().contains("key"), "{shown}");
    }
}

/// The first message of a TLS handshake, of a client that speaks no later version than this.
fn client_hello(version: [u8; 2]) -> Vec<u8> {
    // ECDHE-ECDSA with AES: CBC and SHA-1, which all versions have, and GCM for TLS 1.2.
    let suites = [0xc0, 0x09, 0xc0, 0x0a, 0xc0, 0x2b, 0xc0, 0x2c];
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 23][..],  // the group P-256
        &[0, 11, 0, 2, 1, 0],             // points uncompressed
        &[0, 13, 0, 6, 0, 4, 4, 3, 2, 3], // signatures: ECDSA with SHA-256, with SHA-1
    ]
    .concat();
    let hello = [
        &version[..],
        &[0x5a; 32],
        &[0],
        &[0, suites.len() as u8],
        &suites,
        &[1, 0],
        &[0, extensions.len() as u8],
        &extensions,
    ]
    .concat();
    let message = [&[1, 0, 0, hello.len() as u8][..], &hello].concat();
    [&[22, 3, 1, 0, message.len() as u8][..], &message].concat()
}

/// The next record that the server has sent: its type and its content.
fn read_record(sent: &mut impl Read) -> (u8, Vec<u8>) {
    let mut header = [0; 5];
    sent.read_exact(&mut header).unwrap();
    let mut content = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
    sent.read_exact(&mut content).unwrap();
    (header[0], content)
}

fn only_1_2() -> TlsConnector {
    TlsConnector::builder()
        .add_root_certificate(native_tls::Certificate::from_pem(&fs::read("certs/ca.pem").unwrap()).unwrap())
        .min_protocol_version(Some(Protocol::Tlsv12))
        .max_protocol_version(Some(Protocol::Tlsv12))
        .build()
        .unwrap()
}

#[test]
fn tls_1_1_and_older_are_refused() {
    for backend in backends() {
        let server = serve_echo(backend);
        for version in [[3, 0], [3, 1], [3, 2]] {
            let mut old = tcp(server.tls);
            old.write_all(&client_hello(version)).unwrap();
            let (kind, content) = read_record(&mut old);
            assert_eq!(
                (kind, content[0]),
                (21, 2),
                "{version:?}: an alert, and a fatal one (RFC 5246, section 7.2)"
            );
            assert!(content[1] == 70 || version == [3, 0], "protocol_version: {content:?}");
            assert!(read_to_end(&mut old).is_empty());
        }
        let mut recent = tcp(server.tls);
        recent.write_all(&client_hello([3, 3])).unwrap();
        let (kind, content) = read_record(&mut recent);
        assert_eq!((kind, content[0], &content[4..6]), (22, 2, &[3, 3][..]), "a ServerHello for TLS 1.2");
        drop(recent);

        only_1_2().connect("localhost", tcp(server.tls)).unwrap();
        assert_unharmed(&server);
    }
}

#[test]
fn plain_http_to_the_tls_port_is_told_so() {
    for backend in backends() {
        let server = serve_echo(backend);
        for request in
            [&handshake("/"), "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", "P", "POST / HTTP/1.1\r\n"]
        {
            let mut plain = tcp(server.tls);
            plain.write_all(request.as_bytes()).unwrap();
            let answer = String::from_utf8(read_to_end(&mut plain)).unwrap();
            assert!(
                answer.starts_with("HTTP/1.1 400 ") && answer.contains("connection: close\r\n"),
                "{answer}"
            );
            let text = answer.split("\r\n\r\n").nth(1).unwrap();
            assert!(text.contains("TLS") && text.contains("https://") && text.contains("wss://"), "{answer}");
        }
        assert_unharmed(&server);
    }
}

#[test]
fn tls_to_the_plain_port_does_no_harm() {
    let server = serve_app(echo);
    assert!(connector().connect("localhost", tcp(server.plain)).is_err());
    let mut hello = tcp(server.plain);
    hello.write_all(&client_hello([3, 3])).unwrap();
    read_to_end(&mut hello);
    assert_unharmed(&server);
}

#[test]
fn broken_tls_does_no_harm() {
    for backend in backends() {
        let (server, closed) = serve_and_report(backend);
        for garbage in [
            vec![0xff; 10_000],
            vec![0; 10_000],
            [&[22, 3, 3, 0xff, 0xff][..], &[0x5a; 70_000]].concat(), // longer than a record may be
            [&client_hello([3, 3])[..], &[23, 3, 3, 0, 5, 1, 2, 3, 4, 5]].concat(), // application data before the handshake is complete
            client_hello([3, 3])[..40].to_vec(),
        ] {
            let mut client = tcp(server.tls);
            // The server may cut the connection before everything is sent.
            let _ = client.write_all(&garbage);
            let _ = client.shutdown(Shutdown::Write);
            read_to_end(&mut client);
        }
        // The same, in the middle of a WebSocket.
        let mut stream = server.raw_websocket(Scheme::Wss, "/");
        stream.write_all(&frame(0x81, b"good")).unwrap();
        assert_eq!(stream.read_frame(), (0x81, b"good".to_vec()));
        stream.tcp().write_all(&[23, 3, 3, 0, 40]).unwrap();
        stream.tcp().write_all(&[0x5a; 40]).unwrap();
        read_to_end(&mut stream.tcp());
        let reason = closed.recv_timeout(PATIENCE).unwrap();
        assert!(reason.code() == 1006 && reason.text().starts_with("TLS: "), "{reason}");
        assert_unharmed(&server);
    }
}

/// A server that reports how each connection ended.
fn serve_and_report(backend: TlsBackend) -> (TestServer, mpsc::Receiver<CloseReason>) {
    let (tx, rx) = mpsc::channel();
    let server = serve_by(backend, |builder| {
        builder.route("/", move || {
            let tx = tx.clone();
            full_app(
                |_: &mut Opening| Ok(()),
                |ws: &mut WebSocket| echo(ws),
                move |closed: &Closed| {
                    let _ = tx.send(closed.reason().clone());
                },
            )
        })
    });
    (server, rx)
}

#[test]
fn the_end_of_tls_or_of_tcp_is_the_end_of_the_connection() {
    for backend in backends() {
        let (server, closed) = serve_and_report(backend);
        for end in ["close_notify", "close_notify and FIN", "FIN", "reset"] {
            let mut stream = server.raw_websocket(Scheme::Wss, "/");
            stream.write_all(&frame(0x81, b"x")).unwrap();
            assert_eq!(stream.read_frame(), (0x81, b"x".to_vec()));
            let kept = match (end, stream) {
                ("reset", stream) => {
                    stream.reset();
                    None
                }
                (_, Stream::Tls(mut tls)) => {
                    if end.starts_with("close_notify") {
                        let _ = tls.shutdown();
                    }
                    if end.ends_with("FIN") {
                        tls.get_ref().shutdown(Shutdown::Write).unwrap();
                    }
                    Some(tls)
                }
                _ => None,
            };
            let reason = closed.recv_timeout(PATIENCE).unwrap();
            assert!(reason.code() == 1006 && reason.by() == ClosedBy::Network, "{end}: {reason}");
            drop(kept);
        }
        assert_unharmed(&server);
    }
}

/// A socket that keeps a copy of what it receives.
#[derive(Debug)]
struct Tapped<S> {
    socket: S,
    received: Vec<u8>,
}

impl<S: Read + Write + Debug> Tapped<S> {
    /// With TLS 1.2, where the type of a record is not encrypted.
    fn connect(socket: S) -> TlsStream<Self> {
        only_1_2().connect("localhost", Self { socket, received: Vec::new() }).unwrap()
    }
}

impl<S: Read> Read for Tapped<S> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.socket.read(buf)?;
        self.received.extend(&buf[..n]);
        Ok(n)
    }
}

impl<S: Write> Write for Tapped<S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.socket.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

/// Reads to the end of the stream, and checks that the last TLS record is close_notify. Without it, an attacker could have
/// cut the stream.
#[track_caller]
fn read_to_close_notify<S: Read + Write>(mut tls: TlsStream<Tapped<S>>) -> Vec<u8> {
    let mut read = Vec::new();
    tls.read_to_end(&mut read).unwrap();
    // The TLS client stops reading at close_notify, and does not report whether there was one.
    let Tapped { socket, received } = tls.get_mut();
    socket.read_to_end(received).unwrap();
    let mut records = &received[..];
    let mut last = 0;
    while !records.is_empty() {
        (last, _) = read_record(&mut records);
    }
    assert_eq!(last, 21, "the last record is an alert (RFC 5246, section 6.2.1)");
    read
}

#[test]
fn a_response_ends_with_close_notify() {
    for backend in backends() {
        let server = serve_echo(backend);
        let mut tls = Tapped::connect(tcp(server.tls));
        tls.write_all(handshake("/nothing").as_bytes()).unwrap();
        assert!(read_to_close_notify(tls).starts_with(b"HTTP/1.1 404 "));
        let mut tls = Tapped::connect(tcp(server.tls));
        tls.write_all(handshake("/").as_bytes()).unwrap();
        tls.write_all(&frame(0x88, &1000_u16.to_be_bytes())).unwrap();
        assert!(read_to_close_notify(tls).ends_with(&[0x88, 2, 0x03, 0xe8]));
    }
}

#[test]
fn tls_ends_with_close_notify_however_full_the_socket_is() {
    for backend in backends() {
        // Sends the requested number of messages, or as many as the socket takes, and reports how many these were.
        let (tx, sent) = mpsc::channel();
        let handler = move |ws: &mut WebSocket| {
            let count: usize = ws.read_message(PATIENCE)?.as_text().unwrap().parse().unwrap();
            let fits = (0..count).take_while(|_| ws.write(vec![b'x'; 100]).is_ok()).count();
            let _ = tx.send((fits, ws.hub().pusher(ws.websocket_id())));
            while ws.read_message(PATIENCE).is_ok() {}
            Ok(())
        };
        let folder = Folder::new();
        let path = folder.join("socket");
        let identity = identity().with_backend(backend);
        let mut limits = Limits::default();
        limits.write_timeout = Duration::from_millis(200);
        let builder = Server::builder().route("/", move || app(handler.clone())).limits(limits);
        let _server = Running::new(builder.listen_tls(format!("unix:{}", path.display()), identity));
        let open = |count: usize| {
            let socket = UnixStream::connect(&path).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut tls = Tapped::connect(socket);
            tls.write_all(handshake("/").as_bytes()).unwrap();
            tls.write_all(&frame(0x81, count.to_string().as_bytes())).unwrap();
            (tls, sent.recv_timeout(PATIENCE).unwrap())
        };

        let (_, (most, _)) = open(usize::MAX);
        for count in most - 4..=most {
            let (mut tls, (_, pusher)) = open(count);
            let pusher = pusher.unwrap();
            tls.write_all(&frame(0x88, &1000_u16.to_be_bytes())).unwrap();
            eventually("its close frame is answered", || pusher.close_reason().is_some());
            eprintln!("{count} of {most} messages");
            assert!(read_to_close_notify(tls).ends_with(&[0x88, 2, 0x03, 0xe8]));
        }
    }
}

#![cfg(all(feature = "rustls", not(target_vendor = "apple")))]
//! What only rustls can do: TLS 1.3, client certificates, certificates for several names; tried with OpenSSL's and curl's clients.

mod common;

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    sync::mpsc,
};

use common::{
    PATIENCE, app,
    authority::{self, Certified, DAY, Kind},
    echo,
    folder::Folder,
    frame, full_app, handshake, read_frame, read_head,
    running::Running,
};
use openssl::{
    hash::MessageDigest,
    ssl::{SslConnector, SslMethod, SslStream, SslVersion},
};
use switchboard::{
    ClientCertificate, Closed, Opening, Response, Server, TlsBackend, TlsClientCa, TlsIdentity, TlsVersion,
    WebSocket,
};

/// A client that trusts only this CA, before it connects.
fn client(ca: &Certified) -> openssl::ssl::SslConnectorBuilder {
    let mut builder = SslConnector::builder(SslMethod::tls()).unwrap();
    let mut store = openssl::x509::store::X509StoreBuilder::new().unwrap();
    store.add_cert(ca.certificate.clone()).unwrap();
    builder.set_cert_store(store.build());
    builder
}

fn connect(
    builder: openssl::ssl::SslConnectorBuilder,
    server: &Running,
    name: &str,
) -> Result<SslStream<TcpStream>, String> {
    let tcp = TcpStream::connect(server.addresses[0].tcp().unwrap()).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    builder.build().connect(name, tcp).map_err(|e| e.to_string())
}

/// One echo over a WebSocket.
fn echoes(tls: &mut SslStream<TcpStream>) -> Result<(), String> {
    tls.write_all(handshake("/").as_bytes()).map_err(|e| e.to_string())?;
    let mut first = [0; 1];
    tls.read_exact(&mut first).map_err(|e| e.to_string())?;
    assert!(read_head(tls).starts_with("TTP/1.1 101 "));
    tls.write_all(&frame(0x81, b"hello")).unwrap();
    assert_eq!(read_frame(tls), (0x81, b"hello".to_vec()));
    Ok(())
}

/// An identity made for a test, by rustls.
fn load(chain: &[&Certified]) -> TlsIdentity {
    let identity = TlsIdentity::from_pem(authority::pem(chain).as_bytes(), chain[0].key_pem().as_bytes());
    identity.unwrap().with_backend(TlsBackend::Rustls)
}

#[test]
fn a_server_speaks_both_versions_or_only_the_newer_one() {
    let ca = Kind::ca("ca").signed();
    let own = load(&[&Kind::server("server").issued_by(&ca)]);
    for (min, old_can) in [(TlsVersion::Tls12, true), (TlsVersion::Tls13, false)] {
        let builder = Server::builder().listen_tls("127.0.0.1:0", own.clone().with_min_version(min));
        let server = Running::new(builder.route("/", || app(echo)));
        for (version, can) in [(SslVersion::TLS1_2, old_can), (SslVersion::TLS1_3, true)] {
            let mut client = client(&ca);
            client.set_min_proto_version(Some(version)).unwrap();
            client.set_max_proto_version(Some(version)).unwrap();
            match connect(client, &server, "localhost") {
                Ok(mut tls) if can => {
                    assert_eq!(tls.ssl().version2(), Some(version));
                    echoes(&mut tls).unwrap();
                }
                Err(e) if !can => assert!(e.contains("protocol version"), "{e}"),
                other => panic!("{min:?} {version:?}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_client_gets_the_certificate_for_the_name_that_it_asks_for() {
    let ca = Kind::ca("ca").signed();
    let of = |subject, name| load(&[&Kind { name, ..Kind::server(subject) }.issued_by(&ca)]);
    let identity = of("first", "localhost")
        .with_other(of("second", "box.example"))
        .with_other(of("wild", "*.Example"))
        .with_other(of("late", "box.example"));
    let server = Running::new(Server::builder().listen_tls("127.0.0.1:0", identity).route("/", || app(echo)));
    for (name, subject) in [
        ("localhost", "first"),
        ("box.example", "second"),
        ("BOX.example", "second"),
        ("other.example", "wild"),
        ("a.b.example", "first"),
        ("unknown", "first"),
        ("127.0.0.1", "first"), // no name is sent for an address
    ] {
        let mut client = client(&ca);
        client.set_verify(openssl::ssl::SslVerifyMode::NONE);
        let mut tls = connect(client, &server, name).unwrap();
        let certificate = tls.ssl().peer_certificate().unwrap();
        let shown = certificate.subject_name().entries().next().unwrap().data().to_string().unwrap();
        assert_eq!(shown, subject, "{name}");
        echoes(&mut tls).unwrap();
    }
}

/// A server that reports with what each client has shown who it is, where it is asked in each way.
fn serve_and_report(identity: TlsIdentity) -> (Running, mpsc::Receiver<[Option<ClientCertificate>; 2]>) {
    let (tx, rx) = mpsc::channel();
    let builder = Server::builder().listen_tls("127.0.0.1:0", identity);
    let builder = builder.http("/page", |exchange| {
        let name = exchange.request().client_certificate().and_then(|c| c.common_name());
        Response::html(name.unwrap_or_default())
    });
    let builder = builder.route("/", move || {
        let tx = tx.clone();
        let mut first = None;
        let (asked, told) = mpsc::channel();
        full_app(
            move |opening: &mut Opening| {
                asked.send(opening.client_certificate().cloned()).unwrap();
                Ok(())
            },
            move |ws: &mut WebSocket| {
                first = first.take().or(told.recv().unwrap());
                let second = ws.request().unwrap().client_certificate().cloned();
                tx.send([first.clone(), second]).unwrap();
                echo(ws)
            },
            |_: &Closed| {},
        )
    });
    (Running::new(builder), rx)
}

#[test]
fn a_client_shows_who_it_is() {
    let [ca, clients, strangers] = ["ca", "clients", "strangers"].map(|name| Kind::ca(name).signed());
    let lower = Kind::ca("lower").issued_by(&clients);
    let own = load(&[&Kind::server("server").issued_by(&ca)]);
    // As `openssl req -x509` makes it.
    let alone = Kind::ca("alone").signed();
    let client_ca = TlsClientCa::from_pem(authority::pem(&[&clients, &alone]).as_bytes()).unwrap();
    let old = Kind { valid: (-3 * DAY, -DAY), ..Kind::server("old") }.issued_by(&clients);
    for is_optional in [false, true] {
        let client_ca = if is_optional { client_ca.clone().optional() } else { client_ca.clone() };
        let (server, reported) = serve_and_report(own.clone().with_client_ca(client_ca));
        for version in [SslVersion::TLS1_2, SslVersion::TLS1_3] {
            let attempt = |shown: &[&Certified]| {
                let mut client = client(&ca);
                client.set_max_proto_version(Some(version)).unwrap();
                if let Some((own, others)) = shown.split_first() {
                    client.set_certificate(&own.certificate).unwrap();
                    client.set_private_key(&own.key).unwrap();
                    for other in others {
                        client.add_extra_chain_cert(other.certificate.clone()).unwrap();
                    }
                }
                // With TLS 1.3 a client learns only later that it is refused.
                connect(client, &server, "localhost").and_then(|mut tls| {
                    echoes(&mut tls)?;
                    let [opening, request] = reported.recv_timeout(PATIENCE).unwrap();
                    let ders =
                        |shown: &ClientCertificate| shown.chain().map(<[u8]>::to_vec).collect::<Vec<_>>();
                    assert_eq!(opening.as_ref().map(ders), request.as_ref().map(ders));
                    Ok(opening)
                })
            };
            let sensor = Kind::server("sensor").issued_by(&clients);
            let shown = attempt(&[&sensor]).unwrap().unwrap();
            assert_eq!(shown.der(), sensor.certificate.to_der().unwrap());
            assert_eq!((shown.subject(), shown.common_name()), ("CN=sensor".into(), Some("sensor".into())));
            assert_eq!(shown.chain().len(), 1);
            let sensor = Kind::server("").issued_by(&lower);
            let shown = attempt(&[&sensor, &lower]).unwrap().unwrap();
            assert_eq!((shown.subject(), shown.common_name(), shown.chain().len()), (String::new(), None, 2));

            assert_eq!(attempt(&[&alone]).unwrap().unwrap().subject(), "CN=alone");
            match attempt(&[]) {
                Ok(shown) if is_optional => assert!(shown.is_none()),
                Err(_) if !is_optional => {}
                other => panic!("{other:?}"),
            }
            // Those that do not verify are refused in any case.
            for wrong in
                [&Kind::server("stranger").issued_by(&strangers), &old, &Kind::server("self").signed()]
            {
                attempt(&[wrong]).unwrap_err();
            }
            attempt(&[&sensor]).unwrap_err(); // the one between is missing
        }
    }
}

/// Whether a client with this certificate comes as far as an echo, and its connection.
fn comes(ca: &Certified, server: &Running, shown: &Certified) -> Option<SslStream<TcpStream>> {
    let mut client = client(ca);
    client.set_certificate(&shown.certificate).unwrap();
    client.set_private_key(&shown.key).unwrap();
    let mut tls = connect(client, server, "localhost").ok()?;
    echoes(&mut tls).ok()?;
    Some(tls)
}

/// Who may not come any more does not, and nobody else notices.
#[test]
fn the_clients_ca_is_loaded_again() {
    let folder = Folder::new();
    let [ca, old, new] = ["ca", "old", "new"].map(|name| Kind::ca(name).signed());
    let [of_old, of_new] = [&old, &new].map(|ca| Kind::server("sensor").issued_by(ca));
    let file = folder.write("clients.pem", old.pem());
    let own = load(&[&Kind::server("server").issued_by(&ca)]);
    for is_optional in [false, true] {
        folder.write("clients.pem", old.pem());
        let client_ca = TlsClientCa::from_pem_file(&file).unwrap();
        let client_ca = if is_optional { client_ca.optional() } else { client_ca };
        let identity = own.clone().with_client_ca(client_ca);
        let builder = Server::builder().listen_tls("127.0.0.1:0", identity.clone());
        let server = Running::new(builder.route("/", || app(echo)));
        let comes = |shown| comes(&ca, &server, shown);
        let come = || [&of_old, &of_new].map(|shown| comes(shown).is_some());
        let mut open = comes(&of_old).unwrap();
        assert!(!identity.reload().unwrap() && come() == [true, false]);
        // Both for a while, as one CA follows another.
        folder.write("clients.pem", authority::pem(&[&old, &new]));
        assert!(identity.reload().unwrap() && !identity.reload().unwrap());
        assert_eq!(come(), [true, true]);
        for (bad, words) in [
            (new.pem()[..200].to_owned(), "certificate 1 cannot be read: it is cut off"),
            (String::new(), "no PEM certificate"),
            (new.key_pem(), "no PEM certificate"),
        ] {
            folder.write("clients.pem", bad);
            let error = identity.reload().unwrap_err().to_string();
            assert!(error.starts_with(&file) && error.contains(words), "{error}");
            assert_eq!(come(), [true, true]);
        }
        std::fs::remove_file(&file).unwrap();
        assert!(identity.reload().unwrap_err().to_string().contains("clients.pem: No such file"));
        let watch = identity.watch().unwrap();
        folder.write("clients.pem", new.pem());
        common::eventually("it is seen", || come() == [false, true]);
        drop(watch);
        // What comes for the server's own certificate does not bring the old one back.
        identity.replace(&load(&[&Kind::server("server").issued_by(&ca)])).unwrap();
        assert!(come() == [false, true] && !identity.reload().unwrap());
        open.write_all(&frame(0x81, b"still")).unwrap();
        assert_eq!(read_frame(&mut open), (0x81, b"still".to_vec()));
    }
}

/// With TLS 1.3 it sends its request before it can know.
#[test]
fn a_client_that_is_refused_learns_why_although_it_has_sent_its_request() {
    let [ca, clients] = ["ca", "clients"].map(|name| Kind::ca(name).signed());
    let own = load(&[&Kind::server("server").issued_by(&ca)]);
    let client_ca = TlsClientCa::from_pem(clients.pem().as_bytes()).unwrap();
    let builder = Server::builder().listen_tls("127.0.0.1:0", own.with_client_ca(client_ca));
    let server = Running::new(builder.route("/", || app(echo)));
    let mut client = client(&ca);
    client.set_min_proto_version(Some(SslVersion::TLS1_3)).unwrap();
    let mut tls = connect(client, &server, "localhost").unwrap();
    for part in ["GET / HTTP/1.1\r\n", "Host: localhost\r\n", "\r\n"] {
        std::thread::sleep(std::time::Duration::from_millis(20)); // it may be refused meanwhile, or later
        let _ = tls.write_all(part.as_bytes());
    }
    let error = tls.read(&mut [0]).unwrap_err().to_string();
    assert!(error.contains("certificate required"), "{error}");
}

/// Debian's OpenSSL takes no certificate that was signed so.
#[test]
fn what_only_rustls_can_use_is_loaded_where_both_are_there() {
    let old =
        Kind { digest: MessageDigest::sha1(), ..Kind::server("old") }.issued_by(&Kind::ca("ca").signed());
    let loaded = TlsIdentity::from_pem(old.pem().as_bytes(), old.key_pem().as_bytes()).unwrap();
    drop(
        Server::builder().listen_tls("127.0.0.1:0", loaded.with_backend(TlsBackend::Rustls)).bind().unwrap(),
    );
    let other = Kind::server("other").signed();
    TlsIdentity::from_pem(old.pem().as_bytes(), other.key_pem().as_bytes()).unwrap_err();
}

/// Runs a program with this input, which stays open until it has said `until`.
fn talk(program: &str, args: &[&str], input: &[u8], until: &[u8]) -> Option<String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
        Err(e) => panic!("{e}"),
    };
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input).unwrap();
    let (mut said, mut stdout) = (Vec::new(), child.stdout.take().unwrap());
    let mut byte = [0];
    while !said.windows(until.len()).any(|bytes| bytes == until) && stdout.read(&mut byte).unwrap() == 1 {
        said.push(byte[0]);
    }
    drop(stdin);
    let _ = child.kill();
    child.wait().unwrap();
    Some(String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn openssl_and_curl_speak_each_version_with_it() {
    let folder = Folder::new();
    let [ca, clients] = ["ca", "clients"].map(|name| Kind::ca(name).signed());
    let own = load(&[&Kind::server("server").issued_by(&ca)]);
    let client_ca = TlsClientCa::from_pem(clients.pem().as_bytes()).unwrap();
    let (server, reported) = serve_and_report(own.with_client_ca(client_ca));
    let port = server.addresses[0].tcp().unwrap().port();
    let sensor = Kind::server("sensor").issued_by(&clients);
    let ca = folder.write("ca.pem", ca.pem());
    let cert = folder.write("sensor.pem", sensor.pem());
    let key = folder.write("sensor.key", sensor.key_pem());
    for version in ["1.2", "1.3"] {
        let s_client = format!("-tls{}", version.replace('.', "_"));
        let address = format!("127.0.0.1:{port}");
        let args = [
            "s_client",
            "-quiet",
            "-verify_return_error",
            "-servername",
            "localhost",
            "-connect",
            &address,
            "-CAfile",
        ];
        let args = [&args[..], &[&ca, "-cert", &cert, "-key", &key, &s_client]].concat();
        let Some(said) = talk("openssl", &args, handshake("/").as_bytes(), b"\r\n\r\n") else { return };
        assert!(said.starts_with("HTTP/1.1 101 "), "{version}: {said}");
        let [opening, _] = reported.recv_timeout(PATIENCE).unwrap();
        assert_eq!(opening.unwrap().common_name().as_deref(), Some("sensor"));

        let url = format!("https://localhost:{port}/page");
        let tls = format!("--tlsv{version}");
        let resolve = format!("localhost:{port}:127.0.0.1");
        let common =
            ["-s", "--max-time", "20", &tls, "--tls-max", version, "--resolve", &resolve, "--cacert", &ca];
        let args = [&common[..], &["--cert", &cert, "--key", &key, &url]].concat();
        let Some(said) = talk("curl", &args, b"", b"sensor") else { return };
        assert_eq!(said, "sensor", "curl with TLS {version}");
        let args = [&common[..], &[&url]].concat();
        assert_eq!(talk("curl", &args, b"", b"sensor").unwrap(), "", "without a certificate");
    }
}

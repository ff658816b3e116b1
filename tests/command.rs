#![cfg(all(feature = "cli", feature = "__tls"))]
//! The `switchboard` command as a process: what it serves, what it logs, and how it ends.

mod common;

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    time::Duration,
};

use common::{
    Client, PATIENCE, SCHEMES, Scheme, Stream, assert_closed, assert_echoes, eventually,
    folder::Folder,
    frame, handshake, next_message,
    process::{COMMAND, Process},
    read_close,
    reply::Reply,
};
use rustix::process::Signal;
use switchboard::TlsBackend;
use tungstenite::Message;

const CLASS: &str = "/csp/user/MyApp.MyWebSocketServer.cls";

/// The files of the page: path, content type, and some text that the file contains.
const PAGE: [(&str, &str, &str); 4] = [
    ("/", "text/html; charset=utf-8", "<title>Switchboard</title>"),
    ("/page.css", "text/css; charset=utf-8", "@media"),
    ("/page.js", "text/javascript; charset=utf-8", "new ReconnectingWebSocket("),
    ("/reconnecting.js", "text/javascript; charset=utf-8", include_str!("../examples/web/reconnecting.js")),
];

/// Any free port on the loopback interface.
const ANY: &str = "127.0.0.1:0";

const CERTIFICATE: [&str; 4] = ["--cert", "certs/server.pem", "--key", "certs/server.key"];

fn connect(address: SocketAddr, scheme: Scheme, path: &str) -> Client {
    let stream = Stream::connect(address, scheme);
    tungstenite::client(format!("ws://localhost{path}"), stream).unwrap().0
}

fn ask(address: SocketAddr, scheme: Scheme, request: &str) -> Reply {
    let mut stream = Stream::connect(address, scheme);
    stream.write_all(request.as_bytes()).unwrap();
    Reply::read(&mut stream)
}

fn get(address: SocketAddr, scheme: Scheme, path: &str) -> Reply {
    ask(address, scheme, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

/// Checks the page and both WebSockets.
fn assert_serves(address: SocketAddr, scheme: Scheme) {
    let mut size = 0;
    for (path, content_type, text) in PAGE {
        let file = get(address, scheme, path);
        assert_eq!((file.status, file.header("content-type")), (200, Some(content_type)), "{path}");
        assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
        assert!(file.text().contains(text), "{path}");
        // The policy allows nothing from other hosts, and no inline code.
        let policy = file.header("content-security-policy").unwrap();
        for rule in ["default-src 'none'", "connect-src 'self'", "require-trusted-types-for 'script'"] {
            assert!(policy.contains(rule), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        size += file.body.len();
    }
    assert!(size < 44 << 10, "{size} bytes");
    for path in ["/echo", CLASS] {
        let mut client = connect(address, scheme, path);
        assert_echoes(&mut client, Message::text("größe🎉"));
        assert_echoes(&mut client, Message::binary(vec![0, 255]));
        assert_echoes(&mut client, Message::text("x".repeat(20_000)));
    }
    let mut client = connect(address, scheme, CLASS);
    client.send(Message::text("exit")).unwrap();
    assert_eq!(read_close(&mut client), (1000, String::new()));
}

#[test]
fn without_arguments_it_serves_at_port_8080_of_localhost() {
    let default = "127.0.0.1:8080";
    for arguments in [&[][..], &["serve"]] {
        let busy = TcpListener::bind(default).is_err();
        let mut process = Process::start(arguments);
        if busy {
            let ended = process.end();
            assert_eq!(ended.status.code(), Some(1));
            assert!(ended.stderr.last().unwrap().contains(default), "{:?}", ended.stderr);
        } else {
            let address = process.address("http");
            assert_eq!(address.to_string(), default);
            assert_serves(address, Scheme::Ws);
            process.stop();
        }
    }
}

#[test]
fn it_serves_a_page_and_both_echoes() {
    for arguments in [&["--listen", ANY][..], &["serve", "--listen", ANY]] {
        let mut process = Process::start(arguments);
        let address = process.address("http");
        assert!(address.ip().is_loopback() && address.port() != 0, "{address}");
        assert_serves(address, Scheme::Ws);
        assert_eq!(get(address, Scheme::Ws, "/nothing").status, 404);
        assert_eq!(process.stop().stdout, "", "the log does not go to standard output");
    }
}

#[test]
fn headers_are_added_to_all_responses() {
    let folder = Folder::new();
    folder.write("page.html", "page");
    let folder = folder.path("");
    let hsts = ["--header", "Strict-Transport-Security: max-age=31536000"];
    let policy = ["--header", "content-security-policy:frame-ancestors 'none'"];
    let mut process = Process::start(&[&["--listen", ANY, "--www", &folder][..], &hsts, &policy].concat());
    let address = process.address("http");
    for path in ["/page.html", "/nothing"] {
        let reply = get(address, Scheme::Ws, path);
        assert_eq!(reply.header("strict-transport-security"), Some("max-age=31536000"), "{path}");
        assert_eq!(reply.header("content-security-policy"), Some("frame-ancestors 'none'"), "{path}");
    }
    let reply = ask(address, Scheme::Ws, &handshake("/echo"));
    assert_eq!((reply.status, reply.header("strict-transport-security")), (101, Some("max-age=31536000")));
    process.stop();
}

/// So that the page can show a subprotocol.
#[test]
fn the_shared_echo_chooses_the_first_subprotocol_offered() {
    let mut process = Process::start(&["--listen", ANY]);
    let address = process.address("http");
    let offer = "\r\nSec-WebSocket-Protocol: one.v1, two\r\n\r\n";
    for (path, chosen) in [("/echo-shared", Some("one.v1")), ("/echo", None)] {
        let reply = ask(address, Scheme::Ws, &handshake(path).replace("\r\n\r\n", offer));
        assert_eq!((reply.status, reply.header("sec-websocket-protocol")), (101, chosen), "{path}");
    }
    process.stop();
}

#[test]
fn the_iris_example_reports_when_nothing_was_received() {
    let mut process = Process::start(&["--listen", ANY]);
    let mut client = connect(process.address("http"), Scheme::Ws, CLASS);
    let message = next_message(&mut client).into_text().unwrap();
    assert!(message.starts_with("Server timed-out at ") && message.contains(':'), "{message}");
    assert_echoes(&mut client, Message::text("and goes on"));
    drop(client);
    process.stop();
}

#[test]
fn tls_with_a_certificate_and_its_key_or_with_an_identity() {
    let all = [
        CERTIFICATE,
        #[cfg(feature = "tls")]
        ["--identity", "certs/server.p12", "--password-file", "certs/server.p12.password"],
    ];
    for options in all {
        let mut process = Process::start(&[&["--tls-listen", ANY][..], &options].concat());
        assert_serves(process.address("https"), Scheme::Wss);
        process.stop();
    }
}

/// What only rustls can do is done, or said to be beyond this program.
#[test]
fn tls_of_the_chosen_library_and_version_for_chosen_clients_and_names() {
    let listen = [&["--tls-listen", ANY][..], &CERTIFICATE].concat();
    let rustls = [&listen[..], &["--tls-backend", "rustls"]].concat();
    let choices = [&["--tls-min-version", "1.3"][..], &["--client-ca", "certs/ca.pem"], &CERTIFICATE];
    for choice in choices {
        let chosen = [&rustls[..], choice].concat();
        if !TlsBackend::Rustls.is_available() {
            assert_fails(&chosen, &["without rustls", "feature `rustls`"]);
            continue;
        }
        let mut process = Process::start(&chosen);
        let address = process.address("https");
        match choice[0] {
            "--client-ca" => {
                let (mut tls, mut answer) = (Stream::connect(address, Scheme::Wss), Vec::new());
                let _ = tls.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
                let _ = tls.read_to_end(&mut answer);
                assert_eq!(answer, b"", "it has no certificate");
            }
            _ => assert_serves(address, Scheme::Wss),
        }
        process.stop();
        if TlsBackend::NativeTls.is_available() {
            let native = [&listen[..], &["--tls-backend", "native-tls"], choice].concat();
            assert_fails(&native, &["native-tls", "--tls-backend rustls"]);
        }
    }
    assert_fails(&[&listen[..], &["--cert", "certs/server.pem"]].concat(), &["2 --cert and 1 --key"]);
    assert_fails(&[&rustls[..], &["--client-ca", "certs/none"]].concat(), &["certs/none", "No such file"]);
}

#[test]
fn several_addresses_with_and_without_tls() {
    let arguments = ["--listen", ANY, "--tls-listen", ANY, "--listen", ANY, "--tls-listen", ANY];
    let mut process = Process::start(&[&arguments[..], &CERTIFICATE].concat());
    for (name, scheme) in
        [("http", Scheme::Ws), ("http", Scheme::Ws), ("https", Scheme::Wss), ("https", Scheme::Wss)]
    {
        let address = process.address(name);
        assert_echoes(&mut connect(address, scheme, "/echo"), Message::text("hello"));
    }
    process.stop();
}

#[test]
fn a_unix_socket() {
    let folder = Folder::new();
    let path = folder.path("socket");
    let mut process = Process::start(&["--listen", &format!("unix:{path}")]);
    assert!(process.line("listening on").contains(&path));
    let stream = UnixStream::connect(&path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut client, _) = tungstenite::client("ws://localhost/echo", stream).unwrap();
    client.send(Message::text("hello")).unwrap();
    assert_eq!(client.read().unwrap(), Message::text("hello"));
    drop(client);
    process.stop();
    assert!(!Path::new(&path).exists());
}

#[test]
fn www_serves_files_instead_of_the_page() {
    let folder = Folder::new();
    folder.write("www/index.html", "my own page");
    folder.write("www/app.js", "let x;");
    folder.write("secret", "secret");
    let mut process = Process::start(&["--listen", ANY, "--www", &folder.path("www")]);
    let address = process.address("http");
    assert_eq!(get(address, Scheme::Ws, "/").text(), "my own page");
    assert_eq!(
        get(address, Scheme::Ws, "/app.js").header("content-type"),
        Some("text/javascript; charset=utf-8")
    );
    assert_eq!(get(address, Scheme::Ws, "/../secret").status, 404);
    for (path, ..) in &PAGE[1..] {
        assert_eq!(get(address, Scheme::Ws, path).status, 404, "{path} belongs to the demo page");
    }
    assert_echoes(&mut connect(address, Scheme::Ws, "/echo"), Message::text("hello"));
    process.stop();
}

#[test]
fn allow_origin_decides_which_pages_may_connect() {
    const PAGES: [&str; 4] =
        ["http://localhost", "https://example.com", "http://localhost:3000", "https://evil.example"];
    for (arguments, allowed) in [
        (&[][..], [true, false, false, false]),
        (
            &["--allow-origin", "https://example.com", "--allow-origin", "http://localhost:3000"],
            [false, true, true, false],
        ),
        (
            &["--allow-origin", "https://example.com", "--allow-origin", "same-host"],
            [true, true, false, false],
        ),
        (&["--allow-origin", "same-host"], [true, false, false, false]),
        (&["--allow-origin", "*"], [true; 4]),
    ] {
        let mut process = Process::start(&[&["--listen", ANY][..], arguments].concat());
        let address = process.address("http");
        for (page, is_allowed) in PAGES.into_iter().zip(allowed) {
            let origin = format!("\r\nOrigin: {page}\r\n\r\n");
            let reply = ask(address, Scheme::Ws, &handshake("/echo").replace("\r\n\r\n", &origin));
            assert_eq!(reply.status, if is_allowed { 101 } else { 403 }, "{arguments:?}: {page}");
        }
        process.stop();
    }
}

#[test]
fn host_and_trusted_proxy_decide_which_hosts_may_be_asked_for() {
    for (arguments, served) in [
        (&[][..], [true, false, false]),
        (&["--host", "box.example", "--host", "*.friend.example"], [true, true, false]),
        (&["--trusted-proxy", "127.0.0.1"], [true; 3]),
        (&["--host", "*"], [true; 3]),
    ] {
        let mut process = Process::start(&[&["--listen", ANY][..], arguments].concat());
        let address = process.address("http");
        for (host, is_served) in ["localhost", "box.example", "evil.example"].into_iter().zip(served) {
            let page = ask(address, Scheme::Ws, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert_eq!(page.status, if is_served { 200 } else { 421 }, "{arguments:?}: {host}");
        }
        process.stop();
    }
}

#[test]
fn a_proxy_on_a_unix_socket_is_trusted_if_it_is_named() {
    let folder = Folder::new();
    for (trusted, is_believed) in [("unix", true), ("127.0.0.1", false)] {
        let path = folder.path(trusted);
        let listen = format!("unix:{path}");
        let limit = ["--max-connections-per-address", "1"];
        let mut process = Process::start(
            &[&["--listen", &listen, "--trusted-proxy", trusted, "--log-level", "debug"], &limit[..]]
                .concat(),
        );
        process.line("listening on");
        let lines = "\r\nX-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n\r\n";
        let request = handshake("/echo-shared").replace("\r\n\r\n", lines);
        let open = || {
            let mut stream = UnixStream::connect(&path).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            (common::reply::ask(&mut stream, &request), stream)
        };
        let (reply, client) = open();
        let is_secure = reply.header("set-cookie").is_some_and(|cookie| cookie.ends_with("; Secure"));
        assert_eq!((reply.status, is_secure), (101, is_believed), "{reply:?}");
        assert_eq!(open().0.status, if is_believed { 429 } else { 101 }, "of the same client");
        drop(client);
        process.stop();
    }
}

#[test]
fn options_say_in_which_way_a_proxy_names_its_client() {
    let line = "PROXY TCP4 203.0.113.7 198.51.100.1 4711 80\r\n";
    for (options, before, told) in [
        (&["--trusted-proxy", "127.0.0.0/8"][..], "", "6.6.6.6 by 127.0.0.1:"),
        (&["--trusted-proxy", "127.0.0.1", "--proxy-headers", "forwarded"], "", "7.7.7.7 by 127.0.0.1:"),
        (&["--proxy-protocol", "127.0.0.0/8"], line, "203.0.113.7:4711: "),
    ] {
        let mut process = Process::start(&[&["--listen", ANY, "--log-level", "debug"], options].concat());
        let address = process.address("http");
        let lines = "X-Forwarded-For: 6.6.6.6\r\nForwarded: for=7.7.7.7\r\n";
        let request = format!("{before}GET / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
        assert_eq!(ask(address, Scheme::Ws, &request).status, 200);
        assert!(process.line(": GET /: 200").contains(told), "{options:?}: {:?}", process.stderr);
        process.stop();
    }
}

#[test]
fn redirect_port_sends_clients_to_https() {
    let tls = ["--tls-listen", ANY, "--cert", "certs/server.pem", "--key", "certs/server.key"];
    let mut process = Process::start(&[&tls[..], &["--redirect-port", ANY]].concat());
    let https = process.address("https").port();
    let line = process.line(" sends clients to https");
    let address = line.split_once("http://").unwrap().1.split('/').next().unwrap().parse().unwrap();
    let reply = ask(address, Scheme::Ws, "GET /a?b HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let location = format!("https://localhost:{https}/a?b");
    assert_eq!((reply.status, reply.header("location")), (308, Some(&*location)));
    process.stop();
    assert_fails(&["--listen", ANY, "--redirect-port", ANY], &["--tls-listen", "--https-port"]);
}

#[test]
fn the_log_says_why_a_page_may_not_connect() {
    let mut process = Process::start(&["--listen", ANY, "--log-level", "debug"]);
    let address = process.address("http");
    let with = |lines: &str| handshake("/echo").replace("Host: localhost", lines);
    let foreign = with("Host: localhost:8080\r\nOrigin: http://evil.example\u{202e}");
    assert_eq!(ask(address, Scheme::Ws, &foreign).status, 403);
    let line = process.line("refused: 403");
    for part in [" /echo: ", r#""http://evil.example\u{202e}""#, "\"localhost:8080\"", "127.0.0.1:"] {
        assert!(line.contains(part), "{line}");
    }
    let rebound = with("Host: evil.example\r\nOrigin: http://evil.example");
    assert_eq!(ask(address, Scheme::Ws, &rebound).status, 421);
    let line = process.line("refused: 421");
    for part in ["\"evil.example\"", "--host", "--trusted-proxy"] {
        // Whole, although the log cuts what is long.
        assert!(line.contains(part), "{line}");
    }
    // A path is decoded, and shown escaped.
    assert_eq!(get(address, Scheme::Ws, "/x%0d%0a[INFO]%1b%E2%80%AE").status, 404);
    let line = process.line("/x");
    assert!(line.contains(r"/x\r\n[INFO]\u{1b}\u{202e}: 404"), "{line}");
    process.stop();
}

#[test]
fn max_connections() {
    let mut process = Process::start(&["--listen", ANY, "--max-connections", "2"]);
    let address = process.address("http");
    let mut both = [connect(address, Scheme::Ws, "/echo"), connect(address, Scheme::Ws, "/echo")];
    let reply = ask(address, Scheme::Ws, &handshake("/echo"));
    assert_eq!(reply.status, 503);
    assert!(reply.header("retry-after").is_some());
    both.iter_mut().for_each(|client| assert_echoes(client, Message::text("undisturbed")));
    drop(both);
    process.stop();
}

#[test]
fn max_message_size() {
    for (size, bytes) in [("1000", 1000), ("2K", 2 << 10), ("3M", 3 << 20)] {
        let mut process = Process::start(&["--listen", ANY, "--max-message-size", size]);
        let mut client = connect(process.address("http"), Scheme::Ws, "/echo");
        assert_echoes(&mut client, Message::binary(vec![7; bytes]));
        client.send(Message::binary(vec![7; bytes + 1])).unwrap();
        assert_eq!(read_close(&mut client).0, 1009);
        drop(client);
        process.stop();
    }
}

/// Whoever sends too much into a room has to leave it; nobody else.
#[test]
fn the_rooms_limit_what_one_client_sends() {
    let mut process = Process::start(&["--listen", ANY]);
    let address = process.address("http");
    let largest = "x".repeat(1 << 20);
    let line = "x".repeat(16 << 10);
    let too_long = "x".repeat((16 << 10) + 1);
    for (path, message, allowed, text) in [
        ("/broadcast", &largest, 4, "more than 4 MiB at once, or 1 MiB a second"),
        ("/chat?room=r&name=n", &line, 4, "more than 64 KiB at once, or 16 KiB a second"),
        ("/chat?room=r&name=n", &too_long, 0, "a line of more than 16 KiB"),
    ] {
        let mut readers: Vec<_> = (0..50).map(|_| connect(address, Scheme::Ws, path)).collect();
        let mut sender = connect(address, Scheme::Ws, path);
        // Until it is closed; each message that it may send comes back to it.
        let close = (0..100).find_map(|_| {
            let _ = sender.send(Message::text(message.as_str()));
            loop {
                match sender.read().unwrap() {
                    Message::Close(Some(frame)) => {
                        return Some((frame.code.into(), frame.reason.to_string()));
                    }
                    other if other.len() >= message.len() => return None,
                    _ => {}
                }
            }
        });
        assert_eq!(close, Some((1008, text.to_owned())), "{path}");
        for reader in &mut readers {
            let mut got = 0;
            while got < allowed {
                got += usize::from(next_message(reader).len() >= message.len());
            }
            reader.send(Message::Ping(b"still here".to_vec().into())).unwrap();
            while !matches!(reader.read().unwrap(), Message::Pong(_)) {}
        }
    }
}

#[test]
fn log_file_appends_the_log_to_a_file() {
    let folder = Folder::new();
    let log = folder.write("log", "what was there before\n");
    for runs in 1..=2 {
        let process = Process::start(&["--listen", ANY, "--log-file", &log]);
        let count = |text: &str| fs::read_to_string(&log).unwrap().matches(text).count();
        eventually("it says where it listens", || count("/ is the page") == runs);
        let ended = process.stop();
        assert_eq!((ended.stderr, ended.stdout.as_str()), (vec![], ""));
        assert_eq!((count("what was there before\n"), count("ended")), (1, runs), "it is appended to");
    }
}

#[test]
fn log_level_decides_what_is_logged() {
    let folder = Folder::new();
    let path = folder.path("socket");
    for (level, is_silent) in [("off", true), ("error", true), ("info", false), ("debug", false)] {
        let process = Process::start(&["--listen", &format!("unix:{path}"), "--log-level", level]);
        let mut stream = None;
        eventually("it listens", || {
            stream = UnixStream::connect(&path).ok();
            stream.is_some()
        });
        // Being served shows that it runs, because there may be no log line.
        let stream = stream.unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        drop(tungstenite::client("ws://localhost/echo", stream).unwrap());
        let ended = process.stop();
        assert_eq!(ended.stderr.is_empty(), is_silent, "{level}: {:#?}", ended.stderr);
        let foreign = ended.stderr.iter().find(|line| line.contains("tungstenite") || line.contains("mio"));
        assert_eq!(foreign, None, "only the lines of Switchboard itself");
    }
}

#[test]
fn a_signal_shuts_it_down() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut process =
            Process::start(&[&["--listen", ANY, "--tls-listen", ANY][..], &CERTIFICATE].concat());
        let addresses = [process.address("http"), process.address("https")];
        let mut clients = Vec::new();
        for (address, scheme) in addresses.into_iter().zip(SCHEMES) {
            for path in ["/echo", CLASS] {
                let mut client = connect(address, scheme, path);
                assert_echoes(&mut client, Message::text("hello"));
                clients.push(client);
            }
        }
        let mut half = Stream::connect(addresses[0], Scheme::Ws);
        half.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        process.signal(signal);
        for client in &mut clients {
            assert_eq!(read_close(client).0, 1001, "going away");
            while client.read().is_ok() {} // this answers the close frame
        }
        drop(clients);
        let mut rest = String::new();
        // This connection may have got a 503, or may not have been accepted at all.
        let _ = half.read_to_string(&mut rest);
        assert!(rest.is_empty() || rest.starts_with("HTTP/1.1 503 "), "{rest}");
        let ended = process.end();
        assert_eq!(ended.status.code(), Some(0), "{signal:?}: {:#?}", ended.stderr);
        assert!(ended.stderr.last().is_some_and(|line| line.contains("ended")), "{:#?}", ended.stderr);
        addresses.into_iter().for_each(assert_closed);
    }
}

/// Whoever hangs up, it goes on; and where SIGHUP is ignored, as by `nohup`, not even the log has a line of it.
#[test]
fn sighup_never_ends_it() {
    for ignored in [false, true] {
        let mut command = Command::new(if ignored { "nohup" } else { COMMAND });
        command.args(ignored.then_some(COMMAND)).args(["--listen", ANY]);
        let mut process = Process::spawn(&mut command);
        let mut client = connect(process.address("http"), Scheme::Ws, "/echo");
        for n in 0..3 {
            process.signal(Signal::HUP);
            if !ignored {
                process.line("SIGHUP has no effect");
            }
            assert_echoes(&mut client, Message::text(n.to_string()));
        }
        drop(client);
        let told = process.stop().stderr.iter().filter(|line| line.contains("SIGHUP")).count();
        assert_eq!(told, if ignored { 0 } else { 3 });
    }
}

/// `timeout`, for one, sends it to the process and to the group that this is in.
#[test]
fn a_signal_with_a_twin_is_one() {
    let process = || {
        let mut process = Process::start(&["--listen", ANY]);
        process.address("http");
        process
    };
    // The system makes one of two that are the same, if they are fast enough.
    for (first, twin) in [(Signal::INT, Signal::TERM), (Signal::TERM, Signal::TERM)] {
        let process = process();
        process.signal(first);
        process.signal(twin);
        let ended = process.end();
        assert_eq!(ended.status.code(), Some(0), "{:#?}", ended.stderr);
    }
}

/// With TLS it has the certificate loaded again; and so it is whenever the files change.
#[cfg(not(target_vendor = "apple"))]
#[test]
fn certificates_are_renewed_by_sighup_and_when_their_files_change() {
    use common::authority::{Certified, DAY, Kind};
    let make = |name| Kind { valid: (-DAY, 20 * DAY), ..Kind::server(name) }.signed();
    let [old, new, newer] = ["old", "new", "newer"].map(make);
    let folder = Folder::new();
    let write = |certified: &Certified| {
        folder.write("cert.pem", certified.pem());
        folder.write("key.pem", certified.key_pem());
    };
    write(&old);
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| folder.path(name));
    let mut process = Process::start(&["--tls-listen", ANY, "--cert", &cert, "--key", &key]);
    assert!(process.line("expires in 19 days").contains("[WARN]"));
    let address = process.address("https");
    let connect = |of: &Certified| {
        let ca = native_tls::Certificate::from_pem(of.pem().as_bytes()).unwrap();
        let mut builder = native_tls::TlsConnector::builder();
        let connector = builder.disable_built_in_roots(true).add_root_certificate(ca).build().unwrap();
        let tcp = TcpStream::connect(address).unwrap();
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        let stream = connector.connect("localhost", tcp).unwrap();
        tungstenite::client("wss://localhost/echo", stream).unwrap().0
    };
    let mut clients = vec![connect(&old)];
    process.signal(Signal::HUP);
    process.line("[INFO] SIGHUP: the files of the certificates have not changed");

    write(&new);
    process.signal(Signal::HUP); // or else the change itself is faster
    let line = process.line("the certificate \"CN=new\", valid until 20");
    assert!(line.contains(&cert) && line.contains("[INFO]"), "{line}");
    clients.push(connect(&new));

    folder.write("key.pem", old.key_pem());
    process.signal(Signal::HUP);
    // It is found by the watch as well: whichever is first.
    let lines = [(), ()].map(|()| process.line("does not match"));
    let is_told = |line: &String| line.contains("[ERROR] SIGHUP: ") && line.ends_with("stays in use");
    assert!(lines.iter().any(is_told), "{lines:?}");
    clients.push(connect(&new));

    write(&newer);
    process.line("the certificate \"CN=newer\", valid until 20");
    clients.push(connect(&newer));
    for client in &mut clients {
        client.send(Message::text("still there")).unwrap();
        assert_eq!(client.read().unwrap(), Message::text("still there"));
    }
    drop(clients);
    process.stop();
}

#[test]
fn a_second_signal_ends_it_at_once() {
    for (first, second) in [(Signal::INT, Signal::INT), (Signal::TERM, Signal::INT)] {
        let mut process = Process::start(&["--listen", ANY]);
        // This client delays the shutdown, because it never answers the close frame.
        let mut stream = Stream::connect(process.address("http"), Scheme::Ws);
        stream.write_all(handshake("/echo").as_bytes()).unwrap();
        stream.read_head();
        stream.write_all(&frame(0x81, b"hello")).unwrap();
        assert_eq!(stream.read_frame(), (0x81, b"hello".to_vec()));
        process.signal(first);
        let (kind, payload) = stream.read_frame();
        assert_eq!((kind, &payload[..2]), (0x88, &1001_u16.to_be_bytes()[..]));
        std::thread::sleep(Duration::from_millis(300)); // or it would be a twin of the first
        process.signal(second);
        let ended = process.end();
        assert_eq!(ended.status.code(), Some(130), "{:#?}", ended.stderr);
    }
}

/// It prints exactly one line, which says what is wrong.
#[track_caller]
fn assert_fails(arguments: &[&str], words: &[&str]) {
    // The default may be more than this machine allows, which would add a log line.
    let ended = Process::start(&[&["--max-connections", "10"], arguments].concat()).end();
    assert_eq!(ended.status.code(), Some(1), "{arguments:?}: {:#?}", ended.stderr);
    let [line] = &ended.stderr[..] else { panic!("{arguments:?}: {:#?}", ended.stderr) };
    assert!(line.starts_with("switchboard: "), "{line}");
    assert!(words.iter().all(|word| line.contains(word)), "{words:?}: {line}");
    assert_eq!(ended.stdout, "");
}

#[test]
fn each_mistake_is_reported_in_one_line() {
    let busy = TcpListener::bind(ANY).unwrap();
    let taken = busy.local_addr().unwrap().to_string();
    let folder = Folder::new();
    let file = folder.write("file", "");
    let nowhere = folder.path("nowhere/log");
    let tls = |cert, key| ["--tls-listen", ANY, "--cert", cert, "--key", key];

    assert_fails(&["--listen", &taken], &["cannot listen on", &taken, "in use"]);
    assert_fails(&[&["--tls-listen", &*taken][..], &CERTIFICATE].concat(), &["cannot listen on", &taken]);
    assert_fails(&["--listen", "nonsense"], &["cannot listen on nonsense", "HOST:PORT"]);
    assert_fails(&["--allow-origin", "example.com"], &["example.com", "SCHEME://HOST"]);
    assert_fails(
        &["--listen", "http://127.0.0.1:0"],
        &["cannot listen on http://127.0.0.1:0", "it is a URL"],
    );
    assert_fails(&["--listen", ":8080"], &["cannot listen on :8080", "HOST:PORT"]);
    assert_fails(&["--listen", "unix:x,mode=0999"], &["cannot listen on unix:x,mode=0999", "octal"]);
    assert_fails(&["--listen", ANY, "--max-buffered-bytes", "1K"], &["max_buffered_bytes is 1024", "65536"]);
    assert_fails(&["--listen", "127.0.0.1:99999"], &["cannot listen on 127.0.0.1:99999"]);
    assert_fails(&tls("certs/nothing.pem", "certs/server.key"), &["certs/nothing.pem", "No such file"]);
    assert_fails(&tls("certs/server.pem", "certs/nothing.key"), &["certs/nothing.key", "No such file"]);
    assert_fails(&tls("certs/server.pem", "certs/other.key"), &["does not match", "certs/other.key"]);
    assert_fails(&tls("certs/server.key", "certs/server.key"), &["no PEM certificate"]);
    assert_fails(&["--listen", ANY, "--www", &nowhere], &["cannot serve files of", &nowhere]);
    assert_fails(&["--listen", ANY, "--www", &file], &["cannot serve files of", &file]);
    assert_fails(&["--listen", ANY, "--log-file", &nowhere], &["cannot write the log to", &nowhere]);
}

#[cfg(feature = "tls")]
#[test]
fn each_mistake_of_an_archive_is_reported_in_one_line() {
    let folder = Folder::new();
    let wrong = folder.write("wrong", "wrong\n");
    let nowhere = folder.path("nowhere");
    let p12 = |identity, password| ["--tls-listen", ANY, "--identity", identity, "--password-file", password];
    assert_fails(&p12("certs/server.p12", &wrong), &["password", "wrong", "certs/server.p12"]);
    assert_fails(&p12("certs/server.pem", &wrong), &["PKCS#12", "certs/server.pem"]);
    assert_fails(&p12("certs/nothing.p12", &wrong), &["certs/nothing.p12", "No such file"]);
    assert_fails(&p12("certs/server.p12", &nowhere), &[&nowhere, "No such file"]);
}

#[test]
fn wrong_usage_exits_with_2_and_says_what_is_wrong() {
    for (arguments, word) in [
        (&["--nonsense"][..], "--nonsense"),
        (&["nonsense"], "nonsense"),
        (&["--listen"], "--listen"),
        (&["--max-connections", "0"], "--max-connections"),
        (&["--max-connections", "many"], "--max-connections"),
        (&["--max-connections-per-address", "0"], "--max-connections-per-address"),
        (&["--workers", "20000"], "--workers"),
        (&["--gateways", "0"], "--gateways"),
        (&["--gateways", "1000"], "--gateways"),
        (&["--ping-timeout", "0"], "--ping-timeout"),
        (&["--stack-size", "1K"], "--stack-size"),
        (&["--max-buffered-bytes", "0"], "--max-buffered-bytes"),
        (&["--max-message-size", "1G"], "--max-message-size"),
        (&["--max-message-size", "0"], "--max-message-size"),
        (&["--log-level", "loud"], "--log-level"),
        (&["--header", "X-Y"], "NAME: VALUE"),
        (&["--header", "X Y: z"], "X Y"),
        (&["--header", "Connection: close"], "the server sets it itself"),
        (&["--tls-listen", ANY, "--cert", "certs/server.pem"], "--key"),
        (&["--tls-listen", ANY, "--key", "certs/server.key"], "--cert"),
        #[cfg(feature = "tls")]
        (&["--tls-listen", ANY, "--identity", "certs/server.p12"], "--password-file"),
        (&["--listen", ANY, "--cert", "certs/server.pem", "--key", "certs/server.key"], "--tls-listen"),
    ] {
        let ended = Process::start(arguments).end();
        assert_eq!(ended.status.code(), Some(2), "{arguments:?}: {:#?}", ended.stderr);
        assert!(ended.stderr.iter().any(|line| line.contains(word)), "{arguments:?}: {:#?}", ended.stderr);
        assert_eq!(ended.stdout, "");
    }
}

#[test]
fn tls_without_a_certificate_is_refused() {
    for arguments in [&["--tls-listen", ANY][..], &["--listen", ANY, "--tls-listen", ANY]] {
        let mut process = Process::start(arguments);
        let first = process.next_line();
        // If it started anyway, it would not listen with TLS although TLS was requested.
        assert!(!first.contains("is the page"), "{arguments:?}: it starts: {first}");
        let ended = process.end();
        assert!(matches!(ended.status.code(), Some(1 | 2)), "{arguments:?}: {:#?}", ended.stderr);
        assert!(ended.stderr.concat().contains("cert"), "it says what is missing: {:#?}", ended.stderr);
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    for (arguments, text) in [
        (&["--help"][..], "--max-message-size"),
        (&["serve", "--help"], "--tls-listen"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
    ] {
        let ended = Process::start(arguments).end();
        assert_eq!((ended.status.code(), ended.stderr), (Some(0), vec![]));
        assert!(ended.stdout.contains(text), "{}", ended.stdout);
    }
}

/// The cookie that a new connection gets, and whether another one that comes with it is known.
fn session(address: SocketAddr, cookie: Option<&str>) -> Option<String> {
    let line = cookie.map(|cookie| format!("\r\nCookie: {cookie}\r\n\r\n"));
    let head = handshake("/echo").replace("\r\n\r\n", line.as_deref().unwrap_or("\r\n\r\n"));
    let reply = ask(address, Scheme::Ws, &head);
    assert_eq!(reply.status, 101);
    reply.header("set-cookie").map(|cookie| cookie.split(';').next().unwrap().to_owned())
}

#[test]
fn with_a_key_file_session_ids_outlive_a_restart() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let file = folder.path("session.key");
    let start = || Process::start(&["--listen", ANY, "--session-key-file", &file]);
    let mut process = start();
    let cookie = session(process.address("http"), None).unwrap();
    process.stop();
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(&*folder).unwrap().count(), 1, "no other file is left");
    let key = fs::read_to_string(&file).unwrap();
    let mut process = start();
    assert_eq!(session(process.address("http"), Some(&cookie)), None, "it is known");
    process.stop();
    assert_eq!(fs::read_to_string(&file).unwrap(), key);

    fs::write(&file, format!("{}\n\n  {key}", "another key, which is long enough")).unwrap();
    let mut process = start();
    let replaced = session(process.address("http"), Some(&cookie)).expect("signed by the first key");
    assert_eq!(replaced.split('.').next(), cookie.split('.').next());
    let ended = process.stop();
    assert!(!ended.stderr.join("\n").contains("another key"));
}

#[test]
fn a_key_file_that_cannot_be_used_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let good = "0123456789abcdef0123456789abcdef";
    for (content, mode, why) in [
        (good, 0o644, "its mode is 644: everybody can read it"),
        (&good[1..], 0o600, "a key has 31 characters: it needs at least 32"),
        ("\n  \n", 0o600, "there is none"),
    ] {
        let file = folder.write("session.key", content);
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        assert_session_keys_refused(&file, why);
        fs::remove_file(&file).unwrap();
    }
    let file = folder.path("session.key");
    fs::write(&file, [0xff; 40]).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    assert_session_keys_refused(&file, "UTF-8");
    assert_session_keys_refused(&folder.path("no/such/folder"), "No such file or directory");
    assert_session_keys_refused(folder.to_str().unwrap(), "");
}

fn assert_session_keys_refused(file: &str, why: &str) {
    let ended = Process::start(&["--listen", ANY, "--session-key-file", file]).end();
    assert_eq!(ended.status.code(), Some(1), "{:#?}", ended.stderr);
    let last = ended.stderr.last().unwrap();
    assert!(last.contains("session keys: ") && last.contains(file) && last.contains(why), "{last}");
}

#[cfg(target_os = "linux")]
#[test]
fn max_connections_per_address() {
    let mut process = Process::start(&["--listen", ANY, "--max-connections-per-address", "2"]);
    let address = process.address("http");
    let both = [connect(address, Scheme::Ws, "/echo"), connect(address, Scheme::Ws, "/echo-shared")];
    let reply = ask(address, Scheme::Ws, &handshake("/echo"));
    assert_eq!(reply.status, 429);
    assert!(reply.header("retry-after").is_some());
    drop(both);
    let ended = process.stop();
    assert!(ended.stderr.iter().any(|line| line.contains("1 turned away by max_connections_per_address")));
}

#[cfg(target_os = "linux")]
#[test]
fn a_unix_socket_with_a_mode() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let path = folder.path("socket");
    // A umask that leaves nothing.
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "umask 777; exec \"$0\" --listen \"$1\"",
        COMMAND,
        &format!("unix:{path},mode=0660"),
    ]);
    let mut process = Process::spawn(&mut command);
    process.line("listening on");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o660);
    process.stop();
    assert!(!Path::new(&path).exists());
}

/// The limit on open files, soft and hard, as a shell sets it before the command starts.
#[cfg(target_os = "linux")]
fn start_with_descriptors(soft: u32, hard: u32, arguments: &[&str]) -> Process {
    let mut command = Command::new("sh");
    let script = format!("ulimit -Sn {soft}; ulimit -Hn {hard}; exec \"$0\" \"$@\"");
    command.args(["-c", &script, COMMAND, "--listen", ANY]).args(arguments);
    Process::spawn(&mut command)
}

#[cfg(target_os = "linux")]
#[test]
fn the_limit_on_open_files_is_raised_to_what_can_be_needed() {
    let folder = Folder::new();
    folder.write("index.html", "page");
    let www = folder.path("");
    for (arguments, needed) in [
        (&["--max-connections", "200"][..], 264),
        (&["--max-connections", "200", "--www", &www, "--gateways", "3"], 468),
        (&["--max-connections", "200", "--listen", ANY], 301),
    ] {
        for hard in [needed, needed - 1] {
            let mut process = start_with_descriptors(50, hard, arguments);
            process.line("is the page");
            let limits = fs::read_to_string(format!("/proc/{}/limits", process.id())).unwrap();
            let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
            assert_eq!(line.split_whitespace().nth(3), Some(hard.to_string().as_str()), "{arguments:?}");
            let ended = process.stop();
            let warning = ended.stderr.iter().find(|line| line.contains("the limit on open files is"));
            assert_eq!(warning.is_some(), hard < needed, "{warning:?}");
            let says = |line: &String| {
                line.contains(&format!("is {hard},")) && line.contains(&format!("need {needed}:"))
            };
            assert!(warning.is_none_or(says), "{warning:?}");
        }
    }
}

/// As many as it counts do fit: with all places taken, by files that are being sent, nobody gets an error.
#[cfg(target_os = "linux")]
#[test]
fn what_is_counted_for_open_files_is_enough() {
    const CLIENTS: usize = 60;
    let folder = Folder::new();
    folder.write("large", vec![b'x'; 32 << 20]);
    let places = CLIENTS.to_string();
    let arguments = ["--max-connections", &*places, "--www", &folder.path("")];
    let mut process = start_with_descriptors(50, CLIENTS as u32 * 2 + 64, &arguments);
    let address = process.address("http");
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = Stream::connect(address, Scheme::Ws);
            client.write_all(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            assert!(client.read_head().starts_with("HTTP/1.1 200 "));
            client
        })
        .collect();
    for _ in 0..40 {
        assert_eq!(get(address, Scheme::Ws, "/large").status, 503);
    }
    let open = fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap().count();
    assert!(open > CLIENTS * 2, "each file is open");
    let mut some = [0; 1000];
    clients.iter_mut().for_each(|client| client.read_exact(&mut some).unwrap());
    drop(clients);
    let ended = process.stop();
    let error =
        ended.stderr.iter().find(|line| line.contains("[ERROR]") || line.contains("limit on open files"));
    assert_eq!(error, None);
}

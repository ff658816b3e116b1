#![cfg(all(feature = "cli", feature = "__tls"))]
//! What the log shows of strangers, how much of it they can cause, and who waits for it.

mod common;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError, mpsc},
    thread,
    time::Duration,
};

use common::{
    PATIENCE, SCHEMES, Scheme, Stream, app, echo, ends::close_frame, eventually, folder::Folder, frame,
    handshake, process::COMMAND, reply::Reply, serve,
};
use log::{Level, LevelFilter};
use rustix::process::{Pid, Signal, kill_process};
use switchboard::{Limits, Message, Overflow, WebSocket};

/// All that the library logs in this process.
struct Log(Mutex<Vec<(Level, String)>>);

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.target().starts_with("switchboard") {
            let text = record.args().to_string(); // which may take its time
            self.0.lock().unwrap().push((record.level(), text));
        }
    }

    fn flush(&self) {}
}

/// The log, for one test at a time.
fn logged() -> (MutexGuard<'static, ()>, &'static Log) {
    static TURN: Mutex<()> = Mutex::new(());
    static LOG: OnceLock<Log> = OnceLock::new();
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let log = LOG.get_or_init(|| Log(Mutex::default()));
    if log::set_logger(log).is_ok() {
        log::set_max_level(LevelFilter::Trace);
    }
    log.0.lock().unwrap().clear();
    (turn, log)
}

impl Log {
    fn lines(&self) -> Vec<(Level, String)> {
        self.0.lock().unwrap().clone()
    }
}

/// A message, a reason, or whatever: what it does to a terminal, or to whoever reads the log.
const EVIL: &str =
    "\u{1b}[2J\r\n2026-01-01 [ERROR] forged\u{85}\u{9b}31m\u{2028}\u{202e}\u{2066}\u{200b}\u{feff}end";

#[test]
fn what_strangers_send_is_escaped_and_cut() {
    let (_turn, log) = logged();
    let server = serve(|builder| {
        builder
            .route("/", || app(echo))
            .route("/fails", || {
                app(|ws: &mut WebSocket| Err(ws.read_message(PATIENCE)?.as_text().unwrap_or_default().into()))
            })
            .http("/panics/*", |_| -> switchboard::Response { panic!("on purpose") })
    });
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        client.write_all(&close_frame(4000, EVIL)).unwrap();
        client.read_to_end(&mut Vec::new()).unwrap();
        for text in [EVIL, &"ä".repeat(100_000)] {
            let mut client = server.raw_websocket(scheme, "/fails");
            client.write_all(&frame(0x81, text.as_bytes())).unwrap();
            assert_eq!(client.answer_close_and_end().0, 1011);
        }
        let long = "x".repeat(5000);
        for request in [
            handshake(&format!("/{long}")),
            format!("GET /panics/{long} HTTP/1.1\r\nHost: h\r\n\r\n"),
            format!("GET /{} HTTP/1.1\r\nHost: h\r\n\r\n", "\u{202e}evil\u{9b}"),
            format!("GET /{long} HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "\u{202e}evil\u{1b}"),
            handshake("/").replace("websocket\r\n", "websocket\r\nOrigin: http://h\u{202e}\u{1b}\r\n"),
            "\u{1b}[2J / HTTP/1.1\r\n\r\n".into(),
        ] {
            assert!(server.ask(scheme, request).status >= 400);
        }
        let mut client = server.raw(scheme);
        client
            .write_all(
                handshake("/").replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: a\u{1b}\r\n\r\n").as_bytes(),
            )
            .unwrap();
        Reply::read(&mut client);
    }
    drop(server);
    let lines = log.lines();
    for (_, line) in &lines {
        let evil = line.chars().find(|c| c.is_control() || EVIL.contains(*c) && !c.is_ascii());
        assert_eq!(evil, None, "{}", line.escape_debug());
        assert!(line.chars().count() < 900 || line.starts_with("in the last minute"), "{line}");
    }
    let shown =
        r"\u{1b}[2J\r\n2026-01-01 [ERROR] forged\u{85}\u{9b}31m\u{2028}\u{202e}\u{2066}\u{200b}\u{feff}end";
    for prefix in ["closed: 4000 by the client: ", "the handler failed: "] {
        let text = format!("{prefix}{shown}");
        assert!(lines.iter().any(|(_, line)| line.contains(&text)), "{text}: {lines:#?}");
    }
}

/// A flood of what strangers can do wrong: no line above `debug` for any of it, and one that sums up.
#[test]
fn what_strangers_do_wrong_is_summed_up_in_one_line() {
    const EACH: usize = 30;
    let (_turn, log) = logged();
    let mut limits = Limits::default();
    limits.max_connections = 5;
    limits.max_connections_per_address = Some(4);
    limits.max_message_size = 1000;
    limits.max_queue_messages = 1;
    let server = serve(|builder| {
        builder.limits(limits).route("/", || app(echo)).route("/forbidden", || {
            common::full_app(|_| Err(switchboard::StatusCode::FORBIDDEN.into()), echo, |_| {})
        })
    });
    let all_left = || eventually("all left", || server.handle.connections() == 0);
    for n in 0..EACH {
        let scheme = SCHEMES[n % 2];
        for (request, status) in [
            (handshake("/nothing"), 404),
            (handshake("/forbidden"), 403),
            (handshake("/").replace("Version: 13", "Version: 8"), 426),
            ("nonsense\r\n\r\n".into(), 400),
        ] {
            assert_eq!(server.ask(scheme, request).status, status);
            all_left();
        }
        drop(server.raw(scheme));
        all_left();
        let mut no_tls = TcpStream::connect(server.tls).unwrap();
        no_tls.write_all(b"no TLS at all, and long enough to show it\r\n\r\n").unwrap();
        let _ = no_tls.read_to_end(&mut Vec::new());
        all_left();
        for (bad, code) in
            [(frame(0x83, b""), 1002), (frame(0x81, b"\xff"), 1007), (frame(0x82, &[0; 1001]), 1009)]
        {
            let mut client = server.raw_websocket(scheme, "/");
            client.write_all(&bad).unwrap();
            assert_eq!(client.read_close_and_end().0, code);
            drop(client);
            all_left();
        }
        let inside: Vec<_> = (0..4).map(|_| server.raw(Scheme::Ws)).collect();
        eventually("all are accepted", || server.handle.connections() == 4);
        assert_eq!(server.ask(Scheme::Ws, handshake("/")).status, 429);
        drop(inside);
        all_left();
    }
    drop(server);
    let lines = log.lines();
    let above: Vec<_> =
        lines.iter().filter(|(level, _)| *level < Level::Debug).map(|(_, line)| line).collect();
    let [room, shutdown, sum] = &above[..] else { panic!("{above:#?}") };
    assert!(room.starts_with("at most 5 connections"), "{room}");
    assert!(shutdown.starts_with("shutting down"), "{shutdown}");
    assert!(sum.starts_with("in the last minute"), "{sum}");
    for part in [
        "180 came to no request",
        "30 turned away by max_connections_per_address",
        "30 refused with 404",
        "30 refused with 403",
        "30 refused with 426",
        "30 refused with 400",
        "30 closed with 1002",
        "30 closed with 1007",
        "30 closed with 1009",
    ] {
        assert!(sum.contains(part), "{part}: {sum}");
    }
}

/// Whoever does not take what is pushed is disconnected, which is no line of its own, either.
#[test]
fn clients_that_are_too_slow_are_summed_up_too() {
    let (_turn, log) = logged();
    let mut limits = Limits::default();
    limits.max_queue_bytes = Some(1 << 16);
    limits.close_timeout = Duration::from_millis(200);
    let server = serve(|builder| {
        builder.limits(limits).route("/", || {
            common::full_app(
                |opening| {
                    opening.set_overflow(Overflow::Disconnect);
                    opening.set_shared_connection(true);
                    Ok(())
                },
                |_| Ok(()),
                |_| {},
            )
        })
    });
    let clients: Vec<_> = (0..3).map(|_| server.raw_websocket(Scheme::Ws, "/")).collect();
    eventually("they are cut", || {
        let _ = server.hub.broadcast(switchboard::Audience::All, Message::from(vec![0; 1 << 16]));
        server.handle.connections() == 0
    });
    drop((clients, server));
    let lines = log.lines();
    let above: Vec<_> =
        lines.iter().filter(|(level, _)| *level < Level::Debug).map(|(_, line)| line).collect();
    assert!(above.len() == 3 && above[2].contains("3 closed with 1013"), "{above:#?}");
}

/// A handler that fails is the program's fault, and its texts differ: ten lines a minute, and the number of all.
#[test]
fn a_stranger_cannot_fill_the_log_with_failures_of_a_handler() {
    let (_turn, log) = logged();
    let server = serve(|builder| builder.route("/", || app(|_| Err("it fails".into()))));
    for _ in 0..50 {
        assert_eq!(server.raw_websocket(Scheme::Ws, "/").answer_close_and_end().0, 1011);
    }
    drop(server);
    let lines = log.lines();
    let errors =
        lines.iter().filter(|(level, line)| *level == Level::Error && line.ends_with("failed: it fails"));
    assert_eq!(errors.count(), 10);
    let sum =
        lines.iter().find(|(level, line)| *level == Level::Warn && line.starts_with("in the last minute"));
    assert!(sum.is_some_and(|(_, line)| line.contains("50 failures of handlers")), "{sum:?}");
}

/// An error of the program's, which has to ask this server for what it says.
#[derive(Debug)]
struct Asking;

static ASKED: OnceLock<SocketAddr> = OnceLock::new();

impl std::fmt::Display for Asking {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut stream = TcpStream::connect(ASKED.get().unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE / 4)).unwrap();
        stream.write_all(handshake("/nothing").as_bytes()).unwrap();
        let mut answer = String::new();
        match stream.read_to_string(&mut answer) {
            Ok(_) => write!(f, "answered with {}", answer.lines().next().unwrap_or_default()),
            Err(e) => write!(f, "not answered: {e}"),
        }
    }
}

impl std::error::Error for Asking {}

/// What is counted meanwhile waits for nobody's text.
#[test]
fn an_error_that_takes_its_time_to_be_shown_holds_nobody() {
    let (_turn, log) = logged();
    let server = serve(|builder| builder.route("/", || app(|_| Err(Asking.into()))));
    ASKED.set(server.plain).unwrap();
    assert_eq!(server.raw_websocket(Scheme::Ws, "/").answer_close_and_end().0, 1011);
    let is_failure = |(level, line): &(Level, String)| *level == Level::Error && line.contains("failed: ");
    eventually("it is logged", || log.lines().iter().any(is_failure));
    drop(server);
    let lines = log.lines();
    let quoted = "(the first: ";
    let shown: Vec<_> = lines.iter().filter(|(_, line)| line.contains("the handler failed: ")).collect();
    assert!(shown.iter().any(|(_, line)| line.contains(quoted)) && shown.len() >= 2, "{lines:#?}");
    for (_, line) in shown {
        assert!(line.contains("answered with HTTP/1.1 404") && !line.contains("not answered"), "{line}");
    }
}

/// Connections that other servers hand over are clients, too.
#[test]
fn who_is_handed_over_in_vain_is_counted() {
    let (_turn, log) = logged();
    let mut limits = Limits::default();
    (limits.max_connections, limits.max_connections_per_address) = (2, Some(1));
    let server = serve(|builder| builder.limits(limits).route("/", || app(echo)));
    let adopt = |peer: Option<&str>| {
        let (mut client, stream) = std::os::unix::net::UnixStream::pair().unwrap();
        let (request, _) = switchboard::Request::parse(handshake("/").as_bytes()).unwrap().unwrap();
        let request =
            peer.into_iter().fold(request, |request, peer| request.with_peer(peer.parse().unwrap()));
        server.handle.adopt(stream, request, []);
        (Reply::read(&mut client).status, client)
    };
    let one = adopt(Some("127.0.0.1:1"));
    assert_eq!((one.0, adopt(Some("127.0.0.1:2")).0), (101, 429));
    let two = adopt(None);
    assert_eq!((two.0, adopt(None).0, adopt(None).0), (101, 503, 503));
    drop(server);
    let lines = log.lines();
    let sum = lines.iter().find(|(_, line)| line.starts_with("in the last minute")).unwrap();
    assert!(sum.1.contains("2 turned away by max_connections ("), "{sum:?}");
    assert!(sum.1.contains("1 turned away by max_connections_per_address"), "{sum:?}");
}

/// The command, with a standard error that is read only as far as the test wants. Dropping it kills it.
struct Quiet {
    child: Child,
    stderr: Option<BufReader<std::process::ChildStderr>>,
}

impl Quiet {
    fn start(args: &[&str]) -> Self {
        let mut child =
            Command::new(COMMAND).args(args).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().map(BufReader::new);
        Self { child, stderr }
    }

    /// Reads until it says where it listens.
    fn address(&mut self) -> SocketAddr {
        let lines = self.stderr.as_mut().unwrap();
        loop {
            let mut line = String::new();
            assert!(lines.read_line(&mut line).unwrap() > 0, "it has ended");
            if let Some((_, address)) = line.trim_end_matches("/ is the page\n").split_once("http://") {
                return address.parse().unwrap();
            }
        }
    }

    fn stop(&mut self) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.status()
    }

    fn status(&mut self) -> Option<i32> {
        let mut status = None;
        eventually("it ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A request with a long line in the log.
fn ask(address: SocketAddr) {
    let mut stream = Stream::connect(address, Scheme::Ws);
    stream.write_all(handshake(&format!("/{}", "x".repeat(300))).as_bytes()).unwrap();
    assert_eq!(Reply::read(&mut stream).status, 404);
}

#[test]
fn a_log_whose_reader_is_stuck_holds_nobody() {
    let mut command = Quiet::start(&["--listen", "127.0.0.1:0", "--log-level", "debug"]);
    let address = command.address();
    // A pipe takes 64 KiB, and the queue some more; then there are lines that do not fit.
    thread::scope(|scope| {
        (0..4).for_each(|_| drop(scope.spawn(|| (0..500).for_each(|_| ask(address)))));
    });
    // The reader goes on, and learns what it has missed.
    let reader = command.stderr.take().unwrap();
    let (tx, rx) = mpsc::channel();
    thread::spawn(move || reader.lines().map_while(Result::ok).try_for_each(|line| tx.send(line)));
    let mut lines = Vec::new();
    let mut asked = 2000;
    eventually("what was dropped is told", || {
        ask(address);
        asked += 1;
        lines.extend(rx.try_iter());
        lines.iter().any(|line: &String| line.contains("were dropped"))
    });
    assert_eq!(command.stop(), Some(0));
    lines.extend(rx.iter());
    let dropped = |line: &String| {
        let words: Vec<_> = line.split(' ').collect();
        let at = words.windows(2).position(|words| words[1] == "lines" && line.contains("were dropped"))?;
        words[at].parse::<usize>().ok()
    };
    let dropped: usize = lines.iter().filter_map(dropped).sum();
    assert!(dropped > 100, "{dropped}");
    let refused =
        lines.iter().filter(|line| line.contains("[DEBUG]") && line.contains("refused: 404")).count();
    assert!(refused > 100 && refused + dropped >= asked, "{refused} + {dropped}");
    assert!(lines.last().unwrap().contains("ended"), "{:?}", lines.last());
}

#[test]
fn a_stuck_reader_does_not_keep_it_from_ending() {
    let mut command = Quiet::start(&["--listen", "127.0.0.1:0", "--log-level", "debug"]);
    let address = command.address();
    thread::scope(|scope| {
        (0..4).for_each(|_| drop(scope.spawn(|| (0..400).for_each(|_| ask(address)))));
    });
    assert_eq!(command.stop(), Some(0));
}

#[test]
fn a_log_whose_reader_is_gone_holds_nobody() {
    let mut command = Quiet::start(&["--listen", "127.0.0.1:0", "--log-level", "debug"]);
    let address = command.address();
    command.stderr = None;
    (0..50).for_each(|_| ask(address));
    assert_eq!(command.stop(), Some(0));
}

#[test]
fn an_error_at_start_that_nobody_reads_is_no_crash() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(COMMAND);
    let status = command.args(["--listen", "nonsense"]).stderr(writer).status().unwrap();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn the_log_may_go_to_a_pipe_that_nobody_has_opened_yet() {
    let folder = Folder::new();
    let (pipe, socket) = (folder.path("log"), folder.path("socket"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let listen = format!("unix:{socket}");
    let args = ["--listen", &*listen, "--log-level", "debug", "--log-file", &*pipe];
    let mut command = Quiet::start(&args);
    let served = || {
        let Ok(mut stream) = std::os::unix::net::UnixStream::connect(&socket) else { return false };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(handshake("/echo").as_bytes()).unwrap();
        common::read_head(&mut stream).starts_with("HTTP/1.1 101 ")
    };
    eventually("it serves", served);
    let reader = std::fs::File::open(&pipe).unwrap();
    let mut first = String::new();
    BufReader::new(reader).read_line(&mut first).unwrap();
    assert!(first.contains("listening on"), "{first}");
    // That reader is gone now.
    assert!(served());
    assert_eq!(command.stop(), Some(0));
}

/// Nor does a handler fail that pushes to its own connection, and so learns that this has ended.
#[test]
fn a_push_to_a_client_that_has_left_is_no_failure() {
    let (_turn, log) = logged();
    let handler = |ws: &mut WebSocket| {
        while ws.read_message(PATIENCE).is_ok() {}
        let _ = ws.hub().push(ws.websocket_id(), "too late")?;
        unreachable!("it has ended")
    };
    let server = serve(|builder| builder.route("/", move || app(handler)));
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        client.write_all(&close_frame(1000, "")).unwrap();
        assert_eq!(client.read_frame().0, 0x88);
        drop(client);
        eventually("the end", || server.hub.is_empty().unwrap());
    }
    let failed: Vec<_> = log.lines().into_iter().filter(|(_, line)| line.contains("failed")).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

/// It is set up wrongly, as long as it has clients. A stranger who lies is no fault of this server's.
#[test]
fn a_proxy_that_does_not_speak_its_protocol_is_told_seldom_and_a_stranger_who_does_is_not() {
    let (_turn, log) = logged();
    for (proxy, header, is_told) in [("127.0.0.1", "", true), ("192.0.2.1", "PROXY UNKNOWN\r\n", false)] {
        let server = serve(|builder| builder.proxy_protocol([proxy]).route("/", || app(echo)));
        for scheme in SCHEMES.into_iter().cycle().take(20) {
            let mut stream = TcpStream::connect(server.address(scheme)).unwrap();
            stream.write_all(format!("{header}{}", handshake("/")).as_bytes()).unwrap();
            assert_eq!(Reply::read(&mut stream).status, 400);
        }
        drop(server);
        let lines = log.lines();
        let about =
            lines.iter().filter(|(level, line)| *level == Level::Warn && line.contains("(--proxy-protocol)"));
        let told: Vec<_> = about.filter(|(_, line)| !line.starts_with("in the last minute")).collect();
        // Once in ten seconds.
        assert!(if is_told { (1..10).contains(&told.len()) } else { told.is_empty() }, "{lines:#?}");
        assert!(told.iter().all(|(_, line)| line.contains("send-proxy-v2")), "{told:?}");
        assert!(lines.iter().any(|(_, line)| line.contains("20 refused with 400")), "{lines:#?}");
        log.0.lock().unwrap().clear();
    }
}

#[test]
fn a_server_that_returns_with_an_open_connection_is_told_what_that_means() {
    let (_turn, log) = logged();
    let reads_once = |ws: &mut WebSocket| Ok(ws.read_message(PATIENCE).map(drop)?);
    let server = serve(|builder| {
        builder
            .route("/", || app(|_| Ok(())))
            .route("/reads", move || app(reads_once))
            .route("/shared", || common::SharedEcho)
    });
    for (path, is_told) in [("/", true), ("/reads", false), ("/shared", false)] {
        let mut client = server.raw_websocket(Scheme::Ws, path);
        client.write_all(&[frame(0x81, b"hello"), close_frame(1000, "")].concat()).unwrap();
        while client.read_frame().0 != 0x88 {}
        drop(client);
        eventually("the end", || server.hub.is_empty().unwrap());
        let lines = log.lines();
        let hint = lines.iter().find(|(_, line)| line.contains("set_shared_connection"));
        assert_eq!(hint.is_some(), is_told, "{path}: {lines:?}");
        assert!(hint.is_none_or(|(level, _)| *level == Level::Debug));
        log.0.lock().unwrap().clear();
    }
}

/// The proxy's own address says nothing: it is the same for all.
#[test]
fn behind_a_trusted_proxy_the_client_is_named() {
    let (_turn, log) = logged();
    let server = serve(|builder| {
        builder
            .trusted_proxies(["127.0.0.1"])
            .http("/page", |_| switchboard::Response::html(""))
            .route("/", || app(echo))
    });
    for (scheme, forwarded) in SCHEMES.into_iter().zip(["203.0.113.7", "2001:db8::7"]) {
        let line = format!("\r\nX-Forwarded-For: {forwarded}\r\n\r\n");
        let with = |request: &str| request.replacen("\r\n\r\n", &line, 1);
        let page = with("GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let foreign = with(&handshake("/").replace("Host: localhost", "Host: localhost\r\nOrigin: null"));
        for (request, status) in [(page, 200), (foreign, 403), (with(&handshake("/")), 101)] {
            assert_eq!(server.ask(scheme, request).status, status);
        }
        let client = format!("{forwarded} by 127.0.0.1:");
        let is_named = |(_, line): &&(Level, String)| line.contains(&client);
        eventually("all are logged", || log.lines().iter().filter(is_named).count() == 3);
    }
}

#![cfg(all(feature = "cli", feature = "__tls"))]
//! `switchboard connect` as a process: what goes in and out, in pipes and on a terminal, and its exit codes.

mod common;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use common::{
    PATIENCE, SCHEMES, Scheme, TestServer, app, echo, eventually, folder::Folder, full_app, process::COMMAND,
    read_head, running::Running, serve, terminal::Terminal,
};
use rustix::{
    process::{Pid, Signal, kill_process},
    termios::LocalModes,
};
use switchboard::{Closed, ClosedBy, Compression, Message, Opening, Server, ServerResult, WebSocket};

/// A running `connect`.
struct Connect {
    child: Child,
    stdin: Option<ChildStdin>,
    /// The lines of both outputs, as they come; the end of one is an error.
    stdout: mpsc::Receiver<Vec<u8>>,
    stderr: mpsc::Receiver<Vec<u8>>,
}

/// One that has ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stdout: Vec<u8>,
    stderr: String,
}

impl Connect {
    fn start(args: &[&str]) -> Self {
        let mut command = Command::new(COMMAND);
        let pipes = command.arg("connect").args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = pipes.stderr(Stdio::piped()).spawn().unwrap();
        Self {
            stdin: child.stdin.take(),
            stdout: lines(child.stdout.take().unwrap()),
            stderr: lines(child.stderr.take().unwrap()),
            child,
        }
    }

    fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stdin.as_mut().unwrap().write_all(bytes.as_ref()).unwrap();
    }

    fn end_input(&mut self) {
        self.stdin = None;
    }

    /// The next line of standard output.
    fn line(&self) -> String {
        let line = self.stdout.recv_timeout(PATIENCE).expect("another line");
        String::from_utf8(line).unwrap().strip_suffix('\n').unwrap().to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until it has ended by itself; `stdout` is what was not read as lines.
    fn end(mut self) -> Ended {
        let mut code = None;
        eventually("it ends", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        let all = |lines: &mpsc::Receiver<Vec<u8>>| lines.iter().flatten().collect::<Vec<_>>();
        let stderr = String::from_utf8(all(&self.stderr)).unwrap();
        Ended { code: code.unwrap().code(), stdout: all(&self.stdout), stderr }
    }
}

impl Drop for Connect {
    fn drop(&mut self) {
        // If it has ended already, both do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(from: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (tx, rx) = mpsc::channel();
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        loop {
            let mut line = Vec::new();
            if !from.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) || tx.send(line).is_err() {
                return;
            }
        }
    });
    rx
}

/// Enough for what is late on a busy machine. What ends before costs none of it.
const LONG_WAIT: [&str; 2] = ["--wait", "2.5"];

/// Runs it with this input to its end.
fn run(args: &[&str], input: impl AsRef<[u8]>) -> Ended {
    let mut connect = Connect::start(args);
    // It may end without having read all.
    let _ = connect.stdin.take().unwrap().write_all(input.as_ref());
    connect.end()
}

impl Ended {
    #[track_caller]
    fn expect(&self, code: i32, stdout: impl AsRef<[u8]>, stderr: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stdout, stdout.as_ref(), "{self:?}");
        assert_eq!(self.stderr.is_empty(), stderr.is_empty(), "{}", self.stderr);
        for part in stderr {
            assert!(self.stderr.contains(part), "{part:?} is not in {}", self.stderr);
        }
    }
}

/// A server, and how its connections were closed.
struct Served {
    server: TestServer,
    closed: mpsc::Receiver<(u16, ClosedBy)>,
}

/// A server with one WebSocket at `/`.
fn serve_with(handler: impl Fn(&mut WebSocket) -> ServerResult + Clone + Send + Sync + 'static) -> Served {
    let (tx, closed) = mpsc::channel();
    let server = serve(|builder| {
        builder.route("/", move || {
            let tx = tx.clone();
            let tell = move |closed: &Closed| {
                let reason = closed.reason();
                let _ = tx.send((reason.code().into(), reason.by())); // the test may have ended
            };
            full_app(|_: &mut Opening| Ok(()), handler.clone(), tell)
        })
    });
    Served { server, closed }
}

impl Served {
    fn url(&self, scheme: Scheme) -> String {
        let name = if scheme == Scheme::Ws { "ws" } else { "wss" };
        format!("{name}://localhost:{}/", self.server.address(scheme).port())
    }

    fn ws(&self) -> String {
        self.url(Scheme::Ws)
    }

    /// How the next connection was closed.
    fn closed(&self) -> (u16, ClosedBy) {
        self.closed.recv_timeout(PATIENCE).expect("a connection that has ended")
    }
}

/// A server that reads a request, and does this with it.
fn raw_server(serve: impl FnOnce(TcpStream, String) + Send + 'static) -> (String, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/x", listener.local_addr().unwrap());
    let thread = thread::spawn(move || {
        let mut stream = listener.accept().unwrap().0;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = read_head(&mut stream);
        serve(stream, head);
    });
    (url, thread)
}

/// Reads until the other end has closed.
fn drain(mut stream: TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new()); // or reset
}

#[test]
fn lines_go_out_and_messages_come_in() {
    let served = serve_with(echo);
    for scheme in SCHEMES {
        let url = served.url(scheme);
        let args = [&[url.as_str(), "--ca", "certs/ca.pem"][..], &LONG_WAIT].concat();
        let ended = run(&args, "größe\nwindows\r\n\n{\"a\": 1}\nlast");
        ended.expect(0, "größe\nwindows\n\n{\"a\": 1}\nlast\n", &[]);
        assert_eq!(served.closed(), (1000, ClosedBy::Client));
    }
    // One after the other, each flushed.
    let mut connect = Connect::start(&[&served.ws()]);
    for line in ["one", "two", ""] {
        connect.write(format!("{line}\n"));
        assert_eq!(connect.line(), line);
    }
    connect.end_input();
    connect.end().expect(0, "", &[]);
}

#[test]
fn a_unix_socket() {
    let folder = Folder::new();
    let path = folder.path("s");
    let builder = Server::builder().listen(format!("unix:{path}")).route("/echo", || app(echo));
    let _running = Running::new(builder);
    for scheme in ["unix", "ws+unix"] {
        run(&["--one", &format!("{scheme}:{path}:/echo")], "hello\n").expect(0, "hello\n", &[]);
    }
    run(&[&format!("unix:{path}:/nothing")], "").expect(3, "", &["404 Not Found"]);
}

#[test]
fn certificates_are_checked_unless_told_otherwise() {
    let served = serve_with(echo);
    let url = served.url(Scheme::Wss);
    run(&["--one", &url], "x\n").expect(1, "", &["switchboard: TLS", "certificate", "--ca FILE"]);
    run(&["--one", &url, "--insecure"], "x\n").expect(0, "x\n", &[]);
    run(&["--one", &url, "--ca", "certs/ca.pem"], "x\n").expect(0, "x\n", &[]);
    run(&["--one", &url, "--ca", "certs/none.pem"], "x\n").expect(2, "", &["certs/none.pem", "--help"]);
}

#[cfg(all(feature = "tls", feature = "rustls"))]
#[test]
fn either_library_does_tls() {
    let served = serve_with(echo);
    let url = served.url(Scheme::Wss);
    for name in ["native-tls", "rustls"] {
        let args = ["--one", &url, "--ca", "certs/ca.pem", "--tls-backend", name];
        run(&args, "x\n").expect(0, "x\n", &[]);
    }
}

#[test]
fn one_message_in_each_direction() {
    let served = serve_with(|ws| {
        for message in ws.messages() {
            ws.write(message)?;
            ws.write("one more")?;
        }
        Ok(())
    });
    run(&["--one", &served.ws()], "a\nb\n").expect(0, "a\n", &[]);
    run(&["-1", &served.ws(), "--send", "-x"], "").expect(0, "-x\n", &[]);
    assert_eq!([served.closed(), served.closed()], [(1000, ClosedBy::Client); 2]);
    // The line may be typed late; and the input may stay open.
    let mut connect = Connect::start(&["--one", &served.ws()]);
    connect.write("late\n");
    assert_eq!(connect.line(), "late");
    connect.end().expect(0, "", &[]);
    run(&["--one", &served.ws(), "--send", "a", "--send", "b"], "").expect(2, "", &["--one"]);
    // Nothing to send: it waits for a message.
    let news = serve_with(|ws| {
        ws.write("news")?;
        ws.messages().for_each(drop);
        Ok(())
    });
    run(&["--one", &news.ws()], "").expect(0, "news\n", &[]);
}

#[test]
fn no_answer_is_told_by_the_exit_code() {
    let served = serve_with(|ws| {
        ws.messages().for_each(drop);
        Ok(())
    });
    let answer = ["timed out before there was an answer"];
    run(&["--one", &served.ws(), "--timeout", "2.5"], "a\n").expect(5, "", &answer);
    assert_eq!(served.closed(), (1000, ClosedBy::Client));
    let leaves = serve_with(|ws| Ok(ws.read_message(PATIENCE).map(drop)?));
    run(&["--one", &leaves.ws()], "a\n").expect(4, "", &["1000 by the server, before there was an answer"]);
}

#[test]
fn expect_is_a_health_check() {
    let served = serve_with(|ws| {
        for message in ws.messages() {
            ws.write("starting")?;
            ws.write(message)?;
            ws.write("more")?;
        }
        Ok(())
    });
    let url = served.ws();
    run(&[&url, "--send", "state: up!", "--expect", "up"], "").expect(0, "starting\nstate: up!\n", &[]);
    run(&[&url, "--expect", "up"], "down\nup\n").expect(0, "starting\ndown\nmore\nstarting\nup\n", &[]);
    let missing = ["timed out before a message with \"up\" came"];
    let down = run(&[&url, "--send", "down", "--expect", "up", "--timeout", "2.5"], "");
    down.expect(5, "starting\ndown\nmore\n", &missing);
    let leaves = serve_with(|ws| Ok(ws.write("down")?));
    let gone = ["closed: 1000 by the server, before a message with \"up\" came"];
    run(&[&leaves.ws(), "--expect", "up"], "").expect(4, "down\n", &gone);
}

#[test]
fn binary_messages() {
    let served = serve_with(echo);
    let url = served.ws();
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    for args in [LONG_WAIT.as_slice(), &["--one"]] {
        run(&[&[url.as_str(), "--binary"][..], args].concat(), &bytes).expect(0, &bytes, &[]);
    }
    run(&[&url, "-b", "-1", "--send", "00 ff 0A"], "").expect(0, [0, 255, 10], &[]);
    run(&[&url, "-b", "--send", "x"], "").expect(2, "", &["hexadecimal"]);
    run(&[&url, "-b"], "").expect(0, "", &[]);
    let mixed = serve_with(|ws| {
        ws.write(Message::from(vec![0, 10, 255]))?;
        Ok(ws.write("two\nlines\x1b[2J")?)
    });
    let closed = ["closed: 1000 by the server"];
    for (args, stdout) in [
        (&[][..], &b"000aff\ntwo\nlines\x1b[2J\n"[..]),
        (&["--binary"], b"\0\n\xfftwo\nlines\x1b[2J"),
        (&["--null"], b"000aff\0two\nlines\x1b[2J\0"),
    ] {
        run(&[&[mixed.ws().as_str()], &LONG_WAIT[..], args].concat(), "").expect(0, stdout, &closed);
    }
}

#[test]
fn messages_of_several_lines_end_with_a_nul() {
    let served = serve_with(echo);
    let url = served.ws();
    let args = [&[url.as_str(), "--null"][..], &LONG_WAIT].concat();
    run(&args, "a\nb\0c\r\n\0d").expect(0, "a\nb\0c\r\n\0d\0", &[]);
}

#[test]
fn input_that_cannot_be_sent_is_told() {
    let served = serve_with(echo);
    let url = served.ws();
    let args = [&[url.as_str()], &LONG_WAIT[..]].concat();
    run(&args, b"good\n\xff\nnever\n").expect(1, "good\n", &["not UTF-8", "--binary"]);
    for args in [&[][..], &["--binary"]] {
        let args = [&[url.as_str(), "--max-message-size", "1K"][..], args].concat();
        let long = run(&args, [b'x'; 1025]);
        long.expect(1, "", &["more than 1024 bytes: see --max-message-size"]);
        let end = if args.len() == 3 { &b"\n"[..] } else { b"" };
        let good = run(&[&args[..], &["--one"]].concat(), [b'x'; 1024]);
        good.expect(0, [&[b'x'; 1024], end].concat(), &[]);
    }
}

#[test]
fn the_close_code_is_shown_and_decides_the_exit_code() {
    let served = serve_with(|ws| {
        let code: u16 = ws.read_message(PATIENCE)?.as_text().unwrap_or_default().parse()?;
        ws.write("last")?;
        ws.close(code, "so\x1b[2J");
        Ok(())
    });
    for (code, exit) in [(1000, 0), (1001, 0), (1008, 4), (1011, 4), (3000, 4), (4999, 4)] {
        let told = format!("closed: {code} by the server: so\\u{{1b}}[2J\n");
        let (url, code) = (served.ws(), code.to_string());
        let ended = run(&[&[url.as_str(), "--send", &code][..], &LONG_WAIT].concat(), "");
        ended.expect(exit, "last\n", &[&told]);
        assert!(!ended.stderr.contains('\x1b'));
    }
    let (url, thread) = raw_server(|mut stream, head| {
        stream.write_all(switching(&head).as_bytes()).unwrap();
        stream.write_all(b"\x81\x05hello\x81\x10par").unwrap();
    });
    let args = [&[url.as_str()], &LONG_WAIT[..]].concat();
    run(&args, "").expect(4, "hello\n", &["closed: 1006 broken"]);
    thread.join().unwrap();
}

/// The answer to this request.
fn switching(head: &str) -> String {
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}

#[test]
fn a_refusal_is_shown() {
    for (answer, parts) in [
        (
            "404 Not Found\r\nContent-Length: 13\r\n\r\nno\r\n\x1b[31mroom",
            &["404 Not Found\n  no\n  \\u{1b}[31mroom\n"][..],
        ),
        (
            "302 Found\r\nLocation: https://else.example/\r\nContent-Length: 0\r\n\r\n",
            &["302 Found", "location: https://else.example/"],
        ),
        (
            "401 No\r\nWWW-Authenticate: Basic realm=\"x\"\r\nContent-Length: 0\r\n\r\n",
            &["401 Unauthorized", "www-authenticate: Basic"],
        ),
        ("503 No\r\nRetry-After: 7\r\nContent-Length: 3\r\n\r\n\x01\x02\x03", &["503", "retry-after: 7"]),
        ("200 OK\r\n\r\n<html>", &["200 OK\n  <html>\n"]),
    ] {
        let (url, thread) = raw_server(move |mut stream, _| {
            stream.write_all(format!("HTTP/1.1 {answer}").as_bytes()).unwrap();
        });
        let ended = run(&[&url], "hello\n");
        ended.expect(3, "", parts);
        assert!(!ended.stderr.contains('\x1b'), "{}", ended.stderr);
        thread.join().unwrap();
    }
    let (url, thread) = raw_server(|mut stream, _| stream.write_all(b"220 mail.example\r\n").unwrap());
    run(&[&url], "").expect(3, "", &["not HTTP"]);
    thread.join().unwrap();
}

#[test]
fn without_a_connection_it_says_why() {
    let (_held, nobody) = common::nobody();
    run(&[&format!("ws://{nobody}/")], "").expect(1, "", &["cannot connect to 127.0.0.1", "refused"]);
    run(&["unix:/nowhere/at/all:/"], "").expect(1, "", &["cannot connect to /nowhere/at/all"]);
    let (url, thread) = raw_server(|stream, _| drop(stream));
    run(&[&url], "").expect(1, "", &["the other side ended the connection during the opening handshake"]);
    thread.join().unwrap();
    let silent = ["--connect-timeout", "--timeout"].map(|option| {
        let (url, thread) = raw_server(|stream, _| drain(stream));
        (Connect::start(&[&url, option, "2.5"]), thread)
    });
    for (connect, thread) in silent {
        connect.end().expect(5, "", &["timed out during the opening handshake"]);
        thread.join().unwrap();
    }
    let (url, thread) = raw_server(|mut stream, head| {
        assert!(head.starts_with("CONNECT box.example:80 "), "{head}");
        stream.write_all(b"HTTP/1.1 407 No\r\nContent-Length: 5\r\n\r\nwho??").unwrap();
    });
    let proxy = url.replace("ws://", "http://").replace("/x", "");
    let told = ["the proxy refused with 407 Proxy Authentication Required\n  who??"];
    run(&["ws://box.example/", "--proxy", &proxy], "").expect(3, "", &told);
    thread.join().unwrap();
}

#[test]
fn wrong_usage_is_answered_with_what_to_do() {
    for (args, part) in [
        (&[][..], "<URL>"),
        (&["http://box/"], "ws://"),
        (&["box:80"], "ws://"),
        (&["ws://box/", "--header", "A B: c"], "A B"),
        (&["ws://box/", "--header", "Upgrade: x"], "the handshake sets it itself"),
        (&["ws://box/", "--subprotocol", "a b"], "subprotocol"),
        (&["ws://box/", "--proxy", "socks5://x"], "http://"),
        (&["unix:/x", "--proxy", "http://x"], "Unix socket"),
        (&["ws://box/", "--timeout", "soon"], "number of seconds"),
        (&["ws://box/", "--wait", "1", "--one"], "--one"),
    ] {
        let ended = run(args, "");
        ended.expect(2, "", &[part, "--help"]);
    }
    let alone = Command::new(COMMAND).arg("ws://box/").output().unwrap();
    assert_eq!(alone.status.code(), Some(2));
    let told = String::from_utf8(alone.stderr).unwrap();
    assert!(told.contains("switchboard connect ws://box/"), "{told}");
    let help = run(&["--help"], "");
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("Exit codes:") && help.contains("--expect <TEXT>"), "{help}");
}

#[test]
fn options_reach_the_server() {
    let (tx, rx) = mpsc::channel();
    let (url, thread) = raw_server(move |stream, head| {
        tx.send(head).unwrap();
        drop(stream);
    });
    let url = url.replace("ws://", "ws://me:secret@");
    let header = ["-H", "X-One: a: b", "--header", "Origin:https://box.example"];
    let others = ["--subprotocol", "one", "--subprotocol", "two", "--compress", "pooled"];
    assert_eq!(run(&[&[url.as_str()][..], &header, &others].concat(), "").code, Some(1));
    thread.join().unwrap();
    let head = rx.recv().unwrap().to_ascii_lowercase();
    for line in [
        "get /x http/1.1",
        "x-one: a: b",
        "origin: https://box.example",
        "sec-websocket-protocol: one, two",
        "authorization: basic bwu6c2vjcmv0",
    ] {
        assert!(head.lines().any(|l| l == line), "{line:?} is not in {head}");
    }
    assert!(head.contains("permessage-deflate"), "{head}");
}

#[test]
fn compressed_messages() {
    let served = serve(|builder| builder.compression(Compression::Pooled).route("/", || app(echo)));
    let url = format!("ws://{}/", served.plain);
    let line = "x".repeat(100_000) + "\n";
    for mode in ["pooled", "dedicated"] {
        run(&[&url, "--one", "--compress", mode], &line).expect(0, &line, &[]);
    }
}

/// The end of the input is not the end of the answers.
#[test]
fn after_the_input_it_waits_for_answers() {
    let served = serve_with(|ws| {
        let message = ws.read_message(PATIENCE)?;
        thread::sleep(Duration::from_millis(500));
        ws.write(message)?;
        ws.messages().for_each(drop);
        Ok(())
    });
    let url = served.ws();
    for (args, stdout) in [(&[url.as_str()][..], "late\n"), (&[&url, "--wait", "0"], "")] {
        // On a busy machine either of them may be late now and then.
        let is_so = (0..3).any(|_| {
            let ended = run(args, "late\n");
            assert!(ended.code == Some(0) && ended.stderr.is_empty(), "{ended:?}");
            assert_eq!(served.closed(), (1000, ClosedBy::Client));
            ended.stdout == stdout.as_bytes()
        });
        assert!(is_so, "never {stdout:?} with {args:?}");
    }
    let (tx, rx) = mpsc::channel::<()>();
    let rx = Arc::new(Mutex::new(rx));
    let leaves = serve_with(move |ws| {
        ws.write("hello")?;
        let _ = rx.lock().unwrap().recv_timeout(PATIENCE);
        Ok(())
    });
    let mut connect = Connect::start(&[&leaves.ws(), "--wait", "forever"]);
    connect.end_input();
    assert_eq!(connect.line(), "hello");
    tx.send(()).unwrap();
    connect.end().expect(0, "", &["closed: 1000 by the server"]);
}

#[test]
fn a_flood_in_both_directions_comes_back_in_order() {
    let served = serve_with(echo);
    let lines: String = (0..100_000).map(|n| format!("{n}\n")).collect();
    let url = served.ws();
    run(&[&[url.as_str()], &LONG_WAIT[..]].concat(), &lines).expect(0, &lines, &[]);
}

/// Whoever reads our output may take its time: that is no pause of the server.
#[test]
fn a_slow_reader_of_the_output_loses_nothing() {
    const COUNT: usize = 200_000;
    let written = Arc::new(AtomicUsize::new(0));
    let counter = written.clone();
    let served = serve_with(move |ws| {
        for n in 0..COUNT {
            ws.write(format!("message {n} {}", "x".repeat(50)))?;
            counter.fetch_add(1, SeqCst);
        }
        Ok(())
    });
    let mut command = Command::new(COMMAND);
    let pipes = command.args(["connect", &served.ws(), "--wait", "2.5"]).stdin(Stdio::null());
    let mut child = pipes.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    // Until the server is held back, and for longer than the pause that ends it.
    let mut last = (0, Instant::now());
    eventually("the server is held back", || {
        let now = written.load(SeqCst);
        if now != last.0 {
            last = (now, Instant::now());
        }
        now > 0 && last.1.elapsed() > Duration::from_secs(3)
    });
    assert!(written.load(SeqCst) < COUNT, "all of it fits into buffers");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    for n in 0..COUNT {
        let line = lines.next().unwrap_or_else(|| panic!("nothing after {n}")).unwrap();
        assert!(line.starts_with(&format!("message {n} ")), "{line}");
    }
    assert!(lines.next().is_none());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn when_nobody_reads_the_output_it_ends_quietly() {
    let ticks = serve_with(|ws| {
        while ws.close_reason().is_none() {
            ws.write("tick")?;
            let _ = ws.read_message(Duration::from_millis(20));
        }
        Ok(())
    });
    let silent = serve_with(|ws| {
        ws.write("tick")?;
        ws.messages().for_each(drop);
        Ok(())
    });
    for served in [ticks, silent] {
        let mut command = Command::new(COMMAND);
        let pipes = command.args(["connect", &served.ws()]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = pipes.stderr(Stdio::piped()).spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0; 5]).unwrap();
        drop(stdout);
        assert_eq!(served.closed(), (1000, ClosedBy::Client));
        let _stdin = child.stdin.take();
        let ended = child.wait_with_output().unwrap();
        assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(0), &b""[..]));
    }
}

#[test]
fn a_signal_closes_in_order() {
    const COUNT: usize = 20_000;
    let (tx, written) = mpsc::channel();
    let served = serve_with(move |ws| {
        for message in ws.messages() {
            for n in 0..COUNT {
                ws.write(format!("{n} to {}", message.as_text().unwrap_or_default()))?;
            }
            ws.flush()?;
            let _ = tx.send(()); // the test may have failed
        }
        Ok(())
    });
    let expected: String = (1..COUNT).map(|n| format!("{n} to a\n")).collect();
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        // On a busy machine a pause may last until it gives up.
        let is_whole = (0..3).any(|_| {
            let mut connect = Connect::start(&[&served.ws()]);
            connect.write("a\n");
            assert_eq!(connect.line(), "0 to a");
            written.recv_timeout(PATIENCE).unwrap(); // what has come until then is not lost
            connect.signal(signal);
            let ended = connect.end();
            assert!(ended.code == Some(0) && ended.stderr.is_empty(), "{:?}", (ended.code, ended.stderr));
            assert_eq!(served.closed(), (1000, ClosedBy::Client));
            ended.stdout == expected.as_bytes()
        });
        assert!(is_whole, "something is lost each time");
    }
    let silent = serve_with(|ws| {
        let _ = ws.write("hello");
        ws.messages().for_each(drop);
        Ok(())
    });
    // The answer did not come.
    let connect = Connect::start(&[&silent.ws(), "--expect", "never"]);
    assert_eq!(connect.line(), "hello");
    connect.signal(Signal::INT);
    connect.end().expect(130, "", &[]);
    assert_eq!(silent.closed(), (1000, ClosedBy::Client));
    // There is no connection.
    let (tx, rx) = mpsc::channel();
    let (url, thread) = raw_server(move |stream, _| {
        tx.send(()).unwrap();
        drain(stream);
    });
    let connect = Connect::start(&[&url]);
    rx.recv_timeout(PATIENCE).unwrap();
    connect.signal(Signal::INT);
    connect.end().expect(130, "", &[]);
    thread.join().unwrap();
}

/// A server that does not answer the close frame, and one that takes nothing more.
#[test]
fn a_server_that_does_not_close_holds_it_only_for_a_while() {
    let (url, thread) = raw_server(|mut stream, head| {
        stream.write_all(switching(&head).as_bytes()).unwrap();
        stream.write_all(b"\x81\x05hello").unwrap();
        drain(stream);
    });
    run(&[&url, "--one"], "").expect(0, "hello\n", &[]);
    thread.join().unwrap();
    let takes_nothing = || {
        let (tx, rx) = mpsc::channel::<()>();
        let (url, thread) = raw_server(move |mut stream, head| {
            stream.write_all(switching(&head).as_bytes()).unwrap();
            let _ = rx.recv_timeout(PATIENCE * 2);
        });
        let begun = Instant::now();
        let mut connect = Connect::start(&[&url, "--timeout", "3"]);
        let mut stdin = connect.stdin.take().unwrap();
        let writer = thread::spawn(move || while stdin.write_all(&[b'\n'; 4096]).is_ok() {});
        connect.end().expect(5, "", &["timed out"]);
        let elapsed = begun.elapsed();
        writer.join().unwrap();
        tx.send(()).unwrap();
        thread.join().unwrap();
        elapsed
    };
    // The closing handshake would have two seconds more. On a busy machine it may be late now and then.
    let is_left_out = (0..3).any(|_| takes_nothing() < Duration::from_secs(5));
    assert!(is_left_out, "no time is left for its part of the closing handshake");
}

/// On a terminal each message is one line, marked and escaped, and what is typed goes out.
#[test]
fn on_a_terminal() {
    let served = serve_with(|ws| {
        for message in ws.messages() {
            ws.write(format!("you said {:?}", message.as_text().unwrap_or("bytes")))?;
            ws.write("evil\x1b[2J\nline")?;
            ws.write(Message::from(vec![0, 10, 255]))?;
        }
        Ok(())
    });
    for (args, typed, said) in [(&[][..], "größe\n", "größe"), (&["--binary"], "00 ff\n", "bytes")] {
        let mut terminal = Terminal::start(&[&["connect", served.ws().as_str()][..], args].concat());
        terminal.wait_for("switchboard: connected to 127.0.0.1:");
        terminal.wait_for("; Ctrl-D or Ctrl-C closes\r\n");
        terminal.write(typed);
        terminal.wait_for(&typed.replace('\n', "\r\n")); // as it is typed
        terminal.wait_for(&format!("< you said \"{said}\"\r\n"));
        terminal.wait_for("< evil\\u{1b}[2J\\nline\r\n");
        terminal.wait_for("< (3 bytes) 00 0a ff\r\n");
        terminal.write(if args.is_empty() { "\x04" } else { "xyz\n\x04" });
        if !args.is_empty() {
            terminal.wait_for("hexadecimal bytes");
        }
        terminal.wait_for("switchboard: closed: 1000 by the client\r\n");
        assert_eq!(terminal.child.wait().unwrap().code(), Some(0));
        assert_eq!(served.closed(), (1000, ClosedBy::Client));
    }
}

/// What is being typed stays below the messages, also while somebody else has the terminal; arrows do not get into it.
#[test]
fn messages_go_above_what_is_typed() {
    let (tx, ticks) = mpsc::channel::<()>();
    let ticks = Arc::new(Mutex::new(ticks));
    let served = serve_with(move |ws| {
        for _ in 0..2 {
            ticks.lock().unwrap().recv_timeout(PATIENCE)?;
            ws.write("tick")?;
        }
        ws.write(ws.read_message(PATIENCE)?)?;
        ws.messages().for_each(drop);
        Ok(())
    });
    let mut terminal = Terminal::start(&["connect", &served.ws()]);
    terminal.wait_for("closes\r\n");
    assert!(!terminal.modes().intersects(LocalModes::ICANON | LocalModes::ECHO));
    terminal.write("hal\x7f\x1b[A");
    terminal.wait_for("ha");
    tx.send(()).unwrap();
    terminal.wait_for("\r\x1b[K< tick\r\nha");
    terminal.signal(Signal::TSTP);
    // Where nobody could have it go on, it does not stop.
    eventually("it goes on", || {
        if terminal.is_stopped() {
            terminal.signal(Signal::CONT); // before that it would undo the other one
        }
        terminal.has_shown("\r\x1b[Kha")
    });
    tx.send(()).unwrap();
    terminal.wait_for("\r\x1b[K< tick\r\nha");
    terminal.write("llo\n");
    terminal.wait_for("\r\x1b[Khallo\r\n");
    terminal.wait_for("< hallo\r\n");
    terminal.write("left");
    terminal.wait_for("left");
    terminal.signal(Signal::INT);
    terminal.wait_for("\r\nswitchboard: closed: 1000 by the client\r\n");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(0));
    assert!(terminal.modes().contains(LocalModes::ICANON | LocalModes::ECHO), "it is as it was");
}

/// Ctrl-D closes, whatever comes. One that cannot erase a row is left as it is.
#[test]
fn at_the_end_of_what_is_typed_a_terminal_closes() {
    let served = serve_with(|ws| {
        loop {
            ws.write("tick")?;
            match ws.read_message(Duration::from_millis(20)) {
                Err(e) if !e.is_timeout() => return Err(e.into()),
                _ => {}
            }
        }
    });
    for term in ["xterm", "dumb"] {
        let mut terminal = Terminal::start_as(term, &["connect", &served.ws(), "--wait", "0.2"]);
        terminal.wait_for("< tick\r\n");
        assert_eq!(terminal.modes().contains(LocalModes::ICANON), term == "dumb");
        terminal.write("\x04");
        terminal.wait_for("switchboard: closed: 1000 by the client\r\n");
        assert_eq!(terminal.child.wait().unwrap().code(), Some(0));
        assert_eq!(served.closed(), (1000, ClosedBy::Client));
    }
}

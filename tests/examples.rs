#![cfg(feature = "tls")]
//! The examples are programs to start from: short, and working as they are.
//!
//! `cargo test` builds them with the tests; to run only this file: `cargo test --examples --test examples`.
mod common;

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Instant,
};

use common::{Client, PATIENCE, Refused, Scheme, Stream, eventually, next_message, read_close, reply::Reply};
use tungstenite::{Message, client::IntoClientRequest};

/// An example as a child process. Dropping it kills it, and waits for its end.
struct Example {
    child: Child,
    lines: Receiver<String>,
    /// The URL that it prints.
    url: String,
    address: SocketAddr,
    scheme: Scheme,
}

impl Example {
    fn start(name: &str, more: &[&str]) -> Self {
        let mut child = Command::new(path(name))
            .arg("127.0.0.1:0")
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}; is it built? cargo build --examples", path(name).display()));
        let (tx, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| tx.send(line)));
        let any: SocketAddr = "0.0.0.0:0".parse().unwrap();
        let mut example = Self { child, lines, url: String::new(), address: any, scheme: Scheme::Ws };
        let line = example.line("listening on ");
        example.url = line.split_once("listening on ").unwrap().1.trim().to_owned();
        let (scheme, rest) = example.url.split_once("://").expect("a URL");
        example.scheme = match scheme {
            "ws" | "http" => Scheme::Ws,
            "wss" | "https" => Scheme::Wss,
            other => panic!("unexpected scheme {other}"),
        };
        let (address, _path) = rest.split_once('/').expect("a path");
        example.address = address.parse().unwrap();
        example
    }

    /// Waits for a line with this text.
    fn line(&self, text: &str) -> String {
        let begun = Instant::now();
        loop {
            let line = self.lines.recv_timeout(PATIENCE.saturating_sub(begun.elapsed()));
            let line = line.unwrap_or_else(|e| panic!("no line with {text:?}: {e}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    fn path(&self) -> &str {
        let (_, rest) = self.url.split_once("://").unwrap();
        &rest[rest.find('/').unwrap()..]
    }

    fn raw(&self) -> Stream {
        Stream::connect(self.address, self.scheme)
    }

    /// Opens a WebSocket at the URL.
    fn connect(&self) -> Client {
        self.try_connect(self.path(), &[]).unwrap()
    }

    fn try_connect(&self, path: &str, headers: &[(&'static str, &str)]) -> Result<Client, Refused> {
        let name = if self.scheme == Scheme::Ws { "ws" } else { "wss" };
        let mut request = format!("{name}://{}{path}", self.address).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        match tungstenite::client(request, self.raw()) {
            Ok((client, _)) => Ok(client),
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => Err(response),
            Err(e) => panic!("{e}"),
        }
    }

    fn get(&self, path: &str) -> Reply {
        use std::io::Write;
        let mut stream = self.raw();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        Reply::read(&mut stream)
    }

    /// Waits until it has ended by itself, and checks for success.
    fn ends(mut self) {
        let mut status = None;
        eventually("it ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.unwrap().success(), "{status:?}");
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // If it has ended already, both do nothing.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The test is in `target/PROFILE/deps`, the examples are in `target/PROFILE/examples`.
fn path(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).unwrap();
    profile.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

fn say(client: &mut Client, text: &str) {
    client.send(Message::text(text)).unwrap();
}

fn hear(client: &mut Client) -> String {
    next_message(client).into_text().unwrap().to_string()
}

#[test]
fn each_is_short_and_has_a_test_here() {
    let tests = fs::read_to_string(file!()).unwrap();
    let mut count = 0;
    for file in fs::read_dir("examples").unwrap() {
        let mut file = file.unwrap().path();
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        if file.is_dir() {
            file.push("main.rs");
        }
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines < 80, "{}: {lines} lines", file.display());
        assert!(tests.contains(&format!("Example::start(\"{name}\"")), "no test starts {name}");
        count += 1;
    }
    assert!(count >= 4);
}

#[test]
fn echo() {
    let example = Example::start("echo", &[]);
    assert!(example.path().ends_with("/csp/user/MyApp.MyWebSocketServer.cls"));
    let mut client = example.connect();
    for text in ["hello", "größe 🎉", "", "EXIT", "exit "] {
        say(&mut client, text);
        assert_eq!(hear(&mut client), text);
    }
    // Longer than one read returns: it comes back in pieces.
    let long = "ä".repeat(40_000);
    say(&mut client, &long);
    assert_eq!(hear(&mut client) + &hear(&mut client), long);
    say(&mut client, "exit");
    assert_eq!(read_close(&mut client), (1000, String::new()));
    drop(client);
    assert!(example.line("1000").contains("by the server"), "on_post_server prints it");
}

#[test]
fn echo_sends_the_time_when_nothing_is_received() {
    let example = Example::start("echo", &[]);
    let mut client = example.connect();
    let text = hear(&mut client);
    let time = text.strip_prefix("Server timed-out at ").unwrap_or_else(|| panic!("{text}"));
    let (days, seconds) = time.split_once(',').unwrap();
    assert!(days.parse::<u64>().unwrap() > 67_000, "days since 1840: {days}");
    assert!(seconds.parse::<u64>().unwrap() < 86_400, "seconds of the day: {seconds}");
    say(&mut client, "still here");
    assert_eq!(hear(&mut client), "still here", "it still echoes");
}

#[test]
fn tls() {
    let example = Example::start("tls", &[]);
    assert!(example.url.starts_with("wss://"), "{}", example.url);
    let mut client = example.connect(); // trusts only certs/ca.pem
    client.send(Message::binary(vec![1, 2, 3])).unwrap();
    assert_eq!(next_message(&mut client), Message::binary(vec![1, 2, 3]));
    client.close(None).unwrap();
    assert_eq!(read_close(&mut client).0, 1005);
    let page = example.get("/");
    assert_eq!(page.status, 200);
    assert!(page.text().contains("over TLS"));
}

#[test]
fn http_and_ws() {
    // It does 12 steps of work, and then shuts down.
    let example = Example::start("http_and_ws", &["12"]);
    assert!(example.url.starts_with("http://"), "{}", example.url);
    let page = example.get("/");
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").unwrap().starts_with("text/html"));
    assert!(page.text().contains("new WebSocket(") && !page.text().contains("COUNT"));
    let mut client = example.try_connect("/count", &[]).unwrap();
    let mut last = hear(&mut client).parse::<u64>().unwrap();
    for _ in 0..3 {
        let next = hear(&mut client).parse::<u64>().unwrap();
        assert!(next > last, "{next} after {last}");
        last = next;
    }
    let (_, count) = page.text().split_once("id=\"count\">").unwrap();
    assert!(count.split_once('<').unwrap().0.parse::<u64>().unwrap() <= last);
    assert_eq!(read_close(&mut client).0, 1001, "when its work is done");
    let _ = client.flush();
    let address = example.address;
    drop(client);
    example.ends();
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn tiny_http() {
    let example = Example::start("tiny_http", &[]);
    for _ in 0..3 {
        let page = example.get("/");
        assert!(page.status == 200 && page.text().contains("new WebSocket("), "{page:?}");
        let mut client = example.try_connect("/echo", &[]).unwrap();
        for text in ["größe", "and more"] {
            say(&mut client, text);
            assert_eq!(hear(&mut client), text);
        }
        client.close(None).unwrap();
        assert_eq!(read_close(&mut client).0, 1005);
        assert_eq!(example.try_connect("/nothing", &[]).unwrap_err().status(), 404);
    }
}

#[test]
fn subprotocol_and_auth() {
    let example = Example::start("subprotocol_and_auth", &[]);
    let path = example.path().to_owned();
    let offer = ("Sec-WebSocket-Protocol", "whisper.v1, shout.v1");
    let refused = example.try_connect(&path, &[offer]).unwrap_err();
    assert_eq!(refused.status(), 401);

    assert_eq!(example.get("/login").status, 400, "without a name");
    let login = example.get("/login?user=ada");
    assert_eq!(login.status, 200);
    let cookie = login.header("set-cookie").expect("a session").split(';').next().unwrap().to_owned();
    let cookie = ("Cookie", &*cookie);
    assert_eq!(example.try_connect(&path, &[cookie]).unwrap_err().status(), 400, "it offers nothing");

    let mut shouting = example.try_connect(&path, &[offer, cookie]).unwrap();
    assert_eq!(hear(&mut shouting), "hello ada");
    say(&mut shouting, "Größe");
    assert_eq!(hear(&mut shouting), "GRÖSSE");
    let mut whispering =
        example.try_connect(&path, &[("Sec-WebSocket-Protocol", "whisper.v1"), cookie]).unwrap();
    assert_eq!(hear(&mut whispering), "hello ada");
    say(&mut whispering, "Größe");
    assert_eq!(hear(&mut whispering), "größe");
    whispering.send(Message::binary(vec![0])).unwrap();
    assert_eq!(read_close(&mut whispering), (1003, "text only".into()));

    say(&mut shouting, "logout");
    assert_eq!(read_close(&mut shouting).0, 1000);
    let _ = shouting.flush();
    drop(shouting);
    eventually("the session has ended", || {
        example.try_connect(&path, &[offer, cookie]).is_err_and(|refused| refused.status() == 401)
    });
}

#[test]
fn asynchronous() {
    let example = Example::start("async", &[]);
    assert!(example.path().ends_with("/csp/user/MyApp.MyWebSocketServer.cls"));
    // One client after another, and one that leaves in the middle.
    for name in ["Ada", "Grace"] {
        let mut client = example.connect();
        assert_eq!(hear(&mut client), "What is your name?");
        say(&mut client, name);
        assert_eq!(hear(&mut client), format!("Hello {name}"));
        assert_eq!(read_close(&mut client), (1000, String::new()));
        example.line("talked");
        let mut leaves = example.connect();
        assert_eq!(hear(&mut leaves), "What is your name?");
        leaves.close(None).unwrap();
        read_close(&mut leaves);
        example.line("closed");
    }
}

/// Its pages are driven by tests/browser/page.mjs.
#[test]
fn web() {
    const SYNC: &str = "/csp/user/MyApp.MyWebSocketServer.cls";
    const ASYNC: &str = "/csp/user/MyApp.MyAsyncServer.cls";
    let example = Example::start("web", &[]);
    for (path, class) in [("/", SYNC), ("/async.html", ASYNC)] {
        let page = example.get(path);
        assert!(page.status == 200 && page.text().contains(class), "{page:?}");
    }
    let mut client = example.try_connect(SYNC, &[]).unwrap();
    say(&mut client, "größe");
    assert_eq!(hear(&mut client), "größe");
    say(&mut client, "exit");
    assert_eq!(read_close(&mut client), (1000, String::new()));

    let mut client = example.try_connect(ASYNC, &[]).unwrap();
    assert!(hear(&mut client).starts_with("Server wrote at "));
    say(&mut client, "größe");
    loop {
        let text = hear(&mut client);
        if text == "Server read größe" {
            break;
        }
        assert!(text.starts_with("Server wrote at "), "{text}");
    }
    say(&mut client, "exit");
    assert_eq!(read_close(&mut client), (1000, String::new()));
}

#[test]
fn chat() {
    let example = Example::start("chat", &[]);
    let page = example.get("/");
    assert!(page.status == 200 && page.text().contains("/rooms/"));
    assert_eq!(example.try_connect("/rooms/lobby", &[]).unwrap_err().status(), 400, "without a name");
    let enter = |path: &str| example.try_connect(path, &[]).unwrap();
    let mut ada = enter("/rooms/lobby?name=Ada");
    assert_eq!(hear(&mut ada), "* Ada came");
    let mut elsewhere = enter("/rooms/cellar?name=Eve");
    assert_eq!(hear(&mut elsewhere), "* Eve came");
    let mut bob = enter("/rooms/lobby?name=Bob%20B.");
    assert_eq!((hear(&mut bob), hear(&mut ada)), ("* Bob B. came".into(), "* Bob B. came".into()));
    say(&mut bob, "größe 🎉");
    say(&mut bob, "second");
    for client in [&mut ada, &mut bob] {
        assert_eq!(hear(client), "Bob B.: größe 🎉");
        assert_eq!(hear(client), "Bob B.: second");
    }
    bob.close(None).unwrap();
    read_close(&mut bob);
    drop(bob);
    say(&mut ada, "alone");
    assert_eq!(hear(&mut ada), "Ada: alone");
    say(&mut elsewhere, "quiet here");
    assert_eq!(hear(&mut elsewhere), "Eve: quiet here", "nothing came from the other room");
}

#[test]
fn sensor() {
    // It ends after this number of readings.
    let example = Example::start("sensor", &["25"]);
    let mut clients = [example.connect(), example.connect()];
    for client in &mut clients {
        for _ in 0..3 {
            let reading = hear(client);
            let celsius = reading.strip_prefix("{\"celsius\":").and_then(|rest| rest.strip_suffix('}'));
            let celsius: f64 = celsius.unwrap_or_else(|| panic!("{reading}")).parse().unwrap();
            assert!((19.0..=21.0).contains(&celsius), "{celsius}");
        }
    }
    for client in &mut clients {
        assert_eq!(read_close(client).0, 1001);
        let _ = client.flush();
    }
    drop(clients);
    example.ends();
}

#[test]
fn worker_pool() {
    let example = Example::start("worker_pool", &[]);
    let mut clients: Vec<_> = (0..20).map(|_| example.connect()).collect();
    for client in &mut clients {
        assert_eq!(hear(client), "send a number");
        for text in ["100", "many", "30000", "0"] {
            client.write(Message::text(text)).unwrap();
        }
        client.flush().unwrap();
    }
    for client in &mut clients {
        assert_eq!(hear(client), "1. 25 primes below 100");
        assert_eq!(hear(client), "2. a number up to a million, please");
        assert_eq!(hear(client), "3. 3245 primes below 30000");
        assert_eq!(hear(client), "4. 0 primes below 0");
    }
}

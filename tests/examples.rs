#![cfg(feature = "__tls")]
//! The examples are programs to start from: short, and working as they are.
//!
//! `cargo test` builds them with the tests; to run only this file: `cargo test --examples --test examples`.
mod common;

use std::{
    fs,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Instant,
};

use common::{
    Client, PATIENCE, Refused, Scheme, Stream, app, assert_closed, eventually, next_message, read_close,
    reply::Reply, running::Running,
};
use serde_json::{Value, json};
use switchboard::Server;
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
        let mut example = Self::run(name, &[&["127.0.0.1:0"], more].concat());
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

    /// One that listens nowhere.
    fn run(name: &str, args: &[&str]) -> Self {
        let mut child = Command::new(path(name))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}; is it built? cargo build --examples", path(name).display()));
        let (tx, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| tx.send(line)));
        let any: SocketAddr = "0.0.0.0:0".parse().unwrap();
        Self { child, lines, url: String::new(), address: any, scheme: Scheme::Ws }
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

    /// Posts a form. The name of the server is `localhost`.
    fn post(&self, path: &str, cookie: &str, form: &str, origin: Option<&str>) -> Reply {
        use std::io::Write;
        let mut stream = self.raw();
        let origin = origin.map(|origin| format!("Origin: {origin}\r\n")).unwrap_or_default();
        let length = form.len();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n{origin}\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n{form}"
        )
        .unwrap();
        Reply::read(&mut stream)
    }

    /// Types a line.
    fn command(&mut self, line: &str) {
        use std::io::Write;
        writeln!(self.child.stdin.as_mut().unwrap(), "{line}").unwrap();
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

/// The session that a response sets, as it is sent back.
fn cookie(reply: &Reply) -> String {
    reply.header("set-cookie").expect("a session").split(';').next().unwrap().to_owned()
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
        if name == "packaging" {
            continue; // no program
        }
        let lines = fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines < 120, "{}: {lines} lines", file.display());
        let starts = ["Example::start(", "Example::run(", "Command::new(path("];
        let is_started = starts.iter().any(|start| tests.contains(&format!("{start}\"{name}\"")));
        assert!(is_started, "no test starts {name}");
        count += 1;
    }
    assert!(count >= 16);
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
fn client() {
    use std::io::Write;
    let server = Example::start("echo", &[]);
    let mut client = Command::new(path("client"))
        .arg(format!("ws://{}{}", server.address, server.path()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().starts_with("connected to ws://"));
    client.stdin.as_mut().unwrap().write_all(b"hello\n").unwrap();
    assert_eq!(lines.next().unwrap(), "< hello");
    drop(client.stdin.take());
    assert_eq!(lines.last().unwrap(), "1000 by the client");
    assert!(client.wait().unwrap().success());
}

#[test]
fn http_and_ws() {
    // It does 24 steps of work, and then shuts down.
    let example = Example::start("http_and_ws", &["24"]);
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
    assert_closed(address);
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
    let cookie = cookie(&login);
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
    talks(&Example::start("async", &[]));
}

/// The other part is in another process.
#[cfg(all(feature = "manage", feature = "remote"))]
#[test]
fn asynchronous_in_two_processes() {
    let folder = common::folder::Folder::new();
    talks(&Example::start("async", &[&format!("unix:{}", folder.path("sock"))]));
}

/// The client is on one node, and the other part on another.
#[cfg(feature = "cluster")]
#[test]
fn asynchronous_on_two_nodes() {
    let redis = common::redis::RedisServer::start();
    talks(&Example::start("async", &[&redis.url()]));
}

/// Its page is driven by tests/browser/cluster.mjs.
#[cfg(feature = "cluster")]
#[test]
fn cluster() {
    let mut redis = common::redis::RedisServer::start();
    let [one, two] = ["1", "2"].map(|node| Example::start("cluster", &[node, &redis.url()]));
    let enter = |node: &Example, name: &str| {
        let mut client = node.try_connect(&format!("/room?name={name}"), &[]).unwrap();
        let id = heard(&mut client, "you")["you"].clone();
        (client, id)
    };
    let people_of = |client: &mut Client, node: u32, expected: Value| {
        while {
            let told = heard(client, "people");
            told["node"] != node || told["people"] != expected
        } {}
    };
    let (mut ada, ada_id) = enter(&one, "Ada");
    let (mut bob, bob_id) = enter(&two, "Bob");
    for client in [&mut ada, &mut bob] {
        people_of(client, 1, json!([{ "id": ada_id, "name": "Ada" }]));
        people_of(client, 2, json!([{ "id": bob_id, "name": "Bob" }]));
    }
    say(&mut bob, &json!({ "to": ada_id, "text": "only for you" }).to_string());
    assert_eq!(heard(&mut ada, "from"), json!({ "from": "Bob", "text": "only for you", "whispered": true }));
    assert_eq!(heard(&mut bob, "answer")["answer"], "");
    say(&mut ada, r#"{"text": "for all"}"#);
    assert_eq!(heard(&mut bob, "from"), json!({ "from": "Ada", "text": "for all", "whispered": false }));
    assert_eq!(heard(&mut ada, "answer")["answer"], "");
    assert!(two.try_connect("/room?name=", &[]).is_err());

    drop(bob);
    people_of(&mut ada, 2, json!([]));
    redis.kill();
    eventually("it is said that others may not have it", || {
        say(&mut ada, r#"{"text": "anybody?"}"#);
        heard(&mut ada, "answer")["answer"] == "only node 1 is sure to have it"
    });
    let (mut zoe, _) = enter(&one, "Zoe");
    while heard(&mut zoe, "people")["people"].as_array().unwrap().len() < 2 {}
    redis.restart();
    people_of(&mut ada, 2, json!([]));
}

/// A port is taken: the script says which, and ends all that it has started.
#[cfg(feature = "cluster")]
#[test]
fn cluster_on_a_taken_port() {
    let folder = common::folder::Folder::new();
    let program = folder.path("release/examples/cluster");
    fs::create_dir_all(folder.path("release/examples")).unwrap();
    std::os::unix::fs::symlink(fs::canonicalize(path("cluster")).unwrap(), program).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = Command::new("examples/cluster/run.sh")
        .arg(port.to_string())
        .env("CARGO_TARGET_DIR", folder.path(""))
        .env("BASH_FUNC_cargo%%", "() { :; }") // it is built
        .output()
        .unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && errors.contains(&format!("not started on port {port}")), "{errors}");
}

/// The next message with this in it.
#[cfg(feature = "cluster")]
fn heard(client: &mut Client, what: &str) -> Value {
    loop {
        let message: Value = serde_json::from_str(&hear(client)).unwrap();
        if !message[what].is_null() {
            return message;
        }
    }
}

fn talks(example: &Example) {
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

#[cfg(all(feature = "manage", feature = "remote"))]
#[test]
fn remote() {
    let folder = common::folder::Folder::new();
    let place = format!("unix:{}", folder.path("sock"));
    let manage = switchboard::Manage::new().listen(&place);
    let server = common::serve(|builder| builder.manage(manage).route("/chat", || app(common::echo)));
    let mut client = server.connect_echo(Scheme::Ws, "/chat"); // or else what is pushed may be queued
    let output = Command::new(path("remote")).env("SWITCHBOARD_MANAGE", place).output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && lines.ends_with(": Sent\n") && lines.lines().count() == 1, "{lines}");
    assert_eq!(hear(&mut client), "it rains");
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
    let example = Example::start("sensor", &["50"]);
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

#[test]
fn json_rpc() {
    let example = Example::start("json_rpc", &[]);
    let page = example.get("/");
    assert!(page.status == 200 && page.text().contains("/rpc"), "{page:?}");
    let mut client = example.try_connect("/rpc", &[]).unwrap();
    // Several at once, and one that wants no answer.
    say(&mut client, r#"{"jsonrpc": "2.0", "method": "store", "params": [7]}"#);
    say(&mut client, r#"{"jsonrpc": "2.0", "id": 1, "method": "add", "params": [1, 2.5]}"#);
    say(&mut client, r#"{"jsonrpc": "2.0", "id": "b", "method": "recall"}"#);
    let mut heard = || serde_json::from_str::<Value>(&hear(&mut client)).unwrap();
    assert_eq!(heard(), json!({ "jsonrpc": "2.0", "id": 1, "result": 3.5 }));
    assert_eq!(heard(), json!({ "jsonrpc": "2.0", "id": "b", "result": 7.0 }));
    for (request, id, code) in [
        (r#"{"jsonrpc": "2.0", "id": 2, "method": "divide"}"#, json!(2), -32601),
        (r#"{"jsonrpc": "2.0", "id": 3, "method": "add", "params": ["x"]}"#, json!(3), -32602),
        (r#"{"id": 4, "method": "add", "params": []}"#, Value::Null, -32600),
        ("[]", Value::Null, -32600),
        ("{", Value::Null, -32700),
    ] {
        say(&mut client, request);
        let answer = serde_json::from_str::<Value>(&hear(&mut client)).unwrap();
        assert_eq!((&answer["id"], &answer["error"]["code"]), (&id, &json!(code)), "{request}: {answer}");
    }
    client.send(Message::binary(vec![0])).unwrap();
    assert_eq!(read_close(&mut client), (1003, "text only".into()));
}

#[test]
fn login() {
    let example = Example::start("login", &[]);
    let private = |cookie: &str| example.try_connect("/private", &[("Cookie", cookie)]);
    let right = "user=ada&password=lovelace";
    let first = example.get("/");
    assert!(first.text().contains("action=\"/login\""), "{first:?}");
    let before = cookie(&first);
    assert_eq!(private(&before).unwrap_err().status(), 401);
    assert_eq!(example.post("/login", &before, "user=ada&password=x", None).status, 401);
    assert_eq!(example.post("/login", &before, right, Some("http://elsewhere")).status, 403);
    assert_eq!(private(&before).unwrap_err().status(), 401);

    let done = example.post("/login", &before, right, Some("http://localhost"));
    assert_eq!((done.status, done.header("location")), (303, Some("/")));
    let ada = cookie(&done);
    assert_ne!(ada, before, "the session was renewed");
    assert_eq!(private(&before).unwrap_err().status(), 401, "who knew it before is not logged in");
    let mut tabs = [private(&ada).unwrap(), private(&ada).unwrap()];
    tabs.iter_mut().for_each(|tab| assert_eq!(hear(tab), "hello ada"));
    say(&mut tabs[0], "größe");
    assert_eq!(hear(&mut tabs[0]), "größe");
    let stranger = [("Cookie", &*ada), ("Origin", "http://elsewhere")];
    assert_eq!(example.try_connect("/private", &stranger).unwrap_err().status(), 403);

    // The same user elsewhere is not touched by a logout.
    let elsewhere = cookie(&example.post("/login", "", right, None));
    let mut other = private(&elsewhere).unwrap();
    assert_eq!(hear(&mut other), "hello ada");
    assert_eq!(example.post("/logout", &ada, "", Some("http://elsewhere")).status, 403);
    assert_eq!(example.post("/logout", &ada, "", None).status, 303);
    tabs.iter_mut().for_each(|tab| assert_eq!(read_close(tab), (4001, "logged out".into())));
    assert_eq!(private(&ada).unwrap_err().status(), 401);
    say(&mut other, "still here");
    assert_eq!(hear(&mut other), "still here");

    // Another user logs in with the same browser.
    let grace = cookie(&example.post("/login", &elsewhere, "user=grace&password=hopper", None));
    assert_eq!(read_close(&mut other), (4001, "logged out".into()));
    assert_eq!(hear(&mut private(&grace).unwrap()), "hello grace");
}

/// It has a server, which is restarted on the same port meanwhile.
#[test]
fn sensor_uplink() {
    let (tell, heard) = mpsc::channel();
    let serve = |address: &str| {
        let tell = tell.clone();
        Running::new(Server::builder().listen(address).route("/uplink", move || {
            let tell = tell.clone();
            app(move |ws| {
                ws.write(r#"{"interval":20}"#)?;
                ws.write("and more")?;
                ws.messages().for_each(|message| drop(tell.send(message)));
                Ok(())
            })
        }))
    };
    let next = || {
        let message = heard.recv_timeout(PATIENCE).unwrap();
        serde_json::from_slice::<Value>(message.as_bytes()).unwrap()
    };
    let server = serve("127.0.0.1:0");
    let address = server.addresses[0].to_string();
    let example = Example::run("sensor_uplink", &[&format!("ws://{address}/uplink"), "150"]);
    assert_eq!(next()["box"], "greenhouse 7");
    for tick in 0..10 {
        let reading = next();
        assert!(reading["tick"] == tick && reading["celsius"].is_f64(), "{reading}");
    }
    example.line("each 20ms");
    example.line("not a command");
    drop(server);
    example.line("1001 by the server");
    let _server = serve(&address);
    let readings = std::iter::from_fn(|| Some(next()).filter(|reading| reading["tick"] != 149));
    let ticks: Vec<_> = readings.filter_map(|reading| reading["tick"].as_u64()).collect();
    assert!(ticks.is_sorted_by(|one, next| one < next) && ticks.len() > 100, "{ticks:?}");
    example.line("0 readings were not sent");
    example.ends();
}

#[test]
fn jobs() {
    let example = Example::start("jobs", &[]);
    let page = example.get("/");
    assert!(page.text().contains("reconnecting.js") && example.get("/reconnecting.js").status == 200);
    let mine = cookie(&page);
    let connect = |cookie: &str| example.try_connect("/jobs", &[("Cookie", cookie)]).unwrap();
    let heard = |client: &mut Client| serde_json::from_str::<Value>(&hear(client)).unwrap();

    let mut client = connect(&mine);
    assert_eq!(heard(&mut client), json!({ "jobs": [] }));
    say(&mut client, "start");
    let first = heard(&mut client);
    assert_eq!(first["percent"], 0);
    let job = first["job"].clone();
    assert_eq!(heard(&mut client), json!({ "job": job, "percent": 1 }));
    drop(client); // cut off

    // Who comes back, also as two tabs, gets the state, and then each step that follows it.
    for mut tab in [connect(&mine), connect(&mine)] {
        let state = heard(&mut tab);
        assert_eq!(state["jobs"][0]["job"], job, "{state}");
        let seen = state["jobs"][0]["percent"].as_u64().unwrap();
        assert!(seen >= 1, "{state}");
        for percent in seen + 1..=100 {
            assert_eq!(heard(&mut tab), json!({ "job": job, "percent": percent }));
        }
    }
    let mut client = connect(&mine);
    assert_eq!(heard(&mut client), json!({ "jobs": [{ "job": job, "percent": 100 }] }));

    // Nobody else sees it, and nobody can start too many.
    let mut stranger = connect("");
    assert_eq!(heard(&mut stranger), json!({ "jobs": [] }));
    (0..6).for_each(|_| say(&mut stranger, "start"));
    while heard(&mut stranger).get("error").is_none() {}
}

#[test]
fn tabs() {
    let mut example = Example::start("tabs", &[]);
    assert!(example.get("/?user=ada").text().contains("/inbox?"));
    let connect = |query: &str| example.try_connect(&format!("/inbox{query}"), &[]);
    assert_eq!(connect("").unwrap_err().status(), 401);
    assert_eq!(connect("?user=").unwrap_err().status(), 400);
    let mut ada = [connect("?user=ada&device=phone").unwrap(), connect("?user=ada&device=laptop").unwrap()];
    let mut grace = connect("?user=grace").unwrap();
    example.line("\"grace\" is online");

    example.command("push ada hello there");
    example.line("2 tabs have got it");
    ada.iter_mut().for_each(|tab| assert_eq!(hear(tab), "hello there"));
    example.command("list ada");
    let listed = example.line("silent for") + &example.line("silent for");
    assert!(listed.contains("phone") && listed.contains("laptop"), "{listed}");
    example.command("close ada");
    example.line("2 closed");
    for tab in &mut ada {
        assert_eq!(read_close(tab), (4001, "logged out".into()));
        let _ = tab.flush();
    }
    drop(ada);
    example.line("\"ada\" is offline");
    example.command("push grace only you");
    assert_eq!(hear(&mut grace), "only you");
}

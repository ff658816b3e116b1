#![cfg(all(feature = "cli", feature = "manage", feature = "__tls"))]
//! The command as a client of a running server: what each subcommand does and prints, in pipes, and how it ends.

mod common;

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use common::{
    PATIENCE, Scheme, Stream,
    commanded::Commanded,
    eventually,
    folder::Folder,
    handshake,
    managed::{Way, value},
    process::{COMMAND, Process},
    running::Running,
    terminal::Terminal,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use switchboard::{Client, ClientError, ClosedBy, Error, Message, PushErrorKind, Server, WebSocketId};

/// One that has ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    stdout: Vec<u8>,
    stderr: String,
}

impl Ended {
    #[track_caller]
    fn expect(&self, code: i32, stdout: impl AsRef<[u8]>, stderr: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(
            String::from_utf8_lossy(&self.stdout),
            String::from_utf8_lossy(stdout.as_ref()),
            "{self:?}"
        );
        assert_eq!(self.stderr.is_empty(), stderr.is_empty(), "{}", self.stderr);
        for part in stderr {
            assert!(self.stderr.contains(part), "{part:?} is not in {}", self.stderr);
        }
    }

    /// The lines of one that was successful.
    #[track_caller]
    fn lines(&self) -> Vec<&str> {
        assert_eq!((self.code, &*self.stderr), (Some(0), ""), "{self:?}");
        str::from_utf8(&self.stdout).unwrap().lines().collect()
    }

    #[track_caller]
    fn json(&self) -> Vec<Value> {
        self.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Runs it with this input to its end.
fn run_with(command: &mut Command, input: impl AsRef<[u8]>) -> Ended {
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    // It may end without having read all.
    let _ = child.stdin.take().unwrap().write_all(input.as_ref());
    let (stdout, stderr) = (read_all(child.stdout.take().unwrap()), read_all(child.stderr.take().unwrap()));
    let code = end(&mut child);
    let all = |bytes: mpsc::Receiver<Vec<u8>>| bytes.recv_timeout(PATIENCE).unwrap();
    Ended { code, stdout: all(stdout), stderr: String::from_utf8(all(stderr)).unwrap() }
}

fn read_all(mut from: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (tx, rx) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        tx.send(bytes)
    });
    rx
}

/// Waits until it has ended by itself.
fn end(child: &mut Child) -> Option<i32> {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if begun.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it does not end");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

impl Commanded {
    fn run(&self, args: &[&str]) -> Ended {
        run_with(&mut self.command(args), "")
    }

    /// What the HTTP API answers.
    fn get(&self, path: &str) -> Value {
        value(&Way::Unix(self.folder.join("all")).get(path), 200)
    }
}

/// A command that runs, and its lines.
struct Started {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Started {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (tx, lines) = mpsc::channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| tx.send(line)));
        Self { child, lines }
    }

    /// The next line that is not of a connection that was made only to be noticed.
    #[track_caller]
    fn line(&self) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect("another line");
            if !line.contains("/shared/early") {
                return line;
            }
        }
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.line()).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The next message, as text.
#[track_caller]
fn next(client: &Client) -> String {
    client.read_message(PATIENCE).unwrap().as_text().unwrap().to_owned()
}

#[test]
fn a_list_has_whole_ids_and_all_columns_in_a_pipe() {
    let managed = Commanded::new();
    let (_a, a) = managed.connect("/shared/a?user=ann");
    let (_b, b) = managed.connect("/shared/a-path-that-is-longer-than-any-terminal-would-like?topic=t");
    let (_c, c) = managed.connect("/echo");
    let ended = managed.run(&["list"]);
    let lines = ended.lines();
    assert_eq!(lines.len(), 4, "{lines:#?}");
    assert!(lines[0].starts_with("ID ") && lines[0].ends_with("AGENT"), "{lines:#?}");
    for id in [a, b, c] {
        assert!(lines.iter().any(|line| line.starts_with(id.as_str())), "{lines:#?}");
    }
    assert!(lines.iter().any(|line| line.contains("longer-than-any-terminal-would-like ")), "{lines:#?}");
    for (args, expected) in [
        (["--path", "/shared/a"], a),
        (["--user", "ann"], a),
        (["--topic", "t"], b),
        (["--route", "/echo"], c),
    ] {
        let lines = managed.run(&[&["list"], &args[..]].concat());
        let lines = lines.lines();
        assert!(lines.len() == 2 && lines[1].starts_with(expected.as_str()), "{args:?}: {lines:#?}");
    }
    assert_eq!(managed.run(&["list", "--user", "nobody"]).lines().len(), 1);
    managed.run(&["list", "--user", "ann", "--topic", "t"]).expect(2, "", &["cannot be used with"]);
}

#[test]
fn json_is_what_the_http_api_says() {
    let managed = Commanded::new();
    let (client, id) = managed.connect("/shared/a?user=%22an%CC%88n%22&topic=t");
    client.write("hello").unwrap();
    let (_other, _) = managed.connect("/echo");
    eventually("it was received", || managed.hub.connection(&id).unwrap().messages_in == 1);
    let list = managed.get("/@connections");
    assert_eq!(Value::from(managed.run(&["list", "--json"]).json()), list["connections"]);
    let one = managed.get(&format!("/@connections/{id}"));
    assert_eq!(managed.run(&["show", "--json", id.as_str()]).json(), [one]);
    let topics = managed.get("/@topics");
    assert_eq!(Value::from(managed.run(&["topics", "--json"]).json()), topics["topics"]);
    assert_eq!(topics["topics"], json!([{"name": "t", "members": 1}]));
}

#[test]
fn what_strangers_wrote_is_shown_without_harm() {
    let managed = Commanded::new();
    let (_client, id) = managed.connect("/shared/a?user=x%1b%5b2J%e2%80%ae&topic=y%0az");
    for args in
        [&["list"][..], &["show", id.as_str()], &["topics"], &["list", "--json"], &["topics", "--json"]]
    {
        let ended = managed.run(args);
        let text = ended.lines().concat();
        assert!(!text.contains(['\x1b', '\u{202e}']), "{text:?}");
        assert!(!text.contains("y\nz"), "{text:?}");
    }
    assert_eq!(managed.run(&["list", "--json"]).json()[0]["user"], "x\x1b[2J\u{202e}");
    assert!(managed.run(&["list"]).lines()[1].contains(r"x\u{1b}[2J\u{202e}"));
}

#[test]
fn all_that_is_known_of_a_connection() {
    let managed = Commanded::new();
    let (client, id) = managed.connect("/shared/a?user=ann&topic=t");
    client.write("hello").unwrap();
    eventually("it was received", || managed.hub.connection(&id).unwrap().messages_in == 1);
    let ended = managed.run(&["show", id.as_str()]);
    let lines = ended.lines();
    for (name, value) in [
        ("id", id.as_str()),
        ("path", "/shared/a"),
        ("route", "/shared/*"),
        ("user", "ann"),
        ("topics", "t"),
        ("tags", "-"),
        ("shared", "yes"),
        ("received", "1 messages, 11 bytes"),
        ("queued", "0 bytes"),
    ] {
        assert!(lines.contains(&&*format!("{name:<12}  {value}")), "{name} {value}: {lines:#?}");
    }
}

#[test]
fn an_id_may_begin_with_what_options_begin_with() {
    let managed = Commanded::new();
    let id = "-3kT9ZcYw4mQ1s8xAAAAKg";
    managed.run(&["show", id]).expect(4, "", &["no connection has this ID"]);
    managed.run(&["push", "--json", id, "x"]).expect(4, "", &["no connection has this ID"]);
    managed.run(&["end", id, "--code", "1000"]).expect(4, "", &["no connection has this ID"]);
}

#[test]
fn a_push_arrives() {
    let managed = Commanded::new();
    let (client, id) = managed.connect("/shared/a");
    let id = id.as_str();
    let is_pushed = |ended: Ended| {
        let text = ended.lines().concat();
        assert!(text == "sent" || text == "queued", "{text}");
    };
    is_pushed(managed.run(&["push", id, "größe"]));
    assert_eq!(next(&client), "größe");
    for (args, input, message) in [
        (&["push", id, "-"][..], "two\nlines\n", "two\nlines"),
        (&["push", id], "no end", "no end"),
        (&["push", id], "", ""),
        (&["push", id, "--", "--lines"], "", "--lines"),
    ] {
        is_pushed(run_with(&mut managed.command(args), input));
        assert_eq!(next(&client), message);
    }
    managed.run(&["push", id, "x", "--wait", "20"]).expect(0, "sent\n", &[]);
    assert_eq!(next(&client), "x");
    is_pushed(managed.run(&["push", id, "--binary", "00 ff"]));
    is_pushed(run_with(&mut managed.command(&["push", id, "-b", "-"]), b"\0\xff\n"));
    for expected in [vec![0, 0xff], vec![0, 0xff, b'\n']] {
        assert_eq!(client.read_message(PATIENCE).unwrap(), Message::from(expected));
    }
}

#[test]
fn of_a_message_that_is_too_long_the_limit_is_named() {
    let managed = Commanded::new();
    let (_client, id) = managed.connect("/shared/a");
    let long = vec![b'x'; 5 << 20];
    let ended = run_with(&mut managed.command(&["push", id.as_str()]), long);
    assert!(ended.code != Some(0) && ended.stderr.contains("max_message_size"), "{ended:?}");
}

#[test]
fn lines_are_pushed_as_they_come() {
    let managed = Commanded::new();
    let (client, id) = managed.connect("/shared/a");
    let args = ["push", id.as_str(), "--lines", "--wait", "20"];
    let mut child = managed.command(&args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for line in ["one", "", "größe"] {
        stdin.write_all(format!("{line}\r\n").as_bytes()).unwrap();
        assert_eq!(next(&client), line);
    }
    stdin.write_all(b"last").unwrap();
    drop(stdin);
    assert_eq!(next(&client), "last");
    let stdout = read_all(child.stdout.take().unwrap());
    assert_eq!(end(&mut child), Some(0));
    assert_eq!(stdout.recv_timeout(PATIENCE).unwrap(), b"4 sent, 0 queued\n");
    // The first that cannot be sent ends it, and is named.
    let mut command = managed.command(&["push", id.as_str(), "--lines", "--json"]);
    let ended = run_with(&mut command, b"good\n\xff\ngood\n");
    assert_eq!((ended.code, next(&client)), (Some(1), "good".into()), "{ended:?}");
    assert!(ended.stderr.contains("message 2: ") && ended.stderr.contains("--binary"), "{ended:?}");
    let result: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert!(["sent", "queued"].contains(&result["result"].as_str().unwrap()), "{result}");
}

#[test]
fn lines_that_are_typed_end_when_the_terminal_says_so() {
    let managed = Commanded::new();
    let (client, id) = managed.connect("/shared/a");
    // Behind a line Ctrl-D is the end. Within one, the first sends on what is there, and the second is the end.
    for (typed, lines) in [("one\n\x04", &["one"][..]), ("one\ntwo\x04\x04", &["one", "two"])] {
        let mut command = managed.command(&["push", id.as_str(), "--lines", "--wait", "20"]);
        let mut terminal = Terminal::spawn(&mut command, None);
        terminal.wait_for("Ctrl-D ends");
        terminal.write(typed);
        terminal.wait_for(&format!("{} sent, 0 queued", lines.len()));
        assert_eq!(end(&mut terminal.child), Some(0));
        lines.iter().for_each(|line| assert_eq!(next(&client), *line));
    }
}

#[test]
fn a_client_that_takes_nothing_is_told_from_one_that_is_gone() {
    let managed = Commanded::new();
    let address = managed.address();
    let mut slow = Stream::connect(address, Scheme::Ws);
    slow.write_all(handshake("/shared/slow").as_bytes()).unwrap();
    assert!(slow.read_head().starts_with("HTTP/1.1 101 "));
    let id = managed.id_at("/shared/slow");
    let full = || match managed.hub.push(&id, vec![0; 1 << 20]) {
        Ok(_) => false,
        Err(e) => matches!(e.kind, PushErrorKind::Full),
    };
    eventually("its queue is full", full);
    let push = || run_with(&mut managed.command(&["push", id.as_str(), "-", "--binary"]), vec![0; 1 << 20]);
    let mut pushed = push();
    // The gateway may still have been about to send some of it.
    eventually("there is no more room", || {
        if pushed.code == Some(0) {
            pushed = push();
        }
        pushed.code != Some(0)
    });
    pushed.expect(5, "", &["queue is full", "--wait"]);
    let wait = managed.run(&["push", id.as_str(), "x", "--wait", "0.2"]);
    wait.expect(5, "", &["did not take it in time", "not sent"]);
    drop(slow);
    let _ = managed.hub.close(&id, 1000, ""); // it may have noticed
    eventually("it is gone", || managed.hub.connection(&id).is_err());
    managed.run(&["push", id.as_str(), "x"]).expect(4, "", &["gone"]);
}

#[test]
fn a_broadcast_reaches_those_who_are_meant() {
    let managed = Commanded::new();
    let (a, a_id) = managed.connect("/shared/a?user=ann&topic=t");
    let (b, _) = managed.connect("/shared/b?user=bob&topic=t");
    let (c, _) = managed.connect("/echo");
    let reached = |args: &[&str]| {
        let all = managed.run(&[&["broadcast", "--json"], args].concat()).json();
        let count = |name: &str| all[0][name].as_u64().unwrap();
        assert_eq!((count("dropped"), count("gone")), (0, 0), "{all:?}");
        count("sent") + count("queued")
    };
    for (args, clients) in [
        (&["x"][..], &[&a, &b, &c][..]),
        (&["x", "--topic", "t"], &[&a, &b]),
        (&["x", "--topic", "t", "--except", a_id.as_str()], &[&b]),
        (&["x", "--except", a_id.as_str()], &[&b, &c]),
        (&["x", "--user", "ann"], &[&a]),
        (&["x", "--path", "/echo"], &[&c]),
        (&["x", "--route", "/shared/*"], &[&a, &b]),
    ] {
        assert_eq!(reached(args), clients.len() as u64, "{args:?}");
        for client in clients {
            assert_eq!(next(client), "x", "{args:?}");
        }
    }
    for client in [&a, &b, &c] {
        assert!(client.try_read(0).unwrap().is_none(), "nobody got more");
    }
    let text = managed.run(&["broadcast", "x"]);
    assert!(text.lines()[0].contains(" sent, ") && text.lines()[0].ends_with(" queued"), "{text:?}");
    managed.run(&["broadcast", "x", "--user", "nobody"]).expect(
        4,
        "0 sent, 0 queued\n",
        &["nobody was there"],
    );
}

#[test]
fn a_publication_has_a_position() {
    let managed = Commanded::new();
    let (client, _) = managed.connect("/shared/a?topic=remembers");
    let ended =
        run_with(&mut managed.command(&["broadcast", "--topic", "remembers", "--lines", "--json"]), "a\nb\n");
    let positions: Vec<_> =
        ended.json().iter().map(|answer| answer["position"].as_str().unwrap().to_owned()).collect();
    assert!(positions[0].ends_with(":1") && positions[1].ends_with(":2"), "{positions:?}");
    assert_eq!([next(&client), next(&client)], ["a", "b"]);
}

#[test]
fn topics_with_their_members() {
    let managed = Commanded::new();
    let _clients = ["t", "t", "a longer one"].map(|topic| {
        managed.connect(&format!("/shared/{}?topic={}", topic.len(), topic.replace(' ', "%20")))
    });
    assert_eq!(managed.run(&["topics"]).lines(), ["MEMBERS  TOPIC", "      1  a longer one", "      2  t"]);
}

#[test]
fn an_end_has_a_code_and_a_reason() {
    let managed = Commanded::new();
    for (args, code, text) in
        [(&[][..], 1000, ""), (&["--code", "4001", "--reason", "log in again"], 4001, "log in again")]
    {
        let (client, id) = managed.connect("/shared/a");
        managed.run(&[&["end", id.as_str()], args].concat()).expect(0, "", &[]);
        let Err(Error::Closed(reason)) = client.read_message(PATIENCE) else { panic!("it is open") };
        assert_eq!((reason.code().into(), reason.text(), reason.by()), (code, text, ClosedBy::Server));
        drop(client);
        eventually("it is gone", || managed.hub.connection(&id).is_err());
    }
}

#[test]
fn events_as_they_happen() {
    let managed = Commanded::new();
    let as_json = Started::start(&mut managed.command(&["events", "--json"]));
    let for_people = Started::start(&mut managed.command(&["events"]));
    let (client, id) = first_seen(&managed, [&as_json, &for_people]);
    let node = id.parse::<switchboard::WebSocketId>().unwrap().node().get();
    assert_eq!(as_json.json(), json!({"event": "occupied", "topic": "t", "node": node}));
    assert!(for_people.line().ends_with("Z occupied topic=t"));
    client.close(4000, "a \"reason\"");
    client.finish();
    // In whichever order.
    let mut events = [as_json.json(), as_json.json()];
    events.sort_by_key(|event| event["event"].to_string());
    assert_eq!(events[1], json!({"event": "vacated", "topic": "t", "node": node}));
    let mut closed = events[0].clone();
    assert!(closed["durationMillis"].take().as_f64().unwrap() >= 0.0);
    let node = id.parse::<WebSocketId>().unwrap().node().get();
    let expected = json!({"event": "closed", "id": id, "node": node, "path": "/shared/e", "user": "ann", "code": 4000,
                          "reason": "a \"reason\"", "by": "client", "durationMillis": null});
    assert_eq!(closed, expected);
    let mut lines = [for_people.line(), for_people.line()];
    lines.sort_by_key(|line| line.contains(" vacated "));
    let part = format!(
        " closed   {} path=/shared/e user=ann code=4000 by=client reason=\"a \\\"reason\\\"\" after=",
        &id[..8]
    );
    assert!(lines[0].contains(&part) && !lines[0].contains(&id), "{lines:?}");
    drop(managed);
    let mut as_json = as_json;
    assert_eq!(end(&mut as_json.child), Some(1), "the server has ended");
}

/// As the links of hubs find out, and much earlier than clients of a WebSocket do.
#[test]
fn events_end_when_the_server_stands_still() {
    let folder = Folder::new();
    let manage = format!("unix:{}", folder.path("manage"));
    let mut server = Process::start(&["serve", "--listen", "127.0.0.1:0", "--manage", &manage]);
    let url = format!("ws://{}/echo", server.address("http"));
    let mut events = Started::start(Command::new(COMMAND).args(["events", "--manage", &manage]));
    eventually("it is told something", || {
        drop(Client::connect(&url).unwrap());
        events.lines.recv_timeout(Duration::from_millis(100)).is_ok()
    });
    server.signal(Signal::STOP);
    assert_eq!(end(&mut events.child), Some(1)); // within the patience of tests
}

#[test]
fn events_and_numbers_are_messages_of_websockets_for_any_client() {
    let managed = Commanded::new();
    let socket = managed.place();
    let stats = Client::connect(&format!("{socket}:/@stats?interval=0.5")).unwrap();
    let as_json = || serde_json::from_str::<Value>(&next(&stats)).unwrap();
    let (first, second) = (as_json(), as_json());
    for numbers in [&first, &second] {
        assert_eq!((&numbers["event"], &numbers["connections"]), (&json!("stats"), &json!(0)));
    }
    assert!(first["uptimeSeconds"].as_f64() < second["uptimeSeconds"].as_f64());
    let refused = |url: &str| match Client::connect(url) {
        Err(ClientError::Refused(response)) => response.status().as_u16(),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&format!("{socket}:/@stats?interval=99")), 400);
    let [plain, _] = managed.ports();
    assert_eq!(refused(&format!("ws://{plain}/@events")), 401);
    assert_eq!(refused(&format!("ws://{plain}/@stats")), 401);
    // Each listener takes a place, of which there are few.
    let url = format!("{socket}:/@events");
    let mut listeners: Vec<_> = (0..32).map(|_| Client::connect(&url).unwrap()).collect();
    assert_eq!(refused(&url), 429);
    listeners.pop();
    eventually("there is room", || Client::connect(&url).is_ok());
}

/// A client whose beginning both have told: connections are made until both do.
fn first_seen(managed: &Commanded, [as_json, for_people]: [&Started; 2]) -> (Client, String) {
    // Until both listen.
    let mut is_heard = [false, false];
    eventually("both listen", || {
        drop(managed.connect("/shared/early"));
        is_heard[0] |= as_json.lines.try_recv().is_ok();
        is_heard[1] |= for_people.lines.try_recv().is_ok();
        is_heard == [true, true]
    });
    let (client, id) = managed.connect("/shared/e?user=ann&topic=t");
    let opened = json!({"event": "opened", "id": id.as_str(), "node": id.node().get(), "path": "/shared/e", "user": "ann"});
    assert_eq!(as_json.json(), opened);
    let line = format!("Z opened   {} path=/shared/e user=ann", id.short());
    assert!(for_people.line().ends_with(&line));
    (client, id.to_string())
}

#[test]
fn messages_are_read_as_they_come() {
    let managed = Commanded::new();
    let (client, id) = managed.connect("/shared/a");
    let mut reader = Started::start(&mut managed.command(&["read", id.as_str()]));
    for text in ["one", "größe", ""] {
        client.write(text).unwrap();
        assert_eq!(reader.line(), text);
    }
    client.write(Message::from(vec![0, 0xff])).unwrap();
    assert_eq!(reader.line(), "00ff");
    client.finish();
    assert_eq!(end(&mut reader.child), Some(0));
}

#[test]
fn one_message_is_read_and_not_read_again() {
    let managed = Commanded::new();
    let (client, id) = managed.connect("/shared/a");
    for text in ["a", "b", "c\nd", "e"] {
        client.write(text).unwrap();
    }
    client.write(Message::from(vec![0, 10, 0xff])).unwrap();
    let read = |args: &[&str]| managed.run(&[&["read", id.as_str(), "--one"], args].concat());
    read(&[]).expect(0, "a\n", &[]);
    read(&["--json"]).expect(0, "{\"type\":\"text\",\"text\":\"b\",\"redelivered\":false}\n", &[]);
    read(&["--null"]).expect(0, "c\nd\0", &[]);
    read(&["--binary"]).expect(0, "e", &[]);
    read(&["--json"]).expect(0, "{\"type\":\"binary\",\"base64\":\"AAr/\",\"redelivered\":false}\n", &[]);
    read(&["--timeout", "0.2"]).expect(5, "", &["no message has come"]);
    managed.run(&["read", id.as_str(), "--timeout", "0.2"]).expect(5, "", &["no message has come"]);
}

#[test]
fn an_end_before_the_message_is_told() {
    let managed = Commanded::new();
    let (client, id) = managed.connect("/shared/a");
    let mut reader = managed.command(&["read", id.as_str(), "--one"]);
    let mut reader = reader.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let stderr = read_all(reader.stderr.take().unwrap());
    thread::sleep(Duration::from_millis(100)); // it may be too early, and is told the same
    client.close(4000, "enough");
    client.finish();
    assert_eq!(end(&mut reader), Some(4));
    let told = String::from_utf8(stderr.recv_timeout(PATIENCE).unwrap()).unwrap();
    assert!(told.contains("4000") || told.contains("gone"), "{told}");
    let (_client, id) = managed.connect("/echo");
    managed.run(&["read", id.as_str()]).expect(3, "", &["not shared"]);
    managed.run(&["read", "b3kT9ZcYw4mQ1s8xAAAAKg"]).expect(4, "", &["gone"]);
}

#[test]
fn a_reader_that_is_killed_loses_nothing() {
    const MESSAGES: usize = 300;
    let managed = Commanded::new();
    let (client, id) = managed.connect("/shared/a");
    let writer = thread::spawn(move || {
        for n in 0..MESSAGES {
            client.write(n.to_string()).unwrap();
        }
        client
    });
    let mut seen = vec![false; MESSAGES];
    let mut highest = None;
    let mut round = 0;
    while seen.iter().any(|seen| !seen) {
        let reader = Started::start(&mut managed.command(&["read", "--json", id.as_str()]));
        round += 1;
        for _ in 0..round * 7 {
            if seen.iter().all(|seen| *seen) {
                break;
            }
            let read = reader.json();
            let number: usize = read["text"].as_str().unwrap().parse().unwrap();
            assert!(!seen[number] || read["redelivered"] == true, "{read}");
            // What is not read again comes in order.
            if !seen[number] {
                assert_eq!(number, highest.map_or(0, |highest: usize| highest + 1));
                highest = Some(number);
            }
            seen[number] = true;
        }
        reader.signal(Signal::KILL);
        let Started { ref lines, .. } = reader;
        // What it has printed until then it may have acknowledged.
        while let Ok(line) = lines.recv_timeout(PATIENCE) {
            let Ok(read) = serde_json::from_str::<Value>(&line) else { break }; // cut
            let number: usize = read["text"].as_str().unwrap().parse().unwrap();
            highest = highest.max(Some(number));
            seen[number] = true;
        }
    }
    assert!(round > 1);
    drop(writer.join().unwrap());
}

#[test]
fn a_reader_of_the_output_that_leaves_is_no_error() {
    let managed = Commanded::new();
    let clients: Vec<_> =
        (0..400).map(|n| managed.connect(&format!("/shared/{n}{}", "x".repeat(200)))).collect();
    let script = |line: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", line, "sh", COMMAND]).env("SWITCHBOARD_MANAGE", managed.place());
        run_with(&mut command, "")
    };
    for line in ["\"$1\" list | head -1; true", "\"$1\" list --json | head -c 10 > /dev/null"] {
        let ended = script(line);
        assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
        assert!(ended.stdout.is_empty() || ended.stdout.starts_with(b"ID"));
    }
    // Those who wait end, too; and what was not printed is there for others.
    let (client, id) = &clients[0];
    let mut reader = managed.command(&["read", id.as_str()]).stdout(Stdio::piped()).spawn().unwrap();
    let mut events = managed.command(&["events"]).stdout(Stdio::piped()).spawn().unwrap();
    drop((reader.stdout.take(), events.stdout.take()));
    assert_eq!([end(&mut reader), end(&mut events)], [Some(0), Some(0)]);
    client.write("still here").unwrap();
    managed.run(&["read", id.as_str(), "--one"]).expect(0, "still here\n", &[]);
}

#[test]
fn each_way_to_a_server() {
    let managed = Commanded::new();
    let (client, id) = managed.connect("/shared/a");
    let token = managed.folder.path("token");
    let [plain, tls] = managed.ports();
    let (http, https) = (format!("http://{plain}"), format!("https://localhost:{}", tls.port()));
    let plain = plain.to_string();
    for (place, ca) in [(&*http, None), (&*plain, None), (&*https, Some("certs/ca.pem"))] {
        let mut options = vec!["--manage", place, "--manage-token-file", &token];
        options.extend(ca.iter().flat_map(|ca| ["--ca", ca]));
        for args in [&["list"][..], &["push", id.as_str(), "x", "--wait", "20"]] {
            let ended = managed.run(&[args, &options].concat());
            assert_eq!((ended.code, &*ended.stderr), (Some(0), ""), "{place}");
        }
        assert_eq!(next(&client), "x");
        let events = Started::start(&mut managed.command(&[&["events"], &options[..]].concat()));
        eventually("it tells", || {
            drop(managed.connect("/shared/early"));
            events.lines.try_recv().is_ok()
        });
    }
    // A token that can be read only once.
    let mut by_pipe = Command::new("bash");
    by_pipe.args([
        "-c",
        "exec \"$0\" events --manage \"$1\" --manage-token-file <(cat \"$2\")",
        COMMAND,
        &http,
        &token,
    ]);
    let events = Started::start(&mut by_pipe);
    eventually("it tells", || {
        drop(managed.connect("/shared/early"));
        events.lines.try_recv().is_ok()
    });
    // From the environment.
    let mut command = managed.command(&["topics"]);
    command.env("SWITCHBOARD_MANAGE", &http).env("SWITCHBOARD_MANAGE_TOKEN_FILE", &token);
    run_with(&mut command, "").expect(0, "MEMBERS  TOPIC\n", &[]);
    managed.run(&["list", "--manage", &https, "--manage-token-file", &token]).expect(1, "", &["--ca FILE"]);
}

#[test]
fn who_may_only_read_is_told_so() {
    let managed = Commanded::new();
    let (_client, id) = managed.connect("/shared/a");
    let place = format!("unix:{}", managed.folder.path("read"));
    let run = |args: &[&str]| managed.run(&[args, &["--manage", &place]].concat());
    assert_eq!(run(&["list"]).lines().len(), 2);
    run(&["push", id.as_str(), "x"]).expect(3, "", &["only read"]);
    run(&["broadcast", "x"]).expect(3, "", &["only read"]);
    run(&["end", id.as_str()]).expect(3, "", &["only read"]);
    run(&["read", id.as_str(), "--one", "--timeout", "5"]).expect(3, "", &["only read"]);
    let events = Started::start(&mut managed.command(&["events", "--manage", &place]));
    eventually("it tells", || {
        drop(managed.connect("/shared/early"));
        events.lines.try_recv().is_ok()
    });
}

#[test]
fn wrong_invocations_say_what_to_do() {
    let managed = Commanded::new();
    let id = "b3kT9ZcYw4mQ1s8xAAAAKg";
    let (folder, [plain, _]) = (Folder::new(), managed.ports());
    let http = format!("http://{plain}");
    let wrong = folder.write("wrong", "another-token-than-that");
    let (_held, nobody) = common::nobody();
    let closed = format!("http://{nobody}");
    let page = format!("http://{}", managed.address());
    for (args, code, parts) in [
        (
            &["list", "--manage", "unix:/nowhere/box.sock"][..],
            1,
            &["/nowhere/box.sock", "does the server run"][..],
        ),
        (&["list", "--manage", &closed], 1, &["does the server run"]),
        (&["list", "--manage", &page], 3, &["no management listener"]),
        (&["list", "--manage", "/run/box.sock"], 2, &["unix:/path/to/socket", "--help"]),
        (
            &["list", "--manage", "http://192.0.2.1:9090", "--manage-token-file", &wrong],
            2,
            &["in the clear", "https://"],
        ),
        (&["list", "--manage", &http], 3, &["wants a token", "--manage-token-file FILE"]),
        (&["list", "--manage", &http, "--manage-token-file", &wrong], 3, &["refuses the token"]),
        (&["events", "--manage", &http, "--manage-token-file", &wrong], 3, &["refuses the token"]),
        (&["list", "--manage", &http, "--manage-token-file", "/nowhere/token"], 2, &["/nowhere/token"]),
        (&["list", "--ca", "certs/none.pem"], 2, &["certs/none.pem"]),
        (&["show", "nobody"], 2, &["not the ID of a connection"]),
        (&["show"], 2, &["<ID>"]),
        (&["show", id], 4, &["gone"]),
        (&["push", id, "x"], 4, &["gone"]),
        (&["push", id, "x", "--lines"], 2, &["--lines"]),
        (&["push", id, "x", "--binary"], 2, &["hexadecimal"]),
        (&["push", id, "--lnies"], 2, &["--lnies"]),
        (&["push", id, "x", "--wait", "0"], 2, &["above 0"]),
        (&["end", id, "--code", "1005"], 2, &["3000 to 4999"]),
        (&["end", id, "--reason", &"x".repeat(124)], 2, &["123 bytes"]),
        (&["broadcast", "x", "--except", "me"], 2, &["not the ID of a connection"]),
        (&["top"], 2, &["needs a terminal", "list --json"]),
    ] {
        let ended = managed.run(args);
        ended.expect(code, "", parts);
        assert!(!ended.stderr.contains("HubBuilder"), "{}", ended.stderr);
    }
    let mut nowhere = managed.command(&["list"]);
    nowhere.env_remove("SWITCHBOARD_MANAGE");
    run_with(&mut nowhere, "").expect(2, "", &["--manage", "SWITCHBOARD_MANAGE", "unix:/run/box.sock"]);
}

#[test]
fn a_socket_of_somebody_else_says_who_may_open_it() {
    if rustix::process::geteuid().is_root() {
        return; // who may open all
    }
    let managed = Commanded::new();
    let socket = managed.folder.join("all");
    std::fs::set_permissions(socket, PermissionsExt::from_mode(0o000)).unwrap();
    managed.run(&["list"]).expect(1, "", &["Permission denied", "mode"]);
}

#[test]
fn a_server_without_management_is_told() {
    let folder = Folder::new();
    let path = folder.path("s");
    let _running = Running::new(Server::builder().listen(format!("unix:{path}")));
    let mut command = Command::new(COMMAND);
    command.args(["list", "--manage", &format!("unix:{path}")]);
    run_with(&mut command, "").expect(3, "", &["no management listener"]);
}

#[test]
fn a_table_fits_the_terminal() {
    let managed = Commanded::new();
    let (_client, id) = managed.connect(&format!("/shared/{}?user={}", "p".repeat(300), "u".repeat(200)));
    for (columns, agents) in [(80, false), (200, true)] {
        let mut command = managed.command(&["list"]);
        let mut terminal = Terminal::spawn(&mut command, Some((columns, 24)));
        terminal.wait_for("ID ");
        let head = terminal.line();
        assert_eq!(head.contains("AGENT"), agents, "{head}");
        let row = terminal.line();
        assert!(row.starts_with(id.as_str()) && row.matches('…').count() >= 2, "{row}");
        assert!(row.chars().count() <= columns.into(), "{row}");
    }
}

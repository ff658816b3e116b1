#![cfg(all(feature = "__tls", feature = "manage"))]
//! What a server tells in numbers: to whoever looks at it all the time, and to Prometheus.

mod common;

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use common::{
    Client, PATIENCE, Scheme, Stream, echo, eventually,
    folder::Folder,
    full_app,
    managed::{READ_TOKEN, TOKEN},
    next_message,
    reply::{Reply, ask},
};
use serde_json::Value;
use switchboard::{
    Audience, Hub, Limits, Manage, Opening, Overflow, Refusal, RunningServer, Server, ServerBuilder,
    StatusCode,
};
use tungstenite::{Message, protocol::CloseFrame};

/// A server that is managed by a Unix socket.
struct Managed {
    server: RunningServer,
    folder: Folder,
}

impl Managed {
    fn new() -> Self {
        Self::with(|builder| builder)
    }

    fn with(configure: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        let folder = Folder::new();
        let manage = Manage::new().listen(format!("unix:{}", folder.path("all")));
        let builder = Server::builder()
            .listen("127.0.0.1:0")
            .route("/echo", || full_app(open, echo, |_| {}))
            .route("/shared/*", || full_app(open_shared, |_| Ok(()), |_| {}));
        let builder = configure(builder).manage(manage);
        Self { server: builder.bind().unwrap().spawn().unwrap(), folder }
    }

    fn hub(&self) -> Hub {
        self.server.hub()
    }

    fn stream(&self) -> UnixStream {
        let stream = UnixStream::connect(self.folder.join("all")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn request(&self, head: &str) -> Reply {
        ask(&mut self.stream(), format!("{head}\r\nHost: x\r\n\r\n"))
    }

    fn get(&self, path: &str) -> Reply {
        self.request(&format!("GET {path} HTTP/1.1"))
    }

    fn client(&self, path: &str) -> Client {
        self.try_client(path).unwrap()
    }

    fn try_client(&self, path: &str) -> Option<Client> {
        let address = self.server.local_addrs()[0].tcp().unwrap();
        let stream = Stream::connect(address, Scheme::Ws);
        tungstenite::client(format!("ws://{address}{path}"), stream).ok().map(|(client, _)| client)
    }

    /// The numbers, once.
    fn stats(&self) -> Value {
        let reply = self.request("GET /@stats HTTP/1.1\r\nAccept: application/json");
        assert_eq!(
            (reply.status, reply.header("content-type")),
            (200, Some("application/json")),
            "{reply:?}"
        );
        serde_json::from_slice(&reply.body).unwrap()
    }

    /// The numbers, when these of them are as expected.
    fn stats_with(&self, expected: &[(&str, u64)]) -> Value {
        let mut last = Value::Null;
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            last = self.stats();
            if expected.iter().all(|(name, value)| last[name].as_u64() == Some(*value)) {
                return last;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{last:#} instead of {expected:?}");
    }

    /// Begins to listen, and returns what comes.
    fn listen(&self, path: &str) -> Listening {
        let mut stream = self.stream();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
        let reply = Reply::read_head(&mut stream);
        assert_eq!(
            (reply.status, reply.header("content-type")),
            (200, Some("text/event-stream")),
            "{reply:?}"
        );
        Listening(BufReader::new(stream))
    }
}

struct Listening(BufReader<UnixStream>);

impl Listening {
    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.0.read_line(&mut line).unwrap() > 0, "the stream has ended");
        line
    }

    /// The next event: it is a chunk of its own.
    fn next(&mut self) -> Value {
        let size = usize::from_str_radix(self.line().trim_end(), 16).unwrap();
        let mut chunk = vec![0; size + 2];
        self.0.read_exact(&mut chunk).unwrap();
        let text = std::str::from_utf8(&chunk[..size]).unwrap();
        let data = text.strip_prefix("event: stats\ndata: ").and_then(|text| text.strip_suffix("\n\n"));
        serde_json::from_str(data.unwrap_or_else(|| panic!("no event: {text:?}"))).unwrap()
    }
}

fn open(opening: &mut Opening) -> Result<(), Refusal> {
    let query = |name| opening.request().query_value(name).map(|value| value.into_owned());
    let (no, drops, user) = (query("no"), query("drop"), query("user"));
    if no.is_some() {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "no"));
    }
    if drops.is_some() {
        opening.set_overflow(Overflow::DropNewest);
    }
    if let Some(user) = user {
        opening.set_user(&user)?;
        opening.join("a")?;
        opening.join("b")?;
    }
    Ok(())
}

fn open_shared(opening: &mut Opening) -> Result<(), Refusal> {
    opening.set_shared_connection(true);
    open(opening)
}

fn round_trip(client: &mut Client, text: &str) {
    client.send(Message::text(text)).unwrap();
    assert_eq!(next_message(client), Message::text(text));
}

#[test]
fn numbers_of_known_traffic() {
    let mut limits = Limits::default();
    limits.max_connections = 7;
    let server = Managed::with(|builder| builder.limits(limits));
    let begin = server.stats();
    for name in
        ["connections", "opened", "closed", "refused", "messagesIn", "bytesOut", "pushes", "topics", "users"]
    {
        assert_eq!(begin[name], 0, "{name}");
    }
    assert_eq!((&begin["maxConnections"], &begin["roundTripMillis"]), (&Value::from(7), &Value::Null));
    assert_eq!(begin["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(begin["time"].as_str().unwrap().len(), "2026-11-26T12:00:00.000Z".len());

    let mut one = server.client("/echo?user=u");
    let shared = server.client("/shared/x?user=u");
    assert!(server.try_client("/echo?no").is_none() && server.try_client("/nowhere").is_none());
    for text in ["hello", "you"] {
        round_trip(&mut one, text);
    }
    let hub = server.hub();
    let id = hub.all_connections(Audience::Path("/echo")).next().unwrap().unwrap().id;
    let _ = hub.push(&id, "pushed").unwrap();
    assert_eq!(next_message(&mut one), Message::text("pushed"));
    let _ = hub.pusher(&id).unwrap().push("again").unwrap();
    let _ = hub.broadcast(Audience::User("u"), "to all").unwrap();
    hub.push_wait(&id, "and now", PATIENCE).unwrap();
    let unknown = "b3kT9ZcYw4mQ1s8xAAAAKg".parse().unwrap();
    assert!(hub.push(&unknown, "x").is_err());

    let expected = [
        ("connections", 2),
        ("shared", 1),
        ("synchronous", 1),
        ("opened", 2),
        ("closed", 0),
        ("refused", 2),
        ("messagesIn", 2),
        ("messagesOut", 7),
        ("pushes", 6),
        ("queuedBytes", 0),
        ("topics", 2),
        ("users", 1),
    ];
    let numbers = server.stats_with(&expected);
    let by_result = &numbers["pushesByResult"];
    let count = |name: &str| by_result[name].as_u64().unwrap();
    assert_eq!((count("sent") + count("queued"), count("unknown"), count("full")), (5, 1, 0), "{by_result}");
    // Frames of clients have four bytes more.
    assert_eq!(numbers["bytesIn"], (5 + 6) + (3 + 6));
    #[cfg(target_os = "linux")]
    assert!(numbers["threads"].as_u64() > Some(3) && numbers["residentBytes"].as_u64() > Some(1 << 20));

    drop((one, shared));
    let expected = [
        ("connections", 0),
        ("shared", 0),
        ("synchronous", 0),
        ("opened", 2),
        ("closed", 2),
        ("messagesIn", 2),
        ("messagesOut", 7),
        ("topics", 0),
        ("users", 0),
    ];
    let later = server.stats_with(&expected);
    assert!(later["bytesIn"].as_u64() >= numbers["bytesIn"].as_u64());
    assert!(later["uptimeSeconds"].as_f64() > numbers["uptimeSeconds"].as_f64());
}

#[test]
fn events_come_at_once_and_then_again_and_again() {
    let server = Managed::new();
    let begun = Instant::now();
    let mut quick = server.listen("/@stats?interval=0.5");
    let mut usual = server.listen("/@stats");
    let mut seldom = server.listen("/@stats?interval=60");
    assert_eq!(seldom.next()["opened"], 0);
    assert!(begun.elapsed() < Duration::from_secs(20));
    let uptime = |numbers: &Value| numbers["uptimeSeconds"].as_f64().unwrap();
    for (listening, interval) in [(&mut quick, 0.5), (&mut usual, 1.0)] {
        let all: Vec<_> = (0..4).map(|_| uptime(&listening.next())).collect();
        // One that was late may find numbers that are not quite as old as it is.
        assert!(all.windows(2).all(|pair| pair[1] - pair[0] >= 0.22), "{all:?}");
        assert!(all[3] - all[0] >= interval * 1.2, "{all:?}");
    }
    let _client = server.client("/echo");
    while quick.next()["opened"] != 1 {}
    while usual.next()["opened"] != 1 {}
    assert_eq!(server.request("HEAD /@stats HTTP/1.1").status, 200);
}

#[test]
fn listeners_who_look_at_the_same_time_get_the_same_numbers() {
    let server = Managed::new();
    let mut all = [(); 8].map(|()| server.listen("/@stats?interval=0.5"));
    // A machine that has much else to do may be late for some of them, which look at other times then.
    let mut times = BTreeSet::new();
    for _ in 0..6 {
        times.extend(all.each_mut().map(|listening| listening.next()["time"].to_string()));
    }
    assert!(times.len() < 6 * 8 / 2, "they have numbers of their own: {times:?}");
}

#[test]
fn what_is_no_interval_is_refused_and_so_are_too_many_listeners() {
    let server = Managed::new();
    for query in
        ["interval=", "interval=0.4", "interval=60.1", "interval=NaN", "interval=-1", "interval=x", "every=1"]
    {
        assert_eq!(server.get(&format!("/@stats?{query}")).status, 400, "{query}");
    }
    assert_eq!(server.request("POST /@stats HTTP/1.1").status, 405);
    let mut all: Vec<_> = (0..32).map(|_| server.listen("/@stats")).collect();
    all.iter_mut().for_each(|listening| drop(listening.next()));
    let reply = server.get("/@stats");
    assert_eq!((reply.status, reply.header("retry-after")), (429, Some("1")));
    assert_eq!(server.stats()["opened"], 0, "once is always possible");
    all.pop();
    eventually("there is room again", || {
        let mut stream = server.stream();
        stream.write_all(b"GET /@stats HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        Reply::read_head(&mut stream).status == 200
    });
}

#[test]
fn a_shutdown_ends_the_streams() {
    let server = Managed::new();
    let mut listening = server.listen("/@stats?interval=60");
    listening.next();
    server.server.shutdown(PATIENCE).unwrap();
    let mut rest = String::new();
    listening.0.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "0\r\n\r\n");
}

/// `tests/clients/prometheus.py` looks at all of them, by a parser.
#[test]
fn prometheus_is_told_without_what_clients_invent() {
    let server = Managed::new();
    let mut client = server.client("/shared/invented?user=me");
    client.close(Some(CloseFrame { code: 4321.into(), reason: "invented".into() })).unwrap();
    while client.read().is_ok() {}
    assert!(server.try_client("/nowhere").is_none());
    server.stats_with(&[("closed", 1), ("refused", 1)]);
    let reply = server.get("/metrics");
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let text = String::from_utf8(reply.body).unwrap();
    for line in [
        "# TYPE switchboard_connections gauge",
        "switchboard_connections{route=\"/shared/*\",kind=\"shared\"} 0",
        "switchboard_connections_opened_total{route=\"/shared/*\",kind=\"shared\"} 1",
        "switchboard_connections_closed_total{code=\"4000-4999\",side=\"client\"} 1",
        "switchboard_handshakes_refused_total{reason=\"404\"} 1",
        "switchboard_handshake_duration_seconds_count 1",
    ] {
        assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("invented") && !text.contains("nowhere") && !text.contains("4321"), "{text}");
}

#[test]
fn the_description_has_the_version_and_is_json() {
    let server = Managed::new();
    let reply = server.get("/openapi.json");
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    let description: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(description["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1."));
    assert_eq!(server.get("/openapi.json?x=1").status, 400);
}

#[test]
fn all_of_it_needs_the_token_and_for_reading_is_enough() {
    let manage = Manage::new().listen("127.0.0.1:0").token(TOKEN).read_token(READ_TOKEN);
    let server = Server::builder().listen("127.0.0.1:0").manage(manage).bind().unwrap().spawn().unwrap();
    let address = server.manage_addrs()[0].tcp().unwrap();
    for path in ["/metrics", "/@stats", "/openapi.json"] {
        let request = |lines: &str| format!("HEAD {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n");
        let status = |lines| ask(&mut Stream::connect(address, Scheme::Ws), request(lines)).status;
        assert_eq!(status(""), 401, "{path}");
        assert_eq!(status(&format!("Authorization: Bearer {READ_TOKEN}\r\n")), 200, "{path}");
    }
}

//! Pushes between the nodes of a cluster, beside PUBLISH and SUBSCRIBE of the same Redis (Debian's `redis-server` has to be installed);
//! a node's pushes to its own connections while Redis does not answer; a broadcast to all:
//! `cargo bench --bench cluster --features cluster`, or for so many slices of so many pushes, and so many connections of each node,
//! `-- 5 20000 5000`.
//!
//! Redis, the three nodes, their clients, and those who publish and subscribe are processes of their own. Both ways take turns. Quote
//! ratios of one run only.

mod common;

use std::{
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::{Process, Running, median};
use mio::{Events, Interest, Poll, Token};
use redis::Value;
use rustix::{
    process::{Pid, Signal, kill_process},
    time::{ClockId, clock_gettime},
};
use switchboard::{
    Audience, Cluster, Hub, Limits, NodeId, Opening, Refusal, Server, ServerResult, WebSocket, WebSocketId,
    WebSocketServer,
};

const NODES: u32 = 3;
/// Threads that push, and connections that they push to.
const THREADS: usize = 16;
/// A message: when it was sent, in nanoseconds, and more characters.
const LEN: usize = 64;
/// That, as a frame.
const FRAME: usize = LEN + 2;
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.first().map(String::as_str) {
        Some("node") => be_node(&args[1], args[2].parse().expect("a number")),
        Some("clients") => be_clients(&args[1], args[2].parse().expect("a number")),
        Some("many") => be_many(&args[1..]),
        Some("publish") => be_publisher(&args[1]),
        Some("subscribe") => be_subscriber(&args[1]),
        _ => {
            let number =
                |n: usize, default: usize| args.get(n).map_or(default, |arg| arg.parse().expect("a number"));
            compare(number(0, 5), number(1, 20_000), number(2, 5000));
        }
    }
}

// The whole.

fn compare(slices: usize, pushes: usize, connections: usize) {
    let redis = Redis::start();
    let url = redis.url();
    let mut nodes: Vec<_> =
        (1..=NODES).map(|node| Process::start(&["node", &url, &node.to_string()])).collect();
    let addresses: Vec<_> = nodes.iter_mut().map(Process::line).collect();
    let mut clients = Process::start(&["clients", &addresses[1], &THREADS.to_string()]);
    clients.line();
    nodes[0].ask("look 0");
    let (mut publisher, mut subscriber) =
        (Process::start(&["publish", &url]), Process::start(&["subscribe", &url]));
    publisher.line();
    subscriber.line();
    for (what, threads, together) in
        [("one thread", 1, 1), ("16 threads", THREADS, 1), ("one thread, 100 together", 1, 100)]
    {
        let count = pushes / threads / together * together;
        let line = format!("push {threads} {count} {together}");
        let expect = format!("expect {}", threads * count);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..slices {
            ours.push(slice(&mut nodes[0], &mut clients, &line, &expect));
            theirs.push(slice(&mut publisher, &mut subscriber, &line, &expect));
        }
        println!("{what}:");
        report("  a push to another node", &ours);
        report("  PUBLISH to SUBSCRIBE", &theirs);
        let median_of = |all: &[Measured], of: fn(&Measured) -> f64| median(all.iter().map(of).collect());
        println!(
            "  ratio: {:.2} of the rate, {:.2} times the median latency",
            median_of(&ours, |slice| slice.rate) / median_of(&theirs, |slice| slice.rate),
            median_of(&ours, |slice| slice.p50) / median_of(&theirs, |slice| slice.p50),
        );
    }
    drop((publisher, subscriber));
    without_redis(&redis, &mut nodes[1], &mut clients, slices, pushes);
    drop(clients);
    broadcast(&mut nodes, &addresses, slices, connections);
}

/// Pushes to a node's own connections, while Redis is there and while it does not answer, by turns.
fn without_redis(redis: &Redis, node: &mut Process, clients: &mut Process, slices: usize, pushes: usize) {
    node.ask("look 0");
    // At a rate, since nothing holds back who pushes to a connection here.
    let (line, expect) = (format!("paced {}", pushes / 10), format!("expect {}", pushes / 10));
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..slices {
        with.push(slice(node, clients, &line, &expect));
        redis.signal(Signal::STOP);
        thread::sleep(Duration::from_secs(3)); // the node has found out
        without.push(slice(node, clients, &line, &expect));
        redis.signal(Signal::CONT);
        thread::sleep(Duration::from_secs(1));
    }
    println!("one thread, to a connection of its own node:");
    report("  with Redis", &with);
    report("  while Redis does not answer", &without);
    let p99 = |all: &[Measured]| median(all.iter().map(|slice| slice.p99).collect());
    println!("  ratio: {:.2} times the p99", p99(&without) / p99(&with));
}

/// What those who receive measure while others send.
fn slice(sender: &mut Process, receiver: &mut Process, line: &str, expect: &str) -> Measured {
    receiver.tell(expect);
    sender.ask(line);
    let answer = receiver.line();
    let mut numbers = answer.split(' ').map(|number| number.parse::<f64>().expect("a number"));
    let mut next = || numbers.next().expect("three numbers");
    Measured { rate: next(), p50: next(), p99: next() }
}

struct Measured {
    rate: f64,
    /// In microseconds.
    p50: f64,
    p99: f64,
}

fn report(what: &str, slices: &[Measured]) {
    let of = |of: fn(&Measured) -> f64| median(slices.iter().map(of).collect());
    println!(
        "{what}: {:.1} thousand/s, p50 {:.0} us, p99 {:.0} us",
        of(|slice| slice.rate) / 1000.0,
        of(|slice| slice.p50),
        of(|slice| slice.p99)
    );
}

fn broadcast(nodes: &mut [Process], addresses: &[String], slices: usize, connections: usize) {
    let mut args = vec!["many".to_owned(), connections.to_string()];
    args.extend(addresses.iter().cloned());
    let mut many = Process::start(&args.iter().map(String::as_str).collect::<Vec<_>>());
    many.line();
    let times: Vec<f64> = (0..slices)
        .map(|_| {
            many.tell("expect 1");
            nodes[0].ask("broadcast 1");
            many.line().parse().expect("a time")
        })
        .collect();
    println!(
        "a broadcast to {NODES} x {connections} connections: the last one has it after {:.0} ms",
        median(times) * 1e3
    );
}

/// Nanoseconds, the same in all processes.
fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn message() -> String {
    format!("{:<LEN$}", now())
}

fn sent_at(message: &[u8]) -> u64 {
    let text = str::from_utf8(message).expect("a text");
    text.trim_end().parse().expect("a time")
}

/// How long messages took.
#[derive(Default)]
struct Latencies {
    first: u64,
    times: Vec<u64>,
}

impl Latencies {
    fn add(&mut self, message: &[u8]) {
        let sent = sent_at(message);
        if self.times.is_empty() || sent < self.first {
            self.first = sent;
        }
        self.times.push(now().saturating_sub(sent));
    }

    /// The rate, from the first message that was sent to now, and the quantiles in microseconds.
    fn report(mut self) -> String {
        let count = self.times.len();
        let took = now() - self.first;
        self.times.sort_unstable();
        let at = |place: usize| self.times[place] as f64 / 1e3;
        format!("{} {} {}", count as f64 / took as f64 * 1e9, at(count / 2), at(count * 99 / 100))
    }
}

/// Answers lines, until there are no more.
fn answer_lines(mut answer: impl FnMut(&str, &[usize]) -> String) {
    for line in io::stdin().lines() {
        let line = line.expect("a line");
        let mut words = line.split(' ');
        let what = words.next().unwrap_or_default();
        let numbers: Vec<_> = words.map(|word| word.parse().expect("a number")).collect();
        println!("{}", answer(what, &numbers));
    }
}

// A node.

struct Silent;

impl WebSocketServer for Silent {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        opening.set_shared_connection(true);
        opening.set_use_session(false);
        Ok(())
    }

    fn server(&mut self, _: &mut WebSocket) -> ServerResult {
        Ok(())
    }
}

fn be_node(url: &str, node: u32) {
    let mut limits = Limits::default();
    limits.max_connections = 9000; // a process has 20,000 descriptors mostly
    limits.ping_interval = None; // clients here know only messages
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .limits(limits)
        .route("/", || Silent)
        .node(NodeId::new(node))
        .session_keys([[7; 32]])
        .cluster(Cluster::new(url))
        .bind()
        .expect("a Redis")
        .spawn()
        .expect("a thread");
    println!("{}", server.local_addrs()[0]);
    let hub = server.hub();
    let mut all = Vec::new();
    answer_lines(|what, numbers| match (what, numbers) {
        ("look", _) => {
            all = hub.all_connections(Audience::All).map(|info| info.expect("a connection").id).collect();
            all.len().to_string()
        }
        ("push", &[threads, count, together]) => push_by(&hub, &all, threads, count, together),
        ("paced", &[count]) => {
            for _ in 0..count {
                let _ = hub.push(&all[0], message()).expect("a push");
                thread::sleep(Duration::from_micros(100));
            }
            "done".into()
        }
        _ => hub.broadcast(Audience::Route("/"), message()).expect("a broadcast").forwarded.to_string(),
    });
}

fn push_by(hub: &Hub, all: &[WebSocketId], threads: usize, count: usize, together: usize) -> String {
    thread::scope(|scope| {
        for id in &all[..threads] {
            scope.spawn(move || {
                for _ in 0..count / together {
                    if together == 1 {
                        let _ = hub.push(id, message()).expect("a push");
                    } else {
                        let all = hub.push_all((0..together).map(|_| (id, message())));
                        for pushed in all {
                            let _ = pushed.expect("a push");
                        }
                    }
                }
            });
        }
    });
    "done".into()
}

// Clients.

/// A client that has opened a WebSocket, and counts bytes from then on.
fn connect(address: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("a server");
    let request = format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).expect("a server");
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("an answer");
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    stream
}

/// Sockets that are read as soon as something comes.
struct Sockets {
    poll: Poll,
    events: Events,
    sockets: Vec<(mio::net::TcpStream, Vec<u8>)>,
}

impl Sockets {
    fn new(streams: Vec<TcpStream>) -> Self {
        let poll = Poll::new().expect("a poll");
        let mut sockets = Vec::new();
        for (index, stream) in streams.into_iter().enumerate() {
            stream.set_nonblocking(true).expect("a socket");
            let mut socket = mio::net::TcpStream::from_std(stream);
            poll.registry().register(&mut socket, Token(index), Interest::READABLE).expect("a socket");
            sockets.push((socket, Vec::new()));
        }
        Self { poll, events: Events::with_capacity(1024), sockets }
    }

    /// Receives so many messages.
    fn receive(&mut self, mut count: usize, mut each: impl FnMut(&[u8])) {
        let mut buffer = [0; 65_536];
        while count > 0 {
            self.poll.poll(&mut self.events, Some(PATIENCE)).expect("events");
            assert!(!self.events.is_empty(), "{count} messages are missing");
            for event in &self.events {
                let (socket, rest) = &mut self.sockets[event.token().0];
                loop {
                    match socket.read(&mut buffer) {
                        Ok(0) => panic!("a connection has ended"),
                        Ok(n) => rest.extend_from_slice(&buffer[..n]),
                        Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                        Err(e) => panic!("{e}"),
                    }
                }
                let whole = rest.len() / FRAME;
                rest[..whole * FRAME].chunks(FRAME).for_each(|frame| each(&frame[2..]));
                rest.drain(..whole * FRAME);
                count -= whole;
            }
        }
    }
}

fn be_clients(address: &str, count: usize) {
    let mut sockets = Sockets::new((0..count).map(|_| connect(address)).collect());
    println!("connected");
    answer_lines(|_, numbers| {
        let mut latencies = Latencies::default();
        sockets.receive(numbers[0], |message| latencies.add(message));
        latencies.report()
    });
}

fn be_many(args: &[String]) {
    let count: usize = args[0].parse().expect("a number");
    let streams = args[1..].iter().flat_map(|address| (0..count).map(move |_| connect(address))).collect();
    let mut sockets = Sockets::new(streams);
    println!("connected");
    answer_lines(|_, numbers| {
        let mut first = u64::MAX;
        sockets.receive(numbers[0] * count * (args.len() - 1), |message| first = first.min(sent_at(message)));
        ((now() - first) as f64 / 1e9).to_string()
    });
}

// Redis alone.

fn redis(url: &str) -> redis::Connection {
    redis::Client::open(url).and_then(|client| client.get_connection()).expect("a Redis")
}

fn be_publisher(url: &str) {
    let mut connections: Vec<_> = (0..THREADS).map(|_| redis(url)).collect();
    println!("connected");
    answer_lines(|_, numbers| {
        let &[threads, count, together] = numbers else { panic!("three numbers") };
        thread::scope(|scope| {
            for connection in &mut connections[..threads] {
                scope.spawn(move || {
                    for _ in 0..count / together {
                        let mut pipe = redis::pipe();
                        for _ in 0..together {
                            pipe.cmd("PUBLISH").arg("c").arg(message());
                        }
                        let receivers: Vec<i64> = pipe.query(connection).expect("an answer");
                        assert!(receivers.iter().all(|&receivers| receivers == 1));
                    }
                });
            }
        });
        "done".into()
    });
}

fn be_subscriber(url: &str) {
    let mut connection = redis(url);
    let subscribe = redis::cmd("SUBSCRIBE").arg("c").get_packed_command();
    connection.send_packed_command(&subscribe).expect("a Redis");
    connection.recv_response().expect("an answer");
    println!("subscribed");
    answer_lines(|_, numbers| {
        let mut latencies = Latencies::default();
        for _ in 0..numbers[0] {
            let Ok(Value::Array(message)) = connection.recv_response() else { panic!("no message") };
            let Some(Value::BulkString(payload)) = message.last() else { panic!("no message") };
            latencies.add(payload);
        }
        latencies.report()
    });
}

// What they need.

/// A Redis on a Unix socket, in a folder of its own.
struct Redis {
    server: Running,
    folder: PathBuf,
}

impl Redis {
    fn start() -> Self {
        let folder = std::env::temp_dir().join(format!("sb-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let socket = folder.join("redis");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
        let server =
            command.current_dir(&folder).stdout(Stdio::null()).spawn().expect("redis-server is installed");
        let this = Self { server: Running(server), folder };
        let begun = Instant::now();
        while !socket.exists() {
            assert!(begun.elapsed() < PATIENCE, "no Redis");
            thread::sleep(Duration::from_millis(10));
        }
        this
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.server.0), signal).expect("a process");
    }

    fn url(&self) -> String {
        format!("redis+unix://{}", self.folder.join("redis").display())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

//! Pushes from another process, beside pushes of the server's own process, and beside a Redis's PUBLISH, if Debian's `redis-server` is
//! installed: `cargo bench --bench remote --features manage,remote`, or for so many slices of so many pushes `-- 9 2000`.
//!
//! The server, those who push and those who are pushed to are processes of their own. Redis and we take turns. Quote ratios of one run
//! only.

mod common;

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use common::{Process, Running, median};
use rustix::time::{ClockId, clock_gettime};
use switchboard::{
    Audience, Client, Hub, Manage, Opening, Refusal, Server, ServerResult, WebSocket, WebSocketId,
    WebSocketServer,
};

const TOGETHER: usize = 16;
const TEXT: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const PATIENCE: Duration = Duration::from_secs(20);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let path = |n: usize| PathBuf::from(&args[n]);
    match args.first().map(String::as_str) {
        Some("serve") => serve(&path(1)),
        Some("clients") => be_clients(&args[1]),
        Some("push") => push(&path(1)),
        Some("subscribe") => subscribe(&path(1)),
        _ => {
            let number =
                |n: usize, default: usize| args.get(n).map_or(default, |arg| arg.parse().expect("a number"));
            compare(number(0, 9), number(1, 2000));
        }
    }
}

// The whole.

fn compare(slices: usize, pushes: usize) {
    let folder = Folder::new();
    let mut server = Process::start(&["serve", folder.name()]);
    let address = server.line();
    let mut clients = Process::start(&["clients", &address]);
    clients.line();
    let mut pusher = Process::start(&["push", folder.name()]);
    pusher.line();
    let mut redis = Redis::start(&folder);
    let (mut ours, mut theirs, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..slices {
        ours.push(quantiles(&pusher.ask(&format!("one {pushes}"))));
        if let Some(redis) = &mut redis {
            theirs.push(redis.publish(pushes));
        }
        let before = cpu(&mut server);
        server.ask(&format!("push {pushes}"));
        let between = cpu(&mut server);
        let remote: f64 = pusher.ask(&format!("all {pushes}")).parse().expect("a time");
        let after = cpu(&mut server);
        times.push((between - before, after - between + remote));
    }
    println!("one push, from another process: {}", shown(&ours));
    if redis.is_some() {
        println!("one PUBLISH of Redis: {}", shown(&theirs));
    }
    let rounds = pushes as f64;
    let per_round = |time: fn(&(f64, f64)) -> f64| median(times.iter().map(time).collect()) / rounds * 1e6;
    let (local, remote) = (per_round(|times| times.0), per_round(|times| times.1));
    println!("{TOGETHER} pushes: {local:.1} us of processor time in the server's own process");
    println!("push_all of {TOGETHER}: {remote:.1} us in both processes, {:.2} times as much", remote / local);
}

/// Pushes to all so many times. Returns the processor time that it took here.
fn push_to_all(hub: &Hub, all: &[WebSocketId], count: usize) -> f64 {
    let begun = own_cpu();
    for _ in 0..count {
        for result in hub.push_all(all.iter().map(|id| (id, TEXT))) {
            let _ = result.expect("a push");
        }
    }
    own_cpu() - begun
}

fn cpu(server: &mut Process) -> f64 {
    server.ask("cpu").parse().expect("a time")
}

fn quantiles(text: &str) -> (f64, f64) {
    let (p50, p99) = text.split_once(' ').expect("two numbers");
    (p50.parse().expect("a number"), p99.parse().expect("a number"))
}

fn shown(slices: &[(f64, f64)]) -> String {
    let p50 = median(slices.iter().map(|slice| slice.0).collect());
    let p99 = median(slices.iter().map(|slice| slice.1).collect());
    format!("p50 {p50:.1} us, p99 {p99:.1} us")
}

/// The median and the worst but one in a hundred, in microseconds.
fn measure(count: usize, mut call: impl FnMut()) -> (f64, f64) {
    let mut times: Vec<f64> = (0..count)
        .map(|_| {
            let begun = Instant::now();
            call();
            begun.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times.sort_by(f64::total_cmp);
    (times[count / 2], times[count * 99 / 100])
}

fn own_cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Answers lines, until there are no more.
fn answer_lines(mut answer: impl FnMut(&str, usize) -> String) {
    for line in io::stdin().lines() {
        let line = line.expect("a line");
        let (what, count) = line.split_once(' ').unwrap_or((&line, "0"));
        println!("{}", answer(what, count.parse().expect("a number")));
    }
}

// Each process.

struct Silent;

impl WebSocketServer for Silent {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        opening.set_shared_connection(true);
        Ok(())
    }

    fn server(&mut self, _: &mut WebSocket) -> ServerResult {
        Ok(())
    }
}

fn ids(hub: &Hub) -> Vec<WebSocketId> {
    hub.all_connections(Audience::All).map(|info| info.expect("a connection").id).collect()
}

fn serve(folder: &Path) {
    let manage = Manage::new().listen(format!("unix:{}", folder.join("hub").display()));
    let builder = Server::builder().listen("127.0.0.1:0").route("/", || Silent).manage(manage);
    let server = builder.bind().expect("an address").spawn().expect("a thread");
    println!("{}", server.local_addrs()[0]);
    let hub = server.hub();
    let mut all = Vec::new();
    answer_lines(|what, count| match what {
        "cpu" => own_cpu().to_string(),
        _ => {
            if all.is_empty() {
                all = ids(&hub);
            }
            push_to_all(&hub, &all, count).to_string()
        }
    });
}

fn be_clients(address: &str) {
    let connect = |_| Client::connect(&format!("ws://{address}/")).expect("a server");
    let clients: Vec<_> = (0..TOGETHER).map(connect).collect();
    println!("connected");
    thread::scope(|scope| {
        for client in &clients {
            scope.spawn(|| client.messages().for_each(drop));
        }
    });
}

fn push(folder: &Path) {
    let hub = Hub::connect(&format!("unix:{}", folder.join("hub").display())).expect("a hub");
    let all = ids(&hub);
    println!("connected");
    answer_lines(|what, count| match what {
        "one" => {
            let (p50, p99) = measure(count, || {
                let _ = hub.push(&all[0], TEXT).expect("a push");
            });
            format!("{p50} {p99}")
        }
        _ => push_to_all(&hub, &all, count).to_string(),
    });
}

/// A Redis with one who has subscribed, in a process of its own.
struct Redis {
    _server: Running,
    _subscriber: Process,
    stream: UnixStream,
}

impl Redis {
    fn start(folder: &Folder) -> Option<Self> {
        let socket = folder.0.join("redis");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"]).arg(&socket);
        let server = Running(command.current_dir(&folder.0).stdout(Stdio::null()).spawn().ok()?);
        let begun = Instant::now();
        let stream = loop {
            match UnixStream::connect(&socket) {
                Ok(stream) => break stream,
                Err(e) => assert!(begun.elapsed() < PATIENCE, "no Redis: {e}"),
            }
            thread::sleep(Duration::from_millis(10));
        };
        let mut subscriber = Process::start(&["subscribe", socket.to_str().expect("a path")]);
        subscriber.line();
        Some(Self { _server: server, _subscriber: subscriber, stream })
    }

    fn publish(&mut self, count: usize) -> (f64, f64) {
        let request = format!("*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n${}\r\n{TEXT}\r\n", TEXT.len());
        let mut answer = [0; 4];
        measure(count, || {
            self.stream.write_all(request.as_bytes()).expect("a Redis");
            self.stream.read_exact(&mut answer).expect("an answer");
            assert_eq!(&answer, b":1\r\n");
        })
    }
}

fn subscribe(socket: &Path) {
    let mut stream = UnixStream::connect(socket).expect("a Redis");
    stream.write_all(b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nc\r\n").expect("a Redis");
    let mut buffer = [0; 65_536];
    let _ = stream.read(&mut buffer).expect("an answer");
    println!("subscribed");
    while stream.read(&mut buffer).is_ok_and(|n| n > 0) {}
}

// What they need.

/// A temporary folder.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("sb-bench-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    fn name(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

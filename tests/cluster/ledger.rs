//! Three nodes, thousands of clients, and a ledger: every push and its answer is written down by whoever pushes, nodes and Redis are
//! killed, stopped and cut at random, and at last what was answered is compared with what the clients got.
//!
//!     cargo run --features cluster --example cluster_ledger [SECONDS [CLIENTS [SEED [FAULT]]]]
//!
//! `FAULT`: only this one, a number below 10; see `World::fault`.
//!
//! Of connections that survive, nothing may be missing that was sent, nor what was forwarded while nothing was broken; nothing may
//! come twice, or in the wrong order. Exits with 1 if that is not so.

use std::{
    env, fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, atomic::Ordering::SeqCst},
    thread,
    time::{Duration, Instant, SystemTime},
};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use tungstenite::Message;

use self::{clients::Clients, redis::RedisServer};

#[path = "ledger/clients.rs"]
mod clients;
#[path = "ledger/compare.rs"]
mod compare;
#[path = "../common/folder.rs"]
#[allow(unreachable_pub, reason = "a part of tests")]
mod folder;
#[path = "ledger/node.rs"]
mod node;
#[path = "../common/redis.rs"]
#[allow(dead_code, unreachable_pub, reason = "it has more than is needed here")]
mod redis;

const PATIENCE: Duration = Duration::from_secs(60);

const NODES: usize = 3;

/// How long nothing is broken between two faults.
const CALM: Duration = Duration::from_secs(3);

fn main() {
    if let Ok(what) = env::var(node::VARIABLE) {
        return node::be(&what);
    }
    let mut arguments = env::args().skip(1).map(|argument| argument.parse::<u64>().expect("a number"));
    let seconds = arguments.next().unwrap_or(60);
    let clients = arguments.next().unwrap_or(3000) as usize;
    let seed = arguments.next().unwrap_or_else(|| now() | 1);
    let fault = arguments.next();
    println!("{seconds} s, {clients} clients, seed {seed}");
    let most = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: most, maximum: most }).unwrap();
    let folder = folder::Folder::new();
    let mut world = World::start(&folder);
    let clients = Clients::start(clients, &folder, world.addresses());
    world.recover(&clients);
    println!("all are connected");
    let (begun, mut chance) = (Instant::now(), Chance(seed));
    let mut calm = vec![world.calm(&clients)];
    while begun.elapsed() < Duration::from_secs(seconds) {
        let (at, from) = (begun.elapsed().as_secs_f32(), now());
        let what = world.fault(fault, &mut chance);
        let recovering = Instant::now();
        world.recover(&clients);
        println!(
            "{at:6.1} s ({from}): {what}; {:.1} s until all was well",
            recovering.elapsed().as_secs_f32()
        );
        calm.push(world.calm(&clients));
    }
    fs::write(folder.join("stop"), "").unwrap();
    thread::sleep(Duration::from_secs(4)); // the longest call
    world.recover(&clients);
    world.end(&clients);
    let connections = clients.join();
    let is_well = compare::compare(&folder, &connections, &calm, &world.stopped);
    drop(world);
    drop(folder); // `exit` drops nothing
    std::process::exit(i32::from(!is_well));
}

/// The clock that all processes share, in milliseconds.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64
}

/// Polls for a condition for which there is no event.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Numbers that look like chance, the same for the same seed: Xorshift.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    fn pause(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.below(most * 1000))
    }
}

/// A part of a day: from, to.
type Span = (u64, u64);

struct World {
    redis: RedisServer,
    nodes: Vec<Running>,
    folder: String,
    starts: usize,
    /// When each node was stopped, and when it went on.
    stopped: Vec<(usize, Span)>,
    addresses: Arc<clients::Addresses>,
}

/// A node in a process of its own.
struct Running {
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill(); // if it has ended already, both do nothing
        let _ = self.child.wait();
    }
}

impl Running {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl World {
    fn start(folder: &Path) -> Self {
        let redis = RedisServer::start();
        let folder = folder.to_str().unwrap().to_owned();
        let addresses = Arc::default();
        let mut this = Self { redis, nodes: Vec::new(), folder, starts: 0, stopped: Vec::new(), addresses };
        for number in 0..NODES {
            let node = this.start_node(number);
            this.nodes.push(node);
        }
        this
    }

    fn addresses(&self) -> Arc<clients::Addresses> {
        self.addresses.clone()
    }

    fn start_node(&mut self, number: usize) -> Running {
        let what = format!("{number} {} {} {}", self.starts, self.redis.url(), self.folder);
        self.starts += 1;
        let mut command = Command::new(env::current_exe().unwrap());
        command.env(node::VARIABLE, what).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().parse().unwrap_or_else(|_| panic!("node {number} does not start"));
        self.addresses.lock().unwrap().insert(number, address);
        Running { child }
    }

    /// Breaks something, or two things, and mends them. What that was.
    fn fault(&mut self, which: Option<u64>, chance: &mut Chance) -> String {
        let node = chance.below(NODES as u64) as usize;
        match which.unwrap_or_else(|| chance.below(10)) {
            0 | 1 => {
                let pause = chance.pause(13);
                self.kill_node(node, pause);
                format!("node {node} killed, and started {pause:?} later")
            }
            2 => {
                let pause = chance.pause(4);
                self.redis.kill();
                self.kill_node(node, pause);
                self.redis.restart();
                format!("Redis and node {node} killed, and started {pause:?} later")
            }
            3 => {
                let pause = chance.pause(3);
                self.stop_node(node, pause);
                format!("node {node} stopped for {pause:?}")
            }
            4 => {
                let pause = Duration::from_secs(10) + chance.pause(4);
                self.stop_node(node, pause);
                format!("node {node} stopped for {pause:?}")
            }
            5 => {
                let pause = chance.pause(4);
                self.redis.kill();
                thread::sleep(pause);
                self.redis.restart();
                format!("Redis killed, and started {pause:?} later")
            }
            6 => {
                let pause = chance.pause(6);
                self.redis.pause();
                thread::sleep(pause);
                self.redis.resume();
                format!("Redis stopped for {pause:?}")
            }
            7 => {
                let count = 1 + chance.below(5);
                for _ in 0..count {
                    let kind = ["normal", "pubsub"][chance.below(2) as usize];
                    self.redis.command(&["CLIENT", "KILL", "TYPE", kind]);
                    thread::sleep(chance.pause(1));
                }
                format!("connections to Redis cut {count} times")
            }
            8 => {
                self.redis.command(&["FLUSHALL"]);
                self.stop_node(node, Duration::from_secs(1));
                format!("Redis has forgotten everything, and node {node} stopped for 1 s")
            }
            _ => {
                self.redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
                self.redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
                let pause = chance.pause(12);
                self.kill_node(node, pause);
                self.redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
                format!("Redis out of memory, and node {node} killed, and started {pause:?} later")
            }
        }
    }

    fn kill_node(&mut self, node: usize, pause: Duration) {
        self.nodes[node].child.kill().unwrap();
        self.nodes[node].child.wait().unwrap();
        thread::sleep(pause);
        self.nodes[node] = self.start_node(node);
    }

    fn stop_node(&mut self, node: usize, pause: Duration) {
        let from = now();
        self.nodes[node].signal(Signal::STOP);
        thread::sleep(pause);
        self.nodes[node].signal(Signal::CONT);
        self.stopped.push((node, (from, now())));
    }

    /// Waits until all clients are connected, and all nodes reach each other.
    fn recover(&self, clients: &Clients) {
        eventually("all are connected", || clients.connected.load(SeqCst) == clients.count());
        for node in 0..NODES {
            eventually("a node reaches all", || self.ask(node, &clients.some()).as_deref() == Some("well"));
        }
    }

    /// Nothing is broken for a while, and what was pushed then has arrived when this returns.
    fn calm(&self, clients: &Clients) -> Span {
        let from = now();
        thread::sleep(CALM);
        let to = now();
        self.recover(clients);
        (from, to)
    }

    /// Tells all clients that there is nothing more.
    fn end(&self, clients: &Clients) {
        let _ = self.ask(0, "end");
        eventually("all have got the end", || clients.connected.load(SeqCst) == 0);
    }

    /// What a node answers.
    fn ask(&self, node: usize, what: &str) -> Option<String> {
        let address = self.addresses.lock().unwrap()[&node];
        let mut client = clients::connect(address, "/control")?;
        client.send(Message::text(what)).ok()?;
        loop {
            match client.read().ok()? {
                Message::Text(text) => return Some(text.to_string()),
                Message::Ping(_) | Message::Pong(_) => {}
                _ => return None,
            }
        }
    }
}

/// Appends a line to a file, all at once: who is killed has written it, or nothing of it.
fn append(file: &mut fs::File, line: &str) {
    file.write_all(line.as_bytes()).unwrap();
}

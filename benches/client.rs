//! This crate's client beside tungstenite's, by turns, over loopback: `cargo bench --bench client`, or for so many slices of so many
//! seconds `-- 9 0.5`, and perhaps of loads with this in their names `-- 9 0.5 pipe`.
//!
//! The server is a process of its own. With `taskset` and two processors, each has one. Quote ratios of one run only.

mod common;

use std::{
    io::{BufRead, BufReader, Read},
    net::TcpStream,
    process::{Child, Command, Stdio},
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use common::Running;
use switchboard::{
    Client, Handled, Limits, Message, Opening, Refusal, Server, ServerResult, WebSocket, WebSocketServer,
};

const SIZE: usize = 64;
const IN_FLIGHT: usize = 16;
const PATIENCE: Duration = Duration::from_secs(20);

/// Those whose memory is looked at.
const IDLE: usize = 1000;

type Theirs = tungstenite::WebSocket<TcpStream>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    /// So many connections, each with a thread and one message on its way.
    Echo(usize),
    /// The same with 16 on their way: for each that comes another one goes.
    Pipe(usize),
    /// The same, sent together.
    Burst(usize),
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.first().map(String::as_str) {
        Some("serve") => serve(),
        Some("memory") => memory(&args[1], args[2] == "ours"),
        Some("load") => {
            let only = args.get(4).map_or("", String::as_str);
            load(&args[1], number(args.get(2), 7.0) as usize, number(args.get(3), 0.5), only);
        }
        _ => {
            let mut server = Running(spawn(0, &["serve"]));
            let mut url = String::new();
            BufReader::new(server.0.stdout.take().expect("a pipe")).read_line(&mut url).expect("a line");
            let url = url.trim();
            let mut load = vec!["load", url];
            load.extend(args.iter().map(String::as_str));
            relay(spawn(1, &load));
            for whose in ["ours", "theirs"] {
                relay(spawn(1, &["memory", url, whose]));
            }
        }
    }
}

fn number(arg: Option<&String>, default: f64) -> f64 {
    arg.map_or(default, |arg| arg.parse().expect("a number"))
}

/// This program on a processor of its own, where that is possible.
fn spawn(processor: usize, args: &[&str]) -> Child {
    let program = std::env::current_exe().expect("this program");
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let mut command = Command::new("taskset");
    command.args(["-c", &processor.to_string()]).arg(&program).args(args).stdout(Stdio::piped());
    let pinned = if processors > 1 { command.spawn().ok() } else { None };
    pinned.unwrap_or_else(|| {
        Command::new(program).args(args).stdout(Stdio::piped()).spawn().expect("another process")
    })
}

fn relay(mut child: Child) {
    let mut text = String::new();
    child.stdout.take().expect("a pipe").read_to_string(&mut text).expect("text");
    print!("{text}");
    assert!(child.wait().expect("its end").success());
}

/// The cheapest echo that there is here.
struct Echo;

impl WebSocketServer for Echo {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        opening.set_shared_connection(true);
        Ok(())
    }

    fn server(&mut self, _: &mut WebSocket) -> ServerResult {
        Ok(())
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        let _ = ws.write(message);
        Handled::Yes
    }
}

fn serve() {
    let mut limits = Limits::default();
    limits.workers = 0;
    let server =
        Server::builder().listen("127.0.0.1:0").limits(limits).route("/", || Echo).bind().expect("a port");
    println!("ws://{}/", server.local_addrs()[0]);
    server.run().expect("no end");
}

fn load(url: &str, slices: usize, seconds: f64, only: &str) {
    let time = Duration::from_secs_f64(seconds);
    println!("{:8} {:>12} {:>12} {:>8}  CPU us each", "load", "ours/s", "tungst./s", "ratio");
    for load in [Load::Echo(1), Load::Echo(64), Load::Pipe(64), Load::Burst(64)] {
        let name = match load {
            Load::Echo(n) => format!("echo{n}"),
            Load::Pipe(_) => "pipe".to_owned(),
            Load::Burst(_) => "burst".to_owned(),
        };
        if !name.contains(only) {
            continue;
        }
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for slice in 0..slices {
            // Who comes first changes.
            for whose in [slice % 2 == 0, slice % 2 == 1] {
                if whose {
                    ours.push(run(url, load, time, our))
                } else {
                    theirs.push(run(url, load, time, their))
                }
            }
        }
        let [ours, theirs] = [ours, theirs].map(median);
        let ratio = ours.0 / theirs.0;
        println!("{name:8} {:12.0} {:12.0} {ratio:8.2}  {:.2} and {:.2}", ours.0, theirs.0, ours.1, theirs.1,);
    }
}

/// Messages a second, and processor time for each.
fn median(mut all: Vec<(f64, f64)>) -> (f64, f64) {
    all.sort_by(|a, b| a.0.total_cmp(&b.0));
    all[all.len() / 2]
}

type One = fn(&str, Load, &Barrier, &AtomicBool) -> usize;

/// Runs a load for so long.
fn run(url: &str, load: Load, time: Duration, one: One) -> (f64, f64) {
    let (Load::Echo(count) | Load::Pipe(count) | Load::Burst(count)) = load;
    let (ready, stop) = (Barrier::new(count + 1), AtomicBool::new(false));
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(|| one(url, load, &ready, &stop))).collect();
        ready.wait();
        let (begun, used) = (Instant::now(), processor_time());
        thread::sleep(time);
        stop.store(true, Relaxed);
        let messages: usize = threads.into_iter().map(|thread| thread.join().expect("no panic")).sum();
        let (took, used) = (begun.elapsed().as_secs_f64(), processor_time() - used);
        (messages as f64 / took, used * 1e6 / messages as f64)
    })
}

fn our(url: &str, load: Load, ready: &Barrier, stop: &AtomicBool) -> usize {
    let client = Client::connect(url).expect("a server");
    let message = Message::from(vec![7; SIZE]);
    let burst = || std::iter::repeat_n(message.clone(), IN_FLIGHT);
    let read = || client.read_message(PATIENCE).expect("an echo");
    let write = |message: Message| client.write(message).expect("an open connection");
    ready.wait();
    if let Load::Pipe(_) = load {
        client.write_many(burst()).expect("an open connection");
    }
    let mut messages = 0;
    while !stop.load(Relaxed) {
        match load {
            Load::Echo(_) => {
                write(message.clone());
                read();
            }
            Load::Pipe(_) => write(read()),
            Load::Burst(_) => {
                client.write_many(burst()).expect("an open connection");
                (1..IN_FLIGHT).for_each(|_| drop(read()));
                read();
                messages += IN_FLIGHT - 1;
            }
        }
        messages += 1;
    }
    messages
}

fn their(url: &str, load: Load, ready: &Barrier, stop: &AtomicBool) -> usize {
    let mut client = connect(url);
    let message = tungstenite::Message::binary(vec![7; SIZE]);
    ready.wait();
    let mut messages = 0;
    let write_burst = |client: &mut Theirs| {
        (0..IN_FLIGHT).for_each(|_| client.write(message.clone()).expect("an open connection"));
        client.flush().expect("an open connection");
    };
    if let Load::Pipe(_) = load {
        write_burst(&mut client);
    }
    while !stop.load(Relaxed) {
        match load {
            Load::Echo(_) => {
                client.send(message.clone()).expect("an open connection");
                client.read().expect("an echo");
            }
            Load::Pipe(_) => {
                let message = client.read().expect("an echo");
                client.send(message).expect("an open connection");
            }
            Load::Burst(_) => {
                write_burst(&mut client);
                (0..IN_FLIGHT).for_each(|_| drop(client.read().expect("an echo")));
                messages += IN_FLIGHT - 1;
            }
        }
        messages += 1;
    }
    messages
}

fn connect(url: &str) -> Theirs {
    let address = url.trim_start_matches("ws://").trim_end_matches('/');
    let socket = TcpStream::connect(address).expect("a server");
    socket.set_nodelay(true).expect("an open socket");
    tungstenite::client(url, socket).expect("a handshake").0
}

/// What clients that wait take, after one message there and back of each.
fn memory(url: &str, is_ours: bool) {
    let before = resident();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..IDLE {
        if is_ours {
            let client = Client::connect(url).expect("a server");
            client.write([7; SIZE].to_vec()).expect("an open connection");
            client.read_message(PATIENCE).expect("an echo");
            ours.push(client);
        } else {
            let mut client = connect(url);
            client.send(tungstenite::Message::binary(vec![7; SIZE])).expect("an open connection");
            client.read().expect("an echo");
            theirs.push(client);
        }
    }
    thread::sleep(Duration::from_secs(2)); // what is given back when it is quiet, is
    let each = (resident() - before) as f64 / IDLE as f64;
    println!("{} client that waits: {each:.1} KiB", if is_ours { "our" } else { "tungstenite's" });
}

/// In KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// Of this process, in seconds.
fn processor_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

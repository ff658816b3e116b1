#![cfg(all(feature = "__tls", feature = "cli", target_os = "linux"))]
//! The command where memory, threads or descriptors are short: it serves what fits, answers 503 to the rest, serves as many again
//! when those have gone, and never ends by itself.

mod common;

use std::{
    env, fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::{fs::MetadataExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use common::{
    PATIENCE, Scheme, Stream, connector, eventually,
    folder::Folder,
    frame, handshake,
    process::{COMMAND, Process},
    reply::Reply,
};
use rustix::process::getuid;

const ANY: &str = "127.0.0.1:0";

/// Somebody who has no other processes.
const NOBODY: u32 = 64_321;

/// Another build of the command to test, such as a release build. `None`: the one of these tests.
fn other_build() -> Option<String> {
    env::var("SWITCHBOARD_TEST_COMMAND").ok()
}

fn program() -> String {
    other_build().unwrap_or_else(|| COMMAND.to_owned())
}

/// Starts the command as a shell does that has set these limits before.
fn start(limits: &str, arguments: &[&str]) -> Process {
    Process::spawn(&mut command(&program(), limits, arguments))
}

fn command(program: &str, limits: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    let script = format!("{limits} && exec \"$0\" \"$@\"");
    command.args(["-c", &script, program]).args(arguments).env_remove("MALLOC_ARENA_MAX");
    command
}

/// A program that was not optimized has so many MiB more of code: else of 32 MiB there would be none left.
const DEBUG_CODE: usize = 12;

/// `ulimit -v`, of so many MiB.
fn addresses(mib: usize) -> String {
    let is_optimized = !cfg!(debug_assertions) || other_build().is_some();
    format!("ulimit -v {}", (mib + if is_optimized { 0 } else { DEBUG_CODE }) << 10)
}

/// What a client came to.
enum Came {
    Served(Stream),
    Refused,
}

/// Opens a WebSocket, or is told that there is no place: by 503, or, over TLS, by the end of the stream.
fn come(address: SocketAddr, scheme: Scheme, path: &str, more: &str) -> Came {
    let tcp = TcpStream::connect(address).unwrap();
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    let stream = match scheme {
        Scheme::Ws => Stream::Plain(tcp),
        Scheme::Wss => match connector().connect("localhost", tcp) {
            Ok(tls) => Stream::Tls(Box::new(tls)),
            Err(_) => return Came::Refused,
        },
    };
    open(stream, path, more)
}

fn open(mut stream: Stream, path: &str, more: &str) -> Came {
    stream.write_all(handshake(path).replace("\r\n\r\n", &format!("{more}\r\n\r\n")).as_bytes()).unwrap();
    let reply = Reply::read(&mut stream);
    match reply.status {
        101 => Came::Served(stream),
        503 => {
            assert!(reply.header("retry-after").is_some(), "{reply:?}");
            Came::Refused
        }
        _ => panic!("{reply:?}"),
    }
}

/// So many come, one after the other. Returns those that are served.
fn storm(address: SocketAddr, scheme: Scheme, path: &str, count: usize) -> Vec<Stream> {
    let all = (0..count).map(|_| come(address, scheme, path, ""));
    all.filter_map(|came| if let Came::Served(stream) = came { Some(stream) } else { None }).collect()
}

fn echoes(client: &mut Stream) {
    client.write_all(&frame(0x81, b"still there")).unwrap();
    assert_eq!(client.read_frame(), (0x81, b"still there".to_vec()));
}

/// Comes until it is served.
fn eventually_served(address: SocketAddr, scheme: Scheme, path: &str) -> Stream {
    let mut client = None;
    eventually("there is a place again", || {
        if let Came::Served(stream) = come(address, scheme, path, "") {
            client = Some(stream);
        }
        client.is_some()
    });
    client.unwrap()
}

/// All that are served echo; when they have gone, as many are served again.
fn serves_what_fits(process: &mut Process, address: SocketAddr, scheme: Scheme, count: usize) -> usize {
    let mut served = storm(address, scheme, "/echo", count);
    let first = served.len();
    assert!((1..count).contains(&first), "{first} of {count} are served: {:#?}", process.stderr);
    served.iter_mut().for_each(echoes);
    for round in 0..3 {
        drop(served);
        let mut again = Vec::new();
        eventually(&format!("as many are served as before, in round {round}"), || {
            again.extend(storm(address, scheme, "/echo", first - again.len()));
            again.len() == first
        });
        again.iter_mut().for_each(echoes);
        served = again;
    }
    first
}

#[test]
fn with_few_addresses_those_are_served_that_fit() {
    for (mib, count) in [(32, 60), (64, 200), (128, 400)] {
        let mut process = start(&addresses(mib), &["--listen", ANY]);
        let address = process.address("http");
        let said = process.line("at most ");
        assert!(said.ends_with("the limit is the address space (ulimit -v)"), "{said}");
        serves_what_fits(&mut process, address, Scheme::Ws, count);
        let lines = process.stop().stderr;
        assert!(
            lines.iter().any(|line| line.contains("turned away for want of memory or threads")),
            "{lines:#?}"
        );
    }
}

#[test]
fn so_it_is_over_tls() {
    for (mib, count) in [(64, 100), (128, 250)] {
        let files = ["--cert", "certs/server.pem", "--key", "certs/server.key"];
        let mut process = start(&addresses(mib), &[&["--tls-listen", ANY], &files[..]].concat());
        let address = process.address("https");
        serves_what_fits(&mut process, address, Scheme::Wss, count);
        process.stop();
    }
}

/// Of those without a thread there are many more.
#[test]
fn threads_are_short_before_places_are() {
    let mut process = start(&addresses(64), &["--listen", ANY]);
    let address = process.address("http");
    let mut shared = storm(address, Scheme::Ws, "/echo-shared", 500);
    assert_eq!(shared.len(), 500);
    shared.iter_mut().for_each(echoes);
    let synchronous = storm(address, Scheme::Ws, "/echo", 200);
    assert!((1..150).contains(&synchronous.len()), "{}", synchronous.len());
    shared.iter_mut().for_each(echoes);
    process.stop();
}

#[test]
fn with_little_room_for_data_those_are_served_that_fit() {
    let mut process = start("ulimit -d 40960", &["--listen", ANY]);
    let address = process.address("http");
    let said = process.line("at most ");
    assert!(said.ends_with("the limit is the size of data (ulimit -d)"), "{said}");
    serves_what_fits(&mut process, address, Scheme::Ws, 200);
    process.stop();
}

/// Sends a message, and takes for a while whatever comes: an answer, or an end.
fn sends(client: &mut Stream, first: u8, payload: &[u8]) {
    let _ = client.write_all(&frame(first, payload)); // it may be ended meanwhile
    client.tcp().set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut buffer = vec![0; 64 << 10];
    while client.read(&mut buffer).is_ok_and(|n| n > 0) {}
}

/// However large the messages are that many send at once, compressed or not: it is not the process that ends.
#[test]
fn large_messages_end_connections_at_most() {
    const SIZE: usize = 1 << 20;
    let payload: Vec<_> = (0..SIZE as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let extension = "\r\nSec-WebSocket-Extensions: permessage-deflate";
    for (mib, compress, more) in [
        (32, "off", ""),
        (32, "pooled", extension),
        (64, "off", ""),
        (64, "pooled", extension),
        (64, "dedicated", extension),
        (128, "off", ""),
        (128, "dedicated", extension),
    ] {
        let mut process = start(&addresses(mib), &["--listen", ANY, "--compress", compress]);
        let address = process.address("http");
        for path in ["/echo", "/echo-shared", "/broadcast"] {
            thread::scope(|scope| {
                for _ in 0..40 {
                    // Unfinished ones, too.
                    let Came::Served(mut client) = come(address, Scheme::Ws, path, more) else { continue };
                    let payload = &payload;
                    scope.spawn(move || {
                        sends(&mut client, 0x82, payload);
                        let _ = client.write_all(&frame(0x02, payload));
                    });
                }
            });
            echoes(&mut eventually_served(address, Scheme::Ws, "/echo"));
        }
        let lines = process.stop().stderr;
        let wrong = |line: &&String| line.contains("allocation") || line.contains("panicked");
        assert_eq!(lines.iter().find(wrong), None, "{mib} MiB, {compress}");
    }
}

/// A pile of small things: heads of requests that never end.
#[test]
fn requests_that_do_not_end_take_places_and_no_more() {
    let mut process = start(&addresses(48), &["--listen", ANY]);
    let address = process.address("http");
    let mut all: Vec<_> = (0..150).map(|_| Stream::connect(address, Scheme::Ws)).collect();
    for client in &mut all {
        // Those that were refused are gone.
        let _ = client.write_all(format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(15_000)).as_bytes());
    }
    drop(all);
    echoes(&mut eventually_served(address, Scheme::Ws, "/echo"));
    process.stop();
}

/// A copy of the command that everybody may run, wherever this one is.
fn public_copy(folder: &Folder) -> String {
    let program = folder.path("switchboard");
    fs::copy(self::program(), &program).unwrap();
    program
}

/// All threads of this user.
fn tasks_of(user: u32) -> usize {
    let own = |entry: &fs::DirEntry| entry.metadata().is_ok_and(|about| about.uid() == user);
    let processes = fs::read_dir("/proc").unwrap().flatten().filter(own);
    processes.map(|process| fs::read_dir(process.path().join("task")).map_or(0, Iterator::count)).sum()
}

/// Who asks whether one more would be served is told.
#[cfg(feature = "manage")]
#[test]
fn it_is_not_ready_for_one_more_where_there_is_no_thread_for_it() {
    let folder = Folder::new();
    let socket = folder.path("manage");
    let mut process = start(&addresses(64), &["--listen", ANY, "--manage", &format!("unix:{socket}")]);
    let address = process.address("http");
    let ready = || {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        common::reply::ask(&mut stream, "GET /ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    };
    assert_eq!(ready().status, 200);
    let served = storm(address, Scheme::Ws, "/echo", 200);
    let reply = ready();
    let why = String::from_utf8_lossy(&reply.body).into_owned();
    assert!(
        reply.status == 503 && (why.contains("no thread") || why.contains("short of memory")),
        "{reply:?}"
    );
    drop(served);
    eventually("there is a thread again", || ready().status == 200);
    process.stop();
}

/// A control group of our own. It is removed in the end.
struct Group(PathBuf);

impl Group {
    /// `None`: the system gives none, or none that limits this.
    fn new(controller: &str, file: &str, value: &str) -> Option<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let parents = [root.join(controller), root.to_owned()];
        let group = Self(
            parents
                .iter()
                .map(|parent| parent.join(format!("switchboard-test-{controller}-{}", std::process::id())))
                .find(|folder| fs::create_dir(folder).is_ok())?,
        );
        let is_one = group.0.join("cgroup.procs").exists();
        (is_one && fs::write(group.0.join(file), value).is_ok()).then_some(group)
    }

    fn enter(&self) -> String {
        format!("echo $$ > {}/cgroup.procs", self.0.display())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        eventually("all processes of the group have ended", || fs::remove_dir(&self.0).is_ok());
    }
}

/// Where there are control groups, and tests may make some.
#[test]
fn what_a_control_group_leaves_is_enough() {
    for (controller, [old, new], value, said) in [
        (
            "memory",
            ["memory.limit_in_bytes", "memory.max"],
            "67108864",
            "the memory of the machine or the cgroup",
        ),
        ("pids", ["pids.max", "pids.max"], "40", "the number of threads (the cgroup's pids.max)"),
    ] {
        let group = Group::new(controller, old, value).or_else(|| Group::new(controller, new, value));
        let Some(group) = group else { continue };
        let mut process = start(&group.enter(), &["--listen", ANY]);
        let address = process.address("http");
        let limit = process.line("at most ");
        assert!(limit.ends_with(said), "{limit}");
        let mut served = storm(address, Scheme::Ws, "/echo", 60);
        served.iter_mut().for_each(echoes);
        assert!(controller == "memory" || served.len() < 40, "{}", served.len());
        process.stop();
    }
}

/// For root there is no such limit: then it is somebody else who starts the command.
#[test]
fn with_few_threads_those_are_served_that_fit() {
    let folder = Folder::new();
    let program = public_copy(&folder);
    let is_root = getuid().is_root();
    let user = if is_root { NOBODY } else { getuid().as_raw() };
    let most = tasks_of(user) + 40;
    // Some shells call it -p.
    let limits = format!("{{ ulimit -u {most} 2>/dev/null || ulimit -p {most}; }}");
    let mut command = command(&program, &limits, &["--listen", ANY]);
    if is_root {
        command.uid(NOBODY).gid(NOBODY).current_dir("/");
    }
    let mut process = Process::spawn(&mut command);
    let address = process.address("http");
    let said = process.line("at most ");
    assert!(said.ends_with("the limit is the number of threads (ulimit -u)"), "{said}");
    let served = serves_what_fits(&mut process, address, Scheme::Ws, 100);
    assert!(served < 40, "{served}");
    process.stop();
}

/// Nothing fails for want of a descriptor: there are as many places as there are of them.
#[test]
fn by_default_there_are_as_many_places_as_descriptors() {
    let mut process = start("ulimit -Sn 150 && ulimit -Hn 150", &["--listen", ANY]);
    let address = process.address("http");
    let said = process.line("at most ");
    assert!(said.ends_with("the limit is the number of open files (ulimit -n)"), "{said}");
    let served = serves_what_fits(&mut process, address, Scheme::Ws, 150);
    assert!(served > 40, "{served}");
    let lines = process.stop().stderr;
    let wrong = |line: &&String| line.contains("ERROR") || line.contains("limit on open files");
    assert_eq!(lines.iter().find(wrong), None);
}

/// What was chosen is kept, and what cannot be is said.
#[test]
fn what_does_not_fit_is_said() {
    let too_large = ["--listen", ANY, "--stack-size", "256M"];
    let ended = start(&addresses(128), &too_large).end();
    assert_eq!(ended.status.code(), Some(1), "{:#?}", ended.stderr);
    let said = ended.stderr.iter().any(|line| {
        line.starts_with(
            "switchboard: there is no room for a single connection: the address space (ulimit -v): raise",
        ) || line.contains("cannot start a thread with a stack of 268435456 bytes")
    });
    assert!(said, "{:#?}", ended.stderr);

    let mut process = start(&addresses(128), &["--listen", ANY, "--max-buffered-bytes", "100M"]);
    process.line("buffers may take 100 MiB (max_buffered_bytes), and only ");
    process.stop();

    let mut process =
        start("ulimit -Sn 150 && ulimit -Hn 150", &["--listen", ANY, "--max-connections", "200"]);
    process.line("the limit on open files is 150, and 200 connections can need ");
    process.line("at most 200 connections");
    process.stop();
}

/// The allocator's arenas are as many as fit; but who has chosen how many keeps that.
#[cfg(target_env = "gnu")]
#[test]
fn arenas_do_not_take_the_addresses() {
    let arenas = |process: &Process| {
        let all = fs::read(format!("/proc/{}/environ", process.id())).unwrap();
        let all = String::from_utf8_lossy(&all).into_owned();
        all.split('\0').find_map(|line| line.strip_prefix("MALLOC_ARENA_MAX=")).map(str::to_owned)
    };
    for (limits, expected) in [
        ("true".to_owned(), None),
        (addresses(64), Some("1")),
        (format!("{} && export MALLOC_ARENA_MAX=3", addresses(256)), Some("3")),
    ] {
        let mut process = start(&limits, &["--listen", ANY]);
        process.address("http");
        assert_eq!(arenas(&process).as_deref(), expected, "{limits}");
        let name = fs::read_to_string(format!("/proc/{}/comm", process.id())).unwrap();
        assert_eq!(name.trim_end(), "switchboard", "it is the same program still");
        process.stop();
    }
}

/// Where nobody is served any more, it does not spin: those who are refused cost little, and nobody else costs anything.
#[test]
fn refusing_costs_little() {
    let mut process = start(&addresses(32), &["--listen", ANY]);
    let address = process.address("http");
    let _served = storm(address, Scheme::Ws, "/echo", 60);
    let before = process.ticks();
    thread::sleep(Duration::from_secs(1));
    assert!(process.ticks() - before < 20, "it has used {} ticks of 100", process.ticks() - before);
    process.stop();
}

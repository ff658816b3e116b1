#![cfg(all(feature = "__tls", target_os = "linux"))]
//! A server with nothing to do sleeps: none of its threads wakes up, without clients and with silent clients.
//!
//! This file has only one test, because the threads of other servers in the same process would be counted, too.
mod common;

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::PathBuf,
    sync::{Arc, Mutex, mpsc},
    thread::{Builder, sleep},
    time::Duration,
};

use common::{SCHEMES, Scheme, SharedEcho, app, echo, eventually, frame, handshake, serve, serve_on};
use switchboard::Limits;

/// The server's threads: their names, of which the kernel keeps only 15 bytes, and how often each has waited.
fn threads() -> BTreeMap<PathBuf, (String, u64)> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let of_task = |task: io::Result<fs::DirEntry>| {
        let path = task.ok()?.path();
        // A thread that ends meanwhile has no name any more.
        let name = fs::read_to_string(path.join("comm")).ok()?.trim_end().to_owned();
        let status = fs::read_to_string(path.join("status")).ok()?;
        let waits = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        Some((path, (name, waits.trim().parse().ok()?)))
    };
    let is_counted = |name: &str| name == "run" || name.starts_with("switchboard-");
    tasks.filter_map(of_task).filter(|(_, (name, _))| is_counted(name)).collect()
}

fn count(name: &str) -> usize {
    threads().values().filter(|(other, _)| other == name).count()
}

/// Checks that no thread starts, ends or wakes up for a while. On a busy machine one may be late with what it did before.
fn assert_asleep() {
    let mut seen = [threads(), BTreeMap::new()];
    let is_asleep = (0..3).any(|_| {
        sleep(Duration::from_secs(2)); // the time that is measured
        seen = [threads(), std::mem::take(&mut seen[0])];
        seen[0] == seen[1]
    });
    assert!(is_asleep, "{seen:#?}");
}

#[test]
fn with_nothing_to_do_no_thread_wakes_up() {
    without_clients();
    with_silent_clients();
}

fn without_clients() {
    let mut limits = Limits::default();
    limits.max_connections = 1;
    limits.thread_keep_alive = Duration::from_millis(200);
    let run = |run| Builder::new().name("run".into()).spawn(run).unwrap();
    let server = serve_on(run, |builder| builder.limits(limits).route("/", || app(echo)));
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        let rejected = server.http(Scheme::Ws, &handshake("/"));
        assert!(rejected.starts_with("HTTP/1.1 503 "), "{rejected}");
        client.write_all(&frame(0x88, &[])).unwrap();
        assert_eq!(client.read_close_and_end().0, 1005);
        drop(client);
        eventually("there is a place for the next", || server.handle.connections() == 0);
    }
    eventually("threads that wait for clients have ended", || count("switchboard-con") == 0);
    let all = || ["run", "switchboard-acc", "switchboard-wor", "switchboard-gat"].map(count);
    eventually("all others are there", || all() == [1, 2, 2, 1]);
    // The ended threads are still joined, and the rejected client's socket is closed after a second.
    sleep(Duration::from_millis(1500));
    assert_asleep();
}

fn with_silent_clients() {
    let (tx, rx) = mpsc::channel::<()>();
    let rx = Arc::new(Mutex::new(rx));
    let server = serve(|builder| {
        builder.route("/", || app(echo)).route("/shared", || SharedEcho).route("/busy", move || {
            let rx = rx.clone();
            app(move |_| Ok(rx.lock().unwrap().recv()?))
        })
    });
    let clients = SCHEMES.map(|scheme| {
        ["/", "/shared"].map(|path| {
            let mut client = server.raw_websocket(scheme, path);
            client.write_all(&frame(0x81, b"x")).unwrap();
            assert_eq!(client.read_frame(), (0x81, b"x".to_vec()));
            client
        })
    });
    // The gateway still checks for collected output a few times, and finds within a second that the threads wait.
    sleep(Duration::from_millis(2500));
    assert_asleep();
    // A busy thread is checked every second.
    let waits = || threads().values().find(|(name, _)| name == "switchboard-gat").unwrap().1;
    let _busy = server.raw_websocket(Scheme::Ws, "/busy");
    let before = waits();
    eventually("the gateway looks", || waits() >= before + 3);
    assert!(waits() < before + 100, "not more than that");
    tx.send(()).unwrap();
    drop(clients);
}

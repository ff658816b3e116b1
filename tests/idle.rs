#![cfg(all(feature = "tls", target_os = "linux"))]
//! A server without clients sleeps: none of its threads wakes up, apart from the gateway, which has times to keep.
//!
//! One test: the threads of other servers in this process would be counted, too.
mod common;

use std::{
    collections::BTreeMap,
    fs, io,
    path::PathBuf,
    thread::{Builder, sleep},
    time::Duration,
};

use common::{SCHEMES, Scheme, app, echo, eventually, frame, handshake, serve_on};
use switchboard::Limits;

/// The server's threads, without the gateway: their names, of which the system keeps 15 bytes, and how often each has waited.
fn threads() -> BTreeMap<PathBuf, (String, u64)> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let of_task = |task: io::Result<fs::DirEntry>| {
        let path = task.ok()?.path();
        // One that ends meanwhile has no name any more.
        let name = fs::read_to_string(path.join("comm")).ok()?.trim_end().to_owned();
        let status = fs::read_to_string(path.join("status")).ok()?;
        let waits = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        Some((path, (name, waits.trim().parse().ok()?)))
    };
    let is_counted =
        |name: &str| name == "run" || name.starts_with("switchboard-") && name != "switchboard-gat";
    tasks.filter_map(of_task).filter(|(_, (name, _))| is_counted(name)).collect()
}

fn count(name: &str) -> usize {
    threads().values().filter(|(other, _)| other == name).count()
}

#[test]
fn without_clients_nobody_wakes_up() {
    let mut limits = Limits::default();
    limits.max_connections = 1;
    limits.thread_keep_alive = Duration::from_millis(200);
    let run = |run| Builder::new().name("run".into()).spawn(run).unwrap();
    let server = serve_on(run, |builder| builder.limits(limits).route("/", || app(echo)));
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/");
        let rejected = server.http(Scheme::Ws, &handshake("/"));
        assert!(rejected.starts_with("HTTP/1.1 503 "), "{rejected}");
        std::io::Write::write_all(&mut client, &frame(0x88, &[])).unwrap();
        assert_eq!(client.read_close_and_end().0, 1005);
        drop(client);
        eventually("there is a place for the next", || server.handle.connections() == 0);
    }
    eventually("threads that wait for clients have ended", || count("switchboard-con") == 0);
    assert_eq!((count("run"), count("switchboard-acc"), count("switchboard-wor")), (1, 2, 2));
    // The ended threads are still joined, and the rejected client's socket is closed after a second.
    sleep(Duration::from_millis(1500));
    let before = threads();
    sleep(Duration::from_secs(2)); // what is measured
    assert_eq!(threads(), before);
}

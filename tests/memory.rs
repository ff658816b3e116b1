#![cfg(all(feature = "tls", target_os = "linux"))]
//! What all connections together hold in memory, whatever their clients do.
//!
//! The tests measure the process, so they run one after the other.
mod common;

use std::{
    fs,
    sync::{
        Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use common::{PATIENCE, Scheme, SharedEcho, app, echo, eventually, serve};
use rustix::net::sockopt::set_socket_recv_buffer_size;
use switchboard::{Audience, Limits};

/// Nobody else measures meanwhile.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// What the process has more of at most while this is done.
fn grows(what: impl FnOnce()) -> usize {
    let before = resident();
    let (done, is_done) = mpsc::channel::<()>();
    let watcher = thread::spawn(move || {
        let mut most = 0;
        while is_done.recv_timeout(Duration::from_millis(1)) == Err(RecvTimeoutError::Timeout) {
            most = most.max(resident());
        }
        most.max(resident())
    });
    what();
    drop(done);
    watcher.join().unwrap().saturating_sub(before)
}

/// What was broadcast to slow clients is theirs together, also when they are closed. Those that read get all of it, and then
/// the close frame.
#[test]
fn closing_copies_nothing_that_is_queued() {
    const CLIENTS: usize = 25;
    const READERS: usize = 3;
    const SIZE: usize = 4000; // short ones are copied into the output
    let _alone = alone();
    for path in ["/", "/shared"] {
        let mut limits = Limits::default();
        limits.close_timeout = PATIENCE;
        (limits.max_queue_bytes, limits.max_queue_messages) = (Some(64 << 20), 100_000);
        let server =
            serve(|builder| builder.limits(limits).route("/", || app(echo)).route("/shared", || SharedEcho));
        let mut clients: Vec<_> = (0..CLIENTS)
            .map(|n| {
                let client = server.raw_websocket(Scheme::Ws, path);
                if n >= READERS {
                    set_socket_recv_buffer_size(client.tcp(), 4096).unwrap();
                }
                client
            })
            .collect();
        // Until the sockets are full, and in each queue are some hundred.
        let mut sent = 0;
        let full = || server.hub.connections().iter().filter(|info| info.queued > 3_000_000).count();
        while full() < CLIENTS - READERS {
            for _ in 0..50 {
                let to = server.hub.broadcast(Audience::All, vec![sent as u8; SIZE]);
                assert_eq!(to.sent + to.queued, CLIENTS, "{to:?}");
                sent += 1;
            }
        }
        let grown = grows(|| {
            server.handle.shutdown(PATIENCE * 10);
            eventually("all are closing", || {
                server.hub.push(&server.hub.connections()[0].id, "late").is_err()
            });
            for client in &mut clients[..READERS] {
                for n in 0..sent {
                    assert_eq!(client.read_frame(), (0x82, vec![n as u8; SIZE]), "{path}: number {n}");
                }
                assert_eq!(client.answer_close_and_end().0, 1001, "{path}");
            }
        });
        drop(clients);
        assert!(grown < 20 << 20, "{path}: {} KiB more", grown / 1024);
    }
}

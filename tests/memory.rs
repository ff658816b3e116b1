#![cfg(all(feature = "__tls", target_os = "linux"))]
//! What all connections together hold in memory, whatever their clients do.
//!
//! The tests measure the process, so they run one after the other.
mod common;

use std::{
    fs,
    io::Write,
    sync::{
        Mutex, MutexGuard, PoisonError,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::Duration,
};

use common::{
    PATIENCE, SCHEMES, Scheme, SharedEcho, Stream, TestServer, app, connections, echo, eventually, frame,
    handshake, reply::ask, serve,
};
use flate2::{Compress, Compression, FlushCompress};
use rustix::net::sockopt::set_socket_recv_buffer_size;
use switchboard::{Audience, Exchange, Limits, Response};

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
        let full = || connections(&server.hub).iter().filter(|info| info.queued > 3_000_000).count();
        while full() < CLIENTS - READERS {
            for _ in 0..50 {
                let to = server.hub.broadcast(Audience::All, vec![sent as u8; SIZE]).unwrap();
                assert_eq!(to.sent + to.queued, CLIENTS, "{to:?}");
                sent += 1;
            }
        }
        let ids = connections(&server.hub).into_iter().map(|info| info.id);
        let pushers: Vec<_> = ids.map(|id| server.hub.pusher(&id).unwrap()).collect();
        let grown = grows(|| {
            server.handle.shutdown(PATIENCE * 10);
            eventually("all are closing", || pushers.iter().all(|pusher| pusher.close_reason().is_some()));
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

/// A first fragment of a message, of 1 KiB, that inflates to 1 MiB.
fn bomb() -> Vec<u8> {
    let mut compressed = Vec::with_capacity(4096);
    let mut compress = Compress::new(Compression::best(), false);
    compress.compress_vec(&vec![0; 1 << 20], &mut compressed, FlushCompress::Sync).unwrap();
    assert!(compressed.len() < 2000);
    frame(0x42, &compressed)
}

/// With compression.
fn open(server: &TestServer, scheme: Scheme, path: &str) -> Stream {
    let mut stream = server.raw(scheme);
    let more = "\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    stream.write_all(handshake(path).replace("\r\n\r\n", more).as_bytes()).unwrap();
    assert!(stream.read_head().contains("permessage-deflate"));
    stream
}

fn echoes(client: &mut Stream, payload: &[u8]) {
    client.write_all(&frame(0x82, payload)).unwrap();
    let (first, got) = client.read_frame();
    assert!(
        (first, &*got) == (0x82, payload),
        "{first:x} {:?}",
        String::from_utf8_lossy(&got[..got.len().min(60)])
    );
}

/// Takes those out that have been ended, all of them with 1013; the others still answer.
fn take_ended(clients: &mut Vec<Stream>) -> Vec<Stream> {
    let is_ended = |client: &mut Stream| {
        // One that was ended may be cut before it has taken this.
        let _ = client.write_all(&frame(0x89, b"still here?"));
        let (first, payload) = client.read_frame();
        if first == 0x8a {
            return false;
        }
        let text = [&1013_u16.to_be_bytes()[..], b"the server is short of memory"].concat();
        assert_eq!((first, payload), (0x88, text));
        true
    };
    clients.extract_if(.., is_ended).collect()
}

/// However many clients begin messages: those that hold most have to go, and nobody else notices.
/// The memory that the allocator keeps for each thread is a part of what is measured; without the bound it were 400 MiB and more.
#[test]
fn unfinished_messages_of_many_clients_fill_no_memory() {
    const CLIENTS: usize = 400;
    let _alone = alone();
    for (scheme, path) in SCHEMES.into_iter().flat_map(|scheme| [(scheme, "/"), (scheme, "/shared")]) {
        let mut limits = Limits::default();
        (limits.max_buffered_bytes, limits.ping_interval) = (Some(16 << 20), None);
        let server = serve(|builder| {
            let builder = builder.limits(limits).compression(switchboard::Compression::Pooled);
            builder.route("/", || app(echo)).route("/shared", || SharedEcho)
        });
        let mut healthy = [server.raw_websocket(scheme, "/"), server.raw_websocket(scheme, "/shared")];
        let mut clients: Vec<_> = (0..CLIENTS).map(|_| open(&server, scheme, path)).collect();
        let bomb = bomb();
        let mut ended = Vec::new();
        let grown = grows(|| {
            for client in &mut clients {
                client.write_all(&bomb).unwrap();
                for client in &mut healthy {
                    echoes(client, &[7; 100]);
                }
            }
            healthy.iter_mut().for_each(|client| echoes(client, &[7; 100_000]));
            eventually("those that are too many are ended", || {
                ended.append(&mut take_ended(&mut clients));
                clients.len() <= 16
            });
        });
        assert!(clients.len() > 8, "{scheme:?} {path}: {} are left", clients.len());

        assert!(grown < 250 << 20, "{scheme:?} {path}: {} KiB more", grown / 1024);
        // Those that were ended hold nothing, whatever they still send.
        let grown = grows(|| {
            for client in &mut ended {
                let _ = client.write_all(&bomb);
            }
            healthy.iter_mut().for_each(|client| echoes(client, &[7; 100]));
        });
        assert!(grown < 40 << 20, "{scheme:?} {path}: {} KiB more", grown / 1024);
    }
}

/// Pushes to clients that do not read.
#[test]
fn queues_of_many_clients_fill_no_memory() {
    const CLIENTS: usize = 40;
    let _alone = alone();
    for path in ["/", "/shared"] {
        let mut limits = Limits::default();
        (limits.max_buffered_bytes, limits.ping_interval) = (Some(16 << 20), None);
        let server =
            serve(|builder| builder.limits(limits).route("/", || app(echo)).route("/shared", || SharedEcho));
        let clients: Vec<_> = (0..CLIENTS).map(|_| server.raw_websocket(Scheme::Ws, path)).collect();
        let slow: Vec<_> = connections(&server.hub).into_iter().map(|info| info.id).collect();
        let mut healthy =
            [server.raw_websocket(Scheme::Ws, "/"), server.raw_websocket(Scheme::Ws, "/shared")];
        let mut closed = 0;
        let grown = grows(|| {
            for n in 0..80 {
                for id in &slow {
                    let pushed = server.hub.push(id, vec![7; 100_000]);
                    closed += usize::from(n == 79 && pushed.is_err());
                }
                healthy.iter_mut().for_each(|client| echoes(client, &[7; 100]));
            }
        });
        assert!(closed > CLIENTS / 2, "{path}: {closed}");
        assert!(grown < 60 << 20, "{path}: {} KiB more", grown / 1024);
        drop(clients);
    }
}

/// Bodies of HTTP requests that are never complete: whoever comes when it is enough is told so, and nobody else notices.
#[test]
fn bodies_of_many_clients_fill_no_memory() {
    const CLIENTS: usize = 200;
    let _alone = alone();
    for scheme in SCHEMES {
        let mut limits = Limits::default();
        (limits.max_buffered_bytes, limits.ping_interval) = (Some(16 << 20), None);
        limits.handshake_timeout = PATIENCE * 10;
        let server = serve(|builder| {
            let page = |exchange: &Exchange<'_>| exchange.body().map(|body| Response::new("x/y", body));
            builder
                .limits(limits)
                .route("/", || app(echo))
                .route("/shared", || SharedEcho)
                .http("POST /", page)
        });
        let mut healthy = [server.raw_websocket(scheme, "/"), server.raw_websocket(scheme, "/shared")];
        let head = "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n";
        let body = [head.as_bytes(), &[b'x'; 900_000]].concat();
        let mut clients = Vec::new();
        let grown = grows(|| {
            for _ in 0..CLIENTS {
                let mut client = server.raw(scheme);
                let _ = client.write_all(&body); // it may have been refused meanwhile
                clients.push(client);
                healthy.iter_mut().for_each(|client| echoes(client, &[7; 100]));
            }
            eventually("most are refused", || server.handle.connections() <= 2 + 9);
        });
        assert!(server.handle.connections() > 2 + 4, "{scheme:?}: {}", server.handle.connections());
        // Without a bound the bodies alone have 180 MiB. A refused client has its thread for a second, and both ends of TLS are here.
        assert!(grown < 200 << 20, "{scheme:?}: {} KiB more", grown / 1024);
        healthy.iter_mut().for_each(|client| echoes(client, &[7; 100_000]));
        assert!(ask(&mut server.raw(scheme), &body[..]).status == 503, "{scheme:?}");
        drop(clients);
        eventually("they have left", || server.handle.connections() == 2);
        // What they held is free again.
        let whole = [&body[..], &[b'x'; 100_000]].concat();
        assert_eq!(ask(&mut server.raw(scheme), whole).body.len(), 1_000_000);
    }
}

/// What is broadcast counts once, so that a room of slow clients is not taken for a shortage; unless it is one.
#[test]
fn a_broadcast_counts_once() {
    const CLIENTS: usize = 40;
    let _alone = alone();
    for path in ["/", "/shared"] {
        let mut limits = Limits::default();
        limits.max_buffered_bytes = Some(24 << 20);
        limits.max_queue_bytes = Some(1 << 30);
        let server =
            serve(|builder| builder.limits(limits).route("/", || app(echo)).route("/shared", || SharedEcho));
        let clients: Vec<_> = (0..CLIENTS).map(|_| server.raw_websocket(Scheme::Ws, path)).collect();
        let queued = || connections(&server.hub).iter().map(|info| info.queued).sum::<usize>();
        for _ in 0..12 {
            let to = server.hub.broadcast(Audience::All, vec![7; 1 << 20]).unwrap();
            assert_eq!(to.sent + to.queued, CLIENTS, "{path}: {to:?}");
        }
        assert!(queued() > 48 << 20, "{path}: {}", queued());
        let mut healthy =
            [server.raw_websocket(Scheme::Ws, "/"), server.raw_websocket(Scheme::Ws, "/shared")];
        let mut closed = 0;
        let grown = grows(|| {
            for _ in 0..40 {
                closed = server.hub.broadcast(Audience::All, vec![7; 1 << 20]).unwrap().gone;
                for client in &mut healthy {
                    assert_eq!(client.read_frame().1.len(), 1 << 20);
                    echoes(client, &[7; 100]);
                }
            }
        });
        assert!(closed > 0 || server.hub.len().unwrap() < CLIENTS, "{path}");
        assert!(grown < 60 << 20, "{path}: {} KiB more", grown / 1024);
        drop(clients);
    }
}

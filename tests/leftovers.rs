#![cfg(all(feature = "__tls", target_os = "linux"))]
//! When `run` has returned, the server has left no thread and no descriptor behind.
//!
//! This file has only one test, because others in the same process would be counted, too.
mod common;

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    sync::mpsc,
    thread,
    time::Duration,
};

use common::{
    PATIENCE, SCHEMES, Scheme, Stream, TestServer, app, connector, echo, ends::close_frame, eventually,
    eventually_or, frame, full_app, handshake, next_message, serve,
};
use switchboard::{Limits, Opening, Refusal, Response, StatusCode, WebSocket, WebSocketId};
use tungstenite::Message;

/// The names of the threads.
fn threads() -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    // A thread that ends meanwhile has no name any more.
    let mut names: Vec<_> =
        tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok()).collect();
    names.sort();
    names
}

/// What the descriptors are.
fn descriptors() -> BTreeMap<String, String> {
    let all = fs::read_dir("/proc/self/fd").unwrap().flatten();
    // The descriptor for reading this folder is always among them.
    let known = all.filter_map(|fd| Some((fd.file_name(), fs::read_link(fd.path()).ok()?)));
    known.map(|(fd, what)| (fd.into_string().unwrap(), what.display().to_string())).collect()
}

fn start() -> (TestServer, mpsc::Receiver<WebSocketId>) {
    let mut limits = Limits::default();
    limits.close_timeout = Duration::from_millis(500);
    limits.write_timeout = Duration::from_secs(1);
    limits.handshake_timeout = Duration::from_secs(3);
    limits.max_connections = 150;
    limits.gateways = 2;
    let (tx, shared) = mpsc::channel();
    let server = serve(|builder| {
        builder
            .limits(limits)
            .route("/echo", || app(echo))
            .route("/panic", || app(|_| panic!("on purpose")))
            .route("/fail", || app(|_| Err("on purpose".into())))
            .route("/flood", || {
                app(|ws| {
                    loop {
                        ws.write(vec![b'x'; 100_000])?;
                    }
                })
            })
            .route("/refused", || {
                let no = |_: &mut Opening| Err(Refusal::new(StatusCode::FORBIDDEN, "nobody"));
                full_app(no, |_| Ok(()), |_| {})
            })
            .route("/shared", move || {
                let tx = tx.clone();
                let share = |opening: &mut Opening| {
                    opening.set_shared_connection(true);
                    Ok(())
                };
                full_app(share, move |ws| Ok(tx.send(*ws.websocket_id())?), |_| {})
            })
            .http("/page", |_| Response::text(StatusCode::OK, "page"))
            .http("/broken", |_| -> Response { panic!("on purpose") })
    });
    (server, shared)
}

/// Makes connections end in all possible ways. Returns handles to shared ones that have ended or will end, and clients
/// that are still connected.
fn live(
    server: &TestServer,
    shared: &mpsc::Receiver<WebSocketId>,
    scheme: Scheme,
) -> (Vec<WebSocket>, Vec<Stream>) {
    let (mut handles, mut connected) = (Vec::new(), Vec::new());
    for n in 0..6u8 {
        let mut client = server.connect(scheme, "/echo");
        client.send(Message::text("ä".repeat(50_000))).unwrap();
        assert_eq!(next_message(&mut client).len(), 100_000);
        client.close(None).unwrap();
        while client.read().is_ok() {}

        for path in ["/panic", "/fail"] {
            let mut client = server.raw_websocket(scheme, path);
            assert_eq!(client.answer_close_and_end().0, 1011);
        }
        // In the middle of a frame: reset, and ended.
        let half = &frame(0x81, &[b'x'; 100])[..40];
        let mut client = server.raw_websocket(scheme, "/echo");
        client.write_all(half).unwrap();
        client.reset();
        let mut client = server.raw_websocket(scheme, "/echo");
        client.write_all(half).unwrap();
        drop(client);
        let mut client = server.raw_websocket(scheme, "/echo");
        client.write_all(&frame(0x83, b"reserved")).unwrap();
        assert_eq!(client.take_close().0, 1002);

        for request in [
            handshake("/refused"),
            handshake("/nowhere"),
            "GET /page HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".into(),
            "GET /broken HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".into(),
            "no HTTP\r\n\r\n".into(),
        ] {
            assert!(server.http(scheme, &request).starts_with("HTTP/1.1 "));
        }
        // Unfinished handshakes: ended, reset, and left open.
        for end in 0..3 {
            let mut client = server.raw(scheme);
            client.write_all(&handshake("/echo").as_bytes()[..20 + usize::from(n)]).unwrap();
            match end {
                0 => drop(client),
                1 => client.reset(),
                _ => connected.push(client),
            }
        }
        // Data that is not TLS, an unfinished TLS handshake, and a client that does not trust this server.
        for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0x16, 3, 1, 2, 0, 1, 0]] {
            let mut client = Stream::connect(server.tls, Scheme::Ws);
            client.write_all(bytes).unwrap();
            if n % 2 == 0 {
                connected.push(client);
            }
        }
        let stranger = Stream::connect(server.tls, Scheme::Ws);
        connector().connect("example.org", stranger).unwrap_err();

        // Shared connections: ended by a handle, by the client's close, by its reset, and by the shutdown.
        for end in 0..4 {
            let mut client = server.raw_websocket(scheme, "/shared");
            let id = shared.recv_timeout(PATIENCE).unwrap();
            let ws = server.hub.open_server(&id).unwrap();
            client.write_all(&frame(0x81, b"hello")).unwrap();
            assert_eq!(ws.read_message(PATIENCE).unwrap(), "hello");
            match end {
                0 => {
                    ws.end_server();
                    assert_eq!(client.answer_close_and_end().0, 1000);
                }
                1 => {
                    client.write_all(&close_frame(4000, "")).unwrap();
                    assert_eq!(client.take_close().0, 4000);
                }
                2 => client.reset(),
                _ => {
                    // It has unread messages.
                    client.write_all(&frame(0x81, &[b'x'; 50_000]).repeat(40)).unwrap();
                    connected.push(client);
                }
            }
            handles.push(ws);
        }
    }
    // Clients that do not read: one until the write timeout, one that resets, one until the shutdown.
    let slow: Vec<_> = (0..3).map(|_| server.raw_websocket(scheme, "/flood")).collect();
    for (n, mut client) in slow.into_iter().enumerate() {
        client.read_exact(&mut [0; 1000]).unwrap();
        match n {
            0 => client.reset(),
            _ => connected.push(client),
        }
    }
    (handles, connected)
}

#[test]
fn nothing_is_left_when_run_has_returned() {
    // Warm up what is created only once, on both sides: certificates, random numbers, lazily opened files.
    let (server, _shared) = start();
    for scheme in SCHEMES {
        drop(server.connect(scheme, "/echo"));
    }
    server.shutdown(Duration::from_secs(1));
    // A joined thread stays in the list until the kernel has removed it.
    eventually("only this and the first one are left", || threads().len() == 2);
    let (threads_before, descriptors_before) = (threads(), descriptors());

    let (server, shared) = start();
    let watch = common::identity().watch().unwrap();
    let (mut handles, mut connected) = (Vec::new(), Vec::new());
    for scheme in SCHEMES {
        let (more, stay) = live(&server, &shared, scheme);
        handles.extend(more);
        connected.extend(stay);
    }
    // Wait until the failed connections have ended, so that there are free slots again.
    connected.retain(|client| client.tcp().peer_addr().is_ok());
    eventually("they have ended", || server.handle.connections() <= connected.len());

    let hub = server.hub.clone();
    let mut hundred: Vec<_> = (0..100).map(|n| server.connect(SCHEMES[n % 2], "/echo")).collect();
    for client in &mut hundred {
        client.send(Message::text("hello")).unwrap();
    }
    for client in &mut hundred {
        assert_eq!(next_message(client), Message::text("hello"));
    }
    assert!(threads().len() > threads_before.len() + 100, "the count works");
    assert!(descriptors().len() > descriptors_before.len() + 200, "the count works");
    // More clients than `max_connections`.
    let excess: Vec<_> = (0..60).map(|_| Stream::connect(server.plain, Scheme::Ws)).collect();
    let answers = thread::spawn(move || {
        for client in &mut hundred {
            while client.read().is_ok() {}
        }
    });
    server.shutdown(Duration::from_millis(1500));
    answers.join().unwrap();
    assert!(
        threads().iter().any(|name| "switchboard-cert\n".starts_with(name.trim_end())),
        "the watch has one"
    );
    drop(watch);
    drop((connected, excess)); // the clients' side; the server's is gone already

    assert!(hub.is_empty().unwrap());
    assert_eq!(handles.len(), 2 * 6 * 4);
    for ws in &mut handles {
        assert!(ws.close_reason().is_some() && ws.read(0, PATIENCE).unwrap_err().is_closed());
    }
    assert_eq!(descriptors(), descriptors_before, "with handles to ended connections still held");
    let more = || format!("{threads_before:?} before, {:?}", threads());
    eventually_or(more, || threads() == threads_before);
    drop((handles, hub));
    assert_eq!(descriptors(), descriptors_before);
}

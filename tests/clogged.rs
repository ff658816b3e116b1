//! Sockets that take nothing more, because their clients do not read: whoever waits for one sleeps, and sends what is left as soon
//! as it takes more.
#![cfg(all(feature = "__tls", target_os = "linux"))]
mod common;

use std::{
    fs,
    io::{ErrorKind, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use common::{PATIENCE, Stream, TestServer, app, eventually, frame, handshake, is_too_slow, serve};
use rustix::net::{
    AddressFamily, SocketType, socket,
    sockopt::{set_socket_recv_buffer_size, set_socket_send_buffer_size},
};
use switchboard::{Hub, Limits, Pushed, ServerResult, WebSocket};

/// How long the server is watched.
const WATCHED: Duration = Duration::from_millis(600);

/// Nobody else measures meanwhile, nor is measured.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The processor time of all threads that serve connections, so far (proc(5), `schedstat`).
fn processor_time() -> Duration {
    let mut total = 0;
    for task in fs::read_dir("/proc/self/task").unwrap() {
        let folder = task.unwrap().path();
        let read = |name| fs::read_to_string(folder.join(name)).unwrap_or_default(); // it may have ended
        if read("comm").starts_with("switchboard-con") {
            let spent = read("schedstat");
            total += spent.split(' ').next().and_then(|spent| spent.parse().ok()).unwrap_or(0);
        }
    }
    Duration::from_nanos(total)
}

fn assert_sleeps() {
    let before = processor_time();
    thread::sleep(WATCHED);
    let spent = processor_time().saturating_sub(before);
    assert!(spent < WATCHED / 4, "{spent:?} of {WATCHED:?}");
}

/// A client's socket with a small buffer, so that the server's is soon full.
fn connect(address: SocketAddr) -> Stream {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    set_socket_recv_buffer_size(&socket, 4096).unwrap();
    rustix::net::connect(&socket, &address).unwrap();
    let tcp = TcpStream::from(socket);
    tcp.set_read_timeout(Some(PATIENCE)).unwrap();
    tcp.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut client = Stream::Plain(tcp);
    client.write_all(handshake("/").as_bytes()).unwrap();
    assert!(client.read_head().starts_with("HTTP/1.1 101 "));
    client
}

/// A server with a small send buffer. Its handler returns when the client has sent something.
fn serve_small() -> (TestServer, SocketAddr) {
    let mut limits = Limits::default();
    limits.close_timeout = PATIENCE;
    serve_small_with(limits, |ws| {
        ws.read_message(PATIENCE)?;
        Ok(())
    })
}

fn serve_small_with<F>(limits: Limits, handler: F) -> (TestServer, SocketAddr)
where
    F: Fn(&mut WebSocket) -> ServerResult + Clone + Send + Sync + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    set_socket_send_buffer_size(&listener, 4096).unwrap();
    let address = listener.local_addr().unwrap();
    let server =
        serve(|builder| builder.limits(limits).listener(listener).route("/", move || app(handler.clone())));
    (server, address)
}

fn queued(hub: &Hub) -> usize {
    common::connections(hub).iter().map(|info| info.queued).sum()
}

/// A message that takes more than one piece of a small buffer.
const MESSAGE: [u8; 100] = [b'x'; 100];

/// Pushes until the socket takes nothing more, or so many. Returns how many it took, each whole.
fn push(server: &TestServer, max: usize) -> usize {
    let id = common::connections(&server.hub)[0].id;
    for taken in 0..max {
        let _ = server.hub.push(&id, &MESSAGE[..]).unwrap();
        // The client's system may acknowledge later what came before, or the server be late on a busy machine.
        let begun = Instant::now();
        while queued(&server.hub) > 0 {
            if begun.elapsed() > Duration::from_millis(2500) {
                return taken;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
    max
}

/// A client that was sent so much that its socket takes nothing more, but nothing that was refused; then the handler returns.
/// `None`: the close frame is not the first thing that waits.
fn fill_and_return(server: &TestServer, address: SocketAddr, room: usize) -> Option<Stream> {
    let mut client = connect(address);
    if push(server, room) < room {
        client.reset();
        return None;
    }
    client.write_all(&frame(0x81, b"return")).unwrap();
    for _ in 0..100 {
        thread::sleep(Duration::from_millis(10));
        if queued(&server.hub) == 4 {
            return Some(client);
        }
    }
    client.reset();
    None
}

#[test]
fn a_close_frame_that_is_the_first_to_be_refused_is_sent_as_soon_as_the_client_reads() {
    let _alone = alone();
    let (server, address) = serve_small();
    // The first message that is refused tells about how many there is room for: it is not always quite the same.
    let client = connect(address);
    let room = push(&server, 10_000);
    client.reset();
    let rooms = (0..8).flat_map(|less| [room - less, room - less]);
    let filled = rooms.into_iter().find_map(|room| {
        eventually("the last one is gone", || server.hub.is_empty().unwrap());
        Some((fill_and_return(&server, address, room)?, room))
    });
    let (mut client, taken) = filled.expect("the close frame is never the first to wait");
    assert_sleeps();
    for _ in 0..taken {
        assert_eq!(client.read_frame(), (0x82, MESSAGE.to_vec()));
    }
    assert_eq!(client.answer_close_and_end().0, 1000);
}

#[test]
fn a_read_that_has_to_wait_until_pongs_are_taken_sleeps_and_then_goes_on() {
    let _alone = alone();
    let (server, address) = serve_small();
    let mut client = connect(address);
    let ping = frame(0x89, &[b'p'; 125]);
    // When a send times out, the server receives nothing more, since its pongs are not taken.
    let mut sending = client.tcp().try_clone().unwrap();
    sending.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let (mut sent, mut rest) = (0, Vec::new());
    loop {
        if rest.is_empty() {
            rest = ping.repeat(100);
            sent += 100;
        }
        match sending.write(&rest) {
            Ok(n) => drop(rest.drain(..n)),
            Err(e) if e.kind() == ErrorKind::WouldBlock => break,
            Err(e) => panic!("{e}"),
        }
    }
    eventually("pongs wait", || queued(&server.hub) > 0);
    assert_sleeps();
    sending.set_write_timeout(Some(PATIENCE)).unwrap();
    rest.extend(frame(0x81, b"return"));
    let sender = thread::spawn(move || sending.write_all(&rest).unwrap());
    for _ in 0..sent {
        assert_eq!(client.read_frame(), (0x8a, vec![b'p'; 125]));
    }
    sender.join().unwrap();
    assert_eq!(client.answer_close_and_end().0, 1000);
}

/// What was pushed before is in the way, and then the message's own bytes are.
#[test]
fn a_write_takes_no_longer_than_its_timeout_whatever_it_waits_for() {
    let timeout = Duration::from_secs(6);
    let mut limits = Limits::default();
    limits.write_timeout = timeout;
    let ((counted, counts), (told, times)) = (mpsc::channel(), mpsc::channel());
    let (_server, address) = serve_small_with(limits, move |ws| {
        let (hub, mut count) = (ws.hub(), 1);
        while hub.push(ws.websocket_id(), &MESSAGE[..])? != Pushed::Queued {
            count += 1;
        }
        counted.send(count)?;
        let begun = Instant::now();
        let result = ws.write(vec![0; 900_000]);
        told.send((begun.elapsed(), result.unwrap_err()))?;
        Ok(())
    });
    let mut client = connect(address);
    let pushed: usize = counts.recv_timeout(PATIENCE).unwrap();
    thread::sleep(timeout / 2);
    (0..pushed).for_each(|_| drop(client.read_frame()));
    let (elapsed, error) = times.recv_timeout(PATIENCE).unwrap();
    assert!(is_too_slow(&error) && (timeout..timeout * 7 / 5).contains(&elapsed), "{error} {elapsed:?}");
}

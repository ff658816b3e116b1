#![cfg(feature = "tls")]
//! What some clients do does not stop others: under each flood, on each kind of connection, others get their answers.
//!
//! `benches/floods.rs` has figures. Here the bound is wide enough for an unoptimized build on a busy machine, and still a small
//! part of what it took when a turn of the gateway had no bound.

mod common;

use std::{
    io::{ErrorKind::WouldBlock, Read, Write},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use common::{
    Client, SCHEMES, Scheme, Stream, TestServer, eventually,
    floods::{Flood, floods},
    handshake, serve,
};
use switchboard::{
    Compression, Handled, Limits, Message, Opening, Refusal, ServerResult, WebSocket, WebSocketServer,
};
use tungstenite::Message as Sent;

/// So many round trips of each of the others...
const TRIPS: usize = 10;

/// ...take less than this.
const BOUND: Duration = Duration::from_secs(5);

/// There are more of them if that was quick: in this time the gateway looks at busy threads three times.
const LEAST: Duration = Duration::from_millis(300);

const DEDICATED: Compression = Compression::Dedicated { window_bits: 15, level: 6 };

/// `/kind/compression`, with `/echo` behind it where messages are answered.
#[derive(Default)]
struct App {
    kind: String,
    echo: bool,
}

impl WebSocketServer for App {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        let path = opening.request().path().to_owned();
        let mut parts = path.split('/').skip(1);
        self.kind = parts.next().unwrap().into();
        opening.set_compression(match parts.next().unwrap() {
            "pooled" => Compression::Pooled,
            "dedicated" => DEDICATED,
            _ => Compression::Off,
        });
        self.echo = parts.next().is_some();
        opening.set_shared_connection(self.kind == "parked");
        Ok(())
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        match &*self.kind {
            "parked" => {}
            // It does not read, and the gateway receives in its place.
            "busy" => {
                while ws.close_reason().is_none() {
                    thread::sleep(Duration::from_millis(20));
                }
            }
            _ => {
                for message in ws.messages() {
                    if self.echo {
                        ws.write(message)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        if self.echo {
            let _ = ws.write(message);
        }
        Handled::Yes
    }
}

/// Floods one server after the other over connections of this kind: with and without TLS in turn, and with workers and without.
fn others_are_answered(kind: &str) {
    // One at a time: the others would be a flood, too.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut limits = Limits::default();
    // The gateway looks at busy threads ten times as often.
    limits.ping_timeout = Duration::from_millis(400);
    limits.ping_interval = None;
    let compressions = |flood: &Flood| if flood.compressed { &["pooled", "dedicated"][..] } else { &["off"] };
    let cells = floods().into_iter().flat_map(|flood| {
        let these = compressions(&flood).iter();
        these.map(|compression| (flood.clone(), *compression)).collect::<Vec<_>>()
    });
    for (n, (flood, compression)) in cells.enumerate() {
        let scheme = SCHEMES[n % 2];
        limits.workers = n / 2 % 2 * 2;
        let server = serve(|builder| builder.limits(limits.clone()).route("/*", App::default));
        let name = format!("{} on {kind}, {compression}, {scheme:?}", flood.name);
        flood_and_ask(&server, scheme, &flood, kind, compression, &name);
    }
}

fn flood_and_ask(
    server: &TestServer,
    scheme: Scheme,
    flood: &Flood,
    kind: &str,
    compression: &str,
    name: &str,
) {
    let mut others = ["parked", "synchronous"]
        .map(|other| server.connect(scheme, &format!("/{other}/{compression}/echo")));
    let path = format!("/{kind}/{compression}{}", if flood.echo { "/echo" } else { "" });
    let streams: Vec<_> = (0..flood.clients).map(|_| open(server, scheme, &path)).collect();
    let (stop, taken) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let flooder = scope.spawn(|| keep_flooding(streams, flood, &stop, &taken));
        eventually("the flood has begun", || taken.load(SeqCst) > 200_000 || flooder.is_finished());
        let begun = Instant::now();
        let trips = others.iter_mut().map(|other| ask(other, begun)).collect::<Vec<_>>();
        stop.store(true, SeqCst);
        flooder.join().unwrap_or_else(|_| panic!("{name}: the flood was ended"));
        assert_eq!(trips, [TRIPS; 2], "{name}: so many round trips in {BOUND:?}");
    });
}

/// A connection after its opening handshake, that has offered compression.
fn open(server: &TestServer, scheme: Scheme, path: &str) -> Stream {
    let mut stream = server.raw(scheme);
    let request = handshake(path);
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    stream.write_all([request.trim_end(), "\r\n", offer].concat().as_bytes()).unwrap();
    let head = stream.read_head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream
}

/// How many round trips there are within the bound.
fn ask(client: &mut Client, begun: Instant) -> usize {
    let mut trip = 0;
    while trip < TRIPS || begun.elapsed() < LEAST {
        let message = Sent::text(trip.to_string());
        // It is an error if there is no answer for long.
        let is_answered =
            client.send(message.clone()).is_ok() && client.read().is_ok_and(|read| read == message);
        if !is_answered || begun.elapsed() > BOUND {
            return trip.min(TRIPS - 1);
        }
        trip += 1;
    }
    TRIPS
}

fn keep_flooding(mut streams: Vec<Stream>, flood: &Flood, stop: &AtomicBool, taken: &AtomicUsize) {
    for stream in &mut streams {
        stream.write_all(&flood.begin).unwrap();
        stream.tcp().set_nonblocking(true).unwrap();
    }
    let mut at = vec![0; streams.len()];
    let mut buffer = vec![0; 64 * 1024];
    while !stop.load(SeqCst) {
        let mut is_idle = true;
        for (stream, at) in streams.iter_mut().zip(&mut at) {
            match stream.write(&flood.cycle[*at..flood.cycle.len().min(*at + buffer.len())]) {
                Ok(n) => {
                    *at = (*at + n) % flood.cycle.len();
                    taken.fetch_add(n, SeqCst);
                    is_idle = false;
                }
                Err(e) => assert_eq!(e.kind(), WouldBlock),
            }
            match stream.read(&mut buffer) {
                Ok(n) => assert!(n > 0),
                Err(e) => assert_eq!(e.kind(), WouldBlock),
            }
        }
        if is_idle {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn floods_on_parked_connections() {
    others_are_answered("parked");
}

#[test]
fn floods_on_synchronous_connections() {
    others_are_answered("synchronous");
}

#[test]
fn floods_on_connections_whose_threads_are_busy() {
    others_are_answered("busy");
}

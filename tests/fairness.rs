#![cfg(feature = "__tls")]
//! What some clients do does not stop others: under each flood, on each kind of connection, others get their answers.
//!
//! `benches/floods.rs` has figures. Here the bound is wide enough for an unoptimized build on a busy machine, and still a small
//! part of what it took when a turn of the gateway had no bound.

mod common;

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use common::{
    Client, SCHEMES, Scheme, TestServer, eventually,
    floods::{App, Flood, floods},
    serve,
};
use switchboard::Limits;
use tungstenite::Message as Sent;

/// So many round trips of each of the others...
const TRIPS: usize = 10;

/// ...take less than this.
const BOUND: Duration = Duration::from_secs(5);

/// There are more of them if that was quick: in this time the gateway looks at busy threads three times.
const LEAST: Duration = Duration::from_millis(300);

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
    let mut streams = flood.connect(server, scheme, kind, compression);
    let (stop, taken) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let flooder = scope.spawn(|| flood.run(&mut streams, Duration::from_millis(1), &stop, &taken));
        eventually("the flood has begun", || taken.load(SeqCst) > 200_000 || flooder.is_finished());
        let begun = Instant::now();
        let trips = others.iter_mut().map(|other| ask(other, begun)).collect::<Vec<_>>();
        stop.store(true, SeqCst);
        flooder.join().unwrap_or_else(|_| panic!("{name}: the flood was ended"));
        assert_eq!(trips, [TRIPS; 2], "{name}: so many round trips in {BOUND:?}");
    });
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

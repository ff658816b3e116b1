//! What floods of some clients do to the round trips of others: `cargo bench --bench floods`, with the seconds for each cell and
//! a part of the floods' names, if wanted: `cargo bench --bench floods -- 3 ping`.
//!
//! Server and clients share one process and its processors, as on the smallest machines. While one thread floods over all its
//! connections, as fast as they take it, four clients send 100 bytes each millisecond: two on parked connections, two on
//! synchronous ones.

use std::{
    io::{self, Write},
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use self::common::{
    SCHEMES, Scheme, Stream, TestServer, eventually,
    floods::{App, COMPRESSIONS, Flood, floods, open},
    frame, serve,
};

#[path = "../tests/common/mod.rs"]
mod common;

/// What the flooding clients are connected to.
const KINDS: [&str; 3] = ["parked", "synchronous", "busy"];

struct Cell<'a> {
    flood: &'a Flood,
    kind: &'static str,
    compression: &'static str,
    server: &'a TestServer,
    scheme: Scheme,
    time: Duration,
}

impl Cell<'_> {
    /// The round trips of those on parked and on synchronous connections, and the bytes that the flood got rid of.
    fn run(&self) -> ([Vec<Duration>; 2], usize) {
        let stop = Arc::new(AtomicBool::new(false));
        let go = Arc::new(Barrier::new(6));
        let victims = ["parked", "parked", "synchronous", "synchronous"].map(|kind| {
            let stream = open(self.server, self.scheme, &format!("/{kind}/{}/echo", self.compression));
            let (stop, go) = (stop.clone(), go.clone());
            thread::spawn(move || victim(stream, &go, &stop))
        });
        let mut streams = self.flood.connect(self.server, self.scheme, self.kind, self.compression);
        let taken = AtomicUsize::new(0);
        let [a, b, c, d] = thread::scope(|scope| {
            let flooder = scope.spawn(|| {
                go.wait();
                self.flood.run(&mut streams, Duration::from_micros(200), &stop, &taken);
            });
            go.wait();
            thread::sleep(self.time);
            stop.store(true, SeqCst);
            flooder.join().expect("the flood was not ended");
            victims.map(|victim| victim.join().expect("no panic"))
        });
        // Or what lies in the sockets would keep the connections.
        streams.into_iter().for_each(Stream::reset);
        ([[a, b].concat(), [c, d].concat()], taken.into_inner())
    }
}

fn victim(mut stream: Stream, go: &Barrier, stop: &AtomicBool) -> Vec<Duration> {
    let message = frame(0x82, &[7; 100]);
    let mut times = Vec::new();
    go.wait();
    while !stop.load(SeqCst) {
        let begin = Instant::now();
        stream.write_all(&message).expect("an open connection");
        stream.read_frame();
        times.push(begin.elapsed());
        thread::sleep(Duration::from_millis(1));
    }
    times
}

/// The middle and the 99th of a hundred, in milliseconds.
fn figures(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)].as_secs_f64() * 1000.0;
    format!("{:.1} / {:.1}", at(50), at(99))
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let seconds = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(1.0);
    let names: Vec<_> = arguments.iter().filter(|argument| argument.parse::<f64>().is_err()).collect();
    let server = serve(|builder| builder.route("/*", App::default));
    println!(
        "| flood | by | on | compression | ws: parked | ws: synchronous | MB/s | wss: parked | wss: synchronous | MB/s |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for flood in floods() {
        if !names.is_empty() && !names.iter().any(|name| flood.name.contains(&**name)) {
            continue;
        }
        for kind in KINDS {
            for (compression, _) in COMPRESSIONS {
                if flood.compressed == (compression == "off") {
                    continue;
                }
                print!("| {} | {} | {kind} | {compression} ", flood.name, flood.clients);
                for scheme in SCHEMES {
                    let time = Duration::from_secs_f64(seconds);
                    let ([mut parked, mut synchronous], taken) =
                        Cell { flood: &flood, kind, compression, server: &server, scheme, time }.run();
                    // What it left in sockets is nobody else's.
                    eventually("they are gone", || server.handle.connections() == 0);
                    let rate = taken as f64 / 1e6 / seconds;
                    print!("| {} | {} | {rate:.0} ", figures(&mut parked), figures(&mut synchronous));
                    let _ = io::stdout().flush();
                }
                println!("|");
            }
        }
    }
}

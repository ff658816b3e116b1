//! What floods of some clients do to the round trips of others: `cargo bench --bench floods`, with the seconds for each cell and
//! a part of the floods' names, if wanted: `cargo bench --bench floods -- 3 ping`.
//!
//! Server and clients share one process and its processors, as on the smallest machines. While one thread floods over all its
//! connections, as fast as they take it, four clients send 100 bytes each millisecond: two on parked connections, two on
//! synchronous ones.

use std::{
    io::{self, ErrorKind::WouldBlock, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc, Barrier, OnceLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use native_tls::{Certificate, TlsConnector, TlsStream};
use rustix::net::sockopt::set_socket_linger;
use switchboard::{
    Compression, Handled, Message, Opening, Refusal, Server, ServerResult, TlsIdentity, WebSocket,
    WebSocketServer,
};

use self::floods::{Flood, floods, frame};

#[path = "../tests/common/floods.rs"]
mod floods;

const COMPRESSIONS: [(&str, Compression); 3] = [
    ("off", Compression::Off),
    ("pooled", Compression::Pooled),
    ("dedicated", Compression::Dedicated { window_bits: 15, level: 6 }),
];

/// What the flooding clients are connected to.
const KINDS: [&str; 3] = ["parked", "synchronous", "busy"];

/// No wait takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the path says: `/kind/compression`, with `/echo` behind it where messages are answered.
#[derive(Default)]
struct App {
    kind: String,
    echo: bool,
}

impl WebSocketServer for App {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        let path = opening.request().path().to_owned();
        let mut parts = path.split('/').skip(1).map(str::to_owned);
        self.kind = parts.next().unwrap_or_default();
        let name = parts.next().unwrap_or_default();
        self.echo = parts.next().is_some();
        if let Some((_, compression)) = COMPRESSIONS.iter().find(|(known, _)| *known == name) {
            opening.set_compression(*compression);
        }
        opening.set_shared_connection(self.kind == "parked");
        Ok(())
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        match &*self.kind {
            "synchronous" => {
                for message in ws.messages() {
                    if self.echo {
                        ws.write(message)?;
                    }
                }
            }
            // It does not read, and the gateway receives in its place.
            "busy" => {
                while ws.close_reason().is_none() {
                    thread::sleep(Duration::from_millis(20));
                }
            }
            _ => {}
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

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn open(address: SocketAddr, tls: bool, path: &str) -> Self {
        let tcp = TcpStream::connect(address).expect("a server");
        tcp.set_nodelay(true).expect("an open socket");
        tcp.set_read_timeout(Some(PATIENCE)).expect("an open socket");
        let mut stream = if tls {
            Self::Tls(Box::new(connector().connect("localhost", tcp).expect("a TLS handshake")))
        } else {
            Self::Plain(tcp)
        };
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("an open connection");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("a response");
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        stream
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref(),
        }
    }

    fn read_frame(&mut self) {
        let mut header = [0; 2];
        self.read_exact(&mut header).expect("an answer");
        let mut payload = vec![0; usize::from(header[1])];
        self.read_exact(&mut payload).expect("the rest of it");
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(buffer),
            Self::Tls(tls) => tls.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

/// Knows the test CA, and nothing else. To make one takes longer than a handshake.
fn connector() -> &'static TlsConnector {
    static CONNECTOR: OnceLock<TlsConnector> = OnceLock::new();
    CONNECTOR.get_or_init(|| {
        let ca = std::fs::read("certs/ca.pem").expect("a file");
        let ca = Certificate::from_pem(&ca).expect("a certificate");
        TlsConnector::builder().disable_built_in_roots(true).add_root_certificate(ca).build().expect("TLS")
    })
}

struct Cell<'a> {
    flood: &'a Flood,
    kind: &'static str,
    compression: &'static str,
    address: SocketAddr,
    tls: bool,
    time: Duration,
}

impl Cell<'_> {
    /// The round trips of those on parked and on synchronous connections, and the bytes that the flood got rid of.
    fn run(&self) -> ([Vec<Duration>; 2], usize) {
        let stop = Arc::new(AtomicBool::new(false));
        let go = Arc::new(Barrier::new(6));
        let victims = ["parked", "parked", "synchronous", "synchronous"].map(|kind| {
            let path = format!("/{kind}/{}/echo", self.compression);
            let stream = Stream::open(self.address, self.tls, &path);
            let (stop, go) = (stop.clone(), go.clone());
            thread::spawn(move || victim(stream, &go, &stop))
        });
        let path =
            format!("/{}/{}{}", self.kind, self.compression, if self.flood.echo { "/echo" } else { "" });
        let open = || Stream::open(self.address, self.tls, &path);
        let streams: Vec<_> = (0..self.flood.clients).map(|_| open()).collect();
        let (taken, [a, b, c, d]) = thread::scope(|scope| {
            let flooder = scope.spawn(|| flood(streams, self.flood, &go, &stop));
            go.wait();
            thread::sleep(self.time);
            stop.store(true, Relaxed);
            (flooder.join().expect("no panic"), victims.map(|victim| victim.join().expect("no panic")))
        });
        ([[a, b].concat(), [c, d].concat()], taken)
    }
}

fn victim(mut stream: Stream, go: &Barrier, stop: &AtomicBool) -> Vec<Duration> {
    let message = frame(0x82, &[7; 100]);
    let mut times = Vec::new();
    go.wait();
    while !stop.load(Relaxed) {
        let begin = Instant::now();
        stream.write_all(&message).expect("an open connection");
        stream.read_frame();
        times.push(begin.elapsed());
        thread::sleep(Duration::from_millis(1));
    }
    times
}

/// Floods over all of them until it is to stop.
fn flood(mut streams: Vec<Stream>, flood: &Flood, go: &Barrier, stop: &AtomicBool) -> usize {
    for stream in &mut streams {
        stream.write_all(&flood.begin).expect("an open connection");
        stream.tcp().set_nonblocking(true).expect("an open socket");
    }
    let mut at = vec![0; streams.len()];
    let (mut taken, mut buffer) = (0, vec![0; 64 * 1024]);
    go.wait();
    while !stop.load(Relaxed) {
        let mut is_idle = true;
        for (stream, at) in streams.iter_mut().zip(&mut at) {
            let end = flood.cycle.len().min(*at + 64 * 1024);
            match stream.write(&flood.cycle[*at..end]) {
                Ok(n) => {
                    *at = (*at + n) % flood.cycle.len();
                    taken += n;
                    is_idle = false;
                }
                Err(e) if e.kind() == WouldBlock => {}
                Err(e) => panic!("the flood was ended: {e}"),
            }
            match stream.read(&mut buffer) {
                Ok(n) => assert!(n > 0, "the flood was ended"),
                Err(e) => assert_eq!(e.kind(), WouldBlock, "the flood was ended"),
            }
        }
        if is_idle {
            thread::sleep(Duration::from_micros(200));
        }
    }
    for stream in &streams {
        // With a reset, or what lies in the sockets would keep the connections.
        let _ = set_socket_linger(stream.tcp(), Some(Duration::ZERO));
    }
    taken
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
    let identity =
        TlsIdentity::from_pem_files("certs/server.pem", "certs/server.key").expect("a certificate");
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .listen_tls("127.0.0.1:0", identity)
        .route("/*", App::default)
        .bind()
        .expect("two ports");
    let addresses: Vec<_> = server.local_addrs().iter().map(|address| address.tcp().expect("TCP")).collect();
    let (handle, running) = (server.handle(), thread::spawn(move || server.run()));
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
                for tls in [false, true] {
                    let time = Duration::from_secs_f64(seconds);
                    let address = addresses[usize::from(tls)];
                    let ([mut parked, mut synchronous], taken) =
                        Cell { flood: &flood, kind, compression, address, tls, time }.run();
                    while handle.connections() > 0 {
                        thread::sleep(Duration::from_millis(5)); // what it left in sockets is nobody else's
                    }
                    let rate = taken as f64 / 1e6 / seconds;
                    print!("| {} | {} | {rate:.0} ", figures(&mut parked), figures(&mut synchronous));
                    let _ = io::stdout().flush();
                }
                println!("|");
            }
        }
    }
    handle.shutdown(Duration::ZERO);
    running.join().expect("no panic").expect("an orderly end");
}

//! What a client may flood a server with: for `tests/fairness.rs` and `benches/floods.rs`.
#![allow(dead_code, unreachable_pub, reason = "each test file is a crate of its own and uses what it needs")]

use std::{
    io::{ErrorKind::WouldBlock, Read, Write},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    thread,
    time::Duration,
};

use flate2::{Compress, FlushCompress};
use switchboard::{
    Compression, Handled, Message, Opening, Refusal, ServerResult, WebSocket, WebSocketServer,
};

use super::{Scheme, Stream, TestServer, frame, handshake};

/// By the names that a path has for them.
pub const COMPRESSIONS: [(&str, Compression); 3] = [
    ("off", Compression::Off),
    ("pooled", Compression::Pooled),
    ("dedicated", Compression::Dedicated { window_bits: 15, level: 6 }),
];

/// A flood, and how many clients make it.
#[derive(Clone, Debug)]
pub struct Flood {
    pub name: &'static str,
    pub clients: usize,
    /// It needs permessage-deflate.
    pub compressed: bool,
    /// The server answers each message.
    pub echo: bool,
    /// Sent once.
    pub begin: Vec<u8>,
    /// Sent again and again.
    pub cycle: Vec<u8>,
}

/// Roughly so many bytes in a cycle.
const CYCLE: usize = 64 * 1024;

pub fn floods() -> Vec<Flood> {
    let one_byte = b"x";
    vec![
        Flood { begin: frame(0x01, b""), ..plain("empty continuations", 100, frame(0x00, b"")) },
        plain("pings", 10, frame(0x89, b"")),
        plain("long pings", 10, frame(0x89, &[b'x'; 125])),
        plain("pongs", 10, frame(0x8a, b"")),
        plain("one-byte fragments", 10, fragments(one_byte, 60_000)),
        plain("one-byte messages", 10, frame(0x82, one_byte)),
        Flood { echo: true, ..plain("one-byte texts, echoed", 10, frame(0x81, one_byte)) },
        plain("frames of 64 KiB", 1, frame(0x82, &[b'x'; 64 * 1024])),
        Flood { echo: true, ..plain("frames of 64 KiB, echoed", 1, frame(0x82, &[b'x'; 64 * 1024])) },
        blocks("empty final blocks", &[3, 0]),
        blocks("empty stored final blocks", &[1, 0, 0, 0xff, 0xff]),
        // The letter a, once in each block.
        blocks("final blocks of one byte", &[0x4b, 4, 0]),
        compressed("empty compressed messages", 20, frame(0xc2, &[3, 0])),
        compressed("a mebibyte of zeros, compressed", 10, frame(0xc2, &deflated(&vec![0; 1 << 20]))),
    ]
}

fn plain(name: &'static str, clients: usize, unit: Vec<u8>) -> Flood {
    let cycle = unit.repeat((CYCLE / unit.len()).max(1));
    Flood { name, clients, compressed: false, echo: false, begin: Vec::new(), cycle }
}

fn compressed(name: &'static str, clients: usize, unit: Vec<u8>) -> Flood {
    // What later messages may refer to, where there is context takeover.
    let noise: Vec<u8> = (0..40_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    Flood { compressed: true, begin: frame(0xc2, &deflated(&noise)), ..plain(name, clients, unit) }
}

/// Messages that consist of this block of deflate, again and again.
fn blocks(name: &'static str, block: &[u8]) -> Flood {
    compressed(name, 20, frame(0xc2, &block.repeat(900_000 / block.len())))
}

fn fragments(payload: &[u8], count: usize) -> Vec<u8> {
    let (first, next, last) = (frame(0x02, payload), frame(0x00, payload), frame(0x80, b""));
    [first, next.repeat(count), last].concat()
}

fn deflated(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 1024);
    let mut compress = Compress::new(flate2::Compression::new(6), false);
    compress.compress_vec(payload, &mut out, FlushCompress::Sync).unwrap();
    out.truncate(out.len() - 4);
    out
}

/// What is flooded. The path says what it is: `/kind/compression`, with `/echo` behind it where messages are answered.
#[derive(Default)]
pub struct App {
    kind: String,
    echo: bool,
}

impl WebSocketServer for App {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        let path = opening.request().path().to_owned();
        let mut parts = path.split('/').skip(1);
        self.kind = parts.next().unwrap().into();
        let compression = parts.next().unwrap();
        self.echo = parts.next().is_some();
        let (_, compression) = COMPRESSIONS.iter().find(|(name, _)| *name == compression).unwrap();
        opening.set_compression(*compression);
        opening.set_shared_connection(self.kind == "parked");
        Ok(())
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        match &*self.kind {
            "parked" => {}
            // It does not read, and the gateway receives in its place: so nothing tells it of the end.
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

impl Flood {
    /// The clients that flood connections of this kind, each after its opening handshake.
    pub fn connect(&self, server: &TestServer, scheme: Scheme, kind: &str, compression: &str) -> Vec<Stream> {
        let path = format!("/{kind}/{compression}{}", if self.echo { "/echo" } else { "" });
        (0..self.clients).map(|_| open(server, scheme, &path)).collect()
    }

    /// Floods over all of them until it is to stop, as fast as they take it, and throws away what comes back. `pause`: how long
    /// nobody takes anything before the next try.
    pub fn run(&self, streams: &mut [Stream], pause: Duration, stop: &AtomicBool, taken: &AtomicUsize) {
        for stream in &mut *streams {
            stream.write_all(&self.begin).unwrap();
            stream.tcp().set_nonblocking(true).unwrap();
        }
        let mut at = vec![0; streams.len()];
        let mut buffer = vec![0; 64 * 1024];
        while !stop.load(SeqCst) {
            let mut is_idle = true;
            for (stream, at) in streams.iter_mut().zip(&mut at) {
                match stream.write(&self.cycle[*at..self.cycle.len().min(*at + buffer.len())]) {
                    Ok(n) => {
                        *at = (*at + n) % self.cycle.len();
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
                thread::sleep(pause);
            }
        }
    }
}

/// A connection after its opening handshake, that has offered compression.
pub fn open(server: &TestServer, scheme: Scheme, path: &str) -> Stream {
    let mut stream = server.raw(scheme);
    let request = handshake(path);
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    stream.write_all([request.trim_end(), "\r\n", offer].concat().as_bytes()).unwrap();
    let head = stream.read_head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream
}

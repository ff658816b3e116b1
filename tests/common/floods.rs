//! What a client may flood a server with: for `tests/fairness.rs` and `benches/floods.rs`.
#![allow(dead_code, unreachable_pub, reason = "each test file is a crate of its own and uses what it needs")]

use flate2::{Compress, Compression, FlushCompress};

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
    let mut compress = Compress::new(Compression::new(6), false);
    compress.compress_vec(payload, &mut out, FlushCompress::Sync).unwrap();
    out.truncate(out.len() - 4);
    out
}

/// One frame of a client, masked.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        n @ ..126 => bytes.push(0x80 | n as u8),
        n @ ..65536 => {
            bytes.push(0x80 | 126);
            bytes.extend((n as u16).to_be_bytes());
        }
        n => {
            bytes.push(0x80 | 127);
            bytes.extend((n as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().enumerate().map(|(i, b)| b ^ MASK[i % 4]));
    bytes
}

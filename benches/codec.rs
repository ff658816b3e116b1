//! The codec over memory, without a socket: `cargo bench --features __bench --bench codec`.

use std::{
    collections::VecDeque,
    hint::black_box,
    io::{self, Read, Write},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use native_tls::{HandshakeError, TlsConnector, TlsStream};
use switchboard::{
    Compression, Message, TlsIdentity,
    benching::{Bench, remove_mask},
};
use tungstenite::protocol::frame::{
    Frame,
    coding::{Data, OpCode},
};

/// One message is short, the other is what fits a receive buffer.
const SIZES: [usize; 2] = [64, 16 * 1024];

const DEDICATED: Compression = Compression::Dedicated { window_bits: 15, level: 6 };

/// Text that compresses to about a third.
fn payload(size: usize) -> Vec<u8> {
    let words =
        (0..).map(|n: u64| format!("{{\"id\":{},\"value\":{}}},", n, n.wrapping_mul(2_654_435_761) % 9_973));
    words.flat_map(String::into_bytes).take(size).collect()
}

/// Masked frames, as a client sends them.
fn frames(payload: &[u8], count: usize, compressed: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..count {
        let mut frame = Frame::message(payload.to_vec(), OpCode::Data(Data::Binary), true);
        frame.header_mut().mask = Some([0x12, 0x34, 0x56, 0x78]);
        frame.header_mut().rsv1 = compressed;
        frame.format(&mut bytes).expect("memory");
    }
    bytes
}

fn plain(c: &mut Criterion) {
    for size in SIZES {
        let payload = payload(size);
        let mut group = c.benchmark_group("plain");
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("mask", size), |bencher| {
            let mut bytes = payload.clone();
            bencher.iter(|| remove_mask(black_box(&mut bytes), [1, 2, 3, 4]));
        });
        group.bench_function(BenchmarkId::new("encode", size), |bencher| {
            let (mut codec, message) = (Bench::plain(), Message::from(payload.clone()));
            bencher.iter(|| {
                codec.send(message.clone());
                codec.sent(|part| _ = black_box(part))
            });
        });
        for count in [1, 16] {
            group.throughput(Throughput::Bytes((size * count) as u64));
            group.bench_function(BenchmarkId::new(format!("decode {count} x"), size), |bencher| {
                let (mut codec, bytes) = (Bench::plain(), frames(&payload, count, false));
                bencher.iter(|| assert_eq!(codec.receive(&bytes), count));
            });
        }
        group.finish();
    }
}

fn deflate(c: &mut Criterion) {
    for (name, mode) in [("pooled", Compression::Pooled), ("dedicated", DEDICATED)] {
        let payload = payload(SIZES[1]);
        let mut group = c.benchmark_group("deflate");
        group.throughput(Throughput::Bytes(payload.len() as u64));
        let message = Message::from(payload);
        let mut compressed = Vec::new();
        let mut other = Bench::compressed(mode);
        other.send(message.clone());
        other.sent(|part| compressed.extend_from_slice(part));
        group.bench_function(BenchmarkId::new("decode", name), |bencher| {
            // The server's header has four bytes here: it becomes one of the client's.
            let (mut codec, bytes) = (Bench::compressed(mode), frames(&compressed[4..], 1, true));
            bencher.iter(|| assert_eq!(codec.receive(&bytes), 1));
        });
        group.bench_function(BenchmarkId::new("encode", name), |bencher| {
            let mut codec = Bench::compressed(mode);
            bencher.iter(|| {
                codec.send(message.clone());
                codec.sent(|part| _ = black_box(part))
            });
        });
        group.finish();
    }
}

/// The client's side of TLS, over memory.
#[derive(Default)]
struct Pipe {
    input: VecDeque<u8>,
    output: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.input.read(buffer) }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn connect() -> (Bench, TlsStream<Pipe>) {
    let identity = TlsIdentity::from_pem(
        include_bytes!("../certs/server.pem").as_slice(),
        include_bytes!("../certs/server.key").as_slice(),
    );
    let mut server = Bench::tls(&identity.expect("the certificates of the tests"));
    let connector = TlsConnector::builder().danger_accept_invalid_certs(true).build().expect("a connector");
    let mut result = connector.connect("localhost", Pipe::default());
    loop {
        match result {
            Ok(mut client) => {
                server.receive(&std::mem::take(&mut client.get_mut().output));
                return (server, client);
            }
            Err(HandshakeError::WouldBlock(mut half)) => {
                server.receive(&std::mem::take(&mut half.get_mut().output));
                server.sent(|part| half.get_mut().input.extend(part));
                result = half.handshake();
            }
            Err(HandshakeError::Failure(e)) => panic!("{e}"),
        }
    }
}

fn tls(c: &mut Criterion) {
    for size in SIZES {
        let payload = payload(size);
        let mut group = c.benchmark_group("tls");
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(BenchmarkId::new("encode", size), |bencher| {
            let ((mut codec, _client), message) = (connect(), Message::from(payload.clone()));
            bencher.iter(|| {
                codec.send(message.clone());
                codec.sent(|part| _ = black_box(part))
            });
        });
        group.bench_function(BenchmarkId::new("encrypt and decode", size), |bencher| {
            let ((mut codec, mut client), bytes) = (connect(), frames(&payload, 1, false));
            bencher.iter(|| {
                client.write_all(&bytes).expect("memory");
                let sealed = std::mem::take(&mut client.get_mut().output);
                assert_eq!(codec.receive(&sealed), 1);
            });
        });
        group.finish();
    }
}

criterion_group!(benches, plain, deflate, tls);
criterion_main!(benches);

//! What connections take while they wait, each after one message there and back.

use std::{
    io::{Read, Write},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};

use super::{
    Measurement, Options,
    client::{self, Dialer, Received, Stream},
};
use crate::system::{cpu_us, memory};

/// For a server to put away what it needed for the handshakes.
const SETTLE: Duration = Duration::from_millis(500);

pub(super) fn run(options: &Options) -> Result<Measurement> {
    let pid = options.pid.context("idle needs --pid")?;
    let (kib_before, threads_before) = memory(pid)?;
    let mut streams = Dialer::new(options)?.open_all(options.conns)?;
    let payload = client::payload(options.size);
    let frame = client::frame(&payload);
    for (i, stream) in streams.iter_mut().enumerate() {
        echo(stream, &frame, &payload).with_context(|| format!("connection {}", i + 1))?;
    }
    thread::sleep(SETTLE);
    let (kib, threads) = memory(pid)?;
    let cpu = cpu_us(pid)?;
    thread::sleep(options.duration());
    let cpu = cpu_us(pid)? - cpu;
    Ok(Measurement {
        connections: options.conns,
        resident_mib: Some(kib as f64 / 1024.0),
        kib_each: Some(kib.saturating_sub(kib_before) as f64 / options.conns as f64),
        threads: Some(threads.saturating_sub(threads_before)),
        idle_cpu_percent: Some(cpu / options.secs / 1e4),
        ..Measurement::default()
    })
}

fn echo(stream: &mut Stream, frame: &[u8], payload: &[u8]) -> Result<()> {
    stream.write_all(frame)?;
    let (mut bytes, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let received = stream.read(&mut buffer).context("no echo")?;
        ensure!(received > 0, "closed by the server");
        bytes.extend_from_slice(&buffer[..received]);
        if let Some(Received::Message { payload: at, end }) = client::received(&bytes)? {
            ensure!(
                bytes[at..end] == *payload && bytes.len() == end,
                "another message came back than was sent"
            );
            return Ok(());
        }
    }
}

//! Opening handshakes, one after the other: what one client can have.

use std::time::Instant;

use anyhow::{Result, ensure};

use super::{Measurement, Options, client::Dialer, percentile};
use crate::system::cpu_us;

pub(super) fn run(options: &Options) -> Result<Measurement> {
    let dialer = Dialer::new(options)?;
    drop(dialer.open(0)?); // the first one finds nothing in any cache
    let cpu = options.pid.map(cpu_us).transpose()?;
    let (begun, mut latencies) = (Instant::now(), Vec::new());
    while begun.elapsed() < options.duration() {
        let dialled = Instant::now();
        let stream = dialer.open(0)?;
        latencies.push(dialled.elapsed().as_micros() as u32);
        drop(stream);
    }
    let elapsed = begun.elapsed().as_secs_f64();
    ensure!(!latencies.is_empty(), "no handshake ended in time");
    let count = latencies.len() as f64;
    let cpu = cpu.zip(options.pid.map(cpu_us).transpose()?).map(|(before, after)| after - before);
    Ok(Measurement {
        connections: 1,
        per_second: Some(count / elapsed),
        p50_us: percentile(&mut latencies, 0.5),
        p99_us: percentile(&mut latencies, 0.99),
        cpu_us_each: cpu.map(|cpu| cpu / count),
        ..Measurement::default()
    })
}

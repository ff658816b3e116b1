//! The load: one thread and epoll, so that it can be held on one core while the server under test is on another.
//!
//! It goes to this machine only, ends by itself, and checks what comes back: a server that drops, merges or corrupts
//! messages fails, and is not timed. It prints one JSON object.

mod client;
mod connect;
mod idle;
mod traffic;

use std::{net::SocketAddr, time::Duration};

use anyhow::Result;
use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::system;

#[derive(Args, Debug)]
pub(crate) struct Options {
    kind: Kind,
    /// ws://ADDRESS:PORT/PATH or wss://…, of this machine
    #[arg(value_parser = target)]
    url: Target,
    /// Connections at once (connect has one)
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = positive)]
    conns: usize,
    /// Messages of each connection on their way at once (echo)
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = positive)]
    inflight: usize,
    /// Bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = 64, value_parser = positive)]
    size: usize,
    /// How long to measure
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    secs: f64,
    /// The server's process, whose CPU time and memory are reported, too
    #[arg(long)]
    pid: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Kind {
    /// Each connection sends a message, and another one for each echo
    Echo,
    /// One connection sends a message, and the next one when all have it
    Fan,
    /// Connects again and again, with one connection at a time
    Connect,
    /// Many connections that send one message each and then wait
    Idle,
}

#[derive(Clone, Debug)]
struct Target {
    address: SocketAddr,
    path: String,
    tls: bool,
}

/// What was measured; what a load has not is `None`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Measurement {
    pub(crate) connections: usize,
    /// Messages that came back, or opening handshakes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p50_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99_us: Option<f64>,
    /// CPU time of the server for each of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_us_each: Option<f64>,
    /// Resident memory of the server in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resident_mib: Option<f64>,
    /// What the connections added, divided by them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kib_each: Option<f64>,
    /// Threads of the server that the connections added.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) threads: Option<u64>,
    /// CPU time of the server while nothing is sent, in per cent of a core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) idle_cpu_percent: Option<f64>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    system::raise_file_limit();
    let measured = match options.kind {
        Kind::Echo | Kind::Fan => traffic::run(options),
        Kind::Connect => connect::run(options),
        Kind::Idle => idle::run(options),
    }?;
    println!("{}", serde_json::to_string(&measured)?);
    Ok(())
}

impl Options {
    fn duration(&self) -> Duration {
        Duration::from_secs_f64(self.secs)
    }
}

fn target(url: &str) -> Result<Target, String> {
    let (tls, rest) = match (url.strip_prefix("ws://"), url.strip_prefix("wss://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return Err("it must begin with ws:// or wss://".into()),
    };
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    // Names are not looked up: their addresses might be elsewhere.
    let address = host.replace("localhost", "127.0.0.1").parse::<SocketAddr>();
    let address = address.map_err(|_| "no address and port in it, like 127.0.0.1:8080")?;
    if !address.ip().is_loopback() {
        return Err("only addresses of this machine are loaded, like 127.0.0.1".into());
    }
    Ok(Target { address, path: path.into(), tls })
}

pub(crate) fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=0x400_0000) => Ok(number),
        _ => Err("a number from 1 to 67108864".into()),
    }
}

pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number from 0.1 to 3600".into()),
    }
}

/// The latency in microseconds that so many (`share` of 1) did not exceed.
fn percentile(latencies: &mut [u32], share: f64) -> Option<f64> {
    let at = (latencies.len().checked_sub(1)? as f64 * share) as usize;
    Some(f64::from(*latencies.select_nth_unstable(at).1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let found = target("wss://127.0.0.1:1/a/b").unwrap();
        assert!((found.address.port(), found.path.as_str(), found.tls) == (1, "/a/b", true));
        assert_eq!(target("ws://localhost:80").unwrap().path, "/");
        for bad in ["http://127.0.0.1:1/", "ws://127.0.0.1/", "ws://example.com:80/", "ws://8.8.8.8:80/"] {
            assert!(target(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn percentiles() {
        let mut latencies: Vec<_> = (0..=100).rev().collect();
        assert_eq!(percentile(&mut latencies, 0.5), Some(50.0));
        assert_eq!(percentile(&mut latencies, 0.99), Some(99.0));
        assert_eq!(percentile(&mut [], 0.5), None);
    }
}

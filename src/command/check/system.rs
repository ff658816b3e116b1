//! What the machine has for it, and who started it.

use std::{env, fs, path::Path};

use rustix::process::{Resource, getrlimit};

use super::finding::{Finding, Level};
use crate::command::{args::Serve, wall_clock};

/// Threads beside those of connections.
const OTHER_THREADS: u64 = 16;

pub(super) fn look(args: &Serve) -> Vec<Finding> {
    let warn = |about, text: String| Finding::new(Level::Warning, about, &text);
    let mut findings: Vec<_> = wall_clock::warning().into_iter().map(|text| warn("clock", text)).collect();
    findings.extend(memory(args, total()).map(|text| warn("memory", text)));
    findings.extend(address_space(args, getrlimit(Resource::As).current).map(|text| warn("memory", text)));
    findings.extend(threads(args, getrlimit(Resource::Nproc).current).map(|text| warn("threads", text)));
    findings.extend(manager());
    findings
}

/// Bytes of memory that the machine has.
fn total() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn memory(args: &Serve, total: Option<u64>) -> Option<String> {
    let (buffers, total) = (args.max_buffered_bytes? as u64, total?);
    (buffers > total / 2).then(|| {
        format!(
            "--max-buffered-bytes lets buffers take {} MiB of the {} MiB that this machine has: with more than half of it, others are \
             ended, or this server is",
            buffers >> 20,
            total >> 20
        )
    })
}

/// Each connection that is not shared has a thread.
fn address_space(args: &Serve, limit: Option<u64>) -> Option<String> {
    let needed = u64::from(args.max_connections).saturating_mul(args.stack_size as u64);
    let limit = limit.filter(|limit| *limit < needed)?;
    Some(format!(
        "the limit on address space is {} MiB, and the stacks of {} connections can need {} MiB: lower --max-connections or \
         --stack-size, or raise the limit (ulimit -v, or LimitAS= of systemd)",
        limit >> 20,
        args.max_connections,
        needed >> 20
    ))
}

/// Root may have more.
fn threads(args: &Serve, limit: Option<u64>) -> Option<String> {
    let needed = u64::from(args.max_connections) + u64::from(args.workers) + OTHER_THREADS;
    let limit = limit.filter(|limit| *limit < needed && !rustix::process::geteuid().is_root())?;
    Some(format!(
        "the limit on threads is {limit}, and {} connections can need {needed}: lower --max-connections, or raise the limit (ulimit \
         -u, or LimitNPROC= of systemd)",
        args.max_connections
    ))
}

/// The service manager, if there is one.
fn manager() -> Option<Finding> {
    let socket = env::var("NOTIFY_SOCKET").ok().filter(|socket| !socket.is_empty())?;
    let is_there = !socket.starts_with('/') || Path::new(&socket).exists();
    Some(if is_there {
        Finding::new(Level::Ok, "unit", &format!("the service manager is told how it is, at {socket}"))
    } else {
        Finding::new(Level::Warning, "unit", &format!("NOTIFY_SOCKET is {socket}, which is not there"))
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        serve: Serve,
    }

    #[test]
    fn limits_that_are_too_low_are_told() {
        let parse = |args: &[&str]| Alone::parse_from([&["x"], args].concat()).serve;
        let args =
            parse(&["--max-connections", "1000", "--stack-size", "1M", "--max-buffered-bytes", "600M"]);
        assert!(memory(&args, Some(1 << 30)).unwrap().contains("600 MiB of the 1024 MiB"));
        assert_eq!(
            (memory(&args, Some(2 << 30)), memory(&args, None), memory(&parse(&[]), Some(1))),
            (None, None, None)
        );
        assert!(
            address_space(&args, Some(64 << 20))
                .unwrap()
                .contains("is 64 MiB, and the stacks of 1000 connections can need 1000")
        );
        assert_eq!((address_space(&args, Some(2 << 30)), address_space(&args, None)), (None, None));
        assert_eq!((threads(&args, Some(2000)), threads(&args, None)), (None, None));
    }
}

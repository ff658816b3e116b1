//! What the system knows of this process: by `/proc` on Linux; elsewhere little of it is known.

use std::{
    fs,
    sync::Mutex,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::{
    process::{Resource, getrlimit},
    time::{ClockId, clock_gettime},
};

use crate::sync::LockExt;

/// What the kernel counts in `/proc/self/stat`, on every platform of Rust's (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// A clock that differs by more seconds was set; what the kernel tells is rounded.
const SET: f64 = 2.0;

/// What it has at one moment. `None`: it is not known here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) threads: Option<u64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) virtual_bytes: Option<u64>,
}

impl Process {
    pub(super) fn now() -> Self {
        fs::read_to_string("/proc/self/status")
            .map_or_else(|_| Self::default(), |status| Self::parse(&status))
    }

    /// Of what `/proc/self/status` says (proc_pid_status(5)).
    fn parse(status: &str) -> Self {
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            line.trim().trim_end_matches(" kB").parse::<u64>().ok()
        };
        let bytes = |name| number(name).map(|kib| kib.saturating_mul(1024));
        Self { threads: number("Threads"), resident_bytes: bytes("VmRSS"), virtual_bytes: bytes("VmSize") }
    }
}

/// How long all its threads together have computed.
pub(super) fn cpu_time() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}

/// How many descriptors are open. Since Linux 6.2 the folder's size says it; to look at each takes a tenth of a second for 18,000.
pub(super) fn open_descriptors() -> Option<u64> {
    let folder = "/proc/self/fd";
    let known = fs::metadata(folder).ok()?.len();
    if known > 0 {
        return Some(known);
    }
    let all = fs::read_dir(folder).ok()?.count() as u64;
    Some(all.saturating_sub(1)) // without the one that this has needed
}

/// How many there may be; `None`: any number.
pub(super) fn max_descriptors() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// When it was started, in seconds since 1970. It stays the same, unless the system's clock is set.
pub(super) fn start_time() -> Option<f64> {
    static START: Mutex<Option<f64>> = Mutex::new(None);
    let read = |file| fs::read_to_string(file).ok();
    let started = started(&read("/proc/self/stat")?)?;
    let running: f64 = read("/proc/uptime")?.split(' ').next()?.parse().ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
    let found = now - (running - started);
    let mut start = START.locked();
    if start.is_none_or(|before| (before - found).abs() > SET) {
        *start = Some(found);
    }
    *start
}

/// How long the system was running then, in seconds: of `/proc/self/stat` (proc_pid_stat(5)), whose second field may have any
/// character in its brackets.
fn started(stat: &str) -> Option<f64> {
    let ticks: f64 = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()?;
    Some(ticks / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_files_say() {
        let status = "Name:\tThreads:\t7 kB\nVmSize:\t    2048 kB\nVmRSS:\t       3 kB\nThreads:\t12\n";
        let process = Process { threads: Some(12), resident_bytes: Some(3072), virtual_bytes: Some(2 << 20) };
        assert_eq!(Process::parse(status), process);
        assert_eq!(Process::parse("VmRSS:\tmuch kB\n"), Process::default());
        let stat = "17 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4250 20 21";
        assert_eq!(started(stat), Some(42.5));
        assert_eq!(started("17 (a) S 1"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_has_all_of_it() {
        let process = Process::now();
        assert!(process.threads >= Some(1) && process.resident_bytes > Some(1 << 20));
        assert!(process.virtual_bytes > process.resident_bytes);
        assert!(open_descriptors() >= Some(3) && cpu_time() > Duration::ZERO);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!((now - 86_400.0..=now + 1.0).contains(&start_time().unwrap()));
    }
}

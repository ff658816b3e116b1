//! What is asked of Linux: cores, limits, and what /proc knows about a process and the machine.

use std::{
    ffi::OsString,
    fs,
    os::unix::process::CommandExt,
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Error};
use rustix::{
    process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit},
    thread::{CpuSet, sched_setaffinity},
};

/// What is wished for: two descriptors a connection for servers that need them, of some 100,000 connections.
const FILES: u64 = 250_000;

/// Becomes the command, on that core and with as many files as allowed. Returns only if it cannot.
///
/// The command dies with the comparison: a server left behind would disturb whatever is measured next.
pub(crate) fn exec_pinned(core: usize, command: &[OsString]) -> Error {
    let [program, args @ ..] = command else { return Error::msg("nothing to run") };
    if let Err(e) = set_parent_process_death_signal(Some(Signal::KILL)).and_then(|()| pin(core)) {
        return Error::new(e).context(format!("cannot run on core {core}"));
    }
    raise_file_limit();
    let failed = Command::new(program).args(args).exec();
    Error::new(failed).context(format!("cannot run {}", program.display()))
}

fn pin(core: usize) -> rustix::io::Result<()> {
    let mut cores = CpuSet::new();
    if core >= CpuSet::MAX_CPU {
        return Err(rustix::io::Errno::INVAL);
    }
    cores.set(core);
    sched_setaffinity(None, &cores)
}

/// Every connection takes a descriptor. Only root may raise the hard limit; where that fails, the soft one is raised to it.
pub(crate) fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= FILES) {
        return;
    }
    let hard = limit.maximum.map_or(FILES, |maximum| maximum.max(FILES));
    let wished = Rlimit { current: Some(FILES), maximum: limit.maximum.map(|_| hard) };
    if setrlimit(Resource::Nofile, wished).is_err() {
        // What is too few shows where a connection fails.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
}

/// Resident memory in KiB, and threads.
pub(crate) fn memory(pid: u32) -> Result<(u64, u64), Error> {
    let status =
        fs::read_to_string(format!("/proc/{pid}/status")).with_context(|| format!("no process {pid}"))?;
    let number = |key: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(key));
        value.and_then(|value| value.split_whitespace().next()).and_then(|value| value.parse().ok())
    };
    number("VmRSS:").zip(number("Threads:")).with_context(|| format!("process {pid} has ended"))
}

/// CPU time used so far, of the process and the system on its behalf, in microseconds. It counts in steps of 10 ms.
pub(crate) fn cpu_us(pid: u32) -> Result<f64, Error> {
    let stat =
        fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("no process {pid}"))?;
    // After the name, which may contain anything: fields 14 and 15 of proc(5) are `utime` and `stime`.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 * 1e6 / rustix::param::clock_ticks_per_second() as f64)
}

pub(crate) fn cpu_model() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        info.lines().find(|line| line.starts_with("model name")).and_then(|line| line.split(": ").nth(1));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{}, {cores} cores", model.unwrap_or(std::env::consts::ARCH))
}

pub(crate) fn kernel() -> String {
    let name = rustix::system::uname();
    format!("{} {}", name.sysname().to_string_lossy(), name.release().to_string_lossy())
}

/// The load average of the last minute: what else the machine does belongs to a measurement.
pub(crate) fn load_average() -> String {
    let all = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    all.split(' ').next().unwrap_or_default().to_owned()
}

/// Date and time in UTC.
pub(crate) fn now() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = date(seconds / 86_400);
    format!("{year}-{month:02}-{day:02} {:02}:{:02} UTC", seconds / 3600 % 24, seconds / 60 % 60)
}

/// Year, month and day, so many days after 1 January 1970.
fn date(mut days: u64) -> (u64, usize, u64) {
    let leap = |year: u64| year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(11_016), (2000, 2, 29));
        assert_eq!(date(20_453), (2025, 12, 31));
        assert_eq!(date(20_454), (2026, 1, 1));
    }

    #[test]
    fn this_process() {
        let (kib, threads) = memory(std::process::id()).unwrap();
        assert!(kib > 100 && threads >= 1);
        assert!(cpu_us(std::process::id()).unwrap() >= 0.0);
    }
}

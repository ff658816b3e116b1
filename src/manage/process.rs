//! What the system knows of this process: by `/proc` on Linux; elsewhere little of it is known.

use std::fs;

/// What it has at one moment. `None`: it is not known here.
#[derive(Clone, Copy, Debug, Default)]
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

//! The allocator of glibc reserves 64 MiB of addresses for each of up to eight arenas per processor. Where addresses are limited
//! (`ulimit -v`), these would be all there is, and where there is no place for one, each allocation takes a page or more. How many
//! there may be is read from the environment before a program begins: so the command begins anew with it.

use std::{env, os::unix::process::CommandExt, process, thread};

use rustix::process::{Resource, getrlimit};

const ARENA: u64 = 64 << 20;

/// As many as glibc makes for each processor.
const EACH_PROCESSOR: u64 = 8;

/// Arenas may reserve this part of the addresses.
const PART: u64 = 8;

const NAME: &str = "MALLOC_ARENA_MAX";

/// Begins anew, with fewer arenas, if that is needed. What the environment says already is kept.
pub(super) fn limit() {
    if !cfg!(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64")) {
        return;
    }
    let is_said = env::var_os(NAME).is_some()
        || env::var_os("GLIBC_TUNABLES").is_some_and(|all| all.to_string_lossy().contains("arena_max"));
    let Some(addresses) = getrlimit(Resource::As).current.filter(|_| !is_said) else { return };
    let processors = thread::available_parallelism().map_or(1, |n| n.get() as u64);
    let Some(arenas) = allowed(addresses, processors) else { return };
    let Ok(program) = env::current_exe() else { return };
    let mut args = env::args_os();
    let mut again = process::Command::new(program);
    if let Some(name) = args.next() {
        again.arg0(name);
    }
    // It comes back only if it has failed: then the server serves what fits nevertheless.
    let _ = again.args(args).env(NAME, arenas.to_string()).exec();
}

/// How many there may be, the main one included. `None`: as many as glibc wants.
fn allowed(addresses: u64, processors: u64) -> Option<u64> {
    let wanted = EACH_PROCESSOR * processors;
    let allowed = 1 + addresses / PART / ARENA;
    (allowed < wanted).then_some(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arenas_take_an_eighth_of_the_addresses() {
        const MIB: u64 = 1 << 20;
        for (addresses, processors, expected) in [
            (32 * MIB, 4, Some(1)),
            (511 * MIB, 1, Some(1)),
            (512 * MIB, 1, Some(2)),
            (4096 * MIB, 1, None),
            (4096 * MIB, 2, Some(9)),
            (u64::MAX, 1024, None),
        ] {
            assert_eq!(allowed(addresses, processors), expected, "{addresses} {processors}");
        }
    }
}

//! How many more threads the process may start: its user, its cgroups and the system may limit them.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use rustix::process::{Resource, getrlimit, getuid};

use crate::cgroups;

/// The mappings of a thread: its stack, the one for signals, and what guards each.
const MAPPINGS: u64 = 4;

/// So many of the mappings that a process may have are for other things.
const OTHER_MAPPINGS: u64 = 4096;

/// Threads that are left, and what allows no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tasks {
    pub(crate) left: u64,
    pub(crate) by: &'static str,
}

/// The least of all that limits them. `None` where nothing is known.
pub(crate) fn left() -> Option<Tasks> {
    let of_system = |file: &str| cgroups::number(Path::new(file));
    let mappings = of_system("/proc/sys/vm/max_map_count");
    let all = [
        of_user().map(|left| Tasks { left, by: "ulimit -u" }),
        of_cgroups(&cgroups::folders("pids")).map(|left| Tasks { left, by: "the cgroup's pids.max" }),
        of_system("/proc/sys/kernel/threads-max").map(|left| Tasks { left, by: "kernel.threads-max" }),
        mappings.map(|n| Tasks { left: by_mappings(n), by: "vm.max_map_count" }),
    ];
    all.into_iter().flatten().min()
}

fn by_mappings(most: u64) -> u64 {
    most.saturating_sub(OTHER_MAPPINGS.min(most / 2)) / MAPPINGS
}

/// What `RLIMIT_NPROC` leaves. It is no limit for root.
fn of_user() -> Option<u64> {
    let user = getuid();
    let limit = getrlimit(Resource::Nproc).current.filter(|_| !user.is_root())?;
    Some(limit.saturating_sub(tasks_of(user.as_raw())))
}

/// All threads of this user.
fn tasks_of(user: u32) -> u64 {
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    let own = processes.flatten().filter(|process| process.metadata().is_ok_and(|about| about.uid() == user));
    own.map(|process| fs::read_dir(process.path().join("task")).map_or(0, |tasks| tasks.count() as u64)).sum()
}

/// What these cgroups leave.
fn of_cgroups(folders: &[PathBuf]) -> Option<u64> {
    let left = |folder: &Path| {
        let most = cgroups::number(&folder.join("pids.max"))?;
        Some(most.saturating_sub(cgroups::number(&folder.join("pids.current"))?))
    };
    folders.iter().filter_map(|folder| left(folder)).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cgroup_that_leaves_least_counts() {
        let root = std::env::temp_dir().join(format!("switchboard-tasks-{}", std::process::id()));
        for (group, most, current) in [
            ("a", "100", "60"),
            ("a/b", "max", "50"),
            ("a/c", "30", "10"),
            ("a/full", "5", "9"),
            ("pids/x", "70", "1"),
        ] {
            fs::create_dir_all(root.join(group)).unwrap();
            fs::write(root.join(group).join("pids.max"), format!("{most}\n")).unwrap();
            fs::write(root.join(group).join("pids.current"), format!("{current}\n")).unwrap();
        }
        for (text, expected) in [
            ("0::/a/b\n", Some(40)),
            ("0::/a/c\n", Some(20)),
            ("0::/a/full\n", Some(0)),
            ("0::/\n", None),
            ("0::/gone\n", None),
            ("7:pids:/x\n1:cpu:/a\n", Some(69)),
        ] {
            assert_eq!(of_cgroups(&cgroups::folders_of(text, &root, "pids")), expected, "{text}");
        }
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_process_may_start_threads() {
        assert_eq!((by_mappings(65530), by_mappings(0)), (15358, 0));
        #[cfg(target_os = "linux")]
        {
            assert!(left().is_some_and(|tasks| tasks.left > 0), "{:?}", left());
            assert!(tasks_of(getuid().as_raw()) > 0);
        }
    }
}

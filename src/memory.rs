//! How much memory the process may use: what the machine has, its cgroups allow, and its own limit on addresses.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::process::{Resource, getrlimit};

/// Where cgroups are; of version 1 those that count memory.
const CGROUPS: &str = "/sys/fs/cgroup";

/// The least of all that limit it, in bytes. `None` where nothing is known.
pub(crate) fn available() -> Option<u64> {
    let physical = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
    let addresses = getrlimit(Resource::As).current;
    let cgroup = fs::read_to_string("/proc/self/cgroup").ok();
    let cgroup = cgroup.and_then(|text| least(&text, Path::new(CGROUPS)));
    [physical, addresses, cgroup].into_iter().flatten().min()
}

/// What `/proc/meminfo` says that the machine has.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The least limit of the cgroups that `/proc/self/cgroup` names, and of those around them.
fn least(cgroups: &str, root: &Path) -> Option<u64> {
    cgroups.lines().flat_map(|line| files(line, root)).filter_map(|file| limit(&file)).min()
}

/// The files with the limits that one line of `/proc/self/cgroup` stands for (cgroups(7)). Some may not be there: in a
/// container the path may be that outside of it.
fn files(line: &str, root: &Path) -> Vec<PathBuf> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { return Vec::new() };
    let (folders, file): (&[&str], _) = match controllers {
        "" => (&["", "unified"], "memory.max"),
        list if list.split(',').any(|controller| controller == "memory") => {
            (&["memory"], "memory.limit_in_bytes")
        }
        _ => return Vec::new(),
    };
    let own = Path::new(path.trim_start_matches('/'));
    let of_folder = |folder: &&str| {
        let folder = root.join(folder);
        own.ancestors().map(move |group| folder.join(group).join(file)).collect::<Vec<_>>()
    };
    folders.iter().flat_map(of_folder).collect()
}

/// `None` if there is no limit: the word `max`, or, of version 1, more than any machine has.
fn limit(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these files.
    fn folder(name: &str, all: &[(&str, &str)]) -> PathBuf {
        let root = std::env::temp_dir().join(format!("switchboard-memory-{name}-{}", std::process::id()));
        for (file, text) in all {
            let file = root.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        root
    }

    #[test]
    fn the_least_limit_of_the_own_cgroup_and_those_around_it_counts() {
        let root = folder(
            "groups",
            &[
                ("a/memory.max", "5000\n"),
                ("a/b/memory.max", "max\n"),
                ("a/b/c/memory.max", "9000\n"),
                ("other/memory.max", "1\n"),
                ("unified/u/memory.max", "4000\n"),
                ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory/x/memory.limit_in_bytes", "3000\n"),
                ("cpu/x/memory.limit_in_bytes", "2\n"),
            ],
        );
        for (text, expected) in [
            ("0::/a/b/c\n", Some(5000)),
            ("0::/\n", None),
            ("0::/u\n", Some(4000)),
            ("0::/gone/for/long\n", None),
            ("5:cpu,cpuacct:/x\n", None),
            ("5:cpu:/x\n4:memory,hugetlb:/x/y\n0::/a\n", Some(3000)),
            ("4:memory:/docker/abc\n", Some(9_223_372_036_854_771_712)),
            ("nonsense\n\n::\n1:2\n", None),
        ] {
            assert_eq!(least(text, &root), expected, "{text}");
        }
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn the_machine_has_memory() {
        assert_eq!(total("MemTotal:        2048 kB\nMemFree: 1 kB\n"), Some(2 << 20));
        assert_eq!((total("MemFree: 1 kB\n"), total("MemTotal: much\n")), (None, None));
        #[cfg(target_os = "linux")]
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }
}

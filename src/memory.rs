//! How much memory the process may use, and uses: what the machine has, its cgroups allow, and its own limits on addresses and
//! data.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::PathBuf,
};

use rustix::{
    param::page_size,
    process::{Resource, getrlimit},
};

use crate::cgroups;

/// What cgroups limit memory by: where version 2 slows a process down, and where either kills it.
const LIMITS: [&str; 3] = ["memory.high", "memory.max", "memory.limit_in_bytes"];

/// Of 32 bits the system leaves a process 2 GiB at least.
const ADDRESSES: Option<u64> = if cfg!(target_pointer_width = "32") { Some(2 << 30) } else { None };

/// What memory is counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All that is mapped, touched or not: `RLIMIT_AS`.
    Addresses,
    /// What of it is private and can be written to: `RLIMIT_DATA`.
    Data,
    /// What is touched: the memory of the machine, or less by a cgroup.
    Resident,
}

/// What limits the memory of the process, each in bytes. `None`: nothing does, or it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    addresses: Option<u64>,
    data: Option<u64>,
    resident: Option<u64>,
}

/// What of that the process uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Used {
    addresses: u64,
    data: u64,
    resident: u64,
}

impl Bounds {
    pub(crate) fn read() -> Self {
        let physical = fs::read_to_string("/proc/meminfo").ok().and_then(|text| total(&text));
        let cgroup = least(&cgroups::folders("memory"));
        Self { resident: [physical, cgroup].into_iter().flatten().min(), ..Self::of_process() }
    }

    /// Its own limits alone, which are quickly read.
    fn of_process() -> Self {
        Self {
            addresses: [getrlimit(Resource::As).current, ADDRESSES].into_iter().flatten().min(),
            data: getrlimit(Resource::Data).current,
            resident: None,
        }
    }

    fn leave(self, bytes: u64, used: &Used) -> bool {
        self.all().all(|(kind, bound)| bytes <= bound.saturating_sub(used.of(kind)))
    }

    #[cfg(test)]
    pub(crate) fn of(all: &[(Kind, u64)]) -> Self {
        let bound = |kind| all.iter().find(|(other, _)| *other == kind).map(|(_, bound)| *bound);
        let (addresses, data) = (bound(Kind::Addresses), bound(Kind::Data));
        Self { addresses, data, resident: bound(Kind::Resident) }
    }

    /// Those that there are.
    pub(crate) fn all(self) -> impl Iterator<Item = (Kind, u64)> {
        let all =
            [(Kind::Addresses, self.addresses), (Kind::Data, self.data), (Kind::Resident, self.resident)];
        all.into_iter().filter_map(|(kind, bound)| Some((kind, bound?)))
    }
}

impl Used {
    pub(crate) fn of(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Addresses => self.addresses,
            Kind::Data => self.data,
            Kind::Resident => self.resident,
        }
    }

    #[cfg(test)]
    pub(crate) fn of_data(data: u64) -> Self {
        Self { data, ..Self::default() }
    }

    /// What is mapped and can not be written to.
    pub(crate) fn other_than_data(&self) -> u64 {
        self.addresses.saturating_sub(self.data)
    }

    /// What `statm` says, in pages: size, resident, shared, text, lib, data, dt. `None` also of a program for 32 bits that seems to have
    /// more addresses than there are: then all of this is said of what emulates it, such as qemu-user.
    fn parse(statm: &str) -> Option<Self> {
        let mut pages = statm.split_whitespace().map(|number| number.parse::<u64>().ok());
        let page = page_size() as u64;
        let (addresses, resident) = (pages.next()??, pages.next()??);
        let data = pages.nth(3)??;
        usize::try_from(addresses * page).ok()?;
        Some(Self { addresses: addresses * page, data: data * page, resident: resident * page })
    }
}

/// Tells what the process uses, as often as it is asked, for a microsecond each.
#[derive(Debug)]
pub(crate) struct Usage(File);

impl Usage {
    /// `None` where there is no such file: it is Linux's.
    pub(crate) fn open() -> Option<Self> {
        File::open("/proc/self/statm").ok().map(Self)
    }

    pub(crate) fn read(&self) -> Option<Used> {
        let mut text = [0; 128];
        let length = self.0.read_at(&mut text, 0).ok()?;
        Used::parse(str::from_utf8(&text[..length]).ok()?)
    }
}

/// What the process may take, in bytes: the memory of the machine or of its cgroups, or what its own limits leave of addresses and
/// data, if that is less. `None` where nothing is known.
pub(crate) fn available() -> Option<u64> {
    let used = Usage::open().and_then(|usage| usage.read()).unwrap_or_default();
    let left = |(kind, bound): (Kind, u64)| match kind {
        Kind::Resident => bound,
        Kind::Addresses | Kind::Data => bound.saturating_sub(used.of(kind)),
    };
    Bounds::read().all().map(left).min()
}

/// Whether the limits of the process itself leave so many more bytes to map. Where that cannot be told, they do.
pub(crate) fn can_map(bytes: u64) -> bool {
    let bounds = Bounds::of_process();
    if bounds.all().next().is_none() {
        return true; // nobody has to look what is used
    }
    let used = Usage::open().and_then(|usage| usage.read());
    used.is_none_or(|used| bounds.leave(bytes, &used))
}

/// What `/proc/meminfo` says that the machine has.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The least limit of these cgroups. Version 1 without one says more than any machine has.
fn least(cgroups: &[PathBuf]) -> Option<u64> {
    let files = cgroups.iter().flat_map(|folder| LIMITS.map(|file| folder.join(file)));
    files.filter_map(|file| cgroups::number(&file)).min()
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
                ("a/memory.high", "max\n"),
                ("a/b/memory.max", "max\n"),
                ("a/b/c/memory.max", "9000\n"),
                ("slow/memory.max", "9000\n"),
                ("slow/memory.high", "7000\n"),
                ("other/memory.max", "1\n"),
                ("unified/u/memory.max", "4000\n"),
                ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("memory/x/memory.limit_in_bytes", "3000\n"),
                ("cpu/x/memory.limit_in_bytes", "2\n"),
            ],
        );
        for (text, expected) in [
            ("0::/a/b/c\n", Some(5000)),
            ("0::/slow\n", Some(7000)),
            ("0::/\n", None),
            ("0::/u\n", Some(4000)),
            ("0::/gone/for/long\n", None),
            ("5:cpu,cpuacct:/x\n", None),
            ("5:cpu:/x\n4:memory,hugetlb:/x/y\n0::/a\n", Some(3000)),
            ("4:memory:/docker/abc\n", Some(9_223_372_036_854_771_712)),
            ("nonsense\n\n::\n1:2\n", None),
        ] {
            assert_eq!(least(&cgroups::folders_of(text, &root, "memory")), expected, "{text}");
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

    #[test]
    fn each_limit_has_to_leave_enough() {
        let used = Used { addresses: 700, data: 300, resident: 1 };
        let leave = |all: &[_], bytes| Bounds::of(all).leave(bytes, &used);
        assert!(leave(&[], u64::MAX) && leave(&[(Kind::Addresses, 1000)], 300));
        assert!(!leave(&[(Kind::Addresses, 1000)], 301) && !leave(&[(Kind::Addresses, 600)], 1));
        let both = [(Kind::Addresses, 1000), (Kind::Data, 400)];
        assert!(leave(&both, 100) && !leave(&both, 101));
        assert!(can_map(1 << 20));
    }

    #[test]
    fn what_is_used_is_told_in_pages() {
        let page = page_size() as u64;
        let used = Used { addresses: 100 * page, resident: 20 * page, data: 30 * page };
        assert_eq!(Used::parse("100 20 5 7 0 30 0\n"), Some(used));
        assert_eq!((Used::parse(""), Used::parse("1 2 3"), Used::parse("a b c d e f")), (None, None, None));
        assert_eq!((used.of(Kind::Data), used.other_than_data()), (30 * page, 70 * page));
        let of_emulator = Used::parse(&format!("{} 20 5 7 0 30 0\n", (1_u64 << 32) / page));
        assert_eq!(of_emulator.is_none(), cfg!(target_pointer_width = "32"));
        #[cfg(all(target_os = "linux", target_pointer_width = "64"))]
        assert!(Usage::open().unwrap().read().is_some_and(|used| used.resident > 0 && used.data > 0));
    }
}

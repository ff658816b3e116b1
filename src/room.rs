//! How many connections the box has room for: what is left of memory and threads when a server begins to run, and whether that is
//! still so while it runs.
//!
//! Where memory is short, Rust ends the process: what cannot be allocated is no error there. So clients are refused before it is short.
//! Of what is left at the start a part is kept back for what nobody counts; twice what buffers may take is theirs, since they grow by
//! doubling; and the rest is for threads. The same is looked at whenever a client comes, unless there is plenty.

use std::{
    fmt, fs,
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use rustix::process::{Resource, getrlimit};

use crate::{
    buffered::Buffered,
    limits::Limits,
    memory::{Bounds, Kind, Usage, Used},
    scarce,
    tasks::{self, Tasks},
};

const MIB: u64 = 1 << 20;

/// What is kept back: this part of what is left, and not more than so many bytes.
const PART_KEPT_BACK: u64 = 6;
const LEAST_KEPT_BACK: u64 = MIB;
const MOST_KEPT_BACK: u64 = 32 * MIB;

/// A machine, or a cgroup, of as much memory has enough.
const PLENTY: u64 = 1 << 30;

/// Addresses of a thread beside its stack: the stack for signals, what guards both, the largest buffer to receive into, and its part
/// of the heap.
const BESIDE_STACK: u64 = 112 << 10;

/// What a thread touches of its stack and has on the heap; and the same of a connection without a thread.
const TOUCHED: u64 = 32 << 10;
const PARKED: u64 = 2 << 10;

/// What TLS takes beside that, while there is a thread and without one.
const TLS: u64 = 48 << 10;
const PARKED_TLS: u64 = 16 << 10;

/// What a connection takes that compresses with reference to earlier messages.
const DEDICATED: u64 = 460 << 10;

/// Descriptors that are not for connections, of those that are left: clients that are told that there is no place, and the program's
/// own. So many, and not more than this part.
const OTHER_DESCRIPTORS: u64 = 64;
const PART_OF_DESCRIPTORS: u64 = 3;

/// Of the threads that may be started so many and this part are for others.
const OTHER_TASKS: u64 = 4;
const PART_OF_TASKS: u64 = 16;

/// A server beside another one, to manage it, has this part of the threads, and so many at least.
const PART_BESIDE: u64 = 8;
const LEAST_BESIDE: u64 = 2;

/// A look at what is left is good for a client in each so many bytes beyond need.
const EACH_UNLOOKED: u64 = 4 * MIB;
const MOST_UNLOOKED: u64 = 256;

/// What decides how much a server's connections take.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Costs {
    pub(crate) stack: usize,
    pub(crate) tls: bool,
    pub(crate) dedicated: bool,
    /// It is beside another server.
    pub(crate) beside: bool,
}

#[derive(Debug)]
pub(crate) struct Room {
    usage: Option<Usage>,
    /// What was mapped when the server was bound, and could not be written to: code, mostly. What there is more of that later is the
    /// allocator's, which reserves addresses for each thread and uses them bit by bit.
    fixed: u64,
    costs: Costs,
    measured: OnceLock<Measured>,
    /// So many connections were open at the same time while there was enough for all.
    proven: AtomicUsize,
    /// So many clients may come before it is looked again.
    unlooked: AtomicUsize,
}

/// What there was when the server began to run.
#[derive(Debug)]
pub(crate) struct Measured {
    memory: Vec<Share>,
    descriptors: Option<u64>,
    tasks: Option<Tasks>,
    threads: Most,
    connections: Most,
    /// As many as there is memory for, whatever was chosen.
    fitting: Most,
}

/// What there was of one kind of memory, and how it is shared out.
#[derive(Clone, Copy, Debug)]
struct Share {
    kind: Kind,
    bound: u64,
    left: u64,
    kept_back: u64,
    /// Twice what buffers may take, as far as it is there.
    buffers: u64,
}

/// A number, and what allows no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Most {
    number: u64,
    by: Cause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Chosen,
    Memory(Kind),
    Descriptors,
    Tasks(&'static str),
}

/// What is left beyond what may be needed yet.
enum Beyond {
    Plenty(u64),
    Little,
    Nothing,
}

impl Room {
    pub(crate) fn new(costs: Costs) -> Self {
        let usage = Usage::open();
        let used = usage.as_ref().and_then(Usage::read).unwrap_or_default();
        Self {
            usage,
            fixed: used.other_than_data(),
            costs,
            measured: OnceLock::new(),
            proven: AtomicUsize::new(1),
            unlooked: AtomicUsize::new(0),
        }
    }

    /// Looks at what there is; once, when all threads have been started that are there without a client.
    pub(crate) fn measure(&self, limits: &Limits, buffered: &Buffered) -> &Measured {
        self.measured.get_or_init(|| {
            // Who cannot see what is used does not judge by it.
            let used = self.usage.as_ref().and_then(Usage::read);
            let (bounds, used) = used.map(|used| (Bounds::read(), used)).unwrap_or_default();
            let measured = self.share_out(limits, buffered, bounds, &used, tasks::left(), descriptors());
            // What is large may take all but half of what is kept back. Where there is plenty nobody has to ask.
            let is_scarce = |share: &&Share| share.kind != Kind::Resident || share.left < PLENTY;
            let most = |share: &Share| (share.kind, share.bound - share.kept_back / 2);
            scarce::limit(measured.memory.iter().filter(is_scarce).map(most).collect());
            measured
        })
    }

    fn share_out(
        &self,
        limits: &Limits,
        buffered: &Buffered,
        bounds: Bounds,
        used: &Used,
        tasks: Option<Tasks>,
        descriptors: Option<u64>,
    ) -> Measured {
        let wanted = buffered.bound() as u64 * 2;
        let share = |(kind, bound): (Kind, u64)| {
            let left = bound.saturating_sub(used.of(kind));
            let buffers = wanted.min(left / 2);
            let kept_back = (left / PART_KEPT_BACK).clamp(LEAST_KEPT_BACK, MOST_KEPT_BACK);
            Share { kind, bound, left, kept_back: kept_back.min(left / 2), buffers }
        };
        let memory: Vec<_> = bounds.all().map(share).collect();
        let each = |of: &dyn Fn(Kind) -> u64| {
            let most = |share: &Share| {
                let buffers = share.buffers.saturating_sub(self.reserved(share.kind, used));
                let rest = share.left - share.kept_back - buffers;
                Most { number: rest / of(share.kind), by: Cause::Memory(share.kind) }
            };
            memory.iter().map(most).collect::<Vec<_>>()
        };
        let by_tasks = tasks.map(|Tasks { left, by }| {
            let number = left.saturating_sub(OTHER_TASKS + left / PART_OF_TASKS);
            Most { number, by: Cause::Tasks(by) }
        });
        let unlimited = Most { number: u64::MAX, by: Cause::Chosen };
        let mut threads =
            each(&|kind| self.thread(kind)).into_iter().chain(by_tasks).fold(unlimited, Most::least);
        if self.costs.beside {
            threads.number = (threads.number / PART_BESIDE).max(LEAST_BESIDE.min(threads.number));
        }
        let fitting = each(&|_| self.parked()).into_iter().fold(unlimited, Most::least);
        let mut connections = Most { number: limits.max_connections as u64, by: Cause::Chosen };
        if limits.max_connections == Limits::MAX_CONNECTIONS {
            let descriptors = descriptors.map(|number| Most { number, by: Cause::Descriptors });
            connections = descriptors.into_iter().fold(connections.least(fitting), Most::least);
        }
        Measured { memory, descriptors, tasks, threads, connections, fitting }
    }

    /// What was measured; before that anything fits.
    pub(crate) fn threads(&self) -> usize {
        self.measured.get().map_or(usize::MAX, |measured| clamp(measured.threads.number))
    }

    /// How many connections there may be.
    pub(crate) fn connections(&self) -> usize {
        self.measured.get().map_or(usize::MAX, |measured| clamp(measured.connections.number))
    }

    /// Whether there is memory for one more, which would be the last one of so many.
    #[cfg(feature = "manage")]
    pub(crate) fn would_admit(&self, open: usize, buffered: &Buffered) -> bool {
        match self.beyond_need_now(buffered) {
            Some(Beyond::Plenty(_)) | None => true,
            Some(short) => self.has_been_enough(&short, open, buffered),
        }
    }

    /// Whether there is memory for one more, which is the last one of so many.
    pub(crate) fn admits(&self, open: usize, buffered: &Buffered) -> bool {
        if self.unlooked.fetch_update(Relaxed, Relaxed, |n| n.checked_sub(1)).is_ok() {
            self.proven.fetch_max(open, Relaxed);
            return true;
        }
        match self.beyond_need_now(buffered) {
            None => true,
            Some(Beyond::Plenty(bytes)) => {
                self.unlooked.store(clamp((bytes / EACH_UNLOOKED).min(MOST_UNLOOKED)), Relaxed);
                self.proven.fetch_max(open, Relaxed);
                true
            }
            Some(short) => self.has_been_enough(&short, open, buffered),
        }
    }

    /// Whether it is enough nevertheless, for the last one of so many.
    fn has_been_enough(&self, beyond: &Beyond, open: usize, buffered: &Buffered) -> bool {
        match beyond {
            Beyond::Plenty(_) => true,
            // What others have left behind is used again, though the system does not see that: stacks, and holes in the heap.
            Beyond::Little => open <= self.proven.load(Relaxed),
            // When most of them have gone, that is all there is: the system will not get it back, and nobody would be served any more.
            Beyond::Nothing => {
                open <= (self.proven.load(Relaxed) / 2).max(1) && buffered.free() >= buffered.bound() / 2
            }
        }
    }

    /// `None`: nobody can tell.
    fn beyond_need_now(&self, buffered: &Buffered) -> Option<Beyond> {
        let measured = self.measured.get()?;
        let used = self.usage.as_ref().and_then(Usage::read)?;
        Some(self.beyond_need(measured, &used, buffered))
    }

    fn beyond_need(&self, measured: &Measured, used: &Used, buffered: &Buffered) -> Beyond {
        let free = buffered.free() as u64 * 2;
        let mut beyond = u64::MAX;
        for share in &measured.memory {
            let left = share.bound.saturating_sub(used.of(share.kind));
            let thread = self.thread(share.kind);
            if left < share.kept_back / 2 + thread {
                return Beyond::Nothing;
            }
            let buffers = free.min(share.buffers).saturating_sub(self.reserved(share.kind, used));
            beyond = beyond.min(left.saturating_sub(share.kept_back + thread + buffers));
        }
        if beyond == 0 { Beyond::Little } else { Beyond::Plenty(beyond) }
    }

    /// Addresses that the allocator has reserved and not used: half of them may become buffers.
    fn reserved(&self, kind: Kind, used: &Used) -> u64 {
        match kind {
            Kind::Addresses => used.other_than_data().saturating_sub(self.fixed) / 2,
            Kind::Data | Kind::Resident => 0,
        }
    }

    /// What a connection with a thread takes.
    fn thread(&self, kind: Kind) -> u64 {
        let Costs { stack, tls, dedicated, .. } = self.costs;
        let more = u64::from(tls) * TLS + u64::from(dedicated) * DEDICATED;
        match kind {
            Kind::Addresses | Kind::Data => stack as u64 + BESIDE_STACK + more,
            Kind::Resident => TOUCHED + more,
        }
    }

    /// What one without a thread takes.
    fn parked(&self) -> u64 {
        let Costs { tls, dedicated, .. } = self.costs;
        PARKED + u64::from(tls) * PARKED_TLS + u64::from(dedicated) * DEDICATED
    }
}

impl Measured {
    /// Why there is no room for anybody. `None`: there is.
    pub(crate) fn refuses_all(&self) -> Option<String> {
        let none = [self.threads, self.connections].into_iter().find(|most| most.number == 0)?;
        Some(format!(
            "there is no room for a single connection: {}: {}",
            Words(none.by),
            none.by.what_to_do()
        ))
    }

    /// What does not fit, although it was chosen.
    pub(crate) fn misfits(&self, limits: &Limits) -> impl Iterator<Item = String> {
        self.misfit_of_buffers(limits).into_iter().chain(self.misfit_of_connections())
    }

    fn misfit_of_connections(&self) -> Option<String> {
        let Self { connections, fitting, .. } = *self;
        (fitting.number < connections.number).then(|| {
            format!(
                "max_connections is {}, and there is memory for {}: {}: {}, or max_connections",
                connections.number,
                fitting.number,
                Words(fitting.by),
                fitting.by.what_to_do()
            )
        })
    }

    fn misfit_of_buffers(&self, limits: &Limits) -> Option<String> {
        let wanted = limits.max_buffered_bytes? as u64;
        let share = self.memory.iter().find(|share| wanted > share.left / 2)?;
        Some(format!(
            "buffers may take {} (max_buffered_bytes), and only {} are left: {}; lower it, or the process may be ended when they fill",
            Size(wanted),
            Size(share.left),
            Words(Cause::Memory(share.kind))
        ))
    }
}

impl Cause {
    fn what_to_do(self) -> &'static str {
        match self {
            Self::Chosen => "raise max_connections",
            Self::Memory(_) => {
                "raise that, or lower stack_size (--stack-size) and max_buffered_bytes (--max-buffered-bytes)"
            }
            Self::Descriptors => "raise that",
            Self::Tasks(_) => "raise that, or end other programs of this user",
        }
    }
}

/// One line, for the log.
impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (connections, threads) = (self.connections, self.threads);
        write!(f, "at most {} connections", connections.number)?;
        let by = if threads.number < connections.number {
            write!(f, ", {} of them with a thread (synchronous, or in their handshake)", threads.number)?;
            threads.by
        } else {
            connections.by
        };
        f.write_str(": ")?;
        match self.memory.iter().map(|share| share.left).min() {
            Some(left) => write!(f, "{} of memory, ", Size(left))?,
            None => f.write_str("unknown memory, ")?,
        }
        for (number, of) in
            [(self.descriptors, "descriptors"), (self.tasks.map(|tasks| tasks.left), "threads")]
        {
            match number {
                Some(number) => write!(f, "{number} {of}")?,
                None => write!(f, "any number of {of}")?,
            }
            f.write_str(if of == "threads" { " are left; " } else { " and " })?;
        }
        write!(f, "the limit is {}", Words(by))
    }
}

impl Most {
    fn least(self, other: Self) -> Self {
        if other.number < self.number { other } else { self }
    }
}

/// A cause, as people know it.
struct Words(Cause);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Cause::Chosen => "max_connections",
            Cause::Memory(Kind::Addresses) => "the address space (ulimit -v)",
            Cause::Memory(Kind::Data) => "the size of data (ulimit -d)",
            Cause::Memory(Kind::Resident) => "the memory of the machine or the cgroup",
            Cause::Descriptors => "the number of open files (ulimit -n)",
            Cause::Tasks(by) => return write!(f, "the number of threads ({by})"),
        })
    }
}

/// Bytes, in MiB or KiB.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes if bytes >= 4 * MIB => write!(f, "{} MiB", bytes / MIB),
            bytes => write!(f, "{} KiB", bytes / 1024),
        }
    }
}

fn clamp(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Descriptors that are left for connections.
fn descriptors() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile).current?;
    let open = fs::read_dir("/proc/self/fd").map_or(0, |all| all.count() as u64);
    let left = limit.saturating_sub(open);
    Some(left - OTHER_DESCRIPTORS.min(left / PART_OF_DESCRIPTORS))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUFFERS: usize = 8 << 20;

    /// A room with these costs, and what comes of this.
    fn measured(
        costs: Costs,
        limits: &Limits,
        bounds: &[(Kind, u64)],
        tasks: Option<u64>,
        descriptors: Option<u64>,
    ) -> Measured {
        let tasks = tasks.map(|left| Tasks { left, by: "ulimit -u" });
        let (buffered, bounds) = (Buffered::new(BUFFERS), Bounds::of(bounds));
        Room::new(costs).share_out(limits, &buffered, bounds, &Used::default(), tasks, descriptors)
    }

    const COSTS: Costs = Costs { stack: 256 << 10, tls: false, dedicated: false, beside: false };

    #[test]
    fn what_is_least_limits() {
        let default = Limits::default();
        let chosen = Limits { max_connections: 9000, ..Limits::default() };
        let with = |bounds: &[_], tasks, descriptors, limits| {
            let all = measured(COSTS, limits, bounds, tasks, descriptors);
            (all.threads.number, all.threads.by, all.connections.number, all.connections.by)
        };
        let (none, unlimited) = (Cause::Chosen, u64::MAX);
        assert_eq!(with(&[], None, None, &default), (unlimited, none, 4096, none));
        assert_eq!(with(&[], None, Some(900), &default), (unlimited, none, 900, Cause::Descriptors));
        assert_eq!(with(&[], None, Some(900), &chosen), (unlimited, none, 9000, none), "it is kept");
        let by_user = Cause::Tasks("ulimit -u");
        assert_eq!(with(&[], Some(36), None, &default), (30, by_user, 4096, none));
        assert_eq!(with(&[], Some(3), None, &default).0, 0);
        // 48 MiB: 8 are kept back, and 16 are for buffers.
        let by = Cause::Memory(Kind::Addresses);
        assert_eq!(with(&[(Kind::Addresses, 48 * MIB)], None, None, &default), (66, by, 4096, none));
        let memory = [(Kind::Addresses, 48 * MIB), (Kind::Resident, 12 * MIB)];
        let by_memory = Cause::Memory(Kind::Resident);
        assert_eq!(with(&memory, Some(50), None, &default), (43, by_user, 2048, by_memory));
        assert_eq!(
            with(&[(Kind::Data, MIB)], None, None, &default).0,
            0,
            "half is kept back, and half for buffers"
        );
    }

    #[test]
    fn what_connections_cost_counts() {
        let threads = |costs| {
            measured(costs, &Limits::default(), &[(Kind::Addresses, 96 * MIB)], None, None).threads.number
        };
        assert_eq!(threads(COSTS), 178);
        assert_eq!(threads(Costs { stack: 1 << 20, ..COSTS }), 57);
        assert!(threads(Costs { tls: true, ..COSTS }) < 178);
        assert!(threads(Costs { dedicated: true, ..COSTS }) < 100);
        assert_eq!(threads(Costs { beside: true, ..COSTS }), 178 / 8);
    }

    #[test]
    fn who_comes_when_it_is_short_is_refused_unless_as_many_have_been_there() {
        let room = Room::new(COSTS);
        let buffered = Buffered::new(BUFFERS);
        let beyond = |bound: u64, used: u64| {
            let bounds = Bounds::of(&[(Kind::Data, bound)]);
            let nothing = Used::default();
            let all = room.share_out(&Limits::default(), &buffered, bounds, &nothing, None, None);
            match room.beyond_need(&all, &Used::of_data(used), &buffered) {
                Beyond::Plenty(bytes) => Some(bytes / MIB),
                Beyond::Little => Some(0),
                Beyond::Nothing => None,
            }
        };
        // 8 are kept back, 16 are for buffers.
        assert_eq!(beyond(48 * MIB, 0), Some(23));
        assert_eq!(beyond(48 * MIB, 30 * MIB), Some(0));
        assert_eq!(beyond(48 * MIB, 45 * MIB), None);
        buffered.change(0, 8 << 10);
        assert_eq!(beyond(48 * MIB, 30 * MIB), Some(9), "they have what they may take");
    }

    #[test]
    fn it_is_said_in_one_line() {
        let limits = Limits::default();
        let all = measured(COSTS, &limits, &[(Kind::Addresses, 48 * MIB)], Some(100), Some(500));
        assert_eq!(
            all.to_string(),
            "at most 500 connections, 66 of them with a thread (synchronous, or in their handshake): 48 MiB of memory, 500 \
             descriptors and 100 threads are left; the limit is the address space (ulimit -v)"
        );
        assert_eq!((all.refuses_all(), all.misfits(&limits).next()), (None, None));
        let all = measured(COSTS, &limits, &[(Kind::Addresses, 24_000 * MIB)], None, None);
        assert_eq!(
            all.to_string(),
            "at most 4096 connections: 24000 MiB of memory, any number of descriptors and any number of threads are left; the \
             limit is max_connections"
        );
        let all = measured(COSTS, &limits, &[(Kind::Data, MIB)], Some(100), None);
        let why = all.refuses_all().unwrap();
        assert!(why.contains("a single connection: the size of data (ulimit -d): raise that, or"), "{why}");
        let chosen = Limits { max_connections: 100_000, ..Limits::default() };
        let all = measured(COSTS, &chosen, &[(Kind::Addresses, 48 * MIB)], None, None);
        let misfit = all.misfits(&chosen).next().unwrap();
        assert!(misfit.starts_with("max_connections is 100000, and there is memory for "), "{misfit}");
        let all = measured(COSTS, &limits, &[(Kind::Data, MIB)], Some(100), None);
        let limits = Limits { max_buffered_bytes: Some(1 << 20), ..limits };
        assert!(
            all.misfits(&limits)
                .next()
                .unwrap()
                .contains("may take 1024 KiB (max_buffered_bytes), and only 1024 KiB")
        );
    }
}

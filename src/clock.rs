//! Time, as one number that only grows: moments since the server's start. Never the wall clock.

use std::{
    num::NonZeroU64,
    ops::Add,
    time::{Duration, SystemTime},
};

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::sync::{LockExt, Mutex};

/// Reads the kernel's notion of time as of its last timer tick, some milliseconds ago at most: good for silences of
/// seconds, and much cheaper than the exact time.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
const COARSE: ClockId = ClockId::MonotonicCoarse;
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
const COARSE: ClockId = ClockId::Monotonic;

/// musl calls that are older than its times of 64 bits still have those of 32, on processors of 32 bits; and `rustix`, where it goes
/// through musl, takes them for times of 64, which no test of a build for another processor would show. Its own system calls are
/// right there: they have nanoseconds of 64 bits, too.
#[cfg(all(target_env = "musl", target_pointer_width = "32"))]
const _: () = assert!(
    size_of::<rustix::time::Nsecs>() == 8,
    "rustix goes through musl, and would read a wrong clock: see \"32 bits and musl\" in the page on cross builds (src/cross_builds.md)"
);

/// A clock that differs by more has been set; by less it is only kept right.
const SET: Duration = Duration::from_secs(1);

/// A moment of a server's life: microseconds since its start, and one more, so that an optional one takes no more memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(NonZeroU64);

impl Moment {
    /// The server's start.
    pub(crate) const START: Self = Self(NonZeroU64::MIN);

    /// How long ago `earlier` was; nothing if it was later.
    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.get().saturating_sub(earlier.0.get()))
    }

    /// As eight bytes, for the payload of a ping.
    pub(crate) fn to_bytes(self) -> [u8; 8] {
        self.0.get().to_be_bytes()
    }

    /// `None`: no moment has these bytes.
    pub(crate) fn from_bytes(bytes: [u8; 8]) -> Option<Self> {
        NonZeroU64::new(u64::from_be_bytes(bytes)).map(Self)
    }
}

/// A moment beyond the range is the last one, which never comes.
impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }
}

/// The clock of a server.
#[derive(Debug)]
pub(crate) struct Clock {
    started: Timespec,
    /// The date of the start, by the system's clock as it was when somebody asked last.
    date: Mutex<SystemTime>,
}

impl Clock {
    /// Starts it.
    pub(crate) fn start() -> Self {
        Self { started: clock_gettime(ClockId::Monotonic), date: Mutex::new(SystemTime::now()) }
    }

    /// Now, or some milliseconds earlier.
    pub(crate) fn coarse(&self) -> Moment {
        self.read(COARSE)
    }

    /// Now, exactly.
    pub(crate) fn exact(&self) -> Moment {
        self.read(ClockId::Monotonic)
    }

    fn read(&self, clock: ClockId) -> Moment {
        // The coarse clock may show a time before the start.
        let elapsed = Duration::try_from(clock_gettime(clock) - self.started).unwrap_or_default();
        Moment::START + elapsed
    }

    /// The date of a moment, by the system's clock as it is now: it may have been set since, as on a machine that boots in 1970. The
    /// date of a moment stays the same until that happens.
    pub(crate) fn date(&self, moment: Moment) -> SystemTime {
        self.start_by(SystemTime::now()) + moment.since(Moment::START)
    }

    /// The date of the start, if it is `now`.
    fn start_by(&self, now: SystemTime) -> SystemTime {
        let started = now.checked_sub(self.exact().since(Moment::START));
        let started = started.unwrap_or(SystemTime::UNIX_EPOCH).max(SystemTime::UNIX_EPOCH);
        let mut date = self.date.locked();
        let difference = started.duration_since(*date).unwrap_or_else(|earlier| earlier.duration());
        if difference > SET {
            *date = started;
        }
        *date
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coarse_clock_follows_the_exact_one() {
        let clock = Clock::start();
        let before = clock.exact();
        let coarse = clock.coarse();
        assert!(coarse <= clock.exact());
        assert!(before.since(coarse) < Duration::from_millis(50));
        assert_eq!(coarse.since(clock.exact() + Duration::from_secs(1)), Duration::ZERO);
    }

    #[test]
    fn dates_follow_a_clock_that_is_set_and_else_stay() {
        let clock = Clock::start();
        let by = |years: i32| {
            let distance = Duration::from_secs(years.unsigned_abs() as u64 * 365 * 24 * 60 * 60);
            let now = SystemTime::now();
            clock.start_by(if years < 0 { now - distance } else { now + distance })
        };
        let date = by(0);
        assert_eq!(by(0), date);
        assert!(by(10) > date + Duration::from_secs(9 * 365 * 24 * 60 * 60));
        assert!(by(-10) < date - Duration::from_secs(9 * 365 * 24 * 60 * 60));
        let back = by(0);
        assert!(back.duration_since(date).unwrap_or_else(|e| e.duration()) < SET, "{back:?}");
        assert_eq!(clock.start_by(SystemTime::UNIX_EPOCH), SystemTime::UNIX_EPOCH);
    }

    #[test]
    fn a_moment_beyond_the_range_never_comes() {
        let never = Moment::START + Duration::MAX;
        assert!(never > Clock::start().exact() && never + Duration::MAX == never);
        assert_eq!(Moment::from_bytes(never.to_bytes()), Some(never));
        assert_eq!(Moment::from_bytes([0; 8]), None);
    }
}

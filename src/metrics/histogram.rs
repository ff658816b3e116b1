//! How long something takes, as counts of what took no longer than this and that.

use std::time::Duration;

use crate::sync::{AtomicU64, atomic::Ordering::Relaxed};

/// The most bounds that a histogram has.
const MOST: usize = 16;

pub(crate) struct Histogram {
    /// In microseconds, the least first; what took longer than the last is counted behind them.
    bounds: &'static [u64],
    counts: [AtomicU64; MOST + 1],
    nanos: AtomicU64,
}

impl Histogram {
    pub(crate) const fn new(bounds: &'static [u64]) -> Self {
        assert!(bounds.len() <= MOST);
        Self { bounds, counts: [const { AtomicU64::new(0) }; _], nanos: AtomicU64::new(0) }
    }

    pub(crate) fn add(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let place = self.bounds.partition_point(|bound| bound * 1000 < nanos);
        self.counts[place].fetch_add(1, Relaxed);
        self.nanos.fetch_add(nanos, Relaxed);
    }

    /// How many took no longer than each bound. The last one has none: these are all.
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let bounds = self.bounds.iter().map(|bound| Some(Duration::from_micros(*bound))).chain([None]);
        bounds.zip(&self.counts).scan(0, |sum, (bound, count)| {
            *sum += count.load(Relaxed);
            Some((bound, *sum))
        })
    }

    /// How long all took together.
    pub(crate) fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_counts_for_its_bound_and_all_above() {
        let times = Histogram::new(&[10, 1000]);
        for micros in [0, 10, 11, 1000, 1001, 5_000_000] {
            times.add(Duration::from_micros(micros));
        }
        times.add(Duration::from_nanos(10_001));
        let counts: Vec<_> = times.cumulative().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 5, 7]);
        assert_eq!(times.cumulative().last(), Some((None, 7)));
        assert_eq!(times.sum(), Duration::from_nanos(5_002_032_001));
    }
}

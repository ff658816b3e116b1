//! What all connections of a server hold in buffers together, and the bound for that.
//!
//! It is counted in whole KiB, and only changes of some size are: small messages cost no more than a comparison. Every part of a
//! connection remembers what it has added, so what is added is taken away again, however inexact it was.

use std::sync::{
    Arc, Mutex,
    atomic::{
        AtomicBool, AtomicIsize, AtomicU32,
        Ordering::{Relaxed, SeqCst},
    },
};

use bytes::Bytes;

/// Smaller changes than so many KiB are not counted.
const STEP: u32 = 8;

/// Fewer bytes than this are not counted, in each part of a connection.
pub(crate) const MUCH: usize = STEP as usize * 1024;

/// What is sent to many counts once, from this size on; what is smaller counts for each of them.
pub(crate) const MIN_SHARED: usize = 1024;

/// The sum, and its bound.
#[derive(Debug)]
pub(crate) struct Buffered {
    /// The sum is beyond the bound, and nobody has seen to it yet.
    is_short: AtomicBool,
    /// In KiB, like the bound. Below zero for a moment, where what one thread takes away was added by another one that has not
    /// said so yet.
    sum: AtomicIsize,
    max: AtomicIsize,
    /// Whoever sees to it has this.
    pub(crate) relief: Mutex<()>,
}

impl Buffered {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self {
            is_short: AtomicBool::new(false),
            sum: AtomicIsize::new(0),
            max: AtomicIsize::new((max_bytes / 1024) as isize),
            relief: Mutex::default(),
        }
    }

    /// From now on the bound is not higher than this.
    pub(crate) fn lower_bound_to(&self, max_bytes: usize) {
        self.max.fetch_min((max_bytes / 1024) as isize, SeqCst);
    }

    fn max(&self) -> isize {
        self.max.load(Relaxed)
    }

    /// The bound, in bytes.
    pub(crate) fn bound(&self) -> usize {
        (self.max() as usize).saturating_mul(1024)
    }

    /// How much of it is free, in bytes.
    pub(crate) fn free(&self) -> usize {
        self.bound().saturating_sub(self.sum() * 1024)
    }

    /// Somebody has so many KiB instead of so many. True: this is too much, and whoever can see to it has to be told.
    pub(crate) fn change(&self, was: u32, is: u32) -> bool {
        if is <= was {
            self.sum.fetch_sub((was - is) as isize, SeqCst);
            return false;
        }
        let more = (is - was) as isize;
        let sum = self.sum.fetch_add(more, SeqCst) + more;
        sum > self.max() && !self.is_short.swap(true, SeqCst)
    }

    /// The same for what nobody can be ended for. False: it would make the sum more than half of the bound, and nothing has
    /// changed; the other half is for those who would be ended.
    fn try_change(&self, was: u32, is: u32) -> bool {
        if is <= was {
            self.change(was, is);
            return true;
        }
        let more = (is - was) as isize;
        let fits = self.sum.fetch_add(more, SeqCst) + more <= self.max() / 2;
        if !fits {
            self.sum.fetch_sub(more, SeqCst);
        }
        fits
    }

    /// Whether the sum has passed the bound since this was [taken](Self::take_shortage).
    pub(crate) fn is_short(&self) -> bool {
        self.is_short.load(Relaxed)
    }

    pub(crate) fn take_shortage(&self) -> bool {
        self.is_short.swap(false, SeqCst)
    }

    /// How many KiB are too many. A little more has to go than what is beyond the bound, or the next byte would be too
    /// much again.
    pub(crate) fn excess(&self) -> usize {
        let (sum, max) = (self.sum.load(SeqCst), self.max());
        let excess = if sum > max { sum - (max - max / 16) } else { 0 };
        excess as usize
    }

    pub(crate) fn sum(&self) -> usize {
        self.sum.load(SeqCst).max(0) as usize
    }
}

/// What a part of a connection has added to the sum, in KiB. One thread at a time changes it.
#[derive(Debug, Default)]
pub(crate) struct Held(AtomicU32);

impl Held {
    /// This part holds so many bytes now. True: see [`Buffered::change`].
    pub(crate) fn set(&self, bytes: usize, all: &Buffered) -> bool {
        let (was, is) = (self.get(), kib(bytes));
        let is_small = was.abs_diff(is) < STEP && (is > 0 || was == 0);
        !is_small && self.replace(was, is, all)
    }

    #[inline(never)]
    fn replace(&self, was: u32, is: u32, all: &Buffered) -> bool {
        self.0.store(is, Relaxed);
        all.change(was, is)
    }

    /// This part would hold so many bytes, and nobody could be ended for it. False: all hold too much for that.
    pub(crate) fn try_set(&self, bytes: usize, all: &Buffered) -> bool {
        let (was, is) = (self.get(), kib(bytes));
        if was.abs_diff(is) < STEP {
            return true;
        }
        let fits = all.try_change(was, is);
        if fits {
            self.0.store(is, Relaxed);
        }
        fits
    }

    /// In KiB.
    pub(crate) fn get(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

/// As many whole KiB as there are in so many bytes.
pub(crate) fn kib(bytes: usize) -> u32 {
    u32::try_from(bytes >> 10).unwrap_or(u32::MAX)
}

/// A payload that many connections may hold: it counts once, as long as anyone holds it.
pub(crate) fn share(payload: Bytes, all: &Arc<Buffered>) -> Bytes {
    let size = kib(payload.len());
    all.change(0, size);
    Bytes::from_owner(Shared { payload, size, all: all.clone() })
}

struct Shared {
    payload: Bytes,
    size: u32,
    all: Arc<Buffered>,
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.payload
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.all.change(self.size, 0);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever parts come to hold, and in whatever order they and shared payloads end, the sum is that of the parts,
        /// as exactly as promised, and nothing in the end.
        #[test]
        fn the_sum_never_drifts(steps in prop::collection::vec((0..5usize, 0..100_000usize), 1..200)) {
            let all = Arc::new(Buffered::new(usize::MAX));
            let parts: [Held; 5] = Default::default();
            let mut holds = [0; 5];
            let mut payloads = Vec::new();
            for (part, bytes) in steps {
                if bytes % 7 == 0 {
                    payloads.push(share(Bytes::from(vec![0; bytes]), &all));
                } else if bytes % 11 == 0 {
                    payloads.truncate(part);
                }
                holds[part] = if bytes % 5 == 0 { 0 } else { bytes };
                parts[part].set(holds[part], &all);
                let shared: usize = payloads.iter().map(|payload| payload.len() / 1024).sum();
                let told: usize = parts.iter().map(|part| part.get() as usize).sum();
                prop_assert_eq!(all.sum(), told + shared);
                for (part, holds) in parts.iter().zip(holds) {
                    prop_assert!(part.get().abs_diff(kib(holds)) < STEP);
                }
            }
            drop(payloads);
            for part in &parts {
                part.set(0, &all);
            }
            prop_assert_eq!(all.sum(), 0);
        }
    }

    /// As when a thread that adds is not done before another one takes away.
    #[test]
    fn taking_away_before_adding_is_no_shortage() {
        let all = Buffered::new(100 << 10);
        assert!(!all.change(1, 0));
        assert_eq!((all.excess(), all.sum(), all.is_short()), (0, 0, false));
        assert!(!all.change(0, 1) && all.sum() == 0);
    }

    #[test]
    fn the_bound_is_told_once() {
        let all = Buffered::new(100 << 10);
        assert!(!all.change(0, 100) && all.change(0, 1) && !all.change(0, 1));
        assert_eq!(all.excess(), 8, "a sixteenth below the bound");
        assert!(all.is_short() && all.take_shortage() && !all.take_shortage());
        assert!(!all.change(102, 100) && all.excess() == 0);
    }

    #[test]
    fn what_does_not_fit_changes_nothing() {
        let all = Buffered::new(200 << 10);
        let (one, other) = (Held::default(), Held::default());
        assert!(
            one.try_set(60 << 10, &all) && !other.try_set(60 << 10, &all) && !other.try_set(50 << 10, &all)
        );
        assert_eq!((all.sum(), other.get(), all.is_short()), (60, 0, false));
        assert!(other.try_set(40 << 10, &all) && !one.try_set(68 << 10, &all) && one.try_set(40 << 10, &all));
        one.set(0, &all);
        other.set(0, &all);
        assert_eq!(all.sum(), 0);
    }
}

//! What a node counts, for whoever looks after it.

use crate::sync::{AtomicU64, atomic::Ordering::Relaxed};

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) forwarded: Count,
    pub(super) received: Count,
    pub(super) unreachable: Count,
    /// Connections to Redis that were made: those that send, and those that receive.
    pub(super) connected: [Count; 2],
    pub(super) late: Count,
}

#[derive(Debug, Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Tally {
    /// Connections that were made again.
    pub(super) fn reconnects(&self) -> u64 {
        self.connected.iter().map(|count| count.get().saturating_sub(1)).sum()
    }
}

//! The numbers of what a node asks others.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::id::random_bytes;

/// They begin anywhere: what an earlier start of the node has asked may be answered now.
#[derive(Debug)]
pub(super) struct Numbers(AtomicU32);

impl Default for Numbers {
    fn default() -> Self {
        Self(AtomicU32::new(u32::from_ne_bytes(random_bytes())))
    }
}

impl Numbers {
    pub(super) fn next(&self) -> u32 {
        self.0.fetch_add(1, Relaxed)
    }
}

//! What all copies of a node have in common.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use super::super::envelope::Sender;

/// What may have been heard, and waits until what was before is loaded, in bytes.
const MAX_WAITING: usize = 16 << 20;

/// What all copies have in common: whose they are, and what they may take together.
pub(in crate::cluster) struct Common {
    pub(in crate::cluster) me: Sender,
    pub(in crate::cluster) max_log_bytes: usize,
    pub(in crate::cluster) max_bytes: usize,
    pub(in crate::cluster) bytes: Arc<AtomicUsize>,
    waiting: AtomicUsize,
}

impl Common {
    pub(in crate::cluster) fn new(me: Sender, (max_log_bytes, max_bytes): (usize, usize)) -> Self {
        Self { me, max_log_bytes, max_bytes, bytes: Arc::default(), waiting: AtomicUsize::new(0) }
    }

    /// False: there is no room.
    pub(in crate::cluster) fn take_waiting(&self, bytes: usize) -> bool {
        let is_room = self.waiting.fetch_add(bytes, Relaxed) + bytes <= MAX_WAITING;
        if !is_room {
            self.give_back(bytes);
        }
        is_room
    }

    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    pub(in crate::cluster) fn give_back(&self, bytes: usize) {
        self.waiting.fetch_sub(bytes, Relaxed);
    }
}

//! What keeps its connection for long: links, those who listen, those who wait for messages. All of them together leave some for
//! requests that are answered at once, so that whoever looks after the server always gets in.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use super::answers::full;
use crate::http::Refusal;

#[derive(Debug)]
pub(super) struct Stays {
    taken: AtomicUsize,
    most: usize,
}

/// A connection that is kept, until this is dropped.
#[derive(Debug)]
pub(super) struct Stay(Arc<Stays>);

impl Stays {
    /// Of a listener with so many connections: a quarter is left, where there are that many.
    pub(super) fn new(connections: usize) -> Arc<Self> {
        Self::of(connections - connections / 4)
    }

    /// Those who wait for messages: half of them may.
    pub(super) fn of_readers(connections: usize) -> Arc<Self> {
        Self::of(connections.div_ceil(2))
    }

    fn of(most: usize) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), most })
    }

    /// # Errors
    /// There are too many.
    pub(super) fn enter(self: &Arc<Self>) -> Result<Stay, Refusal> {
        let too_many = "too many connections are kept by links, by those who listen, and by those who wait for messages: the others are \
                        for requests (max_connections of Manage::limits)";
        self.take().ok_or_else(|| full(too_many))
    }

    /// `None`: there are too many.
    pub(super) fn take(self: &Arc<Self>) -> Option<Stay> {
        let one_more = |taken| (taken < self.most).then_some(taken + 1);
        self.taken.fetch_update(Relaxed, Relaxed, one_more).ok()?;
        Some(Stay(self.clone()))
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_is_left() {
        for (connections, most) in [(1, 1), (2, 2), (3, 3), (4, 3), (8, 6), (128, 96)] {
            let stays = Stays::new(connections);
            let mut all: Vec<_> = (0..most).map(|_| stays.enter().unwrap()).collect();
            assert_eq!(stays.enter().unwrap_err().status(), 429, "{connections}");
            all.pop();
            assert!(stays.enter().is_ok(), "{connections}");
        }
    }
}

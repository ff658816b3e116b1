//! How much may wait: of one link, and of all together.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// Requests of one link that wait.
pub(crate) const OF_LINK: usize = 256;

/// Those of all links, each with a thread.
const OF_ALL: usize = 1024;

/// The bytes of what these are to send. One alone may have more.
const BYTES_OF_ALL: usize = 64 << 20;

/// What all links have waiting.
#[derive(Debug, Default)]
pub(super) struct Places {
    taken: AtomicUsize,
    bytes: AtomicUsize,
}

/// A place for one request, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    bytes: usize,
}

impl Places {
    /// A place for a request of so many bytes, if there is one.
    pub(super) fn take(self: &Arc<Self>, bytes: usize) -> Option<Place> {
        let one_more = |taken: usize| (taken < OF_ALL).then_some(taken + 1);
        self.taken.fetch_update(Relaxed, Relaxed, one_more).ok()?;
        let more = |held: usize| (held == 0 || held + bytes <= BYTES_OF_ALL).then_some(held + bytes);
        if self.bytes.fetch_update(Relaxed, Relaxed, more).is_err() {
            self.taken.fetch_sub(1, Relaxed);
            return None;
        }
        Some(Place { places: self.clone(), bytes })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.fetch_sub(1, Relaxed);
        self.places.bytes.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_have_a_number_and_a_sum_and_come_back() {
        let places = Arc::<Places>::default();
        let all: Vec<_> = (0..OF_ALL).map(|_| places.take(1).unwrap()).collect();
        assert!(places.take(1).is_none());
        drop(all);
        let large = places.take(BYTES_OF_ALL + 1).unwrap();
        assert!(places.take(1).is_none() && places.take(0).is_none());
        drop(large);
        let half = places.take(BYTES_OF_ALL / 2).unwrap();
        assert!(places.take(BYTES_OF_ALL / 2 + 1).is_none() && places.take(BYTES_OF_ALL / 2).is_some());
        drop(half);
        assert_eq!((places.taken.load(Relaxed), places.bytes.load(Relaxed)), (0, 0));
    }
}

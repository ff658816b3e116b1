//! For how long a transfer may go on: a client that sends or takes a byte now and then must not hold a place for ever.

use std::time::Duration;

use crate::deadline::Deadline;

/// The time that a transfer may take: some in any case, and what its bytes so far take at the least rate.
#[derive(Debug)]
pub(super) struct Pace {
    /// How long the client may do nothing.
    patience: Duration,
    begun: Deadline,
    /// Bytes a second; 0: none is required.
    rate: usize,
    done: u64,
}

impl Pace {
    pub(super) fn new(patience: Duration, rate: usize) -> Self {
        Self { patience, begun: Deadline::after(patience), rate, done: 0 }
    }

    /// So many more bytes have been transferred.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.done = self.done.saturating_add(bytes as u64);
    }

    /// When the next bytes have to be transferred.
    pub(super) fn deadline(&self) -> Deadline {
        let next = Deadline::after(self.patience);
        match self.done.checked_div(self.rate as u64) {
            Some(seconds) => next.or_earlier(self.begun.extended(Duration::from_secs(seconds))),
            None => next,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_too_slow_has_no_time_left() {
        let minute = Duration::from_secs(60);
        let left = |pace: &Pace| pace.deadline().remaining();
        let mut pace = Pace { patience: minute, begun: Deadline::after(Duration::ZERO), rate: 100, done: 0 };
        pace.advance(99);
        assert_eq!(left(&pace), None);
        pace.advance(901);
        assert!(left(&pace).unwrap() <= Duration::from_secs(10));
        pace.advance(usize::MAX);
        assert!(left(&pace).unwrap() <= minute);
        pace.rate = 0;
        assert!(left(&pace).unwrap() > minute / 2);
        assert!(left(&Pace::new(Duration::MAX, 1)).is_some());
    }
}

//! One time budget carried through several steps: a call that waits more than once still ends on time.

use std::time::{Duration, Instant};

use rustix::event::Timespec;

/// Whoever waits longer asks again after this.
const DAY: Duration = Duration::from_secs(86_400);

/// The moment when a call has to be over, or never.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// In `budget` from now; a budget beyond the clock's range is no deadline at all.
    pub(crate) fn after(budget: Duration) -> Self {
        Self(Instant::now().checked_add(budget))
    }

    /// Later by so much; beyond the clock's range it is no deadline at all.
    pub(crate) fn extended(self, by: Duration) -> Self {
        Self(self.0.and_then(|end| end.checked_add(by)))
    }

    /// Whichever comes first.
    pub(crate) fn or_earlier(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(one), Some(another)) => Self(Some(one.min(another))),
            (one, another) => Self(one.or(another)),
        }
    }

    /// What is left: `None` when the time is up.
    ///
    /// A deadline that never comes answers with a day, after which the caller asks again.
    pub(crate) fn remaining(self) -> Option<Duration> {
        match self.0 {
            None => Some(DAY),
            Some(end) => Some(end.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero()),
        }
    }
}

/// A time budget that begins to run when it is first asked for. So the clock is read once by whoever waits once.
#[derive(Debug)]
pub(crate) struct Budget {
    whole: Duration,
    deadline: Option<Deadline>,
}

impl Budget {
    pub(crate) fn new(whole: Duration) -> Self {
        Self { whole, deadline: None }
    }

    pub(crate) fn deadline(&mut self) -> Deadline {
        *self.deadline.get_or_insert_with(|| Deadline::after(self.whole))
    }

    /// What is left: `None` when the time is up.
    pub(crate) fn remaining(&mut self) -> Option<Duration> {
        if self.deadline.is_some() {
            return self.deadline().remaining();
        }
        self.deadline();
        Some(self.whole.min(DAY)).filter(|whole| !whole.is_zero())
    }
}

/// For a call of the system, which has a limit of its own: a day at most.
pub(crate) fn timespec(timeout: Duration) -> Timespec {
    let timeout = timeout.min(DAY);
    Timespec { tv_sec: timeout.as_secs() as _, tv_nsec: timeout.subsec_nanos() as _ }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_down_to_nothing() {
        assert_eq!(Deadline::after(Duration::ZERO).remaining(), None);
        let left = Deadline::after(Duration::from_secs(5)).remaining().unwrap();
        assert!(left <= Duration::from_secs(5) && left > Duration::from_secs(4));
    }

    #[test]
    fn a_budget_is_whole_when_it_is_first_asked_for() {
        let mut budget = Budget::new(Duration::from_secs(5));
        assert_eq!(budget.remaining(), Some(Duration::from_secs(5)));
        assert!(budget.remaining().unwrap() < Duration::from_secs(5));
        let mut begun = Budget::new(Duration::from_secs(5));
        begun.deadline();
        assert!(begun.remaining().unwrap() < Duration::from_secs(5));
        assert_eq!(Budget::new(Duration::ZERO).remaining(), None);
        assert_eq!(Budget::new(Duration::MAX).remaining(), Some(DAY));
    }

    #[test]
    fn a_budget_beyond_the_clock_never_ends() {
        let deadline = Deadline::after(Duration::MAX);
        assert_eq!((deadline.remaining(), deadline.0), (Some(DAY), None));
    }
}

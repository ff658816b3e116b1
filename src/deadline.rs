//! One time budget carried through several steps: a call that waits more than once still ends on time.

use std::time::{Duration, Instant};

/// The moment when a call has to be over, or never.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// In `budget` from now; a budget beyond the clock's range is no deadline at all.
    pub(crate) fn after(budget: Duration) -> Self {
        Self(Instant::now().checked_add(budget))
    }

    /// What is left: `None` when the time is up.
    ///
    /// A deadline that never comes answers with a day, after which the caller asks again.
    pub(crate) fn remaining(self) -> Option<Duration> {
        const DAY: Duration = Duration::from_secs(86_400);
        match self.0 {
            None => Some(DAY),
            Some(end) => Some(end.saturating_duration_since(Instant::now())).filter(|left| !left.is_zero()),
        }
    }

    pub(crate) fn is_over(self) -> bool {
        self.remaining().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_down_to_nothing() {
        assert!(Deadline::after(Duration::ZERO).is_over());
        let left = Deadline::after(Duration::from_secs(5)).remaining().unwrap();
        assert!(left <= Duration::from_secs(5) && left > Duration::from_secs(4));
    }

    #[test]
    fn a_budget_beyond_the_clock_never_ends() {
        let deadline = Deadline::after(Duration::MAX);
        assert!(!deadline.is_over() && deadline.0.is_none());
    }
}

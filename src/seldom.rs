//! Lines of the log that anybody could cause, about what is wrong with the system or the program: seldom enough not to fill it.

use std::{
    fmt,
    sync::Mutex,
    time::{Duration, Instant},
};

use log::Level;

use crate::sync::LockExt;

/// For one cause: a line in this time at most. What is left out is counted, and told by the next line.
#[derive(Debug)]
pub(crate) struct Seldom {
    interval: Duration,
    last: Mutex<Last>,
}

#[derive(Debug)]
struct Last {
    at: Option<Instant>,
    left_out: u32,
}

impl Seldom {
    pub(crate) const fn new(interval: Duration) -> Self {
        Self { interval, last: Mutex::new(Last { at: None, left_out: 0 }) }
    }

    pub(crate) fn log(&self, level: Level, text: fmt::Arguments<'_>) {
        // A logger may wait: the lock is free by then.
        match self.take_turn(Instant::now()) {
            None => log::debug!("{text}"),
            Some(0) => log::log!(level, "{text}"),
            Some(n) => log::log!(level, "{text} (and {n} times more since it was last logged)"),
        }
    }

    /// How many were left out; `None`: this one is, too.
    fn take_turn(&self, now: Instant) -> Option<u32> {
        let mut last = self.last.locked();
        let is_due = last.at.is_none_or(|at| now.saturating_duration_since(at) >= self.interval);
        if !is_due {
            last.left_out = last.left_out.saturating_add(1);
            return None;
        }
        last.at = Some(now);
        Some(std::mem::take(&mut last.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_counted() {
        let seldom = Seldom::new(Duration::from_secs(1));
        let start = Instant::now();
        let turn = |millis| seldom.take_turn(start + Duration::from_millis(millis));
        assert_eq!(
            [turn(0), turn(1), turn(999), turn(1000), turn(1001), turn(3000), turn(5000)],
            [Some(0), None, None, Some(2), None, Some(1), Some(0)]
        );
    }
}

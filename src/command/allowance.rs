//! What one client may send into a room, where each of its messages goes to everybody.

use std::time::Instant;

/// Short messages count as much as this many bytes: each costs every reader a message.
const SHORTEST: usize = 64;

/// So many bytes at once, and then so many each second.
#[derive(Debug)]
pub(super) struct Allowance {
    at_once: f64,
    each_second: f64,
    left: f64,
    at: Instant,
}

impl Allowance {
    pub(super) fn new(at_once: u32, each_second: u32) -> Self {
        let at_once = f64::from(at_once);
        Self { at_once, each_second: f64::from(each_second), left: at_once, at: Instant::now() }
    }

    /// Takes as much as a message of so many bytes needs. False: it is not there.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        self.take_at(bytes, Instant::now())
    }

    fn take_at(&mut self, bytes: usize, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + seconds * self.each_second).min(self.at_once);
        self.at = now;
        let cost = bytes.max(SHORTEST) as f64;
        let fits = cost <= self.left;
        if fits {
            self.left -= cost;
        }
        fits
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn so_much_at_once_and_then_so_much_each_second() {
        let mut allowance = Allowance::new(4000, 1000);
        let start = Instant::now();
        let mut take = |bytes, millis| allowance.take_at(bytes, start + Duration::from_millis(millis));
        assert!(!take(4001, 10));
        assert!(take(3000, 10) && take(1000, 10) && !take(1, 10));
        assert!(take(500, 600) && !take(500, 600));
        assert!(take(4000, 60_000) && !take(200, 60_100));
    }

    #[test]
    fn short_messages_count_too() {
        let mut allowance = Allowance::new(640, 0);
        let now = Instant::now();
        assert_eq!((0..20).filter(|_| allowance.take_at(0, now)).count(), 10);
    }
}

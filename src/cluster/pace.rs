//! How often something is tried that fails, and what the log says of it.

use std::time::{Duration, Instant};

use log::Level;

const FIRST: Duration = Duration::from_millis(100);
/// The longest time between two tries.
pub(super) const LONGEST: Duration = Duration::from_secs(5);

/// How often the log says that it fails still.
pub(super) const AGAIN: Duration = Duration::from_secs(60);

/// Tries, with growing delays between them.
#[derive(Debug)]
pub(super) struct Pace {
    what: &'static str,
    delay: Duration,
    /// When it was said that it fails.
    said: Option<Instant>,
}

impl Pace {
    /// `what` begins the line in the log.
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, delay: FIRST, said: None }
    }

    /// How long to wait before the next try: not all nodes at the same time.
    pub(super) fn failed(&mut self, why: &str) -> Duration {
        let is_news = self.said.is_none_or(|said| said.elapsed() >= AGAIN);
        if is_news {
            self.said = Some(Instant::now());
        }
        self.tell(if is_news { Level::Warn } else { Level::Debug }, why)
    }

    /// The same where somebody else says it.
    pub(super) fn failed_as_well(&mut self, why: &str) -> Duration {
        self.tell(Level::Debug, why)
    }

    fn tell(&mut self, level: Level, why: &str) -> Duration {
        log::log!(level, "{}: {why}", self.what);
        let delay = self.delay;
        self.delay = (delay * 2).min(LONGEST);
        let [chance] = crate::id::random_bytes();
        delay.mul_f32(0.5 + f32::from(chance) / 512.0)
    }

    /// It works.
    pub(super) fn worked(&mut self) {
        *self = Self::new(self.what);
    }
}

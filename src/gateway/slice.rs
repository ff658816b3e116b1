//! A while, for what can be done later: the gateway does so much of it, and then looks for what has come.

use std::time::Duration;

use crate::clock::{Clock, Moment};

/// About so long.
const SLICE: Duration = Duration::from_micros(500);

#[derive(Debug)]
pub(super) struct Slice(Moment);

impl Slice {
    pub(super) fn new(now: Moment) -> Self {
        Self(now + SLICE)
    }

    pub(super) fn is_over(&self, clock: &Clock) -> bool {
        clock.exact() >= self.0
    }
}

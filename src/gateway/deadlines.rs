//! When connections are to be looked at: at most one moment for each.

use std::collections::BTreeSet;

use super::entries::Key;
use crate::clock::Moment;

#[derive(Debug, Default)]
pub(super) struct Deadlines(BTreeSet<(Moment, Key)>);

impl Deadlines {
    /// Sets, moves, or takes away the deadline of an entry; `armed` is the one that it has.
    pub(super) fn set(&mut self, key: Key, armed: &mut Option<Moment>, deadline: Option<Moment>) {
        if *armed != deadline {
            armed.map(|moment| self.0.remove(&(moment, key)));
            deadline.map(|moment| self.0.insert((moment, key)));
            *armed = deadline;
        }
    }

    /// The next one.
    pub(super) fn next(&self) -> Option<Moment> {
        self.0.first().map(|(moment, _)| *moment)
    }

    /// An entry whose deadline has come. It keeps it until it is set anew.
    pub(super) fn due(&self, now: Moment) -> Option<Key> {
        self.0.first().filter(|(moment, _)| *moment <= now).map(|(_, key)| *key)
    }
}

//! When connections are to be looked at: a heap with the earliest moment of each.
//!
//! A deadline that moves to a later moment stays where it is, and whoever looks then arms it anew: traffic does not touch the
//! heap. What an earlier deadline, or the end of an entry, has made stale is ignored when its moment comes, and thrown away
//! when it is most of the heap.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::entries::{Entries, Key};
use crate::clock::Moment;

/// The heap may have so many stale moments, and as many as there are entries.
const MAX_STALE: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Deadlines(BinaryHeap<Reverse<(Moment, Key)>>);

impl Deadlines {
    /// Has an entry looked at by this moment.
    pub(super) fn arm(&mut self, key: Key, deadline: Option<Moment>, entries: &mut Entries) {
        let Some(entry) = entries.get_mut(key) else { return };
        let Some(deadline) = deadline.filter(|deadline| entry.armed.is_none_or(|armed| *deadline < armed))
        else {
            return;
        };
        entry.armed = Some(deadline);
        if self.0.len() > 2 * entries.len() + MAX_STALE {
            self.0.retain(|Reverse((moment, key))| entries.is_armed(*key, *moment));
        }
        self.0.push(Reverse((deadline, key)));
    }

    /// The next one; perhaps a stale one.
    pub(super) fn next(&self) -> Option<Moment> {
        self.0.peek().map(|Reverse((moment, _))| *moment)
    }

    /// An entry whose moment has come; it has to be armed again.
    pub(super) fn take_due(&mut self, now: Moment, entries: &mut Entries) -> Option<Key> {
        while let Some(&Reverse((moment, key))) = self.0.peek()
            && moment <= now
        {
            self.0.pop();
            if entries.is_armed(key, moment)
                && let Some(entry) = entries.get_mut(key)
            {
                entry.armed = None;
                return Some(key);
            }
        }
        None
    }
}

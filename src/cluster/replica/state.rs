//! How a copy stands with what is heard, and who waits for it: what is looked at and changed in a moment, also while something is delivered.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Condvar, Mutex},
};

use super::{super::publications::Publication, common::Common};
use crate::{
    history::{Position, Since},
    sync::LockExt,
};

#[derive(Default)]
pub(super) struct State {
    pub(super) step: Step,
    /// How often it has fallen behind.
    pub(super) round: u64,
    pub(super) is_loaded: bool,
    /// The thread that loads knows of it.
    pub(super) is_queued: bool,
    pub(super) waiting: VecDeque<Publication>,
    waiting_bytes: usize,
    /// There was no room for more.
    pub(super) has_dropped: bool,
    pub(super) reached: Option<Position>,
    /// Publications of this node whose delivery here somebody waits for: whom they have reached.
    pub(super) expected: HashMap<u64, Arc<Expected>>,
    /// So many wait for a change.
    pub(super) waits: usize,
}

/// A delivery that somebody waits for.
#[derive(Default)]
pub(super) struct Expected {
    pub(super) reached: Mutex<Option<[usize; 4]>>,
    pub(super) told: Condvar,
}

impl Expected {
    pub(super) fn tell(&self, reached: [usize; 4]) {
        *self.reached.locked() = Some(reached);
        self.told.notify_one();
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Step {
    /// The node does not listen to the topic.
    #[default]
    Unheard,
    Behind,
    Current,
}

impl State {
    /// See [`Replica::serves`](super::Replica::serves).
    pub(super) fn serves(&self, since: &Since) -> bool {
        let Some(reached) = self.reached.filter(|_| self.is_loaded) else { return false };
        *since == Since::NOTHING
            || since.last_of(reached.epoch()).is_some_and(|seen| seen <= reached.offset())
    }

    /// True: the thread that loads has to know.
    pub(super) fn fall_behind(&mut self) -> bool {
        self.step = Step::Behind;
        self.round += 1;
        !std::mem::replace(&mut self.is_queued, true)
    }

    /// What was not delivered will not be, or somebody else tells.
    pub(super) fn expect_no_more(&mut self) {
        self.expected.drain().for_each(|(_, expected)| expected.tell(Default::default()));
    }

    pub(super) fn wait(&mut self, publication: Publication, common: &Common) {
        if self.has_dropped {
            return; // all is fetched
        }
        let length = publication.body.len() + size_of::<Publication>();
        if !common.take_waiting(length) {
            self.drop_waiting(common);
            self.has_dropped = true;
            return;
        }
        self.waiting_bytes += length;
        self.waiting.push_back(publication);
    }

    pub(super) fn take_waiting(&mut self, common: &Common) -> VecDeque<Publication> {
        common.give_back(std::mem::take(&mut self.waiting_bytes));
        std::mem::take(&mut self.waiting)
    }

    pub(super) fn drop_waiting(&mut self, common: &Common) {
        self.has_dropped = false;
        drop(self.take_waiting(common));
    }
}

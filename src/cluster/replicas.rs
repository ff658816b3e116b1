//! The copies of what topics remember, of those that this node listens to; and the bound that all of them have together.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::{
    bus::Failed,
    envelope::Sender as Me,
    pace::Pace,
    publications::Publication,
    replica::{Common, Replica},
};
use crate::{
    history::{History, Log},
    registry::Registry,
    sync::{AtomicU64, LockExt},
};

/// How many are looked at, by each that is used, that are of no use any more, or in use.
const LOOKS: usize = 4;

pub(super) struct Replicas {
    common: Arc<Common>,
    table: Mutex<Table>,
    /// Those that have to be loaded. `None`: no more.
    to_load: Sender<Option<Arc<Replica>>>,
    loading: Receiver<Option<Arc<Replica>>>,
    number: AtomicU64,
    pace: Mutex<Pace>,
}

/// What the thread that loads has to do.
pub(super) enum Next {
    Load(Arc<Replica>),
    NotYet,
    /// There will be none any more.
    Over,
}

#[derive(Default)]
struct Table {
    by_topic: HashMap<Arc<str>, Entry>,
    /// Those that remember something, those first that are of no use first.
    order: BTreeMap<Order, Arc<str>>,
    count: u64,
}

struct Entry {
    replica: Arc<Replica>,
    /// So many want it who have not joined yet.
    wanted: usize,
    order: Order,
}

/// Until when it is of use; and a number, to tell those apart that are so until the same moment.
type Order = (Instant, u64);

impl Replicas {
    pub(super) fn new(me: Me, bounds: (usize, usize)) -> Self {
        let (to_load, loading) = unbounded();
        let pace = Pace::new("the cluster cannot publish to topics that remember");
        Self {
            common: Arc::new(Common::new(me, bounds)),
            table: Mutex::default(),
            to_load,
            loading,
            number: AtomicU64::new(0),
            pace: Mutex::new(pace),
        }
    }

    pub(super) fn max_log_bytes(&self) -> usize {
        self.common.max_log_bytes
    }

    /// A number for a publication.
    pub(super) fn number(&self) -> u64 {
        self.number.fetch_add(1, Relaxed)
    }

    /// Redis does not take what is published.
    pub(super) fn tell_why(&self, failed: &Failed) {
        if let Failed::Refused(_) = failed {
            self.pace.locked().failed(&failed.to_string());
        }
    }

    pub(super) fn find(&self, topic: &str) -> Option<Arc<Replica>> {
        self.table.locked().by_topic.get(topic).map(|entry| entry.replica.clone())
    }

    /// Somebody wants one, until this is [over](Self::unwant).
    pub(super) fn want(&self, topic: &Arc<str>, history: History) -> Arc<Replica> {
        let mut table = self.table.locked();
        let entry = table.entry(topic, history, &self.common);
        entry.wanted += 1;
        entry.replica.clone()
    }

    pub(super) fn unwant(&self, topic: &str) {
        let mut table = self.table.locked();
        let Some(entry) = table.by_topic.get_mut(topic) else { return };
        entry.wanted = entry.wanted.saturating_sub(1);
        if entry.wanted == 0 && entry.replica.is_blank() {
            table.remove(topic);
        }
    }

    /// Whether somebody wants to join.
    pub(super) fn is_wanted(&self, topic: &str) -> bool {
        self.table.locked().by_topic.get(topic).is_some_and(|entry| entry.wanted > 0)
    }

    /// The topics that somebody wants to join.
    pub(super) fn wanted(&self) -> Vec<Arc<str>> {
        let table = self.table.locked();
        table.by_topic.iter().filter(|(_, entry)| entry.wanted > 0).map(|(topic, _)| topic.clone()).collect()
    }

    // For the thread that hears.

    /// This node listens to a topic.
    pub(super) fn begin(&self, topic: &Arc<str>, history: History) {
        let replica = self.table.locked().entry(topic, history, &self.common).replica.clone();
        if replica.begin() {
            self.load(replica);
        }
    }

    /// It does not any more. `has_share`: somebody has come meanwhile, so it will.
    pub(super) fn end(&self, topic: &str, has_share: impl FnOnce() -> bool) {
        let mut table = self.table.locked();
        let Some(entry) = table.by_topic.get(topic) else { return };
        entry.replica.end();
        if entry.wanted == 0 && !has_share() {
            table.remove(topic);
        }
    }

    /// It listens to nothing any more.
    pub(super) fn end_all(&self) {
        let table = self.table.locked();
        table.by_topic.values().for_each(|entry| entry.replica.end());
    }

    /// It will listen to those that somebody is in, or wants to join.
    pub(super) fn retain(&self, has_share: impl Fn(&Arc<str>) -> bool) {
        let mut table = self.table.locked();
        let is_left = |(topic, entry): (&Arc<str>, &Entry)| {
            (entry.wanted == 0 && !has_share(topic)).then(|| topic.clone())
        };
        let left: Vec<_> = table.by_topic.iter().filter_map(is_left).collect();
        left.iter().for_each(|topic| table.remove(topic));
    }

    /// A publication was heard.
    pub(super) fn hear(&self, registry: &Registry, topic: &str, publication: Publication) {
        let Some(replica) = self.find(topic) else { return };
        self.make_room(&replica, Log::size(publication.body.len(), None));
        if replica.hear(registry, publication) {
            self.load(replica);
        }
    }

    fn load(&self, replica: Arc<Replica>) {
        let _ = self.to_load.send(Some(replica)); // this holds the other end, too
    }

    /// Something is added to it. Others forget what is of no use any more, or, beyond the bound, of the least.
    pub(super) fn make_room(&self, replica: &Arc<Replica>, added: usize) {
        let Common { max_bytes, max_log_bytes, bytes, .. } = &*self.common;
        let mut table = self.table.locked();
        let now = Instant::now();
        table.touch(replica, now);
        for _ in 0..LOOKS {
            table.forget_one(replica, |until| until <= now);
        }
        // What is too large is not remembered, so nothing is forgotten for it.
        let needed = if added <= *max_bytes.min(max_log_bytes) { added } else { 0 };
        while bytes.load(Relaxed) + needed > *max_bytes && table.forget_one(replica, |_| true) {}
    }

    // For the thread that loads.

    /// The next one that has to be loaded; waits for it, until then at most.
    pub(super) fn next_to_load(&self, until: Option<Instant>) -> Next {
        let next = match until {
            Some(until) => self.loading.recv_deadline(until),
            None => self.loading.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(Some(replica)) => Next::Load(replica),
            Err(RecvTimeoutError::Timeout) => Next::NotYet,
            Ok(None) | Err(RecvTimeoutError::Disconnected) => Next::Over,
        }
    }

    /// It could not be loaded.
    pub(super) fn try_again(&self, replica: Arc<Replica>) {
        if replica.requeue() {
            self.load(replica);
        }
    }

    /// No more are loaded.
    pub(super) fn close(&self) {
        let _ = self.to_load.send(None);
    }
}

impl Table {
    fn entry(&mut self, topic: &Arc<str>, history: History, common: &Arc<Common>) -> &mut Entry {
        self.by_topic.entry(topic.clone()).or_insert_with(|| {
            let replica = Arc::new(Replica::new(topic, history, common));
            Entry { replica, wanted: 0, order: (Instant::now(), 0) } // it remembers nothing yet
        })
    }

    fn remove(&mut self, topic: &str) {
        if let Some(entry) = self.by_topic.remove(topic) {
            self.order.remove(&entry.order);
        }
    }

    fn touch(&mut self, replica: &Arc<Replica>, now: Instant) {
        let Some(entry) = self.by_topic.get_mut(&replica.topic) else { return };
        self.count += 1;
        // Beyond the range of the clock it may as well be ten years.
        let until =
            now.checked_add(replica.history.age).unwrap_or(now + Duration::from_secs(10 * 365 * 86_400));
        self.order.remove(&entry.order);
        entry.order = (until, self.count);
        self.order.insert(entry.order, replica.topic.clone());
    }

    /// Has one of those forget all that may, if it is not this one, nor just being used. False: there is none.
    fn forget_one(&mut self, mine: &Arc<Replica>, may: impl Fn(Instant) -> bool) -> bool {
        let found = self.order.iter().take(LOOKS).filter(|((until, _), _)| may(*until)).find(|(_, topic)| {
            let Some(entry) = self.by_topic.get(*topic) else { return true };
            !Arc::ptr_eq(&entry.replica, mine) && entry.replica.forget()
        });
        let Some(order) = found.map(|(order, _)| *order) else { return false };
        self.order.remove(&order);
        true
    }
}

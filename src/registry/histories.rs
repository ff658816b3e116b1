//! The logs of all topics that remember something, and the bound that all of them have together.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{
    error::ServerError,
    history::{History, Log, Room, Rules},
    limits::Limits,
    sync::LockExt,
};

/// How many topics are forgotten that are of no use any more, by each that is used: more than one, so that none is left in the end.
const LOOKS: usize = 4;

/// Which topics remember, and what they do.
#[derive(Debug)]
pub(crate) struct Histories {
    rules: Rules,
    /// Of one log, so that an empty queue has room for all of it.
    max_log_bytes: usize,
    max_bytes: usize,
    bytes: Arc<AtomicUsize>,
    topics: Mutex<Topics>,
}

#[derive(Debug, Default)]
struct Topics {
    by_name: HashMap<Arc<str>, Entry>,
    /// Those that have nothing to give are forgotten first.
    empty: BTreeMap<Order, Arc<str>>,
    remembering: BTreeMap<Order, Arc<str>>,
    count: u64,
}

#[derive(Debug)]
struct Entry {
    log: Arc<Mutex<Log>>,
    order: Order,
    /// It was published to.
    remembers: bool,
}

/// Until when it is of use; and a number, to tell those apart that are so until the same moment.
type Order = (Instant, u64);

/// How much of a queue may be filled with what a client has missed: the rest is for what comes meanwhile.
pub(super) fn room(limits: &Limits) -> Room {
    let part = |all: usize| all - all / 4;
    Room { messages: part(limits.max_queue_messages), bytes: part(limits.queue_bytes()) }
}

/// The smallest [`Limits::max_queue_messages`] whose [`room`] is for so many publications, and the line before them.
fn queue_for(publications: usize) -> usize {
    publications.saturating_add(publications / 3).saturating_add(1)
}

impl Histories {
    /// # Errors
    /// [`ServerError::Config`]: what a topic remembers would not fit into the queue of a client that has missed it.
    pub(super) fn check(rules: &Rules, limits: &Limits) -> Result<(), ServerError> {
        match rules.largest() {
            // There is a line before them.
            Some((name, size)) if size >= room(limits).messages => Err(ServerError::config(format!(
                "history of {name:?}: {size} publications are too many for the queue of a client that has missed them all: raise the \
                 limit max_queue_messages, which is {}, and of which they may fill three quarters, to {} or more, or remember fewer",
                limits.max_queue_messages,
                queue_for(size)
            ))),
            _ => Ok(()),
        }
    }

    pub(super) fn new(rules: Rules, limits: &Limits) -> Self {
        Self {
            rules,
            max_log_bytes: room(limits).bytes,
            max_bytes: limits.history_bytes(),
            bytes: Arc::default(),
            topics: Mutex::default(),
        }
    }

    /// What this topic remembers, if it does.
    pub(crate) fn of(&self, topic: &str) -> Option<History> {
        self.rules.of(topic)
    }

    /// Whether any topic may remember something.
    #[cfg(feature = "cluster")]
    pub(crate) fn is_any(&self) -> bool {
        self.rules.largest().is_some()
    }

    /// What one log may take, and what all may take together.
    #[cfg(feature = "cluster")]
    pub(crate) fn bounds(&self) -> (usize, usize) {
        (self.max_log_bytes, self.max_bytes)
    }

    /// Uses a topic's log, alone: so what happens to the topic meanwhile has an order. `added`: the [size](Log::size) of what is
    /// published.
    pub(crate) fn with<R>(
        &self,
        topic: &str,
        history: History,
        added: Option<usize>,
        use_log: impl FnOnce(&mut Log) -> R,
    ) -> R {
        let now = Instant::now();
        loop {
            let found = self.find(topic, history, added, now);
            let mut log = found.locked();
            if log.is_forgotten {
                continue; // between the two locks
            }
            log.trim(history, self.max_log_bytes, self.max_bytes, now);
            let result = use_log(&mut log);
            log.trim(history, self.max_log_bytes, self.max_bytes, now);
            return result;
        }
    }

    /// The log of a topic, and makes room: forgets others that are of no use any more, or, beyond the bound, of the least.
    fn find(&self, topic: &str, history: History, added: Option<usize>, now: Instant) -> Arc<Mutex<Log>> {
        let mut topics = self.topics.locked();
        let log = topics.touch(topic, history.age, added.is_some(), now, &self.bytes);
        for _ in 0..LOOKS {
            topics.forget_one(&log, |until| until <= now);
        }
        // What is too large is not remembered, so nothing is forgotten for it.
        let needed = added.filter(|&added| added <= self.max_bytes.min(self.max_log_bytes)).unwrap_or(0);
        while self.bytes.load(Relaxed) + needed > self.max_bytes && topics.forget_one(&log, |_| true) {}
        log
    }
}

impl Topics {
    /// The log of a topic, new if there is none, which is of use for this long from now on.
    fn touch(
        &mut self,
        topic: &str,
        age: Duration,
        publishes: bool,
        now: Instant,
        bytes: &Arc<AtomicUsize>,
    ) -> Arc<Mutex<Log>> {
        self.count += 1;
        // Beyond the range of the clock it may as well be ten years.
        let until = now.checked_add(age).unwrap_or(now + Duration::from_secs(10 * 365 * 86_400));
        let order = (until, self.count);
        let (name, mut entry) = self.by_name.remove_entry(topic).unwrap_or_else(|| {
            let log = Arc::new(Mutex::new(Log::new(topic.len(), bytes.clone())));
            (topic.into(), Entry { log, order, remembers: false })
        });
        self.orders(entry.remembers).remove(&entry.order);
        entry.order = order;
        entry.remembers |= publishes;
        self.orders(entry.remembers).insert(order, name.clone());
        let log = entry.log.clone();
        self.by_name.insert(name, entry);
        log
    }

    fn orders(&mut self, remembers: bool) -> &mut BTreeMap<Order, Arc<str>> {
        if remembers { &mut self.remembering } else { &mut self.empty }
    }

    /// Forgets one of those that may be forgotten, if it is not this one, nor just being used. False: there is none.
    fn forget_one(&mut self, mine: &Arc<Mutex<Log>>, may: impl Fn(Instant) -> bool) -> bool {
        // Beside `mine` at most those are in use that other threads are at: behind one of them another one is found.
        let first = self.empty.iter().take(LOOKS).chain(self.remembering.iter().take(LOOKS));
        let found = first.filter(|((until, _), _)| may(*until)).find(|(_, name)| {
            let Some(Entry { log, .. }) = self.by_name.get(*name) else { return true };
            let log = (!Arc::ptr_eq(log, mine)).then(|| log.try_locked()).flatten();
            log.map(|mut log| log.is_forgotten = true).is_some()
        });
        let Some((order, name)) = found.map(|(order, name)| (*order, name.clone())) else { return false };
        self.empty.remove(&order);
        self.remembering.remove(&order);
        self.by_name.remove(&name);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{history::Since, message::Message};

    const MINUTE: Duration = Duration::from_secs(60);

    fn histories(max_bytes: usize) -> Histories {
        let limits = Limits { max_history_bytes: Some(max_bytes), ..Limits::default() };
        let mut rules = Rules::default();
        rules.add("*", History::new(10, MINUTE)).unwrap();
        Histories::new(rules, &limits)
    }

    fn publish(histories: &Histories, topic: &str) -> String {
        let history = histories.of(topic).unwrap();
        histories.with(topic, history, Some(Log::size(1000, None)), |log| {
            log.append(Message::from("x".repeat(1000)), None, Instant::now());
            log.position().to_string()
        })
    }

    fn look(histories: &Histories, topic: &str) -> String {
        histories.with(topic, histories.of(topic).unwrap(), None, |log| log.position().to_string())
    }

    #[test]
    fn beyond_the_bound_those_are_forgotten_that_have_nothing_to_give_and_then_the_oldest() {
        let histories = histories(10_000);
        let first = publish(&histories, "first");
        let second = publish(&histories, "second");
        for number in 0..1000 {
            look(&histories, &format!("nothing {number}"));
        }
        assert_eq!((look(&histories, "first"), look(&histories, "second")), (first, second.clone()));
        for _ in 0..5 {
            publish(&histories, "third");
        }
        let first = look(&histories, "first"); // so it is younger than the second
        publish(&histories, "fourth");
        publish(&histories, "fifth");
        assert_eq!(look(&histories, "first"), first);
        assert_ne!(look(&histories, "second"), second);
        assert!(histories.bytes.load(Relaxed) <= 10_000 + 600);
        drop(histories.topics.locked().by_name.drain());
        assert_eq!(histories.bytes.load(Relaxed), 0);
    }

    /// However little is missing: what is published last is remembered.
    #[test]
    fn room_is_made_for_all_that_a_publication_takes() {
        for less in [0, 1, 30, 60, 100, 150, 400] {
            let topics = ["1", "2", "3", "4"];
            let alone = histories(usize::MAX);
            topics.iter().for_each(|topic| drop(publish(&alone, topic)));
            let histories = histories(alone.bytes.load(Relaxed) - less);
            topics.iter().for_each(|topic| drop(publish(&histories, topic)));
            let room = Room { messages: 10, bytes: usize::MAX };
            let history = histories.of("4").unwrap();
            let count =
                histories.with("4", history, None, |log| log.since(&Since::NOTHING, room).messages.len());
            assert_eq!(count, 1, "{less}");
        }
    }

    #[test]
    fn one_topic_alone_forgets_its_own() {
        let histories = histories(5_000);
        for _ in 0..10 {
            publish(&histories, "it");
        }
        assert!(histories.bytes.load(Relaxed) <= 5_000);
        assert!(look(&histories, "it").ends_with(":10"));
    }

    #[test]
    fn what_is_of_no_use_any_more_is_forgotten() {
        let limits = Limits::default();
        let mut rules = Rules::default();
        rules.add("short*", History::new(10, Duration::from_millis(1))).unwrap();
        rules.add("*", History::new(10, MINUTE)).unwrap();
        let histories = Histories::new(rules, &limits);
        for number in 0..100 {
            publish(&histories, &format!("short {number}"));
            look(&histories, &format!("short and empty {number}"));
        }
        std::thread::sleep(Duration::from_millis(2));
        for _ in 0..200 {
            publish(&histories, "it");
        }
        let topics = histories.topics.locked();
        assert_eq!((topics.by_name.len(), topics.empty.len(), topics.remembering.len()), (1, 0, 1));
    }

    /// However many come and go, what one sees of a topic is never older than what it has seen before in the same epoch, and no
    /// two of one topic are used at a time.
    #[test]
    fn no_two_logs_of_a_topic_are_used_at_a_time() {
        let histories = histories(3_000);
        let inside: [AtomicUsize; 4] = Default::default();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (histories, inside) = (&histories, &inside);
                scope.spawn(move || {
                    for round in 0..2000 {
                        let number = (round * 7 + thread) % 4;
                        let topic = number.to_string();
                        let history = histories.of(&topic).unwrap();
                        histories.with(&topic, history, Some(1000), |log| {
                            assert_eq!(inside[number].fetch_add(1, Relaxed), 0);
                            log.append(Message::from("x".repeat(1000)), None, Instant::now());
                            inside[number].fetch_sub(1, Relaxed);
                        });
                    }
                });
            }
        });
    }
}

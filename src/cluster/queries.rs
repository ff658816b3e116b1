//! Asking all nodes that may know something, together: one message to all who listen, of whom Redis tells the number, and the answer
//! of each.

use std::{
    collections::HashMap,
    sync::{Arc, Condvar, Mutex},
};

use bytes::Bytes;

use super::numbers::Numbers;
use crate::{
    deadline::Deadline,
    remote::Reply,
    sync::{LockExt, wait},
    wire::Frames,
};

#[derive(Debug, Default)]
pub(super) struct Queries {
    numbers: Numbers,
    waiting: Mutex<HashMap<u64, Arc<Query>>>,
}

#[derive(Debug, Default)]
pub(super) struct Query {
    state: Mutex<State>,
    told: Condvar,
}

#[derive(Debug, Default)]
struct State {
    replies: Vec<Reply>,
    /// Those who have answered, this node included.
    answered: u64,
    /// What the others answer does not arrive any more.
    is_lost: bool,
}

/// A query that is answered until this is dropped.
pub(super) struct Asking<'a> {
    queries: &'a Queries,
    pub(super) number: u64,
    query: Arc<Query>,
}

impl Queries {
    pub(super) fn begin(&self) -> Asking<'_> {
        let number = u64::from(self.numbers.next());
        let query = Arc::<Query>::default();
        self.waiting.locked().insert(number, query.clone());
        Asking { queries: self, number, query }
    }

    /// A node has answered; `None`: this one, which knows what it has.
    pub(super) fn reply(&self, number: u64, frames: Option<&Bytes>) {
        let Some(query) = self.waiting.locked().get(&number).cloned() else { return };
        let reply = match frames.map(|frames| (frames, Frames::of(frames).next())) {
            None => None,
            Some((frames, Some(Ok((_, body))))) => Some(Reply::new(frames.slice_ref(body))),
            Some(_) => return, // it is no answer
        };
        let mut state = query.state.locked();
        state.answered += 1;
        state.replies.extend(reply);
        query.told.notify_one();
    }

    /// What was asked until now will not be answered.
    pub(super) fn lose_all(&self) {
        for query in self.waiting.locked().values() {
            query.state.locked().is_lost = true;
            query.told.notify_one();
        }
    }
}

impl Asking<'_> {
    /// Waits until so many have answered. `None`: the time is up, or they will not.
    pub(super) fn wait(&self, count: u64, deadline: Deadline) -> Option<Vec<Reply>> {
        let mut state = self.query.state.locked();
        while state.answered < count {
            if state.is_lost {
                return None;
            }
            state = wait(&self.query.told, state, deadline.remaining()?);
        }
        Some(std::mem::take(&mut state.replies))
    }

    /// The same, of those who have answered until then.
    pub(super) fn wait_for_some(&self, count: u64, deadline: Deadline) -> Vec<Reply> {
        self.wait(count, deadline).unwrap_or_else(|| std::mem::take(&mut self.query.state.locked().replies))
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        self.queries.waiting.locked().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_two_starts_of_a_node_ask_has_other_numbers() {
        let [one, other] = [Queries::default(), Queries::default()];
        assert_ne!(one.begin().number, other.begin().number);
    }

    #[test]
    fn who_waits_for_answers_is_told_that_there_will_be_none() {
        let queries = Queries::default();
        let asking = queries.begin();
        queries.reply(asking.number, None);
        queries.reply(asking.number, Some(&Bytes::from("no answer")));
        let later = Deadline::after(Duration::from_secs(20));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| asking.wait(2, later).is_none());
            queries.lose_all();
            assert!(waiting.join().unwrap() && later.remaining().is_some());
        });
        assert!(asking.wait(1, later).is_some() && queries.begin().wait(0, later).is_some());
    }
}

//! Asking all nodes that may know something, together: one message to all who listen, of whom Redis tells the number, and the answer
//! of each.

use std::{
    collections::HashMap,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

use bytes::Bytes;

use crate::{
    deadline::Deadline,
    id::random_bytes,
    remote::Reply,
    sync::{LockExt, wait},
    wire::{Frames, Malformed},
};

#[derive(Debug)]
pub(super) struct Queries {
    last: AtomicU32,
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
}

/// A query that is answered until this is dropped.
pub(super) struct Asking<'a> {
    queries: &'a Queries,
    pub(super) number: u64,
    query: Arc<Query>,
}

impl Default for Queries {
    /// The numbers are others than those of earlier starts of the node: what these have asked may be answered now.
    fn default() -> Self {
        Self { last: AtomicU32::new(u32::from_ne_bytes(random_bytes())), waiting: Mutex::default() }
    }
}

impl Queries {
    pub(super) fn begin(&self) -> Asking<'_> {
        let number = u64::from(self.last.fetch_add(1, Relaxed));
        let query = Arc::<Query>::default();
        self.waiting.locked().insert(number, query.clone());
        Asking { queries: self, number, query }
    }

    /// A node has answered; `None`: this one, which knows what it has.
    pub(super) fn reply(&self, number: u64, frames: Option<&Bytes>) {
        let Some(query) = self.waiting.locked().get(&number).cloned() else { return };
        let reply = frames.map(|frames| match Frames::of(frames).next() {
            Some(Ok((_, body))) => Ok(Reply::new(frames.slice_ref(body))),
            _ => Err(Malformed("no answer")),
        });
        let mut state = query.state.locked();
        state.answered += 1;
        state.replies.extend(reply.and_then(Result::ok));
        query.told.notify_one();
    }
}

impl Asking<'_> {
    /// Waits until so many have answered. `None`: the time is up.
    pub(super) fn wait(&self, count: u64, deadline: Deadline) -> Option<Vec<Reply>> {
        let mut state = self.query.state.locked();
        while state.answered < count {
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

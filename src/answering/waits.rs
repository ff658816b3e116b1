//! The threads of a link, for what waits: started at need, they stay a moment for more, and end with the link.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::Scope,
    time::Duration,
};

use bytes::Bytes;

use super::places::{OF_LINK, Place, Places};
use crate::{caught::caught, registry::Found, sync::LockExt, thread::spawn_scoped};

/// How long a thread without work stays.
const KEEP: Duration = Duration::from_secs(2);

/// As that of connections, by default.
const STACK: usize = 256 << 10;

/// A request that may wait.
pub(super) struct Job {
    pub(super) number: u32,
    pub(super) body: Bytes,
    /// The connection that it is about, which was there when it was asked.
    pub(super) found: Option<Found>,
}

/// The requests of a link that wait, or are about to.
pub(super) struct Waits {
    queue: Mutex<Queue>,
    changed: Condvar,
    places: Arc<Places>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<(Job, Place)>,
    /// Threads without work.
    idle: usize,
    /// Jobs that are not done.
    waiting: usize,
    is_closed: bool,
}

impl Waits {
    pub(super) fn new(places: &Arc<Places>) -> Self {
        Self { queue: Mutex::default(), changed: Condvar::new(), places: places.clone() }
    }

    /// Has a job done by a thread of its own, as `run` does it. False: too many wait already, or there is no thread.
    pub(super) fn put<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        job: Job,
        run: impl Fn(Job) + Copy + Send + 'scope,
    ) -> bool {
        let Some(place) = self.places.take(job.body.len()) else { return false };
        let mut queue = self.queue.locked();
        if queue.is_closed || queue.waiting >= OF_LINK {
            return false;
        }
        queue.waiting += 1;
        queue.jobs.push_back((job, place));
        if queue.idle >= queue.jobs.len() {
            self.changed.notify_one();
            return true;
        }
        if let Err(e) = spawn_scoped(scope, "switchboard-wait", STACK, move || self.work(run)) {
            log::debug!("a link: {e}");
            // Those that have work may have it for long.
            queue.jobs.pop_back();
            queue.waiting -= 1;
            return false;
        }
        true
    }

    /// No more is done, and threads end. What waits to be done is dropped.
    pub(super) fn close(&self) {
        let mut queue = self.queue.locked();
        queue.is_closed = true;
        let jobs = std::mem::take(&mut queue.jobs);
        queue.waiting -= jobs.len();
        drop(queue);
        self.changed.notify_all();
    }

    fn work(&self, run: impl Fn(Job)) {
        while let Some((job, place)) = self.next() {
            if caught(|| run(job)).is_none() {
                log::error!("a thread of a link panicked");
            }
            drop(place);
            self.queue.locked().waiting -= 1;
        }
    }

    /// The next job; `None` if there is none for a while, or no more at all.
    fn next(&self) -> Option<(Job, Place)> {
        let mut queue = self.queue.locked();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.is_closed {
                return None;
            }
            queue.idle += 1;
            let (locked, waited) =
                self.changed.wait_timeout(queue, KEEP).unwrap_or_else(PoisonError::into_inner);
            queue = locked;
            queue.idle -= 1;
            if waited.timed_out() && queue.jobs.is_empty() {
                return None;
            }
        }
    }
}

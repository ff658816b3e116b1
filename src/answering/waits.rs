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
    places: Arc<Places>,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<(Job, Place)>,
    /// Threads without work. The last one is the first to get some: so the others can end.
    idle: Vec<Arc<Condvar>>,
    /// Jobs that are not done.
    waiting: usize,
    is_closed: bool,
}

impl Waits {
    pub(super) fn new(places: &Arc<Places>) -> Self {
        Self { queue: Mutex::default(), places: places.clone() }
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
        if let Some(thread) = queue.idle.pop() {
            thread.notify_one();
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
        queue.idle.drain(..).for_each(|thread| thread.notify_one());
    }

    fn work(&self, run: impl Fn(Job)) {
        let woken = Arc::default();
        while let Some((job, place)) = self.next(&woken) {
            if caught(|| run(job)).is_none() {
                log::error!("a thread of a link panicked");
            }
            drop(place);
            self.queue.locked().waiting -= 1;
        }
    }

    /// The next job; `None` if there is none for a while, or no more at all. By `woken` this thread learns of it.
    fn next(&self, woken: &Arc<Condvar>) -> Option<(Job, Place)> {
        let mut queue = self.queue.locked();
        loop {
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            if queue.is_closed {
                return None;
            }
            queue.idle.push(woken.clone());
            let (locked, waited) = woken.wait_timeout(queue, KEEP).unwrap_or_else(PoisonError::into_inner);
            queue = locked;
            // Whoever wakes it for a job has taken it out.
            let place = queue.idle.iter().position(|other| Arc::ptr_eq(other, woken));
            if place.map(|place| queue.idle.remove(place)).is_some() && waited.timed_out() {
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Barrier, thread, time::Instant};

    use super::*;

    #[test]
    fn the_threads_of_a_moment_with_much_work_end_while_some_goes_on() {
        let waits = Waits::new(&Arc::default());
        let together = Barrier::new(8);
        let run = |job: Job| {
            if job.number == 0 {
                together.wait();
            }
        };
        let (idle, waiting) = (|| waits.queue.locked().idle.len(), || waits.queue.locked().waiting);
        thread::scope(|scope| {
            let put = |number| {
                assert!(waits.put(scope, Job { number, body: Bytes::new(), found: None }, run));
            };
            (0..8).for_each(|_| put(0));
            let begun = Instant::now();
            while waiting() > 0 || idle() != 1 {
                assert!(begun.elapsed() < 10 * KEEP, "{} threads", idle());
                put(1);
                thread::sleep(Duration::from_millis(10));
            }
            waits.close();
        });
    }
}

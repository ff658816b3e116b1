//! Jobs, and the threads that wait for them. No channel, which would wake a thread for each job: several that are put in
//! together wake each thread once.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, PoisonError},
};

use crate::sync::LockExt;

/// So many jobs may be taken before one that was begun goes on.
const IN_FRONT: usize = 4;

/// A queue of jobs for any number of threads.
#[derive(Debug)]
pub(crate) struct Jobs<Job> {
    state: Mutex<State<Job>>,
    given: Condvar,
}

#[derive(Debug)]
struct State<Job> {
    jobs: VecDeque<Job>,
    /// Those that were begun: they go on behind the others, now and then before them.
    begun: VecDeque<Job>,
    /// So many jobs were taken in a row while one that was begun waited.
    in_front: usize,
    /// Threads that wait.
    idle: usize,
    /// Those of them that have been woken, and do not run yet.
    woken: usize,
    closed: bool,
}

impl<Job> Default for Jobs<Job> {
    fn default() -> Self {
        let state = State {
            jobs: VecDeque::new(),
            begun: VecDeque::new(),
            in_front: 0,
            idle: 0,
            woken: 0,
            closed: false,
        };
        Self { state: Mutex::new(state), given: Condvar::new() }
    }
}

impl<Job> Jobs<Job> {
    /// Adds a job, and leaves it to [`wake`](Self::wake) to have it done, so that several wake a thread once. Gives it back
    /// when the queue is closed. Returns how many wait now.
    pub(crate) fn put(&self, job: Job) -> Result<usize, Job> {
        let mut state = self.state.locked();
        if state.closed {
            return Err(job);
        }
        state.jobs.push_back(job);
        Ok(state.jobs.len())
    }

    /// As [`put`](Self::put), of a job that was begun and is not done yet.
    pub(crate) fn put_back(&self, job: Job) -> Result<(), Job> {
        let mut state = self.state.locked();
        if state.closed {
            return Err(job);
        }
        state.begun.push_back(job);
        Ok(())
    }

    /// Wakes as many threads as there are jobs.
    pub(crate) fn wake(&self) {
        let mut state = self.state.locked();
        let more = (state.jobs.len() + state.begun.len()).min(state.idle).saturating_sub(state.woken);
        state.woken += more;
        drop(state);
        for _ in 0..more {
            self.given.notify_one();
        }
    }

    /// Waits for a job. `None`: the queue is closed and empty.
    pub(crate) fn take(&self) -> Option<Job> {
        let mut state = self.state.locked();
        loop {
            if let Some(job) = state.pop() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state.idle += 1;
            state = self.given.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
            state.woken = state.woken.saturating_sub(1);
        }
    }

    /// No more jobs: threads end when those that are there are done.
    pub(crate) fn close(&self) {
        self.state.locked().closed = true;
        self.given.notify_all();
    }
}

impl<Job> State<Job> {
    fn pop(&mut self) -> Option<Job> {
        if self.begun.is_empty() || self.in_front < IN_FRONT && !self.jobs.is_empty() {
            self.in_front += usize::from(!self.begun.is_empty());
            return self.jobs.pop_front();
        }
        self.in_front = 0;
        self.begun.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn every_job_is_taken_once() {
        let jobs = Arc::new(Jobs::default());
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let jobs = jobs.clone();
                std::thread::spawn(move || std::iter::from_fn(|| jobs.take()).collect::<Vec<i32>>())
            })
            .collect();
        for n in 0..10_000 {
            jobs.put(n).unwrap();
            if n % 7 == 0 {
                jobs.wake();
            }
        }
        jobs.wake();
        jobs.close();
        assert_eq!(jobs.put(0), Err(0));
        let mut taken: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        taken.sort_unstable();
        assert!(taken.into_iter().eq(0..10_000));
    }
}

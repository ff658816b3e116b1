//! The threads of the connections: started when none is idle, kept for a while, and joined, every one.

use std::{
    collections::HashMap,
    io,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::{deadline::Deadline, jobs::Jobs, sync::LockExt};

/// A pool that grows with its jobs and shrinks when they end.
pub(super) struct Threads<Job> {
    run: Arc<dyn Fn(Job) + Send + Sync>,
    /// Called by each thread as the last thing it does.
    ended_hook: Arc<dyn Fn() + Send + Sync>,
    idle: Arc<Jobs<Job>>,
    ended: (Sender<u64>, Receiver<u64>),
    handles: HashMap<u64, JoinHandle<()>>,
    next: u64,
    stack_size: usize,
    keep_alive: Duration,
}

impl<Job: Send + 'static> Threads<Job> {
    pub(super) fn new(
        stack_size: usize,
        keep_alive: Duration,
        run: impl Fn(Job) + Send + Sync + 'static,
        ended_hook: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self {
            run: Arc::new(run),
            ended_hook: Arc::new(ended_hook),
            idle: Arc::default(),
            ended: unbounded(),
            handles: HashMap::new(),
            next: 0,
            stack_size,
            keep_alive,
        }
    }

    /// Gives the job to an idle thread, or to a new one.
    ///
    /// # Errors
    /// The job, if the system starts no more threads.
    pub(super) fn start(&mut self, job: Job) -> Result<(), (Job, io::Error)> {
        let Err(job) = self.idle.give(job) else { return Ok(()) };
        // If the thread never runs, the job is not lost with it.
        let first = Arc::new(Mutex::new(Some(job)));
        let take = first.clone();
        let (run, hook, idle, ended) =
            (self.run.clone(), self.ended_hook.clone(), self.idle.clone(), self.ended.0.clone());
        let (key, keep_alive) = (self.next, self.keep_alive);
        let builder = std::thread::Builder::new().name("switchboard-conn".into()).stack_size(self.stack_size);
        let spawned = builder.spawn(move || {
            let mut next = take.locked().take();
            drop(take); // else its memory stays as long as the thread
            while let Some(job) = next {
                if std::panic::catch_unwind(AssertUnwindSafe(|| run(job))).is_err() {
                    log::error!("a connection's thread panicked");
                }
                next = idle.take(Some(Deadline::after(keep_alive)));
            }
            let _ = ended.send(key);
            hook();
        });
        match spawned {
            Ok(handle) => {
                self.handles.insert(key, handle);
                self.next += 1;
                Ok(())
            }
            Err(e) => match first.locked().take() {
                Some(job) => Err((job, e)),
                None => Ok(()), // never: a thread that does not run takes nothing
            },
        }
    }

    /// Joins the threads that have ended. True: there are no others.
    pub(super) fn reap(&mut self) -> bool {
        while let Ok(key) = self.ended.1.try_recv() {
            if let Some(handle) = self.handles.remove(&key) {
                // It cannot fail: the thread catches its panics.
                let _ = handle.join();
            }
        }
        self.handles.is_empty()
    }

    /// No more jobs: idle threads end at once, the others with their job.
    pub(super) fn close(&mut self) {
        self.idle.close();
    }
}

//! The threads of the connections: started when none is idle, kept for a while, and joined, every one.

use std::{collections::HashMap, io, panic::AssertUnwindSafe, sync::Arc, thread::JoinHandle, time::Duration};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, unbounded};

/// A pool that grows with its jobs and shrinks when they end.
pub(super) struct Threads<Job> {
    run: Arc<dyn Fn(Job) + Send + Sync>,
    /// Called by each thread as the last thing it does.
    ended_hook: Arc<dyn Fn() + Send + Sync>,
    idle: (Sender<Job>, Receiver<Job>),
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
            // Without a slot: a job is only taken by a thread that waits for one.
            idle: bounded(0),
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
        let job = match self.idle.0.try_send(job) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(job) | TrySendError::Disconnected(job)) => job,
        };
        // The job is handed over when the thread runs: if it never does, the job is not lost with it.
        let (give, take) = bounded(1);
        let (run, hook, more, ended) =
            (self.run.clone(), self.ended_hook.clone(), self.idle.1.clone(), self.ended.0.clone());
        let (key, keep_alive) = (self.next, self.keep_alive);
        let builder = std::thread::Builder::new().name("switchboard-conn".into()).stack_size(self.stack_size);
        let spawned = builder.spawn(move || {
            let mut next = take.recv().ok();
            drop(take); // else its memory stays as long as the thread
            while let Some(job) = next {
                if std::panic::catch_unwind(AssertUnwindSafe(|| run(job))).is_err() {
                    log::error!("a connection's thread panicked");
                }
                next = more.recv_timeout(keep_alive).ok();
            }
            let _ = ended.send(key);
            hook();
        });
        match spawned {
            Ok(handle) => {
                self.handles.insert(key, handle);
                self.next += 1;
                let _ = give.send(job);
                Ok(())
            }
            Err(e) => Err((job, e)),
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
        self.idle = (bounded(0).0, crossbeam_channel::never());
    }
}

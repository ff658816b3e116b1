//! Threads, locks that survive a panic, and a clock that costs nothing to read.

use std::{
    io,
    sync::{
        Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    thread::{Builder, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

/// Starts a thread.
pub(crate) fn spawn(
    name: &str,
    stack_size: usize,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let started = Builder::new().name(name.into()).stack_size(stack_size).spawn(run);
    let explain = |e: &io::Error| format!("cannot start a thread with a stack of {stack_size} bytes: {e}");
    started.map_err(|e| io::Error::new(e.kind(), explain(&e)))
}

/// Our own code does not panic under a lock; where user code does, what the lock guards is still whole.
pub(crate) trait LockExt<T> {
    fn locked(&self) -> MutexGuard<'_, T>;
    /// `None` if somebody holds it.
    fn try_locked(&self) -> Option<MutexGuard<'_, T>>;
}

impl<T> LockExt<T> for Mutex<T> {
    fn locked(&self) -> MutexGuard<'_, T> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn try_locked(&self) -> Option<MutexGuard<'_, T>> {
        match self.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(e)) => Some(e.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// The time in milliseconds, as of the gateway's last look: good for silences of seconds, and read without a call.
///
/// It wraps after 49 days, so it is only good for differences.
#[derive(Debug)]
pub(crate) struct Clock {
    epoch: Instant,
    date: SystemTime,
    now: AtomicU32,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { epoch: Instant::now(), date: SystemTime::now(), now: AtomicU32::new(0) }
    }

    pub(crate) fn now(&self) -> u32 {
        self.now.load(Relaxed)
    }

    pub(crate) fn update(&self) {
        self.now.store(self.epoch.elapsed().as_millis() as u32, Relaxed);
    }

    /// How long ago that was.
    pub(crate) fn since(&self, then: u32) -> Duration {
        Duration::from_millis(self.now().wrapping_sub(then).into())
    }

    /// The date of a moment, by the system's clock as it was at the server's start.
    pub(crate) fn date(&self, moment: Instant) -> SystemTime {
        self.date + moment.saturating_duration_since(self.epoch)
    }

    /// The exact time since the server's start, for round trips.
    pub(crate) fn micros(&self) -> u64 {
        self.epoch.elapsed().as_micros() as u64
    }
}

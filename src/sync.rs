//! Locks, atomics and queues: what the modules that are tested in every interleaving are built from. Those tests give them
//! others in place of these.

use std::time::Duration;

pub(crate) use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError, atomic};

/// Some 32-bit processors have none: there it takes a lock for a moment.
#[cfg(not(target_has_atomic = "64"))]
pub(crate) use portable_atomic::AtomicU64;
#[cfg(target_has_atomic = "64")]
pub(crate) use std::sync::atomic::AtomicU64;

pub(crate) use crossbeam_channel as queue;

/// Waits to be notified, for so long at most, or no reason.
pub(crate) fn wait<'a, T>(condvar: &Condvar, guard: MutexGuard<'a, T>, time: Duration) -> MutexGuard<'a, T> {
    condvar.wait_timeout(guard, time).unwrap_or_else(PoisonError::into_inner).0
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

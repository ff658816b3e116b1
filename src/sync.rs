//! Locks that survive a panic.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Our own code does not panic under a lock; where user code does, what the lock guards is still whole.
pub(crate) trait LockExt<T> {
    fn locked(&self) -> MutexGuard<'_, T>;
}

impl<T> LockExt<T> for Mutex<T> {
    fn locked(&self) -> MutexGuard<'_, T> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

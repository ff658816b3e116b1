//! The lock of a connection's core, which cannot be left without looking at what others left for its holder.
//!
//! Whoever has something for the core puts it into the outbox first, and then tries to lock: it got the lock, and sees to it
//! itself; or it did not, and the holder does, because it looks into the outbox after having let go. The fences order the
//! putting before the trying, and the letting go before the look: one of the two sees the other.
//!
//! There is no other way to lock. `tests/interleavings.rs` tries this in every order.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use crate::sync::{
    Condvar, LockExt, Mutex, MutexGuard, PoisonError,
    atomic::{Ordering::SeqCst, fence},
};

/// A value behind the lock.
#[derive(Debug)]
pub(crate) struct Lock<T>(Mutex<T>);

impl<T> Lock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }
}

/// Whose lock it is: says what is to be done around it.
pub(crate) trait Owner {
    type Core;
    /// What is to be done when the lock is free.
    type Errands;
    /// What an errand brings back to the core.
    type Result;

    fn core(&self) -> &Lock<Self::Core>;
    /// The last thing under the lock. Mostly there is nothing to do afterwards.
    fn leave(&self, core: &mut Self::Core) -> Option<Self::Errands>;
    /// The first thing without the lock.
    fn run(&self, errands: Self::Errands) -> Option<Self::Result>;
    /// Back under the lock.
    fn bring_back(&self, core: &mut Self::Core, result: Self::Result);
    /// Whether others left something for the holder.
    fn has_left(&self) -> bool;
    /// Under the lock, takes what others left. False: it cannot be taken now, and somebody else will look again.
    fn take_left(&self, core: &mut Self::Core) -> bool;
}

/// The core, locked.
pub(crate) struct Guard<'a, O: Owner> {
    owner: &'a O,
    core: Option<MutexGuard<'a, O::Core>>,
}

/// Waits for the lock.
pub(crate) fn lock<O: Owner>(owner: &O) -> Guard<'_, O> {
    Guard { owner, core: Some(owner.core().0.locked()) }
}

/// `None`: somebody holds it, and will look at what was left before.
pub(crate) fn try_lock<O: Owner>(owner: &O) -> Option<Guard<'_, O>> {
    fence(SeqCst);
    let core = owner.core().0.try_locked()?;
    Some(Guard { owner, core: Some(core) })
}

impl<O: Owner> Guard<'_, O> {
    /// Lets others have the lock until it is told, or the time is up. Only for someone who knows that whoever tells it will
    /// look at what was left.
    pub(crate) fn wait(mut self, told: &Condvar, timeout: Duration) {
        if let Some(core) = self.core.take() {
            let waited = told.wait_timeout(core, timeout);
            self.core = Some(waited.unwrap_or_else(PoisonError::into_inner).0);
        }
    }
}

impl<O: Owner> Drop for Guard<'_, O> {
    fn drop(&mut self) {
        let Some(mut core) = self.core.take() else { return };
        let mut goes_on = true;
        loop {
            let errands = self.owner.leave(&mut core);
            drop(core);
            if let Some(errands) = errands
                && let Some(result) = self.owner.run(errands)
            {
                core = self.owner.core().0.locked();
                self.owner.bring_back(&mut core, result);
                goes_on = true;
                continue;
            }
            fence(SeqCst);
            if !goes_on || !self.owner.has_left() {
                return;
            }
            let Some(again) = self.owner.core().0.try_locked() else { return };
            core = again;
            goes_on = self.owner.take_left(&mut core);
        }
    }
}

impl<O: Owner> Deref for Guard<'_, O> {
    type Target = O::Core;

    fn deref(&self) -> &O::Core {
        self.core.as_deref().unwrap_or_else(|| unreachable!("locked until it is dropped"))
    }
}

impl<O: Owner> DerefMut for Guard<'_, O> {
    fn deref_mut(&mut self) -> &mut O::Core {
        self.core.as_deref_mut().unwrap_or_else(|| unreachable!("locked until it is dropped"))
    }
}

//! The lock of a connection's core. Unlocking it always looks at the outbox, where others queue what they have for the core.
//!
//! Whoever has something queues it first, and then tries to lock. With the lock it drains the outbox itself; without it, the
//! holder does, which looks into the outbox after it has unlocked. The fences order the queueing before the try, and the
//! unlocking before the look: one of the two sees the other.
//!
//! Whoever waits for it is the next to have it: a thread that takes it again and again, as one does whose client sends without
//! end, would keep others from it for as long as that, since a thread that is woken comes too late.
//!
//! There is no other way to lock. `tests/interleavings.rs` tries this in every order.

use std::{
    ops::{Deref, DerefMut},
    time::Duration,
};

use crate::sync::{
    Condvar, LockExt, Mutex, MutexGuard, PoisonError,
    atomic::{
        AtomicU32,
        Ordering::{Relaxed, SeqCst},
        fence,
    },
};

/// A value behind the lock.
#[derive(Debug)]
pub(crate) struct Lock<T> {
    value: Mutex<T>,
    /// Whoever waits for the value holds this; all others who want to wait, wait for this first.
    next: Mutex<()>,
    /// So many wait for the one or the other.
    waiting: AtomicU32,
}

impl<T> Lock<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Mutex::new(value), next: Mutex::new(()), waiting: AtomicU32::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        // Whether somebody waits need not be seen at once: who waits has time.
        if self.waiting.load(Relaxed) == 0
            && let Some(value) = self.value.try_locked()
        {
            return value;
        }
        self.wait()
    }

    #[cold]
    fn wait(&self) -> MutexGuard<'_, T> {
        self.waiting.fetch_add(1, Relaxed);
        let next = self.next.locked();
        let value = self.value.locked();
        drop(next);
        self.waiting.fetch_sub(1, Relaxed);
        value
    }
}

/// Whose lock it is: says what is to be done around it.
pub(crate) trait Owner {
    type Core;
    /// Work that must not be done under the lock.
    type Deferred;
    /// What such work gives the core.
    type Finished;

    fn core(&self) -> &Lock<Self::Core>;
    /// The last thing under the lock: the work to be done without it. Mostly there is none.
    fn before_unlock(&self, core: &mut Self::Core) -> Option<Self::Deferred>;
    /// Does that work, without the lock.
    fn after_unlock(&self, deferred: Self::Deferred) -> Option<Self::Finished>;
    /// Under the lock again, gives the core what came of the work.
    fn finish_deferred(&self, core: &mut Self::Core, finished: Self::Finished);
    /// Whether something is in the outbox.
    fn has_queued(&self) -> bool;
    /// Drains the outbox, under the lock. False: that is not possible now, and whoever makes it possible will look again.
    fn drain_queue(&self, core: &mut Self::Core) -> bool;
}

/// The core, locked.
pub(crate) struct Guard<'a, O: Owner> {
    owner: &'a O,
    core: Option<MutexGuard<'a, O::Core>>,
}

/// Waits for the lock.
pub(crate) fn lock<O: Owner>(owner: &O) -> Guard<'_, O> {
    Guard { owner, core: Some(owner.core().lock()) }
}

/// `None`: somebody holds it, and will look at what was queued before.
pub(crate) fn try_lock<O: Owner>(owner: &O) -> Option<Guard<'_, O>> {
    fence(SeqCst);
    let core = owner.core().value.try_locked()?;
    Some(Guard { owner, core: Some(core) })
}

impl<O: Owner> Guard<'_, O> {
    /// Lets others have the lock until the condition variable is notified, or the time is up. Only where whoever notifies it
    /// looks at the outbox.
    pub(crate) fn wait(mut self, condition: &Condvar, timeout: Duration) {
        if let Some(core) = self.core.take() {
            let waited = condition.wait_timeout(core, timeout);
            self.core = Some(waited.unwrap_or_else(PoisonError::into_inner).0);
        }
    }
}

impl<O: Owner> Drop for Guard<'_, O> {
    fn drop(&mut self) {
        let Some(mut core) = self.core.take() else { return };
        let mut drained = true;
        loop {
            let deferred = self.owner.before_unlock(&mut core);
            drop(core);
            if let Some(deferred) = deferred
                && let Some(finished) = self.owner.after_unlock(deferred)
            {
                core = self.owner.core().lock();
                self.owner.finish_deferred(&mut core, finished);
                drained = true;
                continue;
            }
            fence(SeqCst);
            if !drained || !self.owner.has_queued() {
                return;
            }
            let Some(again) = self.owner.core().value.try_locked() else { return };
            core = again;
            drained = self.owner.drain_queue(&mut core);
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

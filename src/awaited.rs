//! Something that will be there soon, or never: what is meant for it is queued, and whoever needs it waits for the answer.
//!
//! One lock orders everything: what was queued before the answer is handed over before anyone is told of it, in order.
//! `tests/interleavings.rs` tries this in every order.

use std::time::Duration;

use crate::sync::{Condvar, LockExt, Mutex, PoisonError};

/// A `T`, and until it is there a queue `Q`.
#[derive(Debug)]
pub(crate) struct Awaited<Q, T> {
    state: Mutex<State<Q, T>>,
    answered: Condvar,
}

#[derive(Debug)]
enum State<Q, T> {
    Waiting(Q),
    Answered(Answer<T>),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer<T> {
    Here(T),
    /// It will never be there.
    Never,
}

impl<Q, T: Clone> Awaited<Q, T> {
    pub(crate) fn new(queue: Q) -> Self {
        Self { state: Mutex::new(State::Waiting(queue)), answered: Condvar::default() }
    }

    /// Puts an item into the queue, as long as there is no answer.
    ///
    /// # Errors
    /// The answer, and the item.
    pub(crate) fn queue<I, R>(&self, item: I, put: impl FnOnce(&mut Q, I) -> R) -> Result<R, (Answer<T>, I)> {
        match &mut *self.state.locked() {
            State::Waiting(queue) => Ok(put(queue, item)),
            State::Answered(answer) => Err((answer.clone(), item)),
        }
    }

    /// It is here. What is queued is taken piece by piece and handed over, without the lock, until there is nothing more; then
    /// it is made known, before anyone else can queue something or is told.
    pub(crate) fn fulfil<P>(
        &self,
        it: T,
        mut take: impl FnMut(&mut Q) -> Option<P>,
        mut hand_over: impl FnMut(P),
        make_known: impl FnOnce(),
    ) {
        loop {
            let mut state = self.state.locked();
            let State::Waiting(queue) = &mut *state else { return };
            if let Some(piece) = take(queue) {
                drop(state);
                hand_over(piece);
                continue;
            }
            make_known();
            *state = State::Answered(Answer::Here(it));
            drop(state);
            return self.answered.notify_all();
        }
    }

    /// It will never be here, unless there was an answer before. What is queued is dropped.
    pub(crate) fn give_up(&self) {
        let mut state = self.state.locked();
        if let State::Waiting(_) = *state {
            let queued = std::mem::replace(&mut *state, State::Answered(Answer::Never));
            drop(state);
            self.answered.notify_all();
            drop(queued); // without the lock
        }
    }

    /// The answer, if there is one.
    pub(crate) fn answer(&self) -> Option<Answer<T>> {
        match &*self.state.locked() {
            State::Waiting(_) => None,
            State::Answered(answer) => Some(answer.clone()),
        }
    }

    /// Waits for the answer, as long as there is time left. `None`: the time was up.
    pub(crate) fn wait(&self, left: impl Fn() -> Option<Duration>) -> Option<Answer<T>> {
        let mut state = self.state.locked();
        loop {
            if let State::Answered(answer) = &*state {
                return Some(answer.clone());
            }
            let waited = self.answered.wait_timeout(state, left()?);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

//! Those who wait for answers.

use std::sync::{Condvar, Mutex};

use bytes::Bytes;

use crate::{
    deadline::Deadline,
    sync::{LockExt, wait},
    wire::{Answer, Malformed, decode},
};

/// A call that waits for one answer, or for several that it has asked for together.
#[derive(Debug)]
pub(super) struct Call {
    state: Mutex<State>,
    told: Condvar,
}

#[derive(Debug)]
struct State {
    replies: Vec<Option<Reply>>,
    /// So many are still to come, unless the link has ended.
    missing: usize,
    is_lost: bool,
}

/// The body of an answer's frame.
#[derive(Clone, Debug)]
pub(crate) struct Reply(Bytes);

impl Reply {
    pub(crate) fn new(body: Bytes) -> Self {
        Self(body)
    }

    /// What it says.
    ///
    /// # Errors
    /// Not what it should be.
    pub(crate) fn answer(&self) -> Result<Answer<'_>, Malformed> {
        decode(&self.0)
    }

    /// What a message in it may share.
    pub(super) fn bytes(&self) -> &Bytes {
        &self.0
    }
}

impl Call {
    pub(super) fn new(count: usize) -> Self {
        let state = State { replies: vec![None; count], missing: count, is_lost: false };
        Self { state: Mutex::new(state), told: Condvar::new() }
    }

    /// An answer has come.
    pub(super) fn answer(&self, index: usize, reply: Reply) {
        let mut state = self.state.locked();
        if let Some(place) = state.replies.get_mut(index)
            && place.is_none()
        {
            *place = Some(reply);
            state.missing -= 1;
            if state.missing == 0 {
                drop(state);
                self.told.notify_one();
            }
        }
    }

    /// No more answers will come.
    pub(super) fn lose(&self) {
        self.state.locked().is_lost = true;
        self.told.notify_one();
    }

    /// Waits until all answers are there, or no more will come, or the time is up. False: the time is up.
    pub(super) fn wait(&self, deadline: Deadline) -> bool {
        let mut state = self.state.locked();
        while state.missing > 0 && !state.is_lost {
            let Some(left) = deadline.remaining() else { return false };
            state = wait(&self.told, state, left);
        }
        true
    }

    /// What has come.
    pub(super) fn take(&self) -> Vec<Option<Reply>> {
        std::mem::take(&mut self.state.locked().replies)
    }
}

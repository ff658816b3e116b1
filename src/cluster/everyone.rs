//! The questions that other nodes ask all, and their answers: a [`Talk`] with everyone.

use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::{
    envelope::Kind,
    member::{MAX_MESSAGE, Member},
};
use crate::{
    answering::{Desk, Ended, LOOK, Peer, Talk},
    error::{Error, Result},
    id::NodeId,
    sync::LockExt,
    wire::Malformed,
};

/// A question.
pub(super) struct Asked {
    pub(super) from: NodeId,
    pub(super) number: u64,
    pub(super) request: Bytes,
}

/// Answers until no more can be asked.
pub(super) fn answer_all(member: &Member, desk: &Desk, asked: Receiver<Asked>) {
    let everyone = Everyone { member, asked, whose: Mutex::default() };
    while let Err(Malformed(why)) = Talk::new(desk, &everyone, true, MAX_MESSAGE as u64).run(()) {
        log::debug!("the cluster: a question to all: {why}");
    }
}

struct Everyone<'a> {
    member: &'a Member,
    asked: Receiver<Asked>,
    /// Whose question is being answered.
    whose: Mutex<Option<(NodeId, u64)>>,
}

impl Everyone<'_> {
    fn whose(&self) -> MutexGuard<'_, Option<(NodeId, u64)>> {
        self.whose.locked()
    }
}

impl Peer for Everyone<'_> {
    fn receive(&self) -> Result<Bytes, Ended> {
        match self.asked.recv_timeout(LOOK) {
            Ok(Asked { from, number, request }) => {
                *self.whose() = Some((from, number));
                Ok(request)
            }
            Err(RecvTimeoutError::Timeout) => Err(Ended::NotYet),
            Err(RecvTimeoutError::Disconnected) => Err(Ended::Closed),
        }
    }

    fn send(&self, frames: Vec<u8>) -> Result<()> {
        let Some((from, number)) = *self.whose() else { return Err(Error::Unreachable) };
        // Who does not get it asks again.
        let _ = self.member.tell_to(from, Kind::Reply { number }, &frames);
        Ok(())
    }

    fn refuse(&self, Malformed(why): Malformed) {
        log::debug!("the cluster: a question to all: {why}");
    }

    fn is_over(&self) -> bool {
        false
    }
}

//! What is said with one peer, from its first request to its end.

use std::{
    convert::Infallible,
    thread::{Scope, scope},
};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};

use super::{
    Desk, Ended, Peer,
    ask::{Asked, Outcome},
    opened::Handles,
    replies::{Line, Replies},
    waits::{Job, Waits},
};
use crate::{
    registry::Found,
    wire::{self, Answer, Failure, Frames, Malformed, UNANSWERED, decode_request},
};

/// What is said with one peer. Its threads share this.
pub(crate) struct Talk<'a> {
    pub(super) desk: &'a Desk,
    pub(super) handles: Handles,
    line: Line<'a>,
    may_change: bool,
    waits: Waits,
    /// Nobody has the other end when the talk has ended.
    over: Receiver<Infallible>,
    sender: Option<Sender<Infallible>>,
}

impl<'a> Talk<'a> {
    /// `takes` is the longest message that the other side does. Whoever may change nothing may only look.
    pub(crate) fn new(desk: &'a Desk, peer: &'a dyn Peer, may_change: bool, takes: u64) -> Self {
        let (sender, over) = bounded(0);
        Self {
            desk,
            handles: Handles::default(),
            line: Line::new(peer, takes),
            may_change,
            waits: Waits::new(&desk.places),
            over,
            sender: Some(sender),
        }
    }

    /// Answers what is asked until the end. Then all that it has read goes back, and its threads end. `kept` is dropped when nothing more
    /// is done.
    ///
    /// # Errors
    /// What is not the protocol.
    pub(crate) fn run(mut self, kept: impl Sized) -> Result<(), Malformed> {
        let sender = self.sender.take();
        let this = &self;
        scope(|scope| {
            // Also if it panics: the scope waits for the threads.
            let _ending = Ending { talk: this, _sender: sender, _kept: kept };
            this.listen(scope)
        })
    }

    fn listen<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) -> Result<(), Malformed> {
        while !self.line.peer().is_over() {
            let message = match self.line.peer().receive() {
                Ok(message) => message,
                Err(Ended::NotYet) => continue,
                Err(Ended::Closed) => break,
                Err(Ended::Malformed(malformed)) => return Err(malformed),
            };
            let mut replies = Replies::new(&self.line);
            let answered = self.answer_all(scope, &message, &mut replies);
            let is_sent = replies.flush().is_ok();
            answered?;
            if !is_sent {
                break;
            }
        }
        Ok(())
    }

    fn answer_all<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
        message: &Bytes,
        replies: &mut Replies<'_>,
    ) -> Result<(), Malformed> {
        for frame in Frames::of(message) {
            let (number, body) = frame?;
            if self.line.peer().is_over() {
                break;
            }
            let Some((found, may_wait)) = self.answer(number, body, message, replies)? else { continue };
            let body = wire::part(message, body);
            // In a cluster others wait, too, as long as there is room for them; but those that nobody waits for keep their order.
            let is_put = (may_wait || number != UNANSWERED)
                && self.waits.put(scope, Job { number, body: body.clone(), found }, |job| self.wait(job));
            if !is_put && may_wait {
                replies.put(number, &Answer::Failed(Failure::TooMany));
            } else if !is_put {
                self.wait(Job { number, body, found: None });
            }
        }
        Ok(())
    }

    /// Answers a request, unless it has to wait. Then: the connection that it is about, if that had to be looked for, and whether it is one
    /// that [may](crate::wire::Request::may_wait).
    fn answer(
        &self,
        number: u32,
        body: &[u8],
        message: &Bytes,
        replies: &mut Replies<'_>,
    ) -> Result<Option<(Option<Found>, bool)>, Malformed> {
        let mut put = |answer: &Answer<'_>| replies.put(number, answer);
        let Some(request) = decode_request(body)? else {
            put(&Answer::Failed(Failure::Unsupported));
            return Ok(None);
        };
        if !self.may_change && !request.is_safe() {
            put(&Answer::Failed(Failure::Forbidden));
            return Ok(None);
        }
        if number == UNANSWERED && request.needs_answer() {
            return Err(Malformed("a request that needs its answer has no number"));
        }
        let asked = Asked { talk: self, message, may_wait: false, found: None, put: &mut put };
        Ok(match asked.answer(&request)? {
            Outcome::Done => None,
            Outcome::Waits(found) => Some((found, request.may_wait())),
        })
    }

    /// Answers a request that may wait, on a thread for that.
    fn wait(&self, job: Job) {
        let Job { number, body, found } = job;
        let mut put = |answer: &Answer<'_>| self.line.send(number, answer);
        let asked = Asked { talk: self, message: &body, may_wait: true, found, put: &mut put };
        let answered = decode_request(&body).and_then(|request| match request {
            Some(request) => asked.answer(&request),
            None => Ok(Outcome::Done), // it was known before
        });
        if let Err(malformed) = answered {
            self.line.peer().refuse(malformed);
        }
    }

    /// Whether the talk has ended.
    pub(super) fn is_over(&self) -> bool {
        self.over.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// Whether its peer does not want anything more done.
    pub(super) fn is_given_up(&self) -> bool {
        self.line.peer().is_over()
    }

    /// What is disconnected when the talk has ended.
    pub(super) fn over(&self) -> &Receiver<Infallible> {
        &self.over
    }
}

/// The end of a talk.
struct Ending<'a, K> {
    talk: &'a Talk<'a>,
    /// Dropped after what `drop` does.
    _sender: Option<Sender<Infallible>>,
    /// So is this. The talk's other threads, of which one may be writing to a slow client, end later.
    _kept: K,
}

impl<K> Drop for Ending<'_, K> {
    fn drop(&mut self) {
        self.talk.waits.close();
        self.talk.handles.close();
    }
}

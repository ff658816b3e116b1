//! What is said over a link, from its first request to its end.

use std::{
    convert::Infallible,
    sync::Arc,
    thread::{Scope, scope},
};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded};

use super::{
    Ended, Links,
    ask::{Asked, Outcome},
    binary,
    opened::Handles,
    replies::{Line, Replies},
    turns::{Taken, Turn},
    waits::{Job, Waits},
};
use crate::{
    connection::READ_TIMEOUT,
    error::Error,
    manage::token::Rights,
    message::CloseCode,
    websocket::WebSocket,
    wire::{self, Answer, Failure, Frames, Malformed, UNANSWERED, decode_request},
};

/// One link while it is open. Its threads share this.
pub(super) struct Talk<'a> {
    pub(super) links: &'a Links,
    pub(super) handles: Handles,
    line: Line<'a>,
    rights: Rights,
    waits: Waits,
    turn: Arc<Turn>,
    /// Nobody has the other end when the link has ended.
    over: Receiver<Infallible>,
    sender: Option<Sender<Infallible>>,
}

impl<'a> Talk<'a> {
    /// `takes` is the longest message that the other side does.
    pub(super) fn new(
        links: &'a Links,
        ws: &'a WebSocket,
        rights: Rights,
        takes: u64,
        turn: &Arc<Turn>,
    ) -> Self {
        let (sender, over) = bounded(0);
        Self {
            links,
            handles: Handles::default(),
            line: Line::new(ws, takes),
            rights,
            waits: Waits::new(&links.places),
            turn: turn.clone(),
            over,
            sender: Some(sender),
        }
    }

    /// Answers what is asked until the link ends. Then all that it has read goes back, and its threads end.
    ///
    /// # Errors
    /// Why it has to end.
    pub(super) fn run(mut self, taken: Taken) -> Result<(), Ended> {
        let sender = self.sender.take();
        let this = &self;
        scope(|scope| {
            // Also if it panics: the scope waits for the threads.
            let _ending = Ending { talk: this, _sender: sender, _taken: taken };
            this.listen(scope)
        })
    }

    fn listen<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) -> Result<(), Ended> {
        while !self.turn.is_over() {
            let message = match self.line.ws().read_message(READ_TIMEOUT) {
                Err(Error::Timeout) => continue,
                Err(Error::Closed(_)) => return Ok(()),
                message => binary(message?)?,
            };
            let mut replies = Replies::new(&self.line);
            let answered = self.answer_all(scope, &message, &mut replies);
            replies.flush()?;
            answered?;
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
            if self.turn.is_over() {
                break;
            }
            let Outcome::Waits(found) = self.answer(number, body, message, replies)? else { continue };
            let body = wire::part(message, body);
            if !self.waits.put(scope, Job { number, body, found }, |job| self.wait(job)) {
                replies.put(number, &Answer::Failed(Failure::TooMany));
            }
        }
        Ok(())
    }

    /// Answers a request, unless it has to wait.
    fn answer(
        &self,
        number: u32,
        body: &[u8],
        message: &Bytes,
        replies: &mut Replies<'_>,
    ) -> Result<Outcome, Malformed> {
        let mut put = |answer: &Answer<'_>| replies.put(number, answer);
        let Some(request) = decode_request(body)? else {
            put(&Answer::Failed(Failure::Unsupported));
            return Ok(Outcome::Done);
        };
        if self.rights == Rights::Read && !request.is_safe() {
            put(&Answer::Failed(Failure::Forbidden));
            return Ok(Outcome::Done);
        }
        if number == UNANSWERED && request.needs_answer() {
            return Err(Malformed("a request that needs its answer has no number"));
        }
        Asked { talk: self, message, may_wait: false, found: None, put: &mut put }.answer(&request)
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
        if let Err(Malformed(why)) = answered {
            self.line.ws().close(CloseCode::PROTOCOL_ERROR, why);
        }
    }

    /// Whether the link has ended.
    pub(super) fn is_over(&self) -> bool {
        self.over.try_recv() == Err(TryRecvError::Disconnected)
    }

    /// What is disconnected when the link has ended.
    pub(super) fn over(&self) -> &Receiver<Infallible> {
        &self.over
    }
}

/// The end of a link.
struct Ending<'a> {
    talk: &'a Talk<'a>,
    /// Dropped after what `drop` does.
    _sender: Option<Sender<Infallible>>,
    /// So is this. The link's other threads, of which one may be writing to a slow client, end later.
    _taken: Taken,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.talk.waits.close();
        self.talk.handles.close();
    }
}

//! Pushing over a link: one by one, or many with one wait.

use std::{sync::Arc, time::Duration};

use super::{
    call::Reply,
    failure::{Trouble, of_push},
    link::{Line, Link, Outgoing},
};
use crate::{
    connection::{PushError, PushErrorKind, Pushed},
    error::OverLimit,
    id::WebSocketId,
    message::{Message, Payload},
    pushes::Push,
    thread::must_not_wait,
    wire::{self, Answer, AsText, Failure, Request},
};

/// Of many pushes, so many bytes go together. A longer one goes alone.
const TOGETHER: usize = 64 * 1024;

/// A part of many pushes that goes together.
#[derive(Default)]
struct Part {
    outgoing: Outgoing,
    pushes: Vec<Push>,
}

impl Link {
    pub(crate) fn push(&self, id: &WebSocketId, payload: Payload) -> Result<Pushed, PushError> {
        let push = Push::new(id, payload);
        self.push_one(&push.request(), Duration::ZERO, pushed).map_err(|kind| push.failed(kind))
    }

    pub(crate) fn push_wait(
        &self,
        id: &WebSocketId,
        message: Message,
        timeout: Duration,
    ) -> Result<(), PushError> {
        let payload = wire::Payload::new(&message, None);
        let request = Request::PushWait { id: AsText(*id), payload, timeout };
        let is_done = |answer: &Answer<'_>| matches!(answer, Answer::Done).then_some(());
        self.push_one(&request, timeout, is_done).map_err(|kind| PushError { kind, message })
    }

    fn push_one<T>(
        &self,
        request: &Request<'_>,
        extra: Duration,
        take: impl FnOnce(&Answer<'_>) -> Option<T>,
    ) -> Result<T, PushErrorKind> {
        let line = self.line().map_err(PushErrorKind::of)?;
        let mut outgoing = Outgoing::default();
        self.add(&mut outgoing, request).map_err(PushErrorKind::of)?;
        let reply = self.exchange(&line, outgoing, extra).map_err(|trouble| match trouble {
            Trouble::Stale => PushErrorKind::Unreachable,
            Trouble::Error(error) => PushErrorKind::of(error),
        })?;
        self.judge(&line, reply.first().and_then(Option::as_ref), take)
    }

    /// What an answer says of a push.
    fn judge<T>(
        &self,
        line: &Line,
        reply: Option<&Reply>,
        take: impl FnOnce(&Answer<'_>) -> Option<T>,
    ) -> Result<T, PushErrorKind> {
        let reply = reply.ok_or(PushErrorKind::Unreachable)?;
        match reply.answer() {
            Ok(Answer::Failed(failure)) => Err(self.failed(line, failure)),
            Ok(answer) => take(&answer).ok_or_else(|| PushErrorKind::of(self.misunderstood(line))),
            Err(malformed) => {
                line.refuse(malformed);
                Err(PushErrorKind::Unreachable)
            }
        }
    }

    fn failed(&self, line: &Line, failure: Failure<'_>) -> PushErrorKind {
        of_push(failure).unwrap_or_else(|| PushErrorKind::of(self.misunderstood(line)))
    }

    /// Pushes in order. After one that was not answered, the others are not tried: none comes before it.
    pub(crate) fn push_all(
        &self,
        messages: impl Iterator<Item = (WebSocketId, Payload)>,
    ) -> Vec<Result<Pushed, PushError>> {
        let mut messages = messages.map(|(id, payload)| Push::new(&id, payload)).peekable();
        let mut results = Vec::with_capacity(messages.size_hint().0);
        let line = self.line();
        let line = line.as_ref().ok().filter(|_| !must_not_wait());
        let Some(line) = line else {
            let kind =
                || if must_not_wait() { PushErrorKind::MustNotWait } else { PushErrorKind::Unreachable };
            results.extend(messages.map(|push| Err(push.failed(kind()))));
            return results;
        };
        while messages.peek().is_some() {
            let part = self.next_part(line, &mut messages, &mut results);
            if !self.push_part(line, part, &mut results) {
                break;
            }
        }
        results.extend(messages.map(|push| Err(push.failed(PushErrorKind::Unreachable))));
        results
    }

    /// As many as go together. Of those in front that are too long for any, there are results.
    fn next_part(
        &self,
        line: &Line,
        messages: &mut std::iter::Peekable<impl Iterator<Item = Push>>,
        results: &mut Vec<Result<Pushed, PushError>>,
    ) -> Part {
        let mut part = Part::default();
        while let Some(push) = messages.peek()
            && part.outgoing.count() < line.max_unanswered()
        {
            let before = part.outgoing.len();
            if before > 0 && before + push.message.len() > TOGETHER {
                break; // without making it into bytes
            }
            let is_added = self.add(&mut part.outgoing, &push.request()).is_ok();
            let most = if before == 0 { line.max_message() } else { TOGETHER.min(line.max_message()) };
            let fits = is_added && part.outgoing.len() <= most;
            if is_added && !fits {
                part.outgoing.truncate(before);
            }
            if !fits && before > 0 {
                break;
            }
            let Some(push) = messages.next() else { break };
            if fits {
                part.pushes.push(push);
            } else {
                results.push(Err(push.failed(PushErrorKind::OverLimit(OverLimit::Message))));
            }
        }
        part
    }

    /// False: not all of them were answered.
    fn push_part(&self, line: &Arc<Line>, part: Part, results: &mut Vec<Result<Pushed, PushError>>) -> bool {
        let Part { outgoing, pushes } = part;
        if pushes.is_empty() {
            return true;
        }
        let replies = self.exchange(line, outgoing, Duration::ZERO).unwrap_or_default();
        let mut all = true;
        for (index, push) in pushes.into_iter().enumerate() {
            let reply = replies.get(index).and_then(Option::as_ref);
            all &= reply.is_some();
            results.push(self.judge(line, reply, pushed).map_err(|kind| push.failed(kind)));
        }
        all
    }
}

fn pushed(answer: &Answer<'_>) -> Option<Pushed> {
    match answer {
        Answer::Sent => Some(Pushed::Sent),
        Answer::Queued => Some(Pushed::Queued),
        Answer::Forwarded => Some(Pushed::Forwarded),
        _ => None,
    }
}

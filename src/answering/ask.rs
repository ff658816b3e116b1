//! What is asked of the hub, and what is answered.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{LOOK, talk::Talk};
use crate::{
    audience::{Audience, Recipients},
    connection::{Connection, PushError, PushErrorKind},
    deadline::Deadline,
    error::{Error, Result},
    hub::{Broadcast, Page, Publication, Published},
    id::{NodeId, WebSocketId},
    info::ConnectionInfo,
    registry::Found,
    wire::{self, Answer, AsText, Counts, Failure, Malformed, Payload, Request},
};

/// What became of a request.
pub(super) enum Outcome {
    /// It is answered.
    Done,
    /// It has to wait, and nothing was done. With the connection that it is about, if that had to be looked for.
    Waits(Option<Found>),
}

/// One request, and where its answer goes.
pub(super) struct Asked<'a> {
    pub(super) talk: &'a Talk<'a>,
    /// What the request came in.
    pub(super) message: &'a Bytes,
    pub(super) may_wait: bool,
    /// The connection that it is about, if it was looked for already.
    pub(super) found: Option<Found>,
    /// False: the answer was too long.
    pub(super) put: &'a mut dyn FnMut(&Answer<'_>) -> bool,
}

impl Asked<'_> {
    /// # Errors
    /// It is no request.
    pub(super) fn answer(mut self, request: &Request<'_>) -> Result<Outcome, Malformed> {
        if request.connection().is_some_and(|id| self.talk.desk.is_elsewhere(id)) {
            return self.answer_elsewhere(request);
        }
        if !self.may_wait && self.has_to_wait(request) {
            return Ok(Outcome::Waits(self.found));
        }
        let hub = &self.talk.desk.hub;
        match *request {
            Request::Push { id, payload } => {
                let pushed = hub.push(&id.0, payload.payload(self.message)?);
                self.say_pushed(pushed.map(Answer::from));
            }
            Request::PushWait { id, payload, timeout } => {
                let pushed = self.push_wait(&id.0, payload, timeout)?;
                self.say_pushed(pushed.map(|()| Answer::Done));
            }
            Request::Broadcast { to, except, payload } => {
                let sent = hub.broadcast(recipients(to, except.as_ref()), payload.payload(self.message)?);
                self.say(sent, |sent| Answer::Broadcast(counts(sent)));
            }
            Request::Publish { topic, except, key, payload } => {
                let publication = Publication::new(payload.payload(self.message)?);
                let publication = except.iter().fold(publication, |all, except| all.except(&except.0));
                let publication = key.into_iter().fold(publication, Publication::idempotency_key);
                self.say(hub.publish(topic, publication), |all| Answer::Published(published(all)));
            }
            Request::Close { id, code, text } => self.say_done(hub.close(&id.0, code, text)),
            Request::CloseAll { to, except, code, text } => {
                let closed = hub.close_all(recipients(to, except.as_ref()), code, text);
                self.say(closed, |closed| Answer::Number(*closed as u64));
            }
            Request::Join { id, topic } => {
                let joined = self.open(&id.0).and_then(|_| hub.join(&id.0, topic));
                self.say_done(joined);
            }
            Request::Leave { id, topic } => self.say_done(hub.leave(&id.0, topic)),
            Request::JoinSince { id, topic, since } => {
                let joined = self.open(&id.0).and_then(|_| hub.join_since(&id.0, topic, since));
                self.say(joined, |recovery| Answer::Recovery((*recovery).into()));
            }
            Request::Certificates => self.certificates(),
            Request::Len => {
                self.say(hub.len(), |len| Answer::Number(*len as u64));
            }
            ref other => return self.look(other),
        }
        Ok(Outcome::Done)
    }

    /// What is asked of connections, and changes nothing.
    fn look(mut self, request: &Request<'_>) -> Result<Outcome, Malformed> {
        let hub = &self.talk.desk.hub;
        match *request {
            Request::Connection { id } => {
                let connection = self.open(&id.0).map(|connection| ConnectionInfo::new(&connection));
                self.say(connection, |connection| Answer::Connection(Box::new(connection.into())));
            }
            Request::Connections { to, after, limit } => {
                self.say_page(hub.connections(to.into(), after.as_ref().map(|id| &id.0), limit as usize));
            }
            Request::ConnectionsOf { node, to, after, limit } => {
                let (node, after) = (NodeId::new(node), after.as_ref().map(|id| &id.0));
                self.say_page(hub.connections_of(node, to.into(), after, limit as usize));
            }
            Request::Members { topic, after, limit } => {
                let page = hub.members(topic, after.as_ref().map(|id| &id.0), limit as usize);
                self.say(page, |page| Answer::Members {
                    items: page.items.iter().copied().map(AsText).collect(),
                    next: page.next.map(AsText),
                });
            }
            Request::Topics { after, limit } => {
                let page = hub.topics(after, limit as usize);
                self.say(page, |page| Answer::Topics {
                    items: page.items.iter().map(Into::into).collect(),
                    next: page.next.as_deref(),
                });
            }
            Request::Presence { topic, after, limit } => {
                let page = hub.presence(topic, after, limit as usize);
                self.say(page, |page| Answer::Present {
                    items: page.items.iter().map(Into::into).collect(),
                    next: page.next.as_deref(),
                });
            }
            Request::TopicsOf { id } => {
                let topics = self.open(&id.0).and_then(|_| hub.topics_of(&id.0));
                self.say(topics, |topics| Answer::Names(topics.iter().map(|topic| &**topic).collect()));
            }
            Request::CloseReason { id } => self.close_reason(&id.0),
            Request::Nodes => {
                self.say(hub.nodes(), |nodes| Answer::Nodes(nodes.iter().map(Into::into).collect()));
            }
            ref other => return self.answer_opened(other),
        }
        Ok(Outcome::Done)
    }

    /// What is asked of a connection of another node: the hub asks that.
    fn answer_elsewhere(mut self, request: &Request<'_>) -> Result<Outcome, Malformed> {
        let hub = &self.talk.desk.hub;
        // Pushes keep their order, and are not answered by that node.
        if !self.may_wait && !matches!(request, Request::Push { .. }) {
            return Ok(Outcome::Waits(None));
        }
        match *request {
            Request::Push { id, payload } => {
                let pushed = hub.push(&id.0, payload.payload(self.message)?);
                self.say_pushed(pushed.map(Answer::from));
            }
            Request::PushWait { id, payload, timeout } => {
                let pushed = hub.push_wait(&id.0, payload.data.message(self.message)?, timeout);
                self.say_pushed(pushed.map(|()| Answer::Done));
            }
            Request::Close { id, code, text } => self.say_done(hub.close(&id.0, code, text)),
            Request::Join { id, topic } => self.say_done(hub.join(&id.0, topic)),
            Request::Leave { id, topic } => self.say_done(hub.leave(&id.0, topic)),
            Request::JoinSince { id, topic, since } => {
                self.say(hub.join_since(&id.0, topic, since), |recovery| {
                    Answer::Recovery((*recovery).into())
                });
            }
            Request::Connection { id } => {
                self.say(hub.connection(&id.0), |connection| Answer::Connection(Box::new(connection.into())));
            }
            Request::TopicsOf { id } => {
                self.say(hub.topics_of(&id.0), |all| {
                    Answer::Names(all.iter().map(|topic| &**topic).collect())
                });
            }
            Request::CloseReason { id } => {
                let reason = hub.pusher(&id.0).map(|pusher| pusher.close_reason());
                self.say(reason, |reason| Answer::Ended(reason.as_ref().map(Into::into)));
            }
            #[cfg(feature = "cluster")]
            Request::Open { id } => {
                self.say_opened(hub.open_server(&id.0).map(super::opened::Reached::Elsewhere));
            }
            // All others name none.
            _ => {
                (self.put)(&Answer::Failed(Failure::Unsupported));
            }
        }
        Ok(Outcome::Done)
    }

    /// Whether a request cannot be answered at once. Whether a read can, it finds out itself.
    fn has_to_wait(&mut self, request: &Request<'_>) -> bool {
        match request {
            Request::Write { .. } | Request::Flush { .. } => return true,
            Request::Nodes
            | Request::Len
            | Request::Connections { .. }
            | Request::ConnectionsOf { .. }
            | Request::Members { .. }
            | Request::Topics { .. }
            | Request::Presence { .. }
            | Request::CloseAll { .. } => return self.talk.desk.is_clustered(),
            Request::End { handle, .. }
            | Request::Ended { handle }
            | Request::SetSessionEndOnClose { handle, .. }
            | Request::SessionEndOnClose { handle }
            | Request::SetBinaryData { handle, .. } => {
                let handle = self.talk.handles.get(*handle);
                return handle.is_some_and(|handle| handle.connection.is_elsewhere());
            }
            Request::PushWait { id, .. }
            | Request::Connection { id }
            | Request::Join { id, .. }
            | Request::JoinSince { id, .. }
            | Request::TopicsOf { id }
            | Request::Open { id } => self.found = self.talk.desk.registry.find(&id.0),
            _ => return false,
        }
        match &self.found {
            Some(Found::Open(_)) => {
                let joins = matches!(request, Request::Join { .. } | Request::JoinSince { .. });
                matches!(request, Request::PushWait { .. }) || joins && self.talk.desk.is_node()
            }
            Some(Found::Opening(_)) => true,
            None => false,
        }
    }

    /// A connection, if need be when it is open.
    pub(super) fn open(&mut self, id: &WebSocketId) -> Result<Arc<Connection>> {
        self.open_by(id, Deadline::after(self.talk.desk.handshake_timeout))
    }

    fn open_by(&mut self, id: &WebSocketId, deadline: Deadline) -> Result<Arc<Connection>> {
        let found = self.found.take().or_else(|| self.talk.desk.registry.find(id));
        let pending = match found {
            Some(Found::Open(connection)) => return Ok(connection),
            Some(Found::Opening(pending)) => pending,
            None => return Err(Error::UnknownId),
        };
        loop {
            match pending.wait(deadline.or_earlier(Deadline::after(LOOK))) {
                Err(Error::Timeout) if deadline.remaining().is_some() && !self.talk.is_over() => {}
                other => return other,
            }
        }
    }

    fn push_wait(
        &mut self,
        id: &WebSocketId,
        payload: Payload<'_>,
        timeout: Duration,
    ) -> Result<Result<(), PushError>, Malformed> {
        let message = payload.data.message(self.message)?;
        let deadline = Deadline::after(timeout);
        Ok(match self.open_by(id, deadline) {
            Ok(connection) => {
                let left = deadline.remaining().unwrap_or_default();
                connection.push_wait_unless(self.talk.over(), || self.talk.is_given_up(), message, left)
            }
            Err(error) => Err(PushError { kind: why_not_open(&error), message }),
        })
    }

    fn close_reason(&mut self, id: &WebSocketId) {
        let found = self.talk.desk.registry.find(id).ok_or(Error::UnknownId);
        let reason =
            found.map(|found| found.connection().and_then(|connection| connection.reason().cloned()));
        self.say(reason, |reason| Answer::Ended(reason.as_ref().map(Into::into)));
    }

    #[cfg(feature = "__tls")]
    fn certificates(&mut self) {
        let all = self.talk.desk.hub.certificates();
        self.say(all, |all| Answer::Certificates(all.iter().map(Into::into).collect()));
    }

    #[cfg(not(feature = "__tls"))]
    fn certificates(&mut self) {
        (self.put)(&Answer::Certificates(Vec::new()));
    }

    /// False: the answer was too long.
    pub(super) fn say<T>(
        &mut self,
        result: Result<T>,
        answer: impl for<'t> FnOnce(&'t T) -> Answer<'t>,
    ) -> bool {
        match result {
            Ok(value) => (self.put)(&answer(&value)),
            Err(error) => (self.put)(&Answer::Failed(Failure::of(&error, &mut String::new()))),
        }
    }

    pub(super) fn say_done(&mut self, result: Result<()>) {
        self.say(result, |()| Answer::Done);
    }

    fn say_page(&mut self, page: Result<Page<ConnectionInfo>>) {
        self.say(page, |page| Answer::Connections {
            items: page.items.iter().map(Into::into).collect(),
            next: page.next.map(AsText),
        });
    }

    fn say_pushed(&mut self, pushed: Result<Answer<'_>, PushError>) {
        match pushed {
            Ok(answer) => (self.put)(&answer),
            Err(error) => (self.put)(&Answer::Failed(Failure::of_push(&error.kind))),
        };
    }
}

/// As it is for a push to a connection that is being opened.
fn why_not_open(error: &Error) -> PushErrorKind {
    match error {
        Error::UnknownId => PushErrorKind::Unknown,
        Error::Timeout => PushErrorKind::Timeout,
        Error::NotOpen => PushErrorKind::MustNotWait,
        _ => PushErrorKind::Refused,
    }
}

fn recipients<'a>(to: wire::Audience<'a>, except: Option<&'a AsText<WebSocketId>>) -> Recipients<'a> {
    let to = Audience::from(to);
    except.map_or_else(|| to.into(), |except| to.except(&except.0))
}

fn counts(sent: &Broadcast) -> Counts {
    let Broadcast { sent, queued, dropped, gone, forwarded, unreachable } = *sent;
    let [sent, queued, dropped, gone, forwarded] = [sent, queued, dropped, gone, forwarded].map(|n| n as u64);
    Counts { sent, queued, dropped, gone, forwarded, unreachable }
}

fn published(published: &Published) -> wire::Published {
    let Published { broadcast, position, duplicate } = published;
    wire::Published { counts: counts(broadcast), position: position.map(AsText), duplicate: *duplicate }
}

//! Joining a topic that remembers, with all that was missed. Who gets what, in which order, is one step with the topic's
//! publications: its log is in use meanwhile, and pushes never wait.

use super::{
    connections::{Announced, Registry},
    found::Found,
    histories::room,
};
use crate::{
    codec::Forms,
    error::{Error, Result},
    history::{Log, Room, Since},
    id::WebSocketId,
    info::Recovery,
    message::{Message, Text},
    sync::LockExt,
};

/// A message of a topic as those get it who have joined with a position: behind a line with its own.
pub(crate) fn numbered(line: &str, message: &Message) -> Message {
    let mut bytes = Vec::with_capacity(line.len() + 1 + message.len());
    bytes.extend_from_slice(line.as_bytes());
    bytes.push(b'\n');
    bytes.extend_from_slice(message.as_bytes());
    let bytes = bytes.into();
    match message {
        Message::Binary(_) => Message::Binary(bytes),
        // This never fails: what is joined is text.
        Message::Text(_) => Message::Text(Text::try_from(bytes).unwrap_or_default()),
    }
}

/// What is left of the room, where so many messages, and so many bytes, are queued.
fn left(room: Room, (messages, bytes): (usize, usize)) -> Room {
    Room { messages: room.messages.saturating_sub(messages), bytes: room.bytes.saturating_sub(bytes) }
}

impl Registry {
    /// Makes a connection a member of a topic that remembers, and gives it what it has missed, before anything that is published
    /// from now on. Who has joined like this before has missed nothing.
    ///
    /// # Errors
    /// [`Error::UnknownId`]: no open connection has this ID. [`Error::NoHistory`], [`Error::OverLimit`], and those of a push; then it
    /// is no member. In a cluster [`Error::Unreachable`] and [`Error::MustNotWait`].
    pub(crate) fn join_since(&self, id: &WebSocketId, topic: &str, since: &Since) -> Result<Recovery> {
        let find = || self.find_open(id).map(Found::Open).ok_or(Error::UnknownId);
        let result = self.come_back(find, topic, since, || self.enter(id, topic));
        self.observers.tell();
        result
    }

    /// As [`join_since`](Self::join_since), of what `find` finds, and `join` makes a member.
    fn come_back(
        &self,
        find: impl FnOnce() -> Result<Found>,
        topic: &str,
        since: &Since,
        join: impl FnOnce() -> Result<()>,
    ) -> Result<Recovery> {
        self.check_topic(topic)?;
        let history = self.histories().of(topic).ok_or(Error::NoHistory)?;
        let to = find()?;
        self.with_log(topic, history, since, |log| {
            let follows = self.joined.locked().follows(to.id(), topic);
            join()?;
            self.recover(log, topic, if follows { &Since::NOW } else { since }, &to)
        })?
    }

    /// Gives a new member what it has missed, behind a line that says where it begins, and whether something is missing before it.
    ///
    /// # Errors
    /// Those of a push; then it is no member, and if it has got some of it, it is closed: it was told that nothing is missing.
    fn recover(&self, log: &Log, topic: &str, since: &Since, to: &Found) -> Result<Recovery> {
        let room = left(room(&self.limits), to.queued());
        // The first line takes a place, too.
        let missed = log.since(since, Room { messages: room.messages.saturating_sub(1), ..room });
        let what = if missed.is_all { "recovered" } else { "gap" };
        let first = numbered(&format!("{} {what}", missed.before), &Message::from(""));
        to.set_numbered();
        // The log holds them, too: their memory counts once.
        let forms = || Forms::new(self.buffered());
        let all = to.push(first.into()).and_then(|_| {
            let mut rest = missed.messages.iter();
            rest.try_for_each(|&message| to.push_or_close(message.clone(), &forms()).map(|_| ()))
        });
        match all {
            Ok(()) => self.joined.locked().follow(to.id(), topic),
            Err(error) => {
                self.exit(to.id(), topic);
                return Err(error.into());
            }
        }
        Ok(Recovery { recovered: missed.is_all, missed: missed.messages.len(), position: log.position() })
    }
}

impl Announced {
    /// As [`Registry::join_since`], of a connection that is being opened: it gets all of it behind the answer to its handshake.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn join_since(&mut self, topic: &str, since: &Since) -> Result<Recovery> {
        let registry = self.registry().clone();
        let to = Found::Opening(self.pending.clone());
        registry.come_back(|| Ok(to), topic, since, || Ok(self.join(topic)?))
    }
}

//! Joining a topic that remembers, with all that was missed. Who gets what, in which order, is one step with the topic's
//! publications: its log is in use meanwhile, and pushes never wait.

use std::iter;

use super::{
    connections::{Announced, Registry},
    histories::room,
};
use crate::{
    connection::{PushError, Pushed},
    error::{Error, Result},
    history::{Log, Position, Room, Since},
    id::WebSocketId,
    message::{Message, Text},
};

/// How [`join_since`](crate::Hub::join_since) went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Nothing is missing between what the client had and what it gets.
    pub recovered: bool,
    /// How many publications it got that it had missed.
    pub missed: usize,
    /// Where the topic is now: the next publication is the one after this.
    pub position: Position,
}

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

/// Pushes what was missed, behind a line that says where it begins, and whether something is missing before it.
fn recover(
    log: &Log,
    since: &Since,
    room: Room,
    mut push: impl FnMut(Message) -> Result<Pushed, PushError>,
) -> Result<Recovery> {
    // The first line takes a place, too.
    let room = Room { messages: room.messages.saturating_sub(1), ..room };
    let missed = log.since(since, room);
    let what = if missed.is_all { "recovered" } else { "gap" };
    let first = numbered(&format!("{} {what}", missed.before), &Message::from(""));
    for message in iter::once(&first).chain(missed.messages.iter().copied()) {
        let (Pushed::Sent | Pushed::Queued) = push(message.clone())?;
    }
    Ok(Recovery { recovered: missed.is_all, missed: missed.messages.len(), position: log.position() })
}

/// What is left of the room, where so many messages, and so many bytes, are queued.
fn left(room: Room, (messages, bytes): (usize, usize)) -> Room {
    Room { messages: room.messages.saturating_sub(messages), bytes: room.bytes.saturating_sub(bytes) }
}

impl Registry {
    /// Makes a connection a member of a topic that remembers, and gives it what it has missed, before anything that is published
    /// from now on. Who is a member already has missed nothing.
    ///
    /// # Errors
    /// [`Error::UnknownId`]: no open connection has this ID. [`Error::NoHistory`], [`Error::OverLimit`], and those of a push; then it
    /// is no member.
    pub(crate) fn join_since(&self, id: &WebSocketId, topic: &str, since: &Since) -> Result<Recovery> {
        self.check_topic(topic)?;
        let history = self.histories().of(topic).ok_or(Error::NoHistory)?;
        let connection = self.find_open(id).ok_or(Error::UnknownId)?;
        let result = self.histories().with(topic, history, None, |log| {
            let since = if self.has_joined(id, topic) { &Since::NOW } else { since };
            self.enter(id, topic)?;
            connection.set_numbered();
            let room = left(room(self.limits()), connection.queued());
            let recovered = recover(log, since, room, |message| connection.push(message, None, None));
            if recovered.is_err() {
                self.exit(id, topic);
            }
            recovered
        });
        self.tell();
        result
    }
}

impl Announced {
    /// As [`Registry::join_since`], of a connection that is being opened: it gets all of it behind the answer to its handshake.
    ///
    /// # Errors
    /// As there.
    pub(crate) fn join_since(&mut self, topic: &str, since: &Since) -> Result<Recovery> {
        let registry = self.registry().clone();
        registry.check_topic(topic)?;
        let history = registry.histories().of(topic).ok_or(Error::NoHistory)?;
        registry.histories().with(topic, history, None, |log| {
            let since = if registry.has_joined(self.id(), topic) { &Since::NOW } else { since };
            self.join(topic)?;
            self.pending().set_numbered();
            let room = left(room(registry.limits()), self.pending().queued());
            let recovered = recover(log, since, room, |message| self.pending().push(message, None));
            if recovered.is_err() {
                registry.exit(self.id(), topic);
            }
            recovered
        })
    }
}

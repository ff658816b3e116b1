//! Publishing to topics, those that remember included, and joining these with what was missed.

use std::sync::Arc;

use super::{Broadcast, Hub, Place};
use crate::{
    error::Result,
    history::{Position, Since},
    id::WebSocketId,
    info::Recovery,
    message::{Message, Payload},
    place::wherever_of_hub,
};

/// What [`Hub::publish`] publishes: a message, which is all that is needed mostly, and what else there is to say of it.
///
/// ```
/// # fn example(hub: &switchboard::Hub) -> switchboard::Result<()> {
/// use switchboard::Publication;
///
/// hub.publish("news", "it rains")?;
/// // Whoever tries again after an error publishes it once.
/// hub.publish("orders", Publication::new("order 17").idempotency_key("17"))?;
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
#[must_use = "nothing is published yet"]
pub struct Publication<'a> {
    pub(super) message: Message,
    /// Under which a newer message replaces it.
    pub(super) newest: Option<Arc<str>>,
    pub(super) except: Option<&'a WebSocketId>,
    /// The idempotency key.
    pub(super) key: Option<Arc<str>>,
}

impl<'a> Publication<'a> {
    /// Strings are sent as text, bytes as binary.
    pub fn new(data: impl Into<Payload>) -> Self {
        let (message, newest) = data.into().split();
        Self { message, newest, except: None, key: None }
    }

    /// It is not sent to this connection, such as the one that it came from: among the positions that this one gets, its own is
    /// missing. When that comes again, it gets it nevertheless, if it is behind the last one: what a topic remembers is the same for
    /// all.
    pub fn except(self, id: &'a WebSocketId) -> Self {
        Self { except: Some(id), ..self }
    }

    /// A name for this publication, of 1 to 128 bytes. As long as the topic remembers a publication with the same key, another
    /// one with it is neither sent nor remembered: [`Published::duplicate`].
    pub fn idempotency_key(self, key: impl Into<Arc<str>>) -> Self {
        Self { key: Some(key.into()), ..self }
    }
}

impl<T: Into<Payload>> From<T> for Publication<'_> {
    fn from(data: T) -> Self {
        Self::new(data)
    }
}

/// What became of a [publication](Hub::publish).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Published {
    /// Whom it has reached; nobody, if it is a duplicate. In a cluster a publication to a topic that remembers comes to this node's own
    /// connections by way of Redis, too: if it does not within the `answer_timeout`, they are not counted.
    pub broadcast: Broadcast,
    /// Where it stands; `None` if the topic remembers nothing, and, in a cluster, on a thread that
    /// [must not wait](crate::PushErrorKind::MustNotWait): there it is sent to Redis, and nobody knows yet.
    pub position: Option<Position>,
    /// It was published before, with the same [idempotency key](Publication::idempotency_key), at this position.
    pub duplicate: bool,
}

impl Hub {
    /// Sends a message to all who have joined a topic; if the topic [remembers](crate::ServerBuilder::history), also to those who
    /// [come back](Self::join_since) later. There, all get the publications in the same order. A
    /// [`broadcast`](Self::broadcast) to [`Audience::Topic`](crate::Audience::Topic) is a publication, too.
    ///
    /// # Errors
    /// [`Error::OverLimit`](crate::Error::OverLimit) if a topic that remembers would get a name, or a publication a key, that is
    /// empty or too long; [`Error::NoHistory`](crate::Error::NoHistory) for a key where the topic remembers nothing. In a cluster
    /// [`Error::Unreachable`](crate::Error::Unreachable) if the topic remembers and Redis does not answer, or does not take it: it may
    /// have been published. With a key one can try again.
    pub fn publish<'a>(&self, topic: &str, publication: impl Into<Publication<'a>>) -> Result<Published> {
        wherever_of_hub!(self.0, publish(topic, publication.into()))
    }

    /// Makes a connection a member of a topic that [remembers](crate::ServerBuilder::history), and gives it what it has missed
    /// since then, and after that what is published from now on: in order, each once, and without a gap, or it is said that there
    /// is one. [`Opening::join_since`](crate::Opening::join_since) does it earlier. Waits while the connection is being
    /// [opened](Self::open_server).
    ///
    /// From now on what the connection gets of topics that remember begins with a line of its own, text or binary: the
    /// [position](Position), and a line feed. The first of these has only the line, which says where it begins and whether
    /// something is missing: the position before what follows, a space, `recovered` or `gap`. The client keeps the last position
    /// that it has seen, and comes back with it. Nothing is missing between two of them: if its queue is full, the connection is
    /// closed with 1013, whatever [`Overflow`](crate::Overflow) it has; only in a cluster whose Redis has lost data, something may be,
    /// which another such line says. A topic that was forgotten meanwhile goes on with another epoch. By the line a message becomes up to 33 bytes longer: a client whose limit is that of the longest message
    /// would come again for it, again and again. Members that have joined without this get the messages as they are. What else
    /// is sent to the connection has no such line: where that is what other clients have said, it must not look like one, or
    /// the client takes it for a position.
    ///
    /// ```text
    /// q1w2e3r4t5Y:17 recovered⏎
    /// q1w2e3r4t5Y:18⏎it rains
    /// ```
    ///
    /// Who has joined like this already has missed nothing. A member that has joined without it gets all that it has missed since then,
    /// as one who was none.
    ///
    /// What was missed may fill three quarters of the connection's queue, of which each topic takes what others have left; of more
    /// it gets the newest, and there is a gap.
    ///
    /// # Errors
    /// As [`join`](Self::join), and as [`push`](Self::push): then the connection is no member, and if it has got a part of what it
    /// has missed, it is closed with 1013. [`Error::NoHistory`](crate::Error::NoHistory) if the topic remembers nothing. In a
    /// cluster, where this node has no copy of what the topic remembers: [`Error::Unreachable`](crate::Error::Unreachable) if Redis
    /// does not answer, and [`Error::MustNotWait`](crate::Error::MustNotWait) on a thread that must not wait for it. Where it has one
    /// without what the client has seen, the former as well.
    pub fn join_since(&self, id: &WebSocketId, topic: &str, since: impl Into<Since>) -> Result<Recovery> {
        wherever_of_hub!(self.0, join_since(id, topic, &since.into()))
    }
}

//! What is known of a connection: from its opening handshake on, and of what has gone through it since.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::outbox::Overflow;
use crate::{
    clock::Moment, codec::Deflate, id::WebSocketId, interned::Name, protocol::Counts, session::SessionId,
    tags::Tags,
};

/// What is known of a connection from its opening handshake on.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) id: WebSocketId,
    /// `None`: it has none (`UseSession`).
    pub(crate) session_id: Option<SessionId>,
    pub(crate) path: Arc<str>,
    pub(crate) peer: Option<SocketAddr>,
    /// The route that ends with a star and serves the path; `None`: it was registered as it is.
    pub(crate) route: Option<Name>,
    /// What the client says that it is.
    pub(crate) user_agent: Option<Name>,
    pub(crate) extras: Option<Box<Extras>>,
    pub(crate) opened: Moment,
    pub(crate) shared: bool,
    pub(crate) overflow: Overflow,
    /// How messages are compressed, if they are.
    pub(crate) deflate: Option<Deflate>,
}

/// What most connections have nothing of.
#[derive(Debug, Default)]
pub(crate) struct Extras {
    /// The client's address, if it is not the peer's.
    pub(crate) forwarded: Option<IpAddr>,
    pub(crate) subprotocol: Option<Box<str>>,
    pub(crate) user: Option<Arc<str>>,
    pub(crate) tags: Tags,
}

impl Extras {
    /// `None` if there is nothing.
    pub(crate) fn boxed(self) -> Option<Box<Self>> {
        let Self { forwarded, subprotocol, user, tags } = &self;
        let is_empty = forwarded.is_none() && subprotocol.is_none() && user.is_none() && tags.is_empty();
        (!is_empty).then(|| Box::new(self))
    }
}

impl About {
    /// The client's address: the one that a trusted proxy has forwarded, or the peer's.
    pub(crate) fn client(&self) -> Option<IpAddr> {
        let forwarded = self.extras.as_ref().and_then(|extras| extras.forwarded);
        forwarded.or_else(|| Some(self.peer?.ip().to_canonical()))
    }

    /// The route that serves the path, as it was registered.
    pub(crate) fn route(&self) -> &Arc<str> {
        self.route.as_ref().map_or(&self.path, Name::text)
    }

    pub(crate) fn subprotocol(&self) -> Option<&str> {
        self.extras.as_ref()?.subprotocol.as_deref()
    }

    pub(crate) fn user(&self) -> Option<&Arc<str>> {
        self.extras.as_ref()?.user.as_ref()
    }

    pub(crate) fn tags(&self) -> &Tags {
        static NONE: Tags = Tags::NONE;
        self.extras.as_ref().map_or(&NONE, |extras| &extras.tags)
    }
}

/// What has gone through a connection, and waits to.
#[derive(Debug)]
pub(crate) struct Traffic {
    pub(crate) counts: Counts,
    /// What waits to be sent, in bytes.
    pub(crate) queued: usize,
    pub(crate) round_trip: Option<Duration>,
}

/// The same, and how long it is ago.
#[derive(Debug)]
pub(crate) struct Statistics {
    pub(crate) traffic: Traffic,
    /// When the last message went either way.
    pub(crate) active: SystemTime,
    /// How long ago that was.
    pub(crate) idle: Duration,
}

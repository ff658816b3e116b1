//! Pushing to one connection again and again.

use std::{sync::Arc, time::Duration};

use crate::{
    connection::{Connection, PushError, Pushed},
    error::CloseReason,
    id::WebSocketId,
    message::Payload,
    place::wherever,
    registry::Found,
};

/// Pushes to one connection; made by [`Hub::pusher`](crate::Hub::pusher), or by [`Client::pusher`](crate::Client::pusher) for the server at
/// its other end. It does not keep the connection open.
#[derive(Clone, Debug)]
#[must_use = "nothing is pushed until `push`"]
pub struct Pusher(Place);

/// Where the connection is.
#[derive(Clone, Debug)]
enum Place {
    Local(Found),
}

impl Pusher {
    pub(super) fn local(found: Found) -> Self {
        Self(Place::Local(found))
    }

    pub(crate) fn to(connection: &Arc<Connection>) -> Self {
        Self::local(Found::Open(connection.clone()))
    }

    /// As [`Hub::push`](crate::Hub::push).
    ///
    /// # Errors
    /// As [`Hub::push`](crate::Hub::push); if the connection has ended,
    /// [`PushErrorKind::Closed`](crate::PushErrorKind::Closed), and if it was never opened,
    /// [`PushErrorKind::Refused`](crate::PushErrorKind::Refused).
    pub fn push(&self, data: impl Into<Payload>) -> Result<Pushed, PushError> {
        wherever!(self.0, push(data.into()))
    }

    /// As [`Hub::push_wait`](crate::Hub::push_wait).
    ///
    /// # Errors
    /// As [`Hub::push_wait`](crate::Hub::push_wait); if the connection has ended,
    /// [`PushErrorKind::Closed`](crate::PushErrorKind::Closed), and if it was never opened,
    /// [`PushErrorKind::Refused`](crate::PushErrorKind::Refused).
    pub fn push_wait(&self, data: impl Into<Payload>, timeout: Duration) -> Result<(), PushError> {
        wherever!(self.0, push_wait(data.into().into_message(), timeout))
    }

    /// The connection's ID; that of a client is known in this process only.
    pub fn websocket_id(&self) -> &WebSocketId {
        wherever!(self.0, id())
    }

    /// How the connection ended; `None` while it is open, before that, and if it was never opened.
    pub fn close_reason(&self) -> Option<CloseReason> {
        wherever!(self.0, close_reason())
    }
}

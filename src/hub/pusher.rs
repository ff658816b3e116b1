//! Pushing to one connection again and again.

use std::{sync::Arc, time::Duration};

use crate::{
    connection::{Connection, PushError, Pushed},
    error::CloseReason,
    id::WebSocketId,
    message::Payload,
};

/// Pushes to one connection; made by [`Hub::pusher`](crate::Hub::pusher). It does not keep the connection open.
#[derive(Clone, Debug)]
pub struct Pusher(Arc<Connection>);

impl Pusher {
    pub(super) fn new(connection: Arc<Connection>) -> Self {
        Self(connection)
    }

    /// As [`Hub::push`](crate::Hub::push).
    ///
    /// # Errors
    /// As [`Hub::push`](crate::Hub::push); if the connection has ended,
    /// [`PushErrorKind::Closed`](crate::PushErrorKind::Closed).
    pub fn push(&self, data: impl Into<Payload>) -> Result<Pushed, PushError> {
        self.0.push(data.into().into_message(), None)
    }

    /// As [`Hub::push_wait`](crate::Hub::push_wait).
    ///
    /// # Errors
    /// As [`Hub::push_wait`](crate::Hub::push_wait); if the connection has ended,
    /// [`PushErrorKind::Closed`](crate::PushErrorKind::Closed).
    pub fn push_wait(&self, data: impl Into<Payload>, timeout: Duration) -> Result<(), PushError> {
        self.0.push_wait(data.into().into_message(), timeout)
    }

    /// The connection's ID.
    pub fn websocket_id(&self) -> &WebSocketId {
        self.0.id()
    }

    /// How the connection ended; `None` while it is open.
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.0.reason().cloned()
    }
}

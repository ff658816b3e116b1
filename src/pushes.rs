//! A push on its way to where the connection is.

use std::sync::Arc;

use crate::{
    connection::{PushError, PushErrorKind},
    id::WebSocketId,
    message::{Message, Payload},
    wire::{self, AsText, Request},
};

/// A message for a connection, and the key under which a newer one replaces it.
#[derive(Debug)]
pub(crate) struct Push {
    pub(crate) id: WebSocketId,
    pub(crate) message: Message,
    pub(crate) newest: Option<Arc<str>>,
}

impl Push {
    pub(crate) fn new(id: &WebSocketId, payload: Payload) -> Self {
        let (message, newest) = payload.split();
        Self { id: *id, message, newest }
    }

    pub(crate) fn request(&self) -> Request<'_> {
        let payload = wire::Payload::new(&self.message, self.newest.as_ref());
        Request::Push { id: AsText(self.id), payload }
    }

    pub(crate) fn failed(self, kind: PushErrorKind) -> PushError {
        PushError { kind, message: self.message }
    }
}

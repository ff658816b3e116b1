//! What a look into the registry finds: what has an ID, those that are meant, or the first of many.

use std::{collections::BinaryHeap, sync::Arc, time::Duration};

use crate::{
    codec::Forms,
    connection::{Connection, PushError, Pushed},
    error::Result,
    id::WebSocketId,
    message::{CloseCode, Message, Payload},
    pending::Pending,
};

/// What has an ID.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    Open(Arc<Connection>),
    Opening(Arc<Pending>),
}

/// Those that something is for.
#[derive(Default)]
pub(crate) struct Selected {
    pub(crate) open: Vec<Arc<Connection>>,
    /// What reaches these follows the answer to their handshake.
    pub(crate) opening: Vec<Arc<Pending>>,
}

impl Found {
    pub(crate) fn id(&self) -> &WebSocketId {
        match self {
            Self::Open(connection) => connection.id(),
            Self::Opening(pending) => pending.id(),
        }
    }

    /// The connection, if it is open or was.
    pub(crate) fn connection(&self) -> Option<&Arc<Connection>> {
        match self {
            Self::Open(connection) => Some(connection),
            Self::Opening(pending) => pending.get(),
        }
    }

    /// Pushes to the connection, and waits until the kernel has the message; and before, until the connection is open.
    pub(crate) fn push_wait(&self, message: Message, timeout: Duration) -> Result<(), PushError> {
        match self {
            Self::Open(connection) => connection.push_wait(message, timeout),
            Self::Opening(pending) => pending.push_wait(message, timeout),
        }
    }

    /// Pushes to the connection; if it is being opened, this is queued behind the answer to its handshake.
    pub(crate) fn push(&self, payload: Payload) -> Result<Pushed, PushError> {
        self.push_before(payload, false)
    }

    /// The same; with `more`, of what another push follows at once: they may be sent together.
    pub(crate) fn push_before(&self, payload: Payload, more: bool) -> Result<Pushed, PushError> {
        let (message, key) = payload.split();
        match self {
            Self::Open(connection) => connection.push_before(message, None, key.as_ref(), more),
            Self::Opening(pending) => pending.push(message, key.as_ref()),
        }
    }

    /// Pushes what must not be missing: where there is no room for it, the connection is closed. It comes again for what it has
    /// missed.
    pub(crate) fn push_or_close(&self, message: Message, forms: &Forms) -> Result<Pushed, PushError> {
        match self {
            Self::Open(connection) => connection.push_or_close(message, forms),
            Self::Opening(pending) => pending.push_or_close(message),
        }
    }

    /// How many messages are queued, and their bytes.
    pub(super) fn queued(&self) -> (usize, usize) {
        match self {
            Self::Open(connection) => connection.queued(),
            Self::Opening(pending) => pending.queued(),
        }
    }

    /// What it gets of topics that remember begins with a line that says the position, from now on.
    pub(super) fn set_numbered(&self) {
        match self {
            Self::Open(connection) => connection.set_numbered(),
            Self::Opening(pending) => pending.set_numbered(),
        }
    }

    /// Closes the connection; if it is being opened, as soon as it is open.
    ///
    /// # Errors
    /// [`Error::Refused`](crate::Error::Refused) if it will not be opened.
    pub(super) fn close(&self, code: CloseCode, text: &str) -> Result<()> {
        match self {
            Self::Open(connection) => connection.close(code, text),
            Self::Opening(pending) => drop(pending.close(code, text)?),
        }
        Ok(())
    }
}

impl Selected {
    /// Starts the closing handshakes. Returns how many there were to close.
    pub(crate) fn close(self, code: CloseCode, text: &str) -> usize {
        let is_open = |connection: &&Arc<Connection>| connection.reason().is_none();
        let open = self.open.iter().filter(is_open).map(|connection| connection.close(code, text)).count();
        open + self.opening.iter().filter(|pending| matches!(pending.close(code, text), Ok(true))).count()
    }
}

/// The first after another one, `count` at most, whatever the number of those that are looked at.
pub(super) struct First<'a, T> {
    after: Option<&'a T>,
    count: usize,
    found: BinaryHeap<T>,
}

impl<'a, T: Ord + Clone> First<'a, T> {
    pub(super) fn new(after: Option<&'a T>, count: usize) -> Self {
        Self { after, count, found: BinaryHeap::new() }
    }

    pub(super) fn look_at(&mut self, item: &T) {
        if self.after.is_some_and(|after| item <= after) {
            return;
        }
        if self.found.len() < self.count {
            self.found.push(item.clone());
        } else if let Some(mut last) = self.found.peek_mut()
            && *item < *last
        {
            *last = item.clone();
        }
    }

    /// In their order.
    pub(super) fn into_sorted(self) -> Vec<T> {
        self.found.into_sorted_vec()
    }
}

//! An open connection of this process, as one that has it uses it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{
    connection::{About, Connection},
    delivery::Delivery,
    error::{CloseReason, Error, Result},
    history::Since,
    http::Request,
    info::Recovery,
    message::{CloseCode, Message},
    registry::Registry,
    session::Session,
    thread,
};

#[derive(Debug)]
pub(super) struct Local {
    connection: Arc<Connection>,
    registry: Arc<Registry>,
    /// It has read a message, and has not read on: it may be answering, and an end of the connection waits for that.
    is_answering: AtomicBool,
    holder: Holder,
}

/// The code that it is for.
#[derive(Debug)]
pub(crate) enum Holder {
    /// `server`, which also gets the request and the session.
    Server(Box<Attached>),
    /// `on_client_message`, whose writes must not wait. `more`: further messages wait behind the current one.
    Handler { more: AtomicBool },
    /// Any thread that opened it by its ID.
    Anyone,
}

/// What a `WebSocket` gives access to while `server` runs.
#[derive(Debug)]
pub(crate) struct Attached {
    pub(crate) request: Arc<Request>,
    pub(crate) session: Option<Session>,
}

impl Drop for Local {
    fn drop(&mut self) {
        if self.is_answering.load(Relaxed) {
            self.connection.end_answering(&self.is_answering);
        }
    }
}

impl Local {
    pub(super) fn new(connection: Arc<Connection>, registry: Arc<Registry>, holder: Holder) -> Self {
        Self { connection, registry, is_answering: AtomicBool::new(false), holder }
    }

    #[cfg(feature = "manage")]
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    pub(super) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    pub(super) fn attached(&self) -> Option<&Attached> {
        match &self.holder {
            Holder::Server(attached) => Some(attached),
            _ => None,
        }
    }

    pub(super) fn about(&self) -> &About {
        self.connection.about()
    }

    pub(super) fn expect_more(&self, on: bool) {
        if let Holder::Handler { more } = &self.holder {
            more.store(on, Relaxed);
        }
    }

    /// Whether calls may wait, for the client or for anyone else.
    pub(super) fn may_wait(&self) -> bool {
        match &self.holder {
            Holder::Server(_) => true,
            Holder::Handler { .. } => false,
            Holder::Anyone => !thread::must_not_wait(),
        }
    }

    /// For how long a call waits that is to wait for so long.
    #[inline] // for each message
    fn wait_for(&self, timeout: Duration) -> Duration {
        if self.may_wait() { timeout } else { Duration::ZERO }
    }

    #[inline] // for each message
    pub(super) fn read(&self, len: usize, timeout: Duration) -> Result<(Message, bool)> {
        self.connection.read(len, self.wait_for(timeout), &self.is_answering)
    }

    pub(super) fn read_delivery(&self, len: usize, timeout: Duration) -> Result<Delivery> {
        let loan = self.connection.read_loan(len, self.wait_for(timeout), &self.is_answering)?;
        Ok(Delivery::local(loan))
    }

    #[inline] // for each message
    pub(super) fn write(&self, message: Message) -> Result<()> {
        match &self.holder {
            Holder::Handler { more } => self.connection.post_message(message, more.load(Relaxed)),
            _ if self.may_wait() => self.connection.write(message, false),
            _ => self.connection.post_message(message, false),
        }
    }

    pub(super) fn flush(&self) -> Result<()> {
        if self.may_wait() { self.connection.flush_all() } else { self.connection.flush_some() }
    }

    pub(super) fn close(&self, code: CloseCode, text: &str) {
        self.connection.close(code, text);
    }

    pub(super) fn close_reason(&self) -> Option<CloseReason> {
        self.connection.reason().cloned()
    }

    pub(super) fn set_binary_data(&self, on: bool) {
        self.connection.binary_data.store(on, Relaxed);
    }

    pub(super) fn binary_data(&self) -> bool {
        self.connection.binary_data.load(Relaxed)
    }

    pub(super) fn set_session_end_on_close(&self, on: bool) {
        self.connection.session_end_on_close.store(on, Relaxed);
    }

    pub(super) fn session_end_on_close(&self) -> bool {
        self.connection.session_end_on_close.load(Relaxed)
    }

    pub(super) fn join(&self, topic: &str) -> Result<()> {
        self.known(self.registry.join(self.connection.id(), topic))
    }

    pub(super) fn join_since(&self, topic: &str, since: &Since) -> Result<Recovery> {
        self.known(self.registry.join_since(self.connection.id(), topic, since))
    }

    pub(super) fn leave(&self, topic: &str) -> Result<()> {
        let is_known = self.registry.leave(self.connection.id(), topic);
        if is_known { Ok(()) } else { Err(self.connection.closed()) }
    }

    pub(super) fn topics(&self) -> Vec<Arc<str>> {
        self.registry.topics_of(self.connection.id())
    }

    /// The ID becomes unknown at the very end of the connection.
    fn known<T>(&self, result: Result<T>) -> Result<T> {
        match result {
            Err(Error::UnknownId) => Err(self.connection.closed()),
            other => other,
        }
    }
}

//! The body of a response that is not there yet, and may never end: it is written piece by piece while it comes about. No I/O here.

use std::{fmt, io};

use super::response::{Body, Response};

/// Where such a body goes: to the client.
pub(crate) trait Sink {
    /// Sends some bytes now. Waits no longer than a slow client may take for them.
    fn send(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Whether nobody wants more: the client has left, or the server shuts down. Who waits for what to send next asks this at least
    /// once a second.
    fn is_over(&self) -> bool;
}

/// Writes the body.
type Produce = dyn FnOnce(&mut dyn Sink) -> io::Result<()> + Send;

/// What writes a body, on the connection's thread, which it has until it returns.
pub(crate) struct Producer {
    produce: Box<Produce>,
    /// In chunks, behind which the connection can go on; else the body ends with the connection.
    pub(super) is_chunked: bool,
}

impl Producer {
    pub(crate) fn is_chunked(&self) -> bool {
        self.is_chunked
    }

    /// # Errors
    /// Its own: then the client must not take the body for complete.
    pub(crate) fn run(self, sink: &mut dyn Sink) -> io::Result<()> {
        (self.produce)(sink)
    }
}

impl Response {
    /// Status 200, with a body that `produce` writes while it comes about.
    pub(crate) fn produced(
        content_type: &'static str,
        produce: impl FnOnce(&mut dyn Sink) -> io::Result<()> + Send + 'static,
    ) -> Self {
        let producer = Producer { produce: Box::new(produce), is_chunked: true };
        Self::with_body(content_type, Body::Produced(producer))
    }
}

impl fmt::Debug for Producer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("is_chunked", &self.is_chunked).finish_non_exhaustive()
    }
}

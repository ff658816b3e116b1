//! What carries requests to another process.

use std::{fmt, sync::Arc};

use crossbeam_channel::{Sender, bounded};

use crate::{
    connection::Connection,
    deadline::Deadline,
    error::Result,
    message::{CloseCode, Message},
    wire::Malformed,
};

/// Carries requests to another process, in order.
pub(crate) trait Carrier: fmt::Debug + Send + Sync {
    /// Sends requests, or queues them behind others. What it returns is for [`take_back`](Self::take_back). Whoever waits here does so
    /// no longer than until the deadline.
    ///
    /// # Errors
    /// They were not sent, and will not be.
    fn send(&self, frames: Vec<u8>, deadline: Deadline) -> Result<u32>;

    /// Takes back what was [sent](Self::send). False: a part of it is out.
    fn take_back(&self, number: u32) -> bool;

    /// Sends what nobody waits for.
    fn tell(&self, frames: Vec<u8>);

    /// Ends it: the other side has broken the protocol.
    fn refuse(&self, malformed: Malformed);

    /// Ends it: it is not wanted any more.
    fn end(&self);

    /// Whether a single answer can get lost.
    fn loses(&self) -> bool {
        false
    }
}

/// A WebSocket.
#[derive(Debug)]
pub(crate) struct ByConnection {
    connection: Arc<Connection>,
    nobody: Sender<()>,
}

impl ByConnection {
    pub(crate) fn new(connection: Arc<Connection>) -> Self {
        Self { connection, nobody: bounded(0).0 }
    }
}

impl Carrier for ByConnection {
    fn send(&self, frames: Vec<u8>, _: Deadline) -> Result<u32> {
        let pushed = self.connection.push_told(Message::Binary(frames.into()), self.nobody.clone());
        pushed.map_err(crate::error::Error::Closed)
    }

    fn take_back(&self, number: u32) -> bool {
        self.connection.take_back(number)
    }

    /// What it does not take is queued, behind what was asked; where too much is, the connection is ended, and with it all that this
    /// could be about.
    fn tell(&self, frames: Vec<u8>) {
        let _ = self.connection.push(Message::Binary(frames.into()), None, None);
    }

    fn refuse(&self, Malformed(why): Malformed) {
        self.connection.close(CloseCode::PROTOCOL_ERROR, why);
    }

    fn end(&self) {
        self.connection.close(CloseCode::NORMAL, "");
    }
}

//! What a program keeps to shut a server down with.

use std::{sync::Arc, time::Duration};

use super::shared::Shared;

/// Shuts a server down. Clones belong to the same server.
#[derive(Debug, Clone)]
pub struct ServerHandle(Arc<Shared>);

impl ServerHandle {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Ends the server, and returns at once; [`Server::run`](crate::Server::run) returns when all is done.
    ///
    /// No new connections are accepted, handshakes under way are answered with 503, and all open connections are
    /// closed with 1001. Handlers have the grace period to return; then their sockets are cut. A handler that never
    /// returns keeps `run` from returning: threads cannot be killed.
    ///
    /// A second call can only shorten the grace period.
    pub fn shutdown(&self, grace: Duration) {
        self.0.shutdown(grace);
    }

    /// How many connections there are, those in their handshake included.
    pub fn connections(&self) -> usize {
        self.0.connections()
    }
}

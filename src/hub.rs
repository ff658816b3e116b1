//! The registry: every connection by its ID, from the opening handshake until its end.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use crate::{
    connection::{Connection, WebSocketId},
    sync::LockExt,
};

/// All connections of a server. No lock of it is held while anything is sent.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    connections: Mutex<HashMap<WebSocketId, Arc<Connection>>>,
}

/// A connection's entry; dropping it, also by a panic, makes the ID unknown.
#[derive(Debug)]
pub(crate) struct Registered {
    hub: Arc<Hub>,
    connection: Arc<Connection>,
}

impl Hub {
    pub(crate) fn register(self: &Arc<Self>, connection: Arc<Connection>) -> Registered {
        self.connections.locked().insert(connection.id().clone(), connection.clone());
        Registered { hub: self.clone(), connection }
    }

    /// All of them, as they are now.
    pub(crate) fn all(&self) -> Vec<Arc<Connection>> {
        self.connections.locked().values().cloned().collect()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.hub.connections.locked().remove(self.connection.id());
    }
}

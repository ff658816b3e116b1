//! What is told about a server, as a node of its cluster or alone.

use std::{sync::Arc, time::Duration};

use crate::id::NodeId;

/// What this crate says of itself to other nodes and processes.
pub(crate) const SOFTWARE: &str = concat!("switchboard ", env!("CARGO_PKG_VERSION"));

/// How long it is waited for what other nodes say of themselves.
#[cfg(feature = "remote")]
pub(crate) const SURVEY: Duration = Duration::from_secs(1);

/// A server: alone, or as a node of a cluster; from [`Hub::nodes`](crate::Hub::nodes).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeInfo {
    /// Its number, which all IDs of its connections [name](crate::WebSocketId::node).
    pub node: NodeId,
    /// Whether it is the one whose hub was asked: of a hub in another process, the server that this has reached.
    pub is_this: bool,
    /// What it runs, such as `switchboard 0.1.0`: nodes of a cluster may be of different versions.
    pub software: Arc<str>,
    /// How many connections it has. `None`: it has not answered in time, or is of a version that does not tell this.
    pub connections: Option<usize>,
    /// For how long it has been there. `None` as above.
    pub uptime: Option<Duration>,
}

impl NodeInfo {
    pub(crate) fn here(node: NodeId, connections: usize, uptime: Duration) -> Self {
        let software = SOFTWARE.into();
        Self { node, is_this: true, software, connections: Some(connections), uptime: Some(uptime) }
    }

    /// One of which only its lease is known.
    #[cfg(feature = "cluster")]
    pub(crate) fn leased(node: NodeId, software: &str) -> Self {
        Self { node, is_this: false, software: software.into(), connections: None, uptime: None }
    }
}

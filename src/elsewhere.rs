//! The connections of other nodes, as the hub and the registry see them: somebody who can reach them.

use std::{fmt, sync::Arc};

use crate::{
    audience::{Audience, Recipients},
    connection::PushErrorKind,
    error::Result,
    history::{History, Log, Position, Since},
    id::{NodeId, WebSocketId},
    message::Message,
    pushes::Push,
    remote::{Linked, Reply},
    wire::Request,
};

/// Reaches the connections of other nodes.
pub(crate) trait Elsewhere: fmt::Debug + Send + Sync {
    /// The link to a node.
    ///
    /// # Errors
    /// [`UnknownId`](crate::Error::UnknownId): there is no such node. [`Unreachable`](crate::Error::Unreachable),
    /// [`MustNotWait`](crate::Error::MustNotWait).
    fn link(&self, node: NodeId) -> Result<Arc<Linked>>;

    /// Pushes in order to connections of one other node: all of them, or none.
    ///
    /// # Errors
    /// None was pushed, or that is not known.
    fn push(&self, node: NodeId, pushes: &[Push]) -> Result<(), PushErrorKind>;

    /// Sends to these connections of all other nodes.
    fn forward(&self, to: Recipients<'_>, message: &Message, newest: Option<&Arc<str>>) -> Forwarded;

    /// Publishes to a topic that remembers: all nodes, this one as well, deliver it when they hear of it, in the same order.
    ///
    /// # Errors
    /// [`Unreachable`](crate::Error::Unreachable): nobody knows whether it was published. [`OverLimit`](crate::Error::OverLimit).
    fn publish(&self, topic: &str, history: History, publication: &Publishing<'_>) -> Result<Placed>;

    /// Uses, alone, this node's copy of what a topic remembers, when that has all that somebody has seen who comes back.
    ///
    /// # Errors
    /// Nothing was done: [`Unreachable`](crate::Error::Unreachable), [`MustNotWait`](crate::Error::MustNotWait).
    fn with_log(
        &self,
        topic: &str,
        history: History,
        since: &Since,
        use_log: &mut dyn FnMut(&mut Log),
    ) -> Result<()>;

    /// Asks all other nodes that may have some of these.
    ///
    /// # Errors
    /// As of [`link`](Self::link), and if one of them does not answer.
    fn ask_all(&self, audience: Audience<'_>, request: &Request<'_>) -> Result<Vec<Reply>>;

    /// The other nodes that are known, in the order of their numbers.
    fn nodes(&self) -> Vec<NodeId>;

    /// Whether there are no others than those.
    fn knows_all(&self) -> bool;

    /// What is known of them, and what those answer that do so within this time. Nothing is asked on a thread that must not wait.
    fn survey(
        &self,
        request: &Request<'_>,
        within: std::time::Duration,
    ) -> (Vec<crate::node_info::NodeInfo>, Vec<Reply>);

    /// How this node is.
    fn standing(&self) -> Standing;

    /// This has its first connection here, or has lost its last one. Called under locks.
    fn mark(&self, share: Share);

    /// Waits until what others send to these arrives here, or cannot.
    fn settle(&self, shares: &[Share]);

    /// Nobody here waits any more for what was asked of other nodes, nor for what would be by a [`link`](Self::link).
    fn end_links(&self);
}

/// What has connections on some nodes only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Share {
    Topic(Arc<str>),
    User(Arc<str>),
}

/// What became of what was sent to other nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forwarded {
    pub(crate) nodes: usize,
    pub(crate) unreachable: bool,
}

/// How a node is in its cluster, and what it has counted since it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Redis is reached, both ways, and keeps the lease of this node.
    pub(crate) is_up: bool,
    /// Nodes that are known, this one included.
    pub(crate) nodes: usize,
    /// How long ago the lease was renewed. `None`: it never was.
    pub(crate) renewed: Option<std::time::Duration>,
    /// Messages sent to other nodes.
    pub(crate) forwarded: u64,
    /// Messages of other nodes for connections here.
    pub(crate) received: u64,
    /// Messages of which nobody knows whether other nodes got them.
    pub(crate) unreachable: u64,
    /// Connections to Redis that were made again.
    pub(crate) reconnects: u64,
    /// Messages of other nodes that came after these had given them up.
    pub(crate) late: u64,
}

impl Forwarded {
    pub(crate) const UNREACHABLE: Self = Self { nodes: 0, unreachable: true };
}

/// What is published to a topic that remembers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Publishing<'a> {
    pub(crate) message: &'a Message,
    pub(crate) newest: Option<&'a Arc<str>>,
    pub(crate) except: Option<&'a WebSocketId>,
    /// The idempotency key.
    pub(crate) key: Option<&'a Arc<str>>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Placed {
    /// `None`: it was not waited for.
    pub(crate) position: Option<Position>,
    pub(crate) is_duplicate: bool,
    /// Other nodes that it goes to.
    pub(crate) nodes: usize,
    /// Of the connections here: how many were sent to, queued for, dropped for, and gone.
    pub(crate) here: [usize; 4],
}

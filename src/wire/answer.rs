//! What is answered.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::{
    failure::Failure,
    values::{AsText, Data, pairs, since_1970, tags},
};
use crate::{
    connection::Pushed, error, history::Position, id::WebSocketId, info, info::ConnectionInfo, node_info,
    tags::Tags,
};

type Id = AsText<WebSocketId>;

/// The answer to a [request](super::Request), which says what it gets. New ones are added at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer<'a> {
    Failed(#[serde(borrow)] Failure<'a>),
    Done,
    /// The kernel has it.
    Sent,
    Queued,
    Broadcast(Counts),
    Published(Published),
    Number(u64),
    Flag(bool),
    Connection(Box<Connection<'a>>),
    /// `next` is for the following page; `None` in the last one. So in all pages.
    Connections {
        items: Vec<Connection<'a>>,
        next: Option<Id>,
    },
    Members {
        items: Vec<Id>,
        next: Option<Id>,
    },
    Topics {
        items: Vec<Count<'a>>,
        next: Option<&'a str>,
    },
    Present {
        items: Vec<Count<'a>>,
        next: Option<&'a str>,
    },
    Names(Vec<&'a str>),
    Recovery(Recovery),
    Certificates(Vec<Certificate<'a>>),
    Ended(Option<CloseReason<'a>>),
    Opened(Box<Opened<'a>>),
    Delivery(Delivery<'a>),
    /// It was sent to the node of the cluster that has the connection.
    Forwarded,
    Nodes(Vec<Node<'a>>),
}

impl From<Pushed> for Answer<'_> {
    fn from(pushed: Pushed) -> Self {
        match pushed {
            Pushed::Sent => Self::Sent,
            Pushed::Queued => Self::Queued,
            Pushed::Forwarded => Self::Forwarded,
        }
    }
}

/// Whom a message has reached: as [`Broadcast`](crate::Broadcast).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) queued: u64,
    pub(crate) dropped: u64,
    pub(crate) gone: u64,
    /// Other nodes of the cluster that it was sent to, and whether some could not be reached.
    pub(crate) forwarded: u64,
    pub(crate) unreachable: bool,
}

/// As [`crate::Published`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Published {
    pub(crate) counts: Counts,
    pub(crate) position: Option<AsText<Position>>,
    pub(crate) duplicate: bool,
}

/// As [`info::Recovery`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Recovery {
    pub(crate) recovered: bool,
    pub(crate) missed: u64,
    pub(crate) position: AsText<Position>,
}

impl From<info::Recovery> for Recovery {
    fn from(recovery: info::Recovery) -> Self {
        let info::Recovery { recovered, missed, position } = recovery;
        Self { recovered, missed: missed as u64, position: AsText(position) }
    }
}

impl From<Recovery> for info::Recovery {
    fn from(recovery: Recovery) -> Self {
        let Recovery { recovered, missed, position } = recovery;
        Self { recovered, missed: as_usize(missed), position: position.0 }
    }
}

/// A name, and how many there are of it: the members of a topic, the connections of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Count<'a> {
    pub(crate) name: &'a str,
    pub(crate) count: u64,
}

impl<'a> From<&'a info::TopicInfo> for Count<'a> {
    fn from(topic: &'a info::TopicInfo) -> Self {
        Self { name: &topic.name, count: topic.members as u64 }
    }
}

impl<'a> From<&'a info::PresentUser> for Count<'a> {
    fn from(present: &'a info::PresentUser) -> Self {
        Self { name: &present.user, count: present.connections as u64 }
    }
}

impl From<Count<'_>> for info::TopicInfo {
    fn from(topic: Count<'_>) -> Self {
        Self { name: topic.name.into(), members: as_usize(topic.count) }
    }
}

impl From<Count<'_>> for info::PresentUser {
    fn from(present: Count<'_>) -> Self {
        Self { user: present.name.into(), connections: as_usize(present.count) }
    }
}

/// A number of the other machine, where this one may have smaller ones.
pub(crate) fn as_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// As [`NodeInfo`](crate::NodeInfo).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Node<'a> {
    pub(crate) node: u32,
    pub(crate) is_this: bool,
    pub(crate) software: &'a str,
    pub(crate) connections: Option<u64>,
    pub(crate) uptime: Option<Duration>,
}

impl<'a> From<&'a node_info::NodeInfo> for Node<'a> {
    fn from(info: &'a node_info::NodeInfo) -> Self {
        let node_info::NodeInfo { node, is_this, software, connections, uptime } = info;
        let connections = connections.map(|count| count as u64);
        Self { node: node.get(), is_this: *is_this, software, connections, uptime: *uptime }
    }
}

impl From<Node<'_>> for node_info::NodeInfo {
    fn from(info: Node<'_>) -> Self {
        let Node { node, is_this, software, connections, uptime } = info;
        let node = crate::id::NodeId::new(node);
        Self { node, is_this, software: software.into(), connections: connections.map(as_usize), uptime }
    }
}

/// A certificate of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Certificate<'a> {
    pub(crate) name: &'a str,
    pub(crate) subject: &'a str,
    #[serde(with = "since_1970")]
    pub(crate) not_before: SystemTime,
    #[serde(with = "since_1970")]
    pub(crate) not_after: SystemTime,
}

#[cfg(feature = "__tls")]
impl<'a> From<&'a crate::tls::CertificateInfo> for Certificate<'a> {
    fn from(info: &'a crate::tls::CertificateInfo) -> Self {
        let crate::tls::CertificateInfo { name, subject, not_before, not_after } = info;
        Self { name, subject, not_before: *not_before, not_after: *not_after }
    }
}

#[cfg(feature = "__tls")]
impl From<Certificate<'_>> for crate::tls::CertificateInfo {
    fn from(certificate: Certificate<'_>) -> Self {
        let Certificate { name, subject, not_before, not_after } = certificate;
        Self { name: name.into(), subject: subject.into(), not_before, not_after }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CloseReason<'a> {
    pub(crate) code: u16,
    pub(crate) text: &'a str,
    pub(crate) by: ClosedBy,
}

/// Which side began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ClosedBy {
    Client,
    Server,
    Network,
}

impl<'a> From<&'a error::CloseReason> for CloseReason<'a> {
    fn from(reason: &'a error::CloseReason) -> Self {
        let by = match reason.by() {
            error::ClosedBy::Client => ClosedBy::Client,
            error::ClosedBy::Server => ClosedBy::Server,
            error::ClosedBy::Network => ClosedBy::Network,
        };
        Self { code: reason.code().into(), text: reason.text(), by }
    }
}

impl From<CloseReason<'_>> for error::CloseReason {
    fn from(reason: CloseReason<'_>) -> Self {
        let by = match reason.by {
            ClosedBy::Client => error::ClosedBy::Client,
            ClosedBy::Server => error::ClosedBy::Server,
            ClosedBy::Network => error::ClosedBy::Network,
        };
        Self::new(reason.code.into(), reason.text, by)
    }
}

/// As [`ConnectionInfo`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Connection<'a> {
    pub(crate) id: Id,
    pub(crate) path: &'a str,
    pub(crate) route: &'a str,
    pub(crate) peer: Option<AsText<SocketAddr>>,
    pub(crate) client_address: Option<AsText<IpAddr>>,
    pub(crate) user_agent: Option<&'a str>,
    pub(crate) user: Option<&'a str>,
    #[serde(borrow)]
    pub(crate) tags: Vec<(&'a str, &'a str)>,
    #[serde(with = "since_1970")]
    pub(crate) since: SystemTime,
    pub(crate) age: Duration,
    #[serde(with = "since_1970")]
    pub(crate) last_active: SystemTime,
    pub(crate) idle: Duration,
    pub(crate) shared: bool,
    pub(crate) queued: u64,
    pub(crate) messages_in: u64,
    pub(crate) messages_out: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) round_trip: Option<Duration>,
}

impl<'a> From<&'a ConnectionInfo> for Connection<'a> {
    fn from(info: &'a ConnectionInfo) -> Self {
        Self {
            id: AsText(info.id),
            path: &info.path,
            route: &info.route,
            peer: info.peer.map(AsText),
            client_address: info.client_address.map(AsText),
            user_agent: info.user_agent.as_deref(),
            user: info.user.as_deref(),
            tags: pairs(&info.tags),
            since: info.since,
            age: info.age,
            last_active: info.last_active,
            idle: info.idle,
            shared: info.shared,
            queued: info.queued as u64,
            messages_in: info.messages_in,
            messages_out: info.messages_out,
            bytes_in: info.bytes_in,
            bytes_out: info.bytes_out,
            round_trip: info.round_trip,
        }
    }
}

impl From<&Connection<'_>> for ConnectionInfo {
    fn from(connection: &Connection<'_>) -> Self {
        Self {
            id: connection.id.0,
            path: connection.path.into(),
            route: connection.route.into(),
            peer: connection.peer.map(|peer| peer.0),
            client_address: connection.client_address.map(|address| address.0),
            user_agent: connection.user_agent.map(Into::into),
            user: connection.user.map(Into::into),
            tags: tags(&connection.tags),
            since: connection.since,
            age: connection.age,
            last_active: connection.last_active,
            idle: connection.idle,
            shared: connection.shared,
            queued: as_usize(connection.queued),
            messages_in: connection.messages_in,
            messages_out: connection.messages_out,
            bytes_in: connection.bytes_in,
            bytes_out: connection.bytes_out,
            round_trip: connection.round_trip,
        }
    }
}

/// A shared connection that was opened, and all that does not change of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Opened<'a> {
    pub(crate) handle: u32,
    pub(crate) path: &'a str,
    pub(crate) route: &'a str,
    pub(crate) subprotocol: Option<&'a str>,
    pub(crate) session_id: Option<&'a str>,
    pub(crate) user: Option<&'a str>,
    #[serde(borrow)]
    pub(crate) tags: Vec<(&'a str, &'a str)>,
    pub(crate) peer: Option<AsText<SocketAddr>>,
    pub(crate) client_address: Option<AsText<IpAddr>>,
}

impl Opened<'_> {
    pub(crate) fn tags(&self) -> Tags {
        tags(&self.tags)
    }
}

/// What was read, and is to be acknowledged or given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Delivery<'a> {
    /// Its number, unique in its handle.
    pub(crate) delivery: u64,
    /// It is the end of its message.
    pub(crate) at_end: bool,
    /// Somebody has had it before, and did not acknowledge it.
    pub(crate) redelivered: bool,
    #[serde(borrow)]
    pub(crate) data: Data<'a>,
}

//! What is told about connections, and about the topics and users that they belong to.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{
    connection::{Connection, Statistics, Traffic},
    history::Position,
    id::WebSocketId,
    tags::Tags,
};

/// The state of a connection at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// The connection's ID.
    pub id: WebSocketId,
    /// The path of the client's request.
    pub path: Arc<str>,
    /// The route that serves it, as it was [registered](crate::ServerBuilder::route): `/chat/*`, for example.
    pub route: Arc<str>,
    /// The address of the socket's other end; `None` on a Unix socket. Of a proxy that speaks the
    /// [PROXY protocol](crate::ServerBuilder::proxy_protocol), that of its client.
    pub peer: Option<SocketAddr>,
    /// The client's address; see [`Request::client_address`](crate::Request::client_address).
    pub client_address: Option<IpAddr>,
    /// What the client says that it is: its `User-Agent`, cut to 256 bytes, and without what is not UTF-8. A stranger has
    /// written it: escape it where it is shown.
    pub user_agent: Option<Arc<str>>,
    /// The [user](crate::Opening::set_user).
    pub user: Option<Arc<str>>,
    /// The [tags](crate::Opening::set_tag).
    pub tags: Tags,
    /// When it was opened.
    pub since: SystemTime,
    /// For how long it has been open: unlike a difference of dates, this does not change when the system's clock is set.
    pub age: Duration,
    /// When the last message went either way, or, before the first one, when it was opened. Pings do not count.
    pub last_active: SystemTime,
    /// How long ago that was: like [`age`](Self::age), this does not change when the system's clock is set.
    pub idle: Duration,
    /// Whether it is shared.
    pub shared: bool,
    /// Bytes that wait to be sent.
    pub queued: usize,
    /// Messages received.
    pub messages_in: u64,
    /// Messages sent, or waiting to be sent.
    pub messages_out: u64,
    /// Bytes received, as they were on the wire.
    pub bytes_in: u64,
    /// Bytes sent, as they were on the wire.
    pub bytes_out: u64,
    /// The time from the last answered ping to its pong.
    pub round_trip: Option<Duration>,
}

impl ConnectionInfo {
    pub(crate) fn new(connection: &Arc<Connection>) -> Self {
        let about = connection.about();
        let Statistics { traffic, active, idle } = connection.statistics();
        let Traffic { counts, queued, round_trip } = traffic;
        Self {
            id: about.id,
            path: about.path.clone(),
            route: about.route().clone(),
            peer: about.peer,
            client_address: about.client(),
            user_agent: about.user_agent.as_ref().map(|name| name.text().clone()),
            user: about.user().cloned(),
            tags: about.tags().clone(),
            since: connection.opened(),
            age: connection.age(),
            last_active: active,
            idle,
            shared: about.shared,
            queued,
            messages_in: counts.messages_in,
            messages_out: counts.messages_out,
            bytes_in: counts.bytes_in,
            bytes_out: counts.bytes_out,
            round_trip,
        }
    }
}

/// A topic and how many there are; see [`Hub::topics`](crate::Hub::topics).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicInfo {
    /// The topic's name.
    pub name: Arc<str>,
    /// How many connections have joined it.
    pub members: usize,
}

/// A user who is in a topic; see [`Hub::presence`](crate::Hub::presence).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PresentUser {
    /// The user's name.
    pub user: Arc<str>,
    /// How many connections of the user have joined the topic.
    pub connections: usize,
}

/// How [`join_since`](crate::Hub::join_since) went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Nothing is missing between what the client had and what it gets.
    pub recovered: bool,
    /// How many publications it got that it had missed.
    pub missed: usize,
    /// Where the topic is now: the next publication is the one after this.
    pub position: Position,
}

//! What is told about a connection.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use crate::{connection::Connection, id::WebSocketId};

/// The state of a connection at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// The connection's ID.
    pub id: WebSocketId,
    /// The path of the client's request.
    pub path: Arc<str>,
    /// The address of the socket's other end; `None` on a Unix socket.
    pub peer: Option<SocketAddr>,
    /// When it was opened.
    pub since: SystemTime,
    /// For how long it has been open: unlike a difference of dates, this does not change when the system's clock is set.
    pub age: Duration,
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
        let (counts, queued, round_trip) = connection.statistics();
        Self {
            id: about.id,
            path: about.path.clone(),
            peer: about.peer,
            since: connection.opened(),
            age: connection.age(),
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

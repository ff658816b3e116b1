//! What is asked.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::values::{AsText, Audience, Payload};
use crate::{history, id::WebSocketId};

type Id = AsText<WebSocketId>;

/// What a client asks. Answers are as at each; instead of any there may be [`Answer::Failed`](super::Answer::Failed).
///
/// New ones are added at the end, and none is ever taken away: their order is what is on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request<'a> {
    /// `Pushed`.
    Push {
        id: Id,
        #[serde(borrow)]
        payload: Payload<'a>,
    },
    /// `Done`. May wait.
    PushWait { id: Id, payload: Payload<'a>, timeout: Duration },
    /// `Broadcast`.
    Broadcast { to: Audience<'a>, except: Option<Id>, payload: Payload<'a> },
    /// `Published`. `key` is the idempotency key.
    Publish { topic: &'a str, except: Option<Id>, key: Option<&'a str>, payload: Payload<'a> },
    /// `Done`.
    Close { id: Id, code: u16, text: &'a str },
    /// `Number`: how many were open.
    CloseAll { to: Audience<'a>, except: Option<Id>, code: u16, text: &'a str },
    /// `Connection`. May wait.
    Connection { id: Id },
    /// `Number` of connections.
    Len,
    /// `Connections`.
    Connections { to: Audience<'a>, after: Option<Id>, limit: u32 },
    /// `Members`.
    Members { topic: &'a str, after: Option<Id>, limit: u32 },
    /// `Topics`.
    Topics { after: Option<&'a str>, limit: u32 },
    /// `Present`: users.
    Presence { topic: &'a str, after: Option<&'a str>, limit: u32 },
    /// `Done`. May wait.
    Join { id: Id, topic: &'a str },
    /// `Done`.
    Leave { id: Id, topic: &'a str },
    /// `Recovery`. May wait.
    JoinSince { id: Id, topic: &'a str, since: Since<'a> },
    /// `Names`. May wait.
    TopicsOf { id: Id },
    /// `Certificates`.
    Certificates,
    /// `Ended`: how it did; with `None` for one that is open or being opened. `UnknownId` when nothing is known of it any more.
    CloseReason { id: Id },
    /// `Opened`: a handle, until [`Release`](Self::Release) or the end of the link. May wait.
    Open { id: Id },
    /// `Delivery`; what is read comes back if it is neither acknowledged nor given back when the handle ends. `len` is that of
    /// [`read`](crate::WebSocket::read), with the highest value for whole messages. May wait.
    Read { handle: u32, len: u64, timeout: Duration },
    /// `Done`, also if there is no such delivery (any more).
    Ack { handle: u32, delivery: u64 },
    /// `Done`, also if there is no such delivery (any more). It goes back to the head of what is unread.
    GiveBack { handle: u32, delivery: u64 },
    /// `Done`. May wait. The data has the kind that it is to be sent as.
    Write { handle: u32, payload: Payload<'a> },
    /// `Done`. May wait.
    Flush { handle: u32 },
    /// `Done`. Starts the closing handshake.
    End { handle: u32, code: u16, text: &'a str },
    /// `Ended`: how it did; with `None` while it is open.
    Ended { handle: u32 },
    /// `Done`.
    SetSessionEndOnClose { handle: u32, on: bool },
    /// `Flag`.
    SessionEndOnClose { handle: u32 },
    /// `Done`.
    SetBinaryData { handle: u32, on: bool },
    /// `Flag`.
    BinaryData { handle: u32 },
    /// `Done`: the handle means nothing any more, and what was read by it and is not acknowledged goes back.
    Release { handle: u32 },
    /// `Nodes`: the server, and the other nodes of its cluster; asked by one of these, the server alone.
    Nodes,
    /// `Connections` of one node of the cluster alone.
    ConnectionsOf { node: u32, to: Audience<'a>, after: Option<Id>, limit: u32 },
}

impl Request<'_> {
    /// So many requests there are.
    pub(crate) const KINDS: u32 = 33;

    /// Whether its answer may take longer than that of others: for the client, for a connection that is being opened, or for its
    /// own timeout.
    pub(crate) fn may_wait(&self) -> bool {
        matches!(
            self,
            Self::PushWait { .. }
                | Self::Connection { .. }
                | Self::Join { .. }
                | Self::JoinSince { .. }
                | Self::TopicsOf { .. }
                | Self::Open { .. }
                | Self::Read { .. }
                | Self::Write { .. }
                | Self::Flush { .. }
        )
    }

    /// The connection that it is about, if it names one.
    pub(crate) fn connection(&self) -> Option<&WebSocketId> {
        match self {
            Self::Push { id, .. }
            | Self::PushWait { id, .. }
            | Self::Close { id, .. }
            | Self::Connection { id }
            | Self::Join { id, .. }
            | Self::Leave { id, .. }
            | Self::JoinSince { id, .. }
            | Self::TopicsOf { id }
            | Self::CloseReason { id }
            | Self::Open { id } => Some(&id.0),
            _ => None,
        }
    }

    /// Whether nobody else can know what it has done: what it opens, or reads.
    pub(crate) fn needs_answer(&self) -> bool {
        matches!(self, Self::Open { .. } | Self::Read { .. })
    }

    /// Whether it changes nothing: whoever may only read may ask it.
    pub(crate) fn is_safe(&self) -> bool {
        matches!(
            self,
            Self::Connection { .. }
                | Self::Len
                | Self::Connections { .. }
                | Self::Members { .. }
                | Self::Topics { .. }
                | Self::Presence { .. }
                | Self::TopicsOf { .. }
                | Self::Certificates
                | Self::CloseReason { .. }
                | Self::Nodes
                | Self::ConnectionsOf { .. }
        )
    }
}

/// What a client has seen of a topic; as [`history::Since`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Since<'a> {
    Now,
    /// As in a URL: empty for nothing, or positions with commas between them.
    Text(&'a str),
}

impl<'a> Since<'a> {
    /// Of what [`to_text`](history::Since::to_text) gives.
    pub(crate) fn of(text: Option<&'a str>) -> Self {
        text.map_or(Self::Now, Self::Text)
    }
}

impl From<Since<'_>> for history::Since {
    fn from(since: Since<'_>) -> Self {
        match since {
            Since::Now => Self::NOW,
            Since::Text(text) => text.into(),
        }
    }
}

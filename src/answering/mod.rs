//! Answers what other processes ask of the hub, in the words of [`wire`](crate::wire), whatever brings these: a link to the management
//! listener, or a cluster.
//!
//! What does not wait is done by the thread of the talk, in order: so what one thread of the other process pushes stays in its
//! order. What may wait is given to threads of the talk. None of them outlives it, and what it has opened and read goes back at its
//! end, however that comes.

mod ask;
mod ask_opened;
mod opened;
mod places;
mod replies;
mod talk;
mod waits;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;

use self::places::Places;
pub(crate) use self::{places::OF_LINK, talk::Talk};
use crate::{
    error::{Error, Result},
    hub::Hub,
    id::WebSocketId,
    limits::Limits,
    registry::Registry,
    wire::{Hello, Malformed, SOFTWARE, VERSION},
};

/// How often a thread that waits looks whether anybody still wants what it waits for.
pub(crate) const LOOK: Duration = Duration::from_millis(250);

/// How many requests of a talk may be unanswered. Those that do not wait stay where they came from meanwhile.
const UNANSWERED: u32 = 1024;

/// Whom a [`Talk`] is with. Answers are written by several threads at once.
pub(crate) trait Peer: Sync {
    /// The next requests.
    ///
    /// # Errors
    /// [`Ended::NotYet`] after a while without any; else why there will be none any more.
    fn receive(&self) -> Result<Bytes, Ended>;

    /// Sends answers.
    ///
    /// # Errors
    /// Nobody gets them any more.
    fn send(&self, frames: Vec<u8>) -> Result<()>;

    /// It has broken the protocol: its talk has to end.
    fn refuse(&self, malformed: Malformed);

    /// Nothing more is to be done for it.
    fn is_over(&self) -> bool;
}

/// What all talks of a server have in common.
pub(crate) struct Desk {
    hub: Hub,
    registry: Arc<Registry>,
    /// How long a connection may take to be opened.
    handshake_timeout: Duration,
    /// How long a client may take nothing of what is written to it.
    write_timeout: Duration,
    places: Arc<Places>,
}

impl Desk {
    /// `limits` are those of the server.
    pub(crate) fn new(hub: Hub, registry: Arc<Registry>, limits: &Limits) -> Self {
        let Limits { handshake_timeout, write_timeout, .. } = *limits;
        Self { hub, registry, handshake_timeout, write_timeout, places: Arc::default() }
    }

    /// Whether it is a connection of another node, which this one's hub reaches.
    pub(crate) fn is_elsewhere(&self, id: &WebSocketId) -> bool {
        #[cfg(feature = "cluster")]
        return id.node() != self.registry.node() && self.hub.is_clustered();
        #[cfg(not(feature = "cluster"))]
        return {
            let _ = id;
            false
        };
    }

    /// Whether there are other nodes to be asked.
    pub(crate) fn is_clustered(&self) -> bool {
        #[cfg(feature = "cluster")]
        return self.hub.is_clustered();
        #[cfg(not(feature = "cluster"))]
        return false;
    }

    /// Whether it is a node of a cluster, where whoever joins may have to wait for Redis.
    pub(crate) fn is_node(&self) -> bool {
        #[cfg(feature = "cluster")]
        return self.registry.elsewhere().is_some();
        #[cfg(not(feature = "cluster"))]
        return false;
    }

    /// What is said first: `max_message` is the longest that is taken, and `epoch` tells this start of the server from others.
    pub(crate) fn hello(&self, max_message: usize, epoch: u64) -> Vec<u8> {
        Hello {
            version: VERSION,
            software: SOFTWARE,
            max_message: max_message as u64,
            max_unanswered: UNANSWERED,
            max_waits: OF_LINK as u32,
            handshake_timeout: in_millis(self.handshake_timeout),
            write_timeout: in_millis(self.write_timeout),
            epoch,
        }
        .encode()
    }
}

fn in_millis(time: Duration) -> u64 {
    time.as_millis().try_into().unwrap_or(u64::MAX)
}

/// Why a talk ends, or has nothing to say.
#[derive(Debug)]
pub(crate) enum Ended {
    Malformed(Malformed),
    /// There is nothing yet.
    NotYet,
    /// What it came by has ended.
    Closed,
}

impl From<Malformed> for Ended {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        match error {
            Error::Timeout => Self::NotYet,
            _ => Self::Closed,
        }
    }
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

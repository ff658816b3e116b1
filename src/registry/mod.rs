//! The registry: every connection by its ID, by its path and route, by the topics that it joined, and by its user; and those
//! that are being opened, by their ID, and by the topics and the user that they will belong to.
//!
//! Its locks are held to look something up, never while anything is sent or waited for; but what a topic remembers is in use while
//! its publications are pushed, so that all get them in the same order.
//!
//! Which may be locked while another is held, from the first to the last; what stands side by side is never held together:
//!
//! ```text
//! a topic's log ─► relief of a shortage ─► inbox ─► core ─► outbox
//!      │                └─► the IDs
//!      └─► a connection that is being opened ─► joined ─► topics, users ─► what observers are to be told
//!                     └─► paths, routes, the IDs              the IDs
//! ```
//!
//! The table of the logs is held only while these are tried, never while one is waited for. Observers, and so their calls of the hub,
//! are told with nothing held; whoever holds a log never waits until they are. In a cluster the logs are those of
//! `elsewhere`, in the same place.

mod census;
#[cfg(feature = "__tls")]
mod certificates;
mod connections;
mod found;
mod groups;
mod histories;

mod joined;
mod membership;
mod recovery;
mod sharing;

#[cfg(feature = "manage")]
pub(crate) use self::census::Census;
pub(crate) use self::{
    connections::{Announced, Registry},
    found::{Found, Selected},
    recovery::numbered,
};

//! The registry: every connection by its ID, by its path and route, by the topics that it joined, and by its user; and those
//! that are being opened, by their ID, and by the topics and the user that they will belong to.
//!
//! Its locks are held to look something up, never while anything is sent or waited for.

mod audience;
#[cfg(feature = "__tls")]
mod certificates;
mod connections;
mod found;
mod groups;
mod joined;

pub use self::{
    audience::{Audience, Recipients},
    joined::TopicInfo,
};
pub(crate) use self::{
    connections::{Announced, Registry},
    found::Found,
};

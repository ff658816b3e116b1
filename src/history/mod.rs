//! What topics remember: their publications, each with its position. Values and one topic's log; no locks, no connections.

mod log;
mod position;
mod rule;

pub(crate) use self::{
    log::{Log, Room},
    rule::Rules,
};
pub use self::{
    position::{InvalidPosition, Position, Since},
    rule::History,
};

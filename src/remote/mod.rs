//! A hub in another process, as this one sees it: the link to that, what was asked over it, and who waits for an answer. It knows
//! neither how a link comes to be, which is the business of `client`, nor what is asked, which is that of `hub` and `websocket`.
//!
//! No call waits longer than its time, whatever the link does: what its socket does not take waits behind it, and is taken back when
//! its caller gives up.

mod call;
mod carrier;
mod failure;
mod handle;
mod link;
mod push;

#[cfg(feature = "cluster")]
pub(crate) use self::{call::Reply, carrier::Carrier, link::Dial};
pub(crate) use self::{
    carrier::ByConnection,
    failure::Trouble,
    handle::{Handle, Loan},
    link::{Line, Link, Linked, ended, is_done, unknown_end},
};

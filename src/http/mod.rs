//! HTTP as far as a WebSocket server needs it: the request head in, the 101 or a refusal out, and plain pages.
//!
//! No I/O: bytes to values and back. Only `files` reads from the disk.

mod files;
mod handshake;
mod header;
mod host;
mod hosts;
mod origin;
mod request;
mod response;
mod target;

pub(crate) use self::{
    files::Files,
    handshake::{Handshake, is_upgrade},
    header::header_line,
    hosts::Hosts,
    request::parse_head,
    response::{Body, FAILED},
    target::normalize,
};
pub use self::{
    origin::Origins,
    request::Request,
    response::{Refusal, Response},
};

//! HTTP as far as a WebSocket server needs it: the request head in, the 101 or a refusal out, and plain pages.
//!
//! No I/O: bytes to values and back. Only `files` and `part` read from the disk.

mod files;
mod handshake;
mod head;
mod header;
mod part;
mod request;
mod response;

pub use self::{
    files::Files,
    handshake::Origins,
    request::Request,
    response::{Refusal, Response},
};
pub(crate) use self::{
    handshake::{Handshake, is_upgrade},
    head::CommonHeaders,
    header::header_line,
    request::parse_head,
    response::{Body, FAILED},
};

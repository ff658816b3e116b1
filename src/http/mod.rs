//! HTTP as far as a WebSocket server needs it: the request in, head and body, the 101 or a refusal out, and plain pages.
//!
//! No I/O: bytes to values and back. Only `files` and `part` read from the disk.

mod body;
mod date;
mod files;
mod forwarded;
mod handshake;
mod head;
mod header;
mod host;
mod hosts;
mod origin;
mod part;
#[cfg(feature = "manage")]
mod produced;
mod proxies;
mod redirect;
mod request;
mod response;
mod target;
mod upgrade;

#[cfg(feature = "manage")]
pub(crate) use self::produced::{Producer, Sink};
pub(crate) use self::{
    body::{Decoder, Framing, Part},
    handshake::{Handshake, check_page_origin, is_upgrade, websocket_here},
    head::CommonHeaders,
    header::header_line,
    hosts::Hosts,
    part::FilePart,
    proxies::Proxies,
    redirect::to_https,
    request::parse_head,
    response::{Body, FAILED},
    target::{normalize, tail},
    upgrade::{ResponseHead, Upgrade},
};
pub use self::{
    files::Files,
    forwarded::ProxyHeaders,
    origin::Origins,
    request::Request,
    response::{Refusal, Response},
};

//! What a hub in another process, and the server that it belongs to, say to each other: the link of `Hub::connect`. Only bytes and
//! values; the two ends are in `manage::link` and in `remote`.
//!
//! # The protocol, for other languages
//!
//! A link is one WebSocket to a management listener: `GET /@hub` with the subprotocol [`switchboard.hub.1`](SUBPROTOCOL), and, where
//! requests need a token, the same `Authorization` as they have. All messages are binary. The first one of each side is its
//! [`Hello`], and neither has to wait for that of the other.
//!
//! After it, a WebSocket message is one or more *frames*, one behind the other. Each has 8 bytes in front, two numbers of 32 bits, the
//! lowest byte first: the length of what follows them, and the number of the request. The client chooses numbers, such as 1, 2, 3;
//! the server's answer, a frame as well, has the number of its request. A request with the number [0](UNANSWERED) gets no answer, and is none
//! that [needs one](Request::needs_answer). What
//! does not wait is done and answered in the order in which it was sent. What waits does not hold up what was sent behind it, and is
//! answered when it is done: [`Request::may_wait`], and in a cluster also what has an answer and asks other nodes.
//!
//! What follows is a [`Request`] or an [`Answer`] in the format of [postcard](https://postcard.jamesmunns.com/wire-format): the number
//! of the variant, counted from 0, and its fields, as they are declared. Of that format a link uses: whole numbers and lengths as
//! varints (7 bits in a byte, the lowest first, the highest bit says that more follow); `bool` and `u8` as one byte; `Option` as a byte, 0 or 1, and
//! the value behind 1; texts (UTF-8), bytes and lists as a length, and what they hold; structures as their fields. IDs, addresses and
//! [positions](crate::Position) are texts.
//!
//! Newer sides may know more variants, which are added at the end, and more fields behind those of a frame or a hello, which are passed over. A
//! request that the server does not know is answered with [`Failure::Unsupported`]. Whoever gets what is not this protocol ends
//! the link with 1002.

mod answer;
mod failure;
mod frames;
mod request;
#[cfg(test)]
mod tests;
mod values;

pub(crate) use self::{
    answer::{
        Answer, Certificate, CloseReason, Connection, Count, Counts, Delivery, Node, Opened, Published,
        Recovery, as_usize,
    },
    failure::Failure,
    frames::{Frames, HEADER, Malformed, append, decode, decode_request},
    request::{Request, Since},
    values::{AsText, Audience, Data, Payload, part},
};

#[cfg(feature = "cluster")]
pub(crate) use self::frames::{put, take};

/// The subprotocol of a link.
pub(crate) const SUBPROTOCOL: &str = "switchboard.hub.1";

/// The version of what is said over it, for what is changed without another subprotocol.
pub(crate) const VERSION: u32 = 1;

/// A request with this number gets no answer.
pub(crate) const UNANSWERED: u32 = 0;

/// What each side says first: who it is, and what it takes. It is a message of its own, without a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Hello<'a> {
    /// The sender's [version](VERSION). The lower one of both counts.
    pub(crate) version: u32,
    /// Its name and version, for logs. Not empty.
    pub(crate) software: &'a str,
    /// The longest WebSocket message that it takes, in bytes.
    pub(crate) max_message: u64,
    /// Of a server: how many requests may be unanswered. The client sends no more until there are fewer. 0 of a client.
    pub(crate) max_unanswered: u32,
    /// Of a server: how many of these may [wait](Request::may_wait); more are answered [`Failure::TooMany`]. 0 of a client.
    pub(crate) max_waits: u32,
    /// Of a server: how long a connection may take to be opened, in milliseconds. 0 of a client.
    pub(crate) handshake_timeout: u64,
    /// Of a server: how long a client may take nothing of what is written to it, in milliseconds. 0 of a client.
    pub(crate) write_timeout: u64,
    /// Of a server: which of its starts this is. Handles and deliveries of another one mean nothing. Of a client: which hub it is, by a
    /// number that no other has; of the links of one, the server serves the last, and does nothing more for that before. 0 for one that
    /// does not say so.
    pub(crate) epoch: u64,
}

impl<'a> Hello<'a> {
    /// That of one who asks.
    #[cfg(feature = "remote")]
    pub(crate) fn of_client(max_message: usize, epoch: u64) -> Self {
        Self {
            version: VERSION,
            software: SOFTWARE,
            max_message: max_message as u64,
            max_unanswered: 0,
            max_waits: 0,
            handshake_timeout: 0,
            write_timeout: 0,
            epoch,
        }
    }

    /// As a message.
    pub(crate) fn encode(&self) -> Vec<u8> {
        frames::encode(self)
    }

    /// # Errors
    /// It is none.
    pub(crate) fn decode(message: &'a [u8]) -> Result<Self, Malformed> {
        // A frame may look like one of nobody.
        let is_one = |hello: &Self| hello.version > 0 && !hello.software.is_empty();
        decode(message).ok().filter(is_one).ok_or(Malformed("the first message is no hello"))
    }
}

/// What this crate says of itself in a [`Hello`].
pub(crate) use crate::node_info::SOFTWARE;

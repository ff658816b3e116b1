//! WebSockets for programs without an async runtime.
//!
//! You write a type with three methods, [`on_pre_server`], [`server`] and [`on_post_server`]; the server runs one instance
//! for each connection, on an operating-system thread of its own, and `server` simply reads and writes, with timeouts. No
//! runtime, no `async`, no callbacks: a socket can be dropped into a program that has threads and loops already, and into a
//! small Linux box. The programming model is that of `%CSP.WebSocket` of InterSystems IRIS; the names are the same.
//!
//! [`on_pre_server`]: WebSocketServer::on_pre_server
//! [`server`]: WebSocketServer::server
//! [`on_post_server`]: WebSocketServer::on_post_server
//!
//! ```
//! use std::time::Duration;
//! use switchboard::{Error, READ_LEN, Server, ServerResult, WebSocket, WebSocketServer};
//!
//! struct Echo;
//!
//! impl WebSocketServer for Echo {
//!     fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
//!         loop {
//!             match ws.read(READ_LEN, Duration::from_secs(10)) {
//!                 Ok(data) => ws.write(data)?,
//!                 Err(Error::Timeout) => ws.write("still there?")?,
//!                 Err(closed) => return Err(closed.into()),
//!             }
//!         }
//!     }
//! }
//!
//! # fn main() -> switchboard::Result<()> {
//! let server = Server::builder().listen("127.0.0.1:0").route("/echo", || Echo).bind()?;
//! println!("ws://{}/echo", server.local_addrs()[0]);
//! # let handle = server.handle();
//! # handle.shutdown(Duration::ZERO);
//! server.run()?;
//! # Ok(()) }
//! ```
//!
//! # Concurrency
//!
//! [`Server::run`] accepts on the thread that calls it, and does nothing else there. Each connection has a thread: the TLS
//! and the opening handshake, your three methods, and the closing handshake happen on it, so a slow client keeps nobody
//! but itself waiting. One more thread, the gateway, sends what a socket did not take at once, and keeps the times.
//!
//! A [`WebSocket`] belongs to its thread. A thread that waits in `read` holds no lock that writing needs.
//!
//! A panic in your code ends that connection, with close code 1011, and nothing else.
//!
//! # Flushing
//!
//! [`write`](WebSocket::write) returns when the message is with the kernel. There is one exception, which makes pipelined
//! traffic several times faster: while further messages of the same client have already arrived, the answers are
//! collected, and go out together as soon as `read` would wait, at 16 KiB, or when `server` returns; and after 1 ms
//! whatever the handler does. [`flush`](WebSocket::flush) sends at once.
//!
//! # Closing
//!
//! Every connection ends with a [`CloseReason`]: code, text, and who began. A normal end is no failure, but it is how a
//! `read` or a `write` learns of it: as [`Error::Closed`]. Returned from `server` (by `?`, for example), it is no error.
//!
//! | what happens | the client gets | `reason()` |
//! |---|---|---|
//! | `server` returns, or [`end_server`](WebSocket::end_server) | 1000 | 1000, by the server |
//! | [`close`](WebSocket::close) with a code of your own | that code and text | the same |
//! | `server` returns an error, or panics | 1011 | 1011, by the server |
//! | the client closes | its own code back | its code, or 1005 if it gave none |
//! | the client breaks the protocol; sends text that is not UTF-8; sends more than the limit | 1002; 1007; 1009 | the same, by the server |
//! | the connection breaks, or ends without a close frame | | 1006 |
//! | a write takes longer than the limit | a cut stream | 1006, by the server |
//! | the server shuts down | 1001 | 1001, by the server |
//!
//! The stream is never just cut after a close frame: it is ended (FIN), and read to its end, within
//! [`Limits::close_timeout`], so that the client reads the close frame and not a reset.
//!
//! # Limits
//!
//! Every wait has a deadline, every queue a bound, and every limit a close code or an HTTP status: see [`Limits`].
//!
//! # Shutdown
//!
//! [`ServerHandle::shutdown`] from any thread, with a grace period. [`Server::run`] returns when every thread is joined and
//! every socket closed.
//!
//! # Memory
//!
//! A connection that waits in `read` costs its thread (a few KiB of stack that are really used, the kernel's share
//! included) and a receive buffer of 2 KiB. Buffers grow with the bytes that arrive, never with the length that a frame
//! announces, and shrink again.
//!
//! # Features
//!
//! - `tls` (default): `wss://` by the system's TLS library.
//! - `cli` (default): the `switchboard` command. A program that only uses the library does without:
//!   `switchboard = { version = "0.1", default-features = false, features = ["tls"] }`.
//!
//! # How it is made
//!
//! From the ground up, each module using only those below it: `message`, `error`, `limits`; `codec` (bytes in, messages out:
//! TLS, frames and tungstenite over memory, without a socket), `http`, `session`; `connection` (socket, codec and the two
//! locks); `hub` and `gateway`; `websocket` (what your code holds); `server`. The codec is locked for microseconds and never
//! while anything waits: a thread that reads waits in `recv` outside of the lock, and so another one can write meanwhile,
//! over TLS too.

// Nothing that a peer or the system does may panic; tests may.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

#[cfg(not(unix))]
compile_error!("switchboard needs Unix: Linux, macOS or another one");

mod codec;
mod connection;
mod deadline;
mod error;
mod gateway;
mod http;
mod hub;
mod id;
mod limits;
mod message;
mod parked;
mod server;
mod session;
mod sync;
#[cfg(feature = "tls")]
mod tls;
mod websocket;

pub use ::bytes::Bytes;
pub use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

#[cfg(feature = "tls")]
pub use crate::tls::TlsIdentity;
pub use crate::{
    connection::{Overflow, PushError, PushErrorKind, Pushed, READ_TIMEOUT},
    error::{BindError, CloseReason, ClosedBy, Error, Result},
    http::{Origins, Refusal, Request, Response},
    hub::{Audience, Broadcast, ConnectionInfo, Hub, Pusher},
    id::WebSocketId,
    limits::Limits,
    message::{CloseCode, Data, Message, Payload, Text},
    server::{Exchange, ListenAddr, Server, ServerBuilder, ServerHandle},
    session::{Opened, Session, SessionId, SessionStore},
    websocket::{Closed, Handled, Messages, Opening, READ_LEN, ServerResult, WebSocket, WebSocketServer},
};

/// The code in the README is compiled, too.
#[cfg(all(doctest, feature = "tls"))]
#[doc = include_str!("../README.md")]
struct Readme;

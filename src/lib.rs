//! WebSockets for programs without an async runtime.
//!
//! You write a type with three methods, [`on_pre_server`], [`server`] and [`on_post_server`]; the server runs one instance
//! for each connection, on an operating-system thread of its own, and `server` simply reads and writes, with timeouts. Any
//! other thread finds a connection by its ID and pushes to it, and *shared* connections live on without a thread. No
//! runtime, no `async`: a socket can be dropped into a program that has threads and loops already, and into a small Linux
//! box. The programming model is that of `%CSP.WebSocket` of InterSystems IRIS; the names are the same.
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
//! ```text
//!  clients ──► acceptor ──► connection's thread ──► your server(&mut ws)               synchronous
//!                                      │             waits in recv
//!                                      └─ shared? ──► gateway, for all of them ──► workers: on_client_message
//!                                                        │                          inbox ──► read, of any thread
//!  any thread ──► Hub: push, broadcast, open_server ──► outbox ──► protocol ──► send, never waiting
//! ```
//!
//! | thread | what it does | how many |
//! |---|---|---|
//! | the one that calls [`Server::run`] | waits for the end, and joins the others | 1 |
//! | `switchboard-accept` | accepts clients, and hands their sockets to the next kind of thread | one for each listener |
//! | `switchboard-conn` | all of one connection: TLS and the opening handshake, your methods, the closing handshake; then waits for another one, for [`Limits::thread_keep_alive`] | one for each synchronous connection, and those that wait |
//! | `switchboard-gate` | the sockets of shared connections, output that did not fit, pings, deadlines | [`Limits::gateways`] |
//! | `switchboard-work` | [`on_client_message`](WebSocketServer::on_client_message) | [`Limits::workers`] |
//!
//! Who may do what from where:
//!
//! - [`read`](WebSocket::read) of a synchronous connection: its own thread. Of a shared one: any thread that has opened it
//!   with [`Hub::open_server`], several at once; each gets different messages.
//! - [`write`](WebSocket::write): whoever has the [`WebSocket`]. A message is whole and never torn by another one, and those
//!   of one thread keep their order. It waits for a slow client, except in `on_client_message`.
//! - [`Hub::push`], [`Pusher::push`], [`Hub::broadcast`]: any thread, to any connection, without waiting for the network.
//!   They reach the client at once also while the connection's own thread waits in `read`, computes, or is writing.
//! - [`Hub::close`], [`WebSocket::end_server`]: any thread. Whoever waits in `read` of a shared connection learns of it at
//!   once.
//! - Your three methods are called by one thread at a time, `on_client_message` in the order of the messages.
//!
//! While a handler computes and does not read, the gateway looks at its socket once a second: pings are answered, a close
//! is noticed, and messages are kept for the next `read`. A handler that computes for an hour does not lose its client.
//!
//! A panic in your code ends that connection, with close code 1011, and nothing else. A thread serves one connection after
//! another: what a handler changes of its thread, such as priority or affinity, it has to restore. Without clients all
//! threads sleep, and with silent ones nothing wakes them but the pings.
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
//! A `write` may learn of it while messages that came before still wait to be read: to lose none of them, read until
//! `read` says so, too.
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
//! What came before a broken rule is answered first, and then the close frame follows.
//!
//! The stream is never just cut after a close frame: it is ended (FIN), and read to its end, within
//! [`Limits::close_timeout`], so that the client reads the close frame and not a reset.
//!
//! # Compression
//!
//! permessage-deflate (RFC 7692) is off by default, and chosen by [`ServerBuilder::compression`] or, for one route, by
//! [`Opening::set_compression`]: see [`Compression`] for what the modes cost. All four parameters are negotiated.
//! Inflating stops at [`Limits::max_message_size`], so a small message cannot become a large one; messages of fewer than
//! [`Limits::min_compressed_size`] bytes are sent as they are.
//!
//! # Slow clients
//!
//! A client that does not take what is pushed gets a queue, of [`Limits::max_queue_bytes`] and
//! [`Limits::max_queue_messages`]. What happens when it is full is chosen in `on_pre_server`: see [`Overflow`]. A client that
//! sends more than anybody reads is held back by TCP when its inbox is full; nothing is lost.
//!
//! # Limits
//!
//! Every wait has a deadline, every queue a bound, and every limit a close code or an HTTP status: see [`Limits`].
//!
//! # Shutdown
//!
//! [`ServerHandle::shutdown`] from any thread, with a grace period. [`Server::run`] returns when every thread is joined and
//! every socket closed; a [`WebSocket`], a [`Pusher`] or a [`Hub`] may be held beyond that, and say that all is closed.
//!
//! # Memory
//!
//! Measured on Linux, x86-64, with 64-byte messages echoed once: resident memory beyond the kernel's own.
//!
//! | connection | each |
//! |---|---|
//! | shared, plain, 18,000 of them on one gateway | 0.9 KiB |
//! | shared, TLS (OpenSSL 3), 2,000 of them | 15 KiB |
//! | synchronous, plain, 4,000 of them | 14.5 KiB, more than half of it the thread's stack |
//!
//! Buffers grow with the bytes that arrive, never with the length that a frame announces, and are given back.
//!
//! # Conformance
//!
//! The server's side of RFC 6455 and RFC 7692. All 517 cases of the [Autobahn testsuite] pass strictly, over `ws://` and
//! `wss://`, for synchronous and for shared connections, with compression on; three only ask how a peer behaves, and are
//! informational. (`tests/run` leaves out those of groups 12 and 13, about compression, with messages above 8 KiB, which take
//! an hour: `tests/run full`.) Random sequences of frames get the same answer as from the Python package `websockets`; where
//! the RFCs are for another one, that test (`tests/clients/differential.py`) says so.
//!
//! | | section | |
//! |---|---|---|
//! | opening handshake | 6455: 4.2, 10.2 | all checks; `Origin`; HTTP 400, 403, 405, 426 |
//! | frames | 6455: 5.2, 5.3 | unmasked frames, reserved bits and opcodes, lengths not written in the fewest bytes: 1002 |
//! | fragments | 6455: 5.4 | of any number, with control frames between; messages are sent unfragmented |
//! | control frames | 6455: 5.5 | each ping has its pong |
//! | closing handshake | 6455: 5.5.1, 7 | codes 1000-1003, 1007-1014 and 3000-4999 both ways, others are answered with 1002; the server ends the stream first |
//! | text | 6455: 8.1 | checked as it arrives, not when it is complete: 1007 |
//! | subprotocols | 6455: 1.9, 4.2.2 | chosen by the application |
//! | compression | 7692: 5, 7 | offers that are malformed or unknown are declined; windows of 9 to 15 bits for what the server sends, 8 to 15 for the client |
//!
//! What it does not do: HTTP/2 (RFC 8441), and a window of 8 bits for what the server sends, which zlib cannot.
//!
//! [Autobahn testsuite]: https://github.com/crossbario/autobahn-testsuite
//!
//! # Features
//!
//! - `tls` (default): `wss://` by the system's TLS library.
//! - `cli` (default): the `switchboard` command. A program that only uses the library does without:
//!   `switchboard = { version = "0.1", default-features = false, features = ["tls"] }`.
//!
//! # How it is made
//!
//! From the ground up; a module uses only those on floors below its own, and there are no circles, also not between a module
//! and its parts.
//!
//! | floor | module | what it holds |
//! |---|---|---|
//! | 0 | `error`, `message`, `limits`, `id`, `clock`, `deadline`, `sync`, `thread` | values, time, locks |
//! | 1 | `codec` | bytes to messages and back: TLS, frames and compression, over memory |
//! | 1 | `http` | a request in, a response out; the checks of the opening handshake |
//! | 1 | `tls` | the server's certificate |
//! | 2 | `compression` | what is negotiated with a client |
//! | 2 | `session` | sessions, their cookie, and where they are stored |
//! | 2 | `protocol` | the life of one connection, pure: bytes, commands and the time in; bytes, messages and the next deadline out |
//! | 3 | `connection` | the protocol under its lock, the socket, what waits to be sent and to be read |
//! | 4 | `registry` | connections by ID, path and topic |
//! | 4 | `gateway` | drives shared connections, receives for busy threads, keeps the times |
//! | 5 | `websocket`, `parked` | what your code holds; how it is called without a thread |
//! | 6 | `hub` | finds connections and pushes to them |
//! | 7 | `server` | listeners, the threads of the connections, routes, shutdown |
//!
//! The `switchboard` command is a program that uses all of this as yours does.
//!
//! A message on its way in: `gateway` (or `read` of `connection`, on the connection's own thread) receives bytes, `protocol`
//! takes them in and asks `codec` for messages, the inbox of `connection` keeps them, and `websocket` or `parked` hands them to
//! your code. A push on its way out: `hub` finds the connection in `registry`; `push` of `connection` locks the core, or leaves
//! the message in the outbox, into which whoever has the lock looks when it lets go; `protocol` appends it to the output, and
//! the socket takes it. An end, whichever side begins it, is a phase of `protocol`; whoever drives the connection sends what is
//! left, and completes it.
//!
//! The lock of a connection is held for microseconds and never while anything waits: a thread that reads waits in `recv`
//! outside of it, and so another one can write meanwhile, over TLS too.

// Nothing that a peer or the system does may panic; tests may.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

#[cfg(not(unix))]
compile_error!("switchboard needs Unix: Linux, macOS or another one");

#[cfg(feature = "__bench")]
#[doc(hidden)]
pub mod benching;
mod clock;
mod codec;
mod compression;
mod connection;
mod deadline;
mod error;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod gateway;
mod http;
mod hub;
mod id;
mod limits;
mod message;
mod parked;
mod protocol;
mod registry;
mod server;
mod session;
mod sync;
mod thread;
#[cfg(feature = "tls")]
mod tls;
mod websocket;

pub use ::bytes::Bytes;
pub use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

#[cfg(feature = "tls")]
pub use crate::tls::TlsIdentity;
pub use crate::{
    compression::Compression,
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

//! A WebSocket server for programs without an async runtime.
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
    connection::{READ_TIMEOUT, WebSocketId},
    error::{BindError, CloseReason, ClosedBy, Error, Result},
    http::{Origins, Refusal, Request, Response},
    limits::Limits,
    message::{CloseCode, Data, Message, Payload, Text},
    server::{Exchange, ListenAddr, Server, ServerBuilder, ServerHandle},
    session::{Opened, Session, SessionId, SessionStore},
    websocket::{Closed, Messages, Opening, READ_LEN, ServerResult, WebSocket, WebSocketServer},
};

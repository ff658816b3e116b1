//! A WebSocket server for programs without an async runtime.
#![allow(dead_code)]
mod codec;
mod deadline;
mod error;
mod message;
pub use error::{BindError, CloseReason, ClosedBy, Error, Result};
pub use message::{CloseCode, Data, Message, Payload, Text};
/// todo
#[derive(Debug)]
pub struct WebSocket;

//! What applications use: the trait that they implement, and the objects that its methods get.

mod local;
#[cfg(feature = "remote")]
mod remote;
mod socket;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

pub use self::socket::{Messages, READ_LEN, WebSocket};
pub(crate) use self::{
    local::{Attached, Holder},
    socket::Whose,
};
use crate::{
    error::CloseReason, http::Refusal, id::WebSocketId, message::Message, opening::Opening,
    registry::Registry, session::SessionId, tags::Tags,
};

/// What [`server`](WebSocketServer::server) returns. `?` converts any error to it.
pub type ServerResult = std::result::Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// A WebSocket application: one instance for each connection, on a thread of its own.
///
/// A panic in any of the methods affects only this connection: it ends with close code 1011, or, before the handshake is
/// answered, with HTTP 500. In a program that is built with `panic = "abort"` it ends the process.
///
/// [Which thread calls what](crate#concurrency), and over which calls a lock may be held, is said there.
///
/// ```
/// use switchboard::{ServerResult, WebSocket, WebSocketServer};
///
/// struct Echo;
///
/// impl WebSocketServer for Echo {
///     fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
///         for message in ws.messages() {
///             ws.write(message)?;
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait WebSocketServer: Send + 'static {
    /// Called before the handshake is answered (`OnPreServer`), to look at the request, set properties, choose the
    /// subprotocol, save the ID, or refuse.
    ///
    /// # Errors
    /// A [`Refusal`] is sent as the HTTP response; then neither `server` nor `on_post_server` is called. `?` makes one of a
    /// [`StatusCode`](crate::StatusCode), of an [`Error`](crate::Error) and of a [`PushError`](crate::PushError); for others there is
    /// [`Refusal::internal`].
    fn on_pre_server(&mut self, opening: &mut Opening) -> std::result::Result<(), Refusal> {
        let _ = opening;
        Ok(())
    }

    /// The application (`Server`). When it returns, the connection is closed: with 1000, unless it is closed already.
    /// A [shared](Opening::set_shared_connection) connection stays open.
    ///
    /// # Errors
    /// An error closes the connection with 1011, and is logged. [`Error::Closed`](crate::Error::Closed) does not count as an
    /// error here, so that a handler may use `?` when the client has left; nor does what a push to this connection returns then.
    fn server(&mut self, ws: &mut WebSocket) -> ServerResult;

    /// For shared connections only (`OnClientMessage`): called for each message, one at a time and in order, after `server`
    /// has returned, by one of the [workers](crate::Limits::workers). [`Handled::No`], the default, leaves the message for
    /// `read`.
    ///
    /// Nothing that is called on `ws` waits for the client here. [`write`](WebSocket::write) queues what is not taken at once;
    /// [`Error::QueueFull`](crate::Error::QueueFull) says that the queue has no more room. [`flush`](WebSocket::flush) sends what
    /// the client takes. [`messages`](WebSocket::messages) ends with those that were left before, and [`read`](WebSocket::read)
    /// reports a timeout when there is none of them. While the queue is not empty, nothing more is received from this client.
    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        let _ = (ws, message);
        Handled::No
    }

    /// Called after the connection has ended (`OnPostServer`): once for each `on_pre_server` that did not refuse, also
    /// after an error or a panic. By the connection's own thread; for a shared connection by a worker, or, without
    /// [workers](crate::Limits::workers), by a gateway, which then serves nobody else meanwhile. Never within a push or a close
    /// that ends the connection.
    fn on_post_server(&mut self, closed: &Closed) {
        let _ = closed;
    }
}

/// Whether [`on_client_message`](WebSocketServer::on_client_message) has handled a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Handled {
    /// The message needs nothing more.
    Yes,
    /// The message is left for `read`.
    No,
}

/// A connection that has ended, in [`on_post_server`](WebSocketServer::on_post_server).
#[derive(Debug)]
pub struct Closed {
    pub(crate) id: WebSocketId,
    pub(crate) session_id: Option<SessionId>,
    pub(crate) session_end_on_close: AtomicBool,
    pub(crate) user: Option<Arc<str>>,
    pub(crate) tags: Tags,
    pub(crate) path: Arc<str>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) reason: CloseReason,
    pub(crate) duration: Duration,
}

impl Closed {
    /// Of a connection that was not opened, although its application wanted it.
    pub(crate) fn unopened(opening: &Opening, reason: CloseReason) -> Self {
        Self {
            id: *opening.announced.id(),
            session_id: None,
            session_end_on_close: AtomicBool::new(false),
            user: opening.announced.user().cloned(),
            tags: opening.tags.clone(),
            path: opening.path().into(),
            registry: opening.announced.registry().clone(),
            reason,
            duration: Duration::ZERO,
        }
    }

    /// The ID that it had (`WebSocketID`); no other connection will ever have it.
    pub fn websocket_id(&self) -> &WebSocketId {
        &self.id
    }

    /// The ID of its session (`SessionId`), as it was when the connection was opened; `None` if it had none.
    pub fn session_id(&self) -> Option<&SessionId> {
        self.session_id.as_ref()
    }

    /// `SessionEndOnClose`: the session ends when `on_post_server` has returned, for all that share it. Default: what was set
    /// before the end.
    pub fn set_session_end_on_close(&self, on: bool) {
        self.session_end_on_close.store(on, Relaxed);
    }

    /// Whose it was; see [`Opening::set_user`].
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// What was noted about it; see [`Opening::set_tag`].
    pub fn tags(&self) -> &Tags {
        &self.tags
    }

    /// The path of the client's request.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// How it ended.
    pub fn reason(&self) -> &CloseReason {
        &self.reason
    }

    /// How long it was open.
    pub fn duration(&self) -> Duration {
        self.duration
    }
}

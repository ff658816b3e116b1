//! The application of a connection after `server` has returned. It is called for the messages of a shared connection, and
//! when the connection has ended.

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use crate::{
    caught::caught,
    connection::{Connection, Handler},
    http::FAILED,
    message::{CloseCode, Message},
    registry::Registry,
    session::Sessions,
    sync::LockExt,
    websocket::{Closed, Handled, Holder, WebSocket, WebSocketServer},
};

/// An application that no longer has a thread of its own.
pub(crate) struct Parked<Slot> {
    /// `None` after the end of the connection.
    app: Mutex<Option<App<Slot>>>,
    registry: Arc<Registry>,
    sessions: Arc<Sessions>,
}

struct App<Slot> {
    server: Box<dyn WebSocketServer>,
    /// The connection's slot of `Limits::max_connections`; dropped last.
    slot: Slot,
}

impl<Slot> Parked<Slot> {
    pub(crate) fn new(
        server: Box<dyn WebSocketServer>,
        registry: Arc<Registry>,
        sessions: Arc<Sessions>,
        slot: Slot,
    ) -> Self {
        Self { app: Mutex::new(Some(App { server, slot })), registry, sessions }
    }
}

impl<Slot> Parked<Slot> {
    /// The session ends, too, or goes on without this connection. Where the store fails, the log says so.
    fn leave_session(&self, closed: &Closed) {
        if let Some(id) = closed.session_id() {
            let ends = closed.session_end_on_close.load(Relaxed);
            let _ = if ends { self.sessions.end(id) } else { self.sessions.release(id) };
        }
    }
}

impl<Slot: Send> Handler for Parked<Slot> {
    fn messages(&self, connection: &Arc<Connection>, messages: &mut dyn Iterator<Item = (Message, bool)>) {
        let mut app = self.app.locked();
        let Some(app) = app.as_mut() else { return messages.for_each(drop) };
        let holder = Holder::Handler { more: AtomicBool::new(false) };
        let ws = WebSocket::new(connection.clone(), self.registry.clone(), holder);
        for (place, (message, more)) in messages.enumerate() {
            ws.expect_more(more);
            let unhandled = message.clone();
            match caught(|| app.server.on_client_message(&ws, message)) {
                Some(Handled::Yes) => {}
                Some(Handled::No) => connection.leave_unread(unhandled, place),
                None => {
                    let id = connection.id().short();
                    connection.incidents().failed(format_args!("{id}: on_client_message panicked"));
                    connection.close(CloseCode::INTERNAL_ERROR, FAILED);
                }
            }
        }
    }

    fn end(&self, connection: &Arc<Connection>) {
        let app = self.app.locked().take();
        let (Some(app), Some(reason)) = (app, connection.reason().cloned()) else { return };
        let App { mut server, slot } = app;
        let about = connection.about();
        let session_end_on_close = AtomicBool::new(connection.session_end_on_close.load(Relaxed));
        let closed = Closed {
            id: about.id,
            session_id: about.session_id.clone(),
            session_end_on_close,
            user: about.user().cloned(),
            tags: about.tags().clone(),
            path: about.path.clone(),
            registry: self.registry.clone(),
            reason,
            duration: connection.age(),
        };
        let (id, incidents) = (about.id.short(), connection.incidents());
        incidents.ended(id, &closed.reason);
        if caught(|| server.on_post_server(&closed)).is_none() {
            incidents.failed(format_args!("{id}: on_post_server panicked"));
        }
        if caught(|| drop(server)).is_none() {
            incidents.failed(format_args!("{id}: the drop of the application panicked"));
        }
        if caught(|| self.leave_session(&closed)).is_none() {
            incidents.failed(format_args!("{id}: the session store panicked"));
        }
        drop(slot);
    }
}

impl<Slot> fmt::Debug for Parked<Slot> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Parked")
    }
}

//! The application of a connection after `server` has returned. It is called for the messages of a shared connection, and
//! when the connection has ended.

use std::{
    fmt,
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use crate::{
    caught::caught,
    connection::{Connection, Handler},
    message::{CloseCode, Message},
    registry::Registry,
    session::Session,
    sync::LockExt,
    websocket::{Closed, Handled, Holder, WebSocket, WebSocketServer},
};

/// An application that no longer has a thread of its own.
pub(crate) struct Parked<Slot> {
    /// `None` after the end of the connection.
    app: Mutex<Option<App<Slot>>>,
    registry: Arc<Registry>,
}

struct App<Slot> {
    server: Box<dyn WebSocketServer>,
    /// The session, if it has to end with the connection, which is rare.
    session: Option<Box<Session>>,
    /// The connection's slot of `Limits::max_connections`; dropped last.
    slot: Slot,
}

impl<Slot> Parked<Slot> {
    pub(crate) fn new(
        server: Box<dyn WebSocketServer>,
        session: Option<Session>,
        registry: Arc<Registry>,
        slot: Slot,
    ) -> Self {
        Self { app: Mutex::new(Some(App { server, session: session.map(Box::new), slot })), registry }
    }
}

impl<Slot: Send> Handler for Parked<Slot> {
    fn messages(&self, connection: &Arc<Connection>, messages: &mut dyn Iterator<Item = (Message, bool)>) {
        let mut app = self.app.locked();
        let Some(app) = app.as_mut() else { return messages.for_each(drop) };
        let holder = Holder::Handler { more: AtomicBool::new(false) };
        let ws = WebSocket::new(connection.clone(), self.registry.clone(), holder);
        for (message, more) in messages {
            ws.expect_more(more);
            let unhandled = message.clone();
            match caught(|| app.server.on_client_message(&ws, message)) {
                Some(Handled::Yes) => {}
                Some(Handled::No) => connection.leave_unread(unhandled),
                None => {
                    let id = connection.id().short();
                    connection.incidents().failed(format_args!("{id}: on_client_message panicked"));
                    connection.close(CloseCode::INTERNAL_ERROR, "the handler failed");
                }
            }
        }
    }

    fn end(&self, connection: &Arc<Connection>) {
        let app = self.app.locked().take();
        let (Some(app), Some(reason)) = (app, connection.reason().cloned()) else { return };
        let App { mut server, session, slot } = app;
        let about = connection.about();
        let closed =
            Closed { id: about.id, session_id: about.session_id.clone(), reason, duration: connection.age() };
        let (id, incidents) = (about.id.short(), connection.incidents());
        incidents.ended(id, &closed.reason);
        if caught(|| server.on_post_server(&closed)).is_none() {
            incidents.failed(format_args!("{id}: on_post_server panicked"));
        }
        if caught(|| drop(server)).is_none() {
            incidents.failed(format_args!("{id}: the drop of the application panicked"));
        }
        if caught(|| session.as_deref().map(Session::end)).is_none() {
            incidents.failed(format_args!("{id}: the session store panicked"));
        }
        drop(session);
        drop(slot);
    }
}

impl<Slot> fmt::Debug for Parked<Slot> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Parked")
    }
}

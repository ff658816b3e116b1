//! The application of a connection after `server` has returned. It is called for the messages of a shared connection, and
//! when the connection has ended.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use crate::{
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
            match catch_unwind(AssertUnwindSafe(|| app.server.on_client_message(&ws, message))) {
                Ok(Handled::Yes) => {}
                Ok(Handled::No) => connection.leave_unread(unhandled),
                Err(_) => {
                    log::error!("{}: on_client_message panicked", connection.id());
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
        log::debug!("{}: closed: {reason}", about.id);
        let closed = Closed {
            id: about.id.clone(),
            session_id: about.session_id.clone(),
            reason,
            duration: connection.age(),
        };
        // The drop of the application, and the session store, may be user code as well, and panic.
        let post_server = AssertUnwindSafe(move || {
            server.on_post_server(&closed);
            drop(server);
        });
        if catch_unwind(post_server).is_err() {
            log::error!("{}: on_post_server panicked", about.id);
        }
        let end_session = AssertUnwindSafe(move || {
            if let Some(session) = session {
                session.end();
            }
        });
        if catch_unwind(end_session).is_err() {
            log::error!("{}: the session store panicked", about.id);
        }
        drop(slot);
    }
}

impl<Slot> fmt::Debug for Parked<Slot> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Parked")
    }
}

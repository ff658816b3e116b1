//! The application of a connection whose `server` has returned: called for messages, if it is shared, and at the end.

use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use crate::{
    connection::{Connection, Handler},
    hub::Hub,
    message::{CloseCode, Message},
    session::Session,
    sync::LockExt,
    websocket::{Closed, Handled, Holder, WebSocket, WebSocketServer},
};

/// An application without a thread.
pub(crate) struct Parked {
    /// Taken at the end, with what goes with it.
    app: Mutex<Option<Box<dyn WebSocketServer>>>,
    rest: Mutex<Option<Rest>>,
    hub: Hub,
}

struct Rest {
    /// The session, if it ends with the connection.
    session: Option<Session>,
    /// The connection's place among all that are allowed; dropped last.
    _slot: Box<dyn Send>,
}

impl Parked {
    pub(crate) fn new(
        app: Box<dyn WebSocketServer>,
        session: Option<Session>,
        hub: Hub,
        slot: Box<dyn Send>,
    ) -> Self {
        Self { app: Mutex::new(Some(app)), rest: Mutex::new(Some(Rest { session, _slot: slot })), hub }
    }
}

impl Handler for Parked {
    fn message(&self, connection: &Arc<Connection>, message: Message, more: bool) -> Option<Message> {
        let mut app = self.app.locked();
        let app = app.as_mut()?;
        let holder = Holder::Handler { more: AtomicBool::new(more) };
        let ws = WebSocket::new(connection.clone(), self.hub.clone(), holder);
        let unhandled = message.clone();
        match catch_unwind(AssertUnwindSafe(|| app.on_client_message(&ws, message))) {
            Ok(Handled::Yes) => None,
            Ok(Handled::No) => Some(unhandled),
            Err(_) => {
                log::error!("{}: on_client_message panicked", connection.id());
                connection.close(CloseCode::INTERNAL_ERROR, "the handler failed");
                None
            }
        }
    }

    fn end(&self, connection: &Arc<Connection>) {
        let rest = self.rest.locked().take();
        let app = self.app.locked().take();
        let (Some(mut app), Some(reason)) = (app, connection.reason().cloned()) else { return };
        let about = connection.about();
        log::debug!("{}: closed: {reason}", about.id);
        let closed = Closed {
            id: about.id.clone(),
            session_id: about.session_id.clone(),
            reason,
            duration: about.begun.elapsed(),
        };
        // The application is dropped within, and the session store may be the program's own: all of it is user code.
        let last = AssertUnwindSafe(move || {
            app.on_post_server(&closed);
            drop(app);
        });
        if catch_unwind(last).is_err() {
            log::error!("{}: on_post_server panicked", about.id);
        }
        let session = rest.as_ref().and_then(|rest| rest.session.as_ref());
        if catch_unwind(AssertUnwindSafe(|| session.map(Session::end))).is_err() {
            log::error!("{}: the session store panicked", about.id);
        }
        drop(rest);
    }
}

impl fmt::Debug for Parked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Parked")
    }
}

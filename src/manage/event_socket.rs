//! The events as messages of a WebSocket: for programs of ours, which have a client for these already, also over TLS and to Unix
//! sockets.

use std::sync::Arc;

use super::{
    events::{Event, Listener, Next},
    routes::Routes,
};
use crate::{
    error::Error,
    http::Refusal,
    message::CloseCode,
    opening::Opening,
    websocket::{READ_LEN, ServerResult, WebSocket, WebSocketServer},
};

/// Where they are, with an upgrade and without.
pub(super) const PATH: &str = "/@events";

/// One who listens. What it says is not heeded.
pub(super) struct EventSocket {
    routes: Arc<Routes>,
    listener: Option<Listener>,
}

impl EventSocket {
    pub(super) fn new(routes: &Arc<Routes>) -> Self {
        Self { routes: routes.clone(), listener: None }
    }
}

impl WebSocketServer for EventSocket {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        self.routes.admit(opening.listener_tag, opening.request())?;
        opening.set_use_session(false);
        self.listener = Some(Listener::new(self.routes.events())?);
        Ok(())
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        let Some(listener) = self.listener.take() else { return Ok(()) };
        loop {
            match listener.next() {
                Next::Event(event) => ws.write(event.to_json())?,
                Next::Lost => {
                    ws.write(Event::lost().to_json())?;
                    ws.close(CloseCode::TRY_AGAIN, "too slow for the events");
                    return Ok(());
                }
                Next::Silence => {}
            }
            match ws.try_read(READ_LEN) {
                Ok(_) => {}
                Err(Error::Closed(_)) => return Ok(()),
                Err(other) => return Err(other.into()),
            }
        }
    }
}

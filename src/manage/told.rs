//! What happens, and the numbers, as messages of a WebSocket: for programs of ours, which have a client for these already, also over
//! TLS and to Unix sockets.

use std::{sync::Arc, thread::sleep, time::Instant};

use super::{LOOK, events, routes::Routes, stats, stays::Stay};
use crate::{
    error::Error,
    http::{Refusal, Request},
    message::CloseCode,
    opening::Opening,
    websocket::{READ_LEN, ServerResult, WebSocket, WebSocketServer},
};

/// Where they are, with an upgrade and without.
pub(super) const EVENTS: &str = "/@events";
pub(super) const STATS: &str = "/@stats";

/// Whence messages come.
pub(super) trait Source: Sized + Send + 'static {
    /// # Errors
    /// The request asks for what there is not, or there are too many already.
    fn of(routes: &Routes, request: &Request) -> Result<Self, Refusal>;

    /// Waits for a moment.
    fn next(&mut self) -> Next;
}

pub(super) enum Next {
    Message(String),
    /// There is nothing after it.
    Last(String),
    Silence,
}

/// One who is told. What it says is not heeded.
pub(super) struct Told<S> {
    routes: Arc<Routes>,
    source: Option<S>,
    stay: Option<Stay>,
}

impl<S> Told<S> {
    pub(super) fn new(routes: &Arc<Routes>) -> Self {
        Self { routes: routes.clone(), source: None, stay: None }
    }
}

impl<S: Source> WebSocketServer for Told<S> {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        self.routes.admit_opening(opening)?;
        self.source = Some(S::of(&self.routes, opening.request())?);
        self.stay = Some(self.routes.stay()?);
        Ok(())
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        let Some(mut source) = self.source.take() else { return Ok(()) };
        loop {
            match source.next() {
                Next::Message(text) => ws.write(text)?,
                Next::Last(text) => {
                    ws.write(text)?;
                    ws.close(CloseCode::TRY_AGAIN, "too slow");
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

impl Source for events::Listener {
    fn of(routes: &Routes, _: &Request) -> Result<Self, Refusal> {
        Self::new(routes.events())
    }

    fn next(&mut self) -> Next {
        match self.wait(LOOK) {
            events::Next::Event(event) => Next::Message(event.to_json()),
            events::Next::Lost => Next::Last(events::Event::lost().to_json()),
            events::Next::Silence => Next::Silence,
        }
    }
}

/// The numbers, again and again.
pub(super) struct Numbers {
    listener: stats::Listener,
    /// When it is told the next ones.
    due: Instant,
}

impl Source for Numbers {
    fn of(routes: &Routes, request: &Request) -> Result<Self, Refusal> {
        Ok(Self { listener: stats::Listener::of(routes.stats(), request)?, due: Instant::now() })
    }

    fn next(&mut self) -> Next {
        let left = self.due.saturating_duration_since(Instant::now());
        if !left.is_zero() {
            sleep(left.min(LOOK));
            return Next::Silence;
        }
        let text = self.listener.text();
        self.due = Instant::now() + self.listener.until_next();
        // The object with the name of the event before all else.
        Next::Message(format!("{{\"event\":\"stats\",{}", text.strip_prefix('{').unwrap_or_default()))
    }
}

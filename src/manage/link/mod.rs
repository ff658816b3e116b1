//! The server's end of links: hubs in other processes, each over one WebSocket ([`wire`]).
//!
//! What does not wait is done by the thread of the link, in order: so what one thread of the other process pushes stays in its
//! order. What may wait is given to threads of the link. None of them outlives it, and what it has opened and read goes back at its
//! end, however that comes.

mod ask;
mod ask_opened;
mod opened;
mod places;
mod replies;
mod talk;
#[cfg(test)]
mod tests;
mod turns;
mod waits;

use std::{sync::Arc, time::Duration};

use self::{places::Places, talk::Talk, turns::Turns};
use super::{answers::bad, routes::Routes, stays::Stay, token::Rights};
use crate::{
    error::Error,
    http::Refusal,
    hub::Hub,
    id::random_bytes,
    limits::Limits,
    message::{CloseCode, Message},
    opening::Opening,
    registry::Registry,
    server::MainServer,
    websocket::{ServerResult, WebSocket, WebSocketServer},
    wire::{Hello, Malformed, SOFTWARE, SUBPROTOCOL, VERSION},
};

/// Where links are.
pub(super) const PATH: &str = "/@hub";

/// How many requests of a link may be unanswered. Those that do not wait stay in its socket meanwhile.
const UNANSWERED: u32 = 1024;

/// How long the other side may take for its first message.
const FIRST: Duration = Duration::from_secs(10);

/// What all links of a server have in common.
pub(super) struct Links {
    routes: Arc<Routes>,
    hub: Hub,
    registry: Arc<Registry>,
    /// How long a connection may take to be opened.
    handshake_timeout: Duration,
    /// How long a client may take nothing of what is written to it.
    write_timeout: Duration,
    /// The longest message of a link.
    max_message: usize,
    /// Tells this start of the server from others.
    epoch: u64,
    places: Arc<Places>,
    turns: Arc<Turns>,
}

impl Links {
    /// `limits` are those of the management listener.
    pub(super) fn new(main: &MainServer, routes: Arc<Routes>, limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            routes,
            hub: main.hub(),
            registry: main.registry().clone(),
            handshake_timeout: main.limits().handshake_timeout,
            write_timeout: main.limits().write_timeout,
            max_message: limits.max_message_size,
            epoch: u64::from_ne_bytes(random_bytes()),
            places: Arc::default(),
            turns: Arc::default(),
        })
    }

    /// What serves the next link.
    pub(super) fn link(self: &Arc<Self>) -> Link {
        Link { links: self.clone(), rights: Rights::Read, stay: None }
    }

    fn hello(&self) -> Vec<u8> {
        Hello {
            version: VERSION,
            software: SOFTWARE,
            max_message: self.max_message as u64,
            max_unanswered: UNANSWERED,
            max_waits: places::OF_LINK as u32,
            handshake_timeout: in_millis(self.handshake_timeout),
            write_timeout: in_millis(self.write_timeout),
            epoch: self.epoch,
        }
        .encode()
    }
}

fn in_millis(time: Duration) -> u64 {
    time.as_millis().try_into().unwrap_or(u64::MAX)
}

/// One link.
pub(super) struct Link {
    links: Arc<Links>,
    rights: Rights,
    stay: Option<Stay>,
}

impl WebSocketServer for Link {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        self.rights = self.links.routes.admit_opening(opening)?;
        if opening.choose_subprotocol(&[SUBPROTOCOL]).is_none() {
            return Err(bad(format!("a link needs the subprotocol {SUBPROTOCOL}")));
        }
        self.stay = Some(self.links.routes.stay()?);
        Ok(())
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        // Whoever says something else is no hub, or one that has failed. Other ends are those of the connection: to take no answers
        // for too long is one, too, and no failure of ours.
        if let Err(Ended::Malformed(Malformed(why))) = self.talk(ws) {
            ws.close(CloseCode::PROTOCOL_ERROR, why);
        }
        Ok(())
    }
}

impl Link {
    fn talk(&self, ws: &WebSocket) -> Result<(), Ended> {
        ws.write(Message::from(self.links.hello()))?;
        let first = match ws.read_message(FIRST) {
            Err(Error::Timeout) => return Err(Malformed("no hello").into()),
            first => binary(first?)?,
        };
        let hello = Hello::decode(&first)?;
        let Some(connection) = ws.connection() else { return Ok(()) };
        let taken = self.links.turns.take(hello.epoch, connection);
        Talk::new(&self.links, ws, self.rights, hello.max_message, taken.turn()).run(taken)
    }
}

/// What a message holds.
fn binary(message: Message) -> Result<bytes::Bytes, Malformed> {
    match message {
        Message::Binary(bytes) => Ok(bytes),
        Message::Text(_) => Err(Malformed("a link has no text messages")),
    }
}

/// Why a link ends.
enum Ended {
    Malformed(Malformed),
    /// The connection has ended.
    Closed,
}

impl From<Malformed> for Ended {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl From<Error> for Ended {
    fn from(_: Error) -> Self {
        Self::Closed
    }
}

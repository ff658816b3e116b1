//! The server's end of links: hubs in other processes, each over one WebSocket ([`wire`]).

#[cfg(test)]
mod tests;
mod turns;

use std::{sync::Arc, time::Duration};

use self::turns::{Turn, Turns};
use super::{answers::bad, routes::Routes, stays::Stay, token::Rights};
use crate::{
    answering::{Desk, Ended, Peer, Talk},
    connection::READ_TIMEOUT,
    error::Error,
    http::Refusal,
    id::random_bytes,
    limits::Limits,
    message::{CloseCode, Message},
    opening::Opening,
    server::MainServer,
    websocket::{ServerResult, WebSocket, WebSocketServer},
    wire::{Hello, Malformed, SUBPROTOCOL},
};

/// Where links are.
pub(super) const PATH: &str = "/@hub";

/// How long the other side may take for its first message.
const FIRST: Duration = Duration::from_secs(10);

/// What all links of a server have in common.
pub(super) struct Links {
    routes: Arc<Routes>,
    desk: Desk,
    /// The longest message of a link.
    max_message: usize,
    /// Tells this start of the server from others.
    epoch: u64,
    turns: Arc<Turns>,
}

impl Links {
    /// `limits` are those of the management listener.
    pub(super) fn new(main: &MainServer, routes: Arc<Routes>, limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            routes,
            desk: Desk::new(main.hub(), main.registry().clone(), main.limits()),
            max_message: limits.max_message_size,
            epoch: u64::from_ne_bytes(random_bytes()),
            turns: Arc::default(),
        })
    }

    /// What serves the next link.
    pub(super) fn link(self: &Arc<Self>) -> Link {
        Link { links: self.clone(), rights: Rights::Read, stay: None }
    }
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
        ws.write(Message::from(self.links.desk.hello(self.links.max_message, self.links.epoch)))?;
        let first = match ws.read_message(FIRST) {
            Err(Error::Timeout) => return Err(Malformed("no hello").into()),
            first => binary(first?)?,
        };
        let hello = Hello::decode(&first)?;
        let Some(connection) = ws.connection() else { return Ok(()) };
        let taken = self.links.turns.take(hello.epoch, connection);
        let hub = OverLink { ws, turn: taken.turn().clone() };
        let may_change = self.rights != Rights::Read;
        Ok(Talk::new(&self.links.desk, &hub, may_change, hello.max_message).run(taken)?)
    }
}

/// What a message holds.
fn binary(message: Message) -> Result<bytes::Bytes, Malformed> {
    match message {
        Message::Binary(bytes) => Ok(bytes),
        Message::Text(_) => Err(Malformed("a link has no text messages")),
    }
}

/// A hub at the other end of a link.
struct OverLink<'a> {
    ws: &'a WebSocket,
    turn: Arc<Turn>,
}

impl Peer for OverLink<'_> {
    fn receive(&self) -> Result<bytes::Bytes, Ended> {
        Ok(binary(self.ws.read_message(READ_TIMEOUT)?)?)
    }

    fn send(&self, frames: Vec<u8>) -> Result<(), Error> {
        self.ws.write(Message::from(frames))
    }

    fn refuse(&self, Malformed(why): Malformed) {
        self.ws.close(CloseCode::PROTOCOL_ERROR, why);
    }

    fn is_over(&self) -> bool {
        self.turn.is_over()
    }
}

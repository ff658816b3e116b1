//! Reading the messages of a shared connection, at least once: what was read is kept with the HTTP connection until its next request
//! acknowledges it; if there is none, it goes back.

use std::{sync::Arc, time::Duration};

use http::HeaderName;

use super::{
    LOOK,
    answers::{done, full, later, refused},
    query::Query,
    stays::{Stay, Stays},
};
use crate::{
    deadline::Deadline,
    delivery::Delivery,
    error::Error,
    http::{Refusal, Response},
    hub::Hub,
    id::WebSocketId,
    message::Message,
    server::Exchange,
    websocket::WebSocket,
};

const TYPE: HeaderName = HeaderName::from_static("message-type");
const AT_END: HeaderName = HeaderName::from_static("at-end");
const REDELIVERED: HeaderName = HeaderName::from_static("redelivered");

/// What an HTTP connection has read last.
struct Read {
    delivery: Delivery,
    ws: WebSocket,
}

/// Whoever has read the message before, and may be about to answer it: an end of the connection waits as long as this is there.
pub(super) struct Reader(WebSocket);

/// The threads that wait for messages: each has a connection, and some of these have to be left for other requests.
#[derive(Debug)]
pub(super) struct Readers {
    waiting: Arc<Stays>,
    /// Among all who stay.
    stays: Arc<Stays>,
}

/// A request has come, and is let in: what the one before it has read is acknowledged.
pub(super) fn acknowledge(exchange: &Exchange<'_>) -> Option<Reader> {
    let Read { delivery, ws } = exchange.take_kept()?;
    delivery.ack();
    Some(Reader(ws))
}

/// Waits for the next message, or the rest of one. `last` is who has read the one before.
pub(super) fn read(
    hub: &Hub,
    exchange: &Exchange<'_>,
    id: &WebSocketId,
    last: Option<Reader>,
    readers: &Readers,
) -> Result<Response, Refusal> {
    let query = Query::of(exchange.request(), &["len", "timeout"])?;
    let (len, timeout) = (query.len()?, query.timeout()?);
    // Who has it already may read what is left also after the connection's end.
    let ws = match last {
        Some(Reader(ws)) if ws.websocket_id() == id => ws,
        _ => hub.open_server(id).map_err(refused)?,
    };
    let Some(delivery) = next(&ws, exchange, len, timeout, readers)? else { return Ok(done()) };
    let response = response(&delivery);
    exchange.keep(Read { delivery, ws });
    Ok(response)
}

/// `None`: the time was up.
fn next(
    ws: &WebSocket,
    exchange: &Exchange<'_>,
    len: usize,
    timeout: Duration,
    readers: &Readers,
) -> Result<Option<Delivery>, Refusal> {
    let deadline = Deadline::after(timeout);
    let (mut wait, mut place) = (Duration::ZERO, None);
    loop {
        let read = ws.read_delivery(len, wait);
        if exchange.is_over() {
            read.into_iter().for_each(Delivery::give_back_unseen);
            return Err(later(
                "the server shuts down, or this connection: what was read could not be acknowledged",
            ));
        }
        match read {
            Err(Error::Timeout) => {}
            read => return read.map(Some).map_err(refused),
        }
        let Some(left) = deadline.remaining() else { return Ok(None) };
        if place.is_none() {
            place = Some(readers.enter()?);
        }
        wait = left.min(LOOK);
    }
}

fn response(delivery: &Delivery) -> Response {
    let (kind, content_type) = match **delivery {
        Message::Text(_) => ("text", "text/plain; charset=utf-8"),
        Message::Binary(_) => ("binary", "application/octet-stream"),
    };
    let is = |is: bool| if is { "true" } else { "false" };
    Response::new(content_type, Message::clone(delivery).into_bytes())
        .with_header(TYPE, kind)
        .with_header(AT_END, is(delivery.at_end()))
        .with_header(REDELIVERED, is(delivery.redelivered()))
}

impl Readers {
    /// Of a listener with so many connections.
    pub(super) fn new(connections: usize, stays: Arc<Stays>) -> Self {
        Self { waiting: Stays::of_readers(connections), stays }
    }

    /// A place, until it is dropped.
    fn enter(&self) -> Result<[Stay; 2], Refusal> {
        let stay = self.stays.enter()?;
        let waiting = self.waiting.take().ok_or_else(|| full("too many wait for messages"))?;
        Ok([stay, waiting])
    }
}

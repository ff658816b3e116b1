//! Requests about single connections: those of AWS's API, and what else there is.

use http::StatusCode;

use super::{
    answers::{done, full, gone, json, refused},
    json::{Date, List, Millis, Object},
    query::Query,
    routes::message,
};
use crate::{
    audience::Audience,
    connection::PushErrorKind,
    error::Error,
    http::{Refusal, Request, Response},
    hub::Hub,
    id::WebSocketId,
    info::ConnectionInfo,
    message::Payload,
    server::Exchange,
};

/// A page of connections ends when it has so many bytes: their clients have written most of what is in it.
const MOST_BYTES: usize = 1 << 20;

/// Pushes the body.
pub(super) fn push(hub: &Hub, exchange: &Exchange<'_>, id: &WebSocketId) -> Result<Response, Refusal> {
    let query = Query::of(exchange.request(), &["type"])?;
    let message = message(exchange, &query)?;
    match hub.push(id, Payload::from(message)) {
        Ok(pushed) => Ok(json(StatusCode::OK, Object::new().with("result", &*pushed.to_string()))),
        Err(e) if matches!(e.kind, PushErrorKind::Full) => {
            Err(full("the client's queue is full: the message was dropped"))
        }
        Err(e) => match e.kind {
            PushErrorKind::Unreachable => Err(refused(Error::Unreachable)),
            PushErrorKind::OverLimit(limit) => Err(refused(limit.into())),
            _ => Err(gone()), // whatever else there is: it cannot be pushed to any more
        },
    }
}

/// All that is known of a connection.
pub(super) fn show(hub: &Hub, request: &Request, id: &WebSocketId) -> Result<Response, Refusal> {
    Query::of(request, &[])?;
    let info = hub.connection(id).map_err(refused)?;
    let topics = hub.topics_of(id).map_err(refused)?;
    let topics: List = topics.iter().map(|topic| &**topic).collect();
    Ok(json(StatusCode::OK, about(&info).with("topics", topics)))
}

/// Starts the closing handshake.
pub(super) fn close(hub: &Hub, request: &Request, id: &WebSocketId) -> Result<Response, Refusal> {
    let query = Query::of(request, &["code", "reason"])?;
    let (code, reason) = query.close()?;
    hub.close(id, code, reason).map_err(refused)?;
    Ok(done())
}

pub(super) fn join(hub: &Hub, request: &Request, id: &WebSocketId, topic: &str) -> Result<Response, Refusal> {
    Query::of(request, &[])?;
    hub.join(id, topic).map_err(refused)?;
    Ok(done())
}

pub(super) fn leave(
    hub: &Hub,
    request: &Request,
    id: &WebSocketId,
    topic: &str,
) -> Result<Response, Refusal> {
    Query::of(request, &[])?;
    hub.leave(id, topic).map_err(refused)?;
    Ok(done())
}

/// A page of connections, without their topics.
pub(super) fn list(hub: &Hub, request: &Request) -> Result<Response, Refusal> {
    let query = Query::of(request, &["path", "topic", "user", "node", "after", "limit"])?;
    let (path, topic, user) = (query.text("path"), query.text("topic"), query.text("user"));
    // One of them finds the connections; the others are what is asked of each.
    let audience = topic
        .map(Audience::Topic)
        .or(user.map(Audience::User))
        .or(path.map(Audience::Path))
        .unwrap_or(Audience::All);
    let (after, limit) = (query.id("after")?, query.limit()?);
    let told = match query.node()? {
        Some(node) => hub.connections_of(node, audience, after.as_ref(), limit).map(|page| (page, false)),
        None => hub.connections_in_reach(audience, after.as_ref(), limit),
    };
    let (page, is_missing) = told.map_err(refused)?;
    let is_meant = |info: &ConnectionInfo| {
        path.is_none_or(|path| *info.path == *path)
            && user.is_none_or(|user| info.user.as_deref() == Some(user))
    };
    let (mut list, mut next) = (List::new(), page.next);
    let mut items = page.items.iter().peekable();
    while let Some(info) = items.next() {
        if is_meant(info) {
            list.push(about(info));
        }
        if list.len() > MOST_BYTES && items.peek().is_some() {
            next = Some(info.id);
            break;
        }
    }
    let next = next.as_ref().map(WebSocketId::as_str);
    let object = Object::new().with("connections", list).with("next", next).with("unreachable", is_missing);
    Ok(json(StatusCode::OK, object))
}

/// What AWS says of a connection, and then what we do.
fn about(info: &ConnectionInfo) -> Object {
    let address = info.client_address.map(|ip| ip.to_string());
    let identity = Object::new()
        .with("sourceIp", address.as_deref().unwrap_or_default())
        .with("userAgent", info.user_agent.as_deref().unwrap_or_default());
    let tags = info.tags.iter().fold(Object::new(), |tags, (key, value)| tags.with(key, value));
    Object::new()
        .with("id", info.id.as_str())
        .with("node", u64::from(info.id.node().get()))
        .with("connectedAt", Date(info.since))
        .with("lastActiveAt", Date(info.last_active))
        .with("identity", identity)
        .with("path", &*info.path)
        .with("route", &*info.route)
        .with("shared", info.shared)
        .with("user", info.user.as_deref())
        .with("tags", tags)
        .with("queuedBytes", info.queued)
        .with("messagesIn", info.messages_in)
        .with("messagesOut", info.messages_out)
        .with("bytesIn", info.bytes_in)
        .with("bytesOut", info.bytes_out)
        .with("roundTripMillis", info.round_trip.map(Millis))
}

//! Requests about many connections: topics, broadcasts, users.

use http::StatusCode;

use super::{
    answers::{bad, json, refused},
    json::{List, Object},
    query::Query,
    routes::message,
};
use crate::{
    audience::{Audience, Recipients},
    http::{Refusal, Request, Response},
    hub::{Broadcast, Hub, Publication},
    server::Exchange,
};

/// A page of topics, with the number of their members.
pub(super) fn topics(hub: &Hub, request: &Request) -> Result<Response, Refusal> {
    let query = Query::of(request, &["after", "limit"])?;
    let page = hub.topics(query.text("after"), query.limit()?).map_err(refused)?;
    let topic = |name: &str, members: usize| Object::new().with("name", name).with("members", members);
    let list: List = page.items.iter().map(|info| topic(&info.name, info.members)).collect();
    Ok(json(StatusCode::OK, Object::new().with("topics", list).with("next", page.next.as_deref())))
}

/// Publishes the body to a topic. With `Idempotency-Key`, once, if the topic remembers.
pub(super) fn publish(hub: &Hub, exchange: &Exchange<'_>, topic: &str) -> Result<Response, Refusal> {
    let request = exchange.request();
    let query = Query::of(request, &["type", "except"])?;
    let except = query.id("except")?;
    let mut publication = Publication::new(message(exchange, &query)?);
    if let Some(id) = &except {
        publication = publication.except(id);
    }
    if request.headers().contains_key("idempotency-key") {
        let key = request.header("idempotency-key").ok_or_else(|| bad("Idempotency-Key: not UTF-8"))?;
        publication = publication.idempotency_key(key);
    }
    let published = hub.publish(topic, publication).map_err(refused)?;
    let position = published.position.map(|position| position.to_string());
    let answer = counts(published.broadcast)
        .with("position", position.as_deref())
        .with("duplicate", published.duplicate);
    let has_arrived = published.duplicate || is_somebody_there(published.broadcast);
    Ok(json(status(has_arrived), answer))
}

/// Sends the body to all, or to those at a path.
pub(super) fn broadcast(hub: &Hub, exchange: &Exchange<'_>) -> Result<Response, Refusal> {
    let query = Query::of(exchange.request(), &["type", "path", "except"])?;
    send(hub, exchange, &query, query.text("path").map_or(Audience::All, Audience::Path))
}

/// Sends the body to all connections of a user.
pub(super) fn push_user(hub: &Hub, exchange: &Exchange<'_>, user: &str) -> Result<Response, Refusal> {
    let query = Query::of(exchange.request(), &["type", "except"])?;
    send(hub, exchange, &query, Audience::User(user))
}

fn send(
    hub: &Hub,
    exchange: &Exchange<'_>,
    query: &Query<'_>,
    audience: Audience<'_>,
) -> Result<Response, Refusal> {
    let except = query.id("except")?;
    let to = except.as_ref().map_or_else(|| Recipients::from(audience), |id| audience.except(id));
    let broadcast = hub.broadcast(to, message(exchange, query)?).map_err(refused)?;
    Ok(json(status(is_somebody_there(broadcast)), counts(broadcast)))
}

/// Closes all connections of a user.
pub(super) fn close_user(hub: &Hub, request: &Request, user: &str) -> Result<Response, Refusal> {
    let query = Query::of(request, &["code", "reason"])?;
    let (code, reason) = query.close()?;
    let closed = hub.close_user(user, code, reason).map_err(refused)?;
    Ok(json(status(closed > 0), Object::new().with("closed", closed)))
}

fn counts(broadcast: Broadcast) -> Object {
    let Broadcast { sent, queued, dropped, gone, forwarded, unreachable } = broadcast;
    let here =
        Object::new().with("sent", sent).with("queued", queued).with("dropped", dropped).with("gone", gone);
    match (forwarded, unreachable) {
        (0, false) => here,
        _ => here.with("forwarded", forwarded).with("unreachable", unreachable),
    }
}

/// Whether anybody was there, even if nothing has reached them.
fn is_somebody_there(broadcast: Broadcast) -> bool {
    broadcast != Broadcast::default()
}

/// 202 says that nobody was there.
fn status(found: bool) -> StatusCode {
    if found { StatusCode::OK } else { StatusCode::ACCEPTED }
}

//! One place through which all requests go: who may ask, what there is, and by which method. What is done then is in `connections`
//! and `audiences`.

use std::{sync::Arc, thread::sleep, time::Duration};

use http::{StatusCode, header};

use super::{
    answers::{bad, done, json, later, not_allowed, not_found, write},
    audiences, connections,
    events::{self, Events},
    json::Object,
    query::{Kind, Query, kind},
    target::{Target, is_of_aws},
    token::{Denied, Rights, Tokens},
};
use crate::{
    http::{Refusal, Request, Response, websocket_here},
    hub::Hub,
    id::{InvalidId, WebSocketId},
    message::{Message, Text},
    server::{Exchange, MainServer},
};

/// How long a wrong token waits for its answer: whoever guesses them has to take a connection for so long each time, and there are
/// [few](super::Manage::limits).
const PENALTY: Duration = Duration::from_millis(500);

/// What a listener gives: the tag of its requests.
pub(super) const BY_TOKEN: u8 = 1;
pub(super) const READ_ONLY: u8 = 2;

pub(super) struct Routes {
    main: MainServer,
    hub: Hub,
    tokens: Tokens,
    events: Arc<Events>,
}

impl Routes {
    pub(super) fn new(main: MainServer, tokens: Tokens, events: Arc<Events>) -> Self {
        Self { hub: main.hub(), main, tokens, events }
    }

    pub(super) fn events(&self) -> &Arc<Events> {
        &self.events
    }

    pub(super) fn answer(&self, exchange: &Exchange<'_>) -> Response {
        let answer = self.try_answer(exchange);
        answer.unwrap_or_else(|refusal| write(refusal, Some(exchange.request())))
    }

    fn try_answer(&self, exchange: &Exchange<'_>) -> Result<Response, Refusal> {
        let request = exchange.request();
        let target = Target::parse(request.raw_path());
        // A probe has no token. It learns that there is a server, which it knows by the connection.
        if !matches!(target, Some(Target::Health | Target::Ready)) {
            let rights = self.admit(exchange.tag(), request)?;
            if rights == Rights::Read && !request.method().is_safe() {
                return Err(Refusal::new(
                    StatusCode::FORBIDDEN,
                    "here, or with this token, you may only read",
                ));
            }
        }
        let target = target.ok_or_else(not_found)?;
        // Like the methods, those of the path that this has may be refused only now.
        let methods = target.methods();
        if !methods.split(", ").any(|method| method == request.method().as_str()) {
            return Err(not_allowed(methods));
        }
        self.dispatch(exchange, target)
    }

    /// What a request may do: its listener, of which this is the tag, and its token say.
    ///
    /// # Errors
    /// It may do nothing. Whoever shows a wrong token is told so late.
    pub(super) fn admit(&self, tag: u8, request: &Request) -> Result<Rights, Refusal> {
        let is_by_token = tag & BY_TOKEN != 0;
        let rights = if is_by_token { self.tokens.check(request) } else { Ok(Rights::All) };
        let rights = rights.map_err(|denied| deny(denied, request))?;
        Ok(if tag & READ_ONLY != 0 { Rights::Read } else { rights })
    }

    fn dispatch(&self, exchange: &Exchange<'_>, target: Target<'_>) -> Result<Response, Refusal> {
        let (hub, request) = (&self.hub, exchange.request());
        let method = match request.method().as_str() {
            "HEAD" => "GET",
            method => method,
        };
        match (target, method) {
            (Target::Health, _) => {
                nothing_but(request, json(StatusCode::OK, Object::new().with("alive", true)))
            }
            (Target::Ready, _) => self.ready(request),
            (Target::Connections, _) => connections::list(hub, request),
            (Target::Connection(id), "POST") => connections::push(hub, exchange, &known(id)?),
            (Target::Connection(id), "DELETE") => connections::close(hub, request, &known(id)?),
            (Target::Connection(id), _) => connections::show(hub, request, &known(id)?),
            (Target::Member(id, topic), "PUT") => connections::join(hub, request, &known(id)?, &topic),
            (Target::Member(id, topic), _) => connections::leave(hub, request, &known(id)?, &topic),
            (Target::Link, _) => Err(websocket_here()),
            (Target::Events, _) => events::answer(&self.events, request),
            (Target::Topics, _) => audiences::topics(hub, request),
            (Target::Topic(topic), _) => audiences::publish(hub, exchange, &topic),
            (Target::Broadcast, _) => audiences::broadcast(hub, exchange),
            (Target::User(user), "DELETE") => audiences::close_user(hub, request, &user),
            (Target::User(user), _) => audiences::push_user(hub, exchange, &user),
        }
    }

    fn ready(&self, request: &Request) -> Result<Response, Refusal> {
        match self.main.check_ready() {
            Ok(()) => nothing_but(request, json(StatusCode::OK, Object::new().with("ready", true))),
            Err(why) => Err(later(why)),
        }
    }
}

/// For what has no parameters.
pub(super) fn nothing_but(request: &Request, response: Response) -> Result<Response, Refusal> {
    Query::of(request, &[]).map(|_| response)
}

pub(super) fn done_without_parameters(request: &Request) -> Result<Response, Refusal> {
    nothing_but(request, done())
}

/// A text that cannot be an ID is a mistake of who asks; an ID that is gone is not.
fn known(id: Result<WebSocketId, InvalidId>) -> Result<WebSocketId, Refusal> {
    id.map_err(|e| bad(e.to_string()))
}

/// Who shows no token is told where it belongs. A wrong one waits. AWS's clients know 403 only.
fn deny(denied: Denied, request: &Request) -> Refusal {
    let why = match denied {
        Denied::Missing => "a token is needed, in one header line: Authorization: Bearer TOKEN",
        Denied::Wrong => {
            sleep(PENALTY);
            "this token is wrong"
        }
    };
    let refusal = if is_of_aws(request.raw_path()) {
        Refusal::new(StatusCode::FORBIDDEN, why)
    } else {
        let challenge = "Bearer realm=\"switchboard\"";
        Refusal::new(StatusCode::UNAUTHORIZED, why).with_header(header::WWW_AUTHENTICATE, challenge)
    };
    refusal.with_header(header::CONNECTION, "close")
}

/// The body of a request as a message.
pub(super) fn message(exchange: &Exchange<'_>, query: &Query<'_>) -> Result<Message, Refusal> {
    let kind = kind(query)?;
    let body = exchange.body()?;
    match kind {
        Some(Kind::Binary) => Ok(Message::Binary(body)),
        Some(Kind::Text) => {
            let text = Text::try_from(body).map_err(|e| bad(format!("type=text, but the body is not: {e}")));
            Ok(Message::Text(text?))
        }
        None => Ok(Text::try_from(body.clone()).map_or(Message::Binary(body), Message::Text)),
    }
}

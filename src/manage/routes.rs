//! One place through which all requests go: who may ask, what there is, and by which method. What is done then is in `connections`
//! and `audiences`.

use std::sync::Arc;

use bytes::Bytes;
use http::{StatusCode, header};

use super::{
    answers::{bad, json, later, not_allowed, not_found, write},
    audiences, connections, console,
    events::{self, Events},
    json::Object,
    messages::{self, Reader, Readers},
    metrics, nodes, openapi,
    query::{Kind, Query, kind},
    stats::Stats,
    stays::{Stay, Stays},
    strangers::Strangers,
    target::{Target, is_of_aws},
    token::{Denied, Rights, Sender, Tokens},
};
use crate::{
    http::{Refusal, Request, Response, websocket_here},
    hub::Hub,
    id::{InvalidId, WebSocketId},
    limits::Limits,
    message::{Message, Text},
    opening::Opening,
    server::{Exchange, MainServer},
};

/// What a listener gives: the tag of its requests.
pub(super) const BY_TOKEN: u8 = 1;
pub(super) const READ_ONLY: u8 = 2;

pub(super) struct Routes {
    main: MainServer,
    hub: Hub,
    tokens: Tokens,
    events: Arc<Events>,
    readers: Readers,
    stays: Arc<Stays>,
    strangers: Strangers,
    stats: Arc<Stats>,
}

impl Routes {
    /// Of a listener with these limits.
    pub(super) fn new(main: MainServer, tokens: Tokens, events: Arc<Events>, limits: &Limits) -> Self {
        let stays = Stays::new(limits.max_connections);
        let readers = Readers::new(limits.max_connections, stays.clone());
        // Bodies may have half of what there is.
        let strangers = Strangers::new(limits.buffered_bytes() / 4, limits.max_body);
        let stats = Arc::new(Stats::new(main.clone()));
        Self { hub: main.hub(), main, tokens, events, readers, stays, strangers, stats }
    }

    pub(super) fn events(&self) -> &Arc<Events> {
        &self.events
    }

    pub(super) fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// For what keeps its connection.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn stay(&self) -> Result<Stay, Refusal> {
        self.stays.enter()
    }

    pub(super) fn answer(&self, exchange: &Exchange<'_>) -> Response {
        let answer = self.try_answer(exchange);
        answer.unwrap_or_else(|refusal| write(refusal, Some(exchange.request())))
    }

    fn try_answer(&self, exchange: &Exchange<'_>) -> Result<Response, Refusal> {
        let request = exchange.request();
        let target = Target::parse(request.raw_path());
        // A probe has no token. It learns that there is a server, which it knows by the connection. And a browser has none yet when
        // it gets the page that asks for it.
        let is_open = match target {
            Some(Target::Health | Target::Ready) => true,
            Some(Target::Access | Target::Console(_)) => request.method().is_safe(),
            _ => false,
        };
        let mut last = None;
        if !is_open || exchange.tag() & BY_TOKEN == 0 {
            let rights = self.admit(exchange.tag(), request, |sender| body(exchange, sender))?;
            let changes = !request.method().is_safe() || matches!(target, Some(Target::Messages(_)));
            match rights {
                Rights::All => last = messages::acknowledge(exchange),
                Rights::Read if changes => return Err(only_read()),
                Rights::Read => {}
            }
        } else if exchange.has_kept()
            && matches!(
                self.rights(exchange.tag(), request, |sender| body(exchange, sender)),
                Ok(Rights::All)
            )
        {
            // No token is needed, but whoever shows it has got the answer before.
            messages::acknowledge(exchange);
        }
        let target = target.ok_or_else(not_found)?;
        // Like the methods, those of the path that this has may be refused only now.
        let methods = target.methods();
        if !methods.split(", ").any(|method| method == request.method().as_str()) {
            return Err(not_allowed(methods));
        }
        self.dispatch(exchange, target, last)
    }

    /// What a request may do: its listener, of which this is the tag, and its token say; if it is signed, its body is needed.
    ///
    /// # Errors
    /// It may do nothing. Whoever shows a wrong token is told so late.
    fn admit(
        &self,
        tag: u8,
        request: &Request,
        body: impl FnOnce(Sender) -> Result<Bytes, Refusal>,
    ) -> Result<Rights, Refusal> {
        check_page(tag, request)?;
        self.rights(tag, request, body).map_err(|denied| deny(denied, request))
    }

    /// The same for a WebSocket that is being opened: it has no body, and needs no session.
    pub(super) fn admit_opening(&self, opening: &mut Opening) -> Result<Rights, Refusal> {
        let rights = self.admit(opening.listener_tag, opening.request(), |_| Ok(Bytes::new()))?;
        opening.set_use_session(false);
        Ok(rights)
    }

    fn rights(
        &self,
        tag: u8,
        request: &Request,
        body: impl FnOnce(Sender) -> Result<Bytes, Refusal>,
    ) -> Result<Rights, Denied> {
        let is_by_token = tag & BY_TOKEN != 0;
        let body = |sender| {
            let _room = (sender == Sender::Unknown).then(|| self.strangers.admit(request)).transpose()?;
            body(sender)
        };
        let rights = if is_by_token { self.tokens.check(request, body)? } else { Rights::All };
        Ok(if tag & READ_ONLY != 0 { Rights::Read } else { rights })
    }

    /// `last` is who has read a message on this connection before.
    fn dispatch(
        &self,
        exchange: &Exchange<'_>,
        target: Target<'_>,
        last: Option<Reader>,
    ) -> Result<Response, Refusal> {
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
            (Target::Console(file), _) => console::answer(file, request),
            (Target::Access, _) => self.access(exchange),
            (Target::Connections, _) => connections::list(hub, request),
            (Target::Connection(id), "POST") => connections::push(hub, exchange, &known(id)?),
            (Target::Connection(id), "DELETE") => connections::close(hub, request, &known(id)?),
            (Target::Connection(id), _) => connections::show(hub, request, &known(id)?),
            (Target::Messages(id), _) => messages::read(hub, exchange, &known(id)?, last, &self.readers),
            (Target::Member(id, topic), "PUT") => connections::join(hub, request, &known(id)?, &topic),
            (Target::Member(id, topic), _) => connections::leave(hub, request, &known(id)?, &topic),
            (Target::Link, _) => Err(websocket_here()),
            (Target::Events, _) => events::answer(&self.events, &self.stays, request),
            (Target::Stats, _) => Stats::answer(&self.stats, &self.stays, request),
            (Target::Metrics, _) => metrics::answer(&self.main, &self.stats, request),
            (Target::Nodes, _) => nodes::answer(&self.main, hub, request),
            (Target::OpenApi, _) => openapi::answer(request),
            (Target::Topics, _) => audiences::topics(hub, request),
            (Target::Topic(topic), _) => audiences::publish(hub, exchange, &topic),
            (Target::Broadcast, _) => audiences::broadcast(hub, exchange),
            (Target::User(user), "DELETE") => audiences::close_user(hub, request, &user),
            (Target::User(user), _) => audiences::push_user(hub, exchange, &user),
        }
    }

    /// What one may do with the token that is shown, or without one. Nothing is the answer too, so that who has none yet can ask.
    fn access(&self, exchange: &Exchange<'_>) -> Result<Response, Refusal> {
        let request = exchange.request();
        let access = match self.rights(exchange.tag(), request, |sender| body(exchange, sender)) {
            Ok(Rights::All) => "all",
            Ok(Rights::Read) => "read",
            Err(Denied::Missing) => "none",
            Err(denied) => return Err(deny(denied, request)),
        };
        nothing_but(request, json(StatusCode::OK, Object::new().with("access", access)))
    }

    fn ready(&self, request: &Request) -> Result<Response, Refusal> {
        match self.main.check_ready() {
            Ok(()) => {
                let ready = Object::new().with("ready", true);
                let ready = match self.main.cluster_state() {
                    // Still: without Redis all nodes would be taken out at once, and their own traffic goes on.
                    Some(state) => ready.with("cluster", state),
                    None => ready,
                };
                nothing_but(request, json(StatusCode::OK, ready))
            }
            Err(why) => Err(later(why)),
        }
    }
}

/// The body of a request. Strangers keep no place from others while theirs is on its way.
fn body(exchange: &Exchange<'_>, sender: Sender) -> Result<Bytes, Refusal> {
    match sender {
        Sender::Known => exchange.body(),
        Sender::Unknown => exchange.body_of_stranger(),
    }
}

/// Where no token is needed, the page of a stranger must not reach us under the stranger's name (DNS rebinding): as when a Unix socket
/// is brought to a port of a machine with a browser, which says so by what no page can leave out.
/// Nor may it ask under ours: it cannot read an answer, but could hold all places of those who listen.
fn check_page(tag: u8, request: &Request) -> Result<(), Refusal> {
    if tag & BY_TOKEN != 0 {
        return Ok(());
    }
    let is_foreign = matches!(request.header("sec-fetch-site"), Some("cross-site" | "same-site"));
    // A link to the console is followed.
    if is_foreign && request.header("sec-fetch-dest") != Some("document") {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "a page of another origin asks, which may not"));
    }
    let is_browser =
        [header::ACCEPT_LANGUAGE, header::ORIGIN].iter().any(|name| request.headers().contains_key(name));
    if !is_browser || request.has_local_host() {
        return Ok(());
    }
    Err(Refusal::new(
        StatusCode::MISDIRECTED_REQUEST,
        "a browser reaches this as localhost only: any stranger could own another name (DNS rebinding); a proxy has to ask for the \
         Host localhost, or to use the listener with a token",
    ))
}

/// For what has no parameters.
pub(super) fn nothing_but(request: &Request, response: Response) -> Result<Response, Refusal> {
    Query::of(request, &[]).map(|_| response)
}

/// A text that cannot be an ID is a mistake of who asks; an ID that is gone is not.
fn known(id: Result<WebSocketId, InvalidId>) -> Result<WebSocketId, Refusal> {
    id.map_err(|e| bad(e.to_string()))
}

/// Reading messages is more than reading: others do not get them then.
fn only_read() -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "here, or with this token, you may only read, and not take messages")
}

/// Who shows no token is told where it belongs. A wrong one is answered late: whoever guesses has to wait. AWS's clients know 403 only.
fn deny(denied: Denied, request: &Request) -> Refusal {
    let why = match denied {
        Denied::Missing => "a token is needed, in one header line: Authorization: Bearer TOKEN",
        Denied::Wrong => "this token, or the signature with it, is wrong",
        Denied::Unclear(why) => why,
        Denied::NoBody(refusal) => return refusal,
    };
    let is_guess = matches!(denied, Denied::Wrong);
    let refusal = if is_of_aws(request.raw_path()) {
        Refusal::new(StatusCode::FORBIDDEN, why)
    } else {
        let challenge = "Bearer realm=\"switchboard\"";
        Refusal::new(StatusCode::UNAUTHORIZED, why).with_header(header::WWW_AUTHENTICATE, challenge)
    };
    let refusal = refusal.with_header(header::CONNECTION, "close");
    if is_guess { refusal.late() } else { refusal }
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

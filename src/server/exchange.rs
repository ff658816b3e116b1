//! A plain HTTP request and what belongs to it, as the handler of a page sees it.

#[cfg(feature = "manage")]
use std::any::Any;
#[cfg(feature = "manage")]
use std::time::Duration;
use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::body::{FIRM, RequestBody};
use crate::{
    http::{Refusal, Request},
    hub::Hub,
    registry::Registry,
    session::{Session, Sessions},
};

/// A plain HTTP request, for a handler of [`http`](crate::ServerBuilder::http).
pub struct Exchange<'a> {
    request: &'a Request,
    /// What is behind the prefix of its route.
    tail: &'a str,
    body: RequestBody<'a>,
    registry: &'a Arc<Registry>,
    sessions: &'a Arc<Sessions>,
    session: OnceLock<Session>,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(
        request: &'a Request,
        tail: &'a str,
        body: RequestBody<'a>,
        registry: &'a Arc<Registry>,
        sessions: &'a Arc<Sessions>,
    ) -> Self {
        Self { request, tail, body, registry, sessions, session: OnceLock::new() }
    }

    /// The hub of this server.
    pub fn hub(&self) -> Hub {
        Hub::new(self.registry.clone())
    }

    /// What the client asked for.
    pub fn request(&self) -> &Request {
        self.request
    }

    /// What the `*` of the route stands for: `a/b` of `/items/a/b`, with `/items/*`. Empty if the route is one path.
    ///
    /// ```
    /// use switchboard::{Exchange, Refusal, Response, Server, StatusCode};
    ///
    /// fn item(exchange: &Exchange<'_>) -> Result<Response, Refusal> {
    ///     let number: u32 = exchange.path_tail().parse().map_err(|_| StatusCode::NOT_FOUND)?;
    ///     Ok(Response::json(format!("{{\"item\": {number}}}")))
    /// }
    /// # fn main() -> Result<(), switchboard::ServerError> {
    /// let server = Server::builder().listen("127.0.0.1:0").http("/items/*", item).bind()?;
    /// # Ok(()) }
    /// ```
    pub fn path_tail(&self) -> &str {
        self.tail
    }

    /// The body of the request, which is received when this is first called; a client that sends `Expect: 100-continue` is
    /// told to send it. Empty if there is none.
    ///
    /// ```
    /// use switchboard::{Exchange, Refusal, Response, Server, StatusCode};
    ///
    /// /// Answers with what was sent, in capitals.
    /// fn shout(exchange: &Exchange<'_>) -> Result<Response, Refusal> {
    ///     let text = String::from_utf8(exchange.body()?.into())
    ///         .map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "not UTF-8"))?;
    ///     Ok(Response::text(StatusCode::OK, text.to_uppercase()))
    /// }
    /// # fn main() -> Result<(), switchboard::ServerError> {
    /// let server = Server::builder().listen("127.0.0.1:0").http("POST /shout", shout).bind()?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// A refusal to answer with: 413 if it is larger than [`Limits::max_body`](crate::Limits::max_body), 408 if it comes too
    /// slowly, 503 if all connections together hold too much, 400 if it is malformed or breaks off. Whatever the handler
    /// answers then, the connection is closed after it.
    pub fn body(&self) -> Result<Bytes, Refusal> {
        self.body.get(FIRM)
    }

    /// The same of whom nobody knows yet: it keeps no place from others while its body is on its way.
    #[cfg(feature = "manage")]
    pub(crate) fn body_of_stranger(&self) -> Result<Bytes, Refusal> {
        self.body.get(Duration::ZERO)
    }

    /// The first value of that name in a form that was sent (`application/x-www-form-urlencoded`), decoded.
    ///
    /// # Errors
    /// As [`body`](Self::body).
    pub fn form_value(&self, name: &str) -> Result<Option<String>, Refusal> {
        let body = self.body()?;
        let mut pairs = form_urlencoded::parse(&body);
        Ok(pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned()))
    }

    /// The session of this client, the same that its WebSockets have. It is found or made at the first call: a page that does
    /// not call this has no session. The response gets the cookie of one that is new or was [renewed](Session::renew).
    ///
    /// A [`SessionStore`](crate::SessionStore) of the program's may fail; then the methods of the session return an error, which is
    /// a [`Refusal`] with 503 to answer with: `Refusal::from(error)`, or `?`.
    pub fn session(&self) -> &Session {
        self.session.get_or_init(|| Session::open(self.sessions, self.request))
    }

    /// By which listener the request came.
    #[cfg(feature = "manage")]
    pub(crate) fn tag(&self) -> u8 {
        self.body.tag()
    }

    /// Keeps a value for the next request of this connection, in place of another one. It is dropped when the connection ends,
    /// however it does.
    #[cfg(feature = "manage")]
    pub(crate) fn keep(&self, value: impl Any + Send) {
        self.body.keep(Box::new(value));
    }

    /// Whether a request before this one has [kept](Self::keep) anything.
    #[cfg(feature = "manage")]
    pub(crate) fn has_kept(&self) -> bool {
        self.body.has_kept()
    }

    /// What a request before this one has [kept](Self::keep). What is of another type is dropped.
    #[cfg(feature = "manage")]
    pub(crate) fn take_kept<T: Any>(&self) -> Option<T> {
        self.body.take_kept()?.downcast().ok().map(|value| *value)
    }

    /// Whether nobody waits for a response any more: the client has ended its side, or the server shuts down. Who waits for what
    /// to answer asks this at least once a second.
    #[cfg(feature = "manage")]
    pub(crate) fn is_over(&self) -> bool {
        self.body.is_over()
    }

    /// The cookie of a session that the client has to be told.
    pub(super) fn into_cookie(self) -> Option<(HeaderName, HeaderValue)> {
        self.session.get()?.answer(self.request.is_secure())
    }
}

impl fmt::Debug for Exchange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("request", &self.request)
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

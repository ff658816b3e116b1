//! What an application sees of an opening handshake, and sets for the connection that it asks for.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use http::{HeaderName, HeaderValue};

#[cfg(feature = "__tls")]
use crate::client_certificate::ClientCertificate;
use crate::{
    compression::Compression,
    connection::Overflow,
    error::{OverLimit, Result},
    history::Since,
    http::{Request, header_line, tail},
    id::WebSocketId,
    info::Recovery,
    interned::Name,
    registry::Announced,
    session::{Session, SessionId, Sessions},
    tags::Tags,
};

/// An opening handshake, in [`on_pre_server`](crate::WebSocketServer::on_pre_server).
///
/// What each `set_` method has set, the method of that name without `set_` tells. [`Refusal`](crate::Refusal) shows what `?`
/// does here.
///
/// ```
/// use switchboard::{Opening, Refusal, StatusCode};
///
/// fn on_pre_server(opening: &mut Opening) -> Result<(), Refusal> {
///     if opening.request().cookie("user").is_none() {
///         return Err(Refusal::new(StatusCode::UNAUTHORIZED, "log in first"));
///     }
///     opening.choose_subprotocol(&["chat.v2", "chat.v1"]);
///     opening.add_header("set-cookie", "seen=1; Path=/");
///     Ok(())
/// }
/// ```
#[derive(Debug)]
pub struct Opening {
    pub(crate) request: Arc<Request>,
    pub(crate) announced: Announced,
    /// The route, if it stands for several paths.
    pub(crate) route: Option<Name>,
    sessions: Arc<Sessions>,
    /// Opened when it is asked for, or when the handshake is answered.
    session: OnceLock<Session>,
    use_session: bool,
    pub(crate) offered: Vec<String>,
    pub(crate) subprotocol: Option<String>,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// Why the handshake has to be refused, for the log: a header line that cannot be one.
    pub(crate) fault: Option<Box<str>>,
    pub(crate) binary_data: bool,
    pub(crate) session_end_on_close: bool,
    pub(crate) shared: bool,
    pub(crate) overflow: Overflow,
    pub(crate) compression: Compression,
    pub(crate) tags: Tags,
    /// By which listener the request came.
    pub(crate) listener_tag: u8,
}

/// Bytes of the longest name of a user.
const MAX_USER: usize = 256;

impl Opening {
    pub(crate) fn new(
        announced: Announced,
        route: Option<Name>,
        request: Arc<Request>,
        sessions: Arc<Sessions>,
        use_session: bool,
        offered: Vec<String>,
        compression: Compression,
    ) -> Self {
        Self {
            announced,
            route,
            request,
            sessions,
            session: OnceLock::new(),
            use_session,
            offered,
            subprotocol: None,
            headers: Vec::new(),
            fault: None,
            binary_data: false,
            session_end_on_close: false,
            shared: false,
            overflow: Overflow::default(),
            compression,
            tags: Tags::default(),
            listener_tag: 0,
        }
    }

    /// The HTTP request: path, query, headers, cookies, and the client's address.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// The path of the request.
    pub fn path(&self) -> &str {
        self.request.path()
    }

    /// The route that serves it, as it was [registered](crate::ServerBuilder::route): `/chat/*`, for example.
    pub fn route(&self) -> &str {
        self.route.as_ref().map_or_else(|| self.path(), |route| route.text())
    }

    /// What the `*` of the [route](Self::route) stands for: `kitchen/2` of `/chat/kitchen/2`, with `/chat/*`. Empty if the route
    /// is one path. It is what a client wants, and any text: see [`Request::path`] for its form.
    ///
    /// ```
    /// use switchboard::{Opening, Refusal, StatusCode};
    ///
    /// fn on_pre_server(opening: &mut Opening) -> Result<(), Refusal> {
    ///     let room: u32 = opening.path_tail().parse().map_err(|_| StatusCode::NOT_FOUND)?;
    ///     Ok(opening.join(format!("room {room}"))?)
    /// }
    /// ```
    pub fn path_tail(&self) -> &str {
        tail(self.path(), self.route())
    }

    /// The client's address (`REMOTE_ADDR`); see [`Request::client_address`].
    pub fn client_address(&self) -> Option<IpAddr> {
        self.request.client_address()
    }

    /// The certificate with which the client has shown who it is; see [`Request::client_certificate`].
    #[cfg(feature = "__tls")]
    pub fn client_certificate(&self) -> Option<&ClientCertificate> {
        self.request.client_certificate()
    }

    /// The ID of the connection (`WebSocketID`). It is valid from now on, for any thread: see
    /// [`Hub::open_server`](crate::Hub::open_server). Messages that are pushed to it now, also from here, are the first that
    /// the client gets.
    pub fn websocket_id(&self) -> &WebSocketId {
        self.announced.id()
    }

    /// The session's ID (`SessionId`). If the session is [renewed](Session::renew), it changes.
    ///
    /// # Errors
    /// As [`Session::id`].
    pub fn session_id(&self) -> Result<SessionId> {
        self.session().id()
    }

    /// The session: what all connections and requests of this user share. It is found or made at the first call, or else when
    /// `on_pre_server` has returned, unless the connection [has none](Self::set_use_session).
    ///
    /// A [`SessionStore`](crate::SessionStore) of the program's may fail; then the methods of the session return an error, which
    /// `?` makes a refusal with 503, and a handshake that is not refused for it by the application is refused nevertheless.
    pub fn session(&self) -> &Session {
        self.session.get_or_init(|| Session::open(&self.sessions, &self.request))
    }

    /// `UseSession`: with false no session is looked up or made, and no cookie set: the connection has no `session()` and no
    /// `session_id()`. If the session was looked up before, it is forgotten; a later call of [`session`](Self::session) looks it up
    /// again, and the connection has it. Default: true, or what [`ServerBuilder::use_session`](crate::ServerBuilder::use_session)
    /// says.
    pub fn set_use_session(&mut self, on: bool) {
        self.use_session = on;
        if !on {
            self.session.take();
        }
    }

    /// Whether the connection will [have a session](Self::set_use_session).
    pub fn use_session(&self) -> bool {
        self.use_session || self.session.get().is_some()
    }

    /// The application has said yes: from now on the session is what it is, and its cookie is a part of the answer.
    ///
    /// # Errors
    /// If there is no session, because the store has failed.
    pub(crate) fn settle(&mut self) -> Result<()> {
        if self.use_session() {
            self.session_id()?;
        }
        self.announced.settle();
        let cookie = self.take_cookie();
        self.headers.extend(cookie);
        Ok(())
    }

    /// The cookie of a session that the client has to be told.
    pub(crate) fn take_cookie(&mut self) -> Option<(HeaderName, HeaderValue)> {
        self.session.get()?.answer(self.request.is_secure())
    }

    pub(crate) fn take_session(&mut self) -> Option<Session> {
        self.session.take()
    }

    /// The subprotocols that the client offers, in its order of preference (RFC 6455, section 1.9).
    pub fn subprotocols(&self) -> &[String] {
        &self.offered
    }

    /// Chooses the first of these that the client offers, and returns it. By default none is chosen; then a browser that
    /// offered some closes the connection.
    pub fn choose_subprotocol<'a>(&mut self, preferred: &[&'a str]) -> Option<&'a str> {
        let chosen = preferred.iter().copied().find(|name| self.offered.iter().any(|offer| offer == name));
        self.subprotocol = chosen.map(str::to_owned);
        chosen
    }

    /// The subprotocol that was [chosen](Self::choose_subprotocol).
    pub fn subprotocol(&self) -> Option<&str> {
        self.subprotocol.as_deref()
    }

    /// Adds a header line to the response, such as a cookie. Name and value are strings, or typed as
    /// [`HeaderName`](crate::HeaderName) and [`HeaderValue`](crate::HeaderValue). With what cannot be in a header, such as a
    /// line break, the handshake is refused with 500, and the log names the header.
    pub fn add_header(
        &mut self,
        name: impl TryInto<HeaderName> + AsRef<[u8]>,
        value: impl TryInto<HeaderValue>,
    ) {
        match header_line(name, value) {
            Ok(line) => self.headers.push(line),
            Err(fault) => self.fault = self.fault.take().or(Some(fault)),
        }
    }

    /// The header lines that were [added](Self::add_header).
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.headers
    }

    /// Says whose connection it is, by a name of 1 to 256 bytes that means something to the application: the key of an account,
    /// mostly. [`Hub::push_user`](crate::Hub::push_user) reaches all connections of a user, whatever the number of tabs and
    /// devices, and [`Hub::close_user`](crate::Hub::close_user) closes them.
    ///
    /// This connection is one of them from now on: what is pushed to the user follows the answer to the handshake, and if the
    /// user is closed meanwhile, so is this connection, as soon as it is open. If the handshake is refused, nothing is left of
    /// it. Set again, the last user counts.
    ///
    /// ```
    /// use switchboard::{Opening, Refusal, StatusCode};
    ///
    /// fn on_pre_server(opening: &mut Opening) -> Result<(), Refusal> {
    ///     let user = opening.session().get("user")?.ok_or(StatusCode::UNAUTHORIZED)?;
    ///     opening.set_user(&user)?;
    ///     opening.set_tag("device", opening.request().query_value("device").unwrap_or_default().into_owned())?;
    ///     opening.join("news")?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::OverLimit`](crate::Error::OverLimit) if the name is empty or too long; with `?` the handshake is refused with 400.
    pub fn set_user(&mut self, user: impl AsRef<str>) -> Result<()> {
        let user = user.as_ref();
        if !(1..=MAX_USER).contains(&user.len()) {
            return Err(OverLimit::User.into());
        }
        self.announced.set_user(user);
        Ok(())
    }

    /// Whose connection it is.
    pub fn user(&self) -> Option<&str> {
        self.announced.user().map(|user| &**user)
    }

    /// Notes something about the connection, which [`WebSocket::tags`](crate::WebSocket::tags), `Closed::tags` and
    /// [`ConnectionInfo`](crate::ConnectionInfo) show: the kind of device, the version of the page. A key has one value, the
    /// last one. There may be 16 tags, of 1 KiB together.
    ///
    /// # Errors
    /// [`Error::OverLimit`](crate::Error::OverLimit) if that would be too much, or if the key is empty; with `?` the handshake
    /// is refused with 400.
    pub fn set_tag(&mut self, key: impl AsRef<str>, value: impl AsRef<str>) -> Result<()> {
        Ok(self.tags.set(key.as_ref(), value.as_ref())?)
    }

    /// The [tags](Self::set_tag).
    pub fn tags(&self) -> &Tags {
        &self.tags
    }

    /// Joins a topic, as [`WebSocket::join`](crate::WebSocket::join), with the answer to the handshake. What is broadcast to the
    /// topic from now on reaches the client, behind that answer: so whoever joins first, and then pushes to
    /// [`websocket_id`](Self::websocket_id) how things are, misses no change. If the handshake is refused, the connection was
    /// never a member. Joining again has no effect.
    ///
    /// # Errors
    /// [`Error::OverLimit`](crate::Error::OverLimit) if the topic's name is too long or empty, or if there are too many topics;
    /// with `?` the handshake is refused with 400, or, where it is all topics together, 503.
    pub fn join(&mut self, topic: impl AsRef<str>) -> Result<()> {
        Ok(self.announced.join(topic.as_ref())?)
    }

    /// Joins a topic that remembers, with what the client has missed: as [`Hub::join_since`](crate::Hub::join_since), behind the answer to the handshake.
    ///
    /// ```
    /// use switchboard::{Opening, Refusal};
    ///
    /// fn on_pre_server(opening: &mut Opening) -> Result<(), Refusal> {
    ///     opening.join_since("news", opening.since())?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`join`](Self::join) and [`Hub::join_since`](crate::Hub::join_since).
    pub fn join_since(&mut self, topic: impl AsRef<str>, since: impl Into<Since>) -> Result<Recovery> {
        self.announced.join_since(topic.as_ref(), &since.into())
    }

    /// What the client has seen before: the `since` of its URL, or [`Since::NOW`] if there is none.
    pub fn since(&self) -> Since {
        self.request.query_value("since").map_or(Since::NOW, |text| Since::from(&*text))
    }

    /// The topics that it will be a member of, in the order of their names.
    pub fn topics(&self) -> Vec<Arc<str>> {
        self.announced.registry().topics_of(self.announced.id())
    }

    /// `SharedConnection`: the connection is not bound to its thread. [`server`](crate::WebSocketServer::server) may return at
    /// once; the connection lives on, and any thread that has its ID may read from it and write to it, with
    /// [`Hub::open_server`](crate::Hub::open_server), until it is closed. The gateway receives its messages, and they go to
    /// [`on_client_message`](crate::WebSocketServer::on_client_message) or to threads that call `read`. Off by default.
    pub fn set_shared_connection(&mut self, on: bool) {
        self.shared = on;
    }

    /// Whether the connection will be [shared](Self::set_shared_connection).
    pub fn shared_connection(&self) -> bool {
        self.shared
    }

    /// What happens to a push when this client is so slow that its queue is full. Default: [`Overflow::Disconnect`]. For what is pushed
    /// while the connection is being opened, it is to be said before that.
    pub fn set_overflow(&mut self, overflow: Overflow) {
        self.overflow = overflow;
        self.announced.set_keeps_newest(overflow == Overflow::KeepNewest);
    }

    /// What happens to a push when the client's queue is full.
    pub fn overflow(&self) -> Overflow {
        self.overflow
    }

    /// How messages are compressed, if the client offers it. Default: what
    /// [`ServerBuilder::compression`](crate::ServerBuilder::compression) says.
    pub fn set_compression(&mut self, compression: Compression) {
        self.compression = compression;
    }

    /// How messages are compressed, if the client offers it.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// `BinaryData`: see [`WebSocket::set_binary_data`](crate::WebSocket::set_binary_data). Off by default.
    pub fn set_binary_data(&mut self, on: bool) {
        self.binary_data = on;
    }

    /// Whether [`BinaryData`](Self::set_binary_data) is on.
    pub fn binary_data(&self) -> bool {
        self.binary_data
    }

    /// `SessionEndOnClose`: the session ends with this connection, for all that share it. Off by default.
    pub fn set_session_end_on_close(&mut self, on: bool) {
        self.session_end_on_close = on;
    }

    /// Whether the session ends with this connection.
    pub fn session_end_on_close(&self) -> bool {
        self.session_end_on_close
    }
}

//! The session of one connection or request, as handlers use it.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use http::{HeaderName, HeaderValue};

use super::{
    id::SessionId,
    sessions::{Sessions, Visit},
};
use crate::{
    error::{Error, Result},
    http::Request,
    sync::LockExt,
};

/// The session of a synchronous connection, or of a request: values that all connections and requests of one user share. The
/// values outlive the connection.
///
/// ```no_run
/// # fn handler(ws: &mut switchboard::WebSocket) -> switchboard::Result<()> {
/// if let Some(session) = ws.session() {
///     session.set("name", "Ada")?;
///     assert_eq!(session.get("name")?.as_deref(), Some("Ada"));
/// }
/// # Ok(()) }
/// ```
///
/// A clone is the session as it is now, for later and for any thread: with the same ID, and the same values. So the instance of a
/// shared connection keeps one for `on_client_message`. What can be done only with the answer to the request,
/// [`renew`](Self::renew), is not for clones, and one that was made before it is dead after it.
///
/// ```
/// use switchboard::{Handled, Message, Opening, Refusal, ServerResult, Session, WebSocket, WebSocketServer};
///
/// #[derive(Default)]
/// struct Notes {
///     session: Option<Session>,
/// }
///
/// impl WebSocketServer for Notes {
///     fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
///         opening.set_shared_connection(true);
///         self.session = Some(opening.session().clone());
///         Ok(())
///     }
///
///     fn server(&mut self, _ws: &mut WebSocket) -> ServerResult {
///         Ok(())
///     }
///
///     fn on_client_message(&mut self, _ws: &WebSocket, message: Message) -> Handled {
///         if let (Some(session), Some(note)) = (&self.session, message.as_text()) {
///             let _ = session.set("note", note); // a note that does not fit is lost
///         }
///         Handled::Yes
///     }
/// }
/// ```
pub struct Session {
    sessions: Arc<Sessions>,
    state: Mutex<State>,
}

struct State {
    /// `None`: the store has failed.
    visit: Option<Visit>,
    /// The response is made: no cookie can be set any more.
    is_answered: bool,
}

impl Clone for Session {
    fn clone(&self) -> Self {
        let visit = self.state.locked().visit.clone();
        Self { sessions: self.sessions.clone(), state: Mutex::new(State { visit, is_answered: true }) }
    }
}

impl Session {
    /// Finds or makes the session of a request. If the store fails, which the log says, all methods of the session do.
    pub(crate) fn open(sessions: &Arc<Sessions>, request: &Request) -> Self {
        let visit = sessions.find(request).ok();
        Self { sessions: sessions.clone(), state: Mutex::new(State { visit, is_answered: false }) }
    }

    /// The response is being made. Returns the cookie that belongs to it, if the client needs one.
    pub(crate) fn answer(&self, secure: bool) -> Option<(HeaderName, HeaderValue)> {
        let mut state = self.state.locked();
        state.is_answered = true;
        let visit = state.visit.as_ref().filter(|visit| visit.needs_cookie)?;
        Some(self.sessions.cookie(visit, secure))
    }

    /// The session's ID, after a [`renew`](Self::renew) the new one.
    ///
    /// # Errors
    /// [`Error::SessionStore`] if the store could not find or make the session. The default one does not fail, nor does this in
    /// [`server`](crate::WebSocketServer::server): who has no session is not connected.
    pub fn id(&self) -> Result<SessionId> {
        self.state.locked().id()
    }

    /// A value of this session, set by any of its connections and requests.
    ///
    /// # Errors
    /// [`Error::SessionStore`] if the store fails; the default one does not.
    pub fn get(&self, key: &str) -> Result<Option<String>> {
        self.sessions.get(&self.id()?, key)
    }

    /// Stores a value for all connections and requests of this session.
    ///
    /// # Errors
    /// [`Error::SessionsFull`] if there is no room. [`Error::SessionRenewed`] if the session has another ID now.
    /// [`Error::SessionStore`] if the store fails.
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        self.sessions.set(&self.id()?, key, value)
    }

    /// Removes a value.
    ///
    /// # Errors
    /// [`Error::SessionStore`] if the store fails.
    pub fn remove(&self, key: &str) -> Result<()> {
        self.sessions.remove(&self.id()?, key)
    }

    /// Restarts the session's timeout: values of a session that was not used for 900 s
    /// ([`Limits::session_timeout`](crate::Limits::session_timeout)) are removed. `get`, `set` and each opening handshake do this,
    /// too, and while a connection is open its session is in use.
    ///
    /// # Errors
    /// [`Error::SessionStore`] if the store fails.
    pub fn touch(&self) -> Result<()> {
        self.sessions.touch(&self.id()?)
    }

    /// Ends the session for all connections and requests that share it: removes all values. New ones can be set, and the ID stays
    /// the same.
    ///
    /// # Errors
    /// [`Error::SessionStore`] if the store fails: then the session may go on.
    pub fn end(&self) -> Result<()> {
        self.sessions.end(&self.id()?)
    }

    /// Gives the session a new ID, which it returns, and moves the values to it: to be called when a user has logged in, so that
    /// nobody who knew the ID before, or planted it, shares the session. The old ID is dead at once: requests that come with it get
    /// another one, and connections that have it see no values, and can store none. So sockets have to reconnect, as with a reload
    /// of the page.
    ///
    /// The response to the request sets the new cookie. So this works in a handler of [`http`](crate::ServerBuilder::http) and in
    /// [`on_pre_server`](crate::WebSocketServer::on_pre_server), where it may also refuse. In
    /// [`server`](crate::WebSocketServer::server) it is too late, since no cookie can be set through an open WebSocket: a page
    /// that logs in through one has to make a request after it, by `fetch`, whose handler renews the session.
    ///
    /// ```
    /// use switchboard::{Exchange, Refusal, Response, StatusCode};
    ///
    /// fn login(exchange: &Exchange<'_>) -> Result<Response, Refusal> {
    ///     let session = exchange.session();
    ///     session.renew()?;
    ///     session.set("user", "ada")?;
    ///     Ok(Response::text(StatusCode::OK, "hello"))
    /// }
    /// ```
    ///
    /// # Errors
    /// [`Error::TooLate`] in `server`, and of a clone: nothing has changed. [`Error::SessionRenewed`] if it has another ID already.
    /// [`Error::SessionStore`] if the store fails, or cannot do this.
    pub fn renew(&self) -> Result<SessionId> {
        let old = {
            let state = self.state.locked();
            if state.is_answered {
                return Err(Error::TooLate);
            }
            state.id()?
        };
        let id = self.sessions.renew(&old)?;
        if let Some(visit) = &mut self.state.locked().visit {
            visit.id = id.clone();
            visit.needs_cookie = true;
        }
        Ok(id)
    }
}

impl State {
    fn id(&self) -> Result<SessionId> {
        let failed = || Error::SessionStore("it could not open the session".into());
        self.visit.as_ref().map(|visit| visit.id.clone()).ok_or_else(failed)
    }
}

/// Not what it holds.
impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Session").field(&self.id().ok()).finish()
    }
}

//! Where sessions are stored: what the program may provide.

use std::{fmt, time::Duration};

use super::id::SessionId;
use crate::{http::Request, limits::Limits};

/// What the methods of a [`SessionStore`] return. `?` converts any error to it.
pub type StoreResult<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Where sessions are stored. The default store keeps them in memory; a program that has sessions already, or keeps them
/// elsewhere, provides its own with [`ServerBuilder::session_store`](crate::ServerBuilder::session_store).
///
/// Its methods are called from many threads at once, during handshakes and by handlers, and may wait. Each may fail: then a
/// handshake that uses its session is answered with 503, a handler gets [`Error::SessionStore`](crate::Error::SessionStore),
/// and the log says so.
///
/// There are two kinds:
///
/// - One that only stores, in a database for example, leaves [`find`](Self::find) as it is: the server makes and signs the IDs,
///   and finds them by its own cookie. A handshake is one call of [`open`](Self::open); expiry is the store's, which learns by
///   [`keep`](Self::keep) what is in use.
/// - One of a program that has sessions already implements [`find`](Self::find), and finds them by the program's cookie.
///
/// ```
/// use std::{collections::HashMap, sync::Mutex};
/// use switchboard::{FoundSession, Request, SessionId, SessionStore, StoreResult};
///
/// /// The sessions of an existing web application, found by its own cookie.
/// #[derive(Debug, Default)]
/// struct Mine(Mutex<HashMap<SessionId, HashMap<String, String>>>);
///
/// impl SessionStore for Mine {
///     fn find(&self, request: &Request) -> StoreResult<Option<FoundSession>> {
///         let mut sessions = self.0.lock().unwrap();
///         if let Some(id) = request.cookie("my-app").and_then(|value| SessionId::new(value).ok())
///             && sessions.contains_key(&id)
///         {
///             return Ok(Some(FoundSession::known(id)));
///         }
///         let id = SessionId::new(format!("{:032x}", rand()))?; // the server sets the cookie
///         sessions.insert(id.clone(), HashMap::new());
///         Ok(Some(FoundSession::new(id)))
///     }
///     fn get(&self, id: &SessionId, key: &str) -> StoreResult<Option<String>> {
///         let sessions = self.0.lock().unwrap();
///         Ok(sessions.get(id).and_then(|values| values.get(key)).cloned())
///     }
///     fn set(&self, id: &SessionId, key: &str, value: &str) -> StoreResult<()> {
///         let mut sessions = self.0.lock().unwrap();
///         let values = sessions.get_mut(id).ok_or("the session has ended")?;
///         values.insert(key.to_owned(), value.to_owned());
///         Ok(())
///     }
///     fn remove(&self, id: &SessionId, key: &str) -> StoreResult<()> {
///         self.0.lock().unwrap().get_mut(id).and_then(|values| values.remove(key));
///         Ok(())
///     }
///     fn end(&self, id: &SessionId) -> StoreResult<()> {
///         self.0.lock().unwrap().remove(id);
///         Ok(())
///     }
/// }
/// # fn rand() -> u128 { 4 }
/// # let builder = switchboard::Server::builder()
/// #     .session_cookie(switchboard::SessionCookie::new("my-app")).session_store(Mine::default());
/// ```
pub trait SessionStore: Send + Sync + fmt::Debug + 'static {
    /// The server that has this store is made: these are its limits, which the store may keep to. Called once, before all others.
    /// Default: nothing.
    fn begin(&self, limits: &Limits) {
        let _ = limits;
    }

    /// The session of a request, found or made. Default: `None`, the server's own, with an ID that the server has signed.
    ///
    /// Called once for each handshake, and each request of a page, that uses its session.
    ///
    /// # Errors
    /// The answer is 503.
    fn find(&self, request: &Request) -> StoreResult<Option<FoundSession>> {
        let _ = request;
        Ok(None)
    }

    /// A request has come with this ID, and the server's signature. Restarts the timeout. `false`: the ID is not to be used any
    /// more, such as one that was [renewed](Self::renew), and the client gets a new one. A store that has no such ID returns
    /// `true`: it is that of a session which holds nothing. Default: [`touch`](Self::touch), and `true`.
    ///
    /// # Errors
    /// The answer is 503.
    fn open(&self, id: &SessionId) -> StoreResult<bool> {
        self.touch(id).map(|()| true)
    }

    /// A value, if the session has it. Restarts the timeout.
    ///
    /// # Errors
    /// The handler gets it, as with all further methods that handlers call.
    fn get(&self, id: &SessionId, key: &str) -> StoreResult<Option<String>>;

    /// Stores a value, and restarts the timeout.
    ///
    /// # Errors
    /// [`Error::SessionsFull`](crate::Error::SessionsFull) for example: then nothing is stored.
    fn set(&self, id: &SessionId, key: &str, value: &str) -> StoreResult<()>;

    /// Removes a value, if the session has it.
    ///
    /// # Errors
    /// If that failed.
    fn remove(&self, id: &SessionId, key: &str) -> StoreResult<()>;

    /// Ends the session: removes all of its values.
    ///
    /// # Errors
    /// If that failed.
    fn end(&self, id: &SessionId) -> StoreResult<()>;

    /// Moves all values to a new ID, and returns it: `proposed`, or one of the store's own if it makes the IDs. The old one is
    /// dead from now on: nothing can be stored into it any more, and [`open`](Self::open) refuses it. Default: an error.
    ///
    /// # Errors
    /// If it cannot: then the old ID still has its values.
    fn renew(&self, old: &SessionId, proposed: SessionId) -> StoreResult<SessionId> {
        let _ = (old, proposed);
        Err("the session store cannot renew IDs".into())
    }

    /// Restarts the session's timeout, because it is in use. Default: nothing.
    ///
    /// # Errors
    /// If that failed.
    fn touch(&self, id: &SessionId) -> StoreResult<()> {
        let _ = id;
        Ok(())
    }

    /// Restarts the timeouts of these sessions, since there are open connections that have them. Called eight times within each
    /// [`Limits::session_timeout`](crate::Limits::session_timeout), by the thread that called
    /// [`Server::run`](crate::Server::run), with the IDs of all open connections; some may be in it more than once, and some may
    /// hold nothing. A shutdown waits for it. Default: [`touch`](Self::touch) for each.
    ///
    /// # Errors
    /// If that failed; it is tried again the next time.
    fn keep(&self, ids: &[SessionId]) -> StoreResult<()> {
        ids.iter().try_for_each(|id| self.touch(id))
    }

    /// A connection of this session has ended, and the session has not ended with it. Default: nothing. With
    /// [`Limits::workers`](crate::Limits::workers) 0 a gateway may call this: it must not wait then.
    ///
    /// # Errors
    /// If something failed.
    fn release(&self, id: &SessionId) -> StoreResult<()> {
        let _ = id;
        Ok(())
    }
}

/// The session of a request, as a [`SessionStore`] that has its own IDs [finds](SessionStore::find) or makes it.
#[derive(Clone, Debug)]
#[must_use]
pub struct FoundSession {
    pub(super) id: SessionId,
    pub(super) is_new: bool,
    pub(super) max_age: Option<Duration>,
}

impl FoundSession {
    /// One that the client knows already.
    pub fn known(id: SessionId) -> Self {
        Self { id, is_new: false, max_age: None }
    }

    /// One that the client does not know yet: the response sets the [cookie](crate::SessionCookie), with this ID. Also for one whose
    /// cookie is to be set again, so that it lives longer.
    pub fn new(id: SessionId) -> Self {
        Self { id, is_new: true, max_age: None }
    }

    /// For how long browsers keep the cookie of a new one; instead of what [`SessionCookie::max_age`](crate::SessionCookie::max_age)
    /// says.
    pub fn with_max_age(mut self, max_age: Duration) -> Self {
        self.max_age = Some(max_age);
        self
    }
}

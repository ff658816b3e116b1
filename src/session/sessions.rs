//! All sessions of a server: how they are found, named and stored, and what a failing store means.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};
use log::Level;

use super::{
    cookie::SessionCookie,
    id::SessionId,
    keys::SessionKeys,
    memory::{InUse, MemoryStore},
    store::{FoundSession, SessionStore, StoreResult},
};
use crate::{
    error::{Error, Result, ServerError},
    http::Request,
    limits::Limits,
    seldom::Seldom,
    shown::Shown,
};

/// So many cookies of the same name are looked at: browsers send the one that they were given, and those that others have
/// planted for the same host.
const MOST_COOKIES: usize = 32;

/// A store that fails is logged so often.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// In so many parts of their timeout the sessions of open connections are kept alive.
const PARTS: u32 = 8;

/// Timeouts of tests are short, too.
const SHORTEST_PART: Duration = Duration::from_millis(5);

/// What the builder collects.
#[derive(Debug, Default)]
pub(crate) struct SessionSettings {
    /// `None`: in memory.
    pub(crate) store: Option<Box<dyn SessionStore>>,
    /// `None`: a random one.
    pub(crate) signing: Option<SessionKeys>,
    pub(crate) cookie: SessionCookie,
}

#[derive(Debug)]
pub(crate) struct Sessions {
    store: Box<dyn SessionStore>,
    keys: SessionKeys,
    cookie: SessionCookie,
    /// How often [`keep`](Self::keep) has to be called.
    interval: Duration,
    /// Logs that the store fails: strangers can cause it as often as they like.
    complaints: Seldom,
}

/// The session of a request, and what the client has to be told of it.
#[derive(Clone, Debug)]
pub(super) struct Visit {
    pub(super) id: SessionId,
    /// Whether the client needs a cookie.
    pub(super) needs_cookie: bool,
    /// Whether the ID is one of the server's, which are signed.
    is_signed: bool,
    max_age: Option<Duration>,
}

impl Sessions {
    /// # Errors
    /// If the operating system has no random numbers for a key.
    pub(crate) fn new(
        settings: SessionSettings,
        limits: &Limits,
        in_use: Arc<dyn InUse>,
    ) -> Result<Self, ServerError> {
        let store = settings.store.unwrap_or_else(|| Box::new(MemoryStore::new(limits, in_use)));
        store.begin(limits);
        Ok(Self {
            store,
            keys: settings.signing.map_or_else(SessionKeys::random, Ok)?,
            cookie: settings.cookie,
            interval: (limits.session_timeout / PARTS).max(SHORTEST_PART),
            complaints: Seldom::new(LOG_INTERVAL),
        })
    }

    /// The session of a request; a new one if it names none. An unknown ID is never adopted from the client.
    #[inline(never)]
    pub(super) fn find(&self, request: &Request) -> Result<Visit> {
        if let Some(FoundSession { id, is_new, max_age }) = self.ask(|store| store.find(request))? {
            return Ok(Visit { id, needs_cookie: is_new, is_signed: false, max_age });
        }
        let values = self.cookie.values(request).take(MOST_COOKIES);
        for (id, is_current) in values.filter_map(|value| self.keys.verify(value)) {
            // One that was planted may be dead by now.
            if self.ask(|store| store.open(&id))? {
                return Ok(Visit { id, needs_cookie: !is_current, is_signed: true, max_age: None });
            }
        }
        Ok(Visit { id: SessionId::random(), needs_cookie: true, is_signed: true, max_age: None })
    }

    /// The header line that tells the client its session.
    #[inline(never)]
    pub(super) fn cookie(&self, visit: &Visit, secure: bool) -> (HeaderName, HeaderValue) {
        if visit.is_signed {
            self.cookie.header(&self.keys.sign(&visit.id), visit.max_age, secure)
        } else {
            self.cookie.header(visit.id.as_str(), visit.max_age, secure)
        }
    }

    pub(super) fn get(&self, id: &SessionId, key: &str) -> Result<Option<String>> {
        self.ask(|store| store.get(id, key))
    }

    pub(super) fn set(&self, id: &SessionId, key: &str, value: &str) -> Result<()> {
        self.ask(|store| store.set(id, key, value))
    }

    pub(super) fn remove(&self, id: &SessionId, key: &str) -> Result<()> {
        self.ask(|store| store.remove(id, key))
    }

    pub(super) fn touch(&self, id: &SessionId) -> Result<()> {
        self.ask(|store| store.touch(id))
    }

    pub(super) fn renew(&self, id: &SessionId) -> Result<SessionId> {
        self.ask(|store| store.renew(id, SessionId::random()))
    }

    /// Ends a session.
    pub(crate) fn end(&self, id: &SessionId) -> Result<()> {
        self.ask(|store| store.end(id))
    }

    /// A connection of this session has ended, and the session goes on.
    pub(crate) fn release(&self, id: &SessionId) -> Result<()> {
        self.ask(|store| store.release(id))
    }

    /// These are the sessions of open connections.
    pub(crate) fn keep(&self, ids: &[SessionId]) -> Result<()> {
        self.ask(|store| store.keep(ids))
    }

    /// How often [`keep`](Self::keep) has to be called.
    pub(crate) fn interval(&self) -> Duration {
        self.interval
    }

    /// Calls the store. Its errors are the program's, except those of this crate.
    fn ask<T>(&self, call: impl FnOnce(&dyn SessionStore) -> StoreResult<T>) -> Result<T> {
        call(&*self.store).map_err(|error| self.failed(error))
    }

    #[cold]
    fn failed(&self, error: Box<dyn std::error::Error + Send + Sync>) -> Error {
        let error = error.downcast::<Error>().map_or_else(Error::SessionStore, |own| *own);
        if !matches!(error, Error::SessionsFull | Error::SessionRenewed) {
            self.complaints.log(Level::Error, format_args!("{}", Shown(&error)));
        }
        error
    }
}

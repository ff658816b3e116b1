//! Sessions: values that the connections and the HTTP requests of one user share.
//!
//! A request names its session in a cookie; without one a new session is made. A session without values takes memory
//! only while a connection or a request uses it.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use http::{HeaderName, HeaderValue, header};
use log::Level;
use smol_str::SmolStr;

use crate::{
    caught::caught,
    error::{Error, Result},
    http::Request,
    seldom::Seldom,
    sync::LockExt,
};

/// Each connection may cause it.
static PANICKED: Seldom = Seldom::new(Duration::from_secs(10));

/// The name of the cookie.
const COOKIE: &str = "switchboard-session";

/// Names a session (`SessionId`): unguessable and printable.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(SmolStr);

impl SessionId {
    /// An ID made by your own [`SessionStore`].
    pub fn new(id: impl AsRef<str>) -> Self {
        Self(SmolStr::new(id))
    }

    /// The ID as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Shows only the first characters: with the whole ID from a log, anyone could take over the session.
impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({}…)", self.0.chars().take(6).collect::<String>())
    }
}

/// Where sessions are stored. The default store keeps them in memory; a program that already has sessions provides its own.
///
/// Its methods are called from many threads at once, during handshakes and by handlers.
///
/// ```
/// use switchboard::{Opened, Request, Result, SessionId, SessionStore};
///
/// /// The sessions of an existing web application, found by its own cookie.
/// #[derive(Debug)]
/// struct Mine(std::sync::Mutex<std::collections::HashMap<(String, String), String>>);
///
/// impl SessionStore for Mine {
///     fn open(&self, request: &Request) -> Opened {
///         let id = SessionId::new(request.cookie("my-app").unwrap_or("anonymous"));
///         Opened { id, set_cookie: None }
///     }
///     fn get(&self, id: &SessionId, key: &str) -> Option<String> {
///         self.0.lock().unwrap().get(&(id.to_string(), key.to_owned())).cloned()
///     }
///     fn set(&self, id: &SessionId, key: &str, value: &str) -> Result<()> {
///         self.0.lock().unwrap().insert((id.to_string(), key.to_owned()), value.to_owned());
///         Ok(())
///     }
///     fn remove(&self, id: &SessionId, key: &str) {
///         self.0.lock().unwrap().remove(&(id.to_string(), key.to_owned()));
///     }
///     fn end(&self, id: &SessionId) {
///         self.0.lock().unwrap().retain(|(session, _), _| session != id.as_str());
///     }
/// }
/// ```
pub trait SessionStore: Send + Sync + fmt::Debug + 'static {
    /// Finds the session of a request, or makes a new one. Each call is followed by one [`release`](Self::release).
    fn open(&self, request: &Request) -> Opened;
    /// A value, if the session has it.
    fn get(&self, id: &SessionId, key: &str) -> Option<String>;
    /// Stores a value.
    ///
    /// # Errors
    /// [`Error::SessionsFull`] if there is no room; then nothing is stored.
    fn set(&self, id: &SessionId, key: &str, value: &str) -> Result<()>;
    /// Removes a value.
    fn remove(&self, id: &SessionId, key: &str);
    /// Ends the session: removes all of its values.
    fn end(&self, id: &SessionId);
    /// Restarts the session's timeout, because it is in use.
    fn touch(&self, _id: &SessionId) {}
    /// A connection or a request no longer uses the session.
    fn release(&self, _id: &SessionId) {}
}

/// What [`SessionStore::open`] found or made.
#[derive(Debug)]
pub struct Opened {
    /// The session's ID.
    pub id: SessionId,
    /// The whole value of a `Set-Cookie` header for the response, if the client has to learn the ID.
    pub set_cookie: Option<String>,
}

/// The session of a synchronous connection, or of a request. It outlives the connection.
///
/// ```no_run
/// # fn handler(ws: &mut switchboard::WebSocket) -> switchboard::Result<()> {
/// if let Some(session) = ws.session() {
///     session.set("name", "Ada")?;
///     assert_eq!(session.get("name").as_deref(), Some("Ada"));
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    store: Arc<dyn SessionStore>,
}

impl Session {
    /// Finds or makes the session of a request. Also returns the `Set-Cookie` header for the response, if it needs one.
    pub(crate) fn open(
        store: &Arc<dyn SessionStore>,
        request: &Request,
    ) -> (Self, Option<(HeaderName, HeaderValue)>) {
        let Opened { id, set_cookie } = store.open(request);
        let cookie = set_cookie.and_then(|cookie| HeaderValue::try_from(cookie).ok());
        (Self { id, store: store.clone() }, cookie.map(|cookie| (header::SET_COOKIE, cookie)))
    }

    /// The session's ID.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// A value of this session, set by any of its connections and requests.
    pub fn get(&self, key: &str) -> Option<String> {
        self.store.get(&self.id, key)
    }

    /// Stores a value for all connections and requests of this session.
    ///
    /// # Errors
    /// [`Error::SessionsFull`] if the store has no room.
    pub fn set(&self, key: &str, value: &str) -> Result<()> {
        self.store.set(&self.id, key, value)
    }

    /// Removes a value.
    pub fn remove(&self, key: &str) {
        self.store.remove(&self.id, key);
    }

    /// Restarts the session's timeout: a session that was not used for 900 s ([`Limits::session_timeout`](crate::Limits))
    /// ends. `get`, `set` and each opening handshake do this, too.
    pub fn touch(&self) {
        self.store.touch(&self.id);
    }

    /// Ends the session for all connections and requests that share it: removes all values. New ones can be set.
    pub fn end(&self) {
        self.store.end(&self.id);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // It may be dropped because of a panic: another one would abort the process.
        if caught(|| self.store.release(&self.id)).is_none() {
            PANICKED.log(Level::Error, format_args!("the session store panicked"));
        }
    }
}

/// The default store: in memory, with a timeout and a maximum number of sessions.
#[derive(Debug)]
pub(crate) struct MemoryStore {
    sessions: Mutex<Sessions>,
    timeout: Duration,
    max: usize,
}

#[derive(Debug, Default)]
struct Sessions {
    known: HashMap<SessionId, Entry>,
    /// How many of them hold values.
    holding: usize,
}

#[derive(Debug)]
struct Entry {
    values: BTreeMap<String, String>, // most are empty, and an empty one takes little memory
    /// Connections and requests that use it now. As long as there are any, even a session without values is kept.
    users: usize,
    used: Instant,
}

impl Entry {
    fn new() -> Self {
        Self { values: BTreeMap::new(), users: 0, used: Instant::now() }
    }

    fn holds(&self) -> bool {
        !self.values.is_empty()
    }
}

impl Sessions {
    /// Changes a session, if it is known. If its timeout is over, its values are removed first.
    fn change<R>(
        &mut self,
        id: &SessionId,
        timeout: Duration,
        change: impl FnOnce(&mut Entry) -> R,
    ) -> Option<R> {
        let entry = self.known.get_mut(id)?;
        let held = entry.holds();
        if entry.used.elapsed() >= timeout {
            entry.values.clear();
        }
        let result = change(entry);
        self.holding = self.holding + usize::from(entry.holds()) - usize::from(held);
        Some(result)
    }

    /// Ends all sessions whose timeout is over.
    fn sweep(&mut self, timeout: Duration) {
        self.known.retain(|_, entry| {
            if entry.used.elapsed() >= timeout {
                entry.values.clear();
            }
            entry.users > 0 || entry.holds()
        });
        self.holding = self.known.values().filter(|entry| entry.holds()).count();
    }
}

impl MemoryStore {
    pub(crate) fn new(timeout: Duration, max: usize) -> Self {
        Self { sessions: Mutex::default(), timeout, max }
    }

    fn change<R>(&self, id: &SessionId, change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        self.sessions.locked().change(id, self.timeout, change)
    }
}

impl SessionStore for MemoryStore {
    fn open(&self, request: &Request) -> Opened {
        let mut sessions = self.sessions.locked();
        if let Some(known) = request.cookie(COOKIE).map(SessionId::new) {
            let found = sessions.change(&known, self.timeout, |entry| {
                entry.users += 1;
                entry.used = Instant::now();
            });
            if found.is_some() {
                return Opened { id: known, set_cookie: None };
            }
        }
        // An unknown ID is never adopted from the client: an attacker could have planted it (session fixation).
        let id = SessionId(random());
        sessions.known.insert(id.clone(), Entry { users: 1, ..Entry::new() });
        let secure = if request.is_secure() { "; Secure" } else { "" };
        let cookie = format!("{COOKIE}={id}; Path=/; HttpOnly; SameSite=Lax{secure}");
        Opened { id, set_cookie: Some(cookie) }
    }

    fn get(&self, id: &SessionId, key: &str) -> Option<String> {
        let value = self.change(id, |entry| {
            entry.used = Instant::now();
            entry.values.get(key).cloned()
        });
        value.flatten()
    }

    fn set(&self, id: &SessionId, key: &str, value: &str) -> Result<()> {
        let mut sessions = self.sessions.locked();
        if sessions.holding >= self.max && !sessions.known.get(id).is_some_and(Entry::holds) {
            sessions.sweep(self.timeout);
            if sessions.holding >= self.max {
                return Err(Error::SessionsFull);
            }
        }
        sessions.known.entry(id.clone()).or_insert_with(Entry::new);
        sessions.change(id, self.timeout, |entry| {
            entry.used = Instant::now();
            entry.values.insert(key.to_owned(), value.to_owned());
        });
        Ok(())
    }

    fn remove(&self, id: &SessionId, key: &str) {
        self.change(id, |entry| entry.values.remove(key));
    }

    fn end(&self, id: &SessionId) {
        self.change(id, |entry| entry.values.clear());
    }

    fn touch(&self, id: &SessionId) {
        self.change(id, |entry| entry.used = Instant::now());
    }

    fn release(&self, id: &SessionId) {
        let mut sessions = self.sessions.locked();
        let is_needed = sessions.change(id, self.timeout, |entry| {
            entry.users = entry.users.saturating_sub(1);
            entry.users > 0 || entry.holds()
        });
        if is_needed == Some(false) {
            sessions.known.remove(id);
        }
    }
}

/// 128 random bits in 22 letters, digits, `-` and `_`: safe in a cookie, and short enough to need no memory elsewhere.
///
/// # Panics
/// If the operating system has no random numbers, which on Unix happens only early at boot.
fn random() -> SmolStr {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("random numbers from the operating system");
    let mut text = [0; 22];
    data_encoding::BASE64URL_NOPAD.encode_mut(&bytes, &mut text);
    SmolStr::new(str::from_utf8(&text).expect("base64 is ASCII"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::parse_head;

    #[test]
    fn an_id_is_printable_and_new_each_time() {
        let (a, b) = (random(), random());
        assert!(a.len() == 22 && !a.is_heap_allocated());
        assert!(a.bytes().all(|c| c.is_ascii_alphanumeric() || b"-_".contains(&c)));
        assert_ne!(a, b);
    }

    fn request(cookie: &str) -> Box<Request> {
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\nCookie: {cookie}\r\n\r\n");
        parse_head(head.as_bytes(), 1000).unwrap().unwrap().0
    }

    fn store(timeout: Duration, max: usize) -> (Arc<MemoryStore>, Arc<dyn SessionStore>) {
        let store = Arc::new(MemoryStore::new(timeout, max));
        (store.clone(), store)
    }

    const LONG: Duration = Duration::from_secs(900);

    #[test]
    fn is_made_once_and_found_by_its_cookie() {
        let (memory, store) = store(LONG, 10);
        let (first, cookie) = Session::open(&store, &request("a=b"));
        let cookie = cookie.unwrap().1.to_str().unwrap().to_owned();
        assert!(cookie.ends_with("; Path=/; HttpOnly; SameSite=Lax"), "{cookie}");
        let (second, none) = Session::open(&store, &request(&cookie));
        assert!(none.is_none() && first.id() == second.id());
        first.set("k", "v").unwrap();
        assert_eq!(second.get("k").as_deref(), Some("v"));
        drop((first, second));
        let (third, _) = Session::open(&store, &request(&cookie));
        assert_eq!(third.get("k").as_deref(), Some("v"), "it outlives its connections");
        third.end();
        assert_eq!(third.get("k"), None);
        drop(third);
        assert!(memory.sessions.locked().known.is_empty());
    }

    #[test]
    fn sessions_without_values_leave_nothing_behind() {
        let (memory, store) = store(LONG, 10);
        for _ in 0..1000 {
            Session::open(&store, &request("switchboard-session=planted"));
        }
        assert!(memory.sessions.locked().known.is_empty());
    }

    #[test]
    fn an_unknown_id_from_the_client_is_not_adopted() {
        let (_, store) = store(LONG, 10);
        let (session, cookie) = Session::open(&store, &request("switchboard-session=planted"));
        assert!(session.id().as_str() != "planted" && cookie.is_some());
    }

    #[test]
    fn sessions_end_when_unused_and_their_number_is_limited() {
        let (_, expiring) = store(Duration::ZERO, 10);
        let (session, _) = Session::open(&expiring, &request(""));
        session.set("k", "v").unwrap();
        assert_eq!(session.get("k"), None, "ended at once");

        let (_, small) = store(LONG, 1);
        let (one, _) = Session::open(&small, &request(""));
        let (two, _) = Session::open(&small, &request(""));
        one.set("k", "v").unwrap();
        assert!(matches!(two.set("k", "v"), Err(Error::SessionsFull)));
        one.end();
        two.set("k", "v").unwrap();
    }
}

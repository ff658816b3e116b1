//! The default store: in memory, with a timeout and a maximum number of sessions. Only those that hold values take memory, and
//! for a while those whose ID is dead.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use super::{
    id::SessionId,
    store::{SessionStore, StoreResult},
};
use crate::{error::Error, limits::Limits, sync::LockExt};

/// When the store is full, this part of it is given up at once: to find out which takes a look at each.
const PART_GIVEN_UP: usize = 64;

/// Bytes that a session takes beside its values, and a value beside its key and itself.
const SESSION_COST: usize = 640;
const VALUE_COST: usize = 64;

/// To ask which sessions have open connections takes a look at each connection, of which so many take less time than the
/// handshake of one stranger: there has to be a stranger for each so many.
const LOOKS_FOR_ONE: usize = 200;

/// Knows which sessions have open connections. No connection takes memory in the store.
pub(crate) trait InUse: Send + Sync + fmt::Debug {
    /// The sessions of all open connections; some more than once.
    fn session_ids(&self) -> Vec<SessionId>;
}

pub(crate) struct MemoryStore {
    table: Mutex<Table>,
    timeout: Duration,
    /// Bytes of the values of one session.
    max_bytes: usize,
    in_use: Arc<dyn InUse>,
    asking: Mutex<Asking>,
}

/// Held while it is asked which sessions have open connections.
#[derive(Debug, Default)]
struct Asking {
    /// How many connections there were.
    connections: usize,
    /// How often nobody has asked since then, who wanted to.
    passed: usize,
}

struct Table {
    known: HashMap<SessionId, Entry>,
    /// What these take, in bytes.
    bytes: usize,
    /// The most of both.
    max: usize,
    max_bytes: usize,
    /// When `keep` was last called, and when the time before. Whose last use is before that is not in use: it would have been kept.
    kept: Instant,
    kept_before: Instant,
}

struct Entry {
    values: BTreeMap<String, String>, // most are small, and a small one takes little memory
    standing: Standing,
    used: Instant,
    /// An open connection has it, or may have: since it was last known, a connection or a request came with it.
    is_open: bool,
}

/// Of a full store those are given up first that stand lower: thousands of strangers who never come again push out each other, not
/// those who do, and least of all those who have logged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// The ID was replaced by another one, and is not taken again.
    Dead,
    New,
    /// It has come again: its client keeps cookies.
    Returned,
    /// The session has been given a new ID, as at a login.
    Renewed,
}

impl Entry {
    fn new(standing: Standing) -> Self {
        Self { values: BTreeMap::new(), standing, used: Instant::now(), is_open: true }
    }

    /// Bytes of its values.
    fn bytes(&self) -> usize {
        self.values.iter().map(|(key, value)| cost(key, value)).sum()
    }

    /// Bytes of the value of this key, if it has one.
    fn bytes_of(&self, key: &str) -> usize {
        self.values.get(key).map_or(0, |value| cost(key, value))
    }
}

/// Bytes that a value takes, with its key.
fn cost(key: &str, value: &str) -> usize {
    key.len() + value.len() + VALUE_COST
}

impl Table {
    fn is_over(&self, entry: &Entry, timeout: Duration) -> bool {
        entry.used < self.kept_before && entry.used.elapsed() >= timeout
    }

    /// A session that is known, and whose timeout is not over.
    fn find(&mut self, id: &SessionId, timeout: Duration) -> Option<&mut Entry> {
        if self.is_over(self.known.get(id)?, timeout) {
            self.take(id);
        }
        self.known.get_mut(id)
    }

    fn insert(&mut self, id: SessionId, entry: Entry) {
        self.take(&id);
        self.bytes += SESSION_COST + entry.bytes();
        self.known.insert(id, entry);
    }

    fn take(&mut self, id: &SessionId) -> Option<Entry> {
        let entry = self.known.remove(id)?;
        self.bytes -= SESSION_COST + entry.bytes();
        Some(entry)
    }

    /// A session that is known gets a value, or loses one.
    fn change(&mut self, id: &SessionId, key: &str, value: Option<&str>) {
        let Some(entry) = self.known.get_mut(id) else { return };
        self.bytes -= entry.bytes_of(key);
        match value {
            Some(value) => entry.values.insert(key.to_owned(), value.to_owned()),
            None => entry.values.remove(key),
        };
        self.bytes += entry.bytes_of(key);
    }

    /// Makes room for so many more bytes of this session, from others that stand as high as this at most. False: it needs more than
    /// there is, or all others are in use, as far as is known.
    fn make_room(&mut self, id: &SessionId, bytes: usize, timeout: Duration, highest: Standing) -> bool {
        let own = self.known.get(id).map(|entry| SESSION_COST + entry.bytes());
        let more = if own.is_some() { bytes } else { bytes.saturating_add(SESSION_COST) };
        if more > self.max_bytes.saturating_sub(own.unwrap_or(0)) {
            return false; // however many are given up
        }
        let has_room = |table: &Self| {
            let has_place = own.is_some() || table.known.len() < table.max;
            has_place && more <= table.max_bytes.saturating_sub(table.bytes)
        };
        while !has_room(self) {
            if !self.give_up(id, timeout, highest) {
                return false;
            }
        }
        true
    }

    /// Gives up a part of the sessions, but for this one. False: there are none to give up.
    fn give_up(&mut self, except: &SessionId, timeout: Duration, highest: Standing) -> bool {
        let mut candidates: Vec<_> = self
            .known
            .iter()
            .filter(|(id, _)| *id != except)
            .map(|(id, entry)| (Reverse(self.is_over(entry, timeout)), entry.is_open, entry, id))
            .filter(|&(Reverse(is_over), is_open, entry, _)| is_over || !is_open && entry.standing <= highest)
            .map(|(is_over, _, entry, id)| (is_over, entry.standing, entry.used, id))
            .collect();
        let count = (self.known.len() / PART_GIVEN_UP).max(1).min(candidates.len());
        if count == 0 {
            return false;
        }
        candidates.select_nth_unstable(count - 1);
        let given_up: Vec<_> = candidates[..count].iter().map(|(.., id)| (*id).clone()).collect();
        given_up.iter().for_each(|id| drop(self.take(id)));
        true
    }

    /// These are the sessions of open connections. Those last used before `since` that are not among them have none.
    fn mark_open(&mut self, ids: &[SessionId], since: Instant) {
        let now = Instant::now();
        for entry in self.known.values_mut() {
            entry.is_open &= entry.used >= since;
        }
        for id in ids {
            if let Some(entry) = self.known.get_mut(id) {
                entry.is_open = true;
                entry.used = now;
            }
        }
    }
}

impl MemoryStore {
    pub(crate) fn new(limits: &Limits, in_use: Arc<dyn InUse>) -> Self {
        let now = Instant::now();
        let table = Table {
            known: HashMap::new(),
            bytes: 0,
            max: limits.max_sessions,
            max_bytes: limits.session_memory(),
            kept: now,
            kept_before: now,
        };
        Self {
            table: Mutex::new(table),
            timeout: limits.session_timeout,
            max_bytes: limits.max_session_bytes,
            in_use,
            asking: Mutex::default(),
        }
    }

    fn with<R>(&self, id: &SessionId, change: impl FnOnce(&mut Entry) -> R) -> Option<R> {
        self.table.locked().find(id, self.timeout).map(change)
    }

    /// Makes room for so many more bytes of this session, if there are others that nobody uses.
    fn make_room<'a>(
        &'a self,
        mut table: MutexGuard<'a, Table>,
        id: &SessionId,
        bytes: usize,
    ) -> StoreResult<MutexGuard<'a, Table>> {
        if table.make_room(id, bytes, self.timeout, Standing::New) {
            return Ok(table);
        }
        drop(table); // as it takes a while to ask, and other locks
        self.ask();
        table = self.table.locked();
        if table.make_room(id, bytes, self.timeout, Standing::Renewed) {
            Ok(table)
        } else {
            Err(Error::SessionsFull.into())
        }
    }

    /// Asks which sessions have open connections.
    fn ask(&self) {
        let mut asking = self.asking.locked();
        asking.passed += 1;
        if asking.passed * LOOKS_FOR_ONE >= asking.connections {
            let begun = Instant::now();
            let ids = self.in_use.session_ids();
            *asking = Asking { connections: ids.len(), passed: 0 };
            self.table.locked().mark_open(&ids, begun);
        }
    }
}

impl SessionStore for MemoryStore {
    fn open(&self, id: &SessionId) -> StoreResult<bool> {
        let is_alive = self.with(id, |entry| {
            if entry.standing == Standing::Dead {
                return false;
            }
            entry.standing = entry.standing.max(Standing::Returned);
            entry.used = Instant::now();
            entry.is_open = true;
            true
        });
        Ok(is_alive.unwrap_or(true))
    }

    fn get(&self, id: &SessionId, key: &str) -> StoreResult<Option<String>> {
        let value = self.with(id, |entry| {
            entry.used = Instant::now();
            entry.values.get(key).cloned()
        });
        Ok(value.flatten())
    }

    fn set(&self, id: &SessionId, key: &str, value: &str) -> StoreResult<()> {
        let mut table = self.table.locked();
        let (all, before) =
            table.find(id, self.timeout).map_or((0, 0), |entry| (entry.bytes(), entry.bytes_of(key)));
        let bytes = cost(key, value);
        if all - before + bytes > self.max_bytes {
            return Err(Error::SessionsFull.into());
        }
        table = self.make_room(table, id, bytes.saturating_sub(before))?;
        if !table.known.contains_key(id) {
            table.insert(id.clone(), Entry::new(Standing::New));
        }
        match table.known.get_mut(id) {
            Some(entry) if entry.standing == Standing::Dead => return Err(Error::SessionRenewed.into()),
            Some(entry) => entry.used = Instant::now(),
            None => {}
        }
        table.change(id, key, Some(value));
        Ok(())
    }

    fn remove(&self, id: &SessionId, key: &str) -> StoreResult<()> {
        let mut table = self.table.locked();
        if table.find(id, self.timeout).is_some_and(|entry| entry.values.contains_key(key)) {
            table.change(id, key, None);
            if table.known.get(id).is_some_and(|entry| entry.values.is_empty()) {
                table.take(id);
            }
        }
        Ok(())
    }

    fn end(&self, id: &SessionId) -> StoreResult<()> {
        let mut table = self.table.locked();
        if table.find(id, self.timeout).is_some_and(|entry| entry.standing != Standing::Dead) {
            table.take(id);
        }
        Ok(())
    }

    fn renew(&self, old: &SessionId, new: SessionId) -> StoreResult<SessionId> {
        let mut table = self.table.locked();
        if table.find(old, self.timeout).is_some_and(|entry| entry.standing == Standing::Dead) {
            return Err(Error::SessionRenewed.into());
        }
        let before = table.take(old);
        // It takes the place of the old one. That a session which holds nothing is one of a login, and that an ID is dead, is kept
        // where there is room for it.
        if before.is_some() || table.make_room(&new, 0, self.timeout, Standing::New) {
            let values = before.map(|entry| entry.values).unwrap_or_default();
            table.insert(new.clone(), Entry { values, ..Entry::new(Standing::Renewed) });
        }
        if table.make_room(old, 0, self.timeout, Standing::New) {
            table.insert(old.clone(), Entry::new(Standing::Dead));
        }
        Ok(new)
    }

    fn touch(&self, id: &SessionId) -> StoreResult<()> {
        self.with(id, |entry| entry.used = Instant::now());
        Ok(())
    }

    fn keep(&self, ids: &[SessionId]) -> StoreResult<()> {
        let table = &mut *self.table.locked();
        // Who was used since the last time may be one whose handshake is under way.
        table.mark_open(ids, table.kept);
        table.kept_before = std::mem::replace(&mut table.kept, Instant::now());
        let kept_before = table.kept_before;
        let timeout = self.timeout;
        let Table { known, bytes, .. } = table;
        known.retain(|_, entry| {
            let stays = entry.used >= kept_before || entry.used.elapsed() < timeout;
            *bytes -= if stays { 0 } else { SESSION_COST + entry.bytes() };
            stays
        });
        Ok(())
    }

    /// Its timeout begins.
    fn release(&self, id: &SessionId) -> StoreResult<()> {
        self.touch(id)
    }
}

/// Not what the sessions hold.
impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryStore")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::session::store::StoreResult;

    /// The sessions that have open connections.
    #[derive(Debug, Default)]
    struct Open(Mutex<HashSet<SessionId>>);

    impl InUse for Open {
        fn session_ids(&self) -> Vec<SessionId> {
            self.0.locked().iter().cloned().collect()
        }
    }

    const LONG: Duration = Duration::from_secs(900);

    fn store(timeout: Duration, max: usize) -> (MemoryStore, Arc<Open>) {
        let max_session_bytes = 164;
        let limits =
            Limits { session_timeout: timeout, max_sessions: max, max_session_bytes, ..Limits::default() };
        with(&limits)
    }

    fn with(limits: &Limits) -> (MemoryStore, Arc<Open>) {
        let open = Arc::new(Open::default());
        (MemoryStore::new(limits, open.clone()), open)
    }

    impl MemoryStore {
        /// How many sessions it has; what they take is what it has counted.
        fn len(&self) -> usize {
            let table = self.table.locked();
            let bytes: usize = table.known.values().map(|entry| SESSION_COST + entry.bytes()).sum();
            assert_eq!(table.bytes, bytes);
            table.known.len()
        }

        /// As the server does, again and again.
        fn keep_open(&self) {
            self.keep(&self.in_use.session_ids()).unwrap();
        }
    }

    fn is_full(result: StoreResult<()>) -> bool {
        result.is_err_and(|e| matches!(e.downcast_ref(), Some(Error::SessionsFull)))
    }

    #[test]
    fn sessions_without_values_leave_nothing_behind() {
        let (store, _) = store(LONG, 10);
        for _ in 0..1000 {
            let id = SessionId::random();
            assert!(store.open(&id).unwrap(), "an ID lives, although nothing is known of it");
            assert_eq!(store.get(&id, "k").unwrap(), None);
            store.touch(&id).unwrap();
            store.remove(&id, "k").unwrap();
            store.release(&id).unwrap();
        }
        assert_eq!(store.len(), 0);
        let id = SessionId::random();
        for end in [|store: &MemoryStore, id| store.remove(id, "k"), |store: &MemoryStore, id| store.end(id)]
        {
            store.set(&id, "k", "v").unwrap();
            assert_eq!(store.len(), 1);
            end(&store, &id).unwrap();
            assert_eq!(store.len(), 0);
        }
    }

    #[test]
    fn a_session_ends_when_it_is_unused_unless_a_connection_is_open() {
        let (store, open) = store(Duration::ZERO, 10);
        let (used, unused) = (SessionId::random(), SessionId::random());
        store.set(&used, "k", "v").unwrap();
        store.set(&unused, "k", "v").unwrap();
        open.0.locked().insert(used.clone());
        assert!(store.get(&unused, "k").unwrap().is_some(), "not before it is known what is in use");
        for _ in 0..3 {
            store.keep_open();
        }
        assert_eq!(store.get(&used, "k").unwrap().as_deref(), Some("v"));
        assert_eq!((store.get(&unused, "k").unwrap(), store.len()), (None, 1));
        open.0.locked().clear();
        for _ in 0..3 {
            store.keep_open();
        }
        assert_eq!(store.len(), 0);
    }

    #[test]
    fn of_a_full_store_those_are_given_up_first_that_nobody_comes_back_to() {
        let (store, open) = store(LONG, 100);
        let [renewed, returned, connected] = [0; 3].map(|_| SessionId::random());
        store.set(&returned, "k", "v").unwrap();
        store.set(&connected, "k", "v").unwrap();
        store.open(&returned).unwrap();
        open.0.locked().insert(connected.clone());
        let renewed = store.renew(&renewed, SessionId::random()).unwrap();
        store.set(&renewed, "k", "v").unwrap();
        let strangers: Vec<_> = (0..1000).map(|_| SessionId::random()).collect();
        for stranger in &strangers {
            store.set(stranger, "k", "v").unwrap();
        }
        for id in [&renewed, &returned, &connected, &strangers[999], &strangers[950]] {
            assert!(store.get(id, "k").unwrap().is_some(), "{id:?}");
        }
        assert!(store.len() <= 100 && store.get(&strangers[0], "k").unwrap().is_none());
        // Those who come back push out each other, too, and not who has logged in.
        for stranger in &strangers {
            store.set(stranger, "k", "v").unwrap();
            store.open(stranger).unwrap();
        }
        for id in [&renewed, &connected, &strangers[999], &strangers[950]] {
            assert!(store.get(id, "k").unwrap().is_some(), "{id:?}");
        }
        assert!(store.len() <= 100 && store.get(&returned, "k").unwrap().is_none());
    }

    #[test]
    fn it_is_full_only_of_sessions_in_use() {
        let (store, open) = store(LONG, 2);
        let ids = [0; 3].map(|_| SessionId::random());
        open.0.locked().extend(ids.iter().cloned());
        store.set(&ids[0], "k", "v").unwrap();
        store.set(&ids[1], "k", "v").unwrap();
        assert!(is_full(store.set(&ids[2], "k", "v")));
        store.set(&ids[1], "another", "v").unwrap();
        assert_eq!((store.get(&ids[2], "k").unwrap(), store.len()), (None, 2));
        open.0.locked().remove(&ids[0]);
        store.set(&ids[2], "k", "v").unwrap();
        assert_eq!((store.get(&ids[0], "k").unwrap(), store.len()), (None, 2));
        let (none, _) = self::store(LONG, 0);
        assert!(is_full(none.set(&ids[0], "k", "v")));
    }

    #[test]
    fn what_one_session_holds_is_bounded() {
        let (store, _) = store(LONG, 10);
        let id = SessionId::random();
        assert!(is_full(store.set(&id, "k", &"x".repeat(100))));
        assert_eq!(store.len(), 0);
        store.set(&id, "k", &"x".repeat(99)).unwrap();
        store.set(&id, "k", &"y".repeat(99)).unwrap();
        assert!(is_full(store.set(&id, "l", "")));
        assert_eq!(store.get(&id, "k").unwrap(), Some("y".repeat(99)));
        store.set(&id, "k", "").unwrap();
        store.set(&id, "l", &"x".repeat(34)).unwrap();
    }

    #[test]
    fn what_all_sessions_hold_is_bounded() {
        let max = 20 * 2000;
        let limits = Limits { max_session_memory: Some(max), max_session_bytes: max, ..Limits::default() };
        let (store, open) = with(&limits);
        let large =
            |store: &MemoryStore, id| store.set(id, "k", &"x".repeat(2000 - SESSION_COST - VALUE_COST - 1));
        let (connected, strangers) = (SessionId::random(), [0; 100].map(|_| SessionId::random()));
        open.0.locked().insert(connected.clone());
        large(&store, &connected).unwrap();
        for stranger in &strangers {
            large(&store, stranger).unwrap();
        }
        assert_eq!(store.len(), 20);
        for id in [&connected, &strangers[99], &strangers[85]] {
            assert!(store.get(id, "k").unwrap().is_some(), "{id:?}");
        }
        // One that grows takes the room of others, and not its own.
        store.set(&connected, "l", &"x".repeat(max / 2)).unwrap();
        assert!((8..10).contains(&store.len()) && store.get(&connected, "k").unwrap().is_some());
        assert!(is_full(store.set(&connected, "m", &"x".repeat(max / 2))), "it has never room");
        assert!((8..10).contains(&store.len()), "so nobody is given up for it");
        // All are in use.
        open.0.locked().extend(strangers.iter().cloned());
        assert!(is_full(store.set(&SessionId::random(), "k", &"x".repeat(max / 4))));
        open.0.locked().clear();
        store.set(&SessionId::random(), "k", &"x".repeat(max / 4)).unwrap();
        assert!(store.len() < 9);
    }

    #[test]
    fn a_renewed_id_has_the_values_and_the_old_one_is_dead() {
        let (store, _) = store(LONG, 10);
        let old = SessionId::random();
        store.set(&old, "k", "v").unwrap();
        let new = store.renew(&old, SessionId::random()).unwrap();
        assert_eq!(store.get(&new, "k").unwrap().as_deref(), Some("v"));
        assert!(!store.open(&old).unwrap() && store.open(&new).unwrap());
        assert_eq!(store.get(&old, "k").unwrap(), None);
        store.end(&old).unwrap();
        store.remove(&old, "k").unwrap();
        let is_renewed = |error: Box<dyn std::error::Error + Send + Sync>| {
            matches!(error.downcast_ref(), Some(Error::SessionRenewed))
        };
        assert!(is_renewed(store.set(&old, "k", "v").unwrap_err()));
        assert!(is_renewed(store.renew(&old, SessionId::random()).unwrap_err()));
        let newest = store.renew(&new, SessionId::random()).unwrap();
        assert_eq!(store.get(&newest, "k").unwrap().as_deref(), Some("v"));
        assert!(!store.open(&old).unwrap() && !store.open(&new).unwrap());
    }

    #[test]
    fn renewing_needs_no_room() {
        let (store, open) = store(LONG, 1);
        let old = SessionId::random();
        store.set(&old, "k", "v").unwrap();
        open.0.locked().insert(old.clone());
        let new = store.renew(&old, SessionId::random()).unwrap();
        assert_eq!(store.get(&new, "k").unwrap().as_deref(), Some("v"));
        assert_eq!(store.len(), 1);
        store.renew(&SessionId::random(), SessionId::random()).unwrap();
        assert_eq!((store.len(), store.get(&new, "k").unwrap().is_some()), (1, true));
    }
}

//! The registry: every connection by its ID, by its path, and by the topics that it joined.
//!
//! Its locks are held to look something up, never while anything is sent.

#![expect(clippy::mutable_key_type, reason = "a connection is found by its ID, which never changes")]

use std::{
    borrow::Borrow,
    collections::{BinaryHeap, HashMap, HashSet},
    fmt,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex},
};

use crate::{
    connection::{Connection, Registrar},
    id::WebSocketId,
    observer::{Observers, TopicEvent},
    sync::LockExt,
};

/// The IDs are in so many parts that threads seldom want the same one.
const PARTS: usize = 16;

/// Which connections are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Audience<'a> {
    /// All connections.
    All,
    /// Those whose request had this path.
    Path(&'a str),
    /// Those that joined this topic.
    Topic(&'a str),
}

/// All connections of a server that are not over.
#[derive(Default)]
pub(crate) struct Registry {
    by_id: [Mutex<Group>; PARTS],
    paths: Groups,
    topics: Groups,
    /// The topics of a connection, for its end.
    joined: Mutex<HashMap<WebSocketId, HashSet<Arc<str>>>>,
    observers: Observers,
}

/// Connections by a name.
#[derive(Default)]
struct Groups(Mutex<HashMap<Arc<str>, Group>>);

type Group = HashSet<Member>;

/// A connection, found by its ID.
struct Member(Arc<Connection>);

impl Borrow<WebSocketId> for Member {
    fn borrow(&self) -> &WebSocketId {
        self.0.id()
    }
}

impl Hash for Member {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id().hash(state);
    }
}

impl PartialEq for Member {
    fn eq(&self, other: &Self) -> bool {
        self.0.id() == other.0.id()
    }
}

impl Eq for Member {}

fn connections(group: &Group) -> Vec<Arc<Connection>> {
    group.iter().map(|member| member.0.clone()).collect()
}

impl Registry {
    pub(crate) fn new(observers: Observers) -> Self {
        Self { observers, ..Self::default() }
    }

    pub(crate) fn find(&self, id: &WebSocketId) -> Option<Arc<Connection>> {
        self.part(id).locked().get(id).map(|member| member.0.clone())
    }

    /// All of them, as they are now, in no order.
    pub(crate) fn all(&self) -> Vec<Arc<Connection>> {
        self.by_id.iter().flat_map(|part| connections(&part.locked())).collect()
    }

    /// Those that are meant, as they are now, in no order.
    pub(crate) fn select(&self, audience: Audience<'_>) -> Vec<Arc<Connection>> {
        match audience {
            Audience::All => self.all(),
            Audience::Path(path) => self.paths.members(path),
            Audience::Topic(topic) => self.topics.members(topic),
        }
    }

    /// The first `count` of those that are meant whose IDs come after this one, in the order of their IDs.
    pub(crate) fn first_ids(
        &self,
        audience: Audience<'_>,
        after: Option<&WebSocketId>,
        count: usize,
    ) -> Vec<WebSocketId> {
        let mut first = First { after, count, ids: BinaryHeap::new() };
        match audience {
            Audience::All => self.by_id.iter().for_each(|part| first.look_at(&part.locked())),
            Audience::Path(path) => self.paths.with(path, |group| first.look_at(group)),
            Audience::Topic(topic) => self.topics.with(topic, |group| first.look_at(group)),
        }
        first.ids.into_sorted_vec()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.iter().map(|part| part.locked().len()).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.iter().all(|part| part.locked().is_empty())
    }

    /// A path; where others have asked for it, too, it is theirs.
    pub(crate) fn path(&self, path: &str) -> Arc<str> {
        let paths = self.paths.0.locked();
        paths.get_key_value(path).map_or_else(|| path.into(), |(path, _)| path.clone())
    }

    /// Makes a connection known by its ID and its path, until it is over.
    pub(crate) fn register(&self, connection: &Arc<Connection>) {
        self.observers.opened(connection); // before anyone can find it, and so end it
        self.part(connection.id()).locked().insert(Member(connection.clone()));
        self.paths.insert(&connection.about().path, connection.clone(), || {});
    }

    /// Makes a connection a member of a topic. False: no connection has this ID.
    pub(crate) fn join(&self, id: &WebSocketId, topic: &str) -> bool {
        let is_there = self.enter(id, topic);
        self.observers.tell();
        is_there
    }

    fn enter(&self, id: &WebSocketId, topic: &str) -> bool {
        let Some(connection) = self.find(id) else { return false };
        let name: Arc<str> = topic.into();
        let mut joined = self.joined.locked();
        joined.entry(id.clone()).or_default().insert(name.clone());
        self.topics.insert(&name, connection, || {
            self.observers.queue(|| TopicEvent::Occupied(name.clone()));
        });
        // It may have ended in between: then nobody would take it out any more.
        let is_there = self.find(id).is_some();
        drop(joined);
        if !is_there {
            self.leave_all(id);
        }
        is_there
    }

    /// Removes a connection from a topic. False: no connection has this ID.
    pub(crate) fn leave(&self, id: &WebSocketId, topic: &str) -> bool {
        let mut joined = self.joined.locked();
        if let Some(topics) = joined.get_mut(id) {
            topics.remove(topic);
            if topics.is_empty() {
                joined.remove(id);
            }
            self.leave_topic(topic, id);
        }
        drop(joined);
        self.observers.tell();
        self.find(id).is_some()
    }

    fn leave_all(&self, id: &WebSocketId) {
        let mut joined = self.joined.locked();
        for topic in joined.remove(id).into_iter().flatten() {
            self.leave_topic(&topic, id);
        }
    }

    fn leave_topic(&self, topic: &str, id: &WebSocketId) {
        self.topics.remove(topic, id, || self.observers.queue(|| TopicEvent::Vacated(topic.into())));
    }

    fn part(&self, id: &WebSocketId) -> &Mutex<Group> {
        // IDs are random, and so is their end.
        let last = id.as_str().bytes().last().unwrap_or_default();
        &self.by_id[usize::from(last) % PARTS]
    }
}

/// At its end the ID becomes unknown, and it leaves all topics.
impl Registrar for Registry {
    fn unregister(&self, connection: &Arc<Connection>) {
        let id = connection.id();
        self.part(id).locked().remove(id);
        self.paths.remove(&connection.about().path, id, || {});
        self.leave_all(id);
        self.observers.tell();
        self.observers.closed(connection);
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Registry({} connections)", self.len())
    }
}

impl Groups {
    /// Calls `is_first`, under the lock, if the name had no member.
    fn insert(&self, name: &Arc<str>, connection: Arc<Connection>, is_first: impl FnOnce()) {
        let mut groups = self.0.locked();
        let group = groups.entry(name.clone()).or_default();
        if group.is_empty() {
            is_first();
        }
        group.insert(Member(connection));
    }

    /// Calls `was_last`, under the lock, if the name has no member any more.
    fn remove(&self, name: &str, id: &WebSocketId, was_last: impl FnOnce()) {
        let mut groups = self.0.locked();
        if let Some(group) = groups.get_mut(name) {
            group.remove(id);
            if group.is_empty() {
                groups.remove(name);
                was_last();
            }
        }
    }

    fn members(&self, name: &str) -> Vec<Arc<Connection>> {
        self.0.locked().get(name).map(connections).unwrap_or_default()
    }

    fn with(&self, name: &str, look: impl FnOnce(&Group)) {
        if let Some(group) = self.0.locked().get(name) {
            look(group);
        }
    }
}

/// The first IDs after another one, `count` at most, whatever the size of the groups that are looked at.
struct First<'a> {
    after: Option<&'a WebSocketId>,
    count: usize,
    ids: BinaryHeap<WebSocketId>,
}

impl First<'_> {
    fn look_at(&mut self, group: &Group) {
        let ids = group.iter().map(|member| member.0.id());
        for id in ids.filter(|id| self.after.is_none_or(|after| *id > after)) {
            if self.ids.len() < self.count {
                self.ids.push(id.clone());
            } else if let Some(mut last) = self.ids.peek_mut()
                && *id < *last
            {
                *last = id.clone();
            }
        }
    }
}

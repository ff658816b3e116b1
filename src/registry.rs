//! The registry: every connection by its ID, by its path, and by the topics that it joined; and those that are being opened,
//! by their ID only.
//!
//! Its locks are held to look something up, never while anything is sent or waited for.

#![expect(clippy::mutable_key_type, reason = "a connection is found by its ID, which never changes")]

use std::{
    borrow::Borrow,
    collections::{BinaryHeap, HashMap, HashSet},
    fmt,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex},
    time::Duration,
};

use crate::{
    buffered::Buffered,
    connection::{Connection, PushError, PushErrorKind, Pushed, Registrar},
    deadline::Deadline,
    error::{Error, Result},
    id::{NodeId, RandomBits, WebSocketId},
    limits::Limits,
    message::Message,
    observer::{Observers, TopicEvent},
    pending::Pending,
    session::{InUse, SessionId},
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
pub(crate) struct Registry {
    /// The node that the IDs name.
    node: NodeId,
    limits: Arc<Limits>,
    buffered: Arc<Buffered>,
    by_id: [Mutex<Part>; PARTS],
    paths: Groups,
    topics: Groups,
    /// The topics of a connection, for its end.
    joined: Mutex<HashMap<WebSocketId, HashSet<Arc<str>>, RandomBits>>,
    observers: Observers,
}

/// Connections by their IDs. Each is in one of the two, from the moment when its application learns the ID.
#[derive(Default)]
struct Part {
    open: Group,
    opening: HashMap<WebSocketId, Arc<Pending>, RandomBits>,
}

/// What has an ID.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    Open(Arc<Connection>),
    Opening(Arc<Pending>),
}

/// A connection that is being opened. Dropping this before it is [registered](Registry::register) means that it will not be.
pub(crate) struct Announced<'a> {
    registry: &'a Registry,
    pending: Arc<Pending>,
    is_registered: bool,
}

/// Connections by a name.
#[derive(Default)]
struct Groups(Mutex<HashMap<Arc<str>, Group>>);

type Group = HashSet<Member, RandomBits>;

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
    pub(crate) fn new(
        node: NodeId,
        limits: Arc<Limits>,
        buffered: Arc<Buffered>,
        observers: Observers,
    ) -> Self {
        Self {
            node,
            limits,
            buffered,
            by_id: Default::default(),
            paths: Groups::default(),
            topics: Groups::default(),
            joined: Mutex::default(),
            observers,
        }
    }

    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// What has this ID.
    pub(crate) fn find(&self, id: &WebSocketId) -> Option<Found> {
        let part = self.part(id).locked();
        match part.open.get(id) {
            Some(member) => Some(Found::Open(member.0.clone())),
            None => part.opening.get(id).cloned().map(Found::Opening),
        }
    }

    /// The connection with this ID. If it is being opened, this waits for the answer, for as long as a handshake may take.
    ///
    /// # Errors
    /// [`Error::UnknownId`], and those of [`Pending::wait`].
    pub(crate) fn open(&self, id: &WebSocketId) -> Result<Arc<Connection>> {
        self.open_by(id, || Deadline::after(self.limits.handshake_timeout))
    }

    /// As [`open`](Self::open), but waits until this deadline, which is asked for only if there is something to wait for.
    pub(crate) fn open_by(
        &self,
        id: &WebSocketId,
        deadline: impl FnOnce() -> Deadline,
    ) -> Result<Arc<Connection>> {
        match self.find(id) {
            Some(Found::Open(connection)) => Ok(connection),
            Some(Found::Opening(pending)) => pending.wait(deadline()),
            None => Err(Error::UnknownId),
        }
    }

    /// Pushes to one connection; if it is being opened, this is queued behind the answer to its handshake.
    pub(crate) fn push(&self, id: &WebSocketId, message: Message) -> Result<Pushed, PushError> {
        match self.find(id) {
            Some(found) => found.push(message),
            None => Err(PushError { kind: PushErrorKind::Unknown, message }),
        }
    }

    /// Pushes to one connection, and waits until the kernel has the message.
    pub(crate) fn push_wait(
        &self,
        id: &WebSocketId,
        message: Message,
        timeout: Duration,
    ) -> Result<(), PushError> {
        match self.find(id) {
            Some(found) => found.push_wait(message, timeout),
            None => Err(PushError { kind: PushErrorKind::Unknown, message }),
        }
    }

    /// All that are open, as they are now, in no order.
    pub(crate) fn all(&self) -> Vec<Arc<Connection>> {
        self.by_id.iter().flat_map(|part| connections(&part.locked().open)).collect()
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
            Audience::All => self.by_id.iter().for_each(|part| first.look_at(&part.locked().open)),
            Audience::Path(path) => self.paths.with(path, |group| first.look_at(group)),
            Audience::Topic(topic) => self.topics.with(topic, |group| first.look_at(group)),
        }
        first.ids.into_sorted_vec()
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.iter().map(|part| part.locked().open.len()).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.iter().all(|part| part.locked().open.is_empty())
    }

    /// A path; where others have asked for it, too, it is theirs.
    pub(crate) fn path(&self, path: &str) -> Arc<str> {
        let paths = self.paths.0.locked();
        paths.get_key_value(path).map_or_else(|| path.into(), |(path, _)| path.clone())
    }

    /// A connection is being opened, by the thread that calls this: from now on it has an ID.
    pub(crate) fn announce(&self) -> Announced<'_> {
        let id = WebSocketId::random(self.node);
        let pending = Arc::new(Pending::new(id, self.limits.clone(), self.buffered.clone()));
        self.part(&id).locked().opening.insert(id, pending.clone());
        Announced { registry: self, pending, is_registered: false }
    }

    /// Makes a connection known by its path, too, and as one that is open, until it is over. It has taken over before what was
    /// pushed to it, and nobody who has waited for it is told before.
    pub(crate) fn register(&self, mut announced: Announced<'_>, connection: &Arc<Connection>) {
        self.observers.opened(connection); // before anyone can find it, and so end it
        announced.is_registered = true;
        announced.pending.open(connection, || {
            let id = connection.id();
            let mut part = self.part(id).locked();
            part.opening.remove(id);
            part.open.insert(Member(connection.clone()));
            drop(part);
            self.paths.insert(&connection.about().path, connection.clone(), || {});
        });
        if connection.is_finished() {
            self.forget(connection); // it has ended in between, when it was not everywhere yet
        }
    }

    /// Makes a connection a member of a topic. False: no open connection has this ID.
    pub(crate) fn join(&self, id: &WebSocketId, topic: &str) -> bool {
        let is_there = self.enter(id, topic);
        self.observers.tell();
        is_there
    }

    fn enter(&self, id: &WebSocketId, topic: &str) -> bool {
        let Some(connection) = self.find_open(id) else { return false };
        let name: Arc<str> = topic.into();
        let mut joined = self.joined.locked();
        joined.entry(*id).or_default().insert(name.clone());
        self.topics.insert(&name, connection, || {
            self.observers.queue(|| TopicEvent::Occupied(name.clone()));
        });
        // It may have ended in between: then nobody would take it out any more.
        let is_there = self.find_open(id).is_some();
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

    fn forget(&self, connection: &Connection) {
        let id = connection.id();
        self.part(id).locked().open.remove(id);
        self.paths.remove(&connection.about().path, id, || {});
        self.leave_all(id);
        self.observers.tell();
    }

    pub(crate) fn find_open(&self, id: &WebSocketId) -> Option<Arc<Connection>> {
        self.part(id).locked().open.get(id).map(|member| member.0.clone())
    }

    fn part(&self, id: &WebSocketId) -> &Mutex<Part> {
        &self.by_id[id.spread() % PARTS]
    }
}

impl Found {
    pub(crate) fn id(&self) -> &WebSocketId {
        match self {
            Self::Open(connection) => connection.id(),
            Self::Opening(pending) => pending.id(),
        }
    }

    /// The connection, if it is open or was.
    pub(crate) fn connection(&self) -> Option<&Arc<Connection>> {
        match self {
            Self::Open(connection) => Some(connection),
            Self::Opening(pending) => pending.get(),
        }
    }

    /// Pushes to the connection, and waits until the kernel has the message; and before, until the connection is open.
    pub(crate) fn push_wait(&self, message: Message, timeout: Duration) -> Result<(), PushError> {
        match self {
            Self::Open(connection) => connection.push_wait(message, timeout),
            Self::Opening(pending) => pending.push_wait(message, timeout),
        }
    }

    /// Pushes to the connection; if it is being opened, this is queued behind the answer to its handshake.
    pub(crate) fn push(&self, message: Message) -> Result<Pushed, PushError> {
        match self {
            Self::Open(connection) => connection.push(message, None),
            Self::Opening(pending) => pending.push(message),
        }
    }
}

impl Announced<'_> {
    pub(crate) fn id(&self) -> &WebSocketId {
        self.pending.id()
    }
}

/// Whatever has ended the handshake, the ID becomes unknown.
impl Drop for Announced<'_> {
    fn drop(&mut self) {
        if !self.is_registered {
            self.registry.part(self.id()).locked().opening.remove(self.id());
            self.pending.refuse();
        }
    }
}

impl InUse for Registry {
    fn session_ids(&self) -> Vec<SessionId> {
        let mut ids = Vec::new();
        for part in &self.by_id {
            let part = part.locked();
            ids.extend(part.open.iter().filter_map(|member| member.0.about().session_id.clone()));
        }
        ids
    }
}

/// At its end the ID becomes unknown, and it leaves all topics.
impl Registrar for Registry {
    fn unregister(&self, connection: &Arc<Connection>) {
        self.forget(connection);
        self.observers.closed(connection);
    }

    fn all(&self) -> Vec<Arc<Connection>> {
        self.all()
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
                self.ids.push(*id);
            } else if let Some(mut last) = self.ids.peek_mut()
                && *id < *last
            {
                *last = *id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::tests::connection_of;

    fn registry() -> Arc<Registry> {
        let buffered = Arc::new(Buffered::new(usize::MAX));
        Arc::new(Registry::new(NodeId::new(1), Arc::default(), buffered, Observers::default()))
    }

    #[test]
    fn a_connection_is_known_from_the_start_and_open_later() {
        let registry = registry();
        let announced = registry.announce();
        let id = *announced.id();
        let found = registry.find(&id).unwrap();
        assert!(found.connection().is_none() && registry.is_empty() && !registry.join(&id, "room"));
        assert_eq!(registry.push(&id, Message::from("x")).unwrap(), Pushed::Queued);
        let (connection, _client) = connection_of(id, registry.clone());
        registry.register(announced, &connection);
        assert!(registry.join(&id, "room"));
        assert!(Arc::ptr_eq(&registry.open(&id).unwrap(), &connection));
        assert!(found.connection().is_some_and(|found| Arc::ptr_eq(found, &connection)));
        assert_eq!(
            (
                registry.len(),
                registry.select(Audience::Path("/")).len(),
                registry.select(Audience::Topic("room")).len()
            ),
            (1, 1, 1)
        );
        connection.finish();
        assert!(
            registry.is_empty()
                && registry.select(Audience::Path("/")).is_empty()
                && registry.select(Audience::Topic("room")).is_empty()
        );
    }

    #[test]
    fn what_is_not_opened_is_not_known_any_more() {
        let registry = registry();
        let announced = registry.announce();
        let id = *announced.id();
        let found = registry.find(&id).unwrap();
        drop(announced);
        assert!(registry.find(&id).is_none());
        assert!(matches!(registry.open(&id), Err(Error::UnknownId)));
        assert!(matches!(found.push(Message::from("x")).unwrap_err().kind, PushErrorKind::Refused));
    }

    /// Others can find it, and so end it, while it is being registered.
    #[test]
    fn a_connection_that_ends_at_once_is_not_left_behind() {
        let registry = registry();
        let announced = registry.announce();
        let (connection, _client) = connection_of(*announced.id(), registry.clone());
        connection.finish();
        registry.register(announced, &connection);
        assert!(registry.is_empty() && registry.select(Audience::Path("/")).is_empty());
        assert!(registry.find(connection.id()).is_none());
    }
}

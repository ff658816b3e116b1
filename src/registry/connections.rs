//! The tables of the registry, and what it takes to be in them, and in none of them any more.

#![expect(clippy::mutable_key_type, reason = "a connection is found by its ID, which never changes")]

use std::{
    borrow::Borrow,
    collections::{HashMap, HashSet},
    fmt,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex},
    time::Duration,
};

use super::{
    census::Ended,
    found::{First, Found, Selected},
    groups,
    histories::Histories,
    joined::{Joined, check_name},
};
use crate::{
    audience::{Audience, Recipients},
    buffered::Buffered,
    connection::{Connection, PushError, PushErrorKind, Pushed, Registrar},
    deadline::Deadline,
    error::{Error, OverLimit, Result, ServerError},
    history::Rules,
    id::{NodeId, RandomBits, WebSocketId},
    info::TopicInfo,
    interned::{Interned, Name},
    limits::Limits,
    message::{CloseCode, Message, Payload},
    metrics::Metrics,
    observer::Observers,
    pending::Pending,
    session::{InUse, SessionId},
    sync::LockExt,
};

/// The IDs are in so many parts that threads seldom want the same one.
const PARTS: usize = 16;

/// All connections of a server that are not over.
pub(crate) struct Registry {
    /// The node that the IDs name.
    node: NodeId,
    pub(super) limits: Arc<Limits>,
    buffered: Arc<Buffered>,
    made: std::time::Instant,
    pub(super) by_id: [Mutex<Part>; PARTS],
    paths: Groups,
    /// Only those that end with a star: the others are paths.
    routes: Groups,
    pub(super) topics: Groups,
    pub(super) users: Groups,
    /// The topics of a connection, for its end. Whoever changes `topics` or `users` has locked this first.
    pub(super) joined: Mutex<Joined>,
    /// What topics remember.
    histories: Histories,
    user_agents: Interned,
    pub(super) observers: Observers,
    /// `None`: nobody can ask.
    metrics: Option<Arc<Metrics>>,
    /// The other nodes of its cluster.
    #[cfg(feature = "cluster")]
    pub(super) elsewhere: std::sync::OnceLock<Arc<dyn crate::elsewhere::Elsewhere>>,
    /// The certificates of the server.
    #[cfg(feature = "__tls")]
    pub(super) identities: std::sync::OnceLock<Vec<crate::tls::TlsIdentity>>,
}

/// Connections by their IDs. Each is in one of the two, from the moment when its application learns the ID.
#[derive(Default)]
pub(super) struct Part {
    open: Group,
    /// Only where somebody can ask for it.
    pub(super) ended: Ended,
    opening: HashMap<WebSocketId, Arc<Pending>, RandomBits>,
}

/// A connection that is being opened, and what it will belong to then. Dropping this before it is
/// [registered](Registry::register) means that it will not be.
#[derive(Debug)]
pub(crate) struct Announced {
    registry: Arc<Registry>,
    pub(super) pending: Arc<Pending>,
    pub(super) user: Option<Arc<str>>,
    pub(super) has_topics: bool,
    is_registered: bool,
}

/// Connections by a name.
type Groups = groups::Groups<Member, Pending, RandomBits>;

type Group = HashSet<Member, RandomBits>;

/// A connection, found by its ID.
pub(super) struct Member(pub(super) Arc<Connection>);

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

impl Part {
    /// Those that are open, as they are now, in no order.
    pub(super) fn open(&self) -> Vec<Arc<Connection>> {
        connections(&self.open)
    }
}

impl Registry {
    pub(crate) fn new(
        node: NodeId,
        limits: Arc<Limits>,
        buffered: Arc<Buffered>,
        observers: Observers,
        rules: Rules,
    ) -> Result<Self, ServerError> {
        Histories::check(&rules, &limits)?;
        let max_topics_bytes = limits.topics_bytes();
        let histories = Histories::new(rules, &limits);
        Ok(Self {
            node,
            limits,
            buffered,
            made: std::time::Instant::now(),
            by_id: Default::default(),
            paths: Groups::default(),
            routes: Groups::default(),
            topics: Groups::default(),
            users: Groups::default(),
            joined: Mutex::new(Joined::new(max_topics_bytes)),
            histories,
            user_agents: Interned::default(),
            observers,
            metrics: None,
            #[cfg(feature = "cluster")]
            elsewhere: std::sync::OnceLock::new(),
            #[cfg(feature = "__tls")]
            identities: std::sync::OnceLock::new(),
        })
    }

    /// What happens is counted there.
    pub(crate) fn with_metrics(self, metrics: Option<Arc<Metrics>>) -> Self {
        Self { metrics, ..self }
    }

    pub(crate) fn metrics(&self) -> Option<&Arc<Metrics>> {
        self.metrics.as_ref()
    }

    /// For how long it has been there.
    pub(crate) fn age(&self) -> Duration {
        self.made.elapsed()
    }

    /// What all connections of the server hold.
    pub(crate) fn buffered(&self) -> &Arc<Buffered> {
        &self.buffered
    }

    /// What topics remember.
    pub(crate) fn histories(&self) -> &Histories {
        &self.histories
    }

    /// Whether a topic may have this name.
    pub(crate) fn check_topic(&self, topic: &str) -> Result<(), OverLimit> {
        check_name(topic, &self.limits)
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

    /// Pushes to one connection, as [`Found::push_before`].
    pub(crate) fn push(&self, id: &WebSocketId, payload: Payload, more: bool) -> Result<Pushed, PushError> {
        let push = || match self.find(id) {
            Some(found) => found.push_before(payload, more),
            None => Err(PushError { kind: PushErrorKind::Unknown, message: payload.into_message() }),
        };
        match &self.metrics {
            Some(metrics) => metrics.push(push),
            None => push(),
        }
    }

    /// Pushes to one connection, and waits until the kernel has the message.
    pub(crate) fn push_wait(
        &self,
        id: &WebSocketId,
        message: Message,
        timeout: Duration,
    ) -> Result<(), PushError> {
        let result = match self.find(id) {
            Some(found) => found.push_wait(message, timeout),
            None => Err(PushError { kind: PushErrorKind::Unknown, message }),
        };
        if let Some(metrics) = &self.metrics {
            metrics.push_waited(&result);
        }
        result
    }

    /// Closes one connection; if it is being opened, as soon as it is open.
    ///
    /// # Errors
    /// [`Error::UnknownId`], and [`Error::Refused`] if it will not be opened.
    pub(crate) fn close(&self, id: &WebSocketId, code: CloseCode, text: &str) -> Result<()> {
        self.find(id).ok_or(Error::UnknownId)?.close(code, text)
    }

    /// All that are open, as they are now, in no order.
    pub(crate) fn all(&self) -> Vec<Arc<Connection>> {
        self.by_id.iter().flat_map(|part| part.locked().open()).collect()
    }

    /// Those that are meant, as they are now, in no order. Of a topic and of a user those that are being opened, too.
    pub(crate) fn select(&self, to: Recipients<'_>) -> Selected {
        let mut selected = Selected::default();
        let is_meant = |id: &WebSocketId| to.except.is_none_or(|except| except != id);
        self.look_at(to.audience, |group, expected| {
            let open = group.iter().filter(|member| is_meant(member.0.id()));
            selected.open.extend(open.map(|member| member.0.clone()));
            selected.opening.extend(expected.iter().filter(|pending| is_meant(pending.id())).cloned());
        });
        selected
    }

    /// The first `count` of those that are meant whose IDs come after this one, in the order of their IDs.
    pub(crate) fn first_ids(
        &self,
        audience: Audience<'_>,
        after: Option<&WebSocketId>,
        count: usize,
    ) -> Vec<WebSocketId> {
        let mut first = First::new(after, count);
        self.look_at(audience, |group, _| group.iter().for_each(|member| first.look_at(member.0.id())));
        first.into_sorted()
    }

    /// The first `count` topics whose names come after this one, in the order of their names. One that has been left meanwhile
    /// has no members.
    pub(crate) fn first_topics(&self, after: Option<&str>, count: usize) -> Vec<TopicInfo> {
        let after = after.map(Arc::<str>::from);
        let mut first = First::new(after.as_ref(), count);
        self.topics.each(|name, _| first.look_at(name));
        let names = first.into_sorted();
        let members = |name: &str| self.topics.with(name, |group, _| group.len());
        names.into_iter().map(|name| TopicInfo { members: members(&name), name }).collect()
    }

    fn look_at(&self, audience: Audience<'_>, mut look: impl FnMut(&Group, &[Arc<Pending>])) {
        match audience {
            Audience::All => self.by_id.iter().for_each(|part| look(&part.locked().open, &[])),
            Audience::Path(path) => self.paths.with(path, look),
            Audience::Route(route) if route.ends_with('*') => self.routes.with(route, look),
            Audience::Route(route) => self.paths.with(route, |group, expected| {
                // All that have asked for a path are served by the same route: by this one, or by one that ends with a star.
                if group.iter().next().is_some_and(|member| member.0.about().route.is_none()) {
                    look(group, expected);
                }
            }),
            Audience::Topic(topic) => self.topics.with(topic, look),
            Audience::User(user) => self.users.with(user, look),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.by_id.iter().map(|part| part.locked().open.len()).sum()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.iter().all(|part| part.locked().open.is_empty())
    }

    /// A path; where others have asked for it, too, it is theirs.
    pub(crate) fn path(&self, path: &str) -> Arc<str> {
        self.paths.name(path)
    }

    /// The name of a browser, or of what else has connected; most have the same as others.
    pub(crate) fn user_agent(&self, name: &str) -> Name {
        self.user_agents.name(name)
    }

    /// A connection is being opened, by the thread that calls this: from now on it has an ID.
    pub(crate) fn announce(self: &Arc<Self>) -> Announced {
        let id = WebSocketId::random(self.node);
        let pending = Arc::new(Pending::new(id, self.limits.clone(), self.buffered.clone()));
        self.part(&id).locked().opening.insert(id, pending.clone());
        Announced { registry: self.clone(), pending, user: None, has_topics: false, is_registered: false }
    }

    /// Makes a connection known by all that it belongs to, and as one that is open, until it is over. It has taken over before
    /// what was pushed to it, and nobody who has waited for it is told before.
    pub(crate) fn register(&self, mut announced: Announced, connection: &Arc<Connection>) {
        if let Some(metrics) = &self.metrics {
            metrics.opened(connection.about());
        }
        self.observers.opened(connection); // before anyone can find it, and so end it
        announced.is_registered = true;
        if announced.pending.is_numbered() {
            connection.set_numbered();
        }
        announced.pending.open(connection, || {
            // First of all: whoever finds it may end it, and that it has left is told after that it came.
            if announced.belongs() {
                self.arrive(&announced, connection);
            }
            let about = connection.about();
            self.paths.insert(&about.path, Member(connection.clone()), || {});
            if let Some(route) = &about.route {
                self.routes.insert(route.text(), Member(connection.clone()), || {});
            }
            let mut part = self.part(&about.id).locked();
            part.opening.remove(&about.id);
            part.open.insert(Member(connection.clone()));
        });
        if announced.belongs() {
            self.observers.tell();
        }
        if connection.is_finished() {
            self.forget(connection); // it has ended in between, when it was not everywhere yet
        }
    }

    fn forget(&self, connection: &Arc<Connection>) {
        let about = connection.about();
        let id = &about.id;
        let counts = self.metrics.as_ref().map(|_| connection.traffic().counts);
        let mut part = self.part(id).locked();
        if part.open.remove(id)
            && let Some(counts) = counts
        {
            part.ended.add(counts);
        }
        drop(part);
        self.paths.remove(&about.path, id, || {});
        if let Some(route) = &about.route {
            self.routes.remove(route.text(), id, || {});
        }
        self.depart(about);
        self.observers.tell();
    }

    pub(crate) fn find_open(&self, id: &WebSocketId) -> Option<Arc<Connection>> {
        self.part(id).locked().open.get(id).map(|member| member.0.clone())
    }

    fn part(&self, id: &WebSocketId) -> &Mutex<Part> {
        &self.by_id[id.spread() % PARTS]
    }
}

impl Announced {
    pub(crate) fn id(&self) -> &WebSocketId {
        self.pending.id()
    }

    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    pub(crate) fn user(&self) -> Option<&Arc<str>> {
        self.user.as_ref()
    }

    /// Whether it will belong to a user or a topic; most do not, and it shall cost them nothing.
    fn belongs(&self) -> bool {
        self.has_topics || self.user.is_some()
    }

    /// It will be one of this user's. What is for the user reaches it from now on, behind the answer to its handshake.
    pub(crate) fn set_user(&mut self, user: &str) {
        let Self { registry, pending, .. } = self;
        let user = registry.users.name(user);
        let _joined = registry.joined.locked();
        if let Some(before) = self.user.replace(user.clone()) {
            registry.users.unexpect(&before, pending);
            registry.user_changed(&before);
        }
        registry.users.expect(&user, pending.clone());
        registry.user_changed(&user);
    }

    /// Of what is queued for it under one key, only the newest is wanted.
    pub(crate) fn set_keeps_newest(&self, on: bool) {
        self.pending.set_keeps_newest(on);
    }

    /// It will be a member of this topic. What is for the topic reaches it from now on, behind the answer to its handshake.
    ///
    /// # Errors
    /// There is too much of something.
    pub(crate) fn join(&mut self, topic: &str) -> Result<(), OverLimit> {
        let Self { registry, pending, .. } = self;
        check_name(topic, &registry.limits)?;
        let name = registry.topics.name(topic);
        let mut joined = registry.joined.locked();
        if joined.add(pending.id(), &name, &registry.limits)? {
            registry.topics.expect(&name, pending.clone());
            registry.topic_changed(&name);
        }
        self.has_topics = true;
        Ok(())
    }

    /// It will not belong to anything.
    fn withdraw(&self) {
        let Self { registry, pending, .. } = self;
        let mut joined = registry.joined.locked();
        for topic in joined.remove_all(pending.id()) {
            registry.topics.unexpect(&topic, pending);
            registry.topic_changed(&topic);
        }
        if let Some(user) = &self.user {
            registry.users.unexpect(user, pending);
            registry.user_changed(user);
        }
    }
}

/// Whatever has ended the handshake, the ID becomes unknown, and nothing is left.
impl Drop for Announced {
    fn drop(&mut self) {
        if !self.is_registered {
            self.registry.part(self.id()).locked().opening.remove(self.id());
            if self.belongs() {
                self.withdraw();
            }
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
        if let Some(metrics) = &self.metrics {
            metrics.closed(&connection.closed_reason());
        }
        self.observers.closed(connection);
    }

    fn measured(&self, round_trip: Duration) {
        if let Some(metrics) = &self.metrics {
            metrics.measured(round_trip);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::tests::connection_of;

    fn registry() -> Arc<Registry> {
        let buffered = Arc::new(Buffered::new(usize::MAX));
        let (limits, observers) = (Arc::<Limits>::default(), Observers::default());
        Arc::new(Registry::new(NodeId::new(1), limits, buffered, observers, Rules::default()).unwrap())
    }

    #[test]
    fn a_connection_is_known_from_the_start_and_open_later() {
        let registry = registry();
        let announced = registry.announce();
        let id = *announced.id();
        let found = registry.find(&id).unwrap();
        assert!(found.connection().is_none() && registry.is_empty() && registry.join(&id, "room").is_err());
        assert_eq!(registry.push(&id, "x".into(), false).unwrap(), Pushed::Queued);
        let (connection, _client) = connection_of(id, registry.clone());
        registry.register(announced, &connection);
        registry.join(&id, "room").unwrap();
        assert!(Arc::ptr_eq(&registry.open(&id).unwrap(), &connection));
        assert!(found.connection().is_some_and(|found| Arc::ptr_eq(found, &connection)));
        let select = |audience: Audience<'_>| registry.select(audience.into()).open.len();
        assert_eq!((registry.len(), select(Audience::Path("/")), select(Audience::Topic("room"))), (1, 1, 1));
        connection.finish();
        assert!(
            registry.is_empty()
                && registry.select(Audience::Path("/").into()).open.is_empty()
                && registry.select(Audience::Topic("room").into()).open.is_empty()
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
        assert!(matches!(found.push("x".into()).unwrap_err().kind, PushErrorKind::Refused));
    }

    /// Others can find it, and so end it, while it is being registered.
    #[test]
    fn a_connection_that_ends_at_once_is_not_left_behind() {
        let registry = registry();
        let announced = registry.announce();
        let (connection, _client) = connection_of(*announced.id(), registry.clone());
        connection.finish();
        registry.register(announced, &connection);
        assert!(registry.is_empty() && registry.select(Audience::Path("/").into()).open.is_empty());
        assert!(registry.find(connection.id()).is_none());
    }
}

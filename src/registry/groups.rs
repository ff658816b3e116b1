//! Members by a name: of a path, a route, a topic, a user. A name may also have some that are not members yet: what is sent to
//! all reaches these, too, and becoming a member is one step, so that nothing reaches anyone twice, or is lost.
//!
//! `tests/interleavings.rs` tries this in every order.

use std::{
    borrow::Borrow,
    collections::{HashMap, HashSet},
    hash::{BuildHasher, Hash},
};

use crate::sync::{Arc, LockExt, Mutex};

/// Members `M`, and `P` that will be some.
pub(crate) struct Groups<M, P, S>(Mutex<Tables<M, P, S>>);

struct Tables<M, P, S> {
    members: HashMap<Arc<str>, HashSet<M, S>>,
    /// Mostly empty: only while a connection is being opened that has said what it will belong to.
    expected: HashMap<Arc<str>, Vec<Arc<P>>>,
}

impl<M, P, S> Default for Groups<M, P, S> {
    fn default() -> Self {
        Self(Mutex::new(Tables { members: HashMap::new(), expected: HashMap::new() }))
    }
}

impl<M: Hash + Eq, P, S: BuildHasher + Default> Groups<M, P, S> {
    /// A name; where it is known, the one that is.
    pub(crate) fn name(&self, name: &str) -> Arc<str> {
        let tables = self.0.locked();
        tables.members.get_key_value(name).map_or_else(|| name.into(), |(name, _)| name.clone())
    }

    /// Calls `is_first`, under the lock, if the name had no member.
    pub(crate) fn insert(&self, name: &Arc<str>, member: M, is_first: impl FnOnce()) {
        self.0.locked().insert(name, member, is_first);
    }

    /// Calls `was_last`, under the lock, if the name has no member any more.
    pub(crate) fn remove<Q: Hash + Eq + ?Sized>(&self, name: &str, id: &Q, was_last: impl FnOnce())
    where
        M: Borrow<Q>,
    {
        let members = &mut self.0.locked().members;
        if let Some(group) = members.get_mut(name)
            && group.remove(id)
            && group.is_empty()
        {
            members.remove(name);
            was_last();
        }
    }

    /// It will be a member.
    pub(crate) fn expect(&self, name: &Arc<str>, pending: Arc<P>) {
        self.0.locked().expected.entry(name.clone()).or_default().push(pending);
    }

    /// It will not be a member.
    pub(crate) fn unexpect(&self, name: &str, pending: &Arc<P>) {
        self.0.locked().unexpect(name, pending);
    }

    /// It is a member now, if it was [expected](Self::expect).
    pub(crate) fn arrive(&self, name: &Arc<str>, pending: &Arc<P>, member: M, is_first: impl FnOnce()) {
        let mut tables = self.0.locked();
        if tables.unexpect(name, pending) {
            tables.insert(name, member, is_first);
        }
    }

    /// Looks at those of a name, under the lock: the members, and those that will be some.
    pub(crate) fn with<R>(&self, name: &str, look: impl FnOnce(&HashSet<M, S>, &[Arc<P>]) -> R) -> R {
        let tables = self.0.locked();
        let expected = tables.expected.get(name).map(Vec::as_slice).unwrap_or_default();
        match tables.members.get(name) {
            Some(group) => look(group, expected),
            None => look(&HashSet::default(), expected),
        }
    }

    /// Whether a name has members, or will have some.
    #[cfg(feature = "cluster")]
    pub(crate) fn has(&self, name: &str) -> bool {
        let tables = self.0.locked();
        tables.members.contains_key(name) || tables.expected.contains_key(name)
    }

    /// The names that have members, or will have some.
    #[cfg(feature = "cluster")]
    pub(crate) fn names(&self) -> HashSet<Arc<str>> {
        let tables = self.0.locked();
        tables.members.keys().chain(tables.expected.keys()).cloned().collect()
    }

    /// How many names have members.
    #[cfg_attr(not(feature = "manage"), allow(dead_code, reason = "nobody can ask"))]
    pub(crate) fn len(&self) -> usize {
        self.0.locked().members.len()
    }

    /// Looks at each name that has members, under the lock.
    pub(crate) fn each(&self, mut look: impl FnMut(&Arc<str>, usize)) {
        self.0.locked().members.iter().for_each(|(name, group)| look(name, group.len()));
    }
}

impl<M: Hash + Eq, P, S: BuildHasher + Default> Tables<M, P, S> {
    fn insert(&mut self, name: &Arc<str>, member: M, is_first: impl FnOnce()) {
        let group = self.members.entry(name.clone()).or_default();
        if group.is_empty() {
            is_first();
        }
        group.insert(member);
    }

    /// False: it was not expected.
    fn unexpect(&mut self, name: &str, pending: &Arc<P>) -> bool {
        let Some(expected) = self.expected.get_mut(name) else { return false };
        let place = expected.iter().position(|other| Arc::ptr_eq(other, pending));
        if let Some(place) = place {
            expected.remove(place);
        }
        if expected.is_empty() {
            self.expected.remove(name);
        }
        place.is_some()
    }
}

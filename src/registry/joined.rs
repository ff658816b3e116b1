//! The topics of each connection, and what all of them take: an application may join what its clients name, so each of these
//! has a bound, and so has the sum.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Bound,
    sync::Arc,
};

use crate::{
    error::OverLimit,
    id::{RandomBits, WebSocketId},
    info::PresentUser,
    limits::Limits,
};

/// What one membership takes beside the name, about: its places in the tables, by the connection and by the topic.
const MEMBERSHIP: usize = 128;

/// The topics of those that have joined some.
pub(super) struct Joined {
    topics: HashMap<WebSocketId, HashMap<Arc<str>, Follows>, RandomBits>,
    /// The users who are in a topic, each with the number of connections. They take no more than the memberships that they are from.
    present: HashMap<Arc<str>, BTreeMap<Arc<str>, usize>>,
    bytes: usize,
    max_bytes: usize,
}

/// Since it is a member, it has had each publication with its position.
type Follows = bool;

/// What a membership counts for: the name as well, although it is kept once, so that one leaves with what it came with.
fn size(name: &str) -> usize {
    MEMBERSHIP + name.len()
}

/// Whether a topic may have this name.
pub(super) fn check_name(name: &str, limits: &Limits) -> Result<(), OverLimit> {
    if (1..=limits.max_topic_name).contains(&name.len()) { Ok(()) } else { Err(OverLimit::TopicName) }
}

impl Joined {
    pub(super) fn new(max_bytes: usize) -> Self {
        Self { topics: HashMap::default(), present: HashMap::new(), bytes: 0, max_bytes }
    }

    /// False: it has this topic already.
    ///
    /// # Errors
    /// There is no room for one more. Nothing has changed.
    pub(super) fn add(
        &mut self,
        id: &WebSocketId,
        name: &Arc<str>,
        limits: &Limits,
    ) -> Result<bool, OverLimit> {
        let topics = self.topics.get(id);
        if topics.is_some_and(|topics| topics.contains_key(name)) {
            return Ok(false);
        }
        if topics.map_or(0, HashMap::len) >= limits.max_topics {
            return Err(OverLimit::Topics);
        }
        let bytes = self.bytes.saturating_add(size(name));
        if bytes > self.max_bytes {
            return Err(OverLimit::AllTopics);
        }
        self.bytes = bytes;
        Ok(self.topics.entry(*id).or_default().insert(name.clone(), false).is_none())
    }

    /// False: it has not joined this topic.
    pub(super) fn remove(&mut self, id: &WebSocketId, topic: &str) -> bool {
        let Some(topics) = self.topics.get_mut(id) else { return false };
        let was_there = topics.remove(topic).is_some();
        if topics.is_empty() {
            self.topics.remove(id);
        }
        if was_there {
            self.bytes -= size(topic);
        }
        was_there
    }

    /// Removes all topics of a connection, and returns them.
    pub(super) fn remove_all(&mut self, id: &WebSocketId) -> impl Iterator<Item = Arc<str>> + use<> {
        let topics = self.topics.remove(id);
        self.bytes -= topics.iter().flatten().map(|(topic, _)| size(topic)).sum::<usize>();
        topics.into_iter().flatten().map(|(topic, _)| topic)
    }

    /// From now on it has each publication of a topic that it has joined, with the position.
    pub(super) fn follow(&mut self, id: &WebSocketId, topic: &str) {
        if let Some(follows) = self.topics.get_mut(id).and_then(|topics| topics.get_mut(topic)) {
            *follows = true;
        }
    }

    /// Whether it [does](Self::follow).
    pub(super) fn follows(&self, id: &WebSocketId, topic: &str) -> bool {
        self.topics.get(id).and_then(|topics| topics.get(topic)).is_some_and(|follows| *follows)
    }

    /// A connection of this user is in the topic. True: it is the first one.
    pub(super) fn appear(&mut self, topic: &Arc<str>, user: &Arc<str>) -> bool {
        let users = self.present.entry(topic.clone()).or_default();
        let count = users.entry(user.clone()).or_default();
        *count += 1;
        *count == 1
    }

    /// A connection of this user is in the topic no more. True: it was the last one.
    pub(super) fn disappear(&mut self, topic: &str, user: &str) -> bool {
        let Some(users) = self.present.get_mut(topic) else { return false };
        let Some(count) = users.get_mut(user) else { return false };
        *count -= 1;
        if *count > 0 {
            return false;
        }
        users.remove(user);
        if users.is_empty() {
            self.present.remove(topic);
        }
        true
    }

    /// The first `count` users in a topic whose names come after this one.
    pub(super) fn present(&self, topic: &str, after: Option<&str>, count: usize) -> Vec<PresentUser> {
        let Some(users) = self.present.get(topic) else { return Vec::new() };
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        let users = users.range::<str, _>((after, Bound::Unbounded)).take(count);
        users.map(|(user, &connections)| PresentUser { user: user.clone(), connections }).collect()
    }

    /// The topics of a connection, in the order of their names.
    pub(super) fn of(&self, id: &WebSocketId) -> Vec<Arc<str>> {
        let mut topics: Vec<_> = self.topics.get(id).into_iter().flat_map(HashMap::keys).cloned().collect();
        topics.sort_unstable();
        topics
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;

    #[test]
    fn what_joined_is_counted_until_it_leaves() {
        let limits = Limits { max_topics: 2, ..Limits::default() };
        let mut joined = Joined::new(3 * size("a"));
        let [one, two] = [(); 2].map(|()| WebSocketId::random(NodeId::new(1)));
        let [a, b, c] = ["a", "b", "c"].map(Arc::<str>::from);
        assert_eq!(joined.add(&one, &b, &limits), Ok(true));
        assert_eq!(joined.add(&one, &a, &limits), Ok(true));
        assert_eq!(joined.add(&one, &a, &limits), Ok(false), "also where there is no room");
        assert_eq!(joined.add(&one, &c, &limits), Err(OverLimit::Topics));
        assert_eq!(joined.add(&two, &c, &limits), Ok(true));
        assert_eq!(joined.add(&two, &a, &limits), Err(OverLimit::AllTopics));
        assert_eq!(joined.of(&one), [a.clone(), b.clone()]);
        assert!(!joined.remove(&two, "a") && joined.remove(&two, "c") && !joined.remove(&two, "c"));
        assert_eq!(joined.add(&two, &a, &limits), Ok(true));
        assert_eq!((joined.remove_all(&one).count(), joined.remove_all(&one).count()), (2, 0));
        assert_eq!(joined.remove_all(&two).collect::<Vec<_>>(), [a]);
        assert_eq!((joined.bytes, joined.topics.len()), (0, 0));
    }

    #[test]
    fn a_name_has_some_bytes_and_not_too_many() {
        let limits = Limits::default();
        let check = |length| check_name(&"x".repeat(length), &limits).is_ok();
        assert_eq!(
            [0, 1, limits.max_topic_name, limits.max_topic_name + 1].map(check),
            [false, true, true, false]
        );
    }
}

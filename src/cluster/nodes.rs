//! The nodes that there are: each has a lease, which is a key with a time to live. What is known of them here is some seconds old at
//! most.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{envelope::Sender, pace::LONGEST};
use crate::{id::NodeId, sync::LockExt};

/// So long, or as long as a lease, others may need until they are back when Redis is.
pub(super) const RETURN: Duration = LONGEST.saturating_add(Duration::from_secs(1));

/// A node without a lease that has said that it is there is taken for that for so long.
const SAID: Duration = Duration::from_secs(1);

/// Instead of a lease, where a node has left: that is known, and not only that it is not there.
pub(super) const HAS_LEFT: &str = "left";

/// Before the fingerprint of a key, behind the software: for versions that do not know it, it is a part of that.
const KEY: &str = " key=";

/// What the key of a lease holds: which start of the node it is, for how long it is renewed, its software, and the fingerprint of the
/// key that it signs sessions with, if it has sessions and is of a version that tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lease {
    pub(super) start: u64,
    pub(super) duration: Duration,
    pub(super) software: String,
    pub(super) key: Option<u32>,
}

impl Lease {
    pub(super) fn to_text(&self) -> String {
        let key = self.key.map_or_else(String::new, |key| format!("{KEY}{key:08x}"));
        format!("{:016x} {} {}{key}", self.start, self.duration.as_millis(), self.software)
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ' ');
        let start = u64::from_str_radix(parts.next()?, 16).ok()?;
        let duration = Duration::from_millis(parts.next()?.parse().ok()?);
        let rest = parts.next()?;
        let (software, key) = match rest.split_once(KEY) {
            Some((software, key)) => (software, u32::from_str_radix(key, 16).ok()),
            None => (rest, None),
        };
        Some(Self { start, duration, software: software.to_owned(), key })
    }

    /// Warns if a node that has these keys does not take what this one signs. Without any, it has no sessions.
    pub(super) fn compare_keys(&self, node: NodeId, own: &[u32]) {
        if !own.is_empty() && self.key.is_some_and(|key| !own.contains(&key)) {
            log::warn!(
                "the cluster: sessions that node {node} has made are not taken here, as it signs them with a key that this node does not \
                 have: give all nodes the same session keys (session_keys, --session-key-file), and start them again"
            );
        }
    }
}

#[derive(Debug)]
struct Known {
    lease: Lease,
    /// When it was seen.
    at: Instant,
    /// When it said itself that it is there.
    said: Option<Instant>,
}

/// The other nodes, as they were seen last.
#[derive(Debug)]
pub(super) struct Nodes {
    me: NodeId,
    /// That of this node.
    lease: Duration,
    known: Mutex<HashMap<NodeId, Known>>,
    /// This node's own lease could be renewed lately. If not, Redis does not take what is written, and a lease that is missing says
    /// nothing.
    renews: AtomicBool,
    /// It was looked who is there, by the connection to Redis that there is.
    has_looked: AtomicBool,
    trust: Mutex<Trust>,
}

/// Whether a lease that is missing says that its node is gone. It does not where Redis has forgotten everything, or nobody could reach
/// it for a while: then those who are there need some time to say so.
#[derive(Debug, Default)]
struct Trust {
    /// When this node's own lease was renewed.
    renewed: Option<Instant>,
    doubts_until: Option<Instant>,
}

impl Nodes {
    pub(super) fn new(me: NodeId, lease: Duration) -> Self {
        let (known, trust) = (Mutex::default(), Mutex::default());
        let (renews, has_looked) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { me, lease, known, renews, has_looked, trust }
    }

    /// Whether it has a lease, as far as is known.
    pub(super) fn has(&self, node: NodeId) -> bool {
        let known = self.known.locked();
        let Some(known) = known.get(&node) else { return false };
        known.at.elapsed() < known.lease.duration || !self.is_sure()
    }

    /// Whether a lease that is missing says anything.
    fn is_sure(&self) -> bool {
        self.renews() && self.trust.locked().is_sure(self.lease)
    }

    pub(super) fn renews(&self) -> bool {
        self.renews.load(Relaxed)
    }

    /// This node's lease was renewed, or could not be. Returns whether it was the last time.
    pub(super) fn set_renews(&self, on: bool) -> bool {
        if on {
            let mut trust = self.trust.locked();
            if trust.is_late(self.lease) {
                trust.doubt(self.lease.max(RETURN));
            }
            trust.renewed = Some(Instant::now());
        }
        self.renews.swap(on, Relaxed)
    }

    pub(super) fn has_looked(&self) -> bool {
        self.has_looked.load(Relaxed)
    }

    pub(super) fn set_looked(&self, on: bool) {
        self.has_looked.store(on, Relaxed);
    }

    /// Whether a node without a lease is gone. `remembers`: Redis has forgotten nothing for a while.
    pub(super) fn believes(&self, remembers: bool) -> bool {
        if !remembers {
            self.doubt(self.lease / 2); // until it is looked again
        }
        self.is_sure()
    }

    /// For so long at least a lease that is missing says nothing.
    pub(super) fn doubt(&self, time: Duration) {
        self.trust.locked().doubt(time);
    }

    /// How long ago this node's own lease was renewed.
    pub(super) fn renewed(&self) -> Option<Duration> {
        self.trust.locked().renewed.map(|at| at.elapsed())
    }

    /// A lease was seen. True: of a node, or a start of it, that was not known.
    pub(super) fn seen(&self, node: NodeId, lease: Lease) -> bool {
        if node == self.me {
            return false;
        }
        let mut known = self.known.locked();
        let before = known.get(&node).filter(|before| before.lease.start == lease.start);
        let (is_new, said) = (before.is_none(), before.and_then(|before| before.said));
        known.insert(node, Known { lease, at: Instant::now(), said });
        is_new
    }

    /// It has said that it is there.
    pub(super) fn said(&self, node: NodeId) {
        if let Some(known) = self.known.locked().get_mut(&node) {
            known.said = Some(Instant::now());
        }
    }

    /// Whether it is gone, for whom there is no lease but `left`, or none. `believes`: that says something.
    pub(super) fn is_gone(&self, node: NodeId, left: Option<&str>, believes: bool) -> bool {
        (left == Some(HAS_LEFT) || believes) && !self.has_said(node)
    }

    /// Whether it said just now that it is there. Who cannot have a lease does so again and again.
    fn has_said(&self, node: NodeId) -> bool {
        let said = self.known.locked().get(&node).and_then(|known| known.said);
        said.is_some_and(|said| said.elapsed() < SAID)
    }

    /// It has none. True: it was known.
    pub(super) fn gone(&self, node: NodeId) -> bool {
        self.known.locked().remove(&node).is_some()
    }

    /// This start of it has ended.
    pub(super) fn left(&self, Sender { node, start }: Sender) -> bool {
        let mut known = self.known.locked();
        let node = NodeId::new(node);
        known.get(&node).is_some_and(|known| known.lease.start == start) && known.remove(&node).is_some()
    }

    /// The others, in the order of their numbers.
    pub(super) fn others(&self) -> Vec<NodeId> {
        let mut nodes: Vec<_> = self.known.locked().keys().copied().collect();
        nodes.sort_unstable_by_key(|node| node.get());
        nodes
    }

    /// The same, with their software.
    pub(super) fn software(&self) -> Vec<(NodeId, String)> {
        let known = self.known.locked();
        let mut nodes: Vec<_> =
            known.iter().map(|(node, known)| (*node, known.lease.software.clone())).collect();
        nodes.sort_unstable_by_key(|(node, _)| node.get());
        nodes
    }
}

impl Trust {
    /// This node's own lease was not renewed for so long that those of others may be over.
    fn is_late(&self, lease: Duration) -> bool {
        self.renewed.is_some_and(|renewed| renewed.elapsed() > lease / 2)
    }

    fn is_sure(&self, lease: Duration) -> bool {
        !self.is_late(lease) && self.doubts_until.is_none_or(|until| until <= Instant::now())
    }

    fn doubt(&mut self, time: Duration) {
        self.doubts_until = self.doubts_until.max(Some(Instant::now() + time));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(start: u64, millis: u64) -> Lease {
        Lease {
            start,
            duration: Duration::from_millis(millis),
            software: "switchboard 1 and more".into(),
            key: None,
        }
    }

    #[test]
    fn a_lease_is_a_text_and_back() {
        let one = lease(u64::MAX - 3, 10_000);
        assert_eq!(Lease::parse(&one.to_text()), Some(one.clone()));
        let with_key = Lease { key: Some(7), ..one.clone() };
        assert_eq!(Lease::parse(&with_key.to_text()), Some(with_key.clone()));
        let of_another_version = format!("{}x and=more", with_key.to_text());
        assert_eq!(Lease::parse(&of_another_version), Some(one));
        for wrong in ["", "1", "1 2", "x 2 y", "1 x y"] {
            assert_eq!(Lease::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_node_is_there_until_its_lease_is_over() {
        let nodes = Nodes::new(NodeId::new(1), Duration::from_secs(1));
        nodes.set_renews(true);
        assert!(
            nodes.seen(NodeId::new(2), lease(5, 60_000)) && !nodes.seen(NodeId::new(2), lease(5, 60_000))
        );
        assert!(nodes.seen(NodeId::new(2), lease(6, 60_000)), "another start");
        assert!(nodes.seen(NodeId::new(3), lease(5, 0)) && !nodes.seen(NodeId::new(1), lease(1, 60_000)));
        assert!(nodes.has(NodeId::new(2)) && !nodes.has(NodeId::new(3)) && !nodes.has(NodeId::new(1)));
        nodes.set_renews(false);
        assert!(nodes.has(NodeId::new(3)), "nobody can renew");
        assert!(!nodes.left(Sender { node: 2, start: 5 }) && nodes.left(Sender { node: 2, start: 6 }));
        assert_eq!(nodes.others(), [NodeId::new(3)]);
        assert!(nodes.gone(NodeId::new(3)) && !nodes.gone(NodeId::new(3)));
    }

    #[test]
    fn who_says_that_it_is_there_is_not_gone() {
        let (nodes, node) = (Nodes::new(NodeId::new(1), Duration::from_secs(60)), NodeId::new(2));
        nodes.seen(node, lease(5, 60_000));
        assert!(nodes.is_gone(node, Some(HAS_LEFT), false) && nodes.is_gone(node, None, true));
        assert!(!nodes.is_gone(node, None, false), "that says nothing");
        nodes.said(node);
        assert!(!nodes.is_gone(node, Some(HAS_LEFT), true) && !nodes.is_gone(node, None, true));
    }

    #[test]
    fn what_redis_does_not_have_says_nothing_when_it_has_forgotten_or_was_away() {
        let nodes = || {
            let nodes = Nodes::new(NodeId::new(1), Duration::from_secs(60));
            assert!(!nodes.believes(true), "nobody can renew");
            nodes.set_renews(true);
            assert!(nodes.believes(true) && nodes.believes(true));
            nodes
        };
        let forgotten = nodes();
        assert!(!forgotten.believes(false) && !forgotten.believes(true));
        let away = nodes();
        away.trust.locked().renewed = Instant::now().checked_sub(Duration::from_secs(31));
        assert!(!away.believes(true), "nobody could renew lately");
        away.set_renews(true);
        assert!(!away.believes(true), "the others have to do so, too");
    }
}

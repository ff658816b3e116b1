//! The names of keys and channels in Redis. All begin with the cluster's prefix.

use crate::{audience::Audience, elsewhere::Share, id::NodeId};

/// The names of one cluster.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The channel of a node.
    pub(super) fn node(&self, node: NodeId) -> String {
        format!("{}node:{:08x}", self.prefix, node.get())
    }

    /// The channel of a start of it: who listens there has not ended.
    pub(super) fn start(&self, node: NodeId, start: u64) -> String {
        format!("{}{start:016x}", self.starts(node))
    }

    /// What those of all its starts begin with.
    pub(super) fn starts(&self, node: NodeId) -> String {
        format!("{}start:{:08x}:", self.prefix, node.get())
    }

    /// The lease of a node: a key with a time to live.
    pub(super) fn lease(&self, node: NodeId) -> String {
        format!("{}lease:{:08x}", self.prefix, node.get())
    }

    /// The nodes that there may be: a set of their numbers, some of which may have no lease any more.
    pub(super) fn nodes(&self) -> String {
        format!("{}nodes", self.prefix)
    }

    /// A key that is there for as long as Redis forgets nothing.
    pub(super) fn memory(&self) -> String {
        format!("{}memory", self.prefix)
    }

    /// One that is there for a while after the first one was made: some nodes that are there may not have said so yet.
    pub(super) fn young(&self) -> String {
        format!("{}young", self.prefix)
    }

    /// The channel that all nodes listen to.
    pub(super) fn all(&self) -> String {
        format!("{}all", self.prefix)
    }

    pub(super) fn share(&self, share: &Share) -> String {
        match share {
            Share::Topic(topic) => self.topic(topic),
            Share::User(user) => self.user(user),
        }
    }

    pub(super) fn topic(&self, topic: &str) -> String {
        format!("{}topic:{topic}", self.prefix)
    }

    /// What a topic remembers: the keys of its state, of its publications, and of their idempotency keys.
    pub(super) fn history(&self, topic: &str) -> [String; 3] {
        ["history", "publications", "idempotency"].map(|kind| format!("{}{kind}:{topic}", self.prefix))
    }

    fn user(&self, user: &str) -> String {
        format!("{}user:{user}", self.prefix)
    }

    /// Where those listen who may have some of these.
    pub(super) fn of(&self, audience: Audience<'_>) -> String {
        match audience {
            Audience::Topic(topic) => self.topic(topic),
            Audience::User(user) => self.user(user),
            Audience::All | Audience::Path(_) | Audience::Route(_) => self.all(),
        }
    }

    /// The share that a channel is for.
    pub(super) fn share_of(&self, channel: &str) -> Option<Share> {
        let (kind, name) = channel.strip_prefix(&self.prefix)?.split_once(':')?;
        match kind {
            "topic" => Some(Share::Topic(name.into())),
            "user" => Some(Share::User(name.into())),
            _ => None,
        }
    }
}

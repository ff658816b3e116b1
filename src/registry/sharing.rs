//! What others have to know of the topics and users that have connections here: the other nodes of a cluster, if there is one.

#[cfg(feature = "cluster")]
use std::sync::Arc;

use super::connections::{Announced, Registry};
#[cfg(feature = "cluster")]
use crate::{
    elsewhere::{Elsewhere, Share},
    error::Error,
};
use crate::{
    error::Result,
    history::{History, Log, Since},
};

#[cfg(feature = "cluster")]
impl Registry {
    /// The server is a node of a cluster from now on.
    pub(crate) fn set_elsewhere(&self, elsewhere: Arc<dyn Elsewhere>) {
        let _ = self.elsewhere.set(elsewhere); // there is one cluster
    }

    pub(crate) fn elsewhere(&self) -> Option<&Arc<dyn Elsewhere>> {
        self.elsewhere.get()
    }

    /// Whether somebody is in it, or will be.
    pub(crate) fn has_share(&self, share: &Share) -> bool {
        match share {
            Share::Topic(topic) => self.topics.has(topic),
            Share::User(user) => self.users.has(user),
        }
    }

    /// All topics and users that somebody is in, or will be.
    pub(crate) fn shares(&self) -> Vec<Share> {
        let mut all: Vec<_> = self.topics.names().into_iter().map(Share::Topic).collect();
        all.extend(self.users.names().into_iter().map(Share::User));
        all
    }
}

impl Registry {
    /// A topic has its first member, or has lost its last one.
    pub(super) fn topic_changed(&self, topic: &str) {
        #[cfg(feature = "cluster")]
        if let Some(elsewhere) = self.elsewhere() {
            elsewhere.mark(Share::Topic(topic.into()));
        }
        let _ = topic;
    }

    /// A user has the first connection, or has lost the last one.
    pub(super) fn user_changed(&self, user: &str) {
        #[cfg(feature = "cluster")]
        if let Some(elsewhere) = self.elsewhere() {
            elsewhere.mark(Share::User(user.into()));
        }
        let _ = user;
    }

    /// Uses, alone, what a topic remembers, for somebody who has seen this of it. In a cluster that is a copy of what all have.
    ///
    /// # Errors
    /// In a cluster [`Unreachable`](crate::Error::Unreachable): nobody knows whether it is a whole copy.
    /// [`MustNotWait`](crate::Error::MustNotWait).
    pub(super) fn with_log<R>(
        &self,
        topic: &str,
        history: History,
        since: &Since,
        use_log: impl FnOnce(&mut Log) -> R,
    ) -> Result<R> {
        #[cfg(feature = "cluster")]
        if let Some(elsewhere) = self.elsewhere() {
            let (mut use_log, mut result) = (Some(use_log), None);
            elsewhere.with_log(topic, history, since, &mut |log| {
                result = use_log.take().map(|use_log| use_log(log));
            })?;
            return result.ok_or(Error::Unreachable);
        }
        let _ = since;
        Ok(self.histories().with(topic, history, None, use_log))
    }

    /// Waits, if this thread may, until what is published to the topic elsewhere arrives here, or cannot.
    pub(super) fn settle_topic(&self, topic: &str) {
        #[cfg(feature = "cluster")]
        if let Some(elsewhere) = self.elsewhere() {
            elsewhere.settle(&[Share::Topic(topic.into())]);
        }
        let _ = topic;
    }
}

impl Announced {
    /// Waits until what is sent elsewhere to what it will belong to arrives here, or cannot.
    pub(crate) fn settle(&self) {
        #[cfg(feature = "cluster")]
        if let Some(elsewhere) = self.registry().elsewhere() {
            let topics = if self.has_topics { self.registry().topics_of(self.id()) } else { Vec::new() };
            let user = self.user().cloned().map(Share::User);
            let shares: Vec<_> = topics.into_iter().map(Share::Topic).chain(user).collect();
            elsewhere.settle(&shares);
        }
    }
}

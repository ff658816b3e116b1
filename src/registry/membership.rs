//! What connections belong to: the topics that they join and leave, and their user; and who is there.

use std::sync::Arc;

use super::{
    connections::{Announced, Member, Registry},
    found::Found,
    joined::{Joined, check_name},
};
use crate::{
    connection::{About, Connection},
    error::{Error, Result},
    id::WebSocketId,
    info::PresentUser,
    observer::HubEvent,
    sync::LockExt,
};

impl Registry {
    /// What it was to belong to, it belongs to.
    pub(super) fn arrive(&self, announced: &Announced, connection: &Arc<Connection>) {
        let Announced { pending, user, .. } = announced;
        let mut joined = self.joined.locked();
        if let Some(user) = user {
            let is_first = || self.observers.queue(|| HubEvent::UserOnline(user.clone()));
            self.users.arrive(user, pending, Member(connection.clone()), is_first);
        }
        let topics = if announced.has_topics { joined.of(pending.id()) } else { Vec::new() };
        for topic in topics {
            let is_first = || self.observers.queue(|| HubEvent::TopicOccupied(topic.clone()));
            self.topics.arrive(&topic, pending, Member(connection.clone()), is_first);
            self.appear(&mut joined, &topic, user.as_ref());
        }
    }

    /// It belongs to nothing any more.
    pub(super) fn depart(&self, about: &About) {
        let mut joined = self.joined.locked();
        self.leave_all(&mut joined, &about.id);
        if let Some(user) = about.user() {
            self.users.remove(user, &about.id, || {
                self.observers.queue(|| HubEvent::UserOffline(user.clone()));
                self.user_changed(user);
            });
        }
    }

    /// Makes a connection a member of a topic.
    ///
    /// # Errors
    /// [`Error::UnknownId`]: no open connection has this ID. [`Error::OverLimit`].
    pub(crate) fn join(&self, id: &WebSocketId, topic: &str) -> Result<()> {
        let result = self.enter(id, topic);
        self.observers.tell();
        if result.is_ok() {
            self.settle_topic(topic);
        }
        result
    }

    /// As [`join`](Self::join), without telling the observers.
    pub(super) fn enter(&self, id: &WebSocketId, topic: &str) -> Result<()> {
        check_name(topic, &self.limits)?;
        let connection = self.find_open(id).ok_or(Error::UnknownId)?;
        let name = self.topics.name(topic);
        let user = connection.about().user().cloned();
        let mut joined = self.joined.locked();
        let is_new = joined.add(id, &name, &self.limits)?;
        self.topics.insert(&name, Member(connection), || {
            self.observers.queue(|| HubEvent::TopicOccupied(name.clone()));
            self.topic_changed(&name);
        });
        if is_new {
            self.appear(&mut joined, &name, user.as_ref());
        }
        // It may have ended in between: then nobody would take it out any more.
        if self.find_open(id).is_some() {
            return Ok(());
        }
        self.leave_all(&mut joined, id);
        Err(Error::UnknownId)
    }

    /// Removes a connection from a topic. False: no connection has this ID.
    pub(crate) fn leave(&self, id: &WebSocketId, topic: &str) -> bool {
        let is_known = self.exit(id, topic);
        self.observers.tell();
        is_known
    }

    /// As [`leave`](Self::leave), without telling the observers.
    pub(super) fn exit(&self, id: &WebSocketId, topic: &str) -> bool {
        let mut joined = self.joined.locked();
        let found = self.find(id);
        if joined.remove(id, topic) {
            self.leave_topic(&mut joined, topic, id);
            if let Some(Found::Opening(pending)) = &found {
                self.topics.unexpect(topic, pending);
                self.topic_changed(topic);
            }
        }
        found.is_some()
    }

    /// The first `count` users in a topic whose names come after this one, in the order of their names.
    pub(crate) fn first_present(&self, topic: &str, after: Option<&str>, count: usize) -> Vec<PresentUser> {
        self.joined.locked().present(topic, after, count)
    }

    /// A member of a topic is there, if it has a user.
    fn appear(&self, joined: &mut Joined, topic: &Arc<str>, user: Option<&Arc<str>>) {
        if let Some(user) = user
            && joined.appear(topic, user)
        {
            self.observers.queue(|| HubEvent::UserJoined(topic.clone(), user.clone()));
        }
    }

    /// The topics of a connection, in the order of their names.
    pub(crate) fn topics_of(&self, id: &WebSocketId) -> Vec<Arc<str>> {
        self.joined.locked().of(id)
    }

    fn leave_all(&self, joined: &mut Joined, id: &WebSocketId) {
        for topic in joined.remove_all(id) {
            self.leave_topic(joined, &topic, id);
        }
    }

    fn leave_topic(&self, joined: &mut Joined, topic: &str, id: &WebSocketId) {
        // While it is being opened it is no member yet, and nobody there.
        let user = self.topics.with(topic, |group, _| group.get(id)?.0.about().user().cloned());
        if let Some(user) = user
            && joined.disappear(topic, &user)
        {
            self.observers.queue(|| HubEvent::UserLeft(topic.into(), user.clone()));
        }
        self.topics.remove(topic, id, || {
            self.observers.queue(|| HubEvent::TopicVacated(topic.into()));
            self.topic_changed(topic);
        });
    }
}

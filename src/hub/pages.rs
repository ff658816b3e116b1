//! What can be long comes page by page, in the order of the IDs or names: so the place where a page ended stays the same while
//! connections and topics come and go.

use std::sync::Arc;

use super::{Hub, Place};
use crate::{
    audience::Audience,
    error::Result,
    id::{NodeId, WebSocketId},
    info::ConnectionInfo,
    info::{PresentUser, TopicInfo},
    place::wherever_of_hub,
};

/// What a page has at most.
const MOST: usize = 1000;

/// A part of a list; [`Hub::connections`], [`Hub::members`] and [`Hub::topics`] return it.
#[derive(Clone, Debug)]
#[must_use = "a list is only to be read"]
#[non_exhaustive]
pub struct Page<T, K = WebSocketId> {
    /// In the order of their IDs; topics in that of their names.
    pub items: Vec<T>,
    /// If there are more: the last ID or name of this page, after which the next one begins.
    pub next: Option<K>,
}

impl Hub {
    /// Connections in the order of their IDs: the first of those whose IDs are after `after`. `limit` is how many at most;
    /// 0, and whatever is more than 1,000, counts as 1,000. There may be fewer although there is a next page: those that
    /// have ended just now are left out.
    ///
    /// Those that are open all the while are listed once, whatever others come and go between the pages.
    ///
    /// ```
    /// # fn example(hub: &switchboard::Hub) -> switchboard::Result<()> {
    /// use switchboard::Audience;
    ///
    /// let mut after = None;
    /// loop {
    ///     let page = hub.connections(Audience::Path("/news"), after.as_ref(), 100)?;
    ///     for connection in &page.items {
    ///         println!("{:?}: {} bytes wait", connection.peer, connection.queued);
    ///     }
    ///     after = page.next;
    ///     if after.is_none() {
    ///         break;
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// None for the server's own connections. In a cluster, [`Error::Unreachable`](crate::Error::Unreachable) if Redis or another node
    /// does not answer, such as one that was killed, until its lease is over: [`connections_of`](Self::connections_of) has those of each
    /// that does. (Asked from another process, it is [`Error::Remote`](crate::Error::Remote).)
    pub fn connections(
        &self,
        audience: Audience<'_>,
        after: Option<&WebSocketId>,
        limit: usize,
    ) -> Result<Page<ConnectionInfo>> {
        wherever_of_hub!(self.0, connections(audience, after, limit))
    }

    /// The same of one node of a cluster, whatever there is of the others. Without such a node there are none.
    ///
    /// ```
    /// # fn example(hub: &switchboard::Hub) -> switchboard::Result<()> {
    /// use switchboard::Audience;
    ///
    /// for node in hub.nodes()? {
    ///     match hub.connections_of(node.node, Audience::All, None, 100) {
    ///         Ok(page) => println!("node {}: {} connections or more", node.node, page.items.len()),
    ///         Err(error) => println!("node {}: {error}", node.node),
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`connections`](Self::connections), of this node.
    pub fn connections_of(
        &self,
        node: NodeId,
        audience: Audience<'_>,
        after: Option<&WebSocketId>,
        limit: usize,
    ) -> Result<Page<ConnectionInfo>> {
        wherever_of_hub!(self.0, connections_of(node, audience, after, limit))
    }

    /// [`connections`](Self::connections) without those of nodes that cannot be asked; and whether there are any.
    #[cfg(feature = "manage")]
    pub(crate) fn connections_in_reach(
        &self,
        audience: Audience<'_>,
        after: Option<&WebSocketId>,
        limit: usize,
    ) -> Result<(Page<ConnectionInfo>, bool)> {
        #[cfg(feature = "cluster")]
        if let Place::Clustered(clustered) = &self.0 {
            return clustered.connections_in_reach(audience, after, limit);
        }
        Ok((self.connections(audience, after, limit)?, false))
    }

    /// All connections, in the order of their IDs, fetched page by page as they are asked for. After an error there is
    /// nothing more.
    ///
    /// ```
    /// # fn example(hub: &switchboard::Hub) -> switchboard::Result<()> {
    /// for connection in hub.all_connections(switchboard::Audience::All) {
    ///     println!("{}", connection?.path);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn all_connections<'a>(
        &'a self,
        audience: Audience<'a>,
    ) -> impl Iterator<Item = Result<ConnectionInfo>> + use<'a> {
        all(move |after| self.connections(audience, after, MOST))
    }

    /// The members of a topic, in the order of their IDs; `after` and `limit` are as in [`connections`](Self::connections).
    ///
    /// # Errors
    /// None for the server's own connections. In a cluster, as [`connections`](Self::connections).
    pub fn members(
        &self,
        topic: &str,
        after: Option<&WebSocketId>,
        limit: usize,
    ) -> Result<Page<WebSocketId>> {
        wherever_of_hub!(self.0, members(topic, after, limit))
    }

    /// All members of a topic, as [`all_connections`](Self::all_connections).
    pub fn all_members<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = Result<WebSocketId>> + use<'a> {
        all(move |after| self.members(topic, after, MOST))
    }

    /// Topics in the order of their names, each with the number of its members: the first of those whose names are after
    /// `after`; `limit` is as in [`connections`](Self::connections).
    ///
    /// ```
    /// # fn example(hub: &switchboard::Hub) -> switchboard::Result<()> {
    /// let page = hub.topics(None, 10)?;
    /// for topic in &page.items {
    ///     println!("{}: {}", topic.name, topic.members);
    /// }
    /// if let Some(last) = &page.next {
    ///     println!("and {} more", hub.topics(Some(last), 10)?.items.len());
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// None for the server's own connections.
    pub fn topics(&self, after: Option<&str>, limit: usize) -> Result<Page<TopicInfo, Arc<str>>> {
        wherever_of_hub!(self.0, topics(after, limit))
    }

    /// All topics, as [`all_connections`](Self::all_connections).
    pub fn all_topics(&self) -> impl Iterator<Item = Result<TopicInfo>> + use<'_> {
        all(|after: Option<&Arc<str>>| self.topics(after.map(|after| &**after), MOST))
    }

    /// The users who are in a topic, in the order of their names: as [`connections`](Self::connections). Two tabs of a user are one
    /// of these. Members without a [user](crate::Opening::set_user) are not among them, and those that are being opened neither.
    ///
    /// ```
    /// # fn example(hub: &switchboard::Hub) -> switchboard::Result<()> {
    /// for present in hub.presence("room", None, 100)?.items {
    ///     println!("{}, {} times", present.user, present.connections);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// None for the server's own connections.
    pub fn presence(
        &self,
        topic: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<PresentUser, Arc<str>>> {
        wherever_of_hub!(self.0, presence(topic, after, limit))
    }

    /// All users who are in a topic, fetched page by page: as [`all_connections`](Self::all_connections).
    pub fn all_present<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = Result<PresentUser>> + use<'a> {
        all(move |after: Option<&Arc<str>>| self.presence(topic, after.map(|after| &**after), MOST))
    }
}

pub(super) fn at_most(limit: usize) -> usize {
    if limit == 0 { MOST } else { limit.min(MOST) }
}

/// A page of at most so many items, of which there is one more if there are more.
pub(super) fn cut<T, K>(mut items: Vec<T>, limit: usize, key: impl Fn(&T) -> K) -> Page<T, K> {
    let has_more = items.len() > limit;
    items.truncate(limit);
    let next = items.last().filter(|_| has_more).map(key);
    Page { items, next }
}

/// The items of all pages.
fn all<T, K>(fetch: impl Fn(Option<&K>) -> Result<Page<T, K>>) -> impl Iterator<Item = Result<T>> {
    let mut items = Vec::new().into_iter();
    // The ID after which the next page begins; none for the first one.
    let mut next = Some(None);
    std::iter::from_fn(move || {
        loop {
            if let Some(item) = items.next() {
                return Some(Ok(item));
            }
            match fetch(next.take()?.as_ref()) {
                Ok(page) => {
                    items = page.items.into_iter();
                    next = page.next.map(Some);
                }
                Err(e) => return Some(Err(e)),
            }
        }
    })
}

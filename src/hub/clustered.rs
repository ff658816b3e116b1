//! The connections of a cluster: those of this server, and those of other nodes, which are asked.

use std::{borrow::Borrow, collections::BTreeMap, fmt, sync::Arc, time::Duration};

use super::{
    Broadcast, Page, Publication, Published, Pusher,
    local::{Local, check},
    pages::{at_most, cut},
    remote::{Remote, number},
};
use crate::{
    audience::{Audience, Recipients},
    connection::{PushError, PushErrorKind, Pushed},
    elsewhere::{Elsewhere, Forwarded, Placed, Publishing},
    error::{Error, Result},
    history::{History, Since},
    id::{NodeId, WebSocketId},
    info::{ConnectionInfo, PresentUser, Recovery, TopicInfo},
    message::{CloseCode, Message, Payload},
    node_info::{NodeInfo, SURVEY},
    pushes::Push,
    registry::Registry,
    remote::{Reply, Trouble},
    websocket::WebSocket,
    wire::{Answer, AsText, Request, as_usize},
};

/// Calls a method of this node, or asks the node that has the connection.
macro_rules! where_it_is {
    ($this:expr, $id:expr, $method:ident($($argument:expr),*)) => {
        if $this.is_here($id) {
            $this.here.$method($($argument),*)
        } else {
            $this.node_of($id)?.$method($($argument),*)
        }
    };
}

#[derive(Clone)]
pub(super) struct Clustered {
    registry: Arc<Registry>,
    here: Local,
    elsewhere: Arc<dyn Elsewhere>,
}

impl Clustered {
    pub(super) fn new(registry: Arc<Registry>, elsewhere: Arc<dyn Elsewhere>) -> Self {
        Self { here: Local::new(registry.clone()), registry, elsewhere }
    }

    fn is_here(&self, id: &WebSocketId) -> bool {
        id.node() == self.registry.node()
    }

    /// The node of a connection, to be asked.
    fn node_of(&self, id: &WebSocketId) -> Result<Remote> {
        self.elsewhere.link(id.node()).map(Remote::new)
    }

    pub(super) fn push(&self, id: &WebSocketId, data: Payload) -> Result<Pushed, PushError> {
        if self.is_here(id) {
            return self.here.push(id, data);
        }
        let push = || forward(&*self.elsewhere, id, data);
        match self.registry.metrics() {
            Some(metrics) => metrics.push(push),
            None => push(),
        }
    }

    pub(super) fn push_wait(
        &self,
        id: &WebSocketId,
        message: Message,
        timeout: Duration,
    ) -> Result<(), PushError> {
        if self.is_here(id) {
            return self.here.push_wait(id, message, timeout);
        }
        match self.node_of(id) {
            Ok(node) => node.push_wait(id, message, timeout),
            Err(error) => Err(PushError { kind: PushErrorKind::of(error), message }),
        }
    }

    pub(super) fn push_all<I: Borrow<WebSocketId>, D: Into<Payload>>(
        &self,
        messages: impl IntoIterator<Item = (I, D)>,
    ) -> Vec<Result<Pushed, PushError>> {
        let mut results = Vec::new();
        let mut together = BTreeMap::<NodeId, Together>::new();
        for (index, (id, data)) in messages.into_iter().enumerate() {
            let (id, data) = (id.borrow(), data.into());
            if self.is_here(id) {
                results.push(Some(self.here.push(id, data)));
                continue;
            }
            results.push(None);
            let push = Push::new(id, data);
            let of_node = together.entry(id.node()).or_default();
            if of_node.is_full(&push) {
                self.push_together(id.node(), std::mem::take(of_node), &mut results);
            }
            of_node.add(index, push);
        }
        for (node, pushes) in together {
            self.push_together(node, pushes, &mut results);
        }
        results.into_iter().flatten().collect()
    }

    fn push_together(
        &self,
        node: NodeId,
        pushes: Together,
        results: &mut [Option<Result<Pushed, PushError>>],
    ) {
        let Together { indices, pushes, .. } = pushes;
        let pushed = self.elsewhere.push(node, &pushes);
        for (index, push) in indices.into_iter().zip(pushes) {
            let result = match &pushed {
                Ok(()) => Ok(Pushed::Forwarded),
                Err(kind) => Err(push.failed(kind.clone())),
            };
            if let Some(metrics) = self.registry.metrics() {
                metrics.count(&result);
            }
            results[index] = Some(result);
        }
    }

    pub(super) fn pusher(&self, id: &WebSocketId) -> Result<Pusher> {
        if self.is_here(id) {
            return self.here.pusher(id);
        }
        let link = self.elsewhere.link(id.node())?;
        link.close_reason(id)?;
        Ok(Pusher::elsewhere(self.elsewhere.clone(), link, *id, self.registry.metrics().cloned()))
    }

    pub(super) fn broadcast(
        &self,
        to: Recipients<'_>,
        message: Message,
        key: Option<&Arc<str>>,
    ) -> Result<Broadcast> {
        // First here, where nobody has to wait for Redis.
        let here = self.here.broadcast(to, message.clone(), key)?;
        Ok(here.with(self.elsewhere.forward(to, &message, key)))
    }

    pub(super) fn publish(&self, topic: &str, publication: Publication<'_>) -> Result<Published> {
        if let Some(history) = self.registry.histories().of(topic) {
            return self.publish_numbered(topic, history, &publication);
        }
        if publication.key.is_some() {
            return Err(Error::NoHistory);
        }
        let Publication { message, newest, except, .. } = publication;
        let to = Recipients { audience: Audience::Topic(topic), except };
        let broadcast = self.broadcast(to, message, newest.as_ref())?;
        Ok(Published { broadcast, ..Published::default() })
    }

    fn publish_numbered(
        &self,
        topic: &str,
        history: History,
        publication: &Publication<'_>,
    ) -> Result<Published> {
        let Publication { message, newest, except, key } = publication;
        check(&self.registry, topic, key.as_ref())?;
        let publishing = Publishing { message, newest: newest.as_ref(), except: *except, key: key.as_ref() };
        let Placed { position, is_duplicate, nodes, here } =
            self.elsewhere.publish(topic, history, &publishing)?;
        let [sent, queued, dropped, gone] = here;
        let broadcast = Broadcast { sent, queued, dropped, gone, forwarded: nodes, unreachable: false };
        Ok(Published { broadcast, position, duplicate: is_duplicate })
    }

    pub(super) fn close_all(&self, who: Recipients<'_>, code: CloseCode, text: &str) -> Result<usize> {
        let except = who.except.copied().map(AsText);
        let request = Request::CloseAll { to: who.audience.into(), except, code: code.into(), text };
        let here = self.here.close_all(who, code, text)?;
        Ok(here + self.sum(who.audience, &request)?)
    }

    pub(super) fn close(&self, id: &WebSocketId, code: CloseCode, text: &str) -> Result<()> {
        where_it_is!(self, id, close(id, code, text))
    }

    pub(super) fn connection(&self, id: &WebSocketId) -> Result<ConnectionInfo> {
        where_it_is!(self, id, connection(id))
    }

    #[cfg(feature = "__tls")]
    pub(super) fn certificates(&self) -> Result<Vec<crate::tls::CertificateInfo>> {
        self.here.certificates()
    }

    pub(super) fn len(&self) -> Result<usize> {
        Ok(self.here.len()? + self.sum(Audience::All, &Request::Len)?)
    }

    /// Those that are known, with what those say that answer in time.
    pub(super) fn nodes(&self) -> Result<Vec<NodeInfo>> {
        let mut all = self.here.nodes()?;
        let (known, replies) = self.elsewhere.survey(&Request::Nodes, SURVEY);
        all.extend(known);
        for reply in &replies {
            let Ok(Answer::Nodes(nodes)) = answer_of(reply) else { continue };
            for told in nodes.into_iter().map(NodeInfo::from).filter(|told| told.is_this) {
                let told = NodeInfo { is_this: false, ..told };
                match all.iter_mut().find(|node| node.node == told.node) {
                    Some(node) if node.is_this => {} // another one has its number, which is told elsewhere
                    Some(node) => *node = told,
                    None => all.push(told), // it has come just now
                }
            }
        }
        all.sort_unstable_by_key(|node| node.node);
        Ok(all)
    }

    pub(super) fn is_empty(&self) -> Result<bool> {
        Ok(self.registry.is_empty() && self.len()? == 0)
    }

    pub(super) fn join(&self, id: &WebSocketId, topic: &str) -> Result<()> {
        where_it_is!(self, id, join(id, topic))
    }

    pub(super) fn join_since(&self, id: &WebSocketId, topic: &str, since: &Since) -> Result<Recovery> {
        where_it_is!(self, id, join_since(id, topic, since))
    }

    pub(super) fn leave(&self, id: &WebSocketId, topic: &str) -> Result<()> {
        where_it_is!(self, id, leave(id, topic))
    }

    pub(super) fn topics_of(&self, id: &WebSocketId) -> Result<Vec<Arc<str>>> {
        where_it_is!(self, id, topics_of(id))
    }

    pub(super) fn open_server(&self, id: &WebSocketId) -> Result<WebSocket> {
        if self.is_here(id) {
            return self.here.open_server(id);
        }
        WebSocket::open_elsewhere(&self.elsewhere.link(id.node())?, id, self.registry.clone())
    }

    /// Node by node, in the order of their numbers.
    pub(super) fn connections(
        &self,
        audience: Audience<'_>,
        after: Option<&WebSocketId>,
        limit: usize,
    ) -> Result<Page<ConnectionInfo>> {
        self.connections_unless(audience, after, limit, Err)
    }

    /// The same without those of nodes that cannot be asked; and whether there are any.
    pub(super) fn connections_in_reach(
        &self,
        audience: Audience<'_>,
        after: Option<&WebSocketId>,
        limit: usize,
    ) -> Result<(Page<ConnectionInfo>, bool)> {
        // There may be nodes that this one does not know.
        let mut is_missing = !self.elsewhere.standing().is_up;
        let page = self.connections_unless(audience, after, limit, |_| {
            is_missing = true;
            Ok(())
        })?;
        Ok((page, is_missing))
    }

    fn connections_unless(
        &self,
        audience: Audience<'_>,
        after: Option<&WebSocketId>,
        limit: usize,
        failed: impl FnMut(Error) -> Result<()>,
    ) -> Result<Page<ConnectionInfo>> {
        let page = |node: Option<&Remote>, after: Option<&WebSocketId>, limit| match node {
            None => self.here.connections(audience, after, limit),
            Some(node) => node.connections(audience, after, limit),
        };
        self.pages(after, limit, page, |connection| connection.id, failed)
    }

    pub(super) fn connections_of(
        &self,
        node: NodeId,
        audience: Audience<'_>,
        after: Option<&WebSocketId>,
        limit: usize,
    ) -> Result<Page<ConnectionInfo>> {
        if node == self.registry.node() {
            return self.here.connections(audience, after, limit);
        }
        let link = self.elsewhere.link(node);
        match link.and_then(|link| Remote::new(link).connections(audience, after, limit)) {
            Err(Error::UnknownId) => Ok(Page { items: Vec::new(), next: None }), // or it has left just now
            page => page,
        }
    }

    pub(super) fn members(
        &self,
        topic: &str,
        after: Option<&WebSocketId>,
        limit: usize,
    ) -> Result<Page<WebSocketId>> {
        let page = |node: Option<&Remote>, after: Option<&WebSocketId>, limit| match node {
            None => self.here.members(topic, after, limit),
            Some(node) => node.members(topic, after, limit),
        };
        self.pages(after, limit, page, |id| *id, Err)
    }

    fn pages<T>(
        &self,
        after: Option<&WebSocketId>,
        limit: usize,
        fetch: impl Fn(Option<&Remote>, Option<&WebSocketId>, usize) -> Result<Page<T>>,
        id: impl Fn(&T) -> WebSocketId,
        mut failed: impl FnMut(Error) -> Result<()>,
    ) -> Result<Page<T>> {
        if !self.elsewhere.knows_all() {
            failed(Error::Unreachable)?; // those that this node does not know
        }
        let limit = at_most(limit);
        let (own, first) = (self.registry.node(), after.map(WebSocketId::node));
        let mut nodes = self.elsewhere.nodes();
        nodes.push(own);
        nodes.sort_unstable();
        nodes.retain(|node| first.is_none_or(|first| *node >= first));
        let mut items = Vec::new();
        for node in nodes {
            let after = after.filter(|_| first == Some(node));
            if items.len() == limit {
                // There may be more there.
                let next = items.last().map(&id);
                return Ok(Page { items, next });
            }
            let remote = (node != own).then(|| self.elsewhere.link(node).map(Remote::new)).transpose();
            match remote.and_then(|remote| fetch(remote.as_ref(), after, limit - items.len())) {
                Ok(page) => {
                    items.extend(page.items);
                    if page.next.is_some() {
                        return Ok(Page { items, next: page.next });
                    }
                }
                Err(Error::UnknownId) => {} // it has left just now
                Err(error) => failed(error)?,
            }
        }
        Ok(Page { items, next: None })
    }

    pub(super) fn topics(&self, after: Option<&str>, limit: usize) -> Result<Page<TopicInfo, Arc<str>>> {
        let limit = at_most(limit);
        let request = Request::Topics { after, limit: limit as u32 };
        let here = self.here.topics(after, limit)?;
        let has_more = here.next.is_some();
        let here = here.items.into_iter().map(|topic| (topic.name, topic.members));
        let (all, more) = self.merged(Audience::All, &request, here, has_more)?;
        let page = page_of(all, limit, more, |(name, members)| TopicInfo { name, members });
        Ok(page)
    }

    pub(super) fn presence(
        &self,
        topic: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<PresentUser, Arc<str>>> {
        let limit = at_most(limit);
        let request = Request::Presence { topic, after, limit: limit as u32 };
        let here = self.here.presence(topic, after, limit)?;
        let has_more = here.next.is_some();
        let here = here.items.into_iter().map(|present| (present.user, present.connections));
        let (all, more) = self.merged(Audience::Topic(topic), &request, here, has_more)?;
        Ok(page_of(all, limit, more, |(user, connections)| PresentUser { user, connections }))
    }

    /// What is here, and what the others answer, each name with the sum of its numbers. Each has told the first names: of those that
    /// are kept all numbers are there. And whether anybody has more.
    fn merged(
        &self,
        whom: Audience<'_>,
        request: &Request<'_>,
        here: impl Iterator<Item = (Arc<str>, usize)>,
        mut has_more: bool,
    ) -> Result<(BTreeMap<Arc<str>, usize>, bool)> {
        let mut all: BTreeMap<_, _> = here.collect();
        for reply in self.elsewhere.ask_all(whom, request)? {
            match answer_of(&reply)? {
                Answer::Topics { items, next } | Answer::Present { items, next } => {
                    has_more |= next.is_some();
                    for item in items {
                        *all.entry(item.name.into()).or_default() += as_usize(item.count);
                    }
                }
                _ => return Err(Error::Unreachable),
            }
        }
        Ok((all, has_more))
    }

    /// The sum of the numbers that the others answer.
    fn sum(&self, whom: Audience<'_>, request: &Request<'_>) -> Result<usize> {
        let replies = self.elsewhere.ask_all(whom, request)?;
        replies.iter().map(|reply| number(answer_of(reply)?).ok_or(Error::Unreachable)).sum()
    }
}

/// Of many pushes, so many bytes for one node go together.
const TOGETHER: usize = 64 << 10;

/// Pushes to one node that go together, and where their results belong.
#[derive(Default)]
struct Together {
    indices: Vec<usize>,
    pushes: Vec<Push>,
    bytes: usize,
}

impl Together {
    fn is_full(&self, more: &Push) -> bool {
        self.bytes > 0 && self.bytes + more.message.len() > TOGETHER
    }

    fn add(&mut self, index: usize, push: Push) {
        self.bytes += push.message.len() + 64;
        self.indices.push(index);
        self.pushes.push(push);
    }
}

/// Pushes to a connection of another node.
pub(super) fn forward(
    elsewhere: &dyn Elsewhere,
    id: &WebSocketId,
    data: Payload,
) -> Result<Pushed, PushError> {
    let push = Push::new(id, data);
    match elsewhere.push(id.node(), std::slice::from_ref(&push)) {
        Ok(()) => Ok(Pushed::Forwarded),
        Err(kind) => Err(push.failed(kind)),
    }
}

/// What a node has answered.
fn answer_of(reply: &Reply) -> Result<Answer<'_>> {
    match reply.answer() {
        Ok(Answer::Failed(failure)) => Err(Trouble::from(failure).into_error()),
        Ok(answer) => Ok(answer),
        Err(_) => Err(Error::Unreachable),
    }
}

fn page_of<T>(
    all: BTreeMap<Arc<str>, usize>,
    limit: usize,
    has_more: bool,
    make: impl Fn((Arc<str>, usize)) -> T,
) -> Page<T, Arc<str>> {
    let Page { items, next } =
        cut(all.into_iter().collect(), limit, |(name, _): &(Arc<str>, usize)| name.clone());
    let next = next.or_else(|| items.last().filter(|_| has_more).map(|(name, _)| name.clone()));
    Page { items: items.into_iter().map(make).collect(), next }
}

impl Broadcast {
    fn with(self, Forwarded { nodes, unreachable }: Forwarded) -> Self {
        Self { forwarded: nodes, unreachable, ..self }
    }
}

impl fmt::Debug for Clustered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hub({} connections here, {:?})", self.registry.len(), self.elsewhere)
    }
}

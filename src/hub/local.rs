//! The connections of a server of this process.

use std::{
    borrow::Borrow,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Broadcast, Page, Publication, Published, Pusher,
    pages::{at_most, cut},
};
use crate::{
    audience::{Audience, Recipients},
    codec::Forms,
    connection::{PushError, PushErrorKind, Pushed},
    error::{Error, OverLimit, Result},
    history::{Log, Since},
    id::{NodeId, WebSocketId},
    info::ConnectionInfo,
    info::{PresentUser, Recovery, TopicInfo},
    message::{CloseCode, Message, Payload},
    node_info::NodeInfo,
    registry::{Registry, Selected, numbered},
    websocket::{Holder, WebSocket},
};

/// The longest idempotency key.
const MAX_KEY: usize = 128;

#[derive(Clone)]
pub(super) struct Local(Arc<Registry>);

impl Local {
    pub(super) fn new(registry: Arc<Registry>) -> Self {
        Self(registry)
    }

    pub(super) fn push(&self, id: &WebSocketId, data: Payload) -> Result<Pushed, PushError> {
        self.0.push(id, data, false)
    }

    pub(super) fn push_wait(
        &self,
        id: &WebSocketId,
        message: Message,
        timeout: Duration,
    ) -> Result<(), PushError> {
        self.0.push_wait(id, message, timeout)
    }

    pub(super) fn push_all<I: Borrow<WebSocketId>, D: Into<Payload>>(
        &self,
        messages: impl IntoIterator<Item = (I, D)>,
    ) -> Vec<Result<Pushed, PushError>> {
        messages.into_iter().map(|(id, data)| self.push(id.borrow(), data.into())).collect()
    }

    pub(super) fn pusher(&self, id: &WebSocketId) -> Result<Pusher> {
        let found = self.0.find(id).ok_or(Error::UnknownId)?;
        Ok(Pusher::local(found, self.0.metrics().cloned()))
    }

    /// To a topic it is a [publication](Self::publish).
    pub(super) fn broadcast(
        &self,
        to: Recipients<'_>,
        message: Message,
        key: Option<&Arc<str>>,
    ) -> Result<Broadcast> {
        Ok(self.send_to_all(to, message, key))
    }

    fn send_to_all(&self, to: Recipients<'_>, message: Message, key: Option<&Arc<str>>) -> Broadcast {
        send(&self.0, self.0.select(to), message, key, None)
    }

    pub(super) fn publish(&self, topic: &str, publication: Publication<'_>) -> Result<Published> {
        let Publication { message, newest, except, key } = publication;
        let to = Recipients { audience: Audience::Topic(topic), except };
        let Some(history) = self.0.histories().of(topic) else {
            if key.is_some() {
                return Err(Error::NoHistory);
            }
            let broadcast = self.send_to_all(to, message, newest.as_ref());
            return Ok(Published { broadcast, ..Published::default() });
        };
        check(&self.0, topic, key.as_ref())?;
        let (buffered, size) = (self.0.buffered(), Log::size(message.len(), key.as_deref()));
        Ok(self.0.histories().with(topic, history, Some(size), |log| {
            if let Some(position) = key.as_ref().and_then(|key| log.find(key)) {
                return Published { position: Some(position), duplicate: true, ..Published::default() };
            }
            let position = log.next();
            let numbered = numbered(&position.to_string(), &message).shared(buffered);
            log.append(numbered.clone(), key, Instant::now());
            let broadcast = send(&self.0, self.0.select(to), message, newest.as_ref(), Some(numbered));
            Published { broadcast, position: Some(position), duplicate: false }
        }))
    }

    pub(super) fn close_all(&self, who: Recipients<'_>, code: CloseCode, text: &str) -> Result<usize> {
        Ok(self.0.select(who).close(code, text))
    }

    pub(super) fn close(&self, id: &WebSocketId, code: CloseCode, text: &str) -> Result<()> {
        self.0.close(id, code, text)
    }

    pub(super) fn connection(&self, id: &WebSocketId) -> Result<ConnectionInfo> {
        Ok(ConnectionInfo::new(&self.0.open(id)?))
    }

    #[cfg(feature = "__tls")]
    pub(super) fn certificates(&self) -> Result<Vec<crate::tls::CertificateInfo>> {
        Ok(self.0.certificates())
    }

    pub(super) fn len(&self) -> Result<usize> {
        Ok(self.0.len())
    }

    pub(super) fn nodes(&self) -> Result<Vec<NodeInfo>> {
        Ok(vec![NodeInfo::here(self.0.node(), self.0.len(), self.0.age())])
    }

    pub(super) fn is_empty(&self) -> Result<bool> {
        Ok(self.0.is_empty())
    }

    pub(super) fn join(&self, id: &WebSocketId, topic: &str) -> Result<()> {
        self.0.join(self.0.open(id)?.id(), topic)
    }

    pub(super) fn join_since(&self, id: &WebSocketId, topic: &str, since: &Since) -> Result<Recovery> {
        self.0.join_since(self.0.open(id)?.id(), topic, since)
    }

    pub(super) fn leave(&self, id: &WebSocketId, topic: &str) -> Result<()> {
        if self.0.leave(id, topic) { Ok(()) } else { Err(Error::UnknownId) }
    }

    pub(super) fn topics_of(&self, id: &WebSocketId) -> Result<Vec<Arc<str>>> {
        Ok(self.0.topics_of(self.0.open(id)?.id()))
    }

    pub(super) fn open_server(&self, id: &WebSocketId) -> Result<WebSocket> {
        let connection = self.0.open(id)?;
        if !connection.about().shared {
            return Err(Error::NotShared);
        }
        match connection.reason() {
            Some(reason) => Err(Error::Closed(reason.clone())),
            None => Ok(WebSocket::new(connection, self.0.clone(), Holder::Anyone)),
        }
    }

    pub(super) fn connections(
        &self,
        audience: Audience<'_>,
        after: Option<&WebSocketId>,
        limit: usize,
    ) -> Result<Page<ConnectionInfo>> {
        let Page { items: ids, next } = self.page(audience, after, limit);
        let connections = ids.iter().filter_map(|id| self.0.find_open(id));
        Ok(Page { items: connections.map(|connection| ConnectionInfo::new(&connection)).collect(), next })
    }

    pub(super) fn connections_of(
        &self,
        node: NodeId,
        audience: Audience<'_>,
        after: Option<&WebSocketId>,
        limit: usize,
    ) -> Result<Page<ConnectionInfo>> {
        if node == self.0.node() {
            return self.connections(audience, after, limit);
        }
        Ok(Page { items: Vec::new(), next: None })
    }

    pub(super) fn members(
        &self,
        topic: &str,
        after: Option<&WebSocketId>,
        limit: usize,
    ) -> Result<Page<WebSocketId>> {
        Ok(self.page(Audience::Topic(topic), after, limit))
    }

    pub(super) fn topics(&self, after: Option<&str>, limit: usize) -> Result<Page<TopicInfo, Arc<str>>> {
        let limit = at_most(limit);
        let mut page = cut(self.0.first_topics(after, limit + 1), limit, |topic| topic.name.clone());
        page.items.retain(|topic| topic.members > 0);
        Ok(page)
    }

    pub(super) fn presence(
        &self,
        topic: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<PresentUser, Arc<str>>> {
        let limit = at_most(limit);
        Ok(cut(self.0.first_present(topic, after, limit + 1), limit, |present| present.user.clone()))
    }

    fn page(&self, audience: Audience<'_>, after: Option<&WebSocketId>, limit: usize) -> Page<WebSocketId> {
        let limit = at_most(limit);
        cut(self.0.first_ids(audience, after, limit + 1), limit, WebSocketId::clone)
    }
}

impl fmt::Debug for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hub({} connections)", self.0.len())
    }
}

/// What a topic that remembers may be called, and the key of a publication.
///
/// # Errors
/// [`Error::OverLimit`]
pub(super) fn check(registry: &Registry, topic: &str, key: Option<&Arc<str>>) -> Result<()> {
    if key.is_some_and(|key| !(1..=MAX_KEY).contains(&key.len())) {
        return Err(OverLimit::IdempotencyKey.into());
    }
    Ok(registry.check_topic(topic)?)
}

/// A publication of a topic that remembers, to those who are here.
#[cfg(feature = "cluster")]
pub(crate) fn deliver(
    registry: &Registry,
    to: Recipients<'_>,
    message: Message,
    newest: Option<&Arc<str>>,
    numbered: Message,
) -> Broadcast {
    send(registry, registry.select(to), message, newest, Some(numbered))
}

/// Tells those who want to know where in a topic they are that something is missing.
#[cfg(feature = "cluster")]
pub(crate) fn tell_gap(registry: &Registry, topic: &str, line: &Message) {
    let forms = Forms::new(registry.buffered());
    let Selected { open, opening } = registry.select(Audience::Topic(topic).into());
    for connection in open.iter().filter(|connection| connection.is_numbered()) {
        let _ = connection.push_or_close(line.clone(), &forms);
    }
    for pending in opening.iter().filter(|pending| pending.is_numbered()) {
        let _ = pending.push_or_close(line.clone());
    }
}

/// Sends a message to those who are selected; `numbered` to those who want to know where in its topic it stands.
fn send(
    registry: &Registry,
    mut selected: Selected,
    message: Message,
    key: Option<&Arc<str>>,
    numbered: Option<Message>,
) -> Broadcast {
    let (buffered, mut result) = (registry.buffered(), Broadcast::default());
    if selected.open.is_empty() && selected.opening.is_empty() {
        return result;
    }
    // In the order of their addresses: with many connections this causes fewer cache misses, here and in the kernel.
    selected.open.sort_unstable_by_key(Arc::as_ptr);
    // The bytes of a payload count once, however many queues it is in.
    let forms = Forms::new(buffered);
    let message = message.shared(buffered);
    let numbered = numbered.map(|numbered| (numbered, Forms::new(buffered)));
    for connection in selected.open {
        let pushed = match &numbered {
            Some((numbered, forms)) if connection.is_numbered() => {
                connection.push_or_close(numbered.clone(), forms)
            }
            _ => connection.push(message.clone(), Some(&forms), key),
        };
        result.count(pushed);
    }
    for pending in selected.opening {
        let pushed = match &numbered {
            Some((numbered, _)) if pending.is_numbered() => pending.push_or_close(numbered.clone()),
            _ => pending.push(message.clone(), key),
        };
        result.count(pushed);
    }
    if let Some(metrics) = registry.metrics() {
        metrics.broadcast([result.sent, result.queued, result.dropped, result.gone]);
    }
    result
}

impl Broadcast {
    fn count(&mut self, pushed: std::result::Result<Pushed, PushError>) {
        *match pushed {
            Ok(Pushed::Sent) => &mut self.sent,
            Ok(Pushed::Queued) => &mut self.queued,
            Ok(Pushed::Forwarded) => &mut self.forwarded,
            Err(PushError { kind: PushErrorKind::Full, .. }) => &mut self.dropped,
            Err(_) => &mut self.gone,
        } += 1;
    }
}

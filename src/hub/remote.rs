//! The connections of a server of another process, over the link to it.

use std::{borrow::Borrow, fmt, sync::Arc, time::Duration};

use super::{Broadcast, Page, Publication, Published, Pusher, pages::at_most};
use crate::{
    audience::{Audience, Recipients},
    connection::{PushError, Pushed},
    error::Result,
    history::Since,
    id::{NodeId, WebSocketId},
    info::ConnectionInfo,
    info::{PresentUser, Recovery, TopicInfo},
    message::{CloseCode, Message, Payload},
    node_info::{NodeInfo, SURVEY},
    remote::{Linked, is_done},
    websocket::WebSocket,
    wire::{self, Answer, AsText, Counts, Request, as_usize},
};

/// What does not wait there.
const AT_ONCE: Duration = Duration::ZERO;

#[derive(Clone)]
pub(super) struct Remote(Arc<Linked>);

impl Remote {
    pub(super) fn new(link: Arc<Linked>) -> Self {
        Self(link)
    }

    pub(super) fn push(&self, id: &WebSocketId, data: Payload) -> Result<Pushed, PushError> {
        self.0.push(id, data)
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
        self.0.push_all(messages.into_iter().map(|(id, data)| (*id.borrow(), data.into())))
    }

    pub(super) fn pusher(&self, id: &WebSocketId) -> Result<Pusher> {
        self.0.close_reason(id)?;
        Ok(Pusher::remote(self.0.clone(), *id))
    }

    pub(super) fn broadcast(
        &self,
        to: Recipients<'_>,
        message: Message,
        key: Option<&Arc<str>>,
    ) -> Result<Broadcast> {
        let payload = wire::Payload::new(&message, key);
        let request =
            Request::Broadcast { to: to.audience.into(), except: to.except.copied().map(AsText), payload };
        self.0.ask(&request, AT_ONCE, |answer| match answer {
            Answer::Broadcast(counts) => Some(counts.into()),
            _ => None,
        })
    }

    pub(super) fn publish(&self, topic: &str, publication: Publication<'_>) -> Result<Published> {
        let Publication { message, newest, except, key } = publication;
        let payload = wire::Payload::new(&message, newest.as_ref());
        let except = except.copied().map(AsText);
        let request = Request::Publish { topic, except, key: key.as_deref(), payload };
        self.0.ask(&request, AT_ONCE, |answer| match answer {
            Answer::Published(published) => Some(Published {
                broadcast: published.counts.into(),
                position: published.position.map(|position| position.0),
                duplicate: published.duplicate,
            }),
            _ => None,
        })
    }

    pub(super) fn close_all(&self, who: Recipients<'_>, code: CloseCode, text: &str) -> Result<usize> {
        let except = who.except.copied().map(AsText);
        let request = Request::CloseAll { to: who.audience.into(), except, code: code.into(), text };
        self.0.ask(&request, AT_ONCE, number)
    }

    pub(super) fn close(&self, id: &WebSocketId, code: CloseCode, text: &str) -> Result<()> {
        let request = Request::Close { id: AsText(*id), code: code.into(), text };
        self.0.ask(&request, AT_ONCE, is_done)
    }

    pub(super) fn connection(&self, id: &WebSocketId) -> Result<ConnectionInfo> {
        self.0.ask_opening(&Request::Connection { id: AsText(*id) }, |answer| match answer {
            Answer::Connection(connection) => Some((&*connection).into()),
            _ => None,
        })
    }

    #[cfg(feature = "__tls")]
    pub(super) fn certificates(&self) -> Result<Vec<crate::tls::CertificateInfo>> {
        self.0.ask(&Request::Certificates, AT_ONCE, |answer| match answer {
            Answer::Certificates(certificates) => Some(certificates.into_iter().map(Into::into).collect()),
            _ => None,
        })
    }

    pub(super) fn len(&self) -> Result<usize> {
        self.0.ask(&Request::Len, AT_ONCE, number)
    }

    pub(super) fn nodes(&self) -> Result<Vec<NodeInfo>> {
        self.0.ask(&Request::Nodes, SURVEY, |answer| match answer {
            Answer::Nodes(nodes) => Some(nodes.into_iter().map(Into::into).collect()),
            _ => None,
        })
    }

    pub(super) fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    pub(super) fn join(&self, id: &WebSocketId, topic: &str) -> Result<()> {
        self.0.ask_opening(&Request::Join { id: AsText(*id), topic }, is_done)
    }

    pub(super) fn join_since(&self, id: &WebSocketId, topic: &str, since: &Since) -> Result<Recovery> {
        let since = since.to_text();
        let since = wire::Since::of(since.as_deref());
        self.0.ask_opening(&Request::JoinSince { id: AsText(*id), topic, since }, |answer| match answer {
            Answer::Recovery(recovery) => Some(recovery.into()),
            _ => None,
        })
    }

    pub(super) fn leave(&self, id: &WebSocketId, topic: &str) -> Result<()> {
        self.0.ask(&Request::Leave { id: AsText(*id), topic }, AT_ONCE, is_done)
    }

    pub(super) fn topics_of(&self, id: &WebSocketId) -> Result<Vec<Arc<str>>> {
        self.0.ask_opening(&Request::TopicsOf { id: AsText(*id) }, |answer| match answer {
            Answer::Names(names) => Some(names.into_iter().map(Into::into).collect()),
            _ => None,
        })
    }

    pub(super) fn open_server(&self, id: &WebSocketId) -> Result<WebSocket> {
        WebSocket::open_remote(&self.0, id)
    }

    pub(super) fn connections(
        &self,
        audience: Audience<'_>,
        after: Option<&WebSocketId>,
        limit: usize,
    ) -> Result<Page<ConnectionInfo>> {
        let after = after.copied().map(AsText);
        let request = Request::Connections { to: audience.into(), after, limit: of_page(limit) };
        self.0.ask(&request, AT_ONCE, page)
    }

    pub(super) fn connections_of(
        &self,
        node: NodeId,
        audience: Audience<'_>,
        after: Option<&WebSocketId>,
        limit: usize,
    ) -> Result<Page<ConnectionInfo>> {
        let (node, to, after) = (node.get(), audience.into(), after.copied().map(AsText));
        let request = Request::ConnectionsOf { node, to, after, limit: of_page(limit) };
        self.0.ask(&request, AT_ONCE, page)
    }

    pub(super) fn members(
        &self,
        topic: &str,
        after: Option<&WebSocketId>,
        limit: usize,
    ) -> Result<Page<WebSocketId>> {
        let request = Request::Members { topic, after: after.copied().map(AsText), limit: of_page(limit) };
        self.0.ask(&request, AT_ONCE, |answer| match answer {
            Answer::Members { items, next } => Some(Page {
                items: items.into_iter().map(|item| item.0).collect(),
                next: next.map(|next| next.0),
            }),
            _ => None,
        })
    }

    pub(super) fn topics(&self, after: Option<&str>, limit: usize) -> Result<Page<TopicInfo, Arc<str>>> {
        let request = Request::Topics { after, limit: of_page(limit) };
        self.0.ask(&request, AT_ONCE, |answer| match answer {
            Answer::Topics { items, next } => {
                Some(Page { items: items.into_iter().map(Into::into).collect(), next: next.map(Into::into) })
            }
            _ => None,
        })
    }

    pub(super) fn presence(
        &self,
        topic: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<PresentUser, Arc<str>>> {
        let request = Request::Presence { topic, after, limit: of_page(limit) };
        self.0.ask(&request, AT_ONCE, |answer| match answer {
            Answer::Present { items, next } => {
                Some(Page { items: items.into_iter().map(Into::into).collect(), next: next.map(Into::into) })
            }
            _ => None,
        })
    }
}

impl From<Counts> for Broadcast {
    fn from(counts: Counts) -> Self {
        let Counts { sent, queued, dropped, gone, forwarded, unreachable } = counts;
        let [sent, queued, dropped, gone] = [sent, queued, dropped, gone].map(as_usize);
        Self { sent, queued, dropped, gone, forwarded: as_usize(forwarded), unreachable }
    }
}

/// Never more than 1,000.
fn of_page(limit: usize) -> u32 {
    at_most(limit) as u32
}

fn page(answer: Answer<'_>) -> Option<Page<ConnectionInfo>> {
    match answer {
        Answer::Connections { items, next } => {
            Some(Page { items: items.iter().map(Into::into).collect(), next: next.map(|next| next.0) })
        }
        _ => None,
    }
}

pub(super) fn number(answer: Answer<'_>) -> Option<usize> {
    match answer {
        Answer::Number(number) => Some(as_usize(number)),
        _ => None,
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self.0).fmt(f)
    }
}

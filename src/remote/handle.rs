//! A connection of another process that was opened over a link, and what was read from it.

use std::{fmt, net::IpAddr, ops::Deref, sync::Arc, time::Duration};

use super::{
    failure::Trouble,
    link::{Line, Linked},
};
use crate::{
    clock::Moment,
    connection::{About, Extras, Overflow},
    error::Result,
    id::WebSocketId,
    interned::Name,
    message::Message,
    session::SessionId,
    wire::{Answer, AsText, Opened, Request},
};

/// A connection that is open over a link. Dropped, it is released, and what was read and not acknowledged goes back.
#[derive(Debug)]
pub(crate) struct Handle {
    link: Arc<Linked>,
    line: Arc<Line>,
    number: u32,
}

impl Handle {
    /// Opens a connection, and tells what is known of it.
    ///
    /// # Errors
    /// As [`Hub::open_server`](crate::Hub::open_server), and as [`Link::ask`].
    pub(crate) fn open(link: &Arc<Linked>, id: &WebSocketId) -> Result<(Arc<Self>, Box<About>)> {
        let line = link.line()?;
        let opened = link.ask_on(
            &line,
            &[],
            &Request::Open { id: AsText(*id) },
            line.handshake_timeout(),
            |answer, _| match answer {
                Answer::Opened(opened) => Some((opened.handle, about(id, &opened))),
                _ => None,
            },
        );
        let (number, about) = opened.map_err(Trouble::into_error)?;
        Ok((Arc::new(Self { link: link.clone(), line, number }), about))
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// How long a write to a client may take.
    pub(crate) fn write_timeout(&self) -> Duration {
        self.line.write_timeout()
    }

    /// Whether it was opened over the connection that the link has now.
    pub(crate) fn is_current(&self) -> bool {
        self.link.line().is_ok_and(|line| Arc::ptr_eq(&line, &self.line))
    }

    /// As [`Link::ask`], of what concerns this; `before` is told before.
    ///
    /// # Errors
    /// As [`Link::ask`], and [`Trouble::Stale`], for which it has to be opened again.
    pub(crate) fn ask<T>(
        &self,
        before: &[Request<'_>],
        request: &Request<'_>,
        extra: Duration,
        take: impl FnOnce(Answer<'_>) -> Option<T>,
    ) -> std::result::Result<T, Trouble> {
        self.link.ask_on(&self.line, before, request, extra, |answer, _| take(answer))
    }

    /// Tells something that is not answered.
    pub(crate) fn tell(&self, requests: &[Request<'_>]) {
        self.link.tell(&self.line, requests);
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.tell(&[Request::Release { handle: self.number }]);
    }
}

/// What does not change of a connection.
fn about(id: &WebSocketId, opened: &Opened<'_>) -> Box<About> {
    let extras = Extras {
        forwarded: opened.client_address.map(|AsText(address): AsText<IpAddr>| address),
        subprotocol: opened.subprotocol.map(Into::into),
        user: opened.user.map(Into::into),
        tags: opened.tags(),
    };
    Box::new(About {
        id: *id,
        session_id: opened.session_id.and_then(|id| SessionId::new(id).ok()),
        path: opened.path.into(),
        peer: opened.peer.map(|peer| peer.0),
        route: (opened.route != opened.path).then(|| Name::new(opened.route)),
        user_agent: None,
        extras: extras.boxed(),
        opened: Moment::START,
        shared: true,
        overflow: Overflow::default(),
        deflate: None,
    })
}

/// What was read and is not acknowledged yet. Dropped without that, it goes back, as far as it has not done so already: with its link.
#[must_use = "what is dropped goes back, to be read again"]
pub(crate) struct Loan {
    handle: Arc<Handle>,
    delivery: u64,
    message: Message,
    redelivered: bool,
    at_end: bool,
    end: End,
}

/// What the other process is told when a loan is dropped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    GiveBack,
    Ack,
    /// It was told already.
    Nothing,
}

impl Loan {
    /// Reads one. `before` is told before.
    pub(crate) fn read(
        handle: &Arc<Handle>,
        before: &[Request<'_>],
        len: usize,
        timeout: Duration,
    ) -> std::result::Result<Self, Trouble> {
        let request = Request::Read { handle: handle.number(), len: len as u64, timeout };
        handle.link.ask_on(&handle.line, before, &request, timeout, |answer, bytes| {
            let Answer::Delivery(delivery) = answer else { return None };
            Some(Self {
                handle: handle.clone(),
                delivery: delivery.delivery,
                message: delivery.data.message(bytes).ok()?,
                redelivered: delivery.redelivered,
                at_end: delivery.at_end,
                end: End::GiveBack,
            })
        })
    }

    pub(crate) fn ack(mut self) -> Message {
        self.end = End::Ack;
        self.message.clone()
    }

    /// It is acknowledged with what is asked next, or when it is dropped.
    pub(crate) fn ack_later(&mut self) {
        self.end = End::Ack;
    }

    /// What tells that, for this handle.
    pub(crate) fn ack_request(&self, handle: &Arc<Handle>) -> Option<Request<'static>> {
        let is_its = Arc::ptr_eq(&self.handle, handle) && self.end == End::Ack;
        is_its.then(|| Request::Ack { handle: handle.number, delivery: self.delivery })
    }

    /// It was told.
    pub(crate) fn forget(mut self) {
        self.end = End::Nothing;
    }

    pub(crate) fn redelivered(&self) -> bool {
        self.redelivered
    }

    pub(crate) fn at_end(&self) -> bool {
        self.at_end
    }
}

impl Deref for Loan {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let (handle, delivery) = (self.handle.number(), self.delivery);
        let request = match self.end {
            End::Ack => Request::Ack { handle, delivery },
            End::GiveBack => Request::GiveBack { handle, delivery },
            End::Nothing => return,
        };
        self.handle.tell(&[request]);
    }
}

impl fmt::Debug for Loan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loan").field("message", &self.message).finish_non_exhaustive()
    }
}

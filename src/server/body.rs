//! The body of a request, received only when a handler asks for it. It is counted with what all connections hold, and a client
//! that is slow with it is not waited for. Where few places have to be enough, it gives up its own to whoever comes.

#[cfg(feature = "manage")]
use std::any::Any;
use std::{borrow::Cow, cell::RefCell, io, time::Duration};

use bytes::Bytes;
use http::{StatusCode, header};

use super::{
    incoming::{Incoming, LINGER, More},
    pace::Pace,
};
use crate::{
    buffered::{Buffered, Held},
    deadline::Deadline,
    http::{Decoder, Framing, Part, Refusal, Request},
    limits::Limits,
    scarce::grow,
};

/// How much is received at a time.
const ROOM: usize = 16 * 1024;

/// As much of a body that no handler has asked for is thrown away to go on with the next request.
const MAX_DRAINED: u64 = 64 * 1024;

/// A body that has not come after so long has no place that another connection needs.
pub(super) const FIRM: Duration = Duration::from_secs(1);

/// The place of a connection.
pub(super) trait Place {
    /// From now on it may go to another connection that needs one.
    fn offer(&self);

    /// Not any more. False: it has gone.
    fn take_back(&self) -> bool;
}

/// The body of the request that is being answered. Whoever drops it holds nothing any more.
pub(super) struct RequestBody<'a> {
    incoming: RefCell<&'a mut Incoming>,
    limits: &'a Limits,
    all: &'a Buffered,
    held: Held,
    /// The place that the connection may lose meanwhile.
    place: Option<&'a dyn Place>,
    /// What came of it, once a handler has asked.
    received: RefCell<Option<Result<Bytes, Refusal>>>,
}

/// What a request's head says of its body.
pub(super) struct Declared {
    framing: Framing,
    expects_continue: bool,
}

impl Declared {
    /// # Errors
    /// What is to be answered if it is not clear where the body ends. Then no other request can follow.
    pub(super) fn of(request: &Request) -> Result<Self, Refusal> {
        let framing = Framing::of(request)?;
        let expects_continue = expects_continue(request)? && framing != Framing::Length(0);
        Ok(Self { framing, expects_continue })
    }
}

impl<'a> RequestBody<'a> {
    /// Of the request whose head has just been received.
    pub(super) fn new(
        declared: &Declared,
        incoming: &'a mut Incoming,
        limits: &'a Limits,
        all: &'a Buffered,
        place: Option<&'a dyn Place>,
    ) -> Self {
        incoming.body = Decoder::new(declared.framing);
        incoming.expects_continue = declared.expects_continue;
        let (held, received) = Default::default();
        Self { incoming: RefCell::new(incoming), limits, all, held, place, received }
    }

    /// All of it. For so long the connection keeps its place, however few there are.
    pub(super) fn get(&self, firm: Duration) -> Result<Bytes, Refusal> {
        let receive = || {
            let incoming = &mut **self.incoming.borrow_mut();
            let received = self.receive(incoming, Deadline::after(firm));
            incoming.is_broken = received.is_err();
            received
        };
        self.received.borrow_mut().get_or_insert_with(receive).clone()
    }

    /// That of the listener.
    #[cfg(feature = "manage")]
    pub(super) fn tag(&self) -> u8 {
        self.incoming.borrow().tag
    }

    /// Keeps a value with the connection, in place of another one.
    #[cfg(feature = "manage")]
    pub(super) fn keep(&self, value: Box<dyn Any + Send>) {
        self.incoming.borrow_mut().kept = Some(value);
    }

    #[cfg(feature = "manage")]
    pub(super) fn has_kept(&self) -> bool {
        self.incoming.borrow().kept.is_some()
    }

    #[cfg(feature = "manage")]
    pub(super) fn take_kept(&self) -> Option<Box<dyn Any + Send>> {
        self.incoming.borrow_mut().kept.take()
    }

    /// Whether nobody waits for a response: the client has ended its side, or the server shuts down.
    #[cfg(feature = "manage")]
    pub(super) fn is_over(&self) -> bool {
        self.incoming.borrow().is_over()
    }

    fn receive(&self, incoming: &mut Incoming, firm: Deadline) -> Result<Bytes, Refusal> {
        let max = self.limits.max_body;
        if incoming.body.left().is_some_and(|left| left > max as u64) {
            return Err(too_large(max));
        }
        let mut pace = Pace::new(self.limits.handshake_timeout, self.limits.min_http_rate);
        incoming.send_continue(pace.deadline())?;
        let mut body = Vec::new();
        loop {
            let input = incoming.stream.input();
            let taken = match incoming.body.next(input)? {
                Part::End => return Ok(body.into()),
                Part::Data(length) => {
                    if length > max - body.len() {
                        return Err(too_large(max));
                    }
                    grow(&mut body, length).map_err(|_| short_of_memory())?;
                    body.extend_from_slice(&input[..length]);
                    if !self.held.try_set(body.capacity(), self.all) {
                        return Err(short_of_memory());
                    }
                    pace.advance(length);
                    length
                }
                Part::Other(length) => length,
                Part::Incomplete => {
                    self.receive_more(incoming, &pace, firm)?;
                    0
                }
            };
            incoming.stream.consume(taken);
        }
    }

    fn receive_more(&self, incoming: &mut Incoming, pace: &Pace, firm: Deadline) -> Result<(), Refusal> {
        let Some(place) = self.place else { return come(incoming.receive(ROOM, pace.deadline())) };
        if firm.remaining().is_some() {
            match incoming.receive(ROOM, pace.deadline().or_earlier(firm)) {
                Ok(More::Late) => {}
                received => return come(received),
            }
        }
        place.offer();
        let received = incoming.receive(ROOM, pace.deadline());
        if place.take_back() { come(received) } else { Err(broken()) }
    }
}

impl Drop for RequestBody<'_> {
    fn drop(&mut self) {
        self.held.set(0, self.all);
    }
}

impl Incoming {
    /// The client may wait for this before it sends the body (RFC 9110, section 10.1.1).
    fn send_continue(&mut self, deadline: Deadline) -> Result<(), Refusal> {
        if !std::mem::take(&mut self.expects_continue) || !self.stream.input().is_empty() {
            return Ok(());
        }
        self.stream.output().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        self.send(deadline).map_err(|_| broken())
    }

    /// Whether another request can follow this one: its body has been received, or is so short that it may be thrown away.
    pub(super) fn can_go_on(&self) -> bool {
        // A client that was not told to send its body may send it or not.
        !self.expects_continue && !self.is_broken && self.body.left().is_some_and(|left| left <= MAX_DRAINED)
    }

    /// Receives what is left of the body, and throws it away. False: the next request cannot be found.
    pub(super) fn drain_body(&mut self) -> bool {
        let deadline = Deadline::after(LINGER);
        loop {
            let taken = match self.body.next(self.stream.input()) {
                Ok(Part::End) => return true,
                Ok(Part::Data(length) | Part::Other(length)) => length,
                Ok(Part::Incomplete) => match self.receive(ROOM, deadline) {
                    Ok(More::Some) => 0,
                    _ => return false,
                },
                Err(_) => return false,
            };
            self.stream.consume(taken);
        }
    }
}

/// Whether some more of the body has come.
fn come(received: io::Result<More>) -> Result<(), Refusal> {
    match received {
        Ok(More::Some) => Ok(()),
        Ok(More::Late) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body came too slowly")),
        Ok(More::End | More::NotTls(_)) | Err(_) => Err(broken()),
    }
}

fn expects_continue(request: &Request) -> Result<bool, Refusal> {
    if request.is_http_10() {
        return Ok(false);
    }
    match request.headers().get(header::EXPECT) {
        None => Ok(false),
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(true),
        Some(_) => {
            Err(Refusal::new(StatusCode::EXPECTATION_FAILED, "only Expect: 100-continue is supported"))
        }
    }
}

fn too_large(max: usize) -> Refusal {
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, Cow::Owned(format!("a body may have {max} bytes")))
}

fn short_of_memory() -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the server is short of memory")
        .with_header(header::RETRY_AFTER, "5")
}

fn broken() -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "the body ended early")
}

//! Messages pushed while the codec's lock was taken, or while the socket took no more: in order, and within a budget.
//!
//! Made at the first need: most connections never have one.

use std::{
    error::Error,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use crossbeam_channel::{Receiver, Sender};

use crate::{
    buffered::{Buffered, kib},
    codec::Outgoing,
    error::{self, CloseReason},
    http::Refusal,
    limits::Limits,
    message::Message,
};

/// What becomes of a push when the connection's queue is full, because its client is too slow. To wait for it instead is
/// the caller's choice: see [`Hub::push_wait`](crate::Hub::push_wait).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// The connection is closed with 1013: the client may come again. The default.
    #[default]
    Disconnect,
    /// The new message is dropped, and the caller is told.
    DropNewest,
}

/// What became of a message that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the message may have been sent, or only be queued"]
#[non_exhaustive]
pub enum Pushed {
    /// The kernel has it.
    Sent,
    /// It is queued, in order, and will be sent when the client takes more.
    Queued,
}

/// A push that failed; it gives the message back. Where that is not wanted, `?` makes an [`Error`](crate::Error) of it.
#[derive(Debug)]
#[non_exhaustive]
pub struct PushError {
    /// Why.
    pub kind: PushErrorKind,
    /// What was not sent; with [`PushErrorKind::Pending`], what may still be.
    pub message: Message,
}

/// Why a push failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum PushErrorKind {
    /// No connection has this ID, or none has it any more.
    Unknown,
    /// The connection was not opened: its handshake was refused, or came to nothing.
    Refused,
    /// The connection is closing, or was just closed because its queue was full ([`Overflow::Disconnect`]).
    Closed(CloseReason),
    /// The queue is full: dropped, as [`Overflow::DropNewest`] says, or because the connection is not open yet.
    Full,
    /// `push_wait` only: the time is up, and nothing of the message was sent. Nor will it be.
    Timeout,
    /// `push_wait` only: the time is up while the message is being sent. What is left of it goes out as the client takes
    /// it, so whoever sends it again may send it twice.
    Pending,
    /// `push_wait` was called by a thread of the gateway, which would wait for itself: in
    /// [`on_client_message`](crate::WebSocketServer::on_client_message) or `on_post_server` of a shared connection with
    /// [`Limits::workers`](crate::Limits::workers) 0, or in a [`HubObserver`](crate::HubObserver); or by the `on_pre_server`
    /// that the connection itself waits for. Nothing was sent.
    MustNotWait,
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            PushErrorKind::Unknown => f.write_str("no connection has this ID"),
            PushErrorKind::Refused => f.write_str("the connection was refused in its opening handshake"),
            PushErrorKind::Closed(reason) => write!(f, "connection closed: {reason}"),
            PushErrorKind::Full => f.write_str("the connection's queue is full"),
            PushErrorKind::Timeout => f.write_str("timed out before anything was sent"),
            PushErrorKind::Pending => f.write_str("timed out while the message is being sent"),
            PushErrorKind::MustNotWait => f.write_str("this thread must not wait: it would wait for itself"),
        }
    }
}

impl Error for PushError {}

/// For `?`; the message is dropped. [`Timeout`](crate::Error::Timeout) is also what is [pending](PushErrorKind::Pending).
impl From<PushError> for error::Error {
    fn from(error: PushError) -> Self {
        match error.kind {
            PushErrorKind::Unknown => Self::UnknownId,
            PushErrorKind::Refused => Self::Refused,
            PushErrorKind::Closed(reason) => Self::Closed(reason),
            PushErrorKind::Full => Self::QueueFull,
            PushErrorKind::Timeout | PushErrorKind::Pending => Self::Timeout,
            PushErrorKind::MustNotWait => Self::MustNotWait,
        }
    }
}

/// For `?` in `on_pre_server`, and in the handler of a page: as of the [`Error`](crate::Error) that it becomes.
impl From<PushError> for Refusal {
    fn from(error: PushError) -> Self {
        error::Error::from(error).into()
    }
}

#[derive(Debug)]
pub(super) struct Outbox {
    put: Sender<Outgoing>,
    taken: Receiver<Outgoing>,
    /// What is in it, or about to be.
    bytes: AtomicUsize,
    messages: AtomicUsize,
    /// Bytes that no other connection shares.
    own_bytes: AtomicUsize,
    /// Where these count.
    buffered: Arc<Buffered>,
}

impl Outbox {
    pub(super) fn new(buffered: &Arc<Buffered>) -> Self {
        let (put, taken) = crossbeam_channel::unbounded();
        Self {
            put,
            taken,
            bytes: AtomicUsize::new(0),
            messages: AtomicUsize::new(0),
            own_bytes: AtomicUsize::new(0),
            buffered: buffered.clone(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.taken.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(SeqCst)
    }

    /// How many of these only this connection holds.
    pub(super) fn own_bytes(&self) -> usize {
        self.own_bytes.load(SeqCst)
    }

    /// Puts it in if there is room; an empty outbox has room for any message.
    pub(super) fn put(&self, outgoing: Outgoing, limits: &Limits) -> Result<(), Outgoing> {
        let (size, max) = (outgoing.message.len(), limits.queue_bytes());
        let fits = |bytes: usize| {
            (bytes == 0 || bytes.saturating_add(size) <= max).then(|| bytes.saturating_add(size))
        };
        if self.bytes.fetch_update(SeqCst, SeqCst, fits).is_err() {
            return Err(outgoing);
        }
        if self.messages.fetch_add(1, SeqCst) >= limits.max_queue_messages {
            self.messages.fetch_sub(1, SeqCst);
            self.bytes.fetch_sub(size, SeqCst);
            return Err(outgoing);
        }
        let own = outgoing.own_size();
        let before = self.own_bytes.fetch_add(own, SeqCst);
        self.buffered.change(kib(before), kib(before + own));
        // The receiver is in the same struct: it cannot be gone.
        let _ = self.put.send(outgoing);
        Ok(())
    }

    pub(super) fn take(&self) -> Option<Outgoing> {
        let outgoing = self.taken.try_recv().ok()?;
        self.bytes.fetch_sub(outgoing.message.len(), SeqCst);
        self.messages.fetch_sub(1, SeqCst);
        let own = outgoing.own_size();
        let before = self.own_bytes.fetch_sub(own, SeqCst);
        self.buffered.change(kib(before), kib(before - own));
        Some(outgoing)
    }

    /// Empties it: the connection ends.
    pub(super) fn clear(&self) {
        while self.take().is_some() {}
    }
}

/// What is in it is free now.
impl Drop for Outbox {
    fn drop(&mut self) {
        self.clear();
    }
}

//! Messages pushed while the codec's lock was taken, or while the socket took no more: in order, and within a budget.
//!
//! Made at the first need: most connections never have one.

use std::{
    error::Error,
    fmt,
    sync::{
        Condvar, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use crossbeam_channel::{Receiver, Sender};

use crate::{
    codec::Outgoing, deadline::Deadline, error::CloseReason, limits::Limits, message::Message, sync::LockExt,
};

/// What becomes of a push when the connection's queue is full, because its client is too slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// The connection is closed with 1013: the client may come again. The default.
    #[default]
    Disconnect,
    /// The new message is dropped, and the caller is told.
    DropNewest,
    /// The caller waits for room, for so long at most; then the message is dropped, and the caller is told.
    Block(Duration),
}

/// What became of a message that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// The kernel has it.
    Sent,
    /// It is queued, in order, and will be sent when the client takes more.
    Queued,
}

/// A push that failed; it gives the message back.
#[derive(Debug)]
pub struct PushError {
    /// Why.
    pub kind: PushErrorKind,
    /// What was not sent.
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
    /// The queue is full: dropped, as [`Overflow::DropNewest`] or [`Overflow::Block`] says, or because the connection is
    /// not open yet.
    Full,
}

impl fmt::Display for PushError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            PushErrorKind::Unknown => f.write_str("no connection has this ID"),
            PushErrorKind::Refused => f.write_str("the connection was refused in its opening handshake"),
            PushErrorKind::Closed(reason) => write!(f, "connection closed: {reason}"),
            PushErrorKind::Full => f.write_str("the connection's queue is full"),
        }
    }
}

impl Error for PushError {}

#[derive(Debug)]
pub(super) struct Outbox {
    put: Sender<Outgoing>,
    taken: Receiver<Outgoing>,
    /// What is in it, or about to be.
    bytes: AtomicUsize,
    messages: AtomicUsize,
    /// How many wait for room.
    waiters: AtomicUsize,
    waiting: Mutex<()>,
    freed: Condvar,
}

impl Outbox {
    pub(super) fn new() -> Self {
        let (put, taken) = crossbeam_channel::unbounded();
        Self {
            put,
            taken,
            bytes: AtomicUsize::new(0),
            messages: AtomicUsize::new(0),
            waiters: AtomicUsize::new(0),
            waiting: Mutex::new(()),
            freed: Condvar::new(),
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

    /// Puts it in if there is room; an empty outbox has room for any message.
    pub(super) fn put(&self, outgoing: Outgoing, limits: &Limits) -> Result<(), Outgoing> {
        let (size, max) = (outgoing.message.len(), limits.max_queue_bytes);
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
        // The receiver is in the same struct: it cannot be gone.
        let _ = self.put.send(outgoing);
        Ok(())
    }

    pub(super) fn take(&self) -> Option<Outgoing> {
        let outgoing = self.taken.try_recv().ok()?;
        self.bytes.fetch_sub(outgoing.message.len(), SeqCst);
        self.messages.fetch_sub(1, SeqCst);
        if self.waiters.load(SeqCst) > 0 {
            // With the lock, so that nobody is between its look and its wait.
            let _guard = self.waiting.locked();
            self.freed.notify_all();
        }
        Some(outgoing)
    }

    /// Empties it: the connection ends.
    pub(super) fn clear(&self) {
        while self.take().is_some() {}
    }

    /// Waits until something was taken. False: the time was up.
    pub(super) fn wait_for_room(&self, deadline: Deadline) -> bool {
        let Some(left) = deadline.remaining() else { return false };
        self.waiters.fetch_add(1, SeqCst);
        let guard = self.waiting.locked();
        if !self.is_empty() {
            drop(self.freed.wait_timeout(guard, left));
        }
        self.waiters.fetch_sub(1, SeqCst);
        true
    }
}

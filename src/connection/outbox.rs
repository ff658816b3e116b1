//! Messages pushed while the codec's lock was taken, or while the socket took no more: in order, and within a budget.
//!
//! Made at the first need: most connections never have one.

use std::{
    collections::HashMap,
    error::Error,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use crossbeam_channel::{Receiver, Sender};

use crate::{
    buffered::{Buffered, kib},
    codec::Outgoing,
    error::{self, CloseReason, OverLimit},
    http::Refusal,
    limits::Limits,
    message::Message,
    sync::LockExt,
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
    /// For values that are of no use when a newer one is there, such as the progress of something or what a sensor shows: of the
    /// messages that are queued under one key, only the newest is sent, in the place of the first one. Messages get their key by
    /// [`Payload::newest`](crate::Payload::newest); for those without one, and if the queue is full of others, this is as
    /// [`DropNewest`](Self::DropNewest).
    KeepNewest,
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
    /// It was sent to the node of the [cluster](crate::ServerBuilder::cluster) that has the connection, which is alive and listens. What
    /// becomes of it there, nobody tells: [`Hub::push_wait`](crate::Hub::push_wait) does.
    Forwarded,
}

/// `sent`, `queued` or `forwarded`.
impl fmt::Display for Pushed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sent => "sent",
            Self::Queued => "queued",
            Self::Forwarded => "forwarded",
        })
    }
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
#[derive(Clone, Debug)]
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
    /// that the connection itself waits for. Nothing was sent. Pushes to the hub of another process wait for its answer, all of
    /// them.
    MustNotWait,
    /// The hub is that of another process, or the connection another node's, and there is no link to it, or no answer has come in time.
    /// In the second case the message may have been sent, so whoever sends it again may send it twice.
    Unreachable,
    /// The hub is that of another process, and the token, or the listener that it was connected to, is for reading only.
    Forbidden,
    /// The hub is that of another process, or the connection another node's, and the message is too long to be sent there, or too many
    /// calls wait. Nothing was sent.
    OverLimit(OverLimit),
}

impl PushErrorKind {
    /// What keeps a push from being asked, or answered.
    #[cfg(feature = "remote")]
    pub(crate) fn of(error: crate::error::Error) -> Self {
        use crate::error::Error;
        match error {
            Error::MustNotWait => Self::MustNotWait,
            Error::OverLimit(limit) => Self::OverLimit(limit),
            Error::UnknownId => Self::Unknown,
            _ => Self::Unreachable,
        }
    }
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
            PushErrorKind::Unreachable => error::Error::Unreachable.fmt(f),
            PushErrorKind::Forbidden => error::Error::Forbidden.fmt(f),
            PushErrorKind::OverLimit(limit) => limit.fmt(f),
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
            PushErrorKind::Unreachable => Self::Unreachable,
            PushErrorKind::Forbidden => Self::Forbidden,
            PushErrorKind::OverLimit(limit) => Self::OverLimit(limit),
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
    put: Sender<Queued>,
    taken: Receiver<Queued>,
    /// Those that a newer one of the same key replaces; each has its place in the queue.
    newest: Mutex<HashMap<Arc<str>, Outgoing>>,
    /// What is in it, or about to be.
    bytes: AtomicUsize,
    messages: AtomicUsize,
    /// Bytes that no other connection shares.
    own_bytes: AtomicUsize,
    /// Where these count.
    buffered: Arc<Buffered>,
}

#[derive(Debug)]
enum Queued {
    Message(Outgoing),
    /// What is the newest one under this key, when its turn comes.
    Newest(Arc<str>),
}

impl Outbox {
    pub(super) fn new(buffered: &Arc<Buffered>) -> Self {
        let (put, taken) = crossbeam_channel::unbounded();
        Self {
            put,
            taken,
            newest: Mutex::default(),
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
        if !self.take_place(&outgoing, limits) {
            return Err(outgoing);
        }
        self.send(Queued::Message(outgoing));
        Ok(())
    }

    /// As [`put`](Self::put), but in place of what is in it under the same key, if there is something.
    pub(super) fn put_newest(
        &self,
        key: &Arc<str>,
        outgoing: Outgoing,
        limits: &Limits,
    ) -> Result<(), Outgoing> {
        let mut newest = self.newest.locked();
        if let Some(queued) = newest.get_mut(key) {
            if !self.take_bytes(queued.message.len(), outgoing.message.len(), limits) {
                return Err(outgoing);
            }
            self.count_own(queued.own_size(), outgoing.own_size());
            *queued = outgoing;
            return Ok(());
        }
        if !self.take_place(&outgoing, limits) {
            return Err(outgoing);
        }
        newest.insert(key.clone(), outgoing);
        self.send(Queued::Newest(key.clone()));
        Ok(())
    }

    pub(super) fn take(&self) -> Option<Outgoing> {
        let outgoing = match self.taken.try_recv().ok()? {
            Queued::Message(outgoing) => outgoing,
            Queued::Newest(key) => self.newest.locked().remove(&key)?,
        };
        self.bytes.fetch_sub(outgoing.message.len(), SeqCst);
        self.messages.fetch_sub(1, SeqCst);
        self.count_own(outgoing.own_size(), 0);
        Some(outgoing)
    }

    /// A place for one more message. False: there is none.
    fn take_place(&self, outgoing: &Outgoing, limits: &Limits) -> bool {
        let size = outgoing.message.len();
        if !self.take_bytes(0, size, limits) {
            return false;
        }
        if self.messages.fetch_add(1, SeqCst) >= limits.max_queue_messages {
            self.messages.fetch_sub(1, SeqCst);
            self.bytes.fetch_sub(size, SeqCst);
            return false;
        }
        self.count_own(0, outgoing.own_size());
        true
    }

    /// Room for so many bytes in place of so many. False: there is none.
    fn take_bytes(&self, was: usize, is: usize, limits: &Limits) -> bool {
        let max = limits.queue_bytes();
        let changed = |bytes: usize| {
            let others = bytes.saturating_sub(was);
            let all = others.saturating_add(is);
            (others == 0 || all <= max).then_some(all)
        };
        self.bytes.fetch_update(SeqCst, SeqCst, changed).is_ok()
    }

    fn count_own(&self, was: usize, is: usize) {
        let before = self.own_bytes.fetch_add(is.wrapping_sub(was), SeqCst); // it wraps, too
        let after = before.wrapping_add(is).wrapping_sub(was);
        self.buffered.change(kib(before), kib(after));
    }

    fn send(&self, queued: Queued) {
        // The receiver is in the same struct: it cannot be gone.
        let _ = self.put.send(queued);
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever is put in and taken: each once, in order, or the newest of its key in the place of the first; and the numbers are
        /// those of what is in it.
        #[test]
        fn holds_what_was_put_in(
            steps in prop::collection::vec((0..4_u8, 0..40_usize, prop::option::of(0..3_u8)), 1..200)
        ) {
            let limits = Limits { max_queue_messages: 6, max_queue_bytes: Some(100), ..Limits::default() };
            let outbox = Outbox::new(&Arc::new(Buffered::new(usize::MAX)));
            let mut model: Vec<(Option<u8>, usize)> = Vec::new();
            for (step, size, key) in steps {
                let bytes: usize = model.iter().map(|(_, size)| size).sum();
                prop_assert_eq!((outbox.len(), outbox.bytes(), outbox.own_bytes()), (model.len(), bytes, bytes));
                if step == 0 {
                    let taken = outbox.take().map(|outgoing| outgoing.message.len());
                    let expected = (!model.is_empty()).then(|| model.remove(0).1);
                    prop_assert_eq!(taken, expected);
                    continue;
                }
                let outgoing = Outgoing::from(Message::from(vec![0; size]));
                let older = model.iter_mut().find(|(other, _)| key.is_some() && *other == key);
                let others = bytes - older.as_ref().map_or(0, |(_, size)| *size);
                let has_place = older.is_some() || model.len() < 6;
                let fits = has_place && (others == 0 || others + size <= 100);
                let put = match key {
                    Some(key) => outbox.put_newest(&Arc::from(key.to_string()), outgoing, &limits),
                    None => outbox.put(outgoing, &limits),
                };
                prop_assert_eq!(put.is_ok(), fits);
                if fits {
                    match model.iter_mut().find(|(other, _)| key.is_some() && *other == key) {
                        Some((_, older)) => *older = size,
                        None => model.push((key, size)),
                    }
                }
            }
            outbox.clear();
            prop_assert_eq!((outbox.len(), outbox.bytes(), outbox.own_bytes()), (0, 0, 0));
            prop_assert!(outbox.newest.locked().is_empty());
        }
    }
}

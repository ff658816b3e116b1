//! A connection that is being opened: it has its ID, and its application is asked whether it may be opened. What is pushed to
//! it is queued, and who needs the connection waits for the answer.

use std::{
    cell::RefCell,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, ThreadId},
    time::Duration,
};

use crate::{
    awaited::{Answer, Awaited},
    buffered::{Buffered, Held},
    connection::{Connection, PushError, PushErrorKind, Pushed, QUEUE_OVERFLOWED},
    deadline::Deadline,
    error::{CloseReason, ClosedBy, Error, Result},
    id::WebSocketId,
    limits::Limits,
    message::{CloseCode, Message, Text},
    thread::must_not_wait,
};

/// A connection that is being opened, or was when somebody looked for it.
#[derive(Debug)]
pub(crate) struct Pending {
    id: WebSocketId,
    /// The thread that asks the application, and must not wait for itself.
    thread: ThreadId,
    limits: Arc<Limits>,
    awaited: Awaited<Queue, Arc<Connection>>,
    /// For those who go on using this: so they need no lock later.
    opened: OnceLock<Arc<Connection>>,
    /// What it gets of topics begins with a line that says the position.
    numbered: AtomicBool,
    /// It will have [`Overflow::KeepNewest`](crate::Overflow::KeepNewest), as far as its application has said.
    keeps_newest: AtomicBool,
}

/// Messages that were pushed already.
#[derive(Debug)]
struct Queue {
    messages: Vec<(Message, Option<Arc<str>>)>,
    /// What they add to what all connections hold.
    held: Held,
    buffered: Arc<Buffered>,
    /// How many there were, and their bytes, those included that were handed over: so all of them find room in the
    /// connection's own queue.
    count: usize,
    bytes: usize,
    /// It is to be closed as soon as it is open.
    close: Option<Box<(CloseCode, Text)>>,
}

impl Queue {
    fn new(buffered: Arc<Buffered>) -> Self {
        Self { messages: Vec::new(), held: Held::default(), buffered, count: 0, bytes: 0, close: None }
    }

    /// An empty queue has room for any message, as that of an open connection; but nobody is ended for it.
    fn put(
        &mut self,
        message: Message,
        key: Option<Arc<str>>,
        limits: &Limits,
    ) -> Result<(), (PushErrorKind, Message)> {
        if let Some((code, text)) = self.close.as_deref() {
            // What comes later would be sent without what there was no room for.
            let reason = CloseReason::new(*code, text.clone(), ClosedBy::Server);
            return Err((PushErrorKind::Closed(reason), message));
        }
        let bytes = self.bytes.saturating_add(message.len());
        let has_room = self.count < limits.max_queue_messages
            && (self.bytes == 0 || bytes <= limits.queue_bytes())
            && self.held.try_set(bytes, &self.buffered);
        if !has_room {
            return Err((PushErrorKind::Full, message));
        }
        (self.count, self.bytes) = (self.count + 1, bytes);
        self.messages.push((message, key));
        Ok(())
    }

    /// As [`put`](Self::put), but in place of those that have the same key.
    fn put_newest(
        &mut self,
        message: Message,
        key: Arc<str>,
        limits: &Limits,
    ) -> Result<(), (PushErrorKind, Message)> {
        let is_older = |(_, other): &(Message, Option<Arc<str>>)| other.as_ref() == Some(&key);
        let Some(place) = self.messages.iter().position(is_older) else {
            return self.put(message, Some(key), limits);
        };
        let older = self.messages.extract_if(.., |item| is_older(item)).collect::<Vec<_>>();
        self.count -= older.len();
        self.bytes -= older.iter().map(|(older, _)| older.len()).sum::<usize>();
        let put = self.put(message, Some(key), limits);
        if put.is_ok() {
            let last = self.messages.len() - 1;
            self.messages[place..=last].rotate_right(1);
            return put;
        }
        // They stay. Their places among the others do not matter more than that.
        self.count += older.len();
        self.bytes += older.iter().map(|(older, _)| older.len()).sum::<usize>();
        self.messages.splice(place..place, older);
        put
    }

    fn take(&mut self) -> Option<Vec<(Message, Option<Arc<str>>)>> {
        self.held.set(0, &self.buffered); // the connection counts them now
        (!self.messages.is_empty()).then(|| std::mem::take(&mut self.messages))
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.held.set(0, &self.buffered);
    }
}

impl Pending {
    /// Of the thread that calls it.
    pub(crate) fn new(id: WebSocketId, limits: Arc<Limits>, buffered: Arc<Buffered>) -> Self {
        let (thread, awaited) = (thread::current().id(), Awaited::new(Queue::new(buffered)));
        let (numbered, keeps_newest) = Default::default();
        Self { id, thread, limits, awaited, opened: OnceLock::new(), numbered, keeps_newest }
    }

    pub(crate) fn id(&self) -> &WebSocketId {
        &self.id
    }

    /// The connection, if it has been opened meanwhile.
    pub(crate) fn get(&self) -> Option<&Arc<Connection>> {
        self.opened.get()
    }

    /// What it gets of topics begins with a line that says the position, from now on.
    pub(crate) fn set_numbered(&self) {
        self.numbered.store(true, SeqCst);
    }

    pub(crate) fn is_numbered(&self) -> bool {
        self.numbered.load(SeqCst)
    }

    pub(crate) fn set_keeps_newest(&self, on: bool) {
        self.keeps_newest.store(on, SeqCst);
    }

    /// Pushes to the connection: what it cannot send yet is queued, within the limits of its queue.
    pub(crate) fn push(&self, message: Message, key: Option<&Arc<str>>) -> Result<Pushed, PushError> {
        if let Some(connection) = self.get() {
            return connection.push(message, None, key);
        }
        let put = |queue: &mut Queue, message| match key {
            Some(key) if self.keeps_newest.load(SeqCst) => {
                queue.put_newest(message, key.clone(), &self.limits)
            }
            _ => queue.put(message, key.cloned(), &self.limits),
        };
        match self.awaited.queue(message, put) {
            Ok(Ok(())) => Ok(Pushed::Queued),
            Ok(Err((kind, message))) => Err(PushError { kind, message }),
            Err((Answer::Here(connection), message)) => connection.push(message, None, key),
            Err((Answer::Never, message)) => Err(PushError { kind: PushErrorKind::Refused, message }),
        }
    }

    /// How many messages are queued, and their bytes.
    pub(crate) fn queued(&self) -> (usize, usize) {
        match self.awaited.queue((), |queue, ()| (queue.count, queue.bytes)) {
            Ok(queued) => queued,
            Err((Answer::Here(connection), ())) => connection.queued(),
            Err((Answer::Never, ())) => (0, 0),
        }
    }

    /// As [`push`](Self::push), of what must not be missing: where there is no room for it, the connection is closed, as soon as it
    /// is open. It comes again for what it has missed.
    pub(crate) fn push_or_close(&self, message: Message) -> Result<Pushed, PushError> {
        let pushed = self.push(message, None);
        if let Err(PushError { kind: PushErrorKind::Full, .. }) = &pushed {
            let _ = self.close(CloseCode::TRY_AGAIN, QUEUE_OVERFLOWED); // it is refused otherwise
        }
        pushed
    }

    /// Closes the connection, as soon as it is open. False: it is closed already.
    ///
    /// # Errors
    /// [`Error::Refused`] if it will not be opened.
    pub(crate) fn close(&self, code: CloseCode, text: &str) -> Result<bool> {
        let close = Box::new((code, Text::from(text)));
        let put = |queue: &mut Queue, close| queue.close = queue.close.take().or(Some(close));
        match self.awaited.queue(close, put) {
            Ok(()) => Ok(true),
            Err((Answer::Here(connection), _)) => {
                let was_open = connection.reason().is_none();
                connection.close(code, text);
                Ok(was_open)
            }
            Err((Answer::Never, _)) => Err(Error::Refused),
        }
    }

    /// Waits until the connection is open, and then until the kernel has the message.
    pub(crate) fn push_wait(&self, message: Message, timeout: Duration) -> Result<(), PushError> {
        let deadline = Deadline::after(timeout);
        match self.wait(deadline) {
            Ok(connection) => connection.push_wait(message, deadline.remaining().unwrap_or_default()),
            Err(e) => {
                let kind = match e {
                    Error::Timeout => PushErrorKind::Timeout,
                    Error::NotOpen => PushErrorKind::MustNotWait,
                    _ => PushErrorKind::Refused,
                };
                Err(PushError { kind, message })
            }
        }
    }

    /// Waits until the connection is open.
    ///
    /// # Errors
    /// [`Error::Refused`] if it is not opened, [`Error::Timeout`], and at once [`Error::NotOpen`] on the thread that opens it
    /// and on one that must not wait.
    pub(crate) fn wait(&self, deadline: Deadline) -> Result<Arc<Connection>> {
        let must_not_wait = || self.thread == thread::current().id() || must_not_wait();
        let answer = match self.awaited.answer() {
            None if must_not_wait() => return Err(Error::NotOpen),
            None => self.awaited.wait(|| deadline.remaining()),
            answered => answered,
        };
        match answer {
            Some(Answer::Here(connection)) => Ok(connection),
            Some(Answer::Never) => Err(Error::Refused),
            None => Err(Error::Timeout),
        }
    }

    /// The connection is open: it takes over what is queued; then it is made known.
    pub(crate) fn open(&self, connection: &Arc<Connection>, make_known: impl FnOnce()) {
        let close = RefCell::new(None);
        self.awaited.fulfil(
            connection.clone(),
            |queue| {
                // It stays there: what comes later is not to be sent without what there was no room for.
                close.replace(queue.close.clone());
                queue.take()
            },
            |messages| {
                messages.into_iter().for_each(|(message, key)| connection.push_ahead(message, key.as_ref()));
            },
            || {
                // And so it is closed before anyone can push to it.
                if let Some((code, text)) = close.borrow().as_deref() {
                    connection.close(*code, text);
                }
                make_known();
                let _ = self.opened.set(connection.clone());
            },
        );
    }

    /// It will not be opened: what is queued is dropped.
    pub(crate) fn refuse(&self) {
        self.awaited.give_up();
    }
}

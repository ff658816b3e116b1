//! Reading at least once: what was read comes back, unless its reader acknowledges it.

#[cfg(feature = "manage")]
use std::sync::atomic::Ordering::SeqCst;
use std::{
    fmt,
    ops::Deref,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use super::{lent::Lent, mailbox::Within, parts::Connection};
use crate::{
    error::{Error, Result},
    message::Message,
    sync::LockExt,
};

/// A message of a shared connection, or a piece of one, that is read and not [acknowledged](Self::ack) yet. Dropped without that, it
/// goes back.
#[must_use = "what is dropped goes back, to be read again"]
pub(crate) struct Loan {
    connection: Arc<Connection>,
    message: Message,
    lent: Lent,
    is_acked: bool,
}

impl Loan {
    /// Acknowledges it, when all is done that has to be done for it: nobody will get it again.
    pub(crate) fn ack(mut self) -> Message {
        self.is_acked = true;
        self.message.clone()
    }

    /// Gives it back as if it had never been read: nobody has seen it.
    #[cfg(feature = "manage")]
    pub(crate) fn give_back_unseen(mut self) {
        self.lent.is_unseen = true;
    }

    /// Whether somebody has had it before, or a part of it, and did not acknowledge that: what it asks for may have been done.
    pub(crate) fn redelivered(&self) -> bool {
        self.lent.again
    }

    /// Whether it reaches the end of its message.
    pub(crate) fn at_end(&self) -> bool {
        self.lent.at_end()
    }

    /// By this deliveries are in the order in which they were received, those of each connection.
    #[cfg(feature = "manage")]
    pub(crate) fn place(&self) -> (usize, u64, usize) {
        let (number, start) = self.lent.place();
        (Arc::as_ptr(&self.connection).addr(), number, start)
    }
}

impl fmt::Debug for Loan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = f.debug_struct("Loan");
        all.field("message", &self.message).field("redelivered", &self.redelivered());
        all.field("at_end", &self.at_end()).finish_non_exhaustive()
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
        self.connection.settle(&self.lent, self.is_acked);
    }
}

impl Connection {
    /// As [`read`](Self::read), of a shared connection. An end waits also until what it returns is acknowledged.
    pub(crate) fn read_loan(
        self: &Arc<Self>,
        len: usize,
        timeout: Duration,
        reader: &AtomicBool,
    ) -> Result<Loan> {
        if !self.about.shared {
            return Err(Error::NotShared);
        }
        let (message, lent) = self.take_shared(timeout, reader, |inbox| inbox.lend(len))?;
        Ok(Loan { connection: self.clone(), message, lent, is_acked: false })
    }

    /// As [`read_loan`](Self::read_loan), with `None` as soon as `is_over`; whoever sets that [tells](Self::wake_all_readers)
    /// those who wait.
    #[cfg(feature = "manage")]
    pub(crate) fn read_loan_unless(
        self: &Arc<Self>,
        is_over: &AtomicBool,
        len: usize,
        timeout: Duration,
        reader: &AtomicBool,
    ) -> Result<Option<Loan>> {
        if !self.about.shared {
            return Err(Error::NotShared);
        }
        let lent = self.take_shared(timeout, reader, |inbox| {
            if is_over.load(SeqCst) { Some(None) } else { inbox.lend(len).map(Some) }
        })?;
        Ok(lent.map(|(message, lent)| Loan { connection: self.clone(), message, lent, is_acked: false }))
    }

    /// All who wait to read look again.
    #[cfg(feature = "manage")]
    pub(crate) fn wake_all_readers(&self) {
        self.wake_readers(self.inbox.locked());
    }

    /// Something is not lent any more: it is done with, or unread again.
    fn settle(self: &Arc<Self>, lent: &Lent, is_done: bool) {
        let mut inbox = self.inbox.locked();
        let comes_back = !is_done && !self.has_hung_up();
        if comes_back {
            inbox.take_back(lent);
        } else {
            inbox.acknowledge(lent);
            self.count_less(&inbox);
        }
        let resumes = inbox.resumes(&self.context.limits);
        let tell = inbox.release_end() || resumes;
        if comes_back {
            self.wake_readers(inbox);
        } else {
            drop(inbox);
        }
        if tell {
            self.post(Within::Now);
        }
    }
}

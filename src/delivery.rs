//! Reading at least once, as the code that uses it has it.

use std::{fmt, ops::Deref};

#[cfg(feature = "remote")]
use crate::remote;
use crate::{connection::Loan, message::Message, place::wherever};

/// A message of a shared connection, or a piece of one, that is read and not [acknowledged](Self::ack) yet; from
/// [`WebSocket::read_delivery`](crate::WebSocket::read_delivery). It dereferences to the [`Message`].
///
/// Dropped without `ack`, also by a panic, it goes back to the head of what waits to be read, in front of all that followed it, and
/// whoever reads next gets it again. Several that go back have their order again, and the pieces of a message that are next to each
/// other are read as one. If this side has closed the connection meanwhile, nothing of it can be read any more.
#[must_use = "a delivery that is dropped goes back, to be read again"]
pub struct Delivery(Place);

enum Place {
    Local(Loan),
    #[cfg(feature = "remote")]
    Remote(remote::Loan),
}

impl Delivery {
    pub(crate) fn local(loan: Loan) -> Self {
        Self(Place::Local(loan))
    }

    #[cfg(feature = "remote")]
    pub(crate) fn remote(loan: remote::Loan) -> Self {
        Self(Place::Remote(loan))
    }

    /// Acknowledges it, when all is done that has to be done for it: nobody will get it again.
    pub fn ack(self) -> Message {
        match self.0 {
            Place::Local(loan) => loan.ack(),
            #[cfg(feature = "remote")]
            Place::Remote(loan) => loan.ack(),
        }
    }

    /// Gives it back as if it had never been read: nobody has seen it.
    #[cfg(feature = "manage")]
    pub(crate) fn give_back_unseen(self) {
        match self.0 {
            Place::Local(loan) => loan.give_back_unseen(),
            #[cfg(feature = "remote")]
            Place::Remote(loan) => drop(loan), // the other process cannot know that
        }
    }

    /// By this deliveries are in the order in which they were received, those of each connection. `None`: another process knows.
    #[cfg(feature = "manage")]
    pub(crate) fn place(&self) -> Option<(usize, u64, usize)> {
        match &self.0 {
            Place::Local(loan) => Some(loan.place()),
            #[cfg(feature = "remote")]
            Place::Remote(_) => None,
        }
    }

    /// Whether somebody has had it before, or a part of it, and did not acknowledge that: what it asks for may have been done.
    pub fn redelivered(&self) -> bool {
        wherever!(self.0, redelivered())
    }

    /// Whether it reaches the end of its message.
    pub fn at_end(&self) -> bool {
        wherever!(self.0, at_end())
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = f.debug_struct("Delivery");
        all.field("message", &**self).field("redelivered", &self.redelivered());
        all.field("at_end", &self.at_end()).finish_non_exhaustive()
    }
}

impl Deref for Delivery {
    type Target = Message;

    fn deref(&self) -> &Message {
        wherever!(self.0, deref())
    }
}

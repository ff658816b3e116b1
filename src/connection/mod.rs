//! One connection: its protocol under a lock, its socket, what waits to be sent and to be read.
//!
//! It is driven, which means received from, by exactly one: a synchronous connection by its own thread (`read`), for which the
//! gateway receives while it is busy (`busy`), and a shared one by the gateway (`drive`). Anyone may write and push.
//!
//! Two locks. The **inbox** belongs to whoever receives. The **core** (`lock`) is held for microseconds, never while anything
//! waits, and never while another lock is taken; what has come of it is made known when it is let go (`publish`). Where both are
//! needed, the inbox is locked first. What a connection wants of the gateway goes through its `mailbox`. It knows no hub, no
//! gateway, and no poll.

mod about;
mod adopted;
mod busy;
mod close;
mod core;
mod delivery;
mod drive;
mod inbox;
mod lent;
mod lock;
mod mailbox;
mod outbox;
mod parts;
mod publish;
mod push;
mod read;
mod receiver;
mod shortage;
mod socket;
mod turns;
mod waiting;
mod write;

pub(crate) use self::{
    about::{About, Extras, Statistics, Traffic},
    delivery::Loan,
    drive::{Batch, Intake, Rest, TakenIn},
    mailbox::{Post, Sleep},
    parts::{Connection, Context, Handler, Registrar},
    push::QUEUE_OVERFLOWED,
    socket::Socket,
    turns::Turns,
};
pub use self::{
    adopted::AdoptedStream,
    outbox::{Overflow, PushError, PushErrorKind, Pushed},
    read::READ_TIMEOUT,
};

#[cfg(test)]
pub(crate) mod tests;

//! The life of one connection above its codec: bytes, commands and the time go in; bytes, messages and the next deadline
//! come out. No socket, no lock, no thread, and no reading of a clock.
//!
//! Everything that is true of a connection's life stands in [`Phase`]: what may still be sent and received, and why not. A
//! driver [receives](Protocol::receive) bytes and [polls](Protocol::poll) messages until there are none, sends what it is told
//! to [transmit](Protocol::transmit), and calls [`handle_timeout`](Protocol::handle_timeout) at the
//! [`deadline`](Protocol::deadline). In whatever order it does so, the connection comes to its end once, with one reason.

mod end;
mod life;
mod phase;
mod receive;
mod timeout;
mod timers;
mod transmit;

pub(crate) use self::{
    life::{Counts, Protocol},
    phase::Hold,
    timeout::TOO_SLOW,
    transmit::Transmit,
};

#[cfg(test)]
mod tests;

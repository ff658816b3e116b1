//! A turn of a shared connection: sends what waits to be sent, receives and takes in what is there, and has its handler called.
//! It is a piece of work, which takes some 100 us at most, however much is there.

use std::{io, sync::Arc};

use super::{entries::Entry, flushing::Flushing, workers::Dispatcher};
use crate::{
    codec::Work,
    connection::{Connection, Intake, TakenIn},
};

/// What a turn came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing is to be done until the socket is ready again, or mail comes.
    Waits,
    /// There is more, but others have their turn first.
    More,
    /// The connection is over.
    Over,
}

/// As far as there is room for what comes. The capacity of `scratch` is received at a time.
pub(super) fn turn(
    entry: &mut Entry,
    scratch: &mut Vec<u8>,
    workers: &Dispatcher,
    flushing: &mut Flushing,
) -> Turn {
    let connection = entry.connection.clone();
    if connection.is_blocked() && connection.flush_rest() && connection.is_stuck() {
        return wait(entry);
    }
    let mut is_drained = false;
    let mut work = Work::piece();
    while !work.is_done() {
        let taken = if entry.has_rest {
            work.look();
            connection.take_in(&mut Vec::new(), &mut work)
        } else if is_drained || entry.has_ended {
            return Turn::Waits; // what comes from now on wakes the gateway again
        } else {
            let Some((taken, is_filled)) = receive(entry, scratch, &mut work) else { return Turn::Waits };
            is_drained = !is_filled && !entry.end_in_sight;
            taken
        };
        entry.is_warm |= taken.has_messages;
        entry.has_rest = taken.intake != Intake::Starved;
        if taken.claims_handler {
            dispatch(&connection, workers, flushing);
        }
        match taken.intake {
            Intake::Starved | Intake::More => {}
            Intake::Waits => return wait(entry),
            Intake::Over => return Turn::Over,
        }
    }
    Turn::More
}

/// It is not received from, but an end of the stream must not stay unseen. If it is the connection's end, the gateway is told so
/// like anyone.
fn wait(entry: &Entry) -> Turn {
    if entry.end_in_sight {
        entry.connection.look_for_end();
    }
    Turn::Waits
}

/// Receives once; says also whether the buffer was filled. `None`: there is nothing.
fn receive(entry: &mut Entry, scratch: &mut Vec<u8>, work: &mut Work) -> Option<(TakenIn, bool)> {
    scratch.clear();
    let end = match entry.socket.as_ref()?.try_recv(scratch) {
        Ok(0) => Ok(()),
        Ok(n) => {
            work.receive(n);
            let taken = entry.connection.take_in(&mut scratch.to_vec(), work);
            return Some((taken, n == scratch.capacity()));
        }
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return None,
        Err(e) => Err(e),
    };
    entry.has_ended = true;
    Some((entry.connection.take_in_end(end, work), false))
}

/// Has the handler called of a connection that has [claimed](Connection::claims_handler) it.
pub(super) fn dispatch(connection: &Arc<Connection>, workers: &Dispatcher, flushing: &mut Flushing) {
    // A handler that is called here is followed by our own look at what it has collected.
    let flushes = workers.is_gateway() && connection.flushes_itself();
    workers.dispatch(connection);
    if flushes {
        if connection.take_collected() {
            connection.flush_rest();
        }
        if !connection.stops_flushing() {
            flushing.add(connection.clone());
        }
    }
}

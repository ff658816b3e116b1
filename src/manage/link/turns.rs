//! The links of one hub come one after the other: what was asked over the last one and was not read yet, as by a process that stood
//! still, must not be done behind what is asked over the next.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::{connection::Connection, error::ClosedBy, sync::LockExt};

/// The link of each hub that is served, or is the next.
#[derive(Default)]
pub(super) struct Turns(Mutex<HashMap<u64, Arc<Turn>>>);

/// That of one link.
pub(super) struct Turn {
    connection: Arc<Connection>,
    /// The hub has another link.
    is_over: AtomicBool,
    /// Nobody has the other end when nothing more is done for this one.
    ended: Receiver<Infallible>,
}

/// A turn until it is dropped.
pub(super) struct Taken {
    turns: Arc<Turns>,
    hub: u64,
    turn: Arc<Turn>,
    /// Dropped after what `drop` does.
    _working: Sender<Infallible>,
}

impl Turns {
    /// Cuts the link that the hub had before, and waits until nothing more is done for that. `hub` is 0 for one that does not say which
    /// it is.
    pub(super) fn take(self: &Arc<Self>, hub: u64, connection: &Arc<Connection>) -> Taken {
        let (working, ended) = bounded(0);
        let turn = Arc::new(Turn { connection: connection.clone(), is_over: AtomicBool::new(false), ended });
        let before = if hub == 0 { None } else { self.0.locked().insert(hub, turn.clone()) };
        let taken = Taken { turns: self.clone(), hub, turn, _working: working };
        if let Some(before) = before {
            before.end();
        }
        taken
    }
}

impl Turn {
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(SeqCst)
    }

    fn end(&self) {
        self.is_over.store(true, SeqCst);
        self.connection.abort(ClosedBy::Server, "its hub has another link");
        let _ = self.ended.recv(); // until it is disconnected
    }
}

impl Taken {
    pub(super) fn turn(&self) -> &Arc<Turn> {
        &self.turn
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut all = self.turns.0.locked();
        if all.get(&self.hub).is_some_and(|turn| Arc::ptr_eq(turn, &self.turn)) {
            all.remove(&self.hub);
        }
    }
}

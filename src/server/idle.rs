//! Connections between two HTTP requests; where places are few, also those whose request or its body is on its way, and those that have
//! had their last answer or wait for that. Each waits on its own thread, but its place among `max_connections` is kept here: who comes
//! when there is none takes that of the connection that has waited longest, first of those that ask for nothing more; if it is its
//! address that has too many, that of one of the same address. Nothing here waits.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use crate::{connection::Socket, sync::LockExt};

#[derive(Debug)]
pub(super) struct Idle<Slot> {
    waiting: Mutex<Waiting<Slot>>,
    /// So many wait at most.
    max: usize,
}

/// In the order in which they give up their places.
#[derive(Debug)]
struct Waiting<Slot> {
    next: u64,
    all: BTreeMap<Key, (Arc<Socket>, Slot)>,
}

/// Who waits for what, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(What, u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// For its end.
    End,
    /// For a request.
    Request,
}

impl<Slot> Idle<Slot> {
    pub(super) fn new(max: usize) -> Self {
        Self { waiting: Mutex::new(Waiting { next: 0, all: BTreeMap::new() }), max }
    }

    /// This connection begins to wait. If that makes too many, the one that has waited longest has to end.
    pub(super) fn enter(&self, socket: Arc<Socket>, slot: Slot) -> Key {
        let (key, count) = self.insert(What::Request, socket, slot);
        if count > self.max {
            self.give_up_oldest();
        }
        key
    }

    /// The same of one whose request, or its body, is on its way. There are only as many of these as there are places.
    pub(super) fn enter_asking(&self, socket: Arc<Socket>, slot: Slot) -> Key {
        self.insert(What::Request, socket, slot).0
    }

    /// The same of one that cannot ask for anything more.
    pub(super) fn enter_ending(&self, socket: Arc<Socket>, slot: Slot) -> Key {
        self.insert(What::End, socket, slot).0
    }

    fn insert(&self, what: What, socket: Arc<Socket>, slot: Slot) -> (Key, usize) {
        let mut waiting = self.waiting.locked();
        let key = Key(what, waiting.next);
        waiting.next += 1;
        waiting.all.insert(key, (socket, slot));
        (key, waiting.all.len())
    }

    /// It does not wait any more. `None`: its place has been taken, and it has to end.
    pub(super) fn leave(&self, key: Key) -> Option<Slot> {
        self.waiting.locked().all.remove(&key).map(|(_, slot)| slot)
    }

    /// Takes the place of the connection that has waited longest, first of those that ask for nothing more; its thread wakes up.
    pub(super) fn give_up_oldest(&self) -> Option<Slot> {
        self.give_up(|_| true)
    }

    /// The same of those whose place is such a one.
    pub(super) fn give_up(&self, is_meant: impl Fn(&Slot) -> bool) -> Option<Slot> {
        let mut waiting = self.waiting.locked();
        let oldest = waiting.all.iter().find(|(_, (_, slot))| is_meant(slot)).map(|(key, _)| *key)?;
        let (socket, slot) = waiting.all.remove(&oldest)?;
        drop(waiting);
        socket.shutdown_read();
        Some(slot)
    }

    /// Whether there is nobody who could give up a place.
    #[cfg(feature = "manage")]
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.locked().all.is_empty()
    }

    /// The system has run out of something that all of them have.
    pub(super) fn give_up_all(&self) {
        let all = std::mem::take(&mut self.waiting.locked().all);
        all.values().for_each(|(socket, _)| socket.shutdown_read());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_oldest_gives_up_its_place() {
        let idle = Idle::new(2);
        let (clients, keys): (Vec<_>, Vec<_>) = (0..4)
            .map(|n| {
                let (client, socket) = UnixStream::pair().unwrap();
                (client, idle.enter(Arc::new(socket.into()), n))
            })
            .unzip();
        assert_eq!((idle.leave(keys[0]), idle.leave(keys[1])), (None, None), "two are enough");
        assert_eq!((idle.give_up(|slot| *slot == 4), idle.give_up_oldest()), (None, Some(2)));
        assert_eq!((idle.leave(keys[2]), idle.leave(keys[3]), idle.give_up_oldest()), (None, Some(3), None));
        let mut more = clients.into_iter().map(|client| Arc::new(client.into()));
        let keys = [5, 6].map(|n| idle.enter(more.next().unwrap(), n));
        assert_eq!((idle.give_up(|slot| *slot == 6), idle.leave(keys[1])), (Some(6), None));
        let key = keys[0];
        idle.give_up_all();
        assert_eq!(idle.leave(key), None);
    }

    #[test]
    fn who_asks_for_nothing_more_gives_up_its_place_first_and_drives_nobody_out() {
        let idle = Idle::new(1);
        let socket = || Arc::new(UnixStream::pair().unwrap().0.into());
        let asks = idle.enter(socket(), 0);
        let ending = [1, 2].map(|slot| idle.enter_ending(socket(), slot));
        assert_eq!((idle.give_up_oldest(), idle.leave(ending[1])), (Some(1), Some(2)));
        assert_eq!((idle.leave(asks), idle.leave(ending[0])), (Some(0), None));
    }
}

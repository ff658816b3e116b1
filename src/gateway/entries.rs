//! What the gateway remembers of each connection that it looks after.

use std::{collections::HashMap, io, sync::Arc};

use mio::{Interest, Registry, Token, unix::SourceFd};
use rustix::fd::AsRawFd;

use crate::{
    clock::Moment,
    connection::{Connection, Socket},
};

/// Names an entry, and never another one that took its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    index: u32,
    generation: u8,
}

/// What does not fit the poll's token: generations are told apart within one turn of the loop, so a few bits are enough.
const GENERATION_BITS: u32 = 8;

impl Key {
    pub(super) fn from_token(token: Token) -> Self {
        Self { index: (token.0 >> GENERATION_BITS) as u32, generation: token.0 as u8 }
    }

    fn token(self) -> Token {
        Token((self.index as usize) << GENERATION_BITS | usize::from(self.generation))
    }
}

/// A connection that the gateway looks after.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) connection: Arc<Connection>,
    /// What the poll watches; kept open as long as it does.
    pub(super) socket: Option<Arc<Socket>>,
    /// When it is looked at, at the latest; see `deadlines`.
    pub(super) armed: Option<Moment>,
    /// Something that was received may be left to be taken in.
    pub(super) has_rest: bool,
    /// The poll has told that the client's stream ends or is broken. It tells that once, so the connection is received from until
    /// that comes.
    pub(super) end_in_sight: bool,
    /// The client's stream has ended: nothing more is to be received.
    pub(super) has_ended: bool,
    /// Its buffers are to be given back.
    pub(super) is_warm: bool,
    /// It is in the list of those that go on at the next turn.
    pub(super) is_ready: bool,
}

/// All entries of a gateway.
#[derive(Debug, Default)]
pub(super) struct Entries {
    slots: Vec<Option<Entry>>,
    /// How often each slot was given away, so far.
    generations: Vec<u8>,
    free: Vec<u32>,
    /// By the address of the connection, which the entry keeps from being given to another one.
    by_connection: HashMap<usize, Key>,
}

impl Entries {
    /// The entry of a connection; a new one if it has none.
    pub(super) fn find_or_insert(&mut self, connection: &Arc<Connection>) -> Key {
        if let Some(key) = self.find(connection) {
            return key;
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.generations.push(0);
            self.slots.len() as u32 - 1 // there are fewer descriptors than that
        });
        self.slots[index as usize] = Some(Entry {
            connection: connection.clone(),
            socket: None,
            armed: None,
            has_rest: true,
            end_in_sight: false,
            has_ended: false,
            is_warm: false,
            is_ready: false,
        });
        let key = Key { index, generation: self.generations[index as usize] };
        self.by_connection.insert(address(connection), key);
        key
    }

    pub(super) fn find(&self, connection: &Arc<Connection>) -> Option<Key> {
        self.by_connection.get(&address(connection)).copied()
    }

    pub(super) fn get(&self, key: Key) -> Option<&Entry> {
        let is_same = self.generations.get(key.index as usize) == Some(&key.generation);
        self.slots.get(key.index as usize).filter(|_| is_same)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut Entry> {
        let is_same = self.generations.get(key.index as usize) == Some(&key.generation);
        self.slots.get_mut(key.index as usize).filter(|_| is_same)?.as_mut()
    }

    pub(super) fn len(&self) -> usize {
        self.by_connection.len()
    }

    /// Whether this is when an entry is looked at.
    pub(super) fn is_armed(&self, key: Key, moment: Moment) -> bool {
        self.get(key).is_some_and(|entry| entry.armed == Some(moment))
    }

    /// Has the poll watch the socket, unless it does already.
    pub(super) fn watch(
        &mut self,
        key: Key,
        registry: &Registry,
        socket: &Arc<Socket>,
        interest: Interest,
    ) -> io::Result<()> {
        let Some(entry) = self.get_mut(key).filter(|entry| entry.socket.is_none()) else { return Ok(()) };
        registry.register(&mut SourceFd(&socket.as_raw_fd()), key.token(), interest)?;
        entry.socket = Some(socket.clone());
        Ok(())
    }

    /// The poll watches the socket no more.
    pub(super) fn unwatch(&mut self, key: Key, registry: &Registry) {
        if let Some(socket) = self.get_mut(key).and_then(|entry| entry.socket.take()) {
            // It fails only where the poll does not know it.
            let _ = registry.deregister(&mut SourceFd(&socket.as_raw_fd()));
        }
    }

    /// Removes an entry that the poll does not watch.
    pub(super) fn remove(&mut self, key: Key) -> Option<Arc<Connection>> {
        self.get(key)?;
        let entry = self.slots[key.index as usize].take()?;
        let generation = &mut self.generations[key.index as usize];
        *generation = generation.wrapping_add(1);
        self.free.push(key.index);
        self.by_connection.remove(&address(&entry.connection));
        Some(entry.connection)
    }
}

fn address(connection: &Arc<Connection>) -> usize {
    Arc::as_ptr(connection).addr()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::tests::connection;

    #[test]
    fn a_key_never_finds_the_entry_that_took_the_place_of_its_own() {
        let (first, second) = (connection().0, connection().0);
        let mut entries = Entries::default();
        let old = entries.find_or_insert(&first);
        assert_eq!((entries.find_or_insert(&first), Key::from_token(old.token())), (old, old));
        assert!(entries.remove(old).is_some_and(|removed| Arc::ptr_eq(&removed, &first)));
        let new = entries.find_or_insert(&second);
        assert_eq!(new.index, old.index, "it has another place: this test shows nothing");
        assert!(
            entries.get(old).is_none() && entries.get_mut(old).is_none() && entries.remove(old).is_none()
        );
        assert_eq!((entries.find(&first), entries.find(&second), entries.len()), (None, Some(new), 1));
        assert!(entries.get(new).is_some_and(|entry| Arc::ptr_eq(&entry.connection, &second)));
    }
}

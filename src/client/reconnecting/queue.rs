//! What is to be sent: in order, within bounds, whether there is a connection or not.
//!
//! A message stays here until the kernel has all of it, or is known to have been able to take it. Those that it has are never sent
//! again, and all others are, on the next connection: so none comes twice, and none that was still here is lost.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::event::{Accepted, LinkCounts, WhenFull};
use crate::{
    connection::{Connection, PushError, PushErrorKind},
    error::{CloseReason, ClosedBy},
    message::{CloseCode, Message},
    sync::LockExt,
};

/// A message that so many connections in a row have broken on, each after it had taken a part of it, is given up.
const MAX_BREAKS: u8 = 5;

/// What is chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) messages: usize,
    pub(super) bytes: usize,
    pub(super) when_full: WhenFull,
}

#[derive(Debug)]
pub(super) struct Queue {
    bounds: Bounds,
    state: Mutex<State>,
    /// Whoever waits for the state holds this: so it is the next to have it.
    next: Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Entry>,
    bytes: usize,
    line: Option<Line>,
    /// So many of the first entries were handed to it.
    handed: usize,
    /// So many of these are known to be half sent.
    touched: usize,
    closed: Option<CloseReason>,
    sent: u64,
    dropped: u64,
}

#[derive(Debug)]
struct Entry {
    message: Message,
    /// The connection's number for it.
    number: u32,
    breaks: u8,
}

/// The connection that there is.
#[derive(Debug)]
struct Line {
    connection: Arc<Connection>,
    /// One for each message that the kernel has, in order.
    told: Receiver<()>,
    tell: Sender<()>,
    has_sent: bool,
    /// What it had to send before.
    greeted: u64,
}

impl Queue {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self { bounds, state: Mutex::default(), next: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.try_locked().unwrap_or_else(|| self.lock_in_turn())
    }

    /// As whoever takes it again and again has to, or nobody else would get it.
    fn lock_in_turn(&self) -> MutexGuard<'_, State> {
        let next = self.next.locked();
        let state = self.state.locked();
        drop(next);
        state
    }

    /// Sends a message, or queues it. Never waits for the network.
    pub(super) fn send(&self, message: Message) -> Result<Accepted, PushError> {
        let mut state = self.lock();
        if let Some(reason) = &state.closed {
            return Err(PushError { kind: PushErrorKind::Closed(reason.clone()), message });
        }
        state.settle();
        let mut replaced = 0;
        if !state.has_room(message.len(), &self.bounds) {
            match self.bounds.when_full {
                WhenFull::Refuse => return Err(PushError { kind: PushErrorKind::Full, message }),
                WhenFull::DropOldest => replaced = state.make_room(message.len(), &self.bounds),
                WhenFull::DropNewest => {
                    state.dropped += 1;
                    return Ok(Accepted::Dropped);
                }
            }
        }
        state.bytes += message.len();
        state.entries.push_back(Entry { message, number: 0, breaks: 0 });
        // Else somebody is at it: what is before it has to go first.
        if state.handed + 1 == state.entries.len() {
            state.hand_over();
            state.settle();
        }
        Ok(match replaced {
            0 if state.entries.is_empty() => Accepted::Sent,
            0 => Accepted::Queued,
            replaced => Accepted::Replaced(replaced),
        })
    }

    /// There is a connection: it gets all that is here, and what comes, behind a greeting of so many bytes.
    pub(super) fn begin(&self, connection: &Arc<Connection>, greeting: u64) {
        let traffic = connection.traffic();
        let greeted = greeting.max(traffic.counts.bytes_out + traffic.queued as u64);
        let (tell, told) = unbounded();
        let line = Line { connection: connection.clone(), told, tell, has_sent: false, greeted };
        self.lock().line = Some(line);
        // Piece by piece, so that whoever sends meanwhile does not wait for all of it.
        while self.go_on() {}
    }

    /// Hands the next message over. False: there is none, or the connection takes no more.
    fn go_on(&self) -> bool {
        let mut state = self.lock_in_turn();
        state.settle();
        state.hand_over()
    }

    /// The connection has ended. What it does not have is kept for the next one.
    pub(super) fn end(&self, reason: &CloseReason) {
        let mut state = self.lock();
        state.settle();
        if state.handed > 0
            && let Some(line) = &state.line
        {
            // It does not take more any more. What has become of the rest is only certain when it is over.
            line.connection.abort(ClosedBy::Network, "ended with unsent messages");
            state.settle();
        }
        let was_begun = state.handed > 0;
        (state.handed, state.touched) = (0, 0);
        if let Some(line) = state.line.take()
            && was_begun
        {
            state.judge_first(&line, reason);
        }
    }

    /// Nothing more is taken.
    pub(super) fn close(&self, reason: &CloseReason) {
        self.lock().closed.get_or_insert_with(|| reason.clone());
    }

    /// What is left of it.
    pub(super) fn take_rest(&self) -> Vec<Message> {
        let mut state = self.lock();
        state.settle();
        (state.bytes, state.handed, state.touched) = (0, 0, 0);
        state.entries.drain(..).map(|entry| entry.message).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        let mut state = self.lock();
        state.settle();
        state.entries.is_empty()
    }

    pub(super) fn count(&self, counts: &mut LinkCounts) {
        let mut state = self.lock();
        state.settle();
        counts.sent = state.sent;
        counts.dropped = state.dropped;
        counts.queued = state.entries.len();
        counts.queued_bytes = state.bytes;
    }
}

impl State {
    /// An empty queue has room for any message.
    fn has_room(&self, size: usize, bounds: &Bounds) -> bool {
        self.entries.is_empty()
            || self.entries.len() < bounds.messages && self.bytes.saturating_add(size) <= bounds.bytes
    }

    /// Drops the oldest ones of which nothing was sent, until there is room, or there are none. Returns how many.
    fn make_room(&mut self, size: usize, bounds: &Bounds) -> usize {
        let mut dropped = 0;
        while !self.has_room(size, bounds) && self.touched < self.entries.len() {
            let at = self.touched;
            if at < self.handed {
                let number = self.entries[at].number;
                if !self.line.as_ref().is_some_and(|line| line.connection.take_back(number)) {
                    self.touched += 1;
                    continue;
                }
                self.handed -= 1;
            }
            self.drop_at(at);
            dropped += 1;
        }
        dropped
    }

    fn drop_at(&mut self, at: usize) {
        if let Some(entry) = self.entries.remove(at) {
            self.bytes -= entry.message.len();
            self.dropped += 1;
        }
    }

    /// Hands the next message to the connection. False: there is none, or it takes no more.
    fn hand_over(&mut self) -> bool {
        let (Some(line), Some(entry)) = (&self.line, self.entries.get_mut(self.handed)) else { return false };
        // It has ended, or is about to, where it fails: the rest is for the next one.
        let Ok(number) = line.connection.push_told(entry.message.clone(), line.tell.clone()) else {
            return false;
        };
        entry.number = number;
        self.handed += 1;
        true
    }

    /// Lets go of the messages that the kernel has.
    fn settle(&mut self) {
        let Some(line) = &mut self.line else { return };
        while line.told.try_recv().is_ok() {
            line.has_sent = true;
            if let Some(entry) = self.entries.pop_front() {
                self.bytes -= entry.message.len();
                self.sent += 1;
                self.handed = self.handed.saturating_sub(1);
                self.touched = self.touched.saturating_sub(1);
            }
        }
    }

    /// Connections must not break for ever on a message that cannot be sent.
    fn judge_first(&mut self, line: &Line, reason: &CloseReason) {
        let Some(first) = self.entries.front_mut() else { return };
        let was_half_sent = line.connection.traffic().counts.bytes_out > line.greeted;
        if line.has_sent || !was_half_sent {
            return;
        }
        first.breaks += 1;
        let is_too_big = reason.by() == ClosedBy::Server && reason.code() == CloseCode::TOO_BIG;
        if is_too_big || first.breaks == MAX_BREAKS {
            self.drop_at(0);
        }
    }
}

//! Threads of synchronous connections that may be busy: looked at every tick, until they are found to wait in `read`.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::slice::Slice;
use crate::{
    clock::{Clock, Moment},
    connection::Connection,
    limits::Limits,
};

/// In a look so many pieces of work are done for a connection, at most.
const PIECES: u8 = 16;

#[derive(Debug)]
pub(super) struct Watching {
    connections: Vec<Arc<Connection>>,
    /// In time for the shortest limit of the gateway.
    longest_tick: Duration,
    /// And of those that are looked at.
    tick: Duration,
    /// The next look; only meaningful if there is somebody to look at.
    next: Moment,
    /// Those that this look has not come to yet, or that have more to receive, each with how often it may still.
    due: VecDeque<(Arc<Connection>, u8)>,
}

impl Watching {
    pub(super) fn new(limits: &Limits) -> Self {
        let tick = limits.tick();
        Self { connections: Vec::new(), longest_tick: tick, tick, next: Moment::START, due: VecDeque::new() }
    }

    /// Within so long it looks at those that were told without a wake-up.
    pub(super) fn longest_tick(&self) -> Duration {
        self.longest_tick
    }

    /// When the next look is due.
    pub(super) fn next(&self) -> Option<Moment> {
        (!self.connections.is_empty()).then_some(self.next)
    }

    /// Looks at this connection from now on.
    pub(super) fn add(&mut self, connection: Arc<Connection>, clock: &Clock) {
        let is_first = self.connections.is_empty();
        let tick = connection.tick().min(self.longest_tick);
        if is_first || tick < self.tick {
            self.tick = tick;
            self.next = clock.exact() + tick;
        }
        self.connections.push(connection);
    }

    /// Whether a look has begun and goes on at once.
    pub(super) fn is_looking(&self) -> bool {
        !self.due.is_empty()
    }

    /// Receives for the threads that are busy, if it is time to; for a while, the rest at the next call.
    pub(super) fn look(&mut self, clock: &Clock) {
        if self.due.is_empty() {
            if self.next().is_none_or(|next| next > clock.exact()) {
                return;
            }
            self.tick = self
                .connections
                .iter()
                .map(|connection| connection.tick())
                .fold(self.longest_tick, Duration::min);
            self.due.extend(self.connections.drain(..).map(|connection| (connection, PIECES)));
            self.next = clock.exact() + self.tick;
        }
        let slice = Slice::new(clock.exact());
        for _ in 0..self.due.len() {
            let Some((connection, left)) = self.due.pop_front() else { return };
            self.look_at(connection, left - 1);
            if slice.is_over(clock) {
                return;
            }
        }
    }

    fn look_at(&mut self, connection: Arc<Connection>, left: u8) {
        // If somebody has the lock, it is not over yet.
        if connection.is_driven() || connection.look().is_some_and(|look| look.socket.is_none()) {
            return;
        }
        if connection.is_busy() {
            if connection.stand_in() && left > 0 {
                return self.due.push_back((connection, left));
            }
            self.connections.push(connection);
        } else if !connection.unwatch() {
            self.connections.push(connection);
        }
    }
}

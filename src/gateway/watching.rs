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

/// A tick, unless a limit is shorter.
const TICK: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Watching {
    connections: Vec<Arc<Connection>>,
    tick: Duration,
    /// The next look; only meaningful if there is somebody to look at.
    next: Moment,
    /// Those that this look has not come to yet, or that have more to receive, each with how often it may still.
    due: VecDeque<(Arc<Connection>, u8)>,
}

impl Watching {
    pub(super) fn new(limits: &Limits) -> Self {
        // In time for the shortest limit.
        let shortest = [
            limits.ping_interval,
            Some(limits.ping_timeout),
            Some(limits.write_timeout),
            limits.message_timeout,
        ];
        let shortest = shortest.into_iter().flatten().min().unwrap_or(TICK);
        let tick = (shortest / 4).clamp(Duration::from_millis(10), TICK);
        Self { connections: Vec::new(), tick, next: Moment::START, due: VecDeque::new() }
    }

    pub(super) fn tick(&self) -> Duration {
        self.tick
    }

    /// When the next look is due.
    pub(super) fn next(&self) -> Option<Moment> {
        (!self.connections.is_empty()).then_some(self.next)
    }

    /// Looks at this connection from now on.
    pub(super) fn add(&mut self, connection: Arc<Connection>, clock: &Clock) {
        if self.connections.is_empty() {
            self.next = clock.exact() + self.tick;
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
        if connection.look().is_some_and(|look| look.socket.is_none()) {
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

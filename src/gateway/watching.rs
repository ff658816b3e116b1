//! Threads of synchronous connections that may be busy: looked at every tick, until they are found to wait in `read`.

use std::{sync::Arc, time::Duration};

use crate::{
    clock::{Clock, Moment},
    connection::Connection,
    limits::Limits,
};

/// A tick, unless a limit is shorter.
const TICK: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Watching {
    connections: Vec<Arc<Connection>>,
    tick: Duration,
    /// The next look; only meaningful if there is somebody to look at.
    next: Moment,
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
        Self { connections: Vec::new(), tick, next: Moment::START }
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

    /// Receives for the threads that are busy, if it is time to.
    pub(super) fn look(&mut self, clock: &Clock) {
        if self.next().is_none_or(|next| next > clock.exact()) {
            return;
        }
        self.connections.retain(|connection| {
            if connection.is_over() {
                return false;
            }
            if connection.is_busy() {
                connection.stand_in();
                return true;
            }
            !connection.unwatch()
        });
        self.next = clock.exact() + self.tick;
    }
}

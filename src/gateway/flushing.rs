//! Connections that collect output: it is sent within a millisecond, whatever their handlers do next.
//!
//! A connection that collects tells the gateway once, and is then looked at every millisecond until it has collected nothing
//! for some of these looks: to tell it for each burst of answers would be a system call more for each.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::connection::Connection;

/// Collected output is sent this often.
pub(super) const INTERVAL: Duration = Duration::from_millis(1);

/// While the gateway is busy it looks at most so often.
const PAUSE: Duration = Duration::from_micros(250);

/// A connection that collected nothing for so many looks is looked at no more.
const QUIET: u8 = 4;

#[derive(Debug)]
pub(super) struct Flushing {
    /// Each with the number of looks at which it had collected nothing.
    connections: Vec<(Arc<Connection>, u8)>,
    last_look: Instant,
}

impl Flushing {
    pub(super) fn new() -> Self {
        Self { connections: Vec::new(), last_look: Instant::now() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Looks at this connection from now on.
    pub(super) fn add(&mut self, connection: Arc<Connection>) {
        self.connections.push((connection, 0));
    }

    /// Flushes what was collected, if it is time to. Those whose sockets do not take it wait for them by themselves.
    pub(super) fn flush(&mut self) {
        if self.connections.is_empty() || self.last_look.elapsed() < PAUSE {
            return;
        }
        self.last_look = Instant::now();
        self.connections.retain_mut(|(connection, quiet)| {
            if connection.take_collected() {
                *quiet = 0;
                if connection.try_flush_rest().is_none() {
                    connection.is_still_collected();
                }
                return true;
            }
            *quiet += 1;
            *quiet < QUIET || !connection.stops_flushing()
        });
    }
}

//! What all connections come to: those that are open, and those that have ended. Whoever asks looks at each of those that are open;
//! for that nothing is counted while messages go through them.

#![cfg_attr(not(feature = "manage"), expect(dead_code, reason = "nobody can ask"))]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::Registry;
use crate::{
    connection::{Connection, Traffic},
    protocol::Counts,
    sync::LockExt,
};

/// What has ended, of one part of the connections.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ended {
    connections: u64,
    counts: Counts,
}

/// At one moment: what has gone through all connections, and how those are that are open.
#[derive(Debug, Default)]
pub(crate) struct Census {
    pub(crate) open: usize,
    pub(crate) shared: usize,
    /// By route: synchronous ones, and shared ones.
    pub(crate) by_route: BTreeMap<Arc<str>, [usize; 2]>,
    pub(crate) closed: u64,
    /// Of those that are open and those that have ended. None of these is ever less than it was.
    pub(crate) counts: Counts,
    /// Bytes that wait to be sent.
    pub(crate) queued: usize,
    /// Those whose sockets do not take more at the moment.
    pub(crate) blocked: usize,
    /// The last round trips of those that have answered a ping, the shortest first.
    pub(crate) round_trips: Vec<Duration>,
    pub(crate) topics: usize,
    pub(crate) users: usize,
}

impl Ended {
    pub(super) fn add(&mut self, counts: Counts) {
        self.connections += 1;
        self.counts += counts;
    }
}

impl Registry {
    /// Looks at all connections. Each lock is held for one part of them, to list those, or for one connection.
    pub(crate) fn census(&self) -> Census {
        let mut census = Census { topics: self.topics.len(), users: self.users.len(), ..Census::default() };
        for part in &self.by_id {
            let part = part.locked();
            // Together: so a connection that ends meanwhile is among these or those, and counts once.
            let (ended, open) = (part.ended, part.open());
            drop(part);
            census.closed += ended.connections;
            census.counts += ended.counts;
            open.iter().for_each(|connection| census.add(connection));
        }
        census.round_trips.sort_unstable();
        census
    }
}

impl Census {
    /// How many have been opened.
    pub(crate) fn opened(&self) -> u64 {
        self.closed + self.open as u64
    }

    fn add(&mut self, connection: &Arc<Connection>) {
        let about = connection.about();
        let Traffic { counts, queued, round_trip } = connection.traffic();
        self.open += 1;
        self.shared += usize::from(about.shared);
        match self.by_route.get_mut(about.route()) {
            Some(counts) => counts[usize::from(about.shared)] += 1,
            None => self.by_route.entry(about.route().clone()).or_default()[usize::from(about.shared)] += 1,
        }
        self.counts += counts;
        self.queued += queued;
        self.blocked += usize::from(connection.is_blocked());
        self.round_trips.extend(round_trip);
    }

    /// The round trip that this part of the connections, in thousandths, has no longer than.
    pub(crate) fn round_trip(&self, part: usize) -> Option<Duration> {
        let last = self.round_trips.len().checked_sub(1)?;
        self.round_trips
            .get((self.round_trips.len() * part).div_ceil(1000).saturating_sub(1).min(last))
            .copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        buffered::Buffered, connection::tests::connection_of, history::Rules, id::NodeId, limits::Limits,
        metrics::Metrics, observer::Observers,
    };

    /// While connections come and go, and messages go through them, no sum goes back or forgets any of them.
    #[test]
    fn sums_only_grow_and_are_exact_in_the_end() {
        const THREADS: u64 = 3;
        const ROUNDS: u64 = 300;
        let buffered = Arc::new(Buffered::new(usize::MAX));
        let (limits, observers) = (Arc::<Limits>::default(), Observers::default());
        let registry = Registry::new(NodeId::new(1), limits, buffered, observers, Rules::default()).unwrap();
        let registry = Arc::new(registry.with_metrics(Some(Arc::new(Metrics::new()))));
        let live = || {
            for _ in 0..ROUNDS {
                let announced = registry.announce();
                let (connection, _client) = connection_of(*announced.id(), registry.clone());
                registry.register(announced, &connection);
                for _ in 0..3 {
                    registry.push_wait(connection.id(), "x".into(), Duration::from_secs(10)).unwrap();
                }
                connection.finish();
            }
        };
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(live)).collect();
            let (mut opened, mut closed, mut sent) = (0, 0, 0);
            while !threads.iter().all(|thread| thread.is_finished()) {
                let census = registry.census();
                assert!(census.opened() >= opened && census.closed >= closed);
                assert!(census.counts.messages_out >= sent, "{census:?} after {sent}");
                (opened, closed, sent) = (census.opened(), census.closed, census.counts.messages_out);
            }
        });
        let census = registry.census();
        assert_eq!((census.open, census.opened(), census.closed), (0, THREADS * ROUNDS, THREADS * ROUNDS));
        assert_eq!(census.counts.messages_out, 3 * THREADS * ROUNDS);
        assert_eq!(registry.metrics().unwrap().pushes().next(), Some(("sent", 3 * THREADS * ROUNDS)));
    }

    #[test]
    fn parts_of_the_round_trips() {
        let census =
            |n| Census { round_trips: (1..=n).map(Duration::from_millis).collect(), ..Census::default() };
        let parts = |n| [500, 990, 1000].map(|part| census(n).round_trip(part).map(|time| time.as_millis()));
        assert_eq!(parts(0), [None; 3]);
        assert_eq!(parts(1), [Some(1); 3]);
        assert_eq!(parts(2), [Some(1), Some(2), Some(2)]);
        assert_eq!(parts(1000), [Some(500), Some(990), Some(1000)]);
    }
}

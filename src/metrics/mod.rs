//! What a server counts as it happens, for whoever watches it. It is there only if somebody can ask: where there is a management
//! listener. Nothing is counted for each message: the connections do that themselves, and a look at all of them finds the sums.
//!
//! Recording waits for nothing, and may be done under any lock.

#![cfg_attr(not(feature = "manage"), expect(dead_code, reason = "nobody can ask"))]

mod histogram;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

pub(crate) use self::histogram::Histogram;
use crate::{
    connection::{About, PushError, PushErrorKind, Pushed, QUEUE_OVERFLOWED},
    error::{CloseReason, ClosedBy},
    message::CloseCode,
    protocol::TOO_SLOW,
    sync::{AtomicU64, LockExt},
};

/// Of so many pushes the time of one is taken.
pub(crate) const MEASURED: u64 = 16;

/// Bounds, in microseconds: from a connection's beginning to its 101.
const HANDSHAKES: &[u64] = &[
    250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

/// A push, until it returns.
const PUSHES: &[u64] = &[1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 100_000, 1_000_000];

/// From a ping to its pong.
const ROUND_TRIPS: &[u64] = &[
    100, 250, 500, 1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000,
];

/// What can become of a push.
pub(crate) const RESULTS: [&str; 11] = [
    "sent",
    "queued",
    "full",
    "closed",
    "unknown",
    "refused",
    "timeout",
    "pending",
    "mustNotWait",
    "forwarded",
    "unreachable",
];

/// Close codes that have a number of their own in the registry of IANA. All others are summed up, since a client chooses them.
const CODES: [(u16, &str); 18] = [
    (1000, "1000"),
    (1001, "1001"),
    (1002, "1002"),
    (1003, "1003"),
    (1005, "1005"),
    (1006, "1006"),
    (1007, "1007"),
    (1008, "1008"),
    (1009, "1009"),
    (1010, "1010"),
    (1011, "1011"),
    (1012, "1012"),
    (1013, "1013"),
    (1014, "1014"),
    (1015, "1015"),
    (3000, "3000"),
    (3003, "3003"),
    (3008, "3008"),
];
const OTHER_CODES: [&str; 3] = ["3000-3999", "4000-4999", "other"];

const SIDES: [&str; 3] = ["client", "server", "network"];

/// What has been counted since the server was made.
pub(crate) struct Metrics {
    /// By route: synchronous ones, and shared ones.
    opened: Mutex<BTreeMap<Arc<str>, [u64; 2]>>,
    closed: [[AtomicU64; SIDES.len()]; CODES.len() + OTHER_CODES.len()],
    /// Ended because their clients did not take what was sent.
    slow: AtomicU64,
    /// Pushes whose time might have been taken.
    begun: AtomicU64,
    pushes: [AtomicU64; RESULTS.len()],
    pub(crate) push_times: Histogram,
    pub(crate) handshakes: Histogram,
    pub(crate) round_trips: Histogram,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            opened: Mutex::default(),
            closed: [const { [const { AtomicU64::new(0) }; _] }; _],
            slow: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            pushes: [const { AtomicU64::new(0) }; _],
            push_times: Histogram::new(PUSHES),
            handshakes: Histogram::new(HANDSHAKES),
            round_trips: Histogram::new(ROUND_TRIPS),
        }
    }

    /// A connection was opened.
    pub(crate) fn opened(&self, about: &About) {
        let mut opened = self.opened.locked();
        // Routes are the program's: however many paths clients ask for, there are only so many.
        match opened.get_mut(about.route()) {
            Some(counts) => counts[usize::from(about.shared)] += 1,
            None => opened.entry(about.route().clone()).or_default()[usize::from(about.shared)] += 1,
        }
    }

    /// Its opening handshake has taken so long.
    pub(crate) fn shook_hands(&self, time: Duration) {
        self.handshakes.add(time);
    }

    /// A connection is over.
    pub(crate) fn closed(&self, reason: &CloseReason) {
        let side = match reason.by() {
            ClosedBy::Client => 0,
            ClosedBy::Server => 1,
            ClosedBy::Network => 2,
        };
        self.closed[place_of(reason.code())][side].fetch_add(1, Relaxed);
        if reason.by() == ClosedBy::Server && [QUEUE_OVERFLOWED, TOO_SLOW].contains(&reason.text()) {
            self.slow.fetch_add(1, Relaxed);
        }
    }

    /// A ping was answered after so long.
    pub(crate) fn measured(&self, round_trip: Duration) {
        self.round_trips.add(round_trip);
    }

    /// Pushes one message, and counts what becomes of it.
    pub(crate) fn push(&self, push: impl FnOnce() -> Result<Pushed, PushError>) -> Result<Pushed, PushError> {
        let is_measured = self.begun.fetch_add(1, Relaxed).is_multiple_of(MEASURED);
        let begun = is_measured.then(Instant::now);
        let result = push();
        if let Some(begun) = begun {
            self.push_times.add(begun.elapsed());
        }
        self.count(&result);
        result
    }

    /// Counts what became of one.
    pub(crate) fn count(&self, result: &Result<Pushed, PushError>) {
        self.count_push(match result.as_ref().map_err(|error| &error.kind) {
            Ok(Pushed::Sent) => Some(0),
            Ok(Pushed::Queued) => Some(1),
            Ok(Pushed::Forwarded) => Some(9),
            Err(kind) => place_of_failure(kind),
        });
    }

    /// A push that has waited.
    pub(crate) fn push_waited(&self, result: &Result<(), PushError>) {
        self.count_push(result.as_ref().map_or_else(|error| place_of_failure(&error.kind), |()| Some(0)));
    }

    fn count_push(&self, place: Option<usize>) {
        if let Some(place) = place {
            self.pushes[place].fetch_add(1, Relaxed);
        }
    }

    /// Pushes of one message to many: so many were sent, queued, dropped, and came too late.
    pub(crate) fn broadcast(&self, counts: [usize; 4]) {
        for (pushes, count) in self.pushes.iter().zip(counts) {
            if count > 0 {
                pushes.fetch_add(count as u64, Relaxed);
            }
        }
    }

    /// How many pushes had each result.
    pub(crate) fn pushes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        RESULTS.into_iter().zip(self.pushes.iter().map(|count| count.load(Relaxed)))
    }

    /// How many were opened by route, synchronous ones and shared ones.
    pub(crate) fn opened_by_route(&self) -> BTreeMap<Arc<str>, [u64; 2]> {
        self.opened.locked().clone()
    }

    /// How many were closed with a code, by a side: what has happened.
    pub(crate) fn closed_by_code(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let codes = CODES.iter().map(|(_, code)| *code).chain(OTHER_CODES);
        let all = codes.zip(&self.closed).flat_map(|(code, sides)| {
            SIDES.iter().zip(sides).map(move |(side, count)| (code, *side, count.load(Relaxed)))
        });
        all.filter(|(_, _, count)| *count > 0)
    }

    /// How many were ended because their clients did not take what was sent.
    pub(crate) fn slow(&self) -> u64 {
        self.slow.load(Relaxed)
    }
}

/// Where a code is counted.
fn place_of(code: CloseCode) -> usize {
    CODES.iter().position(|(known, _)| *known == code.0).unwrap_or(match code.0 {
        3000..=3999 => CODES.len(),
        4000..=4999 => CODES.len() + 1,
        _ => CODES.len() + 2,
    })
}

/// Where it is counted among the results, if it can be the result of a push here.
fn place_of_failure(kind: &PushErrorKind) -> Option<usize> {
    Some(match kind {
        PushErrorKind::Full => 2,
        PushErrorKind::Closed(_) => 3,
        PushErrorKind::Unknown => 4,
        PushErrorKind::Refused => 5,
        PushErrorKind::Timeout => 6,
        PushErrorKind::Pending => 7,
        PushErrorKind::MustNotWait => 8,
        PushErrorKind::Unreachable => 10,
        // Only a hub of another process has these, or a cluster.
        PushErrorKind::Forbidden | PushErrorKind::OverLimit(_) => return None,
    })
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_counted_one_by_one_only_if_no_client_invented_them() {
        let metrics = Metrics::new();
        for code in 0..=u16::MAX {
            metrics.closed(&CloseReason::new(CloseCode(code), "", ClosedBy::Client));
        }
        metrics.closed(&CloseReason::new(CloseCode(1000), "", ClosedBy::Server));
        metrics.closed(&CloseReason::new(CloseCode(1013), QUEUE_OVERFLOWED, ClosedBy::Server));
        metrics.closed(&CloseReason::new(CloseCode(1013), QUEUE_OVERFLOWED, ClosedBy::Client));
        let all: Vec<_> = metrics.closed_by_code().collect();
        assert_eq!(all.len(), CODES.len() + OTHER_CODES.len() + 2);
        let count = |code, side| all.iter().find(|(c, s, _)| (*c, *s) == (code, side)).unwrap().2;
        assert_eq!((count("1000", "client"), count("1000", "server")), (1, 1));
        assert_eq!((count("3000-3999", "client"), count("4000-4999", "client")), (997, 1000));
        assert_eq!(count("other", "client"), 65_536 - 2000 - 15);
        assert_eq!((count("1013", "client"), metrics.slow()), (2, 1));
    }

    #[test]
    fn each_result_of_a_push_is_counted_and_of_some_the_time() {
        let metrics = Metrics::new();
        let fail = |kind| Err(PushError { kind, message: "x".into() });
        for _ in 0..=MEASURED {
            let _ = metrics.push(|| Ok(Pushed::Sent));
        }
        let _ = metrics.push(|| Ok(Pushed::Queued));
        let _ = metrics.push(|| fail(PushErrorKind::Full));
        metrics.push_waited(&Err(PushError { kind: PushErrorKind::MustNotWait, message: "x".into() }));
        metrics.broadcast([10, 0, 5, 1]);
        let counts: Vec<_> = metrics.pushes().filter(|(_, count)| *count > 0).collect();
        let expected =
            [("sent", MEASURED + 11), ("queued", 1), ("full", 6), ("closed", 1), ("mustNotWait", 1)];
        assert_eq!(counts, expected);
        assert_eq!(metrics.push_times.cumulative().last(), Some((None, 2)));
    }
}

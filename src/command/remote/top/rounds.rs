//! Asks the server for all connections, again and again, and finds out what they have done meanwhile. On a thread of its own: so
//! keys are heeded while the server takes its time.

use std::{
    convert::Infallible,
    io,
    thread::{Builder, Scope},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};
use switchboard::{Audience, ConnectionInfo, Error, Hub, WebSocketId};

use super::stats::{Facts, Stats};
use crate::command::remote::{failure::Failure, nodes, place::Place};

/// What is asked for at once.
const PAGE: usize = 1000;

/// Where there are more than that, a round is followed by so many times the time that it took: so a server that has many connections
/// is asked less often.
const REST: u32 = 10;

pub(super) enum Told {
    Round(Box<Round>),
    /// There is no link, or no answer. It is tried again.
    Unreachable(String),
    Failed(Failure),
}

/// All connections at one time, in the order of their IDs.
pub(super) struct Round {
    pub(super) rows: Vec<Row>,
    pub(super) totals: Totals,
    /// Of the whole server, as far as they are known.
    pub(super) facts: Option<Facts>,
    /// Why there are not all of them.
    pub(super) missing: Option<String>,
}

/// Who is asked, for which connections.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) hub: &'a Hub,
    pub(super) place: &'a Place,
    pub(super) audience: Audience<'a>,
}

pub(super) struct Row {
    pub(super) info: ConnectionInfo,
    /// `None`: it was not there before.
    pub(super) rates: Option<Rates>,
}

/// A second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) messages_in: f64,
    pub(super) messages_out: f64,
    pub(super) bytes_in: f64,
    pub(super) bytes_out: f64,
}

/// What all of them do.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) shared: usize,
    pub(super) queued: u64,
    /// `None` in the first round.
    pub(super) changes: Option<Changes>,
}

/// Since the round before, a second.
#[derive(Debug)]
pub(super) struct Changes {
    pub(super) rates: Rates,
    pub(super) opened: f64,
    pub(super) closed: f64,
    /// Between the two.
    pub(super) interval: Duration,
}

/// What is remembered of a connection.
struct Before {
    id: WebSocketId,
    counts: [u64; 4],
}

/// Rounds from now on, until the second of what this returns is dropped.
pub(super) fn watch<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    asked: Asked<'env>,
    interval: Duration,
) -> Result<(Receiver<Told>, Sender<Infallible>), Failure> {
    let (tell, told) = bounded(0);
    let (watching, is_over) = bounded(0);
    let run = move || {
        let mut last = None;
        let mut stats = Stats::new(asked.place, interval);
        loop {
            let begun = Instant::now();
            let round = ask(asked, &mut stats, &mut last);
            // There are no rates before the second one.
            let is_large = matches!(&round, Told::Round(round) if round.rows.len() > PAGE && round.totals.changes.is_some());
            let rest = if is_large { begun.elapsed() * REST } else { Duration::ZERO };
            let pause = interval.saturating_sub(begun.elapsed()).max(rest);
            if tell.send(round).is_err() || is_over.recv_timeout(pause).is_err_and(|e| e.is_disconnected()) {
                return;
            }
        }
    };
    let thread = Builder::new().name("switchboard-top".into());
    thread.spawn_scoped(scope, run).map_err(|e: io::Error| Failure::other(e.to_string()))?;
    Ok((told, watching))
}

fn ask(asked: Asked<'_>, stats: &mut Stats<'_>, last: &mut Option<(Instant, Vec<Before>)>) -> Told {
    let Asked { hub, audience, .. } = asked;
    let mut infos = Vec::new();
    let (mut after, mut missing) = (None, None);
    loop {
        match hub.connections(audience, after.as_ref(), PAGE) {
            Ok(page) => {
                infos.extend(page.items);
                after = page.next;
            }
            Err(error @ Error::Unreachable) => {
                *last = None;
                return Told::Unreachable(error.to_string());
            }
            // A node of the cluster, or Redis, does not answer: then there are those of the others.
            Err(Error::Remote(_)) => {
                infos.clear();
                let nodes: Vec<_> = nodes::all(hub).iter().map(|node| node.node).collect();
                let take = |info| {
                    infos.push(info);
                    Ok(())
                };
                match nodes::each(hub, &nodes, audience, take) {
                    Ok(failure) => missing = failure.and_then(|failure| failure.text),
                    Err(failure) => return Told::Unreachable(failure.text.unwrap_or_default()),
                }
                break;
            }
            Err(error) => return Told::Failed(error.into()),
        }
        if after.is_none() {
            break;
        }
    }
    infos.sort_by_key(|info| info.id); // each node has its own in their order
    let now = Instant::now();
    let mut round = compare(infos, last.as_ref().map(|(then, before)| (now - *then, &before[..])));
    let before = |row: &Row| Before { id: row.info.id, counts: counts(&row.info) };
    round.facts = stats.look();
    round.missing = missing;
    *last = Some((now, round.rows.iter().map(before).collect()));
    Told::Round(Box::new(round))
}

fn counts(info: &ConnectionInfo) -> [u64; 4] {
    [info.messages_in, info.messages_out, info.bytes_in, info.bytes_out]
}

/// What has changed since a round some time ago. Both are in the order of their IDs.
fn compare(infos: Vec<ConnectionInfo>, before: Option<(Duration, &[Before])>) -> Round {
    let mut totals = Totals::default();
    let mut sum = Rates::default();
    let (mut known, mut opened) = (0, 0);
    let mut rows = Vec::with_capacity(infos.len());
    for info in infos {
        totals.shared += usize::from(info.shared);
        totals.queued += info.queued as u64;
        let rates = before.and_then(|(time, before)| {
            let at = before.binary_search_by(|other| other.id.cmp(&info.id)).ok()?;
            Some(Rates::new(before[at].counts, counts(&info), time))
        });
        match rates {
            Some(rates) => {
                known += 1;
                sum.add(rates);
            }
            None => opened += 1,
        }
        rows.push(Row { info, rates });
    }
    totals.changes = before.map(|(interval, before)| {
        let per_second = |count: usize| count as f64 / interval.as_secs_f64().max(0.001);
        Changes {
            rates: sum,
            opened: per_second(opened),
            closed: per_second(before.len().saturating_sub(known)),
            interval,
        }
    });
    Round { rows, totals, facts: None, missing: None }
}

impl Rates {
    fn new(before: [u64; 4], now: [u64; 4], time: Duration) -> Self {
        let rate = |at: usize| now[at].saturating_sub(before[at]) as f64 / time.as_secs_f64().max(0.001);
        Self { messages_in: rate(0), messages_out: rate(1), bytes_in: rate(2), bytes_out: rate(3) }
    }

    fn add(&mut self, other: Self) {
        self.messages_in += other.messages_in;
        self.messages_out += other.messages_out;
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_differences_a_second_and_never_below_zero() {
        let rates = Rates::new([10, 0, 100, 50], [30, 5, 100, 40], Duration::from_secs(2));
        assert_eq!(rates, Rates { messages_in: 10.0, messages_out: 2.5, bytes_in: 0.0, bytes_out: 0.0 });
        assert!(Rates::new([0; 4], [1; 4], Duration::ZERO).messages_in.is_finite());
    }

    #[test]
    fn who_is_not_there_any_more_has_closed() {
        let before: Vec<_> = ["AAAAAAAAAAAAAAAAAAAAAA", "BAAAAAAAAAAAAAAAAAAAAA"]
            .map(|id| Before { id: id.parse().unwrap(), counts: [0; 4] })
            .into();
        let round = compare(Vec::new(), Some((Duration::from_secs(2), &before)));
        let changes = round.totals.changes.unwrap();
        assert_eq!((changes.closed, changes.opened), (1.0, 0.0));
        assert!(compare(Vec::new(), None).totals.changes.is_none());
    }
}

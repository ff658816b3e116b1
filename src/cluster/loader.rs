//! The thread that loads what topics remember, since the one that hears must not wait.

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    bus::Failed, member::Member, pace::Pace, publications::Fetched, replica::Replica, replicas::Next,
};
use crate::{
    history::Log,
    registry::Registry,
    thread::{forbid_waiting, spawn},
};

/// What could not be loaded is tried again after so long; while nothing is heard, it is not.
const AGAIN: Duration = Duration::from_millis(100);

/// So is what Redis refuses, of one topic perhaps: others do not wait for it.
const REFUSED: Duration = Duration::from_secs(1);

/// # Errors
/// There is no thread.
pub(super) fn start(member: Arc<Member>, registry: Arc<Registry>) -> io::Result<JoinHandle<()>> {
    spawn("switchboard-history", 512 << 10, move || run(&member, &registry))
}

fn run(member: &Member, registry: &Registry) {
    forbid_waiting(); // observers who are told by this thread, of whom it has closed, must not wait for it
    let mut pace = Pace::new("the cluster cannot load what a topic remembers");
    // Those that are tried again, and when.
    let mut later = VecDeque::<(Instant, Arc<Replica>)>::new();
    loop {
        let now = Instant::now();
        while later.front().is_some_and(|(at, _)| *at <= now)
            && let Some((_, replica)) = later.pop_front()
        {
            member.replicas().try_again(replica);
        }
        let replica = match member.replicas().next_to_load(later.front().map(|(at, _)| *at)) {
            Next::Load(replica) => replica,
            Next::NotYet => continue,
            Next::Over => return,
        };
        match load(member, registry, &replica) {
            Ok(()) => {}
            Err(_) if member.is_ending() => return,
            Err(failed) => {
                pace.failed(&failed.to_string()); // one may fail where others do not: this is said once a minute
                if let Failed::Refused(_) = failed {
                    later.push_back((Instant::now() + REFUSED, replica));
                } else {
                    member.pause(AGAIN);
                    member.replicas().try_again(replica);
                }
            }
        }
    }
}

/// Has it catch up. If it does not at once, it is its turn again after others.
fn load(member: &Member, registry: &Registry, replica: &Arc<Replica>) -> Result<(), Failed> {
    let Some(to_load) = replica.to_load() else { return Ok(()) };
    let mut after = to_load.after;
    loop {
        let fetched = member.fetch(&replica.topic, replica.history, after)?;
        let Fetched { has_more, ref publications, .. } = fetched;
        after = publications.last().map(|last| last.place).or(after);
        let added = publications.iter().map(|publication| Log::size(publication.body.len(), None)).sum();
        member.replicas().make_room(replica, added);
        replica.load(registry, fetched);
        if !has_more {
            break;
        }
    }
    if !replica.catch_up(registry, to_load) {
        member.replicas().try_again(replica.clone());
    }
    Ok(())
}

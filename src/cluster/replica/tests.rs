use std::thread;

use super::*;
use crate::{
    buffered::Buffered,
    cluster::{envelope::Sender, publications::body_of, replicas::Replicas},
    elsewhere::Publishing,
    history::{Room, Rules},
    id::NodeId,
    limits::Limits,
    observer::Observers,
};

const ME: Sender = Sender { node: 1, start: 5 };
const EPOCH: u64 = 7;

fn registry() -> Registry {
    let buffered = Arc::new(Buffered::new(usize::MAX));
    let (limits, observers) = (Arc::<Limits>::default(), Observers::default());
    Registry::new(NodeId::new(1), limits, buffered, observers, Rules::default()).unwrap()
}

fn replica() -> Arc<Replica> {
    let history = History::new(100, Duration::from_secs(60));
    Replicas::new(ME, (100_000, 1_000_000)).want(&"room".into(), history)
}

fn publication(epoch: u64, offset: u64) -> Publication {
    let message = Message::from(offset.to_string());
    let publishing = Publishing { message: &message, newest: None, except: None, key: None };
    let place = Place { position: Position::new(epoch, offset), millis: 1000 + offset };
    Publication { place, by: Some((ME, offset)), body: body_of(&publishing).unwrap().into() }
}

fn fetched(epoch: u64, offsets: std::ops::RangeInclusive<u64>, has_more: bool) -> Fetched {
    let last = publication(epoch, *offsets.end()).place;
    let publications = offsets.map(|offset| publication(epoch, offset)).collect();
    Fetched { last, now: 5000, publications, has_more }
}

/// The offsets that it remembers, and how many before the first.
fn kept(replica: &Replica) -> (u64, Vec<String>) {
    let mut kept = (0, Vec::new());
    replica.with_log(|log| {
        let missed = log.since(&Since::NOTHING, Room { messages: 1000, bytes: 1_000_000 });
        let text = |message: &&Message| message.as_text().unwrap().lines().nth(1).unwrap().to_owned();
        kept = (missed.before.offset(), missed.messages.iter().map(text).collect());
    });
    kept
}

fn texts(offsets: std::ops::RangeInclusive<u64>) -> Vec<String> {
    offsets.map(|offset| offset.to_string()).collect()
}

/// Loaded up to this.
fn loaded(registry: &Registry, last: u64) -> Arc<Replica> {
    let replica = replica();
    assert!(replica.begin());
    let to_load = replica.to_load().unwrap();
    assert_eq!(to_load.after, None);
    replica.load(registry, fetched(EPOCH, 1..=last, false));
    assert!(replica.catch_up(registry, to_load) && replica.is_current());
    replica
}

#[test]
fn what_is_heard_while_it_is_loaded_comes_behind_that() {
    let (registry, replica) = (registry(), replica());
    assert!(!replica.hear(&registry, publication(EPOCH, 9)), "nobody listens");
    assert!(replica.begin() && !replica.begin());
    let to_load = replica.to_load().unwrap();
    for offset in 2..=5 {
        assert!(!replica.hear(&registry, publication(EPOCH, offset)));
    }
    replica.load(&registry, fetched(EPOCH, 1..=2, true));
    assert!(!replica.is_current() && !replica.serves(&Since::NOTHING));
    replica.load(&registry, fetched(EPOCH, 3..=3, false));
    assert!(replica.catch_up(&registry, to_load) && replica.is_current());
    assert_eq!(kept(&replica), (0, texts(1..=5)));
    assert!(!replica.hear(&registry, publication(EPOCH, 5)), "it is there");
    assert!(!replica.hear(&registry, publication(EPOCH, 6)));
    assert_eq!(kept(&replica), (0, texts(1..=6)));
    assert_eq!(replica.common.waiting(), 0);
}

#[test]
fn what_is_missing_is_loaded() {
    let registry = registry();
    let replica = loaded(&registry, 3);
    assert!(replica.hear(&registry, publication(EPOCH, 5)), "4 was not heard");
    let to_load = replica.to_load().unwrap();
    assert_eq!(to_load.after, Some(publication(EPOCH, 3).place));
    assert!(!replica.hear(&registry, publication(EPOCH, 6)));
    replica.load(&registry, fetched(EPOCH, 4..=6, false));
    assert!(replica.catch_up(&registry, to_load) && replica.is_current());
    assert_eq!(kept(&replica), (0, texts(1..=6)));
    // It is not there any more.
    replica.hear(&registry, publication(EPOCH, 8));
    let to_load = replica.to_load().unwrap();
    replica.load(&registry, fetched(EPOCH, 8..=9, false));
    assert!(replica.catch_up(&registry, to_load));
    assert_eq!(kept(&replica), (7, texts(8..=9)));
}

#[test]
fn another_epoch_goes_on_where_all_of_it_is_heard() {
    let registry = registry();
    let replica = loaded(&registry, 3);
    assert!(!replica.hear(&registry, publication(8, 1)));
    assert_eq!(kept(&replica), (0, texts(1..=1)));
    assert!(replica.hear(&registry, publication(9, 2)), "its first one was not heard");
    let to_load = replica.to_load().unwrap();
    // What is heard of the last one while it is loaded, is not taken for what follows.
    assert!(!replica.hear(&registry, publication(8, 2)));
    replica.load(&registry, fetched(9, 1..=2, false));
    assert!(!replica.catch_up(&registry, to_load), "or it may be a new one");
    replica.load(&registry, Fetched { publications: Vec::new(), ..fetched(9, 1..=2, false) });
    assert!(replica.catch_up(&registry, to_load) && replica.is_current());
    assert_eq!(kept(&replica), (0, texts(1..=2)));
}

#[test]
fn what_was_heard_by_a_connection_that_is_gone_does_not_count() {
    let registry = registry();
    let replica = loaded(&registry, 3);
    replica.end();
    assert!(replica.to_load().is_none() && !replica.is_current());
    assert!(replica.serves(&Position::new(EPOCH, 3).into()) && replica.serves(&Since::NOTHING));
    assert!(!replica.serves(&Position::new(EPOCH, 4).into()), "on another node there is more");
    assert!(!replica.serves(&Since::NOW) && !replica.serves(&Position::new(8, 1).into()));
    replica.begin();
    let early = replica.to_load().unwrap();
    replica.load(&registry, fetched(EPOCH, 4..=4, false));
    // The connection has ended meanwhile, and there is another one.
    replica.end();
    replica.begin();
    assert!(!replica.catch_up(&registry, early) && !replica.is_current());
    let to_load = replica.to_load().unwrap();
    replica.load(&registry, fetched(EPOCH, 5..=6, false));
    assert!(replica.catch_up(&registry, to_load) && replica.is_current());
    assert_eq!(kept(&replica), (0, texts(1..=6)));
}

#[test]
fn what_was_seen_elsewhere_and_is_not_heard_yet_is_waited_for() {
    let (registry, replica) = (registry(), replica());
    replica.begin();
    let to_load = replica.to_load().unwrap();
    let nothing = Fetched { publications: Vec::new(), ..fetched(EPOCH, 0..=0, false) };
    replica.load(&registry, nothing);
    assert!(replica.catch_up(&registry, to_load));
    let later = Deadline::after(Duration::from_secs(20));
    // The next one; one of an epoch that began meanwhile; and one that this version does not know.
    let unknown = Publication { body: "?".into(), ..publication(8, 2) };
    for next in [publication(EPOCH, 1), publication(8, 1), unknown] {
        let seen = next.place.position.into();
        assert!(!replica.serves(&seen) && !replica.wait_for(&seen, Deadline::after(Duration::ZERO)));
        thread::scope(|scope| {
            let waiting = scope.spawn(|| replica.wait_for(&seen, later));
            while replica.state.locked().waits == 0 {
                thread::yield_now();
            }
            assert!(!replica.hear(&registry, next));
            assert!(waiting.join().unwrap() && later.remaining().is_some());
        });
    }
}

#[test]
fn what_waits_has_a_bound_and_is_loaded_beyond_it() {
    let (registry, replica) = (registry(), replica());
    replica.begin();
    let to_load = replica.to_load().unwrap();
    let large = |offset| Publication { body: vec![0; 1 << 20].into(), ..publication(EPOCH, offset) };
    for offset in 1..=20 {
        replica.hear(&registry, large(offset));
    }
    assert!(replica.common.waiting() <= 16 << 20);
    replica.load(&registry, fetched(EPOCH, 1..=1, false));
    assert!(!replica.catch_up(&registry, to_load), "more has come than there was room for");
    replica.load(&registry, fetched(EPOCH, 2..=20, false));
    assert!(replica.catch_up(&registry, to_load));
    assert_eq!((kept(&replica), replica.common.waiting()), ((0, texts(1..=20)), 0));
}

#[test]
fn who_waits_for_a_delivery_is_told_or_learns_that_there_is_none() {
    let registry = registry();
    let replica = loaded(&registry, 3);
    let (now, later) = (Deadline::after(Duration::ZERO), Deadline::after(Duration::from_secs(20)));
    let delivery = replica.expect(4);
    replica.hear(&registry, publication(EPOCH, 4));
    assert_eq!((delivery.wait(now), delivery.wait(later)), ([0; 4], [0; 4]));
    drop(delivery);
    let delivery = replica.expect(5);
    replica.end();
    assert_eq!(delivery.wait(later), [0; 4]);
    assert_eq!(replica.expect(6).wait(later), [0; 4]);
    drop(delivery);
    assert!(replica.state.locked().expected.is_empty());
}

#[test]
fn beyond_the_bound_others_forget() {
    let registry = registry();
    let history = History::new(100, Duration::from_secs(60));
    let replicas = Replicas::new(ME, (100_000, 4_000));
    let [one, two] = ["one", "two"].map(|topic| {
        let replica = replicas.want(&topic.into(), history);
        replica.begin();
        let to_load = replica.to_load().unwrap();
        replica.load(&registry, fetched(EPOCH, 1..=1, false));
        assert!(replica.catch_up(&registry, to_load));
        replica
    });
    for offset in 2..=8 {
        replicas.hear(&registry, "one", publication(EPOCH, offset));
    }
    assert_eq!(kept(&one).0, 0);
    for offset in 2..=30 {
        replicas.hear(&registry, "two", publication(EPOCH, offset));
    }
    assert_eq!(kept(&one), (8, Vec::new()), "it knows where it is");
    let (before, last) = kept(&two);
    assert_eq!(last, texts(before + 1..=30));
    assert!((10..=20).contains(&last.len()), "{}", last.len());
    assert!(one.is_current() && two.is_current());
    replicas.hear(&registry, "one", publication(EPOCH, 9));
    assert_eq!(kept(&one), (8, texts(9..=9)));
}

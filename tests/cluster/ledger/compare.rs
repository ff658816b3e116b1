//! What was answered, beside what has arrived.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs,
    path::Path,
};

use switchboard::WebSocketId;

use super::{Span, clients::Connection};

/// In milliseconds.
const LEASE: u64 = 10_000;

/// The longest call, in microseconds, of a node that was not stopped meanwhile.
const LONGEST: u64 = 8_000_000;

/// So many of what is wrong are shown of each kind, at most.
const SHOWN: usize = 30;

struct Push {
    thread: u32,
    number: u32,
    node: usize,
    at: u64,
    took: u64,
    how: String,
    to: String,
    answer: String,
}

impl Push {
    fn shown(&self) -> String {
        let Self { thread, number, node, at, took, how, to, answer } = self;
        format!("{how} {number} by thread {thread} of node {node} to {to} at {at} for {took} us: {answer}")
    }
}

/// All that was written down.
fn ledger(folder: &Path) -> Vec<Push> {
    let mut all = Vec::new();
    for file in fs::read_dir(folder).unwrap().flatten() {
        let name = file.file_name().into_string().unwrap();
        let Some((thread, node)) = name.strip_suffix(".log").and_then(|name| name.split_once('.')) else {
            continue;
        };
        let (Ok(thread), Ok(node)) = (thread.parse(), node.parse()) else { continue };
        for line in fs::read_to_string(file.path()).unwrap().lines() {
            let words: Vec<_> = line.split(' ').collect();
            let [number, at, took, how, to, answer] = words[..] else { panic!("{name}: {line}") };
            let [number, at, took] = [number, at, took].map(|number| number.parse::<u64>().unwrap());
            let [how, to, answer] = [how, to, answer].map(str::to_owned);
            all.push(Push { thread, number: number as u32, node, at, took, how, to, answer });
        }
    }
    all
}

/// Prints what there was. Whether all is as it has to be.
pub(crate) fn compare(
    folder: &Path,
    connections: &[Connection],
    calm: &[Span],
    stopped: &[(usize, Span)],
) -> bool {
    let pushes = ledger(folder);
    let mut wrong = Wrong::new();
    disorder(connections, &pushes, &mut wrong);
    let survivors: Vec<_> = connections.iter().filter(|connection| connection.has_survived).collect();
    let by_id: HashMap<_, _> = survivors.iter().map(|one| (one.id.to_string(), *one)).collect();
    let got: HashMap<WebSocketId, HashSet<(u32, u32)>> =
        survivors.iter().map(|one| (one.id, one.got.iter().copied().collect())).collect();
    let (mut answers, mut checked, mut lost) = (BTreeMap::<_, usize>::new(), 0, 0);
    for push in &pushes {
        *answers.entry((push.how.as_str(), push.answer.as_str())).or_default() += 1;
        let calm_from = calm.iter().find(|(from, to)| (*from..*to).contains(&push.at)).map(|(from, _)| *from);
        let is_forwarded = push.answer == "forwarded";
        let mut check = |one: &Connection, has_to_be_there: bool| {
            let is_there = got[&one.id].contains(&(push.thread, push.number));
            checked += usize::from(has_to_be_there);
            lost += usize::from(!is_there && !has_to_be_there && is_forwarded);
            if has_to_be_there && !is_there {
                add(&mut wrong, "missing", format!("at {}: {}", one.id, push.shown()));
            }
        };
        if push.how == "topic" {
            for one in survivors.iter().filter(|one| one.topic.to_string() == push.to && one.from < push.at) {
                let is_here = one.id.node().get() as usize == push.node;
                let is_calm = calm_from.is_some_and(|from| one.from <= from);
                check(one, is_here || (is_forwarded && is_calm));
            }
        } else if let Some(one) = by_id.get(&push.to) {
            let is_done = matches!(push.answer.as_str(), "sent" | "queued");
            check(one, is_done || (is_forwarded && calm_from.is_some()));
            if push.answer == "unknown" && !has_lost_its_lease(one, push, stopped) {
                add(&mut wrong, "unknown, although it was there", push.shown());
            }
        }
    }
    too_long(&pushes, stopped).for_each(|long| add(&mut wrong, "too long", long));
    println!("{} connections, of which {} are there at the end", connections.len(), survivors.len());
    println!("{} pushes, {checked} arrivals that have to be there", pushes.len());
    for ((how, answer), count) in answers {
        println!("  {how:5} {answer:11} {count}");
    }
    println!("{lost} arrivals were forwarded while something was broken, and lost");
    times(&pushes);
    println!("{} are wrong", wrong.values().map(Vec::len).sum::<usize>());
    for (what, all) in &wrong {
        println!("  {what}: {}", all.len());
        // From the first to the last.
        all.iter().step_by(all.len().div_ceil(SHOWN)).for_each(|one| println!("    {one}"));
    }
    wrong.is_empty()
}

/// What is wrong, by its kind.
type Wrong = BTreeMap<&'static str, Vec<String>>;

fn add(wrong: &mut Wrong, what: &'static str, shown: String) {
    wrong.entry(what).or_default().push(shown);
}

/// What has come twice, in the wrong order, or to somebody else.
fn disorder(connections: &[Connection], pushes: &[Push], wrong: &mut Wrong) {
    let by_number: HashMap<_, _> = pushes.iter().map(|push| ((push.thread, push.number), push)).collect();
    let shown = |key| by_number.get(&key).map_or("its node was killed".into(), |push| push.shown());
    for connection in connections {
        let mut last = HashMap::new();
        for &(thread, number) in &connection.got {
            if let Some(before) = last.insert(thread, number)
                && before >= number
            {
                let (one, other) = (shown((thread, before)), shown((thread, number)));
                let what = if before == number { "twice" } else { "in the wrong order" };
                add(wrong, what, format!("at {}: {one}, and then {other}", connection.id));
            }
            let push = by_number.get(&(thread, number));
            let is_meant = push.is_none_or(|push| {
                push.to == connection.id.to_string()
                    || push.how == "topic" && push.to == connection.topic.to_string()
            });
            if !is_meant {
                let shown = format!("at {}: {}", connection.id, shown((thread, number)));
                add(wrong, "meant for somebody else", shown);
            }
        }
    }
}

/// A node that was stopped for longer than its lease is unknown, until it can say that it is there.
fn has_lost_its_lease(to: &Connection, push: &Push, stopped: &[(usize, Span)]) -> bool {
    stopped.iter().any(|(node, (from, until))| {
        *node == to.id.node().get() as usize
            && until - from > LEASE * 3 / 4
            && (from + LEASE / 2..until + 2000).contains(&push.at)
    })
}

fn too_long<'a>(pushes: &'a [Push], stopped: &'a [(usize, Span)]) -> impl Iterator<Item = String> + use<'a> {
    let was_stopped = |push: &Push| {
        let end = push.at + push.took / 1000;
        stopped.iter().any(|(node, (from, to))| *node == push.node && *from <= end && push.at <= *to)
    };
    let long = pushes.iter().filter(move |push| push.took > LONGEST && !was_stopped(push));
    long.map(Push::shown)
}

/// How long the calls took that were done on the same node, and those that were not.
fn times(pushes: &[Push]) {
    for (what, is_local) in [("of the same node", true), ("to another node", false)] {
        let is_meant = |push: &&Push| {
            push.how == "push" && matches!(push.answer.as_str(), "sent" | "queued") == is_local
        };
        let mut took: Vec<_> = pushes.iter().filter(is_meant).map(|push| push.took).collect();
        took.sort_unstable();
        if let (Some(last), count) = (took.last(), took.len()) {
            let [half, most] = [count / 2, count * 99 / 100].map(|index| took[index]);
            println!("pushes {what}: p50 {half} us, p99 {most} us, longest {last} us");
        }
    }
}

//! A cluster whose Redis, connections and nodes fail: every push has a number, and its answer is compared with what the clients got. In
//! order, nothing twice, nothing missing that was sent, nor, while nothing was broken, what was forwarded.
#![cfg(all(feature = "cluster", feature = "cli", feature = "__tls", target_os = "linux"))]
mod common;
#[path = "cluster/load.rs"]
mod load;
#[path = "cluster/nodes.rs"]
mod nodes;

use std::{
    fs,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use common::{
    Client, PATIENCE, Scheme, TestServer, eventually, eventually_or, is_alone, next_message,
    redis::{Delaying, RedisServer},
};
use load::{Answer, Load, Pushed};
use nodes::{LEASE, Node, Nodes, cluster, node, node_by};
use rustix::process::Signal;
use switchboard::{Audience, Error, Hub, PushErrorKind, Pushed as Done, WebSocketId};
use tungstenite::Message;

/// How long a call takes at most, with an answer timeout of a second, on a machine that has much else to do.
const IN_TIME: Duration = Duration::from_secs(5);

/// What local pushes take, but for a few that the system has kept from running.
const LOCAL: Duration = Duration::from_millis(100);

/// Most pushes to connections of the same node are as fast as always.
fn assert_local_is_fast(pushed: &[Pushed]) {
    let local = pushed.iter().filter(|push| push.answer == Answer::Here);
    let mut took: Vec<_> = local.map(|push| push.took).collect();
    took.sort();
    assert!(took.len() > 100, "{}", took.len());
    let p95 = took[took.len() * 95 / 100];
    assert!(p95 < LOCAL, "{p95:?}");
}

fn assert_in_time(pushed: &[Pushed]) {
    let longest = pushed.iter().max_by_key(|push| push.took).unwrap();
    assert!(longest.took < IN_TIME, "{longest:?}");
}

/// No node was taken for gone, and nobody has waited for long.
fn assert_all_were_there(pushed: &[Pushed]) {
    assert_eq!(count(pushed, Answer::Unknown), 0, "all nodes are there");
    assert_in_time(pushed);
}

fn count(pushed: &[Pushed], answer: Answer) -> usize {
    pushed.iter().filter(|push| push.answer == answer).count()
}

fn is_unknown(hub: &Hub, id: &WebSocketId) -> bool {
    matches!(hub.push(id, "x"), Err(e) if matches!(e.kind, PushErrorKind::Unknown))
}

/// That of a line of `CLIENT LIST`.
fn client_id(line: &str) -> Option<&str> {
    line.split(' ').find_map(|field| field.strip_prefix("id="))
}

/// How many connections listen to something.
fn listening(redis: &RedisServer) -> usize {
    redis.command(&["CLIENT", "LIST", "TYPE", "pubsub"]).lines().filter(|line| !line.is_empty()).count()
}

#[test]
fn redis_is_killed_and_comes_back() {
    let mut redis = RedisServer::start();
    let nodes = Nodes::start(&redis);
    let load = Load::start(&nodes);
    load.calm();
    for pause in [Duration::ZERO, Duration::from_millis(1500)] {
        redis.kill();
        thread::sleep(pause);
        redis.restart();
        load.recover();
        load.calm();
    }
    let pushed = load.end();
    assert!(count(&pushed, Answer::Unreachable) > 0);
    assert_all_were_there(&pushed);
    assert_local_is_fast(&pushed);
}

#[test]
fn redis_is_stopped_and_continues() {
    let redis = RedisServer::start();
    let nodes = Nodes::start(&redis);
    let load = Load::start(&nodes);
    load.calm();
    for pause in [300, 2500, 6000] {
        redis.pause();
        thread::sleep(Duration::from_millis(pause));
        redis.resume();
        load.recover();
        load.calm();
    }
    let pushed = load.end();
    assert!(count(&pushed, Answer::Unreachable) > 0);
    assert_all_were_there(&pushed);
    assert_local_is_fast(&pushed);
}

#[test]
fn connections_to_redis_are_cut() {
    let redis = RedisServer::start();
    let nodes = Nodes::start(&redis);
    let load = Load::start(&nodes);
    load.calm();
    for kind in ["normal", "pubsub", "normal", "pubsub", "pubsub"] {
        redis.command(&["CLIENT", "KILL", "TYPE", kind]);
        thread::sleep(Duration::from_millis(300));
    }
    load.recover();
    load.calm();
    let pushed = load.end();
    assert_all_were_there(&pushed);
}

/// What has Redis take nothing new, and what ends that.
const OUT_OF_MEMORY: [&[&str]; 2] =
    [&["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"]];
const TOO_FEW_REPLICAS: [&[&str]; 2] =
    [&["CONFIG", "SET", "min-replicas-to-write", "1"], &["CONFIG", "SET", "min-replicas-to-write", "0"]];
const TAKES_NOTHING: [[&[&str]; 2]; 2] = [OUT_OF_MEMORY, TOO_FEW_REPLICAS];

/// Nobody can renew a lease, but what is sent arrives.
fn nothing_is_lost_while(redis: &RedisServer, set: &[&str], reset: &[&str]) {
    let nodes = Nodes::start(redis);
    let load = Load::start(&nodes);
    load.calm();
    redis.command(set);
    let begun = Instant::now();
    thread::sleep(LEASE * 2);
    // Somebody comes to a new topic meanwhile.
    let mut late = nodes.all[0].connect(Scheme::Ws, "/?topic=late");
    let _id = next_message(&mut late);
    // Unless its node has just connected anew, and did not wait for that.
    eventually("its node listens", || {
        nodes.all[1].hub.publish("late", "still there").unwrap().broadcast.forwarded > 0
    });
    assert_eq!(next_message(&mut late), Message::text("still there"));
    load.is_calm_since(begun);
    redis.command(reset);
    let begun = Instant::now();
    thread::sleep(LEASE * 2);
    load.is_calm_since(begun);
    let pushed = load.end();
    let failed: Vec<_> = pushed
        .iter()
        .filter(|push| matches!(push.answer, Answer::Unknown | Answer::Unreachable | Answer::Other))
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
    let lease = redis.command(&["PTTL", "switchboard:lease:00000001"]);
    assert!(lease.parse::<i64>().unwrap() > 0, "they are renewed again");
}

#[test]
fn redis_is_read_only() {
    let redis = RedisServer::start();
    nothing_is_lost_while(&redis, &["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"]);
}

#[test]
fn redis_has_too_few_replicas() {
    let [begin, end] = TOO_FEW_REPLICAS;
    nothing_is_lost_while(&RedisServer::start(), begin, end);
}

#[test]
fn redis_is_out_of_memory() {
    let [begin, end] = OUT_OF_MEMORY;
    nothing_is_lost_while(&RedisServer::start(), begin, end);
}

/// A node, and the ID of a client there.
fn node_with_client(redis: &RedisServer, number: u32) -> (TestServer, Client, WebSocketId) {
    let node = node(redis, number);
    let mut client = node.connect(Scheme::Ws, "/");
    let id = next_message(&mut client).into_text().unwrap().parse().unwrap();
    (node, client, id)
}

#[test]
fn a_node_that_starts_while_redis_takes_nothing_is_known() {
    for [begin, end] in TAKES_NOTHING {
        let redis = RedisServer::start();
        let one = node(&redis, 1);
        let _client = one.connect(Scheme::Ws, "/");
        let has_lease = || redis.command(&["EXISTS", "switchboard:lease:00000002"]) == "1";
        redis.command(begin);
        let (two, _client, id) = node_with_client(&redis, 2);
        eventually("it is known", || matches!(one.hub.push(&id, "a"), Ok(Done::Forwarded)));
        // Also when the other one has looked for leases.
        for _ in 0..2 * LEASE.as_millis() / 20 {
            assert_eq!(one.hub.push(&id, "b").unwrap(), Done::Forwarded);
            thread::sleep(Duration::from_millis(20));
        }
        // It knows the other one, too.
        assert_eq!(two.hub.connections(Audience::All, None, 0).unwrap().items.len(), 2);
        assert!(!has_lease(), "{begin:?}");
        redis.command(end);
        eventually("it has a lease", has_lease);
    }
}

#[test]
fn a_node_that_was_killed_and_comes_back_while_redis_takes_nothing_does_not_wait_for_its_old_lease() {
    for [begin, end] in TAKES_NOTHING {
        let redis = RedisServer::start();
        let one = node(&redis, 1);
        let dead = "1234567890abcdef 600000 switchboard 0.1.0";
        redis.command(&["SET", "switchboard:lease:00000002", dead, "PX", "600000"]);
        redis.command(begin);
        let (_two, mut client, id) = node_with_client(&redis, 2);
        redis.command(end);
        let lease = || redis.command(&["GET", "switchboard:lease:00000002"]);
        eventually("it has its own lease", || lease().contains("switchboard") && lease() != dead);
        assert_eq!(one.hub.push(&id, "a").unwrap(), Done::Forwarded);
        assert_eq!(next_message(&mut client), Message::text("a"));
    }
}

/// Ends the connection by which a node listens.
fn cut(redis: &RedisServer, node: u32) {
    let name = format!("name=switchboard:node:{node:08x}");
    let list = redis.command(&["CLIENT", "LIST", "TYPE", "pubsub"]);
    for line in list.lines().filter(|line| line.split(' ').any(|field| field == name)) {
        let _ = redis.try_command(&["CLIENT", "KILL", "ID", client_id(line).unwrap()]);
    }
}

/// It says that it is there, again and again; so it is not gone when it does not listen for a moment.
#[test]
fn a_node_without_a_lease_whose_connection_is_cut_is_not_gone() {
    let redis = RedisServer::start();
    let one = node(&redis, 1);
    let gone = node_with_client(&redis, 9).2;
    redis.command(&["DEL", "switchboard:lease:00000009"]);
    let [begin, _] = OUT_OF_MEMORY;
    redis.command(begin);
    let (_two, _client, id) = node_with_client(&redis, 2);
    eventually("what has no lease is gone", || is_unknown(&one.hub, &gone));
    for _ in 0..5 {
        eventually("it listens", || matches!(one.hub.push(&id, "a"), Ok(Done::Forwarded)));
        cut(&redis, 2);
        match one.hub.push(&id, "b") {
            Ok(_) => {} // it listens again
            Err(e) => assert!(matches!(e.kind, PushErrorKind::Unreachable), "{e:?}"),
        }
    }
}

/// That it had left before says nothing.
#[test]
fn a_node_that_had_left_and_comes_back_while_redis_takes_nothing_is_known() {
    for [begin, _] in TAKES_NOTHING {
        let redis = RedisServer::start();
        let one = node(&redis, 1);
        redis.command(&["SET", "switchboard:lease:00000002", "left", "PX", "600000"]);
        redis.command(begin);
        let (_two, _client, id) = node_with_client(&redis, 2);
        for _ in 0..2 * LEASE.as_millis() / 20 {
            assert_eq!(one.hub.push(&id, "a").unwrap(), Done::Forwarded, "{begin:?}");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// Also at once after its start.
#[test]
fn a_node_lists_the_connections_of_all_or_says_that_it_cannot() {
    let mut redis = RedisServer::start();
    let one = node(&redis, 1);
    let _client = one.connect(Scheme::Ws, "/?topic=room");
    let list = |node: &TestServer| node.hub.connections(Audience::All, None, 0).map(|page| page.items.len());
    for _ in 0..20 {
        assert_eq!(list(&node(&redis, 2)).unwrap(), 1);
    }
    redis.kill();
    let alone = node(&redis, 3);
    assert!(matches!(list(&alone), Err(Error::Unreachable)));
    assert!(matches!(alone.hub.members("room", None, 0), Err(Error::Unreachable)));
    redis.restart();
    eventually("it knows the other one", || matches!(list(&alone), Ok(1)));
}

#[test]
fn redis_has_forgotten_everything() {
    let redis = RedisServer::start();
    let nodes = Nodes::start(&redis);
    let load = Load::start(&nodes);
    load.calm();
    for _ in 0..3 {
        let begun = Instant::now();
        redis.command(&["FLUSHALL"]);
        thread::sleep(LEASE);
        load.is_calm_since(begun);
    }
    let pushed = load.end();
    assert_eq!(count(&pushed, Answer::Unknown) + count(&pushed, Answer::Unreachable), 0);
    let listed = || redis.command(&["SMEMBERS", "switchboard:nodes"]).lines().count();
    eventually("all are there again", || listed() == 3);
}

#[test]
fn redis_cuts_a_node_that_is_too_slow() {
    let redis = RedisServer::start();
    redis.command(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 300000 0 0"]);
    let nodes = Nodes::start(&redis);
    let load = Load::start(&nodes);
    load.calm();
    let mut large = nodes.all[0].connect(Scheme::Ws, "/");
    let id: WebSocketId = next_message(&mut large).into_text().unwrap().parse().unwrap();
    for _ in 0..5 {
        let _ = nodes.all[1].hub.push(&id, vec![0; 1_000_000]);
        thread::sleep(Duration::from_millis(100));
    }
    redis.command(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 33554432 8388608 60"]);
    load.recover();
    load.calm();
    let pushed = load.end();
    assert_all_were_there(&pushed);
}

#[test]
fn the_way_to_redis_is_slow() {
    let redis = RedisServer::start();
    let ways = [(); 3].map(|()| Delaying::to(redis.port()));
    let nodes = Nodes::start_by(|number| cluster(&format!("redis://127.0.0.1:{}", ways[number - 1].port())));
    let load = Load::start(&nodes);
    load.calm();
    ways.iter().for_each(|way| way.set_delay(Duration::from_millis(500)));
    thread::sleep(Duration::from_millis(500));
    // Many threads, and all at once: nothing piles up.
    let id = load.connection_of(0);
    let hub = &nodes.all[1].hub;
    for _ in 0..2 {
        thread::scope(|scope| {
            for _ in 0..100 {
                scope.spawn(|| {
                    let begun = Instant::now();
                    let _ = hub.push(&id, "one of many");
                    let took = begun.elapsed();
                    assert!(took < IN_TIME, "{took:?}");
                });
            }
        });
    }
    thread::sleep(Duration::from_secs(3));
    ways.iter().for_each(|way| way.set_delay(Duration::ZERO));
    load.recover();
    load.calm();
    let pushed = load.end();
    assert!(count(&pushed, Answer::Unreachable) > 0);
    assert_all_were_there(&pushed);
    assert_local_is_fast(&pushed);
}

#[test]
fn two_clusters_on_one_redis_do_not_meet() {
    let redis = RedisServer::start();
    let one = Nodes::start(&redis);
    let other = Nodes::start_by(|_| cluster(&redis.url()).prefix("other:"));
    let loads = [Load::start(&one), Load::start(&other)];
    loads.iter().for_each(Load::calm);
    redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    for (load, nodes) in loads.iter().zip([&one, &other]) {
        load.recover();
        load.calm();
        assert_eq!(nodes.all[0].hub.len().unwrap(), load.connections());
    }
    for load in loads {
        load.end();
    }
}

/// How many connections are in the topic.
fn present(hub: &Hub) -> usize {
    hub.presence("room", None, 10).unwrap().items.iter().map(|user| user.connections).sum()
}

#[test]
fn a_node_is_killed_under_load() {
    let redis = RedisServer::start();
    let nodes = Nodes::start(&redis);
    let process = Node::start(4, &redis);
    let load = Load::start_with(&nodes, &process);
    load.calm();
    let hub = &nodes.all[0].hub;
    assert_eq!(present(hub), load.connections() - 1, "all but the one that has it push");
    let (killed, id) = (Instant::now(), load.connection_of_process());
    process.signal(Signal::KILL);
    load.has_lost_the_process();
    // Redis sees that it does not listen any more; its lease ends later.
    eventually("it does not listen", || listening(&redis) == 3);
    let kind = hub.push(&id, "x").unwrap_err().kind;
    assert!(matches!(kind, PushErrorKind::Unreachable | PushErrorKind::Unknown), "{kind:?}");
    assert_eq!(present(hub), load.connections_without_process());
    for node in &nodes.all {
        eventually("its IDs are unknown", || is_unknown(&node.hub, &id));
        assert!(matches!(node.hub.open_server(&id), Err(Error::UnknownId)));
    }
    let took = killed.elapsed();
    assert!(took < LEASE + IN_TIME, "{took:?}");
    assert_eq!(hub.len().unwrap(), load.connections_without_process());
    load.calm();
    let pushed = load.end();
    assert!(count(&pushed, Answer::Unknown) > 0);
    assert_in_time(&pushed);
    // Another one takes its number.
    let _again = Node::start(4, &redis);
    let pushed = nodes.all[1].hub.push(&id, "x");
    assert!(pushed.is_ok(), "{pushed:?}: it is there, and does not tell what it does not have");
}

#[test]
fn a_node_is_stopped_and_continues() {
    let redis = RedisServer::start();
    let nodes = Nodes::start(&redis);
    let process = Node::start(4, &redis);
    let load = Load::start_with(&nodes, &process);
    load.calm();
    // For less than its lease, and for longer.
    for pause in [LEASE / 2, LEASE * 3] {
        process.signal(Signal::STOP);
        thread::sleep(pause);
        process.signal(Signal::CONT);
        load.recover();
        load.calm();
    }
    let pushed = load.end();
    assert!(count(&pushed, Answer::Unreachable) > 0, "it did not answer");
    assert_in_time(&pushed);
}

#[test]
fn what_was_given_up_is_not_sent_behind_what_was_pushed_later() {
    let redis = RedisServer::start();
    let here = node(&redis, 1);
    let process = Node::start(2, &redis);
    let mut clients: Vec<_> = (0..16).map(|_| process.client("/")).collect();
    let mut came = 0;
    for _ in 0..3 {
        clients.iter().for_each(|(_, id)| here.hub.push_wait(id, "first", PATIENCE).unwrap());
        process.signal(Signal::STOP);
        thread::scope(|scope| {
            for (_, id) in &clients {
                scope.spawn(|| {
                    // It may have been done before the process was stopped indeed.
                    let _ = here.hub.push_wait(id, "given up", Duration::from_millis(100));
                    let _ = here.hub.push(id, "last");
                });
            }
        });
        process.signal(Signal::CONT);
        for (client, id) in &mut clients {
            eventually("it is reached", || here.hub.push_wait(id, "the end", Duration::from_secs(1)).is_ok());
            let texts: Vec<_> = std::iter::repeat_with(|| next_message(client).to_string())
                .take_while(|text| text != "the end")
                .collect();
            let is_in_order =
                |all: &[&str]| all.iter().filter(|one| texts.iter().any(|text| text == *one)).eq(&texts);
            assert!(is_in_order(&["first", "given up", "last"]), "{texts:?}");
            came += usize::from(texts.iter().any(|text| text == "last"));
        }
    }
    assert!(came > 0, "what was pushed to a node that is stopped, it gets when it goes on");
}

#[test]
fn two_nodes_have_one_number() {
    let redis = RedisServer::start();
    let here = node(&redis, 1);
    let first = Node::start(2, &redis);
    let (mut client, id) = first.client("/");
    here.hub.push_wait(&id, "first", PATIENCE).unwrap();
    assert_eq!(next_message(&mut client), Message::text("first"));
    // It is stopped for longer than its lease, and another one gets its number.
    first.signal(Signal::STOP);
    eventually("it is unknown", || is_unknown(&here.hub, &id));
    let second = Node::start(2, &redis);
    let (mut other, other_id) = second.client("/");
    first.signal(Signal::CONT);
    eventually("both listen", || listening(&redis) == 3);
    thread::sleep(LEASE);
    // The second one is asked, and not disturbed by the first.
    for number in 0..50 {
        here.hub.push_wait(&other_id, number.to_string(), PATIENCE).unwrap();
        assert_eq!(next_message(&mut other), Message::text(number.to_string()));
    }
    // When it ends, the first one has its number again.
    drop((other, second));
    eventually("it is there again", || here.hub.push_wait(&id, "again", Duration::from_secs(1)).is_ok());
    eventually("it got that", || next_message(&mut client) == Message::text("again"));
}

#[test]
fn what_was_read_from_another_node_and_not_acknowledged_comes_again() {
    let redis = RedisServer::start();
    let (here, there) = (node(&redis, 1), node(&redis, 2));
    let mut client = here.connect(Scheme::Ws, "/shared");
    let id = next_message(&mut client).into_text().unwrap().parse().unwrap();
    let sending = thread::spawn(move || {
        for number in 0..2000 {
            client.send(Message::text(number.to_string())).unwrap();
            if number % 100 == 0 {
                thread::sleep(Duration::from_millis(50));
            }
        }
        client
    });
    thread::scope(|scope| {
        let reading = scope.spawn(|| read_all(&there, &id, 2000));
        // Each of them loses what is on its way to one of the nodes.
        while !reading.is_finished() {
            thread::sleep(Duration::from_millis(300));
            let clients = redis.command(&["CLIENT", "LIST", "TYPE", "pubsub"]);
            if let Some(one) = clients.lines().find_map(client_id) {
                let _ = redis.try_command(&["CLIENT", "KILL", "ID", one]);
            }
        }
        reading.join().unwrap();
    });
    drop(sending.join().unwrap());
}

#[test]
fn what_a_node_has_read_and_not_acknowledged_comes_again_when_it_is_killed() {
    let redis = RedisServer::start();
    let here = node(&redis, 1);
    let mut client = here.connect(Scheme::Ws, "/shared");
    let id: WebSocketId = next_message(&mut client).into_text().unwrap().parse().unwrap();
    for number in 0..3 {
        let process = Node::start(2, &redis);
        let (mut reader, _) = process.client("/read");
        client.send(Message::text(number.to_string())).unwrap();
        reader.send(Message::text(id.to_string())).unwrap();
        assert_eq!(next_message(&mut reader), Message::text("0"), "it was not acknowledged");
        // Also where another one has its number at once.
        process.signal(Signal::KILL);
    }
    let _process = Node::start(2, &redis);
    let ws = here.hub.open_server(&id).unwrap();
    // The first is back as soon as this node has heard of the new one.
    let mut read: Vec<_> = std::iter::repeat_with(|| ws.read_delivery(usize::MAX, PATIENCE).unwrap())
        .map(|delivery| (delivery.redelivered(), delivery.ack().into_text_or_panic()))
        .take(3)
        .collect();
    read.sort_by(|(_, one), (_, other)| one.cmp(other));
    assert_eq!(read, [(true, "0".into()), (false, "1".into()), (false, "2".into())]);
}

/// When its grace period is over, as where that connection were its own.
#[test]
fn a_server_ends_although_a_handler_reads_from_another_node() {
    let redis = RedisServer::start();
    let (here, there) = (node(&redis, 1), node(&redis, 2));
    let mut client = here.connect(Scheme::Ws, "/shared");
    let id = next_message(&mut client);
    let mut reader = there.connect(Scheme::Ws, "/read");
    let _own_id = next_message(&mut reader);
    reader.send(id).unwrap();
    let ending = thread::spawn(|| drop(there));
    eventually("it ends", || ending.is_finished());
    ending.join().unwrap();
}

/// Reads numbers, each at least once, and in order: what comes again goes on from there.
fn read_all(node: &TestServer, id: &WebSocketId, count: usize) {
    let (begun, mut next, mut again) = (Instant::now(), 0, 0);
    while next < count {
        assert!(begun.elapsed() < PATIENCE * 3, "{next}");
        let Ok(ws) = node.hub.open_server(id) else { continue };
        while next < count {
            // Each third is not acknowledged, and each fifth is read the short way.
            if next % 5 == 4 {
                match ws.read(usize::MAX, Duration::from_secs(1)) {
                    Ok(read) => take(read.into_text_or_panic(), &mut next, &mut again),
                    Err(Error::Unreachable | Error::Timeout) => {}
                    Err(e) => panic!("{e:?}"),
                }
                continue;
            }
            match ws.read_delivery(usize::MAX, Duration::from_secs(1)) {
                Ok(delivery) if delivery.redelivered() || next % 3 != 0 => {
                    let text = delivery.ack().into_text_or_panic();
                    take(text, &mut next, &mut again);
                }
                Ok(delivery) => drop(delivery),
                Err(Error::Unreachable | Error::Timeout) => {}
                Err(e) => panic!("{e:?}"),
            }
        }
    }
    eprintln!("{again} came again");
}

/// One that was seen may come again; none may be left out.
fn take(text: String, next: &mut usize, again: &mut usize) {
    let number: usize = text.parse().unwrap();
    assert!(number <= *next, "{number} after {next}: something is missing");
    if number == *next { *next += 1 } else { *again += 1 }
}

trait Text {
    fn into_text_or_panic(self) -> String;
}

impl Text for switchboard::Message {
    fn into_text_or_panic(self) -> String {
        match self {
            Self::Text(text) => text.to_string(),
            Self::Binary(_) => panic!("it was text"),
        }
    }
}

#[test]
fn no_thread_and_no_descriptor_is_left() {
    if !is_alone("no_thread_and_no_descriptor_is_left") {
        return;
    }
    let count = |what: &str| fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    let count_all = || (count("task"), count("fd"));
    let mut redis = RedisServer::start();
    // What is made only once.
    drop((node(&redis, 1), node(&redis, 2)));
    ends("the threads", || count("task") <= 2);
    let before = count_all();
    {
        let nodes = Nodes::start(&redis);
        let load = Load::start(&nodes);
        load.calm();
        let during = count("task");
        for _ in 0..3 {
            redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
            redis.pause();
            thread::sleep(Duration::from_millis(1500));
            redis.resume();
            redis.restart();
            load.recover();
        }
        // Threads that have waited for others stay for 2 s.
        ends("what is more than before", || count("task") <= during + 2);
        redis.pause();
        let topics = nodes.all[0].hub.broadcast(Audience::Topic("room"), "while it is gone");
        assert!(topics.unwrap().unreachable);
        load.abandon();
        redis.resume();
    }
    ends("all", || count_all() == before);
    // Also where Redis does not answer when a server ends.
    let (one, two) = (node(&redis, 1), node(&redis, 2));
    redis.pause();
    drop((one, two));
    ends("all", || count_all() == before);
    redis.resume();
    let _ = node_by(cluster(&redis.url()), 1);
}

/// However long they would wait until they try again to reach it.
#[test]
fn the_threads_of_a_server_that_ends_while_redis_is_away_end_with_it() {
    if !is_alone("the_threads_of_a_server_that_ends_while_redis_is_away_end_with_it") {
        return;
    }
    let mut redis = RedisServer::start();
    redis.kill();
    let mut nodes: Vec<_> = (1..=4).map(|number| node(&redis, number)).collect();
    thread::sleep(Duration::from_secs(7)); // by then they try it seldom
    while nodes.pop().is_some() {
        for name in ["switchboard-hear", "switchboard-cluster"] {
            let name = &name[..15];
            let count = || what_there_is().iter().filter(|what| what.trim_end() == name).count();
            // A joined thread stays in the list until the kernel has removed it.
            let begun = Instant::now();
            while count() != nodes.len() {
                assert!(begun.elapsed() < Duration::from_secs(2), "{name}");
                thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// Waits until threads and descriptors are gone; if they stay, it says which there are.
fn ends(what: &str, is_so: impl FnMut() -> bool) {
    eventually_or(|| format!("{what} would not end: {:#?}", what_there_is()), is_so);
}

/// The names of all threads, and what all descriptors are of.
fn what_there_is() -> Vec<String> {
    let entries =
        |what: &str| fs::read_dir(format!("/proc/self/{what}")).unwrap().map(|entry| entry.unwrap().path());
    let threads = entries("task").filter_map(|task| fs::read_to_string(task.join("comm")).ok());
    let descriptors = entries("fd").filter_map(|fd| fs::read_link(fd).ok());
    threads.chain(descriptors.map(|of| of.display().to_string())).collect()
}

/// The IDs of the connections that nodes send by.
fn senders(redis: &RedisServer) -> Vec<String> {
    let list = redis.command(&["CLIENT", "LIST", "TYPE", "normal"]);
    let others = list.lines().filter(|line| !line.contains("cmd=client"));
    others.filter_map(client_id).map(str::to_owned).collect()
}

/// The other node would answer, but the answer went by a connection that was cut.
#[test]
fn a_read_ends_when_the_answers_of_the_other_node_are_lost() {
    let redis = RedisServer::start();
    let here = node(&redis, 1);
    let of_here = senders(&redis);
    let there = node(&redis, 2);
    let mut client = here.connect(Scheme::Ws, "/shared");
    let id: WebSocketId = next_message(&mut client).into_text().unwrap().parse().unwrap();
    let ws = there.hub.open_server(&id).unwrap();
    thread::scope(|scope| {
        let begun = Instant::now();
        let reading = scope.spawn(|| ws.read_message(PATIENCE * 10));
        eventually("it waits there", || {
            for sender in &of_here {
                let _ = redis.try_command(&["CLIENT", "KILL", "ID", sender]);
            }
            client.send(Message::text("x")).unwrap();
            reading.is_finished()
        });
        let read = reading.join().unwrap();
        assert!(matches!(&read, Ok(message) if *message == "x") || matches!(read, Err(Error::Unreachable)));
        assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
    });
    eventually("it is read", || matches!(ws.read_message(PATIENCE), Ok(message) if message == "x"));
}

/// A shared client, and its ID.
fn shared(node: &TestServer) -> (Client, WebSocketId) {
    let mut client = node.connect(Scheme::Ws, "/shared");
    let id = next_message(&mut client).into_text().unwrap().parse().unwrap();
    (client, id)
}

/// A client that takes nothing, and another node writes to it, until that fails: how often it has.
fn clogged(node: &TestServer, other: &TestServer) -> (Client, JoinHandle<usize>) {
    let (client, id) = shared(node);
    let ws = other.hub.open_server(&id).unwrap();
    let writing = thread::spawn(move || (1..).find(|_| ws.write(vec![0; 4_000_000]).is_err()).unwrap());
    let queued = || node.hub.connection(&id).unwrap().queued;
    eventually("it takes no more", || {
        let before = queued();
        thread::sleep(Duration::from_millis(100));
        before > 0 && before == queued()
    });
    (client, writing)
}

/// What it has asked is answered when the next one has its number: that is not taken for an answer to this one.
#[test]
fn what_a_start_of_a_node_has_asked_is_not_answered_to_the_next_one() {
    let redis = RedisServer::start();
    let (here, first) = (node(&redis, 1), node(&redis, 2));
    let (mut client, id) = shared(&here);
    let (mut slow, writing) = clogged(&here, &first);
    drop(first);
    let written = writing.join().unwrap();
    let next = node(&redis, 2);
    let ws = next.hub.open_server(&id).unwrap();
    thread::scope(|scope| {
        let reading = scope.spawn(|| while ws.read_message(PATIENCE).unwrap() != "over" {});
        for _ in 0..written {
            next_message(&mut slow);
        }
        for _ in 0..20 {
            client.send(Message::text("x")).unwrap();
            thread::sleep(Duration::from_millis(10));
        }
        client.send(Message::text("over")).unwrap();
        reading.join().unwrap();
    });
}

/// What is still written to a slow client, that was asked before.
#[test]
fn a_node_whose_way_was_lost_answers_although_a_client_takes_nothing() {
    let redis = RedisServer::start();
    let (here, there) = (node(&redis, 1), node(&redis, 2));
    let (_client, id) = shared(&here);
    let (_slow, writing) = clogged(&here, &there);
    cut(&redis, 2);
    writing.join().unwrap();
    eventually("it answers", || there.hub.open_server(&id).is_ok());
}

/// Who has kept a way to a node goes on when that is back, and nobody gets the answers of another one.
#[test]
fn a_way_to_a_node_serves_its_next_start_too() {
    let redis = RedisServer::start();
    let there = node(&redis, 2);
    let connect = |node: &TestServer| {
        let mut client = node.connect(Scheme::Ws, "/shared");
        let id: WebSocketId = next_message(&mut client).into_text().unwrap().parse().unwrap();
        (client, id)
    };
    let here = node(&redis, 1);
    let (client, id) = connect(&here);
    let pusher = there.hub.pusher(&id).unwrap();
    pusher.push_wait("a", PATIENCE).unwrap();
    drop(client);
    drop(here);
    let here = node(&redis, 1);
    let (_client, id) = connect(&here);
    let pushes = || pusher.push_wait("x", PATIENCE).unwrap_err().kind;
    eventually("its connection has ended", || matches!(pushes(), PushErrorKind::Closed(_)));
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..50 {
                let kind = pushes();
                assert!(matches!(kind, PushErrorKind::Closed(_)), "{kind:?}");
            }
        });
        for _ in 0..50 {
            there.hub.push_wait(&id, "y", PATIENCE).unwrap();
        }
    });
}

/// Run by [`Node::start`], in a process of its own.
#[test]
fn a_node_of_its_own() {
    nodes::be_a_node();
}

//! Topics that remember, in a cluster: all nodes have the same order, whoever publishes, and whatever happens to Redis and to nodes;
//! who comes back gets what was missed, wherever that is.
#![cfg(all(feature = "cluster", feature = "__tls"))]
mod common;

use std::{
    collections::HashSet,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use common::{
    Client, PATIENCE, Scheme, TestServer, Until, connections, eventually,
    member::{members, parse_numbered},
    next_message,
    process::Process,
    redis::{Delaying, RedisServer},
    serve,
};
use switchboard::{
    Audience, Cluster, Error, Handled, History, Limits, Message, NodeId, Opening, Position, Publication,
    Published, Refusal, ServerBuilder, ServerResult, WebSocket, WebSocketServer,
};

const HOUR: Duration = Duration::from_secs(3600);

fn clustered(builder: ServerBuilder, cluster: Cluster, number: u32, history: History) -> ServerBuilder {
    let mut limits = Limits::default();
    limits.max_queue_messages = 20_000;
    members(builder)
        .limits(limits)
        .node(NodeId::new(number))
        .session_keys([[7; 32]])
        .cluster(cluster.lease(Duration::from_secs(3)).answer_timeout(PATIENCE / 2))
        .history("room*", history)
}

fn node_with(redis: &RedisServer, number: u32, history: History) -> TestServer {
    serve(|builder| clustered(builder, Cluster::new(redis.url()), number, history))
}

fn node(redis: &RedisServer, number: u32) -> TestServer {
    node_with(redis, number, History::new(10_000, HOUR))
}

fn nodes<const N: usize>(redis: &RedisServer) -> [TestServer; N] {
    std::array::from_fn(|index| node(redis, index as u32 + 1))
}

/// A member's message: its position, what stands behind that, and the text.
fn next(client: &mut Client) -> (Position, String, String) {
    let message = next_message(client).into_data();
    let (position, what, text) = parse_numbered(&message);
    (position, what.into(), String::from_utf8_lossy(text).into())
}

/// The first message of a member: whether nothing is missing, and where it begins.
fn joined(client: &mut Client) -> (bool, Position) {
    let (position, what, text) = next(client);
    assert!(text.is_empty() && ["recovered", "gap"].contains(&&*what), "{what:?} {text:?}");
    (what == "recovered", position)
}

fn assert_next(client: &mut Client, offset: u64, text: &str) -> Position {
    let (position, what, got) = next(client);
    assert_eq!((position.offset(), &*what, &*got), (offset, "", text));
    position
}

/// While its node connects to Redis anew, it may have to try again.
fn member(server: &TestServer, since: &str) -> Client {
    let (begun, path) = (Instant::now(), format!("/?topics=room&since={since}"));
    loop {
        match server.try_connect(Scheme::Ws, &path, &[]) {
            Ok((client, _)) => return client,
            Err(refused) => assert!(refused.status() == 503 && begun.elapsed() < PATIENCE),
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Publishes until it is taken. What was not answered may be taken as well: so it has a key.
fn publish_surely(server: &TestServer, text: &str) -> Position {
    let begun = Instant::now();
    loop {
        let publication = Publication::new(text).idempotency_key(text);
        match server.hub.publish("room", publication) {
            Ok(published) => return published.position.unwrap(),
            Err(Error::Unreachable) => assert!(begun.elapsed() < PATIENCE, "{text}"),
            Err(e) => panic!("{e}"),
        }
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn many_publishers_on_three_nodes_have_one_order() {
    const EACH: usize = 150;
    let redis = RedisServer::start();
    let nodes: [_; 3] = nodes(&redis);
    let mut clients: Vec<_> = nodes.iter().flat_map(|node| [member(node, ""), member(node, "")]).collect();
    let mut plain = nodes[1].connect_echo(Scheme::Ws, "/?topics=room");
    let orders: Vec<_> = thread::scope(|scope| {
        for (index, node) in nodes.iter().cycle().take(6).enumerate() {
            scope.spawn(move || {
                let mut last = 0;
                for number in 0..EACH {
                    let published = node.hub.publish("room", format!("{index} {number}")).unwrap();
                    let position = published.position.unwrap().offset();
                    assert!(position > last && !published.duplicate);
                    last = position;
                    // The connections here, exactly, and the other nodes.
                    let here = published.broadcast.sent + published.broadcast.queued;
                    let expected = if index % 3 == 1 { 3 } else { 2 };
                    assert_eq!((here, published.broadcast.forwarded), (expected, 2), "{published:?}");
                    assert!(!published.broadcast.unreachable && published.broadcast.dropped == 0);
                }
            });
        }
        let read = |client: &mut Client| {
            assert_eq!(joined(client).1.offset(), 0);
            (1..=6 * EACH as u64)
                .map(|offset| {
                    let (position, what, text) = next(client);
                    assert_eq!((position.offset(), &*what), (offset, ""));
                    text
                })
                .collect::<Vec<_>>()
        };
        let reading: Vec<_> = clients.iter_mut().map(|client| scope.spawn(move || read(client))).collect();
        reading.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(orders.iter().all(|order| *order == orders[0]));
    let unnumbered: Vec<_> =
        orders[0].iter().map(|_| next_message(&mut plain).into_text().unwrap().to_string()).collect();
    assert_eq!(unnumbered, orders[0]);
    for index in 0..6 {
        let of_one = orders[0].iter().filter(|text| text.starts_with(&format!("{index} ")));
        assert!(of_one.eq(&(0..EACH).map(|number| format!("{index} {number}")).collect::<Vec<_>>()));
    }
}

#[test]
fn what_was_missed_comes_on_another_node() {
    let redis = RedisServer::start();
    let [one, two, three] = nodes(&redis);
    let mut client = member(&one, "");
    assert!(joined(&mut client).0);
    // Two has no share in it.
    let published = two.hub.publish("room", "a").unwrap();
    assert_eq!((published.broadcast.sent, published.broadcast.forwarded), (0, 1));
    let last = assert_next(&mut client, 1, "a");
    drop(client);
    let except = connections(&one.hub).first().map(|connection| connection.id);
    let b = Publication::new(vec![b'b', 255]);
    two.hub.publish("room", except.iter().fold(b, |b, id| b.except(id))).unwrap();
    let _ = one.hub.broadcast(Audience::Topic("room"), "c").unwrap();
    for node in [&three, &two, &one, &three] {
        let mut client = member(node, &last.to_string());
        assert_eq!(joined(&mut client), (true, last));
        let (position, what, _) = next(&mut client);
        assert_eq!((position.offset(), &*what), (2, ""));
        assert_next(&mut client, 3, "c");
    }
    // By an ID, from another node.
    let mut client = three.connect_echo(Scheme::Ws, "/?users=me");
    let mine = one.hub.all_connections(Audience::User("me")).next().unwrap();
    let id = mine.unwrap().id;
    let recovery = one.hub.join_since(&id, "room", last).unwrap();
    assert_eq!((recovery.recovered, recovery.missed, recovery.position.offset()), (true, 2, 3));
    assert_eq!(joined(&mut client), (true, last));
    assert_eq!(next(&mut client).0.offset(), 2);
    assert_next(&mut client, 3, "c");
    assert!(matches!(one.hub.join_since(&id, "other", last), Err(Error::NoHistory)));
}

/// Also where its epoch began after the node had its copy.
#[test]
fn who_has_seen_more_than_a_node_has_heard_has_missed_nothing() {
    let redis = RedisServer::start();
    let (one, way) = (node(&redis, 1), Delaying::to(redis.port()));
    let cluster = Cluster::new(format!("redis://127.0.0.1:{}", way.port()));
    let two = serve(|builder| clustered(builder, cluster, 2, History::new(10_000, HOUR)));
    let mut client = member(&two, "");
    joined(&mut client);
    way.set_delay(Duration::from_millis(200));
    for (text, is_forgotten) in [("1", false), ("2", true)] {
        if is_forgotten {
            redis.command(&["DEL", "switchboard:history:room"]);
        }
        let last = publish_surely(&one, text);
        let mut late = member(&two, &last.to_string());
        assert_eq!(joined(&mut late), (true, last), "{text}");
    }
}

#[test]
fn a_publication_with_a_key_is_published_once_wherever() {
    let redis = RedisServer::start();
    let nodes: [_; 3] =
        std::array::from_fn(|index| node_with(&redis, index as u32 + 1, History::new(50, HOUR)));
    let mut client = member(&nodes[0], "");
    joined(&mut client);
    let first = AtomicUsize::new(0);
    let positions = Mutex::new(HashSet::new());
    thread::scope(|scope| {
        for node in &nodes {
            scope.spawn(|| {
                for number in 0..30 {
                    let key = format!("key {number}");
                    let published = node.hub.publish("room", Publication::new(&*key).idempotency_key(&*key));
                    let published = published.unwrap();
                    first.fetch_add(usize::from(!published.duplicate), SeqCst);
                    positions.lock().unwrap().insert((number, published.position.unwrap()));
                    assert!(!published.duplicate || published.broadcast.forwarded == 0);
                }
            });
        }
    });
    assert_eq!((first.load(SeqCst), positions.lock().unwrap().len()), (30, 30));
    for offset in 1..=30 {
        assert_eq!(next(&mut client).0.offset(), offset);
    }
    // When it is not remembered any more, the key is free.
    for number in 0..50 {
        nodes[1].hub.publish("room", format!("{number}")).unwrap();
    }
    assert_eq!(redis.command(&["HLEN", "switchboard:idempotency:room"]), "0");
    let again = nodes[2].hub.publish("room", Publication::new("again").idempotency_key("key 3")).unwrap();
    assert!(!again.duplicate && again.position.unwrap().offset() == 81);
    let long = Publication::new("x").idempotency_key("x".repeat(129));
    assert!(matches!(nodes[0].hub.publish("room", long), Err(Error::OverLimit(_))));
    let plain = Publication::new("x").idempotency_key("x");
    assert!(matches!(nodes[0].hub.publish("other", plain), Err(Error::NoHistory)));
}

#[test]
fn a_connection_that_is_cut_in_the_middle_loses_nothing() {
    const COUNT: u64 = 1500;
    let redis = RedisServer::start();
    let [one, two] = nodes(&redis);
    let mut client = member(&two, "");
    let mut plain = two.connect_echo(Scheme::Ws, "/?topics=room");
    joined(&mut client);
    let is_over = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        let _over = Until(&is_over);
        scope.spawn(|| {
            for number in 1..=COUNT {
                publish_surely(&one, &number.to_string());
            }
        });
        scope.spawn(|| {
            for _ in 0..4 {
                thread::sleep(Duration::from_millis(80));
                redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]);
            }
        });
        let read = |client: &mut Client, is_numbered| {
            for number in 1..=COUNT {
                let text = number.to_string();
                match is_numbered {
                    true => assert_eq!(assert_next(client, number, &text).offset(), number),
                    false => assert_eq!(*next_message(client).into_text().unwrap(), text),
                }
            }
        };
        scope.spawn(move || read(&mut plain, false));
        read(&mut client, true);
    });
    // Whoever comes now finds all of it.
    let mut late = member(&one, "");
    joined(&mut late);
    for number in 1..=COUNT {
        assert_next(&mut late, number, &number.to_string());
    }
}

/// Clients that go from node to node, and from there at once to the next one, see each publication once, in order.
#[test]
fn who_goes_from_node_to_node_sees_each_once() {
    const COUNT: u64 = 900;
    let redis = RedisServer::start();
    let nodes: [_; 3] = nodes(&redis);
    thread::scope(|scope| {
        for node in &nodes {
            scope.spawn(|| {
                for number in 0..COUNT / 3 {
                    node.hub.publish("room", number.to_string()).unwrap();
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
        for start in 0..4 {
            let nodes = &nodes;
            scope.spawn(move || {
                let (mut seen, mut last, mut hops) = (0, String::new(), start);
                while seen < COUNT {
                    let mut client = member(&nodes[hops % 3], &last);
                    hops += 1;
                    let (is_whole, before) = joined(&mut client);
                    assert!(is_whole && before.offset() == seen, "{before} instead of {seen}");
                    for _ in 0..(hops * 7 % 13 + 1).min((COUNT - seen) as usize) {
                        let (position, what, _) = next(&mut client);
                        seen += 1;
                        assert_eq!((position.offset(), &*what), (seen, ""));
                        last = position.to_string();
                    }
                }
            });
        }
    });
}

/// Publishers that try again, clients that go from node to node, and a Redis that is cut off and stopped now and then. What was taken
/// is seen by all, once, in the same order.
#[test]
fn all_of_it_is_seen_once_whatever_happens_to_connections() {
    const EACH: usize = 250;
    let redis = RedisServer::start();
    let nodes: [_; 3] = nodes(&redis);
    let is_over = AtomicBool::new(false);
    let follow = |start: usize| {
        let (mut seen, mut last, mut hops) = (Vec::new(), String::new(), start);
        loop {
            let mut client = member(&nodes[hops % 3], &last);
            hops += 1;
            let (is_whole, before) = joined(&mut client);
            assert!(is_whole && before.offset() == seen.len() as u64, "{before} instead of {}", seen.len());
            for _ in 0..hops * 37 % 101 + 1 {
                let (position, what, text) = next(&mut client);
                if text == "end" {
                    return seen;
                }
                seen.push(text);
                assert_eq!((position.offset(), &*what), (seen.len() as u64, ""));
                last = position.to_string();
            }
        }
    };
    let publish = |index: usize| {
        for number in 0..EACH {
            publish_surely(&nodes[index], &format!("{index} {number}"));
            thread::sleep(Duration::from_millis(3));
        }
    };
    let disturb = || {
        for round in 0.. {
            thread::sleep(Duration::from_millis(120));
            match round % 4 {
                _ if is_over.load(SeqCst) => return,
                0 | 2 => drop(redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"])),
                1 => drop(redis.command(&["CLIENT", "KILL", "TYPE", "normal"])),
                _ => {
                    redis.pause();
                    thread::sleep(Duration::from_millis(if round == 3 { 1500 } else { 100 }));
                    redis.resume();
                }
            }
        }
    };
    let seen: Vec<_> = thread::scope(|scope| {
        scope.spawn(disturb);
        let _over = Until(&is_over);
        let follow = &follow;
        let following: Vec<_> = (0..4).map(|start| scope.spawn(move || follow(start))).collect();
        let publishing: Vec<_> = (0..3).map(|index| scope.spawn(move || publish(index))).collect();
        publishing.into_iter().for_each(|thread| thread.join().unwrap());
        publish_surely(&nodes[0], "end");
        following.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(seen.iter().all(|one| *one == seen[0] && one.len() == 3 * EACH));
    for index in 0..3 {
        let of_one = seen[0].iter().filter(|text| text.starts_with(&format!("{index} ")));
        assert!(of_one.eq(&(0..EACH).map(|number| format!("{index} {number}")).collect::<Vec<_>>()));
    }
}

#[test]
fn a_redis_that_keeps_its_data_goes_on_where_it_was() {
    // With `everysec` the last that it has said may not be there, where the disk is busy.
    let mut redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let [one, two] = nodes(&redis);
    let mut client = member(&two, "");
    joined(&mut client);
    let before = publish_surely(&one, "1");
    assert_eq!(assert_next(&mut client, 1, "1"), before);
    for round in 0..2 {
        redis.kill();
        // There is no order without it.
        eventually("it is noticed", || matches!(one.hub.publish("room", "x"), Err(Error::Unreachable)));
        // Who has the topic, serves what it has.
        let mut early = member(&two, &before.to_string());
        assert_eq!(joined(&mut early), (true, before));
        redis.restart();
        let text = format!("after {round}");
        let position = publish_surely(&one, &text);
        assert_eq!(position, assert_next(&mut client, round + 2, &text));
        (2..=round + 2).for_each(|offset| assert_eq!(next(&mut early).0.offset(), offset));
        let mut late = member(&one, &before.to_string());
        assert_eq!(joined(&mut late), (true, before));
        assert_next(&mut late, 2, "after 0");
    }
}

#[test]
fn a_redis_that_has_lost_its_data_begins_anew_and_that_is_said() {
    let mut redis = RedisServer::start();
    let [one, two] = nodes(&redis);
    let mut client = member(&two, "");
    joined(&mut client);
    let old = publish_surely(&one, "1");
    assert_next(&mut client, 1, "1");
    redis.restart();
    let new = publish_surely(&one, "2");
    assert_ne!(new.to_string().split(':').next(), old.to_string().split(':').next());
    let (is_whole, before) = joined(&mut client);
    assert!(!is_whole && before.offset() == 0);
    assert_eq!(assert_next(&mut client, 1, "2"), new);
    let mut late = member(&one, &old.to_string());
    assert!(!joined(&mut late).0);
    assert_next(&mut late, 1, "2");
    // While all listen, nothing is missed.
    redis.command(&["FLUSHALL"]);
    let newer = publish_surely(&two, "3");
    assert_eq!(assert_next(&mut client, 1, "3"), newer);
    assert_ne!(newer, new);
}

/// As after a failover: what nodes have delivered already, the new master has never had.
#[test]
fn a_redis_that_has_lost_the_last_of_its_data_does_not_give_a_position_twice() {
    let mut redis = RedisServer::start();
    let [one, two] = nodes(&redis);
    let mut client = member(&two, "");
    joined(&mut client);
    for number in 1..=3 {
        publish_surely(&one, &number.to_string());
        assert_next(&mut client, number, &number.to_string());
    }
    redis.command(&["SAVE"]);
    let mut seen = HashSet::new();
    for number in 4..=5 {
        publish_surely(&one, &number.to_string());
        seen.insert(assert_next(&mut client, number, &number.to_string()));
    }
    redis.restart();
    assert_eq!(redis.command(&["XLEN", "switchboard:publications:room"]), "3");
    let (is_whole, _) = joined(&mut client); // it is noticed when the node has connected again
    assert!(!is_whole);
    for number in 6..=7 {
        let position = publish_surely(&one, &number.to_string());
        assert!(seen.insert(position));
        assert_eq!(next(&mut client).0, position);
    }
}

#[test]
fn while_redis_does_not_answer_nothing_is_published_and_what_is_local_goes_on() {
    let redis = RedisServer::start();
    let [one, two] = nodes(&redis);
    let mut client = member(&two, "");
    joined(&mut client);
    let first = publish_surely(&one, "1");
    assert_next(&mut client, 1, "1");
    redis.pause();
    let begun = Instant::now();
    assert!(matches!(one.hub.publish("room", "late"), Err(Error::Unreachable)));
    assert!(begun.elapsed() < PATIENCE);
    // Nobody knows whether there is more of it elsewhere, or another epoch.
    for since in [first.to_string().replace(":1", ":2"), "AAAAAAAAAAA:1".into()] {
        let refused = two.try_connect(Scheme::Ws, &format!("/?topics=room&since={since}"), &[]);
        assert_eq!(refused.unwrap_err().status(), 503, "{since}");
    }
    // What this node does not listen to, it knows nothing of.
    let refused = one.try_connect(Scheme::Ws, "/?topics=room&since=", &[]).unwrap_err();
    assert_eq!(refused.status(), 503);
    let mut plain = one.connect_echo(Scheme::Ws, "/?topics=room,other");
    let sent = one.hub.publish("other", "local").unwrap();
    assert_eq!(sent.broadcast.sent + sent.broadcast.queued, 1);
    assert_eq!(&*next_message(&mut plain).into_text().unwrap(), "local");
    redis.resume();
    publish_surely(&one, "2");
    // "late" may be there, or not, but it has a place.
    let (position, _, text) = next(&mut client);
    if text == "late" {
        assert_eq!(position.offset(), 2);
        assert_next(&mut client, 3, "2");
    } else {
        assert_eq!((position.offset(), &*text), (2, "2"));
    }
    eventually("it is in the topic", || {
        one.hub.publish("room", "again").is_ok_and(|all| all.broadcast.sent + all.broadcast.queued == 1)
    });
    let mut late = member(&one, &first.to_string());
    assert_eq!(joined(&mut late), (true, first));
}

#[test]
fn a_redis_without_memory_gives_what_it_has_and_takes_nothing() {
    let redis = RedisServer::start();
    let [one, two] = nodes(&redis);
    let first = publish_surely(&one, "1");
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    assert!(matches!(one.hub.publish("room", "2"), Err(Error::Unreachable)));
    let keyed = Publication::new("2").idempotency_key("2");
    assert!(matches!(one.hub.publish("room", keyed), Err(Error::Unreachable)));
    let mut client = member(&two, "");
    assert!(joined(&mut client).0);
    assert_next(&mut client, 1, "1");
    // A topic that it does not have yet.
    let mut new = two.connect(Scheme::Ws, "/?topics=room2&since=");
    assert_eq!(joined(&mut new).1.offset(), 0);
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    let position = publish_surely(&one, "3");
    assert_eq!(assert_next(&mut client, 2, "3"), position);
    one.hub.publish("room2", "of another one").unwrap();
    assert_next(&mut new, 1, "of another one");
    let mut late = member(&one, &first.to_string());
    assert_eq!(joined(&mut late), (true, first));
}

#[test]
fn what_a_node_has_published_is_there_when_it_is_gone() {
    let redis = RedisServer::start();
    let one = node(&redis, 1);
    let last = publish_surely(&one, "1");
    publish_surely(&one, "2");
    let mut client = member(&one, "");
    joined(&mut client);
    drop(client);
    drop(one);
    let two = node(&redis, 2);
    let mut client = member(&two, &last.to_string());
    assert_eq!(joined(&mut client), (true, last));
    assert_next(&mut client, 2, "2");
    publish_surely(&two, "3");
    assert_next(&mut client, 3, "3");
}

/// Its URL, for a node in a process of its own.
const REDIS: &str = "SWITCHBOARD_TEST_REDIS";

/// Publishes the next number, again and again, and says so when it was taken.
fn publish_forever(url: &str) {
    let history = History::new(10_000, HOUR);
    let one = serve(|builder| clustered(builder, Cluster::new(url), 9, history));
    for number in 1.. {
        one.hub.publish("room", number.to_string()).unwrap();
        eprintln!("published {number}");
    }
}

#[test]
fn what_a_node_has_published_that_was_killed_is_not_lost() {
    if let Ok(url) = std::env::var(REDIS) {
        return publish_forever(&url);
    }
    let redis = RedisServer::start();
    let [one, two] = nodes(&redis);
    let mut client = member(&one, "");
    joined(&mut client);
    let mut command = Command::new(std::env::current_exe().unwrap());
    let name = "what_a_node_has_published_that_was_killed_is_not_lost";
    let mut process = Process::spawn(command.args(["--exact", name, "--nocapture"]).env(REDIS, redis.url()));
    process.line("published 300");
    drop(process); // by SIGKILL
    publish_surely(&two, "end");
    let mut late = member(&two, "");
    joined(&mut late);
    for client in [&mut client, &mut late] {
        for number in 1.. {
            let (position, _, text) = next(client);
            assert_eq!(position.offset(), number);
            if text == "end" {
                assert!(number > 300);
                break;
            }
            assert_eq!(text, number.to_string());
        }
    }
}

#[test]
fn what_redis_keeps_has_bounds() {
    let redis = RedisServer::start();
    let age = Duration::from_secs(4);
    let one = node_with(&redis, 1, History::new(5, age));
    for number in 0..40 {
        let publication = Publication::new("x".repeat(100)).idempotency_key(format!("{number}"));
        one.hub.publish("room", publication).unwrap();
    }
    assert_eq!(redis.command(&["XLEN", "switchboard:publications:room"]), "5");
    assert_eq!(redis.command(&["HLEN", "switchboard:idempotency:room"]), "5");
    for key in ["history", "publications", "idempotency"] {
        let left: i64 = redis.command(&["PTTL", &format!("switchboard:{key}:room")]).parse().unwrap();
        assert!((1..=4000).contains(&left), "{key}: {left}");
    }
    let mut client = member(&one, "");
    assert_eq!(joined(&mut client).1.offset(), 35);
    eventually("all is forgotten", || !redis.command(&["KEYS", "*"]).contains(":room"));
    let published = one.hub.publish("room", "new").unwrap();
    assert_eq!(published.position.unwrap().offset(), 1, "another epoch");
    (36..=40).for_each(|offset| assert_eq!(next(&mut client).0.offset(), offset));
    assert_next(&mut client, 1, "new");
    // What is too old is forgotten, also where something newer is not.
    thread::sleep(age / 2);
    one.hub.publish("room", "newer").unwrap();
    thread::sleep(age * 2 / 3);
    one.hub.publish("room", "newest").unwrap();
    assert_eq!(redis.command(&["XLEN", "switchboard:publications:room"]), "2");
}

/// Two nodes say the same at the same time, with one key; and what was before gets too old.
#[test]
fn what_is_published_twice_takes_no_more() {
    let redis = RedisServer::start();
    let one = node_with(&redis, 1, History::new(1000, Duration::from_secs(2)));
    let publish = |number: u32| {
        let publication = Publication::new("x".repeat(100)).idempotency_key(format!("{number:08}"));
        one.hub.publish("room", publication).unwrap().duplicate
    };
    let number = |command: &[&str]| redis.command(command).parse::<u64>().unwrap();
    let bytes = || number(&["HGET", "switchboard:history:room", "bytes"]);
    publish(0);
    let each = bytes();
    for count in 1..150 {
        assert!(!publish(count) && publish(count));
        thread::sleep(Duration::from_millis(20));
    }
    publish(1000);
    assert_eq!(bytes(), each * number(&["XLEN", "switchboard:publications:room"]));
}

#[test]
fn many_large_publications_have_a_bound_in_bytes() {
    let redis = RedisServer::start();
    let bounded = |builder: ServerBuilder| {
        let mut limits = Limits::default();
        limits.max_queue_messages = 1000;
        (limits.max_queue_bytes, limits.max_history_bytes) = (Some(400_000), Some(500_000));
        clustered(builder, Cluster::new(redis.url()), 1, History::new(500, HOUR)).limits(limits)
    };
    let one = serve(bounded);
    let topics: Vec<_> = (0..4).map(|number| format!("room {number}")).collect();
    let mut members: Vec<_> = topics
        .iter()
        .map(|topic| one.connect(Scheme::Ws, &format!("/?topics={}", topic.replace(' ', "%20"))))
        .collect();
    for round in 0..100 {
        for topic in &topics {
            one.hub.publish(topic, format!("{round} {}", "x".repeat(10_000))).unwrap();
        }
        for member in &mut members {
            assert!(next_message(member).into_text().unwrap().starts_with(&format!("{round} ")));
        }
    }
    let kept = |topic| redis.command(&["XLEN", &format!("switchboard:publications:{topic}")]);
    topics.iter().for_each(|topic| assert_eq!(kept(topic), "29"));
    // What is published last is remembered, and the others make room for it.
    let mut got = 0;
    for topic in topics.iter().rev() {
        let path = format!("/?topics={}&since=", topic.replace(' ', "%20"));
        let mut client = one.connect(Scheme::Ws, &path);
        let before = joined(&mut client).1.offset();
        (before + 1..=100).for_each(|offset| assert_eq!(next(&mut client).0.offset(), offset));
        got += 100 - before;
    }
    assert!((29..=50).contains(&got), "{got}");
}

#[test]
fn two_clusters_on_one_redis_have_topics_of_their_own() {
    let redis = RedisServer::start();
    let [one, two] = ["a:", "b:"].map(|prefix| {
        let cluster = Cluster::new(redis.url()).prefix(prefix);
        serve(|builder| clustered(builder, cluster, 1, History::new(10, HOUR)))
    });
    let (mut a, mut b) = (member(&one, ""), member(&two, ""));
    assert_ne!(joined(&mut a).1, joined(&mut b).1);
    for (server, client, text) in [(&one, &mut a, "of a"), (&two, &mut b, "of b")] {
        let published = server.hub.publish("room", text).unwrap();
        assert_eq!(published.broadcast.forwarded, 0);
        assert_next(client, 1, text);
    }
}

/// Publishes what it is sent, on a thread that must not wait.
struct Publisher(Arc<Mutex<Vec<Published>>>);

impl WebSocketServer for Publisher {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        opening.set_shared_connection(true);
        Ok(())
    }

    fn server(&mut self, _: &mut WebSocket) -> ServerResult {
        Ok(())
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        self.0.lock().unwrap().push(ws.hub().publish("room", message).unwrap());
        Handled::Yes
    }
}

#[test]
fn who_must_not_wait_publishes_without_an_answer() {
    let redis = RedisServer::start();
    let answers = Arc::new(Mutex::new(Vec::new()));
    let publisher = {
        let answers = answers.clone();
        move || Publisher(answers.clone())
    };
    let one = serve(|builder| {
        let mut limits = Limits::default();
        limits.workers = 0;
        let history = History::new(100, HOUR);
        clustered(builder, Cluster::new(redis.url()), 1, history).limits(limits).route("/publish", publisher)
    });
    let two = node(&redis, 2);
    let (mut here, mut there) = (member(&one, ""), member(&two, ""));
    let mut publisher = one.connect(Scheme::Ws, "/publish");
    assert_eq!(joined(&mut here), joined(&mut there));
    for number in 1..=50 {
        publisher.send(tungstenite::Message::text(number.to_string())).unwrap();
    }
    for client in [&mut here, &mut there] {
        for number in 1..=50 {
            assert_next(client, number, &number.to_string());
        }
    }
    assert!(answers.lock().unwrap().iter().all(|published| published.position.is_none()));
}

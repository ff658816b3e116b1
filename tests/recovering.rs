//! What topics remember, and who is there, while everything happens at once: clients come, are too slow, and vanish; topics are
//! forgotten; memory is short; the server is started anew. Each client keeps a ledger.
#![cfg(feature = "__tls")]
mod common;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use common::{
    PATIENCE, Scheme, TestServer, Until, connections, eventually,
    member::{Member, members, parse_numbered},
    serve,
};
use switchboard::{
    Audience, Client, ClientError, Compression, Error, History, HubObserver, Limits, Message, Payload,
    Position, Publication, Since, TlsTrust,
};

const HOUR: Duration = Duration::from_secs(3600);

/// Topics with one publisher each. The last one forgets fast.
const TOPICS: [&str; 3] = ["busy1", "busy2", "short"];

/// The text of the publication with this number: mostly short, and now and then much.
fn text(topic: usize, number: usize) -> String {
    let size = if number.is_multiple_of(97) { 30_000 } else { number * 37 % 3000 };
    format!("{topic} {number} {}", "abcdefghij ".repeat(size / 11))
}

/// How a client is, whatever else.
#[derive(Clone, Copy)]
struct Kind {
    scheme: Scheme,
    target: &'static str,
    compression: Compression,
    /// In the middle of a visit it takes nothing for so long.
    pause: Duration,
}

/// What a client has seen of a topic.
#[derive(Default)]
struct Seen {
    position: Option<Position>,
    number: Option<usize>,
    /// The next one is the one after that: nobody has said since that something is missing.
    is_whole: bool,
}

#[derive(Default)]
struct Ledger {
    seen: [Seen; 3],
    got: usize,
    recovered: usize,
    gaps: usize,
    ends: usize,
    refused: usize,
}

impl Ledger {
    /// Reads so many messages, or until the end.
    fn visit(&mut self, server: &TestServer, kind: Kind, count: usize) {
        let since: Vec<_> =
            self.seen.iter().filter_map(|seen| seen.position).map(|p| p.to_string()).collect();
        let query = format!("topics={}&since={}", TOPICS.join(","), since.join(","));
        let client = match connect(server, kind.scheme, &format!("{}{query}", kind.target), kind.compression)
        {
            Ok(client) => client,
            Err(ClientError::Refused(response)) => {
                self.refused += 1;
                return assert_eq!(response.status(), 503);
            }
            Err(e) => panic!("{e}"),
        };
        let mut joined = 0;
        for number in 0..count {
            if number == count / 2 {
                thread::sleep(kind.pause);
            }
            match client.read_message(PATIENCE) {
                Ok(message) if message == "noise" => {}
                Ok(message) => self.take(&message, &mut joined),
                Err(Error::Closed(reason)) => {
                    assert!([1013, 1006].contains(&reason.code().0), "{reason}");
                    self.ends += 1;
                    return;
                }
                Err(e) => panic!("{e}"),
            }
        }
    }

    fn take(&mut self, message: &Message, joined: &mut usize) {
        let (position, what, rest) = parse_numbered(message.as_text().unwrap().as_bytes());
        if !what.is_empty() {
            let seen = &mut self.seen[*joined];
            *joined += 1;
            match what {
                "recovered" => self.recovered += 1,
                "gap" => self.gaps += 1,
                other => panic!("{other}"),
            }
            seen.is_whole &= what == "recovered";
            assert!(!seen.is_whole || seen.position == Some(position));
            seen.position = Some(position);
            return;
        }
        let rest = str::from_utf8(rest).unwrap();
        let mut parts = rest.split(' ').map(|part| part.parse().unwrap());
        let (topic, number): (usize, usize) = (parts.next().unwrap(), parts.next().unwrap());
        assert_eq!(rest, text(topic, number));
        let seen = &mut self.seen[topic];
        if let Some(last) = seen.number {
            assert!(number > last, "{topic}: {number} after {last}");
            assert!(
                !seen.is_whole || number == last + 1,
                "{topic}: {number} at {position} after {last} at {:?}, and nobody has said so",
                seen.position
            );
        }
        *seen = Seen { position: Some(position), number: Some(number), is_whole: true };
        self.got += 1;
    }
}

fn connect(
    server: &TestServer,
    scheme: Scheme,
    target: &str,
    compression: Compression,
) -> Result<Client, ClientError> {
    let builder = match scheme {
        Scheme::Ws => Client::builder(&format!("ws://{}{target}", server.plain)),
        Scheme::Wss => Client::builder(&format!("wss://localhost:{}{target}", server.tls.port()))
            .tls(TlsTrust::ca_file("certs/ca.pem").unwrap()),
    };
    builder.compression(compression).connect()
}

/// Publishes until it is stopped, each number once, and sometimes to all but one. Returns the number of the next one.
fn publish(server: &TestServer, topic: usize, from: usize, stop: &AtomicBool) -> usize {
    let mut number = from;
    while !stop.load(SeqCst) {
        server.hub.publish(TOPICS[topic], text(topic, number)).unwrap();
        number += 1;
        if number.is_multiple_of(8) {
            let _ = server.hub.broadcast(Audience::All, Payload::newest("noise", "noise")).unwrap();
            thread::sleep(Duration::from_millis(2));
        }
    }
    number
}

#[test]
fn nothing_is_missing_unless_it_is_said() {
    let kinds = [
        ("/?", Compression::Off, 0),
        ("/shared?overflow=keep&", Compression::Pooled, 0),
        ("/shared?overflow=drop&", Compression::Off, 700),
        ("/?overflow=keep&", Compression::Dedicated { window_bits: 15, level: 1 }, 500),
        ("/shared?", Compression::Off, 300),
        ("/?overflow=drop&", Compression::Pooled, 0),
    ];
    let mut ledgers: Vec<_> = kinds.iter().map(|_| Ledger::default()).collect();
    let mut next = [0; 3];
    // Each is a server of its own, which knows nothing of the one before.
    for workers in [2, 0] {
        let mut limits = Limits::default();
        limits.workers = workers;
        limits.max_queue_messages = 450;
        limits.max_buffered_bytes = Some(6 << 20);
        limits.max_history_bytes = Some(1 << 20);
        let server = serve(|builder| {
            let builder = members(builder.limits(limits));
            let builder = builder.compression(Compression::Dedicated { window_bits: 15, level: 1 });
            builder
                .history("busy*", History::new(300, HOUR))
                .history("short", History::new(100, Duration::from_millis(30)))
                .history("other*", History::new(5, HOUR))
        });
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let (server, stop) = (&server, &stop);
            let publishers: Vec<_> = next
                .into_iter()
                .enumerate()
                .map(|(topic, from)| scope.spawn(move || publish(server, topic, from, stop)))
                .collect();
            // Others want to be remembered, too: so these are forgotten now and then.
            scope.spawn(move || {
                for number in (0..).take_while(|_| !stop.load(SeqCst)) {
                    server
                        .hub
                        .publish(&format!("other{}", number % 50), "x".repeat(number * 31 % 20_000))
                        .unwrap();
                    thread::sleep(Duration::from_millis(3));
                }
            });
            let until = Until(stop);
            let visitors: Vec<_> = ledgers
                .iter_mut()
                .zip(kinds)
                .enumerate()
                .map(|(number, (ledger, (target, compression, pause)))| {
                    let scheme = if number % 2 == 0 { Scheme::Ws } else { Scheme::Wss };
                    let kind = Kind { scheme, target, compression, pause: Duration::from_millis(pause) };
                    scope.spawn(move || {
                        for visit in 0..8 {
                            ledger.visit(server, kind, [300, 3, 50, 700][visit % 4]);
                            thread::sleep(Duration::from_millis([0, 5, 60][visit % 3]));
                        }
                    })
                })
                .collect();
            visitors.into_iter().for_each(|visitor| visitor.join().unwrap());
            drop(until);
            let last: Vec<_> = publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect();
            // The next server's publications are others.
            next = [0, 1, 2].map(|topic| last[topic] + 1000);
        });
        eventually("all have left", || server.hub.is_empty().unwrap());
    }
    let sum = |count: fn(&Ledger) -> usize| ledgers.iter().map(count).sum::<usize>();
    let (recovered, gaps, ends) = (sum(|l| l.recovered), sum(|l| l.gaps), sum(|l| l.ends));
    println!(
        "{} got, {recovered} recovered, {gaps} gaps, {ends} ends, {} refused",
        sum(|l| l.got),
        sum(|l| l.refused)
    );
    assert!(recovered > 10 && gaps > 10, "{recovered} {gaps}");
}

/// Whoever is first: one publication of each key, and all are told the same position.
#[test]
fn a_key_is_published_once_whoever_is_first() {
    const THREADS: usize = 6;
    const KEYS: usize = 100;
    let server = serve(|builder| builder.route("/", || Member).history("room", History::new(200, HOUR)));
    let client = connect(&server, Scheme::Ws, "/?topics=room&since=", Compression::Off).unwrap();
    client.read_message(PATIENCE).unwrap();
    let barrier = Barrier::new(THREADS);
    let publish = |thread: usize| -> Vec<(Position, bool)> {
        let publish = |key: usize| {
            barrier.wait();
            let publication = Publication::new(format!("{key} of {thread}")).idempotency_key(key.to_string());
            let published = server.hub.publish("room", publication).unwrap();
            (published.position.unwrap(), published.duplicate)
        };
        (0..KEYS).map(publish).collect()
    };
    let results: Vec<_> = thread::scope(|scope| {
        let publish = &publish;
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || publish(thread))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for key in 0..KEYS {
        let of_key: Vec<_> = results.iter().map(|results| results[key]).collect();
        assert_eq!(of_key.iter().filter(|(_, duplicate)| !duplicate).count(), 1);
        assert!(of_key.iter().all(|(position, _)| *position == of_key[0].0));
        let first = of_key.iter().position(|(_, duplicate)| !duplicate).unwrap();
        let got = client.read_message(PATIENCE).unwrap();
        assert_eq!(got.as_text().unwrap(), format!("{}\n{key} of {first}", of_key[0].0));
    }
}

/// What an observer was told: each of these begins and ends in turn.
#[derive(Default)]
struct Told {
    now: Mutex<HashSet<String>>,
    faults: Mutex<Vec<String>>,
    events: AtomicUsize,
}

impl Told {
    fn begin(&self, what: String) {
        self.events.fetch_add(1, SeqCst);
        if !self.now.lock().unwrap().insert(what.clone()) {
            self.faults.lock().unwrap().push(format!("{what} again"));
        }
    }

    fn end(&self, what: &str) {
        if !self.now.lock().unwrap().remove(what) {
            self.faults.lock().unwrap().push(format!("no {what}"));
        }
    }
}

impl HubObserver for Told {
    fn topic_occupied(&self, topic: &str) {
        self.begin(format!("topic {topic}"));
    }

    fn topic_vacated(&self, topic: &str) {
        self.end(&format!("topic {topic}"));
    }

    fn user_online(&self, user: &str) {
        self.begin(format!("user {user}"));
    }

    fn user_offline(&self, user: &str) {
        self.end(&format!("user {user}"));
    }

    fn user_joined(&self, topic: &str, user: &str) {
        self.begin(format!("{user} in {topic}"));
    }

    fn user_left(&self, topic: &str, user: &str) {
        self.end(&format!("{user} in {topic}"));
    }
}

/// Who is in which topic, and how often: as presence says, and as the connections do.
fn is_exact(server: &TestServer) -> bool {
    let mut expected: HashMap<(String, String), usize> = HashMap::new();
    for connection in connections(&server.hub) {
        for topic in server.hub.topics_of(&connection.id).unwrap_or_default() {
            let user = connection.user.as_ref().unwrap().to_string();
            *expected.entry((topic.to_string(), user)).or_default() += 1;
        }
    }
    let mut present = HashMap::new();
    for topic in ["a", "b", "c"] {
        let users = server.hub.all_present(topic).map(Result::unwrap);
        present.extend(users.map(|user| ((topic.to_owned(), user.user.to_string()), user.connections)));
    }
    present == expected
}

#[test]
fn who_is_there_is_exact_after_a_storm() {
    let told = Arc::new(Told::default());
    let server = serve(|builder| {
        let builder = builder.observer(told.clone()).history("*", History::new(10, HOUR));
        members(builder)
    });
    let stop = AtomicBool::new(false);
    let come = |thread: usize| {
        let mut stay = Vec::new();
        for round in 0..60_usize {
            let path = ["/", "/shared"][round % 2];
            let topics = ["a", "a,b", "b,a,c", "c"][round / 2 % 4];
            let users = ["ann", "bob", "ann,bob", "eve,eve"][(round + thread) % 4];
            let more = ["", "&since=", "&refuse=1"][round / 3 % 3];
            let target = format!("{path}?topics={topics}&users={users}{more}");
            match connect(&server, [Scheme::Ws, Scheme::Wss][thread % 2], &target, Compression::Off) {
                Ok(client) if round % 5 == 0 => stay.push(client),
                Ok(client) if round % 5 == 1 => drop(client.finish()),
                Ok(client) => drop(client),
                Err(e) => assert!(!more.is_empty(), "{e}"),
            }
        }
        stay
    };
    let meddle = |thread: usize| {
        for number in (thread..).take_while(|_| !stop.load(SeqCst)) {
            let all = connections(&server.hub);
            for (place, connection) in all.iter().enumerate() {
                let (id, topic) = (&connection.id, ["a", "b", "c"][(place + number) % 3]);
                // Some have ended meanwhile.
                match (place + number / 3) % 4 {
                    0 => drop(server.hub.join(id, topic)),
                    1 => drop(server.hub.leave(id, topic)),
                    2 => drop(server.hub.join_since(id, topic, Since::NOTHING)),
                    _ if number % 50 == 0 => drop(server.hub.close(id, 4000, "")),
                    _ => drop(server.hub.publish(topic, "x")),
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
    };
    let stay: Vec<_> = thread::scope(|scope| {
        let (come, meddle) = (&come, &meddle);
        let until = Until(&stop);
        (0..2).for_each(|thread| drop(scope.spawn(move || meddle(thread))));
        let threads: Vec<_> = (0..4).map(|thread| scope.spawn(move || come(thread))).collect();
        let stay = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
        drop(until);
        stay
    });
    eventually("it is as the connections say", || is_exact(&server));
    assert!(told.events.load(SeqCst) > 0);
    drop(stay);
    eventually("all are gone", || server.hub.is_empty().unwrap());
    eventually("all is told", || told.now.lock().unwrap().is_empty());
    assert!(is_exact(&server));
    assert!(server.hub.topics(None, 10).unwrap().items.is_empty());
    assert_eq!(*told.faults.lock().unwrap(), [""; 0]);
}

//! A node: its clients are in a topic each, and its threads push to all clients of all nodes, and write down what was answered.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use switchboard::{
    Audience, Cluster, Hub, Limits, Message, NodeId, Opening, PushErrorKind, Pushed, Refusal, Server,
    ServerResult, WebSocket, WebSocketId, WebSocketServer,
};

use super::{Chance, NODES, append, now};

pub(crate) const VARIABLE: &str = "SWITCHBOARD_LEDGER_NODE";

/// Threads of a node that push.
pub(crate) const THREADS: usize = 4;

/// Each of them makes so long a pause after each call.
const PAUSE: Duration = Duration::from_millis(4);

pub(crate) const TOPICS: usize = 30;

struct App;

impl WebSocketServer for App {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        let topic = opening.request().query_value("topic").map(|topic| topic.into_owned());
        opening.set_shared_connection(opening.path() == "/");
        topic.map_or(Ok(()), |topic| Ok(opening.join(topic)?))
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        if ws.path() == "/" {
            return Ok(ws.write(ws.websocket_id().to_string())?);
        }
        let Message::Text(told) = ws.read_message(Duration::from_secs(10))? else { return Ok(()) };
        let hub = ws.hub();
        if told == *"end" {
            let _ = hub.broadcast(Audience::All, "end")?;
            return Ok(());
        }
        let is_well =
            told.split(' ').all(|id| is_reached(&hub, id)) && (0..3).all(|topic| is_heard(&hub, topic));
        Ok(ws.write(if is_well { "well" } else { "not well" })?)
    }
}

fn is_reached(hub: &Hub, id: &str) -> bool {
    let id: Result<WebSocketId, _> = id.parse();
    id.is_ok_and(|id| hub.push_wait(&id, "sync", Duration::from_secs(1)).is_ok())
}

fn is_heard(hub: &Hub, topic: usize) -> bool {
    let sent = hub.broadcast(Audience::Topic(&topic.to_string()), "sync");
    sent.is_ok_and(|sent| sent.forwarded == NODES - 1)
}

/// Is a node, until this process is killed.
pub(crate) fn be(what: &str) {
    let mut words = what.splitn(4, ' ');
    let mut word = || words.next().unwrap();
    let (number, start, url, folder) = (word(), word(), word(), word());
    let (number, start): (u32, usize) = (number.parse().unwrap(), start.parse().unwrap());
    let mut limits = Limits::default();
    limits.max_queue_messages = 100_000;
    limits.max_connections = 20_000;
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .limits(limits)
        .node(NodeId::new(number))
        .session_keys([[7; 32]])
        .cluster(Cluster::new(url))
        .route("/", || App)
        .route("/control", || App)
        .bind()
        .unwrap();
    println!("{}", server.local_addrs()[0].tcp().unwrap());
    for thread in 0..THREADS {
        let (hub, folder) = (server.hub(), PathBuf::from(folder));
        thread::spawn(move || push(start * THREADS + thread, number as usize, &hub, &folder));
    }
    let parent = std::os::unix::process::parent_id();
    thread::spawn(move || {
        while std::os::unix::process::parent_id() == parent {
            thread::sleep(Duration::from_secs(1));
        }
        std::process::exit(1); // nobody needs it any more
    });
    server.run().unwrap();
}

/// Pushes until there is a file `stop`, and writes for each: the number, the time, what it took in microseconds, how, to whom, and
/// the answer.
fn push(thread: usize, node: usize, hub: &Hub, folder: &Path) {
    let mut file =
        File::options().append(true).create(true).open(folder.join(format!("{thread}.{node}.log"))).unwrap();
    let mut chance = Chance((thread as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let (mut ids, mut read) = (Vec::<WebSocketId>::new(), None::<Instant>);
    for number in 0.. {
        if read.is_none_or(|read| read.elapsed() > Duration::from_millis(500)) {
            read = Some(Instant::now());
            let text = fs::read_to_string(folder.join("ids")).unwrap_or_default();
            ids = text.split_ascii_whitespace().map(|id| id.parse().unwrap()).collect();
            if folder.join("stop").exists() {
                return;
            }
        }
        if ids.is_empty() {
            thread::sleep(Duration::from_millis(100));
            continue;
        }
        let id = ids[chance.below(ids.len() as u64) as usize];
        let (text, at, begun) = (format!("{thread} {number}"), now(), Instant::now());
        let (how, to, answer) = match chance.below(100) {
            0..3 => {
                let topic = chance.below(TOPICS as u64).to_string();
                let sent = hub.broadcast(Audience::Topic(&topic), text).unwrap();
                ("topic", topic, if sent.unreachable { "unreachable" } else { "forwarded" })
            }
            3..35 => {
                let pushed = hub.push_wait(&id, text, Duration::from_millis(300));
                ("wait", id.to_string(), pushed.map_or_else(|error| name(&error.kind), |()| "sent"))
            }
            35..40 => {
                let pushed = hub.push_all([(&id, text)]).remove(0);
                ("all", id.to_string(), pushed.map_or_else(|error| name(&error.kind), done))
            }
            _ => {
                let pushed = hub.push(&id, text);
                ("push", id.to_string(), pushed.map_or_else(|error| name(&error.kind), done))
            }
        };
        let took = begun.elapsed().as_micros();
        append(&mut file, &format!("{number} {at} {took} {how} {to} {answer}\n"));
        thread::sleep(PAUSE);
    }
}

fn done(pushed: Pushed) -> &'static str {
    match pushed {
        Pushed::Sent => "sent",
        Pushed::Queued => "queued",
        Pushed::Forwarded => "forwarded",
        _ => "other",
    }
}

fn name(kind: &PushErrorKind) -> &'static str {
    match kind {
        PushErrorKind::Unknown => "unknown",
        PushErrorKind::Closed(_) => "closed",
        PushErrorKind::Full => "full",
        PushErrorKind::Timeout => "timeout",
        PushErrorKind::Pending => "pending",
        PushErrorKind::Unreachable => "unreachable",
        _ => "other",
    }
}

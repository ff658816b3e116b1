//! The rights that the documentation of `Cluster` says are all that a node needs, and no more; and what is said where one is missing.
#![cfg(all(feature = "cluster", feature = "cli", feature = "__tls"))]
mod common;

use std::{
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    time::Duration,
};

use common::{
    PATIENCE, Scheme, TestServer, eventually, folder::Folder, member::members, process::Process,
    redis::RedisServer, serve,
};
use switchboard::{Audience, Cluster, History, NodeId, Publication, Redis};

const KEY: &str = "the same 32 secret bytes or more on all nodes\n";

/// As the documentation has them.
fn rights() -> Vec<&'static str> {
    let text = include_str!("../src/cluster/mod.rs");
    let (_, text) = text.split_once("/// ```text\n").unwrap();
    let (rights, _) = text.split_once("/// ```").unwrap();
    rights.split_whitespace().filter(|word| *word != "///").collect()
}

fn with_user(rights: &[&str]) -> RedisServer {
    let redis = RedisServer::start();
    redis.command(&[&["ACL", "SETUSER", "node", "reset", "on", ">secret"], rights].concat());
    redis
}

fn node(redis: &RedisServer, number: u32) -> TestServer {
    let as_user = Redis::new(redis.url()).unwrap().user("node").password("secret");
    let cluster = Cluster::from(as_user).lease(Duration::from_secs(1)).answer_timeout(PATIENCE / 2);
    serve(|builder| {
        members(builder)
            .node(NodeId::new(number))
            .session_keys([KEY.trim()])
            .cluster(cluster)
            .history("room*", History::new(2, Duration::from_secs(3600)))
    })
}

fn present(node: &TestServer) -> bool {
    node.hub.all_present("news").any(|user| user.is_ok())
}

struct Commanded {
    folder: Folder,
    url: String,
}

impl Commanded {
    fn new(redis: &RedisServer) -> Self {
        let folder = Folder::new();
        for (name, text) in [("key", KEY), ("password", "secret\n")] {
            let path = folder.write(name, text);
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        Self { folder, url: redis.url() }
    }

    fn start(&self, command: &str) -> Process {
        let [key, password] = ["key", "password"].map(|name| self.folder.path(name));
        Process::start(&[
            command,
            "--listen",
            "127.0.0.1:0",
            "--max-connections",
            "10",
            "--session-key-file",
            &key,
            "--cluster",
            &self.url,
            "--cluster-user",
            "node",
            "--cluster-password-file",
            &password,
        ])
    }

    /// Its exit code and its lines.
    fn check(&self) -> (i32, String) {
        let ended = self.start("check").end();
        (ended.status.code().unwrap(), ended.stdout)
    }
}

#[test]
fn they_are_all_that_a_node_needs() {
    let redis = with_user(&rights());
    // A machine without power: its lease ends, and Redis takes it for one that listens.
    redis.command(&["SADD", "switchboard:nodes", "00000009"]);
    redis.command(&["SET", "switchboard:lease:00000009", "0000000000000001 1000 other 1", "PX", "2000"]);
    let mut dead = TcpStream::connect(("127.0.0.1", redis.port())).unwrap();
    dead.write_all(b"CLIENT SETNAME switchboard:node:00000009\r\nSUBSCRIBE switchboard:node:00000009\r\n")
        .unwrap();
    let (one, two) = (node(&redis, 1), node(&redis, 2));
    eventually("all are known", || [&one, &two].iter().all(|node| node.hub.nodes().unwrap().len() >= 2));
    let mut client = one.connect(Scheme::Ws, "/?users=me&topics=news");
    let mut remembering = one.connect(Scheme::Ws, "/?topics=room&since=");
    common::next_message(&mut remembering); // where the topic that remembers begins
    eventually("it is present", || present(&two));
    eventually("a broadcast reaches it", || {
        two.hub.broadcast(Audience::User("me"), "x").unwrap().forwarded == 1
    });
    eventually("and one to its topic", || two.hub.publish("news", "x").unwrap().broadcast.forwarded == 1);
    dead.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut rest = Vec::new();
    let evicted = dead.read_to_end(&mut rest);
    assert!(evicted.is_ok(), "its connection is ended: {evicted:?}");
    // Its node is taken for gone a little later.
    eventually("all that are there answer", || two.hub.all_connections(Audience::All).all(|one| one.is_ok()));
    let id = two.hub.all_connections(Audience::All).next().unwrap().unwrap().id;
    two.hub.push_wait(&id, "x", PATIENCE).unwrap();
    for number in 0..5 {
        for _ in 0..2 {
            let publication = Publication::new("x").idempotency_key(format!("key {number}"));
            two.hub.publish("room", publication).unwrap();
        }
    }
    client.close(None).unwrap();
    remembering.close(None).unwrap();
    eventually("it has left", || !present(&two));
    let commanded = Commanded::new(&redis);
    let (code, told) = commanded.check();
    assert!(code == 0 && told.contains("there are the nodes 1, 2"), "{told}");
    eventually("nobody listens for it any more", || redis.calls().contains_key("unsubscribe"));
    drop((one, two));
    let log = redis.command(&["ACL", "LOG"]);
    assert!(!log.contains("\nkey\n") && !log.contains("\nchannel\n"), "{log}");
    for right in rights() {
        let Some(command) = right.strip_prefix('+') else { continue };
        assert!(!log.lines().any(|line| line == command), "{command}: {log}");
        assert!(redis.calls().contains_key(command), "{command} is of no use: {:?}", redis.calls());
    }
}

#[test]
fn check_names_each_that_is_missing() {
    let all = rights();
    let redis = with_user(&all);
    let commanded = Commanded::new(&redis);
    assert_eq!(commanded.check().0, 0);
    for right in &all {
        let Some(command) = right.strip_prefix('+') else { continue };
        redis.command(&["ACL", "SETUSER", "node", &format!("-{command}")]);
        let (code, told) = commanded.check();
        let named = command.replace('|', " ").to_uppercase();
        let line = format!("warning  server: the cluster: Redis does not let its user do {named}: NOPERM");
        assert!(code == 1 && told.contains(&line), "{command}: {told}");
        redis.command(&["ACL", "SETUSER", "node", right]);
    }
    redis.command(&["ACL", "SETUSER", "node", "resetchannels"]);
    let (code, told) = commanded.check();
    assert!(code == 1 && told.contains("user do PUBLISH, SUBSCRIBE: NOPERM"), "{told}");
    redis.command(&["ACL", "SETUSER", "node", "allchannels", "resetkeys", "~other:*"]);
    let (code, told) = commanded.check();
    assert!(code == 1 && told.contains("GET, MGET, SET, ") && told.contains(" key"), "{told}");
    assert_eq!(redis.command(&["DBSIZE"]), "0", "nothing was done");
}

#[test]
fn a_node_logs_what_it_is_not_allowed_to_do() {
    for (lacks, parts) in [
        ("-smembers", &["Redis does not let its user do SMEMBERS: NOPERM"][..]),
        (
            "-sadd",
            &["Redis does not let its user do EVAL: ", "the user's ACL has to allow what the script does"],
        ),
        ("-subscribe", &["the cluster cannot listen: NOPERM", "subscribe"]),
        ("resetchannels", &["the cluster cannot listen: NOPERM", "channel"]),
    ] {
        let redis = with_user(&[&rights()[..], &[lacks]].concat());
        let commanded = Commanded::new(&redis);
        let mut node = commanded.start("serve");
        let line = node.line(parts[0]);
        assert!(parts.iter().all(|part| line.contains(part)), "{line}");
    }
}

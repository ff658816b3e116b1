//! What operators see of a cluster, and how the command becomes a node of one.
#![cfg(all(feature = "cluster", feature = "cli", feature = "__tls"))]
mod common;

use std::{
    io::Read,
    net::TcpListener,
    process::{Command, Stdio},
    time::Duration,
};

use common::{
    PATIENCE,
    commanded::Commanded,
    eventually,
    folder::Folder,
    managed::{Way, value},
    process::{COMMAND, Ended, Process},
    redis::RedisServer,
    terminal::Terminal,
};
use serde_json::{Value, json};
use switchboard::{Audience, Client, CloseCode, Cluster, Error, Hub, Manage, NodeId, Server, ServerError};
use tungstenite::client::IntoClientRequest;

const KEY: &str = "the same 32 secret bytes or more on all nodes\n";

/// What this program is to others.
const SOFTWARE: &str = concat!("switchboard ", env!("CARGO_PKG_VERSION"));

fn node(redis: &RedisServer, number: u32) -> Commanded {
    let cluster = Cluster::new(redis.url()).lease(Duration::from_secs(2));
    Commanded::with(Folder::new(), |builder| {
        builder.node(NodeId::new(number)).session_keys([KEY.trim()]).cluster(cluster)
    })
}

/// That know each other.
fn nodes(redis: &RedisServer) -> [Commanded; 2] {
    let nodes = [1, 2].map(|number| node(redis, number));
    for one in &nodes {
        eventually("both are known", || {
            one.hub.nodes().unwrap().iter().filter(|node| node.connections.is_some()).count() == 2
        });
    }
    nodes
}

fn way(node: &Commanded) -> Way {
    Way::Unix(node.folder.join("all"))
}

fn get(node: &Commanded, path: &str) -> Value {
    value(&way(node).get(path), 200)
}

/// A number of `/metrics`.
fn metric(node: &Commanded, name: &str) -> f64 {
    let text = String::from_utf8(way(node).get("/metrics").body).unwrap();
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

fn run(node: &Commanded, args: &[&str]) -> Ended {
    Process::spawn(&mut node.command(args)).end()
}

fn output(ended: &Ended) -> &str {
    assert_eq!(ended.status.code(), Some(0), "{:?}", ended.stderr);
    &ended.stdout
}

fn next(client: &Client) -> String {
    client.read_message(PATIENCE).unwrap().as_text().unwrap().to_owned()
}

#[test]
fn nodes_are_told_with_their_versions_and_connections() {
    let redis = RedisServer::start();
    let [one, two] = nodes(&redis);
    let _clients = [one.connect("/shared/a"), two.connect("/shared/b"), two.connect("/shared/c")];
    // A node of another version, which does not answer.
    redis.command(&["SET", "switchboard:lease:00000007", "00000000000000aa 60000 switchboard 0.0.1"]);
    redis.command(&["SADD", "switchboard:nodes", "00000007"]);
    let told = || {
        one.hub
            .nodes()
            .unwrap()
            .into_iter()
            .map(|node| (node.node.get(), node.is_this, node.software.to_string(), node.connections))
            .collect::<Vec<_>>()
    };
    let software = || SOFTWARE.to_owned();
    let all = [
        (1, true, software(), Some(1)),
        (2, false, software(), Some(2)),
        (7, false, "switchboard 0.0.1".into(), None),
    ];
    eventually("it knows all of them", || told() == all);
    // So it does for a hub in another process, and over HTTP.
    let remote = Hub::connect(&one.place()).unwrap();
    let nodes = remote.nodes().unwrap();
    assert_eq!(nodes.iter().map(|node| node.node.get()).collect::<Vec<_>>(), [1, 2, 7]);
    assert!(nodes[0].is_this && nodes[1].uptime.is_some_and(|time| time > Duration::ZERO));
    let mut shown = get(&one, "/@nodes");
    for node in shown["nodes"].as_array_mut().unwrap() {
        let uptime = node.as_object_mut().unwrap().remove("uptimeSeconds").unwrap();
        assert_eq!(uptime.is_null(), node["node"] == 7);
    }
    let node = |number, this, software: &str, connections: Option<u32>| json!({"node": number, "this": this, "software": software, "connections": connections});
    assert_eq!(
        shown,
        json!({"cluster": "up", "nodes": [
            node(1, true, SOFTWARE, Some(1)),
            node(2, false, SOFTWARE, Some(2)),
            node(7, false, "switchboard 0.0.1", None),
        ]})
    );
    let stats = one.stats();
    assert_eq!((&stats["node"], &stats["nodes"], &stats["cluster"]), (&json!(1), &json!(3), &json!("up")));
    // Whoever is no node of it learns who is there: the one that was made up does not listen.
    let nodes = Cluster::new(redis.url()).nodes().unwrap();
    let nodes: Vec<_> = nodes.iter().map(|node| (node.node.get(), &*node.software)).collect();
    assert_eq!(nodes, [(1, SOFTWARE), (2, SOFTWARE)]);
}

impl Commanded {
    fn stats(&self) -> Value {
        let way = way(self);
        let request = common::managed::with_lines("GET /@stats", "Accept: application/json\r\n", "");
        value(&common::reply::ask(&mut way.connect(), request), 200)
    }
}

#[test]
fn a_server_alone_is_the_only_node() {
    let alone = Commanded::new();
    let (_client, id) = alone.connect("/shared/a");
    let nodes = alone.hub.nodes().unwrap();
    assert_eq!(nodes.len(), 1);
    assert_eq!((nodes[0].node, nodes[0].is_this, nodes[0].connections), (id.node(), true, Some(1)));
    let shown = get(&alone, "/@nodes");
    assert_eq!((&shown["cluster"], &shown["nodes"][0]["node"]), (&Value::Null, &json!(id.node().get())));
    assert_eq!(get(&alone, "/ready"), json!({"ready": true}));
    let metrics = String::from_utf8(way(&alone).get("/metrics").body).unwrap();
    assert!(!metrics.contains("cluster"));
    assert!(!output(&run(&alone, &["list"])).contains("NODE"));
}

#[test]
fn one_node_answers_for_the_connections_of_the_other() {
    let redis = RedisServer::start();
    let [one, two] = nodes(&redis);
    let (client, id) = two.connect("/shared/b?user=ann&topic=t");
    let (_own, own) = one.connect("/shared/a?topic=t");
    let at = |rest: &str| format!("/@connections/{id}{rest}");
    let listed = get(&one, "/@connections?topic=t");
    let nodes: Vec<_> =
        listed["connections"].as_array().unwrap().iter().map(|info| (&info["node"], &info["id"])).collect();
    assert_eq!(nodes, [(&json!(1), &json!(own.as_str())), (&json!(2), &json!(id.as_str()))]);
    // As long as it may be one that was not heard of yet, it cannot be reached.
    eventually("it is no node", || way(&one).get("/@connections?node=7").status == 200);
    for (node, expected) in [(1, Some(own)), (2, Some(id)), (7, None)] {
        let listed = get(&one, &format!("/@connections?topic=t&node={node}"));
        let ids: Vec<_> =
            listed["connections"].as_array().unwrap().iter().map(|info| info["id"].clone()).collect();
        assert_eq!(ids, expected.map(|id| json!(id.as_str())).into_iter().collect::<Vec<_>>(), "{node}");
    }
    assert_eq!(way(&one).get("/@connections?node=x").status, 400);
    assert_eq!(get(&one, &at(""))["topics"], json!(["t"]));
    assert_eq!(get(&one, "/@topics")["topics"], json!([{"name": "t", "members": 2}]));
    let pushed = way(&one).ask(&format!("POST {}", at("")), "by HTTP");
    assert_eq!(value(&pushed, 200), json!({"result": "forwarded"}));
    assert_eq!(next(&client), "by HTTP");
    let sent = value(&way(&one).ask("POST /@users/ann", "to a user"), 200);
    assert_eq!(
        (&sent["sent"], &sent["forwarded"], &sent["unreachable"]),
        (&json!(0), &json!(1), &json!(false))
    );
    assert_eq!(next(&client), "to a user");
    // Its messages are read, once they are acknowledged by the next request.
    client.write("first").unwrap();
    client.write("second").unwrap();
    let mut connection = way(&one).connect();
    for message in ["first", "second"] {
        let request = way(&one).request(&format!("GET {}", at("/messages?timeout=10")), "");
        let read = common::reply::ask(&mut connection, request);
        assert_eq!((read.status, &read.body[..]), (200, message.as_bytes()), "{read:?}");
    }
    drop(connection);
    let again = way(&one).get(&at("/messages?timeout=10"));
    assert_eq!((&again.body[..], again.header("redelivered")), (&b"second"[..], Some("true")));
    assert_eq!(way(&one).ask(&format!("PUT {}", at("/topics/late")), "").status, 204);
    assert_eq!(two.hub.topics_of(&id).unwrap().len(), 2);
    assert_eq!(way(&one).ask(&format!("DELETE {}", at("?code=4001")), "").status, 204);
    assert!(client.read_message(PATIENCE).is_err());
    eventually("it is gone", || way(&one).get(&at("")).status == 410);
}

#[test]
fn the_command_shows_and_reaches_all_nodes() {
    let redis = RedisServer::start();
    let [one, two] = nodes(&redis);
    let (client, id) = two.connect("/shared/b");
    let (_own, own) = one.connect("/shared/a");
    let listed = run(&one, &["list"]);
    let lines: Vec<Vec<_>> =
        output(&listed).lines().map(|line| line.split_whitespace().take(2).collect()).collect();
    assert_eq!(lines, [["ID", "NODE"], [own.as_str(), "1"], [id.as_str(), "2"]]);
    let listed = run(&one, &["list", "--json"]);
    let nodes: Vec<_> = output(&listed)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["node"].clone())
        .collect();
    assert_eq!(nodes, [1, 2]);
    eventually("it is no node", || way(&one).get("/@connections?node=7").status == 200);
    for (number, ids) in [("1", vec![own.to_string()]), ("2", vec![id.to_string()]), ("7", vec![])] {
        let listed = run(&one, &["list", "--node", number, "--route", "/shared/*"]);
        let shown: Vec<_> =
            output(&listed).lines().skip(1).map(|line| line.split(' ').next().unwrap().to_owned()).collect();
        assert_eq!(shown, ids);
    }
    let shown = run(&one, &["show", id.as_str()]);
    assert!(output(&shown).lines().any(|line| line == "node          2"), "{}", shown.stdout);
    assert_eq!(output(&run(&one, &["push", id.as_str(), "hello"])), "forwarded\n");
    assert_eq!(next(&client), "hello");
    assert_eq!(output(&run(&one, &["push", id.as_str(), "waited", "--wait", "10"])), "sent\n");
    assert_eq!(next(&client), "waited");
    let sent = run(&one, &["broadcast", "--path", "/shared/b", "to all there"]);
    assert_eq!(output(&sent), "0 sent, 0 queued, forwarded to 1 other node\n");
    assert_eq!(next(&client), "to all there");
    let mut command = one.command(&["top", "--interval", "0.1"]);
    let mut terminal = Terminal::spawn(command.env("TERM", "xterm"), Some((120, 24)));
    terminal.wait_for(" +0/s -0/s"); // each is known from the round before, wherever it is
    terminal.resize((130, 24));
    for shown in ["node 1 of 2", "2 connections, 2 shared", "NODE"] {
        terminal.wait_for(shown);
    }
    terminal.write("q");
    eventually("it ends", || terminal.child.try_wait().unwrap().is_some());
    let ended = run(&one, &["end", id.as_str()]);
    output(&ended);
    assert!(client.read_message(PATIENCE).is_err());
}

#[test]
fn what_another_node_has_received_is_read_at_least_once() {
    let redis = RedisServer::start();
    let [one, two] = nodes(&redis);
    let (client, id) = two.connect("/shared/b?user=ann");
    let reading = Process::spawn(&mut one.command(&["read", id.as_str(), "--one"]));
    client.write("first").unwrap(); // whether somebody waits already or not
    assert_eq!(output(&reading.end()), "first\n");
    for number in ["second", "third"] {
        client.write(number).unwrap();
    }
    let reader = Hub::connect(&one.place()).unwrap();
    let ws = reader.open_server(&id).unwrap();
    assert_eq!((ws.path(), ws.user(), ws.close_reason()), ("/shared/b", Some("ann"), None));
    let read = || ws.read_delivery(usize::MAX, PATIENCE).unwrap();
    let (second, third) = (read(), read());
    assert_eq!((second.as_text(), third.as_text()), (Some("second"), Some("third")));
    drop((third, second)); // they go back, in their order
    let again = read();
    assert!(again.redelivered());
    assert_eq!(again.ack().as_text(), Some("second"));
    let third = read();
    assert_eq!((third.as_text(), third.redelivered()), (Some("third"), true));
    third.ack();
    // What a reader had that was killed comes to the next one.
    client.write("x".repeat(1 << 20)).unwrap();
    let mut killed = one.command(&["read", id.as_str()]).stdout(Stdio::piped()).spawn().unwrap();
    killed.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap(); // and nobody takes the rest
    killed.kill().unwrap();
    killed.wait().unwrap();
    client.write("fourth").unwrap();
    for (len, redelivered) in [(1 << 20, true), ("fourth".len(), false)] {
        let delivery = read();
        assert_eq!((delivery.len(), delivery.redelivered()), (len, redelivered));
        delivery.ack();
    }
    assert!(matches!(ws.read_message(Duration::from_millis(1)), Err(Error::Timeout)));
    ws.write("answer").unwrap();
    ws.flush().unwrap();
    assert_eq!(next(&client), "answer");
    ws.close(4001, "enough");
    let Err(Error::Closed(reason)) = client.read_message(PATIENCE) else { panic!() };
    assert_eq!((reason.code(), reason.text()), (CloseCode(4001), "enough"));
    let Err(Error::Closed(reason)) = ws.read_message(PATIENCE) else { panic!() };
    assert_eq!(reason.code(), CloseCode(4001));
    eventually("it is gone", || run(&one, &["read", id.as_str()]).status.code() == Some(4));
}

/// In a process of its own: a management listener, and a connection.
const READER: &str = "SWITCHBOARD_TEST_READER";

/// Reads messages, and keeps them for ever.
fn read_and_keep(of: &str) {
    let (place, id) = of.split_once(' ').unwrap();
    let ws = Hub::connect(place).unwrap().open_server(&id.parse().unwrap()).unwrap();
    let all: Vec<_> = (0..20).map(|_| ws.read_delivery(usize::MAX, PATIENCE).unwrap()).collect();
    eprintln!("has read {}", all.len());
    loop {
        std::thread::park();
    }
}

#[test]
fn what_a_killed_process_has_read_of_another_node_comes_back_in_order() {
    if let Ok(of) = std::env::var(READER) {
        return read_and_keep(&of);
    }
    let redis = RedisServer::start();
    let [one, two] = nodes(&redis);
    let (client, id) = two.connect("/shared/b");
    let numbers = || (0..20).map(|number| number.to_string());
    numbers().for_each(|number| client.write(number).unwrap());
    let name = "what_a_killed_process_has_read_of_another_node_comes_back_in_order";
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(READER, format!("{} {id}", one.place()));
    let mut process = Process::spawn(&mut command);
    process.line("has read 20");
    let ws = two.hub.open_server(&id).unwrap();
    let read = move |_| ws.read_message(PATIENCE).unwrap().into_text().unwrap();
    let waiting = std::thread::spawn(move || (0..20).map(read).collect::<Vec<_>>());
    drop(process); // by SIGKILL
    assert!(waiting.join().unwrap().iter().map(|text| text.to_string()).eq(numbers()));
}

#[test]
fn what_cannot_be_bound_is_never_seen_in_its_cluster() {
    let redis = RedisServer::start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let manage = Manage::new().listen(taken.local_addr().unwrap().to_string()).token("0123456789abcdef");
    let server = Server::builder().listen("127.0.0.1:0").session_keys([KEY.trim()]).manage(manage);
    let error = server.cluster(Cluster::new(redis.url())).bind().unwrap_err();
    assert!(matches!(error, ServerError::Bind { .. }), "{error}");
    assert_eq!(redis.command(&["KEYS", "*"]), "");
    assert!(!redis.calls().contains_key("publish"));
}

#[test]
fn that_redis_is_away_is_told_once() {
    let mut redis = RedisServer::start();
    let options = Options::new(redis.url());
    redis.kill();
    let mut serve = options.serve(&["--log-level", "debug"]);
    // Both have tried it again.
    for said in ["cannot listen: ", "cannot reach Redis: ", "cannot listen: ", "cannot reach Redis: "] {
        serve.line(said);
    }
    let ended = serve.stop();
    let warnings: Vec<_> = ended.stderr.iter().filter(|line| line.contains("[WARN]")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("it is tried again until it can"), "{warnings:#?}");
}

#[test]
fn a_list_has_what_the_nodes_have_that_answer() {
    let redis = RedisServer::start();
    let [one, two] = nodes(&redis);
    let _clients = [one.connect("/shared/a"), one.connect("/shared/b"), two.connect("/shared/c")];
    // A node that was killed: it has its lease still, and nobody listens.
    redis.command(&["SET", "switchboard:lease:00000000", "00000000000000aa 60000 switchboard 0.0.1"]);
    redis.command(&["SADD", "switchboard:nodes", "00000000"]);
    eventually("it is known", || one.hub.nodes().unwrap().len() == 3);
    let error = one.hub.connections(Audience::All, None, 0).unwrap_err();
    assert!(matches!(error, Error::Unreachable), "{error}");
    let of = |node| one.hub.connections_of(NodeId::new(node), Audience::All, None, 0);
    assert!(matches!(of(0), Err(Error::Unreachable)));
    eventually("it is no node", || of(7).is_ok());
    assert_eq!([1, 2, 7].map(|node| of(node).unwrap().items.len()), [2, 1, 0]);
    // So it is for a hub in another process.
    let remote = Hub::connect(&one.place()).unwrap();
    let page = remote.connections_of(NodeId::new(1), Audience::All, None, 1).unwrap();
    let rest = remote.connections_of(NodeId::new(1), Audience::All, page.next.as_ref(), 1).unwrap();
    assert_eq!((page.items.len(), rest.items.len(), rest.next), (1, 1, None));
    assert!(matches!(remote.connections_of(NodeId::new(0), Audience::All, None, 0), Err(Error::Remote(_))));
    let listed = get(&one, "/@connections");
    assert_eq!((listed["connections"].as_array().unwrap().len(), &listed["unreachable"]), (3, &json!(true)));
    let ended = run(&one, &["list"]);
    assert_eq!((ended.stdout.lines().count(), ended.status.code()), (4, Some(1)), "{:?}", ended.stderr);
    let told = "the list is not whole: node 0 does not answer";
    assert!(ended.stderr.concat().contains(told), "{:?}", ended.stderr);
    let mut command = one.command(&["top", "--interval", "0.1"]);
    let mut terminal = Terminal::spawn(command.env("TERM", "xterm"), Some((120, 24)));
    for shown in [told, "3 connections, 3 shared"] {
        terminal.wait_for(shown);
    }
    terminal.write("q");
    eventually("it ends", || terminal.child.try_wait().unwrap().is_some());
    // Its lease is over: it has none, also before that is noticed.
    redis.command(&["DEL", "switchboard:lease:00000000"]);
    assert!(of(0).unwrap().items.is_empty());
}

#[test]
fn what_a_cluster_does_is_counted_and_ready_says_that_redis_is_away() {
    let mut redis = RedisServer::start();
    let [one, two] = nodes(&redis);
    let (client, id) = two.connect("/shared/b?topic=t");
    let (own, _) = one.connect("/shared/a");
    for number in 0..5 {
        let _ = one.hub.push(&id, number.to_string()).unwrap();
    }
    assert_eq!(one.hub.publish("t", "to all").unwrap().broadcast.forwarded, 1);
    let _ = one.hub.publish("nobody", "x").unwrap();
    for _ in 0..6 {
        next(&client);
    }
    assert_eq!(metric(&one, "switchboard_cluster_forwarded_total"), 6.0);
    assert_eq!(metric(&two, "switchboard_cluster_received_total"), 6.0);
    assert_eq!(metric(&one, "switchboard_cluster_nodes"), 2.0);
    assert_eq!(metric(&one, "switchboard_cluster_late_dropped_total"), 0.0);
    assert_eq!(metric(&one, "switchboard_pushes_total{result=\"forwarded\"}"), 5.0);
    assert!(metric(&one, "switchboard_cluster_lease_age_seconds") < 10.0);
    assert_eq!(metric(&one, "switchboard_cluster_up"), 1.0);
    assert_eq!(get(&one, "/ready"), json!({"ready": true, "cluster": "up"}));
    redis.kill();
    eventually("it is seen", || get(&one, "/ready") == json!({"ready": true, "cluster": "unreachable"}));
    assert_eq!(metric(&one, "switchboard_cluster_up"), 0.0);
    eventually("so do the numbers", || one.stats()["cluster"] == "unreachable");
    let kept = metric(&one, "switchboard_cluster_unreachable_total");
    let refused = way(&one).ask(&format!("POST /@connections/{id}"), "x");
    assert_eq!(
        (refused.status, refused.header("x-amzn-errortype")),
        (503, Some("ServiceUnavailableException"))
    );
    assert_eq!(metric(&one, "switchboard_cluster_unreachable_total"), kept + 1.0);
    // The list has its own, and it is said that it is not whole.
    for (path, is_missing) in [("/@connections", true), ("/@connections?node=1", false)] {
        let listed = get(&one, path);
        assert_eq!(listed["connections"].as_array().unwrap().len(), 1);
        assert_eq!(listed["unreachable"], is_missing, "{path}");
    }
    assert_eq!(way(&one).get("/@connections?node=2").status, 503);
    assert!(one.hub.connections(Audience::All, None, 0).is_err());
    let told = "the list is not whole: node 2 does not answer, or Redis";
    for (args, rows, told) in [
        (&["list", "--json"][..], 1, Some(told)),
        (&["list", "--json", "--node", "1"], 1, None),
        (&["list", "--json", "--node", "2"], 0, Some(told)),
        (&["list"], 2, Some(told)),
    ] {
        let ended = run(&one, args);
        assert_eq!(ended.stdout.lines().count(), rows, "{args:?}: {}", ended.stdout);
        assert_eq!(ended.status.code(), Some(i32::from(told.is_some())), "{args:?}: {:?}", ended.stderr);
        assert!(ended.stderr.concat().contains(told.unwrap_or_default()), "{args:?}: {:?}", ended.stderr);
    }
    // One that was started since knows no others.
    let three = node(&redis, 3);
    let _alone = Client::connect(&format!("ws://{}/shared/c", three.address())).unwrap();
    assert!(matches!(three.hub.connections(Audience::All, None, 0), Err(Error::Unreachable)));
    let ended = run(&three, &["list", "--json"]);
    assert_eq!((ended.stdout.lines().count(), ended.status.code()), (1, Some(1)), "{:?}", ended.stderr);
    assert!(ended.stderr.concat().contains("the list is not whole: the other nodes"), "{:?}", ended.stderr);
    drop(three);
    // Its own clients do not notice, and what is known of the others is from before.
    let sent = value(&way(&one).ask("POST /@broadcast?path=/shared/a", "local"), 200);
    assert_eq!(sent["unreachable"], true);
    assert_eq!(next(&own), "local");
    let shown = get(&one, "/@nodes");
    assert_eq!(shown["cluster"], "unreachable");
    assert_eq!((&shown["nodes"][1]["node"], &shown["nodes"][1]["connections"]), (&json!(2), &Value::Null));
    redis.restart();
    eventually("it is back", || get(&one, "/ready") == json!({"ready": true, "cluster": "up"}));
    eventually("pushes arrive", || one.hub.push(&id, "again").is_ok());
    assert_eq!(next(&client), "again");
    assert!(metric(&one, "switchboard_cluster_reconnects_total") >= 2.0);
}

/// A folder with a key, and the options of a node.
struct Options {
    folder: Folder,
    url: String,
}

impl Options {
    fn new(url: String) -> Self {
        let this = Self { folder: Folder::new(), url };
        this.write("key", KEY);
        this
    }

    /// For nobody but us.
    fn write(&self, name: &str, text: &str) -> String {
        use std::os::unix::fs::PermissionsExt;
        let path = self.folder.write(name, text);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn command(&self, command: &str, more: &[&str]) -> Command {
        let key = self.folder.path("key");
        let mut process = Command::new(COMMAND);
        process.args([
            command,
            "--listen",
            "127.0.0.1:0",
            "--cluster",
            &self.url,
            "--session-key-file",
            &key,
        ]);
        process.args(more);
        process
    }

    fn serve(&self, more: &[&str]) -> Process {
        Process::spawn(&mut self.command("serve", more))
    }

    /// Its exit code and its lines.
    fn check(&self, more: &[&str]) -> (i32, String) {
        let ended = Process::spawn(&mut self.command("check", more)).end();
        (ended.status.code().unwrap(), ended.stdout)
    }
}

#[test]
fn the_command_is_a_node_by_its_options() {
    let redis = RedisServer::start_with(&["--requirepass", "secret"]);
    let options = Options::new(redis.url());
    let password = options.write("password", "secret\n");
    let more = |number: &'static str| {
        vec![
            "--node",
            number,
            "--cluster-password-file",
            &password,
            "--cluster-prefix",
            "x:",
            "--cluster-lease",
            "2",
        ]
    };
    let mut three = options.serve(&more("3"));
    let address = three.address("http");
    let cluster =
        Cluster::from(switchboard::Redis::new(redis.url()).unwrap().password("secret")).prefix("x:");
    let four = Commanded::with(Folder::new(), |builder| {
        builder.node(NodeId::new(4)).session_keys([KEY.trim()]).cluster(cluster)
    });
    let client = Client::connect(&format!("ws://{address}/echo-shared")).unwrap();
    client.write("x").unwrap();
    assert_eq!(next(&client), "x");
    let mut ids = Vec::new();
    eventually("it is listed", || {
        ids = four.hub.all_connections(switchboard::Audience::All).filter_map(Result::ok).collect();
        ids.len() == 1
    });
    assert_eq!(ids[0].id.node(), NodeId::new(3));
    let _ = four.hub.push(&ids[0].id, "from afar").unwrap();
    assert_eq!(next(&client), "from afar");
    assert!(redis.command(&["KEYS", "*"]).lines().all(|key| key.starts_with("x:")));
    let (code, told) = options.check(&more("3"));
    assert_eq!(code, 2, "{told}");
    assert!(told.contains("another node has the number 3"), "{told}");
    let (_, told) = options.check(&[&more("3")[..], &["--running"]].concat());
    assert!(!told.contains("number 3") && told.contains("there are the nodes 3, 4"), "{told}");
    let mut again = options.serve(&more("3"));
    again.line("another node has the number 3");
    assert_eq!(again.end().status.code(), Some(1));
    // It leaves in order: nobody waits for its lease.
    three.stop();
    eventually("it is told", || four.hub.nodes().unwrap().len() == 1);
    let (_, told) = options.check(&[&more("3")[..], &["--running"]].concat());
    assert!(told.contains("error    cluster") && told.contains("node 3 is not there"), "{told}");
}

#[test]
fn check_tells_what_is_wrong_with_a_cluster() {
    let mut redis = RedisServer::start_with(&["--requirepass", "secret"]);
    let options = Options::new(redis.url());
    let (wrong, right) = (options.write("wrong", "sesame\n"), options.write("right", "secret\n"));
    let told = |more: &[&str], code: i32, parts: &[&str]| {
        let (ended, told) = options.check(more);
        for part in parts {
            assert!(told.contains(part), "{part:?} is not in {told}");
        }
        assert_eq!(ended, code, "{told}");
        assert!(!told.contains("secret") && !told.contains("sesame"), "{told}");
    };
    told(&[], 2, &["error    options: the cluster:", "NOAUTH", "(--cluster-password-file)"]);
    told(&["--cluster-password-file", &wrong], 2, &["the user or the password is wrong"]);
    told(&["--cluster-password-file", "/nowhere"], 2, &["the password for Redis: /nowhere: "]);
    told(
        &["--cluster-password-file", &right],
        0,
        &["ok       cluster: redis://localhost:", "there is no node yet"],
    );
    let four = Commanded::with(Folder::new(), |builder| {
        let redis = switchboard::Redis::new(redis.url()).unwrap().password("secret");
        builder.node(NodeId::new(4)).session_keys([KEY.trim()]).cluster(Cluster::from(redis))
    });
    told(&["--cluster-password-file", &right], 0, &["there is node 4"]);
    // As if it were of another version.
    let lease = redis.command(&["GET", "switchboard:lease:00000004"]).replace(SOFTWARE, "switchboard 0.0.1");
    redis.command(&["SET", "switchboard:lease:00000004", &lease, "PX", "60000"]);
    told(
        &["--cluster-password-file", &right],
        1,
        &["warning  cluster:", "node 4 runs switchboard 0.0.1, this is switchboard "],
    );
    drop(four);
    // Other nodes do not take its sessions.
    let other_key = "another key of 32 bytes or more, which others do not have";
    let five = |keys: &[&str]| {
        let redis = switchboard::Redis::new(redis.url()).unwrap().password("secret");
        let keys: Vec<_> = keys.iter().map(|key| (*key).to_owned()).collect();
        Commanded::with(Folder::new(), |builder| {
            builder.node(NodeId::new(5)).session_keys(keys).cluster(Cluster::from(redis))
        })
    };
    let node = five(&[other_key, KEY.trim()]);
    told(
        &["--cluster-password-file", &right],
        1,
        &[
            "warning  server: the cluster: sessions that node 5 has made are not taken here",
            "--session-key-file",
        ],
    );
    drop(node);
    let node = five(&[KEY.trim(), other_key]);
    told(&["--cluster-password-file", &right], 0, &["there is node 5"]);
    drop(node);
    redis.kill();
    told(
        &["--cluster-password-file", &right],
        1,
        &["warning  server: the cluster cannot reach Redis: localhost"],
    );
}

#[test]
fn that_a_node_does_not_take_the_sessions_of_another_one_is_logged() {
    let redis = RedisServer::start();
    let options = Options::new(redis.url());
    let other_key = "another key of 32 bytes or more, which others do not have";
    let both = Options::new(redis.url());
    both.write("key", &format!("{other_key}\n{KEY}"));
    let mut one = options.serve(&["--node", "1"]);
    one.address("http");
    let mut two = both.serve(&["--node", "2"]);
    one.line("node 2 has made are not taken here");
    two.line("node 1 is there");
    // Both have come, in any order.
    while !two.stderr.iter().any(|line| line.contains("/ is the page")) {
        two.next_line();
    }
    assert!(!two.stop().stderr.iter().any(|line| line.contains("not taken here")), "it has both keys");
    one.line("node 2 has left");
    assert_eq!(one.stop().stderr.iter().filter(|line| line.contains("not taken here")).count(), 1);
}

#[test]
fn options_that_do_not_fit_the_url_are_refused() {
    let folder = Folder::new();
    let password = folder.write("password", "secret\n");
    let (ca, pem, key) = ("certs/ca.pem", "certs/server.pem", "certs/server.key");
    for (url, more, part) in [
        (
            "redis://localhost",
            &["--cluster-ca", ca][..],
            "certs/ca.pem: the URL of Redis is without TLS: write rediss://",
        ),
        ("unix:/x", &["--cluster-cert", pem, "--cluster-key", key], "a Unix socket has no TLS"),
        ("rediss://localhost", &["--cluster-cert", pem, "--cluster-key", "/nowhere"], "/nowhere: "),
        ("redis://localhost", &["--cluster-sentinel-password-file", &password], "names no Sentinels"),
        (
            "redis+sentinel://h/m",
            &["--cluster-sentinel-password-file", "/nowhere"],
            "the password for the Sentinels: /nowhere: ",
        ),
    ] {
        let options = Options::new(url.into());
        let mut serve = options.serve(more);
        serve.line(part);
        assert_eq!(serve.end().status.code(), Some(1), "{url}");
    }
}

#[test]
fn the_command_reaches_sentinels_and_a_redis_that_want_secrets_of_their_own_by_tls() {
    let folder = Folder::new();
    let absolute = |path: &str| std::fs::canonicalize(path).unwrap().to_str().unwrap().to_owned();
    let [pem, key] = ["certs/server.pem", "certs/server.key"].map(absolute);
    let ours = common::authority::Kind::server("Ours").signed();
    let trusted = folder.write("trusted", common::authority::pem(&[&ours]));
    let own = folder.write("own", common::authority::pem(&[&ours]));
    let own_key = folder.write("own-key", ours.key.private_key_to_pem_pkcs8().unwrap());
    let tls = ["--tls-cert-file", &pem, "--tls-key-file", &key, "--tls-ca-cert-file", &trusted];
    let redis = RedisServer::start_with(&tls);
    let options = Options::new(redis.url());
    let by_tls = ["--cluster-ca", "certs/ca.pem"];
    let (_, told) = options.check(&by_tls);
    assert!(told.contains("(--cluster-cert FILE --cluster-key FILE)"), "{told}");
    let (code, told) =
        options.check(&[&by_tls[..], &["--cluster-cert", &own, "--cluster-key", &own_key]].concat());
    assert!(code == 0 && told.contains("there is no node yet"), "{told}");

    let master = RedisServer::start();
    let sentinel = RedisServer::start_sentinel(&master);
    sentinel.command(&["ACL", "SETUSER", "seer", "on", ">secret", "+@all"]);
    sentinel.command(&["ACL", "SETUSER", "default", "off"]);
    let options = Options::new(format!("redis+sentinel://127.0.0.1:{}/mymaster", sentinel.port()));
    let (code, told) = options.check(&[]);
    assert!(code == 2 && told.contains("(--cluster-sentinel-password-file)"), "{told}");
    let password = options.write("password", "secret\n");
    let (code, told) =
        options.check(&["--cluster-sentinel-user", "seer", "--cluster-sentinel-password-file", &password]);
    assert!(code == 0 && told.contains("there is no node yet"), "{told}");
}

#[test]
fn a_cluster_without_a_key_is_refused_with_what_to_do() {
    let redis = RedisServer::start();
    let options = Options::new(redis.url());
    std::fs::remove_file(options.folder.join("key")).unwrap();
    let mut serve = options.serve(&[]);
    let line = serve.line("is not there, and is not made");
    assert!(line.contains("openssl rand -base64 32"), "{line}");
    assert_eq!(serve.end().status.code(), Some(1));
    assert!(!options.folder.join("key").exists(), "else each node would make its own");
    for command in ["serve", "check"] {
        let output = Command::new(COMMAND)
            .args([command, "--listen", "127.0.0.1:0", "--cluster", &redis.url()])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        assert!(text.contains("--cluster needs a --session-key-file"), "{text}");
        assert_eq!(text.matches("session").count(), 1, "it is told once: {text}");
        assert_eq!(output.status.code(), Some(if command == "serve" { 1 } else { 2 }));
    }
    // A URL that is wrong is not shown, since there may be a password in it.
    let wrong = Options::new("http://user:hush@box".into());
    wrong.write("key", KEY);
    let (code, told) = wrong.check(&[]);
    assert!(code == 2 && told.contains("redis://") && !told.contains("hush"), "{told}");
}

/// The cookie that a server sets, if the one that it is shown is not that of a session.
fn cookie(server: &mut Process, shown: Option<&str>) -> Option<String> {
    let address = server.address("http");
    let mut request = format!("ws://{address}/echo").into_client_request().unwrap();
    if let Some(shown) = shown {
        request.headers_mut().insert("cookie", shown.parse().unwrap());
    }
    let (_client, response) = tungstenite::connect(request).unwrap();
    let set = response.headers().get("set-cookie")?.to_str().unwrap();
    Some(set.split(';').next().unwrap().to_owned())
}

#[test]
fn a_session_of_one_node_is_one_of_all() {
    let redis = RedisServer::start();
    let options = Options::new(redis.url());
    let [mut one, mut two] = ["1", "2"].map(|number| options.serve(&["--node", number]));
    let made = cookie(&mut one, None).expect("there was none");
    redis.command(&["CONFIG", "RESETSTAT"]);
    assert_eq!(cookie(&mut two, Some(&made)), None, "it is known");
    let calls = redis.calls();
    assert!(
        ["evalsha", "eval", "hexists", "pexpire"].iter().any(|name| calls.contains_key(*name)),
        "{calls:?}"
    );
}

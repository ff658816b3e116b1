//! Servers that reach each other's connections over Redis.
#![cfg(all(feature = "cluster", feature = "__tls"))]
mod common;

use std::{collections::BTreeMap, thread, time::Duration};

use common::{
    Client, PATIENCE, Scheme, TestServer, echo, eventually, member::enter, next_message, read_close,
    redis::RedisServer, serve,
};
use switchboard::{
    Audience, Cluster, Error, Handled, Message, NodeId, Opening, PushErrorKind, Pushed, Refusal, Server,
    ServerBuilder, ServerResult, WebSocket, WebSocketId, WebSocketServer,
};
use tungstenite::Message as Sent;

/// Tells its ID first. Is in the topics, and of the user, that the query says; at `/shared` it is shared.
struct App;

impl WebSocketServer for App {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        enter(opening)
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        ws.write(ws.websocket_id().to_string())?;
        if ws.path() == "/shared" { Ok(()) } else { echo(ws) }
    }

    fn on_client_message(&mut self, _: &WebSocket, _: Message) -> Handled {
        Handled::No
    }
}

fn clustered(builder: ServerBuilder, redis: &RedisServer, node: u32) -> ServerBuilder {
    builder
        .node(NodeId::new(node))
        .session_keys([[7; 32]])
        .cluster(Cluster::new(redis.url()).lease(Duration::from_secs(3)).answer_timeout(PATIENCE / 2))
        .route("/", || App)
        .route("/shared", || App)
}

fn node(redis: &RedisServer, number: u32) -> TestServer {
    serve(|builder| clustered(builder, redis, number))
}

fn nodes(redis: &RedisServer) -> [TestServer; 3] {
    let nodes = [1, 2, 3].map(|number| node(redis, number));
    // Each has heard of the others.
    for one in &nodes {
        eventually("all are known", || one.hub.len().is_ok() && known(redis) == 3);
    }
    nodes
}

fn known(redis: &RedisServer) -> usize {
    redis.command(&["SMEMBERS", "switchboard:nodes"]).lines().count()
}

/// A client, and the ID of its connection.
fn client(server: &TestServer, path: &str) -> (Client, WebSocketId) {
    let mut client = server.connect(Scheme::Ws, path);
    let id = next_text(&mut client).parse().unwrap();
    (client, id)
}

fn next_text(client: &mut Client) -> String {
    next_message(client).into_text().unwrap().to_string()
}

/// It has got nothing else.
fn assert_next(client: &mut Client, text: &str) {
    assert_eq!(next_text(client), text);
}

#[test]
fn a_push_reaches_the_connection_of_another_node_in_order() {
    let redis = RedisServer::start();
    let (one, two) = (node(&redis, 1), node(&redis, 2));
    let (mut client, id) = client(&one, "/");
    for number in 0..1000 {
        assert_eq!(two.hub.push(&id, number.to_string()).unwrap(), Pushed::Forwarded);
    }
    two.hub.push_wait(&id, "last", PATIENCE).unwrap();
    for number in 0..1000 {
        assert_next(&mut client, &number.to_string());
    }
    assert_next(&mut client, "last");
    assert_eq!(two.hub.connection(&id).unwrap().id, id);
    let pusher = two.hub.pusher(&id).unwrap();
    assert_eq!(pusher.push("by a pusher").unwrap(), Pushed::Forwarded);
    assert_next(&mut client, "by a pusher");
    // Many at once, to several nodes.
    let (mut other, other_id) = self::client(&two, "/");
    let pushes = (0..2000).map(|number| (if number % 2 == 0 { id } else { other_id }, number.to_string()));
    let pushed = two.hub.push_all(pushes);
    for (number, pushed) in pushed.into_iter().enumerate() {
        let to = if number % 2 == 0 { &mut client } else { &mut other };
        assert_eq!(pushed.unwrap() == Pushed::Forwarded, number % 2 == 0);
        assert_next(to, &number.to_string());
    }
    two.hub.close(&id, 4001, "away").unwrap();
    assert_eq!(read_close(&mut client).0, 4001);
    drop(client);
    eventually("it is unknown", || {
        let pushed = two.hub.push_wait(&id, "x", PATIENCE);
        matches!(pushed, Err(e) if matches!(e.kind, PushErrorKind::Unknown))
    });
    assert!(matches!(two.hub.pusher(&id), Err(Error::UnknownId)));
}

#[test]
fn an_id_of_no_node_is_unknown() {
    let redis = RedisServer::start();
    let one = node(&redis, 1);
    let id = {
        let two = node(&redis, 2);
        client(&two, "/").1
    };
    let kind = one.hub.push(&id, "x").unwrap_err().kind;
    assert!(matches!(kind, PushErrorKind::Unknown), "{kind:?}");
    assert!(matches!(one.hub.open_server(&id), Err(Error::UnknownId)));
    assert!(matches!(one.hub.connection(&id), Err(Error::UnknownId)));
}

#[test]
fn a_shared_connection_is_read_and_written_from_another_node() {
    let redis = RedisServer::start();
    let (one, two) = (node(&redis, 1), node(&redis, 2));
    let (mut client, id) = client(&one, "/shared");
    let ws = two.hub.open_server(&id).unwrap();
    assert_eq!((ws.websocket_id(), ws.path()), (&id, "/shared"));
    assert!(matches!(ws.try_read(0), Ok(None)));
    thread::scope(|scope| {
        let reading = scope.spawn(|| ws.read_message(PATIENCE).unwrap());
        client.send(Sent::text("a question")).unwrap();
        assert_eq!(reading.join().unwrap(), "a question");
    });
    ws.write("an answer").unwrap();
    assert_next(&mut client, "an answer");
    // In pieces, as of this node.
    client.send(Sent::text("0123456789")).unwrap();
    assert_eq!(ws.read(4, PATIENCE).unwrap(), "0123");
    assert!(!ws.at_end());
    assert_eq!(ws.read(40, PATIENCE).unwrap(), "456789");
    assert!(ws.at_end());
    // What is not acknowledged comes again.
    client.send(Sent::text("once more")).unwrap();
    drop(ws.read_delivery(usize::MAX, PATIENCE).unwrap());
    let delivery = ws.read_delivery(usize::MAX, PATIENCE).unwrap();
    assert!(delivery.redelivered());
    assert_eq!(delivery.ack(), "once more");
    // By this node's hub.
    assert_eq!(ws.hub().len().unwrap(), 1);
    ws.close(4002, "enough");
    assert_eq!(read_close(&mut client), (4002, "enough".into()));
    drop(client);
    assert!(matches!(ws.read_message(PATIENCE), Err(Error::Closed(_))));
    assert_eq!(u16::from(ws.close_reason().unwrap().code()), 4002);
    let (_client, id) = self::client(&one, "/");
    assert!(matches!(two.hub.open_server(&id), Err(Error::NotShared)));
}

#[test]
fn a_broadcast_reaches_each_connection_of_all_nodes_once() {
    let redis = RedisServer::start();
    let nodes = nodes(&redis);
    let mut clients: Vec<_> = nodes
        .iter()
        .flat_map(|node| {
            [client(node, "/?topic=room&user=ann"), client(node, "/?user=bob"), client(node, "/shared")]
        })
        .collect();
    for (audience, has) in [
        (Audience::All, [true, true, true]),
        (Audience::Topic("room"), [true, false, false]),
        (Audience::User("bob"), [false, true, false]),
        (Audience::Path("/shared"), [false, false, true]),
        (Audience::Route("/"), [true, true, false]),
    ] {
        let sent = nodes[1].hub.broadcast(audience, format!("{audience:?}")).unwrap();
        assert_eq!(sent.sent + sent.queued, has.iter().filter(|has| **has).count(), "{audience:?}: {sent:?}");
        assert_eq!((sent.forwarded, sent.unreachable), (2, false), "{audience:?}");
        for (index, (client, _)) in clients.iter_mut().enumerate() {
            if has[index % 3] {
                assert_next(client, &format!("{audience:?}"));
            }
        }
    }
    let first = clients[0].1;
    let sent = nodes[2].hub.broadcast(Audience::Topic("room").except(&first), "not to the first").unwrap();
    assert_eq!((sent.sent + sent.queued, sent.forwarded), (1, 2));
    let _ = nodes[0].hub.push(&first, "the end").unwrap();
    assert_next(&mut clients[0].0, "the end");
    assert_next(&mut clients[3].0, "not to the first");
    let empty = nodes[0].hub.publish("nobody", "x").unwrap();
    assert_eq!(empty, Default::default(), "nobody listens");
}

#[test]
fn lists_have_the_connections_of_all_nodes() {
    let redis = RedisServer::start();
    let nodes = nodes(&redis);
    let clients: Vec<_> = (0..9)
        .map(|number| client(&nodes[number % 3], &format!("/?topic=t{}&user=u{}", number % 2, number % 4)))
        .collect();
    let mut ids: Vec<_> = clients.iter().map(|(_, id)| *id).collect();
    ids.sort_by_key(|id| (id.node(), id.to_string()));
    for node in &nodes {
        let hub = &node.hub;
        assert_eq!(hub.len().unwrap(), 9);
        assert!(!hub.is_empty().unwrap());
        for limit in [1, 2, 4, 100] {
            let (mut all, mut after) = (Vec::new(), None);
            loop {
                let page = hub.connections(Audience::All, after.as_ref(), limit).unwrap();
                assert!(page.items.len() <= limit);
                all.extend(page.items.iter().map(|connection| connection.id));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(all, ids, "{limit}");
        }
        let topics: Vec<_> = hub.all_topics().map(|topic| topic.unwrap()).collect();
        let topics: Vec<_> = topics.iter().map(|topic| (&*topic.name, topic.members)).collect();
        assert_eq!(topics, [("t0", 5), ("t1", 4)]);
        assert_eq!(hub.all_members("t0").count(), 5);
        let first = hub.presence("t0", None, 1).unwrap();
        assert_eq!(first.next.as_deref(), Some("u0"));
        let present: BTreeMap<_, _> = hub
            .all_present("t0")
            .map(|user| user.unwrap())
            .map(|user| (user.user.to_string(), user.connections))
            .collect();
        assert_eq!(present, BTreeMap::from([("u0".into(), 3), ("u2".into(), 2)]));
    }
    // What concerns one is asked of its node.
    let (id, hub) = (clients[0].1, &nodes[1].hub);
    hub.join(&id, "late").unwrap();
    assert_eq!(hub.topics_of(&id).unwrap().iter().map(|topic| &**topic).collect::<Vec<_>>(), ["late", "t0"]);
    assert_eq!(hub.publish("late", "x").unwrap().broadcast.forwarded, 1);
    hub.leave(&id, "late").unwrap();
    assert_eq!(hub.all_members("late").count(), 0);
    assert_eq!(nodes[2].hub.close_user("u0", 4003, "").unwrap(), 3);
    assert_eq!(nodes[2].hub.close_all(Audience::All, 4004, "").unwrap(), 6, "the others are closing");
}

#[test]
fn what_cannot_be_a_cluster_is_refused_with_what_to_do() {
    let redis = RedisServer::start();
    let refused = |configure: &dyn Fn(ServerBuilder) -> ServerBuilder| {
        configure(Server::builder().listen("127.0.0.1:0")).bind().unwrap_err().to_string()
    };
    let keyed = |builder: ServerBuilder| builder.session_keys([[7; 32]]);
    let cluster = || Cluster::new(redis.url());
    let without = refused(&|builder| builder.cluster(cluster()));
    assert!(without.contains("session keys") && without.contains("openssl rand"), "{without}");
    let url = refused(&|builder| keyed(builder).cluster(Cluster::new("http://x")));
    assert!(url.contains("redis://"), "{url}");
    let lease = refused(&|builder| keyed(builder).cluster(cluster().lease(Duration::ZERO)));
    assert!(lease.contains("from 1s"), "{lease}");
    let timeout = refused(&|builder| keyed(builder).cluster(cluster().answer_timeout(Duration::ZERO)));
    assert!(timeout.contains("answer_timeout"), "{timeout}");
    let prefix = refused(&|builder| keyed(builder).cluster(cluster().prefix("a b")));
    assert!(prefix.contains("\"a b\""), "{prefix}");
    let _one = node(&redis, 1);
    let twice = refused(&|builder| keyed(builder).node(NodeId::new(1)).cluster(cluster()));
    assert!(twice.contains("another node has the number 1"), "{twice}");
    let _other = keyed(Server::builder().listen("127.0.0.1:0"))
        .node(NodeId::new(1))
        .cluster(cluster().prefix("other:"))
        .bind()
        .unwrap();
}

//! Servers that reach each other's connections over Redis.
#![cfg(all(feature = "cluster", feature = "__tls"))]
mod common;

use std::{thread, time::Duration};

use common::{
    PATIENCE, Scheme, TestServer, echo, eventually, next_message, read_close, redis::RedisServer, serve,
};
use switchboard::{
    Audience, Cluster, Error, Handled, Message, NodeId, Opening, PushErrorKind, Pushed, Refusal,
    ServerBuilder, ServerResult, WebSocket, WebSocketId, WebSocketServer,
};
use tungstenite::Message as Sent;

/// Tells its ID first. Is in the topics, and of the user, that the query says; at `/shared` it is shared.
struct App;

impl WebSocketServer for App {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        let value = |name| opening.request().query_value(name).map(|value| value.into_owned());
        let (user, topic) = (value("user"), value("topic"));
        user.map_or(Ok(()), |user| opening.set_user(user))?;
        topic.map_or(Ok(()), |topic| opening.join(topic))?;
        opening.set_shared_connection(opening.path() == "/shared");
        Ok(())
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
        .cluster(Cluster::new(redis.url()).lease(Duration::from_secs(1)))
        .route("/", || App)
        .route("/shared", || App)
}

fn node(redis: &RedisServer, number: u32) -> TestServer {
    serve(|builder| clustered(builder, redis, number))
}

/// A client, and the ID of its connection.
fn client(server: &TestServer, path: &str) -> (common::Client, WebSocketId) {
    let mut client = server.connect(Scheme::Ws, path);
    let id = next_message(&mut client).into_text().unwrap().parse().unwrap();
    (client, id)
}

fn text(message: Sent) -> String {
    message.into_text().unwrap().to_string()
}

#[test]
fn a_push_reaches_the_connection_of_another_node_in_order() {
    let redis = RedisServer::start();
    let t = std::time::Instant::now();
    let (one, two) = (node(&redis, 1), node(&redis, 2));
    let (mut client, id) = client(&one, "/");
    eprintln!("started {:?}", t.elapsed());
    for number in 0..1000 {
        assert_eq!(two.hub.push(&id, number.to_string()).unwrap(), Pushed::Forwarded);
    }
    eprintln!("pushed {:?}", t.elapsed());
    two.hub.push_wait(&id, "last", PATIENCE).unwrap();
    eprintln!("waited {:?}", t.elapsed());
    for number in 0..1000 {
        assert_eq!(text(next_message(&mut client)), number.to_string());
    }
    assert_eq!(text(next_message(&mut client)), "last");
    // As where it lives.
    assert_eq!(two.hub.connection(&id).unwrap().id, id);
    let pusher = two.hub.pusher(&id).unwrap();
    assert_eq!(pusher.push("by a pusher").unwrap(), Pushed::Forwarded);
    assert_eq!(text(next_message(&mut client)), "by a pusher");
    two.hub.close(&id, 4001, "away").unwrap();
    assert_eq!(read_close(&mut client).0, 4001);
    eventually(
        "it is unknown",
        || matches!(two.hub.push_wait(&id, "x", PATIENCE), Err(e) if matches!(e.kind, PushErrorKind::Unknown)),
    );
    assert!(matches!(two.hub.pusher(&id), Err(Error::UnknownId)));
    eprintln!("done {:?}", t.elapsed());
    drop(one);
    eprintln!("one {:?}", t.elapsed());
    drop(two);
    eprintln!("two {:?}", t.elapsed());
}

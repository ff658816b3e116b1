//! One chat on several machines: each is a node of a cluster over Redis, and whoever is in the room is told by all of them. The page
//! shows which node it is connected to, and who is where; a click on somebody sends to that connection alone, on whichever node it is.
//!
//! `examples/cluster/run.sh` starts a Redis and three nodes on this machine. By hand:
//! `cargo run --example cluster --features cluster -- 127.0.0.1:8081 1 redis://127.0.0.1`

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use switchboard::{
    Audience, CloseReason, Cluster, ConnectionInfo, Error, Handled, Hub, HubObserver, Message, NodeId,
    Opening, Payload, Refusal, Response, Server, ServerError, ServerResult, WebSocket, WebSocketId,
    WebSocketServer,
};

const ROOM: &str = "room";
const SCRIPT: &str = include_str!("../web/reconnecting.js");

/// Somebody in the room. Each line is for all, or `to` one.
struct Person;

impl WebSocketServer for Person {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        let name = opening.request().query_value("name").unwrap_or_default().trim().to_owned();
        opening.set_user(name)?; // 1 to 256 bytes, or 400
        opening.join(ROOM)?;
        opening.set_shared_connection(true);
        Ok(())
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        let id = ws.websocket_id();
        ws.write(json!({ "you": id.to_string(), "node": id.node().get() }).to_string())?;
        Ok(())
    }

    /// One line at a time, in order, and each is answered: so the page knows which of them an answer is about.
    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        let line: Value = serde_json::from_slice(message.as_bytes()).unwrap_or_default();
        let answer = match say(ws, &line) {
            Ok(note) => note,
            Err(Error::Unreachable) => "the other node does not answer".to_owned(),
            Err(e) => format!("not sent: {e}"),
        };
        let _ = ws.write(json!({ "answer": answer }).to_string());
        Handled::Yes
    }
}

/// A push goes to the node that the ID names: nobody here knows, or asks, where that is. Returns what there is to say about it.
fn say(ws: &WebSocket, line: &Value) -> switchboard::Result<String> {
    let to = line["to"].as_str();
    let said = json!({ "from": ws.user(), "text": line["text"], "whispered": to.is_some() }).to_string();
    if let Some(to) = to {
        let _ = ws.hub().push(&to.parse().map_err(|_| Error::UnknownId)?, said)?;
        return Ok(String::new());
    }
    let id = ws.websocket_id();
    let sent = ws.hub().broadcast(Audience::Topic(ROOM).except(id), said)?;
    let note = format!("only node {} is sure to have it", id.node().get());
    Ok(if sent.unreachable { note } else { String::new() })
}

/// The people of this node, of which its observer is told. Each node tells the room of its own: so nobody asks a node that may not
/// answer, and when one ends, however it does, nobody tells of its people any more, and they vanish from the pages.
#[derive(Default)]
struct People(Mutex<BTreeMap<WebSocketId, Option<Arc<str>>>>);

impl HubObserver for People {
    fn opened(&self, connection: &ConnectionInfo) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(connection.id, connection.user.clone());
    }

    fn closed(&self, connection: &ConnectionInfo, _reason: &CloseReason) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&connection.id);
    }
}

fn tell(people: &People, hub: &Hub, node: u32, url: &str) {
    loop {
        let people = people.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let people = people.iter().map(|(id, name)| json!({ "id": id.to_string(), "name": name.as_deref() }));
        let told = json!({ "node": node, "url": url, "people": people.collect::<Value>() }).to_string();
        // Of each node a slow client gets the newest only. Whom this does not reach, the next one may.
        let _ = hub.broadcast(Audience::Topic(ROOM), Payload::newest(format!("people of {node}"), told));
        thread::sleep(Duration::from_secs(1));
    }
}

fn main() -> Result<(), ServerError> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let node = args.get(1).and_then(|node| node.parse().ok());
    let (Some(node), [address, _, redis]) = (node, &args[..]) else {
        eprintln!("usage: cluster ADDRESS NUMBER REDIS, such as: cluster 127.0.0.1:8081 1 redis://127.0.0.1");
        std::process::exit(2);
    };
    // The same on all nodes, and secret: `openssl rand -base64 32` makes one.
    let key = std::env::var("SESSION_KEY").unwrap_or("for this example, and for nothing else".into());
    let people = Arc::new(People::default());
    let server = Server::builder()
        .listen(address)
        .node(NodeId::new(node))
        .session_keys([key])
        .cluster(Cluster::new(redis))
        .observer(people.clone())
        .http("/", |_| Response::html(include_str!("page.html")))
        .http("/reconnecting.js", |_| Response::new("text/javascript", SCRIPT))
        .route("/room", || Person)
        .bind()?;
    let (hub, url) = (server.hub(), format!("http://{}/", server.local_addrs()[0]));
    println!("node {node} is listening on {url}");
    thread::spawn(move || tell(&people, &hub, node, &url));
    server.run()
}

//! One chat on several machines: each is a node of a cluster over Redis, and whoever is in the room is told by all of them. The page
//! shows which node it is connected to, and who is where; a click on somebody sends to that connection alone, on whichever node it is.
//!
//! `examples/cluster/run.sh` starts a Redis and three nodes on this machine. By hand:
//! `cargo run --example cluster --features cluster -- 127.0.0.1:8081 1 redis://127.0.0.1`

use switchboard::{
    Audience, Cluster, Handled, Hub, Message, NodeId, Opening, Refusal, Response, Server, ServerError,
    ServerResult, StatusCode, WebSocket, WebSocketId, WebSocketServer,
};

const ROOM: &str = "room";

/// Somebody in the room. Lines that a client sends are for all, or, behind an ID and a space, for one.
struct Person;

impl WebSocketServer for Person {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        let name = opening.request().query_value("name").unwrap_or_default().trim().to_owned();
        if name.is_empty() {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "who? /room?name=NAME"));
        }
        opening.set_user(name)?;
        opening.join(ROOM)?;
        opening.set_shared_connection(true);
        Ok(())
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        let (id, node) = (ws.websocket_id(), ws.websocket_id().node().get());
        ws.write(format!("node {node}"))?;
        let name = ws.user().unwrap_or_default();
        let _ = ws.hub().broadcast(Audience::Topic(ROOM), format!("here {id} {node} {name}"))?;
        Ok(())
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        if let Some(line) = message.as_text()
            && let Err(e) = say(&ws.hub(), ws.user().unwrap_or_default(), line)
        {
            let _ = ws.write(format!("failed {e}"));
        }
        Handled::Yes
    }
}

/// A push goes to the node that the ID names: nobody here knows, or asks, where that is.
fn say(hub: &Hub, name: &str, line: &str) -> Result<(), switchboard::Error> {
    let (first, rest) = line.split_once(' ').unwrap_or_default();
    if let Ok(id) = first.parse::<WebSocketId>() {
        let _ = hub.push(&id, format!("whispered {name}: {rest}"))?;
    } else {
        let _ = hub.broadcast(Audience::Topic(ROOM), format!("said {name}: {line}"))?;
    }
    Ok(())
}

/// Who is in the room, on all nodes.
fn people(hub: &Hub) -> Result<String, switchboard::Error> {
    let mut lines = String::new();
    for connection in hub.all_connections(Audience::Topic(ROOM)) {
        let connection = connection?;
        let name = connection.user.unwrap_or_default();
        lines += &format!("{} {} {name}\n", connection.id, connection.id.node().get());
    }
    Ok(lines)
}

fn main() -> Result<(), ServerError> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [address, node, redis] = &args[..] else {
        eprintln!("usage: cluster ADDRESS NODE REDIS, such as: cluster 127.0.0.1:8081 1 redis://127.0.0.1");
        std::process::exit(2);
    };
    let Ok(node) = node.parse() else {
        eprintln!("a node is a number, and each has its own: {node:?}");
        std::process::exit(2);
    };
    // The same on all nodes, and secret: `openssl rand -base64 32` makes one.
    let key = std::env::var("SESSION_KEY").unwrap_or("for this example, and for nothing else".into());
    let server = Server::builder()
        .listen(address)
        .node(NodeId::new(node))
        .session_keys([key])
        .cluster(Cluster::new(redis))
        .http("/", |_| Response::html(include_str!("page.html")))
        .http("/people", |exchange| match people(&exchange.hub()) {
            Ok(people) => Response::text(StatusCode::OK, people),
            Err(e) => Response::text(StatusCode::SERVICE_UNAVAILABLE, format!("{e}\n")),
        })
        .route("/room", || Person)
        .bind()?;
    println!("node {node} is listening on http://{}/", server.local_addrs()[0]);
    server.run()
}

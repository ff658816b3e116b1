//! The second example of InterSystems' documentation of `%CSP.WebSocket`, in Rust: asynchronous operation.
//!
//! `on_pre_server` saves the WebSocketID and sets `SharedConnection`; `server` returns at once, and its thread ends. An
//! unrelated thread retrieves the ID later, opens the connection, writes, reads, and ends it.
//!
//! With `127.0.0.1:8080 unix:/tmp/async.sock` it is no thread but another process (features `manage` and `remote`); with
//! `127.0.0.1:8080 redis://127.0.0.1` that process is another node of a cluster (feature `cluster`), which may be on another machine.
//!
//! Connect, for example with `new WebSocket("ws://127.0.0.1:8080/csp/user/MyApp.MyWebSocketServer.cls")`, and answer.

use std::{
    env,
    error::Error,
    process::Command,
    sync::mpsc::{Sender, channel},
    thread,
    time::Duration,
};

use switchboard::{Hub, Opening, Refusal, Server, ServerResult, WebSocket, WebSocketId, WebSocketServer};

struct MyWebSocketServer {
    save: Sender<WebSocketId>,
}

impl WebSocketServer for MyWebSocketServer {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        let _ = self.save.send(*opening.websocket_id());
        opening.set_shared_connection(true);
        Ok(())
    }

    fn server(&mut self, _ws: &mut WebSocket) -> ServerResult {
        Ok(())
    }
}

/// What another part of the program does with one connection.
fn talk(hub: &Hub, id: &WebSocketId) -> switchboard::Result<()> {
    // The re-established connection to the client.
    let ws = hub.open_server(id)?;
    // The exchange with the client.
    ws.write("What is your name?")?;
    // At most `READ_LEN` characters of one message, as in the original; `read_message` returns all of them.
    let name = ws.read(0, Duration::from_secs(60))?;
    ws.write(format!("Hello {}", name.as_text().unwrap_or("somebody")))?;
    // The close of the WebSocket on the server's side.
    ws.end_server();
    Ok(())
}

/// The unrelated part: it knows IDs, and no connections.
fn unrelated(hub: &Hub, id: &WebSocketId) {
    // It may be retrieved before the connection is open: then `open_server` waits for that.
    match talk(hub, id) {
        Ok(()) => println!("{}: talked", id.short()),
        Err(e) => println!("{}: {e}", id.short()),
    }
}

#[cfg(feature = "cluster")]
fn node(builder: switchboard::ServerBuilder, redis: &str) -> switchboard::ServerBuilder {
    // The same on all nodes; elsewhere a secret one.
    builder.session_keys([[0; 32]]).cluster(switchboard::Cluster::new(redis))
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = env::args().skip(1).collect();
    let (save, retrieve) = channel();
    let builder = Server::builder()
        .listen(args.first().map_or("127.0.0.1:8080", String::as_str))
        .route("/csp/user/MyApp.MyWebSocketServer.cls", move || MyWebSocketServer { save: save.clone() });
    // The other process: a node of its own, which has no connections, and reaches those of all.
    #[cfg(feature = "cluster")]
    if let (Some(redis), Ok(id)) =
        (args.get(1).filter(|url| url.starts_with("redis")), env::var("WEBSOCKET_ID"))
    {
        let node = node(Server::builder().listen("127.0.0.1:0"), redis).bind()?;
        unrelated(&node.hub(), &id.parse()?);
        return Ok(());
    }
    #[cfg(all(feature = "manage", feature = "remote"))]
    let builder = match (args.get(1), env::var("WEBSOCKET_ID")) {
        // The other process: its hub is that of the server, of which it knows the socket.
        (Some(socket), Ok(id)) => {
            unrelated(&Hub::connect(socket)?, &id.parse()?);
            return Ok(());
        }
        #[cfg(feature = "cluster")]
        (Some(redis), Err(_)) if redis.starts_with("redis") => node(builder, redis),
        (Some(socket), Err(_)) => builder.manage(switchboard::Manage::new().listen(socket)),
        (None, _) => builder,
    };
    let server = builder.bind()?;
    println!("listening on ws://{}/csp/user/MyApp.MyWebSocketServer.cls", server.local_addrs()[0]);
    let hub = server.hub();
    thread::spawn(move || {
        for id in retrieve {
            match env::current_exe() {
                Ok(this) if args.len() > 1 => {
                    let _ = Command::new(this).args(&args).env("WEBSOCKET_ID", id.as_str()).status();
                }
                _ => unrelated(&hub, &id),
            }
        }
    });
    Ok(server.run()?)
}

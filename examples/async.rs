//! The second example of InterSystems' documentation of `%CSP.WebSocket`, in Rust: asynchronous operation.
//!
//! `on_pre_server` saves the WebSocketID and sets `SharedConnection`; `server` returns at once, and its thread ends. An
//! unrelated thread retrieves the ID later, opens the connection, writes, reads, and ends it.
//!
//! Connect, for example with `new WebSocket("ws://127.0.0.1:8080/csp/user/MyApp.MyWebSocketServer.cls")`, and answer.

use std::{
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

use switchboard::{
    Hub, Opening, Refusal, Server, ServerError, ServerResult, WebSocket, WebSocketId, WebSocketServer,
};

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

/// The unrelated thread. It knows IDs, and no connections.
fn unrelated(hub: &Hub, retrieve: &Receiver<WebSocketId>) {
    for id in retrieve {
        // It may be retrieved before the connection is open: then `open_server` waits for that.
        match talk(hub, &id) {
            Ok(()) => println!("{}: talked", id.short()),
            Err(e) => println!("{}: {e}", id.short()),
        }
    }
}

fn main() -> Result<(), ServerError> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let (save, retrieve) = channel();
    let server = Server::builder()
        .listen(address)
        .route("/csp/user/MyApp.MyWebSocketServer.cls", move || MyWebSocketServer { save: save.clone() })
        .bind()?;
    println!("listening on ws://{}/csp/user/MyApp.MyWebSocketServer.cls", server.local_addrs()[0]);
    let hub = server.hub();
    thread::spawn(move || unrelated(&hub, &retrieve));
    server.run()
}

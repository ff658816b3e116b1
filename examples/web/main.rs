//! Both programs of InterSystems' documentation of `%CSP.WebSocket`, each with a page that uses its JavaScript.
//!
//! Open <http://127.0.0.1:8080/>. To copy: `reconnecting.js`. (`read` returns 32656 characters at most, and then the rest.)

use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, UNIX_EPOCH};

use switchboard::{
    Error, Hub, Opening, Refusal, Response, Server, ServerResult, WebSocket, WebSocketId, WebSocketServer,
};

struct MyWebSocketServer;

impl WebSocketServer for MyWebSocketServer {
    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        loop {
            match ws.read(32656, Duration::from_secs(10)) {
                Err(Error::Timeout) => ws.write(format!("Server timed-out at {}", horolog()))?,
                Ok(data) if data == "exit" => return Ok(()),
                Ok(data) => ws.write(data)?,
                Err(closed) => return Err(closed.into()),
            }
        }
    }
}

struct MyAsyncServer(Sender<WebSocketId>);

impl WebSocketServer for MyAsyncServer {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        let _ = self.0.send(*opening.websocket_id());
        opening.set_shared_connection(true);
        Ok(())
    }

    fn server(&mut self, _ws: &mut WebSocket) -> ServerResult {
        Ok(())
    }
}

/// What the other thread does each second with a connection, of which it has the ID.
fn visit(hub: &Hub, id: &WebSocketId) -> switchboard::Result<()> {
    let ws = hub.open_server(id)?;
    ws.write(format!("Server wrote at {}", horolog()))?;
    while let Some(data) = ws.try_read(0)? {
        if data == "exit" {
            ws.end_server();
        }
        ws.write(format!("Server read {}", data.as_text().unwrap_or_default()))?;
    }
    Ok(())
}

/// The time as the original writes it: days since the last day of 1840, and seconds of the day.
fn horolog() -> String {
    let seconds = UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
    format!("{},{}", seconds / 86_400 + 47_117, seconds % 86_400)
}

fn main() -> Result<(), switchboard::ServerError> {
    let (save, saved) = channel();
    let server = Server::builder()
        .listen(std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into()))
        .http("/", |_| Response::html(include_str!("sync.html")))
        .http("/async.html", |_| Response::html(include_str!("async.html")))
        .route("/csp/user/MyApp.MyWebSocketServer.cls", || MyWebSocketServer)
        .route("/csp/user/MyApp.MyAsyncServer.cls", move || MyAsyncServer(save.clone()))
        .bind()?;
    println!("listening on http://{}/", server.local_addrs()[0]);
    let (hub, mut ids) = (server.hub(), Vec::new());
    std::thread::spawn(move || {
        loop {
            ids.extend(saved.try_iter());
            std::thread::sleep(Duration::from_secs(1));
            ids.retain(|id| visit(&hub, id).is_ok()); // it fails when the client has left
        }
    });
    server.run()
}

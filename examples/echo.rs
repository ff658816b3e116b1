//! The first example of InterSystems' documentation of `%CSP.WebSocket`, in Rust.
//!
//! It reads with a timeout of 10 seconds and writes each message back; when nothing came it says so and goes on; `exit`
//! ends the connection properly. Run it, and try in a browser's console:
//!
//! ```js
//! ws = new WebSocket("ws://127.0.0.1:8080/csp/user/MyApp.MyWebSocketServer.cls")
//! ws.onmessage = (event) => console.log(event.data)
//! ws.send("hello")
//! ```

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use switchboard::{
    Closed, Error, Opening, Refusal, Server, ServerError, ServerResult, WebSocket, WebSocketServer,
};

struct MyWebSocketServer;

impl WebSocketServer for MyWebSocketServer {
    fn on_pre_server(&mut self, _opening: &mut Opening) -> Result<(), Refusal> {
        Ok(())
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        let timeout = Duration::from_secs(10);
        loop {
            let len = 32656;
            // At most so many characters of one message: the next read returns the rest, and `at_end` tells.
            match ws.read(len, timeout) {
                Err(Error::Closed(_)) => break,
                Err(Error::Timeout) => ws.write(format!("Server timed-out at {}", horolog()))?,
                Err(other) => return Err(other.into()),
                Ok(data) if data == "exit" => break,
                Ok(data) => ws.write(data)?,
            }
        }
        ws.end_server();
        Ok(())
    }

    fn on_post_server(&mut self, closed: &Closed) {
        println!("{} {}", closed.websocket_id().short(), closed.reason());
    }
}

/// The time as the original writes it: days since the last day of 1840, and seconds of the day.
fn horolog() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    format!("{},{}", seconds / 86_400 + 47_117, seconds % 86_400)
}

fn main() -> Result<(), ServerError> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let server = Server::builder()
        .listen(address)
        .route("/csp/user/MyApp.MyWebSocketServer.cls", || MyWebSocketServer)
        .bind()?;
    println!("listening on ws://{}/csp/user/MyApp.MyWebSocketServer.cls", server.local_addrs()[0]);
    server.run()
}

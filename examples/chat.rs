//! A page, and a chat with rooms. Its connections are shared: thousands of silent people take no threads.

use switchboard::{
    Audience, Handled, Message, Opening, Refusal, Response, Server, ServerError, ServerResult, StatusCode,
    WebSocket, WebSocketServer,
};

const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>Chat</title>
<form id="enter"><input id="name" placeholder="name" required> <input id="room" value="lobby" required> <button>Enter</button></form>
<form id="say" hidden><input id="line" autocomplete="off" autofocus> <button>Say</button></form>
<pre id="log"></pre>
<script>
  const $ = (id) => document.getElementById(id);
  let ws;
  $("enter").onsubmit = (event) => {
    event.preventDefault();
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const query = new URLSearchParams({ name: $("name").value });
    ws = new WebSocket(`${scheme}//${location.host}/rooms/${encodeURIComponent($("room").value)}?${query}`);
    ws.onopen = () => { $("enter").hidden = true; $("say").hidden = false };
    ws.onmessage = (event) => $("log").append(event.data + "\n");
    ws.onclose = (event) => $("log").append(`closed: ${event.code} ${event.reason}\n`);
  };
  $("say").onsubmit = (event) => { event.preventDefault(); ws.send($("line").value); $("line").value = "" };
</script>"#;

#[derive(Default)]
struct Person {
    name: String,
}

impl WebSocketServer for Person {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        match opening.request().query_value("name") {
            Some(name) if !name.trim().is_empty() => self.name = name.trim().into(),
            _ => return Err(Refusal::new(StatusCode::BAD_REQUEST, "who? /rooms/ROOM?name=NAME")),
        }
        opening.set_shared_connection(true);
        Ok(())
    }

    /// Returns at once: the connection stays, and its thread ends.
    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        // The path is the room.
        ws.join(ws.path())?;
        let result = ws.hub().broadcast(Audience::Topic(ws.path()), format!("* {} came", self.name))?;
        println!("{}: {} people", ws.path(), result.sent + result.queued);
        Ok(())
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        if let Some(line) = message.as_text()
            && let Err(e) = ws.hub().broadcast(Audience::Topic(ws.path()), format!("{}: {line}", self.name))
        {
            eprintln!("nobody was reached: {e}");
        }
        Handled::Yes
    }
}

fn main() -> Result<(), ServerError> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let server = Server::builder()
        .listen(address)
        .http("/", |_| Response::html(PAGE))
        .route("/rooms/*", Person::default)
        .bind()?;
    println!("listening on http://{}/", server.local_addrs()[0]);
    server.run()
}

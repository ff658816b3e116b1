//! A user's connections by name: pushes to all tabs and devices of a user, lists them, and closes them.
//!
//! Open `http://127.0.0.1:8080/?user=ada` in some tabs, and type `push ada hello`, `list ada` or `close ada` here. The name is
//! in the query to keep this short; `login.rs` shows how to know whose it is.

use std::io::stdin;

use switchboard::{
    Audience, ConnectionInfo, Handled, Hub, HubObserver, Message, Opening, Refusal, Response, Server,
    ServerError, ServerResult, StatusCode, WebSocket, WebSocketServer,
};

const PAGE: &str = r#"<!doctype html><meta charset="utf-8"><title>Inbox</title><pre id="log"></pre>
<script>
  const device = navigator.userAgentData?.mobile ? "phone" : "computer";
  const query = new URLSearchParams({ user: new URLSearchParams(location.search).get("user") ?? "", device });
  const ws = new WebSocket(`${location.origin.replace("http", "ws")}/inbox?${query}`);
  const log = (text) => document.getElementById("log").append(text + "\n");
  ws.onmessage = (event) => log(event.data);
  ws.onclose = (event) => log(`closed: ${event.code} ${event.reason}`);
</script>"#;

struct Inbox;

impl WebSocketServer for Inbox {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        let user = opening.request().query_value("user").ok_or(StatusCode::UNAUTHORIZED)?.into_owned();
        let device = opening.request().query_value("device").unwrap_or_default().into_owned();
        opening.set_user(user)?; // 1 to 256 bytes, or 400
        opening.set_tag("device", device)?;
        opening.set_shared_connection(true);
        Ok(())
    }

    fn server(&mut self, _ws: &mut WebSocket) -> ServerResult {
        Ok(())
    }

    fn on_client_message(&mut self, _ws: &WebSocket, _message: Message) -> Handled {
        Handled::Yes
    }
}

/// Whether a user is there at all, whatever the number of tabs.
struct Presence;

impl HubObserver for Presence {
    fn user_online(&self, user: &str) {
        println!("{user:?} is online");
    }

    fn user_offline(&self, user: &str) {
        println!("{user:?} is offline");
    }
}

fn describe(connection: &ConnectionInfo) -> String {
    let device = connection.tags.get("device").unwrap_or_default();
    format!("{} {device:?}, silent for {:?}", connection.id.short(), connection.idle)
}

/// Any thread can do this: here it is one that reads commands.
fn obey(hub: &Hub, line: &str) -> switchboard::Result<()> {
    match line.splitn(3, ' ').collect::<Vec<_>>()[..] {
        ["push", user, text] => {
            let result = hub.push_user(user, text)?;
            println!("{} tabs have got it", result.sent + result.queued);
        }
        ["list", user] => {
            for connection in hub.all_connections(Audience::User(user)) {
                println!("{}", describe(&connection?));
            }
        }
        ["close", user] => println!("{} closed", hub.close_user(user, 4001, "logged out")?),
        _ => println!("push USER TEXT, list USER, close USER"),
    }
    Ok(())
}

fn main() -> Result<(), ServerError> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let server = Server::builder()
        .listen(address)
        .http("/", |_| Response::html(PAGE))
        .route("/inbox", || Inbox)
        .observer(Presence)
        .bind()?;
    println!("listening on http://{}/", server.local_addrs()[0]);
    let hub = server.hub();
    std::thread::spawn(move || {
        for line in stdin().lines().map_while(Result::ok) {
            if let Err(e) = obey(&hub, &line) {
                eprintln!("{e}");
            }
        }
    });
    server.run()
}

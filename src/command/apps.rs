//! The WebSocket applications that `serve` offers.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use switchboard::{
    Audience, Error, Handled, History, Hub, HubObserver, Message, Opening, READ_LEN, Refusal, ServerBuilder,
    ServerResult, StatusCode, WebSocket, WebSocketServer,
};

use super::allowance::Allowance;

/// Sends each message back.
pub(super) struct Echo;

impl WebSocketServer for Echo {
    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        for message in ws.messages() {
            ws.write(message)?;
        }
        Ok(())
    }
}

/// The example of the IRIS documentation: echoes, reports when nothing was received for 10 s, and ends at `exit`.
pub(super) struct MyWebSocketServer;

impl WebSocketServer for MyWebSocketServer {
    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        loop {
            // At most so many characters of one message: the next read returns the rest.
            match ws.read(READ_LEN, Duration::from_secs(10)) {
                Err(Error::Timeout) => ws.write(format!("Server timed-out at {}", time_of_day()))?,
                Ok(data) if data == "exit" => break,
                Ok(data) => ws.write(data)?,
                Err(closed) => return Err(closed.into()),
            }
        }
        ws.end_server();
        Ok(())
    }
}

/// The echo with a shared connection, which needs no thread while nothing arrives. It chooses the first subprotocol that the
/// client offers, whatever that is.
pub(super) struct EchoShared;

impl WebSocketServer for EchoShared {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        if let Some(first) = opening.subprotocols().first().cloned() {
            opening.choose_subprotocol(&[&first]);
        }
        opening.set_shared_connection(true);
        Ok(())
    }

    fn server(&mut self, _ws: &mut WebSocket) -> ServerResult {
        Ok(())
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        // Fails only if the client has left.
        let _ = ws.write(message);
        Handled::Yes
    }
}

/// Sends each message to all connections on this path, including the sender. A client may send 4 MiB at once, and then 1 MiB
/// a second: so much a reader's queue takes by default, even if its client is slow.
pub(super) struct Broadcast(Allowance);

impl Default for Broadcast {
    fn default() -> Self {
        Self(Allowance::new(4 << 20, 1 << 20))
    }
}

impl WebSocketServer for Broadcast {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        opening.set_shared_connection(true);
        Ok(())
    }

    fn server(&mut self, _ws: &mut WebSocket) -> ServerResult {
        Ok(())
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        if self.0.take(message.len()) {
            let _ = ws.hub().broadcast(Audience::Path(ws.path()), message); // it cannot fail within a process
        } else {
            ws.close(1008, "more than 4 MiB at once, or 1 MiB a second");
        }
        Handled::Yes
    }
}

/// A chat with rooms: `/chat?room=ROOM&name=NAME`. Each line that is received is sent to all in the room, as `NAME: LINE`.
/// A line has at most 16 KiB, and a client may send 64 KiB at once, and then 16 KiB a second.
///
/// With `&since=`, and later with the last position that it has seen, a client is told what was said while it was away, and who is
/// there.
pub(super) struct Chat {
    room: String,
    name: String,
    allowance: Allowance,
}

/// The topics of rooms: what is said there, which they remember, and who is there.
const ROOM: &str = "chat/";
const HERE: &str = "chatters/";

/// What a room remembers.
const REMEMBERED: History = History::new(100, Duration::from_secs(3600));

/// How many names are shown of those who are in a room.
const MOST_NAMES: usize = 20;

/// The longest name of a room or a person, in characters.
const MAX_NAME: usize = 30;

/// The longest line, in bytes.
const MAX_LINE: usize = 16 * 1024;

impl Default for Chat {
    fn default() -> Self {
        let allowance = Allowance::new(64 * 1024, 16 * 1024);
        Self { room: String::new(), name: String::new(), allowance }
    }
}

impl Chat {
    fn topic(&self) -> String {
        format!("{ROOM}{}", self.room)
    }
}

impl WebSocketServer for Chat {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        let value = |name| {
            let value = opening.request().query_value(name).unwrap_or_default().trim().to_owned();
            let fits =
                (1..=MAX_NAME).contains(&value.chars().count()) && !value.chars().any(char::is_control);
            let refusal = || {
                Refusal::new(StatusCode::BAD_REQUEST, "use /chat?room=ROOM&name=NAME, of 1 to 30 characters")
            };
            fits.then_some(value).ok_or_else(refusal)
        };
        (self.room, self.name) = (value("room")?, value("name")?);
        if self.name.starts_with('*') {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "a line that begins with * is the chat's own"));
        }
        opening.set_user(&self.name)?;
        if opening.request().query_value("since").is_some() {
            opening.join(format!("{HERE}{}", self.room))?;
            opening.join_since(self.topic(), opening.since())?;
        } else {
            opening.join(self.topic())?;
        }
        opening.set_shared_connection(true);
        Ok(())
    }

    fn server(&mut self, _ws: &mut WebSocket) -> ServerResult {
        Ok(())
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        match message.as_text() {
            None => ws.close(1003, "text only"),
            Some(line) if line.len() > MAX_LINE => ws.close(1008, "a line of more than 16 KiB"),
            Some(line) if !self.allowance.take(line.len()) => {
                ws.close(1008, "more than 64 KiB at once, or 16 KiB a second");
            }
            Some(line) => {
                // It cannot fail within a process.
                let _ = ws.hub().publish(&self.topic(), format!("{}: {line}", self.name));
            }
        }
        Handled::Yes
    }
}

/// Tells those in a room of the chat who comes, leaves, and is there.
#[derive(Default)]
pub(super) struct Chatters(OnceLock<Hub>);

impl Chatters {
    /// For a server with the chat.
    pub(super) fn observe(self: Arc<Self>, builder: ServerBuilder) -> ServerBuilder {
        builder.history(&format!("{ROOM}*"), REMEMBERED).observer(self)
    }

    /// The hub of that server.
    pub(super) fn use_hub(&self, hub: Hub) {
        let _ = self.0.set(hub);
    }

    fn tell(&self, topic: &str, user: &str, what: &str) -> Option<()> {
        let (hub, room) = (self.0.get()?, topic.strip_prefix(ROOM)?);
        hub.publish(topic, format!("* {user} {what}")).ok()?;
        let page = hub.presence(topic, None, MOST_NAMES).ok()?;
        let names: Vec<_> = page.items.iter().map(|present| &*present.user).collect();
        let others = if page.next.is_some() { " and others" } else { "" };
        let line = format!("* here: {}{others}", names.join(", "));
        let _ = hub.broadcast(Audience::Topic(&format!("{HERE}{room}")), line).ok()?;
        Some(())
    }
}

impl HubObserver for Chatters {
    fn user_joined(&self, topic: &str, user: &str) {
        self.tell(topic, user, "came");
    }

    fn user_left(&self, topic: &str, user: &str) {
        self.tell(topic, user, "left");
    }
}

/// The time of day as text.
pub(super) fn time_of_day() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    format!("{:02}:{:02}:{:02} UTC", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use switchboard::{Server, WebSocketId};

    use super::*;

    /// A chat of a user with several tabs, of which only the first one stays.
    struct Hasty(Chat, Arc<OnceLock<WebSocketId>>);

    impl WebSocketServer for Hasty {
        fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
            self.0.on_pre_server(opening)?;
            let first = self.1.get_or_init(|| *opening.websocket_id());
            opening.hub().close_all(Audience::User("ann").except(first), 4000, "")?;
            Ok(())
        }

        fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
            self.0.server(ws)
        }

        fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
            self.0.on_client_message(ws, message)
        }
    }

    #[test]
    fn nobody_leaves_a_chat_who_is_still_there() {
        let first = Arc::new(OnceLock::new());
        let factory = move || Hasty(Chat::default(), first.clone());
        let chatters = Arc::<Chatters>::default();
        let builder =
            chatters.clone().observe(Server::builder()).listen("127.0.0.1:0").route("/chat", factory);
        let server = builder.bind().unwrap().spawn().unwrap();
        chatters.use_hub(server.hub());
        let address = server.local_addrs()[0].tcp().unwrap();
        let connect = || {
            let socket = std::net::TcpStream::connect(address).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            tungstenite::client(format!("ws://{address}/chat?room=r&name=ann"), socket).unwrap().0
        };
        let mut watcher = connect();
        assert_eq!(watcher.read().unwrap().into_text().unwrap(), "* ann came");
        for _ in 0..10 {
            let mut hasty = connect();
            assert!(hasty.read().unwrap().is_close());
            while hasty.read().is_ok() {}
        }
        while server.handle().connections() > 1 {
            std::thread::sleep(Duration::from_millis(5));
        }
        watcher.send("the last word".into()).unwrap();
        assert_eq!(
            watcher.read().unwrap().into_text().unwrap(),
            "ann: the last word",
            "nothing is before it"
        );
    }
}

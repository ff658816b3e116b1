//! The WebSocket applications that `serve` offers.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use switchboard::{
    Audience, Closed, Error, Handled, Hub, Message, Opening, READ_LEN, Refusal, ServerResult, StatusCode,
    WebSocket, WebSocketServer,
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
pub(super) struct Chat {
    room: String,
    name: String,
    /// Once the others have been told that this one came.
    hub: Option<Hub>,
    allowance: Allowance,
}

/// The longest name of a room or a person, in characters.
const MAX_NAME: usize = 30;

/// The longest line, in bytes.
const MAX_LINE: usize = 16 * 1024;

impl Default for Chat {
    fn default() -> Self {
        let allowance = Allowance::new(64 * 1024, 16 * 1024);
        Self { room: String::new(), name: String::new(), hub: None, allowance }
    }
}

impl Chat {
    fn tell(&self, line: String) {
        if let Some(hub) = &self.hub {
            let _ = hub.broadcast(Audience::Topic(&self.topic()), line); // it cannot fail within a process
        }
    }

    fn topic(&self) -> String {
        format!("chat/{}", self.room)
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
        opening.join(self.topic())?;
        opening.set_shared_connection(true);
        Ok(())
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        self.hub = Some(ws.hub());
        self.tell(format!("* {} came", self.name));
        Ok(())
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        match message.as_text() {
            None => ws.close(1003, "text only"),
            Some(line) if line.len() > MAX_LINE => ws.close(1008, "a line of more than 16 KiB"),
            Some(line) if !self.allowance.take(line.len()) => {
                ws.close(1008, "more than 64 KiB at once, or 16 KiB a second");
            }
            Some(line) => self.tell(format!("{}: {line}", self.name)),
        }
        Handled::Yes
    }

    fn on_post_server(&mut self, _closed: &Closed) {
        self.tell(format!("* {} left", self.name));
    }
}

/// The time of day as text.
pub(super) fn time_of_day() -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    format!("{:02}:{:02}:{:02} UTC", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, OnceLock};

    use switchboard::{Server, WebSocketId};

    use super::*;

    /// A chat that is closed before it begins, except for the first one.
    struct Hasty(Chat, Arc<OnceLock<WebSocketId>>);

    impl WebSocketServer for Hasty {
        fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
            self.0.on_pre_server(opening)?;
            opening.set_user("somebody")?;
            let first = self.1.get_or_init(|| *opening.websocket_id());
            opening.hub().close_all(Audience::User("somebody").except(first), 4000, "")?;
            Ok(())
        }

        fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
            self.0.server(ws)
        }

        fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
            self.0.on_client_message(ws, message)
        }

        fn on_post_server(&mut self, closed: &Closed) {
            self.0.on_post_server(closed);
        }
    }

    #[test]
    fn nobody_leaves_a_chat_who_has_not_come() {
        let first = Arc::new(OnceLock::new());
        let factory = move || Hasty(Chat::default(), first.clone());
        let builder = Server::builder().listen("127.0.0.1:0").route("/chat", factory);
        let server = builder.bind().unwrap().spawn().unwrap();
        let address = server.local_addrs()[0].tcp().unwrap();
        let connect = |name: &str| {
            let socket = std::net::TcpStream::connect(address).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            tungstenite::client(format!("ws://{address}/chat?room=r&name={name}"), socket).unwrap().0
        };
        let mut watcher = connect("watcher");
        assert_eq!(watcher.read().unwrap().into_text().unwrap(), "* watcher came");
        for _ in 0..10 {
            let mut hasty = connect("hasty");
            assert!(hasty.read().unwrap().is_close());
            while hasty.read().is_ok() {}
        }
        while server.handle().connections() > 1 {
            std::thread::sleep(Duration::from_millis(5));
        }
        watcher.send("the last word".into()).unwrap();
        assert_eq!(
            watcher.read().unwrap().into_text().unwrap(),
            "watcher: the last word",
            "nothing is before it"
        );
    }
}

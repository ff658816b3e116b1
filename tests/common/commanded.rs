//! A server that is managed by the command: on a Unix socket, one for reading only, over TCP with a token, and over TLS.

use std::{net::SocketAddr, process::Command, time::Duration};

use switchboard::{
    Audience, Client, Handled, History, Hub, Message, Opening, Overflow, Refusal, RunningServer, Server,
    ServerBuilder, ServerResult, WebSocket, WebSocketId, WebSocketServer,
};

use super::{
    app, echo,
    folder::Folder,
    managed::{TOKEN, in_all_ways},
    process::COMMAND,
};

pub struct Commanded {
    pub hub: Hub,
    pub folder: Folder,
    server: RunningServer,
}

/// Leaves what it receives to whoever reads it by its ID. A client says whose it is, and what it joins.
struct Shared;

impl WebSocketServer for Shared {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        opening.set_shared_connection(true);
        opening.set_overflow(Overflow::DropNewest);
        let request = opening.request();
        let value = |name| request.query_value(name).map(|value| value.into_owned());
        let (user, topic) = (value("user"), value("topic"));
        if let Some(user) = user {
            opening.set_user(user)?;
        }
        if let Some(topic) = topic {
            opening.join(topic)?;
        }
        Ok(())
    }

    fn server(&mut self, _ws: &mut WebSocket) -> ServerResult {
        Ok(())
    }

    fn on_client_message(&mut self, _ws: &WebSocket, _message: Message) -> Handled {
        Handled::No
    }
}

impl Commanded {
    pub fn new() -> Self {
        Self::in_folder(Folder::new())
    }

    /// Ends it, and gives the folder back that its sockets were in.
    pub fn stop(self) -> Folder {
        self.server.shutdown(Duration::ZERO).unwrap();
        self.folder
    }

    pub fn in_folder(folder: Folder) -> Self {
        Self::with(folder, |builder| builder)
    }

    pub fn with(folder: Folder, configure: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        folder.write("token", format!("{TOKEN}\n")); // for the command
        let manage = in_all_ways(&folder);
        let server = configure(Server::builder())
            .listen("127.0.0.1:0")
            .route("/shared/*", || Shared)
            .route("/echo", || app(echo))
            .history("remembers", History::new(10, Duration::from_secs(3600)))
            .manage(manage)
            .bind()
            .unwrap();
        Self { hub: server.hub(), folder, server: server.spawn().unwrap() }
    }

    /// Where it is managed with all rights.
    pub fn place(&self) -> String {
        format!("unix:{}", self.folder.path("all"))
    }

    /// A client, and its ID.
    pub fn connect(&self, path: &str) -> (Client, WebSocketId) {
        let client = Client::connect(&format!("ws://{}{path}", self.address())).unwrap();
        (client, self.id_at(path.split('?').next().unwrap()))
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.server.local_addrs()[0].tcp().unwrap()
    }

    /// The ID of one with this path.
    pub fn id_at(&self, path: &str) -> WebSocketId {
        self.hub.connections(Audience::Path(path), None, 1).unwrap().items[0].id
    }

    /// The command, with all rights, and nothing else in its environment that concerns this.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(COMMAND);
        command
            .args(args)
            .env("SWITCHBOARD_MANAGE", self.place())
            .env_remove("SWITCHBOARD_MANAGE_TOKEN_FILE");
        command
    }

    /// The addresses of its TCP listeners for managing, without TLS and with it.
    pub fn ports(&self) -> [SocketAddr; 2] {
        let addresses: Vec<_> =
            self.server.manage_addrs().iter().filter_map(|address| address.tcp()).collect();
        [addresses[0], addresses[1]]
    }
}

//! Links as they are on the wire, from the other end of a real server.

mod asking;
mod bounds;
mod ending;
mod peer;
mod reading;

use std::{
    io::Write,
    net::TcpStream,
    path::PathBuf,
    sync::{
        atomic::{AtomicU32, Ordering::Relaxed},
        mpsc,
    },
    time::{Duration, Instant},
};

use self::peer::Peer;
use crate::{
    Audience, Client, History, Hub, Limits, Manage, Opening, Overflow, Refusal, RunningServer, Server,
    ServerBuilder, ServerResult, StatusCode, WebSocket, WebSocketId, WebSocketServer, sync::LockExt,
};

/// How long a test waits for what should come soon.
const PATIENCE: Duration = Duration::from_secs(60);

const TOKEN: &str = "the-token-of-these-tests";
const READ_TOKEN: &str = "and-the-one-for-reading";

/// A server with links on a Unix socket, and by a token on TCP.
struct Served {
    server: RunningServer,
    socket: PathBuf,
}

impl Served {
    fn start(
        manage: impl FnOnce(Manage) -> Manage,
        build: impl FnOnce(ServerBuilder) -> ServerBuilder,
    ) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sb-link-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let socket = std::env::temp_dir().join(name);
        let own = Manage::new().listen(format!("unix:{}", socket.display()));
        let own = manage(own.token(TOKEN).read_token(READ_TOKEN).listen("127.0.0.1:0"));
        let builder = Server::builder().listen("127.0.0.1:0").history("kept*", History::new(10, PATIENCE));
        let builder = builder.route("/shared", || Shared).route("/alone", || Alone).manage(own);
        Self { server: build(builder).bind().unwrap().spawn().unwrap(), socket }
    }

    fn new() -> Self {
        Self::start(|manage| manage, |builder| builder)
    }

    fn hub(&self) -> Hub {
        self.server.hub()
    }

    fn link(&self) -> Peer {
        let mut peer = None;
        // Those before may not be over for the server.
        eventually("there is room for a link", || {
            peer = Peer::connect(&self.url(), None).ok();
            peer.is_some()
        });
        peer.unwrap()
    }

    fn url(&self) -> String {
        format!("unix:{}:/@hub", self.socket.display())
    }

    /// Where a token is needed.
    fn url_by_token(&self) -> String {
        format!("ws://{}/@hub", self.server.manage_addrs()[1])
    }

    /// A client of this path, and its ID.
    fn client(&self, path: &str) -> (Client, WebSocketId) {
        let client = Client::connect(&format!("ws://{}{path}", self.server.local_addrs()[0])).unwrap();
        let first = client.read_message(PATIENCE).unwrap();
        let id = first.as_text().unwrap().parse().unwrap();
        (client, id)
    }
}

impl Served {
    /// A client of this path that takes nothing until it is read from, and its ID; it is the only one.
    fn deaf(&self, path: &str) -> (TcpStream, WebSocketId) {
        let mut client = TcpStream::connect(self.server.local_addrs()[0].tcp().unwrap()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        client.write_all(head.as_bytes()).unwrap();
        let hub = self.hub();
        eventually("it is open", || hub.len().unwrap() == 1);
        let id = hub.connections(Audience::All, None, 1).unwrap().items[0].id;
        (client, id)
    }
}

/// Its clients get their ID first. What they send is read by whoever opens them.
struct Shared;

impl WebSocketServer for Shared {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        opening.set_shared_connection(true);
        begin(opening)
    }

    fn server(&mut self, _: &mut WebSocket) -> ServerResult {
        Ok(())
    }
}

/// The same with a thread of its own, which only waits for the end.
struct Alone;

impl WebSocketServer for Alone {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        begin(opening)
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        ws.messages().for_each(drop);
        Ok(())
    }
}

fn begin(opening: &mut Opening) -> Result<(), Refusal> {
    let value = |name| opening.request().query_value(name).map(|value| value.into_owned());
    let (user, tag, drops) = (value("user"), value("tag"), value("drops"));
    if let Some(user) = user {
        opening.set_user(&user)?;
    }
    if let Some(tag) = tag {
        opening.set_tag("tag", &tag)?;
    }
    if drops.is_some() {
        opening.set_overflow(Overflow::DropNewest);
    }
    opening.choose_subprotocol(&["chat"]);
    let id = *opening.websocket_id();
    let _ = opening.hub().push(&id, id.to_string())?;
    Ok(())
}

/// Connections that are being opened until the test says yes or no.
struct Slow {
    ids: mpsc::Sender<WebSocketId>,
    answer: mpsc::Receiver<bool>,
}

impl WebSocketServer for Slow {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        opening.set_shared_connection(true);
        self.ids.send(*opening.websocket_id()).unwrap();
        if self.answer.recv_timeout(PATIENCE).unwrap() { Ok(()) } else { Err(StatusCode::FORBIDDEN.into()) }
    }

    fn server(&mut self, _: &mut WebSocket) -> ServerResult {
        Ok(())
    }
}

/// A server with the path `/slow`, the IDs of what is being opened there, and by what each is answered.
fn slow() -> (Served, mpsc::Receiver<WebSocketId>, mpsc::Sender<bool>) {
    let (ids, known) = mpsc::channel();
    let (answer, answers) = mpsc::channel();
    let answers = std::sync::Mutex::new(Some(answers));
    let factory = move || Slow { ids: ids.clone(), answer: answers.locked().take().unwrap() };
    let served = Served::start(|manage| manage, |builder| builder.route("/slow", factory));
    (served, known, answer)
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs the test of this name in a process of its own, where nothing else counts. True: this is it.
fn is_alone(name: &str) -> bool {
    if std::env::var_os("SWITCHBOARD_ALONE").is_some() {
        return true;
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", name]).env("SWITCHBOARD_ALONE", "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}

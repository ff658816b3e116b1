//! Nodes of a cluster, in this process or in one of their own.
#![allow(unreachable_pub, reason = "a part of a test, as common is")]

use std::{env, net::SocketAddr, process::Command, thread, time::Duration};

use rustix::process::Signal;
use switchboard::{
    Audience, Cluster, Handled, Limits, Message, NodeId, Opening, Refusal, Server, ServerBuilder,
    ServerResult, WebSocket, WebSocketId, WebSocketServer,
};
use tungstenite::client::IntoClientRequest;

use crate::common::{
    Client, Scheme, Stream, TestServer, echo, eventually, member::enter, next_message, process::Process,
    redis::RedisServer, serve,
};

/// So many nodes are in the process of the test.
pub const HERE: usize = 3;

pub const LEASE: Duration = Duration::from_secs(2);

/// How a process that is to be a node learns what for.
const VARIABLE: &str = "SWITCHBOARD_NODE";

/// Tells its ID first. Is in the topics, and of the user, that the query says. At `/shared` it is shared; at `/push` it pushes to the
/// connections that it is told, until it is told something again, and at `/read` it reads from one.
struct App;

impl WebSocketServer for App {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        enter(opening)
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        ws.write(ws.websocket_id().to_string())?;
        match ws.path() {
            "/shared" => Ok(()),
            "/push" => push_all(ws),
            "/read" => read_one(ws),
            _ => echo(ws),
        }
    }

    fn on_client_message(&mut self, _: &WebSocket, _: Message) -> Handled {
        Handled::No
    }
}

/// Reads from the connection that it is told, and says what, but does not acknowledge it.
fn read_one(ws: &mut WebSocket) -> ServerResult {
    let Message::Text(id) = ws.read_message(Duration::from_secs(20))? else {
        return Err("it was text".into());
    };
    let other = ws.hub().open_server(&id.parse()?)?;
    let delivery = other.read_delivery(usize::MAX, Duration::from_secs(1000))?;
    ws.write(switchboard::Message::clone(&delivery))?;
    let _ = ws.read_message(Duration::from_secs(20));
    Ok(())
}

/// Pushes `THREAD NUMBER` to all of those whose IDs are behind the thread's number, and at last `over THREAD`.
fn push_all(ws: &mut WebSocket) -> ServerResult {
    let told = ws.read_message(Duration::from_secs(20))?;
    let Message::Text(told) = told else { return Err("it was text".into()) };
    let mut words = told.split(' ');
    let thread = words.next().unwrap_or_default();
    let ids: Vec<WebSocketId> = words.map(str::parse).collect::<Result<_, _>>()?;
    let hub = ws.hub();
    for number in 0.. {
        for id in &ids {
            let _ = hub.push(id, format!("{thread} {number}"));
        }
        if ws.try_read(0)?.is_some() {
            break;
        }
        thread::sleep(Duration::from_millis(1));
    }
    for id in &ids {
        let _ = hub.push(id, format!("over {thread}"))?;
    }
    Ok(())
}

pub fn cluster(url: &str) -> Cluster {
    Cluster::new(url).lease(LEASE)
}

fn configured(builder: ServerBuilder, cluster: Cluster, number: u32) -> ServerBuilder {
    let mut limits = Limits::default();
    limits.max_queue_messages = 100_000; // nothing is to be dropped because the test is slow
    let builder = builder.limits(limits).node(NodeId::new(number)).session_keys([[7; 32]]).cluster(cluster);
    ["/", "/shared", "/push", "/read"].into_iter().fold(builder, |builder, path| builder.route(path, || App))
}

/// One in this process.
pub fn node(redis: &RedisServer, number: u32) -> TestServer {
    node_by(cluster(&redis.url()), number)
}

pub fn node_by(cluster: Cluster, number: u32) -> TestServer {
    serve(|builder| configured(builder, cluster, number))
}

/// Some in this process, who know each other.
pub struct Nodes {
    pub all: Vec<TestServer>,
}

impl Nodes {
    pub fn start(redis: &RedisServer) -> Self {
        Self::start_by(|_| cluster(&redis.url()))
    }

    pub fn start_by(cluster: impl Fn(usize) -> Cluster) -> Self {
        let all: Vec<_> = (1..=HERE).map(|number| node_by(cluster(number), number as u32)).collect();
        for node in &all {
            eventually("all listen", || {
                node.hub.broadcast(Audience::All, "sync").is_ok_and(|sent| sent.forwarded == HERE - 1)
            });
        }
        Self { all }
    }
}

/// One in a process of its own.
pub struct Node {
    process: Process,
    address: SocketAddr,
}

impl Node {
    pub fn start(number: u32, redis: &RedisServer) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "a_node_of_its_own", "--nocapture"]);
        let mut process = Process::spawn(command.env(VARIABLE, format!("{number} {}", redis.url())));
        let line = process.line("listens at ");
        let address = line.rsplit(' ').next().unwrap().parse().unwrap();
        Self { process, address }
    }

    pub fn connect(&self, path: &str) -> Client {
        let request = format!("ws://{}{path}", self.address).into_client_request().unwrap();
        tungstenite::client(request, Stream::connect(self.address, Scheme::Ws)).unwrap().0
    }

    /// One that has got its ID.
    pub fn client(&self, path: &str) -> (Client, WebSocketId) {
        let mut client = self.connect(path);
        let id = next_message(&mut client).into_text().unwrap().parse().unwrap();
        (client, id)
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }
}

/// If this process was started for that.
pub fn be_a_node() {
    let Ok(what) = env::var(VARIABLE) else { return };
    let (number, url) = what.split_once(' ').unwrap();
    let builder = Server::builder().listen("127.0.0.1:0");
    let server = configured(builder, cluster(url), number.parse().unwrap()).bind().unwrap();
    eprintln!("listens at {}", server.local_addrs()[0]);
    // It does not outlive the test for long, however that ends.
    thread::spawn(|| {
        thread::sleep(Duration::from_secs(120));
        std::process::exit(1);
    });
    server.run().unwrap();
}

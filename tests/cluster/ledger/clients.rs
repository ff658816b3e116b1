//! The clients: each has a thread, and comes back when its node does.

use std::{
    collections::HashMap,
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use switchboard::WebSocketId;
use tungstenite::{Message, WebSocket, client::IntoClientRequest, protocol::WebSocketConfig};

use super::{NODES, node::TOPICS, now};

/// Where each node is.
pub(crate) type Addresses = Mutex<HashMap<usize, SocketAddr>>;

/// What a connection has got.
pub(crate) struct Connection {
    pub(crate) id: WebSocketId,
    pub(crate) topic: usize,
    /// When it was open.
    pub(crate) from: u64,
    /// Threads and numbers of pushes.
    pub(crate) got: Vec<(u32, u32)>,
    /// It was open at the end.
    pub(crate) has_survived: bool,
}

pub(crate) struct Clients {
    threads: Vec<JoinHandle<Vec<Connection>>>,
    pub(crate) connected: Arc<AtomicUsize>,
    ids: Arc<Mutex<Vec<Option<WebSocketId>>>>,
}

impl Clients {
    /// The file `ids` has those that are connected.
    pub(crate) fn start(count: usize, folder: &Path, addresses: Arc<Addresses>) -> Self {
        let connected = Arc::<AtomicUsize>::default();
        let ids = Arc::new(Mutex::new(vec![None; count]));
        let spawn = |index: usize| {
            let (addresses, connected, ids) = (addresses.clone(), connected.clone(), ids.clone());
            let thread = thread::Builder::new().stack_size(128 << 10);
            thread.spawn(move || run(index, &addresses, &connected, &ids)).unwrap()
        };
        let threads = (0..count).map(spawn).collect();
        let (listed, folder) = (Arc::downgrade(&ids), PathBuf::from(folder));
        thread::spawn(move || {
            while let Some(ids) = listed.upgrade() {
                let all: Vec<_> = ids.lock().unwrap().iter().flatten().map(WebSocketId::to_string).collect();
                let _ = fs::write(folder.join("ids.new"), all.join("\n"));
                let _ = fs::rename(folder.join("ids.new"), folder.join("ids"));
                drop(ids);
                thread::sleep(Duration::from_millis(300));
            }
        });
        Self { threads, connected, ids }
    }

    pub(crate) fn count(&self) -> usize {
        self.threads.len()
    }

    /// The IDs of one of each node.
    pub(crate) fn some(&self) -> String {
        let ids = self.ids.lock().unwrap();
        let some: Vec<_> = ids.iter().take(NODES).flatten().map(WebSocketId::to_string).collect();
        some.join(" ")
    }

    /// All connections that there were.
    pub(crate) fn join(self) -> Vec<Connection> {
        self.threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }
}

pub(crate) fn connect(address: SocketAddr, path: &str) -> Option<WebSocket<TcpStream>> {
    let tcp = TcpStream::connect_timeout(&address, Duration::from_secs(20)).ok()?;
    tcp.set_read_timeout(Some(Duration::from_secs(40))).ok()?;
    let request = format!("ws://{address}{path}").into_client_request().unwrap();
    let config = WebSocketConfig::default().read_buffer_size(4096);
    Some(tungstenite::client::client_with_config(request, tcp, Some(config)).ok()?.0)
}

fn run(
    index: usize,
    addresses: &Addresses,
    connected: &AtomicUsize,
    ids: &Mutex<Vec<Option<WebSocketId>>>,
) -> Vec<Connection> {
    let topic = index / NODES % TOPICS;
    let mut connections = Vec::new();
    loop {
        let address = addresses.lock().unwrap()[&(index % NODES)];
        let Some(mut client) = connect(address, &format!("/?topic={topic}")) else {
            thread::sleep(Duration::from_millis(200));
            continue;
        };
        let Some(id) = next(&mut client).and_then(|id| id.parse().ok()) else { continue };
        let from = now();
        ids.lock().unwrap()[index] = Some(id);
        connected.fetch_add(1, SeqCst);
        let (got, has_survived) = read(&mut client);
        ids.lock().unwrap()[index] = None;
        connected.fetch_sub(1, SeqCst);
        connections.push(Connection { id, topic, from, got, has_survived });
        if has_survived {
            return connections;
        }
    }
}

/// All pushes. And whether it has got the end.
fn read(client: &mut WebSocket<TcpStream>) -> (Vec<(u32, u32)>, bool) {
    let mut got = Vec::new();
    while let Some(text) = next(client) {
        if text == "end" {
            return (got, true);
        }
        if let Some((thread, number)) = text.split_once(' ') {
            got.push((thread.parse().unwrap(), number.parse().unwrap()));
        }
    }
    (got, false)
}

fn next(client: &mut WebSocket<TcpStream>) -> Option<String> {
    loop {
        match client.read().ok()? {
            Message::Text(text) => return Some(text.to_string()),
            Message::Ping(_) | Message::Pong(_) | Message::Binary(_) => {}
            _ => return None,
        }
    }
}

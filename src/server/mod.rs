//! The server: accepts, gives each connection its thread, and shuts down in order.

mod acceptor;
mod arrivals;
mod builder;
mod exchange;
mod listener;
mod routes;
mod serve;
mod threads;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use self::{
    acceptor::Acceptor, arrivals::Bell, builder::Security, listener::Listener, routes::Routes,
    threads::Threads,
};
pub use self::{builder::ServerBuilder, exchange::Exchange, listener::ListenAddr};
use crate::{
    clock::Clock,
    compression::Compression,
    connection::Socket,
    error::{ClosedBy, Result},
    gateway::Gateways,
    http::Origins,
    hub::Hub,
    limits::Limits,
    message::CloseCode,
    registry::Registry,
    session::SessionStore,
    sync::LockExt,
};

/// How long connections have to end when accepting has failed.
const GRACE: Duration = Duration::from_secs(10);

/// A server with its addresses bound.
///
/// ```
/// # use switchboard::{ServerResult, WebSocket, WebSocketServer};
/// # struct Echo;
/// # impl WebSocketServer for Echo {
/// #     fn server(&mut self, ws: &mut WebSocket) -> ServerResult { Ok(()) }
/// # }
/// use switchboard::Server;
/// use std::time::Duration;
///
/// # fn main() -> switchboard::Result<()> {
/// let server = Server::builder().listen("127.0.0.1:0").route("/echo", || Echo).bind()?;
/// let handle = server.handle();
/// let thread = std::thread::spawn(move || server.run());
/// // …
/// handle.shutdown(Duration::from_secs(5));
/// thread.join().unwrap()?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Server {
    listeners: Vec<Listener>,
    addresses: Vec<ListenAddr>,
    shared: Arc<Shared>,
}

/// What all threads of a server know.
#[derive(Debug)]
pub(crate) struct Shared {
    routes: Routes,
    limits: Arc<Limits>,
    origins: Origins,
    compression: Compression,
    trusted_proxies: Vec<IpAddr>,
    sessions: Arc<dyn SessionStore>,
    registry: Arc<Registry>,
    clock: Arc<Clock>,
    /// Connections, those in their handshake included.
    count: AtomicUsize,
    /// The sockets of those in their handshake.
    handshaking: Mutex<HashMap<usize, Arc<Socket>>>,
    bell: Bell,
    stopping: AtomicBool,
    /// When the grace period ends.
    stop_by: Mutex<Option<Instant>>,
}

/// A new socket for a thread.
struct Job {
    socket: Socket,
    peer: Option<SocketAddr>,
    security: Security,
    slot: Slot,
}

/// One of `max_connections`; dropping it frees it.
#[derive(Debug)]
struct Slot(Arc<Shared>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, SeqCst);
        if self.0.is_stopping() {
            self.0.bell.ring();
        }
    }
}

impl Server {
    /// Begins to put a server together.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    fn new(
        builder: ServerBuilder,
        listeners: Vec<Listener>,
        sessions: Arc<dyn SessionStore>,
    ) -> Result<Self> {
        let addresses = listeners.iter().map(Listener::local_addr).collect::<Result<_>>()?;
        let shared = Arc::new(Shared {
            routes: builder.routes,
            limits: Arc::new(builder.limits),
            origins: builder.origins,
            compression: builder.compression,
            trusted_proxies: builder.trusted_proxies,
            sessions,
            registry: Arc::default(),
            clock: Arc::new(Clock::start()),
            count: AtomicUsize::new(0),
            handshaking: Mutex::default(),
            bell: Bell::new()?,
            stopping: AtomicBool::new(false),
            stop_by: Mutex::new(None),
        });
        Ok(Self { listeners, addresses, shared })
    }

    /// Where it listens, in the order of the `listen` calls, with the ports that the system chose.
    pub fn local_addrs(&self) -> &[ListenAddr] {
        &self.addresses
    }

    /// All connections: to find one by its ID, and to push to one or to many, from any thread.
    pub fn hub(&self) -> Hub {
        Hub::new(self.shared.registry.clone())
    }

    /// Whether TLS is spoken at this one of [`local_addrs`](Self::local_addrs).
    pub fn is_tls(&self, address: &ListenAddr) -> bool {
        let mut all = self.addresses.iter().zip(&self.listeners);
        all.any(|(other, listener)| other == address && !matches!(listener.security, Security::None))
    }

    /// A handle to shut it down with, from any thread.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle(self.shared.clone())
    }

    /// Serves until [`shutdown`](ServerHandle::shutdown), on the threads of the connections, which it starts. When it
    /// returns, all of them are joined and all sockets closed.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) if the system refuses to start a first thread, or to wait.
    pub fn run(self) -> Result<()> {
        let shared = self.shared;
        let gateways = Gateways::start(&shared.limits, &shared.clock)?;
        let threads = Threads::start(shared.clone(), Acceptor::new(self.listeners)?, gateways)?;
        let result = shared.supervise(&threads);
        if let Err(e) = &result {
            log::error!("cannot accept any more: {e}");
            ServerHandle(shared.clone()).shutdown(GRACE);
        }
        shared.stop(&threads);
        // All connections are over: the gateways, which end with the threads, have nothing left but to tell their handlers.
        drop(threads);
        result
    }
}

/// Shuts a server down. Clones belong to the same server.
#[derive(Debug, Clone)]
pub struct ServerHandle(Arc<Shared>);

impl ServerHandle {
    /// Ends the server, and returns at once; [`Server::run`] returns when all is done.
    ///
    /// No new connections are accepted, handshakes under way are answered with 503, and all open connections are
    /// closed with 1001. Handlers have the grace period to return; then their sockets are cut. A handler that never
    /// returns keeps `run` from returning: threads cannot be killed.
    ///
    /// A second call can only shorten the grace period.
    pub fn shutdown(&self, grace: Duration) {
        let stop_by = Instant::now().checked_add(grace);
        let mut current = self.0.stop_by.locked();
        *current = match (*current, stop_by) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        drop(current);
        self.0.stopping.store(true, SeqCst);
        self.0.bell.ring();
    }

    /// How many connections there are, those in their handshake included.
    pub fn connections(&self) -> usize {
        self.0.count.load(SeqCst)
    }
}

impl Shared {
    fn take_slot(self: &Arc<Self>) -> Option<Slot> {
        let free = |count| (count < self.limits.max_connections).then_some(count + 1);
        self.count.fetch_update(SeqCst, SeqCst, free).ok().map(|_| Slot(self.clone()))
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    /// Waits for the end, while the threads accept and serve.
    fn supervise(&self, threads: &Threads) -> Result<()> {
        while !self.is_stopping() {
            let again = threads.tidy()?;
            self.bell.wait(again)?;
        }
        Ok(())
    }

    /// Ends all connections, and joins all threads.
    fn stop(&self, threads: &Threads) {
        self.stopping.store(true, SeqCst);
        threads.close();
        // Who comes to this point later sees that the server is stopping.
        for socket in self.handshaking.locked().values() {
            socket.shutdown_read();
        }
        let open = self.registry.all();
        log::info!("shutting down: {} connections", open.len());
        for connection in open {
            connection.close(CloseCode::GOING_AWAY, "the server shuts down");
        }
        let mut cut = false;
        // Shared connections have no thread; they give up their places at their end.
        while !threads.reap() || self.count.load(SeqCst) > 0 {
            let left = self.stop_by.locked().map(|by| by.saturating_duration_since(Instant::now()));
            if !cut && left.is_some_and(|left| left.is_zero()) {
                cut = true;
                self.cut_all();
            }
            let wait = left.filter(|left| !left.is_zero()).unwrap_or(Duration::from_secs(1));
            let wait = threads.drop_rejected().map_or(wait, |again| wait.min(again));
            if let Err(e) = self.bell.wait(Some(wait)) {
                log::error!("cannot wait for the connections' threads: {e}");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    fn cut_all(&self) {
        for socket in self.handshaking.locked().values() {
            socket.shutdown();
        }
        for connection in self.registry.all() {
            log::warn!("{}: cut off by the shutdown", connection.id());
            connection.abort(ClosedBy::Server, "cut off by the shutdown");
        }
    }
}

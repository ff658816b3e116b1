//! The server: listens, gives each connection its thread, and shuts down in order. On top of its modules; they do not
//! use it.

mod acceptor;
mod addresses;
mod adopt;
mod body;
mod builder;
mod exchange;
mod idle;
mod incoming;
mod listener;
mod pace;
mod rejected;
mod routes;
mod serve;
mod shared;
mod socket_file;
mod threads;
mod wake_pipe;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use self::{
    acceptor::Acceptors,
    adopt::{Adopted, Adopter, Adopting},
    listener::{Listener, Security},
    shared::Shared,
    threads::Threads,
};
pub use self::{adopt::AdoptedStream, builder::ServerBuilder, exchange::Exchange, listener::ListenAddr};
use crate::{
    caught::caught,
    connection::Registrar,
    deadline::Deadline,
    error::{ClosedBy, Result, ServerError},
    gateway::Gateways,
    http::Request,
    hub::Hub,
    id::NodeId,
    message::CloseCode,
    session::InUse,
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
/// # fn main() -> Result<(), switchboard::ServerError> {
/// let server = Server::builder().listen("127.0.0.1:0").route("/echo", || Echo).bind()?;
/// let handle = server.handle();
/// let thread = std::thread::spawn(move || server.run());
/// // …
/// handle.shutdown(Duration::from_secs(5));
/// thread.join().unwrap()?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "nobody is served until `run`"]
pub struct Server {
    listeners: Vec<Listener>,
    addresses: Vec<ListenAddr>,
    shared: Arc<Shared>,
    adopter: Arc<Adopter>,
}

impl Server {
    /// Begins to put a server together.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// Where it listens, in the order of the `listen` calls, with the ports that the system chose. Empty without such calls: see
    /// [`adopt`](ServerHandle::adopt).
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

    /// The node that this server is: what [`ServerBuilder::node`] set, or a random one.
    pub fn node(&self) -> NodeId {
        self.shared.registry.node()
    }

    /// A handle to shut it down with, or to hand connections over to it, from any thread.
    pub fn handle(&self) -> ServerHandle {
        ServerHandle { shared: self.shared.clone(), adopter: self.adopter.clone() }
    }

    /// Serves until [`shutdown`](ServerHandle::shutdown), on threads that it starts: one for each listener, which accepts,
    /// and one for each connection. When it returns, all of them are joined and all sockets closed.
    ///
    /// # Errors
    /// [`ServerError::Io`] if the system refuses to start the first threads, or if no more clients can be
    /// accepted: then all open connections are closed with 1001 and have ten seconds to end.
    pub fn run(self) -> Result<(), ServerError> {
        let shared = self.shared;
        let adopting = Adopting { adopter: self.adopter, shared: shared.clone() };
        if self.listeners.is_empty() {
            log::info!("no address to listen on: only connections that are handed over are served");
        }
        let registrar: Arc<dyn Registrar> = shared.registry.clone();
        let Shared { limits, clock, buffered, incidents, .. } = &*shared;
        let gateways = Gateways::start(limits, clock, &registrar, buffered, incidents)?;
        let threads = Threads::new(shared.clone(), gateways);
        let mut acceptors = Acceptors::new(shared.clone(), threads.clone())?;
        let started = acceptors.start(self.listeners);
        adopting.start(&threads);
        let result = started.map_err(Into::into).and_then(|()| supervise(&shared, &acceptors, &threads));
        if let Err(e) = &result {
            log::error!("cannot accept any more: {e}");
            shared.shutdown(GRACE);
        }
        drop((acceptors, adopting));
        stop(&shared, &threads);
        // This ends the gateways, too. All connections are over; what is left is to tell some of their handlers.
        drop(threads);
        shared.incidents.sum_up();
        result
    }
}

impl ServerBuilder {
    /// Binds all addresses. Clients can connect from now on; they are served when the server [runs](Server::run).
    ///
    /// # Errors
    /// [`ServerError::Config`] for the first mistake made above, or a limit that makes no sense; [`ServerError::Bind`] for an
    /// address that cannot be listened on.
    pub fn bind(self) -> Result<Server, ServerError> {
        let (listeners, shared) = self.build()?;
        let addresses = listeners.iter().map(Listener::local_addr).collect::<Result<_, _>>()?;
        Ok(Server { listeners, addresses, shared, adopter: Arc::default() })
    }
}

/// Shuts a server down, and hands connections over to it, from any thread. Clones belong to the same server.
#[derive(Debug, Clone)]
pub struct ServerHandle {
    shared: Arc<Shared>,
    adopter: Arc<Adopter>,
}

impl ServerHandle {
    /// Hands over a connection that an HTTP server of the program has accepted, with the request that it has received, and what
    /// it has received after that. So a program that has an HTTP server already adds WebSockets to it.
    ///
    /// From now on the connection is this server's, as if it had accepted it: it answers the request, with the 101 or with what
    /// is to be said instead, and those that follow; routes, limits, origins and the shutdown hold for it. If there is no place
    /// for it, or the server shuts down, the answer is 503. If the server does not run yet, the connection waits for that. This
    /// call waits for nothing.
    ///
    /// The server needs no address for this: `bind` works without [`listen`](ServerBuilder::listen). Whoever serves TLS himself,
    /// or has no socket at all, passes one end of a `UnixStream::pair` and copies between the other end and the client, in each
    /// direction on a thread of its own.
    ///
    /// ```
    /// # use switchboard::{ServerResult, WebSocket, WebSocketServer};
    /// # struct Echo;
    /// # impl WebSocketServer for Echo {
    /// #     fn server(&mut self, ws: &mut WebSocket) -> ServerResult { Ok(()) }
    /// # }
    /// use std::{io::{Read, Write}, os::unix::net::UnixStream, time::Duration};
    /// use switchboard::{Request, Server};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Server::builder().route("/echo", || Echo).bind()?;
    /// let handle = server.handle();
    /// let running = std::thread::spawn(move || server.run());
    ///
    /// # let (mut client, mut stream) = UnixStream::pair()?;
    /// # client.write_all(b"GET /echo HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    /// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")?;
    /// // The HTTP server has accepted `stream`, and reads.
    /// let mut bytes = Vec::new();
    /// let (request, length) = loop {
    ///     let mut more = [0; 1024];
    ///     let n = stream.read(&mut more)?;
    ///     bytes.extend_from_slice(&more[..n]);
    ///     if let Some(parsed) = Request::parse(&bytes)? {
    ///         break parsed;
    ///     }
    ///     # assert!(n > 0);
    /// };
    /// if request.header("upgrade").is_some() {
    ///     handle.adopt(stream, request, &bytes[length..]);
    /// }
    /// # let mut answer = [0; 12];
    /// # client.read_exact(&mut answer)?;
    /// # assert_eq!(&answer, b"HTTP/1.1 101");
    /// # handle.shutdown(Duration::ZERO);
    /// # running.join().unwrap()?;
    /// # Ok(()) }
    /// ```
    pub fn adopt(
        &self,
        stream: impl Into<AdoptedStream>,
        request: Request,
        already_read: impl Into<Vec<u8>>,
    ) {
        let adopted = Adopted::new(stream.into(), request, already_read.into());
        self.adopter.adopt(&self.shared, adopted);
    }

    /// Ends the server, and returns at once; [`Server::run`] returns when all is done.
    ///
    /// No new connections are accepted, handshakes under way are answered with 503, and all open connections are
    /// closed with 1001. Handlers have the grace period to return; then their sockets are cut. A handler that never
    /// returns keeps `run` from returning: threads cannot be killed.
    ///
    /// A second call can only shorten the grace period.
    pub fn shutdown(&self, grace: Duration) {
        self.shared.shutdown(grace);
    }

    /// How many connections there are, those included that are in their handshake or wait for an HTTP request.
    pub fn connections(&self) -> usize {
        self.shared.connections()
    }
}

/// Waits for the shutdown, while other threads accept and serve; joins those that end meanwhile, and sums up what clients bring
/// about.
///
/// # Errors
/// Why no more clients can be accepted.
fn supervise(shared: &Shared, acceptors: &Acceptors, threads: &Threads) -> Result<(), ServerError> {
    let next_keeping = || Deadline::after(shared.sessions.interval());
    let mut keeping = next_keeping();
    while !shared.is_stopping() {
        if let Some(e) = acceptors.take_failure() {
            return Err(e.into());
        }
        threads.join_ended();
        let Some(left) = keeping.remaining() else {
            keep_sessions(shared);
            keeping = next_keeping();
            continue;
        };
        let summing_up = shared.incidents.sum_up_if_due(Instant::now());
        shared.supervisor.wait(Some(summing_up.map_or(left, |due| left.min(due))))?;
    }
    Ok(())
}

/// An open connection keeps its session alive.
fn keep_sessions(shared: &Shared) {
    let ids = shared.registry.session_ids();
    if caught(|| shared.sessions.keep(&ids)).is_none() {
        shared.incidents.failed(format_args!("the session store panicked"));
    }
}

/// Ends all connections, and joins their threads. Nothing is accepted any more.
fn stop(shared: &Shared, threads: &Threads) {
    threads.close();
    // A handshake that begins later sees that the server is stopping.
    for socket in shared.handshaking.locked().values() {
        socket.shutdown_read();
    }
    let open = shared.registry.all();
    log::info!("shutting down: {} connections", open.len());
    for connection in open {
        connection.close(CloseCode::GOING_AWAY, "the server shuts down");
    }
    let mut cut = false;
    // Shared connections have no thread; they give up their places at their end.
    while !threads.join_ended() || shared.connections() > 0 {
        let left = shared.grace_left();
        if !cut && left.is_some_and(|left| left.is_zero()) {
            cut = true;
            cut_all(shared);
        }
        if let Err(e) = shared.supervisor.wait(left.filter(|left| !left.is_zero())) {
            log::error!("cannot wait for the connections' threads: {e}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn cut_all(shared: &Shared) {
    for socket in shared.handshaking.locked().values() {
        socket.shutdown();
    }
    let open = shared.registry.all();
    if !open.is_empty() {
        log::warn!("the grace period is over: {} connections are cut off", open.len());
    }
    for connection in open {
        connection.abort(ClosedBy::Server, "cut off by the shutdown");
    }
}

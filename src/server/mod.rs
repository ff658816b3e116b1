//! The server: listens, gives each connection its thread, and shuts down in order. On top of its modules; they do not
//! use it.

mod acceptor;
mod addresses;
mod adopt;
#[cfg(feature = "manage")]
mod beside;
mod body;
mod builder;
#[cfg(feature = "__tls")]
mod certificates;
mod exchange;
mod handle;
mod idle;
mod incoming;
mod listener;
mod pace;
#[cfg(feature = "manage")]
mod producing;
mod proxied;
mod proxies;
mod redirecting;
mod rehearsal;
mod rejected;
mod requests;
mod routes;
mod running;
mod serve;
mod shared;
mod socket_file;
mod threads;
mod wake_pipe;

use std::{
    io::{self, ErrorKind},
    sync::Arc,
    time::{Duration, Instant},
};

use self::{
    acceptor::Acceptors,
    adopt::{Adopter, Adopting},
    listener::Listener,
    shared::Shared,
    threads::Threads,
};
#[cfg(feature = "manage")]
pub(crate) use self::{
    beside::{Beside, MainServer},
    rehearsal::Rehearsal,
};
pub use self::{
    builder::ServerBuilder, exchange::Exchange, handle::ServerHandle, listener::ListenAddr,
    running::RunningServer,
};
#[cfg(feature = "cluster")]
use crate::cluster::{Candidate, Membership};
#[cfg(feature = "__tls")]
use crate::tls::TlsIdentity;
use crate::{
    caught::caught,
    connection::Registrar,
    deadline::Deadline,
    error::{ClosedBy, Result, ServerError},
    gateway::Gateways,
    hub::Hub,
    id::NodeId,
    message::CloseCode,
    session::InUse,
    sync::LockExt,
    thread::Belonging,
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
    /// Those that only redirect come last.
    listeners: Vec<Listener>,
    addresses: Vec<ListenAddr>,
    redirecting: Vec<ListenAddr>,
    shared: Arc<Shared>,
    adopting: Adopting,
    #[cfg(feature = "manage")]
    beside: Option<Box<Self>>,
    /// Its place in a cluster.
    #[cfg(feature = "cluster")]
    membership: Option<Box<Membership>>,
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

    /// Where clients are only [sent to https](ServerBuilder::redirect_to_https), with the ports that the system chose.
    pub fn redirect_addrs(&self) -> &[ListenAddr] {
        &self.redirecting
    }

    /// All connections: to find one by its ID, and to push to one or to many, from any thread.
    pub fn hub(&self) -> Hub {
        Hub::new(self.shared.registry.clone())
    }

    /// Whether TLS is spoken at this one of [`local_addrs`](Self::local_addrs), or of those where it is managed.
    pub fn is_tls(&self, address: &ListenAddr) -> bool {
        #[cfg(feature = "manage")]
        if self.beside.as_ref().is_some_and(|beside| beside.is_tls(address)) {
            return true;
        }
        let mut all = self.addresses.iter().zip(&self.listeners);
        all.any(|(other, listener)| other == address && listener.security.is_tls())
    }

    /// All that it has for TLS, and what the server beside it has, each once.
    #[cfg(feature = "__tls")]
    fn identities(&self) -> Vec<TlsIdentity> {
        #[cfg_attr(not(feature = "manage"), expect(unused_mut, reason = "there is no other server"))]
        let mut all = self.shared.certificates.locked().identities();
        #[cfg(feature = "manage")]
        for identity in self.beside.iter().flat_map(|beside| beside.identities()) {
            if !all.iter().any(|other| other.is_same(&identity)) {
                all.push(identity);
            }
        }
        all
    }

    /// The node that this server is: what [`ServerBuilder::node`] set, or a random one.
    pub fn node(&self) -> NodeId {
        self.shared.registry.node()
    }

    /// A handle to shut it down with, or to hand connections over to it, from any thread.
    pub fn handle(&self) -> ServerHandle {
        #[cfg(feature = "manage")]
        let beside = self.beside.as_ref().map(|beside| beside.shared.pulse.clone());
        #[cfg(not(feature = "manage"))]
        let beside = None;
        ServerHandle::new(self.shared.clone(), self.adopting.adopter.clone(), beside)
    }

    /// Serves until [`shutdown`](ServerHandle::shutdown), on threads that it starts: one for each listener, which accepts,
    /// and one for each connection. When it returns, all of them are joined and all sockets closed. A program with a loop of its
    /// own calls [`spawn`](Self::spawn) instead.
    ///
    /// # Errors
    /// [`ServerError::Io`] if the system refuses to start the first threads, if there is no memory for a single connection, or if no
    /// more clients can be
    /// accepted: then all open connections are closed with 1001 and have ten seconds to end.
    pub fn run(self) -> Result<(), ServerError> {
        #[cfg(feature = "manage")]
        let beside = Self::start_beside(self.beside)?;
        #[cfg(feature = "cluster")]
        let membership = self.membership;
        let Self { listeners, shared, adopting, .. } = self;
        if listeners.is_empty() {
            log::info!("no address to listen on: only connections that are handed over are served");
        }
        let _belonging = Belonging::to(shared.number());
        let registrar: Arc<dyn Registrar> = shared.registry.clone();
        let Shared { limits, clock, buffered, incidents, pulse, .. } = &*shared;
        let gateways = Gateways::start(limits, clock, &registrar, buffered, incidents, pulse)?;
        let threads = Threads::new(shared.clone(), gateways);
        let mut acceptors = Acceptors::new(shared.clone(), threads.clone());
        look_for_room(&shared)?;
        let started = acceptors.start(listeners);
        adopting.start(&threads);
        let running = shared.pulse.begin();
        let result = started.map_err(Into::into).and_then(|()| supervise(&shared, &acceptors, &threads));
        if let Err(e) = &result {
            log::error!("cannot accept any more: {e}");
            shared.shutdown(GRACE);
        }
        drop((acceptors, adopting));
        stop(&shared, &threads);
        #[cfg(feature = "cluster")]
        drop(membership);
        // This ends the gateways, too. All connections are over; what is left is to tell some of their handlers.
        drop((threads, running));
        #[cfg(feature = "manage")]
        beside::end_beside(beside);
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
    pub fn bind(
        #[cfg_attr(not(feature = "manage"), allow(unused_mut, reason = "nothing is taken out"))] mut self,
    ) -> Result<Server, ServerError> {
        #[cfg(feature = "manage")]
        let beside = self.beside.take();
        #[cfg(feature = "cluster")]
        let cluster = self.take_cluster()?;
        let (listeners, redirects, shared) = self.build()?;
        // Before anybody has a hub.
        #[cfg(feature = "cluster")]
        let candidate = cluster.map(|cluster| Candidate::new(&cluster, &shared.registry)).transpose()?;
        #[cfg(feature = "__tls")]
        shared.certificates.locked().tell_if_due();
        let mut addresses = listeners.iter().map(Listener::local_addr).collect::<Result<Vec<_>, _>>()?;
        let redirecting = addresses.split_off(addresses.len() - redirects);
        let adopting = Adopting { adopter: Arc::<Adopter>::default(), shared: shared.clone() };
        #[cfg(feature = "manage")]
        let beside = beside.map(|beside| beside.bind(MainServer::new(&shared))).transpose()?.map(Box::new);
        // When nothing else can fail: others would see it come, and go.
        #[cfg(feature = "cluster")]
        let membership = candidate
            .map(|candidate| Membership::begin(candidate, &shared.registry, &shared.limits))
            .transpose()?
            .map(Box::new);
        let server = Server {
            listeners,
            addresses,
            redirecting,
            shared,
            adopting,
            #[cfg(feature = "manage")]
            beside,
            #[cfg(feature = "cluster")]
            membership,
        };
        #[cfg(feature = "__tls")]
        server.shared.registry.set_identities(server.identities());
        Ok(server)
    }
}

/// Sees how many connections the box has room for, and says so.
///
/// # Errors
/// [`ServerError::Io`] if it has for none.
fn look_for_room(shared: &Shared) -> Result<(), ServerError> {
    let measured = shared.room.measure(&shared.limits, &shared.buffered);
    if let Some(why) = measured.refuses_all() {
        return Err(io::Error::new(ErrorKind::OutOfMemory, why).into());
    }
    // One beside another server has a small part of what that says.
    let is_beside = shared.routes.all.is_some();
    if !is_beside {
        measured.misfits(&shared.limits).for_each(|what| log::warn!("{what}"));
    }
    log::log!(if is_beside { log::Level::Debug } else { log::Level::Info }, "{measured}");
    Ok(())
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
        #[cfg(feature = "__tls")]
        let left = shared.certificates.locked().tell_if_due().map_or(left, |due| left.min(due));
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
    // One beside another server ends with that.
    let level = if shared.routes.all.is_some() { log::Level::Debug } else { log::Level::Info };
    log::log!(level, "shutting down: {} connections", open.len());
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
    // Handlers may wait for connections of other nodes, which go on.
    #[cfg(feature = "cluster")]
    if let Some(elsewhere) = shared.registry.elsewhere() {
        elsewhere.end_links();
    }
}

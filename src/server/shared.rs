//! What all threads of a server know: its settings, its registry, its places for connections, and whether it shuts down.
//! It waits for nothing and starts nothing.

#[cfg(feature = "manage")]
use std::sync::OnceLock;
use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

#[cfg(feature = "__tls")]
use super::certificates::Certificates;
use super::{
    addresses::{Address, Addresses},
    idle::Idle,
    routes::Routes,
    wake_pipe::WakePipe,
};
use crate::{
    buffered::Buffered,
    clock::Clock,
    compression::Compression,
    connection::Socket,
    error::ServerError,
    history::Rules,
    http::{CommonHeaders, Hosts, Origins, Proxies, Refusal, Request, Response},
    id::NodeId,
    incidents::{Incident, Incidents},
    limits::Limits,
    metrics::Metrics,
    observer::Observers,
    pulse::Pulse,
    registry::Registry,
    room::{Costs, Room},
    session::{SessionSettings, Sessions},
    sync::LockExt,
};

/// How a refusal is written that no handler sees; `None`: nobody knows which request it answers.
pub(super) type Writing = fn(Refusal, Option<&Request>) -> Response;

/// What the builder collects.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) routes: Routes,
    pub(super) limits: Limits,
    pub(super) origins: Origins,
    pub(super) headers: CommonHeaders,
    pub(super) hosts: Hosts,
    pub(super) compression: Compression,
    pub(super) trusted_proxies: Proxies,
    /// Whose connections begin with the PROXY protocol.
    pub(super) proxy_protocol: Proxies,
    /// `None`: as a line of text.
    pub(super) writing: Option<Writing>,
    pub(super) observers: Observers,
    /// `None`: nobody can ask.
    pub(super) metrics: Option<Arc<Metrics>>,
    /// What topics remember.
    pub(super) histories: Rules,
    pub(super) sessions: SessionSettings,
    /// WebSockets have no session unless they ask for one.
    pub(super) without_session: bool,
    /// The servers that it works together with.
    #[cfg(feature = "cluster")]
    pub(super) cluster: Option<crate::cluster::Cluster>,
    /// `None`: random.
    pub(super) node: Option<NodeId>,
    #[cfg(feature = "__tls")]
    pub(super) certificates: Certificates,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) routes: Routes,
    pub(super) limits: Arc<Limits>,
    pub(super) origins: Origins,
    /// Of all responses.
    pub(super) headers: CommonHeaders,
    pub(super) hosts: Hosts,
    pub(super) compression: Compression,
    pub(super) trusted_proxies: Proxies,
    pub(super) proxy_protocol: Proxies,
    writing: Option<Writing>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) use_session: bool,
    pub(super) registry: Arc<Registry>,
    pub(super) clock: Arc<Clock>,
    pub(super) buffered: Arc<Buffered>,
    /// What the box has room for.
    pub(super) room: Room,
    /// Tells whether there is a thread for one more connection, as soon as there are threads.
    #[cfg(feature = "manage")]
    has_thread: OnceLock<Asked>,
    /// What clients bring about, for the thread that called `run` to sum up.
    pub(super) incidents: Arc<Incidents>,
    /// The sockets of connections in their handshake, by which a shutdown finds them.
    pub(super) handshaking: Mutex<HashMap<usize, Arc<Socket>>>,
    /// Connections between two HTTP requests.
    pub(super) idle: Idle<Slot>,
    /// Wakes the thread that called `run`.
    pub(super) supervisor: Arc<WakePipe>,
    /// The threads that have to go on.
    pub(super) pulse: Arc<Pulse>,
    /// For the same thread.
    #[cfg(feature = "__tls")]
    pub(super) certificates: Mutex<Certificates>,
    /// Connections, those in their handshake included.
    count: AtomicUsize,
    /// The same of each client's address.
    addresses: Addresses,
    stopping: AtomicBool,
    /// When the grace period ends.
    stop_by: Mutex<Option<Instant>>,
}

impl Shared {
    pub(super) fn new(settings: Settings) -> Result<Self, ServerError> {
        let limits = Arc::new(settings.limits);
        #[cfg(feature = "__tls")]
        let tls = !settings.certificates.is_empty();
        #[cfg(not(feature = "__tls"))]
        let tls = false;
        let room = Room::new(Costs {
            stack: limits.stack_size,
            tls,
            dedicated: matches!(settings.compression, Compression::Dedicated { .. }),
            beside: settings.routes.all.is_some(),
        });
        let supervisor = Arc::new(WakePipe::new()?);
        // Handles of connections may outlive the server, and keep no descriptor of it.
        let weak = Arc::downgrade(&supervisor);
        let wake = move || weak.upgrade().iter().for_each(|supervisor| supervisor.wake());
        let node = settings.node.unwrap_or_else(NodeId::random);
        let buffered = Arc::new(Buffered::new(limits.buffered_bytes()));
        let Settings { observers, histories, metrics, .. } = settings;
        let registry = Registry::new(node, limits.clone(), buffered.clone(), observers, histories)?;
        let registry = Arc::new(registry.with_metrics(metrics));
        let sessions = Arc::new(Sessions::new(settings.sessions, &limits, registry.clone())?);
        Ok(Self {
            routes: settings.routes,
            registry,
            buffered,
            room,
            #[cfg(feature = "manage")]
            has_thread: OnceLock::new(),
            addresses: Addresses::new(limits.max_connections_per_address),
            idle: Idle::new(limits.max_http_idle),
            limits,
            origins: settings.origins,
            headers: settings.headers,
            hosts: settings.hosts,
            compression: settings.compression,
            trusted_proxies: settings.trusted_proxies,
            proxy_protocol: settings.proxy_protocol,
            writing: settings.writing,
            sessions,
            use_session: !settings.without_session,
            clock: Arc::new(Clock::start()),
            incidents: Arc::new(Incidents::new(wake)),
            handshaking: Mutex::default(),
            supervisor,
            pulse: Arc::default(),
            #[cfg(feature = "__tls")]
            certificates: Mutex::new(settings.certificates),
            count: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            stop_by: Mutex::new(None),
        })
    }

    /// A number that no other server has as long as this one is there.
    pub(super) fn number(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self).addr()
    }

    /// A place for one more connection, of a client at this address, if there is one, or if there is a connection that can give
    /// up its own.
    pub(super) fn take_slot(self: &Arc<Self>, peer: Option<IpAddr>) -> Result<Slot, NoSlot> {
        // First of all: who has too many takes no place of another one.
        let address = self.counted(peer);
        if !self.count_at(address) {
            return Err(NoSlot::OfAddress);
        }
        let most = self.max_connections();
        let free = |count| (count < most).then_some(count + 1);
        while self.count.fetch_update(SeqCst, SeqCst, free).is_err() {
            if self.idle.give_up_oldest().is_none() {
                address.into_iter().for_each(|address| self.addresses.remove(address));
                return Err(NoSlot::OfAll);
            }
        }
        Ok(Slot { shared: self.clone(), address })
    }

    /// Where a client's connection counts, if that is limited. A proxy itself, which says who its client is, is not counted.
    fn counted(&self, client: Option<IpAddr>) -> Option<Address> {
        if !self.addresses.count() {
            return None;
        }
        let is_proxy = |ip: &IpAddr| self.trusted_proxies.contains(ip) || self.proxy_protocol.contains(ip);
        client.filter(|ip| !is_proxy(ip)).map(Address::from)
    }

    /// Whether a connection from there begins with the PROXY protocol. `None`: from a Unix socket.
    pub(super) fn expects_proxy_header(&self, peer: Option<SocketAddr>) -> bool {
        match peer {
            _ if self.proxy_protocol.is_empty() => false,
            Some(peer) => self.proxy_protocol.contains(&peer.ip()),
            None => self.proxy_protocol.is_any_on_unix(),
        }
    }

    /// One more connection of this address, if need be in place of one that waits for its next request.
    fn count_at(&self, address: Option<Address>) -> bool {
        let Some(address) = address else { return true };
        while !self.addresses.add(address) {
            if self.idle.give_up(|slot| slot.address == Some(address)).is_none() {
                return false;
            }
        }
        true
    }

    /// What a client is answered that is refused.
    pub(super) fn response_to(&self, refusal: Refusal, request: Option<&Request>) -> Response {
        match self.writing {
            Some(write) => write(refusal, request),
            None => refusal.into(),
        }
    }

    /// Counts one who is turned away.
    pub(super) fn note_no_slot(&self, why: NoSlot, who: impl fmt::Display) {
        let (incident, words) = match why {
            NoSlot::OfAll => (Incident::NoPlace, "too many connections"),
            NoSlot::OfAddress => (Incident::NoPlaceForAddress, "too many connections"),
            NoSlot::NoRoom => (Incident::NoRoom, "no memory or thread is left"),
        };
        self.incidents.note(incident, format_args!("{who}: {words}"));
    }

    /// How many places there are.
    pub(super) fn max_connections(&self) -> usize {
        self.limits.max_connections.min(self.room.connections())
    }

    /// Whether there is memory for one more connection, which has its place already. If not, one that waits for its next request has
    /// to end.
    pub(super) fn has_room(&self) -> bool {
        let has_room = self.room.admits(self.connections(), &self.buffered);
        if !has_room {
            self.idle.give_up_oldest();
        }
        has_room
    }

    /// The same as a question, which changes nothing.
    #[cfg(feature = "manage")]
    pub(super) fn has_memory(&self) -> bool {
        self.room.would_admit(self.connections() + 1, &self.buffered)
    }

    /// From now on this tells whether there is a thread for one more connection.
    #[cfg(feature = "manage")]
    pub(super) fn ask_for_thread(&self, ask: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.has_thread.set(Asked(Box::new(ask)));
    }

    /// Whether there is a thread for one more connection, or can be one.
    #[cfg(feature = "manage")]
    pub(super) fn has_thread(&self) -> bool {
        self.has_thread.get().is_none_or(|Asked(ask)| ask())
    }

    /// How many places are taken.
    pub(super) fn connections(&self) -> usize {
        self.count.load(SeqCst)
    }

    /// Begins the shutdown, or shortens its grace period.
    pub(super) fn shutdown(&self, grace: Duration) {
        let stop_by = Instant::now().checked_add(grace);
        let mut current = self.stop_by.locked();
        *current = match (*current, stop_by) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        drop(current);
        self.stopping.store(true, SeqCst);
        self.supervisor.wake();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    /// What is left of the grace period. `None`: it has no end.
    pub(super) fn grace_left(&self) -> Option<Duration> {
        self.stop_by.locked().map(|by| by.saturating_duration_since(Instant::now()))
    }
}

/// A question to what is above.
#[cfg(feature = "manage")]
struct Asked(Box<dyn Fn() -> bool + Send + Sync>);

#[cfg(feature = "manage")]
impl fmt::Debug for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Asked(…)")
    }
}

/// Which limit leaves no place for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoSlot {
    /// `max_connections`.
    OfAll,
    /// `max_connections_per_address`.
    OfAddress,
    /// What the box has of memory or threads.
    NoRoom,
}

/// One of `max_connections` places; dropping it frees it.
#[derive(Debug)]
pub(super) struct Slot {
    shared: Arc<Shared>,
    /// Where it counts, if that is limited.
    address: Option<Address>,
}

impl Slot {
    /// Counts the connection for this client from now on, and no longer for another one: a request may tell whom a proxy has
    /// connected. False: this client has as many as it may have.
    pub(super) fn count_for(&mut self, client: Option<IpAddr>) -> bool {
        let address = self.shared.counted(client);
        if self.address == address {
            return true;
        }
        if let Some(before) = self.address.take() {
            self.shared.addresses.remove(before);
        }
        let has_room = self.shared.count_at(address);
        self.address = address.filter(|_| has_room);
        has_room
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(address) = self.address {
            self.shared.addresses.remove(address);
        }
        self.shared.count.fetch_sub(1, SeqCst);
        if self.shared.is_stopping() {
            self.shared.supervisor.wake();
        }
    }
}

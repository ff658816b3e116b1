//! What all threads of a server know: its settings, its registry, its places for connections, and whether it shuts down.
//! It waits for nothing and starts nothing.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use super::{routes::Routes, wake_pipe::WakePipe};
use crate::{
    buffered::Buffered,
    clock::Clock,
    compression::Compression,
    connection::Socket,
    http::{CommonHeaders, Origins},
    id::NodeId,
    limits::Limits,
    observer::Observers,
    registry::Registry,
    session::SessionStore,
    sync::LockExt,
};

/// What the builder collects.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) routes: Routes,
    pub(super) limits: Limits,
    pub(super) origins: Origins,
    pub(super) headers: CommonHeaders,
    pub(super) compression: Compression,
    pub(super) trusted_proxies: Vec<IpAddr>,
    pub(super) observers: Observers,
    /// `None`: random.
    pub(super) node: Option<NodeId>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) routes: Routes,
    pub(super) limits: Arc<Limits>,
    pub(super) origins: Origins,
    /// Of all responses.
    pub(super) headers: CommonHeaders,
    pub(super) compression: Compression,
    pub(super) trusted_proxies: Vec<IpAddr>,
    pub(super) sessions: Arc<dyn SessionStore>,
    pub(super) registry: Arc<Registry>,
    pub(super) clock: Arc<Clock>,
    pub(super) buffered: Arc<Buffered>,
    /// The sockets of connections in their handshake, by which a shutdown finds them.
    pub(super) handshaking: Mutex<HashMap<usize, Arc<Socket>>>,
    /// Wakes the thread that called `run`.
    pub(super) supervisor: WakePipe,
    /// Connections, those in their handshake included.
    count: AtomicUsize,
    stopping: AtomicBool,
    /// When the grace period ends.
    stop_by: Mutex<Option<Instant>>,
}

impl Shared {
    pub(super) fn new(settings: Settings, sessions: Arc<dyn SessionStore>) -> io::Result<Self> {
        let limits = Arc::new(settings.limits);
        let node = settings.node.unwrap_or_else(NodeId::random);
        let buffered = Arc::new(Buffered::new(limits.buffered_bytes()));
        Ok(Self {
            routes: settings.routes,
            registry: Arc::new(Registry::new(node, limits.clone(), buffered.clone(), settings.observers)),
            buffered,
            limits,
            origins: settings.origins,
            headers: settings.headers,
            compression: settings.compression,
            trusted_proxies: settings.trusted_proxies,
            sessions,
            clock: Arc::new(Clock::start()),
            handshaking: Mutex::default(),
            supervisor: WakePipe::new()?,
            count: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
            stop_by: Mutex::new(None),
        })
    }

    /// A place for one more connection, if there is one.
    pub(super) fn take_slot(self: &Arc<Self>) -> Option<Slot> {
        let free = |count| (count < self.limits.max_connections).then_some(count + 1);
        self.count.fetch_update(SeqCst, SeqCst, free).ok().map(|_| Slot(self.clone()))
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

/// One of `max_connections` places; dropping it frees it.
#[derive(Debug)]
pub(super) struct Slot(Arc<Shared>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, SeqCst);
        if self.0.is_stopping() {
            self.0.supervisor.wake();
        }
    }
}

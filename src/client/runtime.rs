//! What all clients of the process share: a gateway, which answers pings, sends what was pushed and keeps the times while nobody
//! reads. It starts with the first client, and ends with the last one.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, OnceLock, Weak},
};

use crate::{
    buffered::Buffered,
    clock::Clock,
    codec::{Role, Stream},
    connection::{About, Connection, Context, Registrar, Socket, Turns},
    gateway::LoneGateway,
    incidents::Incidents,
    limits::Limits,
    shown::Shown,
    sync::LockExt,
};

/// The one that there is, if there is a client.
static RUNNING: Mutex<Option<Running>> = Mutex::new(None);

/// Found out once, since that asks the system for much.
static BUFFERED_BYTES: OnceLock<usize> = OnceLock::new();

struct Running {
    gateway: LoneGateway,
    clients: Arc<Clients>,
}

/// All clients that are not over.
#[derive(Debug, Default)]
struct Clients(Mutex<HashMap<usize, Weak<Connection>>>);

/// Makes the connection of a client, and lets the gateway know of it.
pub(super) fn connection(
    about: Box<About>,
    socket: Arc<Socket>,
    stream: Stream,
    limits: Arc<Limits>,
) -> io::Result<Arc<Connection>> {
    let mut running = RUNNING.locked();
    let Running { gateway, clients } = match &mut *running {
        Some(running) => running,
        none => none.insert(start()?),
    };
    let context = gateway.context();
    if let Some(max_bytes) = limits.max_buffered_bytes {
        context.buffered.lower_bound_to(max_bytes);
    }
    let context = Arc::new(context.with_limits(limits));
    let mut about = about;
    about.opened = context.clock.exact();
    let connection = Connection::new(Role::Client, about, socket, stream, context);
    clients.0.locked().insert(key(&connection), Arc::downgrade(&connection));
    drop(running);
    connection.attach();
    Ok(connection)
}

fn start() -> io::Result<Running> {
    let clients = Arc::<Clients>::default();
    let limits = Arc::new(Limits::default());
    let registrar = clients.clone();
    let gateway = LoneGateway::start(|post| Context {
        tick: limits.tick(),
        clock: Arc::new(Clock::start()),
        post,
        registrar,
        buffered: Arc::new(Buffered::new(*BUFFERED_BYTES.get_or_init(|| limits.buffered_bytes()))),
        turns: Arc::new(Turns::new()),
        incidents: Arc::new(Incidents::new(|| {})), // nobody sums up: there are no strangers
        limits,
    })?;
    Ok(Running { gateway, clients })
}

fn key(connection: &Arc<Connection>) -> usize {
    Arc::as_ptr(connection).addr()
}

impl Registrar for Clients {
    fn unregister(&self, connection: &Arc<Connection>) {
        log::debug!("{}: closed: {}", connection.id().short(), Shown(connection.closed_reason()));
        let mut running = RUNNING.locked();
        let mut clients = self.0.locked();
        clients.remove(&key(connection));
        let is_last = clients.is_empty();
        drop(clients);
        // If there are others, they have a gateway of their own.
        let ended = running.take_if(|running| is_last && std::ptr::eq(&*running.clients, self));
        drop(running);
        drop(ended);
    }

    fn all(&self) -> Vec<Arc<Connection>> {
        self.0.locked().values().filter_map(Weak::upgrade).collect()
    }
}

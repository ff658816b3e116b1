//! One connection on its thread: its HTTP requests, its opening handshake, and all that follows until `on_post_server`.

#![expect(
    clippy::boxed_local,
    reason = "what the steps of a handshake hand on would take stack; see `serve`"
)]

#[cfg(feature = "__tls")]
use std::fmt::Display;
use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use http::{StatusCode, header};

use super::{
    incoming::{Client, Incoming, Received},
    listener::Security,
    proxied::read_proxy_header,
    requests::{read_requests, turn_away},
    routes::Target,
    shared::{Shared, Slot},
};
#[cfg(feature = "__tls")]
use crate::tls::TlsIdentity;
use crate::{
    caught::caught,
    codec::{Deflate, Role, Stream},
    connection::{About, Connection, Context, Extras, Handler, PushError, PushErrorKind, Socket},
    deadline::Deadline,
    error::{CloseReason, ClosedBy, Error},
    http::{FAILED, Handshake, Refusal, Request},
    info::ConnectionInfo,
    interned::Name,
    message::CloseCode,
    opening::Opening,
    parked::Parked,
    registry::Registry,
    shown::{Shown, ShownPath},
    sync::LockExt,
    websocket::{Attached, Closed, Holder, ServerResult, WebSocket, WebSocketServer},
};

/// So many bytes of what a client says that it is are kept.
const MAX_USER_AGENT: usize = 256;

/// An accepted socket, and its place among `max_connections`.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) socket: Socket,
    pub(super) peer: Option<SocketAddr>,
    pub(super) security: Security,
    /// That of the listener.
    pub(super) tag: u8,
    pub(super) slot: Slot,
    /// What another server has already received.
    pub(super) received: Option<Box<Received>>,
}

/// Serves one socket until its end.
///
/// What a thread once touched of its stack stays resident as long as it lives. So the handshake is a call of its own, and
/// so is each step of it: none of them is deep, none is inlined, and what they hand on is on the heap.
pub(super) fn serve(shared: &Arc<Shared>, context: &Arc<Context>, job: Box<Job>) {
    if let Some(connected) = open(shared, context, job) {
        run(shared, connected);
    }
}

/// All of HTTP, with the opening handshake as its end; only a WebSocket goes on.
#[inline(never)]
fn open(shared: &Arc<Shared>, context: &Arc<Context>, job: Box<Job>) -> Option<Box<Connected>> {
    let (mut incoming, slot) = begin(shared, job)?;
    let _handshaking = Handshaking::new(shared, &incoming.socket); // until a shutdown finds it in the registry
    let slot = match shared.expects_proxy_header(incoming.peer) {
        true => read_proxy_header(shared, &mut incoming, slot)?,
        false => slot,
    };
    let (request, slot) = read_requests(shared, &mut incoming, slot)?;
    match accept(shared, incoming.tag, &request) {
        Ok((handshake, agreed)) => Some(connect(shared, context, incoming, &handshake, agreed, slot)),
        Err(refusal) => {
            turn_away(shared, &mut incoming, slot, Some(&request), refusal);
            None
        }
    }
}

#[inline(never)]
fn begin(shared: &Shared, job: Box<Job>) -> Option<(Box<Incoming>, Slot)> {
    let Job { socket, peer, security, tag, slot, received } = *job;
    let stream = match &security {
        Security::None | Security::Redirect(_) => Stream::plain(),
        #[cfg(feature = "__tls")]
        Security::Tls(identity) => tls(shared, identity)?,
    };
    let deadline = Deadline::after(shared.limits.handshake_timeout);
    let mut incoming = Incoming::new(socket, stream, peer, security.is_tls(), tag, deadline);
    incoming.https_port = security.redirect();
    incoming.begun = shared.registry.metrics().map(|_| Instant::now());
    if let Some(received) = received {
        incoming.begin_with(*received);
    }
    Some((incoming, slot))
}

#[cfg(feature = "__tls")]
fn tls(shared: &Shared, identity: &TlsIdentity) -> Option<Stream> {
    let identity = identity.current();
    let failed = |text: &dyn Display| shared.incidents.failed(format_args!("{}", Shown(text)));
    let acceptor = identity.acceptor().map_err(|e| failed(&e)).ok()?;
    Stream::tls(acceptor).map_err(|failure| failed(&failure.text)).ok()
}

/// The entry of a socket in its handshake, by which a shutdown finds it.
struct Handshaking<'a> {
    shared: &'a Shared,
    key: usize,
}

impl<'a> Handshaking<'a> {
    fn new(shared: &'a Shared, socket: &Arc<Socket>) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let key = NEXT.fetch_add(1, Relaxed);
        shared.handshaking.locked().insert(key, socket.clone());
        if shared.is_stopping() {
            socket.shutdown_read();
        }
        Self { shared, key }
    }
}

impl Drop for Handshaking<'_> {
    fn drop(&mut self) {
        self.shared.handshaking.locked().remove(&self.key);
    }
}

/// An application that has said yes to a handshake.
struct Agreed {
    app: Box<dyn WebSocketServer>,
    opening: Opening,
}

/// The checks of the opening handshake, ours and the application's.
#[inline(never)]
fn accept(shared: &Shared, tag: u8, request: &Arc<Request>) -> Result<(Handshake, Box<Agreed>), Refusal> {
    let target = shared.routes.find_websocket(request.path())?;
    let mut handshake = Handshake::check(request, &shared.origins)?;
    let offered = std::mem::take(&mut handshake.subprotocols);
    Ok((handshake, ask(shared, tag, request, target, offered)?))
}

/// Asks the application, which learns the ID of the connection; the connection is known by that from here on.
#[inline(never)]
fn ask(
    shared: &Shared,
    tag: u8,
    request: &Arc<Request>,
    target: &Target,
    offered: Vec<String>,
) -> Result<Box<Agreed>, Refusal> {
    let announced = shared.registry.announce();
    let id = *announced.id();
    let panicked = |what| {
        let path = ShownPath(request.path());
        shared.incidents.failed(format_args!("{}: {what} of {path} panicked", id.short()));
    };
    let failed = |what| {
        panicked(what);
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, FAILED)
    };
    let app = caught(|| (target.factory)()).ok_or_else(|| failed("the factory"))?;
    let (sessions, use_session) = (shared.sessions.clone(), shared.use_session);
    let opening = Opening::new(
        announced,
        target.route.clone(),
        request.clone(),
        sessions,
        use_session,
        offered,
        shared.compression,
    );
    let mut agreed = Box::new(Agreed { app, opening });
    agreed.opening.listener_tag = tag;
    let answer = caught(|| agreed.app.on_pre_server(&mut agreed.opening));
    let mut refusal = match (answer, agreed.opening.fault.take()) {
        (Some(Ok(())), None) => match caught(|| agreed.opening.settle()) {
            Some(Ok(())) => return Ok(agreed),
            Some(Err(error)) => end_unopened(shared, &mut agreed, error.into()),
            None => end_unopened(shared, &mut agreed, failed("the session store")),
        },
        (Some(Ok(())), Some(fault)) => end_unopened(shared, &mut agreed, Refusal::internal(fault)),
        (Some(Err(refusal)), _) => refusal,
        (None, _) => failed("on_pre_server"),
    };
    if let Some(fault) = refusal.fault() {
        let path = ShownPath(request.path());
        let text = Shown(fault);
        shared.incidents.failed(format_args!("{}: on_pre_server of {path} failed: {text}", id.short()));
    }
    // What the application has stored in the session is not lost, nor is the session itself, if it has a new ID.
    if let Some((name, value)) = agreed.opening.take_cookie() {
        refusal.headers_mut().append(name, value);
    }
    if caught(|| drop(agreed)).is_none() {
        panicked("the drop of the application");
    }
    Err(refusal)
}

/// The application has said yes, but there is no session for it, or no valid header: it learns that the connection is over.
#[cold]
#[inline(never)]
fn end_unopened(shared: &Shared, agreed: &mut Agreed, refusal: Refusal) -> Refusal {
    let reason = CloseReason::new(CloseCode::ABNORMAL, "the handshake failed", ClosedBy::Server);
    let closed = Closed::unopened(&agreed.opening, reason);
    if caught(|| agreed.app.on_post_server(&closed)).is_none() {
        let id = agreed.opening.announced.id().short();
        shared.incidents.failed(format_args!("{id}: on_post_server panicked"));
    }
    refusal
}

/// Makes the connection, with the 101 as the first thing that it sends: so it is known as open before the client knows that it
/// is connected.
#[inline(never)]
fn connect(
    shared: &Arc<Shared>,
    context: &Arc<Context>,
    mut incoming: Box<Incoming>,
    handshake: &Handshake,
    agreed: Box<Agreed>,
    slot: Slot,
) -> Box<Connected> {
    let Agreed { app, mut opening } = *agreed;
    let deflate = respond_yes(shared, handshake, &opening, incoming.stream.output());
    let session = opening.take_session();
    let about = Box::new(About {
        id: *opening.announced.id(),
        session_id: session.as_ref().and_then(|session| session.id().ok()),
        path: shared.registry.path(opening.request.path()),
        peer: opening.request.peer(),
        route: opening.route.take(),
        user_agent: user_agent(&shared.registry, &opening.request),
        extras: extras(&opening),
        opened: shared.clock.exact(),
        shared: opening.shared,
        overflow: opening.overflow,
        deflate,
    });
    let connection = Connection::new(Role::Server, about, incoming.socket, incoming.stream, context.clone());
    connection.binary_data.store(opening.binary_data, Relaxed);
    connection.session_end_on_close.store(opening.session_end_on_close, Relaxed);
    let attached = Box::new(Attached { request: opening.request, session });
    shared.registry.register(opening.announced, &connection);
    if let (Some(metrics), Some(begun)) = (shared.registry.metrics(), incoming.begun) {
        metrics.shook_hands(begun.elapsed());
    }
    Box::new(Connected { connection, app, attached, slot })
}

/// What the client says that it is; only so much of it as others may want to see.
#[inline(never)]
fn user_agent(registry: &Registry, request: &Request) -> Option<Name> {
    let name = request.headers().get(header::USER_AGENT)?.as_bytes();
    let name = &name[..name.len().min(MAX_USER_AGENT)];
    // Nearly all are ASCII, which this sees much faster than what mends the others.
    Some(match str::from_utf8(name) {
        Ok(name) => registry.user_agent(name),
        Err(_) => registry.user_agent(&mended(name)),
    })
}

/// What is UTF-8 of it, and something in place of what is not.
#[cold]
fn mended(name: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(name).into_owned();
    let mut end = text.len().min(MAX_USER_AGENT); // it may have become longer
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

/// What only few connections have.
#[inline(never)]
fn extras(opening: &Opening) -> Option<Box<Extras>> {
    let extras = Extras {
        forwarded: forwarded(&opening.request),
        subprotocol: opening.subprotocol.as_deref().map(Into::into),
        user: opening.announced.user().cloned(),
        tags: opening.tags.clone(),
    };
    extras.boxed()
}

/// The client's address, if a proxy has told it.
fn forwarded(request: &Request) -> Option<IpAddr> {
    let peer = request.peer().map(|peer| peer.ip().to_canonical());
    request.client_address().filter(|client| Some(*client) != peer)
}

/// The 101, with what is agreed.
#[inline(never)]
fn respond_yes(
    shared: &Shared,
    handshake: &Handshake,
    opening: &Opening,
    output: &mut Vec<u8>,
) -> Option<Deflate> {
    let offers = opening.request.headers().get_all(header::SEC_WEBSOCKET_EXTENSIONS);
    let (deflate, extensions) = opening.compression.negotiate(offers).unzip();
    let (subprotocol, added) = (opening.subprotocol.as_deref(), &opening.headers);
    handshake.respond(subprotocol, extensions.as_deref(), added, &shared.headers, output);
    deflate
}

/// An open connection, and who serves it.
struct Connected {
    connection: Arc<Connection>,
    app: Box<dyn WebSocketServer>,
    attached: Box<Attached>,
    slot: Slot,
}

/// Runs the application, and everything that its end needs, whatever its end was.
#[inline(never)]
fn run(shared: &Arc<Shared>, connected: Box<Connected>) {
    let Connected { connection, mut app, attached, slot } = *connected;
    let mut ws = WebSocket::new(connection.clone(), shared.registry.clone(), Holder::Server(attached));
    if caught(|| serve_app(shared, &connection, &mut *app, &mut ws)).is_none() {
        shared.incidents.failed(format_args!("{}: the handler panicked", connection.id().short()));
        connection.close(CloseCode::INTERNAL_ERROR, FAILED);
    }
    drop(ws);
    let parked = Parked::new(app, shared.registry.clone(), shared.sessions.clone(), slot);
    if connection.about().shared {
        connection.park(Box::new(parked));
    } else {
        connection.conclude();
        parked.end(&connection);
    }
}

/// All that may panic: the application, and its error's `Display` and `drop`.
fn serve_app(
    shared: &Shared,
    connection: &Arc<Connection>,
    app: &mut dyn WebSocketServer,
    ws: &mut WebSocket,
) {
    log::debug!(
        "{}: open: {} from {}",
        connection.id().short(),
        ShownPath(&connection.about().path),
        Client(connection.about().peer, connection.about().client())
    );
    let sent = connection.flush_all();
    if shared.is_stopping() {
        connection.close(CloseCode::GOING_AWAY, "the server shuts down");
    }
    connection.attach();
    match sent {
        Ok(()) => end(shared, connection, app.server(ws)),
        Err(e) => log::debug!("{}: ended during the handshake: {}", connection.id().short(), Shown(e)),
    }
}

/// What the handler's result means for the connection. A handler that ended because the client left did not fail.
fn end(shared: &Shared, connection: &Arc<Connection>, result: ServerResult) {
    match result {
        Ok(()) => hint(connection),
        Err(error) if is_end(&*error, connection) => {}
        Err(error) => {
            connection.close(CloseCode::INTERNAL_ERROR, FAILED);
            let id = connection.id().short();
            shared.incidents.failed(format_args!("{id}: the handler failed: {}", Shown(error)));
        }
    }
}

/// Who reads nothing, and returns, may have meant the connection to be shared.
#[inline(never)]
fn hint(connection: &Arc<Connection>) {
    if !connection.about().shared
        && connection.reason().is_none()
        && log::log_enabled!(log::Level::Debug)
        && ConnectionInfo::new(connection).messages_in == 0
    {
        let id = connection.id().short();
        log::debug!(
            "{id}: server has returned without a message, and the connection ends: one that is to stay needs \
             set_shared_connection"
        );
    }
}

/// Whether this is how a handler learns that its connection has ended. A push may as well have been to another one.
fn is_end(error: &(dyn std::error::Error + 'static), connection: &Arc<Connection>) -> bool {
    let of_push = |error: &PushError| matches!(error.kind, PushErrorKind::Closed(_) | PushErrorKind::Unknown);
    error.downcast_ref().is_some_and(Error::is_closed)
        || error.downcast_ref().is_some_and(of_push) && connection.is_unsendable()
}

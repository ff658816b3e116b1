//! One connection on its thread: its HTTP requests, and from the opening handshake to `on_post_server`.

#![expect(
    clippy::boxed_local,
    reason = "what the steps of a handshake hand on would take stack; see `serve`"
)]

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use http::{StatusCode, header};

use super::{
    body::{Declared, RequestBody},
    exchange::Exchange,
    incoming::{Incoming, NoRequest, Received},
    listener::Security,
    rejected,
    routes::Target,
    shared::{NoSlot, Shared, Slot},
};
use crate::{
    caught::caught,
    codec::{Deflate, Stream},
    connection::{About, Connection, Context, Extras, Handler, Socket},
    deadline::Deadline,
    error::{CloseReason, ClosedBy, Error},
    http::{FAILED, Handshake, Refusal, Request, Response, check_page_origin, is_upgrade},
    incidents::Incident,
    interned::Name,
    message::CloseCode,
    opening::Opening,
    parked::Parked,
    registry::Registry,
    shown::{Sentence, Shown},
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
    let (request, slot) = read_requests(shared, &mut incoming, slot)?;
    match accept(shared, &request) {
        Ok((handshake, agreed)) => Some(connect(shared, context, incoming, &handshake, agreed, slot)),
        Err(refusal) => {
            note_refusal(shared, incoming.peer, Some(&request), &refusal);
            refuse(shared, &mut incoming, refusal, Some(&request));
            None
        }
    }
}

#[inline(never)]
fn begin(shared: &Shared, job: Box<Job>) -> Option<(Box<Incoming>, Slot)> {
    let Job { socket, peer, security, slot, received } = *job;
    let stream = match &security {
        Security::None => Stream::plain(),
        #[cfg(feature = "tls")]
        Security::Tls(identity) => match Stream::tls(identity.acceptor()) {
            Ok(stream) => stream,
            Err(failure) => {
                shared.incidents.failed(format_args!("{}", Shown(failure.text)));
                return None;
            }
        },
    };
    let deadline = Deadline::after(shared.limits.handshake_timeout);
    let is_secure = !matches!(security, Security::None);
    let mut incoming = Incoming::new(socket, stream, peer, is_secure, deadline);
    if let Some(received) = received {
        incoming.begin_with(*received);
    }
    Some((incoming, slot))
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

/// Answers requests until one asks for a WebSocket. `None`: none does, and the connection has ended.
#[inline(never)]
fn read_requests(shared: &Shared, incoming: &mut Incoming, slot: Slot) -> Option<(Arc<Request>, Slot)> {
    let (mut slot, mut is_first) = (slot, true);
    loop {
        match read_request(shared, incoming, &mut slot, is_first)? {
            Asked::WebSocket(request) => return Some((request, slot)),
            Asked::Page => slot = wait_for_next(shared, incoming, slot)?,
        }
        is_first = false;
    }
}

/// What the last request was for.
enum Asked {
    WebSocket(Arc<Request>),
    /// It has been answered, and another one may follow.
    Page,
}

/// Reads a request, and answers it unless it asks for a WebSocket. `None`: no other can follow.
#[inline(never)]
fn read_request(shared: &Shared, incoming: &mut Incoming, slot: &mut Slot, is_first: bool) -> Option<Asked> {
    let peer = incoming.peer;
    let head = incoming.read_head(&shared.limits);
    if shared.is_stopping() {
        refuse(shared, incoming, rejected::shutting_down(), None);
        return None;
    }
    let mut request = match head {
        Ok(request) => request,
        Err(NoRequest::Gone(why)) => {
            let text = format_args!("{}: no request: {}", Peer(peer), Shown(why));
            // Whoever has been answered owes no other request.
            if is_first {
                shared.incidents.note(Incident::NoRequest, text)
            } else {
                log::debug!("{text}")
            }
            return None;
        }
        Err(NoRequest::Refused(refusal)) => {
            note_refusal(shared, peer, None, &refusal);
            refuse(shared, incoming, refusal, None);
            return None;
        }
    };
    request.set_peer(peer, incoming.is_secure, &shared.trusted_proxies);
    // Through a socket pair of the program's own only the client's address tells in which network the connection is.
    let network = || incoming.socket.local_ip().or(peer.map(|peer| peer.ip()));
    if let Err(refusal) = shared.hosts.check(&request, network) {
        note_refusal(shared, peer, Some(&request), &refusal);
        refuse(shared, incoming, refusal, Some(&request));
        return None;
    }
    if !slot.count_for(request.client_address()) {
        let why = NoSlot::OfAddress;
        let client = request.client_address();
        shared
            .incidents
            .note(why.incident(), format_args!("{}: too many connections of {client:?}", Peer(peer)));
        refuse(shared, incoming, rejected::refusal(why), Some(&request));
        return None;
    }
    if is_upgrade(&request) || shared.routes.is_only_websocket(&request) {
        return Some(Asked::WebSocket(request.into()));
    }
    answer(shared, incoming, &request).then_some(Asked::Page)
}

/// Waits for the next request on a connection whose last one has been answered. Meanwhile its place may go to another one.
#[inline(never)]
fn wait_for_next(shared: &Shared, incoming: &mut Incoming, slot: Slot) -> Option<Slot> {
    incoming.stream.park();
    let slot = if incoming.has_more() { slot } else { idle(shared, incoming, slot)? };
    incoming.deadline = Deadline::after(shared.limits.handshake_timeout);
    Some(slot)
}

fn idle(shared: &Shared, incoming: &mut Incoming, slot: Slot) -> Option<Slot> {
    let key = shared.idle.enter(incoming.socket.clone(), slot);
    let arrived = incoming.socket.wait_readable(Deadline::after(shared.limits.http_keep_alive));
    let slot = shared.idle.leave(key).filter(|_| matches!(arrived, Ok(true)) && !shared.is_stopping());
    if slot.is_none() {
        // Nothing has been asked, so nothing is answered.
        incoming.end(Deadline::after(Duration::ZERO));
    }
    slot
}

/// How the log calls the other end of a socket.
pub(super) struct Peer(pub(super) Option<SocketAddr>);

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(peer) => peer.fmt(f),
            None => f.write_str("a Unix socket"),
        }
    }
}

/// Counts and logs a refusal, at the level `debug`: any stranger can cause as many as they like.
#[inline(never)]
fn note_refusal(shared: &Shared, peer: Option<SocketAddr>, request: Option<&Request>, refusal: &Refusal) {
    let incident = Incident::Refused(refusal.status());
    let (peer, path) = (Peer(peer), Shown(request.map_or("", Request::path)));
    shared.incidents.note(incident, format_args!("{peer}: {path}: refused: {}", Sentence(refusal)));
}

/// Answers a plain HTTP request. True: another one may follow.
#[inline(never)]
fn answer(shared: &Shared, incoming: &mut Incoming, request: &Request) -> bool {
    let declared = match Declared::of(request) {
        Ok(declared) => declared,
        Err(refusal) => {
            note_refusal(shared, incoming.peer, Some(request), &refusal);
            refuse(shared, incoming, refusal, Some(request));
            return false;
        }
    };
    if let Err(refusal) = check_page_origin(request, &shared.origins) {
        note_refusal(shared, incoming.peer, Some(request), &refusal);
        refuse(shared, incoming, refusal, Some(request));
        return false;
    }
    let body = RequestBody::new(&declared, incoming, &shared.limits, &shared.buffered);
    let exchange = Exchange::new(request, body, shared);
    let mut response = shared.routes.respond(&exchange).unwrap_or_else(Response::from);
    if let Some(fault) = response.fault() {
        let path = Shown(request.path());
        shared.incidents.failed(format_args!("the handler of {path} failed: {}", Shown(fault)));
    }
    if let Some((name, value)) = exchange.into_cookie() {
        response.headers_mut().append(name, value);
    }
    log::debug!(
        "{}: {} {}: {}",
        Peer(incoming.peer),
        Shown(request.method()),
        Shown(request.path()),
        response.status()
    );
    let persists = persists(shared, request, &response) && incoming.can_go_on();
    respond(shared, incoming, response, Some(request), persists) && persists && incoming.drain_body()
}

/// Whether the connection stays open for another request (RFC 9112, section 9.3). It does also where all places are taken: while
/// it waits it can give up its own at once, and while it closes it cannot.
fn persists(shared: &Shared, request: &Request, response: &Response) -> bool {
    let limits = &shared.limits;
    let is_wanted = !request.is_http_10() && !request.has_token(header::CONNECTION, "close");
    let is_offered = !limits.http_keep_alive.is_zero() && limits.max_http_idle > 0;
    is_wanted && is_offered && response.can_persist() && !shared.is_stopping()
}

#[inline(never)]
fn refuse(shared: &Shared, incoming: &mut Incoming, refusal: Refusal, request: Option<&Request>) {
    respond(shared, incoming, refusal.into(), request, false);
}

fn respond(
    shared: &Shared,
    incoming: &mut Incoming,
    response: Response,
    request: Option<&Request>,
    persists: bool,
) -> bool {
    let method = request.map(Request::method);
    let sent = incoming.respond(response, method, &shared.headers, &shared.limits, persists);
    if let Err(e) = &sent {
        log::debug!("{}: a response was not taken: {e}", Peer(incoming.peer));
    }
    sent.is_ok()
}

/// An application that has said yes to a handshake.
struct Agreed {
    app: Box<dyn WebSocketServer>,
    opening: Opening,
    route: Option<Name>,
}

/// The checks of the opening handshake, ours and the application's.
#[inline(never)]
fn accept(shared: &Shared, request: &Arc<Request>) -> Result<(Handshake, Box<Agreed>), Refusal> {
    let target = shared.routes.find_websocket(request.path())?;
    let mut handshake = Handshake::check(request, &shared.origins)?;
    let offered = std::mem::take(&mut handshake.subprotocols);
    Ok((handshake, ask(shared, request, target, offered)?))
}

/// Asks the application, which learns the ID of the connection; the connection is known by that from here on.
#[inline(never)]
fn ask(
    shared: &Shared,
    request: &Arc<Request>,
    target: &Target,
    offered: Vec<String>,
) -> Result<Box<Agreed>, Refusal> {
    let announced = shared.registry.announce();
    let id = *announced.id();
    let panicked = |what| {
        let path = Shown(request.path());
        shared.incidents.failed(format_args!("{}: {what} of {path} panicked", id.short()));
    };
    let failed = |what| {
        panicked(what);
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, FAILED)
    };
    let app = caught(|| (target.factory)()).ok_or_else(|| failed("the factory"))?;
    let (sessions, use_session) = (shared.sessions.clone(), shared.use_session);
    let opening =
        Opening::new(announced, request.clone(), sessions, use_session, offered, shared.compression);
    let mut agreed = Box::new(Agreed { app, opening, route: target.route.clone() });
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
        let path = Shown(request.path());
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
    let Agreed { app, mut opening, route } = *agreed;
    let deflate = respond_yes(shared, handshake, &opening, incoming.stream.output());
    let session = opening.take_session();
    let about = Box::new(About {
        id: *opening.announced.id(),
        session_id: session.as_ref().and_then(|session| session.id().ok()),
        path: shared.registry.path(opening.request.path()),
        peer: opening.request.peer(),
        route,
        user_agent: user_agent(&shared.registry, &opening.request),
        extras: extras(&opening),
        opened: shared.clock.exact(),
        shared: opening.shared,
        overflow: opening.overflow,
        deflate,
    });
    let connection = Connection::new(about, incoming.socket, incoming.stream, context.clone());
    connection.binary_data.store(opening.binary_data, Relaxed);
    connection.session_end_on_close.store(opening.session_end_on_close, Relaxed);
    let attached = Box::new(Attached { request: opening.request, session });
    shared.registry.register(opening.announced, &connection);
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
        Shown(&connection.about().path),
        Peer(connection.about().peer)
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
    if let Err(error) = result
        && !error.downcast_ref::<Error>().is_some_and(Error::is_closed)
    {
        connection.close(CloseCode::INTERNAL_ERROR, FAILED);
        let id = connection.id().short();
        shared.incidents.failed(format_args!("{id}: the handler failed: {}", Shown(error)));
    }
}

//! One connection on its thread, from the accepted socket to `on_post_server`.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use http::{HeaderValue, StatusCode, header};

use super::{
    Job, Shared, Slot,
    builder::Security,
    exchange::{Exchange, Incoming, NoRequest},
};
use crate::{
    codec::{Codec, Stream},
    connection::{Caller, Connection, Socket},
    deadline::Deadline,
    error::Error,
    http::{Handshake, Refusal, Request, Response, is_upgrade},
    message::CloseCode,
    session::Session,
    sync::LockExt,
    websocket::{Closed, Opening, ServerResult, WebSocket, WebSocketServer},
};

/// Serves one socket until its end.
pub(super) fn serve(shared: &Arc<Shared>, gateway: &Arc<Caller>, job: Job) {
    let Job { socket, peer, security, slot } = job;
    let deadline = Deadline::after(shared.limits.handshake_timeout);
    let socket = Arc::new(socket);
    let is_secure = !matches!(security, Security::None);
    let stream = match security {
        Security::None => Stream::plain(),
        #[cfg(feature = "tls")]
        Security::Tls(identity) => match Stream::tls(identity.acceptor()) {
            Ok(stream) => stream,
            Err(failure) => return log::error!("{}", failure.text),
        },
    };
    let handshaking = Handshaking::new(shared, &socket);
    let incoming = Incoming { socket, stream, peer, is_secure, deadline };
    match open(shared, incoming) {
        Some(opened) => {
            let connection = opened.connect(shared, gateway);
            drop(handshaking);
            if let Some((connection, app, opening)) = connection {
                run(shared, connection, app, opening, slot);
            }
        }
        None => drop(handshaking),
    }
}

/// The entry of a socket in its handshake, by which a shutdown finds it.
struct Handshaking<'a> {
    shared: &'a Shared,
    key: u64,
}

impl<'a> Handshaking<'a> {
    fn new(shared: &'a Shared, socket: &Arc<Socket>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
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

/// A handshake to which the application has said yes.
struct Accepted {
    incoming: Incoming,
    app: Box<dyn WebSocketServer>,
    opening: Opening,
    response: Vec<u8>,
}

/// Reads the request and answers it; only a WebSocket goes on.
fn open(shared: &Shared, mut incoming: Incoming) -> Option<Accepted> {
    let peer = incoming.peer.map_or_else(|| "a Unix socket".to_owned(), |peer| peer.to_string());
    let head = incoming.read_head(&shared.limits);
    if shared.is_stopping() {
        let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the server shuts down")
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("5"));
        respond(shared, incoming, refusal.into(), None);
        return None;
    }
    let request = match head {
        Ok(request) => request.with_peer(incoming.peer, incoming.is_secure, &shared.trusted_proxies),
        Err(NoRequest::Gone(why)) => {
            log::debug!("{peer}: no request: {why}");
            return None;
        }
        Err(NoRequest::Refused(refusal)) => {
            log::debug!("{peer}: {refusal}");
            respond(shared, incoming, refusal.into(), None);
            return None;
        }
    };
    let path = request.path();
    if !is_upgrade(&request) && (shared.routes.has_page(path) || !shared.routes.is_websocket(path)) {
        let exchange = Exchange::new(&request, &shared.sessions);
        let mut response = shared.routes.respond(&exchange).unwrap_or_else(Response::from);
        log::debug!("{peer}: {} {path}: {}", request.method(), response.status());
        if let Some((name, value)) = exchange.into_cookie() {
            response.headers_mut().append(name, value);
        }
        respond(shared, incoming, response, Some(&request));
        return None;
    }
    let request = Arc::new(request);
    match accept(shared, &request) {
        Ok((app, opening, response)) => Some(Accepted { incoming, app, opening, response }),
        Err(refusal) => {
            log::info!("{peer}: {}: refused: {refusal}", request.path());
            respond(shared, incoming, refusal.into(), Some(&request));
            None
        }
    }
}

fn respond(shared: &Shared, incoming: Incoming, response: Response, request: Option<&Request>) {
    if let Err(e) = incoming.respond(response, request.map(Request::method), &shared.limits) {
        log::debug!("a response was not taken: {e}");
    }
}

/// The checks of the opening handshake, ours and the application's, and the bytes of the 101.
#[allow(clippy::type_complexity, reason = "used once, in the line above")]
fn accept(
    shared: &Shared,
    request: &Arc<Request>,
) -> Result<(Box<dyn WebSocketServer>, Opening, Vec<u8>), Refusal> {
    let factory = shared.routes.find_websocket(request.path())?;
    let handshake = Handshake::check(request, &shared.origins)?;
    let (session, cookie) = Session::open(&shared.sessions, request);
    let mut opening = Opening::new(request.clone(), session, handshake.subprotocols.clone());
    let id = opening.id.clone();
    let app = catch_unwind(AssertUnwindSafe(|| {
        let mut app = factory();
        app.on_pre_server(&mut opening).map(|()| app)
    }));
    let app = app.unwrap_or_else(|_| {
        log::error!("{id}: on_pre_server of {} panicked", request.path());
        Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the handler failed"))
    })?;
    let mut headers = std::mem::take(&mut opening.headers);
    if let Some((name, value)) = cookie {
        headers.append(name, value);
    }
    let response = handshake.respond(opening.subprotocol.as_deref(), headers);
    Ok((app, opening, response))
}

impl Accepted {
    /// Sends the 101. From now on frames are spoken. `None` if the client has left.
    fn connect(
        mut self,
        shared: &Arc<Shared>,
        gateway: &Arc<Caller>,
    ) -> Option<(Arc<Connection>, Box<dyn WebSocketServer>, Opening)> {
        self.incoming.stream.output().extend_from_slice(&self.response);
        if let Err(NoRequest::Gone(why)) = self.incoming.send_pending() {
            log::debug!("{}: left during the handshake: {why}", self.opening.id);
            return None;
        }
        self.incoming.stream.park();
        let limits = &shared.limits;
        let codec = Codec::new(self.incoming.stream, limits.max_message_size, limits.max_frame_size);
        let id = self.opening.id.clone();
        let connection = Connection::new(id, self.incoming.socket, codec, limits.clone(), gateway.clone());
        Some((connection, self.app, self.opening))
    }
}

/// Runs the application, and everything that its end needs, whatever its end was.
fn run(
    shared: &Arc<Shared>,
    connection: Arc<Connection>,
    mut app: Box<dyn WebSocketServer>,
    opening: Opening,
    slot: Slot,
) {
    let begun = Instant::now();
    let id = connection.id().clone();
    log::debug!("{id}: open: {} from {:?}", opening.path(), opening.request.peer());
    let registered = shared.hub.register(connection.clone());
    if shared.is_stopping() {
        connection.close(CloseCode::GOING_AWAY, "the server shuts down");
    }
    let mut ws = WebSocket::new(connection.clone(), opening);
    match catch_unwind(AssertUnwindSafe(|| app.server(&mut ws))) {
        Ok(result) => end(&connection, result),
        Err(_) => {
            log::error!("{id}: the handler panicked");
            connection.close(CloseCode::INTERNAL_ERROR, "the handler failed");
        }
    }
    connection.conclude();
    drop((registered, slot));
    let opening = ws.into_opening();
    if opening.session_end_on_close {
        opening.session.end();
    }
    if let Some(reason) = connection.reason().cloned() {
        log::debug!("{id}: closed: {reason}");
        let closed =
            Closed { id, session_id: opening.session_id().clone(), reason, duration: begun.elapsed() };
        if catch_unwind(AssertUnwindSafe(|| app.on_post_server(&closed))).is_err() {
            log::error!("{}: on_post_server panicked", closed.id);
        }
    }
}

/// What the handler's result means for the connection. A handler that ended because the client left did not fail.
fn end(connection: &Arc<Connection>, result: ServerResult) {
    if let Err(error) = result
        && !error.downcast_ref::<Error>().is_some_and(Error::is_closed)
    {
        log::error!("{}: the handler failed: {error}", connection.id());
        connection.close(CloseCode::INTERNAL_ERROR, "the handler failed");
    }
}

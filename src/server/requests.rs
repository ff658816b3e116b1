//! The HTTP requests of a connection: answers them, one after the other, until one asks for a WebSocket.

use std::{
    cell::Cell,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{StatusCode, header};

use super::{
    body::{Declared, Place, RequestBody},
    exchange::Exchange,
    idle::Key,
    incoming::{Client, Incoming, NoRequest, Peer},
    rejected,
    shared::{NoSlot, Shared, Slot},
};
#[cfg(feature = "__tls")]
use crate::client_certificate::ClientCertificate;
use crate::{
    connection::Socket,
    deadline::Deadline,
    http::{CommonHeaders, Refusal, Request, Response, check_page_origin, is_upgrade, to_https},
    incidents::Incident,
    shown::{Sentence, Shown, ShownPath},
};

/// How late an answer comes that is to be [late](Refusal::late).
const LATE: Duration = Duration::from_millis(500);

/// Answers requests until one asks for a WebSocket. `None`: none does, and the connection has ended.
#[inline(never)]
pub(super) fn read_requests(
    shared: &Shared,
    incoming: &mut Incoming,
    slot: Slot,
) -> Option<(Arc<Request>, Slot)> {
    let (mut slot, mut is_first) = (slot, true);
    loop {
        slot = match read_request(shared, incoming, slot, is_first)? {
            Asked::WebSocket(request, slot) => return Some((request, slot)),
            Asked::Page(slot) => wait_for_next(shared, incoming, slot)?,
        };
        is_first = false;
    }
}

/// What the last request was for. The connection has its place still.
enum Asked {
    WebSocket(Arc<Request>, Slot),
    /// It has been answered, and another one may follow.
    Page(Slot),
}

/// Reads a request, and answers it unless it asks for a WebSocket. `None`: no other can follow.
#[inline(never)]
fn read_request(shared: &Shared, incoming: &mut Incoming, slot: Slot, is_first: bool) -> Option<Asked> {
    let peer = incoming.peer;
    let (head, mut slot) = read_head(shared, incoming, slot)?;
    if shared.is_stopping() {
        refuse(shared, incoming, None, rejected::shutting_down());
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
            turn_away(shared, incoming, slot, None, refusal);
            return None;
        }
    };
    let is_unix = || incoming.local_ip().is_none();
    request.set_peer(peer, incoming.is_secure, &shared.trusted_proxies, is_unix);
    #[cfg(feature = "__tls")]
    if let Some(chain) = incoming.stream.client_certificates() {
        request.set_client_certificate(ClientCertificate::new(chain));
    }
    // Through a socket pair of the program's own only the client's address tells in which network the connection is.
    let network = || incoming.local_ip().or(peer.map(|peer| peer.ip()));
    if let Err(refusal) = shared.hosts.check(&request, network) {
        turn_away(shared, incoming, slot, Some(&request), refusal);
        return None;
    }
    if !slot.count_for(request.client_address()) {
        let client = Client(peer, request.client_address());
        refuse_one_more(shared, incoming, client, Some(&request));
        return None;
    }
    if let Some(port) = incoming.https_port {
        redirect(shared, incoming, slot, &request, port);
        return None;
    }
    let is_upgrade = is_upgrade(&request) && shared.routes.take_upgrade(request.path());
    if is_upgrade || shared.routes.is_only_websocket(&request) {
        return Some(Asked::WebSocket(request.into(), slot));
    }
    answer(shared, incoming, slot, &request).map(Asked::Page)
}

/// Sends a client to https, whatever it has asked for.
#[cold]
#[inline(never)]
fn redirect(shared: &Shared, incoming: &mut Incoming, slot: Slot, request: &Request, port: u16) {
    match to_https(request, port) {
        Ok(response) => {
            tell(shared, incoming.peer, request, response.status());
            respond_last(shared, incoming, slot, Some(request), response);
        }
        Err(refusal) => turn_away(shared, incoming, slot, Some(request), refusal),
    }
}

/// Of the client at this address there are too many connections.
#[cold]
#[inline(never)]
pub(super) fn refuse_one_more(
    shared: &Shared,
    incoming: &mut Incoming,
    client: Client,
    request: Option<&Request>,
) {
    shared.note_no_slot(NoSlot::OfAddress, client);
    refuse(shared, incoming, request, rejected::refusal(NoSlot::OfAddress));
}

/// Receives a request's head. Where only those are served who may, nobody knows before it is there whether this is one of them:
/// meanwhile the connection gives up its place to whoever comes when there is no other. `None`: it had to.
fn read_head(
    shared: &Shared,
    incoming: &mut Incoming,
    slot: Slot,
) -> Option<(Result<Box<Request>, NoRequest>, Slot)> {
    if shared.routes.all.is_none() {
        return Some((incoming.read_head(&shared.limits), slot));
    }
    let key = shared.idle.enter_asking(incoming.socket.clone(), slot);
    let head = incoming.read_head(&shared.limits);
    let slot = shared.idle.leave(key);
    if slot.is_none() {
        incoming.end(Deadline::after(Duration::ZERO));
    }
    slot.map(|slot| (head, slot))
}

/// Waits for the next request on a connection whose last one has been answered. Meanwhile its place may go to another one.
#[inline(never)]
fn wait_for_next(shared: &Shared, incoming: &mut Incoming, slot: Slot) -> Option<Slot> {
    incoming.stream.park();
    let slot = if incoming.has_more() { slot } else { idle(shared, incoming, slot)? };
    incoming.deadline = Deadline::after(shared.limits.handshake_timeout);
    incoming.begun = incoming.begun.map(|_| Instant::now());
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

/// Refuses a request, or what should have been one. It is counted, and logged at the level `debug`: any stranger can cause as
/// many as they like.
#[inline(never)]
pub(super) fn turn_away(
    shared: &Shared,
    incoming: &mut Incoming,
    slot: Slot,
    request: Option<&Request>,
    refusal: Refusal,
) {
    let incident = Incident::Refused(refusal.status());
    let client = Client(incoming.peer, request.and_then(Request::client_address));
    let path = ShownPath(request.map_or("", Request::path));
    shared.incidents.note(incident, format_args!("{client}: {path}: refused: {}", Sentence(&refusal)));
    respond_last(shared, incoming, slot, request, shared.response_to(refusal, request));
}

/// Answers a plain HTTP request. If another one may follow, the place of the connection comes back.
#[inline(never)]
fn answer(shared: &Shared, incoming: &mut Incoming, slot: Slot, request: &Request) -> Option<Slot> {
    let declared = Declared::of(request)
        .and_then(|declared| check_page_origin(request, &shared.origins).map(|()| declared));
    let declared = match declared {
        Ok(declared) => declared,
        Err(refusal) => {
            turn_away(shared, incoming, slot, Some(request), refusal);
            return None;
        }
    };
    let offered = Offered::new(shared, incoming.socket.clone(), slot);
    // Elsewhere the places are the clients' own.
    let place = shared.routes.all.is_some().then_some(&offered as &dyn Place);
    let body = RequestBody::new(&declared, incoming, &shared.limits, &shared.buffered, place);
    let tail = shared.routes.below_page(request.path());
    let exchange = Exchange::new(request, tail, body, &shared.registry, &shared.sessions);
    let answered = shared.routes.respond(&exchange);
    let mut response = answered.unwrap_or_else(|refusal| shared.response_to(refusal, Some(request)));
    if let Some(fault) = response.fault() {
        let path = ShownPath(request.path());
        shared.incidents.failed(format_args!("the handler of {path} failed: {}", Shown(fault)));
    }
    if let Some((name, value)) = exchange.into_cookie() {
        response.headers_mut().append(name, value);
    }
    tell(shared, incoming.peer, request, response.status());
    let Some(slot) = offered.slot.into_inner() else {
        incoming.end(Deadline::after(Duration::ZERO));
        return None;
    };
    if !persists(shared, request, &response) || !incoming.can_go_on() {
        respond_last(shared, incoming, slot, Some(request), response);
        return None;
    }
    let sent = respond(shared, incoming, Some(request), response, true);
    (sent && incoming.drain_body()).then_some(slot)
}

/// The place of a connection whose request is answered, and which may have to give it up while the body is on its way.
struct Offered<'a> {
    shared: &'a Shared,
    socket: Arc<Socket>,
    slot: Cell<Option<Slot>>,
    key: Cell<Option<Key>>,
}

impl<'a> Offered<'a> {
    fn new(shared: &'a Shared, socket: Arc<Socket>, slot: Slot) -> Self {
        Self { shared, socket, slot: Cell::new(Some(slot)), key: Cell::default() }
    }
}

impl Place for Offered<'_> {
    fn offer(&self) {
        if let Some(slot) = self.slot.take() {
            self.key.set(Some(self.shared.idle.enter_asking(self.socket.clone(), slot)));
        }
    }

    fn take_back(&self) -> bool {
        let slot = self.key.take().and_then(|key| self.shared.idle.leave(key));
        let is_there = slot.is_some();
        self.slot.set(slot);
        is_there
    }
}

/// The line of the log for a request that was answered. Where one handler answers all, whom it turns away is counted, as those are
/// whom the server does.
fn tell(shared: &Shared, peer: Option<SocketAddr>, request: &Request, status: StatusCode) {
    let client = Client(peer, request.client_address());
    let text = format_args!("{client}: {} {}: {status}", Shown(request.method()), ShownPath(request.path()));
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if shared.routes.all.is_some() => {
            shared.incidents.note(Incident::Refused(status), text);
        }
        _ => log::debug!("{text}"),
    }
}

/// Whether the connection stays open for another request (RFC 9112, section 9.3). It does also where all places are taken: while
/// it waits it can give up its own at once, and while it closes it cannot.
fn persists(shared: &Shared, request: &Request, response: &Response) -> bool {
    let limits = &shared.limits;
    let is_wanted = !request.is_http_10() && !request.has_token(header::CONNECTION, "close");
    let is_offered = !limits.http_keep_alive.is_zero() && limits.max_http_idle > 0;
    is_wanted && is_offered && response.can_persist() && !shared.is_stopping()
}

/// Sends a response, and ends the connection.
#[inline(never)]
fn respond_last(
    shared: &Shared,
    incoming: &mut Incoming,
    slot: Slot,
    request: Option<&Request>,
    response: Response,
) {
    let slot = if response.is_late() { be_late(shared, incoming, slot) } else { Some(slot) };
    if let Some(slot) = slot
        && respond(shared, incoming, request, response, false)
    {
        finish(shared, incoming, slot);
    }
}

/// Lets a client wait that may be guessing a secret. It holds no place meanwhile that somebody else needs, or those who guess would keep
/// out those who need not. `None`: then it gets no answer; or nobody waits for that.
fn be_late(shared: &Shared, incoming: &Incoming, slot: Slot) -> Option<Slot> {
    let key = shared.idle.enter_ending(incoming.socket.clone(), slot);
    let is_over = !matches!(incoming.socket.wait_end(Deadline::after(LATE)), Ok(false));
    shared.idle.leave(key).filter(|_| !is_over)
}

/// Ends a connection whose last response has been sent. While the client reads that, its place may be another's, where places are few.
fn finish(shared: &Shared, incoming: &mut Incoming, slot: Slot) {
    if shared.routes.all.is_none() {
        incoming.finish();
        return; // only now the place is free
    }
    let key = shared.idle.enter_ending(incoming.socket.clone(), slot);
    incoming.finish();
    shared.idle.leave(key);
}

#[inline(never)]
fn refuse(shared: &Shared, incoming: &mut Incoming, request: Option<&Request>, refusal: Refusal) {
    if respond(shared, incoming, request, shared.response_to(refusal, request), false) {
        incoming.finish();
    }
}

fn respond(
    shared: &Shared,
    incoming: &mut Incoming,
    request: Option<&Request>,
    response: Response,
    persists: bool,
) -> bool {
    let method = request.map(Request::method);
    #[cfg(feature = "manage")]
    let response = match request {
        Some(request) if request.is_http_10() => response.without_chunks(),
        _ => response,
    };
    // Where a page is only somewhere else, nothing is said for it; and not in the clear that it is to be had by TLS only (RFC 6797,
    // section 7.2).
    let none = CommonHeaders::default();
    let headers = if incoming.https_port.is_some() { &none } else { &shared.headers };
    let sent = incoming.respond(response, method, headers, &shared.limits, persists);
    if let Err(e) = &sent {
        log::debug!("{}: a response was not taken: {e}", Peer(incoming.peer));
    }
    sent.is_ok()
}

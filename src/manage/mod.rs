//! The management listener: a second server in the process, whose one handler asks the hub of the first. Other processes push,
//! list and close through it. Above `server`, which knows only that there may be a server beside it.

mod answers;
mod audiences;
mod connections;
mod console;
mod events;
mod exposition;
mod json;
mod link;
mod messages;
mod metrics;
mod nodes;
mod openapi;
mod place;
mod process;
mod query;
mod routes;
mod signature;
mod stats;
mod stays;
mod strangers;
mod target;
mod token;
mod told;

use std::{fmt, net::TcpListener, os::unix::net::UnixListener, path::PathBuf, sync::Arc, time::Duration};

use self::{
    events::Events,
    link::Links,
    place::Place,
    routes::{BY_TOKEN, READ_ONLY, Routes},
    token::{Source, Tokens},
    told::Told,
};
#[cfg(feature = "__tls")]
use crate::tls::TlsIdentity;
use crate::{
    answering::LOOK,
    error::{Result, ServerError},
    limits::Limits,
    server::{Beside, ListenAddr, MainServer, Rehearsal, Server, ServerBuilder},
};

/// Connections of programs that manage a server, at the same time.
const CONNECTIONS: usize = 128;

/// A program asks again and again.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// What all of them may hold in buffers: this part of what the clients of the server may, but room for some large messages.
const PART_OF_BUFFERS: usize = 4;
const LEAST_BUFFERS: usize = 8 << 20;
const SMALLEST_BUFFERS: usize = 64 << 10;

/// The longest message that a hub in another process can push at least, and what a link says of one beside it.
const LINK_MESSAGE: usize = 4 << 20;
const LINK_MORE: usize = 64 << 10;

/// A listener by which other processes manage a server over HTTP: push to its connections, list and close them, publish to topics.
/// Given to [`ServerBuilder::manage`]. It is separate from the addresses where the server's own clients connect.
///
/// ```
/// use switchboard::{Manage, Server};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let path = std::env::temp_dir().join(format!("switchboard-doc-{}", std::process::id()));
/// # let path = path.display();
/// let manage = Manage::new().listen(format!("unix:{path}"));
/// let server = Server::builder().listen("127.0.0.1:0").manage(manage).bind()?;
/// println!("curl --unix-socket {path} http://localhost/@connections");
/// # Ok(()) }
/// ```
///
/// # Who may use it
///
/// - On a **Unix socket**, whoever may open its file. Its mode is 0600, so its user alone, unless `,mode=0660` says something else.
///   A browser to which it is brought, as by `ssh -L`, reaches it as `localhost`; pages of other origins are refused there.
///   One that is [taken over](Self::listener_unix) and open to all users takes the token.
/// - On **TCP**, whoever has the [token](Self::token_file), sent with each request as `Authorization: Bearer TOKEN`. Any address but
///   loopback needs TLS as well. `bind` refuses what would be less.
/// - A [second token](Self::read_token_file), or [another Unix socket](Self::listen_read_only), is for reading only: GET and HEAD,
///   but for messages, which others would miss.
///
/// Instead of showing the token, a request may be signed with it, as clients of AWS do (Signature Version 4): the token is the secret
/// access key; the access key's ID, region and service may be any. The body has to be signed (no `UNSIGNED-PAYLOAD`). The client's
/// clock may differ by 15 minutes; a machine whose own clock is not set yet does not judge it. A signed request that somebody has
/// overheard could be sent again for so long; beyond the machine there is TLS against that.
///
/// Tokens are compared in constant time. The answer to a wrong one comes after half a second, and ends the connection. Strangers lock
/// nobody out: a connection that waits for its request, or for the end after a refusal, gives up its place, without an answer, to
/// whoever comes when there is no other; so does one whose request has a body that is not there after a second. Refusals are counted
/// in the log, where no token and no whole ID is ever shown. `/health`, `/ready`, `/@access`, and the files of the console, which hold
/// nothing secret, need no token.
///
/// # Requests
///
/// | request | answer |
/// |---|---|
/// | `POST /@connections/{id}` | pushes the body: 200 with `result`, which is `sent`, `queued`, or, to another node of a [cluster](#in-a-cluster), `forwarded` |
/// | `GET /@connections/{id}` | what is known of it: `node`, `connectedAt`, `lastActiveAt`, `identity` with `sourceIp` and `userAgent`, `path`, `route`, `shared`, `user`, `tags`, `topics`, `queuedBytes`, `messagesIn`, `messagesOut`, `bytesIn`, `bytesOut`, `roundTripMillis` |
/// | `DELETE /@connections/{id}?code=&reason=` | closes it: 204 |
/// | `GET /@connections/{id}/messages?len=&timeout=` | [reads](#reading-messages) the next message of a shared connection: 200 with it, or 204 if none came in time |
/// | `PUT`, `DELETE /@connections/{id}/topics/{topic}` | it joins, or leaves: 204 |
/// | `GET /@connections?path=&topic=&user=&node=&after=&limit=` | `connections`, all that fit what is asked for, without their topics; `next`, the `after` of the next page, or null; and `unreachable`, true if those of [other nodes](#in-a-cluster) may be missing. A page has 100, or `limit`, up to 1,000; it may have fewer although there is a next one |
/// | `GET /@topics?after=&limit=` | `topics`, each with `name` and `members`, and `next` |
/// | `POST /@topics/{topic}?except={id}` | [publishes](crate::Hub::publish) the body: `sent`, `queued`, `dropped`, `gone` as in [`Broadcast`](crate::Broadcast), `position`, `duplicate`. With a header line `Idempotency-Key`, once |
/// | `POST /@broadcast?path=&except={id}` | sends the body to all: the counts |
/// | `POST /@users/{user}?except={id}` | to all connections of a user: the counts |
/// | `DELETE /@users/{user}?code=&reason=` | closes these: `closed` |
/// | `GET /@access` | what one may do here: `access`, which is `all`, `read`, or, without a token where one is needed, `none` |
/// | `GET /@events` | what happens from now on, as Server-Sent Events, each with JSON: `opened` and `closed` (`id`, `node`, `path`, `user`, of an end also `code`, `reason`, `by`, `durationMillis`), `occupied` and `vacated` (`topic`, and the `node` where it has members now, or none any more). Who is too slow for them gets `lost`, and the stream ends. 32 may listen. With an upgrade the same as messages of a WebSocket, whose JSON has the name of the event in `event` |
/// | `GET /@nodes` | the [nodes](crate::Hub::nodes) of the [cluster](#in-a-cluster), or the server alone: `nodes`, each with `node`, its number, `this`, `software`, `connections`, `uptimeSeconds`, the last two null where it does not answer; and `cluster`, which is `up`, `unreachable`, or null without one |
/// | `GET /@stats?interval=` | numbers of the server, as Server-Sent Events: at once, and then every second, or every 0.5 to 60 seconds, an event `stats` with a JSON object; with `Accept: application/json` that object once. `time`, `uptimeSeconds`, `version`; `node`, `cluster` as in `/@nodes`, and `nodes`, their number; `connections`, of these `shared` and `synchronous`, `maxConnections`; since the start `opened`, `closed`, `refused`, `messagesIn`, `messagesOut`, `bytesIn`, `bytesOut`, `pushes`, `pushesByResult`, which never become less; `queuedBytes`, `topics`, `users`, `roundTripMillis` with `p50` and `p99`, or null; `threads` and `residentBytes` of the process, or null. 32 may listen. With an upgrade as messages of a WebSocket, too |
/// | `GET /metrics` | the same and more for Prometheus, in its text format 0.0.4: connections by route and kind, ends by close code, refused handshakes by reason, pushes by result, times of handshakes, pushes and pings, the cluster, certificates, the process. No label is what a client has invented |
/// | `GET /openapi.json` | all of this, as OpenAPI 3.1 |
/// | `GET /` | the console, for people: plots, and a table of connections, to push to and to close. It asks for the token, and keeps it in its tab |
/// | `GET /@hub` | the link of a [`Hub`](crate::Hub) in another process: a WebSocket; without an upgrade 426 |
/// | `GET /health` | 200, if there is a server |
/// | `GET /ready` | 200, if it takes connections; 503 if it shuts down, is full, or has no descriptor, thread or memory left for one more. With `cluster`, `up` or `unreachable`, where there is one |
///
/// A body is a text message if it is UTF-8, else a binary one; `?type=text` or `?type=binary` says it. Where the answer is that of
/// many connections, its status is 202 if nobody was there.
///
/// A refusal is JSON, with a `message`. Those of `/@connections` are also what AWS's API Gateway says, which may have a stage before
/// it (`/prod/@connections`): 400 for what cannot be an ID, 403 without a token, 410 for a connection that is gone, 413, 429 for a
/// queue that is full ([`Overflow::DropNewest`](crate::Overflow)), with the header `x-amzn-ErrorType`. Its clients need no more than
/// the address (`endpoint_url` of boto3) and the token.
///
/// # Reading messages
///
/// `GET /@connections/{id}/messages` waits for the next message of a shared connection, for `timeout` seconds: 20, or what it says, 0
/// to 60 with fractions. The answer is the message, or, with `len`, so many characters or bytes of it, as
/// [`read`](crate::WebSocket::read) has it. Its header lines are `Content-Type` (`text/plain; charset=utf-8`, or
/// `application/octet-stream`), `Message-Type` (`text` or `binary`), `At-End` (`false` if there is more of it) and `Redelivered` (`true`
/// if somebody may have had it before). 409 if the connection is not shared, 410 if it has ended and nothing is left.
///
/// Each message is read at least once, as by [`read_delivery`](crate::WebSocket::read_delivery): the next request on the same HTTP
/// connection acknowledges it, whatever it asks for, if its token, where one is needed, is not only for reading. If there is none,
/// because the reader has vanished, or within [`http_keep_alive`](crate::Limits::http_keep_alive), 60 s, the message goes back to the
/// head of the queue. So a reader needs a connection of its own, and no proxy that shares it. While it waits it takes nothing if it
/// leaves. Half of all connections may wait; more are answered with 429.
///
/// # In a cluster
///
/// Each node of a [cluster](crate::Cluster) answers for all of them: its requests reach, list and close the connections of every node, of
/// which `node` tells the number, and messages are read from those of other nodes, too. A list of
/// connections has those of the nodes that answer: `unreachable` tells that others, or Redis, do not. With `node` that is 503. What is sent to other nodes is `forwarded`, of
/// many as the number of these nodes, and `unreachable` tells that some may not have got it. 503 says that a node, or Redis, did not
/// answer in time. What a node tells of itself is its own: `/@events`, `/@stats`, `/metrics`, of which Prometheus asks each.
///
/// `/ready` stays 200 while Redis is not reached: all nodes would be taken out at once, although each serves its own clients as before.
///
/// # Many at once
///
/// Links of hubs, those who listen, and those who wait for messages keep their connections. Together they may have three quarters of
/// all, 96 of the usual 128; more are answered with 429. So there is always room for requests that are answered at once. Whoever needs
/// more gives the listener a larger [`max_connections`](crate::Limits::max_connections) with [`limits`](Self::limits).
///
/// ```text
/// curl --unix-socket /run/box.sock -o order http://box/@connections/ID/messages -o next http://box/@connections/ID/messages
/// ```
#[derive(Default)]
#[must_use = "nothing listens until it is given to `ServerBuilder::manage`"]
pub struct Manage {
    endpoints: Vec<Endpoint>,
    token: Option<Source>,
    read_token: Option<Source>,
    limits: Option<Limits>,
    events: Arc<Events>,
}

/// Where to listen.
#[derive(Debug)]
struct Endpoint {
    place: Place,
    is_read_only: bool,
    #[cfg(feature = "__tls")]
    identity: Option<TlsIdentity>,
}

impl Manage {
    /// Without any address yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens on one more address, as [`ServerBuilder::listen`]: `unix:/run/my.sock`, also with `,mode=0660`, or
    /// `127.0.0.1:9090`, for which there has to be a [token](Self::token_file).
    pub fn listen(self, address: impl Into<String>) -> Self {
        self.with_endpoint(Place::Address(address.into()), false)
    }

    /// The same for reading only.
    pub fn listen_read_only(self, address: impl Into<String>) -> Self {
        self.with_endpoint(Place::Address(address.into()), true)
    }

    /// Listens at a listener that the program has bound, or was given, such as by systemd; as
    /// [`ServerBuilder::listener`]. What holds for [`listen`](Self::listen) holds for it.
    pub fn listener(self, listener: TcpListener) -> Self {
        self.with_endpoint(Place::Listener(listener), false)
    }

    /// The same of a Unix socket; as [`ServerBuilder::listener_unix`]. Where every user of the machine may connect to it (its file
    /// has a mode like 0666, which is systemd's default, or it has no file), there has to be a [token](Self::token_file), as on TCP.
    pub fn listener_unix(self, listener: UnixListener) -> Self {
        self.with_endpoint(Place::Unix(listener), false)
    }

    /// Listens on one more address, with TLS. There has to be a [token](Self::token_file).
    #[cfg(feature = "__tls")]
    pub fn listen_tls(mut self, address: impl Into<String>, identity: TlsIdentity) -> Self {
        let place = Place::Address(address.into());
        self.endpoints.push(Endpoint { place, is_read_only: false, identity: Some(identity) });
        self
    }

    fn with_endpoint(mut self, place: Place, is_read_only: bool) -> Self {
        self.endpoints.push(Endpoint {
            place,
            is_read_only,
            #[cfg(feature = "__tls")]
            identity: None,
        });
        self
    }

    /// The file with the token: one line, 16 to 1,024 letters, digits and signs of ASCII. It is read by `bind`, which warns of one
    /// that every user of the machine can read, and waits for a pipe, for 10 s. `openssl rand -hex 32` makes one.
    pub fn token_file(self, path: impl Into<PathBuf>) -> Self {
        Self { token: Some(Source::File(path.into())), ..self }
    }

    /// The token itself, for a program that keeps it elsewhere.
    pub fn token(self, token: impl Into<String>) -> Self {
        Self { token: Some(Source::Text(token.into())), ..self }
    }

    /// The file with a second token, with which one may only read; as [`token_file`](Self::token_file).
    pub fn read_token_file(self, path: impl Into<PathBuf>) -> Self {
        Self { read_token: Some(Source::File(path.into())), ..self }
    }

    /// The second token itself; as [`token`](Self::token).
    pub fn read_token(self, token: impl Into<String>) -> Self {
        Self { read_token: Some(Source::Text(token.into())), ..self }
    }

    /// Limits of the listener itself, in place of its own: 128 connections
    /// ([`max_connections`](crate::Limits::max_connections)), which stay open for 60 s
    /// ([`http_keep_alive`](crate::Limits::http_keep_alive)), and a quarter of the buffers, on small boxes up to half
    /// ([`max_buffered_bytes`](crate::Limits::max_buffered_bytes)); messages of 1 MiB
    /// ([`max_body`](crate::Limits::max_body)).
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits: Some(limits), ..self }
    }
}

impl ServerBuilder {
    /// Lets other processes manage the server: see [`Manage`]. Without this nobody can, and nothing of it is there.
    ///
    /// `bind` binds its addresses, after those of the server, and refuses what would let strangers in. It answers as long as the
    /// server runs, also while that shuts down.
    pub fn manage(self, manage: Manage) -> Self {
        self.observer(manage.events.clone()).counted().beside(manage)
    }
}

impl Beside for Manage {
    fn bind(self: Box<Self>, main: MainServer) -> Result<Server, ServerError> {
        let server = self.builder(main)?.bind()?;
        check_addresses(server.local_addrs().iter().map(|address| (address, server.is_tls(address))))?;
        Ok(server)
    }

    fn rehearse(self: Box<Self>, main: MainServer) -> Rehearsal {
        match self.builder(main) {
            Err(e) => Rehearsal { errors: vec![e], ..Rehearsal::default() },
            Ok(builder) => {
                let mut all = builder.rehearsed();
                let tried = all.tried.iter().map(|tried| (&tried.address, tried.is_tls()));
                all.errors.extend(check_addresses(tried).err());
                all
            }
        }
    }
}

impl Manage {
    /// The server that answers.
    fn builder(self, main: MainServer) -> Result<ServerBuilder, ServerError> {
        let Self { endpoints, token, read_token, limits, events } = self;
        if endpoints.is_empty() {
            return Err(ServerError::config("the management listener has no address: call Manage::listen"));
        }
        let tokens = Tokens::new(token, read_token)?;
        if tokens.is_empty()
            && let Some(why) = endpoints.iter().find_map(|endpoint| endpoint.place.needs_token())
        {
            return Err(ServerError::config(why));
        }
        events.set_node(main.registry().node());
        let limits = limits.unwrap_or_else(|| own_limits(main.limits().max_message_size));
        let routes = Arc::new(Routes::new(main.clone(), tokens, events, &limits));
        let links = Links::new(&main, routes.clone(), &limits);
        let (of_events, of_stats) = (routes.clone(), routes.clone());
        let builder = Server::builder()
            .limits(limits)
            .route(link::PATH, move || links.link())
            .route(told::EVENTS, move || Told::<events::Listener>::new(&of_events))
            .route(told::STATS, move || Told::<told::Numbers>::new(&of_stats))
            .header("cache-control", "no-store")
            // That guards what a browser may do for any page. Here it may do nothing: it has no token, and does not speak to files.
            .hosts(["*"])
            .answer_all(move |exchange| routes.answer(exchange), answers::write);
        Ok(endpoints.into_iter().fold(builder, |builder, endpoint| endpoint.add_to(builder)))
    }
}

/// Those of a listener that gets no others, of a server whose clients send messages of so many bytes.
fn own_limits(max_message_size: usize) -> Limits {
    let limits = Limits::default();
    let message = max_message_size.max(LINK_MESSAGE).saturating_add(LINK_MORE);
    let of_server = limits.buffered_bytes();
    let buffers = (of_server / PART_OF_BUFFERS).max(LEAST_BUFFERS).max(message.saturating_mul(4));
    // On a small box it is not more than half of that.
    let buffers = buffers.min(of_server / 2).max(SMALLEST_BUFFERS);
    Limits {
        max_message_size: message,
        max_frame_size: message,
        max_connections: CONNECTIONS,
        http_keep_alive: KEEP_ALIVE,
        max_buffered_bytes: Some(buffers),
        workers: 0,
        ..limits
    }
}

/// What is sent in the clear, tokens included, must not leave the machine.
fn check_addresses<'a>(
    mut addresses: impl Iterator<Item = (&'a ListenAddr, bool)>,
) -> Result<(), ServerError> {
    let is_open = |(address, is_tls): &(&ListenAddr, bool)| {
        let is_local = address.tcp().is_none_or(|address| address.ip().to_canonical().is_loopback());
        !is_local && !is_tls
    };
    match addresses.find(is_open) {
        None => Ok(()),
        Some((address, _)) => Err(ServerError::config(format!(
            "management on {address} needs TLS, with Manage::listen_tls (--manage-tls): others than this machine reach it, and the \
             token would be sent in the clear"
        ))),
    }
}

impl Endpoint {
    fn add_to(self, builder: ServerBuilder) -> ServerBuilder {
        let by_token = if self.place.is_guarded() { 0 } else { BY_TOKEN };
        let tag = by_token | if self.is_read_only { READ_ONLY } else { 0 };
        match self.place {
            Place::Address(address) => {
                #[cfg(feature = "__tls")]
                if let Some(identity) = self.identity {
                    return builder.listen_tls_tagged(address, identity, tag);
                }
                builder.listen_tagged(address, tag)
            }
            Place::Listener(listener) => builder.listener_tagged(listener, tag),
            Place::Unix(listener) => builder.listener_unix_tagged(listener, tag),
        }
    }
}

/// Without the tokens.
impl fmt::Debug for Manage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manage").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

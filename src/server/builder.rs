//! Configures a server: addresses, routes and settings. `build`, called by [`bind`](ServerBuilder::bind), checks them and
//! binds the addresses. Nothing is accepted here.

use std::{net::TcpListener, os::unix::net::UnixListener, sync::Arc};

use http::{HeaderName, HeaderValue, header};

#[cfg(feature = "__tls")]
use super::certificates::Certificates;
use super::{
    exchange::Exchange,
    listener::{Listener, Security},
    redirecting::bind_redirects,
    routes::Factory,
    shared::{Settings, Shared},
};
#[cfg(feature = "cluster")]
use crate::cluster::Cluster;
#[cfg(feature = "__tls")]
use crate::tls::TlsIdentity;
use crate::{
    compression::Compression,
    error::{Result, ServerError},
    history::History,
    http::{Files, Origins, Response},
    id::NodeId,
    limits::Limits,
    observer::HubObserver,
    session::{SessionCookie, SessionKeys, SessionStore},
    websocket::WebSocketServer,
};

/// Configures a [`Server`](crate::Server); made by [`Server::builder`](crate::Server::builder).
///
/// [`bind`](Self::bind) reports the first mistake, such as a route that is registered twice or a port that is in use.
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until `bind`"]
pub struct ServerBuilder {
    pub(super) endpoints: Vec<(Endpoint, Security)>,
    /// Where clients are sent to https, and to which port.
    pub(super) redirects: Vec<(String, Option<u16>)>,
    pub(super) settings: Settings,
    /// A server that is bound, runs and ends with this one.
    #[cfg(feature = "manage")]
    pub(super) beside: Option<Box<dyn super::beside::Beside>>,
    /// The mistakes so far; `bind` reports the first.
    pub(super) errors: Vec<ServerError>,
}

/// Where to listen.
#[derive(Debug)]
pub(super) enum Endpoint {
    Address(String),
    /// With what requests tell by which listener they came.
    #[cfg(feature = "manage")]
    Tagged(String, u8),
    /// With the same.
    Listener(TcpListener, u8),
    Unix(UnixListener, u8),
}

impl ServerBuilder {
    /// Listens on one more address: `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080` (all addresses of the name), or
    /// `unix:/run/my.sock`. With port 0 the system chooses one; see [`Server::local_addrs`](crate::Server::local_addrs).
    ///
    /// Addresses of a name that this system does not have, such as `::1` where there is no IPv6, are left out with a line in the
    /// log, if there are others.
    ///
    /// `unix:/run/my.sock,mode=0660` sets the mode of the socket's file, and so who may connect, whatever the umask is; at no
    /// moment it has more. Without it the umask decides. A file that is left from a process that was killed is replaced. At the
    /// end the file is removed, unless somebody has put another one in its place.
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.endpoints.push((Endpoint::Address(address.into()), Security::None));
        self
    }

    /// Listens on one more address, with TLS.
    #[cfg(feature = "__tls")]
    pub fn listen_tls(mut self, address: impl Into<String>, identity: TlsIdentity) -> Self {
        self.push_tls(Endpoint::Address(address.into()), identity);
        self
    }

    /// Takes over a listener that the program has already bound, or was given. It becomes non-blocking, also for other
    /// processes that share it. At the end it is closed but not shut down, so that these can continue to accept.
    pub fn listener(mut self, listener: TcpListener) -> Self {
        self.endpoints.push((Endpoint::Listener(listener, 0), Security::None));
        self
    }

    /// Takes over a listener, as [`listener`](Self::listener) does, and speaks TLS there.
    #[cfg(feature = "__tls")]
    pub fn listener_tls(mut self, listener: TcpListener, identity: TlsIdentity) -> Self {
        self.push_tls(Endpoint::Listener(listener, 0), identity);
        self
    }

    #[cfg(feature = "__tls")]
    pub(super) fn push_tls(&mut self, endpoint: Endpoint, identity: TlsIdentity) {
        let checked = identity.check().map_err(ServerError::Tls);
        self.keep_error(checked);
        self.endpoints.push((endpoint, Security::Tls(identity)));
    }

    /// Takes over the listener of a Unix socket, as [`listener`](Self::listener) does. Its file is the program's: it is not removed
    /// at the end. In [`local_addrs`](crate::Server::local_addrs) it has the path that it was bound to; a name that is no file's
    /// (abstract) begins there with `@`.
    pub fn listener_unix(mut self, listener: UnixListener) -> Self {
        self.endpoints.push((Endpoint::Unix(listener, 0), Security::None));
        self
    }

    /// Takes over the listener of a Unix socket, as [`listener_unix`](Self::listener_unix) does, and speaks TLS there.
    #[cfg(feature = "__tls")]
    pub fn listener_unix_tls(mut self, listener: UnixListener, identity: TlsIdentity) -> Self {
        self.push_tls(Endpoint::Unix(listener, 0), identity);
        self
    }

    /// Serves a WebSocket at this path. `factory` makes the instance for each connection, on that connection's thread.
    ///
    /// A path such as `/chat/*` stands for all paths below `/chat/`. If several match, the longest wins; an exact path
    /// wins over all of them. It is written as in [`Request::path`](crate::Request::path): not encoded. What the `*` stands for is
    /// [`path_tail`](crate::Opening::path_tail).
    pub fn route<S: WebSocketServer>(
        mut self,
        path: &str,
        factory: impl Fn() -> S + Send + Sync + 'static,
    ) -> Self {
        let factory: Factory = Arc::new(move || Box::new(factory()));
        let result = self.settings.routes.websocket(path, factory);
        self.keep_error(result);
        self
    }

    /// Answers plain HTTP requests: `/page` those with GET and HEAD, `POST /page` those with another method. A path may have
    /// several methods, and a WebSocket, too; a request with any other method is answered with 405 and what there is. It may
    /// end with `/*` as in [`route`](Self::route).
    ///
    /// The handler runs on the connection's thread, and may return a [`Response`], a status alone, or, to use `?`, a
    /// `Result<Response, Refusal>`. The [body](Exchange::body) of the request is received only if it asks for that. The
    /// connection stays open for the client's next request, for [`Limits::http_keep_alive`].
    ///
    /// ```
    /// use switchboard::{Refusal, Response, Server, StatusCode};
    ///
    /// # fn main() -> Result<(), switchboard::ServerError> {
    /// let server = Server::builder()
    ///     .listen("127.0.0.1:0")
    ///     .http("/name", |_| Response::html("<form method=post><input name=name></form>"))
    ///     .http("POST /name", |exchange| -> Result<_, Refusal> {
    ///         let name = exchange.form_value("name")?.ok_or(StatusCode::BAD_REQUEST)?;
    ///         Ok(Response::text(StatusCode::OK, format!("Hello {name}")))
    ///     })
    ///     .bind()?;
    /// # Ok(()) }
    /// ```
    pub fn http<R: Into<Response>>(
        mut self,
        route: &str,
        handler: impl Fn(&Exchange<'_>) -> R + Send + Sync + 'static,
    ) -> Self {
        let result = self.settings.routes.page(route, Arc::new(move |exchange| handler(exchange).into()));
        self.keep_error(result);
        self
    }

    /// Serves the files of a folder, given by its path or as [`Files`]: at a path like `/files/*` all files below it, at an
    /// exact path like `/` only its `index.html`. A folder's path without the slash at its end is redirected.
    ///
    /// Files outside the folder, and those whose name begins with a dot, except `.well-known`, are not served: the answer is
    /// 404, or 426 if the path is that of a WebSocket, and is so by a longer [route](Self::route). A link may lead to a file
    /// inside. For a file that exists but cannot be opened the answer is 503, and the log says why.
    ///
    /// Conditional requests and ranges are answered as RFC 9110 says: 304, 206, 412, 416; where several ranges are asked for,
    /// with the whole file. If `app.js.br` or `app.js.gz` is beside `app.js`, and not older, clients that accept it get that
    /// instead, as the same file in another coding. The type is that of the file's name, text is taken to be UTF-8, and
    /// browsers are told not to guess another one (`X-Content-Type-Options: nosniff`).
    pub fn files(mut self, path: &str, folder: impl Into<Files>) -> Self {
        let opened = folder.into().open().map_err(ServerError::config);
        let result = opened.and_then(|files| self.settings.routes.files(path, files));
        self.keep_error(result);
        self
    }

    /// Adds a header line to all responses: pages, files, refusals, and the 101 of a WebSocket. One that the application sets
    /// itself on a response wins over those of the same name that are set here, except that of `Vary` both are sent. May be
    /// called several times, also with the same name: then all lines are sent.
    ///
    /// `bind` refuses what cannot be in a header, those that are the server's to set for each response (`Connection`,
    /// `Content-Length`, `Content-Type`, `Content-Encoding`, `Content-Range`, `Date`, `ETag`, `Keep-Alive`, `Last-Modified`,
    /// `TE`, `Trailer`, `Transfer-Encoding`, `Upgrade`, all `Sec-WebSocket-…`), and more than 16 KiB of them.
    ///
    /// ```
    /// # fn main() -> Result<(), switchboard::ServerError> {
    /// use switchboard::{Server, header};
    ///
    /// let server = Server::builder()
    ///     .listen("127.0.0.1:0")
    ///     // Pages load and connect to nothing but this server, and no other site shows them in a frame.
    ///     .header(header::CONTENT_SECURITY_POLICY, "default-src 'self'; frame-ancestors 'none'")
    ///     // Browsers that came by TLS once use nothing else for a year. They heed it only where it comes by TLS.
    ///     .header("Strict-Transport-Security", "max-age=31536000")
    ///     .bind()?;
    /// # Ok(()) }
    /// ```
    pub fn header(
        mut self,
        name: impl TryInto<HeaderName> + AsRef<[u8]>,
        value: impl TryInto<HeaderValue>,
    ) -> Self {
        let result = self.settings.headers.add(name, value);
        self.keep_error(result);
        self
    }

    /// Which web pages may connect, and may make other requests than GET and HEAD. Default: [`Origins::SameHost`].
    pub fn origins(mut self, origins: Origins) -> Self {
        self.keep_error(origins.check());
        self.settings.origins = origins;
        self
    }

    /// Names by which this server is reached, such as `box.example.com`, or `*.example.com` for all below a name. Of any other
    /// name, a web page or a request of one is answered with 421 where the connection's own address is loopback or private. A
    /// page of a stranger can make a browser take the stranger's own name for such an address (DNS rebinding): then `Host` and
    /// `Origin` agree, and only the name gives it away.
    ///
    /// Always allowed are names that no stranger can own: addresses, `localhost`, names without a dot, and those that end with
    /// `.local`, `.lan`, `.internal`, `.home.arpa` or `.localhost`. Not checked are requests from
    /// [`trusted_proxies`](Self::trusted_proxies), over Unix sockets, unless they were
    /// [handed over](crate::ServerHandle::adopt) with the client's address or [`proxy_protocol`](Self::proxy_protocol) tells it, and handshakes without an `Origin`, which are no web
    /// page's. `*` allows any name. Each call adds to those before it.
    ///
    /// ```
    /// # use switchboard::Server;
    /// let builder = Server::builder().listen("0.0.0.0:8080").hosts(["box.example.com"]);
    /// ```
    pub fn hosts(mut self, names: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        for name in names {
            let result = self.settings.hosts.add(name.as_ref());
            self.keep_error(result);
        }
        self
    }

    /// How messages are compressed, except on routes that choose it themselves. Default: [`Compression::Off`].
    pub fn compression(mut self, compression: Compression) -> Self {
        self.settings.compression = compression;
        self
    }

    /// The node that this server is among several that work together: all IDs of its connections
    /// [name](crate::WebSocketId::node) it. No two servers may have the same one. Default: a random one, new at each start.
    pub fn node(mut self, node: NodeId) -> Self {
        self.settings.node = Some(node);
        self
    }

    /// Makes the server a node of a [cluster](Cluster): its hub reaches the connections of all of them. They need the same
    /// [session keys](Self::session_keys), which [`bind`](Self::bind) asks for.
    #[cfg(feature = "cluster")]
    pub fn cluster(mut self, cluster: Cluster) -> Self {
        self.settings.cluster = Some(cluster);
        self
    }

    /// Replaces the default limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// Whether WebSockets have a session, unless `on_pre_server` [says otherwise](crate::Opening::set_use_session)
    /// (`UseSession`). Default: true. A page has one if its handler [asks for it](crate::Exchange::session).
    pub fn use_session(mut self, on: bool) -> Self {
        self.settings.without_session = !on;
        self
    }

    /// The keys that session IDs are signed with: the first one signs, and all of them verify, so that a new one can be put
    /// in front of the old one, and the old one be taken away when its cookies have been replaced, which each visit does.
    /// Several servers may have the same ones. Default: a random one, new at each start; then no ID outlives the process.
    ///
    /// Each has at least 32 bytes, which are secret and random; `openssl rand -base64 32` makes one. For one that is too short,
    /// or for none, `bind` returns an error.
    pub fn session_keys(mut self, keys: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        let result = SessionKeys::new(keys).map(|keys| self.settings.sessions.signing = Some(keys));
        self.keep_error(result);
        self
    }

    /// The cookie that names a session. Default: `switchboard-session`, which ends with the browser.
    pub fn session_cookie(mut self, cookie: SessionCookie) -> Self {
        self.keep_error(cookie.check());
        self.settings.sessions.cookie = cookie;
        self
    }

    /// Where sessions are stored. Default: in memory.
    pub fn session_store(mut self, store: impl SessionStore) -> Self {
        self.settings.sessions.store = Some(Box::new(store));
        self
    }

    /// A topic remembers its publications: those who [come back](crate::Hub::join_since) get what they have missed. `topics` is the
    /// name of one, or the beginning of names and a `*`: `chat/*`. An exact name wins over all others, and then the longest. In
    /// memory, and no longer than the process; [`Limits::max_history_bytes`] bounds all topics together, and
    /// [`Limits::max_queue_bytes`] each. Publications, and the line before them, must fit into three quarters of
    /// [`Limits::max_queue_messages`], or [`bind`](Self::bind) refuses them: by default 767 do. In a cluster
    /// they are kept [in Redis](crate#topics-that-remember). Default: none remembers anything.
    ///
    /// ```
    /// use switchboard::{History, Server};
    /// use std::time::Duration;
    ///
    /// # fn main() -> Result<(), switchboard::ServerError> {
    /// let hour = Duration::from_secs(3600);
    /// let server = Server::builder().listen("127.0.0.1:0").history("chat/*", History::new(100, hour)).bind()?;
    /// # Ok(()) }
    /// ```
    pub fn history(mut self, topics: &str, history: History) -> Self {
        let result = self.settings.histories.add(topics, history);
        self.keep_error(result);
        self
    }

    /// Tells this observer what happens to connections and topics. There may be several; they are told in this order.
    pub fn observer(mut self, observer: impl HubObserver) -> Self {
        self.settings.observers.add(observer);
        self
    }

    /// Reports the first mistake so far, as [`bind`](Self::bind) would, and changes nothing.
    ///
    /// # Errors
    /// [`ServerError::Config`].
    pub fn check(mut self) -> Result<Self, ServerError> {
        if self.errors.is_empty() { Ok(self) } else { Err(self.errors.swap_remove(0)) }
    }

    /// Checks the settings and binds the addresses, for [`bind`](Self::bind); those that only redirect come last, and their number
    /// is told.
    pub(super) fn build(mut self) -> Result<(Vec<Listener>, usize, Arc<Shared>), ServerError> {
        self = self.check()?;
        self.complete();
        self.settings.limits.check()?;
        let mut listeners = Vec::new();
        for (endpoint, security) in self.endpoints {
            match endpoint {
                Endpoint::Address(address) => listeners.extend(Listener::bind(&address, &security, None)?),
                #[cfg(feature = "manage")]
                Endpoint::Tagged(address, tag) => {
                    listeners.extend(Listener::bind(&address, &security, Some(tag))?)
                }
                Endpoint::Listener(listener, tag) => {
                    listeners.push(Listener::adopt(listener, security, tag)?)
                }
                Endpoint::Unix(listener, tag) => {
                    listeners.push(Listener::adopt_unix(listener, security, tag)?)
                }
            }
        }
        let redirecting = bind_redirects(self.redirects, &listeners)?;
        let redirects = redirecting.len();
        listeners.extend(redirecting);
        #[cfg(feature = "__tls")]
        {
            self.settings.certificates = Certificates::of(&listeners);
        }
        Ok((listeners, redirects, Arc::new(Shared::new(self.settings)?)))
    }

    /// The cluster, if it is to be in one.
    ///
    /// # Errors
    /// [`ServerError::Config`]: there are no session keys.
    #[cfg(feature = "cluster")]
    pub(super) fn take_cluster(&mut self) -> Result<Option<Cluster>, ServerError> {
        let Some(cluster) = self.settings.cluster.take() else { return Ok(None) };
        let Some(keys) = &self.settings.sessions.signing else {
            return Err(ServerError::config(
                "a cluster needs session keys that all of its nodes have: a session that one node has made is one of all. Set \
                 `session_keys`; `openssl rand -base64 32` makes one",
            ));
        };
        Ok(Some(if self.settings.without_session { cluster } else { cluster.with_keys(keys) }))
    }

    /// Tells what would be wrong with the cluster.
    ///
    /// # Errors
    /// What it is.
    #[cfg(feature = "cluster")]
    pub(super) fn rehearse_cluster(&mut self) -> Result<(), ServerError> {
        let node = self.settings.node;
        self.take_cluster()?.map_or(Ok(()), |cluster| crate::cluster::rehearse(&cluster, node))
    }

    /// Sets what follows from the settings.
    pub(super) fn complete(&mut self) {
        if !self.settings.headers.contains(&header::CACHE_CONTROL) {
            self.settings.routes.set_default_cache_control(&HeaderValue::from_static("no-cache"));
        }
    }

    /// Keeps an error for `bind`, so that the calls can be chained.
    pub(super) fn keep_error(&mut self, result: Result<(), ServerError>) {
        self.errors.extend(result.err());
    }
}

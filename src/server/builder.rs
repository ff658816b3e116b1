//! Configures a server: addresses, routes and settings. `build`, called by [`bind`](ServerBuilder::bind), checks them and
//! binds the addresses. Nothing is accepted here.

use std::{
    net::{IpAddr, TcpListener},
    path::Path,
    sync::Arc,
};

use super::{
    exchange::Exchange,
    listener::{Listener, Security},
    routes::Factory,
    shared::{Settings, Shared},
};
#[cfg(feature = "tls")]
use crate::tls::TlsIdentity;
use crate::{
    compression::Compression,
    error::{Result, ServerError},
    http::{Files, Origins, Response},
    id::NodeId,
    limits::Limits,
    observer::HubObserver,
    session::{MemoryStore, SessionStore},
    websocket::WebSocketServer,
};

/// Configures a [`Server`](crate::Server); made by [`Server::builder`](crate::Server::builder).
///
/// [`bind`](Self::bind) reports the first mistake, such as a route that is registered twice or a port that is in use.
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until `bind`"]
pub struct ServerBuilder {
    endpoints: Vec<(Endpoint, Security)>,
    settings: Settings,
    sessions: Option<Arc<dyn SessionStore>>,
    /// The first mistake, for `bind` to report.
    first_error: Option<ServerError>,
}

/// Where to listen.
#[derive(Debug)]
enum Endpoint {
    Address(String),
    Listener(TcpListener),
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
    #[cfg(feature = "tls")]
    pub fn listen_tls(mut self, address: impl Into<String>, identity: TlsIdentity) -> Self {
        self.endpoints.push((Endpoint::Address(address.into()), Security::Tls(identity)));
        self
    }

    /// Takes over a listener that the program has already bound, or was given. It becomes non-blocking, also for other
    /// processes that share it. At the end it is closed but not shut down, so that these can continue to accept.
    pub fn listener(mut self, listener: TcpListener) -> Self {
        self.endpoints.push((Endpoint::Listener(listener), Security::None));
        self
    }

    /// Serves a WebSocket at this path. `factory` makes the instance for each connection, on that connection's thread.
    ///
    /// A path such as `/chat/*` stands for all paths below `/chat/`. If several match, the longest wins; an exact path
    /// wins over all of them.
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

    /// Answers plain HTTP requests at this path, which may end with `/*` as in [`route`](Self::route). The handler runs
    /// on the connection's thread; the body of the request, if there is one, is not read.
    pub fn http(
        mut self,
        path: &str,
        handler: impl Fn(&Exchange<'_>) -> Response + Send + Sync + 'static,
    ) -> Self {
        let result = self.settings.routes.page(path, Arc::new(handler));
        self.keep_error(result);
        self
    }

    /// Serves the files of a folder: at a path like `/files/*` all files below it, at an exact path like `/` only its
    /// `index.html`. Files outside the folder, and those whose name begins with a dot, are not served: the answer is
    /// 404. For a file that exists but cannot be opened it is 503, and the log says why.
    pub fn files(mut self, path: &str, folder: impl AsRef<Path>) -> Self {
        let folder = folder.as_ref();
        let result = Files::new(folder)
            .map_err(|e| ServerError::config(format!("cannot serve files of {}: {e}", folder.display())))
            .and_then(|files| self.settings.routes.files(path, files));
        self.keep_error(result);
        self
    }

    /// Which web pages may connect. Default: [`Origins::SameHost`].
    pub fn origins(mut self, origins: Origins) -> Self {
        self.keep_error(origins.check());
        self.settings.origins = origins;
        self
    }

    /// How messages are compressed, except on routes that choose it themselves. Default: [`Compression::Off`].
    pub fn compression(mut self, compression: Compression) -> Self {
        self.settings.compression = compression;
        self
    }

    /// Proxies whose `X-Forwarded-For` is trusted; see [`Request::client_address`](crate::Request::client_address).
    /// Default: none.
    pub fn trusted_proxies(mut self, proxies: impl IntoIterator<Item = IpAddr>) -> Self {
        self.settings.trusted_proxies = proxies.into_iter().map(|ip| ip.to_canonical()).collect();
        self
    }

    /// The node that this server is among several that work together: all IDs of its connections
    /// [name](crate::WebSocketId::node) it. No two servers may have the same one. Default: a random one, new at each start.
    pub fn node(mut self, node: NodeId) -> Self {
        self.settings.node = Some(node);
        self
    }

    /// Replaces the default limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// Where sessions are stored. Default: in memory.
    pub fn session_store(mut self, store: impl SessionStore) -> Self {
        self.sessions = Some(Arc::new(store));
        self
    }

    /// Tells this observer what happens to connections and topics. There may be several; they are told in this order.
    pub fn observer(mut self, observer: impl HubObserver) -> Self {
        self.settings.observers.add(observer);
        self
    }

    /// Checks the settings and binds the addresses, for [`bind`](Self::bind).
    pub(super) fn build(mut self) -> Result<(Vec<Listener>, Arc<Shared>), ServerError> {
        if let Some(error) = self.first_error.take() {
            return Err(error);
        }
        if self.endpoints.is_empty() {
            return Err(ServerError::config("a server needs an address: call `listen` before `bind`"));
        }
        self.settings.limits.check()?;
        let mut listeners = Vec::new();
        for (endpoint, security) in self.endpoints {
            match endpoint {
                Endpoint::Address(address) => listeners.extend(Listener::bind(&address, &security)?),
                Endpoint::Listener(listener) => listeners.push(Listener::adopt(listener, security)?),
            }
        }
        let limits = &self.settings.limits;
        let sessions = self
            .sessions
            .unwrap_or_else(|| Arc::new(MemoryStore::new(limits.session_timeout, limits.max_sessions)));
        Ok((listeners, Arc::new(Shared::new(self.settings, sessions)?)))
    }

    /// Keeps the first error for `bind`, so that the calls can be chained.
    fn keep_error(&mut self, result: Result<(), ServerError>) {
        if self.first_error.is_none() {
            self.first_error = result.err();
        }
    }
}

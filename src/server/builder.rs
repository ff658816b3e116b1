//! How a server is put together: addresses, routes and settings, checked and bound by `build`, which is called by
//! [`bind`](ServerBuilder::bind). Nothing is accepted here.

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
    error::{Error, Result},
    http::{Files, Origins, Response},
    limits::Limits,
    session::{MemoryStore, SessionStore},
    websocket::WebSocketServer,
};

/// Puts a [`Server`](crate::Server) together; made by [`Server::builder`](crate::Server::builder).
///
/// A mistake, such as a route that is there twice or a port that is taken, comes out of [`bind`](Self::bind).
#[derive(Debug, Default)]
#[must_use = "a builder does nothing until `bind`"]
pub struct ServerBuilder {
    endpoints: Vec<(Endpoint, Security)>,
    settings: Settings,
    sessions: Option<Arc<dyn SessionStore>>,
    mistake: Option<Error>,
}

/// Where to listen.
#[derive(Debug)]
enum Endpoint {
    Address(String),
    Listener(TcpListener),
}

impl ServerBuilder {
    /// Listens on one more address: `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080` (all addresses that the name
    /// has), or `unix:/run/my.sock`. Port 0 lets the system choose; see [`Server::local_addrs`](crate::Server::local_addrs).
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

    /// Takes over a listener that the program has bound already, or was given. It becomes non-blocking, for everybody who
    /// shares it. At the end it is closed, and not shut down: whoever shares it can go on accepting.
    pub fn listener(mut self, listener: TcpListener) -> Self {
        self.endpoints.push((Endpoint::Listener(listener), Security::None));
        self
    }

    /// Serves a WebSocket at this path. `factory` makes the instance for each connection, on that connection's thread.
    ///
    /// A path such as `/chat/*` stands for all paths below `/chat/`; of several, the longest counts, and an exact
    /// path more than any of them.
    pub fn route<S: WebSocketServer>(
        mut self,
        path: &str,
        factory: impl Fn() -> S + Send + Sync + 'static,
    ) -> Self {
        let factory: Factory = Arc::new(move || Box::new(factory()));
        let result = self.settings.routes.websocket(path, factory);
        self.note(result);
        self
    }

    /// Answers plain HTTP requests at this path, which is as in [`route`](Self::route). The handler runs on the
    /// request's own thread; the request's body, if there is one, is not read.
    pub fn http(
        mut self,
        path: &str,
        handler: impl Fn(&Exchange<'_>) -> Response + Send + Sync + 'static,
    ) -> Self {
        let result = self.settings.routes.page(path, Arc::new(handler));
        self.note(result);
        self
    }

    /// Serves the files of a folder: at `/files/*` those below it, at `/` its `index.html`. Nothing outside the
    /// folder is served, and nothing whose name begins with a dot: the answer to that is 404. If a file is there but
    /// cannot be opened, it is 503, and the log says why.
    pub fn files(mut self, path: &str, folder: impl AsRef<Path>) -> Self {
        let folder = folder.as_ref();
        let result = Files::new(folder)
            .map_err(|e| Error::config(format!("cannot serve files of {}: {e}", folder.display())))
            .and_then(|files| self.settings.routes.files(path, files));
        self.note(result);
        self
    }

    /// Which pages may connect. Default: those of the same host.
    pub fn origins(mut self, origins: Origins) -> Self {
        self.note(origins.check());
        self.settings.origins = origins;
        self
    }

    /// How messages are compressed, on routes that do not choose for themselves. Default: [`Compression::Off`].
    pub fn compression(mut self, compression: Compression) -> Self {
        self.settings.compression = compression;
        self
    }

    /// Proxies whose `X-Forwarded-For` is believed; see [`Request::client_address`](crate::Request::client_address).
    pub fn trusted_proxies(mut self, proxies: impl IntoIterator<Item = IpAddr>) -> Self {
        self.settings.trusted_proxies = proxies.into_iter().map(|ip| ip.to_canonical()).collect();
        self
    }

    /// Other limits than the default ones.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// Sessions that the program has already.
    pub fn session_store(mut self, store: impl SessionStore) -> Self {
        self.sessions = Some(Arc::new(store));
        self
    }

    /// What [`bind`](Self::bind) makes a server of.
    pub(super) fn build(mut self) -> Result<(Vec<Listener>, Arc<Shared>)> {
        if let Some(mistake) = self.mistake.take() {
            return Err(mistake);
        }
        if self.endpoints.is_empty() {
            return Err(Error::config("a server needs an address: call `listen` before `bind`"));
        }
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

    /// Keeps the first mistake for `bind`, so that the calls can be chained.
    fn note(&mut self, result: Result<()>) {
        if self.mistake.is_none() {
            self.mistake = result.err();
        }
    }
}

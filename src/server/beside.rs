//! A server beside another one, such as one to manage it: it is bound with that one, runs before its first client is accepted, and
//! ends after its last connection. All that it is asked is answered by one handler.

use std::{fmt, fs::File, net::TcpListener, os::unix::net::UnixListener, sync::Arc, time::Duration};

use super::{
    RunningServer, Server,
    acceptor::is_exhaustion,
    builder::{Endpoint, ServerBuilder},
    exchange::Exchange,
    listener::{ListenAddr, Security},
    rehearsal::Rehearsal,
    shared::{Shared, Writing},
};
#[cfg(feature = "__tls")]
use crate::tls::TlsIdentity;
use crate::{
    clock::Moment,
    error::{Result, ServerError},
    http::Response,
    hub::Hub,
    incidents::Incident,
    limits::Limits,
    metrics::Metrics,
    registry::{Census, Registry},
};

/// How long requests have to end when the other server has ended.
const GRACE: Duration = Duration::from_secs(1);

/// Makes a server beside another one.
pub(crate) trait Beside: fmt::Debug + Send {
    /// Binds it. The addresses of the other one are bound already.
    ///
    /// # Errors
    /// As [`ServerBuilder::bind`].
    fn bind(self: Box<Self>, main: MainServer) -> Result<Server, ServerError>;

    /// Tells what `bind` would fail with.
    fn rehearse(self: Box<Self>, main: MainServer) -> Rehearsal;
}

/// The other server, as one beside it sees it.
#[derive(Debug, Clone)]
pub(crate) struct MainServer(Arc<Shared>);

impl MainServer {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        Self(shared.clone())
    }

    pub(crate) fn hub(&self) -> Hub {
        Hub::new(self.0.registry.clone())
    }

    /// What all connections come to.
    pub(crate) fn census(&self) -> Census {
        self.0.registry.census()
    }

    /// What is counted as it happens.
    pub(crate) fn metrics(&self) -> Option<&Metrics> {
        self.0.registry.metrics().map(|metrics| &**metrics)
    }

    /// What clients have brought about, and how often.
    pub(crate) fn incidents(&self) -> Vec<(Incident, u64)> {
        self.0.incidents.totals()
    }

    /// For what waits in another way than the [hub](Self::hub).
    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.0.registry
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// How long ago it was made.
    pub(crate) fn uptime(&self) -> Duration {
        self.0.clock.exact().since(Moment::START)
    }

    /// How it is in its cluster, if it is in one.
    #[cfg(feature = "cluster")]
    pub(crate) fn standing(&self) -> Option<crate::elsewhere::Standing> {
        self.0.registry.elsewhere().map(|elsewhere| elsewhere.standing())
    }

    /// The same in a word.
    pub(crate) fn cluster_state(&self) -> Option<&'static str> {
        #[cfg(feature = "cluster")]
        return self.standing().map(|standing| if standing.is_up { "up" } else { "unreachable" });
        #[cfg(not(feature = "cluster"))]
        return None;
    }

    /// Nodes of its cluster that it knows, itself included.
    pub(crate) fn nodes(&self) -> usize {
        #[cfg(feature = "cluster")]
        return self.standing().map_or(1, |standing| standing.nodes);
        #[cfg(not(feature = "cluster"))]
        return 1;
    }

    /// Whether it takes new connections.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) fn check_ready(&self) -> Result<(), &'static str> {
        let has_place = self.0.connections() < self.0.max_connections() || !self.0.idle.is_empty();
        if self.0.is_stopping() {
            Err("the server shuts down")
        } else if !has_place {
            Err("all places are taken (max_connections)")
        } else if !self.0.has_thread() {
            Err("no thread is left for one more connection")
        } else if !self.0.has_memory() {
            Err("the server is short of memory")
        } else if File::open("/dev/null").is_err_and(|e| is_exhaustion(&e)) {
            Err("no file descriptor is left")
        } else {
            Ok(())
        }
    }
}

impl ServerBuilder {
    /// Adds a server that is bound, runs and ends with this one. There is one at most.
    pub(crate) fn beside(mut self, beside: impl Beside + 'static) -> Self {
        match self.beside {
            None => self.beside = Some(Box::new(beside)),
            Some(_) => self.keep_error(Err(ServerError::config("there can be one management listener only"))),
        }
        self
    }

    /// Counts what happens, for whoever asks the server beside this one.
    pub(crate) fn counted(mut self) -> Self {
        self.settings.metrics = Some(Arc::new(Metrics::new()));
        self
    }

    /// Answers everything by this handler, except handshakes for the path of a WebSocket. Refusals that it does not see, such as of
    /// a malformed request, are written by `writing`.
    pub(crate) fn answer_all(
        mut self,
        handler: impl Fn(&Exchange<'_>) -> Response + Send + Sync + 'static,
        writing: Writing,
    ) -> Self {
        self.settings.routes.all = Some(Arc::new(handler));
        self.settings.writing = Some(writing);
        self
    }

    /// As [`listen`](Self::listen); requests that come there have this [tag](Exchange::tag).
    pub(crate) fn listen_tagged(mut self, address: String, tag: u8) -> Self {
        self.endpoints.push((Endpoint::Tagged(address, tag), Security::None));
        self
    }

    /// The same at a listener that was taken over.
    pub(crate) fn listener_tagged(mut self, listener: TcpListener, tag: u8) -> Self {
        self.endpoints.push((Endpoint::Listener(listener, tag), Security::None));
        self
    }

    /// The same at one of a Unix socket.
    pub(crate) fn listener_unix_tagged(mut self, listener: UnixListener, tag: u8) -> Self {
        self.endpoints.push((Endpoint::Unix(listener, tag), Security::None));
        self
    }

    /// The same as [`listen_tagged`](Self::listen_tagged) with TLS.
    #[cfg(feature = "__tls")]
    pub(crate) fn listen_tls_tagged(mut self, address: String, identity: TlsIdentity, tag: u8) -> Self {
        self.push_tls(Endpoint::Tagged(address, tag), identity);
        self
    }
}

impl Server {
    /// Where it can be [managed](ServerBuilder::manage), in the order of the `listen` calls of [`Manage`](crate::Manage), with the
    /// ports that the system chose. Empty if it cannot.
    pub fn manage_addrs(&self) -> &[ListenAddr] {
        self.beside.as_ref().map_or(&[][..], |beside| beside.local_addrs())
    }

    /// Starts the server beside this one.
    pub(super) fn start_beside(beside: Option<Box<Self>>) -> Result<Option<RunningServer>, ServerError> {
        beside.map(|beside| beside.spawn()).transpose()
    }
}

/// Ends the server beside another one, whose own end is no failure of that. If it failed, that was logged.
pub(super) fn end_beside(beside: Option<RunningServer>) {
    if let Some(Err(e)) = beside.map(|beside| beside.shutdown(GRACE)) {
        log::debug!("the server beside this one has failed: {e}");
    }
}

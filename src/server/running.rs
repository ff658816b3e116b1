//! A server that runs on a thread of its own, and ends when nobody wants it any more.

use std::{
    fmt,
    io::{self, ErrorKind},
    thread::JoinHandle,
    time::Duration,
};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};

use super::{Server, handle::ServerHandle, listener::ListenAddr};
use crate::{error::ServerError, hub::Hub, id::NodeId, thread};

/// The thread only waits, and joins others.
const STACK: usize = 256 * 1024;

/// How long connections have to end when the server is dropped.
const GRACE: Duration = Duration::from_secs(10);

/// When connections have been cut, their handlers return. Those that do not within this time are left behind by a drop.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// A server that runs on a thread of its own; made by [`Server::spawn`]. Dropping it ends the server in order, and waits for
/// that.
///
/// Dropping it closes all connections with 1001, gives their handlers 10 seconds, or what [`set_grace`](Self::set_grace) says,
/// and then cuts their sockets. It waits until all threads are joined; but for a handler that does not return then, either, only
/// five seconds more, and not at all on a thread of the server itself, such as in a handler, which would wait for itself. In both
/// cases the server ends by itself as soon as the handler returns.
///
/// ```
/// # fn main() -> Result<(), switchboard::ServerError> {
/// use switchboard::{Response, Server};
///
/// let server = Server::builder().listen("127.0.0.1:0").http("/", |_| Response::html("hello")).bind()?.spawn()?;
/// println!("listening on http://{}/", server.local_addrs()[0]);
/// // What the program has done before it had a server.
/// # Ok(()) }
/// ```
#[must_use = "the server ends when this is dropped: give it a name, not `_`"]
pub struct RunningServer {
    handle: ServerHandle,
    hub: Hub,
    addresses: Vec<ListenAddr>,
    of_tls: Vec<ListenAddr>,
    redirecting: Vec<ListenAddr>,
    #[cfg(feature = "manage")]
    managed_at: Vec<ListenAddr>,
    node: NodeId,
    number: usize,
    grace: Duration,
    /// `None`: it was joined.
    thread: Option<JoinHandle<()>>,
    /// What `run` has returned.
    result: Receiver<Result<(), ServerError>>,
}

impl Server {
    /// Serves on a thread of its own, for programs that have a loop of their own. What this returns ends the server, in order,
    /// when it is dropped.
    ///
    /// ```
    /// # use switchboard::{ServerResult, WebSocket, WebSocketServer};
    /// # struct Listener;
    /// # impl WebSocketServer for Listener {
    /// #     fn server(&mut self, ws: &mut WebSocket) -> ServerResult { Ok(()) }
    /// # }
    /// # fn measure() -> f64 { 20.0 }
    /// use std::time::Duration;
    /// use switchboard::{Audience, Server};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Server::builder().listen("127.0.0.1:0").route("/readings", || Listener).bind()?.spawn()?;
    /// let hub = server.hub();
    /// for _ in 0..3 {
    ///     let _ = hub.broadcast(Audience::Route("/readings"), format!("{:.1}", measure()))?;
    /// }
    /// server.shutdown(Duration::from_secs(5))?; // or it is dropped
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ServerError::Io`] if the system refuses to start the thread.
    pub fn spawn(self) -> Result<RunningServer, ServerError> {
        RunningServer::start(self)
    }
}

impl RunningServer {
    fn start(server: Server) -> Result<Self, ServerError> {
        let (tell, result) = bounded(1);
        let addresses = server.local_addrs().to_vec();
        let mut running = Self {
            handle: server.handle(),
            hub: server.hub(),
            of_tls: addresses.iter().filter(|address| server.is_tls(address)).cloned().collect(),
            addresses,
            redirecting: server.redirect_addrs().to_vec(),
            #[cfg(feature = "manage")]
            managed_at: server.manage_addrs().to_vec(),
            node: server.node(),
            number: server.shared.number(),
            grace: GRACE,
            thread: None,
            result,
        };
        let run = move || {
            let _ = tell.send(server.run()); // it fails if nobody waits any more
        };
        running.thread = Some(thread::spawn("switchboard-run", STACK, run)?);
        Ok(running)
    }

    /// All connections; see [`Server::hub`].
    pub fn hub(&self) -> Hub {
        self.hub.clone()
    }

    /// A handle to shut it down with from elsewhere; see [`Server::handle`].
    pub fn handle(&self) -> ServerHandle {
        self.handle.clone()
    }

    /// Where it listens; see [`Server::local_addrs`].
    pub fn local_addrs(&self) -> &[ListenAddr] {
        &self.addresses
    }

    /// Whether TLS is spoken at this one of [`local_addrs`](Self::local_addrs).
    pub fn is_tls(&self, address: &ListenAddr) -> bool {
        self.of_tls.contains(address)
    }

    /// Where clients are only sent to https; see [`Server::redirect_addrs`].
    pub fn redirect_addrs(&self) -> &[ListenAddr] {
        &self.redirecting
    }

    /// Where it can be managed; see [`Server::manage_addrs`].
    #[cfg(feature = "manage")]
    pub fn manage_addrs(&self) -> &[ListenAddr] {
        &self.managed_at
    }

    /// The node that this server is; see [`Server::node`].
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// How long connections have to end when this is dropped. Default: 10 s.
    pub fn set_grace(&mut self, grace: Duration) {
        self.grace = grace;
    }

    /// Whether it has ended: it was shut down by a [handle](Self::handle), or no more clients could be accepted, which
    /// [`wait`](Self::wait) tells.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until a [handle](Self::handle) has shut the server down, or until it has failed.
    ///
    /// # Errors
    /// What [`Server::run`] has returned. [`ServerError::Io`] with [`ErrorKind::Deadlock`] at once on a thread of the server
    /// itself, such as in a handler: then the server is shut down as if this had been dropped.
    pub fn wait(mut self) -> Result<(), ServerError> {
        if thread::belongs_to(self.number) {
            return Err(deadlock());
        }
        let result = self.result.recv();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it has told what there is to tell
        }
        result.unwrap_or_else(|_| Err(ServerError::Io(io::Error::other("the server's thread panicked"))))
    }

    /// Ends the server, as [`ServerHandle::shutdown`], and waits until all its threads are joined and its sockets closed. A
    /// handler that never returns keeps this from returning: threads cannot be killed.
    ///
    /// # Errors
    /// What [`Server::run`] has returned. On a thread of the server itself, such as in a handler, [`ServerError::Io`] with
    /// [`ErrorKind::Deadlock`] at once: the server ends, but this thread cannot wait for it.
    pub fn shutdown(mut self, grace: Duration) -> Result<(), ServerError> {
        self.handle.shutdown(grace);
        self.grace = grace;
        self.wait()
    }

    /// Waits for the end, if this thread may, and for as long as a drop waits.
    fn end(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.handle.shutdown(self.grace);
        if thread::belongs_to(self.number) {
            log::debug!("a server was dropped by one of its own threads: it ends when that returns");
            return;
        }
        match self.result.recv_timeout(self.grace.saturating_add(LAST_WAIT)) {
            Err(RecvTimeoutError::Timeout) => {
                log::error!("a handler does not return: the server ends without whoever has dropped it");
            }
            _ => {
                let _ = thread.join(); // an error of `run` was logged
            }
        }
    }
}

fn deadlock() -> ServerError {
    let text = "a thread of the server cannot wait for its end";
    ServerError::Io(io::Error::new(ErrorKind::Deadlock, text))
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for RunningServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ended = if self.has_ended() { "ended" } else { "running" };
        write!(f, "RunningServer({ended}, {:?})", self.addresses)
    }
}

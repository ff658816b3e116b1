//! What a program keeps to shut a server down with, and to hand connections over to it.

use std::{sync::Arc, time::Duration};

use super::{
    adopt::{Adopted, Adopter},
    shared::Shared,
};
use crate::{
    connection::AdoptedStream,
    deadline::Deadline,
    http::Request,
    pulse::{NoProgress, Pulse},
    thread::must_not_wait,
};

/// Shuts a server down, and hands connections over to it, from any thread. Clones belong to the same server.
#[derive(Debug, Clone)]
pub struct ServerHandle {
    shared: Arc<Shared>,
    adopter: Arc<Adopter>,
    /// That of the server beside it, if there is one.
    beside: Option<Arc<Pulse>>,
}

impl ServerHandle {
    pub(super) fn new(shared: Arc<Shared>, adopter: Arc<Adopter>, beside: Option<Arc<Pulse>>) -> Self {
        Self { shared, adopter, beside }
    }

    /// Hands over a connection that an HTTP server of the program has accepted, with the request that it has received, and what
    /// it has received after that. So a program that has an HTTP server already adds WebSockets to it.
    ///
    /// From now on the connection is this server's, as if it had accepted it: it answers the request, with the 101 or with what
    /// is to be said instead, and those that follow; routes, limits, origins and the shutdown hold for it. If there is no place
    /// for it, or the server shuts down, the answer is 503. If the server does not run yet, the connection waits for that. This
    /// call waits for nothing.
    ///
    /// The server needs no address for this: `bind` works without [`listen`](crate::ServerBuilder::listen). Whoever serves TLS himself,
    /// or has no socket at all, passes one end of a `UnixStream::pair` and copies between the other end and the client, in each
    /// direction on a thread of its own.
    ///
    /// ```
    /// # use switchboard::{ServerResult, WebSocket, WebSocketServer};
    /// # struct Echo;
    /// # impl WebSocketServer for Echo {
    /// #     fn server(&mut self, ws: &mut WebSocket) -> ServerResult { Ok(()) }
    /// # }
    /// use std::{io::{Read, Write}, os::unix::net::UnixStream, time::Duration};
    /// use switchboard::{Request, Server};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Server::builder().route("/echo", || Echo).bind()?;
    /// let handle = server.handle();
    /// let running = std::thread::spawn(move || server.run());
    ///
    /// # let (mut client, mut stream) = UnixStream::pair()?;
    /// # client.write_all(b"GET /echo HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    /// #     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")?;
    /// // The HTTP server has accepted `stream`, and reads.
    /// let mut bytes = Vec::new();
    /// let (request, length) = loop {
    ///     let mut more = [0; 1024];
    ///     let n = stream.read(&mut more)?;
    ///     bytes.extend_from_slice(&more[..n]);
    ///     if let Some(parsed) = Request::parse(&bytes)? {
    ///         break parsed;
    ///     }
    ///     # assert!(n > 0);
    /// };
    /// if request.header("upgrade").is_some() {
    ///     handle.adopt(stream, request, &bytes[length..]);
    /// }
    /// # let mut answer = [0; 12];
    /// # client.read_exact(&mut answer)?;
    /// # assert_eq!(&answer, b"HTTP/1.1 101");
    /// # handle.shutdown(Duration::ZERO);
    /// # running.join().unwrap()?;
    /// # Ok(()) }
    /// ```
    pub fn adopt(
        &self,
        stream: impl Into<AdoptedStream>,
        request: Request,
        already_read: impl Into<Vec<u8>>,
    ) {
        let adopted = Adopted::new(stream.into(), request, already_read.into());
        self.adopter.adopt(&self.shared, adopted);
    }

    /// Ends the server, and returns at once; [`Server::run`](crate::Server::run) returns when all is done.
    ///
    /// No new connections are accepted, handshakes under way are answered with 503, and all open connections are
    /// closed with 1001. Handlers have the grace period to return; then their sockets are cut, and what they wait for of other nodes of a
    /// cluster is [`Unreachable`](crate::Error::Unreachable). A handler that never returns keeps `run` from returning: threads cannot be
    /// killed.
    ///
    /// A second call can only shorten the grace period.
    pub fn shutdown(&self, grace: Duration) {
        self.shared.shutdown(grace);
    }

    /// Whether the server goes on: wakes all threads that accept and all gateways, those of the management listener included, and
    /// waits until each has gone round its loop. That takes microseconds, and `patience` at most. It is for whoever feeds a
    /// watchdog, that of systemd or of the hardware, and wants it starved when something is stuck, such as
    /// [`on_client_message`](crate::WebSocketServer::on_client_message) of a server without workers, or a logger.
    ///
    /// Handlers on threads of their own, or on workers, may take as long as they like. While the server shuts down nothing accepts,
    /// and only the gateways are asked. If it does not run yet, this waits for that, and so tells when it does.
    ///
    /// From any thread except a gateway, where it waits for nothing, and fails.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    /// use switchboard::Server;
    ///
    /// let server = Server::builder().listen("127.0.0.1:0").bind()?.spawn()?;
    /// match server.handle().check_progress(Duration::from_secs(5)) {
    ///     Ok(()) => println!("here the watchdog is fed"),
    ///     Err(stuck) => eprintln!("{stuck}"),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`NoProgress`], which says who is stuck, or that the server does not run.
    pub fn check_progress(&self, patience: Duration) -> Result<(), NoProgress> {
        let patience = if must_not_wait() { Duration::ZERO } else { patience };
        let deadline = Deadline::after(patience);
        let (own, beside) =
            (self.shared.pulse.ask(), self.beside.as_ref().map(|beside| (beside, beside.ask())));
        let own = self.shared.pulse.wait(own, deadline);
        let beside = beside.map_or(Ok(()), |(pulse, round)| pulse.wait(round, deadline));
        match (own, beside) {
            (Ok(()), Ok(())) => Ok(()),
            (Err(of), _) if of.is_empty() => Err(NoProgress::new(patience, of)),
            (own, beside) => {
                let mut of = own.err().unwrap_or_default();
                let of_manage = beside.err().unwrap_or_default().into_iter();
                of.extend(of_manage.map(|name| format!("{name} (management)")));
                Err(NoProgress::new(patience, of))
            }
        }
    }

    /// How many connections there are, those included that are in their handshake or wait for an HTTP request.
    pub fn connections(&self) -> usize {
        self.shared.connections()
    }
}

//! The HTTP phase of a connection: reads the request and sends the response, if it is none of a WebSocket. It runs on the
//! connection's own thread, blocking, under one deadline. It knows nothing of routes.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use http::{HeaderName, HeaderValue, Method};

use crate::{
    codec::{Failure, Stream},
    connection::Socket,
    deadline::Deadline,
    http::{Body, CommonHeaders, Refusal, Request, Response, parse_head},
    limits::Limits,
    session::{Session, SessionStore},
};

/// How much of a file is sent at a time.
const CHUNK: usize = 64 * 1024;

/// How long the client may take to end its side after a response.
const LINGER: Duration = Duration::from_secs(1);

/// A plain HTTP request, for a handler of [`http`](crate::ServerBuilder::http).
#[derive(Debug)]
pub struct Exchange<'a> {
    request: &'a Request,
    sessions: &'a Arc<dyn SessionStore>,
    session: OnceLock<(Session, Option<(HeaderName, HeaderValue)>)>,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(request: &'a Request, sessions: &'a Arc<dyn SessionStore>) -> Self {
        Self { request, sessions, session: OnceLock::new() }
    }

    /// What the client asked for.
    pub fn request(&self) -> &Request {
        self.request
    }

    /// The session of this client, the same that its WebSockets have. A new one's cookie is added to the response.
    pub fn session(&self) -> &Session {
        &self.session.get_or_init(|| Session::open(self.sessions, self.request)).0
    }

    /// The cookie of a session that was made.
    pub(super) fn into_cookie(self) -> Option<(HeaderName, HeaderValue)> {
        self.session.into_inner().and_then(|(_, cookie)| cookie)
    }
}

/// A socket that does not speak WebSocket yet.
pub(super) struct Incoming {
    pub(super) socket: Arc<Socket>,
    pub(super) stream: Stream,
    pub(super) peer: Option<SocketAddr>,
    pub(super) is_secure: bool,
    pub(super) deadline: Deadline,
}

/// Why there is no request.
pub(super) enum NoRequest {
    /// A request came, and is answered with this.
    Refused(Refusal),
    /// None came, for this reason: the client left, was too slow, or broke TLS.
    Gone(String),
}

impl Incoming {
    /// Receives the request's head, with the TLS handshake before it. What follows it stays in the stream.
    pub(super) fn read_head(&mut self, limits: &Limits) -> Result<Box<Request>, NoRequest> {
        let gone = |e: io::Error| NoRequest::Gone(e.to_string());
        let (mut buffer, mut seen) = (Vec::new(), 0);
        loop {
            buffer.reserve(1024);
            let left = self.deadline.remaining().ok_or_else(|| NoRequest::Gone("took too long".into()))?;
            self.socket.set_recv_timeout(left).map_err(gone)?;
            match self.socket.recv(&mut buffer) {
                Ok(0) => return Err(NoRequest::Gone("left before a request was complete".into())),
                Ok(_) => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                    continue;
                }
                Err(e) => return Err(gone(e)),
            }
            let fed = self.stream.feed(&mut buffer);
            self.send_pending()?; // what TLS has to say, also if it failed
            fed.map_err(|failure| NoRequest::Gone(failure.text.into()))?;
            let input = self.stream.input();
            if !input.is_empty() && (may_end(input, seen) || input.len() >= limits.max_head) {
                match parse_head(input, limits.max_head) {
                    Ok(None) => {}
                    Ok(Some((request, length))) => {
                        self.stream.consume(length);
                        return Ok(request);
                    }
                    Err(refusal) => return Err(NoRequest::Refused(refusal)),
                }
            }
            seen = input.len();
            if self.stream.ended() {
                return Err(NoRequest::Gone("ended TLS before a request was complete".into()));
            }
        }
    }

    /// Sends a response and ends the connection, so that the client can read all of it.
    pub(super) fn respond(
        &mut self,
        response: Response,
        method: Option<&Method>,
        headers: &CommonHeaders,
        limits: &Limits,
    ) -> io::Result<()> {
        let (head, body) = response.into_parts(headers);
        self.stream.output().extend_from_slice(&head);
        let deadline = || Deadline::after(limits.write_timeout);
        match body {
            _ if method == Some(&Method::HEAD) => {}
            Body::Bytes(bytes) => {
                for chunk in bytes.chunks(CHUNK) {
                    self.stream.output().extend_from_slice(chunk);
                    self.send(deadline())?;
                }
            }
            Body::File(mut file) => {
                let mut chunk = vec![0; CHUNK];
                loop {
                    let n = file.read(&mut chunk)?;
                    if n == 0 {
                        break;
                    }
                    self.stream.output().extend_from_slice(&chunk[..n]);
                    self.send(deadline())?;
                }
            }
        }
        self.send(deadline())?;
        self.finish();
        Ok(())
    }

    /// Ends the stream this way, and throws away what still comes until the client ends it, too: a socket closed with
    /// unread input would reset the connection, and the client might never read the response.
    fn finish(&mut self) {
        self.stream.finish();
        let deadline = Deadline::after(LINGER);
        let _ = self.send(deadline);
        self.socket.shutdown_write();
        let mut buffer = Vec::with_capacity(4096);
        // A client that sends for ever is cut when the time is up.
        while let Some(left) = deadline.remaining() {
            buffer.clear();
            if self.socket.set_recv_timeout(left).is_err()
                || !matches!(self.socket.recv(&mut buffer), Ok(1..))
            {
                break;
            }
        }
    }

    /// Sends what is pending; within the handshake's deadline.
    pub(super) fn send_pending(&mut self) -> Result<(), NoRequest> {
        self.send(self.deadline).map_err(|e| NoRequest::Gone(e.to_string()))
    }

    fn send(&mut self, deadline: Deadline) -> io::Result<()> {
        self.stream.seal().map_err(|failure: Failure| io::Error::other(failure.text))?;
        while !self.stream.is_sent() {
            match self.socket.try_send_parts(self.stream.pending_parts()) {
                Ok(n) => self.stream.mark_sent(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if !self.socket.wait_writable(deadline)? {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Whether parsing is worth its time: at the first bytes, which show what is no HTTP at all, and when an empty line
/// has come. Else a head that trickles in byte by byte would be parsed as often as it has bytes.
fn may_end(input: &[u8], seen: usize) -> bool {
    seen == 0 || input[seen.saturating_sub(3)..].windows(2).any(|w| w == b"\n\r" || w == b"\n\n")
}

//! A connection in its HTTP phase: receives requests, and sends responses that are none of a WebSocket. It runs on the
//! connection's own thread, blocking, and every wait has a deadline. It knows nothing of routes.

#[cfg(feature = "manage")]
use std::any::Any;
use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Method, StatusCode};

use super::pace::Pace;
use crate::{
    codec::{Failure, Stream},
    connection::Socket,
    deadline::Deadline,
    http::{Body, CommonHeaders, Decoder, FilePart, Framing, Refusal, Request, Response, parse_head},
    limits::Limits,
    proxied::is_spoken,
};

/// How much of a file is sent at a time.
const CHUNK: usize = 64 * 1024;

/// How long the client may take to end its side after a response, or to send a body that nobody wants.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// To whom speaks the PROXY protocol, and may not.
const UNEXPECTED: &str = "the PROXY protocol is not expected from this address: name the proxy with proxy_protocol (--proxy-protocol)";

/// A socket that does not speak WebSocket yet.
pub(super) struct Incoming {
    pub(super) socket: Arc<Socket>,
    pub(super) stream: Stream,
    pub(super) peer: Option<SocketAddr>,
    /// Where the client has connected to, if that was a proxy, which has told it.
    pub(super) proxied_to: Option<IpAddr>,
    pub(super) is_secure: bool,
    /// That of the listener.
    pub(super) tag: u8,
    /// Where all requests are sent to, if that is what the listener is for.
    pub(super) https_port: Option<u16>,
    /// Nothing has been received yet, and it has to be TLS.
    is_first: bool,
    /// Received along with the PROXY protocol's header, and not yet taken in.
    pub(super) ahead: Vec<u8>,
    /// When this request began; asked only where somebody wants to know how long handshakes take.
    pub(super) begun: Option<Instant>,
    /// When the next request's head has to be there.
    pub(super) deadline: Deadline,
    /// The first request, if another server has received it.
    pub(super) first: Option<Box<Request>>,
    /// The body of the request that is being answered.
    pub(super) body: Decoder,
    /// The client waits for a 100 before it sends the body.
    pub(super) expects_continue: bool,
    /// The body could not be received.
    pub(super) is_broken: bool,
    /// What a handler keeps for the next request, and drops if there is none.
    #[cfg(feature = "manage")]
    pub(super) kept: Option<Box<dyn Any + Send>>,
}

/// How the log calls the other end of a socket.
pub(super) struct Peer(pub(super) Option<SocketAddr>);

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(peer) => peer.fmt(f),
            None => f.write_str("a Unix socket"),
        }
    }
}

/// The same, behind whom: a trusted proxy has told the client's address.
pub(super) struct Client(pub(super) Option<SocketAddr>, pub(super) Option<IpAddr>);

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(peer, client) = *self;
        match client {
            Some(client) if peer.is_none_or(|peer| peer.ip().to_canonical() != client) => {
                write!(f, "{client} by {}", Peer(peer))
            }
            _ => Peer(peer).fmt(f),
        }
    }
}

/// Why there is no request.
pub(super) enum NoRequest {
    /// A request came, and is answered with this.
    Refused(Refusal),
    /// None came, for this reason: the client left, was too slow, or broke TLS.
    Gone(String),
}

/// A request that another server has received, and the bytes after it.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) request: Box<Request>,
    pub(super) rest: Vec<u8>,
}

/// What came of receiving.
pub(super) enum More {
    Some,
    /// The client has ended its side.
    End,
    /// The time was up.
    Late,
    /// Something else where TLS is spoken; this is to be answered.
    NotTls(&'static str),
}

impl Incoming {
    pub(super) fn new(
        socket: Socket,
        stream: Stream,
        peer: Option<SocketAddr>,
        is_secure: bool,
        tag: u8,
        deadline: Deadline,
    ) -> Box<Self> {
        Box::new(Self {
            socket: Arc::new(socket),
            stream,
            peer,
            proxied_to: None,
            is_secure,
            tag,
            https_port: None,
            is_first: is_secure,
            ahead: Vec::new(),
            begun: None,
            deadline,
            first: None,
            body: Decoder::new(Framing::Length(0)),
            expects_continue: false,
            is_broken: false,
            #[cfg(feature = "manage")]
            kept: None,
        })
    }

    /// Takes over from the server that has received this.
    pub(super) fn begin_with(&mut self, received: Received) {
        self.peer = received.request.peer().or(self.peer);
        self.is_secure |= received.request.is_secure();
        self.first = Some(received.request);
        let mut rest = received.rest;
        // Without TLS it is only stored.
        let _ = self.stream.feed(&mut rest);
    }

    /// Whether something of the next request has been received. Empty lines before it do not count (RFC 9112, section 2.2).
    pub(super) fn has_more(&mut self) -> bool {
        let empty = self.stream.input().iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
        self.stream.consume(empty);
        !self.stream.input().is_empty()
    }

    /// Receives the request's head, with the TLS handshake before it. What follows it stays in the stream.
    pub(super) fn read_head(&mut self, limits: &Limits) -> Result<Box<Request>, NoRequest> {
        if let Some(request) = self.first.take() {
            return Ok(request);
        }
        let gone = |why: &str| Err(NoRequest::Gone(why.into()));
        let mut seen = 0;
        loop {
            let input = self.stream.input();
            if !input.is_empty() && (may_end(input, seen) || input.len() >= limits.max_head) {
                match parse_head(input, limits.max_head) {
                    Ok(None) => {}
                    Ok(Some((request, length))) => {
                        self.stream.consume(length);
                        return Ok(request);
                    }
                    Err(_) if is_spoken(input) => {
                        return Err(NoRequest::Refused(Refusal::new(StatusCode::BAD_REQUEST, UNEXPECTED)));
                    }
                    Err(refusal) => return Err(NoRequest::Refused(refusal)),
                }
            }
            seen = input.len();
            match self.receive(1024, self.deadline) {
                Ok(More::Some) => {}
                Ok(More::End) => return gone("left before a request was complete"),
                Ok(More::Late) => return gone("took too long"),
                Ok(More::NotTls(why)) => {
                    return Err(NoRequest::Refused(Refusal::new(StatusCode::BAD_REQUEST, why)));
                }
                Err(e) => return gone(&e.to_string()),
            }
        }
    }

    /// Receives some more, at most about so many bytes.
    pub(super) fn receive(&mut self, room: usize, deadline: Deadline) -> io::Result<More> {
        if self.stream.ended() {
            return Ok(More::End);
        }
        let mut buffer = std::mem::take(&mut self.ahead);
        if buffer.is_empty() {
            buffer = self.stream.spare_buffer();
            match self.recv(&mut buffer, room, deadline)? {
                More::Some => {}
                other => return Ok(other),
            }
        }
        if self.is_first
            && std::mem::take(&mut self.is_first)
            && let Some(why) = no_tls(&buffer)
        {
            self.stream = Stream::plain(); // to be understood
            return Ok(More::NotTls(why));
        }
        let fed = self.stream.feed(&mut buffer);
        self.send(deadline)?; // what TLS has to say, also if it failed
        if let Err(failure) = fed {
            self.finish(); // with TLS 1.3 a client sends its request before it can know that it is refused
            return Err(failed(failure));
        }
        Ok(More::Some)
    }

    /// Receives what comes next as it is, at most about so many bytes.
    pub(super) fn recv(&self, buffer: &mut Vec<u8>, room: usize, deadline: Deadline) -> io::Result<More> {
        buffer.reserve(room);
        loop {
            let Some(left) = deadline.remaining() else { return Ok(More::Late) };
            self.socket.set_recv_timeout(left)?;
            match self.socket.recv(buffer) {
                Ok(0) => return Ok(More::End),
                Ok(_) => return Ok(More::Some),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// This machine's own address on the connection, or the proxy's on that of its client; `None` on a Unix socket.
    pub(super) fn local_ip(&self) -> Option<IpAddr> {
        self.proxied_to.or_else(|| self.socket.local_ip())
    }

    /// Sends a response. If no other one can follow, the caller [finishes](Self::finish).
    pub(super) fn respond(
        &mut self,
        response: Response,
        method: Option<&Method>,
        headers: &CommonHeaders,
        limits: &Limits,
        persists: bool,
    ) -> io::Result<()> {
        let (head, body) = response.into_parts(headers, persists);
        self.stream.output().extend_from_slice(&head);
        let mut pace = Pace::new(limits.write_timeout, limits.min_http_rate);
        match body {
            _ if method == Some(&Method::HEAD) => {}
            Body::Bytes(bytes) => {
                for chunk in bytes.chunks(CHUNK) {
                    self.stream.output().extend_from_slice(chunk);
                    self.send_in_pace(&mut pace)?;
                }
            }
            Body::File(file) => self.send_file(file, &mut pace)?,
            #[cfg(feature = "manage")]
            Body::Produced(producer) => self.produce(producer, limits.write_timeout)?,
        }
        self.send_in_pace(&mut pace)
    }

    /// If the file became shorter meanwhile, this fails: the client must not take what follows for it.
    fn send_file(&mut self, mut file: FilePart, pace: &mut Pace) -> io::Result<()> {
        let mut chunk = vec![0; CHUNK];
        loop {
            let n = file.read(&mut chunk)?;
            if n == 0 {
                return Ok(());
            }
            self.stream.output().extend_from_slice(&chunk[..n]);
            self.send_in_pace(pace)?;
        }
    }

    /// Ends the stream this way, and throws away what still comes until the client ends it, too: a socket closed with
    /// unread input would reset the connection, and the client might never read the response.
    pub(super) fn finish(&mut self) {
        let deadline = Deadline::after(LINGER);
        self.end(deadline);
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

    /// Ends the stream this way.
    pub(super) fn end(&mut self, deadline: Deadline) {
        self.stream.finish();
        let _ = self.send(deadline);
        self.socket.shutdown_write();
    }

    /// Sends what is pending.
    pub(super) fn send(&mut self, deadline: Deadline) -> io::Result<()> {
        self.send_until(|_| deadline)
    }

    fn send_in_pace(&mut self, pace: &mut Pace) -> io::Result<()> {
        self.send_until(|sent| {
            pace.advance(sent);
            pace.deadline()
        })
    }

    /// `deadline` says how long the next bytes may take, of how many the socket has just taken.
    fn send_until(&mut self, mut deadline: impl FnMut(usize) -> Deadline) -> io::Result<()> {
        self.stream.seal().map_err(failed)?;
        let mut sent = 0;
        while !self.stream.is_sent() {
            match self.socket.try_send_parts(self.stream.pending_parts()) {
                Ok(n) => {
                    self.stream.mark_sent(n);
                    sent += n;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    if !self.socket.wait_writable(deadline(std::mem::take(&mut sent)))? {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
                Err(e) => return Err(e),
            }
        }
        deadline(sent);
        Ok(())
    }
}

fn failed(failure: Failure) -> io::Error {
    io::Error::other(failure.text)
}

/// What to say to somebody whose first bytes these are, where TLS is spoken.
fn no_tls(received: &[u8]) -> Option<&'static str> {
    if is_spoken(received) {
        return Some(UNEXPECTED);
    }
    is_plain_http(received).then_some("this port speaks TLS: use https:// or wss://")
}

/// Whether this, the first that came, is the beginning of HTTP, and not of a TLS record (RFC 8446, section 5.1).
pub(super) fn is_plain_http(received: &[u8]) -> bool {
    received.first().is_some_and(u8::is_ascii_uppercase)
}

/// Whether parsing is worth its time: at the first bytes, which show what is no HTTP at all, and when an empty line
/// has come. Else a head that trickles in byte by byte would be parsed as often as it has bytes.
fn may_end(input: &[u8], seen: usize) -> bool {
    seen == 0 || input[seen.saturating_sub(3)..].windows(2).any(|w| w == b"\n\r" || w == b"\n\n")
}

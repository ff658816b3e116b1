//! What a client is to be like, before it connects.

#[cfg(feature = "__tls")]
use std::sync::OnceLock;
use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, header};

use super::{
    Client, ClientError,
    opening::open,
    proxy::{Proxy, basic},
    url::{Place, Target},
};
#[cfg(feature = "__tls")]
use crate::tls::TlsTrust;
use crate::{
    compression::Compression,
    connection::{AdoptedStream, Overflow, READ_TIMEOUT},
    http::header_line,
    limits::Limits,
    thread,
};

/// So long a client tries to connect, unless it is told another time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Puts a [`Client`] together; made by [`Client::builder`]. It can connect more than once.
///
/// A mistake in one of the calls is reported by [`connect`](Self::connect).
///
/// ```no_run
/// use std::time::Duration;
/// use switchboard::{Client, Compression};
///
/// # fn main() -> Result<(), switchboard::ClientError> {
/// let client = Client::builder("ws://box.local:8080/measurements")
///     .header("Authorization", "Bearer 6d2f…")
///     .subprotocol("measurements.v2")
///     .compression(Compression::Pooled)
///     .connect_timeout(Duration::from_secs(3))
///     .connect()?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "nothing happens until `connect`"]
pub struct ClientBuilder {
    pub(super) target: Option<Target>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    pub(super) subprotocols: Vec<String>,
    pub(super) proxy: Option<Proxy>,
    #[cfg(feature = "__tls")]
    pub(super) tls: TlsTrust,
    pub(super) compression: Compression,
    pub(super) overflow: Overflow,
    pub(super) limits: Arc<Limits>,
    pub(super) connect_timeout: Duration,
    pub(super) read_timeout: Duration,
    /// The first mistake.
    fault: Option<Box<str>>,
}

impl ClientBuilder {
    pub(super) fn new(url: &str) -> Self {
        let mut this = Self {
            target: None,
            headers: Vec::new(),
            subprotocols: Vec::new(),
            proxy: None,
            #[cfg(feature = "__tls")]
            tls: system(),
            compression: Compression::Off,
            overflow: Overflow::DropNewest,
            limits: Arc::default(),
            connect_timeout: CONNECT_TIMEOUT,
            read_timeout: READ_TIMEOUT,
            fault: None,
        };
        this.target = this.noted(Target::parse(url));
        if let Some((user, password)) = this.target.as_ref().and_then(|target| target.credentials.clone()) {
            this = this.basic_auth(&user, &password);
        }
        this
    }

    fn noted<T>(&mut self, result: Result<T, impl Into<Box<str>>>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(e) => {
                self.fault.get_or_insert(e.into());
                None
            }
        }
    }

    /// Adds a header line to the request, such as `Cookie`, `Origin` or `User-Agent`, of which none is sent unless it is said. `Host`
    /// takes the place of the URL's, and of `Authorization` there is one as well: the last. Those of the handshake itself, and what would
    /// say that a body follows, are refused. Default: none.
    pub fn header(
        mut self,
        name: impl TryInto<HeaderName> + AsRef<[u8]>,
        value: impl TryInto<HeaderValue>,
    ) -> Self {
        match self.noted(header_line(name, value)) {
            Some((name, _)) if is_ours(&name) => {
                self.fault.get_or_insert(format!("header {name}: the handshake sets it itself").into());
            }
            Some(line) => {
                if line.0 == header::HOST || line.0 == header::AUTHORIZATION {
                    self.headers.retain(|(name, _)| *name != line.0);
                }
                self.headers.push(line);
            }
            None => {}
        }
        self
    }

    /// Says who asks (HTTP Basic, RFC 7617), as a user and a password in the URL do. Without TLS everybody on the way can read it.
    pub fn basic_auth(mut self, user: &str, password: &str) -> Self {
        if user.contains(':') {
            self.fault.get_or_insert("the name of a user has no colon (RFC 7617)".into());
        }
        self.header(header::AUTHORIZATION, basic(user, password))
    }

    /// Offers a subprotocol; several calls offer several, the first is preferred. Which one the server has chosen, if any, is said by
    /// [`Client::subprotocol`]. Default: none.
    pub fn subprotocol(mut self, name: impl Into<String>) -> Self {
        let name = name.into();
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            self.fault.get_or_insert(format!("{name:?} cannot be the name of a subprotocol").into());
        } else if !self.subprotocols.contains(&name) {
            self.subprotocols.push(name);
        }
        self
    }

    /// Offers compression to the server (permessage-deflate). Default: [`Compression::Off`]. Whether it has agreed is said by
    /// [`Client::is_compressed`].
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// Whom to trust over TLS, and what to show of oneself. Default: the CAs that the system trusts. Only for `wss://`.
    #[cfg(feature = "__tls")]
    pub fn tls(mut self, trust: TlsTrust) -> Self {
        self.tls = trust;
        self
    }

    /// Connects through an HTTP proxy, by CONNECT, whatever the scheme: `http://proxy:3128`, or with credentials
    /// `http://user:password@proxy:3128`. The proxy looks up the server's name. Not for Unix sockets. Default: none; the environment
    /// is not asked.
    pub fn proxy(mut self, url: &str) -> Self {
        self.proxy = self.noted(Proxy::parse(url));
        self
    }

    /// How long [`connect`](Self::connect) may take in all: the lookup of the name, all addresses, the proxy, TLS, and the opening
    /// handshake. Default 10 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long [`Client::messages`] waits for a message; then the iteration ends, and the client is still connected. Default: for ever.
    /// The other calls are told their time.
    pub fn read_timeout(mut self, timeout: Duration) -> Self {
        self.read_timeout = timeout;
        self
    }

    /// What becomes of a push when as much is queued as may be, because the server does not take it. Default
    /// [`Overflow::DropNewest`]: the caller is told, and the client stays connected.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// Sets the limits. A client heeds those of [one connection](Client#limits), and has the same defaults as a server.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.noted(limits.check().map_err(|e| e.to_string()));
        self.limits = Arc::new(limits);
        self
    }

    /// Connects: waits until the opening handshake is complete, [`connect_timeout`](Self::connect_timeout) at most.
    ///
    /// # Errors
    /// [`ClientError::Config`] for the first mistake made above; else why there is no connection.
    pub fn connect(&self) -> Result<Client, ClientError> {
        self.open(None)
    }

    /// As [`connect`](Self::connect), but over a connection that the program has made itself: through a tunnel or a SOCKS proxy, from
    /// an address or a network interface of its choice, or with options of its own on the socket. It has to lead to the server, or,
    /// with a [`proxy`](Self::proxy), to that; TLS, if the URL wants it, and the opening handshake are still to come. Of the URL's host
    /// only the name counts. From here on the stream is this client's, and waits or not as that wants.
    ///
    /// ```no_run
    /// use std::net::TcpStream;
    /// use switchboard::Client;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let forwarded = TcpStream::connect("127.0.0.1:9000")?; // by `ssh -L 9000:box.internal:8080`
    /// let client = Client::builder("ws://box.internal:8080/chat").connect_over(forwarded)?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub fn connect_over(&self, stream: impl Into<AdoptedStream>) -> Result<Client, ClientError> {
        self.open(Some(stream.into()))
    }

    fn open(&self, stream: Option<AdoptedStream>) -> Result<Client, ClientError> {
        self.check()?;
        if thread::must_not_wait() {
            return Err(ClientError::MustNotWait);
        }
        open(self, stream)
    }

    /// The first mistake.
    pub(super) fn check(&self) -> Result<(), ClientError> {
        if let Some(fault) = &self.fault {
            return Err(ClientError::Config(fault.clone()));
        }
        if let (Some(Target { place: Place::Unix(_), .. }), Some(_)) = (&self.target, &self.proxy) {
            return Err(ClientError::config("a Unix socket is not reached through a proxy"));
        }
        Ok(())
    }
}

/// Made once: to read the system's certificates takes longer than a handshake.
#[cfg(feature = "__tls")]
fn system() -> TlsTrust {
    static SYSTEM: OnceLock<TlsTrust> = OnceLock::new();
    SYSTEM.get_or_init(TlsTrust::system).clone()
}

/// What belongs to the handshake, or says that a body follows.
fn is_ours(name: &HeaderName) -> bool {
    const OURS: [HeaderName; 6] = [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
    ];
    OURS.contains(name) || name.as_str().starts_with("sec-websocket-")
}

/// Does not show what is secret: headers, and passwords.
impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("target", &self.target)
            .field("proxy", &self.proxy)
            .field("subprotocols", &self.subprotocols)
            .field("compression", &self.compression)
            .finish_non_exhaustive()
    }
}

//! A server to test, and its clients.
//!
//! Servers listen on loopback, on ports that the system chooses, plain and with TLS. Every wait has a time limit, so a test
//! that hangs fails.
#![allow(dead_code, unreachable_pub, reason = "each test file is a crate of its own and uses what it needs")]

#[cfg(all(feature = "__tls", not(target_vendor = "apple")))]
pub mod authority;
#[cfg(all(feature = "cli", feature = "manage", feature = "__tls"))]
pub mod commanded;
pub mod ends;
pub mod floods;
pub mod folder;
#[cfg(all(feature = "__tls", feature = "manage"))]
pub mod managed;
pub mod member;
#[cfg(feature = "cli")]
pub mod process;
#[cfg(feature = "cluster")]
pub mod redis;
pub mod reply;
pub mod running;
#[cfg(feature = "cli")]
pub mod terminal;

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::OwnedFd,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use native_tls::{Certificate, TlsConnector, TlsStream};
use switchboard::{
    Audience, CloseReason, Closed, ConnectionInfo, Error, Handled, Hub, Opening, Refusal, Server,
    ServerBuilder, ServerError, ServerHandle, ServerResult, TlsBackend, TlsIdentity, WebSocket,
    WebSocketServer,
};
use tungstenite::{Message, client::IntoClientRequest, handshake::client::Response};

/// The time limit for every wait in a test.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The tests run with and without TLS.
pub const SCHEMES: [Scheme; 2] = [Scheme::Ws, Scheme::Wss];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Ws,
    Wss,
}

/// A running server. Dropping it shuts it down without a grace period, and waits for its end.
pub struct TestServer {
    pub handle: ServerHandle,
    pub hub: Hub,
    pub plain: SocketAddr,
    pub tls: SocketAddr,
    /// Where it only redirects, if it does.
    pub redirect: Option<SocketAddr>,
    thread: Option<JoinHandle<Result<(), ServerError>>>,
}

type Run = Box<dyn FnOnce() -> Result<(), ServerError> + Send>;

/// Starts a server on a plain and a TLS port.
pub fn serve(configure: impl FnOnce(ServerBuilder) -> ServerBuilder) -> TestServer {
    serve_on(std::thread::spawn, configure)
}

/// As [`serve`]; `spawn` starts the thread for `run`.
pub fn serve_on(
    spawn: impl FnOnce(Run) -> JoinHandle<Result<(), ServerError>>,
    configure: impl FnOnce(ServerBuilder) -> ServerBuilder,
) -> TestServer {
    serve_as(identity(), spawn, configure)
}

/// As [`serve`], with TLS by this library.
pub fn serve_by(backend: TlsBackend, configure: impl FnOnce(ServerBuilder) -> ServerBuilder) -> TestServer {
    serve_as(identity().with_backend(backend), std::thread::spawn, configure)
}

fn serve_as(
    identity: TlsIdentity,
    spawn: impl FnOnce(Run) -> JoinHandle<Result<(), ServerError>>,
    configure: impl FnOnce(ServerBuilder) -> ServerBuilder,
) -> TestServer {
    let builder = Server::builder().listen("127.0.0.1:0").listen_tls("127.0.0.1:0", identity);
    let server = configure(builder).bind().unwrap();
    let addresses: Vec<_> = server.local_addrs().iter().filter_map(|address| address.tcp()).collect();
    let redirect = server.redirect_addrs().first().and_then(|address| address.tcp());
    let (handle, hub) = (server.handle(), server.hub());
    let thread = spawn(Box::new(move || server.run()));
    TestServer { handle, hub, plain: addresses[0], tls: addresses[1], redirect, thread: Some(thread) }
}

/// The libraries for TLS that there are.
pub fn backends() -> impl Iterator<Item = TlsBackend> {
    [TlsBackend::NativeTls, TlsBackend::Rustls].into_iter().filter(|backend| backend.is_available())
}

/// The bundled one. The environment may choose the library: so all tests can be run with each.
pub fn identity() -> TlsIdentity {
    static IDENTITY: OnceLock<TlsIdentity> = OnceLock::new();
    let make = || {
        let identity = TlsIdentity::from_pem_files("certs/server.pem", "certs/server.key").unwrap();
        match std::env::var("SWITCHBOARD_TEST_TLS").as_deref() {
            Ok("rustls") => identity.with_backend(TlsBackend::Rustls),
            Ok(other) => panic!("SWITCHBOARD_TEST_TLS may be rustls, not {other}"),
            Err(_) => identity,
        }
    };
    IDENTITY.get_or_init(make).clone()
}

/// A server with one WebSocket at `/`.
pub fn serve_app<F>(handler: F) -> TestServer
where
    F: Fn(&mut WebSocket) -> ServerResult + Clone + Send + Sync + 'static,
{
    serve(|builder| builder.route("/", move || app(handler.clone())))
}

impl TestServer {
    pub fn address(&self, scheme: Scheme) -> SocketAddr {
        match scheme {
            Scheme::Ws => self.plain,
            Scheme::Wss => self.tls,
        }
    }

    /// A TCP or TLS connection on which nothing has been sent yet.
    pub fn raw(&self, scheme: Scheme) -> Stream {
        Stream::connect(self.address(scheme), scheme)
    }

    pub fn connect(&self, scheme: Scheme, path: &str) -> Client {
        self.try_connect(scheme, path, &[]).unwrap().0
    }

    /// The same at an echo, and open also for the server.
    pub fn connect_echo(&self, scheme: Scheme, path: &str) -> Client {
        let mut client = self.connect(scheme, path);
        assert_echoes(&mut client, "echo");
        client
    }

    /// With additional headers. The error is the HTTP response that came instead of a 101.
    pub fn try_connect(
        &self,
        scheme: Scheme,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<(Client, Response), Refused> {
        let name = if scheme == Scheme::Ws { "ws" } else { "wss" };
        let mut request = format!("{name}://{}{path}", self.address(scheme)).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        match tungstenite::client(request, self.raw(scheme)) {
            Ok(connected) => Ok(connected),
            Err(tungstenite::HandshakeError::Failure(tungstenite::Error::Http(response))) => Err(response),
            Err(e) => panic!("{e}"),
        }
    }

    /// A connection after its opening handshake, for frames that no client library would send.
    pub fn raw_websocket(&self, scheme: Scheme, path: &str) -> Stream {
        let mut stream = self.raw(scheme);
        stream.write_all(handshake(path).as_bytes()).unwrap();
        let head = stream.read_head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        stream
    }

    /// Sends a raw request and returns all that comes until the server ends the connection.
    pub fn http(&self, scheme: Scheme, request: &str) -> String {
        let mut stream = self.raw(scheme);
        stream.write_all(request.as_bytes()).unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).unwrap();
        String::from_utf8_lossy(&response).into_owned()
    }

    /// Whether `run` has returned.
    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Shuts down, and waits for the end.
    pub fn shutdown(mut self, grace: Duration) {
        self.handle.shutdown(grace);
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            self.handle.shutdown(Duration::ZERO);
            let result = thread.join();
            if !std::thread::panicking() {
                result.unwrap().unwrap();
            }
        }
    }
}

/// All connections, in the order of their IDs.
pub fn connections(hub: &Hub) -> Vec<ConnectionInfo> {
    hub.all_connections(Audience::All).collect::<Result<_, _>>().unwrap()
}

/// An opening handshake as a request.
pub fn handshake(path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
}

/// A TLS client that trusts only the test CA.
pub fn connector() -> TlsConnector {
    // Made once, because that takes longer than a handshake.
    static CONNECTOR: OnceLock<TlsConnector> = OnceLock::new();
    let make = || {
        let ca = Certificate::from_pem(&std::fs::read("certs/ca.pem").unwrap()).unwrap();
        TlsConnector::builder().disable_built_in_roots(true).add_root_certificate(ca).build().unwrap()
    };
    CONNECTOR.get_or_init(make).clone()
}

/// Ends what runs until this flag is set, also when a test fails meanwhile.
pub struct Until<'a>(pub &'a AtomicBool);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// Polls for a condition for which there is no event.
pub fn eventually(what: &str, is_so: impl FnMut() -> bool) {
    eventually_or(|| format!("never: {what}"), is_so);
}

/// The same, with a text that is made when it is needed.
pub fn eventually_or(failure: impl Fn() -> String, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{}", failure());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An address where nobody listens. As long as this socket is there, nobody else is given the port.
pub fn nobody() -> (OwnedFd, SocketAddr) {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = getsockname(&socket).unwrap().try_into().unwrap();
    (socket, address)
}

/// The peer did not take in time what was to be sent. Whoever waits for that may come so late, on a busy machine, that the
/// connection has been ended for it.
pub fn is_too_slow(error: &Error) -> bool {
    let is_ended = |reason: &CloseReason| reason.text() == "the peer did not take what was sent in time";
    error.is_timeout() || matches!(error, Error::Closed(reason) if is_ended(reason))
}

/// Nobody listens there any more. Whoever else was given the port meanwhile, as other tests are, has it for a while only.
pub fn assert_closed(address: SocketAddr) {
    let is_refused =
        || TcpStream::connect(address).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
    eventually("the port is closed", is_refused);
}

/// Runs the test of this name in a process of its own, where nothing else counts. True: this is it.
pub fn is_alone(name: &str) -> bool {
    if std::env::var_os("SWITCHBOARD_ALONE").is_some() {
        return true;
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    let output = child.args(["--exact", name]).env("SWITCHBOARD_ALONE", "1").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    false
}

pub type Client = tungstenite::WebSocket<Stream>;

/// What a client gets instead of a 101.
pub type Refused = Box<tungstenite::http::Response<Option<Vec<u8>>>>;

/// Sends a message, and gets the same one next.
pub fn assert_echoes(client: &mut Client, message: impl Into<Message>) {
    let message = message.into();
    client.send(message.clone()).unwrap();
    assert_eq!(next_message(client), message);
}

/// The next message that is not a ping or a pong.
pub fn next_message(client: &mut Client) -> Message {
    loop {
        match client.read().unwrap() {
            Message::Ping(_) | Message::Pong(_) => {}
            other => return other,
        }
    }
}

/// The code and the text of the close frame; messages before it are skipped.
pub fn read_close(client: &mut Client) -> (u16, String) {
    loop {
        match client.read() {
            Ok(Message::Close(Some(frame))) => return (frame.code.into(), frame.reason.to_string()),
            Ok(Message::Close(None)) => return (1005, String::new()),
            Ok(_) => {}
            Err(e) => panic!("no close frame: {e}"),
        }
    }
}

/// One frame of a client, masked.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![first];
    match payload.len() {
        n @ ..126 => bytes.push(0x80 | n as u8),
        n @ ..65536 => {
            bytes.push(0x80 | 126);
            bytes.extend((n as u16).to_be_bytes());
        }
        n => {
            bytes.push(0x80 | 127);
            bytes.extend((n as u64).to_be_bytes());
        }
    }
    bytes.extend(MASK);
    bytes.extend(payload.iter().enumerate().map(|(i, b)| b ^ MASK[i % 4]));
    bytes
}

/// The head of an HTTP response, up to and with the empty line.
pub fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// The next frame of a server: its first byte and its payload.
pub fn read_frame(stream: &mut impl Read) -> (u8, Vec<u8>) {
    let mut header = [0; 2];
    stream.read_exact(&mut header).unwrap();
    let mut long = [0; 8];
    let length = match header[1] {
        126 => {
            stream.read_exact(&mut long[6..]).unwrap();
            u64::from_be_bytes(long)
        }
        127 => {
            stream.read_exact(&mut long).unwrap();
            u64::from_be_bytes(long)
        }
        short => u64::from(short),
    };
    let mut payload = vec![0; length as usize];
    stream.read_exact(&mut payload).unwrap();
    (header[0], payload)
}

/// A client's socket.
#[derive(Debug)]
pub enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    pub fn connect(address: SocketAddr, scheme: Scheme) -> Self {
        Self::over(TcpStream::connect(address).unwrap(), scheme)
    }

    /// Over a socket that something may have been said on already.
    pub fn over(tcp: TcpStream, scheme: Scheme) -> Self {
        tcp.set_read_timeout(Some(PATIENCE)).unwrap();
        tcp.set_write_timeout(Some(PATIENCE)).unwrap();
        tcp.set_nodelay(true).unwrap();
        match scheme {
            Scheme::Ws => Self::Plain(tcp),
            Scheme::Wss => Self::Tls(Box::new(connector().connect("localhost", tcp).unwrap())),
        }
    }

    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref(),
        }
    }

    /// Reads a head, up to and including the empty line.
    pub fn read_head(&mut self) -> String {
        read_head(self)
    }

    /// The next frame of the server: its first byte and its payload.
    pub fn read_frame(&mut self) -> (u8, Vec<u8>) {
        read_frame(self)
    }

    /// The code and the text of the close frame, which has to come next, followed by the end of the stream without a reset.
    pub fn read_close_and_end(&mut self) -> (u16, String) {
        let (first, payload) = self.read_frame();
        assert_eq!(first, 0x88, "no close frame");
        assert_eq!(self.read(&mut [0; 1]).unwrap(), 0, "the stream goes on");
        let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
        (code, String::from_utf8(payload.get(2..).unwrap_or_default().to_vec()).unwrap())
    }

    /// Ends it with a reset (RST).
    pub fn reset(self) {
        let linger = Some(Duration::ZERO);
        rustix::net::sockopt::set_socket_linger(self.tcp(), linger).unwrap();
        if let Self::Tls(tls) = self {
            // Dropped without a close_notify.
            drop(tls);
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let result = match self {
                Self::Plain(tcp) => tcp.read(buf),
                Self::Tls(tls) => tls.read(buf),
            };
            match result {
                // A read with a timeout is interrupted when the process was stopped and goes on (signal(7)).
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(buf),
            Self::Tls(tls) => tls.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

/// An application made of closures.
pub struct App<S, B, A> {
    before: B,
    server: S,
    after: A,
}

/// An application with only a `server`.
pub fn app<S>(server: S) -> impl WebSocketServer
where
    S: FnMut(&mut WebSocket) -> ServerResult + Send + 'static,
{
    full_app(|_: &mut Opening| Ok(()), server, |_: &Closed| {})
}

/// An application with three methods.
pub fn full_app<B, S, A>(before: B, server: S, after: A) -> App<S, B, A>
where
    B: FnMut(&mut Opening) -> Result<(), Refusal> + Send + 'static,
    S: FnMut(&mut WebSocket) -> ServerResult + Send + 'static,
    A: FnMut(&Closed) + Send + 'static,
{
    App { before, server, after }
}

impl<S, B, A> WebSocketServer for App<S, B, A>
where
    B: FnMut(&mut Opening) -> Result<(), Refusal> + Send + 'static,
    S: FnMut(&mut WebSocket) -> ServerResult + Send + 'static,
    A: FnMut(&Closed) + Send + 'static,
{
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        (self.before)(opening)
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        (self.server)(ws)
    }

    fn on_post_server(&mut self, closed: &Closed) {
        (self.after)(closed);
    }
}

/// Sends each message back.
pub fn echo(ws: &mut WebSocket) -> ServerResult {
    for message in ws.messages() {
        ws.write(message)?;
    }
    Ok(())
}

/// Sends each message back, on a shared connection.
pub struct SharedEcho;

impl WebSocketServer for SharedEcho {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        opening.set_shared_connection(true);
        Ok(())
    }

    fn server(&mut self, _ws: &mut WebSocket) -> ServerResult {
        Ok(())
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: switchboard::Message) -> Handled {
        ws.write(message).unwrap();
        Handled::Yes
    }
}

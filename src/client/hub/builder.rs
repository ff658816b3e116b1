//! What a hub of another process is to be like, before it is connected to; and one attempt to do that.

use std::{fmt, path::PathBuf, sync::Arc, time::Duration};

use http::{StatusCode, header};

use super::{HubError, keeper::Keeper, url::websocket_url};
#[cfg(feature = "__tls")]
use crate::tls::TlsTrust;
use crate::{
    client::{Client, builder::ClientBuilder, error::ClientError},
    connection::Overflow,
    deadline::Deadline,
    error::Error,
    hub::Hub,
    id::random_bytes,
    limits::Limits,
    message::Message,
    remote::{ByConnection, Line, Link, Linked},
    small_file,
    wire::{Hello, SUBPROTOCOL},
};

const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest answer.
const MAX_MESSAGE: usize = 64 << 20;

/// So much that is told and not answered, such as an acknowledgement, is queued.
const MAX_TOLD: usize = 16 * 1024;

/// A process that has stopped is found out within twice this.
const PING: Duration = Duration::from_secs(5);

/// So is one that takes nothing more: what is sent to it is stuck, and so would a ping be.
const STUCK: Duration = PING.saturating_mul(2);

/// Bytes of a token's file that are looked at: more is no token.
const MAX_TOKEN: u64 = 2048;

/// Connects to the hub of another process; made by [`Hub::builder`].
///
/// ```no_run
/// use std::time::Duration;
/// use switchboard::Hub;
///
/// # fn main() -> Result<(), switchboard::HubError> {
/// let hub = Hub::builder()
///     .token_file("/run/secrets/switchboard")
///     .answer_timeout(Duration::from_millis(250))
///     .connect("https://box.example:9443")?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "nothing happens until `connect`"]
pub struct HubBuilder {
    token: Option<Token>,
    #[cfg(feature = "__tls")]
    tls: Option<TlsTrust>,
    answer_timeout: Duration,
    connect_timeout: Duration,
}

#[derive(Clone)]
enum Token {
    Text(String),
    File(PathBuf),
}

impl Hub {
    /// Connects to the hub of a server in another process, over its management listener (`ServerBuilder::manage`): at
    /// `unix:/path/to/socket`. For one that wants a token, or is elsewhere, there is [`builder`](Self::builder).
    ///
    /// ```no_run
    /// use switchboard::Hub;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let hub = Hub::connect("unix:/run/box.sock")?;
    /// let id = "b3kT9ZcYw4mQ1s8xAAAAKg".parse()?;
    /// hub.push(&id, "from another process")?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`HubBuilder::connect`].
    pub fn connect(url: &str) -> Result<Self, HubError> {
        Self::builder().connect(url)
    }

    /// Begins to connect to the hub of a server in another process.
    pub fn builder() -> HubBuilder {
        HubBuilder {
            token: None,
            #[cfg(feature = "__tls")]
            tls: None,
            answer_timeout: ANSWER_TIMEOUT,
            connect_timeout: CONNECT_TIMEOUT,
        }
    }
}

impl HubBuilder {
    /// The token that the management listener wants on TCP.
    pub fn token(self, token: impl Into<String>) -> Self {
        Self { token: Some(Token::Text(token.into())), ..self }
    }

    /// The file with the token, which is read again for each attempt to connect.
    pub fn token_file(self, path: impl Into<PathBuf>) -> Self {
        Self { token: Some(Token::File(path.into())), ..self }
    }

    /// Whom to trust over TLS, and what to show of oneself. Default: the CAs that the system trusts. Only for `https://`.
    #[cfg(feature = "__tls")]
    pub fn tls(self, trust: TlsTrust) -> Self {
        Self { tls: Some(trust), ..self }
    }

    /// How long a call waits for the answer of the other process, beside what it is to wait for there. Default 1 s.
    pub fn answer_timeout(self, timeout: Duration) -> Self {
        Self { answer_timeout: timeout, ..self }
    }

    /// How long [`connect`](Self::connect) may take in all, and so each attempt to connect again. Default 10 s.
    pub fn connect_timeout(self, timeout: Duration) -> Self {
        Self { connect_timeout: timeout, ..self }
    }

    /// Connects to `unix:/path/to/socket`, `http://127.0.0.1:port` or `https://host:port` (also written as `ws://` and `wss://`).
    /// Whenever the link has ended, it is made again, in the background: at once, then after a delay that grows to 5 s.
    ///
    /// # Errors
    /// Whatever keeps it from being connected now, each with what to do; a token is not sent in the clear to another machine.
    pub fn connect(&self, url: &str) -> Result<Hub, HubError> {
        let url_of_link = websocket_url(url, self.token.is_some())?;
        let place =
            Place { builder: self.clone(), url: url_of_link, number: u64::from_ne_bytes(random_bytes()) };
        let first = place.connect()?;
        let link = Link::new(url.to_owned(), self.answer_timeout);
        let linked = Linked::new(link.clone());
        Keeper::start(link, place, first).map_err(|e| HubError::Connect(ClientError::Io(e)))?;
        Ok(Hub::remote(linked))
    }
}

/// Where to connect to, and how.
pub(super) struct Place {
    builder: HubBuilder,
    /// That of the WebSocket.
    url: String,
    /// Tells the hub from others: its links come one after the other.
    number: u64,
}

/// A connection on which both sides have said who they are.
pub(super) struct Greeted {
    pub(super) client: Client,
    pub(super) line: Arc<Line>,
}

impl Place {
    /// One attempt.
    pub(super) fn connect(&self) -> Result<Greeted, HubError> {
        let deadline = Deadline::after(self.builder.connect_timeout);
        let client = self.client()?.connect().map_err(|error| self.refused(error))?;
        if client.subprotocol() != Some(SUBPROTOCOL) {
            return Err(no_hub("a WebSocket without the subprotocol of a link"));
        }
        greet(client, self.number, deadline)
    }

    fn client(&self) -> Result<ClientBuilder, HubError> {
        let HubBuilder { token, connect_timeout, .. } = &self.builder;
        let mut client = Client::builder(&self.url)
            .subprotocol(SUBPROTOCOL)
            .limits(limits())
            .overflow(Overflow::Disconnect)
            .connect_timeout(*connect_timeout);
        if let Some(token) = token {
            client = client.header(header::AUTHORIZATION, format!("Bearer {}", token.text()?));
        }
        #[cfg(feature = "__tls")]
        if let Some(trust) = &self.builder.tls {
            client = client.tls(trust.clone());
        }
        Ok(client)
    }

    fn refused(&self, error: ClientError) -> HubError {
        let response = match &error {
            ClientError::Refused(response) => response,
            ClientError::Handshake(text) => return no_hub(text),
            ClientError::Config(text) => return HubError::Config(text.clone()),
            _ => return HubError::Connect(error),
        };
        match response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let what = match self.builder.token {
                    Some(_) => "the management listener refuses the token",
                    None => "the management listener wants a token (HubBuilder::token_file)",
                };
                HubError::Denied(what.into())
            }
            status if error.is_lasting() => no_hub(&status.to_string()),
            _ => HubError::Connect(error),
        }
    }
}

/// Says who this is, and hears who that is.
fn greet(client: Client, number: u64, deadline: Deadline) -> Result<Greeted, HubError> {
    let hello = Hello::of_client(MAX_MESSAGE, number);
    let silent = || no_hub("a WebSocket that does not say hello");
    client.write(Message::from(hello.encode())).map_err(|_| silent())?;
    let first =
        client.read_message(deadline.remaining().unwrap_or_default()).map_err(|error| match error {
            Error::Timeout => silent(),
            other => no_hub(&other.to_string()),
        })?;
    let hello =
        Hello::decode(first.as_bytes()).map_err(|_| no_hub("a WebSocket that says something else"))?;
    let line = Line::new(ByConnection::new(client.connection.clone()), &hello);
    Ok(Greeted { client, line })
}

/// Those of a link. Of what is told and not answered more than this waits only where the other process takes nothing.
fn limits() -> Limits {
    Limits {
        max_queue_messages: MAX_TOLD,
        max_message_size: MAX_MESSAGE,
        max_frame_size: MAX_MESSAGE,
        ping_interval: Some(PING),
        ping_timeout: PING,
        write_timeout: STUCK,
        ..Limits::default()
    }
}

fn no_hub(what: &str) -> HubError {
    HubError::NoHub(
        format!("what listens there is no management listener of a switchboard server: {what}").into(),
    )
}

impl Token {
    fn text(&self) -> Result<String, HubError> {
        match self {
            Self::Text(text) if text.trim().is_empty() => Err(HubError::Config("the token is empty".into())),
            Self::Text(text) => Ok(text.trim().to_owned()),
            Self::File(path) => {
                let refuse =
                    |why: &str| HubError::Config(format!("the token in {}: {why}", path.display()).into());
                let file = small_file::open(path);
                let read = |file| small_file::read_text(&file, MAX_TOKEN, small_file::PATIENCE);
                let text = file.and_then(read).map_err(|e| refuse(&e.to_string()))?;
                if text.trim().is_empty() {
                    return Err(refuse("the file is empty"));
                }
                Ok(text.trim().to_owned())
            }
        }
    }
}

/// Does not show the token.
impl fmt::Debug for HubBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubBuilder")
            .field("answer_timeout", &self.answer_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .finish_non_exhaustive()
    }
}

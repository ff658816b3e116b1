//! What a link is to be like.

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use super::{
    event::{LinkAttempt, WhenFull},
    inside::Inside,
    link::{Failure, Greet, Link, Prepare, Shared},
    pace::{Delays, Pace},
    queue::{Bounds, Queue},
};
use crate::{
    client::{builder::ClientBuilder, error::ClientError, response::HandshakeResponse},
    message::{Message, Payload},
    thread,
};

/// So much is queued, unless it is said otherwise.
const QUEUE: (usize, usize) = (1024, 1 << 20);

/// Puts a [`Reconnecting`](crate::Reconnecting) together; made by [`ClientBuilder::reconnecting`].
///
/// ```
/// use std::time::Duration;
/// use switchboard::{Client, WhenFull};
///
/// # fn token() -> Result<String, std::io::Error> { Ok("6d2f".into()) }
/// # fn main() -> Result<(), switchboard::ClientError> {
/// let link = Client::builder("ws://127.0.0.1:1/measurements")
///     .connect_timeout(Duration::from_secs(5))
///     .reconnecting()
///     .before_attempt(|client, _| Ok::<_, std::io::Error>(client.header("Authorization", format!("Bearer {}", token()?))))
///     .delays(Duration::from_secs(1), Duration::from_secs(120))
///     .queue(600, 64 * 1024, WhenFull::DropOldest)
///     .start()?;
/// # Ok(()) }
/// ```
#[must_use = "nothing happens until `start`"]
pub struct ReconnectingBuilder {
    client: ClientBuilder,
    delays: Delays,
    bounds: Bounds,
    prepare: Option<Prepare>,
    greet: Option<Greet>,
}

impl ClientBuilder {
    /// In place of [`connect`](Self::connect): a link that connects in the background, and again whenever the connection has ended.
    pub fn reconnecting(self) -> ReconnectingBuilder {
        let bounds = Bounds { messages: QUEUE.0, bytes: QUEUE.1, when_full: WhenFull::default() };
        ReconnectingBuilder { client: self, delays: Delays::default(), bounds, prepare: None, greet: None }
    }
}

impl ReconnectingBuilder {
    /// How long to wait before an attempt: any time from nothing to `first`, at random, and after each further attempt to twice as
    /// much, up to `longest`. Default 1 s and 60 s. From 1 ms to a day.
    pub fn delays(mut self, first: Duration, longest: Duration) -> Self {
        (self.delays.first, self.delays.longest) = (first, longest);
        self
    }

    /// After a connection that has lasted for so long, the delays are short again. Default 10 s. After one that has not, they go on
    /// growing, so that a server that takes connections and ends them at once is not asked again and again.
    pub fn steady_after(mut self, time: Duration) -> Self {
        self.delays.steady = time;
        self
    }

    /// A server that asks for time (`Retry-After`) gets so much at most. Default 15 minutes; up to a day.
    pub fn max_retry_after(mut self, time: Duration) -> Self {
        self.delays.longest_asked = time;
        self
    }

    /// Bounds of what waits to be sent, and what becomes of a message that finds no room. Default 1,024 messages of 1 MiB together,
    /// and [`WhenFull::Refuse`]. An empty queue takes any message. Each takes some 300 bytes beside its own, and while it waits on a
    /// connection with compression, its compressed form, too.
    pub fn queue(mut self, messages: usize, bytes: usize, when_full: WhenFull) -> Self {
        self.bounds = Bounds { messages, bytes, when_full };
        self
    }

    /// Is asked before each attempt, with a copy of the builder that the link was made with, for the one to connect with: with a
    /// fresh token, or another URL of several. It is called by the link's thread, and may take its time. If it fails, or panics, so
    /// does the attempt, with [`ClientError::Prepare`].
    pub fn before_attempt<F, E>(mut self, mut prepare: F) -> Self
    where
        F: FnMut(ClientBuilder, &LinkAttempt<'_>) -> Result<ClientBuilder, E> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let prepare = move |client: ClientBuilder, attempt: &LinkAttempt<'_>| {
            prepare(client, attempt).map_err(|e| -> Failure { e.into() })
        };
        self.prepare = Some(Box::new(prepare));
        self
    }

    /// Makes the messages that go first on each new connection, before all that is queued: a login, for example, or what it is that
    /// is wanted of the server. They do not count in the queue. It is called by the link's thread. If it panics, the attempt has
    /// failed, with [`ClientError::Prepare`].
    pub fn greeting<F, I>(mut self, mut greet: F) -> Self
    where
        F: FnMut(&HandshakeResponse) -> I + Send + 'static,
        I: IntoIterator,
        I::Item: Into<Payload>,
    {
        let greet = move |response: &HandshakeResponse| -> Vec<Message> {
            greet(response).into_iter().map(|message| message.into().into_message()).collect()
        };
        self.greet = Some(Box::new(greet));
        self
    }

    /// Starts the link: its thread, which begins with the first attempt at once. Does not wait for that.
    ///
    /// # Errors
    /// [`ClientError::Config`] for the first mistake in what was said so far, such as a URL that is none; [`ClientError::Io`] if
    /// there is no thread to be had.
    pub fn start(self) -> Result<super::Reconnecting, ClientError> {
        let Self { client, delays, bounds, prepare, greet } = self;
        client.check()?;
        delays.check().map_err(ClientError::config)?;
        if bounds.messages == 0 {
            return Err(ClientError::config("a queue has room for one message at least"));
        }
        let shared = Arc::new(Shared { inside: Inside::new(), queue: Queue::new(bounds) });
        let stack_size = client.limits.stack_size;
        let link = Link { shared: shared.clone(), client, pace: Pace::new(delays), prepare, greet };
        let _nobodys = thread::Belonging::to_none(); // whichever server's thread this is
        drop(thread::spawn("switchboard-link", stack_size, || link.run()).map_err(ClientError::Io)?);
        Ok(super::Reconnecting::new(shared))
    }
}

/// Does not show what is secret, as that of [`ClientBuilder`].
impl fmt::Debug for ReconnectingBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReconnectingBuilder")
            .field("client", &self.client)
            .field("delays", &self.delays)
            .field("queue", &self.bounds)
            .finish_non_exhaustive()
    }
}

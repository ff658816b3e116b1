//! The thread of a link: connects, receives, waits, and connects again, until it is told to end.

use std::{
    error::Error as StdError,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::bounded;

use super::{
    event::{LinkAttempt, LinkEvent},
    inside::Inside,
    pace::{Advice, Pace, chance},
    queue::Queue,
};
use crate::{
    caught::caught,
    client::{Client, builder::ClientBuilder, error::ClientError, response::HandshakeResponse},
    connection::READ_TIMEOUT,
    error::{CloseReason, ClosedBy, Error},
    message::{CloseCode, Message},
};

pub(super) type Failure = Box<dyn StdError + Send + Sync>;
pub(super) type Prepare =
    Box<dyn FnMut(ClientBuilder, &LinkAttempt<'_>) -> Result<ClientBuilder, Failure> + Send>;
pub(super) type Greet = Box<dyn FnMut(&HandshakeResponse) -> Vec<Message> + Send>;

/// What the thread and the program share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) inside: Inside,
    pub(super) queue: Queue,
}

/// What only the thread has.
pub(super) struct Link {
    pub(super) shared: Arc<Shared>,
    pub(super) client: ClientBuilder,
    pub(super) pace: Pace,
    pub(super) prepare: Option<Prepare>,
    pub(super) greet: Option<Greet>,
}

impl Link {
    pub(super) fn run(mut self) {
        let shared = self.shared.clone();
        let _ending = Ending(&shared);
        let (mut failed, mut error) = (0, None);
        while self.shared.inside.begin() {
            let (event, delay) = match self.attempt(failed, error.as_deref()) {
                Ok(client) => {
                    let Some((reason, delay)) = self.serve(client) else { break };
                    (failed, error) = (0, None);
                    (LinkEvent::Down { reason, retry_in: delay }, delay)
                }
                Err(e) => {
                    let advice = Advice::of_failure(&e, self.prepare.is_some());
                    let delay = self.pace.next(advice, chance());
                    let e = Arc::new(e);
                    (failed, error) = (failed.saturating_add(1), Some(e.clone()));
                    (LinkEvent::Failed { error: e, attempts: failed, retry_in: delay }, delay)
                }
            };
            self.shared.inside.down(event, delay);
        }
    }

    /// Tries to connect, as the program wants it this time, and sends the greeting.
    fn attempt(&mut self, failed: u32, error: Option<&ClientError>) -> Result<Greeted, ClientError> {
        let client = self.connect(failed, error)?;
        let mut bytes = 0;
        if let Some(greet) = &mut self.greet
            && !self.shared.inside.is_closed()
        {
            let greeting = caught(|| greet(client.response()));
            let greeting = greeting.ok_or_else(|| ClientError::Prepare("the greeting panicked".into()))?;
            bytes = send_greeting(greeting, &client);
        }
        Ok(Greeted { client, bytes })
    }

    fn connect(&mut self, failed: u32, error: Option<&ClientError>) -> Result<Client, ClientError> {
        let Some(prepare) = &mut self.prepare else { return self.client.connect() };
        let attempt = LinkAttempt { failed, error };
        let client = self.client.clone();
        let prepared = caught(|| prepare(client, &attempt)).unwrap_or_else(|| Err("it panicked".into()));
        prepared.map_err(ClientError::Prepare)?.connect()
    }

    /// Receives until the connection ends. Returns how it has, and when to try again. `None`: it is not wanted any more.
    fn serve(&mut self, Greeted { client, bytes }: Greeted) -> Option<(CloseReason, Duration)> {
        let begun = Instant::now();
        let Shared { inside, queue } = &*self.shared;
        let event = LinkEvent::Up { response: Arc::new(client.response().clone()) };
        if !inside.up(&client.connection, event) {
            return None;
        }
        queue.begin(&client.connection, bytes);
        let reason = loop {
            match client.read_message(READ_TIMEOUT) {
                Ok(message) => inside.put(message, &client.connection, client.connection.limits()),
                Err(Error::Closed(reason)) => break reason,
                Err(_) => {} // a long silence
            }
        };
        queue.end(&reason);
        self.pace.lasted(begun.elapsed());
        let delay = self.pace.next(Advice::of_end(&reason), chance());
        Some((reason, delay))
    }
}

/// A client whose greeting is on its way.
struct Greeted {
    client: Client,
    /// Of the greeting.
    bytes: u64,
}

/// What goes first on a connection. It is not in the queue: if the connection breaks, the next one has its own. Returns its size.
fn send_greeting(greeting: Vec<Message>, client: &Client) -> u64 {
    let (told, _) = bounded(0); // nobody wants to know
    let mut bytes = 0;
    for message in greeting {
        bytes += message.len() as u64;
        // It fails if the connection has ended, which is noticed soon.
        let _ = client.connection.push_told(message, told.clone());
    }
    bytes
}

/// Whatever ends the thread, those who wait for it are told.
struct Ending<'a>(&'a Shared);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let reason = CloseReason::new(CloseCode::ABNORMAL, "its thread has ended", ClosedBy::Client);
        self.0.queue.close(&reason);
        self.0.inside.close(&reason);
        self.0.inside.end();
    }
}

//! What comes from the server, read on a thread of its own.

use std::time::Duration;

use crossbeam_channel::Sender;
use switchboard::{Client, CloseReason, Error, Message};

/// Messages that have come already are handed on together, up to so many bytes and so many of them.
const BYTES: usize = 64 * 1024;
const COUNT: usize = 1024;

/// Whoever waits longer asks again.
const DAY: Duration = Duration::from_secs(86_400);

pub(super) enum Received {
    Messages(Vec<Message>),
    /// Nothing comes after it.
    Ended(CloseReason),
    /// Nor after this, which nobody knows to happen.
    Failed(Error),
}

/// Hands on all that comes, in order, until the connection ends or nobody wants it.
pub(super) fn receive(client: &Client, to: &Sender<Received>) {
    loop {
        let received = match client.read_message(DAY) {
            Ok(first) => Received::Messages(batch(client, first)),
            Err(Error::Timeout) => continue,
            Err(Error::Closed(reason)) => Received::Ended(reason),
            Err(e) => Received::Failed(e),
        };
        let is_last = !matches!(received, Received::Messages(_));
        if to.send(received).is_err() || is_last {
            return;
        }
    }
}

/// The message and those behind it that are there already.
fn batch(client: &Client, first: Message) -> Vec<Message> {
    let mut bytes = first.len();
    let mut batch = vec![first];
    while bytes < BYTES
        && batch.len() < COUNT
        && let Ok(Some(message)) = client.try_read(usize::MAX)
    {
        bytes += message.len();
        batch.push(message);
    }
    batch // if the connection has ended, the next read says so
}

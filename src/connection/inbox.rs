//! The read side: what has been received and not been read, and the receive buffer.
//!
//! Its lock is the right to receive: a synchronous connection's thread holds it while it waits in `recv`.

use std::{collections::VecDeque, io, time::Duration};

use super::Socket;
use crate::{
    deadline::Budget,
    limits::Limits,
    message::{Data, Message},
};

/// The size that a receive buffer starts with, and returns to.
const START: usize = 512;

/// A buffer above this size is given back when nothing came for so long.
const KEEP: usize = 16 * 1024;
const LINGER: Duration = Duration::from_secs(1);

/// A buffer is halved when it was filled to less than a quarter so many times in a row.
const SMALL: u8 = 8;

#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// Messages that were decoded and not yet read.
    pub(super) queue: VecDeque<Message>,
    /// Bytes of the first of them that were read already.
    read: usize,
    /// Messages that `on_client_message` has not seen. Only of shared connections.
    pub(super) fresh: VecDeque<Message>,
    /// Messages that it is being called for.
    taken: usize,
    /// Bytes in all of these.
    pub(super) bytes: usize,
    /// A worker has this connection, or is about to.
    pub(super) scheduled: bool,
    /// Of a shared connection: everything that the client sent has been put in.
    pub(super) complete: bool,
    /// The connection is over, and its handler has not been told.
    pub(super) over: bool,
    /// Nothing is received until there is room.
    pub(super) paused: bool,
    /// A broken rule is answered when the messages before it have been: whoever answers the last of them calls the gateway.
    pub(super) held: bool,
    /// How many wait in `read` of a shared connection.
    pub(super) waiting: usize,
    /// What receives. Of a shared connection the gateway does that, and this stays empty.
    receiver: Option<Box<Receiver>>,
}

/// Receives for a connection's own thread, into a buffer that follows the traffic.
#[derive(Debug)]
pub(super) struct Receiver {
    /// Empty, or just received.
    pub(super) buffer: Vec<u8>,
    /// How much the next `recv` may take.
    size: usize,
    max_size: usize,
    /// How many times in a row little came.
    small: u8,
    /// How long the socket now waits in `recv`.
    timeout: Option<Duration>,
}

impl Inbox {
    pub(super) fn receiver(&mut self, limits: &Limits) -> &mut Receiver {
        self.receiver.get_or_insert_with(|| Box::new(Receiver::new(limits.max_read_buffer)))
    }

    /// Gives back what receives.
    pub(super) fn drop_receiver(&mut self) {
        self.receiver = None;
    }

    /// At most `len` characters or bytes of the next message for a reader, and whether they reach its end.
    pub(super) fn take(&mut self, len: usize) -> Option<(Data, bool)> {
        if self.read == 0 && self.queue.front()?.len() <= len {
            let message = self.queue.pop_front()?;
            self.bytes -= message.len();
            give_back(&mut self.queue);
            return Some((message, true));
        }
        let piece = self.queue.front()?.piece(self.read, len);
        self.bytes -= piece.len();
        self.read += piece.len();
        let at_end = self.queue.front().is_none_or(|message| self.read == message.len());
        if at_end {
            self.queue.pop_front();
            self.read = 0;
            give_back(&mut self.queue);
        }
        Some((piece, at_end))
    }

    /// At most `len` characters or bytes of a message that just came; the rest is kept for the next reader.
    pub(super) fn cut(&mut self, message: Message, len: usize) -> (Data, bool) {
        // A text of so few bytes cannot have more characters.
        if message.len() <= len {
            return (message, true);
        }
        self.bytes += message.len();
        self.queue.push_front(message);
        self.take(len).unwrap_or_else(|| unreachable!("put in above"))
    }

    /// What waits to be read is for `on_client_message` from now on; of a message that was read in part, the rest.
    pub(super) fn hand_over(&mut self) {
        let read = std::mem::take(&mut self.read);
        if let Some(message) = self.queue.front_mut().filter(|_| read > 0) {
            *message = message.piece(read, usize::MAX);
        }
        self.fresh = std::mem::take(&mut self.queue);
    }

    /// The next messages for `on_client_message`. They count until they are put back.
    pub(super) fn take_fresh(&mut self, most: usize) -> VecDeque<Message> {
        let rest = self.fresh.split_off(most.min(self.fresh.len()));
        let batch = std::mem::replace(&mut self.fresh, rest);
        self.taken = batch.len();
        batch
    }

    /// Puts back those that it was not called for. The others, of so many bytes, are done with.
    pub(super) fn put_back(&mut self, batch: &mut VecDeque<Message>, handled: usize) {
        self.taken = 0;
        self.bytes -= handled;
        while let Some(message) = batch.pop_back() {
            self.fresh.push_front(message);
        }
    }

    /// Whether receiving, which has paused, goes on.
    pub(super) fn resumes(&mut self, limits: &Limits) -> bool {
        let resumes = self.paused && self.has_room(limits);
        self.paused &= !resumes;
        resumes
    }

    /// Whether messages of a shared connection have not been answered, as far as that can be told. While its `server` runs,
    /// it has answered what it has read when it reads on.
    pub(super) fn is_unanswered(&self, server_runs: bool) -> bool {
        let is_read = self.queue.is_empty() && !(server_runs && self.waiting == 0);
        self.scheduled || !self.fresh.is_empty() || !is_read
    }

    /// Whether another message may be received.
    pub(super) fn has_room(&self, limits: &Limits) -> bool {
        self.queue.len() + self.fresh.len() + self.taken < limits.max_inbox_messages
            && self.bytes < limits.max_inbox_bytes
    }
}

/// Puts messages behind those that wait. The memory that they came in serves as the queue's, if that has none.
pub(super) fn append(queue: &mut VecDeque<Message>, messages: Vec<Message>) {
    if queue.is_empty() {
        *queue = messages.into();
    } else {
        queue.extend(messages);
    }
}

/// Between messages a connection keeps no memory for them.
fn give_back(queue: &mut VecDeque<Message>) {
    if queue.is_empty() {
        *queue = VecDeque::new();
    }
}

impl Receiver {
    fn new(max_size: usize) -> Self {
        Self { buffer: Vec::new(), size: START, max_size: max_size.max(START), small: 0, timeout: None }
    }

    /// Waits for bytes until the deadline.
    ///
    /// The buffer follows the traffic: it doubles when a `recv` fills it, and a large one is given back when it is quiet.
    ///
    /// # Errors
    /// `WouldBlock` when the time is up.
    pub(super) fn receive(&mut self, socket: &Socket, budget: &mut Budget) -> io::Result<usize> {
        loop {
            let Some(left) = budget.remaining() else { return Err(io::ErrorKind::WouldBlock.into()) };
            let is_large = self.size > KEEP;
            self.set_timeout(socket, if is_large { left.min(LINGER) } else { left })?;
            self.make_room();
            match socket.recv(&mut self.buffer) {
                // Both say only that it is time to look at the clock.
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                    self.size = self.size.min(KEEP / 2);
                }
                result => return self.received(result),
            }
        }
    }

    /// Takes what has arrived, and never waits.
    ///
    /// # Errors
    /// `WouldBlock` if that is nothing.
    pub(super) fn try_receive(&mut self, socket: &Socket) -> io::Result<usize> {
        debug_assert!(self.buffer.is_empty());
        self.make_room();
        let result = socket.try_recv(&mut self.buffer);
        self.received(result)
    }

    fn received(&mut self, result: io::Result<usize>) -> io::Result<usize> {
        let n = *result.as_ref().unwrap_or(&0);
        if n == self.buffer.capacity() {
            self.size = (self.size * 2).min(self.max_size);
        }
        // Not at once: a large message is often followed by its last few bytes.
        self.small = if n < self.size / 4 { self.small + 1 } else { 0 };
        if self.small == SMALL {
            self.size = (self.size / 2).max(START);
            self.small = 0;
        }
        result
    }

    fn make_room(&mut self) {
        if self.buffer.capacity() < self.size || self.buffer.capacity() > self.size * 2 {
            self.buffer = Vec::with_capacity(self.size);
        }
    }

    /// The socket's timeout is only set anew where it would wait too long, or far too short.
    fn set_timeout(&mut self, socket: &Socket, left: Duration) -> io::Result<()> {
        if self.timeout.is_none_or(|now| now > left || now < left / 2) {
            socket.set_recv_timeout(left)?;
            self.timeout = Some(left);
        }
        Ok(())
    }
}

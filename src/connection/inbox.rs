//! The read side: what has been received and not been read, and the receive buffer.
//!
//! Its lock is the right to receive: a synchronous connection's thread holds it while it waits in `recv`.

use std::{collections::VecDeque, io, time::Duration};

use super::Socket;
use crate::{deadline::Deadline, message::Message};

/// The size that a receive buffer starts with, and returns to.
const START: usize = 2 * 1024;

/// A buffer above this size is not kept while waiting.
const KEEP: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Inbox {
    /// Messages that were decoded and not yet read; the first may be the rest of one.
    pub(super) queue: VecDeque<Message>,
    /// Empty, or just received.
    pub(super) buffer: Vec<u8>,
    /// How much the next `recv` may take.
    size: usize,
    max_size: usize,
    /// The last `recv` filled its buffer: more may be there.
    filled: bool,
    /// How long the socket now waits in `recv`.
    timeout: Option<Duration>,
}

impl Inbox {
    pub(super) fn new(max_size: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            buffer: Vec::new(),
            size: START,
            max_size: max_size.max(START),
            filled: false,
            timeout: None,
        }
    }

    /// Waits for bytes until the deadline; one that is over already takes what is there.
    ///
    /// The buffer follows the traffic: it doubles when a `recv` fills it, and a large one is given back before a wait.
    ///
    /// # Errors
    /// `WouldBlock` when the time is up.
    pub(super) fn receive(&mut self, socket: &Socket, deadline: Deadline) -> io::Result<usize> {
        debug_assert!(self.buffer.is_empty());
        if self.filled || self.size > KEEP || deadline.is_over() {
            self.make_room();
            match socket.try_recv(&mut self.buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.size = self.size.min(KEEP / 2),
                result => return self.received(result),
            }
            self.filled = false;
        }
        loop {
            let Some(left) = deadline.remaining() else { return Err(io::ErrorKind::WouldBlock.into()) };
            self.set_timeout(socket, left)?;
            self.make_room();
            match socket.recv(&mut self.buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                result => return self.received(result),
            }
        }
    }

    fn received(&mut self, result: io::Result<usize>) -> io::Result<usize> {
        let n = *result.as_ref().unwrap_or(&0);
        self.filled = n == self.buffer.capacity();
        if self.filled {
            self.size = (self.size * 2).min(self.max_size);
        } else if n < self.size / 4 {
            self.size = (self.size / 2).max(START);
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

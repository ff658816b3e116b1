//! Receives for a connection's own thread, into a buffer that follows the traffic.

use std::{io, time::Duration};

use super::socket::Socket;
use crate::scarce;

/// The size that a receive buffer starts with, and returns to.
const START: usize = 512;

/// A buffer above this size is given back when nothing came for so long.
const KEEP: usize = 16 * 1024;
const LINGER: Duration = Duration::from_secs(1);

/// A buffer is halved when it was filled to less than a quarter so many times in a row.
const SMALL: u8 = 8;

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
    /// After about so long without a byte, the protocol has something to do. `None`: that is to be found out, or it has not.
    pub(super) pause: Option<Duration>,
    /// What was received last, or before that, took longer to decode than a piece of work.
    is_long: [bool; 2],
}

impl Receiver {
    pub(super) fn new(max_size: usize) -> Self {
        Self {
            buffer: Vec::new(),
            size: START,
            max_size: max_size.max(START),
            small: 0,
            timeout: None,
            pause: None,
            is_long: [false; 2],
        }
    }

    /// Waits for bytes for so long at most, or about as long as the [pause](Self::pause).
    ///
    /// The buffer follows the traffic: it doubles when a `recv` fills it, and a large one is given back when it is quiet.
    ///
    /// # Errors
    /// `WouldBlock`: nothing came, and it is time to look at the clock.
    pub(super) fn receive(&mut self, socket: &Socket, left: Duration) -> io::Result<usize> {
        let is_large = self.size > KEEP;
        self.set_timeout(socket, if is_large { left.min(LINGER) } else { left })?;
        self.make_room();
        let received = socket.recv(&mut self.buffer);
        match received {
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                self.size = self.size.min(KEEP / 2);
                self.pause = None;
                Err(io::ErrorKind::WouldBlock.into())
            }
            received => self.adapt(received),
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
        self.adapt(result)
    }

    /// What was received last takes another piece of work.
    pub(super) fn takes_long(&mut self) {
        self.is_long[0] = true;
    }

    /// Whether to decode is to take turns with others.
    pub(super) fn takes_turns(&self) -> bool {
        self.is_long != [false; 2]
    }

    fn adapt(&mut self, result: io::Result<usize>) -> io::Result<usize> {
        let n = *result.as_ref().unwrap_or(&0);
        if n > 0 {
            self.is_long = [false, self.is_long[0]];
        }
        // A larger one is only faster.
        if n == self.buffer.capacity() && scarce::has(self.size * 2) {
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

    /// The socket's timeout is only set anew where it would wait too long, or far too short. A pause may last a quarter
    /// longer.
    fn set_timeout(&mut self, socket: &Socket, left: Duration) -> io::Result<()> {
        let pause = self.pause.unwrap_or(Duration::MAX);
        let wanted = left.min(pause);
        let latest = left.min(pause.saturating_add(pause / 4));
        if self.timeout.is_none_or(|now| now > latest || now < wanted / 2) {
            socket.set_recv_timeout(wanted)?;
            self.timeout = Some(wanted);
        }
        Ok(())
    }
}

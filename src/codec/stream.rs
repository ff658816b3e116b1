//! The lowest layer of the codec: bytes from and for the peer, plain or encrypted with TLS.
//!
//! All in memory: a driver feeds what it received and sends what is pending, and nothing here waits. First it carries the
//! HTTP request, then the frames; it does not interpret the bytes.

use std::ops::Range;

use bytes::{Buf, Bytes};

use super::failure::Failure;
#[cfg(feature = "__tls")]
use super::tls::{Acceptor, Connector, Tls};
use crate::{
    buffered::MUCH,
    scarce::{Short, grow},
};

/// An empty buffer with a larger capacity is freed.
const MAX_KEPT_CAPACITY: usize = 64 * 1024;

/// A shorter message is always copied out of the input buffer, because that is cheaper than allocating a new input buffer.
const MIN_TAKEN_SIZE: usize = 1024;

/// A payload of at least this size is sent from its own buffer, without a copy.
const MIN_TAIL_SIZE: usize = 4 * 1024;

/// A byte stream over memory, plain or encrypted.
#[derive(Debug)]
pub(crate) struct Stream {
    security: Security,
    /// Plain bytes received; those before `at` are consumed.
    input: Vec<u8>,
    at: usize,
    /// Plain bytes to send. Without TLS the driver sends them from here, and those before `sent` are gone.
    output: Vec<u8>,
    sent: usize,
    /// A large payload that follows the output, in its own buffer.
    tail: Option<Box<Bytes>>,
    /// The tail's memory counts elsewhere.
    tail_is_shared: bool,
    /// What its buffers hold may have changed by much; see [`take_resized`](Self::take_resized).
    resized: bool,
    /// There was no memory for something that was to be sent: nothing can follow it.
    is_short: bool,
    /// The peer ended TLS (close_notify).
    ended: bool,
}

#[derive(Debug)]
enum Security {
    None,
    #[cfg(feature = "__tls")]
    Tls(Box<Tls>),
}

impl Stream {
    /// Without encryption.
    pub(crate) fn plain() -> Self {
        Self::new(Security::None)
    }

    /// The server's side of TLS; the handshake happens while bytes are fed.
    #[cfg(feature = "__tls")]
    pub(crate) fn tls(acceptor: &Acceptor) -> Result<Self, Failure> {
        Ok(Self::new(Security::Tls(Box::new(Tls::accept(acceptor)?))))
    }

    /// The client's side of TLS, to a server that must have a certificate for this DNS name or IP address. The handshake's first
    /// message is pending at once; what is [put out](Self::output) before its end is sealed when it has ended.
    #[cfg(feature = "__tls")]
    pub(crate) fn tls_client(connector: &Connector, server_name: &str) -> Result<Self, Failure> {
        Ok(Self::new(Security::Tls(Box::new(Tls::connect(connector, server_name)?))))
    }

    /// There is TLS, and its handshake is not complete.
    #[cfg(feature = "__tls")]
    pub(crate) fn is_handshaking(&self) -> bool {
        matches!(&self.security, Security::Tls(tls) if tls.is_handshaking())
    }

    /// The certificates with which the client of a server has shown who it is, in DER, its own first.
    #[cfg(feature = "__tls")]
    pub(crate) fn client_certificates(&self) -> Option<Vec<Bytes>> {
        match &self.security {
            Security::None => None,
            Security::Tls(tls) => tls.client_certificates(),
        }
    }

    fn new(security: Security) -> Self {
        Self {
            security,
            input: Vec::new(),
            at: 0,
            output: Vec::new(),
            sent: 0,
            tail: None,
            tail_is_shared: false,
            resized: true,
            is_short: false,
            ended: false,
        }
    }

    /// Takes in what was received, and leaves an empty buffer behind.
    pub(crate) fn feed(&mut self, received: &mut Vec<u8>) -> Result<(), Failure> {
        let before = self.input.capacity();
        match &mut self.security {
            Security::None if self.at == self.input.len() => {
                std::mem::swap(&mut self.input, received);
                self.at = 0;
            }
            Security::None => {
                self.input.drain(..self.at);
                self.at = 0;
                grow(&mut self.input, received.len())?;
                self.input.extend_from_slice(received);
            }
            #[cfg(feature = "__tls")]
            Security::Tls(tls) => {
                self.input.drain(..self.at);
                self.at = 0;
                let result = tls.open(received, &mut self.input);
                self.ended |= tls.ended();
                self.resized |= tls.held() >= MUCH;
                result?;
            }
        }
        received.clear();
        self.resized |= before.max(self.input.capacity()) >= MUCH;
        Ok(())
    }

    /// A buffer for the next `recv`: the input buffer if it is empty, else a new one.
    pub(crate) fn spare_buffer(&mut self) -> Vec<u8> {
        if self.at < self.input.len() {
            return Vec::new();
        }
        self.at = 0;
        self.resized |= self.input.capacity() >= MUCH;
        let mut buffer = std::mem::take(&mut self.input);
        buffer.clear();
        buffer
    }

    /// The peer ended TLS (close_notify): nothing more will come.
    pub(crate) fn ended(&self) -> bool {
        self.ended
    }

    /// Plain bytes that were received and not consumed.
    pub(crate) fn input(&self) -> &[u8] {
        &self.input[self.at..]
    }

    pub(crate) fn input_mut(&mut self) -> &mut [u8] {
        &mut self.input[self.at..]
    }

    pub(crate) fn consume(&mut self, n: usize) {
        self.at += n;
        debug_assert!(self.at <= self.input.len());
    }

    /// Returns a `part` of the input without a copy, by giving the input buffer away. `None` unless the buffer ends with this
    /// part, and the part takes at least half of its memory.
    pub(super) fn take_buffer(&mut self, part: Range<usize>) -> Option<Bytes> {
        let is_end = self.at + part.end == self.input.len();
        if !is_end || part.len() < MIN_TAKEN_SIZE || part.len() < self.input.capacity() / 2 {
            return None;
        }
        let start = self.at + part.start;
        self.at = 0;
        self.resized = true;
        Some(Bytes::from(std::mem::take(&mut self.input)).slice(start..))
    }

    /// Where plain bytes to be sent are appended.
    pub(crate) fn output(&mut self) -> &mut Vec<u8> {
        if let Some(tail) = self.tail.take() {
            match grow(&mut self.output, tail.len()) {
                Ok(()) => self.output.extend_from_slice(&tail),
                Err(Short) => self.is_short = true,
            }
        }
        &mut self.output
    }

    /// Appends a payload to be sent; a large one without a copy.
    pub(super) fn append(&mut self, payload: Bytes, is_shared: bool) {
        if payload.len() < MIN_TAIL_SIZE {
            self.output().extend_from_slice(&payload);
        } else {
            self.output();
            self.tail = Some(Box::new(payload));
            self.tail_is_shared = is_shared;
            self.resized = true;
        }
        self.note_output();
    }

    /// Encrypts what is to be sent, in TLS records as large as possible. To be called before `pending_parts`.
    pub(crate) fn seal(&mut self) -> Result<(), Failure> {
        if self.is_short {
            return Err(Short.into());
        }
        match &mut self.security {
            Security::None => Ok(()),
            #[cfg(feature = "__tls")]
            Security::Tls(tls) => {
                if !self.output.is_empty() && tls.seal(&self.output)? {
                    clear(&mut self.output);
                }
                self.resized |= tls.held() >= MUCH;
                if self.output.is_empty()
                    && let Some(tail) = &self.tail
                    && tls.seal(tail)?
                {
                    self.tail = None;
                }
                Ok(())
            }
        }
    }

    /// Ends TLS (close_notify); nothing can be sent after it.
    pub(crate) fn finish(&mut self) {
        match &mut self.security {
            Security::None => {}
            #[cfg(feature = "__tls")]
            Security::Tls(tls) => tls.finish(),
        }
    }

    /// Bytes, encrypted if there is TLS, that the socket has not taken yet, in two parts.
    pub(crate) fn pending_parts(&self) -> [&[u8]; 2] {
        match &self.security {
            Security::None => [&self.output[self.sent..], self.tail.as_deref().map_or(&[], |tail| &tail[..])],
            #[cfg(feature = "__tls")]
            Security::Tls(tls) => [&tls.sealed()[self.sent..], &[]],
        }
    }

    /// Whether the socket has taken all [`pending_parts`](Self::pending_parts).
    pub(crate) fn is_sent(&self) -> bool {
        self.pending_parts().iter().all(|part| part.is_empty())
    }

    /// How many bytes are still to be sent, encrypted or not yet.
    pub(crate) fn pending(&self) -> usize {
        let plain = self.output.len() + self.tail.as_ref().map_or(0, |tail| tail.len());
        match &self.security {
            Security::None => plain - self.sent,
            #[cfg(feature = "__tls")]
            Security::Tls(tls) => plain + tls.sealed().len() - self.sent,
        }
    }

    /// The socket took `n` of the pending bytes.
    pub(crate) fn mark_sent(&mut self, n: usize) {
        let of_tail = n.saturating_sub(self.pending_parts()[0].len());
        if let Some(tail) = &mut self.tail {
            tail.advance(of_tail);
            if tail.is_empty() {
                self.tail = None;
                self.resized = true;
            }
        }
        self.sent += n - of_tail;
        let buffer = match &mut self.security {
            Security::None => &mut self.output,
            #[cfg(feature = "__tls")]
            Security::Tls(tls) => tls.sealed_mut(),
        };
        if self.sent == buffer.len() {
            self.resized |= buffer.capacity() > MAX_KEPT_CAPACITY;
            clear(buffer);
            self.sent = 0;
        } else if self.sent >= MAX_KEPT_CAPACITY && self.sent * 2 >= buffer.len() {
            // The sent part of a long backlog is removed now and then, to free its memory.
            buffer.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Discards everything that is to be sent, because it cannot be sent any more.
    pub(crate) fn discard_output(&mut self) {
        self.resized = true;
        self.output = Vec::new();
        self.tail = None;
        #[cfg(feature = "__tls")]
        if let Security::Tls(tls) = &mut self.security {
            *tls.sealed_mut() = Vec::new();
        }
        self.sent = 0;
    }

    /// Something was appended to the [output](Self::output).
    pub(super) fn note_output(&mut self) {
        self.resized |= self.output.capacity() >= MUCH;
    }

    /// What is stored elsewhere may have changed.
    pub(super) fn note_resized(&mut self) {
        self.resized = true;
    }

    /// Whether what is [held](Self::held) may have changed by much since this was last asked: mostly it has not, which costs
    /// little to find out.
    pub(super) fn take_resized(&mut self) -> bool {
        std::mem::take(&mut self.resized)
    }

    /// How much memory its buffers take.
    pub(super) fn held(&self) -> usize {
        let tail = self.tail.as_ref().filter(|_| !self.tail_is_shared);
        let plain = self.input.capacity() + self.output.capacity() + tail.map_or(0, |tail| tail.len());
        match &self.security {
            Security::None => plain,
            #[cfg(feature = "__tls")]
            Security::Tls(tls) => plain + tls.held(),
        }
    }

    /// Frees the buffers that are empty.
    pub(crate) fn park(&mut self) {
        self.resized = true;
        if self.at == self.input.len() {
            self.input = Vec::new();
            self.at = 0;
        }
        if self.pending() == 0 {
            self.output = Vec::new();
            #[cfg(feature = "__tls")]
            if let Security::Tls(tls) = &mut self.security {
                tls.park();
            }
        }
    }
}

/// Empties a buffer, and frees it if it is a large one.
fn clear(buffer: &mut Vec<u8>) {
    buffer.clear();
    if buffer.capacity() > MAX_KEPT_CAPACITY {
        *buffer = Vec::new();
    }
}

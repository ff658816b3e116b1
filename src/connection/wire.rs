//! What the codec's lock guards: the codec, the socket, and how far the connection's end has come.
//!
//! The lock is held for microseconds: nothing here waits, and no user code is called.

use std::{io, sync::Arc};

use super::Socket;
use crate::codec::{Codec, Failure};

/// Answers are collected up to this size while more messages wait to be read.
const COLLECT: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Wire {
    /// `None` when the connection is over.
    pub(super) socket: Option<Arc<Socket>>,
    pub(super) codec: Codec,
    pub(super) phase: Phase,
    /// Output is held back on purpose; see [`collect`](Self::collect).
    pub(super) collected: bool,
    /// The socket did not take all of the output.
    pub(super) blocked: bool,
    /// How often the output became empty: who added to it knows by this that all of his is sent.
    pub(super) generation: u64,
    half_closed: bool,
}

/// How far a connection's end has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// Our close frame is out; the peer's answer is awaited (RFC 6455, section 7.1.2).
    Closing,
    /// Nothing is left to say. When the output is sent, the stream is ended this way (FIN), and what still arrives
    /// is thrown away until the peer ends it, too: a socket closed with unread input would reset the connection,
    /// and the peer might never read our close frame.
    Draining,
    Over,
}

/// What came of a flush.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    All,
    Blocked,
    Broken(Failure),
}

impl Wire {
    pub(super) fn new(socket: Arc<Socket>, codec: Codec) -> Self {
        Self {
            socket: Some(socket),
            codec,
            phase: Phase::Open,
            collected: false,
            blocked: false,
            generation: 0,
            half_closed: false,
        }
    }

    /// Whether what was just encoded may wait for the answers to the messages that have already arrived.
    ///
    /// Sent together they cost one call; see the crate's documentation on flushing.
    pub(super) fn collect(&mut self) -> bool {
        self.collected =
            !self.blocked && self.codec.has_whole_message() && self.codec.stream().pending() < COLLECT;
        self.collected
    }

    /// Sends what is pending, as far as the socket takes it.
    pub(super) fn flush(&mut self) -> Flushed {
        self.collected = false;
        let Some(socket) = &self.socket else { return Flushed::All };
        loop {
            let stream = self.codec.stream();
            if let Err(failure) = stream.seal() {
                return Flushed::Broken(failure);
            }
            if !stream.pending_bytes().is_empty() {
                match socket.try_send(stream.pending_bytes()) {
                    Ok(n) => stream.mark_sent(n),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        self.blocked = true;
                        return Flushed::Blocked;
                    }
                    Err(e) => return Flushed::Broken(Failure::network(e.to_string())),
                }
            } else if self.phase == Phase::Draining && !self.half_closed {
                self.half_closed = true;
                stream.finish();
                // What TLS has to say is so short that it is sent, or not missed.
                let _ = socket.try_send(stream.pending_bytes());
                socket.shutdown_write();
            } else {
                self.blocked = false;
                self.generation += 1;
                return Flushed::All;
            }
        }
    }
}

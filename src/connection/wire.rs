//! What the codec's lock guards: the codec, the socket, and how far the connection's end has come.
//!
//! The lock is held for microseconds: nothing here waits, and no user code is called.

use std::{io, sync::Arc};

use super::Socket;
use crate::codec::{Codec, Failure, Outgoing};

/// Answers are collected up to this size while more messages wait to be read.
const COLLECT: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Wire {
    /// `None` when the connection is over.
    pub(super) socket: Option<Arc<Socket>>,
    pub(super) codec: Codec,
    pub(super) phase: Phase,
    /// The client broke the rules, which is to be answered when the messages before have been.
    pub(super) held: Option<Box<Failure>>,
    /// Output is held back on purpose; see [`collect`](Self::collect).
    pub(super) collected: bool,
    /// The socket did not take all of the output.
    pub(super) blocked: bool,
    /// How often the output became empty: who added to it knows by this that all of his is sent.
    pub(super) generation: u64,
    /// Messages taken from the outbox so far: who waits his turn knows by this when it has come.
    pub(super) drained: u64,
    pub(super) counts: Counts,
    /// When the client was last heard, by the clock.
    pub(super) last_heard: u32,
    /// When the socket last took something, by the clock; kept while it is blocked.
    pub(super) last_sent: u32,
    /// When the last message went either way, by the clock.
    pub(super) last_message: u32,
    /// When the ping was sent that is not answered yet.
    pub(super) pinged: Option<u32>,
    /// How long the last ping took for its pong, in microseconds.
    pub(super) round_trip: Option<u32>,
    /// The codec has said that nothing more comes.
    finished: bool,
    /// So has the socket.
    half_closed: bool,
    /// Why nothing can be sent any more.
    pub(super) broken: Option<Box<str>>,
    /// The socket took something since this was last cleared.
    pub(super) progress: bool,
    /// The reason was set: those who wait have to be told when the lock is free.
    pub(super) announce: bool,
}

/// What has gone through a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) messages_in: u64,
    pub(crate) messages_out: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
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

/// Whether output may wait.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Collected {
    No,
    /// It may, and the gateway has to know.
    First,
    /// It may, along with what the gateway knows of.
    More,
}

impl Wire {
    pub(super) fn new(socket: Arc<Socket>, codec: Codec, now: u32) -> Self {
        Self {
            socket: Some(socket),
            codec,
            phase: Phase::Open,
            held: None,
            collected: false,
            blocked: false,
            generation: 0,
            drained: 0,
            counts: Counts::default(),
            last_heard: now,
            last_sent: now,
            last_message: now,
            pinged: None,
            round_trip: None,
            finished: false,
            half_closed: false,
            broken: None,
            progress: false,
            announce: false,
        }
    }

    /// Appends a message to the output.
    pub(super) fn encode(&mut self, outgoing: Outgoing) {
        self.counts.messages_out += 1;
        self.codec.encode(outgoing);
    }

    /// Whether what was just encoded may wait for the answers to the messages that have already arrived: those that
    /// the codec holds, or `more` elsewhere.
    ///
    /// Sent together they cost one call; see the crate's documentation on flushing.
    pub(super) fn collect(&mut self, more: bool) -> Collected {
        let before = self.collected;
        self.collected = !self.blocked
            && (more || self.codec.has_whole_message())
            && self.codec.stream().pending() < COLLECT;
        match (before, self.collected) {
            (_, false) => Collected::No,
            (false, true) => Collected::First,
            (true, true) => Collected::More,
        }
    }

    /// Sends what is pending, as far as the socket takes it.
    pub(super) fn flush(&mut self) -> Flushed {
        self.collected = false;
        let Some(socket) = &self.socket else { return Flushed::All };
        if self.half_closed || self.broken.is_some() {
            self.codec.stream().discard_output(); // nothing can be sent any more
            return Flushed::All;
        }
        loop {
            let stream = self.codec.stream();
            if let Err(failure) = stream.seal() {
                return Flushed::Broken(failure);
            }
            if !stream.is_sent() {
                match socket.try_send_parts(stream.pending_parts()) {
                    Ok(n) => {
                        stream.mark_sent(n);
                        self.progress = true;
                        self.counts.bytes_out += n as u64;
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                        self.blocked = true;
                        return Flushed::Blocked;
                    }
                    Err(e) => {
                        // What the client sent before it left can still be received: the end comes from there.
                        self.blocked = false;
                        self.broken = Some(e.to_string().into());
                        stream.discard_output();
                        return Flushed::All;
                    }
                }
            } else if self.phase == Phase::Draining && !self.finished {
                self.finished = true;
                stream.finish(); // TLS has something to say, which is to be sent like the rest
            } else {
                if self.phase == Phase::Draining {
                    self.half_closed = true;
                    socket.shutdown_write();
                }
                self.blocked = false;
                self.generation += 1;
                return Flushed::All;
            }
        }
    }
}

//! Sends a body that comes about while it is sent (RFC 9112, section 7.1).

use std::{io, time::Duration};

use super::incoming::Incoming;
use crate::{
    caught::caught,
    deadline::Deadline,
    http::{Producer, Sink},
};

impl Incoming {
    /// `patience` is how long the client may take for each piece.
    pub(super) fn produce(&mut self, producer: Producer, patience: Duration) -> io::Result<()> {
        self.send(Deadline::after(patience))?; // the head: the first piece may be long in coming
        let is_chunked = producer.is_chunked();
        let mut pieces = Pieces { incoming: self, patience, is_chunked };
        let produced = caught(|| producer.run(&mut pieces));
        produced.unwrap_or_else(|| Err(io::Error::other("what writes the body panicked")))?;
        if is_chunked {
            self.stream.output().extend_from_slice(b"0\r\n\r\n");
        }
        self.send(Deadline::after(patience))
    }
}

struct Pieces<'a> {
    incoming: &'a mut Incoming,
    patience: Duration,
    is_chunked: bool,
}

impl Sink for Pieces<'_> {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(()); // as a chunk it would be the last one
        }
        let output = self.incoming.stream.output();
        if self.is_chunked {
            output.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
        }
        output.extend_from_slice(bytes);
        if self.is_chunked {
            output.extend_from_slice(b"\r\n");
        }
        self.incoming.send(Deadline::after(self.patience))
    }

    fn is_over(&self) -> bool {
        // A shutdown ends what is received, too.
        self.incoming.socket.is_end_in_sight().unwrap_or(true)
    }
}

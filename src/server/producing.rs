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

    /// Whether nobody wants more: the client has ended its side, or the server shuts down, which ends what is received, too.
    pub(super) fn is_over(&self) -> bool {
        self.socket.is_end_in_sight().unwrap_or(true)
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
        self.incoming.is_over()
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, os::unix::net::UnixStream};

    use super::*;
    use crate::{
        codec::Stream,
        http::{Body, CommonHeaders, Response},
    };

    /// What a client gets of a body, and what the server learns of it.
    fn sent(
        produce: impl FnOnce(&mut dyn Sink) -> io::Result<()> + Send + 'static,
    ) -> (String, io::Result<()>) {
        let (mut client, socket) = UnixStream::pair().unwrap();
        let patience = Duration::from_secs(5);
        let mut incoming =
            Incoming::new(socket.into(), Stream::plain(), None, false, 0, Deadline::after(patience));
        let (_, body) = Response::produced("text/plain", produce).into_parts(&CommonHeaders::default(), true);
        let Body::Produced(producer) = body else { panic!("it is another body") };
        let result = incoming.produce(producer, patience);
        drop(incoming);
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        (text, result)
    }

    #[test]
    fn a_body_that_breaks_off_is_never_taken_for_a_whole_one() {
        let (text, result) = sent(|sink| sink.send(b"abc").and_then(|()| sink.send(b"")));
        assert!(result.is_ok());
        assert_eq!(text, "3\r\nabc\r\n0\r\n\r\n");
        let (text, result) = sent(|sink| {
            sink.send(b"abc")?;
            panic!("on purpose")
        });
        assert!(result.unwrap_err().to_string().contains("panicked"));
        assert_eq!(text, "3\r\nabc\r\n");
        let (text, result) = sent(|sink| sink.send(b"abc").and(Err(io::ErrorKind::Other.into())));
        assert!(result.is_err());
        assert_eq!(text, "3\r\nabc\r\n");
    }
}

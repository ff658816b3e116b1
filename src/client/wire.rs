//! A socket that does not speak WebSocket yet: what the handshakes send and receive over it, by one deadline.

use std::{io, sync::Arc, time::Duration};

use super::{
    error::{ClientError, ConnectStep},
    response::HandshakeResponse,
};
use crate::{
    codec::Stream,
    connection::Socket,
    deadline::Deadline,
    error::TlsError,
    http::{Part, ResponseHead},
};

/// Of what a refusal says, so much is kept, and so long is it waited for.
const MAX_BODY: usize = 8 * 1024;
const BODY_TIME: Duration = Duration::from_secs(2);

/// Received at a time.
const ROOM: usize = 1024;

pub(super) struct Wire {
    pub(super) socket: Arc<Socket>,
    pub(super) stream: Stream,
    pub(super) deadline: Deadline,
    /// What is being done.
    pub(super) step: ConnectStep,
    /// Bytes that a head may have.
    pub(super) max_head: usize,
}

/// What came of receiving.
#[derive(PartialEq, Eq)]
enum More {
    Some,
    /// The other side has ended its stream.
    End,
}

impl Wire {
    /// Completes the TLS handshake that the stream begins with.
    #[cfg(feature = "__tls")]
    pub(super) fn secure(&mut self) -> Result<(), ClientError> {
        self.send()?;
        while self.stream.is_handshaking() {
            if self.receive(self.deadline)? == More::End {
                return Err(self.broken(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Ok(())
    }

    /// Sends what is in the output of the stream, and receives the head of the response; interim ones are skipped.
    pub(super) fn exchange(&mut self) -> Result<ResponseHead, ClientError> {
        self.send()?;
        let mut skipped = 0;
        let mut seen = 0;
        loop {
            let input = self.stream.input();
            if may_end(input, seen) || input.len() >= self.max_head {
                let parsed = ResponseHead::parse(input, skipped, self.max_head);
                if let Some((head, length)) = parsed.map_err(ClientError::handshake)? {
                    self.stream.consume(length);
                    if !head.status.is_informational() || head.status == http::StatusCode::SWITCHING_PROTOCOLS
                    {
                        return Ok(head);
                    }
                    (skipped, seen) = (skipped + length, 0); // RFC 9110, section 15.2
                    continue;
                }
            }
            seen = input.len();
            if self.receive(self.deadline)? == More::End {
                return Err(self.broken(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// The response that this is the head of, with as much of its body as comes soon.
    pub(super) fn refusal(&mut self, head: ResponseHead) -> Box<HandshakeResponse> {
        let deadline = self.deadline.or_earlier(Deadline::after(BODY_TIME));
        let mut decoder = head.body();
        let mut body = Vec::new();
        while body.len() < MAX_BODY {
            let input = self.stream.input();
            let part = match &mut decoder {
                Some(decoder) => decoder.next(input),
                None if input.is_empty() => Ok(Part::Incomplete),
                None => Ok(Part::Data(input.len())),
            };
            match part {
                Ok(Part::Data(length)) => {
                    body.extend_from_slice(&input[..length.min(MAX_BODY - body.len())]);
                    self.stream.consume(length);
                }
                Ok(Part::Other(length)) => self.stream.consume(length),
                Ok(Part::Incomplete) if matches!(self.receive(deadline), Ok(More::Some)) => {}
                _ => break,
            }
        }
        Box::new(HandshakeResponse { status: head.status, headers: head.headers, body })
    }

    /// Sends what is pending.
    fn send(&mut self) -> Result<(), ClientError> {
        self.stream.seal().map_err(|failure| tls_error(failure.text))?;
        while !self.stream.is_sent() {
            match self.socket.try_send_parts(self.stream.pending_parts()) {
                Ok(n) => self.stream.mark_sent(n),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    match self.socket.wait_writable(self.deadline) {
                        Ok(true) => {}
                        Ok(false) => return Err(ClientError::Timeout(self.step)),
                        Err(e) => return Err(ClientError::Io(e)),
                    }
                }
                Err(e) => return Err(self.broken(e)),
            }
        }
        Ok(())
    }

    fn receive(&mut self, deadline: Deadline) -> Result<More, ClientError> {
        if self.stream.ended() {
            return Ok(More::End);
        }
        let mut buffer = self.stream.spare_buffer();
        buffer.reserve(ROOM);
        loop {
            let Some(left) = deadline.remaining() else { return Err(ClientError::Timeout(self.step)) };
            self.socket.set_recv_timeout(left).map_err(ClientError::Io)?;
            match self.socket.recv(&mut buffer) {
                Ok(0) => return Ok(More::End),
                Ok(_) => break,
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(e) => return Err(self.broken(e)),
            }
        }
        let is_http = buffer.starts_with(b"HTTP/");
        let fed = self.stream.feed(&mut buffer);
        let sent = self.send(); // what TLS has to say, also if it failed
        fed.map_err(|failure| match is_http {
            true => tls_error(format!("{}: the answer is plain HTTP, as of a port for ws://", failure.text)),
            false => tls_error(failure.text),
        })?;
        sent.map(|()| More::Some)
    }

    fn broken(&self, e: io::Error) -> ClientError {
        ClientError::broken(self.step, e)
    }
}

fn tls_error(text: impl Into<String>) -> ClientError {
    ClientError::Tls(TlsError::new(text))
}

/// Whether parsing is worth its time: at the first bytes, and when an empty line has come.
fn may_end(input: &[u8], seen: usize) -> bool {
    !input.is_empty()
        && (seen == 0 || input[seen.saturating_sub(3)..].windows(2).any(|w| w == b"\n\r" || w == b"\n\n"))
}

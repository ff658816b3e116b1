//! The server's side of TLS over memory: ciphertext in, plaintext out, and back.
//!
//! `native_tls` believes that it talks to a socket; it talks to a pair of buffers that answer `WouldBlock`. So a TLS
//! connection, too, can be read by one thread while another writes: nobody holds it while waiting.

use std::io::{self, Read, Write};

use native_tls::{HandshakeError, MidHandshakeTlsStream, TlsAcceptor, TlsStream};

use super::Failure;

/// The largest plaintext of one TLS record (RFC 8446, section 5.1).
const RECORD: usize = 16 * 1024;

#[derive(Debug)]
pub(super) enum Tls {
    Handshaking(MidHandshakeTlsStream<Pipe>),
    Established {
        stream: TlsStream<Pipe>,
        ended: bool,
    },
    /// Failed, or between two states. What is sealed (an alert) can still be sent.
    Broken(Pipe),
}

/// What stands in for the socket.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    input: Vec<u8>,
    at: usize,
    output: Vec<u8>,
}

impl Tls {
    pub(super) fn accept(acceptor: &TlsAcceptor) -> Result<Self, Failure> {
        match acceptor.accept(Pipe::default()) {
            Err(HandshakeError::WouldBlock(handshake)) => Ok(Self::Handshaking(handshake)),
            Ok(_) => Err(Failure::network("TLS handshake ended before it began")),
            Err(HandshakeError::Failure(e)) => Err(Failure::network(format!("TLS handshake failed: {e}"))),
        }
    }

    /// Decrypts `received` and appends the plaintext to `plain`.
    pub(super) fn open(&mut self, received: &mut Vec<u8>, plain: &mut Vec<u8>) -> Result<(), Failure> {
        self.pipe_mut().feed(received);
        if matches!(self, Self::Handshaking(_)) {
            self.handshake()?;
        }
        let Self::Established { stream, ended } = self else { return Ok(()) };
        while !*ended {
            let (len, most) = (plain.len(), stream.get_ref().left().clamp(256, RECORD));
            plain.resize(len + most, 0);
            let result = stream.read(&mut plain[len..]);
            plain.truncate(len + *result.as_ref().unwrap_or(&0));
            match result {
                Ok(0) => *ended = true,
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(Failure::network(format!("TLS: {e}"))),
            }
        }
        Ok(())
    }

    fn handshake(&mut self) -> Result<(), Failure> {
        let Self::Handshaking(handshake) = std::mem::replace(self, Self::Broken(Pipe::default())) else {
            return Ok(());
        };
        match handshake.handshake() {
            Ok(stream) => *self = Self::Established { stream, ended: false },
            Err(HandshakeError::WouldBlock(more)) => *self = Self::Handshaking(more),
            Err(HandshakeError::Failure(e)) => {
                return Err(Failure::network(format!("TLS handshake failed: {e}")));
            }
        }
        Ok(())
    }

    /// Encrypts `plain` and empties it. During the handshake it stays where it is.
    pub(super) fn seal(&mut self, plain: &mut Vec<u8>) -> Result<(), Failure> {
        let Self::Established { stream, .. } = self else { return Ok(()) };
        if plain.is_empty() {
            return Ok(());
        }
        stream.write_all(plain).map_err(|e| Failure::network(format!("TLS: {e}")))?;
        plain.clear();
        if plain.capacity() > super::stream::KEEP {
            *plain = Vec::new();
        }
        Ok(())
    }

    pub(super) fn finish(&mut self) {
        if let Self::Established { stream, .. } = self {
            // The peer may be gone: then nobody misses it.
            let _ = stream.shutdown();
        }
    }

    pub(super) fn ended(&self) -> bool {
        matches!(self, Self::Established { ended: true, .. })
    }

    pub(super) fn sealed(&self) -> &Vec<u8> {
        match self {
            Self::Handshaking(handshake) => &handshake.get_ref().output,
            Self::Established { stream, .. } => &stream.get_ref().output,
            Self::Broken(pipe) => &pipe.output,
        }
    }

    pub(super) fn sealed_mut(&mut self) -> &mut Vec<u8> {
        &mut self.pipe_mut().output
    }

    pub(super) fn park(&mut self) {
        let pipe = self.pipe_mut();
        if pipe.left() == 0 {
            *pipe = Pipe { output: std::mem::take(&mut pipe.output), ..Pipe::default() };
        }
        if pipe.output.is_empty() {
            pipe.output = Vec::new();
        }
    }

    fn pipe_mut(&mut self) -> &mut Pipe {
        match self {
            Self::Handshaking(handshake) => handshake.get_mut(),
            Self::Established { stream, .. } => stream.get_mut(),
            Self::Broken(pipe) => pipe,
        }
    }
}

impl Pipe {
    fn feed(&mut self, received: &mut Vec<u8>) {
        if self.left() == 0 {
            self.at = 0;
            std::mem::swap(&mut self.input, received);
        } else {
            self.input.extend_from_slice(received);
        }
    }

    fn left(&self) -> usize {
        self.input.len() - self.at
    }
}

impl Read for Pipe {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.left() == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = self.left().min(buf.len());
        buf[..n].copy_from_slice(&self.input[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

impl Write for Pipe {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

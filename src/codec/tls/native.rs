//! TLS by `native_tls`, which gets a pair of buffers instead of a socket: they return `WouldBlock` where a socket would wait.

use std::{
    io::{self, Read, Write},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use native_tls::{HandshakeError, MidHandshakeTlsStream, TlsAcceptor, TlsConnector, TlsStream};

use super::{MAX_RECORD, handshake_failed};
use crate::{
    codec::failure::Failure,
    scarce::{Short, grow},
    sync::LockExt,
};

#[derive(Debug)]
pub(super) struct Native {
    state: State,
    /// How much memory the buffers of the pipe took when it was last used.
    piped: usize,
}

#[derive(Debug)]
enum State {
    /// A failed handshake drops its stream, and the alert for the peer with it. So it writes to a buffer that is also kept
    /// here.
    Handshaking(MidHandshakeTlsStream<Pipe>, Arc<Mutex<Vec<u8>>>),
    Established(TlsStream<Pipe>),
    /// The peer ended its side of TLS (close_notify). Sending to it is still possible.
    Ended(TlsStream<Pipe>),
    /// The handshake failed.
    Failed,
}

/// The buffers that `native_tls` is given instead of a socket: ciphertext from and for the peer.
#[derive(Debug, Default)]
struct Pipe {
    input: Vec<u8>,
    at: usize,
    output: Vec<u8>,
    /// Used instead of `output` during the handshake.
    handshake: Option<Arc<Mutex<Vec<u8>>>>,
}

impl Native {
    pub(super) fn accept(acceptor: &TlsAcceptor) -> Result<Self, Failure> {
        Self::begin(|pipe| acceptor.accept(pipe), &mut Vec::new())
    }

    pub(super) fn connect(
        connector: &TlsConnector,
        server_name: &str,
        sealed: &mut Vec<u8>,
    ) -> Result<Self, Failure> {
        Self::begin(|pipe| connector.connect(server_name, pipe), sealed)
    }

    fn begin(
        handshake: impl FnOnce(Pipe) -> Result<TlsStream<Pipe>, HandshakeError<Pipe>>,
        sealed: &mut Vec<u8>,
    ) -> Result<Self, Failure> {
        let output = Arc::<Mutex<Vec<u8>>>::default();
        match handshake(Pipe { handshake: Some(output.clone()), ..Pipe::default() }) {
            Err(HandshakeError::WouldBlock(handshake)) => {
                sealed.append(&mut output.locked());
                Ok(Self { state: State::Handshaking(handshake, output), piped: 0 })
            }
            Ok(_) => Err(Failure::network("TLS handshake ended before it began")),
            Err(HandshakeError::Failure(e)) => Err(handshake_failed(e)),
        }
    }

    pub(super) fn open(
        &mut self,
        received: &mut Vec<u8>,
        plain: &mut Vec<u8>,
        sealed: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        match &mut self.state {
            State::Handshaking(handshake, _) => {
                handshake.get_mut().feed(received);
                self.handshake(sealed)?;
            }
            State::Established(stream) => stream.get_mut().feed(received),
            State::Ended(_) | State::Failed => received.clear(), // it cannot be decrypted any more
        }
        let State::Established(stream) = &mut self.state else { return Ok(()) };
        let result = loop {
            let (len, room) = (plain.len(), stream.get_ref().left().clamp(256, MAX_RECORD));
            grow(plain, room)?;
            plain.resize(len + room, 0);
            let result = stream.read(&mut plain[len..]);
            plain.truncate(len + *result.as_ref().unwrap_or(&0));
            match result {
                Ok(1..) => {}
                other => break other,
            }
        };
        self.collect_output(sealed)?;
        match result {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(e) => Err(Failure::network(format!("TLS: {e}"))),
            Ok(_) => {
                if let State::Established(stream) = std::mem::replace(&mut self.state, State::Failed) {
                    self.state = State::Ended(stream);
                }
                Ok(())
            }
        }
    }

    fn handshake(&mut self, sealed: &mut Vec<u8>) -> Result<(), Failure> {
        let State::Handshaking(handshake, output) = std::mem::replace(&mut self.state, State::Failed) else {
            return Ok(());
        };
        let result = handshake.handshake();
        sealed.append(&mut output.locked());
        match result {
            Ok(mut stream) => {
                stream.get_mut().handshake = None;
                self.state = State::Established(stream);
            }
            Err(HandshakeError::WouldBlock(more)) => self.state = State::Handshaking(more, output),
            Err(HandshakeError::Failure(e)) => return Err(handshake_failed(e)),
        }
        Ok(())
    }

    pub(super) fn seal(&mut self, plain: &[u8], sealed: &mut Vec<u8>) -> Result<bool, Failure> {
        let (State::Established(stream) | State::Ended(stream)) = &mut self.state else { return Ok(false) };
        stream.write_all(plain).map_err(|e| Failure::network(format!("TLS: {e}")))?;
        self.collect_output(sealed)?;
        Ok(true)
    }

    pub(super) fn finish(&mut self, sealed: &mut Vec<u8>) {
        if let State::Established(stream) | State::Ended(stream) = &mut self.state {
            // Fails only if TLS is already broken.
            let _ = stream.shutdown();
            // Without memory for a few bytes the stream ends without them.
            let _ = self.collect_output(sealed);
        }
    }

    pub(super) fn is_handshaking(&self) -> bool {
        matches!(self.state, State::Handshaking(..))
    }

    pub(super) fn ended(&self) -> bool {
        matches!(self.state, State::Ended(_))
    }

    /// `native_tls` asks for none.
    pub(super) fn client_certificates(&self) -> Option<Vec<Bytes>> {
        None
    }

    pub(super) fn held(&self) -> usize {
        self.piped
    }

    pub(super) fn park(&mut self) {
        if let State::Established(stream) | State::Ended(stream) = &mut self.state {
            stream.get_mut().park();
            self.piped = stream.get_ref().held();
        }
    }

    /// Moves what TLS has written to `sealed`.
    fn collect_output(&mut self, sealed: &mut Vec<u8>) -> Result<(), Short> {
        let (State::Established(stream) | State::Ended(stream)) = &mut self.state else { return Ok(()) };
        let written = &mut stream.get_mut().output;
        if sealed.is_empty() {
            std::mem::swap(sealed, written);
        } else {
            grow(sealed, written.len())?;
            sealed.append(written);
        }
        self.piped = stream.get_ref().held();
        Ok(())
    }
}

impl Pipe {
    fn feed(&mut self, received: &mut Vec<u8>) {
        if self.left() == 0 {
            self.at = 0;
            std::mem::swap(&mut self.input, received);
        } else {
            self.input.drain(..self.at);
            self.at = 0;
            self.input.extend_from_slice(received);
        }
    }

    fn held(&self) -> usize {
        self.input.capacity() + self.output.capacity()
    }

    fn left(&self) -> usize {
        self.input.len() - self.at
    }

    fn park(&mut self) {
        if self.left() == 0 {
            (self.input, self.at) = (Vec::new(), 0);
        }
        if self.output.is_empty() {
            self.output = Vec::new();
        }
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
        match &self.handshake {
            Some(output) => output.locked().extend_from_slice(buf),
            None => {
                grow(&mut self.output, buf.len()).map_err(|_| io::ErrorKind::OutOfMemory)?;
                self.output.extend_from_slice(buf);
            }
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! The server's side of TLS over memory: ciphertext in, plaintext out, and back.
//!
//! Instead of a socket, `native_tls` gets a pair of buffers that return `WouldBlock` where a socket would wait. So one thread
//! can wait for input while another one writes, which a `TlsStream` on a socket does not allow.

use std::{
    io::{self, Read, Write},
    sync::{Arc, Mutex},
};

use native_tls::{HandshakeError, MidHandshakeTlsStream, TlsAcceptor, TlsStream};

use super::failure::Failure;
use crate::sync::LockExt;

/// The largest plaintext of one TLS record (RFC 8446, section 5.1).
const MAX_RECORD: usize = 16 * 1024;

#[derive(Debug)]
pub(super) struct Tls {
    state: State,
    /// Ciphertext to be sent.
    sealed: Vec<u8>,
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

impl Tls {
    pub(super) fn accept(acceptor: &TlsAcceptor) -> Result<Self, Failure> {
        let output = Arc::<Mutex<Vec<u8>>>::default();
        match acceptor.accept(Pipe { handshake: Some(output.clone()), ..Pipe::default() }) {
            Err(HandshakeError::WouldBlock(handshake)) => {
                Ok(Self { state: State::Handshaking(handshake, output), sealed: Vec::new(), piped: 0 })
            }
            Ok(_) => Err(Failure::network("TLS handshake ended before it began")),
            Err(HandshakeError::Failure(e)) => Err(Failure::network(format!("TLS handshake failed: {e}"))),
        }
    }

    /// Decrypts `received`, and appends the plaintext to `plain`. Before that it continues the handshake.
    pub(super) fn open(&mut self, received: &mut Vec<u8>, plain: &mut Vec<u8>) -> Result<(), Failure> {
        match &mut self.state {
            State::Handshaking(handshake, _) => {
                handshake.get_mut().feed(received);
                self.handshake()?;
            }
            State::Established(stream) => stream.get_mut().feed(received),
            State::Ended(_) | State::Failed => received.clear(), // it cannot be decrypted any more
        }
        let State::Established(stream) = &mut self.state else { return Ok(()) };
        let result = loop {
            let (len, room) = (plain.len(), stream.get_ref().left().clamp(256, MAX_RECORD));
            plain.resize(len + room, 0);
            let result = stream.read(&mut plain[len..]);
            plain.truncate(len + *result.as_ref().unwrap_or(&0));
            match result {
                Ok(1..) => {}
                other => break other,
            }
        };
        self.collect_output();
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

    fn handshake(&mut self) -> Result<(), Failure> {
        let State::Handshaking(handshake, output) = std::mem::replace(&mut self.state, State::Failed) else {
            return Ok(());
        };
        let result = handshake.handshake();
        self.sealed.append(&mut output.locked());
        match result {
            Ok(mut stream) => {
                stream.get_mut().handshake = None;
                self.state = State::Established(stream);
            }
            Err(HandshakeError::WouldBlock(more)) => self.state = State::Handshaking(more, output),
            Err(HandshakeError::Failure(e)) => {
                return Err(Failure::network(format!("TLS handshake failed: {e}")));
            }
        }
        Ok(())
    }

    /// Encrypts `plain`. `false` if it cannot, because the handshake is not complete.
    pub(super) fn seal(&mut self, plain: &[u8]) -> Result<bool, Failure> {
        let (State::Established(stream) | State::Ended(stream)) = &mut self.state else { return Ok(false) };
        stream.write_all(plain).map_err(|e| Failure::network(format!("TLS: {e}")))?;
        self.collect_output();
        Ok(true)
    }

    /// Tells the peer that nothing more will be sent (close_notify).
    pub(super) fn finish(&mut self) {
        if let State::Established(stream) | State::Ended(stream) = &mut self.state {
            // Fails only if TLS is already broken.
            let _ = stream.shutdown();
            self.collect_output();
        }
    }

    /// The peer ended TLS: nothing more will come.
    pub(super) fn ended(&self) -> bool {
        matches!(self.state, State::Ended(_))
    }

    /// Ciphertext to be sent.
    pub(super) fn sealed(&self) -> &Vec<u8> {
        &self.sealed
    }

    pub(super) fn sealed_mut(&mut self) -> &mut Vec<u8> {
        &mut self.sealed
    }

    /// How much memory its buffers take.
    pub(super) fn held(&self) -> usize {
        self.sealed.capacity() + self.piped
    }

    pub(super) fn park(&mut self) {
        if let State::Established(stream) | State::Ended(stream) = &mut self.state {
            stream.get_mut().park();
            self.piped = stream.get_ref().held();
        }
        if self.sealed.is_empty() {
            self.sealed = Vec::new();
        }
    }

    /// Moves what TLS has written to `sealed`.
    fn collect_output(&mut self) {
        let (State::Established(stream) | State::Ended(stream)) = &mut self.state else { return };
        let written = &mut stream.get_mut().output;
        if self.sealed.is_empty() {
            std::mem::swap(&mut self.sealed, written);
        } else {
            self.sealed.append(written);
        }
        self.piped = stream.get_ref().held();
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
            None => self.output.extend_from_slice(buf),
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use native_tls::{Certificate, TlsConnector};

    use super::*;
    use crate::TlsIdentity;

    #[test]
    fn a_parked_stream_keeps_no_buffers_and_still_works() {
        let (client, mut server) = UnixStream::pair().unwrap();
        let client = std::thread::spawn(move || {
            let ca = Certificate::from_pem(&std::fs::read("certs/ca.pem").unwrap()).unwrap();
            let connector = TlsConnector::builder().add_root_certificate(ca).build().unwrap();
            let mut tls = connector.connect("localhost", client).unwrap();
            let mut answer = [0; 6];
            for _ in 0..2 {
                tls.write_all(b"asked ").unwrap();
                tls.read_exact(&mut answer).unwrap();
            }
            answer
        });
        let identity = TlsIdentity::from_pem_files("certs/server.pem", "certs/server.key").unwrap();
        let mut tls = Tls::accept(identity.acceptor()).unwrap();
        for _ in 0..2 {
            let mut plain = Vec::new();
            while plain.is_empty() {
                let mut received = vec![0; 4096];
                let n = server.read(&mut received).unwrap();
                received.truncate(n);
                tls.open(&mut received, &mut plain).unwrap();
                server.write_all(tls.sealed()).unwrap();
                tls.sealed_mut().clear();
            }
            assert_eq!(plain, b"asked ");
            for part in [b"ans", b"wer"] {
                assert!(tls.seal(part).unwrap());
                server.write_all(tls.sealed()).unwrap();
                tls.sealed_mut().clear();
            }
            tls.park();
            let State::Established(stream) = &tls.state else { panic!("{tls:?}") };
            let Pipe { input, output, .. } = stream.get_ref();
            assert_eq!([input.capacity(), output.capacity(), tls.sealed.capacity()], [0; 3]);
        }
        assert_eq!(&client.join().unwrap(), b"answer");
    }
}

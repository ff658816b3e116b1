//! TLS by `rustls`, whose unbuffered connections work on buffers of ours.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use rustls::{
    ClientConfig, ServerConfig,
    client::UnbufferedClientConnection,
    pki_types::ServerName,
    server::UnbufferedServerConnection,
    unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError},
};

use super::{MAX_RECORD, handshake_failed};
use crate::{codec::failure::Failure, scarce::grow};

/// More of a record is its header, the tag, and with TLS 1.2 the nonce, with TLS 1.3 the type (RFC 8446, section 5.2).
const OVERHEAD: usize = 32;

/// So much may have arrived that cannot be decrypted or understood yet: one record, or the largest handshake message that a peer
/// may send. It has to send more for us to do anything.
const MAX_INPUT: usize = 64 * 1024;

#[derive(Debug)]
pub(super) struct Rustls {
    side: Side,
    /// Ciphertext that is not complete.
    input: Vec<u8>,
    /// The peer ended its side of TLS (close_notify).
    ended: bool,
    failed: bool,
}

enum Side {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

impl fmt::Debug for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server(_) => "Server",
            Self::Client(_) => "Client",
        })
    }
}

/// What a connection is to do once it has nothing more to read.
enum Then<'a> {
    Nothing,
    Seal(&'a [u8]),
    Finish,
}

/// How far a call of the library has come.
enum Step {
    Go,
    /// There is nothing more to do; whether what was to be done then has been done.
    Stop(bool),
}

impl Rustls {
    pub(super) fn accept(config: &Arc<ServerConfig>) -> Result<Self, Failure> {
        UnbufferedServerConnection::new(config.clone())
            .map(|server| Self::new(Side::Server(server)))
            .map_err(handshake_failed)
    }

    pub(super) fn connect(
        config: &Arc<ClientConfig>,
        server_name: &str,
        sealed: &mut Vec<u8>,
    ) -> Result<Self, Failure> {
        let name = ServerName::try_from(server_name.to_owned()).map_err(handshake_failed)?;
        let client = UnbufferedClientConnection::new(config.clone(), name).map_err(handshake_failed)?;
        let mut tls = Self::new(Side::Client(client));
        tls.advance(&mut Vec::new(), sealed, &Then::Nothing)?;
        Ok(tls)
    }

    fn new(side: Side) -> Self {
        Self { side, input: Vec::new(), ended: false, failed: false }
    }

    pub(super) fn open(
        &mut self,
        received: &mut Vec<u8>,
        plain: &mut Vec<u8>,
        sealed: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        if self.failed || self.ended {
            received.clear(); // it cannot be decrypted any more
            return Ok(());
        }
        if self.input.is_empty() {
            std::mem::swap(&mut self.input, received);
        } else {
            self.input.extend_from_slice(received);
        }
        self.advance(plain, sealed, &Then::Nothing)?;
        if self.ended {
            self.input = Vec::new();
        }
        if self.input.len() > MAX_INPUT {
            (self.failed, self.input) = (true, Vec::new());
            return Err(Failure::network("TLS: a message is too large"));
        }
        Ok(())
    }

    pub(super) fn seal(&mut self, plain: &[u8], sealed: &mut Vec<u8>) -> Result<bool, Failure> {
        if self.failed || self.is_handshaking() {
            return Ok(false);
        }
        self.advance(&mut Vec::new(), sealed, &Then::Seal(plain))
    }

    pub(super) fn finish(&mut self, sealed: &mut Vec<u8>) {
        if !self.failed && !self.is_handshaking() {
            // Fails only if TLS is already broken.
            let _ = self.advance(&mut Vec::new(), sealed, &Then::Finish);
        }
    }

    pub(super) fn is_handshaking(&self) -> bool {
        match &self.side {
            Side::Server(server) => server.is_handshaking(),
            Side::Client(client) => client.is_handshaking(),
        }
    }

    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    pub(super) fn client_certificates(&self) -> Option<Vec<Bytes>> {
        let Side::Server(server) = &self.side else { return None };
        let chain = server.peer_certificates()?.iter();
        Some(chain.map(|certificate| Bytes::copy_from_slice(certificate)).collect())
    }

    pub(super) fn held(&self) -> usize {
        self.input.capacity()
    }

    pub(super) fn park(&mut self) {
        if self.input.is_empty() {
            self.input = Vec::new();
        }
    }

    /// Goes on until there is nothing more to do with what has arrived, and then does what is asked for. Returns whether that could
    /// be done.
    fn advance(
        &mut self,
        plain: &mut Vec<u8>,
        sealed: &mut Vec<u8>,
        then: &Then<'_>,
    ) -> Result<bool, Failure> {
        let mut done = 0;
        let result = loop {
            let (discard, step) = self.step(done, plain, sealed, then);
            done += discard;
            match step {
                Ok(Step::Go) => {}
                Ok(Step::Stop(could)) => break Ok(could),
                Err(failure) => {
                    self.failed = true;
                    self.tell(done, sealed);
                    break Err(failure);
                }
            }
        };
        // Once for all records.
        match self.failed || done == self.input.len() {
            true => self.input.clear(),
            false => drop(self.input.drain(..done)),
        }
        result
    }

    /// One call of the library, for the input from `at` on. Returns how much of it is done with.
    fn step(
        &mut self,
        at: usize,
        plain: &mut Vec<u8>,
        sealed: &mut Vec<u8>,
        then: &Then<'_>,
    ) -> (usize, Result<Step, Failure>) {
        let input = &mut self.input[at..];
        let (discard, step) = match &mut self.side {
            Side::Server(server) => {
                let status = server.process_tls_records(input);
                (status.discard, status.state.map(|state| take(state, plain, sealed, then)))
            }
            Side::Client(client) => {
                let status = client.process_tls_records(input);
                (status.discard, status.state.map(|state| take(state, plain, sealed, then)))
            }
        };
        let step = match step {
            Ok(Ok(Taken::Step(step))) => Ok(step),
            Ok(Ok(Taken::Ended)) => {
                self.ended = true;
                Ok(Step::Go)
            }
            Ok(Err(failure)) => Err(failure),
            Err(e) if self.is_handshaking() => Err(handshake_failed(e)),
            Err(e) => Err(Failure::network(format!("TLS: {e}"))),
        };
        (discard, step)
    }

    /// Takes the alert with which the peer is told of a failure. The library is only called as long as it has some of that: it must
    /// not go on with what has arrived.
    fn tell(&mut self, at: usize, sealed: &mut Vec<u8>) {
        let input = &mut self.input[at..];
        match &mut self.side {
            Side::Server(server) => {
                while server.wants_write() && encoded(server.process_tls_records(input).state, sealed) {}
            }
            Side::Client(client) => {
                while client.wants_write() && encoded(client.process_tls_records(input).state, sealed) {}
            }
        }
    }
}

/// What a state of the library was.
enum Taken {
    Step(Step),
    /// The peer has ended its side.
    Ended,
}

fn take<Data>(
    state: ConnectionState<'_, '_, Data>,
    plain: &mut Vec<u8>,
    sealed: &mut Vec<u8>,
    then: &Then<'_>,
) -> Result<Taken, Failure> {
    let broken = |e: &dyn fmt::Display| Failure::network(format!("TLS: {e}"));
    Ok(Taken::Step(match state {
        ConnectionState::ReadTraffic(mut records) => {
            while let Some(record) = records.next_record() {
                let payload = record.map_err(|e| broken(&e))?.payload;
                grow(plain, payload.len())?;
                plain.extend_from_slice(payload);
            }
            Step::Go
        }
        ConnectionState::EncodeTlsData(mut data) => {
            encode(&mut data, sealed).map_err(|e| broken(&e))?;
            Step::Go
        }
        ConnectionState::TransmitTlsData(data) => {
            data.done();
            Step::Go
        }
        ConnectionState::PeerClosed => return Ok(Taken::Ended),
        ConnectionState::WriteTraffic(mut traffic) => {
            match then {
                Then::Nothing => {}
                Then::Seal(plain) => {
                    let room = plain.len() + plain.len().div_ceil(MAX_RECORD) * OVERHEAD;
                    grow(sealed, room)?;
                    append(sealed, room, |room| traffic.encrypt(plain, room)).map_err(|e| broken(&e))?;
                }
                Then::Finish => append(sealed, 2 + OVERHEAD, |room| traffic.queue_close_notify(room))
                    .map_err(|e| broken(&e))?,
            }
            Step::Stop(true)
        }
        // There is no early data, as the server takes none.
        _ => Step::Stop(false),
    }))
}

/// Whether there was something to be sent.
fn encoded<Data>(state: Result<ConnectionState<'_, '_, Data>, rustls::Error>, sealed: &mut Vec<u8>) -> bool {
    match state {
        Ok(ConnectionState::EncodeTlsData(mut data)) => encode(&mut data, sealed).is_ok(),
        _ => false,
    }
}

fn encode<Data>(data: &mut EncodeTlsData<'_, Data>, sealed: &mut Vec<u8>) -> Result<(), EncodeError> {
    append(sealed, 0, |room| data.encode(room))
}

/// Appends what `write` writes into the room that it is given, and gives it more if it says that this is too little.
fn append<E: TooShort>(
    sealed: &mut Vec<u8>,
    mut room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<(), E> {
    let start = sealed.len();
    loop {
        sealed.resize(start + room, 0);
        let result = write(&mut sealed[start..]);
        sealed.truncate(start + *result.as_ref().unwrap_or(&0));
        match result {
            Ok(_) => return Ok(()),
            Err(e) => room = e.required().filter(|&required| required > room).ok_or(e)?,
        }
    }
}

/// An error that may say how much room is required.
trait TooShort {
    fn required(&self) -> Option<usize>;
}

impl TooShort for EncodeError {
    fn required(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(InsufficientSizeError { required_size }) => Some(*required_size),
            Self::AlreadyEncoded => None,
        }
    }
}

impl TooShort for EncryptError {
    fn required(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(InsufficientSizeError { required_size }) => Some(*required_size),
            Self::EncryptExhausted => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::HandshakeKind;

    use super::*;
    use crate::{
        TlsBackend, TlsClientCa, TlsIdentity, TlsTrust,
        codec::{Acceptor, Connector},
    };

    /// Whether a second connection resumes the session of the first one.
    fn resumes(identity: &TlsIdentity) -> bool {
        let trust = TlsTrust::ca_file("certs/ca.pem").unwrap().with_backend(TlsBackend::Rustls);
        let kinds = [(); 2].map(|()| {
            let current = identity.current();
            #[allow(irrefutable_let_patterns, reason = "there may be no other library")]
            let Acceptor::Rustls(server) = current.acceptor().unwrap() else { panic!() };
            #[allow(irrefutable_let_patterns, reason = "there may be no other library")]
            let Connector::Rustls(client) = &trust.connector().unwrap() else { panic!() };
            let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
            let mut server = Rustls::accept(server).unwrap();
            let mut client = Rustls::connect(client, "localhost", &mut to_server).unwrap();
            while !to_server.is_empty() || !to_client.is_empty() {
                server.open(&mut to_server, &mut Vec::new(), &mut to_client).unwrap();
                to_server.clear();
                client.open(&mut to_client, &mut Vec::new(), &mut to_server).unwrap();
                to_client.clear();
            }
            let Side::Client(client) = &client.side else { panic!() };
            client.handshake_kind().unwrap()
        });
        assert_eq!(kinds[0], HandshakeKind::Full);
        kinds[1] == HandshakeKind::Resumed
    }

    #[test]
    fn sessions_are_resumed_only_where_nobody_has_to_be_verified() {
        let identity = TlsIdentity::from_pem_files("certs/server.pem", "certs/server.key").unwrap();
        let identity = identity.with_backend(TlsBackend::Rustls);
        assert!(resumes(&identity));
        let ca = TlsClientCa::from_pem_file("certs/ca.pem").unwrap().optional();
        assert!(!resumes(&identity.with_client_ca(ca)));
    }
}

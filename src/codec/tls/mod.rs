//! TLS over memory: ciphertext in, plaintext out, and back; the server's side and the client's, with either library.
//!
//! Neither library gets a socket. So one thread can wait for input while another one writes, which a TLS stream on a socket does
//! not allow, and a stream that is idle keeps no buffers.

#[cfg(feature = "tls")]
mod native;
#[cfg(feature = "rustls")]
mod rustls;

#[cfg(not(any(feature = "tls", feature = "rustls")))]
compile_error!("`__tls` is no feature to be enabled: take `tls`, `rustls`, or both");

use bytes::Bytes;

use super::failure::Failure;

/// The largest plaintext of one TLS record (RFC 8446, section 5.1).
const MAX_RECORD: usize = 16 * 1024;

/// What makes the server's side of connections. Cheap to clone.
#[derive(Clone)]
pub(crate) enum Acceptor {
    #[cfg(feature = "tls")]
    Native(native_tls::TlsAcceptor),
    #[cfg(feature = "rustls")]
    Rustls(std::sync::Arc<::rustls::ServerConfig>),
}

/// What makes the client's side of connections. Cheap to clone.
#[derive(Clone)]
pub(crate) enum Connector {
    #[cfg(feature = "tls")]
    Native(native_tls::TlsConnector),
    #[cfg(feature = "rustls")]
    Rustls(std::sync::Arc<::rustls::ClientConfig>),
}

/// One end of TLS.
#[derive(Debug)]
pub(super) struct Tls {
    library: Library,
    /// Ciphertext to be sent.
    sealed: Vec<u8>,
}

/// Boxed, as they differ in size, and a connection keeps its own as long as it is open.
#[derive(Debug)]
enum Library {
    #[cfg(feature = "tls")]
    Native(Box<native::Native>),
    #[cfg(feature = "rustls")]
    Rustls(Box<rustls::Rustls>),
}

/// Calls the same function of whichever library it is.
macro_rules! with {
    ($library:expr, $tls:ident => $call:expr) => {
        match $library {
            #[cfg(feature = "tls")]
            Library::Native($tls) => $call,
            #[cfg(feature = "rustls")]
            Library::Rustls($tls) => $call,
        }
    };
}

impl Tls {
    pub(super) fn accept(acceptor: &Acceptor) -> Result<Self, Failure> {
        let library = match acceptor {
            #[cfg(feature = "tls")]
            Acceptor::Native(acceptor) => Library::Native(Box::new(native::Native::accept(acceptor)?)),
            #[cfg(feature = "rustls")]
            Acceptor::Rustls(config) => Library::Rustls(Box::new(rustls::Rustls::accept(config)?)),
        };
        Ok(Self { library, sealed: Vec::new() })
    }

    /// The client's side, to a server that must have a certificate for this DNS name or IP address. Its first message is
    /// [`sealed`](Self::sealed) at once.
    pub(super) fn connect(connector: &Connector, server_name: &str) -> Result<Self, Failure> {
        let mut sealed = Vec::new();
        let library = match connector {
            #[cfg(feature = "tls")]
            Connector::Native(connector) => {
                Library::Native(Box::new(native::Native::connect(connector, server_name, &mut sealed)?))
            }
            #[cfg(feature = "rustls")]
            Connector::Rustls(config) => {
                Library::Rustls(Box::new(rustls::Rustls::connect(config, server_name, &mut sealed)?))
            }
        };
        Ok(Self { library, sealed })
    }

    /// Decrypts `received`, and appends the plaintext to `plain`. Before that it continues the handshake.
    ///
    /// What there is to tell the peer, the alert of a failure too, is [`sealed`](Self::sealed) then.
    pub(super) fn open(&mut self, received: &mut Vec<u8>, plain: &mut Vec<u8>) -> Result<(), Failure> {
        with!(&mut self.library, tls => tls.open(received, plain, &mut self.sealed))
    }

    /// Encrypts `plain`. `false` if it cannot, because the handshake is not complete.
    pub(super) fn seal(&mut self, plain: &[u8]) -> Result<bool, Failure> {
        with!(&mut self.library, tls => tls.seal(plain, &mut self.sealed))
    }

    /// Ends this side of TLS (close_notify). An attacker cannot do that, but could end the stream.
    pub(super) fn finish(&mut self) {
        with!(&mut self.library, tls => tls.finish(&mut self.sealed));
    }

    /// The handshake is not complete.
    pub(super) fn is_handshaking(&self) -> bool {
        with!(&self.library, tls => tls.is_handshaking())
    }

    /// The peer ended TLS: nothing more will come.
    pub(super) fn ended(&self) -> bool {
        with!(&self.library, tls => tls.ended())
    }

    /// The certificates with which a client has shown who it is, in DER, its own first. They have been verified.
    pub(super) fn client_certificates(&self) -> Option<Vec<Bytes>> {
        with!(&self.library, tls => tls.client_certificates())
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
        self.sealed.capacity() + with!(&self.library, tls => tls.held())
    }

    /// Frees the buffers that are empty.
    pub(super) fn park(&mut self) {
        with!(&mut self.library, tls => tls.park());
        if self.sealed.is_empty() {
            self.sealed = Vec::new();
        }
    }
}

fn handshake_failed(error: impl std::fmt::Display) -> Failure {
    Failure::network(format!("TLS handshake failed: {error}"))
}

#[cfg(test)]
mod tests;

//! A connection that the program has made or accepted itself.

use std::{
    io,
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
};

use super::socket::Socket;

/// A connection of your own, for [`ServerHandle::adopt`](crate::ServerHandle::adopt) or
/// [`ClientBuilder::connect_over`](crate::ClientBuilder::connect_over): made from a `TcpStream` or a `UnixStream`. A stream
/// socket of another kind comes as a `UnixStream`, too: `UnixStream::from(OwnedFd)`.
#[derive(Debug)]
pub struct AdoptedStream {
    socket: Socket,
    peer: Option<SocketAddr>,
    blocks: io::Result<()>,
}

impl AdoptedStream {
    /// The other end, where it has an address.
    pub(crate) fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// The socket.
    ///
    /// # Errors
    /// It is none that can be used.
    pub(crate) fn into_socket(self) -> io::Result<Socket> {
        self.blocks.map(|()| self.socket)
    }

    /// The socket, as far as it can be used.
    pub(crate) fn into_any_socket(self) -> Socket {
        self.socket
    }
}

impl From<TcpStream> for AdoptedStream {
    fn from(stream: TcpStream) -> Self {
        let (peer, blocks) = (stream.peer_addr().ok(), stream.set_nonblocking(false));
        Self { socket: stream.into(), peer, blocks }
    }
}

impl From<UnixStream> for AdoptedStream {
    fn from(stream: UnixStream) -> Self {
        let blocks = stream.set_nonblocking(false);
        Self { socket: stream.into(), peer: None, blocks }
    }
}

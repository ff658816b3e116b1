//! The socket of a connection: the few calls that are needed, none of which leaves a descriptor behind.

use std::{
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    time::Duration,
};

use rustix::{
    buffer::spare_capacity,
    event::{PollFd, PollFlags, poll},
    fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    io::Errno,
    net::{self, RecvFlags, SendFlags, Shutdown, sockopt},
};

use crate::deadline::{Deadline, timespec};

/// Sending never waits, and no signal says that the peer is gone.
#[cfg(not(target_vendor = "apple"))]
const SEND: SendFlags = SendFlags::DONTWAIT.union(SendFlags::NOSIGNAL);
#[cfg(target_vendor = "apple")] // there the standard library has set SO_NOSIGPIPE
const SEND: SendFlags = SendFlags::DONTWAIT;

/// That the peer has ended its stream. Where the system cannot say so, only that both have.
#[cfg(not(target_vendor = "apple"))]
const PEER_ENDED: PollFlags = PollFlags::RDHUP;
#[cfg(target_vendor = "apple")]
const PEER_ENDED: PollFlags = PollFlags::HUP;

/// A connected stream socket, TCP or Unix. Closed when dropped.
#[derive(Debug)]
pub(crate) struct Socket(OwnedFd);

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        // Messages are whole when they are sent: there is nothing to wait for. It cannot fail on a TCP socket that
        // is alive; on a dead one the next call will say so. A listener would pass it on only to those that come later.
        let _ = stream.set_nodelay(true);
        Self(stream.into())
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self(stream.into())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Socket {
    /// Appends what arrives to the spare capacity of `buffer`, waiting as long as [`set_recv_timeout`] says, or until a
    /// signal comes (`Interrupted`).
    ///
    /// [`set_recv_timeout`]: Self::set_recv_timeout
    pub(crate) fn recv(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        self.recv_with(buffer, RecvFlags::empty())
    }

    /// Appends what has arrived, and never waits.
    pub(crate) fn try_recv(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        self.recv_with(buffer, RecvFlags::DONTWAIT)
    }

    fn recv_with(&self, buffer: &mut Vec<u8>, flags: RecvFlags) -> io::Result<usize> {
        Ok(net::recv(&self.0, spare_capacity(buffer), flags).map(|(n, _)| n)?)
    }

    /// Sends as much as the kernel takes now.
    pub(crate) fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match net::send(&self.0, bytes, SEND) {
                Err(Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }

    /// The same, of two parts.
    pub(crate) fn try_send_parts(&self, [first, second]: [&[u8]; 2]) -> io::Result<usize> {
        if second.is_empty() {
            return self.try_send(first);
        }
        let parts = [IoSlice::new(first), IoSlice::new(second)];
        loop {
            match net::sendmsg(&self.0, &parts, &mut net::SendAncillaryBuffer::default(), SEND) {
                Err(Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
    }

    /// Its own address on this machine; `None` for a Unix socket, or if the connection is broken.
    pub(crate) fn local_ip(&self) -> Option<IpAddr> {
        let address: SocketAddr = net::getsockname(&self.0).ok()?.try_into().ok()?;
        Some(address.ip())
    }

    /// How long a `recv` waits.
    pub(crate) fn set_recv_timeout(&self, timeout: Duration) -> io::Result<()> {
        // Zero would mean to wait for ever.
        let timeout = timeout.max(Duration::from_micros(1));
        Ok(sockopt::set_socket_timeout(&self.0, sockopt::Timeout::Recv, Some(timeout))?)
    }

    /// Waits until the socket takes more, or has ended. False: the time was up.
    pub(crate) fn wait_writable(&self, deadline: Deadline) -> io::Result<bool> {
        self.wait(PollFlags::OUT, deadline)
    }

    /// Waits until something arrived, or the socket has ended. False: the time was up.
    pub(crate) fn wait_readable(&self, deadline: Deadline) -> io::Result<bool> {
        self.wait(PollFlags::IN, deadline)
    }

    /// Waits until the peer's stream has ended, perhaps behind bytes that have not been received. False: the time was up.
    pub(crate) fn wait_end(&self, deadline: Deadline) -> io::Result<bool> {
        self.wait(PEER_ENDED, deadline)
    }

    /// Waits until something arrived, or the socket takes more, or has ended. False: the time was up.
    pub(crate) fn wait_either(&self, deadline: Deadline) -> io::Result<bool> {
        self.wait(PollFlags::IN | PollFlags::OUT, deadline)
    }

    /// Whether the peer's stream has ended (FIN), perhaps behind bytes that have not been received.
    ///
    /// # Errors
    /// The connection is broken, such as by a reset.
    pub(crate) fn is_end_in_sight(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(&self.0, PEER_ENDED)];
        poll(&mut fds, Some(&timespec(Duration::ZERO)))?;
        let told = fds[0].revents();
        if told.contains(PollFlags::ERR) {
            sockopt::socket_error(&self.0)??;
        }
        Ok(told.intersects(PEER_ENDED | PollFlags::HUP))
    }

    /// The system asks a peer that is silent whether it is still there, and breaks the connection of one that does not answer:
    /// after this silence, and within this time.
    pub(crate) fn keep_alive(&self, interval: Duration, timeout: Duration) {
        const PROBES: u32 = 3;
        let seconds = |time: Duration| Duration::from_secs(time.as_secs().max(1));
        // What is refused is not TCP: a Unix socket's peer is a process, whose end is always told.
        let _ = sockopt::set_tcp_keepidle(&self.0, seconds(interval));
        let _ = sockopt::set_tcp_keepintvl(&self.0, seconds(timeout / PROBES));
        let _ = sockopt::set_tcp_keepcnt(&self.0, PROBES);
        let _ = sockopt::set_socket_keepalive(&self.0, true);
        // Probes are only sent while nothing waits to be acknowledged.
        #[cfg(target_os = "linux")]
        let _ = sockopt::set_tcp_user_timeout(
            &self.0,
            interval.saturating_add(timeout).as_millis().try_into().unwrap_or(u32::MAX),
        );
    }

    fn wait(&self, flags: PollFlags, deadline: Deadline) -> io::Result<bool> {
        loop {
            let Some(left) = deadline.remaining() else { return Ok(false) };
            // A rest below a microsecond would come back too early, and often.
            let timeout = timespec(left.max(Duration::from_micros(1)));
            match poll(&mut [PollFd::new(&self.0, flags)], Some(&timeout)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(true),
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Nothing will be sent any more (FIN); what arrives is still received.
    pub(crate) fn shutdown_write(&self) {
        // It fails only where the peer is gone.
        let _ = net::shutdown(&self.0, Shutdown::Write);
    }

    /// Whoever waits in `recv` gets an end; it can still be sent to.
    pub(crate) fn shutdown_read(&self) {
        let _ = net::shutdown(&self.0, Shutdown::Read);
    }

    /// Ends it both ways: whoever waits in `recv` wakes up.
    pub(crate) fn shutdown(&self) {
        let _ = net::shutdown(&self.0, Shutdown::Both);
    }
}

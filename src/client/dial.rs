//! From a name to a connected socket. Every wait has the deadline of the whole attempt.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    path::Path,
    sync::{Condvar, Mutex, PoisonError},
    thread,
    time::Duration,
};

use crossbeam_channel::{RecvTimeoutError, bounded};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};

use super::error::{ClientError, ConnectError, ConnectStep};
use crate::{
    connection::Socket,
    deadline::{Deadline, timespec},
    sync::LockExt,
    thread::spawn,
};

/// The system's lookup cannot be given up, so it has a thread, which outlives a client that gives up. There are so many at most.
const MAX_LOOKUPS: usize = 16;
const LOOKUP_STACK: usize = 512 * 1024; // what the system's plugins for it may need

/// So long an address is tried before the next one is tried, too (RFC 8305, section 5).
const STAGGER: Duration = Duration::from_millis(250);

/// A Unix socket whose queue is full says nothing when it has room.
const PAUSE: Duration = Duration::from_millis(5);

/// The addresses of a host, or the one that it is.
pub(super) fn resolve(host: &str, port: u16, deadline: Deadline) -> Result<Vec<SocketAddr>, ClientError> {
    if let Ok(ip) = host.parse() {
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let fail = |source| {
        let address = host.to_owned();
        ClientError::Resolve(Box::new(ConnectError { address, source }))
    };
    let place = Place::take(deadline).ok_or(ClientError::Timeout(ConnectStep::Resolve))?;
    let (found, told) = bounded(1);
    let name = host.to_owned();
    let look_up = move || {
        let _place = place;
        let addresses = (name.as_str(), port).to_socket_addrs();
        let _ = found.send(addresses.map(Iterator::collect::<Vec<_>>)); // nobody may wait any more
    };
    drop(spawn("switchboard-name", LOOKUP_STACK, look_up).map_err(ClientError::Io)?);
    match told.recv_timeout(deadline.remaining().unwrap_or_default()) {
        Ok(Ok(addresses)) if addresses.is_empty() => Err(fail(io::ErrorKind::NotFound.into())),
        Ok(Ok(addresses)) => Ok(alternating(addresses)),
        Ok(Err(e)) => Err(fail(e)),
        Err(RecvTimeoutError::Timeout) => Err(ClientError::Timeout(ConnectStep::Resolve)),
        Err(RecvTimeoutError::Disconnected) => Err(fail(io::Error::other("the lookup failed"))),
    }
}

/// Those of the first one's family and the others by turns, each in the system's order: where one family leads nowhere, that costs
/// one wait.
fn alternating(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let count = addresses.len();
    let (mut one, mut other): (Vec<_>, Vec<_>) =
        addresses.into_iter().rev().partition(|address| address.is_ipv6() == first_is_v6);
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        all.extend(one.pop());
        all.extend(other.pop());
    }
    all
}

static LOOKUPS: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// One of the lookups that there may be at a time.
struct Place;

impl Place {
    fn take(deadline: Deadline) -> Option<Self> {
        let mut count = LOOKUPS.locked();
        while *count >= MAX_LOOKUPS {
            let left = deadline.remaining()?;
            count = ENDED.wait_timeout(count, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        *count += 1;
        Some(Self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *LOOKUPS.locked() -= 1;
        ENDED.notify_one();
    }
}

/// Connects to one of the addresses: to each of them a while after the one before, or as soon as that has failed, until one answers.
///
/// # Errors
/// Why the last of them could not be reached.
pub(super) fn connect_tcp(
    addresses: &[SocketAddr],
    deadline: Deadline,
) -> Result<(Socket, SocketAddr), ClientError> {
    let mut next = addresses.iter();
    let mut attempts: Vec<Attempt> = Vec::new();
    let mut failure = ClientError::Timeout(ConnectStep::Connect);
    let mut stagger = Deadline::after(Duration::ZERO);
    loop {
        let Some(left) = deadline.remaining() else { return Err(ClientError::Timeout(ConnectStep::Connect)) };
        if attempts.is_empty() || stagger.remaining().is_none() {
            match next.next().map(|address| Attempt::begin(*address)) {
                Some(Ok(attempt)) => attempts.push(attempt),
                Some(Err(e)) => failure = e,
                None if attempts.is_empty() => return Err(failure),
                None => {}
            }
            stagger = Deadline::after(STAGGER);
        }
        let wait = if next.len() == 0 { left } else { left.min(stagger.remaining().unwrap_or_default()) };
        for index in ready(&attempts, wait)?.into_iter().rev() {
            match attempts.swap_remove(index).finish() {
                Ok(connected) => return Ok(connected),
                Err(e) => {
                    failure = e;
                    stagger = Deadline::after(Duration::ZERO);
                }
            }
        }
    }
}

/// A connection that is being made.
struct Attempt {
    address: SocketAddr,
    stream: mio::net::TcpStream,
}

impl Attempt {
    fn begin(address: SocketAddr) -> Result<Self, ClientError> {
        let stream = mio::net::TcpStream::connect(address).map_err(|e| ClientError::connect(address, e))?;
        Ok(Self { address, stream })
    }

    /// What has become of it.
    fn finish(self) -> Result<(Socket, SocketAddr), ClientError> {
        let Self { address, stream } = self;
        let connect = || {
            if let Some(e) = stream.take_error()? {
                return Err(e);
            }
            // Where nobody listens, a port of this machine may come to be connected with itself.
            if stream.peer_addr()? == stream.local_addr()? {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            let stream = std::net::TcpStream::from(stream);
            stream.set_nonblocking(false)?;
            Ok(Socket::from(stream))
        };
        let connected = connect().map_err(|e| ClientError::connect(address, e))?;
        Ok((connected, address))
    }
}

/// Waits until some have come to an end, good or bad; or for so long.
fn ready(attempts: &[Attempt], wait: Duration) -> Result<Vec<usize>, ClientError> {
    let mut fds: Vec<_> =
        attempts.iter().map(|attempt| PollFd::new(&attempt.stream, PollFlags::OUT)).collect();
    match poll(&mut fds, Some(&timespec(wait))) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(e) => return Err(ClientError::Io(e.into())),
    }
    Ok(fds.iter().enumerate().filter(|(_, fd)| !fd.revents().is_empty()).map(|(index, _)| index).collect())
}

/// Connects to a Unix socket.
pub(super) fn connect_unix(path: &Path, deadline: Deadline) -> Result<Socket, ClientError> {
    loop {
        match mio::net::UnixStream::connect(path) {
            Ok(stream) => {
                let stream = std::os::unix::net::UnixStream::from(stream);
                stream.set_nonblocking(false).map_err(ClientError::Io)?;
                return Ok(stream.into());
            }
            // The server's queue of those that it has not accepted is full.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => match deadline.remaining() {
                Some(left) => thread::sleep(left.min(PAUSE)),
                None => return Err(ClientError::Timeout(ConnectStep::Connect)),
            },
            Err(e) => return Err(ClientError::connect(path.display(), e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::TcpListener,
        os::unix::net::{UnixListener, UnixStream},
    };

    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};

    use super::*;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(10))
    }

    #[test]
    fn families_take_turns() {
        let of = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let found = of(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"]);
        let expected = of(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"]);
        assert_eq!(alternating(found), expected);
    }

    #[test]
    fn one_address_that_answers_is_enough() {
        // Nobody else gets its address, and it does not listen.
        let reserved = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&reserved, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let nobody: SocketAddr = getsockname(&reserved).unwrap().try_into().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        // The second one is for documents, and leads nowhere: mostly it is never answered.
        let nowhere = "192.0.2.1:9".parse().unwrap();
        let (_, connected) = connect_tcp(&[nobody, nowhere, address], soon()).unwrap();
        assert_eq!(connected, address);
        match connect_tcp(&[nobody], soon()) {
            Err(ClientError::Connect(e)) => assert_eq!(e.address, nobody.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_are_looked_up_and_those_that_nobody_has_are_not_found() {
        assert!(resolve("localhost", 1, soon()).unwrap().iter().all(|address| address.ip().is_loopback()));
        assert_eq!(resolve("::1", 7, soon()).unwrap(), ["[::1]:7".parse().unwrap()]);
        match resolve("nobody.invalid", 1, soon()) {
            Err(ClientError::Resolve(e)) => assert_eq!(e.address, "nobody.invalid"),
            Err(ClientError::Timeout(ConnectStep::Resolve)) => {} // there is nobody to ask
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_full_unix_socket_is_not_waited_for_longer_than_allowed() {
        let path = std::env::temp_dir().join(format!("switchboard-dial-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let mut waiting = Vec::new();
        loop {
            let stream = mio::net::UnixStream::connect(&path);
            match stream {
                Ok(stream) => waiting.push(UnixStream::from(stream)),
                Err(_) => break,
            }
        }
        let late = connect_unix(&path, Deadline::after(Duration::from_millis(50)));
        assert!(matches!(late, Err(ClientError::Timeout(ConnectStep::Connect))), "{late:?}");
        std::thread::scope(|scope| {
            let connecting = scope.spawn(|| connect_unix(&path, soon()));
            drop(listener.accept().unwrap());
            connecting.join().unwrap().unwrap();
        });
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(connect_unix(&path, soon()), Err(ClientError::Connect(_))));
    }
}

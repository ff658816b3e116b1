//! The syslog of this machine: a datagram for each line (RFC 3164, as its daemons take it on their own socket: without a host, and
//! without a date, which they add).

use std::{
    io::{self, ErrorKind},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    time::Duration,
};

/// Where it listens.
#[cfg(not(target_vendor = "apple"))]
pub(super) const SOCKET: &str = "/dev/log";
#[cfg(target_vendor = "apple")]
pub(super) const SOCKET: &str = "/var/run/syslog";

/// How long a daemon may be busy.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Syslog {
    path: PathBuf,
    socket: Option<UnixDatagram>,
}

impl Syslog {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, socket: None }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether somebody listens there now.
    pub(super) fn connect(&mut self) -> io::Result<()> {
        self.connected().map(drop)
    }

    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        match self.send(line) {
            // A daemon that was started anew has another socket.
            Err(e) if e.kind() != ErrorKind::TimedOut && self.socket.take().is_some() => self.send(line),
            result => result,
        }
    }

    fn send(&mut self, line: &[u8]) -> io::Result<()> {
        let socket = self.connected()?;
        loop {
            match socket.send(line) {
                Ok(_) => return Ok(()),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Err(ErrorKind::TimedOut.into()),
                Err(e) => return Err(e),
            }
        }
    }

    fn connected(&mut self) -> io::Result<&UnixDatagram> {
        if self.socket.is_none() {
            let socket = UnixDatagram::unbound()?;
            socket.set_write_timeout(Some(PATIENCE))?;
            socket.connect(&self.path)?;
            self.socket = Some(socket);
        }
        self.socket.as_ref().ok_or_else(|| ErrorKind::NotConnected.into())
    }
}

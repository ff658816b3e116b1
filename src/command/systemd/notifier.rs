//! Messages to the service manager, as sd_notify(3) has them: lines in a datagram to the Unix socket of `NOTIFY_SOCKET`.

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    os::unix::{
        ffi::OsStrExt,
        net::{SocketAddr, UnixDatagram},
    },
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use log::warn;

/// A manager that does not read holds nothing up for longer.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Characters of a line. A message of more than 4,096 bytes is ignored by systemd.
const LONGEST: usize = 900;

#[derive(Debug)]
pub(super) struct Notifier {
    socket: UnixDatagram,
    address: SocketAddr,
    has_failed: AtomicBool,
}

impl Notifier {
    /// `None`: nobody wants to be told.
    pub(super) fn from_env() -> Option<Self> {
        let address = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty())?;
        let made = Self::new(&address);
        made.inspect_err(|e| warn!("the service manager is told nothing: NOTIFY_SOCKET is {address:?}: {e}"))
            .ok()
    }

    pub(super) fn new(address: &OsStr) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { socket, address: parsed(address)?, has_failed: AtomicBool::new(false) })
    }

    /// Sends these lines. What cannot be sent is told once.
    pub(super) fn send(&self, lines: &[&str]) {
        let text: Vec<_> = lines.iter().map(|line| one_line(line)).collect();
        if let Err(e) = self.socket.send_to_addr(text.join("\n").as_bytes(), &self.address)
            && !self.has_failed.swap(true, Relaxed)
        {
            warn!("the service manager cannot be told how the service is: {e}");
        }
    }
}

/// `/path`, or `@name` of a socket that is no file.
fn parsed(address: &OsStr) -> io::Result<SocketAddr> {
    match address.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(address),
        #[cfg(any(target_os = "linux", target_os = "android"))]
        [b'@', name @ ..] => {
            #[cfg(target_os = "android")]
            use std::os::android::net::SocketAddrExt;
            #[cfg(target_os = "linux")]
            use std::os::linux::net::SocketAddrExt;
            SocketAddr::from_abstract_name(name)
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it must be /PATH or @NAME")),
    }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect()
}

/// How the manager guards the service, from its environment: how often it wants to hear of it. `None`: it does not.
pub(super) fn watchdog() -> Option<Duration> {
    watchdog_of(env::var_os("WATCHDOG_USEC"), env::var_os("WATCHDOG_PID"))
}

fn watchdog_of(usec: Option<OsString>, pid: Option<OsString>) -> Option<Duration> {
    let number = |text: OsString| text.to_str()?.parse::<u64>().ok();
    let is_ours = pid.is_none_or(|pid| number(pid) == Some(std::process::id().into()));
    usec.and_then(number).filter(|usec| is_ours && *usec > 0).map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_lines_without_more_of_them() {
        assert_eq!(one_line("unix:/a\nREADY=1\r"), "unix:/a READY=1 ");
        assert!(one_line(&"🎉".repeat(5000)).len() < 4096);
    }

    #[test]
    fn the_watchdog_is_for_one_process() {
        let of = |usec: &str, pid: Option<&str>| watchdog_of(Some(usec.into()), pid.map(Into::into));
        let own = std::process::id().to_string();
        assert_eq!(of("2000000", None), Some(Duration::from_secs(2)));
        assert_eq!(of("2000000", Some(&own)), Some(Duration::from_secs(2)));
        for (usec, pid) in [("2000000", Some("1")), ("2000000", Some("x")), ("0", None), ("x", None)] {
            assert_eq!(of(usec, pid), None, "{usec} {pid:?}");
        }
        assert_eq!(watchdog_of(None, None), None);
    }

    #[test]
    fn an_address_is_a_path_or_a_name() {
        assert!(parsed(OsStr::new("/run/systemd/notify")).is_ok());
        assert!(parsed(OsStr::new("run/notify")).is_err() && parsed(OsStr::new("vsock:2:1")).is_err());
        #[cfg(target_os = "linux")]
        assert!(parsed(OsStr::new("@/org/freedesktop/systemd1/notify")).unwrap().as_pathname().is_none());
    }
}

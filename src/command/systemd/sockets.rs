//! Sockets that the service manager has bound, each with the name that its unit gives it: what is to be served there.

use std::{env, net::TcpListener, os::unix::net::UnixListener, process};

use listenfd::ListenFd;
use switchboard::ServerBuilder;
#[cfg(feature = "__tls")]
use switchboard::TlsIdentity;

/// The first descriptor that is passed.
const FIRST: usize = 3;

/// So many are passed at most; no unit has as many.
const MOST: usize = 1024;

const WS: &str = "ws";
const WSS: &str = "wss";
const MANAGE: &str = "manage";

/// What this program can serve, by its name.
const KNOWN: &[&str] = &[
    WS,
    #[cfg(feature = "__tls")]
    WSS,
    #[cfg(feature = "manage")]
    MANAGE,
];

/// A socket that was passed.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    ws: Vec<Socket>,
    wss: Vec<Socket>,
    pub(crate) manage: Vec<Socket>,
}

/// Their names, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Names(Vec<String>);

impl Names {
    /// As the environment has them. None if it was meant for another process.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn from_env() -> Result<Self, String> {
        let [fds, pid, names] =
            ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"].map(|name| env::var(name).ok());
        match fds {
            Some(fds) if pid.as_deref() == Some(&process::id().to_string()) => {
                Self::of(&fds, names.as_deref())
            }
            _ => Ok(Self::default()),
        }
    }

    fn of(fds: &str, names: Option<&str>) -> Result<Self, String> {
        let count = fds.parse::<usize>().ok().filter(|count| *count <= MOST);
        let count = count.ok_or_else(|| format!("LISTEN_FDS is {fds:?}, which is no number of sockets"))?;
        let names: Vec<String> = match names {
            None => vec![WS.into(); count],
            Some("") if count == 0 => Vec::new(),
            Some(names) => names.split(':').map(Into::into).collect(),
        };
        if names.len() != count {
            return Err(format!("LISTEN_FDNAMES has {} names for {count} sockets (LISTEN_FDS)", names.len()));
        }
        match names.iter().find(|name| !KNOWN.contains(&name.as_str())) {
            None => Ok(Self(names)),
            Some(name) => Err(format!(
                "a socket that was passed is named {name:?}: FileDescriptorName= of its unit must be {}",
                or(KNOWN)
            )),
        }
    }

    /// Whether there is a socket for TLS.
    pub(crate) fn has_tls(&self) -> bool {
        self.0.iter().any(|name| name == WSS)
    }

    /// Whether there is one to manage the server by.
    pub(crate) fn has_manage(&self) -> bool {
        self.0.iter().any(|name| name == MANAGE)
    }
}

impl Sockets {
    /// Takes those of the environment, as long as there is no other thread.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn take() -> Result<Self, String> {
        let Names(names) = Names::from_env()?;
        let mut all = Self::default();
        if names.is_empty() {
            return Ok(all);
        }
        let mut passed = ListenFd::from_env();
        for (index, name) in names.into_iter().enumerate() {
            let socket = take(&mut passed, index).ok_or_else(|| {
                format!(
                    "descriptor {}, named {name:?}, is no TCP or Unix socket that listens: its unit needs ListenStream= and Accept=no",
                    FIRST + index
                )
            })?;
            match name.as_str() {
                WSS => all.wss.push(socket),
                MANAGE => all.manage.push(socket),
                _ => all.ws.push(socket),
            }
        }
        Ok(all)
    }

    /// Whether there are any for clients.
    pub(crate) fn have_clients(&self) -> bool {
        !self.ws.is_empty() || !self.wss.is_empty()
    }

    /// Has the server accept from them.
    pub(crate) fn listen(&mut self, builder: ServerBuilder) -> ServerBuilder {
        self.ws.drain(..).fold(builder, |builder, socket| match socket {
            Socket::Tcp(listener) => builder.listener(listener),
            Socket::Unix(listener) => builder.listener_unix(listener),
        })
    }

    /// Whether there is what TLS takes, if there is a socket for it.
    ///
    /// # Errors
    /// There is no certificate.
    #[cfg(feature = "__tls")]
    pub(crate) fn check_tls(&self, identity: Option<&TlsIdentity>) -> Result<(), String> {
        match identity {
            None if !self.wss.is_empty() => {
                Err(format!("a socket that was passed is named {WSS:?}, which takes --cert and --key"))
            }
            _ => Ok(()),
        }
    }

    /// The same with TLS; without a certificate there are none.
    #[cfg(feature = "__tls")]
    pub(crate) fn listen_tls(
        &mut self,
        builder: ServerBuilder,
        identity: Option<&TlsIdentity>,
    ) -> ServerBuilder {
        let Some(identity) = identity else { return builder };
        self.wss.drain(..).fold(builder, |builder, socket| match socket {
            Socket::Tcp(listener) => builder.listener_tls(listener, identity.clone()),
            Socket::Unix(listener) => builder.listener_unix_tls(listener, identity.clone()),
        })
    }
}

/// `None`: it is of another kind.
fn take(passed: &mut ListenFd, index: usize) -> Option<Socket> {
    let tcp = passed.take_tcp_listener(index).ok().flatten();
    let mut unix = || passed.take_unix_listener(index).ok().flatten();
    let socket = tcp.map(Socket::Tcp).or_else(|| unix().map(Socket::Unix))?;
    let listens = match &socket {
        Socket::Tcp(listener) => listens(listener),
        Socket::Unix(listener) => listens(listener),
    };
    listens.then_some(socket)
}

/// Whether it does.
#[cfg(not(target_vendor = "apple"))]
fn listens(socket: impl std::os::fd::AsFd) -> bool {
    rustix::net::sockopt::socket_acceptconn(socket).unwrap_or(false)
}

/// The system does not tell.
#[cfg(target_vendor = "apple")]
fn listens(_: impl std::os::fd::AsFd) -> bool {
    true
}

fn or(names: &[&str]) -> String {
    match names {
        [all @ .., last] if !all.is_empty() => format!("{} or {last}", all.join(", ")),
        _ => names.concat(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(all(feature = "__tls", feature = "manage"))]
    #[test]
    fn names_tell_what_is_served() {
        let names = Names::of("3", Some("ws:manage:wss")).unwrap();
        assert_eq!(names.0, [WS, MANAGE, WSS]);
        assert!(names.has_tls() && names.has_manage());
        let names = Names::of("2", None).unwrap();
        assert_eq!(names.0, [WS, WS], "a manager without names has sockets for clients");
        assert!(!names.has_tls() && !names.has_manage());
        assert_eq!(Names::of("0", Some("")), Ok(Names::default()));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (fds, names, told) in [
            ("x", None, "\"x\""),
            ("-1", None, "\"-1\""),
            ("9999999999", None, "no number"),
            ("2", Some("ws"), "1 names for 2"),
            ("0", Some("ws"), "1 names for 0"),
            ("1", Some(""), "named \"\""),
            ("2", Some("ws:switchboard.socket"), "\"switchboard.socket\": FileDescriptorName="),
            ("1", Some("https"), "ws"),
        ] {
            let error = Names::of(fds, names).unwrap_err();
            assert!(error.contains(told), "{fds:?} {names:?}: {error}");
        }
        assert_eq!((or(&["a"]), or(&["a", "b", "c"])), ("a".into(), "a, b or c".into()));
    }
}

//! The servers that are compared, each in a file of its own, as its users would write it.
//!
//! They echo each message, or send it to all (`fan`), on 127.0.0.1. All set TCP_NODELAY and use native-tls, so that only
//! the libraries differ; ours also uses rustls. What is tuned beyond a library's defaults is said where it is done.

mod fastwebsockets;
mod limit;
mod switchboard;
mod tokio_broadcast;
mod tokio_tungstenite;
mod tungstenite_threads;

use ::switchboard::TlsBackend::{NativeTls, Rustls};
use anyhow::{Context, Result, bail};
use clap::{Args, builder::PossibleValuesParser};

/// The certificate and its key, for tests only.
const CERTIFICATE: &[u8] = include_bytes!("../../../../certs/server.pem");
const KEY: &[u8] = include_bytes!("../../../../certs/server.key");

const LOCK: &str = include_str!("../../Cargo.lock");

/// A server that is part of this program.
pub(crate) struct Builtin {
    pub(crate) name: &'static str,
    /// What it is, in a few words.
    pub(crate) what: &'static str,
    /// The crates that it is made of, whose versions are reported.
    crates: &'static [&'static str],
    pub(crate) echoes: bool,
    /// Echoes over TLS.
    pub(crate) tls: bool,
    pub(crate) fans: bool,
    serve: fn(port: u16, tls: bool) -> Result<()>,
}

pub(crate) const BUILTIN: &[Builtin] = &[
    Builtin {
        name: "switchboard",
        what: "a thread for each connection",
        crates: &["switchboard"],
        echoes: true,
        tls: true,
        fans: false,
        serve: |port, tls| switchboard::serve(port, tls.then_some(NativeTls), switchboard::Kind::Synchronous),
    },
    Builtin {
        name: "switchboard-shared",
        what: "shared connections, handled by two workers",
        crates: &["switchboard"],
        echoes: true,
        tls: true,
        fans: true,
        serve: |port, tls| switchboard::serve(port, tls.then_some(NativeTls), switchboard::Kind::Workers),
    },
    Builtin {
        name: "switchboard-inline",
        what: "shared connections, handled by the gateway itself (`limits.workers = 0`)",
        crates: &["switchboard"],
        echoes: true,
        tls: true,
        fans: true,
        serve: |port, tls| switchboard::serve(port, tls.then_some(NativeTls), switchboard::Kind::Inline),
    },
    Builtin {
        name: "switchboard-rustls",
        what: "a thread for each connection, TLS by rustls",
        crates: &["switchboard", "rustls"],
        echoes: false,
        tls: true,
        fans: false,
        serve: |port, _| switchboard::serve(port, Some(Rustls), switchboard::Kind::Synchronous),
    },
    Builtin {
        name: "switchboard-shared-rustls",
        what: "shared connections, handled by two workers, TLS by rustls",
        crates: &["switchboard", "rustls"],
        echoes: false,
        tls: true,
        fans: false,
        serve: |port, _| switchboard::serve(port, Some(Rustls), switchboard::Kind::Workers),
    },
    Builtin {
        name: "tokio-tungstenite",
        what: "a task for each connection",
        crates: &["tokio-tungstenite", "tokio"],
        echoes: true,
        tls: true,
        fans: false,
        serve: tokio_tungstenite::serve,
    },
    Builtin {
        name: "fastwebsockets",
        what: "a task for each connection, opened by hyper",
        crates: &["fastwebsockets", "hyper", "tokio"],
        echoes: true,
        tls: true,
        fans: false,
        serve: fastwebsockets::serve,
    },
    Builtin {
        name: "tungstenite-threads",
        what: "a thread for each connection, blocking",
        crates: &["tungstenite"],
        echoes: true,
        tls: true,
        fans: false,
        serve: tungstenite_threads::serve,
    },
    Builtin {
        name: "tokio-broadcast",
        what: "tokio-tungstenite, a task for each connection and a broadcast channel",
        crates: &["tokio-tungstenite", "tokio"],
        echoes: false,
        tls: false,
        fans: true,
        serve: |port, _| tokio_broadcast::serve(port),
    },
    Builtin {
        name: "limit",
        what: "a thread for each connection, no library and no checks: what the system allows",
        crates: &[],
        echoes: true,
        tls: false,
        fans: false,
        serve: |port, _| limit::serve(port),
    },
];

#[derive(Args)]
pub(crate) struct Options {
    /// Which server
    #[arg(value_parser = PossibleValuesParser::new(BUILTIN.iter().map(|peer| peer.name)))]
    peer: String,
    /// Port on 127.0.0.1
    port: u16,
    /// Serve wss:// with the certificates for tests
    #[arg(long)]
    tls: bool,
}

/// Serves until killed.
pub(crate) fn serve(options: &Options) -> Result<()> {
    let peer = BUILTIN.iter().find(|peer| peer.name == options.peer).context("no such peer")?;
    if options.tls && !peer.tls {
        bail!("{} has no TLS", peer.name);
    }
    (peer.serve)(options.port, options.tls)
        .with_context(|| format!("{} on 127.0.0.1:{}", peer.name, options.port))
}

impl Builtin {
    /// The crates and their versions, as Cargo.lock has them.
    pub(crate) fn versions(&self) -> Vec<String> {
        self.crates.iter().map(|name| format!("{name} {}", version(name).unwrap_or("?"))).collect()
    }
}

fn version(name: &str) -> Option<&'static str> {
    let package =
        LOCK.split("[[package]]").find(|package| package.contains(&format!("\nname = \"{name}\"\n")))?;
    package.lines().find_map(|line| line.strip_prefix("version = "))?.split('"').nth(1)
}

/// The acceptor of the peers that take TLS from native-tls themselves.
fn acceptor(tls: bool) -> Result<Option<native_tls::TlsAcceptor>> {
    if !tls {
        return Ok(None);
    }
    let identity = native_tls::Identity::from_pkcs8(CERTIFICATE, KEY)?;
    Ok(Some(native_tls::TlsAcceptor::new(identity)?))
}

/// The runtime of the asynchronous peers, as `#[tokio::main]` makes it: a worker for each core that the process may use.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_known() {
        for peer in BUILTIN {
            assert!(peer.versions().iter().all(|version| !version.ends_with('?')), "{}", peer.name);
        }
    }
}

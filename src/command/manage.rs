//! The options of the listener by which other processes manage the server, and people look at it.

use std::path::PathBuf;

use clap::{ArgGroup, Args};
use log::info;
#[cfg(feature = "__tls")]
use switchboard::TlsIdentity;
use switchboard::{ListenAddr, Manage, Server, ServerBuilder};

use super::systemd::Socket;

/// Connections of programs that manage a server, at the same time: the default of the library.
const CONNECTIONS: u64 = 128;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("managed").multiple(true), group = ArgGroup::new("manage_token").multiple(true))]
pub(super) struct Management {
    /// Let other processes manage the server here, and serve the console: unix:PATH, which its mode guards (0600, or
    /// unix:PATH,mode=0660), or HOST:PORT of this machine, with a --manage-token-file; repeatable
    #[arg(long, value_name = "ADDR", group = "managed")]
    pub(super) manage: Vec<String>,
    /// The same for looking only, whoever connects, such as for a monitor: unix:PATH,mode=0666; repeatable
    #[arg(long, value_name = "ADDR", group = "managed")]
    pub(super) manage_read_only: Vec<String>,
    /// As --manage, with TLS, by the certificate of the server, such as --cert and --key: the only way beyond this machine; repeatable
    #[cfg(feature = "__tls")]
    #[arg(
        long,
        value_name = "ADDR",
        groups = ["managed", "tls_address"],
        requires = "certificate",
        requires = "manage_token"
    )]
    pub(super) manage_tls: Vec<String>,
    /// The file with the token that managing takes on TCP, a secret of 16 characters or more: openssl rand -hex 32 > FILE
    #[arg(long, value_name = "FILE", requires = "managed", group = "manage_token")]
    manage_token_file: Option<PathBuf>,
    /// The file with a second token, with which one may only look
    #[arg(long, value_name = "FILE", requires = "managed", group = "manage_token")]
    manage_read_token_file: Option<PathBuf>,
}

impl Management {
    /// Has the server be managed where it is to be.
    #[cfg(feature = "__tls")]
    pub(super) fn listen(
        &self,
        builder: ServerBuilder,
        passed: Vec<Socket>,
        identity: Option<&TlsIdentity>,
    ) -> ServerBuilder {
        let is_wanted = self.is_wanted() || !passed.is_empty();
        let mut manage = self.in_the_clear(passed);
        if let Some(identity) = identity {
            for address in &self.manage_tls {
                manage = manage.listen_tls(address, identity.clone());
            }
        }
        if is_wanted { builder.manage(manage) } else { builder }
    }

    /// The same in a program without TLS.
    #[cfg(not(feature = "__tls"))]
    pub(super) fn listen(&self, builder: ServerBuilder, passed: Vec<Socket>) -> ServerBuilder {
        let is_wanted = self.is_wanted() || !passed.is_empty();
        if is_wanted { builder.manage(self.in_the_clear(passed)) } else { builder }
    }

    fn in_the_clear(&self, passed: Vec<Socket>) -> Manage {
        let manage = self.manage.iter().fold(Manage::new(), Manage::listen);
        let manage = self.manage_read_only.iter().fold(manage, Manage::listen_read_only);
        let mut manage = passed.into_iter().fold(manage, |manage, socket| match socket {
            Socket::Tcp(listener) => manage.listener(listener),
            Socket::Unix(listener) => manage.listener_unix(listener),
        });
        if let Some(file) = &self.manage_token_file {
            manage = manage.token_file(file);
        }
        if let Some(file) = &self.manage_read_token_file {
            manage = manage.read_token_file(file);
        }
        manage
    }

    fn is_wanted(&self) -> bool {
        #[cfg(feature = "__tls")]
        let has_tls = !self.manage_tls.is_empty();
        #[cfg(not(feature = "__tls"))]
        let has_tls = false;
        has_tls || !self.manage.is_empty() || !self.manage_read_only.is_empty()
    }
}

/// The connections that there may be beside those of clients, with so many listeners.
pub(super) fn connections(listeners: usize) -> u64 {
    if listeners == 0 { 0 } else { CONNECTIONS }
}

/// Says where the console is.
pub(super) fn announce(server: &Server) {
    for address in server.manage_addrs() {
        let tls = if server.is_tls(address) { "s" } else { "" };
        match address {
            ListenAddr::Tcp(address) => info!("http{tls}://{address}/ is the console"),
            ListenAddr::Unix(path) => {
                let path = path.display();
                info!(
                    "unix:{path} has the console: ssh -L 9090:{path} HOST brings it to http://localhost:9090/"
                );
            }
            other => info!("the console is on {other}"),
        }
    }
}

//! What systemd and the command tell each other: sockets that it has bound (`LISTEN_FDS`), and how the service is (`NOTIFY_SOCKET`,
//! `WATCHDOG_USEC`). Other service managers have learnt the same. Without these variables nothing of it happens.

mod notifier;
mod service;
mod sockets;

#[cfg(feature = "manage")]
pub(super) use self::sockets::Socket;
pub(super) use self::{
    service::Service,
    sockets::{Names, Sockets},
};

//! Listeners that only send clients to https.

use super::{
    builder::ServerBuilder,
    listener::{Listener, Security},
};
use crate::error::{Result, ServerError};

impl ServerBuilder {
    /// Listens on one more address, written as in [`listen`](Self::listen), and sends all who come there in the clear to https: each
    /// request is answered with 308 and the same URL, but for the scheme and the port. `port` is that of https as clients see it;
    /// `None`: that of the first listener with TLS. An opening handshake is answered in the same way, with a URL of `wss`: browsers do
    /// not follow it, and let their script know no more than that there is no connection.
    ///
    /// The host is the one that the client has asked for, checked as elsewhere ([`hosts`](Self::hosts)). These responses have none of
    /// the lines of [`header`](Self::header); so `Strict-Transport-Security` is only said where there is TLS. The connections count
    /// for [`Limits::max_connections`](crate::Limits::max_connections), and end with their response. Where it listens is in
    /// [`redirect_addrs`](crate::Server::redirect_addrs).
    ///
    /// ```no_run
    /// # #[cfg(any(feature = "tls", feature = "rustls"))]
    /// # fn main() -> Result<(), switchboard::ServerError> {
    /// use switchboard::{Server, TlsIdentity};
    ///
    /// let identity = TlsIdentity::from_pem_files("certs/server.pem", "certs/server.key")?;
    /// let server =
    ///     Server::builder().listen_tls("0.0.0.0:443", identity).redirect_to_https("0.0.0.0:80", None).bind()?;
    /// # Ok(()) }
    /// # #[cfg(not(any(feature = "tls", feature = "rustls")))]
    /// # fn main() {}
    /// ```
    ///
    /// `bind` returns an error if `port` is `None` and there is no TCP listener with TLS.
    pub fn redirect_to_https(mut self, address: impl Into<String>, port: Option<u16>) -> Self {
        self.redirects.push((address.into(), port));
        self
    }
}

/// Listens where clients are sent to https.
pub(super) fn bind_redirects(
    redirects: Vec<(String, Option<u16>)>,
    others: &[Listener],
) -> Result<Vec<Listener>, ServerError> {
    let of_tls = others.iter().filter(|listener| listener.security.is_tls());
    let first_port =
        of_tls.filter_map(|listener| listener.local_addr().ok()?.tcp()).map(|tcp| tcp.port()).next();
    let mut listeners = Vec::new();
    for (address, port) in redirects {
        let port = https_port(&address, port, first_port)?;
        listeners.extend(Listener::bind(&address, &Security::Redirect(port), None)?);
    }
    Ok(listeners)
}

/// Where clients are sent to from this address: `port`, or the first one of TLS.
pub(super) fn https_port(address: &str, port: Option<u16>, first: Option<u16>) -> Result<u16, ServerError> {
    port.or(first).filter(|&port| port > 0).ok_or_else(|| {
        ServerError::config(format!(
            "{address}: nobody can be sent to https from here without a TCP listener with TLS: add one (listen_tls, --tls-listen), or say which port https has (--https-port)"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_only_sent_to_https_takes_no_memory_for_tls() {
        let builder = ServerBuilder::default().redirect_to_https("127.0.0.1:0", Some(443));
        let (listeners, redirects, shared) = builder.build().unwrap();
        assert_eq!((listeners.len(), redirects), (1, 1));
        let room = format!("{:?}", shared.room);
        assert!(room.contains("tls: false"), "{room}");
    }
}

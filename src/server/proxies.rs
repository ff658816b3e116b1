//! Which proxies are believed, and in what.

use std::fmt::Display;

use super::builder::ServerBuilder;
use crate::http::ProxyHeaders;

impl ServerBuilder {
    /// Proxies that are trusted to say who the client is (`X-Forwarded-For`, see
    /// [`Request::client_address`](crate::Request::client_address)), whether it uses TLS (`X-Forwarded-Proto`, see
    /// [`Request::is_secure`](crate::Request::is_secure)), and by which names this server is reached (see
    /// [`hosts`](Self::hosts)). They must replace these lines if a client sent them, or append to `X-Forwarded-For`. Those that write
    /// `Forwarded` instead: [`proxy_headers`](Self::proxy_headers). Default: none. Each call adds to those before it.
    ///
    /// Each is an IP address, as text or as an [`IpAddr`](std::net::IpAddr); a network, such as `10.0.0.0/8` or `fd00::/8`; or `unix`:
    /// whoever connects to a Unix socket, also one that was [handed over](crate::ServerHandle::adopt) without the client's address.
    /// That socket should have a [mode](Self::listen) that lets only the proxy connect. In a network there must be nobody else: who
    /// is in it can say to be anybody, and does not count for
    /// [`max_connections_per_address`](crate::Limits::max_connections_per_address).
    ///
    /// ```
    /// # use switchboard::Server;
    /// let builder = Server::builder().listen("unix:/run/box/socket,mode=0660").trusted_proxies(["unix"]);
    /// let builder = Server::builder().listen("0.0.0.0:8080").trusted_proxies(["10.0.0.2", "::1"]);
    /// ```
    pub fn trusted_proxies(mut self, proxies: impl IntoIterator<Item = impl Display>) -> Self {
        for proxy in proxies {
            let result = self.settings.trusted_proxies.add(&proxy.to_string());
            self.keep_error(result);
        }
        self
    }

    /// In which header lines [`trusted_proxies`](Self::trusted_proxies) say who the client is. Default: [`ProxyHeaders::XForwarded`].
    ///
    /// ```
    /// # use switchboard::Server;
    /// use switchboard::ProxyHeaders;
    ///
    /// let builder = Server::builder()
    ///     .listen("0.0.0.0:8080")
    ///     .trusted_proxies(["10.0.0.0/8"])
    ///     .proxy_headers(ProxyHeaders::Forwarded);
    /// ```
    pub fn proxy_headers(mut self, headers: ProxyHeaders) -> Self {
        self.settings.trusted_proxies.headers = headers;
        self
    }

    /// Proxies whose connections all begin with the [PROXY protocol], version 1 or 2, before TLS where there is TLS: those that pass
    /// on bytes and not requests, such as HAProxy in TCP mode (`send-proxy-v2`) and nginx's `stream` (`proxy_protocol on`). What they
    /// say takes the place of the socket's own addresses: in [`Request::peer`](crate::Request::peer), in the log, for
    /// [`max_connections_per_address`](crate::Limits::max_connections_per_address) and for [`hosts`](Self::hosts). A proxy that ends
    /// TLS can say that its client has used it (`send-proxy-v2-ssl`); see [`Request::is_secure`](crate::Request::is_secure).
    ///
    /// Each is written as in [`trusted_proxies`](Self::trusted_proxies). Default: none. Each call adds to those before it. A proxy's
    /// connection that begins in another way is refused, with a line in the log, and so is one of somebody else that begins so. Where
    /// a proxy connects for itself, such as to see whether the server is there, it may say that (`LOCAL`, `UNKNOWN`), or nothing.
    /// Nothing of this holds for the management listener.
    ///
    /// Header lines, such as `X-Forwarded-For`, come from the client then: they are believed only if the address that the proxy tells
    /// is of [`trusted_proxies`](Self::trusted_proxies), too.
    ///
    /// [PROXY protocol]: https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt
    ///
    /// ```
    /// # use switchboard::Server;
    /// let builder = Server::builder().listen("unix:/run/box/socket,mode=0660").proxy_protocol(["unix"]);
    /// let builder = Server::builder().listen("0.0.0.0:8080").proxy_protocol(["10.0.0.2", "fd00::/8"]);
    /// ```
    pub fn proxy_protocol(mut self, proxies: impl IntoIterator<Item = impl Display>) -> Self {
        for proxy in proxies {
            let result = self.settings.proxy_protocol.add(&proxy.to_string());
            self.keep_error(result);
        }
        self
    }
}

//! What `bind` would fail with, all of it and not only the first, without a server coming of it.

use std::{
    io::{Error, ErrorKind},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

#[cfg(feature = "__tls")]
use super::certificates::Certificates;
use super::{
    builder::{Endpoint, ServerBuilder},
    listener::{ListenAddr, Listener, Security},
    redirecting::https_port,
    shared::Shared,
};
use crate::error::{BindError, ServerError};

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Rehearsal {
    pub(crate) tried: Vec<Tried>,
    pub(crate) errors: Vec<ServerError>,
}

/// An address that is to be listened on.
#[derive(Debug)]
pub(crate) struct Tried {
    /// As it was given, if it can be listened on; none of a listener that was given.
    given: Option<String>,
    pub(crate) address: ListenAddr,
    security: Security,
}

impl Tried {
    pub(crate) fn is_tls(&self) -> bool {
        self.security.is_tls()
    }
}

impl ServerBuilder {
    /// Tells what [`bind`](Self::bind) would fail with now: all of it, where that ends at the first. Empty: it would succeed. What
    /// `bind` warns of is in the log.
    ///
    /// Nobody is served, and nothing is changed. TCP addresses are bound and at once let go without listening: so this takes no client
    /// from a server that is there, or is started meanwhile, and leaves nothing behind on the port. Of a Unix socket no file is made;
    /// whether its folder could be written to is asked, and, where there is a file already, whether somebody listens on it. Files are
    /// read, such as those of tokens. A listener that was given to this builder is closed.
    ///
    /// ```
    /// use switchboard::Server;
    ///
    /// let builder = Server::builder().listen("127.0.0.1").listen("unix:/nowhere/socket").header("a b", "c");
    /// for problem in builder.rehearse() {
    ///     println!("{problem}"); // three
    /// }
    /// ```
    #[must_use = "it does nothing but tell"]
    pub fn rehearse(self) -> Vec<ServerError> {
        let Rehearsal { tried, mut errors } = self.rehearsed();
        errors.extend(overlaps(&tried));
        errors
    }

    pub(crate) fn rehearsed(mut self) -> Rehearsal {
        self.complete();
        let mut all = Rehearsal { errors: std::mem::take(&mut self.errors), ..Rehearsal::default() };
        all.errors.extend(self.settings.limits.check().err());
        for (endpoint, security) in std::mem::take(&mut self.endpoints) {
            all.add(endpoint, &security);
        }
        #[cfg(feature = "cluster")]
        all.errors.extend(self.rehearse_cluster().err());
        let of_tls = all.tried.iter().filter(|tried| tried.is_tls()).filter_map(|tried| tried.address.tcp());
        let first = of_tls.map(|tcp| tcp.port().max(1)).next(); // of 0 the system makes another one
        for (address, port) in std::mem::take(&mut self.redirects) {
            match https_port(&address, port, first) {
                Err(e) => all.errors.push(e),
                Ok(port) => all.add(Endpoint::Address(address), &Security::Redirect(port)),
            }
        }
        #[cfg(feature = "__tls")]
        {
            let places = all.tried.iter().map(|tried| (&tried.security, Some(tried.address.clone())));
            self.settings.certificates = Certificates::at(places);
            self.settings.certificates.tell_if_due();
        }
        match Shared::new(self.settings).map(Arc::new) {
            Err(e) => all.errors.push(e),
            Ok(shared) => {
                all.errors.extend(super::look_for_room(&shared).err());
                #[cfg(feature = "manage")]
                if let Some(beside) = self.beside {
                    let Rehearsal { tried, errors } = beside.rehearse(super::MainServer::new(&shared));
                    all.tried.extend(tried);
                    all.errors.extend(errors);
                }
            }
        }
        all
    }
}

impl Rehearsal {
    fn add(&mut self, endpoint: Endpoint, security: &Security) {
        let (given, addresses) = match endpoint {
            Endpoint::Address(address) => self.rehearse(address),
            #[cfg(feature = "manage")]
            Endpoint::Tagged(address, _) => self.rehearse(address),
            Endpoint::Unix(listener, _) => (None, ListenAddr::of_unix(&listener).into_iter().collect()),
            Endpoint::Listener(listener, _) => {
                (None, listener.local_addr().map(ListenAddr::Tcp).into_iter().collect())
            }
        };
        let tried = |address| Tried { given: given.clone(), address, security: security.clone() };
        self.tried.extend(addresses.into_iter().map(tried));
    }

    /// What cannot be listened on now, as where the server runs already, is tried as well: the rest is looked at as if it could.
    fn rehearse(&mut self, address: String) -> (Option<String>, Vec<ListenAddr>) {
        match Listener::rehearse(&address) {
            Ok(addresses) => (Some(address), addresses),
            Err(e) => {
                self.errors.push(e);
                (None, Listener::named(&address))
            }
        }
    }
}

/// Those that cannot be listened on beside one before them.
fn overlaps(tried: &[Tried]) -> impl Iterator<Item = ServerError> {
    tried.iter().enumerate().filter_map(|(at, one)| {
        let address = one.given.clone()?;
        tried[..at].iter().find(|other| overlap(&other.address, &one.address))?;
        let source = Error::new(ErrorKind::AddrInUse, "it is to be listened on twice");
        Some(ServerError::Bind(Box::new(BindError { address, source })))
    })
}

fn overlap(one: &ListenAddr, other: &ListenAddr) -> bool {
    match (one, other) {
        (ListenAddr::Tcp(one), ListenAddr::Tcp(other)) => {
            one.port() == other.port() && one.port() != 0 && (covers(one, other) || covers(other, one))
        }
        _ => one == other,
    }
}

/// Whether listening on one is listening on the other, too: `::` has the addresses of IPv4 as well, unless the system is set otherwise.
fn covers(one: &SocketAddr, other: &SocketAddr) -> bool {
    match one.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => other.is_ipv4(),
        IpAddr::V6(ip) if ip.is_unspecified() => true,
        ip => ip.to_canonical() == other.ip().to_canonical(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Server;

    fn told(builder: ServerBuilder) -> Vec<String> {
        builder.rehearse().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_mistakes_are_told_and_bind_tells_one_of_them() {
        let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let busy = busy.local_addr().unwrap().to_string();
        let builder = || {
            let builder = Server::builder().listen("127.0.0.1").listen(&busy).listen("unix:/nowhere/at/all");
            builder.listen("127.0.0.1:0").listen("127.0.0.1:0").header("a b", "c").hosts(["a/b"])
        };
        let all = told(builder());
        for part in ["a b", "a/b", "listen on 127.0.0.1:", &busy, "unix:/nowhere/at/all"] {
            assert!(all.iter().any(|text| text.contains(part)), "{part} is not in {all:?}");
        }
        assert_eq!(all.len(), 5, "{all:?}");
        assert!(all.contains(&builder().bind().unwrap_err().to_string()));
        assert!(std::net::TcpStream::connect(&busy).is_ok());
    }

    #[cfg(feature = "__tls")]
    #[test]
    fn what_is_in_use_is_looked_at_as_if_it_was_not() {
        let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let busy = busy.local_addr().unwrap().to_string();
        let identity = crate::TlsIdentity::from_pem_files("certs/server.pem", "certs/server.key").unwrap();
        let builder = Server::builder().listen_tls(&busy, identity).redirect_to_https("127.0.0.1:0", None);
        let Rehearsal { tried, errors } = builder.rehearsed();
        let [ServerError::Bind(e)] = &errors[..] else { panic!("{errors:?}") };
        assert_eq!(e.address, busy);
        assert_eq!(tried.iter().filter(|tried| tried.is_tls()).count(), 1, "{tried:?}");
    }

    #[test]
    fn nothing_is_left_behind() {
        let folder = std::env::temp_dir().join(format!("switchboard-rehearsal-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let unix = format!("unix:{}", folder.join("socket").display());
        let builder = || Server::builder().listen(&free).listen(&unix);
        assert_eq!(told(builder()), [""; 0]);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        let server = builder().bind().unwrap();
        let [tcp, of_unix] = told(builder()).try_into().unwrap();
        assert!(tcp.contains(&free) && of_unix.contains("socket"), "{tcp} {of_unix}");
        drop(server);
        assert_eq!(told(builder()), [""; 0]);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn two_that_are_one_are_told() {
        let overlap = |one: &str, other: &str| {
            let [one, other] = [one, other].map(|address| ListenAddr::Tcp(address.parse().unwrap()));
            assert_eq!(super::overlap(&one, &other), super::overlap(&other, &one));
            super::overlap(&one, &other)
        };
        assert!(overlap("127.0.0.1:80", "127.0.0.1:80") && overlap("0.0.0.0:80", "127.0.0.1:80"));
        assert!(overlap("[::]:80", "127.0.0.1:80") && overlap("[::]:80", "[::1]:80"));
        assert!(!overlap("127.0.0.1:0", "127.0.0.1:0") && !overlap("127.0.0.1:80", "127.0.0.1:81"));
        assert!(!overlap("127.0.0.1:80", "127.0.0.2:80") && !overlap("0.0.0.0:80", "[::1]:80"));
    }
}

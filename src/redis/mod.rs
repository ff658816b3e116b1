//! Which Redis or Valkey, and a connection to it: with a time limit for each step, and errors that say what to do.
//!
//! What is done with it is the business of others: sessions, the cluster.

mod connect;
mod exchange;
mod failure;
mod pool;
#[cfg(feature = "__tls")]
mod tls;
mod url;

use std::fmt;
#[cfg(feature = "__tls")]
use std::path::Path;

use self::{
    connect::Secrets,
    url::{Place, Target},
};
pub(crate) use self::{
    connect::Timeouts,
    exchange::exchange,
    failure::{Failure, FailureKind, is_forbidden_in_script},
    pool::Pool,
};
use crate::error::ServerError;
#[cfg(feature = "__tls")]
use crate::error::TlsError;

/// Which Redis or Valkey, and how it is reached; for a [`RedisStore`](crate::RedisStore). Redis 6 or later, or any Valkey.
///
/// | URL | |
/// |---|---|
/// | `redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE]` | by TCP; the port is 6379 if there is none |
/// | `rediss://…` | the same with TLS (feature `tls` or `rustls`) |
/// | `redis+unix:///PATH[?db=DATABASE&user=USER&pass=PASSWORD]`, `unix:/PATH` | by a Unix socket |
/// | `redis+sentinel://[[USER]:PASSWORD@]HOST[:PORT][,HOST[:PORT]…]/MASTER[/DATABASE]` | the master of this name, which the Sentinels on these hosts know (port 26379); another one after a failover |
/// | `rediss+sentinel://…` | the same with TLS, to the Sentinels, too |
///
/// With `valkey` instead of `redis` they mean the same. What has a meaning in a URL is encoded where it belongs to a user or a
/// password: `/` as `%2F`. Better, a password is in no URL: [`password`](Self::password).
///
/// A value of this type only says where; a connection is made when something is asked. Nothing that is shown or logged of it
/// has the password in it.
///
/// Not for **Redis Cluster**, which is refused with an error that says so: sessions and messages need one Redis, whose data may be
/// copied to replicas, among which Sentinels choose another master when it fails.
///
/// ```
/// use switchboard::Redis;
///
/// # fn main() -> Result<(), switchboard::ServerError> {
/// let redis = Redis::new("redis://127.0.0.1")?.user("switchboard").password("from a file");
/// assert_eq!(redis.to_string(), "redis://127.0.0.1:6379");
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use]
pub struct Redis {
    target: Target,
    /// Those of the Sentinels, which are seldom those of the master.
    of_sentinels: Secrets,
    #[cfg(feature = "__tls")]
    tls: tls::Certificates,
}

impl Redis {
    /// The one of this URL.
    ///
    /// # Errors
    /// [`ServerError::Config`] if this is no such URL, or if it takes TLS and this program has none.
    pub fn new(url: impl AsRef<str>) -> Result<Self, ServerError> {
        let target = Target::parse(url.as_ref())
            .map_err(|wrong| ServerError::config(format!("the URL of Redis is not right: {wrong}")))?;
        if target.is_secure && !cfg!(feature = "__tls") {
            return Err(ServerError::config(
                "Redis by TLS takes the feature `tls` or `rustls` of this library",
            ));
        }
        Ok(Self {
            target,
            of_sentinels: Secrets::default(),
            #[cfg(feature = "__tls")]
            tls: tls::Certificates::default(),
        })
    }

    /// The user of its ACL, instead of one in the URL. Default: Redis's own, `default`.
    pub fn user(mut self, name: impl Into<String>) -> Self {
        self.target.user = Some(name.into());
        self
    }

    /// The password, of the [user](Self::user) or of all (`requirepass`), instead of one in the URL.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.target.password = Some(password.into());
        self
    }

    /// A user and a password for the Sentinels, if they want some: those of the URL are for the master alone. Without a user it is
    /// `default`.
    pub fn sentinel_password(mut self, user: Option<&str>, password: impl Into<String>) -> Self {
        self.of_sentinels = Secrets { user: user.map(Into::into), password: Some(password.into()) };
        self
    }

    /// With `rediss://`: trusts only the CAs of these certificates, in PEM, instead of those that the system trusts. The server's
    /// certificate has to be one for the host of the URL; behind Sentinels, for the host or the address that they tell.
    ///
    /// # Errors
    /// If they cannot be used, or if the URL is one without TLS.
    #[cfg(feature = "__tls")]
    pub fn tls_ca(mut self, certificates: &[u8]) -> Result<Self, TlsError> {
        self.check_tls("the certificates of Redis's CA")?;
        self.tls = self.tls.with_ca(certificates, "the certificates of Redis's CA")?;
        Ok(self)
    }

    /// The same from a file.
    ///
    /// # Errors
    /// As [`tls_ca`](Self::tls_ca), and if the file cannot be read. The text names the file.
    #[cfg(feature = "__tls")]
    pub fn tls_ca_file(mut self, certificates: impl AsRef<Path>) -> Result<Self, TlsError> {
        self.check_tls(&certificates.as_ref().display().to_string())?;
        self.tls = self.tls.with_ca_file(certificates.as_ref())?;
        Ok(self)
    }

    /// With `rediss://`: shows this certificate, with its chain, to a Redis that wants one (`tls-auth-clients`, which is on if it is
    /// not turned off). All in PEM; the key in PKCS#8 (`BEGIN PRIVATE KEY`).
    ///
    /// # Errors
    /// If one of them cannot be used, or if the URL is one without TLS.
    #[cfg(feature = "__tls")]
    pub fn tls_certificate(mut self, certificates: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        self.check_tls("the certificate for Redis")?;
        self.tls = self.tls.with_client(certificates, key)?;
        Ok(self)
    }

    /// # Errors
    /// There is no TLS that this certificate could be for: whoever gives one wants some.
    #[cfg(feature = "__tls")]
    fn check_tls(&self, name: &str) -> Result<(), TlsError> {
        let scheme = match self.target.place {
            _ if self.target.is_secure => return Ok(()),
            Place::Unix(_) => return Err(TlsError::new(format!("{name}: a Unix socket has no TLS"))),
            Place::Tcp(_) => "rediss://",
            Place::Sentinels(..) => "rediss+sentinel://",
        };
        Err(TlsError::new(format!("{name}: the URL of Redis is without TLS: write {scheme}")))
    }
}

/// The URL, without users and passwords.
impl fmt::Display for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Target { place, is_secure, database, .. } = &self.target;
        let scheme = if *is_secure { "rediss" } else { "redis" };
        match place {
            Place::Tcp(address) => write!(f, "{scheme}://{}", address.shown())?,
            Place::Unix(path) => write!(f, "redis+unix://{}", path.display())?,
            Place::Sentinels(addresses, name) => {
                let addresses: Vec<_> = addresses.iter().map(url::Address::shown).collect();
                write!(f, "{scheme}+sentinel://{}/{name}", addresses.join(","))?;
            }
        }
        match (database, place) {
            (0, _) => Ok(()),
            (database, Place::Unix(_)) => write!(f, "?db={database}"),
            (database, _) => write!(f, "/{database}"),
        }
    }
}

/// As it is displayed.
impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redis({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_shown_without_secrets() {
        for (url, shown) in [
            ("redis://user:secret@box", "redis://box:6379"),
            ("redis://:secret@[::1]:1/2", "redis://[::1]:1/2"),
            ("valkey+sentinel://:secret@a,b:1/m/3", "redis+sentinel://a:26379,b:1/m/3"),
            ("unix:/run/x?pass=secret&db=1", "redis+unix:///run/x?db=1"),
        ] {
            let redis = Redis::new(url).unwrap().sentinel_password(None, "secret");
            assert_eq!(
                (redis.to_string(), format!("{redis:?}")),
                (shown.to_owned(), format!("Redis({shown})"))
            );
        }
        let error = Redis::new("redis://:secret@/").unwrap_err().to_string();
        assert!(error.contains("no host") && !error.contains("secret"), "{error}");
        assert_eq!(Redis::new("rediss://box").is_ok(), cfg!(feature = "__tls"));
    }
}

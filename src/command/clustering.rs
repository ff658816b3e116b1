//! The options by which the server is a node of a cluster.

use clap::Args;
#[cfg(feature = "cluster")]
use {
    super::{Purpose, small_file},
    log::warn,
    std::{
        error::Error,
        os::unix::fs::PermissionsExt,
        path::{Path, PathBuf},
        time::Duration,
    },
    switchboard::{Cluster, NodeId, Redis, RedisStore, ServerBuilder},
};

/// Bytes of the longest password.
#[cfg(feature = "cluster")]
const MAX_PASSWORD: u64 = 4096;

/// Bytes of the longest chain of certificates, or key.
#[cfg(all(feature = "cluster", feature = "__tls"))]
const MAX_CERTIFICATE: u64 = 1024 * 1024;

#[cfg(feature = "cluster")]
#[derive(Debug, Args)]
pub(super) struct Clustering {
    /// Be a node of a cluster over this Redis or Valkey: redis://HOST[:PORT][/DB], rediss:// with TLS, unix:PATH, or
    /// redis+sentinel://HOST[,HOST]/MASTER. It keeps the sessions, too, and needs a --session-key-file, the same for all nodes
    #[arg(long, value_name = "URL")]
    pub(super) cluster: Option<String>,
    /// The number of this node, from 0 to 4294967295, which no other may have [default: a random one at each start]
    #[arg(long, value_name = "N")]
    node: Option<u32>,
    /// What keys and channels in Redis begin with: those who have the same are one cluster. Two clusters over one Redis need
    /// two, also in databases of their own
    #[arg(long, value_name = "PREFIX", default_value = "switchboard:", requires = "cluster")]
    cluster_prefix: String,
    /// A node that was cut off is given up after this time, from 1 to 300
    #[arg(long, value_name = "SECONDS", default_value_t = 10, requires = "cluster", value_parser = clap::value_parser!(u16).range(1..=300))]
    cluster_lease: u16,
    /// The user of Redis's ACL [default: the one of the URL, or Redis's default one]
    #[arg(long, value_name = "NAME", requires = "cluster_password_file")]
    cluster_user: Option<String>,
    /// The file with the password for Redis, so that it is neither on the command line nor in a URL
    #[arg(long, value_name = "FILE", requires = "cluster")]
    cluster_password_file: Option<PathBuf>,
    /// Trust the Redis of rediss:// if its certificate is of a CA in this PEM file [default: those that the system trusts]
    #[cfg(feature = "__tls")]
    #[arg(long, value_name = "FILE", requires = "cluster")]
    cluster_ca: Option<PathBuf>,
    /// Show this certificate to the Redis of rediss:// if it wants one: its chain, in PEM
    #[cfg(feature = "__tls")]
    #[arg(long, value_name = "FILE", requires_all = ["cluster", "cluster_key"])]
    cluster_cert: Option<PathBuf>,
    /// The key of --cluster-cert, in PEM (PKCS#8); it may be in the same file
    #[cfg(feature = "__tls")]
    #[arg(long, value_name = "FILE", requires = "cluster_cert")]
    cluster_key: Option<PathBuf>,
    /// The user of the Sentinels' ACL [default: their default one]
    #[arg(long, value_name = "NAME", requires = "cluster_sentinel_password_file")]
    cluster_sentinel_user: Option<String>,
    /// The file with the password for the Sentinels of redis+sentinel://, if they want one: that for Redis is for their master alone
    #[arg(long, value_name = "FILE", requires = "cluster")]
    cluster_sentinel_password_file: Option<PathBuf>,
}

/// So that whoever wants it learns what is missing: a server alone would do something else than is wanted.
#[cfg(not(feature = "cluster"))]
#[derive(Debug, Args)]
pub(super) struct Clustering {
    /// Not in this program: be a node of a cluster over Redis. It takes one that was built with --features cluster
    #[arg(long, value_name = "URL", value_parser = missing)]
    cluster: Option<String>,
}

#[cfg(not(feature = "cluster"))]
fn missing(_: &str) -> Result<String, String> {
    Err("this program was built without clusters: build it with them, as by cargo install --path . --features cluster".into())
}

#[cfg(feature = "cluster")]
impl Clustering {
    pub(super) fn is_wanted(&self) -> bool {
        self.cluster.is_some()
    }

    /// The number that was chosen for it.
    pub(super) fn node(&self) -> Option<NodeId> {
        self.node.map(NodeId::new)
    }

    /// Makes the server a node of the cluster over this Redis, where it has its sessions, too; if there is to be one.
    pub(super) fn join(
        &self,
        mut builder: ServerBuilder,
        redis: Option<Redis>,
        purpose: Purpose,
    ) -> ServerBuilder {
        // A server that runs has its number already.
        let is_running = matches!(purpose, Purpose::Check { is_running: true });
        if let Some(node) = self.node().filter(|_| !is_running) {
            builder = builder.node(node);
        }
        let Some(redis) = redis else { return builder };
        let sessions = RedisStore::new(redis.clone()).prefix(&self.cluster_prefix);
        builder.session_store(sessions).cluster(self.over(redis))
    }

    pub(super) fn over(&self, redis: Redis) -> Cluster {
        let lease = Duration::from_secs(self.cluster_lease.into());
        Cluster::from(redis).prefix(&self.cluster_prefix).lease(lease)
    }

    /// Which Redis, if it is to be in a cluster.
    ///
    /// # Errors
    /// What is wrong with the URL, or with a file.
    pub(super) fn redis(&self) -> Result<Option<Redis>, Box<dyn Error>> {
        let Some(url) = &self.cluster else { return Ok(None) };
        let mut redis = Redis::new(url)?;
        if has_password(url)
            && std::env::args_os().any(|arg| arg.to_str().is_some_and(|arg| arg.ends_with(url)))
        {
            warn!(
                "every user of this machine can see the password for Redis on the command line: give --cluster-password-file"
            );
        }
        if let Some(user) = &self.cluster_user {
            redis = redis.user(user);
        }
        if let Some(file) = &self.cluster_password_file {
            redis = redis.password(password(file, "Redis")?);
        }
        if let Some(file) = &self.cluster_sentinel_password_file {
            if !redis.to_string().contains("+sentinel://") {
                return Err("--cluster-sentinel-password-file: the URL of --cluster names no Sentinels: write redis+sentinel://".into());
            }
            let user = self.cluster_sentinel_user.as_deref();
            redis = redis.sentinel_password(user, password(file, "the Sentinels")?);
        }
        #[cfg(feature = "__tls")]
        if let Some(file) = &self.cluster_ca {
            redis = redis.tls_ca_file(file).map_err(switchboard::ServerError::from)?;
        }
        #[cfg(feature = "__tls")]
        if let (Some(certificate), Some(key)) = (&self.cluster_cert, &self.cluster_key) {
            let read =
                |file| read(file, MAX_CERTIFICATE).map_err(|e| format!("{}: {e}", Path::display(file)));
            redis = redis
                .tls_certificate(&read(certificate)?, &read(key)?)
                .map_err(switchboard::ServerError::from)?;
        }
        Ok(Some(redis))
    }
}

/// Whether a URL has one, as in `redis://:PASSWORD@HOST` or `?pass=PASSWORD`.
#[cfg(feature = "cluster")]
fn has_password(url: &str) -> bool {
    let (rest, query) = url.split_once('?').unwrap_or((url, ""));
    let authority = rest.split_once("://").map_or("", |(_, rest)| rest).split('/').next().unwrap_or_default();
    authority.split_once('@').is_some_and(|(user, _)| user.contains(':'))
        || query.split('&').any(|pair| pair.starts_with("pass="))
}

/// The first line of a file, with the password for this.
#[cfg(feature = "cluster")]
fn password(path: &Path, of: &str) -> Result<String, String> {
    let failed = |e: std::io::Error| format!("the password for {of}: {}: {e}", path.display());
    let file = small_file::open(path).map_err(failed)?;
    if file.metadata().is_ok_and(|about| about.permissions().mode() & 0o004 != 0) {
        warn!("every user of this machine can read {}, with the password for {of}", path.display());
    }
    let text = small_file::read_text(&file, MAX_PASSWORD, small_file::PATIENCE).map_err(failed)?;
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() {
        Err(failed(std::io::Error::other("there is none in it")))
    } else {
        Ok(line.to_owned())
    }
}

#[cfg(all(feature = "cluster", feature = "__tls"))]
fn read(path: &Path, most: u64) -> std::io::Result<Vec<u8>> {
    small_file::read(&small_file::open(path)?, most, small_file::PATIENCE)
}

//! Many machines: servers that reach each other's connections over Redis or Valkey. Delivery is its Pub/Sub, and a node's lease is a
//! key with a time to live. Above the hub and the registry, which know only that there may be something [elsewhere](crate::elsewhere).

mod bus;
mod envelope;
mod everyone;
mod history;
mod keeper;
mod lines;
mod loader;
mod looking;
mod member;
mod names;
mod nodes;
mod numbers;
mod pace;
mod publications;
mod queries;
mod receiver;
mod replica;
mod replicas;
mod rights;
mod shares;
mod talks;
mod tally;

use std::{fmt, sync::Arc, thread::JoinHandle, time::Duration};

use crossbeam_channel::{Sender, bounded};

pub(crate) use self::looking::rehearse;
use self::{
    keeper::Keeper,
    member::{Choices, Member, Others},
    receiver::Receiver,
};
use crate::{
    answering::Desk,
    deadline::Deadline,
    error::{Result, ServerError},
    hub::Hub,
    id::random_bytes,
    limits::Limits,
    redis::{FailureKind, Redis},
    registry::Registry,
    session::SessionKeys,
    thread::spawn,
};

/// The prefix of keys and channels.
const PREFIX: &str = "switchboard:";
const MAX_PREFIX: usize = 64;

const LEASE: Duration = Duration::from_secs(10);
const LEASES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
const ANSWER_TIMEOUTS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(60));

/// Begins a line of the log.
const NOT_REACHED: &str = "the cluster cannot reach Redis";

/// How long a server that ends waits for the threads of its cluster.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// Servers that reach each other's connections over Redis or Valkey; given to [`ServerBuilder::cluster`](crate::ServerBuilder::cluster).
///
/// ```no_run
/// use switchboard::{Cluster, NodeId, Server};
///
/// # fn main() -> Result<(), switchboard::ServerError> {
/// let server = Server::builder()
///     .listen("0.0.0.0:8080")
///     .node(NodeId::new(1))
///     .session_keys(["the same 32 secret bytes on all nodes"])
///     .cluster(Cluster::new("redis://redis.lan"))
///     .bind()?;
/// # Ok(()) }
/// ```
///
/// **The user in Redis's ACL** needs, where the prefix is `switchboard:`, these rights:
///
/// ```text
/// ~switchboard:* &switchboard:* +eval +evalsha +time +get +mget +set +setnx +pexpire +del +smembers +sadd +srem
/// +hmget +hset +hget +hdel +xlen +xrange +xadd +xdel +publish +subscribe +unsubscribe +info +client|list +client|kill
/// +pubsub|numsub +multi
/// ```
///
/// And those of a [`RedisStore`](crate::RedisStore), if the sessions are in the same Redis; `+select`, if the URL has a database;
/// `+client|setinfo`, if Redis is to know this version. All nodes work without four of them, with a loss: without `+client|list` and
/// `+client|kill` Redis may for minutes take a machine that has lost its power for one that listens; without `+info` leases that were
/// lost with a Redis that has begun anew are believed too soon; and `+multi` is only for `switchboard check`, by which it finds what is
/// missing. What Redis refuses is in the log.
#[derive(Clone, Debug)]
#[must_use = "a server is in it by `ServerBuilder::cluster`"]
pub struct Cluster {
    redis: std::result::Result<Redis, String>,
    prefix: String,
    lease: Duration,
    answer_timeout: Duration,
    /// The fingerprints of the server's session keys.
    keys: Vec<u32>,
}

impl Cluster {
    /// One over the Redis of this URL, as in [`Redis::new`]; what is wrong with it, [`bind`](crate::ServerBuilder::bind) reports.
    pub fn new(url: impl AsRef<str>) -> Self {
        Self::made(Redis::new(url).map_err(|error| error.to_string()))
    }

    fn made(redis: std::result::Result<Redis, String>) -> Self {
        let prefix = PREFIX.to_owned();
        Self { redis, prefix, lease: LEASE, answer_timeout: ANSWER_TIMEOUT, keys: Vec::new() }
    }

    /// Of a server that has sessions, and signs them with the first of these keys.
    pub(crate) fn with_keys(mut self, keys: &SessionKeys) -> Self {
        self.keys = keys.fingerprints();
        self
    }

    /// What all keys and channels in Redis begin with, of 1 to 64 ASCII characters without spaces. Those who have the same are one cluster. Default:
    /// `switchboard:`.
    ///
    /// Two clusters over one Redis need two prefixes, also in databases of their own: Redis's Pub/Sub does not tell databases apart.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// For how long a node is taken for alive of which nothing is heard any more: the IDs of one that was killed are unknown after
    /// that. From 1 s to 5 min. Default: 10 s.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// How long an answer of Redis or of another node is waited for, beside what that waits for. A call waits for one, or for a few where
    /// the node was not asked before; each may take twice as long where many call at the same time. From 10 ms to 1 min. Default: 1 s.
    pub fn answer_timeout(mut self, timeout: Duration) -> Self {
        self.answer_timeout = timeout;
        self
    }

    /// # Errors
    /// What is wrong with it.
    fn check(&self) -> Result<Choices, ServerError> {
        let within = |name: &str, time: Duration, (least, most): (Duration, Duration)| {
            let is_within = (least..=most).contains(&time);
            let text =
                || format!("the {name} of a cluster is {time:?}: it has to be from {least:?} to {most:?}");
            if is_within { Ok(()) } else { Err(ServerError::config(text())) }
        };
        within("lease", self.lease, LEASES)?;
        within("answer_timeout", self.answer_timeout, ANSWER_TIMEOUTS)?;
        let is_plain = self.prefix.bytes().all(|byte| byte.is_ascii_graphic());
        if !(1..=MAX_PREFIX).contains(&self.prefix.len()) || !is_plain {
            return Err(ServerError::config(format!(
                "the prefix of a cluster is {:?}: it has to be of 1 to {MAX_PREFIX} ASCII characters, without spaces",
                self.prefix
            )));
        }
        Ok(Choices {
            redis: self.redis.clone().map_err(ServerError::config)?,
            prefix: self.prefix.clone(),
            lease: self.lease,
            answer_timeout: self.answer_timeout,
            keys: self.keys.clone(),
        })
    }
}

impl From<Redis> for Cluster {
    fn from(redis: Redis) -> Self {
        Self::made(Ok(redis))
    }
}

/// A server that is to be a node of its cluster: its hub is that of all, and nobody knows of it yet.
pub(crate) struct Candidate {
    member: Arc<Member>,
    keeper: Sender<()>,
    first: Keeper,
}

impl Candidate {
    /// # Errors
    /// [`ServerError::Config`]: what was chosen is wrong.
    pub(crate) fn new(cluster: &Cluster, registry: &Registry) -> Result<Self, ServerError> {
        let choices = cluster.check()?;
        let (keeper, woken) = bounded(1);
        let start = u64::from_ne_bytes(random_bytes());
        let member = Arc::new(Member::new(choices, registry, start, keeper.clone()));
        registry.set_elsewhere(Arc::new(Others(member.clone())));
        Ok(Self { first: Keeper::new(member.clone(), woken), member, keeper })
    }
}

/// A server's place in its cluster, until it is dropped.
pub(crate) struct Membership {
    member: Arc<Member>,
    keeper: Sender<()>,
    threads: Vec<JoinHandle<()>>,
}

impl Membership {
    /// Makes a server a node of its cluster. If Redis cannot be reached, it becomes one when that can be.
    ///
    /// # Errors
    /// [`ServerError::Config`]: Redis does not want it, or another node has its number. [`ServerError::Io`]: no threads.
    pub(crate) fn begin(
        candidate: Candidate,
        registry: &Arc<Registry>,
        limits: &Limits,
    ) -> Result<Self, ServerError> {
        let Candidate { member, keeper, mut first } = candidate;
        enter(&mut first, &member)?;
        let desk = Desk::new(Hub::alone(registry.clone()), registry.clone(), limits);
        let mut this = Self { member, keeper, threads: Vec::new() };
        this.threads.extend(Receiver::start(this.member.clone(), registry.clone(), Arc::new(desk))?);
        if registry.histories().is_any() {
            this.threads.push(loader::start(this.member.clone(), registry.clone())?);
        }
        this.threads.push(spawn("switchboard-cluster", 256 << 10, move || first.run())?);
        this.wait();
        Ok(this)
    }

    /// So that whoever uses the hub at once reaches the others, and is reached.
    fn wait(&self) {
        let deadline = self.member.deadline();
        let is_ready = || self.member.is_listening() && self.member.nodes().has_looked();
        while self.member.bus().is_up() && !is_ready() && deadline.remaining().is_some() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn enter(keeper: &mut Keeper, member: &Member) -> Result<(), ServerError> {
    if let Err(failure) = keeper.connect() {
        if failure.kind() == FailureKind::Unsuitable {
            return Err(looking::unsuitable(&failure));
        }
        keeper.failed(&failure);
        return Ok(());
    }
    match keeper.claim() {
        Ok(false) => Err(looking::is_taken(member.node())),
        Ok(true) => {
            member.nodes().set_renews(true);
            Ok(())
        }
        Err(_) => Ok(()), // it is tried again, and said
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.member.set_ending();
        self.member.leave();
        self.member.bus().close();
        self.member.replicas().close();
        let _ = self.keeper.try_send(());
        // With Redis out of reach one may still wait for that; it ends by itself.
        let deadline = Deadline::after(LAST_WAIT);
        for thread in self.threads.drain(..) {
            while !thread.is_finished() && deadline.remaining().is_some() {
                std::thread::sleep(Duration::from_millis(2));
            }
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.member.fmt(f)
    }
}

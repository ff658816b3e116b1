//! Sessions in Redis, which all servers that have the same one share.
//!
//! A session is a hash, with a time to live. A hash with the field [`RENEWED`] is an ID that is dead.

use std::{fmt, sync::OnceLock, time::Duration};

use ::redis::{Connection, Pipeline, RedisResult, Value, from_redis_value, pipe};

use super::{
    id::SessionId,
    store::{SessionStore, StoreResult},
};
use crate::{
    deadline::Deadline,
    error::Error,
    limits::Limits,
    redis::{Failure, FailureKind, Pool, Redis, Timeouts, exchange},
};

/// Connections that there are at most.
const CONNECTIONS: usize = 8;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5); // OpenSSL may take long for the CAs of the system
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// The server says eight times within the timeout what is in use, and not when a connection ends. So what is not in use lives by
/// this part longer, and none too short.
const SLACK: u32 = 8;

/// Redis cannot take all that a `Duration` can be.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The timeouts of so many sessions are restarted at once; meanwhile it does other things, too.
const PART: usize = 2000;

/// No value can have this name, as it is not UTF-8. Its value is the new ID.
const RENEWED: &[u8] = b"\xff";

/// Sessions in a [`Redis`] or Valkey: so a page and its socket may meet different servers, and values outlive a server. All servers
/// have to have the same [keys](crate::ServerBuilder::session_keys), and the same name of the [cookie](crate::SessionCookie).
///
/// ```
/// use switchboard::{Redis, RedisStore, Server};
///
/// # fn main() -> Result<(), switchboard::ServerError> {
/// let store = RedisStore::new(Redis::new("redis://127.0.0.1")?);
/// let builder = Server::builder().session_store(store).session_keys(["32 bytes, the same of all servers"]);
/// # Ok(()) }
/// ```
///
/// A handshake that uses its session takes one round trip, and so does each call of a [`Session`](crate::Session). The values of a
/// session are one hash, at the key `switchboard:session:ID`, and expire by themselves: Redis ends what was not used for
/// [`timeout`](Self::timeout), or up to an eighth later. A session that holds nothing is not stored.
///
/// **Where Redis fails**, all that needs a session gets an error: handshakes are answered with 503, and [`Session`](crate::Session)
/// returns [`Error::SessionStore`](crate::Error::SessionStore), which the log quotes. At first that may take
/// [`answer_timeout`](Self::answer_timeout); as soon as it is known, there is an error at once, while one of those that come tries
/// again, every 3 seconds at the latest. Connections that are open, and routes without
/// [sessions](crate::ServerBuilder::use_session), do not notice. (With [`Limits::workers`](crate::Limits::workers) 0 a gateway waits, with
/// all of its connections, for what the handlers of shared ones ask of a session.)
///
/// **How much.** One session holds at most [`Limits::max_session_bytes`](crate::Limits::max_session_bytes). How many there may be is
/// Redis's business: give it a `maxmemory`. With the policy `noeviction` nothing is stored any more beyond that
/// ([`Error::SessionsFull`](crate::Error::SessionsFull)); with `volatile-lru` those are given up that were not used for
/// longest. [`Limits::max_sessions`](crate::Limits::max_sessions) is not for this store.
///
/// Its user needs, in an ACL: `~switchboard:session:* +pexpire +hexists +hget +hset +hdel +hgetall +exists +del +rename +eval`.
pub struct RedisStore {
    redis: Redis,
    prefix: String,
    timeout: Option<Duration>,
    connections: usize,
    answer_timeout: Duration,
    /// Made when it is first needed, with all that was chosen.
    pool: OnceLock<Pool>,
    limits: OnceLock<Limits>,
}

impl RedisStore {
    /// In this Redis. It is connected to when the first session is needed.
    #[must_use]
    pub fn new(redis: Redis) -> Self {
        Self {
            redis,
            prefix: "switchboard:".into(),
            timeout: None,
            connections: CONNECTIONS,
            answer_timeout: ANSWER_TIMEOUT,
            pool: OnceLock::new(),
            limits: OnceLock::new(),
        }
    }

    /// What the names of all its keys begin with, before `session:` and the ID. Default: `switchboard:`. Servers with another one
    /// have other sessions.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// A session that was not used for this long ends, or up to an eighth later. Not shorter than the server's
    /// [`Limits::session_timeout`](crate::Limits::session_timeout), which is the default: by that it is found out which sessions open
    /// connections use.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// So many connections to Redis at most, which are made when they are needed. Default: 8; at least one. Who finds all of them in
    /// use waits.
    #[must_use]
    pub fn connections(mut self, max: usize) -> Self {
        self.connections = max;
        self
    }

    /// So long an answer of Redis is waited for, and a connection to it 5 s, before it is known to have failed. Default: 2 s.
    #[must_use]
    pub fn answer_timeout(mut self, timeout: Duration) -> Self {
        self.answer_timeout = timeout;
        self
    }

    fn key(&self, id: &SessionId) -> String {
        format!("{}session:{}", self.prefix, id.as_str())
    }

    /// The time to live of what is used now, in milliseconds.
    fn time_to_live(&self) -> u64 {
        let of_server = || self.limits.get().map_or(Limits::default().session_timeout, |l| l.session_timeout);
        let timeout = self.timeout.unwrap_or_else(of_server).min(LONGEST);
        (timeout + timeout / SLACK).as_millis().max(1) as u64
    }

    fn max_bytes(&self) -> usize {
        self.limits.get().map_or(Limits::default().max_session_bytes, |limits| limits.max_session_bytes)
    }

    fn ask<T>(&self, work: impl Fn(&mut Connection, Deadline) -> RedisResult<T>) -> StoreResult<T> {
        let timeouts = Timeouts { connect: CONNECT_TIMEOUT, answer: self.answer_timeout };
        let pool = self.pool.get_or_init(|| Pool::new(self.redis.clone(), timeouts, self.connections));
        pool.with(work).map_err(|failure: Failure| match failure.kind() {
            FailureKind::Full => Error::SessionsFull.into(),
            _ => failure.into(),
        })
    }

    /// Does all of this, in one round trip. Returns what came of the last.
    fn ask_all(&self, pipeline: &Pipeline) -> StoreResult<Value> {
        self.ask(|connection, deadline| {
            let answers = exchange(connection, pipeline, deadline)?;
            answers.into_iter().try_fold(Value::Nil, |_, answer| answer.extract_error())
        })
    }

    /// Runs a script, and returns the number that it does. Its text goes with it: Redis may have been started anew.
    fn run(&self, script: &str, keys: &[String], add: impl FnOnce(&mut Pipeline)) -> StoreResult<i32> {
        let mut pipeline = pipe();
        pipeline.cmd("EVAL").arg(script).arg(keys.len()).arg(keys);
        add(&mut pipeline);
        Ok(from_redis_value(self.ask_all(&pipeline)?)?)
    }

    /// Restarts the timeout, and does this. Returns what came of it.
    fn ask_and_touch(&self, id: &SessionId, add: impl Fn(&mut Pipeline, &str)) -> StoreResult<Value> {
        let key = self.key(id);
        let mut pipeline = pipe();
        pipeline.cmd("PEXPIRE").arg(&key).arg(self.time_to_live());
        add(&mut pipeline, &key);
        self.ask_all(&pipeline)
    }
}

impl SessionStore for RedisStore {
    fn begin(&self, limits: &Limits) {
        let _ = self.limits.set(limits.clone());
    }

    fn open(&self, id: &SessionId) -> StoreResult<bool> {
        let is_dead = self.ask_and_touch(id, |pipeline, key| {
            pipeline.cmd("HEXISTS").arg(key).arg(RENEWED);
        })?;
        Ok(is_dead != Value::Int(1))
    }

    fn get(&self, id: &SessionId, key: &str) -> StoreResult<Option<String>> {
        let value = self.ask_and_touch(id, |pipeline, session| {
            pipeline.cmd("HGET").arg(session).arg(key);
        })?;
        match value {
            Value::BulkString(bytes) => match String::from_utf8(bytes) {
                Ok(text) => Ok(Some(text)),
                Err(_) => Err("the value in Redis is not UTF-8: another program has stored it".into()),
            },
            _ => Ok(None),
        }
    }

    fn set(&self, id: &SessionId, key: &str, value: &str) -> StoreResult<()> {
        let stored = self.run(SET, &[self.key(id)], |call| {
            call.arg(key).arg(value).arg(self.max_bytes()).arg(self.time_to_live());
        });
        match stored? {
            STORED => Ok(()),
            NO_ROOM => Err(Error::SessionsFull.into()),
            _ => Err(Error::SessionRenewed.into()),
        }
    }

    fn remove(&self, id: &SessionId, key: &str) -> StoreResult<()> {
        let mut pipeline = pipe();
        pipeline.cmd("HDEL").arg(self.key(id)).arg(key);
        self.ask_all(&pipeline).map(drop)
    }

    fn end(&self, id: &SessionId) -> StoreResult<()> {
        self.run(END, &[self.key(id)], |_| {}).map(drop)
    }

    fn renew(&self, old: &SessionId, proposed: SessionId) -> StoreResult<SessionId> {
        let renewed = self.run(RENEW, &[self.key(old), self.key(&proposed)], |call| {
            call.arg(proposed.as_str()).arg(self.time_to_live());
        });
        match renewed? {
            STORED => Ok(proposed),
            _ => Err(Error::SessionRenewed.into()),
        }
    }

    fn touch(&self, id: &SessionId) -> StoreResult<()> {
        self.ask_and_touch(id, |_, _| {}).map(drop)
    }

    /// Those of dead IDs, too: as long as a connection has one, nothing can be stored under it.
    fn keep(&self, ids: &[SessionId]) -> StoreResult<()> {
        let mut ids: Vec<_> = ids.iter().collect();
        ids.sort_unstable();
        ids.dedup();
        let time_to_live = self.time_to_live();
        for part in ids.chunks(PART) {
            let mut pipeline = pipe();
            for id in part {
                pipeline.cmd("PEXPIRE").arg(self.key(id)).arg(time_to_live);
            }
            self.ask_all(&pipeline)?;
        }
        Ok(())
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("redis", &self.redis).field("prefix", &self.prefix).finish()
    }
}

// What is to be done at once, or not at all.

/// What the scripts return.
const STORED: i32 = 1;
const NO_ROOM: i32 = 0;

/// Key, value, bytes that the session may hold, time to live.
const SET: &str = r"
if redis.call('HEXISTS', KEYS[1], '\255') == 1 then return -1 end
local bytes = #ARGV[1] + #ARGV[2] + 64
local values = redis.call('HGETALL', KEYS[1])
for i = 1, #values, 2 do
  if values[i] ~= ARGV[1] then bytes = bytes + #values[i] + #values[i + 1] + 64 end
end
if bytes > tonumber(ARGV[3]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1";

/// A dead ID stays dead.
const END: &str = r"
if redis.call('HEXISTS', KEYS[1], '\255') == 0 then redis.call('DEL', KEYS[1]) end
return 1";

/// From the first key to the second one, whose ID is the argument; time to live. Done again, since the answer was lost, it comes to
/// the same. The values are moved even if Redis has no room for the note that the old ID is dead.
const RENEW: &str = r"
local new = redis.call('HGET', KEYS[1], '\255')
if new then
  if new == ARGV[1] then return 1 end
  return -1
end
if redis.call('EXISTS', KEYS[1]) == 1 then
  redis.call('RENAME', KEYS[1], KEYS[2])
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
end
redis.pcall('HSET', KEYS[1], '\255', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1";

//! From an address to a connection that has said who it is. Every step has a time limit.

use std::{
    net::IpAddr,
    sync::{Condvar, Mutex},
    time::Duration,
};

use ::redis::{
    Client, Connection, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisConnectionInfo, RedisError,
    Value, from_redis_value,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
    pipe,
};
use crossbeam_channel::bounded;

use super::{
    Redis,
    exchange::exchange,
    failure::{Failure, FailureKind, NO_CLUSTER},
    url::{Address, Place, Target},
};
use crate::{
    deadline::Deadline,
    sync::{LockExt, wait},
    thread::spawn,
};

/// What we are called in Redis's `CLIENT LIST`.
const NAME: &str = "switchboard";

/// Connecting may wait without a limit: for a name, for TLS, for a Unix socket whose queue is full. So it has a thread, which outlives
/// whoever gives up. There are so many at most.
const MAX_CONNECTING: usize = 8;
const STACK: usize = 512 * 1024; // what the system's plugins for names may need

/// When nothing has come for so long, it is found out whether the other machine is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// How long may be waited.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// For the connection, whatever it takes: names, Sentinels, TLS, the password.
    pub(crate) connect: Duration,
    /// Afterwards, for each time that something is sent or received; not zero.
    ///
    /// A pipeline of the client's own waits for so long *for each* of its commands, and goes on with the next one after a timeout:
    /// [`exchange`] does not.
    pub(crate) answer: Duration,
}

#[derive(Clone, Default)]
pub(super) struct Secrets {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

/// As the libraries of TLS call it: rustls, and OpenSSL.
const UNKNOWN_CA: &[&str] =
    &["UnknownIssuer", "self-signed certificate", "self signed certificate", "unable to get local issuer"];
const WANTS_CERTIFICATE: &[&str] = &["CertificateRequired", "certificate required"];
const NO_TLS: &[&str] =
    &["InvalidContentType", "InvalidMessage", "wrong version number", "packet length too long"];
const CLOSED: &[&str] = &["Connection reset", "Broken pipe", "end of file"];

// These begin as what follows an error.
const WANTS_PASSWORD: &str =
    ": it wants a password, with Redis::password (--cluster-password-file), or as in redis://:PASSWORD@HOST";
const SENTINEL_WANTS_PASSWORD: &str =
    ": it wants a password of its own, with Redis::sentinel_password (--cluster-sentinel-password-file)";
const UNKNOWN_CA_ADVICE: &str = ": its certificate is of a CA that is not trusted here: give that with Redis::tls_ca_file (--cluster-ca FILE)";
const WANTS_CERTIFICATE_ADVICE: &str = ": it may want a certificate of ours: give one with Redis::tls_certificate (--cluster-cert FILE --cluster-key FILE)";

/// What a server says of itself.
struct Hello {
    is_master: bool,
    mode: String,
}

impl Redis {
    /// A connection to the master.
    ///
    /// After [`Failure::needs_another_connection`] a connection is of no more use: an answer that was late would be there
    /// instead of the next one.
    ///
    /// # Errors
    /// If it cannot be reached in time, or will not do. The text names the server, and no password.
    pub(crate) fn connect(&self, timeouts: Timeouts) -> Result<Connection, Failure> {
        let deadline = Deadline::after(timeouts.connect);
        let connection = match &self.target.place {
            Place::Tcp(address) => self.connect_tcp(address, deadline)?,
            Place::Unix(path) => {
                let info = ConnectionAddr::Unix(path.clone()).into_connection_info();
                self.connect_master(&path.display().to_string(), info, deadline)?
            }
            Place::Sentinels(sentinels, name) => self.connect_by_sentinels(sentinels, name, deadline)?,
        };
        let answer = Some(timeouts.answer.max(Duration::from_millis(1)));
        connection.set_read_timeout(answer)?;
        connection.set_write_timeout(answer)?;
        Ok(connection)
    }

    /// What went wrong with a connection to it, and where.
    pub(crate) fn failure(&self, error: &RedisError) -> Failure {
        Failure::at(&self.to_string(), error)
    }

    fn connect_tcp(&self, address: &Address, deadline: Deadline) -> Result<Connection, Failure> {
        self.connect_master(&address.shown(), self.info(address), deadline)
    }

    /// Asks one Sentinel after the other, each of which gets its share of the time.
    fn connect_by_sentinels(
        &self,
        sentinels: &[Address],
        name: &str,
        deadline: Deadline,
    ) -> Result<Connection, Failure> {
        let (mut failures, mut kind) = (Vec::new(), FailureKind::Unreachable);
        for (asked, sentinel) in sentinels.iter().enumerate() {
            let Some(left) = deadline.remaining() else { break };
            // One share more is for the master.
            let share = left / (sentinels.len() - asked + 1) as u32;
            let found = self.ask(sentinel, name, Deadline::after(share)).and_then(|address| {
                self.connect_tcp(&address, deadline.or_earlier(Deadline::after(share * 2)))
            });
            match found {
                Ok(connection) => return Ok(connection),
                Err(failure) => {
                    failures.push(failure.to_string());
                    kind = failure.kind();
                }
            }
        }
        failures.dedup();
        let text = format!("no Sentinel led to the master {name}: {}", failures.join("; "));
        Err(Failure::new(kind, text))
    }

    /// Where the master is, as far as this Sentinel knows.
    fn ask(&self, sentinel: &Address, name: &str, deadline: Deadline) -> Result<Address, Failure> {
        let shown = format!("Sentinel {}", sentinel.shown());
        let (mut connection, hello) =
            self.meet(&shown, self.info(sentinel), &self.of_sentinels, SENTINEL_WANTS_PASSWORD, deadline)?;
        if hello.mode != "sentinel" {
            let text = format!("{shown}: it is no Sentinel, but a Redis: write redis://{}", sentinel.shown());
            return Err(Failure::new(FailureKind::Unsuitable, text));
        }
        let mut pipeline = pipe();
        pipeline.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        let mut answers =
            exchange(&mut connection, &pipeline, deadline).map_err(|e| Failure::at(&shown, &e))?;
        let address =
            answers.pop().unwrap_or(Value::Nil).extract_error().map_err(|e| Failure::at(&shown, &e))?;
        match from_redis_value::<Option<(String, u16)>>(address) {
            Ok(Some((host, port))) => Ok(Address { host, port }),
            Ok(None) => {
                let text = format!("{shown}: it knows no master of the name {name}");
                Err(Failure::new(FailureKind::Unreachable, text))
            }
            Err(_) => Err(no_redis(&shown)),
        }
    }

    /// Only a master will do, which is to be written to.
    fn connect_master(
        &self,
        shown: &str,
        info: Result<ConnectionInfo, RedisError>,
        deadline: Deadline,
    ) -> Result<Connection, Failure> {
        let Target { user, password, database, .. } = &self.target;
        let secrets = Secrets { user: user.clone(), password: password.clone() };
        let (mut connection, hello) = self.meet(shown, info, &secrets, WANTS_PASSWORD, deadline)?;
        let unsuitable = |text: &str| Err(Failure::new(FailureKind::Unsuitable, format!("{shown}{text}")));
        match hello.mode.as_str() {
            "standalone" => {}
            "cluster" => return unsuitable(NO_CLUSTER),
            "sentinel" => return unsuitable(": it is a Sentinel: write redis+sentinel://HOST/MASTER"),
            _ => return Err(no_redis(shown)),
        }
        if !hello.is_master {
            let text = format!("{shown}: it is a replica, which cannot be written to: its master is needed");
            return Err(Failure::new(FailureKind::ReadOnly, text));
        }
        let mut pipeline = pipe();
        pipeline.cmd("SELECT").arg(*database);
        // Redis has these two from 7.2 on, and an ACL may forbid all three: it is no harm.
        pipeline.cmd("CLIENT").arg("SETINFO").arg("LIB-NAME").arg(NAME);
        pipeline.cmd("CLIENT").arg("SETINFO").arg("LIB-VER").arg(env!("CARGO_PKG_VERSION"));
        let answers = exchange(&mut connection, &pipeline, deadline).map_err(|e| Failure::at(shown, &e))?;
        match answers.into_iter().next().map(Value::extract_error) {
            Some(Err(e)) if *database != 0 => {
                unsuitable(&format!(": database {database}: {}", Failure::from(&e)))
            }
            _ => Ok(connection),
        }
    }

    /// Connects, and says who we are.
    fn meet(
        &self,
        shown: &str,
        info: Result<ConnectionInfo, RedisError>,
        secrets: &Secrets,
        wants_password: &str,
        deadline: Deadline,
    ) -> Result<(Connection, Hello), Failure> {
        let met = dial(shown, info, deadline).and_then(|mut connection| {
            let hello = greet(shown, &mut connection, secrets, wants_password, deadline)?;
            Ok((connection, hello))
        });
        met.map_err(|failure| match self.advice(&failure.to_string()) {
            Some(advice) => failure.advise(&advice),
            None => failure,
        })
    }

    /// What may be wrong with TLS, as far as the text of an error says so: the libraries have no other words for it.
    fn advice(&self, text: &str) -> Option<String> {
        let has = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
        let scheme = match self.target.place {
            Place::Unix(_) => return None,
            Place::Tcp(_) => "://",
            Place::Sentinels(..) => "+sentinel://",
        };
        let is_late = has(&["in time"]);
        match self.target.is_secure {
            true if has(UNKNOWN_CA) => Some(UNKNOWN_CA_ADVICE.into()),
            true if has(WANTS_CERTIFICATE) || has(CLOSED) => Some(WANTS_CERTIFICATE_ADVICE.into()),
            true if is_late || has(NO_TLS) => {
                Some(format!(": the port may be without TLS: then write redis{scheme}"))
            }
            false if has(CLOSED) => Some(format!(": the port may want TLS: then write rediss{scheme}")),
            _ => None,
        }
    }

    fn info(&self, Address { host, port }: &Address) -> Result<ConnectionInfo, RedisError> {
        #[cfg(feature = "__tls")]
        if self.target.is_secure {
            return self.tls.info(host, *port);
        }
        ConnectionAddr::Tcp(host.clone(), *port).into_connection_info()
    }
}

/// Says who we are, and asks who is there. Of this Redis checks only the name and the password, and no other rights.
fn greet(
    shown: &str,
    connection: &mut Connection,
    secrets: &Secrets,
    wants_password: &str,
    deadline: Deadline,
) -> Result<Hello, Failure> {
    let mut pipeline = pipe();
    pipeline.cmd("HELLO").arg(2);
    if let Some(password) = &secrets.password {
        pipeline.arg("AUTH").arg(secrets.user.as_deref().unwrap_or("default")).arg(password);
    }
    pipeline.arg("SETNAME").arg(NAME);
    let mut answers = exchange(connection, &pipeline, deadline).map_err(|e| Failure::at(shown, &e))?;
    let answer = answers.pop().unwrap_or(Value::Nil).extract_error().map_err(|e| match e.code() {
        Some("ERR") if e.to_string().contains("unknown command") => {
            Failure::new(FailureKind::Unsuitable, format!("{shown}: Redis 6 or later is needed, or Valkey"))
        }
        Some("NOAUTH") if secrets.user.is_some() && secrets.password.is_none() => {
            Failure::new(FailureKind::Unsuitable, format!("{shown}: the user's password is missing"))
        }
        Some("NOAUTH") => Failure::at(shown, &e).advise(wants_password),
        _ => Failure::at(shown, &e),
    })?;
    Hello::understand(answer).ok_or_else(|| no_redis(shown))
}

impl Hello {
    /// Names and values by turns.
    fn understand(answer: Value) -> Option<Self> {
        let Value::Array(pairs) = answer else { return None };
        let text = |name: &str| {
            let mut pairs = pairs.chunks_exact(2);
            pairs.find_map(|pair| (as_text(&pair[0])? == name).then(|| as_text(&pair[1]))?)
        };
        Some(Self { is_master: text("role") == Some("master"), mode: text("mode")?.to_owned() })
    }
}

fn as_text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        _ => None,
    }
}

fn no_redis(shown: &str) -> Failure {
    Failure::new(FailureKind::Unsuitable, format!("{shown}: what answers there is no Redis"))
}

/// Connects, and says nothing yet.
fn dial(
    shown: &str,
    info: Result<ConnectionInfo, RedisError>,
    deadline: Deadline,
) -> Result<Connection, Failure> {
    let late = || Failure::new(FailureKind::Unreachable, format!("{shown}: not connected in time"));
    let info = info.map_err(|e| Failure::at(shown, &e))?;
    let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive());
    let info =
        info.set_tcp_settings(tcp).set_redis_settings(RedisConnectionInfo::default().set_skip_set_lib_name());
    let is_bounded = matches!(info.addr(), ConnectionAddr::Tcp(host, _) if host.parse::<IpAddr>().is_ok());
    let place = if is_bounded { None } else { Some(Connecting::take(deadline).ok_or_else(late)?) };
    let left = deadline.remaining().ok_or_else(late)?;
    let connect = move || Client::open(info)?.get_connection_with_timeout(left);
    let connected = if place.is_none() {
        connect()
    } else {
        let (done, told) = bounded(1);
        let connect = move || {
            let _place = place;
            let _ = done.send(connect()); // nobody may wait any more
        };
        let thread = spawn("switchboard-redis", STACK, connect);
        drop(thread.map_err(|e| Failure::new(FailureKind::Unreachable, format!("{shown}: {e}")))?);
        told.recv_timeout(left).map_err(|_| late())?
    };
    connected.map_err(|e| Failure::at(shown, &e))
}

fn keepalive() -> TcpKeepalive {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    let keepalive = keepalive.with_interval(KEEPALIVE / 6).with_retries(3);
    keepalive
}

static CONNECTING: Mutex<usize> = Mutex::new(0);
static FEWER: Condvar = Condvar::new();

/// One of the threads that may be connecting.
struct Connecting;

impl Connecting {
    /// Waits for a place. `None`: the time is up.
    fn take(deadline: Deadline) -> Option<Self> {
        let mut count = CONNECTING.locked();
        while *count >= MAX_CONNECTING {
            count = wait(&FEWER, count, deadline.remaining()?);
        }
        *count += 1;
        Some(Self)
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        *CONNECTING.locked() -= 1;
        FEWER.notify_one();
    }
}

//! Real servers of Redis, and a slow way to them.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use ::redis::{ConnectionLike, IntoConnectionInfo, Value};
use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, eventually, folder::Folder};

/// A server with a folder of its own, which nothing is left of when this is dropped. It stores nothing on a disk, unless its options
/// say so: then it has it again after a [`restart`](Self::restart).
pub struct RedisServer {
    child: Child,
    port: u16,
    options: Vec<String>,
    folder: Folder,
}

impl RedisServer {
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With further options of the command, as `["--requirepass", "secret"]`. With `--tls-cert-file` its port has TLS.
    pub fn start_with(options: &[&str]) -> Self {
        Self::start_in(Folder::new(), options.iter().map(|&option| option.to_owned()).collect())
    }

    /// A Sentinel that watches this master by the name `mymaster`, alone, and takes it for dead after half a second.
    pub fn start_sentinel(master: &Self) -> Self {
        let folder = Folder::new();
        let config = folder.write(
            "sentinel.conf",
            format!(
                "sentinel monitor mymaster 127.0.0.1 {} 1\nsentinel down-after-milliseconds mymaster 500\n\
                 sentinel failover-timeout mymaster 2000\n",
                master.port
            ),
        );
        Self::start_in(folder, vec![config, "--sentinel".into()])
    }

    fn start_in(folder: Folder, options: Vec<String>) -> Self {
        let begun = Instant::now();
        let port = free_port();
        let mut server = Self { child: spawn(&folder, port, &options), port, options, folder };
        while !server.is_ready() {
            // Somebody else was given the port meanwhile.
            let log = server.log();
            assert!(begun.elapsed() < PATIENCE && log.contains("in use"), "Redis does not start: {log}");
            server.port = free_port();
            server.child = spawn(&server.folder, server.port, &server.options);
        }
        server
    }

    /// Its URL, without a password.
    pub fn url(&self) -> String {
        let scheme = if self.has_tls() { "rediss" } else { "redis" };
        format!("{scheme}://localhost:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path of its Unix socket.
    pub fn socket(&self) -> String {
        self.folder.path("redis.sock")
    }

    /// What it has written to its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("redis.log")).unwrap_or_default()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it at once, by SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill(); // if it has ended already, both do nothing
        let _ = self.child.wait();
    }

    /// Starts it again, on the same port and in the same folder, after it was killed if it runs.
    pub fn restart(&mut self) {
        self.kill();
        let begun = Instant::now();
        loop {
            self.child = spawn(&self.folder, self.port, &self.options);
            if self.is_ready() {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "Redis does not start again: {}", self.log());
        }
    }

    /// It does nothing any more, by SIGSTOP, but the system still takes connections for it.
    pub fn pause(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).unwrap();
    }

    /// It goes on after a [`pause`](Self::pause).
    pub fn resume(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).unwrap();
    }

    /// The answer to a command, which comes by the Unix socket: as text, the parts of an array in lines.
    ///
    /// # Panics
    /// If it is an error.
    pub fn command(&self, command: &[&str]) -> String {
        self.try_command(command).unwrap_or_else(|e| panic!("{command:?}: {e}"))
    }

    /// The same; the error is Redis's own, or says why there is no answer.
    pub fn try_command(&self, command: &[&str]) -> Result<String, String> {
        let mut settings = ::redis::RedisConnectionInfo::default();
        if let Some(password) = self.option("--requirepass") {
            settings = settings.set_password(password);
        }
        let connect = || {
            let info = format!("unix:{}", self.socket()).into_connection_info()?.set_redis_settings(settings);
            let mut connection = ::redis::Client::open(info)?.get_connection_with_timeout(PATIENCE)?;
            connection.set_read_timeout(Some(PATIENCE))?;
            let mut packed = ::redis::cmd(command[0]);
            packed.arg(&command[1..]);
            connection.req_command(&packed)?.extract_error()
        };
        connect().map(|value| text(&value)).map_err(|e| e.to_string())
    }

    /// A number out of `INFO`.
    pub fn info(&self, section: &str, name: &str) -> Option<u64> {
        let info = self.command(&["INFO", section]);
        let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.trim().parse().ok()
    }

    /// How often each command was called since it was started, or since `CONFIG RESETSTAT`.
    pub fn calls(&self) -> HashMap<String, u64> {
        let parse = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        };
        self.command(&["INFO", "commandstats"]).lines().filter_map(parse).collect()
    }

    fn has_tls(&self) -> bool {
        self.option("--tls-cert-file").is_some()
    }

    fn option(&self, name: &str) -> Option<&str> {
        let at = self.options.iter().position(|option| option == name)?;
        Some(&self.options[at + 1])
    }

    /// False: it has ended instead.
    fn is_ready(&mut self) -> bool {
        let mut is_ready = false;
        eventually("Redis answers", || {
            let pong = self.try_command(&["PING"]);
            is_ready = pong.is_ok_and(|answer| answer == "PONG");
            is_ready || self.child.try_wait().unwrap().is_some()
        });
        is_ready
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn spawn(folder: &Folder, port: u16, options: &[String]) -> Child {
    let _ = std::fs::remove_file(folder.join("redis.log"));
    let port = port.to_string();
    let ports: &[&str] = match options.iter().any(|option| option == "--tls-cert-file") {
        true => &["--port", "0", "--tls-port", &port],
        false => &["--port", &port],
    };
    // The file that a Sentinel is configured by comes first.
    let (file, options) = match options.first() {
        Some(first) if !first.starts_with("--") => options.split_at(1),
        _ => options.split_at(0),
    };
    let (socket, log) = (folder.path("redis.sock"), folder.path("redis.log"));
    let mut command = Command::new("redis-server");
    command.args(file).args(ports).args(["--bind", "127.0.0.1", "--unixsocket", &socket]);
    command.args(["--dir", &folder.path("."), "--logfile", &log, "--save", "", "--appendonly", "no"]);
    command.args(options).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("redis-server is installed (apt-get install redis-server)")
}

/// As `redis-cli` shows it to a pipe.
fn text(value: &Value) -> String {
    match value {
        Value::Nil => String::new(),
        Value::Int(number) => number.to_string(),
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        Value::Okay => "OK".into(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join("\n"),
        other => format!("{other:?}"),
    }
}

/// A way to a port of this machine that takes as long as one likes. It ends, with all connections, when this is dropped.
pub struct Delaying {
    port: u16,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// In microseconds.
    delay: AtomicU64,
    is_over: AtomicBool,
    /// Both ends of each connection that is open, or was.
    open: Mutex<Vec<TcpStream>>,
}

impl Delaying {
    /// To this port, without a delay at first.
    pub fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::<Shared>::default();
        let listening = std::thread::spawn({
            let shared = shared.clone();
            move || {
                for client in listener.incoming().map_while(Result::ok) {
                    if shared.is_over.load(SeqCst) {
                        return;
                    }
                    forward(&shared, client, target);
                }
            }
        });
        Self { port, shared, listening: Some(listening) }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// What is sent arrives so much later, in each direction, from now on.
    pub fn set_delay(&self, delay: Duration) {
        self.shared.delay.store(delay.as_micros() as u64, SeqCst);
    }

    /// Ends all connections that there are. New ones can be made.
    pub fn cut(&self) {
        for stream in self.shared.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Delaying {
    fn drop(&mut self) {
        self.shared.is_over.store(true, SeqCst);
        let _ = TcpStream::connect(("127.0.0.1", self.port)); // so that it looks
        let _ = self.listening.take().unwrap().join();
        self.cut();
    }
}

/// If nobody listens there, the client's connection is ended.
fn forward(shared: &Arc<Shared>, client: TcpStream, target: u16) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)) else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let mut open = shared.open.lock().unwrap();
    for (from, to) in [(&client, &server), (&server, &client)] {
        open.push(from.try_clone().unwrap());
        let (from, to, shared) = (from.try_clone().unwrap(), to.try_clone().unwrap(), shared.clone());
        let (tx, rx) = sync_channel(1000);
        std::thread::spawn(move || read(from, &shared, &tx));
        std::thread::spawn(move || write(to, &rx));
    }
}

fn read(mut from: TcpStream, shared: &Shared, tx: &SyncSender<(Instant, Vec<u8>)>) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let due = Instant::now() + Duration::from_micros(shared.delay.load(SeqCst));
        if tx.send((due, buffer[..count].to_vec())).is_err() {
            return;
        }
    }
}

fn write(mut to: TcpStream, rx: &Receiver<(Instant, Vec<u8>)>) {
    while let Ok((due, bytes)) = rx.recv() {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

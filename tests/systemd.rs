#![cfg(all(feature = "cli", feature = "__tls", feature = "manage", target_os = "linux"))]
//! The command as a service of systemd: sockets that it is given, and what it tells of itself. The test is the manager.

mod common;

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::{AsRawFd, OwnedFd},
        linux::net::SocketAddrExt,
        unix::{
            fs::PermissionsExt,
            net::{self, UnixDatagram, UnixListener, UnixStream},
        },
    },
    process::Command,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use common::{
    PATIENCE, Scheme, Stream, connector, eventually,
    folder::Folder,
    handshake,
    process::{COMMAND, Process},
    reply::ask,
};
use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::Signal,
    time::{ClockId, clock_gettime},
};

const CERTIFICATE: [&str; 4] = ["--cert", "certs/server.pem", "--key", "certs/server.key"];

const TOKEN: &str = "the-token-of-these-tests";

/// What a service is started with.
#[derive(Default)]
struct Unit<'a> {
    args: Vec<&'a str>,
    sockets: Vec<(&'a str, OwnedFd)>,
    env: Vec<(&'a str, String)>,
    /// `LISTEN_PID`; `None`: its own.
    pid: Option<&'a str>,
}

impl Unit<'_> {
    /// A shell moves the descriptors to where they belong, and becomes the service.
    fn start(&self) -> Process {
        static TURN: Mutex<()> = Mutex::new(());
        let mut script = String::new();
        // Beyond all that are passed, or one would take the place of another that is still to be moved.
        for (index, (_, socket)) in self.sockets.iter().enumerate() {
            script += &format!("exec {}<&{}\n", 100 + index, socket.as_raw_fd());
        }
        for index in 0..self.sockets.len() {
            script += &format!("exec {}<&{from} {from}<&-\n", 3 + index, from = 100 + index);
        }
        let pid = self.pid.unwrap_or("$$");
        script += &format!("LISTEN_PID={pid} exec \"$@\"");
        let mut command = Command::new("bash");
        command.args(["-c", &script, "bash", COMMAND]).args(&self.args);
        if !self.sockets.is_empty() {
            let names: Vec<_> = self.sockets.iter().map(|(name, _)| *name).collect();
            command.env("LISTEN_FDS", self.sockets.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
        }
        command.envs(self.env.iter().cloned());
        // Nothing else that the tests start inherits them.
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let inherit = |flags| self.sockets.iter().for_each(|(_, socket)| fcntl_setfd(socket, flags).unwrap());
        inherit(FdFlags::empty());
        let process = Process::spawn(&mut command);
        inherit(FdFlags::CLOEXEC);
        process
    }

    fn fails(&self) -> String {
        let ended = self.start().end();
        assert_eq!(ended.status.code(), Some(1), "{:?}", ended.stderr);
        ended.stderr.join("\n")
    }
}

fn tcp() -> (SocketAddr, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    (listener.local_addr().unwrap(), listener.into())
}

fn unix(folder: &Folder, name: &str, mode: u32) -> OwnedFd {
    let listener = UnixListener::bind(folder.join(name)).unwrap();
    fs::set_permissions(folder.join(name), fs::Permissions::from_mode(mode)).unwrap();
    listener.into()
}

fn connect_unix(folder: &Folder, name: &str) -> UnixStream {
    let stream = UnixStream::connect(folder.join(name)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn assert_upgrades(mut stream: impl Read + Write) {
    let reply = ask(&mut stream, handshake("/echo"));
    assert_eq!(reply.status, 101);
}

#[test]
fn sockets_are_served_by_their_names() {
    let folder = Folder::new();
    let (ws, ws_fd) = tcp();
    let (wss, wss_fd) = tcp();
    let (manage, manage_fd) = tcp();
    let token = folder.write("token", TOKEN);
    let sockets = vec![
        ("manage", manage_fd),
        ("wss", unix(&folder, "wss", 0o666)),
        ("ws", ws_fd),
        ("wss", wss_fd),
        ("manage", unix(&folder, "manage", 0o660)),
        ("ws", unix(&folder, "ws", 0o666)),
        ("manage", unix(&folder, "open", 0o666)),
    ];
    let args = [&CERTIFICATE[..], &["--manage-token-file", &token]].concat();
    let mut process = Unit { args, sockets, ..Default::default() }.start();
    assert_eq!(process.address("http"), ws, "and nothing else: no default beside what is given");
    process.line(&format!("unix:{}", folder.path("ws")));
    assert_upgrades(Stream::connect(ws, Scheme::Ws));
    assert_upgrades(connect_unix(&folder, "ws"));
    assert_upgrades(Stream::connect(wss, Scheme::Wss));
    assert_upgrades(connector().connect("localhost", connect_unix(&folder, "wss")).unwrap());
    let list = |stream: &mut UnixStream, line: &str| {
        ask(stream, format!("GET /@connections HTTP/1.1\r\nHost: x\r\n{line}\r\n")).status
    };
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    assert_eq!(list(&mut connect_unix(&folder, "manage"), ""), 200, "its mode guards it");
    assert_eq!(list(&mut connect_unix(&folder, "open"), ""), 403, "everybody may connect to it");
    assert_eq!(list(&mut connect_unix(&folder, "open"), &token), 200);
    let ask_tcp = |line: &str| {
        let mut stream = TcpStream::connect(manage).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        ask(&mut stream, format!("GET /@connections HTTP/1.1\r\nHost: localhost\r\n{line}\r\n")).status
    };
    assert_eq!((ask_tcp(""), ask_tcp(&token)), (403, 200));
    process.stop();
    for name in ["ws", "wss", "manage", "open"] {
        assert!(folder.join(name).exists(), "its file is the manager's: {name}");
    }
}

#[test]
fn options_add_to_what_is_passed() {
    let (passed, socket) = tcp();
    let args = vec!["--listen", "127.0.0.1:0"];
    let mut process = Unit { args, sockets: vec![("ws", socket)], ..Default::default() }.start();
    let others = [process.address("http"), process.address("http")];
    assert!(others.contains(&passed) && others[0] != others[1], "{others:?}");
    others.iter().for_each(|address| assert_upgrades(Stream::connect(*address, Scheme::Ws)));
    process.stop();
    // Managed by a socket of the manager, and served where it says itself.
    let folder = Folder::new();
    let sockets = vec![("manage", unix(&folder, "manage", 0o600))];
    let args = vec!["--listen", "127.0.0.1:0"];
    let mut process = Unit { args, sockets, ..Default::default() }.start();
    process.address("http");
    let mut stream = connect_unix(&folder, "manage");
    assert_eq!(ask(&mut stream, "GET /ready HTTP/1.1\r\nHost: x\r\n\r\n").status, 200);
    process.stop();
}

#[test]
fn sockets_of_another_process_are_left_alone() {
    let (passed, socket) = tcp();
    let args = vec!["--listen", "127.0.0.1:0"];
    for pid in ["1", "", "x"] {
        let sockets = vec![("ws", socket.try_clone().unwrap())];
        let mut process = Unit { args: args.clone(), sockets, pid: Some(pid), ..Default::default() }.start();
        assert_ne!(process.address("http"), passed);
        process.stop();
    }
}

#[test]
fn what_cannot_be_served_is_told() {
    let folder = Folder::new();
    let one = |name, socket| vec![(name, socket)];
    let (of_client, _client) = UnixStream::pair().unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let unbound =
        rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None);
    let file = fs::File::open("Cargo.toml").unwrap();
    for (sockets, parts) in [
        (one("http", tcp().1), &["\"http\"", "FileDescriptorName=", "ws, wss or manage"][..]),
        (one("switchboard.socket", tcp().1), &["\"switchboard.socket\""]),
        (one("ws:ws", tcp().1), &["2 names for 1"]),
        (one("wss", tcp().1), &["wss", "--cert"]),
        (one("manage", tcp().1), &["needs a token"]),
        (one("manage", unix(&folder, "open", 0o666)), &["needs a token", "open", "SocketMode="]),
        (one("ws", udp.into()), &["descriptor 3", "\"ws\"", "ListenStream="]),
        (one("ws", of_client.into()), &["descriptor 3", "Accept=no"]),
        (one("ws", unbound.unwrap()), &["descriptor 3", "listens"]),
        (one("manage", file.into()), &["descriptor 3", "\"manage\""]),
    ] {
        let args = vec!["--listen", "127.0.0.1:0"];
        let told = Unit { args, sockets, ..Default::default() }.fails();
        parts.iter().for_each(|part| assert!(told.contains(part), "{part}: {told}"));
    }
    for (count, part) in [("x", "\"x\""), ("99999999999", "no number"), ("1", "descriptor 3")] {
        let env = vec![("LISTEN_FDS", count.to_owned())];
        let args = vec!["--listen", "127.0.0.1:0"];
        let told = Unit { args, env, ..Default::default() }.fails();
        assert!(told.contains(part), "{part}: {told}");
    }
}

/// The manager's end of what services tell.
struct Manager(UnixDatagram);

impl Manager {
    fn new(folder: &Folder) -> (Self, Vec<(&'static str, String)>) {
        let socket = UnixDatagram::bind(folder.join("notify")).unwrap();
        (Self::with(socket), vec![("NOTIFY_SOCKET", folder.path("notify"))])
    }

    fn with(socket: UnixDatagram) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    fn next(&self) -> String {
        let mut bytes = [0; 4096];
        let n = self.0.recv(&mut bytes).unwrap();
        String::from_utf8(bytes[..n].to_vec()).unwrap()
    }

    /// The next message that is more than a sign of life or a status.
    fn event(&self) -> String {
        let begun = Instant::now();
        loop {
            let message = self.next();
            if !message.starts_with("WATCHDOG=1") && !message.starts_with("STATUS=") {
                return message;
            }
            assert!(begun.elapsed() < PATIENCE);
        }
    }
}

#[test]
fn the_manager_is_told_of_the_start_a_reload_and_the_stop() {
    let folder = Folder::new();
    let (manager, env) = Manager::new(&folder);
    let manage = format!("unix:{}", folder.path("manage"));
    let listen = ["--listen", "127.0.0.1:0", "--tls-listen", "127.0.0.1:0", "--manage", &manage];
    let args = [&listen[..], &CERTIFICATE].concat();
    let mut process = Unit { args, env, ..Default::default() }.start();
    let (plain, tls) = (process.address("http"), process.address("https"));
    let places = format!("listening on {plain}, {tls} (TLS); managed on {manage}");
    assert_eq!(manager.next(), format!("READY=1\nSTATUS=0 connections; {places}"));
    assert_upgrades(Stream::connect(plain, Scheme::Ws));
    let micros = || {
        let now = clock_gettime(ClockId::Monotonic);
        now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
    };
    let before = micros();
    process.signal(Signal::HUP);
    let reloading = manager.event();
    let (line, time) = reloading.split_once("\nMONOTONIC_USEC=").unwrap();
    assert_eq!(line, "RELOADING=1");
    assert!((before..=micros()).contains(&time.parse().unwrap()), "{reloading}");
    assert_eq!(manager.event(), "READY=1");
    process.line("SIGHUP: the files of the certificates have not changed");
    let open = Stream::connect(plain, Scheme::Ws);
    process.stop();
    let stopping = manager.event();
    assert!(stopping.starts_with("STOPPING=1\nSTATUS=Shutting down: "), "{stopping}");
    drop(open);
    manager.0.set_nonblocking(true).unwrap();
    assert!(manager.0.recv(&mut [0; 1]).is_err(), "nothing comes after that");
}

#[test]
fn the_watchdog_is_fed_and_the_status_follows() {
    let name = format!("switchboard-notify-{}", std::process::id());
    let address = net::SocketAddr::from_abstract_name(&name).unwrap();
    let manager = Manager::with(UnixDatagram::bind_addr(&address).unwrap());
    let env = vec![("NOTIFY_SOCKET", format!("@{name}")), ("WATCHDOG_USEC", "2000000".into())];
    let begun = Instant::now();
    let mut process = Unit { args: vec!["--listen", "127.0.0.1:0"], env, ..Default::default() }.start();
    let address = process.address("http");
    assert!(manager.next().starts_with("READY=1\n"));
    let mut fed = 0;
    eventually("it is fed", || {
        fed += usize::from(manager.next().starts_with("WATCHDOG=1"));
        fed == 4
    });
    assert!(begun.elapsed() > Duration::from_secs(1), "not more often than it is wanted");
    let mut client = Stream::connect(address, Scheme::Ws);
    client.write_all(handshake("/echo").as_bytes()).unwrap();
    eventually("the status has changed", || manager.next().contains("\nSTATUS=1 connection; listening on "));
    process.stop();
    assert!(manager.event().starts_with("STOPPING=1\n"));
}

#[test]
fn a_failed_start_is_never_ready() {
    let folder = Folder::new();
    let (manager, mut env) = Manager::new(&folder);
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    env.push(("WATCHDOG_USEC", "1000000".into()));
    let told = Unit { args: vec!["--listen", &address], env, ..Default::default() }.fails();
    assert!(told.contains("cannot listen"), "{told}");
    manager.0.set_nonblocking(true).unwrap();
    assert!(manager.0.recv(&mut [0; 1]).is_err());
}

#[test]
fn a_manager_that_does_not_listen_holds_nothing_up() {
    let folder = Folder::new();
    let (stuck, full) = Manager::new(&folder);
    // Its queue is full: whoever sends waits.
    let filler = UnixDatagram::unbound().unwrap();
    filler.set_nonblocking(true).unwrap();
    while filler.send_to(b"x", folder.join("notify")).is_ok() {}
    let gone = vec![("NOTIFY_SOCKET", folder.path("nobody"))];
    let unknown = vec![("NOTIFY_SOCKET", "vsock:2:1234".into()), ("WATCHDOG_USEC", "1000000".into())];
    for (env, told) in [(full, "cannot be told"), (gone, "cannot be told"), (unknown, "NOTIFY_SOCKET")] {
        let mut process = Unit { args: vec!["--listen", "127.0.0.1:0"], env, ..Default::default() }.start();
        process.address("http");
        if !process.stderr.iter().any(|line| line.contains(told)) {
            process.line(told);
        }
        process.stop();
    }
    drop(stuck);
}

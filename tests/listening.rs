#![cfg(feature = "__tls")]
//! Where a server listens: TCP, IPv6, Unix sockets, the program's own listeners; and what happens if it cannot.

mod common;

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Ipv6Addr, TcpListener, TcpStream},
    os::unix::{
        fs::FileTypeExt,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::{Duration, Instant},
};

use common::{
    PATIENCE, Scheme, Stream, app, assert_closed, connector, echo, eventually, folder::Folder, handshake,
    next_message, running::Running,
};
use switchboard::{Limits, ListenAddr, Message, Server, ServerBuilder, ServerError, TlsIdentity, WebSocket};

fn identity() -> TlsIdentity {
    common::identity()
}

fn echoing() -> ServerBuilder {
    Server::builder().route("/", || app(echo))
}

/// The address as the builder takes it.
fn unix(path: &Path) -> String {
    format!("unix:{}", path.display())
}

/// Opens a WebSocket, and checks that a message is echoed.
fn assert_echoes<S: Read + Write>(stream: S) {
    let (mut client, _) = tungstenite::client("ws://localhost/", stream).unwrap();
    client.send(tungstenite::Message::text("hello")).unwrap();
    assert_eq!(client.read().unwrap(), tungstenite::Message::text("hello"));
}

fn connect_unix(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Checks that binding failed with this address and this reason, and that the error text has both.
#[track_caller]
fn assert_bind_error(result: Result<Server, ServerError>, address: &str, kind: Option<ErrorKind>) {
    let error = result.unwrap_err();
    let ServerError::Bind(bind) = &error else { panic!("{error:?}") };
    assert_eq!(bind.address, address);
    assert!(kind.is_none_or(|kind| bind.source.kind() == kind), "{error}");
    let text = error.to_string();
    assert!(text.contains(address) && text.contains(&bind.source.to_string()), "{text}");
}

#[test]
fn each_address_is_served_in_the_order_of_the_calls() {
    let own = TcpListener::bind("127.0.0.1:0").unwrap();
    let own_address = own.local_addr().unwrap();
    let folder = Folder::new();
    let path = folder.join("socket");
    let builder = echoing().listen("127.0.0.1:0").listen_tls("127.0.0.1:0", identity());
    let server = Running::new(builder.listener(own).listen(unix(&path)).listen("127.0.0.1:0"));
    let addresses: Vec<_> = server.addresses.iter().map(ListenAddr::tcp).collect();
    assert_eq!(server.addresses.len(), 5);
    assert_eq!(addresses[2], Some(own_address));
    assert_eq!(server.addresses[3], ListenAddr::Unix(path.clone()));
    assert!(addresses.iter().flatten().all(|address| address.ip().is_loopback() && address.port() != 0));
    for (address, scheme) in
        addresses.iter().zip([Scheme::Ws, Scheme::Wss, Scheme::Ws, Scheme::Ws, Scheme::Ws])
    {
        match address {
            Some(address) => assert_echoes(Stream::connect(*address, scheme)),
            None => assert_echoes(connect_unix(&path)),
        }
    }
}

#[test]
fn a_listener_of_the_program_is_taken_over() {
    let own = TcpListener::bind("127.0.0.1:0").unwrap();
    own.set_nonblocking(false).unwrap();
    let address = own.local_addr().unwrap();
    // A client that connected before the server existed is served, too.
    let early = TcpStream::connect(address).unwrap();
    early.set_read_timeout(Some(PATIENCE)).unwrap();
    let server = Running::new(echoing().listener(own));
    assert_eq!(server.addresses, [ListenAddr::Tcp(address)]);
    assert_echoes(early);
    assert_echoes(Stream::connect(address, Scheme::Ws));
    drop(server);
    TcpListener::bind(address).unwrap();
}

#[test]
fn a_listener_of_the_program_is_taken_over_for_tls() {
    let own = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = own.local_addr().unwrap();
    let server = echoing().listener_tls(own, identity()).bind().unwrap();
    assert!(server.is_tls(&ListenAddr::Tcp(address)));
    drop(server);
    let own = TcpListener::bind(address).unwrap();
    let early = TcpStream::connect(address).unwrap();
    early.set_read_timeout(Some(PATIENCE)).unwrap();
    let server = Running::new(echoing().listener_tls(own, identity()));
    assert_eq!(server.addresses, [ListenAddr::Tcp(address)]);
    assert_echoes(connector().connect("localhost", early).unwrap());
    assert_echoes(Stream::connect(address, Scheme::Wss));
}

#[test]
fn a_unix_listener_of_the_program_is_taken_over_and_keeps_its_file() {
    let folder = Folder::new();
    let path = folder.join("socket");
    let own = UnixListener::bind(&path).unwrap();
    let other = own.try_clone().unwrap();
    let early = connect_unix(&path);
    let server = Running::new(echoing().listener_unix(own).listen("127.0.0.1:0"));
    assert_eq!(server.addresses[0], ListenAddr::Unix(path.clone()));
    assert_echoes(early);
    assert_echoes(connect_unix(&path));
    drop(server);
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket(), "it is not the server's");
    // Nor was it shut down: whoever has it, too, goes on.
    let next = Running::new(echoing().listener_unix(other));
    assert_echoes(connect_unix(&path));
    drop(next);
    assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_unix_listener_of_the_program_may_speak_tls() {
    let folder = Folder::new();
    let path = folder.join("socket");
    let server = Running::new(echoing().listener_unix_tls(UnixListener::bind(&path).unwrap(), identity()));
    assert_eq!(server.addresses, [ListenAddr::Unix(path.clone())]);
    assert_echoes(connector().connect("localhost", connect_unix(&path)).unwrap());
}

#[cfg(target_os = "linux")]
#[test]
fn a_unix_listener_may_have_a_name_that_is_no_file_s() {
    use std::os::{linux::net::SocketAddrExt, unix::net::SocketAddr};
    let name = format!("switchboard-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let server = Running::new(echoing().listener_unix(UnixListener::bind_addr(&address).unwrap()));
    assert_eq!(server.addresses[0].to_string(), format!("unix:@{name}"));
    assert_echoes(UnixStream::connect_addr(&address).unwrap());
}

#[test]
fn clients_may_connect_as_soon_as_it_is_bound() {
    let server = echoing().listen("127.0.0.1:0").bind().unwrap();
    let address = server.local_addrs()[0].tcp().unwrap();
    let (connected, run) = mpsc::channel();
    let client = std::thread::spawn(move || {
        let mut stream = Stream::connect(address, Scheme::Ws);
        stream.write_all(handshake("/").as_bytes()).unwrap();
        connected.send(()).unwrap();
        assert!(stream.read_head().starts_with("HTTP/1.1 101 "));
    });
    run.recv_timeout(PATIENCE).unwrap();
    let handle = server.handle();
    let thread = std::thread::spawn(move || server.run());
    let served = client.join();
    handle.shutdown(Duration::ZERO);
    thread.join().unwrap().unwrap();
    served.unwrap();
    assert_closed(address);
}

#[test]
fn ipv6() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        return eprintln!("there is no ::1 here");
    }
    let builder = Server::builder().route("/", || {
        app(|ws: &mut WebSocket| {
            Ok(ws.write(format!("{} {}", ws.peer().unwrap(), ws.client_address().unwrap()))?)
        })
    });
    let server = Running::new(builder.listen("[::1]:0").listen_tls("[::1]:0", identity()));
    for (address, scheme) in server.addresses.iter().zip(common::SCHEMES) {
        let address = address.tcp().unwrap();
        assert!(address.is_ipv6() && address.ip().is_loopback() && address.port() != 0, "{address}");
        assert_eq!(server.addresses[usize::from(scheme == Scheme::Wss)].to_string(), address.to_string());
        let stream = Stream::connect(address, scheme);
        let local = stream.tcp().local_addr().unwrap();
        let (mut client, _) = tungstenite::client("ws://localhost/", stream).unwrap();
        assert_eq!(next_message(&mut client), tungstenite::Message::text(format!("{local} ::1")));
    }
}

#[test]
fn a_name_stands_for_all_of_its_addresses() {
    let server = Running::new(echoing().listen("localhost:0"));
    assert!(!server.addresses.is_empty());
    for address in &server.addresses {
        assert!(address.tcp().unwrap().ip().is_loopback(), "{address}");
        assert_echoes(Stream::connect(address.tcp().unwrap(), Scheme::Ws));
    }
}

#[test]
fn a_unix_socket_is_served_and_its_file_removed_at_the_end() {
    let folder = Folder::new();
    let path = folder.join("socket");
    let show = |ws: &mut WebSocket| Ok(ws.write(format!("{:?} {:?}", ws.peer(), ws.client_address()))?);
    let builder =
        echoing().route("/peer", move || app(show)).http("/page", |_| switchboard::Response::html("page"));
    let server = Running::new(builder.listen(unix(&path)));
    assert_eq!(server.addresses, [ListenAddr::Unix(path.clone())]);
    assert_eq!((server.addresses[0].to_string(), server.addresses[0].tcp()), (unix(&path), None));
    assert!(fs::metadata(&path).unwrap().file_type().is_socket());
    let mut kept = connect_unix(&path);
    assert_echoes(&mut kept);
    let (mut client, _) = tungstenite::client("ws://localhost/peer", connect_unix(&path)).unwrap();
    assert_eq!(client.read().unwrap(), tungstenite::Message::text("None None"), "it has no address");
    let mut page = connect_unix(&path);
    page.write_all(b"GET /page HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut response = String::new();
    page.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 200 ") && response.ends_with("\r\n\r\npage"), "{response}");
    drop(server);
    assert!(!path.exists());
}

#[test]
fn clients_of_a_unix_socket_have_no_address_that_counts() {
    let folder = Folder::new();
    let path = folder.join("socket");
    let mut limits = Limits::default();
    limits.max_connections_per_address = Some(1);
    let _server = Running::new(echoing().limits(limits).listen(unix(&path)));
    let clients: Vec<_> =
        (0..3).map(|_| tungstenite::client("ws://localhost/", connect_unix(&path)).unwrap().0).collect();
    assert_eq!(clients.len(), 3);
}

#[test]
fn a_unix_socket_may_have_tls() {
    let folder = Folder::new();
    let path = folder.join("socket");
    let _server = Running::new(echoing().listen_tls(unix(&path), identity()));
    assert_echoes(connector().connect("localhost", connect_unix(&path)).unwrap());
}

#[test]
fn a_server_that_never_runs_leaves_nothing_behind() {
    let folder = Folder::new();
    let path = folder.join("socket");
    let server = echoing().listen("127.0.0.1:0").listen(unix(&path)).bind().unwrap();
    let address = server.local_addrs()[0].tcp().unwrap();
    assert!(path.exists());
    drop(server);
    assert!(!path.exists());
    TcpListener::bind(address).unwrap();
}

#[test]
fn a_stale_unix_socket_is_replaced() {
    let folder = Folder::new();
    let path = folder.join("socket");
    // The file remains when a listener is dropped, just as when its process is killed.
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let _server = Running::new(echoing().listen(unix(&path)));
    assert_echoes(connect_unix(&path));
}

#[test]
fn a_unix_socket_in_use_is_not_replaced() {
    let folder = Folder::new();
    let path = folder.join("socket");
    let _first = Running::new(echoing().listen(unix(&path)));
    assert_bind_error(echoing().listen(unix(&path)).bind(), &unix(&path), Some(ErrorKind::AddrInUse));
    assert_echoes(connect_unix(&path));
}

#[test]
fn a_file_that_is_not_a_socket_is_not_replaced() {
    let folder = Folder::new();
    let file = folder.join("file");
    fs::write(&file, "precious").unwrap();
    assert_bind_error(echoing().listen(unix(&file)).bind(), &unix(&file), Some(ErrorKind::AddrInUse));
    assert_eq!(fs::read(&file).unwrap(), b"precious");
    assert_bind_error(echoing().listen(unix(&folder)).bind(), &unix(&folder), None);
    let nowhere = folder.join("nowhere/socket");
    assert_bind_error(echoing().listen(unix(&nowhere)).bind(), &unix(&nowhere), Some(ErrorKind::NotFound));
}

#[test]
fn a_port_in_use_is_named_in_the_error() {
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    let folder = Folder::new();
    let path = folder.join("socket");
    let builder = || echoing().listen("127.0.0.1:0").listen(unix(&path));
    assert_bind_error(builder().listen(&address).bind(), &address, Some(ErrorKind::AddrInUse));
    assert_bind_error(
        builder().listen_tls(&address, identity()).bind(),
        &address,
        Some(ErrorKind::AddrInUse),
    );
    assert!(!path.exists(), "addresses that were already bound are released");
}

#[test]
fn a_malformed_address_is_named_in_the_error() {
    for bad in ["", "nonsense", "127.0.0.1", "127.0.0.1:99999", "127.0.0.1:http", "[::1]", ":::1:80"] {
        assert_bind_error(echoing().listen(bad).bind(), bad, None);
    }
    // It may have none: connections can be handed over to it.
    assert!(echoing().bind().unwrap().local_addrs().is_empty());
}

#[test]
fn a_unix_socket_needs_a_path() {
    // With an empty path, Linux would choose a name that clients do not know.
    assert_bind_error(echoing().listen("unix:").bind(), "unix:", None);
}

#[test]
fn a_port_can_be_bound_again_at_once() {
    let server = Running::new(echoing().listen("127.0.0.1:0"));
    let address = server.addresses[0].tcp().unwrap();
    let mut client = Stream::connect(address, Scheme::Ws);
    assert_echoes(&mut client);
    drop(server); // the server closes first, so that the connection is in TIME_WAIT on its side
    let again = Running::new(echoing().listen(address.to_string()));
    assert_eq!(again.addresses, [ListenAddr::Tcp(address)]);
    assert_echoes(Stream::connect(address, Scheme::Ws));
}

/// With a Unix socket, which takes an exact number of small messages. Over TCP this number varies.
#[test]
fn a_close_frame_for_a_full_socket_is_sent_later() {
    let folder = Folder::new();
    let path = folder.join("socket");
    let written = Arc::new(AtomicUsize::new(0));
    let (returned, rx) = mpsc::channel();
    let count = written.clone();
    let builder = Server::builder().listen(unix(&path)).route("/", move || {
        let (written, returned) = (count.clone(), returned.clone());
        app(move |ws: &mut WebSocket| {
            let most: usize = ws.request().unwrap().query().parse()?;
            for i in 1..=most {
                ws.write(Message::from(vec![7]))?;
                written.store(i, SeqCst);
            }
            returned.send(())?;
            Ok(())
        })
    });
    let server = Running::new(builder);
    let open = |most: usize| {
        let mut stream = connect_unix(&path);
        stream.write_all(handshake(&format!("/?{most}")).as_bytes()).unwrap();
        stream
    };
    // The first client only measures how many messages fit into the socket.
    let stuck = open(usize::MAX);
    let (mut fits, mut since) = (0, Instant::now());
    while fits == 0 || since.elapsed() < Duration::from_millis(500) {
        assert!(fits < 100_000, "it takes everything");
        let now = written.load(SeqCst);
        if now != fits {
            (fits, since) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(stuck);
    eventually("it has left", || server.handle.connections() == 0);

    for messages in [fits - 1, fits] {
        let mut client = open(messages);
        rx.recv_timeout(PATIENCE).unwrap();
        // The handler has returned, and this client has not read anything yet.
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(0);
            client.read_exact(head.last_mut().map(std::slice::from_mut).unwrap()).unwrap();
        }
        let expected = [[0x82, 1, 7].repeat(messages), vec![0x88, 2, 0x03, 0xe8]].concat();
        let mut frames = vec![0; expected.len()];
        client
            .read_exact(&mut frames)
            .unwrap_or_else(|e| panic!("no close frame after {messages} of {fits}: {e}"));
        assert!(frames == expected);
    }
}

/// Sockets of the same name, one after another or at the same time: nobody removes another one's file.
mod socket_files {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn mode(path: &Path) -> Option<u32> {
        fs::symlink_metadata(path).ok().map(|file| file.mode() & 0o7777)
    }

    #[test]
    fn it_has_the_mode_that_is_asked_for_and_never_more() {
        let folder = Folder::new();
        let path = folder.join("socket");
        let (stop, stopped) = mpsc::channel::<()>();
        let watched = path.clone();
        // Whatever it sees has to be within one of the modes below, each of which has less than the umask would give.
        let watcher = std::thread::spawn(move || {
            let mut seen = Vec::new();
            while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                seen.extend(mode(&watched));
            }
            seen
        });
        for round in 0..200 {
            let wanted = [0o600, 0o660, 0o700][round % 3];
            let address = format!("{},mode={wanted:04o}", unix(&path));
            let server = echoing().listen(address).bind().unwrap();
            assert_eq!(mode(&path), Some(wanted));
            assert_eq!(server.local_addrs(), [ListenAddr::Unix(path.clone())], "the mode is no part of it");
        }
        stop.send(()).unwrap();
        let more = watcher.join().unwrap().into_iter().find(|seen| seen & !0o760 != 0);
        assert_eq!(more.map(|mode| format!("{mode:o}")), None);
        // More than the umask leaves, and with TLS.
        let server = Running::new(echoing().listen_tls(format!("{},mode=666", unix(&path)), identity()));
        assert_eq!(mode(&path), Some(0o666));
        assert_echoes(connector().connect("localhost", connect_unix(&path)).unwrap());
        drop(server);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_no_mode_is_refused() {
        let folder = Folder::new();
        for option in [",mode=0999", ",mode=", ",mode=rw", ",mode=2660", "?mode=0660", ",user=me"] {
            let address = format!("{}{option}", unix(&folder.join("socket")));
            assert_bind_error(echoing().listen(&address).bind(), &address, Some(ErrorKind::InvalidInput));
        }
        assert_eq!(fs::read_dir(&*folder).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_has_taken_its_place_is_not_removed() {
        let folder = Folder::new();
        let path = folder.join("socket");
        for again in [false, true] {
            let first = Running::new(echoing().listen(unix(&path)));
            fs::remove_file(&path).unwrap();
            let second = Running::new(echoing().listen(unix(&path)));
            drop(first);
            assert_echoes(connect_unix(&path));
            if again {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap(); // it is the same file
            }
            drop(second);
            assert!(!path.exists());
        }
        let server = Running::new(echoing().listen(unix(&path)));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        drop(server);
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn of_two_that_replace_a_stale_one_at_the_same_time_one_wins() {
        let folder = Folder::new();
        let path = folder.join("socket");
        for _ in 0..200 {
            drop(UnixListener::bind(&path).unwrap());
            let start = std::sync::Barrier::new(3);
            let servers: Vec<_> = std::thread::scope(|scope| {
                let bind = || {
                    start.wait();
                    echoing().listen(unix(&path)).bind()
                };
                let all = [scope.spawn(bind), scope.spawn(bind), scope.spawn(bind)];
                all.into_iter().filter_map(|thread| thread.join().unwrap().ok()).collect()
            });
            assert_eq!(servers.len(), 1);
            UnixStream::connect(&path).unwrap();
            drop(servers);
            assert!(!path.exists());
        }
    }

    /// One whose server is ending is replaced by the next one, which keeps its file.
    #[test]
    fn the_next_one_may_start_while_the_last_one_ends() {
        let folder = Folder::new();
        let path = folder.join("socket");
        let mut last = echoing().listen(unix(&path)).bind().unwrap();
        for _ in 0..200 {
            let ending = std::thread::spawn(move || drop(last));
            let begun = Instant::now();
            last = loop {
                match echoing().listen(unix(&path)).bind() {
                    Ok(server) => break server,
                    Err(e) => assert!(begun.elapsed() < PATIENCE, "{e}"),
                }
            };
            ending.join().unwrap();
            UnixStream::connect(&path).unwrap();
        }
    }

    #[test]
    fn one_whose_backlog_is_full_is_in_use_and_not_waited_for() {
        let folder = Folder::new();
        let path = folder.join("socket");
        let busy = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&busy, 0).unwrap();
        let _waiting = UnixStream::connect(&path).unwrap(); // more do not fit
        let (tell, told) = mpsc::channel();
        let address = unix(&path);
        std::thread::spawn(move || tell.send(echoing().listen(address).bind()));
        let result = told.recv_timeout(PATIENCE).expect("it waits");
        assert_bind_error(result, &unix(&path), Some(ErrorKind::AddrInUse));
    }
}

//! The link that is kept up: against servers that vanish in every way, and come back.

#![cfg(feature = "__tls")]

mod common;

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    ops::{Deref, DerefMut},
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use common::{
    PATIENCE, SCHEMES, Scheme, SharedEcho, Until, app, backends, eventually, is_alone, running::Running,
};
use native_tls::{Identity, TlsAcceptor};
use rustix::net::{self, AddressFamily, SocketType};
use switchboard::{
    Accepted, Client, ClientBuilder, ClientError, CloseCode, ConnectStep, Error, Limits, LinkEvent,
    LinkState, PushErrorKind, Reconnecting, ReconnectingBuilder, Server, TlsIdentity, TlsTrust, WhenFull,
};
use tungstenite::{
    Message, WebSocket,
    protocol::{CloseFrame, WebSocketConfig},
};

const SHORT: Duration = Duration::from_millis(5);

trait Bytes: Read + Write + Send {}

impl<T: Read + Write + Send> Bytes for T {}

/// The server's end of a connection, over TLS or not.
struct Line {
    ws: WebSocket<Box<dyn Bytes>>,
    tcp: TcpStream,
}

impl Deref for Line {
    type Target = WebSocket<Box<dyn Bytes>>;
    fn deref(&self) -> &Self::Target {
        &self.ws
    }
}

impl DerefMut for Line {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.ws
    }
}

/// A server that does what the test says.
struct Peer(TcpListener);

/// The address of a server that is not there yet. Nobody else gets it.
struct Absent(OwnedFd, SocketAddr);

impl Absent {
    fn new() -> Self {
        let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        net::sockopt::set_socket_reuseaddr(&socket, true).unwrap(); // so that a server of ours may have it as well
        net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = net::getsockname(&socket).unwrap().try_into().unwrap();
        Self(socket, address)
    }

    fn url(&self) -> String {
        format!("ws://{}/", self.1)
    }

    fn comes(self) -> Peer {
        net::listen(&self.0, 100).unwrap();
        Peer(self.0.into())
    }
}

impl Peer {
    fn new() -> Self {
        Absent::new().comes()
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    fn url(&self) -> String {
        format!("ws://{}/", self.address())
    }

    fn accept_tcp(&self) -> TcpStream {
        self.0.set_nonblocking(true).unwrap();
        let mut stream = None;
        eventually("somebody connects", || {
            stream = self.0.accept().ok().map(|(stream, _)| stream);
            stream.is_some()
        });
        let stream = stream.unwrap();
        stream.set_nonblocking(false).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    fn accept(&self) -> Line {
        self.accept_over(Scheme::Ws)
    }

    fn accept_over(&self, scheme: Scheme) -> Line {
        let tcp = self.accept_tcp();
        let stream: Box<dyn Bytes> = match scheme {
            Scheme::Ws => Box::new(tcp.try_clone().unwrap()),
            Scheme::Wss => Box::new(acceptor().accept(tcp.try_clone().unwrap()).unwrap()),
        };
        let config = WebSocketConfig::default().max_message_size(None).max_frame_size(None);
        let ws = tungstenite::accept_with_config(stream, Some(config)).map_err(|e| e.to_string()).unwrap();
        Line { ws, tcp }
    }

    fn client(&self, scheme: Scheme) -> ClientBuilder {
        match scheme {
            Scheme::Ws => Client::builder(&self.url()),
            Scheme::Wss => {
                Client::builder(&format!("wss://localhost:{}/", self.address().port())).tls(trust())
            }
        }
    }

    /// Answers the next handshake with this.
    fn refuse(&self, response: &str) {
        let mut stream = self.accept_tcp();
        common::read_head(&mut stream);
        write!(stream, "HTTP/1.1 {response}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
    }
}

fn trust() -> TlsTrust {
    TlsTrust::ca_file("certs/ca.pem").unwrap()
}

fn acceptor() -> TlsAcceptor {
    let read = |name: &str| std::fs::read(name).unwrap();
    let identity = Identity::from_pkcs8(&read("certs/server.pem"), &read("certs/server.key")).unwrap();
    TlsAcceptor::new(identity).unwrap()
}

/// Ends it with a reset.
fn reset(line: Line) {
    rustix::net::sockopt::set_socket_linger(&line.tcp, Some(Duration::ZERO)).unwrap();
}

/// Ends it with a close frame, and waits for the answer.
fn close(mut ws: Line, code: u16) {
    ws.close(Some(CloseFrame { code: code.into(), reason: "".into() })).unwrap();
    while ws.read().is_ok() {}
}

fn hear(ws: &mut Line) -> String {
    next_text(ws).expect("a message")
}

/// The next message; `None` at the end.
fn next_text(ws: &mut Line) -> Option<String> {
    loop {
        match ws.read() {
            Ok(Message::Text(text)) => return Some(text.to_string()),
            Ok(Message::Binary(bytes)) => return Some(bytes.len().to_string()),
            Ok(Message::Close(_)) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

fn builder(url: &str) -> ReconnectingBuilder {
    quick(Client::builder(url))
}

fn quick(client: ClientBuilder) -> ReconnectingBuilder {
    client.reconnecting().delays(Duration::from_millis(1), SHORT)
}

fn up(link: &Reconnecting) {
    loop {
        if let LinkEvent::Up { .. } = next(link) {
            return;
        }
    }
}

fn next(link: &Reconnecting) -> LinkEvent {
    link.next_event(PATIENCE).expect("an event")
}

/// The next attempt that fails: why, and when it tries again.
fn failed(link: &Reconnecting) -> (Arc<ClientError>, Duration) {
    loop {
        if let LinkEvent::Failed { error, retry_in, .. } = next(link) {
            return (error, retry_in);
        }
    }
}

fn down(link: &Reconnecting) -> (switchboard::CloseReason, Duration) {
    loop {
        if let LinkEvent::Down { reason, retry_in, .. } = next(link) {
            return (reason, retry_in);
        }
    }
}

/// Waits until the kernel takes no more of what is to be sent.
fn kernel_is_full(link: &Reconnecting) {
    let (mut last, mut same) = (0, 0);
    eventually("the kernel takes no more", || {
        let sent = link.counts().sent;
        same = if std::mem::replace(&mut last, sent) == sent { same + 1 } else { 0 };
        same == 20
    });
}

fn number(text: &str) -> usize {
    text.trim_end().parse().unwrap()
}

fn count(folder: &str) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn what_is_sent_while_nobody_listens_arrives_in_order_when_somebody_does() {
    let absent = Absent::new();
    let link = builder(&absent.url()).start().unwrap();
    let (error, _) = failed(&link);
    assert!(matches!(&*error, ClientError::Connect(_)) && !error.is_lasting(), "{error}");
    for n in 0..100 {
        assert_eq!(link.send(n.to_string()).unwrap(), Accepted::Queued);
    }
    assert_ne!(link.state(), LinkState::Up);
    assert_eq!((link.counts().queued, link.counts().sent, link.counts().connected), (100, 0, 0));
    let mut ws = absent.comes().accept();
    for n in 0..100 {
        assert_eq!(number(&hear(&mut ws)), n);
    }
    assert!(link.wait_up(PATIENCE));
    assert_eq!(link.state(), LinkState::Up);
    eventually("all is sent", || link.counts().sent == 100 && link.counts().queued == 0);
    assert_eq!(link.send("at once").unwrap(), Accepted::Sent);
    assert_eq!(hear(&mut ws), "at once");
}

/// By reset, by the end of the stream, and by close frames of several kinds; in between it is refused.
#[test]
fn two_hundred_breaks_neither_double_nor_reorder_anything_and_lose_only_what_was_sent() {
    SCHEMES.into_iter().for_each(two_hundred_breaks);
}

fn two_hundred_breaks(scheme: Scheme) {
    const BREAKS: usize = 200;
    let peer = Peer::new();
    let link = quick(peer.client(scheme)).queue(50, 1 << 20, WhenFull::Refuse).start().unwrap();
    let (done, seen) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (sent, heard, read) = thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut n = 0;
            while !done.load(SeqCst) {
                match link.send(n.to_string()) {
                    Ok(_) => n += 1,
                    Err(e) => {
                        assert!(matches!(e.kind, PushErrorKind::Full) && e.message == *n.to_string());
                        thread::sleep(Duration::from_millis(1));
                    }
                }
            }
            n
        });
        let reader = scope.spawn(|| {
            let mut read = Vec::new();
            loop {
                match link.read_message(PATIENCE).unwrap().as_text().unwrap() {
                    "end" => return read,
                    text => read.push(number(text)),
                }
            }
        });
        scope.spawn(|| watch(&link, BREAKS + 1, &seen));
        let until = Until(&done);
        let (mut heard, mut said) = (Vec::new(), 0);
        for round in 0..BREAKS {
            // Of those that nobody has read, only some are kept.
            eventually("the events are read", || seen.load(SeqCst) + 5 >= round);
            let mut ws = peer.accept_over(scheme);
            for _ in 0..round % 7 {
                ws.send(Message::text(said.to_string())).unwrap();
                said += 1;
                heard.push(number(&hear(&mut ws)));
            }
            match round % 5 {
                0 => reset(ws),
                1 => drop(ws),
                2 => close(ws, 1000),
                3 => close(ws, 4001),
                _ if scheme == Scheme::Ws => {
                    reset(ws);
                    peer.refuse("500 Never Mind");
                }
                _ => {
                    reset(ws);
                    drop(peer.accept_tcp()); // before the handshake of TLS
                }
            }
        }
        let mut ws = peer.accept_over(scheme);
        ws.send(Message::text("end")).unwrap();
        heard.push(number(&hear(&mut ws)));
        drop(until);
        let sent: usize = sender.join().unwrap();
        while *heard.last().unwrap() + 1 < sent {
            heard.push(number(&hear(&mut ws)));
        }
        (sent, heard, reader.join().unwrap())
    });
    for numbers in [&heard, &read] {
        assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    }
    eventually("all are known to be sent", || link.counts().queued == 0);
    let counts = link.counts();
    assert_eq!((counts.sent, counts.dropped), (sent as u64, 0));
    assert_eq!(counts.connected, BREAKS as u64 + 1);
    assert_eq!(*heard.last().unwrap(), sent - 1);
    eprintln!("{sent} sent, {} heard, {} read", heard.len(), read.len());
}

/// Reads events until it was connected so often: they tell all that happens, in order. Tells how often that was so far.
fn watch(link: &Reconnecting, connections: usize, seen: &AtomicUsize) {
    let (mut is_up, mut connected, mut failed) = (false, 0, 0);
    while connected < connections {
        match next(link) {
            LinkEvent::Up { .. } => {
                assert!(!is_up);
                (is_up, connected, failed) = (true, connected + 1, 0);
                seen.store(connected, SeqCst);
            }
            LinkEvent::Down { .. } => {
                assert!(is_up);
                is_up = false;
            }
            LinkEvent::Failed { attempts, .. } => {
                failed += 1;
                assert!(!is_up && attempts == failed);
            }
            other => panic!("{other}"),
        }
    }
}

/// What the kernel does not have is not lost, and what it has is not sent again: counted message by message, by a server that ends its
/// side, and reads on, so that it gets all that the kernel has taken. Nothing is missing then, and nothing comes twice, wherever in a
/// message, or in a record of TLS, the break was.
#[test]
fn an_end_in_the_middle_of_much_neither_loses_nor_doubles_what_is_still_read() {
    let over_tls = backends().map(|backend| (Scheme::Wss, Some(backend)));
    [(Scheme::Ws, None)].into_iter().chain(over_tls).for_each(|(scheme, backend)| {
        const COUNT: usize = 2400;
        let peer = Peer::new();
        net::sockopt::set_socket_recv_buffer_size(&peer.0, 4096).unwrap();
        let client = match backend {
            Some(backend) => peer.client(scheme).tls(trust().with_backend(backend)),
            None => peer.client(scheme),
        };
        let link = quick(client).queue(COUNT, 1 << 30, WhenFull::Refuse).start().unwrap();
        for n in 0..COUNT {
            let _ = link.send(format!("{n} {}", "x".repeat(n * 37 % 5000))).unwrap();
        }
        let heard_from = |ws: &mut Line| Some(number(next_text(ws)?.split(' ').next().unwrap()));
        let mut heard = Vec::new();
        let mut ws = peer.accept_over(scheme);
        kernel_is_full(&link);
        // What goes out now goes in large pieces, of many messages each.
        heard.extend((0..600).map_while(|_| heard_from(&mut ws)));
        kernel_is_full(&link);
        ws.tcp.shutdown(Shutdown::Write).unwrap();
        down(&link);
        heard.extend(std::iter::from_fn(|| heard_from(&mut ws)));
        assert!(heard.len() < COUNT, "all was sent before the break: no good for this test");
        let mut ws = peer.accept_over(scheme);
        while heard.last().is_none_or(|last| last + 1 < COUNT) {
            heard.push(heard_from(&mut ws).expect("a message"));
        }
        assert!(heard.iter().copied().eq(0..COUNT), "{scheme:?}, {backend:?}: {}", oddities(&heard));
        eventually("all are known to be sent", || link.counts().sent == COUNT as u64);
        assert_eq!((link.counts().dropped, link.counts().connected), (0, 2));
    });
}

/// Where a number is not the one after that before it.
fn oddities(heard: &[usize]) -> String {
    let odd = heard.windows(2).filter(|pair| pair[0] + 1 != pair[1]);
    odd.map(|pair| format!("{} after {}, ", pair[1], pair[0])).collect()
}

#[test]
fn a_full_queue_does_what_was_chosen() {
    let absent = Absent::new();
    let url = absent.url();
    let link = |messages, bytes, when_full| builder(&url).queue(messages, bytes, when_full).start().unwrap();
    let is_full = |link: &Reconnecting| match link.send("more") {
        Err(e) => matches!(e.kind, PushErrorKind::Full) && e.message == "more",
        Ok(_) => false,
    };
    let refusing = link(3, 10, WhenFull::Refuse);
    for text in ["1", "2", "3"] {
        assert_eq!(refusing.send(text).unwrap(), Accepted::Queued);
    }
    assert!(is_full(&refusing));
    assert_eq!(
        (refusing.counts().queued, refusing.counts().queued_bytes, refusing.counts().dropped),
        (3, 3, 0)
    );
    drop(refusing);
    let refusing = link(3, 10, WhenFull::Refuse);
    assert_eq!(refusing.send("0123456789abcdef").unwrap(), Accepted::Queued, "an empty queue takes any");
    assert!(is_full(&refusing));

    let latest = link(3, 10, WhenFull::DropOldest);
    let earliest = link(3, 10, WhenFull::DropNewest);
    for n in 0..3 {
        assert_eq!(latest.send(format!("{n}")).unwrap(), Accepted::Queued);
        assert_eq!(earliest.send(format!("{n}")).unwrap(), Accepted::Queued);
    }
    assert_eq!(latest.send("3").unwrap(), Accepted::Replaced(1));
    assert_eq!(latest.send("9 bytes..").unwrap(), Accepted::Replaced(2), "one may cost several");
    assert_eq!(earliest.send("3").unwrap(), Accepted::Dropped);
    assert_eq!((latest.counts().dropped, latest.counts().queued), (3, 2));
    assert_eq!((earliest.counts().dropped, earliest.counts().queued), (1, 3));
    drop(refusing);

    let peer = absent.comes();
    let next = || {
        loop {
            let mut ws = peer.accept();
            if let Some(text) = next_text(&mut ws) {
                return (text, ws);
            }
            // That was one that is dropped, and was connecting just then.
        }
    };
    let mut both = [next(), next()];
    both.sort_by(|one, other| one.0.cmp(&other.0));
    let [(first, mut gets_earliest), (first_of_latest, mut gets_latest)] = both;
    assert_eq!((first.as_str(), first_of_latest.as_str()), ("0", "3"));
    assert_eq!([hear(&mut gets_earliest), hear(&mut gets_earliest)], ["1", "2"]);
    assert_eq!(hear(&mut gets_latest), "9 bytes..");
}

/// Also while it is connected to a server that takes nothing: then the oldest of those are dropped that are not half sent.
#[test]
fn the_latest_ones_are_kept_for_a_server_that_is_slow() {
    let peer = Peer::new();
    let link = builder(&peer.url()).queue(10, 64 << 20, WhenFull::DropOldest).start().unwrap();
    let mut ws = peer.accept();
    assert!(link.wait_up(PATIENCE));
    const COUNT: usize = 60;
    for n in 0..COUNT {
        let _ = link.send(vec![0; 1_000_000 + n]).unwrap();
        assert!(link.counts().queued <= 11);
    }
    let dropped = link.counts().dropped as usize;
    assert!(dropped > 10, "{dropped}");
    let heard: Vec<_> = (dropped..COUNT).map(|_| number(&hear(&mut ws)) - 1_000_000).collect();
    assert!(heard.is_sorted_by(|one, next| one < next), "{heard:?}");
    assert_eq!(heard[heard.len() - 9..], (COUNT - 9..COUNT).collect::<Vec<_>>());
    eventually("all are known to be sent", || link.counts().sent as usize == COUNT - dropped);
}

#[test]
fn what_a_server_says_about_the_next_attempt_is_heeded_within_bounds() {
    let peer = Peer::new();
    let longest = Duration::from_millis(40);
    let asked = Duration::from_millis(100);
    let start = |client: ClientBuilder| client.reconnecting().delays(SHORT, longest).max_retry_after(asked);
    let link = start(Client::builder(&peer.url())).start().unwrap();
    let begun = Instant::now();
    peer.refuse("503 Later\r\nRetry-After: 3600");
    let (error, retry_in) = failed(&link);
    assert_eq!(error.response().unwrap().retry_after(), Some(Duration::from_secs(3600)));
    assert!(!error.is_lasting() && retry_in >= asked && retry_in <= asked + longest, "{retry_in:?}");
    peer.refuse("429 Later\r\nRetry-After: 0");
    assert!(begun.elapsed() >= asked / 2, "it came back too soon");
    assert!(failed(&link).1 <= longest);
    for status in ["401 No", "404 No", "301 There\r\nLocation: ws://elsewhere/", "200 OK"] {
        peer.refuse(status);
        let (error, retry_in) = failed(&link);
        assert!(
            error.is_lasting() && retry_in >= longest / 2 && retry_in <= longest,
            "{status}: {retry_in:?}"
        );
    }
    peer.refuse("500 Oh");
    assert!(!failed(&link).0.is_lasting());
    for code in [1012, 1013] {
        close(peer.accept(), code);
        let (reason, retry_in) = down(&link);
        assert_eq!(reason.code(), CloseCode(code));
        assert!(retry_in >= longest / 2 && retry_in <= longest, "{retry_in:?}");
    }
    // What waits for long can be told that it need not.
    let patient = Client::builder(&peer.url()).reconnecting().delays(SHORT, Duration::from_secs(86_400));
    drop(link);
    let link = patient.start().unwrap();
    loop {
        let mut stream = peer.accept_tcp();
        if common::read_head(&mut stream).is_empty() {
            continue;
        }
        stream.write_all(b"HTTP/1.1 403 No\r\n\r\n").unwrap();
        drop(stream);
        if link.next_event(PATIENCE / 4).is_some() {
            break;
        }
    }
    assert!(matches!(link.state(), LinkState::Waiting(until) if until > Instant::now() + PATIENCE));
    link.try_now();
    peer.accept();
    up(&link);
}

#[test]
fn the_program_is_asked_before_each_attempt() {
    let (old, new) = (Peer::new(), Peer::new());
    let urls = [old.url(), new.url()];
    let mut asked = 0;
    let (tell, told) = mpsc::channel();
    let link = builder("ws://nobody.invalid/")
        .before_attempt(move |client, attempt| {
            let error = attempt.error.map(ToString::to_string).unwrap_or_default();
            tell.send((attempt.failed, error)).unwrap();
            asked += 1;
            match asked {
                1 => Err("no token".into()),
                2 => panic!("on purpose"),
                _ => {
                    let url = &urls[asked % 2];
                    Ok::<_, Box<dyn std::error::Error + Send + Sync>>(
                        Client::builder(url).header("X-Token", asked.to_string()),
                    )
                }
            }
            .inspect(|_| drop(client))
        })
        .start()
        .unwrap();
    let (error, _) = failed(&link);
    assert!(matches!(&*error, ClientError::Prepare(_)) && error.to_string() == "no token", "{error}");
    assert_eq!(failed(&link).0.to_string(), "it panicked");
    let mut stream = new.accept_tcp();
    assert!(common::read_head(&mut stream).to_lowercase().contains("x-token: 3\r\n"));
    stream.write_all(b"HTTP/1.1 401 Old Token\r\n\r\n").unwrap();
    drop(stream);
    let (error, retry_in) = failed(&link);
    assert!(error.is_lasting() && retry_in <= SHORT, "{error}");
    let mut ws = old.accept();
    up(&link);
    let _ = link.send("hello").unwrap();
    assert_eq!(hear(&mut ws), "hello");
    drop(ws);
    new.accept();
    up(&link);
    let asked: Vec<_> = told.try_iter().collect();
    let failed: Vec<_> = asked.iter().map(|(failed, _)| *failed).collect();
    assert_eq!(failed[..5], [0, 1, 2, 3, 0]);
    assert_eq!((asked[0].1.as_str(), asked[2].1.as_str()), ("", "it panicked"));
    assert!(asked[3].1.contains("401"), "{asked:?}");
}

#[test]
fn a_greeting_goes_first_on_each_connection() {
    let peer = Peer::new();
    let mut times = 0;
    let link = builder(&peer.url())
        .greeting(move |response| {
            assert_eq!(response.status(), 101);
            times += 1;
            ["hello".to_owned(), times.to_string()]
        })
        .start()
        .unwrap();
    for text in ["a", "b"] {
        let _ = link.send(text).unwrap();
    }
    for (round, rest) in [(1, vec!["a", "b"]), (2, vec!["c"])] {
        let mut ws = peer.accept();
        assert_eq!([hear(&mut ws), hear(&mut ws)], ["hello".to_owned(), round.to_string()]);
        for text in rest {
            assert_eq!(hear(&mut ws), text);
        }
        drop(ws);
        down(&link);
        let _ = link.send("c");
    }
    assert!(link.counts().sent <= 4, "greetings do not count");
    drop(link);

    // Without it, nothing else is sent. The peer is another one, as the link may have come back to that one before its drop.
    let peer = Peer::new();
    let mut times = 0;
    let link = builder(&peer.url()).greeting(move |_| {
        times += 1;
        assert!(times > 1, "on purpose");
        ["hello"]
    });
    let link = link.start().unwrap();
    let _ = link.send("a").unwrap();
    assert_eq!(next_text(&mut peer.accept()), None);
    let (error, _) = failed(&link);
    assert!(matches!(&*error, ClientError::Prepare(_)), "{error}");
    let mut ws = peer.accept();
    assert_eq!([hear(&mut ws), hear(&mut ws)], ["hello", "a"]);
}

/// Not what became of the connection before.
#[test]
fn a_close_between_attempts_is_what_is_told() {
    let peer = Peer::new();
    let hour = Duration::from_secs(3600);
    let link = Client::builder(&peer.url()).reconnecting().delays(hour, hour).start().unwrap();
    reset(peer.accept());
    down(&link);
    let _ = link.send("a secret").unwrap();
    link.close(4000, "enough");
    let closed = link.read_message(PATIENCE).unwrap_err();
    assert!(matches!(&closed, Error::Closed(reason) if reason.code().0 == 4000), "{closed}");
    assert!(!format!("{link:?}").contains("secret"));
    assert_eq!(link.finish(PATIENCE), ["a secret"]);
}

#[test]
fn a_server_that_is_silently_gone_is_found_out() {
    let mut limits = Limits::default();
    limits.ping_interval = Some(Duration::from_millis(50));
    limits.ping_timeout = Duration::from_millis(100);
    let peer = Peer::new();
    let link = quick(Client::builder(&peer.url()).limits(limits)).start().unwrap();
    let silent = peer.accept();
    let (reason, _) = down(&link);
    assert_eq!((reason.code().0, reason.text()), (1006, "no answer to a ping"));
    drop(silent);
    let heard = loop {
        let mut ws = peer.accept();
        let _ = link.send("still here").unwrap();
        if let Some(text) = next_text(&mut ws) {
            break text;
        }
        // The test was too slow with its pongs.
    };
    assert_eq!(heard, "still here");
}

#[test]
fn a_server_that_never_answers_delays_the_attempt_but_neither_the_caller_nor_a_drop() {
    let peer = Peer::new();
    let timeout = Duration::from_millis(50);
    let link = quick(Client::builder(&peer.url()).connect_timeout(timeout)).start().unwrap();
    let _silent = peer.accept_tcp();
    let (error, _) = failed(&link);
    assert!(matches!(&*error, ClientError::Timeout(ConnectStep::Handshake)), "{error}");
    drop(link);

    let begun = Instant::now();
    let hour = Duration::from_secs(3600);
    let link = quick(Client::builder(&peer.url()).connect_timeout(hour)).start().unwrap();
    let _also_silent = peer.accept_tcp();
    assert_eq!(link.send("x").unwrap(), Accepted::Queued);
    assert!(link.try_read().unwrap().is_none() && link.try_event().is_none());
    assert_eq!(link.state(), LinkState::Connecting);
    assert_eq!(link.finish(SHORT), ["x"]);
    let idle = quick(Client::builder(&peer.url()).connect_timeout(hour)).start().unwrap();
    let _silent_as_well = peer.accept_tcp();
    assert!(idle.finish(hour).is_empty(), "there is nothing to wait for");
    let slow = quick(Client::builder(&peer.url()).connect_timeout(hour));
    let slow = slow.before_attempt(|_, _| -> Result<ClientBuilder, Error> {
        loop {
            thread::park();
        }
    });
    drop(slow.start().unwrap());
    assert!(begun.elapsed() < PATIENCE);
}

#[test]
fn what_is_queued_is_sent_at_the_end_and_what_is_not_is_given_back() {
    let peer = Peer::new();
    let link = builder(&peer.url()).start().unwrap();
    for n in 0..50 {
        let _ = link.send(n.to_string()).unwrap();
    }
    let hearing = thread::spawn(move || {
        let mut ws = peer.accept();
        let heard = std::iter::from_fn(|| next_text(&mut ws)).count();
        while ws.read().is_ok() {}
        (heard, peer)
    });
    assert!(link.finish(PATIENCE).is_empty());
    let (heard, peer) = hearing.join().unwrap();
    assert_eq!(heard, 50);

    let link = builder(&peer.url()).queue(1000, 1 << 30, WhenFull::Refuse).start().unwrap();
    let ws = peer.accept();
    assert!(link.wait_up(PATIENCE));
    for _ in 0..100 {
        let _ = link.send(vec![0; 1_000_000]).unwrap();
    }
    let unsent = thread::scope(|scope| {
        let late = scope.spawn(|| eventually("nothing more is taken", || link.send("late").is_err()));
        let unsent = link.finish(Duration::from_millis(100));
        late.join().unwrap();
        unsent.iter().filter(|message| **message != "late").count()
    });
    assert!((10..100).contains(&unsent), "{unsent}");
    drop(ws);
}

#[test]
fn a_close_ends_it_for_all_who_use_it() {
    let peer = Peer::new();
    let link = builder(&peer.url()).start().unwrap();
    let mut ws = peer.accept();
    ws.send(Message::text("first")).unwrap();
    ws.send(Message::text("second")).unwrap();
    assert_eq!(link.read_message(PATIENCE).unwrap(), "first");
    eventually("the second has come", || link.counts().unread == 1);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            assert_eq!(link.read_message(PATIENCE).unwrap(), "second");
            link.read_message(PATIENCE)
        });
        let events = scope.spawn(|| while link.next_event(PATIENCE).is_some() {});
        eventually("it is read", || link.counts().unread == 0);
        link.close(4000, "enough");
        loop {
            match ws.read() {
                Ok(Message::Close(frame)) => {
                    assert_eq!(frame.map(|frame| u16::from(frame.code)), Some(4000));
                    let _ = ws.flush();
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        drop(ws);
        let closed = waiting.join().unwrap().unwrap_err();
        assert!(matches!(&closed, Error::Closed(reason) if reason.code().0 == 4000), "{closed}");
        events.join().unwrap();
    });
    assert_eq!(link.state(), LinkState::Ended);
    let error = link.send("late").unwrap_err();
    assert!(matches!(error.kind, PushErrorKind::Closed(_)) && error.message == "late");
    assert!(!link.wait_up(PATIENCE) && link.try_read().unwrap_err().is_closed());
    assert!(link.finish(PATIENCE).is_empty());
}

/// One that only sends must not lose its link because nobody reads what the server says; and that has a bound.
#[test]
fn a_link_that_nobody_reads_comes_up_again() {
    let mut limits = Limits::default();
    limits.max_inbox_messages = 8;
    limits.close_timeout = Duration::from_millis(100); // so long an end waits for what came before it to be read
    let peer = Peer::new();
    let link = quick(Client::builder(&peer.url()).limits(limits)).start().unwrap();
    let mut said = 0;
    for round in 0..3 {
        let mut ws = peer.accept();
        for _ in 0..100 {
            ws.send(Message::text(said.to_string())).unwrap();
            said += 1;
        }
        eventually("there is no room", || link.counts().unread >= 8);
        let _ = link.send(round.to_string()).unwrap();
        assert_eq!(number(&hear(&mut ws)), round);
        reset(ws);
        down(&link);
    }
    peer.accept();
    up(&link);
    let counts = link.counts();
    assert!(counts.unread <= 16, "{counts:?}");
    let mut last = None;
    while let Some(message) = link.try_read().unwrap() {
        let next = number(message.as_text().unwrap());
        assert!(last.is_none_or(|last| last < next));
        last = Some(next);
    }
}

/// Each side sends more than fits between them, and the server does not read on before it has answered.
#[test]
fn what_comes_is_received_while_much_waits_to_be_sent() {
    let mut limits = Limits::default();
    limits.max_message_size = 64 << 20;
    limits.max_frame_size = 64 << 20;
    let server = common::serve(|b| b.limits(limits.clone()).route("/", || app(common::echo)));
    let url = format!("ws://{}/", server.plain);
    let link = quick(Client::builder(&url).limits(limits)).queue(10, 1 << 30, WhenFull::Refuse);
    let link = link.start().unwrap();
    for n in 0..5 {
        let _ = link.send(vec![n; 20 << 20]).unwrap();
    }
    for n in 0..5 {
        let message = link.read_message(PATIENCE).unwrap();
        assert!(message.len() == 20 << 20 && message.as_bytes()[0] == n);
    }
    assert_eq!(link.counts().connected, 1);
}

/// Or nothing behind it would ever be sent.
#[test]
fn a_message_that_no_connection_survives_is_given_up() {
    for code in [Some(1009), None] {
        let peer = Peer::new();
        let link = builder(&peer.url()).queue(10, 1 << 30, WhenFull::Refuse).start().unwrap();
        let _ = link.send(vec![0; 30 << 20]).unwrap();
        let _ = link.send("behind it").unwrap();
        let mut times = 0;
        while link.counts().dropped == 0 {
            times += 1;
            let mut stream = peer.accept();
            // It begins to come, and is not wanted.
            let mut begun = [0; 1000];
            stream.get_mut().read_exact(&mut begun).unwrap();
            if let Some(code) = code {
                let frame = [&[0x88, 2][..], &u16::to_be_bytes(code)].concat();
                stream.get_mut().write_all(&frame).unwrap();
            }
            // After that the reset, which could be faster.
            let (reason, _) = match code {
                Some(_) => down(&link),
                None => {
                    reset(stream);
                    down(&link)
                }
            };
            assert_eq!(reason.code().0, code.unwrap_or(1006));
        }
        assert_eq!(times, if code.is_some() { 1 } else { 5 });
        let mut ws = peer.accept();
        assert_eq!(hear(&mut ws), "behind it");
        eventually("it is known to be sent", || link.counts().queued == 0);
        assert_eq!((link.counts().sent, link.counts().dropped), (1, 1));
    }
}

#[test]
fn over_tls_it_comes_back_to_a_server_that_was_restarted_on_the_same_port() {
    let identity = || TlsIdentity::from_pem_files("certs/server.pem", "certs/server.key").unwrap();
    let serve = |address: &str| {
        Running::new(
            Server::builder()
                .listen_tls(address, identity())
                .route("/", || app(common::echo))
                .route("/shared", || SharedEcho),
        )
    };
    let reserved = Absent::new();
    let address = reserved.1;
    let mut server = serve(&address.to_string());
    for path in ["/", "/shared"] {
        let client = Client::builder(&format!("wss://localhost:{}{path}", address.port()));
        let trusting = client.clone().tls(trust());
        let link = quick(trusting).start().unwrap();
        for round in 0..5 {
            let _ = link.send(format!("{round}")).unwrap();
            assert_eq!(link.read_message(PATIENCE).unwrap(), *round.to_string());
            drop(server);
            let (reason, _) = down(&link);
            assert_eq!(reason.code(), CloseCode::GOING_AWAY, "{reason}");
            let _ = link.send(format!("queued {round}")).unwrap();
            server = serve(&address.to_string());
            assert_eq!(link.read_message(PATIENCE).unwrap(), *format!("queued {round}"));
        }
        assert!(link.finish(PATIENCE).is_empty());
        let doubtful = quick(client).start().unwrap();
        let (error, _) = failed(&doubtful);
        assert!(matches!(&*error, ClientError::Tls(_)) && error.is_lasting(), "{error}");
    }
}

#[test]
fn what_cannot_work_is_refused_before_it_begins() {
    let config = |builder: ReconnectingBuilder, part: &str| match builder.start() {
        Err(ClientError::Config(text)) => assert!(text.contains(part), "{text}"),
        other => panic!("{other:?}"),
    };
    config(Client::builder("http://box/").reconnecting(), "ws://");
    config(builder("ws://box/").delays(Duration::ZERO, SHORT), "first delay");
    config(builder("ws://box/").queue(0, 10, WhenFull::Refuse), "room for one");
    config(quick(Client::builder("ws://box/").header("Upgrade", "x")), "handshake");
}

#[test]
fn threads_and_descriptors_do_not_leak() {
    if !is_alone("threads_and_descriptors_do_not_leak") {
        return;
    }
    let peer = Peer::new();
    // What is made once, such as the gateway's for its process.
    let link = builder(&peer.url()).start().unwrap();
    drop(peer.accept());
    up(&link);
    drop(link);
    let threads = || count("/proc/self/task");
    let descriptors = || count("/proc/self/fd");
    let mut before = (0, 0);
    eventually("it has ended", || {
        let now = (threads(), descriptors());
        thread::sleep(Duration::from_millis(100));
        std::mem::replace(&mut before, now) == now && now.0 <= 2
    });
    let most = AtomicUsize::new(0);
    for round in 0..30 {
        let links: Vec<_> = (0..10).map(|_| builder(&peer.url()).start().unwrap()).collect();
        for _ in 0..10 + round % 3 {
            match round % 3 {
                0 => reset(peer.accept()),
                1 => drop(peer.accept()),
                _ => peer.refuse("500 Oh"),
            }
        }
        most.fetch_max(threads(), SeqCst);
        drop(links);
    }
    let most = most.load(SeqCst);
    assert!(most >= before.0 + 10, "they were never seen: {most}");
    // Those that are still being connected to get an end.
    drop(peer);
    eventually("all threads have ended", || threads() <= before.0);
    eventually("all descriptors are closed", || descriptors() < before.1); // the listener is gone as well
}

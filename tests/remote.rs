//! A hub in another process is as one's own: the same calls, answers and errors, over each kind of link. What happens when the link is
//! lost is in unreachable.rs.
#![cfg(all(feature = "__tls", feature = "manage", feature = "remote"))]
mod common;

use std::{
    fmt::Debug,
    io::Write,
    os::unix::net::UnixListener,
    sync::{Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use common::{
    Client, PATIENCE, Scheme, Stream, app, assert_echoes, echo, eventually,
    folder::Folder,
    full_app, identity,
    managed::{self, READ_TOKEN, TOKEN},
    member::members,
    next_message, read_close,
};
use switchboard::{
    Audience, Broadcast, Error, Handled, History, Hub, HubError, Limits, Message, Opening, OverLimit,
    Payload, Publication, PushError, PushErrorKind, Pushed, Refusal, Server, ServerResult, Since, StatusCode,
    TlsTrust, WebSocket, WebSocketId, WebSocketServer,
};

/// How a hub reaches its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Local,
    Unix,
    ReadOnly,
    Tcp,
    Tls,
}

/// A server that can be managed in all ways, and hubs of it.
struct Managed(managed::Managed);

impl Managed {
    fn new() -> Self {
        let mut limits = Limits::default();
        limits.max_topic_name = 20;
        let folder = Folder::new();
        let builder = members(Server::builder().listen("127.0.0.1:0").listen_tls("127.0.0.1:0", identity()))
            .route("/sync/*", || app(echo))
            .route("/leave", || app(|_| Ok(())))
            .route("/unread", || Unread)
            .route("/slow", || Slow)
            .history("news", History::new(10, Duration::from_secs(3600)))
            .limits(limits)
            .manage(managed::in_all_ways(&folder));
        Self(managed::Managed { server: builder.bind().unwrap().spawn().unwrap(), folder })
    }

    fn url(&self, way: Way) -> String {
        match way {
            Way::Unix => format!("unix:{}", self.0.folder.path("all")),
            Way::ReadOnly => format!("unix:{}", self.0.folder.path("read")),
            Way::Tcp => format!("http://{}", self.0.tcp(1)),
            Way::Tls => format!("https://localhost:{}", self.0.tcp(2).port()),
            Way::Local => unreachable!("it has no URL"),
        }
    }

    fn hub(&self, way: Way) -> Hub {
        let builder = Hub::builder().answer_timeout(PATIENCE);
        match way {
            Way::Local => self.0.hub(),
            Way::Unix | Way::ReadOnly => builder.connect(&self.url(way)).unwrap(),
            Way::Tcp => builder.token(TOKEN).connect(&self.url(way)).unwrap(),
            Way::Tls => builder.token(TOKEN).tls(trust()).connect(&self.url(way)).unwrap(),
        }
    }

    /// A client, and the ID of its connection, which is open.
    fn client(&self, path: &str) -> (Client, WebSocketId) {
        let (client, id) = self.0.client(path);
        (client, id.parse().unwrap())
    }
}

fn trust() -> TlsTrust {
    TlsTrust::ca_file("certs/ca.pem").unwrap()
}

/// A shared connection whose messages are all left to be read.
struct Unread;

impl WebSocketServer for Unread {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        opening.set_shared_connection(true);
        opening.set_tag("kind", "unread")?;
        Ok(())
    }

    fn server(&mut self, _ws: &mut WebSocket) -> ServerResult {
        Ok(())
    }
}

/// The ID is told, with a gate: the handshake goes on when that is dropped.
struct Slow;

type Gate = mpsc::Sender<()>;

static SLOW: Mutex<Option<mpsc::Sender<(WebSocketId, Gate)>>> = Mutex::new(None);

impl WebSocketServer for Slow {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        let (gate, opened) = mpsc::channel();
        let tell = SLOW.lock().unwrap().clone().unwrap();
        tell.send((*opening.websocket_id(), gate)).unwrap();
        let _ = opened.recv_timeout(PATIENCE);
        opening.set_shared_connection(true);
        if opening.request().query_value("refuse").is_some() {
            Err(StatusCode::FORBIDDEN.into())
        } else {
            Ok(())
        }
    }

    fn server(&mut self, _ws: &mut WebSocket) -> ServerResult {
        Ok(())
    }
}

// The same calls.

/// Clients and their connections, and the hub that is tried.
struct Scene {
    clients: Vec<(&'static str, Client, WebSocketId)>,
    hub: Hub,
    managed: Managed,
}

const CLIENTS: [(&str, &str); 5] = [
    ("ada", "/?users=ada&topics=room"),
    ("bob", "/?users=bob&topics=room,hall"),
    ("two", "/?users=ada&topics=hall"),
    ("shared", "/shared?users=eve"),
    ("unread", "/unread"),
];

impl Scene {
    fn new(way: Way) -> Self {
        let managed = Managed::new();
        let hub = managed.hub(way);
        let clients = CLIENTS.map(|(name, path)| {
            let (client, id) = managed.client(path);
            (name, client, id)
        });
        let mut this = Self { managed, hub, clients: clients.into() };
        for name in ["ada", "bob", "two"] {
            assert_echoes(this.client(name), "echo");
        }
        this
    }

    fn id(&self, name: &str) -> WebSocketId {
        self.clients.iter().find(|client| client.0 == name).unwrap().2
    }

    fn client(&mut self, name: &str) -> &mut Client {
        &mut self.clients.iter_mut().find(|client| client.0 == name).unwrap().1
    }

    /// What the client gets next.
    fn hears(&mut self, name: &str) -> String {
        next_message(self.client(name)).to_string()
    }

    /// As text, in which IDs are names, and positions have no epoch.
    fn shown(&self, result: impl Debug) -> String {
        let mut text = format!("{result:?}").replace("Ok(Sent)", "Ok(Queued)");
        for (name, _, id) in &self.clients {
            text = text.replace(id.as_str(), name).replace(&format!("WebSocketId({}…)", id.short()), name);
        }
        let mut parts = text.split("Position(");
        let mut shown = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            shown.push_str("Position(…");
            shown.push_str(part.split_once(':').map_or(part, |(_, rest)| rest));
        }
        shown
    }

    /// The IDs as names, in an order of their own.
    fn names(&self, ids: impl IntoIterator<Item = WebSocketId>) -> String {
        let name = |id: WebSocketId| self.clients.iter().find(|client| client.2 == id).unwrap().0;
        let mut names: Vec<_> = ids.into_iter().map(name).collect();
        names.sort_unstable();
        names.join(" ")
    }
}

type Call = fn(&mut Scene) -> String;

/// What nobody has.
fn nobody() -> WebSocketId {
    "AAAAAAAAAAAAAAAAAAAAAA".parse().unwrap()
}

/// Counts, of which it depends on the moment whether it was sent or queued.
fn reached(broadcast: Broadcast) -> String {
    format!(
        "{} reached, {} dropped, {} gone",
        broadcast.sent + broadcast.queued,
        broadcast.dropped,
        broadcast.gone
    )
}

/// All methods of a hub, in an order: what one does, the next ones see.
#[rustfmt::skip]
const CALLS: &[(&str, Call)] = &[
    ("push text", |s| { let r = s.hub.push(&s.id("ada"), "täxt"); s.shown(r) + &s.hears("ada") }),
    ("push binary", |s| { let r = s.hub.push(&s.id("ada"), vec![0, 255]); s.shown(r) + &format!("{:?}", next_message(s.client("ada"))) }),
    ("push nothing", |s| { let r = s.hub.push(&s.id("ada"), ""); s.shown(r) + &s.hears("ada") }),
    ("push much", |s| { let r = s.hub.push(&s.id("ada"), "x".repeat(900_000)); s.shown(r) + &s.hears("ada").len().to_string() }),
    ("push newest", |s| { let r = s.hub.push(&s.id("ada"), Payload::newest("key", "41 %")); s.shown(r) + &s.hears("ada") }),
    ("push to nobody", |s| { let r = s.hub.push(&nobody(), "back"); s.shown(r) }),
    ("push_wait", |s| { let r = s.hub.push_wait(&s.id("ada"), "wait", PATIENCE); s.shown(r) + &s.hears("ada") }),
    ("push_wait to nobody", |s| { let r = s.hub.push_wait(&nobody(), "back", PATIENCE); s.shown(r) }),
    ("push_all", |s| {
        let ids = [s.id("ada"), nobody(), s.id("bob"), s.id("ada")];
        let r = s.hub.push_all(ids.iter().zip(["1", "2", "3", "4"]));
        s.shown(r) + &s.hears("ada") + &s.hears("ada") + &s.hears("bob")
    }),
    ("push_all of nothing", |s| { let r = s.hub.push_all(Vec::<(WebSocketId, &str)>::new()); s.shown(r) }),
    ("pusher", |s| {
        let pusher = s.hub.pusher(&s.id("bob")).unwrap();
        let r = (pusher.push("p"), pusher.push_wait("q", PATIENCE), *pusher.websocket_id(), pusher.close_reason());
        s.shown(r) + &s.hears("bob") + &s.hears("bob")
    }),
    ("pusher of nobody", |s| { let r = s.hub.pusher(&nobody()).map(drop); s.shown(r) }),
    ("broadcast to all", |s| {
        let r = s.hub.broadcast(Audience::All, "all").map(reached);
        s.shown(r) + &["ada", "bob", "two", "shared", "unread"].map(|name| s.hears(name)).concat()
    }),
    ("broadcast to a path", |s| { let r = s.hub.broadcast(Audience::Path("/unread"), "path").map(reached); s.shown(r) + &s.hears("unread") }),
    ("broadcast to a route", |s| { let r = s.hub.broadcast(Audience::Route("/sync/*"), "route").map(reached); s.shown(r) }),
    ("broadcast to a topic but one", |s| {
        let id = s.id("ada");
        let r = s.hub.broadcast(Audience::Topic("room").except(&id), Payload::newest("k", "topic")).map(reached);
        s.shown(r) + &s.hears("bob")
    }),
    ("push_user", |s| { let r = s.hub.push_user("ada", "user").map(reached); s.shown(r) + &s.hears("ada") + &s.hears("two") }),
    ("publish", |s| { let r = s.hub.publish("hall", "hall").map(|p| (reached(p.broadcast), p.position, p.duplicate)); s.shown(r) + &s.hears("bob") + &s.hears("two") }),
    ("publish to what remembers", |s| { let r = s.hub.publish("news", Publication::new("n1").idempotency_key("k")); s.shown(r) }),
    ("publish again", |s| { let r = s.hub.publish("news", Publication::new("n1").idempotency_key("k")); s.shown(r) }),
    ("publish with a key elsewhere", |s| { let r = s.hub.publish("room", Publication::new("x").idempotency_key("k")); s.shown(r) }),
    ("publish with a long key", |s| { let r = s.hub.publish("news", Publication::new("x").idempotency_key("k".repeat(129))); s.shown(r) }),
    ("connection", |s| {
        let info = s.hub.connection(&s.id("bob")).unwrap();
        let times = (info.age < PATIENCE, info.idle < PATIENCE, info.since.elapsed().unwrap() < PATIENCE, info.last_active.elapsed().unwrap() < PATIENCE);
        let peer = info.peer.map(|peer| peer.ip());
        s.shown((info.id, &info.path, &info.route, peer, info.client_address, &info.user_agent, &info.user, &info.tags))
            + &s.shown((times, info.shared, info.queued, info.messages_in, info.messages_out, info.bytes_in, info.round_trip))
    }),
    ("connection of nobody", |s| { let r = s.hub.connection(&nobody()).map(drop); s.shown(r) }),
    ("tags", |s| { let r = s.hub.connection(&s.id("unread")).map(|info| info.tags); s.shown(r) }),
    ("certificates", |s| { let r = s.hub.certificates(); s.shown(r) }),
    ("len", |s| { let r = (s.hub.len(), s.hub.is_empty()); s.shown(r) }),
    ("join", |s| { let r = s.hub.join(&s.id("ada"), "cellar"); s.shown(r) }),
    ("join of nobody", |s| { let r = s.hub.join(&nobody(), "cellar"); s.shown(r) }),
    ("join with a long name", |s| { let r = s.hub.join(&s.id("ada"), &"x".repeat(21)); s.shown(r) }),
    ("join_since", |s| {
        let r = s.hub.join_since(&s.id("two"), "news", Since::NOTHING);
        let first = s.hears("two");
        s.shown(r) + first.split_once(':').unwrap().1 + s.hears("two").split_once(':').unwrap().1
    }),
    ("join_since now", |s| { let r = s.hub.join_since(&s.id("bob"), "news", Since::NOW).map(|r| r.missed); s.shown(r) + s.hears("bob").split_once(':').unwrap().1 }),
    ("join_since what forgets", |s| { let r = s.hub.join_since(&s.id("ada"), "room", Since::NOW); s.shown(r) }),
    ("topics_of", |s| { let r = s.hub.topics_of(&s.id("ada")); s.shown(r) }),
    ("topics_of nobody", |s| { let r = s.hub.topics_of(&nobody()); s.shown(r) }),
    ("leave", |s| { let r = (s.hub.leave(&s.id("ada"), "cellar"), s.hub.leave(&s.id("ada"), "never"), s.hub.leave(&nobody(), "cellar")); s.shown(r) }),
    ("connections", |s| {
        let first = s.hub.connections(Audience::All, None, 3).unwrap();
        let second = s.hub.connections(Audience::All, first.next.as_ref(), 3).unwrap();
        let numbers = (first.items.len(), second.items.len(), second.next);
        s.names(first.items.iter().chain(&second.items).map(|info| info.id)) + &s.shown(numbers)
    }),
    ("all_connections", |s| { let all: Vec<_> = s.hub.all_connections(Audience::User("ada")).map(|info| info.unwrap().id).collect(); s.names(all) }),
    ("members", |s| { let page = s.hub.members("hall", None, 0).unwrap(); s.names(page.items) + &s.shown(page.next) }),
    ("all_members", |s| { let all: Vec<_> = s.hub.all_members("room").map(Result::unwrap).collect(); s.names(all) }),
    ("topics", |s| { let r = s.hub.topics(Some("hall"), 1); s.shown(r) }),
    ("all_topics", |s| { let all: Vec<_> = s.hub.all_topics().map(Result::unwrap).collect(); s.shown(all) }),
    ("presence", |s| { let r = s.hub.presence("room", None, 1); s.shown(r) }),
    ("all_present", |s| { let all: Vec<_> = s.hub.all_present("hall").map(Result::unwrap).collect(); s.shown(all) }),
    ("open what is not shared", |s| { let r = s.hub.open_server(&s.id("ada")).map(drop); s.shown(r) }),
    ("open nobody", |s| { let r = s.hub.open_server(&nobody()).map(drop); s.shown(r) }),
    ("open", |s| {
        let ws = s.hub.open_server(&s.id("shared")).unwrap();
        let names = (*ws.websocket_id(), ws.path(), ws.route(), ws.path_tail(), ws.subprotocol(), ws.user(), ws.session_id().is_some());
        let rest = (ws.peer().map(|peer| peer.ip()), ws.client_address(), ws.tags().clone(), ws.topics(), ws.at_end(), ws.close_reason());
        let flags = (ws.binary_data(), ws.session_end_on_close(), ws.session().is_none(), ws.request().is_none());
        s.shown(names) + &s.shown(rest) + &s.shown(flags)
    }),
    ("a hub of what was opened", |s| { let ws = s.hub.open_server(&s.id("shared")).unwrap(); let r = ws.hub().len(); s.shown(r) }),
    ("binary data", |s| {
        let ws = s.hub.open_server(&s.id("shared")).unwrap();
        ws.set_binary_data(true);
        let other = s.hub.open_server(&s.id("shared")).unwrap();
        s.shown((ws.binary_data(), other.binary_data()))
    }),
    ("write", |s| {
        let ws = s.hub.open_server(&s.id("unread")).unwrap();
        let first = (ws.write("text"), ws.write(b"bytes"), ws.write(&[255]), ws.flush());
        ws.set_binary_data(true);
        let second = (ws.binary_data(), ws.write("binary"), ws.write(Message::from("text")));
        let heard: Vec<_> = (0..4).map(|_| next_message(s.client("unread"))).collect();
        s.shown(first) + &s.shown(second) + &format!("{heard:?}")
    }),
    ("read", |s| {
        let ws = s.hub.open_server(&s.id("unread")).unwrap();
        let nothing = (ws.read(0, Duration::ZERO), ws.try_read(0), ws.read_message(Duration::from_millis(20)));
        for message in ["größe", "second", "third"] {
            s.client("unread").send(message.into()).unwrap();
        }
        let first = (ws.read(3, PATIENCE), ws.at_end(), ws.read_message(PATIENCE), ws.at_end());
        let second = ws.read_delivery(2, PATIENCE).unwrap();
        let is_piece = (second.as_text().unwrap() == "se", second.at_end(), ws.at_end(), second.redelivered());
        drop(second);
        let again = ws.read_delivery(usize::MAX, PATIENCE).unwrap();
        let is_again = (again.at_end(), again.redelivered(), again.ack());
        let third = ws.messages().next();
        s.shown(nothing) + &s.shown(first) + &s.shown(is_piece) + &s.shown(is_again) + &s.shown(third)
    }),
    ("read what waits for a message", |s| {
        let ws = s.hub.open_server(&s.id("unread")).unwrap();
        thread::scope(|scope| {
            let read = scope.spawn(|| ws.read_message(PATIENCE));
            thread::sleep(Duration::from_millis(50));
            s.client("unread").send("late".into()).unwrap();
            let r = read.join().unwrap();
            s.shown(r)
        })
    }),
    ("topics of what was opened", |s| {
        let ws = s.hub.open_server(&s.id("shared")).unwrap();
        let r = (ws.join("room"), ws.join(""), ws.topics(), ws.leave("room"), ws.topics(), ws.join_since("news", Since::NOW).map(|r| r.recovered));
        s.shown(r) + s.hears("shared").split_once(':').unwrap().1
    }),
    ("session_end_on_close", |s| {
        let ws = s.hub.open_server(&s.id("shared")).unwrap();
        ws.set_session_end_on_close(true);
        let other = s.managed.0.hub().open_server(&s.id("shared")).unwrap();
        let r = (ws.session_end_on_close(), other.session_end_on_close());
        s.shown(r)
    }),
    ("end_server", |s| {
        let ws = s.hub.open_server(&s.id("shared")).unwrap();
        ws.end_server();
        let after = (ws.write("x"), ws.read(0, PATIENCE), ws.close_reason());
        s.shown(after) + &format!("{:?}", read_close(s.client("shared")))
    }),
    ("close", |s| {
        let pusher = s.hub.pusher(&s.id("two")).unwrap();
        let r = s.hub.close(&s.id("two"), 4001, "gö");
        let closed = read_close(s.client("two"));
        eventually("it is closing", || pusher.push("x").is_err());
        s.shown(r) + &s.shown(pusher.push("x")) + &s.shown(pusher.close_reason()) + &s.shown(closed)
    }),
    ("pusher of what has been forgotten", |s| {
        let (mut client, id) = s.managed.client("/");
        let pusher = s.hub.pusher(&id).unwrap();
        s.hub.close(&id, 4001, "gone").unwrap();
        read_close(&mut client);
        let mut reason = None;
        eventually("it is closing", || { reason = pusher.close_reason(); reason.is_some() });
        drop(client);
        eventually("its ID is unknown", || s.hub.pusher(&id).is_err());
        format!("{:?}", (reason, pusher.close_reason(), pusher.push("x")))
    }),
    ("close nobody", |s| { let r = s.hub.close(&nobody(), 1000, ""); s.shown(r) }),
    ("close of what waits in a read", |s| {
        let ws = s.hub.open_server(&s.id("unread")).unwrap();
        thread::scope(|scope| {
            let read = scope.spawn(|| ws.read_message(PATIENCE));
            thread::sleep(Duration::from_millis(50));
            let r = s.hub.close(&s.id("unread"), 4002, "enough");
            let closed = read_close(s.client("unread"));
            let read = read.join().unwrap();
            s.shown(r) + &s.shown(read) + &s.shown(closed)
        })
    }),
    ("close_all", |s| {
        let id = s.id("ada");
        let r = s.hub.close_all(Audience::Topic("room").except(&id), 4003, "all");
        s.shown(r) + &format!("{:?}", read_close(s.client("bob")))
    }),
    ("close_user", |s| { let r = s.hub.close_user("ada", 1000, ""); s.shown(r) + &format!("{:?}", read_close(s.client("ada"))) }),
];

#[test]
fn each_call_does_what_it_does_in_ones_own_process() {
    let run = |way| {
        let mut scene = Scene::new(way);
        let run = |(name, call): &(&'static str, Call)| (*name, call(&mut scene));
        CALLS.iter().map(run).collect::<Vec<_>>()
    };
    let local = run(Way::Local);
    for way in [Way::Unix, Way::Tcp, Way::Tls] {
        for (here, there) in local.iter().zip(run(way)) {
            assert_eq!(*here, there, "{way:?}");
        }
    }
}

/// What a call says that mostly waits when the gate is opened.
fn while_it_opens<T>(gate: Gate, call: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        scope.spawn(move || {
            thread::sleep(Duration::from_millis(100));
            drop(gate);
        });
        call()
    })
}

#[test]
fn what_is_for_a_connection_that_is_being_opened_waits_for_it() {
    let managed = Managed::new();
    let (tell, told) = mpsc::channel();
    *SLOW.lock().unwrap() = Some(tell);
    let address = managed.0.server.local_addrs()[0].tcp().unwrap();
    for way in [Way::Local, Way::Unix] {
        let hub = managed.hub(way);
        let connect = |path: &str| {
            let url = format!("ws://{address}{path}");
            let connect =
                move || tungstenite::client(url, Stream::connect(address, Scheme::Ws)).map_err(drop);
            thread::spawn(connect)
        };
        let client = connect("/slow");
        let (id, gate) = told.recv_timeout(PATIENCE).unwrap();
        assert_eq!(hub.push(&id, "ahead").unwrap(), Pushed::Queued);
        let ws = while_it_opens(gate, || hub.open_server(&id)).unwrap();
        ws.write("open").unwrap();
        let mut client = client.join().unwrap().unwrap().0;
        assert_eq!(
            [next_message(&mut client), next_message(&mut client)].map(|m| m.to_string()),
            ["ahead", "open"]
        );

        eventually("it is refused while one waits", || {
            let refused = connect("/slow?refuse");
            let (id, gate) = told.recv_timeout(PATIENCE).unwrap();
            let waits = while_it_opens(gate, || hub.push_wait(&id, "never", PATIENCE)).map_err(|e| e.kind);
            assert!(refused.join().unwrap().is_err());
            assert!(matches!(hub.open_server(&id), Err(Error::UnknownId)));
            let is_late = matches!(waits, Err(PushErrorKind::Unknown));
            assert!(is_late || matches!(waits, Err(PushErrorKind::Refused)), "{way:?}: {waits:?}");
            !is_late
        });

        // The answer comes later than the wait.
        let client = connect("/slow");
        let (id, gate) = told.recv_timeout(PATIENCE).unwrap();
        let waits = hub.push_wait(&id, "back", Duration::from_millis(20)).unwrap_err();
        assert!(
            matches!(waits.kind, PushErrorKind::Timeout) && waits.message == "back",
            "{way:?}: {waits:?}"
        );
        drop(gate);
        client.join().unwrap().unwrap();
    }
    *SLOW.lock().unwrap() = None;
}

#[test]
fn who_may_only_read_is_told_so() {
    let managed = Managed::new();
    let (_client, id) = managed.client("/unread");
    let by_token = Hub::builder().token(READ_TOKEN).connect(&managed.url(Way::Tcp)).unwrap();
    for hub in [managed.hub(Way::ReadOnly), by_token] {
        assert_eq!((hub.len().unwrap(), hub.connection(&id).unwrap().id), (1, id));
        let error = hub.push(&id, "back").unwrap_err();
        assert!(matches!(error.kind, PushErrorKind::Forbidden) && error.message == "back", "{error:?}");
        assert!(hub.push_all([(id, "1"), (id, "2")]).iter().all(Result::is_err));
        for result in [
            hub.close(&id, 1000, ""),
            hub.broadcast(Audience::All, "x").map(drop),
            hub.join(&id, "room"),
            hub.open_server(&id).map(drop),
        ] {
            assert!(matches!(result, Err(Error::Forbidden)), "{result:?}");
        }
    }
}

#[test]
fn a_message_that_is_too_long_for_a_link_comes_back() {
    let managed = Managed::new();
    let (mut client, id) = managed.client("/unread");
    let hub = managed.hub(Way::Unix);
    let long = Message::from(vec![7; 80 << 20]);
    for error in [
        hub.push(&id, &long).unwrap_err(),
        hub.push_wait(&id, &long, PATIENCE).unwrap_err(),
        hub.push_all([(id, &long)]).remove(0).unwrap_err(),
    ] {
        let PushError { kind, message, .. } = error;
        assert!(matches!(kind, PushErrorKind::OverLimit(OverLimit::Message)) && message == long, "{kind:?}");
    }
    let mixed = hub.push_all([(id, Message::from("1")), (id, long.clone()), (id, Message::from("2"))]);
    assert_eq!(mixed.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!([next_message(&mut client), next_message(&mut client)].map(|m| m.to_string()), ["1", "2"]);
    let ws = hub.open_server(&id).unwrap();
    assert!(matches!(ws.write(&long), Err(Error::OverLimit(OverLimit::Message))));
    assert!(matches!(hub.broadcast(Audience::All, &long), Err(Error::OverLimit(OverLimit::Message))));
    ws.write("all goes on").unwrap();
}

#[test]
fn many_at_once_keep_their_order_and_get_their_own_results() {
    let managed = Managed::new();
    let clients: Vec<_> = (0..4).map(|_| managed.client("/unread")).collect();
    let hub = managed.hub(Way::Unix);
    // Several together, one that is longer than what goes together, and as many requests as may be unanswered and more.
    let messages: Vec<_> = (0..3000_usize)
        .map(|n| {
            let id = if n % 7 == 6 { nobody() } else { clients[n % 4].1 };
            (id, format!("{n} {}", "x".repeat(if n % 500 == 3 { 100_000 } else { n % 60 })))
        })
        .collect();
    thread::scope(|scope| {
        let readers: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(k, (mut client, _))| {
                let expected: Vec<_> = (0..3000).filter(|n| n % 7 != 6 && n % 4 == k).collect();
                scope.spawn(move || {
                    for n in expected {
                        let text = next_message(&mut client).to_string();
                        assert_eq!(text.split_once(' ').unwrap().0, n.to_string());
                    }
                })
            })
            .collect();
        let mut results = Vec::new();
        // No more than a queue takes: the clients are read from meanwhile.
        for part in messages.chunks(1500) {
            results.extend(hub.push_all(part.iter().map(|(id, text)| (id, text))));
        }
        for (n, result) in results.iter().enumerate() {
            match result {
                Ok(_) => assert_ne!(n % 7, 6),
                Err(e) => assert!(n % 7 == 6 && matches!(e.kind, PushErrorKind::Unknown), "{n}: {e:?}"),
            }
        }
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
}

#[test]
fn a_thread_that_must_not_wait_is_told_so() {
    static HUB: Mutex<Option<Hub>> = Mutex::new(None);
    struct Asks;
    impl WebSocketServer for Asks {
        fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
            opening.set_shared_connection(true);
            Ok(())
        }

        fn server(&mut self, _ws: &mut WebSocket) -> ServerResult {
            Ok(())
        }

        fn on_client_message(&mut self, ws: &WebSocket, _: switchboard::Message) -> Handled {
            let hub = HUB.lock().unwrap().clone().unwrap();
            let id = ws.websocket_id();
            let all = (
                hub.push(id, "x").map_err(|e| e.kind),
                hub.push_wait(id, "x", PATIENCE).map_err(|e| e.kind),
                hub.push_all([(id, "x")]).remove(0).map_err(|e| e.kind),
                hub.len(),
                hub.open_server(id).map(drop),
                Hub::connect("unix:/nowhere").map(drop),
            );
            let _ = ws.write(format!("{all:?}"));
            Handled::Yes
        }
    }
    let managed = Managed::new();
    *HUB.lock().unwrap() = Some(managed.hub(Way::Unix));
    let mut limits = Limits::default();
    limits.workers = 0;
    let server = Server::builder().listen("127.0.0.1:0").limits(limits).route("/", || Asks).bind().unwrap();
    let server = server.spawn().unwrap();
    let address = server.local_addrs()[0].tcp().unwrap();
    let url = format!("ws://{address}/");
    let mut client = tungstenite::client(url, Stream::connect(address, Scheme::Ws)).unwrap().0;
    client.send("ask".into()).unwrap();
    let text = next_message(&mut client).to_string();
    assert_eq!(
        text,
        "(Err(MustNotWait), Err(MustNotWait), Err(MustNotWait), Err(MustNotWait), Err(MustNotWait), Err(Connect(MustNotWait)))"
    );
    drop(client);
    *HUB.lock().unwrap() = None;
}

// Connecting.

/// Why there is no hub: which kind of error, and its text.
fn refusal(result: Result<Hub, HubError>) -> (&'static str, String) {
    let error = result.unwrap_err();
    let kind = match &error {
        HubError::Config(_) => "config",
        HubError::Denied(_) => "denied",
        HubError::NoHub(_) => "no hub",
        HubError::Connect(_) => "connect",
        _ => "another",
    };
    assert_eq!(error.is_lasting(), kind != "connect" || error.to_string().contains("certificate"), "{error}");
    (kind, error.to_string())
}

fn assert_refused(result: Result<Hub, HubError>, kind: &str, part: &str) {
    let (is, text) = refusal(result);
    assert!(is == kind && text.contains(part) && !text.contains('\n'), "{is}: {text}");
    assert!(!text.contains(TOKEN) && !text.contains("wrong-token"), "{text}");
}

#[test]
fn what_keeps_a_hub_from_being_connected_is_said_with_what_to_do() {
    let managed = Managed::new();
    let tcp = managed.url(Way::Tcp);
    assert_refused(Hub::connect("unix:/nowhere/at/all"), "connect", "does the server run");
    assert_refused(Hub::connect("http://127.0.0.1:1"), "connect", "does the server run");
    assert_refused(Hub::connect(&tcp), "denied", "HubBuilder::token_file");
    assert_refused(Hub::builder().token("wrong-token-of-16").connect(&tcp), "denied", "refuses the token");
    assert_refused(Hub::builder().token("two\nlines").connect(&tcp), "config", "");
    assert_refused(Hub::builder().token_file("/nowhere").connect(&tcp), "config", "/nowhere");
    assert_refused(Hub::builder().token("").connect(&tcp), "config", "empty");
    assert_refused(
        Hub::builder().token_file("/dev/null").connect(&tcp),
        "config",
        "/dev/null: the file is empty",
    );
    assert_refused(Hub::connect("/run/box.sock"), "config", "unix:/path");
    assert_refused(Hub::builder().token(TOKEN).connect("http://192.0.2.1:1"), "config", "in the clear");
    assert_refused(Hub::builder().token(TOKEN).connect(&managed.url(Way::Tls)), "connect", "certificate");
    // Its clients' own addresses.
    let public = |n: usize| managed.0.server.local_addrs()[n].tcp().unwrap();
    assert_refused(Hub::connect(&format!("http://{}", public(0))), "no hub", "404");
    let tls = Hub::builder().tls(trust());
    assert_refused(tls.connect(&format!("https://localhost:{}", public(1).port())), "no hub", "404");
    assert_refused(Hub::connect(&format!("http://{}", public(1))), "no hub", "");
}

#[test]
fn a_token_is_read_from_its_file() {
    let managed = Managed::new();
    let file = managed.0.folder.write("token", format!("{TOKEN}\n"));
    let hub = Hub::builder().token_file(file).connect(&managed.url(Way::Tcp)).unwrap();
    assert_eq!(hub.len().unwrap(), 0);
    let shown = format!("{:?} {hub:?}", Hub::builder().token(TOKEN));
    assert!(!shown.contains(TOKEN) && shown.contains("127.0.0.1"), "{shown}");
}

#[test]
fn what_is_no_management_listener_is_told_apart() {
    let folder = Folder::new();
    // A WebSocket server with something at the path of links: without the subprotocol, and with it and another first message.
    let speaks = |first: &'static [u8]| {
        full_app(
            |opening: &mut Opening| {
                opening.choose_subprotocol(&["switchboard.hub.1"]);
                Ok(())
            },
            move |ws: &mut WebSocket| {
                ws.write(first)?;
                echo(ws)
            },
            |_| {},
        )
    };
    let server = Server::builder()
        .listen(format!("unix:{}", folder.path("echo")))
        .route("/@hub", || app(echo))
        .bind()
        .unwrap()
        .spawn()
        .unwrap();
    let talks = Server::builder()
        .listen(format!("unix:{}", folder.path("talks")))
        .route("/@hub", move || speaks(b"I am no hub"))
        .bind()
        .unwrap()
        .spawn()
        .unwrap();
    let url = |name: &str| format!("unix:{}", folder.path(name));
    let connect = |name: &str| Hub::connect(&url(name));
    assert_refused(connect("echo"), "no hub", "subprotocol");
    assert_refused(connect("talks"), "no hub", "says something else");
    // One that only listens, one that ends each connection, and one that says anything.
    let _silent = UnixListener::bind(folder.path("silent")).unwrap();
    let begun = Instant::now();
    let hasty = Hub::builder().connect_timeout(Duration::from_millis(300));
    assert_refused(hasty.connect(&url("silent")), "connect", "timed out");
    assert!(begun.elapsed() < PATIENCE);
    for (name, answer) in [
        ("ends", &b""[..]),
        ("garbage", b"220 box.example ESMTP\r\n\r\n"),
        ("page", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"),
    ] {
        let listener = UnixListener::bind(folder.path(name)).unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                common::read_head(&mut stream);
                let _ = stream.write_all(answer);
            }
        });
        assert_refused(connect(name), if name == "ends" { "connect" } else { "no hub" }, "");
    }
    drop((server, talks));
}

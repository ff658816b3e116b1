//! Who gets what: routes, topics that are joined before the connection is open, those that are excepted; and how many topics
//! there may be.
#![cfg(feature = "__tls")]
mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use common::{
    Client, PATIENCE, SCHEMES, Scheme, SharedEcho, Until, app, assert_echoes, connections, echo, eventually,
    full_app, next_message, read_close, serve,
};
use switchboard::{
    Audience, Broadcast, Closed, Error, Handled, Hub, Limits, Message, Opening, OverLimit, Refusal,
    ServerResult, StatusCode, WebSocket, WebSocketId, WebSocketServer,
};
use tungstenite::Message as Sent;

fn reached(result: Broadcast) -> usize {
    assert_eq!((result.dropped, result.gone), (0, 0));
    result.sent + result.queued
}

fn topics(hub: &Hub) -> Vec<(String, usize)> {
    let topics = hub.all_topics().map(Result::unwrap);
    topics.map(|topic| (topic.name.to_string(), topic.members)).collect()
}

#[test]
fn a_route_is_all_that_it_serves_and_nothing_else() {
    for scheme in SCHEMES {
        let server = serve(|builder| {
            let builder = builder.route("/chat/*", || SharedEcho).route("/chat/rooms/*", || app(echo));
            builder.route("/chat/rooms/1", || SharedEcho).route("/news", || app(echo))
        });
        let paths = ["/chat/a", "/chat/b/c", "/chat/rooms/2", "/chat/rooms/1", "/news"];
        let mut clients = paths.map(|path| server.connect_echo(scheme, path));
        let expected = [
            ("/chat/*", &[0, 1][..]),
            ("/chat/rooms/*", &[2]),
            ("/chat/rooms/1", &[3]),
            ("/news", &[4]),
            ("/chat/a", &[]),
            ("/chat/", &[]),
            ("/*", &[]),
            ("*", &[]),
            ("", &[]),
        ];
        for (route, members) in expected {
            let result = server.hub.broadcast(Audience::Route(route), route).unwrap();
            assert_eq!(reached(result), members.len(), "{route}");
            for &member in members {
                assert_eq!(next_message(&mut clients[member]), Sent::text(route));
            }
            let listed = server.hub.connections(Audience::Route(route), None, 0).unwrap().items;
            assert!(
                listed.len() == members.len() && listed.iter().all(|info| &*info.route == route),
                "{route}"
            );
        }
        clients.iter_mut().for_each(|client| assert_echoes(client, "echo"));
        drop(clients);
        eventually("all are gone", || server.hub.is_empty().unwrap());
        assert_eq!(reached(server.hub.broadcast(Audience::Route("/chat/*"), "x").unwrap()), 0);
    }
}

#[test]
fn one_is_excepted_and_not_counted() {
    let server = serve(|builder| builder.route("/*", || SharedEcho));
    let mut clients: Vec<_> = (0..3).map(|_| server.connect_echo(Scheme::Ws, "/a")).collect();
    let ids: Vec<_> = connections(&server.hub).iter().map(|info| info.id).collect();
    ids.iter().for_each(|id| server.hub.join(id, "room").unwrap());
    let audiences = [Audience::All, Audience::Path("/a"), Audience::Route("/*"), Audience::Topic("room")];
    for audience in audiences {
        for id in &ids {
            let text = Message::from(id.as_str());
            assert_eq!(reached(server.hub.broadcast(audience.except(id), text).unwrap()), 2, "{audience:?}");
        }
        // Each got the IDs of the others.
        let mut missing = Vec::new();
        for client in &mut clients {
            let got = [(); 2].map(|()| next_message(client).into_text().unwrap().to_string());
            missing.push(*ids.iter().find(|id| !got.contains(&id.to_string())).unwrap());
        }
        missing.sort();
        assert_eq!(missing, ids);
    }
    let stranger: WebSocketId = "b3kT9ZcYw4mQ1s8xAAAAKg".parse().unwrap();
    assert_eq!(reached(server.hub.broadcast(Audience::All.except(&stranger), "all").unwrap()), 3);
    assert_eq!(server.hub.close_all(Audience::All.except(&ids[0]), 4000, "").unwrap(), 2);
    let still = |client: &mut Client| next_message(client) == Sent::text("all") && !closes(client);
    assert_eq!(clients.iter_mut().map(still).filter(|&open| open).count(), 1);
}

/// Whether the next thing is a close frame.
fn closes(client: &mut Client) -> bool {
    client.send(Sent::text("?")).unwrap();
    loop {
        match client.read() {
            Ok(Sent::Text(text)) if text == "?" => return false,
            Ok(Sent::Close(_)) => return true,
            Ok(_) => {}
            Err(e) => panic!("{e}"),
        }
    }
}

/// Joins the topic of its path, twice, before it is open; and says nothing before it has been told to go on.
struct Early(mpsc::Sender<(WebSocketId, mpsc::Sender<bool>)>);

impl WebSocketServer for Early {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        let topic = opening.path().trim_start_matches('/').to_owned();
        opening.join(&topic)?;
        opening.join(topic.as_str())?;
        assert_eq!(opening.topics(), [Arc::<str>::from(topic)]);
        opening.set_shared_connection(opening.request().query() == "shared");
        let (go_on, goes_on) = mpsc::channel();
        self.0.send((*opening.websocket_id(), go_on)).unwrap();
        goes_on.recv_timeout(PATIENCE).unwrap().then_some(()).ok_or_else(|| StatusCode::FORBIDDEN.into())
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        if ws.path() == "/shared" { Ok(()) } else { echo(ws) }
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        let _ = ws.write(message);
        Handled::Yes
    }
}

/// What is broadcast between the join and the answer follows the answer, in order with what is pushed; before the answer it is
/// not a member; and after a refusal it never was.
#[test]
fn a_topic_that_is_joined_early_misses_nothing() {
    for scheme in SCHEMES {
        let (tell, told) = mpsc::channel();
        let server = serve(|builder| builder.route("/*", move || Early(tell.clone())));
        let (hub, address) = (&server.hub, &server);
        for (path, agrees) in [("/room", true), ("/room?shared", true), ("/room", false)] {
            thread::scope(|scope| {
                let client = scope.spawn(move || address.try_connect(scheme, path, &[]));
                let (id, go_on) = told.recv_timeout(PATIENCE).unwrap();
                let result = hub.broadcast(Audience::Topic("room"), "1").unwrap();
                assert_eq!((result.queued, reached(result)), (1, 1));
                let _ = hub.push(&id, "2").unwrap();
                assert_eq!(reached(hub.broadcast(Audience::Topic("room"), "3").unwrap()), 1);
                assert_eq!(
                    reached(hub.broadcast(Audience::Topic("room").except(&id), "not for it").unwrap()),
                    0
                );
                assert_eq!(reached(hub.broadcast(Audience::Topic("other"), "not for it").unwrap()), 0);
                assert!(hub.members("room", None, 0).unwrap().items.is_empty() && topics(hub).is_empty());
                go_on.send(agrees).unwrap();
                let Ok((mut client, _)) = client.join().unwrap() else {
                    assert!(!agrees);
                    eventually("nothing is left", || {
                        hub.broadcast(Audience::Topic("room"), "4").unwrap() == Broadcast::default()
                    });
                    return;
                };
                assert!(agrees);
                // It is a member as soon as the client knows that it is connected.
                assert_eq!(hub.members("room", None, 0).unwrap().items, [id]);
                assert_eq!(hub.topics_of(&id).unwrap(), [Arc::<str>::from("room")]);
                assert_eq!(topics(hub), [("room".to_owned(), 1)]);
                assert_eq!(reached(hub.broadcast(Audience::Topic("room"), "4").unwrap()), 1);
                for n in 1..=4 {
                    assert_eq!(next_message(&mut client), Sent::text(n.to_string()));
                }
                assert_echoes(&mut client, "echo");
                client.close(None).unwrap();
                read_close(&mut client);
                drop(client); // it is not waited for
                eventually("it is gone", || topics(hub).is_empty());
            });
        }
        assert!(topics(hub).is_empty());
    }
}

/// A thread counts in the topic while others join it early, and then push how far it has counted: each client gets all numbers
/// from its first one on, once and in order, and none is missing between what it was told and its first one.
#[test]
fn early_members_get_each_message_once() {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let mut limits = Limits::default();
    limits.max_queue_messages = 1 << 20; // however slow an opening is
    let server = serve(|builder| {
        builder.limits(limits).route("/*", || {
            let before = |opening: &mut Opening| {
                opening.set_shared_connection(opening.path() == "/shared");
                opening.join("numbers")?;
                let counted = NEXT.load(SeqCst);
                let _ = opening.hub().push(opening.websocket_id(), format!("counted {counted}")).unwrap();
                eventually("some are broadcast while it is being opened", || NEXT.load(SeqCst) > counted + 1);
                Ok(())
            };
            let serve = |ws: &mut WebSocket| if ws.path() == "/shared" { Ok(()) } else { echo(ws) };
            full_app(before, serve, |_: &Closed| {})
        })
    });
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                let number = NEXT.fetch_add(1, SeqCst);
                let result = server.hub.broadcast(Audience::Topic("numbers"), number.to_string()).unwrap();
                assert_eq!(result.dropped, 0);
                thread::sleep(Duration::from_micros(50)); // or else a client that is late finds more than may wait for it
            }
        });
        let _until = Until(&stop);
        for n in 0..40 {
            let mut client = server.connect(SCHEMES[n % 2], if n % 4 < 2 { "/" } else { "/shared" });
            let (mut numbers, mut counted) = (Vec::<usize>::new(), None);
            while numbers.len() < 20 || counted.is_none() {
                let text = next_message(&mut client).into_text().unwrap();
                match text.strip_prefix("counted ") {
                    Some(text) => counted = Some(text.parse().unwrap()),
                    None => numbers.push(text.parse().unwrap()),
                }
            }
            assert!(numbers.windows(2).all(|two| two[1] == two[0] + 1), "{n}: {numbers:?}");
            assert!(counted.is_some_and(|counted| numbers[0] <= counted), "{n}: {counted:?} {numbers:?}");
        }
    });
}

#[test]
fn topics_are_listed_page_by_page() {
    let server = serve(|builder| builder.route("/", || SharedEcho));
    let clients: Vec<_> = (0..3).map(|_| server.connect_echo(Scheme::Ws, "/")).collect();
    let ids: Vec<_> = connections(&server.hub).iter().map(|info| info.id).collect();
    let names: Vec<_> = (0..25).map(|n| format!("topic {n:02}")).collect();
    for (n, name) in names.iter().enumerate().rev() {
        ids[..=n % 3].iter().for_each(|id| server.hub.join(id, name).unwrap());
    }
    let page = server.hub.topics(None, 10).unwrap();
    assert_eq!((page.items.len(), page.next.as_deref()), (10, Some("topic 09")));
    // What comes and goes meanwhile does not change the place.
    server.hub.leave(&ids[0], "topic 09").unwrap();
    server.hub.join(&ids[0], "aaa").unwrap();
    let second = server.hub.topics(page.next.as_deref(), 15).unwrap();
    assert!(second.next.is_none());
    let all: Vec<_> = page.items.iter().chain(&second.items).collect();
    assert_eq!(all.iter().map(|topic| &*topic.name).collect::<Vec<_>>(), names);
    assert!(all.iter().enumerate().all(|(n, topic)| topic.members == n % 3 + 1));
    assert_eq!(topics(&server.hub).len(), 25);
    assert_eq!(topics(&server.hub)[0], ("aaa".to_owned(), 1));
    let of = server.hub.topics_of(&ids[2]).unwrap();
    assert!(of.iter().map(|topic| &**topic).eq(names.iter().skip(2).step_by(3)), "{of:?}");
    drop(clients);
    eventually("all are gone", || server.hub.is_empty().unwrap() && topics(&server.hub).is_empty());
    assert!(matches!(server.hub.topics_of(&ids[0]), Err(Error::UnknownId)));
}

/// Whatever a client makes its application join: the length of a name, the number, and the sum of all have a bound.
#[test]
fn topics_have_a_bound() {
    let mut limits = Limits::default();
    (limits.max_topics, limits.max_topic_name) = (3, 10);
    limits.max_topics_bytes = Some(5 * 138);
    let server = serve(|builder| {
        builder.limits(limits).route("/", || {
            let before = |opening: &mut Opening| {
                opening.set_shared_connection(true);
                let names: Vec<_> = opening.request().query().split('&').map(str::to_owned).collect();
                for name in names.iter().filter(|name| !name.is_empty()) {
                    opening.join(name)?;
                }
                Ok(())
            };
            full_app(before, |_: &mut WebSocket| Ok(()), |_: &Closed| {})
        })
    });
    let refused =
        |query: &str| server.try_connect(Scheme::Ws, &format!("/?{query}"), &[]).unwrap_err().status();
    assert_eq!(refused("elevenbytes"), 400);
    assert_eq!(refused("1&2&3&4"), 400);
    let first = server.connect(Scheme::Ws, "/?1234567890&2234567890&3234567890&1234567890");
    let id = connections(&server.hub)[0].id;
    let join = |id: &WebSocketId, topic: &str| match server.hub.join(id, topic) {
        Err(Error::OverLimit(limit)) => Some(limit),
        other => {
            other.unwrap();
            None
        }
    };
    assert_eq!(join(&id, ""), Some(OverLimit::TopicName));
    assert_eq!(join(&id, "elevenbytes"), Some(OverLimit::TopicName));
    assert_eq!(join(&id, "4"), Some(OverLimit::Topics));
    assert_eq!(join(&id, "1234567890"), None, "joining again has no effect");
    let second = server.connect(Scheme::Ws, "/?1234567890&2234567890");
    let other = connections(&server.hub).iter().map(|info| info.id).find(|other| *other != id).unwrap();
    assert_eq!(join(&other, "3234567890"), Some(OverLimit::AllTopics));
    let busy = server.try_connect(Scheme::Ws, "/?1234567890", &[]).unwrap_err();
    assert_eq!((busy.status().as_u16(), busy.headers()["retry-after"].to_str().unwrap()), (503, "5"));
    server.hub.leave(&id, "2234567890").unwrap();
    assert_eq!(join(&other, "3234567890"), None);
    drop((first, second));
    // All of it is given back.
    eventually("all are gone", || server.handle.connections() == 0);
    for _ in 0..3 {
        let mut clients: Vec<_> = (0..5).map(|_| server.connect(Scheme::Ws, "/?1234567890")).collect();
        assert_eq!(refused("1234567890").as_u16(), 503);
        assert_eq!(topics(&server.hub), [("1234567890".to_owned(), 5)]);
        clients.clear();
        eventually("all are gone", || server.handle.connections() == 0);
    }
}

/// `leave` of one that is being opened undoes its join.
#[test]
fn what_is_joined_early_can_be_left_early() {
    let (tell, told) = mpsc::channel();
    let server = serve(|builder| builder.route("/*", move || Early(tell.clone())));
    thread::scope(|scope| {
        let client = scope.spawn(|| server.connect(Scheme::Ws, "/room"));
        let (id, go_on) = told.recv_timeout(PATIENCE).unwrap();
        server.hub.leave(&id, "room").unwrap();
        assert_eq!(reached(server.hub.broadcast(Audience::Topic("room"), "x").unwrap()), 0);
        go_on.send(true).unwrap();
        let mut client = client.join().unwrap();
        assert!(server.hub.topics_of(&id).unwrap().is_empty() && topics(&server.hub).is_empty());
        assert_echoes(&mut client, "echo");
    });
}

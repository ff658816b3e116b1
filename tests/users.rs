//! Who a connection is: its user, its tags, and what else is told about it.
#![cfg(feature = "__tls")]
mod common;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::Duration,
};

use common::{
    PATIENCE, SCHEMES, Scheme, TestServer, Until, assert_echoes, connections, echo, eventually, full_app,
    next_message, read_close, serve,
};
use switchboard::{
    Audience, Closed, ConnectionInfo, Error, Handled, HubObserver, Message, Opening, OverLimit, Refusal,
    ServerResult, StatusCode, WebSocket, WebSocketServer,
};
use tungstenite::Message as Sent;

/// Is the user, and has the tags, that the query says; and topics. At `/shared` it is shared.
struct Named;

fn name(opening: &mut Opening) -> Result<(), Refusal> {
    let query = |opening: &Opening, name| opening.request().query_value(name).map(|value| value.into_owned());
    if let Some(user) = query(opening, "user") {
        opening.set_user(user)?;
    }
    if let Some(device) = query(opening, "device") {
        opening.set_tag("device", device)?;
        opening.set_tag("kind", "test")?;
    }
    if let Some(topic) = query(opening, "topic") {
        opening.join(topic)?;
    }
    if query(opening, "refuse").is_some() {
        return Err(StatusCode::FORBIDDEN.into());
    }
    opening.set_shared_connection(opening.path() == "/shared");
    Ok(())
}

impl WebSocketServer for Named {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        name(opening)
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        if ws.path() == "/shared" { Ok(()) } else { echo(ws) }
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        let _ = ws.write(message);
        Handled::Yes
    }
}

fn serve_named() -> TestServer {
    serve(|builder| builder.route("/", || Named).route("/shared", || Named))
}

#[test]
fn two_tabs_are_one_user() {
    for scheme in SCHEMES {
        let server = serve_named();
        let paths = ["/?user=42", "/shared?user=42", "/?user=43", "/"];
        let [mut tab, mut shared, mut other, mut nobody] =
            paths.map(|path| server.connect_echo(scheme, path));
        let result = server.hub.push_user("42", "to 42").unwrap();
        assert_eq!((result.sent + result.queued, result.dropped + result.gone), (2, 0));
        assert_eq!(next_message(&mut tab), Sent::text("to 42"));
        assert_eq!(next_message(&mut shared), Sent::text("to 42"));
        for client in [&mut other, &mut nobody] {
            assert_echoes(client, "echo");
        }
        let of_42 = |info: &ConnectionInfo| info.user.as_deref() == Some("42");
        assert_eq!(connections(&server.hub).iter().filter(|info| of_42(info)).count(), 2);
        let page = server.hub.connections(Audience::User("42"), None, 0).unwrap();
        assert!(page.items.len() == 2 && page.items.iter().all(of_42));
        assert_eq!(server.hub.close_user("42", 4001, "elsewhere").unwrap(), 2);
        for client in [&mut tab, &mut shared] {
            assert_eq!(read_close(client), (4001, "elsewhere".into()));
        }
        drop((tab, shared));
        // Until then one that is closing is counted as gone.
        let reaches_nobody = || server.hub.push_user("42", "x").unwrap() == switchboard::Broadcast::default();
        eventually("the user is gone", reaches_nobody);
        assert!(server.hub.connections(Audience::User("42"), None, 0).unwrap().items.is_empty());
        assert_eq!(server.hub.close_user("42", 4001, "").unwrap(), 0);
        assert_echoes(&mut other, "echo");
    }
}

/// Each stage shows who it is: `Opening`, `WebSocket`, and `Closed`; with `set_tag` the last value of a key counts.
#[test]
fn user_and_tags_are_seen_everywhere() {
    type Seen = (Option<String>, Vec<(String, String)>);
    let (tell, told) = mpsc::channel::<(&str, Seen)>();
    let of = |user: Option<&str>, tags: &switchboard::Tags| {
        let tags = tags.iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        (user.map(str::to_owned), tags.collect())
    };
    let server = serve(|builder| {
        builder.route("/*", move || {
            let [first, second, third] = [(); 3].map(|()| tell.clone());
            let before = move |opening: &mut Opening| {
                assert!(opening.user().is_none() && opening.tags().is_empty());
                if opening.path() == "/named" {
                    opening.set_user("before")?;
                    opening.set_user("größe")?;
                    opening.set_tag("a", "0")?;
                    opening.set_tag("b", "2")?;
                    opening.set_tag(String::from("a"), "1")?;
                }
                first.send(("opening", of(opening.user(), opening.tags()))).unwrap();
                Ok(())
            };
            let server = move |ws: &mut WebSocket| {
                second.send(("open", of(ws.user(), ws.tags()))).unwrap();
                echo(ws)
            };
            let after =
                move |closed: &Closed| third.send(("closed", of(closed.user(), closed.tags()))).unwrap();
            full_app(before, server, after)
        })
    });
    for path in ["/named", "/"] {
        let mut client = server.connect_echo(Scheme::Ws, path);
        let info = connections(&server.hub).remove(0);
        let expected = of(info.user.as_deref(), &info.tags);
        if path == "/" {
            assert_eq!(expected, (None, Vec::new()));
        } else {
            let tags = [("a", "1"), ("b", "2")].map(|(key, value)| (key.to_owned(), value.to_owned()));
            assert_eq!(expected, (Some("größe".into()), tags.into()));
            assert_eq!((info.tags.get("b"), info.tags.get("c")), (Some("2"), None));
            assert_eq!(server.hub.push_user("before", "x").unwrap(), switchboard::Broadcast::default());
        }
        client.close(None).unwrap();
        read_close(&mut client);
        for stage in ["opening", "open", "closed"] {
            assert_eq!(told.recv_timeout(PATIENCE).unwrap(), (stage, expected.clone()), "{path}");
        }
        eventually("it is gone", || server.hub.is_empty().unwrap());
    }
}

#[test]
fn what_is_too_much_is_an_error_and_refuses_with_400() {
    let server = serve(|builder| {
        let builder = builder.route("/named", || Named);
        builder.route("/", || {
            let before = |opening: &mut Opening| {
                for user in ["", &"x".repeat(257)] {
                    assert!(matches!(opening.set_user(user), Err(Error::OverLimit(OverLimit::User))));
                }
                assert!(matches!(opening.set_tag("", "x"), Err(Error::OverLimit(OverLimit::Tags))));
                assert!(matches!(
                    opening.set_tag("a", "x".repeat(1024)),
                    Err(Error::OverLimit(OverLimit::Tags))
                ));
                assert!(opening.user().is_none() && opening.tags().is_empty(), "nothing is left of it");
                (0..16).for_each(|n| opening.set_tag(n.to_string(), "").unwrap());
                assert!(matches!(opening.set_tag("16", ""), Err(Error::OverLimit(OverLimit::Tags))));
                opening.set_user("x".repeat(256))?;
                Ok(())
            };
            full_app(before, echo, |_: &Closed| {})
        })
    });
    server.connect_echo(Scheme::Ws, "/");
    for query in [format!("user={}", "x".repeat(257)), "user=".into(), format!("device={}", "x".repeat(1024))]
    {
        let refused = server.try_connect(Scheme::Ws, &format!("/named?{query}"), &[]).unwrap_err();
        assert_eq!(refused.status(), 400, "{query}");
    }
    server.connect_echo(Scheme::Ws, &format!("/named?user={}", "x".repeat(256)));
}

/// Someone who is locked out while one of their connections is being opened is not left with it; and what was pushed to the user
/// comes before.
#[test]
fn a_user_is_reached_while_a_connection_is_being_opened() {
    for scheme in SCHEMES {
        let (opening, is_opening) = mpsc::channel::<mpsc::Sender<bool>>();
        let server = serve(|builder| {
            builder.route("/*", move || {
                let opening = opening.clone();
                let before = move |o: &mut Opening| {
                    o.set_user("42")?;
                    let (go_on, goes_on) = mpsc::channel();
                    opening.send(go_on).unwrap();
                    if !goes_on.recv_timeout(PATIENCE).unwrap() {
                        return Err(StatusCode::FORBIDDEN.into());
                    }
                    Ok(())
                };
                full_app(before, echo, |_: &Closed| {})
            })
        });
        let (hub, address) = (&server.hub, &server);
        for agrees in [true, false] {
            thread::scope(|scope| {
                let client = scope.spawn(move || address.try_connect(scheme, "/", &[]));
                let go_on = is_opening.recv_timeout(PATIENCE).unwrap();
                let result = hub.push_user("42", "before").unwrap();
                assert_eq!((result.queued, result.sent + result.dropped + result.gone), (1, 0));
                assert!(hub.connections(Audience::User("42"), None, 0).unwrap().items.is_empty());
                assert_eq!(hub.close_user("42", 4001, "locked out").unwrap(), 1);
                go_on.send(agrees).unwrap();
                match client.join().unwrap() {
                    Ok((mut client, _)) => {
                        assert!(agrees);
                        assert_eq!(next_message(&mut client), Sent::text("before"));
                        assert_eq!(read_close(&mut client), (4001, "locked out".into()));
                    }
                    Err(refused) => assert!(!agrees && refused.status() == 403),
                }
            });
            eventually("it is gone", || server.handle.connections() == 0);
            assert_eq!(
                hub.push_user("42", "x").unwrap(),
                switchboard::Broadcast::default(),
                "no trace is left"
            );
        }
    }
}

/// A second tab takes the place of the first.
#[test]
fn all_others_of_a_user_are_closed_but_not_this_one() {
    let server = serve(|builder| {
        let takes_over = |ws: &mut WebSocket| {
            let others = Audience::User("42").except(ws.websocket_id());
            ws.write(ws.hub().close_all(others, 4001, "").unwrap().to_string())?;
            echo(ws)
        };
        let before = |opening: &mut Opening| Ok(opening.set_user("42")?);
        builder.route("/", move || full_app(before, takes_over, |_: &Closed| {}))
    });
    let [mut first, mut second] = [(); 2].map(|()| {
        let mut client = server.connect(Scheme::Ws, "/");
        (next_message(&mut client), client)
    });
    assert_eq!((first.0, second.0), (Sent::text("0"), Sent::text("1")));
    assert_eq!(read_close(&mut first.1).0, 4001);
    assert_echoes(&mut second.1, "echo");
}

#[derive(Default)]
struct Presence(Mutex<Vec<String>>);

impl HubObserver for Presence {
    fn opened(&self, connection: &ConnectionInfo) {
        self.0.lock().unwrap().push(format!("opened {}", connection.user.as_deref().unwrap_or("nobody")));
    }

    fn closed(&self, connection: &ConnectionInfo, _reason: &switchboard::CloseReason) {
        self.0.lock().unwrap().push(format!("closed {}", connection.user.as_deref().unwrap_or("nobody")));
    }

    fn topic_occupied(&self, topic: &str) {
        self.0.lock().unwrap().push(format!("occupied {topic}"));
    }

    fn topic_vacated(&self, topic: &str) {
        self.0.lock().unwrap().push(format!("vacated {topic}"));
    }

    fn user_online(&self, user: &str) {
        self.0.lock().unwrap().push(format!("online {user}"));
    }

    fn user_offline(&self, user: &str) {
        self.0.lock().unwrap().push(format!("offline {user}"));
    }
}

/// A user's first connection in, and the last one out, are told between the connection's own beginning and end; of a refused one
/// nothing.
#[test]
fn observers_are_told_who_comes_and_goes() {
    let presence = Arc::new(Presence::default());
    let observer = presence.clone();
    let server = serve(|builder| builder.observer(observer).route("/*", || Named));
    let take = || std::mem::take(&mut *presence.0.lock().unwrap());
    let expect = |what: &[&str]| {
        eventually(&format!("{what:?}"), || presence.0.lock().unwrap().len() == what.len());
        assert_eq!(take(), what);
    };
    let refused = server.try_connect(Scheme::Ws, "/?user=1&topic=room&refuse=1", &[]).unwrap_err();
    assert_eq!(refused.status(), 403);
    let first = server.connect_echo(Scheme::Ws, "/?user=1&topic=room");
    expect(&["opened 1", "online 1", "occupied room"]);
    let second = server.connect_echo(Scheme::Ws, "/shared?user=1&topic=room");
    expect(&["opened 1"]);
    drop(first);
    expect(&["closed 1"]);
    drop(second);
    expect(&["vacated room", "offline 1", "closed 1"]);
}

/// Each of many threads' connections comes and goes; online and offline of a user alternate, and all are offline at last.
#[test]
fn online_and_offline_alternate() {
    let presence = Arc::new(Presence::default());
    let observer = presence.clone();
    let server = serve(|builder| builder.observer(observer).route("/*", || Named));
    thread::scope(|scope| {
        for n in 0..4 {
            let server = &server;
            scope.spawn(move || {
                for _ in 0..25 {
                    server.connect_echo(Scheme::Ws, if n % 2 == 0 { "/?user=1" } else { "/shared?user=1" });
                }
            });
        }
    });
    eventually("all are gone", || server.handle.connections() == 0);
    let events = presence.0.lock().unwrap().clone();
    let states: Vec<_> = events.iter().filter(|event| event.contains("line ")).collect();
    assert!(!states.is_empty() && states.len() % 2 == 0);
    for (n, state) in states.iter().enumerate() {
        assert_eq!(state.as_str(), if n % 2 == 0 { "online 1" } else { "offline 1" });
    }
}

#[test]
fn a_connection_tells_route_browser_and_last_activity() {
    let server = serve(|builder| builder.route("/chat/*", || Named).route("/chat/exact", || Named));
    let long = "x".repeat(1000);
    let (cut, whole) = (format!("x{}", "ß".repeat(200)), format!("x{}", "ß".repeat(127)));
    let agents = ["Mozilla/5.0 (X11)", "größe", &long, &cut];
    let mut clients: Vec<_> = agents
        .iter()
        .map(|agent| server.try_connect(Scheme::Ws, "/chat/1", &[("user-agent", agent)]).unwrap().0)
        .collect();
    clients.push(server.connect(Scheme::Ws, "/chat/exact"));
    clients.iter_mut().for_each(|client| assert_echoes(client, "echo"));
    let infos = connections(&server.hub);
    for (agent, expected) in agents.into_iter().zip([agents[0], agents[1], &long[..256], &whole]) {
        let of = |info: &&ConnectionInfo| info.user_agent.as_deref() == Some(expected);
        let found = infos.iter().find(of).unwrap_or_else(|| panic!("{agent}: {infos:?}"));
        assert_eq!((&*found.route, &*found.path), ("/chat/*", "/chat/1"));
        assert_eq!(found.client_address, Some("127.0.0.1".parse().unwrap()));
    }
    let exact = infos.iter().find(|info| info.user_agent.is_none()).unwrap();
    assert_eq!((&*exact.route, &*exact.path), ("/chat/exact", "/chat/exact"));
}

/// Messages of either side count, pings and pongs do not.
#[test]
fn pings_are_no_activity() {
    let server = serve_named();
    for path in ["/", "/shared"] {
        let mut client = server.connect_echo(Scheme::Ws, path);
        let info = || connections(&server.hub).remove(0);
        let before = info();
        assert!(before.last_active >= before.since && before.idle <= before.age);
        eventually("it was idle for a while", || info().idle > Duration::from_millis(100));
        client.send(Sent::Ping("x".into())).unwrap();
        assert_eq!(client.read().unwrap(), Sent::Pong("x".into()));
        assert_eq!(info().last_active, before.last_active, "{path}");
        let _ = server.hub.push(&before.id, "push").unwrap();
        assert_eq!(next_message(&mut client), Sent::text("push"));
        let pushed = info();
        assert!(pushed.last_active > before.last_active, "{path}");
        eventually("it was idle for a while", || info().idle > Duration::from_millis(100));
        assert_echoes(&mut client, "echo");
        assert!(info().last_active > pushed.last_active, "{path}");
        drop(client);
        eventually("it is gone", || server.hub.is_empty().unwrap());
    }
}

/// A user may be set, and the connection refused, again and again, while others push to the user: nothing is left of it.
#[test]
fn a_refusal_leaves_no_trace() {
    let server = serve_named();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(SeqCst) {
                let _ = server.hub.push_user("1", "x").unwrap();
                let _ = server.hub.broadcast(Audience::Topic("t"), "x").unwrap();
            }
        });
        let _until = Until(&stop);
        for _ in 0..50 {
            let refused = server.try_connect(Scheme::Ws, "/?user=1&topic=t&refuse=1", &[]).unwrap_err();
            assert_eq!(refused.status(), 403);
        }
    });
    eventually("all are gone", || server.handle.connections() == 0);
    assert_eq!(server.hub.push_user("1", "x").unwrap(), switchboard::Broadcast::default());
    assert!(server.hub.topics(None, 0).unwrap().items.is_empty());
}

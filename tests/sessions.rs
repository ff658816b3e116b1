#![cfg(feature = "__tls")]
//! Sessions, from the first cookie to their end.

mod common;

use std::{
    collections::{HashMap, HashSet},
    net::Shutdown,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::{Duration, Instant},
};

use common::{
    Client, PATIENCE, SCHEMES, Scheme, TestServer, app, eventually, full_app, handshake, next_message,
    read_close, reply::Reply, serve,
};
use switchboard::{
    Closed, Error, Exchange, FoundSession, Handled, Limits, Opening, Refusal, Request, Response, Server,
    ServerBuilder, ServerResult, Session, SessionCookie, SessionId, SessionStore, StatusCode, StoreResult,
    WebSocket, WebSocketServer,
};
use tungstenite::Message;

const NAME: &str = "switchboard-session";

/// Each message is a command for the session's value `k`. Answers with the result.
fn obey(ws: &mut WebSocket) -> ServerResult {
    for message in ws.messages() {
        let command = message.as_text().ok_or("a command is text")?.to_owned();
        let (verb, value) = command.split_once(' ').unwrap_or((&command, ""));
        if verb == "end-on-close" {
            ws.set_session_end_on_close(true);
        }
        let session = ws.session().ok_or("a synchronous connection has a session")?;
        assert_eq!(ws.session_id(), Some(&session.id()?));
        let result = match verb {
            "get" => session.get("k").map(|value| value.unwrap_or_else(|| "nothing".into())),
            "id" => session.id().map(|id| id.to_string()),
            "panic" => panic!("on purpose"),
            "renew" => session.renew().map(|id| id.to_string()),
            verb => match verb {
                "set" => session.set("k", value),
                "remove" => session.remove("k"),
                "touch" => session.touch(),
                "end" => session.end(),
                _ => Ok(()),
            }
            .map(|()| "done".to_owned()),
        };
        ws.write(match result {
            Ok(text) => text,
            Err(Error::SessionsFull) => "full".into(),
            Err(Error::SessionRenewed) => "renewed".into(),
            Err(Error::SessionStore(_)) => "failed".into(),
            Err(Error::TooLate) => "too late".into(),
            Err(e) => return Err(e.into()),
        })?;
    }
    Ok(())
}

fn tell(client: &mut Client, command: &str) -> String {
    client.send(Message::text(command)).unwrap();
    next_message(client).into_text().unwrap().to_string()
}

/// The page does with `k` of the session what the query says, and shows it, or the session's ID; without a query it does not
/// use the session.
fn page(exchange: &Exchange<'_>) -> Response {
    try_page(exchange).unwrap_or_else(Response::from)
}

fn try_page(exchange: &Exchange<'_>) -> std::result::Result<Response, Refusal> {
    let request = exchange.request();
    if request.query().is_empty() {
        return Ok(Response::text(StatusCode::OK, "no session"));
    }
    let session = exchange.session();
    if request.query_value("login").is_some() {
        let old = session.id()?;
        assert_ne!(session.renew()?, old);
    }
    if let Some(value) = request.query_value("set").or_else(|| request.query_value("login")) {
        session.set("k", &value)?;
    }
    let text = match request.query() {
        "id" => session.id()?.to_string(),
        "touch" => session.touch().map(|()| "touched".into())?,
        _ => session.get("k")?.unwrap_or_else(|| "nothing".into()),
    };
    Ok(Response::text(StatusCode::OK, text))
}

/// A shared connection that nobody reads from. It sends its session's ID.
struct Parked;

impl WebSocketServer for Parked {
    fn on_pre_server(&mut self, opening: &mut Opening) -> std::result::Result<(), Refusal> {
        opening.set_shared_connection(true);
        Ok(())
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        Ok(ws.write(ws.session_id().ok_or("no session")?.as_str())?)
    }

    fn on_client_message(&mut self, ws: &WebSocket, _: switchboard::Message) -> Handled {
        assert!(ws.session().is_none(), "the session belongs to `server`");
        ws.write(ws.session_id().map_or("none", SessionId::as_str)).unwrap();
        Handled::Yes
    }
}

fn routes(builder: ServerBuilder) -> ServerBuilder {
    builder.route("/", || app(obey)).route("/parked", || Parked).http("/page", page)
}

fn serve_sessions(limits: Limits) -> TestServer {
    serve(|builder| routes(builder.limits(limits)))
}

/// Connects, with the cookie if there is one. Also returns the cookie that the response sets.
fn connect(server: &TestServer, scheme: Scheme, cookie: Option<&str>) -> (Client, Option<String>) {
    connect_at(server, scheme, "/", cookie)
}

fn connect_at(
    server: &TestServer,
    scheme: Scheme,
    path: &str,
    cookie: Option<&str>,
) -> (Client, Option<String>) {
    let headers: Vec<_> = cookie.iter().map(|cookie| ("cookie", *cookie)).collect();
    let (client, response) = server.try_connect(scheme, path, &headers).unwrap();
    let mut cookies = response.headers().get_all("set-cookie").iter();
    let cookie = cookies.next().map(|cookie| pair(cookie.to_str().unwrap()));
    assert!(cookies.next().is_none(), "more than one cookie");
    (client, cookie)
}

/// A new session: its first connection, and its cookie.
fn connect_new(server: &TestServer, scheme: Scheme) -> (Client, String) {
    let (client, cookie) = connect(server, scheme, None);
    (client, cookie.unwrap())
}

/// One more connection of a session that is known.
fn connect_known(server: &TestServer, scheme: Scheme, cookie: &str) -> Client {
    let (client, new) = connect(server, scheme, Some(cookie));
    assert_eq!(new, None, "a known session gets no new cookie");
    client
}

/// Asks for the page.
fn get(server: &TestServer, scheme: Scheme, query: &str, cookie: &str) -> Reply {
    let head = format!("GET /page?{query} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n");
    server.ask(scheme, head)
}

/// The name and the value in a `Set-Cookie` header.
fn pair(cookie: &str) -> String {
    cookie.split(';').next().unwrap().to_owned()
}

/// The ID in a cookie.
fn id_in(cookie: &str) -> &str {
    cookie.strip_prefix(&format!("{NAME}=")).unwrap().split('.').next().unwrap()
}

fn close(mut client: Client) {
    client.close(None).unwrap();
    read_close(&mut client);
}

#[test]
fn the_101_sets_the_cookie() {
    let server = serve_sessions(Limits::default());
    for scheme in SCHEMES {
        let mut ids = Vec::new();
        for _ in 0..2 {
            let (mut client, response) = server.try_connect(scheme, "/", &[]).unwrap();
            let cookies: Vec<_> = response.headers().get_all("set-cookie").iter().collect();
            assert_eq!(cookies.len(), 1, "{cookies:?}");
            let mut parts: Vec<_> = cookies[0].to_str().unwrap().split(';').map(str::trim).collect();
            let value = parts.remove(0).strip_prefix(&format!("{NAME}=")).unwrap();
            parts.sort_unstable();
            match scheme {
                Scheme::Ws => assert_eq!(parts, ["HttpOnly", "Path=/", "SameSite=Lax"]),
                Scheme::Wss => assert_eq!(parts, ["HttpOnly", "Path=/", "SameSite=Lax", "Secure"]),
            }
            let (id, signature) = value.split_once('.').unwrap();
            let is_plain = |c: u8| c.is_ascii_alphanumeric() || b"-_".contains(&c);
            for part in [id, signature] {
                assert!(part.len() == 22 && part.bytes().all(is_plain), "128 bits: {part}");
            }
            assert_eq!(tell(&mut client, "id"), id);
            ids.push(id.to_owned());
        }
        assert_ne!(ids[0], ids[1], "without a cookie each connection has a new session");
    }
}

#[test]
fn an_id_is_the_same_at_the_next_visit_although_nothing_was_stored() {
    let server = serve_sessions(Limits::default());
    for (scheme, other) in [(Scheme::Ws, Scheme::Wss), (Scheme::Wss, Scheme::Ws)] {
        for command in ["get", "set Ada", "remove", "end"] {
            let (mut client, cookie) = connect_new(&server, scheme);
            let id = tell(&mut client, "id");
            tell(&mut client, "set before");
            tell(&mut client, command);
            tell(&mut client, "end");
            close(client);
            eventually("it has left", || server.handle.connections() == 0);
            assert_eq!(tell(&mut connect_known(&server, other, &cookie), "id"), id);
            let reply = get(&server, scheme, "id", &cookie);
            assert_eq!((reply.text(), reply.header("set-cookie")), (&*id, None));
            let (mut parked, none) = connect_at(&server, scheme, "/parked", Some(&cookie));
            assert_eq!((next_message(&mut parked).into_text().unwrap().as_str(), none), (&*id, None));
            assert_eq!(tell(&mut parked, "later"), id, "also when `server` has returned");
        }
    }
}

#[test]
fn a_session_is_found_again_and_shared() {
    let server = serve_sessions(Limits::default());
    for (scheme, other) in [(Scheme::Ws, Scheme::Wss), (Scheme::Wss, Scheme::Ws)] {
        let (mut first, cookie) = connect_new(&server, scheme);
        let mut second = connect_known(&server, other, &format!("a=b; {cookie}; c=d"));
        assert_eq!(tell(&mut first, "id"), tell(&mut second, "id"));
        assert_eq!(tell(&mut first, "get"), "nothing");
        assert_eq!(tell(&mut first, "set Ada"), "done");
        assert_eq!(tell(&mut second, "get"), "Ada");
        assert_eq!(tell(&mut second, "set Grace"), "done");
        assert_eq!(tell(&mut first, "get"), "Grace");
        let (mut stranger, _) = connect_new(&server, scheme);
        assert_eq!(tell(&mut stranger, "get"), "nothing", "only for the connections of this session");

        close(first);
        close(second);
        let mut third = connect_known(&server, scheme, &cookie);
        assert_eq!(tell(&mut third, "get"), "Grace", "it outlives its connections");
        assert_eq!(tell(&mut third, "remove"), "done");
        assert_eq!(tell(&mut third, "get"), "nothing");
    }
}

#[test]
fn a_page_and_its_sockets_have_one_session() {
    let server = serve_sessions(Limits::default());
    for scheme in SCHEMES {
        let (mut client, cookie) = connect_new(&server, scheme);
        tell(&mut client, "set Ada");
        let reply = get(&server, scheme, "look", &cookie);
        assert_eq!((reply.text(), reply.header("set-cookie")), ("Ada", None));
        get(&server, scheme, "set=Grace", &cookie);
        assert_eq!(tell(&mut client, "get"), "Grace");

        // In the other direction: made by the page, found by its WebSockets, also if it stores nothing.
        for query in ["set=Joan", "look"] {
            let reply = get(&server, scheme, query, "a=b");
            let cookie = reply.header("set-cookie").unwrap();
            assert_eq!(cookie.contains("; Secure"), scheme == Scheme::Wss, "{cookie}");
            assert!(cookie.contains("; HttpOnly") && cookie.contains("; SameSite=Lax"), "{cookie}");
            let cookie = pair(cookie);
            for _ in 0..3 {
                let mut client = connect_known(&server, scheme, &cookie);
                assert_eq!(tell(&mut client, "id"), id_in(&cookie));
                assert_eq!(tell(&mut client, "get"), reply.text());
            }
        }
        let reply = get(&server, scheme, "", "a=b");
        assert_eq!(
            (reply.text(), reply.header("set-cookie")),
            ("no session", None),
            "the page did not use the session"
        );
    }
}

#[test]
fn an_id_that_the_server_did_not_sign_is_not_adopted() {
    let server = serve_sessions(Limits::default());
    let other_server = serve_sessions(Limits::default());
    for scheme in SCHEMES {
        let (_, good) = connect_new(&server, scheme);
        let (_, another) = connect_new(&server, scheme);
        let (id, value) = (id_in(&good).to_owned(), good.split_once('=').unwrap().1);
        let mut planted: Vec<String> = [
            "planted",
            "",
            "aaaaaaaaaaaaaaaaaaaaaaaaaa",
            &id,
            &format!("{id}."),
            &format!("{id}.{}", "A".repeat(22)),
            &format!("{id}.{}", another.split_once('.').unwrap().1),
            &value[..44],
            &format!("{value}A"),
            &value.to_lowercase(),
            &"x".repeat(10_000),
        ]
        .map(|value| format!("{NAME}={value}"))
        .into();
        planted.push(connect_new(&other_server, scheme).1);
        planted.push(format!("Switchboard-Session={value}"));
        for planted in planted {
            let (mut client, cookie) = connect(&server, scheme, Some(&planted));
            let id = tell(&mut client, "id");
            assert!(!planted.contains(&id), "{planted}");
            assert_eq!(id_in(&cookie.unwrap()), id, "the client gets a new one");
            tell(&mut client, "set Ada");
            let (mut attacker, _) = connect(&server, scheme, Some(&planted));
            assert_eq!(tell(&mut attacker, "get"), "nothing");
        }
        // It is found among others, of that name and of bytes that are no ASCII.
        let head = handshake("/").replace("\r\n\r\n", "\r\nCookie: x=1; name=Zo");
        let mut head = head.into_bytes();
        head.extend(b"\xeb; y=\"; ");
        let many = format!("{NAME}=planted; ").repeat(20);
        head.extend(format!("{many}{good}\r\n\r\n").bytes());
        let reply = server.ask(scheme, head);
        assert_eq!((reply.status, reply.header("set-cookie")), (101, None));
    }
}

/// An application that lets its session end with the connection, by what the query says.
fn ending(shared: bool) -> impl WebSocketServer {
    full_app(
        move |opening: &mut Opening| {
            opening.set_shared_connection(shared);
            opening.set_session_end_on_close(opening.request().query() == "pre");
            Ok(())
        },
        move |ws: &mut WebSocket| if shared { Ok(()) } else { obey(ws) },
        |closed: &Closed| {
            if closed.duration() < Duration::MAX && closed.reason().code().0 == 4000 {
                closed.set_session_end_on_close(true);
            }
            if closed.reason().code().0 == 4001 {
                closed.set_session_end_on_close(false);
            }
        },
    )
}

#[test]
fn a_session_may_end_with_a_connection_however_that_ends() {
    let server = serve(|builder| {
        routes(builder).route("/ending", || ending(false)).route("/shared-ending", || ending(true))
    });
    for scheme in SCHEMES {
        for (path, end) in [
            ("/ending?pre", "close"),
            ("/shared-ending?pre", "close"),
            ("/ending", "post"),
            ("/shared-ending", "post"),
            ("/", "close"),
            ("/", "cut"),
            ("/", "panic"),
        ] {
            let (mut other, cookie) = connect_new(&server, scheme);
            tell(&mut other, "set Ada");
            let (mut ending, _) = server.try_connect(scheme, path, &[("cookie", &cookie)]).unwrap();
            if path == "/" {
                tell(&mut ending, "end-on-close");
            }
            assert_eq!(tell(&mut other, "get"), "Ada", "not before the end");
            match end {
                "close" => close(ending),
                "post" => end_with(ending, 4000),
                "cut" => ending.get_ref().tcp().shutdown(Shutdown::Both).unwrap(),
                _ => {
                    ending.send(Message::text("panic")).unwrap();
                    assert_eq!(read_close(&mut ending).0, 1011);
                    drop(ending);
                }
            }
            eventually(&format!("{path} {end} ends the session"), || tell(&mut other, "get") == "nothing");
            assert_eq!(tell(&mut other, "set Grace"), "done");
            assert_eq!(tell(&mut other, "get"), "Grace", "values can be set again");
        }
        for (path, code) in [("/ending", 1000), ("/ending?pre", 4001), ("/shared-ending?pre", 4001)] {
            let (mut other, cookie) = connect_new(&server, scheme);
            tell(&mut other, "set Ada");
            let (staying, _) = server.try_connect(scheme, path, &[("cookie", &cookie)]).unwrap();
            end_with(staying, code);
            eventually("it has left", || server.handle.connections() <= 1);
            assert_eq!(tell(&mut other, "get"), "Ada", "the session goes on");
        }
    }
}

fn end_with(mut client: Client, code: u16) {
    use tungstenite::protocol::CloseFrame;
    client.close(Some(CloseFrame { code: code.into(), reason: "".into() })).unwrap();
    assert_eq!(read_close(&mut client).0, code);
}

#[test]
fn a_session_is_ended_for_all_that_share_it() {
    let server = serve_sessions(Limits::default());
    for scheme in SCHEMES {
        let (mut one, cookie) = connect_new(&server, scheme);
        let mut two = connect_known(&server, scheme, &cookie);
        tell(&mut one, "set Ada");
        assert_eq!(tell(&mut two, "end"), "done");
        assert_eq!((tell(&mut one, "get"), tell(&mut two, "get")), ("nothing".into(), "nothing".into()));
    }
}

#[test]
fn an_unused_session_ends_and_its_id_stays() {
    let mut limits = Limits::default();
    limits.session_timeout = Duration::from_millis(200);
    let server = serve_sessions(limits);
    for scheme in SCHEMES {
        let (mut client, cookie) = connect_new(&server, scheme);
        tell(&mut client, "set Ada");
        let id = tell(&mut client, "id");
        close(client);
        eventually("it has ended", || {
            std::thread::sleep(Duration::from_millis(300)); // to ask is to use it
            get(&server, scheme, "look", &cookie).text() == "nothing"
        });
        let mut again = connect_known(&server, scheme, &cookie);
        assert_eq!(tell(&mut again, "id"), id);
        assert_eq!(tell(&mut again, "set Joan"), "done", "it can be used again");
    }
}

/// Whether a session lives on if it is used in this way, often enough, for longer than its timeout. `None`: the
/// machine was too slow to tell.
fn outlives(server: &TestServer, cookie: &str, timeout: Duration, mut used: impl FnMut()) -> Option<bool> {
    let begun = Instant::now();
    let mut last = begun;
    while begun.elapsed() < timeout * 3 / 2 {
        used();
        if last.elapsed() >= timeout {
            return None;
        }
        last = Instant::now();
        std::thread::sleep(timeout / 10); // there is no event to wait for
    }
    let lives = get(server, Scheme::Ws, "look", cookie).text() == "Ada";
    (last.elapsed() < timeout).then_some(lives)
}

#[test]
fn a_session_in_use_does_not_end() {
    let mut limits = Limits::default();
    limits.session_timeout = Duration::from_millis(1500);
    let timeout = limits.session_timeout;
    let server = serve_sessions(limits);
    for way in ["look", "set=Ada", "touch", "handshake"] {
        let mut attempts = (0..10).map(|_| {
            let cookie = pair(get(&server, Scheme::Ws, "set=Ada", "").header("set-cookie").unwrap());
            outlives(&server, &cookie, timeout, || match way {
                "handshake" => drop(server.ask(
                    Scheme::Ws,
                    handshake("/").replace("\r\n\r\n", &format!("\r\nCookie: {cookie}\r\n\r\n")),
                )),
                way => drop(get(&server, Scheme::Ws, way, &cookie)),
            })
        });
        assert_eq!(attempts.find_map(|lives| lives), Some(true), "{way}");
    }
}

#[test]
fn an_open_connection_keeps_its_session_alive_shared_or_not() {
    let mut limits = Limits::default();
    limits.session_timeout = Duration::from_millis(200);
    let timeout = limits.session_timeout;
    let server = serve_sessions(limits);
    for scheme in SCHEMES {
        for path in ["/", "/parked"] {
            for stored_first in [false, true] {
                // Until it is connected soon enough after it was stored.
                let mut attempts = (0..10).map(|_| {
                    let cookie = pair(get(&server, scheme, "look", "").header("set-cookie").unwrap());
                    if stored_first {
                        get(&server, scheme, "set=Ada", &cookie);
                    }
                    let (silent, _) = connect_at(&server, scheme, path, Some(&cookie));
                    if !stored_first {
                        get(&server, scheme, "set=Ada", &cookie);
                    }
                    (get(&server, scheme, "look", &cookie).text() == "Ada").then_some((cookie, silent))
                });
                let (cookie, silent) = attempts.find_map(|attempt| attempt).unwrap();
                // Waiting is the only way to see that nothing happens.
                std::thread::sleep(timeout * 4);
                assert_eq!(get(&server, scheme, "look", &cookie).text(), "Ada", "{path}");
                close(silent);
                eventually("it has ended after its last connection", || {
                    std::thread::sleep(timeout * 3 / 2); // to ask is to use it
                    get(&server, scheme, "look", &cookie).text() == "nothing"
                });
            }
        }
    }
}

#[test]
fn the_store_is_bounded_and_sessions_without_values_do_not_count() {
    let mut limits = Limits::default();
    limits.max_sessions = 2;
    let server = serve_sessions(limits);
    for scheme in SCHEMES {
        (0..10).for_each(|_| drop(server.ask(scheme, handshake("/"))));
        (0..10).for_each(|_| drop(server.get(scheme, "/page?look")));
        let mut open: Vec<_> = (0..20).map(|_| connect_new(&server, scheme).0).collect();
        assert_eq!(tell(&mut open[0], "set Ada"), "done");
        assert_eq!(tell(&mut open[1], "set Grace"), "done");
        assert_eq!(tell(&mut open[2], "set Joan"), "full", "all that hold values are in use");
        assert_eq!(tell(&mut open[2], "get"), "nothing", "nothing was stored");
        assert_eq!(tell(&mut open[0], "set Ada again"), "done", "a session with values may set more");
        assert_eq!(tell(&mut open[0], "end"), "done");
        assert_eq!(tell(&mut open[2], "set Joan"), "done");
        assert_eq!(tell(&mut open[1], "remove"), "done");
        assert_eq!(tell(&mut open[3], "set Mary"), "done");
        assert_eq!(tell(&mut open[4], "set Rosa"), "full");
        tell(&mut open[2], "end");
        tell(&mut open[3], "end");
    }
}

#[test]
fn strangers_who_each_store_something_lock_nobody_out() {
    let mut limits = Limits::default();
    limits.max_sessions = 20;
    let server = serve_sessions(limits);
    for scheme in SCHEMES {
        let get = |query: &str, cookie: &str| get(&server, scheme, query, cookie);
        let user = pair(get("login=Ada", "").header("set-cookie").unwrap());
        let regular = pair(get("set=Grace", "").header("set-cookie").unwrap());
        get("look", &regular);
        let (mut connected, _) = connect_new(&server, scheme);
        tell(&mut connected, "set Joan");
        for n in 0..200 {
            if n % 2 == 0 {
                assert_eq!(get("set=x", "").text(), "x", "{n}");
            } else {
                let (mut stranger, _) = connect_new(&server, scheme);
                assert_eq!(tell(&mut stranger, "set x"), "done", "{n}");
                close(stranger);
                eventually("it has left", || server.hub.len().unwrap() == 1);
            }
        }
        assert_eq!((get("look", &user).text(), get("look", &regular).text()), ("Ada", "Grace"));
        assert_eq!(tell(&mut connected, "get"), "Joan");
    }
}

#[test]
fn a_login_renews_the_id_and_the_old_one_is_dead_at_once() {
    let server = serve_sessions(Limits::default());
    for scheme in SCHEMES {
        // The attacker has got a cookie from the server, and plants it at the victim.
        let (mut attacker, planted) = connect_new(&server, scheme);
        get(&server, scheme, "set=cart", &planted);
        let reply = get(&server, scheme, "login=Ada", &planted);
        let set = reply.header("set-cookie").unwrap();
        assert!(set.ends_with("; Path=/; HttpOnly; SameSite=Lax") != (scheme == Scheme::Wss), "{set}");
        let renewed = pair(set);
        assert!(reply.text() == "Ada" && id_in(&renewed) != id_in(&planted));

        assert_eq!(
            (tell(&mut attacker, "get"), tell(&mut attacker, "set x")),
            ("nothing".into(), "renewed".into())
        );
        assert_eq!(tell(&mut attacker, "end"), "done", "of the old one only");
        let (mut again, other) = connect(&server, scheme, Some(&planted));
        let other = other.expect("the old ID is not taken any more");
        assert!(id_in(&other) != id_in(&planted) && id_in(&other) != id_in(&renewed));
        assert_eq!(
            (tell(&mut again, "get"), tell(&mut again, "id")),
            ("nothing".into(), id_in(&other).into())
        );
        // One that was planted for this path only stays, and comes first.
        for cookies in [renewed.clone(), format!("{planted}; {renewed}"), format!("{renewed}; {planted}")] {
            let mut user = connect_known(&server, scheme, &cookies);
            assert_eq!(
                (tell(&mut user, "get"), tell(&mut user, "id")),
                ("Ada".into(), id_in(&renewed).into()),
                "{cookies}"
            );
        }
        let mut user = connect_known(&server, scheme, &renewed);
        // Through an open WebSocket no cookie can be set.
        assert_eq!((tell(&mut user, "renew"), tell(&mut user, "get")), ("too late".into(), "Ada".into()));

        let first = get(&server, scheme, "login=Grace", "");
        assert_eq!(first.headers("set-cookie").len(), 1, "one cookie, although it was made and renewed");
        assert_eq!(get(&server, scheme, "look", &pair(first.header("set-cookie").unwrap())).text(), "Grace");
    }
}

#[test]
fn on_pre_server_may_renew_also_if_it_refuses() {
    let server = serve(|builder| {
        routes(builder).route("/login", || {
            full_app(
                |opening: &mut Opening| {
                    let session = opening.session();
                    session.renew()?;
                    session.set("k", "Ada")?;
                    match opening.request().query() {
                        "refuse" => Err(StatusCode::FORBIDDEN.into()),
                        "panic" => panic!("on purpose"),
                        _ => Ok(()),
                    }
                },
                obey,
                |_: &Closed| {},
            )
        })
    });
    for scheme in SCHEMES {
        let (_, cookie) = connect_new(&server, scheme);
        let (mut client, renewed) = connect_at(&server, scheme, "/login", Some(&cookie));
        let renewed = renewed.unwrap();
        assert_ne!(id_in(&renewed), id_in(&cookie));
        assert_eq!(
            (tell(&mut client, "id"), tell(&mut client, "get")),
            (id_in(&renewed).into(), "Ada".into())
        );
        assert_eq!(tell(&mut connect_known(&server, scheme, &renewed), "get"), "Ada");

        let mut cookie = renewed;
        for (query, status) in [("refuse", 403), ("panic", 500)] {
            let head = handshake(&format!("/login?{query}"));
            let refused =
                server.ask(scheme, head.replace("\r\n\r\n", &format!("\r\nCookie: {cookie}\r\n\r\n")));
            assert_eq!(refused.status, status);
            let newest =
                pair(refused.header("set-cookie").expect("or the client would have lost its session"));
            assert_ne!(id_in(&newest), id_in(&cookie));
            assert_eq!(tell(&mut connect_known(&server, scheme, &newest), "get"), "Ada");
            cookie = newest;
        }
    }
}

#[test]
fn the_cookie_is_secure_behind_a_trusted_proxy_that_has_tls() {
    let trusting = serve(|builder| routes(builder).trusted_proxies(["127.0.0.1"]));
    let other = serve(routes);
    for (server, proto, is_secure) in [
        (&trusting, "https", true),
        (&trusting, "HTTPS, http", true),
        (&trusting, "wss", true),
        (&trusting, "http", false),
        (&trusting, "", false),
        (&trusting, "http, https", false),
        (&other, "https", false),
    ] {
        let line = format!("\r\nX-Forwarded-Proto: {proto}\r\n\r\n");
        let page = "GET /page?look HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned();
        for request in [handshake("/"), page] {
            let reply = server.ask(Scheme::Ws, request.replace("\r\n\r\n", &line));
            let cookie = reply.header("set-cookie").unwrap();
            assert_eq!(cookie.ends_with("; Secure"), is_secure, "{proto}: {cookie}");
        }
    }
}

#[test]
fn without_use_session_there_is_none() {
    let store = Foreign::default();
    let routes = |builder: ServerBuilder| {
        let pre = |opening: &mut Opening| {
            match opening.request().query() {
                "no" => opening.set_use_session(false),
                "yes" => opening.set_use_session(true),
                "forget" => {
                    opening.session().set("k", "x")?;
                    opening.set_use_session(false);
                }
                "ask" => drop(opening.session_id()?),
                _ => {}
            }
            Ok(())
        };
        let server = |ws: &mut WebSocket| {
            let found = (ws.session_id().is_some(), ws.session().is_some());
            Ok(ws.write(format!("{found:?}"))?)
        };
        builder
            .route("/pre", move || {
                full_app(pre, server, |closed: &Closed| closed.set_session_end_on_close(true))
            })
            .http("/page", page)
            .session_store(store.clone())
    };
    let (with, without) = (serve(routes), serve(|builder| routes(builder).use_session(false)));
    for (server, query, has) in [
        (&with, "", true),
        (&with, "no", false),
        (&with, "forget", false),
        (&without, "", false),
        (&without, "no", false),
        (&without, "yes", true),
        (&without, "ask", true),
    ] {
        for scheme in SCHEMES {
            let before = store.0.found.load(SeqCst);
            let (mut client, cookie) = connect_at(server, scheme, &format!("/pre?{query}"), None);
            assert_eq!(next_message(&mut client).into_text().unwrap().as_str(), format!("{:?}", (has, has)));
            assert_eq!(cookie.is_some(), has, "{query}");
            let found = store.0.found.load(SeqCst) - before;
            assert_eq!(found, usize::from(has || query == "forget"), "{query}");
            assert_eq!(server.get(scheme, "/page").headers("set-cookie").len(), 0);
            assert_eq!(server.get(scheme, "/page?look").headers("set-cookie").len(), 1);
        }
    }
}

#[test]
fn a_key_keeps_the_ids_over_a_restart_and_can_be_replaced() {
    const OLD: [u8; 32] = [1; 32];
    const NEW: &str = "d2hhdGV2ZXIsIGFzIGxvbmcgYXMgaXQgaXMgbG9uZw==";
    let start = |keys: Vec<&[u8]>| serve(|builder| routes(builder).session_keys(keys));
    let before = start(vec![&OLD]);
    let restarted = start(vec![&OLD]);
    let rotating = start(vec![NEW.as_bytes(), &OLD]);
    let rotated = start(vec![NEW.as_bytes()]);
    for scheme in SCHEMES {
        let (_, cookie) = connect_new(&before, scheme);
        let id = id_in(&cookie);
        assert_eq!(tell(&mut connect_known(&restarted, scheme, &cookie), "id"), id);
        let (mut client, replaced) = connect(&rotating, scheme, Some(&cookie));
        let replaced = replaced.expect("the new key has signed it");
        assert_eq!((tell(&mut client, "id"), id_in(&replaced)), (id.into(), id));
        assert_ne!(replaced, cookie);
        for server in [&rotating, &rotated] {
            assert_eq!(tell(&mut connect_known(server, scheme, &replaced), "id"), id);
        }
        assert_ne!(id_in(&connect(&rotated, scheme, Some(&cookie)).1.unwrap()), id, "the old key is gone");
    }
}

#[test]
fn the_cookie_has_the_name_and_the_age_that_are_given() {
    let cookie = SessionCookie::new("__Host-mine").max_age(Duration::from_secs(3600));
    let server = serve(|builder| routes(builder).session_cookie(cookie));
    let reply = server.ask(Scheme::Wss, handshake("/"));
    let set = reply.header("set-cookie").unwrap();
    assert!(set.starts_with("__Host-mine="), "{set}");
    assert!(set.ends_with("; Path=/; HttpOnly; SameSite=Lax; Max-Age=3600; Secure"), "{set}");
    drop(connect_known(&server, Scheme::Wss, &pair(set)));
}

#[test]
fn mistakes_in_the_settings_are_told_by_bind() {
    let bind = |configure: fn(ServerBuilder) -> ServerBuilder| {
        configure(Server::builder().listen("127.0.0.1:0")).bind().unwrap_err().to_string()
    };
    assert_eq!(bind(|b| b.session_keys(["short"])), "session key 1 has 5 bytes: it needs at least 32");
    assert_eq!(bind(|b| b.session_keys([""; 0])), "session keys: there is none");
    let name = bind(|b| b.session_cookie(SessionCookie::new("a;b")));
    assert_eq!(name, "\"a;b\" cannot be the name of a cookie");
    let shown = format!("{:?}", Server::builder().session_keys(["0123456789abcdefghijABCDEFGHIJXYZ"]));
    assert!(!shown.contains("0123") && !shown.contains("48, 49"), "{shown}");
}

/// The session store of a program that already has sessions.
#[derive(Debug, Default)]
struct Own {
    values: Mutex<HashMap<(String, String), String>>,
    found: AtomicUsize,
    released: Mutex<Vec<SessionId>>,
    kept: Mutex<HashSet<SessionId>>,
    fails: AtomicBool,
}

#[derive(Debug, Clone, Default)]
struct Foreign(Arc<Own>);

impl Foreign {
    fn check(&self) -> StoreResult<()> {
        if self.0.fails.load(SeqCst) { Err("on purpose".into()) } else { Ok(()) }
    }
}

impl SessionStore for Foreign {
    fn find(&self, request: &Request) -> StoreResult<Option<FoundSession>> {
        self.check()?;
        self.0.found.fetch_add(1, SeqCst);
        Ok(Some(match request.cookie(NAME) {
            Some(user) => FoundSession::known(user.parse()?),
            None => FoundSession::new("guest".parse()?).with_max_age(Duration::from_secs(60)),
        }))
    }

    fn get(&self, id: &SessionId, key: &str) -> StoreResult<Option<String>> {
        self.check()?;
        Ok(self.0.values.lock().unwrap().get(&(id.to_string(), key.to_owned())).cloned())
    }

    fn set(&self, id: &SessionId, key: &str, value: &str) -> StoreResult<()> {
        self.check()?;
        if id.as_str() == "guest" && key == "k" && value == "too much" {
            return Err(Error::SessionsFull.into());
        }
        self.0.values.lock().unwrap().insert((id.to_string(), key.to_owned()), value.to_owned());
        Ok(())
    }

    fn remove(&self, id: &SessionId, key: &str) -> StoreResult<()> {
        self.check()?;
        self.0.values.lock().unwrap().remove(&(id.to_string(), key.to_owned()));
        Ok(())
    }

    fn end(&self, id: &SessionId) -> StoreResult<()> {
        self.check()?;
        self.0.values.lock().unwrap().retain(|(user, _), _| user != id.as_str());
        Ok(())
    }

    fn renew(&self, old: &SessionId, _: SessionId) -> StoreResult<SessionId> {
        self.check()?;
        let new = SessionId::new(format!("{old}-again"))?;
        let mut values = self.0.values.lock().unwrap();
        let moved: Vec<_> = values.extract_if(|(user, _), _| user == old.as_str()).collect();
        values.extend(moved.into_iter().map(|((_, key), value)| ((new.to_string(), key), value)));
        Ok(new)
    }

    fn keep(&self, ids: &[SessionId]) -> StoreResult<()> {
        self.check()?;
        *self.0.kept.lock().unwrap() = ids.iter().cloned().collect();
        Ok(())
    }

    fn release(&self, id: &SessionId) -> StoreResult<()> {
        self.check()?;
        self.0.released.lock().unwrap().push(id.clone());
        Ok(())
    }
}

#[test]
fn a_program_can_provide_its_own_sessions() {
    let store = Foreign::default();
    let mut limits = Limits::default();
    limits.session_timeout = Duration::from_millis(400);
    let server = serve(|builder| {
        routes(builder)
            .limits(limits)
            .route("/panic", || full_app(|_: &mut Opening| panic!("on purpose"), obey, |_: &Closed| {}))
            .route("/no", || {
                full_app(|_: &mut Opening| Err(Refusal::from(StatusCode::FORBIDDEN)), obey, |_: &Closed| {})
            })
            .session_store(store.clone())
    });
    for scheme in SCHEMES {
        let reply = server.ask(scheme, handshake("/"));
        let secure = if scheme == Scheme::Wss { "; Secure" } else { "" };
        let wanted = format!("{NAME}=guest; Path=/; HttpOnly; SameSite=Lax; Max-Age=60{secure}");
        assert_eq!(reply.headers("set-cookie"), [wanted], "as the store made it, and safe");
        let (mut guest, _) = connect(&server, scheme, None);
        assert_eq!(
            (tell(&mut guest, "id"), tell(&mut guest, "set too much")),
            ("guest".into(), "full".into())
        );

        let user = format!("{NAME}=ada");
        let mut ada = connect_known(&server, scheme, &user);
        assert_eq!((tell(&mut ada, "id"), tell(&mut ada, "set lovelace")), ("ada".into(), "done".into()));
        assert_eq!(store.0.values.lock().unwrap()[&("ada".to_owned(), "k".to_owned())], "lovelace");
        assert_eq!(get(&server, scheme, "look", &user).text(), "lovelace");
        let (parked, _) = connect_at(&server, scheme, "/parked", Some(&format!("{NAME}=joan")));
        eventually("the store learns which sessions are in use", || {
            let kept = store.0.kept.lock().unwrap();
            ["guest", "ada", "joan"].iter().all(|id| kept.contains(&id.parse().unwrap()))
        });
        assert_eq!(tell(&mut ada, "end-on-close"), "done");
        for client in [ada, parked] {
            close(client);
        }
        eventually("the session has ended", || store.0.values.lock().unwrap().is_empty());
        eventually("the store learns who has left", || {
            store.0.released.lock().unwrap().iter().any(|id| id.as_str() == "joan")
        });
        assert!(store.0.released.lock().unwrap().iter().all(|id| id.as_str() != "ada"), "it has ended");
        store.0.released.lock().unwrap().clear();
        eventually("nobody is connected but the guest", || store.0.kept.lock().unwrap().len() == 1);

        let renewed = get(&server, scheme, "login=x", &user);
        assert_eq!(pair(renewed.header("set-cookie").unwrap()), format!("{NAME}=ada-again"));
        get(&server, scheme, "set=", &format!("{NAME}=ada-again"));
        store.0.values.lock().unwrap().clear();

        let found = store.0.found.load(SeqCst);
        assert_eq!(server.ask(scheme, handshake("/panic")).status, 500);
        assert_eq!(server.ask(scheme, handshake("/no")).status, 403);
        assert_eq!(server.get(scheme, "/page").text(), "no session");
        assert_eq!(store.0.found.load(SeqCst), found, "who does not use the session does not ask for it");
        let long = "x".repeat(300);
        let head = handshake("/").replace("\r\n\r\n", &format!("\r\nCookie: {NAME}={long}\r\n\r\n"));
        assert_eq!(server.ask(scheme, head).status, 503, "what cannot be an ID is the store's to refuse");
    }
}

#[test]
fn a_store_that_fails_is_503_for_those_who_need_it() {
    let store = Foreign::default();
    let (ended, ends) = mpsc::channel();
    let server = serve(|builder| {
        let pre = |opening: &mut Opening| {
            opening.set_use_session(opening.request().query() != "without");
            if opening.request().query() == "asks" {
                opening.session().get("k")?;
            }
            Ok(())
        };
        routes(builder).session_store(store.clone()).route("/app", move || {
            let ended = ended.clone();
            full_app(
                pre,
                |ws: &mut WebSocket| Ok(ws.write("open")?),
                move |closed: &Closed| {
                    ended.send((closed.reason().code().0, closed.session_id().is_some())).unwrap();
                },
            )
        })
    });
    for scheme in SCHEMES {
        let mut open = connect(&server, scheme, None).0;
        store.0.fails.store(true, SeqCst);
        for command in ["get", "set x", "remove", "end"] {
            assert_eq!(tell(&mut open, command), "failed", "{command}");
        }
        for request in [
            handshake("/"),
            handshake("/parked"),
            handshake("/app"),
            handshake("/app?asks"),
            "GET /page?look HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        ] {
            let reply = server.ask(scheme, request);
            assert_eq!((reply.status, reply.header("retry-after")), (503, Some("5")));
            assert_eq!(reply.refusal(), "503 Service Unavailable: try again later");
            assert_eq!(reply.header("set-cookie"), None);
        }
        assert_eq!(ends.recv_timeout(PATIENCE).unwrap(), (1006, false), "it had said yes");
        assert!(ends.try_recv().is_err(), "and here no");
        assert_eq!(server.get(scheme, "/page").text(), "no session");
        let mut client = server.connect(scheme, "/app?without");
        assert_eq!(next_message(&mut client), Message::text("open"));
        read_close(&mut client);
        let _ = client.flush();
        drop(client);
        assert_eq!(ends.recv_timeout(PATIENCE).unwrap(), (1000, false));
        store.0.fails.store(false, SeqCst);
        assert_eq!(tell(&mut open, "get"), "nothing", "it works again");
        drop(connect(&server, scheme, None));
        close(open);
        eventually("their places are free", || server.handle.connections() == 0);
    }
}

/// A store as one in a database would be, whose IDs are the server's: counts its calls.
#[derive(Debug, Clone, Default)]
struct Database(Arc<Mutex<Vec<String>>>);

impl Database {
    fn call(&self, what: &str) {
        self.0.lock().unwrap().push(what.to_owned());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

impl SessionStore for Database {
    fn open(&self, id: &SessionId) -> StoreResult<bool> {
        self.call(&format!("open {id}"));
        Ok(true)
    }
    fn get(&self, _: &SessionId, _: &str) -> StoreResult<Option<String>> {
        self.call("get");
        Ok(None)
    }
    fn set(&self, _: &SessionId, _: &str, _: &str) -> StoreResult<()> {
        Ok(())
    }
    fn remove(&self, _: &SessionId, _: &str) -> StoreResult<()> {
        Ok(())
    }
    fn end(&self, _: &SessionId) -> StoreResult<()> {
        Ok(())
    }
}

#[test]
fn a_store_of_values_is_asked_once_for_a_handshake() {
    let database = Database::default();
    let server = serve(|builder| routes(builder).session_store(database.clone()));
    for scheme in SCHEMES {
        let (client, cookie) = connect_new(&server, scheme);
        close(client);
        eventually("it has left", || server.handle.connections() == 0);
        assert_eq!(database.take(), [""; 0], "nothing can be stored for a stranger");
        let mut client = connect_known(&server, scheme, &cookie);
        assert_eq!(tell(&mut client, "id"), id_in(&cookie));
        close(client);
        eventually("it has left", || server.handle.connections() == 0);
        assert_eq!(database.take(), [format!("open {}", id_in(&cookie))]);
        let reply = get(&server, scheme, "login=x", &cookie);
        assert_eq!(reply.status, 503, "it cannot renew");
        assert_eq!(reply.header("set-cookie"), None);
        database.take();
    }
}

/// Keeps its session, for its messages, and tells what is stored there.
#[derive(Default)]
struct Keeper {
    session: Option<Session>,
}

impl WebSocketServer for Keeper {
    fn on_pre_server(&mut self, opening: &mut Opening) -> std::result::Result<(), Refusal> {
        opening.set_shared_connection(true);
        self.session = Some(opening.session().clone());
        Ok(())
    }

    fn server(&mut self, _: &mut WebSocket) -> ServerResult {
        Ok(())
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: switchboard::Message) -> Handled {
        let session = self.session.as_ref().unwrap();
        assert_eq!(session.id().ok().as_ref(), ws.session_id());
        assert!(matches!(session.renew(), Err(Error::TooLate)));
        let before = session.get("k").unwrap().unwrap_or_default();
        let stored = session.set("k", message.as_text().unwrap());
        ws.write(stored.map_or_else(|e| e.to_string(), |()| before)).unwrap();
        Handled::Yes
    }
}

#[test]
fn a_shared_connection_may_keep_its_session() {
    for workers in [2, 0] {
        let mut limits = Limits::default();
        limits.workers = workers;
        let server = serve(|builder| routes(builder.limits(limits)).route("/keeper", Keeper::default));
        for scheme in SCHEMES {
            let first = server.get(scheme, "/page?set=page");
            let cookie = first.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
            let (mut shared, _) = server.try_connect(scheme, "/keeper", &[("cookie", &cookie)]).unwrap();
            let (mut other, _) = server.try_connect(scheme, "/", &[("cookie", &cookie)]).unwrap();
            assert_eq!(tell(&mut shared, "shared"), "page");
            assert_eq!(tell(&mut other, "get"), "shared");
            assert_eq!(tell(&mut other, "set other"), "done");
            assert_eq!(tell(&mut shared, "again"), "other");
            // Renewed by a page, it is another session, of which the old connections know nothing.
            let request =
                format!("GET /page?login=in HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n");
            assert_eq!(server.ask(scheme, request).text(), "in");
            assert!(tell(&mut shared, "late").contains("has another ID now"));
        }
    }
}

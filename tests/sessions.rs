#![cfg(feature = "tls")]
//! Sessions, from the first cookie to their end.

mod common;

use std::{
    collections::HashMap,
    net::Shutdown,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use common::{
    Client, PATIENCE, SCHEMES, Scheme, TestServer, app, eventually, full_app, handshake, next_message,
    read_close, reply::Reply, serve,
};
use switchboard::{
    Closed, Error, Exchange, Limits, Opened, Opening, Refusal, Request, Response, Result, ServerBuilder,
    ServerResult, SessionId, SessionStore, StatusCode, WebSocket,
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
        assert_eq!(ws.session_id(), session.id());
        match verb {
            "get" => ws.write(session.get("k").unwrap_or_else(|| "nothing".into()))?,
            "id" => ws.write(session.id().as_str())?,
            "set" => match session.set("k", value) {
                Ok(()) => ws.write("done")?,
                Err(Error::SessionsFull) => ws.write("full")?,
                Err(e) => return Err(e.into()),
            },
            _ => {
                match verb {
                    "remove" => session.remove("k"),
                    "touch" => session.touch(),
                    "end" => session.end(),
                    "panic" => panic!("on purpose"),
                    _ => {}
                }
                ws.write("done")?;
            }
        }
    }
    Ok(())
}

fn tell(client: &mut Client, command: &str) -> String {
    client.send(Message::text(command)).unwrap();
    next_message(client).into_text().unwrap().to_string()
}

/// The page: `?set=VALUE` sets `k` in the session, `?look` returns it, else the session is not used.
fn page(exchange: &Exchange<'_>) -> Response {
    let request = exchange.request();
    if let Some(value) = request.query_value("set") {
        exchange.session().set("k", &value).unwrap();
    }
    let text = match request.query() {
        "" => "no session".to_owned(),
        _ => exchange.session().get("k").unwrap_or_else(|| "nothing".into()),
    };
    Response::text(StatusCode::OK, text)
}

fn serve_sessions(limits: Limits) -> TestServer {
    serve(|builder| builder.limits(limits).route("/", || app(obey)).http("/page", page))
}

/// Connects, with the cookie if there is one. Also returns the cookie that the response sets.
fn connect(server: &TestServer, scheme: Scheme, cookie: Option<&str>) -> (Client, Option<String>) {
    let headers: Vec<_> = cookie.iter().map(|cookie| ("cookie", *cookie)).collect();
    let (client, response) = server.try_connect(scheme, "/", &headers).unwrap();
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

/// The name and the value in a `Set-Cookie` header.
fn pair(cookie: &str) -> String {
    cookie.split(';').next().unwrap().to_owned()
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
            let id = parts.remove(0).strip_prefix(&format!("{NAME}=")).unwrap();
            parts.sort_unstable();
            match scheme {
                Scheme::Ws => assert_eq!(parts, ["HttpOnly", "Path=/", "SameSite=Lax"]),
                Scheme::Wss => assert_eq!(parts, ["HttpOnly", "Path=/", "SameSite=Lax", "Secure"]),
            }
            let is_plain = |c: u8| c.is_ascii_alphanumeric() || b"-_".contains(&c);
            assert!(id.len() >= 22 && id.bytes().all(is_plain), "128 bits: {id}");
            assert_eq!(tell(&mut client, "id"), id);
            ids.push(id.to_owned());
        }
        assert_ne!(ids[0], ids[1], "without a cookie each connection has a new session");
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
fn a_page_has_the_same_session() {
    let server = serve_sessions(Limits::default());
    let get = |scheme, query: &str, cookie: &str| -> Reply {
        let head = format!("GET /page?{query} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n");
        server.ask(scheme, head)
    };
    for scheme in SCHEMES {
        let (mut client, cookie) = connect_new(&server, scheme);
        tell(&mut client, "set Ada");
        let reply = get(scheme, "look", &cookie);
        assert_eq!((reply.text(), reply.header("set-cookie")), ("Ada", None));
        get(scheme, "set=Grace", &cookie);
        assert_eq!(tell(&mut client, "get"), "Grace");

        // In the other direction: made by the page, found by the WebSocket.
        let reply = get(scheme, "set=Joan", "a=b");
        let cookie = reply.header("set-cookie").unwrap();
        assert_eq!(cookie.contains("; Secure"), scheme == Scheme::Wss, "{cookie}");
        assert!(cookie.contains("; HttpOnly") && cookie.contains("; SameSite=Lax"), "{cookie}");
        let mut client = connect_known(&server, scheme, &pair(cookie));
        assert_eq!(tell(&mut client, "get"), "Joan");

        let reply = get(scheme, "", "a=b");
        assert_eq!(
            (reply.text(), reply.header("set-cookie")),
            ("no session", None),
            "the page did not use the session"
        );
    }
}

#[test]
fn an_id_that_the_server_did_not_make_is_not_adopted() {
    let server = serve_sessions(Limits::default());
    for scheme in SCHEMES {
        for planted in ["planted", "", "aaaaaaaaaaaaaaaaaaaaaaaaaa"] {
            let (mut client, cookie) = connect(&server, scheme, Some(&format!("{NAME}={planted}")));
            let id = tell(&mut client, "id");
            assert_ne!(id, planted);
            assert_eq!(cookie, Some(format!("{NAME}={id}")));
            tell(&mut client, "set Ada");
            let (mut attacker, _) = connect(&server, scheme, Some(&format!("{NAME}={planted}")));
            assert_eq!(tell(&mut attacker, "get"), "nothing");
        }
    }
}

#[test]
fn a_session_may_end_with_a_connection_however_that_ends() {
    let server = serve(|builder| {
        builder.route("/", || app(obey)).route("/ending", || {
            full_app(
                |opening: &mut Opening| {
                    opening.set_session_end_on_close(true);
                    Ok(())
                },
                obey,
                |_: &Closed| {},
            )
        })
    });
    for scheme in SCHEMES {
        for (path, end) in [("/ending", "close"), ("/", "close"), ("/", "cut"), ("/", "panic")] {
            let (mut other, cookie) = connect_new(&server, scheme);
            tell(&mut other, "set Ada");
            let (mut ending, _) = server.try_connect(scheme, path, &[("cookie", &cookie)]).unwrap();
            if path == "/" {
                tell(&mut ending, "end-on-close");
            }
            assert_eq!(tell(&mut ending, "get"), "Ada");
            assert_eq!(tell(&mut other, "get"), "Ada", "not before the end");
            match end {
                "close" => close(ending),
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
    }
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
fn an_unused_session_ends() {
    let mut limits = Limits::default();
    limits.session_timeout = Duration::from_millis(200);
    let timeout = limits.session_timeout;
    let server = serve_sessions(limits);
    for scheme in SCHEMES {
        let (mut open, _) = connect_new(&server, scheme);
        tell(&mut open, "set Ada");
        let (mut closed, cookie) = connect_new(&server, scheme);
        tell(&mut closed, "set Grace");
        close(closed);
        std::thread::sleep(timeout); // waiting is the only way to see that nothing happens
        assert_eq!(tell(&mut open, "get"), "nothing");
        let (mut again, _) = connect(&server, scheme, Some(&cookie));
        assert_eq!(tell(&mut again, "get"), "nothing");
        assert_eq!(tell(&mut open, "set Joan"), "done", "it can be used again");
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
    let lives = tell(&mut connect_known(server, Scheme::Ws, cookie), "get") == "Ada";
    (last.elapsed() < timeout).then_some(lives)
}

#[test]
fn a_session_in_use_does_not_end() {
    let mut limits = Limits::default();
    limits.session_timeout = Duration::from_millis(1500);
    let timeout = limits.session_timeout;
    let server = serve_sessions(limits);
    for way in ["get", "set Ada", "touch", "handshake"] {
        let mut attempts = (0..10).map(|_| {
            let (mut client, cookie) = connect_new(&server, Scheme::Ws);
            tell(&mut client, "set Ada");
            outlives(&server, &cookie, timeout, || match way {
                "handshake" => drop(server.ask(
                    Scheme::Ws,
                    handshake("/").replace("\r\n\r\n", &format!("\r\nCookie: {cookie}\r\n\r\n")),
                )),
                way => drop(tell(&mut client, way)),
            })
        });
        assert_eq!(attempts.find_map(|lives| lives), Some(true), "{way}");
    }
}

#[test]
fn a_session_without_values_ends_with_its_connection() {
    let server = serve_sessions(Limits::default());
    for scheme in SCHEMES {
        let mut visits = vec![connect_new(&server, scheme)];
        let (mut removed, cookie) = connect_new(&server, scheme);
        tell(&mut removed, "set Ada");
        tell(&mut removed, "remove");
        visits.push((removed, cookie));
        let (mut ended, cookie) = connect_new(&server, scheme);
        tell(&mut ended, "set Ada");
        tell(&mut ended, "end");
        visits.push((ended, cookie));
        for (client, cookie) in visits {
            drop(connect_known(&server, scheme, &cookie)); // while it is open it is known
            close(client);
            eventually("who held nothing is unknown", || connect(&server, scheme, Some(&cookie)).1.is_some());
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
        assert_eq!(tell(&mut open[2], "set Joan"), "full");
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

/// The session store of a program that already has sessions.
#[derive(Debug, Default)]
struct Own {
    values: Mutex<HashMap<(String, String), String>>,
    opened: AtomicUsize,
    released: AtomicUsize,
}

#[derive(Debug, Clone, Default)]
struct Shared(Arc<Own>);

impl SessionStore for Shared {
    fn open(&self, request: &Request) -> Opened {
        self.0.opened.fetch_add(1, SeqCst);
        let user = request.cookie("user");
        let set_cookie = user.is_none().then(|| "user=guest; Path=/own".to_owned());
        Opened { id: SessionId::new(user.unwrap_or("guest")), set_cookie }
    }

    fn get(&self, id: &SessionId, key: &str) -> Option<String> {
        self.0.values.lock().unwrap().get(&(id.to_string(), key.to_owned())).cloned()
    }

    fn set(&self, id: &SessionId, key: &str, value: &str) -> Result<()> {
        if id.as_str() == "guest" {
            return Err(Error::SessionsFull);
        }
        self.0.values.lock().unwrap().insert((id.to_string(), key.to_owned()), value.to_owned());
        Ok(())
    }

    fn remove(&self, id: &SessionId, key: &str) {
        self.0.values.lock().unwrap().remove(&(id.to_string(), key.to_owned()));
    }

    fn end(&self, id: &SessionId) {
        self.0.values.lock().unwrap().retain(|(user, _), _| user != id.as_str());
    }

    fn release(&self, _: &SessionId) {
        self.0.released.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_program_can_provide_its_own_session_store() {
    let store = Shared::default();
    let routes = |builder: ServerBuilder| {
        builder
            .route("/", || app(obey))
            .route("/panic", || full_app(|_: &mut Opening| panic!("on purpose"), obey, |_: &Closed| {}))
            .route("/no", || {
                full_app(|_: &mut Opening| Err(Refusal::from(StatusCode::FORBIDDEN)), obey, |_: &Closed| {})
            })
            .http("/page", page)
            .session_store(store.clone())
    };
    let server = serve(routes);
    for scheme in SCHEMES {
        let (mut guest, response) = server.try_connect(scheme, "/", &[]).unwrap();
        assert_eq!(response.headers()["set-cookie"], "user=guest; Path=/own", "as the store made it");
        assert_eq!((tell(&mut guest, "id"), tell(&mut guest, "set x")), ("guest".into(), "full".into()));

        let mut ada = connect_known(&server, scheme, "user=ada");
        assert_eq!((tell(&mut ada, "id"), tell(&mut ada, "set lovelace")), ("ada".into(), "done".into()));
        assert_eq!(store.0.values.lock().unwrap()[&("ada".to_owned(), "k".to_owned())], "lovelace");
        let head = "GET /page?look HTTP/1.1\r\nHost: localhost\r\nCookie: user=ada\r\n\r\n";
        assert_eq!(server.ask(scheme, head).text(), "lovelace");
        assert_eq!(tell(&mut ada, "end-on-close"), "done");
        close(ada);
        eventually("the session has ended", || store.0.values.lock().unwrap().is_empty());

        assert_eq!(server.ask(scheme, handshake("/panic")).status, 500);
        assert_eq!(server.ask(scheme, handshake("/no")).status, 403);
        assert_eq!(server.get(scheme, "/page").text(), "no session");
    }
    server.shutdown(PATIENCE);
    let (opened, released) = (store.0.opened.load(SeqCst), store.0.released.load(SeqCst));
    assert_eq!((opened, released), (10, 10), "each open is followed by one release, and none is for nothing");
}

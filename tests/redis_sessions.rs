#![cfg(all(feature = "cluster", feature = "__tls"))]
//! Sessions in a Redis that two servers share: what they keep, and what comes of it when Redis fails.

mod common;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use common::{
    Client, PATIENCE, Scheme, TestServer, Until, app, eventually, handshake, next_message, read_close,
    redis::{Delaying, RedisServer},
    reply::Reply,
    serve,
};
use switchboard::{
    Error, Exchange, Limits, Redis, RedisStore, Refusal, Response, ServerResult, SessionId, SessionStore,
    StatusCode, WebSocket,
};
use tungstenite::Message;

/// Each message is a command for the session's value `k`. Answers with the result.
fn obey(ws: &mut WebSocket) -> ServerResult {
    for message in ws.messages() {
        let command = message.as_text().ok_or("a command is text")?.to_owned();
        let (verb, value) = command.split_once(' ').unwrap_or((&command, ""));
        if verb == "end-on-close" {
            ws.set_session_end_on_close(true);
        }
        let session = ws.session().ok_or("there is a session")?;
        let result = match verb {
            "get" => session.get("k").map(|value| value.unwrap_or_else(|| "nothing".into())),
            "set" => session.set("k", value).map(|()| "done".into()),
            "end" => session.end().map(|()| "done".into()),
            _ => Ok("done".into()),
        };
        ws.write(match result {
            Ok(text) => text,
            Err(Error::SessionsFull) => "full".into(),
            Err(Error::SessionRenewed) => "renewed".into(),
            Err(Error::SessionStore(_)) => "failed".into(),
            Err(e) => return Err(e.into()),
        })?;
    }
    Ok(())
}

fn echo(ws: &mut WebSocket) -> ServerResult {
    while let Ok(message) = ws.read_message(PATIENCE) {
        ws.write(message)?;
    }
    Ok(())
}

/// With `?login` the session is renewed; with `set` or `login` the value is set; it is shown.
fn page(exchange: &Exchange<'_>) -> Result<Response, Refusal> {
    let session = exchange.session();
    let request = exchange.request();
    if request.query_value("login").is_some() {
        session.renew()?;
    }
    if let Some(value) = request.query_value("set").or_else(|| request.query_value("login")) {
        session.set("k", &value)?;
    }
    Ok(Response::text(StatusCode::OK, session.get("k")?.unwrap_or_else(|| "nothing".into())))
}

fn store(server: &RedisServer) -> RedisStore {
    RedisStore::new(Redis::new(server.url()).unwrap())
}

/// One of several servers with the same sessions.
fn serve_with(store: RedisStore, limits: Limits) -> TestServer {
    serve(|builder| {
        let builder = builder.session_store(store).session_keys(["32 bytes, the same of all servers"]);
        let show = |exchange: &Exchange<'_>| page(exchange).unwrap_or_else(Response::from);
        let builder = builder.route("/", || app(obey)).http("/page", show);
        let plain = |opening: &mut switchboard::Opening| {
            opening.set_use_session(false);
            Ok(())
        };
        let without = move || common::full_app(plain, echo, |_: &switchboard::Closed| {});
        builder.route("/without", without).limits(limits)
    })
}

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

fn serve_at(server: &RedisServer) -> TestServer {
    serve_with(store(server), Limits::default())
}

fn tell(client: &mut Client, command: &str) -> String {
    client.send(Message::text(command)).unwrap();
    next_message(client).into_text().unwrap().to_string()
}

/// A connection with this cookie, or a new session's. Also the cookie that the answer sets.
fn connect(server: &TestServer, cookie: Option<&str>) -> (Client, Option<String>) {
    let headers: Vec<_> = cookie.iter().map(|cookie| ("cookie", *cookie)).collect();
    let (client, response) = server.try_connect(Scheme::Ws, "/", &headers).unwrap();
    let cookie = response.headers().get("set-cookie").map(|cookie| pair(cookie.to_str().unwrap()));
    (client, cookie)
}

fn get(server: &TestServer, query: &str, cookie: &str) -> Reply {
    let head = format!("GET /page?{query} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n");
    server.ask(Scheme::Ws, head)
}

fn pair(cookie: &str) -> String {
    cookie.split(';').next().unwrap().to_owned()
}

/// The key of a cookie's session.
fn key(cookie: &str) -> String {
    let id = cookie.split(['=', '.']).nth(1).unwrap();
    format!("switchboard:session:{id}")
}

/// The answer to a handshake that needs a session.
fn try_handshake(server: &TestServer) -> u16 {
    server.ask(Scheme::Ws, handshake("/")).status
}

/// Who needs no session does not notice.
fn assert_others_work(server: &TestServer) {
    let mut client = server.connect(Scheme::Ws, "/without");
    assert_eq!(tell(&mut client, "x"), "x");
}

/// An ID with a cookie's form, for stores without a server.
fn new_id() -> SessionId {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    SessionId::new(format!("id-{}", NEXT.fetch_add(1, SeqCst))).unwrap()
}

fn is_full(result: Result<(), Box<dyn std::error::Error + Send + Sync>>) -> bool {
    result.is_err_and(|e| matches!(e.downcast_ref(), Some(Error::SessionsFull)))
}

fn is_renewed<T>(result: Result<T, Box<dyn std::error::Error + Send + Sync>>) -> bool {
    result.is_err_and(|e| matches!(e.downcast_ref(), Some(Error::SessionRenewed)))
}

#[test]
fn a_page_of_one_server_and_a_socket_of_another_one_have_one_session() {
    let redis = RedisServer::start();
    let (one, other) = (serve_at(&redis), serve_at(&redis));
    let reply = get(&one, "set=Ada", "");
    let cookie = pair(reply.header("set-cookie").unwrap());
    let (mut client, new) = connect(&other, Some(&cookie));
    assert_eq!((tell(&mut client, "get").as_str(), new), ("Ada", None));
    tell(&mut client, "set Grace");
    assert_eq!(get(&one, "", &cookie).text(), "Grace");
    one.shutdown(Duration::ZERO);
    assert_eq!(get(&serve_at(&redis), "", &cookie).text(), "Grace", "it outlives a server");
    // With another prefix there are other sessions.
    let third = serve_with(store(&redis).prefix("third:"), Limits::default());
    assert_eq!(get(&third, "", &cookie).text(), "nothing");
    assert_eq!(get(&third, "set=x", &cookie).text(), "x");
    assert_eq!(tell(&mut client, "get"), "Grace");
    assert_eq!(redis.command(&["EXISTS", &key(&cookie), &key(&cookie).replace("switchboard", "third")]), "2");
}

#[test]
fn a_session_that_holds_nothing_is_not_stored() {
    let redis = RedisServer::start();
    let server = serve_at(&redis);
    let (mut client, cookie) = connect(&server, None);
    for _ in 0..10 {
        let (mut client, none) = connect(&server, cookie.as_deref());
        assert_eq!((tell(&mut client, "get").as_str(), none), ("nothing", None));
    }
    assert_eq!(redis.command(&["DBSIZE"]), "0");
    tell(&mut client, "set x");
    assert_eq!(redis.command(&["DBSIZE"]), "1");
    tell(&mut client, "end");
    assert_eq!(redis.command(&["DBSIZE"]), "0");
}

#[test]
fn a_session_expires_unless_a_connection_is_open() {
    let redis = RedisServer::start();
    let timeout = Duration::from_secs(2);
    let server = serve_with(store(&redis), limits(|limits| limits.session_timeout = timeout));
    let (mut open, cookie) = connect(&server, None);
    let (mut brief, gone) = connect(&server, None);
    let (cookie, gone) = (cookie.unwrap(), gone.unwrap());
    tell(&mut open, "set Ada");
    tell(&mut brief, "set Grace");
    let left: u64 = redis.command(&["PTTL", &key(&gone)]).parse().unwrap();
    assert!((1..=2250).contains(&left), "an eighth more at most: {left}");
    brief.close(None).unwrap();
    read_close(&mut brief);
    drop(brief);
    let begun = Instant::now();
    eventually("the unused one is gone", || redis.command(&["EXISTS", &key(&gone)]) == "0");
    thread::sleep((timeout * 3).saturating_sub(begun.elapsed())); // that nothing happens has no event
    assert_eq!(tell(&mut open, "get"), "Ada", "three times its timeout later");
    assert_eq!(get(&server, "", &gone).text(), "nothing");
    open.close(None).unwrap();
    read_close(&mut open);
    drop(open);
    eventually("this one, too", || redis.command(&["EXISTS", &key(&cookie)]) == "0");
}

#[test]
fn a_time_that_was_chosen_counts_instead_of_the_servers() {
    let redis = RedisServer::start();
    let store = store(&redis).timeout(Duration::from_secs(80));
    store.begin(&limits(|limits| limits.session_timeout = Duration::from_secs(8)));
    let id = new_id();
    store.set(&id, "k", "v").unwrap();
    let key = format!("switchboard:session:{}", id.as_str());
    let left = || redis.command(&["PTTL", &key]).parse::<u64>().unwrap();
    type Use = fn(&RedisStore, &SessionId);
    let uses: [Use; 5] = [
        |store, id| assert!(store.open(id).unwrap()),
        |store, id| assert_eq!(store.get(id, "k").unwrap().as_deref(), Some("v")),
        |store, id| store.set(id, "k", "v").unwrap(),
        |store, id| store.touch(id).unwrap(),
        |store, id| store.keep(&[id.clone(), id.clone()]).unwrap(),
    ];
    for restart in uses {
        assert!((60_000..=90_000).contains(&left()));
        redis.command(&["PEXPIRE", &key, "50000"]);
        restart(&store, &id);
    }
    assert!((60_000..=90_000).contains(&left()));
    let forever = self::store(&redis).timeout(Duration::MAX);
    forever.set(&id, "k", "v").unwrap();
    assert!(left() > 1_000_000_000_000);
}

#[test]
fn a_renewed_id_has_the_values_and_the_old_one_is_dead_everywhere() {
    let redis = RedisServer::start();
    let (one, other) = (serve_at(&redis), serve_at(&redis));
    let (mut before, cookie) = connect(&other, None);
    let cookie = cookie.unwrap();
    tell(&mut before, "set stranger");
    let reply = get(&one, "login=Ada", &cookie);
    let new = pair(reply.header("set-cookie").unwrap());
    assert_eq!(get(&other, "", &new).text(), "Ada");
    assert_eq!(tell(&mut before, "get"), "nothing");
    assert_eq!(tell(&mut before, "set x"), "renewed");
    assert_eq!(tell(&mut before, "end"), "done");
    assert_eq!(tell(&mut before, "set x"), "renewed", "to end a dead one does not bring it to life");
    let reply = get(&other, "", &cookie);
    let third = pair(reply.header("set-cookie").expect("the old ID is refused"));
    assert!(key(&third) != key(&cookie) && key(&third) != key(&new));
    assert_eq!(reply.text(), "nothing");
    for key in [key(&new), key(&cookie)] {
        let left: i64 = redis.command(&["PTTL", &key]).parse().unwrap();
        assert!((500_000..=1_012_500).contains(&left), "nothing stays for ever: {left}");
    }
    assert_eq!(redis.command(&["DBSIZE"]), "2");
}

#[test]
fn of_many_who_renew_an_id_one_does() {
    let redis = RedisServer::start();
    let old = new_id();
    store(&redis).set(&old, "k", "v").unwrap();
    let stores: Vec<_> = (0..8).map(|_| store(&redis)).collect();
    let renewed: Vec<_> = thread::scope(|scope| {
        let renew = |store| {
            let (old, new) = (&old, new_id());
            scope.spawn(move || RedisStore::renew(store, old, new))
        };
        let all: Vec<_> = stores.iter().map(renew).collect();
        all.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (good, bad): (Vec<_>, Vec<_>) = renewed.into_iter().partition(Result::is_ok);
    assert_eq!((good.len(), bad.len()), (1, 7));
    assert!(bad.into_iter().all(is_renewed));
    let new = good.into_iter().next().unwrap().unwrap();
    let store = &stores[0];
    assert_eq!(store.get(&new, "k").unwrap().as_deref(), Some("v"));
    assert_eq!(store.renew(&old, new.clone()).unwrap(), new, "done again, as its answer was lost");
    assert_eq!(store.get(&new, "k").unwrap().as_deref(), Some("v"));
    assert!(store.open(&new).unwrap() && !store.open(&old).unwrap());
    let newest = store.renew(&new_id(), new_id()).unwrap();
    assert_eq!(store.get(&newest, "k").unwrap(), None, "one that holds nothing can be renewed");
}

#[test]
fn a_session_ends_with_its_connection_if_that_is_wanted() {
    let redis = RedisServer::start();
    let server = serve_at(&redis);
    let (mut client, cookie) = connect(&server, None);
    tell(&mut client, "set Ada");
    assert_eq!(redis.command(&["EXISTS", &key(cookie.as_deref().unwrap())]), "1");
    tell(&mut client, "end-on-close");
    client.close(None).unwrap();
    read_close(&mut client);
    eventually("it is gone", || redis.command(&["DBSIZE"]) == "0");
}

#[test]
fn what_one_session_holds_is_bounded() {
    let redis = RedisServer::start();
    let store = store(&redis);
    store.begin(&limits(|limits| limits.max_session_bytes = 164));
    let id = new_id();
    assert!(is_full(store.set(&id, "k", &"x".repeat(100))));
    assert_eq!(redis.command(&["DBSIZE"]), "0");
    store.set(&id, "k", &"x".repeat(99)).unwrap();
    store.set(&id, "k", &"y".repeat(99)).unwrap();
    assert!(is_full(store.set(&id, "l", "")));
    assert_eq!(store.get(&id, "k").unwrap(), Some("y".repeat(99)));
    store.set(&id, "k", "").unwrap();
    store.set(&id, "l", &"ä".repeat(17)).unwrap();
    store.remove(&id, "l").unwrap();
    assert_eq!(redis.command(&["DBSIZE"]), "1");
    store.remove(&id, "k").unwrap();
    assert_eq!(redis.command(&["DBSIZE"]), "0", "the last value takes the session with it");
    for (key, value) in [("", ""), ("\0\r\n", "\0\r\n"), ("ä ö", "😀")] {
        let id = new_id();
        store.set(&id, key, value).unwrap();
        assert_eq!(store.get(&id, key).unwrap().as_deref(), Some(value), "as it was given");
    }
}

#[test]
fn a_handshake_takes_one_round_trip() {
    let redis = RedisServer::start();
    let server = serve_at(&redis);
    let (mut first, cookie) = connect(&server, None);
    tell(&mut first, "set Ada");
    redis.command(&["CONFIG", "RESETSTAT"]);
    let read = || redis.info("stats", "total_reads_processed").unwrap();
    let of_asking = {
        let before = read();
        read() - before
    };
    let before = read();
    let clients: Vec<_> = (0..10).map(|_| connect(&server, cookie.as_deref())).collect();
    assert_eq!(read() - before - of_asking, 10, "so often Redis received something");
    let calls = redis.calls();
    assert_eq!((calls["pexpire"], calls["hexists"]), (10, 10), "{calls:?}");
    // The last three are the test's own.
    let mut names = calls.keys().map(|name| name.split('|').next().unwrap_or(name));
    let allowed = ["pexpire", "hexists", "info", "client", "config"];
    assert!(names.all(|name| allowed.contains(&name)), "and nothing else: {calls:?}");
    assert!(clients.iter().all(|(_, new)| new.is_none()));
    // Who has no cookie takes none, and to end a connection neither.
    let before = read();
    let (mut stranger, _) = connect(&server, None);
    stranger.close(None).unwrap();
    read_close(&mut stranger);
    eventually("it has left", || server.handle.connections() == 11);
    assert_eq!(read() - before - of_asking, 0);
}

#[test]
fn many_sessions_are_kept_in_a_few_round_trips() {
    let redis = RedisServer::start();
    let store = store(&redis);
    let ids: Vec<_> = (0..5000).map(|_| new_id()).collect();
    let names: Vec<_> = ids.iter().map(|id| format!("switchboard:session:{}", id.as_str())).collect();
    let make = "for _, key in ipairs(KEYS) do redis.call('HSET', key, 'k', 'v'); redis.call('PEXPIRE', key, 60000) end";
    let count = names.len().to_string();
    let mut command = vec!["EVAL", make, &count];
    command.extend(names.iter().map(String::as_str));
    redis.command(&command);
    store.touch(&ids[0]).unwrap();
    let mut twice = ids.clone();
    twice.extend(ids.iter().cloned());
    twice.push(SessionId::new("holds-nothing").unwrap());
    redis.command(&["CONFIG", "RESETSTAT"]);
    store.keep(&twice).unwrap();
    assert_eq!(redis.calls()["pexpire"], 5001, "each once");
    let least = "local least = 1e9; for _, key in ipairs(KEYS) do least = math.min(least, redis.call('PTTL', key)) end return least";
    command[1] = least;
    assert!(redis.command(&command).parse::<u64>().unwrap() > 100_000);
    assert_eq!(redis.command(&["DBSIZE"]), "5000");
    assert!(redis.info("clients", "connected_clients").unwrap() <= 2);
}

#[test]
fn a_few_connections_do_for_many_threads() {
    let redis = RedisServer::start();
    let store = store(&redis).connections(3).answer_timeout(PATIENCE);
    let ids: Vec<_> = (0..40).map(|_| new_id()).collect();
    thread::scope(|scope| {
        for id in &ids {
            scope.spawn(|| {
                for round in 0..20 {
                    let value = format!("{}-{round}", id.as_str());
                    store.set(id, "k", &value).unwrap();
                    assert_eq!(store.get(id, "k").unwrap(), Some(value));
                }
            });
        }
    });
    let connected = redis.info("clients", "connected_clients").unwrap();
    assert!(connected <= 4, "{connected}, one of which asks");
    drop(store);
    eventually("they are gone with the store", || redis.info("clients", "connected_clients").unwrap() == 1);
}

#[test]
fn what_others_have_stored_there_harms_nobody_else() {
    let redis = RedisServer::start();
    let store = store(&redis);
    let (binary, text, good) = (new_id(), new_id(), new_id());
    let key = |id: &SessionId| format!("switchboard:session:{}", id.as_str());
    redis.command(&["EVAL", "redis.call('HSET', KEYS[1], 'k', '\\200')", "1", &key(&binary)]);
    redis.command(&["SET", &key(&text), "x"]);
    store.set(&good, "k", "v").unwrap();
    for _ in 0..3 {
        let error = store.get(&binary, "k").unwrap_err().to_string();
        assert!(error.contains("not UTF-8"), "{error}");
        let error = store.get(&text, "k").unwrap_err().to_string();
        assert!(error.contains("WRONGTYPE"), "{error}");
        assert_eq!(store.get(&good, "k").unwrap().as_deref(), Some("v"), "Redis is not taken for down");
    }
}

/// Redis is made to fail, and mended. Meanwhile who needs a session gets 503, and others do not notice.
fn assert_fails_and_recovers(
    redis: &mut RedisServer,
    fail: impl FnOnce(&mut RedisServer),
    mend: impl FnOnce(&mut RedisServer),
) -> TestServer {
    let limits = Limits::default();
    let server = serve_with(store(redis).answer_timeout(Duration::from_millis(2500)), limits);
    let (mut open, cookie) = connect(&server, None);
    tell(&mut open, "set Ada");
    let mut other = server.connect_echo(Scheme::Ws, "/without");
    fail(redis);
    for _ in 0..3 {
        let reply = get(&server, "", cookie.as_deref().unwrap());
        assert_eq!((reply.status, reply.header("set-cookie")), (503, None));
        let head =
            handshake("/").replace("Host:", &format!("Cookie: {}\r\nHost:", cookie.as_deref().unwrap()));
        assert_eq!(server.ask(Scheme::Ws, head).status, 503);
        assert_eq!(tell(&mut open, "get"), "failed");
        assert_eq!(tell(&mut other, "x"), "x");
        assert_others_work(&server);
    }
    mend(redis);
    eventually("it works again", || get(&server, "", cookie.as_deref().unwrap()).status == 200);
    assert_eq!(tell(&mut open, "set Grace"), "done", "the connection was open all the time");
    assert_eq!(get(&server, "", cookie.as_deref().unwrap()).text(), "Grace");
    assert_eq!(try_handshake(&server), 101);
    server
}

#[test]
fn redis_is_killed_and_started_again() {
    let mut redis = RedisServer::start();
    drop(assert_fails_and_recovers(&mut redis, RedisServer::kill, RedisServer::restart));
}

#[test]
fn redis_stands_still_and_goes_on() {
    let mut redis = RedisServer::start();
    drop(assert_fails_and_recovers(&mut redis, |redis| redis.pause(), |redis| redis.resume()));
}

#[test]
fn redis_becomes_a_replica_and_a_master_again() {
    let mut redis = RedisServer::start();
    let fail = |redis: &mut RedisServer| drop(redis.command(&["REPLICAOF", "127.0.0.1", "1"]));
    let mend = |redis: &mut RedisServer| drop(redis.command(&["REPLICAOF", "NO", "ONE"]));
    drop(assert_fails_and_recovers(&mut redis, fail, mend));
}

#[test]
fn redis_forbids_what_we_need() {
    let mut redis = RedisServer::start();
    let fail = |redis: &mut RedisServer| drop(redis.command(&["ACL", "SETUSER", "default", "-pexpire"]));
    let mend = |redis: &mut RedisServer| drop(redis.command(&["ACL", "SETUSER", "default", "+pexpire"]));
    drop(assert_fails_and_recovers(&mut redis, fail, mend));
}

#[test]
fn redis_has_no_memory_left() {
    let redis = RedisServer::start();
    let server = serve_at(&redis);
    let (mut open, cookie) = connect(&server, None);
    tell(&mut open, "set Ada");
    redis.command(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(tell(&mut open, "set Grace"), "full");
    assert_eq!(tell(&mut open, "get"), "Ada");
    assert_eq!(try_handshake(&server), 101, "who stores nothing does not notice");
    assert_eq!(connect(&server, cookie.as_deref()).1, None);
    // A login needs no memory.
    let store = store(&redis);
    let (old, new) = (SessionId::new(key(&cookie.unwrap()).rsplit(':').next().unwrap()).unwrap(), new_id());
    store.renew(&old, new.clone()).unwrap();
    assert_eq!(store.get(&new, "k").unwrap().as_deref(), Some("Ada"));
    assert_eq!(store.get(&old, "k").unwrap(), None);
    redis.command(&["CONFIG", "SET", "maxmemory", "0"]);
    store.set(&new, "k", "Grace").unwrap();
}

#[test]
fn broken_connections_are_replaced_without_an_error() {
    let mut redis = RedisServer::start();
    let server = serve_at(&redis);
    let (mut open, _) = connect(&server, None);
    for round in 0..5 {
        assert_eq!(tell(&mut open, &format!("set {round}")), "done");
        redis.command(&["CLIENT", "KILL", "SKIPME", "yes", "TYPE", "normal"]);
        assert_eq!(tell(&mut open, "get"), round.to_string());
    }
    redis.command(&["SCRIPT", "FLUSH"]);
    assert_eq!(tell(&mut open, "set x"), "done", "scripts are given anew");
    redis.restart();
    assert_eq!(tell(&mut open, "get"), "nothing", "it has stored nothing on a disk");
}

/// As soon as it is known that Redis is down, nobody waits but for one who tries.
#[test]
fn while_redis_stands_still_few_wait_for_it() {
    let redis = RedisServer::start();
    let store = store(&redis).connections(2).answer_timeout(Duration::from_millis(300));
    eventually("it is reached", || store.touch(&new_id()).is_ok());
    let before = redis.info("stats", "total_connections_received").unwrap();
    redis.pause();
    let (at_once, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let _until = Until(&is_over);
        for _ in 0..8 {
            scope.spawn(|| {
                while !is_over.load(SeqCst) {
                    let error = store.touch(&new_id()).unwrap_err().to_string();
                    at_once.fetch_add(usize::from(error.contains("(it is tried again ")), SeqCst);
                    thread::sleep(Duration::from_millis(1));
                }
            });
        }
        eventually("many are told at once", || at_once.load(SeqCst) > 1000);
    });
    redis.resume();
    eventually("it is reached again", || store.touch(&new_id()).is_ok());
    let tries = redis.info("stats", "total_connections_received").unwrap() - before;
    assert!(tries < 40, "{tries} connections, some of which the test has made");
}

#[test]
fn a_slow_redis_makes_sessions_slow_and_nothing_else() {
    let redis = RedisServer::start();
    let way = Delaying::to(redis.port());
    let store = RedisStore::new(Redis::new(format!("redis://127.0.0.1:{}", way.port())).unwrap());
    let store = store.answer_timeout(Duration::from_secs(5));
    let server = serve_with(store, Limits::default());
    let (mut open, cookie) = connect(&server, None);
    tell(&mut open, "set Ada");
    way.set_delay(Duration::from_millis(500));
    let begun = Instant::now();
    let reply = get(&server, "", cookie.as_deref().unwrap());
    assert_eq!((reply.status, reply.text()), (200, "Ada"));
    assert!(begun.elapsed() >= Duration::from_secs(2), "one round trip for the page, one for the value");
    way.set_delay(Duration::from_secs(3));
    let asked = thread::scope(|scope| {
        let slow = scope.spawn(|| get(&server, "", cookie.as_deref().unwrap()).status);
        for _ in 0..10 {
            assert_others_work(&server);
        }
        assert!(!slow.is_finished(), "others were served meanwhile");
        slow.join().unwrap()
    });
    assert_eq!(asked, 503);
    way.set_delay(Duration::ZERO);
    eventually("it works again", || get(&server, "", cookie.as_deref().unwrap()).status == 200);
    way.cut();
    assert_eq!(tell(&mut open, "get"), "Ada");
}

#[test]
fn no_password_is_told() {
    let redis = RedisServer::start_with(&["--requirepass", "secret"]);
    let url = format!("redis://:wrong-secret@127.0.0.1:{}", redis.port());
    let store = Arc::new(RedisStore::new(Redis::new(url).unwrap()));
    let error = store.open(&new_id()).unwrap_err().to_string();
    assert!(error.contains("WRONGPASS") && !error.contains("secret"), "{error}");
    assert!(!format!("{store:?}").contains("secret"), "{store:?}");
    eventually("it is said when it is tried again", || {
        let again = store.open(&new_id()).unwrap_err().to_string();
        assert!(again.contains("WRONGPASS"), "{again}");
        again.contains("tried again in 0.")
    });
}

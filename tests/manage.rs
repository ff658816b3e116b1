#![cfg(all(feature = "__tls", feature = "manage"))]
//! Other processes: the management listener, each of its requests, and who tries to use it without being asked.

mod common;

use std::{
    fs,
    io::{Read, Write},
    os::unix::fs::{MetadataExt, PermissionsExt},
    sync::{Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use common::{
    PATIENCE, Scheme, Stream, eventually,
    folder::Folder,
    identity,
    managed::{
        LOG, Managed, READ_TOKEN, TOKEN, Way, assert_pushed, aws_refusal, log_everything, reached, refusal,
        text, value, with_lines,
    },
    next_message, read_close,
    reply::{Reply, ask},
};
use serde_json::{Value, json};
use switchboard::{History, Limits, ListenAddr, Manage, Server};
use tungstenite::Message;
use ureq::{
    Agent,
    tls::{Certificate, RootCerts, TlsConfig, TlsProvider},
};

// What AWS has.

#[test]
fn a_body_is_pushed_as_text_if_it_is_text() {
    let server = Managed::new();
    for way in server.ways() {
        let (mut client, id) = server.client("/");
        for (path, body, expected) in [
            (format!("/@connections/{id}"), &b"hello"[..], text("hello")),
            (format!("/prod/%40connections/{id}"), "ä\n".as_bytes(), text("ä\n")),
            (format!("/@connections/{id}"), b"\xff\0", Message::binary(&b"\xff\0"[..])),
            (format!("/@connections/{id}?type=binary"), b"x", Message::binary(&b"x"[..])),
            (format!("/@connections/{id}?type=text"), b"x", text("x")),
            (format!("/@connections/{id}"), b"", text("")),
        ] {
            let reply = way.ask(&format!("POST {path}"), body);
            assert_pushed(&reply);
            assert_eq!(next_message(&mut client), expected);
        }
        let chunked = format!(
            "POST /@connections/{id} HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n{}\
             Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n",
            way.authorization()
        );
        assert_eq!(ask(&mut way.connect(), chunked).status, 200);
        assert_eq!(next_message(&mut client), text("abcd"));
        let no_text = way.ask(&format!("POST /@connections/{id}?type=text"), b"\xff");
        assert!(aws_refusal(&no_text, 400, "BadRequestException").contains("type=text"));
        let no_type = way.ask(&format!("POST /@connections/{id}?type=json"), "x");
        aws_refusal(&no_type, 400, "BadRequestException");
    }
}

#[test]
fn a_connection_is_shown_as_aws_does_and_with_more() {
    let server = Managed::new();
    for way in server.ways() {
        let (mut client, id) = server.client("/a%20b?user=4%222&topic=r%C3%B6om");
        client.send(text("hello")).unwrap();
        assert_eq!(next_message(&mut client), text("hello"));
        let shown = value(&way.get(&format!("/@connections/{id}")), 200);
        assert_eq!(shown["id"], json!(id));
        assert_eq!(shown["identity"], json!({"sourceIp": "127.0.0.1", "userAgent": "a \"test\"\t1"}));
        for date in ["connectedAt", "lastActiveAt"] {
            let date = shown[date].as_str().unwrap();
            assert!(date.len() == 24 && date.starts_with("20") && date.ends_with('Z'), "{date}");
        }
        assert_eq!((&shown["path"], &shown["route"]), (&json!("/a b"), &json!("/*")));
        assert_eq!((&shown["user"], &shown["tags"]), (&json!("4\"2"), &json!({"device": "a \"box\""})));
        assert_eq!((&shown["topics"], &shown["shared"]), (&json!(["röom"]), &json!(false)));
        assert_eq!((&shown["messagesIn"], &shown["messagesOut"]), (&json!(1), &json!(1)));
        assert_eq!((&shown["queuedBytes"], &shown["roundTripMillis"]), (&json!(0), &Value::Null));
        assert!(shown["bytesIn"].as_u64().unwrap() > 5 && shown["bytesOut"].as_u64().unwrap() > 5);
        let head = way.ask(&format!("HEAD /@connections/{id}"), "");
        assert_eq!((head.status, head.body.len()), (200, 0));
    }
}

#[test]
fn a_connection_is_closed_with_a_code_and_a_reason() {
    let server = Managed::new();
    for way in server.ways() {
        for (query, expected) in [
            ("", (1000, "")),
            ("?code=4001", (4001, "")),
            ("?code=3000&reason=go%20away+%C3%A4", (3000, "go away ä")),
        ] {
            let (mut client, id) = server.client("/");
            let reply = way.ask(&format!("DELETE /dev/@connections/{id}{query}"), "");
            assert_eq!((reply.status, reply.body.len(), reply.header("content-type")), (204, 0, None));
            assert_eq!(read_close(&mut client), (expected.0, expected.1.to_owned()));
            drop(client);
            eventually("it is gone", || !server.ids().contains(&id));
            for request in ["GET", "POST", "DELETE"] {
                let reply = way.ask(&format!("{request} /@connections/{id}"), "");
                aws_refusal(&reply, 410, "GoneException");
            }
        }
        let (_client, id) = server.client("/");
        for query in
            ["?code=1005", "?code=x", "?code=70000", "?code=", &format!("?reason={}", "x".repeat(124))]
        {
            let reply = way.ask(&format!("DELETE /@connections/{id}{query}"), "");
            aws_refusal(&reply, 400, "BadRequestException");
        }
        assert!(server.ids().contains(&id));
    }
}

/// A stranger's client for HTTP, as it is.
#[test]
fn ureq_manages_a_server() {
    let managed = Managed::new();
    let ca = Certificate::from_pem(&fs::read("certs/ca.pem").unwrap()).unwrap();
    let tls =
        TlsConfig::builder().provider(TlsProvider::NativeTls).root_certs(RootCerts::new_with_certs(&[ca]));
    let agent =
        Agent::config_builder().tls_config(tls.build()).proxy(None).http_status_as_error(false).build();
    let (agent, authorization) = (Agent::new_with_config(agent), format!("Bearer {TOKEN}"));
    for url in [format!("http://{}", managed.tcp(1)), format!("https://localhost:{}", managed.tcp(2).port())]
    {
        let (mut client, id) = managed.client("/x");
        let url = format!("{url}/@connections/{id}");
        assert_eq!(agent.post(&url).send("it rains").unwrap().status(), 403);
        let pushed = agent.post(&url).header("authorization", &authorization).send("it rains").unwrap();
        assert_eq!(pushed.status(), 200);
        assert_eq!(next_message(&mut client), Message::text("it rains"));
        let mut shown = agent.get(&url).header("authorization", &authorization).call().unwrap();
        let shown: Value = serde_json::from_str(&shown.body_mut().read_to_string().unwrap()).unwrap();
        assert_eq!(shown["identity"]["sourceIp"], "127.0.0.1");
        let ended = agent.delete(format!("{url}?code=4001")).header("authorization", &authorization).call();
        assert_eq!(ended.unwrap().status(), 204);
        assert_eq!(read_close(&mut client).0, 4001);
        eventually("it is gone", || {
            agent.get(&url).header("authorization", &authorization).call().unwrap().status() == 410
        });
    }
}

#[test]
fn what_cannot_be_an_id_is_400_and_what_was_one_410() {
    let server = Managed::new();
    for way in server.ways() {
        for id in ["x", "", "L0SM9cOFvHcCIhw%3D", "a%0d%0ax-injected:%20y", "..", "%22%7B"] {
            for request in ["GET", "POST", "DELETE"] {
                let reply = way.ask(&format!("{request} /@connections/{id}"), "");
                assert_eq!(reply.status, 400, "{id}: {reply:?}");
                assert_eq!(reply.header("x-amzn-errortype"), Some("BadRequestException"), "{id}");
                assert_eq!(reply.header("x-injected"), None);
            }
        }
        let reply = way.ask("PUT /@connections/AAAAAAAAAAAAAAAAAAAAAA/topics/room", "");
        aws_refusal(&reply, 410, "GoneException");
        let reply = way.ask("DELETE /@connections/x/topics/room", "");
        aws_refusal(&reply, 400, "BadRequestException");
    }
}

#[test]
fn a_full_queue_is_429_and_a_large_body_413() {
    let server = Managed::with(
        |builder| {
            let mut limits = Limits::default();
            limits.max_queue_messages = 1;
            builder.limits(limits)
        },
        |manage| {
            let mut limits = Limits::default();
            limits.max_body = 1 << 20;
            manage.limits(limits)
        },
    );
    for way in server.ways() {
        let (_client, id) = server.client("/?drop=1"); // it does not read
        let push = |length| way.ask(&format!("POST /@connections/{id}?type=binary"), vec![0; length]);
        let full = (0..100).map(|_| push(1 << 20)).find(|reply| reply.status != 200).unwrap();
        assert!(aws_refusal(&full, 429, "LimitExceededException").contains("full"));
        assert_eq!(full.header("retry-after"), Some("1"));
        let large = push((1 << 20) + 1);
        assert!(aws_refusal(&large, 413, "PayloadTooLargeException").contains("1048576"));
        assert!(large.closes());
    }
}

// What else there is.

#[test]
fn a_connection_joins_and_leaves_without_a_body() {
    let server = Managed::new();
    let mut clients = Vec::new();
    for (n, way) in server.ways().iter().enumerate() {
        let (client, id) = server.client("/");
        let id = &id;
        let member =
            |request: &str, topic: &str| way.ask(&format!("{request} /@connections/{id}/topics/{topic}"), "");
        let topics = || value(&way.get(&format!("/@connections/{id}")), 200)["topics"].clone();
        assert_eq!(member("PUT", "room").status, 204);
        assert_eq!(member("PUT", "room").status, 204, "again");
        assert_eq!(member("PUT", "chat%2F1").status, 204);
        assert_eq!(topics(), json!(["chat/1", "room"]));
        assert_eq!(member("DELETE", "chat/1").status, 204);
        assert_eq!(member("DELETE", "nothing").status, 204);
        assert_eq!(topics(), json!(["room"]));
        aws_refusal(&member("PUT", &"x".repeat(257)), 400, "BadRequestException");
        let all = value(&way.get("/@topics"), 200);
        assert_eq!(
            all,
            json!({"topics": [{"name": "room", "members": n + 1}], "next": null}),
            "those before, too"
        );
        clients.push(client);
    }
}

#[test]
fn connections_and_topics_are_listed_page_by_page() {
    let server = Managed::new();
    let clients: Vec<_> = ["/a?user=1&topic=t", "/a?user=2&topic=t", "/b?user=1&topic=t", "/b?topic=u", "/c"]
        .map(|path| server.client(path))
        .into();
    let ids = |indexes: &[usize]| {
        let mut ids: Vec<_> = indexes.iter().map(|n| clients[*n].1.clone()).collect();
        ids.sort();
        ids
    };
    for way in server.ways() {
        let list = |query: &str| {
            let page = value(&way.get(&format!("/@connections{query}")), 200);
            let found = page["connections"].as_array().unwrap().iter();
            let found: Vec<_> = found.map(|one| one["id"].as_str().unwrap().to_owned()).collect();
            (found, page["next"].as_str().map(str::to_owned))
        };
        for (query, expected) in [
            ("", &[0, 1, 2, 3, 4][..]),
            ("?path=/a", &[0, 1]),
            ("?path=%2Fb", &[2, 3]),
            ("?topic=t", &[0, 1, 2]),
            ("?user=1", &[0, 2]),
            ("?user=1&topic=t&path=/b", &[2]),
            ("?user=3", &[]),
            ("?topic=", &[]),
        ] {
            assert_eq!(list(query), (ids(expected), None), "{query}");
        }
        let (mut all, mut next) = list("?limit=2");
        while let Some(after) = next {
            let page = list(&format!("?limit=2&after={after}"));
            assert!(page.0.len() <= 2);
            all.extend(page.0);
            next = page.1;
        }
        assert_eq!(all, ids(&[0, 1, 2, 3, 4]));
        let first = value(&way.get("/@topics?limit=1"), 200);
        assert_eq!(first, json!({"topics": [{"name": "t", "members": 3}], "next": "t"}));
        let second = value(&way.get("/@topics?limit=1&after=t"), 200);
        assert_eq!(second, json!({"topics": [{"name": "u", "members": 1}], "next": null}));
        for bad in
            ["?limit=0", "?limit=1001", "?limit=x", "?after=x", "?paht=/a", "?path=/a&path=/b", "?%00=1"]
        {
            aws_refusal(&way.get(&format!("/@connections{bad}")), 400, "BadRequestException");
        }
    }
}

#[test]
fn a_page_of_what_clients_have_written_has_a_bound() {
    let server = Managed::new();
    let path = format!("/{}", "%01".repeat(5000)); // six bytes each, as JSON
    let clients: Vec<_> = (0..60).map(|_| server.client(&path)).collect();
    let way = server.unix();
    let (mut found, mut after) = (0, String::new());
    loop {
        let reply = way.get(&format!("/@connections?limit=1000{after}"));
        assert!(reply.body.len() < (1 << 20) + 100_000, "{}", reply.body.len());
        let page = value(&reply, 200);
        found += page["connections"].as_array().unwrap().len();
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(found, clients.len());
    assert!(!after.is_empty());
}

#[test]
fn publishing_and_broadcasting_count_whom_they_reach() {
    let server = Managed::with(
        |builder| builder.history("log/*", History::new(10, Duration::from_secs(60))),
        |manage| manage,
    );
    let counts = |reached: u64| (reached, json!({}));
    let published = |reached: u64| (reached, json!({"position": null, "duplicate": false}));
    for way in server.ways() {
        let (mut one, id) = server.client("/a?user=u%2F1&topic=room/1");
        let (mut other, _) = server.client("/b?user=u%2F1&topic=room/1");
        let post = |path: &str, body: &str| way.ask(&format!("POST {path}"), body);
        assert_eq!(reached(value(&post("/@topics/room/1", "a"), 200)), published(2));
        assert_eq!(reached(value(&post(&format!("/@topics/room%2F1?except={id}"), "b"), 200)), published(1));
        assert_eq!(reached(value(&post("/@topics/nobody", "x"), 202)), published(0));
        assert_eq!(reached(value(&post("/@broadcast", "c"), 200)), counts(2));
        assert_eq!(reached(value(&post("/@broadcast?path=/a", "d"), 200)), counts(1));
        assert_eq!(
            reached(value(&post(&format!("/@broadcast?except={id}&type=binary"), "e"), 200)),
            counts(1)
        );
        assert_eq!(reached(value(&post("/@broadcast?path=/nowhere", "x"), 202)), counts(0));
        assert_eq!(reached(value(&post("/@users/u%2F1", "f"), 200)), counts(2));
        assert_eq!(reached(value(&post(&format!("/@users/u/1?except={id}"), "g"), 200)), counts(1));
        assert_eq!(reached(value(&post("/@users/nobody", "x"), 202)), counts(0));
        for (client, expected) in [(&mut one, "acdf"), (&mut other, "abcefg")] {
            let got: String = expected
                .chars()
                .map(|_| String::from_utf8(next_message(client).into_data().into()).unwrap())
                .collect();
            assert_eq!(got, expected);
        }
        let key = |body: &str| {
            let lines = format!("{}Idempotency-Key: 17\r\n", way.authorization());
            ask(&mut way.connect(), with_lines(&format!("POST /@topics/log/{}", &id[..8]), &lines, body))
        };
        let (first, again) = (value(&key("x"), 202), value(&key("x"), 200));
        assert!(first["position"].as_str().unwrap().ends_with(":1"), "{first}");
        assert_eq!((&first["position"], &again["duplicate"]), (&again["position"], &json!(true)));
        let lines = format!("{}Idempotency-Key: 17\r\n", way.authorization());
        refusal(&ask(&mut way.connect(), with_lines("POST /@topics/room/1", &lines, "x")), 400);
        let closed = way.ask("DELETE /@users/u%2F1?code=4000&reason=bye", "");
        assert_eq!(value(&closed, 200), json!({"closed": 2}));
        for client in [&mut one, &mut other] {
            assert_eq!(read_close(client), (4000, "bye".to_owned()));
        }
        drop((one, other));
        eventually("they are gone", || server.ids().is_empty());
        assert_eq!(value(&way.ask("DELETE /@users/u%2F1", ""), 202), json!({"closed": 0}));
        for bad in ["/@topics/t?exept=x", "/@topics/t?except=x", "/@broadcast?user=1", "/@users/u?type=x"] {
            assert_eq!(post(bad, "x").header("x-amzn-errortype"), None);
            refusal(&post(bad, "x"), 400);
        }
    }
}

#[test]
fn who_probes_needs_no_token_and_learns_whether_the_server_takes_more() {
    let (entered, wait) = mpsc::channel();
    let entered = Mutex::new(entered);
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(Some(released));
    let server = Managed::with(
        |builder| {
            let mut limits = Limits::default();
            limits.max_connections = 1;
            let busy = move || {
                let (entered, released) = (entered.lock().unwrap().clone(), released.lock().unwrap().take());
                common::app(move |_: &mut switchboard::WebSocket| {
                    entered.send(()).unwrap();
                    let _ = released.as_ref().map(|released| released.recv_timeout(PATIENCE));
                    Ok(())
                })
            };
            builder.limits(limits).route("/busy", busy)
        },
        |manage| manage,
    );
    let probe = |way: &Way, path: &str| ask(&mut way.connect(), with_lines(&format!("GET {path}"), "", ""));
    for way in server.ways() {
        assert_eq!(value(&probe(&way, "/health"), 200), json!({"alive": true}));
        assert_eq!(value(&probe(&way, "/ready"), 200), json!({"ready": true}));
        assert_eq!(ask(&mut way.connect(), with_lines("HEAD /ready", "", "")).status, 200);
        let reply = ask(&mut way.connect(), with_lines("POST /health", "", "x"));
        assert_eq!((reply.status, reply.header("allow")), (405, Some("GET, HEAD")));
    }
    let client = server.client("/busy");
    wait.recv_timeout(PATIENCE).unwrap();
    for way in server.ways() {
        let full = probe(&way, "/ready");
        assert!(refusal(&full, 503).contains("max_connections"));
        assert_eq!(probe(&way, "/health").status, 200);
    }
    // While the server waits for its handlers, it is not ready, and says so.
    server.server.handle().shutdown(PATIENCE);
    for way in server.ways() {
        assert!(refusal(&probe(&way, "/ready"), 503).contains("shuts down"));
        assert_eq!(way.get("/@connections").status, 200);
    }
    release.send(()).unwrap();
    drop(client);
    let Managed { server, folder } = server;
    server.wait().unwrap();
    assert!(!folder.join("all").exists() && !folder.join("read").exists());
}

/// Reads until there is this, and returns all that came.
fn read_until(stream: &mut (impl Read + ?Sized), end: &str) -> String {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(end.as_bytes()) {
        let shown = || String::from_utf8_lossy(&bytes).into_owned();
        match stream.read(&mut byte) {
            Ok(1) => bytes.push(byte[0]),
            other => panic!("no {end:?} but {other:?} after {}", shown()),
        }
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn what_happens_is_told_while_it_happens() {
    for n in 0..3 {
        let server = Managed::new(); // so that no other's end is told
        let way = server.ways()[n].clone();
        let mut stream = way.connect();
        stream.write_all(&way.request("GET /@events", "")).unwrap();
        let head = Reply::read_head(&mut stream);
        assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
        assert_eq!(
            (head.header("transfer-encoding"), head.header("content-length")),
            (Some("chunked"), None)
        );
        let (client, id) = server.client("/a?user=u&topic=t");
        let node = id.parse::<switchboard::WebSocketId>().unwrap().node().get();
        let (mut got, mut events) = (String::new(), Vec::new());
        let mut next = |stream: &mut dyn Read, name: &str| {
            got = read_until(stream, "\n\n\r\n");
            // A chunk is an event.
            let (size, event) = got.split_once("\r\n").unwrap();
            assert_eq!(usize::from_str_radix(size.trim(), 16).unwrap(), event.len() - 2, "{got}");
            let data = event
                .strip_prefix(&format!("event: {name}\ndata: "))
                .unwrap_or_else(|| panic!("{name}: {got}"));
            events.push(serde_json::from_str::<Value>(data).unwrap());
        };
        next(&mut stream, "opened");
        next(&mut stream, "occupied");
        drop(client); // without a close frame
        next(&mut stream, "vacated");
        next(&mut stream, "closed");
        assert_eq!(events[0], json!({"id": id, "node": node, "path": "/a", "user": "u"}));
        let of_topic = json!({"topic": "t", "node": node});
        assert_eq!((&events[1], &events[2]), (&of_topic, &of_topic));
        let closed = &events[3];
        assert_eq!(
            (&closed["id"], &closed["code"], &closed["by"]),
            (&json!(id), &json!(1006), &json!("network"))
        );
        assert!(closed["durationMillis"].as_f64().unwrap() > 0.0, "{closed}");
        // Who does not know chunks gets it until the end of the connection.
        let mut old = way.connect();
        old.write_all(format!("GET /@events HTTP/1.0\r\n{}\r\n", way.authorization()).as_bytes()).unwrap();
        let head = Reply::read_head(&mut old);
        assert_eq!((head.closes(), head.header("transfer-encoding")), (true, None));
        let _client = server.client("/b");
        assert!(read_until(&mut old, "\n\n").starts_with("event: opened\ndata: {"));
        assert_eq!(way.ask("HEAD /@events", "").status, 200);
        refusal(&way.get("/@events?path=/a"), 400);
    }
}

#[test]
fn whoever_listens_and_leaves_makes_room_and_the_shutdown_ends_the_stream() {
    let server = Managed::new();
    let way = server.unix();
    let listen = || {
        let mut stream = way.connect();
        stream.write_all(&way.request("GET /@events", "")).unwrap();
        let head = Reply::read_head(&mut stream);
        (stream, head.status)
    };
    let listeners: Vec<_> = (0..32).map(|_| listen()).collect();
    assert!(listeners.iter().all(|(_, status)| *status == 200));
    let one_more = way.get("/@events");
    assert!(refusal(&one_more, 429).contains("too many"));
    drop(listeners);
    let mut listener = listen(); // each goes when the server has seen it
    eventually("there is room", || {
        if listener.1 != 200 {
            listener = listen();
        }
        listener.1 == 200
    });
    let (mut stream, _) = listener;
    server.server.shutdown(Duration::ZERO).unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "0\r\n\r\n", "the end is told from a break");
}

// Who may.

#[test]
fn without_the_token_there_is_nothing() {
    let server = Managed::new();
    let (_client, id) = server.client("/");
    let path = format!("/@connections/{id}");
    let wrong = format!("Authorization: Bearer {TOKEN}x\r\n");
    for way in &server.ways()[1..] {
        for lines in [
            String::new(),
            wrong.clone(),
            format!("Authorization: Bearer {}\r\n", &TOKEN[1..]),
            format!("Authorization: Basic {TOKEN}\r\n"),
            format!("Authorization: {TOKEN}\r\n"),
            format!("Authorization: Bearer {TOKEN}\r\nAuthorization: Bearer {TOKEN}\r\n"),
            format!("Cookie: token={TOKEN}\r\nX-Api-Key: {TOKEN}\r\nProxy-Authorization: Bearer {TOKEN}\r\n"),
        ] {
            let reply = ask(&mut way.connect(), with_lines(&format!("DELETE {path}"), &lines, ""));
            aws_refusal(&reply, 403, "ForbiddenException");
            assert!(reply.closes(), "the next guess takes another connection");
        }
        let request = with_lines(&format!("GET /@topics?token={TOKEN}&access_token={TOKEN}"), "", TOKEN);
        let reply = ask(&mut way.connect(), request);
        assert!(refusal(&reply, 401).contains("Authorization: Bearer"));
        assert_eq!(reply.header("www-authenticate"), Some("Bearer realm=\"switchboard\""));
        // Whatever there is or not: who has no token does not learn it.
        for request in [
            "GET /@topics",
            "GET /nothing",
            "BREW /@topics",
            "POST /@broadcast",
            "OPTIONS *",
            "PUT /",
            "CONNECT h:1",
        ] {
            let reply = ask(&mut way.connect(), with_lines(request, "", ""));
            assert_eq!(reply.status, 401, "{request}: {reply:?}");
        }
        let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        assert_eq!(ask(&mut way.connect(), with_lines("GET /@hub", upgrade, "")).status, 401);
    }
    assert_eq!(server.ids(), [id]);
}

#[test]
fn a_wrong_token_waits_and_its_body_is_not_received() {
    let server = Managed::new();
    for way in &server.ways()[1..] {
        let begun = Instant::now();
        let mut stream = way.connect();
        let head = format!(
            "POST /@broadcast HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}x\r\nContent-Length: 1000000\r\n\
             Expect: 100-continue\r\n\r\n"
        );
        let reply = ask(&mut stream, head);
        refusal(&reply, 401);
        assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
        // A second request on the same connection, sent with the first, is no second guess.
        let guess = with_lines("GET /@topics", &format!("Authorization: Bearer {TOKEN}x\r\n"), "");
        let good = way.request("GET /@topics", "");
        let mut stream = way.connect();
        stream.write_all(&[guess, good].concat()).unwrap();
        assert_eq!(Reply::read(&mut stream).status, 401);
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    }
}

#[test]
fn the_second_token_and_the_second_socket_are_for_reading() {
    let server = Managed::new();
    let (_client, id) = server.client("/?topic=room");
    let read_lines = format!("Authorization: Bearer {READ_TOKEN}\r\n");
    let all_lines = format!("Authorization: Bearer {TOKEN}\r\n");
    let socket = Way::Unix(server.folder.join("read"));
    let (plain, tls) = (server.plain(), server.ways()[2].clone());
    let only_read = Way::Tcp(server.tcp(4), Scheme::Ws);
    for (way, lines) in [
        (&plain, &read_lines),
        (&tls, &read_lines),
        (&only_read, &read_lines),
        (&only_read, &all_lines),
        (&socket, &String::new()),
    ] {
        for request in
            ["GET /@connections", "GET /@topics", "HEAD /@topics", &format!("GET /@connections/{id}")]
        {
            let reply = ask(&mut way.connect(), with_lines(request, lines, ""));
            assert_eq!(reply.status, 200, "{way:?} {request}: {reply:?}");
        }
        for request in [
            format!("POST /@connections/{id}"),
            format!("DELETE /@connections/{id}"),
            format!("PUT /x/@connections/{id}/topics/t"),
            format!("DELETE /@connections/{id}/topics/room"),
        ] {
            let reply = ask(&mut way.connect(), with_lines(&request, lines, ""));
            assert!(aws_refusal(&reply, 403, "ForbiddenException").contains("only read"), "{request}");
        }
        for request in ["POST /@broadcast", "POST /@topics/room", "POST /@users/u", "DELETE /@users/u"] {
            let reply = ask(&mut way.connect(), with_lines(request, lines, ""));
            assert!(refusal(&reply, 403).contains("only read"), "{request}");
        }
    }
    assert_eq!(ask(&mut only_read.connect(), with_lines("GET /@topics", "", "")).status, 401);
    assert_eq!(value(&server.unix().get(&format!("/@connections/{id}")), 200)["topics"], json!(["room"]));
}

#[test]
fn neither_tokens_nor_whole_ids_are_in_the_log() {
    let server = Managed::new();
    let (_client, id) = server.client("/");
    for way in server.ways() {
        way.ask(&format!("POST /@connections/{id}"), "hello");
        way.ask(&format!("PUT /@connections/{id}/topics/t"), "");
        way.ask(&format!("GET /@connections/{id},"), "");
        way.ask(&format!("POST /@connections/{id}?type=x"), "");
        way.ask(&format!("BREW /@connections/{id}"), "");
        let bad = format!("POST /@connections/{id} HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n");
        assert_eq!(ask(&mut way.connect(), bad).status, 400);
    }
    let wrong = "not-the-token-of-anybody";
    for request in [format!("GET /@connections/{id}"), format!("GET /@topics?token={TOKEN}")] {
        let lines = format!("Authorization: Bearer {wrong}\r\n");
        ask(&mut server.plain().connect(), with_lines(&request, &lines, ""));
    }
    drop(server); // it sums up
    let log = LOG.lock().unwrap().clone();
    for secret in [id.as_str(), TOKEN, READ_TOKEN, wrong] {
        let line = log.lines().find(|line| line.contains(secret));
        assert_eq!(line, None);
    }
    assert!(log.contains(&format!("/@connections/{}…", &id[..8])), "{log}");
    assert!(log.contains("refused with 401"), "wrong tokens are counted: {log}");
}

#[test]
fn a_start_that_would_let_strangers_in_is_refused() {
    let folder = Folder::new();
    let unix = || Manage::new().listen(format!("unix:{}", folder.path("s")));
    let error = |manage: Manage| {
        Server::builder().listen("127.0.0.1:0").manage(manage).bind().unwrap_err().to_string()
    };
    for (manage, part) in [
        (Manage::new(), "no address"),
        (Manage::new().token(TOKEN), "no address"),
        (unix().listen("127.0.0.1:0"), "127.0.0.1:0 needs a token"),
        (unix().listen_read_only("[::1]:0"), "needs a token"),
        (Manage::new().listen_tls("127.0.0.1:0", identity()), "needs a token"),
        (Manage::new().listen("0.0.0.0:0").token(TOKEN), "needs TLS"),
        (unix().listen_read_only("0.0.0.0:0").read_token(TOKEN), "needs TLS"),
        (unix().token(""), "is empty"),
        (unix().token("short"), "5 characters"),
        (unix().read_token("with spaces in between"), "without spaces"),
        (unix().token(TOKEN).read_token(TOKEN), "the same"),
        (unix().token_file(folder.join("missing")), "No such file"),
        (unix().token_file(folder.write("empty", "\n")), "empty is empty"),
        (unix().token_file(folder.write("long", "x".repeat(5000))), "more than 1024"),
        (unix().token_file(folder.write("binary", b"\xff".repeat(20))), "UTF-8"),
        (Manage::new().listen(format!("unix:{},mode=999", folder.path("s"))), "mode"),
    ] {
        let error = error(manage);
        assert!(error.contains(part), "{part}: {error}");
        assert!(!folder.join("s").exists(), "nothing is left: {error}");
    }
    let twice = Server::builder().manage(unix()).manage(unix()).bind().unwrap_err().to_string();
    assert!(twice.contains("one management listener"), "{twice}");
}

#[test]
fn only_the_user_may_open_the_socket_and_the_token_is_in_a_file() {
    log_everything();
    let folder = Folder::new();
    let mode = |name: &str| fs::metadata(folder.join(name)).unwrap().mode() & 0o777;
    let token = folder.write("token", format!("{TOKEN}\n"));
    fs::set_permissions(&token, fs::Permissions::from_mode(0o604)).unwrap();
    let manage = Manage::new()
        .listen(format!("unix:{}", folder.path("own")))
        .listen(format!("unix:{}", folder.path("a,b?c")))
        .listen(format!("unix:{},mode=0660", folder.path("group")))
        .listen_read_only(format!("unix:{}", folder.path("read")))
        .listen("localhost:0")
        .token_file(&token);
    assert!(!format!("{manage:?}").contains(TOKEN));
    let server = Server::builder().listen("127.0.0.1:0").manage(manage).bind().unwrap();
    assert_eq!(server.manage_addrs()[0], ListenAddr::Unix(folder.join("own")));
    let server = server.spawn().unwrap();
    assert_eq!((mode("own"), mode("a,b?c"), mode("group"), mode("read")), (0o600, 0o600, 0o660, 0o600));
    let address = server.manage_addrs()[4].tcp().unwrap();
    assert_eq!(Way::Tcp(address, Scheme::Ws).get("/@topics").status, 200);
    let is_warned = |path: &str, part: &str| {
        let log = LOG.lock().unwrap().clone();
        let is_it = |line: &str| line.starts_with("WARN") && line.contains(path) && line.contains(part);
        assert!(log.lines().any(is_it), "{log}");
    };
    is_warned(&token, "can read");
    // Who can write it needs not know it.
    let token = folder.write("writable", format!("{TOKEN}\n"));
    fs::set_permissions(&token, fs::Permissions::from_mode(0o602)).unwrap();
    let manage = Manage::new().listen("localhost:0").token_file(&token);
    drop(Server::builder().listen("127.0.0.1:0").manage(manage).bind().unwrap());
    is_warned(&token, "can change");
    // Of a server that is not managed there is nothing.
    let plain = Server::builder().listen("127.0.0.1:0").bind().unwrap();
    assert!(plain.manage_addrs().is_empty());
}

// HTTP.

#[test]
fn what_there_is_not_and_methods_that_there_are_not() {
    let server = Managed::new();
    let id = "AAAAAAAAAAAAAAAAAAAAAA";
    for way in server.ways() {
        for path in [
            "/nothing",
            "/@connections/x/y",
            "/@connections/x/topics/",
            "/@topics/",
            "/@users",
            "//ready",
            "*",
        ] {
            assert_eq!(way.get(path).status, 404, "{path}");
        }
        assert_eq!(way.get("/@hub").status, 426, "that of a link is for an upgrade");
        for (path, allow) in [
            (format!("/@connections/{id}"), "DELETE, GET, HEAD, POST"),
            (format!("/@connections/{id}/topics/t"), "DELETE, PUT"),
            ("/@connections".into(), "GET, HEAD"),
            ("/@topics".into(), "GET, HEAD"),
            ("/@topics/t".into(), "POST"),
            ("/@broadcast".into(), "POST"),
            ("/@users/u".into(), "DELETE, POST"),
            ("/@events".into(), "GET, HEAD"),
            ("/ready".into(), "GET, HEAD"),
            ("/".into(), "GET, HEAD"),
            ("/@access".into(), "GET, HEAD"),
        ] {
            for method in ["PATCH", "BREW", "OPTIONS", "TRACE", "get"] {
                let reply = way.ask(&format!("{method} {path}"), "");
                assert_eq!((reply.status, reply.header("allow")), (405, Some(allow)), "{method} {path}");
                assert!(refusal(&reply, 405).contains(allow));
                let is_of_aws = path.starts_with("/@connections");
                let kind = is_of_aws.then_some("MethodNotAllowedException");
                assert_eq!(reply.header("x-amzn-errortype"), kind);
            }
        }
        // A handshake for what is no WebSocket is a request like others.
        let lines = format!("{}Upgrade: websocket\r\nConnection: Upgrade\r\n", way.authorization());
        assert_eq!(ask(&mut way.connect(), with_lines("GET /@topics", &lines, "")).status, 200);
        let foreign = format!("{}Origin: http://evil.example\r\n", way.authorization());
        refusal(&ask(&mut way.connect(), with_lines("POST /@broadcast", &foreign, "x")), 403);
    }
}

#[test]
fn what_nobody_can_read_is_refused_in_json_too() {
    let server = Managed::with(
        |builder| builder,
        |manage| {
            let mut limits = Limits::default();
            limits.max_head = 1000;
            manage.limits(limits)
        },
    );
    let path = "/@connections/AAAAAAAAAAAAAAAAAAAAAA";
    for way in server.ways() {
        let lines = |more: &str| format!("{}{more}", way.authorization());
        let asked =
            |request: &str, more: &str| ask(&mut way.connect(), with_lines(request, &lines(more), ""));
        refusal(&ask(&mut way.connect(), "GET x HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
        refusal(&ask(&mut way.connect(), "GET / HTTP/1.1\r\n\r\n"), 400);
        refusal(&ask(&mut way.connect(), "GET /%ff HTTP/1.1\r\nHost: x\r\n\r\n"), 400);
        refusal(&asked("GET /", &format!("X: {}\r\n", "x".repeat(1000))), 431);
        let post = format!("POST {path}");
        aws_refusal(&asked(&post, "Content-Length: x\r\n"), 400, "BadRequestException");
        aws_refusal(
            &asked(&post, "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
            400,
            "BadRequestException",
        );
        assert_eq!(asked(&post, "Transfer-Encoding: gzip, chunked\r\n").status, 501);
        assert_eq!(asked(&post, "Content-Length: 1\r\nExpect: x\r\n").status, 417);
        aws_refusal(
            &asked(&post, "Content-Length: 99999999999999999999\r\n"),
            413,
            "PayloadTooLargeException",
        );
    }
    // HTTP where TLS is spoken.
    let mut stream = Stream::connect(server.tcp(2), Scheme::Ws);
    assert!(refusal(&ask(&mut stream, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"), 400).contains("TLS"));
    // A body that comes too slowly.
    let hasty = Managed::with(
        |builder| builder,
        |manage| {
            let mut limits = Limits::default();
            limits.handshake_timeout = Duration::from_secs(3);
            limits.min_http_rate = 0;
            manage.limits(limits)
        },
    );
    thread::scope(|scope| {
        for way in hasty.ways() {
            scope.spawn(move || {
                let lines = format!("{}Content-Length: 5\r\n", way.authorization());
                let reply = ask(&mut way.connect(), with_lines(&format!("POST {path}"), &lines, ""));
                aws_refusal(&reply, 408, "RequestTimeoutException");
            });
        }
    });
}

#[test]
fn who_finds_no_place_is_told_in_json() {
    let server = Managed::with(
        |builder| builder,
        |manage| {
            let mut limits = Limits::default();
            limits.max_connections = 1;
            manage.limits(limits)
        },
    );
    let head = "POST /@broadcast HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let (mut held, mut answer) = (None, Vec::new());
    eventually("one comes while another has the place", || {
        held = None;
        let mut only = server.unix().connect();
        only.write_all(head.as_bytes()).unwrap();
        let has_place = Reply::read_head(&mut only).status == 100; // for a second
        held = Some(only);
        let mut more = server.plain().connect();
        let _ = more.write_all(&with_lines("GET /health", "Connection: close\r\n", ""));
        answer.clear();
        let _ = more.read_to_end(&mut answer);
        has_place && answer.starts_with(b"HTTP/1.1 503 ")
    });
    let mut held = held.unwrap();
    let reply = Reply::read(&mut &answer[..]);
    assert!(refusal(&reply, 503).contains("too many connections"));
    assert_eq!(reply.header("retry-after"), Some("5"));
    assert_eq!(ask(&mut held, "hello").status, 202);
}

#[test]
fn requests_are_pipelined_and_100_continue_is_answered() {
    let server = Managed::new();
    for way in server.ways() {
        let (mut client, id) = server.client("/");
        let mut stream = way.connect();
        let push = |n: usize| way.request(&format!("POST /@connections/{id}"), n.to_string());
        let all: Vec<u8> = (0..50).flat_map(push).chain(way.request("GET /health", "")).collect();
        stream.write_all(&all).unwrap();
        for n in 0..50 {
            assert_pushed(&Reply::read(&mut stream));
            assert_eq!(next_message(&mut client), text(&n.to_string()));
        }
        assert_eq!(Reply::read(&mut stream).status, 200);
        let lines = format!("{}Expect: 100-continue\r\nContent-Length: 5\r\n", way.authorization());
        stream.write_all(&with_lines(&format!("POST /@connections/{id}"), &lines, "")).unwrap();
        assert_eq!(Reply::read_head(&mut stream).status, 100);
        assert_eq!(ask(&mut stream, "hello").status, 200);
        assert_eq!(next_message(&mut client), text("hello"));
        // What is refused without its body does not hold up the next request.
        let refused = way.request("POST /@connections/x", "a short body");
        stream.write_all(&[refused, way.request("PUT /@connections/x/topics/t", "")].concat()).unwrap();
        assert_eq!(Reply::read(&mut stream).status, 400);
        assert_eq!(Reply::read(&mut stream).status, 400);
        assert_eq!(ask(&mut stream, way.request("GET /@topics", "")).status, 200);
        let old = format!("GET /@topics HTTP/1.0\r\n{}\r\n", way.authorization());
        let reply = ask(&mut stream, old);
        assert!(reply.status == 200 && reply.closes());
    }
}

#[test]
fn the_server_ends_with_its_management_and_leaves_nothing() {
    for _ in 0..3 {
        let server = Managed::new();
        // One that says nothing, one within a body, one that waits for its next request.
        let mut streams: Vec<_> = server.ways().iter().map(Way::connect).collect();
        let head = format!(
            "POST /@broadcast HTTP/1.1\r\nHost: x\r\n{}Content-Length: 9\r\n\r\n",
            server.plain().authorization()
        );
        streams[1].write_all(head.as_bytes()).unwrap();
        let request = server.ways()[2].request("GET /health", "");
        assert_eq!(ask(&mut streams[2], request).status, 200);
        let addresses: Vec<_> = server.server.manage_addrs().iter().filter_map(ListenAddr::tcp).collect();
        let begun = Instant::now();
        server.server.shutdown(Duration::ZERO).unwrap();
        assert!(begun.elapsed() < PATIENCE);
        addresses.into_iter().for_each(common::assert_closed);
        assert!(!server.folder.join("all").exists());
    }
}

#[test]
fn many_processes_push_at_once() {
    let server = Managed::new();
    let (mut client, id) = server.client("/");
    let pushers: Vec<_> = (0..8)
        .map(|n| {
            let (way, id) = (server.ways()[n % 3].clone(), id.clone());
            thread::spawn(move || {
                let mut stream = way.connect();
                for m in 0..50 {
                    let push = way.request(&format!("POST /@connections/{id}"), format!("{n} {m}"));
                    assert_eq!(ask(&mut stream, push).status, 200);
                }
            })
        })
        .collect();
    let mut next = [0; 8];
    for _ in 0..8 * 50 {
        let message = next_message(&mut client);
        let (n, m) = message.to_text().unwrap().split_once(' ').unwrap();
        let (n, m): (usize, usize) = (n.parse().unwrap(), m.parse().unwrap());
        assert_eq!(m, next[n], "each once, in the order of its pusher");
        next[n] += 1;
    }
    pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
}

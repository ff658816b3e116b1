#![cfg(all(feature = "__tls", feature = "manage"))]
//! The management listener, and those who may not use it, or not so.

mod common;

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::fd::AsRawFd,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use common::{
    PATIENCE, Scheme, Stream, eventually, is_alone,
    managed::{
        Managed, READ_TOKEN, TOKEN, Way, assert_pushed, aws_refusal, refusal, signed, text, value, with_lines,
    },
    next_message,
    reply::{Reply, ask},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;
use switchboard::Limits;

const GONE: &str = "AAAAAAAAAAAAAAAAAAAAAA";
const WRONG: &str = "a-wrong-token-of-tests";

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// What is refused: its status, and a JSON message. Under `/@connections` with a type, if its status has one.
fn assert_refused(reply: &Reply, status: u16, part: &str, shown: &str) {
    let message = refusal(reply, status);
    assert!(message.contains(part), "{shown}: {message}");
    for name in ["x-injected", "set-cookie", "location"] {
        assert_eq!(reply.header(name), None, "{shown}");
    }
}

// Signatures.

#[test]
fn a_signature_is_as_good_as_the_token() {
    let server = Managed::new();
    let (mut client, id) = server.client("/?topic=t");
    for way in &server.ways()[1..] {
        let digest = |body: &str| match body {
            "" => "x-amz-content-sha256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            _ => "x-amz-content-sha256: 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824",
        };
        let push = format!("POST /prod/%40connections/{id}");
        for lines in [&[][..], &[digest("hello")], &["content-type: x/y", digest("hello"), "x-amz-any: a b"]]
        {
            assert_pushed(&ask(&mut way.connect(), signed(&push, lines, b"hello", TOKEN)));
            assert_eq!(next_message(&mut client), text("hello"));
        }
        let get =
            |request: &str, token: &str| ask(&mut way.connect(), signed(request, &[digest("")], b"", token));
        assert_eq!(value(&get(&format!("GET /@connections/{id}"), TOKEN), 200)["id"], json!(id));
        assert_eq!(get("GET /@topics", READ_TOKEN).status, 200);
        assert_eq!(get("GET /@connections?topic=t", READ_TOKEN).status, 200);
        assert_refused(&get(&format!("DELETE /@connections/{id}"), READ_TOKEN), 403, "only read", "");
        assert_eq!(get(&format!("PUT /@connections/{id}/topics/u"), TOKEN).status, 204);
        // A connection goes on with another request, signed or not.
        let mut stream = way.connect();
        let chunked = signed(&push, &["transfer-encoding: chunked"], b"", TOKEN);
        let chunked = String::from_utf8(chunked).unwrap();
        let both = [chunked.as_bytes(), b"0\r\n\r\n", &signed(&push, &[], b"hello", TOKEN)].concat();
        stream.write_all(&both).unwrap();
        assert_pushed(&Reply::read(&mut stream));
        assert_pushed(&Reply::read(&mut stream));
        assert_eq!(next_message(&mut client), text(""));
        assert_eq!(next_message(&mut client), text("hello"));
        assert_eq!(ask(&mut stream, way.request("GET /@topics", "")).status, 200);
    }
}

#[test]
fn what_is_not_signed_so_is_forbidden() {
    let server = Managed::new();
    let (_client, id) = server.client("/");
    let push = format!("POST /@connections/{id}");
    let good = String::from_utf8(signed(&push, &[], b"hello", TOKEN)).unwrap();
    let unsigned = |lines: &[&str]| String::from_utf8(signed(&push, lines, b"hello", TOKEN)).unwrap();
    let hour = &good[good.find("X-Amz-Date: ").unwrap() + 21..][..2];
    let other_hour = if hour == "12" { "13" } else { "12" };
    for way in &server.ways()[1..] {
        for (request, part) in [
            (good.replace("\r\n\r\nhello", "\r\n\r\nhellO"), "wrong"),
            (good.replace("POST ", "DELETE "), "wrong"),
            (
                good.replace("Signature=", "Signature=0").replacen("\r\nX-Amz", "0\r\nX-Amz", 1),
                "64 hexadecimal",
            ),
            (good.replace(&id, GONE), "wrong"),
            (good.replace("/@connections", "/%40connections"), "wrong"),
            (good.replace("/@connections", "/x/../@connections"), "signed path"),
            (good.replace("/@connections", "//@connections"), "signed path"),
            (good.replace(" HTTP", "?type=binary HTTP"), "wrong"),
            (good.replace(" HTTP", "?type=bin+ary HTTP"), "plus"),
            (good.replace("box.example", "other.example"), "wrong"),
            (good.replace(&format!("T{hour}"), &format!("T{other_hour}")), "15 minutes"),
            (good.replace("Credential=any", "Credential="), "Credential must be"),
            (good.replace("host;x-amz-date", "host"), "have to be signed"),
            (good.replace("AWS4-HMAC-SHA256 ", "AWS4-ECDSA-P256-SHA256 "), "token is needed"),
            (good.replace("Authorization", "X-Authorization"), "token is needed"),
            (good.replace("X-Amz-Date", "X-Amz-Other: x\r\nX-Amz-Date"), "have to be signed"),
            (unsigned(&["x-amz-content-sha256: UNSIGNED-PAYLOAD"]), "has to be signed"),
            (unsigned(&["x-amz-content-sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD"]), "has to be signed"),
            (unsigned(&[&format!("x-amz-content-sha256: {}", "0".repeat(64))]), "not the one that is signed"),
            (String::from_utf8(signed(&push, &[], b"hello", WRONG)).unwrap(), "wrong"),
        ] {
            let reply = ask(&mut way.connect(), &request);
            // These two paths are none of AWS's API.
            let message = match part == "signed path" {
                true => refusal(&reply, 401),
                false => aws_refusal(&reply, 403, "ForbiddenException"),
            };
            assert!(message.contains(part), "{request}: {message}");
            assert!(reply.closes(), "{request}");
        }
        // Elsewhere it is 401, and says how.
        let reply = ask(&mut way.connect(), signed("GET /@topics", &[], b"", WRONG));
        assert_refused(&reply, 401, "wrong", "");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer realm=\"switchboard\""));
    }
    assert_eq!(server.ids(), [id]);
}

#[test]
fn a_wrong_signature_waits_and_of_a_known_digest_no_body_is_received() {
    let server = Managed::new();
    let push = format!("POST /@connections/{GONE}");
    for way in &server.ways()[1..] {
        let begun = Instant::now();
        let digest = format!("x-amz-content-sha256: {}", "0".repeat(64));
        let lines = [&*digest, "expect: 100-continue", "content-length: 1000000"];
        let reply = ask(&mut way.connect(), signed(&push, &lines, b"", WRONG));
        aws_refusal(&reply, 403, "ForbiddenException");
        assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
        // Without a digest in the head it has to be received, but no more than any other.
        let large = signed(&push, &["content-length: 1048577"], b"", WRONG);
        aws_refusal(&ask(&mut way.connect(), large), 413, "PayloadTooLargeException");
        let mut stream = way.connect();
        let lines = ["expect: 100-continue", "content-length: 5"];
        stream.write_all(&signed(&push, &lines, b"", WRONG)).unwrap();
        assert_eq!(Reply::read_head(&mut stream).status, 100);
        aws_refusal(&ask(&mut stream, "hello"), 403, "ForbiddenException");
    }
}

/// What has to be received before it is known who sends it leaves room for those who are known.
#[test]
fn strangers_with_signatures_leave_room_for_others() {
    let server = Managed::with(
        |builder| builder,
        |manage| {
            let mut limits = Limits::default();
            limits.max_body = 4096;
            limits.max_buffered_bytes = Some(64 << 10);
            manage.limits(limits)
        },
    );
    let (mut client, id) = server.client("/");
    let way = server.plain();
    let push = format!("POST /@connections/{id}");
    let strangers: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = way.connect();
            let lines = ["content-length: 4096", "expect: 100-continue"];
            stream.write_all(&signed(&push, &lines, b"", WRONG)).unwrap();
            assert_eq!(Reply::read_head(&mut stream).status, 100);
            stream
        })
        .collect();
    let reply = ask(&mut way.connect(), signed(&push, &[], b"one more", TOKEN));
    assert!(aws_refusal(&reply, 503, "ServiceUnavailableException").contains("who sends them"));
    assert_eq!(reply.header("retry-after"), Some("5"));
    let digest = "x-amz-content-sha256: 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    assert_pushed(&ask(&mut way.connect(), signed(&push, &[digest], b"hello", TOKEN)));
    assert_pushed(&way.ask(&push, "by token"));
    assert_eq!(ask(&mut way.connect(), signed("GET /@topics", &[], b"", TOKEN)).status, 200);
    drop(strangers);
    eventually("there is room", || {
        ask(&mut way.connect(), signed(&push, &[], b"again", TOKEN)).status == 200
    });
    for expected in ["hello", "by token", "again"] {
        assert_eq!(next_message(&mut client), text(expected));
    }
}

// Paths, heads and bodies.

#[test]
fn nothing_in_a_path_leads_elsewhere_or_into_a_head() {
    let server = Managed::new();
    let (_client, id) = server.client("/");
    for way in server.ways() {
        for (request, status, part) in [
            // No ID has these.
            ("GET /@connections/a%0d%0aX-Injected:%20y", 400, ""),
            ("GET /@connections/a%0aSet-Cookie:%20y", 400, ""),
            ("GET /@connections/%00", 400, "NUL"),
            ("GET /@connections/a%00b", 400, "NUL"),
            ("GET /@connections/ID%00", 400, "NUL"),
            ("GET /@connections/%ff%fe", 400, "UTF-8"),
            ("GET /@connections/ID%2F..%2Fx", 400, ""),
            ("GET /@connections/..", 400, ""),
            ("GET /@connections/%2e%2e", 400, ""),
            ("GET /@connections/%252e", 400, ""),
            ("GET /@connections/ID%20", 400, ""),
            ("GET /@connections/", 400, ""),
            ("DELETE /@connections/ID%2Ftopics%2Ft", 400, ""),
            ("GET /@connections//ID", 404, ""),
            ("GET //@connections/ID", 404, ""),
            ("GET /../@connections/ID", 200, ""), // a stage may have any name
            ("GET /x/../@connections/ID", 404, ""),
            ("GET /x/y/@connections/ID", 404, ""),
            ("GET /@connections/ID/../ID", 404, ""),
            ("GET /@connections/ID/", 404, ""),
            ("GET /@connections%2FID", 404, ""),
            ("GET /%2F@connections/ID", 404, ""),
            ("GET /health/../@topics", 404, ""),
            ("GET /@topics/..%2f..%2fetc%2fpasswd", 405, ""),
            ("GET /@events/..", 404, ""),
            ("GET /.%00./x", 400, "NUL"),
            ("GET /etc/passwd", 404, ""),
            ("GET /@connections?path=%0d%0aX-Injected:y", 200, ""),
            ("GET /@connections?%0d%0aX-Injected:y=1", 400, "no parameter"),
            ("GET /@connections?after=%0d%0a", 400, "after"),
            ("GET /@connections?limit=1%00", 400, "limit"),
            ("DELETE /@connections/ID?code=1000%0d%0a", 400, "code"),
            ("POST /@connections/ID?type=%0d%0aX-Injected:y", 400, "type"),
            ("GET http://evil.example/@nothing", 404, ""),
            ("GET http://box.example/@connections/x", 400, ""),
            ("GET ftp://evil.example/health", 200, ""),
            ("GET ?", 400, ""),
            ("GET @connections", 400, ""),
        ] {
            let request = request.replace("ID", &id);
            let reply = way.ask(&request, "");
            assert_eq!((reply.status, reply.header("x-injected")), (status, None), "{request}: {reply:?}");
            if status != 200 {
                assert_refused(&reply, status, part, &request);
            }
        }
        // Names of topics and users may be anything; they are names, and nothing else.
        for name in
            ["..", "%2e%2e%2f", "a%0d%0aX-Injected:%20y", "%22%7d", "%3Cscript%3E", "a//b", "@connections"]
        {
            let reply = way.ask(&format!("POST /@topics/{name}"), "x");
            assert_eq!((reply.status, reply.header("x-injected")), (202, None), "{name}");
            assert_eq!(way.ask(&format!("DELETE /@users/{name}"), "").status, 202, "{name}");
        }
    }
    assert_eq!(server.ids(), [id]);
}

#[test]
fn what_proxies_could_understand_in_another_way_is_refused_and_ends_the_connection() {
    let server = Managed::new();
    let (mut client, id) = server.client("/");
    let smuggled = format!("DELETE /@connections/{id} HTTP/1.1\r\nHost: x\r\n\r\n");
    for way in server.ways() {
        let chunks = "Transfer-Encoding: chunked\r\n";
        for (lines, body, status) in [
            ("Content-Length: 5\r\nContent-Length: 6\r\n", "hello".to_owned(), 400),
            ("Content-Length: 5, 5\r\n", "hello".to_owned(), 400),
            ("Content-Length: +5\r\n", "hello".to_owned(), 400),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n".to_owned(), 400),
            ("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n".to_owned(), 400),
            ("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n".to_owned(), 400),
            ("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n".to_owned(), 501),
            ("Content-Length : 5\r\n", "hello".to_owned(), 400),
            ("X: a\r\n b\r\nContent-Length: 5\r\n", "hello".to_owned(), 400),
            ("X\0: a\r\n", String::new(), 400),
            ("X: a\rb\r\n", String::new(), 400),
            ("Host: other\r\n", String::new(), 400),
            ("Expect: 200-ok\r\nContent-Length: 5\r\n", "hello".to_owned(), 417),
            (chunks, "5\nhello\n0\n\n".to_owned(), 400),
            (chunks, "0x5\r\nhello\r\n0\r\n\r\n".to_owned(), 400),
            (chunks, "-5\r\nhello\r\n0\r\n\r\n".to_owned(), 400),
            (chunks, "4\r\nhello\r\n0\r\n\r\n".to_owned(), 400),
            (chunks, "fffffffffffffffff\r\nhello".to_owned(), 400),
            (chunks, format!("5;{}\r\nhello", "x".repeat(500)), 400),
            (chunks, format!("5\r\nhello\r\n0\r\n{}\r\n", "X: y\r\n".repeat(100)), 400),
            (chunks, "5\r\nhello\r\n0\r\nX: y\n\r\n".to_owned(), 400),
            (chunks, "5\r\nhello\r\n0\r\nno colon\r\n\r\n".to_owned(), 400),
        ] {
            let request = format!(
                "POST /@connections/{id} HTTP/1.1\r\nHost: x\r\n{}{lines}\r\n{body}{smuggled}",
                way.authorization()
            );
            let reply = ask(&mut way.connect(), &request);
            assert_refused(&reply, status, "", &request);
            assert!(reply.closes(), "{request}");
        }
        for first in ["GET /", "GET / HTTP/0.9\r\nHost: x", "GET / HTTP/2.0\r\nHost: x", "PRI * HTTP/2.0"] {
            let reply = ask(&mut way.connect(), format!("{first}\r\n\r\nSM\r\n\r\n{smuggled}"));
            assert_refused(&reply, 400, "", first);
        }
        // HTTP/1.0 has one response, no chunks, and no 100.
        let old = |lines: &str, body: &str| {
            let head =
                format!("POST /@connections/{id} HTTP/1.0\r\n{}{lines}\r\n{body}", way.authorization());
            ask(&mut way.connect(), head)
        };
        assert_refused(&old("Transfer-Encoding: chunked\r\n", "0\r\n\r\n"), 400, "HTTP/1.0", "");
        let reply = old("Content-Length: 3\r\nExpect: 100-continue\r\nConnection: keep-alive\r\n", "old");
        assert!(reply.status == 200 && reply.closes(), "{reply:?}");
        assert_eq!(next_message(&mut client), text("old"));
    }
    assert_eq!(server.ids(), [id]);
}

#[test]
fn bodies_that_are_too_large_or_too_slow_are_not_waited_for() {
    let server = Managed::with(
        |builder| builder,
        |manage| {
            let mut limits = Limits::default();
            limits.max_body = 1000;
            manage.limits(limits)
        },
    );
    let (mut client, id) = server.client("/");
    let post = |way: &Way, id: &str, lines: &str| {
        let lines = format!("{}{lines}", way.authorization());
        with_lines(&format!("POST /@connections/{id}"), &lines, "")
    };
    for way in server.ways() {
        let post = |lines| post(&way, &id, lines);
        for lines in ["Content-Length: 1001\r\n", "Content-Length: 1001\r\nExpect: 100-continue\r\n"] {
            let reply = ask(&mut way.connect(), post(lines));
            assert!(aws_refusal(&reply, 413, "PayloadTooLargeException").contains("1000"));
            assert!(reply.closes());
        }
        let chunks = [post("Transfer-Encoding: chunked\r\n"), b"3e9\r\n".to_vec(), vec![b'x'; 1001]].concat();
        aws_refusal(&ask(&mut way.connect(), chunks), 413, "PayloadTooLargeException");
        // Just as large as it may be.
        let chunks = [post("Transfer-Encoding: chunked\r\n"), b"3e8\r\n".to_vec(), vec![b'x'; 1000]].concat();
        assert_eq!(ask(&mut way.connect(), [&chunks[..], b"\r\n0\r\n\r\n"].concat()).status, 200);
        assert_eq!(next_message(&mut client).len(), 1000);
    }
    let hasty = Managed::with(
        |builder| builder,
        |manage| {
            let mut limits = Limits::default();
            limits.handshake_timeout = Duration::from_secs(3);
            limits.min_http_rate = 1000;
            manage.limits(limits)
        },
    );
    let (_client, id) = hasty.client("/");
    let give_up = |way: &Way| {
        let post = |lines| post(way, &id, lines);
        // A byte now and then.
        let mut stream = way.connect();
        stream.write_all(&post("Content-Length: 1000\r\n")).unwrap();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) && stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer); // it may be reset: the client went on sending
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
        let slow = ask(&mut way.connect(), [post("Content-Length: 1000\r\n"), b"x".to_vec()].concat());
        aws_refusal(&slow, 408, "RequestTimeoutException");
    };
    let ways = hasty.ways();
    thread::scope(|scope| ways.iter().for_each(|way| drop(scope.spawn(|| give_up(way)))));
}

#[test]
fn of_requests_that_come_together_a_refused_one_ends_only_what_has_to_end() {
    let server = Managed::new();
    let (mut client, id) = server.client("/");
    for way in server.ways() {
        let push = |body: &str| way.request(&format!("POST /@connections/{id}"), body);
        // These are answered, and the connection goes on.
        let refused = [
            (way.request("GET /nothing", ""), 404),
            (way.request("BREW /@topics", ""), 405),
            (way.request(&format!("POST /@connections/{GONE}"), "x".repeat(70_000)), 410),
            (way.request(&format!("POST /@connections/{id}?type=x"), "a body that nobody reads"), 400),
            (way.request("HEAD /@broadcast", ""), 405),
        ];
        for (request, status) in refused {
            let mut stream = way.connect();
            let is_head = request.starts_with(b"HEAD");
            stream.write_all(&[request, push("next")].concat()).unwrap();
            let reply = if is_head { Reply::read_head(&mut stream) } else { Reply::read(&mut stream) };
            assert_eq!(reply.status, status);
            assert_pushed(&Reply::read(&mut stream));
            assert_eq!(next_message(&mut client), text("next"));
        }
        // After these nobody knows where the next one begins, or who has sent it.
        let large = way.request("POST /@broadcast", "x".repeat((1 << 20) + 1));
        let mut unclear = vec![(b"GET / HTTP/1.1\r\n\r\n".to_vec(), 400), (large, 413)];
        if let Way::Tcp(..) = way {
            unclear.push((with_lines("GET /@topics", &bearer(WRONG), ""), 401));
            unclear.push((with_lines("GET /@topics", "", ""), 401));
        }
        for (request, status) in unclear {
            let mut stream = way.connect();
            // A server that has refused a large body may end the connection while it is sent.
            let _ = stream.write_all(&[request, push("never")].concat());
            assert_eq!(Reply::read_head(&mut stream).status, status);
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
            assert!(!String::from_utf8_lossy(&rest).contains("HTTP/1.1"), "there is a second answer");
        }
        assert_pushed(&ask(&mut way.connect(), push("last")));
        assert_eq!(next_message(&mut client), text("last"));
    }
}

#[test]
fn a_head_is_that_of_get_without_a_body() {
    let server = Managed::new();
    let (_client, id) = server.client("/?topic=t");
    for way in server.ways() {
        for path in ["/@connections", "/@topics", "/health", "/ready", &format!("/@connections/{id}")] {
            let mut stream = way.connect();
            let (get, head) = (format!("GET {path}"), format!("HEAD {path}"));
            stream.write_all(&[way.request(&head, ""), way.request(&get, "")].concat()).unwrap();
            let head = Reply::read_head(&mut stream);
            let get = Reply::read(&mut stream);
            assert_eq!((head.status, get.status), (200, 200), "{path}");
            let length = |reply: &Reply| reply.header("content-length").unwrap().to_owned();
            // Of a connection some numbers may have grown meanwhile, but not by a digit.
            assert_eq!(length(&head), length(&get), "{path}");
        }
        let gone = way.ask(&format!("HEAD /@connections/{GONE}"), "");
        assert_eq!((gone.status, gone.header("x-amzn-errortype")), (410, Some("GoneException")));
    }
}

// Many at once.

/// They take all places, and stay as long as they can; but they give them up to whoever has the right token.
#[test]
fn a_thousand_strangers_at_once_do_not_lock_out_who_has_the_token() {
    let server = Managed::new();
    let (_client, id) = server.client("/");
    let path = format!("/@connections/{id}");
    for (name, request) in [
        ("wrong tokens", with_lines(&format!("GET {path}"), &bearer(WRONG), "")),
        ("no tokens", with_lines(&format!("GET {path}"), "", "")),
        ("wrong signatures", signed(&format!("POST {path}"), &[], b"x", WRONG)),
        ("no HTTP", b"GET\r\n\r\n".to_vec()),
        ("probes", with_lines("GET /health", "Connection: close\r\n", "")),
        ("halves of heads", b"GET / HTTP/1.1\r\n".to_vec()),
        ("silence", Vec::new()),
    ] {
        let longest = with_a_thousand(&server, &request, || is_let_in(&server.plain(), &path));
        println!("{name} of a thousand: whoever has the token waits for {longest:?} at most");
    }
    eventually("it is let in", || is_let_in(&server.plain(), &path));
}

/// How long it takes at most, among many attempts, until somebody is let in, while strangers keep up a thousand connections.
fn with_a_thousand(server: &Managed, request: &[u8], is_let_in: impl Fn() -> bool) -> Duration {
    let (address, is_over) = (server.tcp(1), AtomicBool::new(false));
    let stay = || -> std::io::Result<()> {
        let mut streams: Vec<_> = (0..20).map(|_| TcpStream::connect(address)).collect::<Result<_, _>>()?;
        streams.iter_mut().try_for_each(|stream| stream.write_all(request))?;
        for stream in streams.iter_mut().take_while(|_| !is_over.load(Relaxed)) {
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer); // there is none, if its place was needed
            let answer = String::from_utf8_lossy(&answer);
            let statuses = ["HTTP/1.1 200", "HTTP/1.1 400", "HTTP/1.1 403", "HTTP/1.1 503"];
            assert!(answer.is_empty() || statuses.iter().any(|begin| answer.starts_with(begin)), "{answer}");
        }
        Ok(())
    };
    thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                while !is_over.load(Relaxed) {
                    let _ = stay();
                }
            });
        }
        thread::sleep(Duration::from_millis(300)); // mostly all of them are there by then
        let (mut longest, started) = (Duration::ZERO, Instant::now());
        while started.elapsed() < Duration::from_secs(1) {
            let begun = Instant::now();
            while !is_let_in() {
                assert!(begun.elapsed() < PATIENCE, "it is locked out");
                thread::sleep(Duration::from_millis(5));
            }
            longest = longest.max(begun.elapsed());
        }
        is_over.store(true, Relaxed);
        longest
    })
}

/// One attempt.
fn is_let_in(way: &Way, path: &str) -> bool {
    let Way::Tcp(address, _) = way else { return false };
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = [0; 12];
    stream.write_all(&way.request(&format!("GET {path}"), "")).is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && answer == *b"HTTP/1.1 200"
}

fn stranger(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Also where there are only few places.
#[test]
fn strangers_keep_no_place_from_another_client() {
    let server = Managed::with(
        |builder| builder,
        |manage| {
            let mut limits = Limits::default();
            limits.max_connections = 2;
            manage.limits(limits)
        },
    );
    let way = server.plain();
    for request in [
        with_lines("GET /@topics", &bearer(WRONG), ""),
        with_lines("GET /@topics", "", ""),
        b"GET / HTTP".to_vec(),
    ] {
        for _ in 0..3 {
            let mut strangers: Vec<_> = (0..2).map(|_| stranger(server.tcp(1))).collect();
            strangers.iter_mut().for_each(|stranger| stranger.write_all(&request).unwrap());
            thread::sleep(Duration::from_millis(50)); // mostly they have their places by then
            let begun = Instant::now();
            while !is_let_in(&way, "/@topics") {
                assert!(begun.elapsed() < Duration::from_secs(5), "they stay");
            }
            for mut stranger in strangers {
                let mut answer = String::new();
                if !request.ends_with(b"\r\n\r\n") {
                    let _ = stranger.shutdown(Shutdown::Write); // or it may stay for as long as a request may take
                }
                let _ = stranger.read_to_string(&mut answer);
                let is_known = answer.is_empty() || answer.starts_with("HTTP/1.1 401");
                assert!(is_known || answer.starts_with("HTTP/1.1 503"), "{answer}");
            }
        }
    }
}

/// Neither those of strangers nor, after a second, those of whoever has the token.
#[test]
fn bodies_that_do_not_come_keep_no_place_from_another_request() {
    let server = Managed::with(
        |builder| builder,
        |manage| {
            let mut limits = Limits::default();
            limits.max_connections = 4;
            limits.handshake_timeout = PATIENCE * 3;
            manage.limits(limits)
        },
    );
    let (mut client, id) = server.client("/");
    let (way, push) = (server.plain(), format!("POST /@connections/{id}"));
    let known = with_lines(&push, &format!("{}Content-Length: 10\r\n", bearer(TOKEN)), "");
    let stranger = signed(&push, &["content-length: 10"], b"", WRONG);
    for request in [&known, &stranger] {
        let mut slow: Vec<_> = (0..4).map(|_| way.connect()).collect();
        slow.iter_mut().for_each(|stream| stream.write_all(&[request, &b"begun"[..]].concat()).unwrap());
        let mut is_there = false;
        eventually("there is a place", || {
            is_there = is_let_in(&way, "/@topics");
            is_there
        });
        if request == &known {
            // The others have theirs still, and may go on.
            let answered = slow.iter_mut().map(|stream| {
                let mut answer = [0; 12];
                stream.write_all(b"12345").is_ok()
                    && stream.read_exact(&mut answer).is_ok()
                    && answer == *b"HTTP/1.1 200"
            });
            let answered = answered.filter(|is_answered| *is_answered).count();
            assert!((1..4).contains(&answered), "{answered}");
            for _ in 0..answered {
                assert_eq!(next_message(&mut client), text("begun12345"));
            }
        }
    }
}

/// Each of them may, and keeps its connection; but not all together.
#[test]
fn those_who_stay_leave_places_for_requests() {
    let server = Managed::new();
    let (_client, id) = server.client("/shared");
    let (way, reading) = (server.plain(), bearer(READ_TOKEN));
    let wait = format!("GET /@connections/{id}/messages?timeout=60");
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: switchboard.hub.1\r\n";
    let link = with_lines("GET /@hub", &(upgrade.to_owned() + &reading), "");
    let with_upgrade = |path| with_lines(path, &(upgrade.to_owned() + &reading), "");
    for kinds in [
        vec![link.clone()],
        vec![way.request(&wait, ""), way.request("GET /@events", ""), way.request("GET /@stats", "")],
        vec![way.request(&wait, ""), with_upgrade("GET /@events"), with_upgrade("GET /@stats"), link],
    ] {
        let mut all: Vec<_> =
            kinds.iter().cycle().take(300).map(|request| (request, way.connect())).collect();
        all.iter_mut().for_each(|(request, stream)| stream.write_all(request).unwrap());
        thread::sleep(Duration::from_millis(300)); // mostly they have their places by then
        // Of the others, those that are not heard yet give up none.
        eventually("they leave places", || {
            (0..20).all(|_| {
                is_let_in(&way, "/@connections")
                    && server.unix().get(&format!("/@connections/{id}")).status == 200
            })
        });
        drop(all);
        // Whoever leaves makes room.
        eventually("there is room", || way.ask("HEAD /@events", "").status == 200);
    }
}

#[test]
fn without_descriptors_it_is_not_ready() {
    if !is_alone("without_descriptors_it_is_not_ready") {
        return;
    }
    let server = Managed::new();
    let mut streams: Vec<_> = server.ways().iter().map(Way::connect).collect();
    let probe = |stream: &mut dyn common::managed::Both| {
        let mut stream = stream;
        ask(&mut stream, with_lines("GET /ready", "", ""))
    };
    for stream in &mut streams {
        assert_eq!(probe(&mut **stream).status, 200);
    }
    let limit = getrlimit(Resource::Nofile);
    // The first number that is not taken is the first one too many.
    let free = fs::File::open("/dev/null").unwrap().as_raw_fd() as u64;
    setrlimit(Resource::Nofile, Rlimit { current: Some(free), ..limit }).unwrap();
    let replies: Vec<_> = streams.iter_mut().map(|stream| probe(&mut **stream)).collect();
    setrlimit(Resource::Nofile, limit).unwrap();
    for reply in replies {
        assert!(refusal(&reply, 503).contains("descriptor"), "{reply:?}");
    }
    for stream in &mut streams {
        assert_eq!(probe(&mut **stream).status, 200);
    }
}

#[test]
fn the_certificates_of_the_listener_are_among_those_of_the_server() {
    let server = Managed::new();
    let certificates = server.hub().certificates().unwrap();
    assert_eq!(certificates.len(), 1, "{certificates:?}");
    assert!(certificates[0].subject.contains("localhost"), "{certificates:?}");
    assert_eq!(ask(&mut Stream::connect(server.tcp(2), Scheme::Wss), "x\r\n\r\n").status, 400);
}

#![cfg(all(feature = "__tls", feature = "cli", feature = "manage"))]
//! The console, and `serve --manage` and its options: what they serve to whom, and what wrong ones are told. How the page works is
//! tested in a browser, by tests/browser/console.mjs.

mod common;

use std::{
    fs::{self, Permissions},
    io::{Read, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixStream,
    },
};

use common::{
    PATIENCE, Scheme, Stream,
    folder::Folder,
    managed::{READ_TOKEN, TOKEN},
    process::Process,
    reply::{Reply, ask},
};

const ANY: &str = "127.0.0.1:0";

/// The files of the console: path, content type, and some text that the file contains.
const CONSOLE: [(&str, &str, &str); 3] = [
    ("/", "text/html; charset=utf-8", "<title>Switchboard console</title>"),
    ("/console.css", "text/css; charset=utf-8", "@media"),
    ("/console.js", "text/javascript; charset=utf-8", "@stats"),
];

fn get(stream: &mut (impl Read + Write), path: &str, lines: &str) -> Reply {
    ask(stream, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n"))
}

/// What `/@access` says to who has this token.
fn access(stream: &mut (impl Read + Write), token: &str) -> Result<String, u16> {
    let lines = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    let reply = get(stream, "/@access", &lines);
    if reply.status == 200 { Ok(reply.text().to_owned()) } else { Err(reply.status) }
}

fn secret(folder: &Folder, name: &str, text: &str) -> String {
    let path = folder.write(name, text);
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}

#[test]
fn it_is_where_the_log_says_and_needs_no_token_but_what_it_asks_for_does() {
    let folder = Folder::new();
    let (all, read) = (secret(&folder, "all", TOKEN), secret(&folder, "read", READ_TOKEN));
    let socket = format!("unix:{},mode=0660", folder.path("s"));
    let mut process = Process::start(&[
        "serve",
        "--listen",
        ANY,
        "--manage",
        &socket,
        "--manage",
        ANY,
        "--manage-tls",
        ANY,
        "--cert",
        "certs/server.pem",
        "--key",
        "certs/server.key",
        "--manage-token-file",
        &all,
        "--manage-read-token-file",
        &read,
    ]);
    let line = process.line("has the console");
    assert!(line.contains(&format!("unix:{} has the console: ssh -L", folder.path("s"))), "{line}");
    assert_eq!(fs::metadata(folder.join("s")).unwrap().mode() & 0o777, 0o660);
    let plain = process.address_of("console", "http");
    let tls = process.address_of("console", "https");
    for (address, scheme) in [(plain, Scheme::Ws), (tls, Scheme::Wss)] {
        let connect = || Stream::connect(address, scheme);
        for (path, content_type, text) in CONSOLE {
            let file = get(&mut connect(), path, "");
            assert_eq!((file.status, file.header("content-type")), (200, Some(content_type)), "{path}");
            assert!(file.text().contains(text), "{path}");
            assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
            assert_eq!(file.header("cache-control"), Some("no-cache"));
            let policy = file.header("content-security-policy").unwrap();
            for rule in
                ["default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"]
            {
                assert!(policy.contains(rule), "{policy}");
            }
            assert!(!policy.contains("unsafe"), "{policy}");
            let tag = format!("If-None-Match: {}\r\n", file.header("etag").unwrap());
            let mut stream = connect();
            let again = get(&mut stream, path, &tag);
            assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
            let head = ask(&mut stream, format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            assert_eq!((head.status, head.header("content-type")), (200, Some(content_type)), "{path}");
        }
        assert_eq!(get(&mut connect(), "/?token=x", "").status, 400);
        assert_eq!(get(&mut connect(), "/@stats", "").status, 401);
        let access = |token| access(&mut connect(), token);
        assert_eq!(access(""), Ok(r#"{"access":"none"}"#.into()));
        assert_eq!(access(TOKEN), Ok(r#"{"access":"all"}"#.into()));
        assert_eq!(access(READ_TOKEN), Ok(r#"{"access":"read"}"#.into()));
        assert_eq!(access("neither-of-the-two"), Err(401));
    }
    process.stop();
    assert!(!folder.join("s").exists());
}

/// Whatever token there is for others.
#[test]
fn a_listener_for_looking_only_lets_nobody_do_more() {
    let folder = Folder::new();
    let token = secret(&folder, "token", TOKEN);
    let socket = format!("unix:{},mode=0666", folder.path("s"));
    let mut process = Process::start(&[
        "serve",
        "--listen",
        ANY,
        "--manage-read-only",
        &socket,
        "--manage-read-only",
        ANY,
        "--manage-token-file",
        &token,
    ]);
    let address = process.address_of("console", "http");
    assert_eq!(fs::metadata(folder.join("s")).unwrap().mode() & 0o777, 0o666);
    let unix = || UnixStream::connect(folder.join("s")).unwrap();
    let post = |lines: &str| {
        format!("POST /@broadcast HTTP/1.1\r\nHost: localhost\r\n{lines}Content-Length: 1\r\n\r\nx")
    };
    assert_eq!(access(&mut unix(), ""), Ok(r#"{"access":"read"}"#.into()));
    assert_eq!(ask(&mut unix(), post("")).status, 403);
    assert_eq!(get(&mut unix(), "/@connections", "").status, 200);
    let tcp = || Stream::connect(address, Scheme::Ws);
    assert_eq!(access(&mut tcp(), TOKEN), Ok(r#"{"access":"read"}"#.into()));
    assert_eq!(ask(&mut tcp(), post(&format!("Authorization: Bearer {TOKEN}\r\n"))).status, 403);
    assert_eq!(get(&mut tcp(), "/@topics", "").status, 401);
    process.stop();
}

/// DNS rebinding: where no token is needed, only the name tells a stranger's page from the console.
#[test]
fn a_browser_comes_to_a_unix_socket_by_a_name_that_no_stranger_can_own() {
    let folder = Folder::new();
    let socket = format!("unix:{}", folder.path("s"));
    let mut process = Process::start(&["serve", "--listen", ANY, "--manage", &socket]);
    process.line("has the console");
    let status = |host: &str, lines: &str| {
        let mut stream = UnixStream::connect(folder.join("s")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        ask(&mut stream, format!("GET /@access HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n")).status
    };
    for lines in ["Accept-Language: en\r\n", "Accept-Language:\r\n", "Origin: http://evil.example:9090\r\n"] {
        assert_eq!(status("evil.example:9090", lines), 421, "{lines}");
        assert_eq!(status("localhost:9090", lines), 200, "{lines}");
        assert_eq!(status("127.0.0.1:9090", lines), 200, "{lines}");
    }
    assert_eq!(status("evil.example", ""), 200, "no browser");
    // A page of another origin cannot read what it gets; but nor may it hold a place of those who listen.
    for (site, dest, expected) in [
        ("cross-site", "empty", 403),
        ("same-site", "empty", 403),
        ("cross-site", "iframe", 403),
        ("cross-site", "document", 200),
        ("same-origin", "empty", 200),
        ("none", "document", 200),
    ] {
        let lines = format!("Accept-Language: en\r\nSec-Fetch-Site: {site}\r\nSec-Fetch-Dest: {dest}\r\n");
        assert_eq!(status("localhost:9090", &lines), expected, "{lines}");
    }
    let mut stream = UnixStream::connect(folder.join("s")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(access(&mut stream, ""), Ok(r#"{"access":"all"}"#.into()));
}

#[test]
fn wrong_options_are_told_with_what_to_do() {
    let folder = Folder::new();
    let token = secret(&folder, "token", TOKEN);
    let short = secret(&folder, "short", "short");
    let missing = folder.path("missing");
    let path = folder.path("s");
    let wrong = |options: &[&str]| {
        let ended = Process::start(&[&["serve", "--listen", ANY], options].concat()).end();
        (ended.status.code(), ended.stderr.join("\n"))
    };
    for (options, code, parts) in [
        (&["--manage", ANY][..], 1, &["--manage-token-file", "unix:PATH"][..]),
        (&["--manage", "0.0.0.0:0", "--manage-token-file", &token], 1, &["--manage-tls", "in the clear"]),
        (&["--manage", ANY, "--manage-token-file", &missing], 1, &["No such file", "openssl rand -hex 32 >"]),
        (&["--manage", ANY, "--manage-token-file", &short], 1, &["5 characters", "openssl rand"]),
        (&["--manage", &path], 1, &["unix:PATH"]),
        (&["--manage-read-only", ANY], 1, &["--manage-token-file", "unix:PATH"]),
        (
            &["--manage", ANY, "--manage-token-file", &token, "--manage-read-token-file", &token],
            1,
            &["the same"],
        ),
        (&["--manage-token-file", &token], 2, &["--manage <ADDR>"]),
        (&["--manage-tls", ANY, "--manage-token-file", &token], 2, &["--cert <FILE>"]),
        (
            &["--manage-tls", ANY, "--cert", "certs/server.pem", "--key", "certs/server.key"],
            2,
            &["--manage-token-file <FILE>"],
        ),
    ] {
        let (status, told) = wrong(options);
        assert_eq!(status, Some(code), "{options:?}: {told}");
        assert!(parts.iter().all(|part| told.contains(part)), "{options:?}: {told}");
        assert!(!told.contains(TOKEN), "{told}");
    }
}

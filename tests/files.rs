#![cfg(feature = "__tls")]
//! The files of a folder as HTTP has them: conditional requests, ranges, compressed copies, types; and files that change or
//! that are none.

mod common;

use std::{
    fs::{self, File, FileTimes, OpenOptions},
    io::{Read, Write},
    os::unix::{fs::symlink, net::UnixListener},
    process::Command,
    sync::mpsc::{self, TryRecvError},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use common::{PATIENCE, SCHEMES, Scheme, TestServer, folder::Folder, reply::Reply, serve};

/// The date of the examples in RFC 9110.
const THEN: (u64, &str) = (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT");

fn serve_folder(site: &Folder) -> TestServer {
    serve(|builder| builder.files("/*", site.join("www")))
}

/// Asks for a file with more header lines.
fn ask(server: &TestServer, scheme: Scheme, path: &str, lines: &str) -> Reply {
    ask_by(server, scheme, "GET", path, lines)
}

fn ask_by(server: &TestServer, scheme: Scheme, method: &str, path: &str, lines: &str) -> Reply {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n");
    server.ask(scheme, head)
}

fn set_modified(site: &Folder, name: &str, seconds: u64) {
    let file = OpenOptions::new().write(true).open(site.join(name)).unwrap();
    file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
}

#[test]
fn a_file_that_the_client_has_is_not_sent_again() {
    let site = Folder::new();
    site.write("www/page.html", "this is a page");
    set_modified(&site, "www/page.html", THEN.0);
    let server = serve_folder(&site);
    for scheme in SCHEMES {
        let whole = ask(&server, scheme, "/page.html", "");
        let etag = whole.header("etag").expect("an ETag").to_owned();
        assert!(etag.starts_with('"') && etag.ends_with('"'), "a strong one: {etag}");
        assert_eq!(whole.header("last-modified"), Some(THEN.1));
        assert_eq!(whole.header("cache-control"), Some("no-cache"), "ask each time, but keep it");
        for lines in [
            format!("If-None-Match: {etag}\r\n"),
            format!("If-None-Match: \"other\", W/{etag}\r\n"),
            format!("If-None-Match: {etag}\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n"),
            format!("If-None-Match: {etag}\r\nRange: bytes=0-1\r\n"),
            "If-None-Match: *\r\n".into(),
            format!("If-Modified-Since: {}\r\n", THEN.1),
            "If-Modified-Since: Sat, 01 Jan 2000 00:00:00 GMT\r\n".into(),
        ] {
            for method in ["GET", "HEAD"] {
                let reply = ask_by(&server, scheme, method, "/page.html", &lines);
                assert_eq!((reply.status, reply.text()), (304, ""), "{lines}: {reply:?}");
                assert_eq!(reply.header("content-length"), None, "that of the file, or none: {reply:?}");
                for name in ["etag", "last-modified", "cache-control"] {
                    assert_eq!(reply.header(name), whole.header(name), "{name}: {reply:?}");
                }
            }
        }
        for lines in [
            "If-None-Match: \"other\"\r\n".into(),
            format!("If-None-Match: \"other\"\r\nIf-Modified-Since: {}\r\n", THEN.1),
            "If-Modified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n".into(),
            "If-Modified-Since: yesterday\r\n".into(),
            format!("If-Match: {etag}\r\n"),
            format!("If-Unmodified-Since: {}\r\n", THEN.1),
        ] {
            let reply = ask(&server, scheme, "/page.html", &lines);
            assert_eq!((reply.status, reply.text()), (200, "this is a page"), "{lines}: {reply:?}");
        }
        for lines in [
            "If-Match: \"other\"\r\n".into(),
            format!("If-Match: W/{etag}\r\n"),
            "If-Unmodified-Since: Sun, 06 Nov 1994 08:49:36 GMT\r\n".into(),
        ] {
            assert_eq!(ask(&server, scheme, "/page.html", &lines).status, 412, "{lines}");
        }
    }
}

#[test]
fn an_etag_changes_with_the_file_even_if_its_size_and_time_do_not() {
    let site = Folder::new();
    let server = {
        site.write("www/page.html", "one");
        serve_folder(&site)
    };
    let etag = || ask(&server, Scheme::Ws, "/page.html", "").header("etag").expect("an ETag").to_owned();
    set_modified(&site, "www/page.html", THEN.0);
    let first = etag();
    assert_eq!(first, etag(), "it stays as long as the file does");
    site.write("www/new.html", "two");
    set_modified(&site, "www/new.html", THEN.0);
    fs::rename(site.join("www/new.html"), site.join("www/page.html")).unwrap();
    let second = etag();
    assert_ne!(first, second);
    let reply = ask(&server, Scheme::Ws, "/page.html", &format!("If-None-Match: {first}\r\n"));
    assert_eq!((reply.status, reply.text()), (200, "two"));
}

#[test]
fn a_time_that_is_none_is_not_told() {
    let site = Folder::new();
    let server = {
        site.write("www/page.html", "page");
        serve_folder(&site)
    };
    let file = OpenOptions::new().write(true).open(site.join("www/page.html")).unwrap();
    let day = Duration::from_secs(86_400);
    for time in [
        UNIX_EPOCH,
        UNIX_EPOCH + day,
        UNIX_EPOCH - day,
        SystemTime::now() + day,
        UNIX_EPOCH + day * 4_000_000,
    ] {
        // What a file system cannot keep, it cuts.
        file.set_times(FileTimes::new().set_modified(time)).unwrap();
        let reply =
            ask(&server, Scheme::Ws, "/page.html", "If-Modified-Since: Sat, 01 Jan 2050 00:00:00 GMT\r\n");
        assert_eq!((reply.status, reply.text()), (200, "page"), "{time:?}");
        assert_eq!(reply.header("last-modified"), None, "{time:?}");
    }
}

#[test]
fn a_range_is_answered_with_that_part() {
    let site = Folder::new();
    site.write("www/ten.txt", "0123456789");
    site.write("www/empty.txt", "");
    let server = serve_folder(&site);
    for scheme in SCHEMES {
        for (range, part, place) in [
            ("bytes=0-0", "0", "0-0"),
            ("bytes=2-4", "234", "2-4"),
            ("bytes=7-", "789", "7-9"),
            ("bytes=0-999", "0123456789", "0-9"),
            ("bytes=-3", "789", "7-9"),
            ("bytes=-999", "0123456789", "0-9"),
            ("BYTES=9-99999999999999999999999", "9", "9-9"),
        ] {
            let reply = ask(&server, scheme, "/ten.txt", &format!("Range: {range}\r\n"));
            assert_eq!((reply.status, reply.text()), (206, part), "{range}: {reply:?}");
            assert_eq!(reply.header("content-range"), Some(&*format!("bytes {place}/10")));
            assert_eq!(reply.header("content-length"), Some(&*part.len().to_string()));
            assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
            assert!(reply.header("etag").is_some() && reply.header("last-modified").is_some());
        }
        for range in ["bytes=10-", "bytes=10-11", "bytes=-0", "bytes=99999999999999999999999-"] {
            let reply = ask(&server, scheme, "/ten.txt", &format!("Range: {range}\r\n"));
            assert_eq!(reply.status, 416, "{range}: {reply:?}");
            assert_eq!(reply.header("content-range"), Some("bytes */10"));
        }
        // A server may answer these with all of it, and does.
        for range in [
            "bytes=0-1,5-6",
            "lines=0-1",
            "bytes=4-2",
            "bytes=a-b",
            "bytes 0-1",
            "bytes=0-1\r\nRange: bytes=2-3",
        ] {
            let reply = ask(&server, scheme, "/ten.txt", &format!("Range: {range}\r\n"));
            assert_eq!((reply.status, reply.text()), (200, "0123456789"), "{range}");
            assert_eq!(reply.header("content-range"), None);
            assert_eq!(reply.header("accept-ranges"), Some("bytes"));
        }
        let head = ask_by(&server, scheme, "HEAD", "/ten.txt", "Range: bytes=2-4\r\n");
        assert_eq!((head.status, head.header("content-length")), (200, Some("10")), "RFC 9110, section 14.2");
        assert_eq!(ask(&server, scheme, "/empty.txt", "Range: bytes=0-\r\n").status, 416);
        assert_eq!(ask(&server, scheme, "/empty.txt", "Range: bytes=-1\r\n").status, 200);
    }
}

#[test]
fn parts_of_two_versions_are_never_mixed() {
    let site = Folder::new();
    site.write("www/ten.txt", "0123456789");
    set_modified(&site, "www/ten.txt", THEN.0);
    let server = serve_folder(&site);
    let etag = ask(&server, Scheme::Ws, "/ten.txt", "").header("etag").expect("an ETag").to_owned();
    for (condition, status) in [
        (etag.clone(), 206),
        (THEN.1.to_owned(), 206),
        ("\"other\"".to_owned(), 200),
        (format!("W/{etag}"), 200),
        ("Sun, 06 Nov 1994 08:49:38 GMT".to_owned(), 200),
    ] {
        let reply =
            ask(&server, Scheme::Ws, "/ten.txt", &format!("Range: bytes=2-4\r\nIf-Range: {condition}\r\n"));
        let text = if status == 206 { "234" } else { "0123456789" };
        assert_eq!((reply.status, reply.text()), (status, text), "{condition}");
    }
}

/// A script with copies that are as long as they are said to be, and no more: nothing looks into them.
fn compressed_site() -> Folder {
    let site = Folder::new();
    site.write("www/x.js", "the script itself");
    site.write("www/x.js.br", "by brotli");
    site.write("www/x.js.gz", "by gzip");
    site.write("www/y.js", "without copies");
    site.write("www/index.html", "the page itself");
    site.write("www/index.html.gz", "the page by gzip");
    site
}

#[test]
fn a_compressed_copy_goes_to_those_who_accept_it() {
    let site = compressed_site();
    let server = serve_folder(&site);
    for scheme in SCHEMES {
        for (accept, coding, text) in [
            ("gzip, deflate, br, zstd", Some("br"), "by brotli"),
            ("gzip, deflate", Some("gzip"), "by gzip"),
            ("br;q=0.4, gzip;q=0.5", Some("gzip"), "by gzip"),
            ("br;q=0, *;q=0.1", Some("gzip"), "by gzip"),
            ("gzip;q=0.5, identity", None, "the script itself"),
            ("identity;q=1, *;q=0", None, "the script itself"),
            ("gzip;q=0", None, "the script itself"),
            ("deflate", None, "the script itself"),
            ("", None, "the script itself"),
        ] {
            let reply = ask(&server, scheme, "/x.js", &format!("Accept-Encoding: {accept}\r\n"));
            assert_eq!((reply.status, reply.text()), (200, text), "{accept}");
            assert_eq!(reply.header("content-encoding"), coding, "{accept}");
            assert_eq!(
                reply.header("content-type"),
                Some("text/javascript; charset=utf-8"),
                "of the original"
            );
            assert_eq!(reply.header("vary").map(str::to_ascii_lowercase).as_deref(), Some("accept-encoding"));
        }
        let plain = ask(&server, scheme, "/x.js", "");
        assert_eq!((plain.text(), plain.header("content-encoding")), ("the script itself", None));
        assert!(plain.header("vary").is_some(), "a cache must not give it to everybody");
        let page = ask(&server, scheme, "/", "Accept-Encoding: gzip\r\n");
        assert_eq!((page.text(), page.header("content-encoding")), ("the page by gzip", Some("gzip")));
        let alone = ask(&server, scheme, "/y.js", "Accept-Encoding: br, gzip\r\n");
        assert_eq!((alone.text(), alone.header("vary")), ("without copies", None));
        let itself = ask(&server, scheme, "/x.js.gz", "Accept-Encoding: gzip\r\n");
        assert_eq!((itself.text(), itself.header("content-encoding")), ("by gzip", None));
        assert_eq!(itself.header("content-type"), Some("application/gzip"));
    }
}

#[test]
fn each_coding_has_its_own_etag_and_ranges() {
    let site = compressed_site();
    let server = serve_folder(&site);
    let get = |lines: &str| ask(&server, Scheme::Ws, "/x.js", lines);
    let etags = ["", "Accept-Encoding: gzip\r\n", "Accept-Encoding: br\r\n"]
        .map(|lines| get(lines).header("etag").expect("an ETag").to_owned());
    assert!(etags[0] != etags[1] && etags[1] != etags[2] && etags[0] != etags[2], "{etags:?}");
    let known = get(&format!("Accept-Encoding: gzip\r\nIf-None-Match: {}\r\n", etags[1]));
    assert_eq!(known.status, 304);
    assert!(known.header("vary").is_some(), "RFC 9110, section 15.4.5");
    let other = get(&format!("Accept-Encoding: gzip\r\nIf-None-Match: {}\r\n", etags[0]));
    assert_eq!(other.status, 200);
    let part = get(&format!("Accept-Encoding: gzip\r\nRange: bytes=3-\r\nIf-Range: {}\r\n", etags[1]));
    assert_eq!((part.status, part.text(), part.header("content-range")), (206, "gzip", Some("bytes 3-6/7")));
    assert_eq!(part.header("content-encoding"), Some("gzip"));
}

#[test]
fn a_copy_that_is_old_hidden_or_elsewhere_is_not_used() {
    let site = compressed_site();
    site.write("secret", "outside");
    site.write("www/z.js", "the script");
    symlink("../secret", site.join("www/z.js.gz")).unwrap();
    fs::create_dir(site.join("www/z.js.br")).unwrap();
    set_modified(&site, "www/x.js.gz", THEN.0);
    set_modified(&site, "www/x.js.br", THEN.0);
    let server = serve_folder(&site);
    for (path, text) in [("/x.js", "the script itself"), ("/z.js", "the script")] {
        let reply = ask(&server, Scheme::Ws, path, "Accept-Encoding: br, gzip\r\n");
        assert_eq!((reply.status, reply.text(), reply.header("content-encoding")), (200, text, None));
    }
    assert_eq!(ask(&server, Scheme::Ws, "/nothing.js", "Accept-Encoding: gzip\r\n").status, 404);
}

#[test]
fn a_redirect_to_a_folder_keeps_the_query() {
    let site = Folder::new();
    for folder in ["sub", "a b%?#ä"] {
        site.write(&format!("www/{folder}/index.html"), folder);
    }
    let server = serve_folder(&site);
    for scheme in SCHEMES {
        for (path, location) in [
            ("/sub?room=1&name=%C3%A4+b", "./sub/?room=1&name=%C3%A4+b"),
            ("/sub?u=http://x/?y", "./sub/?u=http://x/?y"),
            ("/sub?", "./sub/"),
            ("/sub", "./sub/"),
            ("/a%20b%25%3f%23%c3%a4?q", "./a%20b%25%3F%23%C3%A4/?q"),
        ] {
            let reply = ask(&server, scheme, path, "");
            assert_eq!((reply.status, reply.header("location")), (301, Some(location)), "{path}");
            let folder = location.trim_start_matches('.');
            assert_eq!(ask(&server, scheme, folder, "").status, 200, "{folder}");
        }
    }
}

#[test]
fn well_known_is_served_and_nothing_else_that_begins_with_a_dot() {
    let site = Folder::new();
    site.write("www/.well-known/security.txt", "Contact: mailto:a@b.example");
    site.write("www/.well-known/acme-challenge/token", "key");
    site.write("www/.well-known/.hidden", "secret");
    site.write("www/.well-known-not", "secret");
    site.write("www/.git/.well-known/x", "secret");
    let server = serve_folder(&site);
    for scheme in SCHEMES {
        assert_eq!(server.get(scheme, "/.well-known/security.txt").text(), "Contact: mailto:a@b.example");
        assert_eq!(server.get(scheme, "/%2ewell-known/acme-challenge/token").text(), "key");
        for path in
            ["/.well-known/.hidden", "/.well-known-not", "/.git/.well-known/x", "/.well-known/../.git/x"]
        {
            assert!(matches!(server.get(scheme, path).status, 400 | 404), "{path}");
        }
    }
}

#[test]
fn types_of_what_pages_are_made_of() {
    let site = Folder::new();
    let types = [
        ("a.html", "text/html; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.js", "text/javascript; charset=utf-8"),
        ("a.mjs", "text/javascript; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.js.map", "application/json"),
        ("a.webmanifest", "application/manifest+json"),
        ("a.md", "text/markdown; charset=utf-8"),
        ("a.csv", "text/csv; charset=utf-8"),
        ("a.xml", "application/xml"),
        ("a.svg", "image/svg+xml"),
        ("a.avif", "image/avif"),
        ("a.webp", "image/webp"),
        ("a.ico", "image/x-icon"),
        ("a.woff2", "font/woff2"),
        ("a.ttf", "font/ttf"),
        ("a.wasm", "application/wasm"),
        ("a.mp3", "audio/mpeg"),
        ("a.mp4", "video/mp4"),
        ("a.webm", "video/webm"),
        ("a.pdf", "application/pdf"),
        ("a.zip", "application/zip"),
        ("a.unknown", "application/octet-stream"),
        ("a", "application/octet-stream"),
    ];
    for (file, _) in types {
        site.write(&format!("www/{file}"), "x");
    }
    let server = serve_folder(&site);
    for (file, content_type) in types {
        let reply = server.get(Scheme::Ws, &format!("/{file}"));
        assert_eq!(reply.header("content-type"), Some(content_type), "{file}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    }
}

/// So much that no socket takes it at once.
const LARGE: u64 = 20 << 20;

#[test]
fn a_file_that_grows_while_it_is_sent_ends_where_it_was_announced() {
    let site = Folder::new();
    site.write("www/log.txt", vec![b'x'; LARGE as usize]);
    let server = serve_folder(&site);
    for scheme in SCHEMES {
        let length = fs::metadata(site.join("www/log.txt")).unwrap().len();
        let mut stream = server.raw(scheme);
        stream.write_all(b"GET /log.txt HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
        let head = stream.read_head();
        assert!(head.contains(&format!("content-length: {length}\r\n")), "{head}");
        let mut file = OpenOptions::new().append(true).open(site.join("www/log.txt")).unwrap();
        file.write_all(&[b'y'; 100_000]).unwrap();
        let mut body = Vec::new();
        stream.read_to_end(&mut body).unwrap();
        assert!(body.len() as u64 == length, "{} of {length}", body.len());
    }
}

#[test]
fn when_a_file_shrinks_while_it_is_sent_the_connection_ends_early() {
    let site = Folder::new();
    let server = {
        site.write("www/large.bin", "");
        serve_folder(&site)
    };
    for scheme in SCHEMES {
        site.write("www/large.bin", vec![b'x'; LARGE as usize]);
        let mut stream = server.raw(scheme);
        stream.write_all(b"GET /large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        stream.read_head();
        let file = OpenOptions::new().write(true).open(site.join("www/large.bin")).unwrap();
        file.set_len(1 << 20).unwrap();
        let mut body = Vec::new();
        // What was not sent does not come, whether the end is an orderly one or not.
        let _ = stream.read_to_end(&mut body);
        assert!((body.len() as u64) < LARGE, "{} bytes", body.len());
        assert!(body.iter().all(|&b| b == b'x'), "nothing is made up");
        common::eventually("the connection is over", || server.handle.connections() == 0);
    }
}

#[test]
fn what_is_no_file_is_404_and_is_left_alone() {
    let site = Folder::new();
    let fifo = site.write("www/index.html", "page").replace("index.html", "fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let _socket = UnixListener::bind(site.join("www/socket")).unwrap();
    symlink("/dev/zero", site.join("www/device")).unwrap();
    symlink("fifo", site.join("www/to-fifo")).unwrap();
    symlink("round", site.join("www/round")).unwrap();
    let server = serve_folder(&site);
    // Somebody who waits for a reader of the FIFO still waits after all requests.
    let (opened, is_open) = mpsc::channel();
    let writer = thread::spawn({
        let fifo = fifo.clone();
        move || {
            let file = OpenOptions::new().write(true).open(fifo).unwrap();
            opened.send(()).unwrap();
            drop(file);
        }
    });
    let long = format!("/{}", "a".repeat(300));
    for scheme in SCHEMES {
        for path in ["/fifo", "/to-fifo", "/socket", "/device", "/round", "/fifo/", "/fifo/x", &long] {
            assert_eq!(server.get(scheme, path).status, 404, "{path}");
        }
    }
    assert!(is_open.try_recv().is_err(), "the FIFO was opened");
    let mut reader = File::open(&fifo).unwrap();
    is_open.recv_timeout(PATIENCE).unwrap();
    writer.join().unwrap();
    assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn a_file_that_becomes_a_fifo_or_a_link_meanwhile_does_no_harm() {
    let site = Folder::new();
    site.write("secret", "what is outside");
    site.write("www/index.html", "page");
    site.write("page", "page");
    assert!(Command::new("mkfifo").arg(site.join("fifo")).status().unwrap().success());
    symlink("../secret", site.join("link")).unwrap();
    let server = serve_folder(&site);
    // Each of them takes the same name in turn, at once.
    let (done, is_done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let _done = done; // dropped at the end, also that of a panic
        let site = &site;
        scope.spawn(move || {
            while is_done.try_recv() == Err(TryRecvError::Empty) {
                for kind in ["page", "fifo", "link"] {
                    fs::rename(site.join(kind), site.join("www/moving")).unwrap();
                    fs::rename(site.join("www/moving"), site.join(kind)).unwrap();
                }
            }
        });
        for _ in 0..1_000 {
            let reply = server.get(Scheme::Ws, "/moving");
            assert!(matches!((reply.status, reply.text()), (200, "page") | (404, _)), "{reply:?}");
        }
    });
}

#[test]
fn a_folder_may_be_replaced_while_it_is_served() {
    let site = Folder::new();
    site.write("one/index.html", "one");
    site.write("two/index.html", "two");
    site.write("www/index.html", "first");
    symlink("one", site.join("current")).unwrap();
    let server =
        serve(|builder| builder.files("/*", site.join("www")).files("/link/*", site.join("current")));
    assert_eq!(server.get(Scheme::Ws, "/").text(), "first");
    assert_eq!(server.get(Scheme::Ws, "/link/").text(), "one");
    fs::rename(site.join("www"), site.join("old")).unwrap();
    assert_eq!(server.get(Scheme::Ws, "/").status, 404);
    site.write("www/index.html", "second");
    symlink("two", site.join("next")).unwrap();
    fs::rename(site.join("next"), site.join("current")).unwrap();
    assert_eq!(server.get(Scheme::Ws, "/").text(), "second");
    assert_eq!(server.get(Scheme::Ws, "/link/").text(), "two");
}

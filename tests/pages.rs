#![cfg(feature = "__tls")]
//! Plain HTTP on the same port as the WebSockets: pages made by handlers, and the files of a folder.

mod common;

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::symlink,
    process::Command,
    sync::{Arc, Barrier},
    time::{Duration, Instant},
};

use common::{
    PATIENCE, SCHEMES, Scheme, TestServer, app, echo, eventually, folder::Folder, frame, handshake,
    next_message, reply::Reply, serve,
};
use switchboard::{Exchange, Response, Server, ServerError, StatusCode};
use tungstenite::Message;

const SECRET: &str = "what is outside of the folder";

/// A folder `www` with something of each kind, and secrets around it.
fn site() -> Folder {
    let site = Folder::new();
    site.write("secret", SECRET);
    site.write("www-secret/file", SECRET);
    for (file, _) in FILES {
        site.write(&format!("www/{file}"), format!("this is {file}"));
    }
    site.write("www/empty.txt", "");
    site.write("www/empty/.keep", SECRET);
    site.write("www/.hidden", SECRET);
    site.write("www/.git/config", SECRET);
    site.write("www/sub/.env", SECRET);
    site
}

const FILES: [(&str, &str); 21] = [
    ("index.html", "text/html; charset=utf-8"),
    ("old.HTM", "text/html; charset=utf-8"),
    ("style.css", "text/css; charset=utf-8"),
    ("app.js", "text/javascript; charset=utf-8"),
    ("app.min.mjs", "text/javascript; charset=utf-8"),
    ("data.json", "application/json"),
    ("notes.txt", "text/plain; charset=utf-8"),
    ("picture.svg", "image/svg+xml"),
    ("picture.PNG", "image/png"),
    ("photo.jpg", "image/jpeg"),
    ("photo.jpeg", "image/jpeg"),
    ("picture.webp", "image/webp"),
    ("favicon.ico", "image/x-icon"),
    ("code.wasm", "application/wasm"),
    ("letters.woff2", "font/woff2"),
    ("paper.pdf", "application/pdf"),
    ("what.ever", "application/octet-stream"),
    ("without", "application/octet-stream"),
    ("sub/index.html", "text/html; charset=utf-8"),
    ("sub/deep/page.html", "text/html; charset=utf-8"),
    ("with space & ä.txt", "text/plain; charset=utf-8"),
];

fn serve_site(site: &Folder) -> TestServer {
    let www = site.join("www");
    serve(|builder| builder.files("/*", &www).files("/below/here/*", &www).route("/echo", || app(echo)))
}

fn url(file: &str) -> String {
    file.replace(' ', "%20").replace('&', "%26").replace('ä', "%C3%A4")
}

#[test]
fn files_are_served_with_their_type() {
    let site = site();
    let server = serve_site(&site);
    for scheme in SCHEMES {
        for (file, content_type) in FILES {
            for path in [format!("/{}", url(file)), format!("/below/here/{}?v=2", url(file))] {
                let reply = server.get(scheme, &path);
                assert_eq!(reply.status, 200, "{path}: {reply:?}");
                assert_eq!(reply.header("content-type"), Some(content_type), "{path}");
                assert_eq!(
                    reply.header("x-content-type-options"),
                    Some("nosniff"),
                    "browsers must not guess the type"
                );
                assert_eq!(reply.header("content-length"), Some(&*reply.body.len().to_string()));
                assert_eq!(reply.text(), format!("this is {file}"));
            }
        }
        let empty = server.get(scheme, "/empty.txt");
        assert_eq!((empty.status, empty.header("content-length"), empty.text()), (200, Some("0"), ""));
    }
}

#[test]
fn head_is_get_without_the_body() {
    let site = site();
    let server = serve(|builder| {
        builder.files("/*", site.join("www")).http("/page", |_| Response::html("<p>a page</p>"))
    });
    for scheme in SCHEMES {
        for (path, status) in [("/style.css", 200), ("/page", 200), ("/sub", 301), ("/nothing", 404)] {
            let get = server.get(scheme, path);
            let head = server.ask(scheme, format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
            assert_eq!((get.status, head.status), (status, status), "{path}");
            for name in ["content-type", "content-length", "location"] {
                assert_eq!(head.header(name), get.header(name), "{path}: {name}");
            }
            assert!(!get.body.is_empty() && head.body.is_empty(), "{path}: {head:?}");
        }
    }
}

#[test]
fn a_missing_file_is_404() {
    let site = site();
    let server = serve_site(&site);
    for scheme in SCHEMES {
        for path in [
            "/nothing",
            "/sub/nothing.html",
            "/style.css/",
            "/style.css/x",
            "/empty/",
            "/below",
            "/style.css%2F",
        ] {
            let reply = server.get(scheme, path);
            assert_eq!(reply.status, 404, "{path}: {reply:?}");
            assert!(reply.refusal().len() > "404 Not Found".len(), "{reply:?}");
        }
    }
}

#[test]
fn no_file_outside_the_folder_and_no_hidden_file_is_served() {
    let site = site();
    symlink(site.join("secret"), site.join("www/link")).unwrap();
    symlink("../secret", site.join("www/relative-link")).unwrap();
    symlink(site.join("www-secret"), site.join("www/folder-link")).unwrap();
    symlink("style.css", site.join("www/inside.css")).unwrap();
    let absolute = site.path("secret");
    let server = serve_site(&site);
    for scheme in SCHEMES {
        for path in [
            "/../secret",
            "/sub/../../secret",
            "/%2e%2e/secret",
            "/..%2fsecret",
            "/%2E%2E%2Fsecret",
            "/sub/%2e%2e/%2e%2e/secret",
            "/sub%2f..%2f..%2fsecret",
            "/..%5csecret",
            "/%252e%252e/secret",
            "/../www-secret/file",
            "/below/here/../../../secret",
            "/below/here/%2e%2e/secret",
            "/index.html%00",
            "/%00",
            "/link",
            "/relative-link",
            "/folder-link/file",
            "/folder-link",
            "/.hidden",
            "/%2ehidden",
            "/.git/config",
            "/.git/",
            "/sub/.env",
            "/sub/%2eenv",
            "/empty/.keep",
            "//etc/passwd",
            "/%2fetc%2fpasswd",
            "http://localhost/../secret",
            &absolute,
            &format!("/{absolute}"),
            &absolute.replace('/', "%2f"),
        ] {
            let reply = server.get(scheme, path);
            assert!(matches!(reply.status, 400 | 404), "{path}: {reply:?}");
            assert!(!reply.text().contains(SECRET), "{path}");
        }
        assert_eq!(
            server.get(scheme, "/inside.css").text(),
            "this is style.css",
            "a link may lead to a file inside"
        );
    }
}

/// A guard and the folder behind it know one path for each request.
#[test]
fn a_guard_cannot_be_passed_by_writing_the_path_in_another_way() {
    let site = site();
    site.write("www/private/x", SECRET);
    site.write("www/private/sub/x", SECRET);
    let server = serve(|builder| {
        builder
            .files("/*", site.join("www"))
            .http("/private/*", |_| Response::text(StatusCode::FORBIDDEN, "members only"))
    });
    for scheme in SCHEMES {
        for path in [
            "/private/x",
            "/%70rivate/x",
            "/%70%72%69%76%61%74%65/x",
            "//private/x",
            "/private//x",
            "///private///x",
            "/./private/x",
            "/private/./x",
            "/%2e/private/x",
            "/private/%2E/x",
            "/a/../private/x",
            "/sub/%2e%2e/private/x",
            "/../private/x",
            "/private/sub/../x",
            "/private/x?../../style.css",
            "/private/x#/../../style.css",
            "/private/sub/x",
            "/private/sub//%78",
            "/private/",
            "http://localhost//private/x",
            "http://localhost/%70rivate/x",
        ] {
            let reply = server.get(scheme, path);
            assert_eq!((reply.status, reply.text()), (403, "members only"), "{path}");
        }
        for path in [
            "/private%2Fx",
            "/private%2fx",
            "/private%5Cx",
            "/private\\x",
            "/.%2Fprivate/x",
            "/sub/..%2Fprivate/x",
            "/%2Fprivate/x",
            "/%252e/private/x",
            "/%2570rivate/x",
            "/private;/x",
            "/private/x%00/../../style.css",
            "/private%00/x",
            "/%c0%afprivate/x",
            "/private%c0%afx",
        ] {
            let reply = server.get(scheme, path);
            assert!(matches!(reply.status, 400 | 404), "{path}: {reply:?}");
        }
        let past_it = server.get(scheme, "/private/../style.css");
        assert_eq!(past_it.text(), "this is style.css", "that is not below /private/");
        // To the folder itself, which is not below it, either: a redirect, that the guard sees when it is followed.
        assert_eq!(server.get(scheme, "/private").status, 301);
    }
}

#[test]
fn a_handler_sees_the_normal_path_and_the_one_that_was_sent() {
    let server = serve(|builder| {
        builder.http("/a b/*", |exchange| {
            let request = exchange.request();
            Response::html(format!("{} {} {}", request.path(), request.raw_path(), request.query()))
        })
    });
    for scheme in SCHEMES {
        for (target, seen) in [
            ("/a%20b//c?d=%20", "/a b/c /a%20b//c d=%20"),
            ("/a%20b/%2F%C3%A4/", "/a b/%2Fä/ /a%20b/%2F%C3%A4/ "),
            ("/x/../a%20b/.", "/a b/ /x/../a%20b/. "),
        ] {
            assert_eq!(server.get(scheme, target).text(), seen);
        }
        for (target, status) in [("/a%20b/%00", 400), ("/a%20b/%ff", 400), ("/a+b/", 404)] {
            let reply = server.get(scheme, target);
            assert_eq!(reply.status, status, "{target}: {reply:?}");
        }
    }
}

#[test]
fn a_folder_shows_its_index_html() {
    let site = site();
    let www = site.join("www");
    let server = serve(|builder| builder.files("/*", &www).files("/below/*", &www).files("/only", &www));
    for scheme in SCHEMES {
        for (path, file) in [
            ("/", "index.html"),
            ("/?x=1", "index.html"),
            ("/sub/", "sub/index.html"),
            ("/below/", "index.html"),
            ("/below/sub/", "sub/index.html"),
            ("/only", "index.html"),
        ] {
            let reply = server.get(scheme, path);
            assert_eq!((reply.status, reply.text()), (200, &*format!("this is {file}")), "{path}");
            assert_eq!(reply.header("content-type"), Some("text/html; charset=utf-8"), "{path}");
        }
        // Without the slash at the end, the relative links of the page would be wrong.
        for (path, relative) in [("/sub", "sub/"), ("/below/sub", "sub/"), ("/sub/deep", "deep/")] {
            let reply = server.get(scheme, path);
            assert_eq!(reply.status, 301, "{path}: {reply:?}");
            let location = reply.header("location").unwrap();
            assert!(
                location.trim_start_matches("./") == relative || location == format!("{path}/"),
                "{path}: {location}"
            );
        }
    }
}

#[test]
fn a_folder_may_have_any_name() {
    let site = site();
    site.write("www/a:b/index.html", "with a colon");
    site.write("www/ä/index.html", "with an umlaut");
    site.write("www/a\r\nb: 100%/index.html", "with a line break");
    let server = serve_site(&site);
    for scheme in SCHEMES {
        for (folder, page) in [
            ("a:b", "with a colon"),
            ("%C3%A4", "with an umlaut"),
            ("a%0D%0Ab%3A%20100%25", "with a line break"),
        ] {
            assert_eq!(server.get(scheme, &format!("/{folder}/")).text(), page);
            let reply = server.get(scheme, &format!("/{folder}"));
            assert_eq!(reply.status, 301);
            let location = reply.header("location").unwrap();
            let encoded = location.replace("%3A", ":");
            let good = [format!("/{folder}/"), format!("./{folder}/"), format!("{folder}/")];
            assert!(good.iter().any(|good| good.replace("%3A", ":") == encoded), "{location}");
            // RFC 3986, section 4.2: a name before a colon would be a scheme.
            assert!(!location.starts_with("a:"), "{location:?} is not on this server");
        }
        // Not encoded correctly for a URL, but answered all the same.
        assert!(server.get(scheme, "/ä").status < 500);
        let bytes = b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n";
        assert!(matches!(server.ask(scheme, bytes).status, 400 | 404));
    }
}

#[test]
fn a_large_file_arrives_intact() {
    let site = site();
    let bytes: Vec<u8> = (0..5 << 20).map(|i: u32| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    site.write("www/large.bin", &bytes);
    let server = serve_site(&site);
    for scheme in SCHEMES {
        let reply = server.get(scheme, "/large.bin");
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-length"), Some("5242880"));
        assert!(reply.body == bytes, "{} bytes", reply.body.len());
    }
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_file_does_no_harm() {
    let site = site();
    site.write("www/large.bin", vec![b'x'; 20 << 20]);
    let server = serve_site(&site);
    for scheme in SCHEMES {
        for _ in 0..3 {
            let mut stream = server.raw(scheme);
            stream.write_all(b"GET /large.bin HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            stream.read_head();
            stream.reset();
        }
        common::eventually("they are gone", || server.handle.connections() == 0);
        assert_eq!(server.get(scheme, "/style.css").status, 200);
    }
}

#[test]
fn a_file_can_only_be_read() {
    let site = site();
    let server = serve_site(&site);
    for scheme in SCHEMES {
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            for path in ["/style.css", "/nothing"] {
                let reply = server.ask(
                    scheme,
                    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc"),
                );
                assert_eq!(reply.status, 405, "{method} {path}: {reply:?}");
                let allow: Vec<_> = reply.header("allow").unwrap().split(", ").collect();
                assert_eq!(allow, ["GET", "HEAD"]);
                assert!(reply.refusal().len() > "405 Method Not Allowed".len(), "{reply:?}");
            }
        }
        assert_eq!(fs::read(site.join("www/style.css")).unwrap(), b"this is style.css");
    }
}

#[test]
fn a_client_that_sends_a_body_can_read_the_answer() {
    let site = site();
    let server = serve_site(&site);
    for scheme in SCHEMES {
        let head = b"POST /style.css HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3000000\r\n\r\n";
        // The server throws it away for a second only.
        eventually("all is sent in time", || {
            let mut stream = server.raw(scheme);
            let is_sent = stream.write_all(&[&head[..], &[b'x'; 3_000_000]].concat()).is_ok();
            assert!(!is_sent || Reply::read(&mut stream).status == 405);
            is_sent
        });
    }
}

#[test]
fn a_fifo_is_not_opened() {
    let site = site();
    let pipe = site.join("www/pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let server = serve_site(&site);
    let mut stream = server.raw(Scheme::Ws);
    stream.write_all(b"GET /pipe HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    stream.tcp().set_read_timeout(Some(PATIENCE / 4)).unwrap();
    let answer = stream.tcp().peek(&mut [0; 1]);
    // If a thread waits in `open` for the other end, this wakes it up, so that the server can end.
    drop(OpenOptions::new().read(true).write(true).open(&pipe).unwrap());
    assert!(answer.is_ok(), "no answer: the connection's thread waits for the FIFO");
    assert_eq!(Reply::read(&mut stream).status, 404);
}

#[test]
fn a_handler_makes_a_page() {
    let show = |exchange: &Exchange<'_>| {
        let request = exchange.request();
        let text = format!("{} {} {}", request.method(), request.path(), request.query());
        Response::new("text/x-test; charset=utf-8", text).with_header("x-served-by", "me")
    };
    let server = serve(|builder| {
        builder
            .http("/show", show)
            .http("POST /show", show)
            .http("/all/*", show)
            .http("/all/exact", |_| Response::html("<p>exact</p>"))
            .http("/teapot", |_| Response::text(StatusCode::IM_A_TEAPOT, "short and stout"))
    });
    for scheme in SCHEMES {
        for (line, text) in [
            ("GET /show", "GET /show "),
            ("GET /show?a=b&c", "GET /show a=b&c"),
            ("POST /show", "POST /show "),
            ("GET /all/x/y?z", "GET /all/x/y z"),
            ("GET http://localhost/show", "GET /show "),
        ] {
            for version in ["1.1", "1.0"] {
                let reply = server.ask(scheme, format!("{line} HTTP/{version}\r\nHost: localhost\r\n\r\n"));
                assert_eq!((reply.status, reply.text()), (200, text));
                assert_eq!(reply.header("content-type"), Some("text/x-test; charset=utf-8"));
                assert_eq!(reply.header("x-served-by"), Some("me"));
                assert_eq!(reply.header("content-length"), Some(&*text.len().to_string()));
                assert_eq!(reply.header("set-cookie"), None);
            }
        }
        let exact = server.get(scheme, "/all/exact");
        assert_eq!(
            (exact.text(), exact.header("content-type")),
            ("<p>exact</p>", Some("text/html; charset=utf-8"))
        );
        assert_eq!(
            (server.get(scheme, "/teapot").status, server.get(scheme, "/teapot").text()),
            (418, "short and stout")
        );
        for path in ["/", "/show/", "/all", "/other"] {
            assert_eq!(server.get(scheme, path).status, 404, "{path}");
        }
    }
}

#[test]
fn a_page_and_a_websocket_may_have_the_same_path() {
    let site = site();
    let server = serve(|builder| {
        builder
            .route("/", || app(echo))
            .http("/", |_| Response::html("<p>a page</p>"))
            .route("/site/*", || app(echo))
            .files("/site/*", site.join("www"))
    });
    for scheme in SCHEMES {
        for (path, page) in [("/", "<p>a page</p>"), ("/site/style.css", "this is style.css")] {
            assert_eq!(server.get(scheme, path).text(), page);
            let mut client = server.connect(scheme, path);
            client.send(Message::text("a WebSocket")).unwrap();
            assert_eq!(next_message(&mut client), Message::text("a WebSocket"));
            // A request that does not ask for a WebSocket gets the page, whatever else it asks to upgrade to.
            let h2c = format!(
                "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
            );
            assert_eq!(server.ask(scheme, h2c).text(), page);
        }
    }
}

#[test]
fn a_handler_that_panics_is_500_and_affects_no_other_client() {
    let server = serve(|builder| {
        builder
            .route("/echo", || app(echo))
            .http("/good", |_| Response::html("good"))
            .http("/bad", |_| -> Response { panic!("on purpose") })
            .http("/worse", |_| Response::new("no\r\nheader: value", ""))
    });
    for scheme in SCHEMES {
        let mut bystander = server.raw_websocket(scheme, "/echo");
        for path in ["/bad", "/worse"] {
            let reply = server.get(scheme, path);
            assert_eq!(reply.status, 500, "{reply:?}");
            assert!(!reply.refusal().contains("on purpose"), "the client gets no details: {reply:?}");
        }
        assert_eq!(server.get(scheme, "/good").text(), "good");
        bystander.write_all(&frame(0x81, b"alive")).unwrap();
        assert_eq!(bystander.read_frame(), (0x81, b"alive".to_vec()));
        assert_eq!(server.ask(scheme, handshake("/echo")).status, 101);
    }
}

#[test]
fn handlers_run_in_parallel() {
    // Each of the two handlers waits for the other.
    let both = Arc::new(Barrier::new(2));
    let server = serve(|builder| {
        builder.http("/", move |_| {
            both.wait();
            Response::html("together")
        })
    });
    for scheme in SCHEMES {
        let begun = Instant::now();
        let mut one = server.raw(scheme);
        one.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert_eq!(server.get(scheme, "/").text(), "together");
        assert_eq!(Reply::read(&mut one).text(), "together");
        assert!(begun.elapsed() < PATIENCE + Duration::from_secs(1));
    }
}

#[test]
fn bind_names_a_folder_that_cannot_be_served() {
    let site = site();
    for bad in [site.join("nothing"), site.join("www/style.css")] {
        let result = Server::builder().listen("127.0.0.1:0").files("/*", &bad).bind();
        let name = bad.to_str().unwrap();
        assert!(matches!(&result, Err(ServerError::Config(text)) if text.contains(name)), "{result:?}");
    }
    let builder = Server::builder().listen("127.0.0.1:0").http("/x", |_| Response::html(""));
    let result = builder.files("/x", site.join("www")).bind();
    assert!(matches!(&result, Err(ServerError::Config(text)) if text.contains("twice")), "{result:?}");
}

//! What becomes of mistakes and errors in an application before its connection is open, and in its pages: a status for the
//! client, which learns nothing else, and a line in the log.
#![cfg(feature = "__tls")]
mod common;

use std::{
    fs,
    sync::{Mutex, OnceLock},
};

use common::{SCHEMES, Scheme, TestServer, echo, full_app, handshake, reply::Reply, serve, serve_app};
use log::Level;
use switchboard::{
    Closed, Compression, HeaderName, HeaderValue, Limits, Opening, Overflow, Refusal, Response, StatusCode,
    header,
};

/// What was logged. Failures beyond ten a minute are at `debug`.
static LOGGED: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());

struct Log;

impl log::Log for Log {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= Level::Debug
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            LOGGED.lock().unwrap().push((record.level(), record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

/// Keeps what is logged from now on.
fn keep_log() {
    static LOG: OnceLock<()> = OnceLock::new();
    LOG.get_or_init(|| {
        log::set_logger(&Log).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
    });
}

/// Whether a line was logged that contains all of these. It is logged before the client is answered.
fn was_logged(words: &[&str]) -> bool {
    LOGGED.lock().unwrap().iter().any(|(_, line)| words.iter().all(|word| line.contains(word)))
}

/// Whether a line above `info` contains this.
fn is_failure(word: &str) -> bool {
    LOGGED.lock().unwrap().iter().any(|(level, line)| *level <= Level::Warn && line.contains(word))
}

/// A server whose `on_pre_server` this is, at `/`, and any path below.
fn serve_opening(
    configure: impl FnOnce(&mut Limits),
    before: impl Fn(&mut Opening) -> Result<(), Refusal> + Clone + Send + Sync + 'static,
) -> TestServer {
    keep_log();
    let mut limits = Limits::default();
    configure(&mut limits);
    serve(|builder| {
        let app = move || full_app(before.clone(), echo, |_: &Closed| {});
        builder.limits(limits).route("/*", app)
    })
}

/// Asks for a WebSocket.
fn open(server: &TestServer, scheme: Scheme, path: &str) -> Reply {
    server.ask(scheme, handshake(path))
}

/// A refusal that tells the client nothing.
fn assert_tells_nothing(reply: &Reply) {
    assert_eq!((reply.status, reply.refusal()), (500, "500 Internal Server Error: the handler failed"));
    assert_eq!(reply.header("set-cookie"), None, "{reply:?}");
}

/// In a query: what could begin another header line, or end the head.
const INJECTED: [&str; 5] =
    ["a%0D%0Aset-cookie:%20b=c", "a%0D%0A%0D%0A%3Cscript%3E", "a%0Ab", "a%0Db", "a%00b"];

#[test]
fn a_handshake_with_a_header_that_cannot_be_is_refused() {
    let server = serve_opening(
        |_| {},
        |opening| {
            let value = |name| opening.request().query_value(name).map(std::borrow::Cow::into_owned);
            match (value("value"), value("name")) {
                (Some(value), _) => opening.add_header("X-Opening", value),
                (_, Some(name)) => opening.add_header(name, "value"),
                _ => {}
            }
            opening.add_header("x-later", "fine");
            Ok(())
        },
    );
    for scheme in SCHEMES {
        for (n, query) in INJECTED.iter().enumerate() {
            let path = format!("/{scheme:?}{n}");
            assert_tells_nothing(&open(&server, scheme, &format!("{path}?value={query}")));
            assert!(was_logged(&[&path, "on_pre_server", "x-opening"]), "{query}");
            assert_tells_nothing(&open(&server, scheme, &format!("{path}?name=Odd-{query}")));
            assert!(was_logged(&[&path, "on_pre_server", "Odd-a"]), "{query}");
        }
        assert_tells_nothing(&open(&server, scheme, "/?name=n%C3%A4me"));
        let reply = open(&server, scheme, "/?value=Zo%C3%AB");
        assert_eq!((reply.status, reply.header("x-opening")), (101, Some("Zoë")), "as bytes");
        assert_eq!(reply.header("x-later"), Some("fine"));
    }
}

#[test]
fn a_response_with_a_header_that_cannot_be_is_a_500() {
    keep_log();
    let server = serve(|builder| {
        let value = |exchange: &switchboard::Exchange<'_>| {
            exchange.request().query_value("v").unwrap_or_default().into_owned()
        };
        builder
            .http("/value/*", move |exchange| {
                Response::html("secret").with_header("X-Page", value(exchange)).with_status(StatusCode::OK)
            })
            .http("/name/*", move |exchange| {
                let name = format!("Page-{}", value(exchange));
                Response::html("secret").with_header(name, "v").with_header("x-later", "fine")
            })
            .http("/type/*", move |exchange| Response::new(value(exchange), "secret"))
            .http("/refusal/*", move |exchange| {
                Refusal::new(StatusCode::FORBIDDEN, "secret").with_header("X-Refused", value(exchange))
            })
    });
    for scheme in SCHEMES {
        for (n, query) in INJECTED.iter().enumerate() {
            for (page, named) in
                [("value", "x-page"), ("name", "Page-a"), ("type", "content-type"), ("refusal", "x-refused")]
            {
                let path = format!("/{page}/{scheme:?}{n}");
                let reply = server.get(scheme, &format!("{path}?v={query}"));
                assert_tells_nothing(&reply);
                assert_eq!(reply.header("x-later"), None, "{reply:?}");
                assert!(was_logged(&[&path, named]), "{path} {query}");
            }
        }
        let reply = server.get(scheme, "/value/good?v=Zo%C3%AB");
        assert_eq!((reply.status, reply.header("x-page"), reply.text()), (200, Some("Zoë"), "secret"));
    }
}

#[test]
fn errors_in_on_pre_server_become_refusals() {
    let server = serve_opening(
        |limits| limits.max_sessions = 0,
        |opening| {
            match opening.path() {
                "/full" => opening.session().set("user", "ada")?,
                "/own" => opening.hub().open_server(opening.websocket_id()).map(drop)?,
                "/status" => return Err(StatusCode::UNAUTHORIZED.into()),
                "/none" => drop(opening.request().cookie("user").ok_or(StatusCode::FORBIDDEN)?),
                "/file" => drop(fs::read("/secret place").map_err(Refusal::internal)?),
                "/number" => {
                    let wrong = |_| Refusal::new(StatusCode::BAD_REQUEST, "a number, please");
                    "x".parse::<u32>().map(drop).map_err(wrong)?;
                }
                _ => {}
            }
            Ok(())
        },
    );
    for scheme in SCHEMES {
        for (path, status, text) in [
            ("/full", 503, "503 Service Unavailable: try again later"),
            ("/own", 500, "500 Internal Server Error: the handler failed"),
            ("/status", 401, "401 Unauthorized: refused"),
            ("/none", 403, "403 Forbidden: refused"),
            ("/file", 500, "500 Internal Server Error: the handler failed"),
            ("/number", 400, "400 Bad Request: a number, please"),
        ] {
            let reply = open(&server, scheme, path);
            assert_eq!((reply.status, reply.refusal()), (status, text));
            assert_eq!(reply.header("retry-after").is_some(), status == 503, "{reply:?}");
        }
        assert!(was_logged(&["on_pre_server of /full failed", "the session store is full"]));
        assert!(was_logged(&["on_pre_server of /own failed", "not open"]));
        assert!(was_logged(&["on_pre_server of /file failed", "No such file"]));
        assert!(!is_failure("/status") && !is_failure("/none") && !is_failure("/number"));
        assert_eq!(open(&server, scheme, "/fine").status, 101);
    }
}

#[test]
fn a_refusal_is_an_error_of_the_standard_library() {
    let server = serve_app(|_| Err(Refusal::from(StatusCode::FORBIDDEN).into()));
    let mut client = server.connect(Scheme::Ws, "/");
    assert_eq!(common::read_close(&mut client).0, 1011);
}

#[test]
fn what_an_opening_is_set_to_it_tells() {
    let server = serve_opening(
        |_| {},
        |opening| {
            assert!(
                !opening.shared_connection() && !opening.binary_data() && !opening.session_end_on_close()
            );
            assert_eq!((opening.overflow(), opening.compression()), (Overflow::Disconnect, Compression::Off));
            assert!(opening.subprotocol().is_none() && opening.headers().is_empty());
            assert!(opening.use_session());
            opening.set_use_session(false);
            assert!(!opening.use_session());
            assert!(opening.session_id().is_ok() && opening.use_session(), "who asks for it has one");
            opening.set_use_session(false);
            assert!(!opening.use_session());
            opening.set_shared_connection(true);
            opening.set_binary_data(true);
            opening.set_session_end_on_close(true);
            opening.set_overflow(Overflow::DropNewest);
            opening.set_compression(Compression::Pooled);
            opening.choose_subprotocol(&["b", "a"]);
            opening.add_header("X-One", "1");
            opening.add_header(header::SET_COOKIE, HeaderValue::from_static("c=d"));
            assert!(opening.shared_connection() && opening.binary_data() && opening.session_end_on_close());
            assert_eq!(
                (opening.overflow(), opening.compression()),
                (Overflow::DropNewest, Compression::Pooled)
            );
            assert_eq!(opening.subprotocol(), Some("a"));
            let one = (HeaderName::from_static("x-one"), HeaderValue::from(1));
            assert_eq!(opening.headers(), [one, (header::SET_COOKIE, HeaderValue::from_static("c=d"))]);
            opening.set_shared_connection(false);
            Ok(())
        },
    );
    let head = handshake("/").replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: a\r\n\r\n");
    let reply = server.ask(Scheme::Ws, head);
    assert_eq!((reply.status, reply.header("sec-websocket-protocol")), (101, Some("a")), "{reply:?}");
    assert_eq!(reply.headers("set-cookie"), ["c=d"]);
}

#[test]
fn who_has_said_yes_is_told_that_a_header_has_refused_the_handshake() {
    let (told, tells) = std::sync::mpsc::channel();
    let server = common::serve(|builder| {
        builder.route("/", move || {
            let told = told.clone();
            common::full_app(
                |opening: &mut Opening| {
                    opening.add_header("x", "\n");
                    Ok(())
                },
                |_: &mut switchboard::WebSocket| Ok(()),
                move |closed: &switchboard::Closed| told.send(closed.reason().code().0).unwrap(),
            )
        })
    });
    assert_eq!(server.ask(Scheme::Ws, handshake("/")).status, 500);
    assert_eq!(tells.recv_timeout(common::PATIENCE).unwrap(), 1006);
}

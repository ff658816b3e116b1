//! Code of the program that panics wherever the server calls it: the connection ends like any other, and nothing else does.
#![cfg(feature = "__tls")]
mod common;

use std::{
    fmt,
    io::Write,
    panic::panic_any,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
};

use common::{PATIENCE, SCHEMES, TestServer, eventually, frame, handshake, serve};
use switchboard::{
    Closed, FoundSession, Handled, Limits, Message, Opening, Refusal, Request, ServerResult, SessionId,
    SessionStore, StatusCode, StoreResult, WebSocket, WebSocketServer,
};

/// Panics when it is dropped, shown, or both.
#[derive(Debug)]
struct Spiteful {
    in_drop: bool,
    in_display: bool,
}

impl fmt::Display for Spiteful {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        assert!(!self.in_display, "on purpose");
        f.write_str("an error")
    }
}

impl std::error::Error for Spiteful {}

impl Drop for Spiteful {
    fn drop(&mut self) {
        assert!(!self.in_drop, "on purpose");
    }
}

/// Does what the path of the request says.
struct App {
    how: String,
    shared: bool,
    closed: mpsc::Sender<u16>,
    spiteful: Option<Spiteful>,
}

fn spiteful(in_drop: bool, in_display: bool) -> Box<Spiteful> {
    Box::new(Spiteful { in_drop, in_display })
}

impl WebSocketServer for App {
    fn on_pre_server(&mut self, opening: &mut Opening) -> std::result::Result<(), Refusal> {
        self.how = opening.request().query_value("how").unwrap().into_owned();
        opening.set_shared_connection(self.shared);
        if self.how.contains("app-drop") {
            self.spiteful = Some(*spiteful(true, false));
        }
        if self.how.contains("pre") {
            panic_any(spiteful(true, false));
        }
        if self.how.contains("refuse") {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "on purpose"));
        }
        Ok(())
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        if !self.shared {
            ws.read_message(PATIENCE)?;
        }
        match self.how.as_str() {
            "display" => Err(spiteful(false, true)),
            "drop" => Err(spiteful(true, false)),
            "payload" => panic_any(spiteful(true, false)),
            _ => Ok(()),
        }
    }

    fn on_client_message(&mut self, ws: &WebSocket, _message: Message) -> Handled {
        if self.how == "message" {
            panic_any(spiteful(true, false));
        }
        ws.end_server();
        Handled::Yes
    }

    fn on_post_server(&mut self, closed: &Closed) {
        self.closed.send(closed.reason().code().0).unwrap();
        if self.how.contains("post") {
            panic_any(spiteful(true, false));
        }
    }
}

/// Panics when a connection no longer uses its session.
#[derive(Debug)]
struct Store {
    fails: Arc<AtomicBool>,
}

impl SessionStore for Store {
    fn find(&self, request: &Request) -> StoreResult<Option<FoundSession>> {
        assert!(request.query() != "how=find", "on purpose");
        Ok(None)
    }
    fn get(&self, _: &SessionId, _: &str) -> StoreResult<Option<String>> {
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
    fn release(&self, _: &SessionId) -> StoreResult<()> {
        assert!(!self.fails.load(SeqCst), "on purpose");
        Ok(())
    }
}

fn start() -> (TestServer, mpsc::Receiver<u16>, Arc<AtomicBool>) {
    let (tx, closed) = mpsc::channel();
    let fails = Arc::new(AtomicBool::new(false));
    let store = Store { fails: fails.clone() };
    let mut limits = Limits::default();
    limits.max_connections = 10;
    let server = serve(|builder| {
        let app = move |shared| {
            let closed = tx.clone();
            move || App { how: String::new(), shared, closed: closed.clone(), spiteful: None }
        };
        builder.limits(limits).session_store(store).route("/", app(false)).route("/shared", app(true))
    });
    (server, closed, fails)
}

#[test]
fn wherever_it_panics_the_connection_ends_and_its_place_is_free() {
    let (server, closed, store_fails) = start();
    for (how, expected) in [
        ("display", 1011),
        ("drop", 1011),
        ("payload", 1011),
        ("post", 1000),
        ("app-drop", 1000),
        ("post-app-drop", 1000),
        ("release", 1000),
    ] {
        store_fails.store(how == "release", SeqCst);
        for (scheme, path) in SCHEMES.into_iter().flat_map(|scheme| [(scheme, "/"), (scheme, "/shared")]) {
            let mut client = server.raw_websocket(scheme, &format!("{path}?how={how}"));
            // It may have been closed by what `server` of a shared connection did.
            let _ = client.write_all(&frame(0x81, b"go"));
            assert_eq!(client.answer_close_and_end().0, expected, "{how} {path}");
            assert_eq!(closed.recv_timeout(PATIENCE).unwrap(), expected, "{how} {path}");
            eventually("its place is free", || {
                server.hub.is_empty().unwrap() && server.handle.connections() == 0
            });
        }
    }
    assert!(closed.try_recv().is_err(), "told once");
}

#[test]
fn before_the_handshake_is_answered_a_panic_is_500_and_the_place_is_free() {
    let (server, closed, _) = start();
    for (how, expected) in [
        ("find", "500"),
        ("pre", "500"),
        ("refuse", "403"),
        ("pre-app-drop", "500"),
        ("refuse-app-drop", "403"),
    ] {
        for scheme in SCHEMES {
            let response = server.http(scheme, &handshake(&format!("/?how={how}")));
            assert!(response.starts_with(&format!("HTTP/1.1 {expected} ")), "{how}: {response}");
            if how == "find" {
                assert_eq!(closed.recv_timeout(PATIENCE).unwrap(), 1006, "it had said yes");
            }
            eventually("its place is free", || server.handle.connections() == 0);
        }
    }
    assert!(closed.try_recv().is_err(), "on_post_server is for those that were opened");
}

#[test]
fn a_panic_in_on_client_message_may_be_of_any_type() {
    let (server, closed, _) = start();
    for scheme in SCHEMES {
        let mut client = server.raw_websocket(scheme, "/shared?how=message");
        client.write_all(&frame(0x81, b"go")).unwrap();
        assert_eq!(client.answer_close_and_end().0, 1011);
        assert_eq!(closed.recv_timeout(PATIENCE).unwrap(), 1011);
        eventually("its place is free", || server.handle.connections() == 0);
    }
}

//! What protocol.mjs needs from a server and the `switchboard` command does not offer.
//!
//! Each socket is at `/ROUTE/TAG`, and of a shared connection at `/shared/ROUTE/TAG`; `/ended/TAG` tells how it ended.
//! The server ends with its standard input, so that it does not outlive whoever started it.

use std::{
    collections::HashMap,
    io::{self, Read},
    sync::{Condvar, LazyLock, Mutex, OnceLock},
    thread,
    time::{Duration, Instant},
};

use switchboard::{
    Audience, Closed, Exchange, Handled, Hub, Message, Opening, Refusal, Response, Server, ServerError,
    ServerResult, SessionId, StatusCode, TlsIdentity, WebSocket, WebSocketServer,
};

/// No wait takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What an HTTP request waits for, or changes.
#[derive(Default)]
struct State {
    /// By tag: the code, who began, how many messages the handler was given, and the text.
    ended: HashMap<String, String>,
    /// By tag: how many more messages `slow` may take.
    permits: HashMap<String, usize>,
}

static STATE: LazyLock<Mutex<State>> = LazyLock::new(Mutex::default);
static CHANGED: Condvar = Condvar::new();
static HUB: OnceLock<Hub> = OnceLock::new();

fn change(make: impl FnOnce(&mut State)) {
    make(&mut STATE.lock().unwrap());
    CHANGED.notify_all();
}

/// `None` if it does not come in time.
fn wait_for<T>(mut find: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    let mut state = STATE.lock().unwrap();
    loop {
        if let Some(found) = find(&mut state) {
            return Some(found);
        }
        let left = PATIENCE.checked_sub(begun.elapsed())?;
        state = CHANGED.wait_timeout(state, left).unwrap().0;
    }
}

/// What a route does when it is open, and with each message; the same for both kinds of connections.
#[derive(Clone, Copy)]
struct Behavior {
    open: fn(&WebSocket) -> ServerResult,
    message: fn(&WebSocket, Message) -> ServerResult,
}

/// One connection.
struct App {
    behavior: Behavior,
    shared: bool,
    tag: String,
    messages: usize,
}

impl App {
    fn message(&mut self, ws: &WebSocket, message: Message) -> ServerResult {
        self.messages += 1;
        (self.behavior.message)(ws, message)
    }
}

impl WebSocketServer for App {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        self.tag = tag(opening.path()).to_owned();
        opening.choose_subprotocol(&["v2.test", "v1.test"]);
        opening.set_shared_connection(self.shared);
        Ok(())
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        (self.behavior.open)(ws)?;
        if !self.shared {
            for message in ws.messages() {
                self.message(ws, message)?;
            }
        }
        Ok(())
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        // It fails only when the client has left.
        let _ = self.message(ws, message);
        Handled::Yes
    }

    fn on_post_server(&mut self, closed: &Closed) {
        let reason = closed.reason();
        let end = format!("{} {:?} {} {}", reason.code().0, reason.by(), self.messages, reason.text());
        change(|state| drop(state.ended.insert(self.tag.clone(), end)));
    }
}

fn tag(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

fn nothing(_: &WebSocket) -> ServerResult {
    Ok(())
}

fn echo(ws: &WebSocket, message: Message) -> ServerResult {
    Ok(ws.write(message)?)
}

fn count(_: &WebSocket, _: Message) -> ServerResult {
    Ok(())
}

/// Says what has come: `text` or `binary`, and the bytes in hex.
fn inspect(ws: &WebSocket, message: Message) -> ServerResult {
    let kind = if message.is_text() { "text" } else { "binary" };
    let hex: String = message.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(ws.write(format!("{kind} {hex}"))?)
}

/// Takes a message only when `/permit/TAG` was asked for, and says so.
fn slow(ws: &WebSocket, message: Message) -> ServerResult {
    let take = |state: &mut State| {
        let permits = state.permits.get_mut(tag(ws.path()))?;
        *permits = permits.checked_sub(1)?;
        Some(())
    };
    wait_for(take).expect("a permit");
    Ok(ws.write(format!("took {}", message.len()))?)
}

/// Says so, and ends: with `CODE REASON`, or in the usual way without.
fn close(ws: &WebSocket, message: Message) -> ServerResult {
    ws.write("the last message")?;
    match message.as_text().and_then(|text| text.split_once(' ')) {
        Some((code, reason)) => ws.close(code.parse::<u16>()?, reason),
        None => ws.end_server(),
    }
    Ok(())
}

fn panics(_: &WebSocket, _: Message) -> ServerResult {
    panic!("as asked")
}

fn say_subprotocol(ws: &WebSocket) -> ServerResult {
    Ok(ws.write(ws.subprotocol().unwrap_or("none"))?)
}

/// Stores something, so that the session outlives the connection.
fn say_session(ws: &WebSocket) -> ServerResult {
    ws.session().expect("in server").set("seen", "yes")?;
    Ok(ws.write(ws.session_id().map_or("none", SessionId::as_str))?)
}

/// Sends as fast as the client takes it, until the client leaves.
fn stream(ws: &WebSocket) -> ServerResult {
    loop {
        ws.write(vec![0; 16 << 10])?;
    }
}

fn ended(exchange: &Exchange<'_>) -> Response {
    match wait_for(|state| state.ended.get(tag(exchange.request().path())).cloned()) {
        Some(end) => Response::text(StatusCode::OK, end),
        None => Response::text(StatusCode::GATEWAY_TIMEOUT, "it has not ended"),
    }
}

fn permit(exchange: &Exchange<'_>) -> Response {
    change(|state| *state.permits.entry(tag(exchange.request().path()).to_owned()).or_default() += 1);
    Response::text(StatusCode::OK, "")
}

/// The paths of all connections.
fn connections(_: &Exchange<'_>) -> Response {
    let all = HUB.get().into_iter().flat_map(|hub| hub.all_connections(Audience::All)).flatten();
    let paths: Vec<_> = all.map(|connection| connection.path.to_string()).collect();
    Response::text(StatusCode::OK, paths.join("\n"))
}

/// Waits until there is no connection, or says which are left.
fn idle(exchange: &Exchange<'_>) -> Response {
    match wait_for(|_| HUB.get()?.is_empty().ok()?.then_some(())) {
        Some(()) => Response::text(StatusCode::OK, ""),
        None => connections(exchange).with_status(StatusCode::GATEWAY_TIMEOUT),
    }
}

fn session(exchange: &Exchange<'_>) -> Response {
    Response::text(StatusCode::OK, exchange.session().id().expect("the store does not fail").as_str())
}

fn main() -> Result<(), ServerError> {
    let routes = [
        ("echo", Behavior { open: nothing, message: echo }),
        ("count", Behavior { open: nothing, message: count }),
        ("inspect", Behavior { open: nothing, message: inspect }),
        ("slow", Behavior { open: nothing, message: slow }),
        ("close", Behavior { open: nothing, message: close }),
        ("panic", Behavior { open: nothing, message: panics }),
        ("subprotocol", Behavior { open: say_subprotocol, message: echo }),
        ("session", Behavior { open: say_session, message: echo }),
        ("stream", Behavior { open: stream, message: echo }),
    ];
    let identity = TlsIdentity::from_pem_files("certs/server.pem", "certs/server.key")?;
    let mut builder = Server::builder()
        .listen("127.0.0.1:0")
        .listen_tls("127.0.0.1:0", identity)
        .http("/", |_| Response::html("<!doctype html><title>A page</title>"))
        .http("/ended/*", ended)
        .http("/permit/*", permit)
        .http("/connections", connections)
        .http("/idle", idle)
        .http("/session", session);
    for (name, behavior) in routes {
        for (path, shared) in [(format!("/{name}/*"), false), (format!("/shared/{name}/*"), true)] {
            let app = move || App { behavior, shared, tag: String::new(), messages: 0 };
            builder = builder.route(&path, app);
        }
    }
    let server = builder.bind()?;
    HUB.get_or_init(|| server.hub());
    for address in server.local_addrs() {
        let tls = if server.is_tls(address) { "s" } else { "" };
        eprintln!("http{tls}://{address}/ is the page");
    }
    let handle = server.handle();
    thread::spawn(move || {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        handle.shutdown(Duration::ZERO);
    });
    server.run()
}

//! A server for `prometheus.py` and `openapi.py`, until standard input ends.
//!
//!     metrics_server CERT_FILE KEY_FILE
//!
//! Prints where it is, and the token, as a line of JSON.

use std::{io::Read, time::Duration};

use serde_json::json;
use switchboard::{
    Handled, History, Limits, Manage, Message, Opening, Overflow, Refusal, Server, ServerResult, StatusCode,
    TlsIdentity, WebSocket, WebSocketServer,
};

const TOKEN: &str = "the-token-of-the-metrics";

/// What a route does with its connections.
#[derive(Clone, Copy, PartialEq)]
enum App {
    Echo,
    Shared,
    /// Reads nothing, and drops what does not fit.
    Drop,
    /// Reads nothing.
    Slow,
    Refuse,
    Fail,
}

impl WebSocketServer for App {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        opening.join("all")?;
        match self {
            Self::Refuse => return Err(Refusal::new(StatusCode::FORBIDDEN, "no")),
            Self::Drop => opening.set_overflow(Overflow::DropNewest),
            Self::Shared => opening.set_shared_connection(true),
            _ => {}
        }
        let user = opening.request().query_value("user").map(|user| user.into_owned());
        user.map_or(Ok(()), |user| opening.set_user(&user).map_err(Into::into))
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        match self {
            Self::Fail => return Err("it fails".into()),
            Self::Shared => return Ok(()),
            _ => {}
        }
        loop {
            let message = ws.read_message(Duration::MAX)?;
            ws.write(message)?;
        }
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        let _ = ws.write(message);
        Handled::Yes
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [cert, key] = args.as_slice() else { panic!("usage: metrics_server CERT_FILE KEY_FILE") };
    let mut limits = Limits::default();
    limits.ping_interval = Some(Duration::from_millis(200));
    limits.max_queue_bytes = Some(64 * 1024);
    let server = Server::builder()
        .listen("127.0.0.1:0")
        .listen_tls("127.0.0.1:0", TlsIdentity::from_pem_files(cert, key)?)
        .limits(limits)
        .history("*", History::new(10, Duration::from_secs(60)))
        .route("/echo", || App::Echo)
        .route("/shared/*", || App::Shared)
        .route("/a \"b\"\\c", || App::Shared)
        .route("/drop", || App::Drop)
        .route("/slow", || App::Slow)
        .route("/refuse", || App::Refuse)
        .route("/fail", || App::Fail)
        .manage(Manage::new().listen("127.0.0.1:0").token(TOKEN))
        .bind()?
        .spawn()?;
    let [ws, wss] = server.local_addrs() else { panic!("two addresses") };
    let manage = &server.manage_addrs()[0];
    println!(
        "{}",
        json!({"ws": format!("ws://{ws}"), "wss": format!("wss://{wss}"), "manage": format!("http://{manage}"), "token": TOKEN})
    );
    std::io::stdin().read_to_end(&mut Vec::new())?;
    server.shutdown(Duration::from_secs(5))?;
    Ok(())
}

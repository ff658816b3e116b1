//! Refuses in `on_pre_server` whoever is not logged in, chooses a subprotocol, and uses the session.
//!
//! `curl -c jar http://127.0.0.1:8080/login?user=ada` logs in: the session's cookie is in the jar, and a WebSocket that
//! sends it may connect. A browser does so by itself.

use switchboard::{
    Exchange, Opening, Refusal, Response, Server, ServerError, ServerResult, StatusCode, WebSocket,
    WebSocketServer,
};

/// Speaks `shout.v1`, which is upper case, or `whisper.v1`, which is lower case.
#[derive(Default)]
struct Voice {
    shouts: bool,
}

impl WebSocketServer for Voice {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        if opening.session().get("user")?.is_none() {
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, "log in first, at /login?user=NAME"));
        }
        match opening.choose_subprotocol(&["shout.v1", "whisper.v1"]) {
            Some(chosen) => self.shouts = chosen == "shout.v1",
            None => return Err(Refusal::new(StatusCode::BAD_REQUEST, "offer shout.v1 or whisper.v1")),
        }
        Ok(())
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        let session = ws.session().ok_or("it has one: on_pre_server asked for it")?;
        let user = session.get("user")?.unwrap_or_default();
        ws.write(format!("hello {user}"))?;
        for message in ws.messages() {
            match message.as_text() {
                Some("logout") => {
                    // For all who share the session: other tabs have to log in again, too.
                    ws.set_session_end_on_close(true);
                    break;
                }
                Some(text) if self.shouts => ws.write(text.to_uppercase())?,
                Some(text) => ws.write(text.to_lowercase())?,
                None => {
                    ws.close(1003, "text only");
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn login(exchange: &Exchange<'_>) -> Response {
    try_login(exchange).unwrap_or_else(Response::from)
}

fn try_login(exchange: &Exchange<'_>) -> Result<Response, Refusal> {
    let Some(user) = exchange.request().query_value("user") else {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "who? /login?user=NAME"));
    };
    let session = exchange.session();
    session.renew()?; // so that nobody who knew the session before is logged in, too
    session.set("user", &user)?;
    Ok(Response::text(StatusCode::OK, "logged in\n"))
}

fn main() -> Result<(), ServerError> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let server =
        Server::builder().listen(address).http("/login", login).route("/voice", Voice::default).bind()?;
    println!("listening on ws://{}/voice", server.local_addrs()[0]);
    server.run()
}

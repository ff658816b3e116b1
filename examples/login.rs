//! A login with a form, and a socket that only users may open. Logging out closes the sockets of that browser, and no others.
//!
//! What a session holds is with the server: its cookie is only a signed number, which scripts cannot read (`HttpOnly`), and which
//! browsers do not send with the forms of other pages (`SameSite=Lax`). And a POST of a stranger's page is answered with 403, so that
//! nobody is logged in or out by one.

use switchboard::{
    Audience, Exchange, Opening, Refusal, Response, Server, ServerError, ServerResult, Session, StatusCode,
    WebSocket, WebSocketServer,
};

const LOGIN: &str = r#"<!doctype html><meta charset="utf-8"><title>Login</title>
<form method="post" action="/login"><input name="user" placeholder="ada" required>
<input name="password" type="password" autocomplete="current-password" placeholder="lovelace" required> <button>Log in</button></form>"#;

const HOME: &str = r#"<!doctype html><meta charset="utf-8"><title>Home</title>
<form method="post" action="/logout"><button>Log out</button></form> <pre id="log"></pre>
<script>
  const ws = new WebSocket(`${location.origin.replace("http", "ws")}/private`);
  ws.onmessage = (event) => document.getElementById("log").append(event.data + "\n");
  ws.onclose = (event) => { if (event.code === 4001) location.reload(); };
</script>"#;

/// Stands for a table of users. Keep hashes (argon2), and slow down who guesses.
fn is_right(user: &str, password: &str) -> bool {
    matches!((user, password), ("ada", "lovelace") | ("grace", "hopper"))
}

fn home(exchange: &Exchange<'_>) -> Result<Response, Refusal> {
    let user = exchange.session().get("user")?;
    Ok(Response::html(if user.is_some() { HOME } else { LOGIN }).with_header("cache-control", "no-store"))
}

fn login(exchange: &Exchange<'_>) -> Result<Response, Refusal> {
    let user = exchange.form_value("user")?.unwrap_or_default();
    let password = exchange.form_value("password")?.unwrap_or_default();
    if !is_right(&user, &password) {
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "wrong name or password"));
    }
    let session = exchange.session();
    let before = topic(session)?;
    session.renew()?; // who knew the ID before is not logged in with it
    session.set("user", &user)?;
    close_sockets(exchange, &before)?;
    Ok(to_home())
}

fn logout(exchange: &Exchange<'_>) -> Result<Response, Refusal> {
    let session = exchange.session();
    session.end()?;
    close_sockets(exchange, &topic(session)?)?;
    Ok(to_home())
}

fn close_sockets(exchange: &Exchange<'_>, topic: &str) -> switchboard::Result<usize> {
    exchange.hub().close_all(Audience::Topic(topic), 4001, "logged out")
}

fn to_home() -> Response {
    Response::redirect(StatusCode::SEE_OTHER, "/")
}

/// All sockets of a session.
fn topic(session: &Session) -> Result<String, Refusal> {
    Ok(format!("session {}", session.id()?))
}

struct Private;

impl WebSocketServer for Private {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        // In this order: who is logged out meanwhile is found by the topic, or is not in the session any more.
        opening.join(topic(opening.session())?)?;
        let user = opening.session().get("user")?.ok_or(StatusCode::UNAUTHORIZED)?;
        opening.set_user(user)?;
        Ok(())
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        ws.write(format!("hello {}", ws.user().unwrap_or_default()))?;
        for message in ws.messages() {
            ws.write(message)?;
        }
        Ok(())
    }
}

fn main() -> Result<(), ServerError> {
    let address = std::env::args().nth(1).unwrap_or("127.0.0.1:8080".into());
    let server = Server::builder()
        .listen(address)
        .header("Content-Security-Policy", "frame-ancestors 'none'") // no page shows these in a frame
        .http("/", home)
        .http("POST /login", login)
        .http("POST /logout", logout)
        .route("/private", || Private)
        .bind()?;
    println!("listening on http://{}/", server.local_addrs()[0]);
    server.run()
}

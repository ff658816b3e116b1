//! Members of topics that remember, as their queries want them, and what they get.

use switchboard::{
    Handled, Message, Opening, Overflow, Position, Refusal, ServerBuilder, ServerResult, StatusCode,
    WebSocket, WebSocketServer,
};

use super::echo;

/// Is the user that the query says (of several the last one), joins its topics, with `since` if the query has that, and has its
/// `overflow`. At `/shared` it is shared.
pub struct Member;

impl WebSocketServer for Member {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        let query =
            |opening: &Opening, name| opening.request().query_value(name).map(|value| value.into_owned());
        match query(opening, "overflow").as_deref() {
            Some("drop") => opening.set_overflow(Overflow::DropNewest),
            Some("keep") => opening.set_overflow(Overflow::KeepNewest),
            _ => {}
        }
        for user in query(opening, "users").iter().flat_map(|users| users.split(',')) {
            opening.set_user(user)?;
        }
        for topic in query(opening, "topics").iter().flat_map(|topics| topics.split(',')) {
            match query(opening, "since") {
                Some(_) => drop(opening.join_since(topic, opening.since())?),
                None => opening.join(topic)?,
            }
        }
        if query(opening, "refuse").is_some() {
            return Err(StatusCode::FORBIDDEN.into());
        }
        opening.set_shared_connection(opening.path() == "/shared");
        Ok(())
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        if ws.path() == "/shared" { Ok(()) } else { echo(ws) }
    }

    fn on_client_message(&mut self, ws: &WebSocket, message: Message) -> Handled {
        let _ = ws.write(message);
        Handled::Yes
    }
}

pub fn members(builder: ServerBuilder) -> ServerBuilder {
    builder.route("/", || Member).route("/shared", || Member)
}

/// A message of a topic that remembers: the position, what stands behind it on the first line, and what is below that.
pub fn parse_numbered(message: &[u8]) -> (Position, &str, &[u8]) {
    let end = message.iter().position(|&byte| byte == b'\n').expect("a line");
    let line = str::from_utf8(&message[..end]).unwrap();
    let (position, what) = line.split_once(' ').unwrap_or((line, ""));
    (position.parse().unwrap(), what, &message[end + 1..])
}

/// Is of the user, and in the topic, that the query says, each if it says one. At `/shared` it is shared.
pub fn enter(opening: &mut Opening) -> Result<(), Refusal> {
    let value = |name| opening.request().query_value(name).map(|value| value.into_owned());
    let (user, topic) = (value("user"), value("topic"));
    user.map_or(Ok(()), |user| opening.set_user(user))?;
    topic.map_or(Ok(()), |topic| opening.join(topic))?;
    opening.set_shared_connection(opening.path() == "/shared");
    Ok(())
}

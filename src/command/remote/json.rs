//! What `--json` prints: one object a line, with the names that the HTTP API has.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    time::Duration,
};

use serde::Serialize;
use switchboard::{Broadcast, ConnectionInfo, Message, Published, Pushed};

use crate::command::{dates::iso, escaped::is_harmful};

/// A value as a line. What would do harm on a terminal is escaped, as JSON does it.
pub(super) fn line(value: &impl Serialize) -> String {
    tame(&serde_json::to_string(value).unwrap_or_default()) // these have no keys but strings
}

/// JSON with the same meaning, that a terminal can show. Only its strings can have such characters.
pub(super) fn tame(json: &str) -> String {
    json.chars().fold(String::with_capacity(json.len()), |mut all, c| {
        if is_harmful(c) {
            let _ = write!(all, "\\u{:04x}", u32::from(c)); // a String takes all
        } else {
            all.push(c);
        }
        all
    })
}

/// A connection, and its topics, if they are known.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Connection<'a> {
    id: &'a str,
    node: u32,
    connected_at: String,
    last_active_at: String,
    identity: Identity<'a>,
    path: &'a str,
    route: &'a str,
    shared: bool,
    user: Option<&'a str>,
    tags: BTreeMap<&'a str, &'a str>,
    queued_bytes: usize,
    messages_in: u64,
    messages_out: u64,
    bytes_in: u64,
    bytes_out: u64,
    round_trip_millis: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topics: Option<Vec<&'a str>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Identity<'a> {
    source_ip: String,
    user_agent: &'a str,
}

impl<'a> Connection<'a> {
    pub(super) fn new(info: &'a ConnectionInfo, topics: Option<Vec<&'a str>>) -> Self {
        let address = info.client_address.map(|address| address.to_string());
        let identity = Identity {
            source_ip: address.unwrap_or_default(),
            user_agent: info.user_agent.as_deref().unwrap_or_default(),
        };
        Self {
            id: info.id.as_str(),
            node: info.id.node().get(),
            connected_at: iso(info.since),
            last_active_at: iso(info.last_active),
            identity,
            path: &info.path,
            route: &info.route,
            shared: info.shared,
            user: info.user.as_deref(),
            tags: info.tags.iter().collect(),
            queued_bytes: info.queued,
            messages_in: info.messages_in,
            messages_out: info.messages_out,
            bytes_in: info.bytes_in,
            bytes_out: info.bytes_out,
            round_trip_millis: info.round_trip.map(millis),
            topics,
        }
    }
}

/// With three digits.
fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

#[derive(Serialize)]
pub(super) struct Topic<'a> {
    pub(super) name: &'a str,
    pub(super) members: usize,
}

#[derive(Serialize)]
pub(super) struct Push {
    result: &'static str,
}

impl From<Pushed> for Push {
    fn from(pushed: Pushed) -> Self {
        Self { result: name(pushed) }
    }
}

/// What became of a push.
pub(super) fn name(pushed: Pushed) -> &'static str {
    match pushed {
        Pushed::Sent => "sent",
        Pushed::Forwarded => "forwarded",
        _ => "queued",
    }
}

/// To many.
#[derive(Serialize)]
pub(super) struct Counts {
    sent: usize,
    queued: usize,
    dropped: usize,
    gone: usize,
    /// Other nodes of a cluster.
    #[serde(skip_serializing_if = "is_none")]
    forwarded: usize,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unreachable: bool,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    publication: Option<Publication>,
}

/// To a topic.
#[derive(Serialize)]
struct Publication {
    position: Option<String>,
    duplicate: bool,
}

impl Counts {
    pub(super) fn is_anybody(&self) -> bool {
        self.sent + self.queued + self.dropped + self.gone + self.forwarded > 0 || self.unreachable
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_none(count: &usize) -> bool {
    *count == 0
}

/// For people.
impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, queued, dropped, gone, forwarded, unreachable, .. } = self;
        write!(f, "{sent} sent, {queued} queued")?;
        if *forwarded > 0 {
            let nodes = if *forwarded == 1 { "node" } else { "nodes" };
            write!(f, ", forwarded to {forwarded} other {nodes}")?;
        }
        if *unreachable {
            write!(f, ", and other nodes may not have got it")?;
        }
        if *dropped > 0 {
            write!(f, ", {dropped} dropped: their queues are full")?;
        }
        if *gone > 0 {
            write!(f, ", {gone} gone")?;
        }
        Ok(())
    }
}

impl From<Broadcast> for Counts {
    fn from(broadcast: Broadcast) -> Self {
        let Broadcast { sent, queued, dropped, gone, forwarded, unreachable, .. } = broadcast;
        Self { sent, queued, dropped, gone, forwarded, unreachable, publication: None }
    }
}

impl From<&Published> for Counts {
    fn from(published: &Published) -> Self {
        let position = published.position.as_ref().map(ToString::to_string);
        let publication = Some(Publication { position, duplicate: published.duplicate });
        Self { publication, ..published.broadcast.into() }
    }
}

/// What was read.
#[derive(Serialize)]
pub(super) struct Read<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    redelivered: bool,
}

impl<'a> Read<'a> {
    pub(super) fn new(message: &'a Message, redelivered: bool) -> Self {
        match message {
            Message::Text(text) => Self { kind: "text", text: Some(text), base64: None, redelivered },
            Message::Binary(bytes) => {
                let base64 = Some(data_encoding::BASE64.encode(bytes));
                Self { kind: "binary", text: None, base64, redelivered }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_harm_on_a_terminal_is_escaped_and_means_the_same() {
        let text = "a\"\\\n\u{1b}[2J\u{7f}\u{9b}\u{202e}\u{2028} größe 🎉";
        let json = line(&text);
        assert!(!json.chars().any(is_harmful), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    #[test]
    fn messages_of_both_kinds() {
        for (message, redelivered, json) in [
            (Message::from("ä"), false, r#"{"type":"text","text":"ä","redelivered":false}"#),
            (Message::from(vec![0, 255]), true, r#"{"type":"binary","base64":"AP8=","redelivered":true}"#),
        ] {
            assert_eq!(line(&Read::new(&message, redelivered)), json);
        }
    }
}

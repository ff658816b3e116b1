//! `show`: all that is known of a connection.

use std::{sync::Arc, time::SystemTime};

use clap::Args;
use switchboard::{ConnectionInfo, WebSocketId};

use super::{
    after_help,
    failure::Failure,
    human::{age, grouped, round_trip},
    json,
    output::Output,
    place::Place,
};
use crate::command::{dates::date, escaped::escaped};

#[derive(Debug, Args)]
#[command(after_help = after_help!("  \
  switchboard show b3kT9ZcYw4mQ1s8xAAAAKg
  switchboard show --json b3kT9ZcYw4mQ1s8xAAAAKg | jq .topics"))]
pub(in crate::command) struct Show {
    /// The connection's ID
    #[arg(allow_hyphen_values = true)]
    id: WebSocketId,
    /// Print a JSON object, with the names of GET /@connections/ID
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

impl Show {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let hub = self.place.hub()?;
        let info = hub.connection(&self.id)?;
        let topics = hub.topics_of(&self.id)?;
        let mut output = Output::new()?;
        if self.json {
            let topics = topics.iter().map(|topic| &**topic).collect();
            output.line(&json::line(&json::Connection::new(&info, Some(topics))))?;
        } else {
            for (name, value) in facts(&info, &topics) {
                output.line(&format!("{name:<12}  {value}"))?;
            }
        }
        output.flush()
    }
}

/// What is known, a line each.
fn facts(info: &ConnectionInfo, topics: &[Arc<str>]) -> Vec<(&'static str, String)> {
    let none = || "-".to_owned();
    let tags = info.tags.iter().map(|(key, value)| format!("{}={}", escaped(key), escaped(value)));
    let moment = |when: SystemTime, ago| format!("{}, {} ago", date(when), age(ago));
    let traffic = |messages, size| format!("{} messages, {} bytes", grouped(messages), grouped(size));
    vec![
        ("id", info.id.to_string()),
        ("node", info.id.node().to_string()),
        ("path", escaped(&info.path)),
        ("route", escaped(&info.route)),
        ("user", info.user.as_deref().map_or_else(none, escaped)),
        ("topics", listed(topics.iter().map(|topic| escaped(topic)))),
        ("tags", listed(tags)),
        ("from", from(info)),
        ("agent", info.user_agent.as_deref().map_or_else(none, escaped)),
        ("shared", if info.shared { "yes" } else { "no" }.into()),
        ("opened", moment(info.since, info.age)),
        ("last active", moment(info.last_active, info.idle)),
        ("received", traffic(info.messages_in, info.bytes_in)),
        ("sent", traffic(info.messages_out, info.bytes_out)),
        ("queued", format!("{} bytes", grouped(info.queued as u64))),
        ("round trip", info.round_trip.map_or_else(none, round_trip)),
    ]
}

fn listed(texts: impl Iterator<Item = String>) -> String {
    let all = texts.collect::<Vec<_>>().join(", ");
    if all.is_empty() { "-".into() } else { all }
}

fn from(info: &ConnectionInfo) -> String {
    match (info.client_address, info.peer) {
        (Some(client), Some(peer)) if client == peer.ip() => peer.to_string(),
        (Some(client), Some(peer)) => format!("{client}, by way of {peer}"),
        (Some(client), None) => format!("{client}, by way of a Unix socket"),
        (None, Some(peer)) => peer.to_string(),
        (None, None) => "a Unix socket".into(),
    }
}

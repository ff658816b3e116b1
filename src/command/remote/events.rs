//! `events`: what happens, as it happens.

use std::{
    fmt::Write,
    time::{Duration, SystemTime},
};

use clap::Args;
use serde::Deserialize;
use switchboard::{Client, ClientError, Error};

use super::{after_help, failure::Failure, human::age, json::tame, output::Output, place::Place};
use crate::command::{dates::iso, escaped::escaped};

/// Where they are.
const PATH: &str = "/@events";

#[derive(Debug, Args)]
#[command(after_help = after_help!("  \
  switchboard events                    of an ID, a key, only how it begins
  switchboard events --json | jq -r 'select(.event == \"opened\").id'

It runs until the server ends, which is exit code 1, or this is interrupted. In a cluster, each node tells its own events: ask them all."))]
pub(in crate::command) struct Events {
    /// Print a JSON object for each, with whole IDs: event (opened, closed, occupied, vacated), and the names of GET /@events
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// What is said of one. Of what a newer server says beside that, `--json` knows more.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    event: String,
    id: Option<String>,
    path: Option<String>,
    user: Option<String>,
    topic: Option<String>,
    code: Option<u16>,
    reason: Option<String>,
    by: Option<String>,
    duration_millis: Option<f64>,
}

impl Events {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let client = self.connect()?;
        let mut output = Output::new()?;
        output.end_without_reader()?;
        loop {
            let message = match client.read_message(Duration::MAX) {
                Ok(message) => message,
                Err(Error::Closed(reason)) => {
                    return Err(Failure::other(format!("the server ended: {reason}")));
                }
                Err(other) => return Err(other.into()),
            };
            let text = message.as_text().unwrap_or_default();
            let event: Event = serde_json::from_str(text)
                .map_err(|e| Failure::other(format!("the server said something else than an event: {e}")))?;
            let is_lost = event.event == "lost";
            output.line(&if self.json { tame(text) } else { event.line(SystemTime::now()) })?;
            output.flush()?;
            if is_lost {
                return Err(Failure::other("too slow: what reads this has missed events"));
            }
        }
    }

    fn connect(&self) -> Result<Client, Failure> {
        drop(self.place.hub()?); // which says what is wrong, and what to do
        self.place.client(PATH)?.connect().map_err(|error| match &error {
            ClientError::Refused(response) => {
                let told = String::from_utf8_lossy(response.body());
                Failure::refused(format!("the server does not tell events: {error}: {}", told.trim()))
            }
            _ => Failure::other(error.to_string()),
        })
    }
}

impl Event {
    /// For people, who may keep it: an ID is a key, so only its first characters are in it.
    fn line(&self, now: SystemTime) -> String {
        let mut line = format!("{} {:<8}", iso(now), escaped(&self.event));
        if let Some(id) = &self.id {
            let short: String = id.chars().take(8).collect();
            let _ = write!(line, " {}", escaped(&short)); // a String takes all
        }
        let fields = [("path", &self.path), ("user", &self.user), ("topic", &self.topic)];
        for (name, value) in fields {
            if let Some(value) = value {
                let _ = write!(line, " {name}={}", word(value));
            }
        }
        if let (Some(code), Some(by)) = (self.code, &self.by) {
            let _ = write!(line, " code={code} by={}", word(by));
        }
        if let Some(reason) = self.reason.as_deref().filter(|reason| !reason.is_empty()) {
            let _ = write!(line, " reason={}", word(reason));
        }
        if let Some(millis) = self.duration_millis {
            let lasted = std::time::Duration::try_from_secs_f64(millis / 1000.0).unwrap_or_default();
            let _ = write!(line, " after={}", age(lasted));
        }
        line
    }
}

/// A value that stands alone, or in quotation marks.
fn word(text: &str) -> String {
    let text = escaped(text);
    let is_plain = !text.is_empty() && !text.contains([' ', '\t', '"', '=']);
    if is_plain { text } else { format!("\"{}\"", text.replace('"', "\\\"")) }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn an_event_is_a_line_without_a_key() {
        for (json, line) in [
            (
                r#"{"event":"opened","id":"b3kT9ZcYw4mQ1s8xAAAAKg","path":"/chat","user":null}"#,
                "opened   b3kT9ZcY path=/chat",
            ),
            (
                r#"{"event":"closed","id":"b3kT9ZcYw4mQ1s8xAAAAKg","path":"/a","user":"a b\n","code":1000,"reason":"","by":"client","durationMillis":60000.5}"#,
                "closed   b3kT9ZcY path=/a user=\"a b\\n\" code=1000 by=client after=60s",
            ),
            (r#"{"event":"vacated","topic":"x\u001b[2J"}"#, "vacated  topic=x\\u{1b}[2J"),
            (r#"{"event":"lost"}"#, "lost    "),
            (r#"{"event":"new","what":[1]}"#, "new     "),
        ] {
            let event: Event = serde_json::from_str(json).unwrap();
            assert_eq!(event.line(UNIX_EPOCH), format!("1970-01-01T00:00:00.000Z {line}"));
        }
    }
}

//! What a path of the management listener stands for. Names are decoded once, and a topic may have slashes, encoded or not.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::console::File;
use crate::id::{InvalidId, WebSocketId};

/// What a request is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    Health,
    Ready,
    /// A file of the console.
    Console(File),
    /// What one may do here.
    Access,
    Connections,
    Connection(Result<WebSocketId, InvalidId>),
    /// What a connection has received.
    Messages(Result<WebSocketId, InvalidId>),
    /// A connection and a topic.
    Member(Result<WebSocketId, InvalidId>, Cow<'a, str>),
    Topics,
    Topic(Cow<'a, str>),
    Broadcast,
    User(Cow<'a, str>),
    Events,
    Stats,
    Metrics,
    /// Those of the cluster.
    Nodes,
    OpenApi,
    /// That of another process's hub, without an upgrade.
    Link,
}

impl<'a> Target<'a> {
    /// Of a path as it was sent. `None`: there is nothing at it.
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        let (name, rest) = split(path.strip_prefix('/')?);
        let name = decode(name);
        if rest.is_none()
            && let Some(file) = File::named(&name)
        {
            return Some(Self::Console(file));
        }
        match (&*name, rest) {
            ("health", None) => Some(Self::Health),
            ("ready", None) => Some(Self::Ready),
            ("@access", None) => Some(Self::Access),
            ("@topics", None) => Some(Self::Topics),
            ("@topics", Some(topic)) => name_of(topic).map(Self::Topic),
            ("@events", None) => Some(Self::Events),
            ("@stats", None) => Some(Self::Stats),
            ("@nodes", None) => Some(Self::Nodes),
            ("metrics", None) => Some(Self::Metrics),
            ("openapi.json", None) => Some(Self::OpenApi),
            ("@hub", None) => Some(Self::Link),
            ("@broadcast", None) => Some(Self::Broadcast),
            ("@users", Some(user)) => name_of(user).map(Self::User),
            _ => Self::connection(below_connections(path)?),
        }
    }

    /// Of what is behind `/@connections`.
    fn connection(below: Option<&'a str>) -> Option<Self> {
        let Some(below) = below else { return Some(Self::Connections) };
        let (id, rest) = split(below);
        let id = decode(id).parse();
        let Some(rest) = rest else { return Some(Self::Connection(id)) };
        let (name, topic) = split(rest);
        match (&*decode(name), topic) {
            ("messages", None) => Some(Self::Messages(id)),
            ("topics", Some(topic)) => Some(Self::Member(id, name_of(topic)?)),
            _ => None,
        }
    }

    /// The methods that there are.
    pub(super) fn methods(&self) -> &'static str {
        match self {
            Self::Health
            | Self::Ready
            | Self::Console(_)
            | Self::Access
            | Self::Connections
            | Self::Topics
            | Self::Events
            | Self::Stats
            | Self::Metrics
            | Self::Nodes
            | Self::OpenApi
            | Self::Link => "GET, HEAD",
            Self::Connection(_) => "DELETE, GET, HEAD, POST",
            Self::Messages(_) => "GET", // HEAD could take a message, and not give it
            Self::Member(..) => "DELETE, PUT",
            Self::Topic(_) | Self::Broadcast => "POST",
            Self::User(_) => "DELETE, POST",
        }
    }
}

/// Whether a path is in the API that clients of AWS know, whose errors have a type.
pub(super) fn is_of_aws(path: &str) -> bool {
    below_connections(path).is_some()
}

/// What is behind `/@connections`, or behind a stage and that, as AWS has it: `/prod/@connections`. `None`: it is another path.
fn below_connections(path: &str) -> Option<Option<&str>> {
    let is_it = |name: &str| decode(name) == "@connections";
    let (name, rest) = split(path.strip_prefix('/')?);
    if is_it(name) {
        return Some(rest);
    }
    let is_stage = !name.is_empty() && !decode(name).starts_with('@');
    let (second, rest) = split(rest.filter(|_| is_stage)?);
    is_it(second).then_some(rest)
}

/// The first segment, and what is behind its slash.
fn split(path: &str) -> (&str, Option<&str>) {
    path.split_once('/').map_or((path, None), |(first, rest)| (first, Some(rest)))
}

/// The name of a topic or a user; none is empty.
fn name_of(text: &str) -> Option<Cow<'_, str>> {
    Some(decode(text)).filter(|name| !name.is_empty())
}

fn decode(text: &str) -> Cow<'_, str> {
    percent_decode_str(text).decode_utf8_lossy() // a path that is not UTF-8 was refused
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "b3kT9ZcYw4mQ1s8xAAAAKg";

    #[test]
    fn each_path_has_a_target() {
        let id = || ID.parse::<WebSocketId>();
        let topic = |name: &'static str| Some(Target::Topic(name.into()));
        for (path, target) in [
            ("/health", Some(Target::Health)),
            ("/ready", Some(Target::Ready)),
            ("/%72eady", Some(Target::Ready)),
            ("/@connections", Some(Target::Connections)),
            ("/%40connections", Some(Target::Connections)),
            ("/prod/@connections", Some(Target::Connections)),
            ("/@connections/ID", Some(Target::Connection(id()))),
            ("/$default/%40connections/ID", Some(Target::Connection(id()))),
            ("/@connections/%62%33kT9ZcYw4mQ1s8xAAAAKg", Some(Target::Connection(id()))),
            ("/@connections/ID/messages", Some(Target::Messages(id()))),
            ("/@connections/ID/topics/a%2Fb", Some(Target::Member(id(), "a/b".into()))),
            ("/x/@connections/ID/topics/a/b", Some(Target::Member(id(), "a/b".into()))),
            ("/@topics", Some(Target::Topics)),
            ("/@topics/room", topic("room")),
            ("/@topics/chat/1", topic("chat/1")),
            ("/@topics/chat%2F1", topic("chat/1")),
            ("/@topics/chat%252F1", topic("chat%2F1")),
            ("/@topics/%C3%A4%20%3F", topic("ä ?")),
            ("/@topics/..", topic("..")),
            ("/@users/42", Some(Target::User("42".into()))),
            ("/@broadcast", Some(Target::Broadcast)),
            ("/@events", Some(Target::Events)),
            ("/", Some(Target::Console(File::Page))),
            ("/console.css", Some(Target::Console(File::Style))),
            ("/console.js", Some(Target::Console(File::Script))),
            ("/@access", Some(Target::Access)),
            ("/console", None),
            ("/console.js/", None),
            ("//", None),
            ("/@stats", Some(Target::Stats)),
            ("/metrics", Some(Target::Metrics)),
            ("/openapi.json", Some(Target::OpenApi)),
            ("/@hub", Some(Target::Link)),
            ("*", None),
            ("//@connections", None),
            ("/a/b/@connections", None),
            ("/@topics/", None),
            ("/@users", None),
            ("/@users/", None),
            ("/health/", None),
            ("/@connections/ID/", None),
            ("/@connections/ID/messages/", None),
            ("/@connections/ID/topics", None),
            ("/@connections/ID/topics/", None),
            ("/@connections/ID/other/x", None),
            ("/@broadcast/x", None),
            ("/prod/@topics", None),
        ] {
            assert_eq!(Target::parse(&path.replace("ID", ID)), target, "{path}");
        }
    }

    #[test]
    fn what_cannot_be_an_id_is_told_apart() {
        for path in [
            "/@connections/",
            "/@connections/x",
            "/p/@connections/..",
            "/@connections/%2562x",
            "/@connections/x/topics/t",
        ] {
            let target = Target::parse(path);
            assert!(
                matches!(target, Some(Target::Connection(Err(_)) | Target::Member(Err(_), _))),
                "{path}: {target:?}"
            );
            assert!(is_of_aws(path));
        }
        for path in
            ["/@topics/@connections/x", "/@users/@connections", "//@connections", "/connections", "/health"]
        {
            assert!(!is_of_aws(path), "{path}");
        }
    }
}

//! The query of a request. A parameter that nobody knows is refused: whoever misspells `except` does not want to reach everybody.

use std::{borrow::Cow, time::Duration};

use super::answers::bad;
use crate::{
    http::{Refusal, Request},
    id::{NodeId, WebSocketId},
    message::CloseCode,
    shown::Quoted,
};

/// The longest text of a close frame (RFC 6455, section 5.5).
const MAX_REASON: usize = 123;

/// What a page of a list has, unless it is asked for another number, and at most.
const PAGE: usize = 100;
const LONGEST_PAGE: usize = 1000;

/// How long a request for a message waits, unless it says it, and at most: proxies end what is silent for longer.
const TIMEOUT: Duration = Duration::from_secs(20);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// # Errors
    /// 400 for a parameter that is not among the known ones, or is there twice.
    pub(super) fn of(request: &'a Request, known: &[&str]) -> Result<Self, Refusal> {
        let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
        for (name, value) in form_urlencoded::parse(request.query().as_bytes()) {
            if !known.contains(&&*name) {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(bad(format!("there is no parameter {}: known here: {known}", Quoted(name))));
            }
            if pairs.iter().any(|(other, _)| *other == name) {
                return Err(bad(format!("the parameter {name} is there twice")));
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| &**value)
    }

    /// An ID.
    pub(super) fn id(&self, name: &str) -> Result<Option<WebSocketId>, Refusal> {
        let parsed =
            self.text(name).map(|id| id.parse::<WebSocketId>().map_err(|e| bad(format!("{name}: {e}"))));
        parsed.transpose()
    }

    /// The number of a node.
    pub(super) fn node(&self) -> Result<Option<NodeId>, Refusal> {
        let Some(node) = self.text("node") else { return Ok(None) };
        let number = node.parse::<u32>().ok().filter(|_| !node.starts_with('+'));
        number
            .map(|number| Some(NodeId::new(number)))
            .ok_or_else(|| bad("node: a number, as that of a connection"))
    }

    /// How many a page of a list may have.
    pub(super) fn limit(&self) -> Result<usize, Refusal> {
        let Some(limit) = self.text("limit") else { return Ok(PAGE) };
        let limit = limit.parse::<usize>().ok().filter(|limit| (1..=LONGEST_PAGE).contains(limit));
        limit.ok_or_else(|| bad(format!("limit: a number from 1 to {LONGEST_PAGE}")))
    }

    /// How many characters or bytes of a message: of `len`. All of them, if it does not say; 0 as with `WebSocket::read`.
    pub(super) fn len(&self) -> Result<usize, Refusal> {
        let Some(len) = self.text("len") else { return Ok(usize::MAX) };
        let is_number = !len.is_empty() && len.bytes().all(|b| b.is_ascii_digit());
        // More than can be counted are all of them, too.
        let len = is_number.then(|| len.parse().unwrap_or(usize::MAX));
        len.ok_or_else(|| bad("len: a number of characters or bytes"))
    }

    /// How long a request waits: of `timeout`, in seconds.
    pub(super) fn timeout(&self) -> Result<Duration, Refusal> {
        Ok(self.seconds("timeout", Duration::ZERO, LONGEST_TIMEOUT)?.unwrap_or(TIMEOUT))
    }

    /// A number of seconds, as programs write numbers: small ones may have an exponent.
    pub(super) fn seconds(
        &self,
        name: &str,
        least: Duration,
        most: Duration,
    ) -> Result<Option<Duration>, Refusal> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let seconds = text.parse::<f64>().ok().filter(|_| !text.starts_with('+'));
        let seconds = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        let seconds = seconds.filter(|seconds| (least..=most).contains(seconds));
        let [least, most] = [least, most].map(|seconds| seconds.as_secs_f64());
        seconds.map(Some).ok_or_else(|| bad(format!("{name}: seconds, from {least} to {most}")))
    }

    /// The code and the text of a close frame: of `code` and `reason`.
    pub(super) fn close(&self) -> Result<(CloseCode, &str), Refusal> {
        let code = self.text("code").map_or(Some(CloseCode::NORMAL), |code| code.parse().ok().map(CloseCode));
        let code = code.filter(|code| code.is_sendable());
        let code = code.ok_or_else(|| bad("code: 1000 to 1003, 1007 to 1014, or 3000 to 4999"))?;
        let reason = self.text("reason").unwrap_or_default();
        if reason.len() > MAX_REASON {
            return Err(bad(format!("reason: at most {MAX_REASON} bytes")));
        }
        Ok((code, reason))
    }
}

/// Whether a message is text: of `type`. `None`: if it can be.
pub(super) fn kind(query: &Query<'_>) -> Result<Option<Kind>, Refusal> {
    match query.text("type") {
        None => Ok(None),
        Some("text") => Ok(Some(Kind::Text)),
        Some("binary") => Ok(Some(Kind::Binary)),
        Some(_) => Err(bad("type: text or binary")),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Binary,
}

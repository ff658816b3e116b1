//! What topics remember, in Redis: a stream of the publications, and beside it a state, which has the epoch and the last offset. One
//! script publishes, for all nodes; another one fetches. An entry's ID is the time and the offset, so both grow.
//!
//! What a node has heard, and Redis does not have any more, was lost there: then the topic begins anew, with another epoch.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use ::redis::{Cmd, FromRedisValue, Script, cmd, from_redis_value};
use bytes::Bytes;

use super::{
    bus::Failed,
    envelope::{Head, Kind, Sender},
    member::{MAX_MESSAGE, Member},
};
use crate::{
    deadline::Deadline,
    elsewhere::{Placed, Publishing, Share},
    error::{OverLimit, Result},
    history::{History, Position},
    id::{WebSocketId, random_bytes},
    message::Message,
    thread::must_not_wait,
    wire::{self, AsText, Frames, Request, UNANSWERED, append, decode_request},
};

static PUBLISH: LazyLock<Script> = LazyLock::new(|| Script::new(PUBLISH_TEXT));
static FETCH: LazyLock<Script> = LazyLock::new(|| Script::new(FETCH_TEXT));
const PUBLISH_TEXT: &str = include_str!("scripts/publish.lua");
const FETCH_TEXT: &str = include_str!("scripts/fetch.lua");

/// What is fetched together: publications, and bytes, if it is more than one.
const TOGETHER: usize = 256;
const BYTES_TOGETHER: usize = 1 << 20;

/// Where a publication stands in Redis: a [`Position`], and the time, in milliseconds, by which those are told apart that were given
/// the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) position: Position,
    pub(super) millis: u64,
}

/// A publication, as it was heard or fetched.
#[derive(Clone, Debug)]
pub(super) struct Publication {
    pub(super) place: Place,
    /// Who has published it, and its number there.
    pub(super) by: Option<(Sender, u64)>,
    /// A request in a frame.
    pub(super) body: Bytes,
}

impl Publication {
    /// What came behind the head of a message.
    pub(super) fn heard(from: Sender, number: u64, rest: &Bytes) -> Option<Self> {
        let end = rest.iter().position(|&byte| byte == b'\n')?;
        let (epoch, id) = str::from_utf8(&rest[..end]).ok()?.split_once(' ')?;
        let place = place(epoch_of(epoch)?, id)?;
        Some(Self { place, by: Some((from, number)), body: rest.slice(end + 1..) })
    }

    fn fetched(epoch: u64, (id, fields): (String, Vec<Vec<u8>>)) -> Option<Self> {
        let mut fields = fields.into_iter();
        let (head, body) = (fields.nth(1)?, fields.nth(1)?);
        let by = match Head::of(&head) {
            Ok(Some((Head { from, kind: Kind::Published { number }, .. }, _))) => Some((from, number)),
            _ => None,
        };
        Some(Self { place: place(epoch, &id)?, by, body: body.into() })
    }
}

fn place(epoch: u64, id: &str) -> Option<Place> {
    let (millis, offset) = id.split_once('-')?;
    Some(Place { position: Position::new(epoch, offset.parse().ok()?), millis: millis.parse().ok()? })
}

fn epoch_of(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

fn new_epoch() -> String {
    format!("{:016x}", u64::from_be_bytes(random_bytes()))
}

/// Some of what a topic remembers.
#[derive(Debug)]
pub(super) struct Fetched {
    /// Of the last publication that it has had.
    pub(super) last: Place,
    /// What time it is there, in milliseconds.
    pub(super) now: u64,
    /// In order.
    pub(super) publications: Vec<Publication>,
    /// There may be more behind these.
    pub(super) has_more: bool,
}

impl Fetched {
    fn of(value: ::redis::Value) -> Option<Self> {
        type Raw = (String, u64, u64, u64, u8, Vec<(String, Vec<Vec<u8>>)>);
        let (epoch, last, millis, now, has_more, entries): Raw = from_redis_value(value).ok()?;
        let epoch = epoch_of(&epoch)?;
        let publications = entries.into_iter().map(|entry| Publication::fetched(epoch, entry));
        Some(Self {
            last: Place { position: Position::new(epoch, last), millis },
            now,
            publications: publications.collect::<Option<_>>()?,
            has_more: has_more == 1,
        })
    }
}

impl Member {
    /// Publishes to a topic that remembers, and waits until that is delivered here, if it is to be.
    ///
    /// # Errors
    /// It may have been published.
    pub(super) fn publish_numbered(
        &self,
        topic: &str,
        history: History,
        publication: &Publishing<'_>,
    ) -> Result<Placed> {
        let body = body_of(publication)?;
        let way = self.bus().way()?;
        let number = self.replicas().number();
        let head = Head { from: self.me(), way, kind: Kind::Published { number } }.message(&[]);
        let key = publication.key.map_or("", |key| &**key);
        let run = |command: &str, script: &str| {
            let mut command = cmd(command);
            command.arg(script).arg(3).arg(&self.names().history(topic)[..]);
            command.arg(self.names().topic(topic)).arg(&head).arg(&body).arg(key).arg(new_epoch());
            command.arg(history.size).arg(millis(history.age)).arg(self.replicas().max_log_bytes());
            command
        };
        if must_not_wait() {
            self.bus().tell(way, run("EVAL", PUBLISH_TEXT).get_packed_command())?;
            return Ok(Placed::default());
        }
        let deadline = self.deadline();
        let replica = self.replicas().find(topic);
        let delivery = replica.as_ref().map(|replica| replica.expect(number));
        let answer: Result<(String, u64, i64), _> = self.eval(way, &PUBLISH, PUBLISH_TEXT, run, deadline);
        let (epoch, offset, receivers) = answer.inspect_err(|failed| self.replicas().tell_why(failed))?;
        let position = Position::new(epoch_of(&epoch).ok_or(Failed::Unreachable)?, offset);
        let Ok(receivers) = u64::try_from(receivers) else {
            return Ok(Placed { position: Some(position), is_duplicate: true, ..Placed::default() });
        };
        let is_own = self.shares().is_heard(&Share::Topic(topic.into()));
        let here = delivery.map(|delivery| delivery.wait(deadline)).unwrap_or_default();
        let nodes = usize::try_from(receivers.saturating_sub(u64::from(is_own))).unwrap_or(usize::MAX);
        Ok(Placed { position: Some(position), is_duplicate: false, nodes, here })
    }

    /// Some of what a topic remembers behind this.
    pub(super) fn fetch(
        &self,
        topic: &str,
        history: History,
        after: Option<Place>,
    ) -> Result<Fetched, Failed> {
        let run = |command: &str, script: &str| {
            let mut command = cmd(command);
            command.arg(script).arg(3).arg(&self.names().history(topic)[..]);
            command.arg(new_epoch()).arg(millis(history.age));
            match after {
                None => command.arg("").arg(0).arg(0),
                Some(Place { position, millis }) => {
                    command.arg(format!("{:016x}", position.epoch())).arg(millis).arg(position.offset())
                }
            };
            command.arg(TOGETHER).arg(BYTES_TOGETHER);
            command
        };
        let value = self.eval(self.bus().way()?, &FETCH, FETCH_TEXT, run, self.deadline())?;
        Fetched::of(value).ok_or(Failed::Unreachable)
    }

    /// Runs a script, which Redis may not have yet.
    fn eval<T: FromRedisValue>(
        &self,
        way: u32,
        script: &Script,
        text: &str,
        run: impl Fn(&str, &str) -> Cmd,
        deadline: Deadline,
    ) -> Result<T, Failed> {
        let command = run("EVALSHA", script.get_hash()).get_packed_command();
        let value = match self.bus().call(way, command, deadline) {
            Err(Failed::Refused(error)) if error.code() == Some("NOSCRIPT") => {
                self.bus().call(way, run("EVAL", text).get_packed_command(), deadline)?
            }
            answered => answered?,
        };
        from_redis_value(value).map_err(|_| Failed::Unreachable)
    }
}

pub(super) fn body_of(publication: &Publishing<'_>) -> Result<Vec<u8>, OverLimit> {
    let Publishing { message, newest, except, key: _ } = *publication;
    let payload = wire::Payload::new(message, newest);
    // The channel says which topic, and Redis has found out whether it is a duplicate.
    let request = Request::Publish { topic: "", except: except.copied().map(AsText), key: None, payload };
    let mut body = Vec::with_capacity(message.len() + 64);
    append(&mut body, UNANSWERED, &request).map_err(|_| OverLimit::Message)?;
    if body.len() > MAX_MESSAGE { Err(OverLimit::Message) } else { Ok(body) }
}

/// What a publication is.
pub(super) struct Decoded {
    pub(super) message: Message,
    pub(super) newest: Option<Arc<str>>,
    pub(super) except: Option<WebSocketId>,
}

impl Decoded {
    /// `None`: this version does not know it.
    pub(super) fn of(body: &Bytes) -> Option<Self> {
        let (_, frame) = Frames::of(body).next()?.ok()?;
        let Ok(Some(Request::Publish { except, payload, .. })) = decode_request(frame) else { return None };
        let (message, newest) = payload.payload(body).ok()?.split();
        Some(Self { message, newest, except: except.map(|id| id.0) })
    }
}

/// As Redis takes it.
fn millis(age: Duration) -> u64 {
    const LONGEST: u64 = 10 * 365 * 86_400 * 1000;
    u64::try_from(age.as_millis()).unwrap_or(LONGEST).clamp(1, LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_says_where_it_stands() {
        let from = Sender { node: 1, start: 2 };
        let heard = |rest: &str| Publication::heard(from, 3, &Bytes::from(rest.to_owned()));
        let publication = heard("00000000000000ff 1700000000000-17\nbody\n").unwrap();
        let place = Place { position: Position::new(255, 17), millis: 1_700_000_000_000 };
        assert_eq!((publication.place, publication.by), (place, Some((from, 3))));
        assert_eq!(publication.body, "body\n");
        for wrong in ["", "ff 1-2", "ff 1\n", "ff1-2\n", "x 1-2\n", "ff 1-x\n", "ff -2\n", "\n"] {
            assert!(heard(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn an_age_is_one_that_redis_takes() {
        assert_eq!(millis(Duration::from_nanos(1)), 1);
        assert_eq!(millis(Duration::from_secs(3600)), 3_600_000);
        assert!(i64::try_from(millis(Duration::MAX)).unwrap() > 0);
    }
}

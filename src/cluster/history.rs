//! What topics remember, in Redis: a stream of the publications, and beside it a state, which has the epoch and the last offset. One
//! script publishes, for all nodes; another one fetches. An entry's ID is the time and the offset, so both grow.
//!
//! What a node has heard, and Redis does not have any more, was lost there: then the topic begins anew, with another epoch.

use std::{sync::LazyLock, time::Duration};

use ::redis::{Cmd, FromRedisValue, Script, cmd, from_redis_value};

use super::{
    bus::{Failed, What},
    envelope::{Head, Kind},
    member::{MAX_MESSAGE, Member},
    publications::{Fetched, Place, body_of, epoch_of},
};
use crate::{
    audience::Audience,
    deadline::Deadline,
    elsewhere::{Placed, Publishing},
    error::{OverLimit, Result},
    history::{History, Position, Since},
    id::random_bytes,
    thread::must_not_wait,
};

static PUBLISH: LazyLock<Script> = LazyLock::new(|| Script::new(PUBLISH_TEXT));
static FETCH: LazyLock<Script> = LazyLock::new(|| Script::new(FETCH_TEXT));
const PUBLISH_TEXT: &str = include_str!("scripts/publish.lua");
const FETCH_TEXT: &str = include_str!("scripts/fetch.lua");

/// What is fetched together: publications, and bytes, if it is more than one.
const TOGETHER: usize = 256;
const BYTES_TOGETHER: usize = 1 << 20;

fn new_epoch() -> String {
    format!("{:016x}", u64::from_be_bytes(random_bytes()))
}

impl Member {
    /// Whether the topic has had what somebody says to have seen: a client may say anything.
    ///
    /// # Errors
    /// Redis does not say.
    pub(super) fn has_had(&self, topic: &str, since: &Since, deadline: Deadline) -> Result<bool, Failed> {
        let mut ask = cmd("HMGET");
        ask.arg(&self.names().history(topic)[0]).arg("epoch").arg("last");
        let value = self.call(&ask, deadline)?;
        let state: (Option<String>, Option<u64>) =
            from_redis_value(value).map_err(|_| Failed::Unreachable)?;
        let (Some(epoch), Some(last)) = state else { return Ok(false) };
        Ok(epoch_of(&epoch).and_then(|epoch| since.last_of(epoch)).is_some_and(|seen| seen <= last))
    }

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
        if body.len() > MAX_MESSAGE {
            return Err(OverLimit::Message.into());
        }
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
            self.bus().tell(way, What::of(&run("EVAL", PUBLISH_TEXT)))?;
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
        let nodes = self.others(Audience::Topic(topic), receivers);
        let here = delivery.map(|delivery| delivery.wait(deadline)).unwrap_or_default();
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
        let command = run("EVALSHA", script.get_hash());
        let value = match self.bus().call(way, What::of(&command), deadline) {
            Err(Failed::Refused(error)) if error.code() == Some("NOSCRIPT") => {
                self.bus().call(way, What::of(&run("EVAL", text)), deadline)?
            }
            answered => answered?,
        };
        from_redis_value(value).map_err(|_| Failed::Unreachable)
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
    fn an_age_is_one_that_redis_takes() {
        assert_eq!(millis(Duration::from_nanos(1)), 1);
        assert_eq!(millis(Duration::from_secs(3600)), 3_600_000);
        assert!(i64::try_from(millis(Duration::MAX)).unwrap() > 0);
    }
}

//! Publications to topics that remember, as they are sent and kept.

use std::sync::Arc;

use ::redis::from_redis_value;
use bytes::Bytes;

use super::envelope::{Head, Kind, Sender};
use crate::{
    elsewhere::Publishing,
    error::{OverLimit, Result},
    history::Position,
    id::WebSocketId,
    message::Message,
    wire::{self, AsText, Frames, Request, UNANSWERED, append, decode_request},
};

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

pub(super) fn epoch_of(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
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
    /// What the script answers.
    pub(super) fn of(value: ::redis::Value) -> Option<Self> {
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

pub(super) fn body_of(publication: &Publishing<'_>) -> Result<Vec<u8>, OverLimit> {
    let Publishing { message, newest, except, key: _ } = *publication;
    let payload = wire::Payload::new(message, newest);
    // The channel says which topic, and Redis has found out whether it is a duplicate.
    let request = Request::Publish { topic: "", except: except.copied().map(AsText), key: None, payload };
    let mut body = Vec::with_capacity(message.len() + 64);
    append(&mut body, UNANSWERED, &request).map_err(|_| OverLimit::Message)?;
    Ok(body)
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
}

//! What one topic remembers: the newest of its publications, each with the position at its head, as it is sent.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use super::{
    position::{Position, Seen, Since},
    rule::History,
};
use crate::{id::random_bytes, message::Message};

/// What a log takes beside the topic's name, and a publication beside its bytes and its key, about.
const LOG: usize = 512;
const PUBLICATION: usize = 128;

/// The longest position, and the end of its line.
const LINE: usize = 33;

/// A topic's publications.
#[derive(Debug)]
pub(crate) struct Log {
    epoch: u64,
    /// The offset of the last publication.
    last: u64,
    /// The last ones, without a gap.
    kept: VecDeque<Kept>,
    /// Those that have an idempotency key.
    by_key: HashMap<Arc<str>, u64>,
    /// What this one takes, and what all take.
    bytes: usize,
    all_bytes: Arc<AtomicUsize>,
    /// It was forgotten: whoever has found it before looks for its successor.
    pub(crate) is_forgotten: bool,
}

#[derive(Debug)]
struct Kept {
    at: Instant,
    message: Message,
    key: Option<Arc<str>>,
}

impl Kept {
    fn size(&self) -> usize {
        size(self.message.len(), self.key.as_deref())
    }
}

/// A key is in two tables.
fn size(message: usize, key: Option<&str>) -> usize {
    PUBLICATION + message + key.map_or(0, |key| key.len() + 64)
}

/// How much a client can be given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) messages: usize,
    pub(crate) bytes: usize,
}

/// What a client has missed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Missed<'a> {
    /// Nothing is missing between what it had and the first of these.
    pub(crate) is_all: bool,
    /// The position before the first of these.
    pub(crate) before: Position,
    /// In order. After them comes what is published next.
    pub(crate) messages: Vec<&'a Message>,
}

impl Log {
    /// # Panics
    /// As [`random_bytes`].
    pub(crate) fn new(name_len: usize, all_bytes: Arc<AtomicUsize>) -> Self {
        let bytes = LOG + name_len;
        all_bytes.fetch_add(bytes, Relaxed);
        let (kept, by_key) = (VecDeque::new(), HashMap::new());
        let epoch = u64::from_be_bytes(random_bytes());
        Self { epoch, last: 0, kept, by_key, bytes, all_bytes, is_forgotten: false }
    }

    /// Nothing is remembered, and the last publication was this one.
    #[cfg(feature = "cluster")]
    pub(crate) fn restart(&mut self, last: Position) {
        self.forget_all();
        (self.epoch, self.last) = (last.epoch(), last.offset());
    }

    /// Nothing is remembered.
    #[cfg(feature = "cluster")]
    pub(crate) fn forget_all(&mut self) {
        let bytes: usize = self.kept.iter().map(Kept::size).sum();
        self.change(-(bytes as isize));
        (self.kept, self.by_key) = (VecDeque::new(), HashMap::new());
    }

    /// What a publication of so many bytes takes, at most, without its position.
    pub(crate) fn size(message: usize, key: Option<&str>) -> usize {
        size(message + LINE, key)
    }

    /// Of the last publication.
    pub(crate) fn position(&self) -> Position {
        Position::new(self.epoch, self.last)
    }

    /// Of the next publication.
    pub(crate) fn next(&self) -> Position {
        Position::new(self.epoch, self.last + 1)
    }

    /// Where the publication with this key stands, if it is remembered.
    pub(crate) fn find(&self, key: &str) -> Option<Position> {
        self.by_key.get(key).map(|&offset| Position::new(self.epoch, offset))
    }

    /// The [next](Self::next) publication, which begins with that position.
    pub(crate) fn append(&mut self, message: Message, key: Option<Arc<str>>, now: Instant) {
        self.last += 1;
        if let Some(key) = &key {
            self.by_key.insert(key.clone(), self.last);
        }
        let kept = Kept { at: now, message, key };
        self.change(kept.size() as isize);
        self.kept.push_back(kept);
    }

    /// Forgets what is too old, and what is too much: for this topic, or for all together.
    pub(crate) fn trim(&mut self, history: History, max_bytes: usize, max_all_bytes: usize, now: Instant) {
        while let Some(first) = self.kept.front() {
            let is_too_old = now.saturating_duration_since(first.at) >= history.age;
            let is_too_much = self.kept.len() > history.size
                || self.bytes > max_bytes
                || self.all_bytes.load(Relaxed) > max_all_bytes;
            if !is_too_old && !is_too_much {
                return;
            }
            let offset = self.first();
            let Some(first) = self.kept.pop_front() else { return };
            self.change(-(first.size() as isize));
            // The key may have been used again.
            if let Some(key) = first.key.filter(|key| self.by_key.get(key) == Some(&offset)) {
                self.by_key.remove(&key);
            }
        }
    }

    /// The offset of the first that is kept, or of the next one if none is.
    fn first(&self) -> u64 {
        self.last + 1 - self.kept.len() as u64
    }

    /// What somebody has missed. Where something is missing that is not remembered, all that is; where there is not enough room,
    /// the newest that have some.
    pub(crate) fn since(&self, since: &Since, room: Room) -> Missed<'_> {
        let first = self.first();
        let (is_all, from) = match &since.0 {
            Seen::All => (true, self.last + 1),
            Seen::Nothing => (true, first),
            Seen::UpTo(_) => match since.last_of(self.epoch) {
                Some(offset) if (first - 1..=self.last).contains(&offset) => (true, offset + 1),
                _ => (false, first),
            },
        };
        let wanted = self.kept.iter().skip((from - first) as usize).map(|kept| &kept.message);
        let mut bytes = 0;
        let fits = |message: &&Message| {
            bytes += message.len();
            bytes <= room.bytes
        };
        let mut messages: Vec<_> = wanted.clone().rev().take(room.messages).take_while(fits).collect();
        messages.reverse();
        let before = Position::new(self.epoch, self.last - messages.len() as u64);
        Missed { is_all: is_all && messages.len() == wanted.len(), before, messages }
    }

    fn change(&mut self, by: isize) {
        self.bytes = self.bytes.wrapping_add_signed(by);
        self.all_bytes.fetch_add(by as usize, Relaxed); // it wraps, too
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.all_bytes.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const SIZE: usize = 5;
    const AGE: Duration = Duration::from_secs(10);

    #[derive(Clone, Debug)]
    enum Step {
        /// Publishes so many bytes, with one of a few keys or none.
        Publish(usize, Option<u8>),
        Wait(u64),
        /// Comes back with the position that was the last one so many publications ago, or with one of the future; there is room for
        /// so many.
        ComeBack(i64, usize),
        Start,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            5 => (0..400_usize, prop::option::of(0..3_u8)).prop_map(|(size, key)| Step::Publish(size, key)),
            1 => (0..12_u64).prop_map(Step::Wait),
            3 => (-3..9_i64, 0..7_usize).prop_map(|(ago, room)| Step::ComeBack(ago, room)),
            1 => Just(Step::Start),
        ]
    }

    #[cfg(feature = "cluster")]
    #[test]
    fn what_is_forgotten_takes_nothing() {
        let all_bytes = Arc::new(AtomicUsize::new(0));
        let mut log = Log::new(10, all_bytes.clone());
        let append = |log: &mut Log| log.append(Message::from("x"), Some("key".into()), Instant::now());
        append(&mut log);
        let (position, empty) = (log.position(), LOG + 10);
        log.forget_all();
        assert_eq!((log.position(), log.find("key"), all_bytes.load(Relaxed)), (position, None, empty));
        append(&mut log);
        let last = Position::new(7, 41);
        log.restart(last);
        assert_eq!((log.position(), all_bytes.load(Relaxed)), (last, empty));
        append(&mut log);
        let room = Room { messages: 9, bytes: 9 };
        let missed = log.since(&last.into(), room);
        assert_eq!((missed.is_all, missed.before, missed.messages.len()), (true, last, 1));
        assert!(!log.since(&Position::new(7, 40).into(), room).is_all);
    }

    proptest! {
        /// Beside a model that forgets nothing, and looks up for each publication whether it may still be given.
        #[test]
        fn gives_what_was_missed_or_says_that_it_cannot(steps in prop::collection::vec(step(), 1..120)) {
            let all_bytes = Arc::new(AtomicUsize::new(0));
            let mut log = Log::new(10, all_bytes.clone());
            let (history, max_bytes) = (History::new(SIZE, AGE), 2000);
            let mut all: Vec<(Instant, String, Option<u8>)> = Vec::new();
            let mut now = Instant::now();
            for step in steps {
                log.trim(history, max_bytes, usize::MAX, now);
                // The newest that are not too many, not too old, and together not too large.
                let mut size = LOG + 10;
                let fits = |(at, text, key): &&(Instant, String, Option<u8>)| {
                    size += PUBLICATION + text.len() + key.map_or(0, |_| 65);
                    now - *at < AGE && size <= max_bytes
                };
                let kept: Vec<_> = all.iter().rev().take(SIZE).take_while(fits).collect();
                let last = all.len() as u64;
                let first = last + 1 - kept.len() as u64;
                let texts: Vec<_> = kept.iter().rev().map(|(_, text, _)| text.clone()).collect();
                let room = |messages| Room { messages, bytes: usize::MAX };
                let given = |since: Since, room: Room| {
                    let missed = log.since(&since, room);
                    let texts = missed.messages.iter().map(|m| m.as_text().unwrap().to_owned());
                    (missed.is_all, missed.before.offset(), texts.collect::<Vec<_>>())
                };
                match step {
                    Step::Publish(size, key) => {
                        let name = key.map(|key| Arc::<str>::from(key.to_string()));
                        let before = kept.iter().position(|(_, _, other)| key.is_some() && *other == key);
                        let before = before.map(|place| last - place as u64);
                        let found = name.as_ref().and_then(|name| log.find(name));
                        prop_assert_eq!(found.map(Position::offset), before);
                        if before.is_none() {
                            let text = format!("{last} {}", "x".repeat(size));
                            log.append(Message::from(&text), name, now);
                            all.push((now, text, key));
                        }
                    }
                    Step::Wait(seconds) => now += Duration::from_secs(seconds),
                    Step::ComeBack(ago, has_room) => {
                        let offset = last.saturating_add_signed(-ago);
                        let known = offset <= last && offset + 1 >= first;
                        let from = if known { offset + 1 } else { first };
                        let missed = &texts[(from - first) as usize..];
                        let expected = &missed[missed.len().saturating_sub(has_room)..];
                        let got = given(Position::new(log.position().epoch(), offset).into(), room(has_room));
                        let is_all = known && expected.len() == missed.len();
                        prop_assert_eq!(got, (is_all, last - expected.len() as u64, expected.to_vec()));
                        let bytes = texts.iter().rev().take(2).map(String::len).sum();
                        let tight = given(Since::NOTHING, Room { messages: SIZE, bytes });
                        prop_assert!(tight.2.ends_with(&texts[texts.len().saturating_sub(2)..]));
                        let stranger = Position::new(log.position().epoch() + 1, offset);
                        prop_assert_eq!(given(stranger.into(), room(SIZE)), (false, first - 1, texts.clone()));
                        prop_assert_eq!(given(Since::NOW, room(SIZE)), (true, last, Vec::new()));
                    }
                    Step::Start => prop_assert_eq!(given(Since::NOTHING, room(SIZE)), (true, first - 1, texts.clone())),
                }
                prop_assert_eq!(all_bytes.load(Relaxed), log.bytes);
                prop_assert!(log.by_key.len() <= log.kept.len());
            }
            drop(log);
            prop_assert_eq!(all_bytes.load(Relaxed), 0);
        }
    }
}

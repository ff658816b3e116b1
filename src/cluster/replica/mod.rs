//! A node's copy of what a topic remembers. It is loaded when the node begins to listen to the topic, and goes on with what is heard;
//! if anything may have been missed, it catches up, and delivers what it finds, so that all members everywhere get the same.
//!
//! Who changes it is one at a time: while it is current the thread that hears, else the one that loads. Meanwhile what is heard waits.

mod common;
mod state;
#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard},
    time::{Duration, Instant},
};

pub(super) use self::common::Common;
use self::state::{Expected, State, Step};
use super::publications::{Decoded, Fetched, Place, Publication};
use crate::{
    audience::{Audience, Recipients},
    deadline::Deadline,
    history::{History, Log, Position, Since},
    hub::{deliver, tell_gap},
    message::Message,
    registry::{Registry, numbered},
    sync::{LockExt, wait},
};

/// How often what has waited is taken, before others have their turn.
const DRAINS: usize = 100;

pub(super) struct Replica {
    pub(super) topic: Arc<str>,
    pub(super) history: History,
    common: Arc<Common>,
    /// Held while something is delivered. Whoever holds it may lock `state`, and nobody the other way round.
    copy: Mutex<Copied>,
    state: Mutex<State>,
    changed: Condvar,
}

struct Copied {
    log: Log,
    /// When the last one was published, as Redis says.
    millis: u64,
    /// It was current once. What comes before is not delivered to anybody.
    is_loaded: bool,
}

/// What is to be loaded.
#[derive(Clone, Copy, Debug)]
pub(super) struct ToLoad {
    round: u64,
    /// What there is already.
    pub(super) after: Option<Place>,
}

/// How a publication follows what there is.
#[derive(Debug, PartialEq, Eq)]
enum Follows {
    Next,
    /// It is there.
    Not,
    /// Something is between them.
    Later,
    /// It is of another epoch.
    Elsewhere,
}

impl Replica {
    pub(super) fn new(topic: &Arc<str>, history: History, common: &Arc<Common>) -> Self {
        let log = Log::new(topic.len(), common.bytes.clone());
        Self {
            topic: topic.clone(),
            history,
            common: common.clone(),
            copy: Mutex::new(Copied { log, millis: 0, is_loaded: false }),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn change_state(&self) -> MutexGuard<'_, State> {
        self.state.locked()
    }

    pub(super) fn is_current(&self) -> bool {
        self.state.locked().step == Step::Current
    }

    /// The node does not listen to the topic, and it was never current: there is nothing to it.
    pub(super) fn is_blank(&self) -> bool {
        let state = self.state.locked();
        state.step == Step::Unheard && !state.is_loaded
    }

    /// The node listens to the topic. True: it has to be loaded.
    pub(super) fn begin(&self) -> bool {
        self.change_state().fall_behind()
    }

    /// It does not any more.
    pub(super) fn end(&self) {
        let mut state = self.change_state();
        state.step = Step::Unheard;
        state.drop_waiting(&self.common);
        state.expect_no_more();
        self.tell(&state);
    }

    /// A publication was heard, by the thread that hears all. True: it has to be loaded.
    pub(super) fn hear(&self, registry: &Registry, publication: Publication) -> bool {
        let mut state = self.change_state();
        match state.step {
            Step::Unheard => return false,
            Step::Behind => {
                state.wait(publication, &self.common);
                return false;
            }
            Step::Current => drop(state),
        }
        let mut copied = self.copy.locked();
        match copied.follows(&publication.place) {
            Follows::Next => {}
            Follows::Not => return false,
            // The topic was forgotten, and goes on. Nothing was missed: all of it is heard.
            Follows::Elsewhere if publication.place.position.offset() == 1 => {
                copied.restart(Position::new(publication.place.position.epoch(), 0));
            }
            Follows::Later | Follows::Elsewhere => {
                drop(copied);
                return self.change_state().fall_behind();
            }
        }
        self.take(&mut copied, registry, publication, Instant::now());
        false
    }

    // For the thread that loads.

    /// What is to be loaded now, if it is behind.
    pub(super) fn to_load(&self) -> Option<ToLoad> {
        let copied = self.copy.locked();
        let mut state = self.change_state();
        state.is_queued = false;
        let place = Place { position: copied.log.position(), millis: copied.millis };
        let after = (copied.is_loaded || copied.millis > 0).then_some(place);
        (state.step == Step::Behind).then_some(ToLoad { round: state.round, after })
    }

    /// It could not be loaded. True: it is to be tried again.
    pub(super) fn requeue(&self) -> bool {
        let mut state = self.change_state();
        state.step == Step::Behind && !std::mem::replace(&mut state.is_queued, true)
    }

    /// Adds what was fetched, and delivers it, unless it is loaded for the first time.
    pub(super) fn load(&self, registry: &Registry, fetched: Fetched) {
        let Fetched { last, now, publications, has_more } = fetched;
        let mut copied = self.copy.locked();
        if last.position.epoch() != copied.log.position().epoch() {
            let first = publications.first().map(|first| first.place.position.offset());
            let before = first.map_or(last.position.offset(), |first| first.saturating_sub(1));
            self.skip(&mut copied, registry, Position::new(last.position.epoch(), before));
        }
        let instant = Instant::now();
        for publication in publications {
            let Place { position, millis } = publication.place;
            match copied.follows(&publication.place) {
                Follows::Not => continue,
                Follows::Next => {}
                Follows::Later | Follows::Elsewhere => {
                    let before = Position::new(position.epoch(), position.offset().saturating_sub(1));
                    self.skip(&mut copied, registry, before);
                }
            }
            let age = Duration::from_millis(now.saturating_sub(millis));
            self.take(&mut copied, registry, publication, instant.checked_sub(age).unwrap_or(instant));
        }
        if has_more {
            return;
        }
        if copied.log.position().offset() < last.position.offset() {
            self.skip(&mut copied, registry, last.position);
        }
        if copied.log.position() == last.position {
            copied.millis = last.millis;
        }
        copied.is_loaded = true;
        let mut state = self.change_state();
        state.is_loaded = true;
        state.reached = Some(copied.log.position());
        self.tell(&state);
    }

    /// After all was loaded: takes what has waited meanwhile. True: it is current, or is not wanted any more. Else more is to be loaded,
    /// after others.
    pub(super) fn catch_up(&self, registry: &Registry, loaded: ToLoad) -> bool {
        let mut is_whole = true;
        for _ in 0..DRAINS {
            let mut state = self.change_state();
            if state.step != Step::Behind {
                return true;
            }
            if state.round != loaded.round || std::mem::take(&mut state.has_dropped) || !is_whole {
                state.drop_waiting(&self.common);
                return false;
            }
            if state.waiting.is_empty() {
                state.step = Step::Current;
                self.tell(&state);
                return true;
            }
            let waiting = state.take_waiting(&self.common);
            drop(state);
            let mut copied = self.copy.locked();
            for publication in waiting {
                match copied.follows(&publication.place) {
                    Follows::Next => self.take(&mut copied, registry, publication, Instant::now()),
                    Follows::Not => {}
                    // It was published before, and is lost; or after, and is found.
                    Follows::Later | Follows::Elsewhere => is_whole = false,
                }
            }
        }
        false
    }

    /// Adds the next publication, and delivers it.
    fn take(&self, copied: &mut Copied, registry: &Registry, publication: Publication, at: Instant) {
        let Publication { place: Place { position, millis }, by, body } = publication;
        copied.millis = millis;
        let Some(decoded) = Decoded::of(&body) else {
            log::debug!("the cluster: a publication that this version does not know");
            return self.skip(copied, registry, position);
        };
        let Decoded { message, newest, except } = decoded;
        let numbered = numbered(&position.to_string(), &message).shared(registry.buffered());
        copied.log.append(numbered.clone(), None, at);
        self.trim(&mut copied.log);
        let mut reached = [0; 4];
        if copied.is_loaded {
            let to = Recipients { audience: Audience::Topic(&self.topic), except: except.as_ref() };
            let all = deliver(registry, to, message, newest.as_ref(), numbered);
            reached = [all.sent, all.queued, all.dropped, all.gone];
        }
        let mut state = self.change_state();
        state.reached = Some(position);
        if let Some((_, number)) = by.filter(|(from, _)| *from == self.common.me)
            && let Some(expected) = state.expected.get(&number)
        {
            expected.tell(reached);
        }
        self.tell(&state);
    }

    /// Goes on behind this position. Something before it is missing, which is said.
    fn skip(&self, copied: &mut Copied, registry: &Registry, before: Position) {
        copied.restart(before);
        if copied.is_loaded {
            log::info!(
                "the cluster: what was published to the topic {:?} before {before} may be missing",
                self.topic
            );
            tell_gap(registry, &self.topic, &numbered(&format!("{before} gap"), &Message::from("")));
        }
        let mut state = self.change_state();
        state.reached = Some(before);
        self.tell(&state);
    }

    fn trim(&self, log: &mut Log) {
        log.trim(self.history, self.common.max_log_bytes, self.common.max_bytes, Instant::now());
    }

    // For those who use it.

    /// Whether it goes on from what somebody has seen, be it current or not: what it does not have yet comes later.
    pub(super) fn serves(&self, since: &Since) -> bool {
        self.state.locked().serves(since)
    }

    /// Waits until it is current. False: the time is up, or Redis is out of reach.
    pub(super) fn wait(&self, deadline: Deadline, may_come: impl Fn() -> bool) -> bool {
        let mut state = self.state.locked();
        while state.step != Step::Current {
            let Some(left) = deadline.remaining().filter(|_| may_come()) else { return false };
            state = self.wait_once(state, left);
        }
        true
    }

    /// Waits until it [serves](Self::serves) somebody. False: the time is up.
    pub(super) fn wait_for(&self, since: &Since, deadline: Deadline) -> bool {
        let mut state = self.state.locked();
        while !state.serves(since) {
            let Some(left) = deadline.remaining() else { return false };
            state = self.wait_once(state, left);
        }
        true
    }

    fn wait_once<'a>(&self, mut state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
        state.waits += 1;
        state = wait(&self.changed, state, time);
        state.waits -= 1;
        state
    }

    /// Something has changed.
    fn tell(&self, state: &State) {
        if state.waits > 0 {
            self.changed.notify_all();
        }
    }

    /// Uses it, alone.
    pub(super) fn with_log(&self, use_log: impl FnOnce(&mut Log)) {
        let mut copied = self.copy.locked();
        self.trim(&mut copied.log);
        use_log(&mut copied.log);
    }

    /// Forgets all. False: it is in use.
    pub(super) fn forget(&self) -> bool {
        self.copy.try_locked().map(|mut copied| copied.log.forget_all()).is_some()
    }

    /// The delivery of a publication of this node is waited for.
    pub(super) fn expect(&self, number: u64) -> Delivery<'_> {
        let mut state = self.change_state();
        let expected = Arc::<Expected>::default();
        if state.step == Step::Unheard {
            expected.tell(Default::default());
        } else {
            state.expected.insert(number, expected.clone());
        }
        Delivery { replica: self, number, expected }
    }
}

/// What a publication of this node is here, as long as somebody waits for it.
pub(super) struct Delivery<'a> {
    replica: &'a Replica,
    number: u64,
    expected: Arc<Expected>,
}

impl Delivery<'_> {
    /// Whom it has reached: nobody, if it does not come here in time.
    pub(super) fn wait(&self, deadline: Deadline) -> [usize; 4] {
        let mut reached = self.expected.reached.locked();
        loop {
            match (*reached, deadline.remaining()) {
                (Some(reached), _) => return reached,
                (None, None) => return Default::default(),
                (None, Some(left)) => reached = wait(&self.expected.told, reached, left),
            }
        }
    }
}

impl Drop for Delivery<'_> {
    fn drop(&mut self) {
        self.replica.change_state().expected.remove(&self.number);
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.change_state().drop_waiting(&self.common);
    }
}

impl Copied {
    fn follows(&self, place: &Place) -> Follows {
        let last = self.log.position();
        let offset = place.position.offset();
        if place.position.epoch() != last.epoch() {
            Follows::Elsewhere
        } else if offset <= last.offset() {
            Follows::Not
        } else if offset == last.offset() + 1 {
            Follows::Next
        } else {
            Follows::Later
        }
    }

    fn restart(&mut self, last: Position) {
        self.log.restart(last);
    }
}

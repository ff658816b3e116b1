//! What this node listens to, beside its own channel and that of all: the topics and users that have connections here. Whoever
//! changes that only marks it; the thread that receives looks then what is wanted, so what comes and goes at once costs nothing.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    sync::{Condvar, Mutex},
    time::{Duration, Instant},
};

use crate::{
    deadline::Deadline,
    elsewhere::Share,
    sync::{LockExt, wait},
};

/// What nobody is in any more is listened to for so long at least: somebody may come back.
const LINGER: Duration = Duration::from_secs(2);

/// So many are marked at most; beyond that all are looked at.
const MOST_MARKED: usize = 50_000;

#[derive(Debug, Default)]
pub(super) struct Shares {
    state: Mutex<State>,
    /// Something is heard now, or nothing any more: some of all, so that not each wakes all who wait.
    changed: [Condvar; 32],
    hashing: RandomState,
}

#[derive(Debug, Default)]
struct State {
    /// There is a connection that receives.
    is_listening: bool,
    /// Redis was asked for these. False: it has not answered yet.
    asked: HashMap<Share, bool>,
    marked: HashSet<Share>,
    /// More were marked than there is room for.
    has_more: bool,
    /// Nobody was in these, when it was looked.
    leaving: HashMap<Share, Instant>,
}

/// What Redis is to be asked.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) subscribe: Vec<Share>,
    pub(super) unsubscribe: Vec<Share>,
    /// It was not asked for these, and nobody is in them.
    pub(super) unused: Vec<Share>,
}

impl Shares {
    /// Somebody has come, or the last one has left.
    pub(super) fn mark(&self, share: Share) {
        let mut state = self.state.locked();
        if !state.is_listening || state.has_more {
            return; // all are looked at when it does
        }
        if state.marked.len() < MOST_MARKED {
            state.marked.insert(share);
        } else {
            state.has_more = true;
        }
    }

    /// Whether it is heard, or nothing is.
    pub(super) fn is_settled(&self, share: &Share) -> bool {
        let state = self.state.locked();
        !state.is_listening || state.asked.get(share) == Some(&true)
    }

    /// Whether Redis was asked for it, and not yet asked to end it.
    pub(super) fn is_asked(&self, share: &Share) -> bool {
        self.state.locked().asked.contains_key(share)
    }

    /// Whether it is heard.
    pub(super) fn is_heard(&self, share: &Share) -> bool {
        self.state.locked().asked.get(share) == Some(&true)
    }

    /// Waits until it is heard, or nothing is. False: the time is up.
    pub(super) fn settle(&self, share: &Share, deadline: Deadline) -> bool {
        let mut state = self.state.locked();
        while state.is_listening && state.asked.get(share) != Some(&true) {
            let Some(left) = deadline.remaining() else { return false };
            state = wait(self.changed(share), state, left);
        }
        true
    }

    fn changed(&self, share: &Share) -> &Condvar {
        let hash = self.hashing.hash_one(share) as usize;
        &self.changed[hash % self.changed.len()]
    }

    // For the thread that receives.

    /// There is a connection, which is to be asked for all that is wanted: that is returned. What is marked from now on is not lost.
    pub(super) fn begin(&self, wanted: impl FnOnce() -> Vec<Share>) -> Vec<Share> {
        *self.state.locked() = State { is_listening: true, ..State::default() };
        // Without this lock: see below.
        let all = wanted();
        self.state.locked().asked.extend(all.iter().map(|share| (share.clone(), false)));
        all
    }

    /// There is none any more.
    pub(super) fn end(&self) {
        *self.state.locked() = State::default();
        self.changed.iter().for_each(Condvar::notify_all);
    }

    /// This one is heard now.
    pub(super) fn heard(&self, share: &Share) {
        let mut state = self.state.locked();
        if let Some(is_heard) = state.asked.get_mut(share) {
            *is_heard = true;
            self.changed(share).notify_all();
        }
    }

    /// Whether there is something to look at. What lingers is looked at every now and then: `looked` is when it was.
    pub(super) fn has_work(&self, looked: &mut Instant) -> bool {
        let state = self.state.locked();
        if !state.leaving.is_empty() && looked.elapsed() >= LINGER / 4 {
            *looked = Instant::now();
            return true;
        }
        !state.marked.is_empty() || state.has_more
    }

    /// What is to be changed, as far as it was marked. `all`: what is wanted, if more has changed than was marked.
    pub(super) fn change(
        &self,
        wanted: impl Fn(&Share) -> bool,
        all: impl FnOnce() -> Vec<Share>,
        now: Instant,
    ) -> Change {
        let mut state = self.state.locked();
        let mut marked = std::mem::take(&mut state.marked);
        let has_more = std::mem::take(&mut state.has_more);
        let over: Vec<_> = state
            .leaving
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(share, _)| share.clone())
            .collect();
        marked.extend(over.iter().cloned());
        if has_more {
            marked.extend(state.asked.keys().cloned());
        }
        // The registry is looked at without this lock: whoever changes it marks under its own.
        drop(state);
        if has_more {
            marked.extend(all());
        }
        let marked: Vec<_> = marked.into_iter().map(|share| (wanted(&share), share)).collect();
        let mut state = self.state.locked();
        let mut change = Change::default();
        for (is_wanted, share) in marked {
            match (is_wanted, state.asked.get(&share).copied()) {
                (true, Some(_)) => drop(state.leaving.remove(&share)),
                (true, None) => {
                    state.asked.insert(share.clone(), false);
                    change.subscribe.push(share);
                }
                // Who has come meanwhile may count on it being heard. What is not heard yet is kept until it is: that would be taken
                // for the answer to what is asked later.
                (false, Some(true))
                    if over.contains(&share) && !state.marked.contains(&share) && !state.has_more =>
                {
                    state.leaving.remove(&share);
                    state.asked.remove(&share);
                    change.unsubscribe.push(share);
                }
                (false, Some(_)) => drop(state.leaving.entry(share).or_insert(now + LINGER)),
                (false, None) => change.unused.push(share),
            }
        }
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(name: &str) -> Share {
        Share::Topic(name.into())
    }

    #[test]
    fn what_comes_is_asked_for_once_and_what_leaves_lingers() {
        let (shares, now) = (Shares::default(), Instant::now());
        shares.mark(share("before"));
        shares.begin(|| vec![share("old")]);
        assert!(!shares.is_settled(&share("old")));
        let look = |wanted: &[&str], after: Duration| {
            let is_wanted = |one: &Share| wanted.iter().any(|name| *one == share(name));
            shares.change(is_wanted, || panic!("few are marked"), now + after)
        };
        assert_eq!(look(&["old"], Duration::ZERO), Change::default());
        shares.heard(&share("old"));
        assert!(shares.settle(&share("old"), Deadline::after(Duration::ZERO)));
        for name in ["new", "new", "short"] {
            shares.mark(share(name));
        }
        let change = look(&["old", "new"], Duration::ZERO);
        assert_eq!(
            change,
            Change { subscribe: vec![share("new")], unused: vec![share("short")], ..Change::default() }
        );
        assert!(!shares.settle(&share("new"), Deadline::after(Duration::from_millis(1))));
        shares.heard(&share("new"));
        // It comes back while it lingers, and goes again.
        shares.mark(share("new"));
        assert_eq!(look(&["old"], Duration::ZERO), Change::default());
        shares.mark(share("new"));
        assert_eq!(look(&["old", "new"], LINGER), Change::default());
        shares.mark(share("new"));
        assert_eq!(look(&["old"], LINGER * 2), Change::default());
        assert_eq!(look(&["old"], LINGER * 2), Change::default());
        let change = look(&["old"], LINGER * 3);
        assert_eq!(change, Change { unsubscribe: vec![share("new")], ..Change::default() });
        shares.end();
        assert!(shares.is_settled(&share("new")), "nothing is heard");
    }

    #[test]
    fn what_is_not_heard_yet_is_not_given_up() {
        let (shares, now) = (Shares::default(), Instant::now());
        shares.begin(Vec::new);
        let look = |is_wanted: bool, after: Duration| {
            shares.mark(share("it"));
            shares.change(|_| is_wanted, || panic!("few are marked"), now + after)
        };
        assert_eq!(look(true, Duration::ZERO).subscribe, [share("it")]);
        assert_eq!(look(false, Duration::ZERO), Change::default());
        assert_eq!(shares.change(|_| false, Vec::new, now + LINGER), Change::default());
        shares.heard(&share("it"));
        assert_eq!(shares.change(|_| false, Vec::new, now + LINGER).unsubscribe, [share("it")]);
    }

    #[test]
    fn beyond_the_bound_all_are_looked_at() {
        let (shares, now) = (Shares::default(), Instant::now());
        shares.begin(Vec::new);
        for number in 0..MOST_MARKED + 10 {
            shares.mark(share(&number.to_string()));
        }
        assert!(shares.state.locked().marked.len() <= MOST_MARKED);
        let late = share(&(MOST_MARKED + 5).to_string());
        let change = shares.change(|one| *one == late, || vec![late.clone()], now);
        assert_eq!(change.subscribe, [late]);
    }
}

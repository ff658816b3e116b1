//! Whether threads go round their loops. They sleep as long as there is nothing to do; so whoever wants to know wakes them, and
//! waits until each has come by. A thread that nobody asks about reads two numbers at each turn, and does nothing else.

use std::{fmt, sync::Weak, time::Duration};

use crate::{
    deadline::Deadline,
    sync::{
        Arc, Condvar, LockExt, Mutex,
        atomic::{
            AtomicU32,
            Ordering::{Acquire, Relaxed, Release},
        },
        wait,
    },
};

/// A server whose threads do not all go on: what [`check_progress`](crate::ServerHandle::check_progress) reports. Its text says
/// which: `no progress within 5s: gateway 2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoProgress {
    patience: Duration,
    /// The names of the threads; none if the server does not run.
    of: Vec<String>,
}

impl NoProgress {
    pub(crate) fn new(patience: Duration, of: Vec<String>) -> Self {
        Self { patience, of }
    }
}

impl fmt::Display for NoProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.of[..] {
            [] => f.write_str("the server does not run"),
            all => write!(f, "no progress within {:?}: {}", self.patience, all.join(", ")),
        }
    }
}

impl std::error::Error for NoProgress {}

/// The threads of a server that have to go on.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    state: Mutex<State>,
    /// Somebody has come by, or the server begins to run.
    came: Condvar,
}

#[derive(Debug, Default)]
struct State {
    runs: bool,
    has_ended: bool,
    /// How often was asked so far.
    round: u32,
    beats: Vec<Arc<Beat>>,
}

/// What a thread and those who ask about it have in common.
pub(crate) struct Beat {
    name: String,
    wake: Box<dyn Fn() + Send + Sync>,
    pulse: Weak<Pulse>,
    asked: AtomicU32,
    /// The round in which the thread has come by; only the thread itself says so.
    seen: AtomicU32,
}

impl Beat {
    /// The thread comes by: once at each turn of its loop, after it has slept.
    pub(crate) fn come_by(&self) {
        let asked = self.asked.load(Acquire);
        if asked == self.seen.load(Relaxed) {
            return;
        }
        self.seen.store(asked, Release);
        if let Some(pulse) = self.pulse.upgrade() {
            drop(pulse.state.locked()); // whoever waits is either before its look at us, or is notified
            pulse.came.notify_all();
        }
    }

    fn has_come(&self, round: u32) -> bool {
        // Rounds wrap round, after years of asking without a pause.
        self.seen.load(Acquire).wrapping_sub(round) as i32 >= 0
    }
}

impl fmt::Debug for Beat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Beat({}, {:?} of {:?})", self.name, self.seen, self.asked)
    }
}

/// A thread that has to go on as long as this is not dropped: not by the thread itself, whose panic would look like an end.
#[derive(Debug)]
pub(crate) struct Beating(Arc<Beat>);

impl Beating {
    /// For the thread.
    pub(crate) fn beat(&self) -> Arc<Beat> {
        self.0.clone()
    }
}

impl Drop for Beating {
    fn drop(&mut self) {
        if let Some(pulse) = self.0.pulse.upgrade() {
            pulse.state.locked().beats.retain(|beat| !Arc::ptr_eq(beat, &self.0));
            pulse.came.notify_all();
        }
    }
}

/// The server runs as long as this is not dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Running<'a>(&'a Pulse);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.locked();
        (state.runs, state.has_ended) = (false, true);
        drop(state);
        self.0.came.notify_all();
    }
}

/// The round that somebody waits for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round(u32);

impl Pulse {
    /// One more thread has to go on. `wake` wakes it from its sleep, and waits for nothing.
    pub(crate) fn add(self: &Arc<Self>, name: String, wake: impl Fn() + Send + Sync + 'static) -> Beating {
        let mut state = self.state.locked();
        let (asked, seen) = (AtomicU32::new(state.round), AtomicU32::new(state.round));
        let beat = Arc::new(Beat { name, wake: Box::new(wake), pulse: Arc::downgrade(self), asked, seen });
        state.beats.push(beat.clone());
        Beating(beat)
    }

    /// All threads are started.
    pub(crate) fn begin(&self) -> Running<'_> {
        self.state.locked().runs = true;
        self.came.notify_all();
        Running(self)
    }

    /// Asks all threads to come by.
    pub(crate) fn ask(&self) -> Round {
        let mut state = self.state.locked();
        state.round = state.round.wrapping_add(1);
        let round = state.round;
        state.beats.iter().for_each(|beat| beat.asked.store(round, Release));
        let beats = state.beats.clone();
        drop(state);
        beats.iter().for_each(|beat| (beat.wake)());
        Round(round)
    }

    /// Waits until all have come by; those that end meanwhile need not.
    ///
    /// # Errors
    /// The names of those that have not; none if the server does not run.
    pub(crate) fn wait(&self, Round(round): Round, deadline: Deadline) -> Result<(), Vec<String>> {
        let mut state = self.state.locked();
        loop {
            if state.runs && state.beats.iter().all(|beat| beat.has_come(round)) {
                return Ok(());
            }
            let Some(left) = deadline.remaining().filter(|_| !state.has_ended) else { break };
            state = wait(&self.came, state, left);
        }
        let late = state.beats.iter().filter(|beat| state.runs && !beat.has_come(round));
        Err(late.map(|beat| beat.name.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Instant};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(20);

    fn check(pulse: &Pulse, patience: Duration) -> Result<(), Vec<String>> {
        pulse.wait(pulse.ask(), Deadline::after(patience))
    }

    #[test]
    fn those_are_named_that_do_not_come_by() {
        let pulse = Arc::new(Pulse::default());
        assert_eq!(check(&pulse, SHORT), Err(vec![]), "it does not run");
        let (woken, wakes) = mpsc::channel();
        let end = woken.clone();
        let one = pulse.add("one".into(), move || woken.send(true).unwrap());
        let other = pulse.add("other".into(), || {});
        let running = pulse.begin();
        let beat = one.beat();
        let thread = thread::spawn(move || {
            wakes.iter().take_while(|goes_on| *goes_on).for_each(|_| beat.come_by());
        });
        let begun = Instant::now();
        // The thread may not have started, or be late.
        while check(&pulse, SHORT) != Err(vec!["other".into()]) {
            assert!(begun.elapsed() < PATIENCE);
        }
        assert_eq!(check(&pulse, Duration::ZERO).unwrap_err().last(), Some(&"other".into()));
        let round = pulse.ask();
        other.beat().come_by();
        assert_eq!(pulse.wait(round, Deadline::after(PATIENCE)), Ok(()));
        drop(other);
        (0..1000).for_each(|_| assert_eq!(check(&pulse, PATIENCE), Ok(())));
        drop(running);
        assert_eq!(check(&pulse, Duration::MAX), Err(vec![]), "it has ended");
        end.send(false).unwrap();
        thread.join().unwrap();
    }

    #[test]
    fn others_who_ask_delay_nobody() {
        let pulse = Arc::new(Pulse::default());
        let only = pulse.add("only".into(), || {});
        let _running = pulse.begin();
        let first = pulse.ask();
        only.beat().come_by();
        pulse.ask();
        assert_eq!(pulse.wait(first, Deadline::after(Duration::ZERO)), Ok(()), "it has come since");
    }
}

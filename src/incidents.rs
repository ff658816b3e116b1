//! What clients bring about that an operator may want to know: it is counted, and summed up in one line a minute.
//!
//! A line for each would let any stranger fill the log. So each has one at the level `debug` only, and the first of its kind
//! in a minute is quoted in the summary. Whoever notes the first one wakes the thread that called `run`, which sums up; while
//! there is nothing to sum up, that costs nothing.

use std::{
    collections::BTreeMap,
    fmt::{self, Write},
    sync::{
        Mutex,
        atomic::{
            AtomicBool, AtomicU32,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::{Duration, Instant},
};

use http::StatusCode;
use log::Level;

use crate::{
    error::{CloseReason, ClosedBy},
    message::CloseCode,
    shown::Shown,
    sync::LockExt,
};

/// From the first incident to the line that sums up.
const INTERVAL: Duration = Duration::from_secs(60);

/// So many failures of handlers in this time have a line of their own: their texts are the program's, and differ.
const FAILURES: u32 = 10;

/// So many incidents are quoted in a line at most.
const QUOTED: usize = 4;

/// Incidents are counted by kind: by itself, by HTTP status, or by close code.
const PLAIN: usize = 6;
const STATUSES: usize = 500;
const CODES: usize = 16;

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Incident {
    /// A client left, was too slow, or broke TLS before it had sent a request.
    NoRequest,
    /// A request was refused, with this status.
    Refused(StatusCode),
    /// A client was turned away because of `max_connections`.
    NoPlace,
    /// A client was turned away because of `max_connections_per_address`.
    NoPlaceForAddress,
    /// A client was turned away because no memory or thread was left.
    NoRoom,
    /// This side ended a connection, with this code; 1006: it was cut.
    Ended(CloseCode),
    /// A connection was ended because of `max_buffered_bytes`.
    OutOfMemory,
    /// A handler failed, or panicked.
    Failed,
}

impl Incident {
    /// What this end of a connection is. `None`: an ordinary one.
    fn of_end(reason: &CloseReason) -> Option<Self> {
        let code = reason.code();
        let is_own = reason.by() == ClosedBy::Server && (1002..1000 + CODES as u16).contains(&code.0);
        is_own.then_some(Self::Ended(code))
    }

    /// Its place among the counts.
    fn kind(self) -> usize {
        let among = |n: u16, first: u16, of: usize| usize::from(n.saturating_sub(first)).min(of - 1);
        match self {
            Self::NoRequest => 0,
            Self::NoPlace => 1,
            Self::NoPlaceForAddress => 2,
            Self::OutOfMemory => 3,
            Self::Failed => 4,
            Self::NoRoom => 5,
            Self::Refused(status) => PLAIN + among(status.as_u16(), 100, STATUSES),
            Self::Ended(code) => PLAIN + STATUSES + among(code.0, 1000, CODES),
        }
    }

    /// The reverse.
    #[cfg(feature = "manage")]
    fn of_kind(kind: usize) -> Option<Self> {
        const PLAIN_ONES: [Incident; PLAIN] = [
            Incident::NoRequest,
            Incident::NoPlace,
            Incident::NoPlaceForAddress,
            Incident::OutOfMemory,
            Incident::Failed,
            Incident::NoRoom,
        ];
        let number = |offset: usize| u16::try_from(kind - offset).ok();
        match kind {
            0..PLAIN => PLAIN_ONES.get(kind).copied(),
            kind if kind < PLAIN + STATUSES => {
                StatusCode::from_u16(number(PLAIN)? + 100).ok().map(Self::Refused)
            }
            _ => Some(Self::Ended(CloseCode(number(PLAIN + STATUSES)? + 1000))),
        }
    }
}

/// What happened `n` times: the reverse of [`Incident::kind`].
fn write_kind(kind: usize, n: u32, out: &mut impl Write) -> fmt::Result {
    match kind {
        0 => write!(out, "{n} came to no request"),
        1 => write!(out, "{n} turned away by max_connections"),
        2 => write!(out, "{n} turned away by max_connections_per_address"),
        3 => write!(out, "{n} ended by max_buffered_bytes"),
        4 => write!(out, "{n} failures of handlers"),
        5 => write!(out, "{n} turned away for want of memory or threads"),
        status if status < PLAIN + STATUSES => write!(out, "{n} refused with {}", status - PLAIN + 100),
        code => match code - PLAIN - STATUSES + 1000 {
            1006 => write!(out, "{n} cut"),
            code => write!(out, "{n} closed with {code}"),
        },
    }
}

/// All incidents of a server since they were last summed up.
pub(crate) struct Incidents {
    counts: [AtomicU32; PLAIN + STATUSES + CODES],
    /// Those that were summed up, by kind.
    past: Mutex<BTreeMap<usize, u64>>,
    /// The first ones of some kinds, by kind.
    quotes: Mutex<Vec<(usize, String)>>,
    /// There may be something to sum up.
    is_pending: AtomicBool,
    /// When that is to be done; set by the thread that does.
    due: Mutex<Option<Instant>>,
    /// Wakes that thread.
    wake: Box<dyn Fn() + Send + Sync>,
}

impl Incidents {
    pub(crate) fn new(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self {
            counts: [const { AtomicU32::new(0) }; _],
            past: Mutex::default(),
            quotes: Mutex::default(),
            is_pending: AtomicBool::new(false),
            due: Mutex::default(),
            wake: Box::new(wake),
        }
    }

    /// Counts an incident. What a client has sent is in `text` only as [`Shown`].
    pub(crate) fn note(&self, incident: Incident, text: fmt::Arguments<'_>) {
        log::debug!("{text}");
        self.add(incident, text);
    }

    /// A connection has ended; most do so in an ordinary way.
    pub(crate) fn ended(&self, id: &str, reason: &CloseReason) {
        match Incident::of_end(reason) {
            Some(incident) => self.note(incident, format_args!("{id}: closed: {}", Shown(reason))),
            None => log::debug!("{id}: closed: {}", Shown(reason)),
        }
    }

    /// Counts a failure of a handler: code that is not ours, but what a client sends may be its cause.
    pub(crate) fn failed(&self, text: fmt::Arguments<'_>) {
        let before = self.add(Incident::Failed, text);
        log::log!(if before < FAILURES { Level::Error } else { Level::Debug }, "{text}");
    }

    /// How many of its kind were there before.
    fn add(&self, incident: Incident, text: fmt::Arguments<'_>) -> u32 {
        let kind = incident.kind();
        let Some(count) = self.counts.get(kind) else { return 0 };
        let before = count.fetch_add(1, SeqCst);
        if before == 0 {
            self.quote(kind, text);
        }
        // After it was counted, or it might be left for the next one to be summed up with.
        if !self.is_pending.load(SeqCst) && !self.is_pending.swap(true, SeqCst) {
            (self.wake)();
        }
        before
    }

    #[inline(never)]
    fn quote(&self, kind: usize, text: fmt::Arguments<'_>) {
        if !log::log_enabled!(Level::Warn) || self.quotes.locked().len() >= QUOTED {
            return;
        }
        let text = text.to_string(); // without the lock: an error of the program's may format itself as it likes
        let mut quotes = self.quotes.locked();
        if quotes.len() < QUOTED {
            quotes.push((kind, text));
        }
    }

    /// Sums up if it is time to. Returns how long that is still to come; `None` if there is nothing to sum up.
    pub(crate) fn sum_up_if_due(&self, now: Instant) -> Option<Duration> {
        if !self.is_pending.load(SeqCst) {
            return None;
        }
        let mut due = self.due.locked();
        let left = due.get_or_insert(now + INTERVAL).saturating_duration_since(now);
        if !left.is_zero() {
            return Some(left);
        }
        *due = None;
        drop(due);
        self.sum_up();
        None
    }

    /// Writes the line, if there is something to write.
    pub(crate) fn sum_up(&self) {
        if let Some((level, line)) = self.take() {
            log::log!(level, "{line}");
        }
    }

    /// How often everything has happened since the server was made, in the order of the kinds; what never has is left out.
    #[cfg(feature = "manage")]
    pub(crate) fn totals(&self) -> Vec<(Incident, u64)> {
        let past = self.past.locked(); // so nothing is summed up meanwhile
        let total = |(kind, count): (usize, &AtomicU32)| {
            let n = u64::from(count.load(SeqCst)) + past.get(&kind).copied().unwrap_or_default();
            Some((Incident::of_kind(kind)?, n)).filter(|(_, n)| *n > 0)
        };
        self.counts.iter().enumerate().filter_map(total).collect()
    }

    fn take(&self) -> Option<(Level, String)> {
        self.is_pending.store(false, SeqCst); // before the counts: what comes meanwhile is for the next line, at the latest
        let mut quotes = std::mem::take(&mut *self.quotes.locked());
        let mut past = self.past.locked();
        let mut line = String::new();
        let mut level = Level::Info;
        for (kind, count) in self.counts.iter().enumerate() {
            let n = if count.load(Relaxed) > 0 { count.swap(0, SeqCst) } else { 0 };
            if n == 0 {
                continue;
            }
            *past.entry(kind).or_default() += u64::from(n);
            line.push_str(if line.is_empty() { "in the last minute, of the clients: " } else { "; " });
            let _ = write_kind(kind, n, &mut line); // a string takes everything
            if let Some(place) = quotes.iter().position(|(of, _)| *of == kind) {
                let _ = write!(line, " (the first: {})", quotes.swap_remove(place).1);
            }
            if (1..PLAIN).contains(&kind) {
                level = Level::Warn; // the operator can do something about it
            }
        }
        (!line.is_empty()).then_some((level, line))
    }
}

impl fmt::Debug for Incidents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Incidents")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, atomic::AtomicUsize};

    use super::*;

    /// Some incidents, and how often somebody was woken for them.
    fn incidents() -> (Incidents, Arc<AtomicUsize>) {
        let woken = Arc::new(AtomicUsize::new(0));
        let count = woken.clone();
        let wake = move || {
            count.fetch_add(1, SeqCst);
        };
        (Incidents::new(wake), woken)
    }

    fn end(code: u16, by: ClosedBy) -> Option<Incident> {
        Incident::of_end(&CloseReason::new(CloseCode(code), "", by))
    }

    #[test]
    fn each_kind_is_counted_and_the_sum_is_one_line() {
        let (all, _) = incidents();
        let ended = |code| Incident::Ended(CloseCode(code));
        for n in 1..=3 {
            all.note(Incident::Refused(StatusCode::FORBIDDEN), format_args!("client {n}"));
        }
        all.note(Incident::Refused(StatusCode::NOT_FOUND), format_args!("x"));
        for incident in [Incident::NoRequest, ended(1013), ended(1006), ended(1013)] {
            all.note(incident, format_args!("y"));
        }
        let (level, line) = all.take().unwrap();
        let start = "in the last minute, of the clients: 1 came to no request; 3 refused with 403; 1 refused with 404; ";
        let without_quotes = line.replace(" (the first: client 1)", "").replace(" (the first: x)", "");
        let without_quotes = without_quotes.replace(" (the first: y)", "");
        assert_eq!(without_quotes, format!("{start}1 cut; 2 closed with 1013"), "{line}");
        assert_eq!(level, Level::Info);
        assert_eq!(all.take(), None, "it is summed up once");
        for warned in
            [Incident::NoPlace, Incident::NoPlaceForAddress, Incident::OutOfMemory, Incident::Failed]
        {
            all.note(warned, format_args!(""));
            assert_eq!(all.take().unwrap().0, Level::Warn);
        }
    }

    #[test]
    fn whatever_the_number_it_is_counted() {
        let (all, _) = incidents();
        for status in 100..1000 {
            all.note(Incident::Refused(StatusCode::from_u16(status).unwrap()), format_args!(""));
        }
        for code in 0..=u16::MAX {
            all.note(Incident::Ended(CloseCode(code)), format_args!(""));
        }
        let line = all.take().unwrap().1;
        assert!(line.contains("; 401 refused with 599;") && line.contains("; 1 refused with 302;"), "{line}");
    }

    #[cfg(feature = "manage")]
    #[test]
    fn what_was_summed_up_still_counts_for_the_total() {
        let (all, _) = incidents();
        let refused = Incident::Refused(StatusCode::FORBIDDEN);
        let kinds = [Incident::NoRequest, Incident::Failed, refused, Incident::Ended(CloseCode::TRY_AGAIN)];
        for n in 1..=3 {
            kinds.iter().for_each(|kind| all.note(*kind, format_args!("")));
            let totals = all.totals();
            assert_eq!(totals, kinds.map(|kind| (kind, n)));
            assert!(all.take().is_some());
            assert_eq!(all.totals(), totals);
        }
        for kind in 0..all.counts.len() {
            assert_eq!(Incident::of_kind(kind).unwrap().kind(), kind);
        }
    }

    #[test]
    fn only_what_this_side_ended_for_a_cause_is_an_incident() {
        for ordinary in [1000, 1001, 3000, 4999] {
            assert_eq!(end(ordinary, ClosedBy::Server), None);
        }
        for code in [1002, 1006, 1007, 1008, 1009, 1011, 1013] {
            assert_eq!(end(code, ClosedBy::Server), Some(Incident::Ended(CloseCode(code))));
            assert_eq!(end(code, ClosedBy::Client), None);
            assert_eq!(end(code, ClosedBy::Network), None);
        }
    }

    #[test]
    fn the_first_one_wakes_and_the_line_comes_a_minute_later() {
        let (all, woken) = incidents();
        let start = Instant::now();
        let woken = || woken.load(SeqCst);
        assert_eq!(all.sum_up_if_due(start), None);
        all.note(Incident::NoPlace, format_args!(""));
        all.note(Incident::NoRequest, format_args!(""));
        assert_eq!(woken(), 1);
        assert_eq!(all.sum_up_if_due(start), Some(INTERVAL));
        assert_eq!(all.sum_up_if_due(start + INTERVAL / 2), Some(INTERVAL / 2));
        all.note(Incident::NoPlace, format_args!(""));
        assert_eq!(all.sum_up_if_due(start + INTERVAL), None);
        assert_eq!(all.take(), None, "it was summed up");
        all.note(Incident::NoPlace, format_args!(""));
        assert_eq!((woken(), all.sum_up_if_due(start + 2 * INTERVAL)), (2, Some(INTERVAL)), "and so on");
    }
}

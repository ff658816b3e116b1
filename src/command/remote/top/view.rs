//! What of the connections is looked at: in which order, from where on, and only those with a text.

use std::cmp::Ordering;

use super::{
    keys::Key,
    rounds::{Rates, Round, Row},
};

/// The longest text that is looked for.
const LONGEST: usize = 100;

pub(super) struct View {
    /// Which server it is.
    pub(super) name: String,
    pub(super) round: Option<Round>,
    /// Why there is no newer round.
    pub(super) missed: Option<String>,
    /// Those that are looked at, in their order.
    pub(super) order: Vec<usize>,
    pub(super) sorted: Sorted,
    /// By what they can be, in the order of the columns that are shown.
    pub(super) sortable: Vec<Sorted>,
    pub(super) is_reversed: bool,
    /// The first that is shown.
    pub(super) first: usize,
    /// How many are shown at once.
    pub(super) height: usize,
    pub(super) filter: String,
    /// The text is being typed.
    pub(super) is_typing: bool,
}

/// By what they are sorted, the greatest first; names are from A to Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sorted {
    User,
    Path,
    In,
    Out,
    BytesIn,
    BytesOut,
    Queue,
    RoundTrip,
    Idle,
    Age,
}

/// Whether that was all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Done {
    Yes,
    No,
}

impl View {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            round: None,
            missed: None,
            order: Vec::new(),
            sorted: Sorted::Out,
            sortable: Vec::new(),
            is_reversed: false,
            first: 0,
            height: 0,
            filter: String::new(),
            is_typing: false,
        }
    }

    /// Shows a newer round.
    pub(super) fn show(&mut self, mut round: Round) {
        self.missed = round.missing.take();
        self.round = Some(round);
        self.arrange();
    }

    /// There is none, for this reason.
    pub(super) fn miss(&mut self, text: String) {
        self.missed = Some(text);
    }

    pub(super) fn press(&mut self, key: Key) -> Done {
        if self.is_typing {
            self.type_filter(key);
            return Done::No;
        }
        let last = self.order.len().saturating_sub(self.height);
        match key {
            Key::Quit | Key::Character('q' | 'Q') => return Done::Yes,
            Key::Character('s' | '>') => self.sort_by_next(true),
            Key::Character('S' | '<') => self.sort_by_next(false),
            Key::Character('r' | 'R') => {
                self.is_reversed = !self.is_reversed;
                self.arrange();
            }
            Key::Character('/') => self.is_typing = true,
            Key::Escape => {
                self.filter.clear();
                self.arrange();
            }
            Key::Down | Key::Character('j') => self.first = (self.first + 1).min(last),
            Key::Up | Key::Character('k') => self.first = self.first.saturating_sub(1),
            Key::PageDown | Key::Character(' ') => self.first = (self.first + self.height).min(last),
            Key::PageUp | Key::Character('b') => self.first = self.first.saturating_sub(self.height),
            Key::Home | Key::Character('g') => self.first = 0,
            Key::End | Key::Character('G') => self.first = last,
            _ => {}
        }
        Done::No
    }

    fn type_filter(&mut self, key: Key) {
        match key {
            Key::Enter | Key::Quit => self.is_typing = false,
            Key::Escape => {
                self.is_typing = false;
                self.filter.clear();
            }
            Key::Erase => drop(self.filter.pop()),
            Key::Clear => self.filter.clear(),
            Key::Character(c) if self.filter.len() < LONGEST => self.filter.push(c),
            _ => {}
        }
        self.first = 0;
        self.arrange();
    }

    /// Or by the one before.
    fn sort_by_next(&mut self, is_forward: bool) {
        let at = self.sortable.iter().position(|sorted| *sorted == self.sorted).unwrap_or_default();
        let count = self.sortable.len();
        let next = if is_forward { at + 1 } else { at + count.saturating_sub(1) };
        let Some(sorted) = self.sortable.get(next.checked_rem(count).unwrap_or_default()) else { return };
        self.sorted = *sorted;
        self.is_reversed = false;
        self.first = 0;
        self.arrange();
    }

    /// Those that are meant, in their order; those that are equal in that of their IDs, so that they stay where they are.
    fn arrange(&mut self) {
        let Some(round) = &self.round else { return };
        let text = self.filter.to_lowercase();
        let rows = &round.rows;
        self.order = (0..rows.len()).filter(|&at| has(&rows[at], &text)).collect();
        let (sorted, is_reversed) = (self.sorted, self.is_reversed);
        self.order.sort_by(|&a, &b| {
            let order = sorted.compare(&rows[a], &rows[b]);
            if is_reversed { order.reverse() } else { order }
        });
        self.first = self.first.min(self.order.len().saturating_sub(self.height));
    }
}

/// Whether it has a text, which is in small letters, anywhere.
fn has(row: &Row, text: &str) -> bool {
    let info = &row.info;
    let is_in = |value: &str| value.to_lowercase().contains(text);
    text.is_empty()
        || is_in(info.id.as_str())
        || is_in(&info.path)
        || info.user.as_deref().is_some_and(is_in)
        || info.client_address.is_some_and(|address| is_in(&address.to_string()))
        || info.user_agent.as_deref().is_some_and(is_in)
}

impl Sorted {
    fn compare(self, a: &Row, b: &Row) -> Ordering {
        let rate = |of: fn(&Rates) -> f64| {
            let [a, b] = [a, b].map(|row| row.rates.as_ref().map_or(-1.0, of));
            b.total_cmp(&a)
        };
        match self {
            Self::User => match (&a.info.user, &b.info.user) {
                (Some(a), Some(b)) => a.cmp(b),
                (a, b) => b.is_some().cmp(&a.is_some()), // those that have none come last
            },
            Self::Path => a.info.path.cmp(&b.info.path),
            Self::In => rate(|rates| rates.messages_in),
            Self::Out => rate(|rates| rates.messages_out),
            Self::BytesIn => rate(|rates| rates.bytes_in),
            Self::BytesOut => rate(|rates| rates.bytes_out),
            Self::Queue => b.info.queued.cmp(&a.info.queued),
            Self::RoundTrip => b.info.round_trip.cmp(&a.info.round_trip),
            Self::Idle => b.info.idle.cmp(&a.info.idle),
            Self::Age => b.info.age.cmp(&a.info.age),
        }
    }
}

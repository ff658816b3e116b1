//! What goes to Redis, over one connection and in order. Whoever has something to send sends, together with it, what others have
//! queued meanwhile, and waits for the answers to all of it; so one thread alone pays nothing for others, and many share a round trip.
//! What many of them tell the same node goes as one message, too. No thread of its own is needed, but for what must not wait, which the
//! keeper sends.
//!
//! After a failure nothing that was queued is sent any more: what is unanswered is unknown, and what comes later comes by another
//! connection, which has the next number.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use ::redis::{Cmd, Connection, Value, cmd};
use crossbeam_channel::Sender;

use super::{pace::AGAIN, rights};
use crate::{
    deadline::Deadline,
    error::{Error, OverLimit, Result},
    redis::Failure,
    sync::{LockExt, wait},
};

/// What may wait to be sent, in bytes. One alone may have more.
const MAX_QUEUED: usize = 32 << 20;

/// There is so much more room for what must not be lost, and is small.
const RESERVE: usize = 8 << 20;

/// What goes together at most: so many commands, and so many bytes, if it is more than one.
const TOGETHER: usize = 512;
const BYTES_TOGETHER: usize = 1 << 20;

pub(super) struct Bus {
    answer_timeout: Duration,
    state: Mutex<State>,
    /// There is room in the queue.
    room: Condvar,
    /// Wakes the keeper.
    keeper: Sender<()>,
    /// The commands that Redis does not let its user do, and when it was said.
    forbidden: Mutex<HashMap<String, Instant>>,
}

#[derive(Default)]
struct State {
    /// `None` while somebody sends, too.
    connection: Option<Connection>,
    /// There is one, even if somebody else has it now.
    is_up: bool,
    /// The number of the connection.
    way: u32,
    queue: VecDeque<Item>,
    bytes: usize,
    /// Somebody sends.
    is_led: bool,
    /// So many wait for room.
    waiting: usize,
    is_closed: bool,
}

/// What is to be sent, and who waits for the answer.
struct Item {
    what: What,
    ticket: Option<Arc<Ticket>>,
}

/// What is to be sent.
pub(super) enum What {
    Command(Vec<u8>),
    Publish {
        channel: String,
        message: Vec<u8>,
        /// Where its head ends, if what follows that may also follow what another message with the same head brings.
        joins_at: Option<usize>,
    },
}

impl What {
    pub(super) fn of(command: &Cmd) -> Self {
        Self::Command(command.get_packed_command())
    }

    fn len(&self) -> usize {
        match self {
            Self::Command(command) => command.len(),
            Self::Publish { channel, message, .. } => channel.len() + message.len(),
        }
    }

    /// Takes what another one brings. False: it goes by itself.
    fn join(&mut self, other: &Self) -> bool {
        let Self::Publish { channel, message, joins_at: Some(at) } = self else { return false };
        match other {
            Self::Publish { channel: to, message: more, joins_at: Some(from) }
                if to == channel && more[..*from] == message[..*at] =>
            {
                message.extend_from_slice(&more[*from..]);
                true
            }
            _ => false,
        }
    }

    fn into_command(self) -> Vec<u8> {
        match self {
            Self::Command(command) => command,
            Self::Publish { channel, message, .. } => {
                cmd("PUBLISH").arg(channel).arg(message).get_packed_command()
            }
        }
    }
}

/// What goes as one, and all who wait for the answer.
struct Joined {
    what: What,
    tickets: Vec<Arc<Ticket>>,
}

#[derive(Debug, Default)]
struct Ticket {
    step: Mutex<Step>,
    told: Condvar,
}

#[derive(Debug, Default)]
enum Step {
    #[default]
    Waits,
    /// It is its turn to send.
    Leads,
    Answered(Answered),
    Taken,
}

/// What Redis has answered.
pub(super) type Answered = std::result::Result<Value, Failed>;

/// Why there is no answer.
#[derive(Clone, Debug)]
pub(super) enum Failed {
    /// Redis was not reached, or not in time.
    Unreachable,
    /// It has answered that it does not do this.
    Refused(Arc<::redis::RedisError>),
    /// There is too much.
    OverLimit,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable => f.write_str("no answer"),
            Self::Refused(error) => Failure::from(&**error).fmt(f),
            Self::OverLimit => f.write_str("too much"),
        }
    }
}

impl From<Failed> for Error {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Unreachable | Failed::Refused(_) => Self::Unreachable,
            Failed::OverLimit => OverLimit::Calls.into(),
        }
    }
}

impl Ticket {
    fn tell(&self, step: Step) {
        *self.step.locked() = step;
        self.told.notify_one();
    }

    /// Waits until it is answered, or has to lead. `None`: the time is up.
    fn wait(&self, deadline: Deadline) -> Option<Step> {
        let mut step = self.step.locked();
        loop {
            match std::mem::replace(&mut *step, Step::Taken) {
                Step::Waits => *step = Step::Waits,
                other => return Some(other),
            }
            step = wait(&self.told, step, deadline.remaining()?);
        }
    }

    fn take(&self) -> Step {
        std::mem::replace(&mut *self.step.locked(), Step::Taken)
    }
}

impl Bus {
    pub(super) fn new(answer_timeout: Duration, keeper: Sender<()>) -> Self {
        Self {
            answer_timeout,
            state: Mutex::default(),
            room: Condvar::new(),
            keeper,
            forbidden: Mutex::default(),
        }
    }

    /// When what is sent now has to be answered.
    pub(super) fn deadline(&self) -> Deadline {
        Deadline::after(self.answer_timeout)
    }

    /// The number of the connection that there is.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn way(&self) -> Result<u32, Failed> {
        let state = self.state.locked();
        if state.is_up { Ok(state.way) } else { Err(Failed::Unreachable) }
    }

    /// Sends a command by this connection, and waits for the answer.
    ///
    /// # Errors
    /// If there is none in time, it may have been done.
    pub(super) fn call(&self, way: u32, what: What, deadline: Deadline) -> Answered {
        let ticket = Arc::new(Ticket::default());
        let mut state = self.state.locked();
        while state.is_up && state.way == way && state.is_full(what.len(), MAX_QUEUED) {
            let left = deadline.remaining().ok_or(Failed::Unreachable)?;
            state.waiting += 1;
            state = wait(&self.room, state, left);
            state.waiting -= 1;
        }
        state.put(way, Item { what, ticket: Some(ticket.clone()) })?;
        if !state.is_led {
            state.is_led = true;
            drop(state);
            return self.lead(&ticket, deadline);
        }
        drop(state);
        match ticket.wait(deadline) {
            Some(Step::Leads) => self.lead(&ticket, deadline),
            Some(Step::Answered(answered)) => answered,
            _ => self.give_up(&ticket),
        }
    }

    /// Queues something that nobody waits for, if there is room.
    ///
    /// # Errors
    /// It is not sent.
    pub(super) fn tell(&self, way: u32, what: What) -> Result<(), Failed> {
        self.queue(way, what, MAX_QUEUED)
    }

    /// The same, and there is room longer: for what is small, and must not be lost.
    ///
    /// # Errors
    /// It is not sent.
    pub(super) fn tell_surely(&self, way: u32, what: What) -> Result<(), Failed> {
        self.queue(way, what, MAX_QUEUED + RESERVE)
    }

    fn queue(&self, way: u32, what: What, most: usize) -> Result<(), Failed> {
        let mut state = self.state.locked();
        if state.is_full(what.len(), most) {
            return Err(Failed::OverLimit);
        }
        state.put(way, Item { what, ticket: None })?;
        if !state.is_led {
            drop(state);
            let _ = self.keeper.try_send(()); // or it knows already
        }
        Ok(())
    }

    /// Sends what nobody sends.
    pub(super) fn flush(&self) {
        let mut state = self.state.locked();
        if state.is_led || state.queue.is_empty() {
            return;
        }
        state.is_led = true;
        drop(state);
        self.send_some();
        self.hand_on(); // if there is more, whoever waits for it goes on, or the keeper comes again
    }

    /// The time is up.
    fn give_up(&self, ticket: &Arc<Ticket>) -> Answered {
        let mut state = self.state.locked();
        state.remove(ticket);
        self.tell_room(&state);
        drop(state);
        // In between it may have been answered, or made to lead, and then others wait for it.
        match ticket.take() {
            Step::Answered(answered) => answered,
            Step::Leads => {
                self.hand_on();
                Err(Failed::Unreachable)
            }
            _ => Err(Failed::Unreachable),
        }
    }

    /// Sends until this is answered, or the time is up, and lets another one go on.
    fn lead(&self, ticket: &Arc<Ticket>, deadline: Deadline) -> Answered {
        let answered = loop {
            let goes_on = self.send_some();
            match ticket.take() {
                Step::Answered(answered) => break answered,
                _ if goes_on && deadline.remaining().is_some() => *ticket.step.locked() = Step::Waits,
                _ => {
                    let mut state = self.state.locked();
                    state.remove(ticket);
                    self.tell_room(&state);
                    break Err(Failed::Unreachable);
                }
            }
        };
        self.hand_on();
        answered
    }

    /// Whoever leads does not any more.
    fn hand_on(&self) {
        let mut state = self.state.locked();
        match state.queue.iter().find_map(|item| item.ticket.as_ref()) {
            Some(next) => next.tell(Step::Leads),
            None => {
                state.is_led = false;
                if !state.queue.is_empty() {
                    let _ = self.keeper.try_send(());
                }
            }
        }
    }

    /// Sends some of what is queued, and tells those who wait for it what Redis says. False: there was nothing, or it has failed.
    fn send_some(&self) -> bool {
        let mut state = self.state.locked();
        let items = state.next();
        self.tell_room(&state);
        let connection = if items.is_empty() { None } else { state.connection.take() };
        let way = state.way;
        drop(state);
        let Some(mut connection) = connection else {
            items.into_iter().for_each(|item| item.answer(Err(Failed::Unreachable)));
            return false;
        };
        let is_done = self.exchange(&mut connection, items);
        let mut state = self.state.locked();
        // It may have been broken off meanwhile, and there may be another one.
        match state.is_up && state.way == way {
            true if is_done => state.connection = Some(connection),
            true => self.fail(&mut state),
            false => {}
        }
        is_done
    }

    /// There is no connection any more.
    fn fail(&self, state: &mut State) {
        state.is_up = false;
        state.connection = None;
        state.bytes = 0;
        for item in state.queue.drain(..) {
            item.answer(Err(Failed::Unreachable));
        }
        self.room.notify_all();
        let _ = self.keeper.try_send(());
    }

    fn tell_room(&self, state: &State) {
        if state.waiting > 0 {
            self.room.notify_all();
        }
    }

    // For the keeper.

    pub(super) fn is_up(&self) -> bool {
        self.state.locked().is_up
    }

    /// There is a connection, which has the next number.
    pub(super) fn begin(&self, connection: Connection) {
        let mut state = self.state.locked();
        state.way = state.way.wrapping_add(1);
        state.is_up = !state.is_closed;
        state.connection = state.is_up.then_some(connection);
    }

    /// No more is sent.
    pub(super) fn close(&self) {
        let mut state = self.state.locked();
        state.is_closed = true;
        self.fail(&mut state);
    }
}

impl State {
    fn is_full(&self, more: usize, most: usize) -> bool {
        self.bytes > 0 && self.bytes + more > most
    }

    fn put(&mut self, way: u32, item: Item) -> Result<(), Failed> {
        if !self.is_up || self.way != way {
            return Err(Failed::Unreachable);
        }
        self.bytes += item.what.len();
        self.queue.push_back(item);
        Ok(())
    }

    fn remove(&mut self, ticket: &Arc<Ticket>) {
        let is_it = |item: &Item| item.ticket.as_ref().is_some_and(|other| Arc::ptr_eq(other, ticket));
        if let Some(index) = self.queue.iter().position(is_it)
            && let Some(item) = self.queue.remove(index)
        {
            self.bytes -= item.what.len();
        }
    }

    /// What goes together.
    fn next(&mut self) -> Vec<Item> {
        let mut items = Vec::new();
        let mut bytes = 0;
        while let Some(item) = self.queue.front()
            && items.len() < TOGETHER
            && (items.is_empty() || bytes + item.what.len() <= BYTES_TOGETHER)
        {
            bytes += item.what.len();
            items.extend(self.queue.pop_front());
        }
        self.bytes -= bytes;
        items
    }
}

impl Item {
    fn answer(self, answered: Answered) {
        if let Some(ticket) = self.ticket {
            ticket.tell(Step::Answered(answered));
        }
    }
}

impl From<Item> for Joined {
    fn from(Item { what, ticket }: Item) -> Self {
        Self { what, tickets: ticket.into_iter().collect() }
    }
}

/// Joins what goes to the same channel. Who waits has nothing else here, so theirs may come a little earlier; what nobody waits for
/// keeps its place among all.
fn join(items: Vec<Item>) -> Vec<Joined> {
    if items.len() < 2 {
        return items.into_iter().map(Joined::from).collect();
    }
    let mut all: Vec<Joined> = Vec::with_capacity(items.len());
    // Where what comes next may join.
    let mut places = HashMap::<String, usize>::new();
    for Item { what, ticket } in items {
        let channel = match &what {
            What::Publish { channel, joins_at: Some(_), .. } => Some(channel.clone()),
            _ => None,
        };
        let place = channel.as_ref().and_then(|channel| places.get(channel)).copied();
        let place = place.filter(|place| ticket.is_some() || place + 1 == all.len());
        if ticket.is_none() {
            places.clear();
        }
        let place = match place {
            Some(place) if all[place].what.join(&what) => {
                all[place].tickets.extend(ticket);
                place
            }
            _ => {
                all.push(Item { what, ticket }.into());
                all.len() - 1
            }
        };
        places.extend(channel.map(|channel| (channel, place)));
    }
    all
}

impl Bus {
    /// Sends what is to be sent, and tells what Redis answers. False: the connection is of no more use.
    fn exchange(&self, connection: &mut Connection, items: Vec<Item>) -> bool {
        let deadline = self.deadline();
        let (mut commands, mut waiting) = (Vec::new(), Vec::new());
        for Joined { what, tickets } in join(items) {
            let command = what.into_command();
            waiting.push((commands.len(), tickets));
            if commands.is_empty() { commands = command } else { commands.extend_from_slice(&command) }
        }
        let mut is_done = connection.send_packed_command(&commands).is_ok();
        let mut is_slow = false;
        for (start, tickets) in waiting {
            let left = deadline.remaining().filter(|_| is_done).unwrap_or_default();
            // The connection waits for so long anyway, if it has nearly all of the time.
            is_slow |= left < self.answer_timeout * 9 / 10;
            let may_come = !left.is_zero() && (!is_slow || connection.set_read_timeout(Some(left)).is_ok());
            let answered = if may_come { receive(connection) } else { None };
            is_done = answered.is_some();
            let answered = answered.unwrap_or(Err(Failed::Unreachable));
            if let Err(Failed::Refused(error)) = &answered
                && rights::is_about(error)
            {
                self.say_forbidden(&commands[start..], error);
            }
            tickets.iter().for_each(|ticket| ticket.tell(Step::Answered(answered.clone())));
        }
        is_done && (!is_slow || connection.set_read_timeout(Some(self.answer_timeout)).is_ok())
    }

    /// Nobody else may say so: what is sent need not have anybody who waits for it.
    #[cold]
    fn say_forbidden(&self, command: &[u8], error: &::redis::RedisError) {
        // Of `*3\r\n$7\r\nPUBLISH\r\n` and so on.
        let name = command.split(|byte| *byte == b'\n').nth(2).unwrap_or_default().trim_ascii_end();
        let name = String::from_utf8_lossy(name).into_owned();
        let now = Instant::now();
        let mut forbidden = self.forbidden.locked();
        if forbidden.get(&name).is_none_or(|said| now.saturating_duration_since(*said) >= AGAIN) {
            forbidden.insert(name.clone(), now);
            drop(forbidden);
            rights::warn(&name, error);
        }
    }
}

/// The next answer. `None`: there is none in time, or the connection has ended.
fn receive(connection: &mut Connection) -> Option<Answered> {
    match connection.recv_response().and_then(Value::extract_error) {
        Ok(value) => Some(Ok(value)),
        Err(error) if error.is_io_error() || error.is_unrecoverable_error() => None,
        Err(error) => Some(Err(Failed::Refused(Arc::new(error)))),
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.locked();
        write!(f, "Bus({}, {} queued)", if state.is_up { "up" } else { "down" }, state.queue.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tell(channel: &str, message: &str, waits: bool) -> Item {
        let what = What::Publish { channel: channel.into(), message: message.into(), joins_at: Some(1) };
        Item { what, ticket: waits.then(Arc::default) }
    }

    /// What goes, and how many wait for it.
    fn joined(items: Vec<Item>) -> Vec<(String, usize)> {
        let text = |what: &What| match what {
            What::Command(command) => String::from_utf8_lossy(command).into_owned(),
            What::Publish { channel, message, .. } => {
                format!("{channel}:{}", String::from_utf8_lossy(message))
            }
        };
        join(items).iter().map(|one| (text(&one.what), one.tickets.len())).collect()
    }

    #[test]
    fn what_goes_to_the_same_goes_together_and_what_nobody_waits_for_keeps_its_place() {
        let all = [("a", "1x"), ("b", "1y"), ("a", "1z"), ("a", "2h"), ("a", "2i")];
        let waiting = joined(all.map(|(channel, message)| tell(channel, message, true)).into());
        let expected = [("a:1xz".into(), 2), ("b:1y".into(), 1), ("a:2hi".into(), 2)];
        assert_eq!(waiting, expected, "another head begins anew");
        let telling = joined(all.map(|(channel, message)| tell(channel, message, false)).into());
        let expected = ["a:1x", "b:1y", "a:1z", "a:2hi"].map(|text| (text.to_owned(), 0));
        assert_eq!(telling, expected);
        let command = Item { what: What::Command(b"c".into()), ticket: Some(Arc::default()) };
        let (before, told) = (tell("b", "1v", true), tell("b", "1w", false));
        let after = [tell("a", "1x", true), tell("b", "1y", true), tell("a", "1z", true)];
        let mixed = joined([tell("a", "1u", true), command, before, told].into_iter().chain(after).collect());
        let expected = [("a:1u".into(), 1), ("c".into(), 1), ("b:1vwy".into(), 2), ("a:1xz".into(), 2)];
        assert_eq!(mixed, expected, "nothing comes before what was told earlier");
    }
}

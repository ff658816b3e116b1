//! What the link's thread and the program tell each other: messages that were received, events, how the link is; and that it is to
//! end, or to hurry.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use super::event::{LinkCounts, LinkEvent, LinkState};
use crate::{
    connection::Connection,
    deadline::{Budget, Deadline},
    error::{CloseReason, Error, Result},
    limits::Limits,
    message::Message,
    sync::{LockExt, wait},
};

/// So many events are kept for a program that does not ask for them.
const MAX_EVENTS: usize = 32;

/// While there is no room for what is received, the connection is looked at so often: it may have ended.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Inside {
    state: Mutex<State>,
    /// A message, an event, another state, or the end.
    arrived: Condvar,
    /// There is room, or the thread is to end, or to hurry.
    wanted: Condvar,
}

#[derive(Debug)]
struct State {
    messages: VecDeque<Message>,
    bytes: usize,
    events: VecDeque<LinkEvent>,
    link: LinkState,
    connection: Option<Arc<Connection>>,
    /// It is to end, like this.
    closed: Option<CloseReason>,
    /// The next attempt is not to be waited for.
    hurries: bool,
    connected: u64,
    unread_dropped: u64,
}

impl Inside {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                messages: VecDeque::new(),
                bytes: 0,
                events: VecDeque::new(),
                link: LinkState::Connecting,
                connection: None,
                closed: None,
                hurries: false,
                connected: 0,
                unread_dropped: 0,
            }),
            arrived: Condvar::new(),
            wanted: Condvar::new(),
        }
    }

    // For the program.

    /// The next message that was received.
    pub(super) fn read(&self, timeout: Duration) -> Result<Message> {
        let found = self.wait_for(timeout, |state| {
            if let Some(message) = state.messages.pop_front() {
                state.bytes -= message.len();
                return Some(Ok(message));
            }
            let reason = state.closed.as_ref().filter(|_| state.link == LinkState::Ended)?;
            Some(Err(Error::Closed(reason.clone())))
        });
        if let Some(Ok(_)) = found {
            self.wanted.notify_one(); // there is room
        }
        found.unwrap_or(Err(Error::Timeout))
    }

    /// What has happened.
    pub(super) fn event(&self, timeout: Duration) -> Option<LinkEvent> {
        let found = self.wait_for(timeout, |state| match state.events.pop_front() {
            Some(event) => Some(Some(event)),
            None => (state.link == LinkState::Ended).then_some(None),
        });
        found.flatten()
    }

    /// Waits until it is up. False: the time was up before, or it has ended.
    pub(super) fn wait_up(&self, timeout: Duration) -> bool {
        self.wait_for(timeout, |state| match state.link {
            LinkState::Up => Some(true),
            LinkState::Ended => Some(false),
            _ => None,
        })
        .unwrap_or(false)
    }

    pub(super) fn wait_ended(&self, deadline: Deadline) {
        let timeout = deadline.remaining().unwrap_or_default();
        self.wait_for(timeout, |state| (state.link == LinkState::Ended).then_some(()));
    }

    fn wait_for<T>(&self, timeout: Duration, mut find: impl FnMut(&mut State) -> Option<T>) -> Option<T> {
        let mut budget = Budget::new(timeout);
        let mut state = self.state.locked();
        loop {
            if let Some(found) = find(&mut state) {
                return Some(found);
            }
            state = wait(&self.arrived, state, budget.remaining()?);
        }
    }

    pub(super) fn link(&self) -> LinkState {
        self.state.locked().link
    }

    pub(super) fn count(&self, counts: &mut LinkCounts) {
        let state = self.state.locked();
        counts.connected = state.connected;
        counts.unread = state.messages.len();
        counts.unread_dropped = state.unread_dropped;
    }

    /// The next attempt is made at once.
    pub(super) fn hurry(&self) {
        let mut state = self.state.locked();
        state.hurries |= matches!(state.link, LinkState::Waiting(_));
        drop(state);
        self.wanted.notify_one();
    }

    /// It is to end. Returns the connection, if there is one.
    pub(super) fn close(&self, reason: &CloseReason) -> Option<Arc<Connection>> {
        let mut state = self.state.locked();
        state.closed.get_or_insert_with(|| reason.clone());
        let connection = state.connection.clone();
        drop(state);
        self.wanted.notify_one();
        connection
    }

    // For the thread.

    /// An attempt begins. False: it is not to be made.
    pub(super) fn begin(&self) -> bool {
        self.tell(|state| {
            state.link = LinkState::Connecting;
            state.hurries = false;
            state.closed.is_none()
        })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state.locked().closed.is_some()
    }

    /// It is connected. False: it is to end.
    pub(super) fn up(&self, connection: &Arc<Connection>, event: LinkEvent) -> bool {
        self.tell(|state| {
            if state.closed.is_some() {
                return false;
            }
            state.link = LinkState::Up;
            state.connection = Some(connection.clone());
            state.connected += 1;
            state.put_event(event);
            true
        })
    }

    /// Puts a message in, as soon as there is room, as long as that connection lasts.
    pub(super) fn put(&self, message: Message, connection: &Connection, limits: &Limits) {
        let mut state = self.state.locked();
        while state.is_full(limits) && state.closed.is_none() && connection.reason().is_none() {
            state = wait(&self.wanted, state, LOOK);
        }
        // What comes after the end is no more than a connection may have received ahead.
        if state.messages.len() >= limits.max_inbox_messages.saturating_mul(2)
            || state.bytes >= limits.max_inbox_bytes.saturating_mul(2)
        {
            state.unread_dropped += 1;
            return;
        }
        state.bytes += message.len();
        state.messages.push_back(message);
        drop(state);
        self.arrived.notify_all();
    }

    /// It is not connected: waits for so long, or until it is to hurry, or to end.
    pub(super) fn down(&self, event: LinkEvent, delay: Duration) {
        let due = Instant::now() + delay;
        self.tell(|state| {
            state.connection = None;
            match (&mut state.closed, event) {
                // It has ended as it was to, or in another way.
                (Some(closed), LinkEvent::Down { reason, .. }) => *closed = reason,
                (Some(_), _) => {}
                (None, event) => {
                    state.link = LinkState::Waiting(due);
                    state.put_event(event);
                }
            }
        });
        let deadline = Deadline::after(delay);
        let mut state = self.state.locked();
        while state.closed.is_none()
            && !std::mem::take(&mut state.hurries)
            && let Some(left) = deadline.remaining()
        {
            state = wait(&self.wanted, state, left);
        }
    }

    /// The thread ends.
    pub(super) fn end(&self) {
        self.tell(|state| {
            state.link = LinkState::Ended;
            state.connection = None;
        });
    }

    fn tell<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.state.locked());
        self.arrived.notify_all();
        result
    }
}

impl State {
    fn is_full(&self, limits: &Limits) -> bool {
        self.messages.len() >= limits.max_inbox_messages || self.bytes >= limits.max_inbox_bytes
    }

    fn put_event(&mut self, event: LinkEvent) {
        if self.events.len() == MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::error::ClientError;

    #[test]
    fn who_hurries_when_the_wait_is_just_over_does_not_cut_the_next_one_short() {
        let failed = || {
            let error = Arc::new(ClientError::config(""));
            LinkEvent::Failed { error, attempts: 1, retry_in: Duration::ZERO }
        };
        let inside = Inside::new();
        inside.down(failed(), Duration::ZERO);
        inside.hurry();
        assert!(inside.begin());
        let delay = Duration::from_millis(50);
        let begun = Instant::now();
        inside.down(failed(), delay);
        assert!(begun.elapsed() >= delay);
    }
}

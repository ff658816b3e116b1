//! Receiving for a thread that does not: so pings are answered and a close is noticed while user code computes, or writes
//! without end.

use std::{
    io::ErrorKind::WouldBlock,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{inbox::Inbox, parts::Connection};
use crate::{codec::Work, protocol::Hold, sync::LockExt};

impl Connection {
    /// How often its thread is looked at while that may be busy.
    pub(crate) fn tick(&self) -> Duration {
        self.context.tick
    }

    /// Whether its thread does something else than to receive.
    pub(crate) fn is_busy(&self) -> bool {
        !self.receives.load(Relaxed)
    }

    /// The gateway watches the thread from now on, if that is wanted and it does not yet.
    pub(crate) fn starts_watching(&self) -> bool {
        self.mailbox.starts_watching()
    }

    /// Stops watching the thread, if it is not busy. The next time that it is, the gateway is told.
    pub(crate) fn unwatch(&self) -> bool {
        self.mailbox.unwatch(|| self.is_busy())
    }

    /// Receives what has come, a piece of work, and does what is due, for a thread that is busy. True: there is more.
    pub(crate) fn stand_in(self: &Arc<Self>) -> bool {
        let now = self.context.clock.exact();
        let Some(more) = self.receive_while_busy() else { return false };
        self.handle_timeout(now);
        more
    }

    /// Receives what has come, for a thread that is busy: a piece of work. True: there is more. `None`: it reads itself.
    pub(super) fn receive_while_busy(self: &Arc<Self>) -> Option<bool> {
        let mut inbox = self.inbox.try_locked()?;
        self.look_is_due.store(false, Relaxed);
        let mut work = Work::piece();
        let mut goes_on = true;
        while goes_on && !work.is_done() {
            goes_on = self.receive_for(&mut inbox, &mut work);
        }
        // The next turn, or the thread, takes in what came last. Something else may be due now than when the thread looked.
        let receiver = inbox.receiver(&self.context.limits);
        receiver.pause = None;
        if receiver.buffer.is_empty() {
            receiver.buffer = Vec::new();
        }
        Some(goes_on)
    }

    /// Takes in what was received, and receives once. False: that is all for now.
    fn receive_for(self: &Arc<Self>, inbox: &mut Inbox, work: &mut Work) -> bool {
        let limits = &self.context.limits;
        let (mut room, mut hold) = (inbox.room(limits), inbox.hold());
        let receiver = inbox.receiver(limits);
        let mut messages = Vec::new();
        let mut core = self.lock();
        let now = self.now(&core);
        if !receiver.buffer.is_empty() {
            core.protocol.receive(&mut receiver.buffer, now);
        }
        while !room.is_none()
            && let Some(message) = core.protocol.poll(hold, work, now)
        {
            room.take(&message);
            work.messages(1);
            messages.push(message);
            hold = Hold::Answers;
        }
        if room.is_none() {
            core.pause(limits);
        } else {
            core.protocol.resume(now);
        }
        self.flush_or_post(&mut core);
        let wants_input = core.protocol.wants_input();
        let is_open = core.protocol.reason().is_none() && !core.protocol.holds_end();
        let socket = core.socket.clone().filter(|_| is_open && wants_input && !room.is_none());
        drop(core);
        if !wants_input {
            self.look_is_due.store(true, Relaxed);
        }
        inbox.put_unread(messages);
        self.count(inbox);
        let Some(socket) = socket else {
            self.look_for_end();
            return false;
        };
        if work.is_done() {
            return true;
        }
        let received = inbox.receiver(limits).try_receive(&socket);
        work.receive(*received.as_ref().unwrap_or(&0));
        match &received {
            Err(e) if e.kind() == WouldBlock => return false,
            _ => self.received(received, hold),
        }
        true
    }
}

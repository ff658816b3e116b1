//! What has been received and not been read.
//!
//! Its lock is also the right to receive: a synchronous connection's thread holds it while it waits in `recv`.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
};

use super::{
    lent::{Lending, Lent},
    receiver::Receiver,
};
use crate::{limits::Limits, message::Message, protocol::Hold};

/// In place of how many bytes of the first message were read: that is said by `lending`.
const IN_PARTS: usize = usize::MAX;

#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// Messages for `read`.
    pub(super) unread: VecDeque<Message>,
    /// Bytes of the first of them that were read already; or [`IN_PARTS`].
    read: usize,
    /// Messages that `on_client_message` has not seen. Only of shared connections.
    pub(super) unhandled: VecDeque<Message>,
    /// Messages that it is being called for.
    in_hand: u16,
    /// Bytes in all of these.
    bytes: usize,
    /// Somebody calls `on_client_message`, or is about to.
    pub(super) handling: bool,
    /// Of a shared connection: nothing more will be put in.
    pub(super) complete: bool,
    /// The connection is over, and its handler has not been told.
    pub(super) over: bool,
    /// Nothing is received until there is room.
    paused: bool,
    /// An end of the connection waits for answers: whoever gives the last of them tells the gateway.
    holds_end: bool,
    /// How many have read a message and may be answering it: they have not read on. And what is lent.
    answering: u32,
    /// How many wait in `read` of a shared connection.
    pub(super) waiting: u32,
    /// What receives. Of a shared connection the gateway does that, and this stays empty.
    receiver: Option<Box<Receiver>>,
    /// What was read and may come back. Only of shared connections, and only while there is any.
    lending: Option<Box<Lending>>,
}

/// How much may still be put in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    pub(super) messages: usize,
    bytes: usize,
}

impl Room {
    /// Of a connection that wants nothing more: what comes is thrown away.
    pub(super) const ENDLESS: Self = Self { messages: usize::MAX, bytes: usize::MAX };

    pub(super) fn is_none(&self) -> bool {
        self.messages == 0 || self.bytes == 0
    }

    /// A message is put in. One may be larger than the room.
    pub(super) fn take(&mut self, message: &Message) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(message.len());
    }
}

impl Inbox {
    pub(super) fn receiver(&mut self, limits: &Limits) -> &mut Receiver {
        self.receiver.get_or_insert_with(|| Box::new(Receiver::new(limits.max_read_buffer)))
    }

    /// What was received and is not taken in yet. Nobody receives from now on.
    pub(super) fn take_received(&mut self) -> Vec<u8> {
        self.receiver.take().map(|receiver| receiver.buffer).unwrap_or_default()
    }

    /// Bytes of all messages in it.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Throws away what nobody has read, and nobody may any more.
    pub(super) fn discard(&mut self) {
        self.discard_unhandled();
        self.bytes -= match &mut self.lending {
            Some(lending) if self.read == IN_PARTS => {
                let unread = lending.bytes(&self.unread);
                lending.forget_unread();
                unread
            }
            _ => self.unread.iter().map(Message::len).sum::<usize>() - self.read,
        };
        self.read = 0;
        self.unread = VecDeque::new();
        self.tidy();
    }

    /// The connection is over. What was received before can still be read.
    pub(super) fn end(&mut self) {
        self.receiver = None;
        self.complete = true;
        self.over = true;
    }

    /// At most `len` characters or bytes of the next message for a reader, and whether they reach its end.
    pub(super) fn read(&mut self, len: usize) -> Option<(Message, bool)> {
        if self.read == 0 && self.unread.front()?.len() <= len {
            let message = self.unread.pop_front()?;
            self.bytes -= message.len();
            give_back(&mut self.unread);
            return Some((message, true));
        }
        if self.read == IN_PARTS {
            return self.read_part(len);
        }
        let piece = self.unread.front()?.piece(self.read, len);
        self.bytes -= piece.len();
        self.read += piece.len();
        let at_end = self.unread.front().is_none_or(|message| self.read == message.len());
        if at_end {
            self.unread.pop_front();
            self.read = 0;
            give_back(&mut self.unread);
        }
        Some((piece, at_end))
    }

    #[inline(never)]
    fn read_part(&mut self, len: usize) -> Option<(Message, bool)> {
        let (piece, lent) = self.lending.as_mut()?.take_part(&mut self.unread, len)?;
        self.bytes -= lent.len();
        self.tidy();
        Some((piece, lent.at_end()))
    }

    /// As [`read`](Self::read), but what it returns counts until it is [settled](Self::acknowledge): an end waits for that, too.
    pub(super) fn lend(&mut self, len: usize) -> Option<(Message, Lent)> {
        let is_whole = self.read == 0 && self.unread.front()?.len() <= len;
        let lending = self.lending.get_or_insert_default();
        let (piece, lent) = if is_whole {
            lending.lend(self.unread.pop_front()?)
        } else {
            self.divide_first();
            self.lending.as_mut()?.lend_part(&mut self.unread, len)?
        };
        self.answering += 1;
        self.tidy();
        Some((piece, lent))
    }

    /// From now on `lending` says what of the first unread message is still to be read.
    fn divide_first(&mut self) {
        if let (Some(lending), Some(first)) = (&mut self.lending, self.unread.front())
            && self.read != IN_PARTS
        {
            lending.divide(first, self.read);
            self.read = IN_PARTS;
        }
    }

    /// What was lent is done with.
    pub(super) fn acknowledge(&mut self, lent: &Lent) {
        if let Some(lending) = &mut self.lending {
            lending.out -= 1;
        }
        self.bytes -= lent.len();
        self.answering -= 1;
        self.tidy();
    }

    /// What was lent is unread again, and before all that came after it.
    pub(super) fn take_back(&mut self, lent: &Lent) {
        if self.read > 0 {
            self.divide_first();
        }
        if let Some(lending) = &mut self.lending {
            lending.take_back(lent, &mut self.unread);
            self.read = IN_PARTS;
        }
        self.answering -= 1;
    }

    /// Where nothing is lent, and nothing of that has come back, nothing is kept for it.
    fn tidy(&mut self) {
        give_back(&mut self.unread);
        let Some(lending) = &self.lending else { return };
        if self.read == IN_PARTS && !lending.has_parts() {
            self.read = 0;
        }
        if lending.is_over() {
            self.lending = None;
        }
    }

    /// At most `len` characters or bytes of the first of these messages; the rest is kept for the next reader.
    pub(super) fn read_first(
        &mut self,
        message: Message,
        others: Vec<Message>,
        len: usize,
    ) -> (Message, bool) {
        // A text of so few bytes cannot have more characters.
        if message.len() <= len {
            self.put_unread(others);
            return (message, true);
        }
        self.put_unread(vec![message]);
        self.put_unread(others);
        self.read(len).unwrap_or_else(|| unreachable!("put in above"))
    }

    /// Puts messages in for readers.
    pub(super) fn put_unread(&mut self, messages: Vec<Message>) {
        self.bytes += messages.iter().map(Message::len).sum::<usize>();
        append(&mut self.unread, messages);
    }

    /// Puts messages in for the handler.
    pub(super) fn put_unhandled(&mut self, messages: Vec<Message>) {
        self.bytes += messages.iter().map(Message::len).sum::<usize>();
        append(&mut self.unhandled, messages);
    }

    /// What waits to be read is for the handler from now on; of a message that was read in part, the rest. What is lent is not:
    /// the handler gets messages in their order.
    pub(super) fn hand_over(&mut self) {
        let read = std::mem::take(&mut self.read);
        if read == IN_PARTS {
            if let Some(lending) = &mut self.lending {
                lending.cut(&mut self.unread);
            }
        } else if let Some(message) = self.unread.front_mut().filter(|_| read > 0) {
            *message = message.piece(read, usize::MAX);
        }
        self.unhandled = std::mem::take(&mut self.unread);
        self.tidy();
    }

    /// The next messages for the handler, `max` at most. They count until they are put back.
    pub(super) fn take_unhandled(&mut self, max: usize) -> VecDeque<Message> {
        let rest = self.unhandled.split_off(max.min(self.unhandled.len()));
        let batch = std::mem::replace(&mut self.unhandled, rest);
        self.in_hand = batch.len() as u16; // it is a short one
        batch
    }

    /// Puts back those for which it was not called. The others, of so many bytes, are done with.
    pub(super) fn put_back(&mut self, mut batch: VecDeque<Message>, handled: usize) {
        let done = usize::from(std::mem::take(&mut self.in_hand)).saturating_sub(batch.len());
        self.bytes -= handled;
        if let Some(lending) = &mut self.lending {
            lending.handled(done);
            self.tidy();
        }
        if !batch.is_empty() {
            batch.append(&mut self.unhandled);
            self.unhandled = batch;
        }
    }

    /// Throws away what the handler has not seen: nobody wants it any more.
    pub(super) fn discard_unhandled(&mut self) {
        self.bytes -= self.unhandled.iter().map(Message::len).sum::<usize>();
        self.unhandled.clear();
        if let Some(lending) = &mut self.lending {
            lending.forget_unhandled(self.in_hand.into());
        }
    }

    /// Leaves a message to readers, which the handler was called for: it was at this place of those in its hand.
    pub(super) fn leave(&mut self, message: Message, place: usize) {
        if !self.lending.as_ref().is_some_and(|lending| lending.was_had(place)) {
            return self.put_unread(vec![message]);
        }
        self.divide_first();
        self.bytes += message.len();
        if let Some(lending) = &mut self.lending {
            lending.add_had(message, &mut self.unread);
            self.read = IN_PARTS;
        }
    }

    /// This reader has a message, which it may be about to answer. Its mark is only set and cleared with this lock.
    pub(super) fn begin_answering(&mut self, reader: &AtomicBool) {
        if !reader.load(Relaxed) {
            reader.store(true, Relaxed);
            self.answering += 1;
        }
    }

    /// It has answered what it has read: it reads on, or never will.
    pub(super) fn end_answering(&mut self, reader: &AtomicBool) {
        if reader.load(Relaxed) {
            reader.store(false, Relaxed);
            self.answering -= 1;
        }
    }

    /// Whether it is as one that nothing was ever put into.
    #[cfg(test)]
    pub(super) fn is_bare(&self) -> bool {
        let is_empty = self.bytes == 0 && self.unread.capacity() == 0 && self.unhandled.is_empty();
        is_empty && self.read == 0 && self.lending.is_none()
    }

    /// What an end has to wait for.
    pub(super) fn hold(&self) -> Hold {
        let is_answered = self.unread.is_empty() && self.unhandled.is_empty();
        if is_answered && !self.handling && self.answering == 0 { Hold::Nothing } else { Hold::Answers }
    }

    /// An end waits, unless it need not any more.
    pub(super) fn hold_end(&mut self) -> bool {
        self.holds_end = self.hold() == Hold::Answers;
        self.holds_end
    }

    /// Whether an end has waited for what is answered now.
    pub(super) fn release_end(&mut self) -> bool {
        let releases = self.holds_end && self.hold() == Hold::Nothing;
        self.holds_end &= !releases;
        releases
    }

    /// Nothing is received from now on, unless there is room by now.
    pub(super) fn pause(&mut self, limits: &Limits) -> bool {
        self.paused = self.room(limits).is_none();
        self.paused
    }

    /// Whether receiving, which has paused, goes on.
    pub(super) fn resumes(&mut self, limits: &Limits) -> bool {
        let resumes = self.paused && !self.room(limits).is_none();
        self.paused &= !resumes;
        resumes
    }

    pub(super) fn room(&self, limits: &Limits) -> Room {
        let lent = self.lending.as_ref().map_or(0, |lending| lending.out);
        let messages = self.unread.len() + self.unhandled.len() + usize::from(self.in_hand) + lent;
        Room {
            messages: limits.max_inbox_messages.saturating_sub(messages),
            bytes: limits.max_inbox_bytes.saturating_sub(self.bytes),
        }
    }
}

/// Puts messages behind those that wait. The memory that they came in serves as the queue's, if that has none.
fn append(queue: &mut VecDeque<Message>, messages: Vec<Message>) {
    if queue.is_empty() {
        *queue = messages.into();
    } else {
        queue.extend(messages);
    }
}

/// Between messages a connection keeps no memory for them.
fn give_back(queue: &mut VecDeque<Message>) {
    if queue.is_empty() {
        *queue = VecDeque::new();
    }
}

//! What was read from a shared connection and is not acknowledged: it counts as unread until it is, and may come back.
//!
//! What comes back has the place in the queue that it had: it is read before all that followed it. Bytes of one message that are next
//! to each other again are read as one, so a message that was lent in pieces is a whole one as soon as all of them are back.

use std::{collections::VecDeque, ops::Range};

use crate::message::Message;

/// A message, or a piece of one, that somebody has read.
#[derive(Debug)]
pub(super) struct Lent {
    /// The message that it is of.
    whole: Message,
    number: u64,
    bytes: Range<usize>,
    /// Somebody has had it, or a part of it, before.
    pub(super) again: bool,
    /// Whoever has read it did not look at it.
    pub(super) is_unseen: bool,
}

impl Lent {
    /// The length in bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Where it is: its message, and the byte there.
    pub(super) fn place(&self) -> (u64, usize) {
        (self.number, self.bytes.start)
    }

    /// Whether it reaches the end of its message.
    pub(super) fn at_end(&self) -> bool {
        self.bytes.end == self.whole.len()
    }
}

/// What an inbox knows of them.
#[derive(Debug, Default)]
pub(super) struct Lending {
    /// How many are lent.
    pub(super) out: usize,
    /// How many messages something was lent of.
    messages: u64,
    /// What of the first unread messages is still to be read, for each of them: of the one that something was lent of last, and of
    /// those that something came back of, in their order. A message of which there are several parts is there as often.
    parts: VecDeque<Part>,
    /// Of what is for the handler so many messages may have been had by somebody, the first of them.
    had: usize,
}

/// Bytes of a message that are next to each other.
#[derive(Debug)]
struct Part {
    /// The message: those with smaller numbers came before.
    number: u64,
    bytes: Range<usize>,
    /// Nobody has had what begins here.
    fresh: usize,
}

impl Lending {
    pub(super) fn has_parts(&self) -> bool {
        !self.parts.is_empty()
    }

    /// Nothing is lent, and nothing of that has come back, be it to be read or for the handler.
    pub(super) fn is_over(&self) -> bool {
        self.out == 0 && self.parts.is_empty() && self.had == 0
    }

    /// How many bytes of these messages are still to be read.
    pub(super) fn bytes(&self, unread: &VecDeque<Message>) -> usize {
        let parts = self.parts.iter().map(|part| part.bytes.len());
        let others = unread.iter().skip(self.parts.len()).map(Message::len);
        parts.chain(others).sum()
    }

    /// Lends a message that nobody has read any of.
    pub(super) fn lend(&mut self, whole: Message) -> (Message, Lent) {
        let bytes = 0..whole.len();
        self.out += 1;
        (whole.clone(), Lent { whole, number: self.next_number(), bytes, again: false, is_unseen: false })
    }

    /// The first unread message becomes a part. So many bytes of it were read, and are not lent.
    pub(super) fn divide(&mut self, first: &Message, read: usize) {
        let number = self.next_number();
        self.parts.push_front(Part { number, bytes: read..first.len(), fresh: read });
    }

    fn next_number(&mut self) -> u64 {
        self.messages += 1;
        self.messages
    }

    /// Lends at most `len` characters or bytes of the first part.
    pub(super) fn lend_part(
        &mut self,
        unread: &mut VecDeque<Message>,
        len: usize,
    ) -> Option<(Message, Lent)> {
        let taken = self.take_part(unread, len);
        self.out += usize::from(taken.is_some());
        taken
    }

    /// The same of what nobody will give back.
    pub(super) fn take_part(
        &mut self,
        unread: &mut VecDeque<Message>,
        len: usize,
    ) -> Option<(Message, Lent)> {
        let (part, whole) = (self.parts.front_mut()?, unread.front()?.clone());
        let piece = whole.piece_within(part.bytes.clone(), len);
        let bytes = part.bytes.start..part.bytes.start + piece.len();
        let again = bytes.start < part.fresh;
        let lent = Lent { whole, number: part.number, bytes, again, is_unseen: false };
        part.bytes.start = lent.bytes.end;
        part.fresh = part.fresh.max(lent.bytes.end);
        if part.bytes.is_empty() {
            self.parts.pop_front();
            unread.pop_front();
        }
        Some((piece, lent))
    }

    /// Takes back what was lent. What is unread and not a part came later.
    pub(super) fn take_back(&mut self, lent: &Lent, unread: &mut VecDeque<Message>) {
        self.out -= 1;
        let place = self.parts.partition_point(|part| (part.number, part.bytes.start) < lent.place());
        let is_fresh = lent.is_unseen && !lent.again;
        // Also an empty message was had by somebody.
        let fresh = if is_fresh { lent.bytes.start } else { usize::MAX };
        let part = Part { number: lent.number, bytes: lent.bytes.clone(), fresh };
        self.parts.insert(place, part);
        unread.insert(place, lent.whole.clone());
        self.join(place + 1, unread);
        self.join(place, unread);
    }

    /// This part and the one before it become one, if they are next to each other in their message.
    fn join(&mut self, place: usize, unread: &mut VecDeque<Message>) {
        let before = place.checked_sub(1).and_then(|before| self.parts.get(before));
        let Some(before) = before else { return };
        let (number, bytes, is_fresh) =
            (before.number, before.bytes.clone(), before.fresh <= before.bytes.start);
        let Some(part) = self.parts.get_mut(place) else { return };
        if part.number == number && part.bytes.start == bytes.end {
            // Else nothing of what is before is fresh.
            if is_fresh && part.fresh <= part.bytes.start {
                part.fresh = bytes.start;
            }
            part.bytes.start = bytes.start;
            self.parts.remove(place - 1);
            unread.remove(place - 1);
        }
    }

    /// A message comes behind all that is unread, which somebody has had.
    pub(super) fn add_had(&mut self, message: Message, unread: &mut VecDeque<Message>) {
        for whole in unread.iter().skip(self.parts.len()) {
            let number = self.next_number();
            self.parts.push_back(Part { number, bytes: 0..whole.len(), fresh: 0 });
        }
        let number = self.next_number();
        self.parts.push_back(Part { number, bytes: 0..message.len(), fresh: usize::MAX });
        unread.push_back(message);
    }

    /// What is unread are messages for the handler from now on.
    pub(super) fn cut(&mut self, unread: &mut VecDeque<Message>) {
        let had = self.parts.iter().rposition(|part| part.bytes.start < part.fresh);
        self.had = had.map_or(0, |last| last + 1);
        for (part, message) in self.parts.drain(..).zip(unread) {
            *message = message.piece_within(part.bytes, usize::MAX);
        }
    }

    /// Whether somebody may have had the one at this place of those for the handler.
    pub(super) fn was_had(&self, place: usize) -> bool {
        place < self.had
    }

    /// It is done with the first of them.
    pub(super) fn handled(&mut self, messages: usize) {
        self.had = self.had.saturating_sub(messages);
    }

    /// It does not get any more than these.
    pub(super) fn forget_unhandled(&mut self, in_hand: usize) {
        self.had = self.had.min(in_hand);
    }

    /// What is unread is thrown away.
    pub(super) fn forget_unread(&mut self) {
        self.parts.clear();
    }
}

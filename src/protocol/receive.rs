//! What comes from the peer: bytes in, messages out.

use super::{
    life::Protocol,
    phase::{Hold, PeerEnd, Phase, Stream},
};
use crate::{
    clock::Moment,
    codec::{Event, Role, Work},
    error::ClosedBy,
    message::Message,
};

/// With more output than this unsent, nothing more is received: whoever does not read its pongs gets no more of them.
pub(super) const CLOGGED: usize = 64 * 1024;

/// So many short messages share a buffer: whoever keeps one of them keeps at most 2 KiB alive.
const TOGETHER: usize = 15;

impl Protocol {
    /// Takes in what was received, and leaves an empty buffer behind.
    pub(crate) fn receive(&mut self, received: &mut Vec<u8>, now: Moment) {
        self.counts.bytes_in += received.len() as u64;
        self.timers.received = now;
        // Whatever comes shows that it is alive. The next ping may be due before this one's pong would have been.
        self.changed |= self.timers.pinged.take().is_some();
        if self.decodes()
            && let Err(failure) = self.codec.stream().feed(received)
        {
            self.end_by_peer(PeerEnd::Failure(failure), false, now);
        }
        if self.role == Role::Client {
            self.look_for_last_words(received, now);
        }
        received.clear();
    }

    /// A client waits for the server to end the stream first. Over TLS that may have ended before: there are servers that say so, and
    /// wait for the client to say it, too.
    fn look_for_last_words(&mut self, received: &mut Vec<u8>, now: Moment) {
        if !matches!(self.phase, Phase::Draining { peer_ended: false, .. }) {
            return;
        }
        let stream = self.codec.stream();
        let failed = stream.feed(received).is_err();
        stream.consume(stream.input().len());
        if failed || stream.ended() {
            self.receive_end(Hold::Nothing, now);
        }
    }

    /// The peer's stream has ended (FIN). What it sent before has been polled: nothing is decoded afterwards.
    pub(crate) fn receive_end(&mut self, hold: Hold, now: Moment) {
        match &mut self.phase {
            Phase::Open | Phase::Unsendable { .. } => self.peer_ends(PeerEnd::EndOfStream, hold, now),
            Phase::Draining { peer_ended, stream, .. } => {
                *peer_ended = true;
                if *stream == Stream::Ended {
                    self.enter(Phase::Over);
                }
            }
            // It will not answer our close frame any more.
            Phase::Closing { .. } => self.drain(true, now),
            // The answers that are under way may still be sent.
            Phase::Held { peer_ended, .. } => *peer_ended = true,
            Phase::Over => {}
        }
    }

    /// The peer's stream ends (FIN) behind bytes for which there is no room now. What it sent can still be answered, if
    /// anything can, but not for ever.
    pub(crate) fn end_in_sight(&mut self, now: Moment) {
        match self.phase {
            Phase::Open if self.timers.end_by.is_none() => {
                self.timers.end_by = Some(now + self.limits.close_timeout);
                self.changed = true;
            }
            Phase::Unsendable { .. } => self.end_held(now),
            _ => {}
        }
    }

    /// Receiving failed: the connection is broken.
    pub(crate) fn receive_failed(&mut self, why: &str) {
        self.abort(ClosedBy::Network, why);
    }

    /// The next message. `None`: receive more, if that is [wanted](Self::wants_input); unless the work
    /// [is done](Work::is_done), then come back with a new piece of it first.
    ///
    /// An end that the peer brings about takes effect here, unless it has to wait for what `hold` says: then with the first
    /// call that waits for nothing, or when the time is up.
    pub(crate) fn poll(&mut self, hold: Hold, work: &mut Work, now: Moment) -> Option<Message> {
        if hold == Hold::Nothing
            && let Phase::Held { .. } = self.phase
        {
            self.end_held(now);
        }
        while self.decodes() {
            match self.codec.next(work) {
                Ok(Some(Event::Message(message))) if self.is_receiving() => {
                    self.counts.messages_in += 1;
                    self.timers.message = now;
                    self.timers.begun = None;
                    return Some(message);
                }
                Ok(Some(Event::Message(_))) => {} // what comes after our close frame is not wanted
                Ok(Some(Event::Ping)) => self.pongs = self.pongs.saturating_add(1),
                Ok(Some(Event::Pong(payload))) => self.measure(&payload, now),
                Ok(Some(Event::Close(code, text))) => self.peer_ends(PeerEnd::Close(code, text), hold, now),
                Ok(None) if work.is_done() => break,
                Ok(None) if self.codec.stream().ended() => {
                    self.peer_ends(PeerEnd::EndOfStream, hold, now);
                }
                Ok(None) => {
                    self.look_for_partial(now);
                    self.look_for_warmth();
                    break;
                }
                Err(failure) => self.peer_ends(PeerEnd::Failure(failure), hold, now),
            }
        }
        None
    }

    /// Whether [`poll`](Self::poll) could do anything, if nothing was received since the last call.
    pub(crate) fn can_poll(&self) -> bool {
        self.has_input() || self.holds_end()
    }

    /// Short messages that have arrived behind one that was [polled](Self::poll), at most `max` of them: together they cost
    /// less than one by one.
    pub(crate) fn poll_short(&mut self, messages: &mut Vec<Message>, max: usize) {
        if self.is_receiving() {
            let before = messages.len();
            self.codec.take_short(messages, max.min(TOGETHER));
            self.counts.messages_in += (messages.len() - before) as u64;
        }
    }

    /// Whether a message can be polled without another byte.
    pub(crate) fn has_whole_message(&self) -> bool {
        self.is_receiving() && self.codec.has_whole_message()
    }

    /// Whether bytes were received that have not been decoded.
    pub(crate) fn has_input(&self) -> bool {
        self.codec.has_input()
    }

    /// Whether more may be received now. If not, output has to be sent first.
    ///
    /// A client goes on while it has much to send: the server may be sending an answer, and receive nothing before it is out. For
    /// a client only the pongs count, which are 33 KB then, at most.
    pub(crate) fn wants_input(&mut self) -> bool {
        match self.role {
            Role::Server => self.codec.stream().pending() <= CLOGGED,
            Role::Client => self.pongs < u8::MAX,
        }
    }

    /// A buffer to receive into: the last one, if it is empty.
    pub(crate) fn spare_buffer(&mut self) -> Vec<u8> {
        self.codec.stream().spare_buffer()
    }

    /// Nothing is received from now on, until [`resume`](Self::resume): the peer's silence says nothing.
    pub(crate) fn pause(&mut self) {
        self.timers.paused = true;
    }

    pub(crate) fn resume(&mut self, now: Moment) {
        if std::mem::take(&mut self.timers.paused) {
            self.timers.listen_again(now);
            self.timers.await_message_again(now);
            self.changed = true;
        }
    }
}

//! The life of one connection above its codec: bytes, commands and the time go in; bytes, messages and the next deadline
//! come out. No socket, no lock, no thread, and no reading of a clock.
//!
//! Everything that is true of a connection's life stands in [`Phase`]: what may still be sent and received, and why not. A
//! driver [receives](Protocol::receive) bytes and [polls](Protocol::poll) messages until there are none, sends what it is told
//! to [transmit](Protocol::transmit), and calls [`handle_timeout`](Protocol::handle_timeout) at the
//! [`deadline`](Protocol::deadline). In whatever order it does so, the connection comes to its end once, with one reason.

mod phase;
mod timers;

use std::{borrow::Cow, sync::Arc, time::Duration};

use self::{
    phase::{PeerEnd, Phase, Stream},
    timers::{Timer, Timers},
};
use crate::{
    clock::Moment,
    codec::{Codec, Compressing, Event, Failure, Outgoing, Role},
    error::{CloseReason, ClosedBy},
    limits::Limits,
    message::{CloseCode, Message},
};

/// With more output than this unsent, nothing more is received: whoever does not read its pongs gets no more of them.
const CLOGGED: usize = 64 * 1024;

/// So many short messages share a buffer: whoever keeps one of them keeps at most 2 KiB alive.
const TOGETHER: usize = 15;

pub(crate) const TOO_SLOW: &str = "the peer did not take what was sent in time";

/// One connection, from its opening handshake on.
#[derive(Debug)]
pub(crate) struct Protocol {
    role: Role,
    limits: Arc<Limits>,
    codec: Codec,
    phase: Phase,
    /// How it ended, or is about to: set when it is neither open nor ending any more, and never again.
    reason: Option<CloseReason>,
    timers: Timers,
    counts: Counts,
    /// The last round trip, in microseconds.
    round_trip: Option<u32>,
    /// What was received is not wanted any more: this side has closed.
    hung_up: bool,
    /// There is a message in the output, or was when the socket last took something.
    is_sending: bool,
    /// The socket took something since it refused more.
    progress: bool,
    /// The compressor is out: nothing may be sent before the message that it is needed for.
    compressing: bool,
    /// Something happened that others have to know: a new phase, or a deadline that is earlier than it was.
    changed: bool,
}

/// What has gone through a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) messages_in: u64,
    pub(crate) messages_out: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
}

/// What an end that the peer brings about has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// For nothing: all that came before is answered.
    Nothing,
    /// The application may be answering the last message: only a broken rule waits. A peer that says goodbye knows what it
    /// has not got.
    Failures,
    /// Messages have not been taken by the application.
    All,
}

/// What a driver has to do with the socket.
#[derive(Debug)]
pub(crate) enum Transmit<'a> {
    /// Nothing.
    Nothing,
    /// Send these, and say what came of it: [`sent`](Protocol::sent), [`refused`](Protocol::refused) or
    /// [`send_failed`](Protocol::send_failed).
    Bytes([&'a [u8]; 2]),
    /// End this side of the stream (FIN).
    End,
}

impl Protocol {
    pub(crate) fn new(role: Role, codec: Codec, limits: Arc<Limits>, shared: bool, now: Moment) -> Self {
        Self {
            role,
            limits,
            codec,
            phase: Phase::Open,
            reason: None,
            timers: Timers::new(shared, now),
            counts: Counts::default(),
            round_trip: None,
            hung_up: false,
            is_sending: false,
            progress: false,
            compressing: false,
            changed: false,
        }
    }

    // What comes from the peer.

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
        received.clear();
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
            Phase::Ending { peer_ended, .. } => *peer_ended = true,
            Phase::Over => {}
        }
    }

    /// Receiving failed: the connection is broken.
    pub(crate) fn receive_failed(&mut self, why: impl Into<Cow<'static, str>>) {
        self.abort(ClosedBy::Network, why);
    }

    /// The next message. `None`: receive more, if that is [wanted](Self::wants_input).
    ///
    /// An end that the peer brings about takes effect here, unless it has to wait for what `hold` says: then with the first
    /// call that waits for nothing, or when the time is up.
    pub(crate) fn poll(&mut self, hold: Hold, now: Moment) -> Option<Message> {
        if hold == Hold::Nothing
            && let Phase::Ending { .. } = self.phase
        {
            self.end_held(now);
        }
        while self.decodes() {
            match self.codec.next() {
                Ok(Some(Event::Message(message))) if self.is_receiving() => {
                    self.counts.messages_in += 1;
                    self.timers.message = now;
                    return Some(message);
                }
                // What comes after our close frame is not wanted.
                Ok(Some(Event::Message(_) | Event::Ping)) => {}
                Ok(Some(Event::Pong(payload))) => self.measure(&payload, now),
                Ok(Some(Event::Close(code, text))) => self.peer_ends(PeerEnd::Close(code, text), hold, now),
                Ok(None) if self.codec.stream().ended() => {
                    self.peer_ends(PeerEnd::EndOfStream, hold, now);
                }
                Ok(None) => {
                    self.look_for_warmth();
                    break;
                }
                Err(failure) => self.peer_ends(PeerEnd::Failure(failure), hold, now),
            }
        }
        None
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
    pub(crate) fn has_input(&mut self) -> bool {
        !self.codec.stream().input().is_empty()
    }

    /// Whether more may be received now. If not, output has to be sent first.
    pub(crate) fn wants_input(&mut self) -> bool {
        self.codec.stream().pending() <= CLOGGED
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
            self.changed = true;
        }
    }

    // What goes to the peer.

    /// Whether messages can be sent.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check_sendable(&self) -> Result<(), CloseReason> {
        match (&self.phase, &self.reason) {
            (Phase::Unsendable { why, .. }, _) => Err(broken(why)),
            (_, Some(reason)) => Err(reason.clone()),
            (_, None) => Ok(()),
        }
    }

    /// Appends a message to the output, if it can be [sent](Self::check_sendable). If its compression takes long, that is left
    /// to the caller, who does it without a lock and comes back with the result ([`compressed`](Self::compressed)); until then
    /// nothing else may be sent.
    #[must_use]
    pub(crate) fn send(&mut self, outgoing: Outgoing) -> Option<Box<Compressing>> {
        debug_assert!(!self.compressing);
        self.is_sending = true;
        let compressing = self.codec.encode(outgoing);
        self.compressing = compressing.is_some();
        self.counts.messages_out += u64::from(!self.compressing);
        self.look_for_warmth();
        compressing
    }

    /// The compressor is back, with the message that it was out for.
    pub(crate) fn compressed(&mut self, compressed: Box<Compressing>) {
        self.compressing = false;
        let is_sendable = self.check_sendable().is_ok();
        self.counts.messages_out += u64::from(is_sendable);
        self.codec.encode_compressed(compressed, is_sendable);
        self.look_for_warmth();
    }

    pub(crate) fn is_compressing(&self) -> bool {
        self.compressing
    }

    /// How much is to be sent.
    pub(crate) fn pending(&mut self) -> usize {
        self.codec.stream().pending()
    }

    /// What is to be done with the socket next.
    pub(crate) fn transmit(&mut self) -> Transmit<'_> {
        if let Err(failure) = self.codec.stream().seal() {
            self.abort(ClosedBy::Network, failure.text);
        }
        let can_transmit = self.can_transmit();
        if !can_transmit {
            self.codec.stream().discard_output();
        }
        let is_sent = self.codec.stream().is_sent();
        if is_sent && let Some(blocked) = self.timers.blocked.take() {
            self.timers.listen_again(blocked);
            self.changed = true;
        }
        if !can_transmit {
            return Transmit::Nothing;
        }
        if let Phase::Draining { stream, peer_ended, .. } = &mut self.phase
            && is_sent
            && (self.role == Role::Server || *peer_ended)
        {
            match *stream {
                Stream::Open => {
                    *stream = Stream::Finished;
                    self.codec.stream().finish();
                }
                Stream::Finished if *peer_ended => {
                    self.enter(Phase::Over);
                    return Transmit::End;
                }
                Stream::Finished => {
                    *stream = Stream::Ended;
                    return Transmit::End;
                }
                Stream::Ended => {}
            }
            if self.codec.stream().is_sent() {
                return self.transmit(); // TLS had nothing to say
            }
        }
        let parts = self.codec.stream().pending_parts();
        if parts.iter().all(|part| part.is_empty()) {
            return Transmit::Nothing;
        }
        Transmit::Bytes(parts)
    }

    fn can_transmit(&self) -> bool {
        !matches!(
            self.phase,
            Phase::Unsendable { .. } | Phase::Draining { stream: Stream::Ended, .. } | Phase::Over
        )
    }

    /// The socket took so many bytes.
    pub(crate) fn sent(&mut self, bytes: usize, now: Moment) {
        if std::mem::take(&mut self.is_sending) {
            self.timers.message = now;
        }
        self.codec.stream().mark_sent(bytes);
        self.counts.bytes_out += bytes as u64;
        self.progress = true;
    }

    /// The socket takes nothing more at the moment.
    pub(crate) fn refused(&mut self, now: Moment) {
        self.changed |= self.timers.blocked.is_none();
        if std::mem::take(&mut self.progress) || self.timers.blocked.is_none() {
            self.timers.blocked = Some(now);
        }
    }

    /// Whether output waits until the socket takes more.
    pub(crate) fn is_blocked(&self) -> bool {
        self.timers.blocked.is_some()
    }

    /// The socket takes nothing any more. What the peer sent before may still come, and so does the end from there.
    pub(crate) fn send_failed(&mut self, why: impl Into<Cow<'static, str>>, now: Moment) {
        self.timers.blocked = None;
        self.codec.stream().discard_output();
        let why = why.into();
        match &mut self.phase {
            Phase::Open => {
                let by = now + self.limits.close_timeout;
                self.enter(Phase::Unsendable { why, by });
            }
            Phase::Ending { .. } => self.end_held(now),
            Phase::Closing { .. } | Phase::Draining { .. } | Phase::Unsendable { .. } | Phase::Over => {}
        }
        if let Phase::Draining { peer_ended, stream, .. } = &mut self.phase {
            *stream = Stream::Ended;
            if *peer_ended {
                self.enter(Phase::Over);
            }
        }
    }

    // Ends.

    /// Starts the closing handshake, unless the connection has ended already. What was received is not wanted any more.
    pub(crate) fn close(&mut self, code: CloseCode, text: &str, now: Moment) {
        let peer_ended = match &self.phase {
            Phase::Open => None,
            Phase::Ending { end: PeerEnd::Close(..), .. } | Phase::Unsendable { .. } => {
                self.hung_up = true;
                return self.end_held(now);
            }
            Phase::Ending { peer_ended, .. } => Some(*peer_ended),
            Phase::Closing { .. } | Phase::Draining { .. } | Phase::Over => return,
        };
        let (code, text) = self.codec.close(code, text);
        self.set_reason(code, text, self.us());
        self.hung_up = true;
        match peer_ended {
            None => self.enter(Phase::Closing { by: now + self.limits.close_timeout }),
            Some(peer_ended) => self.drain(peer_ended, now),
        }
    }

    /// Ends the connection at once: nothing is sent or received any more.
    pub(crate) fn abort(&mut self, by: ClosedBy, why: impl Into<Cow<'static, str>>) {
        if self.is_over() {
            return;
        }
        if let Phase::Ending { end: PeerEnd::Close(code, text), .. } = &self.phase {
            // Its close frame has said why (RFC 6455, section 7.1.5).
            let (code, text) = (*code, text.clone());
            self.set_reason(code, &text, self.peer());
        }
        self.set_reason(CloseCode::ABNORMAL, &why.into(), by);
        self.enter(Phase::Over);
    }

    /// An end that was held takes effect.
    fn end_held(&mut self, now: Moment) {
        match std::mem::replace(&mut self.phase, Phase::Open) {
            Phase::Ending { end, peer_ended, .. } => self.end_by_peer(end, peer_ended, now),
            Phase::Unsendable { why, .. } => self.abort(ClosedBy::Network, why),
            other => self.phase = other,
        }
    }

    fn peer_ends(&mut self, end: PeerEnd, hold: Hold, now: Moment) {
        let holds = match hold {
            Hold::Nothing => false,
            Hold::Failures => matches!(end, PeerEnd::Failure(_)),
            Hold::All => true,
        };
        let peer_ended = matches!(end, PeerEnd::EndOfStream);
        if holds && matches!(self.phase, Phase::Open) {
            let by = now + self.limits.close_timeout;
            self.enter(Phase::Ending { end, peer_ended, by });
        } else {
            self.end_by_peer(end, peer_ended, now);
        }
    }

    /// The peer's end takes effect; its stream may have ended, too.
    fn end_by_peer(&mut self, end: PeerEnd, peer_ended: bool, now: Moment) {
        match end {
            PeerEnd::Close(code, text) => {
                self.codec.close(code, &text); // the answer (RFC 6455, section 5.5.1)
                self.set_reason(code, &text, self.peer());
                self.drain(peer_ended, now);
            }
            PeerEnd::Failure(Failure { code: CloseCode::ABNORMAL, text }) => {
                self.abort(ClosedBy::Network, text);
            }
            PeerEnd::Failure(failure) => {
                self.codec.fail(&failure);
                self.set_reason(failure.code, &failure.text, self.us());
                self.drain(peer_ended, now);
            }
            PeerEnd::EndOfStream => {
                let why = match self.role {
                    Role::Server => "the client's stream ended without a close frame",
                    Role::Client => "the server's stream ended without a close frame",
                };
                self.set_reason(CloseCode::ABNORMAL, why, ClosedBy::Network);
                self.drain(peer_ended, now);
            }
        }
    }

    /// Nothing is left to say but what is in the output.
    fn drain(&mut self, peer_ended: bool, now: Moment) {
        let by = match self.phase {
            Phase::Closing { by } => by, // one time for the whole closing handshake
            _ => now + self.limits.close_timeout,
        };
        let stream = match self.phase {
            Phase::Unsendable { .. } => Stream::Ended,
            _ => Stream::Open,
        };
        if stream == Stream::Ended && peer_ended {
            return self.enter(Phase::Over);
        }
        self.enter(Phase::Draining { by, peer_ended, stream });
    }

    /// The first reason stays.
    fn set_reason(&mut self, code: CloseCode, text: &str, by: ClosedBy) {
        self.reason.get_or_insert_with(|| CloseReason::new(code, text, by));
    }

    fn enter(&mut self, phase: Phase) {
        if matches!(phase, Phase::Over) {
            self.codec.clear();
            self.timers.blocked = None;
        }
        self.phase = phase;
        self.changed = true;
    }

    // Time.

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub(crate) fn deadline(&self) -> Option<Moment> {
        match &self.phase {
            Phase::Open => self.timers.next(&self.limits).map(|(due, _)| due),
            Phase::Ending { by, .. }
            | Phase::Unsendable { by, .. }
            | Phase::Closing { by }
            | Phase::Draining { by, .. } => Some(*by),
            Phase::Over => None,
        }
    }

    /// Does what is due by now.
    pub(crate) fn handle_timeout(&mut self, now: Moment) {
        while let Some(due) = self.deadline()
            && due <= now
        {
            match self.phase {
                Phase::Open => self.handle_timer(now),
                Phase::Ending { .. } | Phase::Unsendable { .. } => self.end_held(now),
                Phase::Closing { .. } | Phase::Draining { .. } | Phase::Over => {
                    self.abort(ClosedBy::Network, "the closing handshake took too long");
                }
            }
        }
    }

    fn handle_timer(&mut self, now: Moment) {
        match self.timers.next(&self.limits) {
            Some((_, Timer::Write)) => self.abort(self.us(), TOO_SLOW),
            Some((_, Timer::Pong)) => self.abort(ClosedBy::Network, "no answer to a ping"),
            Some((_, Timer::Idle)) => self.close(CloseCode::NORMAL, "idle", now),
            Some((_, Timer::Ping)) => {
                self.codec.ping(now.to_bytes());
                self.timers.pinged = Some(now);
            }
            Some((_, Timer::Cool)) => {
                self.codec.park(true);
                self.timers.warm = false;
            }
            None => {}
        }
    }

    /// Whether the compressor has something now that it gives back later.
    fn look_for_warmth(&mut self) {
        if !self.timers.warm && self.codec.is_warm() {
            (self.timers.warm, self.changed) = (true, true);
        }
    }

    /// A pong to one of our pings carries when that was sent.
    fn measure(&mut self, payload: &[u8], now: Moment) {
        if let Some(sent) = payload.try_into().ok().and_then(Moment::from_bytes) {
            self.round_trip = now.since(sent).as_micros().try_into().ok();
        }
    }

    /// Whether a ping is under way, so that the time has to be exact.
    pub(crate) fn is_measuring(&self) -> bool {
        self.timers.pinged.is_some()
    }

    /// Gives back the buffers that hold nothing.
    pub(crate) fn park(&mut self) {
        self.codec.park(false);
    }

    // What it has come to.

    /// Whether others have to look at what happened; asks once.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// How it ended, or is about to; `None` while messages can be answered.
    pub(crate) fn reason(&self) -> Option<&CloseReason> {
        self.reason.as_ref()
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// Whether an end waits for answers.
    pub(crate) fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending { .. })
    }

    /// Whether messages that were received are not wanted any more.
    pub(crate) fn has_hung_up(&self) -> bool {
        self.hung_up
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// How long the last ping took for its pong.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.round_trip.map(|micros| Duration::from_micros(micros.into()))
    }

    /// Whether messages are received.
    fn is_receiving(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Unsendable { .. })
    }

    /// Whether what is received means anything.
    fn decodes(&self) -> bool {
        self.is_receiving() || matches!(self.phase, Phase::Closing { .. })
    }

    fn us(&self) -> ClosedBy {
        match self.role {
            Role::Server => ClosedBy::Server,
            Role::Client => ClosedBy::Client,
        }
    }

    fn peer(&self) -> ClosedBy {
        match self.role {
            Role::Server => ClosedBy::Client,
            Role::Client => ClosedBy::Server,
        }
    }
}

fn broken(why: &str) -> CloseReason {
    CloseReason::new(CloseCode::ABNORMAL, why, ClosedBy::Network)
}

#[cfg(test)]
mod tests;

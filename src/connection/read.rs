//! Reading: by a connection's own thread, which waits in `recv`, and from a shared connection, by any thread.

use super::*;

/// How long `read` waits where no other time is given (the original's default).
pub const READ_TIMEOUT: Duration = Duration::from_secs(86_400);

/// So many short messages share a buffer: whoever keeps one of them keeps at most 2 KiB alive.
const AHEAD: usize = 15;

/// What decoding came to.
pub(super) enum Step {
    Message(Message),
    /// More bytes are needed. `stuck` output waits for the socket, and nobody has told the gateway.
    Starved {
        stuck: bool,
    },
    /// Output has to be sent first.
    Clogged,
    /// Messages have to be answered first.
    Held,
    /// The reason is set.
    Ended,
}

impl Connection {
    /// At most `len` characters or bytes of the next message, or of the rest of one; and whether they reach its end.
    pub(crate) fn read(self: &Arc<Self>, len: usize, timeout: Duration) -> Result<(Data, bool)> {
        if self.about.shared { self.read_shared(len, timeout) } else { self.read_own(len, timeout) }
    }

    /// Waits for what the gateway receives.
    fn read_shared(self: &Arc<Self>, len: usize, timeout: Duration) -> Result<(Data, bool)> {
        let mut budget = Budget::new(timeout);
        let mut inbox = self.inbox.locked();
        loop {
            if self.hung_up.load(SeqCst) {
                return Err(self.closed());
            }
            if let Some(piece) = inbox.take(len) {
                let mut resume = inbox.resumes(&self.limits);
                if inbox.queue.is_empty() && self.handler.get().is_some() {
                    resume |= std::mem::take(&mut inbox.held);
                }
                if !inbox.queue.is_empty() && inbox.waiting > 0 {
                    self.arrived.notify_one(); // there is something for another reader
                }
                drop(inbox);
                if resume {
                    self.call_gateway();
                }
                return Ok(piece);
            }
            // A worker may still leave a message for us.
            if inbox.complete && inbox.fresh.is_empty() && !inbox.scheduled {
                return Err(self.closed());
            }
            let Some(left) = budget.remaining() else { return Err(Error::Timeout) };
            inbox.waiting += 1;
            if std::mem::take(&mut inbox.held) {
                self.call_gateway();
            }
            inbox = match self.arrived.wait_timeout(inbox, left) {
                Ok((inbox, _)) => inbox,
                Err(poisoned) => poisoned.into_inner().0,
            };
            inbox.waiting -= 1;
        }
    }

    /// For the connection's own thread.
    fn read_own(self: &Arc<Self>, len: usize, timeout: Duration) -> Result<(Data, bool)> {
        let mut inbox = self.inbox.locked();
        let mut budget = Budget::new(timeout);
        let mut last_look = false;
        loop {
            if self.hung_up.load(SeqCst) {
                return Err(self.closed());
            }
            if let Some(piece) = inbox.take(len) {
                self.set_ahead(&inbox);
                return Ok(piece);
            }
            if self.reason().is_some() {
                return Err(self.closed());
            }
            let mut ahead = Vec::new();
            let receiver = inbox.receiver(&self.limits);
            let stepped = self.with_wire(|wire| {
                let stepped = self.step(wire, &mut receiver.buffer, false);
                if let (Step::Message(_), _) = stepped {
                    self.decode_ahead(wire, &mut ahead);
                }
                stepped
            });
            match stepped {
                (Step::Message(message), _) => {
                    inbox.bytes += ahead.iter().map(Message::len).sum::<usize>();
                    inbox::append(&mut inbox.queue, ahead);
                    let piece = inbox.cut(message, len);
                    self.set_ahead(&inbox);
                    return Ok(piece);
                }
                (Step::Ended | Step::Held, _) | (_, None) => {}
                (Step::Starved { stuck }, Some(socket)) => {
                    if stuck {
                        self.call_gateway();
                    }
                    // When the time is up, what is there already is still taken, once: a client that never stops
                    // sending half messages cannot keep the call.
                    let received = match receiver.receive(&socket, &mut budget) {
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock && !last_look => {
                            last_look = true;
                            receiver.try_receive(&socket)
                        }
                        received => received,
                    };
                    self.received(received)?;
                }
                (Step::Clogged, Some(socket)) => {
                    if !socket.wait_writable(budget.deadline())? {
                        return Err(Error::Timeout);
                    }
                }
            }
        }
    }

    /// Decodes short messages that have arrived behind one: together they cost less than one by one.
    pub(super) fn decode_ahead(&self, wire: &mut Wire, messages: &mut Vec<Message>) {
        let before = messages.len();
        wire.codec.take_short(messages, AHEAD);
        wire.counts.messages_in += (messages.len() - before) as u64;
    }

    /// What is decoded and not read: answers to what is before them are collected.
    fn set_ahead(&self, inbox: &Inbox) {
        self.is_ahead.store(!inbox.queue.is_empty(), Relaxed);
    }

    fn received(self: &Arc<Self>, received: io::Result<usize>) -> Result<()> {
        match received {
            Ok(0) => self.with_wire(|wire| self.break_off(wire, ENDED)),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Err(Error::Timeout),
            Err(e) => self.with_wire(|wire| self.break_off(wire, e.to_string())),
        }
        Ok(())
    }

    /// So many bytes came: the client is alive.
    pub(super) fn hear(&self, wire: &mut Wire, bytes: usize) {
        wire.counts.bytes_in += bytes as u64;
        wire.last_heard = self.clock.now();
        wire.pinged = None;
    }

    /// As [`decode`](Self::decode); returns the socket along with it.
    pub(super) fn step(
        &self,
        wire: &mut Wire,
        received: &mut Vec<u8>,
        hold: bool,
    ) -> (Step, Option<Arc<Socket>>) {
        let step = self.decode(wire, received, hold);
        if matches!(step, Step::Message(_)) {
            return (step, None); // no need to count the socket's references for each message
        }
        (step, wire.socket.clone())
    }

    /// Takes in what was received, and decodes up to the next message. With `hold`, earlier messages are not answered yet:
    /// a close frame of ours because of a broken rule has to wait.
    pub(super) fn decode(&self, wire: &mut Wire, received: &mut Vec<u8>, hold: bool) -> Step {
        if !received.is_empty() {
            self.hear(wire, received.len());
        }
        if matches!(wire.phase, Phase::Draining | Phase::Over) {
            received.clear();
        } else if !received.is_empty()
            && let Err(failure) = wire.codec.stream().feed(received)
        {
            self.fail(wire, failure);
        }
        while matches!(wire.phase, Phase::Open | Phase::Closing) {
            let next = wire.held.take().map_or_else(|| wire.codec.next(), |failure| Err(*failure));
            match next {
                Ok(Some(Event::Message(message))) if wire.phase == Phase::Open => {
                    wire.counts.messages_in += 1;
                    wire.last_message = wire.last_heard;
                    return Step::Message(message);
                }
                // What comes after our close frame is not wanted.
                Ok(Some(Event::Message(_) | Event::Ping)) => {}
                Ok(Some(Event::Pong(payload))) => {
                    if let Some(sent) = payload.as_ref().try_into().ok().map(u64::from_be_bytes) {
                        let micros = self.clock.micros().checked_sub(sent);
                        wire.round_trip = micros.and_then(|micros| micros.try_into().ok());
                    }
                }
                Ok(Some(Event::Close(code, text))) => {
                    self.end(wire, Phase::Draining, CloseReason::new(code, text, ClosedBy::Client));
                }
                Ok(None) if wire.codec.stream().ended() => {
                    self.break_off(wire, "the client ended TLS without a close frame");
                }
                Ok(None) => {
                    let stuck = !wire.blocked && self.flush(wire).is_some();
                    let stream = wire.codec.stream();
                    if stream.pending() > CLOGGED {
                        return Step::Clogged;
                    }
                    if received.capacity() == 0 {
                        *received = stream.spare_buffer();
                    }
                    return Step::Starved { stuck };
                }
                Err(failure) if hold => {
                    wire.held = Some(Box::new(failure));
                    return Step::Held;
                }
                Err(failure) => self.fail(wire, failure),
            }
        }
        self.flush(wire);
        Step::Ended
    }
}

pub(super) const ENDED: &str = "the client's stream ended without a close frame";

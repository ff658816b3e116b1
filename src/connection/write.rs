//! Writing: by whoever wants to wait for a slow client, by handlers that must not, and by any thread that pushes.

use super::*;

/// What came of a write.
enum Sent {
    All,
    Collected(Collected),
    Blocked(Arc<Socket>, u64),
    /// Others are before us, and the socket takes no more.
    Behind(Arc<Socket>),
}

impl Connection {
    /// Sends one message. Returns when the kernel has it, or when it is collected with other answers.
    pub(crate) fn write(self: &Arc<Self>, message: Message) -> Result<()> {
        if self.look_is_due.load(Relaxed) {
            self.stand_in(); // all that was written is sent, so nothing is in the way now
        }
        let outgoing = self.prepare(message, None);
        let (mut outgoing, mut turn) = (Some(outgoing), None);
        let mut budget = Budget::new(self.limits.write_timeout);
        loop {
            let sent: Result<Sent> = self.with_wire(|wire| {
                self.check_open(wire)?;
                if wire.blocked || !self.outbox_is_empty() {
                    let ahead = || wire.drained + self.outbox.get().map_or(0, |outbox| outbox.len() as u64);
                    let turn = *turn.get_or_insert_with(ahead);
                    let blocked = self.drain(wire);
                    self.check_open(wire)?;
                    if let (true, Some(socket)) = (blocked && wire.drained < turn, wire.socket.clone()) {
                        return Ok(Sent::Behind(socket));
                    }
                }
                if let Some(outgoing) = outgoing.take() {
                    wire.encode(outgoing);
                    wire.last_message = self.clock.now();
                }
                match wire.collect(self.is_ahead.load(Relaxed)) {
                    Collected::No => {}
                    collected => return Ok(Sent::Collected(collected)),
                }
                let generation = wire.generation;
                let blocked = self.flush(wire);
                self.check_open(wire)?;
                Ok(blocked.map_or(Sent::All, |socket| Sent::Blocked(socket, generation)))
            });
            match sent? {
                Sent::All => return Ok(()),
                Sent::Collected(collected) => {
                    self.have_sent(collected);
                    return Ok(());
                }
                Sent::Blocked(socket, generation) => return self.wait_sent(&socket, generation),
                Sent::Behind(socket) => {
                    if !socket.wait_writable(budget.deadline())? {
                        self.with_wire(|wire| self.break_off_by(wire, ClosedBy::Server, TOO_SLOW));
                        return Err(Error::Timeout);
                    }
                }
            }
        }
    }

    /// Sends one message of a handler that is called for each message, and never waits: what the socket does not take
    /// is queued. While `more` messages wait for the handler, its answers are collected.
    pub(crate) fn post(self: &Arc<Self>, message: Message, more: bool) -> Result<()> {
        let mut outgoing = Some(self.prepare(message, None));
        let (mut collected, mut blocked) = (Collected::No, false);
        self.with_wire(|wire| -> Result<()> {
            self.check_open(wire)?;
            if wire.blocked || !self.outbox_is_empty() {
                return Ok(());
            }
            if let Some(outgoing) = outgoing.take() {
                wire.encode(outgoing);
                wire.last_message = self.clock.now();
            }
            collected = wire.collect(more);
            blocked = collected == Collected::No && self.flush(wire).is_some();
            Ok(())
        })?;
        self.have_sent(collected);
        if blocked {
            // The gateway watches the socket, but may have seen it take more before it saw that this is awaited.
            self.call_gateway();
        }
        match outgoing {
            None => Ok(()),
            Some(outgoing) => self.push_outgoing(outgoing).map(drop).map_err(|_| self.closed()),
        }
    }

    /// Sends one message from any thread, and never waits for the network. A message that goes to others, too, comes with
    /// its compressed `forms`.
    pub(crate) fn push(
        self: &Arc<Self>,
        message: Message,
        forms: Option<&Forms>,
    ) -> Result<Pushed, PushError> {
        if self.reason().is_some() {
            return Err(PushError { kind: PushErrorKind::Closed(self.closed_reason()), message });
        }
        self.push_outgoing(self.prepare(message, forms))
    }

    fn push_outgoing(self: &Arc<Self>, mut outgoing: Outgoing) -> Result<Pushed, PushError> {
        let mut deadline = None;
        let kind = loop {
            let kind = match self.try_push(outgoing) {
                Ok(pushed) => return Ok(pushed),
                Err((kind, back)) => {
                    outgoing = back;
                    kind
                }
            };
            match (&kind, self.about.overflow) {
                (PushErrorKind::Full, Overflow::Disconnect) => {
                    self.disconnect(CloseCode::TRY_AGAIN, "too slow");
                    break PushErrorKind::Closed(self.closed_reason());
                }
                (PushErrorKind::Full, Overflow::Block(timeout)) => {
                    let by = *deadline.get_or_insert_with(|| Deadline::after(timeout));
                    if !self.outbox.get().is_some_and(|outbox| outbox.wait_for_room(by)) {
                        break kind;
                    }
                }
                _ => break kind,
            }
        };
        Err(PushError { kind, message: outgoing.message })
    }

    fn try_push(self: &Arc<Self>, outgoing: Outgoing) -> Result<Pushed, (PushErrorKind, Outgoing)> {
        let gone = |outgoing| (PushErrorKind::Closed(self.closed_reason()), outgoing);
        if self.reason().is_some() {
            return Err(gone(outgoing));
        }
        if let Some(mut wire) = self.wire.try_locked() {
            if self.check_open(&wire).is_err() {
                drop(wire);
                return Err(gone(outgoing));
            }
            if !wire.blocked && self.outbox_is_empty() {
                wire.encode(outgoing);
                wire.last_message = self.clock.now();
                let blocked = self.flush(&mut wire).is_some();
                let announce = std::mem::take(&mut wire.announce);
                drop(wire);
                if announce {
                    self.announce();
                }
                self.pump();
                if blocked {
                    self.call_gateway();
                }
                return Ok(if blocked { Pushed::Queued } else { Pushed::Sent });
            }
        }
        let outbox = self.outbox.get_or_init(|| Box::new(Outbox::new()));
        outbox.put(outgoing, &self.limits).map_err(|outgoing| (PushErrorKind::Full, outgoing))?;
        self.pump();
        Ok(Pushed::Queued)
    }

    /// Ends the connection of a client that is too slow: what is queued is dropped, the close frame goes behind what
    /// is half sent.
    fn disconnect(self: &Arc<Self>, code: CloseCode, text: &str) {
        if let Some(outbox) = self.outbox.get() {
            outbox.clear();
        }
        self.close(code, text);
    }

    /// Sends what was collected. Returns when the kernel has all of it.
    pub(crate) fn flush_all(self: &Arc<Self>) -> Result<()> {
        let blocked: Result<_> = self.with_wire(|wire| {
            self.check_open(wire)?;
            let generation = wire.generation;
            Ok(self.flush(wire).map(|socket| (socket, generation)))
        });
        match blocked? {
            None => Ok(()),
            Some((socket, generation)) => self.wait_sent(&socket, generation),
        }
    }

    /// Waits, without the lock, until the output was empty once.
    fn wait_sent(self: &Arc<Self>, socket: &Socket, generation: u64) -> Result<()> {
        let deadline = Deadline::after(self.limits.write_timeout);
        loop {
            let in_time = socket.wait_writable(deadline)?;
            let done = self.with_wire(|wire| {
                self.flush(wire);
                match self.reason() {
                    // An end that came after our bytes were sent does not concern them.
                    Some(_) if wire.generation == generation => Err(self.closed()),
                    None if wire.broken.is_some() => self.check_open(wire).map(|()| true),
                    None if !in_time && wire.generation == generation => {
                        self.break_off_by(wire, ClosedBy::Server, TOO_SLOW);
                        Err(Error::Timeout)
                    }
                    _ => Ok(wire.generation > generation),
                }
            })?;
            if done {
                return Ok(());
            }
        }
    }

    /// The gateway sends what is collected within a millisecond, whatever the handler does next.
    fn have_sent(self: &Arc<Self>, collected: Collected) {
        if collected == Collected::First
            && !self.collects.swap(true, SeqCst)
            && !self.looked_after.load(SeqCst)
            && let Some(gateway) = self.gateway.upgrade()
        {
            gateway.call_soon(self);
        }
    }
}

pub(super) const TOO_SLOW: &str = "the client did not take what was sent in time";

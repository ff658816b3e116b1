//! The link: numbers requests, sends them, and brings answers to those who wait for them, for as long as each is to wait.

use std::{
    collections::HashMap,
    fmt,
    ops::Deref,
    sync::{
        Arc, Condvar, Mutex, MutexGuard,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;

use super::{
    call::{Call, Reply},
    carrier::Carrier,
    failure::Trouble,
};
use crate::{
    deadline::Deadline,
    error::{CloseReason, ClosedBy, Error, OverLimit, Result},
    id::WebSocketId,
    message::CloseCode,
    sync::{LockExt, wait},
    thread::must_not_wait,
    wire::{Answer, AsText, Frames, Hello, Malformed, Request, UNANSWERED, append, as_usize, decode},
};

/// So many requests are unanswered at most, or fewer if the server wants that.
const MAX_UNANSWERED: usize = 1024;

/// What all who use a hub of another process have in common; dropped with the last of them, it ends the link.
#[derive(Debug)]
pub(crate) struct Linked(Arc<Link>);

impl Linked {
    pub(crate) fn new(link: Arc<Link>) -> Arc<Self> {
        Arc::new(Self(link))
    }
}

impl Deref for Linked {
    type Target = Link;

    fn deref(&self) -> &Link {
        &self.0
    }
}

impl Drop for Linked {
    fn drop(&mut self) {
        self.0.close();
    }
}

pub(crate) struct Link {
    /// Where it leads, for whoever looks at it.
    place: String,
    /// How long an answer is waited for.
    answer_timeout: Duration,
    numbers: AtomicU32,
    state: Mutex<State>,
    /// There is room for a request.
    room: Condvar,
    /// It is to end.
    ended: Condvar,
    /// Who makes a line when there is none and one is wanted; `None`: a thread that keeps the link.
    dialer: Option<Dialing>,
}

/// Makes lines.
pub(crate) trait Dial: fmt::Debug + Send + Sync {
    /// # Errors
    /// [`Error::Unreachable`], or why there is none.
    fn dial(&self) -> Result<Arc<Line>>;

    /// Whether a line that was made has not ended.
    fn is_open(&self, line: &Arc<Line>) -> bool;
}

#[derive(Debug)]
struct Dialing {
    dialer: Box<dyn Dial>,
    /// One dials at a time. Whoever has waited for another one does not try again what that could not do.
    attempts: AtomicU32,
    turn: Mutex<()>,
}

#[derive(Default)]
struct State {
    line: Option<Arc<Line>>,
    unanswered: HashMap<u32, Unanswered>,
    /// So many wait for room.
    waiting: usize,
    is_closed: bool,
}

/// The way to the other process that there is now.
#[derive(Debug)]
pub(crate) struct Line {
    carrier: Box<dyn Carrier>,
    /// Bytes of the longest message that the server takes.
    max_message: usize,
    max_unanswered: usize,
    /// How long the server may wait for a handshake, and for a client that takes nothing.
    handshake_timeout: Duration,
    write_timeout: Duration,
}

/// A request that was not answered yet.
struct Unanswered {
    /// Who waits for the answer, and which of those that it waits for this is. Whoever has given up has left.
    call: Option<(Arc<Call>, usize)>,
    /// The handle, if the answer may be something to give back: a delivery.
    handle: Option<u32>,
}

/// Requests as they go out: frames, one behind the other.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    /// Of those that are answered.
    numbers: Vec<u32>,
    handle: Option<u32>,
    /// One of them sends something to a client, which must not come behind what is sent later.
    is_ordered: bool,
}

impl Line {
    pub(crate) fn new(carrier: impl Carrier + 'static, hello: &Hello<'_>) -> Arc<Self> {
        Arc::new(Self {
            carrier: Box::new(carrier),
            max_message: as_usize(hello.max_message),
            max_unanswered: MAX_UNANSWERED.min(hello.max_unanswered as usize).max(1),
            handshake_timeout: Duration::from_millis(hello.handshake_timeout),
            write_timeout: Duration::from_millis(hello.write_timeout),
        })
    }

    /// Ends it: the other side has broken the protocol.
    pub(crate) fn refuse(&self, malformed: Malformed) {
        self.carrier.refuse(malformed);
    }

    /// Bytes of the longest message that may be sent.
    pub(super) fn max_message(&self) -> usize {
        self.max_message
    }

    /// How many requests may be unanswered.
    pub(super) fn max_unanswered(&self) -> usize {
        self.max_unanswered
    }

    /// How long the opening handshake of a client may take.
    pub(crate) fn handshake_timeout(&self) -> Duration {
        self.handshake_timeout
    }

    /// How long a write to a client may take.
    pub(crate) fn write_timeout(&self) -> Duration {
        self.write_timeout
    }
}

impl Outgoing {
    /// Adds a request that is not answered.
    pub(super) fn tell(&mut self, request: &Request<'_>) {
        // What is too long for a frame is never told.
        let _ = append(&mut self.bytes, UNANSWERED, request);
    }

    /// Bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Requests that are answered.
    pub(super) fn count(&self) -> usize {
        self.numbers.len()
    }

    /// Takes the last request back, which made it longer than this.
    pub(super) fn truncate(&mut self, length: usize) {
        self.bytes.truncate(length);
        self.numbers.pop();
    }
}

impl Link {
    /// A link to this place, which is not connected yet.
    pub(crate) fn new(place: String, answer_timeout: Duration) -> Arc<Self> {
        Arc::new(Self::made(place, answer_timeout, None))
    }

    /// One that is connected when it is used.
    #[cfg(feature = "cluster")]
    pub(crate) fn dialed(place: String, answer_timeout: Duration, dialer: impl Dial + 'static) -> Arc<Self> {
        let dialing =
            Dialing { dialer: Box::new(dialer), attempts: AtomicU32::new(0), turn: Mutex::default() };
        Arc::new(Self::made(place, answer_timeout, Some(dialing)))
    }

    fn made(place: String, answer_timeout: Duration, dialer: Option<Dialing>) -> Self {
        Self {
            place,
            answer_timeout,
            numbers: AtomicU32::new(1),
            state: Mutex::default(),
            room: Condvar::new(),
            ended: Condvar::new(),
            dialer,
        }
    }

    // For those who ask.

    /// The connection that there is.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn line(&self) -> Result<Arc<Line>> {
        let line = self.state.locked().line.clone();
        match (line, &self.dialer) {
            (Some(line), _) => Ok(line),
            (None, None) => Err(Error::Unreachable),
            (None, Some(_)) if must_not_wait() => Err(Error::MustNotWait),
            (None, Some(dialing)) => self.dial(dialing),
        }
    }

    fn dial(&self, dialing: &Dialing) -> Result<Arc<Line>> {
        let before = dialing.attempts.load(Relaxed);
        let _turn = dialing.turn.locked();
        if let Some(line) = &self.state.locked().line {
            return Ok(line.clone());
        }
        if dialing.attempts.load(Relaxed) != before {
            return Err(Error::Unreachable);
        }
        let line = dialing.dialer.dial();
        dialing.attempts.fetch_add(1, Relaxed);
        let line = line?;
        // It may have ended before this link had it.
        if !self.begin(&line) || !dialing.dialer.is_open(&line) {
            self.end_line(&line);
            return Err(Error::Unreachable);
        }
        Ok(line)
    }

    /// Asks, and waits for the answer, for as long as that may take, and `extra` in addition. What is taken of it must be what answers
    /// such a request.
    ///
    /// # Errors
    /// What the other process says, and [`Error::Unreachable`], [`Error::MustNotWait`], [`Error::OverLimit`].
    pub(crate) fn ask<T>(
        &self,
        request: &Request<'_>,
        extra: Duration,
        take: impl FnOnce(Answer<'_>) -> Option<T>,
    ) -> Result<T> {
        let line = self.line()?;
        let asked = self.ask_on(&line, &[], request, extra, |answer, _| take(answer));
        asked.map_err(Trouble::into_error)
    }

    /// As [`ask`](Self::ask), of a connection that may still be being opened.
    pub(crate) fn ask_opening<T>(
        &self,
        request: &Request<'_>,
        take: impl FnOnce(Answer<'_>) -> Option<T>,
    ) -> Result<T> {
        self.ask(request, self.line()?.handshake_timeout, take)
    }

    /// How a connection has ended; `None` while it is open.
    pub(crate) fn close_reason(&self, id: &WebSocketId) -> Result<Option<CloseReason>> {
        self.ask(&Request::CloseReason { id: AsText(*id) }, Duration::ZERO, ended)
    }

    /// As [`ask`](Self::ask), on this connection and no other, and tells some things before.
    pub(super) fn ask_on<T>(
        &self,
        line: &Arc<Line>,
        before: &[Request<'_>],
        request: &Request<'_>,
        extra: Duration,
        take: impl FnOnce(Answer<'_>, &Bytes) -> Option<T>,
    ) -> std::result::Result<T, Trouble> {
        let mut outgoing = Outgoing::default();
        before.iter().for_each(|request| outgoing.tell(request));
        self.add(&mut outgoing, request)?;
        let reply = self.exchange(line, outgoing, extra)?.pop().flatten().ok_or(Error::Unreachable)?;
        match reply.answer() {
            Ok(Answer::Failed(failure)) => Err(failure.into()),
            Ok(answer) => take(answer, reply.bytes()).ok_or_else(|| self.misunderstood(line).into()),
            Err(malformed) => {
                line.refuse(malformed);
                Err(Error::Unreachable.into())
            }
        }
    }

    /// An answer is none to what was asked: there is no telling what the next ones are.
    pub(super) fn misunderstood(&self, line: &Line) -> Error {
        line.refuse(Malformed("an answer to something else"));
        Error::Unreachable
    }

    /// Adds a request.
    ///
    /// # Errors
    /// It is too long for a frame.
    pub(super) fn add(&self, outgoing: &mut Outgoing, request: &Request<'_>) -> Result<()> {
        let mut number = self.numbers.fetch_add(1, Relaxed);
        if number == UNANSWERED {
            number = self.numbers.fetch_add(1, Relaxed);
        }
        append(&mut outgoing.bytes, number, request).map_err(|_| OverLimit::Message)?;
        outgoing.numbers.push(number);
        outgoing.is_ordered |= matches!(request, Request::PushWait { .. } | Request::Write { .. });
        if let Request::Read { handle, .. } = request {
            outgoing.handle = Some(*handle);
        }
        Ok(())
    }

    /// Sends requests, and waits for their answers. Those that did not come in time are `None`.
    ///
    /// # Errors
    /// As [`ask`](Self::ask), for all of them: none was sent, or none will be answered.
    pub(super) fn exchange(
        &self,
        line: &Arc<Line>,
        outgoing: Outgoing,
        extra: Duration,
    ) -> std::result::Result<Vec<Option<Reply>>, Trouble> {
        if must_not_wait() {
            return Err(Error::MustNotWait.into());
        }
        let Outgoing { bytes, numbers, handle, is_ordered } = outgoing;
        if bytes.len() > line.max_message {
            return Err(Error::from(OverLimit::Message).into());
        }
        let deadline = Deadline::after(self.answer_timeout.saturating_add(extra));
        let call = Arc::new(Call::new(numbers.len()));
        self.register(line, &call, &numbers, handle, deadline)?;
        match line.carrier.send(bytes, deadline) {
            Ok(sent) => {
                if !call.wait(deadline) {
                    self.give_up(line, &numbers, sent);
                    if is_ordered && line.carrier.loses() {
                        line.carrier.end();
                    }
                }
            }
            // It is about to end, and nothing was sent.
            Err(_) => self.forget(&numbers),
        }
        Ok(call.take())
    }

    /// Waits for places for so many requests, and takes them.
    fn register(
        &self,
        line: &Arc<Line>,
        call: &Arc<Call>,
        numbers: &[u32],
        handle: Option<u32>,
        deadline: Deadline,
    ) -> std::result::Result<(), Trouble> {
        let mut state = self.state.locked();
        loop {
            if !state.has(line) {
                return Err(Trouble::Stale);
            }
            if state.unanswered.len() + numbers.len() <= line.max_unanswered {
                break;
            }
            // Where answers can get lost, those that nobody waits for may never come.
            if line.carrier.loses() && state.unanswered.values().any(|one| one.call.is_none()) {
                drop(state);
                line.carrier.end();
                return Err(Trouble::Stale);
            }
            let Some(left) = deadline.remaining() else { return Err(Error::Unreachable.into()) };
            state.waiting += 1;
            state = wait(&self.room, state, left);
            state.waiting -= 1;
        }
        for (index, number) in numbers.iter().enumerate() {
            let call = Some((call.clone(), index));
            state.unanswered.insert(*number, Unanswered { call, handle });
        }
        Ok(())
    }

    /// The time is up. What was not sent yet never will be; else its answer may still come, and it keeps its place until then.
    fn give_up(&self, line: &Line, numbers: &[u32], sent: u32) {
        if line.carrier.take_back(sent) {
            self.forget(numbers);
            return;
        }
        let mut state = self.state.locked();
        for number in numbers {
            if let Some(unanswered) = state.unanswered.get_mut(number) {
                unanswered.call = None;
            }
        }
        if line.carrier.loses() {
            self.tell_room(&state); // of these there may never be any
        }
    }

    fn forget(&self, numbers: &[u32]) {
        let mut state = self.state.locked();
        for number in numbers {
            state.unanswered.remove(number);
        }
        self.tell_room(&state);
    }

    fn tell_room(&self, state: &State) {
        if state.waiting > 0 {
            self.room.notify_all();
        }
    }

    /// Tells something that nobody waits for, if the connection is still there. What it does not take is queued, behind what was
    /// asked; where too much is, the connection is ended, and with it all that this could be about.
    pub(super) fn tell(&self, line: &Line, requests: &[Request<'_>]) {
        let mut outgoing = Outgoing::default();
        requests.iter().for_each(|request| outgoing.tell(request));
        line.carrier.tell(outgoing.bytes);
    }

    // For the thread that keeps the link.

    /// There is a connection. False: it is not wanted any more.
    pub(crate) fn begin(&self, line: &Arc<Line>) -> bool {
        let mut state = self.state.locked();
        if state.is_closed {
            return false;
        }
        state.line = Some(line.clone());
        true
    }

    /// Answers have come.
    pub(crate) fn receive(&self, line: &Line, bytes: &Bytes) {
        for frame in Frames::of(bytes) {
            match frame {
                Ok((number, body)) => self.answer(line, number, bytes.slice_ref(body)),
                Err(malformed) => return line.refuse(malformed),
            }
        }
    }

    fn answer(&self, line: &Line, number: u32, body: Bytes) {
        let mut state = self.state.locked();
        let unanswered = state.unanswered.remove(&number);
        self.tell_room(&state);
        match unanswered {
            // Under the lock: so whoever gives up has it, or it is given back.
            Some(Unanswered { call: Some((call, index)), .. }) => call.answer(index, Reply::new(body)),
            Some(Unanswered { handle, .. }) => {
                drop(state);
                self.give_back(line, handle, &body);
            }
            None => {
                drop(state); // which the end of a line takes
                line.refuse(Malformed("an answer to nothing"));
            }
        }
    }

    /// What nobody waits for any more must not stay taken.
    fn give_back(&self, line: &Line, handle: Option<u32>, body: &[u8]) {
        match (decode(body), handle) {
            (Ok(Answer::Delivery(delivery)), Some(handle)) => {
                self.tell(line, &[Request::GiveBack { handle, delivery: delivery.delivery }]);
            }
            (Ok(Answer::Opened(opened)), _) => self.tell(line, &[Request::Release { handle: opened.handle }]),
            _ => {}
        }
    }

    /// This line has ended, if it is the one that there is.
    pub(crate) fn end_line(&self, line: &Arc<Line>) {
        let state = self.state.locked();
        if state.has(line) {
            self.end_now(state);
        }
    }

    /// The connection has ended: nobody gets an answer any more.
    pub(crate) fn end(&self) {
        self.end_now(self.state.locked());
    }

    fn end_now(&self, mut state: MutexGuard<'_, State>) {
        state.line = None;
        let unanswered = std::mem::take(&mut state.unanswered);
        self.room.notify_all();
        drop(state);
        for (call, _) in unanswered.into_values().filter_map(|unanswered| unanswered.call) {
            call.lose();
        }
    }

    /// Waits for so long before the next attempt. False: none is wanted.
    pub(crate) fn pause(&self, delay: Duration) -> bool {
        let deadline = Deadline::after(delay);
        let mut state = self.state.locked();
        while !state.is_closed
            && let Some(left) = deadline.remaining()
        {
            state = wait(&self.ended, state, left);
        }
        !state.is_closed
    }

    fn close(&self) {
        let mut state = self.state.locked();
        state.is_closed = true;
        let line = state.line.clone();
        drop(state);
        self.ended.notify_all();
        if let Some(line) = line {
            line.carrier.end();
        }
    }
}

/// What an answer says of an end.
pub(crate) fn ended(answer: Answer<'_>) -> Option<Option<CloseReason>> {
    match answer {
        Answer::Ended(reason) => Some(reason.map(CloseReason::from)),
        _ => None,
    }
}

pub(crate) fn is_done(answer: Answer<'_>) -> Option<()> {
    matches!(answer, Answer::Done).then_some(())
}

/// Of a connection that there was.
pub(crate) fn unknown_end() -> CloseReason {
    CloseReason::new(CloseCode::ABNORMAL, "ended, and its server does not know how", ClosedBy::Network)
}

impl State {
    fn has(&self, line: &Arc<Line>) -> bool {
        self.line.as_ref().is_some_and(|here| Arc::ptr_eq(here, line))
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hub({})", self.place)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{OnceLock, Weak},
        thread,
        time::Instant,
    };

    use super::*;

    /// Answers nothing.
    #[derive(Debug, Default)]
    struct Silent(Arc<OnceLock<Weak<Link>>>);

    impl Carrier for Silent {
        fn send(&self, _: Vec<u8>, _: Deadline) -> Result<u32> {
            Ok(0)
        }

        fn take_back(&self, _: u32) -> bool {
            false
        }

        fn tell(&self, _: Vec<u8>) {}

        fn refuse(&self, _: Malformed) {}

        fn end(&self) {
            self.0.get().and_then(Weak::upgrade).unwrap().end();
        }

        fn loses(&self) -> bool {
            true
        }
    }

    #[test]
    fn who_waits_for_room_is_told_that_there_may_never_be_any() {
        let link = Link::new(String::new(), Duration::from_millis(200));
        let carrier = Silent::default();
        carrier.0.set(Arc::downgrade(&link)).unwrap();
        let hello = Hello { max_unanswered: 1, ..Hello::of_client(1000, 1) };
        assert!(link.begin(&Line::new(carrier, &hello)));
        let ask = |extra| link.ask(&Request::Len, Duration::from_secs(extra), |_| Some(()));
        thread::scope(|scope| {
            scope.spawn(|| ask(0));
            while link.state.locked().unanswered.is_empty() {
                thread::yield_now();
            }
            let begun = Instant::now();
            assert!(matches!(ask(60), Err(Error::Unreachable)));
            assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
        });
    }
}

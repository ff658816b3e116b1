//! A client and a server that do anything in any order at any time, over a network that cuts bytes anywhere, takes none for
//! a while, and breaks.

use proptest::prelude::*;

use super::*;

/// Which end.
const SERVER: usize = 0;
const CLIENT: usize = 1;

#[derive(Clone, Debug)]
enum Step {
    Send(Message),
    /// The compressor, if it is out, comes back.
    BringBack,
    Close(u16),
    Abort,
    /// The socket takes so many bytes, and then no more until the next time.
    Flush(usize),
    /// So many bytes arrive, at most, or the end if there are none.
    Receive(usize, Hold),
    Poll(Hold),
    Pause,
    Resume,
    Later(Duration),
    /// As late as the deadline, or a bit later, and what is due is done.
    Timeout(Duration),
    HandleTimeout,
    Park,
    /// The connection is reset: all that is under way is lost, and both ends learn of it when they try the next time.
    Reset,
    /// The peer sees the end of this end's stream, and nothing that is sent later.
    CutOff,
    /// The socket takes nothing more for ever.
    Break,
}

fn hold() -> impl Strategy<Value = Hold> + Clone {
    prop_oneof![Just(Hold::Nothing), Just(Hold::Answers)]
}

/// Some are compressed while the compressor is out, some are sent without a copy.
fn message() -> impl Strategy<Value = Message> {
    let size = prop_oneof![6 => 0..200usize, 1 => 4_000..6_000usize, 2 => 16_384..20_000usize];
    (size, any::<bool>(), any::<u8>()).prop_map(|(size, is_text, salt)| match is_text {
        true => Message::from(format!("{salt},").repeat(size / 4)),
        false => Message::from((0..size).map(|i| (i * i / 7) as u8 ^ salt).collect::<Vec<_>>()),
    })
}

fn step() -> impl Strategy<Value = Step> {
    let bytes = || prop_oneof![1..20usize, 1..500usize, Just(usize::MAX)];
    let millis = |max: u64| (0..max).prop_map(Duration::from_millis);
    let code = prop_oneof![Just(1000), Just(1001), Just(4000), any::<u16>()];
    prop_oneof![
        40 => message().prop_map(Step::Send),
        20 => Just(Step::BringBack),
        60 => prop_oneof![1 => Just(0), 3 => bytes()].prop_map(Step::Flush),
        60 => (bytes(), hold()).prop_map(|(bytes, hold)| Step::Receive(bytes, hold)),
        10 => hold().prop_map(Step::Poll),
        5 => Just(Step::Pause),
        5 => Just(Step::Resume),
        10 => millis(4_000).prop_map(Step::Later),
        4 => millis(100).prop_map(Step::Timeout),
        10 => Just(Step::HandleTimeout),
        5 => Just(Step::Park),
        4 => code.prop_map(Step::Close),
        1 => Just(Step::Abort),
        1 => Just(Step::Reset),
        1 => Just(Step::CutOff),
        1 => Just(Step::Break),
    ]
}

struct Pair {
    ends: [Driven; 2],
    /// So much of what an end's socket took has arrived.
    arrived: [usize; 2],
    /// What is beyond is lost, and the end of the stream arrives instead.
    cut_off: [Option<usize>; 2],
    end_arrived: [bool; 2],
    is_reset: bool,
    sent: [Vec<Message>; 2],
    compressing: [Option<(Box<Compressing>, Message)>; 2],
    paused: [bool; 2],
    /// Something was done that may leave an end in the dark until its deadline.
    is_disturbed: bool,
}

impl Pair {
    fn new(deflate: Option<Deflate>, shared: bool) -> Self {
        let limits = Arc::new(limits());
        let end = |role, deflate, shared| Driven::new(role, &limits, deflate, shared);
        Self {
            ends: [
                end(Role::Server, deflate, shared),
                end(Role::Client, deflate.map(Deflate::of_peer), false),
            ],
            arrived: [0; 2],
            cut_off: [None; 2],
            end_arrived: [false; 2],
            is_reset: false,
            sent: [Vec::new(), Vec::new()],
            compressing: [None, None],
            paused: [false; 2],
            is_disturbed: false,
        }
    }

    fn step(&mut self, at: usize, step: Step) {
        let end = &mut self.ends[at];
        match step {
            Step::Send(message) => {
                if end.protocol.check_sendable().is_ok() && !end.protocol.is_compressing() {
                    match end.send(message.clone()) {
                        None => self.sent[at].push(message),
                        Some(compressing) => self.compressing[at] = Some((compressing, message)),
                    }
                }
            }
            Step::BringBack => self.bring_back(at),
            Step::Close(code) => end.close(code),
            Step::Abort => {
                end.call(|protocol, _| protocol.abort(protocol.us(), "enough"));
                self.is_disturbed = true;
            }
            Step::Flush(bytes) => {
                end.room = bytes;
                end.pump();
            }
            Step::Receive(bytes, hold) => self.receive(at, bytes, hold),
            Step::Poll(hold) => end.poll(hold),
            Step::Pause => {
                end.call(|protocol, _| protocol.pause());
                self.paused[at] = true;
            }
            Step::Resume => {
                end.call(Protocol::resume);
                self.paused[at] = false;
            }
            Step::Later(time) => self.later(self.ends[at].now + time),
            Step::Timeout(late) => {
                if let Some(deadline) = self.ends[at].protocol.deadline() {
                    self.later(deadline + late);
                    self.ends[at].handle_timeout();
                }
            }
            Step::HandleTimeout => end.handle_timeout(),
            Step::Park => end.call(|protocol, _| protocol.park()),
            Step::Reset => {
                self.is_reset = true;
                self.is_disturbed = true;
                self.ends.iter_mut().for_each(|end| end.is_broken = true);
            }
            Step::CutOff => {
                self.cut_off[at].get_or_insert(self.ends[at].taken.len());
                self.is_disturbed = true;
            }
            Step::Break => {
                end.is_broken = true;
                self.is_disturbed = true;
            }
        }
    }

    fn later(&mut self, now: Moment) {
        for end in &mut self.ends {
            end.now = end.now.max(now);
        }
    }

    fn bring_back(&mut self, at: usize) {
        if let Some((mut compressing, message)) = self.compressing[at].take() {
            compressing.run();
            if self.ends[at].protocol.check_sendable().is_ok() {
                self.sent[at].push(message);
            }
            self.ends[at].call(|protocol, _| protocol.compressed(*compressing));
        }
    }

    /// What is under way to this end arrives, as far as it is wanted.
    fn receive(&mut self, at: usize, bytes: usize, hold: Hold) {
        let [from, to] = match at {
            SERVER => [CLIENT, SERVER],
            _ => [SERVER, CLIENT],
        };
        if self.paused[to] || self.end_arrived[to] || !self.ends[to].protocol.wants_input() {
            return;
        }
        if self.is_reset {
            self.end_arrived[to] = true;
            return self.ends[to].call(|protocol, _| protocol.receive_failed("reset"));
        }
        let taken = self.ends[from].taken.len();
        let until = self.cut_off[from].unwrap_or(taken);
        let chunk = self.arrived[from]..until.min(self.arrived[from].saturating_add(bytes));
        if !chunk.is_empty() {
            self.arrived[from] = chunk.end;
            let chunk = self.ends[from].taken[chunk].to_vec();
            self.ends[to].receive(&chunk, hold);
        } else if self.cut_off[from].is_some() || self.ends[from].ended || self.ends[from].protocol.is_over()
        {
            // The socket of an end that is over is closed.
            self.end_arrived[to] = true;
            self.ends[to].receive_end(hold);
        }
    }

    /// The network is as it should be from now on, and both ends are driven until they are over.
    fn finish(&mut self) {
        let begin = self.ends[SERVER].now;
        for at in [SERVER, CLIENT] {
            self.bring_back(at);
            self.step(at, Step::Resume);
        }
        let has_begun = |end: &Driven| !matches!(end.protocol.phase, Phase::Open);
        if !self.ends.iter().any(has_begun) {
            self.ends[SERVER].close(1000);
        }
        for _ in 0..20 {
            let before = self.progress();
            for at in [SERVER, CLIENT] {
                self.step(at, Step::Flush(usize::MAX));
                self.step(at, Step::Receive(usize::MAX, Hold::Nothing));
                self.step(at, Step::Poll(Hold::Nothing));
            }
            if self.ends.iter().all(|end| end.protocol.is_over()) {
                break;
            }
            if self.progress() == before {
                assert!(
                    self.is_disturbed,
                    "it waits for nothing: {:?}",
                    self.ends.each_ref().map(Driven::phase)
                );
                // An end in the dark. What is due may be a ping: then the other knows of the end.
                let due = self.ends.iter().filter_map(|end| end.protocol.deadline()).min();
                self.later(due.expect("something has to be due"));
                self.ends.iter_mut().for_each(Driven::handle_timeout);
            }
        }
        for end in &self.ends {
            assert!(end.protocol.is_over(), "{} {}", end.phase(), end.reason());
        }
        let took = self.ends[SERVER].now.since(begin);
        let limits = limits();
        // Each end has its own time, and one may have to find out by itself that the other is gone.
        let silence = limits.ping_interval.unwrap_or_default() + limits.ping_timeout;
        assert!(took <= 2 * limits.close_timeout + silence, "{took:?}");
    }

    /// Nothing moves any more but the time.
    fn strand(&mut self) {
        self.ends.iter_mut().for_each(Driven::strand);
    }

    fn progress(&self) -> impl PartialEq + use<> {
        (
            self.arrived,
            self.end_arrived,
            self.ends.each_ref().map(|end| (end.phase(), end.taken.len(), end.ended)),
        )
    }

    fn check(&self) {
        for (from, to) in [(SERVER, CLIENT), (CLIENT, SERVER)] {
            let (sent, received) = (&self.sent[from], &self.ends[to].received);
            assert!(sent.starts_with(received), "{to} received something else");
            let protocol = &self.ends[to].protocol;
            if protocol.reason().is_some_and(|reason| reason.by() == protocol.peer()) {
                assert_eq!(sent, received, "{to} has seen the close frame, and not all that came before");
            }
            assert_eq!(self.ends[from].protocol.counts().messages_out, sent.len() as u64);
            let frames = frames(&self.ends[from].taken);
            let close = frames.iter().position(|(_, frame)| frame.starts_with("close"));
            assert!(close.is_none_or(|at| at + 1 == frames.len()), "{from} went on after its close frame");
        }
        let is_clean = |end: &Driven| end.reason().ends_with("them");
        if self.ends.iter().all(|end| end.protocol.is_over()) && self.ends.iter().any(is_clean) {
            assert!(!self.ends.iter().all(is_clean), "one of them began");
        }
    }
}

fn limits() -> Limits {
    Limits {
        ping_interval: Some(7 * SECOND),
        ping_timeout: 6 * SECOND,
        write_timeout: 9 * SECOND,
        close_timeout: 5 * SECOND,
        shared_idle_timeout: Some(15 * SECOND),
        ..Limits::default()
    }
}

fn deflate() -> impl Strategy<Value = Option<Deflate>> {
    let none = Direction { window_bits: 9, no_context_takeover: true };
    prop_oneof![Just(None), Just(Some(DEFLATE)), Just(Some(Deflate { theirs: none, ..DEFLATE }))]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_client_and_a_server_come_to_their_ends(
        deflate in deflate(),
        shared in any::<bool>(),
        steps in prop::collection::vec((0..2usize, step()), 0..120),
        goes_on in prop::bool::weighted(0.7),
        piece in piece(),
    ) {
        let mut pair = Pair::new(deflate, shared);
        pair.ends.iter_mut().for_each(|end| end.piece = piece);
        for (at, step) in steps {
            pair.step(at, step);
        }
        pair.check();
        if goes_on { pair.finish() } else { pair.strand() }
        pair.check();
    }
}

//! Every phase with every input (`table`), the times (`timers`), a client and a server that do anything in any order
//! (`pair`), and one end that is given anything (`anything`).

mod anything;
mod behind;
mod pair;
mod table;
mod timers;
#[cfg(feature = "__tls")]
mod tls;

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;

use super::{phase::*, receive::CLOGGED, *};
use crate::{
    buffered::MUCH,
    clock::Moment,
    codec::{Codec, Compressing, Deflate, Direction, Role, Work},
    error::{CloseReason, ClosedBy},
    limits::Limits,
    message::{CloseCode, Message},
};

const SECOND: Duration = Duration::from_secs(1);

fn start() -> Moment {
    Moment::START + 1000 * SECOND
}

/// Each end compresses with a compressor of its own, which is out while a long message is compressed.
const DEFLATE: Deflate = Deflate {
    ours: Direction { window_bits: 15, no_context_takeover: false },
    theirs: Direction { window_bits: 15, no_context_takeover: false },
    level: 1,
};

/// How much work is done at a time: all of it, or little.
fn piece() -> impl Strategy<Value = usize> {
    prop_oneof![Just(usize::MAX), 1..5_000usize]
}

/// What is compressed without the lock.
fn long_message() -> Message {
    Message::from("{\"größe\":1}".repeat(2000))
}

/// A protocol with a socket, and the rules that hold whatever is done to it.
struct Driven {
    protocol: Protocol,
    now: Moment,
    /// So many bytes the socket takes before it is full.
    room: usize,
    /// The socket fails.
    is_broken: bool,
    /// What the socket took.
    taken: Vec<u8>,
    /// It was told to end this side of the stream.
    ended: bool,
    received: Vec<Message>,
    bytes_in: u64,
    /// So much work is done at a time.
    piece: usize,
    /// What it held when it last said that this has changed.
    held: usize,
}

/// What came of polling once.
#[derive(Debug, PartialEq, Eq)]
enum Polled {
    Message,
    /// The work was done.
    More,
    Starved,
}

/// What a call may not take back.
struct Seen {
    rank: u8,
    deadline: Option<Moment>,
    reason: Option<CloseReason>,
    hung_up: bool,
    is_held_back: bool,
}

impl Seen {
    fn of(protocol: &Protocol) -> Self {
        Self {
            rank: match protocol.phase {
                Phase::Open => 0,
                Phase::Held { .. } => 1,
                Phase::Unsendable { .. } => 2,
                Phase::Closing { .. } => 3,
                Phase::Draining { .. } => 4,
                Phase::Over => 5,
            },
            deadline: protocol.deadline(),
            reason: protocol.reason().cloned(),
            hung_up: protocol.has_hung_up(),
            is_held_back: matches!(protocol.phase, Phase::Open | Phase::Held { .. }),
        }
    }
}

impl Driven {
    fn new(role: Role, limits: &Arc<Limits>, deflate: Option<Deflate>, shared: bool) -> Self {
        let codec = Codec::new(role, crate::codec::Stream::plain(), limits, deflate);
        Self::over(role, codec, limits, shared)
    }

    fn over(role: Role, codec: Codec, limits: &Arc<Limits>, shared: bool) -> Self {
        Self {
            protocol: Protocol::new(role, codec, limits.clone(), shared, start()),
            now: start(),
            room: usize::MAX,
            is_broken: false,
            taken: Vec::new(),
            ended: false,
            received: Vec::new(),
            bytes_in: 0,
            piece: usize::MAX,
            held: 0,
        }
    }

    /// Every call goes through here.
    fn call<T>(&mut self, call: impl FnOnce(&mut Protocol, Moment) -> T) -> T {
        let before = Seen::of(&self.protocol);
        self.protocol.take_changed();
        let result = call(&mut self.protocol, self.now);
        let changed = self.protocol.take_changed();
        let after = Seen::of(&self.protocol);
        if self.protocol.take_resized() {
            self.held = self.protocol.held();
        }
        // Of input, output and ciphertext so much each is not worth telling.
        assert!(self.protocol.held() < self.held + 3 * MUCH, "buffers that nobody learns of");
        assert!(
            !self.protocol.is_over() || self.held == 0,
            "buffers that are gone, and nobody learns of that"
        );
        assert!(before.rank <= after.rank, "a phase came back: {:?}", self.protocol.phase);
        assert!(changed || before.rank == after.rank, "a new phase that nobody learns of");
        let is_earlier =
            after.deadline.is_some_and(|after| before.deadline.is_none_or(|before| after < before));
        assert!(changed || !is_earlier, "an earlier deadline that nobody learns of");
        assert!(before.reason.is_none() || before.reason == after.reason, "another reason");
        assert!(changed || before.reason == after.reason, "a reason that nobody learns of");
        assert!(changed || before.hung_up == after.hung_up, "a hang-up that nobody learns of");
        assert!(!before.hung_up || after.hung_up);
        match &self.protocol.phase {
            Phase::Open | Phase::Held { .. } | Phase::Unsendable { .. } => assert!(after.reason.is_none()),
            Phase::Closing { .. } | Phase::Draining { .. } => assert!(after.reason.is_some()),
            Phase::Over => assert!(after.reason.is_some() && after.deadline.is_none()),
        }
        assert_eq!(self.protocol.check_sendable().is_ok(), after.is_held_back);
        result
    }

    /// Sends what there is, as far as the socket takes it.
    fn pump(&mut self) {
        let mut is_full = false;
        while !is_full {
            let was_over = self.protocol.is_over();
            let (room, is_broken) = (self.room, self.is_broken);
            let mut taken = Vec::new();
            let ends = self.call(|protocol, now| match protocol.transmit() {
                Transmit::Nothing => None,
                Transmit::End => Some(true),
                Transmit::Bytes(_) if is_broken => {
                    protocol.send_failed("broken pipe", now);
                    Some(false)
                }
                Transmit::Bytes(parts) => {
                    taken = parts.concat();
                    assert!(!taken.is_empty());
                    taken.truncate(room);
                    if taken.is_empty() {
                        protocol.refused(now);
                        is_full = true;
                    } else {
                        protocol.sent(taken.len(), now);
                    }
                    Some(false)
                }
            });
            self.room -= taken.len();
            self.taken.extend(taken);
            match ends {
                None => break,
                Some(ends) => assert!(!self.ended && !was_over, "sent after the end: {ends}"),
            }
            self.ended |= ends == Some(true);
        }
        assert_eq!(self.protocol.is_blocked(), is_full && !self.protocol.is_over());
        assert_eq!(self.protocol.counts().bytes_out, self.taken.len() as u64);
    }

    /// Takes these in, and polls what they come to.
    fn receive(&mut self, bytes: &[u8], hold: Hold) {
        let mut buffer = bytes.to_vec();
        self.call(|protocol, now| protocol.receive(&mut buffer, now));
        assert!(buffer.is_empty());
        self.bytes_in += bytes.len() as u64;
        assert_eq!(self.protocol.counts().bytes_in, self.bytes_in);
        self.poll(hold);
    }

    /// Polls what there is; of short messages, several at a time now and then.
    fn poll(&mut self, hold: Hold) {
        while self.poll_one(hold) != Polled::Starved {
            if self.received.len().is_multiple_of(3) {
                let mut messages = Vec::new();
                self.call(|protocol, _| protocol.poll_short(&mut messages, 4));
                assert!(messages.len() <= 4);
                self.received.append(&mut messages);
            }
        }
        assert_eq!(self.protocol.counts().messages_in, self.received.len() as u64);
    }

    fn poll_one(&mut self, hold: Hold) -> Polled {
        let mut work = Work::of(self.piece);
        let was = Seen::of(&self.protocol);
        let can_poll = self.protocol.has_whole_message();
        let before = self.received.len();
        if let Some(message) = self.call(|protocol, now| protocol.poll(hold, &mut work, now)) {
            assert!(can_poll, "had no whole message");
            self.received.push(message);
        }
        self.check_held(&was, hold);
        match () {
            () if self.received.len() > before => Polled::Message,
            () if work.is_done() => Polled::More,
            () => {
                assert!(!self.protocol.has_whole_message(), "nothing comes of what is there");
                Polled::Starved
            }
        }
    }

    fn receive_end(&mut self, hold: Hold) {
        let was = Seen::of(&self.protocol);
        self.call(|protocol, now| protocol.receive_end(hold, now));
        self.check_held(&was, hold);
    }

    fn check_held(&self, was: &Seen, hold: Hold) {
        let is = Seen::of(&self.protocol);
        assert!(hold != Hold::Answers || !was.is_held_back || is.is_held_back, "an end that was to be held");
    }

    fn handle_timeout(&mut self) {
        let was = Seen::of(&self.protocol);
        self.call(|protocol, now| protocol.handle_timeout(now));
        assert!(
            self.protocol.deadline().is_none_or(|deadline| deadline > self.now),
            "a deadline in the past"
        );
        if was.deadline.is_none_or(|deadline| deadline > self.now) {
            let is = Seen::of(&self.protocol);
            assert_eq!((was.rank, was.deadline), (is.rank, is.deadline), "nothing was due");
        }
    }

    /// Lets the time pass until something is due, and does it.
    fn next_timeout(&mut self) {
        self.now = self.protocol.deadline().expect("something has to be due").max(self.now);
        self.handle_timeout();
    }

    /// Nothing moves any more but the time: it comes to its end within that of the closing handshake.
    fn strand(&mut self) {
        if matches!(self.protocol.phase, Phase::Open) {
            self.close(1000);
        }
        let begin = self.now;
        for _ in 0..2 {
            if self.protocol.deadline().is_some() {
                self.next_timeout();
            }
        }
        assert!(self.protocol.is_over(), "{} {}", self.phase(), self.reason());
        assert!(self.now.since(begin) <= 2 * self.protocol.limits.close_timeout);
    }

    fn send(&mut self, message: Message) -> Option<Box<Compressing>> {
        self.call(|protocol, _| protocol.send(message.into()))
    }

    fn close(&mut self, code: u16) {
        self.call(|protocol, now| protocol.close(CloseCode(code), "bye", now));
    }

    fn role(&self) -> Role {
        self.protocol.role
    }

    /// The phase, as the tables have it: EOF is the end of the peer's stream, FIN the end of ours.
    fn phase(&self) -> String {
        match &self.protocol.phase {
            Phase::Open => "open".into(),
            Phase::Held { .. } => "ending".into(),
            Phase::Unsendable { .. } => "unsendable".into(),
            Phase::Closing { .. } => "closing".into(),
            Phase::Draining { peer_ended, stream, .. } => {
                let theirs = if *peer_ended { " EOF" } else { "" };
                let ours = match stream {
                    Stream::Open => "",
                    Stream::Finished => " finished",
                    Stream::Ended => " FIN",
                };
                format!("draining{theirs}{ours}")
            }
            Phase::Over => "over".into(),
        }
    }

    /// The reason, with who began as seen from this end.
    fn reason(&self) -> String {
        let Some(reason) = self.protocol.reason() else { return String::new() };
        let by = match reason.by() {
            ClosedBy::Network => "broken",
            by if by == self.protocol.us() => "by us",
            _ => "by them",
        };
        format!("{} {by}", reason.code())
    }

    /// The frames that the socket took after the first `from` bytes, those that wait for it in parentheses, and FIN.
    fn wire(&mut self, from: usize) -> String {
        let mut bytes = self.taken[from..].to_vec();
        let taken = bytes.len();
        bytes.extend(self.protocol.codec.stream().pending_parts().concat());
        let (out, waiting): (Vec<_>, Vec<_>) = frames(&bytes).into_iter().partition(|(end, _)| *end <= taken);
        let words = |frames: Vec<(usize, String)>| frames.into_iter().map(|(_, frame)| frame);
        let mut all: Vec<String> = words(out).collect();
        if !waiting.is_empty() {
            all.push(format!("({})", words(waiting).collect::<Vec<_>>().join(" ")));
        }
        if self.ended {
            all.push("FIN".into());
        }
        all.join(" ")
    }
}

fn peer_of(role: Role) -> Role {
    match role {
        Role::Server => Role::Client,
        Role::Client => Role::Server,
    }
}

/// A frame from this end; `first` is FIN, the reserved bits and the opcode. Up to 125 bytes.
fn frame(from: Role, first: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u8;
    match from {
        Role::Server => [&[first, length], payload].concat(),
        // A mask of zeros is a mask, too.
        Role::Client => [&[first, 0x80 | length, 0, 0, 0, 0], payload].concat(),
    }
}

fn close_frame(from: Role, code: u16) -> Vec<u8> {
    frame(from, 0x88, &code.to_be_bytes())
}

/// The frames of either end, each with where it ends. Not by the codec, which is what sent them. A frame that is cut off ends
/// where it would.
fn frames(bytes: &[u8]) -> Vec<(usize, String)> {
    let (mut frames, mut at) = (Vec::new(), 0);
    while let [first, second, rest @ ..] = &bytes[at..] {
        let (size, length) = match second & 0x7f {
            126 if rest.len() >= 2 => (4, usize::from(u16::from_be_bytes([rest[0], rest[1]]))),
            127 if rest.len() >= 8 => (10, u64::from_be_bytes(rest[..8].try_into().unwrap()) as usize),
            length if length < 126 => (2, usize::from(length)),
            _ => break,
        };
        let mask_size = if second & 0x80 == 0 { 0 } else { 4 };
        let mask =
            bytes.get(at + size..at + size + mask_size).filter(|mask| !mask.is_empty()).unwrap_or(&[0; 4]);
        let size = size + mask_size;
        let payload = bytes.get(at + size..at + size + length).unwrap_or_default();
        let word = match first {
            0x81 | 0x82 => "message".into(),
            0xc1 | 0xc2 => "compressed".into(),
            0x88 => match payload {
                [high, low, ..] => {
                    format!("close {}", u16::from_be_bytes([high ^ mask[0], low ^ mask[1]]))
                }
                _ => "close".into(),
            },
            0x89 => "ping".into(),
            0x8a => "pong".into(),
            _ => panic!("what is {first:x}?"),
        };
        at += size + length;
        frames.push((at, word));
        if at > bytes.len() {
            break;
        }
    }
    frames
}

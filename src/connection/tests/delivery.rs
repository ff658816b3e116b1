//! Reading at least once.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use proptest::{prelude::*, sample::Index};

use super::{super::drive::Rest, *};
use crate::{
    error::{Error, Result},
    protocol::Hold,
    sync::LockExt,
};

/// So many messages fit the inbox.
const ROOM: usize = 6;

#[derive(Debug)]
struct Deaf;

impl Handler for Deaf {
    fn messages(&self, _: &Arc<Connection>, _: &mut dyn Iterator<Item = (Message, bool)>) {}

    fn end(&self, _: &Arc<Connection>) {}
}

/// A shared connection, and what drives it in place of the gateway.
struct Driven {
    connection: Arc<Connection>,
    _client: UnixStream,
    mail: crossbeam_channel::Receiver<Arc<Connection>>,
}

impl Driven {
    fn new() -> Self {
        let limits = Limits { max_inbox_messages: ROOM, ..Limits::default() };
        let (connection, client, mail) = shared_connection(limits);
        connection.take_from_queue();
        Self { connection, _client: client, mail }
    }

    /// Takes in these bytes, and all that there is room for. Returns whether the handler is to be called.
    fn take_in(&self, bytes: &[u8]) -> bool {
        let (mut bytes, mut claims) = (bytes.to_vec(), false);
        for _ in 0..1000 {
            let taken_in = self.connection.take_in(&mut bytes, &mut Work::piece());
            claims |= taken_in.claims_handler;
            if taken_in.intake != Intake::More {
                return claims;
            }
        }
        panic!("there is always more");
    }

    /// Whether the gateway was told to look again.
    fn was_told(&self) -> bool {
        let was_told = self.mail.try_iter().count() > 0;
        self.connection.take_from_queue();
        was_told
    }

    fn read(&self, reader: &AtomicBool) -> Result<Message> {
        self.connection.read(usize::MAX, Duration::ZERO, reader).map(|(message, _)| message)
    }

    fn deliver(&self, len: usize, reader: &AtomicBool) -> Result<Loan> {
        self.connection.read_loan(len, Duration::ZERO, reader)
    }
}

fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

#[test]
fn a_connection_that_is_not_shared_has_no_deliveries() {
    let (connection, _client) = connection();
    let delivery = connection.read_loan(1, Duration::ZERO, &AtomicBool::new(false));
    assert!(matches!(delivery, Err(Error::NotShared)));
}

/// In whatever order they are dropped: they come back in their own.
#[test]
fn what_is_not_acknowledged_comes_back_in_order_and_marked() {
    let (driven, reader) = (Driven::new(), AtomicBool::new(false));
    driven.take_in(&[frame(0x81, b"1"), frame(0x81, b""), frame(0x81, b"3"), frame(0x81, b"4")].concat());
    let mut all: Vec<_> = (0..3).map(|_| driven.deliver(9, &reader).unwrap()).collect();
    assert!(all.iter().all(|delivery| !delivery.redelivered() && delivery.at_end()));
    for place in [1, 1, 0] {
        drop(all.remove(place));
    }
    let expect = |text: &str, redelivered| {
        let delivery = driven.deliver(9, &reader).unwrap();
        assert_eq!((&*delivery, delivery.redelivered()), (&Message::from(text), redelivered));
        delivery
    };
    assert_eq!(expect("1", true).ack(), "1");
    drop(expect("", true));
    assert_eq!(driven.read(&reader).unwrap(), "", "a reader of the plain kind gets it, too");
    expect("3", true).ack();
    expect("4", false).ack();
    assert!(driven.read(&reader).unwrap_err().is_timeout() && driven.connection.inbox.locked().is_bare());
}

#[cfg(feature = "manage")]
#[test]
fn what_nobody_has_seen_comes_back_unmarked() {
    let (driven, reader) = (Driven::new(), AtomicBool::new(false));
    driven.take_in(&[frame(0x81, b"12345"), frame(0x81, b"")].concat());
    let deliver = |len, text: &str, redelivered| {
        let delivery = driven.deliver(len, &reader).unwrap();
        assert_eq!((&*delivery, delivery.redelivered()), (&Message::from(text), redelivered));
        delivery
    };
    deliver(9, "12345", false).give_back_unseen();
    deliver(2, "12", false).give_back_unseen();
    drop(deliver(2, "12", false));
    deliver(9, "12345", true).give_back_unseen();
    deliver(9, "12345", true).ack();
    deliver(9, "", false).give_back_unseen();
    drop(deliver(9, "", false));
    deliver(9, "", true).ack();
    assert!(driven.read(&reader).unwrap_err().is_timeout() && driven.connection.inbox.locked().is_bare());
}

/// And only what somebody has had is marked.
#[test]
fn pieces_that_come_back_are_read_as_one() {
    let (driven, reader) = (Driven::new(), AtomicBool::new(false));
    driven.take_in(&[frame(0x81, "aä🎉z123".as_bytes()), frame(0x82, b"x")].concat());
    let mut pieces: Vec<_> = (0..3).map(|_| driven.deliver(2, &reader).unwrap()).collect();
    assert_eq!((pieces[0].as_text(), pieces[1].as_text()), (Some("aä"), Some("🎉z")));
    assert!(pieces.iter().all(|piece| !piece.at_end()));
    drop(pieces.remove(1));
    drop(pieces.remove(0));
    let first = driven.deliver(3, &reader).unwrap();
    assert!(*first == "aä🎉" && first.redelivered() && !first.at_end());
    let second = driven.deliver(9, &reader).unwrap();
    assert!(*second == "z" && second.redelivered() && !second.at_end(), "{second:?}");
    drop((first, second, pieces));
    let whole = driven.deliver(9, &reader).unwrap();
    assert!(*whole == "aä🎉z123" && whole.redelivered() && whole.at_end());
    drop(whole);
    driven.deliver(6, &reader).unwrap().ack();
    let rest = driven.deliver(9, &reader).unwrap();
    assert!(*rest == "3" && rest.redelivered() && rest.at_end());
    rest.ack();
    // Of a message that was read in part, what nobody has had is fresh.
    driven.take_in(&frame(0x81, b"12345"));
    driven.read(&reader).unwrap();
    drop(driven.deliver(2, &reader).unwrap());
    let pieces = [1, 1, 9].map(|len| driven.deliver(len, &reader).unwrap());
    assert_eq!(
        pieces.map(|piece| (piece.redelivered(), piece.ack().len())),
        [(true, 1), (true, 1), (false, 3)]
    );
}

#[test]
fn what_is_not_acknowledged_counts() {
    let (driven, reader) = (Driven::new(), AtomicBool::new(false));
    for _ in 0..ROOM + 1 {
        driven.take_in(&frame(0x81, b"x"));
    }
    let mut deliveries: Vec<_> = (0..ROOM).map(|_| driven.deliver(9, &reader).unwrap()).collect();
    driven.was_told();
    driven.take_in(&[]);
    assert!(driven.deliver(9, &reader).unwrap_err().is_timeout(), "there is no room for another");
    assert!(!driven.was_told());
    deliveries.remove(3).ack();
    assert!(driven.was_told(), "now there is");
    driven.take_in(&[]);
    driven.deliver(9, &reader).unwrap().ack();
}

#[test]
fn the_end_waits_for_what_is_not_acknowledged() {
    let (driven, reader) = (Driven::new(), AtomicBool::new(false));
    driven.take_in(&[frame(0x81, b"1"), frame(0x81, b"2"), frame(0x88, b"")].concat());
    let [first, second] = [(); 2].map(|()| driven.deliver(9, &reader).unwrap());
    let still_open = || {
        driven.take_in(&[]);
        assert!(driven.connection.reason().is_none());
    };
    driven.connection.end_answering(&reader); // it is not because of that
    still_open();
    driven.was_told();
    first.ack();
    assert!(!driven.was_told());
    still_open();
    drop(second);
    still_open();
    driven.was_told();
    let second = driven.deliver(9, &reader).unwrap();
    driven.connection.end_answering(&reader);
    second.ack();
    assert!(driven.was_told());
    driven.take_in(&[]);
    assert_eq!(driven.connection.reason().unwrap().code(), CloseCode::NO_STATUS);
}

#[test]
fn what_comes_back_after_the_end_can_be_read_unless_this_side_has_closed() {
    for closes in [false, true] {
        let (driven, reader) = (Driven::new(), AtomicBool::new(false));
        driven.take_in(&frame(0x82, &[7; 100]));
        let delivery = driven.deliver(60, &reader).unwrap();
        if closes {
            driven.connection.close(CloseCode::NORMAL, "");
        }
        driven.connection.finish();
        drop(delivery);
        if !closes {
            assert_eq!(driven.read(&reader).unwrap().len(), 100);
        }
        assert!(driven.read(&reader).unwrap_err().is_closed());
        assert_eq!(driven.connection.context.buffered.sum(), 0);
    }
}

/// A character, or a byte, of a message; of one without any, a single one of no bytes.
#[derive(Clone, Debug)]
struct Atom {
    message: usize,
    place: usize,
    bytes: Vec<u8>,
    is_text: bool,
    is_last: bool,
    was_had: bool,
}

/// Message `message` of so many characters, each of which tells its place.
fn atoms(message: usize, len: usize) -> Vec<Atom> {
    let is_text = !message.is_multiple_of(3);
    let character = |place: usize| {
        let base = [0x21, 0x101, 0x4e00, 0x1_0000][place % 4];
        char::from_u32((base + message % 8 * 8 + place % 8) as u32).unwrap()
    };
    let bytes = |place| match is_text {
        true => character(place).to_string().into_bytes(),
        false => vec![(message * 16 + place) as u8],
    };
    let atom = |place| Atom {
        message,
        place,
        bytes: if len == 0 { Vec::new() } else { bytes(place) },
        is_text,
        is_last: place + 1 >= len,
        was_had: false,
    };
    (0..len.max(1)).map(atom).collect()
}

fn content(atoms: &[Atom]) -> Message {
    let bytes = atoms.iter().flat_map(|atom| atom.bytes.clone()).collect::<Vec<_>>();
    if atoms[0].is_text { String::from_utf8(bytes).unwrap().into() } else { bytes.into() }
}

fn bytes(atoms: &[Atom]) -> usize {
    atoms.iter().map(|atom| atom.bytes.len()).sum()
}

/// Whether one comes right behind the other in the same message.
fn are_neighbours(one: &Atom, other: &Atom) -> bool {
    one.message == other.message && one.place + 1 == other.place
}

#[derive(Clone, Debug)]
enum Step {
    Receive(usize),
    Read {
        reader: usize,
        len: usize,
        to_ack: bool,
    },
    /// A reader reads no more.
    Leave(usize),
    Settle {
        which: Index,
        is_acked: bool,
    },
    Park,
    HandlerTakes,
    /// It has had so many of them, and left those whose bit is set.
    HandlerReturns {
        handled: usize,
        left: u8,
    },
    PeerCloses,
    Close,
    Finish,
}

fn step() -> impl Strategy<Value = Step> {
    let len = || prop_oneof![Just(1_usize), 2..6_usize, Just(usize::MAX)];
    prop_oneof![
        40 => prop_oneof![Just(0_usize), Just(1), 2..12_usize].prop_map(Step::Receive),
        60 => (0..2_usize, len(), prop::bool::weighted(0.7))
            .prop_map(|(reader, len, to_ack)| Step::Read { reader, len, to_ack }),
        3 => (0..2_usize).prop_map(Step::Leave),
        60 => (any::<Index>(), prop::bool::weighted(0.3))
            .prop_map(|(which, is_acked)| Step::Settle { which, is_acked }),
        3 => Just(Step::Park),
        12 => Just(Step::HandlerTakes),
        12 => (0..7_usize, any::<u8>()).prop_map(|(handled, left)| Step::HandlerReturns { handled, left }),
        2 => Just(Step::PeerCloses),
        1 => Just(Step::Close),
        1 => Just(Step::Finish),
    ]
}

/// A connection, and a list of characters that are sorted again after each change.
struct Model {
    driven: Driven,
    readers: [AtomicBool; 2],
    is_answering: [bool; 2],
    messages: usize,
    /// For these there was no room.
    pending: VecDeque<Vec<Atom>>,
    unread: Vec<Atom>,
    unhandled: VecDeque<Vec<Atom>>,
    in_hand: VecDeque<Vec<Atom>>,
    batch: VecDeque<Message>,
    out: Vec<(Vec<Atom>, Loan)>,
    has_handler: bool,
    is_handling: bool,
    peer_closed: bool,
    has_ended: bool,
    has_hung_up: bool,
    is_finished: bool,
}

impl Model {
    fn new() -> Self {
        Self {
            driven: Driven::new(),
            readers: Default::default(),
            is_answering: [false; 2],
            messages: 0,
            pending: VecDeque::new(),
            unread: Vec::new(),
            unhandled: VecDeque::new(),
            in_hand: VecDeque::new(),
            batch: VecDeque::new(),
            out: Vec::new(),
            has_handler: false,
            is_handling: false,
            peer_closed: false,
            has_ended: false,
            has_hung_up: false,
            is_finished: false,
        }
    }

    fn number(&mut self) -> usize {
        self.messages += 1;
        self.messages
    }

    fn do_step(&mut self, step: &Step) {
        match *step {
            Step::Receive(_) if self.peer_closed || self.has_ended => {}
            Step::Receive(len) => {
                let atoms = atoms(self.number(), len);
                let first = if atoms[0].is_text { 0x81 } else { 0x82 };
                self.take_in(&frame(first, content(&atoms).as_bytes()), Some(atoms));
            }
            Step::Read { reader, len, to_ack } => self.read(reader, len, to_ack),
            Step::Leave(reader) => {
                self.driven.connection.end_answering(&self.readers[reader]);
                self.is_answering[reader] = false;
            }
            Step::Settle { which, is_acked } if !self.out.is_empty() => {
                self.settle(which.index(self.out.len()), is_acked);
            }
            Step::Park if !self.has_handler && !self.has_ended => self.park(),
            Step::HandlerTakes if self.batch.is_empty() => self.handler_takes(),
            Step::HandlerReturns { handled, left } if !self.batch.is_empty() => {
                self.handler_returns(handled, left);
            }
            Step::PeerCloses if !self.peer_closed && !self.has_ended => {
                self.peer_closed = true;
                self.take_in(&frame(0x88, b""), None);
            }
            Step::Close if !self.has_ended => {
                self.driven.connection.close(CloseCode::NORMAL, "");
                (self.has_ended, self.has_hung_up) = (true, true);
                self.pending.clear();
            }
            Step::Finish if !self.is_finished => {
                self.driven.connection.finish();
                (self.has_ended, self.is_finished) = (true, true);
                self.pending.clear();
            }
            Step::Settle { .. }
            | Step::Park
            | Step::HandlerTakes
            | Step::HandlerReturns { .. }
            | Step::PeerCloses
            | Step::Close
            | Step::Finish => {}
        }
        if !self.is_finished {
            self.take_in(&[], None);
        }
        self.check();
    }

    /// As many as there is room for; then perhaps the end.
    fn take_in(&mut self, bytes: &[u8], message: Option<Vec<Atom>>) {
        self.is_handling |= self.driven.take_in(bytes);
        self.pending.extend(message);
        while self.places() < ROOM
            && let Some(atoms) = self.pending.pop_front()
        {
            match self.has_handler {
                true => self.unhandled.push_back(atoms),
                false => self.unread.extend(atoms),
            }
        }
        self.has_ended |= self.peer_closed && self.pending.is_empty() && self.is_answered();
    }

    fn read(&mut self, reader: usize, len: usize, to_ack: bool) {
        let connection = &self.driven.connection;
        let mark = &self.readers[reader];
        self.is_answering[reader] = false;
        if self.has_hung_up || self.unread.is_empty() {
            let read = match to_ack {
                true => connection.read_loan(len, Duration::ZERO, mark).map(drop),
                false => connection.read(len, Duration::ZERO, mark).map(drop),
            };
            let is_over = self.has_ended && self.unhandled.is_empty() && !self.is_handling;
            let error = read.unwrap_err();
            assert_eq!(error.is_closed(), self.has_hung_up || is_over, "{error}");
            return;
        }
        let followed = self.unread.windows(2).take_while(|pair| are_neighbours(&pair[0], &pair[1])).count();
        let mut atoms: Vec<_> = self.unread.drain(..len.min(followed + 1)).collect();
        let at_end = atoms.last().unwrap().is_last;
        self.is_answering[reader] = true;
        if to_ack {
            let delivery = connection.read_loan(len, Duration::ZERO, mark).unwrap();
            assert_eq!((&*delivery, delivery.at_end()), (&content(&atoms), at_end));
            assert_eq!(delivery.redelivered(), atoms.iter().any(|atom| atom.was_had));
            atoms.iter_mut().for_each(|atom| atom.was_had = true);
            self.out.push((atoms, delivery));
        } else {
            let read = connection.read(len, Duration::ZERO, mark).unwrap();
            assert_eq!(read, (content(&atoms), at_end));
        }
    }

    fn settle(&mut self, which: usize, is_acked: bool) {
        let (atoms, delivery) = self.out.swap_remove(which);
        if is_acked {
            assert_eq!(delivery.ack(), content(&atoms));
            return;
        }
        drop(delivery);
        if !self.has_hung_up {
            self.unread.extend(atoms);
            self.unread.sort_by_key(|atom| (atom.message, atom.place));
        }
    }

    /// What is unread are messages of their own from now on, for the handler.
    fn park(&mut self) {
        self.driven.connection.park(Box::new(Deaf));
        self.has_handler = true;
        let unread = std::mem::take(&mut self.unread);
        // Those before one that somebody has had may have been, too.
        let chunks: Vec<_> = unread.chunk_by(are_neighbours).collect();
        let had = chunks.iter().rposition(|atoms| atoms[0].was_had);
        for (index, atoms) in chunks.into_iter().enumerate() {
            let (message, mut atoms) = (self.number(), atoms.to_vec());
            let was_had = had.is_some_and(|last| index <= last);
            for (place, atom) in atoms.iter_mut().enumerate() {
                (atom.message, atom.place, atom.was_had) = (message, place, was_had);
            }
            atoms.last_mut().unwrap().is_last = true;
            self.unhandled.push_back(atoms);
        }
        for atoms in &mut self.pending {
            self.messages += 1;
            atoms.iter_mut().for_each(|atom| atom.message = self.messages);
        }
    }

    fn handler_takes(&mut self) {
        self.is_handling |= self.driven.connection.claims_handler();
        if !self.is_handling {
            assert!(!self.has_handler || self.unhandled.is_empty());
            return;
        }
        if self.has_hung_up {
            self.unhandled.clear();
        }
        match self.driven.connection.next_batch(Rest::default()) {
            Batch::Messages(_, batch) => {
                self.in_hand = std::mem::take(&mut self.unhandled);
                assert!(
                    batch.iter().eq(self
                        .in_hand
                        .iter()
                        .map(|atoms| content(atoms))
                        .collect::<Vec<_>>()
                        .iter())
                );
                self.batch = batch;
            }
            Batch::End(_) | Batch::Nothing => {
                assert!(self.unhandled.is_empty());
                self.is_handling = false;
            }
        }
    }

    fn handler_returns(&mut self, handled: usize, left: u8) {
        let mut rest = Rest { messages: std::mem::take(&mut self.batch), handled: 0 };
        for place in 0..handled.min(rest.messages.len()) {
            let (message, atoms) = (rest.messages.pop_front().unwrap(), self.in_hand.pop_front().unwrap());
            rest.handled += message.len();
            if left.rotate_right(place as u32) & 1 == 1 {
                self.driven.connection.leave_unread(message, place);
                self.unread.extend(atoms);
            }
        }
        self.driven.connection.put_back(rest);
        let later = std::mem::replace(&mut self.unhandled, std::mem::take(&mut self.in_hand));
        self.unhandled.extend(later);
    }

    fn places(&self) -> usize {
        let unread = self.unread.chunk_by(are_neighbours).count();
        unread + self.unhandled.len() + self.in_hand.len() + self.out.len()
    }

    fn is_answered(&self) -> bool {
        let is_empty = self.unread.is_empty() && self.unhandled.is_empty() && self.out.is_empty();
        is_empty && !self.is_handling && !self.is_answering.contains(&true)
    }

    fn check(&self) {
        let connection = &self.driven.connection;
        let inbox = connection.inbox.locked();
        let all = self.unhandled.iter().chain(&self.in_hand).chain(self.out.iter().map(|(atoms, _)| atoms));
        let sum = bytes(&self.unread) + all.map(|atoms| bytes(atoms)).sum::<usize>();
        assert_eq!(inbox.bytes(), sum);
        assert_eq!(inbox.room(connection.limits()).messages, ROOM.saturating_sub(self.places()));
        assert_eq!(inbox.hold() == Hold::Nothing, self.is_answered());
        assert_eq!(connection.reason().is_some(), self.has_ended);
    }

    /// All that is still there is read to its end, and then nothing is left.
    fn drain(&mut self) {
        let returns = Step::HandlerReturns { handled: usize::MAX, left: u8::MAX };
        while !self.out.is_empty() {
            self.settle(0, false);
        }
        for _ in 0..1000 {
            if self.has_hung_up || self.pending.is_empty() && self.places() == 0 && !self.is_handling {
                break;
            }
            let read = Step::Read { reader: 0, len: usize::MAX, to_ack: false };
            for step in [&Step::HandlerTakes, &returns, &read] {
                self.do_step(step);
            }
        }
        assert!(self.has_hung_up || self.pending.is_empty() && self.places() == 0);
        if !self.has_hung_up {
            self.do_step(&Step::Leave(1));
            self.do_step(&Step::Leave(0));
            assert!(self.driven.connection.inbox.locked().is_bare());
            assert!(!self.peer_closed || self.has_ended);
        }
    }
}

proptest! {
    /// Whatever is received, read, acknowledged and given back, by readers of both kinds and a handler, until and after the end: each
    /// character once, but for those that were given back; in order; and all is counted, as long as it is there.
    #[test]
    fn nothing_is_lost_doubled_or_reordered(steps in prop::collection::vec(step(), 1..200)) {
        let mut model = Model::new();
        for step in &steps {
            model.do_step(step);
        }
        model.drain();
    }
}

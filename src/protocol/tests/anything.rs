//! One end that is given any bytes and any calls, in an order that no driver would have.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Receive(Vec<u8>),
    ReceiveEnd(Hold),
    EndInSight,
    ReceiveFailed,
    Poll(Hold),
    PollShort(usize),
    Pause,
    Resume,
    Send(usize),
    BringBack,
    Flush(usize),
    Refused,
    SendFailed,
    Close(u16),
    Abort,
    Later(u64),
    HandleTimeout,
    Park,
    Ask,
}

/// Bytes of any kind, and frames, so that it comes further than the first header.
fn bytes(from: Role) -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        8 => prop::sample::select(&[0x81, 0x82, 0x01, 0x80, 0x89, 0x8a, 0xc1, 0x41][..]),
        1 => Just(0x88),
        1 => any::<u8>(),
    ];
    let payload = prop_oneof![
        prop::collection::vec(b'a'..=b'z', 0..125),
        prop::collection::vec(any::<u8>(), 0..20),
        any::<u16>().prop_map(|code| code.to_be_bytes().to_vec()),
    ];
    let frame = (first, payload, 0..200usize).prop_map(move |(first, payload, cut)| {
        let mut frame = frame(from, first, &payload);
        frame.truncate(if cut < 160 { frame.len() } else { cut - 160 });
        frame
    });
    prop_oneof![8 => frame, 1 => prop::collection::vec(any::<u8>(), 0..60)]
}

fn step(from: Role) -> impl Strategy<Value = Step> {
    let hold = || prop::sample::select(&[Hold::Nothing, Hold::Answers][..]);
    prop_oneof![
        30 => bytes(from).prop_map(Step::Receive),
        1 => hold().prop_map(Step::ReceiveEnd),
        1 => Just(Step::EndInSight),
        1 => Just(Step::ReceiveFailed),
        20 => hold().prop_map(Step::Poll),
        5 => (0..20usize).prop_map(Step::PollShort),
        3 => Just(Step::Pause),
        3 => Just(Step::Resume),
        10 => prop_oneof![3 => 0..200usize, 1 => 16_384..17_000usize].prop_map(Step::Send),
        8 => Just(Step::BringBack),
        10 => prop_oneof![0..10usize, Just(usize::MAX)].prop_map(Step::Flush),
        2 => Just(Step::Refused),
        1 => Just(Step::SendFailed),
        1 => any::<u16>().prop_map(Step::Close),
        1 => Just(Step::Abort),
        5 => (0..8_000u64).prop_map(Step::Later),
        10 => Just(Step::HandleTimeout),
        3 => Just(Step::Park),
        3 => Just(Step::Ask),
    ]
}

/// What is compressed at the moment.
type Out = Option<Box<Compressing>>;

fn apply(end: &mut Driven, out: &mut Out, step: Step) {
    match step {
        Step::Receive(mut bytes) => end.call(|protocol, now| protocol.receive(&mut bytes, now)),
        Step::ReceiveEnd(hold) => end.receive_end(hold),
        Step::EndInSight => end.call(Protocol::end_in_sight),
        Step::ReceiveFailed => end.call(|protocol, _| protocol.receive_failed("reset")),
        Step::Poll(hold) => drop(end.poll_one(hold)),
        Step::PollShort(max) => {
            let mut messages = Vec::new();
            end.call(|protocol, _| protocol.poll_short(&mut messages, max));
            assert!(messages.len() <= max);
            end.received.append(&mut messages);
        }
        Step::Pause => end.call(|protocol, _| protocol.pause()),
        Step::Resume => end.call(Protocol::resume),
        Step::Send(size) => {
            if end.protocol.check_sendable().is_ok() && !end.protocol.is_compressing() {
                *out = end.send("x".repeat(size).into());
            }
        }
        Step::BringBack => {
            if let Some(mut compressing) = out.take() {
                compressing.run();
                end.call(|protocol, _| protocol.compressed(*compressing));
            }
        }
        Step::Flush(bytes) => {
            end.room = bytes;
            end.pump();
        }
        Step::Refused => end.call(Protocol::refused),
        Step::SendFailed => end.call(|protocol, now| protocol.send_failed("broken pipe", now)),
        Step::Close(code) => end.close(code),
        Step::Abort => end.call(|protocol, _| protocol.abort(ClosedBy::Network, "enough")),
        Step::Later(millis) => end.now = end.now + Duration::from_millis(millis),
        Step::HandleTimeout => end.handle_timeout(),
        Step::Park => end.call(|protocol, _| protocol.park()),
        Step::Ask => {
            let protocol = &mut end.protocol;
            let _ = (protocol.has_input(), protocol.has_whole_message(), protocol.wants_input());
            let _ = (protocol.spare_buffer(), protocol.round_trip(), protocol.is_measuring());
        }
    }
}

fn steps() -> impl Strategy<Value = (Role, Vec<Step>)> {
    prop_oneof![Just(Role::Server), Just(Role::Client)]
        .prop_flat_map(|role| (Just(role), prop::collection::vec(step(peer_of(role)), 0..100)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn it_comes_to_its_end(
        (role, steps) in steps(),
        deflate in any::<bool>(),
        shared in any::<bool>(),
        piece in piece(),
    ) {
        let limits = Arc::new(Limits { max_message_size: 200, ..Limits::default() });
        let mut end = Driven::new(role, &limits, deflate.then_some(DEFLATE), shared);
        end.piece = piece;
        let mut out = None;
        for step in steps {
            apply(&mut end, &mut out, step);
        }
        end.strand();
        end.pump();
        prop_assert_eq!((end.protocol.pending(), end.protocol.has_input()), (0, false));
        prop_assert_eq!(end.protocol.counts().messages_in, end.received.len() as u64);
    }
}

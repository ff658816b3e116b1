//! What is due when.

use super::*;

fn limits() -> Limits {
    Limits {
        ping_interval: Some(20 * SECOND),
        ping_timeout: 10 * SECOND,
        write_timeout: 30 * SECOND,
        close_timeout: 5 * SECOND,
        message_timeout: Some(60 * SECOND),
        shared_idle_timeout: Some(900 * SECOND),
        ..Limits::default()
    }
}

fn silent() -> Limits {
    Limits { ping_interval: None, ..limits() }
}

fn driven(limits: Limits, shared: bool) -> Driven {
    Driven::new(Role::Server, &Arc::new(limits), Some(DEFLATE), shared)
}

impl Driven {
    /// How many milliseconds after the start something is due.
    fn due(&self) -> Option<u128> {
        self.protocol.deadline().map(|deadline| deadline.since(start()).as_millis())
    }

    /// Lets the time pass until so many milliseconds after the start.
    fn at(&mut self, millis: u64) {
        self.now = start() + Duration::from_millis(millis);
        self.handle_timeout();
    }
}

#[test]
fn a_silent_peer_is_pinged_and_cut() {
    let mut end = driven(limits(), false);
    assert_eq!(end.due(), Some(20_000));
    end.at(19_999);
    end.pump();
    assert_eq!(end.wire(0), "");
    end.at(20_000);
    end.pump();
    assert_eq!((end.wire(0).as_str(), end.due()), ("ping", Some(30_000)));
    assert!(end.protocol.is_measuring());
    end.at(29_999);
    assert_eq!(end.phase(), "open");
    end.at(30_000);
    assert_eq!((end.phase().as_str(), end.reason().as_str()), ("over", "1006 broken"));
    end.pump();
    assert_eq!(end.wire(0), "ping", "one ping a silence");
}

#[test]
fn a_ping_that_is_late_has_its_full_time() {
    let mut end = driven(limits(), false);
    end.at(70_000);
    assert_eq!((end.phase().as_str(), end.due()), ("open", Some(80_000)));
}

#[test]
fn any_byte_is_a_sign_of_life() {
    let mut end = driven(limits(), false);
    end.at(15_000);
    end.receive(&[0x81], Hold::Nothing); // half a header
    assert_eq!(end.due(), Some(35_000));
    end.at(35_000);
    assert!(end.protocol.is_measuring());
    end.at(44_000);
    end.receive(&[0x82], Hold::Nothing);
    assert!(!end.protocol.is_measuring());
    assert_eq!(end.due(), Some(64_000));
}

/// An answer brings the next ping: with a short interval sooner than the first would have been late.
#[test]
fn an_answer_may_bring_the_deadline_forward() {
    let mut end = driven(Limits { ping_interval: Some(SECOND), ..limits() }, false);
    end.at(1_000);
    assert_eq!(end.due(), Some(11_000));
    end.now = start() + 2 * SECOND;
    let mut byte = vec![0x81];
    end.protocol.take_changed();
    end.protocol.receive(&mut byte, end.now);
    assert!(end.protocol.take_changed());
    assert_eq!(end.due(), Some(3_000));
}

#[test]
fn a_pong_tells_the_round_trip() {
    let mut end = driven(limits(), false);
    end.at(20_000);
    end.pump();
    let payload = end.taken[2..10].to_vec();
    assert_eq!(end.protocol.round_trip(), None);
    end.now = end.now + Duration::from_millis(30);
    end.receive(&frame(Role::Client, 0x8a, b"unasked"), Hold::Nothing);
    assert_eq!(end.protocol.round_trip(), None);
    assert_eq!(end.protocol.take_measured(), None);
    end.receive(&frame(Role::Client, 0x8a, &payload), Hold::Nothing);
    assert_eq!(end.protocol.round_trip(), Some(Duration::from_millis(30)));
    assert_eq!(end.protocol.take_measured(), Some(Duration::from_millis(30)));
    end.receive(&frame(Role::Client, 0x8a, &payload), Hold::Nothing);
    assert_eq!(end.protocol.take_measured(), None, "once for each ping");
}

#[test]
fn a_pause_says_nothing_about_the_peer() {
    let mut end = driven(limits(), false);
    end.call(|protocol, _| protocol.pause());
    assert_eq!(end.due(), None);
    end.at(100_000);
    end.call(Protocol::resume);
    assert_eq!(end.due(), Some(120_000), "silence begins anew");
    end.at(110_000);
    end.call(Protocol::resume);
    assert_eq!(end.due(), Some(120_000), "it had not paused");
}

/// The answer may lie behind what is not received.
#[test]
fn a_ping_before_a_pause_is_not_held_against_the_peer() {
    let mut end = driven(limits(), false);
    end.at(20_000);
    end.call(|protocol, _| protocol.pause());
    end.at(100_000);
    assert_eq!((end.phase().as_str(), end.due()), ("open", None));
    end.call(Protocol::resume);
    end.handle_timeout();
    assert_eq!(end.phase(), "open");
    end.at(120_000);
    assert_eq!((end.phase().as_str(), end.due()), ("open", Some(130_000)), "it is pinged again");
    end.at(130_000);
    assert_eq!(end.phase(), "over");
}

#[test]
fn a_ping_before_output_was_stuck_is_not_held_against_the_peer() {
    let mut end = driven(limits(), false);
    end.at(20_000);
    end.pump();
    end.room = 0;
    assert!(end.send("x".into()).is_none());
    end.pump();
    assert_eq!(end.due(), Some(51_000));
    end.at(50_000);
    end.room = usize::MAX;
    end.pump();
    assert_eq!(end.wire(0), "ping message");
    end.handle_timeout();
    end.pump();
    assert_eq!((end.phase().as_str(), end.wire(0).as_str()), ("open", "ping message ping"));
    assert_eq!(end.due(), Some(60_000));
}

/// Nor is the peer pinged again and again because its socket is full again and again.
#[test]
fn output_that_is_stuck_now_and_then_brings_no_flood_of_pings() {
    let mut end = driven(limits(), false);
    for millis in (0..90_000).step_by(500) {
        end.at(millis);
        end.room = 0;
        assert!(end.send("x".into()).is_none());
        end.pump();
        end.room = usize::MAX;
        end.pump();
    }
    assert!(!end.wire(0).contains("ping"), "it took something all the time");
    end.at(109_500);
    assert!(end.protocol.is_measuring());
}

#[test]
fn the_time_of_a_write_begins_anew_with_each_byte_that_is_taken() {
    let mut end = driven(silent(), true);
    end.room = 0;
    end.at(1_000);
    assert!(end.send("hello".into()).is_none());
    end.pump();
    assert_eq!(end.due(), Some(32_000), "the limit, and a second for whoever waits in write");
    end.at(20_000);
    end.pump();
    assert_eq!(end.due(), Some(32_000), "another refusal is no progress");
    end.room = 1;
    end.pump();
    assert_eq!(end.due(), Some(51_000));
    end.at(50_999);
    assert_eq!(end.phase(), "open");
    end.at(51_000);
    assert_eq!((end.phase().as_str(), end.reason().as_str()), ("over", "1006 by us"));
}

/// While output is stuck, nothing but that is judged.
#[test]
fn stuck_output_is_the_only_thing_judged() {
    let patient = Limits { write_timeout: 5000 * SECOND, ..limits() };
    let mut end = driven(patient, true);
    end.room = 0;
    assert!(end.send("x".into()).is_none());
    end.pump();
    assert_eq!(end.due(), Some(5_001_000));
    end.at(2_000_000);
    assert_eq!(end.phase(), "open");
    end.room = usize::MAX;
    end.pump();
    assert_eq!(end.due(), Some(20_000), "now the silence counts");
    end.handle_timeout();
    assert_eq!(end.phase(), "open", "a message was taken just now");
}

#[test]
fn a_shared_connection_without_messages_is_closed() {
    let mut end = driven(silent(), true);
    assert_eq!(end.due(), Some(900_000));
    end.at(100_000);
    end.receive(&frame(Role::Client, 0x89, b"?"), Hold::Nothing);
    end.pump();
    assert_eq!(end.due(), Some(900_000), "pings do not count");
    end.receive(&frame(Role::Client, 0x81, b"hi"), Hold::Nothing);
    assert_eq!(end.due(), Some(1_000_000));
    end.at(200_000);
    assert!(end.send("hi".into()).is_none());
    end.pump();
    assert_eq!(end.due(), Some(1_100_000));
    end.at(1_100_000);
    end.pump();
    assert_eq!((end.phase().as_str(), end.reason().as_str()), ("closing", "1001 by us"));
    assert_eq!((end.wire(0).as_str(), end.due()), ("pong message close 1001", Some(1_105_000)));
}

#[test]
fn buffers_are_given_back_when_it_is_quiet() {
    let mut end = driven(silent(), true);
    end.receive(&frame(Role::Client, 0x81, b"hi"), Hold::Nothing);
    assert!(end.send("hi".into()).is_none());
    end.pump();
    let park = |end: &mut Driven, millis| {
        end.now = start() + Duration::from_millis(millis);
        end.call(|protocol, now| protocol.park_if_quiet(SECOND, now)).map(|again| again.since(start()))
    };
    assert_eq!(park(&mut end, 500), Some(SECOND));
    assert!(end.protocol.codec.stream().output().capacity() > 0);
    assert_eq!(park(&mut end, 1000), None);
    assert_eq!(end.protocol.codec.stream().output().capacity(), 0);
}

#[test]
fn a_message_that_has_begun_is_completed_in_time() {
    let whole = frame(Role::Client, 0x82, &[b'x'; 100]);
    let fragment = frame(Role::Client, 0x02, b"first");
    // A part of a header, a header, a part of a frame, and a first fragment, also behind a whole message.
    let behind = [&whole[..], &fragment[..]].concat();
    for begun in [&whole[..1], &whole[..6], &whole[..50], &fragment[..], &fragment[..7], &behind[..]] {
        let mut end = driven(silent(), false);
        end.at(1_000);
        end.receive(begun, Hold::Nothing);
        assert_eq!(end.due(), Some(61_000), "{} bytes", begun.len());
        end.at(30_000);
        if begun.ends_with(b"first") {
            end.receive(&frame(Role::Client, 0x8a, b"a pong"), Hold::Nothing);
            assert_eq!(end.due(), Some(61_000), "not of the message");
        }
        end.at(60_999);
        assert_eq!(end.phase(), "open");
        end.at(61_000);
        end.pump();
        assert_eq!((end.phase().as_str(), end.reason().as_str()), ("closing", "1008 by us"));
        assert_eq!(end.wire(0), "close 1008");
    }
    let mut end = driven(Limits { message_timeout: None, ..silent() }, false);
    end.receive(&fragment, Hold::Nothing);
    assert_eq!(end.due(), None);
}

#[test]
fn or_goes_on() {
    let mut end = driven(silent(), false);
    end.receive(&frame(Role::Client, 0x01, b"first"), Hold::Nothing);
    assert_eq!(end.due(), Some(60_000));
    end.at(50_000);
    end.receive(&frame(Role::Client, 0x89, b""), Hold::Nothing);
    assert_eq!(end.due(), Some(60_000), "a ping is nothing of the message");
    end.receive(&frame(Role::Client, 0x00, b""), Hold::Nothing);
    assert_eq!(end.due(), Some(60_000), "nor is an empty fragment");
    let rest = frame(Role::Client, 0x80, b"second");
    end.receive(&rest[..8], Hold::Nothing);
    assert_eq!(end.due(), Some(110_000));
    end.at(100_000);
    end.receive(&rest[8..], Hold::Nothing);
    assert_eq!((end.received.len(), end.due()), (1, None), "between messages there is no time");
}

/// What is not received on purpose cannot be late.
#[test]
fn the_rest_of_a_message_is_not_late_while_nothing_is_received() {
    let mut end = driven(silent(), false);
    end.receive(&frame(Role::Client, 0x01, b"first"), Hold::Nothing);
    end.at(50_000);
    end.call(|protocol, _| protocol.pause());
    assert_eq!(end.due(), None);
    end.at(200_000);
    end.call(Protocol::resume);
    assert_eq!(end.due(), Some(260_000), "its time begins anew");
    end.at(210_000);
    end.room = 0;
    assert!(end.send("x".into()).is_none());
    end.pump();
    assert_eq!(end.due(), Some(241_000), "only the write");
    end.at(230_000);
    end.room = usize::MAX;
    end.pump();
    assert_eq!(end.due(), Some(290_000), "it could not go on");
}

#[test]
fn nothing_is_due_where_nothing_is_limited() {
    assert_eq!(driven(silent(), false).due(), None);
    let endless = Limits { shared_idle_timeout: None, ..silent() };
    assert_eq!(driven(endless, true).due(), None);
}

#[test]
fn every_end_has_its_deadline() {
    // How it begins, after one second; what is due; and what has come of it then.
    for (begin, due, then, reason) in [
        ("close", Some(6_000), "over", "1000 by us"),
        ("peer closes", Some(6_000), "over", "4001 by them"),
        ("peer closes, held", Some(6_000), "draining FIN", "4001 by them"),
        ("peer ends, held", Some(6_000), "over", "1006 broken"),
        ("unsendable", Some(6_000), "over", "1006 broken"),
        ("abort", None, "over", "1006 by us"),
    ] {
        for shared in [false, true] {
            let mut end = driven(limits(), shared);
            end.at(1_000);
            let close = close_frame(Role::Client, 4001);
            match begin {
                "close" => end.close(1000),
                "peer closes" => end.receive(&close, Hold::Nothing),
                "peer closes, held" => end.receive(&close, Hold::Answers),
                "peer ends, held" => end.receive_end(Hold::Answers),
                "unsendable" => end.call(|protocol, now| protocol.send_failed("broken pipe", now)),
                _ => end.call(|protocol, _| protocol.abort(ClosedBy::Server, "enough")),
            }
            end.pump();
            assert_eq!(end.due(), due, "{begin}");
            if due.is_some() {
                let was = end.phase();
                end.at(5_999);
                assert_eq!(end.phase(), was, "{begin}");
                end.at(6_000);
                end.pump();
            }
            assert_eq!((end.phase().as_str(), end.reason().as_str()), (then, reason), "{begin}");
        }
    }
}

#[test]
fn one_time_for_the_whole_closing_handshake() {
    let mut end = driven(limits(), false);
    end.close(1000);
    end.pump();
    end.at(4_000);
    end.receive(&close_frame(Role::Client, 1000), Hold::Nothing);
    end.pump();
    assert_eq!((end.phase().as_str(), end.due()), ("draining FIN", Some(5_000)));
    let mut end = driven(limits(), false);
    end.receive(&close_frame(Role::Client, 1000), Hold::Answers);
    end.at(4_000);
    end.poll(Hold::Nothing);
    assert_eq!(
        (end.phase().as_str(), end.due()),
        ("draining", Some(9_000)),
        "it begins when it takes effect"
    );
}

#[test]
fn a_compressor_that_is_not_used_is_given_back() {
    let mut end = driven(silent(), false);
    assert!(end.send("x".repeat(100).into()).is_none());
    assert_eq!(end.due(), Some(10_000));
    end.at(5_000);
    assert!(end.send("y".into()).is_none());
    end.pump();
    assert_eq!(end.due(), Some(15_000), "any message counts");
    assert!(end.protocol.codec.is_warm());
    end.at(15_000);
    assert!(!end.protocol.codec.is_warm());
    assert_eq!(end.due(), None);
    assert!(end.send("z".into()).is_none());
    assert_eq!(end.due(), None, "it was not compressed");
}

/// Also one that was away.
#[test]
fn a_compressor_that_comes_back_is_given_back_later() {
    let mut end = driven(silent(), false);
    let mut compressing = end.send(long_message()).expect("it is long");
    assert_eq!(end.due(), None);
    compressing.run();
    end.now = start() + 2 * SECOND;
    end.call(|protocol, _| protocol.compressed(*compressing));
    assert_eq!(end.due(), Some(10_000));
    end.at(10_000);
    assert!(!end.protocol.codec.is_warm());
    assert_eq!(end.due(), None);
}

#[test]
fn what_the_peer_compresses_is_given_back_too() {
    let limits = Limits { max_message_size: 1 << 20, ..silent() };
    let mut client = Driven::new(Role::Client, &Arc::new(limits.clone()), Some(DEFLATE), false);
    let mut end = driven(limits, false);
    for _ in 0..3 {
        let mut compressing = client.send(long_message()).expect("it is long");
        compressing.run();
        client.call(|protocol, _| protocol.compressed(*compressing));
    }
    client.pump();
    end.receive(&client.taken, Hold::Nothing);
    assert_eq!((end.received.len(), end.due()), (3, Some(10_000)));
    end.at(10_000);
    assert_eq!(end.due(), None);
}

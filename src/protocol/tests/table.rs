//! What each phase makes of each input.

use super::*;

/// What can happen, as the tables name it. A star stands for both [`Hold`]s: none, and `/held`.
const INPUTS: &str = "message* fragment* ping* pong* close-frame* 1002* 1007* 1009* end* poll* end-in-sight \
                      receive-failed send close abort send-failed sent sent-some pause resume early timeout";

/// How each phase is reached, and what comes of each input: the phase afterwards, the reason, what is sent (what waits for
/// the socket in parentheses), and whether a message was received. Where the roles differ: the server's / the client's.
const TABLES: &[(&str, &str)] = &[
    (
        "",
        "
        message*                                  | open                    |              | | got
        fragment* pong* poll* sent                | open                    |              | |
        sent-some pause resume early end-in-sight | open                    |              | |
        ping*                                     | open                    |              | pong |
        send                                      | open                    |              | message |
        timeout                                   | open                    |              | ping |
        close-frame                               | draining FIN / draining | 4001 by them | close 4001 FIN / close 4001 |
        1002                                      | draining FIN / draining | 1002 by us   | close 1002 FIN / close 1002 |
        1007                                      | draining FIN / draining | 1007 by us   | close 1007 FIN / close 1007 |
        1009                                      | draining FIN / draining | 1009 by us   | close 1009 FIN / close 1009 |
        close-frame/held end/held 1002/held       | ending                  |              | |
        1007/held 1009/held                       | ending                  |              | |
        end                                       | over                    | 1006 broken  | FIN |
        receive-failed                            | over                    | 1006 broken  | |
        close                                     | closing                 | 4000 by us   | close 4000 |
        abort                                     | over                    | 1006 by us   | |
        send-failed                               | unsendable              |              | |
        ",
    ),
    // What the peer sent before its end has not been received.
    (
        "end-in-sight",
        "
        message*               | open                    |              | | got
        fragment* pong* poll*  | open                    |              | |
        pause resume early     | open                    |              | |
        end-in-sight           | open                    |              | |
        sent sent-some         | open                    |              | |
        ping*                  | open                    |              | pong |
        send                   | open                    |              | message |
        close-frame            | draining FIN / draining | 4001 by them | close 4001 FIN / close 4001 |
        1002                   | draining FIN / draining | 1002 by us   | close 1002 FIN / close 1002 |
        1007                   | draining FIN / draining | 1007 by us   | close 1007 FIN / close 1007 |
        1009                   | draining FIN / draining | 1009 by us   | close 1009 FIN / close 1009 |
        close-frame/held       | ending                  |              | |
        end/held 1002/held     | ending                  |              | |
        1007/held 1009/held    | ending                  |              | |
        end                    | over                    | 1006 broken  | FIN |
        receive-failed timeout | over                    | 1006 broken  | |
        close                  | closing                 | 4000 by us   | close 4000 |
        abort                  | over                    | 1006 by us   | |
        send-failed            | unsendable              |              | |
        ",
    ),
    (
        "full send",
        "
        message*                                                | open         |              | (message) | got
        fragment* pong* poll* sent-some pause resume            | open         |              | (message) |
        early end-in-sight                                      | open         |              | (message) |
        ping*                                                   | open         |              | (message pong) |
        send                                                    | open         |              | (message message) |
        sent                                                    | open         |              | message |
        close-frame                                             | draining     | 4001 by them | (message close 4001) |
        1002                                                    | draining     | 1002 by us   | (message close 1002) |
        1007                                                    | draining     | 1007 by us   | (message close 1007) |
        1009                                                    | draining     | 1009 by us   | (message close 1009) |
        close-frame/held end/held 1002/held 1007/held 1009/held | ending       |              | (message) |
        end                                                     | draining EOF | 1006 broken  | (message) |
        receive-failed                                          | over         | 1006 broken  | |
        close                                                   | closing      | 4000 by us   | (message close 4000) |
        abort timeout                                           | over         | 1006 by us   | |
        send-failed                                             | unsendable   |              | |
        ",
    ),
    // Ending: what the peer sends after its end means nothing, and only who has nothing to wait for lets it take effect.
    (
        "close-frame/held",
        "
        message/held fragment/held ping/held      | ending                  |              | |
        pong/held close-frame/held 1002/held      | ending                  |              | |
        1007/held 1009/held poll/held end* sent   | ending                  |              | |
        sent-some pause resume early end-in-sight | ending                  |              | |
        send                                      | ending                  |              | message |
        message fragment ping pong                | draining FIN / draining | 4001 by them | close 4001 FIN / close 4001 |
        close-frame 1002 1007 1009                | draining FIN / draining | 4001 by them | close 4001 FIN / close 4001 |
        poll timeout close                        | draining FIN / draining | 4001 by them | close 4001 FIN / close 4001 |
        send-failed                               | draining FIN            | 4001 by them | |
        receive-failed abort                      | over                    | 4001 by them | |
        ",
    ),
    (
        "close-frame/held end",
        "
        message/held fragment/held ping/held pong/held close-frame/held 1002/held 1007/held | ending |              | |
        1009/held poll/held end* sent sent-some pause resume early end-in-sight             | ending |              | |
        send                                                                                | ending |              | message |
        message fragment ping pong close-frame 1002 1007 1009 poll                          | over   | 4001 by them | close 4001 FIN |
        timeout close                                                                       | over   | 4001 by them | close 4001 FIN |
        send-failed receive-failed abort                                                    | over   | 4001 by them | |
        ",
    ),
    (
        "1002/held",
        "
        message/held fragment/held ping/held pong/held | ending                  |             | |
        close-frame/held 1002/held 1007/held 1009/held | ending                  |             | |
        poll/held end* sent sent-some                  | ending                  |             | |
        pause resume early end-in-sight                | ending                  |             | |
        send                                           | ending                  |             | message |
        message fragment ping pong                     | draining FIN / draining | 1002 by us  | close 1002 FIN / close 1002 |
        close-frame 1002 1007 1009                     | draining FIN / draining | 1002 by us  | close 1002 FIN / close 1002 |
        poll timeout                                   | draining FIN / draining | 1002 by us  | close 1002 FIN / close 1002 |
        close                                          | draining FIN / draining | 4000 by us  | close 4000 FIN / close 4000 |
        send-failed                                    | draining FIN            | 1002 by us  | |
        receive-failed                                 | over                    | 1006 broken | |
        abort                                          | over                    | 1006 by us  | |
        ",
    ),
    (
        "end/held",
        "
        message/held fragment/held ping/held pong/held close-frame/held 1002/held 1007/held | ending |             | |
        1009/held poll/held end* sent sent-some pause resume early end-in-sight             | ending |             | |
        send                                                                                | ending |             | message |
        message fragment ping pong close-frame 1002 1007 1009 poll                          | over   | 1006 broken | FIN |
        timeout                                                                             | over   | 1006 broken | FIN |
        close                                                                               | over   | 4000 by us  | close 4000 FIN |
        send-failed receive-failed                                                          | over   | 1006 broken | |
        abort                                                                               | over   | 1006 by us  | |
        ",
    ),
    // Nothing can be answered any more, so no end of the peer's waits for answers.
    (
        "send-failed",
        "
        message*                                                    | unsendable   |              | | got
        fragment* ping* pong* poll* send send-failed sent sent-some | unsendable   |              | |
        pause resume early                                          | unsendable   |              | |
        close-frame*                                                | draining FIN | 4001 by them | |
        1002*                                                       | draining FIN | 1002 by us   | |
        1007*                                                       | draining FIN | 1007 by us   | |
        1009*                                                       | draining FIN | 1009 by us   | |
        end* end-in-sight receive-failed close timeout              | over         | 1006 broken  | |
        abort                                                       | over         | 1006 by us   | |
        ",
    ),
    // The peer's close frame is awaited; nothing may be sent after ours, not even a pong (RFC 6455, section 5.5.1).
    (
        "close",
        "
        message* fragment* ping* pong* poll* send close            | closing                 | 4000 by us | |
        send-failed sent sent-some pause resume early end-in-sight | closing                 | 4000 by us | |
        close-frame* 1002* 1007* 1009*                             | draining FIN / draining | 4000 by us | FIN / |
        end*                                                       | over                    | 4000 by us | FIN |
        receive-failed abort timeout                               | over                    | 4000 by us | |
        ",
    ),
    (
        "full close",
        "
        message* fragment* ping* pong* poll* send close sent-some | closing      | 4000 by us | (close 4000) |
        pause resume early end-in-sight                           | closing      | 4000 by us | (close 4000) |
        sent                                                      | closing      | 4000 by us | close 4000 |
        send-failed                                               | closing      | 4000 by us | |
        close-frame* 1002* 1007* 1009*                            | draining     | 4000 by us | (close 4000) |
        end*                                                      | draining EOF | 4000 by us | (close 4000) |
        receive-failed abort timeout                              | over         | 4000 by us | |
        ",
    ),
    // Draining: the output unsent, or sent; the peer's stream ended, or not; ours ended, or not.
    (
        "full close-frame",
        "
        message* fragment* ping*                  | draining                | 4001 by them | (close 4001) |
        pong* poll* close-frame*                  | draining                | 4001 by them | (close 4001) |
        1002* 1007* 1009* send close              | draining                | 4001 by them | (close 4001) |
        sent-some pause resume early end-in-sight | draining                | 4001 by them | (close 4001) |
        end*                                      | draining EOF            | 4001 by them | (close 4001) |
        sent                                      | draining FIN / draining | 4001 by them | close 4001 FIN / close 4001 |
        send-failed                               | draining FIN            | 4001 by them | |
        receive-failed abort timeout              | over                    | 4001 by them | |
        ",
    ),
    (
        "full close-frame end",
        "
        message* fragment* ping* pong* poll* close-frame* | draining EOF | 4001 by them | (close 4001) |
        1002* 1007* 1009* end* send close sent-some pause | draining EOF | 4001 by them | (close 4001) |
        resume early end-in-sight                         | draining EOF | 4001 by them | (close 4001) |
        sent                                              | over         | 4001 by them | close 4001 FIN |
        send-failed receive-failed abort timeout          | over         | 4001 by them | |
        ",
    ),
    (
        "close-frame",
        "
        message* fragment* ping* pong* poll* close-frame* | draining FIN / draining | 4001 by them | |
        1002* 1007* 1009* send close sent sent-some pause | draining FIN / draining | 4001 by them | |
        resume early end-in-sight                         | draining FIN / draining | 4001 by them | |
        send-failed                                       | draining FIN            | 4001 by them | |
        end*                                              | over                    | 4001 by them | / FIN |
        receive-failed abort timeout                      | over                    | 4001 by them | |
        ",
    ),
    (
        "close-frame silent-end",
        "
        message* fragment* ping* pong* poll* close-frame* 1002* 1007*        | over | 4001 by them | / FIN |
        1009* end* send close sent sent-some pause resume early end-in-sight | over | 4001 by them | / FIN |
        send-failed receive-failed abort timeout                             | over | 4001 by them | |
        ",
    ),
    (
        "close-frame/held send-failed",
        "
        message* fragment* ping* pong* poll* close-frame* 1002* 1007*               | draining FIN | 4001 by them | |
        1009* send close send-failed sent sent-some pause resume early end-in-sight | draining FIN | 4001 by them | |
        end* receive-failed abort timeout                                           | over         | 4001 by them | |
        ",
    ),
    (
        "close abort",
        "
        message* fragment* ping* pong* poll* close-frame* 1002* 1007*   | over | 4000 by us | |
        1009* end* send close send-failed sent sent-some receive-failed | over | 4000 by us | |
        abort pause resume early end-in-sight timeout                   | over | 4000 by us | |
        ",
    ),
];

/// So that a short message is too big.
fn limits() -> Arc<Limits> {
    Arc::new(Limits { max_message_size: 100, ..Limits::default() })
}

#[test]
fn every_phase_with_every_input() {
    for (path, table) in TABLES {
        let mut seen = Vec::new();
        for row in table.lines().filter(|row| !row.trim().is_empty()) {
            let [inputs, phase, reason, wire, got] = row.split('|').collect::<Vec<_>>()[..] else {
                panic!("not a row: {row}");
            };
            for input in expand(inputs) {
                check(path, &input, [phase, reason, wire, got]);
                seen.push(input);
            }
        }
        let mut all: Vec<String> = expand(INPUTS).collect();
        all.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen, all, "after {path:?}");
    }
}

fn check(path: &str, input: &str, row: [&str; 4]) {
    for role in [Role::Server, Role::Client] {
        let mut end = Driven::new(role, &limits(), None, false);
        path.split_whitespace().for_each(|input| apply(&mut end, input));
        let (sent, received) = (end.taken.len(), end.received.len());
        // What came of the path is no part of what comes of the input.
        let had_ended = end.ended;
        apply(&mut end, input);
        let mut wire = end.wire(sent);
        if had_ended {
            wire = wire.strip_suffix("FIN").expect("it ended").trim().into();
        }
        let got = if end.received.len() > received { "got" } else { "" };
        let expected = row.map(|column| match column.split_once('/') {
            Some((server, _)) if role == Role::Server => server.trim(),
            Some((_, client)) => client.trim(),
            None => column.trim(),
        });
        assert_eq!([&end.phase(), &end.reason(), &wire, got], expected, "{role:?}: {path:?}, then {input}");
    }
}

fn expand(inputs: &str) -> impl Iterator<Item = String> {
    inputs.split_whitespace().flat_map(|word| {
        let input = word.trim_end_matches('*');
        let holds: &[&str] = if word.ends_with('*') { &["", "/held"] } else { &[""] };
        holds.iter().map(move |hold| format!("{input}{hold}"))
    })
}

fn apply(end: &mut Driven, input: &str) {
    let (input, hold) = match input.split_once('/') {
        Some((input, _)) => (input, Hold::Answers),
        None => (input, Hold::Nothing),
    };
    let peer = peer_of(end.role());
    match input {
        "message" => end.receive(&frame(peer, 0x81, b"hi"), hold),
        "fragment" => end.receive(&frame(peer, 0x01, b"h"), hold),
        "ping" => end.receive(&frame(peer, 0x89, b"?"), hold),
        "pong" => end.receive(&frame(peer, 0x8a, b""), hold),
        "close-frame" => end.receive(&close_frame(peer, 4001), hold),
        "1002" => end.receive(&frame(peer, 0x83, b""), hold),
        "1007" => end.receive(&frame(peer, 0x81, b"\xff"), hold),
        "1009" => end.receive(&frame(peer, 0x82, &[0; 101]), hold),
        "end" | "silent-end" => end.receive_end(hold),
        "poll" => end.poll(hold),
        "end-in-sight" => end.call(Protocol::end_in_sight),
        "receive-failed" => end.call(|protocol, _| protocol.receive_failed("reset")),
        "send" if end.protocol.check_sendable().is_ok() => assert!(end.send("out".into()).is_none()),
        "send" => {}
        "close" => {
            // Whatever the phase: what was received is not wanted any more, unless it had ended.
            let had_ended = end.protocol.reason().is_some();
            end.close(4000);
            assert!(had_ended || end.protocol.has_hung_up());
        }
        "abort" => end.call(|protocol, _| protocol.abort(protocol.us(), "enough")),
        "send-failed" => end.call(|protocol, now| protocol.send_failed("broken pipe", now)),
        "full" => end.room = 0,
        "sent-some" => end.room = 1,
        "sent" => end.room = usize::MAX,
        "pause" => end.call(|protocol, _| protocol.pause()),
        "resume" => end.call(Protocol::resume),
        "early" => {
            end.now = end.now + SECOND;
            end.handle_timeout();
        }
        "timeout" if end.protocol.deadline().is_some() => end.next_timeout(),
        "timeout" => {}
        _ => panic!("what is {input}?"),
    }
    if input != "silent-end" {
        end.pump();
    }
}

/// The compressor is out when the phase comes: the message is sent where messages still can be, and nowhere else.
#[test]
fn a_compressor_comes_back_in_every_phase() {
    for (path, expected) in [
        ("", "compressed"),
        ("full", "(compressed)"),
        ("message ping", "compressed"),
        ("timeout", "compressed"),
        ("close-frame/held", "compressed"),
        ("1002/held", "compressed"),
        ("end/held", "compressed"),
        ("send-failed", ""),
        ("close", ""),
        ("full close", "(close 4000)"),
        ("close-frame", ""),
        ("full close-frame", "(close 4001)"),
        ("1002", ""),
        ("end", ""),
        ("close abort", ""),
    ] {
        for role in [Role::Server, Role::Client] {
            let mut end = Driven::new(role, &limits(), Some(DEFLATE), false);
            let mut compressing = end.send(long_message()).expect("it is long");
            assert!(end.protocol.is_compressing());
            path.split_whitespace().for_each(|input| apply(&mut end, input));
            let sent = end.taken.len();
            let was = end.phase();
            compressing.run();
            end.call(|protocol, _| protocol.compressed(*compressing));
            end.pump();
            assert!(!end.protocol.is_compressing());
            let wire = end.wire(sent);
            assert_eq!(wire.strip_suffix("FIN").unwrap_or(&wire).trim(), expected, "{role:?}: {path:?}");
            assert_eq!(end.phase(), was, "{role:?}: {path:?}");
            let is_out = u64::from(expected.contains("compressed"));
            assert_eq!(end.protocol.counts().messages_out, is_out, "{role:?}: {path:?}");
        }
    }
}

#[test]
fn the_texts_say_what_happened() {
    let text = |role, path: &str| {
        let mut end = Driven::new(role, &limits(), None, false);
        path.split_whitespace().for_each(|input| apply(&mut end, input));
        end.protocol.reason().expect("it has ended").text().to_string()
    };
    assert_eq!(text(Role::Server, "end"), "the client's stream ended without a close frame");
    assert_eq!(text(Role::Client, "end"), "the server's stream ended without a close frame");
    assert_eq!(text(Role::Server, "close"), "bye");
    assert_eq!(text(Role::Server, "receive-failed"), "reset");
    assert_eq!(text(Role::Server, "send-failed timeout"), "broken pipe");
    assert_eq!(text(Role::Server, "full send timeout"), TOO_SLOW);
    assert_eq!(text(Role::Server, "timeout timeout"), "no answer to a ping");
    assert_eq!(text(Role::Server, "close timeout"), "bye", "that it took too long is no other reason");
    let mut end = Driven::new(Role::Server, &limits(), None, false);
    apply(&mut end, "send-failed");
    assert_eq!(end.protocol.check_sendable().unwrap_err().text(), "broken pipe");
}

/// Codes that are never sent stand for no code (RFC 6455, section 7.4.1).
#[test]
fn a_code_that_may_not_be_sent_is_none() {
    for code in [0, 1004, 1005, 1006, 1015, 2999, 5000] {
        let mut end = Driven::new(Role::Server, &limits(), None, false);
        end.close(code);
        end.pump();
        assert_eq!((end.wire(0).as_str(), end.reason().as_str()), ("close", "1005 by us"), "{code}");
    }
    let mut end = Driven::new(Role::Server, &limits(), None, false);
    end.receive(&frame(Role::Client, 0x88, b""), Hold::Nothing);
    end.pump();
    assert_eq!((end.wire(0).as_str(), end.reason().as_str()), ("close FIN", "1005 by them"));
}

#[test]
fn messages_before_an_end_come_first() {
    for end_of in ["close-frame", "1002"] {
        let mut end = Driven::new(Role::Server, &limits(), None, false);
        let last = match end_of {
            "1002" => frame(Role::Client, 0x83, b""),
            _ => close_frame(Role::Client, 4001),
        };
        let bytes = [
            frame(Role::Client, 0x81, b"one"),
            frame(Role::Client, 0x89, b"?"),
            frame(Role::Client, 0x81, b"two"),
            last,
        ]
        .concat();
        let mut rest = [&bytes[..], &frame(Role::Client, 0x81, b"after")].concat();
        end.call(|protocol, now| protocol.receive(&mut rest, now));
        for message in ["one", "two"] {
            assert_eq!(end.poll_one(Hold::Nothing), Polled::Message);
            assert_eq!(end.received.last(), Some(&Message::from(message)));
        }
        assert_eq!(end.phase(), "open");
        assert!(
            end.poll_one(Hold::Answers) == Polled::Starved && !end.protocol.has_whole_message(),
            "nothing comes after it"
        );
        assert_eq!(end.phase(), "ending");
    }
}

/// Whoever does not read its pongs gets no more of them.
#[test]
fn too_much_output_is_sent_before_more_is_received() {
    let mut end = Driven::new(Role::Server, &limits(), None, false);
    end.room = 0;
    let ping = frame(Role::Client, 0x89, &[7; 125]);
    while end.protocol.wants_input() {
        end.receive(&ping, Hold::Nothing);
        end.pump();
        assert!(end.protocol.pending() <= CLOGGED + 127);
    }
    end.room = usize::MAX;
    end.pump();
    assert!(end.protocol.wants_input());
    assert_eq!(end.taken.len(), (CLOGGED / 127 + 1) * 127);
}

/// A client receives while it has much to send, since the server may be doing the same; but it does not collect pongs without end.
#[test]
fn a_client_is_not_clogged_by_what_it_says_but_by_pongs() {
    let mut end = Driven::new(Role::Client, &limits(), None, false);
    end.room = 0;
    end.call(|protocol, _| {
        drop(protocol.send(crate::codec::Outgoing::new(vec![7; 4 * CLOGGED].into(), false)))
    });
    end.pump();
    assert!(end.protocol.pending() > CLOGGED && end.protocol.wants_input());
    let said = end.protocol.pending();
    let ping = frame(Role::Server, 0x89, &[7; 125]);
    while end.protocol.wants_input() {
        end.receive(&ping, Hold::Nothing);
        end.pump();
        assert!(end.protocol.pending() <= said + CLOGGED + 131);
    }
    end.room = usize::MAX;
    end.pump();
    assert!(end.protocol.wants_input());
}

//! A close frame that waits behind messages which are still to be sent.

use super::*;

fn driven(role: Role) -> Driven {
    Driven::new(role, &Arc::new(Limits::default()), Some(DEFLATE), false)
}

impl Driven {
    fn close_behind(&mut self, code: u16) {
        self.call(|protocol, now| protocol.close_behind(CloseCode(code), "bye", now));
    }

    fn complete(&mut self) {
        self.call(|protocol, _| protocol.complete_close());
        self.pump();
    }
}

#[test]
fn what_waits_goes_before_the_close_frame() {
    for role in [Role::Server, Role::Client] {
        let mut end = driven(role);
        end.close_behind(1001);
        end.pump();
        assert_eq!(
            (end.phase().as_str(), end.reason().as_str(), end.wire(0).as_str()),
            ("closing", "1001 by us", "")
        );
        assert!(end.protocol.owes_close());
        assert!(end.send("first".into()).is_none());
        end.receive(&frame(peer_of(role), 0x89, b"?"), Hold::Nothing);
        assert!(end.send("second".into()).is_none());
        end.complete();
        assert_eq!(end.wire(0), "message pong message close 1001");
        assert!(!end.protocol.owes_close());
    }
}

/// However the peer ends meanwhile, our side of the stream does not end before the close frame.
#[test]
fn whatever_the_peer_does() {
    for (ends, wire) in [
        ("close", "message close 1001 FIN"),
        ("FIN", "message close 1001 FIN"),
        ("nonsense", "message close 1001 FIN"),
    ] {
        let mut end = driven(Role::Server);
        end.close_behind(1001);
        match ends {
            "close" => end.receive(&close_frame(Role::Client, 4001), Hold::Nothing),
            "FIN" => end.receive_end(Hold::Nothing),
            _ => end.receive(&frame(Role::Client, 0x8f, b""), Hold::Nothing),
        }
        end.pump();
        assert_eq!(end.wire(0), "", "{ends}");
        assert!(end.send("first".into()).is_none());
        end.pump();
        end.complete();
        assert_eq!((end.wire(0).as_str(), end.reason().as_str()), (wire, "1001 by us"), "{ends}");
    }
}

/// A peer that closed first, and waits for its answer, gets its own code.
#[test]
fn behind_the_answer_that_is_held() {
    let mut end = driven(Role::Server);
    end.receive(&close_frame(Role::Client, 4001), Hold::Answers);
    end.close_behind(1001);
    assert!(end.send("first".into()).is_none());
    end.complete();
    assert_eq!((end.wire(0).as_str(), end.reason().as_str()), ("message close 4001 FIN", "4001 by them"));
}

#[test]
fn a_message_that_is_compressed_meanwhile_goes_before_it() {
    let mut end = driven(Role::Server);
    let mut compressing = end.send(long_message()).expect("it is long");
    end.close_behind(1001);
    compressing.run();
    end.call(|protocol, _| protocol.compressed(*compressing));
    end.complete();
    assert_eq!(end.wire(0), "compressed close 1001");
}

#[test]
fn it_never_comes_where_nothing_can_be_sent() {
    let mut end = driven(Role::Server);
    end.close_behind(1001);
    end.call(|protocol, now| protocol.send_failed("broken pipe", now));
    assert!(!end.protocol.owes_close());
    let mut end = driven(Role::Server);
    end.close_behind(1001);
    end.next_timeout();
    assert!(end.protocol.is_over() && !end.protocol.owes_close());
    let mut end = driven(Role::Server);
    end.close(1000);
    end.close_behind(1001);
    assert!(!end.protocol.owes_close(), "it is out already");
}

//! How much one link may have.

use super::{
    peer::{message, push, read},
    *,
};
use crate::{
    answering::OF_LINK,
    wire::{Answer, AsText, Failure, Request, SUBPROTOCOL},
};

#[test]
fn only_so_many_requests_of_a_link_wait() {
    let served = Served::new();
    let (client, id) = served.client("/shared");
    let (peer, other) = (served.link(), served.link());
    let handle = peer.open(&id);
    let first = peer.send((0..OF_LINK + 3).map(|_| read(handle, PATIENCE)));
    let last = first + OF_LINK as u32;
    for number in last..last + 3 {
        assert_eq!(peer.reply(number).answer(), Answer::Failed(Failure::TooMany));
    }
    assert_eq!(peer.ask(Request::Len).number(), 1, "what does not wait goes on");
    // Another link has places of its own.
    let others = other.open(&id);
    let waiting = other.send([read(others, Duration::from_millis(20))]);
    assert_eq!(other.reply(waiting).answer(), Answer::Failed(Failure::Timeout));
    // One that is done makes place for the next.
    client.write("x").unwrap();
    eventually("one has it", || (first..last).any(|number| peer.has_reply(number)));
    eventually("there is place", || {
        let short = peer.ask(read(handle, Duration::from_millis(1)));
        short.answer() == Answer::Failed(Failure::Timeout)
    });
}

#[test]
fn only_so_many_connections_are_opened_by_a_link() {
    let served = Served::new();
    let (_client, id) = served.client("/shared");
    let peer = served.link();
    let open = || Request::Open { id: AsText(id) };
    let first = peer.send((0..4096).map(|_| open()));
    assert!((first..first + 4096).all(|number| peer.reply(number).handle() > 0));
    assert_eq!(peer.ask(open()).answer(), Answer::Failed(Failure::TooMany));
    assert_eq!(peer.ask(Request::Release { handle: 5 }).answer(), Answer::Done);
    assert!(peer.ask(open()).handle() > 4096, "a number is not used again soon");
}

#[test]
fn an_answer_that_is_too_long_is_not_sent_and_nothing_is_lost() {
    let served = Served::new();
    let (client, id) = served.client("/shared");
    let link = Client::builder(&served.url()).subprotocol(SUBPROTOCOL).connect().unwrap();
    let peer = Peer::over(link, 500);
    let handle = peer.open(&id);
    let long = message("x".repeat(1000));
    client.write(&long).unwrap();
    assert_eq!(peer.ask(read(handle, PATIENCE)).answer(), Answer::Failed(Failure::TooLong));
    let piece = peer.ask(Request::Read { handle, len: 300, timeout: PATIENCE }).delivery();
    assert_eq!((piece.0.len(), piece.3), (300, false), "nobody has seen it");
    // Many short ones come in several messages, each short enough.
    let before = peer.messages.get();
    let first = peer.send((0..100).map(|_| Request::Len));
    assert!((first..first + 100).all(|number| peer.reply(number).number() == 1));
    assert!(peer.messages.get() - before >= 2, "{}", peer.messages.get() - before);
    // A read that has waited, too.
    peer.ask(Request::Release { handle });
    let handle = peer.open(&id);
    let (_, delivery, ..) = peer.ask(Request::Read { handle, len: 300, timeout: PATIENCE }).delivery();
    peer.ask(Request::Ack { handle, delivery });
    let waiting = peer.send((0..3).map(|_| read(handle, PATIENCE)));
    client.write(&long).unwrap();
    let too_long = |number| peer.reply(number).answer() == Answer::Failed(Failure::TooLong);
    assert!((waiting..waiting + 3).all(too_long));
}

/// Each number of answers before it, so that one of them leaves no room for the failure that is told instead.
#[test]
fn an_answer_that_is_too_long_does_not_make_those_before_it_too_long() {
    const TAKES: usize = 250;
    let served = Served::new();
    let (_client, id) = served.client(&format!("/shared?user={0}&tag={0}", "x".repeat(100)));
    let limits = Limits { max_message_size: TAKES, ..Limits::default() };
    let link = Client::builder(&served.url()).subprotocol(SUBPROTOCOL).limits(limits);
    let peer = Peer::over(link.connect().unwrap(), TAKES as u64);
    for before in 0..60 {
        let short = (0..before).map(|_| Request::Len);
        let first = peer.send(short.chain([Request::Connection { id: AsText(id) }]));
        assert!((first..first + before).all(|number| peer.reply(number).number() == 1));
        assert_eq!(peer.reply(first + before).answer(), Answer::Failed(Failure::TooLong), "after {before}");
    }
}

#[test]
fn a_long_message_can_be_pushed_and_a_longer_one_ends_the_link() {
    let served = Served::new();
    let (client, id) = served.client("/shared");
    let peer = served.link();
    let data = message(vec![7; 1_000_000]);
    assert!(matches!(peer.ask(push(&id, &data)).answer(), Answer::Sent | Answer::Queued));
    assert_eq!(client.read_message(PATIENCE).unwrap(), data);
    peer.send([push(&id, &message(vec![7; 5 << 20]))]);
    assert_eq!(peer.end().code(), crate::CloseCode::TOO_BIG);
}

#[test]
fn links_count_as_connections_of_the_listener() {
    let limits = Limits { max_connections: 2, ..Limits::default() };
    let served = Served::start(|manage| manage.limits(limits), |builder| builder);
    let one = served.link();
    let _two = served.link();
    let third = Peer::connect(&served.url(), None);
    assert!(matches!(third, Err(crate::ClientError::Refused(response)) if response.status().as_u16() == 503));
    drop(one);
    eventually("there is a place", || Peer::connect(&served.url(), None).is_ok());
}

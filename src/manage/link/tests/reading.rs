//! Shared connections that a link opens.

use super::{
    peer::{message, payload, read},
    *,
};
use crate::{
    Error,
    wire::{Answer, AsText, Failure, Request},
};

const SOON: Duration = Duration::from_millis(30);

fn failed(failure: Failure<'_>) -> Answer<'_> {
    Answer::Failed(failure)
}

#[test]
fn a_message_is_read_until_it_is_acknowledged() {
    let served = Served::new();
    let peer = served.link();
    let (client, id) = served.client("/shared");
    let handle = peer.open(&id);
    assert_eq!(peer.ask(read(handle, Duration::ZERO)).answer(), failed(Failure::Timeout));
    assert_eq!(peer.ask(read(handle, SOON)).answer(), failed(Failure::Timeout));
    let waiting = peer.send([read(handle, PATIENCE)]);
    client.write("one").unwrap();
    client.write(message(vec![0xff])).unwrap();
    let (one, number, at_end, redelivered) = peer.reply(waiting).delivery();
    assert_eq!((one, at_end, redelivered), (message("one"), true, false));
    let (two, second, ..) = peer.ask(read(handle, PATIENCE)).delivery();
    assert_eq!(two, message(vec![0xff]));
    assert_ne!(number, second);
    // Given back, it comes first, and marked.
    let give_back = |delivery| Request::GiveBack { handle, delivery };
    assert_eq!(peer.ask(give_back(second)).answer(), Answer::Done);
    assert_eq!(peer.ask(give_back(number)).answer(), Answer::Done);
    let (one, number, _, redelivered) = peer.ask(read(handle, PATIENCE)).delivery();
    assert_eq!((one, redelivered), (message("one"), true));
    let ack = |delivery| Request::Ack { handle, delivery };
    assert_eq!(peer.ask(ack(number)).answer(), Answer::Done);
    assert_eq!(peer.ask(ack(number)).answer(), Answer::Done, "it is gone already");
    assert_eq!(peer.ask(give_back(number)).answer(), Answer::Done);
    let (two, number, _, redelivered) = peer.ask(read(handle, PATIENCE)).delivery();
    assert_eq!((two, redelivered), (message(vec![0xff]), true));
    peer.send_unanswered(&ack(number));
    assert_eq!(peer.ask(read(handle, SOON)).answer(), failed(Failure::Timeout));
}

#[test]
fn pieces_of_a_message_are_read_one_by_one() {
    let served = Served::new();
    let peer = served.link();
    let (client, id) = served.client("/shared");
    let handle = peer.open(&id);
    client.write("aäb").unwrap();
    let read = |len| peer.ask(Request::Read { handle, len, timeout: PATIENCE });
    let (piece, _, at_end, _) = read(2).delivery();
    assert_eq!((piece, at_end), (message("aä"), false));
    let (piece, number, at_end, _) = read(2).delivery();
    assert_eq!((piece, at_end), (message("b"), true));
    peer.ask(Request::Ack { handle, delivery: number });
    peer.ask(Request::Release { handle });
    // The first piece was not acknowledged.
    let handle = peer.open(&id);
    let (piece, _, _, redelivered) = peer.ask(Request::Read { handle, len: 0, timeout: PATIENCE }).delivery();
    assert_eq!((piece, redelivered), (message("aä"), true));
}

#[test]
fn many_reads_wait_and_each_message_goes_to_one() {
    let served = Served::new();
    let peer = served.link();
    let (client, id) = served.client("/shared");
    let handles = [peer.open(&id), peer.open(&id)];
    let first = peer.send((0..20).map(|i| read(handles[i % 2], PATIENCE)));
    assert_eq!(peer.ask(Request::Len).number(), 1, "they hold up nothing");
    for i in 0..20 {
        client.write(i.to_string()).unwrap();
    }
    let mut got: Vec<u32> = (first..first + 20)
        .map(|number| peer.reply(number).delivery().0.as_text().unwrap().parse().unwrap())
        .collect();
    got.sort_unstable();
    assert_eq!(got, (0..20).collect::<Vec<_>>());
}

#[test]
fn a_handle_has_what_a_websocket_has() {
    let served = Served::new();
    let peer = served.link();
    let url = format!("ws://{}/shared?user=ann&tag=x", served.server.local_addrs()[0]);
    let client = Client::builder(&url).subprotocol("chat").connect().unwrap();
    let id: WebSocketId = client.read_message(PATIENCE).unwrap().as_text().unwrap().parse().unwrap();
    let reply = peer.ask(Request::Open { id: AsText(id) });
    let Answer::Opened(opened) = reply.answer() else { panic!() };
    let ws = served.hub().open_server(&id).unwrap();
    assert_eq!((opened.path, opened.route, opened.subprotocol), ("/shared", "/shared", Some("chat")));
    assert_eq!((opened.user, opened.tags().get("tag")), (Some("ann"), Some("x")));
    assert_eq!(opened.session_id, ws.session_id().map(|id| id.as_str()));
    assert_eq!(opened.peer.map(|peer| peer.0), ws.peer());
    assert_eq!(opened.client_address.map(|address| address.0), ws.client_address());

    let handle = opened.handle;
    for data in [message("text"), message(vec![1, 0xff])] {
        assert_eq!(peer.ask(Request::Write { handle, payload: payload(&data) }).answer(), Answer::Done);
        assert_eq!(peer.ask(Request::Flush { handle }).answer(), Answer::Done);
        assert_eq!(client.read_message(PATIENCE).unwrap(), data);
    }
    assert_eq!(peer.ask(Request::SessionEndOnClose { handle }).answer(), Answer::Flag(false));
    assert_eq!(peer.ask(Request::SetSessionEndOnClose { handle, on: true }).answer(), Answer::Done);
    assert!(ws.session_end_on_close());
    assert_eq!(peer.ask(Request::BinaryData { handle }).answer(), Answer::Flag(false));
    assert_eq!(peer.ask(Request::SetBinaryData { handle, on: true }).answer(), Answer::Done);
    assert!(ws.binary_data());
    drop(ws);

    // What was sent before the end is read before it is told.
    client.write("last").unwrap();
    assert_eq!(peer.ask(Request::Ended { handle }).answer(), Answer::Ended(None));
    client.close(4000, "bye");
    let (last, delivery, ..) = peer.ask(read(handle, PATIENCE)).delivery();
    assert_eq!(last, message("last"));
    peer.send_unanswered(&Request::Ack { handle, delivery });
    let reply = peer.ask(read(handle, PATIENCE));
    let Answer::Failed(Failure::Closed(reason)) = reply.answer() else { panic!("{reply:?}") };
    assert_eq!((reason.code, reason.text), (4000, "bye"));
    let reply = peer.ask(Request::Ended { handle });
    let Answer::Ended(Some(reason)) = reply.answer() else { panic!("{reply:?}") };
    assert_eq!(reason.code, 4000);
    assert!(matches!(
        peer.ask(Request::Write { handle, payload: payload(&message("x")) }).answer(),
        Answer::Failed(Failure::Closed(_))
    ));
}

#[test]
fn a_handle_closes_its_connection_and_means_nothing_when_it_is_released() {
    let served = Served::new();
    let peer = served.link();
    let (client, id) = served.client("/shared");
    let (handle, other) = (peer.open(&id), peer.open(&id));
    let waiting = peer.send([read(handle, PATIENCE)]);
    assert_eq!(peer.ask(Request::Release { handle }).answer(), Answer::Done);
    assert_eq!(peer.reply(waiting).answer(), failed(Failure::UnknownHandle), "it ends with the handle");
    let data = message("x");
    for request in [
        read(handle, PATIENCE),
        Request::Write { handle, payload: payload(&data) },
        Request::Flush { handle },
        Request::End { handle, code: 1000, text: "" },
        Request::Ended { handle },
        Request::Ack { handle, delivery: 1 },
        Request::GiveBack { handle, delivery: 1 },
        Request::SessionEndOnClose { handle },
        read(77, Duration::ZERO),
    ] {
        assert_eq!(peer.ask(request).answer(), failed(Failure::UnknownHandle));
    }
    assert_eq!(peer.ask(Request::Release { handle }).answer(), Answer::Done);
    let stranger = served.link();
    assert_eq!(stranger.ask(read(other, Duration::ZERO)).answer(), failed(Failure::UnknownHandle));

    client.write("x").unwrap();
    assert_eq!(peer.ask(read(other, PATIENCE)).delivery().0, data);
    assert_eq!(peer.ask(Request::End { handle: other, code: 4001, text: "out" }).answer(), Answer::Done);
    assert!(matches!(client.read_message(PATIENCE), Err(Error::Closed(reason)) if reason.code() == 4001));
}

//! MODEL, section 9: an ID is valid from `on_pre_server` on, and names its node.
#![cfg(feature = "__tls")]
mod common;

use std::{
    collections::HashSet,
    io::Write,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc::{self, Receiver, Sender},
    },
    thread,
    time::Duration,
};

use common::{
    PATIENCE, SCHEMES, Scheme, Stream, TestServer,
    ends::{End, ON_PURPOSE},
    eventually, frame, full_app, handshake, serve,
};
use switchboard::{
    Audience, Bytes, CloseCode, Compression, Error, Hub, Limits, Message, NodeId, Opening, PushErrorKind,
    Pushed, Refusal, ServerBuilder, ServerResult, StatusCode, WebSocket, WebSocketId,
};

/// What an application answers to the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Yes,
    No,
    Panic,
}

/// A server whose `on_pre_server` tells the ID, and answers when it is told how.
struct Gated {
    server: TestServer,
    ids: Receiver<WebSocketId>,
    answers: Sender<Answer>,
    ends: Receiver<End>,
}

fn gated(share: bool, limits: Limits) -> Gated {
    gated_with(share, limits, |builder| builder)
}

fn gated_with(share: bool, limits: Limits, more: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Gated {
    let (tell, ids) = mpsc::channel();
    let (answers, answered) = mpsc::channel();
    let answered = Arc::new(Mutex::new(answered));
    let (end, ends) = mpsc::channel();
    let server = serve(|builder| {
        more(builder.limits(limits)).route("/*", move || {
            let (tell, answered, end) = (tell.clone(), answered.clone(), end.clone());
            let before = move |opening: &mut Opening| {
                opening.set_shared_connection(share);
                tell.send(*opening.websocket_id()).unwrap();
                match answered.lock().unwrap_or_else(|e| e.into_inner()).recv_timeout(PATIENCE).unwrap() {
                    Answer::Yes => Ok(()),
                    Answer::No => Err(Refusal::new(StatusCode::FORBIDDEN, "no")),
                    Answer::Panic => panic!("{ON_PURPOSE}"),
                }
            };
            let run = move |ws: &mut WebSocket| if share { Ok(()) } else { wait(ws) };
            full_app(before, run, move |closed| drop(end.send(closed.into())))
        })
    });
    Gated { server, ids, answers, ends }
}

impl Gated {
    /// A client whose handshake is asked about now, and its ID.
    fn begin(&self, scheme: Scheme) -> (Stream, WebSocketId) {
        let mut client = self.server.raw(scheme);
        client.write_all(handshake("/").as_bytes()).unwrap();
        (client, self.ids.recv_timeout(PATIENCE).unwrap())
    }

    fn answer(&self, answer: Answer) {
        self.answers.send(answer).unwrap();
    }

    /// It is as if there had been nothing.
    fn is_clean(&self, id: &WebSocketId) {
        eventually("the place is free", || self.server.handle.connections() == 0);
        let hub = &self.server.hub;
        assert!(hub.is_empty().unwrap() && common::connections(hub).is_empty());
        assert!(matches!(hub.push(id, "x").unwrap_err().kind, PushErrorKind::Unknown));
        assert!(matches!(hub.open_server(id), Err(Error::UnknownId)));
        assert!(matches!(hub.pusher(id), Err(Error::UnknownId)));
    }
}

fn wait(ws: &mut WebSocket) -> ServerResult {
    ws.messages().for_each(drop);
    Ok(())
}

fn text(client: &mut Stream) -> String {
    let (first, payload) = client.read_frame();
    assert_eq!(first, 0x81, "{payload:?}");
    String::from_utf8(payload).unwrap()
}

fn opened(client: &mut Stream) {
    let head = client.read_head();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
}

/// A server where another thread does something with each connection as soon as `on_pre_server` learns its ID, and tells what
/// went wrong.
fn serve_hasty(
    share: bool,
    workers: usize,
    hasty: impl Fn(&Hub, WebSocketId) -> switchboard::Result<()> + Send + 'static,
) -> (TestServer, Receiver<switchboard::Result<()>>) {
    let (tell, ids) = mpsc::channel::<WebSocketId>();
    let (done, results) = mpsc::channel();
    let mut limits = Limits::default();
    limits.workers = workers;
    let server = serve(|builder| {
        builder.limits(limits).route("/*", move || {
            let tell = tell.clone();
            let before = move |opening: &mut Opening| {
                opening.set_shared_connection(share);
                tell.send(*opening.websocket_id()).unwrap();
                Ok(())
            };
            full_app(before, move |ws| if share { Ok(()) } else { wait(ws) }, |_| {})
        })
    });
    let hub = server.hub.clone();
    // It ends with the server, which has the other end of the channel.
    thread::spawn(move || ids.iter().all(|id| done.send(hasty(&hub, id)).is_ok()));
    (server, results)
}

const TIMES: usize = 500;

/// Shared or not, and the workers: with none the gateway does their work.
const KINDS: [(bool, usize); 3] = [(false, 2), (true, 2), (true, 0)];

fn push(hub: &Hub, id: &WebSocketId, text: &str) {
    let _ = hub.push(id, text).unwrap_or_else(|e| panic!("{text}: {e}"));
}

#[test]
fn a_thread_that_pushes_at_once_is_heard_behind_the_101() {
    for (share, workers) in KINDS {
        let (server, results) = serve_hasty(share, workers, |hub, id| {
            push(hub, &id, "one");
            let pusher = hub.pusher(&id)?;
            for text in ["two", "three"] {
                let _ = pusher.push(text).unwrap();
            }
            push(hub, &id, "four");
            assert_eq!(pusher.websocket_id(), &id);
            Ok(())
        });
        for scheme in SCHEMES {
            for _ in 0..TIMES {
                let mut client = server.raw_websocket(scheme, "/");
                for expected in ["one", "two", "three", "four"] {
                    assert_eq!(text(&mut client), expected);
                }
                results.recv_timeout(PATIENCE).expect("no push failed").unwrap();
            }
        }
    }
}

#[test]
fn a_thread_that_opens_at_once_gets_the_connection() {
    for (share, workers) in [(true, 2), (true, 0)] {
        let (server, results) = serve_hasty(share, workers, |hub, id| {
            let ws = hub.open_server(&id)?;
            hub.join(&id, "room")?;
            assert!(hub.members("room", None, 0).unwrap().items.contains(&id));
            assert_eq!(hub.connection(&id).unwrap().id, id);
            ws.write("who is there?")?;
            assert_eq!(ws.read_message(PATIENCE)?, "me");
            ws.end_server();
            Ok(())
        });
        for scheme in SCHEMES {
            for _ in 0..TIMES {
                let mut client = server.raw_websocket(scheme, "/");
                assert_eq!(text(&mut client), "who is there?");
                client.write_all(&frame(0x81, b"me")).unwrap();
                assert_eq!(client.answer_close_and_end(), (1000, String::new()));
                results.recv_timeout(PATIENCE).unwrap().unwrap();
            }
        }
    }
}

/// What is pushed to many that are being opened counts for the bound of all, and no longer than it is kept.
#[test]
fn all_queues_of_those_that_are_opened_have_one_bound() {
    const SIZE: usize = 100 << 10;
    let mut limits = Limits::default();
    limits.max_buffered_bytes = Some(8 * SIZE); // half of it is for those who could be ended
    let gated = gated(true, limits);
    let push = |id: &WebSocketId| gated.server.hub.push(id, vec![0; SIZE]);
    for answer in [Answer::No, Answer::Panic, Answer::Yes] {
        let mut opening: Vec<_> = (0..6).map(|_| gated.begin(Scheme::Ws)).collect();
        let taken = opening.iter().filter(|(_, id)| match push(id) {
            Ok(pushed) => pushed == Pushed::Queued,
            Err(e) => !matches!(e.kind, PushErrorKind::Full) || e.message.len() != SIZE,
        });
        assert_eq!(taken.count(), 4, "{answer:?}");
        opening.iter().for_each(|_| gated.answer(answer));
        for (n, (client, _)) in opening.iter_mut().enumerate() {
            if answer == Answer::Yes {
                opened(client);
                assert!(n >= 4 || client.read_frame() == (0x82, vec![0; SIZE]));
            } else {
                client.read_head();
            }
        }
        drop(opening);
        eventually("the places are free", || gated.server.handle.connections() == 0);
    }
}

#[test]
fn a_thread_that_opens_at_once_learns_that_it_is_not_shared() {
    let (server, results) = serve_hasty(false, 2, |hub, id| {
        assert!(matches!(hub.open_server(&id), Err(Error::NotShared)));
        Ok(())
    });
    for scheme in SCHEMES {
        for _ in 0..TIMES {
            let _client = server.raw_websocket(scheme, "/");
            results.recv_timeout(PATIENCE).unwrap().unwrap();
        }
    }
}

#[test]
fn a_thread_that_closes_at_once_closes_behind_what_was_pushed() {
    for (share, workers) in KINDS {
        let (server, results) = serve_hasty(share, workers, |hub, id| {
            push(hub, &id, "last words");
            hub.close(&id, 4000, "enough")
        });
        for scheme in SCHEMES {
            for _ in 0..TIMES {
                let mut client = server.raw_websocket(scheme, "/");
                assert_eq!(text(&mut client), "last words");
                assert_eq!(client.answer_close_and_end(), (4000, "enough".into()));
                results.recv_timeout(PATIENCE).unwrap().unwrap();
            }
        }
        eventually("all are gone", || server.hub.is_empty().unwrap() && server.handle.connections() == 0);
    }
}

/// What one thread pushes comes in its order, whether it was pushed before, while or after the connection was opened.
#[test]
fn pushes_keep_their_order_while_the_connection_is_opened() {
    const MESSAGES: usize = 300;
    for (share, workers) in KINDS {
        let mut limits = Limits::default();
        limits.workers = workers;
        let gated = gated(share, limits);
        for scheme in SCHEMES {
            for round in 0..20 {
                let (mut client, id) = gated.begin(scheme);
                let pushers: Vec<_> = (0..2)
                    .map(|name| {
                        let (hub, kept) = (gated.server.hub.clone(), gated.server.hub.pusher(&id).unwrap());
                        let (started, at_half) = mpsc::channel();
                        let thread = thread::spawn(move || {
                            for n in 0..MESSAGES {
                                let message = format!("{name} {n} {}", "o".repeat(n));
                                let pushed =
                                    if n % 2 == 0 { kept.push(message) } else { hub.push(&id, message) };
                                let _ = pushed.unwrap();
                                if n == round * 10 {
                                    started.send(()).unwrap();
                                }
                            }
                        });
                        (thread, at_half)
                    })
                    .collect();
                pushers.iter().for_each(|(_, at_half)| at_half.recv_timeout(PATIENCE).unwrap());
                gated.answer(Answer::Yes);
                opened(&mut client);
                let mut next = [0; 2];
                for _ in 0..2 * MESSAGES {
                    let message = text(&mut client);
                    let mut parts = message.split(' ').map(|part| part.parse::<usize>());
                    let (name, n) = (parts.next().unwrap().unwrap(), parts.next().unwrap().unwrap());
                    assert_eq!(n, next[name], "of {name}");
                    next[name] += 1;
                }
                pushers.into_iter().for_each(|(thread, _)| thread.join().unwrap());
                drop(client);
                gated.ends.recv_timeout(PATIENCE).unwrap();
            }
        }
    }
}

/// Also where each message is compressed alone, before it is queued.
#[test]
fn what_is_queued_is_compressed_as_agreed() {
    const OFFER: &str = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate";
    let dedicated = Compression::Dedicated { window_bits: 15, level: 6 };
    for compression in [Compression::Pooled, dedicated] {
        for share in [false, true] {
            let gated = gated_with(share, Limits::default(), |builder| builder.compression(compression));
            for scheme in SCHEMES {
                let mut client = gated.server.raw(scheme);
                let request = handshake("/").replace("Sec-WebSocket-Version: 13", OFFER);
                client.write_all(request.as_bytes()).unwrap();
                let id = gated.ids.recv_timeout(PATIENCE).unwrap();
                for _ in 0..2 {
                    push(&gated.server.hub, &id, &"long ".repeat(100_000));
                }
                gated.answer(Answer::Yes);
                opened(&mut client);
                for _ in 0..2 {
                    let (first, payload) = client.read_frame();
                    assert!(first == 0xc1 && payload.len() < 10_000, "{first:x} {}", payload.len());
                }
            }
        }
    }
}

#[test]
fn a_full_queue_is_told_and_closes_nothing() {
    for share in [false, true] {
        let mut limits = Limits::default();
        (limits.max_queue_messages, limits.max_queue_bytes) = (3, Some(100));
        let gated = gated(share, limits);
        for scheme in SCHEMES {
            for (sizes, too_much) in [(&[1, 0, 2][..], 0), (&[60, 40], 1), (&[1000], 1), (&[0, 1000], 1)] {
                let (mut client, id) = gated.begin(scheme);
                let pusher = gated.server.hub.pusher(&id).unwrap();
                for (n, &size) in sizes.iter().enumerate() {
                    let message = n.to_string().repeat(size);
                    let pushed =
                        if n == 0 { pusher.push(message) } else { gated.server.hub.push(&id, message) };
                    assert_eq!(pushed.unwrap(), Pushed::Queued);
                }
                for _ in 0..3 {
                    let refused = gated.server.hub.push(&id, "x".repeat(too_much)).unwrap_err();
                    assert!(matches!(refused.kind, PushErrorKind::Full), "{refused}");
                    assert_eq!(refused.message, Message::from("x".repeat(too_much)), "it comes back");
                }
                gated.answer(Answer::Yes);
                opened(&mut client);
                for (n, &size) in sizes.iter().enumerate() {
                    assert_eq!(text(&mut client), n.to_string().repeat(size));
                }
                push(&gated.server.hub, &id, "more");
                assert_eq!(text(&mut client), "more");
                drop(client);
                gated.ends.recv_timeout(PATIENCE).unwrap();
            }
        }
    }
}

type Waits = fn(&Hub, &WebSocketId) -> Option<Error>;

/// Those who ask in time that a connection is refused learn just that; afterwards its ID is unknown.
#[test]
fn a_refusal_and_a_panic_are_told_to_those_who_wait() {
    for (share, answer) in
        [(false, Answer::No), (true, Answer::No), (false, Answer::Panic), (true, Answer::Panic)]
    {
        let gated = gated(share, Limits::default());
        for scheme in SCHEMES {
            let mut refused = HashSet::new();
            // Perhaps the answer is faster than one of them: then the ID is unknown already.
            eventually("all have learned of a refusal", || {
                let (mut client, id) = gated.begin(scheme);
                let hub = &gated.server.hub;
                let pusher = hub.pusher(&id).unwrap();
                assert_eq!(pusher.push("x").unwrap(), Pushed::Queued);
                hub.close(&id, 1000, "").unwrap(); // waits for nothing
                let waiters: [(_, Waits); 2] = [
                    ("open_server", |hub, id| hub.open_server(id).err()),
                    ("join", |hub, id| hub.join(id, "room").err()),
                ];
                thread::scope(|scope| {
                    let (begun, begins) = mpsc::channel();
                    let waiters = waiters.map(|(name, waits)| {
                        let begun = begun.clone();
                        let wait = move || {
                            begun.send(()).unwrap();
                            waits(hub, &id)
                        };
                        (name, scope.spawn(wait))
                    });
                    (0..2).for_each(|_| begins.recv_timeout(PATIENCE).unwrap());
                    thread::sleep(Duration::from_millis(10)); // so that they mostly do wait by now
                    gated.answer(answer);
                    for (name, waiter) in waiters {
                        match waiter.join().unwrap() {
                            Some(Error::Refused) => drop(refused.insert(name)),
                            Some(Error::UnknownId) => {}
                            other => panic!("{name}: {other:?}"),
                        }
                    }
                });
                let head = client.read_head();
                let status = if answer == Answer::No { "HTTP/1.1 403 " } else { "HTTP/1.1 500 " };
                assert!(head.starts_with(status), "{head}");
                let late = pusher.push("late").unwrap_err();
                assert!(matches!(late.kind, PushErrorKind::Refused) && late.message == "late");
                assert_eq!((pusher.websocket_id(), pusher.close_reason()), (&id, None));
                drop(client);
                gated.is_clean(&id);
                refused.len() == 2
            });
        }
        assert!(gated.ends.try_recv().is_err(), "there was nothing that could end");
    }
}

/// A client that has left by the time the answer is yes has been connected for a moment, and has lost what was pushed.
#[test]
fn a_client_that_leaves_meanwhile_leaves_nothing_behind() {
    for share in [false, true] {
        let gated = gated(share, Limits::default());
        for scheme in SCHEMES {
            let (client, id) = gated.begin(scheme);
            let hub = gated.server.hub.clone();
            let pusher = hub.pusher(&id).unwrap();
            let _ = pusher.push("x").unwrap();
            let opener = thread::spawn(move || hub.open_server(&id).and_then(|ws| ws.read_message(PATIENCE)));
            client.reset();
            gated.answer(Answer::Yes);
            let end = gated.ends.recv_timeout(PATIENCE).unwrap();
            assert_eq!((end.id, end.reason.code()), (id, CloseCode::ABNORMAL));
            match opener.join().unwrap() {
                Err(Error::Closed(reason)) => assert!(share && reason.code() == 1006),
                Err(Error::NotShared) => assert!(!share),
                Err(Error::UnknownId) => {} // it came later
                other => panic!("{other:?}"),
            }
            assert!(matches!(pusher.push("late").unwrap_err().kind, PushErrorKind::Closed(_)));
            assert_eq!(pusher.close_reason().unwrap().code(), 1006);
            gated.is_clean(&id);
        }
    }
}

#[test]
fn on_pre_server_may_push_to_its_own_connection_and_does_not_wait_for_it() {
    for share in [false, true] {
        let server = serve(|builder| {
            builder.route("/*", move || {
                let before = move |opening: &mut Opening| {
                    opening.set_shared_connection(share);
                    let (hub, id) = (opening.hub(), *opening.websocket_id());
                    assert_eq!(hub.push(&id, "welcome").unwrap(), Pushed::Queued);
                    let pusher = hub.pusher(&id).unwrap();
                    assert_eq!(pusher.push("to the room").unwrap(), Pushed::Queued);
                    assert!(matches!(hub.open_server(&id), Err(Error::NotOpen)));
                    assert!(matches!(hub.join(&id, "room"), Err(Error::NotOpen)));
                    hub.leave(&id, "room").unwrap();
                    assert!(hub.connection(&id).is_err());
                    // It is not there yet for those who look at what is.
                    assert!(hub.is_empty().unwrap() && common::connections(&hub).is_empty());
                    assert_eq!(hub.broadcast(Audience::All, "all").unwrap(), Default::default());
                    assert_eq!(hub.broadcast(Audience::Path("/"), "all").unwrap(), Default::default());
                    Ok(())
                };
                full_app(before, move |ws| if share { Ok(()) } else { wait(ws) }, |_| {})
            })
        });
        for scheme in SCHEMES {
            let mut client = server.raw_websocket(scheme, "/");
            for expected in ["welcome", "to the room"] {
                assert_eq!(text(&mut client), expected);
            }
            let _ = server.hub.broadcast(Audience::Path("/"), "to all").unwrap();
            assert_eq!(text(&mut client), "to all");
            drop(client);
            eventually("it is gone", || server.hub.is_empty().unwrap());
        }
    }
}

/// Nothing tells a thread that closes a connection whether that is being opened, so it must not wait for its handler.
#[test]
fn closing_one_that_is_being_opened_waits_for_nothing() {
    for share in [false, true] {
        let gated = gated(share, Limits::default());
        for scheme in SCHEMES {
            let (mut client, id) = gated.begin(scheme);
            push(&gated.server.hub, &id, "last words");
            gated.server.hub.close(&id, 4000, "enough").unwrap();
            gated.server.hub.close(&id, 4001, "too late").unwrap();
            gated.answer(Answer::Yes);
            opened(&mut client);
            assert_eq!(text(&mut client), "last words");
            assert_eq!(client.answer_close_and_end(), (4000, "enough".into()));
            gated.ends.recv_timeout(PATIENCE).unwrap();
            gated.is_clean(&id);
            let (mut client, id) = gated.begin(scheme);
            gated.server.hub.close(&id, 4000, "").unwrap();
            gated.answer(Answer::No);
            assert!(client.read_head().starts_with("HTTP/1.1 403 "));
            drop(client);
            gated.is_clean(&id);
        }
    }
}

/// It waits as long as a handshake may take, and no longer.
#[test]
fn who_waits_too_long_is_told() {
    let mut limits = Limits::default();
    limits.handshake_timeout = Duration::from_secs(3);
    let gated = gated(true, limits);
    let (mut client, id) = gated.begin(Scheme::Ws);
    let hub = &gated.server.hub;
    assert!(matches!(hub.open_server(&id), Err(Error::Timeout)));
    push(hub, &id, "still");
    gated.answer(Answer::Yes);
    opened(&mut client);
    assert_eq!(text(&mut client), "still");
    hub.open_server(&id).unwrap().end_server();
    assert_eq!(client.answer_close_and_end(), (1000, String::new()));
}

/// Counts how many of its kind are alive.
struct Counted(Arc<AtomicUsize>, Vec<u8>);

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.1
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[test]
fn what_was_queued_is_freed_with_whatever_ends_the_handshake() {
    let alive = Arc::new(AtomicUsize::new(0));
    let message = || {
        alive.fetch_add(1, SeqCst);
        Message::Binary(Bytes::from_owner(Counted(alive.clone(), vec![7; 50_000])))
    };
    for share in [false, true] {
        let gated = gated(share, Limits::default());
        for scheme in SCHEMES {
            for answer in [Answer::No, Answer::Panic, Answer::Yes] {
                let (client, id) = gated.begin(scheme);
                let pusher = gated.server.hub.pusher(&id).unwrap();
                for _ in 0..10 {
                    let _ = pusher.push(message()).unwrap();
                }
                assert_eq!(alive.load(SeqCst), 10);
                client.reset();
                gated.answer(answer);
                eventually("the place is free", || gated.server.handle.connections() == 0);
                eventually("all messages are freed", || alive.load(SeqCst) == 0);
                gated.is_clean(&id);
            }
        }
    }
}

/// A shutdown ends handshakes that are asked about as before; those who wait learn of the end.
#[test]
fn a_shutdown_leaves_nobody_waiting() {
    let Gated { server, ids, answers, .. } = gated(true, Limits::default());
    let mut client = server.raw(Scheme::Ws);
    client.write_all(handshake("/").as_bytes()).unwrap();
    let id = ids.recv_timeout(PATIENCE).unwrap();
    let hub = server.hub.clone();
    let opener = thread::spawn(move || hub.open_server(&id).and_then(|ws| ws.read_message(PATIENCE)));
    server.handle.shutdown(Duration::ZERO);
    answers.send(Answer::Yes).unwrap();
    let answer = opener.join().unwrap();
    assert!(matches!(answer, Err(Error::Closed(_) | Error::UnknownId)), "{answer:?}");
    let hub = server.hub.clone();
    server.shutdown(Duration::ZERO);
    assert!(
        hub.is_empty().unwrap() && matches!(hub.push(&id, "x").unwrap_err().kind, PushErrorKind::Unknown)
    );
}

#[test]
fn ids_name_the_node_that_is_set_or_a_random_one() {
    let set = gated_with(true, Limits::default(), |builder| builder.node(NodeId::new(42)));
    let (one, other) = (gated(true, Limits::default()), gated(true, Limits::default()));
    let node = |gated: &Gated| {
        let ids = [gated.begin(Scheme::Ws), gated.begin(Scheme::Wss)].map(|(_, id)| id);
        (0..2).for_each(|_| gated.answer(Answer::No));
        assert!(ids[0] != ids[1] && ids[0].node() == ids[1].node());
        ids[0].node()
    };
    assert_eq!(node(&set).get(), 42);
    assert_ne!(node(&one), node(&other));
}

/// All that the library logs in this process.
struct Log(Mutex<Vec<String>>);

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.target().starts_with("switchboard") {
            self.0.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

#[test]
fn the_log_shows_the_first_characters_of_an_id_only() {
    static LOG: OnceLock<Log> = OnceLock::new();
    let log = LOG.get_or_init(|| Log(Mutex::default()));
    log::set_logger(log).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let (tell, ids) = mpsc::channel();
    let server = serve(|builder| {
        builder.route("/*", move || {
            let tell = tell.clone();
            let before = move |opening: &mut Opening| {
                tell.send(*opening.websocket_id()).unwrap();
                assert_ne!(opening.path(), "/panics-before", "{ON_PURPOSE}");
                Ok(())
            };
            let run = |ws: &mut WebSocket| match ws.path() {
                "/panics" => panic!("{ON_PURPOSE}"),
                "/fails" => Err(ON_PURPOSE.into()),
                _ => wait(ws),
            };
            full_app(before, run, |closed| assert_ne!(closed.reason().code(), 4000, "{ON_PURPOSE}"))
        })
    });
    let mut seen = Vec::new();
    for path in ["/", "/panics-before", "/panics", "/fails", "/panics-after"] {
        let mut client = server.raw(Scheme::Ws);
        client.write_all(handshake(path).as_bytes()).unwrap();
        let id: WebSocketId = ids.recv_timeout(PATIENCE).unwrap();
        client.read_head();
        if path == "/panics-after" {
            client.write_all(&frame(0x88, &4000u16.to_be_bytes())).unwrap();
        }
        drop(client);
        seen.push(id);
    }
    server.shutdown(PATIENCE);
    let lines = log.0.lock().unwrap();
    for id in seen {
        assert!(lines.iter().any(|line| line.starts_with(&format!("{}: ", id.short()))), "{lines:#?}");
        assert!(!lines.iter().any(|line| line.contains(&id.as_str()[..9])), "{lines:#?}");
    }
}

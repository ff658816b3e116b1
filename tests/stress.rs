//! Many connections, many threads: order and integrity of every message.
#![cfg(feature = "__tls")]
mod common;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, mpsc},
    thread,
};

use common::{PATIENCE, SCHEMES, Scheme, SharedEcho, app, next_message, serve};
use rustix::process::{Resource, getrlimit, setrlimit};
use switchboard::{Audience, Limits, WebSocket};
use tungstenite::Message as Sent;

/// A text with the number of its sender and its own number, and a rest that can be checked.
fn text(who: usize, n: usize) -> String {
    format!("{who} {n} {}", "x".repeat((who * 31 + n * 17) % 700))
}

/// Reads until every sender's last message is there; each sender's messages must come in order and whole.
fn check(client: &mut common::Client, senders: usize, each: usize) {
    let mut next = HashMap::new();
    for _ in 0..senders * each {
        let message = next_message(client).into_text().unwrap();
        let mut parts = message.splitn(3, ' ').map(|part| part.parse::<usize>());
        let (who, n) = (parts.next().unwrap().unwrap(), parts.next().unwrap().unwrap());
        assert_eq!(*message, text(who, n));
        let expected = next.entry(who).or_insert(0);
        assert_eq!(n, *expected, "of sender {who}");
        *expected += 1;
    }
}

#[test]
fn eight_threads_push_to_two_hundred_connections_whose_owners_write() {
    const CONNECTIONS: usize = 200;
    const PUSHERS: usize = 8;
    const EACH: usize = 25;
    let (tx, ids) = mpsc::channel();
    let tx = Mutex::new(tx);
    let go = Arc::new(std::sync::RwLock::new(()));
    let (held, released) = (go.clone(), go.clone());
    let mut limits = Limits::default();
    limits.max_queue_messages = 100_000;
    limits.max_queue_bytes = Some(100 << 20);
    let server = serve(move |builder| {
        builder.limits(limits).route("/", move || {
            let (tx, released) = (tx.lock().unwrap().clone(), released.clone());
            app(move |ws: &mut WebSocket| {
                tx.send(*ws.websocket_id())?;
                drop(released.read());
                for n in 0..EACH {
                    ws.write(text(PUSHERS, n))?;
                }
                ws.messages().for_each(drop);
                Ok(())
            })
        })
    });
    let guard = held.write().unwrap();
    let clients: Vec<_> = (0..CONNECTIONS).map(|i| server.connect(SCHEMES[i % 2], "/")).collect();
    let ids: Vec<_> = (0..CONNECTIONS).map(|_| ids.recv_timeout(PATIENCE).unwrap()).collect();
    let readers: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            thread::spawn(move || {
                check(&mut client, PUSHERS + 1, EACH);
                client
            })
        })
        .collect();
    let pushers: Vec<_> = (0..PUSHERS)
        .map(|who| {
            let (hub, ids) = (server.hub.clone(), ids.clone());
            thread::spawn(move || {
                for n in 0..EACH {
                    for id in &ids {
                        let _ = hub.push(id, text(who, n)).unwrap();
                    }
                }
            })
        })
        .collect();
    drop(guard);
    pushers.into_iter().for_each(|pusher| pusher.join().unwrap());
    readers.into_iter().for_each(|reader| drop(reader.join().unwrap()));
}

#[test]
fn four_thousand_parked_connections_get_messages_both_ways() {
    // A descriptor for each end of each, and some more.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).unwrap();
    let most = limit.maximum.map_or(4000, |most| (most as usize).saturating_sub(300) / 2).min(4000);
    assert!(most >= 1500, "the hard limit on open files is too low for this test: ulimit -Hn");
    let mut limits = Limits::default();
    limits.max_connections = most;
    let server = serve(|builder| builder.limits(limits).route("/", || SharedEcho));
    let mut clients: Vec<_> =
        (0..most).map(|i| server.connect(if i % 20 == 0 { Scheme::Wss } else { Scheme::Ws }, "/")).collect();
    for (i, client) in clients.iter_mut().enumerate() {
        client.send(Sent::text(format!("from {i}"))).unwrap();
    }
    for (i, client) in clients.iter_mut().enumerate() {
        assert_eq!(next_message(client), Sent::text(format!("from {i}")));
    }
    let page = server.hub.connections(Audience::All, None, most).unwrap();
    assert_eq!(page.items.len(), 1000, "no more in a page");
    assert_eq!(page.next.as_ref(), Some(&page.items[999].id));
    let all: Vec<_> = server.hub.all_connections(Audience::Path("/")).map(|info| info.unwrap().id).collect();
    assert!(all.len() == most && all.is_sorted_by(|a, b| a < b), "each once");
    for round in 0..3 {
        let result = server.hub.broadcast(Audience::All, format!("round {round}")).unwrap();
        assert_eq!(result.sent + result.queued, most);
        for client in &mut clients {
            assert_eq!(next_message(client), Sent::text(format!("round {round}")));
        }
    }
}

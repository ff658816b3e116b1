//! No code of the application runs within a push, a broadcast or a close, and none is waited for: so a lock may be held over
//! them that all of it takes, observers too. And on which threads that code runs.
#![cfg(feature = "__tls")]
mod common;

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::Duration,
};

use common::{Client, PATIENCE, SCHEMES, Scheme, TestServer, eventually, serve};
use switchboard::{
    Audience, CloseReason, Closed, ConnectionInfo, Handled, Hub, HubObserver, Limits, Message, Opening,
    Pusher, Refusal, ServerResult, WebSocket, WebSocketId, WebSocketServer,
};
use tungstenite::Message as Sent;

/// Whose lock all callbacks take; it holds their names, and those of their threads.
#[derive(Clone, Default)]
struct Program(Arc<Mutex<Vec<(&'static str, String)>>>);

impl Program {
    fn note(&self, what: &'static str) {
        let thread = thread::current().name().unwrap_or_default().to_owned();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((what, thread));
    }

    fn count(&self, what: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|(noted, _)| *noted == what).count()
    }

    /// The threads that have called it.
    fn threads(&self, what: &str) -> Vec<String> {
        let mut threads: Vec<_> = self
            .0
            .lock()
            .unwrap()
            .iter()
            .filter(|(noted, _)| *noted == what)
            .map(|(_, t)| t.clone())
            .collect();
        threads.sort();
        threads.dedup();
        threads
    }
}

impl HubObserver for Program {
    fn opened(&self, _: &ConnectionInfo) {
        self.note("opened");
    }

    fn closed(&self, _: &ConnectionInfo, _: &CloseReason) {
        self.note("closed");
    }

    fn topic_vacated(&self, _: &str) {
        self.note("topic_vacated");
    }

    fn user_offline(&self, _: &str) {
        self.note("user_offline");
    }
}

struct App(Program);

impl WebSocketServer for App {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        self.0.note("on_pre_server");
        opening.set_shared_connection(opening.path() == "/shared");
        opening.set_user("ada")?;
        opening.join("room")?;
        Ok(())
    }

    fn server(&mut self, ws: &mut WebSocket) -> ServerResult {
        if ws.path() != "/shared" {
            ws.messages().for_each(|_| self.0.note("server"));
        }
        Ok(())
    }

    fn on_client_message(&mut self, _: &WebSocket, _: Message) -> Handled {
        self.0.note("on_client_message");
        Handled::Yes
    }

    fn on_post_server(&mut self, _: &Closed) {
        self.0.note("on_post_server");
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.0.note("drop");
    }
}

fn start(workers: usize) -> (Program, TestServer) {
    let mut limits = Limits::default();
    limits.workers = workers;
    limits.max_queue_messages = 2;
    limits.close_timeout = Duration::from_millis(500);
    let program = Program::default();
    let server = serve(|builder| {
        let (observer, app) = (program.clone(), program.clone());
        builder.limits(limits).observer(observer).route("/*", move || App(app.clone()))
    });
    (program, server)
}

/// What a program does under its lock: everything that pushes or closes, to clients that are there, slow, gone, and closing.
fn push_and_close(hub: &Hub, ids: &[WebSocketId], pushers: &[Pusher], shared: &[WebSocket]) {
    let large = vec![0; 1 << 20];
    for _ in 0..20 {
        for (id, pusher) in ids.iter().zip(pushers) {
            let _ = hub.push(id, "x"); // some clients read nothing: in the end they are disconnected
            let _ = pusher.push(large.clone());
        }
        let _ = hub.push_all(ids.iter().map(|id| (id, "x")));
        hub.broadcast(Audience::All, large.clone()).map(drop).unwrap();
        hub.broadcast(Audience::Topic("room"), "x").map(drop).unwrap();
        hub.push_user("ada", "x").map(drop).unwrap();
    }
    let [first, second, ..] = ids else { panic!() };
    let _ = hub.close(first, 4000, "");
    let _ = hub.close(second, 4000, "");
    shared.iter().for_each(WebSocket::end_server);
    hub.close_user("ada", 4001, "").unwrap();
    hub.close_all(Audience::All, 4002, "").unwrap();
    ids.iter().for_each(|id| drop(hub.push(id, "too late")));
}

fn holds_a_lock(scheme: Scheme, path: &str, workers: usize) {
    let (program, server) = start(workers);
    let mut clients: Vec<Client> = (0..4).map(|_| server.connect(scheme, path)).collect();
    let ids: Vec<_> = common::connections(&server.hub).iter().map(|info| info.id).collect();
    let pushers: Vec<_> = ids.iter().map(|id| server.hub.pusher(id).unwrap()).collect();
    let shared: Vec<_> = ids.iter().filter_map(|id| server.hub.open_server(id).ok()).collect();

    let (hub, holder) = (server.hub.clone(), program.clone());
    let (locked, is_locked) = mpsc::channel();
    let (go, may_go) = mpsc::channel();
    let (done, is_done) = mpsc::channel();
    let hold = move || {
        let lock = holder.0.lock().unwrap_or_else(PoisonError::into_inner);
        locked.send(()).unwrap();
        may_go.recv().unwrap();
        push_and_close(&hub, &ids, &pushers, &shared);
        drop(lock);
        drop(shared);
        done.send(()).unwrap();
    };
    thread::Builder::new().name("holder".into()).spawn(hold).unwrap();
    is_locked.recv_timeout(PATIENCE).unwrap();
    // Each message makes a handler wait for the lock, and so does a client that has gone.
    clients.iter_mut().for_each(|client| client.send(Sent::text("x")).unwrap());
    drop(clients.pop());
    go.send(()).unwrap();
    if is_done.recv_timeout(PATIENCE).is_err() {
        std::mem::forget(server); // which would wait, too
        panic!("{scheme:?} {path} {workers}: it waits for somebody who waits for its lock");
    }
    drop(clients);
    for what in ["closed", "on_post_server", "drop"] {
        eventually(what, || program.count(what) == 4);
    }
    eventually("all have left", || program.count("user_offline") >= 1 && program.count("topic_vacated") >= 1);
    let noted = program.0.lock().unwrap();
    assert!(noted.iter().all(|(_, thread)| thread != "holder"), "{scheme:?} {path} {workers}: {noted:?}");
}

#[test]
fn a_lock_may_be_held_over_pushes_and_closes() {
    for scheme in SCHEMES {
        for (path, workers) in [("/", 2), ("/shared", 2), ("/shared", 0)] {
            holds_a_lock(scheme, path, workers);
        }
    }
}

#[test]
fn on_post_server_is_called_by_the_connections_thread_or_by_a_worker() {
    for (path, workers, thread) in
        [("/", 2, "switchboard-conn"), ("/shared", 2, "switchboard-work"), ("/shared", 0, "switchboard-gate")]
    {
        let (program, server) = start(workers);
        // By the client, and by the server from another thread.
        let mut client = server.connect(Scheme::Ws, path);
        client.close(None).unwrap();
        let _ = common::read_close(&mut client);
        let _ = client.flush();
        drop(client);
        eventually("it has ended", || program.count("on_post_server") == 1);
        let other = server.connect(Scheme::Ws, path);
        server.hub.close_all(Audience::All, 4000, "").unwrap();
        drop(other);
        eventually("it has ended", || program.count("drop") == 2);
        assert_eq!(program.threads("on_post_server"), [thread]);
        assert_eq!(program.threads("drop"), [thread]);
        let before = program.threads("on_pre_server");
        assert_eq!(
            (before, program.threads("opened")),
            (vec!["switchboard-conn".into()], vec!["switchboard-conn".into()])
        );
        let gateway_or_own = if path == "/" { "switchboard-conn" } else { "switchboard-gate" };
        assert_eq!(program.threads("closed"), [gateway_or_own]);
    }
}

/// A join and a leave are another matter: what they cause is told before they return, by whoever calls them.
#[test]
fn observers_are_called_by_who_joins_and_leaves() {
    let (program, server) = start(2);
    let _client = server.connect(Scheme::Ws, "/");
    let id = common::connections(&server.hub)[0].id;
    server.hub.join(&id, "another").unwrap();
    server.hub.leave(&id, "another").unwrap();
    let me = thread::current().name().unwrap().to_owned();
    assert_eq!(program.threads("topic_vacated"), [me]);
}

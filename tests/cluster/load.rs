//! Pushes, their answers, and what has arrived of them.
#![allow(unreachable_pub, reason = "a part of a test, as common is")]

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use switchboard::{Audience, Hub, NodeId, PushErrorKind, Pushed as Done, WebSocketId};
use tungstenite::Message;

use crate::{
    common::{Client, PATIENCE, Scheme, eventually, next_message},
    nodes::{HERE, Node, Nodes},
};

/// So many clients each node has, and so many threads push from it.
const CLIENTS: usize = 3;
const THREADS: usize = 2;

/// The thread of the node that has a process of its own.
const OF_PROCESS: usize = 100;

/// How long nothing is broken at least.
const CALM: Duration = Duration::from_millis(500);

/// What was answered to a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was pushed to a connection of the same node.
    Here,
    /// Another node has sent it.
    Sent,
    /// Another node, or all, have been given it.
    Forwarded,
    Unreachable,
    Unknown,
    Other,
}

#[derive(Clone, Copy, Debug)]
enum To {
    One(usize),
    Room,
}

#[derive(Clone, Copy, Debug)]
pub struct Pushed {
    thread: usize,
    number: usize,
    to: To,
    pub answer: Answer,
    at: Instant,
    pub took: Duration,
}

/// What a client has got: threads and numbers. And whether its connection has ended before the end.
struct Got {
    all: Vec<(usize, usize)>,
    is_lost: bool,
}

struct Watched {
    id: WebSocketId,
    /// The index of its node; that of a process is the last.
    node: usize,
    got: JoinHandle<Got>,
}

pub struct Load<'a> {
    nodes: &'a Nodes,
    clients: Vec<Watched>,
    pushing: Vec<JoinHandle<Vec<Pushed>>>,
    is_over: Arc<AtomicBool>,
    /// So many threads say that they are over.
    overs: Arc<AtomicUsize>,
    /// Has the node of its own push.
    process: RefCell<Option<Client>>,
    calm: RefCell<Vec<(Instant, Instant)>>,
}

impl<'a> Load<'a> {
    pub fn start(nodes: &'a Nodes) -> Self {
        Self::begin(nodes, None)
    }

    pub fn start_with(nodes: &'a Nodes, process: &Node) -> Self {
        Self::begin(nodes, Some(process))
    }

    fn begin(nodes: &'a Nodes, process: Option<&Node>) -> Self {
        const PATH: &str = "/?topic=room&user=ann";
        let overs = Arc::new(AtomicUsize::new(usize::MAX));
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            for (node, server) in nodes.all.iter().enumerate() {
                clients.push(Watched::new(server.connect(Scheme::Ws, PATH), node, &overs));
            }
            clients.extend(process.map(|process| Watched::new(process.connect(PATH), HERE, &overs)));
        }
        let ids: Arc<[_]> = clients.iter().map(|client| client.id).collect();
        let is_over = Arc::new(AtomicBool::new(false));
        let mut pushing = Vec::new();
        for thread in 0..THREADS * HERE {
            let (hub, ids, is_over) = (nodes.all[thread % HERE].hub.clone(), ids.clone(), is_over.clone());
            pushing.push(thread::spawn(move || push(thread, &hub, &ids, &is_over)));
        }
        let process = process.map(|process| {
            let mut client = process.connect("/push");
            let _id = next_message(&mut client);
            let of_others =
                clients.iter().filter(|client| client.node < HERE).map(|client| client.id.to_string());
            let words: Vec<_> = [OF_PROCESS.to_string()].into_iter().chain(of_others).collect();
            client.send(Message::text(words.join(" "))).unwrap();
            client
        });
        let (process, calm) = (RefCell::new(process), RefCell::default());
        let this = Self { nodes, clients, pushing, is_over, overs, process, calm };
        this.recover(); // all are heard
        this
    }

    pub fn connections(&self) -> usize {
        self.clients.len() + usize::from(self.process.borrow().is_some())
    }

    pub fn connections_without_process(&self) -> usize {
        CLIENTS * HERE
    }

    pub fn connection_of(&self, node: usize) -> WebSocketId {
        self.clients.iter().find(|client| client.node == node).unwrap().id
    }

    pub fn connection_of_process(&self) -> WebSocketId {
        self.connection_of(HERE)
    }

    /// The node of its own does not come back.
    pub fn has_lost_the_process(&self) {
        *self.process.borrow_mut() = None;
    }

    /// Those whose nodes are there.
    fn present(&self) -> impl Iterator<Item = &Watched> {
        let nodes = HERE + usize::from(self.process.borrow().is_some());
        self.clients.iter().filter(move |client| client.node < nodes)
    }

    /// Waits until all is as before: all connections are reached, all topics and users are heard.
    pub fn recover(&self) {
        let others = HERE - 1 + usize::from(self.process.borrow().is_some());
        for node in &self.nodes.all {
            let hub = &node.hub;
            for client in self.present() {
                eventually("a node reaches all", || hub.push_wait(&client.id, "sync", CALM).is_ok());
            }
            for audience in [Audience::Topic("room"), Audience::User("ann"), Audience::All] {
                eventually("all listen", || hub.broadcast(audience, "sync").unwrap().forwarded == others);
            }
        }
    }

    /// Nothing is broken for a while.
    pub fn calm(&self) {
        let begun = Instant::now();
        thread::sleep(CALM);
        self.is_calm_since(begun);
    }

    /// Nothing was broken since then. Waits until what was pushed meanwhile has arrived.
    pub fn is_calm_since(&self, begun: Instant) {
        let now = Instant::now();
        for node in &self.nodes.all {
            for client in self.present() {
                node.hub.push_wait(&client.id, "sync", PATIENCE).unwrap();
            }
        }
        self.calm.borrow_mut().push((begun, now));
    }

    /// Ends it, and compares.
    pub fn end(mut self) -> Vec<Pushed> {
        let pushed = self.stop();
        let process = self.process.borrow_mut().take();
        self.overs.store(HERE + usize::from(process.is_some()), SeqCst);
        for node in &self.nodes.all {
            for client in &self.clients {
                let _ = node.hub.push(&client.id, "over 0");
            }
        }
        if let Some(mut process) = process {
            process.send(Message::text("enough")).unwrap();
            while process.read().is_ok() {}
            // Its own clients are not among those that it pushes to.
            for client in self.clients.iter().filter(|client| client.node == HERE) {
                let _ = self.nodes.all[0].hub.push(&client.id, "over 0");
            }
        }
        let clients = std::mem::take(&mut self.clients);
        let got: Vec<_> =
            clients.into_iter().map(|client| (client.node, client.got.join().unwrap())).collect();
        compare(&pushed, &got, &self.calm.borrow());
        pushed
    }

    fn stop(&mut self) -> Vec<Pushed> {
        self.is_over.store(true, SeqCst);
        let threads = std::mem::take(&mut self.pushing);
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    }

    /// Ends it as it is.
    pub fn abandon(mut self) {
        self.stop();
        self.overs.store(0, SeqCst);
        for client in std::mem::take(&mut self.clients) {
            let node = NodeId::get(client.id.node()) as usize - 1;
            let _ = self.nodes.all[node].hub.push(&client.id, "over 0").unwrap();
            client.got.join().unwrap();
        }
    }
}

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.is_over.store(true, SeqCst); // also if the test has failed
    }
}

impl Watched {
    fn new(mut client: Client, node: usize, overs: &Arc<AtomicUsize>) -> Self {
        let id = next_message(&mut client).into_text().unwrap().parse().unwrap();
        let overs = overs.clone();
        Self { id, node, got: thread::spawn(move || read(client, &overs)) }
    }
}

/// Reads until all have said that they are over.
fn read(mut client: Client, overs: &AtomicUsize) -> Got {
    let (mut all, mut over) = (Vec::new(), 0);
    loop {
        let text = match client.read() {
            Ok(Message::Text(text)) => text,
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Binary(_)) => continue,
            Ok(_) | Err(_) => return Got { all, is_lost: true },
        };
        match text.split_once(' ') {
            Some(("over", _)) => over += 1,
            Some((thread, number)) if thread.parse::<usize>().is_ok() => {
                all.push((thread.parse().unwrap(), number.parse().unwrap()));
            }
            _ => {}
        }
        if over >= overs.load(SeqCst) {
            return Got { all, is_lost: false };
        }
    }
}

/// Pushes to one after the other in several ways.
fn push(thread: usize, hub: &Hub, ids: &[WebSocketId], is_over: &AtomicBool) -> Vec<Pushed> {
    let mut pushed = Vec::new();
    for number in 0.. {
        if is_over.load(SeqCst) {
            break;
        }
        let client = number % ids.len();
        let (text, id, at) = (format!("{thread} {number}"), &ids[client], Instant::now());
        let is_here = id.node() == NodeId::new((thread % HERE) as u32 + 1);
        let (to, answer) = match number / ids.len() % 4 {
            0 if client == 0 => (To::Room, broadcast(hub, text)),
            1 => match hub.push_wait(id, text, Duration::from_millis(200)) {
                Ok(()) => (To::One(client), if is_here { Answer::Here } else { Answer::Sent }),
                Err(error) => (To::One(client), answer_of(&error.kind)),
            },
            _ => match hub.push(id, text) {
                Ok(Done::Forwarded) => (To::One(client), Answer::Forwarded),
                Ok(_) => (To::One(client), Answer::Here),
                Err(error) => (To::One(client), answer_of(&error.kind)),
            },
        };
        pushed.push(Pushed { thread, number, to, answer, at, took: at.elapsed() });
        thread::sleep(Duration::from_millis(1));
    }
    pushed
}

fn broadcast(hub: &Hub, text: String) -> Answer {
    match hub.broadcast(Audience::Topic("room"), text) {
        Ok(sent) if sent.unreachable => Answer::Unreachable,
        Ok(_) => Answer::Forwarded,
        Err(_) => Answer::Other,
    }
}

fn answer_of(kind: &PushErrorKind) -> Answer {
    match kind {
        PushErrorKind::Unreachable => Answer::Unreachable,
        PushErrorKind::Unknown => Answer::Unknown,
        _ => Answer::Other,
    }
}

/// In order, nothing twice, and nothing is missing that has to be there.
fn compare(pushed: &[Pushed], got: &[(usize, Got)], calm: &[(Instant, Instant)]) {
    let ledger: HashMap<_, _> = pushed.iter().map(|push| ((push.thread, push.number), push)).collect();
    let mut wrong = Vec::new();
    for (client, (_, Got { all, .. })) in got.iter().enumerate() {
        let mut last = BTreeMap::new();
        for &(thread, number) in all {
            let before = last.insert(thread, number);
            if before.is_some_and(|before| before >= number) {
                let pushes = [before.unwrap(), number].map(|number| ledger.get(&(thread, number)));
                wrong.push(format!("client {client}: {number} of {thread} after {before:?}: {pushes:?}"));
            }
            let is_for_it = match ledger.get(&(thread, number)) {
                Some(Pushed { to: To::One(other), .. }) => *other == client,
                Some(_) => true,
                None => thread == OF_PROCESS,
            };
            assert!(is_for_it, "client {client} got {number} of {thread}");
        }
    }
    let sets: Vec<HashSet<_>> = got.iter().map(|(_, got)| got.all.iter().copied().collect()).collect();
    let mut counts = BTreeMap::new();
    for push in pushed {
        let is_calm = calm.iter().any(|(from, to)| (*from..*to).contains(&push.at));
        *counts.entry(format!("{:?}{}", push.answer, if is_calm { ", calm" } else { "" })).or_insert(0) += 1;
        for (client, (node, Got { is_lost, .. })) in got.iter().enumerate() {
            let is_meant = match push.to {
                To::One(one) => one == client,
                To::Room => true,
            };
            let is_here = *node == push.thread % HERE;
            let has_to_be_there = match push.answer {
                Answer::Here | Answer::Sent => true,
                Answer::Forwarded => is_calm || is_here,
                Answer::Unreachable => is_here,
                _ => false,
            };
            if is_meant && has_to_be_there && !is_lost && !sets[client].contains(&(push.thread, push.number))
            {
                wrong.push(format!("client {client} of node {node} has not got {push:?}"));
            }
        }
    }
    eprintln!("{} pushes: {counts:?}", pushed.len());
    assert!(
        wrong.is_empty(),
        "{} of {} pushes: {:#?}",
        wrong.len(),
        pushed.len(),
        &wrong[..wrong.len().min(20)]
    );
    let lost = got.iter().filter(|(node, got)| got.is_lost && *node < HERE).count();
    assert_eq!(lost, 0, "connections that have ended");
}

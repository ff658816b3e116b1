//! What other nodes ask of this one: a [talk](crate::answering::Talk) with each that has a line here, on a thread of its own, which ends
//! with the line, with the other node's lease, or when anything that was sent to this node may have been lost.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    thread::JoinHandle,
    time::Duration,
};

use bytes::Bytes;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender as Queue, TryRecvError, bounded};

use super::{
    envelope::{Kind, Sender},
    member::{MAX_MESSAGE, Member},
};
use crate::{
    answering::{Desk, Ended, Peer, Talk},
    error::{Error, Result},
    id::{NodeId, random_bytes},
    sync::LockExt,
    thread::spawn,
    wire::{Hello, Malformed},
};

/// Other nodes that may ask, at the same time.
const MOST: usize = 1024;

/// What one of them may have asked that is not done yet: messages, and their bytes, if it is more than one.
const UNREAD: usize = 1024;
const UNREAD_BYTES: usize = 16 << 20;

/// A thread of a talk; as a connection's.
const STACK: usize = 256 << 10;

/// How often a thread looks whether its talk is over.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) struct Talks(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    open: HashMap<Sender, Open>,
    /// The last one of each node that ended, until nothing more is done for it.
    ending: HashMap<u32, Receiver<Infallible>>,
}

#[derive(Debug)]
struct Open {
    line: u32,
    number: u64,
    requests: Queue<Bytes>,
    shared: Arc<Shared>,
    /// Nobody has the other end when nothing more is done for it.
    ended: Receiver<Infallible>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    bytes: AtomicUsize,
}

impl Table {
    /// Nothing more is done for it. Its thread ends soon.
    fn end(&mut self, from: &Sender) -> Option<JoinHandle<()>> {
        let open = self.open.remove(from)?;
        open.shared.is_over.store(true, SeqCst);
        self.ending.retain(|_, ended| ended.try_recv() == Err(TryRecvError::Empty));
        self.ending.insert(from.node, open.ended);
        Some(open.thread)
    }
}

impl Talks {
    /// A node has a new line: what its last one was for is over, also if that has ended before. It is welcomed when all of that has gone
    /// back.
    pub(super) fn begin(
        &self,
        member: &Arc<Member>,
        desk: &Arc<Desk>,
        from: Sender,
        line: u32,
        hello: &[u8],
    ) {
        let Ok(hello) = Hello::decode(hello) else { return };
        let takes = hello.max_message;
        let mut talks = self.0.locked();
        drop(talks.end(&from));
        if talks.open.len() >= MOST {
            log::warn!("the cluster: more than {MOST} nodes ask this one: {:?} is not answered", from.node);
            return;
        }
        let number = u64::from_ne_bytes(random_bytes());
        let (requests, incoming) = bounded(UNREAD);
        let shared = Arc::<Shared>::default();
        let asker =
            Asker { member: member.clone(), from, line, talk: number, incoming, shared: shared.clone() };
        let desk = desk.clone();
        let before = talks.ending.remove(&from.node);
        let (working, ended) = bounded(0);
        let run = move || {
            if let Some(before) = before {
                let _ = before.recv(); // until it is disconnected: what it held has gone back
            }
            asker.welcome(&desk);
            if let Err(Malformed(why)) = Talk::new(&desk, &asker, true, takes).run(working) {
                log::debug!("{:?}: {why}", asker.node());
            }
            asker.over();
        };
        match spawn("switchboard-node", STACK, run) {
            Ok(thread) => {
                drop(talks.open.insert(from, Open { line, number, requests, shared, ended, thread }))
            }
            Err(e) => log::error!("the cluster: {:?} cannot be answered: {e}", NodeId::new(from.node)),
        }
    }

    /// A node asks. False: it has no such talk.
    pub(super) fn ask(&self, from: Sender, line: u32, talk: u64, frames: Bytes) -> bool {
        let mut talks = self.0.locked();
        let Some(open) = talks.open.get(&from).filter(|open| open.line == line && open.number == talk) else {
            return false;
        };
        let length = frames.len();
        let bytes = open.shared.bytes.fetch_add(length, Relaxed);
        let has_room = bytes == 0 || bytes + length <= UNREAD_BYTES;
        let is_taken =
            has_room && !open.shared.is_over.load(SeqCst) && open.requests.try_send(frames).is_ok();
        if !is_taken {
            drop(talks.end(&from));
        }
        is_taken
    }

    /// This line of a node is over.
    pub(super) fn end(&self, from: Sender, line: u32) {
        let mut talks = self.0.locked();
        if talks.open.get(&from).is_some_and(|open| open.line == line) {
            drop(talks.end(&from));
        }
    }

    /// So are all of earlier starts of a node.
    pub(super) fn end_before(&self, now: Sender) {
        let mut talks = self.0.locked();
        let is_over = |from: &&Sender| from.node == now.node && from.start != now.start;
        let over: Vec<_> = talks.open.keys().filter(is_over).copied().collect();
        over.iter().for_each(|from| drop(talks.end(from)));
    }

    /// So are all of a node, or, without one, of all. Returns their threads.
    pub(super) fn end_all(&self, of: Option<NodeId>) -> Vec<JoinHandle<()>> {
        let mut talks = self.0.locked();
        let is_meant = |from: &Sender| of.is_none_or(|node| node.get() == from.node);
        let meant: Vec<_> = talks.open.keys().filter(|from| is_meant(from)).copied().collect();
        meant.iter().filter_map(|from| talks.end(from)).collect()
    }
}

/// A node that asks.
struct Asker {
    member: Arc<Member>,
    from: Sender,
    line: u32,
    talk: u64,
    incoming: Receiver<Bytes>,
    shared: Arc<Shared>,
}

impl Asker {
    fn node(&self) -> NodeId {
        NodeId::new(self.from.node)
    }

    fn welcome(&self, desk: &Desk) {
        let hello = desk.hello(MAX_MESSAGE, self.from.start);
        let kind = Kind::Welcome { line: self.line, talk: self.talk };
        if self.member.publish_to(self.node(), kind, &hello, self.member.deadline()).is_err() {
            self.shared.is_over.store(true, SeqCst);
        }
    }

    /// Its node learns that nothing more is answered.
    fn over(&self) {
        self.shared.is_over.store(true, SeqCst);
        let _ = self.member.tell_to(self.node(), Kind::Over { line: self.line }, &[]);
    }
}

impl Peer for Asker {
    fn receive(&self) -> Result<Bytes, Ended> {
        match self.incoming.recv_timeout(LOOK) {
            Ok(frames) => {
                self.shared.bytes.fetch_sub(frames.len(), Relaxed);
                Ok(frames)
            }
            Err(RecvTimeoutError::Timeout) => Err(Ended::NotYet),
            Err(RecvTimeoutError::Disconnected) => Err(Ended::Closed),
        }
    }

    fn send(&self, frames: Vec<u8>) -> Result<()> {
        let kind = Kind::Answer { line: self.line };
        match self.member.publish_to(self.node(), kind, &frames, self.member.deadline()) {
            Ok(1..) => Ok(()),
            // What was answered may be lost, and with it what was read.
            _ => {
                self.shared.is_over.store(true, SeqCst);
                Err(Error::Unreachable)
            }
        }
    }

    fn refuse(&self, Malformed(why): Malformed) {
        log::debug!("{:?}: {why}", self.node());
        self.shared.is_over.store(true, SeqCst);
    }

    fn is_over(&self) -> bool {
        self.shared.is_over.load(SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        buffered::Buffered, cluster::member::Choices, history::Rules, hub::Hub, limits::Limits,
        observer::Observers, redis::Redis, registry::Registry,
    };

    fn member(registry: &Registry) -> Arc<Member> {
        let choices = Choices {
            redis: Redis::new("redis://127.0.0.1:1").unwrap(),
            prefix: "test:".into(),
            lease: Duration::from_secs(1),
            answer_timeout: Duration::from_secs(1),
            keys: Vec::new(),
        };
        Arc::new(Member::new(choices, registry, 1, bounded(1).0))
    }

    #[test]
    fn a_new_line_waits_for_the_end_of_the_last_one_also_if_that_was_not_needed_any_more() {
        let (limits, buffered) = (Arc::<Limits>::default(), Arc::new(Buffered::new(usize::MAX)));
        let node = NodeId::new(1);
        let registry =
            Registry::new(node, limits.clone(), buffered, Observers::default(), Rules::default()).unwrap();
        let registry = Arc::new(registry);
        let (member, talks) = (member(&registry), Talks::default());
        let desk = Arc::new(Desk::new(Hub::alone(registry.clone()), registry, &limits));
        let from = Sender { node: 2, start: 7 };
        let ((working, ended), thread) = (bounded(0), std::thread::spawn(|| ()));
        let open = Open { line: 1, number: 1, requests: bounded(1).0, shared: Arc::default(), ended, thread };
        talks.0.locked().open.insert(from, open);
        talks.end(from, 1);
        talks.begin(&member, &desk, from, 2, &member.hello());
        let ended = talks.0.locked().open[&from].ended.clone();
        assert_eq!(ended.recv_timeout(Duration::from_millis(20)), Err(RecvTimeoutError::Timeout));
        drop(working);
        // Nobody can be welcomed here.
        assert_eq!(ended.recv_timeout(Duration::from_secs(20)), Err(RecvTimeoutError::Disconnected));
    }
}

//! What other nodes ask of this one: a [talk](crate::answering::Talk) with each that has a line here, on a thread of its own, which ends
//! with the line, with the other node's lease, or when anything that was sent to this node may have been lost.

use std::{
    collections::HashMap,
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
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender as Queue, bounded};

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
pub(super) struct Talks(Mutex<HashMap<Sender, Open>>);

#[derive(Debug)]
struct Open {
    line: u32,
    number: u64,
    requests: Queue<Bytes>,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    bytes: AtomicUsize,
}

impl Open {
    /// Nothing more is done for it. Its thread ends soon.
    fn end(self) -> JoinHandle<()> {
        self.shared.is_over.store(true, SeqCst);
        self.thread
    }
}

impl Talks {
    /// A node has a new line: what its last one was for is over. It is welcomed when all of that has gone back.
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
        let before = talks.remove(&from).map(Open::end);
        if talks.len() >= MOST {
            log::warn!("the cluster: more than {MOST} nodes ask this one: {:?} is not answered", from.node);
            return;
        }
        let number = u64::from_ne_bytes(random_bytes());
        let (requests, incoming) = bounded(UNREAD);
        let shared = Arc::<Shared>::default();
        let asker =
            Asker { member: member.clone(), from, line, talk: number, incoming, shared: shared.clone() };
        let desk = desk.clone();
        let run = move || {
            if let Some(before) = before {
                let _ = before.join(); // what it held has gone back
            }
            asker.welcome(&desk);
            if let Err(Malformed(why)) = Talk::new(&desk, &asker, true, takes).run(()) {
                log::debug!("{:?}: {why}", asker.node());
            }
            asker.over();
        };
        match spawn("switchboard-node", STACK, run) {
            Ok(thread) => drop(talks.insert(from, Open { line, number, requests, shared, thread })),
            Err(e) => log::error!("the cluster: {:?} cannot be answered: {e}", NodeId::new(from.node)),
        }
    }

    /// A node asks. False: it has no such talk.
    pub(super) fn ask(&self, from: Sender, line: u32, talk: u64, frames: Bytes) -> bool {
        let mut talks = self.0.locked();
        let Some(open) = talks.get(&from).filter(|open| open.line == line && open.number == talk) else {
            return false;
        };
        let length = frames.len();
        let bytes = open.shared.bytes.fetch_add(length, Relaxed);
        let has_room = bytes == 0 || bytes + length <= UNREAD_BYTES;
        let is_taken =
            has_room && !open.shared.is_over.load(SeqCst) && open.requests.try_send(frames).is_ok();
        if !is_taken {
            drop(talks.remove(&from).map(Open::end));
        }
        is_taken
    }

    /// This line of a node is over.
    pub(super) fn end(&self, from: Sender, line: u32) {
        let mut talks = self.0.locked();
        if talks.get(&from).is_some_and(|open| open.line == line) {
            drop(talks.remove(&from).map(Open::end));
        }
    }

    /// So are all of earlier starts of a node.
    pub(super) fn end_before(&self, now: Sender) {
        let mut talks = self.0.locked();
        let over: Vec<_> =
            talks.keys().filter(|from| from.node == now.node && from.start != now.start).copied().collect();
        over.iter().filter_map(|from| talks.remove(from)).for_each(|open| drop(open.end()));
    }

    /// So are all of a node, or, without one, of all. Returns their threads.
    pub(super) fn end_all(&self, of: Option<NodeId>) -> Vec<JoinHandle<()>> {
        let mut talks = self.0.locked();
        let is_meant = |from: &Sender| of.is_none_or(|node| node.get() == from.node);
        let meant: Vec<_> = talks.keys().filter(|from| is_meant(from)).copied().collect();
        meant.iter().filter_map(|from| talks.remove(from)).map(Open::end).collect()
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

//! Asking other nodes: the [link](crate::remote::Link) to each, which is made when it is needed first, and the line that it has. A
//! line is one end of what another node has as a [talk](super::talks). Since messages can get lost, both end when any may have been.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, Weak},
};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};

use super::{envelope::Kind, member::Member, numbers::Numbers};
use crate::{
    deadline::Deadline,
    error::{Error, Result},
    id::NodeId,
    remote::{Carrier, Dial, Line, Link, Linked},
    sync::LockExt,
    wire::{Hello, Malformed},
};

#[derive(Debug, Default)]
pub(super) struct Lines {
    numbers: Numbers,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    links: HashMap<NodeId, Arc<Linked>>,
    /// The lines that there are, by their numbers.
    lines: HashMap<u32, Open>,
    /// Those that are not welcomed yet.
    dialed: HashMap<u32, Sender<Welcome>>,
    /// There will be no more.
    is_closed: bool,
}

#[derive(Debug)]
struct Open {
    node: NodeId,
    line: Arc<Line>,
}

/// What another node has answered to a hello.
#[derive(Debug)]
struct Welcome {
    talk: u64,
    hello: Bytes,
}

impl Lines {
    /// The link to a node.
    pub(super) fn link(&self, member: &Arc<Member>, node: NodeId) -> Arc<Linked> {
        let mut state = self.state.locked();
        let link = state.links.entry(node).or_insert_with(|| {
            let dialer = Dialer { member: Arc::downgrade(member), node };
            Linked::new(Link::dialed(format!("{node:?}"), member.answer_timeout(), dialer))
        });
        link.clone()
    }

    fn dial(&self, node: NodeId) -> (u32, Receiver<Welcome>) {
        let line = self.numbers.next();
        let (sender, receiver) = bounded(1);
        let mut state = self.state.locked();
        state.dialed.insert(line, sender);
        drop(state);
        log::debug!("a line to {node:?}");
        (line, receiver)
    }

    fn give_up(&self, line: u32) {
        self.state.locked().dialed.remove(&line);
    }

    /// A node has answered.
    pub(super) fn welcome(&self, line: u32, talk: u64, hello: Bytes) {
        let dialed = self.state.locked().dialed.remove(&line);
        if let Some(dialed) = dialed {
            let _ = dialed.try_send(Welcome { talk, hello });
        }
    }

    fn open(&self, number: u32, node: NodeId, line: &Arc<Line>) {
        let mut state = self.state.locked();
        if !state.is_closed {
            state.lines.insert(number, Open { node, line: line.clone() });
        }
    }

    /// Whether it has not ended.
    fn has(&self, line: &Arc<Line>) -> bool {
        self.state.locked().lines.values().any(|open| Arc::ptr_eq(&open.line, line))
    }

    /// Answers have come.
    pub(super) fn answer(&self, line: u32, frames: &Bytes) {
        let state = self.state.locked();
        let Some(Open { node, line }) = state.lines.get(&line) else { return };
        let Some(link) = state.links.get(node) else { return };
        let (link, line) = (link.clone(), line.clone());
        drop(state);
        link.receive(&line, frames);
    }

    /// A line has ended, if it had not already. Its node hears that before anything that is sent by those who learn here that they
    /// get no answer: so what they have asked is done before that, or never.
    pub(super) fn end(&self, member: &Member, number: u32) {
        let mut state = self.state.locked();
        let Some(Open { node, line }) = state.lines.remove(&number) else { return };
        // With the lock: whoever finds that it has ended comes later. If this is not sent, then nothing else is by this connection to
        // Redis, and the next one ends the talk as well.
        let _ = member.tell_to(node, Kind::Bye { line: number }, &[]);
        let link = state.links.get(&node).cloned();
        drop(state);
        if let Some(link) = link {
            link.end_line(&line);
        }
    }

    /// All lines to a node have ended, or, without one, all.
    pub(super) fn end_all(&self, member: &Member, of: Option<NodeId>) {
        let state = self.state.locked();
        let is_meant = |open: &Open| of.is_none_or(|node| open.node == node);
        let lines: Vec<_> =
            state.lines.iter().filter(|(_, open)| is_meant(open)).map(|(line, _)| *line).collect();
        drop(state);
        for line in lines {
            self.end(member, line);
        }
    }

    /// All lines end, and there will be no others.
    pub(super) fn close(&self, member: &Member) {
        self.state.locked().is_closed = true;
        self.end_all(member, None);
    }

    fn is_closed(&self) -> bool {
        self.state.locked().is_closed
    }

    /// A node is not there any more. Whoever has its link keeps that, and finds nobody there.
    pub(super) fn forget(&self, member: &Member, node: NodeId) {
        self.end_all(member, Some(node));
        let mut state = self.state.locked();
        // There is one link to a node: who keeps it goes on with it when the node is back.
        let is_unused = state.links.get(&node).is_some_and(|link| Arc::strong_count(link) == 1);
        let link = if is_unused { state.links.remove(&node) } else { None };
        drop(state);
        drop(link);
    }
}

/// Makes lines to a node.
struct Dialer {
    member: Weak<Member>,
    node: NodeId,
}

impl Dial for Dialer {
    fn dial(&self) -> Result<Arc<Line>> {
        let member = self.member.upgrade().ok_or(Error::Unreachable)?;
        let (number, welcome) = member.lines().dial(self.node);
        let dialed = self.wait(&member, number, &welcome);
        member.lines().give_up(number);
        dialed
    }

    fn is_open(&self, line: &Arc<Line>) -> bool {
        self.member.upgrade().is_some_and(|member| member.lines().has(line))
    }
}

impl Dialer {
    fn wait(&self, member: &Arc<Member>, number: u32, welcome: &Receiver<Welcome>) -> Result<Arc<Line>> {
        if !member.is_listening() || member.lines().is_closed() {
            return Err(Error::Unreachable); // the answer would not arrive, or nobody is to wait for it
        }
        let deadline = member.deadline();
        let receivers =
            member.publish_to(self.node, Kind::Hello { line: number }, &member.hello(), deadline)?;
        if receivers == 0 {
            let is_there = member.look(self.node, deadline)?;
            return Err(if is_there { Error::Unreachable } else { Error::UnknownId });
        }
        let left = deadline.remaining().unwrap_or_default();
        let Welcome { talk, hello } = welcome.recv_timeout(left).map_err(|_| Error::Unreachable)?;
        let hello = Hello::decode(&hello).map_err(|_| Error::Unreachable)?;
        let way = Way { member: self.member.clone(), node: self.node, line: number, talk };
        let line = Line::new(way, &hello);
        member.lines().open(number, self.node, &line);
        Ok(line)
    }
}

/// Carries requests to a node.
struct Way {
    member: Weak<Member>,
    node: NodeId,
    line: u32,
    talk: u64,
}

impl Way {
    fn ask(&self) -> Kind {
        Kind::Ask { line: self.line, talk: self.talk }
    }
}

impl Carrier for Way {
    fn send(&self, frames: Vec<u8>, deadline: Deadline) -> Result<u32> {
        let member = self.member.upgrade().ok_or(Error::Unreachable)?;
        let deadline = deadline.or_earlier(member.deadline());
        match member.publish_to(self.node, self.ask(), &frames, deadline) {
            Ok(1..) => Ok(0),
            Ok(0) => {
                member.lines().end(&member, self.line);
                Err(Error::Unreachable)
            }
            // It may be there, and in part.
            Err(error) => {
                member.lines().end(&member, self.line);
                Err(error.into())
            }
        }
    }

    fn take_back(&self, _: u32) -> bool {
        false
    }

    fn tell(&self, frames: Vec<u8>) {
        let Some(member) = self.member.upgrade() else { return };
        if member.tell_to(self.node, self.ask(), &frames).is_err() {
            member.lines().end(&member, self.line);
        }
    }

    fn refuse(&self, Malformed(why): Malformed) {
        log::debug!("{:?}: {why}", self.node);
        self.end();
    }

    fn end(&self) {
        if let Some(member) = self.member.upgrade() {
            member.lines().end(&member, self.line);
        }
    }

    fn loses(&self) -> bool {
        true
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.node.fmt(f)
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} to {:?}", self.line, self.node)
    }
}

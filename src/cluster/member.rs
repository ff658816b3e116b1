//! This node, as a member of its cluster: what it sends to the others, and what it knows of them.

use std::{
    fmt,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use ::redis::{Value, cmd, from_redis_value};
use crossbeam_channel::Sender as Queue;

use super::{
    bus::{Bus, Failed, What},
    envelope::{Head, Kind, Sender},
    lines::Lines,
    names::Names,
    nodes::{Lease, Nodes},
    queries::{Asking, Queries},
    replica::Replica,
    replicas::Replicas,
    shares::Shares,
    talks::Talks,
    tally::Tally,
};
use crate::{
    audience::{Audience, Recipients},
    connection::PushErrorKind,
    deadline::Deadline,
    elsewhere::{Elsewhere, Forwarded, Placed, Publishing, Share, Standing},
    error::{Error, OverLimit, Result},
    history::{History, Log, Since},
    id::NodeId,
    message::Message,
    node_info::NodeInfo,
    pushes::Push,
    redis::Redis,
    registry::Registry,
    remote::{Linked, Reply},
    sync::{LockExt, wait},
    thread::must_not_wait,
    wire::{self, AsText, Hello, Request, SOFTWARE, UNANSWERED, append, as_usize},
};

/// The longest message. Redis ends the connection of a subscriber for whom more than 32 MiB wait.
pub(super) const MAX_MESSAGE: usize = 8 << 20;

/// The number of a question to all: each is alone in its message.
const QUERY: u32 = UNANSWERED.wrapping_add(1);

pub(super) struct Member {
    me: Sender,
    names: Names,
    redis: Redis,
    lease: Duration,
    answer_timeout: Duration,
    keys: Vec<u32>,
    bus: Bus,
    nodes: Nodes,
    shares: Shares,
    lines: Lines,
    talks: Talks,
    queries: Queries,
    replicas: Replicas,
    tally: Tally,
    /// What is sent to this node arrives.
    is_listening: AtomicBool,
    is_ending: AtomicBool,
    /// Who [pauses](Self::pause) is told that it ends.
    pausing: Mutex<()>,
    ending: Condvar,
    /// Another node has this one's number: this one is reached by pushes, but is not asked.
    is_replaced: AtomicBool,
}

/// What is chosen for a cluster.
#[derive(Clone, Debug)]
pub(super) struct Choices {
    pub(super) redis: Redis,
    pub(super) prefix: String,
    pub(super) lease: Duration,
    pub(super) answer_timeout: Duration,
    /// The fingerprints of its session keys, of which the first one signs; none where it has no sessions.
    pub(super) keys: Vec<u32>,
}

impl Member {
    pub(super) fn new(choices: Choices, registry: &Registry, start: u64, keeper: Queue<()>) -> Self {
        let Choices { redis, prefix, lease, answer_timeout, keys } = choices;
        let node = registry.node();
        let me = Sender { node: node.get(), start };
        Self {
            me,
            names: Names::new(&prefix),
            redis,
            lease,
            answer_timeout,
            keys,
            bus: Bus::new(answer_timeout, keeper),
            nodes: Nodes::new(node, lease),
            shares: Shares::default(),
            lines: Lines::default(),
            talks: Talks::default(),
            queries: Queries::default(),
            replicas: Replicas::new(me, registry.histories().bounds()),
            tally: Tally::default(),
            is_listening: AtomicBool::new(false),
            is_ending: AtomicBool::new(false),
            pausing: Mutex::default(),
            ending: Condvar::new(),
            is_replaced: AtomicBool::new(false),
        }
    }

    pub(super) fn me(&self) -> Sender {
        self.me
    }

    pub(super) fn node(&self) -> NodeId {
        NodeId::new(self.me.node)
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    pub(super) fn redis(&self) -> &Redis {
        &self.redis
    }

    pub(super) fn bus(&self) -> &Bus {
        &self.bus
    }

    pub(super) fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    pub(super) fn shares(&self) -> &Shares {
        &self.shares
    }

    pub(super) fn lines(&self) -> &Lines {
        &self.lines
    }

    pub(super) fn talks(&self) -> &Talks {
        &self.talks
    }

    pub(super) fn queries(&self) -> &Queries {
        &self.queries
    }

    pub(super) fn replicas(&self) -> &Replicas {
        &self.replicas
    }

    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(super) fn lease(&self) -> Duration {
        self.lease
    }

    pub(super) fn answer_timeout(&self) -> Duration {
        self.answer_timeout
    }

    pub(super) fn deadline(&self) -> Deadline {
        self.bus.deadline()
    }

    /// What another node is told first.
    pub(super) fn hello(&self) -> Vec<u8> {
        Hello::of_client(MAX_MESSAGE, self.me.start).encode()
    }

    pub(super) fn own_lease(&self) -> Lease {
        let (software, key) = (SOFTWARE.to_owned(), self.keys.first().copied());
        Lease { start: self.me.start, duration: self.lease, software, key }
    }

    pub(super) fn is_listening(&self) -> bool {
        self.is_listening.load(SeqCst)
    }

    pub(super) fn set_listening(&self, on: bool) {
        self.is_listening.store(on, SeqCst);
    }

    pub(super) fn is_replaced(&self) -> bool {
        self.is_replaced.load(SeqCst)
    }

    pub(super) fn set_replaced(&self, on: bool) {
        self.is_replaced.store(on, SeqCst);
    }

    pub(super) fn is_ending(&self) -> bool {
        self.is_ending.load(SeqCst)
    }

    pub(super) fn set_ending(&self) {
        let pausing = self.pausing.locked();
        self.is_ending.store(true, SeqCst);
        drop(pausing);
        self.ending.notify_all();
    }

    /// Waits for so long, unless this node ends.
    pub(super) fn pause(&self, time: Duration) {
        let deadline = Deadline::after(time);
        let mut pausing = self.pausing.locked();
        while !self.is_ending()
            && let Some(left) = deadline.remaining()
        {
            pausing = wait(&self.ending, pausing, left);
        }
    }

    /// Publishes, and waits for the number of those who listen.
    ///
    /// # Errors
    /// It may have been done, or not.
    pub(super) fn publish(
        &self,
        channel: &str,
        kind: Kind,
        body: &[u8],
        deadline: Deadline,
    ) -> Result<u64, Failed> {
        let (way, message) = self.message(channel, kind, body)?;
        let receivers = self.bus.call(way, message, deadline)?;
        from_redis_value(receivers).map_err(|_| Failed::Unreachable)
    }

    pub(super) fn publish_to(
        &self,
        node: NodeId,
        kind: Kind,
        body: &[u8],
        deadline: Deadline,
    ) -> Result<u64, Failed> {
        self.publish(&self.names.node(node), kind, body, deadline)
    }

    /// Publishes, and does not wait.
    ///
    /// # Errors
    /// It was not done.
    pub(super) fn tell(&self, channel: &str, kind: Kind, body: &[u8]) -> Result<(), Failed> {
        let (way, message) = self.message(channel, kind, body)?;
        match kind {
            Kind::Bye { .. } | Kind::Over { .. } | Kind::Lost => self.bus.tell_surely(way, message),
            _ => self.bus.tell(way, message),
        }
    }

    pub(super) fn tell_to(&self, node: NodeId, kind: Kind, body: &[u8]) -> Result<(), Failed> {
        self.tell(&self.names.node(node), kind, body)
    }

    fn message(&self, channel: &str, kind: Kind, body: &[u8]) -> Result<(u32, What), Failed> {
        if body.len() > MAX_MESSAGE {
            return Err(Failed::OverLimit);
        }
        let way = self.bus.way()?;
        let message = Head { from: self.me, way, kind }.message(body);
        let joins_at = (kind == Kind::Tell).then(|| message.len() - body.len());
        Ok((way, What::Publish { channel: channel.to_owned(), message, joins_at }))
    }

    /// A command that publishes nothing.
    pub(super) fn call(&self, command: &::redis::Cmd, deadline: Deadline) -> Result<Value, Failed> {
        self.bus.call(self.bus.way()?, What::of(command), deadline)
    }

    /// Whether a node has a lease, as Redis knows it now.
    pub(super) fn look(&self, node: NodeId, deadline: Deadline) -> Result<bool, Failed> {
        let names = &self.names;
        let keys = [names.memory(), names.young(), names.lease(node)];
        let values = self.call(cmd("MGET").arg(&keys), deadline)?;
        let (memory, young, lease): (Option<String>, Option<String>, Option<String>) =
            from_redis_value(values).map_err(|_| Failed::Unreachable)?;
        let lease = lease.as_deref();
        if let Some(lease) = lease.and_then(Lease::parse) {
            self.sees(node, lease);
            return Ok(true);
        }
        let believes = self.nodes.believes(memory.is_some() && young.is_none());
        match self.nodes.is_gone(node, lease, believes) {
            true => Ok(false), // the keeper sees to the rest
            false => Err(Failed::Unreachable),
        }
    }

    /// A lease was seen. True: of a node, or a start of it, that was not known. What there was with an earlier start is over.
    pub(super) fn sees(&self, node: NodeId, lease: Lease) -> bool {
        let now = Sender { node: node.get(), start: lease.start };
        let is_new = self.nodes.seen(node, lease.clone());
        if is_new {
            lease.compare_keys(node, &self.keys);
            self.lines.end_all(self, Some(node));
            self.talks.end_before(now);
        }
        is_new
    }

    /// Pushes to connections of one node. Whoever may wait learns whether that listens.
    fn push_together(&self, node: NodeId, body: &[u8]) -> Result<(), PushErrorKind> {
        if must_not_wait() {
            if !self.nodes.has(node) {
                return Err(PushErrorKind::MustNotWait);
            }
            return self.tell_to(node, Kind::Tell, body).map_err(kind);
        }
        let deadline = self.deadline();
        if !self.nodes.has(node) && !self.look(node, deadline).map_err(kind)? {
            return Err(PushErrorKind::Unknown);
        }
        match self.publish_to(node, Kind::Tell, body, deadline).map_err(kind)? {
            0 if self.look(node, deadline).map_err(kind)? => Err(PushErrorKind::Unreachable),
            0 => Err(PushErrorKind::Unknown),
            _ => Ok(()),
        }
    }

    fn forward(&self, audience: Audience<'_>, body: &[u8]) -> Forwarded {
        let channel = self.names.of(audience);
        if must_not_wait() {
            let told = self.tell(&channel, Kind::Tell, body);
            return Forwarded { nodes: 0, unreachable: told.is_err() };
        }
        match self.publish(&channel, Kind::Tell, body, self.deadline()) {
            Ok(receivers) => Forwarded { nodes: self.others(audience, receivers), unreachable: false },
            Err(_) => Forwarded::UNREACHABLE,
        }
    }

    /// Asks all who may have some of these. Returns what waits for the answers, and how many there will be.
    fn query(
        &self,
        audience: Audience<'_>,
        request: &Request<'_>,
        deadline: Deadline,
    ) -> Result<(Asking<'_>, u64)> {
        if must_not_wait() {
            return Err(Error::MustNotWait);
        }
        let mut body = Vec::new();
        append(&mut body, QUERY, request).map_err(|_| OverLimit::Message)?;
        let asking = self.queries.begin();
        // Looked at last: if it ends later, who asks is told.
        if !self.is_listening() {
            return Err(Error::Unreachable); // no answer would arrive
        }
        let kind = Kind::Query { number: asking.number };
        let receivers = self.publish(&self.names.of(audience), kind, &body, deadline)?;
        Ok((asking, receivers))
    }

    /// Whom a channel reaches beside this node.
    pub(super) fn others(&self, audience: Audience<'_>, receivers: u64) -> usize {
        let is_own = match audience {
            Audience::Topic(topic) => self.shares.is_heard(&Share::Topic(topic.into())),
            Audience::User(user) => self.shares.is_heard(&Share::User(user.into())),
            _ => self.is_listening(),
        };
        as_usize(receivers.saturating_sub(u64::from(is_own)))
    }
}

fn kind(failed: Failed) -> PushErrorKind {
    PushErrorKind::of(failed.into())
}

/// What `Elsewhere` is to the registry.
#[derive(Clone, Debug)]
pub(super) struct Others(pub(super) Arc<Member>);

impl Elsewhere for Others {
    fn link(&self, node: NodeId) -> Result<Arc<Linked>> {
        let member = &self.0;
        if !member.nodes.has(node) {
            if must_not_wait() {
                return Err(Error::MustNotWait);
            }
            if !member.look(node, member.deadline())? {
                return Err(Error::UnknownId);
            }
        }
        Ok(member.lines.link(member, node))
    }

    fn push(&self, node: NodeId, pushes: &[Push]) -> Result<(), PushErrorKind> {
        let length: usize = pushes.iter().map(|push| push.message.len() + 64).sum();
        let mut body = Vec::with_capacity(length);
        for push in pushes {
            append(&mut body, UNANSWERED, &push.request())
                .map_err(|_| PushErrorKind::OverLimit(OverLimit::Message))?;
        }
        if body.len() > MAX_MESSAGE {
            return Err(PushErrorKind::OverLimit(OverLimit::Message));
        }
        let pushed = self.0.push_together(node, &body);
        match &pushed {
            Ok(()) => self.0.tally.forwarded.add(pushes.len()),
            Err(PushErrorKind::Unreachable) => self.0.tally.unreachable.add(pushes.len()),
            Err(_) => {}
        }
        pushed
    }

    fn forward(&self, to: Recipients<'_>, message: &Message, newest: Option<&Arc<str>>) -> Forwarded {
        let member = &self.0;
        let request = Request::Broadcast {
            to: to.audience.into(),
            except: to.except.copied().map(AsText),
            payload: wire::Payload::new(message, newest),
        };
        let mut body = Vec::with_capacity(message.len() + 64);
        if append(&mut body, UNANSWERED, &request).is_err() {
            return Forwarded::UNREACHABLE;
        }
        let forwarded = member.forward(to.audience, &body);
        match forwarded {
            Forwarded { unreachable: true, .. } => member.tally.unreachable.add(1),
            Forwarded { nodes, .. } => member.tally.forwarded.add(usize::from(nodes > 0 || must_not_wait())),
        }
        forwarded
    }

    fn publish(&self, topic: &str, history: History, publication: &Publishing<'_>) -> Result<Placed> {
        self.0.publish_numbered(topic, history, publication)
    }

    fn with_log(
        &self,
        topic: &str,
        history: History,
        since: &Since,
        use_log: &mut dyn FnMut(&mut Log),
    ) -> Result<()> {
        let member = &self.0;
        let wanted = Wanted::new(member, topic, history);
        let deadline = member.deadline();
        if !wanted.replica.is_current() && !wanted.replica.serves(since) {
            let may_come = || member.bus.is_up();
            if !may_come() {
                return Err(Error::Unreachable);
            }
            member.shares.mark(Share::Topic(wanted.replica.topic.clone()));
            let _ = member.tell_to(member.node(), Kind::Beat, &[]);
            if must_not_wait() {
                return Err(Error::MustNotWait);
            }
            if !wanted.replica.wait(deadline, may_come) {
                return Err(Error::Unreachable);
            }
        }
        // What somebody has seen who comes from another node, this one may not have heard yet.
        let is_unknown = *since != Since::NOW && !wanted.replica.serves(since);
        if is_unknown
            && !must_not_wait()
            && member.has_had(topic, since, deadline)?
            && !wanted.replica.wait_for(since, deadline)
        {
            return Err(Error::Unreachable);
        }
        wanted.replica.with_log(use_log);
        Ok(())
    }

    fn ask_all(&self, audience: Audience<'_>, request: &Request<'_>) -> Result<Vec<Reply>> {
        let deadline = self.0.deadline();
        let (asking, receivers) = self.0.query(audience, request, deadline)?;
        asking.wait(receivers, deadline).ok_or(Error::Unreachable)
    }

    fn nodes(&self) -> Vec<NodeId> {
        self.0.nodes.others()
    }

    fn knows_all(&self) -> bool {
        let Member { bus, nodes, .. } = &*self.0;
        bus.is_up() && self.0.is_listening() && nodes.has_looked()
    }

    fn survey(&self, request: &Request<'_>, within: Duration) -> (Vec<NodeInfo>, Vec<Reply>) {
        let member = &self.0;
        let deadline = member.deadline().or_earlier(Deadline::after(within));
        let replies = match member.query(Audience::All, request, deadline) {
            Ok((asking, receivers)) => asking.wait_for_some(receivers, deadline),
            Err(_) => Vec::new(),
        };
        let known = member.nodes.software();
        (known.iter().map(|(node, software)| NodeInfo::leased(*node, software)).collect(), replies)
    }

    fn standing(&self) -> Standing {
        let Member { bus, nodes, tally, .. } = &*self.0;
        Standing {
            is_up: bus.is_up() && self.0.is_listening() && nodes.renews(),
            nodes: nodes.others().len() + 1,
            renewed: nodes.renewed(),
            forwarded: tally.forwarded.get(),
            received: tally.received.get(),
            unreachable: tally.unreachable.get(),
            reconnects: tally.reconnects(),
            late: tally.late.get(),
        }
    }

    fn mark(&self, share: Share) {
        self.0.shares.mark(share);
    }

    fn end_links(&self) {
        self.0.lines.close(&self.0);
        self.0.queries.lose_all();
    }

    fn settle(&self, shares: &[Share]) {
        let member = &self.0;
        let deadline = member.deadline();
        if !shares.iter().all(|share| member.shares.is_settled(share)) {
            // What is to be subscribed to is seen when anything comes. If nothing does, nobody waits for it.
            let is_told = member.tell_to(member.node(), Kind::Beat, &[]).is_ok();
            if !is_told || must_not_wait() {
                return;
            }
            let _ = shares.iter().all(|share| member.shares.settle(share, deadline));
        }
        if must_not_wait() {
            return;
        }
        for share in shares {
            if let Share::Topic(topic) = share
                && let Some(replica) = member.replicas.find(topic)
            {
                replica.wait(deadline, || member.is_listening() && member.bus.is_up());
            }
        }
    }
}

/// A copy of what a topic remembers, for somebody who wants to join it: the node listens to it meanwhile.
struct Wanted<'a> {
    member: &'a Member,
    replica: Arc<Replica>,
}

impl<'a> Wanted<'a> {
    fn new(member: &'a Member, topic: &str, history: History) -> Self {
        Self { member, replica: member.replicas.want(&topic.into(), history) }
    }
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        let topic = &self.replica.topic;
        self.member.replicas.unwant(topic);
        // If nobody has joined, it is not listened to for long.
        self.member.shares.mark(Share::Topic(topic.clone()));
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("node", &self.me.node).field("bus", &self.bus).finish_non_exhaustive()
    }
}

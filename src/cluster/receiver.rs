//! The thread that receives: one connection to Redis that listens to this node's channel, to that of all, and to those of the topics
//! and users that have connections here. What is pushed is done here, in order; whatever may take longer is given to others.

use std::{
    collections::HashMap,
    error::Error,
    io::{self, ErrorKind},
    sync::Arc,
    time::{Duration, Instant},
};

use ::redis::{Connection, PushKind, RedisError, Value, cmd};
use bytes::Bytes;
use crossbeam_channel::{Sender as Queue, bounded};

use super::{
    envelope::{Head, Kind, Sender},
    everyone::{Asked, answer_all},
    keeper::CONNECT,
    member::Member,
    nodes::Lease,
    pace::Pace,
    publications::Publication,
};
use crate::{
    answering::Desk,
    audience::{Audience, Recipients},
    elsewhere::Share,
    hub::Hub,
    id::{NodeId, WebSocketId},
    message::Payload,
    redis::{Failure, Timeouts},
    registry::Registry,
    thread::{forbid_waiting, spawn},
    wire::{Frames, Malformed, Request, decode_request},
};

/// A node hears itself once a second. After so long a silence the connection is not what it should be.
const SILENCE: Duration = Duration::from_secs(4);

/// Channels that are subscribed to together.
const TOGETHER: usize = 1000;

/// Questions to all nodes that are not answered yet.
const QUESTIONS: usize = 1024;

/// So many senders are known at most by the number of their connection. There are no more nodes than that.
const MOST_SENDERS: usize = 10_000;

pub(super) struct Receiver {
    member: Arc<Member>,
    registry: Arc<Registry>,
    /// Without the other nodes.
    hub: Hub,
    desk: Arc<Desk>,
    /// By which connection each sender has sent last.
    ways: HashMap<Sender, u32>,
    questions: Queue<Asked>,
    looked: Instant,
}

/// What Redis says to those who listen.
enum Said {
    Message { channel: Vec<u8>, payload: Bytes },
    Subscribed(Vec<u8>),
    Other,
}

impl Receiver {
    /// # Errors
    /// There are no threads.
    pub(super) fn start(
        member: Arc<Member>,
        registry: Arc<Registry>,
        desk: Arc<Desk>,
    ) -> std::io::Result<Vec<std::thread::JoinHandle<()>>> {
        let (questions, asked) = bounded(QUESTIONS);
        let answering = {
            let (member, desk) = (member.clone(), desk.clone());
            spawn("switchboard-asked", 256 << 10, move || answer_all(&member, &desk, asked))?
        };
        let hub = Hub::alone(registry.clone());
        let (ways, looked) = (HashMap::new(), Instant::now());
        let this = Self { member, registry, hub, desk, ways, questions, looked };
        let receiving = spawn("switchboard-hear", 512 << 10, move || this.run());
        // Without the thread the queue of questions ends, and with it who answers.
        Ok(vec![answering, receiving?])
    }

    fn run(mut self) {
        forbid_waiting();
        let mut pace = Pace::new("the cluster cannot listen");
        while !self.member.is_ending() {
            let timeouts = Timeouts { connect: CONNECT, answer: SILENCE };
            let connected = self.member.redis().connect(timeouts);
            let failure = match connected {
                Ok(connection) => self.listen(connection, &mut pace),
                Err(failure) => failure.to_string(),
            };
            if !self.member.is_ending() {
                // Without any connection to Redis, the keeper says so.
                let is_told = !self.member.bus().is_up();
                let pause = if is_told { pace.failed_as_well(&failure) } else { pace.failed(&failure) };
                self.member.pause(pause);
            }
        }
        self.member.talks().end_all(None).into_iter().for_each(|thread| drop(thread.join()));
    }

    /// Listens until the connection ends. Returns why.
    fn listen(&mut self, mut connection: Connection, pace: &mut Pace) -> String {
        let all = self.member.shares().begin(|| wanted(&self.member, &self.registry));
        self.member.replicas().retain(|topic| self.registry.has_share(&Share::Topic(topic.clone())));
        let ended = self.hear(&mut connection, &all, pace);
        self.member.set_listening(false);
        self.member.shares().end();
        self.member.replicas().end_all();
        self.lost();
        match ended {
            Ok(()) => String::new(),
            Err(error) if error.is_timeout() => format!("nothing was heard for {SILENCE:?}"),
            Err(error) => Failure::from(&error).to_string(),
        }
    }

    /// What was sent to this node may not have arrived: nothing is as those think who have asked, or were asked.
    fn lost(&self) {
        self.member.lines().end_all(&self.member, None);
        drop(self.member.talks().end_all(None));
        self.member.queries().lose_all();
    }

    fn hear(
        &mut self,
        connection: &mut Connection,
        all: &[Share],
        pace: &mut Pace,
    ) -> Result<(), RedisError> {
        let names = self.member.names();
        let node = self.member.node();
        let (own, start) = (names.node(node), names.start(node, self.member.me().start));
        // Last of all: when they are heard, all others are.
        let shares = all.iter().map(|share| names.share(share));
        let channels: Vec<_> = shares.chain([start, names.all(), own.clone()]).collect();
        // By this name others find it when this machine is not there any more: it is that of the node's channel.
        // Only in its third protocol the next message is not taken for what another wait was for, which a signal has ended.
        let hello = cmd("HELLO").arg(3).arg("SETNAME").arg(&own).get_packed_command();
        connection.send_packed_command(&hello)?;
        receive(connection)?;
        // Redis ends a connection for which too much waits to be read: its answers are read in between.
        let (mut parts, mut unheard) = (channels.chunks(10 * TOGETHER), 0);
        while !self.member.is_ending() {
            if unheard == 0
                && let Some(part) = parts.next()
            {
                send(connection, "SUBSCRIBE", part)?;
                unheard = part.len();
            }
            match understand(receive(connection)?) {
                Said::Message { channel, payload } => self.receive(&channel, payload),
                Said::Subscribed(channel) => {
                    unheard = unheard.saturating_sub(1);
                    let channel = String::from_utf8_lossy(&channel);
                    if let Some(share) = self.member.names().share_of(&channel) {
                        self.heard(&share);
                    } else if *channel == *own {
                        self.listening(pace);
                    }
                }
                Said::Other => {}
            }
            self.subscribe(connection)?;
        }
        Ok(())
    }

    /// What is sent to this arrives from now on.
    fn heard(&self, share: &Share) {
        if !self.member.shares().is_asked(share) {
            return; // it was given up meanwhile
        }
        if let Share::Topic(topic) = share
            && let Some(history) = self.registry.histories().of(topic)
        {
            self.member.replicas().begin(topic, history);
        }
        self.member.shares().heard(share);
    }

    fn listening(&self, pace: &mut Pace) {
        pace.worked();
        self.member.set_listening(true);
        self.member.tally().connected[1].add(1);
        log::info!("the cluster: node {} listens at {}", self.member.node().get(), self.member.redis());
        // Others have lines that they may have to make anew.
        let _ = self.member.tell(&self.member.names().all(), Kind::Lost, &[]);
    }

    /// Has Redis send what somebody here wants, and no more what nobody does.
    fn subscribe(&mut self, connection: &mut Connection) -> Result<(), RedisError> {
        let (member, registry) = (&self.member, &self.registry);
        if !member.shares().has_work(&mut self.looked) {
            return Ok(());
        }
        let is_wanted = |share: &Share| {
            registry.has_share(share)
                || matches!(share, Share::Topic(topic) if member.replicas().is_wanted(topic))
        };
        let change = member.shares().change(is_wanted, || wanted(member, registry), Instant::now());
        for share in change.unsubscribe.iter().chain(&change.unused) {
            if let Share::Topic(topic) = share {
                member.replicas().end(topic, || registry.has_share(share));
            }
        }
        let channels =
            |shares: &[Share]| -> Vec<_> { shares.iter().map(|share| member.names().share(share)).collect() };
        send(connection, "SUBSCRIBE", &channels(&change.subscribe))?;
        send(connection, "UNSUBSCRIBE", &channels(&change.unsubscribe))
    }

    fn receive(&mut self, channel: &[u8], payload: Bytes) {
        match Head::of(&payload) {
            Ok(Some((Head { from, kind: Kind::Published { number }, .. }, at))) => {
                self.published(channel, from, number, &payload.slice(at..));
            }
            Ok(Some((head, at))) => self.take(head, payload.slice(at..)),
            Ok(None) => log::debug!("the cluster: a message of another version"),
            Err(Malformed(why)) => {
                log::debug!("the cluster: what came by {}: {why}", String::from_utf8_lossy(channel));
            }
        }
    }

    /// To a topic that remembers.
    fn published(&self, channel: &[u8], from: Sender, number: u64, rest: &Bytes) {
        let channel = String::from_utf8_lossy(channel);
        let share = self.member.names().share_of(&channel);
        match (share, Publication::heard(from, number, rest)) {
            (Some(Share::Topic(topic)), Some(publication)) => {
                self.member.replicas().hear(&self.registry, &topic, publication);
            }
            _ => log::debug!("the cluster: what came by {channel} is no publication"),
        }
    }

    fn take(&mut self, Head { from, way, kind }: Head, body: Bytes) {
        if from == self.member.me() {
            if let Kind::Query { number } = kind {
                self.member.queries().reply(number, None);
            }
            return;
        }
        if !self.is_in_order(from, way) {
            return;
        }
        let node = NodeId::new(from.node);
        if self.member.is_replaced() && matches!(kind, Kind::Hello { .. } | Kind::Ask { .. }) {
            return; // the other one answers
        }
        match kind {
            Kind::Tell => self.told(&body),
            Kind::Hello { line } => self.member.talks().begin(&self.member, &self.desk, from, line, &body),
            Kind::Welcome { line, talk } => self.member.lines().welcome(line, talk, body),
            Kind::Ask { line, talk } => {
                if !self.member.talks().ask(from, line, talk, body) {
                    let _ = self.member.tell_to(node, Kind::Over { line }, &[]);
                }
            }
            Kind::Answer { line } => self.member.lines().answer(line, &body),
            Kind::Over { line } => {
                self.member.lines().end(&self.member, line);
            }
            Kind::Bye { line } => self.member.talks().end(from, line),
            Kind::Query { number } => {
                // Who asks too much gets no answer in time.
                let _ = self.questions.try_send(Asked { from: node, number, request: body });
            }
            Kind::Reply { number } => self.member.queries().reply(number, Some(&body)),
            Kind::Lost => {
                self.member.lines().end_all(&self.member, Some(node));
                drop(self.member.talks().end_all(Some(node)));
            }
            Kind::Here => self.here(node, &body),
            Kind::Left => {
                if self.member.nodes().left(from) {
                    log::info!("the cluster: node {} has left", from.node);
                    self.member.lines().forget(&self.member, node);
                    drop(self.member.talks().end_all(Some(node)));
                }
            }
            Kind::Beat | Kind::Published { .. } => {}
        }
    }

    fn here(&self, node: NodeId, body: &[u8]) {
        let Some(lease) = str::from_utf8(body).ok().and_then(Lease::parse) else { return };
        let software = lease.software.clone();
        if self.member.sees(node, lease) {
            log::info!("the cluster: node {} has come, {software}", node.get());
        }
        self.member.nodes().said(node);
    }

    /// Whether nothing was heard that the sender has sent by a later connection.
    fn is_in_order(&mut self, from: Sender, way: u32) -> bool {
        if self.ways.len() >= MOST_SENDERS && !self.ways.contains_key(&from) {
            self.ways.clear();
        }
        let last = self.ways.entry(from).or_insert(way);
        if way < *last {
            log::debug!("the cluster: what node {} had given up came late", from.node);
            self.member.tally().late.add(1);
            return false;
        }
        if way > *last {
            // What it has asked by the last one it has given up, and what it pushes now must not come before that.
            drop(self.member.talks().end_all(Some(NodeId::new(from.node))));
        }
        *last = way;
        true
    }

    /// Does what nobody waits for.
    fn told(&self, body: &Bytes) {
        let decode = |frame| {
            let request = decode_request(frame).ok().flatten();
            if request.is_none() {
                log::debug!("the cluster: a request that this version does not know");
            }
            request
        };
        let frames = Frames::of(body).map_while(Result::ok);
        let mut requests = frames.filter_map(|(_, frame)| decode(frame)).peekable();
        while let Some(request) = requests.next() {
            self.perform(&request, requests.peek(), body);
        }
    }

    /// Does one, before the next.
    fn perform(&self, request: &Request<'_>, next: Option<&Request<'_>>, body: &Bytes) {
        self.member.tally().received.add(1);
        match *request {
            Request::Push { id, payload } => {
                let Ok(payload) = payload.payload(body) else { return };
                let more = matches!(next, Some(Request::Push { id: next, .. }) if next.0 == id.0);
                let _ = self.registry.push(&id.0, payload, more);
            }
            Request::Broadcast { to, except, payload } => {
                if let Ok(payload) = payload.payload(body) {
                    self.broadcast(to.into(), except.as_ref().map(|id| &id.0), payload);
                }
            }
            _ => {}
        }
    }

    fn broadcast(&self, audience: Audience<'_>, except: Option<&WebSocketId>, payload: Payload) {
        let _ = self.hub.send_here(Recipients { audience, except }, payload);
    }
}

/// What this node has to listen to.
fn wanted(member: &Member, registry: &Registry) -> Vec<Share> {
    let mut all = registry.shares();
    let topics: Vec<_> = member.replicas().wanted().into_iter().map(Share::Topic).collect();
    let more: Vec<_> = topics.into_iter().filter(|share| !registry.has_share(share)).collect();
    all.extend(more);
    all
}

/// What Redis says, in its second protocol or its third one.
fn understand(value: Value) -> Said {
    let (kind, mut data) = match value {
        Value::Array(mut all) if !all.is_empty() => {
            let kind = match bytes_of(all.remove(0)).as_deref() {
                Some(b"message") => PushKind::Message,
                Some(b"subscribe") => PushKind::Subscribe,
                _ => return Said::Other,
            };
            (kind, all)
        }
        Value::Push { kind, data } => (kind, data),
        _ => return Said::Other,
    };
    let second = if data.len() > 1 { bytes_of(data.swap_remove(1)) } else { None };
    let first = data.into_iter().next().and_then(bytes_of);
    match (kind, first, second) {
        (PushKind::Message, Some(channel), Some(payload)) => {
            Said::Message { channel, payload: payload.into() }
        }
        (PushKind::Subscribe, Some(channel), _) => Said::Subscribed(channel),
        _ => Said::Other,
    }
}

fn bytes_of(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        _ => None,
    }
}

/// The next message. A wait that the system has interrupted, as when this process was stopped and goes on, is waited again: what is
/// sent meanwhile is not lost.
fn receive(connection: &mut Connection) -> Result<Value, RedisError> {
    loop {
        let received = connection.recv_response();
        // Such as that it does not let its user listen.
        if let Ok(Value::ServerError(error)) = received {
            return Err(error.into());
        }
        if !received.as_ref().is_err_and(is_interrupted) {
            return received;
        }
    }
}

fn is_interrupted(error: &RedisError) -> bool {
    let error = error.source().and_then(|error| error.downcast_ref::<Arc<dyn Error + Send + Sync>>());
    let error = error.and_then(|error| error.downcast_ref::<io::Error>());
    error.is_some_and(|error| error.kind() == ErrorKind::Interrupted)
}

fn send(connection: &mut Connection, command: &str, channels: &[String]) -> Result<(), RedisError> {
    channels
        .chunks(TOGETHER)
        .try_for_each(|some| connection.send_packed_command(&cmd(command).arg(some).get_packed_command()))
}

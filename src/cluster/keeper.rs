//! The thread that keeps what this node has in Redis: the connection by which it sends, its lease, and what it knows of the others. It
//! also sends what nobody waits for.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use ::redis::{FromRedisValue, cmd, from_redis_value};
use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::{
    bus::Failed,
    envelope::Kind,
    member::Member,
    nodes::{HAS_LEFT, Lease, RETURN},
    pace::Pace,
};
use crate::{
    id::NodeId,
    redis::{Failure, Timeouts},
};

/// How long it may take to connect.
pub(super) const CONNECT: Duration = Duration::from_secs(5);

/// How often a node tells itself that all is well.
const BEAT: Duration = Duration::from_secs(1);

/// A lease is renewed so many times before it would be over.
const RENEWALS: u32 = 4;

/// One that was refused is asked for again after so long, at the latest.
const REFUSED: Duration = Duration::from_millis(250);

/// Takes a lease, if nobody has it, or if the start of the node that has it does not listen any more. The latter is asked for the first
/// time only: later it may listen again just now.
const CLAIM: &str = "\
local held = redis.call('GET', KEYS[1])
if held and held ~= 'left' and string.sub(held, 1, 16) ~= string.sub(ARGV[1], 1, 16) then
  if ARGV[3] == '0' or redis.call('PUBLISH', ARGV[4] .. string.sub(held, 1, 16), '') > 0 then return 0 end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
redis.call('SADD', KEYS[2], ARGV[5])
if redis.call('SETNX', KEYS[3], 1) == 1 then redis.call('SET', KEYS[4], 1, 'PX', ARGV[6]) end
return 1";

/// Renews the lease that this start of the node has, also where Redis has no memory for anything new.
const RENEW: &str = "\
local held = redis.call('GET', KEYS[1])
if not held or string.sub(held, 1, 16) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.pcall('SADD', KEYS[2], ARGV[3])
if redis.pcall('SETNX', KEYS[3], 1) == 1 then redis.pcall('SET', KEYS[4], 1, 'PX', ARGV[4]) end
return 1";

/// Gives a lease back.
const LEAVE: &str = "\
local held = redis.call('GET', KEYS[1])
if held and string.sub(held, 1, 16) == ARGV[1] then
  redis.call('DEL', KEYS[1])
  redis.call('SREM', KEYS[2], ARGV[2])
  redis.pcall('SET', KEYS[1], 'left', 'PX', ARGV[3])
end";

pub(super) struct Keeper {
    member: Arc<Member>,
    wake: Receiver<()>,
    pace: Pace,
    beat_at: Instant,
    renew_at: Instant,
    is_first: bool,
}

impl Keeper {
    pub(super) fn new(member: Arc<Member>, wake: Receiver<()>) -> Self {
        let now = Instant::now();
        let pace = Pace::new(super::NOT_REACHED);
        Self { member, wake, pace, beat_at: now, renew_at: now, is_first: true }
    }

    /// Connects, before anything else is done.
    ///
    /// # Errors
    /// Why it cannot.
    pub(super) fn connect(&mut self) -> Result<(), Failure> {
        let timeouts = Timeouts { connect: CONNECT, answer: self.member.answer_timeout() };
        let connection = self.member.redis().connect(timeouts)?;
        self.member.bus().begin(connection);
        // Nor may those that answers were sent to have got them.
        let _ = self.member.tell(&self.member.names().all(), Kind::Lost, &[]);
        self.member.tally().connected[0].add(1);
        self.renew_at = Instant::now();
        self.look_at_its_age();
        Ok(())
    }

    /// It cannot, and goes on trying: it is said now, and not again soon.
    pub(super) fn failed(&mut self, failure: &Failure) {
        self.pace.failed(&format!("{failure}; it is tried again until it can"));
    }

    /// Takes the lease. False: another node has it.
    pub(super) fn claim(&mut self) -> Result<bool, Failed> {
        let (member, names) = (&self.member, self.member.names());
        let node = member.node();
        let mut claim = cmd("EVAL");
        claim.arg(CLAIM).arg(4).arg(names.lease(node)).arg(names.nodes());
        claim.arg(names.memory()).arg(names.young());
        claim.arg(member.own_lease().to_text()).arg(member.lease().as_millis() as u64);
        claim.arg(u8::from(self.is_first)).arg(names.starts(node)).arg(node_text(node)).arg(self.young());
        let taken: i64 = self.ask(&claim)?;
        self.is_first = false;
        if taken == 1 {
            self.say_here();
        }
        Ok(taken == 1)
    }

    /// Whether any start of this node has one.
    fn has_lease(&self) -> Result<bool, Failed> {
        let lease = self.member.names().lease(self.member.node());
        let lease: Option<String> = self.ask(cmd("GET").arg(lease))?;
        Ok(lease.is_some_and(|lease| lease != HAS_LEFT))
    }

    fn say_here(&self) {
        let lease = self.member.own_lease().to_text();
        let _ = self.member.tell(&self.member.names().all(), Kind::Here, lease.as_bytes());
    }

    fn ask<T: FromRedisValue>(&self, command: &::redis::Cmd) -> Result<T, Failed> {
        let value = self.member.call(command, self.member.deadline())?;
        from_redis_value(value).map_err(|_| Failed::Unreachable)
    }

    pub(super) fn run(mut self) {
        while !self.member.is_ending() {
            let pause = self.keep();
            if self.member.is_ending() {
                break; // `keep` may have taken what was to wake it for that
            }
            // Whoever wakes it has queued something, or has seen that there is no connection.
            if let Err(RecvTimeoutError::Disconnected) = self.wake.recv_timeout(pause) {
                break;
            }
        }
    }

    /// Does what is to be done. Returns how long there is nothing more.
    fn keep(&mut self) -> Duration {
        if !self.member.bus().is_up() {
            self.member.nodes().set_looked(false);
            // What was sent last may not have arrived.
            self.member.lines().end_all(&self.member, None);
            drop(self.member.talks().end_all(None));
            if let Err(failure) = self.connect() {
                return self.pace.failed(&failure.to_string());
            }
        }
        self.member.bus().flush();
        let now = Instant::now();
        if now >= self.renew_at {
            self.renew_at = now + self.member.lease() / RENEWALS;
            self.renew_all();
        }
        if now >= self.beat_at {
            self.beat_at = now + BEAT;
            let node = self.member.node();
            let _ = self.member.publish_to(node, Kind::Beat, &[], self.member.deadline());
        }
        if !self.member.bus().is_up() {
            let _ = self.wake.try_recv();
            return self.pace.failed("it has ended the connection, or does not answer in time");
        }
        self.renew_at
            .min(self.beat_at)
            .saturating_duration_since(Instant::now())
            .max(Duration::from_millis(1))
    }

    fn renew_all(&mut self) {
        let renewed = self.renew();
        let is_well = matches!(renewed, Ok(true));
        if let Ok(is_its) = &renewed {
            self.member.set_replaced(!is_its);
        }
        if is_well {
            self.pace.worked();
        }
        if self.member.nodes().set_renews(is_well) != is_well || !is_well {
            match &renewed {
                Ok(false) => {
                    let node = self.member.node().get();
                    self.pace.failed(&format!("another node has the number {node}: each needs its own"));
                }
                Err(Failed::Refused(error)) => {
                    self.pace.failed(&format!("the lease of this node cannot be renewed: {error}"));
                    // As when there is no memory for one. With one, be it that of an earlier start, it is known anyway.
                    if let Ok(false) = self.has_lease() {
                        self.say_here();
                    }
                }
                Ok(true) | Err(_) => {}
            }
        }
        // Also where it is refused: others may have leases, or had them.
        if matches!(renewed, Ok(_) | Err(Failed::Refused(_))) {
            let _ = self.look_at_all(); // if not, then the next time
        }
        if !is_well {
            self.renew_at = self.renew_at.min(Instant::now() + REFUSED);
        }
    }

    fn renew(&mut self) -> Result<bool, Failed> {
        let (member, names) = (&self.member, self.member.names());
        let node = member.node();
        let mut renew = cmd("EVAL");
        renew.arg(RENEW).arg(4).arg(names.lease(node)).arg(names.nodes());
        renew.arg(names.memory()).arg(names.young());
        renew.arg(format!("{:016x}", member.me().start)).arg(member.lease().as_millis() as u64);
        renew.arg(node_text(node)).arg(self.young());
        let is_there: i64 = if self.is_first { 0 } else { self.ask(&renew)? };
        match is_there {
            1 => Ok(true),
            _ if self.member.is_ending() => Err(Failed::Unreachable), // it was given back
            _ => self.claim(),
        }
    }

    /// For how long after it has forgotten everything Redis does not know all who are there, in milliseconds.
    fn young(&self) -> u64 {
        self.member.lease().max(RETURN).as_millis() as u64
    }

    /// Redis that was started lately may have leases that nobody could renew.
    fn look_at_its_age(&self) {
        let info: Result<String, _> = self.ask(cmd("INFO").arg("server")); // an ACL may forbid it
        let seconds = info.ok().and_then(|info| {
            let seconds = info.lines().find_map(|line| line.strip_prefix("uptime_in_seconds:"));
            seconds?.trim().parse::<u64>().ok()
        });
        let age = Duration::from_secs(seconds.unwrap_or(u64::MAX));
        self.member.nodes().doubt(Duration::from_millis(self.young()).saturating_sub(age));
    }

    /// Which other nodes there are.
    fn look_at_all(&self) -> Result<(), Failed> {
        let (member, names) = (&self.member, self.member.names());
        let listed: Vec<String> = self.ask(cmd("SMEMBERS").arg(names.nodes()))?;
        let listed = listed.iter().filter_map(|text| node_of(text));
        let mut nodes: Vec<_> = listed.filter(|node| *node != member.node()).collect();
        let mut known = member.nodes().others();
        known.retain(|node| !nodes.contains(node));
        nodes.extend(known);
        let keys: Vec<_> = nodes.iter().map(|node| names.lease(*node)).collect();
        let keys = keys.into_iter().chain([names.memory(), names.young()]);
        let mut leases: Vec<Option<String>> = self.ask(cmd("MGET").arg(keys.collect::<Vec<_>>()))?;
        let (young, memory) = (leases.pop().flatten(), leases.pop().flatten());
        let believes = member.nodes().believes(memory.is_some() && young.is_none());
        let mut gone = Vec::new();
        for (node, lease) in nodes.into_iter().zip(leases) {
            let lease = lease.as_deref();
            if let Some(lease) = lease.and_then(Lease::parse) {
                let software = lease.software.clone();
                if member.sees(node, lease) {
                    log::info!("the cluster: node {} is there, {software}", node.get());
                }
            } else if member.nodes().is_gone(node, lease, believes) {
                self.is_gone(node);
                gone.push(node_text(node));
            }
        }
        member.nodes().set_looked(true);
        if !gone.is_empty() {
            let _: i64 = self.ask(cmd("SREM").arg(names.nodes()).arg(gone))?;
        }
        Ok(())
    }

    /// A node has no lease any more.
    fn is_gone(&self, node: NodeId) {
        self.evict(node); // whoever has pushed to it may have seen already that it is gone
        if self.member.nodes().gone(node) {
            log::warn!("the cluster: node {} is gone: its lease is over", node.get());
            self.member.lines().forget(&self.member, node);
            drop(self.member.talks().end_all(Some(node)));
        }
    }
}

impl Keeper {
    /// Redis may take a machine without power for one that listens, for minutes: its connection is ended, so that nobody waits for
    /// its answers.
    fn evict(&self, node: NodeId) {
        let name = format!("name={}", self.member.names().node(node));
        let listed: Result<String, _> = self.ask(cmd("CLIENT").arg("LIST").arg("TYPE").arg("pubsub"));
        let listed = listed.unwrap_or_default(); // who may not ask this has to wait
        for line in listed.lines().filter(|line| line.split(' ').any(|field| field == name)) {
            if let Some(id) = line.split(' ').find_map(|field| field.strip_prefix("id=")) {
                let _: Result<i64, _> = self.ask(cmd("CLIENT").arg("KILL").arg("ID").arg(id));
            }
        }
    }
}

impl Member {
    /// Tells the others that this node is not there any more.
    pub(super) fn leave(&self) {
        let (names, node) = (self.names(), self.node());
        let mut leave = cmd("EVAL");
        leave.arg(LEAVE).arg(2).arg(names.lease(node)).arg(names.nodes());
        leave.arg(format!("{:016x}", self.me().start)).arg(node_text(node));
        leave.arg(self.lease().as_millis() as u64);
        let _ = self.call(&leave, self.deadline());
        let _ = self.publish(&names.all(), Kind::Left, &[], self.deadline());
        // Its own thread looks whether it is to end when it hears something.
        let _ = self.publish_to(node, Kind::Beat, &[], self.deadline());
    }
}

fn node_text(node: NodeId) -> String {
    format!("{:08x}", node.get())
}

pub(super) fn node_of(text: &str) -> Option<NodeId> {
    u32::from_str_radix(text, 16).ok().map(NodeId::new)
}

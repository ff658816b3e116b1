//! The gateway: a thread, or a few, for what no connection's own thread can do, and their workers.
//!
//! It drives the sockets of shared connections, sends what a socket did not take at once, sends collected output within a
//! millisecond whatever the handler does next, and keeps the times. It never waits for one peer, and without anything to do
//! it sleeps.

mod deadlines;
mod entries;
mod flushing;
mod jobs;
mod reactor;
mod slice;
mod turn;
mod watching;
mod workers;

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::JoinHandle,
};

use self::{
    reactor::Reactor,
    workers::{Dispatcher, Workers},
};
use crate::{
    buffered::Buffered,
    clock::Clock,
    connection::{Connection, Context, Post, Registrar, Turns},
    incidents::Incidents,
    limits::Limits,
    pulse::{Beating, Pulse},
    thread::{Belonging, forbid_waiting, spawn},
};

const STACK: usize = 256 * 1024;

/// The gateway threads and their workers. Dropping it ends them all.
#[derive(Debug)]
pub(crate) struct Gateways {
    contexts: Vec<Arc<Context>>,
    next: AtomicUsize,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    beating: Vec<Beating>,
    workers: Workers,
}

impl Gateways {
    /// Starts the threads.
    pub(crate) fn start(
        limits: &Arc<Limits>,
        clock: &Arc<Clock>,
        registrar: &Arc<dyn Registrar>,
        buffered: &Arc<Buffered>,
        incidents: &Arc<Incidents>,
        pulse: &Arc<Pulse>,
    ) -> io::Result<Self> {
        let mut all = Self {
            contexts: Vec::new(),
            next: AtomicUsize::new(0),
            stop: Arc::default(),
            threads: Vec::new(),
            beating: Vec::new(),
            workers: Workers::start(limits)?,
        };
        let turns = Arc::new(Turns::new());
        for number in 1..=limits.gateways {
            let context = |post| Context {
                limits: limits.clone(),
                tick: limits.tick(),
                clock: clock.clone(),
                post,
                registrar: registrar.clone(),
                buffered: buffered.clone(),
                turns: turns.clone(),
                incidents: incidents.clone(),
            };
            let mut reactor = Reactor::new(context, all.workers.dispatcher())?;
            all.contexts.push(reactor.context().clone());
            let post = reactor.context().post.clone();
            all.beating.push(pulse.add(format!("gateway {number}"), move || post.wake()));
            let beat = all.beating.last().map(Beating::beat);
            let stop = all.stop.clone();
            let stack_size = STACK.max(limits.stack_size);
            let run = move || {
                forbid_waiting();
                reactor.run(&stop, beat.as_deref());
            };
            all.threads.push(spawn("switchboard-gate", stack_size, run)?);
        }
        Ok(all)
    }

    /// What the next connection is to be made with: it belongs to one of the gateways.
    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.contexts[self.next.fetch_add(1, SeqCst) % self.contexts.len()]
    }
}

impl Drop for Gateways {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        for context in &self.contexts {
            context.post.wake();
        }
        join(&mut self.threads);
        // What is still there, the ends of connections, is done before.
        self.workers.end();
    }
}

/// A gateway without workers, for connections that no server has. Dropping it ends its thread, which nobody waits for.
#[derive(Debug)]
pub(crate) struct LoneGateway {
    context: Arc<Context>,
    stop: Arc<AtomicBool>,
}

impl LoneGateway {
    /// Starts the thread.
    pub(crate) fn start(context: impl FnOnce(Arc<Post<Connection>>) -> Context) -> io::Result<Self> {
        let mut reactor = Reactor::new(context, Dispatcher::default())?;
        let this = Self { context: reactor.context().clone(), stop: Arc::default() };
        let stop = this.stop.clone();
        let run = move || {
            forbid_waiting();
            reactor.run(&stop, None);
        };
        let _nobodys = Belonging::to_none(); // whichever server's thread this is
        spawn("switchboard-gate", STACK, run)?;
        Ok(this)
    }

    pub(crate) fn context(&self) -> &Arc<Context> {
        &self.context
    }
}

impl Drop for LoneGateway {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        self.context.post.wake();
    }
}

/// Waits for the end of these threads.
fn join(threads: &mut Vec<JoinHandle<()>>) {
    for thread in threads.drain(..) {
        if thread.join().is_err() {
            log::error!("a thread of the gateway panicked");
        }
    }
}

//! The threads of the connections: one for each socket. A thread whose connection has ended waits a while for another.
//!
//! The accepting threads [hand over](Threads::hand_over) their sockets, to a thread that waits or else to a new one; the
//! thread that called `run` joins those that have ended. Nothing here accepts.

use std::{
    collections::HashMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle, Thread},
};

use super::{
    serve::{Job, serve},
    shared::Shared,
};
use crate::{
    deadline::Budget,
    gateway::Gateways,
    sync::LockExt,
    thread::{spawn, spawn_again},
};

/// As many threads as there are sockets, and those that wait for another one. Every thread is joined.
#[derive(Debug)]
pub(super) struct Threads {
    shared: Arc<Shared>,
    gateways: Gateways,
    idle: Mutex<IdleThreads>,
    handles: Mutex<Handles>,
}

#[derive(Debug, Default)]
struct IdleThreads {
    /// The last one that began to wait is the first to get a socket: its stack is still in the caches, and the others can
    /// end.
    stack: Vec<IdleThread>,
    closed: bool,
}

/// A thread that waits for a socket, or is about to. It stands in the stack until it is taken by an accepting thread or
/// takes itself out, and whoever takes it decides what it does next: so no socket can be given to a thread that has ended.
///
/// Dropping this wakes it; it ends if it was given nothing.
#[derive(Debug)]
struct IdleThread {
    thread: Thread,
    /// `None`: it has been given something. It may have taken that already, so this must not be asked of `Next`.
    next: Option<Arc<Mutex<Next>>>,
}

/// What a connection's thread does next. No channel: those of crossbeam spin before they sleep, and the thread that accepts
/// is kept waiting by that, which was 4 to 8 % of a handshake.
#[derive(Debug, Default)]
enum Next {
    #[default]
    Wait,
    Serve(Job),
    End,
}

impl IdleThread {
    fn give(mut self, job: Job) {
        if let Some(next) = self.next.take() {
            *next.locked() = Next::Serve(job);
        }
    }
}

impl Drop for IdleThread {
    fn drop(&mut self) {
        if let Some(next) = &self.next {
            *next.locked() = Next::End;
        }
        self.thread.unpark();
    }
}

#[derive(Debug, Default)]
struct Handles {
    next_id: u64,
    running: HashMap<u64, JoinHandle<()>>,
    /// So many have been running at the same time.
    most: usize,
    ended: Vec<JoinHandle<()>>,
}

/// A socket that no thread serves.
#[derive(Debug)]
pub(super) struct Unserved {
    /// What the system says. `None`: the server has as many as there is room for.
    pub(super) error: Option<io::Error>,
    pub(super) job: Option<Job>,
}

impl Threads {
    pub(super) fn new(shared: Arc<Shared>, gateways: Gateways) -> Arc<Self> {
        let threads = Arc::new(Self { shared, gateways, idle: Mutex::default(), handles: Mutex::default() });
        #[cfg(feature = "manage")]
        threads.answer_asked();
        threads
    }

    /// Whoever asks whether there is a thread for one more connection is told.
    #[cfg(feature = "manage")]
    fn answer_asked(self: &Arc<Self>) {
        let threads = Arc::downgrade(self);
        self.shared.ask_for_thread(move || threads.upgrade().is_none_or(|threads| threads.has_one()));
    }

    /// Gives a socket to a thread that waits for one, or else to a new one.
    ///
    /// # Errors
    /// There is no memory for it, or no thread waits and none can be started. The socket comes back.
    pub(super) fn hand_over(self: &Arc<Self>, job: Job) -> Result<(), Unserved> {
        if !self.shared.has_room() {
            return Err(Unserved { error: None, job: Some(job) });
        }
        match self.take_idle() {
            Some(thread) => thread.give(job),
            None if !self.may_start() => return Err(Unserved { error: None, job: Some(job) }),
            None => self.start(job)?,
        }
        Ok(())
    }

    /// Whether the box has room for one more thread. A connection that waits for its next request ends for it: its own is free in a
    /// moment, and may be one too many until then.
    fn may_start(&self) -> bool {
        let most = self.shared.room.threads();
        let running = self.handles.locked().running.len();
        running < most || running <= most + most / 4 && self.shared.idle.give_up_oldest().is_some()
    }

    #[cfg(feature = "manage")]
    fn has_one(&self) -> bool {
        if !self.idle.locked().stack.is_empty() || !self.shared.idle.is_empty() {
            return true;
        }
        let running = self.handles.locked().running.len();
        // Others may have taken what was left of the system's.
        let can_start =
            || spawn_again("switchboard-try", self.shared.limits.stack_size, || ()).map(JoinHandle::join);
        running < self.shared.room.threads() && can_start().is_ok()
    }

    /// A function, so that the lock is free again when the thread is woken.
    fn take_idle(&self) -> Option<IdleThread> {
        self.idle.locked().stack.pop()
    }

    fn start(self: &Arc<Self>, job: Job) -> Result<(), Unserved> {
        // What a thread owns that could not be started is lost; the job is not.
        let next = Arc::new(Mutex::new(Next::Serve(job)));
        let (threads, of_thread) = (self.clone(), next.clone());
        let mut handles = self.handles.locked();
        let id = handles.next_id;
        let run = move || threads.run(id, &of_thread);
        let (name, stack_size) = ("switchboard-conn", self.shared.limits.stack_size);
        let started = match handles.running.len() < handles.most {
            true => spawn_again(name, stack_size, run),
            false => spawn(name, stack_size, run),
        };
        match started {
            Ok(handle) => {
                handles.next_id += 1;
                handles.running.insert(id, handle);
                handles.most = handles.most.max(handles.running.len());
                Ok(())
            }
            Err(e) => {
                let job = match std::mem::take(&mut *next.locked()) {
                    Next::Serve(job) => Some(job),
                    Next::Wait | Next::End => None,
                };
                Err(Unserved { error: Some(e), job })
            }
        }
    }

    /// A connection's thread, which has its first socket already.
    fn run(&self, id: u64, next: &Arc<Mutex<Next>>) {
        let _ending = Ending { threads: self, id };
        while let Some(job) = self.wait(next) {
            let context = self.gateways.context();
            if catch_unwind(AssertUnwindSafe(|| serve(&self.shared, context, job))).is_err() {
                log::error!("a connection's thread panicked");
            }
            if !self.offer(next) {
                break;
            }
        }
    }

    /// Offers this thread for another socket. False: it has to end.
    fn offer(&self, next: &Arc<Mutex<Next>>) -> bool {
        if self.shared.limits.thread_keep_alive.is_zero() {
            return false;
        }
        let mut idle = self.idle.locked();
        if !idle.closed {
            idle.stack.push(IdleThread { thread: thread::current(), next: Some(next.clone()) });
        }
        !idle.closed
    }

    /// Waits for the next socket. `None`: this thread has to end.
    #[inline(never)] // its stack shall not lie beneath that of a connection
    fn wait(&self, next: &Arc<Mutex<Next>>) -> Option<Box<Job>> {
        let mut keep_alive = Budget::new(self.shared.limits.thread_keep_alive);
        loop {
            match std::mem::take(&mut *next.locked()) {
                // Boxed, because it is moved through several calls, and their stacks stay resident.
                Next::Serve(job) => return Some(Box::new(job)),
                Next::End => return None,
                Next::Wait => {}
            }
            match keep_alive.remaining() {
                Some(left) => thread::park_timeout(left),
                None if self.withdraw(next) => return None,
                // An accepting thread took it out of the stack just now: its socket is on the way.
                None => thread::park(),
            }
        }
    }

    /// Takes this thread out of those that wait. False: it has been taken out.
    fn withdraw(&self, next: &Arc<Mutex<Next>>) -> bool {
        let mut idle = self.idle.locked();
        // Those that have waited longest are at the bottom.
        let is_this =
            |thread: &IdleThread| thread.next.as_ref().is_some_and(|other| Arc::ptr_eq(other, next));
        let place = idle.stack.iter().position(is_this);
        place.map(|place| idle.stack.remove(place)).is_some()
    }

    /// Joins the threads that have ended. True: there are no others.
    pub(super) fn join_ended(&self) -> bool {
        let mut handles = self.handles.locked();
        let ended = std::mem::take(&mut handles.ended);
        let none_runs = handles.running.is_empty();
        drop(handles);
        for handle in ended {
            // It fails if a logger panicked, which has been told on standard error.
            let _ = handle.join();
        }
        none_runs
    }

    /// No more sockets come: threads that wait end at once, the others with their connection.
    pub(super) fn close(&self) {
        let mut idle = self.idle.locked();
        idle.closed = true;
        idle.stack.clear();
    }
}

/// Dropped as the last thing on a thread, however it ends: has it joined.
struct Ending<'a> {
    threads: &'a Threads,
    id: u64,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut handles = self.threads.handles.locked();
        if let Some(handle) = handles.running.remove(&self.id) {
            handles.ended.push(handle);
        }
        drop(handles);
        self.threads.shared.supervisor.wake();
    }
}

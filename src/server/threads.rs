//! The threads of the connections. Each waits for a client, serves it, and waits for the next: so none has to wake another
//! for a client. One at least always waits; another is started when none would, and they are kept for a while.

use std::{
    collections::HashMap,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use super::{
    Job, Shared,
    acceptor::{Acceptor, Client},
    serve::serve,
};
use crate::{deadline::Deadline, gateway::Gateways, sync::LockExt, thread::spawn};

/// A pool that grows with its clients and shrinks when they leave. Every thread of it is joined.
#[derive(Debug)]
pub(super) struct Threads {
    shared: Arc<Shared>,
    acceptor: Acceptor,
    gateways: Gateways,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Threads that wait for a client, or are about to.
    waiting: usize,
    closed: bool,
    /// Why no more clients can be accepted.
    failure: Option<io::Error>,
    next: u64,
    running: HashMap<u64, JoinHandle<()>>,
    ended: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts the first thread.
    pub(super) fn start(
        shared: Arc<Shared>,
        acceptor: Acceptor,
        gateways: Gateways,
    ) -> io::Result<Arc<Self>> {
        let threads = Arc::new(Self { shared, acceptor, gateways, state: Mutex::default() });
        threads.add(&mut threads.state.locked())?;
        Ok(threads)
    }

    /// Starts a thread that waits.
    fn add(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let (threads, key) = (self.clone(), state.next);
        let handle = spawn("switchboard-conn", self.shared.limits.stack_size, move || threads.run(key))?;
        state.next += 1;
        state.waiting += 1;
        state.running.insert(key, handle);
        Ok(())
    }

    fn run(self: &Arc<Self>, key: u64) {
        let ran = catch_unwind(AssertUnwindSafe(|| {
            while let Some(client) = self.wait() {
                let Some(job) = self.admit(client) else { continue };
                let context = self.gateways.context();
                if catch_unwind(AssertUnwindSafe(|| serve(&self.shared, context, job))).is_err() {
                    log::error!("a connection's thread panicked");
                }
                self.state.locked().waiting += 1;
            }
        }));
        let mut state = self.state.locked();
        if ran.is_err() {
            // There is no user code but a logger.
            state.failure = Some(io::Error::other("a thread that accepts panicked"));
        }
        if let Some(handle) = state.running.remove(&key) {
            state.ended.push(handle);
        }
        drop(state);
        self.shared.bell.ring();
    }

    /// The next client. `None`: this thread does not wait any more, and has to end.
    #[inline(never)] // its stack shall not lie beneath that of a connection
    fn wait(&self) -> Option<Client> {
        let deadline = Deadline::after(self.shared.limits.thread_keep_alive);
        loop {
            let is_last = self.state.locked().waiting == 1;
            let left = deadline.remaining().unwrap_or_default();
            let accepted = self.acceptor.accept((!is_last).then_some(left));
            let mut state = self.state.locked();
            match accepted {
                // Whoever was accepted is answered, also at the end.
                Ok(Some(client)) => return Some(client),
                _ if state.closed => {}
                Ok(None) if state.waiting == 1 || !deadline.is_over() => continue,
                Ok(None) => {}
                Err(e) => state.failure = Some(e),
            }
            state.waiting -= 1;
            return None;
        }
    }

    /// Makes this thread the client's, if there is a place for it and another thread to wait for the next.
    #[inline(never)]
    fn admit(self: &Arc<Self>, client: Client) -> Option<Box<Job>> {
        let Some(slot) = self.shared.take_slot() else {
            self.reject(client);
            return None;
        };
        let mut state = self.state.locked();
        if state.waiting == 1
            && let Err(e) = self.add(&mut state)
        {
            drop((state, slot));
            self.reject(client);
            self.acceptor.rest(&e.to_string());
            return None;
        }
        state.waiting -= 1;
        let Client { socket, peer, security } = client;
        // Boxed, because it is moved through several calls, and their stacks stay resident.
        Some(Box::new(Job { socket, peer, security, slot }))
    }

    fn reject(&self, client: Client) {
        self.acceptor.reject(client);
        self.shared.bell.ring(); // whoever listens has to close it in time
    }

    /// What is to be done now and then. Returns when it has to be done again, at the latest.
    ///
    /// # Errors
    /// Why no more clients can be accepted.
    pub(super) fn tidy(&self) -> io::Result<Option<Duration>> {
        self.reap();
        match self.state.locked().failure.take() {
            Some(e) => Err(e),
            None => Ok(self.drop_rejected()),
        }
    }

    /// Closes the sockets of rejected clients that have had their time. Returns when the next ones will have.
    pub(super) fn drop_rejected(&self) -> Option<Duration> {
        self.acceptor.drop_rejected()
    }

    /// Joins the threads that have ended. True: there are no others.
    pub(super) fn reap(&self) -> bool {
        let mut state = self.state.locked();
        let ended = std::mem::take(&mut state.ended);
        let none_runs = state.running.is_empty();
        drop(state);
        for handle in ended {
            // It cannot fail: the thread catches its panics.
            let _ = handle.join();
        }
        none_runs
    }

    /// No more clients: threads that wait end at once, the others with their connection.
    pub(super) fn close(&self) {
        self.state.locked().closed = true;
        self.acceptor.close();
    }
}

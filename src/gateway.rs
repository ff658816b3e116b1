//! The gateway: one thread that watches over what no connection's own thread can.
//!
//! Connections call it ([`Caller`]). It sends what a socket did not take at once, sends collected output within a
//! millisecond whatever the handler does next, and cuts a closing handshake that takes too long. It never waits for
//! one peer, and asleep it costs nothing.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    io,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam_channel::Receiver;
use mio::{Events, Interest, Poll, Token, Waker, unix::SourceFd};
use rustix::fd::AsRawFd;

use crate::connection::{Caller, Connection, Socket};

/// Collected output is sent this often.
const TICK: Duration = Duration::from_millis(1);

/// A connection that collected nothing for so many ticks is looked after no more.
const QUIET_TICKS: u8 = 16;

const WAKER: Token = Token(usize::MAX);

/// The running gateway. Dropping it ends its thread.
#[derive(Debug)]
pub(crate) struct Gateway {
    caller: Arc<Caller>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Gateway {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        let poll = Poll::new()?;
        let (calls, called) = crossbeam_channel::unbounded();
        let caller = Arc::new(Caller::new(calls, Waker::new(poll.registry(), WAKER)?));
        let stop = Arc::new(AtomicBool::new(false));
        let mut state = State {
            poll,
            called,
            caller: caller.clone(),
            watched: HashMap::new(),
            next_token: 0,
            collecting: Vec::new(),
            deadlines: BinaryHeap::new(),
        };
        let stopped = stop.clone();
        let thread = std::thread::Builder::new()
            .name("switchboard-gateway".into())
            .stack_size(256 * 1024)
            .spawn(move || state.run(&stopped))?;
        Ok(Self { caller, stop, thread: Some(thread) })
    }

    /// How connections call it.
    pub(crate) fn caller(&self) -> &Arc<Caller> {
        &self.caller
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        self.caller.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the gateway panicked");
        }
    }
}

struct State {
    poll: Poll,
    called: Receiver<Arc<Connection>>,
    caller: Arc<Caller>,
    /// Connections whose socket did not take all, until it does.
    watched: HashMap<Token, (Arc<Connection>, Arc<Socket>)>,
    next_token: usize,
    /// Connections that collect output, and for how many ticks they did not.
    collecting: Vec<(Arc<Connection>, u8)>,
    /// When connections have to be cut.
    deadlines: BinaryHeap<Reverse<Due>>,
}

struct Due(Instant, Weak<Connection>);

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Due {}

impl State {
    fn run(&mut self, stop: &AtomicBool) {
        let mut events = Events::with_capacity(256);
        while !stop.load(SeqCst) {
            match self.poll.poll(&mut events, self.sleep()) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => {
                    log::error!("the gateway cannot poll: {e}");
                    std::thread::sleep(Duration::from_millis(100)); // rather slow than spinning
                }
                _ => {}
            }
            while let Ok(connection) = self.called.try_recv() {
                self.attend(connection);
            }
            for event in &events {
                self.writable(event.token());
            }
            self.send_collected();
            self.cut_overdue();
        }
    }

    /// How long nothing has to be done unless somebody calls.
    fn sleep(&self) -> Option<Duration> {
        if !self.collecting.is_empty() {
            return Some(TICK);
        }
        self.deadlines.peek().map(|Reverse(due)| due.0.saturating_duration_since(Instant::now()))
    }

    fn attend(&mut self, connection: Arc<Connection>) {
        let wants = connection.attend();
        if wants.is_over {
            return;
        }
        if let Some(close_by) = wants.close_by {
            self.deadlines.push(Reverse(Due(close_by, Arc::downgrade(&connection))));
        }
        if wants.collected {
            self.collecting.push((connection.clone(), 0));
            self.caller.set_awake(true);
        }
        if let Some(socket) = wants.blocked {
            self.watch(connection, socket);
        }
    }

    fn watch(&mut self, connection: Arc<Connection>, socket: Arc<Socket>) {
        let token = Token(self.next_token);
        self.next_token += 1;
        match self.poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::WRITABLE) {
            Ok(()) => {
                self.watched.insert(token, (connection, socket));
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => {
                log::error!("{}: cannot watch the socket: {e}", connection.id());
                connection.cut();
            }
        }
    }

    fn writable(&mut self, token: Token) {
        let Some((connection, _)) = self.watched.get(&token) else { return };
        if !connection.send_rest()
            && let Some((_, socket)) = self.watched.remove(&token)
        {
            // It fails only where the socket is gone from the poll already.
            let _ = self.poll.registry().deregister(&mut SourceFd(&socket.as_raw_fd()));
        }
    }

    fn send_collected(&mut self) {
        let mut blocked = Vec::new();
        self.collecting.retain_mut(|(connection, quiet)| {
            if !connection.is_collected() {
                *quiet += 1;
                if *quiet < QUIET_TICKS {
                    return true;
                }
                connection.set_attended(false);
                // It may have collected between the two lines above, believing that it is looked after.
                return connection.is_collected() && {
                    connection.set_attended(true);
                    true
                };
            }
            *quiet = 0;
            if connection.send_rest() {
                blocked.push(connection.clone());
            }
            true
        });
        for connection in blocked {
            self.attend(connection);
        }
        if self.collecting.is_empty() {
            self.caller.set_awake(false);
            // Who called in between relied on it.
            while let Ok(connection) = self.called.try_recv() {
                self.attend(connection);
            }
        }
    }

    fn cut_overdue(&mut self) {
        let now = Instant::now();
        while self.deadlines.peek().is_some_and(|Reverse(due)| due.0 <= now) {
            if let Some(connection) = self.deadlines.pop().and_then(|Reverse(due)| due.1.upgrade()) {
                connection.cut();
            }
        }
    }
}

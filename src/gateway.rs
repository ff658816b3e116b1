//! The gateway: a thread, or a few, for what no connection's own thread can do.
//!
//! It drives the sockets of shared connections, sends what a socket did not take at once, sends collected output within a
//! millisecond whatever the handler does next, and keeps the times: closing handshakes, keepalive, idle connections,
//! busy handlers. It never waits for one peer. With nothing to do it wakes once a second.
//!
//! A connection that collects output calls the gateway once, and is then looked at every millisecond until it has collected
//! nothing for some of these looks: a call for each burst of answers would be a system call more for each.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, unbounded};
use mio::{Events, Interest, Poll, Token, Waker, unix::SourceFd};
use rustix::fd::AsRawFd;

use crate::{
    connection::{Caller, Connection, Driven, Socket, Tick},
    jobs::Jobs,
    limits::Limits,
    sync::{Clock, spawn},
};

/// Collected output is sent this often.
const FLUSH: Duration = Duration::from_millis(1);

/// While the gateway is busy it looks at most so often for collected output.
const PAUSE: Duration = Duration::from_micros(250);

/// A connection that collected nothing for so many looks is looked after no more.
const QUIET: u8 = 4;

/// How often all connections are looked at, unless a limit is shorter.
const TICK: Duration = Duration::from_secs(1);

/// Received at a time, for all connections of a gateway together.
const SCRATCH: usize = 64 * 1024;

const STACK: usize = 256 * 1024;

const WAKER: Token = Token(usize::MAX);

/// The gateway threads and their workers. Dropping it ends them all.
#[derive(Debug)]
pub(crate) struct Gateways {
    callers: Vec<Arc<Caller>>,
    next: AtomicUsize,
    stop: Arc<AtomicBool>,
    jobs: Option<Arc<Jobs<Arc<Connection>>>>,
    gateways: Vec<JoinHandle<()>>,
    workers: Vec<JoinHandle<()>>,
}

impl Gateways {
    /// Starts the threads.
    pub(crate) fn start(limits: &Limits, clock: &Arc<Clock>) -> io::Result<Self> {
        let mut all = Self {
            callers: Vec::new(),
            next: AtomicUsize::new(0),
            stop: Arc::default(),
            jobs: (limits.workers > 0).then(Arc::default),
            gateways: Vec::new(),
            workers: Vec::new(),
        };
        for _ in 0..limits.gateways.max(1) {
            let mut gateway = Gateway::new(limits, clock.clone(), all.jobs.clone())?;
            all.callers.push(gateway.caller.clone());
            let stop = all.stop.clone();
            let stack_size = STACK.max(limits.stack_size);
            all.gateways.push(spawn("switchboard-gate", stack_size, move || gateway.run(&stop))?);
        }
        for jobs in std::iter::repeat_n(&all.jobs, limits.workers).flatten() {
            let jobs = jobs.clone();
            all.workers.push(spawn("switchboard-work", limits.stack_size, move || work(&jobs))?);
        }
        Ok(all)
    }

    /// The gateway for the next connection.
    pub(crate) fn caller(&self) -> &Arc<Caller> {
        &self.callers[self.next.fetch_add(1, SeqCst) % self.callers.len()]
    }
}

impl Drop for Gateways {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        for caller in &self.callers {
            caller.wake();
        }
        join(&mut self.gateways);
        // What is still there, the ends of connections, is done before.
        if let Some(jobs) = &self.jobs {
            jobs.close();
        }
        join(&mut self.workers);
    }
}

fn join(threads: &mut Vec<JoinHandle<()>>) {
    for thread in threads.drain(..) {
        if thread.join().is_err() {
            log::error!("a thread of the gateway panicked");
        }
    }
}

fn work(jobs: &Jobs<Arc<Connection>>) {
    while let Some(connection) = jobs.take() {
        connection.work();
    }
}

struct Gateway {
    poll: Poll,
    called: Receiver<Arc<Connection>>,
    caller: Arc<Caller>,
    clock: Arc<Clock>,
    tick: Duration,
    /// All connections of this gateway that are not over.
    all: Vec<Arc<Connection>>,
    sockets: Sockets,
    /// Shared connections with more to receive than their turn allowed.
    ready: Vec<Token>,
    /// Connections that collect output, and for how many looks they did not; and when the last look was.
    collecting: Vec<(Arc<Connection>, u8)>,
    last_look: Instant,
    /// When connections have to be cut.
    deadlines: BinaryHeap<Reverse<Due>>,
    scratch: Vec<u8>,
}

/// The sockets that are watched, by token.
#[derive(Default)]
struct Sockets {
    entries: Vec<Option<Entry>>,
    free: Vec<usize>,
}

struct Entry {
    connection: Arc<Connection>,
    /// Kept open as long as the poll knows it.
    socket: Arc<Socket>,
}

struct Due(Instant, Weak<Connection>);

impl Due {
    /// When the connection has to be cut, once it is closing. Says so once.
    fn of(connection: &Arc<Connection>) -> Option<Reverse<Self>> {
        let by = connection.take_deadline()?;
        Some(Reverse(Self(by, Arc::downgrade(connection))))
    }
}

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

impl Gateway {
    fn new(limits: &Limits, clock: Arc<Clock>, jobs: Option<Arc<Jobs<Arc<Connection>>>>) -> io::Result<Self> {
        let poll = Poll::new()?;
        let (calls, called) = unbounded();
        let caller = Arc::new(Caller::new(calls, Waker::new(poll.registry(), WAKER)?, jobs));
        let shortest = [limits.ping_interval, Some(limits.ping_timeout), limits.shared_idle_timeout];
        let shortest = shortest.into_iter().flatten().chain([limits.write_timeout]).min().unwrap_or(TICK);
        Ok(Self {
            poll,
            called,
            caller,
            clock,
            tick: (shortest / 4).clamp(Duration::from_millis(10), TICK),
            all: Vec::new(),
            sockets: Sockets::default(),
            ready: Vec::new(),
            collecting: Vec::new(),
            last_look: Instant::now(),
            deadlines: BinaryHeap::new(),
            scratch: Vec::with_capacity(SCRATCH),
        })
    }

    fn run(&mut self, stop: &AtomicBool) {
        let mut events = Events::with_capacity(256);
        let mut next_tick = Instant::now() + self.tick;
        while !stop.load(SeqCst) {
            match self.poll.poll(&mut events, Some(self.sleep(next_tick))) {
                Err(e) if e.kind() != io::ErrorKind::Interrupted => {
                    log::error!("the gateway cannot poll: {e}");
                    std::thread::sleep(Duration::from_millis(100)); // rather slow than spinning
                }
                _ => {}
            }
            self.clock.update();
            self.take_calls();
            for token in std::mem::take(&mut self.ready) {
                self.drive(token, false);
            }
            for event in &events {
                self.event(event);
            }
            self.flush_collected();
            self.cut_overdue();
            if Instant::now() >= next_tick {
                self.tick_all();
                next_tick = Instant::now() + self.tick;
            }
            self.caller.wake_workers();
        }
        // The ends of connections that nobody else will see.
        self.take_calls();
    }

    /// How long nothing has to be done unless somebody calls.
    fn sleep(&self, next_tick: Instant) -> Duration {
        if !self.ready.is_empty() {
            return Duration::ZERO;
        }
        let mut sleep = next_tick.saturating_duration_since(Instant::now());
        if !self.collecting.is_empty() {
            sleep = sleep.min(FLUSH);
        }
        if let Some(Reverse(due)) = self.deadlines.peek() {
            sleep = sleep.min(due.0.saturating_duration_since(Instant::now()));
        }
        sleep
    }

    fn take_calls(&mut self) {
        while let Ok(connection) = self.called.try_recv() {
            self.attend(connection);
        }
    }

    fn attend(&mut self, connection: Arc<Connection>) {
        if connection.is_new() {
            self.all.push(connection.clone());
        }
        let wants = connection.attend();
        self.look_after(&connection);
        let Some(socket) = wants.socket else {
            // Over: the handler of a shared one may not know.
            return connection.resume_handler();
        };
        self.deadlines.extend(Due::of(&connection));
        if connection.about().shared {
            if let Some(token) = connection.token().or_else(|| self.watch(&connection, &socket, true)) {
                self.drive(token, false);
            }
        } else if wants.blocked && connection.token().is_none() {
            self.watch(&connection, &socket, false);
        }
    }

    /// Takes a connection that collects output among those that are looked at every millisecond.
    fn look_after(&mut self, connection: &Arc<Connection>) {
        if connection.starts_collecting() {
            self.collecting.push((connection.clone(), 0));
            self.caller.set_awake(true);
        }
    }

    fn watch(&mut self, connection: &Arc<Connection>, socket: &Arc<Socket>, drive: bool) -> Option<Token> {
        let token = self.sockets.insert(Entry { connection: connection.clone(), socket: socket.clone() });
        let interest = if drive { Interest::READABLE | Interest::WRITABLE } else { Interest::WRITABLE };
        connection.set_token(Some(token));
        if let Err(e) = self.poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), token, interest) {
            log::error!("{}: cannot watch the socket: {e}", connection.id());
            self.forget(token);
            connection.cut();
            if drive {
                connection.finish();
                connection.resume_handler();
            }
            return None;
        }
        Some(token)
    }

    fn forget(&mut self, token: Token) {
        if let Some(entry) = self.sockets.remove(token) {
            entry.connection.set_token(None);
            // It fails only where the poll does not know it.
            let _ = self.poll.registry().deregister(&mut SourceFd(&entry.socket.as_raw_fd()));
        }
    }

    fn event(&mut self, event: &mio::event::Event) {
        if event.token() == WAKER {
            return;
        }
        let Some(Entry { connection, .. }) = self.sockets.get(event.token()) else { return };
        if connection.about().shared {
            self.drive(event.token(), event.is_read_closed() || event.is_error());
        } else if !(event.is_writable() && connection.send_rest()) {
            self.forget(event.token());
        }
    }

    fn drive(&mut self, token: Token, ended: bool) {
        let Some(Entry { connection, socket }) = self.sockets.get(token) else { return };
        match connection.drive(socket, &mut self.scratch, ended, &self.caller) {
            Driven::Waiting => {}
            Driven::More => self.ready.push(token),
            Driven::Over => {
                let connection = connection.clone();
                return self.end(token, &connection);
            }
        }
        self.deadlines.extend(Due::of(connection));
    }

    /// The last step of a shared connection.
    fn end(&mut self, token: Token, connection: &Arc<Connection>) {
        self.forget(token);
        connection.finish();
        connection.resume_handler();
    }

    fn flush_collected(&mut self) {
        if self.collecting.is_empty() || self.last_look.elapsed() < PAUSE {
            return;
        }
        self.last_look = Instant::now();
        let mut blocked = Vec::new();
        self.collecting.retain_mut(|(connection, quiet)| {
            if connection.has_collected() {
                *quiet = 0;
                if connection.send_rest() {
                    blocked.push(connection.clone());
                }
                return true;
            }
            *quiet += 1;
            *quiet < QUIET || !connection.stops_collecting()
        });
        for connection in blocked {
            self.attend(connection);
        }
        if self.collecting.is_empty() {
            self.caller.set_awake(false);
            // Who called in between relied on it.
            self.take_calls();
        }
    }

    fn cut_overdue(&mut self) {
        let now = Instant::now();
        while self.deadlines.peek().is_some_and(|Reverse(due)| due.0 <= now) {
            if let Some(connection) = self.deadlines.pop().and_then(|Reverse(due)| due.1.upgrade()) {
                // The thread of a synchronous one sees its socket's end, and takes the last step.
                connection.cut();
                if let Some(token) = connection.token().filter(|_| connection.about().shared) {
                    self.end(token, &connection);
                }
            }
        }
    }

    fn tick_all(&mut self) {
        let mut blocked = Vec::new();
        self.all.retain(|connection| match connection.tick() {
            Tick::Over => false,
            Tick::Fine => true,
            Tick::Blocked => {
                blocked.push(connection.clone());
                true
            }
        });
        for connection in blocked {
            self.attend(connection);
        }
    }
}

impl Sockets {
    fn insert(&mut self, entry: Entry) -> Token {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        self.entries[index] = Some(entry);
        Token(index)
    }

    fn get(&self, token: Token) -> Option<&Entry> {
        self.entries.get(token.0)?.as_ref()
    }

    fn remove(&mut self, token: Token) -> Option<Entry> {
        let entry = self.entries.get_mut(token.0)?.take()?;
        self.free.push(token.0);
        Some(entry)
    }
}

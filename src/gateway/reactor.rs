//! The gateway's loop: mail, sockets and deadlines.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use crossbeam_channel::{Receiver, unbounded};
use mio::{Events, Interest, Poll, Token, Waker, event::Event};

use super::{
    deadlines::Deadlines,
    entries::{Entries, Key},
    flushing::{self, Flushing},
    slice::Slice,
    turn::{Turn, dispatch, turn},
    watching::Watching,
    workers::Dispatcher,
};
use crate::{
    connection::{Connection, Context, Post, Sleep},
    pulse::Beat,
};

/// Received at a time, for all connections of a gateway together.
const SCRATCH: usize = 64 * 1024;

/// Without a message for so long, a shared connection gives back its buffers: it may be silent for long.
const QUIET: Duration = Duration::from_secs(1);

const WAKER: Token = Token(usize::MAX);

#[derive(Debug)]
pub(super) struct Reactor {
    poll: Poll,
    /// Connections that are to be looked at.
    mail: Receiver<Arc<Connection>>,
    /// Dropped last, so that nobody wakes a poll that is gone.
    _waker: Arc<Waker>,
    context: Arc<Context>,
    workers: Dispatcher,
    entries: Entries,
    deadlines: Deadlines,
    /// Shared connections with more to receive than their turn allowed, each once. They go on in order, behind all others.
    ready: VecDeque<Key>,
    /// Connections with threads of their own that somebody had the core or the inbox of: to be looked at soon.
    later: Vec<Arc<Connection>>,
    flushing: Flushing,
    watching: Watching,
    scratch: Vec<u8>,
}

impl Reactor {
    /// `context` makes what its connections share, with the way to reach it.
    pub(super) fn new(
        context: impl FnOnce(Arc<Post<Connection>>) -> Context,
        workers: Dispatcher,
    ) -> io::Result<Self> {
        let poll = Poll::new()?;
        let (sender, mail) = unbounded();
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        // Handles of connections may outlive the server, and keep no descriptor of it.
        let weak = Arc::downgrade(&waker);
        let wake = move || {
            if let Some(Err(e)) = weak.upgrade().map(|waker| waker.wake())
                && e.kind() != io::ErrorKind::WouldBlock
            {
                log::error!("cannot wake the gateway: {e}");
            }
        };
        let context = Arc::new(context(Arc::new(Post::new(sender, wake))));
        Ok(Self {
            poll,
            mail,
            _waker: waker,
            watching: Watching::new(&context.limits),
            context,
            workers,
            entries: Entries::default(),
            deadlines: Deadlines::default(),
            ready: VecDeque::new(),
            later: Vec::new(),
            flushing: Flushing::new(),
            scratch: Vec::with_capacity(SCRATCH),
        })
    }

    pub(super) fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// `beat`: by which somebody asks whether it goes on.
    pub(super) fn run(&mut self, stop: &AtomicBool, beat: Option<&Beat>) {
        let mut events = Events::with_capacity(256);
        while !stop.load(SeqCst) {
            self.wait(&mut events);
            beat.into_iter().for_each(Beat::come_by);
            self.context.relieve();
            self.read_mail();
            for event in &events {
                self.on_event(event);
            }
            self.workers.wake();
            self.flushing.flush();
            self.look_again();
            // What can take longer has its slice, before the gateway looks for what has come in the meantime.
            self.watching.look(&self.context.clock);
            self.handle_timeouts();
            self.go_on();
        }
        // The ends of connections that nobody else will see.
        self.read_mail();
        self.workers.wake();
    }

    /// Sleeps until there is something to do.
    fn wait(&mut self, events: &mut Events) {
        let timeout = self.timeout();
        self.context.post.sleep(match timeout {
            None => Sleep::Long,
            Some(Duration::ZERO) => Sleep::Awake,
            Some(timeout) if timeout <= flushing::INTERVAL => Sleep::Nap,
            Some(timeout) if timeout <= self.watching.longest_tick() => Sleep::Tick,
            Some(_) => Sleep::Long,
        });
        // After having said so, or somebody might rely on our being awake.
        let timeout = if self.mail.is_empty() { timeout } else { Some(Duration::ZERO) };
        let polled = self.poll.poll(events, timeout);
        self.context.post.rise();
        if let Err(e) = polled
            && e.kind() != io::ErrorKind::Interrupted
        {
            log::error!("the gateway cannot poll: {e}");
            std::thread::sleep(Duration::from_millis(100)); // rather slow than spinning
        }
    }

    /// How long there is nothing to do, unless somebody wakes us.
    fn timeout(&self) -> Option<Duration> {
        if !self.ready.is_empty() || self.watching.is_looking() {
            return Some(Duration::ZERO);
        }
        let due = self.deadlines.next().into_iter().chain(self.watching.next()).min();
        let due = due.map(|due| due.since(self.context.clock.exact()));
        let naps = !self.flushing.is_empty() || !self.later.is_empty();
        let flush = naps.then_some(flushing::INTERVAL);
        due.into_iter().chain(flush).min()
    }

    /// Looks at the connections that asked for it.
    fn read_mail(&mut self) {
        // Not what comes while it does that.
        for _ in 0..self.mail.len() {
            let Ok(connection) = self.mail.try_recv() else { return };
            connection.take_from_queue();
            if connection.starts_flushing() {
                self.flushing.add(connection.clone());
            }
            if !connection.is_driven() && connection.starts_watching() {
                self.watching.add(connection.clone(), &self.context.clock);
            }
            self.look_at(connection);
        }
    }

    /// Sees what there is to do for a connection.
    fn look_at(&mut self, connection: Arc<Connection>) {
        let was_driven = connection.is_driven();
        match if was_driven { Some(true) } else { connection.take_over() } {
            None => self.later.push(connection),
            Some(false) => self.look_at_threaded(&connection),
            Some(true) => {
                if !was_driven && let Some(key) = self.entries.find(&connection) {
                    self.entries.unwatch(key, self.poll.registry()); // until now only for writing
                }
                self.look_at_shared(connection);
            }
        }
    }

    fn on_event(&mut self, event: &Event) {
        if event.token() == WAKER {
            return;
        }
        let key = Key::from_token(event.token());
        let Some(entry) = self.entries.get_mut(key) else { return };
        if entry.connection.is_driven() {
            entry.end_in_sight |= event.is_read_closed() || event.is_error();
            self.drive(key);
            return;
        }
        // Also where it cannot be written to: then the socket has ended, which sending finds out.
        match entry.connection.try_flush_rest() {
            None => self.later.push(entry.connection.clone()),
            Some(true) => {}
            Some(false) => self.entries.unwatch(key, self.poll.registry()),
        }
    }

    /// The next turns of those whose last one was not enough.
    fn go_on(&mut self) {
        if self.ready.is_empty() {
            return;
        }
        let slice = Slice::new(self.context.clock.exact());
        for _ in 0..self.ready.len() {
            let Some(key) = self.ready.pop_front() else { break };
            if let Some(entry) = self.entries.get_mut(key) {
                entry.is_ready = false;
                self.drive(key);
            }
            if slice.is_over(&self.context.clock) {
                break;
            }
        }
        self.workers.wake();
    }

    fn handle_timeouts(&mut self) {
        let now = self.context.clock.exact();
        let slice = Slice::new(now);
        let mut has_any = false;
        while let Some(key) = self.deadlines.take_due(now, &mut self.entries) {
            has_any = true;
            let Some(entry) = self.entries.get_mut(key) else { continue };
            let connection = entry.connection.clone();
            if connection.is_driven() {
                // What has arrived is read before it is judged late.
                if connection.awaits_input() {
                    self.drive(key);
                }
                connection.handle_timeout(now);
                self.look_at_shared(connection);
                self.park(key);
            } else {
                // Its thread sees to everything else.
                if connection.look().is_some_and(|look| look.needs_gateway()) {
                    connection.handle_timeout(now);
                }
                self.look_at_threaded(&connection);
            }
            if slice.is_over(&self.context.clock) {
                break;
            }
        }
        if has_any {
            self.workers.wake();
        }
    }

    // Shared connections.

    /// Receives what there is, unless the connection is over, and keeps its time.
    fn look_at_shared(&mut self, connection: Arc<Connection>) {
        let key = self.entries.find(&connection);
        let Some(socket) = connection.socket() else {
            return match key {
                Some(key) => self.end(key),
                None => self.finish(&connection),
            };
        };
        let key = key.unwrap_or_else(|| self.entries.find_or_insert(&connection));
        let interest = Interest::READABLE | Interest::WRITABLE;
        if let Err(e) = self.entries.watch(key, self.poll.registry(), &socket, interest) {
            self.cannot_watch(&connection, &e);
            return self.end(key);
        }
        self.drive(key);
        self.deadlines.arm(key, connection.deadline(), &mut self.entries);
        if connection.claims_handler() {
            self.dispatch(&connection);
        }
    }

    /// The system has too little of something for one more socket.
    fn cannot_watch(&self, connection: &Connection, e: &io::Error) {
        let id = connection.id().short();
        self.context.incidents.failed(format_args!("{id}: cannot watch the socket: {e}"));
    }

    /// Has a shared connection give back its buffers, if it has been quiet.
    fn park(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.is_warm) else { return };
        let again = entry.connection.park_if_quiet(QUIET);
        entry.is_warm = again.is_some();
        self.deadlines.arm(key, again, &mut self.entries);
    }

    /// A turn of a shared connection, unless it waits for its next one.
    fn drive(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| !entry.is_ready) else { return };
        let was_warm = entry.is_warm;
        match turn(entry, &mut self.scratch, &self.workers, &mut self.flushing) {
            Turn::Waits => {}
            Turn::More => {
                entry.is_ready = true;
                self.ready.push_back(key);
            }
            Turn::Over => return self.end(key),
        }
        self.context.relieve();
        if entry.is_warm && !was_warm {
            let later = self.context.clock.coarse() + QUIET;
            self.deadlines.arm(key, Some(later), &mut self.entries);
        }
    }

    fn dispatch(&mut self, connection: &Arc<Connection>) {
        dispatch(connection, &self.workers, &mut self.flushing);
    }

    /// The last step of a shared connection that has an entry.
    fn end(&mut self, key: Key) {
        if let Some(connection) = self.forget(key) {
            self.finish(&connection);
        }
    }

    fn finish(&mut self, connection: &Arc<Connection>) {
        connection.finish();
        if connection.claims_handler() {
            self.dispatch(connection);
        }
    }

    fn forget(&mut self, key: Key) -> Option<Arc<Connection>> {
        self.entries.unwatch(key, self.poll.registry());
        self.entries.remove(key)
    }

    // Connections with a thread of their own.

    /// Has output sent that the socket did not take, and sees to an end that others have brought about. A thread that waits in
    /// `read` needs nothing else.
    fn look_at_threaded(&mut self, connection: &Arc<Connection>) {
        let Some(look) = connection.look() else { return self.later.push(connection.clone()) };
        let key = self.entries.find(connection);
        let Some(socket) = look.socket.clone().filter(|_| look.needs_gateway()) else {
            return drop(key.and_then(|key| self.forget(key)));
        };
        let key = key.unwrap_or_else(|| self.entries.find_or_insert(connection));
        if !look.is_blocked {
            self.entries.unwatch(key, self.poll.registry());
        } else if let Err(e) = self.entries.watch(key, self.poll.registry(), &socket, Interest::WRITABLE) {
            self.cannot_watch(connection, &e);
        }
        self.deadlines.arm(key, look.due, &mut self.entries);
    }

    /// Those whose core or inbox somebody had.
    fn look_again(&mut self) {
        for connection in std::mem::take(&mut self.later) {
            if connection.is_blocked() && connection.try_flush_rest().is_none() {
                self.later.push(connection);
            } else {
                self.look_at(connection);
            }
        }
    }
}

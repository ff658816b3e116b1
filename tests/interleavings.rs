//! Tests `mailbox.rs`, `lock.rs`, `awaited.rs` and `groups.rs` in every order that the memory model allows: the source files as they are,
//! but with loom's threads, locks and atomics.
//!
//! If a thread waits for a wake-up that does not come, loom reports a deadlock. With two threads all orders are tried, from
//! a few hundred to a few thousand; with three threads those with at most two or three preemptions, up to 50,000. Each line
//! of `--nocapture` says how many.

#[path = "../src/awaited.rs"]
mod awaited;
#[path = "../src/registry/groups.rs"]
#[allow(dead_code, reason = "not all of it is under test")]
mod groups;
#[path = "../src/connection/lock.rs"]
#[allow(dead_code, reason = "not all of it is under test")]
mod lock;
#[path = "../src/connection/mailbox.rs"]
#[allow(dead_code, reason = "not all of it is under test")]
mod mailbox;

use std::{
    sync::atomic::{AtomicUsize as Counter, Ordering::Relaxed as Counted},
    time::Duration,
};

use loom::thread;

use self::{
    awaited::{Answer, Awaited},
    groups::Groups,
    lock::{Guard, Lock, Owner, lock, try_lock},
    mailbox::{Addressed, Mailbox, Post, Sleep, Within},
    sync::{
        Arc, Condvar, LockExt, Mutex,
        atomic::{
            AtomicUsize,
            Ordering::{AcqRel, Relaxed},
        },
        queue::{Receiver, Sender, unbounded},
    },
};

/// Replaces `src/sync.rs`, with guarantees no stronger than those of the real types. Loom's own locks have an order that all
/// threads see immediately, which would hide missing fences.
mod sync {
    pub(crate) use std::sync::{Arc, PoisonError};
    use std::{
        ops::{Deref, DerefMut},
        time::Duration,
    }; // std's `Arc`, because no test depends on which thread drops it last

    pub(crate) mod atomic {
        pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence};

        /// Loom orders a store after an earlier swap only if the store is a swap, too.
        #[derive(Debug)]
        pub(crate) struct AtomicU8(loom::sync::atomic::AtomicU8);

        impl AtomicU8 {
            pub(crate) fn new(value: u8) -> Self {
                Self(loom::sync::atomic::AtomicU8::new(value))
            }

            pub(crate) fn load(&self, order: Ordering) -> u8 {
                self.0.load(order)
            }

            pub(crate) fn store(&self, value: u8, order: Ordering) {
                let order = if order == Ordering::Relaxed { order } else { Ordering::Release };
                self.0.swap(value, order);
            }

            pub(crate) fn swap(&self, value: u8, order: Ordering) -> u8 {
                self.0.swap(value, order)
            }

            pub(crate) fn fetch_or(&self, bits: u8, order: Ordering) -> u8 {
                self.0.fetch_or(bits, order)
            }

            pub(crate) fn fetch_and(&self, bits: u8, order: Ordering) -> u8 {
                self.0.fetch_and(bits, order)
            }
        }
    }
    use self::atomic::{AtomicBool, Ordering::Relaxed, Ordering::Release};

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T> {
        /// What `try_lock` checks. It may still see the lock as held when it is already free.
        held: AtomicBool,
        value: loom::sync::Mutex<T>,
    }

    pub(crate) struct MutexGuard<'a, T> {
        held: &'a AtomicBool,
        value: Option<loom::sync::MutexGuard<'a, T>>,
    }

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self { held: AtomicBool::new(false), value: loom::sync::Mutex::new(value) }
        }

        fn held<'a>(&'a self, value: loom::sync::MutexGuard<'a, T>) -> MutexGuard<'a, T> {
            self.held.store(true, Relaxed);
            MutexGuard { held: &self.held, value: Some(value) }
        }
    }

    pub(crate) trait LockExt<T> {
        fn locked(&self) -> MutexGuard<'_, T>;
        fn try_locked(&self) -> Option<MutexGuard<'_, T>>;
    }

    impl<T> LockExt<T> for Mutex<T> {
        fn locked(&self) -> MutexGuard<'_, T> {
            self.held(self.value.lock().unwrap())
        }

        fn try_locked(&self) -> Option<MutexGuard<'_, T>> {
            if self.held.load(Relaxed) {
                return None;
            }
            Some(self.held(self.value.try_lock().ok()?))
        }
    }

    impl<T> Drop for MutexGuard<'_, T> {
        fn drop(&mut self) {
            self.held.store(false, Release);
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.value.as_deref().unwrap()
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.value.as_deref_mut().unwrap()
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct Condvar(loom::sync::Condvar);

    /// As in the standard library, but without the result of the timeout, which is not used.
    type Waited<'a, T> = (MutexGuard<'a, T>, ());

    impl Condvar {
        /// The timeout never expires.
        pub(crate) fn wait_timeout<'a, T>(
            &self,
            mut guard: MutexGuard<'a, T>,
            _: Duration,
        ) -> Result<Waited<'a, T>, PoisonError<Waited<'a, T>>> {
            guard.held.store(false, Release);
            guard.value = guard.value.take().map(|value| self.0.wait(value).unwrap());
            guard.held.store(true, Relaxed);
            Ok((guard, ()))
        }

        pub(crate) fn notify_all(&self) {
            self.0.notify_all();
        }
    }

    /// A thread that checks a queue may not yet see an item that was put in.
    pub(crate) mod queue {
        use std::{collections::VecDeque, sync::Arc};

        use super::atomic::{AtomicUsize, Ordering::Acquire, Ordering::Release};

        #[derive(Debug)]
        struct Queue<T> {
            len: AtomicUsize,
            /// Not loom's, so that loom does not switch threads here.
            items: std::sync::Mutex<VecDeque<T>>,
        }

        #[derive(Debug)]
        pub(crate) struct Sender<T>(Arc<Queue<T>>);

        /// Only one thread at a time takes from it.
        #[derive(Debug)]
        pub(crate) struct Receiver<T>(Arc<Queue<T>>);

        pub(crate) fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
            let queue = Arc::new(Queue { len: AtomicUsize::new(0), items: std::sync::Mutex::default() });
            (Sender(queue.clone()), Receiver(queue))
        }

        impl<T> Sender<T> {
            pub(crate) fn send(&self, item: T) -> Result<(), T> {
                self.0.len.fetch_add(1, Release);
                self.0.items.lock().unwrap().push_back(item);
                Ok(())
            }
        }

        impl<T> Receiver<T> {
            pub(crate) fn is_empty(&self) -> bool {
                self.0.len.load(Acquire) == 0
            }

            pub(crate) fn try_recv(&self) -> Option<T> {
                if self.is_empty() {
                    return None;
                }
                self.0.len.fetch_sub(1, Acquire);
                self.0.items.lock().unwrap().pop_front()
            }
        }
    }
}

/// Tries all orders, or all with at most this number of preemptions.
fn explore(what: &str, preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let count = Arc::new(Counter::new(0));
    let counting = count.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(move || {
        counting.fetch_add(1, Counted);
        model();
    });
    println!("{what}: {} orders", count.load(Counted));
}

fn join<const N: usize>(threads: [thread::JoinHandle<()>; N]) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

// The mailbox.

struct Connection {
    mailbox: Mailbox,
    /// Bits of events. The gateway has to see all events that were posted.
    state: AtomicUsize,
}

impl Connection {
    fn new() -> Arc<Self> {
        Arc::new(Self { mailbox: Mailbox::new(), state: AtomicUsize::new(0) })
    }
}

impl Addressed for Connection {
    fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }
}

/// Wakes the poll. A wake-up is kept until the poll takes it.
#[derive(Default)]
struct Waker {
    woken: loom::sync::Mutex<bool>,
    condvar: loom::sync::Condvar,
    times: Counter,
}

impl Waker {
    fn wake(&self) {
        self.times.fetch_add(1, Counted);
        *self.woken.lock().unwrap() = true;
        self.condvar.notify_one();
    }

    fn wait(&self) {
        let mut woken = self.woken.lock().unwrap();
        while !*woken {
            woken = self.condvar.wait(woken).unwrap();
        }
        *woken = false;
    }

    /// Like a poll that does not wait.
    fn look(&self) {
        *self.woken.lock().unwrap() = false;
    }
}

/// A gateway that handles its mail as the reactor does.
struct Gateway {
    post: Arc<Post<Connection>>,
    mail: Receiver<Arc<Connection>>,
    waker: Arc<Waker>,
}

impl Gateway {
    fn new() -> Self {
        let (sender, mail) = unbounded();
        let waker = Arc::new(Waker::default());
        let wakes = waker.clone();
        Self { post: Arc::new(Post::new(sender, move || wakes.wake())), mail, waker }
    }

    /// Returns the events that it sees on the connections in the mail.
    fn read_mail(&self) -> usize {
        let mut seen = 0;
        while let Some(connection) = self.mail.try_recv() {
            connection.mailbox.take();
            seen |= connection.state.load(Relaxed);
        }
        seen
    }

    /// Works, with this kind of sleep, until it has seen all these events.
    fn run(&self, sleep: Sleep, all: usize) {
        let mut seen = 0;
        loop {
            seen |= self.read_mail();
            if seen & all == all {
                return;
            }
            self.post.sleep(sleep);
            if self.mail.is_empty() {
                self.waker.wait();
            } else {
                self.waker.look();
            }
            self.post.rise();
        }
    }

    /// Works and sleeps for this number of turns; the sleep ends by its timeout.
    fn run_for(&self, sleep: Sleep, turns: usize) {
        for _ in 0..turns {
            self.read_mail();
            self.post.sleep(sleep);
            if !self.mail.is_empty() {
                self.waker.look();
            }
            self.post.rise();
        }
    }

    /// Starts a thread that adds an event to a connection, and posts it to the gateway.
    fn poster(&self, on: &Arc<Connection>, event: usize, within: Within) -> thread::JoinHandle<()> {
        let (post, connection) = (self.post.clone(), on.clone());
        thread::spawn(move || {
            connection.state.fetch_or(event, Relaxed);
            post.send(&connection, within);
        })
    }
}

#[test]
fn the_gateway_sees_everything_that_is_posted() {
    explore("two on one connection", Some(3), || {
        let (gateway, connection) = (Gateway::new(), Connection::new());
        gateway.poster(&connection, 1, Within::Now);
        gateway.poster(&connection, 2, Within::Now);
        gateway.run(Sleep::Long, 3);
    });
    explore("two on two connections", Some(3), || {
        let (gateway, one, other) = (Gateway::new(), Connection::new(), Connection::new());
        gateway.poster(&one, 1, Within::Now);
        gateway.poster(&other, 2, Within::Now);
        gateway.run(Sleep::Long, 3);
    });
    explore("one twice", Some(4), || {
        let (gateway, connection) = (Gateway::new(), Connection::new());
        let post = gateway.post.clone();
        thread::spawn(move || {
            for event in [1, 2] {
                connection.state.fetch_or(event, Relaxed);
                post.send(&connection, Within::Now);
            }
        });
        gateway.run(Sleep::Nap, 3);
    });
}

#[test]
fn a_gateway_that_would_sleep_too_long_is_woken() {
    for (within, sleep) in
        [(Within::Now, Sleep::Nap), (Within::Millisecond, Sleep::Tick), (Within::Tick, Sleep::Long)]
    {
        explore(&format!("{within:?} wakes {sleep:?}"), None, move || {
            let (gateway, connection) = (Gateway::new(), Connection::new());
            gateway.poster(&connection, 1, within);
            gateway.run(sleep, 1);
        });
    }
}

#[test]
fn a_gateway_that_wakes_up_in_time_is_not_woken() {
    for (within, sleep) in [
        (Within::Now, Sleep::Awake),
        (Within::Millisecond, Sleep::Nap),
        (Within::Tick, Sleep::Nap),
        (Within::Tick, Sleep::Tick),
    ] {
        explore(&format!("{within:?} leaves {sleep:?}"), None, move || {
            let (gateway, connection) = (Gateway::new(), Connection::new());
            let poster = gateway.poster(&connection, 1, within);
            gateway.run_for(sleep, 2);
            poster.join().unwrap();
            assert_eq!(gateway.waker.times.load(Counted), 0);
        });
    }
}

#[test]
fn an_urgent_post_wakes_the_gateway_even_after_one_that_is_not_urgent() {
    for lazy in [Within::Tick, Within::Millisecond] {
        explore(&format!("{lazy:?}, then Now"), Some(3), move || {
            let (gateway, connection) = (Gateway::new(), Connection::new());
            gateway.poster(&connection, 1, lazy);
            gateway.poster(&connection, 2, Within::Now);
            // The first may be seen later, after its own time limit. The urgent one has to be seen now.
            gateway.run(Sleep::Tick, 2);
        });
    }
}

#[test]
fn a_sleeping_gateway_is_woken_once_and_an_awake_one_not_at_all() {
    explore("two wake a gateway", Some(3), || {
        let (gateway, connection) = (Gateway::new(), Connection::new());
        gateway.post.sleep(Sleep::Long);
        join([1, 2].map(|event| gateway.poster(&connection, event, Within::Now)));
        assert_eq!(gateway.waker.times.load(Counted), 1);
        assert_eq!(gateway.read_mail(), 3);
        gateway.post.sleep(Sleep::Long);
        gateway.post.rise();
        join([gateway.poster(&connection, 4, Within::Now)]);
        assert_eq!(gateway.waker.times.load(Counted), 1);
    });
}

// Collected output.

struct Flushing {
    mailbox: Mailbox,
    /// Collected output that was not sent yet.
    output: Mutex<usize>,
    /// Notifications that the gateway has not taken yet.
    posts: AtomicUsize,
}

/// The gateway's part.
#[derive(Default)]
struct Flusher {
    flushes: bool,
}

impl Flushing {
    fn new() -> Arc<Self> {
        Arc::new(Self { mailbox: Mailbox::new(), output: Mutex::new(0), posts: AtomicUsize::new(0) })
    }

    fn collect(&self) {
        *self.output.locked() += 1;
        if self.mailbox.collect() {
            self.posts.fetch_add(1, AcqRel);
        }
    }

    fn flush(&self) {
        *self.output.locked() = 0;
    }
}

impl Flusher {
    fn read_mail(&mut self, connection: &Flushing) {
        if connection.posts.swap(0, AcqRel) > 0 && connection.mailbox.starts_flushing() {
            assert!(!self.flushes, "it is flushed twice");
            self.flushes = true;
        }
    }

    /// What the gateway does when it flushes.
    fn look(&mut self, connection: &Flushing) {
        if !self.flushes {
            return;
        }
        if connection.mailbox.take_collected() {
            connection.flush();
        } else {
            self.flushes = !connection.mailbox.stops_flushing();
        }
    }

    /// What the gateway does when it calls a handler itself.
    fn call(&mut self, connection: &Flushing) {
        let flushes = connection.mailbox.flushes();
        connection.collect();
        if flushes {
            if connection.mailbox.take_collected() {
                connection.flush();
            }
            self.flushes |= !connection.mailbox.stops_flushing();
        }
    }

    /// The rest of the work, when no more output is collected.
    fn rest(&mut self, connection: &Flushing) {
        self.read_mail(connection);
        while self.flushes {
            self.look(connection);
        }
        assert_eq!(*connection.output.locked(), 0, "collected output is forgotten");
    }
}

/// Starts a thread that collects output this many times.
fn collector(connection: &Arc<Flushing>, times: usize) -> thread::JoinHandle<()> {
    let connection = connection.clone();
    thread::spawn(move || (0..times).for_each(|_| connection.collect()))
}

#[test]
fn collected_output_is_flushed() {
    explore("a thread collects twice", None, || {
        let (connection, mut gateway) = (Flushing::new(), Flusher::default());
        let collects = collector(&connection, 2);
        for _ in 0..2 {
            gateway.read_mail(&connection);
            gateway.look(&connection);
        }
        collects.join().unwrap();
        gateway.rest(&connection);
    });
    explore("two threads collect", Some(4), || {
        let (connection, mut gateway) = (Flushing::new(), Flusher::default());
        let collect = [collector(&connection, 1), collector(&connection, 1)];
        for _ in 0..3 {
            gateway.read_mail(&connection);
            gateway.look(&connection);
        }
        join(collect);
        gateway.rest(&connection);
    });
    explore("a handler of the gateway's collects, too", Some(4), || {
        let (connection, mut gateway) = (Flushing::new(), Flusher::default());
        let collects = collector(&connection, 2);
        gateway.call(&connection);
        gateway.read_mail(&connection);
        gateway.look(&connection);
        gateway.call(&connection);
        collects.join().unwrap();
        gateway.rest(&connection);
    });
}

// A thread that may be busy.

struct Thread {
    mailbox: Mailbox,
    /// The connection's thread holds this lock while it waits in `recv`.
    inbox: Mutex<()>,
    posts: AtomicUsize,
}

impl Thread {
    fn new() -> Arc<Self> {
        Arc::new(Self { mailbox: Mailbox::new(), inbox: Mutex::new(()), posts: AtomicUsize::new(0) })
    }

    fn read(&self) {
        drop(self.inbox.locked());
        if self.mailbox.watch() {
            self.posts.fetch_add(1, AcqRel);
        }
    }

    fn is_busy(&self) -> bool {
        self.inbox.try_locked().is_some()
    }

    /// A turn of the gateway. Returns whether it looks again after a tick.
    fn look(&self, watches: bool) -> bool {
        let posted = self.posts.swap(0, AcqRel) > 0;
        (watches || posted) && (self.is_busy() || !self.mailbox.unwatch(|| self.is_busy()))
    }
}

#[test]
fn a_busy_thread_is_watched() {
    for (reads, looks) in [(1, 2), (2, 2), (3, 1)] {
        explore(&format!("{reads} reads, {looks} looks"), None, move || {
            let connection = Thread::new();
            let reader = {
                let connection = connection.clone();
                thread::spawn(move || (0..reads).for_each(|_| connection.read()))
            };
            let watches = (0..looks).fold(false, |watches, _| connection.look(watches));
            reader.join().unwrap();
            assert!(watches || connection.posts.load(Relaxed) > 0, "a busy thread is not watched");
        });
    }
}

// The lock: a thread that unlocks it checks the outbox afterwards.

/// A message: the number of its sender, its own number, and whether it is large, so that it is compressed without the lock.
type Sent = (usize, usize, bool);

struct Pushed {
    core: Lock<Core>,
    put: Sender<Sent>,
    outbox: Receiver<Sent>,
    compressed: Condvar,
}

#[derive(Default)]
struct Core {
    sent: Vec<Sent>,
    /// Nothing can be sent now.
    blocked: bool,
    /// The compressor is lent out.
    compressing: bool,
    deferred: Option<Sent>,
}

impl Core {
    fn send(&mut self, message: Sent) {
        assert!(!self.blocked && !self.compressing);
        if message.2 {
            self.compressing = true;
            self.deferred = Some(message);
        } else {
            self.sent.push(message);
        }
    }
}

impl Owner for Pushed {
    type Core = Core;
    type Deferred = Sent;
    type Finished = Sent;

    fn core(&self) -> &Lock<Core> {
        &self.core
    }

    fn before_unlock(&self, core: &mut Core) -> Option<Sent> {
        core.deferred.take()
    }

    fn after_unlock(&self, deferred: Sent) -> Option<Sent> {
        Some(deferred)
    }

    fn finish_deferred(&self, core: &mut Core, message: Sent) {
        core.compressing = false;
        core.sent.push(message);
        self.compressed.notify_all();
    }

    fn has_queued(&self) -> bool {
        !self.outbox.is_empty()
    }

    fn drain_queue(&self, core: &mut Core) -> bool {
        if core.blocked || core.compressing {
            return false;
        }
        self.drain(core);
        true
    }
}

impl Pushed {
    fn new(core: Core) -> Arc<Self> {
        let (put, outbox) = unbounded();
        Arc::new(Self { core: Lock::new(core), put, outbox, compressed: Condvar::default() })
    }

    fn drain(&self, core: &mut Core) {
        while !core.compressing
            && let Some(message) = self.outbox.try_recv()
        {
            core.send(message);
        }
    }

    fn push(&self, message: Sent) {
        if let Some(mut core) = try_lock(self)
            && !core.blocked
            && !core.compressing
            && self.outbox.is_empty()
        {
            return core.send(message);
        }
        self.put.send(message).unwrap();
        drop(try_lock(self));
    }

    /// Starts a thread that pushes these, in this order.
    fn pusher<const N: usize>(self: &Arc<Self>, by: usize, larges: [bool; N]) -> thread::JoinHandle<()> {
        let this = self.clone();
        thread::spawn(move || {
            for (n, large) in larges.into_iter().enumerate() {
                this.push((by, n, large));
            }
        })
    }

    /// Checks that everything is sent, with the messages of each thread in order.
    fn check<const N: usize>(&self, counts: [usize; N]) {
        assert!(self.outbox.is_empty(), "left in the outbox");
        let core = lock(self);
        assert!(!core.compressing);
        for (by, count) in counts.into_iter().enumerate() {
            let sent = core.sent.iter().filter(|message| message.0 == by).map(|message| message.1);
            assert!(sent.eq(0..count), "{:?}", core.sent);
        }
    }
}

#[test]
fn nothing_is_left_in_the_outbox() {
    explore("a pusher and two holders", Some(3), || {
        let connection = Pushed::new(Core::default());
        let pusher = connection.pusher(0, [false]);
        let holder = {
            let connection = connection.clone();
            thread::spawn(move || drop(lock(&*connection)))
        };
        drop(lock(&*connection));
        pusher.join().unwrap();
        holder.join().unwrap();
        connection.check([1]);
    });
    explore("two pushers and a holder", Some(3), || {
        let connection = Pushed::new(Core::default());
        let pushers = [connection.pusher(0, [false; 2]), connection.pusher(1, [false])];
        drop(lock(&*connection));
        join(pushers);
        connection.check([2, 1]);
    });
}

#[test]
fn the_thread_that_unblocks_a_connection_sends_what_waits() {
    explore("two pushers, blocked", Some(2), || {
        let connection = Pushed::new(Core { blocked: true, ..Core::default() });
        let pushers = [connection.pusher(0, [false; 2]), connection.pusher(1, [false])];
        let mut core = lock(&*connection);
        core.blocked = false;
        connection.drain(&mut core);
        drop(core);
        join(pushers);
        connection.check([2, 1]);
    });
}

#[test]
fn no_message_overtakes_one_that_is_compressed_without_the_lock() {
    explore("two pushers, large and short", Some(2), || {
        let connection = Pushed::new(Core::default());
        let pushers = [connection.pusher(0, [true, false]), connection.pusher(1, [true])];
        drop(lock(&*connection));
        join(pushers);
        connection.check([2, 1]);
    });
}

#[test]
fn a_thread_that_waits_for_the_compressor_is_woken() {
    explore("a pusher, and a thread that waits", Some(3), || {
        let connection = Pushed::new(Core::default());
        let pushers = [connection.pusher(0, [true]), connection.pusher(1, [false])];
        let core = lock(&*connection);
        if core.compressing {
            Guard::wait(core, &connection.compressed, Duration::MAX);
        } else {
            drop(core);
        }
        join(pushers);
        connection.check([1, 1]);
    });
}

// What is awaited.

/// A connection that is being opened: what is pushed is queued, and then goes to the connection directly.
#[derive(Default)]
struct Opening {
    got: loom::sync::Mutex<Vec<(usize, usize)>>,
    /// It can be found, by those who did not look for it before.
    known: Mutex<bool>,
}

type Pushes = Vec<(usize, usize)>;

impl Opening {
    fn new() -> Arc<Awaited<Pushes, Arc<Self>>> {
        Arc::new(Awaited::new(Vec::new()))
    }

    /// The answer is yes.
    fn open(awaited: &Awaited<Pushes, Arc<Self>>) -> Arc<Self> {
        let connection = Arc::new(Self::default());
        awaited.fulfil(
            connection.clone(),
            |queue| (!queue.is_empty()).then(|| std::mem::take(queue)),
            |pushed| connection.got.lock().unwrap().extend(pushed),
            || *connection.known.locked() = true,
        );
        connection
    }

    /// Pushes so much, and stops when it is refused.
    fn pusher(
        awaited: &Arc<Awaited<Pushes, Arc<Self>>>,
        name: usize,
        pushes: usize,
    ) -> thread::JoinHandle<()> {
        let awaited = awaited.clone();
        thread::spawn(move || {
            for n in 0..pushes {
                match awaited.queue((name, n), Vec::push) {
                    Ok(()) => {}
                    Err((Answer::Here(connection), push)) => {
                        assert!(*connection.known.locked(), "told before it can be found");
                        connection.got.lock().unwrap().push(push);
                    }
                    Err((Answer::Never, _)) => return,
                }
            }
        })
    }

    /// All has come, in the order of each pusher.
    fn check<const N: usize>(&self, pushes: [usize; N]) {
        let got = self.got.lock().unwrap();
        for (name, pushes) in pushes.into_iter().enumerate() {
            let of_pusher = got.iter().filter(|push| push.0 == name).map(|push| push.1);
            assert_eq!(of_pusher.collect::<Vec<_>>(), (0..pushes).collect::<Vec<_>>(), "of {name}");
        }
    }
}

#[test]
fn what_is_pushed_while_a_connection_is_opened_comes_in_order() {
    explore("one pusher, and the answer", None, || {
        let awaited = Opening::new();
        let pushers = [Opening::pusher(&awaited, 0, 3)];
        let connection = Opening::open(&awaited);
        join(pushers);
        connection.check([3]);
    });
    explore("two pushers, and the answer", Some(3), || {
        let awaited = Opening::new();
        let pushers = [Opening::pusher(&awaited, 0, 2), Opening::pusher(&awaited, 1, 2)];
        let connection = Opening::open(&awaited);
        join(pushers);
        connection.check([2, 2]);
    });
}

#[test]
fn who_waits_until_a_connection_is_open_is_told() {
    for opens in [true, false] {
        explore(&format!("a pusher, one who waits, and the answer {opens}"), Some(3), move || {
            let awaited = Opening::new();
            let (pusher, waits) = (Opening::pusher(&awaited, 0, 1), awaited.clone());
            let waiter = thread::spawn(move || match waits.wait(|| Some(Duration::MAX)) {
                Some(Answer::Here(connection)) => assert!(opens && *connection.known.locked()),
                Some(Answer::Never) => assert!(!opens),
                None => panic!("no answer"),
            });
            if opens {
                Opening::open(&awaited);
            } else {
                awaited.give_up();
                assert!(matches!(awaited.queue((1, 0), Vec::push), Err((Answer::Never, (1, 0)))));
            }
            join([pusher, waiter]);
            assert!(matches!(awaited.answer(), Some(Answer::Here(_))) == opens);
        });
    }
}

// A group that a connection joins while it is being opened.

/// A group of one, which is being opened, and what has come to it.
struct Room {
    groups: Groups<u8, Awaited<Vec<usize>, ()>, std::hash::RandomState>,
    name: Arc<str>,
    got: std::sync::Mutex<Vec<usize>>,
    occupied: Counter,
}

impl Room {
    fn new() -> (Arc<Self>, Arc<Awaited<Vec<usize>, ()>>) {
        let (groups, name) = (Groups::default(), "room".into());
        let room = Self { groups, name, got: std::sync::Mutex::default(), occupied: Counter::new(0) };
        let pending = Arc::new(Awaited::new(Vec::new()));
        room.groups.expect(&room.name, pending.clone());
        (Arc::new(room), pending)
    }

    /// Sends the numbers to all.
    fn broadcaster(self: &Arc<Self>, numbers: std::ops::Range<usize>) -> thread::JoinHandle<()> {
        let room = self.clone();
        thread::spawn(move || {
            for number in numbers {
                let (open, opening) =
                    room.groups.with("room", |open, opening| (open.len(), opening.to_vec()));
                assert!(open + opening.len() <= 1, "it is not there twice");
                let sent = |pending: &Arc<Awaited<_, _>>| match pending.queue(number, Vec::push) {
                    Ok(()) | Err((Answer::Never, _)) => false,
                    Err((Answer::Here(()), _)) => true,
                };
                if open == 1 || opening.iter().any(sent) {
                    room.got.lock().unwrap().push(number);
                }
            }
        })
    }

    fn open(&self, pending: &Arc<Awaited<Vec<usize>, ()>>) {
        pending.fulfil(
            (),
            |queue| (!queue.is_empty()).then(|| std::mem::take(queue)),
            |numbers| self.got.lock().unwrap().extend(numbers),
            || {
                self.groups.arrive(&self.name, pending, 1, || {
                    self.occupied.fetch_add(1, Counted);
                });
            },
        );
    }
}

/// What is sent to a group reaches whoever joins it while it is being opened: once, and in order.
#[test]
fn what_is_sent_to_a_group_reaches_those_who_join_it_once() {
    explore("a broadcaster, and the answer", None, || {
        let (room, pending) = Room::new();
        let broadcaster = room.broadcaster(0..3);
        room.open(&pending);
        join([broadcaster]);
        assert_eq!((room.got.lock().unwrap().as_slice(), room.occupied.load(Counted)), (&[0, 1, 2][..], 1));
    });
    explore("two broadcasters, and the answer", Some(3), || {
        let (room, pending) = Room::new();
        let broadcasters = [room.broadcaster(0..2), room.broadcaster(10..12)];
        room.open(&pending);
        join(broadcasters);
        let got = room.got.lock().unwrap();
        let of = |one: bool| got.iter().copied().filter(|n| (*n < 10) == one).collect::<Vec<_>>();
        assert_eq!((of(true), of(false)), (vec![0, 1], vec![10, 11]));
    });
    explore("a broadcaster, one who takes it out, and the answer", Some(3), || {
        let (room, pending) = Room::new();
        let broadcaster = room.broadcaster(0..2);
        let (leaves, of_leaver) = (room.clone(), pending.clone());
        let leaver = thread::spawn(move || leaves.groups.unexpect("room", &of_leaver));
        room.open(&pending);
        join([broadcaster, leaver]);
        let got = room.got.lock().unwrap();
        assert!((0..2).zip(got.iter()).all(|(n, got)| n == *got), "{got:?}");
        let (open, opening) = room.groups.with("room", |open, opening| (open.len(), opening.len()));
        assert_eq!((open, opening), (room.occupied.load(Counted), 0));
    });
}

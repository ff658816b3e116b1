//! Observers of the hub, and how they are told: outside of all locks, and about topics and users in the order in which it
//! happened.
//!
//! What happens to a topic or a user is queued under the lock that decides the order, and told when that is free: by one thread at a time, in order.
//! A thread returns when what it has queued was told, by itself or by another one; so the queue has a bound.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::{self, ThreadId},
    time::Duration,
};

use log::Level;

use crate::{
    caught::caught, connection::Connection, error::CloseReason, info::ConnectionInfo, seldom::Seldom,
    sync::LockExt,
};

/// Each connection may cause it.
static PANICKED: Seldom = Seldom::new(Duration::from_secs(10));

/// Is told what happens to connections, topics and users: for metrics, and for servers that work together. Given to
/// [`ServerBuilder::observer`](crate::ServerBuilder::observer).
///
/// The methods are called by the thread that opens a connection, ends it, or calls `join` or `leave`, which waits meanwhile, and
/// may be a gateway: they should be quick. They may call the [`Hub`](crate::Hub). Pushes, broadcasts and closes never call them:
/// what these bring about is told by others, later. A panic in one of them is logged, and changes nothing, unless the program is
/// built with `panic = "abort"`.
///
/// ```
/// use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
/// use switchboard::{CloseReason, ConnectionInfo, HubObserver};
///
/// #[derive(Default)]
/// struct Metrics {
///     open: AtomicUsize,
/// }
///
/// impl HubObserver for Metrics {
///     fn opened(&self, _connection: &ConnectionInfo) {
///         self.open.fetch_add(1, Relaxed);
///     }
///
///     fn closed(&self, connection: &ConnectionInfo, reason: &CloseReason) {
///         self.open.fetch_sub(1, Relaxed);
///         println!("{} was open for {:?}: {reason}", connection.path, connection.age);
///     }
/// }
/// ```
pub trait HubObserver: Send + Sync + 'static {
    /// A connection was opened: `on_pre_server` has agreed. Called just before others can find it by its ID.
    fn opened(&self, connection: &ConnectionInfo) {
        let _ = connection;
    }

    /// A connection is over, and its ID unknown. Called once for each that was [opened](Self::opened), and after that,
    /// whatever its end was. The numbers are the final ones; `age` is how long it was open.
    fn closed(&self, connection: &ConnectionInfo, reason: &CloseReason) {
        let _ = (connection, reason);
    }

    /// A topic has its first member.
    ///
    /// What happens to topics and users is told in the order in which it happens, one call at a time. A `join` or `leave`
    /// returns after what it has caused was told; only one that is called by an observer returns before. What a connection
    /// brings about by being opened is told after [`opened`](Self::opened), and by its end, before [`closed`](Self::closed).
    fn topic_occupied(&self, topic: &str) {
        let _ = topic;
    }

    /// A topic has lost its last member; as [`topic_occupied`](Self::topic_occupied).
    fn topic_vacated(&self, topic: &str) {
        let _ = topic;
    }

    /// A [user](crate::Opening::set_user) has a first connection; as [`topic_occupied`](Self::topic_occupied).
    fn user_online(&self, user: &str) {
        let _ = user;
    }

    /// A user has lost the last connection; as [`topic_occupied`](Self::topic_occupied). A page that is loaded anew, or
    /// reconnects, is offline for a moment.
    fn user_offline(&self, user: &str) {
        let _ = user;
    }

    /// A user has a first connection in a topic; as [`topic_occupied`](Self::topic_occupied), and after that. Connections without a
    /// user are not told.
    fn user_joined(&self, topic: &str, user: &str) {
        let _ = (topic, user);
    }

    /// A user has lost the last connection in a topic, which has left it or ended; as [`topic_vacated`](Self::topic_vacated), and
    /// before that.
    fn user_left(&self, topic: &str, user: &str) {
        let _ = (topic, user);
    }
}

/// For a program that keeps its observer.
impl<O: HubObserver + ?Sized> HubObserver for Arc<O> {
    fn opened(&self, connection: &ConnectionInfo) {
        (**self).opened(connection);
    }

    fn closed(&self, connection: &ConnectionInfo, reason: &CloseReason) {
        (**self).closed(connection, reason);
    }

    fn topic_occupied(&self, topic: &str) {
        (**self).topic_occupied(topic);
    }

    fn topic_vacated(&self, topic: &str) {
        (**self).topic_vacated(topic);
    }

    fn user_online(&self, user: &str) {
        (**self).user_online(user);
    }

    fn user_offline(&self, user: &str) {
        (**self).user_offline(user);
    }

    fn user_joined(&self, topic: &str, user: &str) {
        (**self).user_joined(topic, user);
    }

    fn user_left(&self, topic: &str, user: &str) {
        (**self).user_left(topic, user);
    }
}

/// The observers of a server; mostly none, which costs nothing.
#[derive(Default)]
pub(crate) struct Observers {
    all: Vec<Arc<dyn HubObserver>>,
    queue: Mutex<Queue>,
    told: Condvar,
}

/// What happened to topics and users and was not told yet.
#[derive(Default)]
struct Queue {
    events: VecDeque<HubEvent>,
    /// How many were put in, how many of these were told, and how many the thread that tells them has to.
    put: u64,
    told: u64,
    wanted: u64,
    teller: Option<ThreadId>,
}

/// What happened to a topic or a user.
pub(crate) enum HubEvent {
    TopicOccupied(Arc<str>),
    TopicVacated(Arc<str>),
    UserOnline(Arc<str>),
    UserOffline(Arc<str>),
    /// A topic, and a user.
    UserJoined(Arc<str>, Arc<str>),
    UserLeft(Arc<str>, Arc<str>),
}

impl Observers {
    pub(crate) fn add(&mut self, observer: impl HubObserver) {
        self.all.push(Arc::new(observer));
    }

    pub(crate) fn opened(&self, connection: &Arc<Connection>) {
        if !self.all.is_empty() {
            let info = ConnectionInfo::new(connection);
            self.call("opened", |observer| observer.opened(&info));
        }
    }

    pub(crate) fn closed(&self, connection: &Arc<Connection>) {
        if !self.all.is_empty() {
            let (info, reason) = (ConnectionInfo::new(connection), connection.closed_reason());
            self.call("closed", |observer| observer.closed(&info, &reason));
        }
    }

    /// Queues what has happened to a topic or a user, under the lock that decides the order. Then, without it, [`tell`](Self::tell).
    pub(crate) fn queue(&self, event: impl FnOnce() -> HubEvent) {
        if !self.all.is_empty() {
            let mut queue = self.queue.locked();
            queue.events.push_back(event());
            queue.put += 1;
        }
    }

    /// Tells what was queued before, or waits until another thread has.
    pub(crate) fn tell(&self) {
        if self.all.is_empty() {
            return;
        }
        let mut queue = self.queue.locked();
        let mine = queue.put;
        let me = thread::current().id();
        while queue.told < mine {
            match queue.teller {
                Some(teller) if teller == me => {
                    // An observer has called the hub: what came of that is told when it returns.
                    queue.wanted = queue.wanted.max(mine);
                    return;
                }
                Some(_) => queue = self.told.wait(queue).unwrap_or_else(PoisonError::into_inner),
                None => {
                    queue.teller = Some(me);
                    queue.wanted = mine;
                    drop(queue);
                    self.tell_all();
                    queue = self.queue.locked();
                    queue.teller = None;
                    self.told.notify_all();
                }
            }
        }
    }

    fn tell_all(&self) {
        loop {
            let mut queue = self.queue.locked();
            if queue.told >= queue.wanted {
                return;
            }
            let Some(event) = queue.events.pop_front() else { return };
            drop(queue);
            match event {
                HubEvent::TopicOccupied(topic) => self.call("topic_occupied", |o| o.topic_occupied(&topic)),
                HubEvent::TopicVacated(topic) => self.call("topic_vacated", |o| o.topic_vacated(&topic)),
                HubEvent::UserOnline(user) => self.call("user_online", |o| o.user_online(&user)),
                HubEvent::UserOffline(user) => self.call("user_offline", |o| o.user_offline(&user)),
                HubEvent::UserJoined(topic, user) => {
                    self.call("user_joined", |o| o.user_joined(&topic, &user));
                }
                HubEvent::UserLeft(topic, user) => self.call("user_left", |o| o.user_left(&topic, &user)),
            }
            self.queue.locked().told += 1;
            self.told.notify_all();
        }
    }

    fn call(&self, method: &str, call: impl Fn(&dyn HubObserver)) {
        for observer in &self.all {
            if caught(|| call(&**observer)).is_none() {
                PANICKED.log(Level::Error, format_args!("{method} of an observer panicked"));
            }
        }
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Observers({})", self.all.len())
    }
}

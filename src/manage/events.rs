//! What happens, for whoever listens: an observer of the hub puts it into a queue for each, and the connection's thread sends it as
//! Server-Sent Events, or as messages of a WebSocket. The observer never waits: who is too slow loses the rest, and is told so.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::{
    LOOK,
    answers::full,
    json::{Millis, Object},
    routes::nothing_but,
    stays::Stays,
};
use crate::{
    error::{CloseReason, ClosedBy},
    http::{Refusal, Request, Response, Sink},
    id::NodeId,
    info::ConnectionInfo,
    observer::HubObserver,
    sync::LockExt,
};

/// So many listen at most: each has a connection, of which there are few.
const LISTENERS: usize = 32;

/// So many bytes wait for one that is slow: strangers have written most of them. An event counts for some more than its text.
const QUEUE: usize = 1 << 20;
const BESIDE_TEXT: usize = 64;

/// After this silence a comment is sent: so a client that has gone without a word is found, and a proxy keeps the connection.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);

/// Those who listen.
#[derive(Default)]
pub(super) struct Events {
    /// That of the server, as soon as there is one.
    node: OnceLock<NodeId>,
    listeners: Mutex<Listeners>,
}

#[derive(Default)]
struct Listeners {
    next: u64,
    all: Vec<Queue>,
}

/// What waits for one who listens.
struct Queue {
    number: u64,
    sender: Sender<Arc<Event>>,
    bytes: Arc<AtomicUsize>,
}

/// One who listens, until this is dropped.
pub(super) struct Listener {
    events: Arc<Events>,
    number: u64,
    queue: Receiver<Arc<Event>>,
    bytes: Arc<AtomicUsize>,
}

/// Something that has happened, and its JSON, an object.
pub(super) struct Event {
    name: &'static str,
    data: String,
}

/// What comes next for one who listens.
pub(super) enum Next {
    Event(Arc<Event>),
    /// It was too slow: there is nothing more.
    Lost,
    /// Nothing has happened for a moment.
    Silence,
}

/// All events from now on.
pub(super) fn answer(
    events: &Arc<Events>,
    stays: &Arc<Stays>,
    request: &Request,
) -> Result<Response, Refusal> {
    let (listener, stay) = (Listener::new(events)?, stays.enter()?);
    let response = Response::produced("text/event-stream", move |sink| {
        let _stay = &stay;
        listener.send_all(sink, HEARTBEAT)
    });
    nothing_but(request, response)
}

impl Listener {
    /// # Errors
    /// There are too many.
    pub(super) fn new(events: &Arc<Events>) -> Result<Self, Refusal> {
        let mut listeners = events.listeners.locked();
        if listeners.all.len() >= LISTENERS {
            return Err(full("too many listen to the events"));
        }
        let (sender, queue) = unbounded(); // its bytes are bounded
        let (number, bytes) = (listeners.next, Arc::<AtomicUsize>::default());
        listeners.next += 1;
        listeners.all.push(Queue { number, sender, bytes: bytes.clone() });
        Ok(Self { events: events.clone(), number, queue, bytes })
    }

    /// Waits for so long at most.
    pub(super) fn wait(&self, moment: Duration) -> Next {
        match self.queue.recv_timeout(moment) {
            Ok(event) => {
                self.bytes.fetch_sub(event.cost(), Relaxed);
                Next::Event(event)
            }
            Err(RecvTimeoutError::Disconnected) => Next::Lost,
            Err(RecvTimeoutError::Timeout) => Next::Silence,
        }
    }

    fn send_all(&self, sink: &mut dyn Sink, heartbeat: Duration) -> io::Result<()> {
        let mut last = Instant::now();
        while !sink.is_over() {
            match self.wait(LOOK.min(heartbeat)) {
                Next::Event(event) => sink.send(event.to_sse().as_bytes())?,
                Next::Lost => return sink.send(Event::lost().to_sse().as_bytes()),
                Next::Silence if last.elapsed() < heartbeat => continue,
                Next::Silence => sink.send(b":\n\n")?,
            }
            last = Instant::now();
        }
        Ok(())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.events.listeners.locked().all.retain(|queue| queue.number != self.number);
    }
}

impl Events {
    /// They are those of this server.
    pub(super) fn set_node(&self, node: NodeId) {
        let _ = self.node.set(node); // there is one
    }

    fn of_topic(&self, topic: &str) -> Object {
        let node = self.node.get().map(|node| u64::from(node.get()));
        Object::new().with("topic", topic).with("node", node)
    }

    /// Nothing is written if nobody listens.
    fn tell(&self, name: &'static str, data: impl FnOnce() -> Object) {
        let mut listeners = self.listeners.locked();
        if listeners.all.is_empty() {
            return;
        }
        let event = Arc::new(Event { name, data: data().into_text() });
        listeners.all.retain(|queue| queue.put(&event));
    }
}

impl Queue {
    /// False: there is no room for it, or nobody who wants it.
    fn put(&self, event: &Arc<Event>) -> bool {
        let bytes = self.bytes.fetch_add(event.cost(), Relaxed) + event.cost();
        bytes <= QUEUE && self.sender.send(event.clone()).is_ok()
    }
}

impl Event {
    /// The last one for who was too slow.
    pub(super) fn lost() -> Self {
        Self { name: "lost", data: Object::new().into_text() }
    }

    fn cost(&self) -> usize {
        self.data.len() + BESIDE_TEXT
    }

    /// As one of a stream of Server-Sent Events. JSON has no line ends, which would end it.
    fn to_sse(&self) -> String {
        format!("event: {}\ndata: {}\n\n", self.name, self.data)
    }

    /// As one object, whose first value is its name.
    pub(super) fn to_json(&self) -> String {
        let rest = self.data.strip_prefix('{').unwrap_or_default();
        let comma = if rest == "}" { "" } else { "," };
        format!("{{\"event\":\"{}\"{comma}{rest}", self.name)
    }
}

fn about(connection: &ConnectionInfo) -> Object {
    Object::new()
        .with("id", connection.id.as_str())
        .with("node", u64::from(connection.id.node().get()))
        .with("path", &*connection.path)
        .with("user", connection.user.as_deref())
}

impl HubObserver for Events {
    fn opened(&self, connection: &ConnectionInfo) {
        self.tell("opened", || about(connection));
    }

    fn closed(&self, connection: &ConnectionInfo, reason: &CloseReason) {
        let by = match reason.by() {
            ClosedBy::Client => "client",
            ClosedBy::Server => "server",
            ClosedBy::Network => "network",
        };
        self.tell("closed", || {
            about(connection)
                .with("code", u64::from(reason.code().0))
                .with("reason", reason.text())
                .with("by", by)
                .with("durationMillis", Millis(connection.age))
        });
    }

    fn topic_occupied(&self, topic: &str) {
        self.tell("occupied", || self.of_topic(topic));
    }

    fn topic_vacated(&self, topic: &str) {
        self.tell("vacated", || self.of_topic(topic));
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Events({} listeners)", self.listeners.locked().all.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes everything, until there were so many pieces.
    struct Kept(Vec<String>, usize);

    impl Sink for Kept {
        fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.0.push(String::from_utf8(bytes.to_vec()).unwrap());
            Ok(())
        }

        fn is_over(&self) -> bool {
            self.0.len() == self.1
        }
    }

    #[test]
    fn who_is_too_slow_gets_what_was_queued_and_is_told_that_it_lost_the_rest() {
        let events = Arc::new(Events::default());
        events.set_node(NodeId::new(7));
        let (slow, quick) = (Listener::new(&events).unwrap(), Listener::new(&events).unwrap());
        let topic = "t".repeat(1000);
        let most =
            QUEUE / Event { name: "occupied", data: format!("{{\"topic\":\"{topic}\",\"node\":7}}") }.cost();
        for _ in 0..most + 5 {
            events.topic_occupied(&topic);
            let event = quick.queue.recv().unwrap();
            quick.bytes.fetch_sub(event.cost(), Relaxed);
        }
        events.topic_vacated("a\n\"b\"");
        let mut kept = Kept(Vec::new(), usize::MAX);
        slow.send_all(&mut kept, HEARTBEAT).unwrap();
        assert_eq!(kept.0.len(), most + 1);
        assert_eq!(kept.0[most], "event: lost\ndata: {}\n\n");
        let mut kept = Kept(Vec::new(), 1);
        quick.send_all(&mut kept, HEARTBEAT).unwrap();
        assert_eq!(kept.0, ["event: vacated\ndata: {\"topic\":\"a\\n\\\"b\\\"\",\"node\":7}\n\n"]);
    }

    #[test]
    fn in_silence_comments_are_sent_and_who_has_gone_is_found_by_them() {
        struct Gone(usize);
        impl Sink for Gone {
            fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
                assert_eq!(bytes, b":\n\n");
                self.0 = self.0.checked_sub(1).ok_or(io::ErrorKind::BrokenPipe)?;
                Ok(())
            }

            fn is_over(&self) -> bool {
                false
            }
        }
        let events = Arc::new(Events::default());
        events.set_node(NodeId::new(7));
        let listener = Listener::new(&events).unwrap();
        let begun = Instant::now();
        let error = listener.send_all(&mut Gone(3), Duration::from_millis(20)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert!(begun.elapsed() >= Duration::from_millis(80), "{:?}", begun.elapsed());
        // What happens comes instead of a comment.
        events.topic_occupied("t");
        let mut kept = Kept(Vec::new(), 1);
        listener.send_all(&mut kept, HEARTBEAT).unwrap();
        assert_eq!(kept.0, ["event: occupied\ndata: {\"topic\":\"t\",\"node\":7}\n\n"]);
    }

    #[test]
    fn only_so_many_listen_and_who_leaves_makes_room() {
        let events = Arc::new(Events::default());
        let mut listeners: Vec<_> = (0..LISTENERS).map(|_| Listener::new(&events).unwrap()).collect();
        assert!(Listener::new(&events).is_err());
        listeners.pop();
        assert!(Listener::new(&events).is_ok());
        drop(listeners);
        assert!(events.listeners.locked().all.is_empty());
    }
}

//! All limits that a user may set, each with its effect, its default, and the cost of another value.

use std::{fmt::Display, ops::RangeBounds, time::Duration};

use crate::{error::ServerError, memory};

/// By default buffers may take this part of the memory, or so many bytes where nobody knows how much there is.
const PART_OF_MEMORY: usize = 4;
const UNKNOWN_MEMORY: usize = 256 << 20;

/// By default topics may take this part of the memory, or so many bytes.
const TOPICS_PART_OF_MEMORY: usize = 16;
const TOPICS_UNKNOWN_MEMORY: usize = 64 << 20;

/// By default sessions in memory may take this part of the memory, or so many bytes.
const SESSIONS_PART_OF_MEMORY: usize = 16;
const SESSIONS_UNKNOWN_MEMORY: usize = 64 << 20;

/// By default the histories of topics may take this part of what buffers may take, and at most that part.
const HISTORY_PART_OF_BUFFERS: usize = 8;
const MOST_HISTORY_PART_OF_BUFFERS: usize = 4;

/// By default a queue takes so many messages of the largest size.
const LARGEST_IN_QUEUE: usize = 4;

/// No gateway sleeps longer while it has threads to look at.
pub(crate) const LONGEST_TICK: Duration = Duration::from_secs(1);

/// The shortest time that a timeout may be: less would end what has not even begun.
const SHORTEST: Duration = Duration::from_millis(1);

/// The limits of a server, so that no client can use more than its share. Times, sizes and numbers of threads are here, too. Those of one
/// connection are also a [client's](crate::Client#limits).
///
/// A value that makes no sense is refused by [`bind`](crate::ServerBuilder::bind), with a text that says what it has to be.
/// Unless a field says something else, a number must be 1 at least, and a time 1 ms.
///
/// All timeouts are in [one table](crate#timeouts); [how many connections](crate#how-many-connections) a machine can have is
/// said there, too.
///
/// ```
/// use switchboard::Limits;
/// use std::time::Duration;
///
/// let mut limits = Limits::default();
/// limits.max_message_size = 64 * 1024;
/// limits.handshake_timeout = Duration::from_secs(3);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Limits {
    /// Connections at the same time, including those in their handshake and those that wait for an HTTP request. Beyond it: HTTP
    /// 503 with `Retry-After`. Default 4,096, or what descriptors and memory are there for when the server begins to run, if that is
    /// less; any other number is kept. Each takes a file descriptor, and another one while it is sent a file; and a synchronous one a
    /// thread with its stack, for which there has to be memory: [how to choose it](crate#how-many-connections).
    pub max_connections: usize,
    /// Connections of one client's address at the same time, so that one client cannot take all places. Beyond it, one of them that
    /// only waits for an HTTP request gives up its place; if none does: HTTP 429 with `Retry-After`; over TLS, where nothing can be
    /// said before its handshake, the stream just ends. Default `None`: no limit of its own. Of IPv6 the first 64 bits count as the
    /// address, since a client has all of the others.
    ///
    /// Behind a proxy that is one of the [trusted](crate::ServerBuilder::trusted_proxies) the forwarded address counts, as
    /// soon as a request has told it, and never the proxy's own; so it is with what the
    /// [PROXY protocol](crate::ServerBuilder::proxy_protocol) tells. Behind any other proxy all clients have one address. On Unix
    /// sockets without a trusted proxy they have none, and are not counted. Many people may share an address: those of a company,
    /// or of a mobile network.
    pub max_connections_per_address: Option<usize>,
    /// Stack of each thread that runs handlers, in bytes, from 64 KiB to 1 GiB. Default 256 KiB: deep recursion in a handler
    /// needs more. Only what is really used becomes resident memory, but all stacks together have to fit into the addresses that there
    /// are (`ulimit -v`, 32 bits): [how many do](crate#how-many-connections). The server's other threads have stacks of 128 KiB (those
    /// that accept) and 256 KiB, gateways this one if it is larger.
    pub stack_size: usize,
    /// How long a thread whose connection has ended waits for another one before it ends. Default 2 s. A longer time saves
    /// starting threads when clients come in bursts; with zero, which is allowed, each connection has a new thread.
    pub thread_keep_alive: Duration,
    /// From the accept to the end of the opening handshake, TLS included; then the connection is cut. And how long
    /// [`open_server`](crate::Hub::open_server) waits for a connection that is being opened. Default 10 s.
    pub handshake_timeout: Duration,
    /// Bytes of a request's head, from 128 to 1 MiB. Beyond it: HTTP 431. Default 16 KiB; long cookies need more.
    pub max_head: usize,
    /// Bytes of a request's body that a page's handler [reads](crate::Exchange::body). Beyond it: HTTP 413. Default 1 MiB. Bodies
    /// count in [`max_buffered_bytes`](Self::max_buffered_bytes); while half of that is reached: HTTP 503.
    pub max_body: usize,
    /// How long a connection waits for its next HTTP request before it is closed. Default 5 s; with zero, which is allowed, each
    /// connection is closed after its response.
    pub http_keep_alive: Duration,
    /// Connections that wait for their next HTTP request, at the same time. Beyond it, the one that has waited longest is
    /// closed. Default 256; with 0 each connection is closed after its response. They count in
    /// [`max_connections`](Self::max_connections), but whoever comes when no place is left gets that of one of them.
    pub max_http_idle: usize,
    /// Bytes a second that a client has to send of a request's body, and to take of a response, on average; beside the time that
    /// it may take for any of it: [`handshake_timeout`](Self::handshake_timeout) for a body,
    /// [`write_timeout`](Self::write_timeout) for a response. A slower body is answered with HTTP 408, and a client that takes
    /// its response too slowly is cut. Default 4 KiB; with 0 the client only has to go on.
    pub min_http_rate: usize,
    /// Bytes of one incoming message: all fragments together, and decompressed. Beyond it: close code 1009. Default 1 MiB.
    pub max_message_size: usize,
    /// Bytes of one incoming frame. Beyond it: close code 1009. Default 1 MiB; a value above `max_message_size` has no
    /// effect.
    pub max_frame_size: usize,
    /// Messages of fewer bytes are sent uncompressed even where [compression](crate::Compression) is on. Default 64:
    /// shorter messages seldom become smaller. Any value; with 0 every message is compressed.
    pub min_compressed_size: usize,
    /// Bytes of the largest receive buffer, from 512 to 16 MiB. A buffer starts with half a KiB, grows while reads fill it, and
    /// shrinks again when they do not. Default 64 KiB; a smaller value saves memory, but large messages need more system calls.
    pub max_read_buffer: usize,
    /// How long `write` waits for a slow client; then it fails with `Timeout` and the connection is closed. Default
    /// 30 s.
    pub write_timeout: Duration,
    /// How long a closing handshake may take, until the client has answered and ended its side of the stream; then the
    /// connection is cut. When the client ends the connection, answers to what it sent before can still be sent for as long.
    /// Default 5 s.
    pub close_timeout: Duration,
    /// Bytes of the messages queued for one slow client. Beyond it, the connection's [`Overflow`](crate::Overflow)
    /// decides. As many may be queued while it is being opened. An empty queue takes any message. Default `None`: four times
    /// [`max_message_size`](Self::max_message_size), whatever that is, so that one client's largest messages, sent on to
    /// others, do not fill the queues of those that are reading.
    pub max_queue_bytes: Option<usize>,
    /// Number of the messages queued for one slow client; as [`max_queue_bytes`](Self::max_queue_bytes). Default 1,024.
    pub max_queue_messages: usize,
    /// Bytes of the messages that the gateway has received from one client and that were not read yet, or are not
    /// [acknowledged](crate::Delivery::ack). Beyond it, it receives nothing more from this client until there is room: TCP holds the
    /// client back. Default 1 MiB.
    pub max_inbox_bytes: usize,
    /// Number of these messages; as [`max_inbox_bytes`](Self::max_inbox_bytes). Default 256.
    pub max_inbox_messages: usize,
    /// Bytes that all connections of a server together hold in buffers: what has arrived and is not decoded, the parts of
    /// messages that are not complete, messages that are not read yet, queues, output that is not sent, and bodies of HTTP
    /// requests. Beyond it, those that hold most are closed with 1013 until the sum is a sixteenth below; one that still holds as
    /// much, since it does not take what it was sent before, is cut. From half of it on, bodies are refused, with HTTP 503, and
    /// so is what is pushed to connections that are being opened. What is sent to many counts once. Not in it are the stacks of
    /// threads, what [compression](crate::Compression) keeps between messages, the buffers that threads are receiving into
    /// ([`max_read_buffer`](Self::max_read_buffer) each, at most), what
    /// messages cost beside their bytes, and what your code holds. While many threads fill buffers at once, the sum may be above
    /// it for a moment. It must be 64 KiB at least; with less than [`max_message_size`](Self::max_message_size) the largest
    /// messages would not arrive.
    ///
    /// Default `None`: a quarter of the least of the machine's memory, the memory limits of the process's cgroups (v1 and v2), and
    /// what its own limits leave of addresses (`RLIMIT_AS`) and data (`RLIMIT_DATA`), as they are when the server is bound; 256 MiB
    /// where none is known. A warning in the log says if what was chosen does not fit. All clients of a
    /// process have one such bound [together](crate::Client#limits).
    pub max_buffered_bytes: Option<usize>,
    /// Topics that one connection may have joined at the same time. Beyond it, `join` fails with
    /// [`Error::OverLimit`](crate::Error::OverLimit). Default 256. Each takes some 100 bytes, and its name.
    pub max_topics: usize,
    /// Bytes of a topic's name; as [`max_topics`](Self::max_topics). Default 256.
    pub max_topic_name: usize,
    /// Bytes that all topics of a server may take, so that clients that choose what their connections join cannot fill the
    /// memory: each topic of each connection counts for 128 bytes and its name. As [`max_topics`](Self::max_topics). Default
    /// `None`: a sixteenth of the memory, as in [`max_buffered_bytes`](Self::max_buffered_bytes); 64 MiB where that is not
    /// known.
    pub max_topics_bytes: Option<usize>,
    /// Bytes that the [histories](crate::ServerBuilder::history) of all topics of a server may take, what their publications take
    /// beside their text included. Beyond it, topics are forgotten, those first whose last publication is of no use soonest; a
    /// single topic forgets its oldest publications. Publications of 1 KiB and more count in
    /// [`max_buffered_bytes`](Self::max_buffered_bytes), too; therefore it is never more than a quarter of that, whatever is set here.
    /// Default `None`: an eighth of that, which is a thirty-second part of the memory, or 32 MiB where that is not known. With 0
    /// nothing is remembered.
    pub max_history_bytes: Option<usize>,
    /// A client that has begun a message, and for this long sends nothing more of it, is closed with 1008; other messages,
    /// such as pings and pongs, do not count. Default 60 s; `None`: never. A message may take longer if it makes progress.
    pub message_timeout: Option<Duration>,
    /// A client that has sent nothing for this long is sent a ping. Default 20 s; `None`: never. Behind a proxy that ends silent
    /// connections, which many do after 60 s, it has to be less than that.
    pub ping_interval: Option<Duration>,
    /// A client that has sent nothing for this long after a ping is considered dead, and cut. Default 20 s. While nothing is
    /// received from a client because its inbox is full, its pongs cannot be seen: then TCP keepalive does the same.
    pub ping_timeout: Duration,
    /// A shared connection without a message in either direction for this long is closed with 1001. Pings do not count.
    /// Default `None`: never. A page that reconnects comes again: it would take 1000 as final.
    pub shared_idle_timeout: Option<Duration>,
    /// Threads that call [`on_client_message`](crate::WebSocketServer::on_client_message), 1,024 at most. Default 2. With 0 the
    /// gateway calls it: this is the fastest if handlers never wait, but one that waits stops all connections of its gateway.
    pub workers: usize,
    /// Gateway threads, from 1 to 64, each with its share of the connections. Default 1, which is enough for tens of thousands.
    pub gateways: usize,
    /// A session that was not used for this long ends: its values are removed. While a connection is open, its session is in
    /// use. Default 900 s. For the sessions in memory; another [store](crate::SessionStore) is asked eight times within this
    /// time to keep what is in use.
    pub session_timeout: Duration,
    /// Sessions that hold values, at the same time, in memory. At this number others are given up for a new one: first those
    /// that nobody has come back to, then those that were not [renewed](crate::Session::renew), and of them the least recently
    /// used, but none that has an open connection. If all have one, storing into another session fails with
    /// [`Error::SessionsFull`](crate::Error::SessionsFull). Default 10,000. Any number; with 0
    /// nothing can be stored.
    pub max_sessions: usize,
    /// Bytes of the keys and values of one session in memory, and 64 for each value. Beyond it nothing more is stored into it:
    /// [`Error::SessionsFull`](crate::Error::SessionsFull). Default 64 KiB.
    pub max_session_bytes: usize,
    /// Bytes that all sessions in memory may take together, so that strangers who make an application store something cannot fill the
    /// memory: their keys and values, 64 for each value and 640 for each session. Beyond it others are given up as at
    /// [`max_sessions`](Self::max_sessions). Default `None`: a sixteenth of the memory, as in
    /// [`max_buffered_bytes`](Self::max_buffered_bytes); 64 MiB where that is not known.
    pub max_session_memory: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: Self::MAX_CONNECTIONS,
            max_connections_per_address: None,
            stack_size: 256 * 1024,
            thread_keep_alive: Duration::from_secs(2),
            handshake_timeout: Duration::from_secs(10),
            max_head: 16 * 1024,
            max_body: 1 << 20,
            http_keep_alive: Duration::from_secs(5),
            max_http_idle: 256,
            min_http_rate: 4096,
            max_message_size: 1 << 20,
            max_frame_size: 1 << 20,
            min_compressed_size: 64,
            max_read_buffer: 64 * 1024,
            write_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(5),
            max_queue_bytes: None,
            max_queue_messages: 1024,
            max_inbox_bytes: 1 << 20,
            max_inbox_messages: 256,
            max_buffered_bytes: None,
            max_topics: 256,
            max_topic_name: 256,
            max_topics_bytes: None,
            max_history_bytes: None,
            message_timeout: Some(Duration::from_secs(60)),
            ping_interval: Some(Duration::from_secs(20)),
            ping_timeout: Duration::from_secs(20),
            shared_idle_timeout: None,
            workers: 2,
            gateways: 1,
            session_timeout: Duration::from_secs(900),
            max_sessions: 10_000,
            max_session_bytes: 64 * 1024,
            max_session_memory: None,
        }
    }
}

impl Limits {
    /// Who has so many has not chosen.
    pub(crate) const MAX_CONNECTIONS: usize = 4096;

    /// Checks that each makes sense.
    ///
    /// # Errors
    /// [`ServerError::Config`] for the first that does not.
    pub(crate) fn check(&self) -> Result<(), ServerError> {
        let times = [
            ("handshake_timeout", Some(self.handshake_timeout)),
            ("write_timeout", Some(self.write_timeout)),
            ("close_timeout", Some(self.close_timeout)),
            ("message_timeout", self.message_timeout),
            ("ping_interval", self.ping_interval),
            ("ping_timeout", Some(self.ping_timeout)),
            ("shared_idle_timeout", self.shared_idle_timeout),
            ("session_timeout", Some(self.session_timeout)),
        ];
        for (name, time) in times {
            check_time(name, time)?;
        }
        check_time("http_keep_alive", Some(self.http_keep_alive).filter(|time| !time.is_zero()))?;
        let numbers = [
            ("max_connections", self.max_connections),
            ("max_body", self.max_body),
            ("max_message_size", self.max_message_size),
            ("max_frame_size", self.max_frame_size),
            ("max_queue_messages", self.max_queue_messages),
            ("max_inbox_bytes", self.max_inbox_bytes),
            ("max_inbox_messages", self.max_inbox_messages),
            ("max_topics", self.max_topics),
            ("max_topic_name", self.max_topic_name),
            ("max_session_bytes", self.max_session_bytes),
        ];
        for (name, number) in numbers {
            check(name, number, 1.., "at least 1")?;
        }
        for (name, number) in [
            ("max_connections_per_address", self.max_connections_per_address),
            ("max_queue_bytes", self.max_queue_bytes),
            ("max_topics_bytes", self.max_topics_bytes),
            ("max_session_memory", self.max_session_memory),
        ] {
            check(name, number.unwrap_or(1), 1.., "at least 1, or none")?;
        }
        check(
            "stack_size",
            self.stack_size,
            64 << 10..=1 << 30,
            "from 65536 (64 KiB) to 1073741824 (1 GiB)",
        )?;
        check("max_head", self.max_head, 128..=1 << 20, "from 128 to 1048576 (1 MiB)")?;
        check("max_read_buffer", self.max_read_buffer, 512..=16 << 20, "from 512 to 16777216 (16 MiB)")?;
        check("workers", self.workers, ..=1024, "at most 1024")?;
        check("gateways", self.gateways, 1..=64, "from 1 to 64")?;
        let buffered = self.max_buffered_bytes.unwrap_or(usize::MAX);
        check("max_buffered_bytes", buffered, 64 << 10.., "at least 65536 (64 KiB), or none")
    }

    /// How often a gateway looks at threads that may be busy: in time for the shortest limit.
    pub(crate) fn tick(&self) -> Duration {
        let shortest =
            [self.ping_interval, Some(self.ping_timeout), Some(self.write_timeout), self.message_timeout];
        let shortest = shortest.into_iter().flatten().min().unwrap_or(LONGEST_TICK);
        (shortest / 4).clamp(Duration::from_millis(10), LONGEST_TICK)
    }

    /// What [`max_buffered_bytes`](Self::max_buffered_bytes) comes to.
    pub(crate) fn buffered_bytes(&self) -> usize {
        self.max_buffered_bytes.unwrap_or_else(|| part_of_memory(PART_OF_MEMORY, UNKNOWN_MEMORY))
    }

    /// What [`max_topics_bytes`](Self::max_topics_bytes) comes to.
    pub(crate) fn topics_bytes(&self) -> usize {
        let part = || part_of_memory(TOPICS_PART_OF_MEMORY, TOPICS_UNKNOWN_MEMORY);
        self.max_topics_bytes.unwrap_or_else(part)
    }

    /// What [`max_session_memory`](Self::max_session_memory) comes to.
    pub(crate) fn session_memory(&self) -> usize {
        let part = || part_of_memory(SESSIONS_PART_OF_MEMORY, SESSIONS_UNKNOWN_MEMORY);
        self.max_session_memory.unwrap_or_else(part)
    }

    /// What [`max_history_bytes`](Self::max_history_bytes) comes to. It counts as buffers, and nobody can be ended for it.
    pub(crate) fn history_bytes(&self) -> usize {
        let buffered = self.buffered_bytes();
        let history = self.max_history_bytes.unwrap_or(buffered / HISTORY_PART_OF_BUFFERS);
        history.min(buffered / MOST_HISTORY_PART_OF_BUFFERS)
    }

    /// What [`max_queue_bytes`](Self::max_queue_bytes) comes to.
    pub(crate) fn queue_bytes(&self) -> usize {
        self.max_queue_bytes.unwrap_or(self.max_message_size.saturating_mul(LARGEST_IN_QUEUE))
    }
}

fn check(name: &str, value: usize, range: impl RangeBounds<usize>, words: &str) -> Result<(), ServerError> {
    if range.contains(&value) { Ok(()) } else { Err(refuse(name, value, words)) }
}

fn check_time(name: &str, time: Option<Duration>) -> Result<(), ServerError> {
    match time {
        Some(time) if time < SHORTEST => Err(refuse(name, format_args!("{time:?}"), "at least 1ms")),
        _ => Ok(()),
    }
}

fn refuse(name: &str, value: impl Display, words: &str) -> ServerError {
    ServerError::config(format!("the limit {name} is {value}: it has to be {words}"))
}

/// This part of the memory, or so many bytes where nobody knows how much there is.
fn part_of_memory(part: usize, unknown: usize) -> usize {
    let available = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX) / part;
    memory::available().map_or(unknown, available)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_refused_beyond_its_range_and_named() {
        type Change = fn(&mut Limits, usize);
        let numbers: &[(&str, usize, usize, Change)] = &[
            ("max_connections", 1, usize::MAX, |l, n| l.max_connections = n),
            ("max_connections_per_address", 1, usize::MAX, |l, n| l.max_connections_per_address = Some(n)),
            ("stack_size", 64 << 10, 1 << 30, |l, n| l.stack_size = n),
            ("max_head", 128, 1 << 20, |l, n| l.max_head = n),
            ("max_body", 1, usize::MAX, |l, n| l.max_body = n),
            ("max_http_idle", 0, usize::MAX, |l, n| l.max_http_idle = n),
            ("min_http_rate", 0, usize::MAX, |l, n| l.min_http_rate = n),
            ("max_message_size", 1, usize::MAX, |l, n| l.max_message_size = n),
            ("max_frame_size", 1, usize::MAX, |l, n| l.max_frame_size = n),
            ("min_compressed_size", 0, usize::MAX, |l, n| l.min_compressed_size = n),
            ("max_read_buffer", 512, 16 << 20, |l, n| l.max_read_buffer = n),
            ("max_queue_bytes", 1, usize::MAX, |l, n| l.max_queue_bytes = Some(n)),
            ("max_queue_messages", 1, usize::MAX, |l, n| l.max_queue_messages = n),
            ("max_inbox_bytes", 1, usize::MAX, |l, n| l.max_inbox_bytes = n),
            ("max_inbox_messages", 1, usize::MAX, |l, n| l.max_inbox_messages = n),
            ("max_buffered_bytes", 64 << 10, usize::MAX, |l, n| l.max_buffered_bytes = Some(n)),
            ("workers", 0, 1024, |l, n| l.workers = n),
            ("gateways", 1, 64, |l, n| l.gateways = n),
            ("max_sessions", 0, usize::MAX, |l, n| l.max_sessions = n),
            ("max_session_bytes", 1, usize::MAX, |l, n| l.max_session_bytes = n),
            ("max_topics", 1, usize::MAX, |l, n| l.max_topics = n),
            ("max_topic_name", 1, usize::MAX, |l, n| l.max_topic_name = n),
            ("max_topics_bytes", 1, usize::MAX, |l, n| l.max_topics_bytes = Some(n)),
            ("max_session_memory", 1, usize::MAX, |l, n| l.max_session_memory = Some(n)),
        ];
        for (name, least, most, change) in numbers {
            let checked = |n: usize| {
                let mut limits = Limits::default();
                change(&mut limits, n);
                limits.check().map_err(|e| e.to_string())
            };
            assert_eq!((checked(*least), checked(*most)), (Ok(()), Ok(())), "{name}");
            for beyond in [least.checked_sub(1), most.checked_add(1)].into_iter().flatten() {
                let text = checked(beyond).unwrap_err();
                assert!(text.contains(&format!("{name} is {beyond}: ")) && !text.contains('\n'), "{text}");
            }
        }
    }

    #[test]
    fn no_timeout_is_zero() {
        type Change = fn(&mut Limits, Duration);
        let times: &[(&str, Change)] = &[
            ("handshake_timeout", |l, t| l.handshake_timeout = t),
            ("write_timeout", |l, t| l.write_timeout = t),
            ("close_timeout", |l, t| l.close_timeout = t),
            ("message_timeout", |l, t| l.message_timeout = Some(t)),
            ("ping_interval", |l, t| l.ping_interval = Some(t)),
            ("ping_timeout", |l, t| l.ping_timeout = t),
            ("shared_idle_timeout", |l, t| l.shared_idle_timeout = Some(t)),
            ("session_timeout", |l, t| l.session_timeout = t),
        ];
        for (name, change) in times {
            for (time, is_good) in [
                (Duration::ZERO, false),
                (Duration::from_micros(999), false),
                (Duration::from_millis(1), true),
                (Duration::MAX, true),
            ] {
                let mut limits = Limits::default();
                change(&mut limits, time);
                let checked = limits.check().map_err(|e| e.to_string());
                assert_eq!(checked.is_ok(), is_good, "{name} {time:?}: {checked:?}");
                assert!(checked.err().is_none_or(|text| text.contains(name)));
            }
        }
        let fast = Limits { http_keep_alive: Duration::from_micros(999), ..Limits::default() };
        assert!(fast.check().unwrap_err().to_string().contains("http_keep_alive is 999µs: "));
        let none = Limits { message_timeout: None, ping_interval: None, ..Limits::default() };
        Limits { http_keep_alive: Duration::ZERO, ..none.clone() }.check().unwrap();
        Limits { thread_keep_alive: Duration::ZERO, ..none }.check().unwrap();
    }
}

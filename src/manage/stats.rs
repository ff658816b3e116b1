//! The numbers of a server, for whoever looks at it all the time: as Server-Sent Events, each with all of them. However many look,
//! they are found once for all, a few times a second at most.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread::sleep,
    time::{Duration, Instant, SystemTime},
};

use http::header;

use super::{
    LOOK,
    answers::full,
    events::HEARTBEAT,
    json::{Date, Millis, Object, Seconds},
    process::Process,
    query::Query,
    stays::Stays,
};
use crate::{
    http::{Refusal, Request, Response, Sink},
    incidents::Incident,
    protocol::Counts,
    registry::Census,
    server::MainServer,
    sync::LockExt,
};

/// So many listen at most: each has a connection, of which there are few.
const LISTENERS: usize = 32;

/// How often they want to know.
const INTERVAL: Duration = Duration::from_secs(1);
const SHORTEST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(60);

/// For so long the same numbers are good enough for others.
const FRESH: Duration = Duration::from_millis(250);

pub(super) struct Stats {
    main: MainServer,
    started: Instant,
    last: Mutex<Option<Arc<Numbers>>>,
    listeners: AtomicUsize,
}

/// The numbers at one moment.
pub(super) struct Numbers {
    at: Instant,
    pub(super) census: Census,
    pub(super) process: Process,
    /// All that is in an event.
    text: String,
}

/// One who listens, until this is dropped.
pub(super) struct Listener {
    stats: Arc<Stats>,
    interval: Duration,
}

impl Stats {
    pub(super) fn new(main: MainServer) -> Self {
        Self { main, started: Instant::now(), last: Mutex::default(), listeners: AtomicUsize::new(0) }
    }

    /// The numbers, again and again; or, for who wants JSON, once.
    pub(super) fn answer(
        stats: &Arc<Self>,
        stays: &Arc<Stays>,
        request: &Request,
    ) -> Result<Response, Refusal> {
        let accepts = |kind| request.tokens(header::ACCEPT).any(|item| is_media_type(item, kind));
        if accepts("application/json") && !accepts("text/event-stream") {
            interval(request)?;
            return Ok(Response::json(stats.numbers().text.clone()));
        }
        let (listener, stay) = (Listener::of(stats, request)?, stays.enter()?);
        Ok(Response::produced("text/event-stream", move |sink| {
            let _stay = &stay;
            listener.send_all(sink)
        }))
    }

    /// The numbers of now, or of a moment ago. Others wait meanwhile, for the same.
    pub(super) fn numbers(&self) -> Arc<Numbers> {
        let mut last = self.last.locked();
        if let Some(numbers) = last.as_ref().filter(|numbers| numbers.at.elapsed() < FRESH) {
            return numbers.clone();
        }
        let numbers = Arc::new(Numbers::of(&self.main, last.as_deref()));
        *last = Some(numbers.clone());
        numbers
    }
}

/// How often it is to be told.
fn interval(request: &Request) -> Result<Duration, Refusal> {
    let query = Query::of(request, &["interval"])?;
    Ok(query.seconds("interval", SHORTEST, LONGEST)?.unwrap_or(INTERVAL))
}

/// Whether this item of an `Accept` is this type, whatever its parameters.
fn is_media_type(item: &[u8], kind: &str) -> bool {
    let name = item.split(|b| *b == b';').next().unwrap_or_default();
    name.trim_ascii().eq_ignore_ascii_case(kind.as_bytes())
}

impl Listener {
    /// As the request wants it.
    ///
    /// # Errors
    /// It wants what there is not, or there are too many.
    pub(super) fn of(stats: &Arc<Stats>, request: &Request) -> Result<Self, Refusal> {
        Self::new(stats, interval(request)?).ok_or_else(|| full("too many look at the numbers"))
    }

    /// The numbers of now: an object.
    pub(super) fn text(&self) -> String {
        self.stats.numbers().text.clone()
    }

    /// When the next ones are told.
    pub(super) fn until_next(&self) -> Duration {
        until_next(self.stats.started.elapsed(), self.interval)
    }

    /// `None`: there are too many.
    fn new(stats: &Arc<Stats>, interval: Duration) -> Option<Self> {
        let one_more = |count| (count < LISTENERS).then_some(count + 1);
        stats.listeners.fetch_update(SeqCst, SeqCst, one_more).ok()?;
        Some(Self { stats: stats.clone(), interval })
    }

    fn send_all(&self, sink: &mut dyn Sink) -> io::Result<()> {
        loop {
            let numbers = self.stats.numbers();
            sink.send(format!("event: stats\ndata: {}\n\n", numbers.text).as_bytes())?;
            let (mut left, mut silent) = (self.until_next(), Duration::ZERO);
            while !left.is_zero() {
                let pause = left.min(LOOK);
                sleep(pause);
                (left, silent) = (left - pause, silent + pause);
                if sink.is_over() {
                    return Ok(());
                }
                if silent >= HEARTBEAT {
                    silent = Duration::ZERO;
                    sink.send(b":\n\n")?;
                }
            }
        }
    }
}

/// All who want to know it as often are told at the same moments, so that they get the same numbers. Nobody gets the next ones so
/// soon that a difference of the two means little.
fn until_next(passed: Duration, interval: Duration) -> Duration {
    let passed = passed.as_micros() % interval.as_micros();
    let left = interval.saturating_sub(Duration::from_micros(passed.try_into().unwrap_or_default()));
    if left < interval / 2 { left + interval } else { left }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stats.listeners.fetch_sub(1, SeqCst);
    }
}

impl Numbers {
    fn of(main: &MainServer, last: Option<&Self>) -> Self {
        let mut census = main.census();
        // What a connection still receives in its last moment may be counted at one look, and not at the next.
        if let Some(last) = last {
            census.counts = at_least(census.counts, last.census.counts);
        }
        let process = Process::now();
        let text = text(main, &census, &process);
        Self { at: Instant::now(), census, process, text }
    }
}

fn at_least(counts: Counts, last: Counts) -> Counts {
    Counts {
        messages_in: counts.messages_in.max(last.messages_in),
        messages_out: counts.messages_out.max(last.messages_out),
        bytes_in: counts.bytes_in.max(last.bytes_in),
        bytes_out: counts.bytes_out.max(last.bytes_out),
    }
}

fn text(main: &MainServer, census: &Census, process: &Process) -> String {
    let pushes: Vec<_> = main.metrics().into_iter().flat_map(|metrics| metrics.pushes()).collect();
    let all_pushes: u64 = pushes.iter().map(|(_, count)| count).sum();
    let by_result = pushes.iter().fold(Object::new(), |object, (result, count)| object.with(result, *count));
    let millis = |part| census.round_trip(part).map(Millis);
    let round_trip = millis(500).map(|p50| Object::new().with("p50", p50).with("p99", millis(990)));
    let refused: u64 =
        main.incidents().iter().filter(|(incident, _)| is_refusal(*incident)).map(|(_, count)| count).sum();
    Object::new()
        .with("time", Date(SystemTime::now()))
        .with("uptimeSeconds", Seconds(main.uptime()))
        .with("version", env!("CARGO_PKG_VERSION"))
        .with("node", u64::from(main.registry().node().get()))
        .with("cluster", main.cluster_state())
        .with("nodes", main.nodes())
        .with("connections", census.open)
        .with("shared", census.shared)
        .with("synchronous", census.open - census.shared)
        .with("maxConnections", main.limits().max_connections)
        .with("opened", census.opened())
        .with("closed", census.closed)
        .with("refused", refused)
        .with("messagesIn", census.counts.messages_in)
        .with("messagesOut", census.counts.messages_out)
        .with("bytesIn", census.counts.bytes_in)
        .with("bytesOut", census.counts.bytes_out)
        .with("pushes", all_pushes)
        .with("pushesByResult", by_result)
        .with("queuedBytes", census.queued)
        .with("topics", census.topics)
        .with("users", census.users)
        .with("roundTripMillis", round_trip)
        .with("threads", process.threads)
        .with("residentBytes", process.resident_bytes)
        .into_text()
}

/// Whether this is a client that wanted something and was turned away.
pub(super) fn is_refusal(incident: Incident) -> bool {
    matches!(
        incident,
        Incident::Refused(_) | Incident::NoPlace | Incident::NoPlaceForAddress | Incident::NoRoom
    )
}

impl fmt::Debug for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stats").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_told_at_the_same_moments() {
        let millis = Duration::from_millis;
        for (passed, left) in [(0, 1000), (1, 999), (500, 500), (501, 1499), (7_999, 1001), (8_000, 1000)] {
            assert_eq!(until_next(millis(passed), millis(1000)), millis(left), "{passed}");
        }
        assert_eq!(until_next(millis(100), millis(700)), millis(600));
    }

    #[test]
    fn types_that_are_accepted() {
        let accepts = |item: &str| is_media_type(item.as_bytes(), "application/json");
        assert!(
            ["application/json", "Application/JSON ;q=0.5", "application/json;v=1"].map(accepts) == [true; 3]
        );
        assert!(["*/*", "application/jsonx", "text/event-stream", ""].map(accepts) == [false; 4]);
    }
}

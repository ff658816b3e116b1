//! A hub in another process when something is lost: the link, the server, its answers, or the process that reads.
#![cfg(all(feature = "__tls", feature = "manage", feature = "remote"))]
mod common;

use std::{
    collections::HashMap,
    fs::{self, OpenOptions},
    io::Write,
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use common::{PATIENCE, Until, eventually, eventually_or, folder::Folder, full_app, is_alone};
use rustix::process::{Pid, Signal, kill_process};
use switchboard::{
    Audience, Client, Error, Hub, Limits, Manage, Message, Opening, PushErrorKind, Pushed, Reconnecting,
    Refusal, RunningServer, Server, ServerBuilder, ServerResult, WebSocket, WebSocketId, WebSocketServer,
};

/// A call that is not to wait returns within this, also on a machine that has much to do.
const AT_ONCE: Duration = Duration::from_millis(500);

/// A shared connection whose messages are all left to be read.
struct Unread;

impl WebSocketServer for Unread {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        opening.set_shared_connection(true);
        Ok(())
    }

    fn server(&mut self, _ws: &mut WebSocket) -> ServerResult {
        Ok(())
    }
}

/// A server with clients at `unix:…/ws`, and links at `unix:…/hub`.
fn server(folder: &Path) -> ServerBuilder {
    let socket = |name: &str| format!("unix:{}", folder.join(name).display());
    Server::builder()
        .listen(socket("ws"))
        .route("/unread/*", || Unread)
        .manage(Manage::new().listen(socket("hub")))
}

fn start(folder: &Path) -> RunningServer {
    server(folder).bind().unwrap().spawn().unwrap()
}

fn hub_url(folder: &Path) -> String {
    format!("unix:{}", folder.join("hub").display())
}

/// A hub whose server may be slow with its answers, as long as it is there.
fn patient(url: &str) -> Hub {
    Hub::builder().answer_timeout(PATIENCE).connect(url).unwrap()
}

fn client(folder: &Path, path: &str) -> Client {
    Client::connect(&format!("unix:{}:{path}", folder.join("ws").display())).unwrap()
}

fn only_id(hub: &Hub) -> WebSocketId {
    let page = hub.connections(Audience::All, None, 0).unwrap();
    assert_eq!(page.items.len(), 1);
    page.items[0].id
}

fn is_unreachable(result: &Result<Pushed, switchboard::PushError>) -> bool {
    matches!(result, Err(e) if matches!(e.kind, PushErrorKind::Unreachable))
}

// Other processes.

/// What a child of a test is.
const ROLE: &str = "SWITCHBOARD_ROLE";

/// A child process, which is killed with this.
struct Role(Child);

impl Role {
    /// Runs this test executable as `role`, with an argument.
    fn start(role: &str, folder: &Path, argument: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "in_another_process", "--nocapture"]);
        command.env(ROLE, role).env("FOLDER", folder).env("ARGUMENT", argument);
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }

    /// As `kill -9` does, or stops it.
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// Whether none of its threads runs any more.
    fn is_stopped(&self) -> bool {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.0.id())).unwrap();
        let stat =
            |task: std::io::Result<fs::DirEntry>| fs::read_to_string(task.unwrap().path().join("stat"));
        tasks.map(stat).all(|stat| stat.is_ok_and(|stat| stat.rsplit(") ").next().unwrap().starts_with('T')))
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// No test: what the children of the others do.
#[test]
fn in_another_process() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let folder = PathBuf::from(std::env::var_os("FOLDER").unwrap());
    let argument = std::env::var("ARGUMENT").unwrap();
    match role.as_str() {
        "server" => {
            let mut limits = Limits::default();
            limits.max_connections = 1000;
            let _server = server(&folder).limits(limits).bind().unwrap().spawn().unwrap();
            loop {
                thread::park();
            }
        }
        "pusher" => push_and_tell(&folder, argument.parse().unwrap()),
        "reader" => read_and_tell(&folder, &argument),
        other => panic!("what is {other}?"),
    }
}

/// A hub, as soon as there is a server.
fn hub_of(folder: &Path) -> Hub {
    let begun = Instant::now();
    loop {
        match Hub::connect(&hub_url(folder)) {
            Ok(hub) => return hub,
            Err(e) => assert!(begun.elapsed() < PATIENCE, "{e}"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

// Whole servers that come and go.

#[test]
fn while_the_server_is_down_calls_fail_at_once_and_then_they_work_again() {
    let folder = Folder::new();
    let mut running = start(&folder);
    let hub = patient(&hub_url(&folder));
    for round in 0..3 {
        let client = client(&folder, "/unread/a");
        eventually("it is known", || hub.len().unwrap() == 1);
        let id = only_id(&hub);
        let (ws, pusher) = (hub.open_server(&id).unwrap(), hub.pusher(&id).unwrap());
        let _ = hub.push(&id, "before").unwrap();
        assert_eq!(client.read_message(PATIENCE).unwrap(), "before");
        let waits = thread::scope(|scope| {
            let waits = scope.spawn(|| ws.read_message(PATIENCE));
            thread::sleep(Duration::from_millis(20));
            running.shutdown(Duration::ZERO).unwrap();
            waits.join().unwrap()
        });
        assert!(matches!(waits, Err(Error::Closed(_) | Error::Unreachable)), "{waits:?}");
        let begun = Instant::now();
        eventually("it is down", || matches!(hub.len(), Err(Error::Unreachable)));
        for _ in 0..100 {
            let error = hub.push(&id, "back").unwrap_err();
            assert!(matches!(error.kind, PushErrorKind::Unreachable) && error.message == "back", "{error:?}");
            assert!(matches!(
                pusher.push_wait("back", PATIENCE).unwrap_err().kind,
                PushErrorKind::Unreachable
            ));
            assert!(hub.push_all([(id, "1"), (id, "2")]).iter().all(is_unreachable));
            let calls =
                [hub.connection(&id).map(drop), hub.open_server(&id).map(drop), hub.close(&id, 1000, "")];
            assert!(calls.iter().all(|call| matches!(call, Err(Error::Unreachable))), "{calls:?}");
        }
        assert!(begun.elapsed() < PATIENCE, "round {round}");
        drop(client);
        running = start(&folder);
        eventually("it is up", || hub.len().is_ok());
        // What was opened there is not there any more.
        assert!(matches!(ws.read(0, PATIENCE), Err(Error::Closed(_))));
        assert!(matches!(ws.write("x"), Err(Error::Closed(_))) && ws.close_reason().is_some());
        assert!(matches!(pusher.push("x").unwrap_err().kind, PushErrorKind::Closed(_)));
    }
    drop(running);
}

#[test]
fn a_server_that_is_stopped_is_waited_for_for_no_longer_than_it_is_said() {
    if !is_alone("a_server_that_is_stopped_is_waited_for_for_no_longer_than_it_is_said") {
        return;
    }
    let folder = Folder::new();
    let server = Role::start("server", &folder, "");
    drop(hub_of(&folder));
    let hub = Hub::builder().answer_timeout(Duration::from_millis(200)).connect(&hub_url(&folder)).unwrap();
    let client = client(&folder, "/unread/a");
    let mut ws = None;
    eventually("it is known, and opened in time", || {
        let id = hub.connections(Audience::All, None, 1).ok().and_then(|page| Some(page.items.first()?.id));
        ws = id.and_then(|id| hub.open_server(&id).ok());
        ws.is_some()
    });
    let ws = ws.unwrap();
    let id = *ws.websocket_id();
    server.signal(Signal::STOP);
    eventually("all of it has stopped", || server.is_stopped());
    let threads = || fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    let before = threads();
    // They push more than any socket takes, and more often than there are places for requests.
    let text = "x".repeat(100_000);
    let slowest = Mutex::new(Duration::ZERO);
    thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let begun = Instant::now();
                    let pushed = hub.push(&id, &text).map_err(|e| e.kind);
                    assert!(matches!(pushed, Err(PushErrorKind::Unreachable)), "{pushed:?}");
                    assert!(matches!(hub.len(), Err(Error::Unreachable)));
                    let mut slowest = slowest.lock().unwrap();
                    *slowest = begun.elapsed().max(*slowest);
                }
            });
        }
    });
    let slowest = *slowest.lock().unwrap();
    assert!(slowest < Duration::from_secs(5), "{slowest:?}");
    eventually("no thread is left", || threads() <= before + 2);
    let begun = Instant::now();
    let reads =
        [ws.read(0, Duration::from_millis(100)).map(drop), ws.read_delivery(0, Duration::ZERO).map(drop)];
    assert!(reads.iter().all(|read| matches!(read, Err(Error::Unreachable))), "{reads:?}");
    assert!(hub.push_all((0..10_000).map(|_| (id, "x"))).iter().all(is_unreachable));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    server.signal(Signal::CONT);
    eventually("it answers", || hub.len().is_ok_and(|len| len == 1));
    // Those that were told to be unreachable may have arrived, each once. There are no more of them than were under way.
    let _ = hub.push_wait(&id, "the last", PATIENCE);
    let mut late = 0;
    while client.read_message(PATIENCE).is_ok_and(|message| message != "the last") {
        late += 1;
    }
    assert!(late <= 1100, "{late}");
    client.write("all goes on").unwrap();
    eventually("it reads", || ws.read(0, PATIENCE).is_ok());
}

/// Forwards one Unix socket to another, until it is cut.
struct Wire {
    path: String,
    streams: Arc<Mutex<Vec<UnixStream>>>,
}

impl Wire {
    fn new(folder: &Folder) -> Self {
        let (path, to) = (folder.path("wire"), folder.path("hub"));
        let listener = UnixListener::bind(&path).unwrap();
        let streams = Arc::<Mutex<Vec<UnixStream>>>::default();
        let all = streams.clone();
        thread::spawn(move || {
            for here in listener.incoming().map_while(Result::ok) {
                let Ok(there) = UnixStream::connect(&to) else { continue };
                for (mut from, mut to) in [
                    (here.try_clone().unwrap(), there.try_clone().unwrap()),
                    (there.try_clone().unwrap(), here.try_clone().unwrap()),
                ] {
                    thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(Shutdown::Both);
                    });
                }
                all.lock().unwrap().extend([here, there]);
            }
        });
        Self { path: format!("unix:{path}"), streams }
    }

    fn cut(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

#[test]
fn after_a_cut_what_was_opened_goes_on_and_what_was_not_acknowledged_comes_again() {
    let folder = Folder::new();
    let _server = start(&folder);
    let wire = Wire::new(&folder);
    let hub = patient(&wire.path);
    let client = client(&folder, "/unread/a");
    eventually("it is known", || hub.len().unwrap() == 1);
    let ws = hub.open_server(&only_id(&hub)).unwrap();
    for message in ["first", "second", "third", "fourth"] {
        client.write(message).unwrap();
    }
    let deliver = || loop {
        match ws.read_delivery(usize::MAX, PATIENCE) {
            Err(Error::Unreachable) => thread::sleep(Duration::from_millis(5)),
            other => break other.unwrap(),
        }
    };
    let first = deliver();
    assert!(*first == "first" && !first.redelivered());
    first.ack();
    let [second, third] = [deliver(), deliver()];
    assert!(*second == "second" && *third == "third");
    assert!(hub.is_empty().is_ok_and(|is_empty| !is_empty)); // the acknowledgement has arrived
    wire.cut();
    // The new link may be there before the server knows that the old one is lost.
    eventually("it has come back", || is_next(&ws, "second"));
    let again = deliver();
    assert!(*again == "second" && again.redelivered(), "{again:?}");
    // Of the old link: it cannot be acknowledged, nor given back.
    assert_eq!(second.ack(), "second");
    drop(third);
    again.ack();
    // A read that has returned is acknowledged by what is asked next.
    assert_eq!(read(&ws), "third");
    ws.flush().unwrap();
    wire.cut();
    eventually("the link is up", || hub.len().is_ok());
    let fourth = deliver();
    assert!(*fourth == "fourth", "{fourth:?}");
    fourth.ack();
    // And one that is not comes again.
    client.write("fifth").unwrap();
    assert_eq!(read(&ws), "fifth");
    wire.cut();
    eventually("the link is up", || hub.len().is_ok());
    assert_eq!(read(&ws), "fifth");
    drop(ws);
    let ws = hub.open_server(&only_id(&hub)).unwrap();
    client.write("sixth").unwrap();
    assert_eq!(read(&ws), "sixth", "the drop has acknowledged it");
    ws.write("heard").unwrap();
    assert_eq!(client.read_message(PATIENCE).unwrap(), "heard");
}

/// What it reads, it gives back.
fn is_next(ws: &WebSocket, text: &str) -> bool {
    ws.read_delivery(usize::MAX, Duration::ZERO).is_ok_and(|delivery| *delivery == text)
}

fn read(ws: &WebSocket) -> Message {
    loop {
        match ws.read_message(PATIENCE) {
            Err(Error::Unreachable) => thread::sleep(Duration::from_millis(5)),
            other => break other.unwrap(),
        }
    }
}

#[test]
fn a_delivery_is_given_back_when_it_is_dropped_and_outlives_what_it_was_read_by() {
    let folder = Folder::new();
    let _server = start(&folder);
    let hub = patient(&hub_url(&folder));
    let client = client(&folder, "/unread/a");
    eventually("it is known", || hub.len().unwrap() == 1);
    let id = only_id(&hub);
    client.write("first").unwrap();
    client.write("second").unwrap();
    let one = hub.open_server(&id).unwrap();
    let first = one.read_delivery(usize::MAX, PATIENCE).unwrap();
    drop(one);
    let two = hub.open_server(&id).unwrap();
    let second = two.read_delivery(usize::MAX, PATIENCE).unwrap();
    assert!(*second == "second" && !second.redelivered());
    first.ack();
    drop(second);
    let again = two.read_delivery(usize::MAX, PATIENCE).unwrap();
    assert!(*again == "second" && again.redelivered());
    again.ack();
    drop(two);
    assert!(matches!(hub.open_server(&id).unwrap().try_read(0), Ok(None)));
}

#[test]
fn the_thread_of_a_hub_ends_with_the_last_that_needs_it() {
    if !is_alone("the_thread_of_a_hub_ends_with_the_last_that_needs_it") {
        return;
    }
    let folder = Folder::new();
    let _server = start(&folder);
    let client = client(&folder, "/unread/a");
    let threads = || {
        let tasks = fs::read_dir("/proc/self/task").unwrap();
        let name =
            |task: std::io::Result<fs::DirEntry>| fs::read_to_string(task.unwrap().path().join("comm"));
        tasks.filter_map(|task| name(task).ok()).filter(|name| name.trim() == "switchboard-hub").count()
    };
    let hub = patient(&hub_url(&folder));
    eventually("it is known", || hub.len().unwrap() == 1);
    assert_eq!(threads(), 1);
    let (ws, pusher) = (hub.open_server(&only_id(&hub)).unwrap(), hub.pusher(&only_id(&hub)).unwrap());
    client.write("x").unwrap();
    let delivery = ws.read_delivery(0, PATIENCE).unwrap();
    drop(hub);
    let _ = pusher.push("y").unwrap();
    drop((ws, pusher));
    assert_eq!(threads(), 1);
    drop(delivery);
    eventually("the thread has ended", || threads() == 0);
    // Also while it waits to connect again.
    let wire = Wire::new(&folder);
    let hub = patient(&wire.path);
    fs::remove_file(folder.path("wire")).unwrap();
    wire.cut();
    eventually("the link is lost", || hub.len().is_err());
    drop(hub);
    eventually("the thread has ended", || threads() == 0);
}

// Servers that do not do as they should.

/// Starts one that says hello, and then does with each message of the client what is said.
fn fake(
    folder: &Folder,
    answer: impl Fn(&WebSocket, Message) + Clone + Send + Sync + 'static,
) -> RunningServer {
    let serve = move || {
        let answer = answer.clone();
        full_app(
            |opening: &mut Opening| {
                opening.choose_subprotocol(&["switchboard.hub.1"]);
                Ok(())
            },
            move |ws: &mut WebSocket| {
                ws.write(Message::from(hello()))?;
                for message in ws.messages().skip(1) {
                    answer(ws, message);
                }
                Ok(())
            },
            |_| {},
        )
    };
    let builder = Server::builder().listen(format!("unix:{}", folder.path("hub"))).route("/@hub", serve);
    builder.bind().unwrap().spawn().unwrap()
}

/// As `wire` says: version 1, its name, 1 MiB, 1,024, 256, 10 s, 30 s, an epoch.
fn hello() -> Vec<u8> {
    let mut hello = vec![1, 4];
    hello.extend_from_slice(b"fake");
    hello.extend_from_slice(&[0x80, 0x80, 0x40, 0x80, 0x08, 0x80, 0x02, 0x90, 0x4e, 0xb0, 0xea, 0x01, 7]);
    hello
}

/// The number of a request.
fn number(request: &[u8]) -> [u8; 4] {
    request[4..8].try_into().unwrap()
}

fn frame(number: [u8; 4], body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes(), &number[..], body].concat()
}

fn nobody() -> WebSocketId {
    "AAAAAAAAAAAAAAAAAAAAAA".parse().unwrap()
}

/// The body of the answer `Sent`.
const SENT: &[u8] = &[2];

#[test]
fn a_server_that_does_not_answer_takes_no_more_than_the_time_for_an_answer() {
    let folder = Folder::new();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let _server = fake(&folder, move |_, _| {
        count.fetch_add(1, SeqCst);
    });
    let hub = Hub::builder().answer_timeout(Duration::from_millis(50)).connect(&hub_url(&folder)).unwrap();
    let begun = Instant::now();
    assert!(is_unreachable(&hub.push(&nobody(), "x")));
    assert!(matches!(
        hub.push_wait(&nobody(), "x", AT_ONCE / 4).unwrap_err().kind,
        PushErrorKind::Unreachable
    ));
    assert!(begun.elapsed() >= Duration::from_millis(100));
    // There are places for so many that nobody waits for any more. Then nothing more is even sent.
    thread::scope(|scope| {
        for _ in 0..64 {
            scope.spawn(|| (0..20).for_each(|_| assert!(is_unreachable(&hub.push(&nobody(), "x")))));
        }
    });
    assert!(hub.push_all((0..3000).map(|_| (nobody(), "x"))).iter().all(is_unreachable));
    eventually("all that were sent have come", || asked.load(SeqCst) == 1024);
    assert!(is_unreachable(&hub.push(&nobody(), "x")));
    assert_eq!(asked.load(SeqCst), 1024);
    assert!(begun.elapsed() < PATIENCE);
}

#[test]
fn a_link_whose_server_takes_nothing_more_is_known_to_be_down() {
    let folder = Folder::new();
    let (links, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(())));
    let (counted, closed) = (links.clone(), gate.clone());
    let held = gate.lock().unwrap();
    // It has the first message of each link, and reads no other.
    let _server = fake(&folder, move |_, _| {
        counted.fetch_add(1, SeqCst);
        drop(closed.lock().unwrap());
    });
    let hub = Hub::builder().answer_timeout(Duration::from_millis(50)).connect(&hub_url(&folder)).unwrap();
    let text = "x".repeat(200_000); // soon more than its socket takes
    eventually("there is another link", || {
        assert!(is_unreachable(&hub.push(&nobody(), &text)));
        links.load(SeqCst) > 1
    });
    drop(held);
}

#[test]
fn an_answer_that_comes_late_is_not_taken_for_another() {
    let folder = Folder::new();
    let held = Arc::new(Mutex::new(Vec::new()));
    let kept = held.clone();
    let _server = fake(&folder, move |ws, message| {
        let is_first = kept.lock().unwrap().is_empty();
        kept.lock().unwrap().push(message.as_bytes().to_vec());
        if !is_first {
            // The second one is answered first, and at last the first, which nobody waits for.
            let kept = kept.lock().unwrap();
            let [first, .., last] = &kept[..] else { return };
            ws.write(Message::from(frame(number(last), SENT))).unwrap();
            if kept.len() == 2 {
                ws.write(Message::from(frame(number(first), &[3]))).unwrap();
            }
        }
    });
    let hub = Hub::builder().answer_timeout(Duration::from_secs(3)).connect(&hub_url(&folder)).unwrap();
    assert!(is_unreachable(&hub.push(&nobody(), "1")));
    for text in ["2", "3", "4"] {
        assert_eq!(hub.push(&nobody(), text).unwrap(), Pushed::Sent);
    }
}

#[test]
fn what_is_no_answer_ends_the_link_which_is_made_again() {
    for (what, answer) in [
        ("a cut frame", vec![1, 2, 3]),
        ("a frame that is too long", vec![255; 16]),
        ("an answer to nothing", frame([255; 4], SENT)),
        ("no answer at all", frame([0xee; 4], &[200, 200])),
        ("an answer to something else", frame([0xee; 4], &[1])),
        ("a delivery", frame([0xee; 4], &[18, 1, 1, 0, 1, 1, 65])),
    ] {
        let folder = Folder::new();
        let is_good = Arc::new(AtomicBool::new(false));
        let good = is_good.clone();
        let _server = fake(&folder, move |ws, message| {
            let number = number(message.as_bytes());
            if good.load(SeqCst) {
                ws.write(Message::from(frame(number, SENT))).unwrap();
                return;
            }
            let mut answer = answer.clone();
            if answer.get(4..8) == Some(&[0xee; 4]) {
                answer[4..8].copy_from_slice(&number);
            }
            ws.write(Message::from(answer)).unwrap();
        });
        let hub = Hub::connect(&hub_url(&folder)).unwrap();
        assert!(is_unreachable(&hub.push(&nobody(), "x")), "{what}");
        is_good.store(true, SeqCst);
        eventually("it is connected again", || hub.push(&nobody(), "x").is_ok());
    }
    // A text, and an end in the place of an answer.
    for is_text in [true, false] {
        let folder = Folder::new();
        let _server = fake(&folder, move |ws, _| match is_text {
            true => ws.write(Message::from("text")).unwrap(),
            false => ws.end_server(),
        });
        let hub = Hub::connect(&hub_url(&folder)).unwrap();
        let begun = Instant::now();
        assert!(is_unreachable(&hub.push(&nobody(), "x")));
        assert!(begun.elapsed() < PATIENCE);
    }
}

// Ledgers.

const PUSHERS: usize = 8;
const CLIENTS: usize = 500;

/// Pushes until the file `stop` is there, and writes down what became of each.
fn push_and_tell(folder: &Path, number: usize) {
    let hub = hub_of(folder);
    let mut log = String::new();
    let mut targets: Vec<(String, WebSocketId)> = Vec::new();
    let mut random = number as u64 + 1;
    let mut sequence = 0;
    let mut refreshed = Instant::now();
    while !folder.join("stop").exists() {
        if targets.is_empty() || refreshed.elapsed() > Duration::from_millis(200) {
            let all: Result<Vec<_>, _> = hub.all_connections(Audience::All).collect();
            let all = all.unwrap_or_default();
            targets = all.into_iter().map(|info| (info.path.to_string(), info.id)).collect();
            refreshed = Instant::now();
            if targets.is_empty() {
                thread::sleep(Duration::from_millis(5));
                continue;
            }
        }
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = |n: usize| &targets[((random >> 33) as usize + n * 7) % targets.len()];
        let batch: Vec<_> = (0..if random >> 63 == 0 { 1 } else { 8 })
            .map(|n| {
                sequence += 1;
                (at(n), format!("{number} {sequence}"))
            })
            .collect();
        let results = match &batch[..] {
            [(target, text)] => vec![hub.push(&target.1, text)],
            all => hub.push_all(all.iter().map(|(target, text)| (target.1, text))),
        };
        for ((target, text), result) in batch.iter().zip(results) {
            let what = match result {
                Ok(Pushed::Sent) => "sent",
                Ok(_) => "queued",
                Err(e) if matches!(e.kind, PushErrorKind::Unreachable) => "unreachable",
                Err(_) => "failed",
            };
            log.push_str(&format!("{text} {} {what}\n", target.0));
        }
        thread::sleep(Duration::from_millis(1));
    }
    fs::write(folder.join(format!("log-{number}")), log).unwrap();
}

#[test]
fn of_eight_processes_that_push_to_500_connections_each_message_is_accounted_for() {
    let folder = Folder::new();
    let mut server = Role::start("server", &folder, "");
    drop(hub_of(&folder));
    let connect = |n: usize| {
        let url = format!("unix:{}:/unread/{n}", folder.path("ws"));
        let builder = Client::builder(&url).reconnecting();
        builder.delays(Duration::from_millis(20), Duration::from_millis(300)).start().unwrap()
    };
    let clients: Vec<_> = (0..CLIENTS).map(connect).collect();
    let all_up = || clients.iter().all(|client| client.wait_up(PATIENCE));
    assert!(all_up());
    let mut pushers: Vec<_> = (0..PUSHERS).map(|n| Role::start("pusher", &folder, &n.to_string())).collect();
    let heard: Vec<Mutex<Vec<String>>> = clients.iter().map(|_| Mutex::default()).collect();
    let is_done = AtomicBool::new(false);
    let mut is_early = HashMap::new();
    thread::scope(|scope| {
        let _until = Until(&is_done);
        for part in 0..4 {
            let (clients, heard, is_done) = (&clients, &heard, &is_done);
            scope.spawn(move || {
                loop {
                    let is_last = is_done.load(SeqCst);
                    for n in (part..CLIENTS).step_by(4) {
                        hear(&clients[n], &mut heard[n].lock().unwrap());
                    }
                    if is_last {
                        break;
                    }
                    thread::sleep(Duration::from_millis(2));
                }
            });
        }
        for pause in [700, 300, 900] {
            thread::sleep(Duration::from_millis(pause));
            server.kill();
            server = Role::start("server", &folder, "");
            assert!(all_up());
        }
        thread::sleep(Duration::from_millis(700));
        fs::write(folder.join("stop"), "").unwrap();
        for pusher in &mut pushers {
            assert!(pusher.0.wait().unwrap().success());
        }
        let hub = hub_of(&folder);
        // Up is also who has not noticed yet that the last server was killed.
        eventually("all have come again", || hub.len().is_ok_and(|count| count == CLIENTS));
        // Whatever is queued is sent before this.
        for info in hub.all_connections(Audience::All) {
            let info = info.unwrap();
            is_early.insert(info.path.to_string(), hub.push_wait(&info.id, "end", PATIENCE).is_ok());
        }
        eventually("all have ended", || {
            heard.iter().all(|heard| heard.lock().unwrap().last().is_some_and(|last| last == "end"))
        });
    });
    assert_eq!(is_early.len(), CLIENTS);
    let mut fates = HashMap::new();
    let mut counts = HashMap::<String, usize>::new();
    for number in 0..PUSHERS {
        for line in fs::read_to_string(folder.join(format!("log-{number}"))).unwrap().lines() {
            let [pusher, sequence, path, fate] = line.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            *counts.entry(fate.to_owned()).or_default() += 1;
            fates.insert(format!("{pusher} {sequence}"), (path.to_owned(), fate.to_owned()));
        }
    }
    for (n, heard) in heard.into_iter().enumerate() {
        let mut last = [0; PUSHERS];
        for text in heard.into_inner().unwrap().iter().filter(|text| *text != "end") {
            let (pusher, sequence) = text.split_once(' ').unwrap();
            let (pusher, sequence): (usize, u64) = (pusher.parse().unwrap(), sequence.parse().unwrap());
            assert!(last[pusher] < sequence, "in order and once: {text} after {}", last[pusher]);
            last[pusher] = sequence;
            let (path, fate) = fates.remove(text).expect("it was pushed once");
            assert_eq!(path, format!("/unread/{n}"));
            assert_ne!(fate, "failed", "{text}");
        }
    }
    // What is left has not arrived.
    let lost = fates.values().filter(|(_, fate)| fate == "sent").count();
    assert_eq!(lost, 0, "sent and not there: {counts:?}");
    assert!(counts["sent"] > 1000, "{counts:?}");
}

fn hear(client: &Reconnecting, heard: &mut Vec<String>) {
    while let Ok(Some(message)) = client.try_read() {
        heard.push(message.as_text().unwrap().to_owned());
    }
}

/// Reads all connections, and writes down what it has done, as one that has to do something for each message. `by`: whether it
/// acknowledges by itself, or with the next read.
fn read_and_tell(folder: &Path, name: &str) {
    let by_delivery = name.starts_with('d');
    let hub = hub_of(folder);
    let mut log =
        OpenOptions::new().append(true).create(true).open(folder.join(format!("read-{name}"))).unwrap();
    // Each line at once, so that none is cut if this process is killed.
    let mut note =
        |text: &str, is_again: bool| log.write_all(format!("{text} {is_again}\n").as_bytes()).unwrap();
    let ids: Vec<_> = hub.all_connections(Audience::All).map(|info| info.unwrap().id).collect();
    let all: Vec<_> = ids.iter().map(|id| hub.open_server(id).unwrap()).collect();
    loop {
        for ws in &all {
            let wait = Duration::from_millis(2);
            if by_delivery {
                let Ok(delivery) = ws.read_delivery(usize::MAX, wait) else { continue };
                note(delivery.as_text().unwrap(), delivery.redelivered());
                delivery.ack();
            } else if let Ok(message) = ws.read_message(wait) {
                note(message.as_text().unwrap(), true);
            }
        }
    }
}

#[test]
fn whatever_reader_is_killed_no_message_is_lost() {
    const MESSAGES: usize = 1500;
    let folder = Folder::new();
    let _server = start(&folder);
    let clients: Vec<_> = (0..4).map(|n| client(&folder, &format!("/unread/{n}"))).collect();
    let mut random = 7_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let role = |n: usize| format!("{}{n}", ["d", "r"][n % 2]);
    let mut readers: Vec<_> = (0..3).map(|n| Role::start("reader", &folder, &role(n))).collect();
    let seen = || {
        let mut seen: HashMap<String, Vec<bool>> = HashMap::new();
        for n in 0..3 {
            let text = fs::read_to_string(folder.join(format!("read-{}", role(n)))).unwrap_or_default();
            // The last line may be about to be written.
            for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
                let (text, is_again) = line.rsplit_once(' ').unwrap();
                seen.entry(text.to_owned()).or_default().push(is_again == "true");
            }
        }
        seen
    };
    thread::scope(|scope| {
        for (n, client) in clients.iter().enumerate() {
            scope.spawn(move || {
                for message in 0..MESSAGES / 4 {
                    client.write(format!("{n}-{message}")).unwrap();
                    thread::sleep(Duration::from_millis(2));
                }
            });
        }
        for _ in 0..12 {
            thread::sleep(Duration::from_millis(80 + next(200)));
            let n = next(3) as usize;
            readers[n].kill();
            readers[n] = Role::start("reader", &folder, &role(n));
        }
    });
    let missing = || {
        let seen = seen();
        let all = (0..4).flat_map(|n| (0..MESSAGES / 4).map(move |message| format!("{n}-{message}")));
        all.filter(|text| !seen.contains_key(text)).collect::<Vec<_>>()
    };
    eventually_or(|| format!("never read: {:?}", missing()), || missing().is_empty());
    for (text, times) in seen() {
        let fresh = times.iter().filter(|is_again| !**is_again).count();
        assert!(fresh <= 1, "{text} was new {fresh} times");
    }
}

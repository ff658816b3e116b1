//! How the service is, for the service manager: that it is ready, reloads and stops, a line that says what it does, and a sign of
//! life as long as the server makes progress.

use std::{
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use log::error;
use rustix::time::{ClockId, clock_gettime};
use switchboard::{Server, ServerHandle};

use super::notifier::{Notifier, watchdog};

/// So many signs of life in the time that the manager waits for one: a server that was stuck for the most part of it, and goes on
/// again, is in time.
const SIGNS: u32 = 4;

/// How often the status is looked at where there is no watchdog.
const PAUSE: Duration = Duration::from_secs(5);

/// How often a server is asked whether it runs yet.
const START: Duration = Duration::from_secs(1);

/// Enough for a logger.
const STACK: usize = 128 * 1024;

/// The service, for whoever brings something about. Without a manager all of it does nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Service(Option<Arc<Told>>);

/// What the manager was told.
#[derive(Debug)]
struct Told {
    notifier: Notifier,
    watchdog: Option<Duration>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    is_ready: bool,
    is_stopping: bool,
    status: String,
}

impl Service {
    pub(crate) fn from_env() -> Self {
        Self::new(Notifier::from_env(), watchdog())
    }

    fn new(notifier: Option<Notifier>, watchdog: Option<Duration>) -> Self {
        Self(notifier.map(|notifier| Arc::new(Told { notifier, watchdog, state: Mutex::default() })))
    }

    /// Tells of this server, on a thread of its own: that it is ready, as soon as it runs, and from then on how it is.
    ///
    /// # Errors
    /// The system refuses to start the thread.
    pub(crate) fn watch(&self, server: &Server) -> io::Result<()> {
        let Some(told) = self.0.clone() else { return Ok(()) };
        let watch = Watch { told, server: server.handle(), places: places(server) };
        thread::Builder::new()
            .name("switchboard-life".into())
            .stack_size(STACK)
            .spawn(move || watch.run())?;
        Ok(())
    }

    /// Has the manager wait while this reloads what is to be reloaded.
    pub(crate) fn reload(&self, reload: &impl Fn()) {
        if let Some(told) = &self.0 {
            let now = clock_gettime(ClockId::Monotonic);
            let now = Duration::new(now.tv_sec as u64, now.tv_nsec as u32).as_micros(); // since the boot: never negative
            told.send_if_ready(&["RELOADING=1", &format!("MONOTONIC_USEC={now}")]);
        }
        reload();
        if let Some(told) = &self.0 {
            told.send_if_ready(&["READY=1"]);
        }
    }

    /// It stops; nothing more is told after this.
    pub(crate) fn stopping(&self, connections: usize) {
        let Some(told) = &self.0 else { return };
        let mut state = told.state();
        if !state.is_stopping {
            state.is_stopping = true;
            told.notifier.send(&["STOPPING=1", &format!("STATUS=Shutting down: {}", counted(connections))]);
        }
    }
}

impl Told {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send_if_ready(&self, lines: &[&str]) {
        let state = self.state(); // held, so that nothing comes in between
        if state.is_ready && !state.is_stopping {
            self.notifier.send(lines);
        }
    }

    /// Sends this line, if it is any, and the status, if it has changed. False: it stops.
    fn send_with_status(&self, line: Option<&str>, status: String) -> bool {
        let mut state = self.state();
        if state.is_stopping {
            return false;
        }
        state.is_ready = true;
        let has_changed = state.status != status;
        let text = format!("STATUS={status}");
        let lines: Vec<_> = line.into_iter().chain(has_changed.then_some(text.as_str())).collect();
        if !lines.is_empty() {
            self.notifier.send(&lines);
        }
        state.status = status;
        true
    }
}

/// The thread that tells.
struct Watch {
    told: Arc<Told>,
    server: ServerHandle,
    /// Where it listens.
    places: String,
}

impl Watch {
    fn run(self) {
        while self.server.check_progress(START).is_err() {
            if self.told.state().is_stopping {
                return; // it could not be started
            }
        }
        let mut goes_on = self.told.send_with_status(Some("READY=1"), self.status());
        while goes_on {
            goes_on = match self.told.watchdog {
                Some(watchdog) => self.feed(watchdog / SIGNS),
                None => {
                    thread::sleep(PAUSE);
                    self.told.send_with_status(None, self.status())
                }
            };
        }
    }

    /// A sign of life, if there is life, and a pause. Else the time has passed with waiting for it.
    fn feed(&self, pause: Duration) -> bool {
        let stuck = match self.server.check_progress(pause) {
            Ok(()) => {
                let goes_on = self.told.send_with_status(Some("WATCHDOG=1"), self.status());
                thread::sleep(pause);
                return goes_on;
            }
            Err(stuck) => stuck,
        };
        let status = format!("Stuck: {stuck}");
        let state = self.told.state();
        let is_new = !state.is_stopping && state.status != status;
        drop(state);
        if is_new {
            error!("the watchdog is not fed: {stuck}");
        }
        self.told.send_with_status(None, status)
    }

    fn status(&self) -> String {
        format!("{}; {}", counted(self.server.connections()), self.places)
    }
}

fn counted(connections: usize) -> String {
    let plural = if connections == 1 { "" } else { "s" };
    format!("{connections} connection{plural}")
}

fn places(server: &Server) -> String {
    let list = |all: &[switchboard::ListenAddr]| {
        let tls = |address| if server.is_tls(address) { " (TLS)" } else { "" };
        all.iter().map(|address| format!("{address}{}", tls(address))).collect::<Vec<_>>().join(", ")
    };
    let places = format!("listening on {}", list(server.local_addrs()));
    #[cfg(feature = "manage")]
    if !server.manage_addrs().is_empty() {
        return format!("{places}; managed on {}", list(server.manage_addrs()));
    }
    places
}

#[cfg(test)]
mod tests {
    use std::{
        env, fs,
        os::unix::net::UnixDatagram,
        path::PathBuf,
        sync::{
            atomic::{AtomicBool, Ordering::SeqCst},
            mpsc,
        },
        time::Instant,
    };

    use switchboard::{Handled, Limits, Message, Opening, Refusal, ServerResult, WebSocket, WebSocketServer};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    /// The watchdog of the tests.
    const WATCHDOG: Duration = Duration::from_secs(2);

    /// The manager's end, and what it was told.
    struct Manager {
        socket: UnixDatagram,
        path: PathBuf,
    }

    impl Manager {
        fn new(name: &str) -> (Self, Service) {
            let path = env::temp_dir().join(format!("switchboard-{name}-{}", std::process::id()));
            let _ = fs::remove_file(&path); // of a process that was killed
            let socket = UnixDatagram::bind(&path).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            let notifier = Notifier::new(path.as_os_str()).unwrap();
            (Self { socket, path }, Service::new(Some(notifier), Some(WATCHDOG)))
        }

        fn next(&self) -> String {
            let mut bytes = [0; 4096];
            let n = self.socket.recv(&mut bytes).unwrap();
            String::from_utf8_lossy(&bytes[..n]).into_owned()
        }

        fn is_fed_within(&self, time: Duration) -> bool {
            let begun = Instant::now();
            let left = || time.checked_sub(begun.elapsed()).filter(|left| !left.is_zero());
            let mut bytes = [0; 4096];
            let mut is_fed = false;
            while let Some(left) = left() {
                self.socket.set_read_timeout(Some(left)).unwrap();
                is_fed |= self.socket.recv(&mut bytes).is_ok_and(|n| bytes[..n].starts_with(b"WATCHDOG=1"));
            }
            self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
            is_fed
        }

        /// Whether it is not fed while what it watches is stuck. It may have been told so before, as on a machine that is slow: then
        /// one sign of life may have come in between.
        fn is_starved(&self) -> bool {
            (0..2).any(|_| !self.is_fed_within(2 * WATCHDOG))
        }

        /// Waits for a message with this, and returns it.
        fn message(&self, part: &str) -> String {
            let begun = Instant::now();
            loop {
                let message = self.next();
                if message.contains(part) {
                    return message;
                }
                assert!(begun.elapsed() < PATIENCE, "no message with {part:?}");
            }
        }
    }

    impl Drop for Manager {
        fn drop(&mut self) {
            let _ = fs::remove_file(&self.path);
        }
    }

    /// Its handler holds the gateway, as there are no workers, until it is let go. It tells that it does.
    struct Stuck(mpsc::Sender<()>, Arc<Mutex<mpsc::Receiver<()>>>);

    impl WebSocketServer for Stuck {
        fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
            opening.set_shared_connection(true);
            Ok(())
        }

        fn server(&mut self, _ws: &mut WebSocket) -> ServerResult {
            Ok(())
        }

        fn on_client_message(&mut self, ws: &WebSocket, _message: Message) -> Handled {
            self.0.send(()).unwrap();
            let _ = self.1.lock().unwrap().recv();
            let _ = ws.write("done");
            Handled::Yes
        }
    }

    #[test]
    fn a_stuck_gateway_starves_the_watchdog() {
        let (manager, service) = Manager::new("starving");
        let ((tell, held), (let_go, stuck)) = (mpsc::channel(), mpsc::channel());
        let stuck = Arc::new(Mutex::new(stuck));
        let mut limits = Limits::default();
        (limits.workers, limits.gateways) = (0, 2);
        let server = switchboard::Server::builder().listen("127.0.0.1:0").limits(limits);
        let server = server.route("/stuck", move || Stuck(tell.clone(), stuck.clone())).bind().unwrap();
        service.watch(&server).unwrap();
        let url = format!("ws://{}/stuck", server.local_addrs()[0]);
        let server = server.spawn().unwrap();
        let ready = manager.next();
        assert!(ready.starts_with("READY=1\nSTATUS=0 connections; listening on 127.0.0.1:"), "{ready:?}");
        manager.message("WATCHDOG=1");
        let client = switchboard::Client::connect(&url).unwrap();
        assert!(manager.message("STATUS=1 connection;").starts_with("WATCHDOG=1"));
        client.write("hold it").unwrap();
        held.recv_timeout(PATIENCE).unwrap();
        manager.message("STATUS=Stuck: no progress within 500ms: gateway ");
        assert!(manager.is_starved());
        let_go.send(()).unwrap();
        assert_eq!(client.read_message(PATIENCE).unwrap().as_text(), Some("done"));
        let told = manager.message("WATCHDOG=1");
        assert!(told.contains("STATUS=1 connection;"), "{told}");
        service.stopping(1);
        service.reload(&|| {});
        drop((client, server));
        assert_eq!(manager.message("STOPPING=1"), "STOPPING=1\nSTATUS=Shutting down: 1 connection");
        assert!(!manager.is_fed_within(WATCHDOG), "nothing is told after that");
    }

    /// An accepting thread that logs waits for it, as long as a test has this.
    static GATE: Mutex<()> = Mutex::new(());

    /// Whether one does.
    static IS_HELD: AtomicBool = AtomicBool::new(false);

    struct Log;

    impl log::Log for Log {
        fn enabled(&self, _: &log::Metadata<'_>) -> bool {
            true
        }

        fn log(&self, _: &log::Record<'_>) {
            if thread::current().name() == Some("switchboard-accept") {
                IS_HELD.fetch_or(GATE.try_lock().is_err(), SeqCst);
                drop(GATE.lock());
            }
        }

        fn flush(&self) {}
    }

    #[test]
    fn a_stuck_acceptor_starves_the_watchdog() {
        log::set_logger(&Log).unwrap();
        log::set_max_level(log::LevelFilter::Debug);
        let (manager, service) = Manager::new("not-accepting");
        let mut limits = Limits::default();
        limits.max_connections = 1;
        let server = switchboard::Server::builder().listen("127.0.0.1:0").limits(limits);
        let server = server.route("/", || crate::command::apps::Echo).bind().unwrap();
        service.watch(&server).unwrap();
        let address = server.local_addrs()[0].clone();
        let server = server.spawn().unwrap();
        let client = switchboard::Client::connect(&format!("ws://{address}/")).unwrap();
        manager.message("WATCHDOG=1");
        let gate = GATE.lock().unwrap();
        // Who is turned away has a line in the log at this level.
        let too_many = std::net::TcpStream::connect(address.tcp().unwrap()).unwrap();
        let begun = Instant::now();
        while !IS_HELD.load(SeqCst) {
            assert!(begun.elapsed() < PATIENCE, "nothing is logged");
            thread::sleep(Duration::from_millis(5));
        }
        manager.message(&format!("STATUS=Stuck: no progress within 500ms: accepting at {address}"));
        assert!(manager.is_starved());
        drop(gate);
        manager.message("WATCHDOG=1");
        drop((client, too_many, server));
    }

    #[test]
    fn without_a_manager_nothing_is_told() {
        let service = Service::new(None, Some(WATCHDOG));
        let server = switchboard::Server::builder().bind().unwrap();
        service.watch(&server).unwrap();
        let reloaded = std::cell::Cell::new(false);
        service.reload(&|| reloaded.set(true));
        service.stopping(0);
        assert!(reloaded.get());
    }
}

//! The clock: a thread that pushes the time every second to all connections on a path, through the hub. It sleeps while there
//! are none.

use std::{
    io,
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use switchboard::{
    Audience, Handled, Hub, Message, Opening, Refusal, ServerResult, WebSocket, WebSocketServer,
};

use super::apps::time_of_day;

pub(super) const PATH: &str = "/clock";

const SECOND: Duration = Duration::from_secs(1);

/// It pushes, and may log.
const STACK: usize = 128 * 1024;

enum Signal {
    /// A client has connected.
    Client,
    Stop,
}

/// The clock's thread. Dropping this ends it.
pub(super) struct Clock {
    signals: Sender<Signal>,
    /// For the thread, until it starts.
    receiver: Option<Receiver<Signal>>,
    thread: Option<JoinHandle<()>>,
}

impl Clock {
    pub(super) fn new() -> Self {
        let (signals, receiver) = mpsc::channel();
        Self { signals, receiver: Some(receiver), thread: None }
    }

    /// Makes the application of the path.
    pub(super) fn factory(&self) -> impl Fn() -> ClockSocket + Send + Sync + 'static {
        let signals = self.signals.clone();
        move || ClockSocket(signals.clone())
    }

    /// # Errors
    /// The system starts no thread for it.
    pub(super) fn start(&mut self, hub: Hub) -> io::Result<()> {
        if let Some(signals) = self.receiver.take() {
            let thread = thread::Builder::new().name("switchboard-clk".into()).stack_size(STACK);
            self.thread = Some(thread.spawn(move || run(&signals, &hub))?);
        }
        Ok(())
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = self.signals.send(Signal::Stop);
        if let Some(thread) = self.thread.take() {
            // The thread does not panic, and if it did, nothing could be done about it here.
            let _ = thread.join();
        }
    }
}

fn run(signals: &Receiver<Signal>, hub: &Hub) {
    while let Ok(Signal::Client) = signals.recv() {
        let mut next = Instant::now() + SECOND;
        loop {
            match signals.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Signal::Client) => {}
                Ok(Signal::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    match hub.broadcast(Audience::Path(PATH), time_of_day()) {
                        Ok(result) if result.sent + result.queued > 0 => {}
                        _ => break,
                    }
                    next += SECOND;
                }
            }
        }
    }
}

/// The application of one connection. It sends nothing itself, and only wakes the clock.
pub(super) struct ClockSocket(Sender<Signal>);

impl WebSocketServer for ClockSocket {
    fn on_pre_server(&mut self, opening: &mut Opening) -> Result<(), Refusal> {
        opening.set_shared_connection(true);
        Ok(())
    }

    fn server(&mut self, _ws: &mut WebSocket) -> ServerResult {
        Ok(self.0.send(Signal::Client)?)
    }

    fn on_client_message(&mut self, _ws: &WebSocket, _message: Message) -> Handled {
        Handled::Yes
    }
}

//! The clock: a thread that knows of no connection pushes the time each second to all on a path. It sleeps as long as nobody
//! is there.

use std::{
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

enum Signal {
    /// A client has come.
    Client,
    Stop,
}

/// Its thread. Dropping it ends it.
pub(super) struct Clock {
    signals: Sender<Signal>,
    waiting: Option<Receiver<Signal>>,
    thread: Option<JoinHandle<()>>,
}

impl Clock {
    pub(super) fn new() -> Self {
        let (signals, waiting) = mpsc::channel();
        Self { signals, waiting: Some(waiting), thread: None }
    }

    /// What serves the path.
    pub(super) fn factory(&self) -> impl Fn() -> Face + Send + Sync + 'static {
        let signals = self.signals.clone();
        move || Face(signals.clone())
    }

    /// Starts the thread.
    pub(super) fn start(&mut self, hub: Hub) {
        if let Some(signals) = self.waiting.take() {
            self.thread = Some(thread::spawn(move || run(&signals, &hub)));
        }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = self.signals.send(Signal::Stop);
        if let Some(thread) = self.thread.take() {
            // It cannot panic; if it did, there is nothing to be done about it now.
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
                    let told = hub.broadcast(Audience::Path(PATH), time_of_day());
                    if told.sent + told.queued == 0 {
                        break;
                    }
                    next += SECOND;
                }
            }
        }
    }
}

/// A client's side of it, which says nothing by itself.
pub(super) struct Face(Sender<Signal>);

impl WebSocketServer for Face {
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

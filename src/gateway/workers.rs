//! The threads that call handlers for the messages of shared connections. Without any, the gateway does it.

use std::{collections::VecDeque, io, sync::Arc, thread::JoinHandle};

use super::jobs::Jobs;
use crate::{
    connection::{Batch, Connection, Handler, Rest},
    limits::Limits,
    message::Message,
    thread::spawn,
};

/// With so many connections that wait, workers are woken at once.
const MANY: usize = 16;

/// So many messages of one connection are handled before others have their turn.
const TURN: usize = 64;

/// The worker threads.
#[derive(Debug)]
pub(super) struct Workers {
    dispatcher: Dispatcher,
    threads: Vec<JoinHandle<()>>,
}

/// Gives connections to the workers, if there are any.
#[derive(Clone, Debug, Default)]
pub(super) struct Dispatcher(Option<Arc<Jobs<Arc<Connection>>>>);

impl Workers {
    pub(super) fn start(limits: &Limits) -> io::Result<Self> {
        let jobs: Option<Arc<Jobs<_>>> = (limits.workers > 0).then(Arc::default);
        let mut workers = Self { dispatcher: Dispatcher(jobs.clone()), threads: Vec::new() };
        for jobs in std::iter::repeat_n(&jobs, limits.workers).flatten() {
            let jobs = jobs.clone();
            let run = move || run(&jobs);
            workers.threads.push(spawn("switchboard-work", limits.stack_size, run)?);
        }
        Ok(workers)
    }

    pub(super) fn dispatcher(&self) -> Dispatcher {
        self.dispatcher.clone()
    }

    /// Ends the threads, when everything that was given to them is done.
    pub(super) fn end(&mut self) {
        if let Some(jobs) = &self.dispatcher.0 {
            jobs.close();
        }
        super::join(&mut self.threads);
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.end();
    }
}

impl Dispatcher {
    /// Has the handler called of a connection that has [claimed](Connection::claims_handler) it: by a worker, who is woken when
    /// the gateway has done its turn, or here.
    pub(super) fn dispatch(&self, connection: &Arc<Connection>) {
        match &self.0 {
            Some(jobs) => match jobs.put(connection.clone()) {
                Ok(waiting) if waiting % MANY == 0 => jobs.wake(),
                Ok(_) => {}
                Err(connection) => while handle(&connection) {}, // the workers have ended
            },
            None => while handle(connection) {},
        }
    }

    /// Has the workers do what was given to them.
    pub(super) fn wake(&self) {
        if let Some(jobs) = &self.0 {
            jobs.wake();
        }
    }

    /// Whether the gateway calls the handlers itself.
    pub(super) fn is_gateway(&self) -> bool {
        self.0.is_none()
    }
}

fn run(jobs: &Jobs<Arc<Connection>>) {
    while let Some(connection) = jobs.take() {
        let mut goes_on = handle(&connection);
        if goes_on && let Err(connection) = jobs.put_back(connection) {
            while goes_on {
                goes_on = handle(&connection);
            }
        }
    }
}

/// Calls the handler for what waits, in order. True: there is more, but others have their turn first.
fn handle(connection: &Arc<Connection>) -> bool {
    let (mut handled, mut rest) = (0, Rest::default());
    while handled < TURN {
        match connection.next_batch(std::mem::take(&mut rest)) {
            Batch::Messages(handler, messages) => {
                handled += messages.len();
                rest = call(connection, handler, messages);
            }
            Batch::End(handler) => {
                handler.end(connection);
                return false;
            }
            Batch::Nothing => return false,
        }
    }
    connection.put_back(rest);
    true
}

/// Calls the handler for these messages, as long as the client takes the answers.
fn call(connection: &Arc<Connection>, handler: &dyn Handler, mut messages: VecDeque<Message>) -> Rest {
    let mut handled = 0;
    let mut next = || {
        if !connection.is_answerable() {
            return None;
        }
        let message = messages.pop_front()?;
        handled += message.len();
        Some((message, !messages.is_empty()))
    };
    handler.messages(connection, &mut std::iter::from_fn(&mut next));
    Rest { messages, handled }
}

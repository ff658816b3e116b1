//! How a connection calls the gateway: for output that the socket did not take, input that has to be driven, or a time
//! that has to be kept.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use crossbeam_channel::Sender;
use mio::Waker;

use super::Connection;

/// The gateway's bell. Connections hold it weakly: handles may outlive the server.
#[derive(Debug)]
pub(crate) struct Caller {
    calls: Sender<Arc<Connection>>,
    waker: Waker,
    /// The gateway looks at its calls every millisecond anyway.
    awake: AtomicBool,
    /// Work for those who call `on_client_message`; `None`: the gateway does it.
    jobs: Option<Sender<Job>>,
}

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Job {
    Work(Arc<Connection>),
    Stop,
}

impl Caller {
    pub(crate) fn new(calls: Sender<Arc<Connection>>, waker: Waker, jobs: Option<Sender<Job>>) -> Self {
        Self { calls, waker, awake: AtomicBool::new(false), jobs }
    }

    /// The gateway shall look at this connection, now.
    pub(super) fn call(&self, connection: &Arc<Connection>) {
        self.note(connection);
        self.wake();
    }

    /// The gateway shall look at this connection within a millisecond.
    pub(super) fn call_soon(&self, connection: &Arc<Connection>) {
        self.note(connection);
        if !self.awake.load(SeqCst) {
            self.wake();
        }
    }

    /// The gateway shall look at this connection when it happens to be awake, within a second.
    pub(super) fn note(&self, connection: &Arc<Connection>) {
        if !connection.called.swap(true, SeqCst) {
            // It fails when the gateway has ended: then the server has shut down, and has cut every connection itself.
            let _ = self.calls.send(connection.clone());
        }
    }

    /// Makes the gateway look around.
    pub(crate) fn wake(&self) {
        if let Err(e) = self.waker.wake()
            && e.kind() != io::ErrorKind::WouldBlock
        {
            log::error!("cannot wake the gateway: {e}");
        }
    }

    /// Told by the gateway.
    pub(crate) fn set_awake(&self, awake: bool) {
        self.awake.store(awake, SeqCst);
    }

    /// Whether the gateway itself calls `on_client_message`.
    pub(super) fn works_itself(&self) -> bool {
        self.jobs.is_none()
    }

    /// Gives a connection with messages to a worker; false: the caller has to do the work.
    pub(super) fn give_to_worker(&self, connection: &Arc<Connection>) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.send(Job::Work(connection.clone())).is_ok())
    }
}

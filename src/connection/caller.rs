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
use crate::jobs::Jobs;

/// The gateway's bell. Connections hold it weakly: handles may outlive the server.
#[derive(Debug)]
pub(crate) struct Caller {
    calls: Sender<Arc<Connection>>,
    waker: Waker,
    /// The gateway looks at its calls every millisecond anyway.
    awake: AtomicBool,
    /// Work for those who call `on_client_message`; `None`: the gateway does it.
    jobs: Option<Arc<Jobs<Arc<Connection>>>>,
}

/// With so many jobs, workers are woken at once.
const MANY: usize = 16;

impl Caller {
    pub(crate) fn new(
        calls: Sender<Arc<Connection>>,
        waker: Waker,
        jobs: Option<Arc<Jobs<Arc<Connection>>>>,
    ) -> Self {
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

    /// Gives a connection with messages to the workers, who are woken when the gateway has done its turn; false: the caller
    /// has to do the work.
    pub(super) fn give_to_worker(&self, connection: &Arc<Connection>) -> bool {
        let Some(jobs) = &self.jobs else { return false };
        let given = jobs.put(connection.clone());
        if given.as_ref().is_ok_and(|waiting| waiting % MANY == 0) {
            jobs.wake();
        }
        given.is_ok()
    }

    /// Has the workers do what was given to them.
    pub(crate) fn wake_workers(&self) {
        if let Some(jobs) = &self.jobs {
            jobs.wake();
        }
    }
}

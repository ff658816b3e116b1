//! How a connection calls the gateway: for output that the socket did not take, or a time that has to be kept.

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

/// The gateway's bell.
#[derive(Debug)]
pub(crate) struct Caller {
    calls: Sender<Arc<Connection>>,
    waker: Waker,
    /// The gateway looks at its calls every millisecond anyway.
    awake: AtomicBool,
}

impl Caller {
    pub(crate) fn new(calls: Sender<Arc<Connection>>, waker: Waker) -> Self {
        Self { calls, waker, awake: AtomicBool::new(false) }
    }

    /// The gateway shall look at this connection, now.
    pub(super) fn call(&self, connection: &Arc<Connection>) {
        if !connection.called.swap(true, SeqCst) {
            // It fails when the gateway has ended: then the server is shutting down, and cuts every connection itself.
            let _ = self.calls.send(connection.clone());
        }
        self.wake();
    }

    /// The gateway shall look at this connection within a millisecond.
    pub(super) fn call_soon(&self, connection: &Arc<Connection>) {
        if !connection.called.swap(true, SeqCst) {
            let _ = self.calls.send(connection.clone());
        }
        if !self.awake.load(SeqCst) {
            self.wake();
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
}

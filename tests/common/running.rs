//! A server whose addresses the test chooses.

use std::{thread::JoinHandle, time::Duration};

use switchboard::{ListenAddr, ServerBuilder, ServerError, ServerHandle};

/// A running server. Dropping it shuts it down without a grace period, and waits for its end.
pub struct Running {
    pub handle: ServerHandle,
    pub addresses: Vec<ListenAddr>,
    thread: Option<JoinHandle<Result<(), ServerError>>>,
}

impl Running {
    pub fn new(builder: ServerBuilder) -> Self {
        let server = builder.bind().unwrap();
        let (handle, addresses) = (server.handle(), server.local_addrs().to_vec());
        let thread = std::thread::spawn(move || server.run());
        Self { handle, addresses, thread: Some(thread) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.handle.shutdown(Duration::ZERO);
        let result = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            result.unwrap().unwrap().unwrap();
        }
    }
}

//! Starting threads.

use std::{
    io,
    thread::{Builder, JoinHandle},
};

/// Starts a thread.
///
/// # Errors
/// What the system says, with the size of the stack, which is the usual cause.
pub(crate) fn spawn(
    name: &str,
    stack_size: usize,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let started = Builder::new().name(name.into()).stack_size(stack_size).spawn(run);
    let explain = |e: &io::Error| format!("cannot start a thread with a stack of {stack_size} bytes: {e}");
    started.map_err(|e| io::Error::new(e.kind(), explain(&e)))
}

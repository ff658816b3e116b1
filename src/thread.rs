//! Starting threads; and those that must not wait.

use std::{
    cell::Cell,
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

thread_local! {
    static MUST_NOT_WAIT: Cell<bool> = const { Cell::new(false) };
}

/// Others wait for this thread, so it must not wait for them: calls that would wait do what they can at once.
pub(crate) fn forbid_waiting() {
    MUST_NOT_WAIT.set(true);
}

/// Whether this thread must not wait.
pub(crate) fn must_not_wait() -> bool {
    MUST_NOT_WAIT.get()
}

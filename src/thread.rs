//! Starting threads; whose they are; and those that must not wait.

#[cfg(feature = "manage")]
use std::thread::Scope;
use std::{
    cell::Cell,
    io,
    thread::{Builder, JoinHandle},
};

use crate::memory;

/// What a thread takes beside its stack when it starts: mostly a second one, for signals. If there is no memory for that, Rust ends the
/// process.
const BESIDE_STACK: u64 = 64 << 10;

/// Whether glibc keeps the stacks of threads that have ended for others, up to 40 MiB.
const KEEPS_STACKS: bool = cfg!(target_env = "gnu");

/// Starts a thread, of the same server as the one that starts it.
///
/// # Errors
/// What the system says, with the size of the stack, which is the usual cause.
pub(crate) fn spawn(
    name: &str,
    stack_size: usize,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    start(name, stack_size, stack_size, run)
}

/// The same where another one, with as large a stack, has ended before.
///
/// # Errors
/// As there.
pub(crate) fn spawn_again(
    name: &str,
    stack_size: usize,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    start(name, stack_size, if KEEPS_STACKS { 0 } else { stack_size }, run)
}

/// The same within a scope, which waits for its end.
///
/// # Errors
/// As there.
#[cfg(feature = "manage")]
pub(crate) fn spawn_scoped<'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    stack_size: usize,
    run: impl FnOnce() + Send + 'scope,
) -> io::Result<()> {
    let thread = Builder::new().name(name.into()).stack_size(stack_size);
    let started = check_memory(stack_size).and_then(|()| thread.spawn_scoped(scope, of_this_server(run)));
    started.map(drop).map_err(|e| explained(stack_size, &e))
}

fn start(
    name: &str,
    stack_size: usize,
    more: usize,
    run: impl FnOnce() + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let thread = Builder::new().name(name.into()).stack_size(stack_size);
    let started = check_memory(more).and_then(|()| thread.spawn(of_this_server(run)));
    started.map_err(|e| explained(stack_size, &e))
}

fn check_memory(stack: usize) -> io::Result<()> {
    let can_map = memory::can_map(stack as u64 + BESIDE_STACK);
    can_map.then_some(()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

fn of_this_server<'a>(run: impl FnOnce() + Send + 'a) -> impl FnOnce() + Send + 'a {
    let server = SERVER.get();
    move || {
        SERVER.set(server);
        run();
    }
}

fn explained(stack_size: usize, error: &io::Error) -> io::Error {
    let text = format!("cannot start a thread with a stack of {stack_size} bytes: {error}");
    io::Error::new(error.kind(), text)
}

thread_local! {
    static MUST_NOT_WAIT: Cell<bool> = const { Cell::new(false) };
    /// The server that this thread belongs to; 0: none.
    static SERVER: Cell<usize> = const { Cell::new(0) };
}

/// This thread, and those that it starts, belong to a server as long as this is not dropped.
pub(crate) struct Belonging {
    before: usize,
}

impl Belonging {
    /// `server` is a number that no other server has meanwhile, and not 0.
    pub(crate) fn to(server: usize) -> Self {
        Self { before: SERVER.replace(server) }
    }

    /// To no server.
    pub(crate) fn to_none() -> Self {
        Self { before: SERVER.replace(0) }
    }
}

impl Drop for Belonging {
    fn drop(&mut self) {
        SERVER.set(self.before);
    }
}

/// Whether this thread belongs to this server, which waits for it at its end.
pub(crate) fn belongs_to(server: usize) -> bool {
    SERVER.get() == server
}

/// Others wait for this thread, so it must not wait for them: calls that would wait do what they can at once.
pub(crate) fn forbid_waiting() {
    MUST_NOT_WAIT.set(true);
}

/// Whether this thread must not wait.
pub(crate) fn must_not_wait() -> bool {
    MUST_NOT_WAIT.get()
}

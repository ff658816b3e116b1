//! What ends a talk from outside: the end of the input, a signal, a reader of the output that is gone.

use std::{
    error::Error,
    process,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Sender, TrySendError};
use nix::sys::signal::Signal;

use super::typing::Prompt;
use crate::command::{
    codes::INTERRUPTED,
    signals::{Blocked, TWIN, is_ignored, let_through},
    terminal,
};

/// Whatever is being waited for, such as a reader of the output that takes nothing: so long after a signal, or after --timeout, the
/// process ends at the latest.
const GRACE: Duration = Duration::from_secs(10);

/// Enough to sleep.
const STACK: usize = 64 * 1024;

#[derive(Debug)]
pub(super) enum Control {
    /// All is sent that was to be sent; or what failed.
    InputEnded(Result<(), String>),
    OutputClosed,
    Interrupted,
}

/// Tells of the first SIGINT, SIGTERM or SIGHUP. At a second one, or before there is a connection, the process ends at once. A
/// SIGHUP that was ignored when the program was started, as by `nohup`, stays so.
pub(super) fn watch_signals(
    tell: Sender<Control>,
    is_connected: Arc<AtomicBool>,
) -> Result<(), Box<dyn Error>> {
    if is_ignored(Signal::SIGHUP) {
        Blocked::new(Signal::SIGHUP)?;
    }
    let mut first = None::<Instant>;
    ctrlc::set_handler(move || match first {
        None if is_connected.load(SeqCst) => {
            first = Some(Instant::now());
            exit_after(Duration::ZERO, INTERRUPTED);
            // There is room, or nobody listens any more.
            let _: Result<(), TrySendError<_>> = tell.try_send(Control::Interrupted);
        }
        Some(first) if first.elapsed() < TWIN => {}
        _ => exit(INTERRUPTED),
    })?;
    Ok(())
}

/// Ends the process some time after this one, if it has not ended then.
pub(super) fn exit_after(time: Duration, code: u8) {
    let wait = move || {
        thread::sleep(time.saturating_add(GRACE));
        exit(code);
    };
    drop(thread::Builder::new().name("switchboard-end".into()).stack_size(STACK).spawn(wait)); // without a thread, it may take longer
}

fn exit(code: u8) -> ! {
    terminal::give_back();
    process::exit(code.into());
}

/// Has Ctrl-Z give the terminal to whoever has started this process, until that has it go on. To be called before the first thread is
/// started.
pub(super) fn watch_stops(prompt: &Arc<Prompt>) -> Result<(), Box<dyn Error>> {
    let prompt = prompt.clone();
    Blocked::new(Signal::SIGTSTP)?.watch(move || {
        // What fails here leaves it running, or its terminal gone, which a read tells.
        let _ = prompt.lend(|| {
            let _ = let_through(Signal::SIGTSTP);
        });
    })?;
    Ok(())
}

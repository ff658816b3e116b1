//! The terminal, as long as a table is on it: whatever ends the process gives it back as it was.

use std::{
    fs::File,
    io, mem,
    os::fd::AsFd,
    panic, process,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;

use crate::command::{
    codes::INTERRUPTED,
    logging::write,
    remote::failure::Failure,
    signals::{Blocked, let_through},
    terminal,
};

/// Whoever draws, or gives the terminal back, has it for that time.
static DRAWING: Mutex<()> = Mutex::new(());

/// What is on it is not what was drawn last.
static IS_STALE: AtomicBool = AtomicBool::new(false);

/// A terminal that takes nothing does not keep the process from ending for longer.
const PATIENCE: Duration = Duration::from_secs(1);

fn drawing() -> MutexGuard<'static, ()> {
    DRAWING.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct Screen {
    sink: File,
    shown: Vec<String>,
    size: (usize, usize),
}

impl Screen {
    /// Has the terminal until this is dropped, or the process ends, also by a panic.
    pub(super) fn begin() -> Result<Self, Failure> {
        let sink = io::stdout().as_fd().try_clone_to_owned().map_err(|e| Failure::output(&e))?;
        let told = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            terminal::give_back(); // so that it is seen
            told(info);
        }));
        let _drawing = drawing();
        terminal::take_screen().map_err(|e| Failure::output(&e))?;
        Ok(Self { sink: sink.into(), shown: Vec::new(), size: (0, 0) })
    }

    /// Shows the lines of a frame of the size that there is now, as far as they are others than before.
    pub(super) fn draw(&mut self, frame: impl FnOnce((usize, usize)) -> Vec<String>) -> Result<(), Failure> {
        let size = terminal::size();
        let lines = frame(size);
        let _drawing = drawing();
        let is_new = IS_STALE.swap(false, SeqCst) || size != self.size;
        let mut out = String::new();
        if is_new {
            out.push_str("\x1b[0m\x1b[H\x1b[2J");
            self.shown.clear();
        }
        self.shown.resize(lines.len(), String::new());
        for (row, (line, shown)) in lines.into_iter().zip(&mut self.shown).enumerate() {
            if line != *shown {
                out.push_str(&format!("\x1b[{};1H{line}\x1b[0m\x1b[K", row + 1));
                *shown = line;
            }
        }
        self.size = size;
        write(&mut self.sink, out.as_bytes()).map_err(|e| Failure::output(&e))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _drawing = drawing();
        terminal::give_back();
    }
}

/// Has Ctrl-Z give the terminal to whoever has started this process, until that has it go on. To be called before the first thread is
/// started.
pub(super) fn watch_stops() -> Result<(), Failure> {
    let failed = |e: &dyn std::error::Error| Failure::other(e.to_string());
    let blocked = Blocked::new(Signal::SIGTSTP).map_err(|e| failed(&e))?;
    let stop = || {
        let _drawing = drawing();
        let was_taken = terminal::give_back();
        let _ = let_through(Signal::SIGTSTP);
        if was_taken {
            let _ = terminal::take_screen(); // if it is gone, a key says so
        }
        IS_STALE.store(true, SeqCst);
    };
    blocked.watch(stop).map_err(|e| failed(&e))
}

/// Has SIGINT, SIGTERM and SIGHUP give it back before they end the process.
pub(super) fn watch_ends() -> Result<(), Failure> {
    let end = || {
        // Without a thread, it ends all the same, if the terminal takes what it is told.
        let _ = thread::Builder::new().spawn(|| {
            thread::sleep(2 * PATIENCE);
            process::exit(INTERRUPTED.into());
        });
        mem::forget(drawing_soon()); // nothing is drawn any more
        terminal::give_back();
        process::exit(INTERRUPTED.into());
    };
    ctrlc::set_handler(end).map_err(|e| Failure::other(e.to_string()))
}

/// The right to draw, if whoever has it gives it back soon.
fn drawing_soon() -> Option<MutexGuard<'static, ()>> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Ok(drawing) = DRAWING.try_lock() {
            return Some(drawing);
        }
        thread::sleep(Duration::from_millis(5));
    }
    None
}

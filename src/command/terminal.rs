//! The terminal that lines are typed at, or a table is shown on. While this program has it, it gives each key as it is pressed, and
//! shows none; whatever ends the program gives it back as it was.

use std::{
    env,
    fs::File,
    io::{self, IsTerminal},
    os::fd::AsFd,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::termios::{
    LocalModes, OptionalActions::Now, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};

use super::logging::write;

/// Of one that does not say how large it is.
const COLUMNS: usize = 80;
const ROWS: usize = 24;

/// To another screen, which is empty, without a cursor, and where a line that is too long does not go on in the next.
const TO_SCREEN: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H\x1b[2J";
const FROM_SCREEN: &[u8] = b"\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l";

/// How it was before it was taken.
static BEFORE: Mutex<Option<Before>> = Mutex::new(None);

struct Before {
    modes: Termios,
    /// It shows another screen now.
    has_screen: bool,
}

fn before() -> MutexGuard<'static, Option<Before>> {
    BEFORE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether there is one for input and output, which can erase a line.
pub(super) fn is_there() -> bool {
    let can_erase = env::var_os("TERM").is_some_and(|term| !term.is_empty() && term != "dumb");
    can_erase && io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// From now on it gives keys, but for those that are signals.
pub(super) fn take() -> io::Result<()> {
    let stdin = io::stdin();
    let mut before = before();
    let mut modes = tcgetattr(&stdin)?;
    *before = Some(Before { modes: modes.clone(), has_screen: false });
    modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    modes.special_codes[SpecialCodeIndex::VMIN] = 1;
    modes.special_codes[SpecialCodeIndex::VTIME] = 0;
    Ok(tcsetattr(&stdin, Now, &modes)?)
}

/// The same, and from now on it shows another screen.
pub(super) fn take_screen() -> io::Result<()> {
    take()?;
    if let Some(before) = &mut *before() {
        before.has_screen = true;
    }
    tell(TO_SCREEN).inspect_err(|_| _ = give_back())
}

/// It is as it was. False: it was not taken.
pub(super) fn give_back() -> bool {
    let before = before().take();
    if let Some(Before { modes, has_screen }) = &before {
        // It may be gone.
        let _ = tcsetattr(io::stdin(), Now, modes);
        if *has_screen {
            let _ = tell(FROM_SCREEN);
        }
    }
    before.is_some()
}

fn tell(sequence: &[u8]) -> io::Result<()> {
    write(&mut File::from(io::stdout().as_fd().try_clone_to_owned()?), sequence)
}

/// How wide it is now.
pub(super) fn columns() -> usize {
    size().0
}

/// How many columns and rows it has now.
pub(super) fn size() -> (usize, usize) {
    let or = |size: u16, other| if size > 0 { size.into() } else { other };
    tcgetwinsize(io::stdout())
        .map_or((COLUMNS, ROWS), |size| (or(size.ws_col, COLUMNS), or(size.ws_row, ROWS)))
}

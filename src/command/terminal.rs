//! The terminal that lines are typed at. While this program shows them itself, it gives each key as it is pressed, and shows
//! none; whatever ends the program gives it back as it was.

use std::{
    env,
    io::{self, IsTerminal},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::termios::{
    LocalModes, OptionalActions::Now, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr,
};

/// Of one that does not say how wide it is.
const COLUMNS: usize = 80;

/// How it was before it was taken.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

fn before() -> MutexGuard<'static, Option<Termios>> {
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
    *before = Some(modes.clone());
    modes.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
    modes.special_codes[SpecialCodeIndex::VMIN] = 1;
    modes.special_codes[SpecialCodeIndex::VTIME] = 0;
    Ok(tcsetattr(&stdin, Now, &modes)?)
}

/// It is as it was. False: it was not taken.
pub(super) fn give_back() -> bool {
    let modes = before().take();
    if let Some(modes) = &modes {
        let _ = tcsetattr(io::stdin(), Now, modes); // it may be gone
    }
    modes.is_some()
}

/// How wide it is now.
pub(super) fn columns() -> usize {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 => size.ws_col.into(),
        _ => COLUMNS,
    }
}

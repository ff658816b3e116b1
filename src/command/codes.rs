//! The exit codes, which the help of each subcommand explains.

pub(super) const DONE: u8 = 0;
pub(super) const NO_CONNECTION: u8 = 1;
pub(super) const USAGE: u8 = 2;
pub(super) const REFUSED: u8 = 3;
pub(super) const ENDED: u8 = 4;
pub(super) const TIMED_OUT: u8 = 5;
pub(super) const INTERRUPTED: u8 = 130;

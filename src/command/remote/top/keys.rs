//! Keys, as a terminal sends them.

use std::{
    io::{self, Read, Stdin},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use crate::command::remote::failure::Failure;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Character(char),
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Escape,
    Erase,
    /// Erases all.
    Clear,
    /// There will be no more keys.
    Quit,
}

pub(super) struct Keys(crate::command::stdin::Stdin);

impl Keys {
    pub(super) fn new() -> Result<Self, Failure> {
        crate::command::stdin::Stdin::new().map(Self).map_err(|e| Failure::input(&e))
    }

    /// Those that are pressed within this time, as soon as there is one.
    pub(super) fn pressed(&mut self, within: Duration) -> Result<Vec<Key>, Failure> {
        let stdin: Stdin = io::stdin();
        let timeout = Timespec::try_from(within).ok();
        match poll(&mut [PollFd::new(&stdin, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) => return Ok(Vec::new()),
            Ok(_) => {}
            Err(e) => return Err(Failure::input(&e.into())),
        }
        let mut bytes = [0; 256];
        match self.0.read(&mut bytes) {
            Ok(0) => Ok(vec![Key::Quit]),
            Ok(n) => Ok(keys(&bytes[..n])),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(Vec::new()),
            Err(e) => Err(Failure::input(&e)), // the terminal has gone
        }
    }
}

/// What bytes that come together stand for. What is unknown stands for nothing.
fn keys(bytes: &[u8]) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        let (key, length) = match first {
            0x1b => escape(after),
            b'\r' | b'\n' => (Some(Key::Enter), 1),
            0x04 => (Some(Key::Quit), 1),
            0x08 | 0x7f => (Some(Key::Erase), 1),
            0x15 => (Some(Key::Clear), 1),
            ..0x20 => (None, 1),
            _ => character(rest),
        };
        keys.extend(key);
        rest = rest.get(length..).unwrap_or_default();
    }
    keys
}

/// A key that begins with Esc, or that itself, and how many bytes it has.
fn escape(after: &[u8]) -> (Option<Key>, usize) {
    if !matches!(after.first(), Some(b'[' | b'O')) {
        return (Some(Key::Escape), 1);
    }
    let parameters = after[1..].iter().take_while(|byte| matches!(byte, b'0'..=b';')).count();
    let key = match (after.get(1..1 + parameters), after.get(1 + parameters)) {
        (Some(b""), Some(b'A')) => Some(Key::Up),
        (Some(b""), Some(b'B')) => Some(Key::Down),
        (Some(b""), Some(b'H')) | (Some(b"1" | b"7"), Some(b'~')) => Some(Key::Home),
        (Some(b""), Some(b'F')) | (Some(b"4" | b"8"), Some(b'~')) => Some(Key::End),
        (Some(b"5"), Some(b'~')) => Some(Key::PageUp),
        (Some(b"6"), Some(b'~')) => Some(Key::PageDown),
        _ => None,
    };
    (key, 3 + parameters)
}

fn character(bytes: &[u8]) -> (Option<Key>, usize) {
    let text = bytes.get(..bytes.len().min(4)).unwrap_or_default();
    let valid = match str::from_utf8(text) {
        Ok(text) => text,
        Err(e) => str::from_utf8(&text[..e.valid_up_to()]).unwrap_or_default(),
    };
    match valid.chars().next() {
        Some(c) if c.is_control() => (None, c.len_utf8()),
        Some(c) => (Some(Key::Character(c)), c.len_utf8()),
        None => (None, 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_terminals() {
        use Key::{Character, Down, End, Enter, Erase, Escape, Home, PageDown, PageUp, Up};
        for (bytes, expected) in [
            (&b"qS/"[..], &[Character('q'), Character('S'), Character('/')][..]),
            (b"\x1b[A\x1b[B\x1bOA\x1bOB", &[Up, Down, Up, Down]),
            (b"\x1b[5~\x1b[6~\x1b[H\x1b[F\x1b[1~\x1b[4~", &[PageUp, PageDown, Home, End, Home, End]),
            (b"\x1b", &[Escape]),
            (b"\x1b[1;5Ax\x1b[20~", &[Character('x')]),
            ("ä日\r\x7f".as_bytes(), &[Character('ä'), Character('日'), Enter, Erase]),
            (b"\xff\xc3a\x1b[", &[Character('a')]),
            (b"\x1b[1", &[]),
        ] {
            assert_eq!(keys(bytes), expected, "{bytes:?}");
        }
    }
}

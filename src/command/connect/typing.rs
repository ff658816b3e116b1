//! The line that is being typed stays below the messages, which would otherwise be written into its middle.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read},
    mem,
    os::fd::AsFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::command::{
    escaped::escaped,
    logging::write,
    terminal::{columns, give_back, take},
};

/// To the beginning of the row, and nothing is in it any more.
const ERASE: &[u8] = b"\r\x1b[K";

/// The last row of a terminal. What is written there without it would be mixed with what is typed.
pub(super) struct Prompt(Mutex<Row>);

struct Row {
    sink: File,
    line: Line,
}

impl Row {
    fn redraw(&mut self) -> io::Result<()> {
        let shown = self.line.shown(columns());
        write(&mut self.sink, &[ERASE, shown.as_bytes()].concat())
    }
}

impl Prompt {
    /// For lines up to `max` bytes.
    pub(super) fn new(max: usize) -> io::Result<Self> {
        let sink = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self(Mutex::new(Row { sink, line: Line { bytes: Vec::new(), max, escape: Escape::None } })))
    }

    /// Has the terminal for itself until what this returns is dropped.
    pub(super) fn begin(&self) -> io::Result<Begun<'_>> {
        take()?;
        Ok(Begun(self))
    }

    /// Has whole lines written above what is being typed.
    pub(super) fn above(&self, lines: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
        let mut row = self.row();
        let Row { sink, line } = &mut *row;
        let shown = line.shown(columns());
        if shown.is_empty() {
            return lines(sink);
        }
        write(sink, ERASE)?;
        lines(sink)?;
        write(sink, shown.as_bytes())
    }

    /// Lets somebody else have the terminal as long as this takes.
    pub(super) fn lend(&self, to: impl FnOnce()) -> io::Result<()> {
        let mut row = self.row();
        let was_taken = give_back();
        to();
        if was_taken {
            take()?;
            row.redraw()?;
        }
        Ok(())
    }

    /// Keys were pressed. Lines that are ready are put there. True: there are no more.
    fn press(&self, keys: &[u8], ready: &mut VecDeque<u8>) -> io::Result<bool> {
        let mut row = self.row();
        let mut out = ERASE.to_vec();
        let mut has_ended = false;
        for &key in keys {
            match row.line.press(key) {
                Pressed::Key => {}
                Pressed::Enter => {
                    let line = mem::take(&mut row.line.bytes);
                    out.extend(escaped(&String::from_utf8_lossy(&line)).bytes().chain(*b"\n"));
                    ready.extend(line.into_iter().chain(*b"\n"));
                }
                Pressed::End => {
                    has_ended = true;
                    break;
                }
            }
        }
        out.extend(row.line.shown(columns()).bytes());
        write(&mut row.sink, &out)?;
        Ok(has_ended)
    }

    fn row(&self) -> MutexGuard<'_, Row> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The terminal is as it was when this is dropped, and its last row empty.
pub(super) struct Begun<'a>(&'a Prompt);

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        give_back();
        // Whoever has it may be waiting for the terminal, for ever.
        if let Ok(mut row) = self.0.0.try_lock()
            && !row.line.bytes.is_empty()
        {
            let _ = write(&mut row.sink, b"\n");
        }
    }
}

/// Lines as they are typed, each with its newline.
pub(super) struct Typed<R> {
    keys: R,
    prompt: Arc<Prompt>,
    ready: VecDeque<u8>,
    has_ended: bool,
}

impl<R: Read> Typed<R> {
    pub(super) fn new(keys: R, prompt: Arc<Prompt>) -> Self {
        Self { keys, prompt, ready: VecDeque::new(), has_ended: false }
    }
}

impl<R: Read> Read for Typed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.ready.is_empty() && !self.has_ended {
            let mut keys = [0; 4096];
            self.has_ended = match self.keys.read(&mut keys)? {
                0 => true,
                n => self.prompt.press(&keys[..n], &mut self.ready)?,
            };
        }
        self.ready.read(buffer)
    }
}

/// What has been typed of it.
#[derive(Debug)]
struct Line {
    bytes: Vec<u8>,
    /// It is ended beyond that.
    max: usize,
    escape: Escape,
}

/// Where in the sequence of a key such as an arrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    None,
    Begun,
    Sequence,
}

#[derive(Debug, PartialEq, Eq)]
enum Pressed {
    Key,
    Enter,
    End,
}

impl Line {
    /// What a terminal itself knows: to erase a character, a word (Ctrl-W), the line (Ctrl-U), and to end (Ctrl-D). Arrows and the
    /// like do nothing.
    fn press(&mut self, key: u8) -> Pressed {
        match (mem::replace(&mut self.escape, Escape::None), key) {
            (Escape::Begun, b'[' | b'O') => self.escape = Escape::Sequence,
            (Escape::Begun, b' '..) | (Escape::Sequence, b'@'..) => {}
            (Escape::Sequence, b' '..) => self.escape = Escape::Sequence,
            (_, 0x1b) => self.escape = Escape::Begun,
            (_, b'\n' | b'\r') => return Pressed::Enter,
            (_, 0x04) if self.bytes.is_empty() => return Pressed::End,
            (_, 0x08 | 0x7f) => self.erase_character(),
            (_, 0x15) => self.bytes.clear(),
            (_, 0x17) => self.erase_word(),
            (_, 0 | b'\t' | b' '..) => self.bytes.push(key),
            _ => {}
        }
        if self.bytes.len() > self.max { Pressed::Enter } else { Pressed::Key }
    }

    fn erase_character(&mut self) {
        while self.bytes.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {} // all of its UTF-8
    }

    fn erase_word(&mut self) {
        for is_space in [true, false] {
            let is_kept = |byte: &u8| (*byte == b' ') != is_space;
            let end = self.bytes.iter().rposition(is_kept).map_or(0, |last| last + 1);
            self.bytes.truncate(end);
        }
    }

    /// As much of its end as fits into a row, and leaves room for the cursor.
    fn shown(&self, columns: usize) -> String {
        let tail = &self.bytes[self.bytes.len().saturating_sub(columns.saturating_mul(4))..];
        let text = escaped(&String::from_utf8_lossy(tail)).replace('\t', " ");
        let room = columns.saturating_sub(2);
        let mut width = 0;
        let mut chars = text.char_indices().rev();
        match chars.find(|&(_, c)| {
            width += widest(c);
            width > room
        }) {
            Some((at, c)) => format!("<{}", &text[at + c.len_utf8()..]),
            None => text,
        }
    }
}

/// The columns that it takes at most: those that are not of the West are often wide.
fn widest(c: char) -> usize {
    if c < '\u{1100}' { 1 } else { 2 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[u8]) -> Line {
        let mut line = Line { bytes: Vec::new(), max: 1000, escape: Escape::None };
        for &key in keys {
            assert_eq!(line.press(key), Pressed::Key, "{key}");
        }
        line
    }

    #[test]
    fn keys_edit_the_line() {
        for (keys, text) in [
            ("größe\x7f\x08", "grö"),
            ("ab\u{1f389}\x7f\x7fc", "ac"),
            ("\x7f\x7fa", "a"),
            ("one two  \x17x", "one x"),
            ("\x17one\x17", ""),
            ("one two\x15x", "x"),
            ("a\x1b[A\x1b[1;5Db\x1bOPc\x1bxd", "abcd"),
            ("a\x04\x01\x0bb\tc\0", "ab\tc\0"),
        ] {
            assert_eq!(String::from_utf8(typed(keys.as_bytes()).bytes).unwrap(), text, "{keys:?}");
        }
    }

    #[test]
    fn a_line_ends_by_enter_at_its_bound_and_typing_by_ctrl_d() {
        let mut line = typed(b"x");
        assert_eq!((line.press(b'\n'), line.press(b'\r')), (Pressed::Enter, Pressed::Enter));
        line.bytes.clear();
        assert_eq!(line.press(4), Pressed::End);
        line.max = 1;
        assert_eq!((line.press(b'x'), line.press(b'x')), (Pressed::Key, Pressed::Enter));
    }

    #[test]
    fn the_end_of_a_long_line_is_shown() {
        for (text, columns, shown) in [
            ("", 5, ""),
            ("abc", 5, "abc"),
            ("abcdef", 5, "<def"),
            ("\u{65e5}\u{672c}\u{8a9e}", 6, "<\u{672c}\u{8a9e}"),
            ("a\tb", 5, "a b"),
            ("\u{202e}", 20, "\\u{202e}"),
        ] {
            assert_eq!(typed(text.as_bytes()).shown(columns), shown, "{text:?}");
        }
        assert_eq!(typed(b"\xff").shown(5), "\u{fffd}");
    }
}

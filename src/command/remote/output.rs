//! Standard output, for lines and messages.

use std::{
    fs::File,
    io::{self, IsTerminal},
    mem,
    os::fd::AsFd,
    process,
};

use super::{
    failure::Failure,
    table::{Column, Layout},
};
use crate::command::{codes::DONE, logging::write, reader, terminal};

/// So much is written together.
const TOGETHER: usize = 64 << 10;

pub(super) struct Output {
    sink: File,
    pending: Vec<u8>,
}

impl Output {
    pub(super) fn new() -> Result<Self, Failure> {
        // A descriptor of our own: that of std would look for line ends.
        let sink = io::stdout().as_fd().try_clone_to_owned().map_err(|e| Failure::output(&e))?;
        Ok(Self { sink: sink.into(), pending: Vec::new() })
    }

    /// Ends the process as soon as nobody reads what it writes: it may wait for long until there is something.
    pub(super) fn end_without_reader(&self) -> Result<(), Failure> {
        let watch = || reader::watch(self.sink.try_clone()?, || process::exit(DONE.into()));
        watch().map_err(|e| Failure::output(&e))
    }

    /// How wide a terminal is, if it is one.
    fn width(&self) -> Option<usize> {
        self.sink.is_terminal().then(terminal::columns)
    }

    /// Takes a line, which is written with others.
    pub(super) fn line(&mut self, line: &str) -> Result<(), Failure> {
        self.pending.extend_from_slice(line.as_bytes());
        self.pending.push(b'\n');
        if self.pending.len() < TOGETHER { Ok(()) } else { self.flush() }
    }

    /// Takes a table, as wide as a terminal is, if it is one.
    pub(super) fn table(&mut self, columns: &[Column], rows: &[Vec<String>]) -> Result<(), Failure> {
        let layout = Layout::new(columns, rows, self.width());
        self.line(&layout.head(columns))?;
        rows.iter().try_for_each(|row| self.line(&layout.row(columns, row)))
    }

    /// What is written next.
    pub(super) fn pending(&mut self) -> &mut Vec<u8> {
        &mut self.pending
    }

    /// Writes what was taken.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        write(&mut self.sink, &mem::take(&mut self.pending)).map_err(|e| Failure::output(&e))
    }
}

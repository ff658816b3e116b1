//! Answers on their way out: those to what came together go together.

use std::sync::Mutex;

use super::Peer;
use crate::{
    error::Result,
    sync::LockExt,
    wire::{Answer, Failure, HEADER, UNANSWERED, append, as_usize},
};

/// From so many bytes on what is collected is sent, although there is more to answer.
const MUCH: usize = 64 << 10;

/// Where the answers of a talk go.
pub(super) struct Line<'a> {
    peer: &'a dyn Peer,
    /// The longest message that the other side takes.
    takes: usize,
    /// Of the threads that have waited one encodes and writes at a time: so what they hold while the other side takes nothing is one
    /// answer, and not one of each.
    turn: Mutex<()>,
}

impl<'a> Line<'a> {
    pub(super) fn new(peer: &'a dyn Peer, takes: u64) -> Self {
        Self { peer, takes: as_usize(takes).max(LEAST), turn: Mutex::default() }
    }

    pub(super) fn peer(&self) -> &'a dyn Peer {
        self.peer
    }

    /// Sends one answer at once. False: it is longer than what the other side takes, which is told so.
    pub(super) fn send(&self, number: u32, answer: &Answer<'_>) -> bool {
        let _turn = self.turn.locked();
        let mut replies = Replies::new(self);
        let fits = replies.put(number, answer);
        // If the link has ended, its own thread sees that.
        let _ = replies.flush();
        fits
    }
}

/// Answers that are collected.
pub(super) struct Replies<'a> {
    line: &'a Line<'a>,
    frames: Vec<u8>,
    /// How the writes went until now.
    written: Result<()>,
}

impl<'a> Replies<'a> {
    pub(super) fn new(line: &'a Line<'a>) -> Self {
        Self { line, frames: Vec::new(), written: Ok(()) }
    }

    /// Adds an answer. False: it is longer than what the other side takes, which is told so.
    pub(super) fn put(&mut self, number: u32, answer: &Answer<'_>) -> bool {
        if number == UNANSWERED {
            return true;
        }
        let start = self.frames.len();
        let is_done = append(&mut self.frames, number, answer).is_ok();
        let length = self.frames.len() - start;
        let fits = is_done && length <= self.line.takes;
        if !fits {
            self.frames.truncate(start);
            let _ = append(&mut self.frames, number, &Answer::Failed(Failure::TooLong)); // it is short
        }
        if start > 0 && self.frames.len() > self.line.takes {
            let last = self.frames.split_off(start);
            self.write();
            self.frames = last;
        }
        if self.frames.len() >= MUCH {
            self.write();
        }
        fits
    }

    fn write(&mut self) {
        let frames = std::mem::take(&mut self.frames);
        if self.written.is_ok() && !frames.is_empty() {
            self.written = self.line.peer.send(frames);
        }
    }

    /// Sends what is left.
    ///
    /// # Errors
    /// The link has ended.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.write();
        std::mem::replace(&mut self.written, Ok(()))
    }
}

/// Whoever says to take less does not take a failure.
const LEAST: usize = HEADER + 64;

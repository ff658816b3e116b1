//! How much is decoded at a time: whoever sends much, or what takes long to decode, does not keep others waiting.

/// What is left of a piece of work. The unit is about a nanosecond; what a frame or a byte takes is estimated, and rather too
/// much.
///
/// When it is done there may be more to decode, also without another byte: whoever decodes comes back with a new piece.
#[derive(Debug)]
pub(crate) struct Work(usize);

/// So much is decoded before others have their turn, and before others have the connection's lock.
const PIECE: usize = 100_000;

/// A frame: its header, and a pong that may have to be sent for it.
const FRAME: usize = 30;

/// A message: its memory, and that it is handed to somebody.
const MESSAGE: usize = 1000;

/// A system call that receives, and what goes with it.
const RECEIVE: usize = 1000;

/// To lock a connection, and to find nothing.
const LOOK: usize = 200;

/// A new stream of compressed blocks.
const RESTART: usize = 200;

/// Of these, so many bytes are a unit.
const RECEIVED: usize = 4;
const COPIED: usize = 8;

/// A byte of compressed blocks, many of which may inflate to nothing.
const DEFLATED: usize = 8;

impl Work {
    /// A piece of the usual size.
    pub(crate) const fn piece() -> Self {
        Self(PIECE)
    }

    /// A piece of any size.
    #[cfg(any(test, fuzzing, feature = "__bench"))]
    pub(crate) const fn of(units: usize) -> Self {
        Self(units)
    }

    /// It is done: there may be more to decode.
    pub(crate) fn is_done(&self) -> bool {
        self.0 == 0
    }

    fn take(&mut self, units: usize) {
        self.0 = self.0.saturating_sub(units);
    }

    /// So many bytes, or none, were received.
    pub(crate) fn receive(&mut self, bytes: usize) {
        self.take(RECEIVE + bytes / RECEIVED);
    }

    /// Somebody looks at a connection, whatever comes of it.
    pub(crate) fn look(&mut self) {
        self.take(LOOK);
    }

    pub(crate) fn messages(&mut self, count: usize) {
        self.take(count * MESSAGE);
    }

    /// A frame, with so many bytes of it.
    pub(super) fn frame(&mut self, bytes: usize) {
        self.take(FRAME + bytes / COPIED);
    }

    pub(super) fn payload(&mut self, bytes: usize) {
        self.take(bytes / COPIED);
    }

    /// A stream of blocks began that may refer to so many bytes.
    pub(super) fn restart(&mut self, history: usize) {
        self.take(RESTART + history / COPIED);
    }

    pub(super) fn inflate(&mut self, read: usize, written: usize) {
        self.take(read * DEFLATED + written);
    }
}

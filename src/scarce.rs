//! Memory for what a peer makes large, where there is little: it is asked for, and whoever gets none can say so. What is small
//! is not asked for; for that a part is kept back.

use std::{
    collections::TryReserveError,
    sync::{Mutex, OnceLock},
};

use crate::{
    memory::{Kind, Usage},
    sync::LockExt,
};

/// Less than this is small.
const LARGE: usize = 16 * 1024;

/// There is no memory for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Short;

/// A part of the memory is not for what is large.
#[derive(Debug)]
struct Scarce {
    usage: Usage,
    /// Up to so much of each kind.
    most: Vec<(Kind, u64)>,
    /// Who asks has it until the memory is taken: so nobody takes what another one was promised.
    asking: Mutex<()>,
}

/// Of the process, since memory is. `None`: there is enough, or it cannot be told.
static SCARCE: OnceLock<Scarce> = OnceLock::new();

/// From now on what is large may make the process use so much of each kind. Once: the first one counts. Where nothing is said,
/// nothing is asked.
pub(crate) fn limit(most: Vec<(Kind, u64)>) {
    if let Some(usage) = Usage::open().filter(|_| !most.is_empty()) {
        let _ = SCARCE.set(Scarce { usage, most, asking: Mutex::default() });
    }
}

/// What grows with what a peer sends.
pub(crate) trait Buffer {
    fn len(&self) -> usize;
    fn capacity(&self) -> usize;
    fn try_reserve(&mut self, more: usize) -> Result<(), TryReserveError>;
    fn try_reserve_exact(&mut self, more: usize) -> Result<(), TryReserveError>;
}

macro_rules! buffer {
    ($type:ty) => {
        impl Buffer for $type {
            fn len(&self) -> usize {
                self.len()
            }
            fn capacity(&self) -> usize {
                self.capacity()
            }
            fn try_reserve(&mut self, more: usize) -> Result<(), TryReserveError> {
                self.try_reserve(more)
            }
            fn try_reserve_exact(&mut self, more: usize) -> Result<(), TryReserveError> {
                self.try_reserve_exact(more)
            }
        }
    };
}

buffer!(Vec<u8>);
buffer!(String);

/// Makes room for so many more bytes.
pub(crate) fn grow(buffer: &mut impl Buffer, more: usize) -> Result<(), Short> {
    if more <= buffer.capacity() - buffer.len() { Ok(()) } else { grow_by_much(buffer, more) }
}

#[inline(never)]
fn grow_by_much(buffer: &mut impl Buffer, more: usize) -> Result<(), Short> {
    let size = buffer.len().saturating_add(more);
    let doubled = size.max(buffer.capacity().saturating_mul(2));
    let grown = match SCARCE.get() {
        Some(scarce) if doubled >= LARGE => {
            let _asking = scarce.asking.locked();
            if scarce.has(doubled) {
                buffer.try_reserve(more)
            } else if scarce.has(size) {
                buffer.try_reserve_exact(more)
            } else {
                return Err(Short);
            }
        }
        _ => buffer.try_reserve(more),
    };
    grown.map_err(|_| Short)
}

/// Whether there are so many bytes. It is a guess: others may take them.
pub(crate) fn has(bytes: usize) -> bool {
    SCARCE.get().is_none_or(|scarce| scarce.has(bytes))
}

impl Scarce {
    fn has(&self, bytes: usize) -> bool {
        let Some(used) = self.usage.read() else { return true };
        self.most.iter().all(|&(kind, most)| used.of(kind).saturating_add(bytes as u64) <= most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_grow_as_others_do() {
        let mut buffer = Vec::new();
        for _ in 0..100_000 {
            grow(&mut buffer, 3).unwrap();
            buffer.extend_from_slice(b"abc");
        }
        assert!(buffer.capacity() < 2 * 300_000 && has(1 << 20));
        assert_eq!(grow(&mut buffer, usize::MAX), Err(Short));
    }

    #[cfg(all(target_os = "linux", target_pointer_width = "64"))] // one of 32 bits may be emulated, and not know
    #[test]
    fn what_is_kept_back_is_not_there() {
        let usage = Usage::open().unwrap();
        let used = usage.read().unwrap().of(Kind::Addresses);
        let most = vec![(Kind::Addresses, used + (1 << 30))];
        let scarce = Scarce { usage, most, asking: Mutex::default() };
        assert!(scarce.has(1 << 20) && !scarce.has(2 << 30));
    }
}

//! Calls of code that is not ours, and may panic.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls it. `None`: it panicked. What it was working on may be half done, and is only dropped afterwards.
///
/// What is dropped *within* a call that panics must not panic as well, or the process is aborted: so values whose `drop` is not
/// ours either are dropped by a call of their own.
pub(crate) fn caught<T>(call: impl FnOnce() -> T) -> Option<T> {
    let payload = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(value) => return Some(value),
        Err(payload) => payload,
    };
    // The value that it panicked with may be of any type, with a `drop` that panics.
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(again);
    }
    None
}

#[cfg(test)]
mod tests {
    use std::panic::panic_any;

    use super::*;

    struct Spiteful;

    impl Drop for Spiteful {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic_any(Spiteful);
            }
        }
    }

    #[test]
    fn a_panic_is_none_whatever_it_panics_with() {
        assert_eq!(caught(|| 5), Some(5));
        assert_eq!(caught(|| panic!("text")), None::<()>);
        assert_eq!(caught(|| panic_any(Spiteful)), None::<()>);
        assert!(caught(|| drop(Spiteful)).is_none());
    }
}

//! Whether this machine's clock was set: one without a battery boots in 1970, and learns the time later, or never.

use std::{
    env, fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::dates::date;

/// When this was written, where the program's file has no date: 2026-11-01.
const WRITTEN: Duration = Duration::from_secs(1_793_491_200);

/// Clocks of machines that build and machines that serve differ.
const TOLERANCE: Duration = Duration::from_secs(24 * 60 * 60);

/// What there is to say of a clock that is before the program itself.
pub(super) fn warning() -> Option<String> {
    warning_at(SystemTime::now(), made())
}

/// When the program's file was made, or this source code.
fn made() -> SystemTime {
    let file = env::current_exe().and_then(fs::metadata).and_then(|file| file.modified());
    file.unwrap_or(UNIX_EPOCH).max(UNIX_EPOCH + WRITTEN)
}

fn warning_at(now: SystemTime, made: SystemTime) -> Option<String> {
    let is_before = made.duration_since(now).is_ok_and(|difference| difference > TOLERANCE);
    is_before.then(|| {
        format!(
            "this machine's clock says {}, and this program was made at {}: until the clock is set, dates are wrong, and certificates \
             of clients are taken for not yet valid; whatever waits does not depend on it",
            date(now),
            date(made)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_before_the_program_is_not_set() {
        assert_eq!(warning(), None);
        let told = warning_at(UNIX_EPOCH + Duration::from_secs(5), made()).unwrap();
        assert!(
            told.contains("clock says 1970-01-01 00:00:05 UTC, and this program was made at 20"),
            "{told}"
        );
        assert!(warning_at(made() - 2 * TOLERANCE, made()).is_some());
        assert_eq!(warning_at(made() - TOLERANCE, made()), None);
        assert!(warning_at(UNIX_EPOCH - TOLERANCE, made()).is_some());
    }
}

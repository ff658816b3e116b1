//! The date of a response (RFC 9110, section 6.6.1), by the wall clock as it is now: a machine without a battery boots in 1970,
//! and learns the time later.

use std::time::{SystemTime, UNIX_EPOCH};

use httpdate::HttpDate;

use crate::sync::{LockExt, Mutex};

/// The first second whose year has five digits, for which there is no format.
const YEAR_10000: u64 = 253_402_300_800;

/// The last second in which there was a response, and its line, such as `date: Sun, 06 Nov 1994 08:49:37 GMT`.
static LAST: Mutex<(u64, String)> = Mutex::new((u64::MAX, String::new()));

/// Appends the line; nothing if the clock is out of range, since a server without a clock has no date to send.
pub(super) fn push_date(head: &mut Vec<u8>) {
    push_date_of(SystemTime::now(), head);
}

fn push_date_of(now: SystemTime, head: &mut Vec<u8>) {
    let Ok(since) = now.duration_since(UNIX_EPOCH) else { return };
    if since.as_secs() >= YEAR_10000 {
        return;
    }
    let mut last = LAST.locked();
    if last.0 != since.as_secs() {
        *last = (since.as_secs(), format!("date: {}\r\n", HttpDate::from(now)));
    }
    head.extend_from_slice(last.1.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn any_time_of_the_clock() {
        let at = |seconds| {
            let mut head = Vec::new();
            push_date_of(UNIX_EPOCH + Duration::from_secs(seconds), &mut head);
            String::from_utf8(head).unwrap()
        };
        assert_eq!(at(784_111_777), "date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
        assert_eq!(at(784_111_777), at(784_111_777));
        assert_eq!(at(0), "date: Thu, 01 Jan 1970 00:00:00 GMT\r\n");
        assert_eq!(at(YEAR_10000 - 1), "date: Fri, 31 Dec 9999 23:59:59 GMT\r\n");
        assert_eq!(at(YEAR_10000), "");
        let mut head = Vec::new();
        push_date_of(UNIX_EPOCH - Duration::from_secs(1), &mut head);
        assert!(head.is_empty());
    }
}

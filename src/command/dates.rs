//! Dates, as the command prints them.

use std::time::{SystemTime, UNIX_EPOCH};

use time::{OffsetDateTime, macros::format_description};

/// A date as ISO 8601 has it, in UTC: `2026-11-26T14:25:30.123Z`.
pub(super) fn iso(date: SystemTime) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    at(date).format(format).unwrap_or_default()
}

/// The same for people: `2026-11-26 14:25:30 UTC`.
pub(super) fn date(date: SystemTime) -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    at(date).format(format).unwrap_or_default()
}

/// What is before 1970, or beyond all calendars, counts as that.
fn at(date: SystemTime) -> OffsetDateTime {
    let since = date.duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = since.as_nanos().try_into().unwrap_or_default();
    OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates() {
        let moment = UNIX_EPOCH + Duration::from_millis(951_782_400_001);
        assert_eq!(iso(moment), "2000-02-29T00:00:00.001Z");
        assert_eq!(date(moment), "2000-02-29 00:00:00 UTC");
        assert_eq!(iso(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01T00:00:00.000Z");
        if let Some(late) = UNIX_EPOCH.checked_add(Duration::from_secs(1 << 50)) {
            assert_eq!(iso(late), "1970-01-01T00:00:00.000Z");
        }
    }
}

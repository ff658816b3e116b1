//! Times, as the options take them: in seconds.

use std::time::Duration;

/// One above 0.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    seconds(text)
        .filter(|time| !time.is_zero())
        .ok_or_else(|| "must be a number of seconds above 0, such as 5 or 0.5".into())
}

/// One, or as long as it takes.
pub(super) fn wait(text: &str) -> Result<Duration, String> {
    match text {
        "forever" => Ok(Duration::MAX),
        _ => seconds(text).ok_or_else(|| "must be a number of seconds, or forever".into()),
    }
}

fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}
